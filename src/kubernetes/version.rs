//! The version of Kubernetes that a node runs, and what differs between the versions that are known.
//!
//! Flags and fields are chosen by the methods here and nowhere else, so that the differences can be read in one
//! place. Sources: the changelogs of 1.34 to 1.37, and `pkg/features` of each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of Kubernetes that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubernetesVersion {
    minor: u16,
    patch: u16,
}

/// A text that is no version, or a version that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// Not of the form of a version.
    #[error("found {found:?}, expected a Kubernetes version like `v1.36.2`")]
    Form {
        /// What was found.
        found: String,
    },
    /// A version that nobody tried this program with.
    #[error("Kubernetes {found} is not supported, only 1.{oldest} to 1.{newest}")]
    Unsupported {
        /// What was found.
        found: String,
        /// The oldest minor version that is known.
        oldest: u16,
        /// The newest minor version that is known.
        newest: u16,
    },
}

impl KubernetesVersion {
    /// The oldest minor version that is known: the first in which structured authentication has its `v1` form.
    pub const OLDEST_MINOR: u16 = 34;
    /// The newest minor version that is known.
    pub const NEWEST_MINOR: u16 = 37;

    /// The minor version: 36 in 1.36.2.
    pub fn minor(self) -> u16 {
        self.minor
    }

    /// The tag of the project's images: `v1.36.2`.
    pub fn tag(self) -> String {
        format!("v1.{}.{}", self.minor, self.patch)
    }

    /// Whether the kubelet has to be told to refuse cgroup v1; from 1.35 it does so by itself.
    pub(super) fn asks_for_cgroup_v2(self) -> bool {
        self.minor < 35
    }
}

/// The leading `v` may be missing; what follows the patch version (`-eks-1234`, `+build`) is dropped, since flags
/// do not depend on it. A pre-release is taken for its release.
impl FromStr for KubernetesVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || InvalidVersion::Form { found: text.to_owned() };
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (numbers, suffix) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
        let suffix_is_fine = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
        if text.len() > 64 || !suffix.chars().all(suffix_is_fine) || suffix.len() == 1 {
            return Err(form());
        }
        let parts: Vec<u16> = numbers
            .split('.')
            .map(|part| {
                let canonical = part == "0" || !part.starts_with('0');
                let digits = canonical && part.bytes().all(|b| b.is_ascii_digit());
                part.parse().ok().filter(|_| digits).ok_or_else(form)
            })
            .collect::<Result<_, _>>()?;
        let &[major, minor, patch] = parts.as_slice() else { return Err(form()) };
        if major != 1 || !(Self::OLDEST_MINOR..=Self::NEWEST_MINOR).contains(&minor) {
            return Err(InvalidVersion::Unsupported {
                found: numbers.to_owned(),
                oldest: Self::OLDEST_MINOR,
                newest: Self::NEWEST_MINOR,
            });
        }
        Ok(Self { minor, patch })
    }
}

impl TryFrom<String> for KubernetesVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KubernetesVersion> for String {
    fn from(version: KubernetesVersion) -> Self {
        version.tag()
    }
}

/// `v1.36.2`.
impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_programs_and_people_write_them() {
        for (text, tag) in [
            ("v1.36.2", "v1.36.2"),
            ("1.36.2", "v1.36.2"),
            ("v1.34.0-rc.1", "v1.34.0"),
            ("v1.35.4-eks-113cf36", "v1.35.4"),
            ("v1.37.10+k3s1", "v1.37.10"),
        ] {
            assert_eq!(text.parse().map(KubernetesVersion::tag), Ok(tag.to_owned()));
        }
        for text in
            ["", "v", "1.36", "v1.36.2.1", "1.36.x", "V1.36.2", "1.036.2", "1.36.2-", "1.36.2 ", "1.+6.2"]
        {
            assert!(
                matches!(text.parse::<KubernetesVersion>(), Err(InvalidVersion::Form { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_version_that_nobody_tried_is_refused_with_those_that_are_known() {
        for text in ["v1.33.9", "v1.38.0", "v2.34.0", "0.36.1"] {
            let error = text.parse::<KubernetesVersion>().unwrap_err().to_string();
            assert!(error.contains("only 1.34 to 1.37"), "{error}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        let version = |text: &str| text.parse::<KubernetesVersion>().unwrap();
        assert!(version("1.36.10") > version("1.36.9"));
        assert!(version("1.35.0") > version("1.34.99"));
    }
}
