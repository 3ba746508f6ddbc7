//! Bad weather for Kubernetes' control plane: a manifest that never gets ready, a load balancer that
//! goes, authorities that are damaged, and calls that go wrong.
//!
//! Needs Kubernetes' programs on this computer. What is asserted is what an operator sees: the words of
//! `status`, the files of the machines, and an API that answers through its load balancer. An agent
//! remembers for a while what it was told of load balancers and authorities, and one that is started
//! anew looks anew; so agents are killed where a drill can't wait.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::api::{Came, READY, Writer, admin, admin_by};
use super::report::millis;
use super::{Options, Report, Stage, Unmet};
use crate::host::manifests::Manifests;
use crate::host::{Root, clock};
use crate::kubernetes::{Component, digest, paths};
use crate::lab::LabError;
use crate::lab::cluster::wait_healthy;
use crate::lab::error::chain;
use crate::lab::kubelet::Running;
use crate::lab::laboratory::{API, CONTROL_PLANE, Laboratory};
use crate::lab::machine::Machine;
use crate::lab::region::{Balancer, BalancerKind, BalancerSpec, Caller, Condition, PoolSpec, Put, Service};
use crate::lab::settings::{BUCKET, CLUSTER, Kubernetes};
use crate::lab::status::Status;
use crate::model::kubernetes::RolloutState;
use crate::pki::{ClusterAuthorities, cluster_leaves};
use crate::reach::CLUSTER_AUTHORITIES;

/// How long a component may take to be ready with the manifest that never gets ready. Others have the
/// usual time: a computer may be busy.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long may take what an agent does at its next look or two.
const SOON: Duration = Duration::from_secs(30);
/// The longest time for which the API may fail; an election of etcd's on a busy computer is in it. One that
/// does not go around the machine that is not ready would fail for as long as that is not.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// A flag that no API server knows.
const UNKNOWN: &str = "--no-such-flag=x";
/// One that all know.
const KNOWN: &str = "--v=1";
/// The load balancer that takes the first one's place, and one too many.
const NEXT: &str = "demo-next";
const TOO_MANY: &str = "demo-third";
/// For how long nothing may change while calls go wrong.
const WEATHER: Duration = Duration::from_secs(8);

/// The drill.
pub(super) async fn weather(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let kubernetes = Kubernetes::here().map_err(Unmet::Broken)?;
    let mut stage = Stage::build("control-plane-weather", options, |settings| {
        settings.kubernetes = kubernetes;
        settings.workers = 1;
        let keys = [("tick", json!("1s")), ("kubernetes.apiServer.shutdownDelay", json!("2s"))];
        settings.configuration.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    })
    .await?;
    let mut told = Told::default();
    let result = shake(&mut stage, &mut told).await;
    let times = [
        ("rolledBackMs", told.rolled_back),
        ("correctedMs", told.corrected),
        ("endpointFollowedMs", told.followed),
        ("workerFollowedMs", told.workers_followed),
        ("apiLongestGapMs", told.longest_gap),
    ];
    for (name, time) in times.into_iter().filter_map(|(name, time)| Some((name, time?))) {
        report.tell(name, millis(time));
    }
    report.tell("apiWrites", told.writes);
    report.tell("loadBalancingFaults", told.faults);
    stage.close(result, report).await
}

/// What the drill has to tell.
#[derive(Default)]
struct Told {
    rolled_back: Option<Duration>,
    corrected: Option<Duration>,
    followed: Option<Duration>,
    workers_followed: Option<Duration>,
    longest_gap: Option<Duration>,
    writes: u64,
    faults: u64,
}

impl Told {
    /// Ends a writer: nothing that was acknowledged is lost, and the API answered all the time.
    async fn ended(&mut self, writer: Writer) -> Result<(), Unmet> {
        let Came { count, gap, .. } = writer.end().await?;
        self.writes += count;
        self.longest_gap = self.longest_gap.max(Some(gap));
        if count == 0 || gap > LONGEST_GAP {
            return Err(Unmet::Broken(format!("{count} API writes, and none for {} ms", gap.as_millis())));
        }
        Ok(())
    }
}

