//! What is rendered, asked of Kubernetes' own programs: they know each flag, none is deprecated, and they take the
//! configuration files. Skipped where the programs are not there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::config::{InstanceTags, load};
use quorate::kubernetes::component::Component;
use quorate::kubernetes::{
    ControlPlaneInputs, KubernetesVersion, NodeInputs, RenderedFile, WorkerInputs, control_plane, flags,
    kube_proxy, kubelet, paths, worker,
};
use quorate::lab::kubelet::Programs;
use quorate::model::Role;
use quorate::model::node::{CapacityType, CgroupVersion, DropIn, Machine};

/// The program of this name, if it is there.
fn program(name: &str) -> Option<PathBuf> {
    let path = Programs::place().join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no {}", path.display());
    None
}

/// What a program says, on both of its outputs, and whether it ended well.
fn said(program: &Path, arguments: &[String]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

/// The program's version; none when it is one that is not supported.
fn version(program: &Path) -> Option<KubernetesVersion> {
    let (_, text) = said(program, &["--version".to_owned()]);
    text.split_whitespace().last().and_then(|version| version.parse().ok())
}

fn inputs(version: KubernetesVersion, kubernetes: &str) -> ControlPlaneInputs {
    let text = format!("cluster: demo\nbucket: demo-quorate\nkubernetes: {kubernetes}\n");
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    let settings = load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings;
    ControlPlaneInputs {
        node: NodeInputs {
            cluster: settings.cluster,
            settings: settings.kubernetes,
            version,
            role: Role::ControlPlane,
            name: "i-0123456789abcdef0".parse().unwrap(),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            zone: "eu-west-1a".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            address: "127.0.3.1".parse().unwrap(),
            instance_type: Some("m7g.large".to_owned()),
            capacity_type: Some(CapacityType::Spot),
            machine: Machine {
                cpus: 2,
                memory: 8 << 30,
                swap: false,
                kernel: "6.12".parse().unwrap(),
                cgroup: CgroupVersion::V2,
                nftables: true,
                ecr_credential_provider: Some("/usr/bin".to_owned()),
            },
            interface_limits: None,
            drop_ins: Vec::new(),
        },
        endpoint: "api.example.com".parse().unwrap(),
        etcd_endpoints: vec!["https://127.0.3.1:2379".to_owned()],
        authorities: String::new(),
        recovered: None,
    }
}

const WITH_PODS: &str = "{podSubnet: 10.244.0.0/16}";

/// Each flag of a program with what its help says of it.
fn known_flags(help: &str) -> BTreeMap<String, String> {
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in help.lines() {
        let entry = line.trim_start().trim_start_matches("-v, ");
        if let Some(rest) = entry.strip_prefix("--")
            && line.starts_with("  ")
        {
            let name = rest.split([' ', '=']).next().unwrap_or_default().to_owned();
            flags.insert(name.clone(), entry.to_owned());
            last = Some(name);
        } else if let Some(text) = last.as_ref().and_then(|name| flags.get_mut(name)) {
            text.push_str(line);
        }
    }
    flags
}

/// Holds a program's flags against its help.
fn check(name: &str, arguments: impl Fn(KubernetesVersion) -> Vec<String>) {
    let Some(program) = program(name) else { return };
    let Some(version) = version(&program) else {
        eprintln!("SKIPPED: {} is of a version that is not supported", program.display());
        return;
    };
    let (well, help) = said(&program, &["--help".to_owned()]);
    assert!(well, "{help}");
    let known = known_flags(&help);
    assert!(known.len() > 5, "{name}: {help}");
    for argument in arguments(version) {
        let flag = argument.trim_start_matches("--").split('=').next().unwrap_or_default();
        let text = known.get(flag).unwrap_or_else(|| panic!("{name} {version} does not know --{flag}"));
        // The API server's log handler and endpoint reconciler speak of others' deprecation in the middle.
        let deprecated = text.split_once(' ').is_some_and(|(_, rest)| rest.contains("DEPRECATED"));
        assert!(!deprecated, "{name} {version}: {text}");
    }
}

#[test]
fn every_flag_of_the_control_plane_is_known_and_not_deprecated() {
    for component in Component::ALL {
        check(component.name(), |version| flags::flags(&inputs(version, WITH_PODS), component));
    }
}

#[test]
fn every_flag_of_the_node_is_known_and_not_deprecated() {
    check("kubelet", |version| kubelet::arguments(&inputs(version, WITH_PODS).node));
    check("kubelet", |version| kubelet::arguments(&joining(version).node));
    check("kube-proxy", |_| kube_proxy::arguments());
}

/// A worker, with a label, a taint and a drop-in of the operator's.
fn joining(version: KubernetesVersion) -> WorkerInputs {
    let kubernetes = "{podSubnet: 10.244.0.0/16, podNetwork: routed, nodeLabels: [example.com/team=a, \
                      node.kubernetes.io/pool=], nodeTaints: [\"example.com/pool=batch:NoSchedule\"]}";
    let ControlPlaneInputs { mut node, endpoint, .. } = inputs(version, kubernetes);
    node.role = Role::Worker;
    let text = "evictionHard: {memory.available: 5%}\nimageGCHighThresholdPercent: 90\n".to_owned();
    node.drop_ins = vec![DropIn { path: "/etc/quorate/kubelet.d/10.conf".to_owned(), text }];
    WorkerInputs { node, endpoint, authority: "an authority".to_owned() }
}

/// A kubeconfig that leads nowhere.
const NOWHERE: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.3.1:1'}}]\n\
                       users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n\
                       current-context: x\n";

/// The rendered file, its kubeconfig being one that leads nowhere.
fn written(directory: &Path, files: &[RenderedFile], path: &str) -> PathBuf {
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, NOWHERE).unwrap();
    let file = files.iter().find(|file| file.path == path).unwrap();
    let text = [paths::KUBELET_KUBECONFIG, paths::KUBE_PROXY_KUBECONFIG, paths::SCHEDULER_KUBECONFIG]
        .iter()
        .fold(file.content.clone(), |text, old| text.replace(old, kubeconfig.to_str().unwrap()));
    let written = directory.join("config.yaml");
    std::fs::write(&written, text).unwrap();
    written
}

