//! etcd's health beyond answering: how full its databases are, which alarms are raised, whether its
//! members hold the same, and what this machine noted about its own member.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fact::Fact;
use super::ids::MemberId;

/// What care is decided from: of the cluster, as seen in the look that made the
/// [`ClusterView`](super::ClusterView) beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdCare {
    /// The store's revision.
    pub revision: i64,
    /// Every member, by its own word.
    pub members: BTreeMap<MemberId, MemberCare>,
    /// The alarms that are raised.
    pub alarms: Fact<BTreeSet<Alarm>>,
    /// Whether anything older than `revision` can still be read, so that compacting would drop it.
    /// Asked only while an alarm is raised for want of space.
    pub history: Fact<bool>,
    /// The last comparisons of the members' hashes, as the leader's machine recorded them in etcd.
    pub compared: Option<Comparisons>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCare {
    /// Whether it knows a leader and answered a linearizable read (a learner: its status), whatever
    /// alarms are raised about it. A member that is being defragmented does not.
    pub serves: Fact<bool>,
    /// How full it is.
    pub storage: Fact<Storage>,
}

/// A member's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The file, in bytes. This is what etcd holds against the quota.
    pub size: u64,
    /// What of it is in use, in bytes: about the size that defragmentation would leave.
    pub in_use: u64,
    /// The quota, in bytes, where the member tells it: from 3.6.
    pub quota: Option<u64>,
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AlarmKind {
    /// A database has reached its quota: the cluster takes nothing that needs space.
    NoSpace,
    /// A member's data differ from the others': the cluster takes no writes.
    Corrupt,
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        })
    }
}

/// An alarm. It lasts until it is disarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// About whom; 0 when etcd can't tell which member is wrong.
    pub member: MemberId,
    /// About what.
    pub kind: AlarmKind,
}

/// The hashes of all members that gave one, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// At which revision.
    pub revision: i64,
    /// By member; one that did not answer is not here.
    pub hashes: BTreeMap<MemberId, StoreHash>,
}

/// A member's hash over its keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreHash {
    /// Up to which revision it was compacted: only hashes with the same can be compared.
    pub compacted: i64,
    /// The hash.
    pub hash: u32,
}

/// The last comparison and the one before it: one alone proves nothing, since a compaction that is
/// under way when a member is asked may change its hash for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparisons {
    /// The last.
    pub last: Comparison,
    /// The one before it, if it was made by the same rules.
    pub before: Option<Comparison>,
}

impl Comparisons {
    /// These, followed by another.
    #[must_use]
    pub fn followed_by(this: Option<Self>, next: Comparison) -> Self {
        Self { before: this.map(|this| this.last), last: next }
    }
}

/// Where a comparison is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ComparisonPlace {
    /// In etcd, for every machine.
    Etcd,
    /// On this machine: while an alarm for corruption is raised etcd takes nothing.
    Machine,
}

/// What this machine noted about its own member, and finds again after a restart of the agent. It is
/// bounded: one note of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CareNotes {
    /// That it was wedged, and what was done.
    #[serde(default)]
    pub wedge: Option<WedgeNote>,
    /// Comparisons that etcd did not take.
    #[serde(default)]
    pub compared: Option<Comparisons>,
}

/// A wedged member, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WedgeNote {
    /// The member.
    pub member: MemberId,
    /// When it was stopped to be started again, in milliseconds since 1970.
    pub restarted: i64,
    /// When the instance was given up to its group for it, in milliseconds since 1970.
    #[serde(default)]
    pub given_up: Option<i64>,
}

/// How long this machine's member has said nothing while its process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Since when, in milliseconds since 1970: the first look without an answer. One answer, or a
    /// process that does not run, ends it.
    pub since: i64,
    /// In how many looks.
    pub looks: u32,
}
