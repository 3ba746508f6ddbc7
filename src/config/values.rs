//! The value types of the settings that are not identifiers of the model: names with rules of S3, KMS,
//! Auto Scaling and the file system, and the choices.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::units::text_serde;

use crate::model::ids::ParseIdError;

/// A text that breaks the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidValue {
    /// The rule, in words.
    pub rule: &'static str,
}

impl From<ParseIdError> for InvalidValue {
    fn from(error: ParseIdError) -> Self {
        Self { rule: error.expected }
    }
}

macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $valid:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $valid(text) { Ok(Self(text.to_owned())) } else { Err(InvalidValue { rule: $rule }) }
            }
        }

        text_serde!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_value!(
    /// The name of an S3 bucket, by the rules of "General purpose bucket naming rules" in the S3 user guide.
    BucketName,
    "the name of an S3 bucket: 3 to 63 lower-case letters, digits, hyphens and single dots, a letter or digit \
     at both ends, not an IP address, none of S3's reserved prefixes and suffixes",
    is_bucket
);
text_value!(
    /// What stands before `CLUSTER/` in the keys of the bucket; empty or without slashes at the ends.
    Prefix,
    "a key prefix of at most 256 letters, digits and `-_./`, with no empty, `.` or `..` segment and no slash at \
     either end",
    is_prefix
);
text_value!(
    /// A KMS key: its id, its ARN, or an alias.
    KmsKeyId,
    "a KMS key id, the ARN of a key or alias, or `alias/NAME`",
    is_kms_key
);
text_value!(
    /// The name of an Auto Scaling group.
    GroupName,
    "the name of an Auto Scaling group: 1 to 255 printable ASCII characters, with no blank and no colon",
    is_group
);
text_value!(
    /// The name of a lifecycle hook.
    HookName,
    "the name of a lifecycle hook: 1 to 255 letters, digits and `-_/`",
    is_hook
);
text_value!(
    /// The path of a program.
    ProgramPath,
    "an absolute path in printable ASCII, with no blank and no empty, `.` or `..` segment",
    is_absolute
);
text_value!(
    /// The name of a block device: asked for when a volume is attached, or looked for as it is.
    DeviceName,
    "a device below `/dev/`, like `/dev/xvdf`",
    is_device
);

fn is_hook(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || [b'-', b'_', b'/'].contains(&b))
}

