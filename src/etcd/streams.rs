//! What etcd sends as a stream: a snapshot of its database, and the changes since a revision.
//!
//! Both come from one member, over a connection of their own: a stream lasts longer than any call may. That a member is
//! gone without a word is noticed by HTTP/2's own questions.

use std::time::Duration;

use etcd_client::{EventType, GetOptions, LeaseTimeToLiveOptions, WatchOptions};

use super::client::{ClusterClient, identity, malformed};
use super::connection::{CALL, Endpoint};
use super::error::{Cause, EtcdError};
use crate::model::MemberId;

/// The largest message that is taken. A change is at most as large as one transaction; of many that wait etcd puts a
/// thousand into one message.
const LARGEST_MESSAGE: usize = 1 << 30;
/// How long nothing may come of a snapshot before it is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// How long counting all keys may take.
const COUNT: Duration = Duration::from_secs(30);

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision that it is a part of.
    pub revision: i64,
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
    /// The lease that it is on; 0 is none.
    pub lease: i64,
}

/// The changes of all keys since a revision, in order and without a gap.
pub struct Changes {
    endpoint: Endpoint,
    stream: etcd_client::WatchStream,
    /// The last revision that came.
    last: i64,
}

/// Why no more changes come.
#[derive(Debug, thiserror::Error)]
pub enum ChangesEnd {
    /// What comes next was compacted: the changes since are not to be had any more.
    #[error("etcd has compacted its history up to revision {at}, and revision {wanted} was to come next")]
    Compacted {
        /// The oldest revision that can be had.
        at: i64,
        /// The one that was due.
        wanted: i64,
    },
    /// A revision is missing, or one too many.
    #[error("etcd sent revision {found} after {last}")]
    Gap {
        /// The one that came.
        found: i64,
        /// The last one before.
        last: i64,
    },
    /// The stream broke off.
    #[error("etcd's changes broke off")]
    Broken(#[source] EtcdError),
}

/// A snapshot of a member's database, in pieces, with the SHA-256 of the database as its last 32 bytes.
pub struct Snapshot {
    url: String,
    stream: etcd_client::SnapshotStreaming,
    left: u64,
}

/// What a member says of its history at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The member.
    pub member: MemberId,
    /// The last revision that it has applied.
    pub revision: i64,
    /// How many keys there are at that revision.
    pub keys: u64,
    /// Its version of etcd.
    pub version: String,
}

impl ClusterClient {
    /// Where a member stands.
    pub async fn standing(&self, url: &str) -> Result<Standing, EtcdError> {
        const OPERATION: &str = "counting the keys";
        let endpoint = self.connections.patient(url, COUNT).await?;
        let mut maintenance = endpoint.client.maintenance_client();
        let status = self.connections.call("asking for its status", url, CALL, maintenance.status()).await?;
        let mut kv = endpoint.client.kv_client();
        // The member's own word is asked for, not the cluster's: the snapshot and the changes are its own.
        let options = GetOptions::new().with_all_keys().with_count_only().with_serializable();
        let counted = self.connections.call(OPERATION, url, COUNT, kv.get("", Some(options))).await?;
        let (_, member) = identity(OPERATION, url, counted.header())?;
        let revision = counted.header().map_or(0, etcd_client::ResponseHeader::revision);
        let keys = u64::try_from(counted.count()).map_err(|_| negative(OPERATION, url))?;
        Ok(Standing { member, revision, keys, version: status.version().to_owned() })
    }

    /// A snapshot of a member's database.
    pub async fn snapshot(&self, url: &str) -> Result<Snapshot, EtcdError> {
        let endpoint = self.connections.patient(url, SILENCE).await?;
        let mut maintenance = endpoint.client.maintenance_client();
        let stream =
            self.connections.call("beginning a snapshot", url, SILENCE, maintenance.snapshot()).await?;
        Ok(Snapshot { url: url.to_owned(), stream, left: u64::MAX })
    }

