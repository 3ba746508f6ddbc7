//! The machine's own programs: run by name through `PATH`, with a bound on their time, and never
//! through a shell.
//!
//! They speak the C locale, read nothing, and their words are kept for the error.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::Root;

/// The most that an error repeats of a program's words, in characters.
const MOST_WORDS: usize = 600;
/// How much longer systemd may take to end what it runs than that may take itself.
const MARGIN: Duration = Duration::from_secs(10);

/// A program that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program.
    #[error("{program} is not installed, or not on the PATH")]
    Missing {
        /// The program.
        program: String,
    },
    /// It could not be run.
    #[error("running {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("{program} did not end within {} s", patience.as_secs())]
    TimedOut {
        /// The program and its arguments.
        program: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It ended, and not well.
    #[error("{program} ended with {status}: {words}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, shortened.
        words: String,
    },
}

impl CommandError {
    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Missing { .. } => false,
            Self::Run { .. } | Self::TimedOut { .. } | Self::Failed { .. } => true,
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The program and its arguments, for errors.
    pub program: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// The same, when it ended with status 0; else an error with its words.
    pub fn success(self) -> Result<Self, CommandError> {
        if self.status.success() { Ok(self) } else { Err(self.failure()) }
    }

    /// The end as an error.
    pub fn failure(self) -> CommandError {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let words = match said.trim() {
            "" => "it said nothing".to_owned(),
            said => said.replace('\n', "; ").chars().take(MOST_WORDS).collect(),
        };
        CommandError::Failed { program: self.program, status: self.status, words }
    }
}

/// Runs a program to its end, whatever end that is. It is killed after `patience`.
pub async fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
    patience: Duration,
) -> Result<Finished, CommandError> {
    let program = program.as_ref();
    let name = program.to_string_lossy().into_owned();
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let full = args.iter().fold(name.clone(), |line, arg| format!("{line} {}", arg.to_string_lossy()));
    tracing::debug!(command = %full, "running a program");
    let mut command = Command::new(program);
    command.args(&args).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(patience, command.output()).await {
        Ok(Ok(output)) => Ok(Finished {
            program: full,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(CommandError::Missing { program: name })
        }
        Ok(Err(source)) => Err(CommandError::Run { program: name, source }),
        Err(_) => Err(CommandError::TimedOut { program: full, patience }),
    }
}

/// Runs a program that changes the whole machine: what is mounted, and how large it is. The agent's unit has a view of
/// its own of the file system, from which mounts do not come back, and not the powers for it; so on a machine the
/// program is run by systemd, beside the agent's unit, and what it says and how it ended come back. Elsewhere it is run
/// as any other.
pub async fn run_for_machine<A: AsRef<OsStr>>(
    root: &Root,
    program: &str,
    args: impl IntoIterator<Item = A>,
    patience: Duration,
) -> Result<Finished, CommandError> {
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    if !root.is_machine() {
        return run(program, args, patience).await;
    }
    // What hangs is ended by systemd: systemd-run, which is killed here, would leave it running.
    let limit = format!("--property=RuntimeMaxSec={}", patience.as_secs());
    let by = ["--quiet", "--collect", "--wait", "--pipe", "--service-type=exec", &limit, "--", program];
    let args = by.iter().map(OsString::from).chain(args);
    run("systemd-run", args, patience + MARGIN).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = run("no-such-program-of-quorate", [""; 0], Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, CommandError::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains("no-such-program-of-quorate"));
    }

    #[tokio::test]
    async fn a_program_that_fails_is_quoted() {
        let finished = run("ls", ["/no/such/place"], Duration::from_secs(5)).await.unwrap();
        let error = finished.success().unwrap_err().to_string();
        assert!(error.contains("ls /no/such/place") && error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_given_up() {
        let error = run("sleep", ["600"], Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error:?}");
    }
}
