//! When a machine that was launched is in service, and when it is given up.

use quorate::model::departure::*;
use quorate::model::enrolment::NodeReadiness;
use quorate::model::worker::OwnNode;
use quorate::model::*;

use super::scene::{Change as _, HOUR, NOW, names, settings_with, whole};

const HOOK: &str = "launch: {hook: quorate-launch}\n";

fn pending() -> DepartureObservation {
    let group = "demo-control-plane".to_owned();
    DepartureObservation {
        target: Fact::Known(Some(TargetState::InService)),
        spot: Fact::Known(None),
        asked: Fact::Known(false),
        begun: Fact::Known(None),
        membership: Fact::Known(Some(Membership { group, state: LifecycleState::PendingWait })),
        hook: Fact::Known(Some(Hook { name: "quorate-launch".to_owned(), heartbeat_timeout_s: 600 })),
        heartbeat: Some(NOW),
        ..DepartureObservation::unknown("not asked for")
    }
}

/// A machine whose etcd is whole and which runs nothing else, held by its launch hook.
fn held() -> Observation {
    whole().but(|seen| {
        seen.departure = pending();
        seen.published = Fact::Known(None);
    })
}

fn plan(more: &str, seen: &Observation) -> Plan {
    quorate::plan::plan(&settings_with(more), seen)
}

fn told(plan: &Plan) -> Option<HookResult> {
    plan.steps.iter().find_map(|step| match step {
        Step::CompleteHook { result, hook, .. } => {
            assert_eq!(hook, "quorate-launch");
            Some(*result)
        }
        _ => None,
    })
}

/// As it is when the copies of the charter and all else have been written.
fn settled(seen: &Observation) -> Observation {
    let plan = quorate::plan::plan(&settings_with(""), seen);
    let mut seen = seen.clone();
    for step in plan.steps {
        match step {
            Step::CopyCharterToEtcd { charter } => seen.view().charter = Some(charter),
            other => panic!("{}", other.name()),
        }
    }
    seen
}

#[test]
fn a_machine_that_does_all_it_is_there_for_is_in_service() {
    let plan = plan(HOOK, &settled(&held()));
    assert_eq!(told(&plan), Some(HookResult::Continue), "{plan:#?}");
}

#[test]
fn a_machine_that_is_not_there_yet_is_held_with_heartbeats() {
    let learner = held().serving(1, true, false).but(|seen| {
        seen.view().members.get_mut(&MemberId(1)).unwrap().learner = true;
        seen.departure.heartbeat = None;
    });
    let plan = plan(HOOK, &learner);
    assert_eq!(told(&plan), None);
    assert_eq!(names(&plan).first(), Some(&"sendHeartbeat"));
}

#[test]
fn a_machine_that_can_not_be_helped_is_given_up_and_one_that_waits_is_given_its_time() {
    let halted = |for_ms: i64| {
        let seen = held().but(|seen| {
            seen.departure.pending_for = for_ms;
            seen.etcd.own = Fact::unknown("no answer");
            seen.etcd.service = Fact::Known(ServiceState::Stopped);
            seen.etcd.version = Fact::Known("3.3.0".parse().unwrap());
        });
        let plan = plan(HOOK, &seen);
        assert!(plan.report.halt.is_some(), "{plan:#?}");
        told(&plan)
    };
    assert_eq!(halted(5 * 60_000 - 1), None);
    assert_eq!(halted(5 * 60_000), Some(HookResult::Abandon));
    let waits = |for_ms: i64| {
        let seen = held().but(|seen| {
            seen.departure.pending_for = for_ms;
            seen.etcd.own = Fact::unknown("no answer");
        });
        told(&plan(HOOK, &seen))
    };
    assert_eq!(waits(HOUR / 2 - 1), None);
    assert_eq!(waits(HOUR / 2), Some(HookResult::Abandon));
}

#[test]
fn nothing_is_told_to_a_hook_that_nobody_named_or_that_does_not_hold_the_machine() {
    assert_eq!(told(&plan("", &settled(&held()))), None);
    let past = settled(&held()).but(|seen| {
        let state = LifecycleState::Other("InService".to_owned());
        seen.departure.membership = Fact::Known(Some(Membership { group: "g".to_owned(), state }));
    });
    assert_eq!(told(&plan(HOOK, &past)), None);
    let unknown = settled(&held()).but(|seen| seen.departure.membership = Fact::unknown("throttled"));
    let plan_of = plan(HOOK, &unknown);
    assert_eq!(told(&plan_of), None);
    assert!(plan_of.report.warnings.iter().any(|warning| warning.to_string().contains("throttled")));
    let absent = settled(&held()).but(|seen| seen.departure.hook = Fact::Known(None));
    let plan_of = plan(HOOK, &absent);
    assert_eq!(told(&plan_of), None);
    assert!(plan_of.report.warnings.contains(&Warning::OtherHook { expected: "quorate-launch".to_owned() }));
}

#[test]
fn a_standby_is_in_service_with_its_node_ready_and_not_before() {
    // Its volume is still another machine's.
    let standby = |node: Fact<Option<OwnNode>>| {
        let seen = settled(&held()).but(|seen| {
            seen.volumes().clear();
            seen.disk = Fact::Known(None);
            seen.etcd.service = Fact::Known(ServiceState::Stopped);
            seen.etcd.own = Fact::unknown("etcd does not run here");
            seen.departure.own_node = node;
        });
        let plan = plan(HOOK, &seen);
        assert_eq!(plan.report.phase, Phase::Standby, "{plan:#?}");
        told(&plan)
    };
    // This one runs no control plane, so it has no node to wait for.
    assert_eq!(standby(Fact::Known(None)), Some(HookResult::Continue));
    let ready = OwnNode {
        name: "i-00000001".to_owned(),
        readiness: NodeReadiness::Ready,
        said: None,
        cordoned: false,
        cordoned_here: false,
    };
    assert_eq!(standby(Fact::Known(Some(ready))), Some(HookResult::Continue));
}
