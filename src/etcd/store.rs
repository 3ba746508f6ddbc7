//! What quorate keeps in etcd: the charter's copy, who holds which slot, the locks, and which
//! authorities Kubernetes was made with.
//!
//! | key | value |
//! |---|---|
//! | `/quorate/charter` | the charter, JSON |
//! | `/quorate/slots/N` | slot N's [`SlotRecord`], JSON |
//! | `/quorate/membership` | the instance that changes the members, as text, on a lease |
//! | `/quorate/control-plane` | the instance that changes its control plane, as text, on a lease |
//! | `/quorate/authorities` | the fingerprint of Kubernetes' authorities, as text |
//! | `/quorate/hashes` | the last two comparisons of the members' hashes, JSON |
//! | `/quorate/backups` | the instance that keeps the backups, as text, on a lease |
//! | `/quorate/backup-wanted` | put when somebody asks for a snapshot; the value says when |

use std::collections::BTreeMap;

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};

use super::client::{ClusterClient, Look};
use super::connection::CALL;
use super::error::EtcdError;
use crate::model::{Charter, Comparisons, InstanceId, Slot, SlotRecord};

/// All that is quorate's.
pub(super) const PREFIX: &str = "/quorate/";
/// The charter's copy.
pub(super) const CHARTER: &str = "/quorate/charter";
/// The fingerprint of Kubernetes' authorities.
pub(super) const AUTHORITIES: &str = "/quorate/authorities";
/// The last comparisons of the members' hashes.
pub(super) const HASHES: &str = "/quorate/hashes";
/// Put when somebody asks for a snapshot.
pub const BACKUP_WANTED: &str = "/quorate/backup-wanted";
const SLOTS: &str = "/quorate/slots/";

/// The content of the prefix at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Store {
    /// The charter's copy.
    pub charter: Option<Charter>,
    /// The revision at which the copy was written; 0 when there is none.
    pub charter_revision: i64,
    /// Who holds which slot.
    pub records: BTreeMap<Slot, SlotRecord>,
    /// The revision at which each record was written.
    record_revisions: BTreeMap<Slot, i64>,
    /// The locks that are held.
    pub locks: BTreeMap<LockName, Lock>,
    /// The fingerprint of Kubernetes' authorities.
    pub authorities: Option<String>,
    /// The last comparisons of the members' hashes.
    pub compared: Option<Comparisons>,
}

/// What only one instance does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockName {
    /// Changes of the members.
    Membership,
    /// Changes of what runs on a control-plane node.
    ControlPlane,
    /// The keeping of backups.
    Backups,
}

impl LockName {
    const ALL: [Self; 3] = [Self::Membership, Self::ControlPlane, Self::Backups];

    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            Self::Membership => "/quorate/membership",
            Self::ControlPlane => "/quorate/control-plane",
            Self::Backups => "/quorate/backups",
        }
    }

    /// How long it outlives its holder, in seconds. A component is given at most eight minutes to
    /// get ready.
    pub fn lease(self) -> i64 {
        match self {
            Self::Membership => 60,
            Self::ControlPlane => 600,
            Self::Backups => 15,
        }
    }
}

/// A lock, as it stands in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    /// Who holds it.
    pub holder: InstanceId,
    /// On which lease; 0 is none.
    pub lease: i64,
}

/// One key and its value.
pub(super) struct Entry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub mod_revision: i64,
    pub lease: i64,
}

impl<'a> From<&'a KeyValue> for Entry<'a> {
    fn from(kv: &'a KeyValue) -> Self {
        Self { key: kv.key(), value: kv.value(), mod_revision: kv.mod_revision(), lease: kv.lease() }
    }
}

impl Store {
    /// Reads the prefix. Keys that are not known are somebody else's affair; a known one with a
    /// damaged value is an error, never an absent one.
    pub fn read<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Result<Self, EtcdError> {
        let mut store = Self::default();
        for Entry { key, value, mod_revision, lease } in entries {
            let key = String::from_utf8_lossy(key);
            let damaged = |found: String| EtcdError::Content { key: key.to_string(), found };
            if key == CHARTER {
                let charter = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
                store.charter = Some(charter);
                store.charter_revision = mod_revision;
            } else if key == AUTHORITIES {
                let text = String::from_utf8(value.to_vec());
                store.authorities = Some(text.map_err(|error| damaged(error.to_string()))?);
            } else if key == HASHES {
                // Nothing hangs on it but when the next is due: one that can't be read is made anew.
                store.compared = serde_json::from_slice(value)
                    .inspect_err(|error| tracing::warn!(%error, "the record of hashes in etcd is damaged"))
                    .ok();
            } else if let Some(name) = LockName::ALL.into_iter().find(|name| key == name.key()) {
                let holder = String::from_utf8_lossy(value)
                    .parse()
                    .map_err(|error: crate::model::ids::ParseIdError| damaged(error.to_string()))?;
                store.locks.insert(name, Lock { holder, lease });
            } else if let Some(slot) = key.strip_prefix(SLOTS) {
                let slot = slot.parse().map_err(|_| damaged("not a slot's number".to_owned()))?;
                let record = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
                store.records.insert(slot, record);
                store.record_revisions.insert(slot, mod_revision);
            }
        }
        Ok(store)
    }
}

