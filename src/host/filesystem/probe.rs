//! What is on a device: blank, ours, or something else.
//!
//! Two witnesses must agree that a device is blank: blkid, which knows signatures anywhere on it,
//! and its own head and tail, which must be zeros. What either of them can't tell is an error.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::{FilesystemError, Kind, LOOK, blocking, can_grow, label};
use crate::host::command;
use crate::model::{Content, Slot};

/// How much of the head and of the tail of a device must be zeros: GPT keeps its backup in the
/// last 33 sectors, RAID and ZFS theirs within the last 512 KiB.
const EDGE: u64 = 1024 * 1024;

/// What is on a device. It is ours when its label is that of `slot`, or of any slot when `slot`
/// is not known. Also says, of ours, whether the device has grown beyond the file system.
pub async fn probe(device: &Path, slot: Option<Slot>) -> Result<Content, FilesystemError> {
    let edges = edges(device).await?;
    let seen = signatures(device).await?;
    match judge(seen, &edges, slot) {
        Judgement::Blank => Ok(Content::Blank),
        Judgement::Foreign(found) => Ok(Content::Foreign(found)),
        Judgement::Ours(kind) => {
            let can_grow = can_grow(device, kind).await?;
            Ok(Content::Ours { kind: kind.as_str().to_owned(), can_grow })
        }
    }
}

/// What blkid knows of a device.
#[derive(Debug, PartialEq, Eq)]
enum Signatures {
    /// Nothing.
    None,
    /// Several things that exclude each other.
    Ambivalent,
    /// One thing, by its values.
    Some(Vec<(String, String)>),
}

