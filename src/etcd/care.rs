//! Looking after the databases: alarms, compaction, defragmentation, hashes.
//!
//! Some of these take as long as the database is large, so they are asked over connections of their
//! own with limits of their own. Each can be repeated: what was done already is done.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions, GetOptions};
use futures_util::future::join_all;

use super::client::{ClusterClient, Listed, Look, identity, malformed};
use super::connection::CALL;
use super::error::{Cause, EtcdError};
use super::store::{HASHES, PREFIX, encode};
use crate::model::{Alarm, AlarmKind, Comparison, Comparisons, Fact, MemberId, StoreHash};

/// How long a compaction may take until what it drops is dropped, at the member that was asked.
const COMPACT: Duration = Duration::from_mins(5);
/// How long a defragmentation may take: 16 GiB, the largest quota, at a tenth of what gp3 volumes
/// give at least (125 MiB/s) would take 22 minutes; a step may take 20.
const DEFRAGMENT: Duration = Duration::from_mins(15);
/// How long a member may take to hash its database, which it reads as a whole.
const HASH: Duration = Duration::from_mins(2);

/// etcd's answer to whoever asks for a revision that was compacted, or compacts there again, from
/// `api/v3rpc/rpctypes/error.go`.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

impl ClusterClient {
    /// The alarms that are raised. The answer comes through the log, and so is linearizable.
    pub(super) async fn alarms(&self, look: &Look) -> Result<BTreeSet<Alarm>, EtcdError> {
        const OPERATION: &str = "asking for the alarms";
        let url = &look.endpoint.url;
        let mut maintenance = look.endpoint.client.maintenance_client();
        let asked = maintenance.alarm(AlarmAction::Get, AlarmType::None, None);
        let told = self.connections.call(OPERATION, url, CALL, asked).await?;
        told.alarms()
            .iter()
            .map(|alarm| {
                let kind = match alarm.alarm() {
                    AlarmType::Nospace => AlarmKind::NoSpace,
                    AlarmType::Corrupt => AlarmKind::Corrupt,
                    AlarmType::None => {
                        return Err(malformed(OPERATION, url, "an alarm of no kind".to_owned()));
                    }
                };
                Ok(Alarm { member: MemberId(alarm.member_id()), kind })
            })
            .collect()
    }

