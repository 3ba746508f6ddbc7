//! Who founds the cluster, and when a founding is given up for the next.
//!
//! A control-plane node that holds a slot and sees all slots held by running machines proposes the
//! charter; after a patience a majority of the slots is enough. Any sign of an earlier life forbids
//! it: that is a lost charter, which is repaired from a quorate cluster or by an operator.

use std::collections::BTreeMap;

use crate::config::settings::ControlPlaneKind;
use crate::model::charter::CharterChange;
use crate::model::charter::{Founder, majority};
use crate::model::machine::peer_url;
use crate::model::plan::Subject;
use crate::model::stamp::FORMATTED;
use crate::model::{
    Charter, ClusterUuid, DataDir, Fact, Generation, Halt, Instance, InstanceId, InstanceState, Phase, Plan,
    Role, Slot, Step, Versioned, Volume, VolumeId, WaitingOn, Warning, Zone,
};

use super::course::{Course, Next};
use super::evidence::{had_quorum, life_by_tag, signs_of_life, waited};
use super::member::{self, Site};
use super::recovery;
use super::volume::layout;

/// There is no charter: repair it, halt, or found.
pub(super) fn without_charter(site: &Site<'_>, mut course: Course) -> Next<Plan> {
    let (seen, held) = (site.seen, site.held);
    // A quorate cluster of this name has a copy: it is the charter.
    if let Some(copy) = seen.etcd.cluster.known().and_then(|view| view.charter.as_ref())
        && copy.cluster == site.settings.cluster
        && copy.established()
        && held.listed.is_some()
        && held.stamp.state.life().is_none_or(|life| life == (&copy.uuid, copy.generation))
    {
        return Err(course.act([Step::CreateCharter { charter: copy.clone() }]));
    }
    let volumes = course.need(&seen.volumes, Subject::Volumes);
    let signs = match (volumes, held.stamp.state.life()) {
        (_, Some((uuid, generation))) => {
            vec![format!("this volume took part in generation {generation} of cluster {uuid}")]
        }
        (Err(plan), None) => return Err(plan),
        (Ok(volumes), None) => {
            let mut signs = signs_of_life(volumes, *course.need(&seen.backups, Subject::Backups)?);
            if held.data != DataDir::Absent {
                signs.push("this volume holds etcd data".to_owned());
            }
            signs
        }
    };
    if !signs.is_empty() {
        let evidence = signs.join("; ");
        let waiting = WaitingOn::Answer {
            about: Subject::Charter,
            why: format!("there is none in S3, although {evidence}"),
        };
        return match member::without_charter(site, course.clone(), waiting) {
            // It has nothing to start from: only the charter's repair helps.
            Err(plan) if plan.steps.is_empty() && plan.report.phase == Phase::Preparing => {
                Err(course.halt(Halt::CharterLost { evidence }))
            }
            other => other,
        };
    }
    course.phase = Phase::Founding;
    let instances = course.need(&seen.instances, Subject::Instances)?;
    if !instances.contains_key(&site.me.instance) {
        return Err(course.wait(WaitingOn::OwnInstance));
    }
    let volumes = course.need(&seen.volumes, Subject::Volumes)?;
    let claims = claims(instances, volumes, |tag| tag == FORMATTED);
    let founders = enough(site, &claims, &course)?;
    let mut zones = layout(site.settings, seen, &course)?;
    for (zone, claim) in Slot::all(site.settings.etcd.size.into())
        .zip(zones.iter_mut())
        .filter_map(|(slot, zone)| Some((zone, claims.get(&slot)?)))
    {
        zone.clone_from(&claim.zone);
    }
    warn_of_shared_zones(&zones, &mut course);
    // The observation's fresh UUID names the cluster, and marks the write.
    let uuid: ClusterUuid = seen.entropy.as_str().parse().map_err(|_| {
        course.halt(Halt::Contradiction { what: "the agent's entropy is no UUID".to_owned() })
    })?;
    let charter = Charter::found(
        site.settings.cluster.clone(),
        uuid,
        site.me.region.clone(),
        zones,
        founders,
        seen.entropy.clone(),
    )
    .map_err(|refusal| course.halt(Halt::Contradiction { what: refusal.to_string() }))?;
    let mut steps = vec![Step::CreateCharter { charter }];
    // Whoever founds makes what nobody can have yet. Where it is there, and where this is cut off, nothing
    // is lost: the write is conditional, and what is missing is made when etcd runs.
    if site.settings.kubernetes.control_plane == ControlPlaneKind::StaticPods
        && seen.clock_synchronised == Fact::Known(true)
    {
        steps.push(Step::CreateClusterAuthorities);
    }
    Err(course.act(steps))
}

/// Warns when the loss of one zone could cost more slots than the cluster can lose.
pub(super) fn warn_of_shared_zones(zones: &[Zone], course: &mut Course) {
    let mut distinct = zones.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < zones.len() && zones.len() <= 3 {
        course.warn(Warning::SharedZone { zones: distinct.len(), slots: zones.len() });
    }
}

/// A slot held by a running control-plane machine, on a volume that is ready.
#[derive(Debug, Clone)]
struct Claimed {
    volume: VolumeId,
    instance: InstanceId,
    zone: Zone,
    peer_url: String,
}

