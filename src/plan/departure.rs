//! How a machine leaves: whether, in what order, and for how long each thing is waited for.
//!
//! | what | a worker | a control-plane node | why here |
//! |---|---|---|---|
//! | 1. hold | | while etcd would lose its quorum, or another machine leaves | nothing has been taken down yet |
//! | 2. step out of the load balancer | | and wait until it has drained | no client meets a server that ends |
//! | 3. cordon and drain | yes | yes | pods move while all of the node works |
//! | 4. hand over etcd's leadership | | yes | no election when etcd stops |
//! | 5. say that it has left | last | yes | its node is deleted by who looks after the API |
//! | 6. take the static pods away | | and see them ended | they write to etcd on this machine |
//! | 7. stop kubelet and kube-proxy | yes | yes | |
//! | 8. leave etcd | | where the volume dies with the machine: the member is removed, and seen gone | by a quorum that goes on |
//! | 9. stop etcd | | yes | |
//! | 10. unmount and detach | | where the volume outlives the machine | the successor finds it free: the same member |
//! | 11. complete the lifecycle hook | yes | yes | |
//!
//! Each is decided from what is seen, so a departure that was cut off anywhere goes on from there. What is waited for
//! is bounded for a machine that ends in any case: after `leaving.patience`, or shortly before EC2 takes the instance,
//! what still holds it is skipped with a warning, the services are stopped in good order, and the hook
//! is completed with `leaving.result`. An operator who asked a machine to leave is not hurried: nothing is skipped.
//!
//! A machine that EC2 only reboots keeps its node (5) and its volume (10): it is the same when it comes back, which it
//! does when the event is over, or its reboot has been seen ([`notices`]).
//!
//! A member is removed here by its own machine, of which EC2 has said that it ends, and of its volume that it ends with
//! it: that is EC2's word that the member is gone for good, a moment before it is. It is done only while the others are
//! a healthy quorum without it; where they are not, the member stays listed, and its successor replaces it.
//!
//! What is not known is waited for: a service that may run, or a component that may still answer, counts as one that
//! does.

use crate::config::Settings;
use crate::config::settings::LeavingResult;
use crate::kubernetes::Component;
use crate::model::charter::majority;
use crate::model::departure::{
    Cause, Departure, DepartureObservation, HookResult, LeavingNode, LifecycleState, SpotAction, TargetState,
};
use crate::model::load_balancer::TargetHealth;
use crate::model::plan::Subject;
use crate::model::{
    AttachmentState, ClusterView, Fact, Identity, Member, MemberId, Observation, Phase, Plan, Role,
    ServiceState, Step, VolumeId, WaitingOn, Warning,
};

use super::course::{Course, Next};
use super::joining::require_health;
use super::notices;

/// How long before EC2 takes a machine, in milliseconds, nothing is waited for any more: stopping takes its time.
const MARGIN: i64 = 30_000;
/// How long after the end of its patience, in milliseconds, a machine still tries to stop what runs.
const LAST_TRIES: i64 = 120_000;
/// A heartbeat is sent after a third of the time that the hook allows, in milliseconds; within these bounds.
const HEARTBEAT: (i64, i64) = (10_000, 300_000);

/// The plan of a machine that leaves, or comes back from leaving; `None` where there is no departure.
pub(super) fn decide(settings: &Settings, seen: &Observation) -> Option<Plan> {
    let me = seen.identity.known()?;
    let begun = begun(&seen.departure, me);
    let Some(cause) = cause(settings, seen, begun) else {
        return begun.and_then(|_| comes_back(&seen.departure));
    };
    let mut course = Course::new(Phase::Leaving);
    let departure = match begun {
        Some(begun) if begun.cause == cause => begun,
        Some(_) | None => {
            let departure = Departure { instance: me.instance.clone(), cause, since: seen.at };
            return Some(*course.act([Step::BeginDeparture { departure }]));
        }
    };
    let leaving = Leaving { settings, seen, me, departure };
    Some(match leaving.plan(&mut course) {
        Ok(plan) => plan,
        Err(plan) => leaving.with_heartbeat(*plan),
    })
}

/// The departure that has begun, if it is this machine's. One that can't be read begins anew.
fn begun<'a>(seen: &'a DepartureObservation, me: &Identity) -> Option<&'a Departure> {
    seen.begun.known()?.as_ref().filter(|begun| begun.instance == me.instance)
}

