//! The settings: configuration that was merged and found valid.
//!
//! Plain data and nothing else, so that the planner can import it and a recorded observation can carry it.
//! How settings come about is in `config::resolve`; their defaults and ranges are in `config::keys`.

use serde::{Deserialize, Serialize};

pub use super::units::{ByteSize, TimeSpan};
pub use super::values::{
    BucketName, ClusterSize, DeviceName, EtcdLogLevel, Filesystem, GroupName, KmsKeyId, LogLevel, Prefix,
    ProgramPath, VolumeSource, VolumeType,
};
use crate::model::ids::{ClusterName, Region, Role, Zone};

/// What the operator wants of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The cluster the node belongs to.
    pub cluster: ClusterName,
    /// The bucket that holds the cluster's records.
    pub bucket: BucketName,
    /// What stands before `CLUSTER/` in the bucket; may be empty.
    pub prefix: Prefix,
    /// What the node is for.
    pub role: Role,
    /// The region the node is expected in; another one is refused.
    pub region: Option<Region>,
    /// The key that encrypts objects in the bucket.
    pub kms_key_id: Option<KmsKeyId>,
    /// The groups of the cluster; found by their tags when empty.
    pub groups: Vec<GroupName>,
    /// etcd.
    pub etcd: EtcdSettings,
    /// Founding the cluster.
    pub founding: FoundingSettings,
    /// The slow tick: how often the agent looks without an event.
    pub tick: TimeSpan,
    /// The agent's log.
    pub log: LogSettings,
}

/// etcd, as it is run on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdSettings {
    /// How many slots there are.
    pub size: ClusterSize,
    /// The zones that have slots; any zone when empty.
    pub zones: Vec<Zone>,
    /// The program.
    pub binary: ProgramPath,
    /// How often the leader is heard.
    pub heartbeat_interval: TimeSpan,
    /// How long a follower waits for the leader; at least five heartbeats.
    pub election_timeout: TimeSpan,
    /// The largest database before etcd refuses writes.
    pub quota: ByteSize,
    /// What history is dropped.
    pub auto_compaction: AutoCompaction,
    /// How many transactions lie between two of etcd's snapshots on disk.
    pub snapshot_count: u32,
    /// How much etcd says.
    pub log_level: EtcdLogLevel,
    /// The slot's volume.
    pub volume: VolumeSettings,
}

/// How much history etcd keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "camelCase")]
pub enum AutoCompaction {
    /// That of the last span of time.
    Periodic {
        /// The span.
        retention: TimeSpan,
    },
    /// That of the last so many revisions.
    Revision {
        /// The number of revisions.
        retention: u64,
    },
}

/// The volume of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSettings {
    /// Where it comes from.
    pub source: VolumeSource,
    /// The device name asked for at attach, or the device looked for when the source is `device`.
    pub device: DeviceName,
    /// The file system made on it when it is blank.
    pub filesystem: Filesystem,
    /// The size of a created volume, in whole gibibytes.
    pub size: ByteSize,
    /// The type of a created volume.
    #[serde(rename = "type")]
    pub volume_type: VolumeType,
    /// The provisioned iops of a created volume; the type's own when none.
    pub iops: Option<u32>,
    /// The provisioned throughput of a created volume in MiB/s; the type's own when none.
    pub throughput: Option<u32>,
    /// The key that encrypts a created volume; the account's default when none.
    pub kms_key_id: Option<KmsKeyId>,
    /// How long the device of an attached volume may take to appear.
    pub wait: TimeSpan,
}

/// Founding the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundingSettings {
    /// How long founders wait for all slots before a majority is enough.
    pub patience: TimeSpan,
}

/// The agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSettings {
    /// The least severe level that is written.
    pub level: LogLevel,
}
