//! What lies in S3.

use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant};

use crate::aws::{Changed, Stored};
use crate::model::backup::BACKUPS;
use crate::model::fact::chain;
use crate::model::observation::{EtcdObservation, PublishedMembers};
use crate::model::{Authority, Charter, ClusterName, Fact, Versioned};
use crate::pki::{ClusterAuthorities, EtcdAuthority, PkiError};
use crate::reach::{AUTHORITY, CHARTER, CLUSTER_AUTHORITIES, MEMBERS, Reach};

use super::{Depth, Memory};

/// The authority is made once and changes only by rotation.
const AUTHORITY_FOR: Duration = Duration::from_mins(10);

/// The charter, transferred only when it changed.
pub(super) async fn charter(reach: &Reach, memory: &mut Memory) -> Fact<Option<Versioned<Charter>>> {
    let objects = &reach.aws.objects;
    let stored = match &memory.charter {
        Some(last) => match objects.get_if_changed(CHARTER, &last.etag).await {
            Ok(Changed::No) => return Fact::Known(Some(last.clone())),
            Ok(Changed::Gone) => None,
            Ok(Changed::To(stored)) => Some(stored),
            Err(error) => return Err(error).into(),
        },
        None => match objects.get(CHARTER).await {
            Ok(stored) => stored,
            Err(error) => return Err(error).into(),
        },
    };
    memory.charter = None;
    let Some(stored) = stored else { return Fact::Known(None) };
    let charter = parse::<Charter>(&stored, &objects.url(CHARTER));
    memory.charter = charter.known().cloned();
    charter.map(Some)
}

fn parse<T: DeserializeOwned>(stored: &Stored, url: &str) -> Fact<Versioned<T>> {
    match serde_json::from_slice(&stored.bytes) {
        Ok(value) => Fact::Known(Versioned { value, etag: stored.etag.clone() }),
        Err(error) => Fact::unknown(format!(
            "{url} can't be understood ({error}): it was changed by hand, or is a later version's; \
             restore the object, or upgrade this machine"
        )),
    }
}

/// Whether there is any backup.
pub(super) async fn backups(reach: &Reach) -> Fact<bool> {
    reach.aws.objects.any(BACKUPS).await.into()
}

/// What lies in S3 of an authority, and how it is read.
pub(super) struct AuthorityObject {
    key: &'static str,
    summary: fn(&[u8], &ClusterName) -> Result<Authority, PkiError>,
}

/// etcd's.
pub(super) const ETCD: AuthorityObject = AuthorityObject {
    key: AUTHORITY,
    summary: |bytes, cluster| EtcdAuthority::parse(bytes, cluster).map(|authority| authority.summary()),
};
/// Kubernetes'.
pub(super) const CLUSTER: AuthorityObject = AuthorityObject {
    key: CLUSTER_AUTHORITIES,
    summary: |bytes, cluster| ClusterAuthorities::parse(bytes, cluster).map(|all| all.summary()),
};

/// An authority without its key, which is not kept in memory.
pub(super) async fn authority(
    reach: &Reach,
    memory: &mut Option<(Instant, Authority)>,
    of: AuthorityObject,
) -> Fact<Option<Authority>> {
    if let Some((at, authority)) = memory
        && at.elapsed() < AUTHORITY_FOR
    {
        return Fact::Known(Some(authority.clone()));
    }
    let stored = match reach.aws.objects.get(of.key).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return Fact::Known(None),
        Err(error) => return Err(error).into(),
    };
    match (of.summary)(&stored.bytes, &reach.settings.cluster) {
        Ok(authority) => {
            *memory = Some((Instant::now(), authority.clone()));
            Fact::Known(Some(authority))
        }
        Err(error) => Fact::unknown(format!("{}: {}", reach.aws.objects.url(of.key), chain(&error))),
    }
}

/// The last-known members, where there is nobody else to ask: what can't be understood is no answer.
pub(super) async fn last_known(reach: &Reach) -> Fact<Option<PublishedMembers>> {
    let objects = &reach.aws.objects;
    match objects.get(MEMBERS).await {
        Ok(None) => Fact::Known(None),
        Ok(Some(stored)) => parse(&stored, &objects.url(MEMBERS)).map(|members| Some(members.value)),
        Err(error) => Err(error).into(),
    }
}

/// The last-known members; only the leader's machine looks after them.
pub(super) async fn published(
    reach: &Reach,
    memory: &mut Memory,
    etcd: &EtcdObservation,
    depth: Depth,
) -> Fact<Option<PublishedMembers>> {
    let leads = match (&etcd.own, &etcd.cluster) {
        (Fact::Known(own), Fact::Known(view)) => view.leader == Some(own.member),
        (Fact::Known(_) | Fact::Unknown(_), _) => false,
    };
    if !leads {
        memory.published = None;
        return Fact::unknown("not asked for: this machine does not lead");
    }
    if let (Depth::Light, Some(members)) = (depth, &memory.published) {
        return Fact::Known(members.clone());
    }
    let stored = match reach.aws.objects.get(MEMBERS).await {
        Ok(stored) => stored,
        Err(error) => return Err(error).into(),
    };
    // What can't be understood is written again: it is a copy of what etcd holds.
    let members = stored.and_then(|stored| match serde_json::from_slice(&stored.bytes) {
        Ok(members) => Some(members),
        Err(error) => {
            tracing::warn!(key = MEMBERS, %error, "the published members can't be understood");
            None
        }
    });
    memory.published = Some(members.clone());
    Fact::Known(members)
}