fn is_bucket(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let all_digits_and_dots = bytes.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let looks_like_address = all_digits_and_dots && name.split('.').count() == 4;
    (3..=63).contains(&name.len())
        && bytes.iter().all(|b| word(*b) || *b == b'-' || *b == b'.')
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.last().is_some_and(|b| word(*b))
        && !name.contains("..")
        && !looks_like_address
        && !["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|reserved| name.starts_with(reserved))
        && !["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|end| name.ends_with(end))
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && segment != "." && segment != ".."
}

fn is_prefix(prefix: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    prefix.is_empty()
        || (prefix.len() <= 256 && prefix.bytes().all(allowed) && prefix.split('/').all(is_segment))
}

fn is_kms_key(key: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty()
            && text.len() <= 256
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
    };
    let id = |text: &str| {
        let hex = text.strip_prefix("mrk-").unwrap_or(text);
        hex.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') && (32..=36).contains(&hex.len())
    };
    if let Some(alias) = key.strip_prefix("alias/") {
        return name(alias);
    }
    if !key.starts_with("arn:") {
        return id(key);
    }
    let fields: Vec<&str> = key.split(':').collect();
    let [_, partition, service, region, account, resource] = fields.as_slice() else { return false };
    let resource_is_valid = match resource.split_once('/') {
        Some(("key", rest)) => id(rest),
        Some(("alias", rest)) => name(rest),
        _ => false,
    };
    partition.starts_with("aws")
        && *service == "kms"
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource_is_valid
}

fn is_group(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

pub(super) fn is_absolute(path: &str) -> bool {
    path.len() <= 4096
        && path.bytes().all(|b| b.is_ascii_graphic())
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

fn is_device(path: &str) -> bool {
    path.strip_prefix("/dev/").is_some_and(|rest| {
        path.len() <= 255
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:+".contains(&b))
            && rest.split('/').all(is_segment)
    })
}

pub(super) use text_value;

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// The choices as they are written.
            pub const CHOICES: &[&str] = &[$($text),+];

            /// The choice as it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(InvalidValue { rule: "one of the key's choices" }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use choice;

choice!(
    /// What a termination hook is told when a machine could not leave in full.
    LeavingResult {
        /// To go on with the other hooks, and to terminate it.
        Continue = "continue",
        /// To skip the other hooks, and to terminate it.
        Abandon = "abandon",
    }
);

choice!(
    /// Whether CloudWatch is told figures.
    #[derive(Default)]
    CloudWatchFigures {
        /// It is.
        On = "on",
        /// It is not.
        #[default]
        Off = "off",
    }
);

choice!(
    /// Whether lines are written to the system console.
    #[derive(Default)]
    ConsoleLines {
        /// They are.
        #[default]
        On = "on",
        /// They are not.
        Off = "off",
    }
);

choice!(
    /// Where the agent serves metrics and health.
    Listen {
        /// At the node's own address, and at loopback.
        Node = "node",
        /// At loopback.
        Loopback = "loopback",
        /// Nowhere.
        Off = "off",
    }
);

choice!(
    /// What follows from maintenance that EC2 has scheduled for the machine.
    MaintenancePolicy {
        /// It leaves before.
        Leave = "leave",
        /// A warning.
        Warn = "warn",
    }
);

choice!(
    /// Who brings a cluster back of which no volume is left.
    RecoveryPolicy {
        /// The agents, from the newest backup that is whole.
        Automatic = "automatic",
        /// An operator, by a command.
        Manual = "manual",
    }
);

choice!(
    /// What follows from EC2's recommendation to replace a worker's spot instance.
    RebalancePolicy {
        /// A warning.
        Warn = "warn",
        /// No more pods come to it.
        Cordon = "cordon",
        /// It leaves.
        Leave = "leave",
    }
);

choice!(
    /// What etcd's retention counts.
    CompactionMode {
        /// Time.
        Periodic = "periodic",
        /// Revisions.
        Revision = "revision",
    }
);
choice!(
    /// How much etcd says.
    EtcdLogLevel {
        /// Everything.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What is odd.
        Warn = "warn",
        /// What failed.
        Error = "error",
    }
);
choice!(
    /// Where a slot's volume comes from.
    VolumeSource {
        /// A free volume of the cluster in the zone, found by tag.
        Tagged = "tagged",
        /// Created when the zone's slot has none.
        Created = "created",
        /// Attached by the launch template already; dies with the instance.
        Device = "device",
    }
);
choice!(
    /// The file system made on a blank volume.
    Filesystem {
        /// ext4.
        Ext4 = "ext4",
        /// XFS.
        Xfs = "xfs",
    }
);
choice!(
    /// The type of a created EBS volume.
    VolumeType {
        /// General purpose, iops and throughput apart from size.
        Gp3 = "gp3",
        /// Provisioned iops, durable.
        Io2 = "io2",
        /// Provisioned iops, the older one.
        Io1 = "io1",
        /// General purpose, iops by size.
        Gp2 = "gp2",
    }
);
choice!(
    /// How much the agent says.
    LogLevel {
        /// What failed.
        Error = "error",
        /// What is odd.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// Why it happens.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
);

/// How many slots the etcd cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum ClusterSize {
    /// One: no redundancy.
    One,
    /// Three: one may be lost.
    Three,
    /// Five: two may be lost.
    Five,
}

impl ClusterSize {
    /// The choices as they are written.
    pub const CHOICES: &[u64] = &[1, 3, 5];

    /// The number of slots.
    pub const fn slots(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }
}

impl TryFrom<u8> for ClusterSize {
    type Error = InvalidValue;
    fn try_from(slots: u8) -> Result<Self, Self::Error> {
        match slots {
            1 => Ok(Self::One),
            3 => Ok(Self::Three),
            5 => Ok(Self::Five),
            _ => Err(InvalidValue { rule: "1, 3 or 5" }),
        }
    }
}

impl From<ClusterSize> for u8 {
    fn from(size: ClusterSize) -> Self {
        match size {
            ClusterSize::One => 1,
            ClusterSize::Three => 3,
            ClusterSize::Five => 5,
        }
    }
}

impl FromStr for ClusterSize {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<u8>().map_err(|_| InvalidValue { rule: "1, 3 or 5" })?.try_into()
    }
}

impl fmt::Display for ClusterSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u8::from(*self).fmt(f)
    }
}

