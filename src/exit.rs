//! Exit codes: the one table of them.
//!
//! `main` is the only caller; `docs/exit-codes.md` tells operators the same, and a test holds the
//! page to this table. A code that never happens does not stand here.

use crate::agent::setup::SetupError;
use crate::backup::BackupError;
use crate::cli::{CliError, etcd, kubeconfig, kubelet, render};
use crate::pki::PkiError;
use crate::telemetry::status::StatusError;

/// How a run of `quorate` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Well.
    Success,
    /// With something that is none of the others.
    Failed,
    /// With a command line that is wrong. (The parser of the command line ends the program itself.)
    CommandLine,
    /// With a configuration that is wrong.
    Configuration,
    /// Without what was asked for.
    NotThere,
    /// Without an answer from this machine's metadata service or from AWS.
    NoAnswer,
    /// Not, since it should not be done here or now.
    Refused,
    /// The doctor found what will keep the machine from its work.
    Unfit,
    /// The machine is on its way, or waits for something.
    Waiting,
    /// Something on the machine should be seen to.
    Degraded,
    /// Only a human can help the machine.
    Halted,
}

impl Exit {
    /// All of them, by code.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Failed,
        Self::CommandLine,
        Self::Configuration,
        Self::NotThere,
        Self::NoAnswer,
        Self::Refused,
        Self::Unfit,
        Self::Waiting,
        Self::Degraded,
        Self::Halted,
    ];

    /// The code.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::CommandLine => 2,
            Self::Configuration => 3,
            Self::NotThere => 4,
            Self::NoAnswer => 5,
            Self::Refused => 6,
            Self::Unfit => 7,
            Self::Waiting => 10,
            Self::Degraded => 11,
            Self::Halted => 12,
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Failed => "something failed that is none of the others; standard error says what",
            Self::CommandLine => "the command line is wrong",
            Self::Configuration => {
                "the configuration is wrong; every error is named with source, line and column"
            }
            Self::NotThere => {
                "what was asked for, or what it is made from, is not there: no status yet, no recorded \
                 observation, no control plane yet"
            }
            Self::NoAnswer => "the metadata service or AWS gave no usable answer; trying again may help",
            Self::Refused => {
                "it is not done here or now: on a worker, with a clock that is not synchronised, into a \
                 directory that is not empty"
            }
            Self::Unfit => "`quorate doctor`: a check failed; the page says which, and what to do",
            Self::Waiting => "`quorate status`: the machine is on its way, or waits for something",
            Self::Degraded => {
                "`quorate status`: the machine warns of something, a component or add-on is not ready, or the agent does \
                 not run and this is its last word"
            }
            Self::Halted => "`quorate status`: the machine has halted",
        }
    }

    /// How a run ends that failed with this error.
    pub fn of(error: &CliError) -> Self {
        match error {
            // Who reads no further has seen enough.
            CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Self::Success,
            CliError::Config(_) | CliError::Setup(SetupError::Config(_)) => Self::Configuration,
            CliError::Status(StatusError::None { .. })
            | CliError::NoRecord { .. }
            | CliError::Kubelet(kubelet::VerbError::Missing { .. }) => Self::NotThere,
            CliError::Setup(SetupError::Access(_) | SetupError::Metadata(_) | SetupError::Tags(_))
            | CliError::Metadata(_) => Self::NoAnswer,
            CliError::Kubeconfig(error) => Self::of_kubeconfig(error),
            CliError::Etcd(error) => Self::of_etcd(error),
            CliError::Render(error) => match error {
                render::VerbError::Missing { .. } => Self::NotThere,
                render::VerbError::NoControlPlane | render::VerbError::NotEmpty { .. } => Self::Refused,
                render::VerbError::Render(_) | render::VerbError::File(_) => Self::Failed,
            },
            CliError::Start(_)
            | CliError::Kubelet(kubelet::VerbError::Render(_) | kubelet::VerbError::File(_))
            | CliError::Access(_)
            | CliError::Status(StatusError::File(_) | StatusError::Damaged { .. } | StatusError::Json(_))
            | CliError::Bundle(_)
            | CliError::File(_)
            | CliError::Record { .. }
            | CliError::Json(_)
            | CliError::Output(_) => Self::Failed,
        }
    }

    fn of_etcd(error: &etcd::VerbError) -> Self {
        use etcd::VerbError as Error;
        match error {
            Error::At { .. } => Self::CommandLine,
            Error::NoCharter { .. }
            | Error::Backup(BackupError::Missing { .. } | BackupError::NoneWhole { .. }) => Self::NotThere,
            Error::Backup(BackupError::Store(_)) | Error::Etcd(_) | Error::NoBackup => Self::NoAnswer,
            Error::Refused(_) | Error::Raced | Error::NoSlot { .. } | Error::NoConsent => Self::Refused,
            Error::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Self::Success,
            Error::Backup(_) | Error::Damaged { .. } | Error::Output(_) | Error::Json(_) => Self::Failed,
        }
    }

    fn of_kubeconfig(error: &kubeconfig::VerbError) -> Self {
        use kubeconfig::VerbError as Error;
        match error {
            Error::Pki(PkiError::Name { .. }) | Error::NoCaller { .. } => Self::CommandLine,
            Error::NoEndpoint | Error::NoAuthorities { .. } => Self::NotThere,
            Error::Object(_) => Self::NoAnswer,
            Error::Role { .. }
            | Error::NoControlPlane
            | Error::ClockNotSynchronised
            | Error::OtherAuthority { .. } => Self::Refused,
            Error::Caller { .. }
            | Error::Clock(_)
            | Error::File(_)
            | Error::Endpoint { .. }
            | Error::Pki(_)
            | Error::Kubeconfig(_) => Self::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_code_means_two_things() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12]);
    }

    #[test]
    fn a_wrong_command_line_ends_with_the_code_in_the_table() {
        let error = Cli::try_parse_from(["quorate", "no-such-verb"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Exit::CommandLine.code()));
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_broken() {
        let none = StatusError::None { path: "/run/quorate/status.json".into() };
        assert_eq!(Exit::of(&CliError::Status(none)), Exit::NotThere);
        let source = serde_json::from_str::<u8>("x").unwrap_err();
        let damaged = StatusError::Damaged { path: "/run/quorate/status.json".into(), source };
        assert_eq!(Exit::of(&CliError::Status(damaged)), Exit::Failed);
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure_and_a_full_disk_is() {
        let output = |kind: std::io::ErrorKind| Exit::of(&CliError::Output(kind.into()));
        assert_eq!(output(std::io::ErrorKind::BrokenPipe), Exit::Success);
        assert_eq!(output(std::io::ErrorKind::StorageFull), Exit::Failed);
    }
}
