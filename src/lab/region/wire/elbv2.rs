//! Elastic Load Balancing's query API for network load balancers (version 2015-12-01), as far as the
//! agent calls it.

use std::collections::BTreeMap;

use super::Answer;
use super::query::Params;
use super::xml::Xml;
use crate::lab::region::clock;
use crate::lab::region::world::{
    Balancer, BalancerKind, CheckProtocol, Pool, PoolHealth, Refusal, View, World,
};

/// The version by which its requests are told from a classic load balancer's.
pub(super) const VERSION: &str = "2015-12-01";
const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

type Content = Box<dyn FnOnce(&mut Xml)>;

/// What a call is about, for the record.
pub(super) fn resource(params: &Params) -> String {
    let mut names: Vec<String> =
        ["LoadBalancerArns.member", "Names.member", "TargetGroupArns.member", "ResourceArns.member"]
            .iter()
            .flat_map(|list| params.list(list))
            .collect();
    names.extend(params.get("LoadBalancerArn").map(str::to_owned));
    names.extend(params.get("TargetGroupArn").map(str::to_owned));
    names.extend(targets(params).unwrap_or_default().into_iter().map(|(id, _)| id));
    names.join(",")
}

/// Does what is asked; describe calls see what was true `age_ms` ago.
pub(super) fn answer(
    world: &mut World,
    params: &Params,
    age_ms: u64,
    request_id: &str,
) -> Result<Answer, Refusal> {
    let view = world.view_at_age(age_ms);
    let action = params.action();
    let content: Content = match action {
        "DescribeLoadBalancers" => load_balancers(&view, params)?,
        "DescribeTargetGroups" => target_groups(&view, params)?,
        "DescribeListeners" => listeners(&view, params)?,
        "DescribeTags" => tags(&view, params)?,
        "DescribeTargetGroupAttributes" => attributes(pool(&view, params.required("TargetGroupArn")?)?),
        "DescribeTargetHealth" => health(&view, params)?,
        "RegisterTargets" => {
            let group = group_of(world, params)?;
            for (id, port) in targets(params)? {
                world.register_target(&group, &id, port)?;
            }
            Box::new(|_| {})
        }
        "DeregisterTargets" => {
            let group = group_of(world, params)?;
            for (id, port) in targets(params)? {
                world.deregister_target(&group, &id, port)?;
            }
            Box::new(|_| {})
        }
        other => {
            let message = format!("Could not find operation {other} for version {VERSION}");
            return Err(Refusal::bad("InvalidAction", message));
        }
    };
    Ok(document(action, NAMESPACE, content, request_id))
}

/// An answer of either version.
pub(super) fn document(action: &str, namespace: &str, content: Content, request_id: &str) -> Answer {
    let body = Xml::document(&format!("{action}Response"), namespace, |x| {
        x.node(&format!("{action}Result"), content);
        x.node("ResponseMetadata", |x| x.text("RequestId", request_id));
    });
    Answer::xml(200, body)
}

fn network(view: &View) -> impl Iterator<Item = &Balancer> {
    view.balancers.values().filter(|b| b.spec.kind == BalancerKind::Network)
}

fn pool<'a>(view: &'a View, arn: &str) -> Result<&'a Pool, Refusal> {
    let pool = view.pools.get(arn).filter(|pool| pool.kind == BalancerKind::Network);
    pool.ok_or_else(|| {
        Refusal::bad("TargetGroupNotFound", format!("One or more target groups not found: '{arn}'"))
    })
}

fn group_of(world: &World, params: &Params) -> Result<String, Refusal> {
    let arn = params.required("TargetGroupArn")?;
    pool(world.view(), arn).map(|pool| pool.key.clone())
}

fn missing(what: &str) -> Refusal {
    Refusal::bad("LoadBalancerNotFound", format!("One or more load balancers not found: '{what}'"))
}

/// `Targets.member.1.Id` and `.Port`, … as far as they go.
fn targets(params: &Params) -> Result<Vec<(String, Option<u16>)>, Refusal> {
    let mut targets = Vec::new();
    for n in 1.. {
        let Some(id) = params.get(&format!("Targets.member.{n}.Id")) else { break };
        targets.push((id.to_owned(), params.number(&format!("Targets.member.{n}.Port"))?));
    }
    Ok(targets)
}

/// One page, its size as asked for.
pub(super) fn page<T>(
    params: &Params,
    found: Vec<T>,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), Refusal> {
    match params.number::<usize>("PageSize")? {
        Some(size) if !(1..=400).contains(&size) => {
            Err(Refusal::bad("ValidationError", format!("PageSize {size} is not between 1 and 400")))
        }
        size => params.page_after(params.get("Marker"), size.or(Some(400)), found, key),
    }
}

