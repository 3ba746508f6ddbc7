//! Load balancers, their pools of targets, and what health checks make of the targets.
//!
//! A network load balancer's pool is a target group, with an ARN of its own; a classic load balancer
//! is its own pool. What differs between the kinds is told by [`BalancerKind`].
//!
//! Which target a connection goes to is decided here ([`World::route`]); who listens, connects and
//! probes is not: `front` does, and reports what it saw.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::compute::{Instance, InstanceId, InstanceState};
use super::{Refusal, World};

/// The third octet of load balancers' addresses, which no zone has.
const OCTET: u8 = 255;

/// How a pool finds out whether its targets are healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CheckSpec {
    /// How it asks.
    pub protocol: CheckProtocol,
    /// What it asks for, over HTTP and HTTPS.
    pub path: String,
    /// From one check to the next, in milliseconds. AWS's shortest is 5 s; a laboratory's is not.
    pub interval_ms: u64,
    /// How long an answer is waited for, in milliseconds.
    pub timeout_ms: u64,
    /// How many answers in a row make an unhealthy target healthy. A new one needs one only.
    pub healthy_threshold: u32,
    /// How many failures in a row make a target unhealthy.
    pub unhealthy_threshold: u32,
}

impl Default for CheckSpec {
    fn default() -> Self {
        Self {
            protocol: CheckProtocol::Https,
            path: "/readyz".into(),
            interval_ms: 250,
            timeout_ms: 1_000,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        }
    }
}

/// How a health check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckProtocol {
    /// By connecting.
    Tcp,
    /// By a request whose answer has a status from 200 to 399.
    Http,
    /// The same over TLS, whose certificate is not verified.
    Https,
}

impl CheckProtocol {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
        }
    }
}

/// A target group to be made, or the part of a classic load balancer that is like one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PoolSpec {
    /// A target group's name; a classic load balancer's pool has the load balancer's.
    pub name: String,
    /// The port that targets are reached at, unless they are registered with another.
    pub port: u16,
    /// How targets are checked.
    pub check: CheckSpec,
    /// For how long connections to a deregistered target go on, in milliseconds. Then they are
    /// reset (`deregistration_delay.connection_termination.enabled` is on in this region).
    pub deregistration_delay_ms: u64,
    /// Whether targets see the clients' addresses. Then no target reaches itself through the load
    /// balancer. A classic load balancer never does.
    pub preserve_client_ip: bool,
    /// A target group's tags.
    pub tags: BTreeMap<String, String>,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            port: 6443,
            check: CheckSpec::default(),
            deregistration_delay_ms: 2_000,
            preserve_client_ip: true,
            tags: BTreeMap::new(),
        }
    }
}

/// A load balancer to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancerSpec {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: BalancerKind,
    /// Whether it is for the network only. In name: every address here is loopback.
    #[serde(default)]
    pub internal: bool,
    /// The port of its TCP listener.
    pub port: u16,
    /// Its targets' side. A network load balancer's target group is made with it.
    pub pool: PoolSpec,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// The kinds of load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalancerKind {
    /// A network load balancer: when no target is healthy, all get traffic.
    Network,
    /// A classic load balancer: when no target is healthy, none gets traffic.
    Classic,
}

/// A load balancer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    /// What it is like.
    #[serde(flatten)]
    pub spec: BalancerSpec,
    /// Its ARN (a classic one's is used within the region only).
    pub arn: String,
    /// Its listener's ARN.
    pub listener_arn: String,
    /// Where it listens, and its DNS name: nobody here resolves names, so that the name is the
    /// address.
    pub address: Ipv4Addr,
    /// The key of its pool.
    pub pool_key: String,
    /// Whether it listens yet.
    pub active: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Balancer {
    /// Where it listens.
    pub fn listens_at(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.spec.port))
    }
}

/// A pool of targets.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// What it is like.
    #[serde(flatten)]
    pub spec: PoolSpec,
    /// Whose it is.
    pub kind: BalancerKind,
    /// A target group's ARN, or a classic load balancer's.
    pub key: String,
    /// Its targets.
    pub targets: Vec<PoolTarget>,
}

