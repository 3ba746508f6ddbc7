//! Why a step was not done.

use crate::aws::AutoScalingError;
use crate::aws::Ec2Error;
use crate::aws::LoadBalancerError;
use crate::aws::ObjectError;
use crate::config::settings::AddonName;
use crate::etcd::EtcdError;
use crate::etcd::config::ConfigError;
use crate::etcd::launch::LaunchError;
use crate::host::files::FileError;
use crate::host::filesystem::{FilesystemError, ParseKindError};
use crate::host::manifests::ManifestError;
use crate::host::service::{ServiceError, VersionError};
use crate::host::volume::VolumeError;
use crate::kubernetes::addons::AddonError;
use crate::model::ServiceName;
use crate::pki::PkiError;

/// A step that was not done, or of which that is not known. Whichever it is, the next look tells.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Another machine wrote first.
    #[error("another machine was first")]
    Overtaken,
    /// The volume is not mounted any more.
    #[error("the etcd volume is not mounted")]
    NotMounted,
    /// The device holds no file system of ours any more.
    #[error("the device holds {found}, expected a file system of this cluster's")]
    NotOurs {
        /// What it holds.
        found: String,
    },
    /// A backup was not chosen or restored.
    #[error("working with backups")]
    Backup(#[from] crate::backup::BackupError),
    /// etcd runs, and its data are not moved under it.
    #[error("etcd runs: its data can't be set aside")]
    EtcdRuns,
    /// The authority is not in S3 any more.
    #[error("there is no etcd authority in S3")]
    NoAuthority,
    /// Kubernetes' authorities are not in S3 any more.
    #[error("there are no Kubernetes authorities in S3")]
    NoClusterAuthorities,
    /// An authority in S3 is another than the one that was decided on.
    #[error("{key} in S3 is now {found}, expected {expected}: nothing was signed")]
    OtherAuthority {
        /// The object.
        key: &'static str,
        /// The fingerprint of what is in S3.
        found: String,
        /// The fingerprint of what was decided on.
        expected: String,
    },
    /// What is published to workers is not there any more.
    #[error("there is no {key} in S3 any more")]
    NoJoin {
        /// The object.
        key: &'static str,
    },
    /// What is published to workers can't be used.
    #[error("reading {key} in S3")]
    Join {
        /// The object.
        key: &'static str,
        /// Why not.
        #[source]
        source: crate::kubernetes::join::JoinError,
    },
    /// A kubeconfig was not made.
    #[error("making {path}")]
    Kubeconfig {
        /// Which.
        path: &'static str,
        /// Why not.
        #[source]
        source: crate::kubernetes::kubeconfig::KubeconfigError,
    },
    /// No token could be made of what the machine's random numbers gave.
    #[error("no bootstrap token could be made")]
    NoToken,
    /// A record could not be written down.
    #[error("writing a record as JSON")]
    Json(#[source] serde_json::Error),
    /// EC2.
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    /// S3.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The file system.
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    /// A kind of file system that is not known.
    #[error(transparent)]
    Kind(#[from] ParseKindError),
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The volume's own files.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// etcd's service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// etcd's version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// etcd's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// etcd's configuration on disk.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Static pods' manifests.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The authority's certificate is not on this machine any more.
    #[error("there is no {path}")]
    NoCertificate {
        /// Where it should be.
        path: &'static str,
    },
    /// An endpoint that no URL can be made of.
    #[error(transparent)]
    Endpoint(#[from] crate::model::names::NotAServerUrl),
    /// An object for the API.
    #[error(transparent)]
    FirstThing(#[from] crate::kubernetes::objects::ObjectError),
    /// An add-on's file says something else than was decided on, or is gone.
    #[error("the file of the add-on {name} was changed in the meantime")]
    OtherAddon {
        /// The add-on.
        name: AddonName,
    },
    /// An add-on's file.
    #[error(transparent)]
    Addon(#[from] AddonError),
    /// The API.
    #[error(transparent)]
    Api(#[from] crate::cluster_api::ApiError),
    /// containerd.
    #[error(transparent)]
    Containerd(#[from] crate::host::containerd::ContainerdError),
    /// logind.
    #[error(transparent)]
    Logind(#[from] crate::host::logind::LogindError),
    /// A service whose starts are decided on elsewhere.
    #[error("{service} is not started like this")]
    NotThisWay {
        /// The service.
        service: ServiceName,
    },
    /// Load balancers.
    #[error(transparent)]
    LoadBalancer(#[from] LoadBalancerError),
    /// Auto Scaling.
    #[error(transparent)]
    AutoScaling(#[from] AutoScalingError),
    /// What this machine notes for itself.
    #[error(transparent)]
    Note(#[from] crate::host::NoteError),
}
