//! A shutdown waits for pods as long as the kubelet does.

use quorate::kubernetes::paths;
use quorate::model::kubernetes::LogindObservation;
use quorate::model::node::DropIn;
use quorate::model::plan::Subject;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::control_plane::*;
use super::scene::Change as _;

fn logind(longest_delay_ms: u64, told: Option<&str>) -> Fact<Option<LogindObservation>> {
    Fact::Known(Some(LogindObservation { longest_delay_ms, told: told.map(str::to_owned) }))
}

fn plan(logind: Fact<Option<LogindObservation>>) -> Plan {
    plan_of(&kubernetes(), &running().but(|seen| seen.kubernetes.logind = logind))
}

/// The digest of logind's file, as it lies on the machine.
fn digest() -> String {
    let Fact::Known(files) = running().kubernetes.files else { panic!("the files are known") };
    files[paths::LOGIND].clone()
}

#[test]
fn logind_that_allows_enough_is_left_alone() {
    for longest in [3_600_000, u64::MAX] {
        let plan = plan(logind(longest, None));
        assert_eq!((plan.steps, plan.report.warnings), (vec![], vec![]), "{longest}");
    }
    assert_eq!(plan(Fact::Known(None)).steps, []);
}

#[test]
fn logind_reads_the_file_once_and_what_still_counts_for_less_is_told() {
    for told in [None, Some("the file before")] {
        let plan = plan(logind(5_000, told));
        assert_eq!(plan.steps, [Step::ReloadLogind { digest: digest() }]);
        assert_eq!(plan.report.warnings, []);
    }
    let plan = plan(logind(5_000, Some(&digest())));
    assert_eq!(plan.steps, []);
    let [Warning::ShutdownCutShort { found_ms: 5_000, wanted_ms }] = plan.report.warnings.as_slice() else {
        panic!("{:?}", plan.report.warnings)
    };
    assert!(*wanted_ms > 30_000, "{wanted_ms}");
}

#[test]
fn logind_reads_the_file_after_it_is_written_and_before_the_kubelet_starts() {
    let text = "shutdownGracePeriod: 5m\n".to_owned();
    let drop_in = DropIn { path: "/etc/quorate/kubelet.d/10.conf".to_owned(), text };
    let longer = running().but(|seen| {
        let Fact::Known(node) = &mut seen.kubernetes.node else { panic!("the machine is known") };
        node.drop_ins = vec![drop_in];
        seen.kubernetes.logind = logind(5_000, Some(&digest()));
    });
    let plan = plan_of(&kubernetes(), &longer);
    let names: Vec<&str> = plan.steps.iter().map(Step::name).collect();
    let order = ["writeKubernetesFiles", "reloadLogind", "restartService"]
        .map(|name| names.iter().position(|step| *step == name));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{names:?}");
}

#[test]
fn what_is_not_known_of_logind_is_told_and_nothing_is_done() {
    let plan = plan(Fact::unknown("the bus is silent"));
    assert_eq!(plan.steps, []);
    let warning = Warning::Answer { subject: Subject::Logind, why: "the bus is silent".to_owned() };
    assert_eq!((plan.report.warnings, plan.report.waiting), (vec![warning], vec![]));
}
