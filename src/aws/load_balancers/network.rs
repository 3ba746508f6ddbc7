//! Network load balancers (API version 2015-12-01): listeners, target groups, targets.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    ForwardActionConfig, Listener, LoadBalancer as Described, LoadBalancerSchemeEnum, LoadBalancerStateEnum,
    LoadBalancerTypeEnum, ProtocolEnum, TargetDescription, TargetGroup, TargetHealthStateEnum,
    TargetTypeEnum,
};

use super::super::Cause;
use super::super::pages::{self, Page};
use super::{Asked, LoadBalancerError, NO_LOAD_BALANCER, NO_TARGET_GROUP, PAGE, TAGGED, is_dns_name, number};
use crate::model::tags;
use crate::model::{
    ClusterName, FoundLoadBalancers, HealthCheck, LoadBalancer, LoadBalancerKind, Scheme, Target,
    TargetGroupArn, TargetHealth, TargetId, Unfit, UnfitLoadBalancer,
};

type Answer<T> = Result<T, LoadBalancerError>;

#[derive(Debug, Clone)]
pub(super) struct Network {
    client: Client,
}

/// Which ones are asked for.
enum Which {
    All,
    Arns(Vec<String>),
    Name(String),
}

/// A target group's own settings.
struct Attributes {
    deregistration_delay_s: u32,
    preserves_client_address: bool,
}

