//! When a standby takes over the slot of another zone, and what becomes of what was left behind there.
//!
//! A volume can't leave its zone. When a slot's machine is gone for good and no other comes to its zone for long, a
//! standby elsewhere has the charter say that the slot is in its own zone. That is one compare-and-set, so of several
//! standbys one wins. What follows is any replacement: a volume is created, the member of the old one is removed, a
//! learner is added. The old volume stays as it is. When its zone comes back, a machine there finds that the slot is
//! no longer its zone's and stands by; one that had attached the volume before learns from the cluster that its member
//! was removed, sets the data aside, and lets go of the volume; and where its member came back to life before it was
//! removed, the slot is given back.
//!
//! A member is removed here on EC2's word that its instance ends: from `shutting-down` there is no way back. An
//! instance that EC2 calls running keeps its slot, however long it says nothing.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::config::settings::VolumeSource;
use crate::model::charter::CharterChange;
use crate::model::{
    Charter, ClusterView, Fact, Halt, Identity, Instance, InstanceId, InstanceState, Member, Observation,
    Phase, Plan, Role, Slot, SlotRecord, Step, Volume, VolumeId, WaitingOn, Zone,
};

use super::course::{Course, Next};
use super::evidence::{NOT_FOUND_FOR, never_runs_again, waited};
use super::member::{Site, require_listed};

/// What is known of the cluster and of its machines and volumes.
struct Look<'a> {
    seen: &'a Observation,
    me: &'a Identity,
    charter: &'a Charter,
    view: &'a ClusterView,
    instances: &'a BTreeMap<InstanceId, Instance>,
    volumes: &'a BTreeMap<VolumeId, Volume>,
}

/// What this machine, which has no volume and none to create for a slot of its own zone, does about a slot of another
/// zone that nobody there can take; nothing where there is none.
pub(super) fn plan(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    volumes: &BTreeMap<VolumeId, Volume>,
    course: &Course,
) -> Option<Box<Plan>> {
    let zones = &settings.etcd.zones;
    if !zones.is_empty() && !zones.contains(&me.zone) {
        return None;
    }
    let versioned = seen.charter.known()?.as_ref()?;
    let charter = &versioned.value;
    let view = seen.etcd.cluster.known()?;
    let copy = view.charter.as_ref()?;
    if (&copy.uuid, copy.generation) != (&charter.uuid, charter.generation) || !charter.established() {
        return None;
    }
    let instances = seen.instances.known()?;
    let look = Look { seen, me, charter, view, instances, volumes };
    let (slot, zone, holder) = Slot::all(settings.etcd.size.into()).find_map(|slot| {
        let (zone, holder) = look.abandoned(slot, &me.zone)?;
        Some((slot, zone, holder))
    })?;
    let on = WaitingOn::Takeover { slot, zone: zone.clone() };
    let patience = settings.etcd.volume.takeover.as_signed_millis();
    let patience = match look.state(holder) {
        // It has to be said twice, a while apart.
        Some(InstanceState::NotFound) => patience.max(NOT_FOUND_FOR),
        Some(_) | None => patience,
    };
    if waited(seen, |waiting| *waiting == on) < Some(patience) {
        return Some(course.wait(on));
    }
    Some(match charter.move_slot(slot, &me.zone, seen.entropy.clone()) {
        Ok(moved) => course.act_and_wait(
            [Step::AmendCharter {
                from: versioned.etag.clone(),
                charter: moved,
                change: CharterChange::MoveSlot,
            }],
            on,
        ),
        Err(refusal) => course.halt(Halt::Contradiction { what: refusal.to_string() }),
    })
}

