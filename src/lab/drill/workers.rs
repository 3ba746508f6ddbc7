//! Workers, put to the test: they boot before there is a cluster, join it by themselves, come back without S3, follow
//! their group to twenty machines and back, and ask AWS for nothing but one object.
//!
//! Needs Kubernetes' programs on this computer. The kubelets are the laboratory's; everything that they ask for is
//! asked of real API servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::api::{READY, admin};
use super::api_weather::{current, says};
use super::report::millis;
use super::{Options, Report, Stage, Unmet};
use crate::cluster_api::{ApiClient, ApiError};
use crate::host::clock;
use crate::kubernetes::paths;
use crate::lab::LabError;
use crate::lab::cluster::wait_healthy;
use crate::lab::error::chain;
use crate::lab::laboratory::{Laboratory, WORKERS};
use crate::lab::machine::Machine;
use crate::lab::region::{FaultKind, FaultSpec, Service};
use crate::lab::settings::Kubernetes;

/// How many workers there are at first, and how many the group grows to.
const FEW: usize = 3;
const MANY: usize = 20;
/// How long workers that have all that they need may take to be ready nodes.
const JOIN: Duration = Duration::from_secs(90);
/// How long the node of a terminated instance may stay: it is silent after 40 s, and EC2 is asked twice.
const GONE: Duration = Duration::from_mins(3);
/// For how long calls are counted at rest.
const REST: Duration = Duration::from_mins(1);
/// For how long nobody has asked for a certificate before.
const QUIET: Duration = Duration::from_secs(20);
/// How often a machine may read what is published to workers until it has joined, beyond the times at which there was
/// nothing to read.
const READS: usize = 2;

/// The drill.
pub(super) async fn workers(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let kubernetes = Kubernetes::here().map_err(Unmet::Broken)?;
    let mut stage = Stage::build("workers", options, |settings| {
        settings.kubernetes = kubernetes;
        settings.workers = FEW;
        let taints = json!(["drill=yes:PreferNoSchedule"]);
        settings.configuration.insert("kubernetes.nodeTaints".to_owned(), taints);
    })
    .await?;
    let mut told = BTreeMap::new();
    let result = shake(&mut stage, &mut told).await;
    for (name, value) in told {
        report.tell(name, value);
    }
    stage.close(result, report).await
}

async fn shake(stage: &mut Stage, told: &mut BTreeMap<&'static str, Value>) -> Result<(), Unmet> {
    // The workers come first, and wait.
    let first = workers_of(&stage.lab);
    for worker in &first {
        worker.start();
    }
    stage
        .lab
        .wait("workers that wait for their cluster", READY, |_| {
            first.iter().try_for_each(|worker| says(worker, "there is no workers/join.json in S3 yet"))
        })
        .await?;
    stage.start_all().await?;
    let began = Instant::now();
    stage.formed(READY).await?;
    wait_healthy(&stage.lab, READY).await?;
    told.insert("workersReadyMs", json!(millis(began.elapsed())));
    let config = admin(&stage.lab).await?;
    let client = Client::try_from(config).map_err(|error| Unmet::Broken(chain(&error)))?;
    let api: Api<Node> = Api::all(client.clone());
    are_nodes(&stage.lab, &api).await?;
    told.insert("callsPerMinuteWithThree", json!(calls_at_rest(stage, &client).await?));

    people_are_told(&stage.lab).await?;

    let certificate = identity(&first[0])?;
    boots_without_s3(stage, &first[0]).await?;
    if identity(&first[0])? != certificate {
        return Err(Unmet::Broken("a worker that booted again has another identity".to_owned()));
    }

    let began = Instant::now();
    stage.lab.happen("more workers", |world| world.set_desired_capacity(WORKERS, MANY)).await?;
    stage
        .lab
        .wait("more workers to be ready", JOIN, |lab| {
            let all = workers_of(lab);
            if all.len() < MANY {
                return Err(format!("{} of {MANY} machines", all.len()));
            }
            all.iter().try_for_each(is_running)
        })
        .await?;
    told.insert("scaledOutMs", json!(millis(began.elapsed())));
    are_nodes(&stage.lab, &api).await?;
    asked_little(&stage.lab, &first)?;
    told.insert("callsPerMinuteWithTwenty", json!(calls_at_rest(stage, &client).await?));

    let began = Instant::now();
    stage.lab.happen("fewer workers", |world| world.set_desired_capacity(WORKERS, FEW)).await?;
    loop {
        let there: BTreeSet<String> =
            stage.lab.machines().iter().map(|machine| machine.identity().instance.clone()).collect();
        let left = names(&api).await;
        match left {
            Ok(left) if left == there => break,
            Ok(left) if began.elapsed() > GONE => {
                let stray: Vec<_> = left.difference(&there).collect();
                let why = format!("nodes of machines that are gone are still there: {stray:?}");
                return Err(Unmet::Broken(why));
            }
            Err(error) if began.elapsed() > GONE => return Err(error),
            Ok(_) | Err(_) => {}
        }
        sleep(Duration::from_millis(500)).await;
    }
    told.insert("scaledInMs", json!(millis(began.elapsed())));
    wait_healthy(&stage.lab, READY).await?;
    stage.writes_go_on().await
}

