//! Every rendered file, for a matrix of settings and versions.

mod nodes;

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

use crate::config::settings::KubernetesSettings;
use crate::config::{InstanceTags, flags as owned, load};
use crate::model::Role;
use crate::model::ids::InstanceId;
use crate::model::node::{CapacityType, CgroupVersion, Machine};
use crate::pki::files::{DIRS, FILES};
use crate::pki::{EncryptionKey, Secret};

/// Settings of this text below `kubernetes`, in flow style.
fn settings(kubernetes: &str) -> KubernetesSettings {
    let text = format!("cluster: demo\nbucket: demo-quorate\nkubernetes: {kubernetes}\n");
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings.kubernetes
}

/// A machine of an instance type with so many CPUs and so much of its GiB as the kernel gives.
fn machine(cpus: u32, gib: u64) -> Machine {
    Machine {
        cpus,
        memory: (gib << 30) / 100 * 96,
        swap: false,
        kernel: "6.12.40".parse().unwrap(),
        cgroup: CgroupVersion::V2,
        nftables: true,
        ecr_credential_provider: None,
    }
}

fn node(kubernetes: &str) -> NodeInputs {
    let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    NodeInputs {
        cluster: "demo".parse().unwrap(),
        settings: settings(kubernetes),
        version: "v1.36.2".parse().unwrap(),
        role: Role::ControlPlane,
        name: instance.clone().into(),
        instance,
        zone: "eu-west-1a".parse().unwrap(),
        region: "eu-west-1".parse().unwrap(),
        address: "10.0.1.5".parse().unwrap(),
        instance_type: Some("m7g.large".to_owned()),
        capacity_type: Some(CapacityType::OnDemand),
        machine: machine(2, 8),
        interface_limits: None,
        drop_ins: Vec::new(),
    }
}

fn inputs(kubernetes: &str) -> ControlPlaneInputs {
    ControlPlaneInputs {
        node: node(kubernetes),
        endpoint: "demo-0123.elb.eu-west-1.amazonaws.com".parse().unwrap(),
        etcd_endpoints: vec!["https://10.0.1.5:2379".to_owned()],
        authorities: "the authorities' fingerprint".to_owned(),
        recovered: None,
    }
}

const EVERYTHING: &str = r#"{
  version: v1.36.2, imageRepository: "123.dkr.ecr.eu-west-1.amazonaws.com/k8s", serviceSubnet: 172.20.0.0/16,
  podSubnet: 10.244.0.0/16, clusterDomain: demo.internal, endpoint: "api.example.com:443",
  extraNames: [k8s.example.com, 10.9.9.9], componentEndpoint: load-balancer,
  serviceAccountIssuer: "https://oidc.example.com/demo",
  leaderElection: {leaseDuration: 1m, renewDeadline: 40s, retryPeriod: 5s},
  apiServer: {
    shutdownDelay: 1m30s, goawayChance: 0.02, auditLog: {maxAge: 7, maxBackups: 3, maxSize: 50},
    image: "registry.example.com/kube-apiserver:v1.36.2-fips", extraArgs: ["--event-ttl=2h", "--v=2",
      "--tls-sni-cert-key=/a.crt,/a.key", "--tls-sni-cert-key=/b.crt,/b.key"],
    extraEnv: ["HTTPS_PROXY=http://proxy:3128", "NO_PROXY=a,b=c"],
    extraVolumes: ["/etc/ssl/certs:/etc/ssl/certs", "/var/lib/webhook:/webhook:rw"]},
  controllerManager: {extraArgs: ["--node-cidr-mask-size=25"], extraEnv: ["A=1"], extraVolumes: ["/a:/b"]},
  scheduler: {extraArgs: ["--v=4"], extraVolumes: ["/c:/d"],
    config: "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, parallelism: 32, clientConnection: {qps: 100}}"}}"#;

fn everything() -> ControlPlaneInputs {
    let inputs = inputs(EVERYTHING);
    ControlPlaneInputs { endpoint: inputs.node.settings.endpoint.clone().unwrap(), ..inputs }
}

fn of_version(version: &str) -> ControlPlaneInputs {
    let mut inputs = inputs("{}");
    inputs.node.version = version.parse().unwrap();
    inputs
}

fn standby() -> ControlPlaneInputs {
    let etcd_endpoints = ["10.0.1.5", "10.0.2.7", "10.0.3.130"].map(|a| format!("https://{a}:2379")).to_vec();
    ControlPlaneInputs { etcd_endpoints, ..inputs("{componentEndpoint: load-balancer}") }
}

fn shared_host() -> ControlPlaneInputs {
    let mut inputs = inputs("{podSubnet: 10.244.0.0/16}");
    inputs.node.address = "127.0.3.1".parse().unwrap();
    inputs.node.instance_type = None;
    inputs.node.capacity_type = None;
    inputs.etcd_endpoints = vec!["https://127.0.3.1:2379".to_owned()];
    inputs
}

