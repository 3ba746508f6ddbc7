//! Where a node's Kubernetes files lie, whom they belong to and what may be read by others.
//!
//! What is no secret and read by several lies in `pki/`. Everything else has one directory a component, owned by the
//! component's user and closed to everybody else, and a component's container sees that directory and the public one.
//! So the scheduler can read no CA key and the controller-manager no encryption key, whatever goes wrong in them. The
//! price is that the service accounts' key lies there twice. Directories are mounted and not files, since a mounted
//! file stays the old one when it is replaced by a rename, and certificates are re-read while the program runs.
//!
//! Keys, certificates and kubeconfigs are written as [`crate::pki::files`] has them; a test holds the two together.
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

/// `/etc/kubernetes` itself.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// What every program of the control plane may read.
pub const PUBLIC_DIRECTORY: &str = "/etc/kubernetes/pki";
/// The cluster's CA certificate.
pub const CA: &str = "/etc/kubernetes/pki/ca.crt";
/// The front proxy's CA certificate.
pub const FRONT_PROXY_CA: &str = "/etc/kubernetes/pki/front-proxy-ca.crt";
/// etcd's CA certificate.
pub const ETCD_CA: &str = "/etc/kubernetes/pki/etcd-ca.crt";
/// The kubelet's kubeconfig; kube-proxy's too.
pub const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The administrator's kubeconfig on this machine.
pub const ADMIN_KUBECONFIG: &str = "/etc/kubernetes/admin.conf";
/// The kubeconfig that a worker's kubelet joins with: it holds a bootstrap token.
pub const BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// A worker's kube-proxy's kubeconfig.
pub const KUBE_PROXY_KUBECONFIG: &str = "/etc/kubernetes/kube-proxy.conf";
/// The directory of all keys and certificates that the kubelet keeps.
pub const KUBELET_PKI: &str = "/var/lib/kubelet/pki";
/// The client certificate that the kubelet renews, and its key, in one file: a link that the kubelet keeps.
pub const KUBELET_ROTATING_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The directory of the operator's part of the kubelet's configuration.
pub const KUBELET_DROP_INS: &str = "/etc/quorate/kubelet.d";
/// Where the kubelet gets credentials for images from.
pub const IMAGE_CREDENTIAL_PROVIDERS: &str = "/etc/kubernetes/image-credential-providers.yaml";
/// The program that has them from ECR.
pub const ECR_CREDENTIAL_PROVIDER: &str = "ecr-credential-provider";
/// How long logind lets programs hold a shutdown back.
pub const LOGIND: &str = "/etc/systemd/logind.conf.d/50-quorate.conf";
/// What a worker was told of its cluster.
pub const TOLD: &str = "/var/lib/quorate/join.json";
/// The kubelet's configuration.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// kube-proxy's configuration.
pub const KUBE_PROXY_CONFIG: &str = "/etc/kubernetes/kube-proxy.yaml";

/// All that the API server reads.
pub const API_SERVER_DIRECTORY: &str = "/etc/kubernetes/apiserver";
/// The API server's serving certificate.
pub const API_SERVER_CERTIFICATE: &str = "/etc/kubernetes/apiserver/tls.crt";
/// Its key.
pub const API_SERVER_KEY: &str = "/etc/kubernetes/apiserver/tls.key";
/// The certificate that the API server shows to kubelets.
pub const KUBELET_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/apiserver/kubelet-client.crt";
/// Its key.
pub const KUBELET_CLIENT_KEY: &str = "/etc/kubernetes/apiserver/kubelet-client.key";
/// The certificate that the API server shows to extension API servers.
pub const FRONT_PROXY_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/apiserver/front-proxy-client.crt";
/// Its key.
pub const FRONT_PROXY_CLIENT_KEY: &str = "/etc/kubernetes/apiserver/front-proxy-client.key";
/// The service accounts' public key, for the API server.
pub const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "/etc/kubernetes/apiserver/sa.pub";
/// The service accounts' private key, for the API server.
pub const SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/apiserver/sa.key";
/// The certificate that the API server shows to etcd.
pub const ETCD_CLIENT_CERTIFICATE: &str = "/etc/kubernetes/apiserver/etcd-client.crt";
/// Its key.
pub const ETCD_CLIENT_KEY: &str = "/etc/kubernetes/apiserver/etcd-client.key";
/// What the API server encrypts, and by which key.
pub const ENCRYPTION: &str = "/etc/kubernetes/apiserver/encryption.yaml";
/// What the API server writes down of what is asked of it.
pub const AUDIT_POLICY: &str = "/etc/kubernetes/apiserver/audit-policy.yaml";
/// Who may come without showing who he is.
pub const AUTHENTICATION: &str = "/etc/kubernetes/apiserver/authentication.yaml";

