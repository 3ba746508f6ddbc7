//! Which machines become nodes, and which nodes are deleted.

use std::collections::BTreeSet;

use quorate::kubernetes::objects::BOOTSTRAPPERS;
use quorate::model::enrolment::*;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::control_plane::*;
use super::scene::{Change as _, HOUR, NOW, instance, zone};

/// The holder of the lease, seeing this of those who join and leave.
fn holder(change: impl FnOnce(&mut EnrolmentObservation)) -> Observation {
    running().but(|seen| {
        seen.kubernetes.api_lease = Fact::Known(Some(lease(instance(1).as_str(), NOW, 30)));
        change(&mut seen.kubernetes.enrolment);
    })
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|one| (*one).to_owned()).collect()
}

fn node_name(number: u8) -> String {
    instance(number).to_string()
}

/// What a joining worker asks for, with its token.
fn joining(number: u8) -> CertificateRequest {
    CertificateRequest {
        name: format!("csr-{number}"),
        version: "7".to_owned(),
        signer: NodeSigner::Client,
        requester: "system:bootstrap:abcdef".to_owned(),
        groups: set(&["system:bootstrappers", BOOTSTRAPPERS, "system:authenticated"]),
        usages: set(&["client auth", "digital signature"]),
        subject: Ok(RequestedSubject {
            common_names: vec![format!("{NODE_USER}{}", node_name(number))],
            organizations: vec![NODES.to_owned()],
            ..RequestedSubject::default()
        }),
        told: None,
    }
}

fn as_node(mut request: CertificateRequest, number: u8) -> CertificateRequest {
    request.requester = format!("{NODE_USER}{}", node_name(number));
    request.groups = set(&[NODES, "system:authenticated"]);
    request
}

/// What a worker's kubelet asks for, to serve with.
fn serving(number: u8) -> CertificateRequest {
    let mut request = as_node(joining(number), number);
    request.signer = NodeSigner::Serving;
    request.usages = set(&["server auth", "digital signature"]);
    let subject = request.subject.as_mut().unwrap();
    subject.dns_names = set(&[&node_name(number), "ip-10-0-1-9.ec2.internal"]);
    subject.addresses = ["10.0.1.9".parse().unwrap()].into();
    request
}

fn machine() -> NodeInstance {
    NodeInstance {
        state: InstanceState::Running,
        role: Some(Role::Worker),
        zone: Some(zone(1)),
        private_dns_name: Some("ip-10-0-1-9.ec2.internal".to_owned()),
        addresses: ["10.0.1.9".parse().unwrap(), "203.0.113.9".parse().unwrap()].into(),
        dns_names: set(&["ip-10-0-1-9.ec2.internal"]),
    }
}

fn node(number: u8, readiness: NodeReadiness) -> ClusterNode {
    ClusterNode {
        uid: format!("uid-{number}"),
        instance: Some(instance(number)),
        readiness,
        zone: Some("eu-west-1a".to_owned()),
        control_plane: false,
        left: false,
    }
}

/// A worker with number 9 that runs in a worker group, and this request.
fn asks(request: CertificateRequest) -> Observation {
    holder(|seen| {
        seen.requests = Fact::Known(vec![request]);
        seen.instances = Fact::Known([(instance(9), machine())].into());
        seen.members = Fact::Known([(instance(9), Role::Worker)].into());
    })
}

fn enrolment(seen: &mut Observation) -> &mut EnrolmentObservation {
    &mut seen.kubernetes.enrolment
}

fn its_machine(seen: &mut Observation) -> &mut NodeInstance {
    match &mut enrolment(seen).instances {
        Fact::Known(instances) => instances.get_mut(&instance(9)).unwrap(),
        Fact::Unknown(why) => panic!("{why}"),
    }
}

/// Nothing is decided and nothing is warned of, whatever is known.
fn is_at_rest(seen: &Observation) {
    let plan = plan_of(&kubernetes(), seen);
    assert_eq!(plan.steps, [], "{plan:?}");
    let about = |warning: &&Warning| matches!(warning, Warning::Answer { .. });
    assert_eq!(plan.report.warnings.iter().find(about), None);
}

#[test]
fn a_request_that_rests_is_not_decided_on_and_another_is() {
    let resting =
        |seen: Observation, name: &str| seen.but(|seen| enrolment(seen).resting = [name.to_owned()].into());
    // Even if all were known of it that would let it be approved, or refused for another reason.
    is_at_rest(&resting(asks(joining(9)), "csr-9"));
    is_at_rest(&resting(asks(as_node(joining(9), 8)), "csr-9"));
    let nothing_asked = asks(joining(9)).but(|seen| {
        enrolment(seen).instances = Fact::Known([].into());
        enrolment(seen).members = Fact::unknown("not asked for");
    });
    is_at_rest(&resting(nothing_asked, "csr-9"));
    does_with(&kubernetes(), &resting(asks(joining(9)), "csr-8"), &["approveRequests"]);
}

