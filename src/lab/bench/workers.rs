//! Workers: how long one takes from its agent's start until its kubelet is told to start, and what a thousand that boot
//! at once ask for.
//!
//! The one is the agent's own program on a machine of the laboratory, with everything at hand: what is published to
//! workers lies in the bucket. The thousand are simulated: each has its own root, its own metadata service and the
//! agent's own loop, and all share this process; what stands in for a machine is that containerd runs, and that it ends
//! when its kubelet is told to start. Their region refuses every call to EC2, Auto Scaling and Elastic Load Balancing,
//! as it would in a storm, and every tenth to S3.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use super::{memory, millis, tell};
use crate::agent::setup::{learn, retry_after};
use crate::agent::{Agent, Event, Machine as OwnMachine, World as Looks};
use crate::aws::{Access, Endpoints};
use crate::execute::StepError;
use crate::host::{Root, clock};
use crate::kubernetes::digest;
use crate::kubernetes::join::{BootstrapToken, Join};
use crate::lab::LabError;
use crate::lab::laboratory::{Laboratory, Scratch};
use crate::lab::machine::Machine;
use crate::lab::region::{
    Caller, Condition, FaultKind, FaultSpec, InstanceSpec, InstanceState, Outcome, Put, Region, RegionConfig,
    Service,
};
use crate::lab::settings::{BUCKET, CLUSTER, Kubernetes, Settings, Start};
use crate::model::containerd::{ContainerdConfiguration, ContainerdObservation};
use crate::model::enrolment::JoinTerms;
use crate::model::kubernetes::NODE_SERVICES;
use crate::model::service::ServiceObservation;
use crate::model::{Fact, Observation, Plan, ServiceName, ServiceState, Step, Waiting};
use crate::observe::Depth;
use crate::pki::ClusterAuthorities;
use crate::reach::{JOIN, Reach};
use crate::telemetry::history::Entry;
use crate::telemetry::status::Status;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often S3 says that it is asked too often.
const SLOW_DOWN: f64 = 0.1;
pub(super) const VERSION: &str = "1.36.2";
const TOKEN: &str = "abcdef.0123456789abcdef";

type Failure = Box<dyn std::error::Error>;

fn failed(what: &'static str) -> impl Fn(Failure) -> LabError {
    move |error| LabError::Settings(format!("{what}: {}", super::chain(error.as_ref())))
}

/// What is published to workers.
fn published() -> Result<Vec<u8>, Failure> {
    let cluster = CLUSTER.parse()?;
    let authorities = ClusterAuthorities::create(&cluster, clock::now_ms())?;
    let certificate_authority = authorities.certificate().to_owned();
    let join = Join {
        terms: JoinTerms {
            cluster,
            kubernetes_version: format!("v{VERSION}").parse()?,
            endpoint: "127.0.0.1:1".parse()?,
            authority: digest(certificate_authority.as_bytes()),
            service_subnet: "10.96.0.0/12".parse()?,
            pod_subnet: None,
            cluster_domain: "cluster.local".parse()?,
        },
        certificate_authority,
        token: BootstrapToken::parse(TOKEN)?,
        token_ends: clock::now_ms() + 3_600_000,
    };
    Ok(join.bytes()?)
}

fn publish(region: &Region) -> Result<(), LabError> {
    let put =
        Put { body: published().map_err(failed("what is published to workers"))?.into(), ..Put::default() };
    let key = format!("{CLUSTER}/{JOIN}");
    region
        .change(|world| world.put_object(&Caller::Operator, BUCKET, &key, put, &Condition::None))
        .map(drop)
        .map_err(LabError::refused(JOIN))
}

/// What one worker took.
#[derive(Debug, Clone, Copy)]
pub(super) struct One {
    /// From its agent's start until the kubelet is told to start.
    pub time: Duration,
    /// The most memory that the agent had, in MiB.
    pub memory: f64,
    /// How often it asked its metadata service.
    pub metadata: usize,
    /// How often it asked AWS.
    pub calls: usize,
}

/// One worker, by the agent's program.
pub(super) async fn one(agent: &Path, seed: u64) -> Result<One, LabError> {
    const AGAIN: Duration = Duration::from_micros(500);
    let scratch = Scratch::new("bench-worker")?;
    let (lab, worker) = laboratory(scratch.path(), agent, seed).await?;
    // The kubelet's log is opened when it is started.
    let log = worker.root().join("var/log/quorate/kubelet.log");
    // Before it is: a computer that is busy may tell late that the agent runs.
    let began = Instant::now();
    worker.start();
    let spawned = async {
        while !log.exists() {
            sleep(AGAIN).await;
        }
        began.elapsed()
    };
    let time = timeout(PATIENCE, spawned).await.map_err(|_| late("the kubelet's start"))?;
    let pid = worker.pid().ok_or_else(|| late("the agent"))?;
    let path = format!("/proc/{pid}/status");
    let memory = memory(pid, "VmHWM").map_err(LabError::file("reading", Path::new(&path)))?;
    let (metadata, calls) = calls_of(&lab);
    Ok(One { time, memory, metadata, calls })
}

