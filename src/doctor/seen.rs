//! What the doctor's probes saw, as plain values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::aws::{Allowed, BucketEncryption, BucketLifecycle, MetadataOptions};
use crate::config::Settings;
use crate::kubernetes::KubernetesVersion;
use crate::model::containerd::ContainerdObservation;
use crate::model::node::Machine;
use crate::model::{Fact, Identity, Observation};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who this machine is, as its metadata service says.
    pub identity: Fact<Identity>,
    /// Whether the metadata service publishes the instance's tags.
    pub tags_published: Fact<bool>,
    /// The configuration, or every error in it.
    pub settings: Fact<Settings>,
    /// The machine by itself.
    pub host: HostSeen,
    /// What can be asked only by who knows the machine and its settings.
    pub around: Option<Box<AroundSeen>>,
}

/// The machine by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSeen {
    /// Whether its clock has been synchronised.
    pub clock_synchronised: Fact<bool>,
    /// What it has.
    pub machine: Fact<Machine>,
    /// The controllers of version 2 of control groups; `None` without version 2.
    pub controllers: Fact<Option<Vec<String>>>,
    /// Whether it forwards packets between its interfaces.
    pub ip_forward: Fact<bool>,
    /// Whether its kernel has overlay file systems, now or as a module.
    pub overlay: Fact<bool>,
    /// Who listens for TCP.
    pub listeners: Fact<Vec<Listener>>,
}

/// Who listens for TCP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Where.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// The name of the process; `None` when it can't be told.
    pub process: Option<String>,
}

/// What is around the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AroundSeen {
    /// How the metadata service is set up, by EC2.
    pub metadata: Fact<MetadataOptions>,
    /// One full look, as the agent has it.
    pub observation: Option<Observation>,
    /// The version of the kubelet.
    pub kubelet: Fact<KubernetesVersion>,
    /// The version of kube-proxy.
    pub kube_proxy: Fact<KubernetesVersion>,
    /// containerd.
    pub containerd: ContainerdObservation,
    /// How far this machine's clock is ahead of S3's, in milliseconds.
    pub ahead_of_s3_ms: Fact<i64>,
    /// What EC2 would let this role do, by the name of the action.
    pub actions: BTreeMap<String, Fact<bool>>,
    /// What this role may do in the cluster's place in S3.
    pub corner: CornerSeen,
    /// The bucket's settings.
    pub bucket: BucketSeen,
    /// The load balancer's endpoint; `None` while there is none.
    pub endpoint: Option<EndpointSeen>,
}

/// What this role may do in the cluster's place in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CornerSeen {
    /// The cluster's place, for people.
    pub url: String,
    /// Whether it may read, by folder.
    pub read: BTreeMap<String, Fact<Allowed>>,
    /// Whether it may write.
    pub write: Fact<Allowed>,
    /// Whether it may list.
    pub list: Fact<Allowed>,
}

/// The bucket's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketSeen {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: Fact<String>,
    /// How it encrypts by itself.
    pub encryption: Fact<Option<BucketEncryption>>,
    /// Whether it keeps versions.
    pub versioning: Fact<bool>,
    /// Which blocks on public access it lacks.
    pub open_to_public: Fact<Vec<String>>,
    /// Whether its policy is public.
    pub policy_is_public: Fact<bool>,
    /// Its policy.
    pub policy: Fact<Option<String>>,
    /// Its lifecycle rules.
    pub lifecycle: Fact<BucketLifecycle>,
}

/// The load balancer's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// `HOST:PORT`.
    pub endpoint: String,
    /// What its name resolves to.
    pub addresses: Fact<Vec<IpAddr>>,
    /// Whether it takes a connection.
    pub connects: Fact<()>,
}
