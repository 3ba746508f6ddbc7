//! The flags of the three programs.
//!
//! Each flag that is set here stands in the table of `config::flags`, which keeps operators from setting it a second
//! time; a test holds the two together. Flags are chosen for 1.34 to 1.37, all of which know them; one that only some
//! versions know must be asked of [`super::version`].

use std::fmt::Display;

use super::component::Component;
use super::inputs::ControlPlaneInputs;
use super::paths;
use crate::config::settings::TlsMinVersion;

/// A program's flags, `--name=value` each: quorate's, then the operator's.
pub fn flags(inputs: &ControlPlaneInputs, component: Component) -> Vec<String> {
    let mut flags = own_flags(inputs, component);
    let settings = &inputs.node.settings;
    match component {
        Component::ApiServer => flags.extend(texts(&settings.api_server.additions.extra_args)),
        Component::ControllerManager => {
            flags.extend(texts(&settings.controller_manager.additions.extra_args));
        }
        Component::Scheduler => flags.extend(texts(&settings.scheduler.additions.extra_args)),
    }
    flags
}

fn texts<T: Display>(arguments: &[T]) -> impl Iterator<Item = String> {
    arguments.iter().map(ToString::to_string)
}

/// The flags that quorate sets itself.
pub(super) fn own_flags(inputs: &ControlPlaneInputs, component: Component) -> Vec<String> {
    let flags = match component {
        Component::ApiServer => api_server(inputs),
        Component::ControllerManager => controller_manager(inputs),
        Component::Scheduler => scheduler(inputs),
    };
    flags.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

type Flag = (&'static str, String);

/// The suites of TLS 1.2 with forward secrecy and authenticated encryption. 1.3 has no others.
///
/// 1.2 is spoken for load balancers: a target of an HTTPS health check that only speaks 1.3 fails it.
/// Source: "Health checks for Network Load Balancer target groups", user guide.
const TLS12_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// How long watches may take to end after the API server's shutdown delay. Without it they are not asked to, and the
/// API server waits for them until its request time-out is over: a minute in which the machine's own components
/// have no API server, and nobody is served.
const WATCHES_END: &str = "10s";

fn api_server(inputs: &ControlPlaneInputs) -> Vec<Flag> {
    let settings = &inputs.node.settings;
    let own = &settings.api_server;
    let address = inputs.node.address;
    let mut flags: Vec<Flag> = vec![
        ("advertise-address", address.to_string()),
        ("allow-privileged", text("true")),
        ("audit-log-maxage", own.audit_log.max_age.to_string()),
        ("audit-log-maxbackup", own.audit_log.max_backups.to_string()),
        ("audit-log-maxsize", own.audit_log.max_size.to_string()),
        ("audit-log-path", text(paths::AUDIT_LOG)),
        ("audit-policy-file", text(paths::AUDIT_POLICY)),
        ("authentication-config", text(paths::AUTHENTICATION)),
        ("authorization-mode", text("Node,RBAC")),
    ];
    if address.is_loopback() {
        // Endpoints of a service can't be loopback addresses: the API server would try for ever.
        flags.push(("bind-address", address.to_string()));
        flags.push(("endpoint-reconciler-type", text("none")));
    }
    flags.extend([
        ("client-ca-file", text(paths::CA)),
        ("enable-admission-plugins", text("NodeRestriction")),
        ("enable-bootstrap-token-auth", text("true")),
        ("encryption-provider-config", text(paths::ENCRYPTION)),
        ("etcd-cafile", text(paths::ETCD_CA)),
        ("etcd-certfile", text(paths::ETCD_CLIENT_CERTIFICATE)),
        ("etcd-keyfile", text(paths::ETCD_CLIENT_KEY)),
        ("etcd-servers", inputs.etcd_endpoints.join(",")),
        ("goaway-chance", own.goaway_chance.to_string()),
        // Kubelets have their serving certificates from the cluster's CA.
        ("kubelet-certificate-authority", text(paths::CA)),
        ("kubelet-client-certificate", text(paths::KUBELET_CLIENT_CERTIFICATE)),
        ("kubelet-client-key", text(paths::KUBELET_CLIENT_KEY)),
        ("kubelet-preferred-address-types", text("InternalIP,ExternalIP,Hostname")),
        ("profiling", text("false")),
        ("proxy-client-cert-file", text(paths::FRONT_PROXY_CLIENT_CERTIFICATE)),
        ("proxy-client-key-file", text(paths::FRONT_PROXY_CLIENT_KEY)),
        ("requestheader-allowed-names", text("front-proxy-client")),
        ("requestheader-client-ca-file", text(paths::FRONT_PROXY_CA)),
        ("requestheader-extra-headers-prefix", text("X-Remote-Extra-")),
        ("requestheader-group-headers", text("X-Remote-Group")),
        ("requestheader-username-headers", text("X-Remote-User")),
        ("secure-port", Component::ApiServer.port().to_string()),
        ("service-account-issuer", inputs.issuer()),
        ("service-account-key-file", text(paths::SERVICE_ACCOUNT_PUBLIC_KEY)),
        ("service-account-signing-key-file", text(paths::SERVICE_ACCOUNT_KEY)),
        ("service-cluster-ip-range", settings.service_subnet.to_string()),
        ("shutdown-delay-duration", own.shutdown_delay.to_string()),
        ("shutdown-watch-termination-grace-period", text(WATCHES_END)),
        ("tls-cert-file", text(paths::API_SERVER_CERTIFICATE)),
    ]);
    if own.tls_min_version == TlsMinVersion::Tls12 {
        flags.push(("tls-cipher-suites", TLS12_SUITES.join(",")));
    }
    flags.extend([
        ("tls-min-version", own.tls_min_version.as_str().to_owned()),
        ("tls-private-key-file", text(paths::API_SERVER_KEY)),
    ]);
    flags
}

fn controller_manager(inputs: &ControlPlaneInputs) -> Vec<Flag> {
    let settings = &inputs.node.settings;
    let mut flags: Vec<Flag> = Vec::new();
    if settings.pod_subnet.is_some() {
        flags.push(("allocate-node-cidrs", text("true")));
    }
    flags.extend([
        ("authentication-kubeconfig", text(paths::CONTROLLER_MANAGER_KUBECONFIG)),
        ("authorization-kubeconfig", text(paths::CONTROLLER_MANAGER_KUBECONFIG)),
        ("bind-address", inputs.loopback().to_string()),
        ("client-ca-file", text(paths::CA)),
    ]);
    if let Some(pods) = settings.pod_subnet {
        flags.push(("cluster-cidr", pods.to_string()));
    }
    flags.extend([
        ("cluster-name", inputs.node.cluster.to_string()),
        ("cluster-signing-cert-file", text(paths::CA)),
        ("cluster-signing-key-file", text(paths::CONTROLLER_MANAGER_CA_KEY)),
        // Nodes' certificates are approved by who has compared them with what EC2 says of the node.
        (
            "controllers",
            text(
                "*,bootstrap-signer-controller,token-cleaner-controller,\
                 -certificatesigningrequest-approving-controller",
            ),
        ),
        ("kubeconfig", text(paths::CONTROLLER_MANAGER_KUBECONFIG)),
    ]);
    flags.extend(leader_election(inputs));
    flags.extend([
        ("profiling", text("false")),
        ("requestheader-client-ca-file", text(paths::FRONT_PROXY_CA)),
        ("root-ca-file", text(paths::CA)),
        ("secure-port", Component::ControllerManager.port().to_string()),
        ("service-account-private-key-file", text(paths::CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY)),
    ]);
    if settings.pod_subnet.is_some() {
        // So that no node is given a part of the services' range.
        flags.push(("service-cluster-ip-range", settings.service_subnet.to_string()));
    }
    flags.extend([
        ("tls-min-version", text("VersionTLS13")),
        ("use-service-account-credentials", text("true")),
    ]);
    flags
}

/// `--kubeconfig` and `--profiling` are deprecated and ignored beside a configuration, where both stand.
fn scheduler(inputs: &ControlPlaneInputs) -> Vec<Flag> {
    let mut flags: Vec<Flag> = vec![
        ("authentication-kubeconfig", text(paths::SCHEDULER_KUBECONFIG)),
        ("authorization-kubeconfig", text(paths::SCHEDULER_KUBECONFIG)),
        ("bind-address", inputs.loopback().to_string()),
        ("config", text(paths::SCHEDULER_CONFIG)),
    ];
    flags.extend(leader_election(inputs));
    flags.extend([
        ("secure-port", Component::Scheduler.port().to_string()),
        ("tls-min-version", text("VersionTLS13")),
    ]);
    flags
}

fn leader_election(inputs: &ControlPlaneInputs) -> [Flag; 5] {
    let election = inputs.node.settings.leader_election;
    [
        ("leader-elect", text("true")),
        ("leader-elect-lease-duration", election.lease_duration.to_string()),
        ("leader-elect-renew-deadline", election.renew_deadline.to_string()),
        ("leader-elect-resource-lock", text("leases")),
        ("leader-elect-retry-period", election.retry_period.to_string()),
    ]
}

fn text(value: &str) -> String {
    value.to_owned()
}
