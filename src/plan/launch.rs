//! The launch hook: a machine is in service when it truly is, and given up when it can't be.
//!
//! With it an instance refresh of the whole control plane is a safe rolling upgrade: Auto Scaling goes on to the next
//! machine only when the one before has its member in sync, its API server ready, and its node ready. A standby counts:
//! it serves the API, and is there to take over a volume that is still held.

use crate::config::Settings;
use crate::config::settings::ControlPlaneKind;
use crate::model::departure::{HookResult, LifecycleState};
use crate::model::enrolment::NodeReadiness;
use crate::model::plan::Subject;
use crate::model::{Fact, Halt, Observation, Phase, Plan, Role, Step, WaitingOn, Warning};

use super::departure::heartbeat;

/// How long, in milliseconds, only a human could help a machine before it is given up.
const HALTED_FOR: i64 = 5 * 60_000;

/// The plan, with what the launch hook is told.
pub(super) fn extend(settings: &Settings, seen: &Observation, mut plan: Plan) -> Plan {
    let (Some(name), Some(me)) = (&settings.launch.hook, seen.identity.known()) else { return plan };
    let departure = &seen.departure;
    let membership = match &departure.membership {
        Fact::Known(membership) => membership.as_ref(),
        Fact::Unknown(why) => {
            plan.report.warnings.push(Warning::Answer { subject: Subject::LifecycleHook, why: why.clone() });
            return plan;
        }
    };
    let Some(membership) = membership.filter(|found| found.state == LifecycleState::PendingWait) else {
        return plan;
    };
    if departure.hook == Fact::Known(None) {
        plan.report.warnings.push(Warning::OtherHook { expected: name.to_string() });
        return plan;
    }
    let complete = |result| Step::CompleteHook {
        group: membership.group.clone(),
        hook: name.to_string(),
        instance: me.instance.clone(),
        result,
    };
    match readiness(settings, seen, &plan) {
        Ok(()) => plan.steps.push(complete(HookResult::Continue)),
        Err(waiting) => {
            let patience = settings.launch.patience.as_signed_millis();
            // A successor would halt for the same, while an operator is about to command this one.
            let in_vain = matches!(plan.report.halt, Some(Halt::QuorumLost { .. } | Halt::NoBackup { .. }));
            let halted = plan.report.halt.is_some() && !in_vain && departure.pending_for >= HALTED_FOR;
            if halted || departure.pending_for >= patience {
                plan.steps.push(complete(HookResult::Abandon));
                return plan;
            }
            if let Some(step) = heartbeat(departure, me, &LifecycleState::PendingWait, seen.at) {
                plan.steps.insert(0, step);
            }
            plan.report.waiting.extend(waiting);
        }
    }
    plan
}

/// Whether this machine does all that it is there for; or else what is waited for beside what the plan waits for.
fn readiness(settings: &Settings, seen: &Observation, plan: &Plan) -> Result<(), Option<WaitingOn>> {
    let report = &plan.report;
    let in_place = match report.phase {
        Phase::Running => report.waiting.is_empty(),
        Phase::Standby => {
            report.waiting.iter().all(|on| matches!(on, WaitingOn::FreeSlot | WaitingOn::Takeover { .. }))
        }
        Phase::Identifying
        | Phase::Preparing
        | Phase::Founding
        | Phase::Recovering
        | Phase::Joining
        | Phase::Returning
        | Phase::Leaving
        | Phase::Left
        | Phase::Halted => false,
    };
    if !in_place || !plan.steps.iter().all(Step::is_routine) {
        return Err(None);
    }
    // A worker that runs has seen its node ready; a control plane without Kubernetes has none.
    if settings.role == Role::Worker || settings.kubernetes.control_plane != ControlPlaneKind::StaticPods {
        return Ok(());
    }
    match &seen.departure.own_node {
        Fact::Known(Some(node)) if node.readiness == NodeReadiness::Ready => Ok(()),
        Fact::Known(Some(node)) => {
            let why = node.said.clone().unwrap_or_else(|| "it has not said anything yet".to_owned());
            Err(Some(WaitingOn::NodeReady { why }))
        }
        Fact::Known(None) => Err(Some(WaitingOn::NodeRegistered)),
        Fact::Unknown(why) => Err(Some(WaitingOn::Answer { about: Subject::Node, why: why.clone() })),
    }
}
