//! containerd: asked for its version and its configuration, which is written only where there is none.
//!
//! What must not live here: what the file says ([`crate::kubernetes::containerd`]), and when it is written. Its service
//! is one of [`super::service`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Root;
use super::command::{self, CommandError};
use super::files::{self, FileError};
use super::service::Service;
use crate::kubernetes::containerd::{CONFIG, PROGRAM, has_systemd_cgroups};
use crate::model::containerd::{ContainerdConfiguration, ContainerdObservation, ContainerdVersion};
use crate::model::{Fact, ServiceName};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What could not be learnt of containerd, or done to it.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// It was not asked for its version, or failed to tell.
    #[error("asking containerd for its version")]
    Version(#[source] CommandError),
    /// It named no version.
    #[error("containerd named no version: {said:?}")]
    Unparsable {
        /// What it said.
        said: String,
    },
    /// It does not take the configuration that is there.
    #[error("asking containerd for its configuration")]
    Dump(#[source] CommandError),
    /// Its configuration was not looked for, or not written.
    #[error("keeping containerd's configuration")]
    File(#[from] FileError),
}

impl ContainerdError {
    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Version(error) | Self::Dump(error) => error.is_retryable(),
            Self::Unparsable { .. } => false,
            Self::File(error) => error.is_retryable(),
        }
    }
}

/// containerd on this machine.
#[derive(Debug, Clone)]
pub struct Containerd {
    program: PathBuf,
    config: PathBuf,
    service: Service,
}

impl Containerd {
    /// That of the machine with this root.
    pub fn of(root: &Root) -> Self {
        Self {
            program: PathBuf::from(PROGRAM),
            config: root.path(CONFIG),
            service: Service::of(root, ServiceName::Containerd),
        }
    }

    /// Everything that is looked at.
    pub async fn observe(&self) -> ContainerdObservation {
        let (version, service, configuration) =
            tokio::join!(self.version(), self.service.observe(), self.configuration());
        ContainerdObservation {
            version: version.into(),
            service: Fact::from(service),
            configuration: configuration.into(),
        }
    }

    /// Its version; `None` when it is not installed.
    pub async fn version(&self) -> Result<Option<ContainerdVersion>, ContainerdError> {
        let told = command::run(&self.program, ["--version"], PATIENCE).await;
        match told.and_then(command::Finished::success) {
            Ok(finished) => parse_version(&finished.stdout).map(Some).ok_or_else(|| {
                ContainerdError::Unparsable { said: finished.stdout.chars().take(200).collect() }
            }),
            Err(CommandError::Missing { .. }) => Ok(None),
            Err(error) => Err(ContainerdError::Version(error)),
        }
    }

    /// Its configuration as it reads it itself: with what the file includes, and its own defaults.
    pub async fn configuration(&self) -> Result<ContainerdConfiguration, ContainerdError> {
        if files::read_optional(&self.config)?.is_none() {
            return Ok(ContainerdConfiguration::Absent);
        }
        let words: [OsString; 4] =
            ["--config".into(), self.config.clone().into(), "config".into(), "dump".into()];
        let dump = command::run(&self.program, words, PATIENCE).await;
        let dump = dump.and_then(command::Finished::success).map_err(ContainerdError::Dump)?;
        Ok(ContainerdConfiguration::Present { systemd_cgroups: has_systemd_cgroups(&dump.stdout) })
    }

    /// Writes its configuration, unless it has one, whatever that says.
    pub fn configure(&self, text: &str) -> Result<(), ContainerdError> {
        if files::read_optional(&self.config)?.is_some() {
            return Ok(());
        }
        files::create_dir(self.config.parent().unwrap_or(Path::new("/")), 0o755)?;
        Ok(files::write_durably(&self.config, text.as_bytes(), 0o644)?)
    }
}

/// Of a line such as `containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4…`.
fn parse_version(said: &str) -> Option<ContainerdVersion> {
    said.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A machine on which containerd is this script.
    fn containerd(dir: &Path, script: &str) -> Containerd {
        let program = dir.join("containerd");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Containerd { program, ..Containerd::of(&Root::new(dir)) }
    }

    #[test]
    fn versions_are_read_from_what_containerd_says() {
        let version = |said: &str| parse_version(said).map(|version| version.to_string());
        let said = "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376\n";
        assert_eq!(version(said).as_deref(), Some("2.1.4"));
        assert_eq!(version("containerd containerd.io 1.7.27 05044ec").as_deref(), Some("1.7.27"));
        assert_eq!(
            version("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20").as_deref(),
            Some("1.6.20")
        );
        assert_eq!(version("containerd: not found"), None);
    }

    #[tokio::test]
    async fn one_that_is_not_installed_is_told_from_one_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let missing =
            Containerd { program: dir.path().join("nothing"), ..Containerd::of(&Root::new(dir.path())) };
        assert_eq!(missing.version().await.unwrap(), None);
        let failing = containerd(dir.path(), "exit 1");
        assert!(matches!(failing.version().await, Err(ContainerdError::Version(_))));
        let seen = failing.observe().await;
        assert!(!seen.version.is_known());
        assert_eq!(seen.configuration, Fact::Known(ContainerdConfiguration::Absent));
    }

    #[tokio::test]
    async fn its_configuration_is_what_it_reads_and_is_written_only_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        // Its dump is the file that it was told to read.
        let containerd = containerd(dir.path(), "[ \"$3 $4\" = 'config dump' ] && cat \"$2\"");
        assert_eq!(containerd.configuration().await.unwrap(), ContainerdConfiguration::Absent);
        let ours = crate::kubernetes::containerd::configuration(
            ContainerdVersion { major: 2, minor: 1, patch: 0 },
            &"registry.k8s.io".parse().unwrap(),
        );
        containerd.configure(&ours).unwrap();
        let present = |systemd_cgroups| ContainerdConfiguration::Present { systemd_cgroups };
        assert_eq!(containerd.configuration().await.unwrap(), present(true));
        std::fs::write(&containerd.config, "version = 3\n").unwrap();
        containerd.configure(&ours).unwrap();
        assert_eq!(std::fs::read_to_string(&containerd.config).unwrap(), "version = 3\n");
        assert_eq!(containerd.configuration().await.unwrap(), present(false));
    }
}
