//! The machine's shutdown: heard of from logind before it happens, and delayed while something has to be done first.
//!
//! The agent holds a `delay` lock on shutdowns. logind announces one (`PrepareForShutdown`) to whoever holds such a lock,
//! and waits until all of them are given back, at most for its `InhibitDelayMaxSec`. A lock is a file descriptor: it is
//! given back by being closed, by whatever ends the agent, too. So a shutdown is never stopped here, and never waits for
//! an agent that hangs: this gives its lock back [`HOLD_MS`] after the announcement whatever the agent is at.
//!
//! What must not live here: what is done before the lock is given back.
//!
//! Source: "Inhibitor Locks", systemd.io; org.freedesktop.login1(5).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use zbus_systemd::login1::ManagerProxy;
use zbus_systemd::zbus::connection::Builder;
use zbus_systemd::zbus::{self, Connection, OwnedFd};

use super::clock;
use super::logind::{LogindError, ask};
use crate::model::Fact;
use crate::model::departure::{HOLD_MS, Shutdown};
use crate::model::fact::chain;

/// How long after a failure logind is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Where logind is reached.
#[derive(Debug, Clone)]
pub enum Bus {
    /// The machine's bus.
    System,
    /// A bus at this D-Bus address.
    At(String),
}

impl Bus {
    async fn connect(&self) -> zbus::Result<Connection> {
        match self {
            Self::System => Connection::system().await,
            Self::At(address) => Builder::address(address.as_str()).build().await,
        }
    }
}

/// How a shutdown of the machine stands, and the lock that delays it.
#[derive(Debug, Clone)]
pub struct ShutdownLock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Fact<Option<Shutdown>>>,
    /// A shutdown was announced, or called off.
    turned: Notify,
    /// The lock is to be given back.
    released: Notify,
}

impl ShutdownLock {
    /// That of a machine that takes none and hears of nothing.
    pub fn none() -> Self {
        Self::with(Fact::Known(None))
    }

    /// Takes the lock and keeps it, as long as the runtime lives.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn begin(bus: Bus) -> Self {
        let lock = Self::with(Fact::unknown("logind was not asked yet"));
        let shared = Arc::clone(&lock.shared);
        tokio::spawn(async move { shared.keep(&bus).await });
        lock
    }

    fn with(seen: Fact<Option<Shutdown>>) -> Self {
        let (turned, released) = (Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { seen: Mutex::new(seen), turned, released }) }
    }

    /// The shutdown that was announced, if one was; unknown while logind is not heard.
    pub fn seen(&self) -> Fact<Option<Shutdown>> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a shutdown is announced, or called off.
    pub async fn turned(&self) {
        self.shared.turned.notified().await;
    }

    /// Gives the lock back: the shutdown that was announced goes on.
    pub fn release(&self) {
        self.shared.released.notify_one();
    }
}

impl Shared {
    fn set(&self, seen: Fact<Option<Shutdown>>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    async fn keep(&self, bus: &Bus) {
        let mut told = None;
        loop {
            let Err(error) = self.attend(bus, &mut told).await;
            let why = chain(&error);
            if told.as_ref() != Some(&why) {
                tracing::warn!(why, "a shutdown of this machine is not heard of before it happens");
                told = Some(why.clone());
            }
            self.set(Fact::Unknown(why));
            sleep(AGAIN).await;
        }
    }

    /// Holds the lock and listens, for as long as there is a connection. What was `told` of failures is over when there
    /// is one.
    async fn attend(&self, bus: &Bus, told: &mut Option<String>) -> Result<Infallible, LogindError> {
        let connection = ask("answer", bus.connect()).await?;
        let manager = ask("answer", ManagerProxy::new(&connection)).await?;
        // Before the lock is taken: no announcement is missed.
        let mut announced = ask("announce shutdowns", manager.receive_prepare_for_shutdown()).await?;
        let mut lock = Some(inhibit(&manager).await?);
        *told = None;
        self.set(Fact::Known(None));
        let mut ends: Option<Instant> = None;
        loop {
            let at = ends.unwrap_or_else(Instant::now);
            tokio::select! {
                // What was given back before an announcement is not meant for it.
                biased;
                () = self.released.notified() => self.give_back(ends, &mut lock),
                signal = announced.next() => {
                    let signal = signal.ok_or(LogindError::Gone)?;
                    if ask("announce shutdowns", async { Ok(signal.args()?.start) }).await? {
                        let shutdown = Shutdown { since: clock::now_ms(), held: lock.is_some() };
                        self.set(Fact::Known(Some(shutdown)));
                        ends = Some(Instant::now() + Duration::from_millis(HOLD_MS));
                        tracing::info!("this machine is about to shut down");
                    } else {
                        if lock.is_none() {
                            lock = Some(inhibit(&manager).await?);
                        }
                        self.set(Fact::Known(None));
                        ends = None;
                        tracing::info!("the shutdown of this machine was called off");
                    }
                    self.turned.notify_one();
                }
                () = sleep_until(at), if ends.is_some() && lock.is_some() => {
                    tracing::warn!("the shutdown of this machine is not held back any longer");
                    self.give_back(ends, &mut lock);
                }
            }
        }
    }

    /// Only while a shutdown waits for it: one that was called off meanwhile will want it again.
    fn give_back(&self, ends: Option<Instant>, lock: &mut Option<OwnedFd>) {
        if ends.is_none() {
            return;
        }
        drop(lock.take());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Fact::Known(Some(shutdown)) = &mut *seen {
            shutdown.held = false;
        }
    }
}

async fn inhibit(manager: &ManagerProxy<'_>) -> Result<OwnedFd, LogindError> {
    let words = ["shutdown", "quorate", "etcd's leadership goes to another machine first", "delay"];
    let [what, who, why, mode] = words.map(str::to_owned);
    ask("delay shutdowns", manager.inhibit(what, who, why, mode)).await
}
