//! Backups in use: back to yesterday, on with one member of three, and S3 away.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use super::everything::{begin, build, missing};
use super::report::millis;
use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet};
use crate::lab::laboratory::Laboratory;
use crate::lab::machine::Machine;
use crate::lab::region::{FaultKind, Service};
use crate::lab::status::Status;

/// How exactly a moment is met, since a change is seen a little after it was acknowledged, or before.
const EXACT: Duration = Duration::from_millis(500);
/// How old the newest write may be that one member had not heard of.
const UNHEARD: Duration = Duration::from_secs(1);
/// How long S3 is away: longer than a permission to keep the backups lasts without being renewed.
const AWAY: Duration = Duration::from_secs(75);
/// How long it may take then until it is said.
const SAID: Duration = Duration::from_secs(15);

/// An operator goes back to a moment of the past: what was written before it is there, and nothing of what was written
/// after it.
pub(super) async fn restore_yesterday(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = build("restore-yesterday", options, |_| ()).await?;
    let result = yesterday(&mut stage, options).await;
    stage.close(result, report).await
}

async fn yesterday(stage: &mut Stage, options: &Options) -> Result<(), Unmet> {
    begin(stage, 1).await?;
    sleep(Duration::from_millis(stage.rng.u64(2_000..15_000))).await;
    let (then, at) = (Instant::now(), OffsetDateTime::now_utc());
    let at = at.format(&Rfc3339).map_err(|error| Unmet::Broken(error.to_string()))?;
    sleep(Duration::from_millis(stage.rng.u64(4_000..20_000))).await;
    let machine = stage.lab.control_plane().swap_remove(stage.rng.usize(..3));
    let (acknowledged, gate) = stage.begin_anew(options.seed.wrapping_add(1)).await?;
    stage.fault();
    let told = machine.verb(&options.agent, &["etcd", "restore", "--at", &at, "--yes"]).await?;
    if !told.contains("lost ") || !told.contains("begins     generation 2") {
        return Err(Unmet::Broken(format!("the command does not say what is lost: {told}")));
    }
    of_generation(stage, 2).await?;
    stage.expect_another_cluster();
    gate.open();
    stage.healed(HEAL).await?;
    let stored = stage.read_back(FORM).await?;
    let (mut kept, mut gone) = (0, 0);
    for (key, (value, at)) in &acknowledged {
        let is_there = stored.get(key).is_some_and(|stored| stored.value == *value);
        if *at + EXACT < then {
            if !is_there {
                return Err(Unmet::Broken(format!("{key} was written before that moment, and is missing")));
            }
            kept += 1;
        } else if *at > then + EXACT {
            if is_there {
                return Err(Unmet::Broken(format!("{key} was written after that moment, and is there")));
            }
            gone += 1;
        }
    }
    stage.tell("kept", kept);
    stage.tell("goneBack", gone);
    if kept == 0 || gone == 0 { Err(Unmet::NoWrites) } else { Ok(()) }
}

/// Two of three volumes are gone: nobody guesses, all say what to do, and the one that is left goes on when an operator
/// says so.
pub(super) async fn lose_quorum(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = build("lose-quorum", options, |_| ()).await?;
    let result = quorum(&mut stage, options).await;
    stage.close(result, report).await
}

async fn quorum(stage: &mut Stage, options: &Options) -> Result<(), Unmet> {
    const HALT: Duration = Duration::from_mins(4);
    begin(stage, 1).await?;
    stage.writes_go_on().await?;
    let mut machines = stage.lab.control_plane();
    let survivor = machines.swap_remove(stage.rng.usize(..machines.len()));
    let ids: Vec<_> = machines.iter().map(|machine| machine.identity().instance.clone()).collect();
    let volumes: Vec<_> = machines.iter().filter_map(|machine| stage.lab.volume_of(machine)).collect();
    let lost = Instant::now();
    stage
        .lab
        .happen("the loss of a quorum", |world| {
            ids.iter().try_for_each(|id| world.kill_instance(id))?;
            volumes.iter().try_for_each(|volume| world.lose_volume(volume))
        })
        .await?;
    let (acknowledged, gate) = stage.begin_anew(options.seed.wrapping_add(1)).await?;
    gate.open();
    let words = stage
        .lab
        .wait("the survivor's halt", HALT, |_| {
            let status = status(&survivor)?;
            if status.halted_because() == Some("quorumLost") { Ok(status.line()) } else { Err(status.line()) }
        })
        .await?;
    for name in ["quorate etcd recover", "quorate etcd restore"] {
        if !words.contains(name) {
            return Err(Unmet::Broken(format!("the halt does not name `{name}`: {words}")));
        }
    }
    stage.fault();
    survivor.verb(&options.agent, &["etcd", "recover", "--yes"]).await?;
    of_generation(stage, 2).await?;
    stage.expect_another_cluster();
    stage.healed(HEAL).await?;
    let missing = missing(&acknowledged, &stage.read_back(FORM).await?, lost)?;
    stage.tell("acknowledgedBefore", acknowledged.len());
    stage.tell("newestMissing", missing.count);
    stage.tell("oldestMissingMs", millis(missing.age));
    // A follower hears of an entry's commitment with the next message: some milliseconds, or a heartbeat.
    if missing.age > UNHEARD {
        return Err(Unmet::Broken(format!(
            "a write of {} ms before the loss is missing",
            millis(missing.age)
        )));
    }
    Ok(())
}

