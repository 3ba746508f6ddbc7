//! The value types of the keys below `kubernetes`: networks, names, images and the operator's additions.
//!
//! What a program's flags are for, and which of them quorate sets itself, is in `config::flags`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::flags::ControllerManagerArgument;
use super::units::text_serde;
use super::values::{InvalidValue, choice, is_absolute, text_value};
use crate::kubernetes::version::{InvalidVersion, KubernetesVersion};

impl From<InvalidVersion> for InvalidValue {
    fn from(_: InvalidVersion) -> Self {
        const { assert!(KubernetesVersion::OLDEST_MINOR == 34 && KubernetesVersion::NEWEST_MINOR == 37) };
        Self { rule: "a version of Kubernetes from 1.34 to 1.37, like `v1.36.2`" }
    }
}

choice!(
    /// How the control plane's own programs reach the API.
    ComponentEndpoint {
        /// By the API server on the same machine.
        Local = "local",
        /// By the load balancer.
        LoadBalancer = "load-balancer",
    }
);

choice!(
    /// What a control-plane node runs beside etcd.
    ControlPlaneKind {
        /// Kubernetes' API server, controller-manager and scheduler, as static pods.
        StaticPods = "static-pods",
        /// Nothing: the cluster is an etcd cluster.
        None = "none",
    }
);

choice!(
    /// The oldest TLS that the API server speaks.
    TlsMinVersion {
        /// TLS 1.2, with forward secrecy and authenticated encryption only, and 1.3.
        Tls12 = "VersionTLS12",
        /// TLS 1.3 alone.
        Tls13 = "VersionTLS13",
    }
);

text_value!(
    /// What stands before a program's name in its image's.
    ImageRepository,
    "a registry's host, with a port and a path or without, like `registry.k8s.io`",
    is_repository
);
text_value!(
    /// An image with a tag or a digest.
    ImageName,
    "an image with a tag or a digest",
    is_image
);
text_value!(
    /// The domain of the cluster's services.
    ClusterDomain,
    "a domain in lower case without a dot at either end, like `cluster.local`",
    is_domain
);
text_value!(
    /// Who issues service accounts' tokens.
    IssuerUrl,
    "an https URL without query and fragment, like `https://oidc.example.com/demo`",
    is_issuer
);
text_value!(
    /// The name of an add-on: its file's, without `.yaml`.
    AddonName,
    "a name of at most 63 lower-case letters, digits and dashes, no dash at either end, like `coredns`",
    is_label
);
text_value!(
    /// A name or an address that a certificate is good for.
    SubjectName,
    "a DNS name in lower case, which may begin with `*.`, or an IP address",
    is_subject
);
text_value!(
    /// `NAME=value` in a program's environment.
    EnvVar,
    "`NAME=value` in printable ASCII, the name of letters, digits and `_`",
    is_env
);
text_value!(
    /// A directory or file of the machine in a component's container: `FROM:TO`, or `FROM:TO:rw` where it may be
    /// written.
    ExtraVolume,
    "`FROM:TO` or `FROM:TO:rw`, both absolute paths, the second not in /etc/kubernetes and /var/log/kubernetes",
    is_volume
);
text_value!(
    /// A whole configuration of the scheduler.
    SchedulerDocument,
    "a KubeSchedulerConfiguration of `kubescheduler.config.k8s.io/v1` in YAML, without `leaderElection` and \
     `clientConnection.kubeconfig`, which quorate sets",
    is_scheduler_configuration
);

impl SubjectName {
    /// The address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.as_str().parse().ok()
    }
}

/// The name in `NAME=value`.
pub(super) fn env_name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

/// The path in the container in `FROM:TO`.
pub(super) fn mount(volume: &str) -> &str {
    volume.split(':').nth(1).unwrap_or(volume)
}

impl EnvVar {
    /// Name and value.
    pub fn parts(&self) -> (&str, &str) {
        self.as_str().split_once('=').unwrap_or((self.as_str(), ""))
    }
}

