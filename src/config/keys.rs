//! The keys of the configuration: the one place where defaults, ranges and units stand.
//!
//! Reading fragments, merging, `config show`, the JSON Schema and the page for operators are all made from, or
//! held by a test to, this table. It knows one key at a time: rules that tie two keys together are in
//! `config::resolve`.

pub(super) use super::kinds::{Kind, TextRule};

use super::flags::{self, ApiServerArgument, ControllerManagerArgument, SchedulerArgument};
use super::kinds::{duration, text};
use super::kubernetes::{
    self, AddonName, ApiEndpoint, ClusterDomain, ComponentEndpoint, ControlPlaneKind, EnvVar, ExtraVolume,
    ImageName, ImageRepository, IssuerUrl, PodSubnet, SchedulerDocument, ServiceSubnet, SubjectName,
    TlsMinVersion,
};
use super::node::{self, NodeLabel, NodeNaming, NodeTaint, PodNetwork};
use super::units::{ByteSize, TimeSpan};
use super::values::{
    BucketName, Chance, CloudWatchFigures, ClusterSize, CompactionMode, ConsoleLines, DeviceName,
    EtcdLogLevel, Filesystem, GroupName, HookName, KmsKeyId, LeavingResult, Listen, LogLevel,
    MaintenancePolicy, Prefix, ProgramPath, RebalancePolicy, RecoveryPolicy, VolumeSource, VolumeType,
};
use crate::kubernetes::version::KubernetesVersion;
use crate::model::ids::{ClusterName, Region, Zone};

/// One key that a fragment may set.
#[derive(Debug)]
pub(super) struct Key {
    /// The key with its sections, joined by dots.
    pub path: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it is when no source sets it.
    pub default: Default,
    /// What it is for: one sentence for operators.
    pub doc: &'static str,
}

/// What a key is when no source sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// There is none: some source has to set it.
    Required,
    /// It is left out; the text says what that means.
    Unset(&'static str),
    /// This value.
    Value(&'static str),
}

const MS: u64 = 1;
const S: u64 = 1_000;
const M: u64 = 60 * S;
const H: u64 = 60 * M;

/// The range of `etcd.autoCompaction.retention` when it is a duration.
pub(super) const RETENTION_SPAN: (TimeSpan, TimeSpan) =
    (TimeSpan::from_millis(M), TimeSpan::from_millis(8760 * H));
/// The range of `etcd.autoCompaction.retention` when it is a number of revisions.
pub(super) const RETENTION_REVISIONS: (u64, u64) = (100, 1_000_000_000);
/// An election time-out is at least so many heartbeats: etcd itself refuses less.
pub(super) const HEARTBEATS_PER_ELECTION: u64 = 5;

/// A leader's deadline is longer than so many tenths of a retry period: client-go's `JitterFactor`.
pub(super) const RETRY_JITTER_TENTHS: u64 = 12;

const KMS_PATTERN: &str = "^(alias/[A-Za-z0-9/_-]+|(mrk-)?[0-9A-Fa-f-]{32,36}|\
                           arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+)$";

const DOMAIN_PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
const SUBNET_PATTERN: &str = "^[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}$";
const REPOSITORY_PATTERN: &str = "^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*$";
const IMAGE_PATTERN: &str =
    "^[A-Za-z0-9][A-Za-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$";
const HOOK_PATTERN: &str = "^[A-Za-z0-9_/-]{1,255}$";
const ARGUMENT_PATTERN: &str = "^--[a-z][a-z0-9-]*=[ -~]*$";
const ENV_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]*=[ -~]*$";
const LABEL_PATTERN: &str = "^([a-z0-9.-]+/)?[A-Za-z0-9][A-Za-z0-9._-]{0,62}=[A-Za-z0-9._-]{0,63}$";
const TAINT_PATTERN: &str = "^([a-z0-9.-]+/)?[A-Za-z0-9][A-Za-z0-9._-]{0,62}(=[A-Za-z0-9._-]{0,63})?:\
                             (NoSchedule|PreferNoSchedule|NoExecute)$";
const VOLUME_PATTERN: &str = "^(/[!-9;-~]+)+:(/[!-9;-~]+)+(:rw)?$";
/// What an operator's configuration of the scheduler begins with.
pub(super) const SCHEDULER_EXAMPLE: &str =
    "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration}";