/// A target, as it is known to its pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolTarget {
    /// The instance.
    pub instance: InstanceId,
    /// The port.
    pub port: u16,
    /// What is known of it.
    pub health: PoolHealth,
    /// How often it became unhealthy. Connections from before are reset.
    pub falls: u64,
    /// When it was registered, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "health", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum PoolHealth {
    /// Not checked yet, or not often enough.
    Initial,
    /// It answers.
    Healthy,
    /// It does not answer as it should.
    Unhealthy {
        /// What it does instead.
        why: String,
    },
    /// Deregistered; what is open goes on until then.
    Draining {
        /// In milliseconds since 1970.
        until_ms: u64,
    },
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a target.
    To(Passage),
    /// To the machine that it comes from, which answers a stranger: nothing ever comes back.
    Hairpin,
    /// Nowhere: there is no target.
    Nowhere,
}

/// A way through a load balancer, for as long as [`World::is_open`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) pool: String,
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    pub(crate) preserve_client_ip: bool,
    falls: u64,
}

/// A check that is to be made again and again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    pub(crate) pool: String,
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    pub(crate) since_ms: u64,
}

impl World {
    /// Makes a load balancer and its pool; the answer is the pool's key: for a network one its
    /// target group's ARN.
    pub fn create_balancer(&mut self, mut spec: BalancerSpec) -> Result<String, Refusal> {
        if self.view.balancers.contains_key(&spec.name) {
            let message = format!("A load balancer with the name '{}' already exists", spec.name);
            return Err(Refusal::bad("DuplicateLoadBalancerName", message));
        }
        let taken = |ip: Ipv4Addr| self.view.balancers.values().any(|b| b.address == ip);
        let mut free = (1..255).map(|n| Ipv4Addr::new(127, self.config.address_base, OCTET, n));
        let Some(address) = free.find(|ip| !taken(*ip)) else {
            return Err(Refusal::bad("TooManyLoadBalancers", "no address is left"));
        };
        let (lb, group) = (self.hex(16), self.hex(16));
        let own = format!("arn:aws:elasticloadbalancing:{}:{}", self.config.region, self.config.account);
        let (arn, pool_key) = match spec.kind {
            BalancerKind::Network => {
                if spec.pool.name.is_empty() {
                    spec.pool.name.clone_from(&spec.name);
                }
                (
                    format!("{own}:loadbalancer/net/{}/{lb}", spec.name),
                    format!("{own}:targetgroup/{}/{group}", spec.pool.name),
                )
            }
            BalancerKind::Classic => {
                spec.pool.name.clone_from(&spec.name);
                spec.pool.preserve_client_ip = false;
                let arn = format!("{own}:loadbalancer/{}", spec.name);
                (arn.clone(), arn)
            }
        };
        let pool =
            Pool { spec: spec.pool.clone(), kind: spec.kind, key: pool_key.clone(), targets: Vec::new() };
        let balancer = Balancer {
            listener_arn: format!("{own}:listener/net/{}/{lb}/{}", spec.name, self.hex(16)),
            arn,
            address,
            pool_key: pool_key.clone(),
            active: false,
            created_ms: self.now,
            spec,
        };
        let view = self.view_mut();
        view.pools.insert(pool_key.clone(), pool);
        view.balancers.insert(balancer.spec.name.clone(), balancer);
        self.settle();
        Ok(pool_key)
    }

    /// Takes a load balancer away. A network one's target group stays, as it does with AWS.
    pub fn delete_balancer(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(gone) = self.view_mut().balancers.remove(name) else { return Err(no_balancer(name)) };
        if gone.spec.kind == BalancerKind::Classic {
            self.view_mut().pools.remove(&gone.pool_key);
        }
        self.settle();
        Ok(())
    }

    /// Registers an instance with a pool: at this port, or at the pool's own.
    pub fn register_target(&mut self, pool: &str, id: &str, port: Option<u16>) -> Result<(), Refusal> {
        self.enrol(pool, id, port)?;
        self.settle();
        Ok(())
    }

