//! Kubernetes' control plane on this machine: its certificates, its files, and its static pods.
//!
//! etcd comes first: nothing is decided here before the etcd plan has nothing left to do. What was
//! there before stays as it is while an answer is missing, so a control plane that runs goes on
//! running.
//!
//! How a manifest is changed is in [`rollout`](super::rollout).

use crate::config::Settings;
use crate::config::settings::{ApiEndpoint, ControlPlaneKind, TlsMinVersion};
use crate::kubernetes::{
    self, ControlPlaneInputs, KubernetesVersion, NodeInputs, RenderError, Rendered, RenderedFile, paths,
};
use crate::model::departure::TargetState;
use crate::model::fact::chain;
use crate::model::kubernetes::{LoadBalancing, Readiness};
use crate::model::load_balancer::{LoadBalancer, LoadBalancerKind, TargetHealth};
use crate::model::machine::{address_of, client_url};
use crate::model::plan::Subject;
use crate::model::service::ServiceObservation;
use crate::model::{
    Authority, ClusterView, Fact, Halt, Identity, Observation, Phase, Plan, Report, ServiceName,
    ServiceState, Step, WaitingOn, Warning,
};

use super::api;
use super::certificates::{past_half_life, synchronised};
use super::course::{Course, Next};
use super::rollout::{changing, reads, roll_out};
use super::{logind, node};

/// The plan of a machine whose etcd has nothing to do, with what its control plane needs.
pub(super) fn extend(settings: &Settings, seen: &Observation, etcd: Plan) -> Plan {
    let settled = matches!(etcd.report.phase, Phase::Running | Phase::Standby);
    let wanted = settings.kubernetes.control_plane == ControlPlaneKind::StaticPods;
    if !settled || !etcd.steps.is_empty() || etcd.report.halt.is_some() {
        return etcd;
    }
    let mut course = Course::new(etcd.report.phase);
    course.slot = etcd.report.slot;
    course.warnings = etcd.report.warnings;
    course.noticed = etcd.report.noticed;
    if !wanted {
        of_etcd_alone(seen, &mut course);
        let mut plan = course.done();
        plan.report.waiting = etcd.report.waiting;
        return plan;
    }
    let mut plan = match decide(settings, seen, course) {
        Ok(plan) => plan,
        Err(plan) => *plan,
    };
    plan.report.waiting.splice(0..0, etcd.report.waiting);
    plan
}

/// What a machine does that has no control plane but etcd: it gives the lock back that it had left or shut down with,
/// and sees that its next shutdown can wait for it.
fn of_etcd_alone(seen: &Observation, course: &mut Course) {
    if let (Fact::Known(view), Some(me)) = (&seen.etcd.cluster, seen.identity.known())
        && view.control_plane.lock.as_ref() == Some(&me.instance)
    {
        course.steps.push(Step::ReleaseControlPlaneLock { instance: me.instance.clone() });
    }
    logind::keep_for_etcd_alone(&seen.kubernetes, course);
}

/// What this machine's files are rendered from, and what is to be known about it; or else the report
/// that says what is missing.
pub fn control_plane_inputs(
    settings: &Settings,
    seen: &Observation,
) -> Result<(ControlPlaneInputs, Vec<Warning>), Box<Report>> {
    let mut course = Course::new(Phase::Preparing);
    let inputs = ground(settings, seen, &mut course).and_then(|ground| {
        let by = ground.view.control_plane.authorities.clone();
        ground.inputs(settings, seen, by, &course)
    });
    match inputs {
        Ok(inputs) => Ok((inputs, course.warnings)),
        Err(plan) => Err(Box::new(plan.report)),
    }
}

