//! S3's REST API for single objects, uploads in parts and listings, path style or virtual-host style.
//!
//! What the agent does not use (copies, versions, ACLs) is refused, not ignored.

mod encoding;
mod multipart;
mod range;
mod settings;

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::Method;
use axum::http::request::Parts;

use self::encoding::{decode_token, encode_token, percent_decode, percent_encode, unchunk};
use self::settings::Setting;
use super::Answer;
use super::xml::Xml;
use crate::lab::region::clock;
use crate::lab::region::world::{Caller, Condition, Encryption, Object, Put, Refusal, World, crc32};

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
    Head,
    Delete,
    List,
    CreateMultipart,
    UploadPart,
    CompleteMultipart,
    AbortMultipart,
    ListMultiparts,
    Setting(Setting),
}

impl Operation {
    /// The operation of a request, by its method, whether it has a key, and its query.
    fn of(method: &Method, key: bool, query: &BTreeMap<String, String>) -> Option<Self> {
        let has = |name: &str| query.contains_key(name);
        Some(match (method, key) {
            (&Method::PUT, true) if has("uploadId") => Self::UploadPart,
            (&Method::DELETE, true) if has("uploadId") => Self::AbortMultipart,
            (&Method::POST, true) if has("uploadId") => Self::CompleteMultipart,
            (&Method::POST, true) if has("uploads") => Self::CreateMultipart,
            (&Method::PUT, true) => Self::Put,
            (&Method::GET, true) => Self::Get,
            (&Method::HEAD, true) => Self::Head,
            (&Method::DELETE, true) => Self::Delete,
            (&Method::GET, false) if query.get("list-type").is_some_and(|t| t == "2") => Self::List,
            (&Method::GET, false) if has("uploads") => Self::ListMultiparts,
            (&Method::GET, false) => Self::Setting(Setting::asked(has)?),
            _ => return None,
        })
    }

    /// What its query may say; listings look at theirs themselves.
    fn knows(self, name: &str) -> bool {
        match self {
            Self::List | Self::ListMultiparts => true,
            Self::CreateMultipart => matches!(name, "uploads" | "x-id"),
            Self::UploadPart => matches!(name, "uploadId" | "partNumber" | "x-id"),
            Self::CompleteMultipart | Self::AbortMultipart => matches!(name, "uploadId" | "x-id"),
            Self::Put | Self::Get | Self::Head | Self::Delete => name == "x-id",
            Self::Setting(setting) => name == setting.query() || name == "x-id",
        }
    }
}

/// A request for an object or a listing.
pub(super) struct ObjectRequest {
    operation: Operation,
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl ObjectRequest {
    /// Understands a request. `host` is this service's own, without a bucket in front.
    pub(super) fn read(parts: &Parts, body: Bytes, host: &str) -> Result<Self, Refusal> {
        let headers: BTreeMap<String, String> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| Refusal::bad("InvalidURI", e.to_string()))?;
        let query: BTreeMap<String, String> = pairs.into_iter().collect();
        let (bucket, key) = address(parts.uri.path(), headers.get("host").map(String::as_str), host)?;
        let operation = Operation::of(&parts.method, !key.is_empty(), &query)
            .ok_or_else(|| not_implemented("this request"))?;
        // Sub-resources (`?acl`, `?tagging`, …) would otherwise be taken for plain objects.
        if let Some(name) = query.keys().find(|name| !operation.knows(name)) {
            return Err(not_implemented(name));
        }
        if headers.contains_key("x-amz-copy-source") {
            return Err(not_implemented("x-amz-copy-source"));
        }
        let mut request = Self { operation, bucket, key, query, headers, body };
        request.decode_body()?;
        Ok(request)
    }

