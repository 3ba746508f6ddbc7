//! Files that survive a power cut: either the old content or the new, never a part of it.
//!
//! A file is written under a temporary name that nothing else reads (a leading dot and a fixed
//! suffix, in the same directory), synced, renamed, and the directory is synced. What a crash
//! leaves behind is a temporary file, which the next write of the same file replaces.
//!
//! Everything here blocks. The files are small; a caller that minds runs it on a blocking thread.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::geteuid;
use time::OffsetDateTime;
use time::macros::format_description;

/// The end of every temporary name.
const TEMPORARY: &str = ".quorate-new";

/// How many names are tried for something set aside within the same second.
const ASIDE_NAMES: u32 = 1000;

/// What could not be done to which file. The cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file or directory was not read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory was not created.
    #[error("creating {}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file was not written; the old one is whole.
    #[error("writing {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory was not synced, so that it may be lost in a power cut.
    #[error("syncing {}", path.display())]
    Sync {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory was not renamed.
    #[error("renaming {} to {}", from.display(), to.display())]
    Rename {
        /// What it is still called.
        from: PathBuf,
        /// What it should have been called.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory was not given to its owner.
    #[error("giving {} to its owner", path.display())]
    Own {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file was not removed.
    #[error("removing {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path has no directory or no name.
    #[error("{} does not name a file in a directory", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
}

impl FileError {
    fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Write { source, .. }
            | Self::Sync { source, .. }
            | Self::Rename { source, .. }
            | Self::Own { source, .. }
            | Self::Remove { source, .. } => Some(source),
            Self::NoName { .. } => None,
        }
    }

    /// Whether the file system has no room left.
    pub fn is_disk_full(&self) -> bool {
        self.cause().is_some_and(|cause| {
            matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    }

    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        self.cause().is_some_and(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::TimedOut
            )
        })
    }
}

/// One file of a set.
#[derive(Clone, Copy)]
pub struct NewFile<'a> {
    /// Its name in the directory.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
    /// Its permissions, as 0o600.
    pub mode: u32,
}

/// Whether a name is one of the temporary ones.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// The content of a file; `None` when it is certainly not there.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

/// The names in a directory, in order; `None` when it is certainly not there. Names that are not
/// UTF-8 are shown with replacement characters.
pub fn list_optional(dir: &Path) -> Result<Option<Vec<String>>, FileError> {
    let failed = |source| FileError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}

/// Replaces a file's content, or creates it, with these permissions.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let dir = parent(path)?;
    let temporary = temporary(path)?;
    let file = write_temporary(&temporary, path, bytes, mode)?;
    finish(vec![(temporary, path.to_owned(), file)], [dir])
}

/// [`write_durably`], with the temporary file in another directory of the same file system: for a
/// directory of which somebody else reads every name.
pub fn write_staged(staging: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let dir = parent(path)?;
    let temporary = temporary(&staging.join(name(path)?))?;
    let file = write_temporary(&temporary, path, bytes, mode)?;
    finish(vec![(temporary, path.to_owned(), file)], [dir])
}

