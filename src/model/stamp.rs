//! What a volume says of itself.
//!
//! The stamp is a small file at the root of the volume, and a short form of it is a tag on the
//! volume, so that a volume that was wiped can be told from one that was never used.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{ClusterName, ClusterUuid, Generation, MemberId, Slot, VolumeId};

/// The stamp, as the file `quorate.json` at the root of an etcd volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stamp {
    /// The cluster whose data this volume holds.
    pub cluster: ClusterName,
    /// The slot that the volume belongs to.
    pub slot: Slot,
    /// The volume itself: a copy made from a snapshot is told from the original by it.
    pub volume: VolumeId,
    /// How far it came.
    pub state: StampState,
}

/// How far a volume came in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is", deny_unknown_fields)]
pub enum StampState {
    /// Formatted for the cluster; no member of any generation ever ran on it, or what it held was
    /// set aside.
    Formatted,
    /// A founder may have started etcd on it as `new`.
    Starting {
        /// The cluster's UUID.
        uuid: ClusterUuid,
        /// The generation being founded.
        generation: Generation,
    },
    /// It was added to a running cluster, as a learner.
    Joining {
        /// The cluster's UUID.
        uuid: ClusterUuid,
        /// The generation joined.
        generation: Generation,
        /// The learner's id.
        member: MemberId,
    },
    /// Its member has been healthy.
    Member {
        /// The cluster's UUID.
        uuid: ClusterUuid,
        /// The generation.
        generation: Generation,
        /// The member's id.
        member: MemberId,
    },
}

impl StampState {
    /// The generation that the volume took part in, and the cluster's UUID.
    pub fn life(&self) -> Option<(&ClusterUuid, Generation)> {
        match self {
            Self::Formatted => None,
            Self::Starting { uuid, generation }
            | Self::Joining { uuid, generation, .. }
            | Self::Member { uuid, generation, .. } => Some((uuid, *generation)),
        }
    }
}

impl fmt::Display for StampState {
    /// The short form, the value of the volume's tag `quorate:stamp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formatted => f.write_str(FORMATTED),
            Self::Starting { generation, .. } => write!(f, "starting {generation}"),
            Self::Joining { generation, member, .. } => write!(f, "joining {generation} {member}"),
            Self::Member { generation, member, .. } => write!(f, "member {generation} {member}"),
        }
    }
}

/// The tag of a volume that was formatted and not yet used.
pub const FORMATTED: &str = "formatted";
