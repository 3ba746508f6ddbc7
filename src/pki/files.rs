//! Where Kubernetes' certificates, keys and kubeconfigs lie on a control-plane node.
//!
//! Each component runs as a user of its own and reads its own directory and the public one. A
//! directory is what a static pod mounts, never a file in it: files are replaced by renaming.
//! Paths are relative to `/etc/kubernetes`.
//!
//! | file | owner, mode | what |
//! |---|---|---|
//! | `pki/` | root 0755 | what everybody may read |
//! | `pki/ca.crt` | root 0644 | the cluster authority |
//! | `pki/front-proxy-ca.crt` | root 0644 | the front-proxy authority |
//! | `pki/etcd-ca.crt` | root 0644 | the etcd authority |
//! | `apiserver/` | API server 0700 | |
//! | `apiserver/tls.crt`, `tls.key` | API server 0644, 0600 | the API server towards its clients |
//! | `apiserver/kubelet-client.crt`, `.key` | API server 0644, 0600 | the API server towards kubelets |
//! | `apiserver/front-proxy-client.crt`, `.key` | API server 0644, 0600 | the API server towards aggregated ones |
//! | `apiserver/etcd-client.crt`, `.key` | API server 0644, 0600 | the API server towards etcd |
//! | `apiserver/encryption.yaml` | API server 0600 | encrypts what etcd stores |
//! | `apiserver/sa.key` | API server 0600 | signs service-account tokens |
//! | `apiserver/sa.pub` | API server 0644 | verify them: the signing one first |
//! | `controller-manager/` | controller-manager 0700 | |
//! | `controller-manager/ca.key` | controller-manager 0600 | the cluster authority's key, for CSRs |
//! | `controller-manager/sa.key` | controller-manager 0600 | the same as the API server's |
//! | `controller-manager/client.crt`, `.key` | controller-manager 0644, 0600 | its client certificate |
//! | `controller-manager/kubeconfig` | controller-manager 0600 | names the two beside it |
//! | `scheduler/` | scheduler 0700 | |
//! | `scheduler/client.crt`, `.key` | scheduler 0644, 0600 | its client certificate |
//! | `scheduler/kubeconfig` | scheduler 0600 | names the two beside it |
//! | `admin.conf` | root 0600 | the administrator on this node, all in one |
//! | `kubelet.conf` | root 0600 | this node's kubelet, all in one |
//!
//! The kubeconfigs of the controller-manager and the scheduler name files, because client-go reads
//! such files again when they change, and never what a kubeconfig embeds (`ReloadTLSFiles` in
//! client-go's `transport`): their certificates are renewed without a restart. The names are
//! relative, which client-go takes from the kubeconfig's own directory, wherever that is mounted.

use std::path::{Path, PathBuf};

use crate::kubernetes::Owner;

/// The components' users, each with a group of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    /// kube-apiserver's.
    pub api_server: u32,
    /// kube-controller-manager's.
    pub controller_manager: u32,
    /// kube-scheduler's.
    pub scheduler: u32,
}

impl Default for Owners {
    /// The numbers that quorate's static pods run as.
    fn default() -> Self {
        Self {
            api_server: Owner::ApiServer.id(),
            controller_manager: Owner::ControllerManager.id(),
            scheduler: Owner::Scheduler.id(),
        }
    }
}

impl Owners {
    /// The user's number.
    pub fn id(&self, owner: Owner) -> u32 {
        match owner {
            Owner::Root => 0,
            Owner::ApiServer => self.api_server,
            Owner::ControllerManager => self.controller_manager,
            Owner::Scheduler => self.scheduler,
        }
    }
}

/// A directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterDir {
    /// Its path below `/etc/kubernetes`; empty for that itself.
    pub path: &'static str,
    /// Whose it is, and all in it.
    pub owner: Owner,
    /// Its permissions.
    pub mode: u32,
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterFile {
    /// The directory that it lies in.
    pub dir: ClusterDir,
    /// Its name.
    pub name: &'static str,
    /// Its permissions.
    pub mode: u32,
}

impl ClusterFile {
    /// Its path, given that of `/etc/kubernetes`.
    pub fn path(&self, kubernetes: &Path) -> PathBuf {
        kubernetes.join(self.dir.path).join(self.name)
    }
}

const fn public(dir: ClusterDir, name: &'static str) -> ClusterFile {
    ClusterFile { dir, name, mode: 0o644 }
}

const fn private(dir: ClusterDir, name: &'static str) -> ClusterFile {
    ClusterFile { dir, name, mode: 0o600 }
}

/// What everybody may read.
pub const PKI: ClusterDir = ClusterDir { path: "pki", owner: Owner::Root, mode: 0o755 };
/// The API server's own.
pub const API_SERVER: ClusterDir = ClusterDir { path: "apiserver", owner: Owner::ApiServer, mode: 0o700 };
/// The controller-manager's own.
pub const CONTROLLER_MANAGER: ClusterDir =
    ClusterDir { path: "controller-manager", owner: Owner::ControllerManager, mode: 0o700 };
