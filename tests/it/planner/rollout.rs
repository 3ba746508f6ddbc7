//! How the manifest of a static pod is changed, gone back from, and tried again; and what goes on beside it.

use quorate::kubernetes::{Component, paths};
use quorate::model::kubernetes::FailedManifest;
use quorate::model::node::DropIn;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::control_plane::*;
use super::scene::{Change as _, HOUR, NOW, instance, settings_with};

#[test]
fn a_manifest_that_runs_is_changed_under_the_lock_only() {
    let seen = running();
    does_with(&changed(), &seen, &["takeControlPlaneLock", "rollOut"]);
    let held = |holder: u8| running().but(|seen| records(seen).lock = Some(instance(holder)));
    let plan = does_with(&changed(), &held(2), &[]);
    assert_eq!(plan.report.waiting, [WaitingOn::ControlPlaneLock { holder: instance(2) }]);
    // Its own lock is kept for its whole lease again, right before the change.
    does_with(&changed(), &held(1), &["takeControlPlaneLock", "rollOut"]);
    // Nothing is left to change: the lock is given back.
    does_with(&kubernetes(), &held(1), &["releaseControlPlaneLock"]);
}

/// The changed manifest is in place, since so many minutes, and the API server is not ready.
fn rolled_out(minutes: i64) -> (Observation, String) {
    let seen = running().but(|seen| records(seen).lock = Some(instance(1)));
    let plan = plan_of(&changed(), &seen);
    let mut digest = String::new();
    let seen = seen.but(|seen| {
        for step in plan.steps {
            if let Step::RollOut { manifest, .. } = &step {
                digest = manifest.digest();
            }
            apply(seen, step);
        }
        seen.at += minutes * MINUTE;
    });
    (seen, digest)
}

#[test]
fn a_changed_manifest_that_does_not_get_ready_in_time_is_replaced_by_the_one_before() {
    let (early, _) = rolled_out(5);
    let plan = does_with(&changed(), &early, &[]);
    assert!(matches!(plan.report.waiting[0], WaitingOn::Component { component: Component::ApiServer, .. }));
    let (late, digest) = rolled_out(6);
    does_with(&changed(), &late, &["rollBack"]);
    let back = running().but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        if let Fact::Known(Some(rollout)) = &mut found.rollout {
            rollout.failed.push(failed(digest, 1));
        }
    });
    let plan = does_with(&changed(), &back, &[]);
    let component = Component::ApiServer;
    let warning = Warning::RolledBack { component, times: 1, tried_again_after_h: Some(1) };
    assert_eq!(plan.report.warnings, [warning]);
    let ready = rolled_out(1).0.but(all_ready);
    does_with(&changed(), &ready, &["keepManifest", "releaseControlPlaneLock"]);
    // What answers a moment after the change may be what ran before it.
    let at_once = rolled_out(0).0.but(all_ready);
    let plan = does_with(&changed(), &at_once, &[]);
    assert!(matches!(plan.report.waiting[0], WaitingOn::Component { component: Component::ApiServer, .. }));
}

fn failed(digest: String, times: u32) -> FailedManifest {
    FailedManifest { digest, tried: NOW, times }
}

#[test]
fn a_manifest_that_failed_is_tried_again_ever_more_seldom_and_never_where_nobody_else_serves() {
    let digest = rolled_out(0).1;
    let after = |minutes: i64, times: u32| {
        running().but(|seen| {
            seen.at = NOW + minutes * MINUTE;
            let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
            if let Fact::Known(Some(rollout)) = &mut found.rollout {
                rollout.failed = vec![failed(digest.clone(), times)];
            }
        })
    };
    let again = ["takeControlPlaneLock", "rollOut"];
    for (times, hours) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 24), (40, 24), (u32::MAX, 24)] {
        let plan = does_with(&changed(), &after(hours * 60 - 1, times), &[]);
        let warning =
            Warning::RolledBack { component: Component::ApiServer, times, tried_again_after_h: Some(hours) };
        assert_eq!(plan.report.warnings, [warning]);
        let plan = does_with(&changed(), &after(hours * 60, times), &again);
        assert_eq!(plan.report.warnings, []);
    }
    // The clock was wrong when it was tried.
    let ahead = after(0, 1).but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        if let Fact::Known(Some(rollout)) = &mut found.rollout {
            rollout.failed[0].tried = NOW + HOUR;
        }
    });
    does_with(&changed(), &ahead, &again);
    // Another machine changes now: its turn comes.
    let held = after(60, 1).but(|seen| records(seen).lock = Some(instance(2)));
    let plan = does_with(&changed(), &held, &[]);
    assert_eq!(plan.report.waiting, [WaitingOn::ControlPlaneLock { holder: instance(2) }]);
    // Another manifest is none that failed.
    let other = after(1, 1).but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        if let Fact::Known(Some(rollout)) = &mut found.rollout {
            rollout.failed = vec![failed("other".to_owned(), 1)];
        }
    });
    does_with(&changed(), &other, &again);
}

