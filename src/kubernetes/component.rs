//! The three programs of the control plane that run as static pods, and who owns their files.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::inputs::loopback_of;
use super::paths;

/// A program of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Component {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// The program's name, which is also that of its container, its image and its pod.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// Where its manifest lies.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::ApiServer => paths::API_SERVER_MANIFEST,
            Self::ControllerManager => paths::CONTROLLER_MANAGER_MANIFEST,
            Self::Scheduler => paths::SCHEDULER_MANIFEST,
        }
    }

    /// The directory of all that it reads; mounted in its container at the same path, and no other.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::ApiServer => paths::API_SERVER_DIRECTORY,
            Self::ControllerManager => paths::CONTROLLER_MANAGER_DIRECTORY,
            Self::Scheduler => paths::SCHEDULER_DIRECTORY,
        }
    }

    /// Whom it runs as.
    pub const fn owner(self) -> Owner {
        match self {
            Self::ApiServer => Owner::ApiServer,
            Self::ControllerManager => Owner::ControllerManager,
            Self::Scheduler => Owner::Scheduler,
        }
    }

    /// The port that it serves HTTPS at.
    pub const fn port(self) -> u16 {
        match self {
            Self::ApiServer => 6443,
            Self::ControllerManager => 10257,
            Self::Scheduler => 10259,
        }
    }
}

impl Component {
    /// Where it says whether it is ready, on the machine with this address.
    pub fn readiness_url(self, address: Ipv4Addr) -> String {
        let path = match self {
            Self::ApiServer | Self::Scheduler => "/readyz",
            // It knows no other.
            Self::ControllerManager => "/healthz",
        };
        format!("https://{}{path}", self.listens_at(address))
    }

    /// Where it takes connections of this machine's own, on the machine with this address.
    pub fn listens_at(self, address: Ipv4Addr) -> SocketAddrV4 {
        SocketAddrV4::new(loopback_of(address), self.port())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whom a file belongs to. The numbers stand for nobody in `/etc/passwd`: they are above those that distributions
/// give to services (up to 999) and people (from 1000), and below those of systemd's dynamic users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// root: the agent, the kubelet, people.
    Root,
    /// The API server.
    ApiServer,
    /// The controller-manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
}

impl Owner {
    /// The user's number; the group has the same.
    pub const fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::ApiServer => 2901,
            Self::ControllerManager => 2902,
            Self::Scheduler => 2903,
        }
    }
}
