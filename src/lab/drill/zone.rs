//! A zone without power.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::report::millis;
use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet, silence};
use crate::lab::bench;
use crate::lab::cluster::{Access, Health, look, wait_healthy};
use crate::lab::laboratory::{Laboratory, Scratch};
use crate::lab::machine::Machine;
use crate::lab::region::{InstanceState, Volume, VolumeState};
use crate::lab::settings::Settings;

/// How often a bare etcd loses its leader.
const BARE_LOSSES: usize = 5;

/// The leader's zone stops: the others go on after an election. It starts again: everything is as it was, with the same
/// members.
pub(super) async fn lose(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let leader = leader(&stage.lab, &before).await?;
    let zone = leader.identity().zone.clone();
    stage.writes_go_on().await?;
    let others = silence::others(&stage.lab, &leader).await?;
    stage.fault();
    let lost = Instant::now();
    stage.lab.happen(format!("the power of {zone}"), |world| world.stop_zone(&zone)).await?;
    let gap = silence::until_acknowledged(&others).await?.saturating_duration_since(lost);
    stage.tell("zoneGapMs", millis(gap));
    if gap > silence::ELECTION {
        let (gap, limit) = (millis(gap), millis(silence::ELECTION));
        return Err(Unmet::Broken(format!(
            "no write for {gap} ms, and one election takes {limit} ms at most"
        )));
    }
    // The group looks for room elsewhere; the slot stays where its volume is.
    let wanted = stage.lab.settings().control_plane;
    stage
        .lab
        .wait("a replacement in another zone", HEAL, |lab| {
            let there = lab.control_plane().len();
            (there == wanted).then_some(()).ok_or_else(|| format!("{there} machines"))
        })
        .await?;
    stage.writes_go_on().await?;
    stage.lab.happen(format!("the power of {zone}"), |world| world.start_zone(&zone)).await?;
    // Auto Scaling spreads the machines evenly again.
    stage
        .lab
        .wait("a machine in each zone", HEAL, |lab| {
            let mut zones: Vec<String> =
                lab.control_plane().iter().map(|m| m.identity().zone.clone()).collect();
            let held = lab.region().with(|world| {
                world.view().volumes.values().filter(|v| v.state == VolumeState::InUse).count()
            });
            zones.sort();
            zones.dedup();
            let even = zones.len() == wanted && lab.control_plane().len() == wanted && held == wanted;
            even.then_some(()).ok_or_else(|| format!("machines in {zones:?}, {held} volumes in use"))
        })
        .await?;
    let after = stage.healed(HEAL).await?;
    if after.members == before.members {
        Ok(())
    } else {
        Err(Unmet::Broken(format!("the members were {:x?} and are {:x?}", before.members, after.members)))
    }
}

/// A zone that the seed chooses stops and stays away: a standby elsewhere takes its slot over on a new volume. The zone
/// starts again: the slots spread over all zones, without a command.
pub(super) async fn lose_for_good(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = Stage::build("lose-zone-for-good", options, |settings| {
        settings.hooks = true;
        let mut set = |key: &str, value: &str| settings.configuration.insert(key.into(), json!(value));
        set("tick", "1s");
        set("etcd.volume.source", "created");
        set("etcd.volume.takeover", "3s");
    })
    .await?;
    let result = for_good(&mut stage).await;
    stage.close(result, report).await
}

async fn for_good(stage: &mut Stage) -> Result<(), Unmet> {
    stage.start_all().await?;
    let before = stage.formed(FORM).await?;
    let mut zones: Vec<String> =
        stage.lab.control_plane().iter().map(|machine| machine.identity().zone.clone()).collect();
    zones.sort();
    let lost = zones[stage.rng.usize(..zones.len())].clone();
    stage.writes_go_on().await?;
    stage.fault();
    let began = Instant::now();
    stage.lab.happen(format!("the power of {lost}"), |world| world.stop_zone(&lost)).await?;
    let others = |zones: &[String]| !zones.contains(&lost);
    stage
        .lab
        .wait("all slots in the zones that are left", HEAL, |lab| spread(lab, zones.len(), others))
        .await?;
    let during = stage.healed(HEAL).await?;
    stage.tell("takeoverMs", millis(began.elapsed()));
    one_is_new(&before, &during)?;

    stage.writes_go_on().await?;
    let began = Instant::now();
    stage.lab.happen(format!("the power of {lost}"), |world| world.start_zone(&lost)).await?;
    stage
        .lab
        .wait("a slot in each zone", HEAL, |lab| spread(lab, zones.len(), |held| *held == zones))
        .await?;
    let after = stage.healed(HEAL).await?;
    stage.tell("balancedMs", millis(began.elapsed()));
    one_is_new(&during, &after)
}

