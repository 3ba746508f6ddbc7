//! Workers in bad weather: what they are told is late, damaged or old, and what they start does not stay up.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quorate::execute::execute;
use quorate::host::Root;
use quorate::kubernetes::join::{BootstrapToken, Join};
use quorate::kubernetes::{digest, paths};
use quorate::lab::laboratory::{Laboratory, Scratch};
use quorate::lab::machine::{FailPoint, Lives, Machine};
use quorate::lab::region::{Caller, Condition, FaultKind, InstanceSpec, Put, Service};
use quorate::lab::settings::{Kubernetes, Settings, Start};
use quorate::model::enrolment::JoinTerms;
use quorate::model::kubernetes::Readiness;
use quorate::model::plan::Subject;
use quorate::model::{Fact, Plan, Step, WaitingOn};
use quorate::observe::{Depth, Memory};
use quorate::reach::Reach;
use quorate::telemetry::status;

use super::node::PATIENCE;
use super::sky::{BUCKET, Sky, look, look_again, machine};
use crate::contract::endpoints::tags;
use crate::permissions::{self, Volumes};

const TOKEN: &str = "abcdef.0123456789abcdef";
const HOUR: i64 = 3_600_000;

fn worker() -> InstanceSpec {
    InstanceSpec { tags: tags(&[("quorate:cluster", "demo"), ("quorate:role", "worker")]), ..machine() }
}

async fn sky() -> Sky {
    let sky = Sky::new(worker()).await;
    sky.region.change(|w| w.create_bucket(BUCKET));
    sky.file("etc/quorate/config.d/20.yaml", "kubernetes: {version: v1.36.2}\n");
    sky
}

fn now() -> i64 {
    quorate::host::clock::now_ms()
}

fn join(cluster: &str, endpoint: &str, token_ends: i64) -> Join {
    let authority = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    Join {
        terms: JoinTerms {
            cluster: cluster.parse().unwrap(),
            kubernetes_version: "v1.36.2".parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
            authority: digest(authority.as_bytes()),
            service_subnet: "10.96.0.0/12".parse().unwrap(),
            pod_subnet: None,
            cluster_domain: "cluster.local".parse().unwrap(),
        },
        certificate_authority: authority,
        token: BootstrapToken::parse(TOKEN).unwrap(),
        token_ends,
    }
}

fn put(region: &quorate::lab::region::Region, body: Vec<u8>) {
    let put = Put { body: body.into(), ..Put::default() };
    let key = "demo/workers/join.json";
    region.change(|w| w.put_object(&Caller::Operator, BUCKET, key, put, &Condition::None)).unwrap();
}

fn publish(sky: &Sky, join: &Join) {
    put(&sky.region, join.bytes().unwrap());
}

/// The services that the machine asked for anything.
fn asked(sky: &Sky) -> Vec<Service> {
    let calls = sky.region.with(|w| w.calls_after(0));
    calls.into_iter().filter(|call| call.instance.is_some()).map(|call| call.service).collect()
}

