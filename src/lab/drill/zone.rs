//! A zone without power.

use super::stage::HEAL;
use super::{Stage, Unmet};
use crate::lab::region::VolumeState;

/// A zone stops: the others go on. It starts again: everything is as it was, with the same members.
pub(super) async fn loss(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let mut machines = stage.lab.control_plane();
    stage.rng.shuffle(&mut machines);
    let zone = machines.first().map(|m| m.identity().zone.clone()).unwrap_or_default();
    stage.writes_go_on().await?;
    stage.fault();
    stage.lab.happen(format!("the power of {zone}"), |world| world.stop_zone(&zone)).await?;
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
