//! What a laboratory is made of.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::LabError;
use super::kubelet::Programs;
use super::region::{HookResult, HookSpec, Timings, Transition};
use crate::model::EtcdVersion;

/// The cluster's name in every laboratory.
pub const CLUSTER: &str = "demo";
/// The bucket's name.
pub const BUCKET: &str = "demo-quorate";
/// The key of the charter in the bucket.
pub const CHARTER: &str = "demo/charter.json";

/// The hook that holds a machine on its way in.
pub const LAUNCH_HOOK: &str = "quorate-launch";
/// The hook that holds a machine on its way out.
pub const TERMINATE_HOOK: &str = "quorate-terminate";

/// Whether an agent starts with its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At once, as at boot.
    #[default]
    AtOnce,
    /// When told to.
    Held,
}

/// What of Kubernetes there is in a laboratory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kubernetes {
    /// Nothing: etcd alone.
    #[default]
    Off,
    /// Everything that the agent makes for this version, and no program that would run it.
    Rendered(String),
    /// The programs run.
    Run(Programs),
}

impl Kubernetes {
    /// What this computer can do; when it has no programs, why not.
    pub fn here() -> Result<Self, String> {
        Programs::find().map(Self::Run)
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Rendered(_) => "rendered",
            Self::Run(_) => "running",
        }
    }

    fn fragment(&self) -> Value {
        match self {
            Self::Off => json!({ "controlPlane": "none" }),
            Self::Rendered(version) | Self::Run(Programs { version, .. }) => json!({ "version": version }),
        }
    }
}

/// What to build.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Where everything lies; made when missing.
    pub dir: PathBuf,
    /// How many zones the region has, 1 to 26.
    pub zones: usize,
    /// How many control-plane nodes.
    pub control_plane: usize,
    /// How many workers.
    pub workers: usize,
    /// How many slots: 1, 3 or 5.
    pub size: usize,
    /// Whether a network load balancer stands in front of the control-plane nodes, if there are any.
    pub load_balancer: bool,
    /// Whether both groups have lifecycle hooks, on the way in and on the way out.
    pub hooks: bool,
    /// How long a hook holds a machine without a heartbeat, in milliseconds.
    pub hook_timeout_ms: u64,
    /// Whether the workers are spot instances.
    pub spot_workers: bool,
    /// Whether a volume that is attached is deleted with its machine.
    pub volumes_go_with_machines: bool,
    /// How long the agents' leaf certificates are valid, in seconds; as ever when none.
    pub leaf_lifetime_s: Option<u32>,
    /// Seeds the region.
    pub seed: u64,
    /// Whether agents start with their machines.
    pub start: Start,
    /// How long an agent that ended waits to be started again, in milliseconds.
    pub restart_ms: u64,
    /// The region's timings.
    pub timings: Timings,
    /// Keys of the agents' configuration, beside the laboratory's own; dots stand for nesting.
    pub configuration: Map<String, Value>,
    /// What of Kubernetes there is.
    pub kubernetes: Kubernetes,
    /// The agent's program.
    pub agent: PathBuf,
    /// etcd's program.
    pub etcd: PathBuf,
    /// `quorate-lab`, which the machines' stand-ins are.
    pub lab: PathBuf,
}

impl Settings {
    /// Three control-plane nodes in three zones, with the programs of this computer.
    pub fn new(dir: &Path, agent: &Path) -> Result<Self, LabError> {
        if !agent.is_file() {
            return Err(LabError::NoAgent(agent.to_owned()));
        }
        fs::create_dir_all(dir).map_err(LabError::file("making", dir))?;
        let absolute = |path: &Path| fs::canonicalize(path).map_err(LabError::file("resolving", path));
        Ok(Self {
            dir: absolute(dir)?,
            zones: 3,
            control_plane: 3,
            workers: 0,
            size: 3,
            load_balancer: true,
            hooks: false,
            hook_timeout_ms: 30_000,
            spot_workers: false,
            volumes_go_with_machines: false,
            leaf_lifetime_s: None,
            seed: 1,
            start: Start::AtOnce,
            restart_ms: 1000,
            // EC2 goes on showing a volume that is deleted for a while.
            timings: Timings { delete_volume_ms: 20_000, ..Timings::default() },
            configuration: Map::new(),
            kubernetes: Kubernetes::Off,
            agent: absolute(agent)?,
            etcd: find_etcd()?,
            lab: absolute(&lab_beside(agent))?,
        })
    }

