//! This machine's own member, as its own endpoint tells of it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::client::{ClusterClient, identity, malformed};
use super::connection::CALL;
use super::error::EtcdError;
use crate::model::{MemberId, OwnMember};

/// The most that the leader may take to say how far it is.
const LEADER: Duration = Duration::from_secs(1);

/// What a member says of its place in the log.
struct Position {
    cluster: u64,
    member: MemberId,
    learner: bool,
    leader: u64,
    /// The last entry that it knows to be committed.
    committed: u64,
    applied: u64,
}

impl ClusterClient {
    /// Asks this machine's own member about itself. It answers without a quorum, too.
    ///
    /// It is in sync when it has applied nine tenths of what the leader has committed: the bound by
    /// which etcd itself lets a learner be promoted (`readyPercent` in `etcdserver/server.go`),
    /// applied to what has arrived and been worked off instead of what has only arrived. The
    /// leader is asked for its own index, since a learner that lags behind does not know how far
    /// behind it is. When no endpoint is that leader a learner is not said to be in sync; of a
    /// voter, its own knowledge is taken.
    pub async fn own(&self, client_url: &str) -> Result<OwnMember, EtcdError> {
        self.set_own(client_url);
        let own = self.position(client_url, CALL).await?;
        let leader = if own.leader == own.member.0 {
            Some(own.committed)
        } else {
            self.leaders_index(&own, client_url).await
        };
        let in_sync = match leader {
            Some(index) => own.caught_up_with(index.max(own.committed)),
            None => !own.learner && own.caught_up_with(own.committed),
        };
        Ok(OwnMember { member: own.member, learner: own.learner, in_sync })
    }

    /// How far the leader is, when one of the endpoints is the leader that this member names.
    async fn leaders_index(&self, own: &Position, client_url: &str) -> Option<u64> {
        let others: Vec<_> = self.endpoints().into_iter().filter(|url| url != client_url).collect();
        let mut answers: FuturesUnordered<_> =
            others.iter().map(async |url| (url, self.position(url, LEADER).await)).collect();
        while let Some((url, answer)) = answers.next().await {
            match answer {
                Ok(other) if other.cluster == own.cluster && other.member.0 == own.leader => {
                    return Some(other.committed);
                }
                Ok(_) => {}
                Err(error) => {
                    let error = crate::model::fact::chain(&error);
                    tracing::debug!(url, error, "an endpoint does not say how far it is");
                }
            }
        }
        None
    }

    async fn position(&self, url: &str, limit: Duration) -> Result<Position, EtcdError> {
        const OPERATION: &str = "asking for its status";
        let mut maintenance = self.connections.to(url).await?.client.maintenance_client();
        let status = self.connections.call(OPERATION, url, limit, maintenance.status()).await?;
        let (cluster, member) = identity(OPERATION, url, status.header())?;
        if member.0 == 0 {
            return Err(malformed(OPERATION, url, "the answer names no member".to_owned()));
        }
        Ok(Position {
            cluster,
            member,
            learner: status.is_learner(),
            leader: status.leader(),
            committed: status.raft_index(),
            applied: status.raft_applied_index(),
        })
    }
}

impl Position {
    fn caught_up_with(&self, index: u64) -> bool {
        u128::from(self.applied) * 10 >= u128::from(index) * 9
    }
}
