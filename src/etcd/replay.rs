//! A private etcd of one member, on which a backup is brought up to date before it is used.
//!
//! It is nobody's member: it serves at a loopback port that the kernel chose, to this machine's own certificate, and
//! ends with its [`Replay`]. Every revision is applied as the transaction that it was, and must get the number that
//! it had: etcd counts the transactions that change something, so a replay that differs from the original is noticed
//! at the first one that does.
//!
//! Leases are kept alive meanwhile. One that ended would take its keys with it, in a revision that never was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use etcd_client::{GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::config::{Paths, Tuning};
use super::connection::{Connections, Endpoint, TlsFiles};
use super::error::{Cause, EtcdError};
use super::store::{AUTHORITIES, PREFIX};
use super::streams::Change;
use crate::pki::leaves;

/// How long it may take to serve: a large database is read as a whole first.
const START: Duration = Duration::from_mins(10);
/// How long one transaction may take.
const APPLY: Duration = Duration::from_secs(30);
/// How long it may take to end: it writes what it has.
const STOP: Duration = Duration::from_mins(2);
/// The time to live, in seconds, of a lease of which it is not known. etcd grants none for less.
const SHORT: i64 = 2;
/// What a transaction of Kubernetes' never comes near, and the deletion of a large range may.
const MAX_OPERATIONS: &str = "10000000";
const MAX_REQUEST: &str = "1073741824";
/// How much of what it printed is told when it fails.
const TAIL: usize = 2000;

/// What went wrong with the private etcd.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It was not started.
    #[error("starting {} for a restore", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended, or never served.
    #[error("the private etcd of a restore {what}; it printed: {printed}")]
    Ended {
        /// What it did.
        what: String,
        /// The end of what it printed.
        printed: String,
    },
    /// It could not be asked.
    #[error("asking the private etcd of a restore")]
    Asked(#[source] EtcdError),
    /// A revision got another number than it had.
    #[error(
        "the change that was revision {expected} became revision {found}: what is restored is not what was"
    )]
    Diverged {
        /// The number that it got.
        found: i64,
        /// The number that it had.
        expected: i64,
    },
}

/// The private etcd.
pub struct Replay {
    child: Child,
    printed: PathBuf,
    endpoint: Endpoint,
    connections: Connections,
    /// The leases, each with a third of its time to live.
    leases: BTreeMap<i64, Duration>,
    /// When each is to be kept alive.
    due: BinaryHeap<Reverse<(Instant, i64)>>,
}

/// What it is started with.
#[derive(Debug, Clone)]
pub struct ReplayStart<'a> {
    /// etcd.
    pub program: &'a Path,
    /// Its data, and this machine's certificates.
    pub paths: &'a Paths,
    /// Its quota is the cluster's.
    pub tuning: &'a Tuning,
    /// Whether the data are those of a cluster with other members, which are dropped.
    pub force_new_cluster: bool,
    /// Where it prints to.
    pub printed: &'a Path,
}

/// The name that the data must have been restored for, unless a new cluster is forced.
pub const NAME: &str = "replay";
/// The peer URL that the data must have been restored for. Nobody listens there: it has no peers.
pub const PEER_URL: &str = "https://127.0.0.1:2380";

