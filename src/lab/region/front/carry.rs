//! One connection through a load balancer, from its client to its target.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::{Front, connect, reset};
use crate::lab::region::server::Shared;
use crate::lab::region::world::{Passage, Route};

/// For how long a connection of a target to itself hangs before it is reset.
const HAIRPIN: Duration = Duration::from_secs(5);

pub(super) async fn carry(shared: Shared, front: Front, mut client: TcpStream, from: SocketAddr) {
    let IpAddr::V4(address) = from.ip() else { return };
    let passage = match shared.change(|world| world.route(&front.name, address)) {
        Route::To(passage) => passage,
        Route::Hairpin => {
            // The kernel has completed the handshake already; all that can be shown is silence.
            tracing::info!(balancer = front.name, %from, "a target calls itself: its connection hangs");
            tokio::time::sleep(HAIRPIN).await;
            return reset(&client);
        }
        Route::Nowhere => return reset(&client),
    };
    let source = if passage.preserve_client_ip { from.ip() } else { front.address.ip() };
    let mut target = match connect(source, passage.address).await {
        Ok(target) => target,
        Err(error) => {
            tracing::debug!(balancer = front.name, target = %passage.address, %error, "a target does not accept");
            return reset(&client);
        }
    };
    for stream in [&client, &target] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection's delay can't be switched off");
        }
    }
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut target) => {
            if let Err(error) = copied {
                tracing::debug!(balancer = front.name, %error, "a connection broke");
                reset(&client);
                reset(&target);
            }
        }
        () = closed(&shared, &passage) => {
            reset(&client);
            reset(&target);
        }
    }
}

/// Waits until what goes by a passage may not go on.
async fn closed(shared: &Shared, passage: &Passage) {
    let mut changes = shared.changes();
    while shared.with(|world| world.is_open(passage)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