/// Nothing is approved, and this is said of why.
fn is_left(seen: &Observation, says: &str) {
    let plan = does_with(&kubernetes(), seen, &["leaveRequests"]);
    let Step::LeaveRequests { requests } = &plan.steps[0] else { panic!("{:?}", plan.steps) };
    let [only] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(only.why.contains(says), "{:?} does not say {says:?}", only.why);
    // Said once: it stands on the request then.
    let told = seen.clone().but(|seen| match &mut enrolment(seen).requests {
        Fact::Known(requests) => requests[0].told = Some(only.why.clone()),
        Fact::Unknown(why) => panic!("{why}"),
    });
    does_with(&kubernetes(), &told, &[]);
}

#[test]
fn a_running_worker_of_a_worker_group_is_approved() {
    for request in [joining(9), as_node(joining(9), 9), serving(9)] {
        let plan = does_with(&kubernetes(), &asks(request.clone()), &["approveRequests"]);
        let Step::ApproveRequests { requests } = &plan.steps[0] else { panic!("{:?}", plan.steps) };
        assert_eq!((requests[0].name.as_str(), requests[0].version.as_str()), (request.name.as_str(), "7"));
    }
}

#[test]
fn by_its_private_dns_name_too() {
    let mut request = joining(9);
    request.subject.as_mut().unwrap().common_names = vec![format!("{NODE_USER}ip-10-0-1-9.ec2.internal")];
    does_with(&kubernetes(), &asks(request.clone()), &["approveRequests"]);
    let gone = asks(request).but(|seen| its_machine(seen).state = InstanceState::Terminated);
    is_left(&gone, "EC2 knows no instance");
}

#[test]
fn what_ec2_does_not_bear_out_stays_pending_with_its_reason() {
    let changed = |change: fn(&mut NodeInstance)| asks(joining(9)).but(|seen| change(its_machine(seen)));
    is_left(&changed(|machine| machine.state = InstanceState::Terminated), "terminated");
    is_left(&changed(|machine| machine.state = InstanceState::Stopped), "stopped");
    is_left(&changed(|machine| machine.role = None), "does not carry this cluster's tags");
    // A token is no way into the control plane.
    is_left(&changed(|machine| machine.role = Some(Role::ControlPlane)), "tagged as control-plane");
    let unknown = asks(joining(9)).but(|seen| enrolment(seen).instances = Fact::Known([].into()));
    is_left(&unknown, "EC2 knows no instance");
    let alone = asks(joining(9)).but(|seen| enrolment(seen).members = Fact::Known([].into()));
    is_left(&alone, "no Auto Scaling group");
    let others = asks(joining(9))
        .but(|seen| enrolment(seen).members = Fact::Known([(instance(9), Role::ControlPlane)].into()));
    is_left(&others, "no Auto Scaling group");
}

#[test]
fn a_name_in_use_is_not_given_away() {
    let with = |node: ClusterNode| {
        asks(joining(9)).but(|seen| enrolment(seen).nodes = Fact::Known([(node_name(9), node)].into()))
    };
    is_left(&with(node(9, NodeReadiness::Ready)), "there is a node");
    is_left(&with(node(9, NodeReadiness::NotReady)), "there is a node");
    is_left(&with(node(8, NodeReadiness::Silent)), "there is a node");
    // Its own, silent since its disk was lost.
    does_with(&kubernetes(), &with(node(9, NodeReadiness::Silent)), &["approveRequests"]);
    // Renewal and serving are by the node itself.
    for request in [as_node(joining(9), 9), serving(9)] {
        let seen = with(node(9, NodeReadiness::Ready))
            .but(|seen| enrolment(seen).requests = Fact::Known(vec![request]));
        does_with(&kubernetes(), &seen, &["approveRequests"]);
    }
}

#[test]
fn nobody_asks_for_another_node() {
    is_left(&asks(as_node(joining(9), 8)), "only system:node:");
    is_left(&asks(as_node(serving(9), 8)), "only system:node:");
    let mut person = joining(9);
    person.requester = "jane".to_owned();
    is_left(&asks(person), "jane asks");
    let mut other_token = joining(9);
    other_token.groups = set(&["system:bootstrappers", "system:authenticated"]);
    is_left(&asks(other_token), "system:bootstrap:abcdef asks");
    let mut served_by_token = serving(9);
    served_by_token.requester = "system:bootstrap:abcdef".to_owned();
    served_by_token.groups = set(&[BOOTSTRAPPERS]);
    is_left(&asks(served_by_token), "system:bootstrap:abcdef asks");
    let mut named_only = serving(9);
    named_only.groups = set(&["system:authenticated"]);
    is_left(&asks(named_only), "only system:node:");
}