/// Does the plan's steps that write files.
async fn write(reach: &Reach, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::WriteKubernetesFiles { .. }
            | Step::WriteBootstrapKubeconfig { .. }
            | Step::SetNodeIdentityAside { .. } => execute(reach, step).await.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn why(plan: &Plan) -> String {
    assert!(plan.steps.is_empty(), "{plan:?}");
    match plan.report.waiting.as_slice() {
        [WaitingOn::Answer { about: Subject::WorkersObject, why }] => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_without_a_cluster_waits_and_asks_nobody_but_s3() {
    let sky = sky().await;
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    for _ in 0..3 {
        let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
        assert_eq!((plan.steps.len(), plan.report.waiting), (0, vec![WaitingOn::Join]));
    }
    let asked = asked(&sky);
    assert_eq!(asked.iter().filter(|service| **service == Service::S3).count(), 3);
    assert!(asked.iter().all(|service| matches!(service, Service::S3 | Service::Imds)), "{asked:?}");
}

/// What the machine asked its metadata service since the call of this number, sorted.
fn metadata_since(sky: &Sky, calls: usize) -> Vec<String> {
    let all = sky.region.with(|w| w.calls_after(0));
    let metadata = all.into_iter().skip(calls).filter(|call| call.service == Service::Imds);
    let mut asked: Vec<String> = metadata.map(|call| call.operation).collect();
    asked.sort_unstable();
    asked
}

#[tokio::test]
async fn a_worker_that_starts_asks_its_metadata_service_nothing_twice_and_nothing_without_need() {
    const START: [&str; 7] = [
        "api/token",
        "dynamic/instance-identity/document",
        "meta-data/autoscaling/target-lifecycle-state",
        "meta-data/events/maintenance/scheduled",
        "meta-data/instance-life-cycle",
        "meta-data/tags/instance/quorate:cluster",
        "meta-data/tags/instance/quorate:role",
    ];
    const SPOT: [&str; 2] = ["meta-data/events/recommendations/rebalance", "meta-data/spot/instance-action"];
    for spot in [false, true] {
        let sky = Sky::new(InstanceSpec { spot, ..worker() }).await;
        sky.region.change(|w| w.create_bucket(BUCKET));
        sky.file("etc/quorate/config.d/20.yaml", "kubernetes: {version: v1.36.2}\n");
        publish(&sky, &join("demo", "nowhere.invalid:6443", now() + HOUR));
        let reach = sky.reach().await;
        let mut memory = Memory::default();
        let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
        assert!(!plan.steps.is_empty(), "{plan:?}");
        let mut expected: Vec<&str> = START.to_vec();
        expected.extend(SPOT.iter().filter(|_| spot));
        expected.push("user-data");
        expected.sort_unstable();
        assert_eq!(metadata_since(&sky, 0), expected);
        let before = sky.region.with(|w| w.calls_after(0).len());
        look_again(&reach, &mut memory, Depth::Full).await;
        let mut expected = vec!["meta-data/autoscaling/target-lifecycle-state"];
        expected.extend(SPOT.iter().filter(|name| spot && name.contains("/spot/")));
        assert_eq!(metadata_since(&sky, before), expected, "what may be announced is asked at each look");
    }
}

#[tokio::test]
async fn what_is_published_and_can_not_be_used_is_named_and_nothing_is_done() {
    let sky = sky().await;
    let reach = sky.reach().await;
    let good = join("demo", "api.example.com:6443", now() + HOUR).bytes().unwrap();
    let other = join("other", "api.example.com:6443", now() + HOUR).bytes().unwrap();
    let later = String::from_utf8(good.clone()).unwrap().replace("\"format\": 1", "\"format\": 2");
    for (bytes, words) in [
        (good[..good.len() / 2].to_vec(), ["it can't be understood", "EOF"]),
        (other, ["of the cluster other", "this machine is of demo"]),
        (later.into_bytes(), ["its format is 2", "upgrade this machine's image"]),
    ] {
        put(&sky.region, bytes);
        let why = why(&look(&reach).await.1);
        for word in words.into_iter().chain(["s3://demo-quorate/demo/workers/join.json"]) {
            assert!(why.contains(word), "{word}: {why}");
        }
        assert!(!why.contains("0123456789abcdef"), "{why}");
    }
    sky.fault(Service::S3, FaultKind::AccessDenied);
    let why = why(&look(&reach).await.1);
    assert!(why.contains("workers/join.json") && why.contains("s3:GetObject"), "{why}");
}

#[tokio::test]
async fn a_token_is_in_one_file_for_its_owner_s_eyes_and_the_next_boot_reads_s3_once() {
    let sky = sky().await;
    publish(&sky, &join("demo", "nowhere.invalid:6443", now() + HOUR));
    let reach = sky.reach().await;
    let (seen, plan) = look(&reach).await;
    assert!(!serde_json::to_string(&(&seen, &plan)).unwrap().contains("0123456789abcdef"));
    write(&reach, &plan).await;
    let bootstrap = reach.root.path(paths::BOOTSTRAP_KUBECONFIG);
    assert_eq!(fs::metadata(&bootstrap).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&bootstrap).unwrap().contains(TOKEN));
    let mut files = Vec::new();
    below(sky.root.path(), &mut files);
    for file in files.iter().filter(|file| **file != bootstrap) {
        assert!(!fs::read_to_string(file).unwrap().contains("0123456789abcdef"), "{}", file.display());
    }
    let reads = asked(&sky).into_iter().filter(|service| *service == Service::S3).count();
    assert_eq!(reads, 1, "the step used what the look had read");
    // A file that is cut off half is written again, and one that is whole is not.
    fs::write(reach.root.path(paths::KUBELET_CONFIG), "half").unwrap();
    let (_, plan) = look(&reach).await;
    let [Step::WriteKubernetesFiles { files, .. }] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), [paths::KUBELET_CONFIG]);
    write(&reach, &plan).await;
    assert_eq!(look(&reach).await.1.steps, []);
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn what_a_worker_gets_is_rendered_offline_as_its_agent_writes_it() {
    let sky = sky().await;
    publish(&sky, &join("demo", "api.example.com:6443", now() + HOUR));
    let reach = sky.reach().await;
    let (observation, plan) = look(&reach).await;
    write(&reach, &plan).await;
    let record = quorate::agent::setup::Record { settings: reach.settings.clone(), observation };
    let out = tempfile::tempdir().unwrap();
    let told = quorate::cli::render::run(&record, out.path()).unwrap();
    let mut files = Vec::new();
    below(out.path(), &mut files);
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let place = file.strip_prefix(out.path()).unwrap();
        assert_eq!(fs::read(&file).unwrap(), fs::read(sky.root.path().join(place)).unwrap(), "{place:?}");
        assert!(told.contains(&format!("written    /{}\n", place.display())), "{told}");
    }
    assert!(told.contains(&format!("secret     {}\n", paths::BOOTSTRAP_KUBECONFIG)), "{told}");
}

