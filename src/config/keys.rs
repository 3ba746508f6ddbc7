//! The keys of the configuration: the one place where defaults, ranges and units stand.
//!
//! Reading fragments, merging, `config show`, the JSON Schema and the page for operators are all made from, or
//! held by a test to, this table. It knows one key at a time: rules that tie two keys together are in
//! `config::resolve`.

use std::fmt::Display;
use std::str::FromStr;

use super::units::{ByteSize, TimeSpan};
use super::values::{
    BucketName, ClusterSize, CompactionMode, DeviceName, EtcdLogLevel, Filesystem, GroupName, InvalidValue,
    KmsKeyId, LogLevel, Prefix, ProgramPath, VolumeSource, VolumeType,
};
use crate::model::ids::{ClusterName, Region, Zone};

/// One key that a fragment may set.
#[derive(Debug)]
pub(super) struct Key {
    /// The key with its sections, joined by dots.
    pub path: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it is when no source sets it.
    pub default: Default,
    /// What it is for: one sentence for operators.
    pub doc: &'static str,
}

/// What a key is when no source sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// There is none: some source has to set it.
    Required,
    /// It is left out; the text says what that means.
    Unset(&'static str),
    /// This value.
    Value(&'static str),
}

/// What values a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// A text with a rule.
    Text(TextRule),
    /// A list of texts with a rule; empty is the same as not set.
    List(TextRule),
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
}

fn parses<T: FromStr<Err: Into<InvalidValue>>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|error| error.into().to_string())
}

const fn text<T: FromStr<Err: Into<InvalidValue>>>(pattern: &'static str, example: &'static str) -> TextRule {
    TextRule { check: parses::<T>, pattern, example }
}

const fn duration(min: u64, max: u64) -> Kind {
    Kind::Duration { min: TimeSpan::from_millis(min), max: TimeSpan::from_millis(max) }
}

const MS: u64 = 1;
const S: u64 = 1_000;
const M: u64 = 60 * S;
const H: u64 = 60 * M;

/// The range of `etcd.autoCompaction.retention` when it is a duration.
pub(super) const RETENTION_SPAN: (TimeSpan, TimeSpan) =
    (TimeSpan::from_millis(M), TimeSpan::from_millis(8760 * H));
/// The range of `etcd.autoCompaction.retention` when it is a number of revisions.
pub(super) const RETENTION_REVISIONS: (u64, u64) = (100, 1_000_000_000);
/// An election time-out is at least so many heartbeats: etcd itself refuses less.
pub(super) const HEARTBEATS_PER_ELECTION: u64 = 5;

const KMS_PATTERN: &str = "^(alias/[A-Za-z0-9/_-]+|(mrk-)?[0-9A-Fa-f-]{32,36}|\
                           arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+)$";

