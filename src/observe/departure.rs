//! The machine's way into its group and out of it.
//!
//! What is announced is asked of the metadata service at every look: nobody else tells in time, and it costs no call
//! to AWS. All else is asked only where it matters: while something is announced or under way, or while a launch hook
//! may hold the machine.

use std::collections::BTreeMap;

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

use crate::aws::AutoScalingError;
use crate::cluster_api::ApiClient;
use crate::config::settings::ControlPlaneKind;
use crate::host::manifests::Manifests;
use crate::host::{clock, files};
use crate::kubernetes::Component;
use crate::model::departure::{
    Departure, DepartureObservation, Hook, LeavingNode, LifecycleState, Maintenance, Membership, Placing,
    Remains, TargetState,
};
use crate::model::fact::chain;
use crate::model::load_balancer::LoadBalancer;
use crate::model::node::CapacityType;
use crate::model::worker::OwnNode;
use crate::model::{Fact, InstanceId, Role, ServiceName, ServiceState};
use crate::reach::Reach;

use super::api::in_time;
use super::kubernetes;

/// What may be known some seconds late is asked again so often.
const SELDOM: Duration = Duration::from_secs(10);
/// Auto Scaling is asked again so often.
const GROUP_FOR: Duration = Duration::from_secs(5);
/// The same while it knows nothing of this machine: its answers are late for machines that have just come, and there are
/// machines in no group.
const NO_GROUP_FOR: Duration = Duration::from_mins(1);
/// How long this machine's node and its pods may take to be told.
const ASK: Duration = Duration::from_secs(20);
/// How long a component is waited for to take a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// What EC2 announces long before: since when it recommends to replace a spot instance, and its scheduled events.
type Announced = (Fact<Option<i64>>, Fact<Vec<Maintenance>>);

/// What Auto Scaling says of this machine, and of the hook of this name.
#[derive(Debug, Clone)]
struct InGroup {
    name: String,
    membership: Fact<Option<Membership>>,
    hook: Fact<Option<Hook>>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    seldom: Option<(Instant, Announced)>,
    group: Option<(Instant, InGroup)>,
    balancer: Option<LoadBalancer>,
    /// Since when a launch hook is seen to hold the machine.
    pending: Option<Instant>,
    /// The machine is past its launch hook, or has none.
    arrived: bool,
}

/// Looks at all that matters now.
pub(super) async fn look(reach: &Reach, memory: &mut Remembered) -> DepartureObservation {
    let metadata = &reach.aws.metadata;
    let interruption =
        async { if may_be_interrupted(reach).await { metadata.spot_interruption().await } else { Ok(None) } };
    let (target, spot, (rebalance, maintenance)) =
        tokio::join!(metadata.target_state(), interruption, seldom(reach, memory));
    let mut seen = DepartureObservation {
        target: target.into(),
        spot: spot.into(),
        rebalance,
        maintenance,
        booted: clock::booted_ms().into(),
        shutdown: reach.shutdown.seen(),
        asked: asked(reach),
        begun: begun(reach),
        heartbeat: reach.last_heartbeat(),
        ..DepartureObservation::unknown("not asked for: this machine neither comes nor goes")
    };
    let terminated = seen.target == Fact::Known(Some(TargetState::Terminated));
    let begun = seen.begun.known().and_then(Option::as_ref);
    let begun = begun.filter(|begun| begun.instance == reach.identity.instance);
    let leaves = terminated
        || matches!(seen.spot, Fact::Known(Some(_)))
        || seen.asked == Fact::Known(true)
        || begun.is_some();
    let hook = if leaves { Some(&reach.settings.leaving.hook) } else { reach.settings.launch.hook.as_ref() };
    if let Some(hook) = hook {
        // It stays in service until it leaves.
        let stays = memory.arrived && !leaves;
        let known = memory.group.as_ref().filter(|_| stays).map(|(_, found)| found.clone());
        let found = match known {
            Some(known) => known,
            None => Box::pin(group(reach, memory, hook.as_str(), leaves)).await,
        };
        (seen.membership, seen.hook) = (found.membership, found.hook);
    }
    if leaves {
        Box::pin(on_the_way_out(reach, memory, &mut seen)).await;
    } else {
        if !memory.arrived {
            on_the_way_in(reach, memory, &mut seen).await;
        }
        if reach.settings.role == Role::Worker && matches!(seen.rebalance, Fact::Known(Some(_))) {
            seen.own_node = own_node(reach).await;
        }
    }
    seen
}

