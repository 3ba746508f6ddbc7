//! An instance on its way into its group, or out of it, and the hooks that hold it there.

use super::{AutoScaling, AutoScalingError};
use crate::aws::Cause;
use crate::model::InstanceId;
use crate::model::departure::{Hook, HookResult, LifecycleState, Membership};

fn failed(operation: &'static str, what: impl Into<String>) -> impl FnOnce(Cause) -> AutoScalingError {
    let what = what.into();
    move |source| AutoScalingError::Lifecycle { operation, what, source }
}

/// Whether Auto Scaling says that no such hook holds this instance: it has no code of its own for that.
fn is_not_held(cause: &Cause) -> bool {
    let (Some("ValidationError"), Cause::Answered { message: Some(message), .. }) = (cause.code(), cause)
    else {
        return false;
    };
    message.contains("No active Lifecycle Action found")
}

impl AutoScaling {
    /// Where an instance stands in its group; `None` when it is in none.
    pub async fn membership(&self, instance: &InstanceId) -> Result<Option<Membership>, AutoScalingError> {
        const OPERATION: &str = "DescribeAutoScalingInstances";
        let answer = self
            .client
            .describe_auto_scaling_instances()
            .instance_ids(instance.as_str())
            .send()
            .await
            .map_err(|error| failed(OPERATION, instance.as_str())(Cause::new(&error)))?;
        let malformed =
            |why: &str| AutoScalingError::Malformed { what: instance.to_string(), why: why.to_owned() };
        let Some(found) = answer
            .auto_scaling_instances()
            .iter()
            .find(|found| found.instance_id() == Some(instance.as_str()))
        else {
            return Ok(None);
        };
        let group =
            found.auto_scaling_group_name().ok_or_else(|| malformed("an instance without its group"))?;
        let state =
            found.lifecycle_state().ok_or_else(|| malformed("an instance without a lifecycle state"))?;
        Ok(Some(Membership { group: group.to_owned(), state: LifecycleState::from(state) }))
    }

    /// A hook of a group, by its name; `None` when the group has none of that name.
    pub async fn hook(&self, group: &str, name: &str) -> Result<Option<Hook>, AutoScalingError> {
        const OPERATION: &str = "DescribeLifecycleHooks";
        // All of a group's hooks come in one answer: it may have 50. Asked for by name, one that is not there is an
        // error like any other.
        let answer = self
            .client
            .describe_lifecycle_hooks()
            .auto_scaling_group_name(group)
            .send()
            .await
            .map_err(|error| failed(OPERATION, group)(Cause::new(&error)))?;
        let found = answer.lifecycle_hooks().iter().find(|hook| hook.lifecycle_hook_name() == Some(name));
        let Some(hook) = found else { return Ok(None) };
        let timeout = hook.heartbeat_timeout().ok_or_else(|| AutoScalingError::Malformed {
            what: group.to_owned(),
            why: format!("the hook {name} has no heartbeat time-out"),
        })?;
        Ok(Some(Hook { name: name.to_owned(), heartbeat_timeout_s: timeout.into() }))
    }

    /// Begins the time anew for which a hook holds an instance. One that is not held any more is no error.
    pub async fn heartbeat(
        &self,
        group: &str,
        hook: &str,
        instance: &InstanceId,
    ) -> Result<(), AutoScalingError> {
        const OPERATION: &str = "RecordLifecycleActionHeartbeat";
        let call = self.client.record_lifecycle_action_heartbeat();
        let call =
            call.auto_scaling_group_name(group).lifecycle_hook_name(hook).instance_id(instance.as_str());
        match call.send().await.map_err(|error| Cause::new(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if is_not_held(&cause) => Ok(()),
            Err(cause) => Err(failed(OPERATION, format!("{instance} in {group}"))(cause)),
        }
    }

    /// Tells a hook how it ends. One that does not hold the instance any more is no error.
    pub async fn complete_hook(
        &self,
        group: &str,
        hook: &str,
        instance: &InstanceId,
        result: HookResult,
    ) -> Result<(), AutoScalingError> {
        const OPERATION: &str = "CompleteLifecycleAction";
        let call = self
            .client
            .complete_lifecycle_action()
            .auto_scaling_group_name(group)
            .lifecycle_hook_name(hook)
            .instance_id(instance.as_str())
            .lifecycle_action_result(result.as_str());
        match call.send().await.map_err(|error| Cause::new(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if is_not_held(&cause) => Ok(()),
            Err(cause) => Err(failed(OPERATION, format!("{instance} in {group}"))(cause)),
        }
    }
}
