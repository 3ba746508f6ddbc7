//! The settings: configuration that was merged and found valid.
//!
//! Plain data and nothing else, so that the planner can import it and a recorded observation can carry it.
//! How settings come about is in `config::resolve`; their defaults and ranges are in `config::keys`.

use serde::{Deserialize, Serialize};

pub use super::flags::{ApiServerArgument, ControllerManagerArgument, SchedulerArgument};
pub use super::kubernetes::{
    AddonName, ApiEndpoint, ClusterDomain, ComponentEndpoint, ControlPlaneKind, EnvVar, ExtraVolume,
    ImageName, ImageRepository, IssuerUrl, PodSubnet, SchedulerDocument, ServiceSubnet, SubjectName, Subnet,
    TlsMinVersion,
};
pub(crate) use super::kubernetes::{node_range_length, pods_of_a_range};
pub use super::node::{NodeLabel, NodeNaming, NodeTaint, PodNetwork, TaintEffect};
pub use super::units::{ByteSize, TimeSpan};
pub use super::values::{
    BucketName, Chance, CloudWatchFigures, ClusterSize, ConsoleLines, DeviceName, EtcdLogLevel, Filesystem,
    GroupName, HookName, KmsKeyId, LeavingResult, Listen, LogLevel, MaintenancePolicy, Prefix, ProgramPath,
    RebalancePolicy, RecoveryPolicy, VolumeSource, VolumeType,
};
use crate::kubernetes::version::KubernetesVersion;
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
    /// Kubernetes.
    pub kubernetes: KubernetesSettings,
    /// Founding the cluster.
    pub founding: FoundingSettings,
    /// Backups of etcd.
    pub backups: BackupSettings,
    /// Who brings a cluster back of which no volume is left.
    pub recovery: RecoveryPolicy,
    /// The node's way into service.
    pub launch: LaunchSettings,
    /// The node's way out of service.
    pub leaving: LeavingSettings,
    /// The slow tick: how often the agent looks without an event.
    pub tick: TimeSpan,
    /// What the agent serves to monitors.
    pub monitoring: MonitoringSettings,
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
    /// How often the members' hashes are compared.
    pub hash_interval: TimeSpan,
    /// When a database is defragmented.
    pub defragment: DefragmentSettings,
    /// The slot's volume.
    pub volume: VolumeSettings,
}

/// When a database is defragmented that is far from its quota: when both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DefragmentSettings {
    /// At least so much of it is free.
    pub min_free: ByteSize,
    /// At least this share of it is free, in percent.
    pub min_share: u32,
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
    /// How long a slot may be without a machine in its zone before a standby of another zone takes it over.
    pub takeover: TimeSpan,
}

/// Kubernetes, as it is run on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesSettings {
    /// What a control-plane node runs beside etcd.
    pub control_plane: ControlPlaneKind,
    /// The version; that of the kubelet on the machine when none.
    pub version: Option<KubernetesVersion>,
    /// What stands before the programs' names in their images'.
    pub image_repository: ImageRepository,
    /// The kubelet's program.
    pub kubelet_binary: ProgramPath,
    /// kube-proxy's program.
    pub kube_proxy_binary: ProgramPath,
    /// The services' addresses.
    pub service_subnet: ServiceSubnet,
    /// The pods' addresses; given by the network's own add-on when none.
    pub pod_subnet: Option<PodSubnet>,
    /// Where pods' addresses come from.
    pub pod_network: PodNetwork,
    /// The DNS domain of services.
    pub cluster_domain: ClusterDomain,
    /// The shipped add-ons that are applied.
    pub addons: Vec<AddonName>,
    /// Where the API is reached from outside; found when none.
    pub endpoint: Option<ApiEndpoint>,
    /// Further names in the API servers' certificates.
    pub extra_names: Vec<SubjectName>,
    /// How the control plane's own programs reach the API.
    pub component_endpoint: ComponentEndpoint,
    /// Who issues service accounts' tokens; the cluster itself when none.
    pub service_account_issuer: Option<IssuerUrl>,
    /// How long a component may take to be ready with a changed manifest, before the one before is
    /// put back.
    pub ready_patience: TimeSpan,
    /// How controller-manager and scheduler elect a leader.
    pub leader_election: LeaderElectionSettings,
    /// The API server.
    pub api_server: ApiServerSettings,
    /// The controller-manager.
    pub controller_manager: ControllerManagerSettings,
    /// The scheduler.
    pub scheduler: SchedulerSettings,
    /// What a node is called.
    pub node_name: NodeNaming,
    /// What the operator marks the node with.
    pub node_labels: Vec<NodeLabel>,
    /// What the operator keeps pods off the node with.
    pub node_taints: Vec<NodeTaint>,
    /// The kubelet.
    pub kubelet: KubeletSettings,
}

