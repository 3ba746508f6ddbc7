//! The kinds of values that keys take, and how they are told to people.
//!
//! How a value is read by its kind is in `config::inputs`; which key has which kind is in `config::keys`.

use std::str::FromStr;

use super::keys::{RETENTION_REVISIONS, RETENTION_SPAN};
use super::lookup::list;
use super::units::{ByteSize, TimeSpan};
use super::values::{Chance, InvalidValue};

/// What values a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// A text with a rule.
    Text(TextRule),
    /// A list of texts with a rule; empty is the same as not set.
    List(TextRule),
    /// A document of another program's, as a text of many lines, with a rule.
    Document(TextRule),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these numbers.
    Count(&'static [u64]),
    /// A whole number, both ends included.
    Integer { min: u64, max: u64, unit: &'static str },
    /// A duration, both ends included.
    Duration { min: TimeSpan, max: TimeSpan },
    /// A size, both ends included, in whole multiples of `step`.
    Size { min: ByteSize, max: ByteSize, step: ByteSize },
    /// A part of one, both ends included, to the millionth.
    Fraction { min: Chance, max: Chance },
    /// A duration or a number of revisions, as `etcd.autoCompaction.mode` says.
    Retention,
}

/// The rule of a text.
#[derive(Debug)]
pub(super) struct TextRule {
    /// The parser of the type that holds the text; its error is the rule in words.
    pub check: fn(&str) -> Result<(), String>,
    /// The rule as a regular expression: as close as one comes, never stricter.
    pub pattern: &'static str,
    /// An example.
    pub example: &'static str,
    /// What two entries of a list may not have in common.
    pub identity: fn(&str) -> &str,
}

fn parses<T: FromStr<Err: Into<InvalidValue>>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|error| error.into().to_string())
}

/// The rule of a type.
pub(super) const fn text<T: FromStr<Err: Into<InvalidValue>>>(
    pattern: &'static str,
    example: &'static str,
) -> TextRule {
    TextRule { check: parses::<T>, pattern, example, identity: |text| text }
}

impl TextRule {
    /// The rule, for lists whose entries must differ by more than themselves.
    pub const fn by(self, identity: fn(&str) -> &str) -> Self {
        Self { identity, ..self }
    }
}

/// A duration within a range in milliseconds.
pub(super) const fn duration(min: u64, max: u64) -> Kind {
    Kind::Duration { min: TimeSpan::from_millis(min), max: TimeSpan::from_millis(max) }
}

impl Kind {
    /// The values the key takes, in words: `10ms to 5s`, `one of …`.
    pub fn expected(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::List(_) => "a list of texts".to_owned(),
            Self::Document(_) => "a document as text".to_owned(),
            Self::Fraction { min, max } => format!("a number from {min} to {max}"),
            Self::Choice(words) => format!("one of {}", list(words)),
            Self::Count(numbers) => format!("one of {}", list(numbers)),
            Self::Integer { min, max, unit } => format!("a whole number from {min} to {max} ({unit})"),
            Self::Duration { min, max } => format!("a duration from {min} to {max}"),
            Self::Size { min, max, step } if step.as_bytes() > 1 => {
                format!("a size from {min} to {max} in steps of {step}")
            }
            Self::Size { min, max, .. } => format!("a size from {min} to {max}"),
            Self::Retention => format!(
                "a duration from {} to {}, or a whole number of revisions from {} to {}",
                RETENTION_SPAN.0, RETENTION_SPAN.1, RETENTION_REVISIONS.0, RETENTION_REVISIONS.1
            ),
        }
    }

    /// How a value is written.
    pub fn example(&self) -> Option<&'static str> {
        match self {
            Self::Text(rule) | Self::Document(rule) => Some(rule.example),
            Self::Duration { .. } => Some("1m30s"),
            Self::Size { .. } => Some("8GiB"),
            Self::Fraction { .. } => Some("0.001"),
            Self::List(_) | Self::Choice(_) | Self::Count(_) | Self::Integer { .. } | Self::Retention => None,
        }
    }
}
