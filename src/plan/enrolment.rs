//! Machines that become nodes, and nodes whose machines are gone.
//!
//! One machine at a time looks after this: the holder of the lease in the API. A certificate is
//! approved only when requester, name, and every address and DNS name agree with EC2's word on a
//! running instance of this cluster, in a group of its role. Everything else stays pending, and the
//! reason is written down; what is not known decides nothing.
//!
//! Source: "Certificates and Certificate Signing Requests" and "TLS bootstrapping" on kubernetes.io.

use std::collections::{BTreeMap, BTreeSet};

use crate::kubernetes::ControlPlaneInputs;
use crate::kubernetes::objects::BOOTSTRAPPERS;
use crate::model::enrolment::{
    CertificateRequest, ClusterNode, EnrolmentObservation, JoinFound, JoinTerms, NODE_USER, NODES,
    NodeInstance, NodeReadiness, NodeSigner, PublishedJoin, Refusal, RequestedSubject,
};
use crate::model::plan::Subject;
use crate::model::step::{GoneNode, PendingRequest, RequestRef};
use crate::model::{Fact, InstanceId, InstanceState, Observation, Role, Step, Warning};

use super::course::Course;

/// How long a bootstrap token is good for, in seconds. A new one is published when half of it is over.
const TOKEN_LIFE_S: i64 = 60 * 60;

/// Whoever shows a bootstrap token is called this, and the token's id.
const BOOTSTRAP_USER: &str = "system:bootstrap:";

/// How often EC2 has to say that an instance is gone before its node is deleted.
const GONE_LOOKS: u32 = 2;

/// Looks after all of it.
pub(super) fn look_after(seen: &Observation, inputs: &ControlPlaneInputs, course: &mut Course) {
    let at = seen.at;
    // A token's end is written down by this clock, and held by others'.
    let clock = seen.clock_synchronised == Fact::Known(true);
    let seen = &seen.kubernetes.enrolment;
    match &seen.join.authority {
        Fact::Known(Some(authority)) if clock => publish(seen, terms(inputs, authority), at, course),
        Fact::Known(Some(_) | None) => {}
        Fact::Unknown(why) => course.warn(unknown(Subject::WorkersObject, why)),
    }
    decide_requests(seen, course);
    remove_nodes(seen, course);
    warn_of_zones(seen, course);
}

/// What workers are to be told.
fn terms(inputs: &ControlPlaneInputs, authority: &str) -> JoinTerms {
    let settings = &inputs.node.settings;
    JoinTerms {
        cluster: inputs.node.cluster.clone(),
        kubernetes_version: inputs.node.version,
        endpoint: inputs.endpoint.clone(),
        authority: authority.to_owned(),
        service_subnet: settings.service_subnet,
        pod_subnet: settings.pod_subnet,
        cluster_domain: settings.cluster_domain.clone(),
    }
}

fn publish(seen: &EnrolmentObservation, terms: JoinTerms, at: i64, course: &mut Course) {
    let published = match &seen.join.published {
        Fact::Known(JoinFound::Published(published)) => Some(published),
        Fact::Known(JoinFound::Nothing) => None,
        // A machine of an earlier image holds the lease, as while a group is replaced. The later one's workers
        // would not find what they need in what this one writes.
        Fact::Known(JoinFound::Later { format, known }) => {
            return course.warn(Warning::JoinOfLaterVersion { format: *format, known: *known });
        }
        Fact::Unknown(why) => return course.warn(unknown(Subject::WorkersObject, why)),
    };
    let taken = match (&seen.join.token_taken, published) {
        (Fact::Known(taken), _) => *taken,
        (Fact::Unknown(_), None) => false,
        (Fact::Unknown(why), Some(_)) => return course.warn(unknown(Subject::WorkersObject, why)),
    };
    let lasts = |published: &PublishedJoin| published.token_ends.saturating_sub(at) > TOKEN_LIFE_S * 1000 / 2;
    let fits = published.is_some_and(|published| published.terms == terms && taken && lasts(published));
    if !fits {
        course.steps.push(Step::PublishJoin { terms, token_life_s: TOKEN_LIFE_S });
    }
}

fn unknown(subject: Subject, why: &str) -> Warning {
    Warning::Answer { subject, why: why.to_owned() }
}