/// Has a program read a configuration and write it down again, which it does after checking it.
fn rewrites(name: &str, path: &str, kubernetes: &str, nftables: bool) -> Option<String> {
    let program = program(name)?;
    let version = version(&program)?;
    let directory = tempfile::tempdir().unwrap();
    let mut inputs = inputs(version, kubernetes);
    inputs.node.machine.nftables = nftables;
    let config = written(directory.path(), &control_plane(&inputs).unwrap().files, path);
    let copy = directory.path().join("copy.yaml");
    let mut arguments =
        vec![format!("--config={}", config.display()), format!("--write-config-to={}", copy.display())];
    if name == "kube-scheduler" {
        // It listens before it writes, and its own port may be another's on this machine.
        arguments.push("--secure-port=0".to_owned());
    }
    let (well, text) = said(&program, &arguments);
    assert!(well && copy.exists(), "{name}: {text}");
    assert!(
        !text.contains("strict decoding") && !text.to_lowercase().contains("deprecated"),
        "{name}: {text}"
    );
    Some(std::fs::read_to_string(copy).unwrap())
}

#[test]
fn the_scheduler_takes_its_configuration() {
    let Some(copy) = rewrites("kube-scheduler", paths::SCHEDULER_CONFIG, "{}", true) else { return };
    assert!(copy.contains("defaultingType: List"), "{copy}");
    assert!(copy.contains("topologyKey: topology.kubernetes.io/zone"), "{copy}");
    assert!(copy.contains("enableProfiling: false"), "{copy}");
}

#[test]
fn kube_proxy_takes_its_configuration() {
    let Some(copy) = rewrites("kube-proxy", paths::KUBE_PROXY_CONFIG, "{}", false) else { return };
    assert!(copy.contains("mode: iptables"), "{copy}");
    let Some(copy) = rewrites("kube-proxy", paths::KUBE_PROXY_CONFIG, WITH_PODS, true) else { return };
    assert!(copy.contains("mode: nftables"), "{copy}");
    assert!(copy.contains("clusterCIDR: 10.244.0.0/16"), "{copy}");
}

/// What the kubelet says of a node's configuration, with a text after it, before it ends for want of a file:
/// that is after all that is said about flags and configuration.
fn said_by_the_kubelet(node: &NodeInputs, files: &[RenderedFile], after: &str) -> Option<String> {
    let program = program("kubelet")?;
    let directory = tempfile::tempdir().unwrap();
    let config = written(directory.path(), files, paths::KUBELET_CONFIG);
    // Whatever machine the test runs on: the kubelet is not meant to start.
    let text = std::fs::read_to_string(&config).unwrap().replace("failCgroupV1: true\n", "");
    std::fs::write(&config, text + "failCgroupV1: false\n" + after).unwrap();
    let mut arguments = kubelet::arguments(node);
    let files = ["--config=", "--kubeconfig=", "--bootstrap-kubeconfig="];
    arguments.retain(|argument| !files.iter().any(|file| argument.starts_with(file)));
    arguments.push(format!("--config={}", config.display()));
    arguments.push(format!("--root-dir={}", directory.path().join("kubelet").display()));
    arguments.push(format!("--cert-dir={}", directory.path().join("pki").display()));
    arguments.push(format!("--kubeconfig={}", directory.path().join("missing").display()));
    let (well, text) = said(&program, &arguments);
    assert!(!well, "{text}");
    Some(text)
}

#[test]
fn the_kubelet_takes_its_configuration_on_both_roles() {
    let Some(version) = program("kubelet").and_then(|program| version(&program)) else { return };
    let master = inputs(version, WITH_PODS);
    let worker_inputs = joining(version);
    for (node, files) in [
        (&master.node, control_plane(&master).unwrap().files),
        (&worker_inputs.node, worker(&worker_inputs).unwrap()),
    ] {
        let text = said_by_the_kubelet(node, &files, "").unwrap();
        // Before 1.36 it reads the CA first.
        let ends = ["unable to load kubeconfig", "unable to load client CA file"];
        assert!(ends.iter().any(|end| text.contains(end)), "{text}");
        assert!(!text.contains("strict decoding") && !text.to_lowercase().contains("deprecated"), "{text}");
        // It would have said so.
        let text = said_by_the_kubelet(node, &files, "maxPodz: 3\n").unwrap();
        assert!(text.contains("strict decoding") && text.contains("maxPodz"), "{text}");
        let text = said_by_the_kubelet(node, &files, "kubeAPIQPS: -1\n").unwrap();
        assert!(text.contains("invalid configuration"), "{text}");
    }
}
