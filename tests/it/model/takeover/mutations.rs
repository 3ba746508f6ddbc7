//! Planted bugs: each of them must be caught, or the rules are not really watched.
//!
//! The shipped planner stays as it is. A bug is a lie told to it, a change made to its answer, or a change of how the
//! world takes its orders.

use quorate::config::Settings;
use quorate::model::*;
use quorate::plan::plan;

use super::sight::machine_number;
use super::world::{BACK, LOST};
use crate::planner::scene;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The charter is written whatever its version is.
    CharterWithoutCondition,
    /// A slot's record is written whatever it has become.
    RecordWithoutCondition,
    /// A machine that does not answer is taken for one that EC2 calls gone.
    SilenceIsGone,
    /// That EC2 does not find a machine is believed at once.
    NotFoundIsGone,
    /// A slot is taken over though a machine without one is in its zone.
    SpareIgnored,
    /// A slot is not given back, and its member is removed though it lives.
    AnswerIgnored,
    /// A volume is attached wherever its slot is.
    AttachedElsewhere,
    /// A removed member's data are started again.
    RemovedDataReused,
    /// A volume is let go while its member is listed.
    LetGoThoughListed,
    /// A volume of a slot that is elsewhere is set aside although its member is listed.
    SetAsideThoughListed,
    /// Others' learners and locks are ignored.
    OthersIgnored,
    /// Who holds the volume that was left behind is not looked at.
    HolderIgnored,
}

impl Mutation {
    /// The planner's answer with the bug in it.
    pub fn answer(self, settings: &Settings, observation: &Observation, me: u8) -> Plan {
        let mut seen = observation.clone();
        self.lie(&mut seen, me);
        let mut plan = plan(settings, &seen);
        self.change(&mut plan, observation);
        plan
    }

    fn lie(self, seen: &mut Observation, me: u8) {
        match self {
            Self::SilenceIsGone => {
                let silent = silent_machine(seen);
                if let Fact::Known(instances) = &mut seen.instances
                    && let Some(instance) = silent.and_then(|id| instances.get_mut(&id))
                {
                    instance.state = InstanceState::ShuttingDown;
                }
            }
            Self::NotFoundIsGone => {
                if let Fact::Known(instances) = &mut seen.instances {
                    for instance in instances.values_mut().filter(|i| i.state == InstanceState::NotFound) {
                        instance.state = InstanceState::Terminated;
                    }
                }
            }
            Self::SpareIgnored => {
                if let Fact::Known(instances) = &mut seen.instances {
                    let other = |id: &InstanceId| {
                        [LOST, BACK].contains(&machine_number(id)) && machine_number(id) != me
                    };
                    instances.iter_mut().filter(|(id, _)| other(id)).for_each(|(_, i)| i.role = None);
                }
            }
            Self::AnswerIgnored => {
                if let Fact::Known(view) = &mut seen.etcd.cluster {
                    for (id, member) in &mut view.members {
                        if id.0 > 2 {
                            member.healthy = Fact::unknown("not asked");
                        }
                    }
                }
            }
            Self::AttachedElsewhere => {
                let attached = seen.disk.known().is_some_and(Option::is_some);
                let here = seen.identity.known().map(|me| me.zone.clone()).unwrap();
                if let Fact::Known(Some(charter)) = &mut seen.charter
                    && !attached
                {
                    charter.value.zones[2] = here;
                }
            }
            Self::OthersIgnored => {
                let here = seen.identity.known().map(Identity::peer_url).unwrap();
                if let Fact::Known(view) = &mut seen.etcd.cluster {
                    view.lock = None;
                    view.members.retain(|_, m| !m.learner || m.peer_urls.contains(&here));
                }
            }
            Self::HolderIgnored => {
                let here = scene::instance(me);
                if let Fact::Known(volumes) = &mut seen.volumes {
                    for volume in volumes.values_mut() {
                        if volume.holder().is_some_and(|holder| *holder != here) {
                            volume.attachment = None;
                        }
                    }
                }
            }
            Self::CharterWithoutCondition
            | Self::RecordWithoutCondition
            | Self::RemovedDataReused
            | Self::LetGoThoughListed
            | Self::SetAsideThoughListed => {}
        }
    }

    fn change(self, plan: &mut Plan, seen: &Observation) {
        let elsewhere = seen.charter.known().cloned().flatten().is_some_and(|charter| {
            let here = seen.identity.known().map(|me| &me.zone);
            charter.value.zone_of(scene::slot(3)) != here && plan.report.slot == Some(scene::slot(3))
        });
        let starts = plan.steps.iter().any(|step| matches!(step, Step::StartEtcd { .. }));
        let me = seen.identity.known().unwrap().instance.clone();
        match self {
            Self::RemovedDataReused => {
                let aside =
                    |step: &Step| matches!(step, Step::SetDataAside { because } if because == "removed");
                if plan.steps.iter().any(aside) {
                    plan.steps = vec![Step::StartEtcd { after: 0 }];
                }
            }
            Self::LetGoThoughListed => {
                if elsewhere
                    && starts
                    && let Fact::Known(Some(disk)) = &seen.disk
                {
                    let volume = disk.volume.clone();
                    plan.steps = vec![Step::Unmount, Step::DetachVolume { volume, instance: me }];
                }
            }
            Self::SetAsideThoughListed => {
                if elsewhere && starts {
                    plan.steps = vec![Step::SetDataAside { because: "elsewhere".to_owned() }];
                }
            }
            _ => {}
        }
    }
}

/// The machine of slot 3's record, when its member does not answer.
fn silent_machine(seen: &Observation) -> Option<InstanceId> {
    let view = seen.etcd.cluster.known()?;
    let record = view.records.get(&scene::slot(3))?;
    let member = view.members.get(&record.member?)?;
    (!member.healthy.is_known()).then(|| record.instance.clone())
}
