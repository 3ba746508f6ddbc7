//! A laboratory: a region, and the machines that it launches.
//!
//! The region decides what exists; this follows its events, in their order, and does to programs
//! and files what EC2 does to machines and disks.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::disks::Disks;
use super::error::chain;
use super::machine::{Identity, Machine};
use super::region::{
    AccessRule, BalancerKind, BalancerSpec, Caller, EventKind, GroupSpec, ImdsPlacement, InstanceSpec,
    PoolSpec, Put, Region, RegionConfig, VolumeSpec, World, WorldConfig,
};
use super::settings::{Addresses, BUCKET, CHARTER, CLUSTER, Settings, Start};
use super::{LabError, process, standins};

/// The group of control-plane nodes.
pub const CONTROL_PLANE: &str = "demo-control-plane";
/// The group of workers.
pub const WORKERS: &str = "demo-workers";
/// The load balancer in front of the API servers, and its target group.
pub const API: &str = "demo-api";
/// Where API servers listen, and their load balancer.
const API_PORT: u16 = 6443;
/// Where an instance's metadata service listens at its address.
const METADATA_PORT: u16 = 8775;
/// How many machines a group may have.
const MOST_NODES: usize = 200;
/// For how long events are waited for at a time.
const LISTEN: Duration = Duration::from_secs(30);

/// A running laboratory. Dropped, it ends with everything that it started.
pub struct Laboratory {
    inner: Arc<Inner>,
    follower: JoinHandle<()>,
}

struct Inner {
    settings: Settings,
    addresses: Addresses,
    region: Region,
    disks: Disks,
    machines: Mutex<Machines>,
    changed: watch::Sender<()>,
    /// The last event of the region that was followed.
    followed: watch::Sender<u64>,
}

#[derive(Default)]
struct Machines {
    /// By instance id.
    by_id: BTreeMap<String, Machine>,
    /// How many each zone has had.
    counts: BTreeMap<String, usize>,
    /// Whether the agent of a machine that is launched waits to be told.
    start: Start,
}

impl Laboratory {
    /// Builds one, and has its groups launch their instances.
    pub async fn start(settings: Settings) -> Result<Self, LabError> {
        settings.check()?;
        let addresses = Addresses::reserve()?;
        standins::install(&settings.dir.join("bin"))?;
        let disks = Disks::new(&settings.dir.join("volumes"))?;
        let own = SocketAddr::from(([127, addresses.base, 0, 1], 0));
        let region = Region::start(RegionConfig {
            world: WorldConfig {
                zones: settings.zone_names(),
                seed: settings.seed,
                address_base: addresses.base,
                timings: settings.timings.clone(),
                ..WorldConfig::default()
            },
            aws: own,
            control: own,
            imds: ImdsPlacement::PrivateAddress(METADATA_PORT),
        })
        .await?;
        let machines = Mutex::new(Machines { start: settings.start, ..Machines::default() });
        let inner = Arc::new(Inner {
            settings,
            addresses,
            region,
            disks,
            machines,
            changed: watch::Sender::new(()),
            followed: watch::Sender::new(0),
        });
        let guests = Arc::downgrade(&inner);
        inner.region.change(|world| {
            world.set_mounted(Arc::new(move |instance, volume| {
                let machine = guests.upgrade().and_then(|inner| {
                    inner.machine(instance.as_str()).map(|machine| (inner.disks.clone(), machine))
                });
                machine.is_some_and(|(disks, machine)| disks.is_mounted(volume.as_str(), &machine.root()))
            }));
        });
        let follower = tokio::spawn(follow(Arc::clone(&inner)));
        let laboratory = Self { inner, follower };
        laboratory.furnish()?;
        laboratory
            .wait("the machines", Duration::from_secs(10), |lab| {
                let wanted = lab.settings().control_plane + lab.settings().workers;
                let there = lab.machines().len();
                (there == wanted).then_some(()).ok_or_else(|| format!("{there} of {wanted} are there"))
            })
            .await?;
        Ok(laboratory)
    }

