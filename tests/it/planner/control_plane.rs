//! Kubernetes' control plane: when it is made, changed, and left as it is.

use std::collections::BTreeMap;

use quorate::config::Settings;
use quorate::config::settings::AddonName;
use quorate::kubernetes::Component;
use quorate::model::containerd::{ContainerdConfiguration, ContainerdObservation};
use quorate::model::departure::TargetState;
use quorate::model::enrolment::{EnrolmentObservation, JoinFound, JoinObservation, JoinTerms, PublishedJoin};
use quorate::model::kubernetes::{
    ApiLease, ComponentObservation, ControlPlaneRecords, FirstThings, KubernetesObservation, LoadBalancing,
    NODE_SERVICES, Readiness, Rollout, RolloutState,
};
use quorate::model::load_balancer::{
    FoundLoadBalancers, HealthCheck, LoadBalancer, LoadBalancerKind, Scheme, TargetHealth,
};
use quorate::model::names::ClusterLeaves;
use quorate::model::node::{CgroupVersion, InstanceFacts, Machine, NodeFacts};
use quorate::model::plan::Subject;
use quorate::model::service::ServiceObservation;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::scene::*;

pub const MINUTE: i64 = 60_000;

pub fn kubernetes() -> Settings {
    settings_with("kubernetes: {version: v1.36.2}\n")
}

fn balancer(name: &str) -> LoadBalancer {
    LoadBalancer {
        name: name.to_owned(),
        kind: LoadBalancerKind::Network {
            arn: format!("arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/net/{name}/1"),
            target_group: format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/{name}/1")
                .parse()
                .unwrap(),
            by_address: false,
        },
        dns_name: format!("{name}.elb.amazonaws.com"),
        port: 6443,
        target_port: 6443,
        scheme: Scheme::Internal,
        health_check: HealthCheck {
            protocol: "HTTPS".to_owned(),
            path: Some("/readyz".to_owned()),
            port: None,
            interval_s: 10,
            unhealthy_threshold: 2,
        },
        deregistration_delay_s: 30,
        preserves_client_address: true,
    }
}

pub fn balancing(names: &[&str]) -> Fact<Option<LoadBalancing>> {
    Fact::Known(Some(LoadBalancing {
        found: FoundLoadBalancers {
            fit: names.iter().map(|name| balancer(name)).collect(),
            unfit: Vec::new(),
        },
        by_group: true,
        target: Fact::Known(TargetHealth::Healthy),
    }))
}

fn component() -> ComponentObservation {
    ComponentObservation {
        manifest: Fact::Known(None),
        rollout: Fact::Known(None),
        readiness: Readiness::NotReady("connection refused".to_owned()),
    }
}

/// A member that is whole, and nothing of Kubernetes yet but a load balancer.
pub fn bare() -> Observation {
    whole().but(|seen| {
        seen.kubernetes = KubernetesObservation {
            version: Fact::Known("v1.36.2".parse().unwrap()),
            node: Fact::Known(NodeFacts {
                instance: InstanceFacts::default(),
                interface_limits: Fact::Known(None),
                machine: Machine {
                    cpus: 2,
                    memory: 8 << 30,
                    swap: false,
                    kernel: "6.12".parse().unwrap(),
                    cgroup: CgroupVersion::V2,
                    nftables: true,
                    ecr_credential_provider: None,
                },
                drop_ins: Vec::new(),
            }),
            load_balancing: balancing(&["api"]),
            remembered_endpoint: Fact::Known(None),
            authorities: Fact::Known(None),
            leaves: Fact::Known(None),
            files: Fact::Known([].into()),
            components: Component::ALL.into_iter().map(|which| (which, component())).collect(),
            api_lease: Fact::Known(Some(lease(instance(2).as_str(), NOW, i32::MAX))),
            first_things: Fact::Known(FirstThings::default()),
            addons: AddonsObservation {
                shipped: Fact::Known(AddonDirectory::default()),
                operators: Fact::Known(AddonDirectory::default()),
                applied: Fact::Known([].into()),
                holding: Fact::Known(Vec::new()),
            },
            containerd: ContainerdObservation {
                version: Fact::Known(Some("2.1.4".parse().unwrap())),
                service: Fact::Known(stopped()),
                configuration: Fact::Known(ContainerdConfiguration::Absent),
            },
            logind: Fact::Known(None),
            services: NODE_SERVICES.map(|service| (service, Fact::Known(stopped()))).into(),
            enrolment: nobody_joins(),
            worker: quorate::model::worker::WorkerObservation::unknown("not asked for"),
        };
    })
}

