//! Kubernetes' control plane on this machine, and the load balancer before it.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::time::{Duration, Instant};

use crate::aws::MetadataError;
use crate::config::Settings;
use crate::config::settings::{ControlPlaneKind, NodeNaming};
use crate::host::containerd::Containerd;
use crate::host::manifests::Manifests;
use crate::host::service::Service;
use crate::host::{Root, capacity, files, logind};
use crate::kubernetes::{Component, KubernetesVersion, digest, paths, reserved};
use crate::model::containerd::ContainerdObservation;
use crate::model::fact::chain;
use crate::model::kubernetes::{
    ComponentObservation, KubernetesObservation, LoadBalancing, NODE_SERVICES, Readiness,
};
use crate::model::load_balancer::{FoundLoadBalancers, TargetHealth};
use crate::model::node::{InstanceFacts, InterfaceLimits, NodeFacts};
use crate::model::service::ServiceObservation;
use crate::model::worker::WorkerObservation;
use crate::model::{Fact, Role, ServiceName};
use crate::pki;
use crate::reach::Reach;

use super::{Memory, api, enrolment, objects, worker};

/// Load balancers that were found are asked for again so often.
const BALANCERS_FOR: Duration = Duration::from_mins(1);
/// How long a component on this machine is waited for.
const PROBE: Duration = Duration::from_secs(5);

fn is_asked_for(settings: &Settings) -> bool {
    settings.role == Role::ControlPlane && settings.kubernetes.control_plane == ControlPlaneKind::StaticPods
}

/// Looks at everything. `founded`: before there is a cluster there is nothing to look at.
pub(super) async fn look(reach: &Reach, memory: &mut Memory, founded: bool) -> KubernetesObservation {
    if !is_asked_for(&reach.settings) {
        return KubernetesObservation {
            logind: logind::observe(&reach.root).await.into(),
            files: written(reach, [paths::LOGIND]),
            ..KubernetesObservation::unknown("not asked for: this machine has no control plane")
        };
    }
    if !founded {
        return KubernetesObservation::unknown("not asked for: there is no cluster yet");
    }
    let (load_balancing, authorities, version, components, node, containerd, services, logind) = tokio::join!(
        Box::pin(load_balancing(reach, &mut memory.balancing)),
        objects::authority(reach, &mut memory.cluster_authorities, objects::CLUSTER),
        version(reach),
        components(reach),
        node(reach, &mut memory.instance),
        containerd(reach),
        services(reach),
        logind::observe(&reach.root),
    );
    let remembered_endpoint = reach.last_endpoint().into();
    let (api_lease, first_things, addons) =
        api::look(reach, &mut memory.addons, &remembered_endpoint, &components).await;
    let enrolment = Box::pin(enrolment::look(reach, &mut memory.enrolment, &api_lease)).await;
    KubernetesObservation {
        version,
        node,
        load_balancing,
        remembered_endpoint,
        authorities,
        leaves: pki::cluster_leaves::inspect(&reach.root.path(paths::KUBERNETES), reach.owners().as_ref())
            .into(),
        files: written(reach, paths::RENDERED),
        containerd,
        logind: logind.into(),
        services,
        components,
        api_lease,
        first_things,
        addons,
        enrolment,
        worker: WorkerObservation::unknown("not asked for: this machine has a control plane"),
    }
}

/// Looks at what a node's own files depend on beside who it is, whatever its role, and at nothing else.
pub(super) async fn of_the_node(reach: &Reach, memory: &mut Memory) -> KubernetesObservation {
    let (version, node) = tokio::join!(version(reach), node(reach, &mut memory.instance));
    let mut seen = KubernetesObservation { version, node, ..KubernetesObservation::unknown("not asked for") };
    seen.worker.remembered = worker::remembered(reach);
    seen
}

/// Looks again at what changes from moment to moment.
pub(super) async fn again(
    reach: &Reach,
    memory: &mut Memory,
    mut seen: KubernetesObservation,
) -> KubernetesObservation {
    if seen.version.is_known() {
        (seen.components, seen.services) = tokio::join!(components(reach), services(reach));
        api::again(reach, &mut memory.addons, &mut seen).await;
        seen.enrolment = Box::pin(enrolment::look(reach, &mut memory.enrolment, &seen.api_lease)).await;
    }
    seen
}

