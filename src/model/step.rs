//! The steps: everything that the agent can do to the world.
//!
//! Each is an order with all its particulars, idempotent, and small enough that the next run can
//! carry on from a crash at any instruction of it.

mod weight;

use serde::{Deserialize, Serialize};

use super::addons::AddonPlace;
use super::care::{Alarm, ComparisonPlace, WedgeNote};
use super::charter::{Charter, CharterChange, Recovery};
use super::cluster::{EtcdLaunch, SlotRecord};
use super::containerd::ContainerdVersion;
use super::departure::{Departure, HookResult, NodePod};
use super::enrolment::JoinTerms;
use super::ids::{ClusterUuid, ETag, Generation, InstanceId, MemberId, Slot, VolumeId, Zone};
use super::load_balancer::{LoadBalancer, TargetId};
use super::names::{ClusterLeafRequest, ServerUrl};
use super::observation::PublishedMembers;
use super::service::{ServiceLaunch, ServiceName};
use super::stamp::{Stamp, StampState};
use crate::config::settings::{AddonName, ApiEndpoint};
use crate::kubernetes::{Component, RenderedFile};

/// One order to the executor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "step")]
pub enum Step {
    /// Create a volume for a slot that has none in this zone. The token makes a repetition give
    /// the same volume.
    CreateVolume {
        /// The slot.
        slot: Slot,
        /// The zone.
        zone: Zone,
        /// EC2's client token.
        token: String,
    },
    /// Attach a free volume to this instance.
    AttachVolume {
        /// The volume.
        volume: VolumeId,
        /// This instance.
        instance: InstanceId,
    },
    /// Tag a volume that this instance holds with this cluster and its slot.
    TagSlot {
        /// The volume.
        volume: VolumeId,
        /// The slot.
        slot: Slot,
    },
    /// Make a file system. The executor looks once more that the device is blank.
    Format {
        /// The volume.
        volume: VolumeId,
        /// The device, as found by the volume's id.
        device: String,
        /// The slot, for the label.
        slot: Slot,
    },
    /// Mount the file system at etcd's place.
    Mount {
        /// The volume.
        volume: VolumeId,
        /// The device, as found by the volume's id.
        device: String,
    },
    /// Grow the mounted file system to the size of its device.
    GrowFilesystem {
        /// The device.
        device: String,
    },
    /// Write the volume's stamp.
    WriteStamp {
        /// The stamp.
        stamp: Stamp,
    },
    /// Write the stamp's short form to the volume's tag.
    TagStamp {
        /// The volume.
        volume: VolumeId,
        /// The stamp's state.
        state: StampState,
    },
    /// Rename etcd's data directory aside.
    SetDataAside {
        /// Why, as a part of the new name: letters, digits and dashes.
        because: String,
    },
    /// Create the etcd authority in S3, if there is none.
    CreateAuthority,
    /// Issue this machine's leaf certificates.
    IssueLeaves {
        /// The slot, when it has one: the certificates are named after it.
        slot: Option<Slot>,
        /// The address that they name.
        address: std::net::Ipv4Addr,
        /// The fingerprint of the authority that signs them: no other does.
        authority: String,
    },
    /// Write the first charter, if there is none.
    CreateCharter {
        /// The charter.
        charter: Charter,
    },
    /// Write the charter, if it is still the version that was read.
    AmendCharter {
        /// The version that was read.
        from: ETag,
        /// The charter.
        charter: Charter,
        /// What changes, in a word, for people.
        change: CharterChange,
    },
    /// Read the newest backups through, and note on this machine the newest one that is whole, or that none is.
    ChooseBackup {
        /// The cluster.
        uuid: ClusterUuid,
        /// The generation that is in force.
        generation: Generation,
    },
    /// Make etcd's data directory, where there is none, from a backup or from a survivor's data that were set aside:
    /// those of a cluster of one member, of which only the cluster's own keys of earlier generations are left out. It
    /// is made beside its place, and renamed when it is whole.
    RestoreData {
        /// From what.
        recovery: Recovery,
        /// What it is to take part in: the member's name, its peer URL, and the token of the new generation.
        launch: EtcdLaunch,
    },
    /// Write etcd's configuration.
    ConfigureEtcd {
        /// What it is to take part in.
        launch: EtcdLaunch,
    },
    /// Start etcd, after a delay that keeps founders from waiting on each other.
    StartEtcd {
        /// Milliseconds to wait first.
        after: u64,
    },
    /// Stop etcd by SIGTERM and wait for its end.
    StopEtcd,
    /// Take, or keep, the lock on changes of membership.
    TakeMembershipLock {
        /// This instance.
        instance: InstanceId,
    },
    /// Give the lock on changes of membership back.
    ReleaseMembershipLock {
        /// This instance.
        instance: InstanceId,
    },
    /// Remove a member from the cluster.
    RemoveMember {
        /// The member.
        member: MemberId,
    },
    /// Add this machine as a learner.
    AddLearner {
        /// Its peer URL.
        peer_url: String,
    },
    /// Give a learner its vote.
    PromoteMember {
        /// The member.
        member: MemberId,
    },
    /// Tell the cluster that a member is now reached elsewhere.
    UpdatePeerUrl {
        /// The member.
        member: MemberId,
        /// Its new peer URL.
        peer_url: String,
    },
    /// Keep in etcd who holds a slot, if its record is still the one that was read.
    RecordSlot {
        /// The slot.
        slot: Slot,
        /// The record that was read; `None` when there was none.
        from: Option<SlotRecord>,
        /// Who holds it.
        record: SlotRecord,
    },
    /// Copy the charter into etcd.
    CopyCharterToEtcd {
        /// The charter.
        charter: Charter,
    },
    /// Copy the charter onto the volume.
    CopyCharterToVolume {
        /// The charter.
        charter: Charter,
    },
    /// Publish the members to S3.
    PublishMembers {
        /// The members.
        members: PublishedMembers,
    },
    /// Create Kubernetes' authorities in S3, if there are none.
    CreateClusterAuthorities,
    /// Write down in etcd which authorities Kubernetes is made with.
    RecordClusterAuthorities {
        /// Their fingerprint.
        fingerprint: String,
    },
    /// Issue Kubernetes' certificates, kubeconfigs and keys on this machine.
    IssueClusterLeaves {
        /// What they name.
        request: ClusterLeafRequest,
        /// The fingerprint of the authorities that sign them: no others do.
        authorities: String,
        /// The fingerprint of the etcd authority that signs the API server's way to etcd.
        etcd_authority: String,
    },
    /// Write files of Kubernetes' that are no manifests and hold no secret.
    WriteKubernetesFiles {
        /// The files that differ from what is there.
        files: Vec<RenderedFile>,
        /// The endpoint that all of them were made for.
        endpoint: ApiEndpoint,
    },
    /// Write the kubeconfig that a worker's kubelet joins with.
    WriteBootstrapKubeconfig {
        /// The id of the published token that goes into it.
        token: String,
        /// Where the API is.
        server: ServerUrl,
        /// SHA-256 of the cluster's CA certificate in PEM, in hexadecimal.
        authority: String,
    },
    /// Rename the kubelet's keys and certificates aside, which are no good here.
    SetNodeIdentityAside {
        /// Why, as a part of the new name: letters, digits and dashes.
        because: String,
    },
    /// Put a component's manifest in place, with the files that it reads, and keep those before.
    RollOut {
        /// The component.
        component: Component,
        /// The files that only this component reads, and that differ.
        files: Vec<RenderedFile>,
        /// Its manifest.
        manifest: RenderedFile,
    },
    /// The manifest in place has proven good.
    KeepManifest {
        /// The component.
        component: Component,
    },
    /// Put the manifest before back, and remember that this one failed.
    RollBack {
        /// The component.
        component: Component,
    },
    /// Take, or keep, the lock on changes of control-plane nodes.
    TakeControlPlaneLock {
        /// This instance.
        instance: InstanceId,
    },
    /// Give the lock on changes of control-plane nodes back.
    ReleaseControlPlaneLock {
        /// This instance.
        instance: InstanceId,
    },
    /// Register this machine with the load balancer.
    RegisterTarget {
        /// The load balancer.
        balancer: LoadBalancer,
        /// What this machine is registered as.
        target: TargetId,
    },
    /// Take the lease on what quorate keeps in the API, which nobody holds.
    TakeApiLease {
        /// This instance.
        instance: InstanceId,
        /// For how long, in seconds.
        duration_s: i32,
        /// The version of the lease that is replaced; `None` when there must be none.
        version: Option<String>,
    },
    /// Keep the lease on what quorate keeps in the API, which this instance holds.
    RenewApiLease {
        /// This instance.
        instance: InstanceId,
        /// The version of the lease that was read.
        version: String,
    },
    /// Apply an add-on, and take away what it had and has no more.
    ApplyAddon {
        /// The add-on.
        name: AddonName,
        /// Where its file is.
        place: AddonPlace,
        /// What the file says, as [`AddonFile::Fit`](super::addons::AddonFile::Fit) has it.
        digest: String,
        /// The endpoint that it is applied for.
        endpoint: ApiEndpoint,
    },
    /// Take away all that an add-on had.
    PruneAddon {
        /// The add-on.
        name: AddonName,
    },
    /// Tell workers how to join: make a bootstrap token, and publish it with all else.
    PublishJoin {
        /// What is told but for the token, which nobody sees here.
        terms: JoinTerms,
        /// How long the token is good for, in seconds.
        token_life_s: i64,
    },
    /// Approve requests for nodes' certificates, each in the version that was judged.
    ApproveRequests {
        /// Which.
        requests: Vec<RequestRef>,
    },
    /// Write down why requests stay pending.
    LeaveRequests {
        /// Which, and why.
        requests: Vec<PendingRequest>,
    },
    /// Tell people by an event in the API that all workers share a zone.
    TellSharedZone {
        /// What they are told.
        message: String,
    },
    /// Delete the node of an instance that is gone for good.
    DeleteNode {
        /// Which.
        node: GoneNode,
    },
    /// Make objects in the API what they should be.
    ApplyObjects {
        /// Which, as [`FirstThings`](super::kubernetes::FirstThings) names them.
        objects: Vec<String>,
        /// The endpoint that they are made for.
        endpoint: ApiEndpoint,
    },
    /// Write containerd's configuration, if it has none.
    ConfigureContainerd {
        /// The version of containerd that it is for.
        version: ContainerdVersion,
    },
    /// Start a service that does not run.
    StartService {
        /// The service: not etcd, which [`StartEtcd`](Self::StartEtcd) starts.
        service: ServiceName,
        /// What it is started with.
        launch: ServiceLaunch,
    },
    /// Start a service anew that runs with another configuration.
    RestartService {
        /// The service: never etcd.
        service: ServiceName,
        /// What it is started with.
        launch: ServiceLaunch,
    },
    /// Let logind read its configuration again.
    ReloadLogind {
        /// SHA-256, in hexadecimal, of the file that this is for.
        digest: String,
    },
    /// Write logind's file on a machine that runs no kubelet.
    WriteLogindFile {
        /// The file.
        file: RenderedFile,
    },
    /// Give the lock back that delays the machine's shutdown.
    ReleaseShutdown,
    /// Keep on the machine that it leaves.
    BeginDeparture {
        /// The departure.
        departure: Departure,
    },
    /// Keep on the machine that it leaves no more.
    EndDeparture,
    /// Keep the lock on changes of control-plane nodes, which this instance holds.
    KeepControlPlaneLock {
        /// This instance.
        instance: InstanceId,
    },
    /// Take this machine out of the load balancer.
    DeregisterTarget {
        /// The load balancer.
        balancer: LoadBalancer,
        /// What this machine is registered as.
        target: TargetId,
    },
    /// Close this machine's node to new pods.
    CordonNode {
        /// The node.
        node: String,
    },
    /// Open this machine's node again.
    ReopenNode {
        /// The node.
        node: String,
    },
    /// Evict pods from this machine's node. What the API refuses stays.
    EvictPods {
        /// Which.
        pods: Vec<NodePod>,
        /// How long each may take to end, in seconds; `None` for what it says itself.
        grace_s: Option<i64>,
    },
    /// Hand the leadership of etcd, which this machine's member has, to another.
    MoveLeader {
        /// The member.
        to: MemberId,
    },
    /// Say on this machine's node that the machine has left.
    MarkNodeLeft {
        /// The node.
        node: String,
    },
    /// Take static pods' manifests out of the kubelet's reach.
    WithdrawManifests {
        /// Whose.
        components: Vec<Component>,
    },
    /// Stop a service in good order.
    StopService {
        /// The service: not etcd, which [`StopEtcd`](Self::StopEtcd) stops.
        service: ServiceName,
    },
    /// Unmount etcd's volume.
    Unmount,
    /// Ask for a volume to be detached, without force.
    DetachVolume {
        /// The volume.
        volume: VolumeId,
        /// This instance.
        instance: InstanceId,
    },
    /// Tell the hook that holds this machine that it is still at work.
    SendHeartbeat {
        /// The group.
        group: String,
        /// The hook.
        hook: String,
        /// This instance.
        instance: InstanceId,
    },
    /// Tell the hook that holds this machine how it ends.
    CompleteHook {
        /// The group.
        group: String,
        /// The hook.
        hook: String,
        /// This instance.
        instance: InstanceId,
        /// How.
        result: HookResult,
    },
    /// Drop etcd's history up to a revision.
    CompactEtcd {
        /// The revision: what it replaced or deleted is dropped, what it shows stays.
        revision: i64,
    },
    /// Let this machine's member write its database anew, without the holes. It serves nothing
    /// meanwhile.
    Defragment {
        /// The member: only this one, which is on this machine.
        member: MemberId,
    },
    /// Take an alarm back.
    DisarmAlarm {
        /// The alarm.
        alarm: Alarm,
    },
    /// Let this machine keep the cluster's backups for a while, if no other machine does.
    KeepBackups {
        /// The cluster's UUID.
        uuid: ClusterUuid,
        /// Its generation.
        generation: Generation,
    },
    /// Ask every member for its hash at one revision, and keep the answers.
    CompareHashes {
        /// Where.
        keep: ComparisonPlace,
    },
    /// Note what is done about this machine's wedged member.
    NoteWedge {
        /// The note, in place of the one before.
        note: WedgeNote,
    },
    /// Tell the Auto Scaling group that this instance is not healthy, so that it is replaced.
    GiveUpInstance {
        /// This instance.
        instance: InstanceId,
        /// Why, for people.
        why: String,
    },
}

/// A request for a certificate, in the version that was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A request that stays pending.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingRequest {
    /// Which.
    #[serde(flatten)]
    pub request: RequestRef,
    /// Why.
    pub why: String,
}

/// The node of an instance that is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoneNode {
    /// Its name.
    pub name: String,
    /// Its unique id: no other of the same name is deleted.
    pub uid: String,
    /// Its instance.
    pub instance: InstanceId,
}
