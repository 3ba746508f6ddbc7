//! Making etcd's data from a backup.
//!
//! The data are made aside and renamed into place as a whole, so that at no moment a half of them can be taken for all:
//!
//! 1. The snapshot is unpacked, and restored by etcd's own `etcdutl` for a private etcd (`crate::etcd::replay`).
//! 2. The changes since are applied there, each as the transaction that it was.
//! 3. What quorate keeps in etcd is dropped: members, locks, the charter's copy are of the cluster that was.
//! 4. The database is restored once more by `etcdutl`, as that of a new member alone in its cluster, with a revision far
//!    beyond any that was ever told to a client, and all before it compacted: so nobody goes on from what he saw last
//!    of the cluster that was, but reads everything anew. (Source: etcd's operations guide, "Disaster recovery".)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::BackupError;
use super::read;
use super::segment::{self, Link};
use crate::aws::ObjectStore;
use crate::etcd::config::{Paths, Tuning};
use crate::etcd::replay::{self, Replay, ReplayStart};
use crate::etcd::streams::Change;
use crate::host::{command, files};
use crate::model::{ClusterUuid, EtcdLaunch, RestorePoint};

/// By how much the revision rises: more than any cluster counts in what may be lost.
/// Source: etcd's operations guide, "Disaster recovery", which names this figure.
const BUMP: &str = "1000000000";
/// How long `etcdutl` may take. It copies the database.
const RESTORE: Duration = Duration::from_mins(15);

/// What a restore needs of this machine.
#[derive(Debug, Clone)]
pub struct Bench<'a> {
    /// Where it may work; on the file system of the data.
    pub dir: PathBuf,
    /// etcd. `etcdutl` is beside it.
    pub etcd: PathBuf,
    /// This machine's certificates.
    pub pki: PathBuf,
    /// etcd's tuning.
    pub tuning: &'a Tuning,
}

/// What was rehearsed or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The last revision.
    pub revision: i64,
    /// How many keys there were at the chain's first revision; `None` when that is compacted.
    pub keys: Option<u64>,
}

/// Makes etcd's data directory from a backup, for a member that is alone in its cluster. Nothing is done when there
/// is one already.
pub async fn from_backup(
    bench: &Bench<'_>,
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    point: &RestorePoint,
    launch: &EtcdLaunch,
    data: &Path,
) -> Result<Replayed, BackupError> {
    let bench = begin(bench)?;
    let (mut replay, replayed) = replay_backup(&bench, objects, uuid, point).await?;
    replay.drop_what_was().await?;
    finish(&bench, replay, launch, data).await?;
    Ok(replayed)
}

/// The same from the data of one member that is left: its snapshot and its log.
pub async fn from_survivor(
    bench: &Bench<'_>,
    survivor: &Path,
    launch: &EtcdLaunch,
    data: &Path,
) -> Result<Replayed, BackupError> {
    let bench = begin(bench)?;
    let copy = bench.dir.join("replay");
    let arguments = ["-a", "--reflink=auto", "--"].map(OsString::from);
    let paths = [survivor.as_os_str().to_owned(), copy.clone().into_os_string()];
    command::run(Path::new("cp"), arguments.into_iter().chain(paths), RESTORE)
        .await
        .and_then(command::Finished::success)?;
    let mut replay = started(&bench, true).await?;
    let replayed = Replayed { revision: replay.revision().await?, keys: None };
    replay.drop_what_was().await?;
    finish(&bench, replay, launch, data).await?;
    Ok(replayed)
}

/// Restores a backup to see that it can be, and drops what was made.
pub async fn rehearse(
    bench: &Bench<'_>,
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    point: &RestorePoint,
) -> Result<Replayed, BackupError> {
    let bench = begin(bench)?;
    let (replay, replayed) = replay_backup(&bench, objects, uuid, point).await?;
    replay.stop().await?;
    clear(&bench.dir)?;
    Ok(replayed)
}

/// Unpacks the snapshot and applies the changes since, on a private etcd.
async fn replay_backup(
    bench: &Bench<'_>,
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    point: &RestorePoint,
) -> Result<(Replay, Replayed), BackupError> {
    let manifest = read::named_manifest(objects, uuid, &point.chain).await?;
    let snapshot = bench.dir.join("snapshot.db");
    let file = fs::File::create(&snapshot).map_err(BackupError::io("creating", &snapshot))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    read::snapshot(objects, &manifest, &mut file).await?;
    file.flush().map_err(BackupError::io("writing", &snapshot))?;
    drop(file);
    // All changes are fetched before the leases of the snapshot begin to run.
    let changes = fetch(bench, objects, uuid, point).await?;
    let replayed_data = bench.dir.join("replay");
    etcdutl(
        bench,
        &snapshot,
        &replayed_data,
        &[
            ("--name", replay::NAME.to_owned()),
            ("--initial-cluster", format!("{}={}", replay::NAME, replay::PEER_URL)),
            ("--initial-advertise-peer-urls", replay::PEER_URL.to_owned()),
        ],
        &[],
    )
    .await?;
    fs::remove_file(&snapshot).map_err(BackupError::io("removing", &snapshot))?;
    let mut replay = started(bench, false).await?;
    let found = replay.revision().await?;
    if found < point.chain.revision || found > manifest.until {
        let object = objects.url(&point.chain.snapshot());
        let why =
            format!("its last revision is {found}, expected {} to {}", point.chain.revision, manifest.until);
        return Err(BackupError::Damaged { object, why });
    }
    let keys = replay.keys_at(point.chain.revision).await?;
    if let Some(keys) = keys
        && keys != manifest.keys
    {
        let object = objects.url(&point.chain.snapshot());
        let why =
            format!("it holds {keys} keys at revision {}, expected {}", point.chain.revision, manifest.keys);
        return Err(BackupError::Damaged { object, why });
    }
    for path in changes {
        let bytes = fs::read(&path).map_err(BackupError::io("reading", &path))?;
        let read = segment::open(&bytes).map_err(|error| BackupError::Damaged {
            object: path.display().to_string(),
            why: error.to_string(),
        })?;
        apply(&mut replay, read, found, point.revision).await?;
        fs::remove_file(&path).map_err(BackupError::io("removing", &path))?;
    }
    let revision = replay.revision().await?;
    if revision < point.revision {
        return Err(BackupError::Replay(replay::ReplayError::Diverged {
            found: revision,
            expected: point.revision,
        }));
    }
    Ok((replay, Replayed { revision, keys }))
}

