//! How the static pods do, kept in a file: for who asks, and for the next kubelet.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// How a static pod does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodStatus {
    /// The containers that run.
    pub containers: BTreeMap<String, Running>,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
    /// How often a container was started again.
    pub restarts: u32,
    /// How a container last ended, or why it can't be started.
    pub last: Option<String>,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// When that started, in clock ticks since the computer did: ids are used again.
    pub start_time: u64,
    /// SHA-256 of the manifest that it was started from, in hexadecimal.
    pub content: String,
}

/// The state of all pods, by manifest without `.yaml`.
#[derive(Debug, Clone)]
pub struct Pods {
    file: PathBuf,
    all: Arc<Mutex<BTreeMap<String, PodStatus>>>,
}

impl Pods {
    /// The file, below a machine's directory.
    pub fn file(machine: &Path) -> PathBuf {
        machine.join("pods.json")
    }

    /// What the file says; nothing when it is not there, and what is damaged is nothing, too.
    pub fn read(file: &Path) -> BTreeMap<String, PodStatus> {
        match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %file.display(), %error, "the pods' state is damaged");
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %file.display(), %error, "the pods' state is not read");
                }
                BTreeMap::new()
            }
        }
    }

    /// Goes on from what the file says. What was ready has to show it again.
    pub fn open(file: PathBuf) -> Self {
        let mut all = Self::read(&file);
        for pod in all.values_mut() {
            pod.ready = false;
        }
        Self { file, all: Arc::new(Mutex::new(all)) }
    }

    /// How the pods do.
    pub fn all(&self) -> BTreeMap<String, PodStatus> {
        self.lock().clone()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut PodStatus)) {
        let mut all = self.lock();
        change(all.entry(name.to_owned()).or_default());
        self.write(&all);
    }

    pub(super) fn forget(&self, name: &str) {
        let mut all = self.lock();
        all.remove(name);
        self.write(&all);
    }

    /// Whoever reads sees it old or new, and whole.
    fn write(&self, all: &BTreeMap<String, PodStatus>) {
        let new = self.file.with_extension("new");
        let written = serde_json::to_vec(all)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::error!(path = %self.file.display(), %error, "the pods' state is not written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PodStatus>> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_kubelet_knows_what_runs_and_calls_nothing_ready() {
        let dir = tempfile::tempdir().unwrap();
        let file = Pods::file(dir.path());
        assert_eq!(Pods::read(&file), BTreeMap::new());
        let running = Running { pid: 7, start_time: 8, content: "c".to_owned() };
        Pods::open(file.clone()).change("a", |pod| {
            pod.containers.insert("a".to_owned(), running.clone());
            pod.ready = true;
        });
        assert!(Pods::read(&file)["a"].ready);
        let next = Pods::open(file.clone());
        assert_eq!((next.all()["a"].ready, &next.all()["a"].containers["a"]), (false, &running));
        next.forget("a");
        assert_eq!(Pods::read(&file), BTreeMap::new());
    }
}
