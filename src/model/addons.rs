//! What is seen of add-ons: their files on this machine, and what the API has of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fact::Fact;
use crate::config::settings::AddonName;

/// The label of every object of an add-on; its value is the add-on's name.
pub const ADDON_LABEL: &str = "quorate/addon";

/// Where an add-on's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddonPlace {
    /// Baked in the image; applied where the settings name it.
    Shipped,
    /// Put there by the operator; always applied.
    Operators,
}

impl AddonPlace {
    /// The directory on the machine.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Shipped => "/usr/lib/quorate/addons",
            Self::Operators => "/etc/quorate/addons",
        }
    }
}

/// An object in the API, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectKey {
    /// The group; empty for the core's.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace, where there is one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// Whether the object of a file is the one that was found in the API. One of a namespaced kind that names
    /// no namespace is in `default`.
    pub fn is_found_as(&self, found: &Self) -> bool {
        let written = self.namespace.as_deref().unwrap_or("default");
        (&self.group, &self.kind, &self.name) == (&found.group, &found.kind, &found.name)
            && found.namespace.as_deref().is_none_or(|found| found == written)
    }

    /// Whether it holds what others put there, so that taking it away would take theirs with it. Such
    /// objects are never taken away.
    pub fn holds_others_data(&self) -> bool {
        matches!(
            (self.group.as_str(), self.kind.as_str()),
            ("", "Namespace" | "PersistentVolume" | "PersistentVolumeClaim")
                | ("apiextensions.k8s.io", "CustomResourceDefinition")
        )
    }
}

/// `Deployment kube-system/coredns`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// An add-on's file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AddonFile {
    /// It can be applied.
    Fit {
        /// SHA-256 of its objects with the variables replaced, in hexadecimal.
        digest: String,
        /// Those of its objects that hold others' data.
        holds: Vec<ObjectKey>,
    },
    /// It can't; the text says why.
    Unfit(String),
}

/// The add-ons in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonDirectory {
    /// By name.
    pub files: BTreeMap<AddonName, AddonFile>,
    /// Files whose names are no add-on's, and what is wrong with them.
    pub misnamed: BTreeMap<String, String>,
}

/// What the API has of an add-on, by the inventory that is kept there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedAddon {
    /// What was applied last as a whole; `None` when nothing was yet, or the last try was not whole.
    pub digest: Option<String>,
    /// How many objects the add-on has there.
    pub objects: usize,
    /// Those that are not there any more. Asked for by whoever looks after them.
    pub missing: Fact<Vec<ObjectKey>>,
    /// Why the last try was not whole; `None` when it was.
    pub failure: Option<AddonFailure>,
}

/// Why an add-on is not in the API as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonFailure {
    /// What was to be applied; `None` when the add-on was to be taken away.
    pub digest: Option<String>,
    /// Since when this fails, in milliseconds since 1970.
    pub since: i64,
    /// When it was tried last, in milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub why: String,
}

/// An object with the label of an add-on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelledObject {
    /// The add-on, by the label.
    pub addon: String,
    /// The object.
    pub object: ObjectKey,
}

/// What is seen of add-ons.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonsObservation {
    /// The files in the image.
    pub shipped: Fact<AddonDirectory>,
    /// The operator's files.
    pub operators: Fact<AddonDirectory>,
    /// What the API has; an inventory that can't be understood is not known.
    pub applied: Fact<BTreeMap<AddonName, Fact<AppliedAddon>>>,
    /// The objects in the API that carry the label and hold others' data. Asked for by whoever looks after
    /// them.
    pub holding: Fact<Vec<LabelledObject>>,
}

impl AddonsObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self {
            shipped: Fact::unknown(why),
            operators: Fact::unknown(why),
            applied: Fact::unknown(why),
            holding: Fact::unknown(why),
        }
    }
}