/// S3 refuses for a while: the cluster is not disturbed, the age of the backups is told, and they catch up.
pub(super) async fn bucket_away(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = build("bucket-away", options, |_| ()).await?;
    let result = away(&mut stage).await;
    stage.close(result, report).await
}

async fn away(stage: &mut Stage) -> Result<(), Unmet> {
    begin(stage, 1).await?;
    let before = keeper(stage).await?;
    stage.weather_on(&[Service::S3], &[FaultKind::ServerError], 1.0);
    let began = Instant::now();
    let behind = stage
        .lab
        .wait("the backups to be told to be behind", HEAL, |lab| {
            let (_, told) = kept(lab)?;
            let since = told["unshippedSince"].as_i64().ok_or("nothing waits")?;
            let age = crate::host::clock::now_ms() - since;
            let why = told["error"].as_str().ok_or("it is not said why")?;
            if age > 10_000 { Ok(why.to_owned()) } else { Err(format!("{age} ms")) }
        })
        .await?;
    sleep(AWAY.saturating_sub(began.elapsed())).await;
    // At this moment the machine may be in the middle of an election; it has to be said soon all the same.
    stage
        .lab
        .wait("a warning that the backups are behind", SAID, |lab| {
            let told = kept(lab).and_then(|(machine, _)| status(&machine))?.line();
            if told.contains("is not in S3 yet") { Ok(()) } else { Err(told) }
        })
        .await?;
    stage.writes_go_on().await?;
    stage.tell("awayMs", millis(began.elapsed()));
    stage.tell("said", behind);
    stage.fault();
    stage.lab.region().change(crate::lab::region::World::clear_faults);
    let revision = before["shipped"].as_i64().unwrap_or(0);
    stage
        .lab
        .wait("the backups to catch up", HEAL, |lab| {
            let (_, told) = kept(lab)?;
            let shipped = told["shipped"].as_i64().unwrap_or(0);
            let age = told["unshippedSince"].as_i64().map_or(0, |at| crate::host::clock::now_ms() - at);
            if shipped > revision && age < 5_000 { Ok(()) } else { Err(told.to_string()) }
        })
        .await?;
    stage.healed(HEAL).await.map(drop)
}

/// What the machine that keeps the backups tells, once there is one that does.
async fn keeper(stage: &Stage) -> Result<serde_json::Value, Unmet> {
    let found = stage.lab.wait("somebody who keeps the backups", HEAL, |lab| kept(lab).map(|(_, told)| told));
    Ok(found.await?)
}

fn kept(lab: &Laboratory) -> Result<(Machine, serde_json::Value), String> {
    for machine in lab.control_plane() {
        if let Some(told) = status(&machine)?.backups
            && told["keeping"]["is"] == "here"
            && told["shipped"].is_i64()
        {
            return Ok((machine, told));
        }
    }
    Err("nobody keeps them".to_owned())
}

/// Waits until all machines are members of this generation.
async fn of_generation(stage: &Stage, generation: u64) -> Result<(), Unmet> {
    let all = |lab: &Laboratory| {
        for machine in lab.control_plane() {
            let status = status(&machine)?;
            if status.generation != Some(generation) || !status.is_running() {
                return Err(format!("{}: {}", machine.identity().name, status.line()));
            }
        }
        Ok(())
    };
    Ok(stage.lab.wait("all members in the next generation", HEAL * 2, all).await?)
}

fn status(machine: &Machine) -> Result<Status, String> {
    let status = Status::of(&machine.root()).map_err(|error| crate::lab::error::chain(&error))?;
    status.ok_or_else(|| format!("{} has no status", machine.identity().name))
}
