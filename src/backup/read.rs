//! Reading backups: which there are, whether they are whole, and up to where.
//!
//! A backup is read from its beginning. What can't be read ends it there: the snapshot and the segments before that
//! are as good as ever. That S3 gives no answer is an error, and never an end.

use std::io::{self, Write};

use ring::digest::{Context, SHA256};

use super::error::BackupError;
use super::segment::{self, Link, Segment};
use crate::aws::ObjectStore;
use crate::digest::hex;
use crate::model::{ChainName, ClusterUuid, Generation, Manifest, RestorePoint};

/// The database's hash, which etcd sends after it.
pub(super) const HASH: usize = 32;

/// Up to where a backup is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTo {
    /// All there is.
    Newest,
    /// This revision, and nothing after it.
    Revision(i64),
    /// What was seen at this moment, in milliseconds since 1970.
    Moment(i64),
}

/// Why a chain ends where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// There is no more of it.
    Complete,
    /// No more of it is wanted.
    Wanted,
    /// What comes next is missing or damaged.
    Broken(String),
}

/// A chain as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChain {
    /// What can be restored of it.
    pub point: RestorePoint,
    /// Where it ends, for who goes on with it.
    pub link: Link,
    /// Why it ends there.
    pub end: ChainEnd,
    /// What its snapshot says of itself.
    pub manifest: Manifest,
}

