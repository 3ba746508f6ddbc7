//! The object store: the cluster's own corner of one S3 bucket.
//!
//! S3 gives strong consistency and conditional writes, on which everything that the cluster agrees
//! on rests. So the answers here are exact: an object is absent only when S3 says `NoSuchKey`, and a
//! conditional write is won or lost only when that is certain. The SDK tries again by itself, so a
//! write whose first answer was lost comes back as refused by its own condition; that, like every
//! lost answer, is settled by reading the object back and comparing the bytes, which carry their
//! writer's nonce.
//!
//! What is too large to hold in memory goes up by [`Upload`] and comes down by [`Download`], whose bytes are never
//! fewer than S3 holds: a body that breaks off is continued, or is an error. Only objects of backups can be removed:
//! [`ObjectStore::remove_backup`] takes a key of nothing else.
//!
//! What must not live here: what the objects mean, and who may write them when.
//!
//! Source: "How to prevent object overwrites with conditional writes" and "Error responses", Amazon
//! S3 user guide and API reference.

mod download;
mod error;
mod listing;
mod parts;
mod removal;
mod settings;
mod upload;

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ServerSideEncryption};
use bytes::Bytes;

pub use self::download::Download;
pub use self::error::ObjectError;
pub use self::listing::Listed;
pub use self::parts::UnfinishedUpload;
pub use self::settings::{Allowed, BucketEncryption, BucketLifecycle};
pub use self::upload::{Upload, Uploaded};
use super::whole::WholeXml;
use super::{ATTEMPT, Cause, OPERATION, http, retries};
use crate::model::{ClusterName, ETag, Role};

/// How often a conditional write is tried that another one was in the way of (409), and how long is
/// waited in between: a random time up to this, in milliseconds, doubled each time.
const CONFLICT_TRIES: u32 = 4;
const CONFLICT_WAIT_MS: u64 = 100;

/// How many times longer an attempt may take that carries up to a part of an upload, and how many such attempts the
/// call may take: a minute, five times over. A part of 8 MiB needs little more than 1 Mbit/s.
const LONG_ATTEMPT: u32 = 12;
const LONG_ATTEMPTS: u32 = 5;

/// How many times longer than an attempt's time a body may be silent: 20 seconds.
const SILENCE: u32 = 4;

/// Where a cluster's objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLocation {
    /// The bucket.
    pub bucket: String,
    /// What comes before the cluster's name in every key, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The KMS key that objects are encrypted with; `None` for the bucket's own default.
    pub kms_key: Option<String>,
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its version.
    pub etag: ETag,
}

/// What became of an object since it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is still the version that was read.
    No,
    /// It is another version.
    To(Stored),
    /// It is not there any more.
    Gone,
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The object is what was written, and this is its version.
    Yes(ETag),
    /// The condition did not hold: the object is not what was written.
    No,
}

/// The objects of one cluster. Keys are relative to its place: `charter.json`.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    client: Client,
    bucket: String,
    root: String,
    kms_key: Option<String>,
    /// How long an attempt of a small call may take.
    attempt: Duration,
}

/// What is written.
#[derive(Debug, Clone)]
struct Content {
    bytes: Bytes,
    metadata: Option<HashMap<String, String>>,
    /// What in the metadata tells this write from every other; without it, the bytes do.
    nonce: Option<String>,
}

impl Content {
    /// A small object, whose bytes carry their writer's nonce.
    fn small(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), metadata: None, nonce: None }
    }
}

/// How a write of ours is known again.
#[derive(Debug, Clone, Copy)]
enum Mark<'a> {
    Bytes(&'a [u8]),
    Nonce(&'a str),
}

/// What is there instead of what was to be written.
#[derive(Debug)]
enum Found {
    Ours(ETag),
    Another(ETag),
    Nothing,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy)]
enum Condition<'a> {
    None,
    Absent,
    Is(&'a ETag),
}

