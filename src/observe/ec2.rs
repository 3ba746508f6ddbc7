//! Instances and volumes, as EC2 tells of them.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::aws::Ec2Error;
use crate::config::settings::VolumeSource;
use crate::model::{Fact, Instance, InstanceId, SlotRecord, Volume, VolumeId};
use crate::reach::Reach;

use super::kept::Kept;

/// EC2's answers.
#[derive(Debug, Clone)]
pub struct Ec2Look {
    /// Instances of the cluster, and named ones.
    pub instances: Fact<BTreeMap<InstanceId, Instance>>,
    /// Volumes of the cluster, attached ones, and named ones.
    pub volumes: Fact<BTreeMap<VolumeId, Volume>>,
}

impl Ec2Look {
    /// The instances, if the list is complete enough to hold this very machine: EC2's answers are
    /// eventually consistent, and a list without oneself may lack others too.
    pub fn instances_with(&self, me: &InstanceId) -> Fact<BTreeMap<InstanceId, Instance>> {
        match &self.instances {
            Fact::Known(all) if !all.contains_key(me) => Fact::unknown(format!(
                "EC2 does not list this instance ({me}) yet, so its list is not complete"
            )),
            other => other.clone(),
        }
    }
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    instances: Kept<BTreeMap<InstanceId, Instance>>,
    volumes: Kept<BTreeMap<VolumeId, Volume>>,
    /// Whether the last look had only one of them.
    half: bool,
}

/// Asks for the cluster's instances and volumes.
pub(super) async fn look(reach: &Reach, memory: &mut Remembered) -> Ec2Look {
    let (instances, volumes) = tokio::join!(
        memory.instances.ask_unless(memory.half, instances(reach), Ec2Error::is_retryable),
        memory.volumes.ask_unless(memory.half, volumes(reach), Ec2Error::is_retryable),
    );
    memory.half = instances.is_known() != volumes.is_known();
    Ec2Look { instances, volumes }
}

fn instances(reach: &Reach) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Instance>, Ec2Error>> {
    reach.aws.ec2.instances_of(&reach.settings.cluster).boxed()
}

fn volumes(reach: &Reach) -> BoxFuture<'_, Result<BTreeMap<VolumeId, Volume>, Ec2Error>> {
    let (cluster, ec2) = (&reach.settings.cluster, &reach.aws.ec2);
    async {
        let mut volumes = ec2.volumes_of(cluster).await?;
        match reach.settings.etcd.volume.source {
            VolumeSource::Tagged | VolumeSource::Created => {}
            // Attached by the launch template, and not tagged yet.
            VolumeSource::Device => {
                volumes.extend(ec2.volumes_attached_to(cluster, &reach.identity.instance).await?);
            }
        }
        Ok(volumes)
    }
    .boxed()
}

/// Adds what EC2 says of machines and volumes that are named somewhere and not listed. Those on
/// which it gives no definite word stay absent, which is unknown.
pub(super) async fn with_named(reach: &Reach, look: Ec2Look, named: Vec<SlotRecord>) -> Ec2Look {
    let (Fact::Known(mut instances), Fact::Known(mut volumes)) =
        (look.instances.clone(), look.volumes.clone())
    else {
        return look;
    };
    let mut missing_instances: Vec<InstanceId> =
        named.iter().map(|who| who.instance.clone()).filter(|id| !instances.contains_key(id)).collect();
    let mut missing_volumes: Vec<VolumeId> =
        named.iter().map(|who| who.volume.clone()).filter(|id| !volumes.contains_key(id)).collect();
    // Most are named more than once.
    missing_instances.sort_unstable();
    missing_instances.dedup();
    missing_volumes.sort_unstable();
    missing_volumes.dedup();
    let (cluster, ec2) = (&reach.settings.cluster, &reach.aws.ec2);
    if !missing_instances.is_empty() {
        match ec2.instances_by_id(cluster, &missing_instances).await {
            Ok(found) => instances.extend(found),
            Err(error) => tracing::warn!(
                why = crate::model::fact::chain(&error),
                "EC2 gave no word on instances that the cluster names"
            ),
        }
    }
    if !missing_volumes.is_empty() {
        match ec2.volumes_by_id(cluster, &missing_volumes).await {
            Ok(found) => volumes.extend(found),
            Err(error) => tracing::warn!(
                why = crate::model::fact::chain(&error),
                "EC2 gave no word on volumes that the cluster names"
            ),
        }
    }
    Ec2Look { instances: Fact::Known(instances), volumes: Fact::Known(volumes) }
}
