//! Looking at a cluster: one linearizable answer, or an error that names every endpoint's reason.
//!
//! Everything begins with a look: a linearizable read of `/quorate/` at one
//! endpoint, which only a member with a quorum behind it can answer. Endpoints are asked one after
//! the other, the one that answered last time first; whoever takes longer than a moment is not
//! waited for but joined by the next. What follows, members or a change, is asked of the very
//! member that answered.
//!
//! An endpoint whose copy of the charter names another cluster or generation than expected is
//! passed over: addresses are used again, and an older generation may still be running somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::GetOptions;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::connection::{CALL, Connections, Endpoint, TlsFiles};
use super::error::{Cause, EtcdError, PassedOver};
use super::store::{LockName, PREFIX, Store};
use crate::model::{
    Charter, ClusterUuid, ClusterView, ControlPlaneRecords, EtcdCare, Fact, Generation, Member, MemberCare,
    MemberId, Storage,
};

/// How long an endpoint has to itself before the next is asked as well.
const HEAD_START: Duration = Duration::from_millis(150);
/// The most that a member may take to say how it is.
const HEALTH: Duration = Duration::from_secs(1);

/// A client of one cluster. It keeps its connections between calls.
pub struct ClusterClient {
    pub(super) connections: Connections,
    aim: Mutex<Aim>,
}

/// Whom to ask, and which cluster is meant.
#[derive(Debug, Clone, Default)]
struct Aim {
    endpoints: Vec<String>,
    expected: Option<(ClusterUuid, Generation)>,
    /// This machine's own endpoint, when it was asked for.
    own: Option<String>,
}

/// A linearizable read, and the endpoint that answered it.
pub(super) struct Look {
    pub endpoint: Endpoint,
    pub store: Store,
    /// The cluster and the member that answered.
    pub answered: (u64, MemberId),
    /// The revision that was read.
    pub revision: i64,
}

/// A member, and where its clients reach it.
pub(super) struct Listed {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub learner: bool,
}

impl Listed {
    /// Whether it has ever run: only then does etcd know where its clients reach it. A founder has
    /// a name from the beginning, a member that was added gets one when it first runs.
    pub fn has_started(&self) -> bool {
        !self.client_urls.is_empty()
    }
}

impl ClusterClient {
    /// A client that asks these endpoints (`https://ADDRESS:2379`). Nothing is sent yet.
    pub fn new(tls: TlsFiles, endpoints: Vec<String>) -> Self {
        let aim = Aim { endpoints, ..Aim::default() };
        Self { connections: Connections::new(tls), aim: Mutex::new(aim) }
    }

    /// Asks these endpoints from now on. Connections to endpoints that stay are kept.
    pub fn set_endpoints(&self, endpoints: Vec<String>) {
        let mut aim = self.aim();
        let same = aim.endpoints.len() == endpoints.len()
            && endpoints.iter().all(|endpoint| aim.endpoints.contains(endpoint));
        if !same {
            aim.endpoints = endpoints;
        }
    }

    /// Names the cluster and the generation that are meant from now on, by this client's looks and
    /// its changes alike. `None` takes whichever answers.
    pub fn expect(&self, expected: Option<(&ClusterUuid, Generation)>) {
        self.aim().expected = expected.map(|(uuid, generation)| (uuid.clone(), generation));
    }

    /// Looks at the cluster. What is expected is also what later changes are held to.
    ///
    /// # Errors
    /// [`EtcdError::NoQuorum`] when no endpoint gave a linearizable answer of that cluster; any
    /// other when one did and failed half-way. Never an empty view for want of an answer.
    pub async fn observe(
        &self,
        expected: Option<(&ClusterUuid, Generation)>,
    ) -> Result<ClusterView, EtcdError> {
        self.observe_with_care(expected).await.map(|(view, _)| view)
    }

