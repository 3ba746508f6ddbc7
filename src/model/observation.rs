//! The one value that the planner decides from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::backup::{BackupProgress, ChosenBackup};
use super::care::{CareNotes, EtcdCare, Silence};
use super::charter::Charter;
use super::cluster::{ClusterView, EtcdLaunch, EtcdVersion, OwnMember, ServiceState};
use super::departure::DepartureObservation;
use super::disk::Disk;
use super::fact::Fact;
use super::ids::{ETag, InstanceId, Nonce, VolumeId, Zone};
use super::kubernetes::KubernetesObservation;
use super::machine::{Identity, Instance, Volume};
use super::mismatch::Noticed;
use super::plan::Waiting;

/// A value read from S3 and the version that it had.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its version, the condition of the next write.
    pub etag: ETag,
}

/// The etcd authority, without its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The end of its validity, in milliseconds since 1970.
    pub not_after: i64,
}

/// The leaf certificates on this machine: the oldest and narrowest of them, as far as they agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaves {
    /// The fingerprint of the authority that signed them all.
    pub authority: String,
    /// The address that they all name.
    pub address: Ipv4Addr,
    /// The latest beginning of validity among them, in milliseconds since 1970.
    pub not_before: i64,
    /// The earliest end of validity among them, in milliseconds since 1970.
    pub not_after: i64,
}

/// What etcd on and around this machine is seen to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdObservation {
    /// The version of the program on this machine.
    pub version: Fact<EtcdVersion>,
    /// What the service manager says.
    pub service: Fact<ServiceState>,
    /// What it was last configured for; `None` when it never was.
    pub launch: Fact<Option<EtcdLaunch>>,
    /// This machine's own member; unknown unless it answers.
    pub own: Fact<OwnMember>,
    /// The cluster; unknown unless a quorum answered.
    pub cluster: Fact<ClusterView>,
    /// How the members are kept; known whenever the cluster is.
    pub care: Fact<EtcdCare>,
    /// What this machine noted about its own member.
    pub notes: Fact<CareNotes>,
    /// How long this machine's member has said nothing; `None` while it answers or does not run.
    pub silence: Option<Silence>,
}

/// All that the agent knows at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The moment, in milliseconds since 1970.
    pub at: i64,
    /// A fresh random UUID: names what has to be named anew (a cluster, a write).
    pub entropy: Nonce,
    /// Who this machine is.
    pub identity: Fact<Identity>,
    /// Whether the clock is synchronised.
    pub clock_synchronised: Fact<bool>,
    /// Control-plane instances of this cluster, this machine among them, and every instance that
    /// the charter, a slot's record or the last-known members name. One that is not here is not known about.
    pub instances: Fact<BTreeMap<InstanceId, Instance>>,
    /// Volumes of this cluster, volumes attached here, and every volume that the charter, a slot's record or the
    /// last-known members name. One that is not here is not known about.
    pub volumes: Fact<BTreeMap<VolumeId, Volume>>,
    /// The zones of the control plane's Auto Scaling groups, in order.
    pub zones: Fact<Vec<Zone>>,
    /// The charter in S3.
    pub charter: Fact<Option<Versioned<Charter>>>,
    /// Whether any backup of this cluster is in S3.
    pub backups: Fact<bool>,
    /// What this machine does for the backups, as its keeper tells; `None` where it never does anything for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeping: Option<BackupProgress>,
    /// What this machine found when it read the backups through; `None` when it has not.
    pub chosen: Fact<Option<ChosenBackup>>,
    /// The etcd authority in S3.
    pub authority: Fact<Option<Authority>>,
    /// The leaf certificates on this machine; `Known(None)` when one is missing, or they can't be used.
    pub leaves: Fact<Option<Leaves>>,
    /// The volume attached here, as the machine sees it; `Known(None)` when none is.
    pub disk: Fact<Option<Disk>>,
    /// etcd.
    pub etcd: EtcdObservation,
    /// Kubernetes.
    pub kubernetes: KubernetesObservation,
    /// The last-known members in S3: known where this machine leads, and where no quorum answers.
    pub published: Fact<Option<PublishedMembers>>,
    /// The machine's way into its group and out of it.
    pub departure: DepartureObservation,
    /// What was waited for when the world was last looked at, and since when.
    pub waiting: Vec<Waiting>,
    /// What did not match when the world was last looked at, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Noticed>,
}

/// The last-known members, as `members.json` in S3: for people and for disaster recovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedMembers {
    /// The generation.
    pub generation: super::ids::Generation,
    /// Who holds which slot.
    pub slots: BTreeMap<super::ids::Slot, super::cluster::SlotRecord>,
}
