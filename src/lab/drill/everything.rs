//! All machines and all volumes are gone at once, and only S3 is left: whole, or damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::api::READY;
use super::report::millis;
use super::stage::FORM;
use super::steps::{self, Arm};
use super::{Options, Report, Stage, Unmet};
use crate::backup::segment;
use crate::lab::cluster::Health;
use crate::lab::laboratory::Laboratory;
use crate::lab::load::Stored;
use crate::lab::machine::{FailPoint, Lives, Machine};
use crate::lab::settings::{Settings, Start};

/// How long the way back may take. EC2 has to say twice, a minute apart, that it knows none of the volumes; and agents that
/// are aborted after every step take their time.
const BACK: Duration = Duration::from_mins(6);
/// How long the backups that a drill needs may take.
const BACKUP: Duration = Duration::from_mins(1);
/// The oldest write that may be lost.
const LOSS: Duration = Duration::from_secs(10);

/// The steps of the way back.
const ON_THE_WAY: [&str; 6] =
    ["chooseBackup", "amendCharter", "restoreData", "startEtcd", "addLearner", "promoteMember"];

/// Everything is lost at a moment that the seed decides; the group's new machines bring the cluster back, without a
/// command, and what is missing are the newest writes and no others. With every fourth seed their agents are aborted
/// after every step that they do, and with every other fourth after one step on the way back.
pub(super) async fn lose(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = build("lose-everything", options, |_| ()).await?;
    let result = async {
        let before = begin(&mut stage, 1).await?;
        // In the middle of a snapshot, of a segment, or of neither.
        sleep(Duration::from_millis(stage.rng.u64(0..25_000))).await;
        let aborts = match options.seed % 4 {
            0 => Some(ON_THE_WAY[usize::try_from(options.seed / 4).unwrap_or(0) % ON_THE_WAY.len()]),
            2 => Some("*"),
            _ => None,
        };
        lost(&mut stage, &before, options.seed, aborts, |_| Ok(())).await
    }
    .await;
    stage.close(result, report).await
}

/// The same, and the newest backup is damaged in a way that the seed decides: the one before it is used, which costs
/// nothing, and the charter says what was passed over.
pub(super) async fn damaged(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = build("damaged-backup", options, |_| ()).await?;
    let result = async {
        let before = begin(&mut stage, 2).await?;
        // The newest chain has some segments of its own.
        sleep(Duration::from_secs(8)).await;
        let mut rng = stage.rng.fork();
        let mut told = String::new();
        lost(&mut stage, &before, options.seed, None, |lab| {
            told = damage(lab, &mut rng)?;
            Ok(())
        })
        .await?;
        stage.tell("damage", told.as_str());
        let charter = stage.lab.charter().unwrap_or_default();
        let charter: serde_json::Value = serde_json::from_slice(&charter).unwrap_or_default();
        let passed_over = &charter["recovery"]["point"]["passedOver"];
        stage.tell("passedOver", passed_over.clone());
        if passed_over.as_array().is_none_or(Vec::is_empty) {
            let recovery = &charter["recovery"];
            return Err(Unmet::Broken(format!("{told}, and the charter does not say so: {recovery}")));
        }
        Ok(())
    }
    .await;
    stage.close(result, report).await
}

/// A laboratory whose backups are quick.
pub(super) async fn build(
    name: &str,
    options: &Options,
    change: impl FnOnce(&mut Settings),
) -> Result<Stage, Unmet> {
    Stage::build(name, options, |settings| {
        change(settings);
        let mut set = |key: &str, value: &str| settings.configuration.insert(key.into(), json!(value));
        set("tick", "1s");
        set("etcd.volume.source", "created");
        set("backups.snapshots", "10s");
        set("backups.changes", "3s");
        set("backups.rehearsal", "8760h");
    })
    .await
}

/// Forms, and waits for so many backups; answers with the members.
pub(super) async fn begin(stage: &mut Stage, backups: usize) -> Result<BTreeMap<String, u64>, Unmet> {
    stage.start_all().await?;
    let health = stage.formed(READY).await?;
    stage
        .lab
        .wait("the backups", BACKUP, |lab| match manifests(lab).len() {
            there if there >= backups => Ok(()),
            there => Err(format!("there are {there} of {backups}")),
        })
        .await?;
    Ok(health.members)
}

/// The manifests of the backups that there are, the oldest first.
fn manifests(lab: &Laboratory) -> Vec<String> {
    lab.keys("backups/").into_iter().filter(|key| key.ends_with("/manifest.json")).collect()
}

