//! Instances: launching, dying and being described.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::lifecycle::Lifecycle;
use super::metadata::{Credentials, ImdsFaults};
use super::notices::Notices;
use super::volumes::LaunchVolume;
use super::{EventKind, Refusal, World};

/// An instance's id, such as `i-0123456789abcdef0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub(crate) String);

impl InstanceId {
    /// The id as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// EC2's instance states, but for the stopped ones, which a group's instances never see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being launched.
    Pending,
    /// Running, as far as EC2 knows: a machine that crashed is still `running`.
    Running,
    /// On its way out; its volumes are still attached.
    ShuttingDown,
    /// Gone, and still described for a while.
    Terminated,
}

impl InstanceState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        }
    }
}

/// What to launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InstanceSpec {
    /// The zone; empty is allowed only in a group's template.
    pub zone: String,
    /// Such as `t3.medium`.
    pub instance_type: String,
    /// The image.
    pub image_id: String,
    /// Tags of the instance.
    pub tags: BTreeMap<String, String>,
    /// Whether the metadata service publishes the tags.
    pub metadata_tags: bool,
    /// The IAM role of its profile, if it has one.
    pub iam_role: Option<String>,
    /// User data as text, if it has any.
    pub user_data: Option<String>,
    /// User data of any bytes (gzip, say), base64 as EC2's own calls take it; instead of the text.
    pub user_data_base64: Option<String>,
    /// Whether it is a spot instance, which EC2 may interrupt.
    pub spot: bool,
    /// Volumes that the launch makes and attaches.
    pub volumes: Vec<LaunchVolume>,
    /// What is wrong with its metadata service from the start.
    pub imds_faults: ImdsFaults,
}

/// What there is to say of an instance type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypeSpec {
    /// The most network interfaces of each of its network cards.
    pub cards: Vec<u32>,
    /// The most IPv4 addresses of an interface.
    pub addresses: u32,
}

impl TypeSpec {
    /// A few of EC2's. Source: "Specifications for Amazon EC2 instance types".
    pub(super) fn usual() -> BTreeMap<String, Self> {
        let of = |name: &str, cards: &[u32], addresses| {
            (name.to_owned(), Self { cards: cards.to_vec(), addresses })
        };
        BTreeMap::from([
            of("t3.medium", &[3], 6),
            of("m5.xlarge", &[4], 15),
            of("c5n.18xlarge", &[15], 50),
            of("p4d.24xlarge", &[15, 15, 15, 15], 50),
        ])
    }
}

impl Default for InstanceSpec {
    fn default() -> Self {
        Self {
            zone: String::new(),
            instance_type: "t3.medium".into(),
            image_id: "ami-0123456789abcdef0".into(),
            tags: BTreeMap::new(),
            metadata_tags: false,
            iam_role: Some("node".into()),
            user_data: None,
            user_data_base64: None,
            spot: false,
            volumes: Vec::new(),
            imds_faults: ImdsFaults::default(),
        }
    }
}

impl InstanceSpec {
    /// The user data as the metadata service serves them: at most 16 KiB.
    pub fn user_data_bytes(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let bytes = match (&self.user_data_base64, &self.user_data) {
            (Some(encoded), _) => STANDARD.decode(encoded).map_err(|_| {
                Refusal::bad("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
            })?,
            (None, Some(text)) => text.clone().into_bytes(),
            (None, None) => return Ok(None),
        };
        if bytes.len() > 16_384 {
            return Err(Refusal::bad("InvalidParameterValue", "User data is limited to 16384 bytes"));
        }
        Ok(Some(bytes))
    }
}

/// An instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its zone.
    pub zone: String,
    /// Its private address.
    pub private_ip: Ipv4Addr,
    /// The hardware address of its only interface.
    pub mac: String,
    /// What EC2 says of it.
    pub state: InstanceState,
    /// Whether the machine runs in truth.
    pub powered: bool,
    /// When it was launched, in milliseconds since 1970.
    pub launched_ms: u64,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its group's name.
    pub group: Option<String>,
    /// Its standing in the group, until the group has let go of it.
    pub lifecycle: Option<Lifecycle>,
    /// Where its metadata service listens.
    pub imds: Option<SocketAddr>,
    /// What is wrong with its metadata service.
    pub imds_faults: ImdsFaults,
    /// What EC2 has told it of its end.
    pub notices: Notices,
    /// What it was launched from.
    #[serde(skip)]
    pub spec: InstanceSpec,
    /// Its role's credentials.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
    /// When it died without EC2 having been asked.
    #[serde(skip)]
    pub(super) died_ms: Option<u64>,
    /// When the present state ends by itself.
    #[serde(skip)]
    pub(super) due: Option<u64>,
}

impl Instance {
    /// The name of the machine, as EC2 makes it from the address.
    pub fn host_name(&self, region: &str) -> String {
        let [a, b, c, d] = self.private_ip.octets();
        format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal")
    }

