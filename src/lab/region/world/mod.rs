//! The region's state and its rules, without sockets, tasks or a clock.
//!
//! [`World`] is a plain value: every operation takes the state from one moment to the next, time
//! comes in through [`World::advance`] and chance through a seeded generator, so that a test can
//! step through an hour in a microsecond and a run can be repeated. No wire format lives here:
//! `wire/` turns requests into these operations and [`Refusal`]s into each protocol's errors.
//!
//! What EC2, Auto Scaling and Elastic Load Balancing answer is held in one [`View`], shared copy-on-write with a short
//! history, from which stale reads are answered. Objects are outside it: S3 is strongly consistent.

mod access;
mod balancers;
mod bucket;
mod compute;
mod faults;
mod groups;
mod lifecycle;
mod metadata;
mod metrics;
mod multipart;
mod notices;
mod objects;
mod permissions;
mod refresh;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use access::{AccessRule, Caller};
pub use balancers::{
    Balancer, BalancerKind, BalancerSpec, CheckProtocol, CheckSpec, Pool, PoolHealth, PoolSpec, PoolTarget,
};
pub(crate) use balancers::{Passage, Probe, Route};
pub use bucket::{BucketSettings, LifecycleRule};
pub use compute::{Instance, InstanceId, InstanceSpec, InstanceState, TypeSpec};
pub use faults::{Call, Decision, Fault, FaultKind, FaultSpec, Outcome, Service};
pub use groups::{Group, GroupSpec};
pub use lifecycle::{Ending, Hold, HookResult, HookSpec, Lifecycle, LifecycleState, Transition};
pub use metadata::{Credentials, ImdsFaults, ImdsGate};
pub use metrics::Measured;
pub use multipart::{CompletedPart, Multipart, Whole};
pub use notices::{
    Interruption, Maintenance, MaintenanceCode, MaintenanceSpec, MaintenanceState, Notices, SpotAction,
};
pub(crate) use objects::crc32;
pub use objects::{Condition, Encryption, Listing, Object, Put};
pub use permissions::{Authorization, Needed};
pub use refresh::{Refresh, RefreshSpec, RefreshStatus};
pub use volumes::{Attachment, AttachmentState, LaunchVolume, Volume, VolumeId, VolumeSpec, VolumeState};

/// How long stale views are kept, in milliseconds.
const HISTORY_MS: u64 = 120_000;
/// How many calls and events are remembered.
const LOG_LENGTH: usize = 200_000;

/// What the simulated region is like. Times are milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorldConfig {
    /// The region's name.
    pub region: String,
    /// Its zones, in order; the index gives the third octet of private addresses.
    pub zones: Vec<String>,
    /// The account id, twelve digits.
    pub account: String,
    /// Seeds ids, ties and faults.
    pub seed: u64,
    /// Private addresses are 127.(base).(zone index + 1).(counter + 1).
    pub address_base: u8,
    /// Whether a terminated instance's address is given out again, lowest first.
    pub reuse_addresses: bool,
    /// Access key ids that belong to the operator and may do anything.
    pub operator_keys: Vec<String>,
    /// The instance types that there are.
    pub instance_types: BTreeMap<String, TypeSpec>,
    /// How long transitions take.
    pub timings: Timings,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            region: "eu-west-1".into(),
            zones: ["a", "b", "c"].iter().map(|z| format!("eu-west-1{z}")).collect(),
            account: "123456789012".into(),
            seed: 1,
            address_base: 100,
            reuse_addresses: false,
            operator_keys: vec!["AKIAOPERATOR00000000".into()],
            instance_types: TypeSpec::usual(),
            timings: Timings::default(),
        }
    }
}

