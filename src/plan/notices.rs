//! What follows from what EC2 announces long before: scheduled maintenance, and that a spot instance had better be
//! replaced.
//!
//! Maintenance is left for `leaving.maintenanceLead` before it may begin, by the order and under the rules of every
//! departure. It is over when EC2 does not list it as active any more, or when this machine was booted since: EC2 goes
//! on listing a reboot for some time after it was made. That is told by when the machine was booted, so that nobody has
//! to remember for which events it has left.
//!
//! A recommendation to replace a spot instance may come at once to all of a kind. A control-plane machine does nothing
//! for it: two of three could be told together, and nothing has come in their place. A worker is closed to new pods,
//! once: the mark of it stays on the node, and who opens the node again has decided.

use crate::config::Settings;
use crate::config::settings::{MaintenancePolicy, RebalancePolicy};
use crate::model::departure::{Cause, DepartureObservation, Maintenance, MaintenanceCode};
use crate::model::{Fact, Observation, Plan, Role, Step, Warning};

/// The scheduled event that this machine leaves for, if there is one: of several the one that ends the machine, and of
/// these the first. What is not told at the moment is as it was.
pub(super) fn maintenance(settings: &Settings, seen: &Observation, before: Option<&Cause>) -> Option<Cause> {
    match settings.leaving.maintenance {
        MaintenancePolicy::Leave => {}
        MaintenancePolicy::Warn => return None,
    }
    let told = &seen.departure;
    let lead = settings.leaving.maintenance_lead.as_signed_millis();
    let over = |event: &Maintenance| is_carried_out(event, lead, &told.booted);
    let begun = before.and_then(as_event);
    let due = match &told.maintenance {
        Fact::Known(events) => events
            .iter()
            .filter(|event| is_known(&event.code) && !over(event))
            .filter(|event| seen.at >= event.not_before.saturating_sub(lead))
            // A clock that is not set yet may be years ahead; what has begun goes on.
            .filter(|event| {
                let has_begun = begun.as_ref().is_some_and(|begun| begun.event == event.event);
                has_begun || seen.clock_synchronised == Fact::Known(true)
            })
            .min_by_key(|event| (event.code.comes_back(), event.not_before, &event.event))
            .cloned(),
        Fact::Unknown(_) => begun.filter(|event| !over(event)),
    };
    due.map(|Maintenance { event, code, not_before }| Cause::Maintenance { event, code, not_before })
}

fn as_event(cause: &Cause) -> Option<Maintenance> {
    match cause {
        Cause::Maintenance { event, code, not_before } => {
            Some(Maintenance { event: event.clone(), code: code.clone(), not_before: *not_before })
        }
        Cause::Termination | Cause::Spot { .. } | Cause::Asked | Cause::Rebalance => None,
    }
}

fn is_known(code: &MaintenanceCode) -> bool {
    match code {
        MaintenanceCode::InstanceReboot
        | MaintenanceCode::SystemReboot
        | MaintenanceCode::SystemMaintenance
        | MaintenanceCode::InstanceRetirement
        | MaintenanceCode::InstanceStop => true,
        MaintenanceCode::Other(_) => false,
    }
}

/// Whether this machine was booted for it. The reboot of an instance may be made by hand, too, and the event is done
/// with it; all else is EC2's to do, not before its time.
fn is_carried_out(event: &Maintenance, lead: i64, booted: &Fact<i64>) -> bool {
    let from = match event.code {
        MaintenanceCode::InstanceReboot => event.not_before.saturating_sub(lead),
        MaintenanceCode::SystemReboot
        | MaintenanceCode::SystemMaintenance
        | MaintenanceCode::InstanceRetirement
        | MaintenanceCode::InstanceStop
        | MaintenanceCode::Other(_) => event.not_before,
    };
    booted.known().is_some_and(|booted| *booted >= from)
}

/// Whether a worker leaves because EC2 recommends to replace it.
pub(super) fn rebalance(
    settings: &Settings,
    told: &DepartureObservation,
    before: Option<&Cause>,
) -> Option<Cause> {
    if rebalance_policy(settings) != RebalancePolicy::Leave {
        return None;
    }
    let recommended = match &told.rebalance {
        Fact::Known(since) => since.is_some(),
        Fact::Unknown(_) => before == Some(&Cause::Rebalance),
    };
    recommended.then_some(Cause::Rebalance)
}

fn rebalance_policy(settings: &Settings) -> RebalancePolicy {
    match settings.role {
        Role::ControlPlane => RebalancePolicy::Warn,
        Role::Worker => settings.leaving.rebalance,
    }
}

/// The plan of a machine that stays; a worker that EC2 recommends to replace is closed to new pods, once.
pub(super) fn close(settings: &Settings, seen: &Observation, mut plan: Plan) -> Plan {
    if rebalance_policy(settings) == RebalancePolicy::Cordon
        && let Fact::Known(Some(_)) = &seen.departure.rebalance
        && let Fact::Known(Some(node)) = &seen.departure.own_node
        && !node.cordoned
        && !node.cordoned_here
    {
        plan.steps.push(Step::CordonNode { node: node.name.clone() });
    }
    plan
}

/// What EC2 announces is told, whatever follows from it.
pub(super) fn warn(seen: &DepartureObservation, plan: &mut Plan) {
    let warnings = &mut plan.report.warnings;
    if let Fact::Known(Some(at)) = seen.rebalance {
        let what = "the spot instance is likely to be interrupted".to_owned();
        warnings.push(Warning::Notice { what, at });
    }
    for event in seen.maintenance.known().into_iter().flatten() {
        warnings.push(Warning::Notice { what: event.code.as_str().to_owned(), at: event.not_before });
    }
}