async fn seldom(reach: &Reach, memory: &mut Remembered) -> Announced {
    if let Some((at, announced)) = &memory.seldom
        && at.elapsed() < SELDOM
    {
        return announced.clone();
    }
    let metadata = &reach.aws.metadata;
    let recommendation = async {
        if may_be_interrupted(reach).await { metadata.rebalance_recommendation().await } else { Ok(None) }
    };
    let (rebalance, maintenance) = tokio::join!(recommendation, metadata.scheduled_maintenance());
    let announced: Announced = (rebalance.into(), maintenance.into());
    memory.seldom = Some((Instant::now(), announced.clone()));
    announced
}

/// Whether EC2 may interrupt this instance, or recommend to replace it: it does neither to one that is paid for on
/// demand. What is not told is taken for one that it does it to.
///
/// Source: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations", EC2 user guide.
async fn may_be_interrupted(reach: &Reach) -> bool {
    !matches!(reach.aws.metadata.capacity_type().await, Ok(Some(CapacityType::OnDemand)))
}

/// Whether the operator asked this very instance to leave.
fn asked(reach: &Reach) -> Fact<bool> {
    let read: Fact<Option<Vec<u8>>> = files::read_optional(&reach.asked_to_leave()).into();
    read.map(|text| {
        let id = text.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse::<InstanceId>().ok());
        id.as_ref() == Some(&reach.identity.instance)
    })
}

/// The departure that this agent has begun, or an earlier one has noted. A damaged note is none: it begins anew.
fn begun(reach: &Reach) -> Fact<Option<Departure>> {
    if let Some(departure) = reach.begun_departure() {
        return Fact::Known(Some(departure));
    }
    let read: Fact<Option<Vec<u8>>> = files::read_optional(&reach.departure()).into();
    read.map(|bytes| {
        serde_json::from_slice(&bytes?)
            .inspect_err(|error| tracing::warn!(%error, "the note of the departure can't be read"))
            .ok()
    })
}

/// Where the machine stands in its group, and the hook that matters.
async fn group(reach: &Reach, memory: &mut Remembered, name: &str, leaves: bool) -> InGroup {
    if let Some((at, found)) = &memory.group {
        let keep = match found.membership {
            Fact::Known(None) if !leaves => NO_GROUP_FOR,
            Fact::Known(_) | Fact::Unknown(_) => GROUP_FOR,
        };
        // What a hook was told changes where the machine stands.
        let told = reach.hook_told().is_some_and(|told| told >= *at);
        if at.elapsed() < keep && !told && found.name == name {
            return found.clone();
        }
    }
    let membership: Fact<_> = reach.aws.autoscaling.membership(&reach.identity.instance).await.into();
    let hook = match &membership {
        Fact::Known(Some(Membership { group, state })) => match state {
            LifecycleState::PendingWait | LifecycleState::TerminatingWait => {
                known_hook(memory, name, reach.aws.autoscaling.hook(group, name)).await
            }
            LifecycleState::Other(_) => Fact::unknown("not asked for: no hook holds this machine"),
        },
        Fact::Known(None) => Fact::unknown("not asked for: this machine is in no group"),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    };
    let found = InGroup { name: name.to_owned(), membership, hook };
    memory.group = Some((Instant::now(), found.clone()));
    found
}

/// The hook of this name, as it was told last, or else as it is told now: it hardly ever changes.
async fn known_hook(
    memory: &Remembered,
    name: &str,
    ask: impl Future<Output = Result<Option<Hook>, AutoScalingError>>,
) -> Fact<Option<Hook>> {
    match &memory.group {
        Some((_, InGroup { hook: Fact::Known(Some(hook)), .. })) if hook.name == name => {
            Fact::Known(Some(hook.clone()))
        }
        Some(_) | None => ask.await.into(),
    }
}