    /// A bucket, a volume for each slot, the load balancer and the groups.
    fn furnish(&self) -> Result<(), LabError> {
        let settings = self.settings();
        // As docs/permissions.md has it: what workers are told, and no more.
        let workers = |prefix: &str, read: bool| AccessRule {
            role: "worker".into(),
            bucket: BUCKET.into(),
            prefix: prefix.to_owned(),
            read,
            write: false,
            list: true,
        };
        self.inner.region.change(|world| {
            world.create_bucket(BUCKET);
            world.add_access_rule(workers("", false));
            world.add_access_rule(workers(&format!("{CLUSTER}/workers/"), true));
        });
        for slot in 1..=settings.size {
            self.create_volume(slot)?;
        }
        let in_front = if settings.load_balancer && settings.control_plane > 0 {
            vec![self.create_load_balancer()?]
        } else {
            Vec::new()
        };
        let groups =
            [(CONTROL_PLANE, "control-plane", settings.control_plane), (WORKERS, "worker", settings.workers)];
        for (name, role, desired) in groups {
            let tags = [("quorate:cluster", CLUSTER), ("quorate:role", role)];
            let spec = GroupSpec {
                name: name.into(),
                desired,
                max: MOST_NODES,
                tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                template: InstanceSpec {
                    metadata_tags: true,
                    iam_role: Some(role.into()),
                    spot: name == WORKERS && settings.spot_workers,
                    ..InstanceSpec::default()
                },
                hooks: settings.lifecycle_hooks(),
                pools: if name == CONTROL_PLANE { in_front.clone() } else { Vec::new() },
                ..GroupSpec::default()
            };
            self.ask(format!("the group {name}"), |world| world.create_group(spec))?;
        }
        Ok(())
    }

    /// Creates the load balancer in front of the API servers; the answer is its target group's ARN.
    fn create_load_balancer(&self) -> Result<String, LabError> {
        let tags = BTreeMap::from([("quorate:cluster".to_owned(), CLUSTER.to_owned())]);
        let spec = BalancerSpec {
            name: API.into(),
            kind: BalancerKind::Network,
            internal: true,
            port: API_PORT,
            pool: PoolSpec { port: API_PORT, tags: tags.clone(), ..PoolSpec::default() },
            tags,
        };
        self.ask(format!("the load balancer {API}"), |world| world.create_balancer(spec))
    }

    /// Where the load balancer of the API servers listens, while there is one.
    pub fn api(&self) -> Option<SocketAddr> {
        self.inner
            .region
            .with(|world| world.view().balancers.get(API).map(super::region::Balancer::listens_at))
    }

    /// How many workers their group is to have.
    pub fn desired_workers(&self) -> usize {
        self.inner.region.with(|world| world.view().groups.get(WORKERS).map_or(0, |group| group.desired))
    }

    /// Creates a blank volume for a slot, in the slot's zone.
    pub fn create_volume(&self, slot: usize) -> Result<String, LabError> {
        let zone = self.settings().zone_names().into_iter().nth(slot.saturating_sub(1));
        let zone = zone.ok_or_else(|| LabError::Settings(format!("there is no slot {slot}")))?;
        let tags = [("quorate:cluster", CLUSTER.to_owned()), ("quorate:slot", slot.to_string())];
        let spec = VolumeSpec {
            zone,
            tags: tags.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            ..VolumeSpec::default()
        };
        self.ask(format!("a volume for slot {slot}"), |w| w.create_volume(spec, None))
            .map(|id| id.to_string())
    }

    /// Changes the region, which may refuse.
    pub fn ask<T>(
        &self,
        what: impl Into<String>,
        change: impl FnOnce(&mut World) -> Result<T, super::region::Refusal>,
    ) -> Result<T, LabError> {
        self.inner.region.change(change).map_err(LabError::refused(what))
    }

    /// Changes the region, which may refuse, and waits until programs and files have followed.
    pub async fn happen<T>(
        &self,
        what: impl Into<String>,
        change: impl FnOnce(&mut World) -> Result<T, super::region::Refusal>,
    ) -> Result<T, LabError> {
        let answer = self.ask(what, change)?;
        let all_followed = |last: &u64| self.inner.region.with(|world| world.events_after(*last).is_empty());
        // The sender lives as long as the laboratory.
        drop(self.inner.followed.subscribe().wait_for(all_followed).await);
        Ok(answer)
    }

    /// Has machines reboot: everything that runs on them is cut off, and `run` and the mounts are
    /// as they are at boot. Their agents wait to be started.
    pub async fn reboot(&self, machines: &[Machine]) -> Result<(), LabError> {
        for machine in machines {
            machine.hold();
        }
        self.wait("the agents' end", Duration::from_secs(10), |_| {
            let runs = machines.iter().filter(|m| m.pid().is_some()).count();
            if runs == 0 { Ok(()) } else { Err(format!("{runs} run")) }
        })
        .await?;
        machines.iter().try_for_each(Machine::cut_off)
    }

