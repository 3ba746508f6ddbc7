//! A worker: how it becomes a node of the cluster that it was told of, and stays one.
//!
//! It knows what was published to workers, or what it was told before; what lies on its disk; and what the API says
//! to its kubelet. The kubelet itself asks for its certificate: the agent hands it a bootstrap token, and later
//! follows the cluster where its endpoint or its authority changes. A kubelet that runs goes on running while an
//! answer is missing.

use crate::config::Settings;
use crate::config::settings::ApiEndpoint;
use crate::kubernetes::{self, KubernetesVersion, RenderedFile, WorkerInputs, join};
use crate::model::enrolment::{NODE_USER, NodeReadiness};
use crate::model::fact::chain;
use crate::model::kubernetes::{KubernetesObservation, Readiness};
use crate::model::names::ServerUrl;
use crate::model::node::NodeName;
use crate::model::plan::Subject;
use crate::model::service::ServiceObservation;
use crate::model::worker::{PublishedTold, Told, WayIn, WayInCredential, WorkerObservation};
use crate::model::{
    Fact, Halt, Identity, Observation, Phase, Plan, Report, ServiceName, ServiceState, Step, WaitingOn,
    Warning,
};

use super::certificates::synchronised;
use super::course::{Course, Next};
use super::{logind, node};

/// How many minor versions a kubelet may be older than the API servers.
/// Source: "Version Skew Policy" on kubernetes.io.
const OLDER_MINORS: u16 = 3;

/// What a worker's kubelet has to come with.
enum Standing {
    /// It has a certificate of the cluster's.
    Joined,
    /// It has none that is good any more.
    Joins,
}

pub(super) fn decide(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    mut course: Course,
) -> Next<Plan> {
    let (kubernetes, worker) = (&seen.kubernetes, &seen.kubernetes.worker);
    course.phase = Phase::Joining;
    let told = told(worker, &mut course)?;
    let version = *course.need(&kubernetes.version, Subject::KubernetesVersion)?;
    fits(version, told.terms.kubernetes_version, kubernetes, &mut course)?;
    let inputs = inputs(settings, seen, me, version, told, &course)?;
    let halt = |error: &dyn std::error::Error| course.halt(Halt::Contradiction { what: chain(error) });
    let server = inputs.server().map_err(|error| halt(&error))?;
    let rendered = kubernetes::worker(&inputs).map_err(|error| halt(&error))?;
    let kept = join::told_file(told).map_err(|error| halt(&error))?;
    let own = kubernetes::workers_kubelet_kubeconfig(&inputs).map_err(|error| halt(&error))?;

    let standing = standing(seen, told, &inputs.node.name, &mut course)?;
    let to_write = match standing {
        Standing::Joined => vec![kept, own],
        Standing::Joins => vec![kept],
    };
    write(kubernetes, &rendered, to_write, &inputs, &server, &mut course)?;
    match standing {
        Standing::Joined => joined(seen, &inputs, &rendered, &server, course),
        Standing::Joins => joins(seen, &inputs, &rendered, &server, course),
    }
}

/// Whether the API takes the kubelet by a certificate of this authority. An answer about the node, be it that there is
/// none, is one that it gave to it.
fn is_taken_by(worker: &WorkerObservation, told: &Told) -> bool {
    let certificate = worker.certificate.known().and_then(Option::as_ref);
    worker.node.is_known()
        && certificate.is_some_and(|found| found.signed_by.as_ref() == Some(&told.terms.authority))
}

/// What this worker's files are rendered from, and what is to be known about it; or else the report that says what is
/// missing.
///
/// # Errors
/// The observation does not hold what is needed.
pub fn worker_inputs(
    settings: &Settings,
    seen: &Observation,
) -> Result<(WorkerInputs, Vec<Warning>), Box<Report>> {
    let mut course = Course::new(Phase::Joining);
    let found = course.need(&seen.identity, Subject::Identity).and_then(|me| {
        let told = told(&seen.kubernetes.worker, &mut course)?;
        let version = *course.need(&seen.kubernetes.version, Subject::KubernetesVersion)?;
        inputs(settings, seen, me, version, told, &course)
    });
    match found {
        Ok(inputs) => Ok((inputs, course.warnings)),
        Err(plan) => Err(Box::new(plan.report)),
    }
}

