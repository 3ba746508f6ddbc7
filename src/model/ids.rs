//! Names and numbers with rules of their own: parsed once, then trusted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected {expected}")]
pub struct ParseIdError {
    /// What was given.
    pub found: String,
    /// What would have been right.
    pub expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseIdError { found: text.to_owned(), expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

fn hex_after(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (8..=17).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn words(text: &str, most: usize) -> bool {
    !text.is_empty()
        && text.len() <= most
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic())
}

text_id!(
    /// An EC2 instance's id.
    InstanceId,
    "an EC2 instance id (i- and 8 or 17 hexadecimal digits)",
    |t| hex_after(t, "i-")
);
text_id!(
    /// An EBS volume's id.
    VolumeId,
    "an EBS volume id (vol- and 8 or 17 hexadecimal digits)",
    |t| hex_after(t, "vol-")
);
text_id!(
    /// A cluster's name: the value of the tag `quorate:cluster`, and a part of the key in S3.
    ClusterName,
    "1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end",
    |t| words(t, 40)
);
text_id!(
    /// An availability zone, as in `eu-west-1a`.
    Zone,
    "the name of an availability zone, like `eu-west-1a`",
    |t| words(t, 64) && t.ends_with(|last: char| last.is_ascii_lowercase())
);
text_id!(
    /// An AWS region, as in `eu-west-1`.
    Region,
    "the name of a region, like `eu-west-1`",
    |t| words(t, 64)
);
text_id!(
    /// What names a cluster for ever, across generations: made once, by the first founder.
    ClusterUuid,
    "a UUID",
    |t| t.len() == 36 && t.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
);
text_id!(
    /// What tells one writer of a conditional write from another, when the answer was lost.
    Nonce,
    "a nonce (printable, without blanks)",
    token
);
text_id!(
    /// S3's name for one version of an object's content.
    ETag,
    "an ETag (printable, without blanks)",
    token
);

impl VolumeId {
    /// The serial number that a Nitro machine's NVMe device shows for this volume: the id without
    /// its dash. Source: "Map Amazon EBS volumes to NVMe device names", EBS user guide.
    pub fn nvme_serial(&self) -> String {
        self.0.replacen('-', "", 1)
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs etcd, when it has a slot, and the Kubernetes control plane.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

impl Role {
    /// The role as it stands in tags and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text {
            "control-plane" => Ok(Self::ControlPlane),
            "worker" => Ok(Self::Worker),
            _ => Err(ParseIdError { found: text.to_owned(), expected: "a role (control-plane or worker)" }),
        }
    }
}

/// One of the N places for an etcd member, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "SlotForm", into = "u8")]
pub struct Slot(u8);

/// A slot as it is read. As a key of a map it is text, and within a tagged form nobody turns that
/// into a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum SlotForm {
    Number(u8),
    Text(String),
}

impl TryFrom<SlotForm> for Slot {
    type Error = ParseIdError;

    fn try_from(form: SlotForm) -> Result<Self, ParseIdError> {
        match form {
            SlotForm::Number(number) => number.try_into(),
            SlotForm::Text(text) => text.parse(),
        }
    }
}

impl Slot {
    /// The most slots that a cluster can have.
    pub const MOST: u8 = 5;

    /// The slots of a cluster of `size`, in order.
    pub fn all(size: u8) -> impl Iterator<Item = Slot> {
        (1..=size.min(Self::MOST)).map(Slot)
    }

    /// The number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name of the etcd member in this slot: `etcd-1`.
    pub fn member_name(self) -> String {
        format!("etcd-{}", self.0)
    }
}

impl TryFrom<u8> for Slot {
    type Error = ParseIdError;

    fn try_from(number: u8) -> Result<Self, ParseIdError> {
        if (1..=Self::MOST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseIdError { found: number.to_string(), expected: "a slot (1 to 5)" })
        }
    }
}

impl From<Slot> for u8 {
    fn from(slot: Slot) -> u8 {
        slot.0
    }
}

impl FromStr for Slot {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse::<u8>()
            .ok()
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(|| ParseIdError { found: text.to_owned(), expected: "a slot (1 to 5)" })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the foundings of a cluster, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An etcd member's id; in text, as etcdctl prints it, sixteen hexadecimal digits or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:x}", self.0))
    }
}

impl FromStr for MemberId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ParseIdError { found: text.to_owned(), expected: "an etcd member id (hexadecimal)" })
    }
}

impl TryFrom<String> for MemberId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<MemberId> for String {
    fn from(id: MemberId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_aws_are_told_from_other_text() {
        assert!("i-0123456789abcdef0".parse::<InstanceId>().is_ok());
        assert!("vol-0123456789abcdef0".parse::<InstanceId>().is_err());
        for wrong in ["vol-", "vol-XYZ", "vol0123456789abcdef0", "vol-0123456789abcdef0/..", ""] {
            assert!(wrong.parse::<VolumeId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_volume_is_known_by_its_serial_without_the_dash() {
        let volume: VolumeId = "vol-0123456789abcdef0".parse().unwrap();
        assert_eq!(volume.nvme_serial(), "vol0123456789abcdef0");
    }

    #[test]
    fn cluster_names_are_fit_for_keys_and_tags() {
        for right in ["a", "prod", "prod-eu-1"] {
            assert!(right.parse::<ClusterName>().is_ok(), "{right}");
        }
        for wrong in ["", "-a", "a-", "Prod", "a/b", "a b", &"x".repeat(41)] {
            assert!(wrong.parse::<ClusterName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_id_is_refused_when_it_is_read_back() {
        assert!(serde_json::from_str::<Slot>("0").is_err());
        assert!(serde_json::from_str::<Slot>("6").is_err());
        assert!(serde_json::from_str::<MemberId>("\"xyz\"").is_err());
        assert_eq!(
            serde_json::from_str::<MemberId>("\"8e9e05c52164694d\"").unwrap().0,
            0x8e9e_05c5_2164_694d
        );
    }
}
