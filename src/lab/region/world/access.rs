//! Who calls, and what they may do with objects.

use serde::{Deserialize, Serialize};

use super::compute::InstanceId;
use super::{Refusal, World};

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Caller {
    /// A person or a test, who may do anything.
    Operator,
    /// An instance, by its role.
    Instance {
        /// The instance.
        id: InstanceId,
        /// Its role.
        role: String,
    },
}

impl Caller {
    /// The calling instance, if one calls.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Operator => None,
            Self::Instance { id, .. } => Some(id),
        }
    }
}

/// What a role may do with the objects under a prefix. The longest prefix that fits decides; where
/// none fits, everything is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// The role.
    pub role: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix of the key; empty for the whole bucket.
    pub prefix: String,
    /// `s3:GetObject`.
    pub read: bool,
    /// `s3:PutObject` and `s3:DeleteObject`.
    pub write: bool,
    /// `s3:ListBucket`. Without it, a missing key is answered with 403 rather than 404.
    pub list: bool,
}

/// What is asked of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Write,
    List,
}

impl World {
    /// Who an access key id belongs to.
    pub fn caller(&self, access_key: &str) -> Option<Caller> {
        if self.config.operator_keys.iter().any(|k| k == access_key) {
            return Some(Caller::Operator);
        }
        let (id, role) = self.keys.get(access_key)?;
        Some(Caller::Instance { id: id.clone(), role: role.clone() })
    }

    /// Adds an access rule, in place of one for the same role, bucket and prefix.
    pub fn add_access_rule(&mut self, rule: AccessRule) {
        let same =
            |r: &AccessRule| (&r.role, &r.bucket, &r.prefix) == (&rule.role, &rule.bucket, &rule.prefix);
        self.rules.retain(|r| !same(r));
        self.rules.push(rule);
    }

    pub(super) fn may(&self, caller: &Caller, action: Action, bucket: &str, key: &str) -> bool {
        let Caller::Instance { role, .. } = caller else { return true };
        let fits = |r: &&AccessRule| r.role == *role && r.bucket == bucket && key.starts_with(&r.prefix);
        let rule = self.rules.iter().filter(fits).max_by_key(|r| r.prefix.len());
        rule.is_none_or(|r| match action {
            Action::Read => r.read,
            Action::Write => r.write,
            Action::List => r.list,
        })
    }

    pub(super) fn check(
        &self,
        caller: &Caller,
        action: Action,
        bucket: &str,
        key: &str,
    ) -> Result<(), Refusal> {
        if self.may(caller, action, bucket, key) {
            Ok(())
        } else {
            Err(Refusal::new(403, "AccessDenied", "Access Denied"))
        }
    }
}
