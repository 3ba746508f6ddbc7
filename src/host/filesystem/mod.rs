//! What is on a device, and the file system on it: probing, making, mounting, growing.
//!
//! The work is done by the machine's own programs (blkid, mkfs, mount, findmnt, resize2fs and
//! their kin), found on the `PATH`. A device counts as blank only when blkid knows nothing of it
//! *and* its head and tail are zeros; whatever else may be the case, it is not blank.
//!
//! Devices are block devices or, in a laboratory, regular files.

mod probe;

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::Root;
use super::command::{self, CommandError, Finished};
use super::files::{self, FileError};
use crate::model::{Content, Mount, Slot};

pub use probe::probe;

/// How long a program that only looks may take.
const LOOK: Duration = Duration::from_secs(30);
/// How long mount and umount may take: a journal may have to be replayed, caches written back.
const MOUNT: Duration = Duration::from_mins(2);
/// How long making or growing may take: minutes, on the largest and slowest of volumes.
const MAKE: Duration = Duration::from_mins(15);

/// The options that etcd's file system is mounted with.
const OPTIONS: &str = "noatime,nodev,nosuid,noexec";

/// What could not be found out about a device, or done to it.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    /// The device was not read.
    #[error("reading {}", device.display())]
    Read {
        /// The device.
        device: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device has no size yet.
    #[error("{} has no size", device.display())]
    NoSize {
        /// The device.
        device: PathBuf,
    },
    /// The device was not probed.
    #[error("probing {}", device.display())]
    Probe {
        /// The device.
        device: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// The device is not blank, and was not formatted.
    #[error("{} is not blank and was not formatted: {found}", device.display())]
    NotBlank {
        /// The device.
        device: PathBuf,
        /// What is on it.
        found: String,
    },
    /// Making the file system failed.
    #[error("making a {kind} file system on {}", device.display())]
    Format {
        /// The device.
        device: PathBuf,
        /// The kind.
        kind: Kind,
        /// Why.
        source: CommandError,
    },
    /// The mount point is not there and was not made.
    #[error("making the mount point")]
    MountPoint(#[source] FileError),
    /// Mounting failed.
    #[error("mounting {} at {}", device.display(), dir.display())]
    Mount {
        /// The device.
        device: PathBuf,
        /// The mount point.
        dir: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// Unmounting failed.
    #[error("unmounting {}", dir.display())]
    Unmount {
        /// The mount point.
        dir: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// What is mounted was not told.
    #[error("finding what is mounted at {}", dir.display())]
    Mounted {
        /// The mount point.
        dir: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// The size of the file system was not told.
    #[error("reading the size of the file system on {}", device.display())]
    Size {
        /// The device.
        device: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// Growing failed.
    #[error("growing the file system on {}", device.display())]
    Grow {
        /// The device.
        device: PathBuf,
        /// Why.
        source: CommandError,
    },
    /// A program said something that can't be understood.
    #[error("{program} said what can't be understood: {said:?}")]
    Unparsable {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// The thread that read the device was lost.
    #[error("the thread that read {} ended early", device.display())]
    Thread {
        /// The device.
        device: PathBuf,
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl FilesystemError {
    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Read { .. } | Self::NoSize { .. } | Self::Thread { .. } => true,
            Self::Probe { source, .. }
            | Self::Format { source, .. }
            | Self::Mount { source, .. }
            | Self::Unmount { source, .. }
            | Self::Mounted { source, .. }
            | Self::Size { source, .. }
            | Self::Grow { source, .. } => source.is_retryable(),
            Self::MountPoint(source) => source.is_retryable(),
            Self::NotBlank { .. } | Self::Unparsable { .. } => false,
        }
    }
}

/// A kind of file system that etcd's data can lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl Kind {
    /// The kind's name, as mount(8) and blkid(8) have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A kind of file system that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a file system for etcd (ext4 or xfs)")]
pub struct ParseKindError {
    /// What was given.
    pub found: String,
}

impl FromStr for Kind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        match text {
            "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            _ => Err(ParseKindError { found: text.to_owned() }),
        }
    }
}

/// The label of a slot's file system: `quorate-1`.
pub fn label(slot: Slot) -> String {
    format!("quorate-{slot}")
}

/// Makes a file system labelled for the slot, on a device that is probed once more and refused
/// unless it is blank. Nothing is discarded and nothing is forced.
pub async fn format(device: &Path, kind: Kind, slot: Slot) -> Result<(), FilesystemError> {
    match probe(device, Some(slot)).await? {
        Content::Blank => {}
        Content::Ours { kind, .. } => {
            let found = format!("a {kind} file system labelled {}", label(slot));
            return Err(FilesystemError::NotBlank { device: device.to_owned(), found });
        }
        Content::Foreign(found) => {
            return Err(FilesystemError::NotBlank { device: device.to_owned(), found });
        }
    }
    let label = label(slot);
    let (program, options) = match kind {
        // The primary superblock, and with it the label, is written last and after a sync, so
        // that what is cut off does not look like ours.
        Kind::Ext4 => ("mkfs.ext4", ["-q", "-m", "0", "-E", "nodiscard", "-L"].as_slice()),
        Kind::Xfs => ("mkfs.xfs", ["-q", "-K", "-L"].as_slice()),
    };
    let args = options.iter().map(AsRef::as_ref).chain([label.as_ref(), device.as_os_str()]);
    command::run(program, args, MAKE)
        .await
        .and_then(Finished::success)
        .map(drop)
        .map_err(|source| FilesystemError::Format { device: device.to_owned(), kind, source })
}

/// Mounts a device at `dir`, which is made when it is missing, for the whole machine.
pub async fn mount(root: &Root, device: &Path, kind: Kind, dir: &Path) -> Result<(), FilesystemError> {
    files::create_dir(dir, 0o755).map_err(FilesystemError::MountPoint)?;
    let args = ["-t", kind.as_str(), "-o", OPTIONS]
        .map(AsRef::as_ref)
        .into_iter()
        .chain([device.as_os_str(), dir.as_os_str()]);
    command::run_for_machine(root, "mount", args, MOUNT)
        .await
        .and_then(Finished::success)
        .map(drop)
        .map_err(|source| FilesystemError::Mount { device: device.to_owned(), dir: dir.to_owned(), source })
}

/// Unmounts what is mounted at `dir`.
pub async fn umount(root: &Root, dir: &Path) -> Result<(), FilesystemError> {
    command::run_for_machine(root, "umount", [dir], MOUNT)
        .await
        .and_then(Finished::success)
        .map(drop)
        .map_err(|source| FilesystemError::Unmount { dir: dir.to_owned(), source })
}

/// What is mounted at `dir`; `None` when certainly nothing is.
pub async fn mounted(dir: &Path) -> Result<Option<Mount>, FilesystemError> {
    let failed = |source| FilesystemError::Mounted { dir: dir.to_owned(), source };
    let args = ["--json", "--mountpoint"].map(AsRef::as_ref).into_iter();
    let args = args.chain([dir.as_os_str()]).chain(["-o", "SOURCE,FSTYPE,OPTIONS"].map(AsRef::as_ref));
    let finished = command::run("findmnt", args, LOOK).await.map_err(failed)?;
    let silent = finished.stdout.trim().is_empty() && finished.stderr.trim().is_empty();
    if finished.status.code() == Some(1) && silent {
        return Ok(None);
    }
    topmost(&finished.success().map_err(failed)?.stdout).map(Some)
}

/// Whether a device is larger than the file system of this kind on it, by more than a hundredth.
pub async fn can_grow(device: &Path, kind: Kind) -> Result<bool, FilesystemError> {
    let available = size(device.to_owned()).await?;
    let failed = |source| FilesystemError::Size { device: device.to_owned(), source };
    let used = match kind {
        Kind::Ext4 => {
            let args = ["-h".as_ref(), device.as_os_str()];
            let told = command::run("dumpe2fs", args, LOOK).await.and_then(Finished::success);
            ext4_size(&told.map_err(failed)?.stdout)
        }
        Kind::Xfs => {
            let told = command::run("xfs_info", [device], LOOK).await.and_then(Finished::success);
            xfs_size(&told.map_err(failed)?.stdout)
        }
    }?;
    Ok(available.saturating_sub(used) > available / 100)
}

/// Grows the file system on `device`, mounted at `dir`, to the device's size. The kernel lets only
/// those grow ext4 who have CAP_SYS_RESOURCE.
pub async fn grow(root: &Root, device: &Path, dir: &Path, kind: Kind) -> Result<(), FilesystemError> {
    let (program, what) = match kind {
        Kind::Ext4 => ("resize2fs", device),
        Kind::Xfs => ("xfs_growfs", dir),
    };
    command::run_for_machine(root, program, [what], MAKE)
        .await
        .and_then(Finished::success)
        .map(drop)
        .map_err(|source| FilesystemError::Grow { device: device.to_owned(), source })
}

/// The size of a device in bytes, by seeking to its end.
async fn size(device: PathBuf) -> Result<u64, FilesystemError> {
    blocking(device.clone(), move || {
        File::open(&device)
            .and_then(|mut file| file.seek(SeekFrom::End(0)))
            .map_err(|source| FilesystemError::Read { device, source })
    })
    .await
}

async fn blocking<T: Send + 'static>(
    device: PathBuf,
    work: impl FnOnce() -> Result<T, FilesystemError> + Send + 'static,
) -> Result<T, FilesystemError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|source| Err(FilesystemError::Thread { device, source }))
}

/// The size in bytes of an ext4 file system, of what `dumpe2fs -h` says.
fn ext4_size(said: &str) -> Result<u64, FilesystemError> {
    let number = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().parse::<u64>().ok())
    };
    number("Block count:")
        .zip(number("Block size:"))
        .and_then(|(count, size)| count.checked_mul(size))
        .ok_or_else(|| unparsable("dumpe2fs", said))
}

