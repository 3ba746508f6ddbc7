//! etcd as it is seen from outside: by its own API, with a node's client certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::LabError;
use super::laboratory::Laboratory;
use super::machine::Machine;
use super::settings::Kubernetes;
use super::status::Status;

/// How long one question to a member may take.
const ASK: Duration = Duration::from_secs(1);

/// A client's certificate, its key, and the authority, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files of a directory; `None` while they are not all there.
    pub fn in_directory(dir: &Path) -> Option<Self> {
        let read = |name: &str| fs::read(dir.join(name)).ok().filter(|bytes| !bytes.is_empty());
        Some(Self { authority: read("ca.crt")?, certificate: read("client.crt")?, key: read("client.key")? })
    }

    /// What a client needs; a call takes at most `limit`.
    pub fn options(&self, limit: Duration) -> ConnectOptions {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.certificate, &self.key));
        ConnectOptions::new().with_tls(tls).with_connect_timeout(limit).with_timeout(limit)
    }
}

/// The directory of a machine's certificates for etcd.
pub fn pki_of(root: &Path) -> std::path::PathBuf {
    root.join("etc/quorate/pki/etcd")
}

/// Where etcd's members may be reached, and with which certificate.
#[derive(Clone)]
pub struct Access {
    /// The client URLs of all control-plane machines that have power.
    pub urls: Vec<String>,
    /// The certificate of one of them.
    pub tls: Tls,
}

impl Access {
    /// As it is now; `None` while no machine has certificates.
    pub fn to(lab: &Laboratory) -> Option<Self> {
        let machines = lab.control_plane();
        let tls = machines.iter().find_map(|m| Tls::in_directory(&pki_of(&m.root())))?;
        Some(Self { urls: machines.iter().map(Machine::client_url).collect(), tls })
    }
}

/// What one member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The id of the cluster that it takes part in.
    pub cluster: u64,
    /// Its own id.
    pub member: u64,
    /// The leader's id; 0 when it knows of none.
    pub leader: u64,
    /// Whether it has no vote.
    pub learner: bool,
}

/// Asks a member who it is and whom it follows.
pub async fn look(url: &str, tls: &Tls) -> Result<Seen, LabError> {
    let status = within(
        &format!("the status of {url}"),
        Box::pin(async { Client::connect([url], Some(tls.options(ASK))).await?.status().await }),
    )
    .await?;
    let (cluster, member) = status.header().map_or((0, 0), |h| (h.cluster_id(), h.member_id()));
    Ok(Seen { cluster, member, leader: status.leader(), learner: status.is_learner() })
}

/// A member that listens and does not serve yet takes a connection and says nothing on it, which
/// the client's own limits do not cover.
async fn within<T>(
    what: &str,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, LabError> {
    let late = |_| LabError::TimedOut {
        what: what.to_owned(),
        seconds: ASK.as_secs(),
        why: "there was no answer".to_owned(),
    };
    let failed = |source| LabError::Etcd { what: what.to_owned(), source: Box::new(source) };
    timeout(ASK, call).await.map_err(late)?.map_err(failed)
}

/// A member, as the cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name: empty until it has started.
    pub name: String,
    /// Where its clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

/// Asks a member for all members.
pub async fn members(url: &str, tls: &Tls) -> Result<Vec<Member>, LabError> {
    let list = within(
        &format!("the members by {url}"),
        Box::pin(async { Client::connect([url], Some(tls.options(ASK))).await?.member_list().await }),
    )
    .await?;
    let members = list.members().iter().map(|m| Member {
        id: m.id(),
        name: m.name().to_owned(),
        client_urls: m.client_urls().to_vec(),
        learner: m.is_learner(),
    });
    Ok(members.collect())
}

/// A cluster in full health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The id of the cluster.
    pub cluster: u64,
    /// Each member's id, by its name.
    pub members: BTreeMap<String, u64>,
    /// The leader's id.
    pub leader: u64,
}

/// Looks whether there is full health: as many members as there are slots, all of them voters that
/// answer and follow one leader, and every agent's phase is `running`. Otherwise says what is amiss.
pub async fn health(lab: &Laboratory) -> Result<Health, String> {
    let machines = lab.control_plane();
    let (size, wanted) = (lab.settings().size, lab.settings().control_plane);
    if machines.len() != wanted {
        return Err(format!("{} of {wanted} machines", machines.len()));
    }
    for machine in &machines {
        let name = &machine.identity().name;
        let status = Status::of(&machine.root()).map_err(|e| super::error::chain(&e))?;
        let status = status.ok_or_else(|| format!("{name} has no status"))?;
        let content = status.is_running() || status.phase.as_deref() == Some("standby");
        // A status that an earlier life of the agent left behind says nothing of this one.
        if !content || status.pid.is_none() || status.pid != machine.pid() {
            return Err(format!("{name}: {}", status.line()));
        }
    }
    if let Kubernetes::Run(_) = lab.settings().kubernetes {
        machines.iter().try_for_each(control_plane)?;
        workers(lab)?;
    }
    let access = Access::to(lab).ok_or("no machine has certificates")?;
    let mut seen = Vec::new();
    for url in &access.urls {
        match look(url, &access.tls).await {
            Ok(answer) => seen.push(answer),
            Err(_) if access.urls.len() > size => {}
            Err(error) => return Err(super::error::chain(&error)),
        }
    }
    let first = seen.first().ok_or("no member answers")?;
    let mut listed = BTreeMap::new();
    for url in &access.urls {
        if let Ok(members) = members(url, &access.tls).await {
            if let Some(learner) = members.iter().find(|m| m.learner || m.name.is_empty()) {
                return Err(format!("member {:x} is not a voter that has started", learner.id));
            }
            listed = members.into_iter().map(|m| (m.name, m.id)).collect();
            break;
        }
    }
    if listed.len() != size || seen.len() != size {
        return Err(format!("{} members, of which {} answer, for {size} slots", listed.len(), seen.len()));
    }
    let one =
        |s: &Seen| s.cluster == first.cluster && s.leader == first.leader && s.leader != 0 && !s.learner;
    let ids: BTreeSet<u64> = seen.iter().map(|s| s.member).collect();
    if !seen.iter().all(one) || ids != listed.values().copied().collect() {
        return Err(format!("the members do not agree: {seen:?}"));
    }
    Ok(Health { cluster: first.cluster, members: listed, leader: first.leader })
}

