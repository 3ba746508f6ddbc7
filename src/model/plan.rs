//! A plan: the next steps, and a report of why, and of what is waited for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::backup::BackupTrouble;
use super::ids::{ClusterName, Generation, InstanceId, MemberId, Region, Slot, VolumeId, Zone};
use super::mismatch::Mismatch;
use super::phase::Phase;
use super::service::ServiceName;
use super::step::Step;
use crate::kubernetes::{Component, KubernetesVersion};

/// What the agent does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The steps, in order; one that fails ends the plan.
    pub steps: Vec<Step>,
    /// Why.
    pub report: Report,
}

/// The plan in words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where the machine is on its way.
    pub phase: Phase,
    /// The slot that it holds, or is about to.
    pub slot: Option<Slot>,
    /// What it waits for.
    pub waiting: Vec<WaitingOn>,
    /// Why it can't go on without a human.
    pub halt: Option<Halt>,
    /// What does not stop it, and should be seen to.
    pub warnings: Vec<Warning>,
    /// What does not match among members, machines and volumes: a warning, too, when it has lasted. `None` when that
    /// was not looked at, and all is as it was noticed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed: Option<Vec<Mismatch>>,
}

impl Report {
    /// The reasons in words: halt, waits and warnings.
    pub fn in_words(&self) -> Vec<String> {
        let halt = self.halt.iter().map(|halt| format!("halted: {halt}"));
        let waiting = self.waiting.iter().map(|on| format!("waits for {on}"));
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        halt.chain(waiting).chain(warnings).collect()
    }
}

/// Something waited for, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What.
    pub on: WaitingOn,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

