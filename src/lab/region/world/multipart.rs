//! Uploads in parts (S3 user guide, "Uploading and copying objects using multipart upload").

use std::collections::BTreeMap;

use axum::body::Bytes;

use super::access::{Action, Caller};
use super::objects::{Condition, Object, Put, crc32, etag};
use super::{Refusal, World};

/// All parts but the last have at least so many bytes.
const SMALLEST_PART: usize = 5 << 20;
/// The highest number that a part may have.
const LAST_PART: u32 = 10_000;

/// An upload that is neither finished nor ended.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// The bucket.
    pub bucket: String,
    /// The key of what it becomes.
    pub key: String,
    /// When it was begun, in milliseconds since 1970.
    pub begun_ms: u64,
    /// The parts that came, by number.
    pub parts: BTreeMap<u32, Part>,
    put: Put,
}

/// A part that came.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its content.
    pub body: Bytes,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// The CRC32 of its content, base64.
    pub crc32: String,
}

/// A part as a client names it when it has the parts put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its CRC32, if it is told.
    pub crc32: Option<String>,
}

/// What a client says of the whole.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// The parts, in order.
    pub parts: Vec<CompletedPart>,
    /// The size in bytes, if it is told.
    pub size: Option<usize>,
    /// The CRC32 of all the bytes, if it is told.
    pub crc32: Option<String>,
}

/// One page of a listing of uploads.
#[derive(Clone, Debug, Default)]
pub struct Uploads {
    /// Ids and uploads, by key and then by id.
    pub uploads: Vec<(String, Multipart)>,
    /// Whether there are more.
    pub more: bool,
}

impl World {
    /// Begins an upload. The answer is its id.
    pub fn create_multipart(
        &mut self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        put: Put,
    ) -> Result<String, Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        let id = format!("{:016x}{:016x}", self.rng.u64(..), self.rng.u64(..));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let upload = Multipart { bucket, key, begun_ms: self.now, parts: BTreeMap::new(), put };
        self.multiparts.insert(id.clone(), upload);
        self.writes += 1;
        Ok(id)
    }

    /// Takes a part, in the place of one that came with its number.
    pub fn upload_part(
        &mut self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        id: &str,
        (number, body): (u32, Bytes),
    ) -> Result<Part, Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        if !(1..=LAST_PART).contains(&number) {
            let message = "Part number must be an integer between 1 and 10000, inclusive";
            return Err(Refusal::bad("InvalidArgument", message));
        }
        let upload = self.multiparts.get_mut(id).filter(|u| (&*u.bucket, &*u.key) == (bucket, key));
        let upload = upload.ok_or_else(no_upload)?;
        let part = Part { etag: etag(&body), crc32: crc32(&body), body };
        upload.parts.insert(number, part.clone());
        self.writes += 1;
        Ok(part)
    }

    /// Puts the parts together, if the condition holds now. What was uploaded and is not named is gone.
    pub fn complete_multipart(
        &mut self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        id: &str,
        whole: &Whole,
        condition: &Condition,
    ) -> Result<Object, Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        let upload = self.multipart(bucket, key, id)?;
        let (body, tag) = upload.put_together(whole)?;
        self.check_condition(bucket, key, condition)?;
        let put = Put { body, ..upload.put.clone() };
        self.multiparts.remove(id);
        Ok(self.store(bucket, key, put, tag))
    }

    /// Ends an upload.
    pub fn abort_multipart(
        &mut self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<(), Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::Write, bucket, key)?;
        self.multipart(bucket, key, id)?;
        self.multiparts.remove(id);
        self.writes += 1;
        Ok(())
    }

    /// Lists uploads by prefix, after a key and an id, at most `limit`.
    pub fn list_multiparts(
        &self,
        caller: &Caller,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Uploads, Refusal> {
        self.bucket(bucket)?;
        self.check(caller, Action::List, bucket, prefix)?;
        let mut uploads: Vec<(String, Multipart)> = self
            .multiparts
            .iter()
            .filter(|(_, upload)| upload.bucket == bucket && upload.key.starts_with(prefix))
            .filter(|(id, upload)| after.is_none_or(|after| (upload.key.as_str(), id.as_str()) > after))
            .map(|(id, upload)| (id.clone(), upload.clone()))
            .collect();
        uploads.sort_by(|(one_id, one), (id, other)| (&one.key, one_id).cmp(&(&other.key, id)));
        let more = uploads.len() > limit;
        uploads.truncate(limit);
        Ok(Uploads { uploads, more })
    }

    fn multipart(&self, bucket: &str, key: &str, id: &str) -> Result<&Multipart, Refusal> {
        self.multiparts.get(id).filter(|u| (&*u.bucket, &*u.key) == (bucket, key)).ok_or_else(no_upload)
    }
}

impl Multipart {
    /// The content of the whole, and its tag: that of the parts' tags, a dash, and how many there are.
    fn put_together(&self, whole: &Whole) -> Result<(Bytes, String), Refusal> {
        if whole.parts.is_empty() {
            let message = "The XML you provided was not well-formed or did not validate against our schema";
            return Err(Refusal::bad("MalformedXML", message));
        }
        if !whole.parts.is_sorted_by(|one, next| one.number < next.number) {
            let message =
                "The list of parts was not in ascending order. The parts list must be specified in order.";
            return Err(Refusal::bad("InvalidPartOrder", message));
        }
        let invalid = || {
            let message =
                "One or more of the specified parts could not be found, or its entity tag does not match.";
            Refusal::bad("InvalidPart", message)
        };
        let (mut body, mut tags) = (Vec::new(), String::new());
        for (at, named) in whole.parts.iter().enumerate() {
            let part = self.parts.get(&named.number).filter(|part| part.etag == named.etag);
            let part = part.filter(|part| named.crc32.as_ref().is_none_or(|crc32| *crc32 == part.crc32));
            let part = part.ok_or_else(invalid)?;
            if part.body.len() < SMALLEST_PART && at + 1 < whole.parts.len() {
                let message = "Your proposed upload is smaller than the minimum allowed size";
                return Err(Refusal::bad("EntityTooSmall", message));
            }
            body.extend_from_slice(&part.body);
            tags.push_str(&part.etag);
        }
        if whole.size.is_some_and(|size| size != body.len()) {
            let message = "The provided 'x-amz-mp-object-size' header does not match what was computed.";
            return Err(Refusal::bad("InvalidRequest", message));
        }
        if whole.crc32.as_ref().is_some_and(|given| *given != crc32(&body)) {
            let message = "The CRC32 you specified did not match the calculated checksum.";
            return Err(Refusal::bad("BadDigest", message));
        }
        Ok((body.into(), format!("{}-{}", etag(tags.as_bytes()), whole.parts.len())))
    }
}

fn no_upload() -> Refusal {
    let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                   aborted or completed.";
    Refusal::new(404, "NoSuchUpload", message)
}