/// A laboratory of one worker that is not started, with everything at hand.
pub(super) async fn laboratory(
    dir: &Path,
    agent: &Path,
    seed: u64,
) -> Result<(Laboratory, Machine), LabError> {
    let settings = Settings {
        seed,
        zones: 1,
        size: 1,
        control_plane: 0,
        workers: 1,
        start: Start::Held,
        kubernetes: Kubernetes::Rendered(VERSION.to_owned()),
        ..Settings::new(dir, agent)?
    };
    let lab = Laboratory::start(settings).await?;
    publish(lab.region())?;
    let worker = lab.machines().pop().ok_or_else(|| LabError::NoNode("a worker".to_owned()))?;
    Ok((lab, worker))
}

/// How often machines asked their metadata services, and AWS.
pub(super) fn calls_of(lab: &Laboratory) -> (usize, usize) {
    let calls = lab.region().with(|world| world.calls_after(0));
    let (metadata, calls): (Vec<_>, Vec<_>) =
        calls.iter().filter(|call| call.instance.is_some()).partition(|call| call.service == Service::Imds);
    (metadata.len(), calls.len())
}

fn late(what: &str) -> LabError {
    let why = "it did not come".to_owned();
    LabError::TimedOut { what: what.to_owned(), seconds: PATIENCE.as_secs(), why }
}

/// What many workers took that booted at once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Many {
    /// From the first one's start until the last one's kubelet is told to start.
    pub time: Duration,
    /// How much memory each took of this process, in MiB.
    pub memory: f64,
    /// Calls to each service, of all together.
    pub calls: BTreeMap<Service, usize>,
    /// The most reads of S3 by one of them that were answered.
    pub most_reads: usize,
}