#[test]
fn a_forged_address_or_name_is_not_certified() {
    let forged = |change: fn(&mut RequestedSubject)| {
        let mut request = serving(9);
        change(request.subject.as_mut().unwrap());
        asks(request)
    };
    is_left(
        &forged(|subject| {
            subject.addresses.insert("10.0.0.1".parse().unwrap());
        }),
        "10.0.0.1 is not the instance's: EC2 knows it by 10.0.1.9",
    );
    is_left(
        &forged(|subject| {
            subject.dns_names.insert("api.example.com".to_owned());
        }),
        "api.example.com",
    );
    is_left(
        &forged(|subject| {
            *subject = RequestedSubject { dns_names: [].into(), addresses: [].into(), ..subject.clone() }
        }),
        "names no address",
    );
    // The public address is its own, too.
    does_with(
        &kubernetes(),
        &forged(|subject| {
            subject.addresses.insert("203.0.113.9".parse().unwrap());
        }),
        &["approveRequests"],
    );
}

#[test]
fn what_is_no_request_of_a_kubelets_stays_pending() {
    let changed = |change: fn(&mut CertificateRequest)| {
        let mut request = joining(9);
        change(&mut request);
        asks(request)
    };
    let subject = |change: fn(&mut RequestedSubject)| {
        let mut request = joining(9);
        change(request.subject.as_mut().unwrap());
        asks(request)
    };
    is_left(&changed(|it| it.subject = Err("no PEM block".to_owned())), "no PEM block");
    is_left(
        &changed(|it| {
            it.usages.insert("cert sign".to_owned());
        }),
        "cert sign",
    );
    is_left(
        &changed(|it| {
            it.usages.remove("digital signature");
        }),
        "client auth",
    );
    is_left(&subject(|it| it.organizations.push("system:masters".to_owned())), "system:masters");
    is_left(&subject(|it| it.organizations.clear()), "organization");
    is_left(&subject(|it| it.common_names.push("admin".to_owned())), "common name");
    is_left(&subject(|it| it.common_names = vec!["system:node:".to_owned()]), "common name");
    is_left(&subject(|it| it.others.push("the extension 2.5.29.19".to_owned())), "2.5.29.19");
    is_left(
        &subject(|it| {
            it.addresses.insert("10.0.1.9".parse().unwrap());
        }),
        "no addresses",
    );
}

#[test]
fn what_is_not_known_decides_nothing() {
    let forgets: [fn(&mut EnrolmentObservation); 4] = [
        |seen| seen.instances = Fact::unknown("throttled"),
        |seen| seen.members = Fact::unknown("throttled"),
        |seen| seen.nodes = Fact::unknown("500"),
        |seen| seen.requests = Fact::unknown("500"),
    ];
    for forget in forgets {
        let seen = asks(joining(9)).but(|seen| forget(enrolment(seen)));
        let plan = does_with(&kubernetes(), &seen, &[]);
        assert_eq!(plan.report.warnings.len(), 1, "{:?}", plan.report.warnings);
    }
    // Another machine looks after it.
    let others = asks(joining(9))
        .but(|seen| seen.kubernetes.api_lease = Fact::Known(Some(lease(instance(2).as_str(), NOW, 30))));
    does_with(&kubernetes(), &others, &[]);
}

#[test]
fn workers_are_told_again_when_anything_of_it_is_another_or_its_token_ends() {
    let changes: [fn(&mut JoinObservation); 6] = [
        |join| join.published = Fact::Known(JoinFound::Nothing),
        |join| join.token_taken = Fact::Known(false),
        |join| join.authority = Fact::Known(Some("another".to_owned())),
        |join| match &mut join.published {
            Fact::Known(JoinFound::Published(published)) => published.token_ends = NOW + HOUR / 2,
            other => panic!("{other:?}"),
        },
        |join| match &mut join.published {
            Fact::Known(JoinFound::Published(published)) => {
                published.terms.endpoint = "old.example.com:6443".parse().unwrap();
            }
            other => panic!("{other:?}"),
        },
        |join| match &mut join.published {
            Fact::Known(JoinFound::Published(published)) => {
                published.terms.kubernetes_version = "v1.35.0".parse().unwrap();
            }
            other => panic!("{other:?}"),
        },
    ];
    for change in changes {
        let seen = holder(|seen| change(&mut seen.join));
        let plan = does_with(&kubernetes(), &seen, &["publishJoin"]);
        // A step stands in plans and journals: nothing of a token's secret does.
        assert!(matches!(plan.steps[0], Step::PublishJoin { token_life_s: 3600, .. }));
        let unset = seen.but(|seen| seen.clock_synchronised = Fact::Known(false));
        does_with(&kubernetes(), &unset, &[]);
    }
    let unknown = holder(|seen| seen.join.published = Fact::unknown("throttled"));
    assert_eq!(does_with(&kubernetes(), &unknown, &[]).report.warnings.len(), 1);
}

