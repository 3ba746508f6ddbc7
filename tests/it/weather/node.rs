//! A laboratory of one node: the real agent, a disk, and whatever etcd a test gives it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::host::Root;
use quorate::lab::laboratory::{Laboratory, Scratch};
use quorate::lab::machine::Machine;
use quorate::lab::settings::{Settings, Start, find_etcd};
use quorate::model::Plan;
use quorate::telemetry::status::{self, Status};
use serde_json::json;
use tokio::process::Command;

use crate::permissions::{self, Volumes};

/// The longest that anything here may take, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// One node of a cluster of one. The agent waits to be started.
pub struct Node {
    pub lab: Laboratory,
    pub machine: Machine,
    dir: PathBuf,
    _scratch: Scratch,
}

impl Node {
    pub async fn new(name: &str) -> Self {
        Self::with(name, |_, _| {}).await
    }

    /// The same with settings of the test's; it may put programs into the directory.
    pub async fn with(name: &str, adjust: impl FnOnce(&mut Settings, &Path)) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let mut settings = Settings::new(scratch.path(), Path::new(env!("CARGO_BIN_EXE_quorate"))).unwrap();
        (settings.zones, settings.control_plane, settings.size) = (1, 1, 1);
        settings.start = Start::Held;
        settings.configuration.insert("tick".to_owned(), json!("1s"));
        adjust(&mut settings, scratch.path());
        let lab = Laboratory::start(settings).await.unwrap();
        let machine = lab.control_plane().remove(0);
        Self { lab, machine, dir: scratch.path().to_owned(), _scratch: scratch }
    }

    /// One whose etcd is a script.
    pub async fn with_etcd(name: &str, script: &str) -> Self {
        Self::with(name, |settings, dir| {
            let path = program(dir);
            write_program(&path, script);
            settings.configuration.insert("etcd.binary".to_owned(), json!(path));
        })
        .await
    }

    /// Puts another etcd into the place of the script.
    pub fn replace_etcd(&self, script: &str) {
        write_program(&program(&self.dir), script);
    }

    pub fn root(&self) -> PathBuf {
        self.machine.root()
    }

    /// Attaches the slot's volume and waits for its device; gives the volume and its file.
    pub async fn attach(&self) -> (String, PathBuf) {
        let id = self.lab.region().with(|w| w.view().volumes.keys().next().unwrap().to_string());
        let instance = &self.machine.identity().instance;
        self.lab
            .wait("the attachment", PATIENCE, |lab| {
                lab.ask("to attach", |w| w.attach_volume(&id, instance, "/dev/xvdf"))
                    .map_err(|error| quorate::model::fact::chain(&error))
            })
            .await
            .unwrap();
        let device = self.root().join("dev/nvme1n1");
        let there = |_: &Laboratory| if device.exists() { Ok(()) } else { Err("no device".to_owned()) };
        self.lab.wait("the device", PATIENCE, there).await.unwrap();
        (id.clone(), fs::canonicalize(device).unwrap())
    }

    /// A file system of ours on the attached volume, mounted as the agent would; gives the volume
    /// and where it is mounted.
    pub async fn mounted(&self) -> (String, PathBuf) {
        let (id, file) = self.attach().await;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-E", "nodiscard", "-L", "quorate-1"])
            .arg(&file)
            .env("PATH", &self.machine.environment().variables()["PATH"])
            .status();
        assert!(made.await.unwrap().success());
        let dir = self.root().join("var/lib/etcd");
        let mounted = Command::new(self.dir.join("bin/mount"))
            .args(["-t", "ext4", "-o", "noatime"])
            .arg(self.root().join("dev/nvme1n1"))
            .arg(&dir)
            .envs(self.machine.environment().variables())
            .status();
        assert!(mounted.await.unwrap().success());
        (id, dir)
    }

    /// What `quorate plan` says now.
    pub async fn plan(&self) -> Plan {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .arg("--root")
            .arg(self.root())
            .args(["plan", "--json"])
            .env_clear()
            .envs(self.machine.environment().variables())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the agent's status fits, and gives it.
    pub async fn until(&self, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
        let root = Root::new(self.root());
        self.lab
            .wait(what, PATIENCE, |_| match status::read(&root) {
                Ok(status) if fits(&status) => Ok(status),
                Ok(status) => Err(status.line()),
                Err(error) => Err(error.to_string()),
            })
            .await
            .unwrap()
    }

    /// Waits until the agent says these words.
    pub async fn until_said(&self, words: &str) -> Status {
        self.until(words, |status| status.words.iter().any(|said| said.contains(words))).await
    }

    pub async fn until_running(&self) -> Status {
        self.until("a running member", |status| {
            status.phase == quorate::model::Phase::Running && status.waiting.is_empty()
        })
        .await
    }
}

/// What its agent asked AWS for is held against the template's policies.
impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let created = self.lab.settings().configuration.get("etcd.volume.source") == Some(&json!("created"));
        let volumes = if created { Volumes::Created } else { Volumes::PerZone };
        permissions::judge(&self.lab.region().with(|world| world.authorizations().clone()), volumes);
    }
}

fn program(dir: &Path) -> PathBuf {
    dir.join("bin").join("etcd-of-the-test")
}

/// Written aside and renamed: a program that runs can't be written to.
fn write_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

/// A script that becomes the real etcd.
pub fn real_etcd() -> String {
    format!("exec {} \"$@\"", find_etcd().unwrap().display())
}
