//! Backups: what they are called, what they say of themselves, and which of them make a chain.
//!
//! A **chain** is one snapshot of etcd and the changes since, in **segments**. In S3, below the cluster's own place:
//!
//! | key | what |
//! |---|---|
//! | `backups/GENERATION/CHAIN/snapshot.zst` | etcd's snapshot, as etcd sends it with its SHA-256 at the end, compressed |
//! | `backups/GENERATION/CHAIN/manifest.json` | the [`Manifest`]; a chain without one was never finished, and is none |
//! | `backups/GENERATION/CHAIN/configuration.json` | the settings of the machine that took it |
//! | `backups/GENERATION/CHAIN/changes/NUMBER` | the segments, from 1, without a gap (see `crate::backup::segment`) |
//!
//! `CHAIN` is the revision at which the snapshot was begun, in 19 digits, a dash, and eight characters that tell apart
//! what two machines began at the same revision. So names sort by age within a generation.
//!
//! A segment is created only where there is none, and names the SHA-256 of what came before it: the manifest, or the
//! segment before. So two machines never write one chain, and what is missing or exchanged is noticed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{ClusterName, ClusterUuid, Generation, InstanceId, MemberId, ParseIdError};

/// What the keys of all backups begin with.
pub const BACKUPS: &str = "backups/";

/// The name of a chain: its place, and its age.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainName {
    /// The generation of the cluster that it is of.
    pub generation: Generation,
    /// The revision at which the snapshot was begun: it holds that one, and maybe later ones.
    pub revision: i64,
    /// What tells it from another of the same revision: eight lower-case letters or digits.
    mark: String,
}

const KEY: &str = "the key of a backup's snapshot, manifest, configuration or segment";
const CHAIN: &str = "GENERATION/REVISION-MARK, such as 1/0000000000000004711-0a1b2c3d";

impl ChainName {
    /// A new name; of `mark` its first eight letters and digits are taken.
    ///
    /// # Errors
    /// The revision is not above zero, or the mark is too short.
    pub fn new(generation: Generation, revision: i64, mark: &str) -> Result<Self, ParseIdError> {
        let mark: String = mark.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("{generation}/{revision:019}-{}", mark.to_ascii_lowercase()).parse()
    }

    /// Where everything of it is: `backups/GENERATION/CHAIN/`.
    pub fn prefix(&self) -> String {
        format!("{BACKUPS}{self}/")
    }

    /// The key of its snapshot.
    pub fn snapshot(&self) -> String {
        format!("{BACKUPS}{self}/snapshot.zst")
    }

    /// The key of its manifest.
    pub fn manifest(&self) -> String {
        format!("{BACKUPS}{self}/manifest.json")
    }

    /// What the keys of its segments begin with.
    pub fn changes(&self) -> String {
        format!("{BACKUPS}{self}/changes/")
    }

    /// The key of its `number`th segment, from 1.
    pub fn segment(&self, number: u32) -> String {
        format!("{BACKUPS}{self}/changes/{number:010}")
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:019}-{}", self.generation, self.revision, self.mark)
    }
}

impl FromStr for ChainName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let unfit = || ParseIdError { found: text.to_owned(), expected: CHAIN };
        let (generation, rest) = text.split_once('/').ok_or_else(unfit)?;
        let (revision, mark) = rest.split_once('-').ok_or_else(unfit)?;
        let fits = revision.len() == 19
            && mark.len() == 8
            && mark.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        let name = Self {
            generation: Generation(generation.parse().map_err(|_| unfit())?),
            revision: revision.parse().map_err(|_| unfit())?,
            mark: mark.to_owned(),
        };
        if fits && name.revision > 0 && name.to_string() == text { Ok(name) } else { Err(unfit()) }
    }
}

impl TryFrom<String> for ChainName {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<ChainName> for String {
    fn from(name: ChainName) -> Self {
        name.to_string()
    }
}

/// One of the objects that a chain is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackupPart {
    /// The snapshot.
    Snapshot,
    /// The manifest.
    Manifest,
    /// The configuration under which it was made.
    Configuration,
    /// The segment of this number, from 1.
    Segment(u32),
}

