//! The configuration under which a backup was made. It lies beside the snapshot, so that what the machines were told is
//! known when nothing but the bucket is left, and a restore under another one is said to be that.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::BackupError;
use super::read;
use crate::aws::{ObjectStore, Written};
use crate::config::settings::Settings;
use crate::digest::sha256;
use crate::model::{BackupKey, BackupPart, ChainName, ClusterUuid, Manifest};

/// The settings of a machine, as they are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    json: Vec<u8>,
    fingerprint: String,
}

impl Configuration {
    /// What these settings are.
    ///
    /// # Errors
    /// They have no JSON form.
    pub fn of(settings: &Settings) -> Result<Self, BackupError> {
        let json = serde_json::to_vec_pretty(settings).map_err(BackupError::json("the settings"))?;
        Ok(Self { fingerprint: sha256(&json), json })
    }

    /// The SHA-256 of it, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Puts it beside the snapshot of a chain.
    ///
    /// # Errors
    /// It is not in S3, or another one is.
    pub async fn put(&self, objects: &ObjectStore, chain: &ChainName) -> Result<(), BackupError> {
        let key = key(chain);
        match objects.create(&key, self.json.clone()).await? {
            Written::Yes(_) => Ok(()),
            Written::No => Err(BackupError::Overtaken { object: objects.url(&key) }),
        }
    }
}

/// What these settings have in another way than a backup's, a line for each setting.
///
/// # Errors
/// The backup's can't be had.
pub async fn changed_since(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    chain: &ChainName,
    settings: &Settings,
) -> Result<Vec<String>, BackupError> {
    let manifest = read::named_manifest(objects, uuid, chain).await?;
    let now = Configuration::of(settings)?;
    if manifest.configuration.as_ref() == Some(&now.fingerprint) {
        return Ok(Vec::new());
    }
    let Some(then) = of_backup(objects, &manifest).await? else {
        return Ok(vec!["nothing says how the machine was configured that made the backup".to_owned()]);
    };
    let now = serde_json::from_slice(&now.json).map_err(BackupError::json("the settings"))?;
    Ok(differences(&then, &now))
}

fn key(chain: &ChainName) -> String {
    BackupKey { chain: chain.clone(), part: BackupPart::Configuration }.to_string()
}

/// The configuration of a backup, which is what the manifest says; `None` where it names none.
///
/// # Errors
/// It is missing or damaged, or S3 gives no answer.
pub async fn of_backup(objects: &ObjectStore, manifest: &Manifest) -> Result<Option<Value>, BackupError> {
    let Some(expected) = &manifest.configuration else { return Ok(None) };
    let key = key(&manifest.chain);
    let missing = || BackupError::Missing { object: objects.url(&key) };
    let damaged = |why: String| BackupError::Damaged { object: objects.url(&key), why };
    let bytes = objects.get(&key).await?.ok_or_else(missing)?.bytes;
    let found = sha256(&bytes);
    if found != *expected {
        return Err(damaged(format!("its SHA-256 is {found}, expected {expected}")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
}

/// The settings that are not the same, by their paths.
fn differences(then: &Value, now: &Value) -> Vec<String> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    leaves("", then, &mut before);
    leaves("", now, &mut after);
    let unset = &Value::Null;
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .filter_map(|path| {
            let (then, now) = (before.get(path).unwrap_or(&unset), after.get(path).unwrap_or(&unset));
            (then != now).then(|| format!("{path} was {then}, and is {now}"))
        })
        .collect()
}

fn leaves<'a>(path: &str, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{name}"), value, found);
            }
        }
        // A list is one setting.
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_another_is_named_by_its_path() {
        let then = json!({ "etcd": { "quota": 8, "zones": ["a", "b"], "size": 3 }, "tick": 30, "gone": 1 });
        let now = json!({ "etcd": { "quota": 4, "zones": ["a"], "size": 3 }, "tick": 30, "new": null });
        assert_eq!(
            differences(&then, &now),
            [
                "etcd.quota was 8, and is 4",
                "etcd.zones was [\"a\",\"b\"], and is [\"a\"]",
                "gone was 1, and is null"
            ]
        );
        assert_eq!(differences(&then, &then), Vec::<String>::new());
    }
}
