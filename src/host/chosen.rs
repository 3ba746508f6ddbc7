//! What this machine found when it read the backups through. One small file, which dies with the machine: another
//! machine reads them through itself.

use super::Root;
use super::note::{self, NoteError};
use crate::model::ChosenBackup;
use crate::reach::RESTORE_POINT;

/// The note; `None` when there is none. With a damaged one the backups are read through once more.
///
/// # Errors
/// The file is there, and can't be read.
pub fn read(root: &Root) -> Result<Option<ChosenBackup>, NoteError> {
    note::read(&root.path(RESTORE_POINT))
}

/// Writes the note, in place of the one before.
///
/// # Errors
/// It was not written.
pub fn write(root: &Root, chosen: &ChosenBackup) -> Result<(), NoteError> {
    note::write(&root.path(RESTORE_POINT), chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChainName, Generation, RestorePoint};

    #[test]
    fn what_was_chosen_is_found_again_and_a_damaged_note_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(read(&root).unwrap(), None);
        let chain = ChainName::new(Generation(1), 7, "0a1b2c3d").unwrap();
        let point = RestorePoint { chain, segments: 2, revision: 9, at: 1, passed_over: Vec::new() };
        let uuid = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let chosen =
            ChosenBackup { uuid, generation: Generation(1), at: 2, point: Some(point), damaged: Vec::new() };
        write(&root, &chosen).unwrap();
        assert_eq!(read(&root).unwrap(), Some(chosen.clone()));
        let none = ChosenBackup { point: None, damaged: vec!["1/7: truncated".to_owned()], ..chosen };
        write(&root, &none).unwrap();
        assert_eq!(read(&root).unwrap(), Some(none));
        std::fs::write(root.path(RESTORE_POINT), "{").unwrap();
        assert_eq!(read(&root).unwrap(), None);
    }
}
