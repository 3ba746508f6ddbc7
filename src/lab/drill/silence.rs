//! How long there is no acknowledged write when a leader is lost.
//!
//! The load can't tell that closely: it asks one member after the other, and waits a while for each. Here every member
//! that is left is asked again and again, and the first acknowledgement counts. A bare etcd is timed in the same way.

use std::time::Duration;

use etcd_client::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Unmet;
use crate::lab::cluster::{Access, Tls};
use crate::lab::laboratory::Laboratory;
use crate::lab::machine::Machine;

/// From one write to a member to its next.
const EVERY: Duration = Duration::from_millis(10);
/// How long the first acknowledgement is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a write may be under way. What a member sent on to a leader that is dead is never answered.
const CALL: Duration = Duration::from_secs(10);
/// What one election may take: a follower waits for one to two election time-outs of a second, asks for votes, and may
/// have to do so once more when two ask at the same time.
pub(super) const ELECTION: Duration = Duration::from_secs(4);

/// Clients of all members but a machine's, which have asked before.
pub(super) async fn others(lab: &Laboratory, but: &Machine) -> Result<Vec<Client>, Unmet> {
    let Access { urls, tls } = Access::to(lab).ok_or_else(|| Unmet::Broken("no certificates".into()))?;
    let gone = but.client_url();
    clients(urls.iter().filter(|url| **url != gone), &tls).await
}

/// Clients of these members, which have asked before.
pub(super) async fn clients<'a>(
    urls: impl Iterator<Item = &'a String>,
    tls: &Tls,
) -> Result<Vec<Client>, Unmet> {
    let mut clients = Vec::new();
    for url in urls {
        let failed = |error: etcd_client::Error| Unmet::Broken(format!("{url} does not answer: {error}"));
        let mut client = Client::connect([url], Some(tls.options(CALL))).await.map_err(failed)?;
        client.get("/silence", None).await.map_err(failed)?;
        clients.push(client);
    }
    Ok(clients)
}

/// When the first write was acknowledged by one of these members.
pub(super) async fn until_acknowledged(clients: &[Client]) -> Result<Instant, Unmet> {
    let mut writes: JoinSet<Option<Instant>> = JoinSet::new();
    let mut again = interval(EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first = async {
        loop {
            tokio::select! {
                _ = again.tick() => {
                    for client in clients {
                        let mut client = client.clone();
                        writes.spawn(async move {
                            let put = timeout(CALL, client.put("/silence", "over", None)).await;
                            matches!(put, Ok(Ok(_))).then(Instant::now)
                        });
                    }
                }
                Some(Ok(Some(at))) = writes.join_next() => return at,
            }
        }
    };
    let late = |_| Unmet::Broken(format!("no write was acknowledged for {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, first).await.map_err(late)
}