fn decide_requests(seen: &EnrolmentObservation, course: &mut Course) {
    let requests = match &seen.requests {
        Fact::Known(requests) => requests,
        Fact::Unknown(why) => return course.warn(unknown(Subject::CertificateRequests, why)),
    };
    let requests: Vec<&CertificateRequest> =
        requests.iter().filter(|request| !seen.resting.contains(&request.name)).collect();
    let (mut approved, mut pending) = (Vec::new(), Vec::new());
    for request in &requests {
        let reference = RequestRef { name: request.name.clone(), version: request.version.clone() };
        match judge(request, seen) {
            Some(Ok(instance)) => approved.push((reference, instance)),
            Some(Err(refusal)) => {
                let why = refusal.to_string();
                if request.told.as_deref() != Some(why.as_str()) {
                    pending.push(PendingRequest { request: reference, why });
                }
            }
            None => {}
        }
    }
    if !approved.is_empty() {
        course
            .steps
            .push(Step::ApproveRequests { requests: approved.into_iter().map(|(it, _)| it).collect() });
    }
    if !pending.is_empty() {
        course.steps.push(Step::LeaveRequests { requests: pending });
    }
    if !requests.is_empty()
        && let Some(why) =
            [seen.instances.why(), seen.members.why(), seen.nodes.why()].into_iter().flatten().next()
    {
        course.warn(unknown(Subject::CertificateRequests, why));
    }
}

/// Whether the request is approved; `None` where an answer is missing.
pub(super) fn judge(
    request: &CertificateRequest,
    seen: &EnrolmentObservation,
) -> Option<Result<InstanceId, Refusal>> {
    let subject = match &request.subject {
        Ok(subject) => subject,
        Err(found) => return Some(Err(Refusal::Unreadable { found: found.clone() })),
    };
    let node = match form(request, subject) {
        Ok(node) => node,
        Err(refusal) => return Some(Err(refusal)),
    };
    let joins = match requester(request, node) {
        Ok(joins) => joins,
        Err(refusal) => return Some(Err(refusal)),
    };
    let (instances, members, nodes) = (seen.instances.known()?, seen.members.known()?, seen.nodes.known()?);
    let Some((id, instance)) = named(node, instances) else {
        return Some(Err(Refusal::NoInstance { node: node.to_owned() }));
    };
    Some(agrees(joins, (id, instance), members).and_then(|()| {
        match request.signer {
            NodeSigner::Client if joins => name_is_free(node, id, nodes)?,
            NodeSigner::Client => {}
            NodeSigner::Serving => its_own(node, subject, instance)?,
        }
        Ok(id.clone())
    }))
}

/// Whether it has the form of what a kubelet asks for. Source: the signers' own rules on kubernetes.io.
fn form<'a>(request: &'a CertificateRequest, subject: &RequestedSubject) -> Result<&'a str, Refusal> {
    let wrong = |found: String| Refusal::NotAKubelets { found };
    let Some(node) = request.node() else {
        return Err(wrong(format!("its common name is {:?}", subject.common_names.join(", "))));
    };
    if subject.organizations != [NODES] {
        return Err(wrong(format!("its organization is {:?}", subject.organizations.join(", "))));
    }
    if !subject.others.is_empty() {
        return Err(wrong(format!("it names {}", subject.others.join(", "))));
    }
    let purpose = match request.signer {
        NodeSigner::Client => "client auth",
        NodeSigner::Serving => "server auth",
    };
    let needed = [purpose, "digital signature"];
    let allowed = [purpose, "digital signature", "key encipherment"];
    let usages = &request.usages;
    if needed.iter().any(|usage| !usages.contains(*usage))
        || usages.iter().any(|usage| !allowed.contains(&usage.as_str()))
    {
        let found: Vec<&str> = usages.iter().map(String::as_str).collect();
        return Err(wrong(format!("it would be good for {}", found.join(", "))));
    }
    let names = subject.dns_names.len() + subject.addresses.len();
    match request.signer {
        NodeSigner::Client if names > 0 => Err(wrong("a client's certificate names no addresses".to_owned())),
        NodeSigner::Serving if names == 0 => Err(wrong("it names no address".to_owned())),
        NodeSigner::Client | NodeSigner::Serving => Ok(node),
    }
}

/// Whether who asks may ask for this node; `true` when it is a machine that joins.
fn requester(request: &CertificateRequest, node: &str) -> Result<bool, Refusal> {
    let itself = format!("{NODE_USER}{node}");
    if request.requester == itself && request.groups.contains(NODES) {
        return Ok(false);
    }
    let joins = request.requester.starts_with(BOOTSTRAP_USER) && request.groups.contains(BOOTSTRAPPERS);
    if joins && request.signer == NodeSigner::Client {
        return Ok(true);
    }
    let expected = match request.signer {
        NodeSigner::Client => format!("{itself}, or a bootstrap token of {BOOTSTRAPPERS},"),
        NodeSigner::Serving => itself,
    };
    Err(Refusal::Requester { found: request.requester.clone(), expected })
}

