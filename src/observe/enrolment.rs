//! Machines that become nodes: what they ask for, and what EC2 and Auto Scaling say of them.
//!
//! Asked for only by the machine that holds the lease in the API: others have nothing to decide. A request that stays
//! pending is asked about ever less often ([`rests`] says how).

mod rests;
#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use crate::cluster_api::ApiClient;
use crate::host::files;
use crate::kubernetes::join::Join;
use crate::kubernetes::{digest, paths};
use crate::model::enrolment::{
    CertificateRequest, ClusterNode, EnrolmentObservation, GoneLooks, JoinFound, JoinObservation,
    NodeInstance, NodeReadiness,
};
use crate::model::fact::chain;
use crate::model::kubernetes::ApiLease;
use crate::model::{Fact, InstanceId, InstanceState, Role, Step};
use crate::reach::{JOIN, Reach};

use rests::Rests;

/// How long all answers may take.
const ASK: Duration = Duration::from_secs(30);
/// Nodes are listed again so often.
const NODES_FOR: Duration = Duration::from_secs(30);
/// What is published is read again so often.
const JOIN_FOR: Duration = Duration::from_mins(1);
/// Between two looks at an instance that count as two. One that EC2 does not find may be too new for it.
const BETWEEN_LOOKS: Duration = Duration::from_secs(15);
const BETWEEN_LOOKS_NOT_FOUND: Duration = Duration::from_mins(1);

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    nodes: Option<(Instant, BTreeMap<String, ClusterNode>)>,
    join: Option<(Instant, JoinObservation)>,
    gone: BTreeMap<InstanceId, (Instant, u32)>,
    rests: Rests,
}

impl Remembered {
    /// Takes note of a step that was planned.
    pub(super) fn planned(&mut self, step: &Step) {
        self.rests.disturb(step);
    }
}

/// Looks at everything, if the lease says that this machine holds it.
pub(super) async fn look(
    reach: &Reach,
    memory: &mut Remembered,
    lease: &Fact<Option<ApiLease>>,
) -> EnrolmentObservation {
    let holder = lease.known().and_then(|lease| lease.as_ref()?.holder.as_deref());
    if holder != Some(reach.identity.instance.as_str()) {
        // What it knew is out of date when it holds the lease again.
        *memory = Remembered::default();
        return EnrolmentObservation::unknown("not asked for: this machine does not hold the API's lease");
    }
    match ApiClient::connect(&reach.root.path(paths::ADMIN_KUBECONFIG)).await {
        Ok(api) => match tokio::time::timeout(ASK, all(reach, memory, &api, Instant::now())).await {
            Ok(seen) => seen,
            Err(_) => EnrolmentObservation::unknown(&format!("no answer within {} s", ASK.as_secs())),
        },
        Err(error) => EnrolmentObservation::unknown(&chain(&error)),
    }
}

async fn all(reach: &Reach, memory: &mut Remembered, api: &ApiClient, now: Instant) -> EnrolmentObservation {
    let requests: Fact<Vec<CertificateRequest>> = api.pending_requests().await.into();
    let all: &[CertificateRequest] = requests.known().map_or(&[], Vec::as_slice);
    let resting = memory.rests.resting(all, now);
    let due: Vec<&CertificateRequest> =
        all.iter().filter(|request| !resting.contains(&request.name)).collect();
    let asked = !due.is_empty();
    let nodes = nodes(memory, api, asked).await;
    let members = if asked {
        members(reach).await
    } else {
        Fact::unknown("not asked for: there is no request that does not rest")
    };
    let instances = instances(reach, &due, &nodes).await;
    if requests.is_known() && nodes.is_known() && instances.is_known() && (members.is_known() || !asked) {
        memory.rests.answered(all, &resting, now);
    }
    let gone = count_gone(memory, &nodes, &instances);
    let join = join(reach, memory, api).await;
    let shared_zone_told = api.shared_zone_told().await.into();
    EnrolmentObservation { join, requests, resting, nodes, instances, members, gone, shared_zone_told }
}

async fn nodes(memory: &mut Remembered, api: &ApiClient, asked: bool) -> Fact<BTreeMap<String, ClusterNode>> {
    if let Some((at, nodes)) = &memory.nodes
        && at.elapsed() < NODES_FOR
        && !asked
        // They are about to be deleted.
        && !nodes.values().any(|node| node.left)
    {
        return Fact::Known(nodes.clone());
    }
    let found: Fact<BTreeMap<String, ClusterNode>> = api.all_nodes().await.into();
    memory.nodes = found.known().map(|nodes| (Instant::now(), nodes.clone()));
    found
}

/// The instances in the cluster's groups, by their groups' roles.
async fn members(reach: &Reach) -> Fact<BTreeMap<InstanceId, Role>> {
    let cluster = &reach.settings.cluster;
    let named: Vec<String> = reach.settings.groups.iter().map(|name| name.as_str().to_owned()).collect();
    let autoscaling = &reach.aws.autoscaling;
    let (control_plane, workers) = tokio::join!(
        autoscaling.groups(cluster, Role::ControlPlane, &named),
        autoscaling.groups(cluster, Role::Worker, &[]),
    );
    let mut members = BTreeMap::new();
    // What is listed twice is taken for a worker: that is the lesser role.
    for (role, groups) in [(Role::ControlPlane, control_plane), (Role::Worker, workers)] {
        match groups {
            Ok(groups) => members.extend(
                groups.into_iter().flat_map(|group| group.instances).map(|instance| (instance.id, role)),
            ),
            Err(error) => return Err(error).into(),
        }
    }
    Fact::Known(members)
}

