//! The etcd service of this machine: under systemd, or as a child where there is no systemd.
//!
//! Either way etcd does not depend on the agent: it goes on when the agent stops, crashes or is
//! replaced, and the next agent finds it again. It is stopped by SIGTERM alone, on which it hands
//! its leadership over by itself, and never by SIGKILL.

mod child;
mod systemd;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Root;
use super::command::{self, CommandError};
use super::files::FileError;
use crate::kubernetes::KubernetesVersion;
use crate::model::{EtcdVersion, ServiceState};

pub use child::Child;
pub use systemd::Systemd;

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
    #[error("etcd was started and is not running: {how}")]
    NotStarted {
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
    #[error("keeping the note of etcd's process")]
    Note(#[source] FileError),
    /// The note of which process it is can't be understood.
    #[error("{} is damaged", path.display())]
    NoteDamaged {
        /// The note.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The log was not opened.
    #[error("opening etcd's log {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time after SIGTERM; it is left alone.
    #[error("etcd did not end within {} s after SIGTERM", patience.as_secs())]
    StillRunning {
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
            Self::Note(error) => error.is_retryable(),
            Self::NoUnit { .. }
            | Self::ProgramMissing { .. }
            | Self::NoteDamaged { .. }
            | Self::Log { .. } => false,
        }
    }
}

/// The etcd service.
#[derive(Debug, Clone)]
pub enum Service {
    /// A unit of systemd's.
    Systemd(Systemd),
    /// A process that the agent starts.
    Child(Child),
}

impl Service {
    /// The service as this machine has it: systemd's where systemd runs below `root`.
    /// Source of the test: sd_booted(3).
    pub fn of(root: &Root) -> Self {
        if root.path("/run/systemd/system").is_dir() {
            Self::Systemd(Systemd)
        } else {
            Self::Child(Child::new(root))
        }
    }

    /// Whether etcd runs; when it ended by itself, how.
    pub async fn state(&self) -> Result<ServiceState, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.state().await,
            Self::Child(child) => child.state(),
        }
    }

    /// Starts etcd, unless it runs. Under systemd the unit says which program and arguments.
    /// That it has started does not say that it is well: it may end at once.
    pub async fn start(&self, program: &Path, args: &[OsString]) -> Result<(), ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.start().await,
            Self::Child(child) => child.start(program, args),
        }
    }

    /// Asks etcd to end, and waits until it has. One that does not is left as it is.
    pub async fn stop(&self, patience: Duration) -> Result<(), ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.stop(patience).await,
            Self::Child(child) => child.stop(patience).await,
        }
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
        assert!(matches!(Service::of(&root), Service::Child(_)));
        std::fs::create_dir_all(root.path("/run/systemd/system")).unwrap();
        assert!(matches!(Service::of(&root), Service::Systemd(_)));
    }
}
