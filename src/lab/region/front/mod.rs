//! Load balancers at work: each listens at its address, carries connections to its targets, and
//! probes them, in truth.
//!
//! What is to be done is read from the world whenever it changes; which target is next, and what a
//! probe's outcome means, is the world's to say. Everything here ends with [`run`].
//!
//! What is not here: TLS and UDP listeners, zones of load balancers (every one is cross-zone), and the
//! time-out of idle connections (350 s with AWS).

mod carry;
mod probe;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use self::probe::Prober;
use super::server::Shared;

/// How many connections a load balancer carries at a time; more are refused.
const MOST: usize = 4096;
/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a load balancer waits before it tries again to listen where it can't.
const AGAIN: Duration = Duration::from_millis(100);

/// A load balancer that is to listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    name: String,
    /// Tells it from another of its name.
    arn: String,
    address: SocketAddr,
}

/// Keeps every load balancer of the region at work, until it is dropped.
pub(super) async fn run(shared: Shared) {
    let Some(prober) = Prober::new() else { return };
    let mut tasks = JoinSet::new();
    let (mut fronts, mut checks) = (BTreeMap::new(), BTreeMap::new());
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        let (listening, probing) = shared.with(|world| {
            let front = |(name, b): (&String, &super::Balancer)| Front {
                name: name.clone(),
                arn: b.arn.clone(),
                address: b.listens_at(),
            };
            (world.view().balancers.iter().map(front).collect::<Vec<_>>(), world.probes())
        });
        keep(&mut fronts, listening, |front| tasks.spawn(listen(shared.clone(), front)));
        keep(&mut checks, probing, |probe| tasks.spawn(prober.clone().run(shared.clone(), probe)));
        // Those that were ended; none ends by itself.
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Has exactly what is wanted running.
fn keep<T: Ord + Clone>(
    running: &mut BTreeMap<T, AbortHandle>,
    wanted: Vec<T>,
    mut start: impl FnMut(T) -> AbortHandle,
) {
    running.retain(|one, task| {
        let stays = wanted.contains(one);
        if !stays {
            task.abort();
        }
        stays
    });
    for one in wanted {
        running.entry(one).or_insert_with_key(|one| start(one.clone()));
    }
}

/// Listens, and carries what comes. Its connections end with it.
async fn listen(shared: Shared, front: Front) {
    let listener = loop {
        match TcpListener::bind(front.address).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(balancer = front.name, address = %front.address, %error, "a load balancer can't listen");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    shared.change(|world| world.balancer_listens(&front.name, front.address));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if connections.len() >= MOST => {
                    tracing::warn!(balancer = front.name, "a load balancer has too many connections");
                    reset(&client);
                }
                Ok((client, from)) => {
                    connections.spawn(carry::carry(shared.clone(), front.clone(), client, from));
                }
                Err(error) => {
                    tracing::warn!(balancer = front.name, %error, "a load balancer can't accept");
                    tokio::time::sleep(AGAIN).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(balancer = front.name, %error, "a connection could not be carried");
                }
            }
        }
    }
}

/// Connects to a target from a given address.
async fn connect(from: std::net::IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    match tokio::time::timeout(CONNECT, socket.connect(to)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Has a connection end with a reset, rather than in good order, when it is dropped.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection can't be reset");
    }
}
