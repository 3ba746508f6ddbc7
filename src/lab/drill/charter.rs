//! The charter, deleted by somebody.

use std::time::Duration;

use super::stage::HEAL;
use super::{Stage, Unmet};
use crate::lab::status::Status;

/// How long machines that must not found a cluster are watched not doing so.
const WATCH: Duration = Duration::from_secs(3);

/// Deleted while the cluster runs, it comes back by itself. Deleted while all is down, everybody
/// halts and says so, and nobody founds; put back by an operator, the cluster is what it was.
pub(super) async fn lost(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    stage.writes_go_on().await?;
    let charter = stage.lab.charter().ok_or_else(|| Unmet::Broken("there is no charter".into()))?;
    stage.fault();
    stage.lab.delete_charter()?;
    let repaired = stage
        .lab
        .wait("the charter's repair", HEAL, |lab| lab.charter().ok_or_else(|| "it is not there".to_owned()))
        .await?;
    let same = |bytes: &[u8]| -> Option<serde_json::Value> {
        let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        // The nonce tells writers apart, and this is another write.
        value.as_object_mut()?.remove("nonce");
        Some(value)
    };
    if same(&repaired) != same(&charter) {
        return Err(Unmet::Broken("the charter that came back is another".into()));
    }
    stage.healed(HEAL).await?;

    // All is down: every machine reboots, at the same address.
    let machines = stage.lab.control_plane();
    stage.fault();
    stage.lab.reboot(&machines).await?;
    stage.lab.delete_charter()?;
    for machine in &machines {
        machine.start();
    }
    let halted = |lab: &crate::lab::laboratory::Laboratory| {
        for machine in lab.control_plane() {
            let status = Status::of(&machine.root()).map_err(|e| crate::lab::error::chain(&e))?;
            let status = status.ok_or_else(|| format!("{} has no status", machine.identity().name))?;
            if status.halted_because() != Some("charterLost") {
                return Err(format!("{}: {}", machine.identity().name, status.line()));
            }
        }
        if lab.charter().is_some() { Err("there is a charter".to_owned()) } else { Ok(()) }
    };
    stage.lab.wait("everybody's halt without a charter", HEAL, halted).await?;
    // They must stay so: whatever they were waiting for would be over by now.
    tokio::time::sleep(WATCH).await;
    halted(&stage.lab).map_err(|why| Unmet::Broken(format!("they did not stay halted: {why}")))?;
    stage.lab.restore_charter(repaired)?;
    let after = stage.healed(HEAL).await?;
    if after.members == before.members {
        Ok(())
    } else {
        Err(Unmet::Broken(format!("the members were {:x?} and are {:x?}", before.members, after.members)))
    }
}
