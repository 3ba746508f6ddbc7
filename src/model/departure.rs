//! A machine on its way into its group or out of it: what it is told, and what is left to do.
//!
//! Who is told to leave, and by whom, is told by the metadata service, by the operator, or by the machine itself as it
//! shuts down. How far a departure is, is seen in the world. Only that it has begun, and since when, is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::cluster::ServiceState;
use super::fact::Fact;
use super::ids::InstanceId;
use super::load_balancer::{LoadBalancer, TargetHealth};
use super::service::ServiceName;
use super::worker::OwnNode;
use crate::kubernetes::Component;

/// What the group wants of an instance, as the metadata service tells in `autoscaling/target-lifecycle-state`.
/// Source: "Retrieve the target lifecycle state through instance metadata", Auto Scaling user guide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetState {
    /// It is to be in service.
    InService,
    /// It is to be terminated.
    Terminated,
    /// Anything else, as `Standby` or `Detached`: nothing that it has to leave for.
    Other(String),
}

impl From<&str> for TargetState {
    fn from(text: &str) -> Self {
        match text {
            "InService" => Self::InService,
            "Terminated" => Self::Terminated,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What becomes of a spot instance that is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpotAction {
    /// It is terminated.
    Terminate,
    /// It is stopped.
    Stop,
    /// It is hibernated.
    Hibernate,
}

/// A spot interruption that is announced.
/// Source: "Spot Instance interruption notices", EC2 user guide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpotInterruption {
    /// What happens.
    pub action: SpotAction,
    /// When, in milliseconds since 1970: about two minutes after it is announced.
    pub at: i64,
}

/// What EC2 does to a machine at a scheduled event.
/// Source: "Scheduled events for your instances", EC2 user guide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MaintenanceCode {
    /// It is rebooted.
    InstanceReboot,
    /// Its host is rebooted, and it with it.
    SystemReboot,
    /// Its network or its power is cut for a while; after the latter it is rebooted.
    SystemMaintenance,
    /// Its host is given up: it is stopped, or terminated where its root is no EBS volume.
    InstanceRetirement,
    /// It is stopped.
    InstanceStop,
    /// Something that is not known here.
    Other(String),
}

impl MaintenanceCode {
    /// EC2's word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InstanceReboot => "instance-reboot",
            Self::SystemReboot => "system-reboot",
            Self::SystemMaintenance => "system-maintenance",
            Self::InstanceRetirement => "instance-retirement",
            Self::InstanceStop => "instance-stop",
            Self::Other(code) => code,
        }
    }

    /// Whether the same machine goes on by itself after it.
    pub fn comes_back(&self) -> bool {
        match self {
            Self::InstanceReboot | Self::SystemReboot | Self::SystemMaintenance => true,
            Self::InstanceRetirement | Self::InstanceStop | Self::Other(_) => false,
        }
    }
}

impl From<String> for MaintenanceCode {
    fn from(text: String) -> Self {
        match text.as_str() {
            "instance-reboot" => Self::InstanceReboot,
            "system-reboot" => Self::SystemReboot,
            "system-maintenance" => Self::SystemMaintenance,
            "instance-retirement" => Self::InstanceRetirement,
            "instance-stop" => Self::InstanceStop,
            _ => Self::Other(text),
        }
    }
}

impl From<MaintenanceCode> for String {
    fn from(code: MaintenanceCode) -> Self {
        code.as_str().to_owned()
    }
}

/// A scheduled event of EC2's that is still to come, or under way.
/// Source: "Scheduled events for your instances", EC2 user guide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Its id, as `instance-event-0d59937288b749b32`. It keeps it when it is put off.
    pub event: String,
    /// What happens.
    pub code: MaintenanceCode,
    /// Not before this moment, in milliseconds since 1970.
    pub not_before: i64,
}

/// How long the agent delays a shutdown at most, in milliseconds. Handing etcd's leadership over takes a fraction of a
/// second, and what is asked before it takes its time when a member does not answer.
pub const HOLD_MS: u64 = 10_000;

/// A shutdown of this machine that logind has announced: it is powered off, or rebooted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// When, in milliseconds since 1970.
    pub since: i64,
    /// Whether it still waits for the agent.
    pub held: bool,
}

/// Why a machine leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "cause")]
pub enum Cause {
    /// Its group terminates it.
    Termination,
    /// EC2 takes the spot instance back.
    Spot {
        /// What becomes of it.
        action: SpotAction,
        /// When, in milliseconds since 1970.
        at: i64,
    },
    /// The operator asked for it.
    Asked,
    /// EC2 has scheduled an event for it.
    Maintenance {
        /// The event's id.
        event: String,
        /// What happens.
        code: MaintenanceCode,
        /// Not before this moment, in milliseconds since 1970.
        not_before: i64,
    },
    /// EC2 recommends to replace the spot instance.
    Rebalance,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maintenance { code, .. } => {
                return write!(f, "EC2 has scheduled {} for it", code.as_str());
            }
            Self::Rebalance => "EC2 recommends to replace the spot instance",
            Self::Termination => "its group terminates it",
            Self::Spot { action: SpotAction::Terminate, .. } => "EC2 takes the spot instance back",
            Self::Spot { action: SpotAction::Stop, .. } => "EC2 stops the spot instance",
            Self::Spot { action: SpotAction::Hibernate, .. } => "EC2 hibernates the spot instance",
            Self::Asked => "the operator asked for it",
        })
    }
}

