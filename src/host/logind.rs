//! logind: for how long it lets programs hold a shutdown back, and that it reads its configuration again.
//!
//! The kubelet holds a shutdown back until its pods have ended, and logind goes on without it after
//! `InhibitDelayMaxSec`. logind reads its configuration when it starts and on SIGHUP. That it was told of a file is
//! kept below `/run`, which a boot empties, as it starts logind anew.
//!
//! What must not live here: how long is long enough.
//!
//! Source: org.freedesktop.login1(5), logind.conf(5); the kubelet's own `ReloadLogindConf`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use zbus_systemd::systemd1::ManagerProxy;
use zbus_systemd::zbus::proxy::{Builder, CacheProperties};
use zbus_systemd::zbus::{self, Connection, Proxy};

use super::Root;
use super::files::{self, FileError};
use crate::model::kubernetes::LogindObservation;

/// How long the bus may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long logind may take to read its configuration. When it says the same as before, this is what is waited.
const READ: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(25);
/// Its unit.
const UNIT: &str = "systemd-logind.service";
/// SIGHUP.
const HANGUP: i32 = 1;

/// logind gave no answer, or was not told.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// A question to it, or to systemd, failed.
    #[error("asking logind to {what}")]
    Bus {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<zbus::Error>,
    },
    /// It did not answer.
    #[error("logind was asked to {what} and did not answer within {} s", ANSWER.as_secs())]
    Silent {
        /// What was asked.
        what: &'static str,
    },
    /// The bus has closed the connection.
    #[error("the bus has closed the connection to logind")]
    Gone,
    /// What it was told of can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What it allows, and what it was told of; `None` below another root than the machine's, which has no logind.
pub async fn observe(root: &Root) -> Result<Option<LogindObservation>, LogindError> {
    if !root.is_machine() {
        return Ok(None);
    }
    let told = files::read_optional(&told(root))?;
    let told = told.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    Ok(Some(LogindObservation { longest_delay_ms: longest_delay().await?, told }))
}

/// Lets it read its configuration again, and keeps the digest of the file that this was for.
pub async fn reload(root: &Root, digest: &str) -> Result<(), LogindError> {
    let before = longest_delay().await?;
    ask("read its configuration again", async {
        let connection = Connection::system().await?;
        let manager = ManagerProxy::new(&connection).await?;
        manager.kill_unit(UNIT.to_owned(), "main".to_owned(), HANGUP).await
    })
    .await?;
    let deadline = Instant::now() + READ;
    while longest_delay().await? == before && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    let path = told(root);
    if let Some(parent) = path.parent() {
        files::create_dir(parent, 0o755)?;
    }
    Ok(files::write_durably(&path, format!("{digest}\n").as_bytes(), 0o644)?)
}

fn told(root: &Root) -> PathBuf {
    root.path("/run/quorate/logind")
}

/// In milliseconds.
async fn longest_delay() -> Result<u64, LogindError> {
    let micros: u64 = ask("tell how long a shutdown waits", async {
        let connection = Connection::system().await?;
        let manager: Proxy<'_> = Builder::new(&connection)
            .destination("org.freedesktop.login1")
            .path("/org/freedesktop/login1")
            .interface("org.freedesktop.login1.Manager")
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        manager.get_property("InhibitDelayMaxUSec").await
    })
    .await?;
    Ok(micros / 1000)
}

pub(super) async fn ask<T>(
    what: &'static str,
    exchange: impl Future<Output = zbus::Result<T>>,
) -> Result<T, LogindError> {
    match timeout(ANSWER, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(LogindError::Bus { what, source: Box::new(error) }),
        Err(_) => Err(LogindError::Silent { what }),
    }
}