async fn shake(stage: &mut Stage, told: &mut Told) -> Result<(), Unmet> {
    stage.start_all().await?;
    stage.lab.machines().iter().filter(|machine| !machine.is_started()).for_each(Machine::start);
    stage.formed(READY).await?;
    wait_healthy(&stage.lab, READY).await?;

    let writer = Writer::begin(admin(&stage.lab).await?);
    writer.first(READY).await?;
    bad_manifest(stage, told).await?;
    told.ended(writer).await?;

    let next = load_balancer_goes(stage, told).await?;
    let writer = Writer::begin(admin_by(&stage.lab, next).await?);
    writer.first(SOON).await?;
    too_many_load_balancers(stage).await?;
    damaged_authorities(stage).await?;
    calls_go_wrong(stage, told).await?;
    told.ended(writer).await
}

/// A machine is given a flag that no API server knows. The manifest before is back after the
/// patience; nobody else changes before that; what is corrected is put in place.
async fn bad_manifest(stage: &mut Stage, told: &mut Told) -> Result<(), Unmet> {
    let mut machines = stage.lab.control_plane();
    stage.rng.shuffle(&mut machines);
    let [bad, next, idle] = machines.as_slice() else {
        return Err(Unmet::Broken(format!("{} machines, not 3", machines.len())));
    };
    let before = manifests(bad)?;
    let others = (manifests(next)?, manifests(idle)?);
    let began = Instant::now();
    let patience = format!("{}s", PATIENCE.as_secs());
    configure(bad, &json!({ "readyPatience": patience, "apiServer": { "extraArgs": [UNKNOWN] } }))?;
    stage.lab.wait("the changed manifest", SOON, |_| has(bad, Component::ApiServer, UNKNOWN)).await?;
    // Another machine has something to change as well, and must not yet.
    configure(next, &json!({ "scheduler": { "extraArgs": [KNOWN] } }))?;
    let busy = format!("{} to finish changing its control plane", bad.identity().instance);
    let not_ready = "kube-apiserver on this machine to be ready";
    stage
        .lab
        .wait("a machine that waits for its turn", SOON, |_| {
            says(bad, not_ready).and_then(|()| says(next, &busy))
        })
        .await?;
    let mut early = None;
    let is_back = |_: &Laboratory| {
        let unchanged = (manifests(next), manifests(idle));
        let back = manifests(bad).map_err(|error| chain(&error))? == before;
        let (Ok(a), Ok(b)) = unchanged else { return Err("manifests can't be read".to_owned()) };
        if !back && (a, b) != others {
            early = Some("a second machine changed its manifests while the first was not ready");
        }
        if back { Ok(()) } else { Err("the bad manifest is in place".to_owned()) }
    };
    stage.lab.wait("the manifest before", PATIENCE + SOON, is_back).await?;
    if let Some(early) = early {
        return Err(Unmet::Broken(early.to_owned()));
    }
    told.rolled_back = Some(began.elapsed());
    if began.elapsed() < PATIENCE {
        return Err(Unmet::Broken("the manifest had less than its time to get ready".to_owned()));
    }
    let failed = "the changed manifest of kube-apiserver did not get ready";
    stage
        .lab
        .wait("the word of the failure, and the next machine's turn", READY, |_| {
            says(bad, failed).and_then(|()| has_proven_good(next, Component::Scheduler, KNOWN))
        })
        .await?;
    wait_healthy(&stage.lab, READY).await?;

    let began = Instant::now();
    configure(bad, &json!({ "apiServer": { "extraArgs": [KNOWN] } }))?;
    stage
        .lab
        .wait("the corrected manifest", READY, |_| {
            has_proven_good(bad, Component::ApiServer, KNOWN).and_then(|()| unsaid(bad, failed))
        })
        .await?;
    wait_healthy(&stage.lab, READY).await?;
    told.corrected = Some(began.elapsed());
    if manifests(idle)? == others.1 {
        Ok(())
    } else {
        Err(Unmet::Broken("an idle machine changed".to_owned()))
    }
}

