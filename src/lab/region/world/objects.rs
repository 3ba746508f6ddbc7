//! Objects: strongly consistent, with conditional writes (S3 user guide, "Conditional writes").

use std::collections::BTreeMap;
use std::ops::Bound;

use axum::body::Bytes;
use serde::Serialize;

use super::access::{Action, Caller};
use super::{Refusal, World};

/// How an object is encrypted at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// `AES256` or `aws:kms`.
    pub algorithm: String,
    /// The KMS key, when one was named.
    pub key_id: Option<String>,
    /// Whether a bucket key was asked for.
    pub bucket_key: bool,
}

/// An object.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its content.
    #[serde(skip)]
    pub body: Bytes,
    /// Its entity tag, without quotes. Equal content has an equal tag, as with S3's MD5.
    pub etag: String,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Its media type.
    pub content_type: String,
    /// User metadata, without the `x-amz-meta-` prefix.
    pub metadata: BTreeMap<String, String>,
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
    /// The CRC32 of the content, base64.
    pub crc32: String,
}

/// What a write brings.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// The content.
    pub body: Bytes,
    /// The media type; empty for S3's default.
    pub content_type: String,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// How it is to be encrypted.
    pub encryption: Option<Encryption>,
}

/// On what a write depends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// `If-None-Match: *`: there is no such object.
    Absent,
    /// `If-Match`: the object's tag is this one (without quotes).
    Matches(String),
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Keys and objects, in order.
    pub objects: Vec<(String, Object)>,
    /// The prefixes that a delimiter rolled up, in order.
    pub common_prefixes: Vec<String>,
    /// The last key of this page, when there are more.
    pub next_after: Option<String>,
}

impl World {
    /// Makes a bucket; making it twice is no error.
    pub fn create_bucket(&mut self, name: &str) {
        self.buckets.entry(name.to_owned()).or_default();
        self.writes += 1;
    }

    /// All buckets and their objects.
    pub fn buckets(&self) -> &BTreeMap<String, BTreeMap<String, Object>> {
        &self.buckets
    }

    /// Writes an object, if the condition holds. Answers with the object as written.
    pub fn put_object(
        &mut self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        put: Put,
        condition: &Condition,
    ) -> Result<Object, Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        // `If-Match` needs s3:GetObject as well: it would tell what is there.
        if let Condition::Matches(_) = condition {
            self.check(caller, Action::Read, bucket, key)?;
        }
        self.check_condition(bucket, key, condition)?;
        let tag = etag(&put.body);
        Ok(self.store(bucket, key, put, tag))
    }

    /// Whether the condition of a write holds.
    pub(super) fn check_condition(
        &self,
        bucket: &str,
        key: &str,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        let present = self.buckets.get(bucket).and_then(|b| b.get(key));
        match (condition, present) {
            (Condition::None, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Matches(_), None) => Err(no_key()),
            (Condition::Matches(etag), Some(o)) if o.etag == *etag => Ok(()),
            (Condition::Absent | Condition::Matches(_), Some(_)) => Err(failed_condition()),
        }
    }

    /// Puts an object in its place.
    pub(super) fn store(&mut self, bucket: &str, key: &str, put: Put, etag: String) -> Object {
        let object = Object {
            etag,
            crc32: crc32(&put.body),
            modified_ms: self.now,
            content_type: match put.content_type {
                empty if empty.is_empty() => "binary/octet-stream".into(),
                given => given,
            },
            metadata: put.metadata,
            encryption: put.encryption,
            body: put.body,
        };
        if let Some(objects) = self.buckets.get_mut(bucket) {
            objects.insert(key.to_owned(), object.clone());
            self.writes += 1;
        }
        object
    }

    /// Reads an object.
    pub fn get_object(&self, caller: &Caller, bucket: &str, key: &str) -> Result<&Object, Refusal> {
        let objects = self.bucket(bucket)?;
        self.check(caller, Action::Read, bucket, key)?;
        objects.get(key).ok_or_else(|| {
            if self.may(caller, Action::List, bucket, key) {
                no_key()
            } else {
                Refusal::new(403, "AccessDenied", "Access Denied")
            }
        })
    }

    /// Deletes an object; that there is none is no error.
    pub fn delete_object(&mut self, caller: &Caller, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        if let Some(objects) = self.buckets.get_mut(bucket) {
            objects.remove(key);
            self.writes += 1;
        }
        Ok(())
    }

    /// Lists the keys under a prefix and after a key, at most `limit` entries.
    pub fn list_objects(
        &self,
        caller: &Caller,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, Refusal> {
        let objects = self.bucket(bucket)?;
        self.check(caller, Action::List, bucket, prefix)?;
        let mut listing = Listing::default();
        let mut last: Option<String> = None;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, object) in objects.range::<str, _>((start, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            let rolled = delimiter
                .filter(|d| !d.is_empty())
                .and_then(|d| rest.find(d).map(|at| format!("{prefix}{}", &rest[..at + d.len()])));
            let known = |p: &String| {
                listing.common_prefixes.last() == Some(p) || after.is_some_and(|a| a.starts_with(p.as_str()))
            };
            if rolled.as_ref().is_some_and(known) {
                last = Some(key.clone());
                continue;
            }
            if listing.objects.len() + listing.common_prefixes.len() == limit {
                listing.next_after = last;
                break;
            }
            match rolled {
                Some(rolled) => listing.common_prefixes.push(rolled),
                None => listing.objects.push((key.clone(), object.clone())),
            }
            last = Some(key.clone());
        }
        Ok(listing)
    }

    pub(super) fn bucket(&self, name: &str) -> Result<&BTreeMap<String, Object>, Refusal> {
        self.buckets
            .get(name)
            .ok_or_else(|| Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist"))
    }
}

fn no_key() -> Refusal {
    Refusal::new(404, "NoSuchKey", "The specified key does not exist.")
}

fn failed_condition() -> Refusal {
    let message = "At least one of the pre-conditions you specified did not hold";
    Refusal::new(412, "PreconditionFailed", message)
}

/// The CRC32 of a body as S3 writes it: big-endian, base64.
pub(crate) fn crc32(body: &[u8]) -> String {
    use base64::Engine as _;
    let mut crc = flate2::Crc::new();
    crc.update(body);
    base64::engine::general_purpose::STANDARD.encode(crc.sum().to_be_bytes())
}

/// A tag of 32 hex digits made of the content: FNV-1a from both ends. Clients must take tags for
/// opaque, since those of encrypted objects are no MD5 either.
pub(super) fn etag(body: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let forward = body.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    let backward = body.iter().rev().fold(0x8422_2325_cbf2_9ce4, mix);
    format!("{forward:016x}{backward:016x}")
}