async fn on_the_way_in(reach: &Reach, memory: &mut Remembered, seen: &mut DepartureObservation) {
    if reach.settings.launch.hook.is_none() {
        memory.arrived = true;
        return;
    }
    match &seen.membership {
        Fact::Known(Some(found)) => match &found.state {
            LifecycleState::PendingWait => {}
            LifecycleState::Other(state) if state == "Pending" => return,
            LifecycleState::TerminatingWait | LifecycleState::Other(_) => {
                memory.arrived = true;
                return;
            }
        },
        // A group that does not list it yet may hold it all the same.
        Fact::Known(None) | Fact::Unknown(_) => return,
    }
    let since = memory.pending.get_or_insert_with(Instant::now);
    seen.pending_for = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
    if reach.settings.role == Role::ControlPlane {
        seen.own_node = own_node(reach).await;
    }
}

async fn own_node(reach: &Reach) -> Fact<Option<OwnNode>> {
    match ApiClient::of_the_kubelet(&reach.root) {
        Ok(Some((api, name))) => in_time(ASK, api.own_node(&name)).await,
        Ok(None) => Fact::Known(None),
        Err(error) => Err(error).into(),
    }
}

async fn on_the_way_out(reach: &Reach, memory: &mut Remembered, seen: &mut DepartureObservation) {
    let (node, placing, components, services) =
        tokio::join!(node(reach), placing(reach, memory), components(reach), services(reach));
    seen.node = node;
    seen.placing = placing;
    seen.components = components;
    seen.services = services;
}

fn has_control_plane(reach: &Reach) -> bool {
    reach.settings.role == Role::ControlPlane
        && reach.settings.kubernetes.control_plane == ControlPlaneKind::StaticPods
}

async fn node(reach: &Reach) -> Fact<Option<LeavingNode>> {
    if reach.settings.role == Role::ControlPlane && !has_control_plane(reach) {
        return Fact::Known(None);
    }
    match ApiClient::of_the_kubelet(&reach.root) {
        Ok(Some((api, name))) => in_time(ASK, api.leaving_node(&name)).await,
        // A kubelet without an identity has no node.
        Ok(None) => Fact::Known(None),
        Err(error) => Err(error).into(),
    }
}

/// This machine's place behind the only load balancer that fits. It is asked for at every look: the way out waits for
/// it.
async fn placing(reach: &Reach, memory: &mut Remembered) -> Fact<Option<Placing>> {
    if !has_control_plane(reach) || reach.settings.kubernetes.endpoint.is_some() {
        return Fact::Known(None);
    }
    if memory.balancer.is_none() {
        let found = match kubernetes::find_balancers(reach).await {
            Ok((found, _)) => found,
            Err(why) => return Fact::Unknown(why),
        };
        match <[LoadBalancer; 1]>::try_from(found.fit) {
            Ok([only]) => memory.balancer = Some(only),
            Err(none) if none.is_empty() => return Fact::Known(None),
            Err(_) => return Fact::unknown("several load balancers fit"),
        }
    }
    let Some(balancer) = memory.balancer.clone() else { return Fact::Known(None) };
    let target = balancer.target_of(&reach.identity);
    let health = reach.aws.load_balancers.target_health(&balancer, &target, balancer.target_port).await;
    match health {
        Ok(health) => Fact::Known(Some(Placing { balancer, health })),
        Err(error) if error.is_not_there() => {
            memory.balancer = None;
            Fact::Known(None)
        }
        Err(error) => Fact::Unknown(chain(&error)),
    }
}

async fn components(reach: &Reach) -> BTreeMap<Component, Remains> {
    if !has_control_plane(reach) {
        return BTreeMap::new();
    }
    let manifests = Manifests::of(&reach.root);
    let looks = Component::ALL.map(|component| {
        let manifest: Fact<Option<String>> = manifests.digest(component).into();
        async move {
            let listens = listens(reach, component).await;
            (component, Remains { manifest: manifest.map(|found| found.is_some()), listens })
        }
    });
    futures_util::future::join_all(looks).await.into_iter().collect()
}

/// Whether anything takes a connection where the component is asked whether it is ready.
async fn listens(reach: &Reach, component: Component) -> Fact<bool> {
    let address = component.listens_at(reach.identity.address);
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Fact::Known(true),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Fact::Known(false),
        Ok(Err(error)) => Fact::unknown(error.to_string()),
        Err(_) => Fact::unknown(format!("no answer within {} s", CONNECT.as_secs())),
    }
}

async fn services(reach: &Reach) -> BTreeMap<ServiceName, Fact<ServiceState>> {
    let seen = kubernetes::services(reach).await;
    seen.into_iter().map(|(name, found)| (name, found.map(|found| found.state))).collect()
}
