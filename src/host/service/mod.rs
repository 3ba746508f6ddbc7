//! The services of this machine: under systemd, or as children where there is no systemd.
//!
//! Either way a service does not depend on the agent: it goes on when the agent stops, crashes or is
//! replaced, and the next agent finds it again. It is stopped by SIGTERM; etcd by nothing else, since it
//! hands its leadership over by itself.
//!
//! With which configuration the agent last started a service stands in a note, so that one whose
//! configuration has changed since can be told from one that runs with what is there.

mod child;
mod environment;
mod record;
mod systemd;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Root;
use super::command::{self, CommandError};
use super::files::{self, FileError};
use crate::kubernetes::KubernetesVersion;
use crate::model::{EtcdVersion, ServiceLaunch, ServiceName, ServiceObservation, ServiceState};

pub use child::{Child, MARK};
pub use environment::{BadArgument, environment_file};
pub use systemd::Systemd;

use record::{Record, Records};

/// How long `etcd --version` may take.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);

/// What could not be done to the service, or learnt of it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// systemd did not answer.
    #[error("asking systemd to {what} {unit}")]
    Systemd {
        /// What was asked.
        what: &'static str,
        /// Of which unit.
        unit: &'static str,
        /// Why there is no answer.
        source: Box<zbus_systemd::zbus::Error>,
    },
    /// systemd did not answer in time.
    #[error("systemd did not answer within {} s when asked to {what} {unit}", patience.as_secs())]
    SystemdSilent {
        /// What was asked.
        what: &'static str,
        /// Of which unit.
        unit: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// systemd has no such unit, or can't read it.
    #[error("systemd can't use the unit {unit}: {load_state}")]
    NoUnit {
        /// The unit.
        unit: &'static str,
        /// Its load state, as systemd has it: `not-found`, `masked`, `bad-setting` …
        load_state: String,
    },
    /// It was started and is not running.
    #[error("{service} was started and is not running: {how}")]
    NotStarted {
        /// The service.
        service: ServiceName,
        /// How it ended.
        how: String,
    },
    /// The program is not there.
    #[error("{} is not there", program.display())]
    ProgramMissing {
        /// The program.
        program: PathBuf,
    },
    /// The program could not be run.
    #[error("running {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process table was not read.
    #[error("reading {}", path.display())]
    Process {
        /// What was read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process was not signalled or waited for.
    #[error("{what} process {pid}")]
    Signal {
        /// What was tried.
        what: &'static str,
        /// The process.
        pid: i32,
        /// Why.
        source: nix::errno::Errno,
    },
    /// The note of which process it is was not read or written.
    #[error("keeping a note of {service}")]
    Note {
        /// The service.
        service: ServiceName,
        /// Why.
        source: FileError,
    },
    /// A note can't be understood.
    #[error("{} is damaged", path.display())]
    NoteDamaged {
        /// The note.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The log was not opened.
    #[error("opening {service}'s log {}", path.display())]
    Log {
        /// The service.
        service: ServiceName,
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of its unit's arguments was not written.
    #[error("writing the arguments of {service}")]
    Arguments {
        /// The service.
        service: ServiceName,
        /// Why.
        source: FileError,
    },
    /// An argument that can't be handed to it.
    #[error("an argument of {service} can't be handed to it")]
    Argument {
        /// The service.
        service: ServiceName,
        /// Why.
        source: BadArgument,
    },
    /// It did not end in time after it was asked to; it is left alone.
    #[error("{service} did not end within {} s", patience.as_secs())]
    StillRunning {
        /// The service.
        service: ServiceName,
        /// How long it was waited for.
        patience: Duration,
    },
}

impl ServiceError {
    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Systemd { .. }
            | Self::SystemdSilent { .. }
            | Self::NotStarted { .. }
            | Self::Spawn { .. }
            | Self::Process { .. }
            | Self::Signal { .. }
            | Self::StillRunning { .. } => true,
            Self::Note { source, .. } | Self::Arguments { source, .. } => source.is_retryable(),
            Self::NoUnit { .. }
            | Self::Argument { .. }
            | Self::ProgramMissing { .. }
            | Self::NoteDamaged { .. }
            | Self::Log { .. } => false,
        }
    }
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    which: ServiceName,
    manager: Manager,
    records: Records,
    /// Where its unit finds its arguments.
    environment: Option<PathBuf>,
}

/// What keeps it.
#[derive(Debug, Clone)]
enum Manager {
    /// A unit of systemd's.
    Systemd(Systemd),
    /// A process that the agent starts.
    Child(Child),
}

impl Service {
    /// The service as this machine has it: systemd's where systemd runs below `root`.
    /// Source of the test: sd_booted(3).
    pub fn of(root: &Root, which: ServiceName) -> Self {
        let is_booted = root.path("/run/systemd/system").is_dir();
        let manager = if is_booted {
            Manager::Systemd(Systemd(which))
        } else {
            Manager::Child(Child::new(root, which))
        };
        let environment = which.environment_file().filter(|_| is_booted).map(|path| root.path(path));
        Self { which, manager, records: Records::of(root), environment }
    }

    /// Which it is.
    pub fn name(&self) -> ServiceName {
        self.which
    }

    /// Whether it runs; when it ended by itself, how.
    pub async fn state(&self) -> Result<ServiceState, ServiceError> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.state().await,
            Manager::Child(child) => child.state(),
        }
    }

    /// Whether it runs, and with which configuration it was last started.
    pub async fn observe(&self) -> Result<ServiceObservation, ServiceError> {
        let record = self.records.read(self.which)?;
        let state = self.state().await?;
        let (started_with, since) = record.map(|record| (record.configuration, record.since)).unzip();
        Ok(ServiceObservation { state, started_with, since })
    }

    /// Starts it, unless it runs. Under systemd the unit says which program and arguments.
    /// That it has started does not say that it is well: it may end at once.
    pub async fn start(&self, program: &Path, args: &[OsString]) -> Result<(), ServiceError> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.start().await,
            Manager::Child(child) => child.start(program, args),
        }
    }

    /// Starts it with a configuration, unless it runs, and notes with which. One that runs was started with
    /// another, for all that is known, and its note stays. `now` is in milliseconds since 1970.
    pub async fn start_with(&self, launch: &ServiceLaunch, now: i64) -> Result<(), ServiceError> {
        if self.state().await? == ServiceState::Running {
            return Ok(());
        }
        self.hand_over(launch)?;
        let args: Vec<OsString> = launch.arguments.iter().map(OsString::from).collect();
        self.start(Path::new(&launch.program), &args).await?;
        self.note(launch, now)
    }

    /// Ends and starts it with a configuration, if it runs, and notes with which. One that does not run is not
    /// started; whether it was restarted is the answer. `now` is in milliseconds since 1970.
    ///
    /// The note comes last: a restart that was cut off is done once more, and never forgotten.
    pub async fn restart_with(
        &self,
        launch: &ServiceLaunch,
        patience: Duration,
        now: i64,
    ) -> Result<bool, ServiceError> {
        match &self.manager {
            Manager::Systemd(systemd) => {
                self.hand_over(launch)?;
                if !systemd.try_restart().await? {
                    return Ok(false);
                }
            }
            Manager::Child(child) => {
                if child.state()? != ServiceState::Running {
                    return Ok(false);
                }
                child.stop(patience).await?;
                let args: Vec<OsString> = launch.arguments.iter().map(OsString::from).collect();
                child.start(Path::new(&launch.program), &args)?;
            }
        }
        self.note(launch, now)?;
        Ok(true)
    }

    /// Asks it to end, and waits until it has. etcd that does not is left as it is; the others are killed.
    pub async fn stop(&self, patience: Duration) -> Result<(), ServiceError> {
        match &self.manager {
            Manager::Systemd(systemd) => systemd.stop(patience).await,
            Manager::Child(child) => child.stop(patience).await,
        }
    }

    /// Writes its arguments where its unit finds them.
    fn hand_over(&self, launch: &ServiceLaunch) -> Result<(), ServiceError> {
        let Some(path) = &self.environment else { return Ok(()) };
        let service = self.which;
        let text = environment_file(service.arguments_variable(), &launch.arguments)
            .map_err(|source| ServiceError::Argument { service, source })?;
        files::write_durably(path, text.as_bytes(), 0o644)
            .map_err(|source| ServiceError::Arguments { service, source })
    }

    fn note(&self, launch: &ServiceLaunch, now: i64) -> Result<(), ServiceError> {
        self.records.write(self.which, &Record { configuration: launch.configuration.clone(), since: now })
    }
}

