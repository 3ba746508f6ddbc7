//! Add-ons, put to the test: applied, changed, repaired and taken away, with bad ones beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{Stage, Unmet};
use crate::cluster_api::ApiClient;
use crate::kubernetes::addons::inventory::Inventory;
use crate::lab::error::chain;
use crate::lab::machine::Machine;
use crate::lab::status::Status;
use crate::model::Fact;

/// The add-ons that are shipped.
const SHIPPED: [&str; 4] = ["aws-cloud-controller-manager", "aws-ebs-csi-driver", "bridge-cni", "coredns"];
/// The operator's own.
const SITE: &str = "site";
/// One that the API refuses.
const REFUSED: &str = "refused";
/// How long what follows a changed file may take: a slow tick, and some work.
const SOON: Duration = Duration::from_secs(45);
/// How long it may take until what was deleted by hand is back: it is looked for once a minute.
const BACK: Duration = Duration::from_secs(90);

/// Kinds that are not served until the first is: a definition and an object of it.
const KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sites.drill.example.com}
spec:
  group: drill.example.com
  names: {kind: Site, plural: sites, singular: site}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: drill.example.com/v1
kind: Site
metadata: {name: here}
spec: {domain: \"${QUORATE_CLUSTER_DOMAIN}\", port: \"${PORT}\"}
---
apiVersion: v1
kind: Namespace
metadata: {name: drill-site}
";

fn map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: drill-site}}\n\
         data: {{value: '{value}'}}\n"
    )
}

/// What the agents are set to.
pub(super) fn configuration() -> Map<String, Value> {
    let settings = [
        ("kubernetes.addons".to_owned(), json!(SHIPPED)),
        ("kubernetes.podSubnet".to_owned(), json!("10.244.0.0/16")),
    ];
    settings.into_iter().collect()
}

/// The drill of the add-ons.
pub(super) struct Addons {
    roots: Vec<PathBuf>,
    client: Client,
}

fn told(error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(chain(error))
}

impl Addons {
    /// On all machines of the stage.
    pub fn of(stage: &Stage, client: Client) -> Self {
        let roots = stage.lab.control_plane().iter().map(Machine::root).collect();
        Self { roots, client }
    }