/// Replaces several files of a directory: all are written, then all synced, then all renamed,
/// then the directory is synced once. Each file is old or new as a whole; a crash between the
/// renames leaves some old and some new.
pub fn write_set(dir: &Path, files: &[NewFile<'_>]) -> Result<(), FileError> {
    write_set_as(dir, files, None)
}

/// [`write_set`] for another owner: every file belongs to the user and the group of this number
/// before it gets its name. Without an owner the files stay the writer's.
pub fn write_set_as(dir: &Path, files: &[NewFile<'_>], owner: Option<u32>) -> Result<(), FileError> {
    write_sets(&[(dir.to_owned(), files.to_vec(), owner)])
}

/// [`write_set_as`] in several directories: what is synced first takes the rest to the disk with it.
pub fn write_sets(sets: &[(PathBuf, Vec<NewFile<'_>>, Option<u32>)]) -> Result<(), FileError> {
    let mut written = Vec::new();
    let all = sets.iter().flat_map(|(dir, files, owner)| files.iter().map(move |file| (dir, file, *owner)));
    for (dir, file, owner) in all {
        let path = dir.join(file.name);
        let temporary = temporary(&path)?;
        let made = write_temporary(&temporary, &path, file.bytes, file.mode).and_then(|handle| {
            match owner.map_or(Ok(()), |id| fchown(&handle, Some(id), Some(id))) {
                Ok(()) => Ok(handle),
                Err(source) => {
                    discard(&temporary);
                    Err(FileError::Own { path: path.clone(), source })
                }
            }
        });
        match made {
            Ok(handle) => written.push((temporary, path, handle)),
            Err(error) => {
                for (temporary, _, _) in &written {
                    discard(temporary);
                }
                return Err(error);
            }
        }
    }
    finish(written, sets.iter().map(|(dir, ..)| dir.as_path()))
}

/// Creates a directory and those above it that are missing, with these permissions, and syncs
/// what it made. One that is there is left as it is.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            let set = fs::set_permissions(path, Permissions::from_mode(mode));
            set.map_err(|source| FileError::Create { path: path.to_owned(), source })?;
            sync_dir(parent(path)?)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir(parent(path)?, mode)?;
            create_dir(path, mode)
        }
        Err(source) => Err(FileError::Create { path: path.to_owned(), source }),
    }
}

/// [`create_dir`], and one that is there gets these permissions and this owner too (a user's number
/// and its group's of the same number), when it has others.
pub fn create_dir_as(path: &Path, mode: u32, owner: Option<u32>) -> Result<(), FileError> {
    create_dir(path, mode)?;
    let failed = |source| FileError::Own { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(failed)?;
    let its = owner.is_none_or(|id| (found.uid(), found.gid()) == (id, id));
    if its && found.mode() & 0o7777 == mode {
        return Ok(());
    }
    let handle = File::open(path).map_err(failed)?;
    if found.mode() & 0o7777 != mode {
        // Only who owns it may do this, unless he has CAP_FOWNER, which nothing else here needs.
        if owner.is_some() && found.uid() != geteuid().as_raw() {
            fchown(&handle, Some(geteuid().as_raw()), None).map_err(failed)?;
        }
        handle.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    }
    if let Some(id) = owner {
        fchown(&handle, Some(id), Some(id)).map_err(failed)?;
    }
    handle.sync_all().map_err(failed)
}

/// Removes a file, if it is there, and syncs its directory.
pub fn remove_durably(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Remove { path: path.to_owned(), source }),
    }
}

/// Renames a file or directory to a name beside it that nothing has, and gives that name:
/// `etcd` becomes `etcd.aside-20261122T180000Z-because`. `now` is in milliseconds since 1970.
/// Of `because`, letters and digits are kept and everything else becomes a dash.
pub fn rename_aside(path: &Path, because: &str, now: i64) -> Result<PathBuf, FileError> {
    let dir = parent(path)?;
    let name = name(path)?;
    let because: String =
        because.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let mut number = 1;
    loop {
        let mut aside = name.clone();
        aside.push(format!(".aside-{}-{because}", compact_utc(now)));
        if number > 1 {
            aside.push(format!("-{number}"));
        }
        let to = dir.join(aside);
        match renameat2(AT_FDCWD, path, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {
                sync_dir(dir)?;
                return Ok(to);
            }
            Err(Errno::EEXIST) if number < ASIDE_NAMES => number += 1,
            Err(errno) => {
                return Err(FileError::Rename { from: path.to_owned(), to, source: errno.into() });
            }
        }
    }
}