fn load_balancers(view: &View, params: &Params) -> Result<Content, Refusal> {
    let (arns, names) = (params.list("LoadBalancerArns.member"), params.list("Names.member"));
    for arn in &arns {
        network(view).find(|b| b.arn == *arn).ok_or_else(|| missing(arn))?;
    }
    for name in &names {
        network(view).find(|b| b.spec.name == *name).ok_or_else(|| missing(name))?;
    }
    let wanted = |b: &&Balancer| {
        (arns.is_empty() || arns.contains(&b.arn)) && (names.is_empty() || names.contains(&b.spec.name))
    };
    let found: Vec<Balancer> = network(view).filter(wanted).cloned().collect();
    let (found, next) = page(params, found, |b| b.spec.name.clone())?;
    Ok(Box::new(move |x| {
        x.node("LoadBalancers", |x| {
            for b in &found {
                x.node("member", |x| load_balancer(x, b));
            }
        });
        x.maybe("NextMarker", next);
    }))
}

fn load_balancer(x: &mut Xml, b: &Balancer) {
    x.text("LoadBalancerArn", &b.arn);
    x.text("LoadBalancerName", &b.spec.name);
    x.text("DNSName", b.address);
    x.text("CreatedTime", clock::iso8601(b.created_ms));
    x.text("Scheme", if b.spec.internal { "internal" } else { "internet-facing" });
    x.text("Type", "network");
    x.text("IpAddressType", "ipv4");
    x.node("State", |x| x.text("Code", if b.active { "active" } else { "provisioning" }));
}

/// The load balancers in front of a pool.
fn fronts<'a>(view: &'a View, pool: &'a str) -> impl Iterator<Item = &'a Balancer> {
    network(view).filter(move |b| b.pool_key == pool)
}

fn target_groups(view: &View, params: &Params) -> Result<Content, Refusal> {
    let arns = params.list("TargetGroupArns.member");
    for arn in &arns {
        pool(view, arn)?;
    }
    let of = match params.get("LoadBalancerArn") {
        None => None,
        Some(arn) => Some(network(view).find(|b| b.arn == arn).ok_or_else(|| missing(arn))?),
    };
    let found: Vec<(Pool, Vec<String>)> = view
        .pools
        .values()
        .filter(|pool| pool.kind == BalancerKind::Network)
        .filter(|pool| arns.is_empty() || arns.contains(&pool.key))
        .filter(|pool| of.is_none_or(|b| b.pool_key == pool.key))
        .map(|pool| (pool.clone(), fronts(view, &pool.key).map(|b| b.arn.clone()).collect()))
        .collect();
    let (found, next) = page(params, found, |(pool, _)| pool.key.clone())?;
    Ok(Box::new(move |x| {
        x.node("TargetGroups", |x| {
            for (pool, fronts) in &found {
                x.node("member", |x| target_group(x, pool, fronts));
            }
        });
        x.maybe("NextMarker", next);
    }))
}

fn target_group(x: &mut Xml, pool: &Pool, fronts: &[String]) {
    let check = &pool.spec.check;
    x.text("TargetGroupArn", &pool.key);
    x.text("TargetGroupName", &pool.spec.name);
    x.text("Protocol", "TCP");
    x.text("Port", pool.spec.port);
    x.text("HealthCheckProtocol", check.protocol.name());
    x.text("HealthCheckPort", "traffic-port");
    x.text("HealthCheckEnabled", true);
    x.text("HealthCheckIntervalSeconds", seconds(check.interval_ms));
    x.text("HealthCheckTimeoutSeconds", seconds(check.timeout_ms));
    x.text("HealthyThresholdCount", check.healthy_threshold);
    x.text("UnhealthyThresholdCount", check.unhealthy_threshold);
    if check.protocol != CheckProtocol::Tcp {
        x.text("HealthCheckPath", &check.path);
        x.node("Matcher", |x| x.text("HttpCode", "200-399"));
    }
    x.node("LoadBalancerArns", |x| {
        for arn in fronts {
            x.text("member", arn);
        }
    });
    x.text("TargetType", "instance");
}

/// AWS counts in seconds; what is shorter here is told as one.
pub(super) fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

