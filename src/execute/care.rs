//! The steps that look after etcd's databases, and after a member that is wedged.

use crate::host::{clock, notes};
use crate::model::machine::client_url;
use crate::model::{ClusterUuid, ComparisonPlace, Comparisons, Generation, InstanceId, MemberId, WedgeNote};
use crate::reach::Reach;
use crate::telemetry::messages;

use super::StepError;

/// Lets this machine's own member write its database anew.
pub(super) async fn defragment(reach: &Reach, member: MemberId) -> Result<(), StepError> {
    Ok(reach.etcd.defragment(&client_url(reach.identity.address), member).await?)
}

/// Lets this machine keep the backups for a while.
pub(super) fn keep_backups(reach: &Reach, uuid: &ClusterUuid, generation: Generation) {
    if let Some(keeper) = &reach.keeper {
        let url = client_url(reach.identity.address);
        keeper.permit(&reach.identity.instance, &reach.settings.cluster, (uuid, generation), &url);
    }
}

/// Asks every member for its hash, and keeps the answers.
pub(super) async fn compare(reach: &Reach, keep: ComparisonPlace) -> Result<(), StepError> {
    let comparison = reach.etcd.compare(clock::now_ms()).await?;
    match keep {
        ComparisonPlace::Etcd => Ok(reach.etcd.record_comparison(comparison).await?),
        ComparisonPlace::Machine => Ok(notes::amend(&reach.root, |notes| {
            let before = notes.compared.take();
            notes.compared = Some(Comparisons::followed_by(before, comparison));
        })?),
    }
}

/// Notes what is done about a wedged member.
pub(super) fn note_wedge(reach: &Reach, note: WedgeNote) -> Result<(), StepError> {
    Ok(notes::amend(&reach.root, |notes| notes.wedge = Some(note))?)
}

/// Tells the group that this instance is not healthy.
pub(super) async fn give_up(reach: &Reach, instance: &InstanceId, why: &str) -> Result<(), StepError> {
    let message_id = messages::INSTANCE_GIVEN_UP;
    tracing::error!(%instance, why, message_id, "giving this instance up to its Auto Scaling group");
    Ok(reach.aws.autoscaling.set_unhealthy(instance).await?)
}