fn decide(settings: &Settings, seen: &Observation, mut course: Course) -> Next<Plan> {
    let ground = ground(settings, seen, &mut course)?;
    let (me, view) = (ground.me, ground.view);
    let authorities = authorities(seen, view, &mut course)?;
    // Where they are recorded by a step of this plan, what follows is for when that was done.
    let by = authorities.map(|found| found.fingerprint.clone()).or(view.control_plane.authorities.clone());
    let inputs = ground.inputs(settings, seen, by, &course)?;
    let endpoint = inputs.endpoint.clone();
    leaves(seen, &inputs, authorities, &mut course)?;
    let found = course.need(&seen.kubernetes.files, Subject::KubernetesFiles)?;
    let (rendered, whole) = render(&inputs, found.contains_key(paths::KUBELET_CONFIG), &mut course)?;
    let mut wanted: Vec<RenderedFile> =
        rendered.files.iter().filter(|file| found.get(&file.path) != Some(&file.digest())).cloned().collect();
    // What a component that runs would read at its next start is changed with its manifest, and goes back
    // with it.
    let changing = changing(seen, &rendered.manifests);
    let with_manifest: Vec<RenderedFile> =
        wanted.extract_if(.., |file| changing.iter().any(|component| reads(*component, file))).collect();
    if !wanted.is_empty() || seen.kubernetes.remembered_endpoint != Fact::Known(Some(endpoint.clone())) {
        course.steps.push(Step::WriteKubernetesFiles { files: wanted, endpoint: endpoint.clone() });
    }
    roll_out(settings, seen, me, view, rendered.manifests, &with_manifest, &mut course)?;
    // The kubelet's kubeconfig is one of the leaves. It starts with the certificate in there, and asks for the
    // next ones itself.
    if whole {
        node::runtime_and_kubelet(&seen.kubernetes, &inputs.node, &rendered.files, &[], &mut course)?;
    } else {
        as_it_is(seen, &inputs.node, &rendered.files, &mut course)?;
    }
    // kube-proxy asks by the same one, and does not read it again: it is started anew when that is renewed. One
    // that is made in this plan is read in the next.
    if let Fact::Known(Some(leaves)) = &seen.kubernetes.leaves {
        let issued = leaves.not_before.to_string();
        node::kube_proxy(&seen.kubernetes, &inputs.node, &rendered.files, &[&issued], &mut course);
    }
    for (component, found) in &seen.kubernetes.components {
        if let Readiness::NotReady(why) = &found.readiness {
            return Err(course.wait(WaitingOn::Component { component: *component, why: why.clone() }));
        }
    }
    if view.control_plane.lock.as_ref() == Some(&me.instance) {
        course.steps.push(Step::ReleaseControlPlaneLock { instance: me.instance.clone() });
    }
    register(seen, me, &mut course);
    api::keep(settings, seen, me, &inputs, &mut course);
    Ok(course.done())
}

/// All files and manifests, and whether the kubelet's are among them. What the operator adds to its
/// configuration may be wrong: then a kubelet that has one (`configured`) keeps it, and all else goes on.
fn render(inputs: &ControlPlaneInputs, configured: bool, course: &mut Course) -> Next<(Rendered, bool)> {
    let impossible = |error: &RenderError| course.halt(Halt::Contradiction { what: chain(error) });
    match kubernetes::control_plane(inputs) {
        Ok(rendered) => Ok((rendered, true)),
        Err(error @ RenderError::DropIns(_)) if configured => {
            let mut without = inputs.clone();
            without.node.drop_ins.clear();
            let mut rendered = kubernetes::control_plane(&without).map_err(|error| impossible(&error))?;
            rendered.files.retain(|file| ![paths::KUBELET_CONFIG, paths::LOGIND].contains(&&*file.path));
            course.warn(Warning::KubeletDropIns { why: chain(&error) });
            Ok((rendered, false))
        }
        Err(error) => Err(impossible(&error)),
    }
}

/// containerd, and a kubelet that is left as it is; where it does not run, it is started with the configuration
/// that it has.
fn as_it_is(
    seen: &Observation,
    inputs: &NodeInputs,
    files: &[RenderedFile],
    course: &mut Course,
) -> Next<()> {
    node::containerd(&seen.kubernetes, course)?;
    let runs = |found: &Fact<ServiceObservation>| match found {
        Fact::Known(found) => found.state == ServiceState::Running,
        Fact::Unknown(_) => false,
    };
    if !seen.kubernetes.services.get(&ServiceName::Kubelet).is_some_and(runs) {
        let launch = kubernetes::node::kubelet_launch(inputs, files, &[]);
        node::service(&seen.kubernetes, ServiceName::Kubelet, launch, course);
    }
    Ok(())
}

