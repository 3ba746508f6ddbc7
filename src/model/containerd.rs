//! containerd on a machine: its version, its service and its configuration, as far as the agent looks at them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::fact::Fact;
use super::ids::ParseIdError;
use super::service::ServiceObservation;

/// A version of containerd. Only what chooses its configuration is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerdVersion {
    /// 2.
    pub major: u32,
    /// 0 and more.
    pub minor: u32,
    /// The patch level.
    pub patch: u32,
}

/// A version of containerd that no node is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "containerd is {found}, expected {} or newer and older than {}: install such a containerd on the machine's image",
    ContainerdVersion::OLDEST,
    ContainerdVersion::TOO_NEW
)]
pub struct UnfitContainerd {
    /// The version that was found.
    pub found: ContainerdVersion,
}

impl ContainerdVersion {
    /// The oldest that can be used. Kubernetes 1.35 is the last that works with containerd 1.x.
    /// Source: "Container Runtimes" on kubernetes.io.
    pub const OLDEST: Self = Self { major: 2, minor: 0, patch: 0 };
    /// The first that is not known to work.
    pub const TOO_NEW: Self = Self { major: 3, minor: 0, patch: 0 };

    /// Whether a node can be made with it.
    pub fn check(self) -> Result<(), UnfitContainerd> {
        if (Self::OLDEST..Self::TOO_NEW).contains(&self) {
            Ok(())
        } else {
            Err(UnfitContainerd { found: self })
        }
    }

    /// Whether it has a list of directories of network plugins (`bin_dirs`), and calls the single one deprecated.
    pub fn lists_plugin_directories(self) -> bool {
        self >= Self { major: 2, minor: 1, patch: 0 }
    }
}

impl fmt::Display for ContainerdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for ContainerdVersion {
    type Err = ParseIdError;

    /// Of `2.1.4`, `v2.1.4` and `2.1.4~ds1-2`.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError { found: text.to_owned(), expected: "a version (as 2.1.4)" };
        let text = text.strip_prefix('v').unwrap_or(text);
        let core = text.split(['-', '+', '~']).next().unwrap_or(text);
        let mut parts = core.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(wrong()),
        }
    }
}

/// containerd's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ContainerdConfiguration {
    /// There is no file.
    Absent,
    /// There is one. It is never changed: who made the image may have had reasons.
    Present {
        /// Whether it has systemd make containers' control groups, as the kubelet does. With two that make them,
        /// a machine short of memory comes apart.
        systemd_cgroups: bool,
    },
}

/// What is seen of containerd.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdObservation {
    /// Its version; `Known(None)` when it is certainly not installed.
    pub version: Fact<Option<ContainerdVersion>>,
    /// Its service.
    pub service: Fact<ServiceObservation>,
    /// Its configuration.
    pub configuration: Fact<ContainerdConfiguration>,
}

impl ContainerdObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self { version: Fact::unknown(why), service: Fact::unknown(why), configuration: Fact::unknown(why) }
    }

    /// What is not as it should be and is the operator's to change, in words.
    pub fn warning(&self) -> Option<&'static str> {
        match self.configuration {
            Fact::Known(ContainerdConfiguration::Present { systemd_cgroups: false }) => Some(
                "/etc/containerd/config.toml does not say SystemdCgroup = true for the default runtime, expected \
                 since the kubelet has systemd make control groups: set it and restart containerd",
            ),
            Fact::Known(
                ContainerdConfiguration::Absent | ContainerdConfiguration::Present { systemd_cgroups: true },
            )
            | Fact::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let version = ContainerdVersion { major: 2, minor: 1, patch: 4 };
        for text in ["2.1.4", "v2.1.4", "2.1.4~ds1-2", "2.1.4-0ubuntu1", "v2.1.4+unknown"] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        for text in ["", "v2", "2.1", "2.1.4.5", "two.one.four"] {
            assert!(text.parse::<ContainerdVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_old_one_is_refused_with_what_to_do() {
        let old: ContainerdVersion = "1.7.27".parse().unwrap();
        assert_eq!(
            old.check().unwrap_err().to_string(),
            "containerd is 1.7.27, expected 2.0.0 or newer and older than 3.0.0: install such a containerd on the \
             machine's image"
        );
        assert_eq!("2.0.0".parse::<ContainerdVersion>().unwrap().check(), Ok(()));
        assert!("3.0.0".parse::<ContainerdVersion>().unwrap().check().is_err());
    }

    #[test]
    fn only_a_file_without_systemds_control_groups_is_warned_of() {
        let seen = |configuration| ContainerdObservation {
            configuration,
            ..ContainerdObservation::unknown("not asked")
        };
        let present = |systemd_cgroups| Fact::Known(ContainerdConfiguration::Present { systemd_cgroups });
        assert!(seen(present(false)).warning().is_some());
        for fine in [present(true), Fact::Known(ContainerdConfiguration::Absent), Fact::unknown("why")] {
            assert_eq!(seen(fine).warning(), None);
        }
    }
}
