//! The lock on changes of membership: one key on a lease of a minute.
//!
//! etcd has no transaction over keys and members, so the lock can't be made a condition of a
//! change of membership. Instead each change first reads that the lock is this instance's and
//! keeps its lease alive: from then on nobody else gets it for a minute, and a change is answered
//! or given up within seconds.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::client::{ClusterClient, Look};
use super::connection::CALL;
use super::error::{Cause, EtcdError};
use super::store::{LOCK, Lock, Store};
use crate::model::InstanceId;

/// How long the lock outlives its holder, in seconds.
const LEASE: i64 = 60;

impl ClusterClient {
    /// Takes the lock, or keeps it when it is this instance's already, for a minute from now.
    ///
    /// # Errors
    /// [`EtcdError::LockHeld`] when it is another's.
    pub async fn take_lock(&self, instance: &InstanceId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        match &look.store.lock {
            Some(held) if held.holder != *instance => {
                return Err(EtcdError::LockHeld { holder: held.holder.clone() });
            }
            Some(held) if self.keep_alive(&look, held).await? => return Ok(()),
            // Ours, and it ended just now; or nobody's.
            Some(_) | None => {}
        }
        let url = &look.endpoint.url;
        let mut leases = look.endpoint.client.lease_client();
        let lease =
            self.connections.call("granting a lease", url, CALL, leases.grant(LEASE, None)).await?.id();
        let txn = Txn::new()
            .when([Compare::version(LOCK, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(LOCK, instance.as_str(), Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(LOCK, None)]);
        let mut kv = look.endpoint.client.kv_client();
        let done = self.connections.call("taking the lock", url, CALL, kv.txn(txn)).await?;
        if done.succeeded() {
            return Ok(());
        }
        // Somebody was faster. The lease that was granted for nothing ends by itself, too.
        if let Err(error) = self.connections.call("revoking a lease", url, CALL, leases.revoke(lease)).await {
            tracing::debug!(error = crate::model::fact::chain(&error), "a lease is left to expire");
        }
        let responses = done.op_responses();
        let Some(TxnOpResponse::Get(found)) = responses.first() else {
            return Err(EtcdError::Raced { key: LOCK.to_owned() });
        };
        match Store::read(found.kvs().iter().map(Into::into))?.lock {
            Some(held) if held.holder != *instance => Err(EtcdError::LockHeld { holder: held.holder }),
            Some(_) | None => Err(EtcdError::Raced { key: LOCK.to_owned() }),
        }
    }

    /// Gives the lock back. When it is not this instance's there is nothing to give back.
    pub async fn release_lock(&self, instance: &InstanceId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        if look.store.lock.as_ref().is_none_or(|held| held.holder != *instance) {
            return Ok(());
        }
        let txn = Txn::new()
            .when([Compare::value(LOCK, CompareOp::Equal, instance.as_str())])
            .and_then([TxnOp::delete(LOCK, None)]);
        let mut kv = look.endpoint.client.kv_client();
        self.connections.call("releasing the lock", &look.endpoint.url, CALL, kv.txn(txn)).await?;
        Ok(())
    }

    /// Proves that the lock is this instance's, and will be for the next minute.
    pub(super) async fn prove_lock(&self, look: &Look, instance: &InstanceId) -> Result<(), EtcdError> {
        if let Some(held) = &look.store.lock
            && held.holder == *instance
            && self.keep_alive(look, held).await?
        {
            return Ok(());
        }
        Err(EtcdError::LockLost {
            instance: instance.clone(),
            holder: look
                .store
                .lock
                .as_ref()
                .map(|lock| lock.holder.clone())
                .filter(|holder| holder != instance),
        })
    }

    /// Keeps the lock's lease alive once; `false` when it has ended.
    async fn keep_alive(&self, look: &Look, held: &Lock) -> Result<bool, EtcdError> {
        let mut leases = look.endpoint.client.lease_client();
        let kept = leases.keep_alive(held.lease);
        match self.connections.call("keeping the lock", &look.endpoint.url, CALL, kept).await {
            Ok(_) => Ok(true),
            Err(EtcdError::Call { source: Cause::Refused(_), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
