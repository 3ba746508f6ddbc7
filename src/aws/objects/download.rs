//! Reading an object piece by piece, over broken connections.
//!
//! A body that breaks off or falls silent is asked for again from where it ended, on condition that the object is still
//! the same version. What comes out is exactly as many bytes as S3 said at first, or ends with an error. S3's checksum of
//! the whole is compared by the SDK, unless the body was continued: who must know compares a hash of the bytes.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{Cause, ObjectError, ObjectStore};
use crate::model::ETag;
use crate::model::fact::chain;

const OPERATION: &str = "GetObject";

/// How often a body is continued that breaks off, and how many bytes have to come for these to be given anew.
const CONTINUED: u32 = 5;
const PROGRESS: u64 = 8 << 20;

/// The longest that is waited before the first time, in milliseconds: a random time up to this, doubled each time.
const WAIT_MS: u64 = 100;

/// An object that is being read.
#[derive(Debug)]
pub struct Download {
    store: ObjectStore,
    key: String,
    etag: ETag,
    size: u64,
    metadata: HashMap<String, String>,
    body: ByteStream,
    received: u64,
    /// How often it was continued, and where it was when the counting began.
    continued: u32,
    since: u64,
}

impl ObjectStore {
    /// Begins to read an object; `None` when S3 says that there is no such key.
    pub async fn download(&self, key: &str) -> Result<Option<Download>, ObjectError> {
        let answer = self.client.get_object().bucket(&self.bucket).key(self.key(key)).send().await;
        let object = match answer.map_err(|error| Cause::new(&error)) {
            Ok(object) => object,
            Err(cause) if cause.code() == Some("NoSuchKey") => return Ok(None),
            Err(cause) => return Err(self.failed(OPERATION, key, cause)),
        };
        let malformed = |why: &str| self.malformed(OPERATION, key, why);
        let size = object.content_length().and_then(|length| u64::try_from(length).ok());
        Ok(Some(Download {
            store: self.clone(),
            key: key.to_owned(),
            etag: self.etag(OPERATION, key, object.e_tag())?.ok_or_else(|| malformed("no ETag"))?,
            size: size.ok_or_else(|| malformed("it does not say how long it is"))?,
            metadata: object.metadata.unwrap_or_default(),
            body: object.body,
            received: 0,
            continued: 0,
            since: 0,
        }))
    }

    /// The rest of an object from a byte on, if it is still this version.
    async fn rest(&self, key: &str, etag: &ETag, from: u64, size: u64) -> Result<ByteStream, ObjectError> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .if_match(etag.as_str())
            .range(format!("bytes={from}-"))
            .send()
            .await;
        let rest = match answer.map_err(|error| Cause::new(&error)) {
            Ok(rest) => rest,
            Err(source) if source.status() == Some(412) || source.code() == Some("NoSuchKey") => {
                return Err(ObjectError::ChangedMeanwhile {
                    operation: OPERATION,
                    object: self.url(key),
                    source,
                });
            }
            Err(cause) => return Err(self.failed(OPERATION, key, cause)),
        };
        let range = format!("bytes {from}-{}/{size}", size - 1);
        if rest.content_range() != Some(&range) {
            let found = rest.content_range().unwrap_or("all of it");
            return Err(self.malformed(OPERATION, key, format!("{found} instead of {range}")));
        }
        match self.etag(OPERATION, key, rest.e_tag())? {
            Some(found) if found == *etag => Ok(rest.body),
            _ => Err(self.malformed(OPERATION, key, "another version than the one that was asked for")),
        }
    }
}

impl Download {
    /// The object's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its version.
    pub fn etag(&self) -> &ETag {
        &self.etag
    }

    /// What was said of it when it was written, by names in small letters.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The next piece; `None` after the last byte.
    ///
    /// # Errors
    /// [`ObjectError::ChangedMeanwhile`] when the object became another one. After an error there is nothing more to come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        loop {
            let whole = self.received == self.size;
            let why = match tokio::time::timeout(self.store.silence(), self.body.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.received += piece.len() as u64;
                    if self.received > self.size {
                        return Err(self.store.malformed(OPERATION, &self.key, "more bytes than it said"));
                    }
                    if piece.is_empty() {
                        continue;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if whole => return Ok(None),
                Ok(None) => {
                    Cause::Unreadable(format!("it ended after {} bytes of {}", self.received, self.size))
                }
                Ok(Some(Err(error))) => Cause::Unreadable(chain(&error)),
                Err(_) => Cause::TimedOut(format!("silence after {} bytes of {}", self.received, self.size)),
            };
            // Every byte came: it is their checksum that is wrong, and no more of them would help.
            if whole {
                return Err(self.store.failed(OPERATION, &self.key, why));
            }
            self.go_on(why).await?;
        }
    }

    /// Has the rest sent, after the body broke off for this cause.
    async fn go_on(&mut self, why: Cause) -> Result<(), ObjectError> {
        let mut error = self.store.failed(OPERATION, &self.key, why);
        if self.received - self.since >= PROGRESS {
            self.continued = 0;
            self.since = self.received;
        }
        while self.continued < CONTINUED {
            let wait = fastrand::u64(0..=WAIT_MS << self.continued);
            self.continued += 1;
            tracing::debug!(key = self.key, received = self.received, size = self.size, %error, "a body broke off");
            tokio::time::sleep(Duration::from_millis(wait)).await;
            match self.store.rest(&self.key, &self.etag, self.received, self.size).await {
                Ok(body) => {
                    self.body = body;
                    return Ok(());
                }
                Err(again)
                    if again.is_retryable() && !matches!(again, ObjectError::ChangedMeanwhile { .. }) =>
                {
                    error = again;
                }
                Err(definite) => return Err(definite),
            }
        }
        Err(error)
    }
}
