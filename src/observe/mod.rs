//! Asks the world, and returns one plain value.
//!
//! Every answer is `Known` or `Unknown(why)`: what failed, was throttled, timed out or is partial
//! is unknown. How much is asked depends on what the last plan waits for ([`Depth`]); an answer
//! that is used again is at most a minute old (what hardly ever changes: an authority ten, what workers were told
//! five), and a plan with steps is only ever carried out when
//! it was made from a full look, but for steps that only keep up what is, like a lease. A full look asks for everything
//! anew; where AWS does not answer, some of what it said serves half a minute longer ([`kept`] says what), but never
//! beyond a step of this machine's own.
//!
//! What must not live here: decisions, and changes of anything.

mod api;
mod cluster;
mod departure;
mod disk;
mod ec2;
mod enrolment;
mod kept;
mod kubernetes;
mod objects;
mod worker;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::aws::AutoScalingError;
use crate::backup::Keeper;
use crate::host::clock;
use crate::model::departure::DepartureObservation;
use crate::model::kubernetes::{KubernetesObservation, LoadBalancing};
use crate::model::observation::{EtcdObservation, PublishedMembers};
use crate::model::{
    Authority, Charter, Content, Fact, Identity, Leaves, Nonce, Observation, Plan, Role, Silence, SlotRecord,
    Step, Versioned, VolumeId, Waiting, Zone,
};
use crate::pki;
use crate::reach::Reach;

pub use ec2::Ec2Look;

use kept::Kept;

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything, now.
    Full,
    /// What changes from moment to moment: etcd and its service, the charter if it changed. The
    /// rest is from the last full look, if that is recent.
    Light,
}

/// How old an answer may be that a light look uses again.
const RECENT: Duration = Duration::from_mins(1);

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub struct Memory {
    full: Option<(Instant, Observation)>,
    ec2: ec2::Remembered,
    zones: Kept<Vec<Zone>>,
    authority: Option<(Instant, Authority)>,
    charter: Option<Versioned<Charter>>,
    #[expect(clippy::option_option, reason = "whether it was asked for, and whether it is there")]
    published: Option<Option<PublishedMembers>>,
    cluster_authorities: Option<(Instant, Authority)>,
    balancing: Option<(Instant, LoadBalancing)>,
    addons: api::Parsed,
    enrolment: enrolment::Remembered,
    worker: worker::Remembered,
    departure: departure::Remembered,
    instance: kubernetes::AboutInstance,
    probed: Option<(Instant, VolumeId, Content)>,
    /// How many looks in a row this machine's member did not answer.
    silent: u32,
    /// How long it has not, while its process ran.
    silence: Option<Silence>,
}

impl Memory {
    /// Forgets what a step of this machine's may change.
    pub fn before(&mut self, step: &Step) {
        if kept::may_change(step) {
            self.ec2 = ec2::Remembered::default();
            self.zones = Kept::default();
        }
    }

    /// Takes note of what was planned: of what is to be decided the next look asks anew, until it is.
    pub fn planned(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.enrolment.planned(step);
        }
    }
}

/// Looks at the world.
pub async fn observe(reach: &Reach, memory: &mut Memory, depth: Depth, waiting: Vec<Waiting>) -> Observation {
    let last = match (depth, &memory.full) {
        (Depth::Light, Some((at, last))) if at.elapsed() < RECENT => Some(last.clone()),
        (Depth::Light | Depth::Full, _) => None,
    };
    if let (shutdown @ Fact::Known(Some(_)), Some((_, last))) = (reach.shutdown.seen(), &memory.full) {
        let mut last = last.clone();
        last.departure.shutdown = shutdown;
        return Box::pin(at_shutdown(reach, memory, last, waiting)).await;
    }
    let identity = Fact::Known(reach.identity.clone());
    let is_light = last.is_some();
    // As old as the beginning of the look: its first answers are.
    let began = Instant::now();
    // A look that is given up half-way forgets it, and all of it is asked anew.
    let mut remembered = std::mem::take(&mut memory.departure);
    // In boxes: whoever waits for a look would otherwise hold room for all that every kind of look asks.
    let all_else = async {
        match (reach.settings.role, last) {
            (Role::ControlPlane, Some(last)) => Box::pin(light(reach, memory, last)).await,
            (Role::ControlPlane, None) => Box::pin(full(reach, memory, identity)).await,
            (Role::Worker, Some(mut last)) => {
                last.kubernetes = Box::pin(worker::again(reach, memory, last.kubernetes)).await;
                last
            }
            (Role::Worker, None) => Box::pin(workers(reach, memory, identity)).await,
        }
    };
    let (mut seen, departure) = tokio::join!(all_else, Box::pin(departure::look(reach, &mut remembered)));
    memory.departure = remembered;
    seen.departure = departure;
    seen.at = clock::now_ms();
    seen.entropy = entropy();
    seen.waiting = waiting;
    seen.keeping = reach.keeper.as_ref().map(Keeper::progress);
    if !is_light {
        memory.full = Some((began, seen.clone()));
    }
    seen
}