impl ExtraVolume {
    /// The path on the machine, the path in the container, and whether it may be written.
    pub fn parts(&self) -> (&str, &str, bool) {
        volume_parts(self.as_str()).unwrap_or((self.as_str(), self.as_str(), false))
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

pub(super) fn is_domain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_subject(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (is_domain(name.strip_prefix("*.").unwrap_or(name)) && !looks_like_address(name))
}

/// A name of digits and dots was meant to be an address.
fn looks_like_address(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn is_host_and_port(authority: &str) -> bool {
    match authority.split_once(':') {
        Some((host, port)) => is_domain(host) && is_port(port),
        None => is_domain(authority),
    }
}

fn is_port(port: &str) -> bool {
    !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_repository(repository: &str) -> bool {
    let mut parts = repository.split('/');
    repository.len() <= 255
        && parts.next().is_some_and(is_host_and_port)
        && parts.all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        })
}

fn is_image(image: &str) -> bool {
    let tagged = |name: &str| {
        let (_, last) = name.rsplit_once('/').unwrap_or(("", name));
        last.split_once(':').is_some_and(|(name, tag)| !name.is_empty() && is_tag(tag))
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let shaped = image.len() <= 512
        && image.bytes().all(plain)
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !image.contains("//");
    match image.split_once('@') {
        Some((name, digest)) => {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            shaped && !name.is_empty() && !name.ends_with('/') && hex.len() == 64 && hex.bytes().all(digits)
        }
        None => shaped && tagged(image),
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !tag.starts_with(['.', '-'])
}

fn is_issuer(url: &str) -> bool {
    let graphic = |b: u8| b.is_ascii_graphic() && !b"?#\"'\\,".contains(&b);
    url.len() <= 1024
        && url.bytes().all(graphic)
        && url.strip_prefix("https://").is_some_and(|rest| {
            let authority = rest.split('/').next().unwrap_or_default();
            is_host_and_port(authority)
        })
}

fn is_env(entry: &str) -> bool {
    entry.len() <= 4096
        && entry.split_once('=').is_some_and(|(name, value)| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && value.bytes().all(|b| (b' '..=b'~').contains(&b))
        })
}

fn volume_parts(volume: &str) -> Option<(&str, &str, bool)> {
    let mut parts = volume.split(':');
    let (from, to) = (parts.next()?, parts.next()?);
    let writable = match (parts.next(), parts.next()) {
        (None, _) => false,
        (Some("rw"), None) => true,
        (Some(_), _) => return None,
    };
    Some((from, to, writable))
}

fn is_volume(volume: &str) -> bool {
    let owned = |to: &str| {
        ["/etc/kubernetes", "/var/log/kubernetes"].iter().any(|owned| {
            let below = |path: &str, of: &str| {
                path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            below(to, owned) || below(owned, to)
        })
    };
    volume_parts(volume).is_some_and(|(from, to, _)| is_absolute(from) && is_absolute(to) && !owned(to))
}

fn is_scheduler_configuration(text: &str) -> bool {
    let Ok(document) = serde_saphyr::from_str::<serde_json::Value>(text) else { return false };
    document["apiVersion"] == "kubescheduler.config.k8s.io/v1"
        && document["kind"] == "KubeSchedulerConfiguration"
        && document["leaderElection"].is_null()
        && (document["clientConnection"].is_null() || document["clientConnection"].is_object())
        && document["clientConnection"]["kubeconfig"].is_null()
}

/// A range of IPv4 addresses: `10.96.0.0/12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    first: u32,
    length: u8,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let first = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let length: u8 = length.parse().ok().filter(|bits: &u8| bits.to_string() == length)?;
        let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        (length <= 32 && first & hosts == 0).then_some(Self { first, length })
    }

    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    /// The address that so many others precede: the network's own is number 0.
    pub fn nth(self, number: u32) -> Option<Ipv4Addr> {
        let address = self.first.checked_add(number)?;
        (address <= self.last()).then(|| address.into())
    }

    /// How many bits of an address are the same in the whole range.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.length)
    }
}

macro_rules! subnet {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $lengths:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Subnet);

        impl $name {
            /// The range.
            pub fn range(self) -> Subnet {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let fits = |subnet: &Subnet| $lengths.contains(&subnet.length);
                Subnet::parse(text).filter(fits).map(Self).ok_or(InvalidValue { rule: $rule })
            }
        }