    /// What it was built from.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.inner.region
    }

    /// The addresses that it holds.
    pub fn addresses(&self) -> &Addresses {
        &self.inner.addresses
    }

    /// The machines that have power, by name.
    pub fn machines(&self) -> Vec<Machine> {
        self.inner.powered()
    }

    /// The control-plane machines that have power, by name.
    pub fn control_plane(&self) -> Vec<Machine> {
        self.machines().into_iter().filter(|m| m.identity().role == "control-plane").collect()
    }

    /// Every machine that ever was, in the order of their ids.
    pub fn all_machines(&self) -> Vec<Machine> {
        self.inner.machines().by_id.values().cloned().collect()
    }

    /// A machine that has power, by name, instance id or address.
    pub fn machine(&self, node: &str) -> Result<Machine, LabError> {
        self.machines()
            .into_iter()
            .find(|m| {
                let i = m.identity();
                i.name == node || i.instance == node || i.address.to_string() == node
            })
            .ok_or_else(|| LabError::NoNode(node.to_owned()))
    }

    /// Whether agents of machines launched from now on start by themselves.
    pub fn set_start(&self, start: Start) {
        self.inner.machines().start = start;
    }

    /// The volume that is attached to a machine.
    pub fn volume_of(&self, machine: &Machine) -> Option<String> {
        self.inner.region.with(|world| {
            let holds = |v: &&super::region::Volume| {
                v.attachment.as_ref().is_some_and(|a| a.instance.as_str() == machine.identity().instance)
            };
            world.view().volumes.values().find(holds).map(|v| v.id.to_string())
        })
    }

    /// The slot that a volume is tagged with.
    pub fn slot_of(&self, volume: &str) -> Option<usize> {
        self.inner.region.with(|world| {
            let volume = world.view().volumes.get(volume)?;
            volume.spec.tags.get("quorate:slot")?.parse().ok()
        })
    }

    /// The charter as it lies in the bucket.
    pub fn charter(&self) -> Option<axum::body::Bytes> {
        self.inner.region.with(|world| {
            let object = world.get_object(&Caller::Operator, BUCKET, CHARTER);
            object.ok().map(|object| object.body.clone())
        })
    }

    /// An object of the cluster's, as it lies in the bucket.
    pub fn object(&self, key: &str) -> Option<axum::body::Bytes> {
        let key = format!("{CLUSTER}/{key}");
        self.inner.region.with(|world| {
            let object = world.get_object(&Caller::Operator, BUCKET, &key);
            object.ok().map(|object| object.body.clone())
        })
    }

    /// Deletes the charter, as a person might by mistake.
    pub fn delete_charter(&self) -> Result<(), LabError> {
        self.ask("the charter's end", |w| w.delete_object(&Caller::Operator, BUCKET, CHARTER))
    }

    /// The keys of the cluster's objects that begin so, in order.
    pub fn keys(&self, below: &str) -> Vec<String> {
        let (root, prefix) = (format!("{CLUSTER}/"), format!("{CLUSTER}/{below}"));
        let found = self
            .inner
            .region
            .with(|world| world.list_objects(&Caller::Operator, BUCKET, &prefix, None, None, usize::MAX));
        let found = found.map(|listing| listing.objects).unwrap_or_default();
        found.into_iter().filter_map(|(key, _)| Some(key.strip_prefix(&root)?.to_owned())).collect()
    }

    /// Puts an object in the place of another, or deletes it.
    pub fn damage(&self, key: &str, body: Option<axum::body::Bytes>) -> Result<(), LabError> {
        let (what, key) = (format!("damage to {key}"), format!("{CLUSTER}/{key}"));
        match body {
            Some(body) => {
                let (put, none) = (Put { body, ..Put::default() }, super::region::Condition::None);
                self.ask(what, |w| w.put_object(&Caller::Operator, BUCKET, &key, put, &none)).map(drop)
            }
            None => self.ask(what, |w| w.delete_object(&Caller::Operator, BUCKET, &key)),
        }
    }

    /// Puts a charter back, as an operator would from a copy.
    pub fn restore_charter(&self, body: axum::body::Bytes) -> Result<(), LabError> {
        let put = Put { body, ..Put::default() };
        let none = super::region::Condition::None;
        self.ask("the charter", |w| w.put_object(&Caller::Operator, BUCKET, CHARTER, put, &none)).map(drop)
    }

    /// Waits until what is looked for is found, looking again whenever a machine or the region
    /// changes, and every so often; what changes in files and in etcd announces itself to nobody.
    pub async fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Self) -> Result<T, String>,
    ) -> Result<T, LabError> {
        const AGAIN: Duration = Duration::from_millis(25);
        let deadline = Instant::now() + patience;
        let mut changes = self.inner.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let why = match look(self) {
                Ok(found) => return Ok(found),
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(LabError::TimedOut { what: what.to_owned(), seconds: patience.as_secs(), why });
            }
            let next = deadline.min(Instant::now() + AGAIN);
            // Either way it is time to look again.
            let _ = timeout_at(next, changes.changed()).await;
        }
    }

    /// Waits for the machine that takes another's place: launched after it, in its zone, for the same role.
    pub async fn successor(&self, of: &Machine, patience: Duration) -> Result<Machine, LabError> {
        let (zone, role, number) =
            (of.identity().zone.clone(), of.identity().role.clone(), of.identity().number);
        let what = format!("the successor of {}", of.identity().name);
        self.wait(&what, patience, |lab| {
            let new = lab.machines().into_iter().find(|m| {
                let found = m.identity();
                found.zone == zone && found.role == role && found.number > number
            });
            new.ok_or_else(|| "the group has not launched one".to_owned())
        })
        .await
    }
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        self.follower.abort();
        for machine in self.all_machines() {
            machine.power_off();
        }
        process::kill_below(&self.inner.settings.dir.join("nodes"));
    }
}