impl Network {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) async fn by_target_group(&self, arns: &[TargetGroupArn]) -> Answer<FoundLoadBalancers> {
        let mut found = FoundLoadBalancers::default();
        let mut groups = Vec::new();
        // One by one: of many, AWS does not say which is not there.
        for arn in arns {
            match self.groups(&[arn.as_str().to_owned()], None).await {
                Ok(described) => groups.extend(described),
                Err(error) if error.code() == Some(NO_TARGET_GROUP) => {
                    found.unfit.push(UnfitLoadBalancer { what: arn.to_string(), why: Unfit::NotThere });
                }
                Err(error) => return Err(error),
            }
        }
        self.resolve(groups, found).await
    }

    pub(super) async fn by_either_name(&self, name: &str) -> Answer<FoundLoadBalancers> {
        // A load balancer's name has no dots.
        let (which, dns) =
            if name.contains('.') { (Which::All, true) } else { (Which::Name(name.to_owned()), false) };
        let described = match self.load_balancers(which).await {
            Err(error) if error.code() == Some(NO_LOAD_BALANCER) => Vec::new(),
            answer => answer?,
        };
        let named = described.into_iter().filter(|lb| !dns || is_dns_name(lb.dns_name(), name));
        self.with_all_groups(named.collect(), &BTreeSet::new()).await
    }

    pub(super) async fn by_tag(&self, cluster: &ClusterName) -> Answer<FoundLoadBalancers> {
        let mut load_balancers = self.load_balancers(Which::All).await?;
        load_balancers.retain(|lb| lb.r#type() == Some(&LoadBalancerTypeEnum::Network));
        let mut groups = self.groups(&[], None).await?;
        // Others are not a network load balancer's.
        groups.retain(|group| {
            matches!(group.protocol(), Some(ProtocolEnum::Tcp | ProtocolEnum::TcpUdp | ProtocolEnum::Tls))
        });
        let arns = load_balancers.iter().filter_map(Described::load_balancer_arn);
        let arns = arns.chain(groups.iter().filter_map(TargetGroup::target_group_arn));
        let arns: Vec<String> = arns.map(str::to_owned).collect();
        let tagged = self.tagged(&arns, cluster).await?;
        let is_tagged = |arn: Option<&str>| arn.is_some_and(|arn| tagged.contains(arn));
        load_balancers.retain(|lb| is_tagged(lb.load_balancer_arn()));
        groups.retain(|group| is_tagged(group.target_group_arn()));
        // Where target groups are tagged, they say it more exactly than their load balancer.
        let said: BTreeSet<String> =
            groups.iter().flat_map(TargetGroup::load_balancer_arns).cloned().collect();
        let found = self.with_all_groups(load_balancers, &said).await?;
        self.resolve(groups, found).await
    }

    /// What is behind whole load balancers, but for those that are left out.
    async fn with_all_groups(
        &self,
        load_balancers: Vec<Described>,
        left_out: &BTreeSet<String>,
    ) -> Answer<FoundLoadBalancers> {
        let mut found = FoundLoadBalancers::default();
        let mut groups = Vec::new();
        for lb in load_balancers {
            let arn = lb.load_balancer_arn().unwrap_or_default();
            if left_out.contains(arn) {
                continue;
            }
            let behind = match self.groups(&[], Some(arn)).await {
                // It went away between the two calls.
                Err(error) if error.code() == Some(NO_LOAD_BALANCER) => continue,
                answer => answer?,
            };
            if behind.is_empty() {
                let why = unfit(&lb).unwrap_or(Unfit::NoListener);
                let what = lb.load_balancer_name().unwrap_or(arn).to_owned();
                found.unfit.push(UnfitLoadBalancer { what, why });
            }
            groups.extend(behind);
        }
        self.resolve(groups, found).await
    }

    /// Follows target groups to their load balancers and listeners.
    async fn resolve(
        &self,
        groups: Vec<TargetGroup>,
        mut found: FoundLoadBalancers,
    ) -> Answer<FoundLoadBalancers> {
        let arns: BTreeSet<String> =
            groups.iter().flat_map(TargetGroup::load_balancer_arns).cloned().collect();
        let mut fronts = BTreeMap::new();
        for arn in arns {
            let described = match self.load_balancers(Which::Arns(vec![arn.clone()])).await {
                Err(error) if error.code() == Some(NO_LOAD_BALANCER) => continue,
                answer => answer?,
            };
            for lb in described {
                let listeners = match unfit(&lb) {
                    Some(why) => Err(why),
                    None => match self.listeners(&arn).await {
                        Err(error) if error.code() == Some(NO_LOAD_BALANCER) => continue,
                        answer => Ok(answer?),
                    },
                };
                fronts.insert(arn.clone(), (lb, listeners));
            }
        }
        for group in groups {
            let call = Asked {
                operation: "DescribeTargetGroups",
                what: group.target_group_arn().unwrap_or_default().to_owned(),
            };
            let arn: TargetGroupArn = call
                .what
                .parse()
                .map_err(|e: crate::model::ids::ParseIdError| call.malformed(e.to_string()))?;
            let mut through = Vec::new();
            let mut why = Unfit::NoListener;
            for (lb, listeners) in group.load_balancer_arns().iter().filter_map(|arn| fronts.get(arn)) {
                match listeners {
                    Err(reason) => why = *reason,
                    Ok(listeners) => {
                        for listener in listeners.iter().filter(|listener| leads_to(listener, &arn)) {
                            if is_tcp(listener.protocol()) && is_tcp(group.protocol()) {
                                through.push((lb, listener));
                            } else {
                                why = Unfit::NotTcp;
                            }
                        }
                    }
                }
            }
            if through.is_empty() {
                found.unfit.push(UnfitLoadBalancer { what: arn.to_string(), why });
                continue;
            }
            let attributes = match self.attributes(&group, &arn).await {
                Err(error) if error.code() == Some(NO_TARGET_GROUP) => {
                    found.unfit.push(UnfitLoadBalancer { what: arn.to_string(), why: Unfit::NotThere });
                    continue;
                }
                answer => answer?,
            };
            for (lb, listener) in through {
                found.fit.push(decoded(&call, lb, listener, &group, &arn, &attributes)?);
            }
        }
        Ok(found)
    }

    async fn load_balancers(&self, which: Which) -> Answer<Vec<Described>> {
        let request = self.client.describe_load_balancers();
        let (what, request) = match which {
            Which::All => ("the region".to_owned(), request.page_size(PAGE)),
            Which::Arns(arns) => (arns.join(", "), request.set_load_balancer_arns(Some(arns))),
            Which::Name(name) => (name.clone(), request.names(name)),
        };
        let call = Asked { operation: "DescribeLoadBalancers", what };
        let all = pages::all(|token| {
            let page = request.clone().set_marker(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.load_balancers, next: page.next_marker })
            }
        });
        all.await.map_err(|broken| call.broken(broken))
    }

    /// Target groups: these, a load balancer's, or all.
    async fn groups(&self, arns: &[String], of: Option<&str>) -> Answer<Vec<TargetGroup>> {
        let request = self.client.describe_target_groups();
        let (what, request) = match (of, arns) {
            (Some(arn), _) => (arn.to_owned(), request.load_balancer_arn(arn)),
            (None, []) => ("the region".to_owned(), request.page_size(PAGE)),
            (None, arns) => (arns.join(", "), request.set_target_group_arns(Some(arns.to_vec()))),
        };
        let call = Asked { operation: "DescribeTargetGroups", what };
        let all = pages::all(|token| {
            let page = request.clone().set_marker(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.target_groups, next: page.next_marker })
            }
        });
        all.await.map_err(|broken| call.broken(broken))
    }

    async fn listeners(&self, load_balancer: &str) -> Answer<Vec<Listener>> {
        let call = Asked { operation: "DescribeListeners", what: load_balancer.to_owned() };
        let request = self.client.describe_listeners().load_balancer_arn(load_balancer);
        let all = pages::all(|token| {
            let page = request.clone().set_marker(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.listeners, next: page.next_marker })
            }
        });
        all.await.map_err(|broken| call.broken(broken))
    }

    /// Those of `arns` that carry the cluster's tag.
    async fn tagged(&self, arns: &[String], cluster: &ClusterName) -> Answer<BTreeSet<String>> {
        let mut tagged = BTreeSet::new();
        for arns in arns.chunks(TAGGED) {
            tagged.extend(self.tagged_of(arns, cluster).await?);
        }
        Ok(tagged)
    }

    async fn tagged_of(&self, arns: &[String], cluster: &ClusterName) -> Answer<Vec<String>> {
        let call = Asked { operation: "DescribeTags", what: arns.join(", ") };
        let answer = self.client.describe_tags().set_resource_arns(Some(arns.to_vec())).send().await;
        let answer = match answer.map_err(|error| call.failed(Cause::new(&error))) {
            Ok(answer) => answer,
            // One of many went away since it was listed: the others are asked for singly.
            Err(error) if error.is_not_there() => {
                if let [_] = arns {
                    return Ok(Vec::new());
                }
                let mut tagged = Vec::new();
                for arn in arns {
                    tagged.extend(Box::pin(self.tagged_of(std::slice::from_ref(arn), cluster)).await?);
                }
                return Ok(tagged);
            }
            Err(error) => return Err(error),
        };
        let mut tagged = Vec::new();
        for arn in arns {
            let descriptions = answer.tag_descriptions();
            let description = descriptions.iter().find(|d| d.resource_arn() == Some(arn));
            let description = call.required(description, &format!("word of {arn}"))?;
            let is_ours = description
                .tags()
                .iter()
                .any(|tag| tag.key() == Some(tags::CLUSTER) && tag.value() == Some(cluster.as_str()));
            if is_ours {
                tagged.push(arn.clone());
            }
        }
        Ok(tagged)
    }

    async fn attributes(&self, group: &TargetGroup, arn: &TargetGroupArn) -> Answer<Attributes> {
        let call = Asked { operation: "DescribeTargetGroupAttributes", what: arn.to_string() };
        let answer = self.client.describe_target_group_attributes().target_group_arn(arn.as_str()).send();
        let answer = answer.await.map_err(|error| call.failed(Cause::new(&error)))?;
        let value = |key: &str| {
            answer.attributes().iter().find(|a| a.key() == Some(key)).and_then(|attribute| attribute.value())
        };
        let delay = call.required(value("deregistration_delay.timeout_seconds"), "deregistration delay")?;
        Ok(Attributes {
            deregistration_delay_s: call.seconds(delay)?,
            preserves_client_address: match value("preserve_client_ip.enabled") {
                Some(enabled) => enabled == "true",
                // AWS's defaults, by the target type.
                None => group.target_type() != Some(&TargetTypeEnum::Ip),
            },
        })
    }

    /// The targets of a group: all, or one.
    pub(super) async fn targets(
        &self,
        group: &TargetGroupArn,
        one: Option<(&TargetId, u16)>,
    ) -> Answer<Vec<Target>> {
        let call = Asked { operation: "DescribeTargetHealth", what: of_target(group, one) };
        let wanted = one.map(|(target, port)| vec![description(target, port)]);
        let request = self.client.describe_target_health().target_group_arn(group.as_str());
        let answer = request.set_targets(wanted).send().await;
        let answer = answer.map_err(|error| call.failed(Cause::new(&error)))?;
        let mut targets = Vec::new();
        // An empty list comes as an empty element: without one, nobody has said "none".
        for described in call.required(answer.target_health_descriptions, "list of targets")? {
            let target = call.required(described.target(), "target")?;
            let health = call.required(described.target_health(), "health")?;
            let state = call.required(health.state(), "state")?;
            let reason = || {
                let code = health.reason().map_or("", |reason| reason.as_str());
                match health.description() {
                    Some(text) if code.is_empty() => text.to_owned(),
                    Some(text) => format!("{text} ({code})"),
                    None => code.to_owned(),
                }
            };
            let health = match state {
                TargetHealthStateEnum::Healthy => TargetHealth::Healthy,
                TargetHealthStateEnum::Initial => TargetHealth::Initial,
                TargetHealthStateEnum::Draining => TargetHealth::Draining,
                TargetHealthStateEnum::Unhealthy | TargetHealthStateEnum::UnhealthyDraining => {
                    TargetHealth::Unhealthy { reason: reason() }
                }
                TargetHealthStateEnum::Unused
                    if health.reason().is_some_and(|r| r.as_str() == "Target.NotRegistered") =>
                {
                    TargetHealth::NotRegistered
                }
                TargetHealthStateEnum::Unused => TargetHealth::Unused { reason: reason() },
                TargetHealthStateEnum::Unavailable => TargetHealth::Unavailable { reason: reason() },
                other => TargetHealth::Unavailable { reason: format!("{} {}", other.as_str(), reason()) },
            };
            targets.push(Target {
                id: call.required(target.id(), "target's id")?.into(),
                port: call.port(target.port())?,
                health,
            });
        }
        Ok(targets)
    }

    pub(super) async fn register(&self, group: &TargetGroupArn, target: &TargetId, port: u16) -> Answer<()> {
        let call = Asked { operation: "RegisterTargets", what: of_target(group, Some((target, port))) };
        let request = self.client.register_targets().target_group_arn(group.as_str());
        let answer = request.targets(description(target, port)).send().await;
        answer.map(drop).map_err(|error| call.failed(Cause::new(&error)))
    }

    pub(super) async fn deregister(
        &self,
        group: &TargetGroupArn,
        target: &TargetId,
        port: u16,
    ) -> Answer<()> {
        let call = Asked { operation: "DeregisterTargets", what: of_target(group, Some((target, port))) };
        let request = self.client.deregister_targets().target_group_arn(group.as_str());
        let answer = request.targets(description(target, port)).send().await;
        answer.map(drop).map_err(|error| call.failed(Cause::new(&error)))
    }
}

