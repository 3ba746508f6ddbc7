//! One life of a container: a process that this kubelet started, or one that it found.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::state::Running;
use crate::lab::process::start_time;

/// How often a process that is nobody's child here is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(super) enum Life {
    /// Started here.
    Own(Child),
    /// Started by the kubelet before.
    Found(Running),
}

impl Life {
    /// A container that still runs.
    pub fn find(running: &Running) -> Option<Self> {
        (start_time(Pid::from_raw(running.pid)) == Some(running.start_time))
            .then(|| Self::Found(running.clone()))
    }

    /// Waits for its end, and says how it ended.
    pub async fn wait(&mut self) -> String {
        match self {
            Self::Own(child) => {
                child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            Self::Found(running) => {
                while start_time(Pid::from_raw(running.pid)) == Some(running.start_time) {
                    sleep(LOOK).await;
                }
                "ended, and was another's child".to_owned()
            }
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Own(child) => child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw),
            Self::Found(running) => Some(Pid::from_raw(running.pid)),
        }
    }

    /// SIGTERM, and SIGKILL after the grace.
    pub async fn end(&mut self, grace: Duration) {
        self.send(Signal::SIGTERM);
        if timeout(grace, self.wait()).await.is_err() {
            tracing::warn!(pid = ?self.pid(), grace_s = grace.as_secs(), "a container did not end in time");
            self.send(Signal::SIGKILL);
            self.wait().await;
        }
    }

    fn send(&self, signal: Signal) {
        // One that has ended is sent nothing: its id may be another's.
        let Some(pid) = self.pid() else { return };
        if let Self::Found(running) = self
            && start_time(pid) != Some(running.start_time)
        {
            return;
        }
        if let Err(error) = kill(pid, signal) {
            tracing::warn!(%pid, %signal, %error, "a container can't be signalled");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_id_and_start_and_ended_by_whoever_finds_it() {
        let said = Command::new("sh").args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"]).output().unwrap();
        let pid = String::from_utf8(said.stdout).unwrap().trim().parse().unwrap();
        let start_time = start_time(Pid::from_raw(pid)).unwrap();
        let running = Running { pid, start_time, content: String::new() };
        let another = Running { start_time: start_time + 1, ..running.clone() };
        assert!(Life::find(&another).is_none());
        Life::find(&running).unwrap().end(Duration::from_secs(10)).await;
        assert!(Life::find(&running).is_none());
    }
}