    /// Whether it is gone: with it go its address and its name.
    pub fn is_terminated(&self) -> bool {
        self.state == InstanceState::Terminated
    }

    /// Whether EC2 counts it among the living.
    pub fn exists(&self) -> bool {
        matches!(self.state, InstanceState::Pending | InstanceState::Running)
    }
}

impl World {
    /// Launches an instance outside any group.
    pub fn run_instance(&mut self, spec: InstanceSpec) -> Result<InstanceId, Refusal> {
        let id = self.launch(spec, None)?;
        self.settle();
        Ok(id)
    }

    pub(super) fn launch(&mut self, spec: InstanceSpec, group: Option<&str>) -> Result<InstanceId, Refusal> {
        let index = self.zone_index(&spec.zone)?;
        if self.zones[index].stopped {
            let message = format!("We currently do not have sufficient capacity in {}.", spec.zone);
            return Err(Refusal::new(500, "InsufficientInstanceCapacity", message));
        }
        if spec.metadata_tags && spec.tags.keys().any(|k| k.contains('/')) {
            return Err(Refusal::bad(
                "InvalidParameterValue",
                "a tag key with '/' can't be used on an instance that publishes its tags",
            ));
        }
        spec.user_data_bytes()?;
        let private_ip = self.next_address(index)?;
        let id = InstanceId(format!("i-{}", self.hex(17)));
        let mut tags = spec.tags.clone();
        if let Some(group) = group {
            tags.insert("aws:autoscaling:groupName".into(), group.to_owned());
        }
        let [_, b, c, d] = private_ip.octets();
        let credentials = spec.iam_role.as_ref().map(|role| {
            let access_key = format!("ASIA{}", self.upper(16));
            self.keys.insert(access_key.clone(), (id.clone(), role.clone()));
            Credentials {
                access_key,
                secret_key: self.hex(40),
                token: self.hex(64),
                expires_ms: self.now + self.config.timings.credentials_ms,
            }
        });
        let instance = Instance {
            id: id.clone(),
            zone: spec.zone.clone(),
            private_ip,
            mac: format!("02:00:7f:{b:02x}:{c:02x}:{d:02x}"),
            state: InstanceState::Pending,
            powered: true,
            launched_ms: self.now,
            tags,
            group: group.map(str::to_owned),
            lifecycle: group.map(|_| Lifecycle::pending()),
            imds: None,
            imds_faults: spec.imds_faults.starting_at(self.now),
            notices: Notices::default(),
            credentials,
            died_ms: None,
            due: Some(self.now + self.config.timings.launch_ms),
            spec,
        };
        self.emit(EventKind::InstanceLaunched {
            id: id.clone(),
            zone: instance.zone.clone(),
            ip: private_ip,
            group: instance.group.clone(),
            imds: None,
        });
        let volumes = instance.spec.volumes.clone();
        let zone = instance.zone.clone();
        self.view_mut().instances.insert(id.clone(), instance);
        self.launched.push(id.clone());
        for volume in volumes {
            self.launch_volume(&id, &zone, &volume);
        }
        Ok(id)
    }

    fn next_address(&mut self, zone: usize) -> Result<Ipv4Addr, Refusal> {
        let base = u32::from(self.config.address_base);
        let third = u8::try_from(zone + 1)
            .map_err(|_| Refusal::bad("InstanceLimitExceeded", "too many zones for the address plan"))?;
        let address = |n: u32| {
            let second = u8::try_from(base + n / 254).ok()?;
            Some(Ipv4Addr::new(127, second, third, u8::try_from(n % 254 + 1).ok()?))
        };
        let taken = |ip: Ipv4Addr| {
            self.view.instances.values().any(|i| i.private_ip == ip && i.state != InstanceState::Terminated)
        };
        let mut n = if self.config.reuse_addresses { 0 } else { self.zones[zone].launched };
        loop {
            let Some(ip) = address(n) else {
                return Err(Refusal::bad("InsufficientFreeAddressesInSubnet", "no address is left"));
            };
            n += 1;
            if !taken(ip) {
                self.zones[zone].launched = self.zones[zone].launched.max(n);
                return Ok(ip);
            }
        }
    }

    /// Notes where an instance's metadata service listens, in the state and in the event that
    /// announces the instance.
    pub fn set_imds(&mut self, id: &InstanceId, address: SocketAddr) {
        if let Some(instance) = self.view_mut().instances.get_mut(id) {
            instance.imds = Some(address);
        }
        for event in self.events.iter_mut().rev() {
            if let EventKind::InstanceLaunched { id: launched, imds, .. } = &mut event.kind
                && launched == id
            {
                *imds = Some(address);
                break;
            }
        }
    }

    /// Terminates an instance as EC2's own call does: it is asked to shut down, then it is gone.
    /// A terminated instance may be terminated again, to no effect.
    pub fn terminate_instance(&mut self, id: &str) -> Result<(), Refusal> {
        let id = self.instance_id(id)?;
        self.shut_down(&id);
        self.settle();
        Ok(())
    }

