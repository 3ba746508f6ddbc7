//! When a cluster that has lost its quorum for good is brought back, and how the one founder of a recovery begins.
//!
//! The volumes are the measure: what the present generation wrote is on them and nowhere else but in backups. While one of
//! them is left, or may be, only an operator says what is given up. When EC2 says of *every* volume of the generation
//! that it is gone for good, and goes on saying so, nothing of it can ever answer again, and the newest backup that is
//! whole is all that there is: then a machine with a blank volume proposes the next generation, by compare-and-set as
//! every change of the charter.
//!
//! Which volumes those are: the founders' by the charter, the last-known members' (`members.json`), and every listed
//! one whose tag tells of a life in this generation or of one that is not understood. A volume is tagged before etcd
//! starts on it, so one that neither the charter nor the members name is found by its tag.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::settings::RecoveryPolicy;
use crate::model::charter::{CharterChange, Founder, majority};
use crate::model::machine::NamedVolume;
use crate::model::plan::Subject;
use crate::model::{
    Charter, Generation, Halt, Instance, InstanceId, InstanceState, Observation, Plan, Recovery, Slot,
    SlotVolume, Step, Versioned, VolumeId, VolumeState, WaitingOn,
};

use super::course::{Course, Next};
use super::disk::Held;
use super::evidence::{Fate, NOT_FOUND_FOR, had_quorum, life_by_tag, volume_fate, waited};
use super::founding::can_start;
use super::joining;
use super::member::{Site, require_listed};

/// How long, in milliseconds, what was found in the backups serves: what is decided later is decided on a new look at
/// them.
const CHOICE_SERVES: i64 = 10 * 60_000;

/// What is left of a generation.
#[derive(Debug, Default)]
struct Remains {
    /// Gone for good.
    gone: Vec<SlotVolume>,
    /// Those of them, and instances of those, that EC2 does not know, which has to be said again.
    unconfirmed: Vec<String>,
    /// There, or maybe so.
    left: Vec<SlotVolume>,
    /// Nothing definite was said.
    unsure: Vec<SlotVolume>,
    /// This machine's own, which is there, and blank although it should not be.
    wiped: Option<SlotVolume>,
}

impl Remains {
    fn of(seen: &Observation, charter: &Charter, blank: Option<&Held>, course: &Course) -> Next<Self> {
        let volumes = course.need(&seen.volumes, Subject::Volumes)?;
        let instances = course.need(&seen.instances, Subject::Instances)?;
        let mut named: BTreeMap<&VolumeId, (Slot, Vec<&InstanceId>)> = BTreeMap::new();
        for founder in &charter.founders {
            named.entry(&founder.volume).or_insert((founder.slot, Vec::new())).1.push(&founder.instance);
        }
        if let Some(members) = course.need(&seen.published, Subject::Members)? {
            if members.generation > charter.generation {
                return Err(course.wait(WaitingOn::Answer {
                    about: Subject::Charter,
                    why: format!(
                        "it tells of generation {}, and members.json of {}",
                        charter.generation, members.generation
                    ),
                }));
            }
            for (slot, record) in members.slots.iter().filter(|_| members.generation == charter.generation) {
                named.entry(&record.volume).or_insert((*slot, Vec::new())).1.push(&record.instance);
            }
        }
        let mut remains = Self::default();
        for (id, (slot, holders)) in &named {
            let one = SlotVolume { slot: Some(*slot), volume: (*id).clone() };
            match volumes.get(*id) {
                None => remains.unsure.push(one),
                Some(volume) => remains.add(one, (id, volume), holders, instances),
            }
        }
        for (id, volume) in volumes.iter().filter(|(id, volume)| volume.ours && !named.contains_key(id)) {
            if life_by_tag(volume.stamp.as_deref()).is_some_and(|life| life >= charter.generation) {
                remains.add(
                    SlotVolume { slot: volume.slot, volume: id.clone() },
                    (id, volume),
                    &[],
                    instances,
                );
            }
        }
        // What this machine holds is blank by its own eyes: as a member's volume it is lost, but it is not gone.
        if let Some(held) = blank
            && let Some(at) = remains.left.iter().position(|one| one.volume == held.volume)
        {
            remains.wiped = Some(remains.left.remove(at));
        }
        Ok(remains)
    }

