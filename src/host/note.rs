//! Small files in which this machine notes something for itself, as JSON.
//!
//! A damaged note is none: what is noted here can be found out again, or costs no more than once more.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::{self, FileError};

/// A note can't be had.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It can't be written as JSON.
    #[error("writing {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The note; `None` when there is none, or a damaged one.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NoteError> {
    let Some(bytes) = files::read_optional(path)? else { return Ok(None) };
    let note = serde_json::from_slice(&bytes);
    Ok(note.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a note is damaged")).ok())
}

/// Writes the note, in place of the one before.
pub(super) fn write(path: &Path, note: &impl Serialize) -> Result<(), NoteError> {
    let bytes = serde_json::to_vec_pretty(note)
        .map_err(|source| NoteError::Json { path: path.to_owned(), source })?;
    if let Some(dir) = path.parent() {
        files::create_dir(dir, 0o755)?;
    }
    Ok(files::write_durably(path, &bytes, 0o644)?)
}