/// How long things take in this region, in milliseconds. The defaults are a laboratory's: the order
/// of events is EC2's, the waiting is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Timings {
    /// `pending` to `running`.
    pub launch_ms: u64,
    /// `shutting-down` to `terminated`.
    pub terminate_ms: u64,
    /// How long a terminated instance is still described.
    pub terminated_visible_ms: u64,
    /// `creating` to `available`.
    pub create_volume_ms: u64,
    /// `attaching` to `attached`.
    pub attach_ms: u64,
    /// `detaching` to detached.
    pub detach_ms: u64,
    /// `deleting` to not found.
    pub delete_volume_ms: u64,
    /// From an instance's death to its group noticing.
    pub health_check_ms: u64,
    /// How long a group waits after a launch that no zone could serve.
    pub launch_retry_ms: u64,
    /// How long the credentials of an instance's role are good for.
    pub credentials_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            launch_ms: 100,
            terminate_ms: 200,
            terminated_visible_ms: 60_000,
            create_volume_ms: 50,
            attach_ms: 100,
            detach_ms: 100,
            delete_volume_ms: 100,
            health_check_ms: 1_000,
            launch_retry_ms: 500,
            credentials_ms: 6 * 3_600_000,
        }
    }
}

/// Why the region says no: the status and the code are AWS's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// AWS's error code.
    pub code: &'static str,
    /// What a person reads.
    pub message: String,
}

impl Refusal {
    /// A refusal with any status.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// A refusal with status 400.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }
}

/// What EC2, Auto Scaling and Elastic Load Balancing describe.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By id.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// By id.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// By name.
    pub groups: BTreeMap<String, Group>,
    /// Load balancers, by name.
    pub balancers: BTreeMap<String, Balancer>,
    /// Target groups and the like, by key.
    pub pools: BTreeMap<String, Pool>,
}

/// One of the region's zones.
#[derive(Clone, Debug, Serialize)]
pub struct Zone {
    /// Such as `eu-west-1a`.
    pub name: String,
    /// Without power: nothing is launched, attached, detached or created here.
    pub stopped: bool,
    #[serde(skip)]
    launched: u32,
}

/// Something that happened, for whoever supervises the machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Rises by one with each event, from 1.
    pub sequence: u64,
    /// The region's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all_fields = "camelCase")]
pub enum EventKind {
    /// The machine has power: start its programs.
    InstanceLaunched {
        /// The instance.
        id: InstanceId,
        /// Its zone.
        zone: String,
        /// Its private address.
        ip: std::net::Ipv4Addr,
        /// Its group, if a group launched it.
        group: Option<String>,
        /// Where its metadata service is (or will be) reached.
        imds: Option<SocketAddr>,
    },
    /// The machine is asked to shut down, as by ACPI: end its programs in good order.
    InstanceShuttingDown {
        /// The instance.
        id: InstanceId,
    },
    /// The machine lost its power: kill its programs now.
    InstanceKilled {
        /// The instance.
        id: InstanceId,
    },
    /// The machine is gone for good: kill what is left of it.
    InstanceTerminated {
        /// The instance.
        id: InstanceId,
    },
    /// The device is there.
    VolumeAttached {
        /// The volume.
        volume: VolumeId,
        /// Where it is.
        instance: InstanceId,
        /// The name that was asked for, which Nitro machines do not use.
        device: String,
    },
    /// The device is gone.
    VolumeDetached {
        /// The volume.
        volume: VolumeId,
        /// Where it was.
        instance: InstanceId,
    },
    /// The volume and its data are gone.
    VolumeDeleted {
        /// The volume.
        volume: VolumeId,
    },
    /// The zone lost its power.
    ZoneStopped {
        /// The zone.
        zone: String,
    },
    /// The zone has power again.
    ZoneStarted {
        /// The zone.
        zone: String,
    },
}

