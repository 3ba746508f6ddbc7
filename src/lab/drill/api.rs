//! Kubernetes' control plane, put to the test through its load balancer.
//!
//! Needs Kubernetes' programs on this computer. A client writes an object through the load balancer
//! all the time, with a connection of its own for each try, so that each finds out anew which API
//! server is there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::report::millis;
use super::stage::HEAL;
use super::{Options, Report, Stage, Unmet, addons, can_i, enrolment};
use crate::cluster_api::ApiClient;
use crate::kubernetes::objects::first_things as first_things_of;
use crate::lab::cluster::{Access, wait_healthy};
use crate::lab::laboratory::Laboratory;
use crate::lab::machine::Machine;
use crate::lab::settings::{CLUSTER, Kubernetes};
use crate::model::names::NotAServerUrl;

/// How long three API servers, and all that elects a leader, may take to be ready.
pub(super) const READY: Duration = Duration::from_mins(2);
/// How long one write through the load balancer may take.
const WRITE: Duration = Duration::from_secs(2);
/// The longest time for which the API may fail.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// How long the leases may take to move: one ends 15 s after its holder is last heard.
const LEASES: Duration = Duration::from_secs(40);
/// The two that elect a leader.
const ELECTED: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// Three machines serve one API; the machine that leads dies; a zone loses its power.
pub(super) async fn control_plane(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let kubernetes = Kubernetes::here().map_err(Unmet::Broken)?;
    let mut stage = Stage::build("control-plane", options, |settings| {
        settings.kubernetes = kubernetes;
        settings.workers = 1;
        settings.configuration.extend(addons::configuration());
    })
    .await?;
    let mut told = Told::default();
    let result = shake(&mut stage, &mut told).await;
    for (name, value) in [
        ("apiFirstWriteMs", told.first_write),
        ("apiReadyMs", told.ready),
        ("apiLongestGapMs", told.longest_gap),
        ("leasesMovedMs", told.leases_moved),
        ("firstThingsBackMs", told.repaired),
        ("addonsAppliedMs", told.addons),
        ("workerCertifiedMs", told.certified),
    ] {
        if let Some(time) = value {
            report.tell(name, millis(time));
        }
    }
    report.tell("apiWrites", told.writes);
    stage.close(result, report).await
}

/// What the drill has to tell.
#[derive(Default)]
struct Told {
    first_write: Option<Duration>,
    ready: Option<Duration>,
    longest_gap: Option<Duration>,
    leases_moved: Option<Duration>,
    repaired: Option<Duration>,
    addons: Option<Duration>,
    certified: Option<Duration>,
    writes: u64,
}

async fn shake(stage: &mut Stage, told: &mut Told) -> Result<(), Unmet> {
    stage.start_all().await?;
    let began = Instant::now();
    stage.formed(READY).await?;
    let admin = admin(&stage.lab).await?;
    let writer = Writer::begin(admin.clone());
    told.first_write = Some(writer.first(READY).await?.saturating_duration_since(began));
    wait_healthy(&stage.lab, READY).await?;
    told.ready = Some(began.elapsed());
    let result = misfortunes(stage, &admin, told).await;
    let ended = writer.end().await;
    result?;
    let Came { count, gap, .. } = ended?;
    (told.writes, told.longest_gap) = (count, Some(gap));
    if gap > LONGEST_GAP {
        return Err(Unmet::Broken(format!("the API failed for {} ms", gap.as_millis())));
    }
    complaints(&stage.lab)
}

async fn misfortunes(stage: &mut Stage, admin: &Config, told: &mut Told) -> Result<(), Unmet> {
    secrets_are_encrypted(stage, admin).await?;
    can_i::only_what_they_must(stage, admin).await?;
    told.certified = Some(enrolment::machines_join(stage, admin).await?);
    let mut drill = addons::Addons::of(stage, client(admin)?);
    told.addons = Some(drill.are_applied().await?);
    drill.change().await?;
    drill.lose_one().await?;
    told.repaired = Some(first_things(stage, admin).await?);
    drill.are_back().await?;
    drill.are_taken_away().await?;
    let before = holders(admin).await?;
    let leader = stage
        .lab
        .control_plane()
        .into_iter()
        .find(|machine| before.iter().any(|holder| holder.starts_with(&machine.host_name())))
        .ok_or_else(|| Unmet::Broken(format!("the leases are held by nobody here: {before:?}")))?;
    stage.fault();
    let (id, host) = (leader.identity().instance.clone(), leader.host_name());
    let killed = Instant::now();
    stage.lab.happen(format!("the death of {id}"), |world| world.kill_instance(&id)).await?;
    loop {
        let now = holders(admin).await.unwrap_or_default();
        if now.len() == ELECTED.len() && now.iter().all(|holder| !holder.starts_with(&host)) {
            told.leases_moved = Some(killed.elapsed());
            break;
        }
        if killed.elapsed() > LEASES {
            return Err(Unmet::Broken(format!("the leases did not move: {now:?}")));
        }
        sleep(Duration::from_millis(200)).await;
    }
    stage.healed(HEAL).await?;
    zone(stage).await
}

