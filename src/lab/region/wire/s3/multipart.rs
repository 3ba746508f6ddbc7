//! Uploads in parts, on the wire.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use super::encoding::percent_encode;
use super::{Answer, NAMESPACE, ObjectRequest, checksum_headers, encryption_headers, not_implemented};
use crate::lab::region::clock;
use crate::lab::region::wire::xml::Xml;
use crate::lab::region::world::{Caller, CompletedPart, Refusal, Whole, World};

impl ObjectRequest {
    pub(super) fn create_multipart(&self, world: &mut World, caller: &Caller) -> Result<Answer, Refusal> {
        let algorithm = self.header("x-amz-checksum-algorithm");
        let kind = self.header("x-amz-checksum-type");
        if !matches!((algorithm, kind), (None, None) | (Some("CRC32"), Some("FULL_OBJECT"))) {
            return Err(not_implemented("this kind of checksum of a whole"));
        }
        let id = world.create_multipart(caller, &self.bucket, &self.key, self.contents()?)?;
        let body = Xml::document("InitiateMultipartUploadResult", NAMESPACE, |x| {
            x.text("Bucket", &self.bucket);
            x.text("Key", &self.key);
            x.text("UploadId", id);
        });
        let mut answer = Answer::xml(200, body);
        for (name, value) in [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)] {
            if let Some(value) = value {
                answer = answer.with(name, value);
            }
        }
        Ok(answer)
    }

    pub(super) fn upload_part(&self, world: &mut World, caller: &Caller) -> Result<Answer, Refusal> {
        let number = self.query.get("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
        let part = (number, self.body.clone());
        let part = world.upload_part(caller, &self.bucket, &self.key, self.upload_id(), part)?;
        let mut answer = Answer::empty(200).with("etag", format!("\"{}\"", part.etag));
        if self.header("x-amz-checksum-crc32").is_some() {
            answer = answer.with("x-amz-checksum-crc32", &part.crc32);
        }
        Ok(answer)
    }

    pub(super) fn complete_multipart(&self, world: &mut World, caller: &Caller) -> Result<Answer, Refusal> {
        let malformed = || {
            let message = "The XML you provided was not well-formed or did not validate against our schema";
            Refusal::bad("MalformedXML", message)
        };
        let parts = parts(&self.body).ok_or_else(malformed)?;
        let size = self.header("x-amz-mp-object-size").map(str::parse).transpose();
        let whole = Whole {
            parts,
            size: size.map_err(|_| Refusal::bad("InvalidArgument", "the size is no number"))?,
            crc32: self.header("x-amz-checksum-crc32").map(str::to_owned),
        };
        let condition = self.condition()?;
        let id = self.upload_id();
        let object = world.complete_multipart(caller, &self.bucket, &self.key, id, &whole, &condition)?;
        let body = Xml::document("CompleteMultipartUploadResult", NAMESPACE, |x| {
            x.text("Location", format!("/{}/{}", self.bucket, self.key));
            x.text("Bucket", &self.bucket);
            x.text("Key", &self.key);
            x.text("ETag", format!("\"{}\"", object.etag));
            x.text("ChecksumCRC32", &object.crc32);
            x.text("ChecksumType", "FULL_OBJECT");
        });
        Ok(checksum_headers(encryption_headers(Answer::xml(200, body), &object), &object))
    }

    pub(super) fn abort_multipart(&self, world: &mut World, caller: &Caller) -> Result<Answer, Refusal> {
        world.abort_multipart(caller, &self.bucket, &self.key, self.upload_id())?;
        Ok(Answer::empty(204))
    }

    pub(super) fn list_multiparts(&self, world: &World, caller: &Caller) -> Result<Answer, Refusal> {
        let get = |name: &str| self.query.get(name).map(String::as_str);
        let known =
            ["uploads", "prefix", "key-marker", "upload-id-marker", "max-uploads", "encoding-type", "x-id"];
        if let Some(name) = self.query.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(not_implemented(name));
        }
        let limit = get("max-uploads").map_or(Ok(1000), str::parse);
        let limit: usize =
            limit.map_err(|_| Refusal::bad("InvalidArgument", "max-uploads is not a number"))?;
        // A key alone means what comes after all uploads of that key; ids are hexadecimal.
        let after = get("key-marker").filter(|key| !key.is_empty());
        let after = after.map(|key| (key, get("upload-id-marker").unwrap_or("~")));
        let prefix = get("prefix").unwrap_or_default();
        let listing = world.list_multiparts(caller, &self.bucket, prefix, after, limit.min(1000))?;
        let url = get("encoding-type") == Some("url");
        let encode = |text: &str| if url { percent_encode(text) } else { text.to_owned() };
        let last = listing.uploads.last().filter(|_| listing.more);
        let body = Xml::document("ListMultipartUploadsResult", NAMESPACE, |x| {
            x.text("Bucket", &self.bucket);
            x.text("Prefix", encode(prefix));
            x.maybe("EncodingType", url.then_some("url"));
            x.text("MaxUploads", limit);
            x.text("IsTruncated", listing.more);
            x.maybe("NextKeyMarker", last.map(|(_, upload)| encode(&upload.key)));
            x.maybe("NextUploadIdMarker", last.map(|(id, _)| id));
            for (id, upload) in &listing.uploads {
                x.node("Upload", |x| {
                    x.text("Key", encode(&upload.key));
                    x.text("UploadId", id);
                    x.text("Initiated", clock::iso8601(upload.begun_ms));
                    x.text("StorageClass", "STANDARD");
                });
            }
        });
        Ok(Answer::xml(200, body))
    }

    fn upload_id(&self) -> &str {
        self.query.get("uploadId").map_or("", String::as_str)
    }
}

