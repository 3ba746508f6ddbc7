//! What a node's kubelet and kube-proxy are rendered from, on control-plane nodes and workers alike.
//!
//! Everything is a plain value that somebody else found out. The API server's place is not among them: a
//! control-plane node's kubeconfigs are issued with its leaves, and a worker's are rendered from
//! [`WorkerInputs`](super::inputs::WorkerInputs).

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::inputs::loopback_of;
use super::reserved::{self, NoInterfaceLimits};
use super::version::KubernetesVersion;
use super::{RenderedFile, kube_proxy, kubelet, paths};
use crate::config::settings::{KubernetesSettings, NodeNaming, TaintEffect};
use crate::model::ServiceLaunch;
use crate::model::ids::{ClusterName, InstanceId, ParseIdError, Region, Role, Zone};
use crate::model::node::{
    CapacityType, CgroupVersion, DropIn, InterfaceLimits, KernelVersion, Machine, NodeName,
};

/// The taint of control-plane nodes.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// The label that says what a node is for. `node-role.kubernetes.io`, which kubectl shows, is closed to kubelets: a
/// node could draw pods to itself with it.
pub const ROLE_LABEL: &str = "quorate.io/role";

/// The label that says how the instance is paid for. Clusters on EC2 have no standard for it: EKS and Karpenter each
/// have a key of their own, whose nodes these are not. This one is the key that self-managed groups on EC2 are widely
/// given by hand, it lies in a prefix that kubelets may set, and its values are the metadata service's own.
pub const CAPACITY_TYPE_LABEL: &str = "node.kubernetes.io/lifecycle";

/// The first kernel that kube-proxy's `nftables` mode works with.
/// Source: "Virtual IPs and Service Proxies", Kubernetes' documentation.
const NFTABLES_KERNEL: KernelVersion = KernelVersion { major: 5, minor: 13 };

/// All that decides what a node's kubelet and kube-proxy are configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInputs {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// What the operator wants.
    pub settings: KubernetesSettings,
    /// The version that runs; [`KubernetesSettings::version`] is for whoever finds it out.
    pub version: KubernetesVersion,
    /// What the node is for.
    pub role: Role,
    /// Its name, as [`node_name`] has it.
    pub name: NodeName,
    /// Its instance's id.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Its region.
    pub region: Region,
    /// Its primary private address. A loopback address means that several machines share one host: then everything
    /// is served at that address only.
    pub address: Ipv4Addr,
    /// Its type, like `m7g.large`, where it is known.
    pub instance_type: Option<String>,
    /// How it is paid for, where that is known.
    pub capacity_type: Option<CapacityType>,
    /// What it has.
    pub machine: Machine,
    /// What EC2 says of its type, where [`reserved::asks_for_interface_limits`] had it asked.
    pub interface_limits: Option<InterfaceLimits>,
    /// The operator's drop-ins, in the order in which they are merged.
    pub drop_ins: Vec<DropIn>,
}

/// Why a node has no name yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNodeName {
    /// The metadata service was not asked, or has none.
    #[error("the node is to be called by its private DNS name, which is not known")]
    Unknown,
    /// What it has is no node's name.
    #[error("the node can't be called by its private DNS name")]
    Invalid(#[source] ParseIdError),
}

/// A node's name as the setting `kubernetes.nodeName` has it. `private_dns_name` is the metadata service's
/// `local-hostname`.
///
/// # Errors
/// The private DNS name is wanted, and is not known or is none.
pub fn node_name(
    naming: NodeNaming,
    instance: &InstanceId,
    private_dns_name: Option<&str>,
) -> Result<NodeName, NoNodeName> {
    match naming {
        NodeNaming::InstanceId => Ok(instance.clone().into()),
        NodeNaming::PrivateDnsName => {
            let name = private_dns_name.ok_or(NoNodeName::Unknown)?;
            // A DHCP option set may have several domains, of which the first counts.
            let first = name.split_whitespace().next().unwrap_or_default();
            first.to_ascii_lowercase().parse().map_err(NoNodeName::Invalid)
        }
    }
}

/// Why a kubelet will not start on a machine as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnfitMachine {
    /// The kernel has the old control groups mounted.
    CgroupV1,
    /// Swap is on.
    Swap,
}

/// What is wrong, and what to do about it.
impl fmt::Display for UnfitMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV1 => {
                "the machine has control groups of version 1, with which no supported kubelet starts: use an image \
                 that boots with version 2, or boot this one with `systemd.unified_cgroup_hierarchy=1`"
            }
            Self::Swap => {
                "swap is on, with which the kubelet does not start: turn it off, or allow it by `failSwapOn: false` in \
                 a file of /etc/quorate/kubelet.d"
            }
        })
    }
}

/// A taint as the node is registered with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Taint<'a> {
    effect: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
}

impl NodeInputs {
    /// The address at which programs of this machine reach each other.
    pub fn loopback(&self) -> Ipv4Addr {
        loopback_of(self.address)
    }

    /// Whether several machines share one host.
    pub fn shares_host(&self) -> bool {
        self.address.is_loopback()
    }

