//! `quorate-lab`: the command line.

mod drills;
mod misfortune;
mod show;

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use misfortune::{FaultVerb, fault_request, misfortune};
pub(super) use show::columns;
use show::{progress, table};

use super::LabError;
use super::bench;
use super::drill::{Drill, Options};
use super::kube_proxy::{self, KubeProxyFlags};
use super::kubelet::program::{self, KubeletFlags};
use super::package;
use super::settings::{Kubernetes, Settings};
use super::supervisor::{self, Place, Request};

/// The whole system on one computer: real etcd and the real agent in a simulated region.
#[derive(Debug, Parser)]
#[command(name = "quorate-lab", version)]
pub struct Cli {
    /// Where the laboratory lies [default: target/lab, or below XDG_RUNTIME_DIR]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// The agent's program [default: `quorate` beside this program]
    #[arg(long, global = true)]
    agent: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

/// What becomes of Kubernetes in a laboratory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ControlPlane {
    /// It runs where its programs are, and its files are made where they are not.
    Auto,
    /// etcd alone.
    Off,
}

/// The version that files are made for where there are no programs to run.
const RENDERED: &str = "1.36.2";

impl ControlPlane {
    /// What there is here; says what is not.
    fn here(self, out: &mut impl Write) -> io::Result<Kubernetes> {
        match (self, Kubernetes::here()) {
            (Self::Off, _) => Ok(Kubernetes::Off),
            (Self::Auto, Ok(kubernetes)) => Ok(kubernetes),
            (Self::Auto, Err(why)) => {
                writeln!(out, "Kubernetes is not run: {why}; its files are made all the same")?;
                Ok(Kubernetes::Rendered(RENDERED.to_owned()))
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts a laboratory in the background and shows how its nodes form a cluster
    Up {
        /// Zones of the region
        #[arg(long, default_value_t = 3)]
        zones: usize,
        /// Control-plane nodes
        #[arg(long, default_value_t = 3)]
        control_plane: usize,
        /// Workers
        #[arg(long, default_value_t = 0)]
        workers: usize,
        /// Slots for etcd members: 1, 3 or 5
        #[arg(long, default_value_t = 3)]
        size: usize,
        /// Lifecycle hooks on both groups
        #[arg(long)]
        hooks: bool,
        /// The workers are spot instances
        #[arg(long)]
        spot: bool,
        /// Volumes are deleted with the machines that they are attached to
        #[arg(long)]
        volumes_go: bool,
        /// Seeds the region
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A key of the agents' configuration, as `founding.patience=2s`
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Kubernetes' control plane: `auto` runs it where KUBEBUILDER_ASSETS has its programs
        #[arg(long, value_enum, default_value_t = ControlPlane::Auto)]
        kubernetes: ControlPlane,
        /// Seconds until it is given up
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Shows the nodes
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Runs a command as if on a node, with etcdctl set up
    Exec {
        /// Name, instance id or address
        node: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Takes a node's power; its group replaces it
    Kill {
        /// Name, instance id or address
        node: String,
    },
    /// Terminates a node in good order; its group replaces it
    Replace {
        /// Name, instance id or address
        node: String,
    },
    /// Has a node's group end it, with the group's hooks, and launch another
    ScaleIn {
        /// Name, instance id or address
        node: String,
        /// The group is to have one less
        #[arg(long)]
        decrement: bool,
    },
    /// Interrupts a spot instance: it is told, and ended when the time is over
    Interrupt {
        /// Name, instance id or address
        node: String,
        /// terminate, stop or hibernate
        #[arg(long, default_value = "terminate")]
        action: String,
        /// Seconds from the notice to the end
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Tells a spot instance that it is at an elevated risk of interruption
    Rebalance {
        /// Name, instance id or address
        node: String,
    },
    /// Tells a node of a scheduled event
    Maintain {
        /// Name, instance id or address
        node: String,
        /// instance-retirement, instance-stop, instance-reboot, system-reboot or system-maintenance
        #[arg(long, default_value = "instance-retirement")]
        code: String,
        /// Seconds until it begins
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Seconds from then until it is over at the latest
        #[arg(long, default_value_t = 60)]
        window: u64,
    },
    /// Replaces every node of a role, one after the other, as an instance refresh does
    Refresh {
        /// The workers, instead of the control plane
        #[arg(long)]
        workers: bool,
        /// Launches each new node before the old one is ended
        #[arg(long)]
        launch_first: bool,
        /// Seconds that each new node is in service before the next one's turn
        #[arg(long, default_value_t = 0)]
        warmup: u64,
    },
    /// Sets how many workers their group keeps, and waits until they are ready nodes
    Scale {
        /// How many
        workers: usize,
        /// Seconds until it is given up
        #[arg(long, default_value_t = 180)]
        timeout: u64,
    },
    /// Takes a zone's power
    StopZone {
        /// The zone, or its last letter
        zone: String,
    },
    /// Gives a zone its power back
    StartZone {
        /// The zone, or its last letter
        zone: String,
    },
    /// Makes calls go wrong
    Fault(FaultVerb),
    /// Lists the drills, with what each proves
    Drills,
    /// Runs a drill and reports
    Drill {
        /// Which
        name: Drill,
        /// Decides what the drill chooses
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Runs so many seeds, from the given one on
        #[arg(long)]
        seeds: Option<u64>,
        /// So many at a time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// With `form` and `form-missing`: every fifth answer is lost, every fifth read stale
        #[arg(long)]
        weather: bool,
        /// With `throttled-day`: in a shorter form
        #[arg(long)]
        short: bool,
        /// On the laboratory that is up, instead of one of its own
        #[arg(long)]
        running: bool,
        /// Leaves the directory of a drill that failed
        #[arg(long)]
        keep: bool,
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measures forming against bare etcd, the control plane against its programs started by hand, a
    /// node's files against kubeadm's, a worker's against nodeadm's, and the idle agent
    Bench {
        /// How often the cluster is formed
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// How often a control plane is formed, where Kubernetes' programs are
        #[arg(long, default_value_t = 5)]
        control_plane_runs: usize,
        /// How often a node's files are made, where Kubernetes' programs are
        #[arg(long, default_value_t = 10)]
        files_runs: usize,
        /// How often a worker is booted
        #[arg(long, default_value_t = 10)]
        worker_runs: usize,
        /// nodeadm's program, to measure a worker beside it
        #[arg(long, value_name = "PATH")]
        nodeadm: Option<PathBuf>,
        /// How many simulated workers boot at once; 0 for none
        #[arg(long, default_value_t = 1000)]
        workers: usize,
        /// How long the idle agent is watched, in seconds
        #[arg(long, default_value_t = 60)]
        idle: u64,
        /// Where the figures are written as JSON
        #[arg(long, default_value = "target/bench.json")]
        json: PathBuf,
    },
    /// Writes what a package holds beside the agent: man pages, completions, licences, the page of commands
    PackageFiles {
        /// The directory to write below
        out: PathBuf,
    },
    /// Stops the laboratory and everything that it started
    Down,
    /// Stands in for the kubelet on a machine
    #[command(hide = true)]
    Kubelet(KubeletFlags),
    /// Stands in for kube-proxy on a machine
    #[command(hide = true)]
    KubeProxy(KubeProxyFlags),
    /// Keeps a laboratory up, in the foreground (`up` starts this)
    #[command(hide = true)]
    Serve {
        /// Its settings
        plan: PathBuf,
    },
}

/// What ended a verb.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The laboratory.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Standard output.
    #[error("writing the answer")]
    Output(#[from] io::Error),
    /// What the supervisor answered.
    #[error("understanding the supervisor")]
    Answer(#[from] serde_json::Error),
}

/// Runs a verb. Answers the exit code: 0, or 1 when a drill failed, or that of `exec`'s command.
pub async fn run(cli: Cli, out: &mut (impl Write + Send)) -> Result<u8, CliError> {
    let agent = match &cli.agent {
        Some(agent) => agent.clone(),
        None => beside("quorate")?,
    };
    let dir = cli.dir.clone().map_or_else(default_dir, |dir| std::path::absolute(&dir).unwrap_or(dir));
    let tell = async |request: Request| supervisor::ask(&dir, &request).await;
    match cli.verb {
        Verb::Up {
            zones,
            control_plane,
            workers,
            size,
            hooks,
            spot,
            volumes_go,
            seed,
            set,
            kubernetes,
            timeout,
        } => {
            let settings = Settings {
                zones,
                control_plane,
                workers,
                size,
                hooks,
                spot_workers: spot,
                volumes_go_with_machines: volumes_go,
                seed,
                configuration: assignments(&set)?,
                kubernetes: kubernetes.here(out)?,
                ..Settings::new(&dir, &agent)?
            };
            settings.check()?;
            supervisor::launch(&settings).await?;
            return progress(&settings.dir, Duration::from_secs(timeout), out).await;
        }
        Verb::Status { json } => {
            let answer = tell(Request::Status).await?;
            if json {
                writeln!(out, "{answer:#}")?;
            } else {
                table(&serde_json::from_value(answer)?, out)?;
            }
        }
        Verb::Exec { node, command } => {
            let place: Place = serde_json::from_value(tell(Request::Place { node }).await?)?;
            return Ok(exec(&place, &command)?);
        }
        Verb::Scale { workers, timeout } => {
            drop(tell(Request::Scale { workers }).await?);
            return progress(&dir, Duration::from_secs(timeout), out).await;
        }
        verb @ (Verb::Kill { .. }
        | Verb::Replace { .. }
        | Verb::ScaleIn { .. }
        | Verb::Interrupt { .. }
        | Verb::Rebalance { .. }
        | Verb::Maintain { .. }
        | Verb::Refresh { .. }
        | Verb::StopZone { .. }
        | Verb::StartZone { .. }) => {
            if let Some(request) = misfortune(verb)? {
                drop(tell(request).await?);
            }
        }
        Verb::Fault(fault) => drop(tell(fault_request(fault, &dir).await?).await?),
        Verb::Drills => {
            let row = |drill: Drill| vec![drill.name().to_owned(), drill.summary().to_owned()];
            columns(&["DRILL", "PROVES THAT"], &Drill::ALL.map(row), out)?;
        }
        Verb::Drill { name, seed, seeds, jobs, weather, short, running, keep, json } => {
            let options = Options { seed, weather, short, keep, agent };
            let on = running.then_some(dir.as_path());
            return drills::run(name, &options, seeds, jobs, on, json, out).await;
        }
        Verb::Bench { runs, control_plane_runs, files_runs, worker_runs, nodeadm, workers, idle, json } => {
            let runs = bench::Runs {
                etcd: runs,
                control_plane: control_plane_runs,
                files: files_runs,
                worker: worker_runs,
                workers,
                idle: Duration::from_secs(idle),
            };
            let figures = bench::run(&agent, runs, nodeadm.as_deref()).await?;
            bench::write(&figures, &json, out)?;
        }
        Verb::PackageFiles { out } => package::write(Path::new("."), &out)?,
        Verb::Down => {
            let stopped = supervisor::down(&dir).await?;
            writeln!(out, "{}", if stopped { "stopped" } else { "nothing was up" })?;
        }
        Verb::Kubelet(flags) => program::run(&flags, out).await?,
        Verb::KubeProxy(flags) => kube_proxy::run(&flags, out).await?,
        Verb::Serve { plan } => supervisor::serve(&plan).await?,
    }
    Ok(0)
}

fn beside(name: &str) -> Result<PathBuf, LabError> {
    std::env::current_exe()
        .map(|me| me.with_file_name(name))
        .map_err(|source| LabError::Spawn { program: name.into(), source })
}

fn default_dir() -> PathBuf {
    let here = Path::new("target");
    let dir = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if here.is_dir() => here.join("lab"),
        Some(dir) => PathBuf::from(dir).join("quorate-lab"),
        None => std::env::temp_dir().join(format!("quorate-lab-{}", nix::unistd::getuid())),
    };
    std::path::absolute(&dir).unwrap_or(dir)
}

fn assignments(set: &[String]) -> Result<Map<String, Value>, LabError> {
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| LabError::Settings(format!("{text:?} is not KEY=VALUE")))?;
        // Numbers and lists are what they look like; everything else is text.
        Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
    };
    set.iter().map(pair).collect()
}

fn exec(place: &Place, command: &[String]) -> Result<u8, LabError> {
    let Some((program, args)) = command.split_first() else { return Ok(0) };
    let variable = |name: &str| place.environment.get(name).cloned().unwrap_or_default();
    let programs: Vec<String> = place.programs.iter().map(|dir| dir.display().to_string()).collect();
    let path = format!("{}:{}", variable("PATH"), programs.join(":"));
    let pki = |name: &str| place.pki.join(name);
    let status = Command::new("env")
        .arg(program)
        .args(args)
        .env_clear()
        .envs(&place.environment)
        .env("PATH", path)
        .env("TERM", std::env::var_os("TERM").unwrap_or_default())
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", &place.client_url)
        .env("ETCDCTL_CACERT", pki("ca.crt"))
        .env("ETCDCTL_CERT", pki("client.crt"))
        .env("ETCDCTL_KEY", pki("client.key"))
        .env("API", place.api.map(|api| format!("https://{api}")).unwrap_or_default())
        .env("KUBECONFIG", place.root.join("etc/kubernetes/admin.conf"))
        .current_dir(&place.root)
        .status()
        .map_err(|source| LabError::Spawn { program: program.into(), source })?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_on_the_command_line_are_what_they_look_like() {
        let set = ["founding.patience=2s".to_owned(), "etcd.snapshotCount=100".to_owned()];
        let read = assignments(&set).unwrap();
        assert_eq!(read["founding.patience"], "2s");
        assert_eq!(read["etcd.snapshotCount"], 100);
        assert!(assignments(&["x".to_owned()]).is_err());
    }
}
