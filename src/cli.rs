//! The verbs.

pub mod bundle;
pub mod check;
pub mod doctor;
pub mod etcd;
pub mod kubeconfig;
pub mod kubelet;
pub mod leave;
pub mod render;
pub mod show;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::agent::setup::{Record, SetupError, learn, retry_after, sources};
use crate::agent::{Agent, Ended, Event, Machine};
use crate::aws::{Access, HttpError, MetadataError, without_request_ids};
use crate::config::settings::CloudWatchFigures;
use crate::config::verbs::{ConfigCommand, VerbError};
use crate::config::{ConfigErrors, InstanceTags};
use crate::exit::Exit;
use crate::host::files::{FileError, read_optional};
use crate::host::shutdown::{Bus, ShutdownLock};
use crate::host::{Root, clock};
use crate::model::fact::chain;
use crate::model::{Fact, Observation, Plan, Role, Waiting};
use crate::observe::{Depth, Memory, observe, observe_node};
use crate::plan::plan;
use crate::reach::Reach;
use crate::telemetry::checks::State;
use crate::telemetry::console::Console;
use crate::telemetry::figures;
use crate::telemetry::history;
use crate::telemetry::journal::LogLevel;
use crate::telemetry::messages;
use crate::telemetry::monitor::{self, Board};
use crate::telemetry::notify::{self, alive};
use crate::telemetry::status::{self, Status, StatusError};

