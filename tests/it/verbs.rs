//! `quorate kubeconfig`, `quorate render` and `quorate kubelet`: on a machine, by the program as it is shipped, and what
//! each refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::config::Kubeconfig;
use quorate::agent::setup::Record;
use quorate::cli::{CliError, kubeconfig, render};
use quorate::execute::{StepError, execute};
use quorate::exit::Exit;
use quorate::host::clock;
use quorate::kubernetes::paths;
use quorate::lab::kubelet::Programs;
use quorate::lab::region::{FaultKind, InstanceSpec, Service};
use quorate::lab::settings::Kubernetes;
use quorate::model::fact::chain;
use quorate::model::names::ClusterLeafRequest;
use quorate::model::{Fact, Role, Step};
use quorate::pki::files::FILES;
use quorate::pki::{ClusterAuthorities, EtcdAuthority};
use quorate::reach::{AUTHORITY, CLUSTER_AUTHORITIES, Reach};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::contract::endpoints::tags;
use crate::weather::node::{Node, PATIENCE};
use crate::weather::sky::{BUCKET, Sky, machine};

const HOUR: i64 = 3_600_000;

/// What a kubeconfig says, decoded by Kubernetes' own type.
struct Said {
    server: String,
    user: String,
    groups: Vec<String>,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    /// In milliseconds since 1970.
    not_after: i64,
}

fn decode(data: Option<&str>) -> Vec<u8> {
    BASE64.decode(data.unwrap()).unwrap()
}

fn read(text: &str) -> Said {
    let file = Kubeconfig::from_yaml(text).unwrap();
    let [cluster, user, context] = [&file.clusters[0].name, &file.auth_infos[0].name, &file.contexts[0].name];
    assert_eq!((file.clusters.len(), file.auth_infos.len(), file.contexts.len()), (1, 1, 1));
    assert_eq!(file.current_context.as_ref(), Some(context));
    let joins = file.contexts[0].context.as_ref().unwrap();
    assert_eq!((&joins.cluster, joins.user.as_ref()), (cluster, Some(user)));
    let cluster = file.clusters[0].cluster.as_ref().unwrap();
    let who = file.auth_infos[0].auth_info.as_ref().unwrap();
    let pem = decode(who.client_certificate_data.as_deref());
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    let key = who.client_key_data.as_ref().map(secrecy::ExposeSecret::expose_secret);
    let key = PrivateKeyDer::from_pem_slice(&decode(key)).unwrap();
    let provider = default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    CertifiedKey::new(vec![certificate.clone()], key).keys_match().unwrap();
    let der = certificate.clone();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let subject = parsed.subject();
    let said = Said {
        server: cluster.server.clone().unwrap(),
        user: subject.iter_common_name().map(|name| name.as_str().unwrap()).collect(),
        groups: subject.iter_organization().map(|name| name.as_str().unwrap().to_owned()).collect(),
        certificate,
        authority: CertificateDer::from_pem_slice(&decode(cluster.certificate_authority_data.as_deref()))
            .unwrap(),
        not_after: parsed.validity().not_after.timestamp() * 1000,
    };
    assert_eq!(&said.user, user);
    said
}

/// Whether an API server that goes by this authority takes the certificate at a moment.
fn is_taken(said: &Said, authority: &CertificateDer<'static>, at: i64) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into());
    let at = UnixTime::since_unix_epoch(Duration::from_millis(at.try_into().unwrap()));
    verifier.build().unwrap().verify_client_cert(&said.certificate, &[], at).is_ok()
}

/// A control-plane machine with an endpoint, and the authorities of its cluster.
struct Scene {
    sky: Sky,
    authorities: ClusterAuthorities,
}

impl Scene {
    async fn new() -> Self {
        let sky = Sky::with_bucket().await;
        sky.file("var/lib/quorate/endpoint", "api.example.com:6443\n");
        let authorities = ClusterAuthorities::create(&"demo".parse().unwrap(), clock::now_ms()).unwrap();
        let scene = Self { sky, authorities };
        scene.put(&scene.authorities).await;
        scene
    }

    async fn put(&self, authorities: &ClusterAuthorities) {
        let reach = self.sky.reach().await;
        reach.aws.objects.put(CLUSTER_AUTHORITIES, authorities.bundle().unwrap()).await.unwrap();
    }