/// What EC2 says of the instances that these requests, and nodes, name.
async fn instances(
    reach: &Reach,
    requests: &[&CertificateRequest],
    nodes: &Fact<BTreeMap<String, ClusterNode>>,
) -> Fact<BTreeMap<InstanceId, NodeInstance>> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for node in requests.iter().filter_map(|request| request.node()) {
        match node.parse::<InstanceId>() {
            Ok(id) => drop(ids.insert(id)),
            Err(_) => drop(names.insert(node.to_owned())),
        }
    }
    // A node that is heard has an instance that lives: only the silent are asked about.
    let silent: BTreeSet<InstanceId> = nodes
        .known()
        .into_iter()
        .flat_map(BTreeMap::values)
        .filter(|node| node.readiness == NodeReadiness::Silent)
        .filter_map(|node| node.instance.clone())
        .collect();
    ids.extend(silent.iter().cloned());
    if ids.is_empty() && names.is_empty() {
        return Fact::Known(BTreeMap::new());
    }
    let (cluster, ec2) = (&reach.settings.cluster, &reach.aws.ec2);
    let (ids, names): (Vec<InstanceId>, Vec<String>) =
        (ids.into_iter().collect(), names.into_iter().collect());
    let mut found = match ec2.node_instances(cluster, &ids, &names).await {
        Ok(found) => found,
        Err(error) => return Err(error).into(),
    };
    // EC2 forgets a terminated instance after an hour: of nodes' instances its definite word is asked for.
    let missing: Vec<InstanceId> = silent.into_iter().filter(|id| !found.contains_key(id)).collect();
    if !missing.is_empty() {
        match ec2.instances_by_id(cluster, &missing).await {
            Ok(told) => found.extend(told.into_iter().map(|(id, instance)| {
                let node = NodeInstance {
                    state: instance.state,
                    role: instance.role,
                    zone: instance.zone,
                    private_dns_name: None,
                    addresses: instance.address.into_iter().map(Into::into).collect(),
                    dns_names: BTreeSet::new(),
                };
                (id, node)
            })),
            Err(error) => {
                tracing::warn!(why = chain(&error), "EC2 gave no word on instances that nodes name");
            }
        }
    }
    Fact::Known(found)
}

fn count_gone(
    memory: &mut Remembered,
    nodes: &Fact<BTreeMap<String, ClusterNode>>,
    instances: &Fact<BTreeMap<InstanceId, NodeInstance>>,
) -> GoneLooks {
    let (Fact::Known(nodes), Fact::Known(instances)) = (nodes, instances) else { return GoneLooks::new() };
    let gone: BTreeMap<&InstanceId, Duration> = nodes
        .values()
        .filter_map(|node| node.instance.as_ref())
        .filter_map(|id| match instances.get(id)?.state {
            InstanceState::Terminated => Some((id, BETWEEN_LOOKS)),
            InstanceState::NotFound => Some((id, BETWEEN_LOOKS_NOT_FOUND)),
            InstanceState::Pending
            | InstanceState::Running
            | InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::ShuttingDown => None,
        })
        .collect();
    memory.gone.retain(|id, _| gone.contains_key(id));
    for (id, between) in gone {
        match memory.gone.get_mut(id) {
            Some((at, looks)) if at.elapsed() >= between => {
                *at = Instant::now();
                *looks = looks.saturating_add(1);
            }
            Some(_) => {}
            None => drop(memory.gone.insert(id.clone(), (Instant::now(), 1))),
        }
    }
    memory.gone.iter().map(|(id, (_, looks))| (id.clone(), *looks)).collect()
}

async fn join(reach: &Reach, memory: &mut Remembered, api: &ApiClient) -> JoinObservation {
    if let Some((at, join)) = &memory.join
        && at.elapsed() < JOIN_FOR
    {
        return join.clone();
    }
    let authority = files::read_optional(&reach.root.path(paths::CA));
    let authority = Fact::from(authority).map(|bytes| bytes.map(|bytes| digest(&bytes)));
    let stored = match reach.aws.objects.get(JOIN).await {
        Ok(stored) => stored,
        Err(error) => {
            let why = chain(&error);
            return JoinObservation {
                published: Fact::Unknown(why.clone()),
                token_taken: Fact::Unknown(why),
                authority,
            };
        }
    };
    let unpublished = Fact::unknown("not asked for: nothing is published that this version can read");
    let (published, token_taken) = match stored {
        None => (JoinFound::Nothing, unpublished),
        Some(stored) => match Join::parse(&stored.bytes, &reach.settings.cluster) {
            Ok(join) => {
                let taken = api.takes_token(&join.token, join.token_ends).await.into();
                (JoinFound::Published(join.published()), taken)
            }
            Err(error) => match error.later() {
                // It stands in the status, and is not said at each look.
                Some(later) => (later, unpublished),
                None => {
                    let why = chain(&error);
                    tracing::warn!(key = JOIN, why, "what is published to workers can't be used");
                    (JoinFound::Nothing, unpublished)
                }
            },
        },
    };
    let join = JoinObservation { published: Fact::Known(published), token_taken, authority };
    // What is to be changed is looked at again at once.
    if join.token_taken == Fact::Known(true) {
        memory.join = Some((Instant::now(), join.clone()));
    }
    join
}
