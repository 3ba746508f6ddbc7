//! What is every node's: small and large machines, both roles, the oldest and the newest version.

use super::*;
use crate::kubernetes::node::UnfitMachine;
use crate::model::node::{DropIn, InterfaceLimits};

/// A node of an instance type.
fn sized(kind: &str, cpus: u32, gib: u64, kubernetes: &str) -> NodeInputs {
    NodeInputs { instance_type: Some(kind.to_owned()), machine: machine(cpus, gib), ..node(kubernetes) }
}

const ROUTED: &str = "{podSubnet: 10.244.0.0/16, podNetwork: routed}";
const VPC: &str = "{podNetwork: vpc-cni}";

fn joining(node: NodeInputs) -> WorkerInputs {
    WorkerInputs {
        node: NodeInputs { role: Role::Worker, ..node },
        endpoint: "demo-0123.elb.eu-west-1.amazonaws.com".parse().unwrap(),
        authority: "-----BEGIN CERTIFICATE-----\n".to_owned(),
    }
}

fn small(kubernetes: &str) -> NodeInputs {
    sized("t3.medium", 2, 4, kubernetes)
}

fn middle(kubernetes: &str) -> NodeInputs {
    sized("m7g.large", 2, 8, kubernetes)
}

fn large(kubernetes: &str) -> NodeInputs {
    sized("m7i.48xlarge", 192, 768, kubernetes)
}

fn drop_in(name: &str, text: &str) -> DropIn {
    DropIn { path: format!("{}/{name}", paths::KUBELET_DROP_INS), text: text.to_owned() }
}

fn of(inputs: &NodeInputs, path: &str) -> String {
    node_files(inputs).unwrap().into_iter().find(|file| file.path == path).unwrap().content
}

fn worker_page(inputs: &WorkerInputs) -> String {
    let mut page = format!("kubelet {}\n", kubelet::arguments(&inputs.node).join(" "));
    for file in worker(inputs).unwrap() {
        page += &format!("--- {} {:o} {:?}\n{}", file.path, file.mode, file.owner, file.content);
    }
    page
}

#[test]
fn files_of_a_small_worker() {
    let mut node = small(VPC);
    node.capacity_type = Some(CapacityType::Spot);
    node.machine.ecr_credential_provider = Some("/usr/local/bin".to_owned());
    insta::assert_snapshot!(worker_page(&joining(node)));
}

#[test]
fn files_of_a_large_worker_of_the_oldest_version_with_all_that_can_be_set() {
    let mut node = large(
        "{podNetwork: vpc-cni, nodeName: private-dns-name, nodeLabels: [example.com/team=a, node.kubernetes.io/pool=big],
          nodeTaints: [\"example.com/pool=batch:NoSchedule\", \"example.com/only:NoExecute\"], clusterDomain: demo.internal}",
    );
    node.version = "v1.34.0".parse().unwrap();
    node.name = "ip-10-0-1-5.eu-west-1.compute.internal".parse().unwrap();
    node.drop_ins = vec![
        drop_in("10-logs.conf", "containerLogMaxSize: 50Mi\ncontainerLogMaxFiles: 3\n"),
        drop_in("20-room.conf", "kubeReserved: {memory: 12Gi}\nevictionHard: {memory.available: 1Gi}\n"),
    ];
    insta::assert_snapshot!(worker_page(&joining(node)));
}

/// What a machine's size decides.
fn sizes(node: &NodeInputs) -> String {
    let document: Value = serde_saphyr::from_str(&of(node, paths::KUBELET_CONFIG)).unwrap();
    let field = |name: &str| format!("{name}={}", document[name]);
    ["maxPods", "kubeReserved", "systemReserved"].map(field).join(" ")
}

#[test]
fn sizes_are_reserved_for_small_and_large_machines_in_both_roles() {
    let mut told = String::new();
    for (role, name) in [(Role::ControlPlane, "control-plane"), (Role::Worker, "worker")] {
        for kubernetes in [ROUTED, VPC] {
            for node in [small(kubernetes), middle(kubernetes), large(kubernetes)] {
                let node = NodeInputs { role, ..node };
                let kind = node.instance_type.clone().unwrap();
                let network = node.settings.pod_network;
                told += &format!("{name} {network} {kind}: {}\n", sizes(&node));
            }
        }
    }
    insta::assert_snapshot!(told, @r#"
    control-plane routed t3.medium: maxPods=110 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"983Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    control-plane routed m7g.large: maxPods=110 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"1465Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    control-plane routed m7i.48xlarge: maxPods=110 kubeReserved={"cpu":"550m","ephemeral-storage":"1Gi","memory":"1465Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    control-plane vpc-cni t3.medium: maxPods=17 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"442Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    control-plane vpc-cni m7g.large: maxPods=29 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"574Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    control-plane vpc-cni m7i.48xlarge: maxPods=737 kubeReserved={"cpu":"550m","ephemeral-storage":"1Gi","memory":"8362Mi"} systemReserved={"cpu":"100m","memory":"100Mi"}
    worker routed t3.medium: maxPods=110 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"983Mi"} systemReserved=null
    worker routed m7g.large: maxPods=110 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"1465Mi"} systemReserved=null
    worker routed m7i.48xlarge: maxPods=110 kubeReserved={"cpu":"550m","ephemeral-storage":"1Gi","memory":"1465Mi"} systemReserved=null
    worker vpc-cni t3.medium: maxPods=17 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"442Mi"} systemReserved=null
    worker vpc-cni m7g.large: maxPods=29 kubeReserved={"cpu":"70m","ephemeral-storage":"1Gi","memory":"574Mi"} systemReserved=null
    worker vpc-cni m7i.48xlarge: maxPods=737 kubeReserved={"cpu":"550m","ephemeral-storage":"1Gi","memory":"8362Mi"} systemReserved=null
    "#);
}

