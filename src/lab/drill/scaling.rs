//! Workers that come and go in numbers: their group grows and shrinks, and EC2 takes several of them back at once.
//!
//! Needs Kubernetes' programs on this computer. The pods are the API's; the drill plays the kubelet for them, which is
//! to say that they are ready, and that they have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::api::{READY, admin};
use super::api_weather::{current, says};
use super::report::millis;
use super::{Options, Report, Stage, Unmet};
use crate::lab::cluster::wait_healthy;
use crate::lab::error::chain;
use crate::lab::laboratory::{Laboratory, WORKERS};
use crate::lab::machine::Machine;
use crate::lab::region::SpotAction;
use crate::lab::settings::Kubernetes;

/// How many workers there are at first, and how many the group grows to.
const FEW: usize = 3;
const MANY: usize = 30;
/// How long workers that have all that they need may take to be ready nodes.
const JOIN: Duration = Duration::from_mins(4);
/// How long workers may take to leave, their nodes included.
const LEAVE: Duration = Duration::from_mins(3);
/// From the notice to the end of a spot instance: EC2 gives twice as long.
const NOTICE: Duration = Duration::from_mins(1);

fn broken(error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(chain(error))
}

async fn stage(name: &str, options: &Options, spot: bool) -> Result<Stage, Unmet> {
    let kubernetes = Kubernetes::here().map_err(Unmet::Broken)?;
    Stage::build(name, options, |settings| {
        settings.kubernetes = kubernetes;
        settings.workers = if spot { 2 * FEW } else { FEW };
        settings.hooks = true;
        settings.spot_workers = spot;
        settings.configuration.insert("tick".to_owned(), json!("2s"));
    })
    .await
}

/// A cluster with ready workers, and an administrator's way to its API.
async fn begin(stage: &mut Stage) -> Result<Client, Unmet> {
    for worker in workers_of(&stage.lab) {
        worker.start();
    }
    stage.start_all().await?;
    stage.formed(READY).await?;
    wait_healthy(&stage.lab, READY).await?;
    Client::try_from(admin(&stage.lab).await?).map_err(|error| broken(&error))
}

/// From three workers to thirty and back.
pub(super) async fn scale(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = stage("scale-workers", options, false).await?;
    let result = async {
        let client = begin(&mut stage).await?;
        let began = Instant::now();
        stage.lab.happen("more workers", |world| world.set_desired_capacity(WORKERS, MANY)).await?;
        are_ready(&stage.lab, MANY, JOIN).await?;
        report.tell("scaledOutMs", millis(began.elapsed()));
        let budgeted = Budgeted::new(&stage.lab, client.clone()).await?;
        let began = Instant::now();
        stage.lab.happen("fewer workers", |world| world.set_desired_capacity(WORKERS, FEW)).await?;
        let held = budgeted.is_held(&stage.lab).await?;
        report.tell("heldByTheBudgetMs", millis(held));
        nodes_are_machines(&stage.lab, &client, FEW).await?;
        report.tell("scaledInMs", millis(began.elapsed()));
        in_good_order(&stage.lab)?;
        wait_healthy(&stage.lab, READY).await?;
        stage.writes_go_on().await
    }
    .await;
    stage.close(result, report).await
}

/// Half of the workers are taken back at once.
pub(super) async fn spot_storm(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = stage("spot-storm", options, true).await?;
    let result = async {
        let client = begin(&mut stage).await?;
        let mut workers = workers_of(&stage.lab);
        stage.rng.shuffle(&mut workers);
        workers.truncate(FEW);
        let began = Instant::now();
        for worker in &workers {
            let id = &worker.identity().instance;
            let notice = millis(NOTICE);
            let taken = format!("the interruption of {id}");
            stage.lab.happen(taken, |world| world.interrupt_spot(id, SpotAction::Terminate, notice)).await?;
        }
        stage
            .lab
            .wait("workers that have left before EC2 takes them", NOTICE, |_| {
                workers.iter().try_for_each(|worker| says_phase(worker, "left"))
            })
            .await?;
        report.tell("leftMs", millis(began.elapsed()));
        // EC2 ends them, and their group launches others.
        stage
            .lab
            .wait("the end of those machines", NOTICE * 2, |lab| {
                let there = lab.machines();
                let still = workers.iter().find(|worker| {
                    there.iter().any(|machine| machine.identity().instance == worker.identity().instance)
                });
                still.map_or(Ok(()), |worker| Err(format!("{} is there", worker.identity().name)))
            })
            .await?;
        are_ready(&stage.lab, 2 * FEW, JOIN).await?;
        nodes_are_machines(&stage.lab, &client, 2 * FEW).await?;
        wait_healthy(&stage.lab, READY).await?;
        stage.writes_go_on().await
    }
    .await;
    stage.close(result, report).await
}

fn says_phase(machine: &Machine, phase: &str) -> Result<(), String> {
    let status = current(machine)?;
    match status.phase.as_deref() {
        Some(found) if found == phase => Ok(()),
        _ => Err(format!("{}: {}", machine.identity().name, status.line())),
    }
}

fn workers_of(lab: &Laboratory) -> Vec<Machine> {
    lab.machines().into_iter().filter(|machine| machine.identity().role == "worker").collect()
}

pub(super) async fn are_ready(lab: &Laboratory, wanted: usize, patience: Duration) -> Result<(), Unmet> {
    lab.wait("workers to be ready", patience, |lab| {
        let all = workers_of(lab);
        if all.len() != wanted {
            return Err(format!("{} of {wanted} machines", all.len()));
        }
        all.iter().try_for_each(|machine| {
            let status = current(machine)?;
            let name = &machine.identity().name;
            if status.is_running() { Ok(()) } else { Err(format!("{name}: {}", status.line())) }
        })
    })
    .await?;
    Ok(())
}

