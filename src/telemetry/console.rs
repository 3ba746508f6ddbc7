//! The system console: the phase and the one reason for waiting, in a line.
//!
//! EC2 keeps what a machine writes there, and shows it to whoever can't log in (`aws ec2 get-console-output`). So it
//! says why a machine did not join. A line is written when there is news, and at most every few seconds; what was
//! passed over is made up for by the next. A console that takes nothing, or is not there, is none.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::status::Status;
use crate::aws::without_request_ids;
use crate::host::Root;

/// How often a line is written at most.
const EVERY: Duration = Duration::from_secs(10);
/// The longest line, in characters: EC2 keeps the last 64 KiB of all.
const LONGEST: usize = 300;

/// The system console.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    told: Option<String>,
    at: Option<Instant>,
}

impl Console {
    /// Of a machine.
    pub fn of(root: &Root) -> Self {
        Self { path: root.path("/dev/console"), told: None, at: None }
    }

    /// Says what there is to say, if it is news and the last line is not too near.
    pub fn tell(&mut self, status: &Status, now: Instant) {
        let line = line(status);
        let news = without_request_ids(&line);
        if self.told.as_ref() == Some(&news) || self.at.is_some_and(|at| now < at + EVERY) {
            return;
        }
        self.at = Some(now);
        match write(&self.path, &line) {
            Ok(()) => self.told = Some(news),
            // There is no console, or it is in others' hands: the journal has it all the same.
            Err(error) => tracing::debug!(%error, "the console takes nothing"),
        }
    }
}

/// The line: without what moves a terminal, and bounded.
pub fn line(status: &Status) -> String {
    let said: String =
        status.line().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    format!("quorate: {said}")
}

/// Nobody is waited for: a serial line may be slow, or stopped.
fn write(path: &PathBuf, line: &str) -> io::Result<()> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let mut console = OpenOptions::new().append(true).custom_flags(flags.bits()).open(path)?;
    console.write_all(format!("{line}\r\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Waiting, WaitingOn};

    fn waits(on: WaitingOn) -> Status {
        Status::starting(vec![Waiting { on, since: 0 }], None)
    }

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir(root.path("/dev")).unwrap();
        std::fs::write(root.path("/dev/console"), "").unwrap();
        (dir, root)
    }

    fn written(root: &Root) -> Vec<String> {
        let text = std::fs::read_to_string(root.path("/dev/console")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn news_are_told_once_and_what_comes_too_soon_is_made_up_for() {
        let (_dir, root) = machine();
        let mut console = Console::of(&root);
        let begin = Instant::now();
        for second in 0..30 {
            // The second reason comes a second after the first, and stays.
            let on = if second == 0 { WaitingOn::Clock } else { WaitingOn::FreeSlot };
            console.tell(&waits(on), begin + Duration::from_secs(second));
        }
        assert_eq!(
            written(&root),
            [
                "quorate: identifying: waits for the clock to be synchronised",
                "quorate: identifying: waits for a free volume in this zone; standing by",
            ]
        );
    }

    #[tokio::test]
    async fn a_line_is_one_line_and_bounded() {
        let why = format!("refused\u{1b}[2J\n{}", "x".repeat(1_000));
        let told = line(&waits(WaitingOn::EtcdRestart { how: why }));
        assert!(told.chars().count() <= LONGEST + 10 && !told.chars().any(char::is_control), "{told}");
    }

    #[tokio::test]
    async fn a_machine_without_a_console_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        Console::of(&root).tell(&waits(WaitingOn::Clock), Instant::now());
        assert!(!root.path("/dev/console").exists(), "none is made");
    }
}