/// Puts a directory that was made aside into its place, as a whole and for good. Where something is already, nothing is
/// done, and that is an error.
pub fn rename_into_place(made: &Path, to: &Path) -> Result<(), FileError> {
    // What is in it lasts before its name does.
    File::open(made)
        .and_then(|handle| nix::unistd::syncfs(handle).map_err(io::Error::from))
        .map_err(|source| FileError::Sync { path: made.to_owned(), source })?;
    renameat2(AT_FDCWD, made, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).map_err(|errno| {
        FileError::Rename { from: made.to_owned(), to: to.to_owned(), source: errno.into() }
    })?;
    sync_dir(parent(to)?)
}

/// Syncs a directory, so that the names in it last.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| FileError::Sync { path: dir.to_owned(), source })
}

/// `20261122T180000Z`, of milliseconds since 1970; the bare number where no date has it.
fn compact_utc(now: i64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from_unix_timestamp(now.div_euclid(1000))
        .ok()
        .and_then(|moment| moment.format(&format).ok())
        .unwrap_or_else(|| now.to_string())
}

fn parent(path: &Path) -> Result<&Path, FileError> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(dir) => Ok(dir),
        None => Err(FileError::NoName { path: path.to_owned() }),
    }
}

fn name(path: &Path) -> Result<OsString, FileError> {
    path.file_name().map(OsString::from).ok_or_else(|| FileError::NoName { path: path.to_owned() })
}

fn temporary(path: &Path) -> Result<PathBuf, FileError> {
    let mut temporary = OsString::from(".");
    temporary.push(name(path)?);
    temporary.push(TEMPORARY);
    Ok(path.with_file_name(temporary))
}

/// Writes the temporary file, from nothing: what a crash left may have other permissions.
fn write_temporary(temporary: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<File, FileError> {
    match fs::remove_file(temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FileError::Remove { path: temporary.to_owned(), source }),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(|source| FileError::Create { path: path.to_owned(), source })?;
    let written = file.set_permissions(Permissions::from_mode(mode)).and_then(|()| file.write_all(bytes));
    match written {
        Ok(()) => Ok(file),
        Err(source) => {
            discard(temporary);
            Err(FileError::Write { path: path.to_owned(), source })
        }
    }
}

/// Syncs the temporary files, renames them, and syncs the directories.
fn finish<'a>(
    written: Vec<(PathBuf, PathBuf, File)>,
    dirs: impl IntoIterator<Item = &'a Path>,
) -> Result<(), FileError> {
    for (_, path, file) in &written {
        if let Err(source) = file.sync_all() {
            for (temporary, _, _) in &written {
                discard(temporary);
            }
            return Err(FileError::Sync { path: path.clone(), source });
        }
    }
    for (temporary, path, _) in written {
        if let Err(source) = fs::rename(&temporary, &path) {
            discard(&temporary);
            return Err(FileError::Rename { from: temporary, to: path, source });
        }
    }
    dirs.into_iter().try_for_each(sync_dir)
}

