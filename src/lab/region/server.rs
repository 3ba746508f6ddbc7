//! The running region: the world behind a lock, its clock, its listeners.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::wire;
use super::wire::connection::{BreakableListener, Peer};
use super::wire::imds::{self, Hold};
use super::world::{Event, ImdsGate, InstanceId, World, WorldConfig};
use super::{clock, control, front};

/// Where each instance's metadata service listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsPlacement {
    /// 127.0.0.1 and a port of the system's choice.
    #[default]
    AnyPort,
    /// The instance's private address and this port.
    PrivateAddress(u16),
}

/// What to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegionConfig {
    /// The region itself.
    pub world: WorldConfig,
    /// Where EC2, Auto Scaling, Elastic Load Balancing and S3 listen.
    pub aws: SocketAddr,
    /// Where the control API listens: loopback only.
    pub control: SocketAddr,
    /// Where metadata services listen.
    pub imds: ImdsPlacement,
}

impl Default for RegionConfig {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { world: WorldConfig::default(), aws: any, control: any, imds: ImdsPlacement::default() }
    }
}

/// Where the region is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// For `AWS_ENDPOINT_URL`.
    pub aws: String,
    /// For the control API.
    pub control: String,
}

/// Why a region can't start.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// An address is not loopback: a simulated region must not be reachable from elsewhere.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// An address can't be listened at.
    #[error("can't listen at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

struct Inner {
    world: Mutex<World>,
    clock_offset_ms: AtomicI64,
    changed: watch::Sender<()>,
    runtime: Handle,
    imds: ImdsPlacement,
    aws: OnceLock<SocketAddr>,
    requests: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The world and what runs it, shared by every front end.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

impl Shared {
    /// Looks at the world.
    pub(super) fn with<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.0.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings the world up to the present, changes it, and starts what the change calls for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.0.world.lock().unwrap_or_else(PoisonError::into_inner);
        let before = world.mark();
        world.advance(self.now());
        let result = change(&mut world);
        for id in world.take_launched() {
            self.start_imds(&mut world, &id);
        }
        let after = world.mark();
        drop(world);
        if before != after {
            self.0.changed.send_replace(());
        }
        result
    }