/// The load balancer goes away, and nothing changes; another comes, and certificates and kubeconfigs
/// follow. The answer is where it listens.
async fn load_balancer_goes(stage: &mut Stage, told: &mut Told) -> Result<SocketAddr, Unmet> {
    let old = listens(&stage.lab, API)?;
    // It is there already, so that it does not get the first one's address.
    let pool = create_balancer(&stage.lab, NEXT)?;
    let next = listens(&stage.lab, NEXT)?;
    let before = files(&stage.lab)?;
    stage.lab.ask("the load balancer's end", |world| world.delete_balancer(API))?;
    start_anew(&stage.lab).await?;
    let gone = format!("the load balancer {} is gone", old.ip());
    all(&stage.lab, "the word that it is gone", |machine| says(machine, &gone)).await?;
    unchanged(&stage.lab, &before, "while there is no load balancer")?;

    let began = Instant::now();
    stage.lab.ask("another load balancer", |world| world.attach_pool(CONTROL_PLANE, &pool))?;
    all(&stage.lab, "all files to name the new one", |machine| {
        unsaid(machine, &gone)?;
        names(machine, next, old)
    })
    .await?;
    told.followed = Some(began.elapsed());
    wait_healthy(&stage.lab, READY).await?;
    // The worker finds that the API does not answer any more where it was, and looks what is published now.
    stage
        .lab
        .wait("the worker to follow", READY, |lab| {
            lab.machines().iter().filter(|machine| machine.identity().role == "worker").try_for_each(
                |worker| {
                    let text = |path| {
                        let path = place(worker, path);
                        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
                    };
                    for path in [paths::KUBELET_KUBECONFIG, paths::KUBE_PROXY_KUBECONFIG] {
                        if !text(path)?.contains(&next.to_string()) {
                            return Err(format!("{path} names another endpoint"));
                        }
                    }
                    let status = current(worker)?;
                    if status.is_running() { Ok(()) } else { Err(status.line()) }
                },
            )
        })
        .await?;
    told.workers_followed = Some(began.elapsed());
    Ok(next)
}

/// Two load balancers fit: that is said, and nothing changes.
async fn too_many_load_balancers(stage: &mut Stage) -> Result<(), Unmet> {
    let before = files(&stage.lab)?;
    let pool = create_balancer(&stage.lab, TOO_MANY)?;
    stage.lab.ask("a load balancer too many", |world| world.attach_pool(CONTROL_PLANE, &pool))?;
    let ends = [listens(&stage.lab, NEXT)?, listens(&stage.lab, TOO_MANY)?];
    start_anew(&stage.lab).await?;
    all(&stage.lab, "the word that two fit", |machine| {
        let status = current(machine)?;
        if status.halted_because() != Some("ambiguousLoadBalancers") {
            return Err(format!("{}: {}", machine.identity().name, status.line()));
        }
        ends.iter().try_for_each(|end| says(machine, &end.to_string()))
    })
    .await?;
    unchanged(&stage.lab, &before, "while two load balancers fit")?;
    stage.lab.ask("one load balancer's end", |world| world.delete_balancer(TOO_MANY))?;
    wait_healthy(&stage.lab, READY).await?;
    unchanged(&stage.lab, &before, "since two load balancers fitted")
}