fn workers_of(lab: &Laboratory) -> Vec<Machine> {
    lab.machines().into_iter().filter(|machine| machine.identity().role == "worker").collect()
}

fn is_running(machine: &Machine) -> Result<(), String> {
    let status = current(machine)?;
    if status.is_running() { Ok(()) } else { Err(format!("{}: {}", machine.identity().name, status.line())) }
}

async fn names(api: &Api<Node>) -> Result<BTreeSet<String>, Unmet> {
    let nodes = api.list(&ListParams::default()).await.map_err(|error| Unmet::Broken(chain(&error)))?;
    Ok(nodes.items.into_iter().filter_map(|node| node.metadata.name).collect())
}

/// Every machine is a node, with the labels and taints that are its own.
async fn are_nodes(lab: &Laboratory, api: &Api<Node>) -> Result<(), Unmet> {
    let nodes = api.list(&ListParams::default()).await.map_err(|error| Unmet::Broken(chain(&error)))?;
    let nodes: BTreeMap<String, Node> =
        nodes.items.into_iter().filter_map(|node| Some((node.metadata.name.clone()?, node))).collect();
    for machine in lab.machines() {
        let identity = machine.identity();
        let broken = |what: &str| Unmet::Broken(format!("the node of {}: {what}", identity.name));
        let node = nodes.get(&identity.instance).ok_or_else(|| broken("there is none"))?;
        let labels = node.metadata.labels.clone().unwrap_or_default();
        for (key, value) in
            [("topology.kubernetes.io/zone", &identity.zone), ("quorate.io/role", &identity.role)]
        {
            if labels.get(key) != Some(value) {
                return Err(broken(&format!("{key} is {:?}, not {value}", labels.get(key))));
            }
        }
        let spec = node.spec.clone().unwrap_or_default();
        let provider = format!("aws:///{}/{}", identity.zone, identity.instance);
        if spec.provider_id.as_deref() != Some(provider.as_str()) {
            return Err(broken(&format!("its provider id is {:?}", spec.provider_id)));
        }
        let taints: BTreeSet<String> = spec.taints.into_iter().flatten().map(|taint| taint.key).collect();
        let control_plane = taints.contains("node-role.kubernetes.io/control-plane");
        if !taints.contains("drill") || control_plane != (identity.role == "control-plane") {
            return Err(broken(&format!("its taints are {taints:?}")));
        }
    }
    Ok(())
}

/// What people are told of workers that share a zone is taken by the API, and read back; told again, it is replaced.
async fn people_are_told(lab: &Laboratory) -> Result<(), Unmet> {
    let broken = |error: ApiError| Unmet::Broken(chain(&error));
    let machine = lab.control_plane().pop().ok_or_else(|| Unmet::Broken("no control plane".to_owned()))?;
    let path = machine.root().join(paths::ADMIN_KUBECONFIG.trim_start_matches('/'));
    let api = ApiClient::connect(&path).await.map_err(broken)?;
    for message in ["one", "other"] {
        api.tell_shared_zone(message, clock::now_ms()).await.map_err(broken)?;
        let told = api.shared_zone_told().await.map_err(broken)?;
        if told.as_deref() != Some(message) {
            return Err(Unmet::Broken(format!("the event says {told:?}, not {message:?}")));
        }
    }
    Ok(())
}

/// The kubelet's certificate and key, as they lie on the machine.
fn identity(machine: &Machine) -> Result<Vec<u8>, Unmet> {
    let path = machine.root().join(paths::KUBELET_ROTATING_CERTIFICATE.trim_start_matches('/'));
    Ok(fs::read(&path).map_err(LabError::file("reading", &path))?)
}

