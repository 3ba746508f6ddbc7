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

/// A scheduled event of EC2's that ends or stops the machine.
/// Source: "Scheduled events for your instances", EC2 user guide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// What happens: `instance-stop`, `instance-retirement`, `system-reboot` and the like.
    pub code: String,
    /// Not before this moment, in milliseconds since 1970.
    pub not_before: i64,
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
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
    /// This machine's node, as one that comes sees it; asked for while a launch hook holds the machine.
    pub arriving: Fact<Option<OwnNode>>,
}

impl DepartureObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self {
            target: Fact::unknown(why),
            spot: Fact::unknown(why),
            rebalance: Fact::unknown(why),
            maintenance: Fact::unknown(why),
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
            arriving: Fact::unknown(why),
        }
    }
}
