//! Segments: the changes between two revisions, as one object that can be checked by itself.
//!
//! ```text
//! "quorate changes 1\n"   what it is
//! u32, big endian         the length of the header
//! header                  JSON: SegmentHeader
//! body                    zstd: the revisions, each as a protobuf message with its length before it
//! 32 bytes                SHA-256 of all the above
//! ```
//!
//! A revision is a transaction of etcd: its operations are applied together, or not at all. etcd counts revisions
//! without a gap, so a segment that lacks one is refused when it is made and when it is read.

use std::collections::BTreeMap;
use std::io::Read as _;

use prost::Message;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::digest::{hex, sha256};
use crate::model::{ChainName, ClusterUuid};

const MAGIC: &[u8] = b"quorate changes 1\n";
const HASH: usize = 32;
/// zstd's own default: changes are small, and mostly JSON or protobuf.
const LEVEL: i32 = 3;
/// The most that a segment's body is unpacked to. One is sealed long before, but for a single revision's size.
const LARGEST: u64 = 1 << 30;

/// The place of a segment in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentHeader {
    /// The cluster's UUID.
    pub uuid: ClusterUuid,
    /// The chain.
    pub chain: ChainName,
    /// Its number, from 1.
    pub number: u32,
    /// The revision that it follows: that of the chain's name, or the last one of the segment before.
    pub after: i64,
    /// Its last revision.
    pub to: i64,
    /// The SHA-256 of the segment before, in hexadecimal; of the chain's name for the first.
    pub previous: String,
    /// When it was sealed, in milliseconds since 1970.
    pub sealed: i64,
    /// The leases that its operations name, with their time to live in seconds as it was granted.
    pub leases: BTreeMap<i64, i64>,
}

/// One revision: what one transaction changed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Revision {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// When it was seen, in milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub seen: i64,
    /// What it changed, in order.
    #[prost(message, repeated, tag = "3")]
    pub operations: Vec<Operation>,
}

/// One key that was put or deleted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Operation {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its new value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// The lease that it is on; 0 is none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Whether it was deleted.
    #[prost(bool, tag = "4")]
    pub deleted: bool,
}

/// Where a chain ends so far, and so what its next segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The cluster's UUID.
    pub uuid: ClusterUuid,
    /// The chain.
    pub chain: ChainName,
    /// How many segments it has.
    pub segments: u32,
    /// Its last revision.
    pub revision: i64,
    /// The SHA-256 of its last segment, or of its name.
    pub hash: String,
}

impl Link {
    /// A chain without segments.
    pub fn first(uuid: ClusterUuid, chain: ChainName) -> Self {
        let hash = sha256(chain.to_string().as_bytes());
        Self { uuid, revision: chain.revision, chain, segments: 0, hash }
    }

    /// The key of the segment that follows.
    pub fn next_segment(&self) -> String {
        self.chain.segment(self.segments.saturating_add(1))
    }

    /// Where the chain ends with this segment, if it is the next one.
    ///
    /// # Errors
    /// It is of another cluster or chain, out of turn, or follows something else.
    pub fn then(&self, header: &SegmentHeader, hash: String) -> Result<Self, SegmentError> {
        let next = |what: &'static str, found: String, expected: String| {
            if found == expected { Ok(()) } else { Err(SegmentError::OutOfPlace { what, found, expected }) }
        };
        next("cluster", header.uuid.to_string(), self.uuid.to_string())?;
        next("chain", header.chain.to_string(), self.chain.to_string())?;
        next("number", header.number.to_string(), self.segments.saturating_add(1).to_string())?;
        next("beginning", header.after.to_string(), self.revision.to_string())?;
        next("hash of what is before it", header.previous.clone(), self.hash.clone())?;
        Ok(Self { segments: header.number, revision: header.to, hash, ..self.clone() })
    }
}

/// A segment as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its place.
    pub header: SegmentHeader,
    /// What it holds.
    pub revisions: Vec<Revision>,
    /// The SHA-256 that the next one names, in hexadecimal.
    pub hash: String,
}

