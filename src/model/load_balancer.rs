//! What stands in front of the API servers: load balancers, and what they say of their targets.
//!
//! A network load balancer is seen through one listener and the target group behind it, a classic
//! one through one of its listeners; what differs between the two is in [`LoadBalancerKind`].
//!
//! Sources: "Network Load Balancers" and "Classic Load Balancers", user guides; Elastic Load
//! Balancing API references, versions 2015-12-01 and 2012-06-01.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, ParseIdError};
use super::machine::Identity;

/// A target group's ARN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetGroupArn(String);

impl TargetGroupArn {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetGroupArn {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut parts = text.splitn(6, ':');
        let valid = parts.next() == Some("arn")
            && parts.nth(1) == Some("elasticloadbalancing")
            && parts.nth(2).is_some_and(|rest| rest.starts_with("targetgroup/"))
            && text.bytes().all(|b| b.is_ascii_graphic());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError {
                found: text.to_owned(),
                expected: "a target group's ARN (arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/…)",
            })
        }
    }
}

impl TryFrom<String> for TargetGroupArn {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<TargetGroupArn> for String {
    fn from(arn: TargetGroupArn) -> String {
        arn.0
    }
}

impl fmt::Display for TargetGroupArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which kind of load balancer it is, and what its targets are registered with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum LoadBalancerKind {
    /// A network load balancer.
    Network {
        /// Its ARN.
        arn: String,
        /// The target group behind the listener.
        target_group: TargetGroupArn,
        /// Whether targets are registered by address rather than by instance.
        by_address: bool,
    },
    /// A classic load balancer, which is its own target group.
    Classic,
}

/// From where a load balancer can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// From within the network only.
    Internal,
    /// From everywhere.
    InternetFacing,
}

/// How a load balancer finds out whether a target is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// `TCP`, `SSL`, `HTTP` or `HTTPS`.
    pub protocol: String,
    /// The path that is asked for by HTTP and HTTPS.
    pub path: Option<String>,
    /// The port; `None` for the one that traffic goes to.
    pub port: Option<u16>,
    /// From one check to the next, in seconds.
    pub interval_s: u32,
    /// How many failures in a row make a target unhealthy.
    pub unhealthy_threshold: u32,
}

/// A load balancer, seen through one listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Its name.
    pub name: String,
    /// Its kind.
    #[serde(flatten)]
    pub kind: LoadBalancerKind,
    /// The name that it is reached by.
    pub dns_name: String,
    /// The port that it is reached at.
    pub port: u16,
    /// The port that it reaches targets at, unless they are registered with another.
    pub target_port: u16,
    /// From where it can be reached.
    pub scheme: Scheme,
    /// How it checks its targets.
    pub health_check: HealthCheck,
    /// For how long connections to a target that is deregistered go on, in seconds.
    pub deregistration_delay_s: u32,
    /// Whether targets see the clients' addresses. Then no target reaches itself through it.
    pub preserves_client_address: bool,
}

impl LoadBalancer {
    /// What a machine is registered as.
    pub fn target_of(&self, machine: &Identity) -> TargetId {
        match &self.kind {
            LoadBalancerKind::Network { by_address: true, .. } => TargetId::Address(machine.address.into()),
            LoadBalancerKind::Network { by_address: false, .. } | LoadBalancerKind::Classic => {
                TargetId::Instance(machine.instance.clone())
            }
        }
    }
}

/// Load balancers that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundLoadBalancers {
    /// Those that can stand in front of API servers, in order. There are several where several
    /// listeners lead to one target group.
    pub fit: Vec<LoadBalancer>,
    /// Those that can't, in order.
    pub unfit: Vec<UnfitLoadBalancer>,
}

/// A load balancer or target group that can't be used, though it was named or is tagged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnfitLoadBalancer {
    /// Its name or ARN.
    pub what: String,
    /// Why not.
    pub why: Unfit,
}

/// Why a load balancer can't stand in front of API servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfit {
    /// There is none by this name.
    NotThere,
    /// No listener leads to the target group, or the load balancer has none.
    NoListener,
    /// It is an application or gateway load balancer, or the target group is for one.
    NotNetwork,
    /// No listener carries plain TCP. Where the load balancer ends TLS, client certificates and the
    /// API server's own do not get through.
    NotTcp,
    /// It is being made, or could not be made.
    NotActive,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotThere => "it does not exist",
            Self::NoListener => "no listener leads to it",
            Self::NotNetwork => "it is neither a network nor a classic load balancer",
            Self::NotTcp => "it has no TCP listener",
            Self::NotActive => "it is not active",
        })
    }
}

/// What a target is registered as.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetId {
    /// An instance.
    Instance(InstanceId),
    /// An address.
    Address(IpAddr),
    /// Anything else, such as another load balancer.
    Other(String),
}

impl From<&str> for TargetId {
    fn from(text: &str) -> Self {
        match (text.parse(), text.parse()) {
            (Ok(instance), _) => Self::Instance(instance),
            (_, Ok(address)) => Self::Address(address),
            (Err(_), Err(_)) => Self::Other(text.to_owned()),
        }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Other(text) => f.pad(text),
        }
    }
}

/// A registered target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What it is registered as.
    pub id: TargetId,
    /// The port that it is reached at.
    pub port: u16,
    /// What the load balancer says of it.
    pub health: TargetHealth,
}

/// What a load balancer says of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TargetHealth {
    /// It is not registered.
    NotRegistered,
    /// It is registered, and has not been checked yet.
    Initial,
    /// It gets traffic.
    Healthy,
    /// It gets no traffic, unless no other is healthy either.
    Unhealthy {
        /// The load balancer's words for why.
        reason: String,
    },
    /// It is being deregistered: no new connections, and the old ones go on for the delay.
    Draining,
    /// It is registered, and is not looked at.
    Unused {
        /// The load balancer's words for why.
        reason: String,
    },
    /// There is no word of its health.
    Unavailable {
        /// The load balancer's words for why.
        reason: String,
    },
}

impl fmt::Display for TargetHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => f.write_str("not registered"),
            Self::Initial => f.write_str("not checked yet"),
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy { reason } => write!(f, "unhealthy: {reason}"),
            Self::Draining => f.write_str("draining"),
            Self::Unused { reason } => write!(f, "not looked at: {reason}"),
            Self::Unavailable { reason } => write!(f, "no word of its health: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_target_groups_arn_is_one() {
        let arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/demo-api/6d0ecf831eec9f09";
        assert_eq!(arn.parse::<TargetGroupArn>().unwrap().as_str(), arn);
        for other in [
            "",
            "demo-api",
            "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/demo/1",
            "arn:aws:ec2:eu-west-1:123456789012:targetgroup/demo-api/6d0ecf831eec9f09",
            "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/a b",
        ] {
            assert!(other.parse::<TargetGroupArn>().is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_target_is_told_by_its_form() {
        assert!(matches!(TargetId::from("i-0123456789abcdef0"), TargetId::Instance(_)));
        assert!(matches!(TargetId::from("10.0.0.1"), TargetId::Address(_)));
        assert!(matches!(TargetId::from("arn:aws:x"), TargetId::Other(_)));
    }
}