impl ObjectStore {
    pub(super) fn new(sdk: &SdkConfig, role: Role, location: StoreLocation) -> Self {
        // A bucket's own host name seldom resolves where the endpoint is not AWS's.
        let overridden = sdk.endpoint_url().is_some()
            || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|endpoint| !endpoint.is_empty());
        let mut config =
            aws_sdk_s3::config::Builder::from(sdk).force_path_style(overridden).interceptor(WholeXml);
        config.set_retry_partition(retries::quota(role, retries::Service::S3));
        let config = config.build();
        let prefix = location.prefix.trim_matches('/');
        let root = if prefix.is_empty() {
            format!("{}/", location.cluster)
        } else {
            format!("{prefix}/{}/", location.cluster)
        };
        let attempt = sdk.timeout_config().and_then(TimeoutConfig::operation_attempt_timeout);
        Self {
            client: Client::from_conf(config),
            bucket: location.bucket,
            root,
            kms_key: location.kms_key,
            attempt: attempt.unwrap_or(ATTEMPT),
        }
    }

    /// The time-outs of calls that carry much, or have S3 put together what was sent.
    fn long(&self) -> aws_sdk_s3::config::Builder {
        let attempt = self.attempt * LONG_ATTEMPT;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(http::CONNECT)
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt * LONG_ATTEMPTS)
            .build();
        aws_sdk_s3::Config::builder().timeout_config(timeouts)
    }

    /// How long a body may be silent.
    fn silence(&self) -> Duration {
        self.attempt * SILENCE
    }

    /// Where an object is, for people: `s3://BUCKET/PREFIX/CLUSTER/KEY`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.bucket, self.root)
    }

    /// An object; `None` when S3 says that there is no such key.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>, ObjectError> {
        match self.read(key, None).await? {
            Changed::To(stored) => Ok(Some(stored)),
            Changed::Gone => Ok(None),
            Changed::No => Err(self.malformed("GetObject", key, "not modified, although that was not asked")),
        }
    }

    /// An object, unless it is still the version given.
    pub async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed, ObjectError> {
        self.read(key, Some(etag)).await
    }

    /// Writes an object if there is none.
    pub async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<Written, ObjectError> {
        self.write_if(key, Content::small(bytes), Condition::Absent).await
    }

    /// Writes an object if it is still the version given.
    pub async fn replace(&self, key: &str, bytes: Vec<u8>, etag: &ETag) -> Result<Written, ObjectError> {
        self.write_if(key, Content::small(bytes), Condition::Is(etag)).await
    }

    /// Writes an object, whatever is there.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<ETag, ObjectError> {
        match self.write(key, Content::small(bytes), Condition::None).await {
            Ok(Some(etag)) => Ok(etag),
            Ok(None) => Err(self.malformed("PutObject", key, "no ETag")),
            Err(cause) => Err(self.failed("PutObject", key, cause)),
        }
    }

    async fn read(&self, key: &str, unless: Option<&ETag>) -> Result<Changed, ObjectError> {
        let failed = |cause| self.failed("GetObject", key, cause);
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .set_if_none_match(unless.map(|etag| etag.as_str().to_owned()))
            .send()
            .await;
        let object = match answer {
            Ok(object) => object,
            Err(error) => {
                return match Cause::new(&error) {
                    cause if cause.code() == Some("NoSuchKey") => Ok(Changed::Gone),
                    cause if cause.status() == Some(304) && unless.is_some() => Ok(Changed::No),
                    cause => Err(failed(cause)),
                };
            }
        };
        let etag = self.etag("GetObject", key, object.e_tag())?;
        // The body comes after the answer and is not bounded by the SDK's own time-outs.
        let body = tokio::time::timeout(OPERATION, object.body.collect())
            .await
            .map_err(|_| failed(Cause::TimedOut("the body did not come to its end".to_owned())))?
            .map_err(|error| failed(Cause::Unreadable(crate::model::fact::chain(&error))))?;
        let etag = etag.ok_or_else(|| self.malformed("GetObject", key, "no ETag"))?;
        Ok(Changed::To(Stored { bytes: body.to_vec(), etag }))
    }

    async fn write_if(
        &self,
        key: &str,
        content: Content,
        condition: Condition<'_>,
    ) -> Result<Written, ObjectError> {
        let mark = content.nonce.as_deref().map_or(Mark::Bytes(&content.bytes), Mark::Nonce);
        let mut wait = CONFLICT_WAIT_MS;
        let mut tries = 1;
        loop {
            let cause = match self.write(key, content.clone(), condition).await {
                Ok(Some(etag)) => return Ok(Written::Yes(etag)),
                // Written, and the version is not told: reading back tells it.
                Ok(None) => return self.settle(key, mark, condition, None).await,
                Err(cause) => cause,
            };
            match cause.status() {
                // The condition does not hold, maybe because an earlier attempt of ours was written.
                Some(412) => return self.settle(key, mark, condition, None).await,
                // What was to be replaced is gone.
                Some(404) if cause.code() == Some("NoSuchKey") => return Ok(Written::No),
                // Another conditional write is under way.
                Some(409) if tries < CONFLICT_TRIES => {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=wait))).await;
                    wait *= 2;
                    tries += 1;
                }
                _ if cause.is_lost() => return self.settle(key, mark, condition, Some(cause)).await,
                _ => return Err(self.failed("PutObject", key, cause)),
            }
        }
    }

    /// Reads back, and tells whether the object is what was written.
    ///
    /// A write whose answer was lost (`lost`), while the object is still as it was before, may yet
    /// arrive: that is neither yes nor no.
    async fn settle(
        &self,
        key: &str,
        mark: Mark<'_>,
        condition: Condition<'_>,
        lost: Option<Cause>,
    ) -> Result<Written, ObjectError> {
        let found = self
            .find(key, mark)
            .await
            .map_err(|source| ObjectError::ReadBack { object: self.url(key), source: Box::new(source) })?;
        let unchanged = match (found, condition) {
            (Found::Ours(etag), _) => return Ok(Written::Yes(etag)),
            (Found::Another(found), Condition::Is(etag)) => found == *etag,
            (Found::Nothing, Condition::Absent) => true,
            (Found::Another(_), Condition::Absent | Condition::None)
            | (Found::Nothing, Condition::Is(_) | Condition::None) => false,
        };
        match lost {
            Some(source) if unchanged => Err(ObjectError::Unsettled { object: self.url(key), source }),
            _ => Ok(Written::No),
        }
    }

    /// What is there, and whether it is what carries our mark.
    async fn find(&self, key: &str, mark: Mark<'_>) -> Result<Found, ObjectError> {
        let (ours, etag) = match mark {
            Mark::Bytes(bytes) => match self.get(key).await? {
                Some(stored) => (stored.bytes == bytes, stored.etag),
                None => return Ok(Found::Nothing),
            },
            Mark::Nonce(nonce) => match self.download(key).await? {
                Some(there) => {
                    (there.metadata().get(upload::NONCE).is_some_and(|n| n == nonce), there.etag().clone())
                }
                None => return Ok(Found::Nothing),
            },
        };
        Ok(if ours { Found::Ours(etag) } else { Found::Another(etag) })
    }

    async fn write(
        &self,
        key: &str,
        content: Content,
        condition: Condition<'_>,
    ) -> Result<Option<ETag>, Cause> {
        let uploaded = content.nonce.is_some();
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .set_server_side_encryption(self.kms_key.as_ref().map(|_| ServerSideEncryption::AwsKms))
            .set_ssekms_key_id(self.kms_key.clone())
            .set_checksum_algorithm(uploaded.then_some(ChecksumAlgorithm::Crc32))
            .set_metadata(content.metadata)
            .body(ByteStream::from(content.bytes));
        let put = match condition {
            Condition::None => put,
            Condition::Absent => put.if_none_match("*"),
            Condition::Is(etag) => put.if_match(etag.as_str()),
        };
        let sent = if uploaded {
            put.customize().config_override(self.long()).send().await
        } else {
            put.send().await
        };
        let written = sent.map_err(|error| Cause::new(&error))?;
        // A version that can't be read is as good as none: the caller reads back, or says so.
        Ok(written.e_tag().and_then(|etag| etag.parse().ok()))
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    fn etag(
        &self,
        operation: &'static str,
        key: &str,
        etag: Option<&str>,
    ) -> Result<Option<ETag>, ObjectError> {
        etag.map(str::parse).transpose().map_err(|error: crate::model::ids::ParseIdError| {
            self.malformed(operation, key, error.to_string())
        })
    }

    fn failed(&self, operation: &'static str, key: &str, cause: Cause) -> ObjectError {
        ObjectError::new(operation, self.url(key), cause)
    }

    fn malformed(&self, operation: &'static str, key: &str, why: impl Into<String>) -> ObjectError {
        ObjectError::Malformed { operation, object: self.url(key), why: why.into() }
    }
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
