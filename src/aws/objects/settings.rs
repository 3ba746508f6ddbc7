//! How the bucket is set up, for `quorate doctor bucket`. Nothing of it is needed for anything else.
//!
//! That something is not set up is a definite answer of S3's, by the codes that its API reference gives for each
//! operation; whatever else comes is an error. Nothing is changed.
//!
//! Source: `GetBucketLocation`, `GetBucketEncryption`, `GetBucketVersioning`, `GetPublicAccessBlock`, `GetBucketPolicyStatus`,
//! `GetBucketPolicy` and `GetBucketLifecycleConfiguration`, Amazon S3 API reference.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, ExpirationStatus, PolicyStatus,
    PublicAccessBlockConfiguration, ServerSideEncryptionConfiguration,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;

use super::{Cause, ObjectError, ObjectStore, Written};
use crate::model::ETag;

/// How a bucket encrypts what is written without a word on that.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketEncryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub algorithm: String,
    /// The KMS key; `None` for S3's own, or AWS' managed one.
    pub key: Option<String>,
}

/// What a bucket's lifecycle rules do that matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketLifecycle {
    /// Uploads that nobody finishes are ended.
    pub ends_uploads: bool,
    /// Versions that are not current any more are removed after a time.
    pub expires_versions: bool,
    /// Current objects are removed after a time.
    pub expires_objects: bool,
}

/// What S3 says to a read or a write that this role may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Allowed {
    /// It was not refused.
    Yes,
    /// It was refused.
    No,
}

impl ObjectStore {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The region that the bucket is in.
    pub async fn bucket_region(&self) -> Result<String, ObjectError> {
        const OPERATION: &str = "GetBucketLocation";
        let answer = self.client.get_bucket_location().bucket(&self.bucket).send().await;
        let answer = answer.map_err(|error| self.failed(OPERATION, "", Cause::new(&error)))?;
        Ok(match answer.location_constraint().map(BucketLocationConstraint::as_str) {
            // The two oldest ways to say it.
            None | Some("") => "us-east-1".to_owned(),
            Some("EU") => "eu-west-1".to_owned(),
            Some(region) => region.to_owned(),
        })
    }

    /// How the bucket encrypts by itself; `None` where it does not.
    pub async fn bucket_encryption(&self) -> Result<Option<BucketEncryption>, ObjectError> {
        const OPERATION: &str = "GetBucketEncryption";
        let answer = self.client.get_bucket_encryption().bucket(&self.bucket).send().await;
        let answer = match answer.map_err(|error| Cause::new(&error)) {
            Ok(answer) => answer,
            Err(cause) if cause.code() == Some("ServerSideEncryptionConfigurationNotFoundError") => {
                return Ok(None);
            }
            Err(cause) => return Err(self.failed(OPERATION, "", cause)),
        };
        let rules = answer
            .server_side_encryption_configuration()
            .map(ServerSideEncryptionConfiguration::rules)
            .unwrap_or_default();
        let default = rules.iter().find_map(|rule| rule.apply_server_side_encryption_by_default());
        Ok(default.map(|default| BucketEncryption {
            algorithm: default.sse_algorithm().as_str().to_owned(),
            key: default.kms_master_key_id().map(str::to_owned),
        }))
    }

    /// Whether the bucket keeps the versions of its objects.
    pub async fn bucket_versioning(&self) -> Result<bool, ObjectError> {
        const OPERATION: &str = "GetBucketVersioning";
        let answer = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        let answer = answer.map_err(|error| self.failed(OPERATION, "", Cause::new(&error)))?;
        Ok(answer.status() == Some(&BucketVersioningStatus::Enabled))
    }

    /// Which of the four blocks on public access are not set on the bucket itself, by their names.
    pub async fn bucket_open_to_public(&self) -> Result<Vec<String>, ObjectError> {
        const OPERATION: &str = "GetPublicAccessBlock";
        let answer = self.client.get_public_access_block().bucket(&self.bucket).send().await;
        let block = match answer.map_err(|error| Cause::new(&error)) {
            Ok(answer) => answer.public_access_block_configuration,
            Err(cause) if cause.code() == Some("NoSuchPublicAccessBlockConfiguration") => None,
            Err(cause) => return Err(self.failed(OPERATION, "", cause)),
        };
        let is_set = |of: fn(&PublicAccessBlockConfiguration) -> Option<bool>| {
            block.as_ref().and_then(of) == Some(true)
        };
        let blocks = [
            ("BlockPublicAcls", is_set(PublicAccessBlockConfiguration::block_public_acls)),
            ("IgnorePublicAcls", is_set(PublicAccessBlockConfiguration::ignore_public_acls)),
            ("BlockPublicPolicy", is_set(PublicAccessBlockConfiguration::block_public_policy)),
            ("RestrictPublicBuckets", is_set(PublicAccessBlockConfiguration::restrict_public_buckets)),
        ];
        Ok(blocks.into_iter().filter(|(_, is_set)| !is_set).map(|(name, _)| name.to_owned()).collect())
    }