    /// Refuses what can't be built.
    pub fn check(&self) -> Result<(), LabError> {
        let wrong = |text: String| Err(LabError::Settings(text));
        if ![1, 3, 5].contains(&self.size) {
            return wrong(format!("a cluster of {} slots: 1, 3 or 5 are possible", self.size));
        }
        if !(self.size..=26).contains(&self.zones) {
            return wrong(format!(
                "{} zones for {} slots: each has one of its own, 26 at most",
                self.zones, self.size
            ));
        }
        // Real ones would change this computer's network and control groups.
        let stand_ins = ["kubernetes", "kubernetes.kubelet", "kubernetes.kubeProxy"];
        let is_theirs = |key: &&String| stand_ins.contains(&key.as_str()) || key.ends_with(".binary");
        if let Some(key) =
            self.configuration.keys().find(|key| key.starts_with("kubernetes") && is_theirs(key))
        {
            return wrong(format!("{key} can't be set: the laboratory has stand-ins for these programs"));
        }
        if self.control_plane + self.workers > 200 {
            return wrong("more than 200 nodes".to_owned());
        }
        Ok(())
    }

    /// How long an agent that ended waits to be started again.
    pub fn restart(&self) -> Duration {
        Duration::from_millis(self.restart_ms)
    }

    /// The lifecycle hooks of each group: a machine that never says that it is ready is given up, and one that never
    /// says that it has left is ended all the same.
    pub fn lifecycle_hooks(&self) -> Vec<HookSpec> {
        let hook = |name: &str, transition, default_result| HookSpec {
            name: name.to_owned(),
            transition,
            heartbeat_timeout_ms: self.hook_timeout_ms,
            default_result,
        };
        if !self.hooks {
            return Vec::new();
        }
        vec![
            hook(LAUNCH_HOOK, Transition::Launching, HookResult::Abandon),
            hook(TERMINATE_HOOK, Transition::Terminating, HookResult::Continue),
        ]
    }

    /// The zones' names.
    pub fn zone_names(&self) -> Vec<String> {
        (b'a'..=b'z').take(self.zones).map(|letter| format!("eu-west-1{}", char::from(letter))).collect()
    }

    /// The agents' configuration fragment; JSON is YAML.
    pub fn fragment(&self) -> Value {
        let mut fragment = json!({
            "cluster": CLUSTER,
            "bucket": BUCKET,
            "etcd": { "size": self.size, "binary": self.etcd, "quota": "256MiB" },
            "kubernetes": self.kubernetes.fragment(),
        });
        if self.hooks {
            fragment["launch"] = json!({ "hook": LAUNCH_HOOK });
        }
        for (key, value) in &self.configuration {
            let pointer = key.split('.').fold(&mut fragment, |at, part| &mut at[part]);
            *pointer = value.clone();
        }
        fragment
    }
}

/// The program `quorate-lab`: this one, when it is that, else the one beside the agent.
fn lab_beside(agent: &Path) -> PathBuf {
    const NAME: &str = "quorate-lab";
    env::current_exe()
        .ok()
        .filter(|me| me.file_name().is_some_and(|name| name == NAME))
        .unwrap_or_else(|| agent.with_file_name(NAME))
}

