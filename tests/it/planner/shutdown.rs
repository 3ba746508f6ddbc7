//! The seconds before the machine shuts down: etcd's leadership is handed over, and nothing else is taken down.

use std::collections::BTreeMap;

use quorate::kubernetes::paths;
use quorate::model::departure::*;
use quorate::model::kubernetes::LogindObservation;
use quorate::model::*;
use quorate::plan::plan;

use super::departure::{control_plane, leaving};
use super::scene::{Change as _, NOW, instance, names, settings_with, whole};

/// A whole machine that leads etcd, and that is about to shut down.
fn shutting_down(held: bool) -> Observation {
    whole().but(|seen| {
        seen.departure.shutdown = Fact::Known(Some(Shutdown { since: NOW, held }));
        seen.view().leader = Some(MemberId(1));
    })
}

#[test]
fn a_leader_hands_over_takes_the_lock_and_lets_the_shutdown_go_on() {
    let first = plan(&control_plane(), &shutting_down(true));
    assert_eq!(names(&first), ["moveLeader"]);
    assert_eq!(first.report.phase, Phase::Leaving);
    let follower = shutting_down(true).but(|seen| seen.view().leader = Some(MemberId(2)));
    let then = plan(&control_plane(), &follower);
    assert_eq!(names(&then), ["takeControlPlaneLock", "releaseShutdown"]);
    assert_eq!(then.report.warnings, []);
    let own = follower.but(|seen| seen.view().control_plane.lock = Some(instance(1)));
    assert_eq!(names(&plan(&control_plane(), &own)), ["releaseShutdown"]);
}

#[test]
fn a_shutdown_that_goes_on_is_waited_for_and_nothing_is_started_any_more() {
    let gone_on = shutting_down(false).but(|seen| {
        seen.etcd.service = Fact::Known(ServiceState::Stopped);
        seen.etcd.cluster = Fact::unknown("no answer");
    });
    let plan = plan(&control_plane(), &gone_on);
    assert_eq!((names(&plan), plan.report.waiting), (vec![], vec![WaitingOn::ShutDown]));
}

#[test]
fn nothing_is_detached_removed_or_marked_even_where_the_machine_was_leaving() {
    let seen = leaving().but(|seen| {
        seen.departure.shutdown = Fact::Known(Some(Shutdown { since: NOW, held: true }));
        seen.view().leader = Some(MemberId(3));
    });
    assert_eq!(names(&plan(&control_plane(), &seen)), ["releaseShutdown"]);
}

#[test]
fn who_can_not_be_waited_for_is_named() {
    let other = shutting_down(true).but(|seen| {
        seen.view().leader = Some(MemberId(2));
        seen.view().control_plane.lock = Some(instance(2));
        seen.view().members.get_mut(&MemberId(3)).unwrap().healthy = Fact::Known(false);
    });
    let plan = plan(&control_plane(), &other);
    assert_eq!(names(&plan), ["releaseShutdown"], "a shutdown can't be prevented");
    let words: Vec<String> = plan.report.warnings.iter().map(ToString::to_string).collect();
    assert!(words.iter().any(|word| word.contains(instance(2).as_str())), "{words:?}");
    assert!(words.iter().any(|word| word.contains("2 other members")), "{words:?}");
}

#[test]
fn what_is_not_known_is_waited_for_as_long_as_the_lock_is_held() {
    for change in [
        (|seen| seen.etcd.cluster = Fact::unknown("no quorum")) as fn(&mut Observation),
        |seen| seen.etcd.service = Fact::unknown("the bus is silent"),
        |seen| {
            seen.etcd.own = Fact::unknown("no answer");
            seen.view().records.clear();
        },
    ] {
        let plan = plan(&control_plane(), &shutting_down(true).but(change));
        assert_eq!(names(&plan), [""; 0], "{:?}", plan.report);
        assert_eq!(plan.report.waiting.len(), 1, "{:?}", plan.report);
    }
    // Where there is no etcd there is nothing to hand over.
    let none = shutting_down(true).but(|seen| seen.etcd.service = Fact::Known(ServiceState::Stopped));
    assert_eq!(names(&plan(&control_plane(), &none)), ["releaseShutdown"]);
    // Who hears nothing of a shutdown does what it always does.
    let deaf = whole().but(|seen| seen.departure.shutdown = Fact::unknown("no logind"));
    assert_eq!(plan(&control_plane(), &deaf).report.phase, Phase::Running);
}

#[test]
fn a_shutdown_that_is_called_off_or_over_gives_the_lock_back() {
    let back = whole().but(|seen| seen.view().control_plane.lock = Some(instance(1)));
    let alone = settings_with("kubernetes: {controlPlane: none}\n");
    let plan = plan(&alone, &back);
    assert_eq!((names(&plan), plan.report.phase), (vec!["releaseControlPlaneLock"], Phase::Running));
}

#[test]
fn a_machine_of_etcd_alone_lets_its_shutdown_wait_for_it() {
    let alone = settings_with("kubernetes: {controlPlane: none}\n");
    let with = |longest_delay_ms: u64, told: Option<String>, files: BTreeMap<String, String>| {
        let seen = whole().but(|seen| {
            seen.kubernetes.logind = Fact::Known(Some(LogindObservation { longest_delay_ms, told }));
            seen.kubernetes.files = Fact::Known(files);
        });
        plan(&alone, &seen)
    };
    let fresh = with(5_000, None, BTreeMap::new());
    let [Step::WriteLogindFile { file }, Step::ReloadLogind { digest }] = &fresh.steps[..] else {
        panic!("{:?}", fresh.steps)
    };
    assert!(file.content.ends_with("[Login]\nInhibitDelayMaxSec=10\n"), "{}", file.content);
    let written = BTreeMap::from([(paths::LOGIND.to_owned(), digest.clone())]);
    assert_eq!(with(10_000, Some(digest.clone()), written.clone()).steps, []);
    // Another file says less: that is told and not fought with.
    let less = with(5_000, Some(digest.clone()), written);
    assert_eq!(less.steps, []);
    assert_eq!(less.report.warnings, [Warning::ShutdownCutShort { found_ms: 5_000, wanted_ms: HOLD_MS }]);
    // Below another root there is no logind, and no file is made for it.
    let none = whole().but(|seen| {
        seen.kubernetes.logind = Fact::Known(None);
        seen.kubernetes.files = Fact::Known(BTreeMap::new());
    });
    assert_eq!(plan(&alone, &none).steps, []);
}