#[tokio::test]
async fn a_token_that_ended_is_not_used_and_the_next_one_is() {
    let sky = sky().await;
    publish(&sky, &join("demo", "nowhere.invalid:6443", now() - 1));
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert!(matches!(plan.report.waiting.as_slice(), [WaitingOn::JoinToken { .. }]), "{plan:?}");
    write(&reach, &plan).await;
    assert!(!reach.root.path(paths::BOOTSTRAP_KUBECONFIG).exists());
    // It is looked for again although what is known is a moment old.
    publish(&sky, &join("demo", "nowhere.invalid:6443", now() + HOUR));
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert!(plan.steps.iter().any(|step| step.name() == "writeBootstrapKubeconfig"), "{plan:?}");
}

#[tokio::test]
async fn an_api_whose_name_does_not_resolve_is_said_until_it_does() {
    let sky = sky().await;
    let published = join("demo", "nowhere.invalid:6443", now() + HOUR);
    publish(&sky, &published);
    let reach = sky.reach().await;
    write(&reach, &look(&reach).await.1).await;
    let (seen, _) = look(&reach).await;
    let Readiness::NotReady(why) = &seen.kubernetes.worker.api else {
        panic!("{:?}", seen.kubernetes.worker)
    };
    assert!(why.contains("nowhere.invalid") && why.contains("lookup"), "{why}");
    // Another endpoint is followed, and what answers there is said instead.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
    publish(&sky, &Join { terms: JoinTerms { endpoint, ..published.terms.clone() }, ..published });
    let reach = sky.reach().await;
    write(&reach, &look(&reach).await.1).await;
    let (seen, _) = look(&reach).await;
    let Readiness::NotReady(why) = &seen.kubernetes.worker.api else {
        panic!("{:?}", seen.kubernetes.worker)
    };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn an_identity_of_another_cluster_is_set_aside_whole() {
    let sky = sky().await;
    publish(&sky, &join("demo", "nowhere.invalid:6443", now() + HOUR));
    let reach = sky.reach().await;
    let strange = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
    let identity = format!("{}{}", strange.cert.pem(), strange.signing_key.serialize_pem());
    sky.file(paths::KUBELET_ROTATING_CERTIFICATE.trim_start_matches('/'), &identity);
    let (_, plan) = look(&reach).await;
    assert_eq!(plan.steps[0].name(), "setNodeIdentityAside");
    write(&reach, &plan).await;
    let kubelet = reach.root.path("/var/lib/kubelet");
    let aside = fs::read_dir(&kubelet)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("pki.aside-"));
    let kept = fs::read_to_string(aside.unwrap().join("kubelet-client-current.pem")).unwrap();
    assert_eq!(kept, identity);
    assert_eq!(look(&reach).await.0.kubernetes.worker.certificate, Fact::Known(None));
}