pub fn stopped() -> ServiceObservation {
    ServiceObservation { state: ServiceState::Stopped, started_with: None, since: None }
}

/// What workers are told.
fn join_terms() -> JoinTerms {
    let settings = kubernetes();
    JoinTerms {
        cluster: settings.cluster.clone(),
        kubernetes_version: settings.kubernetes.version.unwrap(),
        endpoint: "api.elb.amazonaws.com:6443".parse().unwrap(),
        authority: "ca".to_owned(),
        service_subnet: settings.kubernetes.service_subnet,
        pod_subnet: settings.kubernetes.pod_subnet,
        cluster_domain: settings.kubernetes.cluster_domain,
    }
}

fn published(terms: JoinTerms, token_ends: i64) -> Fact<JoinFound> {
    Fact::Known(JoinFound::Published(PublishedJoin { terms, token: "abcdef".to_owned(), token_ends }))
}

/// Workers are told how to join, and nobody asks.
fn nobody_joins() -> EnrolmentObservation {
    EnrolmentObservation {
        join: JoinObservation {
            published: published(join_terms(), NOW + HOUR),
            token_taken: Fact::Known(true),
            authority: Fact::Known(Some("ca".to_owned())),
        },
        requests: Fact::Known(Vec::new()),
        resting: [].into(),
        nodes: Fact::Known([].into()),
        instances: Fact::Known([].into()),
        members: Fact::unknown("not asked for: there is no request"),
        gone: [].into(),
        shared_zone_told: Fact::Known(None),
    }
}

/// The same with the authorities made and written down.
pub fn with_authorities() -> Observation {
    bare().but(|seen| {
        let not_after = NOW + 9000 * HOUR;
        seen.kubernetes.authorities = Fact::Known(Some(Authority { fingerprint: "k".to_owned(), not_after }));
        records(seen).authorities = Some("k".to_owned());
    })
}

pub fn records(seen: &mut Observation) -> &mut ControlPlaneRecords {
    match &mut seen.etcd.cluster {
        Fact::Known(view) => &mut view.control_plane,
        Fact::Unknown(why) => panic!("no cluster: {why}"),
    }
}

/// What the plan does, one after the other, until it does nothing: each step has its effect.
pub fn settle(seen: Observation) -> (Vec<String>, Observation) {
    settle_with(&kubernetes(), seen)
}

pub fn settle_with(settings: &Settings, mut seen: Observation) -> (Vec<String>, Observation) {
    let mut done = Vec::new();
    for _ in 0..20 {
        let plan = plan_of(settings, &seen);
        if plan.steps.is_empty() {
            return (done, seen);
        }
        for step in plan.steps {
            done.push(step.name().to_owned());
            apply(&mut seen, step);
        }
    }
    panic!("it does not settle: {done:?}");
}