#[test]
fn roles_differ_in_this_and_nothing_else() {
    let node = middle(ROUTED);
    let other = NodeInputs { role: Role::Worker, ..node.clone() };
    let files = |node: &NodeInputs| -> String {
        node_files(node)
            .unwrap()
            .into_iter()
            .map(|file| file.content)
            .chain(kubelet::arguments(node).into_iter().map(|argument| argument + "\n"))
            .collect()
    };
    insta::assert_snapshot!(difference(&files(&node), &files(&other)), @r#"
    - registerWithTaints:
    - - effect: NoSchedule
    - key: node-role.kubernetes.io/control-plane
    - shutdownGracePeriod: 2m5s
    - shutdownGracePeriodCriticalPods: 1m35s
    - staticPodPath: /etc/kubernetes/manifests
    - systemReserved:
    - cpu: 100m
    - memory: 100Mi
    - kubeconfig: /etc/kubernetes/kubelet.conf
    - InhibitDelayMaxSec=125
    - --node-labels=node.kubernetes.io/exclude-from-external-load-balancers=,node.kubernetes.io/instance-type=m7g.large,node.kubernetes.io/lifecycle=on-demand,quorate.io/role=control-plane,topology.kubernetes.io/region=eu-west-1,topology.kubernetes.io/zone=eu-west-1a
    + shutdownGracePeriod: 2m30s
    + shutdownGracePeriodCriticalPods: 30s
    + kubeconfig: /etc/kubernetes/kube-proxy.conf
    + InhibitDelayMaxSec=150
    + --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf
    + --node-labels=node.kubernetes.io/instance-type=m7g.large,node.kubernetes.io/lifecycle=on-demand,quorate.io/role=worker,topology.kubernetes.io/region=eu-west-1,topology.kubernetes.io/zone=eu-west-1a
    "#);
}

#[test]
fn workers_of_all_versions_differ_in_this_and_nothing_else() {
    let of_version = |version: &str| {
        let node = NodeInputs { version: version.parse().unwrap(), ..middle(ROUTED) };
        worker_page(&joining(node))
    };
    insta::assert_snapshot!(difference(&of_version("v1.34.0"), &of_version("v1.35.0")), @"- failCgroupV1: true");
    assert_eq!(of_version("v1.35.0"), of_version("v1.36.2"));
    assert_eq!(of_version("v1.36.2"), of_version("v1.37.1"));
}

#[test]
fn every_file_of_a_worker_is_listed_and_has_its_directory() {
    let mut node = middle(ROUTED);
    node.machine.ecr_credential_provider = Some("/usr/bin".to_owned());
    let files = worker(&joining(node.clone())).unwrap();
    let found: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(found, paths::WORKER_RENDERED);
    for path in found {
        let parent = path.rsplit_once('/').unwrap().0;
        assert!(paths::WORKER_DIRECTORIES.iter().any(|place| place.path == parent), "{path}");
    }
    let inputs = ControlPlaneInputs { node, ..inputs("{}") };
    let files = control_plane(&inputs).unwrap().files;
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths::RENDERED);
}

#[test]
fn a_workers_files_are_no_secrets_and_its_kube_proxy_has_its_kubelets_identity() {
    let files = worker(&joining(middle(ROUTED))).unwrap();
    assert!(files.iter().all(|file| file.owner == Owner::Root && file.mode == paths::PUBLIC));
    let kubeconfig = files.iter().find(|file| file.path == paths::KUBE_PROXY_KUBECONFIG).unwrap();
    let found = kubeconfig::read(&kubeconfig.content).unwrap();
    assert_eq!(found.server.to_string(), "https://demo-0123.elb.eu-west-1.amazonaws.com:6443");
    let own = || paths::KUBELET_ROTATING_CERTIFICATE.to_owned();
    assert_eq!(found.credential, kubeconfig::FoundCredential::Files { certificate: own(), key: own() });
    let proxy = files.iter().find(|file| file.path == paths::KUBE_PROXY_CONFIG).unwrap();
    assert!(proxy.content.contains(paths::KUBE_PROXY_KUBECONFIG));
}

