//! What follows from what EC2 announces: scheduled maintenance, and that a spot instance had better be replaced.

use quorate::config::Settings;
use quorate::model::departure::*;
use quorate::model::enrolment::NodeReadiness;
use quorate::model::worker::OwnNode;
use quorate::model::*;
use quorate::plan::plan;

use super::departure::{MINUTE, World, control_plane, dying, leaving, node, pod, worker, worker_with};
use super::scene::{Change as _, HOUR, NOW, instance, names, settings_with, volume};

const EVENT: &str = "instance-event-0d59937288b749b32";
const BEGINS: i64 = NOW + 30 * MINUTE;

fn event(code: &str) -> Maintenance {
    Maintenance { event: EVENT.to_owned(), code: code.to_owned().into(), not_before: BEGINS }
}

fn cause(code: &str) -> Cause {
    Cause::Maintenance { event: EVENT.to_owned(), code: code.to_owned().into(), not_before: BEGINS }
}

fn begun(cause: Cause) -> Fact<Option<Departure>> {
    Fact::Known(Some(Departure { instance: instance(1), cause, since: NOW }))
}

/// One that is told of nothing but this event.
fn told(seen: Observation, code: &str) -> Observation {
    seen.but(|seen| {
        seen.clock_synchronised = Fact::Known(true);
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        seen.departure.begun = Fact::Known(None);
        seen.departure.maintenance = Fact::Known(vec![event(code)]);
        seen.departure.membership = Fact::Known(None);
        seen.departure.hook = Fact::Known(None);
    })
}

/// A control-plane machine that leaves for it.
fn leaves_for(code: &str) -> Observation {
    told(leaving(), code).but(|seen| seen.departure.begun = begun(cause(code)))
}

fn begins(settings: &Settings, seen: &Observation) -> bool {
    let steps = plan(settings, seen).steps;
    matches!(&steps[..], [Step::BeginDeparture { departure }] if matches!(departure.cause, Cause::Maintenance { .. }))
}

#[test]
fn a_machine_leaves_for_maintenance_the_lead_before_and_not_earlier() {
    let at = |at: i64| told(leaving(), "system-reboot").but(|seen| seen.at = at);
    assert!(!begins(&control_plane(), &at(NOW - 1)));
    assert!(begins(&control_plane(), &at(NOW)));
    let longer = settings_with("leaving: {maintenanceLead: 2h}\n");
    assert!(begins(&longer, &at(NOW - HOUR)));
    assert!(!begins(&settings_with("leaving: {maintenance: warn}\n"), &at(NOW)));
    let unset = at(NOW).but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert!(!begins(&control_plane(), &unset), "a clock that is not set may be years ahead");
    let other = told(leaving(), "instance-repainting");
    assert!(!begins(&control_plane(), &other), "nobody knows what becomes of it");
}

#[test]
fn what_is_announced_is_told_before_anything_follows() {
    let early = told(leaving(), "instance-retirement").but(|seen| seen.at = NOW - HOUR);
    let plan = plan(&control_plane(), &early);
    assert_eq!(plan.report.phase, Phase::Running);
    let words: Vec<String> = plan.report.warnings.iter().map(ToString::to_string).collect();
    assert!(words.iter().any(|word| word.contains("instance-retirement")), "{words:?}");
}

#[test]
fn a_machine_that_is_rebooted_keeps_its_member_its_volume_and_its_node() {
    for code in ["instance-reboot", "system-reboot", "system-maintenance"] {
        // Also one whose volume would end with it.
        let world = World::new((control_plane(), told(leaving(), code).but(dying))).leaves(None);
        assert_eq!(
            world.news(),
            [
                "beginDeparture",
                "takeControlPlaneLock",
                "deregisterTarget",
                "cordonNode",
                "evictPods",
                "moveLeader",
                "withdrawManifests",
                "stopService",
                "stopService",
                "stopEtcd",
                "unmount",
                "releaseControlPlaneLock",
            ],
            "{code}"
        );
        let mut seen = world.seen;
        assert!(seen.view().members.contains_key(&MemberId(1)));
        let attachment = seen.volumes()[&volume(1)].attachment.clone();
        assert_eq!(attachment.map(|attachment| attachment.instance), Some(instance(1)));
    }
    let (settings, seen) = worker();
    let world = World::new((settings, told(seen, "system-reboot"))).leaves(None);
    assert_eq!(world.news(), ["beginDeparture", "cordonNode", "evictPods", "stopService", "stopService"]);
}

