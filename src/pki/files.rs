//! Sets of files that belong together, replaced so that a crash leaves each one old or new.
//!
//! All are written under names that nothing reads and synced; only then are they renamed, in the
//! order given, and the directory is synced once. A crash between two renames leaves a mixture:
//! whoever reads the set must be able to see that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file of a set.
pub(crate) struct SetFile<'a> {
    /// Its name in the directory.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
    /// Its permissions.
    pub mode: u32,
}

/// A set of files could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct WriteError {
    /// What was being done.
    pub operation: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// Replaces a set of files in `dir`, which is made (readable by its owner only) when it is missing.
pub(crate) fn write_set(dir: &Path, files: &[SetFile<'_>]) -> Result<(), WriteError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { operation, path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("making directory", dir))?;
    let staged: Vec<PathBuf> = files.iter().map(|file| dir.join(format!(".{}.new", file.name))).collect();
    for (file, path) in files.iter().zip(&staged) {
        // What a crash left behind may have other permissions: it is not written into.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let write = || {
            let mut to = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
            to.write_all(file.bytes)?;
            to.sync_all()
        };
        write().map_err(failed("writing", path))?;
    }
    for (file, path) in files.iter().zip(&staged) {
        fs::rename(path, dir.join(file.name)).map_err(failed("renaming", path))?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("syncing directory", dir))
}
