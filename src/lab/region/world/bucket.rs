//! How a bucket is set up, as far as the agent's doctor asks.

use std::collections::BTreeSet;

use super::access::Caller;
use super::{Refusal, World};

/// A bucket's settings. Of a new one: encrypted with S3's own keys, and no setting else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Where it is, when it is not in this region.
    pub region: Option<String>,
    /// The KMS key that it encrypts with.
    pub kms_key: Option<String>,
    /// Whether it keeps versions.
    pub versioning: bool,
    /// Whether all four blocks on public access are set.
    pub blocks_public: bool,
    /// Its policy.
    pub policy: Option<String>,
    /// Its lifecycle rules.
    pub lifecycle: Vec<LifecycleRule>,
    /// The roles that may not read its settings.
    pub hidden_from: BTreeSet<String>,
}

/// A lifecycle rule that is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    /// The prefix of the keys that it is about.
    pub prefix: String,
    /// After how many days unfinished uploads are ended.
    pub ends_uploads: Option<u32>,
    /// After how many days versions that are not current are removed.
    pub expires_versions: Option<u32>,
    /// After how many days objects are removed.
    pub expires_objects: Option<u32>,
}

impl World {
    /// Sets a bucket up.
    pub fn set_up_bucket(&mut self, name: &str, settings: BucketSettings) {
        self.bucket_settings.insert(name.to_owned(), settings);
    }

    /// How a bucket is set up, for who may know.
    pub fn bucket_settings(&self, caller: &Caller, name: &str) -> Result<BucketSettings, Refusal> {
        self.bucket(name)?;
        let settings = self.bucket_settings.get(name).cloned().unwrap_or_default();
        match caller {
            Caller::Instance { role, .. } if settings.hidden_from.contains(role) => {
                Err(Refusal::new(403, "AccessDenied", "Access Denied"))
            }
            Caller::Operator | Caller::Instance { .. } => Ok(settings),
        }
    }
}
