//! What each call needs to be permitted, as IAM would be asked: the record that roles' policies are held against.
//!
//! Nothing is refused here. The laboratory's own rules about objects are in `access`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::World;
use super::access::Caller;

/// One question to IAM. A call asks one for each kind of resource that it touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The caller's role.
    pub role: String,
    /// Such as `ec2:AttachVolume`.
    pub action: String,
    /// An ARN, or `*` for actions that know no resources.
    pub resource: String,
    /// The condition keys, such as `aws:ResourceTag/quorate:cluster`.
    pub context: BTreeMap<String, String>,
}

/// A question without who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The action.
    pub action: String,
    /// The resource.
    pub resource: String,
    /// The condition keys.
    pub context: BTreeMap<String, String>,
}

impl World {
    /// Keeps what an instance's call needs. Operators may do anything.
    pub fn note_needed(&mut self, caller: &Caller, needed: Vec<Needed>) {
        let Caller::Instance { role, .. } = caller else { return };
        for Needed { action, resource, context } in needed {
            self.authorizations.insert(Authorization { role: role.clone(), action, resource, context });
        }
    }

    /// What instances' calls needed until now, each once.
    pub fn authorizations(&self) -> &BTreeSet<Authorization> {
        &self.authorizations
    }
}
