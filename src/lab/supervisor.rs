//! The process that keeps a laboratory up in the background, and how it is commanded: one line of
//! JSON to its control port, one line back.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::cluster::{Tls, health, pki_of};
use super::drill::{self, Drill, first_write};
use super::error::chain;
use super::laboratory::{CONTROL_PLANE, Laboratory, WORKERS};
use super::machine::Machine;
use super::region::{FaultSpec, MaintenanceSpec, RefreshSpec, SpotAction, World};
use super::settings::{Kubernetes, Settings};
use super::status::Status;
use super::{LabError, process};

/// What the supervisor is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// The nodes and the region's weather, as a [`Snapshot`].
    Status,
    /// Nothing if there is full health, otherwise what is amiss.
    Health,
    /// A node's environment, as a [`Place`].
    Place {
        /// Name, instance id or address.
        node: String,
    },
    /// A node loses its power.
    Kill {
        /// Name, instance id or address.
        node: String,
    },
    /// A node is terminated; its group launches another.
    Replace {
        /// Name, instance id or address.
        node: String,
    },
    /// A node, which must be a spot instance, is interrupted.
    Interrupt {
        /// Name, instance id or address.
        node: String,
        /// What becomes of it.
        action: SpotAction,
        /// In how long, in milliseconds.
        in_ms: u64,
    },
    /// A node, which must be a spot instance, is told that it is at risk.
    Rebalance {
        /// Name, instance id or address.
        node: String,
    },
    /// A node is told of a scheduled event.
    Maintain {
        /// Name, instance id or address.
        node: String,
        /// The event.
        event: MaintenanceSpec,
    },
    /// A node's group ends it, with its hooks, and launches another, or not.
    ScaleIn {
        /// Name, instance id or address.
        node: String,
        /// Whether the group is to have one less.
        decrement: bool,
    },
    /// Every node of a role is replaced, one after the other.
    Refresh {
        /// Whether it is the workers.
        workers: bool,
        /// How.
        spec: RefreshSpec,
    },
    /// The workers' group is to have so many.
    Scale {
        /// How many.
        workers: usize,
    },
    /// A zone loses its power.
    StopZone {
        /// The zone, or its last letter.
        zone: String,
    },
    /// A zone has power again.
    StartZone {
        /// The zone, or its last letter.
        zone: String,
    },
    /// Calls go wrong.
    Fault(FaultSpec),
    /// No more calls go wrong.
    ClearFaults,
    /// A drill on this laboratory, answered with its report.
    Drill {
        /// The drill's name.
        name: String,
        /// The seed.
        seed: u64,
    },
    /// The end.
    Down,
}

/// A node, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its short name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its instance id.
    pub instance: String,
    /// Its address.
    pub address: String,
    /// Its role.
    pub role: String,
    /// The slot that it holds.
    pub slot: Option<u8>,
    /// Where it is on its way.
    pub phase: String,
    /// What it waits for, or why it halted.
    pub words: String,
    /// Its member's id.
    pub member: Option<String>,
    /// Whether its member leads.
    pub leads: bool,
    /// How often its agent was started again.
    pub restarts: u32,
    /// How its agent last ended.
    pub last_exit: Option<String>,
}

/// A laboratory at a moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The nodes that have power, by name.
    pub nodes: Vec<Row>,
    /// The zones without power.
    pub stopped_zones: Vec<String>,
    /// Faults that are injected, in words.
    pub faults: Vec<String>,
    /// From the last agent's start to the first write, in milliseconds, once there was one.
    pub form_ms: Option<u64>,
    /// What of Kubernetes there is: `off`, `rendered`, or `running`.
    pub kubernetes: String,
}

/// Where a node's programs run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Its root.
    pub root: PathBuf,
    /// Its environment.
    pub environment: std::collections::BTreeMap<String, String>,
    /// Where its etcd is.
    pub client_url: String,
    /// Its etcd certificates.
    pub pki: PathBuf,
    /// Programs of this laboratory.
    pub programs: Vec<PathBuf>,
    /// Where the load balancer takes connections to the API.
    pub api: Option<std::net::SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// What is left in the directory for those who look for the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Card {
    pid: i32,
    control: SocketAddr,
}

fn card_path(dir: &Path) -> PathBuf {
    dir.join("supervisor.json")
}

fn read_card(dir: &Path) -> Result<Option<Card>, LabError> {
    let path = card_path(dir);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| LabError::Json { what: path.display().to_string(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LabError::file("reading", &path)(error)),
    }
}