/// Why this machine leaves, if it does: the weightiest of what is told. What is not told at the moment is as it was.
fn cause(settings: &Settings, seen: &Observation, begun: Option<&Departure>) -> Option<Cause> {
    let told = &seen.departure;
    let before = begun.map(|begun| &begun.cause);
    let terminated = match &told.target {
        Fact::Known(target) => *target == Some(TargetState::Terminated),
        Fact::Unknown(_) => before == Some(&Cause::Termination),
    };
    if terminated {
        return Some(Cause::Termination);
    }
    let spot = match &told.spot {
        Fact::Known(spot) => spot.as_ref().map(|spot| Cause::Spot { action: spot.action, at: spot.at }),
        Fact::Unknown(_) => before.filter(|cause| matches!(cause, Cause::Spot { .. })).cloned(),
    };
    if spot.is_some() {
        return spot;
    }
    let asked = match &told.asked {
        Fact::Known(asked) => *asked,
        Fact::Unknown(_) => before == Some(&Cause::Asked),
    };
    match notices::maintenance(settings, seen, before) {
        // Who was asked to leave has left for a reboot, too, and stays away after it.
        Some(Cause::Maintenance { code, .. }) if asked && code.comes_back() => Some(Cause::Asked),
        Some(maintenance) => Some(maintenance),
        None if asked => Some(Cause::Asked),
        None => notices::rebalance(settings, told, before),
    }
}

/// What it left for is over, or was taken back: the machine does what it does at every boot, and opens its node when it sees it.
fn comes_back(seen: &DepartureObservation) -> Option<Plan> {
    let mut course = Course::new(Phase::Returning);
    if let Some(node) = seen.node.known()?
        && (node.cordoned_here || node.left)
    {
        course.steps.push(Step::ReopenNode { node: node.name.clone() });
    }
    course.steps.push(Step::EndDeparture);
    Some(*course.act([]))
}

/// How this machine stands in etcd's cluster.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub seen: &'a Observation,
    pub me: &'a Identity,
}

impl<'a> Standing<'a> {
    /// The cluster, where this machine's etcd runs in it.
    pub fn view(&self, course: &Course) -> Next<Option<&'a ClusterView>> {
        match course.need(&self.seen.etcd.service, Subject::Service)? {
            ServiceState::Stopped | ServiceState::Failed(_) => Ok(None),
            ServiceState::Running => match &self.seen.etcd.cluster {
                Fact::Known(view) => Ok(Some(view)),
                Fact::Unknown(_) => Err(course.wait(WaitingOn::Quorum)),
            },
        }
    }

    /// The id of this machine's member, by its own word or its slot's record.
    pub fn own_id(&self, view: &ClusterView) -> Option<MemberId> {
        let recorded = || {
            let mut records = view.records.values();
            records.find(|record| record.instance == self.me.instance).and_then(|record| record.member)
        };
        self.seen.etcd.own.known().map(|own| own.member).or_else(recorded)
    }

    /// This machine's member, while it is one of the cluster's.
    fn own(&self, view: &'a ClusterView) -> Option<(MemberId, &'a Member)> {
        let id = self.own_id(view)?;
        view.members.get(&id).map(|member| (id, member))
    }

    /// No election when etcd stops: a healthy member leads already.
    pub fn hand_over(&self, course: &mut Course) -> Next<()> {
        let Some(view) = self.view(course)? else { return Ok(()) };
        let Some((own, _)) = self.own(view).filter(|(own, _)| view.leader == Some(*own)) else {
            return Ok(());
        };
        let heir = view
            .members
            .iter()
            .find(|(id, other)| **id != own && !other.learner && other.healthy == Fact::Known(true));
        match heir {
            Some((to, _)) => Err(course.act([Step::MoveLeader { to: *to }])),
            None => Ok(()),
        }
    }
}

/// Whether the others are a healthy quorum without this machine's member; or else how many are healthy, and how many
/// it takes.
pub(super) fn survivors(view: &ClusterView, own: MemberId, member: &Member) -> Result<(), (usize, usize)> {
    if member.learner {
        return Ok(());
    }
    let voters = view.members.values().filter(|member| !member.learner).count();
    let others = view
        .members
        .iter()
        .filter(|(id, other)| **id != own && !other.learner && other.healthy == Fact::Known(true));
    let (healthy, needed) = (others.count(), majority(voters));
    if healthy < needed { Err((healthy, needed)) } else { Ok(()) }
}

