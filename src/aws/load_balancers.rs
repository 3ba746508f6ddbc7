//! Load balancers: network ones, seen through their listeners and target groups, and classic ones.
//!
//! What is told here is what AWS definitely said: lists are read to their end or are errors, and a
//! load balancer or target group "is not there" only when AWS, asked for that very one, said so.
//!
//! What must not live here: which load balancer is the cluster's, and when to be one of its targets.
//!
//! Sources: Elastic Load Balancing API references, versions 2015-12-01 (network load balancers)
//! and 2012-06-01 (classic ones).

mod classic;
mod network;

use aws_config::SdkConfig;

use super::Cause;
use super::pages::Broken;
use super::retries;
use super::whole::WholeXml;
use crate::model::{
    ClusterName, FoundLoadBalancers, LoadBalancer, LoadBalancerKind, Role, Target, TargetGroupArn,
    TargetHealth, TargetId, Unfit, UnfitLoadBalancer,
};

/// How many come on a page, and of how many the tags can be asked for at once.
const PAGE: i32 = 400;
const TAGGED: usize = 20;

/// What AWS says of names that it does not know, in both APIs.
const NO_LOAD_BALANCER: &str = "LoadBalancerNotFound";
const NO_TARGET_GROUP: &str = "TargetGroupNotFound";
/// And of targets: a network load balancer's of what can't be one, a classic one's of what is none.
const NO_TARGET: [&str; 2] = ["InvalidTarget", "InvalidInstance"];

/// A load balancer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum LoadBalancerError {
    /// A call failed, or its answer was lost.
    #[error("Elastic Load Balancing {operation} of {what}{}", advice(.operation, .source))]
    Call {
        /// AWS's name of the operation.
        operation: &'static str,
        /// What it was about.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The answer is not what it should be.
    #[error("Elastic Load Balancing {operation} of {what}: unexpected answer: {why}")]
    Malformed {
        /// AWS's name of the operation.
        operation: &'static str,
        /// What it was about.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

fn advice(operation: &str, cause: &Cause) -> String {
    if cause.is_denied() {
        format!(" (allow elasticloadbalancing:{operation} to the instance's role)")
    } else {
        String::new()
    }
}

impl LoadBalancerError {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Call { source, .. } => source.code(),
            Self::Malformed { .. } => None,
        }
    }

    /// Whether AWS definitely said that the load balancer or the target group does not exist.
    pub fn is_not_there(&self) -> bool {
        matches!(self.code(), Some(NO_LOAD_BALANCER | NO_TARGET_GROUP))
    }

    /// Whether AWS says that the target can't be one: it does not exist, does not run yet, or is in
    /// another network.
    pub fn is_invalid_target(&self) -> bool {
        self.code().is_some_and(|code| NO_TARGET.contains(&code))
    }

    /// Whether the same call may well succeed later, without anybody changing anything. An instance
    /// that can't be a target may be one as soon as it runs.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.is_retryable() || self.is_invalid_target(),
            Self::Malformed { .. } => false,
        }
    }

    /// Whether AWS asks to be called less often.
    pub fn is_throttled(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.is_throttled(),
            Self::Malformed { .. } => false,
        }
    }
}

/// What is asked, for the errors.
struct Asked {
    operation: &'static str,
    what: String,
}

impl Asked {
    fn failed(&self, source: Cause) -> LoadBalancerError {
        LoadBalancerError::Call { operation: self.operation, what: self.what.clone(), source }
    }

    fn malformed(&self, why: impl Into<String>) -> LoadBalancerError {
        LoadBalancerError::Malformed { operation: self.operation, what: self.what.clone(), why: why.into() }
    }

    fn broken(&self, broken: Broken) -> LoadBalancerError {
        match broken {
            Broken::Failed(source) => self.failed(source),
            Broken::Malformed(why) => self.malformed(why),
        }
    }

    /// A value that AWS always sends.
    fn required<T>(&self, value: Option<T>, name: &str) -> Result<T, LoadBalancerError> {
        value.ok_or_else(|| self.malformed(format!("no {name}")))
    }

    fn port(&self, port: Option<i32>) -> Result<u16, LoadBalancerError> {
        let port = self.required(port, "port")?;
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            Ok(_) | Err(_) => Err(self.malformed(format!("port {port}"))),
        }
    }

    fn seconds(&self, seconds: &str) -> Result<u32, LoadBalancerError> {
        seconds.parse().map_err(|_| self.malformed(format!("{seconds:?} is no number of seconds")))
    }
}