        text_serde!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

subnet!(
    /// The services' addresses. The API server takes no range larger than /12, and the tenth is the DNS server's.
    ServiceSubnet,
    "a range of IPv4 addresses from /12 to /28 that begins at its first address, like `10.96.0.0/12`",
    (12..=28)
);
subnet!(
    /// The pods' addresses, of which each node gets a /24.
    PodSubnet,
    "a range of IPv4 addresses from /8 to /24 that begins at its first address, like `10.244.0.0/16`",
    (8..=24)
);

/// How long the prefix of a node's own part of the pods' addresses is: the controller-manager's default, or what the
/// operator has it take.
pub(crate) fn node_range_length(arguments: &[ControllerManagerArgument]) -> u8 {
    const FLAGS: [&str; 2] = ["--node-cidr-mask-size=", "--node-cidr-mask-size-ipv4="];
    let set = arguments.iter().find_map(|argument| {
        FLAGS.iter().find_map(|flag| argument.as_str().strip_prefix(flag)?.parse::<u8>().ok())
    });
    set.filter(|length| *length <= 32).unwrap_or(24)
}

/// How many pods a node's own range has addresses for: all but the range's first and last and the bridge's.
pub(crate) fn pods_of_a_range(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0).saturating_sub(2)
}

impl ServiceSubnet {
    /// The address of the API's own service, which every API server's certificate names.
    pub fn api(self) -> Ipv4Addr {
        // The shortest range has sixteen addresses.
        self.0.nth(1).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The address of the cluster's DNS server, by kubeadm's custom.
    pub fn dns(self) -> Ipv4Addr {
        self.0.nth(10).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}

/// Where the cluster's API is reached from outside: a load balancer's name or address, and its port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiEndpoint {
    host: String,
    port: u16,
}

impl ApiEndpoint {
    /// The port when none is given.
    pub const PORT: u16 = 6443;

    /// An endpoint; refuses a host that is neither a DNS name in lower case nor an IPv4 address.
    pub fn new(host: &str, port: u16) -> Result<Self, InvalidValue> {
        format!("{host}:{port}").parse()
    }

    /// The DNS name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https://host:port`.
    pub fn url(&self) -> String {
        format!("https://{self}")
    }
}

impl FromStr for ApiEndpoint {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => {
                (host, Some(port).filter(|port| is_port(port)).and_then(|p| p.parse().ok()))
            }
            None => (text, Some(Self::PORT)),
        };
        let fine = host.parse::<Ipv4Addr>().is_ok() || (is_domain(host) && !looks_like_address(host));
        match port {
            Some(port) if fine => Ok(Self { host: host.to_owned(), port }),
            Some(_) | None => Err(InvalidValue {
                rule: "a DNS name in lower case or an IPv4 address, with a port or without, like \
                       `api.example.com:6443`",
            }),
        }
    }
}

text_serde!(ApiEndpoint);

