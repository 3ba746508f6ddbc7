//! An add-on is applied and taken away by an API server that is lost after every single write, and found
//! again: it ends as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::*;
use crate::aws::testing::{Reply, Request, Server, answer};
use crate::config::{InstanceTags, load};
use crate::kubernetes::addons::Variables;

const FIRST: &str = "\
{apiVersion: v1, kind: ConfigMap, metadata: {name: stays, namespace: kube-system}, data: {it: is old}}
---
{apiVersion: v1, kind: Secret, metadata: {name: goes, namespace: kube-system}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: goes, namespace: other}}
";
const SECOND: &str = "\
{apiVersion: v1, kind: ConfigMap, metadata: {name: stays, namespace: kube-system}, data: {it: is new}}
---
{apiVersion: v1, kind: Secret, metadata: {name: comes, namespace: kube-system}}
";
/// What is there in the end: the add-on, and what somebody else has put there.
const OTHERS: &str = "/api/v1/namespaces/other/configmaps/others";

/// When the API server is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    /// Right before this write, counted from 0, has an effect.
    Before(usize),
    /// Right after it, and nobody is told.
    After(usize),
}

/// What an API server keeps, as far as add-ons need one.
struct Kept {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: usize,
    cut: Cut,
    lost: bool,
}

impl Kept {
    fn answer(&mut self, request: &Request) -> Reply {
        if self.lost {
            return Reply::Cut;
        }
        let path = request.path.split('?').next().unwrap().to_owned();
        if request.method == "GET" {
            return self.read(&path);
        }
        let this = self.writes;
        self.writes += 1;
        self.lost = [Cut::Before(this), Cut::After(this)].contains(&self.cut);
        if self.cut == Cut::Before(this) {
            return Reply::Cut;
        }
        let reply = self.write(&request.method, &path, &request.body);
        if self.lost { Reply::Cut } else { reply }
    }

    fn read(&self, path: &str) -> Reply {
        let kind = |kind: &str, name: &str| json!({ "kind": kind, "name": name, "singularName": "", "namespaced": true, "verbs": ["get"] });
        match path {
            "/api/v1" => answer(
                200,
                json!({
                    "kind": "APIResourceList",
                    "groupVersion": "v1",
                    "resources": [kind("ConfigMap", "configmaps"), kind("Secret", "secrets")],
                })
                .to_string(),
            ),
            path => match self.objects.get(path) {
                Some(object) => answer(200, object.to_string()),
                None => status(404, "NotFound"),
            },
        }
    }

    fn write(&mut self, method: &str, path: &str, body: &[u8]) -> Reply {
        let body: Value = serde_json::from_slice(body).unwrap();
        let (path, version) = match method {
            "POST" => (format!("{path}/{}", body["metadata"]["name"].as_str().unwrap()), &Value::Null),
            "DELETE" => (path.to_owned(), &body["preconditions"]["resourceVersion"]),
            _ => (path.to_owned(), &body["metadata"]["resourceVersion"]),
        };
        let found = self.objects.get(&path);
        match (method, found) {
            ("POST", Some(_)) => return status(409, "AlreadyExists"),
            ("PUT" | "DELETE", None) => return status(404, "NotFound"),
            ("PUT" | "DELETE", Some(found)) if found["metadata"]["resourceVersion"] != *version => {
                return status(409, "Conflict");
            }
            _ => {}
        }
        if method == "DELETE" {
            self.objects.remove(&path);
            return answer(200, json!({ "kind": "Status", "status": "Success" }).to_string());
        }
        self.version += 1;
        let mut body = body;
        body["metadata"]["resourceVersion"] = self.version.to_string().into();
        body["metadata"]["uid"] = path.as_str().into();
        self.objects.insert(path, body.clone());
        answer(200, body.to_string())
    }

    /// All that is there, but for versions.
    fn told(&self) -> BTreeMap<String, Value> {
        let mut told = self.objects.clone();
        for object in told.values_mut() {
            object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        }
        told
    }
}

fn status(code: u16, reason: &str) -> Reply {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    answer(code, status.to_string())
}

struct Rig {
    kept: Arc<Mutex<Kept>>,
    api: ApiClient,
    _server: Server,
}