pub fn apply(seen: &mut Observation, step: Step) {
    let at = seen.at;
    match step {
        Step::CreateClusterAuthorities => {
            let not_after = NOW + 9000 * HOUR;
            seen.kubernetes.authorities =
                Fact::Known(Some(Authority { fingerprint: "k".to_owned(), not_after }));
        }
        Step::RecordClusterAuthorities { fingerprint } => records(seen).authorities = Some(fingerprint),
        Step::IssueClusterLeaves { request, authorities, etcd_authority } => {
            seen.kubernetes.leaves = Fact::Known(Some(ClusterLeaves {
                authorities,
                etcd_authority,
                names: request.names().unwrap(),
                not_before: at - MINUTE,
                not_after: at + 90 * 24 * HOUR,
            }));
        }
        Step::WriteKubernetesFiles { files, endpoint } => {
            seen.kubernetes.remembered_endpoint = Fact::Known(Some(endpoint));
            if let Fact::Known(found) = &mut seen.kubernetes.files {
                found.extend(files.iter().map(|file| (file.path.clone(), file.digest())));
            }
        }
        Step::RollOut { component, files, manifest } => {
            if let Fact::Known(found) = &mut seen.kubernetes.files {
                found.extend(files.iter().map(|file| (file.path.clone(), file.digest())));
            }
            let found = seen.kubernetes.components.get_mut(&component).unwrap();
            let previous = found.manifest.known().cloned().flatten();
            found.manifest = Fact::Known(Some(manifest.digest()));
            found.rollout = Fact::Known(Some(Rollout {
                digest: manifest.digest(),
                since: at,
                state: RolloutState::Pending,
                previous,
                failed: Vec::new(),
            }));
            found.readiness = Readiness::NotReady("starting".to_owned());
        }
        Step::KeepManifest { component } => {
            let found = seen.kubernetes.components.get_mut(&component).unwrap();
            if let Fact::Known(Some(rollout)) = &mut found.rollout {
                rollout.state = RolloutState::Good;
                rollout.previous = None;
            }
        }
        Step::TakeControlPlaneLock { instance } => records(seen).lock = Some(instance),
        Step::ReleaseControlPlaneLock { .. } => records(seen).lock = None,
        Step::TakeApiLease { instance, duration_s, version } => {
            assert_eq!(lease_of(seen).map(|lease| lease.version), version);
            seen.kubernetes.api_lease = Fact::Known(Some(lease(instance.as_str(), at, duration_s)));
        }
        Step::RenewApiLease { instance, version } => {
            let held = lease_of(seen).unwrap();
            assert_eq!((held.holder.as_deref(), held.version), (Some(instance.as_str()), version));
            seen.kubernetes.api_lease = Fact::Known(Some(lease(instance.as_str(), at, held.duration_s)));
        }
        Step::ApplyAddon { name, digest, .. } => {
            let applied = AppliedAddon {
                digest: Some(digest),
                objects: 1,
                missing: Fact::Known(Vec::new()),
                failure: None,
            };
            applied_addons(seen).insert(name, Fact::Known(applied));
        }
        Step::PruneAddon { name } => {
            applied_addons(seen).remove(&name);
        }
        Step::ConfigureContainerd { .. } => {
            seen.kubernetes.containerd.configuration =
                Fact::Known(ContainerdConfiguration::Present { systemd_cgroups: true });
        }
        Step::StartService { service, launch } | Step::RestartService { service, launch } => {
            let found = Fact::Known(ServiceObservation {
                state: ServiceState::Running,
                started_with: Some(launch.configuration),
                since: Some(at),
            });
            match service {
                ServiceName::Containerd => seen.kubernetes.containerd.service = found,
                other => drop(seen.kubernetes.services.insert(other, found)),
            }
        }
        Step::PublishJoin { terms, token_life_s } => {
            seen.kubernetes.enrolment.join.published = published(terms, at + token_life_s * 1000);
        }
        Step::ApplyObjects { objects, .. } => {
            first_things(seen).unfit.retain(|object| !objects.contains(object));
        }
        other => panic!("not the control plane's: {other:?}"),
    }
}

pub fn first_things(seen: &mut Observation) -> &mut FirstThings {
    match &mut seen.kubernetes.first_things {
        Fact::Known(found) => found,
        Fact::Unknown(why) => panic!("not known: {why}"),
    }
}

fn lease_of(seen: &Observation) -> Option<ApiLease> {
    seen.kubernetes.api_lease.known().cloned().flatten()
}

pub fn applied_addons(seen: &mut Observation) -> &mut BTreeMap<AddonName, Fact<AppliedAddon>> {
    match &mut seen.kubernetes.addons.applied {
        Fact::Known(found) => found,
        Fact::Unknown(why) => panic!("not known: {why}"),
    }
}

pub fn lease(holder: &str, renewed: i64, duration_s: i32) -> ApiLease {
    ApiLease {
        holder: Some(holder.to_owned()),
        renewed: Some(renewed),
        duration_s,
        version: format!("{renewed} by {holder}"),
    }
}

pub fn all_ready(seen: &mut Observation) {
    for found in seen.kubernetes.components.values_mut() {
        found.readiness = Readiness::Ready;
    }
}

/// A control plane that runs.
pub fn running() -> Observation {
    let (_, seen) = settle(with_authorities());
    let (_, seen) = settle(seen.but(all_ready));
    settle(seen.but(all_ready)).1
}