/// The instance of a node's name: its id, or its private DNS name.
fn named<'a>(
    node: &str,
    instances: &'a BTreeMap<InstanceId, NodeInstance>,
) -> Option<(&'a InstanceId, &'a NodeInstance)> {
    if let Ok(id) = node.parse::<InstanceId>() {
        return instances.get_key_value(&id).filter(|(_, found)| found.state != InstanceState::NotFound);
    }
    // A name is used again; only one that runs has it now.
    let mut running = instances.iter().filter(|(_, instance)| {
        instance.private_dns_name.as_deref() == Some(node) && instance.state == InstanceState::Running
    });
    match (running.next(), running.next()) {
        (Some(only), None) => Some(only),
        (None | Some(_), _) => None,
    }
}

fn agrees(
    joins: bool,
    (id, instance): (&InstanceId, &NodeInstance),
    members: &BTreeMap<InstanceId, Role>,
) -> Result<(), Refusal> {
    if instance.state != InstanceState::Running {
        return Err(Refusal::NotRunning { instance: id.clone(), state: instance.state });
    }
    // A token is for workers. What a node of the control plane is, its own agent certifies.
    let expected = if joins { Role::Worker } else { instance.role.unwrap_or(Role::Worker) };
    if instance.role != Some(expected) {
        return Err(Refusal::Role { instance: id.clone(), found: instance.role, expected });
    }
    if members.get(id) != Some(&expected) {
        return Err(Refusal::NotInGroup { instance: id.clone(), role: expected });
    }
    Ok(())
}

/// Whether nobody else has the name. An instance whose node has been silent may come back with new
/// keys, as after its disk was lost; another instance waits until that node is deleted.
fn name_is_free(node: &str, id: &InstanceId, nodes: &BTreeMap<String, ClusterNode>) -> Result<(), Refusal> {
    match nodes.get(node) {
        None => Ok(()),
        Some(found)
            if found.readiness == NodeReadiness::Silent
                && found.instance.as_ref().is_none_or(|instance| instance == id) =>
        {
            Ok(())
        }
        Some(found) => Err(Refusal::NameInUse { node: node.to_owned(), by: found.instance.clone() }),
    }
}

fn its_own(node: &str, subject: &RequestedSubject, instance: &NodeInstance) -> Result<(), Refusal> {
    let strangers = subject.addresses.iter().filter(|address| !instance.addresses.contains(address));
    let mut found: Vec<String> = strangers.map(ToString::to_string).collect();
    found.extend(
        subject.dns_names.iter().filter(|name| *name != node && !instance.dns_names.contains(*name)).cloned(),
    );
    if found.is_empty() {
        return Ok(());
    }
    let mut expected: Vec<String> = instance.addresses.iter().map(ToString::to_string).collect();
    expected.extend(instance.dns_names.iter().cloned());
    Err(Refusal::NotItsOwn { found, expected })
}

/// Deletes the nodes of instances that are gone for good, and of machines that say themselves that they have left, so
/// that their pods and volumes move on.
fn remove_nodes(seen: &EnrolmentObservation, course: &mut Course) {
    let (Fact::Known(nodes), Fact::Known(instances)) = (&seen.nodes, &seen.instances) else { return };
    for (name, node) in nodes {
        let Some(instance) = &node.instance else { continue };
        let gone = instances.get(instance).is_some_and(|found| found.state.is_gone());
        let heard = node.readiness != NodeReadiness::Silent;
        // EC2 has forgotten it, and yet it is heard: then EC2's word is not taken for it.
        let gone = gone && !heard && seen.gone.get(instance).is_some_and(|looks| *looks >= GONE_LOOKS);
        // A node speaks for itself alone.
        if !gone && !node.left {
            continue;
        }
        let node = GoneNode { name: name.clone(), uid: node.uid.clone(), instance: instance.clone() };
        course.steps.push(Step::DeleteNode { node });
    }
}

fn warn_of_zones(seen: &EnrolmentObservation, course: &mut Course) {
    let Fact::Known(nodes) = &seen.nodes else { return };
    let workers: Vec<&ClusterNode> = nodes.values().filter(|node| !node.control_plane).collect();
    let zones: BTreeSet<&str> = workers.iter().filter_map(|node| node.zone.as_deref()).collect();
    if let (2.., [zone]) = (workers.len(), zones.into_iter().collect::<Vec<_>>().as_slice()) {
        let warning = Warning::WorkersShareZone { zone: (*zone).to_owned(), workers: workers.len() };
        let message = warning.to_string();
        if matches!(&seen.shared_zone_told, Fact::Known(told) if told.as_ref() != Some(&message)) {
            course.steps.push(Step::TellSharedZone { message });
        }
        course.warn(warning);
    }
}
