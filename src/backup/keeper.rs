//! The keeper: it takes snapshots and ships changes, beside the agent's rounds, for as long as the planner lets it.
//!
//! The planner says whose turn it can be: a machine with a healthy member in a cluster with a quorum. Of those one holds a
//! lock in etcd and works; that saves work, and nothing hangs on it. Were there two, S3's conditional writes would let
//! only one of them go on with a chain.
//!
//! Two chains are shipped at a time: the newest, and the one before it. So whatever becomes of one of them, its snapshot
//! or a segment, nothing is lost with it. A new chain is shipped from the moment at which its snapshot is begun.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::choose;
use super::configuration::Configuration;
use super::error::BackupError;
use super::rehearsal::{self, Rehearsals};
use super::retention::{self, Retention};
use super::segment::Link;
use super::ship::{Shipped, Shipping};
use super::snapshot::{self, Subject};
use crate::aws::ObjectStore;
use crate::config::settings::Settings;
use crate::etcd::streams::ChangesEnd;
use crate::etcd::{ClusterClient, EtcdError, LockName, TlsFiles};
use crate::host::clock;
use crate::model::backup::{BackupProgress, Keeping, Rehearsal};
use crate::model::{ChainName, ClusterName, ClusterUuid, Generation, InstanceId, Manifest};

/// How often the lock is kept, and asked for by whoever does not have it: a third of its lease.
const LOCK: Duration = Duration::from_secs(5);
/// How many chains are shipped: the newest, and the one before.
const SHIPPED: usize = 2;
/// How often it is looked for what has time.
const CHORES: Duration = Duration::from_mins(1);
/// How often what is too old is looked for.
const THIN: Duration = Duration::from_hours(1);

/// How often what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// How long a permission lasts. The agent's rounds renew it; an agent that makes none any more keeps nothing.
    pub permission: Duration,
    /// A snapshot.
    pub snapshots: Duration,
    /// How long lies between the beginnings of two snapshots at least, whatever they are taken for.
    pub between: Duration,
    /// For how long changes are held at most.
    pub changes: Duration,
    /// What is kept for how long.
    pub retention: Retention,
}

/// Whose backups are kept, by whom, and until when.
#[derive(Debug, Clone)]
struct Permission {
    instance: InstanceId,
    cluster: ClusterName,
    uuid: ClusterUuid,
    generation: Generation,
    /// The member that they are taken from.
    url: String,
    until: Instant,
    /// When it was given, in milliseconds since 1970.
    at: i64,
}

impl Permission {
    fn is_for_the_same(&self, other: &Self) -> bool {
        (&self.uuid, self.generation, &self.url) == (&other.uuid, other.generation, &other.url)
    }
}

/// Keeps backups, until it is dropped.
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    objects: ObjectStore,
    tls: TlsFiles,
    pace: Pace,
    rehearsals: Rehearsals,
    settings: Settings,
    state: Mutex<State>,
    shipped: Arc<Mutex<BTreeMap<ChainName, Shipped>>>,
}

#[derive(Default)]
struct State {
    permission: Option<Permission>,
    /// Whether the task runs.
    runs: bool,
    task: Option<AbortHandle>,
    /// Since when there is a permission, without a break, in milliseconds since 1970.
    since: Option<i64>,
    keeping: Option<Keeping>,
    newest: Option<Manifest>,
    rehearsed: Option<Rehearsal>,
    error: Option<String>,
}

impl Keeper {
    /// One that keeps nothing yet.
    pub fn new(
        objects: ObjectStore,
        tls: TlsFiles,
        pace: Pace,
        rehearsals: Rehearsals,
        settings: Settings,
    ) -> Self {
        let (state, shipped) = (Mutex::default(), Arc::default());
        let shared = Shared { objects, tls, pace, rehearsals, settings, state, shipped };
        Self { shared: Arc::new(shared) }
    }

