//! What is seen of Kubernetes on and around this machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::addons::AddonsObservation;
use super::containerd::ContainerdObservation;
use super::enrolment::EnrolmentObservation;
use super::fact::Fact;
use super::load_balancer::{FoundLoadBalancers, TargetHealth};
use super::names::ClusterLeaves;
use super::node::NodeFacts;
use super::observation::Authority;
use super::service::{ServiceName, ServiceObservation};
use super::worker::WorkerObservation;
use crate::config::settings::ApiEndpoint;
use crate::kubernetes::{Component, KubernetesVersion};

/// Whether a component answers that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not; the text says what it answers instead, or why there is no answer.
    NotReady(String),
}

/// How the last change of a manifest went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutState {
    /// The component has not been ready with it yet.
    Pending,
    /// The component has been ready with it.
    Good,
}

/// The last change of a component's manifest on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// SHA-256 of the manifest, in hexadecimal.
    pub digest: String,
    /// When it was put in place, in milliseconds since 1970.
    pub since: i64,
    /// How it went.
    pub state: RolloutState,
    /// SHA-256 of the manifest before it, which is kept until this one has proven good.
    pub previous: Option<String>,
    /// Manifests that did not get ready in their time and were replaced by the one before. They are
    /// forgotten when another has proven good.
    pub failed: Vec<FailedManifest>,
}

/// A manifest that did not get ready in its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailedManifest {
    /// SHA-256 of the manifest, in hexadecimal.
    pub digest: String,
    /// When it was last put in place, in milliseconds since 1970.
    pub tried: i64,
    /// How often it was.
    pub times: u32,
}

/// A component on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentObservation {
    /// SHA-256 of its manifest, in hexadecimal; `Known(None)` when it has none.
    pub manifest: Fact<Option<String>>,
    /// The last change of its manifest; `Known(None)` when there was none.
    pub rollout: Fact<Option<Rollout>>,
    /// Whether it is ready.
    pub readiness: Readiness,
}

/// The load balancer, as far as it concerns this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// The load balancers that were found.
    pub found: FoundLoadBalancers,
    /// Whether the Auto Scaling group registers this machine by itself.
    pub by_group: bool,
    /// What the only fitting one says of this machine; unknown when there is none such.
    pub target: Fact<TargetHealth>,
}

/// What logind does when the machine shuts down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogindObservation {
    /// For how long programs can hold a shutdown back, in milliseconds: `InhibitDelayMaxSec`, as it counts.
    pub longest_delay_ms: u64,
    /// SHA-256, in hexadecimal, of the agent's own file that logind was last told of; `None` when it was told of none
    /// since the machine started, and has read what was there then.
    pub told: Option<String>,
}

/// The services that the agent starts on every node, beside containerd.
pub const NODE_SERVICES: [ServiceName; 2] = [ServiceName::Kubelet, ServiceName::KubeProxy];

/// What is seen of Kubernetes on and around this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesObservation {
    /// The version that this machine is to run.
    pub version: Fact<KubernetesVersion>,
    /// What the machine has, and what the operator adds to its kubelet's configuration.
    pub node: Fact<NodeFacts>,
    /// The load balancers; `Known(None)` when the operator named the endpoint.
    pub load_balancing: Fact<Option<LoadBalancing>>,
    /// The endpoint that this machine's files were last made for.
    pub remembered_endpoint: Fact<Option<ApiEndpoint>>,
    /// The authorities in S3.
    pub authorities: Fact<Option<Authority>>,
    /// The leaves, kubeconfigs and keys on this machine; `Known(None)` when any is missing or unfit.
    pub leaves: Fact<Option<ClusterLeaves>>,
    /// SHA-256, in hexadecimal, of each file on this machine that a node of its role has beside
    /// manifests and keys.
    pub files: Fact<BTreeMap<String, String>>,
    /// containerd.
    pub containerd: ContainerdObservation,
    /// logind; `Known(None)` below another root than the machine's.
    pub logind: Fact<Option<LogindObservation>>,
    /// The services that the agent starts on every node.
    pub services: BTreeMap<ServiceName, Fact<ServiceObservation>>,
    /// The components.
    pub components: BTreeMap<Component, ComponentObservation>,
    /// Who looks after what quorate keeps in the API; `Known(None)` when there is no such lease. This and
    /// what follows is asked for when this machine's API server is ready.
    pub api_lease: Fact<Option<ApiLease>>,
    /// What quorate keeps in the API whatever is set.
    pub first_things: Fact<FirstThings>,
    /// The add-ons.
    pub addons: AddonsObservation,
    /// Machines that become nodes; asked for by the holder of the lease only.
    pub enrolment: EnrolmentObservation,
    /// What only a worker sees.
    pub worker: WorkerObservation,
}

/// What quorate keeps in the API whatever is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstThings {
    /// The objects that are absent, or do not say what they should for the endpoint that this
    /// machine's files were last made for: as `ConfigMap kube-public/cluster-info`.
    pub unfit: Vec<String>,
}

/// A lease in the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiLease {
    /// Who holds it, as it is written there.
    pub holder: Option<String>,
    /// When the holder last said so, in milliseconds since 1970 by the holder's clock.
    pub renewed: Option<i64>,
    /// For how long that holds, in seconds.
    pub duration_s: i32,
    /// Its version, the condition of the next write.
    pub version: String,
}

impl KubernetesObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        let component = || ComponentObservation {
            manifest: Fact::unknown(why),
            rollout: Fact::unknown(why),
            readiness: Readiness::NotReady(why.to_owned()),
        };
        Self {
            version: Fact::unknown(why),
            node: Fact::unknown(why),
            load_balancing: Fact::unknown(why),
            remembered_endpoint: Fact::unknown(why),
            authorities: Fact::unknown(why),
            leaves: Fact::unknown(why),
            files: Fact::unknown(why),
            containerd: ContainerdObservation::unknown(why),
            logind: Fact::unknown(why),
            services: NODE_SERVICES.map(|service| (service, Fact::unknown(why))).into(),
            components: Component::ALL.into_iter().map(|which| (which, component())).collect(),
            api_lease: Fact::unknown(why),
            first_things: Fact::unknown(why),
            addons: AddonsObservation::unknown(why),
            enrolment: EnrolmentObservation::unknown(why),
            worker: WorkerObservation::unknown(why),
        }
    }
}

/// What quorate keeps of Kubernetes in etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneRecords {
    /// The fingerprint of the cluster's authorities: from when it is written they are never made anew.
    pub authorities: Option<String>,
    /// The instance that holds the lock on changes of control-plane nodes.
    pub lock: Option<super::ids::InstanceId>,
}