/// What lies in S3 of Kubernetes' authorities is damaged, then another cluster's, then gone: it is
/// said, and what runs goes on. When it is restored, nothing is said any more.
async fn damaged_authorities(stage: &mut Stage) -> Result<(), Unmet> {
    let key = format!("{CLUSTER}/{CLUSTER_AUTHORITIES}");
    let lab = &stage.lab;
    let whole = lab.region().with(|world| {
        let object = world.get_object(&Caller::Operator, BUCKET, &key);
        object.map(|object| object.body.clone())
    });
    let whole = whole.map_err(|refusal| Unmet::Broken(refusal.to_string()))?;
    let put = |body: Bytes| {
        let put = Put { body, ..Put::default() };
        lab.ask(&key, |world| world.put_object(&Caller::Operator, BUCKET, &key, put, &Condition::None))
    };
    let told = |error: &(dyn std::error::Error + 'static)| Unmet::Broken(chain(error));
    let stranger = "stranger".parse().map_err(|_| Unmet::Broken("a cluster's name".to_owned()))?;
    let strange = ClusterAuthorities::create(&stranger, clock::now_ms()).map_err(|error| told(&error))?;
    let strange = strange.bundle().map_err(|error| told(&error))?;
    let (files, running) = (files(lab)?, running(lab));

    let no_answer = "no answer about Kubernetes' authorities";
    put(whole.slice(..whole.len() / 2))?;
    start_anew(lab).await?;
    all(lab, "the word that they are damaged", |machine| {
        says(machine, no_answer).and_then(|()| says(machine, CLUSTER_AUTHORITIES))
    })
    .await?;
    put(strange.into())?;
    all(lab, "the word that they are another cluster's", |machine| says(machine, "stranger")).await?;
    lab.ask(&key, |world| world.delete_object(&Caller::Operator, BUCKET, &key))?;
    let missing = "pki/kubernetes.json is missing in S3";
    all(lab, "the word that they are missing", |machine| says(machine, missing)).await?;
    put(whole)?;
    all(lab, "nothing to be said of them", |machine| {
        unsaid(machine, missing).and_then(|()| unsaid(machine, no_answer))
    })
    .await?;
    unchanged(lab, &files, "by what lay in S3")?;
    goes_on(lab, &running)
}

/// Every fifth call goes wrong, those to Elastic Load Balancing among them, and every agent is started
/// anew: nothing of what runs changes.
async fn calls_go_wrong(stage: &mut Stage, told: &mut Told) -> Result<(), Unmet> {
    const TRIES: usize = 5;
    let before = wait_healthy(&stage.lab, READY).await?;
    let (files, running) = (files(&stage.lab)?, running(&stage.lab));
    stage.mixed_weather();
    for _ in 0..TRIES {
        start_anew(&stage.lab).await?;
        wait_healthy(&stage.lab, READY).await?;
        told.faults = hits(&stage.lab);
        if told.faults > 0 {
            break;
        }
    }
    if told.faults == 0 {
        return Err(Unmet::Broken("no call to Elastic Load Balancing went wrong".to_owned()));
    }
    // Not waited for anything: it is watched that nothing happens.
    let began = Instant::now();
    while began.elapsed() < WEATHER {
        goes_on(&stage.lab, &running)?;
        sleep(Duration::from_millis(200)).await;
    }
    stage.lab.region().change(crate::lab::region::World::clear_faults);
    let after = wait_healthy(&stage.lab, READY).await?;
    if (before.cluster, &before.members) != (after.cluster, &after.members) {
        return Err(Unmet::Broken(format!("the members changed: {before:?}, {after:?}")));
    }
    unchanged(&stage.lab, &files, "in bad weather")?;
    goes_on(&stage.lab, &running)
}

/// How many calls to Elastic Load Balancing went wrong.
fn hits(lab: &Laboratory) -> u64 {
    lab.region().with(|world| {
        let faults = world.faults().filter(|(_, fault)| fault.spec.service == Service::LoadBalancing);
        faults.map(|(_, fault)| fault.hits).sum()
    })
}

/// Changes a machine's settings below `kubernetes`, and has its agent read them.
fn configure(machine: &Machine, kubernetes: &Value) -> Result<(), Unmet> {
    let path = machine.root().join("etc/quorate/config.d/60-drill.yaml");
    fs::write(&path, format!("{:#}\n", json!({ "kubernetes": kubernetes })))
        .map_err(LabError::file("writing", &path))?;
    machine.kill_agent();
    Ok(())
}

/// Kills every agent, and waits until each is back.
async fn start_anew(lab: &Laboratory) -> Result<(), Unmet> {
    let before: Vec<Option<u32>> = lab.control_plane().iter().map(Machine::pid).collect();
    lab.control_plane().iter().for_each(Machine::kill_agent);
    lab.wait("agents that are started anew", SOON, |lab| {
        lab.control_plane().iter().zip(&before).try_for_each(|(machine, before)| {
            current(machine)?;
            if machine.pid() == *before { Err(machine.identity().name.clone()) } else { Ok(()) }
        })
    })
    .await
    .map_err(Unmet::from)
}

/// Waits until something holds on all machines.
async fn all(
    lab: &Laboratory,
    what: &str,
    look: impl Fn(&Machine) -> Result<(), String>,
) -> Result<(), Unmet> {
    Ok(lab.wait(what, READY, |lab| lab.control_plane().iter().try_for_each(&look)).await?)
}

/// What the agent that runs now says.
pub(super) fn current(machine: &Machine) -> Result<Status, String> {
    let status = Status::of(&machine.root()).map_err(|error| chain(&error))?.unwrap_or_default();
    if status.pid.is_some() && status.pid == machine.pid() {
        Ok(status)
    } else {
        Err(format!("{}: its agent has not said anything yet", machine.identity().name))
    }
}

pub(super) fn says(machine: &Machine, text: &str) -> Result<(), String> {
    let status = current(machine)?;
    if status.words.iter().any(|words| words.contains(text)) {
        Ok(())
    } else {
        Err(format!("{} does not say {text:?}: {}", machine.identity().name, status.line()))
    }
}

fn unsaid(machine: &Machine, text: &str) -> Result<(), String> {
    let status = current(machine)?;
    match status.words.iter().find(|words| words.contains(text)) {
        None => Ok(()),
        Some(words) => Err(format!("{} still says: {words}", machine.identity().name)),
    }
}

fn place(machine: &Machine, path: &str) -> PathBuf {
    machine.root().join(path.trim_start_matches('/'))
}

/// Whether a component's manifest has this text.
fn has(machine: &Machine, component: Component, text: &str) -> Result<(), String> {
    let path = place(machine, component.manifest());
    let manifest = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if manifest.contains(text) { Ok(()) } else { Err(format!("{} has no {text}", path.display())) }
}

/// The same, and the component got ready with it.
fn has_proven_good(machine: &Machine, component: Component, text: &str) -> Result<(), String> {
    has(machine, component, text)?;
    let rollout = Manifests::of(&Root::new(machine.root())).rollout(component);
    match rollout.map_err(|error| chain(&error))? {
        Some(rollout) if rollout.state == RolloutState::Good => Ok(()),
        other => Err(format!("{} on {} is not ready: {other:?}", component.name(), machine.identity().name)),
    }
}

/// A machine's manifests.
fn manifests(machine: &Machine) -> Result<BTreeMap<PathBuf, String>, LabError> {
    let mut found = BTreeMap::new();
    digests(&place(machine, paths::MANIFESTS), &mut found)?;
    Ok(found)
}

/// The digest of every file of Kubernetes' on every machine.
fn files(lab: &Laboratory) -> Result<BTreeMap<PathBuf, String>, LabError> {
    let mut found = BTreeMap::new();
    for machine in lab.control_plane() {
        digests(&place(&machine, paths::KUBERNETES), &mut found)?;
    }
    Ok(found)
}

fn digests(dir: &Path, found: &mut BTreeMap<PathBuf, String>) -> Result<(), LabError> {
    for path in below(dir)? {
        let bytes = fs::read(&path).map_err(LabError::file("reading", &path))?;
        found.insert(path, digest(&bytes));
    }
    Ok(())
}

/// All files below a directory.
fn below(dir: &Path) -> Result<Vec<PathBuf>, LabError> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = fs::read_dir(&dir).map_err(LabError::file("listing", &dir))?;
        for entry in entries {
            let path = entry.map_err(LabError::file("listing", &dir))?.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

fn unchanged(lab: &Laboratory, before: &BTreeMap<PathBuf, String>, when: &str) -> Result<(), Unmet> {
    let now = files(lab)?;
    let changed: Vec<&PathBuf> =
        before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path)).collect();
    if changed.is_empty() { Ok(()) } else { Err(Unmet::Broken(format!("these changed {when}: {changed:?}"))) }
}