pub(super) async fn containerd(reach: &Reach) -> ContainerdObservation {
    Containerd::of(&reach.root).observe().await
}

pub(super) async fn services(reach: &Reach) -> BTreeMap<ServiceName, Fact<ServiceObservation>> {
    let looks = NODE_SERVICES
        .map(|name| async move { (name, Service::of(&reach.root, name).observe().await.into()) });
    futures_util::future::join_all(looks).await.into_iter().collect()
}

/// The version in the settings, else that of the machine's kubelet.
pub(super) async fn version(reach: &Reach) -> Fact<KubernetesVersion> {
    match reach.settings.kubernetes.version {
        Some(version) => Fact::Known(version),
        None => reach.kubelet_version().await.into(),
    }
}

/// What never changes while an instance runs, once it was told.
#[derive(Debug, Default)]
pub(super) struct AboutInstance {
    facts: Option<InstanceFacts>,
    limits: Option<InterfaceLimits>,
}

/// What this machine is.
pub(super) async fn node(reach: &Reach, memory: &mut AboutInstance) -> Fact<NodeFacts> {
    let instance = match &memory.facts {
        Some(known) => known.clone(),
        None => match instance_facts(reach).await {
            Ok(found) => memory.facts.insert(found).clone(),
            Err(error) => return Err(error).into(),
        },
    };
    let instance_type = instance.instance_type.as_deref();
    let interface_limits = interface_limits(reach, instance_type, &mut memory.limits).await;
    // The kernel is the same under every root.
    let machine = capacity::machine(&Root::default(), &reach.root);
    let facts = machine.and_then(|machine| {
        let drop_ins = capacity::drop_ins(&reach.root)?;
        Ok(NodeFacts { instance, interface_limits, machine, drop_ins })
    });
    facts.into()
}

/// What the metadata service says of the instance. Its name is asked for where the node is called by it.
async fn instance_facts(reach: &Reach) -> Result<InstanceFacts, MetadataError> {
    let metadata = &reach.aws.metadata;
    let private_dns_name = async {
        match reach.settings.kubernetes.node_name {
            NodeNaming::PrivateDnsName => metadata.private_dns_name().await,
            NodeNaming::InstanceId => Ok(None),
        }
    };
    let (instance_type, capacity_type, private_dns_name) =
        tokio::join!(metadata.instance_type(), metadata.capacity_type(), private_dns_name);
    Ok(InstanceFacts {
        instance_type: instance_type?,
        capacity_type: capacity_type?,
        private_dns_name: private_dns_name?,
    })
}

/// What EC2 says of this machine's type, asked only where the settings and the table do not tell how many pods it
/// takes. A machine whose type is not known has nothing to be asked about.
pub(super) async fn interface_limits(
    reach: &Reach,
    instance_type: Option<&str>,
    memory: &mut Option<InterfaceLimits>,
) -> Fact<Option<InterfaceLimits>> {
    let Some(instance_type) = instance_type
        .filter(|_| reserved::asks_for_interface_limits(&reach.settings.kubernetes, instance_type))
    else {
        return Fact::Known(None);
    };
    if memory.is_none() {
        match reach.aws.ec2.interface_limits(instance_type).await {
            Ok(found) => *memory = Some(found),
            Err(error) => return Err(error).into(),
        }
    }
    Fact::Known(*memory)
}

async fn load_balancing(
    reach: &Reach,
    memory: &mut Option<(Instant, LoadBalancing)>,
) -> Fact<Option<LoadBalancing>> {
    if reach.settings.kubernetes.endpoint.is_some() {
        return Fact::Known(None);
    }
    if let Some((at, found)) = memory
        && at.elapsed() < BALANCERS_FOR
    {
        return Fact::Known(Some(found.clone()));
    }
    *memory = None;
    let found = match find(reach).await {
        Ok(found) => found,
        Err(why) => return Fact::Unknown(why),
    };
    // What is not there yet, and a machine that is not registered yet, are looked for at every look.
    let registered = matches!(&found.target, Fact::Known(health) if *health != TargetHealth::NotRegistered);
    if found.found.fit.len() == 1 && registered {
        *memory = Some((Instant::now(), found.clone()));
    }
    Fact::Known(Some(found))
}