    fn add(
        &mut self,
        one: SlotVolume,
        (id, volume): NamedVolume<'_>,
        holders: &[&InstanceId],
        instances: &BTreeMap<InstanceId, Instance>,
    ) {
        match volume_fate(volume) {
            Fate::Alive => self.left.push(one),
            Fate::Unsure => self.unsure.push(one),
            Fate::NotFound => {
                self.unconfirmed.push(id.to_string());
                self.gone.push(one);
            }
            // A failed volume may still be in use: what counts is that none of its machines is.
            Fate::Gone if volume.state == VolumeState::Error => {
                let attached = volume.attachment.as_ref().map(|held| &held.instance);
                let states: Vec<(&InstanceId, Option<InstanceState>)> = holders
                    .iter()
                    .copied()
                    .chain(attached)
                    .map(|id| (id, instances.get(id).map(|found| found.state)))
                    .collect();
                if states.iter().all(|(_, state)| state.is_some_and(InstanceState::is_gone)) {
                    let unknown = states.iter().filter(|(_, state)| *state == Some(InstanceState::NotFound));
                    self.unconfirmed.extend(unknown.map(|(id, _)| id.to_string()));
                    self.gone.push(one);
                } else {
                    self.left.push(one);
                }
            }
            Fate::Gone => self.gone.push(one),
        }
    }

    /// Whether nothing is left, by EC2's word on every volume.
    fn is_nothing(&self) -> bool {
        self.left.is_empty() && self.unsure.is_empty() && self.wiped.is_none() && !self.gone.is_empty()
    }

    /// Whether no quorum can ever be had again: too many slots have no volume any more that might hold their member.
    fn is_short(&self) -> bool {
        let slots = |volumes: &[SlotVolume]| -> BTreeSet<Slot> {
            volumes.iter().filter_map(|one| one.slot).collect()
        };
        let mut alive = slots(&self.left);
        alive.extend(slots(&self.unsure));
        let mut all = slots(&self.gone);
        all.extend(self.wiped.iter().filter_map(|one| one.slot));
        all.extend(&alive);
        // A volume whose slot nobody knows may be one more.
        let nameless = self.left.iter().filter(|one| one.slot.is_none()).count();
        alive.len() + nameless < majority(all.len() + nameless)
    }

    /// The same waits in every plan until the charter is changed: what is not waited for any more is forgotten.
    fn waits(&self, generation: Generation) -> Vec<WaitingOn> {
        let mut waits: Vec<WaitingOn> =
            self.unconfirmed.iter().map(|what| WaitingOn::ConfirmedGone { what: what.clone() }).collect();
        if self.is_nothing() {
            let gone: Vec<&str> = self.gone.iter().map(|one| one.volume.as_str()).collect();
            let why =
                format!("EC2 says of each of its volumes that it is gone for good: {}", gone.join(", "));
            waits.insert(0, WaitingOn::Recovery { generation, why });
        }
        waits
    }

    fn halt(mut self, generation: Generation) -> Halt {
        self.gone.extend(self.wiped);
        self.left.extend(self.unsure);
        Halt::QuorumLost { generation, gone: self.gone, left: self.left }
    }
}

/// Whether each of these has been waited for long enough.
fn is_confirmed(seen: &Observation, waits: &[WaitingOn]) -> bool {
    waits.iter().all(|on| waited(seen, |waiting| waiting.is_same_wait(on)) >= Some(NOT_FOUND_FOR))
}

fn keeping(waits: Vec<WaitingOn>, mut plan: Box<Plan>) -> Box<Plan> {
    plan.report.waiting.extend(waits);
    plan
}

/// Whether EC2 says that no volume of the charter's generation is left. It may yet have to be said again.
pub(super) fn is_nothing_left(seen: &Observation, charter: &Charter, course: &Course) -> bool {
    Remains::of(seen, charter, None, course).is_ok_and(|remains| remains.is_nothing())
}

