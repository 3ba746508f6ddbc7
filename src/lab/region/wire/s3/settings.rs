//! What S3 says of a bucket's settings.

use axum::body::Bytes;

use super::super::Answer;
use super::super::xml::Xml;
use super::{NAMESPACE, ObjectRequest};
use crate::lab::region::world::{BucketSettings, Caller, Refusal, World};

/// The settings that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Location,
    Encryption,
    Versioning,
    PublicAccessBlock,
    PolicyStatus,
    Policy,
    Lifecycle,
}

impl Setting {
    /// All of them, by the query that asks for each.
    const ALL: [(&str, Self, &str); 7] = [
        ("location", Self::Location, "GetBucketLocation"),
        ("encryption", Self::Encryption, "GetBucketEncryption"),
        ("versioning", Self::Versioning, "GetBucketVersioning"),
        ("publicAccessBlock", Self::PublicAccessBlock, "GetPublicAccessBlock"),
        ("policyStatus", Self::PolicyStatus, "GetBucketPolicyStatus"),
        ("policy", Self::Policy, "GetBucketPolicy"),
        ("lifecycle", Self::Lifecycle, "GetBucketLifecycleConfiguration"),
    ];

    /// The setting that a query asks for.
    pub(super) fn asked(has: impl Fn(&str) -> bool) -> Option<Self> {
        Self::ALL.into_iter().find(|(query, ..)| has(query)).map(|(_, setting, _)| setting)
    }

    pub(super) fn query(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, setting, _)| *setting == self).map_or("", |(query, ..)| query)
    }

    pub(super) fn operation(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, setting, _)| *setting == self).map_or("", |(.., operation)| operation)
    }
}

impl ObjectRequest {
    pub(super) fn setting(
        &self,
        setting: Setting,
        world: &World,
        caller: &Caller,
    ) -> Result<Answer, Refusal> {
        let found = world.bucket_settings(caller, &self.bucket)?;
        let missing = |code, message: &str| Err(Refusal::new(404, code, message));
        let document = |name: &str, content: &dyn Fn(&mut Xml)| {
            Ok(Answer::xml(200, Xml::document(name, NAMESPACE, |x| content(x))))
        };
        match setting {
            Setting::Location => {
                let region = found.region.clone().unwrap_or_else(|| world.config().region.clone());
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint xmlns=\"{NAMESPACE}\">{region}\
                     </LocationConstraint>"
                );
                Ok(Answer::xml(200, body))
            }
            Setting::Encryption => document("ServerSideEncryptionConfiguration", &|x| {
                x.node("Rule", |x| {
                    x.node("ApplyServerSideEncryptionByDefault", |x| {
                        x.text("SSEAlgorithm", if found.kms_key.is_some() { "aws:kms" } else { "AES256" });
                        x.maybe("KMSMasterKeyID", found.kms_key.as_ref());
                    });
                    x.text("BucketKeyEnabled", false);
                });
            }),
            Setting::Versioning => document("VersioningConfiguration", &|x| {
                x.maybe("Status", found.versioning.then_some("Enabled"));
            }),
            Setting::PublicAccessBlock if found.blocks_public => {
                document("PublicAccessBlockConfiguration", &|x| {
                    for block in
                        ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"]
                    {
                        x.text(block, true);
                    }
                })
            }
            Setting::PublicAccessBlock => missing(
                "NoSuchPublicAccessBlockConfiguration",
                "The public access block configuration was not found",
            ),
            Setting::Policy | Setting::PolicyStatus if found.policy.is_none() => {
                missing("NoSuchBucketPolicy", "The bucket policy does not exist")
            }
            Setting::PolicyStatus => document("PolicyStatus", &|x| x.text("IsPublic", is_public(&found))),
            Setting::Policy => {
                let policy = Bytes::from(found.policy.unwrap_or_default());
                Ok(Answer { body: policy, ..Answer::empty(200) }.with("content-type", "application/json"))
            }
            Setting::Lifecycle if found.lifecycle.is_empty() => {
                missing("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
            }
            Setting::Lifecycle => document("LifecycleConfiguration", &|x| {
                for rule in &found.lifecycle {
                    x.node("Rule", |x| {
                        x.node("Filter", |x| x.text("Prefix", &rule.prefix));
                        x.text("Status", "Enabled");
                        if let Some(days) = rule.ends_uploads {
                            x.node("AbortIncompleteMultipartUpload", |x| x.text("DaysAfterInitiation", days));
                        }
                        if let Some(days) = rule.expires_versions {
                            x.node("NoncurrentVersionExpiration", |x| x.text("NoncurrentDays", days));
                        }
                        if let Some(days) = rule.expires_objects {
                            x.node("Expiration", |x| x.text("Days", days));
                        }
                    });
                }
            }),
        }
    }
}

/// S3 weighs conditions, too; here, everybody without one is public.
/// Source: "The meaning of 'public'", Amazon S3 user guide.
fn is_public(settings: &BucketSettings) -> bool {
    let policy: serde_json::Value =
        serde_json::from_str(settings.policy.as_deref().unwrap_or_default()).unwrap_or_default();
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    statements.iter().any(|statement| {
        let everybody = statement["Principal"] == "*" || statement["Principal"]["AWS"] == "*";
        statement["Effect"] == "Allow" && everybody && statement["Condition"].is_null()
    })
}