    fn enrol(&mut self, pool: &str, id: &str, port: Option<u16>) -> Result<(), Refusal> {
        let known = self.pool(pool)?;
        let kind = known.kind;
        let port = port.unwrap_or(known.spec.port);
        let running = self.view.instances.get(id).filter(|i| i.exists());
        let Some(instance) = running.map(|i| i.id.clone()) else { return Err(no_target(kind, id)) };
        let now = self.now;
        let Some(pool) = self.view_mut().pools.get_mut(pool) else { return Ok(()) };
        let mut same = pool.targets.iter_mut().filter(|t| t.instance == instance && t.port == port);
        match same.next() {
            None => pool.targets.push(PoolTarget {
                instance,
                port,
                health: PoolHealth::Initial,
                falls: 0,
                since_ms: now,
            }),
            // It comes back before it was gone: what is open goes on.
            Some(target) if matches!(target.health, PoolHealth::Draining { .. }) => {
                target.health = PoolHealth::Initial;
                target.since_ms = now;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Takes an instance out of a pool: at this port, or at the pool's own. What is open goes on for
    /// the pool's delay. One that is not there is no error, but for classic load balancers.
    pub fn deregister_target(&mut self, pool: &str, id: &str, port: Option<u16>) -> Result<(), Refusal> {
        let known = self.pool(pool)?;
        let port = port.unwrap_or(known.spec.port);
        let registered = known.targets.iter().any(|t| t.instance.as_str() == id && t.port == port);
        if !registered && known.kind == BalancerKind::Classic {
            return Err(no_target(known.kind, id));
        }
        self.drain(pool, id, Some(port));
        self.settle();
        Ok(())
    }

    fn drain(&mut self, pool: &str, id: &str, port: Option<u16>) {
        let now = self.now;
        let Some(pool) = self.view_mut().pools.get_mut(pool) else { return };
        let until_ms = now + pool.spec.deregistration_delay_ms;
        for target in &mut pool.targets {
            let meant = target.instance.as_str() == id && port.is_none_or(|port| port == target.port);
            if meant && !matches!(target.health, PoolHealth::Draining { .. }) {
                target.health = PoolHealth::Draining { until_ms };
            }
        }
    }

    /// Attaches a pool to a group, which registers its instances from now on and those in service
    /// at once.
    pub fn attach_pool(&mut self, group: &str, pool: &str) -> Result<(), Refusal> {
        self.pool(pool)?;
        self.group(group)?;
        if let Some(group) = self.view_mut().groups.get_mut(group)
            && !group.spec.pools.iter().any(|p| p == pool)
        {
            group.spec.pools.push(pool.to_owned());
        }
        let members = Self::members(&self.view, group);
        let in_service = members.filter(|(_, l)| l.state == super::LifecycleState::InService);
        let ids: Vec<InstanceId> = in_service.map(|(i, _)| i.id.clone()).collect();
        for id in ids {
            self.register_with_group(&id);
        }
        self.settle();
        Ok(())
    }

    /// Registers an instance with the pools of its group, as it enters service.
    pub(super) fn register_with_group(&mut self, id: &InstanceId) {
        for pool in self.pools_of_group(id) {
            if let Err(refusal) = self.enrol(&pool, id.as_str(), None) {
                tracing::warn!(instance = %id, pool, %refusal, "a group can't register an instance");
            }
        }
    }

    /// Takes an instance out of the pools of its group, as the group parts with it.
    pub(super) fn deregister_from_group(&mut self, id: &InstanceId) {
        for pool in self.pools_of_group(id) {
            self.drain(&pool, id.as_str(), None);
        }
    }

    /// Whether what was open to an instance in its group's pools is still waited for.
    pub(super) fn drains(&self, id: &InstanceId) -> bool {
        let pools = self.pools_of_group(id);
        let targets = pools.iter().filter_map(|p| self.view.pools.get(p)).flat_map(|p| &p.targets);
        targets.filter(|t| t.instance == *id).any(|t| matches!(t.health, PoolHealth::Draining { .. }))
    }

    fn pools_of_group(&self, id: &InstanceId) -> Vec<String> {
        let group = self.view.instances.get(id).and_then(|i| i.group.as_deref());
        let pools = group.and_then(|g| self.view.groups.get(g)).map(|g| g.spec.pools.clone());
        // A load balancer that has gone away takes its pool with it, and no group down.
        pools.unwrap_or_default().into_iter().filter(|p| self.view.pools.contains_key(p)).collect()
    }

    /// A pool by its key.
    pub(crate) fn pool(&self, key: &str) -> Result<&Pool, Refusal> {
        self.view.pools.get(key).ok_or_else(|| {
            if key.contains(":targetgroup/") {
                Refusal::bad("TargetGroupNotFound", format!("Target groups '{key}' not found"))
            } else {
                no_balancer(key)
            }
        })
    }

    /// Ends drained targets, and forgets those whose instance is gone.
    pub(super) fn step_pools(&mut self) -> bool {
        let now = self.now;
        let instances = &self.view.instances;
        let over = |target: &PoolTarget| {
            let drained = matches!(target.health, PoolHealth::Draining { until_ms } if until_ms <= now);
            let instance = instances.get(&target.instance);
            drained || instance.is_none_or(|i| i.state == InstanceState::Terminated)
        };
        if !self.view.pools.values().any(|pool| pool.targets.iter().any(over)) {
            return false;
        }
        let gone: Vec<(String, InstanceId, u16)> = self
            .view
            .pools
            .values()
            .flat_map(|p| p.targets.iter().filter(|t| over(t)).map(|t| (p.key.clone(), t)))
            .map(|(key, t)| (key, t.instance.clone(), t.port))
            .collect();
        for (key, instance, port) in gone {
            if let Some(pool) = self.view_mut().pools.get_mut(&key) {
                pool.targets.retain(|t| (&t.instance, t.port) != (&instance, port));
            }
            self.streaks.remove(&(key, instance, port));
        }
        true
    }

    pub(super) fn pools_due(&self) -> Option<u64> {
        let targets = self.view.pools.values().flat_map(|pool| &pool.targets);
        let ends = targets.filter_map(|target| match target.health {
            PoolHealth::Draining { until_ms } => Some(until_ms),
            PoolHealth::Initial | PoolHealth::Healthy | PoolHealth::Unhealthy { .. } => None,
        });
        ends.min()
    }

    /// Says that a load balancer listens now.
    pub(crate) fn balancer_listens(&mut self, name: &str, address: SocketAddr) {
        if let Some(balancer) = self.view_mut().balancers.get_mut(name)
            && balancer.listens_at() == address
        {
            balancer.active = true;
        }
        self.settle();
    }

    /// The checks to be made: of all targets that are not on their way out and are behind a load
    /// balancer.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for balancer in self.view.balancers.values() {
            let Some(pool) = self.view.pools.get(&balancer.pool_key) else { continue };
            for target in &pool.targets {
                let Some(instance) = self.view.instances.get(&target.instance) else { continue };
                if matches!(target.health, PoolHealth::Draining { .. }) {
                    continue;
                }
                probes.push(Probe {
                    pool: pool.key.clone(),
                    instance: target.instance.clone(),
                    address: SocketAddr::from((instance.private_ip, target.port)),
                    since_ms: target.since_ms,
                });
            }
        }
        probes.sort();
        probes.dedup();
        probes
    }

    /// Counts the outcome of a check; when enough have gone the same way, the target's health changes.
    pub(crate) fn probed(&mut self, probe: &Probe, outcome: Result<(), String>) {
        let Some(pool) = self.view.pools.get(&probe.pool) else { return };
        let check = pool.spec.check.clone();
        let position = pool.targets.iter().position(|t| {
            t.instance == probe.instance && t.port == probe.address.port() && t.since_ms == probe.since_ms
        });
        let Some((position, target)) = position.and_then(|n| Some((n, pool.targets.get(n)?))) else { return };
        // Positive: answers in a row; negative: failures in a row. Counted beside the view, which
        // would be remembered anew at every check.
        let key = (probe.pool.clone(), probe.instance.clone(), probe.address.port());
        let streak = self.streaks.entry(key).or_insert((probe.since_ms, 0));
        if streak.0 != probe.since_ms {
            *streak = (probe.since_ms, 0);
        }
        streak.1 = match outcome {
            Ok(()) => streak.1.max(0) + 1,
            Err(_) => streak.1.min(0) - 1,
        };
        let streak = streak.1;
        let enough_good = streak >= i64::from(check.healthy_threshold);
        let enough_bad = -streak >= i64::from(check.unhealthy_threshold);
        let next = match (&target.health, outcome) {
            (PoolHealth::Draining { .. } | PoolHealth::Healthy, Ok(()))
            | (PoolHealth::Draining { .. }, Err(_)) => None,
            (PoolHealth::Initial, Ok(())) => Some(PoolHealth::Healthy),
            (PoolHealth::Unhealthy { .. }, Ok(())) => enough_good.then_some(PoolHealth::Healthy),
            (PoolHealth::Unhealthy { why: old }, Err(why)) => {
                (*old != why).then_some(PoolHealth::Unhealthy { why })
            }
            (PoolHealth::Initial | PoolHealth::Healthy, Err(why)) => {
                enough_bad.then_some(PoolHealth::Unhealthy { why })
            }
        };
        let Some(next) = next else { return };
        let falls = target.health == PoolHealth::Healthy;
        if let Some(pool) = self.view_mut().pools.get_mut(&probe.pool)
            && let Some(target) = pool.targets.get_mut(position)
        {
            target.falls += u64::from(falls);
            target.health = next;
        }
        self.settle();
    }

    /// Chooses a target for a connection: one after another, of the healthy ones or, with a network
    /// load balancer that has none, of all.
    pub(crate) fn route(&mut self, balancer: &str, client: Ipv4Addr) -> Route {
        let Some(balancer) = self.view.balancers.get(balancer) else { return Route::Nowhere };
        let Some(pool) = self.view.pools.get(&balancer.pool_key) else { return Route::Nowhere };
        let there = |target: &&PoolTarget| !matches!(target.health, PoolHealth::Draining { .. });
        let mut open: Vec<&PoolTarget> =
            pool.targets.iter().filter(|t| t.health == PoolHealth::Healthy).collect();
        if open.is_empty() && pool.kind == BalancerKind::Network {
            open = pool.targets.iter().filter(there).collect();
        }
        if open.is_empty() {
            return Route::Nowhere;
        }
        let turn = self.turns.entry(pool.key.clone()).or_default();
        let Some(target) = open.get(*turn % open.len()) else { return Route::Nowhere };
        *turn = turn.wrapping_add(1);
        let Some(ip) = self.view.instances.get(&target.instance).map(|i: &Instance| i.private_ip) else {
            return Route::Nowhere;
        };
        if pool.spec.preserve_client_ip && ip == client {
            return Route::Hairpin;
        }
        Route::To(Passage {
            pool: pool.key.clone(),
            instance: target.instance.clone(),
            address: SocketAddr::from((ip, target.port)),
            preserve_client_ip: pool.spec.preserve_client_ip,
            falls: target.falls,
        })
    }

    /// Whether what goes by a passage may go on: its target is registered or drains, has not become
    /// unhealthy since, and its machine has power.
    pub(crate) fn is_open(&self, passage: &Passage) -> bool {
        let powered = self.view.instances.get(&passage.instance).is_some_and(|i| i.powered);
        let pool = self.view.pools.get(&passage.pool);
        let target = pool.and_then(|pool| {
            let mut targets = pool.targets.iter();
            targets.find(|t| t.instance == passage.instance && t.port == passage.address.port())
        });
        powered && target.is_some_and(|t| t.falls == passage.falls)
    }
}

fn no_balancer(name: &str) -> Refusal {
    Refusal::bad("LoadBalancerNotFound", format!("There is no load balancer '{name}'"))
}

fn no_target(kind: BalancerKind, id: &str) -> Refusal {
    match kind {
        BalancerKind::Network => Refusal::bad(
            "InvalidTarget",
            format!("The following targets are not in a running state and cannot be registered: '{id}'"),
        ),
        BalancerKind::Classic => {
            Refusal::bad("InvalidInstance", format!("Could not find EC2 instance {id}."))
        }
    }
}
