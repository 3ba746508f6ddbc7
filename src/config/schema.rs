//! The JSON Schema (draft 2020-12) of a fragment, made from the table of keys, for editors and for checking files
//! where quorate is not installed.
//!
//! No key is required in it: a fragment may set any part. JSON Schema cannot compare durations and sizes, so their
//! ranges stand in the description and in `x-minimum` and `x-maximum`.

use serde_json::{Map, Value, json};

use super::keys::{Default, Key, Kind, RETENTION_REVISIONS, RETENTION_SPAN};
use super::lookup;
use super::values::Chance;

const DURATION_PATTERN: &str =
    "^([0-9]+(h([0-9]+m)?([0-9]+s)?([0-9]+ms)?|m([0-9]+s)?([0-9]+ms)?|s([0-9]+ms)?|ms))$";
const SIZE_PATTERN: &str = "^[0-9]+(TiB|GiB|MiB|KiB|B)$";

/// The JSON Schema of a fragment.
pub fn schema() -> Value {
    let mut schema = section("");
    if let Value::Object(top) = &mut schema {
        top.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        top.insert("title".to_owned(), json!("quorate configuration fragment"));
    }
    schema
}

fn section(path: &str) -> Value {
    let properties: Map<String, Value> = lookup::children(path)
        .into_iter()
        .map(|name| {
            let full = lookup::join(path, name);
            let schema = lookup::find(&full).map_or_else(|| section(&full), leaf);
            (name.to_owned(), schema)
        })
        .collect();
    // An empty section, all its lines commented out, is fine.
    let kind = if path.is_empty() { json!("object") } else { json!(["object", "null"]) };
    json!({ "type": kind, "additionalProperties": false, "properties": properties })
}

fn leaf(key: &Key) -> Value {
    let mut schema = match &key.kind {
        Kind::Text(rule) => json!({ "type": "string", "pattern": rule.pattern, "examples": [rule.example] }),
        Kind::List(rule) => json!({
            "type": "array",
            "items": { "type": "string", "pattern": rule.pattern, "examples": [rule.example] },
            "uniqueItems": true,
        }),
        Kind::Document(_) => json!({ "type": "string", "contentMediaType": "application/yaml" }),
        Kind::Fraction { min, max } => json!({
            "type": "number",
            "minimum": number(*min),
            "maximum": number(*max),
        }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Count(numbers) => json!({ "type": "integer", "enum": numbers }),
        Kind::Integer { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration { min, max } => json!({
            "type": "string",
            "pattern": DURATION_PATTERN,
            "x-minimum": min.to_string(),
            "x-maximum": max.to_string(),
        }),
        Kind::Size { min, max, .. } => json!({
            "type": "string",
            "pattern": SIZE_PATTERN,
            "x-minimum": min.to_string(),
            "x-maximum": max.to_string(),
        }),
        Kind::Retention => json!({ "oneOf": [
            {
                "type": "string",
                "pattern": DURATION_PATTERN,
                "x-minimum": RETENTION_SPAN.0.to_string(),
                "x-maximum": RETENTION_SPAN.1.to_string(),
            },
            { "type": "integer", "minimum": RETENTION_REVISIONS.0, "maximum": RETENTION_REVISIONS.1 },
        ] }),
    };
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), json!(description(key)));
        if let Default::Value(text) = key.default {
            let value = match &key.kind {
                Kind::Count(_) | Kind::Integer { .. } => {
                    text.parse::<u64>().map_or(json!(text), |n| json!(n))
                }
                Kind::Fraction { .. } => text.parse().map_or(json!(text), number),
                Kind::Text(_)
                | Kind::List(_)
                | Kind::Document(_)
                | Kind::Choice(_)
                | Kind::Duration { .. }
                | Kind::Size { .. }
                | Kind::Retention => json!(text),
            };
            fields.insert("default".to_owned(), value);
        }
    }
    schema
}

/// As JSON writes it.
fn number(chance: Chance) -> Value {
    serde_json::from_str(&chance.to_string()).unwrap_or_default()
}

fn description(key: &Key) -> String {
    let values = match &key.kind {
        Kind::Text(_) | Kind::List(_) | Kind::Document(_) => String::new(),
        kind => format!(" Takes {}.", kind.expected().replace('`', "")),
    };
    let unset = match key.default {
        Default::Required => " Required in the whole configuration.".to_owned(),
        Default::Unset(meaning) => format!(" When not set: {meaning}."),
        Default::Value(_) => String::new(),
    };
    format!("{}{values}{unset}", key.doc)
}