/// What an agent can wait for. Each is a full reason for someone at 3 a.m.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "on")]
pub enum WaitingOn {
    /// An answer that is needed and did not come.
    Answer {
        /// About what.
        about: Subject,
        /// Why there is none.
        why: String,
    },
    /// EC2 does not list this very instance yet, so its list is not complete.
    OwnInstance,
    /// The clock is not synchronised, and nothing may be signed.
    Clock,
    /// EC2 to make the volume.
    VolumeCreated {
        /// The slot.
        slot: Slot,
    },
    /// A volume of this zone that another instance holds, which is on its way out.
    VolumeReleased {
        /// The volume.
        volume: VolumeId,
        /// Who holds it.
        holder: InstanceId,
    },
    /// EC2 to finish attaching.
    Attachment {
        /// The volume.
        volume: VolumeId,
    },
    /// The kernel to show the volume's device.
    Device {
        /// The volume.
        volume: VolumeId,
    },
    /// A volume in this zone: there is none for this machine, which stands by.
    FreeSlot,
    /// A machine for a slot of another zone, whose own is gone for good; when none comes, this machine takes the slot
    /// over.
    Takeover {
        /// The slot.
        slot: Slot,
        /// Its zone.
        zone: Zone,
    },
    /// Other machines to claim their slots, so that the cluster can be founded.
    Claims {
        /// The slots not claimed yet.
        missing: Vec<Slot>,
        /// Whether a majority is there, so that patience decides.
        majority: bool,
    },
    /// A majority of the founders to start.
    Founders {
        /// The generation.
        generation: Generation,
        /// The founders that have not started.
        missing: Vec<Slot>,
    },
    /// A second word, a minute later, that a generation can't come back, before another is made of a backup.
    Recovery {
        /// The generation.
        generation: Generation,
        /// What was found.
        why: String,
    },
    /// A quorum of etcd's members to answer.
    Quorum,
    /// This machine's etcd to answer.
    OwnEtcd,
    /// etcd, which ended by itself, to be started again.
    EtcdRestart {
        /// How it ended.
        how: String,
    },
    /// EC2's word that the member now in this slot is gone for good.
    PredecessorGone {
        /// The member.
        member: MemberId,
        /// What EC2 says so far.
        evidence: String,
    },
    /// A second answer that something is not found.
    ConfirmedGone {
        /// The instance or volume.
        what: String,
    },
    /// Another machine to finish its change of membership.
    MembershipLock {
        /// Who holds the lock.
        holder: InstanceId,
    },
    /// Another learner to be promoted.
    OtherLearner {
        /// The learner.
        member: MemberId,
    },
    /// The other members to be healthy enough for a change.
    HealthyQuorum {
        /// Voters that answered that they are healthy.
        healthy: usize,
        /// How many are needed before and after the change.
        needed: usize,
    },
    /// This machine's learner to catch up.
    InSync,
    /// A load balancer for the API.
    LoadBalancer,
    /// A component of the control plane on this machine to be ready.
    Component {
        /// The component.
        component: Component,
        /// What it answers, or why there is no answer.
        why: String,
    },
    /// A service of this machine.
    Service {
        /// The service.
        service: ServiceName,
        /// What is wrong with it.
        why: String,
    },
    /// The control plane to publish how workers join.
    Join,
    /// The control plane to publish a bootstrap token that is still good.
    JoinToken {
        /// When the one that is published ended, in milliseconds since 1970.
        ended: i64,
    },
    /// A kubelet and a control plane whose versions go together.
    FittingVersion {
        /// The kubelet's.
        found: KubernetesVersion,
        /// The control plane's.
        control_plane: KubernetesVersion,
    },
    /// The API to answer this worker.
    Api {
        /// Where it is asked.
        endpoint: String,
        /// What it answers, or why there is no answer.
        why: String,
    },
    /// The control plane to approve the certificate that this worker's kubelet asks for.
    NodeCertificate {
        /// The id of the token that it asks with.
        token: String,
    },
    /// The kubelet to register this machine's node.
    NodeRegistered,
    /// This machine's node to be ready.
    NodeReady {
        /// What its kubelet says.
        why: String,
    },
    /// Another machine to finish changing its control plane.
    ControlPlaneLock {
        /// Who holds the lock.
        holder: InstanceId,
    },
    /// As many of the other members to be healthy as are a quorum without this machine's, which leaves.
    QuorumWithout {
        /// Other voters that answered that they are healthy.
        healthy: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The load balancer to drain this machine's connections.
    Drained {
        /// The load balancer.
        balancer: String,
    },
    /// Pods to leave this machine's node.
    Pods {
        /// How many are there.
        left: usize,
        /// Those that may not be evicted now, each with the reason.
        refused: Vec<String>,
    },
    /// The kubelet to end the control plane's static pods.
    ComponentsEnd {
        /// Those that still answer.
        components: Vec<Component>,
    },
    /// EC2 to detach this machine's volume.
    Detached {
        /// The volume.
        volume: VolumeId,
    },
    /// systemd to stop this machine, which is about to shut down.
    ShutDown,
}

impl WaitingOn {
    /// Whether both wait for the same thing, although the evidence may differ.
    pub fn is_same_wait(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer { about, .. }, Self::Answer { about: others, .. }) => about == others,
            (Self::Claims { majority, .. }, Self::Claims { majority: others, .. }) => majority == others,
            (Self::Founders { generation, .. }, Self::Founders { generation: others, .. })
            | (Self::Recovery { generation, .. }, Self::Recovery { generation: others, .. }) => {
                generation == others
            }
            (Self::PredecessorGone { member, .. }, Self::PredecessorGone { member: others, .. }) => {
                member == others
            }
            (Self::Component { component, .. }, Self::Component { component: other, .. }) => {
                component == other
            }
            (Self::Service { service, .. }, Self::Service { service: other, .. }) => service == other,
            (Self::Api { endpoint, .. }, Self::Api { endpoint: other, .. }) => endpoint == other,
            (Self::EtcdRestart { .. }, Self::EtcdRestart { .. })
            | (Self::QuorumWithout { .. }, Self::QuorumWithout { .. })
            | (Self::Pods { .. }, Self::Pods { .. })
            | (Self::ComponentsEnd { .. }, Self::ComponentsEnd { .. })
            | (Self::JoinToken { .. }, Self::JoinToken { .. })
            | (Self::NodeCertificate { .. }, Self::NodeCertificate { .. })
            | (Self::NodeReady { .. }, Self::NodeReady { .. })
            | (Self::HealthyQuorum { .. }, Self::HealthyQuorum { .. }) => true,
            (one, two) => one == two,
        }
    }
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// Who this machine is.
    Identity,
    /// What the operator wants: user data and tags.
    Settings,
    /// The instances.
    Instances,
    /// The volumes.
    Volumes,
    /// The zones.
    Zones,
    /// The charter.
    Charter,
    /// The backups.
    Backups,
    /// What this machine found when it read the backups through.
    Chosen,
    /// The last-known members.
    Members,
    /// The authority.
    Authority,
    /// The leaf certificates.
    Leaves,
    /// The clock.
    Clock,
    /// The disk.
    Disk,
    /// etcd's program.
    EtcdVersion,
    /// The service manager.
    Service,
    /// etcd's configuration.
    Launch,
    /// The version of Kubernetes.
    KubernetesVersion,
    /// What the machine has.
    Machine,
    /// What the instance type gives to pods.
    InstanceType,
    /// What logind does when the machine shuts down.
    Logind,
    /// The load balancers.
    LoadBalancers,
    /// Kubernetes' authorities.
    ClusterAuthorities,
    /// Kubernetes' certificates on this machine.
    ClusterLeaves,
    /// Kubernetes' files on this machine.
    KubernetesFiles,
    /// What quorate keeps in the API.
    FirstThings,
    /// Who looks after what quorate keeps in the API.
    ApiLease,
    /// The add-ons.
    Addons,
    /// containerd.
    Containerd,
    /// The services of a node.
    Services,
    /// What is published to workers.
    WorkersObject,
    /// Requests for nodes' certificates.
    CertificateRequests,
    /// The kubelet's certificate and kubeconfigs on this machine.
    NodeIdentity,
    /// This machine's node in the API.
    Node,
    /// The lifecycle hook that holds this machine.
    LifecycleHook,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Identity => "this machine's identity",
            Self::Settings => "user data and tags",
            Self::Instances => "the instances",
            Self::Volumes => "the volumes",
            Self::Zones => "the group's zones",
            Self::Charter => "the charter",
            Self::Backups => "the backups",
            Self::Chosen => "the backup that this machine chose",
            Self::Members => "the last-known members",
            Self::Authority => "the etcd authority",
            Self::Leaves => "the leaf certificates",
            Self::Clock => "the clock",
            Self::Disk => "the etcd volume",
            Self::EtcdVersion => "etcd's version",
            Self::Service => "etcd's service",
            Self::Launch => "etcd's configuration",
            Self::Machine => "this machine's size and kernel",
            Self::InstanceType => "the addresses that this machine's type gives to pods",
            Self::KubernetesVersion => "the version of Kubernetes",
            Self::Logind => "how long a shutdown waits",
            Self::LoadBalancers => "the load balancers",
            Self::ClusterAuthorities => "Kubernetes' authorities",
            Self::ClusterLeaves => "Kubernetes' certificates on this machine",
            Self::KubernetesFiles => "Kubernetes' files on this machine",
            Self::FirstThings => "what is kept in the API",
            Self::ApiLease => "the lease on what is kept in the API",
            Self::Addons => "the add-ons",
            Self::Containerd => "containerd",
            Self::Services => "kubelet and kube-proxy",
            Self::WorkersObject => "what is published to workers",
            Self::CertificateRequests => "requests for nodes' certificates",
            Self::NodeIdentity => "the kubelet's certificate and kubeconfigs on this machine",
            Self::Node => "this machine's node",
            Self::LifecycleHook => "the lifecycle hook that holds this machine",
        })
    }
}