/// Asks the supervisor of a laboratory.
pub async fn ask(dir: &Path, request: &Request) -> Result<Value, LabError> {
    let card = read_card(dir)?.ok_or_else(|| LabError::NotUp(dir.to_owned()))?;
    let control = |what: &'static str| move |source: io::Error| LabError::Control { what, source };
    let mut stream = match TcpStream::connect(card.control).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(LabError::NotUp(dir.to_owned()));
        }
        Err(error) => return Err(control("connecting")(error)),
    };
    let json = |what: &str| {
        let what = what.to_owned();
        move |source| LabError::Json { what, source }
    };
    let mut line = serde_json::to_string(request).map_err(json("the request"))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await.map_err(control("asking"))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.map_err(control("reading the answer"))?;
    match serde_json::from_str(&answer).map_err(json("the supervisor's answer"))? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(text) => Err(LabError::Supervisor(text)),
    }
}

/// Starts a supervisor in the background and waits until it answers.
///
/// What an earlier laboratory left in the directory is removed; a directory with anything else in
/// it is not touched.
pub async fn launch(settings: &Settings) -> Result<(), LabError> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let dir = &settings.dir;
    if ask(dir, &Request::Status).await.is_ok() {
        return Err(LabError::AlreadyUp(dir.clone()));
    }
    clear(dir)?;
    let plan = dir.join("laboratory.json");
    let text = serde_json::to_vec_pretty(settings)
        .map_err(|source| LabError::Json { what: "the settings".to_owned(), source })?;
    fs::write(&plan, text).map_err(LabError::file("writing", &plan))?;
    let log = dir.join("supervisor.log");
    let open =
        || fs::File::options().create(true).append(true).open(&log).map_err(LabError::file("opening", &log));
    let program = std::env::current_exe()
        .map_err(|source| LabError::Spawn { program: "quorate-lab".into(), source })?;
    let mut child = Command::new(&program)
        .arg("serve")
        .arg(&plan)
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .process_group(0)
        .spawn()
        .map_err(|source| LabError::Spawn { program: program.clone(), source })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if ask(dir, &Request::Status).await.is_ok() {
            return Ok(());
        }
        let ended =
            child.try_wait().map_err(|source| LabError::Spawn { program: program.clone(), source })?;
        if ended.is_some() || Instant::now() >= deadline {
            let why = fs::read_to_string(&log).unwrap_or_default();
            let why = why.lines().last().unwrap_or("it said nothing").to_owned();
            let what = "the supervisor's start".to_owned();
            return Err(LabError::TimedOut { what, seconds: PATIENCE.as_secs(), why });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Removes what an earlier laboratory left.
fn clear(dir: &Path) -> Result<(), LabError> {
    const OURS: [&str; 7] =
        ["bin", "nodes", "volumes", "laboratory.json", "supervisor.json", "supervisor.log", "bare"];
    process::kill_below(&dir.join("nodes"));
    for entry in fs::read_dir(dir).map_err(LabError::file("reading", dir))? {
        let path = entry.map_err(LabError::file("reading", dir))?.path();
        if !path.file_name().is_some_and(|name| OURS.iter().any(|ours| name == *ours)) {
            let text = format!("{} is not a laboratory's: it holds {}", dir.display(), path.display());
            return Err(LabError::Settings(text));
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(LabError::file("removing", &path))?;
    }
    Ok(())
}

/// Stops a laboratory: by its supervisor, or by the marks of its processes if that is gone.
/// Whether there was anything to stop.
pub async fn down(dir: &Path) -> Result<bool, LabError> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let nodes = dir.join("nodes");
    let Some(card) = read_card(dir)? else { return Ok(process::kill_below(&nodes) > 0) };
    let was_up = is_supervisor(dir, &card);
    if let Err(error) = ask(dir, &Request::Down).await
        && was_up
    {
        tracing::warn!(error = chain(&error), "the supervisor does not answer; it is asked by a signal");
        process::terminate_one(Pid::from_raw(card.pid));
    }
    let deadline = Instant::now() + PATIENCE;
    while is_supervisor(dir, &card) {
        if Instant::now() >= deadline {
            let (what, why) = ("the supervisor's end".to_owned(), format!("process {} goes on", card.pid));
            return Err(LabError::TimedOut { what, seconds: PATIENCE.as_secs(), why });
        }
        sleep(Duration::from_millis(20)).await;
    }
    let left = process::kill_below(&nodes);
    let path = card_path(dir);
    fs::remove_file(&path).map_err(LabError::file("removing", &path))?;
    Ok(was_up || left > 0)
}

/// Whether the process of a card is still this laboratory's supervisor: ids are used again.
fn is_supervisor(dir: &Path, card: &Card) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", card.pid)).unwrap_or_default();
    let plan = dir.join("laboratory.json");
    command.split(|b| *b == 0).any(|arg| arg == plan.as_os_str().as_encoded_bytes())
}

