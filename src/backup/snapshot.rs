//! Taking a snapshot: from etcd through zstd into S3, never whole in memory, and read back before it counts.

use std::io::Write as _;

use zstd::stream::write::Encoder;

use super::configuration::Configuration;
use super::error::BackupError;
use super::read::{self, Checked};
use crate::aws::{ObjectStore, Upload, Written};
use crate::etcd::ClusterClient;
use crate::etcd::streams::Standing;
use crate::host::clock;
use crate::model::fact::chain as words;
use crate::model::{ChainName, ClusterName, ClusterUuid, Manifest};

/// zstd's own default. etcd's pages are half empty and full of text: more would cost etcd its processor.
const LEVEL: i32 = 3;

/// What a snapshot is taken of.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its UUID.
    pub uuid: ClusterUuid,
    /// The chain that it begins.
    pub chain: ChainName,
    /// The member that it is taken from, as it stood before it was begun.
    pub standing: Standing,
    /// The configuration under which it is taken.
    pub configuration: Configuration,
}

/// Takes a snapshot of the member at `url`, and reads it back. It counts when its manifest is written, by
/// [`finish`].
pub async fn take(
    etcd: &ClusterClient,
    url: &str,
    objects: &ObjectStore,
    subject: &Subject,
) -> Result<Manifest, BackupError> {
    let Subject { cluster, uuid, chain, standing, configuration } = subject;
    let key = chain.snapshot();
    let metadata = [
        ("cluster", cluster.to_string()),
        ("generation", chain.generation.to_string()),
        ("revision", chain.revision.to_string()),
        ("etcd-version", standing.version.clone()),
    ];
    let mut upload = objects.upload(&key, &metadata);
    let (stored, Packed { size, sha256, until, taken }) =
        match pack(etcd, url, &objects.url(&key), &mut upload).await {
            Ok(packed) => (upload.finish().await?, packed),
            Err(error) => {
                if let Err(left) = upload.abandon().await {
                    tracing::warn!(error = words(&left), "a part of a snapshot is left in S3");
                }
                return Err(error);
            }
        };
    let manifest = Manifest {
        cluster: cluster.clone(),
        uuid: uuid.clone(),
        chain: chain.clone(),
        until,
        taken,
        member: standing.member,
        etcd_version: standing.version.clone(),
        keys: standing.keys,
        size,
        sha256,
        stored_size: stored.size,
        stored_sha256: stored.sha256,
        configuration: Some(configuration.fingerprint().to_owned()),
    };
    configuration.put(objects, chain).await?;
    read::snapshot(objects, &manifest, &mut std::io::sink()).await?;
    Ok(manifest)
}

/// What was packed.
struct Packed {
    size: u64,
    sha256: String,
    until: i64,
    taken: i64,
}

/// Packs a snapshot into an upload.
async fn pack(
    etcd: &ClusterClient,
    url: &str,
    object: &str,
    upload: &mut Upload,
) -> Result<Packed, BackupError> {
    let packing = |source| BackupError::Io { doing: "packing", path: object.into(), source };
    let mut snapshot = etcd.snapshot(url).await?;
    let mut packed = Checked::new(Encoder::new(Vec::new(), LEVEL).map_err(packing)?);
    let mut piece = snapshot.next().await?;
    // etcd settles what is in it before it sends the first piece.
    let (until, taken) = (etcd.standing(url).await?.revision, clock::now_ms());
    while let Some(bytes) = piece {
        packed.write_all(&bytes).map_err(packing)?;
        upload.write(packed.to_mut().get_mut()).await?;
        packed.to_mut().get_mut().clear();
        piece = snapshot.next().await?;
    }
    let (encoder, (size, sha256, sent)) = packed.finish();
    if sent != sha256 {
        let why = format!("etcd sent {size} bytes with SHA-256 {sha256}, and says that it is {sent}");
        return Err(BackupError::Damaged { object: object.to_owned(), why });
    }
    upload.write(&encoder.finish().map_err(packing)?).await?;
    Ok(Packed { size, sha256, until, taken })
}

/// Writes the manifest: from now on the chain is one.
pub async fn finish(objects: &ObjectStore, manifest: &Manifest) -> Result<(), BackupError> {
    let key = manifest.chain.manifest();
    let json = serde_json::to_vec_pretty(manifest).map_err(BackupError::json(&key))?;
    match objects.create(&key, json).await? {
        Written::Yes(_) => Ok(()),
        Written::No => Err(BackupError::Overtaken { object: objects.url(&key) }),
    }
}
