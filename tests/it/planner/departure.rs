//! How a machine leaves: in which order, what holds it, what hurries it, and that it can be cut off anywhere.

use std::collections::BTreeMap;

use quorate::config::{InstanceTags, Settings, load};
use quorate::kubernetes::Component;
use quorate::model::departure::*;
use quorate::model::load_balancer::{HealthCheck, LoadBalancer, LoadBalancerKind, Scheme, TargetHealth};
use quorate::model::*;

use super::scene::{
    Change as _, HOUR, NOW, attached_to, instance, names, settings_with, volume, waits, whole,
};

pub const MINUTE: i64 = 60_000;

fn balancer() -> LoadBalancer {
    LoadBalancer {
        name: "demo-api".to_owned(),
        kind: LoadBalancerKind::Classic,
        dns_name: "demo-api.example.com".to_owned(),
        port: 6443,
        target_port: 6443,
        scheme: Scheme::Internal,
        health_check: HealthCheck {
            protocol: "TCP".to_owned(),
            path: None,
            port: None,
            interval_s: 10,
            unhealthy_threshold: 2,
        },
        deregistration_delay_s: 10,
        preserves_client_address: false,
    }
}

pub fn pod(name: &str) -> NodePod {
    NodePod {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
        ending: false,
        refused: None,
    }
}

pub fn node(pods: Vec<NodePod>) -> LeavingNode {
    let name = "i-00000001".to_owned();
    LeavingNode { name, cordoned: false, cordoned_here: false, left: false, pods }
}

fn held() -> Fact<Option<Membership>> {
    let state = LifecycleState::TerminatingWait;
    Fact::Known(Some(Membership { group: "demo-control-plane".to_owned(), state }))
}

fn hook() -> Fact<Option<Hook>> {
    Fact::Known(Some(Hook { name: "quorate-terminate".to_owned(), heartbeat_timeout_s: 300 }))
}

fn remains(manifest: bool, listens: bool) -> BTreeMap<Component, Remains> {
    let remains = Remains { manifest: Fact::Known(manifest), listens: Fact::Known(listens) };
    Component::ALL.map(|component| (component, remains.clone())).into()
}

/// What is seen of a whole control-plane node that its group terminates, with one pod on it.
fn departure() -> DepartureObservation {
    let runs = || Fact::Known(ServiceState::Running);
    DepartureObservation {
        target: Fact::Known(Some(TargetState::Terminated)),
        spot: Fact::Known(None),
        rebalance: Fact::Known(None),
        maintenance: Fact::Known(Vec::new()),
        booted: Fact::Known(NOW - HOUR),
        shutdown: Fact::Known(None),
        asked: Fact::Known(false),
        begun: Fact::Known(Some(Departure { instance: instance(1), cause: Cause::Termination, since: NOW })),
        membership: held(),
        hook: hook(),
        heartbeat: Some(NOW),
        pending_for: 0,
        node: Fact::Known(Some(node(vec![pod("web-0")]))),
        placing: Fact::Known(Some(Placing { balancer: balancer(), health: TargetHealth::Healthy })),
        components: remains(true, true),
        services: [(ServiceName::Kubelet, runs()), (ServiceName::KubeProxy, runs())].into(),
        own_node: Fact::unknown("not asked for"),
    }
}

/// The first machine of a whole cluster, which leads etcd, and leaves.
pub fn leaving() -> Observation {
    whole().but(|seen| {
        seen.departure = departure();
        seen.view().leader = Some(MemberId(1));
        seen.view().control_plane.lock = Some(instance(1));
    })
}

pub fn dying(seen: &mut Observation) {
    let attachment = seen.volumes().get_mut(&volume(1)).unwrap().attachment.as_mut().unwrap();
    attachment.delete_on_termination = true;
}

pub fn worker() -> (Settings, Observation) {
    worker_with("")
}