/// Applies what the database does not hold yet, up to the last revision that is wanted.
async fn apply(
    replay: &mut Replay,
    segment: segment::Segment,
    held: i64,
    last: i64,
) -> Result<(), BackupError> {
    let leases: BTreeMap<i64, i64> = segment.header.leases;
    for revision in segment.revisions {
        if revision.revision <= held || revision.revision > last {
            continue;
        }
        let number = revision.revision;
        let changes = revision
            .operations
            .into_iter()
            .map(|operation| Change {
                revision: number,
                key: operation.key,
                value: (!operation.deleted).then_some(operation.value),
                lease: operation.lease,
            })
            .collect();
        replay.apply(number, changes, &leases).await?;
    }
    Ok(())
}

/// Brings the segments to this machine, each checked, and gives their files in order.
async fn fetch(
    bench: &Bench<'_>,
    objects: &ObjectStore,
    uuid: &ClusterUuid,
    point: &RestorePoint,
) -> Result<Vec<PathBuf>, BackupError> {
    let mut link = Link::first(uuid.clone(), point.chain.clone());
    let mut fetched = Vec::new();
    while link.segments < point.segments {
        let missing = || BackupError::Missing { object: objects.url(&link.next_segment()) };
        let found = read::following(objects, &link).await?.ok_or_else(missing)?;
        link = found.link;
        let path = bench.dir.join(format!("changes-{:010}", link.segments));
        fs::write(&path, &found.bytes).map_err(BackupError::io("writing", &path))?;
        fetched.push(path);
    }
    Ok(fetched)
}

async fn started(bench: &Bench<'_>, force_new_cluster: bool) -> Result<Replay, BackupError> {
    let paths = Paths { data: bench.dir.join("replay"), pki: bench.pki.clone() };
    let printed = bench.dir.join("etcd.log");
    let start = ReplayStart {
        program: &bench.etcd,
        paths: &paths,
        tuning: bench.tuning,
        force_new_cluster,
        printed: &printed,
    };
    Ok(Replay::start(&start).await?)
}

/// Makes the member's data of what the private etcd holds, and puts them in their place.
async fn finish(
    bench: &Bench<'_>,
    replay: Replay,
    launch: &EtcdLaunch,
    data: &Path,
) -> Result<(), BackupError> {
    replay.stop().await?;
    let made = bench.dir.join("made");
    let peers: Vec<String> =
        launch.initial_cluster.iter().map(|(name, url)| format!("{name}={url}")).collect();
    let url = crate::model::machine::peer_url(launch.address);
    let database = bench.dir.join("replay/member/snap/db");
    etcdutl(
        bench,
        &database,
        &made,
        &[
            ("--name", launch.slot.member_name()),
            ("--initial-cluster", peers.join(",")),
            ("--initial-cluster-token", crate::etcd::config::token(&launch.uuid, launch.generation)),
            ("--initial-advertise-peer-urls", url),
            ("--bump-revision", BUMP.to_owned()),
        ],
        &["--mark-compacted", "--skip-hash-check"],
    )
    .await?;
    files::rename_into_place(&made, data)?;
    clear(&bench.dir)
}

async fn etcdutl(
    bench: &Bench<'_>,
    database: &Path,
    to: &Path,
    flags: &[(&str, String)],
    switches: &[&str],
) -> Result<(), BackupError> {
    let program = bench.etcd.with_file_name("etcdutl");
    let mut arguments: Vec<OsString> = ["snapshot", "restore"].map(OsString::from).to_vec();
    arguments.extend([database.as_os_str().to_owned(), "--data-dir".into(), to.as_os_str().to_owned()]);
    arguments.extend(flags.iter().flat_map(|(flag, value)| [OsString::from(flag), OsString::from(value)]));
    arguments.extend(switches.iter().map(OsString::from));
    command::run(&program, arguments, RESTORE).await.and_then(command::Finished::success)?;
    Ok(())
}

/// An empty place to work in. What is there is a restore's that was cut off: it was never used.
fn begin<'a>(bench: &Bench<'a>) -> Result<Bench<'a>, BackupError> {
    clear(&bench.dir)?;
    files::create_dir(&bench.dir, 0o700)?;
    Ok(bench.clone())
}

fn clear(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::Io { doing: "removing", path: dir.to_owned(), source }),
    }
}
