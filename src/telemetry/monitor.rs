//! `/metrics`, `/healthz` and `/readyz`: read-only, on the node's own address and loopback.
//!
//! What is told is what the agent last said of itself; nobody who asks makes the agent look. Whoever asks too much
//! waits: a few connections at a time, each for a minute at most, so that the agent's own files and memory are safe.
//!
//! `/healthz` says whether the agent's loop goes round, `/readyz` whether the machine does what it is there for: it
//! is for people and monitors. Load balancers ask the API server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

use super::metrics::{self, CLASSIC_CONTENT_TYPE, CONTENT_TYPE, Counters};
use super::status::Status;
use crate::config::settings::{Listen, MonitoringSettings};
use crate::host::clock;
use crate::model::Phase;

/// How many connections are served at a time.
const CONNECTIONS: usize = 32;
/// How long a connection is kept.
const LIFE: Duration = Duration::from_mins(1);
/// How long to wait before an address is tried again that can't be listened at.
const AGAIN: Duration = Duration::from_secs(10);
/// How much later than it said the agent may show a sign of life: the machine may be busy.
const LATE: Duration = Duration::from_secs(30);

/// What the agent says of itself for whoever watches.
#[derive(Debug, Default)]
pub struct Board {
    /// What is counted.
    pub counters: Counters,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    status: Option<Status>,
    /// When the agent shows a sign of life again at the latest.
    due: Option<Instant>,
}

impl Board {
    /// The agent's state after a look.
    pub fn tell(&self, status: &Status) {
        self.told().status = Some(status.clone());
    }

    /// What the agent told last.
    pub fn status(&self) -> Option<Status> {
        self.told().status.clone()
    }

