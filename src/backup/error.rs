//! What can go wrong with a backup.

use std::io;
use std::path::PathBuf;

use super::segment::SegmentError;
use crate::aws::ObjectError;
use crate::etcd::EtcdError;
use crate::etcd::replay::ReplayError;
use crate::etcd::streams::ChangesEnd;
use crate::host::command::CommandError;
use crate::host::files::FileError;

/// What was not backed up, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// S3 gave no answer, or refused.
    #[error("asking S3")]
    Store(#[from] ObjectError),
    /// etcd gave no answer, or refused.
    #[error("asking etcd")]
    Etcd(#[from] EtcdError),
    /// etcd sends no more changes.
    #[error("following etcd's changes")]
    Changes(#[from] ChangesEnd),
    /// The private etcd of a restore failed.
    #[error("bringing the backup up to date")]
    Replay(#[from] ReplayError),
    /// A program that helps did not do what it should.
    #[error("restoring the snapshot")]
    Program(#[from] CommandError),
    /// A file was not read, written, or renamed.
    #[error("working with the backup's files")]
    File(#[from] FileError),
    /// The same, of the standard library's.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A part of a backup is not what was written.
    #[error("{object} is not whole: {why}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object of a backup is not there.
    #[error("{object} is missing")]
    Missing {
        /// The object.
        object: String,
    },
    /// Another machine writes this chain.
    #[error("another machine has written {object}")]
    Overtaken {
        /// The object.
        object: String,
    },
    /// Nothing of this cluster can be restored.
    #[error("no backup in S3 can be restored: {}", reasons(passed_over))]
    NoneWhole {
        /// What was looked at, and why it is not used.
        passed_over: Vec<String>,
    },
    /// A value has no JSON form.
    #[error("writing {object} as JSON")]
    Json {
        /// Which.
        object: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing has come together to be sealed.
    #[error("sealing changes")]
    Seal(#[source] SegmentError),
    /// The data of the member that is to survive are not on the volume.
    #[error("the volume holds no data of generation {generation} that were set aside")]
    NoSurvivor {
        /// The generation.
        generation: crate::model::Generation,
    },
}

fn reasons(passed_over: &[String]) -> String {
    if passed_over.is_empty() { "there is none".to_owned() } else { passed_over.join("; ") }
}

impl BackupError {
    /// Whether the backup itself is at fault: no other attempt will find it whole.
    pub fn is_about_the_backup(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }

    pub(super) fn json(object: &str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { object: object.to_owned(), source }
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
