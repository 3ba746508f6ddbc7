//! The steps of a recovery: which backup can be restored, and etcd's data made from it.

use std::path::{Path, PathBuf};

use crate::backup::read::UpTo;
use crate::backup::restore::{self, Bench};
use crate::backup::{BackupError, choose, configuration};
use crate::host::{chosen, clock, files, volume};
use crate::model::{
    Charter, ChosenBackup, ClusterUuid, DataDir, EtcdLaunch, Generation, Recovery, RestorePoint,
};
use crate::reach::{CHARTER, Reach};
use crate::telemetry::messages;

use super::StepError;

/// Reads the backups through, and notes the one that reaches furthest and is whole, or that none is.
pub(super) async fn choose(
    reach: &Reach,
    uuid: &ClusterUuid,
    generation: Generation,
) -> Result<(), StepError> {
    let mut damaged = Vec::new();
    let point = newest(reach, uuid, generation, &mut damaged).await?;
    match &point {
        Some(point) => tracing::info!(chain = %point.chain, revision = point.revision, "a backup is whole"),
        None => {
            let why = damaged.join("; ");
            tracing::error!(why, message_id = messages::NO_BACKUP_WHOLE, "no backup is whole");
        }
    }
    let damaged = if point.is_some() { Vec::new() } else { damaged };
    let found = ChosenBackup { uuid: uuid.clone(), generation, at: clock::now_ms(), point, damaged };
    Ok(chosen::write(&reach.root, &found)?)
}

async fn newest(
    reach: &Reach,
    uuid: &ClusterUuid,
    generation: Generation,
    damaged: &mut Vec<String>,
) -> Result<Option<RestorePoint>, BackupError> {
    let objects = &reach.aws.objects;
    let mut wanted = Some((generation, UpTo::Newest));
    while let Some((of, up_to)) = wanted.take() {
        match choose::newest_whole(objects, uuid, of, up_to).await {
            Ok(mut point) => {
                point.passed_over.splice(0..0, damaged.drain(..));
                return Ok(Some(point));
            }
            Err(BackupError::NoneWhole { passed_over }) => damaged.extend(passed_over),
            Err(error) => return Err(error),
        }
        if of == generation {
            wanted = before(reach, generation).await?;
        }
    }
    Ok(None)
}

/// What the generation in force began with, which is what there is while it has no backup of its own.
async fn before(reach: &Reach, generation: Generation) -> Result<Option<(Generation, UpTo)>, BackupError> {
    let objects = &reach.aws.objects;
    let Some(stored) = objects.get(CHARTER).await? else { return Ok(None) };
    let damaged = |error: serde_json::Error| BackupError::Damaged {
        object: objects.url(CHARTER),
        why: error.to_string(),
    };
    let charter: Charter = serde_json::from_slice(&stored.bytes).map_err(damaged)?;
    Ok(match charter.recovery {
        Some(Recovery::Backup { point }) if charter.generation == generation => {
            Some((point.chain.generation, UpTo::Revision(point.revision)))
        }
        Some(Recovery::Survivor { generation: before, .. }) if charter.generation == generation => {
            Some((before, UpTo::Newest))
        }
        Some(Recovery::Backup { .. } | Recovery::Survivor { .. }) | None => None,
    })
}

/// Makes etcd's data, unless they are there. etcd does not run, and the volume is mounted.
pub(super) async fn restore(
    reach: &Reach,
    recovery: &Recovery,
    launch: &EtcdLaunch,
) -> Result<(), StepError> {
    let mount = reach.mount_point();
    if volume::contents(&mount)?.data == DataDir::Present {
        return Ok(());
    }
    let tuning = reach.tuning();
    let bench = Bench {
        dir: volume::restoring(&mount),
        etcd: reach.etcd_program(),
        pki: reach.pki(),
        tuning: &tuning,
    };
    let data = volume::data_dir(&reach.root);
    let replayed = match recovery {
        Recovery::Backup { point } => {
            tell_what_changed(reach, &launch.uuid, point).await;
            restore::from_backup(&bench, &reach.aws.objects, &launch.uuid, point, launch, &data).await?
        }
        Recovery::Survivor { generation, .. } => {
            let survivor = survivor(&mount, *generation)?;
            restore::from_survivor(&bench, &survivor, launch, &data).await?
        }
    };
    tracing::info!(revision = replayed.revision, "etcd's data are restored");
    Ok(())
}

/// Tells what is configured in another way than when the backup was made. It keeps nothing back: the data are whole.
async fn tell_what_changed(reach: &Reach, uuid: &ClusterUuid, point: &RestorePoint) {
    let objects = &reach.aws.objects;
    match configuration::changed_since(objects, uuid, &point.chain, &reach.settings).await {
        Ok(lines) if lines.is_empty() => {}
        Ok(lines) => tracing::warn!(
            changed = lines.join("; "),
            "this machine is configured in another way than the one that made the backup"
        ),
        Err(error) => tracing::warn!(
            error = crate::model::fact::chain(&error),
            "how the machine was configured that made the backup is not known"
        ),
    }
}

/// The survivor's data, as they were set aside when this generation was followed: the newest of them.
fn survivor(mount: &Path, generation: Generation) -> Result<PathBuf, StepError> {
    let names = files::list_optional(mount)?.unwrap_or_default();
    let newest = volume::aside_because(&names, &format!("generation-{generation}"));
    let newest = newest.ok_or(BackupError::NoSurvivor { generation })?;
    Ok(mount.join(newest))
}