/// Frees the room of a temporary file that will not be used. The failure that led here is the
/// one to report; what is left is replaced by the next write.
fn discard(temporary: &Path) {
    if let Err(error) = fs::remove_file(temporary) {
        tracing::warn!(path = %temporary.display(), %error, "temporary file left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_370_400_000;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        list_optional(dir).unwrap().unwrap()
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_durably(&path, b"a longer old content", 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        write_durably(&path, b"new", 0o600).unwrap();
        assert_eq!(read_optional(&path).unwrap().unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()), ["key.pem"]);
    }

    #[test]
    fn what_a_crash_left_is_replaced_and_its_permissions_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let left = temporary(&path).unwrap();
        assert!(is_temporary(left.file_name().unwrap().to_str().unwrap()));
        fs::write(&left, "half of a").unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o644)).unwrap();
        write_durably(&path, b"key", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (b"key".as_slice(), 0o600));
        assert_eq!(names(dir.path()), ["key.pem"]);
    }

    #[test]
    fn a_write_that_fails_names_the_path_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_durably(&dir.path().join("missing/file"), b"", 0o600).unwrap_err();
        assert!(error.to_string().ends_with("missing/file"), "{error}");

        let occupied = dir.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        let error = write_durably(&occupied, b"", 0o600).unwrap_err();
        assert!(matches!(error, FileError::Rename { .. }), "{error:?}");
        assert_eq!(names(dir.path()), ["occupied"]);
    }

    #[test]
    fn a_set_that_can_not_be_written_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name, bytes| NewFile { name, bytes, mode: 0o600 };
        write_set(dir.path(), &[file("a", b"1"), file("b", b"1")]).unwrap();
        fs::create_dir(dir.path().join(".b.quorate-new")).unwrap();
        write_set(dir.path(), &[file("a", b"2"), file("b", b"2")]).unwrap_err();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"1");
        assert_eq!(names(dir.path()), [".b.quorate-new", "a", "b"]);
    }

    #[test]
    fn sets_in_several_directories_are_written_all_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["one", "two"].map(|name| dir.path().join(name));
        let write = |bytes| {
            let file = NewFile { name: "a", bytes, mode: 0o600 };
            write_sets(&dirs.clone().map(|dir| (dir, vec![file], None)))
        };
        fs::create_dir(&dirs[0]).unwrap();
        assert!(write(b"1").unwrap_err().to_string().ends_with("two/a"));
        assert_eq!(names(&dirs[0]), [""; 0]);
        fs::create_dir(&dirs[1]).unwrap();
        write(b"2").unwrap();
        for dir in &dirs {
            assert_eq!((names(dir), fs::read(dir.join("a")).unwrap()), (vec!["a".to_owned()], b"2".to_vec()));
        }
    }

    #[test]
    fn absent_is_told_from_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(read_optional(&file).unwrap(), None);
        assert_eq!(list_optional(&file).unwrap(), None);
        fs::write(&file, "").unwrap();
        assert!(read_optional(dir.path()).is_err());
        assert!(list_optional(&file).is_err());
        assert!(read_optional(&file.join("below")).is_err());
    }

    #[test]
    fn setting_aside_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("etcd");
        let aside = |content: &str| {
            fs::create_dir(&data).unwrap();
            if !content.is_empty() {
                fs::write(data.join(content), "").unwrap();
            }
            let aside = rename_aside(&data, "removed from the cluster/..", NOW).unwrap();
            aside.file_name().unwrap().to_str().unwrap().to_owned()
        };
        // An empty directory is what a plain rename would replace.
        assert_eq!(aside(""), "etcd.aside-20261122T180000Z-removed-from-the-cluster---");
        assert_eq!(aside("one"), "etcd.aside-20261122T180000Z-removed-from-the-cluster----2");
        assert_eq!(aside("two"), "etcd.aside-20261122T180000Z-removed-from-the-cluster----3");
        assert_eq!(names(dir.path()).len(), 3);
        assert!(rename_aside(&data, "gone", NOW).is_err());
    }

    #[test]
    fn directories_are_made_with_those_above_them() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir(&deep, 0o700).unwrap();
        create_dir(&deep, 0o755).unwrap();
        assert_eq!(mode(&deep), 0o700);
        fs::write(deep.join("file"), "").unwrap();
        assert!(create_dir(&deep.join("file"), 0o700).is_err());
    }

    #[test]
    fn files_and_directories_are_given_to_their_owner() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root gives files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scheduler");
        create_dir(&path, 0o755).unwrap();
        create_dir_as(&path, 0o700, Some(2903)).unwrap();
        let file = NewFile { name: "key", bytes: b"1", mode: 0o600 };
        write_set_as(&path, &[file], Some(2903)).unwrap();
        for (path, mode) in [(path.join("key"), 0o600), (path, 0o700)] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (2903, 2903, mode));
        }
    }

    #[test]
    fn removing_what_is_not_there_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        remove_durably(&file).unwrap();
        remove_durably(&file).unwrap();
        assert!(remove_durably(dir.path()).is_err());
    }
}