/// The same with more of the configuration.
pub fn worker_with(more: &str) -> (Settings, Observation) {
    let tags = InstanceTags { cluster: None, role: Some("worker".to_owned()) };
    let text = format!("cluster: demo\nbucket: demo-quorate\n{more}");
    let settings = load(std::path::Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings;
    let seen = leaving().but(|seen| {
        const WHY: &str = "not asked for";
        seen.etcd.cluster = Fact::unknown(WHY);
        seen.etcd.service = Fact::unknown(WHY);
        seen.volumes = Fact::unknown(WHY);
        seen.disk = Fact::unknown(WHY);
        seen.departure.placing = Fact::Known(None);
        seen.departure.components.clear();
    });
    (settings, seen)
}

pub fn control_plane() -> Settings {
    settings_with("")
}

/// A world in which steps have their effects.
pub struct World {
    settings: Settings,
    pub seen: Observation,
    done: Vec<String>,
}

impl World {
    pub fn new((settings, seen): (Settings, Observation)) -> Self {
        let mut seen = seen;
        // From the very beginning.
        seen.departure.begun = Fact::Known(None);
        if let Fact::Known(view) = &mut seen.etcd.cluster {
            view.control_plane.lock = None;
        }
        Self { settings, seen, done: Vec::new() }
    }

    fn effect(&mut self, step: &Step) {
        let seen = &mut self.seen;
        let departure = &mut seen.departure;
        let node = |departure: &mut DepartureObservation, change: &dyn Fn(&mut LeavingNode)| {
            if let Fact::Known(Some(node)) = &mut departure.node {
                change(node);
            }
        };
        match step {
            Step::BeginDeparture { departure: begun } => departure.begun = Fact::Known(Some(begun.clone())),
            Step::TakeControlPlaneLock { instance } => {
                seen.view().control_plane.lock = Some(instance.clone());
            }
            Step::ReleaseControlPlaneLock { .. } => seen.view().control_plane.lock = None,
            Step::KeepControlPlaneLock { .. } | Step::SendHeartbeat { .. } => {}
            Step::DeregisterTarget { balancer, .. } => {
                let placing = Placing { balancer: balancer.clone(), health: TargetHealth::Draining };
                departure.placing = Fact::Known(Some(placing));
            }
            Step::CordonNode { .. } => node(departure, &|node| {
                node.cordoned = true;
                node.cordoned_here = true;
            }),
            Step::EvictPods { pods, .. } => node(departure, &|node| {
                for pod in &mut node.pods {
                    pod.ending |= pods.iter().any(|evicted| evicted.uid == pod.uid);
                }
            }),
            Step::MoveLeader { to } => seen.view().leader = Some(*to),
            Step::MarkNodeLeft { .. } => node(departure, &|node| node.left = true),
            Step::WithdrawManifests { .. } => {
                departure.components = remains(false, true);
                departure.node = Fact::unknown("nobody answers here");
            }
            Step::StopService { service } => {
                departure.services.insert(*service, Fact::Known(ServiceState::Stopped));
            }
            Step::TakeMembershipLock { instance } => seen.view().lock = Some(instance.clone()),
            Step::ReleaseMembershipLock { .. } => seen.view().lock = None,
            Step::RemoveMember { member } => {
                seen.view().members.remove(member);
                // etcd ends when it is removed.
                seen.etcd.service = Fact::Known(ServiceState::Failed("exit status: 0".to_owned()));
                seen.etcd.own = Fact::unknown("etcd does not run here");
            }
            Step::StopEtcd => {
                seen.etcd.service = Fact::Known(ServiceState::Stopped);
                seen.etcd.own = Fact::unknown("etcd does not run here");
                seen.view().members.get_mut(&MemberId(1)).unwrap().healthy = Fact::unknown("no answer");
            }
            Step::Unmount => {
                if let Fact::Known(Some(disk)) = &mut seen.disk {
                    disk.mount = Fact::Known(None);
                    disk.holds = Fact::unknown("it is not mounted");
                }
            }
            Step::DetachVolume { volume, .. } => {
                let volume = seen.volumes().get_mut(volume).unwrap();
                volume.attachment.as_mut().unwrap().state = AttachmentState::Detaching;
                seen.disk = Fact::Known(None);
            }
            Step::CompleteHook { group, .. } => {
                let state = LifecycleState::Other("Terminating:Proceed".to_owned());
                departure.membership = Fact::Known(Some(Membership { group: group.clone(), state }));
            }
            other => panic!("a machine that leaves has no use for {}", other.name()),
        }
    }

    /// What happens by itself: connections drain, pods end, the kubelet ends static pods, EC2 detaches.
    fn time_passes(&mut self) {
        self.seen.at += 1000;
        let departure = &mut self.seen.departure;
        if let Fact::Known(Some(placing)) = &mut departure.placing
            && placing.health == TargetHealth::Draining
        {
            placing.health = TargetHealth::NotRegistered;
        }
        if let Fact::Known(Some(node)) = &mut departure.node {
            node.pods.retain(|pod| !pod.ending);
        }
        if departure.components.values().all(|remains| remains.manifest == Fact::Known(false)) {
            for remains in departure.components.values_mut() {
                remains.listens = Fact::Known(false);
            }
        }
        if let Fact::Known(volumes) = &mut self.seen.volumes {
            for volume in volumes.values_mut() {
                if volume.attachment.as_ref().is_some_and(|a| a.state == AttachmentState::Detaching) {
                    volume.attachment = None;
                    volume.state = VolumeState::Available;
                }
            }
        }
    }

    /// Looks, plans and acts until the machine has left; the agent is killed after this step of all that it does.
    pub fn leaves(mut self, killed_after: Option<usize>) -> Self {
        for _ in 0..60 {
            let plan = quorate::plan::plan(&self.settings, &self.seen);
            if plan.report.phase == Phase::Left {
                assert_eq!(names(&plan), [""; 0]);
                return self;
            }
            assert_eq!(plan.report.phase, Phase::Leaving, "{:#?}", plan.report);
            for step in &plan.steps {
                self.effect(step);
                self.done.push(step.name().to_owned());
                if killed_after == Some(self.done.len()) {
                    break;
                }
            }
            self.time_passes();
        }
        panic!(
            "it has not left: {:?}\n{:#?}",
            self.done,
            quorate::plan::plan(&self.settings, &self.seen).report
        );
    }

    /// The steps that were done, without those that only keep up what is.
    pub fn news(&self) -> Vec<&str> {
        let keep = ["keepControlPlaneLock", "sendHeartbeat"];
        self.done.iter().map(String::as_str).filter(|name| !keep.contains(name)).collect()
    }
}

#[test]
fn a_control_plane_node_whose_volume_outlives_it_leaves_its_member_to_the_successor() {
    let world = World::new((control_plane(), leaving())).leaves(None);
    assert_eq!(
        world.news(),
        [
            "beginDeparture",
            "takeControlPlaneLock",
            "deregisterTarget",
            "cordonNode",
            "evictPods",
            "moveLeader",
            "markNodeLeft",
            "withdrawManifests",
            "stopService",
            "stopService",
            "stopEtcd",
            "unmount",
            "detachVolume",
            "releaseControlPlaneLock",
            "completeHook",
        ]
    );
    let Fact::Known(view) = &world.seen.etcd.cluster else { panic!() };
    assert!(view.members.contains_key(&MemberId(1)), "the member stays");
}

#[test]
fn a_member_whose_volume_ends_with_its_machine_is_removed_and_seen_gone() {
    let world = World::new((control_plane(), leaving().but(dying))).leaves(None);
    let news = world.news();
    let place = |step: &str| news.iter().position(|done| *done == step).unwrap_or_else(|| panic!("{news:?}"));
    assert!(place("takeMembershipLock") < place("removeMember"));
    assert!(place("removeMember") < place("completeHook"));
    assert!(!news.contains(&"detachVolume"), "{news:?}");
    let Fact::Known(view) = &world.seen.etcd.cluster else { panic!() };
    assert!(!view.members.contains_key(&MemberId(1)));
    assert_eq!((&view.lock, &view.control_plane.lock), (&None, &None), "no lock is left behind");
}

#[test]
fn a_worker_drains_stops_says_so_and_completes_its_hook() {
    let world = World::new(worker()).leaves(None);
    assert_eq!(
        world.news(),
        [
            "beginDeparture",
            "cordonNode",
            "evictPods",
            "stopService",
            "stopService",
            "markNodeLeft",
            "completeHook"
        ]
    );
}

#[test]
fn a_departure_that_is_cut_off_after_any_step_ends_in_the_same_place() {
    for begin in [|| (control_plane(), leaving()), || (control_plane(), leaving().but(dying)), worker] {
        let undisturbed = World::new(begin()).leaves(None);
        let end = |world: &World| {
            let mut seen = world.seen.clone();
            seen.at = 0;
            if let Fact::Known(Some(begun)) = &mut seen.departure.begun {
                begun.since = 0;
            }
            seen
        };
        for step in 1..=undisturbed.done.len() {
            let world = World::new(begin()).leaves(Some(step));
            assert_eq!(end(&world), end(&undisturbed), "cut off after {:?}", &undisturbed.done[..step]);
        }
    }
}

#[test]
fn nothing_is_taken_down_while_the_quorum_would_not_survive() {
    let alone = leaving().but(|seen| {
        seen.view().members.get_mut(&MemberId(2)).unwrap().healthy = Fact::unknown("no answer");
    });
    let plan = quorate::plan::plan(&control_plane(), &alone);
    assert_eq!(plan.report.waiting, [WaitingOn::QuorumWithout { healthy: 1, needed: 2 }]);
    // Whom it waits for may need the lock.
    assert_eq!(names(&plan), ["releaseControlPlaneLock"]);
    let without = alone.but(|seen| seen.view().control_plane.lock = None);
    assert_eq!(waits(&without), WaitingOn::QuorumWithout { healthy: 1, needed: 2 });
    let blind = leaving().but(|seen| seen.etcd.cluster = Fact::unknown("no quorum"));
    assert_eq!(waits(&blind), WaitingOn::Quorum);
}

#[test]
fn who_can_not_tell_its_own_member_from_the_others_takes_nothing_down() {
    let nobody = leaving().but(|seen| {
        seen.etcd.own = Fact::unknown("no answer");
        seen.view().records.clear();
    });
    assert_eq!(waits(&nobody), WaitingOn::OwnEtcd);
}

#[test]
fn one_machine_leaves_at_a_time() {
    let other = leaving().but(|seen| seen.view().control_plane.lock = Some(instance(2)));
    assert_eq!(waits(&other), WaitingOn::ControlPlaneLock { holder: instance(2) });
}

#[test]
fn a_member_is_not_removed_where_the_others_are_no_healthy_quorum() {
    let plan = |healthy: Fact<bool>| {
        let seen = leaving().but(dying).but(|seen| {
            seen.departure = DepartureObservation {
                node: Fact::unknown("nobody answers"),
                placing: Fact::Known(None),
                components: remains(false, false),
                services: BTreeMap::new(),
                ..departure()
            };
            seen.view().leader = Some(MemberId(2));
            seen.view().members.get_mut(&MemberId(3)).unwrap().healthy = healthy;
        });
        quorate::plan::plan(&control_plane(), &seen)
    };
    assert!(names(&plan(Fact::Known(true))).contains(&"removeMember"));
    for unwell in [Fact::Known(false), Fact::unknown("no answer")] {
        assert!(!names(&plan(unwell)).contains(&"removeMember"));
    }
}

#[test]
fn the_last_member_is_never_removed() {
    let last = leaving().but(dying).but(|seen| {
        seen.at = NOW + 2 * HOUR;
        seen.view().members.retain(|id, _| *id == MemberId(1));
    });
    let plan = quorate::plan::plan(&control_plane(), &last);
    assert!(!names(&plan).contains(&"removeMember"), "{:?}", names(&plan));
}

#[test]
fn a_pod_that_may_not_be_evicted_is_named_and_waited_for() {
    let mut refused = pod("db-0");
    refused.refused = Some("the budget db needs 1 healthy pods and has 1".to_owned());
    let (settings, seen) = worker();
    let seen = seen.but(|seen| {
        let mut node = node(vec![pod("web-0"), refused.clone()]);
        node.cordoned = true;
        seen.departure.node = Fact::Known(Some(node));
    });
    let plan = quorate::plan::plan(&settings, &seen);
    let [Step::EvictPods { pods, grace_s: None }] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!(pods, &[pod("web-0")], "what would be refused is not asked for");
    let [on @ WaitingOn::Pods { left: 2, .. }] = &plan.report.waiting[..] else {
        panic!("{:?}", plan.report)
    };
    assert!(on.to_string().contains("default/db-0: the budget db"), "{on}");
    // After its time the machine goes on without them, and says so.
    let late = seen.but(|seen| seen.at = NOW + 15 * MINUTE);
    let plan = quorate::plan::plan(&settings, &late);
    assert!(names(&plan).contains(&"stopService"), "{:?}", names(&plan));
    assert!(plan.report.warnings.iter().any(|warning| warning.to_string().contains("default/db-0")));
}

#[test]
fn an_operator_is_not_hurried() {
    let (settings, seen) = worker();
    let mut refused = pod("db-0");
    refused.refused = Some("the budget db".to_owned());
    let seen = seen.but(|seen| {
        let mut node = node(vec![refused]);
        node.cordoned = true;
        seen.departure.node = Fact::Known(Some(node));
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        seen.departure.asked = Fact::Known(true);
        let begun = Departure { instance: instance(1), cause: Cause::Asked, since: NOW };
        seen.departure.begun = Fact::Known(Some(begun));
        seen.at = NOW + 100 * HOUR;
    });
    let plan = quorate::plan::plan(&settings, &seen);
    assert_eq!(names(&plan), [""; 0]);
    assert!(matches!(plan.report.waiting[..], [WaitingOn::Pods { .. }]));
}

#[test]
fn an_order_that_is_taken_back_brings_the_machine_back_and_opens_its_node() {
    let back = leaving().but(|seen| {
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        let begun = Departure { instance: instance(1), cause: Cause::Asked, since: NOW };
        seen.departure.begun = Fact::Known(Some(begun));
        let mut node = node(Vec::new());
        node.cordoned = true;
        node.cordoned_here = true;
        seen.departure.node = Fact::Known(Some(node));
    });
    assert_eq!(names(&quorate::plan::plan(&control_plane(), &back)), ["reopenNode", "endDeparture"]);
    // A node that an operator had closed stays closed.
    let theirs = back.clone().but(|seen| {
        let mut node = node(Vec::new());
        node.cordoned = true;
        seen.departure.node = Fact::Known(Some(node));
    });
    assert_eq!(names(&quorate::plan::plan(&control_plane(), &theirs)), ["endDeparture"]);
    // While the node is not seen, the machine does what every boot does, and does not forget to open it.
    let blind = back.but(|seen| seen.departure.node = Fact::unknown("no API yet"));
    let plan = quorate::plan::plan(&control_plane(), &blind);
    assert!(!names(&plan).contains(&"endDeparture"), "{:?}", names(&plan));
    assert_eq!(plan.report.phase, Phase::Running);
}

#[test]
fn who_hears_nothing_any_more_goes_on_leaving_and_who_never_heard_does_not_begin() {
    let deaf = |begun: Option<Cause>| {
        leaving().but(|seen| {
            seen.departure.target = Fact::unknown("no answer");
            seen.departure.spot = Fact::unknown("no answer");
            seen.departure.asked = Fact::unknown("no answer");
            let begun = begun.map(|cause| Departure { instance: instance(1), cause, since: NOW });
            seen.departure.begun = Fact::Known(begun);
        })
    };
    let phase = |seen: &Observation| quorate::plan::plan(&control_plane(), seen).report.phase;
    assert_eq!(phase(&deaf(None)), Phase::Running);
    let spot = Cause::Spot { action: SpotAction::Terminate, at: NOW + 2 * MINUTE };
    for cause in [Cause::Termination, spot, Cause::Asked] {
        assert_eq!(phase(&deaf(Some(cause.clone()))), Phase::Leaving, "{cause}");
    }
}

#[test]
fn a_service_or_a_component_that_nobody_tells_of_is_not_taken_for_one_that_has_ended() {
    let late = |change: &dyn Fn(&mut DepartureObservation)| {
        let seen = leaving().but(|seen| {
            seen.departure.node = Fact::Known(None);
            seen.departure.placing = Fact::Known(None);
            seen.departure.components = remains(false, false);
            seen.departure.services = [(ServiceName::Kubelet, Fact::Known(ServiceState::Stopped))].into();
            seen.view().leader = Some(MemberId(2));
        });
        seen.but(|seen| change(&mut seen.departure))
    };
    assert_eq!(
        names(&quorate::plan::plan(&control_plane(), &late(&|_| {}))),
        ["keepControlPlaneLock", "stopEtcd"]
    );
    let waits_and_does_nothing = |seen: &Observation| {
        let Plan { steps, report } = quorate::plan::plan(&control_plane(), seen);
        assert!(steps.iter().all(Step::is_routine), "{steps:?}");
        report.waiting
    };
    let silent = late(&|departure| {
        let unknown = Fact::unknown("the service manager is silent");
        departure.services.insert(ServiceName::KubeProxy, unknown);
    });
    let why = "the service manager is silent".to_owned();
    let about = quorate::model::plan::Subject::Services;
    assert_eq!(waits_and_does_nothing(&silent), [WaitingOn::Answer { about, why }]);
    let deaf = late(&|departure| {
        departure.components.get_mut(&Component::Scheduler).unwrap().listens = Fact::unknown("no answer");
    });
    let components = vec![Component::Scheduler];
    assert_eq!(waits_and_does_nothing(&deaf), [WaitingOn::ComponentsEnd { components }]);
}

#[test]
fn what_an_image_brings_along_of_another_machines_departure_is_not_its_own() {
    let image = leaving().but(|seen| {
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        let begun = Departure { instance: instance(9), cause: Cause::Asked, since: NOW };
        seen.departure.begun = Fact::Known(Some(begun));
    });
    assert_eq!(quorate::plan::plan(&control_plane(), &image).report.phase, Phase::Running);
}

#[test]
fn the_hook_is_completed_in_the_end_whatever_holds_the_machine_and_data_are_not_touched() {
    let stuck = |at: i64, more: &str| {
        let seen = leaving().but(dying).but(|seen| {
            seen.at = at;
            seen.etcd.cluster = Fact::unknown("no quorum");
            seen.departure.node = Fact::unknown("no API");
            seen.departure.placing = Fact::unknown("throttled");
            seen.departure.services.clear();
            seen.departure.components = remains(false, false);
        });
        quorate::plan::plan(&settings_with(more), &seen)
    };
    assert_eq!(
        names(&stuck(NOW + 59 * MINUTE, "")),
        ["sendHeartbeat"],
        "it is held as long as there is time"
    );
    let late = stuck(NOW + 60 * MINUTE, "");
    assert_eq!(names(&late), ["stopEtcd"], "in good order");
    let undone = |plan: &Plan, what: &str| plan.report.warnings.iter().any(|w| w.to_string().contains(what));
    assert!(undone(&late, "a quorum"), "{:#?}", late.report);
    for (more, result) in [("", HookResult::Continue), ("leaving: {result: abandon}\n", HookResult::Abandon)]
    {
        let last = stuck(NOW + 63 * MINUTE, more);
        let [Step::CompleteHook { result: told, .. }] = &last.steps[..] else { panic!("{:?}", names(&last)) };
        assert_eq!(*told, result);
    }
}

#[test]
fn a_machine_that_never_joined_completes_its_hook_at_once() {
    let (settings, seen) = worker();
    let never = seen.but(|seen| {
        seen.departure.node = Fact::Known(None);
        for state in seen.departure.services.values_mut() {
            *state = Fact::Known(ServiceState::Stopped);
        }
    });
    assert_eq!(names(&quorate::plan::plan(&settings, &never)), ["completeHook"]);
    let blank = never.but(|seen| {
        seen.etcd.service = Fact::Known(ServiceState::Stopped);
        seen.volumes = Fact::Known(BTreeMap::new());
        seen.disk = Fact::Known(None);
        seen.departure.components = remains(false, false);
    });
    assert_eq!(names(&quorate::plan::plan(&control_plane(), &blank)), ["completeHook"]);
}

#[test]
fn a_hook_of_somebody_elses_is_left_alone_and_named() {
    let (settings, seen) = worker();
    let other = seen.but(|seen| {
        seen.departure.node = Fact::Known(None);
        seen.departure.services.clear();
        seen.departure.hook = Fact::Known(None);
    });
    let plan = quorate::plan::plan(&settings, &other);
    assert_eq!(names(&plan), [""; 0]);
    assert_eq!(plan.report.phase, Phase::Left);
    assert_eq!(plan.report.warnings, [Warning::OtherHook { expected: "quorate-terminate".to_owned() }]);
}

#[test]
fn a_hook_hears_a_heartbeat_after_a_third_of_its_time() {
    let held = |last: Option<i64>| {
        let seen = leaving().but(|seen| {
            seen.departure.heartbeat = last;
            seen.view().members.get_mut(&MemberId(2)).unwrap().healthy = Fact::Known(false);
            seen.view().control_plane.lock = None;
        });
        names(&quorate::plan::plan(&control_plane(), &seen))
    };
    assert_eq!(held(Some(NOW - 99_000)), [""; 0]);
    for due in [None, Some(NOW - 100_000), Some(NOW + 100_000)] {
        assert_eq!(held(due), ["sendHeartbeat"]);
    }
}

#[test]
fn a_spot_instance_is_gone_before_ec2_takes_it() {
    let (settings, seen) = worker();
    let at = NOW + 120_000;
    let seen = seen.but(|seen| {
        let mut node = node(vec![NodePod { ending: true, ..pod("slow") }]);
        node.cordoned = true;
        seen.departure.node = Fact::Known(Some(node));
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        seen.departure.spot = Fact::Known(Some(SpotInterruption { action: SpotAction::Terminate, at }));
        let cause = Cause::Spot { action: SpotAction::Terminate, at };
        seen.departure.begun = Fact::Known(Some(Departure { instance: instance(1), cause, since: NOW }));
    });
    let plan = |at: i64| names(&quorate::plan::plan(&settings, &seen.clone().but(|seen| seen.at = at)));
    assert_eq!(plan(at - 31_000), [""; 0], "the pod is waited for");
    assert_eq!(plan(at - 30_000), ["stopService", "stopService"]);
}

#[test]
fn a_volume_of_a_machine_that_is_only_stopped_does_not_end_with_it() {
    let stopped = leaving().but(dying).but(|seen| {
        let cause = Cause::Spot { action: SpotAction::Stop, at: NOW + 120_000 };
        seen.departure.target = Fact::Known(Some(TargetState::InService));
        seen.departure.spot =
            Fact::Known(Some(SpotInterruption { action: SpotAction::Stop, at: NOW + 120_000 }));
        seen.departure.begun = Fact::Known(Some(Departure { instance: instance(1), cause, since: NOW }));
    });
    let world = World::new((control_plane(), stopped)).leaves(None);
    assert!(!world.news().contains(&"removeMember"), "{:?}", world.news());
}

#[test]
fn the_weightiest_cause_counts_and_its_time_begins_with_it() {
    let (settings, seen) = worker();
    let seen = seen.but(|seen| {
        seen.departure.asked = Fact::Known(true);
        let begun = Departure { instance: instance(1), cause: Cause::Asked, since: NOW - 9 * HOUR };
        seen.departure.begun = Fact::Known(Some(begun));
    });
    let plan = quorate::plan::plan(&settings, &seen);
    let expected = Departure { instance: instance(1), cause: Cause::Termination, since: NOW };
    assert_eq!(plan.steps, [Step::BeginDeparture { departure: expected }]);
}

#[test]
fn another_machines_volume_is_nobodys_to_detach() {
    let seen = leaving().but(|seen| {
        seen.departure = DepartureObservation {
            node: Fact::Known(None),
            placing: Fact::Known(None),
            components: BTreeMap::new(),
            services: BTreeMap::new(),
            ..departure()
        };
        seen.etcd.service = Fact::Known(ServiceState::Stopped);
        seen.disk = Fact::Known(None);
        seen.volumes().get_mut(&volume(1)).unwrap().attachment = attached_to(instance(2));
        seen.view().control_plane.lock = None;
    });
    assert_eq!(names(&quorate::plan::plan(&control_plane(), &seen)), ["completeHook"]);
}