fn matrix() -> Vec<(&'static str, ControlPlaneInputs)> {
    vec![
        ("minimal", inputs("{}")),
        ("everything", everything()),
        ("oldest", of_version("v1.34.0")),
        ("newest", of_version("v1.37.1")),
        ("standby", standby()),
        ("shared_host", shared_host()),
    ]
}

/// All that is rendered, in one text.
fn page(inputs: &ControlPlaneInputs) -> String {
    let rendered = control_plane(inputs).unwrap();
    let mut page = format!(
        "server of components: {}\nlocal server: {}\nleaves: {}\nkubelet {}\n",
        inputs.component_server(),
        inputs.local_server(),
        serde_json::to_string(&inputs.leaf_request().unwrap()).unwrap(),
        kubelet::arguments(&inputs.node).join(" "),
    );
    for file in rendered.files.iter().chain(rendered.manifests.values()) {
        page += &format!("--- {} {:o} {:?}\n{}", file.path, file.mode, file.owner, file.content);
    }
    page
}

#[test]
fn every_component_starts_anew_when_etcds_data_were_restored_and_only_then() {
    let before = control_plane(&inputs("{}")).unwrap().manifests;
    let of = |generation| {
        let recovered = Some(crate::model::Generation(generation));
        control_plane(&ControlPlaneInputs { recovered, ..inputs("{}") }).unwrap().manifests
    };
    for (component, manifest) in &before {
        let (second, third) = (&of(2)[component], &of(3)[component]);
        assert!(manifest != second && second != third, "{component:?}");
    }
    assert_eq!(of(2), of(2));
}

#[test]
fn files_of_the_smallest_settings() {
    insta::assert_snapshot!(page(&inputs("{}")));
}

#[test]
fn files_when_everything_is_set() {
    insta::assert_snapshot!(page(&everything()));
}

#[test]
fn files_of_a_standby_that_goes_through_the_load_balancer() {
    insta::assert_snapshot!(page(&standby()));
}

#[test]
fn files_of_a_machine_that_shares_its_host() {
    insta::assert_snapshot!(page(&shared_host()));
}

/// The lines in which two pages differ.
fn difference(old: &str, new: &str) -> String {
    let lines = |page: &'_ str| -> Vec<String> { page.lines().map(|line| line.trim().to_owned()).collect() };
    let (old, new) = (lines(old), lines(new));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(come).collect()
}