/// The kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletSettings {
    /// The most pods; by the network when none.
    pub max_pods: Option<u32>,
}

/// How controller-manager and scheduler elect a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderElectionSettings {
    /// How long the others wait for a leader that is not heard; longer than the deadline.
    pub lease_duration: TimeSpan,
    /// How long a leader tries to renew its lease; longer than 1.2 retry periods.
    pub renew_deadline: TimeSpan,
    /// How long lies between two tries.
    pub retry_period: TimeSpan,
}

/// What the operator adds to a program of the control plane, whose flags are of type `A`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Additions<A> {
    /// Its image; by version and repository when none.
    pub image: Option<ImageName>,
    /// Flags.
    pub extra_args: Vec<A>,
    /// Environment.
    pub extra_env: Vec<EnvVar>,
    /// Directories of the machine that it sees.
    pub extra_volumes: Vec<ExtraVolume>,
}

/// The API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerSettings {
    /// How long it goes on serving when it ends.
    pub shutdown_delay: TimeSpan,
    /// The chance for each request that its connection is asked to start anew.
    pub goaway_chance: Chance,
    /// The oldest TLS that it speaks.
    pub tls_min_version: TlsMinVersion,
    /// What is kept of the audit log.
    pub audit_log: AuditLogSettings,
    /// What the operator adds.
    #[serde(flatten)]
    pub additions: Additions<ApiServerArgument>,
}

/// What is kept of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLogSettings {
    /// How long a closed file is kept, in days.
    pub max_age: u32,
    /// How many closed files are kept.
    pub max_backups: u32,
    /// The size at which a file is closed, in MiB.
    pub max_size: u32,
}

/// The controller-manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerManagerSettings {
    /// What the operator adds.
    #[serde(flatten)]
    pub additions: Additions<ControllerManagerArgument>,
}

/// The scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerSettings {
    /// The whole configuration; quorate's when none.
    pub config: Option<SchedulerDocument>,
    /// What the operator adds.
    #[serde(flatten)]
    pub additions: Additions<SchedulerArgument>,
}

/// Founding the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundingSettings {
    /// How long founders wait for all slots before a majority is enough.
    pub patience: TimeSpan,
}

/// Backups of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSettings {
    /// How often a snapshot is taken.
    pub snapshots: TimeSpan,
    /// How long a change waits at most before it is shipped.
    pub changes: TimeSpan,
    /// How often a restore is rehearsed.
    pub rehearsal: TimeSpan,
    /// How long every backup is kept.
    pub keep_all: TimeSpan,
    /// How long one backup of each hour is kept.
    pub keep_hourly: TimeSpan,
    /// How long one backup of each day is kept.
    pub keep_daily: TimeSpan,
}

/// The node's way into service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchSettings {
    /// The launch hook of the node's group; it is not looked after when none.
    pub hook: Option<HookName>,
    /// How long the hook is held for a node that is not ready.
    pub patience: TimeSpan,
}

/// The node's way out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeavingSettings {
    /// The termination hook of the node's group.
    pub hook: HookName,
    /// How long a node that is terminated is held.
    pub patience: TimeSpan,
    /// How long its pods may take to leave it.
    pub drain: TimeSpan,
    /// How long each evicted pod may take to end; as it says itself when none.
    pub pod_grace: Option<TimeSpan>,
    /// What the hook is told when something had to be skipped.
    pub result: LeavingResult,
    /// What follows from scheduled maintenance.
    pub maintenance: MaintenancePolicy,
    /// How long before it the node begins to leave.
    pub maintenance_lead: TimeSpan,
    /// What follows, on a worker, from a recommendation to replace its spot instance.
    pub rebalance: RebalancePolicy,
}

/// Where the agent serves metrics and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSettings {
    /// At which of the node's addresses.
    pub listen: Listen,
    /// At which port.
    pub port: u16,
    /// Whether the phase and the reason for waiting are written to the system console.
    #[serde(default)]
    pub console: ConsoleLines,
    /// Whether CloudWatch is told figures, of a control-plane machine.
    #[serde(default)]
    pub cloudwatch: CloudWatchFigures,
}

/// The agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSettings {
    /// The least severe level that is written.
    pub level: LogLevel,
}
