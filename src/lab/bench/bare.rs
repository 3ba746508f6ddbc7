//! Bare etcd: its processes alone, at the machines' addresses, with the tuning that the agent gives it.

use std::fs;
use std::process::Stdio;

use serde_json::json;
use tokio::process::{Child, Command};

use crate::lab::LabError;
use crate::lab::cluster::pki_of;
use crate::lab::laboratory::Laboratory;
use crate::lab::machine::Machine;
use crate::lab::settings::Settings;

/// A bare etcd. Dropped, it is killed.
pub struct Bare {
    settings: Settings,
    machines: Vec<Machine>,
    children: Vec<Child>,
}

impl Bare {
    /// Starts a member at each machine, where agents have left certificates, and where nothing runs.
    pub fn start(lab: &Laboratory, machines: &[Machine]) -> Result<Self, LabError> {
        let settings = lab.settings().clone();
        let children = machines.iter().map(|machine| spawn(&settings, machine, machines));
        Ok(Self { children: children.collect::<Result<_, _>>()?, machines: machines.to_vec(), settings })
    }

    /// Kills the member that clients reach at a URL, and waits until it is gone.
    pub async fn kill(&mut self, url: &str) -> Result<(), LabError> {
        let gone = |source| LabError::Spawn { program: self.settings.etcd.clone(), source };
        for (machine, child) in self.machines.iter().zip(&mut self.children) {
            if machine.client_url() == url {
                child.kill().await.map_err(gone)?;
            }
        }
        Ok(())
    }

    /// Starts a member that was killed again, on its data.
    pub fn again(&mut self, url: &str) -> Result<(), LabError> {
        for (machine, child) in self.machines.iter().zip(&mut self.children) {
            if machine.client_url() == url {
                *child = spawn(&self.settings, machine, &self.machines)?;
            }
        }
        Ok(())
    }

    /// Kills all members.
    pub async fn end(self) -> Result<(), LabError> {
        for mut child in self.children {
            child
                .kill()
                .await
                .map_err(|source| LabError::Spawn { program: self.settings.etcd.clone(), source })?;
        }
        Ok(())
    }
}

/// Starts a bare etcd at a machine's address, with the tuning that the agent gives it.
pub(super) fn spawn(settings: &Settings, machine: &Machine, all: &[Machine]) -> Result<Child, LabError> {
    let dir = settings.dir.join("bare").join(&machine.identity().name);
    fs::create_dir_all(&dir).map_err(LabError::file("making", &dir))?;
    let pki = pki_of(&machine.root());
    let security = |name: &str| {
        json!({
            "cert-file": pki.join(format!("{name}.crt")),
            "key-file": pki.join(format!("{name}.key")),
            "trusted-ca-file": pki.join("ca.crt"),
            "client-cert-auth": true,
        })
    };
    let peer = |m: &Machine| format!("https://{}:2380", m.identity().address);
    let members: Vec<String> = all.iter().map(|m| format!("{}={}", m.identity().name, peer(m))).collect();
    let configuration = json!({
        "name": machine.identity().name,
        "data-dir": dir.join("data"),
        "listen-peer-urls": peer(machine),
        "initial-advertise-peer-urls": peer(machine),
        "listen-client-urls": machine.client_url(),
        "advertise-client-urls": machine.client_url(),
        "initial-cluster": members.join(","),
        "initial-cluster-token": "bare",
        "initial-cluster-state": "new",
        "strict-reconfig-check": true,
        "client-transport-security": security("server"),
        "peer-transport-security": security("peer"),
        "heartbeat-interval": 100,
        "election-timeout": 1000,
        "logger": "zap",
        "log-outputs": ["stderr"],
    });
    let path = dir.join("etcd.yaml");
    fs::write(&path, format!("{configuration:#}\n")).map_err(LabError::file("writing", &path))?;
    let log = dir.join("etcd.log");
    let file = fs::File::create(&log).map_err(LabError::file("making", &log))?;
    Command::new(&settings.etcd)
        .arg("--config-file")
        .arg(&path)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| LabError::Spawn { program: settings.etcd.clone(), source })
}