#[test]
fn versions_differ_in_this_and_nothing_else() {
    let known = page(&inputs("{}"));
    insta::assert_snapshot!(difference(&known, &page(&of_version("v1.34.0"))), @r"
    - image: registry.k8s.io/kube-apiserver:v1.36.2
    - image: registry.k8s.io/kube-controller-manager:v1.36.2
    - image: registry.k8s.io/kube-scheduler:v1.36.2
    + failCgroupV1: true
    + image: registry.k8s.io/kube-apiserver:v1.34.0
    + image: registry.k8s.io/kube-controller-manager:v1.34.0
    + image: registry.k8s.io/kube-scheduler:v1.34.0
    ");
    insta::assert_snapshot!(difference(&known, &page(&of_version("v1.37.1"))), @r"
    - image: registry.k8s.io/kube-apiserver:v1.36.2
    - image: registry.k8s.io/kube-controller-manager:v1.36.2
    - image: registry.k8s.io/kube-scheduler:v1.36.2
    + image: registry.k8s.io/kube-apiserver:v1.37.1
    + image: registry.k8s.io/kube-controller-manager:v1.37.1
    + image: registry.k8s.io/kube-scheduler:v1.37.1
    ");
}

#[test]
fn every_manifest_reads_back_as_the_pod_that_it_was_and_nothing_more() {
    for (name, inputs) in matrix() {
        for (component, manifest) in control_plane(&inputs).unwrap().manifests {
            let pod: Pod = serde_saphyr::from_str(&manifest.content).unwrap();
            let plain: Value = serde_saphyr::from_str(&manifest.content).unwrap();
            assert_eq!(serde_json::to_value(&pod).unwrap(), plain, "{name}: {component}");
            let read = control_plane(&inputs).unwrap().files;
            let read: Vec<_> = read.iter().filter(|f| f.path.starts_with(component.directory())).collect();
            assert_eq!(pod, static_pods::pod(&inputs, component, &read), "{name}: {component}");
        }
    }
}

#[test]
fn every_file_reads_back_as_an_object_of_its_kind() {
    let kinds = [
        (paths::AUDIT_POLICY, "audit.k8s.io/v1", "Policy"),
        (paths::AUTHENTICATION, "apiserver.config.k8s.io/v1", "AuthenticationConfiguration"),
        (paths::KUBE_PROXY_CONFIG, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"),
        (paths::SCHEDULER_CONFIG, "kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration"),
        (paths::KUBELET_CONFIG, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"),
    ];
    for (name, inputs) in matrix() {
        let mut files = control_plane(&inputs).unwrap().files;
        files.retain(|file| file.path != paths::LOGIND);
        assert_eq!(files.len(), kinds.len());
        for (file, (path, version, kind)) in files.iter().zip(kinds) {
            let document: Value = serde_saphyr::from_str(&file.content).unwrap();
            assert_eq!(file.path, path, "{name}");
            assert_eq!(document["apiVersion"], version, "{name}: {path}");
            assert_eq!(document["kind"], kind, "{name}: {path}");
        }
    }
}

#[test]
fn every_own_flag_is_kept_from_operators_and_every_kept_one_has_its_reason() {
    for (component, table) in [
        (Component::ApiServer, owned::API_SERVER),
        (Component::ControllerManager, owned::CONTROLLER_MANAGER),
        (Component::Scheduler, owned::SCHEDULER),
    ] {
        let kept: BTreeSet<&str> = table.iter().map(|(flag, _)| *flag).collect();
        for (name, inputs) in matrix() {
            for flag in flags::own_flags(&inputs, component) {
                let flag = flag.trim_start_matches("--").split('=').next().unwrap().to_owned();
                assert!(kept.contains(flag.as_str()), "{name}: {component} --{flag} can be set twice");
            }
        }
    }
}

#[test]
fn no_flag_is_rendered_twice_but_one_that_may_be() {
    for (name, inputs) in matrix() {
        for component in Component::ALL {
            let flags = flags::flags(&inputs, component);
            let names: Vec<&str> = flags.iter().filter_map(|flag| flag.split('=').next()).collect();
            let mut seen = BTreeSet::new();
            for flag in names {
                assert!(seen.insert(flag) || flag == "--tls-sni-cert-key", "{name}: {component} {flag}");
            }
        }
    }
}

#[test]
fn a_program_starts_anew_when_what_it_reads_at_start_changes_and_else_not() {
    let manifests = |inputs: &ControlPlaneInputs| control_plane(inputs).unwrap().manifests;
    let changed = |inputs: &ControlPlaneInputs| -> Vec<Component> {
        let (old, new) = (manifests(&self::inputs("{}")), manifests(inputs));
        Component::ALL.into_iter().filter(|component| old[component] != new[component]).collect()
    };
    assert!(changed(&inputs("{}")).is_empty());
    let document = r#"{scheduler: {config: "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration}"}}"#;
    assert_eq!(changed(&inputs(document)), [Component::Scheduler]);
    let other_keys = ControlPlaneInputs { authorities: "others".to_owned(), ..inputs("{}") };
    assert_eq!(changed(&other_keys), Component::ALL);
    let moved = ControlPlaneInputs { endpoint: "other.example.com".parse().unwrap(), ..inputs("{}") };
    assert!(changed(&moved).is_empty(), "the endpoint is in certificates and kubeconfigs only");
}

#[test]
fn an_operators_scheduler_configuration_keeps_quorates_part() {
    let files = control_plane(&everything()).unwrap().files;
    let file = files.iter().find(|file| file.path == paths::SCHEDULER_CONFIG).unwrap();
    let document: Value = serde_saphyr::from_str(&file.content).unwrap();
    assert_eq!(document["parallelism"], 32);
    assert_eq!(document["clientConnection"]["qps"], 100);
    assert_eq!(document["clientConnection"]["kubeconfig"], paths::SCHEDULER_KUBECONFIG);
    assert_eq!(document["leaderElection"]["leaseDuration"], "1m");
    assert_eq!(document["enableProfiling"], false);
    assert!(document["profiles"].is_null());
}

#[test]
fn a_component_sees_its_own_directory_and_what_the_operator_adds() {
    for (component, manifest) in control_plane(&inputs("{}")).unwrap().manifests {
        let pod: Pod = serde_saphyr::from_str(&manifest.content).unwrap();
        let paths: Vec<String> = pod
            .spec
            .unwrap()
            .volumes
            .unwrap()
            .into_iter()
            .map(|volume| volume.host_path.unwrap().path)
            .collect();
        match component {
            Component::ApiServer => {
                assert_eq!(paths, [component.directory(), paths::PUBLIC_DIRECTORY, paths::AUDIT_DIRECTORY]);
            }
            Component::ControllerManager | Component::Scheduler => {
                assert_eq!(paths, [component.directory(), paths::PUBLIC_DIRECTORY]);
            }
        }
    }
}

#[test]
fn every_file_that_a_flag_names_lies_where_its_program_sees_it_and_has_a_writer() {
    let inputs = everything();
    let rendered = control_plane(&inputs).unwrap();
    for component in Component::ALL {
        for flag in flags::own_flags(&inputs, component) {
            let value = flag.split_once('=').unwrap().1;
            if !value.starts_with('/') || value == paths::AUDIT_LOG {
                continue;
            }
            let public = value.starts_with(&format!("{}/", paths::PUBLIC_DIRECTORY));
            let own = value.starts_with(&format!("{}/", component.directory()));
            assert!(public || own, "{component}: {flag}");
            let kubernetes = Path::new(paths::KUBERNETES);
            let credential = FILES.iter().find(|file| file.path(kubernetes) == Path::new(value));
            let file = rendered.files.iter().find(|file| file.path == value);
            let owner = credential.map(|file| file.dir.owner).or(file.map(|file| file.owner));
            assert_eq!(owner, Some(if public { Owner::Root } else { component.owner() }), "{flag}");
        }
    }
}

#[test]
fn every_file_lies_in_a_directory_that_is_listed_before_it() {
    let directories: Vec<&str> = paths::DIRECTORIES.iter().map(|place| place.path).collect();
    let parent = |path: &str| path.rsplit_once('/').unwrap().0.to_owned();
    for dir in DIRS {
        let path = Path::new(paths::KUBERNETES).join(dir.path);
        let path = path.to_str().unwrap().trim_end_matches('/');
        let place = paths::DIRECTORIES.iter().find(|place| place.path == path).unwrap();
        assert_eq!((place.mode, place.owner), (dir.mode, dir.owner), "{path}");
    }
    let rendered = control_plane(&inputs("{}")).unwrap();
    for file in rendered.files.iter().chain(rendered.manifests.values()) {
        assert!(directories.contains(&parent(&file.path).as_str()), "{}", file.path);
    }
}

#[test]
fn the_api_server_has_time_for_its_delay_and_its_requests_even_when_the_machine_goes_down() {
    let inputs = everything();
    assert_eq!(static_pods::api_server_grace_period(&inputs.node.settings), 90 + 65);
    assert_eq!(kubelet::shutdown_grace_period(&inputs.node).unwrap().as_millis(), (90 + 65 + 30) * 1000);
}

#[test]
fn encryption_writes_with_the_first_key_and_shows_none() {
    let key = |name: &str, secret: &str| EncryptionKey {
        name: name.to_owned(),
        secret: Secret::new(secret.to_owned()),
    };
    let text = encryption_config(&[key("key2", "bmV3"), key("key1", "b2xk")]).unwrap();
    insta::assert_snapshot!(text.expose(), @r#"
    apiVersion: apiserver.config.k8s.io/v1
    kind: EncryptionConfiguration
    resources:
    - providers:
      - secretbox:
          keys:
          - name: key2
            secret: bmV3
          - name: key1
            secret: b2xk
      resources:
      - secrets
    "#);
    assert_eq!(format!("{text:?}"), "<redacted>");
}

#[test]
fn leaves_name_the_endpoint_the_operators_names_and_the_servers() {
    let request = everything().leaf_request().unwrap();
    assert_eq!(request.endpoint.to_string(), "api.example.com");
    assert_eq!(request.service_address.to_string(), "172.20.0.1");
    assert_eq!(request.cluster_domain.to_string(), "demo.internal");
    let extra: Vec<String> = request.extra_names.iter().map(ToString::to_string).collect();
    assert_eq!(extra, ["k8s.example.com", "10.9.9.9"]);
    assert_eq!(request.local_server.to_string(), "https://127.0.0.1:6443");
    assert_eq!(request.component_server.to_string(), "https://api.example.com:443");
    assert_eq!(shared_host().leaf_request().unwrap().local_server.to_string(), "https://127.0.3.1:6443");
}

#[test]
fn inputs_survive_being_recorded() {
    for (name, inputs) in matrix() {
        let recorded = serde_json::to_string(&inputs).unwrap();
        assert_eq!(serde_json::from_str::<ControlPlaneInputs>(&recorded).unwrap(), inputs, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_same_inputs_render_the_same_bytes(
        value in "[ -~]{0,40}", address in any::<[u8; 4]>(), which in 0..6_usize,
    ) {
        let (_, mut inputs) = matrix().remove(which);
        inputs.node.address = address.into();
        inputs.node.settings.api_server.additions.extra_args = vec![format!("--x-y={value}").parse().unwrap()];
        inputs.node.settings.scheduler.additions.extra_env = vec![format!("X={value}").parse().unwrap()];
        let first = control_plane(&inputs).unwrap();
        prop_assert_eq!(&first, &control_plane(&inputs.clone()).unwrap());
        let pod: Pod = serde_saphyr::from_str(&first.manifests[&Component::ApiServer].content).unwrap();
        let command = pod.spec.unwrap().containers.remove(0).command.unwrap();
        prop_assert_eq!(command.last(), Some(&format!("--x-y={value}")));
    }
}
