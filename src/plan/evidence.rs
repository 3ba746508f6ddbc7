//! What counts as gone for good, and as a sign of an earlier life.

use std::collections::BTreeMap;

use crate::model::stamp::FORMATTED;
use crate::model::{
    Fact, Generation, InstanceId, InstanceState, Member, MemberId, Observation, SlotRecord, Volume, VolumeId,
    VolumeState, WaitingOn, Zone,
};

use super::course::{Course, Next};

/// How long EC2 must go on saying "not found" before it is believed, in milliseconds. Its answers
/// are eventually consistent: a resource that was just made may not be listed for some seconds.
pub(super) const NOT_FOUND_FOR: i64 = 60_000;

/// What EC2's word on a volume comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It exists.
    Alive,
    /// It is gone for good.
    Gone,
    /// EC2 knows no such volume, which has to be said twice.
    NotFound,
    /// Nothing definite was said.
    Unsure,
}

pub(super) fn volume_fate(volume: &Volume) -> Fate {
    match volume.state {
        VolumeState::Creating | VolumeState::Available | VolumeState::InUse => Fate::Alive,
        VolumeState::Deleting | VolumeState::Deleted | VolumeState::Error => Fate::Gone,
        VolumeState::NotFound => Fate::NotFound,
    }
}

/// Goes on once "not found" has been the answer for long enough.
pub(super) fn confirm_not_found(seen: &Observation, course: &Course, what: &str) -> Next<()> {
    let on = WaitingOn::ConfirmedGone { what: what.to_owned() };
    if waited(seen, |waiting| *waiting == on) >= Some(NOT_FOUND_FOR) { Ok(()) } else { Err(course.wait(on)) }
}

/// How long, in milliseconds, something has been waited for; `None` when it was not.
pub(super) fn waited(seen: &Observation, what: impl Fn(&WaitingOn) -> bool) -> Option<i64> {
    seen.waiting
        .iter()
        .filter(|waiting| what(&waiting.on))
        .map(|waiting| seen.at.saturating_sub(waiting.since))
        .max()
}

/// The generation in which a volume's tag says that it took part; `None` when it never did.
/// A tag that says neither is taken for the latest life there can be: nothing is founded over it.
pub(super) fn life_by_tag(tag: Option<&str>) -> Option<Generation> {
    let tag = tag.filter(|tag| *tag != FORMATTED)?;
    let mut words = tag.split(' ');
    let generation = match (words.next(), words.next()) {
        (Some("starting" | "joining" | "member"), Some(number)) => number.parse().ok(),
        _ => None,
    };
    Some(Generation(generation.unwrap_or(u64::MAX)))
}

/// Whether a volume's tag says that this generation has had a quorum: a member of it was healthy
/// on the volume, or joined it.
pub(super) fn had_quorum(tag: Option<&str>, generation: Generation) -> bool {
    tag.is_some_and(|tag| {
        let mut words = tag.split(' ');
        matches!(words.next(), Some("member" | "joining"))
            && words.next().and_then(|number| number.parse().ok()).map(Generation) == Some(generation)
    })
}

/// Signs that a cluster of this name has lived before, for someone to read.
pub(super) fn signs_of_life(volumes: &BTreeMap<VolumeId, Volume>, backups: bool) -> Vec<String> {
    let mut signs: Vec<String> = volumes
        .iter()
        .filter(|(_, volume)| volume.ours && life_by_tag(volume.stamp.as_deref()).is_some())
        .map(|(id, volume)| format!("volume {id} is tagged {:?}", volume.stamp.as_deref().unwrap_or("")))
        .collect();
    if backups {
        signs.push("there are backups in S3".to_owned());
    }
    signs
}