/// The size in bytes of an XFS file system's data section, of what `xfs_info` says.
fn xfs_size(said: &str) -> Result<u64, FilesystemError> {
    let data = said.lines().find(|line| line.starts_with("data")).unwrap_or_default();
    let number =
        |name: &str| data.split([' ', ',', '=']).skip_while(|word| *word != name).nth(1)?.parse::<u64>().ok();
    number("bsize")
        .zip(number("blocks"))
        .and_then(|(size, count)| count.checked_mul(size))
        .ok_or_else(|| unparsable("xfs_info", said))
}

fn unparsable(program: &'static str, said: &str) -> FilesystemError {
    FilesystemError::Unparsable { program, said: said.chars().take(200).collect() }
}

/// `findmnt --json`'s answer.
#[derive(Deserialize)]
struct Findmnt {
    filesystems: Vec<FindmntEntry>,
}

#[derive(Deserialize)]
struct FindmntEntry {
    source: String,
    options: String,
    #[serde(default)]
    children: Vec<FindmntEntry>,
}

/// The last of the mounts told, which covers the others.
fn topmost(said: &str) -> Result<Mount, FilesystemError> {
    let told: Findmnt = serde_json::from_str(said).map_err(|_| unparsable("findmnt", said))?;
    let mut level = &told.filesystems;
    let mut top = level.last().ok_or_else(|| unparsable("findmnt", said))?;
    while let Some(child) = top.children.last() {
        level = &top.children;
        top = level.last().unwrap_or(child);
    }
    Ok(Mount { source: top.source.clone(), read_only: is_read_only(&top.options) })
}