#[test]
fn what_a_later_version_told_workers_is_left_alone_and_said() {
    let changes: [fn(&mut JoinObservation); 3] = [
        |_| {},
        |join| join.token_taken = Fact::Known(false),
        |join| join.authority = Fact::Known(Some("another".to_owned())),
    ];
    for change in changes {
        let seen = holder(|seen| {
            seen.join.published = Fact::Known(JoinFound::Later { format: 2, known: 1 });
            seen.join.token_taken = Fact::unknown("not asked for");
            change(&mut seen.join);
        });
        let plan = does_with(&kubernetes(), &seen, &[]);
        assert_eq!(plan.report.warnings, [Warning::JoinOfLaterVersion { format: 2, known: 1 }]);
        assert_eq!(plan.report.halt, None);
    }
}

#[test]
fn the_node_of_an_instance_that_is_gone_is_deleted_when_ec2_has_said_so_twice() {
    let seen = |state: InstanceState, readiness: NodeReadiness, looks: u32| {
        holder(|seen| {
            seen.nodes = Fact::Known([(node_name(9), node(9, readiness))].into());
            seen.instances = Fact::Known([(instance(9), NodeInstance { state, ..machine() })].into());
            seen.gone = [(instance(9), looks)].into();
        })
    };
    for state in [InstanceState::Terminated, InstanceState::NotFound] {
        does_with(&kubernetes(), &seen(state, NodeReadiness::Silent, 1), &[]);
        let plan = does_with(&kubernetes(), &seen(state, NodeReadiness::Silent, 2), &["deleteNode"]);
        let Step::DeleteNode { node } = &plan.steps[0] else { panic!("{:?}", plan.steps) };
        assert_eq!((node.name.as_str(), node.uid.as_str()), (node_name(9).as_str(), "uid-9"));
        // It is heard: whatever EC2 says, something lives there.
        does_with(&kubernetes(), &seen(state, NodeReadiness::Ready, 2), &[]);
    }
    for state in [InstanceState::Running, InstanceState::Stopped, InstanceState::ShuttingDown] {
        does_with(&kubernetes(), &seen(state, NodeReadiness::Silent, 5), &[]);
    }
    let unlisted = seen(InstanceState::Terminated, NodeReadiness::Silent, 5)
        .but(|seen| enrolment(seen).instances = Fact::Known([].into()));
    does_with(&kubernetes(), &unlisted, &[]);
    // Somebody else's: without a provider id, nothing is known of its machine.
    let foreign = seen(InstanceState::Terminated, NodeReadiness::Silent, 5).but(|seen| {
        let stranger = ClusterNode { instance: None, ..node(9, NodeReadiness::Silent) };
        enrolment(seen).nodes = Fact::Known([("stranger".to_owned(), stranger)].into());
    });
    does_with(&kubernetes(), &foreign, &[]);
}

#[test]
fn workers_in_one_zone_are_warned_about() {
    let spread = |zones: &[&str], control_plane: bool| {
        let nodes = (1_u8..).zip(zones).map(|(number, zone)| {
            let zone = Some((*zone).to_owned());
            (node_name(number), ClusterNode { zone, control_plane, ..node(number, NodeReadiness::Ready) })
        });
        let seen = holder(|seen| seen.nodes = Fact::Known(nodes.collect()));
        plan_of(&kubernetes(), &seen).report.warnings
    };
    let told = Warning::WorkersShareZone { zone: "a".to_owned(), workers: 2 };
    assert_eq!(spread(&["a", "a"], false), [told]);
    for (zones, control_plane) in [(&["a", "b"][..], false), (&["a"], false), (&["a", "a", "a"], true)] {
        assert_eq!(spread(zones, control_plane), []);
    }
}

#[test]
fn people_are_told_of_workers_in_one_zone_once() {
    let steps = |told: Fact<Option<String>>| {
        let nodes = (1..=2).map(|number| (node_name(number), node(number, NodeReadiness::Ready)));
        let seen = holder(|seen| {
            seen.nodes = Fact::Known(nodes.collect());
            seen.shared_zone_told = told;
        });
        plan_of(&kubernetes(), &seen).steps
    };
    let told = steps(Fact::Known(None));
    let [Step::TellSharedZone { message }] = told.as_slice() else { panic!("{told:?}") };
    assert!(message.contains("eu-west-1a") && message.contains("2 workers"), "{message}");
    assert_eq!(steps(Fact::Known(Some(message.clone()))), []);
    assert_eq!(steps(Fact::Known(Some("3 workers".to_owned()))), told, "there are others now");
    assert_eq!(steps(Fact::unknown("timed out")), []);
}
