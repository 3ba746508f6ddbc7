//! Writing an object piece by piece, whose size is not known before.
//!
//! What is written gathers to a part of [`PART`] bytes, which is sent while the next one gathers: two parts are in
//! memory at most. An object that never fills one is written at once. Either way it comes to be only if there is none of
//! that key, and whole or not at all; and it carries a nonce, by which it is known again when S3's answer was lost.

use std::collections::HashMap;

use aws_sdk_s3::types::CompletedPart;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::task::JoinSet;

use super::parts::Whole;
use super::{Condition, Content, Mark, ObjectError, ObjectStore, Written};
use crate::digest::hex;
use crate::model::ETag;
use crate::model::fact::chain;

/// The size of a part. S3 takes 10 000 of them: 78 GiB, ten times the largest etcd. All but the last must have 5 MiB.
/// Source: "Amazon S3 multipart upload limits", Amazon S3 user guide.
const PART: usize = 8 << 20;

/// The name of the nonce in an object's metadata.
pub(super) const NONCE: &str = "quorate-upload";

/// An object that is being written. Dropping it leaves what was sent in the bucket: finish or abandon it.
#[must_use = "it is written only when it is finished"]
pub struct Upload {
    store: ObjectStore,
    key: String,
    nonce: String,
    metadata: HashMap<String, String>,
    /// The size of a part: [`PART`], but in tests.
    pub(super) part: usize,
    pub(super) buffer: Vec<u8>,
    parts: Parts,
    size: u64,
    sha256: Context,
    crc32: flate2::Crc,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The object's size in bytes.
    pub size: u64,
    /// The SHA-256 of all bytes, in hexadecimal.
    pub sha256: String,
    /// The object's version.
    pub etag: ETag,
}

#[derive(Debug)]
enum Parts {
    /// Nothing was sent yet.
    None,
    /// S3 knows of it by this id; one part at most is under way.
    Begun { id: String, sent: Vec<CompletedPart>, under_way: JoinSet<Result<CompletedPart, ObjectError>> },
    /// It failed.
    Over,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("key", &self.key).field("size", &self.size).finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// Begins to write an object where there is none. The metadata's names are small letters, digits and dashes, their
    /// values ASCII.
    pub fn upload(&self, key: &str, metadata: &[(&str, String)]) -> Upload {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let named = metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Upload {
            store: self.clone(),
            key: key.to_owned(),
            metadata: named.chain([(NONCE.to_owned(), nonce.clone())]).collect(),
            nonce,
            part: PART,
            buffer: Vec::new(),
            parts: Parts::None,
            size: 0,
            sha256: Context::new(&SHA256),
            crc32: flate2::Crc::new(),
        }
    }
}

