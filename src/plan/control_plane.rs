//! Kubernetes' control plane on this machine: its certificates, its files, and its static pods.
//!
//! etcd comes first: nothing is decided here before the etcd plan has nothing left to do. What was
//! there before stays as it is while an answer is missing, so a control plane that runs goes on
//! running.
//!
//! A manifest that is there is changed on one control-plane node at a time, under a lock in etcd,
//! and one that does not get ready in time is replaced by the one before and not tried again.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Settings;
use crate::config::settings::{ApiEndpoint, ControlPlaneKind, TlsMinVersion};
use crate::kubernetes::node::node_name;
use crate::kubernetes::{self, Component, ControlPlaneInputs, KubernetesVersion, NodeInputs, RenderedFile};
use crate::model::fact::chain;
use crate::model::kubernetes::{
    ComponentObservation, KubernetesObservation, LoadBalancing, Readiness, Rollout, RolloutState,
};
use crate::model::load_balancer::{LoadBalancer, LoadBalancerKind, TargetHealth};
use crate::model::machine::{address_of, client_url};
use crate::model::node::NodeFacts;
use crate::model::plan::Subject;
use crate::model::{
    Authority, ClusterView, Fact, Halt, Identity, Observation, Phase, Plan, Report, Step, WaitingOn, Warning,
};

use super::api;
use super::certificates::{past_half_life, synchronised};
use super::course::{Course, Next};

/// How long, in milliseconds, a component that answers with a changed manifest is watched before that has proven
/// good; but not for more than half of its time to get ready. The kubelet looks at its directory every 20 s.
const WATCHED_FOR: i64 = 30_000;

/// The plan of a machine whose etcd has nothing to do, with what its control plane needs.
pub(super) fn extend(settings: &Settings, seen: &Observation, etcd: Plan) -> Plan {
    let settled = matches!(etcd.report.phase, Phase::Running | Phase::Standby);
    let wanted = settings.kubernetes.control_plane == ControlPlaneKind::StaticPods;
    if !wanted || !settled || !etcd.steps.is_empty() || etcd.report.halt.is_some() {
        return etcd;
    }
    let mut course = Course::new(etcd.report.phase);
    course.slot = etcd.report.slot;
    course.warnings = etcd.report.warnings;
    let mut plan = match decide(settings, seen, course) {
        Ok(plan) => plan,
        Err(plan) => *plan,
    };
    plan.report.waiting.splice(0..0, etcd.report.waiting);
    plan
}

/// What this machine's files are rendered from, and what is to be known about it; or else the report
/// that says what is missing.
pub fn control_plane_inputs(
    settings: &Settings,
    seen: &Observation,
) -> Result<(ControlPlaneInputs, Vec<Warning>), Box<Report>> {
    let mut course = Course::new(Phase::Preparing);
    match ground(settings, seen, &mut course).and_then(|ground| ground.inputs(settings, seen, &course)) {
        Ok(inputs) => Ok((inputs, course.warnings)),
        Err(plan) => Err(Box::new(plan.report)),
    }
}

/// What a machine's kubelet and kube-proxy are configured from; or else the report that says what is missing.
pub fn node_inputs(
    settings: &Settings,
    identity: &Fact<Identity>,
    seen: &KubernetesObservation,
) -> Result<NodeInputs, Box<Report>> {
    let course = Course::new(Phase::Preparing);
    let inputs = || {
        let me = course.need(identity, Subject::Identity)?;
        let version = *course.need(&seen.version, Subject::KubernetesVersion)?;
        node(settings, seen, me, version, &course)
    };
    inputs().map_err(|plan| Box::new(plan.report))
}

