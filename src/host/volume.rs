//! What the etcd volume's file system holds: etcd's data, the stamp, the charter's copy.
//!
//! ```text
//! /var/lib/etcd/                 the volume's root
//!   quorate.json                 the stamp
//!   charter.json                 the charter's copy
//!   etcd/                        etcd's data directory
//!   etcd.aside-TIME-BECAUSE/     what was set aside
//!   restoring/                   where a restore works; what is in it is nobody's data
//! ```
//!
//! That the volume is mounted there is for the caller to know.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Root;
use super::files::{self, FileError};
use crate::model::{Charter, DataDir, Fact, Stamp, VolumeContents};

/// The stamp's name at the volume's root.
pub const STAMP: &str = "quorate.json";
/// The name of the charter's copy at the volume's root.
pub const CHARTER: &str = "charter.json";
/// The name of etcd's data directory at the volume's root.
pub const DATA: &str = "etcd";
/// How the names of data set aside begin.
const ASIDE: &str = "etcd.aside-";
/// The name of the directory in which a restore works, at the volume's root.
const RESTORING: &str = "restoring";
/// The file system's own directory.
const LOST_AND_FOUND: &str = "lost+found";

/// What could not be read from or written to the volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A directory of the volume was not listed.
    #[error("listing the etcd volume")]
    List(#[source] FileError),
    /// A file of the volume was not written.
    #[error("writing to the etcd volume")]
    Write(#[source] FileError),
    /// A value has no JSON form.
    #[error("encoding {name}")]
    Encode {
        /// The file.
        name: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// etcd's data were not renamed.
    #[error("setting etcd's data aside")]
    SetAside(#[source] FileError),
    /// The place is not there.
    #[error("{} is not there", path.display())]
    Missing {
        /// The place.
        path: PathBuf,
    },
}

impl VolumeError {
    /// Whether the same may go well later without anyone changing the machine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::List(error) | Self::Write(error) | Self::SetAside(error) => error.is_retryable(),
            Self::Encode { .. } | Self::Missing { .. } => false,
        }
    }

    /// Whether the volume has no room left.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::List(error) | Self::Write(error) | Self::SetAside(error) => error.is_disk_full(),
            Self::Encode { .. } | Self::Missing { .. } => false,
        }
    }
}

/// Where the volume is mounted.
pub fn mount_point(root: &Root) -> PathBuf {
    root.path("/var/lib/etcd")
}

/// Where etcd's data are.
pub fn data_dir(root: &Root) -> PathBuf {
    mount_point(root).join(DATA)
}

/// Where a restore works, on the volume mounted at `dir`.
pub fn restoring(dir: &Path) -> PathBuf {
    dir.join(RESTORING)
}

/// Of a volume's names the newest that was set aside for this reason.
pub fn aside_because<'a>(names: &'a [String], because: &str) -> Option<&'a String> {
    // The moment is the first thing in which they differ; a second one of the same moment has a number after it.
    let is_such = |name: &&String| {
        let reason = name.strip_prefix(ASIDE).and_then(|rest| rest.split_once('-')).map(|(_, reason)| reason);
        reason.is_some_and(|found| {
            found.strip_prefix(because).is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok())
            })
        })
    };
    names.iter().filter(is_such).max()
}

/// What the volume mounted at `dir` holds.
pub fn contents(dir: &Path) -> Result<VolumeContents, VolumeError> {
    let names = files::list_optional(dir)
        .map_err(VolumeError::List)?
        .ok_or_else(|| VolumeError::Missing { path: dir.to_owned() })?;
    Ok(VolumeContents {
        stamp: parsed(&dir.join(STAMP)),
        data: data(&dir.join(DATA))?,
        charter: parsed(&dir.join(CHARTER)),
        strangers: names.into_iter().filter(|name| is_stranger(name)).collect(),
    })
}

/// Writes the stamp.
pub fn write_stamp(dir: &Path, stamp: &Stamp) -> Result<(), VolumeError> {
    write(dir, STAMP, stamp)
}

/// Writes the charter's copy.
pub fn write_charter(dir: &Path, charter: &Charter) -> Result<(), VolumeError> {
    write(dir, CHARTER, charter)
}

/// Renames etcd's data directory aside and gives its new name; `None` when there is none.
/// `now` is in milliseconds since 1970.
pub fn set_aside(dir: &Path, because: &str, now: i64) -> Result<Option<PathBuf>, VolumeError> {
    let data = dir.join(DATA);
    match files::list_optional(dir).map_err(VolumeError::List)? {
        Some(names) if names.iter().any(|name| name == DATA) => {
            files::rename_aside(&data, because, now).map(Some).map_err(VolumeError::SetAside)
        }
        Some(_) => Ok(None),
        None => Err(VolumeError::Missing { path: dir.to_owned() }),
    }
}

fn is_stranger(name: &str) -> bool {
    !(matches!(name, STAMP | CHARTER | DATA | RESTORING | LOST_AND_FOUND)
        || name.starts_with(ASIDE)
        || files::is_temporary(name))
}