    pub(super) fn operation(&self) -> &'static str {
        match self.operation {
            Operation::Put => "PutObject",
            Operation::Get => "GetObject",
            Operation::Head => "HeadObject",
            Operation::Delete => "DeleteObject",
            Operation::List => "ListObjectsV2",
            Operation::CreateMultipart => "CreateMultipartUpload",
            Operation::UploadPart => "UploadPart",
            Operation::CompleteMultipart => "CompleteMultipartUpload",
            Operation::AbortMultipart => "AbortMultipartUpload",
            Operation::ListMultiparts => "ListMultipartUploads",
            Operation::Setting(setting) => setting.operation(),
        }
    }

    pub(super) fn resource(&self) -> String {
        let key = self.query.get("prefix").unwrap_or(&self.key);
        format!("{}/{key}", self.bucket)
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Empty in requests for listings.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// What a listing is limited to.
    pub(super) fn prefix(&self) -> Option<&str> {
        self.query.get("prefix").map(String::as_str)
    }

    pub(super) fn is_head(&self) -> bool {
        self.operation == Operation::Head
    }

    pub(super) fn is_conditional_write(&self) -> bool {
        matches!(self.operation, Operation::Put | Operation::CompleteMultipart)
            && (self.headers.contains_key("if-none-match") || self.headers.contains_key("if-match"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Unpacks `aws-chunked` bodies and verifies every checksum that came along.
    fn decode_body(&mut self) -> Result<(), Refusal> {
        // The checksum that comes with a list of parts is that of the whole.
        if !matches!(self.operation, Operation::Put | Operation::UploadPart) {
            return Ok(());
        }
        let chunked = self.header("content-encoding").is_some_and(|e| e.contains("aws-chunked"));
        match self.header("x-amz-content-sha256") {
            Some(
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
                | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
                | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            ) if chunked => {
                let (body, trailers) = unchunk(&self.body)?;
                let expected = self.header("x-amz-decoded-content-length").and_then(|l| l.parse().ok());
                if expected != Some(body.len()) {
                    return Err(Refusal::bad(
                        "IncompleteBody",
                        "the decoded length is not the announced one",
                    ));
                }
                if let Some(name) = self.header("x-amz-trailer").filter(|n| !trailers.contains_key(*n)) {
                    return Err(Refusal::bad(
                        "MalformedTrailerError",
                        format!("the trailer {name} is missing"),
                    ));
                }
                self.body = body;
                self.headers.extend(trailers);
            }
            Some(streaming) if streaming.starts_with("STREAMING-") || chunked => {
                return Err(not_implemented(streaming));
            }
            _ => {}
        }
        for name in CHECKSUMS {
            let Some(given) = self.header(name) else { continue };
            if name != "x-amz-checksum-crc32" {
                return Err(not_implemented(name));
            }
            if given != crc32(&self.body) {
                let message = "The CRC32 you specified did not match the calculated checksum.";
                return Err(Refusal::bad("BadDigest", message));
            }
        }
        Ok(())
    }

    /// Does what is asked.
    pub(super) fn answer(
        &self,
        world: &mut World,
        caller: &Caller,
        request_id: &str,
    ) -> Result<Answer, Refusal> {
        let answer = match self.operation {
            Operation::Put => self.put(world, caller)?,
            Operation::Get | Operation::Head => self.get(world, caller)?,
            Operation::Delete => {
                world.delete_object(caller, &self.bucket, &self.key)?;
                Answer::empty(204)
            }
            Operation::List => self.list(world, caller)?,
            Operation::CreateMultipart => self.create_multipart(world, caller)?,
            Operation::UploadPart => self.upload_part(world, caller)?,
            Operation::CompleteMultipart => self.complete_multipart(world, caller)?,
            Operation::AbortMultipart => self.abort_multipart(world, caller)?,
            Operation::ListMultiparts => self.list_multiparts(world, caller)?,
            Operation::Setting(setting) => self.setting(setting, world, caller)?,
        };
        Ok(answer.with("x-amz-request-id", request_id))
    }

    /// On what a write depends.
    fn condition(&self) -> Result<Condition, Refusal> {
        Ok(match (self.header("if-none-match"), self.header("if-match")) {
            (None, None) => Condition::None,
            (Some("*"), None) => Condition::Absent,
            (None, Some(etag)) => Condition::Matches(etag.trim_matches('"').to_owned()),
            _ => return Err(not_implemented("this combination of conditions")),
        })
    }

    /// What a write brings.
    fn contents(&self) -> Result<Put, Refusal> {
        let key_id = self.header("x-amz-server-side-encryption-aws-kms-key-id").map(str::to_owned);
        let encryption = match self.header("x-amz-server-side-encryption") {
            None if key_id.is_some() => {
                return Err(Refusal::bad("InvalidArgument", "a KMS key needs aws:kms"));
            }
            None => None,
            Some(algorithm @ ("AES256" | "aws:kms")) => Some(Encryption {
                algorithm: algorithm.to_owned(),
                bucket_key: self
                    .header("x-amz-server-side-encryption-bucket-key-enabled")
                    .is_some_and(|v| v == "true"),
                key_id,
            }),
            Some(other) => {
                let message = format!("The encryption method '{other}' is not supported");
                return Err(Refusal::bad("InvalidEncryptionAlgorithmError", message));
            }
        };
        let metadata = self
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone())))
            .collect();
        Ok(Put {
            body: self.body.clone(),
            content_type: self.header("content-type").unwrap_or_default().to_owned(),
            metadata,
            encryption,
        })
    }

    fn put(&self, world: &mut World, caller: &Caller) -> Result<Answer, Refusal> {
        let condition = self.condition()?;
        let object = world.put_object(caller, &self.bucket, &self.key, self.contents()?, &condition)?;
        let mut answer = encryption_headers(Answer::empty(200), &object);
        answer = answer.with("etag", format!("\"{}\"", object.etag));
        if self.header("x-amz-checksum-crc32").is_some() {
            answer = checksum_headers(answer, &object);
        }
        Ok(answer)
    }

    fn get(&self, world: &World, caller: &Caller) -> Result<Answer, Refusal> {
        let object = world.get_object(caller, &self.bucket, &self.key)?;
        let etag = format!("\"{}\"", object.etag);
        let fits =
            |given: &str| given == "*" || given.split(',').any(|g| g.trim().trim_matches('"') == object.etag);
        if self.header("if-match").is_some_and(|given| !fits(given)) {
            let message = "At least one of the pre-conditions you specified did not hold";
            return Err(Refusal::new(412, "PreconditionFailed", message));
        }
        if self.header("if-none-match").is_some_and(fits) {
            return Ok(Answer::empty(304).with("etag", etag));
        }
        let size = object.body.len();
        let part = self.header("range").map(|range| range::bytes(range, size)).transpose()?;
        let status = if part.is_some() { 206 } else { 200 };
        let mut answer = encryption_headers(Answer::empty(status), object)
            .with("etag", etag)
            .with("last-modified", clock::http_date(object.modified_ms))
            .with("accept-ranges", "bytes")
            .with("content-type", &object.content_type);
        for (name, value) in &object.metadata {
            answer = answer.with(&format!("x-amz-meta-{name}"), value);
        }
        // The checksum is that of the whole.
        let wanted = self.header("x-amz-checksum-mode").is_some_and(|m| m.eq_ignore_ascii_case("enabled"));
        if wanted && part.is_none() {
            answer = checksum_headers(answer, object);
        }
        if let Some(part) = &part {
            answer = answer.with("content-range", format!("bytes {}-{}/{size}", part.start, part.end - 1));
        }
        let body = object.body.slice(part.unwrap_or(0..size));
        if self.is_head() {
            answer = answer.with("content-length", body.len().to_string());
        } else {
            answer.body = body;
        }
        Ok(answer)
    }

    fn list(&self, world: &World, caller: &Caller) -> Result<Answer, Refusal> {
        let get = |name: &str| self.query.get(name).map(String::as_str);
        let known = [
            "list-type",
            "prefix",
            "delimiter",
            "max-keys",
            "continuation-token",
            "start-after",
            "encoding-type",
            "fetch-owner",
            "x-id",
        ];
        if let Some(name) = self.query.keys().find(|n| !known.contains(&n.as_str())) {
            return Err(not_implemented(name));
        }
        let limit = match get("max-keys") {
            None => 1000,
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Refusal::bad("InvalidArgument", "max-keys is not a number"))?
                .min(1000),
        };
        let token = get("continuation-token").map(decode_token).transpose()?;
        let after = token.as_deref().or(get("start-after"));
        let prefix = get("prefix").unwrap_or_default();
        let listing = world.list_objects(caller, &self.bucket, prefix, get("delimiter"), after, limit)?;
        let url = get("encoding-type") == Some("url");
        let encode = |text: &str| if url { percent_encode(text) } else { text.to_owned() };
        let body = Xml::document("ListBucketResult", NAMESPACE, |x| {
            x.text("Name", &self.bucket);
            x.text("Prefix", encode(prefix));
            x.maybe("Delimiter", get("delimiter").map(encode));
            x.text("MaxKeys", limit);
            x.maybe("EncodingType", url.then_some("url"));
            x.text("KeyCount", listing.objects.len() + listing.common_prefixes.len());
            x.text("IsTruncated", listing.next_after.is_some());
            x.maybe("ContinuationToken", get("continuation-token"));
            x.maybe("NextContinuationToken", listing.next_after.as_deref().map(encode_token));
            x.maybe("StartAfter", get("start-after").map(encode));
            for (key, object) in &listing.objects {
                x.node("Contents", |x| {
                    x.text("Key", encode(key));
                    x.text("LastModified", clock::iso8601(object.modified_ms));
                    x.text("ETag", format!("\"{}\"", object.etag));
                    x.text("Size", object.body.len());
                    x.text("StorageClass", "STANDARD");
                });
            }
            for prefix in &listing.common_prefixes {
                x.node("CommonPrefixes", |x| x.text("Prefix", encode(prefix)));
            }
        });
        Ok(Answer::xml(200, body))
    }
}