/// What it goes by: what is published, or else what it was told before. Another authority is not followed as long as
/// the API takes the node by the one that it knows: one wrong object in S3 would put out every worker.
pub(super) fn told<'a>(worker: &'a WorkerObservation, course: &mut Course) -> Next<&'a Told> {
    let remembered = worker.remembered.known().and_then(Option::as_ref);
    match (&worker.published, remembered) {
        (Fact::Known(Some(published)), Some(told))
            if published.told.terms.authority != told.terms.authority && is_taken_by(worker, told) =>
        {
            let why = "it names another CA than that by which the API takes this node: it is not followed";
            course.warn(Warning::Answer { subject: Subject::WorkersObject, why: why.to_owned() });
            Ok(told)
        }
        (Fact::Known(Some(published)), _) => Ok(&published.told),
        (Fact::Unknown(why), Some(told)) => {
            course.warn(Warning::Answer { subject: Subject::WorkersObject, why: why.clone() });
            Ok(told)
        }
        (Fact::Known(None), Some(told)) => {
            let why = "there is no such object any more".to_owned();
            course.warn(Warning::Answer { subject: Subject::WorkersObject, why });
            Ok(told)
        }
        (Fact::Unknown(why), None) => {
            Err(course.wait(WaitingOn::Answer { about: Subject::WorkersObject, why: why.clone() }))
        }
        (Fact::Known(None), None) => Err(course.wait(WaitingOn::Join)),
    }
}

/// A kubelet that the API servers do not support is not started; one that runs is left running.
fn fits(
    found: KubernetesVersion,
    control_plane: KubernetesVersion,
    seen: &KubernetesObservation,
    course: &mut Course,
) -> Next<()> {
    let (own, theirs) = (found.minor(), control_plane.minor());
    if (theirs.saturating_sub(OLDER_MINORS)..=theirs).contains(&own) {
        return Ok(());
    }
    let on = WaitingOn::FittingVersion { found, control_plane };
    match kubelet(seen).map(|kubelet| &kubelet.state) {
        Some(ServiceState::Running) => {
            let why = on.to_string();
            course.warn(Warning::Service { service: ServiceName::Kubelet, why });
            Ok(())
        }
        Some(ServiceState::Stopped | ServiceState::Failed(_)) | None => Err(course.wait(on)),
    }
}

fn inputs(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    version: KubernetesVersion,
    told: &Told,
    course: &Course,
) -> Next<WorkerInputs> {
    let settled = settled(settings, told);
    Ok(WorkerInputs {
        node: node::inputs(&settled, &seen.kubernetes, me, version, course)?,
        endpoint: endpoint(settings, told).clone(),
        authority: told.certificate_authority.clone(),
    })
}

/// The settings with the cluster's networks: it says itself what they are.
pub(super) fn settled(settings: &Settings, told: &Told) -> Settings {
    let mut settled = settings.clone();
    settled.kubernetes.service_subnet = told.terms.service_subnet;
    settled.kubernetes.pod_subnet = told.terms.pod_subnet;
    settled.kubernetes.cluster_domain = told.terms.cluster_domain.clone();
    settled
}

/// Where the API is: what the operator says here counts more than what is published to all.
fn endpoint<'a>(settings: &'a Settings, told: &'a Told) -> &'a ApiEndpoint {
    settings.kubernetes.endpoint.as_ref().unwrap_or(&told.terms.endpoint)
}