fn of_target(group: &TargetGroupArn, one: Option<(&TargetId, u16)>) -> String {
    match one {
        Some((target, port)) => format!("{target}, port {port}, in {group}"),
        None => group.to_string(),
    }
}

fn description(target: &TargetId, port: u16) -> TargetDescription {
    TargetDescription::builder().id(target.to_string()).port(i32::from(port)).build()
}

/// Why a load balancer is of no use whatever its listeners are.
fn unfit(lb: &Described) -> Option<Unfit> {
    if lb.r#type() != Some(&LoadBalancerTypeEnum::Network) {
        return Some(Unfit::NotNetwork);
    }
    let state = lb.state().and_then(|state| state.code());
    let serves = matches!(state, Some(LoadBalancerStateEnum::Active | LoadBalancerStateEnum::ActiveImpaired));
    (!serves).then_some(Unfit::NotActive)
}

fn leads_to(listener: &Listener, group: &TargetGroupArn) -> bool {
    listener.default_actions().iter().any(|action| {
        let forwarded = action.forward_config().map(ForwardActionConfig::target_groups).unwrap_or_default();
        let more = forwarded.iter().filter_map(|tuple| tuple.target_group_arn());
        action.target_group_arn().into_iter().chain(more).any(|arn| arn == group.as_str())
    })
}

