//! Locks: each is one key on a lease.
//!
//! For changes of membership: etcd has no transaction over keys and members, so a lock can't be made a condition of such a
//! change. Instead each change first reads that the lock is this instance's and
//! keeps its lease alive: from then on nobody else gets it for a minute, and a change is answered
//! or given up within seconds.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::client::{ClusterClient, Look};
use super::connection::CALL;
use super::error::{Cause, EtcdError};
use super::store::{Lock, LockName, Store};
use crate::model::InstanceId;

impl ClusterClient {
    /// Takes a lock, or keeps it when it is this instance's already, for its whole lease from now.
    ///
    /// # Errors
    /// [`EtcdError::LockHeld`] when it is another's.
    pub async fn take_lock(&self, name: LockName, instance: &InstanceId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        match look.store.locks.get(&name) {
            Some(held) if held.holder != *instance => {
                return Err(EtcdError::LockHeld { holder: held.holder.clone() });
            }
            Some(held) if self.keep_alive(&look, held).await? => return Ok(()),
            // Ours, and it ended just now; or nobody's.
            Some(_) | None => {}
        }
        let url = &look.endpoint.url;
        let mut leases = look.endpoint.client.lease_client();
        let lease = self
            .connections
            .call("granting a lease", url, CALL, leases.grant(name.lease(), None))
            .await?
            .id();
        let txn = Txn::new()
            .when([Compare::version(name.key(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(name.key(), instance.as_str(), Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(name.key(), None)]);
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
            return Err(EtcdError::Raced { key: name.key().to_owned() });
        };
        match Store::read(found.kvs().iter().map(Into::into))?.locks.remove(&name) {
            Some(held) if held.holder != *instance => Err(EtcdError::LockHeld { holder: held.holder }),
            Some(_) | None => Err(EtcdError::Raced { key: name.key().to_owned() }),
        }
    }

    /// Gives a lock back. When it is not this instance's there is nothing to give back.
    pub async fn release_lock(&self, name: LockName, instance: &InstanceId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        if look.store.locks.get(&name).is_none_or(|held| held.holder != *instance) {
            return Ok(());
        }
        let txn = Txn::new()
            .when([Compare::value(name.key(), CompareOp::Equal, instance.as_str())])
            .and_then([TxnOp::delete(name.key(), None)]);
        let mut kv = look.endpoint.client.kv_client();
        self.connections.call("releasing the lock", &look.endpoint.url, CALL, kv.txn(txn)).await?;
        Ok(())
    }

    /// Keeps a lock that is this instance's, for its whole lease from now.
    ///
    /// # Errors
    /// [`EtcdError::LockLost`] when it is not.
    pub async fn keep_lock(&self, name: LockName, instance: &InstanceId) -> Result<(), EtcdError> {
        let look = self.look().await?;
        self.hold_lock(&look, name, instance).await
    }

    /// Proves that the lock on changes of membership is this instance's, and will be for the next minute.
    pub(super) async fn prove_lock(&self, look: &Look, instance: &InstanceId) -> Result<(), EtcdError> {
        self.hold_lock(look, LockName::Membership, instance).await
    }

    async fn hold_lock(&self, look: &Look, name: LockName, instance: &InstanceId) -> Result<(), EtcdError> {
        if let Some(held) = look.store.locks.get(&name)
            && held.holder == *instance
            && self.keep_alive(look, held).await?
        {
            return Ok(());
        }
        Err(EtcdError::LockLost {
            instance: instance.clone(),
            holder: look
                .store
                .locks
                .get(&name)
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