    /// Lets it keep the backups of a cluster, taken from the member at `url`, for a while.
    pub fn permit(
        &self,
        instance: &InstanceId,
        cluster: &ClusterName,
        (uuid, generation): (&ClusterUuid, Generation),
        url: &str,
    ) {
        let now = clock::now_ms();
        let mut state = self.shared.state();
        state.permission = Some(Permission {
            instance: instance.clone(),
            cluster: cluster.clone(),
            uuid: uuid.clone(),
            generation,
            url: url.to_owned(),
            until: Instant::now() + self.shared.pace.permission,
            at: now,
        });
        state.since.get_or_insert(now);
        if !state.runs {
            state.runs = true;
            state.task = Some(tokio::spawn(run(Arc::clone(&self.shared))).abort_handle());
        }
    }

    /// Takes the permission back: this machine leaves.
    pub fn forbid(&self) {
        self.shared.state().permission = None;
    }

    /// How far the backups are, as far as this machine knows.
    pub fn progress(&self) -> BackupProgress {
        let state = self.shared.state();
        let shipped = self.shared.shipped.lock().unwrap_or_else(PoisonError::into_inner);
        BackupProgress {
            permitted: state.permission.as_ref().map(|permission| permission.at),
            since: state.since,
            keeping: state.keeping.clone(),
            newest: state.newest.as_ref().map(|manifest| manifest.chain.clone()),
            taken: state.newest.as_ref().map(|manifest| manifest.taken),
            size: state.newest.as_ref().map(|manifest| manifest.size),
            // By the chain that is furthest behind: the other may be the one that can't be restored.
            shipped: shipped.values().map(|shipped| shipped.revision).min(),
            unshipped_since: shipped.values().filter_map(|shipped| shipped.unshipped_since).min(),
            rehearsed: state.rehearsed.clone(),
            error: shipped.values().find_map(|shipped| shipped.error.clone()).or_else(|| state.error.clone()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Its work is another's, or nobody's, from now on. The lock ends with its lease, unless this machine goes on.
        if let Some(task) = self.shared.state().task.take() {
            task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permission(&self) -> Option<Permission> {
        self.state().permission.clone().filter(|permission| permission.until > Instant::now())
    }

    /// The permission, or nothing; with nothing the task has ended.
    fn permission_or_end(&self) -> Option<Permission> {
        let mut state = self.state();
        let permission = state.permission.clone().filter(|permission| permission.until > Instant::now());
        if permission.is_none() {
            (state.runs, state.keeping, state.since) = (false, None, None);
        }
        permission
    }

    fn taken(&self, manifest: Manifest) {
        let mut state = self.state();
        (state.newest, state.error) = (Some(manifest), None);
    }

    fn failed(&self, error: &BackupError) {
        let error = crate::model::fact::chain(error);
        let mut state = self.state();
        if state.error.as_ref() != Some(&error) {
            tracing::warn!(error, "backups are not kept just now");
        }
        state.error = Some(error);
    }
}

async fn run(shared: Arc<Shared>) {
    while let Some(permission) = shared.permission_or_end() {
        let etcd = Arc::new(ClusterClient::new(shared.tls.clone(), vec![permission.url.clone()]));
        etcd.expect(Some((&permission.uuid, permission.generation)));
        match etcd.take_lock(LockName::Backups, &permission.instance).await {
            Ok(()) => {
                {
                    let mut state = shared.state();
                    (state.keeping, state.newest, state.error) = (Some(Keeping::Here), None, None);
                }
                let ended = tokio::select! {
                    ended = keep(&shared, &permission, &etcd) => Some(ended),
                    () = lost(&shared, &permission, &etcd) => None,
                };
                shared.shipped.lock().unwrap_or_else(PoisonError::into_inner).clear();
                if let Some(error) = &ended {
                    shared.failed(error);
                }
                if shared.permission().is_none()
                    && let Err(error) = etcd.release_lock(LockName::Backups, &permission.instance).await
                {
                    tracing::debug!(error = crate::model::fact::chain(&error), "the lock is left to expire");
                }
            }
            Err(EtcdError::LockHeld { holder }) => {
                let mut state = shared.state();
                (state.keeping, state.error) = (Some(Keeping::Elsewhere { by: holder }), None);
            }
            Err(error) => shared.failed(&error.into()),
        }
        sleep(LOCK).await;
    }
}

/// Returns when the lock or the permission is lost, or is for something else.
async fn lost(shared: &Shared, permission: &Permission, etcd: &ClusterClient) {
    let mut kept = Instant::now();
    loop {
        sleep(LOCK).await;
        match shared.permission() {
            Some(now) if now.is_for_the_same(permission) => {}
            Some(_) | None => return,
        }
        match etcd.keep_lock(LockName::Backups, &permission.instance).await {
            Ok(()) => kept = Instant::now(),
            Err(EtcdError::LockLost { .. }) => return,
            // etcd may answer again before the lease has ended.
            Err(error) => {
                tracing::debug!(error = crate::model::fact::chain(&error), "the lock on backups is not kept");
                let lease = Duration::from_secs(u64::try_from(LockName::Backups.lease()).unwrap_or(0));
                if kept.elapsed() > lease {
                    return;
                }
            }
        }
    }
}

/// Keeps the backups, until that is not possible.
async fn keep(shared: &Arc<Shared>, permission: &Permission, etcd: &Arc<ClusterClient>) -> BackupError {
    match keep_on(shared, permission, etcd).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn keep_on(
    shared: &Arc<Shared>,
    permission: &Permission,
    etcd: &Arc<ClusterClient>,
) -> Result<std::convert::Infallible, BackupError> {
    let wanted = Arc::new(Notify::new());
    let shipping = Shipping {
        objects: shared.objects.clone(),
        etcd: Arc::clone(etcd),
        url: permission.url.clone(),
        every: shared.pace.changes,
        shipped: Arc::clone(&shared.shipped),
        wanted: Arc::clone(&wanted),
    };
    let mut ships = JoinSet::new();
    let mut shipped: Vec<(ChainName, AbortHandle)> = Vec::new();
    let mut due = Instant::now();
    let found = choose::furthest(&shared.objects, &permission.uuid, permission.generation).await?;
    for (place, (manifest, link)) in found.into_iter().take(SHIPPED).enumerate() {
        shipped.push((link.chain.clone(), ships.spawn(ship(shipping.clone(), link))));
        if place == 0 {
            let age = clock::now_ms().saturating_sub(manifest.taken);
            let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
            due += shared.pace.snapshots.saturating_sub(age);
            shared.state().newest = Some(manifest);
        }
    }
    let mut next = None;
    // What was begun last, and so not again for a while, whatever happens.
    let mut begun: Option<Instant> = None;
    let mut chores = JoinSet::new();
    let (mut chore, mut thin) = (Instant::now() + LOCK, Instant::now());
    loop {
        let earliest = begun.map_or(due, |begun| due.max(begun + shared.pace.between));
        tokio::select! {
            Some(ended) = ships.join_next() => if let Ok((chain, error)) = ended {
                let is_newest = shipped.first().is_some_and(|(newest, _)| *newest == chain);
                shipped.retain(|(name, _)| *name != chain);
                match error {
                    // Its history is not to be had any more: only a new snapshot helps.
                    BackupError::Changes(ChangesEnd::Compacted { .. } | ChangesEnd::Gap { .. }) => {
                        tracing::warn!(%chain, error = crate::model::fact::chain(&error), "a chain ends");
                        if is_newest {
                            due = Instant::now();
                        }
                    }
                    error => return Err(error),
                }
            },
            () = wanted.notified() => due = Instant::now(),
            () = sleep_until(earliest), if next.is_none() => {
                due = Instant::now() + shared.pace.snapshots;
                begun = Some(Instant::now());
                match begin_chain(shared, permission, etcd).await {
                    Ok(subject) => {
                        let link = Link::first(permission.uuid.clone(), subject.chain.clone());
                        shipped.insert(0, (subject.chain.clone(), ships.spawn(ship(shipping.clone(), link))));
                        next = Some(Box::pin(take(shared, permission, etcd, subject)));
                    }
                    Err(error) => {
                        shared.failed(&error);
                        due = Instant::now();
                    }
                }
            }
            (chain, taken) = ended(&mut next), if next.is_some() => {
                next = None;
                match taken {
                    Ok(manifest) => {
                        shared.taken(manifest);
                        drop_chains(&shipping, shipped.drain(SHIPPED.min(shipped.len())..));
                    }
                    Err(error) => {
                        shared.failed(&error);
                        due = Instant::now();
                        drop_chains(&shipping, shipped.extract_if(.., |(name, _)| *name == chain));
                    }
                }
            }
            () = sleep_until(chore), if chores.is_empty() => {
                let thins = thin <= Instant::now();
                if thins {
                    thin = Instant::now() + THIN;
                }
                chores.spawn(do_chores(Arc::clone(shared), permission.clone(), thins));
            }
            Some(_) = chores.join_next() => chore = Instant::now() + CHORES,
        }
    }
}

/// What has time: old backups are removed, and the newest is rehearsed. Beside the rest, since both may take long.
async fn do_chores(shared: Arc<Shared>, permission: Permission, thins: bool) {
    let Permission { uuid, generation, .. } = permission;
    if thins
        && let Err(error) =
            retention::thin(&shared.objects, &uuid, &shared.pace.retention, clock::now_ms()).await
    {
        tracing::warn!(error = crate::model::fact::chain(&error), "old backups are left");
    }
    match rehearsal::if_due(&shared.objects, &shared.rehearsals, &uuid, generation).await {
        Ok(rehearsed) => shared.state().rehearsed = rehearsed,
        Err(error) => {
            tracing::warn!(error = crate::model::fact::chain(&error), "no backup was rehearsed");
        }
    }
}

async fn ship(shipping: Shipping, link: Link) -> (ChainName, BackupError) {
    let chain = link.chain.clone();
    let ended = shipping.ship(link).await;
    shipping.all().remove(&chain);
    (chain, ended)
}

/// Ships these chains no more.
fn drop_chains(shipping: &Shipping, chains: impl Iterator<Item = (ChainName, AbortHandle)>) {
    for (chain, task) in chains {
        task.abort();
        shipping.all().remove(&chain);
    }
}

/// What becomes of a snapshot that is being taken.
async fn ended<T>(taking: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match taking {
        Some(taking) => taking.await,
        None => std::future::pending().await,
    }
}

/// Names a chain that begins now.
async fn begin_chain(
    shared: &Shared,
    permission: &Permission,
    etcd: &ClusterClient,
) -> Result<Subject, BackupError> {
    let standing = etcd.standing(&permission.url).await?;
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let chain = ChainName::new(permission.generation, standing.revision, &mark).map_err(|error| {
        BackupError::Damaged { object: "etcd's revision".to_owned(), why: error.to_string() }
    })?;
    let (cluster, uuid) = (permission.cluster.clone(), permission.uuid.clone());
    let configuration = Configuration::of(&shared.settings)?;
    Ok(Subject { cluster, uuid, chain, standing, configuration })
}

/// Takes the snapshot that a chain begins with. It is shipped already, so that nothing is missing between the two.
async fn take(
    shared: &Shared,
    permission: &Permission,
    etcd: &ClusterClient,
    subject: Subject,
) -> (ChainName, Result<Manifest, BackupError>) {
    let taken = async {
        let manifest = snapshot::take(etcd, &permission.url, &shared.objects, &subject).await?;
        // Only whoever still keeps the backups says which chain is the newest.
        etcd.keep_lock(LockName::Backups, &permission.instance).await?;
        snapshot::finish(&shared.objects, &manifest).await?;
        Ok(manifest)
    }
    .await;
    (subject.chain, taken)
}