#[test]
fn what_a_component_reads_is_changed_with_its_manifest_and_not_before() {
    let config = "apiVersion: kubescheduler.config.k8s.io/v1\\nkind: KubeSchedulerConfiguration\\n";
    let settings = settings_with(&format!(
        "kubernetes: {{version: v1.36.2, scheduler: {{config: \"{config}percentageOfNodesToScore: 50\"}}}}\n"
    ));
    let plan = does_with(&settings, &running(), &["takeControlPlaneLock", "rollOut"]);
    let Step::RollOut { component: Component::Scheduler, files, manifest } = &plan.steps[1] else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), [paths::SCHEDULER_CONFIG]);
    // Another machine changes now: nothing of it is touched.
    let held = running().but(|seen| records(seen).lock = Some(instance(2)));
    does_with(&settings, &held, &[]);
    // It never got ready: the file of the manifest before stays, too.
    let failed = running().but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::Scheduler).unwrap();
        if let Fact::Known(Some(rollout)) = &mut found.rollout {
            rollout.failed.push(failed(manifest.digest(), 1));
        }
    });
    does_with(&settings, &failed, &[]);
}

#[test]
fn the_first_manifest_is_waited_for_however_long_it_takes() {
    let (_, seen) = settle(with_authorities());
    let (_, late) = settle(seen.but(|seen| seen.at += HOUR));
    assert!(matches!(waits_for(&late), WaitingOn::Component { .. }));
}

#[test]
fn the_others_come_after_the_api_server_however_the_machine_came_to_be_without_them() {
    let gone = running().but(|seen| {
        for which in [Component::ControllerManager, Component::Scheduler] {
            let found = seen.kubernetes.components.get_mut(&which).unwrap();
            (found.manifest, found.rollout) = (Fact::Known(None), Fact::Known(None));
        }
    });
    does_with(&kubernetes(), &gone, &["rollOut", "rollOut"]);
    let down = gone.but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        found.readiness = quorate::model::kubernetes::Readiness::NotReady("refused".to_owned());
    });
    let begun = |ms: i64| {
        down.clone().but(|seen| {
            let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
            if let Fact::Known(Some(rollout)) = &mut found.rollout {
                rollout.since = NOW - ms;
            }
        })
    };
    let plan = does_with(&kubernetes(), &begun(9_999), &[]);
    assert!(matches!(plan.report.waiting[0], WaitingOn::Component { component: Component::ApiServer, .. }));
    // One that does not get ready keeps nobody from running.
    let plan = does_with(&kubernetes(), &begun(10_000), &["rollOut", "rollOut"]);
    assert!(matches!(plan.report.waiting[0], WaitingOn::Component { component: Component::ApiServer, .. }));
}

/// A drop-in of the kubelet that can't be used.
fn with_a_wrong_drop_in(mut seen: Observation) -> Observation {
    let Fact::Known(node) = &mut seen.kubernetes.node else { panic!("{:?}", seen.kubernetes.node) };
    let path = "/etc/quorate/kubelet.d/10-mine.conf".to_owned();
    node.drop_ins = vec![DropIn { path, text: "maxPodz: 3\n".to_owned() }];
    seen
}

#[test]
fn a_wrong_drop_in_holds_back_the_kubelets_own_files_and_nothing_else() {
    let wrong = with_a_wrong_drop_in(running());
    let plan = does_with(&kubernetes(), &wrong, &[]);
    assert_eq!((plan.report.waiting, plan.report.halt), (vec![], None));
    let [Warning::KubeletDropIns { why }] = plan.report.warnings.as_slice() else {
        panic!("{:?}", plan.report.warnings)
    };
    assert!(why.contains("10-mine.conf") && why.contains("maxPodz"), "{why}");
    // Leaves are renewed, manifests are changed, and another endpoint is followed.
    let old = wrong.clone().but(with_old_leaves);
    does_with(&kubernetes(), &old, &["issueClusterLeaves"]);
    does_with(&changed(), &wrong, &["takeControlPlaneLock", "rollOut"]);
    let moved = wrong.clone().but(|seen| seen.kubernetes.load_balancing = balancing(&["other"]));
    let (done, _) = settle(moved);
    assert_eq!(done, ["issueClusterLeaves", "writeKubernetesFiles"]);
    // A kubelet that does not run is started with the configuration that it has.
    let down = wrong.but(|seen| {
        seen.kubernetes.services.insert(ServiceName::Kubelet, Fact::Known(stopped()));
    });
    let plan = does_with(&kubernetes(), &down, &["startService"]);
    assert!(matches!(&plan.steps[0], Step::StartService { service: ServiceName::Kubelet, .. }));
}

#[test]
fn a_kubelet_that_has_no_configuration_yet_needs_a_good_one() {
    let Halt::Contradiction { what } = halts_at(&with_a_wrong_drop_in(with_authorities())) else { panic!() };
    assert!(what.contains("10-mine.conf") && what.contains("maxPodz"), "{what}");
}