fn listeners(view: &View, params: &Params) -> Result<Content, Refusal> {
    let arn = params.required("LoadBalancerArn")?;
    let b = network(view).find(|b| b.arn == arn).ok_or_else(|| missing(arn))?.clone();
    Ok(Box::new(move |x| {
        x.node("Listeners", |x| {
            x.node("member", |x| {
                x.text("ListenerArn", &b.listener_arn);
                x.text("LoadBalancerArn", &b.arn);
                x.text("Port", b.spec.port);
                x.text("Protocol", "TCP");
                x.node("DefaultActions", |x| {
                    x.node("member", |x| {
                        x.text("Type", "forward");
                        x.text("TargetGroupArn", &b.pool_key);
                    });
                });
            });
        });
    }))
}

fn tags(view: &View, params: &Params) -> Result<Content, Refusal> {
    let arns = params.list("ResourceArns.member");
    if arns.len() > 20 {
        return Err(Refusal::bad("ValidationError", "at most 20 resources can be asked for"));
    }
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for arn in arns {
        let tags = if arn.contains(":targetgroup/") {
            pool(view, &arn)?.spec.tags.clone()
        } else {
            network(view).find(|b| b.arn == arn).ok_or_else(|| missing(&arn))?.spec.tags.clone()
        };
        found.push((arn, tags));
    }
    Ok(Box::new(move |x| {
        x.node("TagDescriptions", |x| {
            for (arn, tags) in &found {
                x.node("member", |x| {
                    x.text("ResourceArn", arn);
                    tag_list(x, tags);
                });
            }
        });
    }))
}

pub(super) fn tag_list(x: &mut Xml, tags: &BTreeMap<String, String>) {
    x.node("Tags", |x| {
        for (key, value) in tags {
            x.node("member", |x| {
                x.text("Key", key);
                x.text("Value", value);
            });
        }
    });
}

fn attributes(pool: &Pool) -> Content {
    let attributes = [
        ("deregistration_delay.timeout_seconds", seconds(pool.spec.deregistration_delay_ms).to_string()),
        ("deregistration_delay.connection_termination.enabled", true.to_string()),
        ("preserve_client_ip.enabled", pool.spec.preserve_client_ip.to_string()),
    ];
    Box::new(move |x| {
        x.node("Attributes", |x| {
            for (key, value) in &attributes {
                x.node("member", |x| {
                    x.text("Key", key);
                    x.text("Value", value);
                });
            }
        });
    })
}

fn health(view: &View, params: &Params) -> Result<Content, Refusal> {
    let pool = pool(view, params.required("TargetGroupArn")?)?;
    let used = fronts(view, &pool.key).next().is_some();
    let mut found: Vec<(String, u16, Option<PoolHealth>)> = Vec::new();
    let wanted = targets(params)?;
    if wanted.is_empty() {
        let all = pool.targets.iter();
        found.extend(all.map(|t| (t.instance.to_string(), t.port, Some(t.health.clone()))));
    }
    for (id, port) in wanted {
        let port = port.unwrap_or(pool.spec.port);
        let target = pool.targets.iter().find(|t| t.instance.as_str() == id && t.port == port);
        found.push((id, port, target.map(|t| t.health.clone())));
    }
    Ok(Box::new(move |x| {
        x.node("TargetHealthDescriptions", |x| {
            for (id, port, health) in &found {
                let (state, reason, text) = words(health.as_ref(), used);
                x.node("member", |x| {
                    x.node("Target", |x| {
                        x.text("Id", id);
                        x.text("Port", port);
                    });
                    x.text("HealthCheckPort", port);
                    x.node("TargetHealth", |x| {
                        x.text("State", state);
                        x.maybe("Reason", reason);
                        x.maybe("Description", text);
                    });
                });
            }
        });
    }))
}

/// AWS's state, reason and words.
fn words(
    health: Option<&PoolHealth>,
    used: bool,
) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    match health {
        None => {
            ("unused", Some("Target.NotRegistered"), Some("Target is not registered to the target group"))
        }
        Some(PoolHealth::Draining { .. }) => (
            "draining",
            Some("Target.DeregistrationInProgress"),
            Some("Target deregistration is in progress"),
        ),
        Some(_) if !used => (
            "unused",
            Some("Target.NotInUse"),
            Some("Target group is not configured to receive traffic from the load balancer"),
        ),
        Some(PoolHealth::Initial) => {
            ("initial", Some("Elb.RegistrationInProgress"), Some("Target registration is in progress"))
        }
        Some(PoolHealth::Healthy) => ("healthy", None, None),
        Some(PoolHealth::Unhealthy { .. }) => {
            ("unhealthy", Some("Target.FailedHealthChecks"), Some("Health checks failed"))
        }
    }
}
