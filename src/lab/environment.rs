//! The environment that an agent is started with, which must lead it nowhere but to the laboratory.
//!
//! On a computer that is itself a virtual machine, 169.254.169.254 is answered by somebody else's
//! metadata service, and AWS's names lead to AWS. So an agent is started with an environment of its
//! own making, and only when every service it could call is given an address on this computer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The variables that must be there, each an endpoint.
pub const ENDPOINTS: [&str; 6] = [
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_AUTO_SCALING",
    "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING",
    "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2",
    "AWS_ENDPOINT_URL_S3",
];

/// By this variable a process is known as a node's: the node's directory.
pub const NODE_MARK: &str = "QUORATE_LAB_NODE";

/// Why an environment is not safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeEnvironment {
    /// Without the variable the SDK would go to the real service.
    #[error("{0} is not set: the agent would call the real service")]
    Missing(&'static str),
    /// The endpoint is not on this computer.
    #[error("{variable} is {value:?}, which is not http on a loopback address")]
    NotLoopback {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// A variable that could lead around the endpoints.
    #[error("{0} must not be set")]
    Forbidden(String),
}

/// An environment in which every service has an endpoint on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct AgentEnvironment(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for AgentEnvironment {
    type Error = UnsafeEnvironment;

    fn try_from(variables: BTreeMap<String, String>) -> Result<Self, UnsafeEnvironment> {
        Self::new(variables)
    }
}

impl AgentEnvironment {
    /// Takes a whole environment (nothing is inherited beside it), or says what is not safe in it.
    pub fn new(variables: BTreeMap<String, String>) -> Result<Self, UnsafeEnvironment> {
        for name in ENDPOINTS {
            if !variables.contains_key(name) {
                return Err(UnsafeEnvironment::Missing(name));
            }
        }
        for (name, value) in &variables {
            let is_endpoint =
                name.starts_with("AWS_ENDPOINT_URL") || name == "AWS_EC2_METADATA_SERVICE_ENDPOINT";
            if is_endpoint && !is_loopback_http(value) {
                return Err(UnsafeEnvironment::NotLoopback { variable: name.clone(), value: value.clone() });
            }
            let leads_elsewhere = [
                "AWS_PROFILE",
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
                "AWS_ACCESS_KEY_ID",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
            ];
            if leads_elsewhere.contains(&name.as_str())
                || name.to_ascii_lowercase().ends_with("_proxy") && !name.eq_ignore_ascii_case("no_proxy")
            {
                return Err(UnsafeEnvironment::Forbidden(name.clone()));
            }
        }
        Ok(Self(variables))
    }

    /// The environment of a node's programs: `aws` and `metadata` are endpoints.
    pub fn of_node(
        node: &Path,
        programs: &Path,
        aws: &str,
        metadata: SocketAddr,
    ) -> Result<Self, UnsafeEnvironment> {
        let search = std::env::var("PATH").unwrap_or_default();
        let nothing = node.join("nothing").display().to_string();
        let pairs = [
            ("PATH", format!("{}:{search}:/usr/sbin:/sbin:/usr/bin:/bin", programs.display())),
            ("HOME", node.join("root").display().to_string()),
            (NODE_MARK, node.display().to_string()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{metadata}")),
            ("AWS_ENDPOINT_URL_EC2", aws.to_owned()),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", aws.to_owned()),
            ("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING", aws.to_owned()),
            ("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", aws.to_owned()),
            ("AWS_ENDPOINT_URL_S3", aws.to_owned()),
            // Whatever else might be asked goes to the region as well, which refuses it.
            ("AWS_ENDPOINT_URL", aws.to_owned()),
            ("AWS_CONFIG_FILE", nothing.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", nothing),
            ("NO_PROXY", "*".to_owned()),
        ];
        Self::new(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The same with one more variable.
    pub fn with(&self, name: &str, value: &str) -> Result<Self, UnsafeEnvironment> {
        let mut variables = self.0.clone();
        variables.insert(name.to_owned(), value.to_owned());
        Self::new(variables)
    }

    /// The variables.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// `http://ADDRESS:PORT` and nothing else: a name could lead anywhere.
fn is_loopback_http(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let ip = authority.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| authority.parse::<IpAddr>());
    ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> BTreeMap<String, String> {
        let metadata = "127.1.2.3:80".parse().unwrap();
        AgentEnvironment::of_node(Path::new("/n"), Path::new("/b"), "http://127.0.0.1:4", metadata)
            .unwrap()
            .variables()
            .clone()
    }

    #[test]
    fn an_agent_is_refused_when_any_endpoint_is_missing() {
        for name in ENDPOINTS {
            let mut variables = safe();
            variables.remove(name);
            assert_eq!(AgentEnvironment::new(variables), Err(UnsafeEnvironment::Missing(name)));
        }
    }

    #[test]
    fn an_agent_is_refused_when_any_endpoint_is_not_on_this_computer() {
        let elsewhere = [
            "http://169.254.169.254",
            "http://169.254.169.254:80/",
            "http://[fd00:ec2::254]",
            "https://ec2.eu-west-1.amazonaws.com",
            "http://localhost.example.com:80",
            "http://127.0.0.1@169.254.169.254/",
            "http://10.0.0.1:80",
            "127.0.0.1:80",
            "",
        ];
        for name in ENDPOINTS.iter().copied().chain(["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"]) {
            for value in elsewhere {
                let mut variables = safe();
                variables.insert(name.to_owned(), value.to_owned());
                let refused = UnsafeEnvironment::NotLoopback { variable: name.into(), value: value.into() };
                assert_eq!(AgentEnvironment::new(variables), Err(refused));
            }
        }
    }

    #[test]
    fn an_agent_is_refused_when_a_proxy_or_profile_could_lead_elsewhere() {
        for name in ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"] {
            let mut variables = safe();
            variables.insert(name.to_owned(), "x".to_owned());
            assert_eq!(AgentEnvironment::new(variables), Err(UnsafeEnvironment::Forbidden(name.into())));
        }
    }
}