    /// Puts a file on all machines, or takes it away.
    fn put(&self, directory: &str, name: &str, text: Option<&str>) -> Result<(), Unmet> {
        for root in &self.roots {
            let dir = root.join(directory);
            let path = dir.join(format!("{name}.yaml"));
            let done = match text {
                Some(text) => fs::create_dir_all(&dir).and_then(|()| {
                    let staged = dir.join(format!(".{name}.new"));
                    fs::write(&staged, text).and_then(|()| fs::rename(&staged, &path))
                }),
                None => fs::remove_file(&path),
            };
            done.map_err(|error| Unmet::Broken(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    fn operators(&self, name: &str, text: Option<&str>) -> Result<(), Unmet> {
        self.put("etc/quorate/addons", name, text)
    }

    /// Waits until `look` has nothing to say.
    async fn until(
        &self,
        patience: Duration,
        look: impl AsyncFn() -> Result<String, Unmet>,
    ) -> Result<Duration, Unmet> {
        let began = Instant::now();
        loop {
            let lacks = look().await;
            match lacks {
                Ok(lacks) if lacks.is_empty() => return Ok(began.elapsed()),
                Ok(lacks) if began.elapsed() > patience => return Err(Unmet::Broken(lacks)),
                Err(error) if began.elapsed() > patience => return Err(error),
                Ok(_) | Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn inventory(&self, name: &str) -> Result<Option<Inventory>, Unmet> {
        let name = name.parse().map_err(|_| Unmet::Broken(format!("{name:?} is no add-on's name")))?;
        let mut all = ApiClient::of(self.client.clone()).inventories().await.map_err(|error| told(&error))?;
        match all.remove(&name) {
            None => Ok(None),
            Some(Fact::Known(found)) => Ok(Some(found)),
            Some(Fact::Unknown(why)) => Err(Unmet::Broken(why)),
        }
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "drill-site")
    }

    /// The value in a ConfigMap of the operator's add-on; `None` when it is not there.
    async fn value(&self, name: &str) -> Result<Option<String>, Unmet> {
        let found = self.maps().get_opt(name).await.map_err(|error| told(&error))?;
        Ok(found.and_then(|map| map.data?.remove("value")))
    }

    /// What every agent says, in words.
    fn words(&self) -> Result<Vec<String>, Unmet> {
        let words = self.roots.iter().map(|root| Ok(Status::of(root)?.unwrap_or_default().words.join("; ")));
        words.collect::<Result<_, crate::lab::LabError>>().map_err(|error| told(&error))
    }

    /// The shipped ones, one of the operator's, and two bad ones that do not stop them.
    pub async fn are_applied(&mut self) -> Result<Duration, Unmet> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/addons");
        for name in SHIPPED {
            let text =
                fs::read_to_string(shipped.join(format!("{name}.yaml"))).map_err(|error| told(&error))?;
            self.put("usr/lib/quorate/addons", name, Some(&text))?;
        }
        self.operators("broken", Some("kind: [\n"))?;
        // The API knows better: a name has no capital letters.
        self.operators(REFUSED, Some(&format!("{}{}", map("Refused", ""), map("taken", "beside it"))))?;
        let site = format!("{KIND}{}{}", map("one", "first"), map("two", "of ${QUORATE_CLUSTER_NAME}"));
        self.operators(SITE, Some(&site))?;
        let took = self
            .until(SOON, async || {
                for name in SHIPPED.into_iter().chain([SITE]) {
                    match self.inventory(name).await? {
                        Some(Inventory { digest: Some(_), failure: None, .. }) => {}
                        other => return Ok(format!("the add-on {name} is not applied: {other:?}")),
                    }
                }
                Ok(String::new())
            })
            .await?;
        let two = self.value("two").await?;
        if two.as_deref() != Some("of demo") {
            return Err(Unmet::Broken(format!("a variable was not replaced: {two:?}")));
        }
        let kind = GroupVersionKind::gvk("drill.example.com", "v1", "Site");
        let sites: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), "default", &ApiResource::from_gvk(&kind));
        let site = sites.get("here").await.map_err(|error| told(&error))?;
        if site.data["spec"] != json!({ "domain": "cluster.local", "port": "${PORT}" }) {
            return Err(Unmet::Broken(format!("an object of a new kind is not as it should be: {site:?}")));
        }
        self.until(SOON, async || {
            let failed = self.inventory(REFUSED).await?.and_then(|found| found.failure);
            if !failed.is_some_and(|failure| failure.why.contains("Refused") && failure.why.contains("422")) {
                return Ok("the refusal is not written down".to_owned());
            }
            if self.value("taken").await?.is_none() {
                return Ok("one refused object stopped the other of its add-on".to_owned());
            }
            let words = self.words()?;
            let told = |words: &String| words.contains("the add-on broken can't be used");
            if !words.iter().all(told)
                || !words.iter().any(|words| words.contains("the add-on refused is not"))
            {
                return Ok(format!("the bad add-ons are not told: {words:?}"));
            }
            Ok(String::new())
        })
        .await?;
        Ok(took)
    }

    /// One object changes, another is dropped from the file.
    pub async fn change(&self) -> Result<(), Unmet> {
        self.operators(SITE, Some(&format!("{KIND}{}", map("one", "second"))))?;
        let look = async || {
            let found = (self.value("one").await?, self.value("two").await?);
            Ok(match found {
                (Some(one), None) if one == "second" => String::new(),
                other => format!("the changed add-on is not applied: {other:?}"),
            })
        };
        self.until(SOON, look).await.map(drop)
    }

    /// Deletes an object by hand.
    pub async fn lose_one(&self) -> Result<(), Unmet> {
        self.maps().delete("one", &DeleteParams::default()).await.map(drop).map_err(|error| told(&error))
    }

    /// What was deleted by hand comes back.
    pub async fn are_back(&self) -> Result<(), Unmet> {
        let look = async || {
            let one = self.value("one").await?;
            Ok(if one.as_deref() == Some("second") {
                String::new()
            } else {
                "it did not come back".to_owned()
            })
        };
        self.until(BACK, look).await.map(drop)
    }

    /// The operator's files go, and what was of them; but not what holds others' data, which is named.
    pub async fn are_taken_away(&self) -> Result<(), Unmet> {
        for name in [SITE, REFUSED, "broken"] {
            self.operators(name, None)?;
        }
        self.until(SOON, async || {
            for name in [SITE, REFUSED] {
                if let Some(left) = self.inventory(name).await? {
                    return Ok(format!("the add-on {name} is still there: {left:?}"));
                }
            }
            Ok(String::new())
        })
        .await?;
        for name in ["one", "taken"] {
            if self.value(name).await?.is_some() {
                return Err(Unmet::Broken(format!("the ConfigMap {name} was left")));
            }
        }
        let spaces: Api<Namespace> = Api::all(self.client.clone());
        let kinds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        spaces.get("drill-site").await.map_err(|error| told(&error))?;
        kinds.get("sites.drill.example.com").await.map_err(|error| told(&error))?;
        let look = async || {
            let words = self.words()?;
            let names = ["Namespace drill-site", "CustomResourceDefinition sites.drill.example.com"];
            let told = words.iter().any(|words| names.iter().all(|name| words.contains(name)));
            Ok(if told { String::new() } else { format!("what is left is not named: {words:?}") })
        };
        self.until(SOON, look).await.map(drop)
    }
}
