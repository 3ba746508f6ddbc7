//! What the steps are called, and how much depends on each.

use super::Step;
use crate::model::LaunchState;

/// How much depends on a step.
#[derive(PartialEq, Eq)]
enum Weight {
    Routine,
    Ordinary,
    Grave,
}

impl Step {
    /// The step's name: the same word as in a plan's JSON form.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateVolume { .. } => "createVolume",
            Self::AttachVolume { .. } => "attachVolume",
            Self::TagSlot { .. } => "tagSlot",
            Self::Format { .. } => "format",
            Self::Mount { .. } => "mount",
            Self::GrowFilesystem { .. } => "growFilesystem",
            Self::WriteStamp { .. } => "writeStamp",
            Self::TagStamp { .. } => "tagStamp",
            Self::SetDataAside { .. } => "setDataAside",
            Self::CreateAuthority => "createAuthority",
            Self::IssueLeaves { .. } => "issueLeaves",
            Self::CreateCharter { .. } => "createCharter",
            Self::AmendCharter { .. } => "amendCharter",
            Self::ChooseBackup { .. } => "chooseBackup",
            Self::RestoreData { .. } => "restoreData",
            Self::ConfigureEtcd { .. } => "configureEtcd",
            Self::StartEtcd { .. } => "startEtcd",
            Self::StopEtcd => "stopEtcd",
            Self::TakeMembershipLock { .. } => "takeMembershipLock",
            Self::ReleaseMembershipLock { .. } => "releaseMembershipLock",
            Self::RemoveMember { .. } => "removeMember",
            Self::AddLearner { .. } => "addLearner",
            Self::PromoteMember { .. } => "promoteMember",
            Self::UpdatePeerUrl { .. } => "updatePeerUrl",
            Self::RecordSlot { .. } => "recordSlot",
            Self::CopyCharterToEtcd { .. } => "copyCharterToEtcd",
            Self::CopyCharterToVolume { .. } => "copyCharterToVolume",
            Self::PublishMembers { .. } => "publishMembers",
            Self::CreateClusterAuthorities => "createClusterAuthorities",
            Self::RecordClusterAuthorities { .. } => "recordClusterAuthorities",
            Self::IssueClusterLeaves { .. } => "issueClusterLeaves",
            Self::WriteKubernetesFiles { .. } => "writeKubernetesFiles",
            Self::WriteBootstrapKubeconfig { .. } => "writeBootstrapKubeconfig",
            Self::SetNodeIdentityAside { .. } => "setNodeIdentityAside",
            Self::RollOut { .. } => "rollOut",
            Self::KeepManifest { .. } => "keepManifest",
            Self::RollBack { .. } => "rollBack",
            Self::TakeControlPlaneLock { .. } => "takeControlPlaneLock",
            Self::ReleaseControlPlaneLock { .. } => "releaseControlPlaneLock",
            Self::RegisterTarget { .. } => "registerTarget",
            Self::TakeApiLease { .. } => "takeApiLease",
            Self::RenewApiLease { .. } => "renewApiLease",
            Self::ApplyAddon { .. } => "applyAddon",
            Self::PruneAddon { .. } => "pruneAddon",
            Self::PublishJoin { .. } => "publishJoin",
            Self::ApproveRequests { .. } => "approveRequests",
            Self::LeaveRequests { .. } => "leaveRequests",
            Self::TellSharedZone { .. } => "tellSharedZone",
            Self::DeleteNode { .. } => "deleteNode",
            Self::ApplyObjects { .. } => "applyObjects",
            Self::ConfigureContainerd { .. } => "configureContainerd",
            Self::StartService { .. } => "startService",
            Self::RestartService { .. } => "restartService",
            Self::ReloadLogind { .. } => "reloadLogind",
            Self::WriteLogindFile { .. } => "writeLogindFile",
            Self::ReleaseShutdown => "releaseShutdown",
            Self::BeginDeparture { .. } => "beginDeparture",
            Self::EndDeparture => "endDeparture",
            Self::KeepControlPlaneLock { .. } => "keepControlPlaneLock",
            Self::DeregisterTarget { .. } => "deregisterTarget",
            Self::CordonNode { .. } => "cordonNode",
            Self::ReopenNode { .. } => "reopenNode",
            Self::EvictPods { .. } => "evictPods",
            Self::MoveLeader { .. } => "moveLeader",
            Self::MarkNodeLeft { .. } => "markNodeLeft",
            Self::WithdrawManifests { .. } => "withdrawManifests",
            Self::StopService { .. } => "stopService",
            Self::Unmount => "unmount",
            Self::DetachVolume { .. } => "detachVolume",
            Self::SendHeartbeat { .. } => "sendHeartbeat",
            Self::CompleteHook { .. } => "completeHook",
            Self::CompactEtcd { .. } => "compactEtcd",
            Self::Defragment { .. } => "defragment",
            Self::DisarmAlarm { .. } => "disarmAlarm",
            Self::KeepBackups { .. } => "keepBackups",
            Self::CompareHashes { .. } => "compareHashes",
            Self::NoteWedge { .. } => "noteWedge",
            Self::GiveUpInstance { .. } => "giveUpInstance",
        }
    }

    /// Whether the step only keeps up what is, as a lease: it is done from whatever look it was seen to be
    /// due in, and when it is done there is nothing new to look at. What it does must be bound to the version
    /// that was read.
    pub fn is_routine(&self) -> bool {
        self.weight() == Weight::Routine
    }

    /// Whether the step takes something away or starts what can't be taken back: the steps that
    /// an unknown answer must never add.
    pub fn is_destructive(&self) -> bool {
        self.weight() == Weight::Grave
    }

    fn weight(&self) -> Weight {
        match self {
            Self::RenewApiLease { .. }
            | Self::KeepControlPlaneLock { .. }
            | Self::SendHeartbeat { .. }
            | Self::KeepBackups { .. } => Weight::Routine,
            Self::Format { .. }
            | Self::SetDataAside { .. }
            | Self::CreateAuthority
            | Self::CreateCharter { .. }
            | Self::AmendCharter { .. }
            | Self::RestoreData { .. }
            | Self::StopEtcd
            | Self::RemoveMember { .. }
            | Self::CreateClusterAuthorities
            | Self::RecordClusterAuthorities { .. }
            | Self::SetNodeIdentityAside { .. }
            | Self::RollBack { .. }
            | Self::ApplyAddon { .. }
            | Self::PruneAddon { .. }
            | Self::ApproveRequests { .. }
            | Self::DeregisterTarget { .. }
            | Self::EvictPods { .. }
            | Self::MarkNodeLeft { .. }
            | Self::WithdrawManifests { .. }
            | Self::StopService { .. }
            | Self::DetachVolume { .. }
            | Self::CompleteHook { .. }
            | Self::DeleteNode { .. }
            | Self::CompactEtcd { .. }
            | Self::Defragment { .. }
            | Self::DisarmAlarm { .. }
            | Self::GiveUpInstance { .. } => Weight::Grave,
            Self::ConfigureEtcd { launch } if launch.state == LaunchState::New => Weight::Grave,
            Self::ConfigureEtcd { .. }
            | Self::ChooseBackup { .. }
            | Self::CreateVolume { .. }
            | Self::AttachVolume { .. }
            | Self::TagSlot { .. }
            | Self::Mount { .. }
            | Self::GrowFilesystem { .. }
            | Self::WriteStamp { .. }
            | Self::TagStamp { .. }
            | Self::IssueLeaves { .. }
            | Self::StartEtcd { .. }
            | Self::TakeMembershipLock { .. }
            | Self::ReleaseMembershipLock { .. }
            | Self::AddLearner { .. }
            | Self::PromoteMember { .. }
            | Self::UpdatePeerUrl { .. }
            | Self::RecordSlot { .. }
            | Self::CopyCharterToEtcd { .. }
            | Self::CopyCharterToVolume { .. }
            | Self::PublishMembers { .. }
            | Self::IssueClusterLeaves { .. }
            | Self::WriteKubernetesFiles { .. }
            | Self::WriteBootstrapKubeconfig { .. }
            | Self::RollOut { .. }
            | Self::KeepManifest { .. }
            | Self::TakeControlPlaneLock { .. }
            | Self::ReleaseControlPlaneLock { .. }
            | Self::RegisterTarget { .. }
            | Self::TakeApiLease { .. }
            | Self::PublishJoin { .. }
            | Self::LeaveRequests { .. }
            | Self::TellSharedZone { .. }
            | Self::ApplyObjects { .. }
            | Self::ConfigureContainerd { .. }
            | Self::StartService { .. }
            | Self::RestartService { .. }
            | Self::ReloadLogind { .. }
            | Self::WriteLogindFile { .. }
            | Self::ReleaseShutdown
            | Self::BeginDeparture { .. }
            | Self::EndDeparture
            | Self::CordonNode { .. }
            | Self::ReopenNode { .. }
            | Self::MoveLeader { .. }
            | Self::Unmount
            | Self::CompareHashes { .. }
            | Self::NoteWedge { .. } => Weight::Ordinary,
        }
    }
}
