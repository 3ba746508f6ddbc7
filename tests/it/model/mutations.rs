//! Planted bugs: each of them must be caught, or the rules are not really watched.
//!
//! The shipped planner stays as it is. A bug is a lie told to it, a change made to its answer, or a
//! change of how the world takes its orders.

use std::collections::BTreeMap;

use quorate::config::Settings;
use quorate::model::charter::CharterChange;
use quorate::model::*;
use quorate::plan::plan;

use super::acts::is_mark;
use super::patiently;
use super::sight::{numbers, slot_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The charter is written whatever its version is.
    CharterWithoutCondition,
    /// A write whose answer is lost is taken for done.
    LostAnswerIsSuccess,
    /// A step that fails does not end the plan.
    FailureIgnored,
    /// The mark is set after etcd was started.
    StartedAfterStart,
    /// The mark is never set.
    NeverMarked,
    /// The stamp is written after etcd was started.
    StampAfterStart,
    /// No answer about EC2's volumes and machines is taken for their absence.
    UnknownIsAbsent,
    /// A new generation is founded although a majority has started, by its marks and its tags.
    RefoundThoughEstablished,
    /// A mark is withdrawn without looking for data.
    WithdrawWithoutLooking,
    /// A wiped volume starts as `new` again.
    WipedStartsNew,
    /// Signs of an earlier life are ignored when the charter is missing.
    CharterLostIgnored,
    /// A member is removed because it does not answer.
    RemovedForSilence,
    /// A volume that can't be seen here is taken for gone.
    VolumeElsewhereIsGone,
    /// A removed member's data are started again.
    RemovedDataReused,
    /// Others' learners and locks are ignored.
    TwoLearners,
    /// A learner gets its vote before it is in sync.
    PromotedEarly,
    /// Data are set aside while the member is still one.
    LeavesThoughMember,
    /// The volumes of others are taken for gone when no quorum answers.
    RecoveredThoughOneLives,
    /// "Not found" is believed when it is said once.
    RecoveredOnOneNotFound,
    /// A recovery that can't begin is followed by an empty founding.
    RecoveryRefoundedEmpty,
    /// Where data should be restored, etcd starts as `new`.
    NewInPlaceOfRestored,
    /// Data that were lost after their mark are restored once more.
    RestoredAgain,
}

impl Mutation {
    /// The planner's answer with the bug in it.
    pub fn answer(self, settings: &Settings, observation: &Observation, slot: u8) -> Plan {
        let mut seen = observation.clone();
        self.lie(&mut seen, slot);
        let mut plan = if self == Self::RecoveredOnOneNotFound {
            patiently(&mut seen, |seen| plan(settings, seen), |on| !matches!(on, WaitingOn::InSync))
        } else {
            plan(settings, &seen)
        };
        self.change(&mut plan, observation);
        plan
    }

