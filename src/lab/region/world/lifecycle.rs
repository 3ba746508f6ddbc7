//! An instance's standing in its group, and the hooks that hold it on its way in and out.

use serde::{Deserialize, Serialize};

use super::compute::{Instance, InstanceId, InstanceState};
use super::{Refusal, World};

/// A hook is held open for at most this many heartbeat time-outs, and two days (Auto Scaling's "global timeout").
const MAX_HEARTBEATS: u64 = 100;
const MAX_HOLD_MS: u64 = 48 * 3_600_000;

/// Which way a hook is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transition {
    /// On the way in: `autoscaling:EC2_INSTANCE_LAUNCHING`.
    Launching,
    /// On the way out: `autoscaling:EC2_INSTANCE_TERMINATING`.
    Terminating,
}

/// How a hook ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HookResult {
    /// Go on.
    Continue,
    /// On the way in: terminate the instance. On the way out: skip the other hooks.
    Abandon,
}

/// A lifecycle hook of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookSpec {
    /// Its name.
    pub name: String,
    /// Which way it is on.
    pub transition: Transition,
    /// How long it holds an instance without a heartbeat, in milliseconds.
    pub heartbeat_timeout_ms: u64,
    /// What it does when the time is over.
    pub default_result: HookResult,
}

impl HookSpec {
    /// How long it can hold an instance at most, whatever the heartbeats, in milliseconds.
    pub fn global_timeout_ms(&self) -> u64 {
        (self.heartbeat_timeout_ms * MAX_HEARTBEATS).min(MAX_HOLD_MS)
    }
}

/// Auto Scaling's lifecycle states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LifecycleState {
    /// Being launched.
    Pending,
    /// Held by a launching hook.
    #[serde(rename = "Pending:Wait")]
    PendingWait,
    /// In service.
    InService,
    /// Being terminated: first it is taken out of the load balancers, and what is open there is waited for.
    Terminating,
    /// Held by a terminating hook.
    #[serde(rename = "Terminating:Wait")]
    TerminatingWait,
    /// Past its hooks, on its way out.
    #[serde(rename = "Terminating:Proceed")]
    TerminatingProceed,
}

impl LifecycleState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::PendingWait => "Pending:Wait",
            Self::InService => "InService",
            Self::Terminating => "Terminating",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingProceed => "Terminating:Proceed",
        }
    }

    /// Whether the instance is on its way out, and so not counted as capacity.
    pub fn is_leaving(self) -> bool {
        match self {
            Self::Pending | Self::PendingWait | Self::InService => false,
            Self::Terminating | Self::TerminatingWait | Self::TerminatingProceed => true,
        }
    }
}

/// A hook that holds an instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The hook.
    pub hook: HookSpec,
    /// Names this action.
    pub token: String,
    /// When the default result is taken, in milliseconds since 1970.
    pub deadline_ms: u64,
    #[serde(skip)]
    limit_ms: u64,
}

/// An instance's standing in its group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Where it is.
    pub state: LifecycleState,
    /// Whether the group takes it for healthy.
    pub healthy: bool,
    /// The hooks that hold it.
    pub holds: Vec<Hold>,
    /// Since when it is in service, in milliseconds since 1970.
    pub in_service_ms: Option<u64>,
}

/// An instance's end by its group, as Auto Scaling answers who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Names the activity.
    pub activity: String,
    /// The group.
    pub group: String,
    /// The instance.
    pub instance: InstanceId,
}

impl Lifecycle {
    pub(super) fn pending() -> Self {
        Self { state: LifecycleState::Pending, healthy: true, holds: Vec::new(), in_service_ms: None }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.holds.iter().map(|h| h.deadline_ms).min()
    }

    fn enter_service(&mut self, now: u64) {
        self.state = LifecycleState::InService;
        self.in_service_ms = Some(now);
    }

    /// What the metadata service says the instance is heading for: the steady state that comes next, so `InService`
    /// while a launching hook holds it, and `Terminated` from the moment that its group parts with it
    /// (Auto Scaling user guide, "Retrieve the target lifecycle state through instance metadata").
    pub fn target(&self) -> &'static str {
        if self.state.is_leaving() { "Terminated" } else { "InService" }
    }
}