/// The key of one object of a backup: of nothing else in the bucket can one be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupKey {
    /// The chain.
    pub chain: ChainName,
    /// Which of its objects.
    pub part: BackupPart,
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self.part {
            BackupPart::Snapshot => self.chain.snapshot(),
            BackupPart::Manifest => self.chain.manifest(),
            BackupPart::Configuration => format!("{}configuration.json", self.chain.prefix()),
            BackupPart::Segment(number) => self.chain.segment(number),
        })
    }
}

impl FromStr for BackupKey {
    type Err = ParseIdError;

    /// Reads a key as it is listed, and only as it would be written.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let unfit = || ParseIdError { found: text.to_owned(), expected: KEY };
        let rest = text.strip_prefix(BACKUPS).ok_or_else(unfit)?;
        let end = rest.match_indices('/').nth(1).ok_or_else(unfit)?.0;
        let chain = rest[..end].parse()?;
        let part = match &rest[end + 1..] {
            "snapshot.zst" => BackupPart::Snapshot,
            "manifest.json" => BackupPart::Manifest,
            "configuration.json" => BackupPart::Configuration,
            other => {
                let number = other.strip_prefix("changes/").and_then(|number| number.parse().ok());
                BackupPart::Segment(number.filter(|number| *number > 0).ok_or_else(unfit)?)
            }
        };
        let key = Self { chain, part };
        if key.to_string() == text { Ok(key) } else { Err(unfit()) }
    }
}

/// What a snapshot says of itself, as `manifest.json`. It is written when the snapshot in S3 was read back and found
/// to be what etcd sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its UUID.
    pub uuid: ClusterUuid,
    /// The chain, which names the generation and the revision.
    pub chain: ChainName,
    /// The snapshot holds no later revision than this.
    pub until: i64,
    /// When its content was settled, in milliseconds since 1970: nothing in it is later.
    pub taken: i64,
    /// The member that it was taken from.
    pub member: MemberId,
    /// That member's version of etcd.
    pub etcd_version: String,
    /// How many keys there were at the chain's revision.
    pub keys: u64,
    /// The database's size in bytes, without the hash that etcd sends after it.
    pub size: u64,
    /// The database's SHA-256, in hexadecimal: the hash that etcd sends after it.
    pub sha256: String,
    /// The size in bytes of what lies in S3.
    pub stored_size: u64,
    /// The SHA-256 of what lies in S3, in hexadecimal.
    pub stored_sha256: String,
    /// The SHA-256 of the configuration under which it was made, in hexadecimal, which lies beside it; `None` in those of
    /// agents that did not put it there yet.
    #[serde(default)]
    pub configuration: Option<String>,
}

/// A backup that was read from S3 from its beginning to the end that is named here, and is whole so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// The chain.
    pub chain: ChainName,
    /// How many of its segments count; 0 is the snapshot alone.
    pub segments: u32,
    /// The last revision: everything up to it is restored, nothing after it. With no segments the snapshot may hold some
    /// later ones.
    pub revision: i64,
    /// The moment that it shows, in milliseconds since 1970.
    pub at: i64,
    /// Newer backups that are not used, each with the reason: what is in them is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// The key of the record of the last rehearsal.
pub const REHEARSAL: &str = "rehearsal.json";

/// What the last rehearsal of a restore came to, as `rehearsal.json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// When it ended, in milliseconds since 1970.
    pub at: i64,
    /// The chain that was restored.
    pub chain: ChainName,
    /// The last revision that it brought.
    pub revision: Option<i64>,
    /// How many keys it brought at the chain's first revision.
    pub keys: Option<u64>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why it failed; `null` when it did not.
    pub error: Option<String>,
}

/// Who keeps the backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum Keeping {
    /// This machine.
    Here,
    /// Another one.
    Elsewhere {
        /// Which.
        by: InstanceId,
    },
}