/// A zone loses its power, and the others serve on. It does not come back here: the group would
/// rebalance and terminate a machine whatever it holds, which is the drill `zone-loss`'s matter.
async fn zone(stage: &mut Stage) -> Result<(), Unmet> {
    const LOST_FOR: Duration = Duration::from_secs(15);
    let zones = stage.lab.settings().zone_names();
    let zone = zones.get(stage.rng.usize(..zones.len())).cloned().unwrap_or_default();
    stage.writes_go_on().await?;
    stage.lab.happen(format!("the power of {zone}"), |world| world.stop_zone(&zone)).await?;
    sleep(LOST_FOR).await;
    stage.writes_go_on().await
}

/// An administrator's way to the API: by the load balancer, with the credentials of one machine.
pub(super) async fn admin(lab: &Laboratory) -> Result<Config, Unmet> {
    let api = lab.api().ok_or_else(|| Unmet::Broken("there is no load balancer".to_owned()))?;
    admin_by(lab, api).await
}

/// The same, by the load balancer that listens here.
pub(super) async fn admin_by(lab: &Laboratory, api: SocketAddr) -> Result<Config, Unmet> {
    let path = lab
        .wait("an administrator's kubeconfig", READY, |lab| {
            let paths = lab.control_plane().into_iter().map(|m| m.root().join("etc/kubernetes/admin.conf"));
            paths.into_iter().find(|path| path.is_file()).ok_or_else(|| "no machine has one".to_owned())
        })
        .await?;
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| broken("reading admin.conf", &error))?;
    config_by(kubeconfig, api).await
}

fn broken(what: &str, error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(format!("{what}: {}", crate::lab::error::chain(error)))
}

/// Somebody else's way to the API, where the administrator's leads.
pub(super) async fn client_by(kubeconfig: Kubeconfig, admin: &Config) -> Result<Client, Unmet> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.map_err(|error| broken("understanding a kubeconfig", &error))?;
    let mut own = admin.clone();
    own.auth_info = config.auth_info;
    client(&own)
}

async fn config_by(kubeconfig: Kubeconfig, api: SocketAddr) -> Result<Config, Unmet> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| broken("understanding admin.conf", &error))?;
    config.cluster_url = format!("https://{api}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| broken("the load balancer's URL", &error))?;
    config.connect_timeout = Some(WRITE);
    config.read_timeout = Some(WRITE);
    Ok(config)
}

/// Tries to write an object at every one of these addresses at once, each by a machine's credentials,
/// until one acknowledges; answers when that was. The kubeconfigs are looked for until they are there.
pub async fn first_object(kubeconfigs: Vec<PathBuf>, at: &[SocketAddr]) -> Instant {
    const AGAIN: Duration = Duration::from_millis(20);
    let kubeconfig = loop {
        match kubeconfigs.iter().find_map(|path| Kubeconfig::read_from(path).ok()) {
            Some(kubeconfig) => break kubeconfig,
            None => sleep(AGAIN).await,
        }
    };
    let mut attempts = JoinSet::new();
    for api in at.iter().copied() {
        let kubeconfig = kubeconfig.clone();
        attempts.spawn(async move {
            loop {
                let put = async {
                    let config = config_by(kubeconfig.clone(), api).await?;
                    write(&config, 0).await.map_err(|error| Unmet::Broken(crate::lab::error::chain(&error)))
                };
                match timeout(WRITE, put).await {
                    Ok(Ok(())) => return Instant::now(),
                    Ok(Err(error)) => tracing::debug!(%error, %api, "no object was written"),
                    Err(_) => tracing::debug!(%api, "no answer"),
                }
                sleep(AGAIN).await;
            }
        });
    }
    loop {
        match attempts.join_next().await {
            Some(Ok(at)) => return at,
            Some(Err(error)) => tracing::error!(%error, "an attempt to write ended early"),
            // Every attempt was lost: this never comes to an end, and the caller's patience does.
            None => std::future::pending().await,
        }
    }
}

