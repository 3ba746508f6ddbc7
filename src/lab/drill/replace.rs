//! Machines that die and are replaced.

use serde_json::json;
use tokio::time::Instant;

use super::report::millis;
use super::stage::HEAL;
use super::{Stage, Unmet, silence};
use crate::lab::cluster::{Access, Health, look};
use crate::lab::machine::Machine;

/// The machine that dies, with what is known of its member.
struct Victim {
    machine: Machine,
    member: u64,
    volume: String,
    slot: usize,
}

/// The leader, or a follower.
async fn choose(stage: &mut Stage, health: &Health, wants_leader: bool) -> Result<Victim, Unmet> {
    let access = Access::to(&stage.lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    let mut machines = stage.lab.control_plane();
    stage.rng.shuffle(&mut machines);
    for machine in machines {
        let Ok(seen) = look(&machine.client_url(), &access.tls).await else { continue };
        if (seen.member == health.leader) == wants_leader {
            let volume = stage.lab.volume_of(&machine);
            let volume = volume.ok_or_else(|| Unmet::Broken("a member without a volume".into()))?;
            let slot = stage.lab.slot_of(&volume);
            let slot = slot.ok_or_else(|| Unmet::Broken("a volume without a slot".into()))?;
            return Ok(Victim { machine, member: seen.member, volume, slot });
        }
    }
    Err(Unmet::Broken("no machine to choose".into()))
}

/// Takes a machine's power; the answer is when.
async fn kill(stage: &mut Stage, machine: &Machine) -> Result<Instant, Unmet> {
    stage.writes_go_on().await?;
    stage.fault();
    let died = Instant::now();
    let id = &machine.identity().instance;
    stage.lab.happen(format!("the death of {id}"), |world| world.kill_instance(id)).await?;
    Ok(died)
}

/// The successor takes the volume over: the same member, in the same slot.
pub(super) async fn one(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let wants_leader = stage.rng.bool();
    let victim = choose(stage, &before, wants_leader).await?;
    kill(stage, &victim.machine).await?;
    replaced(stage, &before, &victim).await
}

/// The leader's machine dies: how long there was no acknowledged write is told. Then the same as with any.
pub(super) async fn lose_leader(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let victim = choose(stage, &before, true).await?;
    let others = silence::others(&stage.lab, &victim.machine).await?;
    let died = kill(stage, &victim.machine).await?;
    let gap = silence::until_acknowledged(&others).await?.saturating_duration_since(died);
    stage.tell("leaderGapMs", millis(gap));
    if gap > silence::ELECTION {
        let (gap, limit) = (millis(gap), millis(silence::ELECTION));
        return Err(Unmet::Broken(format!(
            "no write for {gap} ms, and one election takes {limit} ms at most"
        )));
    }
    replaced(stage, &before, &victim).await
}

async fn replaced(stage: &mut Stage, before: &Health, victim: &Victim) -> Result<(), Unmet> {
    let successor = stage.lab.successor(&victim.machine, HEAL).await?;
    let after = stage.healed(HEAL).await?;
    if after.members != before.members {
        let broken = format!("the members were {:x?} and are {:x?}", before.members, after.members);
        return Err(Unmet::Broken(broken));
    }
    let access = Access::to(&stage.lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    let seen = look(&successor.client_url(), &access.tls).await?;
    if seen.member != victim.member || stage.lab.volume_of(&successor).as_ref() != Some(&victim.volume) {
        let broken = format!("{} is not the member that it follows", successor.identity().name);
        return Err(Unmet::Broken(broken));
    }
    Ok(())
}

/// The volume is lost as well: the successor is a new member, first a learner, then a voter.
pub(super) async fn lose_volume(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let wants_leader = stage.rng.bool();
    let victim = choose(stage, &before, wants_leader).await?;
    kill(stage, &victim.machine).await?;
    stage.lab.happen("the loss of a volume", |world| world.lose_volume(&victim.volume)).await?;
    stage.lab.create_volume(victim.slot)?;
    let successor = stage.lab.successor(&victim.machine, HEAL).await?;
    let after = stage.healed(HEAL).await?;
    let name = format!("etcd-{}", victim.slot);
    let others = |health: &Health| {
        let mut members = health.members.clone();
        members.remove(&name);
        members
    };
    if others(&before) != others(&after) || after.members.get(&name) == Some(&victim.member) {
        let broken = format!("the members were {:x?} and are {:x?}", before.members, after.members);
        return Err(Unmet::Broken(broken));
    }
    let steps = super::steps::executed(&successor)?;
    if !["addLearner", "promoteMember"].iter().all(|step| steps.iter().any(|s| s == step)) {
        return Err(Unmet::Broken(format!("it did not join as a learner: {}", json!(steps))));
    }
    Ok(())
}

/// A replacement while every fifth call goes wrong.
pub(super) async fn in_bad_weather(stage: &mut Stage) -> Result<(), Unmet> {
    stage.mixed_weather();
    one(stage).await
}
