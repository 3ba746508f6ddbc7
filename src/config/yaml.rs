//! A YAML document as a tree that knows where each of its nodes stands.
//!
//! Fragments are read into this tree and not into a struct, because a struct's deserialiser stops at its first
//! error and an operator wants to see them all. What the keys mean is not known here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Location, MergeKeyPolicy, MessageFormatter, Spanned, UserMessageFormatter,
};

use super::errors::{ConfigError, Origin, Position, Problem};
use super::fragments::Fragment;

/// No configuration is nested deeper; bounds the parser's stack.
const MAX_DEPTH: usize = 16;

/// A node and where it stands.
pub(super) type Node = Spanned<Yaml>;

/// A node of the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys in the order of the document, given twice as often as they are.
    Map(Vec<(Spanned<String>, Node)>),
}

impl Yaml {
    /// What the node is, in words: for errors.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "empty".to_owned(),
            Self::Bool(value) => format!("the truth value `{value}`"),
            Self::Integer(value) => format!("the number `{value}`"),
            Self::Float(value) => format!("the number `{value}`"),
            Self::Text(text) => format!("the text `{}`", shorten(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a section".to_owned(),
        }
    }
}

/// A value fit to be shown on one line.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    let short: String = text.chars().take(LONGEST).collect();
    let rest = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    printable(&short) + rest
}

/// The text with its control characters escaped.
fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut printable, c| {
        if c.is_control() {
            printable.extend(c.escape_debug());
        } else {
            printable.push(c);
        }
        printable
    })
}

/// Where a node stands, if the parser knows.
pub(super) fn position(location: Location) -> Option<Position> {
    (location != Location::UNKNOWN).then(|| Position { line: location.line(), column: location.column() })
}

/// Reads the one document of a fragment.
pub(super) fn parse(fragment: &Fragment) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Node>(&fragment.text, options).map_err(|error| {
        let what = printable(&UserMessageFormatter.format_message(&error));
        let position = error.location().and_then(position);
        ConfigError::new(Origin { source: fragment.source.clone(), position }, Problem::Syntax { what })
            .hint("mind indentation, colons and quotes; one document per source")
    })
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Yaml::Map(map))
    }
}
