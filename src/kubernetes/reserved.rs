//! How many pods a node takes, and what of it is kept from them: arithmetic alone.
//!
//! | what | rule | source |
//! |---|---|---|
//! | CPU for Kubernetes | 6 % of the first, 1 % of the second, 0.5 % of the third and fourth, 0.25 % of all others | GKE's, which EKS' nodeadm has too |
//! | memory for Kubernetes | 255 MiB and 11 MiB a pod, at most a quarter of the memory | nodeadm; the bound is AKS', for small machines with many pods |
//! | disk for Kubernetes | 1 GiB | nodeadm |
//! | etcd, on a control-plane node | 100m CPU and 100 MiB | what kubeadm's etcd pod requests; here it is a service |
//! | eviction | the kubelet's own thresholds, written out | "Node-pressure Eviction", Kubernetes' documentation |
//! | pods | 110, or as many as there are addresses | the kubelet's default; `eni-max-pods.txt` of the VPC CNI |
//!
//! Sources: "Plan GKE Standard node sizes"; `nodeadm/internal/kubelet/config.go` in awslabs/amazon-eks-ami; "Node
//! resource reservations in AKS".

use serde_json::{Value, json};

use crate::config::settings::{KubernetesSettings, PodNetwork, node_range_length, pods_of_a_range};
use crate::model::Role;
use crate::model::node::{InterfaceLimits, Machine};

use super::instance_types::interface_limits;

/// The kubelet's own default, and the largest number that Kubernetes is tested with.
/// Source: "Considerations for large clusters", Kubernetes' documentation.
const USUAL_PODS: u32 = 110;

const MIB: u64 = 1 << 20;

/// How many pods a node can have is not known: what its instance type allows is in no table and was not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "how many pods {} takes with the VPC CNI is not known here; set `kubernetes.kubelet.maxPods`",
    instance_type.as_deref().unwrap_or("this machine, whose type is not known,")
)]
pub struct NoInterfaceLimits {
    /// The type, where it is known.
    pub instance_type: Option<String>,
}

/// Whether EC2 has to be asked what the instance type allows (`DescribeInstanceTypes`): only with the VPC CNI, and
/// only when the operator has not set the number and the table does not have the type.
pub fn asks_for_interface_limits(settings: &KubernetesSettings, instance_type: Option<&str>) -> bool {
    settings.pod_network == PodNetwork::VpcCni
        && settings.kubelet.max_pods.is_none()
        && instance_type.and_then(interface_limits).is_none()
}

/// The most pods of a node. `asked` is what EC2 says of its type, where it was asked.
///
/// # Errors
/// With the VPC CNI, a type that is not known and was not asked for.
pub fn max_pods(
    settings: &KubernetesSettings,
    instance_type: Option<&str>,
    asked: Option<InterfaceLimits>,
) -> Result<u32, NoInterfaceLimits> {
    if let Some(set) = settings.kubelet.max_pods {
        return Ok(set);
    }
    match settings.pod_network {
        PodNetwork::VpcCni => {
            let limits = instance_type.and_then(interface_limits).or(asked);
            let unknown = || NoInterfaceLimits { instance_type: instance_type.map(str::to_owned) };
            limits.map(pods_of_interfaces).ok_or_else(unknown)
        }
        PodNetwork::Routed | PodNetwork::Other => {
            let length = node_range_length(&settings.controller_manager.additions.extra_args);
            let most = settings.pod_subnet.map_or(USUAL_PODS, |_| pods_of_a_range(length));
            Ok(USUAL_PODS.min(most))
        }
    }
}

/// The first address of an interface is the node's, and the two pods that need none are kube-proxy and the CNI's own.
/// (Here kube-proxy is a service; the number is AWS' all the same.)
/// Source: `misc/eni-max-pods.txt` in aws/amazon-vpc-cni-k8s.
fn pods_of_interfaces(limits: InterfaceLimits) -> u32 {
    limits.interfaces * limits.addresses.saturating_sub(1) + 2
}

/// The CPU time that is kept for Kubernetes, in thousandths of a CPU.
fn cpu_millis(cpus: u32) -> u32 {
    /// How many CPUs, and how many hundredths of a thousandth of each.
    const STEPS: [(u32, u32); 4] = [(1, 6_000), (1, 1_000), (2, 500), (u32::MAX, 250)];
    let mut left = cpus;
    let hundredths: u32 = STEPS
        .iter()
        .map(|(most, each)| {
            let some = left.min(*most);
            left -= some;
            some.saturating_mul(*each)
        })
        .fold(0, u32::saturating_add);
    hundredths / 100
}

/// The memory that is kept for Kubernetes, in MiB.
fn memory_mib(memory: u64, pods: u32) -> u64 {
    (255 + 11 * u64::from(pods)).min(memory / MIB / 4)
}

/// `kubeReserved` of the kubelet's configuration.
pub(super) fn kube_reserved(machine: &Machine, pods: u32) -> Value {
    json!({
        "cpu": format!("{}m", cpu_millis(machine.cpus)),
        "ephemeral-storage": "1Gi",
        "memory": format!("{}Mi", memory_mib(machine.memory, pods)),
    })
}

