//! `quorate leave`: asks this machine to leave the cluster in good order, or takes that back.
//!
//! What is asked for is one small file that holds the instance's id, so that an image made of this machine does not
//! leave. The agent sees it at its next look and does the rest; this shows how far it is. Whoever ends this early ends
//! nothing but the showing.

use std::io::Write;
use std::time::Duration;

use tokio::time::sleep;

use crate::host::files::{create_dir, read_optional, remove_durably, write_durably};
use crate::host::{Root, clock};
use crate::model::{InstanceId, Phase};
use crate::reach::asked_to_leave;
use crate::telemetry::status::{self, Status, StatusError};

use super::CliError;

/// What is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Wanted {
    /// Take it back: the machine comes back into the cluster, also when it has left already.
    #[arg(long)]
    pub cancel: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    pub no_wait: bool,
}

/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Older than this, in milliseconds, the status is not the agent's last word: it does not run, or is stuck.
const OLD: i64 = 60_000;

/// Asks, and shows how far it is.
pub async fn run(
    root: &Root,
    instance: &InstanceId,
    wanted: Wanted,
    output: &mut dyn Write,
) -> Result<(), CliError> {
    let path = asked_to_leave(root);
    if wanted.cancel {
        if read_optional(&path)?.is_some() {
            remove_durably(&path)?;
        }
    } else {
        if let Some(parent) = path.parent() {
            create_dir(parent, 0o755)?;
        }
        write_durably(&path, format!("{instance}\n").as_bytes(), 0o644)?;
    }
    if wanted.no_wait {
        return Ok(());
    }
    let mut told = String::new();
    loop {
        let line = match status::read(root) {
            Ok(status) if is_done(&status, wanted) => {
                return tell(output, &format!("{}\n", status.line()));
            }
            Ok(status) if clock::now_ms().saturating_sub(status.at) > OLD => {
                "the agent has not looked for a minute: is quorate.service running?".to_owned()
            }
            Ok(status) => status.line(),
            Err(StatusError::None { .. }) => "the agent has not written its status yet".to_owned(),
            Err(error) => return Err(error.into()),
        };
        if line != told {
            tell(output, &format!("{line}\n"))?;
            told = line;
        }
        sleep(LOOK).await;
    }
}

fn is_done(status: &Status, wanted: Wanted) -> bool {
    match (wanted.cancel, status.phase) {
        (false, phase) => phase == Phase::Left,
        (true, phase) => matches!(phase, Phase::Running | Phase::Standby),
    }
}

fn tell(output: &mut dyn Write, line: &str) -> Result<(), CliError> {
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase) -> Status {
        Status { phase, ..Status::starting(Vec::new(), None) }
    }

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[tokio::test]
    async fn asking_leaves_the_instances_id_and_taking_it_back_leaves_nothing() {
        let (_dir, root) = root();
        let me: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        let mut output = Vec::new();
        let mut ask = async |cancel| {
            run(&root, &me, Wanted { cancel, no_wait: true }, &mut output).await.unwrap();
            std::fs::read_to_string(asked_to_leave(&root)).ok()
        };
        assert_eq!(ask(true).await, None, "nothing to take back is no error");
        assert_eq!(ask(false).await.as_deref(), Some("i-0123456789abcdef0\n"));
        assert_eq!(ask(true).await, None);
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_machine_has_left() {
        let (_dir, root) = root();
        let path = status::path(&root);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        status::write(&path, &status(Phase::Left)).unwrap();
        let me: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        let mut output = Vec::new();
        run(&root, &me, Wanted { cancel: false, no_wait: false }, &mut output).await.unwrap();
        assert!(String::from_utf8(output).unwrap().contains("left"));
    }

    #[test]
    fn only_what_was_asked_for_ends_the_waiting() {
        let leave = Wanted { cancel: false, no_wait: false };
        let cancel = Wanted { cancel: true, ..leave };
        for phase in [Phase::Running, Phase::Standby, Phase::Leaving, Phase::Halted, Phase::Identifying] {
            assert!(!is_done(&status(phase), leave), "{phase}");
        }
        for phase in [Phase::Left, Phase::Leaving, Phase::Returning, Phase::Halted] {
            assert!(!is_done(&status(phase), cancel), "{phase}");
        }
    }
}