    /// Looks at the cluster, and at how its members are kept: by the very answers that the view is
    /// made from, so that it costs no more unless an alarm is raised.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub async fn observe_with_care(
        &self,
        expected: Option<(&ClusterUuid, Generation)>,
    ) -> Result<(ClusterView, EtcdCare), EtcdError> {
        self.expect(expected);
        let mut look = self.look().await?;
        let listed = self.members(&look).await?;
        let (leader, ill) = self.leader(&look).await?;
        let conditions = join_all(listed.iter().map(|member| self.condition(member))).await;
        let alarms = if ill { self.alarms(&look).await.into() } else { Fact::Known(BTreeSet::new()) };
        let history = self.history(&look, &alarms).await;
        self.keep_connections(&listed);
        let (mut members, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (listed, (healthy, care)) in listed.into_iter().zip(conditions) {
            let name = if listed.has_started() { listed.name } else { String::new() };
            let member = Member { name, peer_urls: listed.peer_urls, learner: listed.learner, healthy };
            members.insert(listed.id, member);
            kept.insert(listed.id, care);
        }
        let care = EtcdCare {
            revision: look.revision,
            members: kept,
            alarms,
            history,
            compared: look.store.compared.take(),
        };
        let view = ClusterView {
            charter: look.store.charter,
            members,
            leader,
            records: look.store.records,
            lock: look.store.locks.remove(&LockName::Membership).map(|lock| lock.holder),
            control_plane: ControlPlaneRecords {
                authorities: look.store.authorities,
                lock: look.store.locks.remove(&LockName::ControlPlane).map(|lock| lock.holder),
            },
        };
        Ok((view, care))
    }

    /// A linearizable read of all that is quorate's, from the cluster that is expected.
    pub(super) async fn look(&self) -> Result<Look, EtcdError> {
        let expected = self.aim().expected.clone();
        self.look_with(|copy| match (&expected, copy) {
            (Some((uuid, generation)), Some(copy))
                if copy.uuid != *uuid || copy.generation != *generation =>
            {
                Err(format!(
                    "it is of generation {} of cluster {}, expected {generation} of {uuid}",
                    copy.generation, copy.uuid
                ))
            }
            // A cluster that was founded a moment ago has no copy yet.
            (None, _) | (_, Some(_) | None) => Ok(()),
        })
        .await
    }

    async fn look_with(
        &self,
        accept: impl Fn(Option<&Charter>) -> Result<(), String>,
    ) -> Result<Look, EtcdError> {
        let endpoints = self.aim().endpoints.clone();
        let mut next = endpoints.iter();
        let mut asked = FuturesUnordered::new();
        let mut passed_over = Vec::new();
        loop {
            match next.next() {
                Some(url) => asked.push(async move { (url, self.look_at(url).await) }),
                None if asked.is_empty() => return Err(EtcdError::NoQuorum { passed_over }),
                None => {}
            }
            let answer = if next.len() == 0 {
                asked.next().await
            } else {
                tokio::time::timeout(HEAD_START, asked.next()).await.unwrap_or_default()
            };
            let Some((url, answer)) = answer else { continue };
            let why = match answer {
                Ok(look) => match accept(look.store.charter.as_ref()) {
                    Ok(()) => {
                        self.prefer(url);
                        return Ok(look);
                    }
                    Err(why) => why,
                },
                // The files are the same for all endpoints.
                Err(error @ EtcdError::TlsFile { .. }) => return Err(error),
                Err(EtcdError::Call { source, .. } | EtcdError::Endpoint { source, .. }) => {
                    source.to_string()
                }
                Err(error) => error.to_string(),
            };
            passed_over.push(PassedOver { endpoint: url.clone(), why });
        }
    }

    async fn look_at(&self, url: &str) -> Result<Look, EtcdError> {
        let endpoint = self.connections.to(url).await?;
        let mut kv = endpoint.client.kv_client();
        let read = kv.get(PREFIX, Some(GetOptions::new().with_prefix()));
        let read = self.connections.call("reading", url, CALL, read).await?;
        let answered = identity("reading", url, read.header())?;
        let revision = read.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Look { store: Store::read(read.kvs().iter().map(Into::into))?, endpoint, answered, revision })
    }

    /// The members, as the member that answered the look lists them.
    ///
    /// The list is linearizable although the call can't ask for it: etcd's own linearizable list
    /// is a read index followed by the local list (`MemberList` in `api/v3rpc/member.go`), and the
    /// look was that read index, at the same member. A member that restarted in between has caught
    /// up before it serves again, since it first publishes itself through the log.
    pub(super) async fn members(&self, look: &Look) -> Result<Vec<Listed>, EtcdError> {
        const OPERATION: &str = "listing the members";
        let url = &look.endpoint.url;
        let mut cluster = look.endpoint.client.cluster_client();
        let list = self.connections.call(OPERATION, url, CALL, cluster.member_list()).await?;
        look.same(OPERATION, identity(OPERATION, url, list.header())?)?;
        Ok(list
            .members()
            .iter()
            .map(|member| Listed {
                id: MemberId(member.id()),
                name: member.name().to_owned(),
                peer_urls: member.peer_urls().to_vec(),
                client_urls: member.client_urls().to_vec(),
                learner: member.is_learner(),
            })
            .collect())
    }

    /// The leader, if there is one, and whether the member that answered reports anything amiss, as
    /// an alarm: it has applied all that the look before it saw.
    async fn leader(&self, look: &Look) -> Result<(Option<MemberId>, bool), EtcdError> {
        const OPERATION: &str = "asking for the leader";
        let url = &look.endpoint.url;
        let mut maintenance = look.endpoint.client.maintenance_client();
        let status = self.connections.call(OPERATION, url, CALL, maintenance.status()).await?;
        look.same(OPERATION, identity(OPERATION, url, status.header())?)?;
        let leader = Some(status.leader()).filter(|leader| *leader != 0).map(MemberId);
        Ok((leader, !status.errors().is_empty()))
    }

    /// Asks a member itself how it is. It is healthy when it has a leader, no alarm is raised about
    /// it, and, unless it is a learner, it answers a linearizable read. What it says itself is known;
    /// silence is not.
    async fn condition(&self, member: &Listed) -> (Fact<bool>, MemberCare) {
        const OPERATION: &str = "asking for its status";
        let Some(url) = member.client_urls.first() else {
            let why = "it has not run yet, so it is not known where to ask it";
            let care = MemberCare { serves: Fact::unknown(why), storage: Fact::unknown(why) };
            return (Fact::unknown(why), care);
        };
        let mut told = None;
        let asked = async {
            let endpoint = self.connections.to(url).await?;
            let mut maintenance = endpoint.client.maintenance_client();
            let status = self.connections.call(OPERATION, url, HEALTH, maintenance.status()).await?;
            let (_, id) = identity(OPERATION, url, status.header())?;
            if id != member.id {
                let found = format!("member {id} answers in its place");
                return Err(malformed(OPERATION, url, found));
            }
            let is_amiss =
                status.leader() == 0 || status.errors().iter().any(|error| concerns(error, member.id));
            told = Some((is_amiss, storage(&status)));
            if status.leader() == 0 {
                return Ok(false);
            }
            if member.learner {
                return Ok(true);
            }
            let mut kv = endpoint.client.kv_client();
            let read = kv.get(PREFIX, Some(GetOptions::new().with_prefix().with_count_only()));
            self.connections.call("reading", url, HEALTH, read).await.map(|_| true)
        };
        let serves = match tokio::time::timeout(HEALTH, asked).await {
            Ok(Ok(serves)) => Fact::Known(serves),
            Ok(Err(EtcdError::Call { source: Cause::Refused(_), .. })) => Fact::Known(false),
            Ok(Err(error)) => Fact::from(Err::<bool, _>(error)),
            Err(_) => Fact::unknown(format!("{url} did not answer within {} ms", HEALTH.as_millis())),
        };
        match told {
            Some((true, storage)) => (Fact::Known(false), MemberCare { serves, storage }),
            Some((false, storage)) => (serves.clone(), MemberCare { serves, storage }),
            None => {
                let why = serves.why().unwrap_or("it refuses to say how it is").to_owned();
                (serves.clone(), MemberCare { serves, storage: Fact::Unknown(why) })
            }
        }
    }

    /// The endpoint that answered is asked first the next time.
    fn prefer(&self, url: &str) {
        let mut aim = self.aim();
        if let Some(place) = aim.endpoints.iter().position(|endpoint| endpoint == url) {
            aim.endpoints[..=place].rotate_right(1);
        }
    }

    fn keep_connections(&self, members: &[Listed]) {
        let Aim { endpoints: mut urls, own, .. } = self.aim().clone();
        urls.extend(own);
        urls.extend(members.iter().flat_map(|member| member.client_urls.iter().cloned()));
        self.connections.keep_only(&urls);
    }

    pub(super) fn set_own(&self, url: &str) {
        self.aim().own = Some(url.to_owned());
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.aim().endpoints.clone()
    }

    fn aim(&self) -> MutexGuard<'_, Aim> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// Refuses an answer of another member than the one that answered the look.
    fn same(&self, operation: &'static str, answered: (u64, MemberId)) -> Result<(), EtcdError> {
        if self.answered == answered {
            return Ok(());
        }
        let found = format!("member {} answered, before it was {}", answered.1, self.answered.1);
        Err(malformed(operation, &self.endpoint.url, found))
    }
}

