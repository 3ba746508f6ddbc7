//! The clock: what time it is, and whether that can be believed.
//!
//! The only place that reads the system's clock. Everything else is told the time.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Root;
use super::command::{self, CommandError};

/// The marker that systemd-timesyncd touches at each synchronisation; chrony's units have none.
/// Source: systemd-timesyncd.service(8), "Files".
const MARKER: &str = "/run/systemd/timesync/synchronized";

/// How long `timedatectl` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nobody can say whether the clock is synchronised.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The marker's presence is unknown.
    #[error("looking for {}", path.display())]
    Marker {
        /// The marker.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's state was not told.
    #[error("asking for the kernel's clock state")]
    Ask(#[source] CommandError),
    /// The kernel's state was told in other words than yes and no.
    #[error("timedatectl said {said:?} of NTPSynchronized, neither yes nor no")]
    Unparsable {
        /// What was said.
        said: String,
    },
}

impl ClockError {
    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Marker { .. } | Self::Unparsable { .. } => false,
            Self::Ask(error) => error.is_retryable(),
        }
    }
}

/// Milliseconds since 1970, UTC. Negative before.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now_ms() -> i64 {
    let to_ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => to_ms(since),
        Err(before) => -to_ms(before.duration()),
    }
}

/// When this machine was booted last, in milliseconds since 1970. Time that it slept counts.
///
/// # Errors
/// The kernel has no such clock.
pub fn booted_ms() -> io::Result<i64> {
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let up = i64::try_from(Duration::from(up).as_millis()).unwrap_or(i64::MAX);
    Ok(now_ms().saturating_sub(up))
}

/// Whether the clock has been synchronised with a time source.
///
/// Yes when systemd-timesyncd left its marker since the machine started. Otherwise the kernel's
/// word decides (`STA_UNSYNC` of adjtimex(2)), which is what chrony, with `rtcsync` as all
/// distributions ship it, and ntpd maintain. `timedatectl` asks the kernel for it, since no safe
/// binding of that system call is at hand.
pub async fn synchronised(root: &Root) -> Result<bool, ClockError> {
    let marker = root.path(MARKER);
    match marker.try_exists() {
        Ok(true) => return Ok(true),
        Ok(false) => {}
        Err(source) => return Err(ClockError::Marker { path: marker, source }),
    }
    let finished = command::run("timedatectl", ["show", "--property=NTPSynchronized", "--value"], PATIENCE)
        .await
        .and_then(command::Finished::success)
        .map_err(ClockError::Ask)?;
    yes_or_no(&finished.stdout)
}

fn yes_or_no(said: &str) -> Result<bool, ClockError> {
    match said.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(ClockError::Unparsable { said: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_marker_of_timesyncd_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let marker = root.path(MARKER);
        std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
        std::fs::write(marker, "").unwrap();
        assert!(synchronised(&root).await.unwrap());
    }

    #[tokio::test]
    async fn a_marker_that_cannot_be_looked_for_is_not_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run"), "not a directory").unwrap();
        let error = synchronised(&Root::new(dir.path())).await.unwrap_err();
        assert!(matches!(error, ClockError::Marker { .. }), "{error:?}");
    }

    #[test]
    fn only_yes_and_no_are_answers() {
        assert!(yes_or_no("yes\n").unwrap());
        assert!(!yes_or_no("no\n").unwrap());
        for other in ["", "n/a", "yes no"] {
            assert!(yes_or_no(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_machine_was_booted_before_now_and_after_1970() {
        let booted = booted_ms().unwrap();
        assert!(booted > 0 && booted < now_ms(), "{booted}");
    }

    #[test]
    fn the_time_is_in_milliseconds() {
        let year_2020 = 1_577_836_800_000;
        let year_2200 = 7_258_118_400_000;
        assert!((year_2020..year_2200).contains(&now_ms()));
    }
}
