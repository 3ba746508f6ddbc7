//! What does not match among etcd's members, the kept identities, and EC2's instances and volumes.
//!
//! Much of it is normal for a while: a machine ends, and its successor boots. So it is noticed at once, with the time,
//! and warned of when it lasts.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Generation, InstanceId, MemberId, Slot, VolumeId, Zone};
use super::machine::{InstanceState, VolumeState};

/// One thing that does not match another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Mismatch {
    /// No member is in a slot.
    SlotWithoutMember {
        /// The slot.
        slot: Slot,
        /// Its zone.
        zone: Zone,
    },
    /// A member whose machine does not run, and whose volume no other machine holds.
    MemberWithoutMachine {
        /// The member.
        member: MemberId,
        /// Its slot.
        slot: Slot,
        /// The slot's zone.
        zone: Zone,
        /// The machine that its identity names.
        instance: InstanceId,
        /// What EC2 says of it.
        state: InstanceState,
    },
    /// A member whose machine runs, and whose volume is attached to no machine.
    MemberWithFreeVolume {
        /// The member.
        member: MemberId,
        /// Its slot.
        slot: Slot,
        /// The machine that its identity names.
        instance: InstanceId,
        /// The volume that its identity names.
        volume: VolumeId,
    },
    /// A member whose volume is gone.
    MemberWithoutVolume {
        /// The member.
        member: MemberId,
        /// Its slot.
        slot: Slot,
        /// The slot's zone.
        zone: Zone,
        /// The volume that its identity names.
        volume: VolumeId,
        /// What EC2 says of it.
        state: VolumeState,
    },
    /// A member that no slot explains.
    UnknownMember {
        /// The member.
        member: MemberId,
        /// Its name; empty when it has not started yet.
        name: String,
        /// Where its peers reach it.
        peer_urls: Vec<String>,
    },
    /// Several volumes are tagged for one slot.
    SeveralVolumes {
        /// The slot.
        slot: Slot,
        /// The volumes.
        volumes: Vec<VolumeId>,
        /// The one among them that the slot's identity names, if it is one.
        used: Option<VolumeId>,
    },
    /// A volume is where it can serve no slot.
    MisplacedVolume {
        /// The volume.
        volume: VolumeId,
        /// The slot that it is tagged for.
        slot: Option<Slot>,
        /// Where it is.
        zone: Zone,
        /// The zones of the slots that it could be for.
        expected: Vec<Zone>,
    },
    /// A volume's tag tells of a generation that this cluster has not reached, or says something else.
    LaterVolume {
        /// The volume.
        volume: VolumeId,
        /// Its tag `quorate:stamp`.
        tag: String,
        /// The cluster's generation.
        generation: Generation,
    },
    /// A control-plane machine is in a zone that has no slot.
    MisplacedInstance {
        /// The machine.
        instance: InstanceId,
        /// Where it is.
        zone: Zone,
        /// The zones of the slots.
        expected: Vec<Zone>,
    },
    /// More control-plane machines than slots are in a zone, while another zone has too few.
    CrowdedZone {
        /// The zone.
        zone: Zone,
        /// Its slots.
        slots: usize,
        /// Its machines.
        instances: Vec<InstanceId>,
        /// The zones that have too few.
        lacking: Vec<Zone>,
    },
}

/// Something that was noticed, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Noticed {
    /// What.
    pub mismatch: Mismatch,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

impl Mismatch {
    /// Whether both are about the same thing, although the details may have changed.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MemberWithoutMachine { member, .. }, Self::MemberWithoutMachine { member: other, .. })
            | (Self::MemberWithFreeVolume { member, .. }, Self::MemberWithFreeVolume { member: other, .. })
            | (Self::MemberWithoutVolume { member, .. }, Self::MemberWithoutVolume { member: other, .. })
            | (Self::UnknownMember { member, .. }, Self::UnknownMember { member: other, .. }) => {
                member == other
            }
            (Self::SeveralVolumes { slot, .. }, Self::SeveralVolumes { slot: other, .. }) => slot == other,
            (Self::CrowdedZone { zone, .. }, Self::CrowdedZone { zone: other, .. }) => zone == other,
            (one, other) => one == other,
        }
    }
}

/// What is noticed now, each since it first was; `now` is `None` where it was not looked at.
pub fn remember(before: &[Noticed], now: Option<&[Mismatch]>, at: i64) -> Vec<Noticed> {
    let Some(now) = now else { return before.to_vec() };
    now.iter()
        .map(|mismatch| Noticed { mismatch: mismatch.clone(), since: since(before, mismatch).unwrap_or(at) })
        .collect()
}