/// A number that AWS sends signed and means unsigned.
fn number(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// Load balancers, in one region.
#[derive(Debug, Clone)]
pub struct LoadBalancers {
    network: network::Network,
    classic: classic::Classic,
}

impl LoadBalancers {
    pub(super) fn new(sdk: &SdkConfig, role: Role) -> Self {
        // Both kinds' calls count against the same limits.
        let quota = retries::quota(role, retries::Service::LoadBalancing);
        let mut network = aws_sdk_elasticloadbalancingv2::config::Builder::from(sdk).interceptor(WholeXml);
        network.set_retry_partition(quota.clone());
        let mut classic = aws_sdk_elasticloadbalancing::config::Builder::from(sdk).interceptor(WholeXml);
        classic.set_retry_partition(quota);
        let network = aws_sdk_elasticloadbalancingv2::Client::from_conf(network.build());
        let classic = aws_sdk_elasticloadbalancing::Client::from_conf(classic.build());
        Self { network: network::Network::new(network), classic: classic::Classic::new(classic) }
    }

    /// The load balancers in front of these target groups.
    pub async fn target_groups(
        &self,
        arns: &[TargetGroupArn],
    ) -> Result<FoundLoadBalancers, LoadBalancerError> {
        self.network.by_target_group(arns).await.map(sorted)
    }

    /// The classic load balancers of these names.
    pub async fn classic(&self, names: &[String]) -> Result<FoundLoadBalancers, LoadBalancerError> {
        self.classic.by_name(names).await.map(sorted)
    }

    /// The load balancers that carry the cluster's tag, or whose target group does. Where only some
    /// target groups of a tagged load balancer are tagged, those count.
    ///
    /// All network and classic load balancers of the account and region are looked at, since AWS
    /// can't be asked for a tag's: one call for 400 of them, and one for the tags of 20.
    pub async fn by_tag(&self, cluster: &ClusterName) -> Result<FoundLoadBalancers, LoadBalancerError> {
        let network = self.network.by_tag(cluster).await?;
        let classic = self.classic.by_tag(cluster).await?;
        Ok(sorted(joined(network, classic)))
    }

    /// The load balancer of this name or DNS name, with all its listeners.
    pub async fn by_name(&self, name: &str) -> Result<FoundLoadBalancers, LoadBalancerError> {
        let network = self.network.by_either_name(name).await?;
        let classic = self.classic.by_either_name(name).await?;
        let mut found = joined(network, classic);
        if found.fit.is_empty() && found.unfit.is_empty() {
            found.unfit.push(UnfitLoadBalancer { what: name.to_owned(), why: Unfit::NotThere });
        }
        Ok(sorted(found))
    }

    /// What the load balancer says of one target, at one port (a classic one has no choice of it).
    pub async fn target_health(
        &self,
        of: &LoadBalancer,
        target: &TargetId,
        port: u16,
    ) -> Result<TargetHealth, LoadBalancerError> {
        let targets = match &of.kind {
            LoadBalancerKind::Network { target_group, .. } => {
                self.network.targets(target_group, Some((target, port))).await
            }
            LoadBalancerKind::Classic => self.classic.targets(of, Some(target)).await,
        };
        match targets {
            Ok(targets) => Ok(targets
                .into_iter()
                .find(|found| found.id == *target)
                .map_or(TargetHealth::NotRegistered, |found| found.health)),
            Err(error) if error.is_invalid_target() => Ok(TargetHealth::NotRegistered),
            Err(error) => Err(error),
        }
    }

    /// All targets, in order.
    pub async fn targets(&self, of: &LoadBalancer) -> Result<Vec<Target>, LoadBalancerError> {
        let mut targets = match &of.kind {
            LoadBalancerKind::Network { target_group, .. } => self.network.targets(target_group, None).await,
            LoadBalancerKind::Classic => self.classic.targets(of, None).await,
        }?;
        targets.sort();
        Ok(targets)
    }

    /// Registers a target. One that is registered already stays so.
    pub async fn register_target(
        &self,
        with: &LoadBalancer,
        target: &TargetId,
        port: u16,
    ) -> Result<(), LoadBalancerError> {
        match &with.kind {
            LoadBalancerKind::Network { target_group, .. } => {
                self.network.register(target_group, target, port).await
            }
            LoadBalancerKind::Classic => self.classic.register(with, target).await,
        }
    }

    /// Takes a target out. One that is not registered stays so.
    pub async fn deregister_target(
        &self,
        from: &LoadBalancer,
        target: &TargetId,
        port: u16,
    ) -> Result<(), LoadBalancerError> {
        let answer = match &from.kind {
            LoadBalancerKind::Network { target_group, .. } => {
                self.network.deregister(target_group, target, port).await
            }
            LoadBalancerKind::Classic => self.classic.deregister(from, target).await,
        };
        match answer {
            Err(error) if error.is_invalid_target() => Ok(()),
            answer => answer,
        }
    }
}

fn joined(mut one: FoundLoadBalancers, other: FoundLoadBalancers) -> FoundLoadBalancers {
    one.fit.extend(other.fit);
    one.unfit.extend(other.unfit);
    one
}

fn sorted(mut found: FoundLoadBalancers) -> FoundLoadBalancers {
    found.fit.sort();
    found.fit.dedup();
    found.unfit.sort();
    found.unfit.dedup();
    found
}

/// Whether a load balancer's DNS name is the one that is looked for. Case and a final dot say nothing.
fn is_dns_name(found: Option<&str>, wanted: &str) -> bool {
    found.is_some_and(|found| found.trim_end_matches('.').eq_ignore_ascii_case(wanted.trim_end_matches('.')))
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