/// quorate makes the machines of an Auto Scaling group one highly available Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// The directory that all paths are below.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the agent: observe, plan, execute, until SIGTERM. SIGHUP reads the configuration again.
    Run,
    /// Say what the agent does, what it waits for and since when. How it ends says how the machine does.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Again and again, until it is ended.
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Check one thing for a monitor that runs plugins, as Icinga does: one line, figures, and the plugins' exit codes.
    Check(check::Wanted),
    /// Say what the agent decided: each step with why, how long it took and how it ended, and each change of phase.
    History {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The newest only, this many.
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Check whether all that a cluster needs is there: clock, metadata service, permissions, bucket, volume, programs,
    /// kernel, ports, load balancer. Nothing is changed.
    Doctor(doctor::Wanted),
    /// Say what the agent would do now, and why. Nothing is changed.
    Plan {
        /// Plan from a recorded observation, offline; the agent keeps its last one in
        /// /run/quorate/observed.json.
        #[arg(long, value_name = "FILE", conflicts_with = "record")]
        observed: Option<PathBuf>,
        /// Record what is seen now.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a kubeconfig for a person, with a certificate that ends within a day; the journal keeps a
    /// line of it. Only on a control-plane node.
    Kubeconfig(kubeconfig::Wanted),
    /// Render what a control-plane node would get from a recorded observation, offline, and name what
    /// is left out because it is secret or made on the node.
    Render {
        /// The recorded observation, as `quorate plan --record` writes it.
        #[arg(long, value_name = "FILE")]
        observed: PathBuf,
        /// The directory to write below; it must be empty, or not be there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show the configuration of this machine's kubelet, each value with where it comes from: quorate, or
    /// one of your files in /etc/quorate/kubelet.d.
    Kubelet {
        /// From a recorded observation, offline.
        #[arg(long, value_name = "FILE")]
        observed: Option<PathBuf>,
    },
    /// Ask this machine to leave the cluster in good order: its pods move on, etcd goes on without it, and
    /// its volume is free for a successor. The machine itself stays.
    Leave(leave::Wanted),
    /// Look at etcd's members and backups, and go back to a backup.
    #[command(subcommand)]
    Etcd(etcd::EtcdCommand),
    /// Check and show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Why a verb failed. `main` maps each to an exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The runtime can't be started, or a signal can't be listened to.
    #[error("starting up")]
    Start(#[source] std::io::Error),
    /// The way to AWS can't be made.
    #[error("preparing the way to AWS")]
    Access(#[source] HttpError),
    /// This machine can't be learnt about.
    #[error(transparent)]
    Setup(SetupError),
    /// The metadata service gave no usable answer.
    #[error("asking the metadata service")]
    Metadata(#[source] MetadataError),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(ConfigErrors),
    /// There is no status.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// There is no kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::VerbError),
    /// Nothing was rendered.
    #[error(transparent)]
    Render(#[from] render::VerbError),
    /// The kubelet's configuration is not shown.
    #[error(transparent)]
    Kubelet(#[from] kubelet::VerbError),
    /// What was asked of etcd was not done.
    #[error(transparent)]
    Etcd(#[from] etcd::VerbError),
    /// The archive for a bug report was not written.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
    /// A recorded observation can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A recorded observation is not there.
    #[error("{} is not there", path.display())]
    NoRecord {
        /// The file.
        path: PathBuf,
    },
    /// A recorded observation can't be understood.
    #[error("{} is not an observation that this version recorded", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A result can't be written as JSON.
    #[error("writing JSON")]
    Json(#[source] serde_json::Error),
    /// The output can't be written.
    #[error("writing the output")]
    Output(#[source] std::io::Error),
}

/// How a run ended that did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As the table of exit codes has it.
    Exit(Exit),
    /// As monitors have it of their plugins.
    Plugin(State),
}

impl From<End> for std::process::ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Exit(exit) => exit.into(),
            End::Plugin(state) => state.code().into(),
        }
    }
}

/// Does what was asked.
pub fn run(cli: Cli, level: &LogLevel, output: &mut dyn Write) -> Result<End, CliError> {
    // Others, as the kernel, name files by their whole paths.
    let root = Root::new(std::path::absolute(&cli.root).unwrap_or(cli.root));
    // One thread: the agent waits nearly always, and memory is the machine's, not ours.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Start)?;
    let done = match cli.verb {
        Verb::Status { json, watch } => {
            runtime.block_on(show::run(&root, json, watch, output)).map(End::Exit)
        }
        Verb::Check(wanted) => check::run(&root, &wanted, output).map(End::Plugin),
        Verb::Doctor(wanted) => runtime.block_on(doctor::run(&root, &wanted, output)).map(End::Exit),
        other => verb(other, &runtime, &root, level, output).map(|()| End::Exit(Exit::Success)),
    };
    // Not waited for: a thread that reads a volume which hangs.
    runtime.shutdown_background();
    done
}

fn verb(
    verb: Verb,
    runtime: &Runtime,
    root: &Root,
    level: &LogLevel,
    output: &mut dyn Write,
) -> Result<(), CliError> {
    match verb {
        Verb::Run => runtime.block_on(run_agent(root, level)),
        // These end with codes of their own.
        Verb::Status { .. } | Verb::Check(_) | Verb::Doctor(_) => Ok(()),
        Verb::History { json, last } => {
            let told = history::read(root, last)?;
            if json { print_json(output, &told) } else { print(output, &told.page()) }
        }
        Verb::Plan { observed: Some(path), json, record: _ } => {
            let record = recorded(path)?;
            show_plan(output, &plan(&record.settings, &record.observation), json)
        }
        Verb::Plan { observed: None, record, json } => {
            let seen = runtime.block_on(look(root))?;
            if let Some(path) = record {
                status::write(&path, &seen)?;
            }
            show_plan(output, &plan(&seen.settings, &seen.observation), json)
        }
        Verb::Kubeconfig(wanted) => {
            let text = runtime.block_on(async {
                let reach = reach(root).await?;
                kubeconfig::make(&reach, &wanted).await.map_err(CliError::Kubeconfig)
            })?;
            print(output, text.expose())
        }
        Verb::Render { observed, out } => print(output, &render::run(&recorded(observed)?, &out)?),
        Verb::Kubelet { observed: Some(path) } => {
            let Record { settings, observation } = recorded(path)?;
            print(output, &kubelet::run(&settings, &observation.identity, &observation.kubernetes, None)?)
        }
        Verb::Kubelet { observed: None } => {
            let (reach, seen) = runtime.block_on(async {
                let reach = reach(root).await?;
                let seen = observe_node(&reach).await;
                Ok::<_, CliError>((reach, seen))
            })?;
            let identity = Fact::Known(reach.identity.clone());
            print(output, &kubelet::run(&reach.settings, &identity, &seen, Some(root))?)
        }
        Verb::Leave(wanted) => runtime.block_on(async {
            let access = Access::from_environment().await.map_err(CliError::Access)?;
            let identity = access.metadata().identity().await.map_err(CliError::Metadata)?;
            leave::run(root, &identity.instance, wanted, output).await
        }),
        Verb::Etcd(command) => runtime.block_on(async {
            let reach = reach(root).await?;
            let mut answers = std::io::BufReader::new(std::io::stdin());
            Ok(etcd::run(&reach, command, output, &mut answers).await?)
        }),
        Verb::Config(command) => runtime.block_on(config(root, &command, output)),
    }
}

/// The agent, until a signal ends it.
async fn run_agent(root: &Root, level: &LogLevel) -> Result<(), CliError> {
    let (sender, mut events) = mpsc::channel(8);
    for (kind, event) in [
        (SignalKind::terminate(), Event::Stop),
        (SignalKind::interrupt(), Event::Stop),
        (SignalKind::hangup(), Event::Reload),
    ] {
        let mut signals = signal(kind).map_err(CliError::Start)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), message_id = messages::STARTED, "quorate");
    let access = Access::from_environment().await.map_err(CliError::Access)?;
    let board = Arc::new(Board::default());
    let mut shutdown = None;
    loop {
        let ended = match set_up(root, &access, level, &mut events).await {
            Some(mut reach) => {
                if reach.settings.role == Role::ControlPlane && root.is_machine() {
                    let lock = shutdown.get_or_insert_with(|| hear_of_shutdowns(&sender));
                    reach = reach.with_shutdown(lock.clone());
                }
                let settings = reach.settings.clone();
                let _monitor = monitor::serve(settings.monitoring, reach.identity.address, &board);
                let _figures = (settings.role == Role::ControlPlane
                    && settings.monitoring.cloudwatch == CloudWatchFigures::On)
                    .then(|| figures::tell(&board, &settings.cluster, Arc::clone(&reach.aws.cloudwatch)));
                Agent::new(settings, Machine::new(reach), Arc::clone(&board)).run(&mut events).await
            }
            None => Ended::Stopped,
        };
        match ended {
            Ended::Stopped => {
                notify::stopping();
                tracing::info!(message_id = messages::STOPPED, "stopped; etcd is left as it is");
                return Ok(());
            }
            Ended::Reload => {
                notify::reloading();
                tracing::info!("reading the configuration again");
            }
        }
    }
}

/// Takes the lock on shutdowns, and wakes the agent when one is announced.
fn hear_of_shutdowns(sender: &mpsc::Sender<Event>) -> ShutdownLock {
    let lock = ShutdownLock::begin(Bus::System);
    let (heard, sender) = (lock.clone(), sender.clone());
    tokio::spawn(async move {
        loop {
            heard.turned().await;
            if sender.send(Event::LookAgain).await.is_err() {
                return;
            }
        }
    });
    lock
}

/// Learns who this machine is and what is wanted, however long it takes; `None` when the agent is
/// asked to stop meanwhile.
async fn set_up(
    root: &Root,
    access: &Access,
    level: &LogLevel,
    events: &mut mpsc::Receiver<Event>,
) -> Option<Reach> {
    let since = clock::now_ms();
    let mut failures = 0;
    let mut told = String::new();
    let mut console = Console::of(root);
    loop {
        // Asking changes nothing: an event does not wait for the answer.
        let learnt = tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(Event::Reload | Event::LookAgain) => continue,
                Some(Event::Stop) | None => return None,
            },
            learnt = alive(learn(root, access)) => learnt,
        };
        let error = match learnt {
            Ok(setup) => {
                let settings = setup.loaded.settings;
                level.set(settings.log.level.as_str());
                let me = &setup.identity;
                tracing::info!(
                    instance = %me.instance, zone = %me.zone, address = %me.address,
                    cluster = %settings.cluster, role = %settings.role, "this machine"
                );
                return Some(Reach::new(root.clone(), access, settings, setup.identity).await);
            }
            Err(error) => error,
        };
        let why = chain(&error);
        let status = match error.verdict() {
            Ok(on) => Status::starting(vec![Waiting { on, since }], None),
            Err(halt) => Status::starting(Vec::new(), Some(halt)),
        };
        if told != without_request_ids(&why) {
            told = without_request_ids(&why);
            match &status.halt {
                Some(_) => {
                    tracing::error!(
                        why,
                        message_id = messages::CONFIGURATION_WRONG,
                        "the configuration is wrong"
                    );
                }
                None => {
                    tracing::warn!(
                        why,
                        message_id = messages::MACHINE_UNKNOWN,
                        "this machine can't be learnt about yet"
                    );
                }
            }
        }
        // The service is up, and says what it waits for: a start that never ends helps nobody.
        notify::ready();
        notify::status(&status.line());
        console.tell(&status, Instant::now());
        if let Err(error) = status::write(&status::path(root), &status) {
            tracing::warn!(why = chain(&error), "the status can't be written");
        }
        let pause = alive(sleep(retry_after(failures)));
        failures = failures.saturating_add(1);
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(Event::Reload | Event::LookAgain) => {}
                Some(Event::Stop) | None => return None,
            },
            () = pause => {}
        }
    }
}

/// The ways to everything from this machine, learnt about once.
async fn reach(root: &Root) -> Result<Reach, CliError> {
    let access = Access::from_environment().await.map_err(CliError::Access)?;
    let setup = learn(root, &access).await.map_err(CliError::Setup)?;
    Ok(Reach::new(root.clone(), &access, setup.loaded.settings, setup.identity).await)
}

/// A recorded observation.
fn recorded(path: PathBuf) -> Result<Record, CliError> {
    let bytes = read_optional(&path)?.ok_or_else(|| CliError::NoRecord { path: path.clone() })?;
    serde_json::from_slice(&bytes).map_err(|source| CliError::Record { path, source })
}

/// One full look at this machine's world.
async fn look(root: &Root) -> Result<Record, CliError> {
    let reach = reach(root).await?;
    // What the agent has waited for decides too, so its status is taken along.
    let (waiting, noticed) = match status::read(root) {
        Ok(status) => (status.waiting, status.noticed),
        Err(StatusError::None { .. }) => Default::default(),
        Err(error) => {
            tracing::warn!(why = chain(&error), "since when things are waited for is not known");
            Default::default()
        }
    };
    let seen = observe(&reach, &mut Memory::default(), Depth::Full, waiting).await;
    let observation = Observation { noticed, ..seen };
    Ok(Record { settings: reach.settings, observation })
}

async fn config(root: &Root, command: &ConfigCommand, output: &mut dyn Write) -> Result<(), CliError> {
    let (user_data, tags) = if command.needs_instance() {
        let access = Access::from_environment().await.map_err(CliError::Access)?;
        let identity = access.metadata().identity().await.map_err(CliError::Metadata)?;
        let sources =
            sources(&access, &identity.region, &identity.instance).await.map_err(CliError::Setup)?;
        (sources.user_data, sources.tags)
    } else {
        (None, InstanceTags::default())
    };
    crate::config::verbs::run(command, root.as_path(), user_data.as_deref(), &tags, output).map_err(|error| {
        match error {
            VerbError::Config(errors) => CliError::Config(errors),
            VerbError::Write(error) => CliError::Output(error),
        }
    })
}

fn show_plan(output: &mut dyn Write, plan: &Plan, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(output, plan);
    }
    let mut text = format!("phase      {}\n", plan.report.phase);
    if let Some(slot) = plan.report.slot {
        text.push_str(&format!("slot       {slot}\n"));
    }
    for (number, step) in plan.steps.iter().enumerate() {
        let order = serde_json::to_string(step).map_err(CliError::Json)?;
        text.push_str(&format!("step {:<5} {order}\n", number + 1));
    }
    for on in &plan.report.waiting {
        text.push_str(&format!("waits for  {on}\n"));
    }
    if let Some(halt) = &plan.report.halt {
        text.push_str(&format!("halted     {halt}\n"));
    }
    for warning in &plan.report.warnings {
        text.push_str(&format!("warning    {warning}\n"));
    }
    print(output, &text)
}