/// Since when something is noticed, in milliseconds since 1970; `None` when it was not before.
pub fn since(before: &[Noticed], mismatch: &Mismatch) -> Option<i64> {
    before.iter().find(|noticed| noticed.mismatch.is_same(mismatch)).map(|noticed| noticed.since)
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What was found, what was expected, and what to do.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotWithoutMember { slot, zone } => write!(
                f,
                "slot {slot} has no member of etcd, expected one on a machine in {zone}: see what that machine waits \
                 for (quorate status), or why its Auto Scaling group launches none there"
            ),
            Self::MemberWithoutMachine { member, slot, zone, instance, state } => write!(
                f,
                "member {member} of slot {slot} has no machine: EC2 says that {instance} is {state}, and no other \
                 holds its volume, expected a running one in {zone}: {}",
                match state {
                    InstanceState::Stopped | InstanceState::Stopping =>
                        "start it, or terminate it so that its Auto Scaling group launches a successor",
                    InstanceState::Pending
                    | InstanceState::Running
                    | InstanceState::ShuttingDown
                    | InstanceState::Terminated
                    | InstanceState::NotFound =>
                        "see why the control plane's Auto Scaling group launches none there",
                }
            ),
            Self::MemberWithFreeVolume { member, slot, instance, volume } => write!(
                f,
                "volume {volume} of member {member} in slot {slot} is attached to no machine, expected at {instance}, \
                 which runs: see what that machine waits for (quorate status; quorate leave --cancel brings back one \
                 that was asked to leave), or terminate it"
            ),
            Self::MemberWithoutVolume { member, slot, zone, volume, state } => write!(
                f,
                "volume {volume} of member {member} in slot {slot} is {state}, expected one with its data: a machine \
                 in {zone} with an empty volume for slot {slot} replaces the member; see what the one there waits for \
                 (quorate status), or give it such a volume"
            ),
            Self::UnknownMember { member, name, peer_urls } => write!(
                f,
                "member {member} of etcd ({}, at {}) belongs to no slot, expected slots' members only: find out what \
                 runs there, and if nobody needs it take it out (etcdctl member remove {member})",
                if name.is_empty() { "not started" } else { name },
                list(peer_urls)
            ),
            Self::SeveralVolumes { slot, volumes, used } => {
                write!(f, "several volumes are tagged for slot {slot} ({}), expected one", list(volumes))?;
                match used {
                    Some(used) => {
                        write!(f, "; {used} is the one in use: take the tag quorate:cluster off the others")
                    }
                    None => f.write_str(
                        ": find out which holds the member's data, and take the tag quorate:cluster off the others",
                    ),
                }
            }
            Self::MisplacedVolume { volume, slot, zone, expected } => {
                write!(f, "volume {volume} is ")?;
                if let Some(slot) = slot {
                    write!(f, "tagged for slot {slot} and is ")?;
                }
                write!(f, "in {zone}, expected ")?;
                match expected.as_slice() {
                    [] => f.write_str("no volume for a slot that the cluster does not have")?,
                    zones => write!(f, "in {}", list(zones))?,
                }
                f.write_str(
                    ": delete it if its slot was taken over by another zone and nobody wants it any more; else correct \
                     its tag quorate:slot, or take the tag quorate:cluster off it; a snapshot of it makes a volume in \
                     another zone",
                )
            }
            Self::LaterVolume { volume, tag, generation } => write!(
                f,
                "volume {volume} is tagged quorate:stamp {tag:?}, expected generation {generation} of this cluster at \
                 most: it is another cluster's, or the charter is an old one; take the tag quorate:cluster off it, or \
                 bring back the later charter.json"
            ),
            Self::MisplacedInstance { instance, zone, expected } => write!(
                f,
                "control-plane machine {instance} is in {zone}, which has no slot, expected in {}: let its Auto \
                 Scaling group span these zones only, and terminate it",
                list(expected)
            ),
            Self::CrowdedZone { zone, slots, instances, lacking } => write!(
                f,
                "{zone} has {} control-plane machines ({}) for {slots} slot{}, and {} has too few: let their Auto \
                 Scaling group span these zones, and terminate one that stands by in {zone}",
                instances.len(),
                list(instances),
                if *slots == 1 { "" } else { "s" },
                list(lacking)
            ),
        }
    }
}