/// `systemReserved`: what runs beside Kubernetes on a node of this role, if anything does.
pub(super) fn system_reserved(role: Role) -> Option<Value> {
    match role {
        Role::ControlPlane => Some(json!({ "cpu": "100m", "memory": "100Mi" })),
        Role::Worker => None,
    }
}

/// `evictionHard`. All are written out: one that is left out beside others is no threshold at all.
pub(super) fn eviction_hard() -> Value {
    json!({
        "imagefs.available": "15%",
        "imagefs.inodesFree": "5%",
        "memory.available": "100Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{InstanceTags, load};

    fn settings(kubernetes: &str) -> KubernetesSettings {
        let text = format!("cluster: demo\nbucket: demo-quorate\nkubernetes: {kubernetes}\n");
        let tags = InstanceTags { cluster: None, role: Some("worker".to_owned()) };
        load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings.kubernetes
    }

    /// GKE's own examples, and the numbers of nodeadm's `config_test.go` for 2, 8 and 96 CPUs.
    #[test]
    fn cpu_is_reserved_as_gke_and_eks_have_it() {
        for (cpus, millis) in [
            (0, 0),
            (1, 60),
            (2, 70),
            (3, 75),
            (4, 80),
            (8, 90),
            (16, 110),
            (48, 190),
            (96, 310),
            (192, 550),
            (448, 1_190),
        ] {
            assert_eq!(cpu_millis(cpus), millis, "{cpus}");
        }
    }

    /// nodeadm's formula for its numbers of pods; below, where a quarter of the memory is less.
    #[test]
    fn memory_is_reserved_by_pods_and_never_more_than_a_quarter() {
        for (gib, pods, mib) in [
            (64, 17, 442),
            (64, 29, 574),
            (64, 58, 893),
            (64, 110, 1_465),
            (64, 234, 2_829),
            (768, 737, 8_362),
            (1, 110, 256),
            (2, 110, 512),
            (4, 110, 1_024),
            (8, 110, 1_465),
            (4, 17, 442),
        ] {
            assert_eq!(memory_mib(gib << 30, pods), mib, "{gib} GiB, {pods} pods");
        }
    }

    /// `misc/eni-max-pods.txt` in aws/amazon-vpc-cni-k8s.
    #[test]
    fn with_the_vpc_cni_a_node_takes_as_many_pods_as_aws_lists() {
        let vpc = settings("{podNetwork: vpc-cni}");
        for (name, pods) in [
            ("t3.nano", 4),
            ("t3.medium", 17),
            ("m7g.large", 29),
            ("m5.xlarge", 58),
            ("c5.4xlarge", 234),
            ("m7i.48xlarge", 737),
            ("p5.48xlarge", 100),
        ] {
            assert_eq!(max_pods(&vpc, Some(name), None), Ok(pods), "{name}");
            assert!(!asks_for_interface_limits(&vpc, Some(name)), "{name}");
        }
    }

    #[test]
    fn ec2_is_asked_only_for_a_type_that_the_table_does_not_have() {
        let vpc = settings("{podNetwork: vpc-cni}");
        assert!(asks_for_interface_limits(&vpc, Some("z99.large")));
        assert!(asks_for_interface_limits(&vpc, None));
        assert!(!asks_for_interface_limits(&settings("{}"), Some("z99.large")));
        assert!(!asks_for_interface_limits(&settings("{podNetwork: vpc-cni, kubelet: {maxPods: 40}}"), None));
        let asked = InterfaceLimits { interfaces: 4, addresses: 15 };
        assert_eq!(max_pods(&vpc, Some("z99.large"), Some(asked)), Ok(58));
        let error = max_pods(&vpc, Some("z99.large"), None).unwrap_err().to_string();
        assert!(error.contains("z99.large") && error.contains("kubelet.maxPods"), "{error}");
        assert!(max_pods(&vpc, None, None).unwrap_err().to_string().contains("whose type is not known"));
    }

    #[test]
    fn elsewhere_it_takes_the_usual_number_or_what_its_range_holds() {
        for (kubernetes, pods) in [
            ("{}", 110),
            ("{podSubnet: 10.244.0.0/16, podNetwork: routed}", 110),
            ("{podSubnet: 10.244.0.0/16, kubelet: {maxPods: 253}}", 253),
            ("{kubelet: {maxPods: 400}}", 400),
            ("{podSubnet: 10.244.0.0/16, controllerManager: {extraArgs: [--node-cidr-mask-size=26]}}", 61),
            (
                "{podSubnet: 10.244.0.0/16, kubelet: {maxPods: 400}, controllerManager: {extraArgs: [--node-cidr-mask-size=23]}}",
                400,
            ),
        ] {
            assert_eq!(max_pods(&settings(kubernetes), None, None), Ok(pods), "{kubernetes}");
        }
    }

    proptest! {
        #[test]
        fn pods_are_always_left_most_of_the_machine(cpus in 1..1_024_u32, gib in 1..32_768_u64, pods in 1..1_000_u32) {
            prop_assert!(cpu_millis(cpus) <= cpus * 60);
            prop_assert!(memory_mib(gib << 30, pods) <= gib * 256);
            prop_assert!(memory_mib(gib << 30, pods) <= memory_mib(gib << 30, pods + 1));
            prop_assert!(cpu_millis(cpus) <= cpu_millis(cpus + 1));
        }
    }
}
