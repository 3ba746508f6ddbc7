//! Instances and volumes, as the metadata service and EC2 tell of them.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, Region, Role, Slot, VolumeId, Zone};

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its id.
    pub instance: InstanceId,
    /// Its region.
    pub region: Region,
    /// Its availability zone.
    pub zone: Zone,
    /// Its primary private address.
    pub address: Ipv4Addr,
}

impl Identity {
    /// Where the etcd member on this machine is reached by its peers.
    pub fn peer_url(&self) -> String {
        peer_url(self.address)
    }
}

/// The peer URL of an etcd member at this address.
pub fn peer_url(address: Ipv4Addr) -> String {
    format!("https://{address}:2380")
}

/// The client URL of an etcd member at this address.
pub fn client_url(address: Ipv4Addr) -> String {
    format!("https://{address}:2379")
}

/// The address in a peer URL.
pub fn address_of(peer_url: &str) -> Option<Ipv4Addr> {
    peer_url.strip_prefix("https://")?.rsplit_once(':')?.0.parse().ok()
}

/// Where EC2 says an instance is in its life.
/// Source: "Amazon EC2 instance state changes", EC2 user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being launched.
    Pending,
    /// Running.
    Running,
    /// Being stopped.
    Stopping,
    /// Stopped; it may start again.
    Stopped,
    /// Being terminated.
    ShuttingDown,
    /// Terminated: gone for good.
    Terminated,
    /// EC2 knows no such id: gone for about an hour or more, or too new to be listed.
    NotFound,
}

impl InstanceState {
    /// EC2's word for it; `not found` where it has none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::NotFound => "not found",
        }
    }

    /// Whether an instance in this state never runs again.
    pub fn is_gone(self) -> bool {
        match self {
            Self::Terminated | Self::NotFound => true,
            Self::Pending | Self::Running | Self::Stopping | Self::Stopped | Self::ShuttingDown => false,
        }
    }
}

impl std::fmt::Display for InstanceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// An instance, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its zone; not said of one that is not found.
    pub zone: Option<Zone>,
    /// Its primary private address; a terminated one has none.
    pub address: Option<Ipv4Addr>,
    /// Its role by its tag, when it carries this cluster's tag.
    pub role: Option<Role>,
}

/// Where EC2 says a volume is in its life.
/// Source: "Amazon EBS volume lifecycle", EBS user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Being created.
    Creating,
    /// Free.
    Available,
    /// Attached, or on its way to or from an instance.
    InUse,
    /// Being deleted: gone for good.
    Deleting,
    /// Deleted: gone for good.
    Deleted,
    /// The underlying hardware failed: gone for good.
    Error,
    /// EC2 knows no such id.
    NotFound,
}

impl VolumeState {
    /// EC2's word for it; `not found` where it has none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Error => "error",
            Self::NotFound => "not found",
        }
    }
}

impl std::fmt::Display for VolumeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentState {
    /// On its way in.
    Attaching,
    /// There.
    Attached,
    /// On its way out.
    Detaching,
    /// Asked to leave, and the instance does not let go.
    Busy,
}

/// A volume's tie to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The instance.
    pub instance: InstanceId,
    /// How far it is.
    pub state: AttachmentState,
    /// The device name that was asked for. On Nitro machines no such device appears.
    pub device: String,
    /// Whether the volume is deleted when the instance is terminated.
    pub delete_on_termination: bool,
}

/// A volume, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Where it is in its life.
    pub state: VolumeState,
    /// Its zone; not said of one that is not found.
    pub zone: Option<Zone>,
    /// Its tie to an instance, if any. (Multi-attach volumes are not for etcd and are refused.)
    pub attachment: Option<Attachment>,
    /// Whether it carries this cluster's tag.
    pub ours: bool,
    /// Its tag `quorate:slot`, as it stands.
    pub slot: Option<Slot>,
    /// Its tag `quorate:stamp`, as it stands.
    pub stamp: Option<String>,
}

impl Volume {
    /// The instance that holds the volume for certain: attached, and not on its way out.
    pub fn holder(&self) -> Option<&InstanceId> {
        self.attachment
            .as_ref()
            .filter(|attachment| attachment.state == AttachmentState::Attached)
            .map(|attachment| &attachment.instance)
    }
}

/// A volume and its id.
pub type NamedVolume<'a> = (&'a VolumeId, &'a Volume);