/// Whether the kubelet has a certificate that is good here. One of another cluster's, or of another node's (an image
/// that was made of a node that ran), is set aside, so that the kubelet asks for its own.
fn standing(seen: &Observation, told: &Told, name: &NodeName, course: &mut Course) -> Next<Standing> {
    let worker = &seen.kubernetes.worker;
    let Some(certificate) = course.need(&worker.certificate, Subject::NodeIdentity)? else {
        return Ok(Standing::Joins);
    };
    let stranger = if certificate.signed_by.as_ref() != Some(&told.terms.authority) {
        Some("other-authority")
    } else if certificate.user != format!("{NODE_USER}{name}") {
        Some("other-node")
    } else {
        None
    };
    match (stranger, &worker.published) {
        (Some(because), Fact::Known(Some(_))) => {
            course.steps.push(Step::SetNodeIdentityAside { because: because.to_owned() });
            Ok(Standing::Joins)
        }
        // Only what is published now tells that it is the machine that is behind.
        (Some(_), Fact::Known(None)) => Err(course.wait(WaitingOn::Join)),
        (Some(_), Fact::Unknown(why)) => {
            Err(course.wait(WaitingOn::Answer { about: Subject::WorkersObject, why: why.clone() }))
        }
        (None, _) if seen.at < certificate.not_after => Ok(Standing::Joined),
        (None, _) => Ok(Standing::Joins),
    }
}

/// Writes the files that differ from what is there; the kubelet's kubeconfig only where it leads elsewhere, since the
/// kubelet writes it in words of its own.
fn write(
    seen: &KubernetesObservation,
    rendered: &[RenderedFile],
    more: Vec<RenderedFile>,
    inputs: &WorkerInputs,
    server: &ServerUrl,
    course: &mut Course,
) -> Next<()> {
    let found = course.need(&seen.files, Subject::KubernetesFiles)?;
    let leads_there = match course.need(&seen.worker.kubeconfig, Subject::NodeIdentity)? {
        Some(way) => leads(way, server, inputs) && way.credential == WayInCredential::RotatingCertificate,
        None => false,
    };
    let files: Vec<RenderedFile> = rendered
        .iter()
        .cloned()
        .chain(more)
        .filter(|file| match file.path.as_str() {
            kubernetes::paths::KUBELET_KUBECONFIG => !leads_there,
            path => found.get(path) != Some(&file.digest()),
        })
        .collect();
    let endpoint = inputs.endpoint.clone();
    if !files.is_empty() || seen.remembered_endpoint != Fact::Known(Some(endpoint.clone())) {
        course.steps.push(Step::WriteKubernetesFiles { files, endpoint });
    }
    Ok(())
}

fn leads(way: &WayIn, server: &ServerUrl, inputs: &WorkerInputs) -> bool {
    way.server == *server && way.authority == kubernetes::digest(inputs.authority.as_bytes())
}

/// The kubelet has no certificate: it gets a token that is good, and is started to ask for one.
fn joins(
    seen: &Observation,
    inputs: &WorkerInputs,
    rendered: &[RenderedFile],
    server: &ServerUrl,
    mut course: Course,
) -> Next<Plan> {
    let worker = &seen.kubernetes.worker;
    let published = match &worker.published {
        Fact::Known(Some(published)) if seen.at < published.token_ends => published,
        Fact::Known(Some(published)) => {
            return Err(course.wait(WaitingOn::JoinToken { ended: published.token_ends }));
        }
        Fact::Known(None) => return Err(course.wait(WaitingOn::Join)),
        Fact::Unknown(why) => {
            return Err(course.wait(WaitingOn::Answer { about: Subject::WorkersObject, why: why.clone() }));
        }
    };
    let given = given(worker, published, inputs, server, seen.at, &mut course)?;
    // It takes no certificate that is not valid yet.
    synchronised(seen, &course)?;
    node::unfit(&inputs.node, &mut course);
    logind::keep(&seen.kubernetes, &inputs.node, rendered, &mut course)?;
    node::containerd(&seen.kubernetes, &mut course)?;
    // It reads its kubeconfig when it starts, which leads there.
    let cluster = [&server.to_string(), &*inputs.authority];
    let launch = kubernetes::node::kubelet_launch(&inputs.node, rendered, &cluster);
    let runs = kubelet(&seen.kubernetes).filter(|kubelet| kubelet.state == ServiceState::Running);
    match (runs, given) {
        // It reads its kubeconfig when it starts, and this one is younger.
        (Some(kubelet), Some(written)) if kubelet.since.is_some_and(|since| since < written) => {
            course.steps.push(Step::RestartService { service: ServiceName::Kubelet, launch });
        }
        (Some(_), None) => course.steps.push(Step::RestartService { service: ServiceName::Kubelet, launch }),
        _ => node::service(&seen.kubernetes, ServiceName::Kubelet, launch, &mut course),
    }
    ends(&seen.kubernetes, &[ServiceName::Kubelet], &course)?;
    Err(match &worker.api {
        Readiness::NotReady(why) => {
            course.wait(WaitingOn::Api { endpoint: inputs.endpoint.to_string(), why: why.clone() })
        }
        Readiness::Ready => course.wait(WaitingOn::NodeCertificate { token: published.token.clone() }),
    })
}

