//! Which volume, and so which slot, this machine claims.
//!
//! EC2 attaches a volume to one instance only: holding a slot's volume is holding the slot. One
//! slot per instance; where nothing says which of two volumes is meant, the machine refuses.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::config::settings::VolumeSource;
use crate::model::machine::NamedVolume;
use crate::model::plan::Subject;
use crate::model::{
    AttachmentState, Charter, Disk, Fact, Halt, Identity, InstanceId, InstanceState, Observation, Phase,
    Recovery, Slot, Step, Volume, VolumeId, VolumeState, WaitingOn, Zone,
};

use super::course::{Course, Next};
use super::evidence::{Fate, volume_fate};
use super::{recovery, takeover};

/// A slot held through its volume, which is attached here.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub slot: Slot,
    pub volume: VolumeId,
    /// What EC2 says of the volume; `None` when EC2 does not answer and the device itself vouches.
    pub listed: Option<Volume>,
}

pub(super) fn claim(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    course: &mut Course,
) -> Next<Claim> {
    let volumes = match &seen.volumes {
        Fact::Known(volumes) => volumes,
        Fact::Unknown(why) => return without_ec2(seen, why, course),
    };
    let mine = attached_here(settings, volumes, me);
    match mine.as_slice() {
        [] => Err(find(settings, seen, me, volumes, course)),
        [(id, volume)] => held(settings, seen, me, volumes, (id, volume), course),
        several => Err(course.halt(Halt::TwoVolumes { volumes: ids(several) })),
    }
}

/// EC2 does not answer. A device with our file system whose own serial number names the volume is
/// attached here all the same: a member may return on what its stamp says.
fn without_ec2(seen: &Observation, why: &str, course: &mut Course) -> Next<Claim> {
    let unanswered =
        |course: &Course| course.wait(WaitingOn::Answer { about: Subject::Volumes, why: why.to_owned() });
    let disk = match &seen.disk {
        Fact::Known(Some(disk)) => disk,
        Fact::Known(None) | Fact::Unknown(_) => return Err(unanswered(course)),
    };
    match slot_by_stamp(disk) {
        Some(slot) => Ok(Claim { slot, volume: disk.volume.clone(), listed: None }),
        None => match (&disk.device, &disk.content, &disk.mount) {
            (Some(device), Fact::Known(crate::model::Content::Ours { .. }), Fact::Known(None)) => Err(course
                .act_and_wait(
                    [Step::Mount { volume: disk.volume.clone(), device: device.clone() }],
                    WaitingOn::Answer { about: Subject::Volumes, why: why.to_owned() },
                )),
            _ => Err(unanswered(course)),
        },
    }
}

fn slot_by_stamp(disk: &Disk) -> Option<Slot> {
    match &disk.holds {
        Fact::Known(holds) => match &holds.stamp {
            Fact::Known(Some(stamp)) if stamp.volume == disk.volume => Some(stamp.slot),
            Fact::Known(_) | Fact::Unknown(_) => None,
        },
        Fact::Unknown(_) => None,
    }
}

fn attached_here<'a>(
    settings: &Settings,
    volumes: &'a BTreeMap<VolumeId, Volume>,
    me: &Identity,
) -> Vec<NamedVolume<'a>> {
    volumes
        .iter()
        .filter(|(_, volume)| {
            volume.attachment.as_ref().is_some_and(|attachment| {
                let by_name = match settings.etcd.volume.source {
                    VolumeSource::Device => attachment.device == settings.etcd.volume.device.as_str(),
                    VolumeSource::Tagged | VolumeSource::Created => false,
                };
                attachment.instance == me.instance && (volume.ours || by_name)
            })
        })
        .collect()
}

