//! Choosing: which backup reaches furthest, and which of them is whole.

use std::cmp::Reverse;

use super::error::BackupError;
use super::read::{self, ChainEnd, ReadChain, UpTo};
use super::segment::{self, Link};
use crate::aws::ObjectStore;
use crate::model::fact::chain as words;
use crate::model::{ChainName, ClusterUuid, Generation, Manifest, RestorePoint};

/// How many of the newest chains are looked at.
const CHAINS: usize = 16;

/// A chain that was finished, and how far it reaches as its last segment says.
struct Candidate {
    manifest: Manifest,
    /// `None` when that segment can't be read.
    end: Option<Link>,
}

impl Candidate {
    /// The last revision that it may hold.
    fn reach(&self, up_to: UpTo) -> i64 {
        let end = self.end.as_ref().map_or(i64::MAX, |link| link.revision);
        match up_to {
            UpTo::Revision(last) => end.min(last),
            UpTo::Newest | UpTo::Moment(_) => end,
        }
    }
}

/// The chains of a generation, with where each ends, the one that reaches furthest first: who keeps the backups goes on
/// there.
pub async fn furthest(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    generation: Generation,
) -> Result<Vec<(Manifest, Link)>, BackupError> {
    let found = candidates(objects, uuid, generation, UpTo::Newest, &mut Vec::new()).await?;
    // One whose last segment can't be read is not gone on with.
    let mut whole: Vec<(Manifest, Link)> =
        found.into_iter().filter_map(|candidate| Some((candidate.manifest, candidate.end?))).collect();
    whole.sort_by_key(|(manifest, link)| Reverse((link.revision, manifest.chain.clone())));
    Ok(whole)
}

/// The backup of a generation that reaches furthest and is whole, read from its first byte to its last.
///
/// # Errors
/// There is none; or S3 gives no answer, which says nothing about any.
pub async fn newest_whole(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    generation: Generation,
    up_to: UpTo,
) -> Result<RestorePoint, BackupError> {
    let mut passed_over = Vec::new();
    let mut found = candidates(objects, uuid, generation, up_to, &mut passed_over).await?;
    found.sort_by_key(|candidate| (candidate.reach(up_to), candidate.manifest.chain.clone()));
    let mut best: Option<ReadChain> = None;
    while let Some(candidate) = found.pop() {
        if best.as_ref().is_some_and(|best| candidate.reach(up_to) <= best.point.revision) {
            break;
        }
        let read = read::follow(objects, candidate.manifest, up_to).await?;
        if best.as_ref().is_some_and(|best| read.point.revision <= best.point.revision) {
            continue;
        }
        match read::snapshot(objects, &read.manifest, &mut std::io::sink()).await {
            Ok(()) => {}
            Err(error) if error.is_about_the_backup() => {
                passed_over.push(words(&error));
                continue;
            }
            Err(error) => return Err(error),
        }
        if let ChainEnd::Broken(why) = &read.end {
            passed_over.push(why.clone());
        }
        best = Some(read);
    }
    match best {
        Some(ReadChain { point, .. }) => Ok(RestorePoint { passed_over, ..point }),
        None => Err(BackupError::NoneWhole { passed_over }),
    }
}

async fn candidates(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    generation: Generation,
    up_to: UpTo,
    passed_over: &mut Vec<String>,
) -> Result<Vec<Candidate>, BackupError> {
    let mut found = Vec::new();
    for chain in read::chains(objects, generation).await?.into_iter().rev() {
        let manifest = match read::manifest(objects, uuid, &chain).await {
            Ok(Some(manifest)) => manifest,
            // It was never finished: what it has, the chain before it has, too.
            Ok(None) => continue,
            Err(error) if error.is_about_the_backup() => {
                passed_over.push(words(&error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let too_late = match up_to {
            UpTo::Newest => false,
            UpTo::Revision(last) => manifest.until > last,
            UpTo::Moment(last) => manifest.taken > last,
        };
        if too_late {
            continue;
        }
        let end = end(objects, uuid, &chain).await?;
        found.push(Candidate { manifest, end });
        if found.len() == CHAINS {
            break;
        }
    }
    Ok(found)
}

/// Where a chain ends, as its last segment says; `None` when that can't be read.
pub async fn end(
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    chain: &ChainName,
) -> Result<Option<Link>, BackupError> {
    let Some(last) = objects.list(&chain.changes()).await?.pop() else {
        return Ok(Some(Link::first(uuid.clone(), chain.clone())));
    };
    let Some(stored) = objects.get(&last).await? else { return Ok(None) };
    let Ok(segment) = segment::open(&stored.bytes) else { return Ok(None) };
    let header = segment.header;
    let is_its_own = header.uuid == *uuid && header.chain == *chain && chain.segment(header.number) == last;
    Ok(is_its_own.then_some(Link {
        uuid: header.uuid,
        chain: header.chain,
        segments: header.number,
        revision: header.to,
        hash: segment.hash,
    }))
}
