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

/// The agent is on its way out. The status would else go on to say what the agent last did.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopped; etcd is left as it is")]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    // A second line would be a message of its own.
    tell(&[NotifyState::Status(&line.replace('\n', " "))]);
}

/// How often to say that the agent is alive: a third of the time after which the service manager takes the agent for
/// wedged; `None` when it does not watch.
fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

/// Waits for something, and tells the service manager meanwhile that the agent is alive.
pub async fn alive<T>(what: impl Future<Output = T>) -> T {
    let Some(every) = alive_every() else { return what.await };
    let mut what = std::pin::pin!(what);
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            result = &mut what => return result,
            _ = ticks.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