    fn lie(self, seen: &mut Observation, slot: u8) {
        match self {
            Self::UnknownIsAbsent => {
                if !seen.volumes.is_known() {
                    seen.volumes = Fact::Known(none_but_own(seen, slot));
                    seen.instances = Fact::Known(BTreeMap::new());
                }
            }
            Self::CharterLostIgnored => {
                if seen.charter == Fact::Known(None) {
                    forget_life(seen);
                }
            }
            Self::RefoundThoughEstablished => {
                let own = own_volume(seen);
                if let Fact::Known(Some(charter)) = &mut seen.charter
                    && charter.value.founders.iter().all(|founder| founder.volume != own)
                {
                    charter.value.founders.iter_mut().for_each(|founder| founder.started = None);
                    forget_tags(seen, None);
                }
            }
            Self::WithdrawWithoutLooking => {
                let Fact::Known(Some(charter)) = &seen.charter else { return };
                let here = seen.identity.known().map(Identity::peer_url);
                let moved = charter.value.founder(slot_of(slot)).map(|f| f.peer_url.clone()) != here;
                let generation = charter.value.generation;
                let starting =
                    |state| matches!(state, StampState::Starting { generation: g, .. } if g == generation);
                if moved && stamp(seen).is_some_and(starting) {
                    holds(seen).into_iter().for_each(|holds| holds.data = DataDir::Absent);
                }
            }
            Self::WipedStartsNew => {
                let blank = stamp(seen) == Some(StampState::Formatted)
                    && holds(seen).is_some_and(|holds| holds.data == DataDir::Absent);
                if blank {
                    forget_tags(seen, Some(slot));
                    if let Fact::Known(Some(charter)) = &mut seen.charter {
                        let own = charter.value.founders.iter_mut().find(|f| f.slot == slot_of(slot));
                        own.into_iter().for_each(|founder| founder.started = None);
                    }
                    seen.etcd.cluster = Fact::unknown("not asked");
                }
            }
            Self::VolumeElsewhereIsGone => {
                let me = numbers(own_volume(seen).as_str());
                if let Fact::Known(volumes) = &mut seen.volumes {
                    for (id, volume) in volumes.iter_mut() {
                        let other = numbers(id.as_str());
                        if other.0 == me.0 && other.1 != me.1 {
                            volume.state = VolumeState::Deleted;
                        }
                    }
                }
            }
            Self::RecoveredThoughOneLives => {
                let own = own_volume(seen);
                if let (Fact::Known(volumes), false) = (&mut seen.volumes, seen.etcd.cluster.is_known()) {
                    let others = volumes.iter_mut().filter(|(id, _)| **id != own);
                    others.for_each(|(_, volume)| volume.state = VolumeState::Deleted);
                }
            }
            Self::RestoredAgain => {
                let blank = holds(seen).is_some_and(|holds| holds.data == DataDir::Absent);
                if let Fact::Known(Some(charter)) = &mut seen.charter
                    && blank
                    && charter.value.recovery.is_some()
                {
                    let own = charter.value.founders.iter_mut().find(|f| f.slot == slot_of(slot));
                    own.into_iter().for_each(|founder| founder.started = None);
                }
            }
            Self::TwoLearners => {
                let own = seen.etcd.own.known().map(|own| own.member);
                let here = seen.identity.known().map(Identity::peer_url).unwrap();
                if let Fact::Known(view) = &mut seen.etcd.cluster {
                    view.lock = None;
                    view.members
                        .retain(|id, m| !m.learner || Some(*id) == own || m.peer_urls.contains(&here));
                }
            }
            Self::PromotedEarly => {
                if let Fact::Known(own) = &mut seen.etcd.own {
                    own.in_sync = true;
                }
            }
            Self::LeavesThoughMember => {
                let learner = seen.etcd.own.known().is_none_or(|own| own.learner);
                if let Fact::Known(view) = &mut seen.etcd.cluster
                    && !learner
                    && view.members.values().any(|member| !member.healthy.is_known())
                {
                    view.members.clear();
                }
            }
            Self::CharterWithoutCondition
            | Self::LostAnswerIsSuccess
            | Self::FailureIgnored
            | Self::StartedAfterStart
            | Self::NeverMarked
            | Self::StampAfterStart
            | Self::RemovedForSilence
            | Self::RecoveredOnOneNotFound
            | Self::RecoveryRefoundedEmpty
            | Self::NewInPlaceOfRestored
            | Self::RemovedDataReused => {}
        }
    }