    /// The region's clock, in milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        clock::wall_ms().saturating_add_signed(self.0.clock_offset_ms.load(Ordering::Relaxed))
    }

    /// Sets the region's clock this far from the machine's.
    pub(super) fn set_clock_offset(&self, offset_ms: i64) {
        self.0.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
        self.change(|_| ());
    }

    /// Wakes at every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    pub(super) fn request_id(&self) -> String {
        format!("{:016X}", self.0.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The host and port of the AWS endpoint.
    pub(super) fn aws_host(&self) -> String {
        self.0.aws.get().map(ToString::to_string).unwrap_or_default()
    }

    /// The events after a sequence number, waiting for one up to `wait`.
    pub(super) async fn events_after(&self, sequence: u64, wait: Duration) -> Vec<Event> {
        let mut changes = self.changes();
        let some = async {
            loop {
                changes.mark_unchanged();
                let events = self.with(|world| world.events_after(sequence));
                if !events.is_empty() {
                    return events;
                }
                if changes.changed().await.is_err() {
                    return Vec::new();
                }
            }
        };
        tokio::time::timeout(wait, some).await.unwrap_or_default()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.0.runtime.spawn(task).abort_handle();
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle);
    }

    fn start_imds(&self, world: &mut World, id: &InstanceId) {
        let _runtime = self.0.runtime.enter();
        let Some(ip) = world.view().instances.get(id).map(|i| i.private_ip) else { return };
        let wanted = match self.0.imds {
            ImdsPlacement::PrivateAddress(port) => SocketAddr::from((ip, port)),
            ImdsPlacement::AnyPort => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        let (hold, address) = match imds::reserve(wanted) {
            Ok((socket, address)) => (Hold::Bound(socket), address),
            Err(error) if wanted.port() == 0 => {
                tracing::error!(instance = %id, %error, "no address for a metadata service");
                return;
            }
            // A predecessor at the same address is being ended: the service tries again.
            Err(_) => (Hold::Nothing, wanted),
        };
        // It takes connections before anybody is told of it.
        let hold = match (hold, world.imds_gate(id)) {
            (hold @ Hold::Bound(_), ImdsGate::Open) => match hold.listen(address) {
                Ok(listener) => Hold::Listening(listener),
                Err(error) => {
                    tracing::debug!(instance = %id, %error, "a metadata service can't listen yet");
                    Hold::Nothing
                }
            },
            (hold, _) => hold,
        };
        world.set_imds(id, address);
        world.settle();
        self.spawn(imds::run(self.clone(), id.clone(), address, hold));
    }

    /// Lets time pass: wakes when something becomes due by itself.
    async fn tick(self) {
        /// Not to spin on what is due at this very moment.
        const SHORTEST: Duration = Duration::from_millis(2);
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let due = self.with(World::next_due);
            let wait = due.map(|at| Duration::from_millis(at.saturating_sub(self.now())).max(SHORTEST));
            let timer = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => self.change(|_| ()),
                woken = changes.changed() => {
                    if woken.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// A running region. Everything ends when it is dropped.
pub struct Region {
    shared: Shared,
    endpoints: Endpoints,
}

impl Region {
    /// Starts an empty region. Must be called within a tokio runtime with IO and time.
    ///
    /// # Errors
    /// An address that is not loopback or can't be listened at.
    pub async fn start(config: RegionConfig) -> Result<Self, RegionError> {
        let aws = listen(config.aws).await?;
        let control = listen(config.control).await?;
        let shared = Shared(Arc::new(Inner {
            world: Mutex::new(World::new(config.world, clock::wall_ms())),
            clock_offset_ms: AtomicI64::new(0),
            changed: watch::Sender::new(()),
            runtime: Handle::current(),
            imds: config.imds,
            aws: OnceLock::new(),
            requests: AtomicU64::new(0),
            tasks: Mutex::default(),
        }));
        let endpoints =
            Endpoints { aws: format!("http://{}", aws.1), control: format!("http://{}", control.1) };
        shared.0.aws.get_or_init(|| aws.1);
        shared.spawn(shared.clone().tick());
        shared.spawn(front::run(shared.clone()));
        shared.spawn(serve(aws.0, Router::new().fallback(wire::serve).with_state(shared.clone())));
        shared.spawn(serve(control.0, control::router(shared.clone())));
        Ok(Self { shared, endpoints })
    }

    /// Where it is reached.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Looks at the world as it was when something last happened.
    pub fn with<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        self.shared.with(look)
    }

    /// Changes the world: every operation of [`World`] can be called so.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// Sets the region's clock this far from the machine's, in milliseconds.
    pub fn set_clock_offset(&self, offset_ms: i64) {
        self.shared.set_clock_offset(offset_ms);
    }

    /// The events after a sequence number, oldest first; waits for one at most `wait`, and answers
    /// with none when the time is over.
    pub async fn events_after(&self, sequence: u64, wait: Duration) -> Vec<Event> {
        self.shared.events_after(sequence, wait).await
    }

    /// Waits until the world fits, looking again at every change. Answers whether it did in time.
    pub async fn wait_until(&self, wait: Duration, fits: impl Fn(&World) -> bool) -> bool {
        let mut changes = self.shared.changes();
        let fitting = changes.wait_for(|()| self.shared.with(&fits));
        matches!(tokio::time::timeout(wait, fitting).await, Ok(Ok(_)))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let tasks = self.shared.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.iter() {
            task.abort();
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(BreakableListener, SocketAddr), RegionError> {
    if !address.ip().is_loopback() {
        return Err(RegionError::NotLoopback(address));
    }
    let failed = |source| RegionError::Bind { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((BreakableListener(listener), bound))
}

async fn serve(listener: BreakableListener, router: Router) {
    let service = router.into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "a listener of the region ended");
    }
}
