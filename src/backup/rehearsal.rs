//! Rehearsal: a backup that was never restored is none.
//!
//! At intervals the newest backup is restored on a private etcd in a directory of its own, which is then removed. What
//! came of it is one small object in S3, so that it is known whichever machine asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

use super::error::BackupError;
use super::read::{self, UpTo};
use super::restore::{self, Bench};
use crate::aws::ObjectStore;
use crate::etcd::config::Tuning;
use crate::host::clock;
use crate::model::backup::{REHEARSAL, Rehearsal};
use crate::model::{ChainName, ClusterUuid, Generation};
use crate::telemetry::messages;

/// How many times the database's size is needed: the snapshot, what is restored of it, and what etcd adds.
const ROOM: u64 = 3;

/// When it is rehearsed, and where.
#[derive(Debug, Clone)]
pub struct Rehearsals {
    /// How often.
    pub every: Duration,
    /// A directory of its own.
    pub dir: PathBuf,
    /// etcd. `etcdutl` is beside it.
    pub etcd: PathBuf,
    /// This machine's certificates.
    pub pki: PathBuf,
    /// etcd's tuning.
    pub tuning: Tuning,
}

/// What the last rehearsal came to; `None` when there was none, or when its record can't be read.
pub async fn last(objects: &ObjectStore) -> Result<Option<Rehearsal>, BackupError> {
    let stored = objects.get(REHEARSAL).await?;
    Ok(stored.and_then(|stored| serde_json::from_slice(&stored.bytes).ok()))
}

/// Rehearses when it is time to, and gives what the last one came to.
///
/// # Errors
/// It is not known whether it is time, or there was nowhere to write what came of it. That the backup could not be
/// restored is no error: it is what came of it.
pub async fn if_due(
    objects: &ObjectStore,
    rehearsals: &Rehearsals,
    uuid: &ClusterUuid,
    generation: Generation,
) -> Result<Option<Rehearsal>, BackupError> {
    let last = last(objects).await?;
    let every = i64::try_from(rehearsals.every.as_millis()).unwrap_or(i64::MAX);
    if last.as_ref().is_some_and(|last| clock::now_ms().saturating_sub(last.at) < every) {
        return Ok(last);
    }
    let Some(chain) = newest(objects, uuid, generation).await? else { return Ok(last) };
    let rehearsed = rehearse(objects, rehearsals, uuid, chain).await;
    let json = serde_json::to_vec_pretty(&rehearsed).map_err(BackupError::json(REHEARSAL))?;
    objects.put(REHEARSAL, json).await?;
    let Rehearsal { chain, took_ms, error, .. } = &rehearsed;
    match error {
        None => tracing::info!(%chain, took_ms, "a backup was rehearsed"),
        Some(error) => {
            let message_id = messages::REHEARSAL_FAILED;
            tracing::error!(%chain, error, message_id, "a backup could not be restored");
        }
    }
    Ok(Some(rehearsed))
}

/// The newest chain that was finished, in whatever state it is: damage to it is what a rehearsal is to find.
async fn newest(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    generation: Generation,
) -> Result<Option<ChainName>, BackupError> {
    for chain in read::chains(objects, generation).await?.into_iter().rev() {
        match read::manifest(objects, uuid, &chain).await {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(Some(chain)),
            Err(error) if error.is_about_the_backup() => return Ok(Some(chain)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Restores one backup, and says what came of it.
async fn rehearse(
    objects: &ObjectStore,
    rehearsals: &Rehearsals,
    uuid: &ClusterUuid,
    chain: ChainName,
) -> Rehearsal {
    let began = Instant::now();
    let done = restore_aside(objects, rehearsals, uuid, &chain).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (revision, keys, error) = match done {
        Ok(replayed) => (Some(replayed.revision), replayed.keys, None),
        Err(error) => (None, None, Some(crate::model::fact::chain(&error))),
    };
    Rehearsal { at: clock::now_ms(), chain, revision, keys, took_ms, error }
}

async fn restore_aside(
    objects: &ObjectStore,
    rehearsals: &Rehearsals,
    uuid: &ClusterUuid,
    chain: &ChainName,
) -> Result<restore::Replayed, BackupError> {
    let Rehearsals { dir, etcd, pki, tuning, .. } = rehearsals;
    let manifest = read::named_manifest(objects, uuid, chain).await?;
    require_room(dir, manifest.size)?;
    let read = read::follow(objects, manifest, UpTo::Newest).await?;
    if let read::ChainEnd::Broken(why) = read.end {
        return Err(BackupError::Damaged { object: objects.url(&chain.changes()), why });
    }
    let bench = Bench { dir: dir.clone(), etcd: etcd.clone(), pki: pki.clone(), tuning };
    restore::rehearse(&bench, objects, uuid, &read.point).await
}

fn require_room(dir: &Path, size: u64) -> Result<(), BackupError> {
    // The directory itself is made later.
    let place = dir.parent().unwrap_or(dir);
    let found = statvfs(place).map_err(|errno| BackupError::Io {
        doing: "asking for the room at",
        path: place.to_owned(),
        source: errno.into(),
    })?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    let needed = size.saturating_mul(ROOM);
    if free >= needed {
        return Ok(());
    }
    Err(BackupError::Io {
        doing: "rehearsing in",
        path: dir.to_owned(),
        source: std::io::Error::other(format!("{free} bytes are free, expected {needed}")),
    })
}