#[test]
fn a_machine_that_is_stopped_or_retired_leaves_its_volume_and_its_member_to_the_successor() {
    for code in ["instance-stop", "instance-retirement"] {
        let world = World::new((control_plane(), told(leaving(), code).but(dying))).leaves(None);
        let news = world.news();
        assert!(news.contains(&"detachVolume") && news.contains(&"markNodeLeft"), "{code}: {news:?}");
        assert!(!news.contains(&"removeMember") && !news.contains(&"completeHook"), "{code}: {news:?}");
    }
}

#[test]
fn an_event_that_is_over_brings_the_machine_back_and_one_that_nobody_tells_of_does_not() {
    for code in ["system-reboot", "instance-stop"] {
        let seen = leaves_for(code).but(|seen| {
            let mut node = node(Vec::new());
            (node.cordoned, node.cordoned_here) = (true, true);
            seen.departure.node = Fact::Known(Some(node));
        });
        let with = |maintenance| seen.clone().but(|seen| seen.departure.maintenance = maintenance);
        let gone = plan(&control_plane(), &with(Fact::Known(Vec::new())));
        assert_eq!(names(&gone), ["reopenNode", "endDeparture"], "{code}");
        let silent = plan(&control_plane(), &with(Fact::unknown("no answer")));
        assert_eq!(silent.report.phase, Phase::Leaving, "{code}");
        // One that is put off is over until then.
        let later = Maintenance { not_before: NOW + 9 * HOUR, ..event(code) };
        let put_off = plan(&control_plane(), &with(Fact::Known(vec![later])));
        assert_eq!(names(&put_off), ["reopenNode", "endDeparture"], "{code}");
    }
}

#[test]
fn a_reboot_that_was_carried_out_is_not_left_for_again() {
    let rebooted = |code: &str, booted: i64| {
        leaves_for(code).but(|seen| {
            seen.at = BEGINS + 5 * MINUTE;
            seen.departure.booted = Fact::Known(booted);
        })
    };
    let phase = |seen: &Observation| plan(&control_plane(), seen).report.phase;
    // EC2 lists it as active for some time, or does not answer yet.
    let back = rebooted("system-reboot", BEGINS + 4 * MINUTE);
    assert_eq!(phase(&back), Phase::Returning);
    let silent = back.clone().but(|seen| seen.departure.maintenance = Fact::unknown("no answer"));
    assert_eq!(phase(&silent), Phase::Returning);
    let again = back.but(|seen| seen.departure.begun = Fact::Known(None));
    assert_eq!(phase(&again), Phase::Running);
    // A boot before its time was another one's; but whoever reboots the instance by hand has done what was scheduled.
    assert_eq!(phase(&rebooted("system-reboot", BEGINS - MINUTE)), Phase::Leaving);
    assert_eq!(phase(&rebooted("instance-reboot", BEGINS - MINUTE)), Phase::Returning);
    // Nobody says when it was booted.
    let unknown = rebooted("system-reboot", 0).but(|seen| seen.departure.booted = Fact::unknown("no clock"));
    assert_eq!(phase(&unknown), Phase::Leaving);
}

#[test]
fn maintenance_costs_no_quorum_before_ec2_itself_takes_the_machine() {
    for (code, at) in [("system-reboot", BEGINS + 9 * HOUR), ("instance-retirement", BEGINS + 9 * HOUR)] {
        let alone = leaves_for(code).but(|seen| {
            seen.at = at;
            seen.view().members.get_mut(&MemberId(2)).unwrap().healthy = Fact::Known(false);
            seen.view().control_plane.lock = None;
        });
        let plan = plan(&control_plane(), &alone);
        assert_eq!(plan.report.waiting, [WaitingOn::QuorumWithout { healthy: 1, needed: 2 }], "{code}");
        assert_eq!(names(&plan), [""; 0], "{code}");
    }
}

#[test]
fn pods_are_waited_for_until_shortly_before_the_event() {
    let (settings, seen) = worker_with("leaving: {drain: 2h}\n");
    let seen = told(seen, "system-reboot").but(|seen| {
        seen.departure.begun = begun(cause("system-reboot"));
        let mut node = node(vec![NodePod { ending: true, ..pod("slow") }]);
        node.cordoned = true;
        seen.departure.node = Fact::Known(Some(node));
    });
    let at = |at: i64| names(&plan(&settings, &seen.clone().but(|seen| seen.at = at)));
    assert_eq!(at(BEGINS - 31_000), [""; 0]);
    assert_eq!(at(BEGINS - 30_000), ["stopService", "stopService"]);
    // Who heard of it late has its patience all the same.
    let late = seen.but(|seen| {
        seen.at = BEGINS + MINUTE;
        let departure = Departure { instance: instance(1), cause: cause("system-reboot"), since: BEGINS };
        seen.departure.begun = Fact::Known(Some(departure));
    });
    assert_eq!(names(&plan(&settings, &late)), [""; 0]);
}