/// Looks at what matters in the seconds before the machine shuts down, and at nothing else: its etcd. All else is as in
/// the last look, which tells of the shutdown: nothing else is decided from it.
async fn at_shutdown(
    reach: &Reach,
    memory: &mut Memory,
    last: Observation,
    waiting: Vec<Waiting>,
) -> Observation {
    let mut seen = last;
    seen.etcd.service = reach.service.state().await.into();
    let ec2 = Ec2Look { instances: seen.instances.clone(), volumes: seen.volumes.clone() };
    cluster::look(reach, memory, &ec2, &seen.charter, &seen.disk, &seen.leaves, &mut seen.etcd).await;
    Observation { at: clock::now_ms(), entropy: entropy(), waiting, ..seen }
}

/// Looks at what this machine's kubelet is configured from, and at nothing else.
pub async fn observe_node(reach: &Reach) -> KubernetesObservation {
    kubernetes::of_the_node(reach, &mut Memory::default()).await
}

/// A fresh UUID as a nonce.
///
/// # Panics
/// Never: a UUID is printable and has no blanks, which is all that a nonce is.
pub fn entropy() -> Nonce {
    #[expect(clippy::expect_used, reason = "a UUID is printable and has no blanks, which is all a nonce is")]
    Uuid::new_v4().to_string().parse().expect("a UUID is a nonce")
}

async fn full(reach: &Reach, memory: &mut Memory, identity: Fact<Identity>) -> Observation {
    let me = &reach.identity;
    let (ec2, clock_synchronised, authority) = tokio::join!(
        ec2::look(reach, &mut memory.ec2),
        clock::synchronised(&reach.root),
        objects::authority(reach, &mut memory.authority, objects::ETCD)
    );
    // The charter is read after the volumes: who sees another's mark on a volume sees the charter
    // that the mark came after.
    let charter = objects::charter(reach, memory).await;
    let founded = matches!(charter, Fact::Known(Some(_)));
    let (mut backups, zones) = if founded {
        (Fact::unknown("not asked for: there is a charter"), Fact::unknown("not asked for: the charter says"))
    } else {
        tokio::join!(objects::backups(reach), memory.zones.ask(zones(reach), AutoScalingError::is_retryable))
    };
    let disk = disk::look(reach, memory, &ec2.volumes).await;
    let leaves: Fact<Option<Leaves>> = pki::inspect(&reach.pki()).into();
    let version = reach.etcd_version().await.into();
    let mut etcd = EtcdObservation {
        version,
        service: reach.service.state().await.into(),
        launch: crate::etcd::launch::read(&reach.etcd_dir()).into(),
        own: Fact::unknown("not asked for"),
        cluster: Fact::unknown("not asked for"),
        care: Fact::unknown("not asked for"),
        notes: crate::host::notes::read(&reach.root).into(),
        silence: None,
    };
    Box::pin(cluster::look(reach, memory, &ec2, &charter, &disk, &leaves, &mut etcd)).await;
    let mut chosen = Fact::unknown("not asked for: nothing is to be recovered");
    let published = if is_headless(&charter, &etcd) {
        let (found, members) = tokio::join!(objects::backups(reach), objects::last_known(reach));
        (backups, chosen) = (found, crate::host::chosen::read(&reach.root).into());
        members
    } else {
        objects::published(reach, memory, &etcd, Depth::Full).await
    };
    let named = named_in(&charter, &etcd, &published);
    let ec2 = Box::pin(ec2::with_named(reach, ec2, named)).await;
    let kubernetes = Box::pin(kubernetes::look(reach, memory, etcd.cluster.is_known())).await;
    Observation {
        at: 0,
        entropy: entropy(),
        identity,
        clock_synchronised: clock_synchronised.into(),
        instances: ec2.instances_with(&me.instance),
        volumes: ec2.volumes,
        zones,
        charter,
        backups,
        keeping: None,
        chosen,
        authority,
        leaves,
        disk,
        etcd,
        kubernetes,
        published,
        departure: DepartureObservation::unknown("not asked for yet"),
        waiting: Vec::new(),
        noticed: Vec::new(),
    }
}

