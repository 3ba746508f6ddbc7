//! Changes of membership, each exact and idempotent.
//!
//! What is repeated after a lost answer finds what the first try left. Adding, removing and
//! promoting are done by the holder of the lock only, proven right before (see `lock`); etcd
//! itself refuses them when the quorum would be at risk (`strict-reconfig-check`).

use etcd_client::MemberAddOptions;

use super::client::{ClusterClient, Listed, malformed};
use super::connection::CALL;
use super::error::{Cause, EtcdError};
use crate::model::{InstanceId, MemberId};

/// etcd's answers, from `api/v3rpc/rpctypes/error.go`.
const MEMBER_NOT_FOUND: &str = "etcdserver: member not found";
const NOT_A_LEARNER: &str = "etcdserver: can only promote a learner member";
const LEARNER_NOT_READY: &str = "etcdserver: can only promote a learner member which is in sync with leader";

impl ClusterClient {
    /// Adds a learner that will be reached at `peer_url`, and gives its id.
    ///
    /// A learner that is listed with exactly this URL and has never run is the one meant. A member
    /// with a vote is not, even if it seems never to have run: it may have voted before anybody
    /// heard of it.
    ///
    /// # Errors
    /// [`EtcdError::PeerUrlTaken`], [`EtcdError::LockLost`]. etcd refuses, retryably, in the first
    /// seconds after a voter has come or gone ("unhealthy cluster").
    pub async fn add_learner(&self, holder: &InstanceId, peer_url: &str) -> Result<MemberId, EtcdError> {
        const OPERATION: &str = "adding a learner";
        let look = self.look().await?;
        let members = self.members(&look).await?;
        if let Some(member) = at(&members, peer_url) {
            return if member.learner && !member.has_started() {
                Ok(member.id)
            } else {
                Err(EtcdError::PeerUrlTaken { peer_url: peer_url.to_owned(), member: member.id })
            };
        }
        self.prove_lock(&look, holder).await?;
        let mut cluster = look.endpoint.client.cluster_client();
        let options = MemberAddOptions::new().with_is_learner();
        let added = cluster.member_add([peer_url.to_owned()], Some(options));
        let added = self.connections.call(OPERATION, &look.endpoint.url, CALL, added).await?;
        match added.member() {
            Some(member) => Ok(MemberId(member.id())),
            None => Err(malformed(
                OPERATION,
                &look.endpoint.url,
                "the answer does not name the new member".to_owned(),
            )),
        }
    }

    /// Gives a learner its vote. One that has it already keeps it.
    ///
    /// # Errors
    /// [`EtcdError::NotInSync`], [`EtcdError::NoSuchMember`], [`EtcdError::LockLost`].
    pub async fn promote(&self, holder: &InstanceId, member: MemberId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        match self.members(&look).await?.iter().find(|listed| listed.id == member) {
            None => return Err(EtcdError::NoSuchMember { member }),
            Some(listed) if !listed.learner => return Ok(()),
            Some(_) => {}
        }
        self.prove_lock(&look, holder).await?;
        let mut cluster = look.endpoint.client.cluster_client();
        let promoted = cluster.member_promote(member.0);
        match self.connections.call("promoting a learner", &look.endpoint.url, CALL, promoted).await {
            Ok(_) => Ok(()),
            Err(error) => match refusal(&error) {
                Some(LEARNER_NOT_READY) => Err(EtcdError::NotInSync { member }),
                Some(NOT_A_LEARNER) => Ok(()),
                Some(MEMBER_NOT_FOUND) => Err(EtcdError::NoSuchMember { member }),
                Some(_) | None => Err(error),
            },
        }
    }

    /// Removes a member. One that is gone already is no error.
    ///
    /// # Errors
    /// [`EtcdError::LockLost`].
    pub async fn remove(&self, holder: &InstanceId, member: MemberId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        if !self.members(&look).await?.iter().any(|listed| listed.id == member) {
            return Ok(());
        }
        self.prove_lock(&look, holder).await?;
        let mut cluster = look.endpoint.client.cluster_client();
        let removed = cluster.member_remove(member.0);
        match self.connections.call("removing a member", &look.endpoint.url, CALL, removed).await {
            Ok(_) => Ok(()),
            Err(error) if refusal(&error) == Some(MEMBER_NOT_FOUND) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands the leadership over to another member, at the endpoint of the member that has it. One that has it already
    /// keeps it.
    ///
    /// # Errors
    /// etcd's own refusal, as when the member at the endpoint does not lead any more.
    pub async fn move_leader(&self, own_url: &str, to: MemberId) -> Result<(), EtcdError> {
        let mut maintenance = self.connections.to(own_url).await?.client.maintenance_client();
        let moved = maintenance.move_leader(to.0);
        self.connections.call("handing the leadership over", own_url, CALL, moved).await.map(drop)
    }

    /// Tells the cluster where a member is now reached by its peers.
    ///
    /// # Errors
    /// [`EtcdError::PeerUrlTaken`], [`EtcdError::NoSuchMember`].
    pub async fn update_peer_url(&self, member: MemberId, peer_url: &str) -> Result<(), EtcdError> {
        let look = self.look().await?;
        let members = self.members(&look).await?;
        let Some(listed) = members.iter().find(|listed| listed.id == member) else {
            return Err(EtcdError::NoSuchMember { member });
        };
        if listed.peer_urls == [peer_url] {
            return Ok(());
        }
        if let Some(other) = at(&members, peer_url).filter(|other| other.id != member) {
            return Err(EtcdError::PeerUrlTaken { peer_url: peer_url.to_owned(), member: other.id });
        }
        let mut cluster = look.endpoint.client.cluster_client();
        let updated = cluster.member_update(member.0, [peer_url.to_owned()]);
        match self.connections.call("updating a peer URL", &look.endpoint.url, CALL, updated).await {
            Ok(_) => Ok(()),
            Err(error) if refusal(&error) == Some(MEMBER_NOT_FOUND) => {
                Err(EtcdError::NoSuchMember { member })
            }
            Err(error) => Err(error),
        }
    }
}

fn at<'a>(members: &'a [Listed], peer_url: &str) -> Option<&'a Listed> {
    members.iter().find(|member| member.peer_urls.iter().any(|url| url == peer_url))
}

/// etcd's own word, when it refused.
fn refusal(error: &EtcdError) -> Option<&str> {
    match error {
        EtcdError::Call { source: Cause::Refused(why), .. } => Some(why),
        _ => None,
    }
}