/// Looks whether all slots are held, in zones that are as they should be.
fn spread(lab: &Laboratory, slots: usize, as_they_should: impl Fn(&[String]) -> bool) -> Result<(), String> {
    let mut held: Vec<String> = lab.region().with(|world| {
        let view = world.view();
        let lives = |volume: &&Volume| {
            let holder = volume.attachment.as_ref().and_then(|held| view.instances.get(&held.instance));
            holder.is_some_and(|holder| holder.state == InstanceState::Running)
        };
        view.volumes.values().filter(lives).map(|volume| volume.spec.zone.clone()).collect()
    });
    held.sort();
    if held.len() == slots && as_they_should(&held) {
        Ok(())
    } else {
        Err(format!("slots are held in {held:?}"))
    }
}

/// One slot has another member, and the others have the same as before.
fn one_is_new(before: &Health, after: &Health) -> Result<(), Unmet> {
    let new = after.members.iter().filter(|(slot, id)| before.members.get(*slot) != Some(id)).count();
    if new == 1 {
        return Ok(());
    }
    let why =
        format!("the members were {:x?} and are {:x?}, and one was to change", before.members, after.members);
    Err(Unmet::Broken(why))
}

/// The machine whose member leads.
async fn leader(lab: &Laboratory, health: &Health) -> Result<Machine, Unmet> {
    let access = Access::to(lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    for machine in lab.control_plane() {
        if look(&machine.client_url(), &access.tls).await.is_ok_and(|seen| seen.member == health.leader) {
            return Ok(machine);
        }
    }
    Err(Unmet::Broken("no machine leads".into()))
}

/// Has a bare etcd lose its leader by SIGKILL, with the same settings, on the same computer, and tells how long it takes
/// no writes beside the zone's loss.
pub(super) async fn beside_bare(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let scratch = Scratch::new("lose-zone-bare")?;
    let settings = Settings { seed: options.seed, ..Settings::new(scratch.path(), &options.agent)? };
    let lab = Laboratory::start(settings).await?;
    // The agents make what a bare etcd needs, too: addresses, disks and certificates. Then they go.
    wait_healthy(&lab, FORM).await?;
    let machines = lab.control_plane();
    let access = Access::to(&lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    for machine in &machines {
        machine.power_off();
    }
    let mut bare = bench::Bare::start(&lab, &machines)?;
    let mut gaps = Vec::new();
    for _ in 0..BARE_LOSSES {
        let leader = led(&access, machines.len()).await?;
        let others = silence::clients(access.urls.iter().filter(|url| **url != leader), &access.tls).await?;
        let died = Instant::now();
        bare.kill(&leader).await?;
        gaps.push(millis(silence::until_acknowledged(&others).await?.saturating_duration_since(died)));
        bare.again(&leader)?;
    }
    bare.end().await?;
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
    report.tell("bareGapMs", median);
    report.tell("bareGapsMs", json!(gaps));
    if let Some(zone) = report.more.get("zoneGapMs").and_then(serde_json::Value::as_u64) {
        #[expect(clippy::cast_precision_loss, reason = "some seconds, in milliseconds")]
        let ratio = zone as f64 / median.max(1) as f64;
        report.tell("gapRatio", (ratio * 100.0).round() / 100.0);
    }
    Ok(())
}

/// Waits until all of a bare etcd's members follow one leader; answers with its URL.
async fn led(access: &Access, size: usize) -> Result<String, Unmet> {
    const AGAIN: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + FORM;
    loop {
        let mut seen = Vec::new();
        for url in &access.urls {
            if let Ok(answer) = look(url, &access.tls).await {
                seen.push((url.clone(), answer));
            }
        }
        let leads = seen.iter().find(|(_, s)| s.member == s.leader).cloned();
        if let Some((url, leader)) = leads
            && seen.len() == size
            && seen.iter().all(|(_, s)| s.leader == leader.member)
        {
            return Ok(url);
        }
        if Instant::now() >= deadline {
            return Err(Unmet::Broken(format!("the bare etcd has no leader: {seen:?}")));
        }
        sleep(AGAIN).await;
    }
}
