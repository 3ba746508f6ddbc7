//! The configuration on disk, and what it was made from.
//!
//! What decides an etcd process's part, the launch, stands in the first line of the very file that
//! etcd reads, as a comment with JSON in it. So there is one file and one rename, and no moment at
//! which the record and the configuration tell of different launches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::files::{FileError, NewFile, create_dir, write_set};
use crate::model::EtcdLaunch;

/// The file's name in its directory.
pub const CONFIG_FILE: &str = "etcd.yaml";

const RECORD: &str = "# quorate-launch: ";

/// The configuration could not be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// It is there and can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not begin with the record of its launch: somebody else wrote it.
    #[error("{} does not say what it was made from: it is not quorate's, or was changed", path.display())]
    NoRecord {
        /// The file.
        path: PathBuf,
    },
    /// The record of its launch is damaged.
    #[error("{} does not say correctly what it was made from", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Writes the configuration that was rendered from a launch, durably, into `dir`, which is made when
/// it is missing.
pub fn write(dir: &Path, launch: &EtcdLaunch, rendered: &str) -> Result<(), LaunchError> {
    let path = dir.join(CONFIG_FILE);
    let record = serde_json::to_string(launch).map_err(|source| LaunchError::Record { path, source })?;
    let text = format!("{RECORD}{record}\n{rendered}");
    create_dir(dir, 0o755)?;
    write_set(dir, &[NewFile { name: CONFIG_FILE, bytes: text.as_bytes(), mode: 0o644 }])?;
    Ok(())
}

/// What etcd was last configured for; `None` when it never was.
pub fn read(dir: &Path) -> Result<Option<EtcdLaunch>, LaunchError> {
    let path = dir.join(CONFIG_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LaunchError::Read { path, source }),
    };
    let Some(record) = text.lines().next().and_then(|line| line.strip_prefix(RECORD)) else {
        return Err(LaunchError::NoRecord { path });
    };
    serde_json::from_str(record).map(Some).map_err(|source| LaunchError::Record { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, LaunchState};

    fn launch(generation: u64) -> EtcdLaunch {
        EtcdLaunch {
            slot: 1.try_into().unwrap(),
            uuid: "0d8f6a10-1111-4222-8333-444455556666".parse().unwrap(),
            generation: Generation(generation),
            address: [10, 0, 0, 1].into(),
            state: LaunchState::New,
            initial_cluster: vec![("etcd-1".into(), "https://10.0.0.1:2380".into())],
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_etcd_sees_a_comment() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("etcd");
        assert_eq!(read(&dir).unwrap(), None);
        for generation in [1, 2] {
            write(&dir, &launch(generation), "name: etcd-1\n").unwrap();
            assert_eq!(read(&dir).unwrap(), Some(launch(generation)));
        }
        let file: serde_json::Value =
            serde_saphyr::from_str(&fs::read_to_string(dir.join(CONFIG_FILE)).unwrap()).unwrap();
        assert_eq!(file, serde_json::json!({ "name": "etcd-1" }));
    }

    #[test]
    fn a_file_that_does_not_say_what_it_was_made_from_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG_FILE);
        fs::write(&path, "name: etcd-1\n").unwrap();
        assert!(matches!(read(dir.path()), Err(LaunchError::NoRecord { .. })));
        fs::write(&path, "").unwrap();
        assert!(matches!(read(dir.path()), Err(LaunchError::NoRecord { .. })));
        fs::write(&path, format!("{RECORD}{{\"slot\":1")).unwrap();
        assert!(matches!(read(dir.path()), Err(LaunchError::Record { .. })));
    }
}
