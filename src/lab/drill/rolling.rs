//! The whole control plane replaced, machine by machine, as an instance refresh does it.
//!
//! Where Kubernetes' programs are on this computer, the API is written to through its load balancer all the time;
//! elsewhere etcd alone is put to the test. With every third seed a volume ends with its machine: then each successor
//! is another member, which gets all data from the others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::api::{Came, READY, Writer, admin};
use super::report::millis;
use super::{Options, Report, Stage, Unmet};
use crate::lab::cluster::wait_healthy;
use crate::lab::laboratory::{CONTROL_PLANE, Laboratory};
use crate::lab::region::RefreshSpec;
use crate::lab::settings::Kubernetes;

/// How long the refresh of all machines may take.
const REFRESH: Duration = Duration::from_mins(6);

/// The drill.
pub(super) async fn replace_all(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let kubernetes = Kubernetes::here();
    if let Err(why) = &kubernetes {
        report.tell("etcdAlone", why.as_str());
    }
    let mut stage = Stage::build("replace-all-rolling", options, |settings| {
        settings.hooks = true;
        settings.configuration.insert("tick".to_owned(), json!("1s"));
        if options.seed.is_multiple_of(3) {
            settings.volumes_go_with_machines = true;
            settings.configuration.insert("etcd.volume.source".to_owned(), json!("created"));
        }
        if let Ok(kubernetes) = kubernetes {
            settings.kubernetes = kubernetes;
        }
    })
    .await?;
    let mut came = None;
    let result = shake(&mut stage, options.seed, &mut came, report).await;
    if let Some(Came { count, gap, most_failed }) = came {
        report.tell("apiWrites", count);
        report.tell("apiLongestGapMs", millis(gap));
        report.tell("apiMostFailedInARow", most_failed);
    }
    stage.close(result, report).await
}

async fn shake(
    stage: &mut Stage,
    seed: u64,
    came: &mut Option<Came>,
    report: &mut Report,
) -> Result<(), Unmet> {
    stage.start_all().await?;
    stage.formed(READY).await?;
    let before = wait_healthy(&stage.lab, READY).await?;
    let writer = match &stage.lab.settings().kubernetes {
        Kubernetes::Run(_) => {
            let writer = Writer::begin(admin(&stage.lab).await?);
            writer.first(READY).await?;
            Some(writer)
        }
        Kubernetes::Rendered(_) | Kubernetes::Off => None,
    };
    let began = Instant::now();
    let result = refresh(stage, seed).await;
    report.tell("refreshMs", millis(began.elapsed()));
    let after = match result {
        Ok(()) => wait_healthy(&stage.lab, READY).await.map_err(Unmet::from),
        Err(error) => Err(error),
    };
    if let Some(writer) = writer {
        *came = Some(writer.end().await?);
    }
    let after = after?;
    let as_they_should = if stage.lab.settings().volumes_go_with_machines {
        after.members.iter().all(|(slot, id)| before.members.get(slot) != Some(id))
    } else {
        after.members == before.members
    };
    if !as_they_should {
        let why = format!("the members were {:x?} and are {:x?}", before.members, after.members);
        return Err(Unmet::Broken(why));
    }
    match came {
        Some(came) if came.most_failed > 1 => {
            let why = format!("{} writes through the load balancer failed in a row", came.most_failed);
            Err(Unmet::Broken(why))
        }
        Some(_) | None => stage.writes_go_on().await,
    }
}

/// Every second seed launches each new machine before the old one is ended.
async fn refresh(stage: &Stage, seed: u64) -> Result<(), Unmet> {
    let first: BTreeSet<String> = instances(&stage.lab);
    let (min_healthy_percentage, max_healthy_percentage) =
        if seed.is_multiple_of(2) { (100, 134) } else { (66, 100) };
    let spec = RefreshSpec { min_healthy_percentage, max_healthy_percentage, ..RefreshSpec::default() };
    stage.lab.happen("an instance refresh", |world| world.start_refresh(CONTROL_PLANE, spec)).await?;
    stage
        .lab
        .wait("the refresh of all machines", REFRESH, |lab| {
            let ended = lab.region().with(|world| {
                let group = world.view().groups.get(CONTROL_PLANE);
                group.and_then(|group| group.refresh.as_ref()).is_some_and(|refresh| !refresh.goes_on())
            });
            if ended { Ok(()) } else { Err(told(lab)) }
        })
        .await?;
    // The group goes on to the next one when a successor stands by; who leaves takes its time.
    stage
        .lab
        .wait("the end of all machines that were replaced", REFRESH, |lab| {
            if instances(lab).is_disjoint(&first) { Ok(()) } else { Err(told(lab)) }
        })
        .await?;
    Ok(())
}

fn instances(lab: &Laboratory) -> BTreeSet<String> {
    lab.control_plane().iter().map(|machine| machine.identity().instance.clone()).collect()
}

/// What each machine says of itself.
fn told(lab: &Laboratory) -> String {
    use crate::lab::status::Status;
    let lines = lab.control_plane().into_iter().map(|machine| {
        let status = Status::of(&machine.root()).ok().flatten().unwrap_or_default();
        format!("{}: {}", machine.identity().name, status.line())
    });
    lines.collect::<Vec<_>>().join("; ")
}