/// So many workers, in this process.
pub(super) async fn many(count: usize) -> Result<Many, LabError> {
    let scratch = Scratch::new("bench-workers")?;
    let config = RegionConfig::default();
    let zone = config.world.zones.first().cloned().unwrap_or_default();
    let region = Region::start(config).await?;
    region.change(|world| world.create_bucket(BUCKET));
    publish(&region)?;
    let tags = [("quorate:cluster", CLUSTER), ("quorate:role", "worker")];
    let spec = InstanceSpec {
        zone,
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        metadata_tags: true,
        ..InstanceSpec::default()
    };
    let mut instances = Vec::new();
    for _ in 0..count {
        let started = region.change(|world| world.run_instance(spec.clone()));
        instances.push(started.map_err(LabError::refused("a worker"))?.to_string());
    }
    let all_run = |world: &crate::lab::region::World| {
        world.view().instances.values().all(|instance| instance.state == InstanceState::Running)
    };
    if !region.wait_until(PATIENCE, all_run).await {
        return Err(late("running instances"));
    }
    for (service, rate) in [
        (Service::Ec2, 1.0),
        (Service::Autoscaling, 1.0),
        (Service::LoadBalancing, 1.0),
        (Service::S3, SLOW_DOWN),
    ] {
        let (operation, instance, count, seed) = (None, None, None, Some(1));
        let spec = FaultSpec { service, operation, instance, kind: FaultKind::Throttle, rate, count, seed };
        region.change(|world| world.add_fault(spec));
    }
    let own = std::process::id();
    let resident = || memory(own, "VmRSS").map_err(LabError::file("reading", Path::new("/proc/self/status")));
    let (before, region) = (resident()?, Rc::new(region));
    let local = LocalSet::new();
    let began = Instant::now();
    let mut workers = Vec::new();
    for instance in &instances {
        let root = scratch.path().join(instance);
        workers.push(local.spawn_local(boot(Rc::clone(&region), instance.clone(), root)));
    }
    let all = async {
        for worker in workers {
            worker.await.map_err(|error| LabError::Settings(format!("a worker ended early: {error}")))??;
        }
        Ok::<(), LabError>(())
    };
    timeout(PATIENCE, local.run_until(all)).await.map_err(|_| late("the last worker"))??;
    let time = began.elapsed();
    let after = resident()?;
    let mut calls: BTreeMap<Service, usize> = BTreeMap::new();
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    for call in region.with(|world| world.calls_after(0)) {
        let Some(instance) = call.instance else { continue };
        *calls.entry(call.service).or_default() += 1;
        if call.service == Service::S3 && call.outcome == Outcome::Answered {
            *reads.entry(instance).or_default() += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a share of a few thousand")]
    let memory = (after - before) / count as f64;
    Ok(Many { time, memory, calls, most_reads: reads.into_values().max().unwrap_or(0) })
}

/// One simulated worker, from its boot until its kubelet is told to start.
async fn boot(region: Rc<Region>, instance: String, root: std::path::PathBuf) -> Result<(), LabError> {
    let config = root.join("usr/lib/quorate/config.d");
    let marker = root.join("run/systemd/timesync");
    for dir in [&config, &marker] {
        fs::create_dir_all(dir).map_err(LabError::file("making", dir))?;
    }
    let text = format!("cluster: {CLUSTER}\nbucket: {BUCKET}\nkubernetes: {{version: v{VERSION}}}\n");
    for (path, text) in [(config.join("10.yaml"), text.as_str()), (marker.join("synchronized"), "")] {
        fs::write(&path, text).map_err(LabError::file("writing", &path))?;
    }
    let credentials = region.with(|world| {
        let found = &world.view().instances[instance.as_str()];
        found.imds.zip(found.credentials.as_ref().map(|credentials| credentials.access_key.clone()))
    });
    let (metadata, key) = credentials.ok_or_else(|| LabError::NoNode(instance.clone()))?;
    let access = Access::to(Endpoints {
        apis: region.endpoints().aws.clone(),
        metadata: format!("http://{metadata}"),
        credentials: aws_sdk_ec2::config::Credentials::new(key, "secret", None, None, "bench"),
        attempts: 3,
        // They share one computer: that it is slow is no fault of the network's, after which to ask again.
        attempt: PATIENCE,
    });
    let access = access.map_err(|error| LabError::Settings(super::chain(&error)))?;
    let root = Root::new(&root);
    let mut failures = 0;
    let setup = loop {
        match learn(&root, &access).await {
            Ok(setup) => break setup,
            Err(_) => sleep(retry_after(failures)).await,
        }
        failures += 1;
    };
    let settings = setup.loaded.settings;
    let reach = Reach::new(root, &access, settings.clone(), setup.identity).await;
    let (events, mut received) = mpsc::channel(1);
    let world = Simulated { machine: OwnMachine::new(reach), events };
    Agent::new(settings, world, Arc::default()).run(&mut received).await;
    Ok(())
}

/// A machine whose containerd runs, and whose boot is over when its kubelet is told to start.
struct Simulated {
    machine: OwnMachine,
    events: mpsc::Sender<Event>,
}

impl Looks for Simulated {
    type Error = StepError;

    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
        let mut seen = self.machine.observe(depth, waiting).await;
        let stopped = ServiceObservation { state: ServiceState::Stopped, started_with: None, since: None };
        seen.kubernetes.containerd = ContainerdObservation {
            version: Fact::Known("2.1.4".parse().ok()),
            configuration: Fact::Known(ContainerdConfiguration::Present { systemd_cgroups: true }),
            service: Fact::Known(ServiceObservation { state: ServiceState::Running, ..stopped.clone() }),
        };
        seen.kubernetes.services = NODE_SERVICES.map(|name| (name, Fact::Known(stopped.clone()))).into();
        seen
    }

    async fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        if let Step::StartService { service: ServiceName::Kubelet, .. } = step {
            if self.events.try_send(Event::Stop).is_err() {
                tracing::debug!("the end was told before");
            }
            return Ok(());
        }
        self.machine.execute(step).await
    }

    fn note(&mut self, entry: Entry) {
        self.machine.note(entry);
    }

    fn tell(&mut self, status: &Status, seen: &Observation, plan: &Plan) {
        self.machine.tell(status, seen, plan);
    }

    fn was_overtaken(error: &StepError) -> bool {
        OwnMachine::was_overtaken(error)
    }

    async fn rest(&mut self, after: Duration) {
        self.machine.rest(after).await;
    }
}

/// Says what many took, in a line.
pub(super) fn tell_many(count: usize, many: &Many) {
    let calls: Vec<String> = many
        .calls
        .iter()
        .map(|(service, calls)| {
            #[expect(clippy::cast_precision_loss, reason = "a share of a few thousand")]
            let each = *calls as f64 / count as f64;
            format!("{service:?} {each:.2}").to_lowercase()
        })
        .collect();
    tell(&format!(
        "{count} workers at once: the last one after {:.0} ms, {:.2} MiB each; calls by each: {}; at most {} reads of S3",
        millis(many.time),
        many.memory,
        calls.join(", "),
        many.most_reads,
    ));
}