/// Why a machine can't go on without a human. It looks again at every tick all the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "because")]
pub enum Halt {
    /// The configuration has errors.
    Configuration {
        /// The errors, one a line.
        errors: String,
    },
    /// The cluster lives in another region.
    OtherRegion {
        /// Where this machine is.
        found: Region,
        /// Where the cluster is.
        expected: Region,
    },
    /// The charter is another cluster's.
    OtherCharter {
        /// The cluster that the charter names.
        found: ClusterName,
        /// This cluster.
        expected: ClusterName,
    },
    /// Two free volumes fit, and nothing says which.
    AmbiguousVolumes {
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// Two volumes are attached here.
    TwoVolumes {
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// The volume's slot is not one of this zone, or of this cluster.
    WrongSlot {
        /// The volume.
        volume: VolumeId,
        /// What its tag says.
        found: Option<Slot>,
        /// The slots of this zone.
        expected: Vec<Slot>,
    },
    /// The device holds something that is not ours.
    ForeignData {
        /// The volume.
        volume: VolumeId,
        /// What was found.
        found: String,
    },
    /// The device is blank, and the volume's tag says that it was formatted.
    Wiped {
        /// The volume.
        volume: VolumeId,
        /// The tag.
        tag: String,
    },
    /// The kernel did not show the attached volume's device in time.
    NoDevice {
        /// The volume.
        volume: VolumeId,
    },
    /// Another device is mounted where etcd's data belong.
    ForeignMount {
        /// What is mounted there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The file system is read-only.
    ReadOnly {
        /// The volume.
        volume: VolumeId,
    },
    /// The volume's stamp names another cluster, slot or volume, or can't be read.
    WrongStamp {
        /// The volume.
        volume: VolumeId,
        /// What the stamp says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The volume's stamp and its content, or the charter, contradict each other.
    Contradiction {
        /// What contradicts what.
        what: String,
    },
    /// There is no charter, and signs of an earlier life.
    CharterLost {
        /// The signs.
        evidence: String,
    },
    /// The volume took part in a later generation than the charter tells of.
    CharterBehind {
        /// The charter's generation.
        charter: Generation,
        /// The volume's generation.
        volume: Generation,
    },
    /// A quorum's volumes are gone for good, and an operator has to say what the cluster goes on with.
    QuorumLost {
        /// The generation.
        generation: Generation,
        /// The volumes that are gone.
        gone: Vec<SlotVolume>,
        /// The volumes that are left, or may be.
        left: Vec<SlotVolume>,
    },
    /// Nothing is left of the cluster, and there is no backup that could be restored.
    NoBackup {
        /// The generation.
        generation: Generation,
        /// The backups that there are, each with what is wrong with it.
        damaged: Vec<String>,
    },
    /// There is no etcd authority although the cluster has been founded.
    AuthorityLost,
    /// The authority's certificate has ended.
    AuthorityExpired,
    /// etcd's program has a version that is not known to work.
    EtcdVersion {
        /// What was found.
        found: String,
        /// What would work.
        expected: String,
    },
    /// The settings and the charter differ in the cluster's size.
    OtherSize {
        /// The settings' size.
        found: usize,
        /// The charter's size.
        expected: usize,
    },
    /// Several load balancers fit, and nothing says which is meant.
    AmbiguousLoadBalancers {
        /// Their names and ports.
        found: Vec<String>,
    },
    /// Kubernetes' authorities are missing in S3 although the cluster was made with some.
    ClusterAuthoritiesLost,
    /// One of Kubernetes' authorities has ended.
    ClusterAuthoritiesExpired,
}

/// A volume, and the slot that it is of, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotVolume {
    /// The slot.
    pub slot: Option<Slot>,
    /// The volume.
    pub volume: VolumeId,
}

/// What does not stop the machine, and should be seen to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "about")]
pub enum Warning {
    /// An answer that was missing while the member runs.
    Answer {
        /// About what.
        subject: Subject,
        /// Why there is none.
        why: String,
    },
    /// The etcd authority is missing in S3: no certificate can be issued.
    AuthorityLost,
    /// The charter is missing in S3, and can't be repaired at the moment.
    CharterLost,
    /// Members, machines and volumes do not match, and have not for a while.
    Mismatch {
        /// What does not match.
        mismatch: Mismatch,
    },
    /// Backups are not what they should be.
    Backups {
        /// What is wrong with them.
        trouble: BackupTrouble,
    },
    /// Zones are fewer than slots: the loss of one zone can cost the quorum.
    SharedZone {
        /// How many zones there are.
        zones: usize,
        /// How many slots there are.
        slots: usize,
    },
    /// Kubernetes' authorities are missing in S3: no certificate can be renewed.
    ClusterAuthoritiesLost,
    /// The load balancer that this machine's files name is gone.
    LoadBalancerGone {
        /// Its name.
        host: String,
    },
    /// A service of this machine is not as it should be.
    Service {
        /// The service.
        service: ServiceName,
        /// What is wrong with it.
        why: String,
    },
    /// What the operator adds to the kubelet's configuration is wrong, and the kubelet keeps what it has.
    KubeletDropIns {
        /// Which file, and what is wrong with it.
        why: String,
    },
    /// The kubelet will not start on a machine like this.
    UnfitMachine {
        /// What is wrong, and what to do.
        why: String,
    },
    /// What is published to workers was written by a later version of quorate, and is left alone.
    JoinOfLaterVersion {
        /// Its format.
        format: u32,
        /// The format that this version writes.
        known: u32,
    },
    /// A shutdown of the machine does not wait as long as the kubelet does for its pods.
    ShutdownCutShort {
        /// How long it waits, in milliseconds.
        found_ms: u64,
        /// How long the kubelet does, in milliseconds.
        wanted_ms: u64,
    },
    /// All workers are in one zone.
    WorkersShareZone {
        /// The zone.
        zone: String,
        /// How many workers there are.
        workers: usize,
    },
    /// The load balancer checks its targets in a way that no API server here can pass.
    HealthCheckNeverPasses {
        /// The load balancer.
        balancer: String,
        /// How it checks: `SSL`, `HTTP` or `HTTPS`.
        protocol: String,
    },
    /// A changed manifest did not get ready in its time, and the one before is back.
    RolledBack {
        /// The component.
        component: Component,
        /// How often it was tried.
        times: u32,
        /// How many hours after the last time it is tried again; `None`: not by itself.
        tried_again_after_h: Option<i64>,
    },
    /// An add-on's file on this machine can't be used: it is neither applied nor taken away.
    AddonUnfit {
        /// What the add-on, or the file, is called.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An add-on is not in the API as its file has it.
    AddonFailed {
        /// The add-on.
        name: String,
        /// Why not.
        why: String,
    },
    /// What add-ons had and have no more, and is not taken away, since it holds what others put there.
    AddonLeftovers {
        /// The objects.
        objects: Vec<String>,
    },
    /// The machine leaves, and has no time left for this.
    LeftInHaste {
        /// What it waited for, or the step that was not done.
        what: String,
    },
    /// A hook holds this machine, and it is not the one that the agent looks after.
    OtherHook {
        /// The name in the settings.
        expected: String,
    },
    /// EC2 announces something for this machine.
    Notice {
        /// What.
        what: String,
        /// When, in milliseconds since 1970.
        at: i64,
    },
    /// A member's database nears its quota.
    EtcdQuota {
        /// The member.
        member: MemberId,
        /// The file's size, in percent of the quota.
        percent: u64,
        /// The quota, in bytes.
        quota: u64,
    },
    /// An alarm is raised for want of space: etcd takes nothing that needs any.
    EtcdNoSpace {
        /// What it takes to end it.
        why: String,
    },
    /// Members hold different data, or an alarm says so.
    EtcdCorrupt {
        /// The members that are thought to be wrong; none when that can't be told.
        members: Vec<MemberId>,
        /// What was found, and what is done about it or has to be.
        why: String,
    },
    /// This machine's etcd runs and says nothing, while the others are well.
    EtcdWedged {
        /// What is done about it.
        why: String,
    },
}