/// A volume of ours is attached here: which slot is it?
fn held(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    volumes: &BTreeMap<VolumeId, Volume>,
    (id, volume): NamedVolume<'_>,
    course: &mut Course,
) -> Next<Claim> {
    let attached = volume.holder() == Some(&me.instance);
    let expected = slots_of_zone(settings, seen, me, course);
    if let (Some(slot), true) = (volume.slot, volume.ours) {
        let misplaced = match &expected {
            // A tag made before the charter is the operator's word; the charter's zones bind.
            Ok(slots) => charter_of(seen).is_some() && !slots.contains(&slot),
            Err(_) => false,
        };
        // Where volumes are created, one was left behind when its slot was taken over: what it remembers decides. It
        // remembers nothing yet where the slot moved on before it was formatted.
        let left_behind = misplaced
            && settings.etcd.volume.source == VolumeSource::Created
            && (volume.stamp.is_some() || charter_of(seen).is_some_and(Charter::established));
        if left_behind && is_detaching(volume) {
            course.phase = Phase::Standby;
            return Err(course.wait(WaitingOn::Detached { volume: id.clone() }));
        }
        if (misplaced && !left_behind) || usize::from(slot.number()) > settings.etcd.size.slots() {
            let expected = expected.unwrap_or_default();
            return Err(course.halt(Halt::WrongSlot { volume: id.clone(), found: Some(slot), expected }));
        }
        course.slot = Some(slot);
        if !attached {
            return Err(course.wait(WaitingOn::Attachment { volume: id.clone() }));
        }
        return Ok(Claim { slot, volume: id.clone(), listed: Some(volume.clone()) });
    }
    if !attached {
        return Err(course.wait(WaitingOn::Attachment { volume: id.clone() }));
    }
    let free = free_slots(&expected?, volumes, id);
    if let Some(slot) = free.first() {
        course.slot = Some(*slot);
        return Err(course.act([Step::TagSlot { volume: id.clone(), slot: *slot }]));
    }
    course.phase = Phase::Standby;
    Err(course.wait(WaitingOn::FreeSlot))
}

/// Nothing is attached here: which volume may be?
fn find(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    volumes: &BTreeMap<VolumeId, Volume>,
    course: &mut Course,
) -> Box<crate::model::Plan> {
    let source = settings.etcd.volume.source;
    if source == VolumeSource::Device {
        // The launch template attaches it; until EC2 lists it, it is on its way.
        return course.wait(WaitingOn::Answer {
            about: Subject::Volumes,
            why: format!("EC2 lists no volume at {} of this instance", settings.etcd.volume.device),
        });
    }
    let here: Vec<NamedVolume<'_>> = volumes
        .iter()
        .filter(|(_, volume)| volume.ours && volume.zone.as_ref() == Some(&me.zone))
        .filter(|(_, volume)| volume_fate(volume) != Fate::Gone)
        .filter(|(_, volume)| source != VolumeSource::Created || belongs(seen, volume, &me.zone))
        .collect();
    let free: Vec<NamedVolume<'_>> =
        here.iter().copied().filter(|(_, volume)| volume.state == VolumeState::Available).collect();
    if let Some(choice) = choose(&free) {
        return match choice {
            Ok((id, volume)) => {
                course.slot = volume.slot;
                course.act([Step::AttachVolume { volume: id.clone(), instance: me.instance.clone() }])
            }
            Err(ambiguous) => course.halt(Halt::AmbiguousVolumes { volumes: ambiguous }),
        };
    }
    if let Some((_, volume)) = here.iter().find(|(_, volume)| volume.state == VolumeState::Creating) {
        let slot = volume.slot.or_else(|| Slot::all(1).next());
        if let Some(slot) = slot {
            course.slot = volume.slot;
            return course.wait(WaitingOn::VolumeCreated { slot });
        }
    }
    if let Some((id, holder)) = here.iter().find_map(|(id, volume)| leaving(seen, id, volume)) {
        return course.wait(WaitingOn::VolumeReleased { volume: id.clone(), holder: holder.clone() });
    }
    if source == VolumeSource::Created {
        match create(settings, seen, me, volumes, &here, course) {
            Ok(Some(step)) => return course.act([step]),
            Ok(None) => {}
            Err(plan) => return plan,
        }
        course.phase = Phase::Standby;
        if let Some(plan) = takeover::plan(settings, seen, me, volumes, course) {
            return plan;
        }
    }
    course.phase = Phase::Standby;
    course.wait(WaitingOn::FreeSlot)
}