/// Looks whether there are as many workers as their group is to have, and whether those whose agents run are ready
/// nodes.
fn workers(lab: &Laboratory) -> Result<(), String> {
    let workers: Vec<Machine> =
        lab.machines().into_iter().filter(|machine| machine.identity().role == "worker").collect();
    let wanted = lab.desired_workers();
    if workers.len() != wanted {
        return Err(format!("{} of {wanted} workers", workers.len()));
    }
    workers.iter().filter(|machine| machine.is_started()).try_for_each(|machine| {
        let status =
            Status::of(&machine.root()).map_err(|error| super::error::chain(&error))?.unwrap_or_default();
        let is_current = status.pid.is_some() && status.pid == machine.pid();
        if is_current && status.is_running() {
            Ok(())
        } else {
            Err(format!("{}: {}", machine.identity().name, status.line()))
        }
    })
}

/// Looks whether a machine's control plane is ready.
fn control_plane(machine: &Machine) -> Result<(), String> {
    let pods = machine.pods();
    let name = &machine.identity().name;
    if let Some((pod, status)) = pods.iter().find(|(_, status)| !status.ready) {
        let last = status.last.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default();
        return Err(format!("{name}: {pod} is not ready{last}"));
    }
    if pods.len() < 3 { Err(format!("{name}: {} static pods", pods.len())) } else { Ok(()) }
}

impl Access {
    /// A key's value; an error when there is none.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, LabError> {
        let what = format!("reading {key}");
        let answer = within(
            &what,
            Box::pin(async {
                Client::connect(&self.urls, Some(self.tls.options(ASK))).await?.get(key, None).await
            }),
        )
        .await?;
        let found = answer.kvs().first().map(|kv| kv.value().to_vec());
        found.ok_or(LabError::TimedOut { what, seconds: 0, why: "there is no such key".to_owned() })
    }
}

/// Waits for full health.
pub async fn wait_healthy(lab: &Laboratory, patience: Duration) -> Result<Health, LabError> {
    const AGAIN: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + patience;
    loop {
        let why = match health(lab).await {
            Ok(health) => return Ok(health),
            Err(why) => why,
        };
        if Instant::now() >= deadline {
            let what = "full health".to_owned();
            return Err(LabError::TimedOut { what, seconds: patience.as_secs(), why });
        }
        sleep(AGAIN).await;
    }
}

/// Counts the clusters that ever had a quorum, for as long as it lives: a member that knows a
/// leader was elected with, or hears of, a majority of its cluster.
pub struct Census {
    seen: Arc<Mutex<Counted>>,
    task: JoinHandle<()>,
}

/// What a census has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The ids of the clusters that had a leader.
    pub clusters: BTreeSet<u64>,
    /// The ids of members that were seen without a vote.
    pub learners: BTreeSet<u64>,
}

impl Census {
    /// Begins to count.
    pub fn begin(lab: &Arc<Laboratory>) -> Self {
        const AGAIN: Duration = Duration::from_millis(100);
        let seen = Arc::new(Mutex::new(Counted::default()));
        let (noted, lab) = (Arc::clone(&seen), Arc::downgrade(lab));
        let task = tokio::spawn(async move {
            loop {
                let Some(access) = lab.upgrade().map(|lab| Access::to(&lab)) else { return };
                if let Some(Access { urls, tls }) = access {
                    // Each is asked by itself: one cluster can't answer for another.
                    let answers = urls.iter().map(|url| look(url, &tls));
                    for answer in futures_util::future::join_all(answers).await.into_iter().flatten() {
                        let mut counted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                        if answer.leader != 0 {
                            counted.clusters.insert(answer.cluster);
                        }
                        if answer.learner {
                            counted.learners.insert(answer.member);
                        }
                    }
                }
                sleep(AGAIN).await;
            }
        });
        Self { seen, task }
    }

    /// What was found until now.
    pub fn so_far(&self) -> Counted {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.task.abort();
    }
}