/// The same, with a setting changed that changes the API server's manifest.
pub fn changed() -> Settings {
    settings_with("kubernetes: {version: v1.36.2, apiServer: {goawayChance: 0.01}}\n")
}

pub fn does_with(settings: &Settings, seen: &Observation, steps: &[&str]) -> Plan {
    let plan = plan_of(settings, seen);
    assert_eq!(names(&plan), steps, "{:#?}", plan.report);
    plan
}

#[track_caller]
pub fn waits_for(seen: &Observation) -> WaitingOn {
    let plan = plan_of(&kubernetes(), seen);
    assert_eq!(names(&plan), [""; 0], "{:#?}", plan.report);
    plan.report.waiting.first().cloned().unwrap_or_else(|| panic!("{:#?}", plan.report))
}

#[track_caller]
pub fn halts_at(seen: &Observation) -> Halt {
    let plan = plan_of(&kubernetes(), seen);
    assert_eq!(names(&plan), [""; 0]);
    plan.report.halt.unwrap_or_else(|| panic!("{:#?}", plan.report.waiting))
}

#[test]
fn it_is_made_in_order_and_then_nothing_is_left_to_do() {
    let (done, seen) = settle(bare());
    let expected = [
        "createClusterAuthorities",
        "recordClusterAuthorities",
        "issueClusterLeaves",
        "writeKubernetesFiles",
        "rollOut",
        "configureContainerd",
        "startService",
        "startService",
        "startService",
    ];
    assert_eq!(done, expected);
    assert!(matches!(waits_for(&seen), WaitingOn::Component { component: Component::ApiServer, .. }));
    // The others can do nothing without the API server.
    let (done, seen) = settle(seen.but(all_ready));
    assert_eq!(done, ["keepManifest", "rollOut", "rollOut"]);
    assert!(matches!(waits_for(&seen), WaitingOn::Component { component: Component::ControllerManager, .. }));
    let (done, seen) = settle(seen.but(all_ready));
    assert_eq!(done, ["keepManifest"; 2]);
    let plan = plan_of(&kubernetes(), &seen);
    assert_eq!((plan.report.phase, plan.report.waiting, plan.report.halt), (Phase::Running, vec![], None));
}

#[test]
fn nothing_is_made_where_it_is_not_wanted_or_etcd_is_not_whole() {
    assert_eq!(names(&plan_of(&settings(), &bare())), [""; 0]);
    let joining = bare().but(|seen| seen.etcd.own = Fact::unknown("no answer"));
    assert!(!names(&plan_of(&kubernetes(), &joining)).contains(&"createClusterAuthorities"));
}

#[test]
fn authorities_are_made_once_and_never_where_there_was_a_life() {
    // Written down by whoever made them, and gone since.
    let lost = with_authorities().but(|seen| seen.kubernetes.authorities = Fact::Known(None));
    assert_eq!(halts_at(&lost), Halt::ClusterAuthoritiesLost);
    // Not written down, but this machine has certificates of some.
    let unrecorded = running().but(|seen| {
        seen.kubernetes.authorities = Fact::Known(None);
        records(seen).authorities = None;
    });
    assert_eq!(halts_at(&unrecorded), Halt::ClusterAuthoritiesLost);
    let unknown = bare().but(|seen| seen.kubernetes.authorities = Fact::unknown("throttled"));
    assert!(matches!(waits_for(&unknown), WaitingOn::Answer { about: Subject::ClusterAuthorities, .. }));
    let others = running().but(|seen| records(seen).authorities = Some("others".to_owned()));
    assert!(matches!(halts_at(&others), Halt::Contradiction { .. }));
    let unset = bare().but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert_eq!(waits_for(&unset), WaitingOn::Clock);
}

#[test]
fn a_control_plane_that_runs_goes_on_when_answers_are_missing() {
    let forgets: [fn(&mut Observation); 4] = [
        |seen| seen.kubernetes.authorities = Fact::unknown("throttled"),
        |seen| seen.kubernetes.authorities = Fact::Known(None),
        |seen| seen.kubernetes.load_balancing = Fact::unknown("throttled"),
        |seen| seen.kubernetes.load_balancing = balancing(&[]),
    ];
    for forget in forgets {
        let plan = plan_of(&kubernetes(), &running().but(forget));
        assert_eq!(names(&plan), [""; 0]);
        assert_eq!((plan.report.waiting, plan.report.halt), (vec![], None));
        assert_eq!(plan.report.warnings.len(), 1, "{:?}", plan.report.warnings);
    }
}