/// The directory of the audit log: the only one that a component may write to.
pub const AUDIT_DIRECTORY: &str = "/var/log/kubernetes/audit";
/// The audit log.
pub const AUDIT_LOG: &str = "/var/log/kubernetes/audit/audit.log";

/// All that the controller-manager reads.
pub const CONTROLLER_MANAGER_DIRECTORY: &str = "/etc/kubernetes/controller-manager";
/// The cluster's CA key, for the controller-manager, which signs nodes' certificates.
pub const CONTROLLER_MANAGER_CA_KEY: &str = "/etc/kubernetes/controller-manager/ca.key";
/// The service accounts' private key, for the controller-manager.
pub const CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/controller-manager/sa.key";
/// The controller-manager's kubeconfig.
pub const CONTROLLER_MANAGER_KUBECONFIG: &str = "/etc/kubernetes/controller-manager/kubeconfig";

/// All that the scheduler reads.
pub const SCHEDULER_DIRECTORY: &str = "/etc/kubernetes/scheduler";
/// The scheduler's kubeconfig.
pub const SCHEDULER_KUBECONFIG: &str = "/etc/kubernetes/scheduler/kubeconfig";
/// The scheduler's configuration.
pub const SCHEDULER_CONFIG: &str = "/etc/kubernetes/scheduler/scheduler.yaml";

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

/// The directories that have to be there before a control-plane node's files are, each after the one that it lies in.
pub const DIRECTORIES: [Place; 10] = [
    place(KUBERNETES, 0o755, Owner::Root),
    place(MANIFESTS, 0o755, Owner::Root),
    place(PUBLIC_DIRECTORY, 0o755, Owner::Root),
    place(API_SERVER_DIRECTORY, 0o700, Owner::ApiServer),
    place(CONTROLLER_MANAGER_DIRECTORY, 0o700, Owner::ControllerManager),
    place(SCHEDULER_DIRECTORY, 0o700, Owner::Scheduler),
    place("/var/lib/kubelet", 0o700, Owner::Root),
    place("/var/log/kubernetes", 0o755, Owner::Root),
    place(AUDIT_DIRECTORY, 0o700, Owner::ApiServer),
    place("/etc/systemd/logind.conf.d", 0o755, Owner::Root),
];

/// The directories that have to be there before a worker's files are.
pub const WORKER_DIRECTORIES: [Place; 5] = [
    place(KUBERNETES, 0o755, Owner::Root),
    place(PUBLIC_DIRECTORY, 0o755, Owner::Root),
    place("/var/lib/kubelet", 0o700, Owner::Root),
    place("/etc/systemd/logind.conf.d", 0o755, Owner::Root),
    place("/var/lib/quorate", 0o755, Owner::Root),
];

/// The files that [`control_plane`](super::control_plane) renders, beside the manifests, in order; that of the image
/// credential providers only where one is there.
pub const RENDERED: [&str; 7] = [
    AUDIT_POLICY,
    AUTHENTICATION,
    IMAGE_CREDENTIAL_PROVIDERS,
    KUBE_PROXY_CONFIG,
    SCHEDULER_CONFIG,
    LOGIND,
    KUBELET_CONFIG,
];

/// The files that [`worker`](super::worker) renders, in order; that of the image credential providers only where one
/// is there.
pub const WORKER_RENDERED: [&str; 6] =
    [IMAGE_CREDENTIAL_PROVIDERS, KUBE_PROXY_KUBECONFIG, KUBE_PROXY_CONFIG, CA, LOGIND, KUBELET_CONFIG];
