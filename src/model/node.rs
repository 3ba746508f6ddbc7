//! The machine as a Kubernetes node: what its size, its kernel and its purchase let it do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::fact::Fact;
use super::ids::{InstanceId, ParseIdError};

/// A node's name in Kubernetes; its identity is `system:node:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<InstanceId> for NodeName {
    fn from(instance: InstanceId) -> Self {
        Self(instance.into())
    }
}

/// A DNS subdomain of RFC 1123 in lower case, which an instance id is too.
/// Source: "Node name uniqueness" and "Object Names and IDs", Kubernetes' documentation.
impl FromStr for NodeName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            let expected = "a node's name: labels of lower-case letters, digits and `-`, joined by dots";
            Err(ParseIdError { found: text.to_owned(), expected })
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How an instance is paid for: `instance-life-cycle` of the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// It stays until it is terminated.
    OnDemand,
    /// EC2 may take it back with two minutes' notice.
    Spot,
    /// It runs in the windows of a scheduled reservation.
    Scheduled,
    /// It ends with a capacity block.
    CapacityBlock,
}

impl CapacityType {
    /// As the metadata service has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
            Self::Scheduled => "scheduled",
            Self::CapacityBlock => "capacity-block",
        }
    }
}

impl FromStr for CapacityType {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        [Self::OnDemand, Self::Spot, Self::Scheduled, Self::CapacityBlock]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| ParseIdError {
                found: text.to_owned(),
                expected: "`on-demand`, `spot`, `scheduled` or `capacity-block`",
            })
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which control groups the kernel has mounted at `/sys/fs/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CgroupVersion {
    /// The old hierarchies, alone or beside the unified one.
    V1,
    /// The unified hierarchy alone.
    V2,
}

/// A version of Linux, as far as anything depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelVersion {
    /// 6 in `6.1.115-126.197.amzn2023.aarch64`.
    pub major: u16,
    /// 1 in it.
    pub minor: u16,
}

impl FromStr for KernelVersion {
    type Err = ParseIdError;

    /// Reads a release as `uname -r` has it.
    fn from_str(release: &str) -> Result<Self, ParseIdError> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(ParseIdError {
                found: release.chars().take(80).collect(),
                expected: "a release of Linux, like `6.1.115-126.197.amzn2023.aarch64`",
            }),
        }
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> Self {
        version.to_string()
    }
}

/// `6.1`.
impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the machine has, as its kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// How many CPUs are online.
    pub cpus: u32,
    /// The memory that the kernel has to give, in bytes: less than the instance type's.
    pub memory: u64,
    /// Whether any swap is in use.
    pub swap: bool,
    /// The kernel.
    pub kernel: KernelVersion,
    /// The control groups.
    pub cgroup: CgroupVersion,
    /// Whether the kernel has, or can load, `nf_tables`, and the program `nft` is there.
    pub nftables: bool,
    /// The directory of the program `ecr-credential-provider`, where there is one.
    pub ecr_credential_provider: Option<String>,
}

/// A file of the operator's with fields of the kubelet's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropIn {
    /// Its path on the machine.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// How many addresses an instance type gives to pods.
/// Source: "Maximum IP addresses per network interface", EC2 user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceLimits {
    /// The most network interfaces of the first network card.
    pub interfaces: u32,
    /// The most private IPv4 addresses of one.
    pub addresses: u32,
}

/// What the metadata service says of the instance beside its identity; `None` where it has no such thing, or where
/// nothing depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceFacts {
    /// Its type, like `m7g.large`.
    pub instance_type: Option<String>,
    /// How it is paid for.
    pub capacity_type: Option<CapacityType>,
    /// Its private DNS name, where the node is called by it.
    pub private_dns_name: Option<String>,
}

/// All that a node's own files depend on beside who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// The instance.
    pub instance: InstanceFacts,
    /// What EC2 says of its type; `Known(None)` where it need not be asked.
    pub interface_limits: Fact<Option<InterfaceLimits>>,
    /// The machine.
    pub machine: Machine,
    /// The operator's drop-ins, in the order in which they are merged.
    pub drop_ins: Vec<DropIn>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_instance_ids_and_private_dns_names() {
        for text in ["i-0123456789abcdef0", "ip-10-0-1-5.eu-west-1.compute.internal", "n"] {
            assert_eq!(text.parse::<NodeName>().unwrap().to_string(), text);
        }
        for text in ["", "I-0", "a..b", "-a", "a-", "a b", ".", "a_b", &"a".repeat(254)] {
            assert!(text.parse::<NodeName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn kernels_are_told_by_two_numbers() {
        for (release, shown) in
            [("6.1.115-126.197.amzn2023.aarch64\n", "6.1"), ("5.13-rc1", "5.13"), ("6.12.5", "6.12")]
        {
            assert_eq!(release.parse::<KernelVersion>().unwrap().to_string(), shown);
        }
        assert!("linux".parse::<KernelVersion>().is_err());
        assert!("5.9".parse::<KernelVersion>().unwrap() < "5.13".parse().unwrap());
    }

    #[test]
    fn capacity_types_are_those_of_the_metadata_service() {
        assert_eq!("spot".parse(), Ok(CapacityType::Spot));
        assert_eq!(serde_json::to_value(CapacityType::OnDemand).unwrap(), "on-demand");
        assert!("Spot".parse::<CapacityType>().is_err());
    }
}