/// As many workers as there should be, and a node for each machine and for no other.
pub(super) async fn nodes_are_machines(
    lab: &Laboratory,
    client: &Client,
    workers: usize,
) -> Result<(), Unmet> {
    let api: Api<Node> = Api::all(client.clone());
    let began = Instant::now();
    loop {
        let machines = lab.machines();
        let there: BTreeSet<String> =
            machines.iter().map(|machine| machine.identity().instance.clone()).collect();
        let nodes = api.list(&ListParams::default()).await.map_err(|error| broken(&error))?;
        let nodes: BTreeSet<String> = nodes.items.into_iter().filter_map(|node| node.metadata.name).collect();
        let count = workers_of(lab).len();
        if count == workers && nodes == there {
            return Ok(());
        }
        if began.elapsed() > LEAVE {
            let stray: Vec<_> = nodes.symmetric_difference(&there).collect();
            return Err(Unmet::Broken(format!(
                "{count} of {workers} workers; nodes or machines alone: {stray:?}"
            )));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// No hook ended because its time was over, and no agent skipped anything.
fn in_good_order(lab: &Laboratory) -> Result<(), Unmet> {
    for machine in lab.all_machines() {
        let log = std::fs::read_to_string(machine.log()).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains("no time left")) {
            return Err(Unmet::Broken(format!("{}: {line}", machine.identity().name)));
        }
    }
    Ok(())
}

/// Two pods on two workers of which one has to be ready at any time; the group is about to end one of the two, or both.
struct Budgeted {
    client: Client,
    /// The pods, and the machines that they are on.
    pods: BTreeMap<String, Machine>,
}

impl Budgeted {
    async fn new(lab: &Laboratory, client: Client) -> Result<Self, Unmet> {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": { "name": "drill" },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "drill" } } },
        }))
        .map_err(|error| broken(&error))?;
        let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(client.clone());
        budgets.create(&PostParams::default(), &budget).await.map_err(|error| broken(&error))?;
        // On the workers that the group ends first: the oldest.
        let mut this = Self { client, pods: BTreeMap::new() };
        for machine in workers_of(lab) {
            let name = format!("drill-{}", this.pods.len());
            this.create(&name, &machine).await?;
            this.pods.insert(name, machine);
        }
        // One more than has to be there, and the budget holds the last.
        let all = this.pods.len();
        let min = i32::try_from(all).unwrap_or(i32::MAX);
        let change = json!({ "spec": { "minAvailable": min } });
        let patched = budgets.patch("drill", &PatchParams::default(), &Patch::Merge(change)).await;
        patched.map_err(|error| broken(&error))?;
        Ok(this)
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// A pod that is ready on a worker.
    async fn create(&self, name: &str, on: &Machine) -> Result<(), Unmet> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": "drill" } },
            "spec": {
                "nodeName": on.identity().instance,
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "drill", "image": "example.com/drill:1" }],
            },
        }))
        .map_err(|error| broken(&error))?;
        self.pods().create(&PostParams::default(), &pod).await.map_err(|error| broken(&error))?;
        let status = json!({ "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let patched = self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.map(drop).map_err(|error| broken(&error))
    }

    /// Every machine that leaves waits for the budget and says so; then the budget lets go, and pods that are evicted
    /// end. How long the budget held.
    async fn is_held(&self, lab: &Laboratory) -> Result<Duration, Unmet> {
        let leaving = |machine: &Machine| says(machine, "not to be evicted now: default/drill-");
        let began = Instant::now();
        lab.wait("workers that are held by the budget", LEAVE, |_| {
            let held = self.pods.values().filter(|machine| leaving(machine).is_ok()).count();
            let wanted = self.pods.len() - FEW;
            if held >= wanted { Ok(()) } else { Err(format!("{held} of {wanted} say so")) }
        })
        .await?;
        let pods = self.pods().list(&ListParams::default()).await.map_err(|error| broken(&error))?;
        let ending = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
        if pods.items.len() != self.pods.len() || ending > 0 {
            return Err(Unmet::Broken(format!("{} pods are there, and {ending} end", pods.items.len())));
        }
        let held = began.elapsed();
        let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(self.client.clone());
        let change = json!({ "spec": { "minAvailable": 0 } });
        let patched = budgets.patch("drill", &PatchParams::default(), &Patch::Merge(change)).await;
        patched.map_err(|error| broken(&error))?;
        self.bury(LEAVE).await?;
        Ok(held)
    }

    /// Ends the pods that are evicted, as their kubelets would, until all that leave have left.
    async fn bury(&self, patience: Duration) -> Result<(), Unmet> {
        let began = Instant::now();
        loop {
            let pods = self.pods().list(&ListParams::default()).await.map_err(|error| broken(&error))?;
            for pod in &pods.items {
                let (Some(name), Some(_)) = (&pod.metadata.name, &pod.metadata.deletion_timestamp) else {
                    continue;
                };
                let now = DeleteParams::default().grace_period(0);
                match self.pods().delete(name, &now).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    Err(error) => return Err(broken(&error)),
                }
            }
            if pods.items.len() <= FEW {
                return Ok(());
            }
            if began.elapsed() > patience {
                return Err(Unmet::Broken(format!("{} pods were not evicted", pods.items.len())));
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
}