/// No quorum of an established generation answers: wait for it, or say what an operator can do.
///
/// `blank` is what this machine holds, if there are no data on it.
fn without_quorum(
    site: &Site<'_>,
    charter: &Charter,
    blank: Option<&Held>,
    course: &Course,
) -> Next<Remains> {
    let waiting = |plan: Box<Plan>| {
        let mut plan = plan;
        plan.report.waiting.insert(0, WaitingOn::Quorum);
        plan
    };
    let remains = Remains::of(site.seen, charter, blank, course).map_err(waiting)?;
    if !remains.is_short() {
        return Err(course.wait(WaitingOn::Quorum));
    }
    if remains.is_nothing() {
        return Ok(remains);
    }
    let waits = remains.waits(charter.generation);
    Err(if is_confirmed(site.seen, &waits) {
        keeping(waits, course.halt(remains.halt(charter.generation)))
    } else {
        waiting(keeping(waits, course.act([])))
    })
}

/// This machine's member has data, and no quorum answers.
pub(super) fn survivor(site: &Site<'_>, charter: Option<&Charter>, course: &Course) -> Box<Plan> {
    let Some(charter) = charter.filter(|charter| charter.established()) else {
        return course.wait(WaitingOn::Quorum);
    };
    match without_quorum(site, charter, None, course) {
        // Its own volume is there: nobody knows what EC2 means.
        Ok(_) => course.wait(WaitingOn::Quorum),
        Err(plan) => plan,
    }
}

/// This machine's volume is blank, and the generation is established: join it, or bring the cluster back.
pub(super) fn join_or_recover(
    site: &Site<'_>,
    versioned: &Versioned<Charter>,
    course: &Course,
) -> Next<Plan> {
    let charter = &versioned.value;
    if site.view(&charter.uuid, charter.generation).is_some() {
        return joining::join(site, charter, course);
    }
    recover(site, versioned, course)
}

/// This machine's volume is blank, and no quorum of an established generation answers.
fn recover(site: &Site<'_>, versioned: &Versioned<Charter>, course: &Course) -> Next<Plan> {
    let (charter, seen) = (&versioned.value, site.seen);
    let remains = without_quorum(site, charter, Some(site.held), course)?;
    let course = &course.in_recovery();
    let waits = remains.waits(charter.generation);
    if !is_confirmed(seen, &waits) {
        return Err(keeping(waits, course.act([])));
    }
    let kept = |plan| keeping(waits.clone(), plan);
    let none = |damaged| kept(course.halt(Halt::NoBackup { generation: charter.generation, damaged }));
    if !*course.need(&seen.backups, Subject::Backups).map_err(kept)? {
        return Err(none(Vec::new()));
    }
    match site.settings.recovery {
        RecoveryPolicy::Automatic => {}
        RecoveryPolicy::Manual => return Err(kept(course.halt(remains.halt(charter.generation)))),
    }
    let founder = this_machine(site, charter, course).map_err(kept)?;
    let chosen = course.need(&seen.chosen, Subject::Chosen).map_err(kept)?.as_ref().filter(|chosen| {
        let age = seen.at.saturating_sub(chosen.at);
        (&chosen.uuid, chosen.generation) == (&charter.uuid, charter.generation)
            && (0..CHOICE_SERVES).contains(&age)
    });
    let Some(chosen) = chosen else {
        let (uuid, generation) = (charter.uuid.clone(), charter.generation);
        return Err(kept(course.act([Step::ChooseBackup { uuid, generation }])));
    };
    let Some(point) = chosen.point.clone() else { return Err(none(chosen.damaged.clone())) };
    let next = charter.recover(founder, Recovery::Backup { point }, seen.entropy.clone());
    Err(kept(amend(versioned, next, CharterChange::Recover, course)))
}