/// The parts that a request names; `None` when it is no list of parts.
fn parts(xml: &[u8]) -> Option<Vec<CompletedPart>> {
    let mut reader = Reader::from_reader(xml);
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut fields = BTreeMap::<Vec<u8>, String>::new();
    let mut parts = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => path.push(start.local_name().as_ref().to_vec()),
            Event::End(_) => {
                let ended = path.pop()?;
                if ended == b"Part" {
                    parts.push(part(&std::mem::take(&mut fields))?);
                }
            }
            Event::Text(text) => append(&mut fields, &path, &text.decode().ok()?),
            Event::GeneralRef(name) => {
                append(&mut fields, &path, resolve_predefined_entity(&name.decode().ok()?)?);
            }
            Event::Eof => return path.is_empty().then_some(parts),
            _ => {}
        }
    }
}

fn append(fields: &mut BTreeMap<Vec<u8>, String>, path: &[Vec<u8>], text: &str) {
    if let [.., part, name] = path
        && part == b"Part"
    {
        fields.entry(name.clone()).or_default().push_str(text);
    }
}

fn part(fields: &BTreeMap<Vec<u8>, String>) -> Option<CompletedPart> {
    let field = |name: &[u8]| fields.get(name).map(|text| text.trim());
    Some(CompletedPart {
        number: field(b"PartNumber")?.parse().ok()?,
        etag: field(b"ETag")?.trim_matches('"').to_owned(),
        crc32: field(b"ChecksumCRC32").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_parts_is_read_and_nothing_else_is() {
        let text = "<?xml version=\"1.0\"?>\n<CompleteMultipartUpload xmlns=\"x\">\n<Part><ETag>&quot;a&quot;</ETag>\
                    <PartNumber>1</PartNumber></Part><Part><ChecksumCRC32>c==</ChecksumCRC32><ETag>b</ETag>\
                    <PartNumber>2</PartNumber></Part></CompleteMultipartUpload>";
        let part = |number, etag: &str, crc32: Option<&str>| CompletedPart {
            number,
            etag: etag.to_owned(),
            crc32: crc32.map(str::to_owned),
        };
        assert_eq!(parts(text.as_bytes()), Some(vec![part(1, "a", None), part(2, "b", Some("c=="))]));
        assert_eq!(
            parts(b"<CompleteMultipartUpload><Part><ETag>a</ETag></Part></CompleteMultipartUpload>"),
            None
        );
        assert_eq!(parts(&text.as_bytes()[..text.len() - 4]), None);
        assert_eq!(parts(b"<CompleteMultipartUpload/>"), Some(Vec::new()));
    }
}
