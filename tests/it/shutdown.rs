//! The lock that delays the machine's shutdown, over a real bus, with a stand-in for logind.

#![allow(clippy::unwrap_used, reason = "a check fails by panicking, in its helpers as well")]

use std::io::{PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use quorate::execute::execute;
use quorate::host::shutdown::{Bus, ShutdownLock};
use quorate::model::departure::HOLD_MS;
use quorate::model::{Fact, Phase, WaitingOn};
use quorate::observe::{Depth, Memory};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use zbus_systemd::zbus::connection::Builder;
use zbus_systemd::zbus::message::Type;
use zbus_systemd::zbus::{Connection, Fd, MessageStream};

use crate::weather::sky::{Sky, look_again};

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// A bus of the test's own.
struct Daemon {
    address: String,
    _process: Child,
}

impl Daemon {
    async fn start(dir: &Path) -> Option<Self> {
        let config = dir.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            dir.join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address"])
            .arg(format!("--config-file={}", config.display()))
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: there is no dbus-daemon");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        Some(Self { address, _process: process })
    }
}

/// What a lock was asked for with, and its other end.
type Given = ([String; 4], PipeReader);

/// logind, as far as locks and announcements go.
struct Logind {
    connection: Connection,
    /// The locks that it has given.
    locks: Arc<Mutex<Vec<Given>>>,
}

impl Logind {
    async fn start(daemon: &Daemon) -> Self {
        let connection = Builder::address(daemon.address.as_str()).build().await.unwrap();
        let locks = Arc::new(Mutex::new(Vec::new()));
        let (serves, given) = (connection.clone(), Arc::clone(&locks));
        let mut calls = MessageStream::from(&connection);
        tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                let header = call.header();
                if call.message_type() != Type::MethodCall {
                    continue;
                }
                if header.member().is_some_and(|member| *member == "Inhibit") {
                    let (what, who, why, mode) = call.body().deserialize().unwrap();
                    let (reader, writer) = std::io::pipe().unwrap();
                    given.lock().unwrap().push(([what, who, why, mode], reader));
                    serves.reply(&header, &Fd::from(OwnedFd::from(writer))).await.unwrap();
                } else {
                    serves.reply(&header, &()).await.unwrap();
                }
            }
        });
        connection.request_name(NAME).await.unwrap();
        Self { connection, locks }
    }

    async fn announce(&self, start: bool) {
        self.connection.emit_signal(None::<&str>, PATH, MANAGER, "PrepareForShutdown", &start).await.unwrap();
    }

    /// Waits for the next lock to be asked for.
    async fn lock(&self) -> Given {
        timeout(PATIENCE, async {
            loop {
                if let Some(lock) = self.locks.lock().unwrap().pop() {
                    return lock;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap()
    }
}

/// Waits until a lock is given back.
async fn is_given_back(mut lock: PipeReader) {
    let end = tokio::task::spawn_blocking(move || lock.read(&mut [0]).unwrap());
    assert_eq!(timeout(PATIENCE, end).await.unwrap().unwrap(), 0);
}

async fn until(
    lock: &ShutdownLock,
    what: impl Fn(&Fact<Option<quorate::model::departure::Shutdown>>) -> bool,
) {
    timeout(PATIENCE, async {
        while !what(&lock.seen()) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:?}", lock.seen()));
}

fn is_announced(seen: &Fact<Option<quorate::model::departure::Shutdown>>) -> bool {
    matches!(seen, Fact::Known(Some(shutdown)) if shutdown.held)
}

#[tokio::test]
async fn a_shutdown_waits_for_the_agent_goes_on_and_can_be_called_off() {
    let sky = Sky::with_bucket().await;
    let Some(daemon) = Daemon::start(sky.root.path()).await else { return };
    let logind = Logind::start(&daemon).await;
    let lock = ShutdownLock::begin(Bus::At(daemon.address.clone()));
    let (asked, held) = logind.lock().await;
    assert_eq!((asked[0].as_str(), asked[1].as_str(), asked[3].as_str()), ("shutdown", "quorate", "delay"));
    until(&lock, |seen| *seen == Fact::Known(None)).await;

    let reach = sky.reach().await.with_shutdown(lock.clone());
    let mut memory = Memory::default();
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_ne!(plan.report.phase, Phase::Leaving);
    // A lock that was to be given back before anybody wanted it is kept.
    lock.release();
    logind.announce(true).await;
    timeout(PATIENCE, lock.turned()).await.unwrap();
    assert!(is_announced(&lock.seen()), "{:?}", lock.seen());
    // No etcd runs here: there is nothing to hand over.
    let (_, plan) = look_again(&reach, &mut memory, Depth::Light).await;
    assert_eq!(plan.report.phase, Phase::Leaving, "{:#?}", plan.report);
    let [step] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    execute(&reach, step).await.unwrap();
    is_given_back(held).await;
    until(&lock, |seen| matches!(seen, Fact::Known(Some(shutdown)) if !shutdown.held)).await;
    let (_, plan) = look_again(&reach, &mut memory, Depth::Light).await;
    assert_eq!((plan.steps, plan.report.waiting), (vec![], vec![WaitingOn::ShutDown]));

    logind.announce(false).await;
    timeout(PATIENCE, lock.turned()).await.unwrap();
    assert_eq!(lock.seen(), Fact::Known(None));
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_ne!(plan.report.phase, Phase::Leaving);
    // The next one waits again.
    let (_, again) = logind.lock().await;
    logind.announce(true).await;
    timeout(PATIENCE, lock.turned()).await.unwrap();
    assert!(is_announced(&lock.seen()), "{:?}", lock.seen());
    lock.release();
    is_given_back(again).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_an_agent_that_hangs_or_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let Some(daemon) = Daemon::start(dir.path()).await else { return };
    let logind = Logind::start(&daemon).await;
    let lock = ShutdownLock::begin(Bus::At(daemon.address.clone()));
    let (_, held) = logind.lock().await;
    until(&lock, |seen| *seen == Fact::Known(None)).await;
    logind.announce(true).await;
    timeout(PATIENCE, lock.turned()).await.unwrap();
    // Nobody looks: it is given back when the time is over.
    assert!(u128::from(HOLD_MS) < PATIENCE.as_millis());
    is_given_back(held).await;

    let address = daemon.address.clone();
    let (ends, end) = tokio::sync::oneshot::channel::<()>();
    let agent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _lock = ShutdownLock::begin(Bus::At(address));
            end.await.unwrap();
        });
    });
    let (_, held) = logind.lock().await;
    ends.send(()).unwrap();
    is_given_back(held).await;
    agent.join().unwrap();
}

#[tokio::test]
async fn without_logind_the_agent_says_why_and_works_on() {
    let sky = Sky::with_bucket().await;
    let nowhere = format!("unix:path={}", sky.root.path().join("no bus").display());
    let lock = ShutdownLock::begin(Bus::At(nowhere));
    until(&lock, |seen| matches!(seen, Fact::Unknown(why) if !why.contains("not asked"))).await;
    let reach = sky.reach().await.with_shutdown(lock);
    let (seen, plan) = look_again(&reach, &mut Memory::default(), Depth::Full).await;
    assert!(!seen.departure.shutdown.is_known());
    assert_ne!(plan.report.phase, Phase::Leaving);
    assert_eq!(plan.report.halt, None);
}