impl Inner {
    fn machines(&self) -> MutexGuard<'_, Machines> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> Vec<Machine> {
        let mut on: Vec<_> = self.machines().by_id.values().filter(|m| m.is_on()).cloned().collect();
        on.sort_by(|a, b| a.identity().name.cmp(&b.identity().name));
        on
    }

    fn machine(&self, id: &str) -> Option<Machine> {
        self.machines().by_id.get(id).cloned()
    }

    fn handle(&self, event: &EventKind) -> Result<(), LabError> {
        match event {
            EventKind::InstanceLaunched { id, zone, ip, group, imds } => {
                let metadata = imds.unwrap_or_else(|| SocketAddr::from((*ip, METADATA_PORT)));
                self.launch(id.as_str(), zone, *ip, group.as_deref(), metadata)
            }
            EventKind::InstanceShuttingDown { id } => {
                if let Some(machine) = self.machine(id.as_str()) {
                    machine.shut_down();
                }
                Ok(())
            }
            EventKind::InstanceKilled { id } | EventKind::InstanceTerminated { id } => {
                if let Some(machine) = self.machine(id.as_str()) {
                    machine.power_off();
                }
                Ok(())
            }
            EventKind::VolumeAttached { volume, instance, .. } => {
                let size = self.region.with(|w| w.view().volumes.get(volume).map(|v| v.spec.size_gib));
                let (Some(machine), Some(size)) = (self.machine(instance.as_str()), size) else {
                    return Ok(());
                };
                self.disks.attach(volume.as_str(), size, &machine.root())?;
                if !self.settings.volumes_go_with_machines {
                    return Ok(());
                }
                let told = self.region.change(|w| w.set_delete_on_termination(volume.as_str(), true));
                told.map_err(LabError::refused(format!("that {volume} goes with its machine")))
            }
            EventKind::VolumeDetached { volume, instance } => match self.machine(instance.as_str()) {
                Some(machine) => {
                    process::kill_etcd_of(machine.dir());
                    self.disks.detach(volume.as_str(), &machine.root())
                }
                None => Ok(()),
            },
            EventKind::VolumeDeleted { volume } => self.disks.lose(volume.as_str()),
            EventKind::ZoneStopped { .. } | EventKind::ZoneStarted { .. } => Ok(()),
        }
    }

    fn launch(
        &self,
        id: &str,
        zone: &str,
        address: std::net::Ipv4Addr,
        group: Option<&str>,
        metadata: SocketAddr,
    ) -> Result<(), LabError> {
        let mut machines = self.machines();
        let count = machines.counts.entry(zone.to_owned()).or_default();
        *count += 1;
        let identity = Identity {
            name: format!("{}{count}", zone.chars().last().unwrap_or('?')),
            number: *count,
            instance: id.to_owned(),
            zone: zone.to_owned(),
            address,
            role: if group == Some(WORKERS) { "worker" } else { "control-plane" }.to_owned(),
        };
        let machine = Machine::prepare(&self.settings, identity, &self.region.endpoints().aws, metadata)?;
        machine.keep(&self.settings);
        if machines.start == Start::AtOnce {
            machine.start();
        }
        machines.by_id.insert(id.to_owned(), machine);
        Ok(())
    }
}

/// Follows the region's events for as long as it runs.
async fn follow(inner: Arc<Inner>) {
    let mut sequence = 0;
    loop {
        for event in inner.region.events_after(sequence, LISTEN).await {
            sequence = event.sequence;
            tracing::info!(event = ?event.kind, "the region");
            if let Err(error) = inner.handle(&event.kind) {
                tracing::error!(event = ?event.kind, error = chain(&error), "an event was not followed");
            }
            inner.followed.send_replace(sequence);
            inner.changed.send_replace(());
        }
    }
}

/// A directory for a laboratory that is gone with it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one among the temporary files.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("quorate-{name}-{}", &id[..8]));
        fs::create_dir_all(&path).map_err(LabError::file("making", &path))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is, for people to look at.
    pub fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch directory was not removed");
        }
    }
}
