//! What a control-plane machine does in the seconds before it shuts down, be it for good or to come back.
//!
//! A shutdown is no departure: who comes back is the same member on the same volume, so nothing is detached, removed or
//! marked. Only what a stop of etcd would cost is spared: it hands its leadership over, if it has it. The lock on
//! changes of control-plane machines is taken, so that no other machine takes anything down meanwhile; whoever has it
//! already can't be waited for, and that is said. Then logind goes on.
//!
//! The load balancer is left alone: see `docs/leaving.md`.

use crate::model::{Observation, Phase, Plan, Step, WaitingOn, Warning};

use super::course::{Course, Next};
use super::departure::{Standing, survivors};

/// The plan of a machine that is about to shut down.
pub(super) fn decide(seen: &Observation) -> Option<Plan> {
    let me = seen.identity.known()?;
    let shutdown = seen.departure.shutdown.known()?.as_ref()?;
    let mut course = Course::new(Phase::Leaving);
    if !shutdown.held {
        return Some(*course.wait(WaitingOn::ShutDown));
    }
    Some(match step_down(&Standing { seen, me }, &mut course) {
        Ok(()) => *course.act([Step::ReleaseShutdown]),
        Err(plan) => *plan,
    })
}

/// What is not known is waited for, as long as logind's lock is held.
fn step_down(standing: &Standing<'_>, course: &mut Course) -> Next<()> {
    standing.hand_over(course)?;
    let Some(view) = standing.view(course)? else { return Ok(()) };
    let own = standing.own_id(view).ok_or_else(|| course.wait(WaitingOn::OwnEtcd))?;
    let Some(member) = view.members.get(&own) else { return Ok(()) };
    if let Err((healthy, needed)) = survivors(view, own, member) {
        let what = WaitingOn::QuorumWithout { healthy, needed }.to_string();
        course.warn(Warning::LeftInHaste { what });
    }
    let instance = standing.me.instance.clone();
    match &view.control_plane.lock {
        Some(holder) if *holder != instance => {
            let what = WaitingOn::ControlPlaneLock { holder: holder.clone() }.to_string();
            course.warn(Warning::LeftInHaste { what });
        }
        Some(_) => {}
        // The only voter has nobody to tell.
        None if view.members.values().filter(|member| !member.learner).count() == 1 => {}
        None => course.steps.push(Step::TakeControlPlaneLock { instance }),
    }
    Ok(())
}
