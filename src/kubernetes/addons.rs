//! Add-ons: files of YAML, and the objects that they mean.
//!
//! A file has documents, a document has one object or a `List` of them. Texts may have variables
//! ([`variables`]); what is in the API of an add-on is written down in its [`inventory`].
//!
//! The YAML is that of the Go programs that usually read such files in what matters for objects: `0644` is
//! octal, and a key that stands twice is an error. The words `yes`, `no`, `on` and `off` are texts, as in
//! YAML 1.2.
//!
//! What must not live here: reading files and asking the API; whether an add-on is wanted, applied or taken
//! away ([`crate::plan`]).

pub mod inventory;
#[cfg(test)]
mod tests;
pub mod variables;

use std::collections::BTreeSet;

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::digest;
use super::objects::MANAGED_BY;
use crate::config::settings::AddonName;
use crate::model::addons::{ADDON_LABEL, ObjectKey};

pub use variables::Variables;

/// The end of an add-on's file's name.
pub const ENDING: &str = ".yaml";

/// Where in a file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The document, from 1; those that are empty are not counted.
    pub document: usize,
    /// The line on which it begins, from 1.
    pub line: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "document {} (line {})", self.document, self.line)
    }
}

/// Why a text is no add-on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddonError {
    /// It is no UTF-8.
    #[error("it is no UTF-8")]
    Encoding,
    /// It is no YAML.
    #[error("{}it is no YAML: {what}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Syntax {
        /// Where, if the parser knows.
        line: Option<u64>,
        /// What the parser says.
        what: String,
    },
    /// A document is no object.
    #[error("{at}: it is no object but {found}")]
    NoObject {
        /// Where.
        at: Place,
        /// What it is.
        found: &'static str,
    },
    /// An object does not say what every object must.
    #[error("{at}: {what} has no {field}")]
    Missing {
        /// Where.
        at: Place,
        /// What is known of it.
        what: String,
        /// What it does not say.
        field: &'static str,
    },
    /// An object is there twice.
    #[error("{at}: {object} is there already, in {first}")]
    Duplicate {
        /// Where it is again.
        at: Place,
        /// Where it is first.
        first: Place,
        /// The object.
        object: String,
    },
    /// A variable that there is none of.
    #[error("{at}: there is no variable ${{{name}}}; there are {known}")]
    UnknownVariable {
        /// Where.
        at: Place,
        /// What it is called.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A variable that has no value in this cluster.
    #[error("{at}: ${{{name}}} has no value: {why}")]
    UnsetVariable {
        /// Where.
        at: Place,
        /// What it is called.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// There is no object.
    #[error("there is no object in it")]
    Empty,
}

/// An object of an add-on, as it should be in the API.
#[derive(Debug, Clone, PartialEq)]
pub struct AddonObject {
    /// Its group and version: `apps/v1`.
    pub api_version: String,
    /// What it is, with the namespace that the file has.
    pub key: ObjectKey,
    /// What it should say.
    pub value: Value,
}

/// An add-on, as its file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Addon {
    /// Its objects, in the order in which they are applied.
    pub objects: Vec<AddonObject>,
    /// SHA-256 of all that they say, in hexadecimal.
    pub digest: String,
}

/// The group in `apps/v1`; empty for the core's `v1`.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Addon {
    /// The add-on in the file's bytes.
    ///
    /// # Errors
    /// [`AddonError`], the first that there is.
    pub fn parse(name: &AddonName, bytes: &[u8], variables: &Variables) -> Result<Self, AddonError> {
        let text = std::str::from_utf8(bytes).map_err(|_| AddonError::Encoding)?;
        let mut found: Vec<(Place, AddonObject)> = Vec::new();
        for (index, document) in documents(text)?.into_iter().enumerate() {
            let at = Place { document: index + 1, line: document.referenced.line() };
            for mut value in flatten(document.value, at)? {
                variables.replace(&mut value, at)?;
                let object = object(name, value, at)?;
                if let Some((first, _)) = found.iter().find(|(_, other)| is_same(&other.key, &object.key)) {
                    let object = object.key.to_string();
                    return Err(AddonError::Duplicate { at, first: *first, object });
                }
                found.push((at, object));
            }
        }
        if found.is_empty() {
            return Err(AddonError::Empty);
        }
        let mut objects: Vec<AddonObject> = found.into_iter().map(|(_, object)| object).collect();
        // A stable sort: within a rank it is the file's order.
        objects.sort_by_key(|object| rank(&object.key));
        // JSON's keys are in order, so the same objects give the same text.
        let all = Value::Array(objects.iter().map(|object| object.value.clone()).collect());
        Ok(Self { digest: digest(all.to_string().as_bytes()), objects })
    }

    /// The keys of those objects that hold others' data.
    pub fn holds(&self) -> Vec<ObjectKey> {
        let keys: BTreeSet<&ObjectKey> = self.objects.iter().map(|object| &object.key).collect();
        keys.into_iter().filter(|key| key.holds_others_data()).cloned().collect()
    }
}