impl Rig {
    async fn new() -> Self {
        let others = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "others", "namespace": "other", "resourceVersion": "1" },
        });
        let objects = BTreeMap::from([(OTHERS.to_owned(), others)]);
        let kept = Kept { objects, version: 1, writes: 0, cut: Cut::Never, lost: false };
        let kept = Arc::new(Mutex::new(kept));
        let answering = Arc::clone(&kept);
        let server = Server::start(move |request| answering.lock().unwrap().answer(request)).await;
        let config = kube::Config::new(server.url.parse().unwrap());
        let api = ApiClient::of(kube::Client::try_from(config).unwrap());
        Self { kept, api, _server: server }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Has the API server be lost so, from now on; and be there again.
    fn cut(&self, cut: Cut) {
        let mut kept = self.kept();
        (kept.cut, kept.writes, kept.lost) = (cut, 0, false);
    }
}

fn name() -> AddonName {
    "example".parse().unwrap()
}

fn addon(text: &str) -> Addon {
    let user_data = "cluster: demo\nbucket: demo-quorate\n";
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    let loaded = load(Path::new("/nonexistent"), Some(user_data.as_bytes()), &tags).unwrap();
    let endpoint = "api.example.com".parse().unwrap();
    let settings = loaded.settings;
    let region = "eu-west-1".parse().unwrap();
    let variables = Variables::of(&settings.cluster, &region, &settings.kubernetes, &endpoint);
    Addon::parse(&name(), text.as_bytes(), &variables).unwrap()
}

/// What is done to an API server that has the first version of the add-on, or nothing of it.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Applying,
    Changing,
    TakingAway,
}

impl Doing {
    async fn once(self, rig: &Rig) -> Result<(), StepError> {
        match self {
            Self::Applying => apply_to(&rig.api, &name(), &addon(FIRST)).await,
            Self::Changing => apply_to(&rig.api, &name(), &addon(SECOND)).await,
            Self::TakingAway => prune_from(&rig.api, &name()).await,
        }
    }

    /// A world in which it is to be done.
    async fn before(self) -> Rig {
        let rig = Rig::new().await;
        match self {
            Self::Applying => {}
            Self::Changing | Self::TakingAway => Self::Applying.once(&rig).await.unwrap(),
        }
        rig
    }
}

#[tokio::test]
async fn an_add_on_is_applied_changed_and_taken_away() {
    let rig = Rig::new().await;
    let there = |rig: &Rig| -> Vec<String> {
        let kept = rig.kept();
        kept.objects.keys().map(|path| path["/api/v1/namespaces/".len()..].to_owned()).collect()
    };
    let inventory = "kube-system/configmaps/quorate-addon-example";
    let others = "other/configmaps/others";
    Doing::Applying.once(&rig).await.unwrap();
    let (stays, comes) = ("kube-system/configmaps/stays", "kube-system/secrets/comes");
    let goes = ["kube-system/secrets/goes", "other/configmaps/goes"];
    assert_eq!(there(&rig), [inventory, stays, goes[0], goes[1], others]);
    Doing::Changing.once(&rig).await.unwrap();
    assert_eq!(there(&rig), [inventory, stays, comes, others]);
    Doing::TakingAway.once(&rig).await.unwrap();
    assert_eq!(there(&rig), [others]);
}

#[tokio::test]
async fn wherever_it_is_cut_off_it_ends_in_the_same_place() {
    for doing in [Doing::Applying, Doing::Changing, Doing::TakingAway] {
        let whole = doing.before().await;
        whole.cut(Cut::Never);
        doing.once(&whole).await.unwrap();
        let (expected, writes) = {
            let kept = whole.kept();
            (kept.told(), kept.writes)
        };
        assert!(writes >= 4, "{doing:?} writes {writes} times");
        for write in 0..writes {
            for cut in [Cut::Before(write), Cut::After(write)] {
                let rig = doing.before().await;
                rig.cut(cut);
                assert!(doing.once(&rig).await.is_err(), "{doing:?}, {cut:?}: cut off, and nobody says so");
                // What is there is what the inventory says, or somebody else's.
                let left = rig.kept().objects.len();
                rig.cut(Cut::Never);
                let listed = rig.api.inventory(&name()).await.unwrap();
                let listed = listed.map_or(0, |(inventory, _)| inventory.objects.len() + 1);
                assert!(left <= listed + 1, "{doing:?}, {cut:?}: {left} are there, {listed} are listed");
                doing.once(&rig).await.unwrap();
                assert_eq!(rig.kept().told(), expected, "{doing:?}, {cut:?}");
            }
        }
    }
}
