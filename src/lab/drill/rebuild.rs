//! Kubernetes after the loss of everything: its objects, secrets, leases, tokens and watches, when the machines of its
//! control plane and their volumes are gone and only S3 is left.
//!
//! Needs Kubernetes' programs on this computer. A worker lives through it, and so does an informer: a client that goes on
//! from the last revision that it saw, as client-go's do, and lists anew only when it is told to.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::api::{READY, admin, holders};
use super::everything;
use super::report::millis;
use super::scaling::{are_ready, nodes_are_machines};
use super::{Options, Report, Stage, Unmet};
use crate::kubernetes::paths;
use crate::lab::cluster::wait_healthy;
use crate::lab::error::chain;
use crate::lab::kubelet::Programs;
use crate::lab::machine::Machine;
use crate::lab::settings::Kubernetes;

/// How long what Kubernetes does by itself may take once its API is back: leases of 15 s end, controllers are elected.
const SETTLE: Duration = Duration::from_mins(2);
/// What was written so long before the loss must be there.
const OLD_ENOUGH: Duration = Duration::from_secs(12);
/// Where everything is.
const NAMESPACE: &str = "default";
/// What everything is called.
const NAME: &str = "rebuild";
/// What the secret says.
const WORD: &str = "only whom it concerns";
/// How many pods there are, and how many are wanted later.
const PODS: (usize, usize) = (2, 3);

fn told(error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(chain(error))
}

fn broken(what: impl Into<String>) -> Unmet {
    Unmet::Broken(what.into())
}

/// The drill.
pub(super) async fn rebuild(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let programs = Programs::find().map_err(Unmet::Broken)?;
    let kubernetes = Kubernetes::Run(programs.clone());
    let mut stage = everything::build("rebuild-kubernetes", options, |settings| {
        settings.kubernetes = kubernetes;
        settings.workers = 1;
    })
    .await?;
    let result = shake(&mut stage, &programs, options.seed).await;
    stage.close(result, report).await
}

async fn shake(stage: &mut Stage, programs: &Programs, seed: u64) -> Result<(), Unmet> {
    for machine in stage.lab.machines() {
        machine.start();
    }
    let before = everything::begin(stage, 1).await?;
    wait_healthy(&stage.lab, READY).await?;
    are_ready(&stage.lab, 1, READY).await?;
    let config = admin(&stage.lab).await?;
    let client = Client::try_from(config).map_err(|error| told(&error))?;
    let things = Things::make(&client).await?;
    let informer = Informer::begin(client.clone());
    eventually("the informer to see what there is", || async { informer.saw("number", "1") }).await?;
    sleep(OLD_ENOUGH).await;
    everything::lost(stage, &before, seed, None, |_| Ok(())).await?;
    let began = Instant::now();
    wait_healthy(&stage.lab, READY).await?;
    stage.tell("apiHealthyAfterEtcdMs", millis(began.elapsed()));
    things.are_back(&client).await?;
    things.live(stage, &client, programs).await?;
    stage.tell("settledMs", millis(began.elapsed()));
    let relisted = eventually("the informer to go on", || async {
        informer.saw("number", "2")?;
        match informer.seen().relisted {
            0 => Err(broken("it was never told that its revision is gone")),
            relisted => Ok(relisted),
        }
    })
    .await?;
    stage.tell("informerListedAnew", relisted);
    are_ready(&stage.lab, 1, READY).await?;
    // Those of the machines that are gone go, and the worker's stays.
    let worker: Api<Node> = Api::all(client.clone());
    let uid = async |name: &str| worker.get(name).await.map(|node| node.metadata.uid).map_err(|e| told(&e));
    nodes_are_machines(&stage.lab, &client, 1).await?;
    if uid(&things.worker).await? != things.worker_uid {
        return Err(broken("the worker's node was made anew"));
    }
    leaders_are_machines(stage).await
}

/// Looks again and again until `look` finds what it looks for.
async fn eventually<T, F>(what: &str, look: impl Fn() -> F) -> Result<T, Unmet>
where
    F: Future<Output = Result<T, Unmet>>,
{
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if began.elapsed() > SETTLE => {
                return Err(broken(format!("waited for {what}: {error}")));
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// What there is before the loss.
struct Things {
    /// A pod's token, good for an hour.
    token: String,
    /// The service account's user.
    user: String,
    worker: String,
    worker_uid: Option<String>,
    pods: BTreeSet<String>,
}

fn of<K: DeserializeOwned>(value: Value) -> Result<K, Unmet> {
    serde_json::from_value(value).map_err(|error| told(&error))
}

async fn create<K>(client: &Client, value: Value) -> Result<K, Unmet>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &of(value)?).await.map_err(|error| told(&error))
}