async fn find(reach: &Reach) -> Result<LoadBalancing, String> {
    let (found, by_group) = find_balancers(reach).await?;
    let target = match found.fit.as_slice() {
        [only] => {
            let target = only.target_of(&reach.identity);
            reach.aws.load_balancers.target_health(only, &target, only.target_port).await.into()
        }
        _ => Fact::unknown("not asked for: there is no single load balancer"),
    };
    Ok(LoadBalancing { found, by_group, target })
}

/// The load balancers of the group, or else those with the cluster's tag; and whether they are the group's.
pub(super) async fn find_balancers(reach: &Reach) -> Result<(FoundLoadBalancers, bool), String> {
    let settings = &reach.settings;
    let names: Vec<String> = settings.groups.iter().map(|name| name.as_str().to_owned()).collect();
    let groups = reach.aws.autoscaling.groups(&settings.cluster, settings.role, &names).await;
    let groups = groups.map_err(|error| chain(&error))?;
    let arns: Vec<_> = groups.iter().flat_map(|group| group.target_groups.iter().cloned()).collect();
    let classic: Vec<_> =
        groups.iter().flat_map(|group| group.classic_load_balancers.iter().cloned()).collect();
    let balancers = &reach.aws.load_balancers;
    let by_group = !arns.is_empty() || !classic.is_empty();
    let found = if by_group {
        let mut found = balancers.target_groups(&arns).await.map_err(|error| chain(&error))?;
        let more = balancers.classic(&classic).await.map_err(|error| chain(&error))?;
        found.fit.extend(more.fit);
        found.unfit.extend(more.unfit);
        found
    } else {
        balancers.by_tag(&settings.cluster).await.map_err(|error| chain(&error))?
    };
    Ok((found, by_group))
}

/// The digests of the files that are rendered; who wrote them is no matter.
pub(super) fn written(
    reach: &Reach,
    rendered: impl IntoIterator<Item = &'static str>,
) -> Fact<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in rendered {
        match files::read_optional(&reach.root.path(path)) {
            Ok(Some(bytes)) => {
                found.insert(path.to_owned(), digest(&bytes));
            }
            Ok(None) => {}
            Err(error) => return Err(error).into(),
        }
    }
    Fact::Known(found)
}

async fn components(reach: &Reach) -> BTreeMap<Component, ComponentObservation> {
    let manifests = Manifests::of(&reach.root);
    let ca = reach.root.path(paths::CA);
    let looks = Component::ALL.map(|component| {
        let (manifests, ca) = (&manifests, &ca);
        async move {
            let manifest: Fact<Option<String>> = manifests.digest(component).into();
            let readiness = match &manifest {
                Fact::Known(None) => Readiness::NotReady("it has no manifest yet".to_owned()),
                Fact::Known(Some(_)) | Fact::Unknown(_) => probe(reach, component, ca).await,
            };
            (
                component,
                ComponentObservation { manifest, rollout: manifests.rollout(component).into(), readiness },
            )
        }
    });
    futures_util::future::join_all(looks).await.into_iter().collect()
}

/// Asks a component whether it is ready, as its readiness probe does. What the API server shows must
/// be a certificate of the cluster's; the others show one that they made themselves.
async fn probe(reach: &Reach, component: Component, ca: &Path) -> Readiness {
    let url = component.readiness_url(reach.identity.address);
    let ca = match component {
        Component::ApiServer => Some(ca),
        Component::ControllerManager | Component::Scheduler => None,
    };
    match tokio::time::timeout(PROBE, crate::host::https::ask(&url, ca)).await {
        Ok(Ok(answer)) if answer.is_success() => Readiness::Ready,
        Ok(Ok(answer)) => Readiness::NotReady(answer.told()),
        Ok(Err(error)) => Readiness::NotReady(chain(&error)),
        Err(_) => Readiness::NotReady(format!("no answer within {} s", PROBE.as_secs())),
    }
}
