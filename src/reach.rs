//! What the agent reaches the world through: clients, paths and programs, made once.
//!
//! [`crate::observe`] asks through it and [`crate::execute`] acts through it. No decision and no
//! state of the cluster lives here.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::aws::StoreLocation;
use crate::aws::{Access, Clients};
use crate::backup::Keeper;
use crate::backup::keeper::Pace;
use crate::backup::rehearsal::Rehearsals;
use crate::backup::retention::Retention;
use crate::config::Settings;
use crate::config::settings::{ApiEndpoint, AutoCompaction, Filesystem};
use crate::etcd::config::{CompactionMode, Paths, Tuning};
use crate::etcd::{ClusterClient, TlsFiles};
use crate::host::files::{FileError, read_optional};
use crate::host::filesystem::Kind;
use crate::host::service::{self, Service, VersionError};
use crate::host::shutdown::ShutdownLock;
use crate::host::{Root, volume};
use crate::kubernetes::KubernetesVersion;
use crate::kubernetes::addons::Variables;
use crate::kubernetes::join::Join;
use crate::model::departure::Departure;
use crate::model::{EtcdVersion, Identity, Role, ServiceName};
use crate::pki::Owners;

/// The charter's key in S3.
pub const CHARTER: &str = "charter.json";
/// The etcd authority's key in S3.
pub const AUTHORITY: &str = "pki/etcd.json";
/// The key in S3 of Kubernetes' authorities.
pub const CLUSTER_AUTHORITIES: &str = "pki/kubernetes.json";
/// The last-known members' key in S3.
pub const MEMBERS: &str = "members.json";
/// The key in S3 of what workers may read: how they join.
pub const JOIN: &str = "workers/join.json";

/// How long the permission to keep the backups lasts at least; three slow ticks, where that is longer.
const PERMISSION: Duration = Duration::from_mins(1);
/// How long lies between two snapshots at least, however often they are asked for.
const BETWEEN_SNAPSHOTS: Duration = Duration::from_secs(30);

/// What this machine found when it read the backups through.
pub const RESTORE_POINT: &str = "/var/lib/quorate/restore-point.json";

/// How long etcd may take to end: it hands over leadership, and syncs what it has.
pub const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Where everything is reached.
pub struct Reach {
    /// The root of all paths.
    pub root: Root,
    /// What the operator wants.
    pub settings: Settings,
    /// Who this machine is.
    pub identity: Identity,
    /// AWS.
    pub aws: Clients,
    /// etcd's service on this machine.
    pub service: Service,
    /// etcd's cluster.
    pub etcd: ClusterClient,
    /// The machine's shutdown.
    pub shutdown: ShutdownLock,
    /// What keeps the backups, on a control-plane machine.
    pub keeper: Option<Keeper>,
    version: Mutex<Option<(Program, EtcdVersion)>>,
    join: Mutex<Option<Join>>,
    hook: Mutex<HookNotes>,
    departure: Mutex<Option<Departure>>,
}

/// What the lifecycle hook that holds this machine was last told by this agent.
#[derive(Debug, Clone, Copy, Default)]
struct HookNotes {
    /// When it had a heartbeat, in milliseconds since 1970.
    heartbeat: Option<i64>,
    /// When it was told how it ends.
    completed: Option<Instant>,
}

/// A program's file: another one in its place is another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Program {
    device: u64,
    inode: u64,
    length: u64,
    modified: i64,
}

impl Program {
    fn at(path: &Path) -> Option<Self> {
        // Whatever is wrong with it, running it says so.
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
        })
    }
}