/// What runs of each pod on each machine.
type Runs = BTreeMap<(String, String, String), Running>;

fn running(lab: &Laboratory) -> Runs {
    let mut found = Runs::new();
    for machine in lab.control_plane() {
        for (pod, status) in machine.pods() {
            for (container, running) in status.containers {
                found.insert((machine.identity().name.clone(), pod.clone(), container), running);
            }
        }
    }
    found
}

fn goes_on(lab: &Laboratory, before: &Runs) -> Result<(), Unmet> {
    let now = running(lab);
    if now == *before {
        Ok(())
    } else {
        Err(Unmet::Broken(format!("other processes run: {before:?} were there, and {now:?} are")))
    }
}

/// Whether a machine's certificates and kubeconfigs name the new endpoint, and none the old one.
fn names(machine: &Machine, new: SocketAddr, old: SocketAddr) -> Result<(), String> {
    let name = &machine.identity().name;
    let told = |error: &(dyn std::error::Error + 'static)| format!("{name}: {}", chain(error));
    let leaves = cluster_leaves::inspect(&place(machine, paths::KUBERNETES), None).map_err(|e| told(&e))?;
    let leaves = leaves.ok_or_else(|| format!("{name}: there are no usable certificates"))?;
    let served: Vec<String> = leaves.names.api_server.iter().map(ToString::to_string).collect();
    if !served.contains(&new.ip().to_string()) || served.contains(&old.ip().to_string()) {
        return Err(format!("{name}: the API server's certificate is good for {served:?}"));
    }
    let endpoint = machine.root().join("var/lib/quorate/endpoint");
    let endpoint = fs::read_to_string(endpoint).map_err(|error| told(&error))?;
    if endpoint.trim() != new.to_string() {
        return Err(format!("{name}: its files were made for {}", endpoint.trim()));
    }
    for path in below(&place(machine, paths::KUBERNETES)).map_err(|error| told(&error))? {
        let text = fs::read(&path).map_err(|error| told(&error))?;
        if String::from_utf8_lossy(&text).contains(&old.ip().to_string()) {
            return Err(format!("{} names {old}", path.display()));
        }
    }
    Ok(())
}

fn listens(lab: &Laboratory, balancer: &str) -> Result<SocketAddr, Unmet> {
    let found = lab.region().with(|world| world.view().balancers.get(balancer).map(Balancer::listens_at));
    found.ok_or_else(|| Unmet::Broken(format!("there is no load balancer {balancer}")))
}

/// A load balancer that no group and no tag leads to; the answer is its target group's ARN.
fn create_balancer(lab: &Laboratory, name: &str) -> Result<String, LabError> {
    const PORT: u16 = 6443;
    let spec = BalancerSpec {
        name: name.to_owned(),
        kind: BalancerKind::Network,
        internal: true,
        port: PORT,
        pool: PoolSpec { port: PORT, ..PoolSpec::default() },
        tags: BTreeMap::new(),
    };
    lab.ask(format!("the load balancer {name}"), |world| world.create_balancer(spec))
}
