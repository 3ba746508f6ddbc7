//! Shipping: etcd's changes are sealed into segments and put into S3 as they happen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::BackupError;
use super::segment::{self, Link, Operation, Revision};
use crate::aws::{ObjectStore, Written};
use crate::etcd::streams::{Change, Changes};
use crate::etcd::{BACKUP_WANTED, ClusterClient, LockName};
use crate::host::clock;
use crate::model::ChainName;

/// How many bytes of changes are held at most before they are sealed.
const LARGE: usize = 4 << 20;
/// How long is waited between two attempts at S3, in milliseconds: at first, and at most.
const RETRY: (u64, u64) = (250, 10_000);
/// How many leases' times to live are remembered.
const LEASES: usize = 10_000;

/// How far a chain has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// The chain.
    pub chain: ChainName,
    /// How many segments it has.
    pub segments: u32,
    /// The last revision that is in S3.
    pub revision: i64,
    /// When the oldest change was seen that is not in S3, in milliseconds since 1970; `None` when all are.
    pub unshipped_since: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// What one chain is shipped with, and what is told meanwhile.
#[derive(Clone)]
pub struct Shipping {
    /// S3.
    pub objects: ObjectStore,
    /// etcd.
    pub etcd: Arc<ClusterClient>,
    /// The member whose changes are shipped.
    pub url: String,
    /// For how long changes are held at most before they are sealed.
    pub every: Duration,
    /// How far each chain is.
    pub shipped: Arc<Mutex<BTreeMap<ChainName, Shipped>>>,
    /// Told when somebody asks for a snapshot.
    pub wanted: Arc<Notify>,
}

/// What is not sealed yet.
#[derive(Default)]
struct Held {
    revisions: Vec<Revision>,
    bytes: usize,
    since: Option<Instant>,
    /// Whether it is to be sealed at once: a change of membership is about to be made.
    urgent: bool,
}

impl Held {
    fn take(&mut self, changes: Vec<Change>, now: i64, at: Instant) {
        for change in changes {
            let Change { revision, key, value, lease } = change;
            self.urgent |= key == LockName::Membership.key().as_bytes() && value.is_some();
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 32;
            let deleted = value.is_none();
            let operation = Operation { key, value: value.unwrap_or_default(), lease, deleted };
            match self.revisions.last_mut() {
                Some(last) if last.revision == revision => last.operations.push(operation),
                Some(_) | None => {
                    self.revisions.push(Revision { revision, seen: now, operations: vec![operation] });
                }
            }
        }
        self.since.get_or_insert(at);
    }

    fn is_due(&self, every: Duration, at: Instant) -> bool {
        let is_old = |since: Instant| at.saturating_duration_since(since) >= every;
        self.since.is_some_and(|since| self.urgent || self.bytes >= LARGE || is_old(since))
    }
}

impl Shipping {
    /// Ships what follows, for as long as it can.
    pub async fn ship(&self, link: Link) -> BackupError {
        match self.ship_on(link).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn ship_on(&self, mut link: Link) -> Result<std::convert::Infallible, BackupError> {
        let mut changes = self.etcd.changes(&self.url, link.revision).await?;
        let mut granted = BTreeMap::new();
        let mut held = Held::default();
        self.note(&link, &held, None);
        loop {
            if held.is_due(self.every, Instant::now()) {
                link = self.put(link, &held, &mut changes, &mut granted).await?;
                held = Held::default();
                self.note(&link, &held, None);
                continue;
            }
            let due = held.since.map(|since| since + self.every);
            let next = tokio::select! {
                next = changes.next() => next?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            if next.iter().any(|change| change.key == BACKUP_WANTED.as_bytes() && change.value.is_some()) {
                self.wanted.notify_one();
            }
            let was_empty = held.since.is_none();
            held.take(next, clock::now_ms(), Instant::now());
            if was_empty {
                self.note(&link, &held, None);
            }
        }
    }

    /// Seals what is held and puts it into S3, however long S3 refuses.
    async fn put(
        &self,
        link: Link,
        held: &Held,
        changes: &mut Changes,
        granted: &mut BTreeMap<i64, i64>,
    ) -> Result<Link, BackupError> {
        let leases = self.leases(held, changes, granted).await?;
        let (bytes, next) =
            segment::seal(&link, &held.revisions, leases, clock::now_ms()).map_err(BackupError::Seal)?;
        let key = next.chain.segment(next.segments);
        let mut wait = RETRY.0;
        loop {
            match self.objects.create(&key, bytes.clone()).await {
                Ok(Written::Yes(_)) => return Ok(next),
                Ok(Written::No) => return Err(BackupError::Overtaken { object: self.objects.url(&key) }),
                Err(error) => {
                    self.note(&link, held, Some(crate::model::fact::chain(&error)));
                    sleep(Duration::from_millis(fastrand::u64(wait / 2..=wait))).await;
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }

    /// The times to live of the leases that are named, as far as they still are.
    async fn leases(
        &self,
        held: &Held,
        changes: &mut Changes,
        granted: &mut BTreeMap<i64, i64>,
    ) -> Result<BTreeMap<i64, i64>, BackupError> {
        if granted.len() > LEASES {
            granted.clear();
        }
        let mut named = BTreeMap::new();
        let operations = held.revisions.iter().flat_map(|revision| &revision.operations);
        for lease in operations.map(|operation| operation.lease).filter(|lease| *lease != 0) {
            if named.contains_key(&lease) {
                continue;
            }
            let ttl = match granted.get(&lease).copied() {
                Some(ttl) => Some(ttl),
                None => changes.granted(lease).await?,
            };
            if let Some(ttl) = ttl {
                granted.insert(lease, ttl);
                named.insert(lease, ttl);
            }
        }
        Ok(named)
    }

    fn note(&self, link: &Link, held: &Held, error: Option<String>) {
        let shipped = Shipped {
            chain: link.chain.clone(),
            segments: link.segments,
            revision: link.revision,
            unshipped_since: held.revisions.first().map(|revision| revision.seen),
            error,
        };
        self.all().insert(link.chain.clone(), shipped);
    }

    /// How far each chain is.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<ChainName, Shipped>> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.shipped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: i64, key: &str) -> Change {
        Change { revision, key: key.into(), value: Some(b"v".to_vec()), lease: 0 }
    }

    #[test]
    fn what_is_held_is_due_after_its_time_when_it_is_much_and_before_a_change_of_members() {
        let every = Duration::from_secs(5);
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut held = Held::default();
        assert!(!held.is_due(every, after(3600)), "there is nothing");
        held.take(vec![change(1, "a"), change(1, "b"), change(2, "a")], 7, began);
        assert_eq!(held.revisions.iter().map(|r| r.operations.len()).collect::<Vec<_>>(), [2, 1]);
        held.take(vec![change(3, "a")], 8, after(3));
        assert!(!held.is_due(every, after(4)));
        assert!(held.is_due(every, after(5)), "the oldest counts");

        let mut large = Held::default();
        large.take(vec![Change { value: Some(vec![0; LARGE]), ..change(1, "a") }], 7, began);
        assert!(large.is_due(every, began));
        let mut urgent = Held::default();
        urgent.take(vec![change(1, LockName::Membership.key())], 7, began);
        assert!(urgent.is_due(every, began));
    }
}