/// Whether a volume here is of a slot of this zone, as far as the charter is known: one of a slot that was taken over
/// by another zone is not.
fn belongs(seen: &Observation, volume: &Volume, here: &Zone) -> bool {
    match (charter_of(seen), volume.slot) {
        (Some(charter), Some(slot)) => charter.zone_of(slot).is_none_or(|zone| zone == here),
        (None, _) | (_, None) => true,
    }
}

fn is_detaching(volume: &Volume) -> bool {
    volume.attachment.as_ref().is_some_and(|attachment| match attachment.state {
        AttachmentState::Detaching | AttachmentState::Busy => true,
        AttachmentState::Attaching | AttachmentState::Attached => false,
    })
}

/// The one free volume to attach: of the lowest slot, and within a slot the only one, or the only
/// one that has been used before.
fn choose<'a>(free: &[NamedVolume<'a>]) -> Option<Result<NamedVolume<'a>, Vec<VolumeId>>> {
    let lowest = free.iter().map(|(_, volume)| volume.slot).min()?;
    let fitting: Vec<NamedVolume<'a>> =
        free.iter().copied().filter(|(_, volume)| volume.slot == lowest).collect();
    let used: Vec<NamedVolume<'a>> = fitting
        .iter()
        .copied()
        .filter(|(_, volume)| {
            volume.stamp.as_deref().is_some_and(|stamp| stamp != crate::model::stamp::FORMATTED)
        })
        .collect();
    // Only a slot's tag makes an earlier use decisive: an untagged volume was never ours to use.
    Some(match (fitting.as_slice(), used.as_slice()) {
        ([only], _) => Ok(*only),
        (_, [only]) if lowest.is_some() => Ok(*only),
        (several, _) => Err(ids(several)),
    })
}

/// A volume whose holder is on its way out, or that is being detached.
fn leaving<'a>(
    seen: &Observation,
    id: &'a VolumeId,
    volume: &'a Volume,
) -> Option<(&'a VolumeId, &'a InstanceId)> {
    let attachment = volume.attachment.as_ref()?;
    let detaching = is_detaching(volume);
    let dying =
        seen.instances.known().and_then(|all| all.get(&attachment.instance)).is_some_and(
            |holder| match holder.state {
                InstanceState::ShuttingDown
                | InstanceState::Terminated
                | InstanceState::Stopping
                | InstanceState::NotFound => true,
                InstanceState::Pending | InstanceState::Running | InstanceState::Stopped => false,
            },
        );
    (detaching || dying).then_some((id, &attachment.instance))
}

/// The step that creates a volume for a slot of this zone that has none, if there is such a slot.
fn create(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    volumes: &BTreeMap<VolumeId, Volume>,
    here: &[NamedVolume<'_>],
    course: &Course,
) -> Next<Option<Step>> {
    let instances = course.need(&seen.instances, Subject::Instances)?;
    if !instances.contains_key(&me.instance) {
        return Err(course.wait(WaitingOn::OwnInstance));
    }
    let charter = course.need(&seen.charter, Subject::Charter)?.as_ref().map(|charter| &charter.value);
    let slots = slots_of_zone(settings, seen, me, course)?;
    let Some(slot) =
        slots.into_iter().find(|slot| !here.iter().any(|(_, volume)| volume.slot == Some(*slot)))
    else {
        return Ok(None);
    };
    let predecessor = match charter {
        None => None,
        Some(charter) => {
            let recorded = match &seen.etcd.cluster {
                Fact::Known(view) => view.records.get(&slot).map(|record| &record.volume),
                // Once established, only etcd knows which volume was the slot's last. Where there is none left at all
                // it does not matter, and nobody could begin without one.
                Fact::Unknown(_) if charter.established() => {
                    if !recovery::is_nothing_left(seen, charter, course) {
                        return Err(course.wait(WaitingOn::Quorum));
                    }
                    last_known(seen, charter, slot)
                }
                Fact::Unknown(_) => None,
            };
            recorded.or_else(|| charter.founder(slot).map(|founder| &founder.volume))
        }
    };
    let begun_with = match charter.and_then(|charter| charter.recovery.as_ref()) {
        None => "first".to_owned(),
        Some(Recovery::Backup { point }) => point.chain.to_string(),
        Some(Recovery::Survivor { volume, .. }) => volume.to_string(),
    };
    let mut after = predecessor.map_or(begun_with.as_str(), VolumeId::as_str);
    if let Some(volume) = predecessor {
        let listed = volumes.get(volume);
        // The slot was taken over from the zone that this one is in.
        let elsewhere = listed.and_then(|volume| volume.zone.as_ref()).is_some_and(|zone| *zone != me.zone);
        // Who began to join there may record its own volume yet: the move is what all machines of this zone know.
        if let Some(charter) = charter.filter(|_| elsewhere) {
            after = charter.nonce.as_str();
        }
        match listed.map_or(Fate::Unsure, volume_fate) {
            Fate::Gone => {}
            Fate::Alive if elsewhere && charter.is_some_and(Charter::established) => {}
            Fate::NotFound => {
                super::evidence::confirm_not_found(seen, course, volume.as_str())?;
            }
            Fate::Alive | Fate::Unsure => {
                // It lives here and is not listed with our tag, or nothing is known of it: it is the slot's.
                return Ok(None);
            }
        }
    }
    let token = token(settings.cluster.as_str(), slot, &me.zone, after);
    Ok(Some(Step::CreateVolume { slot, zone: me.zone.clone(), token }))
}

/// A slot's volume by the last-known members of the charter's generation.
fn last_known<'a>(seen: &'a Observation, charter: &Charter, slot: Slot) -> Option<&'a VolumeId> {
    let members = seen.published.known()?.as_ref()?;
    (members.generation == charter.generation).then(|| members.slots.get(&slot))?.map(|record| &record.volume)
}