impl Signatures {
    fn parse(export: &str) -> Self {
        let pairs = export.lines().filter_map(|line| line.split_once('='));
        Self::Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

/// What is at the edges of a device.
#[derive(Debug, PartialEq, Eq)]
struct Edges {
    /// Where the first byte that is not zero is, in the head or the tail.
    non_zero: Option<u64>,
    /// What the device is, in words.
    what: &'static str,
}

/// Low-level probing for everything that libblkid knows: file systems, RAID, encryption, other
/// signatures (no filter), and partition tables. The cache is not asked. Source: blkid(8).
async fn signatures(device: &Path) -> Result<Signatures, FilesystemError> {
    let failed = |source| FilesystemError::Probe { device: device.to_owned(), source };
    let args = ["--probe", "--output", "export"].map(AsRef::as_ref).into_iter().chain([device.as_os_str()]);
    let finished = command::run("blkid", args, LOOK).await.map_err(failed)?;
    let silent = finished.stdout.trim().is_empty() && finished.stderr.trim().is_empty();
    match finished.status.code() {
        Some(0) if !finished.stdout.trim().is_empty() => Ok(Signatures::parse(&finished.stdout)),
        // Also said of a device that can't be read: that its edges were read tells the two apart.
        Some(2) if silent => Ok(Signatures::None),
        Some(8) => Ok(Signatures::Ambivalent),
        _ => Err(failed(finished.failure())),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Blank,
    Ours(Kind),
    Foreign(String),
}

fn judge(seen: Signatures, edges: &Edges, slot: Option<Slot>) -> Judgement {
    let pairs = match seen {
        Signatures::Some(pairs) => pairs,
        Signatures::Ambivalent => {
            return Judgement::Foreign(format!("{}: signatures of more than one thing", edges.what));
        }
        Signatures::None => {
            return match edges.non_zero {
                None => Judgement::Blank,
                Some(offset) => {
                    Judgement::Foreign(format!("{}: non-zero bytes at offset {offset}", edges.what))
                }
            };
        }
    };
    let value = |key: &str| pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
    let ours = |found: &str| match slot {
        Some(slot) => found == label(slot),
        None => Slot::all(Slot::MOST).any(|slot| found == label(slot)),
    };
    let kind = value("TYPE").and_then(|kind| kind.parse::<Kind>().ok());
    match (kind, value("LABEL"), value("PTTYPE")) {
        (Some(kind), Some(found), None) if ours(found) => Judgement::Ours(kind),
        _ => Judgement::Foreign(format!("{}: {}", edges.what, describe(&pairs))),
    }
}

/// What was found, for people: type, label, UUID and partition table come first.
fn describe(pairs: &[(String, String)]) -> String {
    let telling = ["PTTYPE", "TYPE", "LABEL", "UUID", "PTUUID", "USAGE", "VERSION"];
    let found: Vec<String> = telling
        .iter()
        .filter_map(|key| pairs.iter().find(|(found, _)| found == key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if found.is_empty() { "a signature that blkid does not name".to_owned() } else { found.join(" ") }
}

async fn edges(device: &Path) -> Result<Edges, FilesystemError> {
    let device = device.to_owned();
    blocking(device.clone(), move || {
        let read = |source| FilesystemError::Read { device: device.clone(), source };
        let mut file = File::open(&device).map_err(read)?;
        let kind = file.metadata().map_err(read)?.file_type();
        let what = if kind.is_block_device() {
            "block device"
        } else if kind.is_file() {
            "regular file"
        } else {
            return Err(read(io::Error::other("neither a block device nor a regular file")));
        };
        let size = file.seek(SeekFrom::End(0)).map_err(read)?;
        if size == 0 {
            return Err(FilesystemError::NoSize { device: device.clone() });
        }
        let mut non_zero = first_non_zero(&mut file, 0, size.min(EDGE)).map_err(read)?;
        if non_zero.is_none() {
            let tail = size.saturating_sub(EDGE);
            non_zero = first_non_zero(&mut file, tail, size - tail).map_err(read)?;
        }
        Ok(Edges { non_zero, what })
    })
    .await
}

/// Where the first byte that is not zero is, of `length` bytes from `start`. All must be there.
fn first_non_zero(file: &mut File, start: u64, length: u64) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    let read = file.take(length).read_to_end(&mut bytes)?;
    if u64::try_from(read).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((start..).zip(&bytes).find(|(_, byte)| **byte != 0).map(|(offset, _)| offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u8) -> Slot {
        Slot::try_from(number).unwrap()
    }

    fn edges(non_zero: Option<u64>) -> Edges {
        Edges { non_zero, what: "block device" }
    }

    #[test]
    fn blank_is_only_what_both_witnesses_call_blank() {
        assert_eq!(judge(Signatures::None, &edges(None), Some(slot(1))), Judgement::Blank);
        let not_blank = [
            (Signatures::None, edges(Some(512))),
            (Signatures::Ambivalent, edges(None)),
            (Signatures::parse("TYPE=swap\n"), edges(None)),
            (Signatures::parse("PTTYPE=gpt\n"), edges(None)),
            (Signatures::parse("DEVNAME=/dev/x\n"), edges(None)),
        ];
        for (seen, edges) in not_blank {
            let told = format!("{seen:?} {edges:?}");
            assert!(matches!(judge(seen, &edges, None), Judgement::Foreign(_)), "{told}");
        }
    }

    #[test]
    fn ours_is_a_file_system_for_etcd_with_the_label_of_the_slot() {
        let ours = "LABEL=quorate-2\nUUID=u\nTYPE=ext4\nUSAGE=filesystem\n";
        let judged = |export: &str, slot| judge(Signatures::parse(export), &edges(Some(1080)), slot);
        assert_eq!(judged(ours, Some(slot(2))), Judgement::Ours(Kind::Ext4));
        assert_eq!(judged(ours, None), Judgement::Ours(Kind::Ext4));
        for (export, slot) in [
            (ours, Some(slot(1))),
            ("LABEL=quorate-6\nTYPE=ext4\n", None),
            ("LABEL=quorate-2x\nTYPE=ext4\n", None),
            ("LABEL=data\nTYPE=ext4\n", None),
            ("TYPE=ext4\n", None),
            ("LABEL=quorate-2\nTYPE=btrfs\n", None),
            ("LABEL=quorate-2\nTYPE=ext4\nPTTYPE=dos\n", None),
        ] {
            assert!(matches!(judged(export, slot), Judgement::Foreign(_)), "{export}");
        }
    }

    #[test]
    fn what_was_found_is_named() {
        let export = "DEVNAME=/dev/x\nLABEL=data\nUUID=u-1\nTYPE=xfs\n";
        assert_eq!(
            judge(Signatures::parse(export), &edges(Some(0)), None),
            Judgement::Foreign("block device: TYPE=xfs LABEL=data UUID=u-1".to_owned())
        );
        assert_eq!(
            judge(Signatures::None, &edges(Some(4096)), None),
            Judgement::Foreign("block device: non-zero bytes at offset 4096".to_owned())
        );
    }
}