impl Things {
    async fn make(client: &Client) -> Result<Self, Unmet> {
        let named = json!({ "name": NAME });
        create::<ConfigMap>(client, json!({ "metadata": named, "data": { "number": "1" } })).await?;
        create::<Secret>(client, json!({ "metadata": named, "stringData": { "word": WORD } })).await?;
        create::<Lease>(client, json!({ "metadata": named, "spec": { "holderIdentity": "somebody" } }))
            .await?;
        // An event ends with a lease of etcd's.
        let event = json!({
            "metadata": named,
            "involvedObject": { "kind": "ConfigMap", "namespace": NAMESPACE, "name": NAME },
            "reason": "Drill",
            "message": "before the loss",
        });
        create::<Event>(client, event).await?;
        create::<ServiceAccount>(client, json!({ "metadata": named })).await?;
        let binding = json!({
            "metadata": named,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
        });
        create::<RoleBinding>(client, binding).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let request: TokenRequest = of(json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } }))?;
        let made = accounts.create_token_request(NAME, &PostParams::default(), &request).await;
        let token = made.map_err(|error| told(&error))?.status.map(|status| status.token);
        let token = token.ok_or_else(|| broken("a token request without a token"))?;
        let labels = json!({ "app": NAME });
        let deployment = json!({
            "metadata": named,
            "spec": {
                "replicas": PODS.0,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "nothing", "image": "example.invalid/nothing:1" }] },
                },
            },
        });
        create::<Deployment>(client, deployment).await?;
        let pods = eventually("pods", || pods(client, PODS.0)).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let workers = ListParams::default().labels("quorate.io/role=worker");
        let node = nodes.list(&workers).await.map_err(|error| told(&error))?.items.pop();
        let node = node.ok_or_else(|| broken("no worker is a node"))?.metadata;
        let worker = node.name.unwrap_or_default();
        let user = format!("system:serviceaccount:{NAMESPACE}:{NAME}");
        Ok(Self { token, user, worker, worker_uid: node.uid, pods })
    }

    /// Everything is there as it was.
    async fn are_back(&self, client: &Client) -> Result<(), Unmet> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let map = eventually("the API", || async { maps.get(NAME).await.map_err(|e| told(&e)) }).await?;
        if map.data.unwrap_or_default().get("number").map(String::as_str) != Some("1") {
            return Err(broken("a ConfigMap is not as it was"));
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let secret = secrets.get(NAME).await.map_err(|error| told(&error))?;
        if secret.data.unwrap_or_default().get("word").is_none_or(|word| word.0 != WORD.as_bytes()) {
            return Err(broken("a Secret is not as it was"));
        }
        let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        leases.get(NAME).await.map_err(|error| told(&error))?;
        let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
        events.get(NAME).await.map_err(|error| told(&error))?;
        let there = pods(client, PODS.0).await?;
        if there == self.pods { Ok(()) } else { Err(broken(format!("pods were {:?}: {there:?}", self.pods))) }
    }

    /// Everything works: a pod's token, the controllers, the scheduler, kubectl.
    async fn live(&self, stage: &Stage, client: &Client, programs: &Programs) -> Result<(), Unmet> {
        let admin = admin(&stage.lab).await?;
        let mut own = admin;
        own.auth_info = kube::config::AuthInfo::default();
        own.auth_info.token = Some(self.token.clone().into());
        let pod = Client::try_from(own).map_err(|error| told(&error))?;
        let reviews: Api<SelfSubjectReview> = Api::all(pod.clone());
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let user = review.map_err(|error| told(&error))?.status.and_then(|status| status.user_info?.username);
        if user.as_deref() != Some(self.user.as_str()) {
            return Err(broken(format!("a pod's token is {user:?}'s, not {}'s", self.user)));
        }
        let maps: Api<ConfigMap> = Api::namespaced(pod, NAMESPACE);
        maps.get(NAME).await.map_err(|error| told(&error))?;

        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let first = self.pods.first().ok_or_else(|| broken("there were no pods"))?;
        api.delete(first, &DeleteParams::default().grace_period(0)).await.map_err(|error| told(&error))?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        let more = Patch::Merge(json!({ "spec": { "replicas": PODS.1 } }));
        deployments.patch(NAME, &PatchParams::default(), &more).await.map_err(|error| told(&error))?;
        eventually("the controllers to make pods, and the scheduler to place them", || async {
            let there = pods(client, PODS.1).await?;
            for name in there.iter().filter(|name| !self.pods.contains(*name)) {
                let pod = api.get(name).await.map_err(|error| told(&error))?;
                if pod.spec.and_then(|spec| spec.node_name).as_deref() != Some(self.worker.as_str()) {
                    return Err(broken(format!("{name} is not on the worker")));
                }
            }
            if there.contains(first) { Err(broken(format!("{first} is there"))) } else { Ok(()) }
        })
        .await?;
        let more = ["patch", "configmap", NAME, "--patch", "{\"data\":{\"number\":\"2\"}}"];
        let said = kubectl(stage, programs, &more).await?;
        if said.contains("patched") { Ok(()) } else { Err(broken(format!("kubectl says {said}"))) }
    }
}