/// Takes everything, does its worst to the bucket, and waits until the cluster is back with all but the newest writes.
pub(super) async fn lost(
    stage: &mut Stage,
    before: &BTreeMap<String, u64>,
    seed: u64,
    aborts: Option<&str>,
    worst: impl FnOnce(&Laboratory) -> Result<(), Unmet>,
) -> Result<(), Unmet> {
    stage.writes_go_on().await?;
    let machines: Vec<_> =
        stage.lab.control_plane().iter().map(|machine| machine.identity().instance.clone()).collect();
    let volumes: Vec<_> = stage.lab.region().with(|world| world.view().volumes.keys().cloned().collect());
    if aborts.is_some() {
        stage.lab.set_start(Start::Held);
    }
    let lost = Instant::now();
    stage
        .lab
        .happen("the loss of everything", |world| {
            machines.iter().try_for_each(|id| world.kill_instance(id))?;
            volumes.iter().try_for_each(|volume| world.lose_volume(volume.as_str()))
        })
        .await?;
    stage.fault();
    worst(&stage.lab)?;
    let (acknowledged, gate) = stage.begin_anew(seed.wrapping_add(1)).await?;
    gate.open();
    let after = match aborts {
        Some(step) => back_in_steps(stage, &machines, step).await?,
        None => stage.healed(BACK).await?,
    };
    if let Some((slot, id)) = after.members.iter().find(|(slot, id)| before.get(*slot) == Some(id)) {
        return Err(Unmet::Broken(format!("{slot} is still member {id:x}, although its volume is gone")));
    }
    let stored = stage.read_back(FORM).await?;
    let missing = missing(&acknowledged, &stored, lost)?;
    stage.tell("acknowledgedBefore", acknowledged.len());
    stage.tell("newestMissing", missing.count);
    stage.tell("oldestMissingMs", millis(missing.age));
    if missing.age > LOSS {
        return Err(Unmet::Broken(format!(
            "a write is missing that was acknowledged {} ms before the loss, at most {} ms were to be",
            millis(missing.age),
            millis(LOSS)
        )));
    }
    Ok(())
}

/// Starts the new machines, each aborted once after a step, or (`*`) after every step that its agent does, and waits until
/// the cluster is back.
async fn back_in_steps(stage: &mut Stage, old: &[String], step: &str) -> Result<Health, Unmet> {
    let wanted = stage.lab.settings().control_plane;
    let new = stage
        .lab
        .wait("new machines", BACK, |lab| {
            let new: Vec<Machine> = lab
                .control_plane()
                .into_iter()
                .filter(|machine| !old.contains(&machine.identity().instance))
                .collect();
            if new.len() == wanted { Ok(new) } else { Err(format!("there are {}", new.len())) }
        })
        .await?;
    let (arm, lives) =
        if step == "*" { (Arm::All, Lives::Every) } else { (Arm::Step(step.to_owned()), Lives::One) };
    for machine in &new {
        machine.fail_at(Some(FailPoint { step: step.to_owned(), lives }));
        machine.start();
    }
    stage.lab.set_start(Start::AtOnce);
    let after = tokio::select! {
        healed = stage.healed(BACK) => healed?,
        never = steps::get_on(new.clone(), &arm) => match never {},
    };
    let mut cut = BTreeSet::new();
    for machine in &new {
        machine.fail_at(None);
        cut.extend(steps::cut_off(machine)?);
    }
    stage.tell("abortedAfter", json!(cut));
    let is_enough = if step == "*" { cut.len() > 5 } else { cut.contains(step) };
    if is_enough { Ok(after) } else { Err(Unmet::Broken(format!("agents were aborted after {cut:?} only"))) }
}