/// `host:port`.
impl fmt::Display for ApiEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(text.parse::<T>().ok().map(|v| v.to_string()).as_deref(), Some(*text));
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn subnets_begin_at_their_first_address() {
        accepts::<ServiceSubnet>(
            &["10.96.0.0/12", "172.20.0.0/16", "10.0.0.16/28"],
            &[
                "",
                "10.96.0.0",
                "10.96.0.1/12",
                "10.0.0.0/8",
                "10.0.0.0/29",
                "10.0.0.0/016",
                "fd00::/108",
                "10.0.0.0/33",
            ],
        );
        accepts::<PodSubnet>(
            &["10.244.0.0/16", "10.0.0.0/8"],
            &["10.0.0.0/25", "0.0.0.0/0", "10.244.1.0/16"],
        );
        let services: ServiceSubnet = "10.96.0.0/12".parse().unwrap();
        assert_eq!(services.api(), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(services.dns(), Ipv4Addr::new(10, 96, 0, 10));
    }

    #[test]
    fn subnets_overlap_when_one_address_is_in_both() {
        let subnet = |text| Subnet::parse(text).unwrap();
        assert!(subnet("10.96.0.0/12").overlaps(subnet("10.100.0.0/16")));
        assert!(subnet("10.100.0.0/16").overlaps(subnet("10.96.0.0/12")));
        assert!(!subnet("10.96.0.0/12").overlaps(subnet("10.112.0.0/12")));
        assert_eq!(subnet("255.255.255.240/28").nth(15), Some(Ipv4Addr::BROADCAST));
        assert_eq!(subnet("255.255.255.240/28").nth(16), None);
    }

    #[test]
    fn an_endpoint_is_a_host_with_or_without_a_port() {
        let read = |text: &str| text.parse::<ApiEndpoint>().map(|endpoint| endpoint.url()).ok();
        assert_eq!(read("api.example.com").as_deref(), Some("https://api.example.com:6443"));
        assert_eq!(read("10.0.0.9:443").as_deref(), Some("https://10.0.0.9:443"));
        for bad in
            ["", ":443", "api:", "api:0", "api:65536", "api:0443", "Api", "https://api", "1.2.3", "api:+1"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn images_have_a_tag_or_a_digest() {
        let digest = format!("registry.k8s.io/pause@sha256:{}", "0a".repeat(32));
        accepts::<ImageName>(
            &["registry.k8s.io/kube-apiserver:v1.36.2", "localhost:5000/a/b:1", &digest],
            &["", "kube-apiserver", "localhost:5000/a", "a:", "a: b", "a@sha256:00", "/a:1", "a//b:1"],
        );
        accepts::<ImageRepository>(
            &["registry.k8s.io", "123.dkr.ecr.eu-west-1.amazonaws.com/k8s", "localhost:5000/a/b"],
            &["", "https://registry.k8s.io", "registry.k8s.io/", "a b", "Registry", "a:b"],
        );
    }

    #[test]
    fn names_in_certificates_are_dns_names_or_addresses() {
        accepts::<SubjectName>(
            &["api.example.com", "*.example.com", "10.0.0.1", "fd00::1", "localhost"],
            &["", "API", "a..b", "*", "a.*.b", "1.2.3", "a b", "https://a"],
        );
        accepts::<ClusterDomain>(&["cluster.local", "k8s"], &["", ".local", "cluster.local.", "a_b"]);
        accepts::<IssuerUrl>(
            &["https://oidc.example.com/demo", "https://kubernetes.default.svc.cluster.local"],
            &["", "http://a", "https://", "https://a?b", "https://a#b", "https://a b", "https://a,b"],
        );
    }

    #[test]
    fn environment_and_volumes_are_read_in_parts() {
        accepts::<EnvVar>(&["A=b=c", "NO_PROXY=", "_x= y"], &["", "A", "1A=b", "A B=c", "A=\n", "=b", "A=ä"]);
        assert_eq!("A=b=c".parse::<EnvVar>().unwrap().parts(), ("A", "b=c"));
        accepts::<ExtraVolume>(
            &["/etc/ssl/certs:/etc/ssl/certs", "/a:/b:rw"],
            &[
                "",
                "/a",
                "a:/b",
                "/a:/b:ro",
                "/a:/b:rw:",
                "/a:/etc/kubernetes/pki",
                "/a:/var/log",
                "/a:/etc",
                "/a:/b/../c",
            ],
        );
        assert_eq!("/a:/b:rw".parse::<ExtraVolume>().unwrap().parts(), ("/a", "/b", true));
    }

    #[test]
    fn a_schedulers_configuration_leaves_out_what_quorate_sets() {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let taken = |text: &str| text.parse::<SchedulerDocument>().is_ok();
        assert!(taken(&format!("{head}profiles: []\n")));
        assert!(taken(&format!("{head}clientConnection: {{qps: 100}}\n")));
        for bad in [
            "",
            "a: [",
            "text",
            "kind: KubeSchedulerConfiguration\n",
            &format!("{head}leaderElection: {{leaderElect: false}}\n"),
            &format!("{head}clientConnection: {{kubeconfig: /x}}\n"),
            &format!("{head}kind: Again\n"),
        ] {
            assert!(!taken(bad), "{bad:?}");
        }
    }
}