#[test]
fn a_load_balancer_is_waited_for_and_two_are_refused() {
    let none = with_authorities().but(|seen| seen.kubernetes.load_balancing = balancing(&[]));
    assert_eq!(waits_for(&none), WaitingOn::LoadBalancer);
    let two = with_authorities().but(|seen| seen.kubernetes.load_balancing = balancing(&["a", "b"]));
    assert!(matches!(halts_at(&two), Halt::AmbiguousLoadBalancers { found } if found.len() == 2));
    let named = settings_with("kubernetes: {version: v1.36.2, endpoint: api.example.com}\n");
    let seen = with_authorities().but(|seen| seen.kubernetes.load_balancing = Fact::Known(None));
    assert_eq!(plan_of(&named, &seen).steps[0].name(), "issueClusterLeaves");
}

#[test]
fn a_health_check_that_can_never_pass_is_told() {
    let checked = |kind: LoadBalancerKind, protocol: &str| {
        running().but(|seen| {
            let Fact::Known(Some(balancing)) = &mut seen.kubernetes.load_balancing else { panic!("known") };
            balancing.found.fit[0].kind = kind;
            balancing.found.fit[0].health_check.protocol = protocol.to_owned();
        })
    };
    let network = || balancer("front").kind;
    let strict = settings_with("kubernetes: {version: v1.36.2, apiServer: {tlsMinVersion: VersionTLS13}}\n");
    for (settings, kind, protocol, passes) in [
        (kubernetes(), network(), "HTTPS", true),
        (strict.clone(), network(), "HTTPS", false),
        (strict.clone(), network(), "TCP", true),
        (kubernetes(), network(), "HTTP", false),
        (kubernetes(), LoadBalancerKind::Classic, "TCP", true),
        (kubernetes(), LoadBalancerKind::Classic, "SSL", false),
        (kubernetes(), LoadBalancerKind::Classic, "HTTPS", false),
    ] {
        let warnings = plan_of(&settings, &checked(kind, protocol)).report.warnings;
        let told = warnings.iter().any(|warning| matches!(warning, Warning::HealthCheckNeverPasses { .. }));
        assert_eq!(told, !passes, "{protocol}: {warnings:?}");
    }
}

#[test]
fn another_load_balancer_goes_into_certificates_and_files() {
    let moved = running().but(|seen| seen.kubernetes.load_balancing = balancing(&["other"]));
    let (done, seen) = settle(moved);
    assert_eq!(done, ["issueClusterLeaves", "writeKubernetesFiles"]);
    let endpoint = seen.kubernetes.remembered_endpoint.known().cloned().flatten().unwrap();
    assert_eq!(endpoint.host(), "other.elb.amazonaws.com");
}

/// More than half of the leaves' life is over; what reads them when it starts was started with these.
pub fn with_old_leaves(seen: &mut Observation) {
    if let Fact::Known(Some(leaves)) = &mut seen.kubernetes.leaves {
        leaves.not_before = seen.at - 50 * 24 * HOUR;
        leaves.not_after = seen.at + 40 * 24 * HOUR;
    }
    for step in plan_of(&kubernetes(), seen).steps {
        if matches!(step, Step::RestartService { service: ServiceName::KubeProxy, .. }) {
            apply(seen, step);
        }
    }
}

#[test]
fn leaves_are_renewed_at_half_their_life_without_a_wait() {
    let old = running().but(with_old_leaves);
    let plan = does_with(&kubernetes(), &old, &["issueClusterLeaves"]);
    assert_eq!(plan.report.waiting, []);
    let unset = old.but(|seen| seen.clock_synchronised = Fact::Known(false));
    does_with(&kubernetes(), &unset, &[]);
}

