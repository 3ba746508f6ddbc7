//! A stand-in for the kubelet: it starts what a static pod's manifest says, probes it as the
//! manifest says, and starts it again when it ends or stays unhealthy.
//!
//! It is a program of its own, `quorate-lab kubelet` ([`program`]), with the kubelet's flags and configuration. As with
//! the kubelet, its pods go on when it ends, and the next one finds them.
//!
//! What is real: the manifest decides everything. A container sees only what the manifest mounts
//! ([`container`] makes it a root of its own in a mount namespace), under the paths that the
//! manifest says, read-only where it says so; an image is the program of that name and version
//! among the Kubernetes programs of this computer ([`Programs`]), and an image of another version
//! can't be pulled. What is not: users, capabilities, seccomp, resources and priorities; and all
//! share the computer's network, as pods on the host's network do.
//!
//! Source: "Create static Pods" and "Configure Liveness, Readiness and Startup Probes" on
//! kubernetes.io.

pub(super) mod configuration;
mod container;
mod life;
mod node;
mod pod;
mod probe;
pub mod program;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::environment::AgentEnvironment;
use super::error::chain;
use super::machine::Machine;
use crate::kubernetes::{Component, digest};
use life::Life;

pub use state::{PodStatus, Pods, Running};

/// Where envtest keeps its programs.
const USUAL: &str = "/usr/local/kubebuilder/bin";
/// What a control plane runs.
const NEEDED: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// How often the manifests are looked at; the kubelet is told of changes by the kernel.
const LOOK: Duration = Duration::from_millis(100);

/// The Kubernetes programs of this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Programs {
    /// Where they are.
    pub dir: PathBuf,
    /// Their version, as in `1.36.2`.
    pub version: String,
}

impl Programs {
    /// Where they are looked for: `KUBEBUILDER_ASSETS`, else where envtest keeps them.
    pub fn place() -> PathBuf {
        std::env::var_os("KUBEBUILDER_ASSETS")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from(USUAL), PathBuf::from)
    }

    /// The programs that are there, or what is missing.
    pub fn find() -> Result<Self, String> {
        let dir = Self::place();
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(format!(
                "no {} in {} (KUBEBUILDER_ASSETS, else {USUAL})",
                missing.join(", "),
                dir.display()
            ));
        }
        let program = dir.join(NEEDED[0]);
        let output = Command::new(&program).arg("--version").output();
        let said = output.map_err(|error| format!("running {}: {error}", program.display()))?;
        let said = String::from_utf8_lossy(&said.stdout);
        let version = said.trim().strip_prefix("Kubernetes v").map(str::to_owned);
        let version = version.ok_or_else(|| format!("{} says {said:?} of its version", program.display()))?;
        Ok(Self { dir, version })
    }

    /// The program that an image holds: `REGISTRY/NAME:vVERSION`.
    fn of_image(&self, image: &str) -> Result<(String, PathBuf), String> {
        let (name, tag) = image
            .rsplit('/')
            .next()
            .and_then(|last| last.split_once(':'))
            .ok_or_else(|| format!("image {image:?} has no tag"))?;
        let program = self.dir.join(name);
        if tag != format!("v{}", self.version) || !program.is_file() {
            return Err(format!("image {image:?} is not to be had: {name} is here in v{}", self.version));
        }
        Ok((name.to_owned(), program))
    }
}

/// What runs one machine's static pods.
pub struct Kubelet {
    /// The machine's root.
    pub root: PathBuf,
    /// Where the manifests lie.
    pub manifests: PathBuf,
    /// The machine's host name.
    pub host_name: String,
    /// What its programs are started with.
    pub environment: AgentEnvironment,
    /// The programs that stand for images.
    pub programs: Programs,
    /// Where it tells how the pods do.
    pub pods: Pods,
}