/// When the kubeconfig that the kubelet joins with was written, in milliseconds since 1970; `None` when it is written
/// now.
fn given(
    worker: &WorkerObservation,
    published: &PublishedTold,
    inputs: &WorkerInputs,
    server: &ServerUrl,
    at: i64,
    course: &mut Course,
) -> Next<Option<i64>> {
    let found = course.need(&worker.bootstrap, Subject::NodeIdentity)?.as_ref();
    match found.filter(|way| leads(way, server, inputs)).map(|way| &way.credential) {
        // One from the future is of a clock that was wrong: it would be younger than every kubelet.
        Some(WayInCredential::Token { id, written }) if *id == published.token && *written <= at => {
            Ok(Some(*written))
        }
        Some(
            WayInCredential::Token { .. } | WayInCredential::RotatingCertificate | WayInCredential::Other,
        )
        | None => {
            course.steps.push(Step::WriteBootstrapKubeconfig {
                token: published.token.clone(),
                server: server.clone(),
                authority: published.told.terms.authority.clone(),
            });
            Ok(None)
        }
    }
}

/// The kubelet has its certificate: everything runs, and its node is waited for.
fn joined(
    seen: &Observation,
    inputs: &WorkerInputs,
    rendered: &[RenderedFile],
    server: &ServerUrl,
    mut course: Course,
) -> Next<Plan> {
    let (kubernetes, worker) = (&seen.kubernetes, &seen.kubernetes.worker);
    course.phase = Phase::Returning;
    let cluster = [&server.to_string(), &*inputs.authority];
    node::runtime_and_kubelet(kubernetes, &inputs.node, rendered, &cluster, &mut course)?;
    node::kube_proxy(kubernetes, &inputs.node, rendered, &cluster, &mut course);
    ends(kubernetes, &[ServiceName::Kubelet, ServiceName::KubeProxy], &course)?;
    match (&worker.node, &worker.api) {
        (Fact::Known(Some(node)), _) => match node.readiness {
            NodeReadiness::Ready => {
                course.phase = Phase::Running;
                Ok(course.done())
            }
            NodeReadiness::NotReady | NodeReadiness::Silent => {
                let why = node.said.clone().unwrap_or_else(|| "it has not said anything yet".to_owned());
                Err(course.wait(WaitingOn::NodeReady { why }))
            }
        },
        (Fact::Known(None), _) => {
            course.phase = Phase::Joining;
            Err(course.wait(WaitingOn::NodeRegistered))
        }
        (Fact::Unknown(_), Readiness::NotReady(why)) => {
            let endpoint = inputs.endpoint.to_string();
            Err(course.wait(WaitingOn::Api { endpoint, why: why.clone() }))
        }
        (Fact::Unknown(why), Readiness::Ready) => {
            Err(course.wait(WaitingOn::Answer { about: Subject::Node, why: why.clone() }))
        }
    }
}

/// A plan that starts services ends there; and what did not stay up is waited for, with its reason.
fn ends(seen: &KubernetesObservation, services: &[ServiceName], course: &Course) -> Next<()> {
    let failed = services.iter().find_map(|name| match seen.services.get(name)?.known()?.state {
        ServiceState::Failed(ref why) => Some((*name, why.clone())),
        ServiceState::Stopped | ServiceState::Running => None,
    });
    match failed {
        Some((service, why)) => Err(course.wait(WaitingOn::Service { service, why })),
        None if !course.steps.is_empty() => Err(course.act([])),
        None => Ok(()),
    }
}

fn kubelet(seen: &KubernetesObservation) -> Option<&ServiceObservation> {
    seen.services.get(&ServiceName::Kubelet)?.known()
}
