//! The services of a machine that the agent looks after, and what is known of them.
//!
//! etcd is one whose every start is a decision about its data. The others may be started again by whoever finds them
//! ended, and are started anew when their configuration has changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cluster::ServiceState;

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceName {
    /// This machine's member of etcd.
    Etcd,
    /// What runs containers.
    Containerd,
    /// What runs pods.
    Kubelet,
    /// What leads packets to services.
    KubeProxy,
}

impl ServiceName {
    /// All of them, each after those that it needs.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::Containerd, Self::Kubelet, Self::KubeProxy];

    /// As people and files call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// Its unit of systemd's.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Etcd => "quorate-etcd.service",
            Self::Containerd => "containerd.service",
            Self::Kubelet => "kubelet.service",
            Self::KubeProxy => "kube-proxy.service",
        }
    }

    /// The file in which its unit finds its arguments; none where the unit or the service's configuration says all.
    pub const fn environment_file(self) -> Option<&'static str> {
        match self {
            Self::Etcd | Self::Containerd => None,
            Self::Kubelet => Some("/etc/kubernetes/kubelet.env"),
            Self::KubeProxy => Some("/etc/kubernetes/kube-proxy.env"),
        }
    }

    /// The variable in that file.
    pub const fn arguments_variable(self) -> &'static str {
        match self {
            Self::Etcd => "ETCD_ARGS",
            Self::Containerd => "CONTAINERD_ARGS",
            Self::Kubelet => "KUBELET_ARGS",
            Self::KubeProxy => "KUBE_PROXY_ARGS",
        }
    }

    /// Whether it may be killed when it does not end by itself: all but etcd, which holds data.
    pub const fn may_be_killed(self) -> bool {
        match self {
            Self::Etcd => false,
            Self::Containerd | Self::Kubelet | Self::KubeProxy => true,
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a service is started with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLaunch {
    /// The program; under systemd the unit names it.
    pub program: String,
    /// Its arguments; under systemd they are handed to the unit in its environment file, where it has one.
    pub arguments: Vec<String>,
    /// A digest of all that it reads only when it starts, its arguments among it.
    pub configuration: String,
}

/// What is seen of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceObservation {
    /// Whether it runs.
    pub state: ServiceState,
    /// [`ServiceLaunch::configuration`] of the agent's last start or restart of it; `None` when the agent never
    /// did, or does not know any more. It says nothing of a service that does not run.
    pub started_with: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub since: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_services_share_a_name_a_unit_or_a_file() {
        for one in ServiceName::ALL {
            for other in ServiceName::ALL.into_iter().filter(|other| *other != one) {
                assert_ne!(one.as_str(), other.as_str());
                assert_ne!(one.unit(), other.unit());
                assert_ne!(one.arguments_variable(), other.arguments_variable());
                assert!(
                    one.environment_file().is_none() || one.environment_file() != other.environment_file()
                );
            }
        }
    }
}