    /// Whether S3 calls the bucket's policy public. A bucket without one is not.
    pub async fn bucket_policy_is_public(&self) -> Result<bool, ObjectError> {
        const OPERATION: &str = "GetBucketPolicyStatus";
        let answer = self.client.get_bucket_policy_status().bucket(&self.bucket).send().await;
        match answer.map_err(|error| Cause::new(&error)) {
            Ok(answer) => answer
                .policy_status()
                .and_then(PolicyStatus::is_public)
                .ok_or_else(|| self.malformed(OPERATION, "", "it does not say whether the policy is public")),
            Err(cause) if cause.code() == Some("NoSuchBucketPolicy") => Ok(false),
            Err(cause) => Err(self.failed(OPERATION, "", cause)),
        }
    }

    /// The bucket's policy, as JSON; `None` when it has none.
    pub async fn bucket_policy(&self) -> Result<Option<String>, ObjectError> {
        const OPERATION: &str = "GetBucketPolicy";
        let answer = self.client.get_bucket_policy().bucket(&self.bucket).send().await;
        match answer.map_err(|error| Cause::new(&error)) {
            Ok(answer) => Ok(answer.policy),
            Err(cause) if cause.code() == Some("NoSuchBucketPolicy") => Ok(None),
            Err(cause) => Err(self.failed(OPERATION, "", cause)),
        }
    }

    /// What the bucket's lifecycle rules do with the cluster's objects.
    pub async fn bucket_lifecycle(&self) -> Result<BucketLifecycle, ObjectError> {
        const OPERATION: &str = "GetBucketLifecycleConfiguration";
        let answer = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await;
        let rules = match answer.map_err(|error| Cause::new(&error)) {
            Ok(answer) => answer.rules.unwrap_or_default(),
            Err(cause) if cause.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
            Err(cause) => return Err(self.failed(OPERATION, "", cause)),
        };
        let mut found = BucketLifecycle::default();
        for rule in rules.iter().filter(|rule| rule.status() == &ExpirationStatus::Enabled) {
            let prefix = rule.filter().and_then(|filter| filter.prefix()).unwrap_or_default();
            // Of another cluster, or of a part of this one's objects that is narrower still.
            let all = self.root.starts_with(prefix);
            found.ends_uploads |= rule.abort_incomplete_multipart_upload().is_some()
                && (all || format!("{}backups/", self.root).starts_with(prefix));
            found.expires_versions |= rule.noncurrent_version_expiration().is_some();
            let expires = rule.expiration().is_some_and(|end| end.days().is_some() || end.date().is_some());
            found.expires_objects |= expires && (all || prefix.starts_with(&self.root));
        }
        Ok(found)
    }

    /// Whether this role may read below a key, by asking for that object and reading nothing of it. That there is no
    /// such object is an answer only to who may read it.
    pub async fn may_read(&self, key: &str) -> Result<Allowed, ObjectError> {
        match self.download(key).await {
            Ok(_) => Ok(Allowed::Yes),
            Err(ObjectError::AccessDenied { .. }) => Ok(Allowed::No),
            Err(error) => Err(error),
        }
    }

    /// Whether this role may write at a key, by a write on a condition that never holds: that the object there has a
    /// version which no object has. `Err` with [`ObjectError::Malformed`] where the condition is passed over.
    ///
    /// # Panics
    /// Never: the version is a constant that is one.
    pub async fn may_write(&self, key: &str) -> Result<Allowed, ObjectError> {
        #[expect(clippy::expect_used, reason = "a constant that is one")]
        let never: ETag = "\"00000000000000000000000000000000\"".parse().expect("an entity tag");
        match self.replace(key, b"{}".to_vec(), &never).await {
            Ok(Written::No) => Ok(Allowed::Yes),
            Ok(Written::Yes(_)) => {
                Err(self.malformed("PutObject", key, "it was written although its condition did not hold"))
            }
            Err(ObjectError::AccessDenied { .. }) => Ok(Allowed::No),
            Err(error) => Err(error),
        }
    }

    /// What S3's clock says, in milliseconds since 1970 and to the second; also where it refuses what is asked.
    pub async fn server_time(&self) -> Result<i64, ObjectError> {
        const OPERATION: &str = "GetBucketLocation";
        let date = DateOf::default();
        let asked = self.client.get_bucket_location().bucket(&self.bucket);
        let answer = asked.customize().interceptor(date.clone()).send().await;
        let told = date.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told {
            let parsed = DateTime::from_str(&told, Format::HttpDate).ok().and_then(|at| at.to_millis().ok());
            return parsed.ok_or_else(|| self.malformed(OPERATION, "", format!("its date is {told:?}")));
        }
        match answer {
            Ok(_) => Err(self.malformed(OPERATION, "", "it has no date")),
            Err(error) => Err(self.failed(OPERATION, "", Cause::new(&error))),
        }
    }
}

/// Keeps the date that an answer says.
#[derive(Debug, Clone, Default)]
struct DateOf(Arc<Mutex<Option<String>>>);

impl Intercept for DateOf {
    fn name(&self) -> &'static str {
        "DateOf"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