/// How much of etcd is in its data directory.
///
/// etcd makes `member/snap/db` first and the write-ahead log last, renamed into place as a whole,
/// so that without a log nothing was ever promised. A log of whatever name and a snapshot both
/// count as memory.
fn data(dir: &Path) -> Result<DataDir, VolumeError> {
    let list = |dir: PathBuf| files::list_optional(&dir).map_err(VolumeError::List);
    let within = list(dir.to_owned())?.unwrap_or_default();
    if within.is_empty() {
        return Ok(DataDir::Absent);
    }
    let log = list(dir.join("member/wal"))?.unwrap_or_default();
    let snapshots = list(dir.join("member/snap"))?.unwrap_or_default();
    let remembers = log.iter().any(|name| !has_suffix(name, "tmp"))
        || snapshots.iter().any(|name| name.contains(".snap"));
    Ok(if remembers { DataDir::Present } else { DataDir::Unborn })
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == suffix)
}

fn parsed<T: DeserializeOwned>(path: &Path) -> Fact<Option<T>> {
    match files::read_optional(path) {
        Ok(None) => Fact::Known(None),
        Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
            Ok(value) => Fact::Known(Some(value)),
            Err(error) => Fact::unknown(format!("{} is damaged: {error}", path.display())),
        },
        Err(error) => Err(error).into(),
    }
}

fn write<T: Serialize>(dir: &Path, name: &'static str, value: &T) -> Result<(), VolumeError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| VolumeError::Encode { name, source })?;
    bytes.push(b'\n');
    files::write_durably(&dir.join(name), &bytes, 0o644).map_err(VolumeError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StampState;
    use std::fs;

    fn stamp() -> Stamp {
        Stamp {
            cluster: "prod".parse().unwrap(),
            slot: 1.try_into().unwrap(),
            volume: "vol-0123456789abcdef0".parse().unwrap(),
            state: StampState::Formatted,
        }
    }

    fn charter() -> Charter {
        serde_json::from_value(serde_json::json!({
            "cluster": "prod",
            "uuid": "6f2b1c1e-8f3a-4b52-9f0e-2d7a5c3b1a90",
            "region": "eu-west-1",
            "generation": 1,
            "zones": ["eu-west-1a", "eu-west-1b", "eu-west-1c"],
            "founders": [],
            "nonce": "n",
        }))
        .unwrap()
    }

    fn touch(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    #[test]
    fn a_new_file_system_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let nothing = VolumeContents {
            stamp: Fact::Known(None),
            data: DataDir::Absent,
            charter: Fact::Known(None),
            strangers: vec![],
        };
        assert_eq!(contents(dir.path()).unwrap(), nothing);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        write_stamp(dir.path(), &stamp()).unwrap();
        write_charter(dir.path(), &charter()).unwrap();
        let contents = contents(dir.path()).unwrap();
        assert_eq!(contents.stamp, Fact::Known(Some(stamp())));
        assert_eq!(contents.charter, Fact::Known(Some(charter())));
        assert_eq!(contents.strangers, Vec::<String>::new());
    }

    #[test]
    fn a_damaged_stamp_is_not_a_missing_one() {
        for damaged in ["", "{", "{}", "null"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(STAMP), damaged).unwrap();
            fs::write(dir.path().join(CHARTER), damaged).unwrap();
            let contents = contents(dir.path()).unwrap();
            assert!(!contents.stamp.is_known(), "{damaged:?}: {:?}", contents.stamp);
            assert!(!contents.charter.is_known(), "{damaged:?}: {:?}", contents.charter);
        }
    }

    #[test]
    fn etcd_s_memory_is_its_log_or_a_snapshot() {
        let table: &[(&[&str], DataDir)] = &[
            (&["etcd/member/snap/db"], DataDir::Unborn),
            (
                &["etcd/member/snap/db", "etcd/member/wal.tmp/0000000000000000-0000000000000000.wal"],
                DataDir::Unborn,
            ),
            (&["etcd/member/wal/0.tmp"], DataDir::Unborn),
            (&["etcd/member/wal/0000000000000000-0000000000000000.wal"], DataDir::Present),
            (&["etcd/member/wal/0000000000000000-0000000000000000.wal.broken"], DataDir::Present),
            (&["etcd/member/snap/0000000000000001-0000000000000002.snap"], DataDir::Present),
        ];
        for (paths, data) in table {
            let dir = tempfile::tempdir().unwrap();
            for path in *paths {
                touch(dir.path().join(path));
            }
            assert_eq!(contents(dir.path()).unwrap().data, *data, "{paths:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DATA)).unwrap();
        assert_eq!(contents(dir.path()).unwrap().data, DataDir::Absent, "an empty directory");
    }

    #[test]
    fn strangers_are_neither_ours_nor_the_file_system_s() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "etcd.aside-20261122T180000Z-removed",
            ".quorate.json.quorate-new",
            "lost+found",
            "notes.txt",
            "member",
        ] {
            touch(dir.path().join(name));
        }
        assert_eq!(contents(dir.path()).unwrap().strangers, ["member", "notes.txt"]);
    }

    #[test]
    fn what_cannot_be_listed_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(contents(&dir.path().join("nowhere")).is_err());
        fs::write(dir.path().join(DATA), "not a directory").unwrap();
        assert!(matches!(contents(dir.path()), Err(VolumeError::List(_))));
    }

    #[test]
    fn data_are_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path().join("etcd/member/wal/0.wal"));
        let aside = set_aside(dir.path(), "removed", 0).unwrap().unwrap();
        assert!(aside.join("member/wal/0.wal").exists());
        assert_eq!(set_aside(dir.path(), "removed", 0).unwrap(), None);
        assert_eq!(contents(dir.path()).unwrap().data, DataDir::Absent);
        assert_eq!(contents(dir.path()).unwrap().strangers, Vec::<String>::new());
        assert!(set_aside(&dir.path().join("nowhere"), "removed", 0).is_err());
    }
}