/// A worker in a laboratory without a control plane, which was told of an API that nobody serves.
async fn lonely(name: &str) -> (Laboratory, Machine, Scratch) {
    lonely_with(name, |_| {}).await
}

async fn lonely_with(name: &str, adjust: impl FnOnce(&mut Settings)) -> (Laboratory, Machine, Scratch) {
    let scratch = Scratch::new(name).unwrap();
    let mut settings = Settings::new(scratch.path(), Path::new(env!("CARGO_BIN_EXE_quorate"))).unwrap();
    (settings.zones, settings.control_plane, settings.size, settings.workers) = (1, 0, 1, 1);
    settings.start = Start::Held;
    settings.kubernetes = Kubernetes::Rendered("1.36.2".to_owned());
    settings.configuration.insert("tick".to_owned(), serde_json::json!("1s"));
    adjust(&mut settings);
    let lab = Laboratory::start(settings).await.unwrap();
    let machine = lab.machines().remove(0);
    put(lab.region(), join("demo", "127.0.0.1:1", now() + HOUR).bytes().unwrap());
    (lab, machine, scratch)
}

async fn until_said(lab: &Laboratory, machine: &Machine, words: &str) {
    let root = Root::new(machine.root());
    lab.wait(words, PATIENCE, |_| match status::read(&root) {
        Ok(status) if status.words.iter().any(|said| said.contains(words)) => Ok(()),
        Ok(status) => Err(status.line()),
        Err(error) => Err(error.to_string()),
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_after_any_step_of_joining_carries_on() {
    for step in ["writeKubernetesFiles", "writeBootstrapKubeconfig", "configureContainerd", "startService"] {
        let (lab, machine, _scratch) = lonely("worker-cut").await;
        machine.fail_at(Some(FailPoint { step: step.to_owned(), lives: Lives::One }));
        machine.start();
        until_said(&lab, &machine, "the API at 127.0.0.1:1 to answer").await;
        assert!(machine.restarts() >= 1, "{step}: the agent was not cut off");
        let bootstrap =
            fs::read_to_string(Root::new(machine.root()).path(paths::BOOTSTRAP_KUBECONFIG)).unwrap();
        assert!(bootstrap.contains(TOKEN), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asks_aws_for_nothing_that_its_role_is_not_given() {
    let (lab, machine, _scratch) = lonely_with("worker-role", |settings| settings.hooks = true).await;
    machine.start();
    until_said(&lab, &machine, "the API at 127.0.0.1:1 to answer").await;
    let needed = [
        "s3:GetObject",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DescribeLifecycleHooks",
        "autoscaling:RecordLifecycleActionHeartbeat",
    ];
    let asked = |lab: &Laboratory| lab.region().with(|world| world.authorizations().clone());
    // The launch hook is held for as long as it is not ready.
    lab.wait("all that a worker asks", PATIENCE, |lab| {
        let asked = asked(lab);
        let is_asked = |action: &&str| asked.iter().any(|one| one.action == *action && one.role == "worker");
        match needed.iter().find(|action| !is_asked(action)) {
            None => Ok(()),
            Some(action) => Err(format!("{action} was not asked for")),
        }
    })
    .await
    .unwrap();
    permissions::judge(&asked(&lab), Volumes::PerZone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_starts_and_exits_is_said_with_its_end_and_started_once_it_is_mended() {
    let (lab, machine, _scratch) = lonely("worker-kubelet").await;
    let kubelet = quorate::lab::kubelet::program::place(machine.dir(), "kubelet");
    let whole = kubelet.with_extension("whole");
    fs::rename(&kubelet, &whole).unwrap();
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo Kubernetes v1.36.2 && exit 0\necho 'unknown flag: --x' >&2\nexit 3\n";
    fs::write(&kubelet, script).unwrap();
    fs::set_permissions(&kubelet, fs::Permissions::from_mode(0o755)).unwrap();
    machine.start();
    until_said(&lab, &machine, "kubelet on this machine").await;
    until_said(&lab, &machine, "3").await;
    fs::rename(&whole, &kubelet).unwrap();
    until_said(&lab, &machine, "the API at 127.0.0.1:1 to answer").await;
}