#[test]
fn a_machine_that_its_group_does_not_register_registers_itself_when_it_is_ready() {
    let alone = |seen: &mut Observation| {
        if let Fact::Known(Some(balancing)) = &mut seen.kubernetes.load_balancing {
            balancing.by_group = false;
            balancing.target = Fact::Known(TargetHealth::NotRegistered);
        }
    };
    does_with(&kubernetes(), &running().but(alone), &["registerTarget"]);
    let not_ready = running().but(alone).but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        found.readiness = Readiness::NotReady("500 not etcd".to_owned());
    });
    does_with(&kubernetes(), &not_ready, &[]);
    let unknown = running().but(alone).but(|seen| {
        if let Fact::Known(Some(balancing)) = &mut seen.kubernetes.load_balancing {
            balancing.target = Fact::unknown("throttled");
        }
    });
    does_with(&kubernetes(), &unknown, &[]);
}

#[test]
fn a_machine_that_had_left_and_is_back_registers_itself_where_its_group_wants_it_in_service() {
    let back = |target: Fact<Option<TargetState>>| {
        running().but(|seen| {
            seen.departure.target = target;
            if let Fact::Known(Some(balancing)) = &mut seen.kubernetes.load_balancing {
                balancing.target = Fact::Known(TargetHealth::NotRegistered);
            }
        })
    };
    does_with(&kubernetes(), &back(Fact::Known(Some(TargetState::InService))), &["registerTarget"]);
    // The group has taken it out, or nobody says whether it has.
    does_with(&kubernetes(), &back(Fact::Known(Some(TargetState::Other("Standby".to_owned())))), &[]);
    does_with(&kubernetes(), &back(Fact::unknown("no answer")), &[]);
}

/// The API server's manifest that this machine comes to, and one flag's value in it.
fn api_server_flag(mut seen: Observation, flag: &str) -> String {
    let manifest = (0..20).find_map(|_| {
        let mut manifest = None;
        for step in plan_of(&kubernetes(), &seen).steps {
            if let Step::RollOut { component: Component::ApiServer, manifest: found, .. } = &step {
                manifest = Some(found.content.clone());
            }
            apply(&mut seen, step);
        }
        manifest
    });
    let manifest = manifest.unwrap();
    let value = manifest.lines().find_map(|line| line.trim().strip_prefix(&format!("- --{flag}=")));
    value.unwrap_or_else(|| panic!("no --{flag} in {manifest}")).to_owned()
}

fn standing_by(mut seen: Observation) -> Observation {
    seen.disk = Fact::Known(None);
    seen.volumes().retain(|id, _| *id != volume(1));
    seen.etcd.own = Fact::unknown("etcd does not run here");
    seen.etcd.service = Fact::Known(ServiceState::Stopped);
    seen
}

#[test]
fn a_member_talks_to_its_own_etcd_and_a_standby_to_all() {
    let own = format!("https://{}:2379", address(1));
    assert_eq!(api_server_flag(with_authorities(), "etcd-servers"), own);
    let all: Vec<String> = (1..=3).map(|n| format!("https://{}:2379", address(n))).collect();
    assert_eq!(api_server_flag(standing_by(with_authorities()), "etcd-servers"), all.join(","));
    let unrecorded = standing_by(with_authorities()).but(|seen| {
        if let Fact::Known(view) = &mut seen.etcd.cluster {
            view.records.clear();
        }
    });
    let plan = does_with(&kubernetes(), &unrecorded, &[]);
    assert_eq!(plan.report.waiting, [WaitingOn::FreeSlot, WaitingOn::Quorum]);
}

#[test]
fn a_standby_has_certificates_of_its_own() {
    let standby = standing_by(whole()).but(|seen| seen.leaves = Fact::Known(None));
    let plan = does_with(&kubernetes(), &standby, &["issueLeaves"]);
    assert_eq!((plan.report.phase, plan.report.waiting), (Phase::Standby, vec![WaitingOn::FreeSlot]));
    let Some(Step::IssueLeaves { slot: None, .. }) = plan.steps.first() else { panic!("{:?}", plan.steps) };
}

#[test]
fn nothing_is_rendered_while_nobody_knows_by_which_authorities() {
    // Without their fingerprint every manifest would be another one, and be rolled out.
    let unknown = running().but(|seen| {
        seen.kubernetes.authorities = Fact::unknown("throttled");
        records(seen).authorities = None;
    });
    assert!(matches!(waits_for(&unknown), WaitingOn::Answer { about: Subject::ClusterAuthorities, .. }));
}