    async fn make(&self, wanted: &kubeconfig::Wanted) -> Result<Said, kubeconfig::VerbError> {
        make(&self.sky.reach().await, wanted).await
    }

    /// How and with which words it ends.
    async fn refusal(&self, wanted: &kubeconfig::Wanted) -> (Exit, String) {
        refusal(&self.sky.reach().await, wanted).await
    }

    fn authority(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.authorities.certificate().as_bytes()).unwrap()
    }
}

async fn make(reach: &Reach, wanted: &kubeconfig::Wanted) -> Result<Said, kubeconfig::VerbError> {
    kubeconfig::make(reach, wanted).await.map(|text| read(text.expose()))
}

async fn refusal(reach: &Reach, wanted: &kubeconfig::Wanted) -> (Exit, String) {
    match make(reach, wanted).await {
        Ok(said) => panic!("{} was let in", said.user),
        Err(error) => {
            let error = CliError::Kubeconfig(error);
            (Exit::of(&error), chain(&error))
        }
    }
}

fn for_ada(groups: &[&str]) -> kubeconfig::Wanted {
    kubeconfig::Wanted {
        user: Some("ada@example.org".to_owned()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ttl: "2h".parse().unwrap(),
        server: None,
    }
}

#[track_caller]
fn ends(found: &(Exit, String), exit: Exit, words: &str) {
    assert_eq!(found.0, exit, "{}", found.1);
    assert!(found.1.contains(words), "{words:?} is not in {:?}", found.1);
}

#[tokio::test]
async fn a_person_is_let_in_by_the_cluster_authority_as_whom_and_as_long_as_was_said() {
    let scene = Scene::new().await;
    let before = clock::now_ms();
    let said = scene.make(&for_ada(&["developers", "ops"])).await.unwrap();
    let after = clock::now_ms();
    assert_eq!(
        (said.user.as_str(), said.groups.as_slice()),
        ("ada@example.org", &["developers".to_owned(), "ops".to_owned()][..])
    );
    assert_eq!(said.server, "https://api.example.com:6443");
    assert_eq!(said.authority, scene.authority());
    assert!((before - 1000..=after).contains(&(said.not_after - 2 * HOUR)), "{}", said.not_after);
    for (at, taken) in [(after, true), (said.not_after + 1000, false), (after - HOUR, false)] {
        assert_eq!(is_taken(&said, &said.authority, at), taken, "{at}");
    }
    let other = ClusterAuthorities::create(&"demo".parse().unwrap(), after).unwrap();
    let other = CertificateDer::from_pem_slice(other.certificate().as_bytes()).unwrap();
    assert!(!is_taken(&said, &other, after));
    // Two for the same person are two, each with its own key.
    assert_ne!(scene.make(&for_ada(&[])).await.unwrap().certificate, said.certificate);
}

#[tokio::test]
async fn where_the_api_is_reached_can_be_said() {
    let scene = Scene::new().await;
    let server = Some("https://10.0.0.1:6443".parse().unwrap());
    let said = scene.make(&kubeconfig::Wanted { server: server.clone(), ..for_ada(&[]) }).await.unwrap();
    assert_eq!(said.server, "https://10.0.0.1:6443");
    assert_eq!(said.groups, [""; 0]);
    // Without it, it has to be known.
    fs::remove_file(scene.sky.root().path("/var/lib/quorate/endpoint")).unwrap();
    ends(&scene.refusal(&for_ada(&[])).await, Exit::NotThere, "give --server");
    scene.make(&kubeconfig::Wanted { server, ..for_ada(&[]) }).await.unwrap();
}

#[tokio::test]
async fn nobody_becomes_a_part_of_kubernetes() {
    let scene = Scene::new().await;
    for group in ["system:nodes", ""] {
        let found = scene.refusal(&for_ada(&["ops", group])).await;
        ends(&found, Exit::CommandLine, "no certificate for the group");
    }
    let kubelet = kubeconfig::Wanted { user: Some("system:node:i-1".to_owned()), ..for_ada(&[]) };
    ends(&scene.refusal(&kubelet).await, Exit::CommandLine, "names that begin with `system:`");
}

#[tokio::test]
async fn a_clock_that_is_not_synchronised_signs_nothing() {
    let scene = Scene::new().await;
    let marker = scene.sky.root().path("/run/systemd/timesync/synchronized");
    fs::remove_file(&marker).unwrap();
    let found = scene.refusal(&for_ada(&[])).await;
    // Where there is no timedatectl, nobody can say.
    assert!(matches!(found.0, Exit::Refused | Exit::Failed), "{}", found.1);
    assert!(found.1.contains("clock"), "{}", found.1);
    fs::write(&marker, "").unwrap();
    scene.make(&for_ada(&[])).await.unwrap();
}

#[tokio::test]
async fn without_the_authorities_that_this_machine_goes_by_nothing_is_signed() {
    let scene = Scene::new().await;
    let ca = paths::CA.trim_start_matches('/');
    scene.sky.file(ca, scene.authorities.certificate());
    scene.make(&for_ada(&[])).await.unwrap();
    let other = ClusterAuthorities::create(&"demo".parse().unwrap(), clock::now_ms()).unwrap();
    scene.sky.file(ca, other.certificate());
    let found = scene.refusal(&for_ada(&[])).await;
    ends(&found, Exit::Refused, "is not the one in /etc/kubernetes/pki/ca.crt");
    let others = ClusterAuthorities::create(&"other".parse().unwrap(), clock::now_ms()).unwrap();
    scene.put(&others).await;
    ends(&scene.refusal(&for_ada(&[])).await, Exit::Failed, "is that of cluster other, expected demo");
    let old = ClusterAuthorities::create(&"demo".parse().unwrap(), clock::now_ms() - 90_000 * HOUR).unwrap();
    scene.put(&old).await;
    fs::remove_file(scene.sky.root().path(paths::CA)).unwrap();
    ends(&scene.refusal(&for_ada(&[])).await, Exit::Failed, "the cluster authority ended at");
}

#[tokio::test]
async fn authorities_that_are_not_there_are_told_from_those_that_nobody_answers_about() {
    let sky = Sky::with_bucket().await;
    sky.file("var/lib/quorate/endpoint", "api.example.com:6443\n");
    let url = format!("s3://{BUCKET}/demo/pki/kubernetes.json is not there");
    ends(&refusal(&sky.reach().await, &for_ada(&[])).await, Exit::NotThere, &url);
    sky.fault(Service::S3, FaultKind::ServerError);
    ends(&refusal(&sky.reach().await, &for_ada(&[])).await, Exit::NoAnswer, "S3 GetObject");
}

#[tokio::test]
async fn a_machine_without_a_control_plane_lets_nobody_in() {
    let worker = tags(&[("quorate:cluster", "demo"), ("quorate:role", "worker")]);
    let sky = Sky::new(InstanceSpec { tags: worker, ..machine() }).await;
    ends(&refusal(&sky.reach().await, &for_ada(&[])).await, Exit::Refused, "this machine is a worker");
    let scene = Scene::new().await;
    scene.sky.file("etc/quorate/config.d/20.yaml", "kubernetes: {controlPlane: none}\n");
    ends(&scene.refusal(&for_ada(&[])).await, Exit::Refused, "has no control plane");
}

/// Runs a verb on a node.
pub async fn quorate(node: &Node, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("--root")
        .arg(node.root())
        .args(arguments)
        .env_clear()
        .envs(node.machine.environment().variables())
        .output()
        .await
        .unwrap()
}

#[track_caller]
pub fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// All files below a directory, by their paths.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = format!("/{}", path.strip_prefix(dir).unwrap().display());
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// A machine whose agent has made all files of its control plane.
async fn made(name: &str, kubernetes: Kubernetes) -> Node {
    let node = Node::with(name, |settings, _| settings.kubernetes = kubernetes).await;
    node.machine.start();
    let root = node.root();
    let last = [paths::API_SERVER_MANIFEST, paths::CONTROLLER_MANAGER_MANIFEST, paths::SCHEDULER_MANIFEST];
    node.until("manifests", |_| last.iter().all(|path| root.join(&path[1..]).is_file())).await;
    node
}

#[tokio::test]
async fn authorities_that_were_replaced_since_they_were_looked_at_sign_nothing() {
    let scene = Scene::new().await;
    let reach = scene.sky.reach().await;
    let etcd = EtcdAuthority::create(&"demo".parse().unwrap(), clock::now_ms()).unwrap();
    reach.aws.objects.put(AUTHORITY, etcd.bundle().unwrap()).await.unwrap();
    let request = ClusterLeafRequest {
        node: reach.identity.instance.clone().into(),
        address: reach.identity.address,
        endpoint: "api.example.com".parse().unwrap(),
        service_address: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".parse().unwrap(),
        extra_names: Vec::new(),
        local_server: "https://127.0.0.1:6443".parse().unwrap(),
        component_server: "https://127.0.0.1:6443".parse().unwrap(),
    };
    let step = |authorities: &ClusterAuthorities, etcd: &EtcdAuthority| Step::IssueClusterLeaves {
        request: request.clone(),
        authorities: authorities.fingerprint().to_owned(),
        etcd_authority: etcd.summary().fingerprint,
    };
    let dir = reach.root.path(paths::KUBERNETES);
    let others = ClusterAuthorities::create(&"demo".parse().unwrap(), clock::now_ms()).unwrap();
    let other_etcd = EtcdAuthority::create(&"demo".parse().unwrap(), clock::now_ms()).unwrap();
    let leaves = |etcd: &EtcdAuthority| Step::IssueLeaves {
        slot: None,
        address: reach.identity.address,
        authority: etcd.summary().fingerprint,
    };
    for (step, key) in [
        (step(&others, &etcd), CLUSTER_AUTHORITIES),
        (step(&scene.authorities, &other_etcd), AUTHORITY),
        (leaves(&other_etcd), AUTHORITY),
    ] {
        match execute(&reach, &step).await {
            Err(StepError::OtherAuthority { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{}: {other:?}", step.name()),
        }
    }
    assert!(!dir.join("pki").exists() && !reach.pki().exists(), "something was signed");
    execute(&reach, &step(&scene.authorities, &etcd)).await.unwrap();
    execute(&reach, &leaves(&etcd)).await.unwrap();
    assert!(dir.join("pki/ca.crt").is_file());
}

#[tokio::test]
async fn a_running_machine_prints_kubeconfigs_and_renders_what_its_agent_wrote() {
    let node = made("verbs", Kubernetes::Rendered("v1.36.2".to_owned())).await;
    prints_kubeconfigs(&node).await;
    renders(&node).await;
    shows_its_kubelets_configuration(&node).await;
}

async fn prints_kubeconfigs(node: &Node) {
    let output = quorate(node, &["kubeconfig", "--user", "ada", "--group", "ops", "--ttl", "30m"]).await;
    let noted = text(&output.stderr);
    assert!(output.status.success(), "{noted}");
    let said = read(&text(&output.stdout));
    assert_eq!((said.user.as_str(), said.groups.as_slice()), ("ada", &["ops".to_owned()][..]));
    let endpoint = fs::read_to_string(node.root().join("var/lib/quorate/endpoint")).unwrap();
    assert_eq!(said.server, format!("https://{}", endpoint.trim()));
    let ca = CertificateDer::from_pem_slice(&fs::read(node.root().join(&paths::CA[1..])).unwrap()).unwrap();
    assert!(is_taken(&said, &ca, clock::now_ms()));
    // One line tells who got what, and it holds no key.
    assert_eq!(noted.matches("made a kubeconfig").count(), 1, "{noted}");
    for part in ["ada", "ops", "30m", &said.not_after.to_string()] {
        assert!(noted.contains(part), "{part:?} is not in {noted}");
    }
    assert!(!noted.contains("KEY"), "{noted}");

    // Without anything: for whoever runs it.
    let output = quorate(node, &["kubeconfig"]).await;
    let said = read(&text(&output.stdout));
    let own = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    assert_eq!((said.user, said.groups), (own, vec!["system:masters".to_owned()]));

    let refused = quorate(node, &["kubeconfig", "--user", "system:admin"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(text(&refused.stdout), "");
    let refused = quorate(node, &["kubeconfig", "--ttl", "2000h"]).await;
    assert_eq!(refused.status.code(), Some(2));
}

/// Every value of the kubelet's file is told with its origin, and the operator's file is told where it counts.
async fn shows_its_kubelets_configuration(node: &Node) {
    let shown = async |more: &[&str]| {
        let output = quorate(node, &[&["kubelet"], more].concat()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let own = shown(&[]).await;
    assert!(own.starts_with("# /var/lib/kubelet/config.yaml says this\n"), "{own}");
    let file = fs::read_to_string(node.root().join(&paths::KUBELET_CONFIG[1..])).unwrap();
    let document: serde_json::Value = serde_saphyr::from_str(&file).unwrap();
    for (field, value) in document.as_object().unwrap() {
        let line = own.lines().find(|line| line.starts_with(field.as_str()));
        assert!(line.is_some_and(|line| line.ends_with("  # quorate")), "{field}: {value}: {own}");
    }
    let observed = node.root().join("run/quorate/observed.json");
    let offline = shown(&["--observed", observed.to_str().unwrap()]).await;
    assert_eq!(own.split_once('\n').unwrap().1, offline);

    // Something of the operator's, before the agent has looked: what the machine has is what counts.
    let dir = node.root().join("etc/quorate/kubelet.d");
    fs::create_dir_all(&dir).unwrap();
    let drop_in = dir.join("10-room.conf");
    fs::write(&drop_in, "evictionHard: {memory.available: 5%, nodefs.available: null}\n").unwrap();
    let shown = shown(&[]).await;
    for line in [
        "evictionHard.\"memory.available\": \"5%\"  # /etc/quorate/kubelet.d/10-room.conf",
        "evictionHard.\"nodefs.available\": null  # /etc/quorate/kubelet.d/10-room.conf",
        "evictionHard.\"nodefs.inodesFree\": \"5%\"  # quorate",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }
    fs::write(&drop_in, "maxPod: 3\n").unwrap();
    let refused = quorate(node, &["kubelet"]).await;
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), String::new()));
    assert!(text(&refused.stderr).contains("`maxPod`"), "{}", text(&refused.stderr));
    fs::remove_file(&drop_in).unwrap();

    let mut record: Record = serde_json::from_slice(&fs::read(&observed).unwrap()).unwrap();
    record.observation.kubernetes.version = Fact::unknown("no kubelet");
    let dir = tempfile::tempdir().unwrap();
    let unknown = dir.path().join("unknown.json");
    fs::write(&unknown, serde_json::to_vec(&record).unwrap()).unwrap();
    let missing = quorate(node, &["kubelet", "--observed", unknown.to_str().unwrap()]).await;
    assert_eq!(missing.status.code(), Some(4));
    assert!(text(&missing.stderr).contains("no kubelet"), "{}", text(&missing.stderr));
}

async fn renders(node: &Node) {
    let observed = node.root().join("run/quorate/observed.json");
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let render = async |out: &Path| {
        let paths = [observed.to_str().unwrap(), out.to_str().unwrap()];
        quorate(node, &["render", "--observed", paths[0], "--out", paths[1]]).await
    };
    let output = render(&one).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = files(&one);
    let told = text(&output.stdout);
    let named = |kind: &str| -> Vec<&str> {
        told.lines().filter_map(|line| line.strip_prefix(kind)).map(str::trim).collect()
    };
    assert_eq!(named("written"), found.keys().collect::<Vec<_>>());
    // One of them is there only where images of ECR can be pulled.
    let there = paths::RENDERED.iter().filter(|path| node.root().join(&path[1..]).exists()).count();
    assert!(there + 1 >= paths::RENDERED.len());
    assert_eq!(found.len(), there + 3);
    for (path, content) in &found {
        let here = fs::read(node.root().join(&path[1..])).unwrap();
        assert!(*content == here, "{path} is another on the machine:\n{}", text(content));
    }
    // What is left out is named, is on the machine, and lies nowhere below the directory.
    let left_out = [named("secret"), named("on the node")].concat();
    assert_eq!(left_out.len(), FILES.len());
    for path in left_out {
        assert!(node.root().join(&path[1..]).is_file(), "{path}");
        assert!(!found.contains_key(path), "{path}");
    }
    assert!(named("secret").contains(&"/etc/kubernetes/apiserver/tls.key"));

    assert!(render(&two).await.status.success());
    assert_eq!(files(&two), found);
    let again = render(&two).await;
    assert_eq!(again.status.code(), Some(6));
    assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
    assert_eq!(files(&two), found);

    cannot_be_rendered(&serde_json::from_slice(&fs::read(&observed).unwrap()).unwrap(), dir.path());
}

/// What is missing in an observation is said, and nothing is written.
fn cannot_be_rendered(record: &Record, dir: &Path) {
    let out = dir.join("none");
    let refusal = |change: &dyn Fn(&mut Record)| {
        let mut record = record.clone();
        change(&mut record);
        let error = CliError::Render(render::run(&record, &out).unwrap_err());
        assert!(!out.exists());
        (Exit::of(&error), chain(&error))
    };
    let version = refusal(&|record| record.observation.kubernetes.version = Fact::unknown("no kubelet"));
    ends(
        &version,
        Exit::NotThere,
        "the machine waits for an answer about the version of Kubernetes: no kubelet",
    );
    let endpoint = refusal(&|record| {
        record.observation.kubernetes.load_balancing = Fact::unknown("throttled");
        record.observation.kubernetes.remembered_endpoint = Fact::Known(None);
    });
    ends(&endpoint, Exit::NotThere, "load balancers: throttled");
    let none = refusal(&|record| {
        record.observation.kubernetes.load_balancing = Fact::Known(None);
        record.observation.kubernetes.remembered_endpoint = Fact::Known(None);
    });
    ends(&none, Exit::NotThere, "the machine waits for a load balancer");
    let quorum = refusal(&|record| record.observation.etcd.cluster = Fact::unknown("no answer"));
    ends(&quorum, Exit::NotThere, "a quorum of etcd's members to answer");
    let authorities = refusal(&|record| match &mut record.observation.etcd.cluster {
        Fact::Known(view) => view.control_plane.authorities = None,
        Fact::Unknown(why) => panic!("no cluster: {why}"),
    });
    ends(&authorities, Exit::NotThere, "they are not recorded in etcd yet");
    let worker = refusal(&|record| record.settings.role = Role::Worker);
    ends(&worker, Exit::NotThere, "an answer about what is published to workers");
    // A load balancer that does not answer is no hindrance where one is remembered; it is said.
    let mut throttled = record.clone();
    throttled.observation.kubernetes.load_balancing = Fact::unknown("throttled");
    let told = render::run(&throttled, &out).unwrap();
    assert!(told.lines().any(|line| line.starts_with("warning") && line.contains("throttled")), "{told}");
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(Exit::of(&CliError::Render(render::run(record, &file).unwrap_err())), Exit::Failed);
}

#[test]
fn an_observation_that_is_not_there_or_is_none_is_said_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let render = |name: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
            .current_dir(dir.path())
            .args(["render", "--observed", name, "--out", "out"])
            .env_clear()
            .output()
            .unwrap();
        assert!(!dir.path().join("out").exists());
        output.status.code()
    };
    assert_eq!(render("missing.json"), Some(4));
    fs::write(dir.path().join("damaged.json"), "{").unwrap();
    assert_eq!(render("damaged.json"), Some(1));
}

/// What the API says to `kubectl`, if it answers well.
async fn kubectl(programs: &Programs, kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new(programs.dir.join("kubectl"))
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .env_clear()
        .env("HOME", kubeconfig.parent().unwrap())
        .output()
        .await
        .unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_let_in_as_whom_the_printed_kubeconfig_says() {
    let programs = match Programs::find() {
        Ok(programs) if programs.dir.join("kubectl").is_file() => programs,
        Ok(programs) => return eprintln!("SKIPPED: no kubectl in {}", programs.dir.display()),
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let node = made("kubectl", Kubernetes::Run(programs.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let print = async |name: &str, arguments: &[&str]| {
        let output = quorate(&node, &[&["kubeconfig"], arguments].concat()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let path = dir.path().join(name);
        fs::write(&path, &output.stdout).unwrap();
        (path, text(&output.stderr))
    };
    let (own, _) = print("own", &[]).await;
    let (ada, noted) = print("ada", &["--user", "ada", "--group", "ops", "--group", "developers"]).await;
    // The load balancer takes a while to find the API server healthy.
    let began = tokio::time::Instant::now();
    while let Err(why) = kubectl(&programs, &own, &["get", "--raw", "/readyz"]).await {
        assert!(began.elapsed() < PATIENCE, "{why}");
    }
    kubectl(&programs, &own, &["get", "secrets", "--all-namespaces"]).await.unwrap();
    let who = kubectl(&programs, &ada, &["auth", "whoami", "--output=json"]).await.unwrap();
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    let who = &who["status"]["userInfo"];
    assert_eq!(who["username"], "ada");
    assert_eq!(who["groups"], serde_json::json!(["ops", "developers", "system:authenticated"]));
    let credential = who["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(noted.contains(credential.strip_prefix("X509SHA256=").unwrap()), "{credential}: {noted}");
    let refused = kubectl(&programs, &ada, &["get", "secrets"]).await.unwrap_err();
    assert!(refused.contains("User \"ada\" cannot list resource"), "{refused}");
}
