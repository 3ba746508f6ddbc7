//! Listings: all of their pages, or an error.
//!
//! Half a listing would say of the other half that it is not there, so a page that does not say whether more is to
//! come, or names no next one, is no answer.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use super::{Cause, ObjectError, ObjectStore};

const OPERATION: &str = "ListObjectsV2";

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key, relative to the cluster's place.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970, by S3's clock.
    pub modified: i64,
}

/// What is listed.
#[derive(Debug, Clone, Copy)]
struct Listing<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    delimiter: Option<&'a str>,
}

impl ObjectStore {
    /// Whether there is any object whose key starts so.
    pub async fn any(&self, prefix: &str) -> Result<bool, ObjectError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.key(prefix))
            .max_keys(1)
            .send()
            .await
            .map_err(|error| self.failed(OPERATION, prefix, Cause::new(&error)))?;
        match (page.contents().is_empty(), page.is_truncated()) {
            (false, _) => Ok(true),
            (true, Some(true)) => {
                Err(self.malformed(OPERATION, prefix, "an empty page that is not the last"))
            }
            (true, _) => Ok(false),
        }
    }

    /// The keys that start so, in order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        Ok(self.objects(prefix).await?.into_iter().map(|object| object.key).collect())
    }

    /// The objects whose keys start so, in the keys' order.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.list_from(prefix, None).await
    }

    /// The same, of those only whose keys come after this one, be there such an object or not.
    pub async fn list_after(&self, prefix: &str, start_after: &str) -> Result<Vec<Listed>, ObjectError> {
        self.list_from(prefix, Some(start_after)).await
    }

    /// What comes up to the next `/` in the keys that start so, with that `/`, each once and in order: below
    /// `backups/1/` the chains of a generation, without all their segments.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let mut folders = Vec::new();
        self.pages(Listing { prefix, after: None, delimiter: Some("/") }, |page| {
            for folder in page.common_prefixes() {
                folders.push(self.relative(OPERATION, prefix, folder.prefix())?);
            }
            Ok(())
        })
        .await?;
        Ok(folders)
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, ObjectError> {
        let mut listed = Vec::new();
        self.pages(Listing { prefix, after, delimiter: None }, |page| {
            for object in page.contents() {
                let malformed = |why: &str| self.malformed(OPERATION, prefix, why);
                let size = object.size().and_then(|size| u64::try_from(size).ok());
                let modified = object.last_modified().and_then(|at| at.to_millis().ok());
                listed.push(Listed {
                    key: self.relative(OPERATION, prefix, object.key())?,
                    size: size.ok_or_else(|| malformed("an object without a size"))?,
                    modified: modified.ok_or_else(|| malformed("an object without a time"))?,
                });
            }
            Ok(())
        })
        .await?;
        Ok(listed)
    }

    /// Asks for page after page, to the last.
    async fn pages(
        &self,
        of: Listing<'_>,
        mut take: impl FnMut(&ListObjectsV2Output) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let malformed = |why: &str| self.malformed(OPERATION, of.prefix, why);
        let mut token: Option<String> = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(self.key(of.prefix))
                .set_delimiter(of.delimiter.map(str::to_owned))
                .set_start_after(of.after.map(|key| self.key(key)))
                .set_continuation_token(token.clone())
                .send()
                .await
                .map_err(|error| self.failed(OPERATION, of.prefix, Cause::new(&error)))?;
            take(&page)?;
            if !page.is_truncated().ok_or_else(|| malformed("it does not say whether more is to come"))? {
                return Ok(());
            }
            match page.next_continuation_token().map(str::to_owned) {
                None => return Err(malformed("a page that is not the last, and no next one")),
                next if next == token => return Err(malformed("the same page twice")),
                next => token = next,
            }
        }
    }

    /// A key as it is listed, relative to the cluster's place.
    pub(super) fn relative(
        &self,
        operation: &'static str,
        asked: &str,
        key: Option<&str>,
    ) -> Result<String, ObjectError> {
        let key = key.and_then(|key| key.strip_prefix(&self.root));
        key.map(str::to_owned).ok_or_else(|| self.malformed(operation, asked, "a key from elsewhere"))
    }
}
