//! What the service manager is told: READY, STATUS, WATCHDOG. Without one nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// The agent is up: it looks at the world and acts.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub fn reloading() {
    tell(&[NotifyState::Reloading]);
}

/// The agent is on its way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// The agent is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say so: a third of the time after which the service manager takes the agent for
/// wedged; `None` when it does not watch.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