    /// The agent's loop goes round, and shows it again within this time.
    pub fn is_alive_for(&self, limit: Duration) {
        self.told().due = Some(Instant::now() + limit + LATE);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent's loop goes round; else why it is thought not to.
    fn health(&self, now: Instant) -> Result<(), String> {
        match self.told().due {
            None => Err("the agent has not looked yet".to_owned()),
            Some(due) if now > due => {
                let late = (now - due).as_secs();
                Err(format!("the agent's loop should have gone round {late} s ago"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether the machine does what it is there for, and its state in a line.
    fn readiness(&self, now: Instant) -> Result<String, String> {
        self.health(now)?;
        let told = self.told();
        let status = told.status.as_ref().ok_or("the agent has not looked yet")?;
        let is_ready = matches!(status.phase, Phase::Running | Phase::Standby) && status.halt.is_none();
        if is_ready { Ok(status.line()) } else { Err(status.line()) }
    }
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    _tasks: JoinSet<()>,
}

/// Serves what a board says, where the settings say.
pub fn serve(settings: MonitoringSettings, node: Ipv4Addr, board: &Arc<Board>) -> Monitor {
    let mut tasks = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    for address in addresses(settings.listen, node) {
        let address = SocketAddrV4::new(address, settings.port);
        tasks.spawn(listen(address, routes(Arc::clone(board)), Arc::clone(&slots)));
    }
    Monitor { _tasks: tasks }
}

/// Machines that share one host have an address each, and no other.
fn addresses(listen: Listen, node: Ipv4Addr) -> Vec<Ipv4Addr> {
    match listen {
        Listen::Off => Vec::new(),
        Listen::Node | Listen::Loopback if node.is_loopback() => vec![node],
        Listen::Node => vec![node, Ipv4Addr::LOCALHOST],
        Listen::Loopback => vec![Ipv4Addr::LOCALHOST],
    }
}

fn routes(board: Arc<Board>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(board)
}

async fn metrics(State(board): State<Arc<Board>>, headers: HeaderMap) -> Response {
    let page = metrics::page(board.told().status.as_ref(), &board.counters, clock::now_ms());
    match page {
        Ok(page) if wants_openmetrics(&headers) => {
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response()
        }
        Ok(page) => ([(header::CONTENT_TYPE, CLASSIC_CONTENT_TYPE)], metrics::classic(&page)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Prometheus asks for OpenMetrics by its name; who does not is given what everybody reads.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.into_iter().any(|value| value.contains("application/openmetrics-text"))
}

async fn healthz(State(board): State<Arc<Board>>) -> Response {
    answer(board.health(Instant::now()).map(|()| "ok".to_owned()))
}

async fn readyz(State(board): State<Arc<Board>>) -> Response {
    answer(board.readiness(Instant::now()))
}

fn answer(found: Result<String, String>) -> Response {
    match found {
        Ok(line) => format!("{line}\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Listens at an address for good; where that can't be, says so once and tries again.
async fn listen(address: SocketAddrV4, routes: Router, slots: Arc<Semaphore>) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let bounded = Bounded { listener, slots: Arc::clone(&slots), life: LIFE };
                match axum::serve(bounded, routes.clone()).await {
                    Ok(()) => tracing::warn!(%address, "metrics are not served any more; trying again"),
                    Err(error) => {
                        tracing::warn!(%address, %error, "metrics are not served any more; trying again");
                    }
                }
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(%address, %error, "metrics can't be served; trying again");
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// A listener that has few connections at a time, each for a while.
struct Bounded {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    life: Duration,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let slot = match Arc::clone(&self.slots).acquire_owned().await {
            Ok(slot) => slot,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        };
        // Axum's own way with a TCP listener: what is wrong with one connection is passed over.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection { stream, end: Box::pin(sleep(self.life)), _slot: slot }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

fn over<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return over();
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(context) {
            return over();
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Halt;

    fn status(phase: Phase) -> Status {
        Status { phase, ..Status::starting(Vec::new(), None) }
    }

    #[test]
    fn an_agent_is_healthy_as_long_as_it_shows_a_sign_of_life_in_time() {
        let board = Board::default();
        assert!(board.health(Instant::now()).is_err());
        board.tell(&status(Phase::Running));
        for limit in [Duration::from_secs(10), Duration::from_mins(20)] {
            let before = Instant::now();
            board.is_alive_for(limit);
            let (last, over) = (before + limit + LATE, Instant::now() + limit + LATE);
            assert_eq!((board.health(last), board.readiness(last).is_ok()), (Ok(()), true));
            let late = over + Duration::from_millis(5_100);
            let why = board.health(late).unwrap_err();
            assert!(why.starts_with("the agent's loop should have gone round "), "{why}");
            assert_eq!(board.readiness(late), Err(why));
        }
    }

    #[test]
    fn a_machine_is_ready_when_it_does_what_it_is_there_for() {
        let board = Board::default();
        board.is_alive_for(LIFE);
        assert!(board.readiness(Instant::now()).is_err());
        for phase in Phase::ALL {
            board.tell(&status(phase));
            let is_ready = matches!(phase, Phase::Running | Phase::Standby);
            assert_eq!(board.readiness(Instant::now()).is_ok(), is_ready, "{phase}");
        }
        board.tell(&Status { halt: Some(Halt::AuthorityLost), ..status(Phase::Running) });
        assert!(board.readiness(Instant::now()).is_err());
    }

    #[test]
    fn machines_that_share_a_host_do_not_share_an_address() {
        let (own, loopback) = (Ipv4Addr::new(10, 0, 1, 10), Ipv4Addr::LOCALHOST);
        assert_eq!(addresses(Listen::Node, own), [own, loopback]);
        assert_eq!(addresses(Listen::Loopback, own), [loopback]);
        let shared = Ipv4Addr::new(127, 0, 3, 1);
        assert_eq!(addresses(Listen::Node, shared), [shared]);
        assert_eq!(addresses(Listen::Loopback, shared), [shared]);
        assert_eq!(addresses(Listen::Off, own), [loopback; 0]);
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_let_go_after_a_while_and_others_wait_meanwhile() {
        use tokio::io::AsyncReadExt as _;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let slots = Arc::new(Semaphore::new(1));
        let mut bounded = Bounded { listener, slots: Arc::clone(&slots), life: Duration::from_millis(1) };
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut connection, _) = bounded.accept().await;
        assert_eq!(slots.available_permits(), 0);
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(slots.available_permits(), 1);
    }
}