#[test]
fn of_several_events_the_one_that_ends_the_machine_counts() {
    let several = told(leaving(), "system-reboot").but(|seen| {
        let stop = Maintenance { event: "instance-event-2".to_owned(), ..event("instance-stop") };
        seen.departure.maintenance = Fact::Known(vec![event("system-reboot"), stop]);
    });
    let [Step::BeginDeparture { departure }] = &plan(&control_plane(), &several).steps[..] else { panic!() };
    assert!(matches!(&departure.cause, Cause::Maintenance { event, .. } if event == "instance-event-2"));
}

#[test]
fn who_was_asked_to_leave_does_not_come_back_after_a_reboot() {
    let asked = |code: &str| {
        let seen = told(leaving(), code).but(|seen| seen.departure.asked = Fact::Known(true));
        let [Step::BeginDeparture { departure }] = &plan(&control_plane(), &seen).steps[..] else { panic!() };
        departure.cause.clone()
    };
    assert_eq!(asked("system-reboot"), Cause::Asked);
    assert_eq!(asked("instance-stop"), cause("instance-stop"));
}

/// A worker that stays, and that EC2 recommends to replace.
fn recommended(cordoned: bool, cordoned_here: bool) -> Observation {
    let (_, seen) = worker();
    told(seen, "system-reboot").but(|seen| {
        seen.departure.maintenance = Fact::Known(Vec::new());
        seen.departure.rebalance = Fact::Known(Some(NOW));
        seen.departure.own_node = Fact::Known(Some(OwnNode {
            name: "i-00000001".to_owned(),
            readiness: NodeReadiness::Ready,
            said: None,
            cordoned,
            cordoned_here,
        }));
    })
}

#[test]
fn a_worker_that_had_better_be_replaced_is_closed_to_new_pods_once() {
    let closes = |settings: &Settings, seen: &Observation| {
        let steps = plan(settings, seen).steps;
        steps.contains(&Step::CordonNode { node: "i-00000001".to_owned() })
    };
    let (settings, _) = worker();
    assert!(closes(&settings, &recommended(false, false)));
    assert!(!closes(&settings, &recommended(true, true)));
    assert!(!closes(&settings, &recommended(false, true)), "an operator has opened it again");
    assert!(!closes(&settings, &recommended(true, false)), "an operator has closed it");
    let blind = recommended(false, false).but(|seen| seen.departure.own_node = Fact::unknown("no API"));
    assert!(!closes(&settings, &blind));
    let silent = recommended(false, false).but(|seen| seen.departure.rebalance = Fact::unknown("no answer"));
    assert!(!closes(&settings, &silent));
    let (warns, _) = worker_with("leaving: {rebalance: warn}\n");
    assert!(!closes(&warns, &recommended(false, false)));
    let words: Vec<String> =
        plan(&warns, &recommended(false, false)).report.warnings.iter().map(ToString::to_string).collect();
    assert!(words.iter().any(|word| word.contains("likely to be interrupted")), "{words:?}");
}

#[test]
fn a_worker_leaves_for_a_recommendation_where_that_is_wanted_and_a_control_plane_machine_never() {
    let begins = |settings: &Settings, seen: &Observation| {
        let steps = plan(settings, seen).steps;
        matches!(&steps[..], [Step::BeginDeparture { departure }] if departure.cause == Cause::Rebalance)
    };
    let (leaves, _) = worker_with("leaving: {rebalance: leave}\n");
    assert!(begins(&leaves, &recommended(false, false)));
    assert!(!begins(&worker().0, &recommended(false, false)));
    let begun = recommended(false, false).but(|seen| {
        seen.departure.begun = begun(Cause::Rebalance);
        seen.departure.rebalance = Fact::unknown("no answer");
    });
    assert_eq!(plan(&leaves, &begun).report.phase, Phase::Leaving);
    let told = told(leaving(), "x").but(|seen| seen.departure.rebalance = Fact::Known(Some(NOW)));
    for wish in ["cordon", "leave"] {
        let plan = plan(&settings_with(&format!("leaving: {{rebalance: {wish}}}\n")), &told);
        assert_eq!(plan.report.phase, Phase::Running);
        assert!(!names(&plan).contains(&"cordonNode") && !names(&plan).contains(&"beginDeparture"));
    }
}