impl Replay {
    /// Starts it, and waits until it serves.
    pub async fn start(start: &ReplayStart<'_>) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::Start { program: start.program.to_owned(), source };
        let (client, peer) = (free_port().map_err(failed)?, free_port().map_err(failed)?);
        let url = format!("https://127.0.0.1:{client}");
        let output = std::fs::File::create(start.printed).map_err(failed)?;
        let child = Command::new(start.program)
            .args(arguments(start, &url, peer))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let connections = Connections::new(TlsFiles::in_directory(&start.paths.pki));
        let endpoint = connections.patient(&url, APPLY).await.map_err(ReplayError::Asked)?;
        let printed = start.printed.to_owned();
        let mut replay =
            Self { child, printed, endpoint, connections, leases: BTreeMap::new(), due: BinaryHeap::new() };
        let began = Instant::now();
        loop {
            if let Some(status) = replay.child.try_wait().map_err(failed)? {
                return Err(replay.ended(format!("ended with {status}")));
            }
            match timeout(APPLY, replay.revision()).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) | Err(_) if began.elapsed() < START => sleep(Duration::from_millis(20)).await,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(replay.ended("did not serve in time".to_owned())),
            }
        }
        replay.find_leases().await?;
        Ok(replay)
    }

    /// Its last revision.
    pub async fn revision(&self) -> Result<i64, ReplayError> {
        let mut kv = self.endpoint.client.kv_client();
        let options = GetOptions::new().with_prefix().with_count_only();
        let read = self.call("reading", kv.get(PREFIX, Some(options))).await?;
        Ok(read.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// How many keys there were at a revision; `None` when that was compacted.
    pub async fn keys_at(&self, revision: i64) -> Result<Option<u64>, ReplayError> {
        let mut kv = self.endpoint.client.kv_client();
        let options = GetOptions::new().with_all_keys().with_count_only().with_revision(revision);
        match self.call("counting the keys", kv.get("", Some(options))).await {
            Ok(read) => Ok(u64::try_from(read.count()).ok()),
            Err(ReplayError::Asked(EtcdError::Call { source: Cause::Refused(why), .. }))
                if why.contains("compacted") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Applies one revision, as the transaction that it was. `granted` are the times to live of its leases.
    pub async fn apply(
        &mut self,
        revision: i64,
        changes: Vec<Change>,
        granted: &BTreeMap<i64, i64>,
    ) -> Result<(), ReplayError> {
        self.keep_leases().await?;
        let mut operations = Vec::with_capacity(changes.len());
        for change in changes {
            operations.push(match change.value {
                Some(value) if change.lease != 0 => {
                    self.grant(change.lease, granted.get(&change.lease).copied()).await?;
                    TxnOp::put(change.key, value, Some(PutOptions::new().with_lease(change.lease)))
                }
                Some(value) => TxnOp::put(change.key, value, None),
                None => TxnOp::delete(change.key, None),
            });
        }
        let mut kv = self.endpoint.client.kv_client();
        let done = self.call("applying a change", kv.txn(Txn::new().and_then(operations))).await?;
        let found = done.header().map_or(0, etcd_client::ResponseHeader::revision);
        if found == revision { Ok(()) } else { Err(ReplayError::Diverged { found, expected: revision }) }
    }

    /// Drops what is not true any more: what quorate keeps in etcd (who was a member, who held which lock) but for the
    /// fingerprint of Kubernetes' authorities, and leases that nothing is on. Of those it is not known whether they had
    /// ended.
    pub async fn drop_what_was(&mut self) -> Result<(), ReplayError> {
        let mut kv = self.endpoint.client.kv_client();
        let options = GetOptions::new().with_prefix().with_keys_only();
        let kept = self.call("reading the records", kv.get(PREFIX, Some(options))).await?;
        let records =
            kept.kvs().iter().map(|kv| kv.key().to_vec()).filter(|key| key != AUTHORITIES.as_bytes());
        let drops: Vec<TxnOp> = records.map(|key| TxnOp::delete(key, None)).collect();
        if !drops.is_empty() {
            self.call("dropping the records", kv.txn(Txn::new().and_then(drops))).await?;
        }
        let mut leases = self.endpoint.client.lease_client();
        let found = self.call("asking for the leases", leases.leases()).await?;
        for lease in found.leases() {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            let told =
                self.call("asking for a lease", leases.time_to_live(lease.id(), Some(options))).await?;
            if told.keys().is_empty() && told.ttl() > 0 {
                self.call("dropping a lease", leases.revoke(lease.id())).await?;
            }
        }
        Ok(())
    }

    /// Ends it, and waits until it has written all.
    pub async fn stop(mut self) -> Result<(), ReplayError> {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // One that has ended already is no error.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        match timeout(STOP, self.child.wait()).await {
            // etcd ends by the signal that it was sent.
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.ended(error.to_string())),
            Err(_) => Err(self.ended("did not end in time".to_owned())),
        }
    }

    async fn grant(&mut self, lease: i64, ttl: Option<i64>) -> Result<(), ReplayError> {
        if self.leases.contains_key(&lease) {
            return Ok(());
        }
        // It had ended when its time to live was asked for: what is on it ends soon after the restore.
        let ttl = ttl.unwrap_or(SHORT);
        let mut leases = self.endpoint.client.lease_client();
        let options = LeaseGrantOptions::new().with_id(lease);
        self.call("granting a lease", leases.grant(ttl, Some(options))).await?;
        self.keep(lease, ttl);
        Ok(())
    }

    /// The leases of the snapshot are kept alive, too.
    async fn find_leases(&mut self) -> Result<(), ReplayError> {
        let mut client = self.endpoint.client.lease_client();
        let found = self.call("asking for the leases", client.leases()).await?;
        for lease in found.leases() {
            let told = self.call("asking for a lease", client.time_to_live(lease.id(), None)).await?;
            self.keep(lease.id(), told.granted_ttl());
        }
        Ok(())
    }

    /// Keeps a lease from now on.
    fn keep(&mut self, lease: i64, ttl: i64) {
        let third = Duration::from_secs(u64::try_from(ttl).unwrap_or(0)) / 3;
        self.leases.insert(lease, third);
        self.due.push(Reverse((Instant::now() + third, lease)));
    }

    /// Keeps alive the leases whose time it is.
    async fn keep_leases(&mut self) -> Result<(), ReplayError> {
        while let Some(Reverse((due, lease))) = self.due.peek().copied()
            && due <= Instant::now()
        {
            self.due.pop();
            let Some(third) = self.leases.get(&lease).copied() else { continue };
            let mut client = self.endpoint.client.lease_client();
            match self.call("keeping a lease", client.keep_alive(lease)).await {
                Ok(_) => self.due.push(Reverse((Instant::now() + third, lease))),
                // It has ended. If a key was on it, the next revision tells.
                Err(ReplayError::Asked(EtcdError::Call { source: Cause::Refused(_), .. })) => {
                    self.leases.remove(&lease);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, ReplayError> {
        self.connections.call(operation, &self.endpoint.url, APPLY, call).await.map_err(ReplayError::Asked)
    }

    fn ended(&self, what: String) -> ReplayError {
        let printed = std::fs::read(&self.printed).unwrap_or_default();
        let tail = printed.len().saturating_sub(TAIL);
        let printed = String::from_utf8_lossy(&printed[tail..]).trim().to_owned();
        ReplayError::Ended { what, printed }
    }
}

fn arguments(start: &ReplayStart<'_>, url: &str, peer: u16) -> Vec<OsString> {
    let pki = |name: &str| start.paths.pki.join(name).into_os_string();
    let peer = format!("https://127.0.0.1:{peer}");
    let mut arguments: Vec<OsString> = Vec::new();
    let mut set = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
    set("--name", NAME.into());
    set("--data-dir", start.paths.data.clone().into_os_string());
    set("--listen-client-urls", url.into());
    set("--advertise-client-urls", url.into());
    set("--listen-peer-urls", peer.into());
    set("--initial-advertise-peer-urls", PEER_URL.into());
    set("--initial-cluster", format!("{NAME}={PEER_URL}").into());
    for (flag, file) in [
        ("--cert-file", leaves::SERVER),
        ("--key-file", leaves::SERVER_KEY),
        ("--trusted-ca-file", leaves::CA),
        ("--peer-cert-file", leaves::PEER),
        ("--peer-key-file", leaves::PEER_KEY),
        ("--peer-trusted-ca-file", leaves::CA),
    ] {
        set(flag, pki(file));
    }
    set("--quota-backend-bytes", start.tuning.quota_bytes.to_string().into());
    set("--max-txn-ops", MAX_OPERATIONS.into());
    set("--max-request-bytes", MAX_REQUEST.into());
    set("--log-level", "warn".into());
    arguments.extend(["--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync"].map(Into::into));
    if start.force_new_cluster {
        arguments.push("--force-new-cluster".into());
    }
    arguments
}

/// A port of the loopback network that nobody listens at just now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