/// A pod that is kept running, as long as this lives.
struct Kept {
    content: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Ends the pod, and waits for that.
    async fn end(mut self, name: &str) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(pod = name, %error, "a pod's keeper failed");
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// Runs the manifests' pods, until dropped. The processes outlive it; who cuts the power kills them.
    pub async fn run(self) {
        let dir = self.manifests.clone();
        self.end_strangers(&read(&dir, &mut BTreeMap::new())).await;
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        let mut told = BTreeMap::new();
        loop {
            let wanted = read(&dir, &mut told);
            let gone: Vec<String> = kept
                .iter()
                .filter(|(name, pod)| wanted.get(*name).is_none_or(|(content, _)| *content != pod.content))
                .map(|(name, _)| name.clone())
                .collect();
            for name in gone {
                if let Some(old) = kept.remove(&name) {
                    old.end(&name).await;
                    self.pods.forget(&name);
                }
            }
            for (name, (content, pod)) in wanted {
                kept.entry(name.clone()).or_insert_with(|| {
                    let (stop, stopped) = watch::channel(false);
                    let keeper = pod::Keeper {
                        name,
                        pod,
                        content: content.clone(),
                        root: self.root.clone(),
                        host_name: self.host_name.clone(),
                        environment: self.environment.clone(),
                        programs: self.programs.clone(),
                        pods: self.pods.clone(),
                        stopped,
                    };
                    Kept { content, stop, task: tokio::spawn(keeper.run()) }
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Ends what the kubelet before had started and what no manifest describes any more.
    async fn end_strangers(&self, wanted: &BTreeMap<String, (String, Pod)>) {
        for (name, pod) in self.pods.all() {
            let content = wanted.get(&name).map(|(content, _)| content);
            let strangers = pod.containers.values().filter(|running| Some(&running.content) != content);
            for mut life in strangers.filter_map(Life::find) {
                life.end(pod::GRACE).await;
            }
            if content.is_none() {
                self.pods.forget(&name);
            }
        }
    }
}

/// Starts what a machine's manifest of a component says, as a kubelet would, and looks after it no more.
pub(super) fn start_alone(
    machine: &Machine,
    programs: &Programs,
    component: Component,
) -> Result<Child, String> {
    let root = machine.root();
    let path = root.join(component.manifest().trim_start_matches('/'));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let pod: Pod = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let container = containers.first().ok_or("it has no container")?;
    container::Plan {
        pod: &pod,
        container,
        program: programs.of_image(container.image.as_deref().unwrap_or_default())?,
        root: &root,
        host_name: &machine.host_name(),
        environment: machine.environment(),
        mount_point: root.join("run/alone").join(&container.name),
        log: root.join("var/log/pods").join(format!("{}.alone.log", container.name)),
    }
    .start()
}

/// The pods that the directory's files describe. Like the kubelet it takes every file but hidden
/// ones; one that is no pod is said, once, and runs nothing.
fn read(dir: &Path, told: &mut BTreeMap<String, String>) -> BTreeMap<String, (String, Pod)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let pod = fs::read_to_string(&path).map_err(|error| chain(&error)).and_then(|text| {
            serde_saphyr::from_str::<Pod>(&text)
                .map(|pod| (digest(text.as_bytes()), pod))
                .map_err(|error| error.to_string())
        });
        match pod {
            Ok(pod) => {
                told.remove(&name);
                found.insert(name.trim_end_matches(".yaml").to_owned(), pod);
            }
            Err(why) => {
                if told.get(&name) != Some(&why) {
                    tracing::warn!(path = %path.display(), why, "a manifest is no pod");
                    told.insert(name, why);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_program_of_its_name_and_version_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kube-scheduler"), "").unwrap();
        let programs = Programs { dir: dir.path().to_owned(), version: "1.36.2".to_owned() };
        let (name, path) = programs.of_image("registry.k8s.io/kube-scheduler:v1.36.2").unwrap();
        assert_eq!((name.as_str(), path), ("kube-scheduler", dir.path().join("kube-scheduler")));
        for wrong in ["r/kube-scheduler:v1.36.1", "r/kube-apiserver:v1.36.2", "r/kube-scheduler"] {
            assert!(programs.of_image(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_file_but_a_hidden_one_is_taken_for_a_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n";
        for (name, text) in [("a.yaml", pod), (".a.yaml", pod), ("b.tmp", pod), ("c.yaml", "no: [pod")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut told = BTreeMap::new();
        let found: Vec<String> = read(dir.path(), &mut told).into_keys().collect();
        assert_eq!(found, ["a", "b.tmp"]);
        assert_eq!(told.keys().collect::<Vec<_>>(), ["c.yaml"]);
    }
}