/// Goes on once EC2 says that the member in a slot can never come back: its volume is gone for
/// good, or is in this machine's hands while the instance that held it is gone.
///
/// The volume is the measure, and not the instance alone: while the volume lives, the member stays
/// for the machine that takes the volume over. But for a volume that was left behind in another zone than `zone`, the
/// slot's by the charter: there its instance is the measure, since nobody takes that volume over any more.
pub(super) fn require_gone(
    seen: &Observation,
    course: &Course,
    me: &InstanceId,
    my_volume: &VolumeId,
    zone: Option<&Zone>,
    (id, member): (MemberId, &Member),
    who: Option<&SlotRecord>,
) -> Next<()> {
    let wait = |evidence: String| course.wait(WaitingOn::PredecessorGone { member: id, evidence });
    match &member.healthy {
        Fact::Known(true) => return Err(wait("it answers, and is healthy".to_owned())),
        Fact::Known(false) | Fact::Unknown(_) => {}
    }
    let Some(who) = who else {
        return Err(wait("neither its record nor the charter says which machine it is".to_owned()));
    };
    let volume = seen.volumes.known().and_then(|volumes| volumes.get(&who.volume));
    let fate = volume.map_or(Fate::Unsure, volume_fate);
    let failed = volume.is_some_and(|volume| volume.state == VolumeState::Error);
    if who.volume == *my_volume || failed {
        // The volume lives, or may be in use: what counts is that its last holder does not.
        if who.volume == *my_volume && who.instance == *me {
            return Ok(());
        }
        return instance_gone(seen, course, &who.instance).map_err(|plan| match plan {
            Some(plan) => plan,
            None => wait(format!("instance {} may still run", who.instance)),
        });
    }
    match fate {
        Fate::Gone => Ok(()),
        Fate::NotFound => confirm_not_found(seen, course, who.volume.as_str()),
        Fate::Alive if volume.is_some_and(|volume| is_left_behind(seen, volume, zone)) => {
            // One that never ran has nothing to come back with: its machine let go of the volume when the slot moved.
            if member.learner && !member.has_started() {
                return Ok(());
            }
            let holder = volume.and_then(|volume| volume.attachment.as_ref()).map(|held| &held.instance);
            [Some(&who.instance), holder].into_iter().flatten().try_for_each(|instance| {
                if !never_runs_again(seen, instance) {
                    return Err(wait(format!(
                        "its slot was taken over, and instance {instance} may still run"
                    )));
                }
                match state_of(seen, instance) {
                    Some(InstanceState::NotFound) => confirm_not_found(seen, course, instance.as_str()),
                    Some(_) | None => Ok(()),
                }
            })
        }
        Fate::Alive => Err(wait(format!(
            "its volume {} exists: attach that one here, or delete it, to say which is meant",
            who.volume
        ))),
        Fate::Unsure => Err(wait(format!("EC2 has not said what became of volume {}", who.volume))),
    }
}

/// Whether a volume is of another zone than its slot, and in nobody's hands who could start a member on it.
fn is_left_behind(seen: &Observation, volume: &Volume, zone: Option<&Zone>) -> bool {
    let elsewhere = match (&volume.zone, zone) {
        (Some(found), Some(zone)) => found != zone,
        (None, _) | (_, None) => false,
    };
    let held = volume.attachment.as_ref().is_some_and(|held| !never_runs_again(seen, &held.instance));
    elsewhere && !held
}

fn state_of(seen: &Observation, instance: &InstanceId) -> Option<InstanceState> {
    seen.instances.known().and_then(|all| all.get(instance)).map(|found| found.state)
}

/// Whether EC2 says of an instance that it ends or has ended: from neither it ever comes back.
pub(super) fn never_runs_again(seen: &Observation, instance: &InstanceId) -> bool {
    state_of(seen, instance).is_some_and(|state| match state {
        InstanceState::ShuttingDown | InstanceState::Terminated | InstanceState::NotFound => true,
        InstanceState::Pending
        | InstanceState::Running
        | InstanceState::Stopping
        | InstanceState::Stopped => false,
    })
}

/// Whether an instance is gone for good. `Err(Some)` is the plan that waits for a second word,
/// `Err(None)` means that it is not gone.
pub(super) fn instance_gone(
    seen: &Observation,
    course: &Course,
    instance: &InstanceId,
) -> Result<(), Option<Box<crate::model::Plan>>> {
    match state_of(seen, instance) {
        Some(InstanceState::Terminated) => Ok(()),
        Some(InstanceState::NotFound) => confirm_not_found(seen, course, instance.as_str()).map_err(Some),
        Some(
            InstanceState::Pending
            | InstanceState::Running
            | InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::ShuttingDown,
        )
        | None => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_not_understood_is_a_life_that_nothing_is_founded_over() {
        assert_eq!(life_by_tag(None), None);
        assert_eq!(life_by_tag(Some("formatted")), None);
        assert_eq!(life_by_tag(Some("starting 2")), Some(Generation(2)));
        assert_eq!(life_by_tag(Some("member 3 8e9e05c52164694d")), Some(Generation(3)));
        for odd in ["", "member", "member x", "something else"] {
            assert_eq!(life_by_tag(Some(odd)), Some(Generation(u64::MAX)), "{odd:?}");
        }
    }
}
