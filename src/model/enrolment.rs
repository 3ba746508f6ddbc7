//! Machines that become nodes: what they ask of the cluster, and what is known of them.
//!
//! A joining machine shows a bootstrap token and asks for a client certificate; a node asks for a
//! serving certificate. Who holds the lease in the API compares what is asked for with what EC2 and
//! Auto Scaling say ([`crate::plan`] decides). Secrets have no place here: of a token its id is known,
//! and whether it is the right one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::fact::Fact;
use super::ids::{ClusterName, InstanceId, Role, Zone};
use super::machine::InstanceState;
use crate::config::settings::{ApiEndpoint, ClusterDomain, PodSubnet, ServiceSubnet};
use crate::kubernetes::KubernetesVersion;

/// What all nodes' names in certificates begin with.
pub const NODE_USER: &str = "system:node:";
/// The organization of nodes' client certificates, and the group that it makes them members of.
pub const NODES: &str = "system:nodes";

/// What a worker has to know to join, but for the token: the same for all workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTerms {
    /// The cluster.
    pub cluster: ClusterName,
    /// The version of the control plane.
    pub kubernetes_version: KubernetesVersion,
    /// Where the API is reached.
    pub endpoint: ApiEndpoint,
    /// SHA-256 of the cluster's CA certificate in PEM, in hexadecimal.
    pub authority: String,
    /// The services' addresses.
    pub service_subnet: ServiceSubnet,
    /// The pods' addresses, where the cluster gives them to nodes.
    pub pod_subnet: Option<PodSubnet>,
    /// The domain of services.
    pub cluster_domain: ClusterDomain,
}

/// What is published to workers in S3, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedJoin {
    /// What it tells.
    pub terms: JoinTerms,
    /// The id of its bootstrap token.
    pub token: String,
    /// When the token ends, in milliseconds since 1970.
    pub token_ends: i64,
}

/// What lies in S3 for workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum JoinFound {
    /// Nothing, or nothing that can be understood: nothing in it is anywhere else, so it can be made anew.
    Nothing,
    /// This.
    Published(PublishedJoin),
    /// What a later version of quorate wrote, which this one would not write as a whole.
    Later {
        /// The format that it says.
        format: u32,
        /// The one that this version writes.
        known: u32,
    },
}

/// The published join, as who looks after it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinObservation {
    /// What is in S3.
    pub published: Fact<JoinFound>,
    /// Whether the API takes the published token: the same secret, for the same time, and for joining.
    pub token_taken: Fact<bool>,
    /// SHA-256 of this machine's copy of the cluster's CA certificate, in hexadecimal.
    pub authority: Fact<Option<String>>,
}

/// Who is asked to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeSigner {
    /// `kubernetes.io/kube-apiserver-client-kubelet`.
    Client,
    /// `kubernetes.io/kubelet-serving`.
    Serving,
}

impl NodeSigner {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Client, Self::Serving];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }
}

/// What the certificate that is asked for would name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedSubject {
    /// Its common names; a right one has one.
    pub common_names: Vec<String>,
    /// Its organizations.
    pub organizations: Vec<String>,
    /// The DNS names among its alternative names.
    pub dns_names: BTreeSet<String>,
    /// The addresses among its alternative names.
    pub addresses: BTreeSet<IpAddr>,
    /// All else that it names or asks for, which no node does.
    pub others: Vec<String>,
}

/// A request for a certificate that nobody has decided on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// The request's name.
    pub name: String,
    /// The version that was read, the condition of the next write.
    pub version: String,
    /// Who is asked to sign.
    pub signer: NodeSigner,
    /// Who asks.
    pub requester: String,
    /// The groups that he is in.
    pub groups: BTreeSet<String>,
    /// What the certificate would be good for.
    pub usages: BTreeSet<String>,
    /// What it would name, or why that can't be read.
    pub subject: Result<RequestedSubject, String>,
    /// Why it was left alone before, as it was written down then.
    pub told: Option<String>,
}

impl CertificateRequest {
    /// The node that it is about.
    pub fn node(&self) -> Option<&str> {
        let subject = self.subject.as_ref().ok()?;
        match subject.common_names.as_slice() {
            [only] => only.strip_prefix(NODE_USER).filter(|name| !name.is_empty()),
            _ => None,
        }
    }
}

/// Whether a node is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeReadiness {
    /// It says that it is ready.
    Ready,
    /// It says that it is not.
    NotReady,
    /// It has not been heard for some time, or never.
    Silent,
}

/// A node in the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    /// Its unique id, the condition of its deletion.
    pub uid: String,
    /// The instance that its provider id names; `None` when it has none, or none of EC2's.
    pub instance: Option<InstanceId>,
    /// Whether it is heard.
    pub readiness: NodeReadiness,
    /// Its zone, by its label.
    pub zone: Option<String>,
    /// Whether it is one of the control plane, by its label or taint.
    pub control_plane: bool,
    /// Whether its own agent says that its machine has left.
    pub left: bool,
}

