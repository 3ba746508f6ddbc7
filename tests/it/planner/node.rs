//! What runs on every node: containerd, kubelet and kube-proxy.

use quorate::model::containerd::{ContainerdConfiguration, ContainerdObservation};
use quorate::model::plan::Subject;
use quorate::model::service::ServiceObservation;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::control_plane::*;
use super::scene::{Change as _, HOUR, settings_with};

fn containerd(change: impl FnOnce(&mut ContainerdObservation)) -> Observation {
    running().but(|seen| change(&mut seen.kubernetes.containerd))
}

/// The services that the plan starts, or starts anew.
fn touched(plan: &Plan) -> Vec<(&'static str, ServiceName)> {
    let of = |step: &Step| match step {
        Step::StartService { service, .. } => Some(("start", *service)),
        Step::RestartService { service, .. } => Some(("restart", *service)),
        _ => None,
    };
    plan.steps.iter().filter_map(of).collect()
}

#[test]
fn a_node_that_runs_is_left_alone() {
    assert_eq!(touched(&plan_of(&kubernetes(), &running())), []);
}

#[test]
fn a_service_that_ended_is_started_and_its_end_told() {
    for (which, name) in [(ServiceName::Kubelet, "kubelet"), (ServiceName::KubeProxy, "kube-proxy")] {
        let ended = running().but(|seen| {
            let failed = ServiceState::Failed("exit status 1".to_owned());
            let found = ServiceObservation { state: failed, ..stopped() };
            seen.kubernetes.services.insert(which, Fact::Known(found));
        });
        let plan = plan_of(&kubernetes(), &ended);
        assert_eq!(touched(&plan), [("start", which)]);
        let told = plan.report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(told.contains(name) && told.contains("exit status 1"), "{told}");
    }
}

#[test]
fn only_what_reads_a_changed_file_is_started_anew() {
    let touched = |settings: &str| touched(&plan_of(&settings_with(settings), &running()));
    let labelled = "kubernetes: {version: v1.36.2, nodeLabels: [team=a]}\n";
    assert_eq!(touched(labelled), [("restart", ServiceName::Kubelet)]);
    let fewer = "kubernetes: {version: v1.36.2, kubelet: {maxPods: 42}}\n";
    assert_eq!(touched(fewer), [("restart", ServiceName::Kubelet)]);
}

#[test]
fn what_is_not_known_of_a_service_stops_and_starts_nothing() {
    let seen = running().but(|seen| {
        seen.kubernetes.services.insert(ServiceName::Kubelet, Fact::unknown("no answer from systemd"));
    });
    let plan = plan_of(&kubernetes(), &seen);
    assert_eq!(touched(&plan), []);
    let why = "no answer from systemd".to_owned();
    assert!(plan.report.warnings.contains(&Warning::Answer { subject: Subject::Services, why }));
    let forgets: [fn(&mut ContainerdObservation); 4] = [
        |seen| seen.version = Fact::unknown("timed out"),
        |seen| seen.version = Fact::Known(None),
        |seen| seen.configuration = Fact::unknown("timed out"),
        |seen| seen.service = Fact::unknown("timed out"),
    ];
    for forget in forgets {
        let plan = plan_of(&kubernetes(), &containerd(forget));
        assert_eq!((touched(&plan), plan.report.waiting), (vec![], vec![]));
        assert_eq!(plan.report.warnings.len(), 1, "{:?}", plan.report.warnings);
    }
}

#[test]
fn containerd_is_configured_only_where_it_has_no_configuration() {
    let absent = containerd(|seen| seen.configuration = Fact::Known(ContainerdConfiguration::Absent));
    let plan = plan_of(&kubernetes(), &absent);
    assert_eq!(plan.steps[0].name(), "configureContainerd");
    // It runs with its own defaults, and reads its file when it starts.
    assert_eq!(touched(&plan), [("restart", ServiceName::Containerd)]);
    let theirs = containerd(|seen| {
        seen.configuration = Fact::Known(ContainerdConfiguration::Present { systemd_cgroups: false });
    });
    let plan = plan_of(&kubernetes(), &theirs);
    assert_eq!(plan.steps, []);
    let [Warning::Service { service: ServiceName::Containerd, why }] = plan.report.warnings.as_slice() else {
        panic!("{:?}", plan.report.warnings)
    };
    assert!(why.contains("SystemdCgroup"), "{why}");
}

#[test]
fn a_containerd_that_will_not_do_is_waited_for_with_what_to_do() {
    let waits_for = |seen: &Observation| {
        let plan = plan_of(&kubernetes(), seen);
        assert_eq!(touched(&plan), []);
        let [WaitingOn::Service { service: ServiceName::Containerd, why }] = plan.report.waiting.as_slice()
        else {
            panic!("{:?}", plan.report)
        };
        why.clone()
    };
    let missing = containerd(|seen| {
        seen.version = Fact::Known(None);
        seen.service = Fact::Known(stopped());
    });
    assert!(waits_for(&missing).contains("install containerd 2"));
    // It has no unit either, which systemd says in its own way.
    let nothing = containerd(|seen| {
        seen.version = Fact::Known(None);
        seen.service = Fact::unknown("not-found");
    })
    .but(|seen| drop(seen.kubernetes.services.insert(ServiceName::Kubelet, Fact::Known(stopped()))));
    assert!(waits_for(&nothing).contains("install containerd 2"));
    let silent = nothing.but(|seen| seen.kubernetes.containerd.version = Fact::unknown("timed out"));
    let plan = plan_of(&kubernetes(), &silent);
    let why = "not-found".to_owned();
    assert_eq!(touched(&plan), []);
    assert_eq!(plan.report.waiting, [WaitingOn::Answer { about: Subject::Containerd, why }]);
    let old = containerd(|seen| {
        seen.version = Fact::Known(Some("1.7.24".parse().unwrap()));
        seen.service = Fact::Known(stopped());
    });
    assert!(waits_for(&old).contains("1.7.24"));
    // One that runs is not taken away.
    let running = containerd(|seen| seen.version = Fact::Known(Some("1.7.24".parse().unwrap())));
    assert_eq!(plan_of(&kubernetes(), &running).report.waiting, []);
}

/// What it reads at its start has the leaves' key and certificate, and it does not read that again.
#[test]
fn only_kube_proxy_is_started_anew_when_the_leaves_were_renewed() {
    let began_an_hour_later = |seen: &mut Observation| {
        let Fact::Known(Some(leaves)) = &mut seen.kubernetes.leaves else { panic!("no leaves") };
        leaves.not_before += HOUR;
        seen.at += HOUR;
    };
    let renewed = running().but(began_an_hour_later);
    let plan = plan_of(&kubernetes(), &renewed);
    assert_eq!(touched(&plan), [("restart", ServiceName::KubeProxy)]);
    assert_eq!(plan.steps.len(), 1, "{:?}", plan.steps);
    let (done, seen) = settle(renewed);
    assert_eq!((done.len(), plan_of(&kubernetes(), &seen).steps), (1, Vec::new()));
}

#[test]
fn nothing_is_started_anew_while_the_leaves_are_not_known() {
    let unknown = running().but(|seen| seen.kubernetes.leaves = Fact::unknown("the file can't be read"));
    assert_eq!(plan_of(&kubernetes(), &unknown).steps, []);
}