/// All keys, in the order in which they are shown.
pub(super) static KEYS: &[Key] = &[
    Key {
        path: "cluster",
        kind: Kind::Text(text::<ClusterName>("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "demo")),
        default: Default::Required,
        doc: "Name of the cluster; the instance tag `quorate:cluster` overrides it.",
    },
    Key {
        path: "bucket",
        kind: Kind::Text(text::<BucketName>("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "demo-quorate")),
        default: Default::Required,
        doc: "S3 bucket that holds the cluster's records and backups.",
    },
    Key {
        path: "prefix",
        kind: Kind::Text(text::<Prefix>("^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$", "team-a/clusters")),
        default: Default::Value(""),
        doc: "What stands before `CLUSTER/` in the bucket's keys.",
    },
    Key {
        path: "role",
        kind: Kind::Choice(&["control-plane", "worker"]),
        default: Default::Required,
        doc: "What the node is for; normally given by the instance tag `quorate:role`, which overrides it.",
    },
    Key {
        path: "region",
        kind: Kind::Text(text::<Region>("^[a-z][a-z0-9-]*-[a-z0-9-]*[0-9]$", "eu-west-1")),
        default: Default::Unset("any region"),
        doc: "Region the node is expected in; a node elsewhere refuses to start.",
    },
    Key {
        path: "kmsKeyId",
        kind: Kind::Text(text::<KmsKeyId>(KMS_PATTERN, "alias/quorate")),
        default: Default::Unset("the bucket's own encryption"),
        doc: "KMS key that encrypts what is written to the bucket.",
    },
    Key {
        path: "groups",
        kind: Kind::List(text::<GroupName>("^[!-9;-~]{1,255}$", "demo-control-plane")),
        default: Default::Unset("found by the tag `quorate:cluster`"),
        doc: "Auto Scaling groups of the cluster.",
    },
    Key {
        path: "etcd.size",
        kind: Kind::Count(ClusterSize::CHOICES),
        default: Default::Value("3"),
        doc: "Number of slots for etcd members.",
    },
    Key {
        path: "etcd.zones",
        kind: Kind::List(text::<Zone>("^[a-z][a-z0-9-]*-[a-z0-9-]*[a-z]$", "eu-west-1a")),
        default: Default::Unset("the zones of the groups"),
        doc: "Availability zones that have slots.",
    },
    Key {
        path: "etcd.binary",
        kind: Kind::Text(text::<ProgramPath>("^(/[!-.0-~]+)+$", "/usr/bin/etcd")),
        default: Default::Value("/usr/bin/etcd"),
        doc: "Path of the etcd program.",
    },
    Key {
        path: "etcd.heartbeatInterval",
        kind: duration(10 * MS, 5 * S),
        default: Default::Value("100ms"),
        doc: "How often the leader is heard; about the round trip between zones.",
    },
    Key {
        path: "etcd.electionTimeout",
        kind: duration(50 * MS, 50 * S),
        default: Default::Value("1s"),
        doc: "How long a follower waits for the leader; at least five heartbeat intervals.",
    },
    Key {
        path: "etcd.quota",
        kind: Kind::Size {
            min: ByteSize::from_mib(64),
            max: ByteSize::from_gib(16),
            step: ByteSize::from_bytes(1),
        },
        default: Default::Value("8GiB"),
        doc: "Size of the database at which etcd refuses writes; smaller than the volume.",
    },
    Key {
        path: "etcd.autoCompaction.mode",
        kind: Kind::Choice(CompactionMode::CHOICES),
        default: Default::Value("periodic"),
        doc: "What `retention` counts: time, or revisions.",
    },
    Key {
        path: "etcd.autoCompaction.retention",
        kind: Kind::Retention,
        default: Default::Value("1h"),
        doc: "History that is kept: a duration when `mode` is `periodic`, a number of revisions when it is \
              `revision`.",
    },
    Key {
        path: "etcd.snapshotCount",
        kind: Kind::Integer { min: 100, max: 1_000_000, unit: "transactions" },
        default: Default::Value("10000"),
        doc: "Transactions between two of etcd's snapshots on disk.",
    },
    Key {
        path: "etcd.logLevel",
        kind: Kind::Choice(EtcdLogLevel::CHOICES),
        default: Default::Value("info"),
        doc: "Least severe level that etcd logs.",
    },
    Key {
        path: "etcd.volume.source",
        kind: Kind::Choice(VolumeSource::CHOICES),
        default: Default::Value("tagged"),
        doc: "Where the slot's volume comes from: a free one found by tag, a created one, or a device the launch \
              template attached.",
    },
    Key {
        path: "etcd.volume.device",
        kind: Kind::Text(text::<DeviceName>("^/dev(/[A-Za-z0-9_.:+-]+)+$", "/dev/xvdf")),
        default: Default::Value("/dev/xvdf"),
        doc: "Device name asked for at attach; with source `device`, the device looked for.",
    },
    Key {
        path: "etcd.volume.filesystem",
        kind: Kind::Choice(Filesystem::CHOICES),
        default: Default::Value("ext4"),
        doc: "File system made on a blank volume.",
    },
    Key {
        path: "etcd.volume.size",
        kind: Kind::Size {
            min: ByteSize::from_gib(1),
            max: ByteSize::from_gib(16 << 10),
            step: ByteSize::from_gib(1),
        },
        default: Default::Value("20GiB"),
        doc: "Size of a created volume.",
    },
    Key {
        path: "etcd.volume.type",
        kind: Kind::Choice(VolumeType::CHOICES),
        default: Default::Value("gp3"),
        doc: "EBS type of a created volume.",
    },
    Key {
        path: "etcd.volume.iops",
        kind: Kind::Integer { min: 100, max: 256_000, unit: "iops" },
        default: Default::Unset("the type's own"),
        doc: "Provisioned iops of a created volume; needed by `io1` and `io2`, refused by `gp2`.",
    },
    Key {
        path: "etcd.volume.throughput",
        kind: Kind::Integer { min: 125, max: 2_000, unit: "MiB/s" },
        default: Default::Unset("the type's own"),
        doc: "Provisioned throughput of a created volume; `gp3` only.",
    },
    Key {
        path: "etcd.volume.kmsKeyId",
        kind: Kind::Text(text::<KmsKeyId>(KMS_PATTERN, "alias/quorate")),
        default: Default::Unset("the account's EBS key"),
        doc: "KMS key that encrypts a created volume.",
    },
    Key {
        path: "etcd.volume.wait",
        kind: duration(S, H),
        default: Default::Value("5m"),
        doc: "How long the device of an attached volume may take to appear.",
    },
    Key {
        path: "founding.patience",
        kind: duration(S, 24 * H),
        default: Default::Value("5m"),
        doc: "How long founders wait for all slots before a majority is enough.",
    },
    Key {
        path: "tick",
        kind: duration(S, 5 * M),
        default: Default::Value("10s"),
        doc: "How often the agent looks at the world without being woken.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(LogLevel::CHOICES),
        default: Default::Value("info"),
        doc: "Least severe level that the agent logs.",
    },
];

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that may stand in a section (the top for an empty path), in order.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let rest = if section.is_empty() {
            Some(key.path)
        } else {
            key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// A path below a section.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The candidate that the word was probably meant to be.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_', '.', ' '], "").to_lowercase();
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What to do about a key that is not known.
pub(super) fn suggest(section: &str, name: &str) -> String {
    let siblings = children(section);
    if let Some(close) = closest(name, siblings.iter().copied()) {
        return format!("did you mean `{}`?", join(section, close));
    }
    if let Some(key) = find(&join(section, name)) {
        return format!("sections are nested: write `{}`", nested(key.path));
    }
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    if let Some(key) = KEYS.iter().find(|key| key.path.contains('.') && last(key.path) == name) {
        return format!("did you mean `{}`? sections are nested: write `{}`", key.path, nested(key.path));
    }
    let place = if section.is_empty() { "at the top".to_owned() } else { format!("in `{section}`") };
    format!("allowed {place}: {}", list(&siblings))
}

/// `etcd.size` as it is written in flow style: `etcd: {size: …}`.
fn nested(path: &str) -> String {
    let depth = path.matches('.').count();
    format!("{}: …{}", path.replace('.', ": {"), "}".repeat(depth))
}

/// `a`, `b`, `c`.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}

impl Kind {
    /// The values the key takes, in words: `10ms to 5s`, `one of …`.
    pub fn expected(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::List(_) => "a list of texts".to_owned(),
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
            Self::Text(rule) => Some(rule.example),
            Self::Duration { .. } => Some("1m30s"),
            Self::Size { .. } => Some("8GiB"),
            Self::List(_) | Self::Choice(_) | Self::Count(_) | Self::Integer { .. } | Self::Retention => None,
        }
    }
}
