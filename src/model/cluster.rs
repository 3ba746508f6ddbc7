//! etcd: the program on this machine, its member, and the cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::charter::Charter;
use super::fact::Fact;
use super::ids::{ClusterUuid, Generation, InstanceId, MemberId, ParseIdError, Slot, VolumeId};
use super::kubernetes::ControlPlaneRecords;

/// A version of etcd. Only what chooses flags is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EtcdVersion {
    /// 3.
    pub major: u32,
    /// 5 or 6.
    pub minor: u32,
    /// The patch level.
    pub patch: u32,
}

impl EtcdVersion {
    /// The oldest that can be run: learners, corruption checks and the flags used.
    pub const OLDEST: Self = Self { major: 3, minor: 5, patch: 0 };
    /// The first that is not known to work.
    pub const TOO_NEW: Self = Self { major: 4, minor: 0, patch: 0 };
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for EtcdVersion {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError { found: text.to_owned(), expected: "a version (as 3.5.16)" };
        let core = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = core.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(wrong()),
        }
    }
}

/// What the service manager says of etcd on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceState {
    /// Not running, and not asked to.
    Stopped,
    /// Its process runs.
    Running,
    /// It ended by itself; the text says how.
    Failed(String),
}

/// Whether etcd forms a cluster or finds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LaunchState {
    /// `initial-cluster-state: new`.
    New,
    /// `initial-cluster-state: existing`.
    Existing,
}

/// What decides which cluster an etcd process takes part in, and as whom. Everything else in its
/// configuration is tuning.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdLaunch {
    /// The slot: the member is named after it.
    pub slot: Slot,
    /// The cluster, and with the generation the token that keeps generations apart.
    pub uuid: ClusterUuid,
    /// The generation.
    pub generation: Generation,
    /// This machine's address.
    pub address: Ipv4Addr,
    /// Form or join.
    pub state: LaunchState,
    /// Name and peer URL of each initial member.
    pub initial_cluster: Vec<(String, String)>,
}

/// A member, as etcd lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name: empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it answered that it is healthy; unknown when it did not answer.
    pub healthy: Fact<bool>,
}

impl Member {
    /// Whether it has ever run.
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// Who a slot's member is, kept in etcd beside the member ids, so that a member is matched to
/// EC2's truth by id and never by an address that can be used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlotRecord {
    /// The slot's volume.
    pub volume: VolumeId,
    /// The instance that holds it.
    pub instance: InstanceId,
    /// Where the member is, or will be, reached by its peers.
    pub peer_url: String,
    /// The member; `None` from before it is added until it is recorded.
    pub member: Option<MemberId>,
}

/// The etcd cluster, as a linearizable read showed it: so it had a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// The charter's copy in etcd: says which cluster and generation this is.
    pub charter: Option<Charter>,
    /// The members, by id.
    pub members: BTreeMap<MemberId, Member>,
    /// The leader, if the member that answered knows one.
    pub leader: Option<MemberId>,
    /// Who holds which slot.
    pub records: BTreeMap<Slot, SlotRecord>,
    /// The instance that holds the lock on changes of membership.
    pub lock: Option<InstanceId>,
    /// What is kept of Kubernetes' control plane.
    pub control_plane: ControlPlaneRecords,
}

/// This machine's own member, as its own endpoint tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnMember {
    /// Its id.
    pub member: MemberId,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it has applied nine tenths of what the leader has: etcd's own bound for promotion.
    pub in_sync: bool,
}