/// Where the API is reached from outside, as far as that is known yet.
fn endpoint(settings: &Settings, seen: &Observation, course: &mut Course) -> Next<Option<ApiEndpoint>> {
    if let Some(endpoint) = &settings.kubernetes.endpoint {
        return Ok(Some(endpoint.clone()));
    }
    let remembered = course.need(&seen.kubernetes.remembered_endpoint, Subject::KubernetesFiles)?;
    let balancing = match (&seen.kubernetes.load_balancing, remembered) {
        (Fact::Known(balancing), _) => balancing.as_ref(),
        // What it was made for goes on while nobody answers.
        (Fact::Unknown(why), Some(remembered)) => {
            course.warn(Warning::Answer { subject: Subject::LoadBalancers, why: why.clone() });
            return Ok(Some(remembered.clone()));
        }
        (Fact::Unknown(why), None) => {
            let on = WaitingOn::Answer { about: Subject::LoadBalancers, why: why.clone() };
            return Err(course.wait(on));
        }
    };
    let fit = balancing.map(|balancing| balancing.found.fit.as_slice()).unwrap_or_default();
    let endpoints = fit.iter().map(|found| (found.dns_name.as_str(), found.port));
    for balancer in fit {
        if !passes(settings, balancer) {
            let (balancer, check) = (balancer.name.clone(), &balancer.health_check);
            course.warn(Warning::HealthCheckNeverPasses { balancer, protocol: check.protocol.clone() });
        }
    }
    match (endpoints.collect::<Vec<_>>().as_slice(), remembered) {
        ([(host, port)], _) => match ApiEndpoint::new(&host.to_ascii_lowercase(), *port) {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(_) => Err(course.halt(Halt::Contradiction {
                what: format!("the load balancer is reached by {host:?}, which is no host name"),
            })),
        },
        ([], Some(remembered)) => {
            course.warn(Warning::LoadBalancerGone { host: remembered.host().to_owned() });
            Ok(Some(remembered.clone()))
        }
        ([], None) => Ok(None),
        (several, _) => {
            let found = several.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            Err(course.halt(Halt::AmbiguousLoadBalancers { found }))
        }
    }
}

/// Whether a healthy API server passes the load balancer's health check. Network load balancers ask
/// by TLS 1.2; classic ones by an exchange of keys that ECDSA certificates, which all here are, do not
/// do.
fn passes(settings: &Settings, balancer: &LoadBalancer) -> bool {
    match (&balancer.kind, balancer.health_check.protocol.as_str()) {
        (_, "TCP") => true,
        (LoadBalancerKind::Network { .. }, "HTTPS") => {
            settings.kubernetes.api_server.tls_min_version == TlsMinVersion::Tls12
        }
        (LoadBalancerKind::Network { .. } | LoadBalancerKind::Classic, _) => false,
    }
}

/// The authorities, made once in a cluster's life. `None` when they can't be had at the moment and
/// this machine lives on what it was given.
fn authorities<'a>(
    seen: &'a Observation,
    view: &ClusterView,
    course: &mut Course,
) -> Next<Option<&'a Authority>> {
    let usable = usable(seen);
    let recorded = view.control_plane.authorities.as_ref();
    match (&seen.kubernetes.authorities, recorded) {
        (Fact::Known(Some(found)), Some(recorded)) if found.fingerprint == *recorded => Ok(Some(found)),
        (Fact::Known(Some(found)), Some(recorded)) => Err(course.halt(Halt::Contradiction {
            what: format!(
                "the Kubernetes authorities in S3 ({}) are not those that this cluster was made with \
                 ({recorded}): restore the object's earlier version",
                found.fingerprint
            ),
        })),
        (Fact::Known(Some(found)), None) => {
            course.steps.push(Step::RecordClusterAuthorities { fingerprint: found.fingerprint.clone() });
            Ok(Some(found))
        }
        (Fact::Known(None), Some(_)) if usable => {
            course.warn(Warning::ClusterAuthoritiesLost);
            Ok(None)
        }
        (Fact::Known(None), Some(_)) => Err(course.halt(Halt::ClusterAuthoritiesLost)),
        (Fact::Known(None), None) => {
            // Certificates of authorities that nobody wrote down: there was an earlier life.
            if course.need(&seen.kubernetes.leaves, Subject::ClusterLeaves)?.is_some() {
                return Err(course.halt(Halt::ClusterAuthoritiesLost));
            }
            synchronised(seen, course)?;
            Err(course.act([Step::CreateClusterAuthorities]))
        }
        (Fact::Unknown(why), _) if usable => {
            course.warn(Warning::Answer { subject: Subject::ClusterAuthorities, why: why.clone() });
            Ok(None)
        }
        (Fact::Unknown(why), _) => {
            Err(course.wait(WaitingOn::Answer { about: Subject::ClusterAuthorities, why: why.clone() }))
        }
    }
}

/// Whether the leaves on this machine can be lived on.
fn usable(seen: &Observation) -> bool {
    matches!(
        &seen.kubernetes.leaves,
        Fact::Known(Some(leaves)) if leaves.not_before <= seen.at && seen.at < leaves.not_after
    )
}

