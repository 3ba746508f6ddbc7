//! What S3 can say instead of an answer, by name, and what to do about it.

use super::super::Cause;

/// S3 gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such bucket.
    #[error("S3 {operation} of {object}: there is no such bucket; create it, or correct the configuration")]
    NoSuchBucket {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The bucket is in another region, or behind another endpoint.
    #[error("S3 {operation} of {object}: the bucket is in another region; use one of this region")]
    OtherRegion {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The instance's role does not allow it.
    #[error(
        "S3 {operation} of {object}: access denied; allow {} there to the instance's role, and the use of the KMS \
         key if there is one",
        needed(operation)
    )]
    AccessDenied {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// This machine's clock is too far from S3's.
    #[error(
        "S3 {operation} of {object}: this machine's clock is wrong; set it, by chrony or systemd-timesyncd"
    )]
    ClockSkewed {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The credentials are unknown to AWS, expired or revoked.
    #[error("S3 {operation} of {object}: the credentials are not valid; check the instance's role")]
    BadCredentials {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The KMS key can't be used.
    #[error("S3 {operation} of {object}: the KMS key can't be used; check that it exists and is enabled")]
    Key {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// S3 asks to be called less often.
    #[error("S3 {operation} of {object}: throttled; it is tried again later")]
    Throttled {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// Other conditional writes of the same object were in the way, several times over.
    #[error("S3 {operation} of {object}: other writers are in the way; it is tried again later")]
    Conflict {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// There is such an object already, and it is another's.
    #[error("S3 write of {object}: there is such an object already, and it is left as it is")]
    Exists {
        /// The object, as a URL.
        object: String,
    },
    /// The object is not any more what it was when its reading began.
    #[error("S3 {operation} of {object}: it was changed or removed while it was read; it is to be read anew")]
    ChangedMeanwhile {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The object is not removed: the role may not, or the bucket keeps it (Object Lock, a policy).
    #[error(
        "S3 {operation} of {object}: refused, so it stays; allow s3:DeleteObject on the cluster's backups/ to the \
         instance's role, unless the bucket is to keep it"
    )]
    Kept {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// An upload failed, and so did ending it: the parts that were sent are still there.
    #[error(
        "S3 upload of {object} failed, and its parts are still in the bucket, since AbortMultipartUpload failed too ({why})"
    )]
    PartsLeft {
        /// The object, as a URL.
        object: String,
        /// Why the parts are still there.
        why: String,
        /// Why the upload failed.
        #[source]
        source: Box<ObjectError>,
    },
    /// The upload had failed before.
    #[error("S3 upload of {object}: it failed before, and takes no more")]
    UploadOver {
        /// The object, as a URL.
        object: String,
    },
    /// No answer, or one that says nothing about the request.
    #[error("S3 {operation} of {object}: no answer; it is tried again later")]
    NoAnswer {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What happened.
        #[source]
        source: Cause,
    },
    /// The answer to a conditional write was lost, and the object is still as it was before: the
    /// write may yet arrive.
    #[error(
        "S3 write of {object}: no answer, and the object is as it was: whether it was written is not known"
    )]
    Unsettled {
        /// The object, as a URL.
        object: String,
        /// What happened to the write.
        #[source]
        source: Cause,
    },
    /// The answer to a conditional write was lost or ambiguous, and so was the object when read back.
    #[error("S3 write of {object}: whether it was written is not known, since it can't be read back")]
    ReadBack {
        /// The object, as a URL.
        object: String,
        /// What happened to the reading.
        #[source]
        source: Box<ObjectError>,
    },
    /// Any other refusal; also a 404 that does not say that the key is missing.
    #[error("S3 {operation} of {object}: refused; check the bucket, and AWS_ENDPOINT_URL_S3 if it is set")]
    Refused {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What S3 said.
        #[source]
        source: Cause,
    },
    /// The answer is not what it should be.
    #[error("S3 {operation} of {object}: unexpected answer: {why}")]
    Malformed {
        /// S3's name of the operation.
        operation: &'static str,
        /// The object, as a URL.
        object: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What an operation needs. Without `s3:ListBucket`, what is missing is denied as well.
fn needed(operation: &str) -> &'static str {
    match operation {
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
        "GetBucketLocation" => "s3:GetBucketLocation",
        "GetBucketEncryption" => "s3:GetEncryptionConfiguration",
        "GetBucketVersioning" => "s3:GetBucketVersioning",
        "GetPublicAccessBlock" => "s3:GetBucketPublicAccessBlock",
        "GetBucketPolicyStatus" => "s3:GetBucketPolicyStatus",
        "GetBucketPolicy" => "s3:GetBucketPolicy",
        "GetBucketLifecycleConfiguration" => "s3:GetLifecycleConfiguration",
        _ => "s3:GetObject, s3:PutObject and s3:ListBucket",
    }
}

impl ObjectError {
    /// The error that a cause means.
    pub(super) fn new(operation: &'static str, object: String, source: Cause) -> Self {
        if source.is_throttled() {
            return Self::Throttled { operation, object, source };
        }
        if source.is_clock_skew() {
            return Self::ClockSkewed { operation, object, source };
        }
        match (source.status(), source.code()) {
            (_, Some("NoSuchBucket")) => Self::NoSuchBucket { operation, object, source },
            (
                _,
                Some(
                    "PermanentRedirect"
                    | "AuthorizationHeaderMalformed"
                    | "IllegalLocationConstraintException",
                ),
            )
            | (Some(301), _) => Self::OtherRegion { operation, object, source },
            (
                _,
                Some(
                    "ExpiredToken"
                    | "InvalidAccessKeyId"
                    | "InvalidToken"
                    | "SignatureDoesNotMatch"
                    | "TokenRefreshRequired",
                ),
            ) => Self::BadCredentials { operation, object, source },
            (_, Some(code)) if code.starts_with("KMS.") => Self::Key { operation, object, source },
            (Some(409), _) => Self::Conflict { operation, object, source },
            _ if source.is_denied() => Self::AccessDenied { operation, object, source },
            _ if source.is_retryable() => Self::NoAnswer { operation, object, source },
            _ => Self::Refused { operation, object, source },
        }
    }

    /// Whether the object was not written because there is another's already.
    pub fn is_exists(&self) -> bool {
        match self {
            Self::Exists { .. } => true,
            Self::PartsLeft { source, .. } => source.is_exists(),
            _ => false,
        }
    }

    /// Whether the same call may well succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ClockSkewed { .. }
            | Self::Throttled { .. }
            | Self::Conflict { .. }
            | Self::NoAnswer { .. }
            | Self::ChangedMeanwhile { .. }
            | Self::Unsettled { .. } => true,
            // Old credentials are replaced by themselves, others only by somebody.
            Self::BadCredentials { source, .. } => {
                matches!(source.code(), Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"))
            }
            Self::ReadBack { source, .. } | Self::PartsLeft { source, .. } => source.is_retryable(),
            Self::Exists { .. }
            | Self::Kept { .. }
            | Self::UploadOver { .. }
            | Self::NoSuchBucket { .. }
            | Self::OtherRegion { .. }
            | Self::AccessDenied { .. }
            | Self::Key { .. }
            | Self::Refused { .. }
            | Self::Malformed { .. } => false,
        }
    }
}