/// Who holds which slot; of two volumes in one slot the first by name.
fn claims(
    instances: &BTreeMap<InstanceId, Instance>,
    volumes: &BTreeMap<VolumeId, Volume>,
    ready: impl Fn(&str) -> bool,
) -> BTreeMap<Slot, Claimed> {
    let mut claims = BTreeMap::new();
    for (id, volume) in volumes {
        let (Some(slot), Some(holder), Some(tag), Some(zone), true) =
            (volume.slot, volume.holder(), volume.stamp.as_deref(), &volume.zone, volume.ours)
        else {
            continue;
        };
        let Some(Instance {
            state: InstanceState::Running,
            address: Some(address),
            role: Some(Role::ControlPlane),
            ..
        }) = instances.get(holder)
        else {
            continue;
        };
        if ready(tag) {
            claims.entry(slot).or_insert_with(|| Claimed {
                volume: id.clone(),
                instance: holder.clone(),
                zone: zone.clone(),
                peer_url: peer_url(*address),
            });
        }
    }
    claims
}

/// The founders, when all slots are claimed, or a majority after the patience. This machine is one
/// of them: who holds no slot proposes nothing.
fn enough(site: &Site<'_>, claims: &BTreeMap<Slot, Claimed>, course: &Course) -> Next<Vec<Founder>> {
    let slots = site.settings.etcd.size;
    let missing: Vec<Slot> = Slot::all(slots.into()).filter(|slot| !claims.contains_key(slot)).collect();
    let claimed = slots.slots() - missing.len();
    let among = claims
        .get(&site.held.slot)
        .is_some_and(|claim| claim.volume == site.held.volume && claim.peer_url == site.me.peer_url());
    let is_majority = among && claimed >= majority(slots.slots());
    let patience = site.settings.founding.patience.as_signed_millis();
    let waited = waited(site.seen, |on| matches!(on, WaitingOn::Claims { majority: true, .. }));
    if among && (missing.is_empty() || (is_majority && waited >= Some(patience))) {
        return Ok(claims
            .iter()
            .filter(|(slot, _)| usize::from(slot.number()) <= slots.slots())
            .map(|(slot, claim)| Founder {
                slot: *slot,
                volume: claim.volume.clone(),
                instance: claim.instance.clone(),
                peer_url: claim.peer_url.clone(),
                started: None,
            })
            .collect());
    }
    Err(course.wait(WaitingOn::Claims { missing, majority: is_majority }))
}

/// The charter's founding is not complete, and this machine has no part in it: it waits while the
/// founders can still make a quorum, and founds the next generation when they can't.
pub(super) fn refound_or_wait(
    site: &Site<'_>,
    versioned: &Versioned<Charter>,
    course: &Course,
) -> Next<Box<Plan>> {
    let charter = &versioned.value;
    if let Some(recovery) = &charter.recovery {
        return recovery::begin_elsewhere(site, versioned, recovery, course);
    }
    let instances = course.need(&site.seen.instances, Subject::Instances)?;
    if !instances.contains_key(&site.me.instance) {
        return Err(course.wait(WaitingOn::OwnInstance));
    }
    let volumes = course.need(&site.seen.volumes, Subject::Volumes)?;
    let missing: Vec<Slot> =
        charter.founders.iter().filter(|f| f.started.is_none()).map(|f| f.slot).collect();
    let able =
        charter.founders.iter().filter(|f| f.started.is_some() || can_start(f, instances, volumes)).count();
    if able >= charter.quorum() {
        return Ok(course.wait(WaitingOn::Founders { generation: charter.generation, missing }));
    }
    let member = |(_, volume): &(&VolumeId, &Volume)| {
        volume.ours && had_quorum(volume.stamp.as_deref(), charter.generation)
    };
    if let Some((id, _)) = volumes.iter().find(member) {
        return Err(course.halt(Halt::Contradiction {
            what: format!(
                "volume {id} is tagged as a member's of generation {}, of which the charter says that no \
                 majority has started",
                charter.generation
            ),
        }));
    }
    let next: Generation = charter.generation.next();
    let claims =
        claims(instances, volumes, |tag| life_by_tag(Some(tag)).is_none_or(|generation| generation < next));
    let founders = enough(site, &claims, course)?;
    let refounded = charter
        .refound(founders, site.seen.entropy.clone())
        .map_err(|refusal| course.halt(Halt::Contradiction { what: refusal.to_string() }))?;
    Ok(course.act([Step::AmendCharter {
        from: versioned.etag.clone(),
        charter: refounded,
        change: CharterChange::Refound,
    }]))
}

/// Whether a founder that has not started is still where the charter says, and may yet start.
pub(super) fn can_start(
    founder: &Founder,
    instances: &BTreeMap<InstanceId, Instance>,
    volumes: &BTreeMap<VolumeId, Volume>,
) -> bool {
    let holder = volumes.get(&founder.volume).and_then(Volume::holder);
    holder.and_then(|holder| instances.get(holder)).is_some_and(|instance| match instance.state {
        InstanceState::Pending | InstanceState::Running => {
            instance.address.map(peer_url).as_ref() == Some(&founder.peer_url)
        }
        InstanceState::Stopping
        | InstanceState::Stopped
        | InstanceState::ShuttingDown
        | InstanceState::Terminated
        | InstanceState::NotFound => false,
    })
}