    fn change(self, plan: &mut Plan, seen: &Observation) {
        let position = |plan: &Plan, what: fn(&Step) -> bool| plan.steps.iter().position(what);
        let start = position(plan, |step| matches!(step, Step::StartEtcd { .. }));
        match self {
            Self::StartedAfterStart => {
                if let (Some(mark), Some(start)) = (position(plan, is_mark), start) {
                    let step = plan.steps.remove(mark);
                    plan.steps.insert(start, step);
                }
            }
            Self::NeverMarked => {
                if start.is_some() {
                    plan.steps.retain(|step| !is_mark(step));
                }
            }
            Self::StampAfterStart => {
                let stamp = position(
                    plan,
                    |step| matches!(step, Step::WriteStamp { stamp } if matches!(stamp.state, StampState::Starting { .. })),
                );
                if let (Some(stamp), Some(start)) = (stamp, start) {
                    let step = plan.steps.remove(stamp);
                    plan.steps.insert(start, step);
                }
            }
            Self::RemovedForSilence => {
                let own = seen.etcd.own.known().map(|own| own.member);
                if let Fact::Known(view) = &seen.etcd.cluster
                    && plan.steps.is_empty()
                    && own.is_some_and(|own| view.members.contains_key(&own))
                {
                    let silent = view.members.iter().find(|(_, m)| !m.learner && !m.healthy.is_known());
                    if let (Some((id, _)), Some(me)) = (silent, seen.identity.known()) {
                        plan.steps = vec![
                            Step::TakeMembershipLock { instance: me.instance.clone() },
                            Step::RemoveMember { member: *id },
                        ];
                    }
                }
            }
            Self::RecoveryRefoundedEmpty => {
                for step in &mut plan.steps {
                    if let Step::AmendCharter { charter, change: CharterChange::Refound, .. } = step {
                        charter.recovery = None;
                    }
                }
            }
            Self::NewInPlaceOfRestored => {
                if let Some(Step::RestoreData { launch, .. }) = plan.steps.last().cloned() {
                    plan.steps.pop();
                    let launch = EtcdLaunch { state: LaunchState::New, ..launch };
                    plan.steps.extend([Step::ConfigureEtcd { launch }, Step::StartEtcd { after: 0 }]);
                }
            }
            Self::RemovedDataReused => {
                let aside =
                    |step: &Step| matches!(step, Step::SetDataAside { because } if because == "removed");
                if plan.steps.iter().any(aside) {
                    plan.steps = vec![Step::StartEtcd { after: 0 }];
                }
            }
            _ => {}
        }
    }
}

fn holds(seen: &mut Observation) -> Option<&mut VolumeContents> {
    match &mut seen.disk {
        Fact::Known(Some(Disk { holds: Fact::Known(holds), .. })) => Some(holds),
        _ => None,
    }
}

fn stamp(seen: &mut Observation) -> Option<StampState> {
    match &holds(seen)?.stamp {
        Fact::Known(Some(stamp)) => Some(stamp.state.clone()),
        Fact::Known(None) | Fact::Unknown(_) => None,
    }
}

fn own_volume(seen: &Observation) -> VolumeId {
    seen.disk.known().cloned().flatten().unwrap().volume
}

/// Only the volume here, and what the cluster remembers as gone.
fn none_but_own(seen: &Observation, slot: u8) -> BTreeMap<VolumeId, Volume> {
    let own = own_volume(seen);
    let volume = |state| Volume { state, zone: None, attachment: None, ours: true, slot: None, stamp: None };
    let records = seen.etcd.cluster.known().into_iter().flat_map(|view| view.records.values());
    let mut volumes: BTreeMap<VolumeId, Volume> =
        records.map(|record| (record.volume.clone(), volume(VolumeState::Deleted))).collect();
    let attachment = Attachment {
        instance: seen.identity.known().unwrap().instance.clone(),
        state: AttachmentState::Attached,
        device: String::new(),
        delete_on_termination: false,
    };
    let here =
        Volume { attachment: Some(attachment), slot: Some(slot_of(slot)), ..volume(VolumeState::InUse) };
    volumes.insert(own, Volume { stamp: Some("formatted".to_owned()), ..here });
    volumes
}

fn forget_tags(seen: &mut Observation, only: Option<u8>) {
    if let Fact::Known(volumes) = &mut seen.volumes {
        for volume in volumes.values_mut() {
            if only.is_none_or(|slot| volume.slot == Some(slot_of(slot))) && volume.stamp.is_some() {
                volume.stamp = Some("formatted".to_owned());
            }
        }
    }
}

fn forget_life(seen: &mut Observation) {
    forget_tags(seen, None);
    if let Some(holds) = holds(seen)
        && let Fact::Known(Some(stamp)) = &mut holds.stamp
    {
        stamp.state = StampState::Formatted;
    }
    seen.etcd.cluster = Fact::unknown("not asked");
}
