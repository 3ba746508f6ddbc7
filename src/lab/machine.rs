//! A machine: its root directory, and its agent, kept running as a service manager would.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;
use serde::Serialize;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::sleep;

use super::environment::AgentEnvironment;
use super::kubelet::program::{self, Ground};
use super::kubelet::{PodStatus, Pods};
use super::settings::{Kubernetes, Settings};
use super::{LabError, process};

/// The port of etcd's clients.
pub const CLIENT_PORT: u16 = 2379;

/// After which step an agent is to abort, as by a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailPoint {
    /// The step's name, or `*` for any; with `:N`, the N-th time in that life.
    pub step: String,
    /// In which of its lives.
    pub lives: Lives,
}

/// Which of an agent's lives end at a fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// One; after that it lives on.
    One,
    /// Every.
    Every,
}

/// What a machine was launched as.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its short name, such as `a1`: the zone's letter, and a count of the zone's machines.
    pub name: String,
    /// How many its zone had had with it.
    pub number: usize,
    /// Its instance id.
    pub instance: String,
    /// Its zone.
    pub zone: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// `control-plane` or `worker`.
    pub role: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    Run,
    Off,
}

#[derive(Debug, Default)]
struct Diary {
    pid: Option<u32>,
    restarts: u32,
    last_exit: Option<String>,
    fail_point: Option<FailPoint>,
}

/// A machine. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Machine {
    identity: Arc<Identity>,
    dir: PathBuf,
    order: watch::Sender<Order>,
    diary: Arc<Mutex<Diary>>,
    environment: AgentEnvironment,
}

impl Machine {
    /// Makes a machine's directory, without starting anything.
    pub fn prepare(
        settings: &Settings,
        identity: Identity,
        aws: &str,
        metadata: SocketAddr,
    ) -> Result<Self, LabError> {
        let dir = settings.dir.join("nodes").join(&identity.name);
        let mut environment = AgentEnvironment::of_node(&dir, &settings.dir.join("bin"), aws, metadata)?;
        if let Some(seconds) = settings.leaf_lifetime_s {
            environment = environment.with("QUORATE_LEAF_LIFETIME", &seconds.to_string())?;
        }
        let root = dir.join("root");
        for part in
            ["dev", "sys/block", "etc/quorate/config.d", "run/systemd/timesync", "var/lib/etcd", "tmp"]
        {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(LabError::file("making", &path))?;
        }
        let write =
            |path: PathBuf, text: &str| fs::write(&path, text).map_err(LabError::file("writing", &path));
        write(root.join("run/systemd/timesync/synchronized"), "")?;
        let mut fragment = settings.fragment();
        for (key, name) in [("kubelet", "kubelet"), ("kubeProxy", "kube-proxy")] {
            fragment["kubernetes"][key]["binary"] = json!(program::place(&dir, name));
        }
        write(root.join("etc/quorate/config.d/50-laboratory.yaml"), &format!("{fragment:#}\n"))?;
        let (programs, version) = match &settings.kubernetes {
            Kubernetes::Run(programs) => (Some(programs.clone()), programs.version.clone()),
            Kubernetes::Rendered(version) => (None, version.clone()),
            Kubernetes::Off => (None, "0.0.0".to_owned()),
        };
        let host_name = host_name(identity.address);
        let ground =
            Ground { dir: dir.clone(), host_name, environment: environment.clone(), programs, version };
        program::install(&ground, &settings.lab)?;
        Ok(Self {
            identity: Arc::new(identity),
            dir,
            order: watch::Sender::new(Order::Hold),
            diary: Arc::default(),
            environment,
        })
    }

    /// Starts to keep the agent running: it is started when told to, and again whenever it ends.
    pub fn keep(&self, settings: &Settings) {
        let keeper = Keeper {
            machine: self.clone(),
            order: self.order.subscribe(),
            agent: settings.agent.clone(),
            restart: settings.restart(),
        };
        tokio::spawn(keeper.run());
    }

    /// Its host name, as its pods see it.
    pub fn host_name(&self) -> String {
        host_name(self.identity.address)
    }

    /// How its static pods do.
    pub fn pods(&self) -> BTreeMap<String, PodStatus> {
        Pods::read(&Pods::file(&self.dir))
    }

    /// What it was launched as.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// What its agent said.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// The environment of its programs.
    pub fn environment(&self) -> &AgentEnvironment {
        &self.environment
    }

    /// Where etcd's clients reach it.
    pub fn client_url(&self) -> String {
        format!("https://{}:{CLIENT_PORT}", self.identity.address)
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        *self.order.borrow() != Order::Off
    }

    /// Whether its agent is kept running.
    pub fn is_started(&self) -> bool {
        *self.order.borrow() == Order::Run
    }

    /// Starts the agent, and again whenever it ends.
    pub fn start(&self) {
        self.set(Order::Run);
    }

    /// Kills the agent and does not start it again; etcd goes on.
    pub fn hold(&self) {
        self.set(Order::Hold);
    }

    /// The power is cut: everything that runs here is killed, at once and for good.
    pub fn power_off(&self) {
        self.set(Order::Off);
        process::kill_below(&self.dir);
    }

