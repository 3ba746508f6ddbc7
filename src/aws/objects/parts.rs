//! S3's calls for uploads in parts, one by one.
//!
//! What is sent is compared by S3 with checksums: each part's, and that of the whole when the parts are put together.
//! They are CRC32s, as those of every other write here: the SDK computes them without a further feature, S3 takes them
//! for whole objects, and a body is signed with its SHA-256 beside that.
//!
//! Sources: "Uploading and copying objects using multipart upload" and "Checking object integrity for data uploads in
//! Amazon S3", Amazon S3 user guide; "CompleteMultipartUpload", API reference.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
use bytes::Bytes;

use super::{Cause, ObjectError, ObjectStore};
use crate::model::ETag;

const LIST: &str = "ListMultipartUploads";

/// An upload in parts that was begun, and neither finished nor ended: one that is under way, or that its machine left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The key of what it would have become, relative to the cluster's place.
    pub key: String,
    /// When it was begun, in milliseconds since 1970, by S3's clock.
    pub begun: i64,
    id: String,
}

/// What is to be put together.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) parts: Vec<CompletedPart>,
    pub(super) size: u64,
    pub(super) crc32: String,
}

impl ObjectStore {
    /// The uploads in parts below `prefix` that are not finished. S3 keeps what was sent of them, and charges for it,
    /// until they are ended.
    pub async fn abandoned_uploads(&self, prefix: &str) -> Result<Vec<UnfinishedUpload>, ObjectError> {
        let malformed = |why: &str| self.malformed(LIST, prefix, why);
        let mut uploads = Vec::new();
        let mut next: Option<(String, String)> = None;
        loop {
            let (key, id) = next.clone().unzip();
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(self.key(prefix))
                .set_key_marker(key)
                .set_upload_id_marker(id)
                .send()
                .await
                .map_err(|error| self.failed(LIST, prefix, Cause::new(&error)))?;
            for upload in page.uploads() {
                let begun = upload.initiated().and_then(|at| at.to_millis().ok());
                uploads.push(UnfinishedUpload {
                    key: self.relative(LIST, prefix, upload.key())?,
                    begun: begun.ok_or_else(|| malformed("an upload without a time"))?,
                    id: upload.upload_id().ok_or_else(|| malformed("an upload without an id"))?.to_owned(),
                });
            }
            if !page.is_truncated().ok_or_else(|| malformed("it does not say whether more is to come"))? {
                return Ok(uploads);
            }
            let markers = (page.next_key_marker(), page.next_upload_id_marker());
            match markers.0.zip(markers.1).map(|(key, id)| (key.to_owned(), id.to_owned())) {
                None => return Err(malformed("a page that is not the last, and no next one")),
                then if then == next => return Err(malformed("the same page twice")),
                then => next = then,
            }
        }
    }

    /// Ends an upload, and with it what was sent of it; that it has ended is as good. No object is removed by this.
    pub async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), ObjectError> {
        self.abort(&upload.key, &upload.id).await
    }

    /// Begins an upload; the answer is its id.
    pub(super) async fn begin(
        &self,
        key: &str,
        metadata: HashMap<String, String>,
    ) -> Result<String, ObjectError> {
        let operation = "CreateMultipartUpload";
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(key))
            .set_server_side_encryption(self.kms_key.as_ref().map(|_| ServerSideEncryption::AwsKms))
            .set_ssekms_key_id(self.kms_key.clone())
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .checksum_type(ChecksumType::FullObject)
            .set_metadata(Some(metadata))
            .send()
            .await
            .map_err(|error| self.failed(operation, key, Cause::new(&error)))?;
        let id = begun.upload_id().filter(|id| !id.is_empty());
        id.map(str::to_owned).ok_or_else(|| self.malformed(operation, key, "no id of the upload"))
    }

    /// Sends a part. Parts are counted from 1.
    pub(super) async fn send_part(
        &self,
        key: &str,
        id: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<CompletedPart, ObjectError> {
        let operation = "UploadPart";
        let sent = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.key(key))
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(self.long())
            .send()
            .await
            .map_err(|error| self.failed(operation, key, Cause::new(&error)))?;
        let etag = sent.e_tag().ok_or_else(|| self.malformed(operation, key, "no ETag"))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .set_checksum_crc32(sent.checksum_crc32().map(str::to_owned))
            .build())
    }

    /// Has the parts put together, if there is no such object. Its version is `None` when it is not told.
    pub(super) async fn complete(&self, key: &str, id: &str, whole: Whole) -> Result<Option<ETag>, Cause> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(whole.parts)).build();
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(key))
            .upload_id(id)
            .multipart_upload(parts)
            .checksum_crc32(whole.crc32)
            .checksum_type(ChecksumType::FullObject)
            .set_mpu_object_size(i64::try_from(whole.size).ok())
            .if_none_match("*")
            .customize()
            .config_override(self.long())
            .send()
            .await
            .map_err(|error| Cause::new(&error))?;
        Ok(completed.e_tag().and_then(|etag| etag.parse().ok()))
    }

    pub(super) async fn abort(&self, key: &str, id: &str) -> Result<(), ObjectError> {
        let ended = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(key))
            .upload_id(id)
            .send()
            .await;
        match ended.map_err(|error| Cause::new(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if cause.code() == Some("NoSuchUpload") => Ok(()),
            Err(cause) => Err(self.failed("AbortMultipartUpload", key, cause)),
        }
    }
}