/// A worker that has joined boots while S3 does not answer it, and is a ready node all the same.
async fn boots_without_s3(stage: &Stage, worker: &Machine) -> Result<(), Unmet> {
    let spec = FaultSpec {
        service: Service::S3,
        operation: None,
        instance: Some(worker.identity().instance.clone()),
        kind: FaultKind::ServerError,
        rate: 1.0,
        count: None,
        seed: None,
    };
    stage.lab.region().change(|world| world.add_fault(spec));
    stage.lab.reboot(std::slice::from_ref(worker)).await?;
    worker.start();
    stage
        .lab
        .wait("a worker that booted without S3", JOIN, |_| {
            is_running(worker)?;
            says(worker, "no answer about what is published to workers")
        })
        .await?;
    stage.lab.region().change(crate::lab::region::World::clear_faults);
    Ok(())
}

/// No worker ever asked EC2, Auto Scaling or Elastic Load Balancing for anything, and none of those that came when the
/// cluster was there read more than it has to.
fn asked_little(lab: &Laboratory, early: &[Machine]) -> Result<(), Unmet> {
    let ids = |machines: &[Machine]| -> BTreeSet<String> {
        machines.iter().map(|machine| machine.identity().instance.clone()).collect()
    };
    let (workers, early) = (ids(&workers_of(lab)), ids(early));
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    for call in lab.region().with(|world| world.calls_after(0)) {
        let Some(instance) = call.instance.filter(|instance| workers.contains(instance)) else {
            continue;
        };
        match call.service {
            Service::Imds => {}
            Service::S3 if call.resource.ends_with("workers/join.json") => {
                *reads.entry(instance).or_default() += 1;
            }
            Service::S3
            | Service::Ec2
            | Service::Autoscaling
            | Service::LoadBalancing
            | Service::CloudWatch => {
                return Err(Unmet::Broken(format!(
                    "the worker {instance} asked for {} {}",
                    call.operation, call.resource
                )));
            }
        }
    }
    match reads.iter().find(|(instance, reads)| !early.contains(*instance) && **reads > READS) {
        Some((instance, reads)) => Err(Unmet::Broken(format!("{instance} read S3 {reads} times"))),
        None => Ok(()),
    }
}

/// Waits until no machine asks for a certificate, and none has for a while: EC2 and Auto Scaling are asked about those.
async fn certificates_rest(client: &Client) -> Result<(), Unmet> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let (began, mut quiet, mut before) = (Instant::now(), Instant::now(), BTreeSet::new());
    while quiet.elapsed() < QUIET {
        let listed = requests.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| Unmet::Broken(chain(&error)))?.items;
        let is_open = |request: &CertificateSigningRequest| {
            request.status.as_ref().is_none_or(|status| status.conditions.iter().flatten().count() == 0)
        };
        let open = listed.iter().filter(|request| is_open(request)).count();
        let all: BTreeSet<String> = listed.into_iter().filter_map(|request| request.metadata.name).collect();
        if open > 0 || all != before {
            (quiet, before) = (Instant::now(), all);
        }
        if began.elapsed() > READY {
            return Err(Unmet::Broken(format!("{open} requests for certificates are still open")));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// How many calls the control plane makes a minute while nothing happens, by service. Of EC2 it asks no more than a look
/// takes, however many workers there are: with each list of volumes one of machines.
async fn calls_at_rest(stage: &Stage, client: &Client) -> Result<BTreeMap<String, u64>, Unmet> {
    certificates_rest(client).await?;
    let machines = stage.lab.control_plane().len();
    let count = |lab: &Laboratory| {
        let own: BTreeSet<String> =
            lab.control_plane().iter().map(|machine| machine.identity().instance.clone()).collect();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for call in lab.region().with(|world| world.calls_after(0)) {
            if call.service != Service::Imds && call.instance.is_some_and(|instance| own.contains(&instance))
            {
                *counts.entry(format!("{:?}", call.service).to_ascii_lowercase()).or_default() += 1;
            }
        }
        counts
    };
    let before = count(&stage.lab);
    let since = stage.lab.region().with(|world| world.calls_after(0).last().map_or(0, |call| call.sequence));
    // Not waited for anything: what is made in this time is what is counted.
    sleep(REST).await;
    let mut after = count(&stage.lab);
    for (service, count) in &mut after {
        *count = (*count - before.get(service).copied().unwrap_or(0)) * 60 / REST.as_secs();
    }
    let calls = stage.lab.region().with(|world| world.calls_after(since));
    let of = |operation: &str| calls.iter().filter(|call| call.operation == operation).count();
    let (lists, looks) = (of("DescribeInstances"), of("DescribeVolumes"));
    // The first and the last look of each machine may be there by half.
    if lists > looks + machines {
        return Err(Unmet::Broken(format!("{lists} lists of machines in {looks} looks, at rest: {after:?}")));
    }
    Ok(after)
}
