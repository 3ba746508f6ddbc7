//! What may be done to the volume's device and its file system.
//!
//! Nothing is destroyed: a file system is made only on a device that is blank by every test and
//! whose tag does not say that it was formatted before.

use crate::config::Settings;
use crate::model::plan::Subject;
use crate::model::{
    Content, DataDir, Disk, Fact, Halt, Observation, Slot, Stamp, StampState, Step, Volume, VolumeContents,
    VolumeId, WaitingOn,
};

use super::course::{Course, Next};
use super::evidence::waited;
use super::volume::Claim;

/// A slot's volume, mounted and stamped.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub slot: Slot,
    pub volume: VolumeId,
    /// What EC2 says of the volume, if it answers.
    pub listed: Option<Volume>,
    pub stamp: Stamp,
    pub data: DataDir,
    pub charter_copy: Fact<Option<crate::model::Charter>>,
}

impl Held {
    /// This volume's stamp in another state.
    pub fn stamped(&self, state: StampState) -> Step {
        Step::WriteStamp { stamp: Stamp { state, ..self.stamp.clone() } }
    }
}

pub(super) fn prepare(
    settings: &Settings,
    seen: &Observation,
    claim: Claim,
    course: &mut Course,
) -> Next<Held> {
    let missing = WaitingOn::Device { volume: claim.volume.clone() };
    let disk = match course.need(&seen.disk, Subject::Disk)? {
        Some(disk) if disk.volume == claim.volume => disk,
        Some(_) | None => return Err(course.wait(missing)),
    };
    let Some(device) = &disk.device else {
        let bound = settings.etcd.volume.wait.as_signed_millis();
        return Err(if waited(seen, |waiting| *waiting == missing) > Some(bound) {
            let mut plan = course.halt(Halt::NoDevice { volume: claim.volume });
            plan.report.waiting.push(missing);
            plan
        } else {
            course.wait(missing)
        });
    };
    let mounted = course.need(&disk.mount, Subject::Disk)?;
    let Some(mount) = mounted else {
        return Err(unmounted(settings, &claim, disk, device, course)?);
    };
    if mount.source != *device {
        return Err(course.halt(Halt::ForeignMount { found: mount.source.clone(), expected: device.clone() }));
    }
    if mount.read_only {
        return Err(course.halt(Halt::ReadOnly { volume: claim.volume }));
    }
    if let Fact::Known(Content::Ours { can_grow: true, .. }) = &disk.content {
        course.steps.push(Step::GrowFilesystem { device: device.clone() });
    }
    let holds = course.need(&disk.holds, Subject::Disk)?;
    let stamp = read_stamp(settings, &claim, holds, course)?;
    // The stamp was written, and the agent was cut off before the tag, without which the slot does
    // not count as claimed.
    if stamp.state == StampState::Formatted
        && claim.listed.as_ref().is_some_and(|listed| listed.stamp.is_none())
    {
        return Err(course.act([Step::TagStamp { volume: claim.volume, state: StampState::Formatted }]));
    }
    Ok(Held {
        slot: claim.slot,
        volume: claim.volume,
        listed: claim.listed,
        stamp,
        data: holds.data,
        charter_copy: holds.charter.clone(),
    })
}

/// The volume's device is here and not mounted.
fn unmounted(
    settings: &Settings,
    claim: &Claim,
    disk: &Disk,
    device: &str,
    course: &Course,
) -> Next<Box<crate::model::Plan>> {
    let volume = claim.volume.clone();
    let device = device.to_owned();
    Ok(match course.need(&disk.content, Subject::Disk)? {
        Content::Ours { .. } => course.act([Step::Mount { volume, device }]),
        Content::Foreign(found) => course.halt(Halt::ForeignData { volume, found: found.clone() }),
        Content::Blank => match &claim.listed {
            None => course.wait(WaitingOn::Answer {
                about: Subject::Volumes,
                why: "the device is blank, and only the volume's tag can tell that it never was used"
                    .to_owned(),
            }),
            Some(listed) => match &listed.stamp {
                Some(tag) => course.halt(Halt::Wiped { volume, tag: tag.clone() }),
                None => {
                    let steps = [
                        Step::Format { volume: volume.clone(), device: device.clone(), slot: claim.slot },
                        Step::Mount { volume, device },
                    ];
                    course.act(steps.into_iter().chain(first_stamp(settings, claim)))
                }
            },
        },
    })
}

/// The stamp, if it is this cluster's, this slot's and this volume's; a file system of ours that
/// holds nothing yet is stamped.
fn read_stamp(settings: &Settings, claim: &Claim, holds: &VolumeContents, course: &Course) -> Next<Stamp> {
    let right = || format!("cluster {}, slot {}, volume {}", settings.cluster, claim.slot, claim.volume);
    let wrong = |found: String| {
        course.halt(Halt::WrongStamp { volume: claim.volume.clone(), found, expected: right() })
    };
    let stamp = match &holds.stamp {
        Fact::Known(Some(stamp)) => stamp,
        Fact::Unknown(why) => return Err(wrong(why.clone())),
        Fact::Known(None) => {
            if let Some(found) = strangers(holds) {
                return Err(course.halt(Halt::ForeignData { volume: claim.volume.clone(), found }));
            }
            return Err(course.act(first_stamp(settings, claim)));
        }
    };
    if stamp.cluster != settings.cluster || stamp.slot != claim.slot || stamp.volume != claim.volume {
        return Err(wrong(format!(
            "cluster {}, slot {}, volume {}",
            stamp.cluster, stamp.slot, stamp.volume
        )));
    }
    Ok(stamp.clone())
}

/// The stamp of a volume that has taken part in nothing yet.
fn first_stamp(settings: &Settings, claim: &Claim) -> Vec<Step> {
    let state = StampState::Formatted;
    let stamp = Stamp {
        cluster: settings.cluster.clone(),
        slot: claim.slot,
        volume: claim.volume.clone(),
        state: state.clone(),
    };
    let mut steps = vec![Step::WriteStamp { stamp }];
    // A tag that tells of a life stays: it is the proof that this volume was wiped.
    if claim.listed.as_ref().is_some_and(|listed| listed.stamp.is_none()) {
        steps.push(Step::TagStamp { volume: claim.volume.clone(), state });
    }
    steps
}

/// What an unstamped file system must not hold.
fn strangers(holds: &VolumeContents) -> Option<String> {
    match holds.data {
        DataDir::Absent if holds.strangers.is_empty() => None,
        DataDir::Absent => Some(format!("no stamp, and files: {}", holds.strangers.join(", "))),
        DataDir::Unborn | DataDir::Present => Some("etcd data without a stamp".to_owned()),
    }
}
