//! Where a control-plane node's Kubernetes files lie, whom they belong to and what may be read by others.
//!
//! One directory a component: it is owned by the component's user, closed to everybody else, and it is the only
//! directory of `/etc/kubernetes` that the component's container sees. So the scheduler can read no CA key and the
//! controller-manager no encryption key, whatever goes wrong in them. The price is that the cluster's CA
//! certificate and the service accounts' key lie there more than once; whoever writes them writes all copies.
//! Directories are mounted and not files, since a mounted file stays the old one when it is replaced by a rename,
//! and certificates are re-read while the program runs.
//!
//! `/etc/kubernetes/pki/ca.crt`, `admin.conf` and `manifests/` are where people and tools look for them.
//!
//! Paths are those on the machine; whoever touches the disk puts its root before them.

use super::component::Owner;

/// The directory whose manifests the kubelet runs.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// The API server's manifest.
pub const API_SERVER_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// The controller-manager's manifest.
pub const CONTROLLER_MANAGER_MANIFEST: &str = "/etc/kubernetes/manifests/kube-controller-manager.yaml";
/// The scheduler's manifest.
pub const SCHEDULER_MANIFEST: &str = "/etc/kubernetes/manifests/kube-scheduler.yaml";

/// The cluster's CA certificate, for the kubelet and for people.
pub const CA: &str = "/etc/kubernetes/pki/ca.crt";
/// root's kubeconfig on this node.
pub const ADMIN_KUBECONFIG: &str = "/etc/kubernetes/admin.conf";
/// The kubelet's kubeconfig; kube-proxy's too.
pub const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The kubelet's configuration.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// kube-proxy's configuration.
pub const KUBE_PROXY_CONFIG: &str = "/etc/kubernetes/kube-proxy.yaml";

/// All that the API server reads.
pub const API_SERVER_DIRECTORY: &str = "/etc/kubernetes/kube-apiserver";
/// The cluster's CA certificate, for the API server.
pub const API_SERVER_CA: &str = "/etc/kubernetes/kube-apiserver/ca.crt";
/// The API server's serving certificate.
pub const API_SERVER_CERTIFICATE: &str = "/etc/kubernetes/kube-apiserver/apiserver.crt";
/// Its key.
pub const API_SERVER_KEY: &str = "/etc/kubernetes/kube-apiserver/apiserver.key";
/// The certificate that the API server shows to kubelets.
pub const KUBELET_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/kube-apiserver/apiserver-kubelet-client.crt";
/// Its key.
pub const KUBELET_CLIENT_KEY: &str = "/etc/kubernetes/kube-apiserver/apiserver-kubelet-client.key";
/// The front proxy's CA certificate, for the API server.
pub const FRONT_PROXY_CA: &str = "/etc/kubernetes/kube-apiserver/front-proxy-ca.crt";
/// The certificate that the API server shows to extension API servers.
pub const FRONT_PROXY_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/kube-apiserver/front-proxy-client.crt";
/// Its key.
pub const FRONT_PROXY_CLIENT_KEY: &str = "/etc/kubernetes/kube-apiserver/front-proxy-client.key";
/// The service accounts' public key, for the API server.
pub const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "/etc/kubernetes/kube-apiserver/sa.pub";
/// The service accounts' private key, for the API server.
pub const SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/kube-apiserver/sa.key";
/// etcd's CA certificate, for the API server.
pub const ETCD_CA: &str = "/etc/kubernetes/kube-apiserver/etcd/ca.crt";
/// The certificate that the API server shows to etcd.
pub const ETCD_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/kube-apiserver/etcd/client.crt";
/// Its key.
pub const ETCD_CLIENT_KEY: &str = "/etc/kubernetes/kube-apiserver/etcd/client.key";
/// What the API server encrypts, and by which key.
pub const ENCRYPTION: &str = "/etc/kubernetes/kube-apiserver/encryption.yaml";
/// What the API server writes down of what is asked of it.
pub const AUDIT_POLICY: &str = "/etc/kubernetes/kube-apiserver/audit-policy.yaml";
/// Who may come without showing who he is.
pub const AUTHENTICATION: &str = "/etc/kubernetes/kube-apiserver/authentication.yaml";

/// The directory of the audit log: the only one that a component may write to.
pub const AUDIT_DIRECTORY: &str = "/var/log/kubernetes/audit";
/// The audit log.
pub const AUDIT_LOG: &str = "/var/log/kubernetes/audit/audit.log";