    /// What ties the node to its instance, for the cloud controller manager.
    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.instance)
    }

    /// The labels that it registers with, the operator's among them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = self
            .settings
            .node_labels
            .iter()
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        let role = match self.role {
            Role::ControlPlane => "control-plane",
            Role::Worker => "worker",
        };
        let mut set = |key: &str, value: String| labels.insert(key.to_owned(), value);
        set(ROLE_LABEL, role.to_owned());
        set("topology.kubernetes.io/region", self.region.to_string());
        set("topology.kubernetes.io/zone", self.zone.to_string());
        if let Some(kind) = &self.instance_type {
            set("node.kubernetes.io/instance-type", kind.clone());
        }
        if let Some(kind) = self.capacity_type {
            set(CAPACITY_TYPE_LABEL, kind.to_string());
        }
        if self.role == Role::ControlPlane {
            set("node.kubernetes.io/exclude-from-external-load-balancers", String::new());
        }
        labels
    }

    /// The taints that it registers with, the operator's among them.
    pub(super) fn taints(&self) -> Vec<Taint<'_>> {
        let mut taints: Vec<Taint<'_>> = self
            .settings
            .node_taints
            .iter()
            .map(|taint| Taint { key: taint.key(), value: taint.value(), effect: taint.effect().as_str() })
            .collect();
        if self.role == Role::ControlPlane {
            let effect = TaintEffect::NoSchedule.as_str();
            taints.push(Taint { key: CONTROL_PLANE_TAINT, value: "", effect });
        }
        taints.sort();
        taints
    }

    /// The most pods that it takes.
    ///
    /// # Errors
    /// See [`reserved::max_pods`].
    pub fn max_pods(&self) -> Result<u32, NoInterfaceLimits> {
        reserved::max_pods(&self.settings, self.instance_type.as_deref(), self.interface_limits)
    }

    /// Whether kube-proxy can use nftables here. All supported versions can.
    pub fn has_nftables(&self) -> bool {
        self.machine.nftables && self.machine.kernel >= NFTABLES_KERNEL
    }

    /// Why a kubelet would not start here: what the machine is, and what the operator's drop-ins allow.
    pub fn unfit(&self) -> Vec<UnfitMachine> {
        let allows_swap = super::kubelet::effective(self)
            .is_ok_and(|effective| effective.document["failSwapOn"] == serde_json::Value::Bool(false));
        let cgroup = (self.machine.cgroup == CgroupVersion::V1).then_some(UnfitMachine::CgroupV1);
        let swap = (self.machine.swap && !allows_swap).then_some(UnfitMachine::Swap);
        cgroup.into_iter().chain(swap).collect()
    }
}

/// The programs that read a file when they start, and the files, of those that are rendered.
const KUBELET_READS: [&str; 2] = [paths::KUBELET_CONFIG, paths::IMAGE_CREDENTIAL_PROVIDERS];
const KUBE_PROXY_READS: [&str; 2] = [paths::KUBE_PROXY_CONFIG, paths::KUBE_PROXY_KUBECONFIG];

/// What containerd is started with.
pub fn containerd_launch() -> ServiceLaunch {
    ServiceLaunch {
        program: super::containerd::PROGRAM.to_owned(),
        arguments: Vec::new(),
        // Its configuration is the machine's own: no change of it is followed.
        configuration: String::new(),
    }
}

/// What the kubelet is started with, from the files that were rendered for the same inputs. `cluster`:
/// what else it has read when it runs, as the endpoint and the authority in its kubeconfig.
pub fn kubelet_launch(inputs: &NodeInputs, files: &[RenderedFile], cluster: &[&str]) -> ServiceLaunch {
    let program = inputs.settings.kubelet_binary.to_string();
    launch(program, kubelet::arguments(inputs), &KUBELET_READS, files, cluster)
}

/// What kube-proxy is started with.
pub fn kube_proxy_launch(inputs: &NodeInputs, files: &[RenderedFile], cluster: &[&str]) -> ServiceLaunch {
    let program = inputs.settings.kube_proxy_binary.to_string();
    launch(program, kube_proxy::arguments(), &KUBE_PROXY_READS, files, cluster)
}

fn launch(
    program: String,
    arguments: Vec<String>,
    reads: &[&str],
    files: &[RenderedFile],
    cluster: &[&str],
) -> ServiceLaunch {
    let read = files.iter().filter(|file| reads.contains(&file.path.as_str()));
    let mut parts: Vec<&str> = vec![&program];
    parts.extend(arguments.iter().map(String::as_str));
    parts.extend(read.map(|file| file.content.as_str()));
    parts.extend(cluster);
    let configuration = super::sha256(&parts);
    ServiceLaunch { program, arguments, configuration }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_as_the_setting_says() {
        let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        let name = |naming, dns: Option<&str>| node_name(naming, &instance, dns).map(String::from);
        let (by_id, by_name) = (NodeNaming::InstanceId, NodeNaming::PrivateDnsName);
        assert_eq!(name(by_id, Some("ip-10-0-1-5.ec2.internal")).as_deref(), Ok("i-0123456789abcdef0"));
        assert_eq!(
            name(by_name, Some("IP-10-0-1-5.ec2.internal b.example")).as_deref(),
            Ok("ip-10-0-1-5.ec2.internal")
        );
        assert_eq!(name(by_name, None), Err(NoNodeName::Unknown));
        assert!(matches!(name(by_name, Some("a_b")), Err(NoNodeName::Invalid(_))));
        assert!(matches!(name(by_name, Some("")), Err(NoNodeName::Invalid(_))));
    }
}
