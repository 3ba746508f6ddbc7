//! What Kubernetes' leaves on a node are to name, and what is found of them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::node::NodeName;

/// Who a server is to its clients: an address, or a DNS name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostName {
    /// An address.
    Address(IpAddr),
    /// A DNS name, perhaps with `*` for its first label.
    Dns(String),
}

/// Why a text is no host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an IP address nor a DNS name (RFC 1123)")]
pub struct NotAHostName;

impl FromStr for HostName {
    type Err = NotAHostName;

    fn from_str(text: &str) -> Result<Self, NotAHostName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // What ends with a number is an address to whoever resolves it (RFC 3696, 2).
        let number = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() <= 253 && labels.split('.').all(label) && !number {
            Ok(Self::Dns(text.to_ascii_lowercase()))
        } else {
            Err(NotAHostName)
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

/// Where an API server is reached: `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUrl {
    /// The host.
    pub host: HostName,
    /// The port.
    pub port: u16,
}

/// Why a text is no API server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not https://HOST:PORT")]
pub struct NotAServerUrl;

impl FromStr for ServerUrl {
    type Err = NotAServerUrl;

    fn from_str(text: &str) -> Result<Self, NotAServerUrl> {
        let rest = text.strip_prefix("https://").ok_or(NotAServerUrl)?;
        let (host, port) = rest.rsplit_once(':').ok_or(NotAServerUrl)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = bare.parse().map_err(|NotAHostName| NotAServerUrl)?;
        let port = port.parse().map_err(|_| NotAServerUrl)?;
        let url = Self { host, port };
        // One way to write it: `+443`, `0443` and `[10.0.0.1]` are none.
        if url.to_string().eq_ignore_ascii_case(text) { Ok(url) } else { Err(NotAServerUrl) }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host {
            HostName::Address(IpAddr::V6(address)) => write!(f, "https://[{address}]:{port}"),
            HostName::Address(IpAddr::V4(_)) | HostName::Dns(_) => write!(f, "https://{host}:{port}"),
        }
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(HostName, ServerUrl);

/// What the leaves are to name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLeafRequest {
    /// The node's name.
    pub node: NodeName,
    /// The node's address.
    pub address: Ipv4Addr,
    /// Where the API is reached from outside.
    pub endpoint: HostName,
    /// The address of the service `kubernetes`: the first of the services' range.
    pub service_address: Ipv4Addr,
    /// The domain of the cluster's services, as `cluster.local`.
    pub cluster_domain: HostName,
    /// What else the API server is called.
    pub extra_names: Vec<HostName>,
    /// Where the kubelet and the administrator on this node reach the API.
    pub local_server: ServerUrl,
    /// Where the scheduler and the controller-manager on this node reach the API.
    pub component_server: ServerUrl,
}

impl ClusterLeafRequest {
    /// What [`inspect`](crate::pki::cluster_leaves::inspect) finds when the leaves are those that are
    /// requested here.
    ///
    /// # Errors
    /// A cluster domain that is none.
    pub fn names(&self) -> Result<ClusterLeafNames, NotAHostName> {
        let mut names = BTreeSet::from([
            HostName::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            HostName::Address(self.address.into()),
            HostName::Address(self.service_address.into()),
            self.local_server.host.clone(),
            self.component_server.host.clone(),
        ]);
        let service = format!("kubernetes.default.svc.{}", self.cluster_domain);
        let node = self.node.as_str();
        for name in [
            node,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            service.as_str(),
        ] {
            names.insert(name.parse()?);
        }
        names.extend(std::iter::once(&self.endpoint).chain(&self.extra_names).cloned());
        Ok(ClusterLeafNames {
            node: self.node.clone(),
            api_server: names,
            local_server: self.local_server.clone(),
            component_server: self.component_server.clone(),
        })
    }
}

/// What the leaves and kubeconfigs of a node name. When it differs from what is wanted, they are
/// made anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLeafNames {
    /// The node.
    pub node: NodeName,
    /// The names and addresses of its API server.
    pub api_server: BTreeSet<HostName>,
    /// Where the kubelet and the administrator on this node reach the API.
    pub local_server: ServerUrl,
    /// Where the scheduler and the controller-manager on this node reach the API.
    pub component_server: ServerUrl,
}

/// Kubernetes' leaves on this machine: the oldest and narrowest of them, as far as they agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLeaves {
    /// The fingerprint of Kubernetes' authorities and keys, as
    /// [`ClusterAuthorities::fingerprint`](crate::pki::ClusterAuthorities::fingerprint) has it.
    pub authorities: String,
    /// The fingerprint of the etcd authority that signed the API server's client certificate.
    pub etcd_authority: String,
    /// What they name.
    pub names: ClusterLeafNames,
    /// The latest beginning of validity among them, in milliseconds since 1970.
    pub not_before: i64,
    /// The earliest end of validity among them, in milliseconds since 1970.
    pub not_after: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_addresses_or_dns_names_and_nothing_else() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
            ("localhost", "localhost"),
            ("Prod-123.elb.eu-central-1.amazonaws.com", "prod-123.elb.eu-central-1.amazonaws.com"),
            ("*.example.org", "*.example.org"),
            ("3com.example", "3com.example"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), shown);
        }
        let long = format!("{}.org", "a".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            "a.",
            "-a",
            "a-",
            "a_b",
            "ä.org",
            "10.0.0",
            "10.0.0.256",
            "*",
            "a.*",
            "a b",
            &long,
        ] {
            assert_eq!(text.parse::<HostName>(), Err(NotAHostName), "{text:?}");
        }
    }

    #[test]
    fn server_urls_have_one_form() {
        for text in ["https://127.0.0.1:6443", "https://[::1]:443", "https://api.example.org:6443"] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            let json = serde_json::to_string(&url).unwrap();
            assert_eq!(serde_json::from_str::<ServerUrl>(&json).unwrap(), url);
        }
        for text in [
            "http://127.0.0.1:6443",
            "https://127.0.0.1",
            "https://127.0.0.1:0443",
            "https://[10.0.0.1]:443",
            "https://::1:443",
            "https://api:443/path",
            "https://api:65536",
            "https://user@api:443",
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(NotAServerUrl), "{text}");
        }
    }
}
