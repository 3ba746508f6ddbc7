//! The variables that an add-on's texts may have: `${QUORATE_…}`.
//!
//! They are replaced in values that are texts, once: a value that looks like a variable is none. Whatever
//! else begins with `${` is some other program's and left alone.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AddonError, Place};
use crate::config::settings::{ApiEndpoint, KubernetesSettings};
use crate::model::ids::{ClusterName, Region};

/// What all variables begin with.
const PREFIX: &str = "QUORATE_";

/// The variables and their values, or why they have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables(BTreeMap<&'static str, Result<String, &'static str>>);

impl Variables {
    /// The variables of a cluster whose API is reached there.
    pub fn of(
        cluster: &ClusterName,
        region: &Region,
        settings: &KubernetesSettings,
        endpoint: &ApiEndpoint,
    ) -> Self {
        let pods = settings.pod_subnet.map(|pods| pods.to_string());
        Self(BTreeMap::from([
            ("QUORATE_CLUSTER_NAME", Ok(cluster.to_string())),
            ("QUORATE_REGION", Ok(region.to_string())),
            ("QUORATE_CLUSTER_DNS", Ok(settings.service_subnet.dns().to_string())),
            ("QUORATE_CLUSTER_DOMAIN", Ok(settings.cluster_domain.to_string())),
            ("QUORATE_SERVICE_SUBNET", Ok(settings.service_subnet.to_string())),
            ("QUORATE_CLOUD_ROUTES", Ok(pods.is_some().to_string())),
            ("QUORATE_CLUSTER_CIDR", Ok(pods.clone().unwrap_or_default())),
            ("QUORATE_POD_SUBNET", pods.ok_or("`kubernetes.podSubnet` is not set")),
            ("QUORATE_API_HOST", Ok(endpoint.host().to_owned())),
            ("QUORATE_API_PORT", Ok(endpoint.port().to_string())),
            ("QUORATE_IMAGE_REPOSITORY", Ok(settings.image_repository.to_string())),
        ]))
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    /// Puts the values in the place of the variables, in all texts below.
    pub(super) fn replace(&self, value: &mut Value, at: Place) -> Result<(), AddonError> {
        match value {
            Value::String(text) => {
                if let Some(replaced) = self.text(text, at)? {
                    *text = replaced;
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.replace(item, at)),
            Value::Object(fields) => fields.values_mut().try_for_each(|item| self.replace(item, at)),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    /// The text with its variables replaced; `None` when it has none.
    fn text(&self, text: &str, at: Place) -> Result<Option<String>, AddonError> {
        const OPEN: &str = "${QUORATE_";
        if !text.contains(OPEN) {
            return Ok(None);
        }
        let mut replaced = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            replaced.push_str(before);
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            let name = format!("{PREFIX}{name}");
            let Some(tail) = tail.strip_prefix('}') else {
                return Err(self.unknown(at, &name));
            };
            match self.0.get(name.as_str()) {
                Some(Ok(value)) => replaced.push_str(value),
                Some(Err(why)) => return Err(AddonError::UnsetVariable { at, name, why }),
                None => return Err(self.unknown(at, &name)),
            }
            rest = tail;
        }
        replaced.push_str(rest);
        Ok(Some(replaced))
    }

    fn unknown(&self, at: Place, name: &str) -> AddonError {
        AddonError::UnknownVariable { at, name: name.to_owned(), known: self.names().join(", ") }
    }
}