/// The chains of a generation, the oldest first. Those without a manifest, which were never finished, are not told
/// from the others yet.
pub async fn chains(objects: &ObjectStore, generation: Generation) -> Result<Vec<ChainName>, BackupError> {
    let prefix = format!("{}{generation}/", crate::model::backup::BACKUPS);
    let mut found: Vec<ChainName> = objects
        .folders(&prefix)
        .await?
        .iter()
        .filter_map(|folder| {
            folder.strip_prefix(crate::model::backup::BACKUPS)?.trim_end_matches('/').parse().ok()
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The generations that have backups, the oldest first.
async fn generations(objects: &ObjectStore) -> Result<Vec<Generation>, BackupError> {
    let prefix = crate::model::backup::BACKUPS;
    let number =
        |folder: &String| folder.strip_prefix(prefix)?.trim_end_matches('/').parse().ok().map(Generation);
    let mut found: Vec<Generation> = objects.folders(prefix).await?.iter().filter_map(number).collect();
    found.sort_unstable();
    Ok(found)
}

/// The chains of all generations, the oldest first.
pub async fn all_chains(objects: &ObjectStore) -> Result<Vec<ChainName>, BackupError> {
    let mut all = Vec::new();
    for generation in generations(objects).await? {
        all.extend(chains(objects, generation).await?);
    }
    Ok(all)
}

/// A chain's manifest; `None` when it has none, and so was never finished.
///
/// # Errors
/// No answer; or it can't be read, or is another cluster's or chain's.
pub async fn manifest(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    chain: &ChainName,
) -> Result<Option<Manifest>, BackupError> {
    let key = chain.manifest();
    let Some(stored) = objects.get(&key).await? else { return Ok(None) };
    let damaged = |why: String| BackupError::Damaged { object: objects.url(&key), why };
    let manifest: Manifest =
        serde_json::from_slice(&stored.bytes).map_err(|error| damaged(error.to_string()))?;
    if manifest.uuid != *uuid || manifest.chain != *chain {
        return Err(damaged(format!(
            "it is of chain {} of cluster {}, expected {chain} of {uuid}",
            manifest.chain, manifest.uuid
        )));
    }
    Ok(Some(manifest))
}

/// The manifest of a chain that somebody has named: that it is not there is an error.
pub async fn named_manifest(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    chain: &ChainName,
) -> Result<Manifest, BackupError> {
    let missing = || BackupError::Missing { object: objects.url(&chain.manifest()) };
    manifest(objects, uuid, chain).await?.ok_or_else(missing)
}

/// A segment that follows, as it lies in S3 and as it was read, and where the chain ends with it.
pub(super) struct Following {
    pub bytes: Vec<u8>,
    pub segment: Segment,
    pub link: Link,
}

/// The segment that follows; `None` when there is none.
///
/// # Errors
/// No answer; or there is one that is not whole, or does not follow.
pub(super) async fn following(objects: &ObjectStore, link: &Link) -> Result<Option<Following>, BackupError> {
    let key = link.next_segment();
    let Some(stored) = objects.get(&key).await? else { return Ok(None) };
    let damaged = |error: segment::SegmentError| BackupError::Damaged {
        object: objects.url(&key),
        why: crate::model::fact::chain(&error),
    };
    let segment = segment::open(&stored.bytes).map_err(damaged)?;
    let link = link.then(&segment.header, segment.hash.clone()).map_err(damaged)?;
    Ok(Some(Following { bytes: stored.bytes, segment, link }))
}

/// The same, or why the chain ends. A segment that is missing although there are later ones is asked for once more:
/// where the chain is still shipped, they may all have come meanwhile.
async fn following_or_end(
    objects: &ObjectStore,
    link: &Link,
) -> Result<Result<Following, ChainEnd>, BackupError> {
    if let Some(found) = following(objects, link).await? {
        return Ok(Ok(found));
    }
    let missing = link.next_segment();
    let later = objects.list_after(&link.chain.changes(), &missing).await?;
    let Some(later) = later.first() else { return Ok(Err(ChainEnd::Complete)) };
    Ok(following(objects, link).await?.ok_or_else(|| {
        ChainEnd::Broken(format!("{} is missing, although there is {}", objects.url(&missing), later.key))
    }))
}

/// Reads a chain's segments, from the first to the last that is whole and wanted. The snapshot is not read.
pub async fn follow(
    objects: &ObjectStore,
    manifest: Manifest,
    up_to: UpTo,
) -> Result<ReadChain, BackupError> {
    let mut link = Link::first(manifest.uuid.clone(), manifest.chain.clone());
    let mut point = RestorePoint {
        chain: manifest.chain.clone(),
        segments: 0,
        revision: manifest.chain.revision,
        at: manifest.taken,
        passed_over: Vec::new(),
    };
    let end = loop {
        let Following { segment, link: next, .. } = match following_or_end(objects, &link).await {
            Ok(Ok(found)) => found,
            Ok(Err(end)) => break end,
            Err(error) if error.is_about_the_backup() => {
                break ChainEnd::Broken(crate::model::fact::chain(&error));
            }
            Err(error) => return Err(error),
        };
        let wanted = |revision: &&segment::Revision| match up_to {
            UpTo::Newest => true,
            UpTo::Revision(last) => revision.revision <= last,
            UpTo::Moment(last) => revision.seen <= last,
        };
        let Some(last) = segment.revisions.iter().take_while(wanted).last() else { break ChainEnd::Wanted };
        point.segments = segment.header.number;
        point.revision = last.revision;
        point.at = last.seen;
        if last.revision < segment.header.to {
            break ChainEnd::Wanted;
        }
        link = next;
    };
    Ok(ReadChain { point, link, end, manifest })
}

/// Reads a snapshot from S3 and writes the database, with its hash at the end, as etcd sent it.
///
/// # Errors
/// Anything that is not as the manifest says; then what was written is worth nothing.
pub async fn snapshot(
    objects: &ObjectStore,
    manifest: &Manifest,
    to: &mut impl Write,
) -> Result<(), BackupError> {
    let key = manifest.chain.snapshot();
    let object = objects.url(&key);
    let damaged = |why: String| BackupError::Damaged { object: object.clone(), why };
    let mut download =
        objects.download(&key).await?.ok_or_else(|| BackupError::Missing { object: object.clone() })?;
    let mut stored = Counted::default();
    let mut unpacked = zstd::stream::write::Decoder::new(Checked::new(to))
        .map_err(BackupError::io("preparing to unpack", &key))?;
    while let Some(piece) = download.next().await? {
        stored.update(&piece);
        if let Err(error) = unpacked.write_all(&piece) {
            return Err(unpacked.get_ref().failed(&error).unwrap_or_else(|| damaged(error.to_string())));
        }
    }
    if let Err(error) = unpacked.flush() {
        return Err(unpacked.get_ref().failed(&error).unwrap_or_else(|| damaged(error.to_string())));
    }
    let (size, hash) = stored.finish();
    if (size, hash.as_str()) != (manifest.stored_size, manifest.stored_sha256.as_str()) {
        let Manifest { stored_size, stored_sha256, .. } = manifest;
        return Err(damaged(format!(
            "{size} bytes with SHA-256 {hash}, expected {stored_size} with {stored_sha256}"
        )));
    }
    let (_, (size, hash, sent)) = unpacked.into_inner().finish();
    if size != manifest.size || hash != manifest.sha256 || sent != hash {
        return Err(damaged(format!(
            "its database is {size} bytes with SHA-256 {hash}, and ends with {sent}; expected {} with {}",
            manifest.size, manifest.sha256
        )));
    }
    Ok(())
}

/// Counts and hashes.
pub(super) struct Counted {
    size: u64,
    hash: Context,
}

impl Default for Counted {
    fn default() -> Self {
        Self { size: 0, hash: Context::new(&SHA256) }
    }
}

impl Counted {
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.hash.update(bytes);
    }

    pub fn finish(self) -> (u64, String) {
        (self.size, hex(self.hash.finish().as_ref()))
    }
}

/// Hashes a database as it passes, but for the hash at its end.
pub(super) struct Checked<W> {
    to: W,
    counted: Counted,
    /// The last bytes that came, at most as many as a hash has.
    tail: Vec<u8>,
    failed: Option<io::ErrorKind>,
}

impl<W: Write> Checked<W> {
    pub fn new(to: W) -> Self {
        Self { to, counted: Counted::default(), tail: Vec::new(), failed: None }
    }

    /// Where it is written to.
    pub fn to_mut(&mut self) -> &mut W {
        &mut self.to
    }

    /// Where it was written to, and the database's size and hash, and the hash at its end.
    pub fn finish(self) -> (W, (u64, String, String)) {
        let (size, hash) = self.counted.finish();
        (self.to, (size, hash, hex(&self.tail)))
    }

    /// The error, if it is of where it was written to.
    fn failed(&self, error: &io::Error) -> Option<BackupError> {
        let source = io::Error::new(self.failed?, error.to_string());
        Some(BackupError::Io { doing: "writing", path: "the snapshot".into(), source })
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes).inspect_err(|error| self.failed = Some(error.kind()))?;
        self.tail.extend_from_slice(&bytes[..written]);
        let beyond = self.tail.len().saturating_sub(HASH);
        self.counted.update(&self.tail[..beyond]);
        self.tail.drain(..beyond);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush().inspect_err(|error| self.failed = Some(error.kind()))
    }
}