impl World {
    /// Ends one hook's hold on an instance, named by instance id or by token.
    pub fn complete_lifecycle_action(
        &mut self,
        group: &str,
        hook: &str,
        instance: Option<&str>,
        token: Option<&str>,
        result: HookResult,
    ) -> Result<(), Refusal> {
        let (id, index) = self.find_hold(group, hook, instance, token)?;
        self.end_hold(&id, index, result);
        self.settle();
        Ok(())
    }

    /// Gives a group a lifecycle hook, in place of one of that name.
    pub fn put_hook(&mut self, group: &str, hook: HookSpec) -> Result<(), Refusal> {
        self.group(group)?;
        if let Some(group) = self.view_mut().groups.get_mut(group) {
            group.spec.hooks.retain(|h| h.name != hook.name);
            group.spec.hooks.push(hook);
        }
        self.settle();
        Ok(())
    }

    /// Has a group terminate one of its instances, with its hooks: to be replaced, or as one less that is desired.
    pub fn terminate_in_group(&mut self, id: &str, decrement: bool) -> Result<Ending, Refusal> {
        let unmanaged = || {
            let message = format!("Instance Id not found - No managed instance found for instance ID: {id}");
            Refusal::bad("ValidationError", message)
        };
        let instance = self.view.instances.get(id).filter(|i| i.lifecycle.is_some()).ok_or_else(unmanaged)?;
        let (instance, name) = (instance.id.clone(), instance.group.clone().ok_or_else(unmanaged)?);
        let leaving = self.view.instances[&instance].lifecycle.as_ref().is_some_and(|l| l.state.is_leaving());
        if decrement && !leaving {
            let group = self.group(&name)?;
            if group.desired <= group.spec.min {
                let message = format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will \
                     violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or \
                     lower group's min size.",
                    group.spec.min
                );
                return Err(Refusal::bad("ValidationError", message));
            }
            if let Some(group) = self.view_mut().groups.get_mut(&name) {
                group.desired -= 1;
            }
        }
        self.begin_termination(&instance);
        let activity = [8, 4, 4, 4, 12].map(|n| self.hex(n)).join("-");
        self.settle();
        Ok(Ending { activity, group: name, instance })
    }

    /// Begins a hold's heartbeat time-out anew.
    pub fn record_heartbeat(
        &mut self,
        group: &str,
        hook: &str,
        instance: Option<&str>,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        let (id, index) = self.find_hold(group, hook, instance, token)?;
        let now = self.now;
        if let Some(lifecycle) = self.lifecycle_mut(&id)
            && let Some(hold) = lifecycle.holds.get_mut(index)
        {
            hold.deadline_ms = (now + hold.hook.heartbeat_timeout_ms).min(hold.limit_ms);
        }
        self.settle();
        Ok(())
    }

    fn find_hold(
        &self,
        group: &str,
        hook: &str,
        instance: Option<&str>,
        token: Option<&str>,
    ) -> Result<(InstanceId, usize), Refusal> {
        let known = self.group(group)?;
        if !known.spec.hooks.iter().any(|h| h.name == hook) {
            return Err(Refusal::bad("ValidationError", format!("No Lifecycle Hook found with name {hook}")));
        }
        let holds = self
            .view
            .instances
            .values()
            .filter(|i| i.group.as_deref() == Some(group))
            .filter_map(|i| i.lifecycle.as_ref().map(|l| (i, l)))
            .flat_map(|(i, l)| l.holds.iter().enumerate().map(move |(n, hold)| (i, n, hold)));
        let wanted = |i: &str, t: &str| instance.is_none_or(|w| w == i) && token.is_none_or(|w| w == t);
        if instance.is_none() && token.is_none() {
            return Err(Refusal::bad("ValidationError", "an instance id or a token is needed"));
        }
        holds
            .filter(|(_, _, hold)| hold.hook.name == hook)
            .find(|(i, _, hold)| wanted(i.id.as_str(), &hold.token))
            .map(|(i, n, _)| (i.id.clone(), n))
            .ok_or_else(|| {
                let what = instance.or(token).unwrap_or_default();
                let message = format!("No active Lifecycle Action found with instance ID {what}");
                Refusal::bad("ValidationError", message)
            })
    }

    fn end_hold(&mut self, id: &InstanceId, index: usize, result: HookResult) {
        let now = self.now;
        let Some(lifecycle) = self.lifecycle_mut(id) else { return };
        if index >= lifecycle.holds.len() {
            return;
        }
        lifecycle.holds.remove(index);
        match (lifecycle.state, result) {
            (LifecycleState::PendingWait, HookResult::Abandon) => {
                lifecycle.holds.clear();
                self.begin_termination(id);
            }
            (LifecycleState::PendingWait, HookResult::Continue) => {
                if lifecycle.holds.is_empty() {
                    lifecycle.enter_service(now);
                    self.register_with_group(id);
                }
            }
            (_, result) => {
                if result == HookResult::Abandon {
                    lifecycle.holds.clear();
                }
                if lifecycle.holds.is_empty() {
                    lifecycle.state = LifecycleState::TerminatingProceed;
                    self.shut_down(id);
                }
            }
        }
    }

    pub(super) fn enter_service_or_wait(&mut self, id: &InstanceId) {
        let holds = self.holds_for(id, Transition::Launching);
        let now = self.now;
        if let Some(lifecycle) = self.lifecycle_mut(id)
            && lifecycle.state == LifecycleState::Pending
        {
            if holds.is_empty() {
                lifecycle.enter_service(now);
                self.register_with_group(id);
            } else {
                lifecycle.state = LifecycleState::PendingWait;
                lifecycle.holds = holds;
            }
        }
    }

    /// Lets a group part with an instance: first it is taken out of the load balancers, and only when what was open
    /// there has drained come the hooks, and the end (Auto Scaling user guide, "How lifecycle hooks work in Auto Scaling
    /// groups"). One that EC2 is already ending is not held up.
    pub(super) fn begin_termination(&mut self, id: &InstanceId) {
        let Some(lifecycle) = self.lifecycle_mut(id) else { return };
        if lifecycle.state.is_leaving() {
            return;
        }
        lifecycle.state = LifecycleState::Terminating;
        lifecycle.holds.clear();
        self.deregister_from_group(id);
        self.end_draining();
    }

    /// Has the hooks hold the instances that have drained, or ends them.
    pub(super) fn end_draining(&mut self) -> bool {
        let leaves = |i: &&Instance| {
            let terminating = i.lifecycle.as_ref().is_some_and(|l| l.state == LifecycleState::Terminating);
            terminating && i.exists() && !self.drains(&i.id)
        };
        let drained: Vec<(InstanceId, InstanceState)> =
            self.view.instances.values().filter(leaves).map(|i| (i.id.clone(), i.state)).collect();
        for (id, state) in &drained {
            let running = *state == InstanceState::Running;
            let holds = if running { self.holds_for(id, Transition::Terminating) } else { Vec::new() };
            let Some(lifecycle) = self.lifecycle_mut(id) else { continue };
            if holds.is_empty() {
                self.shut_down(id);
            } else {
                lifecycle.state = LifecycleState::TerminatingWait;
                lifecycle.holds = holds;
            }
        }
        !drained.is_empty()
    }

    /// Takes the default result of every hold whose time is over.
    pub(super) fn expire_holds(&mut self) -> bool {
        let now = self.now;
        let expired = self.view.instances.values().find_map(|i| {
            let holds = &i.lifecycle.as_ref()?.holds;
            let n = holds.iter().position(|h| h.deadline_ms <= now)?;
            Some((i.id.clone(), n, holds.get(n)?.hook.default_result))
        });
        if let Some((id, index, result)) = &expired {
            self.end_hold(id, *index, *result);
        }
        expired.is_some()
    }

    fn holds_for(&mut self, id: &InstanceId, transition: Transition) -> Vec<Hold> {
        let group = self.view.instances.get(id).and_then(|i| i.group.as_deref());
        let hooks: Vec<HookSpec> = group
            .and_then(|g| self.view.groups.get(g))
            .map(|g| g.spec.hooks.iter().filter(|h| h.transition == transition).cloned().collect())
            .unwrap_or_default();
        let now = self.now;
        hooks
            .into_iter()
            .map(|hook| {
                let part = |w: &mut Self, n| w.hex(n);
                let token = [8, 4, 4, 4, 12].map(|n| part(self, n)).join("-");
                let (deadline_ms, limit_ms) =
                    (now + hook.heartbeat_timeout_ms, now + hook.global_timeout_ms());
                Hold { hook, token, deadline_ms, limit_ms }
            })
            .collect()
    }

    pub(super) fn lifecycle_mut(&mut self, id: &InstanceId) -> Option<&mut Lifecycle> {
        self.view_mut().instances.get_mut(id)?.lifecycle.as_mut()
    }
}