/// S3's form of an error.
pub(super) fn refusal(refusal: &Refusal, request_id: &str, head: bool) -> Answer {
    let answer = if head {
        // An answer to HEAD has no body: only its status tells.
        Answer::empty(refusal.status)
    } else {
        let body = Xml::document("Error", "", |x| {
            x.text("Code", refusal.code);
            x.text("Message", &refusal.message);
            x.text("RequestId", request_id);
        });
        Answer::xml(refusal.status, body)
    };
    answer.with("x-amz-request-id", request_id)
}

fn encryption_headers(mut answer: Answer, object: &Object) -> Answer {
    if let Some(e) = &object.encryption {
        answer = answer.with("x-amz-server-side-encryption", &e.algorithm);
        if let Some(key) = &e.key_id {
            answer = answer.with("x-amz-server-side-encryption-aws-kms-key-id", key);
        }
        if e.bucket_key {
            answer = answer.with("x-amz-server-side-encryption-bucket-key-enabled", "true");
        }
    }
    answer
}

fn checksum_headers(answer: Answer, object: &Object) -> Answer {
    answer.with("x-amz-checksum-crc32", &object.crc32).with("x-amz-checksum-type", "FULL_OBJECT")
}

fn not_implemented(what: &str) -> Refusal {
    Refusal::new(501, "NotImplemented", format!("{what} is not implemented in this region"))
}

/// The bucket and the key: from the host name (virtual-host style) or from the path.
fn address(path: &str, asked: Option<&str>, own: &str) -> Result<(String, String), Refusal> {
    let path = percent_decode(path.trim_start_matches('/'))?;
    let asked = asked.unwrap_or(own);
    let in_host = asked.strip_suffix(own).and_then(|rest| rest.strip_suffix('.')).or_else(|| {
        let name = asked.split(':').next().unwrap_or_default();
        name.strip_suffix(".localhost")
    });
    Ok(match (in_host, path.split_once('/')) {
        (Some(bucket), _) => (bucket.to_owned(), path),
        (None, Some((bucket, key))) => (bucket.to_owned(), key.to_owned()),
        (None, None) => (path, String::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_found_in_the_host_name_and_in_the_path() {
        let own = "127.0.0.1:80";
        let split = |path, host| address(path, host, own).unwrap();
        let wanted = ("b".to_owned(), "k/%".to_owned());
        assert_eq!(split("/b/k/%25", Some(own)), wanted);
        assert_eq!(split("/k/%25", Some("b.127.0.0.1:80")), wanted);
        assert_eq!(split("/k/%25", Some("b.localhost:80")), wanted);
    }
}
