//! The etcd volume as the machine sees it: the device, what is on it, and what it holds.

use serde::{Deserialize, Serialize};

use super::charter::Charter;
use super::fact::Fact;
use super::ids::VolumeId;
use super::stamp::Stamp;

/// The device of the volume that EC2 says is attached here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The volume.
    pub volume: VolumeId,
    /// Its device node, found by the volume's id; `None` while the kernel shows none.
    pub device: Option<String>,
    /// What is on the device.
    pub content: Fact<Content>,
    /// Whether it is mounted where etcd's data belong.
    pub mount: Fact<Option<Mount>>,
    /// What the mounted file system holds; unknown unless mounted.
    pub holds: Fact<VolumeContents>,
}

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Content {
    /// No signature that libblkid knows, no partition table, zeros at head and tail.
    Blank,
    /// A file system of ours, by its label.
    Ours {
        /// `ext4` or `xfs`.
        kind: String,
        /// Whether the device has grown beyond the file system.
        can_grow: bool,
    },
    /// Anything else: never written to. The text says what was found.
    Foreign(String),
}

/// A mount at etcd's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The device that is mounted there.
    pub source: String,
    /// Whether it is mounted read-only, by option or since the kernel found errors.
    pub read_only: bool,
}

/// What the volume's file system holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeContents {
    /// The stamp; `Unknown` when the file is there and can't be read or parsed.
    pub stamp: Fact<Option<Stamp>>,
    /// etcd's data directory.
    pub data: DataDir,
    /// The charter's copy; `Unknown` when the file is there and can't be read or parsed.
    pub charter: Fact<Option<Charter>>,
    /// Names at the root that are neither ours nor the file system's own.
    pub strangers: Vec<String>,
}

/// How much of etcd is in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataDir {
    /// Nothing.
    Absent,
    /// Something, but no write-ahead log: etcd stopped before it took part in anything.
    Unborn,
    /// A write-ahead log: etcd has a memory here.
    Present,
}