/// A departure under way.
struct Leaving<'a> {
    settings: &'a Settings,
    seen: &'a Observation,
    me: &'a Identity,
    departure: &'a Departure,
}

impl<'a> Leaving<'a> {
    fn standing(&self) -> Standing<'a> {
        Standing { seen: self.seen, me: self.me }
    }

    fn plan(&self, course: &mut Course) -> Next<Plan> {
        match self.settings.role {
            Role::Worker => {
                self.within(course, Self::drain)?;
                self.at_last(course, Self::stop_node)?;
                self.within(course, Self::say_so)?;
            }
            Role::ControlPlane => {
                self.until(self.held_until(), course, Self::hold)?;
                self.within(course, Self::step_out)?;
                self.within(course, Self::drain)?;
                self.within(course, |leaving, course| leaving.standing().hand_over(course))?;
                self.within(course, Self::say_so)?;
                self.at_last(course, Self::stop_components)?;
                self.at_last(course, Self::stop_node)?;
                self.within(course, Self::leave_etcd)?;
                self.at_last(course, Self::stop_etcd)?;
                self.at_last(course, Self::release_volume)?;
                self.within(course, Self::give_lock_back)?;
            }
        }
        self.complete(course)
    }

    /// Does this, or waits for it, as long as there is time for it.
    fn within(&self, course: &mut Course, stage: fn(&Self, &mut Course) -> Next<()>) -> Next<()> {
        self.until(self.ends(), course, stage)
    }

    /// The same with what has to be done at the end, too.
    fn at_last(&self, course: &mut Course, stage: fn(&Self, &mut Course) -> Next<()>) -> Next<()> {
        let ends = match &self.departure.cause {
            // Nobody is told anything when it is over: what has to be stopped is tried until it is, or EC2 comes.
            Cause::Maintenance { .. } => None,
            Cause::Termination | Cause::Spot { .. } | Cause::Asked | Cause::Rebalance => self.ends(),
        };
        self.until(ends.map(|ends| ends.saturating_add(LAST_TRIES)), course, stage)
    }

    fn until(
        &self,
        ends: Option<i64>,
        course: &mut Course,
        stage: fn(&Self, &mut Course) -> Next<()>,
    ) -> Next<()> {
        let mut tried = course.clone();
        match stage(self, &mut tried) {
            Ok(()) => {
                *course = tried;
                Ok(())
            }
            Err(plan) if ends.is_some_and(|ends| self.seen.at >= ends) => {
                course.warnings = plan.report.warnings;
                let undone: Vec<String> = match plan.report.waiting.as_slice() {
                    [] => plan
                        .steps
                        .iter()
                        .filter(|step| !step.is_routine())
                        .map(|step| step.name().to_owned())
                        .collect(),
                    waiting => waiting.iter().map(ToString::to_string).collect(),
                };
                for what in undone {
                    course.warn(Warning::LeftInHaste { what });
                }
                Ok(())
            }
            Err(plan) => Err(plan),
        }
    }

    /// When nothing is waited for any more, in milliseconds since 1970; `None` where nobody is in a hurry.
    fn ends(&self) -> Option<i64> {
        let since = self.departure.since;
        let patient = since.saturating_add(self.settings.leaving.patience.as_signed_millis());
        match &self.departure.cause {
            Cause::Asked | Cause::Rebalance => None,
            Cause::Termination => Some(patient),
            Cause::Spot { at, .. } => Some(patient.min(at.saturating_sub(MARGIN))),
            Cause::Maintenance { not_before, .. } => {
                let due = not_before.saturating_sub(MARGIN);
                // EC2 has a window, and who began in there has as long as EC2 gives it.
                Some(if since < due { patient.min(due) } else { patient })
            }
        }
    }

    /// When a quorum without this machine is not waited for any more. Maintenance has its window and takes the machine
    /// when it comes; until then it is one of those that the quorum needs.
    fn held_until(&self) -> Option<i64> {
        match &self.departure.cause {
            Cause::Maintenance { .. } | Cause::Asked | Cause::Rebalance => None,
            Cause::Termination | Cause::Spot { .. } => self.ends(),
        }
    }

    /// Whether this very machine goes on afterwards by itself, so that its node and its volume are kept for it.
    fn comes_back(&self) -> bool {
        match &self.departure.cause {
            Cause::Maintenance { code, .. } => code.comes_back(),
            Cause::Termination | Cause::Spot { .. } | Cause::Asked | Cause::Rebalance => false,
        }
    }

    /// Nothing is taken down while etcd would lose its quorum by it, or another machine is about to.
    fn hold(&self, course: &mut Course) -> Next<()> {
        let Some(view) = self.standing().view(course)? else { return Ok(()) };
        // Which of the members is this machine's has to be known, or nobody could count the others.
        let own = self.standing().own_id(view).ok_or_else(|| course.wait(WaitingOn::OwnEtcd))?;
        let Some(member) = view.members.get(&own) else { return Ok(()) };
        match &view.control_plane.lock {
            Some(holder) if *holder != self.me.instance => {
                Err(course.wait(WaitingOn::ControlPlaneLock { holder: holder.clone() }))
            }
            Some(_) => {
                let instance = self.me.instance.clone();
                self.would_survive(view, own, member, course).map_err(|mut plan| {
                    // Whom it waits for may need the lock.
                    plan.steps.push(Step::ReleaseControlPlaneLock { instance: instance.clone() });
                    plan
                })?;
                // From here on it is kept for as long as etcd runs.
                course.steps.push(Step::KeepControlPlaneLock { instance });
                Ok(())
            }
            None => {
                self.would_survive(view, own, member, course)?;
                Err(course.act([Step::TakeControlPlaneLock { instance: self.me.instance.clone() }]))
            }
        }
    }

    fn would_survive(&self, view: &ClusterView, own: MemberId, member: &Member, course: &Course) -> Next<()> {
        let voters = view.members.values().filter(|member| !member.learner).count();
        // The only voter leaves nobody behind who could lose anything but the time.
        if voters == 1 && self.volume_dies() == Some(false) {
            return Ok(());
        }
        let others = survivors(view, own, member);
        others.map_err(|(healthy, needed)| course.wait(WaitingOn::QuorumWithout { healthy, needed }))
    }

    fn step_out(&self, course: &mut Course) -> Next<()> {
        let Some(placing) = course.need(&self.seen.departure.placing, Subject::LoadBalancers)? else {
            return Ok(());
        };
        let balancer = &placing.balancer;
        match &placing.health {
            TargetHealth::NotRegistered => Ok(()),
            TargetHealth::Draining => {
                Err(course.wait(WaitingOn::Drained { balancer: balancer.name.clone() }))
            }
            TargetHealth::Initial
            | TargetHealth::Healthy
            | TargetHealth::Unhealthy { .. }
            | TargetHealth::Unused { .. }
            | TargetHealth::Unavailable { .. } => Err(course.act([Step::DeregisterTarget {
                balancer: balancer.clone(),
                target: balancer.target_of(self.me),
            }])),
        }
    }

    /// This machine's node. A control plane that has taken its API server down does not see it any more, and has done
    /// with it.
    fn node(&self, course: &Course) -> Next<Option<&'a LeavingNode>> {
        let server = self.seen.departure.components.get(&Component::ApiServer);
        if server.is_some_and(|found| found.manifest == Fact::Known(false)) {
            return Ok(None);
        }
        Ok(course.need(&self.seen.departure.node, Subject::Node)?.as_ref())
    }

    fn drain(&self, course: &mut Course) -> Next<()> {
        let Some(node) = self.node(course)? else { return Ok(()) };
        if !node.cordoned {
            return Err(course.act([Step::CordonNode { node: node.name.clone() }]));
        }
        if node.pods.is_empty() {
            return Ok(());
        }
        let on = WaitingOn::Pods {
            left: node.pods.len(),
            refused: node
                .pods
                .iter()
                .filter_map(|pod| pod.refused.as_ref().map(|why| format!("{}: {why}", pod.title())))
                .collect(),
        };
        let drained_by = self.departure.since.saturating_add(self.settings.leaving.drain.as_signed_millis());
        if self.ends().is_some() && self.seen.at >= drained_by {
            course.warn(Warning::LeftInHaste { what: on.to_string() });
            return Ok(());
        }
        let willing: Vec<_> =
            node.pods.iter().filter(|pod| !pod.ending && pod.refused.is_none()).cloned().collect();
        if willing.is_empty() {
            return Err(course.wait(on));
        }
        let grace_s = self.settings.leaving.pod_grace.map(|grace| grace.as_signed_millis() / 1000);
        Err(course.act_and_wait([Step::EvictPods { pods: willing, grace_s }], on))
    }

    /// The node of a machine that has left is deleted by who looks after the API: a node may not delete itself.
    fn say_so(&self, course: &mut Course) -> Next<()> {
        if self.comes_back() {
            return Ok(());
        }
        match self.node(course)? {
            Some(node) if !node.left => Err(course.act([Step::MarkNodeLeft { node: node.name.clone() }])),
            Some(_) | None => Ok(()),
        }
    }

    fn stop_components(&self, course: &mut Course) -> Next<()> {
        let components = &self.seen.departure.components;
        let mut there = Vec::new();
        for (component, found) in components {
            if *course.need(&found.manifest, Subject::KubernetesFiles)? {
                there.push(*component);
            }
        }
        if !there.is_empty() {
            return Err(course.act([Step::WithdrawManifests { components: there }]));
        }
        let running: Vec<Component> = components
            .iter()
            .filter(|(_, found)| found.listens != Fact::Known(false))
            .map(|(component, _)| *component)
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        Err(course.wait(WaitingOn::ComponentsEnd { components: running }))
    }

    fn stop_node(&self, course: &mut Course) -> Next<()> {
        let mut running = Vec::new();
        for (service, state) in &self.seen.departure.services {
            match course.need(state, Subject::Services)? {
                ServiceState::Running => running.push(Step::StopService { service: *service }),
                ServiceState::Stopped | ServiceState::Failed(_) => {}
            }
        }
        if running.is_empty() { Ok(()) } else { Err(course.act(running)) }
    }

    /// The volume that is attached here, by EC2's word, and whether it is deleted with the machine.
    fn volume(&self) -> Option<(&'a VolumeId, bool)> {
        self.seen.volumes.known()?.iter().find_map(|(id, volume)| {
            let attachment = volume.attachment.as_ref()?;
            (volume.ours && attachment.instance == self.me.instance)
                .then_some((id, attachment.delete_on_termination))
        })
    }

    /// Whether this machine's volume ends with it; `None` where it has none, or nobody says so.
    fn volume_dies(&self) -> Option<bool> {
        let ends = match &self.departure.cause {
            Cause::Termination | Cause::Spot { action: SpotAction::Terminate, .. } => true,
            Cause::Spot { action: SpotAction::Stop | SpotAction::Hibernate, .. }
            | Cause::Asked
            | Cause::Maintenance { .. }
            | Cause::Rebalance => false,
        };
        self.volume().map(|(_, with_machine)| ends && with_machine)
    }

    /// A member whose volume ends with the machine is removed, while it still can answer for itself.
    fn leave_etcd(&self, course: &mut Course) -> Next<()> {
        course.need(&self.seen.volumes, Subject::Volumes)?;
        if self.volume_dies() != Some(true) {
            return Ok(());
        }
        let view = match &self.seen.etcd.cluster {
            Fact::Known(view) => view,
            Fact::Unknown(_) => return Err(course.wait(WaitingOn::Quorum)),
        };
        let Some((own, member)) = self.standing().own(view) else { return Ok(()) };
        match &view.lock {
            Some(holder) if *holder != self.me.instance => {
                return Err(course.wait(WaitingOn::MembershipLock { holder: holder.clone() }));
            }
            Some(_) | None => {}
        }
        self.would_survive(view, own, member, course)?;
        require_health(view, Some(own), false, course)?;
        Err(course.act([
            Step::TakeMembershipLock { instance: self.me.instance.clone() },
            Step::RemoveMember { member: own },
        ]))
    }

    fn stop_etcd(&self, course: &mut Course) -> Next<()> {
        match course.need(&self.seen.etcd.service, Subject::Service)? {
            ServiceState::Running => Err(course.act([Step::StopEtcd])),
            ServiceState::Stopped | ServiceState::Failed(_) => Ok(()),
        }
    }

    /// A volume that outlives the machine is unmounted and detached, so that the successor finds it free.
    fn release_volume(&self, course: &mut Course) -> Next<()> {
        if let Some(disk) = course.need(&self.seen.disk, Subject::Disk)?
            && course.need(&disk.mount, Subject::Disk)?.is_some()
        {
            return Err(course.act([Step::Unmount]));
        }
        if self.comes_back() {
            return Ok(());
        }
        course.need(&self.seen.volumes, Subject::Volumes)?;
        match self.volume() {
            Some((volume, _)) if self.volume_dies() == Some(false) => Err(if self.is_let_go(volume) {
                course.wait(WaitingOn::Detached { volume: volume.clone() })
            } else {
                let (volume, instance) = (volume.clone(), self.me.instance.clone());
                course.act([Step::DetachVolume { volume, instance }])
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether EC2 is detaching it already.
    fn is_let_go(&self, volume: &VolumeId) -> bool {
        let found = self.seen.volumes.known().and_then(|volumes| volumes.get(volume));
        found.and_then(|volume| volume.attachment.as_ref()).is_some_and(|attachment| {
            matches!(attachment.state, AttachmentState::Detaching | AttachmentState::Busy)
        })
    }

    fn give_lock_back(&self, course: &mut Course) -> Next<()> {
        let Fact::Known(view) = &self.seen.etcd.cluster else { return Ok(()) };
        let instance = &self.me.instance;
        let mut steps = Vec::new();
        if view.lock.as_ref() == Some(instance) {
            steps.push(Step::ReleaseMembershipLock { instance: instance.clone() });
        }
        if view.control_plane.lock.as_ref() == Some(instance) {
            steps.push(Step::ReleaseControlPlaneLock { instance: instance.clone() });
        }
        // They were kept until now.
        course.steps.clear();
        if steps.is_empty() { Ok(()) } else { Err(course.act(steps)) }
    }

    /// All is done that can be: Auto Scaling goes on.
    fn complete(&self, course: &mut Course) -> Next<Plan> {
        course.steps.clear();
        if self.departure.cause == Cause::Termination {
            let membership = course.need(&self.seen.departure.membership, Subject::LifecycleHook)?.as_ref();
            if let Some(membership) =
                membership.filter(|membership| membership.state == LifecycleState::TerminatingWait)
            {
                let hook = course.need(&self.seen.departure.hook, Subject::LifecycleHook)?.as_ref();
                let Some(hook) = hook else {
                    course.warn(Warning::OtherHook { expected: self.settings.leaving.hook.to_string() });
                    course.phase = Phase::Left;
                    return Ok(course.clone().done());
                };
                let in_haste =
                    course.warnings.iter().any(|warning| matches!(warning, Warning::LeftInHaste { .. }));
                return Err(course.act([Step::CompleteHook {
                    group: membership.group.clone(),
                    hook: hook.name.clone(),
                    instance: self.me.instance.clone(),
                    result: if in_haste { told(self.settings.leaving.result) } else { HookResult::Continue },
                }]));
            }
        }
        course.phase = Phase::Left;
        Ok(course.clone().done())
    }

    /// The hook is told that the machine is still at it, while there is time.
    fn with_heartbeat(&self, mut plan: Plan) -> Plan {
        if self.departure.cause == Cause::Termination
            && self.ends().is_some_and(|ends| self.seen.at < ends)
            && let Some(step) =
                heartbeat(&self.seen.departure, self.me, &LifecycleState::TerminatingWait, self.seen.at)
        {
            plan.steps.insert(0, step);
        }
        plan
    }
}

fn told(result: LeavingResult) -> HookResult {
    match result {
        LeavingResult::Continue => HookResult::Continue,
        LeavingResult::Abandon => HookResult::Abandon,
    }
}

/// The heartbeat that is due to the hook that holds this machine.
pub(super) fn heartbeat(
    seen: &DepartureObservation,
    me: &Identity,
    held: &LifecycleState,
    at: i64,
) -> Option<Step> {
    let membership = seen.membership.known()?.as_ref().filter(|membership| membership.state == *held)?;
    let hook = seen.hook.known()?.as_ref()?;
    let every = hook.heartbeat_timeout_s.saturating_mul(1000) / 3;
    let every = every.clamp(HEARTBEAT.0, HEARTBEAT.1);
    // A clock that was set back makes it due, too.
    let due = seen.heartbeat.is_none_or(|last| at.saturating_sub(last).saturating_abs() >= every);
    due.then(|| Step::SendHeartbeat {
        group: membership.group.clone(),
        hook: hook.name.clone(),
        instance: me.instance.clone(),
    })
}
