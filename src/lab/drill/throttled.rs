//! A day on which AWS answers one call in ten.

use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet};
use crate::lab::region::{FaultKind, Service};

/// How bad a day is.
struct Day {
    /// The share of calls that are throttled.
    throttled: f64,
    /// How many machines are replaced.
    replaced: usize,
    /// So much longer everything may take.
    slower: u32,
}

/// The day of the drill's name.
const WHOLE: Day = Day { throttled: 0.9, replaced: 3, slower: 10 };
/// Its short form.
const SHORT: Day = Day { throttled: 0.5, replaced: 1, slower: 2 };

/// Machines form a cluster and are replaced one after the other, while nine calls in ten are throttled; in the short form,
/// five, and one machine is replaced. What the metadata service answers is no API's: it is left as it is.
pub(super) async fn day(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let day = if options.short { SHORT } else { WHOLE };
    let mut stage = Stage::build("throttled-day", options, |_| ()).await?;
    let result = async {
        let services = [Service::Ec2, Service::Autoscaling, Service::LoadBalancing, Service::S3];
        stage.weather_on(&services, &[FaultKind::Throttle], day.throttled);
        stage.start_all().await?;
        let before = stage.formed(FORM * day.slower).await?;
        let mut machines = stage.lab.control_plane();
        stage.rng.shuffle(&mut machines);
        for machine in machines.iter().take(day.replaced) {
            stage.writes_go_on().await?;
            stage.fault();
            let id = &machine.identity().instance;
            stage.lab.happen(format!("the death of {id}"), |world| world.kill_instance(id)).await?;
            stage.lab.successor(machine, HEAL).await?;
            let after = stage.healed(HEAL * day.slower).await?;
            if after.members != before.members {
                let broken = format!("the members were {:x?} and are {:x?}", before.members, after.members);
                return Err(Unmet::Broken(broken));
            }
        }
        Ok(())
    }
    .await;
    let calls = stage.lab.region().with(|world| world.calls_after(0));
    let throttled =
        calls.iter().filter(|call| call.outcome == crate::lab::region::Outcome::Throttled).count();
    stage.tell("calls", calls.len());
    stage.tell("callsThrottled", throttled);
    stage.close(result, report).await
}