    /// The changes after a revision, as a member applies them.
    pub async fn changes(&self, url: &str, after: i64) -> Result<Changes, EtcdError> {
        let endpoint = self.connections.lasting(url).await?;
        let mut watch = endpoint.client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
        let options = WatchOptions::new().with_all_keys().with_start_revision(after.saturating_add(1));
        let watched = watch.watch("", Some(options));
        let stream = self.connections.call("watching for changes", url, CALL, watched).await?;
        Ok(Changes { endpoint, stream, last: after })
    }
}

impl Changes {
    /// The next changes, which end with a whole revision. It waits until there are any, and may be given up and called
    /// again.
    ///
    /// # Errors
    /// There are no more to come from this stream.
    pub async fn next(&mut self) -> Result<Vec<Change>, ChangesEnd> {
        const OPERATION: &str = "watching for changes";
        let url = &self.endpoint.url;
        let broken = |source| {
            ChangesEnd::Broken(EtcdError::Call { operation: OPERATION, endpoint: url.clone(), source })
        };
        loop {
            let message = match self.stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(broken(Cause::Unreachable("the stream ended".to_owned()))),
                Err(error) => return Err(broken(error.into())),
            };
            if message.compact_revision() > 0 {
                let wanted = self.last.saturating_add(1);
                return Err(ChangesEnd::Compacted { at: message.compact_revision(), wanted });
            }
            if message.canceled() {
                return Err(broken(Cause::Refused(message.cancel_reason().to_owned())));
            }
            let mut changes = Vec::with_capacity(message.events().len());
            let before = self.last;
            for event in message.events() {
                let kv =
                    event.kv().ok_or_else(|| broken(Cause::Malformed("an event of no key".to_owned())))?;
                let (found, last) = (kv.mod_revision(), self.last);
                // etcd never divides a revision between two messages, unless it was asked to.
                let follows = found == last.saturating_add(1) || (found == last && last > before);
                if !follows {
                    return Err(ChangesEnd::Gap { found, last });
                }
                self.last = found;
                let value = match event.event_type() {
                    EventType::Put => Some(kv.value().to_vec()),
                    EventType::Delete => None,
                };
                changes.push(Change { revision: found, key: kv.key().to_vec(), value, lease: kv.lease() });
            }
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// The time to live that a lease was granted, in seconds; `None` when the lease has ended.
    pub async fn granted(&self, lease: i64) -> Result<Option<i64>, EtcdError> {
        const OPERATION: &str = "asking for a lease";
        let url = &self.endpoint.url;
        let mut leases = self.endpoint.client.lease_client();
        let asked = leases.time_to_live(lease, Some(LeaseTimeToLiveOptions::new()));
        let told = match tokio::time::timeout(CALL, asked).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                let source = error.into();
                return Err(EtcdError::Call { operation: OPERATION, endpoint: url.clone(), source });
            }
            Err(_) => {
                let source = Cause::Silent(CALL);
                return Err(EtcdError::Call { operation: OPERATION, endpoint: url.clone(), source });
            }
        };
        Ok(Some(told.granted_ttl()).filter(|ttl| told.ttl() >= 0 && *ttl > 0))
    }
}

impl Snapshot {
    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// It broke off, or nothing came for half a minute.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, EtcdError> {
        const OPERATION: &str = "taking a snapshot";
        let failed = |source| EtcdError::Call { operation: OPERATION, endpoint: self.url.clone(), source };
        let message = match tokio::time::timeout(SILENCE, self.stream.message()).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return Err(failed(error.into())),
            Err(_) => return Err(failed(Cause::Silent(SILENCE))),
        };
        match message {
            Some(piece) => {
                self.left = piece.remaining_bytes();
                Ok(Some(piece.blob().to_vec()))
            }
            None if self.left == 0 => Ok(None),
            None => Err(failed(Cause::Malformed(format!("it ended, and {} bytes were to come", self.left)))),
        }
    }
}

fn negative(operation: &'static str, url: &str) -> EtcdError {
    malformed(operation, url, "a number below zero".to_owned())
}
