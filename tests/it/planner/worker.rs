//! A worker: how it joins, follows its cluster, and stays a node.

use quorate::config::{InstanceTags, Settings, load};
use quorate::kubernetes::{digest, join, paths};
use quorate::model::containerd::{ContainerdConfiguration, ContainerdObservation};
use quorate::model::enrolment::{JoinTerms, NodeReadiness};
use quorate::model::kubernetes::Readiness;
use quorate::model::node::{CgroupVersion, InstanceFacts, Machine, NodeFacts};
use quorate::model::plan::Subject;
use quorate::model::service::ServiceObservation;
use quorate::model::worker::*;
use quorate::model::*;

use super::scene::{Change as _, HOUR, NOW, names, scene};

const CA: &str = "-----BEGIN CERTIFICATE-----\none\n-----END CERTIFICATE-----\n";
const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\ntwo\n-----END CERTIFICATE-----\n";
const API: &str = "demo-0123.elb.eu-west-1.amazonaws.com:6443";
const OTHER_API: &str = "demo-4567.elb.eu-west-1.amazonaws.com:6443";
const USER: &str = "system:node:i-00000001";

fn settings_with(more: &str) -> Settings {
    let text = format!("cluster: demo\nbucket: demo-quorate\n{more}");
    let tags = InstanceTags { cluster: None, role: Some("worker".to_owned()) };
    load(std::path::Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings
}

fn plan_with(more: &str, seen: &Observation) -> Plan {
    quorate::plan::plan(&settings_with(more), seen)
}

fn plan(seen: &Observation) -> Plan {
    plan_with("", seen)
}

fn told(ca: &str, endpoint: &str) -> Told {
    Told {
        terms: JoinTerms {
            cluster: "demo".parse().unwrap(),
            kubernetes_version: "v1.36.2".parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
            authority: digest(ca.as_bytes()),
            service_subnet: "10.96.0.0/12".parse().unwrap(),
            pod_subnet: None,
            cluster_domain: "cluster.local".parse().unwrap(),
        },
        certificate_authority: ca.to_owned(),
    }
}

fn published(told: Told) -> Fact<Option<PublishedTold>> {
    Fact::Known(Some(PublishedTold { told, token: "abcdef".to_owned(), token_ends: NOW + HOUR / 2 }))
}

fn stopped() -> ServiceObservation {
    ServiceObservation { state: ServiceState::Stopped, started_with: None, since: None }
}

/// A machine that boots for the first time in a cluster that is there.
fn fresh() -> Observation {
    scene().but(|seen| {
        let kubernetes = &mut seen.kubernetes;
        kubernetes.version = Fact::Known("v1.36.2".parse().unwrap());
        kubernetes.node = Fact::Known(NodeFacts {
            instance: InstanceFacts {
                instance_type: Some("m7g.large".to_owned()),
                capacity_type: None,
                private_dns_name: Some("ip-10-0-1-10.eu-west-1.compute.internal".to_owned()),
            },
            interface_limits: Fact::Known(None),
            machine: Machine {
                cpus: 2,
                memory: 8 << 30,
                swap: false,
                kernel: "6.1".parse().unwrap(),
                cgroup: CgroupVersion::V2,
                nftables: true,
                ecr_credential_provider: None,
            },
            drop_ins: Vec::new(),
        });
        kubernetes.files = Fact::Known([].into());
        kubernetes.remembered_endpoint = Fact::Known(None);
        kubernetes.containerd = ContainerdObservation {
            version: Fact::Known(Some("2.1.4".parse().unwrap())),
            configuration: Fact::Known(ContainerdConfiguration::Present { systemd_cgroups: true }),
            service: Fact::Known(ServiceObservation { state: ServiceState::Running, ..stopped() }),
        };
        kubernetes.logind = Fact::Known(None);
        for service in [ServiceName::Kubelet, ServiceName::KubeProxy] {
            kubernetes.services.insert(service, Fact::Known(stopped()));
        }
        kubernetes.worker = WorkerObservation {
            published: published(told(CA, API)),
            remembered: Fact::Known(None),
            certificate: Fact::Known(None),
            kubeconfig: Fact::Known(None),
            bootstrap: Fact::Known(None),
            api: Readiness::Ready,
            node: Fact::unknown("not asked for"),
        };
    })
}

/// Does to the scene what the plan's steps do to the world.
fn followed(mut seen: Observation, plan: &Plan) -> Observation {
    for step in &plan.steps {
        let kubernetes = &mut seen.kubernetes;
        match step {
            Step::WriteKubernetesFiles { files, endpoint } => {
                let Fact::Known(found) = &mut kubernetes.files else { panic!("{:?}", kubernetes.files) };
                for file in files {
                    match file.path.as_str() {
                        paths::KUBELET_KUBECONFIG => {
                            let way = quorate::kubernetes::kubeconfig::read(&file.content).unwrap();
                            kubernetes.worker.kubeconfig = Fact::Known(Some(WayIn {
                                server: way.server,
                                authority: digest(way.authority.as_bytes()),
                                credential: WayInCredential::RotatingCertificate,
                            }));
                        }
                        paths::TOLD => {
                            let cluster = "demo".parse().unwrap();
                            let read = join::read_told(file.content.as_bytes(), &cluster);
                            kubernetes.worker.remembered = Fact::Known(Some(read.unwrap()));
                        }
                        _ => {}
                    }
                    found.insert(file.path.clone(), file.digest());
                }
                kubernetes.remembered_endpoint = Fact::Known(Some(endpoint.clone()));
            }
            Step::WriteBootstrapKubeconfig { token, server, authority } => {
                kubernetes.worker.bootstrap = Fact::Known(Some(WayIn {
                    server: server.clone(),
                    authority: authority.clone(),
                    credential: WayInCredential::Token { id: token.clone(), written: seen.at },
                }));
            }
            Step::SetNodeIdentityAside { .. } => kubernetes.worker.certificate = Fact::Known(None),
            Step::StartService { service, launch } | Step::RestartService { service, launch } => {
                let running = ServiceObservation {
                    state: ServiceState::Running,
                    started_with: Some(launch.configuration.clone()),
                    since: Some(seen.at + 1),
                };
                kubernetes.services.insert(*service, Fact::Known(running));
            }
            other => panic!("{other:?}"),
        }
    }
    seen
}

fn certified(mut seen: Observation, ca: &str) -> Observation {
    let worker = &mut seen.kubernetes.worker;
    worker.certificate = Fact::Known(Some(NodeCertificate {
        user: USER.to_owned(),
        signed_by: Some(digest(ca.as_bytes())),
        not_after: NOW + 1000 * HOUR,
    }));
    if let Fact::Known(Some(way)) = &worker.bootstrap {
        let credential = WayInCredential::RotatingCertificate;
        worker.kubeconfig = Fact::Known(Some(WayIn { credential, ..way.clone() }));
    }
    worker.node = Fact::Known(None);
    seen
}

fn with_node(mut seen: Observation, readiness: NodeReadiness, said: Option<&str>) -> Observation {
    let said = said.map(ToOwned::to_owned);
    seen.kubernetes.worker.node = Fact::Known(Some(OwnNode {
        name: "i-00000001".to_owned(),
        readiness,
        said,
        cordoned: false,
        cordoned_here: false,
    }));
    seen
}

/// A worker that asks for its certificate.
fn asking() -> Observation {
    let seen = fresh();
    let plan = plan(&seen);
    followed(seen, &plan)
}

/// A worker whose node is ready.
fn running() -> Observation {
    let seen = certified(asking(), CA);
    let plan = plan(&seen);
    with_node(followed(seen, &plan), NodeReadiness::Ready, None)
}

#[track_caller]
fn waits(seen: &Observation) -> WaitingOn {
    let plan = plan(seen);
    assert_eq!((names(&plan), &plan.report.halt), (vec![], &None), "{:#?}", plan.report);
    plan.report.waiting.first().cloned().unwrap_or_else(|| panic!("{:#?}", plan.report))
}

fn services(plan: &Plan) -> Vec<(&'static str, ServiceName)> {
    let of = |step: &Step| match step {
        Step::StartService { service, .. } => Some(("start", *service)),
        Step::RestartService { service, .. } => Some(("restart", *service)),
        _ => None,
    };
    plan.steps.iter().filter_map(of).collect()
}

fn written(plan: &Plan) -> Vec<&str> {
    let files = plan.steps.iter().find_map(|step| match step {
        Step::WriteKubernetesFiles { files, .. } => Some(files),
        _ => None,
    });
    files.into_iter().flatten().map(|file| file.path.as_str()).collect()
}

#[test]
fn a_worker_joins_by_its_token_and_becomes_a_node() {
    let seen = fresh();
    let first = plan(&seen);
    assert_eq!(names(&first), ["writeKubernetesFiles", "writeBootstrapKubeconfig", "startService"]);
    assert_eq!(services(&first), [("start", ServiceName::Kubelet)]);
    assert_eq!(first.report.phase, Phase::Joining);

    let seen = followed(seen, &first);
    assert_eq!(waits(&seen), WaitingOn::NodeCertificate { token: "abcdef".to_owned() });

    let seen = certified(seen, CA);
    let then = plan(&seen);
    assert_eq!(services(&then), [("start", ServiceName::KubeProxy)], "the kubelet is not started anew");
    assert_eq!(written(&then), [""; 0], "what the kubelet wrote leads to the same place");

    let seen = followed(seen, &then);
    assert_eq!(waits(&seen), WaitingOn::NodeRegistered);
    let unready = with_node(seen.clone(), NodeReadiness::NotReady, Some("cni plugin not initialized"));
    assert_eq!(waits(&unready), WaitingOn::NodeReady { why: "cni plugin not initialized".to_owned() });
    let ready = plan(&with_node(seen, NodeReadiness::Ready, None));
    assert_eq!((names(&ready), ready.report.phase), (vec![], Phase::Running));
    assert_eq!(ready.report.warnings, []);
}

#[test]
fn nothing_is_done_before_there_is_a_cluster() {
    let early = fresh().but(|seen| seen.kubernetes.worker.published = Fact::Known(None));
    assert_eq!(waits(&early), WaitingOn::Join);
    let damaged =
        fresh().but(|seen| seen.kubernetes.worker.published = Fact::unknown("it can't be understood"));
    let why = "it can't be understood".to_owned();
    assert_eq!(waits(&damaged), WaitingOn::Answer { about: Subject::WorkersObject, why });
    // An endpoint in the configuration is no certificate of who answers there.
    let plan = plan_with(&format!("kubernetes: {{endpoint: \"{API}\"}}\n"), &early);
    assert_eq!((names(&plan), plan.report.waiting), (vec![], vec![WaitingOn::Join]));
}

#[test]
fn an_endpoint_in_the_configuration_counts_more_than_the_published_one() {
    let more = format!("kubernetes: {{endpoint: \"{OTHER_API}\"}}\n");
    let plan = plan_with(&more, &fresh());
    let Some(Step::WriteBootstrapKubeconfig { server, .. }) = plan.steps.get(1) else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(server.to_string(), format!("https://{OTHER_API}"));
}

#[test]
fn a_token_that_ended_is_not_given_to_the_kubelet() {
    let late = fresh().but(|seen| seen.at = NOW + HOUR);
    let plan = plan(&late);
    assert_eq!(names(&plan), ["writeKubernetesFiles"]);
    assert_eq!(plan.report.waiting, [WaitingOn::JoinToken { ended: NOW + HOUR / 2 }]);
}

#[test]
fn a_new_token_reaches_a_kubelet_that_still_asks_and_no_other() {
    let renew = |mut seen: Observation| {
        if let Fact::Known(Some(published)) = &mut seen.kubernetes.worker.published {
            published.token = "fedcba".to_owned();
        }
        seen
    };
    let plan_of_asking = plan(&renew(asking()));
    assert_eq!(names(&plan_of_asking), ["writeBootstrapKubeconfig", "restartService"]);
    assert_eq!(plan(&renew(running())).steps, []);
    // Cut off between the two: the file is younger than the kubelet.
    let cut = renew(asking()).but(|seen| {
        seen.at += 5000;
        let plan = plan(seen);
        let only = Plan { steps: plan.steps[..1].to_vec(), ..plan };
        *seen = followed(seen.clone(), &only);
    });
    assert_eq!(services(&plan(&cut)), [("restart", ServiceName::Kubelet)]);
}

#[test]
fn a_clock_that_is_not_set_is_waited_for_before_the_kubelet_asks() {
    let seen = fresh().but(|seen| seen.clock_synchronised = Fact::Known(false));
    let plan = plan(&seen);
    assert_eq!((services(&plan), plan.report.waiting), (vec![], vec![WaitingOn::Clock]));
    // One that has joined does not wait for it.
    let joined = running().but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert_eq!(super::worker::plan(&joined).report.phase, Phase::Running);
}

#[test]
fn what_the_api_does_not_answer_is_told() {
    let why = || "failed to lookup address information: Name or service not known".to_owned();
    let silent = asking().but(|seen| seen.kubernetes.worker.api = Readiness::NotReady(why()));
    assert_eq!(waits(&silent), WaitingOn::Api { endpoint: API.to_owned(), why: why() });
    let later = running().but(|seen| {
        seen.kubernetes.worker.api = Readiness::NotReady(why());
        seen.kubernetes.worker.node = Fact::unknown("timed out");
    });
    assert_eq!(waits(&later), WaitingOn::Api { endpoint: API.to_owned(), why: why() });
}

#[test]
fn a_kubelet_that_does_not_stay_up_is_started_again_and_its_end_told() {
    for seen in [asking(), running()] {
        let failed = seen.but(|seen| {
            let state = ServiceState::Failed("exit status 1: unknown flag".to_owned());
            let found = ServiceObservation { state, ..stopped() };
            seen.kubernetes.services.insert(ServiceName::Kubelet, Fact::Known(found));
        });
        let plan = plan(&failed);
        assert_eq!(services(&plan), [("start", ServiceName::Kubelet)]);
        let why = "exit status 1: unknown flag".to_owned();
        let service = ServiceName::Kubelet;
        assert_eq!(plan.report.waiting, [WaitingOn::Service { service, why }]);
    }
}

#[test]
fn a_worker_that_has_joined_needs_no_s3_to_boot() {
    for published in [Fact::unknown("503 SlowDown"), Fact::Known(None)] {
        let boots = running().but(|seen| {
            seen.kubernetes.worker.published = published.clone();
            for service in [ServiceName::Kubelet, ServiceName::KubeProxy] {
                seen.kubernetes.services.insert(service, Fact::Known(stopped()));
            }
        });
        let plan = plan(&boots);
        let both = [("start", ServiceName::Kubelet), ("start", ServiceName::KubeProxy)];
        assert_eq!(services(&plan), both, "{:#?}", plan.report);
        let [Warning::Answer { subject: Subject::WorkersObject, .. }] = plan.report.warnings.as_slice()
        else {
            panic!("{:?}", plan.report.warnings)
        };
    }
}

#[test]
fn another_endpoint_is_followed_with_the_same_certificate() {
    let seen = running().but(|seen| seen.kubernetes.worker.published = published(told(CA, OTHER_API)));
    let then = plan(&seen);
    assert_eq!(names(&then), ["writeKubernetesFiles", "restartService", "restartService"]);
    let mut files = written(&then);
    files.sort_unstable();
    assert_eq!(files, [paths::KUBE_PROXY_KUBECONFIG, paths::KUBELET_KUBECONFIG, paths::TOLD]);
    assert_eq!(plan(&followed(seen, &then)).steps, []);
}

#[test]
fn another_authority_is_followed_with_another_identity() {
    let changed = published(told(OTHER_CA, API));
    let seen = running().but(|seen| {
        seen.kubernetes.worker.published = changed.clone();
        seen.kubernetes.worker.node = Fact::unknown("certificate signed by unknown authority");
    });
    let then = plan(&seen);
    assert_eq!(
        names(&then),
        ["setNodeIdentityAside", "writeKubernetesFiles", "writeBootstrapKubeconfig", "restartService"]
    );
    let again = followed(seen, &then);
    assert_eq!(waits(&again), WaitingOn::NodeCertificate { token: "abcdef".to_owned() });
    let back = certified(again, OTHER_CA);
    assert_eq!(services(&plan(&back)), [("restart", ServiceName::KubeProxy)]);
    // Nothing is set aside for what is not known to be published.
    for unknown in [Fact::unknown("timed out"), Fact::Known(None)] {
        let seen = running().but(|seen| {
            seen.kubernetes.worker.published = unknown.clone();
            seen.kubernetes.worker.remembered = Fact::Known(Some(told(OTHER_CA, API)));
        });
        assert_eq!(plan(&seen).steps, []);
    }
}

#[test]
fn another_authority_is_not_followed_while_the_api_takes_the_node_by_the_one_that_is_known() {
    let seen = running().but(|seen| seen.kubernetes.worker.published = published(told(OTHER_CA, OTHER_API)));
    let plan = plan(&seen);
    assert_eq!((names(&plan), plan.report.phase), (vec![], Phase::Running));
    let [Warning::Answer { subject: Subject::WorkersObject, why }] = plan.report.warnings.as_slice() else {
        panic!("{:?}", plan.report.warnings)
    };
    assert!(why.contains("another CA"), "{why}");
}

#[test]
fn a_kubeconfig_of_a_clock_that_was_wrong_is_written_again_and_the_kubelet_started_anew_once() {
    let seen = asking().but(|seen| {
        let Fact::Known(Some(way)) = &mut seen.kubernetes.worker.bootstrap else { panic!() };
        way.credential = WayInCredential::Token { id: "abcdef".to_owned(), written: NOW + HOUR };
    });
    let then = plan(&seen);
    assert_eq!(names(&then), ["writeBootstrapKubeconfig", "restartService"]);
    assert_eq!(plan(&followed(seen, &then)).steps, []);
}

#[test]
fn the_identity_that_an_image_was_made_with_is_set_aside() {
    let copied = running().but(|seen| {
        let Fact::Known(Some(certificate)) = &mut seen.kubernetes.worker.certificate else { panic!() };
        certificate.user = "system:node:i-0ffffffff".to_owned();
    });
    let plan = plan(&copied);
    assert_eq!(plan.steps[0], Step::SetNodeIdentityAside { because: "other-node".to_owned() });
    assert!(plan.steps[0].is_destructive());
}

#[test]
fn a_certificate_that_ended_while_the_machine_was_off_is_asked_for_again_with_the_keys_kept() {
    let seen = running().but(|seen| {
        let Fact::Known(Some(certificate)) = &mut seen.kubernetes.worker.certificate else { panic!() };
        certificate.not_after = NOW - 1;
        seen.kubernetes.worker.bootstrap = Fact::Known(None);
        for service in [ServiceName::Kubelet, ServiceName::KubeProxy] {
            seen.kubernetes.services.insert(service, Fact::Known(stopped()));
        }
    });
    assert_eq!(names(&plan(&seen)), ["writeBootstrapKubeconfig", "startService"]);
}

#[test]
fn a_kubelet_newer_than_the_control_plane_is_not_started_and_one_that_runs_is_left() {
    let newer = |seen: &mut Observation| {
        seen.kubernetes.version = Fact::Known("v1.37.0".parse().unwrap());
    };
    let WaitingOn::FittingVersion { found, control_plane } = waits(&fresh().but(newer)) else { panic!() };
    assert_eq!((found.to_string(), control_plane.to_string()), ("v1.37.0".into(), "v1.36.2".into()));
    let plan = plan(&running().but(newer));
    assert!(
        plan.report
            .warnings
            .iter()
            .any(|warning| warning.to_string().contains("upgrade the control plane first"))
    );
    let older = fresh().but(|seen| seen.kubernetes.version = Fact::Known("v1.34.1".parse().unwrap()));
    assert_eq!(services(&super::worker::plan(&older)), [("start", ServiceName::Kubelet)]);
}

#[test]
fn what_is_not_known_starts_and_writes_nothing() {
    let forgets: [(fn(&mut Observation), Subject); 5] = [
        (|seen| seen.kubernetes.files = Fact::unknown("x"), Subject::KubernetesFiles),
        (|seen| seen.kubernetes.node = Fact::unknown("x"), Subject::Machine),
        (|seen| seen.kubernetes.version = Fact::unknown("x"), Subject::KubernetesVersion),
        (|seen| seen.kubernetes.worker.certificate = Fact::unknown("x"), Subject::NodeIdentity),
        (|seen| seen.kubernetes.worker.kubeconfig = Fact::unknown("x"), Subject::NodeIdentity),
    ];
    for (forget, about) in forgets {
        for seen in [fresh(), running()] {
            assert_eq!(waits(&seen.but(forget)), WaitingOn::Answer { about, why: "x".to_owned() });
        }
    }
    let seen = fresh().but(|seen| seen.kubernetes.worker.bootstrap = Fact::unknown("x"));
    assert_eq!(services(&plan(&seen)), []);
}

#[test]
fn the_clusters_networks_are_those_that_it_tells() {
    let seen = fresh().but(|seen| {
        let mut told = told(CA, API);
        told.terms.service_subnet = "172.20.0.0/16".parse().unwrap();
        told.terms.cluster_domain = "prod.example".parse().unwrap();
        seen.kubernetes.worker.published = published(told);
    });
    let plan = plan(&seen);
    let Some(Step::WriteKubernetesFiles { files, .. }) = plan.steps.first() else {
        panic!("{:?}", plan.steps)
    };
    let kubelet = files.iter().find(|file| file.path == paths::KUBELET_CONFIG).unwrap();
    assert!(kubelet.content.contains("172.20.0.10") && kubelet.content.contains("prod.example"));
}
