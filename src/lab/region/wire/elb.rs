//! Elastic Load Balancing's query API for classic load balancers (version 2012-06-01), as far as the
//! agent calls it.

use super::Answer;
use super::elbv2::{document, page, seconds, tag_list};
use super::query::Params;
use super::xml::Xml;
use crate::lab::region::clock;
use crate::lab::region::world::{
    Balancer, BalancerKind, CheckProtocol, Pool, PoolHealth, Refusal, View, World,
};

const VERSION: &str = "2012-06-01";
const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2012-06-01/";

type Content = Box<dyn FnOnce(&mut Xml)>;

/// What a call is about, for the record.
pub(super) fn resource(params: &Params) -> String {
    let mut names = params.list("LoadBalancerNames.member");
    names.extend(params.get("LoadBalancerName").map(str::to_owned));
    names.extend(instances(params));
    names.join(",")
}

/// `Instances.member.1.InstanceId`, … as far as they go.
fn instances(params: &Params) -> Vec<String> {
    (1..).map_while(|n| params.get(&format!("Instances.member.{n}.InstanceId")).map(str::to_owned)).collect()
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
        "DescribeTags" => tags(&view, params)?,
        "DescribeLoadBalancerAttributes" => {
            let delay = pool(&view, params.required("LoadBalancerName")?)?.spec.deregistration_delay_ms;
            Box::new(move |x| {
                x.node("LoadBalancerAttributes", |x| {
                    x.node("ConnectionDraining", |x| {
                        x.text("Enabled", delay > 0);
                        x.text("Timeout", seconds(delay));
                    });
                });
            })
        }
        "DescribeInstanceHealth" => health(&view, params)?,
        "RegisterInstancesWithLoadBalancer" | "DeregisterInstancesFromLoadBalancer" => {
            let name = params.required("LoadBalancerName")?;
            let key = pool(world.view(), name)?.key.clone();
            for id in instances(params) {
                if action.starts_with("Register") {
                    world.register_target(&key, &id, None)?;
                } else {
                    world.deregister_target(&key, &id, None)?;
                }
            }
            let left = instance_list(pool(world.view(), name)?);
            Box::new(move |x| instances_content(x, &left))
        }
        other => {
            let message = format!("Could not find operation {other} for version {VERSION}");
            return Err(Refusal::bad("InvalidAction", message));
        }
    };
    Ok(document(action, NAMESPACE, content, request_id))
}

fn balancer<'a>(view: &'a View, name: &str) -> Result<&'a Balancer, Refusal> {
    let balancer = view.balancers.get(name).filter(|b| b.spec.kind == BalancerKind::Classic);
    balancer.ok_or_else(|| {
        Refusal::bad("LoadBalancerNotFound", format!("There is no ACTIVE Load Balancer named '{name}'"))
    })
}

fn pool<'a>(view: &'a View, name: &str) -> Result<&'a Pool, Refusal> {
    let key = &balancer(view, name)?.pool_key;
    view.pools.get(key).ok_or_else(|| Refusal::new(500, "InternalFailure", "a load balancer without a pool"))
}

fn instance_list(pool: &Pool) -> Vec<String> {
    let gone = |health: &PoolHealth| matches!(health, PoolHealth::Draining { .. });
    pool.targets.iter().filter(|t| !gone(&t.health)).map(|t| t.instance.to_string()).collect()
}

fn instances_content(x: &mut Xml, instances: &[String]) {
    x.node("Instances", |x| {
        for id in instances {
            x.node("member", |x| x.text("InstanceId", id));
        }
    });
}

fn load_balancers(view: &View, params: &Params) -> Result<Content, Refusal> {
    let names = params.list("LoadBalancerNames.member");
    for name in &names {
        balancer(view, name)?;
    }
    let mut found: Vec<(Balancer, Vec<String>)> = Vec::new();
    for b in view.balancers.values().filter(|b| b.spec.kind == BalancerKind::Classic) {
        if names.is_empty() || names.contains(&b.spec.name) {
            found.push((b.clone(), instance_list(pool(view, &b.spec.name)?)));
        }
    }
    let (found, next) = page(params, found, |(b, _)| b.spec.name.clone())?;
    Ok(Box::new(move |x| {
        x.node("LoadBalancerDescriptions", |x| {
            for (b, instances) in &found {
                x.node("member", |x| load_balancer(x, b, instances));
            }
        });
        x.maybe("NextMarker", next);
    }))
}