fn is_tcp(protocol: Option<&ProtocolEnum>) -> bool {
    matches!(protocol, Some(ProtocolEnum::Tcp | ProtocolEnum::TcpUdp))
}

fn decoded(
    call: &Asked,
    lb: &Described,
    listener: &Listener,
    group: &TargetGroup,
    arn: &TargetGroupArn,
    attributes: &Attributes,
) -> Answer<LoadBalancer> {
    let check_port = match group.health_check_port() {
        None | Some("traffic-port") => None,
        Some(port) => Some(port.parse().map_err(|_| call.malformed(format!("health check port {port:?}")))?),
    };
    Ok(LoadBalancer {
        name: call.required(lb.load_balancer_name(), "name of its load balancer")?.to_owned(),
        kind: LoadBalancerKind::Network {
            arn: call.required(lb.load_balancer_arn(), "ARN of its load balancer")?.to_owned(),
            target_group: arn.clone(),
            by_address: group.target_type() == Some(&TargetTypeEnum::Ip),
        },
        dns_name: call.required(lb.dns_name(), "DNS name of its load balancer")?.to_owned(),
        port: call.port(listener.port())?,
        target_port: call.port(group.port())?,
        scheme: match lb.scheme() {
            Some(LoadBalancerSchemeEnum::Internal) => Scheme::Internal,
            _ => Scheme::InternetFacing,
        },
        health_check: HealthCheck {
            protocol: call
                .required(group.health_check_protocol(), "protocol of the health check")?
                .as_str()
                .to_owned(),
            path: group.health_check_path().map(str::to_owned),
            port: check_port,
            interval_s: number(group.health_check_interval_seconds().unwrap_or_default()),
            unhealthy_threshold: number(group.unhealthy_threshold_count().unwrap_or_default()),
        },
        deregistration_delay_s: attributes.deregistration_delay_s,
        preserves_client_address: attributes.preserves_client_address,
    })
}