/// Why the version of etcd's program is not known.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The program is missing, could not be run, did not end, or failed.
    #[error("asking a program for its version")]
    Run(#[source] CommandError),
    /// It ended well and named no version.
    #[error("{} named no version: {said:?}", program.display())]
    Unparsable {
        /// The program.
        program: PathBuf,
        /// What it said.
        said: String,
    },
}

impl VersionError {
    /// Whether there is no such program.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Run(CommandError::Missing { .. }))
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Run(error) => error.is_retryable(),
            Self::Unparsable { .. } => false,
        }
    }
}

/// The version of etcd's program.
pub async fn version(program: &Path) -> Result<EtcdVersion, VersionError> {
    told(program, parse_version).await
}

/// The version of a machine's kubelet.
pub async fn kubelet_version(program: &Path) -> Result<KubernetesVersion, VersionError> {
    told(program, |said| said.trim().strip_prefix("Kubernetes ")?.parse().ok()).await
}

/// What a program tells of its version.
async fn told<T>(program: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, VersionError> {
    let finished = command::run(program, [OsStr::new("--version")], VERSION_PATIENCE)
        .await
        .and_then(command::Finished::success)
        .map_err(VersionError::Run)?;
    parse(&finished.stdout).ok_or_else(|| VersionError::Unparsable {
        program: program.to_owned(),
        said: finished.stdout.chars().take(200).collect(),
    })
}

/// Of lines such as `etcd Version: 3.5.16`.
fn parse_version(said: &str) -> Option<EtcdVersion> {
    said.lines().find_map(|line| line.strip_prefix("etcd Version:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_etcd_says() {
        let said = "etcd Version: 3.5.16\nGit SHA: GitNotFound\nGo Version: go1.24.4\n";
        assert_eq!(parse_version(said), Some(EtcdVersion { major: 3, minor: 5, patch: 16 }));
        assert_eq!(parse_version("etcd Version: 3.6.0-rc.1\n").unwrap().minor, 6);
        assert_eq!(parse_version("command not understood"), None);
    }

    #[tokio::test]
    async fn a_missing_program_is_told_from_one_that_fails_or_talks_nonsense() {
        let missing = version(Path::new("/no/such/etcd")).await.unwrap_err();
        assert!(missing.is_missing(), "{missing:?}");
        let failing = version(Path::new("false")).await.unwrap_err();
        assert!(matches!(failing, VersionError::Run(CommandError::Failed { .. })), "{failing:?}");
        let nonsense = version(Path::new("true")).await.unwrap_err();
        assert!(matches!(nonsense, VersionError::Unparsable { .. }), "{nonsense:?}");
    }

    #[test]
    fn systemd_is_used_only_where_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let manager = || Service::of(&root, ServiceName::Kubelet).manager;
        assert!(matches!(manager(), Manager::Child(_)));
        std::fs::create_dir_all(root.path("/run/systemd/system")).unwrap();
        assert!(matches!(manager(), Manager::Systemd(_)));
    }

    fn launch(configuration: &str) -> ServiceLaunch {
        ServiceLaunch {
            program: "sleep".to_owned(),
            arguments: vec!["600".to_owned()],
            configuration: configuration.to_owned(),
        }
    }

    #[tokio::test]
    async fn what_a_service_runs_with_is_known_and_changes_only_when_it_is_started_anew() {
        const SOON: Duration = Duration::from_secs(10);
        let dir = tempfile::tempdir().unwrap();
        let agent = || Service::of(&Root::new(dir.path()), ServiceName::Kubelet);
        let seen = agent().observe().await.unwrap();
        let nothing = ServiceObservation { state: ServiceState::Stopped, started_with: None, since: None };
        assert_eq!(seen, nothing);
        // One that does not run is not restarted into running.
        assert!(!agent().restart_with(&launch("zero"), SOON, 0).await.unwrap());
        assert_eq!(agent().observe().await.unwrap(), nothing);

        agent().start_with(&launch("one"), 1).await.unwrap();
        let running = |with: &str, since| ServiceObservation {
            state: ServiceState::Running,
            started_with: Some(with.to_owned()),
            since: Some(since),
        };
        assert_eq!(agent().observe().await.unwrap(), running("one", 1));
        agent().start_with(&launch("two"), 2).await.unwrap();
        assert_eq!(agent().observe().await.unwrap(), running("one", 1), "it was not started");
        assert!(agent().restart_with(&launch("two"), SOON, 3).await.unwrap());
        assert_eq!(agent().observe().await.unwrap(), running("two", 3));
        agent().stop(SOON).await.unwrap();
        assert_eq!(agent().observe().await.unwrap().state, ServiceState::Stopped);
    }
}