/// Damages the newest backup; answers with how.
fn damage(lab: &Laboratory, rng: &mut fastrand::Rng) -> Result<String, Unmet> {
    let broken = |why: String| Unmet::Broken(why);
    let manifests = manifests(lab);
    let chain = |manifest: &String| manifest.trim_end_matches("manifest.json").to_owned();
    // The one that reaches furthest is the one that is used.
    let mut chains: Vec<String> = manifests.iter().rev().take(2).rev().map(chain).collect();
    chains.sort_by_key(|chain| reach(lab, chain));
    let [older, newest] = chains.as_slice() else {
        return Err(broken(format!("too few backups: {manifests:?}")));
    };
    let segments = lab.keys(&format!("{newest}changes/"));
    let object = |key: &str| lab.object(key).ok_or_else(|| broken(format!("{key} is not there")));
    let flipped = |key: &str, rng: &mut fastrand::Rng| -> Result<Bytes, Unmet> {
        let mut bytes = object(key)?.to_vec();
        let place = rng.usize(..bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1 << rng.u8(..8);
        }
        Ok(bytes.into())
    };
    let cut = |key: &str, rng: &mut fastrand::Rng| -> Result<Bytes, Unmet> {
        let bytes = object(key)?;
        Ok(bytes.slice(..rng.usize(..bytes.len().max(1))))
    };
    let (snapshot, manifest) = (format!("{newest}snapshot.zst"), format!("{newest}manifest.json"));
    let others = lab.keys(&format!("{older}changes/"));
    let (key, body) = match (rng.u8(..7), segments.first(), others.first()) {
        (0, Some(first), _) => (first.clone(), Some(flipped(first, rng)?)),
        (1, Some(first), _) => (first.clone(), Some(cut(first, rng)?)),
        // Without the last there is nothing to be missed.
        (2, Some(first), _) if segments.len() > 1 => (first.clone(), None),
        (3, Some(first), Some(other)) => (first.clone(), Some(object(other)?)),
        (4, _, _) => (manifest.clone(), Some(cut(&manifest, rng)?)),
        (5, _, _) => (snapshot.clone(), Some(cut(&snapshot, rng)?)),
        _ => (snapshot.clone(), Some(flipped(&snapshot, rng)?)),
    };
    let how = match &body {
        Some(body) => format!("{key} was replaced by {} other bytes", body.len()),
        None => format!("{key} was deleted"),
    };
    lab.damage(&key, body)?;
    Ok(how)
}

/// Up to which revision a backup reaches; of two that reach as far the later one is the greater.
fn reach(lab: &Laboratory, chain: &str) -> (i64, String) {
    let last = lab.keys(&format!("{chain}changes/")).pop().and_then(|last| lab.object(&last));
    let to = last.and_then(|bytes| Some(segment::open(&bytes).ok()?.header.to));
    (to.unwrap_or(0), chain.to_owned())
}

/// What of a load is missing.
pub(super) struct Missing {
    /// How many writes.
    pub count: usize,
    /// How long before the loss the oldest of them was acknowledged.
    pub age: Duration,
}

/// What was acknowledged and is not there, if that is exactly the newest.
pub(super) fn missing(
    acknowledged: &BTreeMap<String, (String, Instant)>,
    stored: &BTreeMap<String, Stored>,
    lost: Instant,
) -> Result<Missing, Unmet> {
    let is_kept = |key: &String, value: &String| {
        stored.get(key).is_some_and(|stored| stored.value == *value && stored.version == 1)
    };
    let mut missing = Missing { count: 0, age: Duration::ZERO };
    // A write was begun after the one before it was answered: keys are in the order of time.
    for (key, (value, at)) in acknowledged {
        match (is_kept(key, value), missing.count) {
            (true, 0) => {}
            (true, _) => return Err(Unmet::Broken(format!("{key} is there, and one before it is missing"))),
            (false, 0) => missing = Missing { count: 1, age: lost.saturating_duration_since(*at) },
            (false, _) => missing.count += 1,
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_may_be_missing() {
        let lost = Instant::now() + Duration::from_secs(100);
        let acknowledged: BTreeMap<_, _> = (0..5_u32)
            .map(|n| {
                let at = lost.checked_sub(Duration::from_secs(u64::from(5 - n))).unwrap();
                (format!("/load/{n}"), (n.to_string(), at))
            })
            .collect();
        let stored = |kept: &[u32]| -> BTreeMap<_, _> {
            kept.iter().map(|n| (format!("/load/{n}"), Stored { value: n.to_string(), version: 1 })).collect()
        };
        let all = missing(&acknowledged, &stored(&[0, 1, 2, 3, 4]), lost).unwrap();
        assert_eq!((all.count, all.age), (0, Duration::ZERO));
        let newest = missing(&acknowledged, &stored(&[0, 1, 2]), lost).unwrap();
        assert_eq!((newest.count, newest.age), (2, Duration::from_secs(2)));
        assert!(missing(&acknowledged, &stored(&[0, 1, 3]), lost).is_err(), "a gap");
        let mut other = stored(&[0, 1, 2, 3, 4]);
        other.insert("/load/4".to_owned(), Stored { value: "x".to_owned(), version: 1 });
        assert_eq!(missing(&acknowledged, &other, lost).unwrap().count, 1);
    }
}
