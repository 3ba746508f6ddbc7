//! Identifiers that have rules: parsed once, at the edge, and trusted from there on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidId {
    /// The rule it breaks, in words.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId { rule: $rule }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_lower(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

text_id!(
    /// The name of a cluster, as in the tag `quorate:cluster`.
    ClusterName,
    "1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end",
    |t| (1..=40).contains(&t.len()) && is_lower(t) && !t.starts_with('-') && !t.ends_with('-')
);
text_id!(
    /// An availability zone, by name: `eu-west-1a`.
    Zone,
    "the name of an availability zone, like `eu-west-1a`",
    |t| t.len() >= 4
        && t.len() <= 64
        && is_lower(t)
        && t.contains('-')
        && t.starts_with(|c: char| c.is_ascii_lowercase())
        && t.ends_with(|c: char| c.is_ascii_lowercase())
);
text_id!(
    /// A region, by name: `eu-west-1`.
    Region,
    "the name of a region, like `eu-west-1`",
    |t| t.len() >= 4
        && t.len() <= 64
        && is_lower(t)
        && t.contains('-')
        && t.starts_with(|c: char| c.is_ascii_lowercase())
        && t.ends_with(|c: char| c.is_ascii_digit())
);

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs an etcd member and the control plane.
    ControlPlane,
    /// Runs the workload.
    Worker,
}

impl Role {
    /// The role as it is written in tags and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }
}

impl FromStr for Role {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "control-plane" => Ok(Self::ControlPlane),
            "worker" => Ok(Self::Worker),
            _ => Err(InvalidId { rule: "`control-plane` or `worker`" }),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
