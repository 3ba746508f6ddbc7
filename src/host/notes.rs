//! What this machine noted about its own etcd member: that it was found wedged, and comparisons of
//! hashes that etcd did not take. One small file, which outlives the agent and a boot, and dies with
//! the machine.

use super::Root;
use super::note::{self, NoteError};
use crate::model::CareNotes;

/// Where it is.
const NOTES: &str = "/var/lib/quorate/etcd/notes.json";

/// The notes. What damaged ones would keep from happening twice is at most done once more.
pub fn read(root: &Root) -> Result<CareNotes, NoteError> {
    Ok(note::read(&root.path(NOTES))?.unwrap_or_default())
}

/// Changes the notes.
pub fn amend(root: &Root, change: impl FnOnce(&mut CareNotes)) -> Result<(), NoteError> {
    let mut notes = read(root)?;
    change(&mut notes);
    note::write(&root.path(NOTES), &notes)
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
