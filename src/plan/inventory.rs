//! What does not match among etcd's members, the kept identities, and EC2's instances and volumes.
//!
//! A running member notices it, and people are warned when it has lasted for [`LASTS`]: a machine that ends, and a
//! successor that boots, are no news. Nothing is done about it here. Only what EC2 and etcd said counts; while EC2 does
//! not answer, what was noticed before stays as it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::mismatch::remember;
use crate::model::{
    Charter, ClusterView, Fact, Instance, InstanceId, InstanceState, Member, MemberId, Mismatch, Noticed,
    Observation, Role, Slot, SlotRecord, Volume, VolumeId, VolumeState, Warning, Zone,
};

use super::course::Course;
use super::evidence::{Fate, life_by_tag, volume_fate};
use super::joining::is_of;

/// How long, in milliseconds, something is noticed before it is warned of.
const LASTS: i64 = 10 * 60_000;

/// Notices what does not match, and warns of what has lasted.
pub(super) fn check(seen: &Observation, view: &ClusterView, charter: &Charter, course: &mut Course) {
    course.noticed = match (&seen.instances, &seen.volumes) {
        (Fact::Known(instances), Fact::Known(volumes)) => {
            Some(Inventory { view, charter, instances, volumes }.mismatches())
        }
        (Fact::Unknown(_), _) | (_, Fact::Unknown(_)) => None,
    };
    for Noticed { mismatch, since } in remember(&seen.noticed, course.noticed.as_deref(), seen.at) {
        if seen.at.saturating_sub(since) >= LASTS {
            course.warn(Warning::Mismatch { mismatch });
        }
    }
}

struct Inventory<'a> {
    view: &'a ClusterView,
    charter: &'a Charter,
    instances: &'a BTreeMap<InstanceId, Instance>,
    volumes: &'a BTreeMap<VolumeId, Volume>,
}

/// A slot's member, and the machine and volume that its identity names.
struct Kept<'a> {
    slot: Slot,
    zone: &'a Zone,
    member: MemberId,
    is_healthy: bool,
    instance: &'a InstanceId,
    volume: &'a VolumeId,
}

impl<'a> Inventory<'a> {
    fn mismatches(&self) -> Vec<Mismatch> {
        let mut found = Vec::new();
        for (slot, zone) in self.slots() {
            match self.member_of(slot) {
                None => found.push(Mismatch::SlotWithoutMember { slot, zone: zone.clone() }),
                Some((member, listed)) => {
                    found
                        .extend(self.kept(slot, zone, member, listed).and_then(|kept| self.of_member(&kept)));
                }
            }
            found.extend(self.several_volumes(slot, zone));
        }
        found.extend(self.unknown_members());
        found.extend(self.volumes.iter().filter_map(|(id, volume)| self.of_volume(id, volume)));
        found.extend(self.instances_by_zone());
        found
    }

    fn slots(&self) -> impl Iterator<Item = (Slot, &'a Zone)> {
        Slot::all(Slot::MOST).zip(&self.charter.zones)
    }

    /// Whether a member is the one of a slot, by the slot's record, its name, or the charter.
    fn is_member_of(&self, slot: Slot, id: MemberId, member: &Member) -> bool {
        let record = self.view.records.get(&slot);
        let as_founder = || {
            let founder = self.charter.founder(slot);
            founder.is_some_and(|founder| member.peer_urls == [founder.peer_url.clone()])
        };
        match record {
            Some(record) if record.member.is_some() => record.member == Some(id),
            Some(record) => member.name == slot.member_name() || is_of(record, id, member),
            None if member.has_started() => member.name == slot.member_name(),
            None => !member.learner && as_founder(),
        }
    }

    fn member_of(&self, slot: Slot) -> Option<(MemberId, &'a Member)> {
        let mut members = self.view.members.iter().map(|(id, member)| (*id, member));
        members.find(|(id, member)| self.is_member_of(slot, *id, member))
    }