/// The scheduler's own.
pub const SCHEDULER: ClusterDir = ClusterDir { path: "scheduler", owner: Owner::Scheduler, mode: 0o700 };
/// `/etc/kubernetes` itself.
pub const KUBERNETES: ClusterDir = ClusterDir { path: "", owner: Owner::Root, mode: 0o755 };

/// All directories, in the order in which they are written.
pub const DIRS: [ClusterDir; 5] = [KUBERNETES, PKI, API_SERVER, CONTROLLER_MANAGER, SCHEDULER];

/// The cluster authority.
pub const CA: ClusterFile = public(PKI, "ca.crt");
/// The front-proxy authority.
pub const FRONT_PROXY_CA: ClusterFile = public(PKI, "front-proxy-ca.crt");
/// The etcd authority.
pub const ETCD_CA: ClusterFile = public(PKI, "etcd-ca.crt");
/// The API server towards its clients.
pub const TLS: ClusterFile = public(API_SERVER, "tls.crt");
/// Its key.
pub const TLS_KEY: ClusterFile = private(API_SERVER, "tls.key");
/// The API server towards kubelets.
pub const KUBELET_CLIENT: ClusterFile = public(API_SERVER, "kubelet-client.crt");
/// Its key.
pub const KUBELET_CLIENT_KEY: ClusterFile = private(API_SERVER, "kubelet-client.key");
/// The API server towards aggregated API servers.
pub const FRONT_PROXY_CLIENT: ClusterFile = public(API_SERVER, "front-proxy-client.crt");
/// Its key.
pub const FRONT_PROXY_CLIENT_KEY: ClusterFile = private(API_SERVER, "front-proxy-client.key");
/// The API server towards etcd.
pub const ETCD_CLIENT: ClusterFile = public(API_SERVER, "etcd-client.crt");
/// Its key.
pub const ETCD_CLIENT_KEY: ClusterFile = private(API_SERVER, "etcd-client.key");
/// Signs service-account tokens, for the API server.
pub const SERVICE_ACCOUNT_KEY: ClusterFile = private(API_SERVER, "sa.key");
/// What the API server encrypts, and by which keys.
pub const ENCRYPTION: ClusterFile = private(API_SERVER, "encryption.yaml");
/// Verify service-account tokens: several public keys in one file, the signing one first.
pub const SERVICE_ACCOUNT_PUBLIC: ClusterFile = public(API_SERVER, "sa.pub");
/// The cluster authority's key, with which the controller-manager signs requests.
pub const CA_KEY: ClusterFile = private(CONTROLLER_MANAGER, "ca.key");
/// Signs service-account tokens, for the controller-manager.
pub const CONTROLLER_SERVICE_ACCOUNT_KEY: ClusterFile = private(CONTROLLER_MANAGER, "sa.key");
/// The controller-manager towards the API.
pub const CONTROLLER_CLIENT: ClusterFile = public(CONTROLLER_MANAGER, "client.crt");
/// Its key.
pub const CONTROLLER_CLIENT_KEY: ClusterFile = private(CONTROLLER_MANAGER, "client.key");
/// The controller-manager's kubeconfig.
pub const CONTROLLER_KUBECONFIG: ClusterFile = private(CONTROLLER_MANAGER, "kubeconfig");
/// The scheduler towards the API.
pub const SCHEDULER_CLIENT: ClusterFile = public(SCHEDULER, "client.crt");
/// Its key.
pub const SCHEDULER_CLIENT_KEY: ClusterFile = private(SCHEDULER, "client.key");
/// The scheduler's kubeconfig.
pub const SCHEDULER_KUBECONFIG: ClusterFile = private(SCHEDULER, "kubeconfig");
/// The kubeconfig of the administrator on this node.
pub const ADMIN_KUBECONFIG: ClusterFile = private(KUBERNETES, "admin.conf");
/// The kubeconfig of this node's kubelet.
pub const KUBELET_KUBECONFIG: ClusterFile = private(KUBERNETES, "kubelet.conf");

/// All files.
pub const FILES: [ClusterFile; 24] = [
    CA,
    FRONT_PROXY_CA,
    ETCD_CA,
    TLS,
    TLS_KEY,
    KUBELET_CLIENT,
    KUBELET_CLIENT_KEY,
    FRONT_PROXY_CLIENT,
    FRONT_PROXY_CLIENT_KEY,
    ETCD_CLIENT,
    ETCD_CLIENT_KEY,
    ENCRYPTION,
    SERVICE_ACCOUNT_KEY,
    SERVICE_ACCOUNT_PUBLIC,
    CA_KEY,
    CONTROLLER_SERVICE_ACCOUNT_KEY,
    CONTROLLER_CLIENT,
    CONTROLLER_CLIENT_KEY,
    CONTROLLER_KUBECONFIG,
    SCHEDULER_CLIENT,
    SCHEDULER_CLIENT_KEY,
    SCHEDULER_KUBECONFIG,
    ADMIN_KUBECONFIG,
    KUBELET_KUBECONFIG,
];