/// The supervisor itself: keeps the laboratory of these settings up until it is told to end.
pub async fn serve(plan: &Path) -> Result<(), LabError> {
    let text = fs::read(plan).map_err(LabError::file("reading", plan))?;
    let settings: Settings = serde_json::from_slice(&text)
        .map_err(|source| LabError::Json { what: plan.display().to_string(), source })?;
    let control = |what: &'static str| move |source: io::Error| LabError::Control { what, source };
    let dir = settings.dir.clone();
    let began = Instant::now();
    let lab = Arc::new(Laboratory::start(settings).await?);
    let listener = lab.addresses().listener()?;
    listener.set_nonblocking(true).map_err(control("listening"))?;
    let listener = TcpListener::from_std(listener).map_err(control("listening"))?;
    let address = listener.local_addr().map_err(control("listening"))?;
    let card = Card { pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX), control: address };
    let text = serde_json::to_vec(&card)
        .map_err(|source| LabError::Json { what: "the supervisor's card".to_owned(), source })?;
    let (path, new) = (card_path(&dir), dir.join("supervisor.json.new"));
    fs::write(&new, text).map_err(LabError::file("writing", &new))?;
    fs::rename(&new, &path).map_err(LabError::file("writing", &path))?;
    let desk = Arc::new(Desk { formed: Mutex::default(), down: watch::Sender::new(false) });
    tokio::spawn(note_forming(Arc::downgrade(&lab), Arc::clone(&desk), began));
    let mut down = desk.down.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(attend(stream, Arc::clone(&lab), Arc::clone(&desk)));
                }
                Err(error) => tracing::warn!(%error, "a connection was not accepted"),
            },
            _ = down.wait_for(|down| *down) => break,
        }
    }
    // Connections that are still open hold the laboratory, too: its processes end here in any case.
    for machine in lab.all_machines() {
        machine.power_off();
    }
    Ok(())
}

struct Desk {
    formed: Mutex<Option<u64>>,
    down: watch::Sender<bool>,
}

async fn note_forming(lab: std::sync::Weak<Laboratory>, desk: Arc<Desk>, began: Instant) {
    let machines = lab.upgrade().map(|lab| lab.control_plane()).unwrap_or_default();
    let urls = machines.iter().map(Machine::client_url).collect();
    let tls = || machines.iter().find_map(|m| Tls::in_directory(&pki_of(&m.root())));
    let took = first_write(urls, tls).await.saturating_duration_since(began);
    *desk.formed.lock().unwrap_or_else(PoisonError::into_inner) = u64::try_from(took.as_millis()).ok();
}

async fn attend(stream: TcpStream, lab: Arc<Laboratory>, desk: Arc<Desk>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let answer = match stream.read_line(&mut line).await {
        Ok(_) => match serde_json::from_str(&line) {
            Ok(request) => match answer(request, &lab, &desk).await {
                Ok(value) => Answer::Ok(value),
                Err(error) => Answer::Error(chain(&error)),
            },
            Err(error) => Answer::Error(format!("not a request: {error}")),
        },
        Err(error) => Answer::Error(error.to_string()),
    };
    let mut text = json!(answer).to_string();
    text.push('\n');
    if let Err(error) = stream.get_mut().write_all(text.as_bytes()).await {
        tracing::debug!(%error, "an answer was not taken");
    }
}

