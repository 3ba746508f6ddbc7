//! An instance's standing in its group, and the hooks that hold it on its way in and out.

use serde::{Deserialize, Serialize};

use super::compute::{InstanceId, InstanceState};
use super::{Refusal, World};

/// A hook is held open for at most this many heartbeats (Auto Scaling's "global timeout").
const MAX_HEARTBEATS: u64 = 100;

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
    /// Being terminated.
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
}

impl Lifecycle {
    pub(super) fn pending() -> Self {
        Self { state: LifecycleState::Pending, healthy: true, holds: Vec::new() }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.holds.iter().map(|h| h.deadline_ms).min()
    }

    /// What the metadata service says the instance is heading for.
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
                    lifecycle.state = LifecycleState::InService;
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
        if let Some(lifecycle) = self.lifecycle_mut(id)
            && lifecycle.state == LifecycleState::Pending
        {
            let enters = holds.is_empty();
            lifecycle.state = if enters { LifecycleState::InService } else { LifecycleState::PendingWait };
            lifecycle.holds = holds;
            if enters {
                self.register_with_group(id);
            }
        }
    }

    /// Lets a group part with an instance: it is taken out of the load balancers, then come the hooks,
    /// unless EC2 is already ending it.
    pub(super) fn begin_termination(&mut self, id: &InstanceId) {
        let running = self.view.instances.get(id).is_some_and(|i| i.state == InstanceState::Running);
        let holds = if running { self.holds_for(id, Transition::Terminating) } else { Vec::new() };
        let Some(lifecycle) = self.lifecycle_mut(id) else { return };
        if lifecycle.state.is_leaving() {
            return;
        }
        if holds.is_empty() {
            lifecycle.state = LifecycleState::Terminating;
            lifecycle.holds.clear();
            self.deregister_from_group(id);
            self.shut_down(id);
        } else {
            lifecycle.state = LifecycleState::TerminatingWait;
            lifecycle.holds = holds;
            self.deregister_from_group(id);
        }
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
                let timeout = hook.heartbeat_timeout_ms;
                Hold { hook, token, deadline_ms: now + timeout, limit_ms: now + timeout * MAX_HEARTBEATS }
            })
            .collect()
    }

    pub(super) fn lifecycle_mut(&mut self, id: &InstanceId) -> Option<&mut Lifecycle> {
        self.view_mut().instances.get_mut(id)?.lifecycle.as_mut()
    }
}