/// A departure that has begun. It is kept on the machine, so that its time does not begin anew with the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Departure {
    /// The instance that leaves: what an image of it brings along is not its own.
    pub instance: InstanceId,
    /// Why.
    pub cause: Cause,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

/// Where an instance stands in its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The group.
    pub group: String,
    /// How far it is.
    pub state: LifecycleState,
}

/// Auto Scaling's lifecycle states, as far as they matter here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LifecycleState {
    /// A launch hook holds it.
    PendingWait,
    /// A termination hook holds it.
    TerminatingWait,
    /// Any other, as `InService`: no hook holds it.
    Other(String),
}

impl From<&str> for LifecycleState {
    fn from(text: &str) -> Self {
        match text {
            "Pending:Wait" => Self::PendingWait,
            "Terminating:Wait" => Self::TerminatingWait,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A lifecycle hook, as its group has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// For how long it holds an instance without a heartbeat, in seconds.
    pub heartbeat_timeout_s: i64,
}

/// How a lifecycle hook ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HookResult {
    /// Go on.
    Continue,
    /// On the way in: terminate the instance. On the way out: skip other hooks.
    Abandon,
}

impl HookResult {
    /// Auto Scaling's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// A pod that is to leave this node before the machine does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id: no other of the same name is evicted.
    pub uid: String,
    /// Whether it is ending already.
    pub ending: bool,
    /// Why the API would not evict it now, as a disruption budget; `None` where it would.
    pub refused: Option<String>,
}

impl NodePod {
    /// `NAMESPACE/NAME`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// This machine's node, as one that leaves sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeavingNode {
    /// Its name.
    pub name: String,
    /// Whether it is closed to new pods.
    pub cordoned: bool,
    /// Whether it was this agent that closed it.
    pub cordoned_here: bool,
    /// Whether it says that its machine has left.
    pub left: bool,
    /// Its pods that are to leave: not those of the machine itself, of DaemonSets, nor those that have ended.
    pub pods: Vec<NodePod>,
}

/// What is left of a component on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remains {
    /// Whether its manifest is in place.
    pub manifest: Fact<bool>,
    /// Whether anything listens where it is asked whether it is ready.
    pub listens: Fact<bool>,
}

/// This machine's place behind the load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placing {
    /// The load balancer.
    pub balancer: LoadBalancer,
    /// What it says of this machine.
    pub health: TargetHealth,
}

/// What a machine sees of its way in and out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepartureObservation {
    /// What the group wants; `Known(None)` when it is in no group.
    pub target: Fact<Option<TargetState>>,
    /// A spot interruption.
    pub spot: Fact<Option<SpotInterruption>>,
    /// Since when EC2 recommends to replace the spot instance, in milliseconds since 1970.
    pub rebalance: Fact<Option<i64>>,
    /// Scheduled events.
    pub maintenance: Fact<Vec<Maintenance>>,
    /// When this machine was booted last, in milliseconds since 1970.
    pub booted: Fact<i64>,
    /// A shutdown of the machine, if one is announced.
    pub shutdown: Fact<Option<Shutdown>>,
    /// Whether the operator asked it to leave.
    pub asked: Fact<bool>,
    /// The departure that has begun.
    pub begun: Fact<Option<Departure>>,
    /// Where it stands in its group; `Known(None)` when it is in none. Asked for where a hook matters.
    pub membership: Fact<Option<Membership>>,
    /// The hook that holds it, by the name in the settings; `Known(None)` when the group has none of that name.
    pub hook: Fact<Option<Hook>>,
    /// When this agent last sent the hook a heartbeat, in milliseconds since 1970.
    pub heartbeat: Option<i64>,
    /// For how long the agent has seen a launch hook hold the instance, in milliseconds.
    pub pending_for: i64,
    /// This machine's node; `Known(None)` when it has none. This and what follows is asked for on the way out.
    pub node: Fact<Option<LeavingNode>>,
    /// Its place behind the load balancer; `Known(None)` when there is no load balancer.
    pub placing: Fact<Option<Placing>>,
    /// What is left of the control plane's components.
    pub components: BTreeMap<Component, Remains>,
    /// The node's services.
    pub services: BTreeMap<ServiceName, Fact<ServiceState>>,
    /// This machine's node, as one sees it that stays; asked for while a launch hook holds the machine, and on a worker
    /// that EC2 recommends to replace.
    pub own_node: Fact<Option<OwnNode>>,
}

impl DepartureObservation {
    /// Whether the machine is about to shut down, so that there is no time to ask much.
    pub fn shuts_down(&self) -> bool {
        matches!(self.shutdown, Fact::Known(Some(_)))
    }

    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self {
            target: Fact::unknown(why),
            spot: Fact::unknown(why),
            rebalance: Fact::unknown(why),
            maintenance: Fact::unknown(why),
            booted: Fact::unknown(why),
            shutdown: Fact::unknown(why),
            asked: Fact::unknown(why),
            begun: Fact::unknown(why),
            membership: Fact::unknown(why),
            hook: Fact::unknown(why),
            heartbeat: None,
            pending_for: 0,
            node: Fact::unknown(why),
            placing: Fact::unknown(why),
            components: BTreeMap::new(),
            services: BTreeMap::new(),
            own_node: Fact::unknown(why),
        }
    }
}