#[test]
fn kube_proxy_uses_nftables_where_kernel_and_machine_have_it() {
    let mode = |kernel: &str, nftables: bool| {
        let mut node = middle(ROUTED);
        node.machine.kernel = kernel.parse().unwrap();
        node.machine.nftables = nftables;
        let document: Value = serde_saphyr::from_str(&of(&node, paths::KUBE_PROXY_CONFIG)).unwrap();
        document["mode"].as_str().unwrap().to_owned()
    };
    assert_eq!(mode("5.13.0", true), "nftables");
    assert_eq!(mode("6.12.0", true), "nftables");
    assert_eq!(mode("6.12.0", false), "iptables");
    assert_eq!(mode("5.12.19", true), "iptables");
    assert_eq!(mode("5.9.0", true), "iptables");
}

#[test]
fn a_name_is_the_same_in_kubelet_kube_proxy_and_leaves() {
    let mut inputs = inputs("{nodeName: private-dns-name}");
    inputs.node.name = "ip-10-0-1-5.ec2.internal".parse().unwrap();
    let request = inputs.leaf_request().unwrap();
    assert_eq!(request.node, inputs.node.name);
    assert!(request.names().unwrap().api_server.contains(&"ip-10-0-1-5.ec2.internal".parse().unwrap()));
    assert!(
        kubelet::arguments(&inputs.node).contains(&"--hostname-override=ip-10-0-1-5.ec2.internal".to_owned())
    );
    assert!(
        of(&inputs.node, paths::KUBE_PROXY_CONFIG).contains("hostnameOverride: ip-10-0-1-5.ec2.internal")
    );
}

#[test]
fn a_type_that_is_not_known_stops_rendering_only_where_it_matters() {
    let mut node = sized("z99.large", 2, 8, VPC);
    let error = node_files(&node).unwrap_err();
    assert!(matches!(&error, RenderError::MaxPods(_)) && error.to_string().contains("z99.large"), "{error}");
    node.interface_limits = Some(InterfaceLimits { interfaces: 4, addresses: 15 });
    assert!(sizes(&node).starts_with("maxPods=58 "));
    assert!(sizes(&sized("z99.large", 2, 8, ROUTED)).starts_with("maxPods=110 "));
}

#[test]
fn logind_waits_as_long_as_the_kubelet_does() {
    let text = |node: &NodeInputs| of(node, paths::LOGIND);
    let mut node = NodeInputs { role: Role::Worker, ..middle(ROUTED) };
    assert!(text(&node).ends_with("[Login]\nInhibitDelayMaxSec=150\n"));
    node.drop_ins = vec![drop_in("a.conf", "shutdownGracePeriod: 5m\n")];
    assert!(text(&node).ends_with("InhibitDelayMaxSec=300\n"));
    node.drop_ins =
        vec![drop_in("a.conf", "shutdownGracePeriod: null\nshutdownGracePeriodCriticalPods: null\n")];
    assert!(text(&node).ends_with("InhibitDelayMaxSec=0\n"));
    // The agent of a control-plane machine needs its seconds all the same.
    node.role = Role::ControlPlane;
    assert!(text(&node).ends_with("InhibitDelayMaxSec=10\n"));
    node.role = Role::Worker;
    node.drop_ins = vec![drop_in("a.conf", "shutdownGracePeriod: 5\n")];
    let error = crate::model::fact::chain(&node_files(&node).unwrap_err());
    assert!(
        error.contains("/etc/quorate/kubelet.d/a.conf sets `shutdownGracePeriod`, which is not a duration"),
        "{error}"
    );
}

#[test]
fn a_wrong_drop_in_is_said_with_its_file_and_nothing_is_rendered() {
    let mut node = middle(ROUTED);
    node.drop_ins = vec![drop_in("a.conf", "providerID: x\n"), drop_in("b.conf", "maxPodz: 3\n")];
    let error = crate::model::fact::chain(&node_files(&node).unwrap_err());
    assert!(error.starts_with("merging /etc/quorate/kubelet.d: "), "{error}");
    for part in
        ["a.conf sets `providerID`, which is quorate's", "b.conf sets `maxPodz`, which KubeletConfiguration"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_machine_on_which_no_kubelet_starts_is_told() {
    let mut node = middle(ROUTED);
    assert!(node.unfit().is_empty());
    node.machine.cgroup = CgroupVersion::V1;
    node.machine.swap = true;
    assert_eq!(node.unfit(), [UnfitMachine::CgroupV1, UnfitMachine::Swap]);
    node.drop_ins =
        vec![drop_in("swap.conf", "failSwapOn: false\nmemorySwap: {swapBehavior: LimitedSwap}\n")];
    assert_eq!(node.unfit(), [UnfitMachine::CgroupV1]);
    assert!(UnfitMachine::CgroupV1.to_string().contains("version 1"));
}

#[test]
fn inputs_of_workers_survive_being_recorded() {
    let mut node = small(VPC);
    node.drop_ins = vec![drop_in("a.conf", "registryPullQPS: 50\n")];
    let inputs = joining(node);
    let recorded = serde_json::to_string(&inputs).unwrap();
    assert_eq!(serde_json::from_str::<WorkerInputs>(&recorded).unwrap(), inputs);
}