/// An instance that is, or asks to be, a node: EC2's word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInstance {
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its role by its tag, when it carries this cluster's tag.
    pub role: Option<Role>,
    /// Its zone.
    pub zone: Option<Zone>,
    /// The private DNS name of its first network interface.
    pub private_dns_name: Option<String>,
    /// All its addresses, private and public.
    pub addresses: BTreeSet<IpAddr>,
    /// All its DNS names, private and public.
    pub dns_names: BTreeSet<String>,
}

/// How often in a row, with some time between, EC2 said that an instance is gone for good.
pub type GoneLooks = BTreeMap<InstanceId, u32>;

/// All that who holds the lease in the API knows of those who join and leave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentObservation {
    /// What is published to workers.
    pub join: JoinObservation,
    /// Requests of nodes that nobody has decided on.
    pub requests: Fact<Vec<CertificateRequest>>,
    /// The names of those that were left pending before, and about which nothing was asked at this look.
    #[serde(default)]
    pub resting: BTreeSet<String>,
    /// The nodes, by name.
    pub nodes: Fact<BTreeMap<String, ClusterNode>>,
    /// The instances that nodes name, and requests that do not rest. One that is not here is not known about.
    pub instances: Fact<BTreeMap<InstanceId, NodeInstance>>,
    /// The instances in Auto Scaling groups of the cluster, with the group's role; asked for when there
    /// are requests.
    pub members: Fact<BTreeMap<InstanceId, Role>>,
    /// Instances of nodes that EC2 says are gone.
    pub gone: GoneLooks,
    /// What the event on workers that share a zone says; `Known(None)` when there is none.
    pub shared_zone_told: Fact<Option<String>>,
}

impl EnrolmentObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self {
            join: JoinObservation {
                published: Fact::unknown(why),
                token_taken: Fact::unknown(why),
                authority: Fact::unknown(why),
            },
            requests: Fact::unknown(why),
            resting: BTreeSet::new(),
            nodes: Fact::unknown(why),
            instances: Fact::unknown(why),
            members: Fact::unknown(why),
            gone: GoneLooks::new(),
            shared_zone_told: Fact::unknown(why),
        }
    }
}

/// Why a request is left pending.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "why")]
pub enum Refusal {
    /// What it asks for can't be read.
    Unreadable {
        /// What is wrong.
        found: String,
    },
    /// It is no request of a kubelet's.
    NotAKubelets {
        /// What is wrong.
        found: String,
    },
    /// Who asks may not ask for this node.
    Requester {
        /// Who asks.
        found: String,
        /// Who would be right.
        expected: String,
    },
    /// EC2 knows no such instance.
    NoInstance {
        /// The node.
        node: String,
    },
    /// The instance does not run.
    NotRunning {
        /// The instance.
        instance: InstanceId,
        /// Where it is in its life.
        state: InstanceState,
    },
    /// The instance is not the cluster's, or not in this role.
    Role {
        /// The instance.
        instance: InstanceId,
        /// The role by its tag.
        found: Option<Role>,
        /// The role that is asked for.
        expected: Role,
    },
    /// No group of the cluster with that role has the instance.
    NotInGroup {
        /// The instance.
        instance: InstanceId,
        /// The role.
        role: Role,
    },
    /// There is a node of this name: another instance's, or one that is heard.
    NameInUse {
        /// The node.
        node: String,
        /// The instance that has the name.
        by: Option<InstanceId>,
    },
    /// It names what is not the instance's.
    NotItsOwn {
        /// The addresses and names that are not the instance's.
        found: Vec<String>,
        /// Those that are.
        expected: Vec<String>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { found } => write!(f, "what it asks for can't be read: {found}"),
            Self::NotAKubelets { found } => write!(f, "it is no request of a kubelet's: {found}"),
            Self::Requester { found, expected } => write!(f, "{found} asks, and only {expected} may"),
            Self::NoInstance { node } => {
                write!(f, "EC2 knows no instance of the name {node} in this cluster")
            }
            Self::NotRunning { instance, state } => write!(f, "EC2 says that {instance} is {state}"),
            Self::Role { instance, found: Some(found), expected } => {
                write!(f, "{instance} is tagged as {found}, and asks as {expected}")
            }
            Self::Role { instance, found: None, .. } => {
                write!(f, "{instance} does not carry this cluster's tags quorate:cluster and quorate:role")
            }
            Self::NotInGroup { instance, role } => {
                write!(f, "no Auto Scaling group that is tagged as this cluster's {role} has {instance}")
            }
            Self::NameInUse { node, by: Some(by) } => {
                write!(
                    f,
                    "there is a node {node} already, of {by}; when that one is lost for good, delete it: \
                     kubectl delete node {node}"
                )
            }
            Self::NameInUse { node, by: None } => {
                write!(
                    f,
                    "there is a node {node} already, which is heard, and nothing says which instance it is"
                )
            }
            Self::NotItsOwn { found, expected } => write!(
                f,
                "{} {} not the instance's: EC2 knows it by {}",
                found.join(", "),
                if found.len() == 1 { "is" } else { "are" },
                expected.join(", ")
            ),
        }
    }
}