fn decide(settings: &Settings, seen: &Observation, mut course: Course) -> Next<Plan> {
    let ground = ground(settings, seen, &mut course)?;
    let (me, view) = (ground.me, ground.view);
    let authorities = authorities(seen, view, &mut course)?;
    let inputs = ground.inputs(settings, seen, &course)?;
    let endpoint = inputs.endpoint.clone();
    leaves(seen, &inputs, authorities, &mut course)?;
    let impossible = |error: &dyn std::error::Error| Halt::Contradiction { what: chain(error) };
    let rendered = kubernetes::control_plane(&inputs).map_err(|error| course.halt(impossible(&error)))?;
    let found = course.need(&seen.kubernetes.files, Subject::KubernetesFiles)?;
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
    // The kubelet's kubeconfig is one of the leaves: it names this machine, and never changes.
    super::node::services(&seen.kubernetes, &inputs.node, &rendered.files, &[], &mut course)?;
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
            Err(course.act([Step::RecordClusterAuthorities { fingerprint: found.fingerprint.clone() }]))
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
    Err(course.act([issue]))
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
    fn inputs(self, settings: &Settings, seen: &Observation, course: &Course) -> Next<ControlPlaneInputs> {
        let Self { me, version, view, endpoint } = self;
        let Some(endpoint) = endpoint else {
            return Err(course.wait(WaitingOn::LoadBalancer));
        };
        // Their digest is in the manifests: without it there would be others.
        let Some(authorities) = view.control_plane.authorities.clone() else {
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
        let node = node(settings, &seen.kubernetes, me, version, course)?;
        Ok(ControlPlaneInputs { node, endpoint, etcd_endpoints, authorities })
    }
}

/// What this machine's kubelet and kube-proxy are configured from.
fn node(
    settings: &Settings,
    seen: &KubernetesObservation,
    me: &Identity,
    version: KubernetesVersion,
    course: &Course,
) -> Next<NodeInputs> {
    let NodeFacts { instance, interface_limits, machine, drop_ins } =
        course.need(&seen.node, Subject::Machine)?.clone();
    let naming = settings.kubernetes.node_name;
    let name = node_name(naming, &me.instance, instance.private_dns_name.as_deref())
        .map_err(|error| course.halt(Halt::Contradiction { what: chain(&error) }))?;
    Ok(NodeInputs {
        cluster: settings.cluster.clone(),
        settings: settings.kubernetes.clone(),
        version,
        role: settings.role,
        name,
        instance: me.instance.clone(),
        zone: me.zone.clone(),
        region: me.region.clone(),
        address: me.address,
        instance_type: instance.instance_type,
        capacity_type: instance.capacity_type,
        machine,
        interface_limits: *course.need(&interface_limits, Subject::InstanceType)?,
        drop_ins,
    })
}

/// The components whose manifest is there, for all that is known, and is to be another.
fn changing(seen: &Observation, manifests: &BTreeMap<Component, RenderedFile>) -> Vec<Component> {
    let is_changing = |(component, manifest): (&Component, &RenderedFile)| {
        let found = seen.kubernetes.components.get(component)?;
        let same = match &found.manifest {
            Fact::Known(None) => true,
            Fact::Known(Some(there)) => *there == manifest.digest(),
            Fact::Unknown(_) => false,
        };
        (!same).then_some(*component)
    };
    manifests.iter().filter_map(is_changing).collect()
}

/// Whether the file is one of those that only this component reads.
fn reads(component: Component, file: &RenderedFile) -> bool {
    Path::new(&file.path).starts_with(component.directory())
}

/// Puts the manifests in place that are not there, and changes those that differ, one after the
/// other.
fn roll_out(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    view: &ClusterView,
    manifests: BTreeMap<Component, RenderedFile>,
    with_manifest: &[RenderedFile],
    course: &mut Course,
) -> Next<()> {
    for (component, manifest) in manifests {
        let Some(found) = seen.kubernetes.components.get(&component) else { continue };
        let there = course.need(&found.manifest, Subject::KubernetesFiles)?.as_deref();
        let last = course.need(&found.rollout, Subject::KubernetesFiles)?.as_ref();
        let wanted = manifest.digest();
        let Some(there) = there else {
            // Nothing runs that could be interrupted.
            course.steps.push(Step::RollOut { component, files: Vec::new(), manifest });
            continue;
        };
        if there == wanted {
            settle(settings, seen, component, found, last.filter(|last| last.digest == wanted), course)?;
            continue;
        }
        if last.is_some_and(|last| last.failed.contains(&wanted)) {
            course.warn(Warning::RolledBack { component });
            continue;
        }
        if let Readiness::NotReady(why) = &found.readiness
            && last.is_some_and(|last| last.digest == there && last.state == RolloutState::Pending)
            && last.is_some_and(|last| !had_its_time(settings, seen, last.since))
        {
            return Err(course.wait(WaitingOn::Component { component, why: why.clone() }));
        }
        // One change at a time, on this machine as in the cluster. The lock is taken, or kept for its
        // whole lease, right before each: where another machine has it now, the plan ends there.
        let files = with_manifest.iter().filter(|file| reads(component, file)).cloned().collect();
        return Err(match &view.control_plane.lock {
            Some(holder) if *holder != me.instance => {
                course.wait(WaitingOn::ControlPlaneLock { holder: holder.clone() })
            }
            Some(_) | None => course.act([
                Step::TakeControlPlaneLock { instance: me.instance.clone() },
                Step::RollOut { component, files, manifest },
            ]),
        });
    }
    Ok(())
}

/// The manifest is in place: it has proven good, or is waited for, or goes.
fn settle(
    settings: &Settings,
    seen: &Observation,
    component: Component,
    found: &ComponentObservation,
    last: Option<&Rollout>,
    course: &mut Course,
) -> Next<()> {
    let Some(Rollout { state: RolloutState::Pending, since, previous, .. }) = last else {
        return Ok(());
    };
    match (&found.readiness, previous) {
        // It may be the program of the manifest before that still answers.
        (Readiness::Ready, Some(_)) if !was_watched(settings, seen, *since) => {
            let why = "it is ready with a changed manifest, and is watched for a while".to_owned();
            return Err(course.wait(WaitingOn::Component { component, why }));
        }
        (Readiness::Ready, _) => course.steps.push(Step::KeepManifest { component }),
        (Readiness::NotReady(_), Some(_)) if had_its_time(settings, seen, *since) => {
            return Err(course.act([Step::RollBack { component }]));
        }
        (Readiness::NotReady(why), Some(_)) => {
            return Err(course.wait(WaitingOn::Component { component, why: why.clone() }));
        }
        // The first one there ever was; it is waited for with all others.
        (Readiness::NotReady(_), None) => {}
    }
    Ok(())
}

/// Whether a manifest that was put in place then, in milliseconds since 1970, has been there for long enough
/// for the kubelet to have ended what ran before.
fn was_watched(settings: &Settings, seen: &Observation, since: i64) -> bool {
    let patience = i64::try_from(settings.kubernetes.ready_patience.as_duration().as_millis());
    seen.at.saturating_sub(since) >= WATCHED_FOR.min(patience.unwrap_or(i64::MAX) / 2)
}

/// Whether a manifest that was put in place then, in milliseconds since 1970, has had its time to get ready.
fn had_its_time(settings: &Settings, seen: &Observation, since: i64) -> bool {
    let patience = i64::try_from(settings.kubernetes.ready_patience.as_duration().as_millis());
    seen.at.saturating_sub(since) >= patience.unwrap_or(i64::MAX)
}

/// Registers this machine, which is ready, where its group does not.
fn register(seen: &Observation, me: &Identity, course: &mut Course) {
    let Fact::Known(Some(LoadBalancing { found, by_group: false, target })) = &seen.kubernetes.load_balancing
    else {
        return;
    };
    if let ([balancer], Fact::Known(TargetHealth::NotRegistered)) = (found.fit.as_slice(), target) {
        let target = balancer.target_of(me);
        course.steps.push(Step::RegisterTarget { balancer: balancer.clone(), target });
    }
}
