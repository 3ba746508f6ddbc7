//! The restore engine's place: what the two steps of a recovery call. It is not merged yet, and says so when it is asked.

use crate::execute::StepError;
use crate::model::{ClusterUuid, EtcdLaunch, Generation, Recovery, Slot};
use crate::reach::Reach;

/// Reads the newest backups of this cluster through, and notes by [`crate::host::chosen::write`] the newest one that is
/// whole, or that none is. `generation` is the one in force; the backups may be of that or of an earlier one.
///
/// # Errors
/// S3 gave no definite answer. That a backup is damaged is no error: the next older one is read.
#[expect(clippy::unused_async, reason = "the engine that takes this place waits for S3")]
pub async fn choose(_: &Reach, _uuid: &ClusterUuid, _generation: Generation) -> Result<(), StepError> {
    Err(StepError::NoRestoreEngine)
}

/// Makes etcd's data directory, unless there is one with a write-ahead log.
///
/// # Errors
/// The data could not be had, or not be written; then there is no data directory.
#[expect(clippy::unused_async, reason = "the engine that takes this place waits for S3")]
pub async fn restore(
    _: &Reach,
    _slot: Slot,
    _recovery: &Recovery,
    _launch: &EtcdLaunch,
) -> Result<(), StepError> {
    Err(StepError::NoRestoreEngine)
}