/// EC2's client token (64 characters at most): the same for the same slot in the same zone after the same
/// predecessor, or after the same move, so that however often it is asked, one volume is made. FNV-1a, 128 bits.
fn token(cluster: &str, slot: Slot, zone: &Zone, after: &str) -> String {
    let text = format!("{cluster}/{slot}/{zone}/{after}");
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("quorate-{hash:032x}")
}

fn charter_of(seen: &Observation) -> Option<&Charter> {
    match &seen.charter {
        Fact::Known(Some(charter)) => Some(&charter.value),
        Fact::Known(None) | Fact::Unknown(_) => None,
    }
}

/// The zone of each slot: by the charter, and before there is one, the settings' or the groups'
/// zones in their order, again and again.
pub(super) fn layout(settings: &Settings, seen: &Observation, course: &Course) -> Next<Vec<Zone>> {
    if let Some(charter) = charter_of(seen) {
        return Ok(charter.zones.clone());
    }
    course.need(&seen.charter, Subject::Charter)?;
    let mut zones = if settings.etcd.zones.is_empty() {
        course.need(&seen.zones, Subject::Zones)?.clone()
    } else {
        settings.etcd.zones.clone()
    };
    zones.sort_unstable();
    zones.dedup();
    if zones.is_empty() {
        return Err(course.wait(WaitingOn::Answer {
            about: Subject::Zones,
            why: "no Auto Scaling group carries this cluster's tags".to_owned(),
        }));
    }
    Ok(zones.iter().cycle().take(settings.etcd.size.slots()).cloned().collect())
}

fn slots_of_zone(settings: &Settings, seen: &Observation, me: &Identity, course: &Course) -> Next<Vec<Slot>> {
    let zones = layout(settings, seen, course)?;
    Ok(Slot::all(settings.etcd.size.into())
        .zip(&zones)
        .filter(|(_, zone)| **zone == me.zone)
        .map(|(slot, _)| slot)
        .collect())
}

fn free_slots(slots: &[Slot], volumes: &BTreeMap<VolumeId, Volume>, but: &VolumeId) -> Vec<Slot> {
    slots
        .iter()
        .copied()
        .filter(|slot| {
            !volumes.iter().any(|(id, volume)| {
                id != but
                    && volume.ours
                    && volume.slot == Some(*slot)
                    && matches!(volume_fate(volume), Fate::Alive | Fate::Unsure)
            })
        })
        .collect()
}

fn ids(volumes: &[NamedVolume<'_>]) -> Vec<VolumeId> {
    volumes.iter().map(|(id, _)| (*id).clone()).collect()
}