impl Reach {
    /// The ways to everything, for a machine that knows who it is.
    pub async fn new(root: Root, access: &Access, settings: Settings, identity: Identity) -> Self {
        let location = StoreLocation {
            bucket: settings.bucket.as_str().to_owned(),
            prefix: settings.prefix.as_str().to_owned(),
            cluster: settings.cluster.clone(),
            kms_key: settings.kms_key_id.as_ref().map(|key| key.as_str().to_owned()),
        };
        let aws = access.clients(&identity.region, settings.role, location).await;
        let service = Service::of(&root, ServiceName::Etcd);
        let keeper = (settings.role == Role::ControlPlane).then(|| keeper(&root, &settings, &aws));
        let etcd = ClusterClient::new(TlsFiles::in_directory(&pki_dir(&root)), Vec::new());
        Self {
            root,
            settings,
            identity,
            aws,
            service,
            etcd,
            shutdown: ShutdownLock::none(),
            keeper,
            version: Mutex::default(),
            join: Mutex::default(),
            hook: Mutex::default(),
            departure: Mutex::default(),
        }
    }

    /// The same, with the machine's shutdown.
    #[must_use]
    pub fn with_shutdown(self, shutdown: ShutdownLock) -> Self {
        Self { shutdown, ..self }
    }

    /// The file that keeps that this machine leaves.
    pub fn departure(&self) -> PathBuf {
        self.root.path("/var/lib/quorate/departure.json")
    }

    /// The departure that this agent has begun, whether or not it could be written down: a full disk may be why the
    /// machine leaves.
    pub fn begun_departure(&self) -> Option<Departure> {
        self.departure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the departure that this agent begins; `None` when it is over.
    pub fn note_departure(&self, departure: Option<Departure>) {
        *self.departure.lock().unwrap_or_else(PoisonError::into_inner) = departure;
    }

    /// The file by which the operator asks this machine to leave; it holds the instance's id.
    pub fn asked_to_leave(&self) -> PathBuf {
        asked_to_leave(&self.root)
    }

    /// When the hook had its last heartbeat, in milliseconds since 1970.
    pub fn last_heartbeat(&self) -> Option<i64> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).heartbeat
    }

    /// Notes a heartbeat. `now` is in milliseconds since 1970.
    pub fn note_heartbeat(&self, now: i64) {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).heartbeat = Some(now);
    }

    /// When the hook was told how it ends.
    pub fn hook_told(&self) -> Option<Instant> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).completed
    }

    /// Notes that the hook was told how it ends.
    pub fn note_hook_told(&self) {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).completed = Some(Instant::now());
    }

    /// The directory of etcd's leaf certificates.
    pub fn pki(&self) -> PathBuf {
        pki_dir(&self.root)
    }

    /// The directory of etcd's configuration.
    pub fn etcd_dir(&self) -> PathBuf {
        self.root.path("/var/lib/quorate/etcd")
    }

    /// The file that keeps which volume was mounted last, for a boot at which EC2 does not answer.
    pub fn remembered_volume(&self) -> PathBuf {
        self.root.path("/var/lib/quorate/volume")
    }

    /// The file that keeps which endpoint Kubernetes' files were last made for.
    pub fn remembered_endpoint(&self) -> PathBuf {
        self.root.path("/var/lib/quorate/endpoint")
    }

    /// The endpoint that Kubernetes' files were last made for; `None` when they never were, or when
    /// the file is damaged: the agent alone writes it, and writes it anew.
    pub fn last_endpoint(&self) -> Result<Option<ApiEndpoint>, FileError> {
        let text = read_optional(&self.remembered_endpoint())?;
        Ok(text.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse().ok()))
    }

    /// Keeps what a worker was told last: its token is used without reading it again.
    pub fn keep_join(&self, join: Join) {
        *self.join.lock().unwrap_or_else(PoisonError::into_inner) = Some(join);
    }

    /// What a worker was told last, if its token is still that one.
    pub fn kept_join(&self, token: &str) -> Option<Join> {
        let kept = self.join.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|join| join.token.id() == token).cloned()
    }

    /// The variables of add-ons, in a cluster whose API is reached there.
    pub fn variables(&self, endpoint: &ApiEndpoint) -> Variables {
        Variables::of(&self.settings.cluster, &self.identity.region, &self.settings.kubernetes, endpoint)
    }

    /// Whether files are given to the users of the components that read them: on a machine. Below
    /// another root the components run as whoever runs the agent.
    pub fn gives_files_away(&self) -> bool {
        self.root.is_machine() && nix::unistd::geteuid().is_root()
    }

    /// The components' users, where files are given to them.
    pub fn owners(&self) -> Option<Owners> {
        self.gives_files_away().then(Owners::default)
    }

    /// The version of the machine's kubelet, which is that of everything else of Kubernetes here.
    pub async fn kubelet_version(&self) -> Result<KubernetesVersion, VersionError> {
        service::kubelet_version(Path::new(self.settings.kubernetes.kubelet_binary.as_str())).await
    }

    /// Where the volume is mounted.
    pub fn mount_point(&self) -> PathBuf {
        volume::mount_point(&self.root)
    }

    /// The kind of file system that is made on a blank volume.
    pub fn filesystem(&self) -> Kind {
        match self.settings.etcd.volume.filesystem {
            Filesystem::Ext4 => Kind::Ext4,
            Filesystem::Xfs => Kind::Xfs,
        }
    }

    /// etcd's program.
    pub fn etcd_program(&self) -> PathBuf {
        PathBuf::from(self.settings.etcd.binary.as_str())
    }

    /// The version of etcd's program; it is asked again when the program was replaced.
    pub async fn etcd_version(&self) -> Result<EtcdVersion, VersionError> {
        let path = self.etcd_program();
        let program = Program::at(&path);
        let told = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(program), Some((asked, version))) = (program, told)
            && program == asked
        {
            return Ok(version);
        }
        let version = service::version(&path).await?;
        let told = program.map(|program| (program, version));
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = told;
        Ok(version)
    }

    /// Where etcd finds its things.
    pub fn etcd_paths(&self) -> Paths {
        Paths { data: volume::data_dir(&self.root), pki: self.pki() }
    }

    /// etcd's tuning, by the settings.
    pub fn tuning(&self) -> Tuning {
        tuning(&self.settings)
    }
}

