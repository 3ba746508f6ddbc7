//! Does the steps of a machine that comes into its group, or leaves it.

use super::{StepError, json};
use crate::cluster_api::ApiClient;
use crate::host::manifests::Manifests;
use crate::host::{clock, files, filesystem};
use crate::kubernetes::Component;
use crate::model::departure::{Departure, HookResult, NodePod};
use crate::model::fact::chain;
use crate::model::{InstanceId, ServiceState};
use crate::reach::Reach;

pub(super) fn begin(reach: &Reach, departure: &Departure) -> Result<(), StepError> {
    reach.note_departure(Some(departure.clone()));
    // Another machine keeps the backups from now on.
    if let Some(keeper) = &reach.keeper {
        keeper.forbid();
    }
    let path = reach.departure();
    if let Some(parent) = path.parent() {
        files::create_dir(parent, 0o755)?;
    }
    files::write_durably(&path, &json(departure)?, 0o644)?;
    tracing::info!(because = %departure.cause, "this machine leaves");
    Ok(())
}

/// What is renamed aside is no departure any more.
pub(super) fn end(reach: &Reach) -> Result<(), StepError> {
    let path = reach.departure();
    if files::read_optional(&path)?.is_some() {
        files::rename_aside(&path, "taken-back", clock::now_ms())?;
    }
    reach.note_departure(None);
    Ok(())
}

/// The way of this machine's kubelet. Without one there is no node.
async fn as_kubelet(
    reach: &Reach,
    act: impl AsyncFnOnce(ApiClient) -> Result<(), StepError>,
) -> Result<(), StepError> {
    match ApiClient::of_the_kubelet(&reach.root)? {
        Some((api, _)) => act(api).await,
        None => Ok(()),
    }
}

pub(super) async fn cordon(reach: &Reach, node: &str) -> Result<(), StepError> {
    as_kubelet(reach, async |api| Ok(api.cordon(node).await?)).await
}

pub(super) async fn reopen(reach: &Reach, node: &str) -> Result<(), StepError> {
    as_kubelet(reach, async |api| Ok(api.reopen(node).await?)).await
}

pub(super) async fn mark_left(reach: &Reach, node: &str, instance: &InstanceId) -> Result<(), StepError> {
    as_kubelet(reach, async |api| Ok(api.mark_left(node, instance).await?)).await
}

/// Evicts the pods; one that is refused, or fails, does not stop the others.
pub(super) async fn evict(reach: &Reach, pods: &[NodePod], grace_s: Option<i64>) -> Result<(), StepError> {
    as_kubelet(reach, async |api| {
        let mut first = Ok(());
        for pod in pods {
            match api.evict(pod, grace_s, false).await {
                Ok(None) => tracing::info!(pod = pod.title(), "evicted a pod"),
                Ok(Some(why)) => tracing::info!(pod = pod.title(), why, "a pod was not evicted"),
                Err(error) if first.is_ok() => first = Err(error),
                Err(error) => tracing::warn!(why = chain(&error), "a pod was not evicted"),
            }
        }
        Ok(first?)
    })
    .await
}

pub(super) fn withdraw(reach: &Reach, components: &[Component]) -> Result<(), StepError> {
    let manifests = Manifests::of(&reach.root);
    // The API server goes last of those that are its clients.
    for component in components.iter().rev() {
        manifests.withdraw(*component)?;
    }
    Ok(())
}

/// etcd that was started in the meantime keeps its volume.
pub(super) async fn unmount(reach: &Reach) -> Result<(), StepError> {
    if reach.service.state().await? == ServiceState::Running {
        return Err(StepError::EtcdRuns);
    }
    let dir = reach.mount_point();
    if filesystem::mounted(&dir).await?.is_some() {
        filesystem::umount(&reach.root, &dir).await?;
    }
    Ok(())
}

/// One that is not taken stops nothing that the machine is at: two more are due before the hook ends.
pub(super) async fn heartbeat(reach: &Reach, group: &str, hook: &str, instance: &InstanceId) {
    reach.note_heartbeat(clock::now_ms());
    if let Err(error) = reach.aws.autoscaling.heartbeat(group, hook, instance).await {
        tracing::warn!(
            group,
            hook,
            why = chain(&error),
            "the hook that holds this machine took no heartbeat"
        );
    }
}

pub(super) async fn complete(
    reach: &Reach,
    group: &str,
    hook: &str,
    instance: &InstanceId,
    result: HookResult,
) -> Result<(), StepError> {
    reach.aws.autoscaling.complete_hook(group, hook, instance, result).await?;
    reach.note_hook_told();
    tracing::info!(group, hook, result = result.as_str(), "told the lifecycle hook how it ends");
    Ok(())
}