/// All that the controller-manager reads.
pub const CONTROLLER_MANAGER_DIRECTORY: &str = "/etc/kubernetes/kube-controller-manager";
/// The cluster's CA certificate, for the controller-manager.
pub const CONTROLLER_MANAGER_CA: &str = "/etc/kubernetes/kube-controller-manager/ca.crt";
/// The cluster's CA key, for the controller-manager, which signs nodes' certificates.
pub const CONTROLLER_MANAGER_CA_KEY: &str = "/etc/kubernetes/kube-controller-manager/ca.key";
/// The front proxy's CA certificate, for the controller-manager.
pub const CONTROLLER_MANAGER_FRONT_PROXY_CA: &str =
    "/etc/kubernetes/kube-controller-manager/front-proxy-ca.crt";
/// The service accounts' private key, for the controller-manager.
pub const CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/kube-controller-manager/sa.key";
/// The controller-manager's kubeconfig.
pub const CONTROLLER_MANAGER_KUBECONFIG: &str =
    "/etc/kubernetes/kube-controller-manager/controller-manager.conf";

/// All that the scheduler reads.
pub const SCHEDULER_DIRECTORY: &str = "/etc/kubernetes/kube-scheduler";
/// The scheduler's kubeconfig.
pub const SCHEDULER_KUBECONFIG: &str = "/etc/kubernetes/kube-scheduler/scheduler.conf";
/// The scheduler's configuration.
pub const SCHEDULER_CONFIG: &str = "/etc/kubernetes/kube-scheduler/scheduler.yaml";

/// A file or directory with its owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The path on the machine.
    pub path: &'static str,
    /// The permission bits.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: Owner,
}

const fn place(path: &'static str, mode: u32, owner: Owner) -> Place {
    Place { path, mode, owner }
}

/// The mode of files for one pair of eyes.
pub const SECRET: u32 = 0o600;
/// The mode of files for everybody who reaches them.
pub const PUBLIC: u32 = 0o644;

/// The directories that have to be there before a manifest is, each after the one that it lies in.
pub const DIRECTORIES: [Place; 10] = [
    place("/etc/kubernetes", 0o755, Owner::Root),
    place(MANIFESTS, 0o755, Owner::Root),
    place("/etc/kubernetes/pki", 0o755, Owner::Root),
    place(API_SERVER_DIRECTORY, 0o700, Owner::ApiServer),
    place("/etc/kubernetes/kube-apiserver/etcd", 0o700, Owner::ApiServer),
    place(CONTROLLER_MANAGER_DIRECTORY, 0o700, Owner::ControllerManager),
    place(SCHEDULER_DIRECTORY, 0o700, Owner::Scheduler),
    place("/var/lib/kubelet", 0o700, Owner::Root),
    place("/var/log/kubernetes", 0o755, Owner::Root),
    place(AUDIT_DIRECTORY, 0o700, Owner::ApiServer),
];

/// The files that are not rendered here but that what is rendered names: certificates, keys, kubeconfigs and the
/// encryption's configuration.
pub const CREDENTIALS: [Place; 23] = [
    place(CA, PUBLIC, Owner::Root),
    place(ADMIN_KUBECONFIG, SECRET, Owner::Root),
    place(KUBELET_KUBECONFIG, SECRET, Owner::Root),
    place(API_SERVER_CA, PUBLIC, Owner::ApiServer),
    place(API_SERVER_CERTIFICATE, PUBLIC, Owner::ApiServer),
    place(API_SERVER_KEY, SECRET, Owner::ApiServer),
    place(KUBELET_CLIENT_CERTIFICATE, PUBLIC, Owner::ApiServer),
    place(KUBELET_CLIENT_KEY, SECRET, Owner::ApiServer),
    place(FRONT_PROXY_CA, PUBLIC, Owner::ApiServer),
    place(FRONT_PROXY_CLIENT_CERTIFICATE, PUBLIC, Owner::ApiServer),
    place(FRONT_PROXY_CLIENT_KEY, SECRET, Owner::ApiServer),
    place(SERVICE_ACCOUNT_PUBLIC_KEY, PUBLIC, Owner::ApiServer),
    place(SERVICE_ACCOUNT_KEY, SECRET, Owner::ApiServer),
    place(ETCD_CA, PUBLIC, Owner::ApiServer),
    place(ETCD_CLIENT_CERTIFICATE, PUBLIC, Owner::ApiServer),
    place(ETCD_CLIENT_KEY, SECRET, Owner::ApiServer),
    place(ENCRYPTION, SECRET, Owner::ApiServer),
    place(CONTROLLER_MANAGER_CA, PUBLIC, Owner::ControllerManager),
    place(CONTROLLER_MANAGER_CA_KEY, SECRET, Owner::ControllerManager),
    place(CONTROLLER_MANAGER_FRONT_PROXY_CA, PUBLIC, Owner::ControllerManager),
    place(CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY, SECRET, Owner::ControllerManager),
    place(CONTROLLER_MANAGER_KUBECONFIG, SECRET, Owner::ControllerManager),
    place(SCHEDULER_KUBECONFIG, SECRET, Owner::Scheduler),
];