/// All keys, in the order in which they are shown: those of one part lie together.
pub(super) static KEYS: &[Key] = &[
    Key {
        path: "cluster",
        kind: Kind::Text(text::<ClusterName>("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "demo")),
        default: Default::Required,
        doc: "Name of the cluster; the instance tag `quorate:cluster` overrides it.",
    },
    Key {
        path: "bucket",
        kind: Kind::Text(text::<BucketName>("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "demo-quorate")),
        default: Default::Required,
        doc: "S3 bucket that holds the cluster's records and backups.",
    },
    Key {
        path: "prefix",
        kind: Kind::Text(text::<Prefix>("^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$", "team-a/clusters")),
        default: Default::Value(""),
        doc: "What stands before `CLUSTER/` in the bucket's keys.",
    },
    Key {
        path: "role",
        kind: Kind::Choice(&["control-plane", "worker"]),
        default: Default::Required,
        doc: "What the node is for; normally given by the instance tag `quorate:role`, which overrides it.",
    },
    Key {
        path: "region",
        kind: Kind::Text(text::<Region>("^[a-z][a-z0-9-]*-[a-z0-9-]*[0-9]$", "eu-west-1")),
        default: Default::Unset("any region"),
        doc: "Region the node is expected in; a node elsewhere refuses to start.",
    },
    Key {
        path: "kmsKeyId",
        kind: Kind::Text(text::<KmsKeyId>(KMS_PATTERN, "alias/quorate")),
        default: Default::Unset("the bucket's own encryption"),
        doc: "KMS key that encrypts what is written to the bucket.",
    },
    Key {
        path: "groups",
        kind: Kind::List(text::<GroupName>("^[!-9;-~]{1,255}$", "demo-control-plane")),
        default: Default::Unset("found by the tag `quorate:cluster`"),
        doc: "Auto Scaling groups of the cluster.",
    },
    Key {
        path: "etcd.size",
        kind: Kind::Count(ClusterSize::CHOICES),
        default: Default::Value("3"),
        doc: "Number of slots for etcd members.",
    },
    Key {
        path: "etcd.zones",
        kind: Kind::List(text::<Zone>("^[a-z][a-z0-9-]*-[a-z0-9-]*[a-z]$", "eu-west-1a")),
        default: Default::Unset("the zones of the groups"),
        doc: "Availability zones that have slots.",
    },
    Key {
        path: "etcd.binary",
        kind: Kind::Text(text::<ProgramPath>("^(/[!-.0-~]+)+$", "/usr/bin/etcd")),
        default: Default::Value("/usr/bin/etcd"),
        doc: "Path of the etcd program.",
    },
    Key {
        path: "etcd.heartbeatInterval",
        kind: duration(10 * MS, 5 * S),
        default: Default::Value("100ms"),
        doc: "How often the leader is heard; about the round trip between zones.",
    },
    Key {
        path: "etcd.electionTimeout",
        kind: duration(50 * MS, 50 * S),
        default: Default::Value("1s"),
        doc: "How long a follower waits for the leader; at least five heartbeat intervals.",
    },
    Key {
        path: "etcd.quota",
        kind: Kind::Size {
            min: ByteSize::from_mib(64),
            max: ByteSize::from_gib(16),
            step: ByteSize::from_bytes(1),
        },
        default: Default::Value("8GiB"),
        doc: "Size of the database at which etcd refuses writes; smaller than the volume.",
    },
    Key {
        path: "etcd.autoCompaction.mode",
        kind: Kind::Choice(CompactionMode::CHOICES),
        default: Default::Value("periodic"),
        doc: "What `retention` counts: time, or revisions.",
    },
    Key {
        path: "etcd.autoCompaction.retention",
        kind: Kind::Retention,
        default: Default::Value("1h"),
        doc: "History that is kept: a duration when `mode` is `periodic`, a number of revisions when it is \
              `revision`.",
    },
    Key {
        path: "etcd.snapshotCount",
        kind: Kind::Integer { min: 100, max: 1_000_000, unit: "transactions" },
        default: Default::Value("10000"),
        doc: "Transactions between two of etcd's snapshots on disk.",
    },
    Key {
        path: "etcd.logLevel",
        kind: Kind::Choice(EtcdLogLevel::CHOICES),
        default: Default::Value("info"),
        doc: "Least severe level that etcd logs.",
    },
    Key {
        path: "etcd.hashInterval",
        kind: duration(M, 168 * H),
        default: Default::Value("1h"),
        doc: "How often the leader's machine compares the members' hashes; each member reads its whole database \
              for it.",
    },
    Key {
        path: "etcd.defragment.minFree",
        kind: Kind::Size {
            min: ByteSize::from_mib(1),
            max: ByteSize::from_gib(16),
            step: ByteSize::from_bytes(1),
        },
        default: Default::Value("100MiB"),
        doc: "Free space in a database below which it is not defragmented, unless the quota is near.",
    },
    Key {
        path: "etcd.defragment.minShare",
        kind: Kind::Integer { min: 10, max: 90, unit: "percent" },
        default: Default::Value("50"),
        doc: "Share of a database that is free below which it is not defragmented, unless the quota is near.",
    },
    Key {
        path: "etcd.volume.source",
        kind: Kind::Choice(VolumeSource::CHOICES),
        default: Default::Value("tagged"),
        doc: "Where the slot's volume comes from: a free one found by tag, a created one, or a device the launch \
              template attached.",
    },
    Key {
        path: "etcd.volume.device",
        kind: Kind::Text(text::<DeviceName>("^/dev(/[A-Za-z0-9_.:+-]+)+$", "/dev/xvdf")),
        default: Default::Value("/dev/xvdf"),
        doc: "Device name asked for at attach; with source `device`, the device looked for.",
    },
    Key {
        path: "etcd.volume.filesystem",
        kind: Kind::Choice(Filesystem::CHOICES),
        default: Default::Value("ext4"),
        doc: "File system made on a blank volume.",
    },
    Key {
        path: "etcd.volume.size",
        kind: Kind::Size {
            min: ByteSize::from_gib(1),
            max: ByteSize::from_gib(16 << 10),
            step: ByteSize::from_gib(1),
        },
        default: Default::Value("20GiB"),
        doc: "Size of a created volume.",
    },
    Key {
        path: "etcd.volume.type",
        kind: Kind::Choice(VolumeType::CHOICES),
        default: Default::Value("gp3"),
        doc: "EBS type of a created volume.",
    },
    Key {
        path: "etcd.volume.iops",
        kind: Kind::Integer { min: 100, max: 256_000, unit: "iops" },
        default: Default::Unset("the type's own"),
        doc: "Provisioned iops of a created volume; needed by `io1` and `io2`, refused by `gp2`.",
    },
    Key {
        path: "etcd.volume.throughput",
        kind: Kind::Integer { min: 125, max: 2_000, unit: "MiB/s" },
        default: Default::Unset("the type's own"),
        doc: "Provisioned throughput of a created volume; `gp3` only.",
    },
    Key {
        path: "etcd.volume.kmsKeyId",
        kind: Kind::Text(text::<KmsKeyId>(KMS_PATTERN, "alias/quorate")),
        default: Default::Unset("the account's EBS key"),
        doc: "KMS key that encrypts a created volume.",
    },
    Key {
        path: "etcd.volume.wait",
        kind: duration(S, H),
        default: Default::Value("5m"),
        doc: "How long the device of an attached volume may take to appear.",
    },
    Key {
        path: "etcd.volume.takeover",
        kind: duration(S, 720 * H),
        default: Default::Value("15m"),
        doc: "How long a slot whose machine is gone may be without another in its zone; then a standby of another zone \
              takes it over on a created volume.",
    },
    Key {
        path: "kubernetes.controlPlane",
        kind: Kind::Choice(ControlPlaneKind::CHOICES),
        default: Default::Value("static-pods"),
        doc: "What a control-plane node runs beside etcd: Kubernetes' control plane, or nothing.",
    },
    Key {
        path: "kubernetes.version",
        kind: Kind::Text(text::<KubernetesVersion>(
            "^v?1\\.3[4-7]\\.[0-9]+([-+][0-9A-Za-z.+-]+)?$",
            "v1.36.2",
        )),
        default: Default::Unset("that of the kubelet on the machine"),
        doc: "Version of Kubernetes whose images run.",
    },
    Key {
        path: "kubernetes.imageRepository",
        kind: Kind::Text(text::<ImageRepository>(REPOSITORY_PATTERN, "registry.k8s.io")),
        default: Default::Value("registry.k8s.io"),
        doc: "What stands before the programs' names in their images'.",
    },
    Key {
        path: "kubernetes.kubelet.binary",
        kind: Kind::Text(text::<ProgramPath>("^(/[!-.0-~]+)+$", "/usr/bin/kubelet")),
        default: Default::Value("/usr/bin/kubelet"),
        doc: "Path of the kubelet's program.",
    },
    Key {
        path: "kubernetes.kubelet.maxPods",
        kind: Kind::Integer { min: 1, max: 1_000, unit: "pods" },
        default: Default::Unset("110, or what the network has addresses for"),
        doc: "Most pods on the node; memory reserved for Kubernetes grows with it.",
    },
    Key {
        path: "kubernetes.kubeProxy.binary",
        kind: Kind::Text(text::<ProgramPath>("^(/[!-.0-~]+)+$", "/usr/bin/kube-proxy")),
        default: Default::Value("/usr/bin/kube-proxy"),
        doc: "Path of kube-proxy's program.",
    },
    Key {
        path: "kubernetes.serviceSubnet",
        kind: Kind::Text(text::<ServiceSubnet>(SUBNET_PATTERN, "10.96.0.0/12")),
        default: Default::Value("10.96.0.0/12"),
        doc: "Addresses of services; can't change once the cluster is founded.",
    },
    Key {
        path: "kubernetes.podSubnet",
        kind: Kind::Text(text::<PodSubnet>(SUBNET_PATTERN, "10.244.0.0/16")),
        default: Default::Unset("pods get their addresses from the network's own add-on"),
        doc: "Addresses of pods, of which each node is given a part.",
    },
    Key {
        path: "kubernetes.podNetwork",
        kind: Kind::Choice(PodNetwork::CHOICES),
        default: Default::Value("other"),
        doc: "Where pods' addresses come from: ranges of `kubernetes.podSubnet` that are routed to nodes, the VPC by \
              Amazon's VPC CNI, or another add-on's own; decides how many pods a node takes.",
    },
    Key {
        path: "kubernetes.clusterDomain",
        kind: Kind::Text(text::<ClusterDomain>(DOMAIN_PATTERN, "cluster.local")),
        default: Default::Value("cluster.local"),
        doc: "DNS domain of services.",
    },
    Key {
        path: "kubernetes.addons",
        kind: Kind::List(text::<AddonName>("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "coredns")),
        default: Default::Unset("none"),
        doc: "Add-ons of those in `/usr/lib/quorate/addons` that are applied; those in `/etc/quorate/addons` always \
              are.",
    },
    Key {
        path: "kubernetes.endpoint",
        kind: Kind::Text(text::<ApiEndpoint>("^[a-z0-9.-]+(:[0-9]{1,5})?$", "api.example.com:6443")),
        default: Default::Unset("the load balancer that is found"),
        doc: "Where the API is reached from outside; port 6443 unless given.",
    },
    Key {
        path: "kubernetes.extraNames",
        kind: Kind::List(text::<SubjectName>("^(\\*\\.)?[0-9a-zA-Z.:-]+$", "k8s.example.com")),
        default: Default::Unset("none"),
        doc: "Further names and addresses in the API servers' certificates.",
    },
    Key {
        path: "kubernetes.componentEndpoint",
        kind: Kind::Choice(ComponentEndpoint::CHOICES),
        default: Default::Value("local"),
        doc: "How controller-manager and scheduler reach the API: by the API server on their own machine, or by \
              the load balancer.",
    },
    Key {
        path: "kubernetes.serviceAccountIssuer",
        kind: Kind::Text(text::<IssuerUrl>("^https://[!-~]+$", "https://oidc.example.com/demo")),
        default: Default::Unset("`https://kubernetes.default.svc.` and the cluster's domain"),
        doc: "Issuer of service accounts' tokens; a change ends all tokens.",
    },
    Key {
        path: "kubernetes.readyPatience",
        // The lock on changes of the control plane is held for ten minutes, and for all of this time.
        kind: duration(10 * S, 8 * M),
        default: Default::Value("6m"),
        doc: "How long a component of the control plane may take to be ready with a changed manifest; then the one \
              before is put back. Its startup probe gives it 250 s.",
    },
    Key {
        path: "kubernetes.leaderElection.leaseDuration",
        kind: duration(S, 10 * M),
        default: Default::Value("15s"),
        doc: "How long controller-manager and scheduler wait for a leader that is not heard.",
    },
    Key {
        path: "kubernetes.leaderElection.renewDeadline",
        kind: duration(S, 10 * M),
        default: Default::Value("10s"),
        doc: "How long a leader tries to renew its lease before it gives up.",
    },
    Key {
        path: "kubernetes.leaderElection.retryPeriod",
        kind: duration(100 * MS, M),
        default: Default::Value("2s"),
        doc: "How long lies between two tries at the lease.",
    },
    Key {
        path: "kubernetes.apiServer.shutdownDelay",
        kind: duration(0, 10 * M),
        default: Default::Value("30s"),
        doc: "How long an API server that ends goes on serving: until the load balancer sends no more; the target \
              group's health checks have to fail within.",
    },
    Key {
        path: "kubernetes.apiServer.goawayChance",
        kind: Kind::Fraction { min: Chance::from_millionths(0), max: Chance::from_millionths(20_000) },
        default: Default::Value("0.001"),
        doc: "Chance for each request that its connection is asked to start anew, so that clients spread.",
    },
    Key {
        path: "kubernetes.apiServer.tlsMinVersion",
        kind: Kind::Choice(TlsMinVersion::CHOICES),
        default: Default::Value("VersionTLS12"),
        doc: "Oldest TLS that the API server speaks; with `VersionTLS13` no HTTPS health check of a load balancer \
              passes.",
    },
    Key {
        path: "kubernetes.apiServer.auditLog.maxAge",
        kind: Kind::Integer { min: 1, max: 3_650, unit: "days" },
        default: Default::Value("30"),
        doc: "How long a closed file of the audit log is kept.",
    },
    Key {
        path: "kubernetes.apiServer.auditLog.maxBackups",
        kind: Kind::Integer { min: 1, max: 1_000, unit: "files" },
        default: Default::Value("10"),
        doc: "How many closed files of the audit log are kept.",
    },
    Key {
        path: "kubernetes.apiServer.auditLog.maxSize",
        kind: Kind::Integer { min: 1, max: 10_000, unit: "MiB" },
        default: Default::Value("100"),
        doc: "Size at which a file of the audit log is closed.",
    },
    Key {
        path: "kubernetes.apiServer.image",
        kind: Kind::Text(text::<ImageName>(IMAGE_PATTERN, "registry.example.com/kube-apiserver:v1.36.2")),
        default: Default::Unset("that of `kubernetes.version` in `kubernetes.imageRepository`"),
        doc: "Image of the API server.",
    },
    Key {
        path: "kubernetes.apiServer.extraArgs",
        kind: Kind::List(text::<ApiServerArgument>(ARGUMENT_PATTERN, "--event-ttl=2h").by(flags::identity)),
        default: Default::Unset("none"),
        doc: "Flags of the API server beside those that quorate sets.",
    },
    Key {
        path: "kubernetes.apiServer.extraEnv",
        kind: Kind::List(
            text::<EnvVar>(ENV_PATTERN, "HTTPS_PROXY=http://proxy:3128").by(kubernetes::env_name),
        ),
        default: Default::Unset("none"),
        doc: "Environment of the API server.",
    },
    Key {
        path: "kubernetes.apiServer.extraVolumes",
        kind: Kind::List(
            text::<ExtraVolume>(VOLUME_PATTERN, "/etc/ssl/certs:/etc/ssl/certs").by(kubernetes::mount),
        ),
        default: Default::Unset("none"),
        doc: "Directories of the machine that the API server sees: read-only, unless `:rw` follows.",
    },
    Key {
        path: "kubernetes.controllerManager.image",
        kind: Kind::Text(text::<ImageName>(
            IMAGE_PATTERN,
            "registry.example.com/kube-controller-manager:v1.36.2",
        )),
        default: Default::Unset("that of `kubernetes.version` in `kubernetes.imageRepository`"),
        doc: "Image of the controller-manager.",
    },
    Key {
        path: "kubernetes.controllerManager.extraArgs",
        kind: Kind::List(
            text::<ControllerManagerArgument>(ARGUMENT_PATTERN, "--node-cidr-mask-size=25")
                .by(flags::identity),
        ),
        default: Default::Unset("none"),
        doc: "Flags of the controller-manager beside those that quorate sets.",
    },
    Key {
        path: "kubernetes.controllerManager.extraEnv",
        kind: Kind::List(
            text::<EnvVar>(ENV_PATTERN, "HTTPS_PROXY=http://proxy:3128").by(kubernetes::env_name),
        ),
        default: Default::Unset("none"),
        doc: "Environment of the controller-manager.",
    },
    Key {
        path: "kubernetes.controllerManager.extraVolumes",
        kind: Kind::List(
            text::<ExtraVolume>(VOLUME_PATTERN, "/etc/ssl/certs:/etc/ssl/certs").by(kubernetes::mount),
        ),
        default: Default::Unset("none"),
        doc: "Directories of the machine that the controller-manager sees: read-only, unless `:rw` follows.",
    },
    Key {
        path: "kubernetes.scheduler.image",
        kind: Kind::Text(text::<ImageName>(IMAGE_PATTERN, "registry.example.com/kube-scheduler:v1.36.2")),
        default: Default::Unset("that of `kubernetes.version` in `kubernetes.imageRepository`"),
        doc: "Image of the scheduler.",
    },
    Key {
        path: "kubernetes.scheduler.extraArgs",
        kind: Kind::List(text::<SchedulerArgument>(ARGUMENT_PATTERN, "--v=2").by(flags::identity)),
        default: Default::Unset("none"),
        doc: "Flags of the scheduler beside those that quorate sets.",
    },
    Key {
        path: "kubernetes.scheduler.extraEnv",
        kind: Kind::List(
            text::<EnvVar>(ENV_PATTERN, "HTTPS_PROXY=http://proxy:3128").by(kubernetes::env_name),
        ),
        default: Default::Unset("none"),
        doc: "Environment of the scheduler.",
    },
    Key {
        path: "kubernetes.scheduler.extraVolumes",
        kind: Kind::List(
            text::<ExtraVolume>(VOLUME_PATTERN, "/etc/ssl/certs:/etc/ssl/certs").by(kubernetes::mount),
        ),
        default: Default::Unset("none"),
        doc: "Directories of the machine that the scheduler sees: read-only, unless `:rw` follows.",
    },
    Key {
        path: "kubernetes.scheduler.config",
        kind: Kind::Document(text::<SchedulerDocument>("", SCHEDULER_EXAMPLE)),
        default: Default::Unset("pods of one kind are spread over zones and nodes"),
        doc: "Whole configuration of the scheduler, in place of quorate's.",
    },
    Key {
        path: "kubernetes.nodeName",
        kind: Kind::Choice(NodeNaming::CHOICES),
        default: Default::Value("instance-id"),
        doc: "What a node is called; a change makes another node of it.",
    },
    Key {
        path: "kubernetes.nodeLabels",
        kind: Kind::List(text::<NodeLabel>(LABEL_PATTERN, "example.com/team=a").by(node::key)),
        default: Default::Unset("none"),
        doc: "Labels that the node registers with, beside zone, region, instance type, capacity type and role.",
    },
    Key {
        path: "kubernetes.nodeTaints",
        kind: Kind::List(text::<NodeTaint>(TAINT_PATTERN, "example.com/pool=batch:NoSchedule").by(node::key)),
        default: Default::Unset("none"),
        doc: "Taints that the node registers with, beside the control plane's own.",
    },
    Key {
        path: "founding.patience",
        kind: duration(S, 24 * H),
        default: Default::Value("5m"),
        doc: "How long founders wait for all slots before a majority is enough.",
    },
    Key {
        path: "backups.snapshots",
        kind: duration(10 * S, 24 * H),
        default: Default::Value("15m"),
        doc: "How often a snapshot of etcd goes to the bucket.",
    },
    Key {
        path: "backups.changes",
        kind: duration(S, M),
        default: Default::Value("5s"),
        doc: "How long a change waits at most before it goes to the bucket: what the loss of all volumes costs.",
    },
    Key {
        path: "backups.rehearsal",
        kind: duration(M, 8760 * H),
        default: Default::Value("24h"),
        doc: "How often the newest backup is restored on a machine, aside, to see that it can be.",
    },
    Key {
        path: "backups.keepAll",
        kind: duration(24 * H, 8760 * H),
        default: Default::Value("24h"),
        doc: "How long every backup is kept.",
    },
    Key {
        path: "backups.keepHourly",
        kind: duration(24 * H, 8760 * H),
        default: Default::Value("168h"),
        doc: "How long one backup of each hour is kept.",
    },
    Key {
        path: "backups.keepDaily",
        kind: duration(24 * H, 87_600 * H),
        default: Default::Value("2160h"),
        doc: "How long one backup of each day is kept; the newest is always kept.",
    },
    Key {
        path: "recovery",
        kind: Kind::Choice(RecoveryPolicy::CHOICES),
        default: Default::Value("automatic"),
        doc: "Who restores the newest backup when not one volume of the cluster is left.",
    },
    Key {
        path: "launch.hook",
        kind: Kind::Text(text::<HookName>(HOOK_PATTERN, "quorate-launch")),
        default: Default::Unset("none, and Auto Scaling is not asked about one"),
        doc: "Launch hook of the node's Auto Scaling group: completed when the node is ready.",
    },
    Key {
        path: "launch.patience",
        kind: duration(M, 48 * H),
        default: Default::Value("30m"),
        doc: "How long a launch hook is held for a node that is not ready; then the node is given up.",
    },
    Key {
        path: "leaving.hook",
        kind: Kind::Text(text::<HookName>(HOOK_PATTERN, "quorate-terminate")),
        default: Default::Value("quorate-terminate"),
        doc: "Termination hook of the node's Auto Scaling group: completed when the node has left.",
    },
    Key {
        path: "leaving.patience",
        kind: duration(M, 48 * H),
        default: Default::Value("1h"),
        doc: "How long a node that is terminated is held for what it waits for; then the rest is skipped.",
    },
    Key {
        path: "leaving.drain",
        kind: duration(0, 48 * H),
        default: Default::Value("15m"),
        doc: "How long pods may take to leave a node that is terminated.",
    },
    Key {
        path: "leaving.podGrace",
        kind: duration(S, 24 * H),
        default: Default::Unset("each pod's own"),
        doc: "How long each evicted pod may take to end.",
    },
    Key {
        path: "leaving.result",
        kind: Kind::Choice(LeavingResult::CHOICES),
        default: Default::Value("continue"),
        doc: "What the termination hook is told when something had to be skipped.",
    },
    Key {
        path: "leaving.maintenance",
        kind: Kind::Choice(MaintenancePolicy::CHOICES),
        default: Default::Value("leave"),
        doc: "What follows from maintenance that EC2 has scheduled for the node's instance.",
    },
    Key {
        path: "leaving.maintenanceLead",
        kind: duration(S, 48 * H),
        default: Default::Value("30m"),
        doc: "How long before scheduled maintenance the node begins to leave for it.",
    },
    Key {
        path: "leaving.rebalance",
        kind: Kind::Choice(RebalancePolicy::CHOICES),
        default: Default::Value("cordon"),
        doc: "What follows on a worker when EC2 recommends to replace its spot instance; a control-plane node \
              only warns.",
    },
    Key {
        path: "tick",
        kind: duration(S, 5 * M),
        default: Default::Value("10s"),
        doc: "How often the agent looks at the world without being woken.",
    },
    Key {
        path: "monitoring.listen",
        kind: Kind::Choice(Listen::CHOICES),
        default: Default::Value("node"),
        doc: "Where metrics and health are served: at the node's own address and loopback, at loopback alone, or nowhere.",
    },
    Key {
        path: "monitoring.port",
        kind: Kind::Integer { min: 1024, max: 65_535, unit: "port" },
        default: Default::Value("9907"),
        doc: "Port at which metrics and health are served.",
    },
    Key {
        path: "monitoring.console",
        kind: Kind::Choice(ConsoleLines::CHOICES),
        default: Default::Value("on"),
        doc: "Whether the phase and the reason for waiting are written to the system console, which EC2 shows.",
    },
    Key {
        path: "monitoring.cloudwatch",
        kind: Kind::Choice(CloudWatchFigures::CHOICES),
        default: Default::Value("off"),
        doc: "Whether a control-plane node puts its figures into CloudWatch, once a minute.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(LogLevel::CHOICES),
        default: Default::Value("info"),
        doc: "Least severe level that the agent logs.",
    },
];