/// Issues this machine's leaves when they are missing, ending, or name the wrong things.
fn leaves(
    seen: &Observation,
    inputs: &ControlPlaneInputs,
    authorities: Option<&Authority>,
    course: &mut Course,
) -> Next<()> {
    let Some(authorities) = authorities else { return Ok(()) };
    let etcd = match &seen.authority {
        Fact::Known(Some(etcd)) => etcd,
        Fact::Known(None) | Fact::Unknown(_) if usable(seen) => return Ok(()),
        Fact::Known(None) => return Err(course.halt(Halt::AuthorityLost)),
        Fact::Unknown(why) => {
            return Err(course.wait(WaitingOn::Answer { about: Subject::Authority, why: why.clone() }));
        }
    };
    let wrong = |error: &dyn std::error::Error| course.halt(Halt::Contradiction { what: chain(error) });
    let request = inputs.leaf_request().map_err(|error| wrong(&error))?;
    let names = request.names().map_err(|error| wrong(&error))?;
    let found = course.need(&seen.kubernetes.leaves, Subject::ClusterLeaves)?.as_ref();
    let fits = found.is_some_and(|found| {
        found.authorities == authorities.fingerprint
            && found.etcd_authority == etcd.fingerprint
            && found.names == names
    });
    let renewal = found.is_some_and(|found| past_half_life(found.not_before, found.not_after, seen.at));
    if fits && usable(seen) && !renewal {
        return Ok(());
    }
    if seen.at >= authorities.not_after {
        return Err(course.halt(Halt::ClusterAuthoritiesExpired));
    }
    let issue = Step::IssueClusterLeaves {
        request,
        authorities: authorities.fingerprint.clone(),
        etcd_authority: etcd.fingerprint.clone(),
    };
    if fits && usable(seen) {
        // They are read again while the components run: nothing waits for this.
        if seen.clock_synchronised == Fact::Known(true) {
            course.steps.push(issue);
        }
        return Ok(());
    }
    synchronised(seen, course)?;
    course.steps.push(issue);
    Ok(())
}

/// What everything here stands on.
struct Ground<'a> {
    me: &'a Identity,
    version: KubernetesVersion,
    view: &'a ClusterView,
    endpoint: Option<ApiEndpoint>,
}

fn ground<'a>(settings: &Settings, seen: &'a Observation, course: &mut Course) -> Next<Ground<'a>> {
    let me = course.need(&seen.identity, Subject::Identity)?;
    let version = *course.need(&seen.kubernetes.version, Subject::KubernetesVersion)?;
    let Fact::Known(view) = &seen.etcd.cluster else {
        return Err(course.wait(WaitingOn::Quorum));
    };
    let endpoint = endpoint(settings, seen, course)?;
    Ok(Ground { me, version, view, endpoint })
}

impl Ground<'_> {
    /// What the files are rendered from, with the authorities of this fingerprint.
    fn inputs(
        self,
        settings: &Settings,
        seen: &Observation,
        authorities: Option<String>,
        course: &Course,
    ) -> Next<ControlPlaneInputs> {
        let Self { me, version, view, endpoint } = self;
        let Some(endpoint) = endpoint else {
            return Err(course.wait(WaitingOn::LoadBalancer));
        };
        // Their digest is in the manifests: without it there would be others.
        let Some(authorities) = authorities else {
            let why = "they are not recorded in etcd yet".to_owned();
            return Err(course.wait(WaitingOn::Answer { about: Subject::ClusterAuthorities, why }));
        };
        let etcd_endpoints: Vec<String> = if seen.etcd.own.is_known() {
            vec![client_url(me.address)]
        } else {
            view.records.values().filter_map(|record| address_of(&record.peer_url).map(client_url)).collect()
        };
        if etcd_endpoints.is_empty() {
            return Err(course.wait(WaitingOn::Quorum));
        }
        // Without its word the programs would be started anew, once and once more.
        let charter = match (&seen.charter, &view.charter) {
            (Fact::Known(Some(charter)), _) => &charter.value,
            (_, Some(copy)) => copy,
            (Fact::Known(None) | Fact::Unknown(_), None) => return Err(course.wait(WaitingOn::Quorum)),
        };
        let recovered = charter.recovery.is_some().then_some(charter.generation);
        let node = node::inputs(settings, &seen.kubernetes, me, version, course)?;
        Ok(ControlPlaneInputs { node, endpoint, etcd_endpoints, authorities, recovered })
    }
}

/// Registers this machine, which is ready, where its group does not; and where it does, since a group registers a
/// machine once, and not one that had left and is back. One that the group has taken out itself stays out.
fn register(seen: &Observation, me: &Identity, course: &mut Course) {
    let Fact::Known(Some(LoadBalancing { found, by_group, target })) = &seen.kubernetes.load_balancing else {
        return;
    };
    if *by_group && seen.departure.target != Fact::Known(Some(TargetState::InService)) {
        return;
    }
    if let ([balancer], Fact::Known(TargetHealth::NotRegistered)) = (found.fit.as_slice(), target) {
        let target = balancer.target_of(me);
        course.steps.push(Step::RegisterTarget { balancer: balancer.clone(), target });
    }
}