/// A chance, in millionths, written as a part of one: `0.001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Chance {
    millionths: u32,
}

impl Chance {
    /// So many in a million.
    pub const fn from_millionths(millionths: u32) -> Self {
        Self { millionths }
    }
}

impl FromStr for Chance {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: InvalidValue = InvalidValue { rule: "a number from 0 to 1 with at most six decimals" };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 6 || whole.len() > 1 {
            return Err(RULE);
        }
        let number = format!("{whole}{decimals:0<6}");
        match number.parse() {
            Ok(millionths @ 0..=1_000_000) => Ok(Self { millionths }),
            Ok(_) | Err(_) => Err(RULE),
        }
    }
}

text_serde!(Chance);

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.millionths / 1_000_000, self.millionths % 1_000_000);
        let decimals = format!("{part:06}");
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            decimals => write!(f, "{whole}.{decimals}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(text.parse::<T>().ok().map(|v| v.to_string()).as_deref(), Some(*text));
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn bucket_names_follow_s3() {
        accepts::<BucketName>(
            &["abc", "my-bucket", "my.bucket.1", "1bucket", "192.168.5"],
            &[
                "",
                "ab",
                "My",
                "a_b",
                "-abc",
                "abc-",
                ".abc",
                "abc.",
                "a..b",
                "192.168.5.4",
                "xn--abc",
                "abc-s3alias",
            ],
        );
        assert!("a".repeat(63).parse::<BucketName>().is_ok());
        assert!("a".repeat(64).parse::<BucketName>().is_err());
    }

    #[test]
    fn prefixes_have_no_slash_at_either_end() {
        accepts::<Prefix>(
            &["", "a", "team/clusters", "a.b_c-d"],
            &["/", "/a", "a/", "a//b", "a/../b", ".", "a b"],
        );
    }

    #[test]
    fn kms_keys_are_ids_arns_or_aliases() {
        accepts::<KmsKeyId>(
            &[
                "1234abcd-12ab-34cd-56ef-1234567890ab",
                "mrk-1234abcd12ab34cd56ef1234567890ab",
                "alias/etcd",
                "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
                "arn:aws-cn:kms:cn-north-1:111122223333:alias/etcd",
            ],
            &["", "etcd", "alias/", "arn:aws:s3:::bucket", "arn:aws:kms:eu-west-1:1:key/x"],
        );
    }

    #[test]
    fn paths_and_devices_are_absolute() {
        accepts::<ProgramPath>(&["/usr/bin/etcd"], &["", "/", "etcd", "/usr/bin/", "/usr/../etcd", "/a\nb"]);
        accepts::<DeviceName>(
            &["/dev/xvdf", "/dev/disk/by-id/x"],
            &["", "xvdf", "/dev/", "/dev/../etc", "/sd f"],
        );
    }

    #[test]
    fn group_names_have_no_blank_and_no_colon() {
        accepts::<HookName>(&["quorate-launch", "A/b_c"], &["", "a b", "ä", "a.b"]);
        accepts::<GroupName>(&["control-plane", "A/b(c)"], &["", "a b", "a:b", "ä"]);
    }

    #[test]
    fn chances_are_parts_of_one_to_the_millionth() {
        accepts::<Chance>(
            &["0", "0.001", "0.02", "0.000001", "1"],
            &["", ".", "1.", ".5", "0.0000001", "1.1", "2", "-0.1", "1e-3", "0,1"],
        );
        assert_eq!("0.100".parse::<Chance>().unwrap(), Chance::from_millionths(100_000));
    }

    #[test]
    fn choices_print_as_they_are_written() {
        accepts::<ClusterSize>(&["1", "3", "5"], &["0", "2", "7", "-1", ""]);
        accepts::<VolumeType>(VolumeType::CHOICES, &["GP3"]);
        assert_eq!(
            [ClusterSize::One, ClusterSize::Three, ClusterSize::Five].map(ClusterSize::slots),
            [1, 3, 5]
        );
    }
}