    /// Whether anything older than what the look saw can still be read.
    pub(super) async fn history(&self, look: &Look, alarms: &Fact<BTreeSet<Alarm>>) -> Fact<bool> {
        match alarms {
            Fact::Known(alarms) if alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) => {}
            Fact::Known(_) | Fact::Unknown(_) => {
                return Fact::unknown("not asked for: no alarm NOSPACE is known to be raised");
            }
        }
        if look.revision <= 1 {
            return Fact::Known(false);
        }
        let mut kv = look.endpoint.client.kv_client();
        let before = GetOptions::new().with_prefix().with_count_only().with_revision(look.revision - 1);
        let read = kv.get(PREFIX, Some(before));
        match self.connections.call("reading the past", &look.endpoint.url, CALL, read).await {
            Ok(_) => Fact::Known(true),
            Err(EtcdError::Call { source: Cause::Refused(why), .. }) if why == COMPACTED => {
                Fact::Known(false)
            }
            Err(error) => Err(error).into(),
        }
    }

    /// Drops the history up to a revision, and waits until its place is free at the member that was
    /// asked; the others free theirs at the same time, unwatched. A compaction that was done before
    /// is done.
    pub async fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        const OPERATION: &str = "compacting";
        let look = self.look().await?;
        let url = &look.endpoint.url;
        let endpoint = self.connections.patient(url, COMPACT).await?;
        let mut kv = endpoint.client.kv_client();
        let compact = kv.compact(revision, Some(CompactionOptions::new().with_physical()));
        match self.connections.call(OPERATION, url, COMPACT, compact).await {
            Ok(_) => Ok(()),
            Err(EtcdError::Call { source: Cause::Refused(why), .. }) if why == COMPACTED => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets this machine's own member, at `client_url`, write its database anew. It serves nothing
    /// meanwhile; that a call was given up does not say that the member has.
    ///
    /// # Errors
    /// [`EtcdError::NoSuchMember`] when another member answers there.
    pub async fn defragment(&self, client_url: &str, member: MemberId) -> Result<(), EtcdError> {
        const OPERATION: &str = "defragmenting";
        let endpoint = self.connections.patient(client_url, DEFRAGMENT).await?;
        let mut maintenance = endpoint.client.maintenance_client();
        let status = self.connections.call(OPERATION, client_url, CALL, maintenance.status()).await?;
        let (_, found) = identity(OPERATION, client_url, status.header())?;
        if found != member {
            return Err(EtcdError::NoSuchMember { member });
        }
        self.connections.call(OPERATION, client_url, DEFRAGMENT, maintenance.defragment()).await.map(drop)
    }

    /// Takes an alarm back. One that is not raised is no error.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), EtcdError> {
        let look = self.look().await?;
        let kind = match alarm.kind {
            AlarmKind::NoSpace => AlarmType::Nospace,
            AlarmKind::Corrupt => AlarmType::Corrupt,
        };
        let mut about = AlarmOptions::new();
        about.with_member(alarm.member.0);
        let mut maintenance = look.endpoint.client.maintenance_client();
        let disarmed = maintenance.alarm(AlarmAction::Deactivate, kind, Some(about));
        self.connections.call("disarming an alarm", &look.endpoint.url, CALL, disarmed).await.map(drop)
    }

    /// Asks every voter that has run for its hash at the present revision. Who gives none is not in
    /// the answer.
    pub async fn compare(&self, now: i64) -> Result<Comparison, EtcdError> {
        let look = self.look().await?;
        let members = self.members(&look).await?;
        let revision = look.revision;
        // Learners answer nothing of the kind.
        let asked = members.iter().filter(|member| member.has_started() && !member.learner);
        let answers =
            join_all(asked.map(async |member| (member.id, self.hash(member, revision).await))).await;
        let mut hashes = std::collections::BTreeMap::new();
        for (id, answer) in answers {
            match answer {
                Ok(hash) => drop(hashes.insert(id, hash)),
                Err(error) => {
                    let error = crate::model::fact::chain(&error);
                    tracing::warn!(member = %id, error, "a member gave no hash");
                }
            }
        }
        Ok(Comparison { at: now, revision, hashes })
    }

    async fn hash(&self, member: &Listed, revision: i64) -> Result<StoreHash, EtcdError> {
        const OPERATION: &str = "hashing";
        let url = member.client_urls.first().map_or("", String::as_str);
        let endpoint = self.connections.patient(url, HASH).await?;
        // A member that lags would refuse a revision that it has not reached. One that has answered
        // a linearizable read has reached it.
        let mut kv = endpoint.client.kv_client();
        let read = kv.get(PREFIX, Some(GetOptions::new().with_prefix().with_count_only()));
        self.connections.call(OPERATION, url, CALL, read).await?;
        let mut maintenance = endpoint.client.maintenance_client();
        let told = self.connections.call(OPERATION, url, HASH, maintenance.hash_kv(revision)).await?;
        let (_, found) = identity(OPERATION, url, told.header())?;
        if found != member.id {
            return Err(malformed(OPERATION, url, format!("member {found} answers in its place")));
        }
        Ok(StoreHash { compacted: told.compact_version(), hash: told.hash() })
    }

    /// Keeps a comparison in etcd, with the one before it.
    pub async fn record_comparison(&self, comparison: Comparison) -> Result<(), EtcdError> {
        let mut look = self.look().await?;
        let compared = Comparisons::followed_by(look.store.compared.take(), comparison);
        let value = encode(HASHES, &compared)?;
        let mut kv = look.endpoint.client.kv_client();
        let put = kv.put(HASHES, value, None);
        self.connections.call("recording hashes", &look.endpoint.url, CALL, put).await.map(drop)
    }
}