fn client(config: &Config) -> Result<Client, Unmet> {
    Client::try_from(config.clone()).map_err(|error| Unmet::Broken(crate::lab::error::chain(&error)))
}

/// Who leads: a holder for each lease that has one.
pub(super) async fn holders(config: &Config) -> Result<Vec<String>, Unmet> {
    let leases: Api<Lease> = Api::namespaced(client(config)?, "kube-system");
    let mut holders = Vec::new();
    for name in ELECTED {
        let lease = leases.get_opt(name).await;
        let lease = lease.map_err(|error| Unmet::Broken(crate::lab::error::chain(&error)))?;
        holders
            .extend(lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty()));
    }
    Ok(holders)
}

/// A secret lies in etcd as nobody can read it.
async fn secrets_are_encrypted(stage: &Stage, config: &Config) -> Result<(), Unmet> {
    const PLAIN: &str = "nobody must read this";
    let told = |error: &(dyn std::error::Error + 'static)| Unmet::Broken(crate::lab::error::chain(error));
    let secrets: Api<Secret> = Api::namespaced(client(config)?, "default");
    let secret: Secret =
        serde_json::from_value(json!({ "metadata": { "name": "drill" }, "stringData": { "word": PLAIN } }))
            .map_err(|error| told(&error))?;
    secrets.create(&PostParams::default(), &secret).await.map_err(|error| told(&error))?;
    let access = Access::to(&stage.lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    let stored = access.get("/registry/secrets/default/drill").await?;
    let text = String::from_utf8_lossy(&stored);
    if text.starts_with("k8s:enc:secretbox:v1:") && !text.contains(PLAIN) {
        Ok(())
    } else {
        Err(Unmet::Broken("a secret lies in etcd unencrypted".to_owned()))
    }
}

/// What quorate keeps in the API is there, and comes back when it is taken away or changed: a
/// ConfigMap that is deleted, and a binding that is made anew to another role. How long that took.
async fn first_things(stage: &Stage, config: &Config) -> Result<Duration, Unmet> {
    const THERE: Duration = Duration::from_secs(30);
    const BACK: Duration = Duration::from_secs(90);
    let told = |error: &(dyn std::error::Error + 'static)| Unmet::Broken(crate::lab::error::chain(error));
    let root = stage.lab.control_plane().first().map(Machine::root);
    let root = root.ok_or_else(|| Unmet::Broken("there is no machine".to_owned()))?;
    let authority = std::fs::read_to_string(root.join("etc/kubernetes/pki/ca.crt"));
    let authority = authority.map_err(|error| told(&error))?;
    // As the machine's files have it.
    let endpoint = std::fs::read_to_string(root.join("var/lib/quorate/endpoint"));
    let endpoint = endpoint.map_err(|error| told(&error))?;
    let server = format!("https://{}", endpoint.trim());
    let server = server.parse().map_err(|error: NotAServerUrl| told(&error))?;
    let cluster = CLUSTER.parse().map_err(|_| Unmet::Broken(format!("{CLUSTER:?} names no cluster")))?;
    let wanted = first_things_of(&cluster, &server, &authority).map_err(|error| told(&error))?;
    let look = ApiClient::of(client(config)?);
    let complete = async |patience: Duration| {
        let began = Instant::now();
        loop {
            let unfit = look.unfit(&wanted).await;
            match unfit {
                Ok(unfit) if unfit.is_empty() => return Ok(began.elapsed()),
                unfit if began.elapsed() > patience => {
                    return Err(Unmet::Broken(format!("not in the API as it should be: {unfit:?}")));
                }
                Ok(_) | Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    };
    complete(THERE).await?;
    let client = client(config)?;
    let gone = DeleteParams::default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    maps.delete("cluster-info", &gone).await.map_err(|error| told(&error))?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client);
    let name = "quorate:node-proxier";
    let mut binding = bindings.get(name).await.map_err(|error| told(&error))?;
    bindings.delete(name, &gone).await.map_err(|error| told(&error))?;
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    "view".clone_into(&mut binding.role_ref.name);
    bindings.create(&PostParams::default(), &binding).await.map_err(|error| told(&error))?;
    complete(BACK).await
}

/// No program says that it was started with what is deprecated or not known.
fn complaints(lab: &Laboratory) -> Result<(), Unmet> {
    for machine in lab.all_machines() {
        for pod in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let path = machine.root().join("var/log/pods").join(format!("{pod}.log"));
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let complains = |line: &&str| {
                let line = line.to_ascii_lowercase();
                line.contains("deprecated") || line.contains("unknown flag")
            };
            if let Some(line) = log.lines().find(complains) {
                return Err(Unmet::Broken(format!("{pod} on {} says: {line}", machine.identity().name)));
            }
        }
    }
    Ok(())
}

/// What was written through the load balancer.
#[derive(Default)]
struct Written {
    count: u64,
    /// The number of the last one.
    number: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    longest_gap: Duration,
    /// Tries that failed since the last one that did not.
    failed: u32,
    most_failed: u32,
}

impl Written {
    fn note(&mut self, number: u64, done: bool) {
        if done {
            let now = Instant::now();
            self.failed = 0;
            self.count += 1;
            self.number = number;
            self.first = self.first.or(Some(now));
            let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
            self.longest_gap = self.longest_gap.max(gap);
            self.last = Some(now);
        } else if self.first.is_some() {
            self.failed += 1;
            self.most_failed = self.most_failed.max(self.failed);
        }
    }
}

/// What came of writing through the load balancer.
pub(super) struct Came {
    /// How many writes were acknowledged.
    pub count: u64,
    /// The longest time without one.
    pub gap: Duration,
    /// The most tries in a row that failed.
    pub most_failed: u32,
}

/// Writes through the load balancer, again and again.
pub(super) struct Writer {
    config: Config,
    written: Arc<Mutex<Written>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Begins to.
    pub fn begin(config: Config) -> Self {
        const AGAIN: Duration = Duration::from_millis(50);
        let own = config.clone();
        let written = Arc::new(Mutex::new(Written::default()));
        let noted = Arc::clone(&written);
        let task = tokio::spawn(async move {
            for number in 0_u64.. {
                let done = timeout(WRITE, write(&config, number)).await.is_ok_and(|done| done.is_ok());
                noted.lock().unwrap_or_else(PoisonError::into_inner).note(number, done);
                sleep(AGAIN).await;
            }
        });
        Self { config: own, written, task }
    }

    /// Waits for the first write.
    pub async fn first(&self, patience: Duration) -> Result<Instant, Unmet> {
        let began = Instant::now();
        loop {
            if let Some(first) = self.written.lock().unwrap_or_else(PoisonError::into_inner).first {
                return Ok(first);
            }
            if began.elapsed() > patience {
                return Err(Unmet::Broken("nothing was written through the load balancer".to_owned()));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it and reads what was acknowledged last: it, or a later write that was not acknowledged, must be there.
    pub async fn end(self) -> Result<Came, Unmet> {
        const PATIENCE: Duration = Duration::from_secs(20);
        self.task.abort();
        let (count, number, gap, most_failed) = {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let open = written.last.map_or(Duration::ZERO, |last| last.elapsed());
            (written.count, written.number, written.longest_gap.max(open), written.most_failed)
        };
        let began = Instant::now();
        loop {
            match read(&self.config).await {
                Ok(found) if count == 0 || found.is_some_and(|found| found >= number) => {
                    return Ok(Came { count, gap, most_failed });
                }
                Ok(found) => {
                    let broken = format!("write {number} was acknowledged, and {found:?} is there");
                    return Err(Unmet::Broken(broken));
                }
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(Unmet::Broken(crate::lab::error::chain(&error)));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The number that is there.
async fn read(config: &Config) -> Result<Option<u64>, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config.clone())?, "default");
    let found = maps.get_opt("drill").await?;
    Ok(found.and_then(|map| map.data?.get("number")?.parse().ok()))
}

async fn write(config: &Config, number: u64) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config.clone())?, "default");
    let patch = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "drill" },
        "data": { "number": number.to_string() },
    });
    maps.patch("drill", &PatchParams::apply("quorate-lab").force(), &Patch::Apply(&patch)).await.map(drop)
}