/// What can't be taken for a segment, or not for the next one.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It is cut off, or something else.
    #[error("found {found}, expected a segment of changes")]
    NoSegment {
        /// What is wrong with it.
        found: &'static str,
    },
    /// Its content is not what was written.
    #[error("its SHA-256 is {found}, expected {expected}")]
    Damaged {
        /// The hash of its content.
        found: String,
        /// The hash that it ends with.
        expected: String,
    },
    /// Its header can't be read.
    #[error("its header can't be read")]
    Header(#[source] serde_json::Error),
    /// Its body can't be packed or unpacked.
    #[error("its body can't be packed or unpacked")]
    Body(#[source] std::io::Error),
    /// A revision can't be read.
    #[error("a revision can't be read")]
    Revision(#[source] prost::DecodeError),
    /// A revision is missing, or one too many.
    #[error("revision {found} where {expected} was to come")]
    Gap {
        /// The one that came.
        found: i64,
        /// The one that was due.
        expected: i64,
    },
    /// It is not the next one of its chain.
    #[error("its {what} is {found}, expected {expected}")]
    OutOfPlace {
        /// What does not fit.
        what: &'static str,
        /// What it says.
        found: String,
        /// What would fit.
        expected: String,
    },
}

/// Seals changes as the next segment of a chain; gives its bytes and where the chain then ends.
///
/// # Errors
/// The revisions are none, or not those that follow.
pub fn seal(
    link: &Link,
    revisions: &[Revision],
    leases: BTreeMap<i64, i64>,
    now: i64,
) -> Result<(Vec<u8>, Link), SegmentError> {
    let Some(last) = revisions.last() else {
        return Err(SegmentError::NoSegment { found: "no revision" });
    };
    let header = SegmentHeader {
        uuid: link.uuid.clone(),
        chain: link.chain.clone(),
        number: link.segments.saturating_add(1),
        after: link.revision,
        to: last.revision,
        previous: link.hash.clone(),
        sealed: now,
        leases,
    };
    without_gap(&header, revisions)?;
    let mut body = Vec::new();
    for revision in revisions {
        // A vector takes whatever is written to it.
        let _: Result<(), prost::EncodeError> = revision.encode_length_delimited(&mut body);
    }
    let json = serde_json::to_vec(&header).map_err(SegmentError::Header)?;
    let length = u32::try_from(json.len()).map_err(|_| SegmentError::NoSegment { found: "a long header" })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.extend(json);
    bytes.extend(zstd::encode_all(body.as_slice(), LEVEL).map_err(SegmentError::Body)?);
    let hash = digest(&SHA256, &bytes);
    bytes.extend(hash.as_ref());
    let link = link.then(&header, hex(hash.as_ref()))?;
    Ok((bytes, link))
}

/// Reads a segment, and checks all that can be checked by itself.
///
/// # Errors
/// Anything about it that is not as it was sealed.
pub fn open(bytes: &[u8]) -> Result<Segment, SegmentError> {
    const CUT: SegmentError = SegmentError::NoSegment { found: "the beginning of one" };
    let (content, hash) = bytes.split_last_chunk::<HASH>().ok_or(CUT)?;
    let rest =
        content.strip_prefix(MAGIC).ok_or(SegmentError::NoSegment { found: "another kind of object" })?;
    let (found, expected) = (sha256(content), hex(hash));
    if found != expected {
        return Err(SegmentError::Damaged { found, expected });
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| CUT)?;
    let (json, body) = rest.split_at_checked(length).ok_or(CUT)?;
    let header: SegmentHeader = serde_json::from_slice(json).map_err(SegmentError::Header)?;
    let mut unpacked = Vec::new();
    let mut decoder = zstd::Decoder::new(body).map_err(SegmentError::Body)?.take(LARGEST);
    decoder.read_to_end(&mut unpacked).map_err(SegmentError::Body)?;
    let mut rest = unpacked.as_slice();
    let mut revisions = Vec::new();
    while !rest.is_empty() {
        revisions.push(Revision::decode_length_delimited(&mut rest).map_err(SegmentError::Revision)?);
    }
    without_gap(&header, &revisions)?;
    Ok(Segment { header, revisions, hash: found })
}

/// From the one after `after` to `to`, each once and in order.
fn without_gap(header: &SegmentHeader, revisions: &[Revision]) -> Result<(), SegmentError> {
    let mut expected = header.after;
    for revision in revisions {
        expected = expected.saturating_add(1);
        if revision.revision != expected {
            return Err(SegmentError::Gap { found: revision.revision, expected });
        }
    }
    if expected != header.to || revisions.is_empty() {
        return Err(SegmentError::Gap { found: expected, expected: header.to });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Generation;

    fn link() -> Link {
        let uuid = "00000000-0000-0000-0000-0000000000e1".parse().unwrap();
        Link::first(uuid, ChainName::new(Generation(1), 100, "0a1b2c3d").unwrap())
    }

    fn put(revision: i64, key: &str, value: &str) -> Revision {
        let operation =
            Operation { key: key.into(), value: value.into(), lease: 7, deleted: value.is_empty() };
        Revision { revision, seen: 1_700_000_000_000 + revision, operations: vec![operation] }
    }

    fn sealed(link: &Link, from: i64, to: i64) -> (Vec<u8>, Link) {
        let revisions: Vec<_> = (from..=to).map(|n| put(n, &format!("k{n}"), "v")).collect();
        seal(link, &revisions, BTreeMap::from([(7, 60)]), 1_700_000_000_000).unwrap()
    }

    #[test]
    fn what_is_sealed_is_read_again_and_follows_what_was_before() {
        let (first, second_follows) = sealed(&link(), 101, 103);
        let (second, end) = sealed(&second_follows, 104, 104);
        let mut at = link();
        for (bytes, revisions) in [(&first, 3), (&second, 1)] {
            let segment = open(bytes).unwrap();
            assert_eq!(segment.revisions.len(), revisions);
            assert_eq!(segment.header.leases, BTreeMap::from([(7, 60)]));
            at = at.then(&segment.header, segment.hash).unwrap();
        }
        assert_eq!((at.clone(), at.revision, at.segments), (end, 104, 2));
    }

    #[test]
    fn one_that_is_missing_exchanged_or_of_another_chain_does_not_follow() {
        let (first, after_first) = sealed(&link(), 101, 103);
        let (second, _) = sealed(&after_first, 104, 105);
        let (other_first, after_other) = sealed(&link(), 101, 102);
        let (third_of_other, _) = sealed(&after_other, 103, 104);
        let follows = |link: &Link, bytes: &[u8]| {
            let segment = open(bytes).unwrap();
            link.then(&segment.header, segment.hash).map_err(|error| error.to_string())
        };
        assert!(follows(&link(), &first).is_ok() && follows(&link(), &other_first).is_ok());
        assert!(follows(&link(), &second).unwrap_err().contains("its number is 2, expected 1"));
        assert!(follows(&after_first, &first).unwrap_err().contains("number"));
        assert!(follows(&after_first, &third_of_other).unwrap_err().contains("its beginning is 102"));
        let elsewhere = Link { chain: ChainName::new(Generation(1), 100, "zzzzzzzz").unwrap(), ..link() };
        assert!(follows(&elsewhere, &first).unwrap_err().contains("chain"));
        let same_place = Link { hash: "ff".to_owned(), ..after_first };
        assert!(follows(&same_place, &second).unwrap_err().contains("hash of what is before it"));
    }

    #[test]
    fn revisions_with_a_gap_are_not_sealed() {
        for revisions in [vec![], vec![102], vec![101, 103], vec![101, 101], vec![102, 101]] {
            let revisions: Vec<_> = revisions.into_iter().map(|n| put(n, "k", "v")).collect();
            assert!(seal(&link(), &revisions, BTreeMap::new(), 0).is_err(), "{revisions:?}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let (bytes, _) = sealed(&link(), 101, 140);
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length]).is_err(), "cut to {length}");
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                assert!(open(&damaged).is_err(), "bit {bit} of byte {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_was_changed_comes_back(
            operations in prop::collection::vec(
                prop::collection::vec(
                    (prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..200),
                     any::<i64>(), any::<bool>()),
                    1..5,
                ),
                1..20,
            )
        ) {
            let revisions: Vec<Revision> = operations
                .into_iter()
                .zip(101..)
                .map(|(operations, revision)| Revision {
                    revision,
                    seen: revision,
                    operations: operations
                        .into_iter()
                        .map(|(key, value, lease, deleted)| Operation { key, value, lease, deleted })
                        .collect(),
                })
                .collect();
            let (bytes, _) = seal(&link(), &revisions, BTreeMap::new(), 5).unwrap();
            prop_assert_eq!(open(&bytes).unwrap().revisions, revisions);
        }

        #[test]
        fn nothing_that_is_read_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(&bytes).is_err());
        }
    }
}