fn print(output: &mut dyn Write, text: &str) -> Result<(), CliError> {
    output.write_all(text.as_bytes()).map_err(CliError::Output)
}

fn print_json(output: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::Json)?;
    print(output, &format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Halt, Phase, Report, Slot, Step, WaitingOn, Warning};

    fn shown(plan: &Plan, json: bool) -> String {
        let mut output = Vec::new();
        show_plan(&mut output, plan, json).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn plan_of(phase: Phase, steps: Vec<Step>, halt: Option<Halt>, waiting: Vec<WaitingOn>) -> Plan {
        let slot = Slot::try_from(1).ok();
        let warnings = vec![Warning::SharedZone { zones: 2, slots: 3 }];
        Plan { steps, report: Report { phase, slot, waiting, halt, warnings, noticed: None } }
    }

    fn steps() -> Plan {
        let volume: crate::model::VolumeId = "vol-0123456789abcdef0".parse().unwrap();
        let device = "/dev/nvme1n1".to_owned();
        let slot = Slot::try_from(1).unwrap();
        let steps = vec![
            Step::Format { volume: volume.clone(), device: device.clone(), slot },
            Step::Mount { volume, device },
        ];
        plan_of(Phase::Preparing, steps, None, vec![WaitingOn::Clock])
    }

    #[test]
    fn a_plan_is_shown_as_steps_and_reasons() {
        insta::assert_snapshot!(shown(&steps(), false), @r#"
        phase      preparing
        slot       1
        step 1     {"step":"format","volume":"vol-0123456789abcdef0","device":"/dev/nvme1n1","slot":1}
        step 2     {"step":"mount","volume":"vol-0123456789abcdef0","device":"/dev/nvme1n1"}
        waits for  the clock to be synchronised
        warning    3 slots in 2 zones: the loss of one zone can cost the quorum
        "#);
        let volume = "vol-0123456789abcdef0".parse().unwrap();
        let halted = plan_of(Phase::Halted, Vec::new(), Some(Halt::NoDevice { volume }), Vec::new());
        insta::assert_snapshot!(shown(&halted, false), @r#"
        phase      halted
        slot       1
        halted     volume vol-0123456789abcdef0 is attached, and the kernel shows no device with its serial number; check the instance type's limit on volumes, or stop and start the instance
        warning    3 slots in 2 zones: the loss of one zone can cost the quorum
        "#);
    }

    #[test]
    fn a_plan_as_json_reads_back() {
        assert_eq!(serde_json::from_str::<Plan>(&shown(&steps(), true)).unwrap(), steps());
    }
}