impl<'a> Look<'a> {
    /// The zone and the last holder of a slot of another zone, if that holder is gone for good and nobody in the zone
    /// can follow it.
    fn abandoned(&self, slot: Slot, here: &Zone) -> Option<(&'a Zone, &'a InstanceId)> {
        let zone = self.charter.zone_of(slot).filter(|zone| *zone != here)?;
        let record = self.view.records.get(&slot);
        let holder = record
            .map(|record| &record.instance)
            .or_else(|| self.charter.founder(slot).map(|founder| &founder.instance))?;
        // A slot may have been given back to a zone that has lost its machine since, after this one had begun to join:
        // it holds no volume, so no member runs on it.
        let gone = never_runs_again(self.seen, holder) || *holder == self.me.instance;
        (gone && !self.lives(slot) && !self.is_held(slot) && !self.has_spare(zone)).then_some((zone, holder))
    }

    fn state(&self, instance: &InstanceId) -> Option<InstanceState> {
        self.instances.get(instance).map(|found| found.state)
    }

    /// Whether a member of this slot answers.
    fn lives(&self, slot: Slot) -> bool {
        let recorded = self.view.records.get(&slot).and_then(|record| record.member);
        self.view.members.iter().any(|(id, member)| {
            (recorded == Some(*id) || member.name == slot.member_name())
                && member.healthy == Fact::Known(true)
        })
    }

    /// Whether a machine that may run holds a volume of this slot.
    fn is_held(&self, slot: Slot) -> bool {
        self.volumes
            .values()
            .filter(|volume| volume.ours && volume.slot == Some(slot))
            .filter_map(|volume| volume.attachment.as_ref())
            .any(|held| !never_runs_again(self.seen, &held.instance))
    }

    /// Whether a zone has a machine that has no slot, and so may take this one.
    fn has_spare(&self, zone: &Zone) -> bool {
        self.instances.iter().any(|(id, instance)| {
            let runs = matches!(instance.state, InstanceState::Pending | InstanceState::Running);
            let has_volume = self.volumes.values().any(|volume| {
                volume.ours && volume.attachment.as_ref().is_some_and(|held| held.instance == *id)
            });
            runs && instance.zone.as_ref() == Some(zone)
                && instance.role == Some(Role::ControlPlane)
                && !has_volume
        })
    }
}

/// The step that gives a slot back to the zone that it was taken over from: there its member came back to life, since
/// a machine had attached the old volume before it could know.
pub(super) fn undone(
    site: &Site<'_>,
    charter: &Charter,
    member: &Member,
    who: Option<&SlotRecord>,
) -> Option<Step> {
    let volume = site.seen.volumes.known()?.get(&who?.volume)?;
    let zone = volume.zone.as_ref().filter(|zone| **zone != site.me.zone)?;
    let is_ours = site.settings.etcd.volume.source == VolumeSource::Created
        && charter.zone_of(site.held.slot) == Some(&site.me.zone);
    let versioned = site.seen.charter.known()?.as_ref()?;
    if !is_ours || member.healthy != Fact::Known(true) {
        return None;
    }
    let charter = versioned.value.move_slot(site.held.slot, zone, site.seen.entropy.clone()).ok()?;
    Some(Step::AmendCharter { from: versioned.etag.clone(), charter, change: CharterChange::MoveSlot })
}

/// Whether the slot whose volume this machine holds was taken over by another zone.
pub(super) fn is_elsewhere(site: &Site<'_>, charter: &Charter) -> bool {
    charter.established() && charter.zone_of(site.held.slot).is_some_and(|zone| *zone != site.me.zone)
}

/// Lets go of a volume on which no member lives any more, and whose slot is another zone's: this machine stands by.
pub(super) fn let_go(site: &Site<'_>, course: &mut Course) -> Next<Box<Plan>> {
    require_listed(site, course)?;
    course.phase = Phase::Standby;
    let me = &site.me.instance;
    let mut steps = Vec::new();
    if site.seen.etcd.cluster.known().is_some_and(|view| view.lock.as_ref() == Some(me)) {
        steps.push(Step::ReleaseMembershipLock { instance: me.clone() });
    }
    let volume = site.held.volume.clone();
    steps.extend([Step::Unmount, Step::DetachVolume { volume, instance: me.clone() }]);
    Ok(course.act(steps))
}