/// All that a worker asks: nothing of etcd's, and nothing of EC2.
async fn workers(reach: &Reach, memory: &mut Memory, identity: Fact<Identity>) -> Observation {
    const WHY: &str = "not asked for: this machine is a worker";
    let (clock_synchronised, kubernetes) =
        tokio::join!(clock::synchronised(&reach.root), worker::look(reach, memory));
    Observation {
        at: 0,
        entropy: entropy(),
        identity,
        clock_synchronised: clock_synchronised.into(),
        instances: Fact::unknown(WHY),
        volumes: Fact::unknown(WHY),
        zones: Fact::unknown(WHY),
        charter: Fact::unknown(WHY),
        backups: Fact::unknown(WHY),
        keeping: None,
        chosen: Fact::unknown(WHY),
        authority: Fact::unknown(WHY),
        leaves: Fact::unknown(WHY),
        disk: Fact::unknown(WHY),
        etcd: EtcdObservation {
            version: Fact::unknown(WHY),
            service: Fact::unknown(WHY),
            launch: Fact::unknown(WHY),
            own: Fact::unknown(WHY),
            cluster: Fact::unknown(WHY),
            care: Fact::unknown(WHY),
            notes: Fact::unknown(WHY),
            silence: None,
        },
        kubernetes,
        published: Fact::unknown(WHY),
        departure: DepartureObservation::unknown("not asked for yet"),
        waiting: Vec::new(),
        noticed: Vec::new(),
    }
}

async fn light(reach: &Reach, memory: &mut Memory, last: Observation) -> Observation {
    let mut seen = last;
    seen.charter = objects::charter(reach, memory).await;
    seen.disk = disk::again(reach, seen.disk).await;
    seen.etcd.service = reach.service.state().await.into();
    let ec2 = Ec2Look { instances: seen.instances.clone(), volumes: seen.volumes.clone() };
    cluster::look(reach, memory, &ec2, &seen.charter, &seen.disk, &seen.leaves, &mut seen.etcd).await;
    // While no quorum answers, what a full look found in S3 serves until the next.
    if !is_headless(&seen.charter, &seen.etcd) {
        seen.published = objects::published(reach, memory, &seen.etcd, Depth::Light).await;
    }
    seen.kubernetes = Box::pin(kubernetes::again(reach, memory, seen.kubernetes)).await;
    seen
}

fn zones(reach: &Reach) -> BoxFuture<'_, Result<Vec<Zone>, AutoScalingError>> {
    let settings = &reach.settings;
    async {
        let names: Vec<String> = settings.groups.iter().map(|name| name.as_str().to_owned()).collect();
        let groups = reach.aws.autoscaling.groups(&settings.cluster, settings.role, &names).await?;
        let mut zones: Vec<Zone> = groups.into_iter().flat_map(|group| group.zones).collect();
        zones.sort_unstable();
        zones.dedup();
        Ok(zones)
    }
    .boxed()
}

/// Whether there is a cluster by the charter, and no quorum of it answers.
fn is_headless(charter: &Fact<Option<Versioned<Charter>>>, etcd: &EtcdObservation) -> bool {
    let has_lived = |charter: &Charter| charter.established() || charter.recovery.is_some();
    matches!(charter, Fact::Known(Some(charter)) if has_lived(&charter.value)) && !etcd.cluster.is_known()
}

/// The machines and volumes that the charter, the slots' records and the last-known members name.
fn named_in(
    charter: &Fact<Option<Versioned<Charter>>>,
    etcd: &EtcdObservation,
    published: &Fact<Option<PublishedMembers>>,
) -> Vec<SlotRecord> {
    let mut named: Vec<SlotRecord> = Vec::new();
    if let Fact::Known(Some(charter)) = charter {
        named.extend(charter.value.founders.iter().map(|founder| SlotRecord {
            volume: founder.volume.clone(),
            instance: founder.instance.clone(),
            peer_url: founder.peer_url.clone(),
            member: None,
        }));
    }
    if let Fact::Known(view) = &etcd.cluster {
        named.extend(view.records.values().cloned());
    }
    if let Fact::Known(Some(members)) = published {
        named.extend(members.slots.values().cloned());
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_look_needs_little_room_for_it() {
        fn room<'a, F>(_: fn(&'a Reach, &'a mut Memory, Depth, Vec<Waiting>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(room(observe) <= 24 * 1024, "{} bytes", room(observe));
    }
}
