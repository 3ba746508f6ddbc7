//! A year of certificates in a minute.
//!
//! Leaves live 90 days and are renewed after 45: eight times a year. Here they live some seconds instead, since etcd
//! and its clients read clocks that can't be turned forward. Connections that are there outlive their certificates, so a
//! machine is replaced in the end: all its handshakes are new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::report::millis;
use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet};
use crate::host::clock;
use crate::lab::status::Status;

/// How long a leaf lives, in seconds.
const LIFETIME: u32 = 20;
/// How often each machine's certificates are renewed: as often as in a year.
const RENEWALS: usize = 8;
/// How long that may take.
const YEAR: Duration = Duration::from_mins(4);

/// The drill.
pub(super) async fn certificates(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = Stage::build("certificate-year", options, |settings| {
        settings.leaf_lifetime_s = Some(LIFETIME);
        settings.configuration.insert("tick".to_owned(), json!("1s"));
    })
    .await?;
    let result = shake(&mut stage).await;
    stage.close(result, report).await
}

async fn shake(stage: &mut Stage) -> Result<(), Unmet> {
    stage.start_all().await?;
    let before = stage.formed(FORM).await?;
    let began = Instant::now();
    let mut ends: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    loop {
        for machine in stage.lab.control_plane() {
            let status = Status::of(&machine.root())?.unwrap_or_default();
            let Some(end) = status.certificates_end else { continue };
            let name = machine.identity().name.clone();
            if end < clock::now_ms() {
                return Err(Unmet::Broken(format!("a certificate of {name} has ended")));
            }
            ends.entry(name).or_default().insert(end);
        }
        let renewed = ends.values().map(|ends| ends.len().saturating_sub(1)).min().unwrap_or(0);
        if ends.len() == stage.lab.settings().control_plane && renewed >= RENEWALS {
            break;
        }
        if began.elapsed() > YEAR {
            let counts: Vec<usize> = ends.values().map(BTreeSet::len).collect();
            return Err(Unmet::Broken(format!("so many certificates were seen on each machine: {counts:?}")));
        }
        sleep(Duration::from_millis(200)).await;
    }
    let renewals: usize = ends.values().map(|ends| ends.len() - 1).sum();
    stage.tell("renewals", renewals);
    stage.tell("yearMs", millis(began.elapsed()));
    stage.writes_go_on().await?;
    let mut machines = stage.lab.control_plane();
    stage.rng.shuffle(&mut machines);
    let Some(victim) = machines.first() else { return Err(Unmet::Broken("there is no machine".to_owned())) };
    let id = &victim.identity().instance;
    stage.fault();
    stage.lab.happen(format!("the death of {id}"), |world| world.kill_instance(id)).await?;
    stage.lab.successor(victim, HEAL).await?;
    let after = stage.healed(HEAL).await?;
    if after.members == before.members {
        Ok(())
    } else {
        Err(Unmet::Broken(format!("the members were {:x?} and are {:x?}", before.members, after.members)))
    }
}