/// How full a member says that it is. Before 3.6 it does not tell its quota, which is then 0.
fn storage(status: &etcd_client::StatusResponse) -> Fact<Storage> {
    match (u64::try_from(status.db_size()), u64::try_from(status.raft_used_db_size())) {
        (Ok(size), Ok(in_use)) => {
            let quota = u64::try_from(status.db_size_quota()).ok().filter(|quota| *quota > 0);
            Fact::Known(Storage { size, in_use, quota })
        }
        (Err(_), _) | (_, Err(_)) => Fact::unknown("it names a size below zero"),
    }
}

/// Whether something that a member reports concerns itself. Alarms are reported by all members
/// about all, as `memberID:DECIMAL alarm:KIND`.
fn concerns(error: &str, member: MemberId) -> bool {
    match error.split_once("memberID:") {
        Some((_, rest)) => rest.split(|c: char| !c.is_ascii_digit()).next() == Some(&member.0.to_string()),
        None => true,
    }
}

/// Who answered: cluster and member.
pub(super) fn identity(
    operation: &'static str,
    url: &str,
    header: Option<&etcd_client::ResponseHeader>,
) -> Result<(u64, MemberId), EtcdError> {
    match header {
        Some(header) => Ok((header.cluster_id(), MemberId(header.member_id()))),
        None => Err(malformed(operation, url, "the answer does not say whose it is".to_owned())),
    }
}

pub(super) fn malformed(operation: &'static str, url: &str, found: String) -> EtcdError {
    EtcdError::Call { operation, endpoint: url.to_owned(), source: Cause::Malformed(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_and_changes_can_be_made_from_any_task() {
        fn sent(_: impl Send) {}
        let dir = std::path::Path::new("/nowhere");
        let client = ClusterClient::new(TlsFiles::in_directory(dir), vec![]);
        let holder = "i-00000001".parse().unwrap();
        sent(client.observe(None));
        sent(client.own("https://127.0.0.1:2379"));
        sent(client.add_learner(&holder, "https://127.0.0.1:2380"));
        sent(client.take_lock(LockName::Membership, &holder));
    }

    #[test]
    fn an_alarm_about_another_member_does_not_make_this_one_ill() {
        let alarm = "memberID:10276657743932975437 alarm:NOSPACE ";
        assert!(concerns(alarm, MemberId(10_276_657_743_932_975_437)));
        assert!(!concerns(alarm, MemberId(1_027_665_774)));
        assert!(concerns("etcdserver: no leader", MemberId(1)));
    }
}