/// How far the backups are, as far as a machine knows that may keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupProgress {
    /// When this machine was last let keep them, in milliseconds since 1970.
    pub permitted: Option<i64>,
    /// Since when it may, without a break, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Who keeps them; `null` while that is not known.
    pub keeping: Option<Keeping>,
    /// The chain that is shipped. This and what follows is known only where they are kept.
    pub newest: Option<ChainName>,
    /// When its snapshot was begun, in milliseconds since 1970.
    pub taken: Option<i64>,
    /// Its database's size in bytes.
    pub size: Option<u64>,
    /// The last revision that is in S3.
    pub shipped: Option<i64>,
    /// When the oldest change was seen that is not in S3, in milliseconds since 1970; `null` when all are.
    pub unshipped_since: Option<i64>,
    /// What the last rehearsal came to.
    pub rehearsed: Option<Rehearsal>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// What came of reading the backups through, as it is kept on the machine that did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChosenBackup {
    /// The cluster.
    pub uuid: ClusterUuid,
    /// The generation that was in force, and is to be recovered from.
    pub generation: Generation,
    /// When all of it had been read, in milliseconds since 1970.
    pub at: i64,
    /// The newest backup that is whole; `None` when none is.
    pub point: Option<RestorePoint>,
    /// Where none is: what was found, each with what is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// What can be wrong with the backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum BackupTrouble {
    /// Changes do not get to S3.
    Behind {
        /// When the oldest was seen that is not there, in milliseconds since 1970.
        since: i64,
        /// Why not, when that is known.
        why: Option<String>,
    },
    /// No snapshot has been taken for long.
    Old {
        /// When the last was begun, in milliseconds since 1970; `None` when there is none.
        taken: Option<i64>,
        /// Why none is, when that is known.
        why: Option<String>,
    },
    /// The newest could not be restored when that was rehearsed.
    NotRestorable {
        /// Why not.
        why: String,
    },
    /// No restore has been rehearsed for long.
    NotRehearsed {
        /// When it last was, in milliseconds since 1970.
        at: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_age_and_are_read_as_they_are_written() {
        let name = |generation, revision| {
            ChainName::new(Generation(generation), revision, "0A1B2C3D-and-more").unwrap()
        };
        let (old, new, next) = (name(1, 9), name(1, 10), name(2, 11));
        assert!(old < new && new < next);
        assert!(old.to_string() < new.to_string());
        assert_eq!(new.to_string(), "1/0000000000000000010-0a1b2c3d");
        assert_eq!(new.to_string().parse(), Ok(new.clone()));
        assert_eq!(new.segment(7), "backups/1/0000000000000000010-0a1b2c3d/changes/0000000007");
        assert!(new.snapshot().starts_with(&new.prefix()) && new.manifest().starts_with(&new.prefix()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "1/10-0a1b2c3d",
            "1/0000000000000000010-0a1b2c3",
            "1/0000000000000000010-0A1B2C3D",
            "1/0000000000000000000-0a1b2c3d",
            "1/+000000000000000010-0a1b2c3d",
            "01/0000000000000000010-0a1b2c3d",
            "x/0000000000000000010-0a1b2c3d",
            "1/0000000000000000010-0a1b2c3d/",
        ] {
            assert!(text.parse::<ChainName>().is_err(), "{text}");
        }
        assert!(ChainName::new(Generation(1), 0, "0a1b2c3d").is_err());
        assert!(ChainName::new(Generation(1), 1, "0a-1b").is_err());
    }

    #[test]
    fn the_key_of_a_backup_is_one_of_its_objects_and_nothing_else() {
        let chain = ChainName::new(Generation(1), 10, "0a1b2c3d").unwrap();
        for part in [
            BackupPart::Snapshot,
            BackupPart::Manifest,
            BackupPart::Segment(1),
            BackupPart::Segment(u32::MAX),
        ] {
            let key = BackupKey { chain: chain.clone(), part };
            assert!(key.to_string().starts_with(&chain.prefix()), "{key}");
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let prefix = chain.prefix();
        for text in [
            "charter.json".to_owned(),
            "pki/etcd.json".to_owned(),
            "backups/".to_owned(),
            format!("x{prefix}manifest.json"),
            prefix.clone(),
            format!("{prefix}changes/"),
            format!("{prefix}changes/1"),
            format!("{prefix}changes/+000000001"),
            format!("{prefix}changes/0000000000"),
            format!("{prefix}changes/../manifest.json"),
            format!("{prefix}snapshot.zst/"),
            prefix.replace("/0000", "/../0000") + "manifest.json",
        ] {
            assert!(text.parse::<BackupKey>().is_err(), "{text}");
        }
    }
}
