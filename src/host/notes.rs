//! What this machine noted about its own etcd member: that it was found wedged, and comparisons of
//! hashes that etcd did not take. One small file, which outlives the agent and a boot, and dies with
//! the machine.

use std::path::PathBuf;

use super::Root;
use super::files::{self, FileError};
use crate::model::CareNotes;

/// Where it is.
const NOTES: &str = "/var/lib/quorate/etcd/notes.json";

/// The notes can't be had.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// The file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// They can't be written as JSON.
    #[error("writing {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The notes. A damaged file is one without notes: what they keep from happening twice is then at
/// most done once more.
pub fn read(root: &Root) -> Result<CareNotes, NotesError> {
    let path = root.path(NOTES);
    let Some(bytes) = files::read_optional(&path)? else { return Ok(CareNotes::default()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the notes about etcd are damaged");
        CareNotes::default()
    }))
}

/// Changes the notes.
pub fn amend(root: &Root, change: impl FnOnce(&mut CareNotes)) -> Result<(), NotesError> {
    let path = root.path(NOTES);
    let mut notes = read(root)?;
    change(&mut notes);
    let bytes = serde_json::to_vec_pretty(&notes)
        .map_err(|source| NotesError::Json { path: path.clone(), source })?;
    if let Some(dir) = path.parent() {
        files::create_dir(dir, 0o755)?;
    }
    Ok(files::write_durably(&path, &bytes, 0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MemberId, WedgeNote};

    #[test]
    fn what_was_noted_is_found_again_and_a_damaged_file_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(read(&root).unwrap(), CareNotes::default());
        let note = WedgeNote { member: MemberId(7), restarted: 1, given_up: None };
        amend(&root, |notes| notes.wedge = Some(note)).unwrap();
        amend(&root, |notes| notes.compared = None).unwrap();
        assert_eq!(read(&root).unwrap().wedge, Some(note));
        std::fs::write(root.path(NOTES), "{").unwrap();
        assert_eq!(read(&root).unwrap(), CareNotes::default());
    }
}
