//! Auto Scaling: the groups of a cluster, their zones and their instances.
//!
//! What must not live here: which instances count. A group's list and EC2's are both late in
//! their own ways.

mod lifecycle;

use aws_config::SdkConfig;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter};

use super::Cause;
use super::pages::{self, Broken, Page};
use super::retries;
use super::whole::WholeXml;
use crate::model::tags;
use crate::model::{ClusterName, InstanceId, Role, TargetGroupArn, Zone};

/// How many groups can be asked for by name at once, and how many come on a page.
/// Source: DescribeAutoScalingGroups, Auto Scaling API reference.
const NAMES: usize = 50;
const PAGE: i32 = 100;

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The zones that it spans, in order.
    pub zones: Vec<Zone>,
    /// Its instances, as the group lists them.
    pub instances: Vec<GroupInstance>,
    /// The target groups that it registers its instances with, in order.
    pub target_groups: Vec<TargetGroupArn>,
    /// The classic load balancers that it registers its instances with, by name, in order.
    pub classic_load_balancers: Vec<String>,
}

/// An instance, as its group lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Its lifecycle state, as `InService` or `Terminating:Wait`.
    pub lifecycle: String,
    /// Whether the group takes it for healthy.
    pub healthy: bool,
}

/// Auto Scaling gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AutoScalingError {
    /// The groups can't be listed.
    #[error("listing the Auto Scaling groups of {what}{}", advice(.source))]
    DescribeGroups {
        /// Which groups.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Groups that the configuration names do not exist.
    #[error("there is no Auto Scaling group {}; correct the configuration", .names.join(", "))]
    NoSuchGroups {
        /// Their names.
        names: Vec<String>,
    },
    /// A call about an instance on its way in or out failed.
    #[error("{operation} of {what}{}", allow(.source, .operation))]
    Lifecycle {
        /// The operation, as Auto Scaling calls it.
        operation: &'static str,
        /// Of what.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The answer is not what it should be.
    #[error("listing the Auto Scaling groups of {what}: unexpected answer: {why}")]
    Malformed {
        /// Which groups.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An instance's health can't be set.
    #[error("telling Auto Scaling that {instance} is not healthy{}", allow(.source, "SetInstanceHealth"))]
    SetInstanceHealth {
        /// Which.
        instance: InstanceId,
        /// Why.
        #[source]
        source: Cause,
    },
}

fn advice(cause: &Cause) -> &'static str {
    if cause.is_denied() {
        " (allow autoscaling:DescribeAutoScalingGroups to the instance's role)"
    } else {
        ""
    }
}

fn allow(cause: &Cause, operation: &str) -> String {
    if cause.is_denied() {
        format!(" (allow autoscaling:{operation} to the instance's role)")
    } else {
        String::new()
    }
}

impl AutoScalingError {
    /// Whether the same call may well succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DescribeGroups { source, .. }
            | Self::SetInstanceHealth { source, .. }
            | Self::Lifecycle { source, .. } => source.is_retryable(),
            Self::NoSuchGroups { .. } | Self::Malformed { .. } => false,
        }
    }

    /// Whether AWS asks to be called less often.
    pub fn is_throttled(&self) -> bool {
        match self {
            Self::DescribeGroups { source, .. }
            | Self::SetInstanceHealth { source, .. }
            | Self::Lifecycle { source, .. } => source.is_throttled(),
            Self::NoSuchGroups { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// Auto Scaling, in one region.
#[derive(Debug, Clone)]
pub struct AutoScaling {
    client: Client,
}

impl AutoScaling {
    pub(super) fn new(sdk: &SdkConfig, role: Role) -> Self {
        let mut config = aws_sdk_autoscaling::config::Builder::from(sdk).interceptor(WholeXml);
        config.set_retry_partition(retries::quota(role, retries::Service::AutoScaling));
        Self { client: Client::from_conf(config.build()) }
    }

    /// The groups of a cluster and role, by name: those with both tags or, when `names` are given,
    /// exactly those.
    pub async fn groups(
        &self,
        cluster: &ClusterName,
        role: Role,
        names: &[String],
    ) -> Result<Vec<Group>, AutoScalingError> {
        let what = if names.is_empty() { format!("{cluster}, role {role}") } else { names.join(", ") };
        let mut groups = Vec::new();
        if names.is_empty() {
            let tags = [(tags::CLUSTER, cluster.as_str()), (tags::ROLE, role.as_str())];
            let filters = tags
                .map(|(key, value)| Filter::builder().name(format!("tag:{key}")).values(value).build())
                .to_vec();
            self.pages(&what, None, Some(filters), &mut groups).await?;
        }
        for names in names.chunks(NAMES) {
            self.pages(&what, Some(names.to_vec()), None, &mut groups).await?;
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups.dedup_by(|a, b| a.name == b.name);
        let missing: Vec<_> =
            names.iter().filter(|name| !groups.iter().any(|group| group.name == **name)).cloned().collect();
        if missing.is_empty() { Ok(groups) } else { Err(AutoScalingError::NoSuchGroups { names: missing }) }
    }

    /// Tells an instance's group that it is not healthy, whatever grace the group gives to new ones:
    /// the group ends it, through its hooks, and launches another. Telling it again changes nothing.
    /// Source: SetInstanceHealth, Auto Scaling API reference.
    pub async fn set_unhealthy(&self, instance: &InstanceId) -> Result<(), AutoScalingError> {
        self.client
            .set_instance_health()
            .instance_id(instance.as_str())
            .health_status("Unhealthy")
            .should_respect_grace_period(false)
            .send()
            .await
            .map(drop)
            .map_err(|error| AutoScalingError::SetInstanceHealth {
                instance: instance.clone(),
                source: Cause::new(&error),
            })
    }

    async fn pages(
        &self,
        what: &str,
        names: Option<Vec<String>>,
        filters: Option<Vec<Filter>>,
        groups: &mut Vec<Group>,
    ) -> Result<(), AutoScalingError> {
        let malformed = |why: String| AutoScalingError::Malformed { what: what.to_owned(), why };
        let request = self
            .client
            .describe_auto_scaling_groups()
            .set_auto_scaling_group_names(names)
            .set_filters(filters)
            .max_records(PAGE);
        let listed = pages::all(|token| {
            let page = request.clone().set_next_token(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.auto_scaling_groups, next: page.next_token })
            }
        })
        .await
        .map_err(|broken| match broken {
            Broken::Failed(source) => AutoScalingError::DescribeGroups { what: what.to_owned(), source },
            Broken::Malformed(why) => malformed(why.to_owned()),
        })?;
        for group in &listed {
            groups.push(decoded(group).map_err(malformed)?);
        }
        Ok(())
    }
}

fn decoded(group: &AutoScalingGroup) -> Result<Group, String> {
    let name = group.auto_scaling_group_name().ok_or("a group without a name")?.to_owned();
    let within = |error: crate::model::ids::ParseIdError| format!("group {name}: {error}");
    let mut zones = Vec::new();
    for zone in group.availability_zones() {
        zones.push(zone.parse::<Zone>().map_err(within)?);
    }
    zones.sort();
    zones.dedup();
    let mut instances = Vec::new();
    for instance in group.instances() {
        instances.push(GroupInstance {
            id: instance.instance_id().unwrap_or_default().parse().map_err(within)?,
            zone: instance.availability_zone().unwrap_or_default().parse().map_err(within)?,
            lifecycle: instance
                .lifecycle_state()
                .ok_or_else(|| format!("group {name}: an instance without a lifecycle state"))?
                .as_str()
                .to_owned(),
            healthy: instance.health_status().is_some_and(|status| status.eq_ignore_ascii_case("healthy")),
        });
    }
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    let mut target_groups = Vec::new();
    for arn in group.target_group_arns() {
        target_groups.push(arn.parse::<TargetGroupArn>().map_err(within)?);
    }
    target_groups.sort();
    let mut classic_load_balancers = group.load_balancer_names().to_vec();
    classic_load_balancers.sort();
    Ok(Group { name, zones, instances, target_groups, classic_load_balancers })
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