impl ClusterClient {
    /// Keeps who holds a slot, if its record is still the one that was read, or is what it is to be already.
    pub async fn record_slot(
        &self,
        slot: Slot,
        from: Option<&SlotRecord>,
        record: &SlotRecord,
    ) -> Result<(), EtcdError> {
        let key = format!("{SLOTS}{slot}");
        let value = encode(&key, record)?;
        let Look { endpoint, store, .. } = self.look().await?;
        let found = store.records.get(&slot);
        if found == Some(record) {
            return Ok(());
        }
        if found != from {
            return Err(EtcdError::Raced { key });
        }
        let revision = store.record_revisions.get(&slot).copied().unwrap_or_default();
        let txn = Txn::new()
            .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)])
            .and_then([TxnOp::put(key.as_str(), value, None)]);
        let mut kv = endpoint.client.kv_client();
        let done = self.connections.call("recording a slot", &endpoint.url, CALL, kv.txn(txn)).await?;
        if done.succeeded() { Ok(()) } else { Err(EtcdError::Raced { key }) }
    }

    /// Asks whoever keeps the backups for a snapshot, and gives the revision at which that was asked. `now` is in
    /// milliseconds since 1970.
    pub async fn want_backup(&self, now: i64) -> Result<i64, EtcdError> {
        const OPERATION: &str = "asking for a snapshot";
        let Look { endpoint, .. } = self.look().await?;
        let mut kv = endpoint.client.kv_client();
        let put = kv.put(BACKUP_WANTED, now.to_string(), None);
        let put = self.connections.call(OPERATION, &endpoint.url, CALL, put).await?;
        Ok(put.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Writes down which authorities Kubernetes was made with. What is written is never replaced.
    pub async fn record_authorities(&self, fingerprint: &str) -> Result<(), EtcdError> {
        let look = self.look().await?;
        let txn = Txn::new()
            .when([Compare::version(AUTHORITIES, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(AUTHORITIES, fingerprint, None)]);
        let mut kv = look.endpoint.client.kv_client();
        let url = &look.endpoint.url;
        let done = self.connections.call("recording the authorities", url, CALL, kv.txn(txn)).await?;
        if done.succeeded() || look.store.authorities.as_deref() == Some(fingerprint) {
            Ok(())
        } else {
            Err(EtcdError::Raced { key: AUTHORITIES.to_owned() })
        }
    }

    /// Copies the charter into etcd. A copy of a later generation or of another cluster is never
    /// replaced, whatever happens between reading and writing.
    ///
    /// Where a generation is expected, endpoints whose copy is of another one are passed over here
    /// too: an older cluster that still runs somewhere must not be made to look like this one.
    pub async fn copy_charter(&self, charter: &Charter) -> Result<(), EtcdError> {
        let value = encode(CHARTER, charter)?;
        let Look { endpoint, store, .. } = self.look().await?;
        if let Some(copy) = store.charter {
            if copy.uuid != charter.uuid {
                return Err(EtcdError::ForeignCharter { found: copy.uuid, given: charter.uuid.clone() });
            }
            if copy.generation > charter.generation {
                return Err(EtcdError::LaterCharter { found: copy.generation, given: charter.generation });
            }
            if copy == *charter {
                return Ok(());
            }
        }
        let txn = Txn::new()
            .when([Compare::mod_revision(CHARTER, CompareOp::Equal, store.charter_revision)])
            .and_then([TxnOp::put(CHARTER, value, None)]);
        let mut kv = endpoint.client.kv_client();
        let done = self.connections.call("copying the charter", &endpoint.url, CALL, kv.txn(txn)).await?;
        if done.succeeded() { Ok(()) } else { Err(EtcdError::Raced { key: CHARTER.to_owned() }) }
    }
}

pub(super) fn encode(key: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, EtcdError> {
    serde_json::to_vec(value).map_err(|source| EtcdError::Encode { key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<Store, EtcdError> {
        Store::read(entries.iter().map(|(key, value)| Entry {
            key: key.as_bytes(),
            value: value.as_bytes(),
            mod_revision: 7,
            lease: 9,
        }))
    }

    #[test]
    fn what_is_known_is_read_and_what_is_not_is_left_alone() {
        let record = r#"{"volume":"vol-00000001","instance":"i-00000001","peerUrl":"u","member":"1f"}"#;
        let store = read(&[
            (LockName::Membership.key(), "i-00000002"),
            ("/quorate/slots/3", record),
            ("/quorate/tomorrow", "something new"),
            (HASHES, "damaged"),
        ])
        .unwrap();
        let held = Lock { holder: "i-00000002".parse().unwrap(), lease: 9 };
        assert_eq!(store.locks, BTreeMap::from([(LockName::Membership, held)]));
        let slots: Vec<_> =
            store.records.iter().map(|(slot, record)| (slot.number(), record.member)).collect();
        assert_eq!(slots, [(3, Some(crate::model::MemberId(0x1f)))]);
        assert_eq!((store.charter, store.charter_revision, store.compared), (None, 0, None));
    }

    #[test]
    fn a_damaged_value_is_an_error_and_never_an_absent_one() {
        for (key, value) in [
            (CHARTER, "{}"),
            (CHARTER, ""),
            (LockName::ControlPlane.key(), "nobody"),
            ("/quorate/slots/1", "null"),
            ("/quorate/slots/9", "{}"),
            ("/quorate/slots/", "{}"),
        ] {
            match read(&[(key, value)]) {
                Err(EtcdError::Content { key: named, .. }) => assert_eq!(named, key),
                other => panic!("{key} {value}: {other:?}"),
            }
        }
    }
}