/// The region: see the module's documentation.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    now: u64,
    rng: fastrand::Rng,
    view: Arc<View>,
    history: VecDeque<(u64, Arc<View>)>,
    zones: Vec<Zone>,
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    bucket_settings: BTreeMap<String, BucketSettings>,
    measured: Vec<Measured>,
    /// Uploads in parts that are neither finished nor ended, by id.
    multiparts: BTreeMap<String, Multipart>,
    rules: Vec<AccessRule>,
    keys: BTreeMap<String, (InstanceId, String)>,
    client_tokens: BTreeMap<String, (VolumeSpec, VolumeId)>,
    metadata_tokens: BTreeMap<String, (InstanceId, u64)>,
    faults: BTreeMap<u64, Fault>,
    next_fault: u64,
    calls: VecDeque<Call>,
    next_call: u64,
    /// What instances' calls needed.
    authorizations: BTreeSet<Authorization>,
    events: VecDeque<Event>,
    next_event: u64,
    launched: Vec<InstanceId>,
    writes: u64,
    /// By pool, instance and port: since when, and how many checks in a row went which way.
    streaks: BTreeMap<(String, InstanceId, u16), (u64, i64)>,
    /// By pool: whose turn it is.
    turns: BTreeMap<String, usize>,
    guests: Guests,
}

/// What the machines themselves know and EC2 notices: whether an instance has a volume mounted.
pub type Mounted = Arc<dyn Fn(&InstanceId, &VolumeId) -> bool + Send + Sync>;

#[derive(Clone, Default)]
struct Guests(Option<Mounted>);

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guests").field(&self.0.is_some()).finish()
    }
}

/// A point in the world's history.
pub(crate) struct Mark {
    view: Arc<View>,
    next_event: u64,
    writes: u64,
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
            && (self.next_event, self.writes) == (other.next_event, other.writes)
    }
}

impl World {
    /// An empty region at `now` (milliseconds since 1970).
    pub fn new(config: WorldConfig, now: u64) -> Self {
        let zones =
            config.zones.iter().map(|z| Zone { name: z.clone(), stopped: false, launched: 0 }).collect();
        let view = Arc::new(View::default());
        Self {
            rng: fastrand::Rng::with_seed(config.seed),
            now,
            // Before it began, there was nothing.
            history: VecDeque::from([(0, Arc::clone(&view))]),
            view,
            zones,
            buckets: BTreeMap::new(),
            bucket_settings: BTreeMap::new(),
            measured: Vec::new(),
            multiparts: BTreeMap::new(),
            rules: Vec::new(),
            keys: BTreeMap::new(),
            client_tokens: BTreeMap::new(),
            metadata_tokens: BTreeMap::new(),
            faults: BTreeMap::new(),
            next_fault: 1,
            calls: VecDeque::new(),
            next_call: 1,
            authorizations: BTreeSet::new(),
            events: VecDeque::new(),
            next_event: 1,
            launched: Vec::new(),
            writes: 0,
            streaks: BTreeMap::new(),
            turns: BTreeMap::new(),
            guests: Guests::default(),
            config,
        }
    }

    /// What the region is like.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// Says how the machines are asked whether a volume is mounted. Without it, none is.
    pub fn set_mounted(&mut self, mounted: Mounted) {
        self.guests = Guests(Some(mounted));
    }

    /// The region's clock, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The zones, in order.
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The truth of this moment.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What was true `age_ms` ago, as far back as is remembered.
    pub fn view_at_age(&self, age_ms: u64) -> Arc<View> {
        if age_ms == 0 {
            return Arc::clone(&self.view);
        }
        let then = self.now.saturating_sub(age_ms);
        let past = self.history.iter().rev().find(|(at, _)| *at <= then).or_else(|| self.history.front());
        past.map_or_else(|| Arc::clone(&self.view), |(_, view)| Arc::clone(view))
    }