/// An etcd of 3.5 or newer with its `etcdutl` beside it: `QUORATE_ETCD`, the search path, or what `scripts/install-tools`
/// brought.
pub fn find_etcd() -> Result<PathBuf, LabError> {
    if let Some(given) = env::var_os("QUORATE_ETCD") {
        let given = PathBuf::from(given);
        return if serves(&given) { absolute(&given) } else { Err(LabError::NoEtcd) };
    }
    let search = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&search)
        .chain([Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin")])
        .map(|dir| dir.join("etcd"))
        .find(|path| path.is_file() && path.with_file_name("etcdutl").is_file() && serves(path));
    absolute(&found.ok_or(LabError::NoEtcd)?)
}

/// Not resolved: a program may look for others beside the name that it was called by.
fn absolute(path: &Path) -> Result<PathBuf, LabError> {
    std::path::absolute(path).map_err(LabError::file("resolving", path))
}

fn serves(etcd: &Path) -> bool {
    let Ok(output) = Command::new(etcd).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    version.and_then(|v| v.trim().parse::<EtcdVersion>().ok()).is_some_and(|v| v >= EtcdVersion::OLDEST)
}

/// A range of loopback addresses, `127.BASE.*.*`, that no other laboratory of this computer uses:
/// held by listening in it.
#[derive(Debug)]
pub struct Addresses {
    /// The second octet.
    pub base: u8,
    listener: std::net::TcpListener,
}

/// Where a laboratory listens in its range, and is commanded.
const PORT: u16 = 9900;

impl Addresses {
    /// Takes the first range that is free.
    pub fn reserve() -> Result<Self, LabError> {
        for base in 16..=250 {
            let address = SocketAddr::from((Ipv4Addr::new(127, base, 0, 1), PORT));
            match std::net::TcpListener::bind(address) {
                Ok(listener) => return Ok(Self { base, listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => tracing::debug!(%address, %error, "a range can't be taken"),
            }
        }
        Err(LabError::NoAddresses)
    }

    /// A second handle on what holds the range, to accept commands at.
    pub fn listener(&self) -> Result<std::net::TcpListener, LabError> {
        self.listener
            .try_clone()
            .map_err(|source| LabError::Control { what: "sharing the control port", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_laboratories_never_share_addresses() {
        let one = Addresses::reserve().unwrap();
        let two = Addresses::reserve().unwrap();
        assert_ne!(one.base, two.base);
    }

    fn settings() -> Settings {
        Settings {
            dir: "/d".into(),
            zones: 3,
            control_plane: 3,
            workers: 0,
            size: 3,
            load_balancer: true,
            hooks: false,
            hook_timeout_ms: 30_000,
            spot_workers: false,
            volumes_go_with_machines: false,
            leaf_lifetime_s: None,
            seed: 1,
            start: Start::AtOnce,
            restart_ms: 1000,
            timings: Timings::default(),
            configuration: Map::new(),
            kubernetes: Kubernetes::Off,
            agent: "/agent".into(),
            etcd: "/etcd".into(),
            lab: "/quorate-lab".into(),
        }
    }

    #[test]
    fn the_fragment_is_a_configuration_that_the_agent_takes() {
        let mut settings = settings();
        settings.configuration.insert("founding.patience".into(), json!("2s"));
        let fragment = settings.fragment();
        assert_eq!(fragment["founding"]["patience"], "2s");
        assert_eq!(fragment["etcd"]["size"], 3);
    }

    #[test]
    fn a_laboratory_that_can_not_be_built_is_refused() {
        for (zones, size) in [(3, 2), (2, 3), (27, 3), (3, 5)] {
            assert!(Settings { zones, size, ..settings() }.check().is_err(), "{zones} {size}");
        }
        assert!(Settings { zones: 5, size: 5, ..settings() }.check().is_ok());
    }

    #[test]
    fn nobody_can_put_a_real_kubelet_or_kube_proxy_in_the_stand_ins_place() {
        for key in
            ["kubernetes.kubelet.binary", "kubernetes.kubeProxy.binary", "kubernetes.kubelet", "kubernetes"]
        {
            let mut settings = settings();
            settings.configuration.insert(key.to_owned(), json!("/usr/bin/kubelet"));
            assert!(settings.check().is_err(), "{key}");
        }
        let mut settings = settings();
        settings.configuration.insert("kubernetes.podSubnet".to_owned(), json!("10.244.0.0/16"));
        assert!(settings.check().is_ok());
    }
}