/// Whether no write can succeed: mounted so, or since the kernel found errors (`emergency_ro`,
/// which newer kernels' ext4 shows beside `rw`) or shut the file system down.
fn is_read_only(options: &str) -> bool {
    options.split(',').any(|option| matches!(option, "ro" | "emergency_ro" | "shutdown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_what_the_programs_say() {
        let said = "Filesystem volume name:   quorate-1\nBlock count:              65536\n\
                    Reserved block count:     0\nBlock size:               1024\n";
        assert_eq!(ext4_size(said).unwrap(), 64 * 1024 * 1024);
        let said = "meta-data=/dev/loop0             isize=512    agcount=4, agsize=19200 blks\n\
                    \x20        =                       sectsz=512   attr=2, projid32bit=1\n\
                    data     =                       bsize=4096   blocks=76800, imaxpct=25\n\
                    log      =internal log           bsize=4096   blocks=16384, version=2\n";
        assert_eq!(xfs_size(said).unwrap(), 300 * 1024 * 1024);
        assert!(ext4_size("").is_err());
        assert!(xfs_size("data = bsize=4096").is_err());
    }

    #[test]
    fn the_mount_that_covers_the_others_is_told() {
        let said = r#"{"filesystems": [
            {"source": "/dev/a", "fstype": "ext4", "options": "rw"},
            {"source": "/dev/b", "fstype": "ext4", "options": "ro",
             "children": [{"source": "/dev/c", "fstype": "ext4", "options": "rw,noatime"}]}
        ]}"#;
        assert_eq!(topmost(said).unwrap(), Mount { source: "/dev/c".to_owned(), read_only: false });
        for not_an_answer in ["", "{}", r#"{"filesystems": []}"#] {
            assert!(topmost(not_an_answer).is_err(), "{not_an_answer}");
        }
    }

    #[test]
    fn read_only_is_told_from_options_that_only_sound_so() {
        for options in ["ro,noatime", "noatime,ro", "rw,emergency_ro", "rw,shutdown"] {
            assert!(is_read_only(options), "{options}");
        }
        assert!(!is_read_only("rw,noatime,errors=remount-ro"));
    }

    #[test]
    fn only_file_systems_for_etcd_are_kinds() {
        for kind in [Kind::Ext4, Kind::Xfs] {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        assert!("btrfs".parse::<Kind>().is_err());
    }
}