    /// Lets time pass until `now` and does everything that has become due, then remembers the
    /// result for stale reads. A clock that goes backwards is taken for one that stands still.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.settle();
    }

    /// Does what is due now. Called after every change, too, since a change may make things due.
    pub(crate) fn settle(&mut self) {
        loop {
            let changed = self.step_notices()
                | self.step_instances()
                | self.step_volumes()
                | self.step_groups()
                | self.step_pools();
            if !changed {
                break;
            }
        }
        if self.history.back().is_none_or(|(_, last)| !Arc::ptr_eq(last, &self.view)) {
            if self.history.back().is_some_and(|(at, _)| *at == self.now) {
                self.history.pop_back();
            }
            self.history.push_back((self.now, Arc::clone(&self.view)));
        }
        let horizon = self.now.saturating_sub(HISTORY_MS);
        // The newest view from before the horizon is still what a read of that age sees.
        while self.history.get(1).is_some_and(|(at, _)| *at <= horizon) {
            self.history.pop_front();
        }
    }

    /// When something next becomes due by itself, if anything does.
    pub fn next_due(&self) -> Option<u64> {
        let instances = self.view.instances.values().filter_map(|i| self.instance_due(i));
        let volumes = self.view.volumes.values().filter_map(|v| self.volume_due(v));
        let groups = self.view.groups.values().flat_map(|g| [g.retry_at, self.refresh_due(g)]).flatten();
        instances.chain(volumes).chain(groups).chain(self.pools_due()).min()
    }

    /// The events after `sequence`, oldest first.
    pub fn events_after(&self, sequence: u64) -> Vec<Event> {
        self.events.iter().filter(|e| e.sequence > sequence).cloned().collect()
    }

    /// The instances launched since this was last asked, each of which needs a metadata service.
    pub(crate) fn take_launched(&mut self) -> Vec<InstanceId> {
        std::mem::take(&mut self.launched)
    }

    /// Differs from an earlier mark when anything that is described, announced or stored has changed.
    pub(crate) fn mark(&self) -> Mark {
        Mark { view: Arc::clone(&self.view), next_event: self.next_event, writes: self.writes }
    }

    /// The sequence number of the last event, 0 when there was none.
    pub fn last_event(&self) -> u64 {
        self.next_event - 1
    }

    /// Takes a zone's power: its instances die at once, and nothing in it changes until it is back.
    pub fn stop_zone(&mut self, name: &str) -> Result<(), Refusal> {
        self.zone_mut(name)?.stopped = true;
        self.emit(EventKind::ZoneStopped { zone: name.to_owned() });
        let dead: Vec<InstanceId> = self
            .view
            .instances
            .values()
            .filter(|i| i.zone == name && i.powered)
            .map(|i| i.id.clone())
            .collect();
        for id in dead {
            self.power_off(&id);
        }
        self.settle();
        Ok(())
    }

    /// Gives a zone its power back. Its instances stay dead; their group replaces them.
    pub fn start_zone(&mut self, name: &str) -> Result<(), Refusal> {
        self.zone_mut(name)?.stopped = false;
        self.emit(EventKind::ZoneStarted { zone: name.to_owned() });
        self.settle();
        Ok(())
    }

    fn zone_mut(&mut self, name: &str) -> Result<&mut Zone, Refusal> {
        self.zones.iter_mut().find(|z| z.name == name).ok_or_else(|| unknown_zone(name))
    }

    fn zone_index(&self, name: &str) -> Result<usize, Refusal> {
        self.zones.iter().position(|z| z.name == name).ok_or_else(|| unknown_zone(name))
    }

    pub(crate) fn zone_stopped(&self, name: &str) -> bool {
        self.zones.iter().any(|z| z.name == name && z.stopped)
    }

    fn view_mut(&mut self) -> &mut View {
        Arc::make_mut(&mut self.view)
    }

    fn emit(&mut self, kind: EventKind) {
        self.events.push_back(Event { sequence: self.next_event, at_ms: self.now, kind });
        self.next_event += 1;
        if self.events.len() > LOG_LENGTH {
            self.events.pop_front();
        }
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from_digit(self.rng.u32(0..16), 16).unwrap_or('0')).collect()
    }

    fn upper(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(self.rng.u8(b'A'..=b'Z'))).collect()
    }
}

fn unknown_zone(name: &str) -> Refusal {
    Refusal::bad("InvalidZone.NotFound", format!("The zone '{name}' does not exist"))
}
