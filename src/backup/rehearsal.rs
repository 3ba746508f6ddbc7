//! Rehearsal: a backup that was never restored is none.
//!
//! At intervals the newest backup is restored on a private etcd in a directory of its own, which is then removed. What
//! came of it is one small object in S3, so that it is known whichever machine asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

use super::choose;
use super::error::BackupError;
use super::read::{self, UpTo};
use super::restore::{self, Bench};
use crate::aws::ObjectStore;
use crate::etcd::config::Tuning;
use crate::host::clock;
use crate::model::backup::{REHEARSAL, Rehearsal};
use crate::model::{ClusterUuid, Generation, Manifest};

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
pub async fn if_due(
    objects: &ObjectStore,
    rehearsals: &Rehearsals,
    uuid: &ClusterUuid,
    generation: Generation,
) -> Option<Rehearsal> {
    match rehearse_if_due(objects, rehearsals, uuid, generation).await {
        Ok(rehearsed) => rehearsed,
        Err(error) => {
            tracing::warn!(error = crate::model::fact::chain(&error), "no backup was rehearsed");
            None
        }
    }
}

async fn rehearse_if_due(
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
    let furthest = choose::furthest(objects, uuid, generation).await?;
    let Some((manifest, _)) = furthest.into_iter().next() else { return Ok(last) };
    let rehearsed = rehearse(objects, rehearsals, manifest).await;
    if let Ok(json) = serde_json::to_vec_pretty(&rehearsed) {
        objects.put(REHEARSAL, json).await?;
    }
    let Rehearsal { chain, took_ms, error, .. } = &rehearsed;
    match error {
        None => tracing::info!(%chain, took_ms, "a backup was rehearsed"),
        Some(error) => tracing::error!(%chain, error, "a backup could not be restored"),
    }
    Ok(Some(rehearsed))
}

/// Restores one backup, and says what came of it.
pub async fn rehearse(objects: &ObjectStore, rehearsals: &Rehearsals, manifest: Manifest) -> Rehearsal {
    let began = Instant::now();
    let chain = manifest.chain.clone();
    let done = restore_aside(objects, rehearsals, manifest).await;
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
    manifest: Manifest,
) -> Result<restore::Replayed, BackupError> {
    let Rehearsals { dir, etcd, pki, tuning, .. } = rehearsals;
    let (uuid, size) = (manifest.uuid.clone(), manifest.size);
    require_room(dir, size)?;
    let read = read::follow(objects, manifest, UpTo::Newest).await?;
    if let read::ChainEnd::Broken(why) = read.end {
        return Err(BackupError::Damaged { object: objects.url(&read.point.chain.changes()), why });
    }
    let bench = Bench { dir: dir.clone(), etcd: etcd.clone(), pki: pki.clone(), tuning };
    restore::rehearse(&bench, objects, &uuid, &read.point).await
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