/// A recovery has not begun, and this machine is not its founder, or no longer as the charter has it: wait for the
/// founder, or begin in its place.
pub(super) fn begin_elsewhere(
    site: &Site<'_>,
    versioned: &Versioned<Charter>,
    recovery: &Recovery,
    course: &Course,
) -> Next<Box<Plan>> {
    let (charter, seen) = (&versioned.value, site.seen);
    let course = &course.in_recovery();
    let instances = course.need(&seen.instances, Subject::Instances)?;
    let volumes = course.need(&seen.volumes, Subject::Volumes)?;
    let awaited = || {
        let missing = charter.founders.iter().map(|founder| founder.slot).collect();
        course.wait(WaitingOn::Founders { generation: charter.generation, missing })
    };
    let other = |founder: &&Founder| founder.volume != site.held.volume;
    if charter.founders.iter().filter(other).any(|founder| can_start(founder, instances, volumes)) {
        return Ok(awaited());
    }
    let me = this_machine(site, charter, course)?;
    if let Some((id, _)) = volumes
        .iter()
        .find(|(_, volume)| volume.ours && had_quorum(volume.stamp.as_deref(), charter.generation))
    {
        return Err(course.halt(Halt::Contradiction {
            what: format!(
                "volume {id} is tagged as a member's of generation {}, of which the charter says that it has not \
                 begun",
                charter.generation
            ),
        }));
    }
    let founders: Vec<String> =
        charter.founders.iter().map(|f| format!("{} with volume {}", f.instance, f.volume)).collect();
    let why = format!("by EC2's word its founder is not there any more: {}", founders.join(", "));
    let waits = vec![WaitingOn::Recovery { generation: charter.generation, why }];
    match recovery {
        Recovery::Survivor { volume, .. } if *volume != site.held.volume => {
            let gone = volumes.get(volume).is_some_and(|found| match volume_fate(found) {
                Fate::Gone | Fate::NotFound => true,
                Fate::Alive | Fate::Unsure => false,
            });
            if !gone {
                // Only who attaches the survivor's volume can go on with it.
                return Ok(awaited());
            }
            let slot = charter.founders.iter().find(|f| f.volume == *volume).map(|f| f.slot);
            let lost = vec![SlotVolume { slot, volume: volume.clone() }];
            let halt = Halt::QuorumLost { generation: charter.generation, gone: lost, left: Vec::new() };
            return Ok(keeping(
                waits.clone(),
                if is_confirmed(seen, &waits) { course.halt(halt) } else { course.act([]) },
            ));
        }
        Recovery::Survivor { .. } | Recovery::Backup { .. } => {}
    }
    if !is_confirmed(seen, &waits) {
        return Ok(keeping(waits, course.act([])));
    }
    let next = charter.refound(vec![me], seen.entropy.clone());
    Ok(keeping(waits, amend(versioned, next, CharterChange::Refound, course)))
}

fn amend(
    versioned: &Versioned<Charter>,
    next: Result<Charter, crate::model::charter::CharterRefusal>,
    change: CharterChange,
    course: &Course,
) -> Box<Plan> {
    match next {
        Ok(charter) => course.act([Step::AmendCharter { from: versioned.etag.clone(), charter, change }]),
        Err(refusal) => course.halt(Halt::Contradiction { what: refusal.to_string() }),
    }
}

/// This machine as the founder of the next generation: EC2 lists it, and the slot's volume in its hands.
fn this_machine(site: &Site<'_>, charter: &Charter, course: &Course) -> Next<Founder> {
    require_listed(site, course)?;
    let instances = course.need(&site.seen.instances, Subject::Instances)?;
    if !instances.contains_key(&site.me.instance) {
        return Err(course.wait(WaitingOn::OwnInstance));
    }
    let listed = site.held.listed.as_ref();
    // A tag of a later life, or one that is not understood, is never founded over.
    let fits = listed.is_some_and(|listed| {
        listed.holder() == Some(&site.me.instance)
            && life_by_tag(listed.stamp.as_deref()).is_none_or(|life| life <= charter.generation)
    });
    if !fits {
        return Err(course.halt(Halt::Contradiction {
            what: format!(
                "the tag quorate:stamp of volume {} is not one that is founded over",
                site.held.volume
            ),
        }));
    }
    Ok(Founder {
        slot: site.held.slot,
        volume: site.held.volume.clone(),
        instance: site.me.instance.clone(),
        peer_url: site.me.peer_url(),
        started: None,
    })
}