fn load_balancer(x: &mut Xml, b: &Balancer, instances: &[String]) {
    let pool = &b.spec.pool;
    x.text("LoadBalancerName", &b.spec.name);
    x.text("DNSName", b.address);
    x.node("ListenerDescriptions", |x| {
        x.node("member", |x| {
            x.node("Listener", |x| {
                x.text("Protocol", "TCP");
                x.text("LoadBalancerPort", b.spec.port);
                x.text("InstanceProtocol", "TCP");
                x.text("InstancePort", pool.port);
            });
            x.node("PolicyNames", |_| {});
        });
    });
    instances_content(x, instances);
    x.node("HealthCheck", |x| {
        let path = if pool.check.protocol == CheckProtocol::Tcp { "" } else { &pool.check.path };
        x.text("Target", format!("{}:{}{path}", pool.check.protocol.name(), pool.port));
        x.text("Interval", seconds(pool.check.interval_ms));
        x.text("Timeout", seconds(pool.check.timeout_ms));
        x.text("UnhealthyThreshold", pool.check.unhealthy_threshold);
        x.text("HealthyThreshold", pool.check.healthy_threshold);
    });
    x.text("CreatedTime", clock::iso8601(b.created_ms));
    x.text("Scheme", if b.spec.internal { "internal" } else { "internet-facing" });
}

fn tags(view: &View, params: &Params) -> Result<Content, Refusal> {
    let names = params.list("LoadBalancerNames.member");
    if names.len() > 20 {
        return Err(Refusal::bad("ValidationError", "at most 20 load balancers can be asked for"));
    }
    let mut found = Vec::new();
    for name in names {
        let tags = balancer(view, &name)?.spec.tags.clone();
        found.push((name, tags));
    }
    Ok(Box::new(move |x| {
        x.node("TagDescriptions", |x| {
            for (name, tags) in &found {
                x.node("member", |x| {
                    x.text("LoadBalancerName", name);
                    tag_list(x, tags);
                });
            }
        });
    }))
}

fn health(view: &View, params: &Params) -> Result<Content, Refusal> {
    let pool = pool(view, params.required("LoadBalancerName")?)?;
    let mut found = Vec::new();
    let wanted = instances(params);
    let all = if wanted.is_empty() { instance_list(pool) } else { wanted };
    for id in all {
        let target = pool.targets.iter().find(|t| t.instance.as_str() == id);
        if target.is_none() && !view.instances.contains_key(id.as_str()) {
            return Err(Refusal::bad("InvalidInstance", format!("Could not find EC2 instance {id}.")));
        }
        found.push((id, target.map(|t| t.health.clone())));
    }
    Ok(Box::new(move |x| {
        x.node("InstanceStates", |x| {
            for (id, health) in &found {
                // Source: InstanceState, API reference 2012-06-01.
                let (state, code, text) = match health {
                    Some(PoolHealth::Healthy) => ("InService", "N/A", "N/A"),
                    Some(PoolHealth::Draining { .. }) => {
                        ("InService", "ELB", "Instance deregistration currently in progress.")
                    }
                    Some(PoolHealth::Initial) => {
                        ("OutOfService", "ELB", "Instance registration is still in progress.")
                    }
                    None => (
                        "OutOfService",
                        "Instance",
                        "Instance is not currently registered with the LoadBalancer.",
                    ),
                    Some(PoolHealth::Unhealthy { .. }) => (
                        "OutOfService",
                        "Instance",
                        "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.",
                    ),
                };
                x.node("member", |x| {
                    x.text("InstanceId", id);
                    x.text("State", state);
                    x.text("ReasonCode", code);
                    x.text("Description", text);
                });
            }
        });
    }))
}
