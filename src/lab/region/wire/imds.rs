//! Each instance's metadata service, on a listener of its own.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use tokio::net::{TcpListener, TcpSocket};

use super::connection::{BreakableListener, Peer};
use super::{Answer, pause};
use crate::lab::region::server::{RegionError, Shared};
use crate::lab::region::world::{Caller, ImdsGate, InstanceId, Outcome, Refusal, Service};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Between tries to take an address that its last holder has not let go of yet.
const REBIND: Duration = Duration::from_millis(10);

/// A metadata service's hold on its address.
pub(in super::super) enum Hold {
    /// None yet: its last holder has not let go of it.
    Nothing,
    /// Reserved, refusing connections.
    Bound(TcpSocket),
    /// Taking connections.
    Listening(TcpListener),
}

impl Hold {
    /// Takes connections from now on; what arrives before the service runs is queued.
    pub(in super::super) fn listen(self, address: SocketAddr) -> Result<TcpListener, RegionError> {
        let listen =
            |socket: TcpSocket| socket.listen(1024).map_err(|source| RegionError::Bind { address, source });
        match self {
            Self::Nothing => listen(reserve(address)?.0),
            Self::Bound(socket) => listen(socket),
            Self::Listening(listener) => Ok(listener),
        }
    }
}

/// A socket that holds its address and refuses connections until it listens.
pub(in super::super) fn reserve(address: SocketAddr) -> Result<(TcpSocket, SocketAddr), RegionError> {
    let failed = |source| RegionError::Bind { address, source };
    let socket = TcpSocket::new_v4().map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// Serves an instance until it is gone, with the listener open only while the instance's service is.
pub(in super::super) async fn run(shared: Shared, id: InstanceId, address: SocketAddr, mut hold: Hold) {
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        match shared.with(|world| world.imds_gate(&id)) {
            ImdsGate::Gone => return,
            ImdsGate::Closed => {
                if changes.changed().await.is_err() {
                    return;
                }
            }
            ImdsGate::Open => match std::mem::replace(&mut hold, Hold::Nothing).listen(address) {
                Ok(listener) => serve_while_open(&shared, &id, BreakableListener(listener)).await,
                Err(error) => {
                    tracing::debug!(instance = %id, %error, "a metadata service's address is not free yet");
                    tokio::time::sleep(REBIND).await;
                }
            },
        }
    }
}

async fn serve_while_open(shared: &Shared, id: &InstanceId, listener: BreakableListener) {
    let router = Router::new().fallback(answer).with_state((shared.clone(), id.clone()));
    let service = router.into_make_service_with_connect_info::<Peer>();
    let mut changes = shared.changes();
    let closed = changes.wait_for(|()| shared.with(|world| world.imds_gate(id)) != ImdsGate::Open);
    tokio::select! {
        served = async { axum::serve(listener, service).await } => {
            if let Err(error) = served {
                tracing::warn!(instance = %id, %error, "a metadata service ended");
            }
        }
        _ = closed => {}
    }
}

async fn answer(
    State((shared, id)): State<(Shared, InstanceId)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let path = path.strip_prefix("latest/").unwrap_or(&path).to_owned();
    // A connection that was kept alive sees the service close, too.
    if shared.with(|world| world.imds_gate(&id)) != ImdsGate::Open {
        return peer.abort();
    }
    let faults = shared
        .with(|world| world.view().instances.get(&id).map(|i| i.imds_faults.clone()))
        .unwrap_or_default();
    pause(faults.slow_ms).await;
    let caller = Caller::Instance { id: id.clone(), role: String::new() };
    let decision = shared.change(|world| world.decide(Service::Imds, &path, &path, Some(&caller)));
    pause(decision.delay_before_ms).await;
    if decision.outcome == Outcome::LostRequest {
        return peer.abort();
    }
    let injected = faults.status.or(match decision.outcome {
        Outcome::Throttled => Some(429),
        Outcome::ServerError => Some(500),
        Outcome::Denied => Some(403),
        Outcome::LostRequest
        | Outcome::LostAnswer
        | Outcome::BrokenAnswer
        | Outcome::Conflict
        | Outcome::Answered => None,
    });
    let result = match injected {
        Some(status) => Err(Refusal::new(status, "Injected", "injected")),
        None => respond(&shared, &id, request.method(), request.headers(), &path),
    };
    pause(decision.delay_after_ms).await;
    if decision.outcome == Outcome::LostAnswer {
        return peer.abort();
    }
    let answer = result.unwrap_or_else(|refusal| plain(refusal.status, refusal.message));
    if decision.outcome == Outcome::BrokenAnswer {
        return answer.broken_off(shared.now());
    }
    answer.into_response(shared.now())
}

fn respond(
    shared: &Shared,
    id: &InstanceId,
    method: &Method,
    headers: &HeaderMap,
    path: &str,
) -> Result<Answer, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if path == "api/token" {
        if method != Method::PUT {
            return Err(Refusal::new(405, "MethodNotAllowed", "a token is asked for by PUT"));
        }
        // The service does not hand tokens out through proxies (EC2 user guide, "IMDSv2").
        if headers.contains_key("x-forwarded-for") {
            return Err(Refusal::new(403, "Forbidden", "not through a proxy"));
        }
        let ttl = text(TTL).and_then(|t| t.parse().ok());
        let token = shared.change(|world| world.metadata_token(id, ttl))?;
        return Ok(plain(200, token).with(TTL, ttl.unwrap_or_default().to_string()));
    }
    if method != Method::GET {
        return Err(Refusal::new(405, "MethodNotAllowed", "only GET is answered"));
    }
    shared.with(|world| world.metadata(id, text(TOKEN), path)).map(|body| plain(200, body))
}

fn plain(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer { status, headers: vec![("content-type".into(), "text/plain".into())], body: body.into() }
}