/// Whether two objects of a file are one: what names no namespace may be in `default`.
fn is_same(one: &ObjectKey, other: &ObjectKey) -> bool {
    let space = |key: &ObjectKey| key.namespace.clone().unwrap_or_else(|| "default".to_owned());
    (&one.group, &one.kind, &one.name) == (&other.group, &other.kind, &other.name)
        && space(one) == space(other)
}

fn documents(text: &str) -> Result<Vec<Spanned<Value>>, AddonError> {
    let options = serde_saphyr::options! {
        // The definitions of one of the larger operators are some hundred thousand nodes.
        budget: serde_saphyr::budget! { max_events: 8_000_000, max_nodes: 2_000_000, max_depth: 128 },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options).map_err(|error| {
        let told = UserMessageFormatter.format_message(&error);
        let what = told.split_whitespace().collect::<Vec<_>>().join(" ");
        AddonError::Syntax { line: error.location().map(|at| at.line()), what }
    })
}

/// The objects of a document.
fn flatten(document: Value, at: Place) -> Result<Vec<Value>, AddonError> {
    let Value::Object(mut fields) = document else {
        let found = match document {
            Value::Null => "nothing",
            Value::Array(_) => "a list",
            Value::Bool(_) | Value::Number(_) | Value::String(_) => "a single value",
            Value::Object(_) => "an object",
        };
        return Err(AddonError::NoObject { at, found });
    };
    if fields.get("kind").and_then(Value::as_str) != Some("List") {
        return Ok(vec![Value::Object(fields)]);
    }
    let items = match fields.remove("items") {
        Some(Value::Array(items)) => items,
        Some(Value::Null) => Vec::new(),
        Some(_) | None => {
            return Err(AddonError::Missing { at, what: "a List".to_owned(), field: "list of `items`" });
        }
    };
    let mut objects = Vec::new();
    for item in items {
        objects.extend(flatten(item, at)?);
    }
    Ok(objects)
}

/// The object with its labels.
fn object(addon: &AddonName, mut value: Value, at: Place) -> Result<AddonObject, AddonError> {
    let text = |pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let kind = text("/kind");
    let name = text("/metadata/name");
    let what = [kind.as_deref(), name.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let what = if what.is_empty() { "an object".to_owned() } else { what };
    let missing = |field| AddonError::Missing { at, what: what.clone(), field };
    let api_version = text("/apiVersion").ok_or_else(|| missing("apiVersion"))?;
    let key = ObjectKey {
        group: group_of(&api_version).to_owned(),
        kind: kind.ok_or_else(|| missing("kind"))?,
        namespace: text("/metadata/namespace"),
        name: name.ok_or_else(|| missing("metadata.name"))?,
    };
    // There is metadata, since there is a name.
    let labels = &mut value["metadata"]["labels"];
    if labels.is_null() {
        *labels = Value::Object(serde_json::Map::new());
    }
    let Some(labels) = labels.as_object_mut() else {
        return Err(missing("map of labels in `metadata.labels`"));
    };
    labels.entry(MANAGED_BY.0).or_insert_with(|| MANAGED_BY.1.into());
    labels.insert(ADDON_LABEL.to_owned(), addon.as_str().into());
    Ok(AddonObject { api_version, key, value })
}

/// What comes first: what others lie in, are of, or act as; and last what may refuse all others.
fn rank(key: &ObjectKey) -> u8 {
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
        ("", "ServiceAccount" | "ConfigMap" | "Secret" | "LimitRange" | "ResourceQuota")
        | ("rbac.authorization.k8s.io" | "scheduling.k8s.io" | "storage.k8s.io", _) => 2,
        ("admissionregistration.k8s.io", _) => 4,
        _ => 3,
    }
}
