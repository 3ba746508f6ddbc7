//! The notes of which configuration a service was last started with, one file a service.
//!
//! They lie with the agent's state and outlive a boot: what they say of a service that does not run is of no
//! account, and one that runs was started by an agent that wrote its note.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ServiceError;
use crate::host::Root;
use crate::host::files;
use crate::model::ServiceName;

/// Where they are.
const RECORDS: &str = "/var/lib/quorate/services";

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Record {
    /// The digest of the configuration.
    pub configuration: String,
    /// When it was started with it, in milliseconds since 1970.
    pub since: i64,
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Records(PathBuf);

impl Records {
    pub fn of(root: &Root) -> Self {
        Self(root.path(RECORDS))
    }

    /// A service's note; `None` when there is none. A damaged one is none, too: whoever can't tell what a service
    /// runs with starts it anew, which mends the note.
    pub fn read(&self, service: ServiceName) -> Result<Option<Record>, ServiceError> {
        let path = self.path(service);
        let failed = |source| ServiceError::Note { service, source };
        let Some(bytes) = files::read_optional(&path).map_err(failed)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a service's note is damaged");
                Ok(None)
            }
        }
    }

    pub fn write(&self, service: ServiceName, record: &Record) -> Result<(), ServiceError> {
        let path = self.path(service);
        let bytes = serde_json::to_vec_pretty(record)
            .map_err(|source| ServiceError::NoteDamaged { path: path.clone(), source })?;
        files::create_dir(&self.0, 0o755)
            .and_then(|()| files::write_durably(&path, &bytes, 0o644))
            .map_err(|source| ServiceError::Note { service, source })
    }

    fn path(&self, service: ServiceName) -> PathBuf {
        self.0.join(format!("{service}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_note_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(&Root::new(dir.path()));
        let record = Record { configuration: "a".to_owned(), since: 7 };
        assert_eq!(records.read(ServiceName::Kubelet).unwrap(), None);
        records.write(ServiceName::Kubelet, &record).unwrap();
        assert_eq!(records.read(ServiceName::Kubelet).unwrap(), Some(record));
        assert_eq!(records.read(ServiceName::KubeProxy).unwrap(), None);
        std::fs::write(records.path(ServiceName::Kubelet), "{").unwrap();
        assert_eq!(records.read(ServiceName::Kubelet).unwrap(), None);
    }
}