impl Upload {
    /// Writes so many bytes more. Waits while a part gathered and the one before is still under way. Where the waiting is
    /// given up, the upload is good for nothing but [`Upload::abandon`].
    ///
    /// # Errors
    /// A part was not taken. The upload has then been ended and takes no more; [`ObjectError::PartsLeft`] says that
    /// ending it failed too.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        if matches!(self.parts, Parts::Over) {
            return Err(ObjectError::UploadOver { object: self.store.url(&self.key) });
        }
        self.sha256.update(bytes);
        self.crc32.update(bytes);
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (fits, more) = rest.split_at(rest.len().min(self.part - self.buffer.len()));
            self.gather(fits);
            rest = more;
            if self.buffer.len() == self.part
                && let Err(error) = self.send().await
            {
                return Err(self.fail(error).await);
            }
        }
        Ok(())
    }

    /// Writes what is left, and has the object come to be.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] when there is another's object of that key, [`ObjectError::Unsettled`] when S3 gave no
    /// answer and there was none yet. An upload that failed has been ended, as in [`Upload::write`].
    pub async fn finish(mut self) -> Result<Uploaded, ObjectError> {
        let etag = match self.end().await {
            Ok(etag) => etag,
            Err(error) => return Err(self.fail(error).await),
        };
        Ok(Uploaded { size: self.size, sha256: hex(self.sha256.finish().as_ref()), etag })
    }

    /// Gives up, and has S3 remove what was sent.
    pub async fn abandon(mut self) -> Result<(), ObjectError> {
        self.discard().await
    }

    /// How many parts are under way.
    #[cfg(all(test, feature = "lab"))]
    pub(super) fn under_way(&self) -> usize {
        match &self.parts {
            Parts::Begun { under_way, .. } => under_way.len(),
            Parts::None | Parts::Over => 0,
        }
    }

    /// Adds to the buffer, which grows to a part and never beyond.
    fn gather(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if needed > self.buffer.capacity() {
            let capacity = (2 * self.buffer.capacity()).clamp(needed, self.part);
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Sends what has gathered as a part, after the one before has arrived.
    async fn send(&mut self) -> Result<(), ObjectError> {
        if matches!(self.parts, Parts::None) {
            let id = self.store.begin(&self.key, self.metadata.clone()).await?;
            self.parts = Parts::Begun { id, sent: Vec::new(), under_way: JoinSet::new() };
        }
        self.arrived().await?;
        let Parts::Begun { id, sent, under_way } = &mut self.parts else { return Ok(()) };
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let (store, key, id, number) = (self.store.clone(), self.key.clone(), id.clone(), sent.len() + 1);
        under_way.spawn(async move {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            store.send_part(&key, &id, number, bytes).await
        });
        Ok(())
    }

    /// Waits for the part that is under way, if one is.
    async fn arrived(&mut self) -> Result<(), ObjectError> {
        if let Parts::Begun { sent, under_way, .. } = &mut self.parts {
            while let Some(part) = under_way.join_next().await {
                sent.push(part.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<ETag, ObjectError> {
        let written = match self.parts {
            Parts::Over => return Err(ObjectError::UploadOver { object: self.store.url(&self.key) }),
            Parts::None => self.put().await?,
            Parts::Begun { .. } => {
                if !self.buffer.is_empty() {
                    self.send().await?;
                }
                self.arrived().await?;
                self.complete().await?
            }
        };
        match written {
            Written::Yes(etag) => Ok(etag),
            Written::No => Err(ObjectError::Exists { object: self.store.url(&self.key) }),
        }
    }

    async fn put(&mut self) -> Result<Written, ObjectError> {
        let content = Content {
            bytes: std::mem::take(&mut self.buffer).into(),
            metadata: Some(self.metadata.clone()),
            nonce: Some(self.nonce.clone()),
        };
        self.store.write_if(&self.key, content, Condition::Absent).await
    }

    async fn complete(&mut self) -> Result<Written, ObjectError> {
        let Parts::Begun { id, sent, .. } = &mut self.parts else { return Ok(Written::No) };
        let crc32 = STANDARD.encode(self.crc32.sum().to_be_bytes());
        let whole = Whole { parts: std::mem::take(sent), size: self.size, crc32 };
        let (mark, absent) = (Mark::Nonce(&self.nonce), Condition::Absent);
        let cause = match self.store.complete(&self.key, id, whole).await {
            Ok(Some(etag)) => return Ok(Written::Yes(etag)),
            Ok(None) => return self.store.settle(&self.key, mark, absent, None).await,
            Err(cause) => cause,
        };
        match (cause.status(), cause.code()) {
            // Maybe an attempt of ours came before: there is our object, or the upload is gone with its end.
            (Some(412), _) => self.store.settle(&self.key, mark, absent, None).await,
            (_, Some("NoSuchUpload")) | (Some(409), _) => {
                match self.store.settle(&self.key, mark, absent, Some(cause.clone())).await {
                    // Nothing is there and nothing is on its way: S3 said so.
                    Err(ObjectError::Unsettled { .. }) => {
                        Err(self.store.failed("CompleteMultipartUpload", &self.key, cause))
                    }
                    settled => settled,
                }
            }
            _ if cause.is_lost() => self.store.settle(&self.key, mark, absent, Some(cause)).await,
            _ => Err(self.store.failed("CompleteMultipartUpload", &self.key, cause)),
        }
    }

    /// Ends the upload in S3 after an error, which says so if that fails too.
    async fn fail(&mut self, error: ObjectError) -> ObjectError {
        match self.discard().await {
            Ok(()) => error,
            Err(left) => ObjectError::PartsLeft {
                object: self.store.url(&self.key),
                why: chain(&left),
                source: Box::new(error),
            },
        }
    }

    async fn discard(&mut self) -> Result<(), ObjectError> {
        self.buffer = Vec::new();
        match std::mem::replace(&mut self.parts, Parts::Over) {
            Parts::Begun { id, mut under_way, .. } => {
                under_way.shutdown().await;
                self.store.abort(&self.key, &id).await
            }
            Parts::None | Parts::Over => Ok(()),
        }
    }
}
