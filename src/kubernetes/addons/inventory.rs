//! The inventory of an add-on: a ConfigMap that says what the API has of it.
//!
//! Before anything is applied it lists what was there and what will be, and no digest; afterwards what is
//! there. So whatever is in the API is in the inventory, wherever the work was cut off, and what was cut off is
//! not taken for whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::group_of;
use crate::config::settings::AddonName;
use crate::kubernetes::objects::MANAGED_BY;
use crate::model::addons::{AddonFailure, ObjectKey};

/// The namespace of inventories.
pub const NAMESPACE: &str = "kube-system";
/// What an inventory's name begins with.
const PREFIX: &str = "quorate-addon-";
/// The label that tells inventories from all else that is ours, and its value.
pub const KIND_LABEL: (&str, &str) = ("quorate/kind", "addon-inventory");

const DIGEST: &str = "digest";
const OBJECTS: &str = "objects";
const FAILURE: &str = "failure";

/// Why a ConfigMap is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It does not have the name of one.
    #[error("{0:?} is no inventory's name")]
    Name(String),
    /// What it says can't be read.
    #[error("`{field}` of the inventory ConfigMap {NAMESPACE}/{name} can't be read")]
    Damaged {
        /// The ConfigMap.
        name: String,
        /// What of it.
        field: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// It can't be written down.
    #[error("writing an inventory as JSON")]
    Write(#[source] serde_json::Error),
}

/// An object in an inventory: where it is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The group and version by which it was applied.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace, where its kind has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl Entry {
    /// What it is, whatever the version.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: group_of(&self.api_version).to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// What the API has of an add-on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What was applied last as a whole; `None` while it is being applied.
    pub digest: Option<String>,
    /// The objects, in the order in which they were applied.
    pub objects: Vec<Entry>,
    /// Why the last try was not whole.
    pub failure: Option<AddonFailure>,
}

/// The inventory's name.
pub fn name_of(addon: &AddonName) -> String {
    format!("{PREFIX}{addon}")
}

/// The add-on whose inventory has this name.
///
/// # Errors
/// [`InventoryError::Name`].
pub fn addon_of(name: &str) -> Result<AddonName, InventoryError> {
    let addon = name.strip_prefix(PREFIX).and_then(|addon| addon.parse().ok());
    addon.ok_or_else(|| InventoryError::Name(name.to_owned()))
}

impl Inventory {
    /// What the ConfigMap says.
    ///
    /// # Errors
    /// [`InventoryError::Damaged`].
    pub fn read(map: &ConfigMap) -> Result<Self, InventoryError> {
        let data = map.data.as_ref();
        let field = |field: &str| data.and_then(|data| data.get(field)).map(String::as_str);
        let damaged = |field| {
            let name = map.metadata.name.clone().unwrap_or_default();
            move |source| InventoryError::Damaged { name, field, source }
        };
        let objects = serde_json::from_str(field(OBJECTS).unwrap_or_default()).map_err(damaged(OBJECTS))?;
        let failure = field(FAILURE).map(serde_json::from_str).transpose().map_err(damaged(FAILURE))?;
        let digest = field(DIGEST).filter(|digest| !digest.is_empty()).map(str::to_owned);
        Ok(Self { digest, objects, failure })
    }

    /// The ConfigMap that says it, in place of the one of this version.
    ///
    /// # Errors
    /// [`InventoryError::Write`].
    pub fn write(&self, addon: &AddonName, version: Option<String>) -> Result<ConfigMap, InventoryError> {
        let mut data = BTreeMap::from([
            (DIGEST.to_owned(), self.digest.clone().unwrap_or_default()),
            (OBJECTS.to_owned(), serde_json::to_string(&self.objects).map_err(InventoryError::Write)?),
        ]);
        if let Some(failure) = &self.failure {
            let failure = serde_json::to_string(failure).map_err(InventoryError::Write)?;
            data.insert(FAILURE.to_owned(), failure);
        }
        let labels = [MANAGED_BY, KIND_LABEL].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name_of(addon)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(labels.into()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        })
    }

    /// The same with these objects beside its own; each is there once, by its newest version.
    #[must_use]
    pub fn with(&self, objects: &[Entry]) -> Self {
        let mut union = self.clone();
        union.objects.retain(|had| !objects.iter().any(|has| has.key() == had.key()));
        union.objects.extend(objects.iter().cloned());
        union
    }

    /// Its objects that are not among these, what was applied last first.
    pub fn without(&self, objects: &[Entry]) -> Vec<Entry> {
        let gone = self.objects.iter().filter(|had| !objects.iter().any(|has| has.key() == had.key()));
        gone.rev().cloned().collect()
    }
}
