//! The few figures that CloudWatch is told, for its alarms: once a minute, by one call, of a control-plane machine.
//!
//! They are made from the same [`Status`] as everything else. All have the one dimension `Cluster`, so that an alarm
//! need not know the instances: of several machines' words it takes the least or the greatest. What is not known is not
//! told, and neither is anything once the agent's last look is old, so that in an alarm missing data are bad.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::monitor::Board;
use super::status::Status;
use crate::aws::{CloudWatch, Figure, Seldom, Unit};
use crate::host::clock;
use crate::kubernetes::Component;
use crate::model::backup::Keeping;
use crate::model::fact::chain;
use crate::model::{ClusterName, Phase, WaitingOn};

/// The namespace of all figures.
pub const NAMESPACE: &str = "Quorate";
/// The one dimension.
pub const DIMENSION: &str = "Cluster";
/// How often they are told.
const EVERY: Duration = Duration::from_mins(1);
/// How long to wait for the first look.
const FIRST: Duration = Duration::from_secs(2);
/// How old the last look may be, in milliseconds.
const OLD: i64 = 5 * 60_000;

/// The figures of a machine. `now` is in milliseconds since 1970.
pub fn of(status: &Status, now: i64) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut count = |name, value| figures.push(Figure { name, value, unit: Unit::Count });
    if let Some(own) = status.member {
        let found = status.members.iter().find(|member| member.id == own);
        let is_well = found.is_some_and(|member| member.healthy == Some(true) && !member.learner);
        count("MemberHealthy", yes(is_well));
        count("Quorum", yes(status.leader.is_some()));
    }
    if let Some(end) = status.certificates_end {
        count("CertificateDaysLeft", (seconds(now, end) / 86_400.0).floor());
    }
    let api =
        status.kubernetes.as_ref().and_then(|kubernetes| kubernetes.components.get(&Component::ApiServer));
    if let Some(why) = api {
        count("ApiReady", yes(why.is_none()));
    }
    count("Halted", yes(status.phase == Phase::Halted || status.halt.is_some()));
    let mut spans = vec![("WaitingSeconds", longest_wait(status, now))];
    let backups = status.backups.as_ref().filter(|backups| backups.keeping == Some(Keeping::Here));
    spans.extend(backups.and_then(|backups| backups.taken).map(|taken| ("BackupAge", seconds(taken, now))));
    figures.extend(spans.into_iter().map(|(name, value)| Figure { name, value, unit: Unit::Seconds }));
    figures
}

/// To stand by is what a standby is there for.
fn longest_wait(status: &Status, now: i64) -> f64 {
    let waits = status.waiting.iter().filter(|waiting| waiting.on != WaitingOn::FreeSlot);
    waits.map(|waiting| waiting.since).min().map_or(0.0, |since| seconds(since, now))
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ms, which is 285,000 years")]
fn seconds(from: i64, to: i64) -> f64 {
    (to.saturating_sub(from) / 1000) as f64
}

/// Tells until it is dropped.
#[derive(Debug)]
pub struct Telling {
    _tasks: JoinSet<()>,
}

/// Begins to tell what a board says.
pub fn tell(board: &Arc<Board>, cluster: &ClusterName, cloudwatch: Seldom<CloudWatch>) -> Telling {
    let mut tasks = JoinSet::new();
    let (board, cluster) = (Arc::clone(board), cluster.clone());
    tasks.spawn(async move {
        let mut told = false;
        loop {
            let now = clock::now_ms();
            let figures = board.status().filter(|status| now.saturating_sub(status.at) < OLD);
            let Some(figures) = figures.map(|status| of(&status, now)) else {
                sleep(FIRST).await;
                continue;
            };
            let dimensions = [(DIMENSION, cluster.as_str())];
            match cloudwatch.put(NAMESPACE, &dimensions, &figures, now).await {
                Ok(()) => told = false,
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(why = chain(&error), "CloudWatch is not told; trying again every minute");
                }
                Err(_) => {}
            }
            sleep(EVERY).await;
        }
    });
    Telling { _tasks: tasks }
}