/// The names of the deployment's pods, if there are so many.
async fn pods(client: &Client, wanted: usize) -> Result<BTreeSet<String>, Unmet> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let own = ListParams::default().labels(&format!("app={NAME}"));
    let found = api.list(&own).await.map_err(|error| told(&error))?.items;
    let names: BTreeSet<String> = found.into_iter().filter_map(|pod| pod.metadata.name).collect();
    if names.len() == wanted { Ok(names) } else { Err(broken(format!("there are {names:?}"))) }
}

/// Runs kubectl with a machine's administrator's kubeconfig, by the load balancer.
async fn kubectl(stage: &Stage, programs: &Programs, arguments: &[&str]) -> Result<String, Unmet> {
    let machine = stage.lab.control_plane().pop().ok_or_else(|| broken("there is no machine"))?;
    let api = stage.lab.api().ok_or_else(|| broken("there is no load balancer"))?;
    let program = programs.dir.join("kubectl");
    let output = tokio::process::Command::new(&program)
        .arg("--kubeconfig")
        .arg(machine.root().join(paths::ADMIN_KUBECONFIG.trim_start_matches('/')))
        .args(["--server", &format!("https://{api}"), "--namespace", NAMESPACE])
        .args(arguments)
        .env("HOME", machine.dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(SETTLE, output).await.map_err(|_| broken("kubectl does not end"))?;
    let output = output.map_err(|error| broken(format!("running {}: {error}", program.display())))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(broken(format!("kubectl: {}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// Who leads is a machine that is there. (The API's own endpoints can't be looked at: it takes no addresses of loopback for
/// them, and the laboratory has no others.)
async fn leaders_are_machines(stage: &Stage) -> Result<(), Unmet> {
    let admin = admin(&stage.lab).await?;
    eventually("controllers and scheduler to be led by machines that are there", || async {
        let machines: Vec<String> = stage.lab.control_plane().iter().map(Machine::host_name).collect();
        let found = holders(&admin).await?;
        let is_there = |holder: &String| machines.iter().any(|machine| holder.starts_with(machine.as_str()));
        if found.len() == 2 && found.iter().all(is_there) {
            Ok(())
        } else {
            Err(broken(format!("{found:?} lead, expected one of {machines:?}")))
        }
    })
    .await
}

/// What an informer has seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    map: Option<ConfigMap>,
    /// How often it was told that the revision is gone from which it wanted to go on.
    relisted: u32,
}

/// Follows the ConfigMaps, as client-go's reflector does: it lists, watches, goes on from the last revision that it saw
/// when the watch breaks, and lists anew when that is gone.
struct Informer {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Informer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Informer {
    fn begin(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(follow(client, Arc::clone(&seen)));
        Self { seen, task }
    }

    fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    fn saw(&self, key: &str, value: &str) -> Result<(), Unmet> {
        let map = self.seen().map;
        let found = map.and_then(|map| map.data?.remove(key));
        if found.as_deref() == Some(value) { Ok(()) } else { Err(broken(format!("it sees {found:?}"))) }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(client: Client, seen: Arc<Mutex<Seen>>) {
    const GONE: u16 = 410;
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let own = format!("metadata.name={NAME}");
    let mut last: Option<String> = None;
    loop {
        let from = match last.take() {
            Some(from) => from,
            None => match maps.list(&ListParams::default().fields(&own)).await {
                Ok(found) => {
                    lock(&seen).map = found.items.into_iter().next();
                    found.metadata.resource_version.unwrap_or_default()
                }
                Err(_) => {
                    sleep(Duration::from_millis(500)).await;
                    continue;
                }
            },
        };
        last = Some(from.clone());
        let params = WatchParams::default().fields(&own).timeout(60);
        let stream = match maps.watch(&params, &from).await {
            Ok(stream) => stream,
            Err(kube::Error::Api(status)) if status.code == GONE => {
                lock(&seen).relisted += 1;
                last = None;
                continue;
            }
            Err(_) => {
                sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        let mut stream = pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            match event {
                WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                    last.clone_from(&map.metadata.resource_version);
                    lock(&seen).map = Some(map);
                }
                WatchEvent::Deleted(map) => {
                    last.clone_from(&map.metadata.resource_version);
                    lock(&seen).map = None;
                }
                WatchEvent::Bookmark(mark) => last = Some(mark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    if status.code == GONE {
                        lock(&seen).relisted += 1;
                        last = None;
                    }
                    break;
                }
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}