    /// Kills everything that runs here, and puts `run` and the mounts in the state of a boot.
    pub fn cut_off(&self) -> Result<(), LabError> {
        process::kill_below(&self.dir);
        let pods = Pods::file(&self.dir);
        match fs::remove_file(&pods) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::file("removing", &pods)(error));
            }
            _ => {}
        }
        let root = self.root();
        let run = root.join("run/quorate");
        if run.is_dir() {
            fs::remove_dir_all(&run).map_err(LabError::file("removing", &run))?;
        }
        let mounted = root.join("var/lib/etcd");
        if mounted.is_symlink() {
            fs::remove_file(&mounted).map_err(LabError::file("removing", &mounted))?;
            fs::create_dir(&mounted).map_err(LabError::file("making", &mounted))?;
        }
        Ok(())
    }

    /// The machine is asked to shut down: everything that runs here is asked to end.
    pub fn shut_down(&self) {
        self.set(Order::Off);
        process::terminate_below(&self.dir);
    }

    fn set(&self, order: Order) {
        self.order.send_if_modified(|now| {
            let changes = *now != order && *now != Order::Off;
            if changes {
                *now = order;
            }
            changes
        });
    }

    /// The agent's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.diary().pid
    }

    /// How often the agent was started again.
    pub fn restarts(&self) -> u32 {
        self.diary().restarts
    }

    /// How the agent last ended.
    pub fn last_exit(&self) -> Option<String> {
        self.diary().last_exit.clone()
    }

    /// Has the agent abort at a point from its next life on; `None` lets it live.
    pub fn fail_at(&self, point: Option<FailPoint>) {
        self.diary().fail_point = point;
    }

    /// Runs the agent's program with a verb on this machine, to its end; its words are the answer.
    ///
    /// # Errors
    /// It can't be run, or does not succeed.
    pub async fn verb(&self, agent: &Path, arguments: &[&str]) -> Result<String, LabError> {
        let root = self.root();
        let output = Command::new(agent)
            .arg("--root")
            .arg(&root)
            .args(arguments)
            .env_clear()
            .envs(self.environment.variables())
            .current_dir(&root)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| LabError::Spawn { program: agent.to_owned(), source })?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(told);
        }
        let words = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
        Err(LabError::Verb { verb: arguments.join(" "), status: output.status.to_string(), words })
    }

    /// Kills the agent, which is started again as whenever it ends. etcd goes on.
    pub fn kill_agent(&self) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            process::kill_one(Pid::from_raw(pid));
        }
    }

    fn diary(&self) -> MutexGuard<'_, Diary> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.diary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What keeps one machine's agent running.
struct Keeper {
    machine: Machine,
    order: watch::Receiver<Order>,
    agent: PathBuf,
    restart: Duration,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            if until(&mut self.order, |order| order != Order::Hold).await != Some(Order::Run) {
                return;
            }
            match self.spawn() {
                Ok((child, point)) => self.attend(child, point).await,
                Err(error) => {
                    let error = super::error::chain(&error);
                    tracing::error!(node = self.machine.identity.name, error, "an agent does not start");
                    self.machine.diary().last_exit = Some(error);
                }
            }
            tokio::select! {
                () = sleep(self.restart) => self.machine.diary().restarts += 1,
                _ = until(&mut self.order, |order| order != Order::Run) => {}
            }
        }
    }

    fn spawn(&self) -> Result<(Child, Option<FailPoint>), LabError> {
        let log = self.machine.log();
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = (open(), open());
        let file = |file: std::io::Result<File>| file.map_err(LabError::file("opening", &log));
        let point = self.machine.diary().fail_point.clone();
        let environment = match &point {
            Some(point) => self.machine.environment.with("QUORATE_FAIL_AFTER", &point.step)?,
            None => self.machine.environment.clone(),
        };
        let root = self.machine.root();
        let child = Command::new(&self.agent)
            .arg("--root")
            .arg(&root)
            .arg("run")
            .env_clear()
            .envs(environment.variables())
            .current_dir(&root)
            .stdin(Stdio::null())
            .stdout(file(out)?)
            .stderr(file(err)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| LabError::Spawn { program: self.agent.clone(), source })?;
        self.machine.diary().pid = child.id();
        Ok((child, point))
    }

    /// Waits for the agent's end, or brings it about.
    async fn attend(&mut self, mut child: Child, point: Option<FailPoint>) {
        let ended = tokio::select! {
            ended = child.wait() => ended,
            _ = until(&mut self.order, |order| order == Order::Hold) => {
                if let Err(error) = child.start_kill() {
                    tracing::warn!(node = self.machine.identity.name, %error, "an agent can't be killed");
                }
                child.wait().await
            }
        };
        let mut diary = self.machine.diary();
        diary.pid = None;
        match ended {
            Ok(status) => {
                let was_last = point.is_some_and(|point| point.lives == Lives::One);
                if was_last && aborted(status) {
                    diary.fail_point = None;
                }
                diary.last_exit = Some(status.to_string());
            }
            Err(error) => diary.last_exit = Some(error.to_string()),
        }
    }
}

fn host_name(address: Ipv4Addr) -> String {
    format!("ip-{}", address.to_string().replace('.', "-"))
}

/// Waits for an order that fits; `None` when there will be no more.
async fn until(orders: &mut watch::Receiver<Order>, fits: impl Fn(Order) -> bool) -> Option<Order> {
    orders.wait_for(|order| fits(*order)).await.ok().map(|order| *order)
}

fn aborted(status: ExitStatus) -> bool {
    const SIGABRT: i32 = 6;
    status.signal() == Some(SIGABRT)
}
