//! Agents that are killed while etcd runs.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::sleep;

use super::stage::HEAL;
use super::{Stage, Unmet};
use crate::lab::process;

/// How often agents are killed.
const KILLS: usize = 12;

/// Agents are killed at random moments. etcd must not notice: the same processes, the same members.
pub(super) async fn agents(stage: &mut Stage) -> Result<(), Unmet> {
    let before = stage.healthy().await?;
    let etcd = |stage: &Stage| -> BTreeMap<String, Vec<Pid>> {
        let machines = stage.lab.control_plane();
        machines.iter().map(|m| (m.identity().name.clone(), process::etcd_of(m.dir()))).collect()
    };
    let ran = etcd(stage);
    if ran.values().any(|pids| pids.len() != 1) {
        return Err(Unmet::Broken(format!("not one etcd a machine: {ran:?}")));
    }
    stage.fault();
    for _ in 0..KILLS {
        let mut machines = stage.lab.control_plane();
        stage.rng.shuffle(&mut machines);
        let count = stage.rng.usize(1..=machines.len());
        for machine in machines.iter().take(count) {
            machine.kill_agent();
        }
        stage.writes_go_on().await?;
        sleep(Duration::from_millis(stage.rng.u64(0..700))).await;
    }
    let after = stage.healed(HEAL).await?;
    if etcd(stage) != ran {
        return Err(Unmet::Broken(format!("etcd did not go on: {ran:?}, then {:?}", etcd(stage))));
    }
    if after.members == before.members {
        Ok(())
    } else {
        Err(Unmet::Broken(format!("the members were {:x?} and are {:x?}", before.members, after.members)))
    }
}