async fn answer(request: Request, lab: &Arc<Laboratory>, desk: &Desk) -> Result<Value, LabError> {
    let done = |()| json!({});
    let zone = |zone: &str| {
        let names = lab.settings().zone_names();
        names.iter().find(|name| *name == zone || name.ends_with(zone)).cloned().unwrap_or(zone.to_owned())
    };
    match request {
        Request::Status => snapshot(lab, desk).map(|snapshot| json!(snapshot)),
        Request::Health => match health(lab).await {
            Ok(_) => Ok(Value::Null),
            Err(why) => Ok(json!(why)),
        },
        Request::Place { node } => place(lab, &node).map(|place| json!(place)),
        Request::Kill { node } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            lab.ask(format!("the death of {id}"), |w| w.kill_instance(&id)).map(done)
        }
        Request::Replace { node } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            lab.ask(format!("the end of {id}"), |w| w.terminate_instance(&id)).map(done)
        }
        Request::Interrupt { node, action, in_ms } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            lab.ask(format!("the interruption of {id}"), |w| w.interrupt_spot(&id, action, in_ms)).map(done)
        }
        Request::Rebalance { node } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            lab.ask(format!("the warning of {id}"), |w| w.recommend_rebalance(&id)).map(done)
        }
        Request::Maintain { node, event } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            let event = lab.ask(format!("an event for {id}"), |w| w.schedule_maintenance(&id, &event))?;
            Ok(json!({ "id": event }))
        }
        Request::ScaleIn { node, decrement } => {
            let id = lab.machine(&node)?.identity().instance.clone();
            lab.ask(format!("the end of {id}"), |w| w.terminate_in_group(&id, decrement)).map(|_| json!({}))
        }
        Request::Refresh { workers, spec } => {
            let group = if workers { WORKERS } else { CONTROL_PLANE };
            let id = lab.ask(format!("the refresh of {group}"), |w| w.start_refresh(group, spec))?;
            Ok(json!({ "id": id }))
        }
        Request::Scale { workers } => {
            lab.ask("workers", |w| w.set_desired_capacity(WORKERS, workers)).map(done)
        }
        Request::StopZone { zone: name } => {
            let name = zone(&name);
            lab.ask(format!("the power of {name}"), |w| w.stop_zone(&name)).map(done)
        }
        Request::StartZone { zone: name } => {
            let name = zone(&name);
            lab.ask(format!("the power of {name}"), |w| w.start_zone(&name)).map(done)
        }
        Request::Fault(spec) => Ok(json!({ "id": lab.region().change(|w| w.add_fault(spec)) })),
        Request::ClearFaults => {
            lab.region().change(World::clear_faults);
            Ok(json!({}))
        }
        Request::Drill { name, seed } => {
            let drill = Drill::ALL.into_iter().find(|d| d.name() == name && d.shakes_a_running_one());
            let drill =
                drill.ok_or_else(|| LabError::Settings(format!("{name} can't be run on this one")))?;
            Ok(json!(drill::run_on(lab, drill, seed).await))
        }
        Request::Down => {
            desk.down.send_replace(true);
            Ok(json!({}))
        }
    }
}

fn place(lab: &Laboratory, node: &str) -> Result<Place, LabError> {
    let machine = lab.machine(node)?;
    let beside = |program: &Path| program.parent().map(Path::to_owned);
    let settings = lab.settings();
    Ok(Place {
        root: machine.root(),
        environment: machine.environment().variables().clone(),
        client_url: machine.client_url(),
        pki: pki_of(&machine.root()),
        programs: [
            beside(&settings.etcd),
            beside(&settings.agent),
            match &settings.kubernetes {
                Kubernetes::Run(programs) => Some(programs.dir.clone()),
                Kubernetes::Rendered(_) | Kubernetes::Off => None,
            },
        ]
        .into_iter()
        .flatten()
        .collect(),
        api: lab.api(),
    })
}

fn snapshot(lab: &Laboratory, desk: &Desk) -> Result<Snapshot, LabError> {
    let mut nodes = Vec::new();
    for machine in lab.machines() {
        let status = Status::of(&machine.root())?.unwrap_or_default();
        let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let (member, leader) = (text(&status.member), text(&status.leader));
        let identity = machine.identity();
        nodes.push(Row {
            name: identity.name.clone(),
            zone: identity.zone.clone(),
            instance: identity.instance.clone(),
            address: identity.address.to_string(),
            role: identity.role.clone(),
            slot: status.slot,
            phase: status.phase.clone().unwrap_or_else(|| "starting".to_owned()),
            words: status.words.join("; "),
            leads: member.is_some() && member == leader,
            member,
            restarts: machine.restarts(),
            last_exit: machine.last_exit(),
        });
    }
    let (stopped_zones, faults) = lab.region().with(|world| {
        let stopped = world.zones().iter().filter(|z| z.stopped).map(|z| z.name.clone()).collect();
        let faults = world.faults().map(|(_, fault)| {
            let (service, kind) = (json!(fault.spec.service), json!(fault.spec.kind));
            format!("{service} {} at {}", kind["kind"], fault.spec.rate).replace('"', "")
        });
        (stopped, faults.collect())
    });
    let form_ms = *desk.formed.lock().unwrap_or_else(PoisonError::into_inner);
    let kubernetes = lab.settings().kubernetes.word().to_owned();
    Ok(Snapshot { nodes, stopped_zones, faults, form_ms, kubernetes })
}