    /// Takes a machine's power. EC2 keeps calling it `running` until its group, if it has one, has
    /// noticed and terminates it.
    pub fn kill_instance(&mut self, id: &str) -> Result<(), Refusal> {
        let id = self.instance_id(id)?;
        self.power_off(&id);
        self.settle();
        Ok(())
    }

    pub(super) fn power_off(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(instance) = self.view_mut().instances.get_mut(id) else { return };
        if instance.powered {
            instance.powered = false;
            instance.died_ms = Some(now);
            self.emit(EventKind::InstanceKilled { id: id.clone() });
        }
    }

    pub(super) fn shut_down(&mut self, id: &InstanceId) {
        let due = self.now + self.config.timings.terminate_ms;
        let Some(instance) = self.view_mut().instances.get_mut(id) else { return };
        if !instance.exists() {
            return;
        }
        instance.state = InstanceState::ShuttingDown;
        instance.due = Some(due);
        if instance.powered {
            self.emit(EventKind::InstanceShuttingDown { id: id.clone() });
        }
    }

    /// Finds an instance that EC2 still describes.
    pub(crate) fn instance_id(&self, id: &str) -> Result<InstanceId, Refusal> {
        self.view.instances.get(id).map(|i| i.id.clone()).ok_or_else(|| no_instance(id))
    }

    /// Names the instances that a description asked for and did not find.
    pub(crate) fn instance_missing(first: &str, all: &[&str]) -> Refusal {
        match (no_instance(first), all) {
            (refusal, [_]) => refusal,
            (Refusal { code: "InvalidInstanceID.NotFound", .. }, ids) => {
                let message = format!("The instance IDs '{}' do not exist", ids.join(", "));
                Refusal::bad("InvalidInstanceID.NotFound", message)
            }
            (refusal, _) => refusal,
        }
    }

    pub(super) fn instance_due(&self, instance: &Instance) -> Option<u64> {
        // In a zone without power nothing is ever confirmed to be gone.
        let frozen = instance.state == InstanceState::ShuttingDown && self.zone_stopped(&instance.zone);
        let state = instance.due.filter(|_| !frozen);
        let noticed = instance
            .died_ms
            .filter(|_| instance.lifecycle.as_ref().is_some_and(|l| !l.state.is_leaving()))
            .map(|at| at + self.config.timings.health_check_ms);
        let hooks = instance.lifecycle.as_ref().and_then(Lifecycle::next_deadline);
        let imds = instance.imds_faults.refused_until_ms;
        [state, noticed, hooks, imds, Self::notices_due(instance)].into_iter().flatten().min()
    }

    pub(super) fn step_instances(&mut self) -> bool {
        self.end_imds_delays() | self.step_states()
    }

    fn end_imds_delays(&mut self) -> bool {
        let now = self.now;
        let over = |i: &Instance| i.imds_faults.refused_until_ms.is_some_and(|at| at <= now);
        if !self.view.instances.values().any(over) {
            return false;
        }
        for instance in self.view_mut().instances.values_mut().filter(|i| over(i)) {
            instance.imds_faults.refused_until_ms = None;
        }
        true
    }

    fn step_states(&mut self) -> bool {
        let now = self.now;
        let due: Vec<(InstanceId, InstanceState)> = self
            .view
            .instances
            .values()
            .filter(|i| i.due.is_some_and(|at| at <= now))
            .filter(|i| i.state != InstanceState::ShuttingDown || !self.zone_stopped(&i.zone))
            .map(|i| (i.id.clone(), i.state))
            .collect();
        for (id, state) in &due {
            match state {
                InstanceState::Pending => self.become_running(id),
                InstanceState::ShuttingDown => self.become_terminated(id),
                InstanceState::Terminated => {
                    self.view_mut().instances.remove(id);
                }
                InstanceState::Running => {
                    if let Some(instance) = self.view_mut().instances.get_mut(id) {
                        instance.due = None;
                    }
                }
            }
        }
        !due.is_empty()
    }

    fn become_running(&mut self, id: &InstanceId) {
        if let Some(instance) = self.view_mut().instances.get_mut(id) {
            instance.state = InstanceState::Running;
            instance.due = None;
        }
        self.enter_service_or_wait(id);
    }

    fn become_terminated(&mut self, id: &InstanceId) {
        let gone = self.now + self.config.timings.terminated_visible_ms;
        if let Some(instance) = self.view_mut().instances.get_mut(id) {
            instance.state = InstanceState::Terminated;
            instance.powered = false;
            instance.lifecycle = None;
            instance.due = Some(gone);
        }
        self.emit(EventKind::InstanceTerminated { id: id.clone() });
        self.release_volumes_of(id);
    }
}

pub(crate) fn no_instance(id: &str) -> Refusal {
    if id.strip_prefix("i-").is_some_and(|hex| !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit()))
    {
        Refusal::bad("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
    } else {
        Refusal::bad("InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\" (expecting \"i-...\")"))
    }
}
