//! Instances and volumes, as EC2 tells of them.

use std::collections::BTreeMap;

use crate::config::settings::VolumeSource;
use crate::model::{Fact, Instance, InstanceId, SlotRecord, Volume, VolumeId};
use crate::reach::Reach;

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

/// Asks for the cluster's instances and volumes.
pub(super) async fn look(reach: &Reach) -> Ec2Look {
    let (cluster, ec2) = (&reach.settings.cluster, &reach.aws.ec2);
    let (instances, volumes) = tokio::join!(ec2.instances_of(cluster), volumes(reach));
    Ec2Look { instances: instances.into(), volumes }
}

async fn volumes(reach: &Reach) -> Fact<BTreeMap<VolumeId, Volume>> {
    let (cluster, ec2) = (&reach.settings.cluster, &reach.aws.ec2);
    let mut volumes = match ec2.volumes_of(cluster).await {
        Ok(volumes) => volumes,
        Err(error) => return Err(error).into(),
    };
    match reach.settings.etcd.volume.source {
        VolumeSource::Tagged | VolumeSource::Created => {}
        // Attached by the launch template, and not tagged yet.
        VolumeSource::Device => match ec2.volumes_attached_to(cluster, &reach.identity.instance).await {
            Ok(attached) => volumes.extend(attached),
            Err(error) => return Err(error).into(),
        },
    }
    Fact::Known(volumes)
}

/// Adds what EC2 says of machines and volumes that are named somewhere and not listed. Those on
/// which it gives no definite word stay absent, which is unknown.
pub(super) async fn with_named(reach: &Reach, look: Ec2Look, named: Vec<SlotRecord>) -> Ec2Look {
    let (Fact::Known(mut instances), Fact::Known(mut volumes)) =
        (look.instances.clone(), look.volumes.clone())
    else {
        return look;
    };
    let missing_instances: Vec<InstanceId> =
        named.iter().map(|who| who.instance.clone()).filter(|id| !instances.contains_key(id)).collect();
    let missing_volumes: Vec<VolumeId> =
        named.iter().map(|who| who.volume.clone()).filter(|id| !volumes.contains_key(id)).collect();
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