/// What keeps the backups.
fn keeper(root: &Root, settings: &Settings, aws: &Clients) -> Keeper {
    let backups = &settings.backups;
    let pace = Pace {
        permission: PERMISSION.max(settings.tick.as_duration() * 3),
        snapshots: backups.snapshots.as_duration(),
        between: BETWEEN_SNAPSHOTS,
        changes: backups.changes.as_duration(),
        retention: Retention {
            all: backups.keep_all.as_duration(),
            hourly: backups.keep_hourly.as_duration(),
            daily: backups.keep_daily.as_duration(),
        },
    };
    let rehearsals = Rehearsals {
        every: backups.rehearsal.as_duration(),
        dir: root.path("/var/lib/quorate/rehearsal"),
        etcd: PathBuf::from(settings.etcd.binary.as_str()),
        pki: pki_dir(root),
        tuning: tuning(settings),
    };
    let tls = TlsFiles::in_directory(&pki_dir(root));
    Keeper::new(aws.objects.clone(), tls, pace, rehearsals, settings.clone())
}

fn tuning(settings: &Settings) -> Tuning {
    let etcd = &settings.etcd;
    let millis =
        |span: crate::config::settings::TimeSpan| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let (compaction, compaction_retention) = match etcd.auto_compaction {
        // etcd reads Go's durations, which ours are.
        AutoCompaction::Periodic { retention } => (CompactionMode::Periodic, retention.to_string()),
        AutoCompaction::Revision { retention } => (CompactionMode::Revision, retention.to_string()),
    };
    Tuning {
        heartbeat_ms: millis(etcd.heartbeat_interval),
        election_ms: millis(etcd.election_timeout),
        quota_bytes: etcd.quota.as_bytes(),
        compaction,
        compaction_retention,
        snapshot_count: etcd.snapshot_count.into(),
        log_level: etcd.log_level.as_str().to_owned(),
    }
}

/// The file by which the operator asks a machine to leave.
pub fn asked_to_leave(root: &Root) -> PathBuf {
    root.path("/var/lib/quorate/leave")
}

fn pki_dir(root: &Root) -> PathBuf {
    root.path("/etc/quorate/pki/etcd")
}