    /// The machine and the volume of a slot's member, where that is known.
    fn kept(&self, slot: Slot, zone: &'a Zone, member: MemberId, listed: &Member) -> Option<Kept<'a>> {
        let recorded = |record: &'a SlotRecord| (&record.instance, &record.volume);
        let founded = || self.charter.founder(slot).map(|founder| (&founder.instance, &founder.volume));
        let (instance, volume) = self.view.records.get(&slot).map(recorded).or_else(founded)?;
        let is_healthy = listed.healthy == Fact::Known(true);
        Some(Kept { slot, zone, member, is_healthy, instance, volume })
    }

    fn of_member(&self, kept: &Kept<'_>) -> Option<Mismatch> {
        let volume = self.volumes.get(kept.volume)?;
        let (member, slot) = (kept.member, kept.slot);
        // One that answers runs somewhere, whatever EC2 says: what is kept of it is corrected by its own machine.
        let failed = volume.state == VolumeState::Error;
        if kept.is_healthy && !failed {
            return None;
        }
        if matches!(volume_fate(volume), Fate::Gone | Fate::NotFound) {
            let (zone, state) = (kept.zone.clone(), volume.state);
            return Some(Mismatch::MemberWithoutVolume {
                member,
                slot,
                zone,
                volume: kept.volume.clone(),
                state,
            });
        }
        let holder = volume.attachment.as_ref().map(|attachment| &attachment.instance);
        let state = self.instances.get(kept.instance)?.state;
        if !is_alive(state) {
            // A successor that has the volume says itself what it waits for.
            let succeeded = holder.is_some_and(|holder| {
                holder != kept.instance
                    && self.instances.get(holder).is_some_and(|found| is_alive(found.state))
            });
            let (zone, instance) = (kept.zone.clone(), kept.instance.clone());
            return (!succeeded).then_some(Mismatch::MemberWithoutMachine {
                member,
                slot,
                zone,
                instance,
                state,
            });
        }
        let (instance, volume) = (kept.instance.clone(), kept.volume.clone());
        holder.is_none().then_some(Mismatch::MemberWithFreeVolume { member, slot, instance, volume })
    }

    fn unknown_members(&self) -> impl Iterator<Item = Mismatch> {
        let is_unknown = |id: MemberId, member: &Member| {
            !self.slots().any(|(slot, _)| self.is_member_of(slot, id, member))
        };
        let members = self.view.members.iter().filter(move |(id, member)| is_unknown(**id, member));
        members.map(|(id, member)| Mismatch::UnknownMember {
            member: *id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
        })
    }

    /// Those in the slot's zone: one elsewhere is misplaced.
    fn several_volumes(&self, slot: Slot, zone: &Zone) -> Option<Mismatch> {
        let is_one = |volume: &Volume| {
            volume.slot == Some(slot) && is_ours(volume) && volume.zone.as_ref() == Some(zone)
        };
        let tagged = self.volumes.iter().filter(|(_, volume)| is_one(volume));
        let volumes: Vec<VolumeId> = tagged.map(|(id, _)| id.clone()).collect();
        if volumes.len() < 2 {
            return None;
        }
        let used = self.view.records.get(&slot).map(|record| record.volume.clone());
        let used = used.filter(|used| volumes.contains(used));
        Some(Mismatch::SeveralVolumes { slot, volumes, used })
    }

    fn of_volume(&self, id: &VolumeId, volume: &Volume) -> Option<Mismatch> {
        if !is_ours(volume) {
            return None;
        }
        let (zone, generation) = (volume.zone.clone()?, self.charter.generation);
        let fits = |slot: Slot| volume.slot.is_none_or(|tagged| tagged == slot);
        let mut expected: Vec<Zone> =
            self.slots().filter(|(slot, _)| fits(*slot)).map(|(_, zone)| zone.clone()).collect();
        expected.sort_unstable();
        expected.dedup();
        if !expected.contains(&zone) {
            return Some(Mismatch::MisplacedVolume { volume: id.clone(), slot: volume.slot, zone, expected });
        }
        let tag = volume.stamp.as_deref();
        let later = life_by_tag(tag).is_some_and(|life| life > generation);
        let tag = tag.unwrap_or_default().to_owned();
        later.then(|| Mismatch::LaterVolume { volume: id.clone(), tag, generation })
    }

    /// Control-plane machines that run where no slot is, and zones that have too many while others have too few.
    fn instances_by_zone(&self) -> Vec<Mismatch> {
        let mut slots: BTreeMap<&Zone, usize> = BTreeMap::new();
        for (_, zone) in self.slots() {
            *slots.entry(zone).or_default() += 1;
        }
        let mut machines: BTreeMap<&Zone, BTreeSet<&InstanceId>> = BTreeMap::new();
        for (id, instance) in self.instances {
            if let (true, Some(Role::ControlPlane), Some(zone)) =
                (is_alive(instance.state), instance.role, &instance.zone)
            {
                machines.entry(zone).or_default().insert(id);
            }
        }
        let count = |zone: &Zone| machines.get(zone).map_or(0, BTreeSet::len);
        let lacking: Vec<Zone> = slots
            .iter()
            .filter(|(zone, slots)| count(zone) < **slots)
            .map(|(zone, _)| (*zone).clone())
            .collect();
        let mut found = Vec::new();
        for (zone, ids) in &machines {
            match slots.get(zone) {
                None => found.extend(ids.iter().map(|id| Mismatch::MisplacedInstance {
                    instance: (*id).clone(),
                    zone: (*zone).clone(),
                    expected: slots.keys().copied().cloned().collect(),
                })),
                Some(slots) if ids.len() > *slots && !lacking.is_empty() => {
                    found.push(Mismatch::CrowdedZone {
                        zone: (*zone).clone(),
                        slots: *slots,
                        instances: ids.iter().copied().cloned().collect(),
                        lacking: lacking.clone(),
                    });
                }
                Some(_) => {}
            }
        }
        found
    }
}

/// Whether a volume of this cluster's is there.
fn is_ours(volume: &Volume) -> bool {
    volume.ours && volume_fate(volume) == Fate::Alive
}

/// Whether a machine runs, or is about to.
fn is_alive(state: InstanceState) -> bool {
    match state {
        InstanceState::Pending | InstanceState::Running => true,
        InstanceState::Stopping
        | InstanceState::Stopped
        | InstanceState::ShuttingDown
        | InstanceState::Terminated
        | InstanceState::NotFound => false,
    }
}
