//! Auto Scaling's query API (version 2011-01-01), as far as the agent calls it.

use super::Answer;
use super::query::{Filter, Params};
use super::xml::Xml;
use crate::lab::region::clock;
use crate::lab::region::world::{
    Ending, Group, HookResult, HookSpec, Instance, Lifecycle, Refusal, Transition, View, World,
};

const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

/// What a call is about, for the record.
pub(super) fn resource(params: &Params) -> String {
    let mut names = params.list("AutoScalingGroupNames.member");
    names.extend(params.get("AutoScalingGroupName").map(str::to_owned));
    names.extend(params.list("LifecycleHookNames.member"));
    names.extend(params.get("LifecycleHookName").map(str::to_owned));
    names.extend(params.get("InstanceId").map(str::to_owned));
    names.extend(params.list("InstanceIds.member"));
    names.join(",")
}

/// Auto Scaling's form of an error.
pub(super) fn refusal(refusal: &Refusal, request_id: &str) -> Answer {
    let body = Xml::document("ErrorResponse", NAMESPACE, |x| {
        x.node("Error", |x| {
            x.text("Type", if refusal.status < 500 { "Sender" } else { "Receiver" });
            x.text("Code", refusal.code);
            x.text("Message", &refusal.message);
        });
        x.text("RequestId", request_id);
    });
    Answer::xml(refusal.status, body)
}

type Content = Box<dyn FnOnce(&mut Xml)>;

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
        "DescribeAutoScalingGroups" => describe_groups(&view, params)?,
        "DescribeAutoScalingInstances" => describe_instances(&view, params)?,
        "DescribeLifecycleHooks" => describe_hooks(&view, params)?,
        "TerminateInstanceInAutoScalingGroup" => {
            let decrement = match params.required("ShouldDecrementDesiredCapacity")? {
                "true" => true,
                "false" => false,
                other => {
                    let message =
                        format!("ShouldDecrementDesiredCapacity '{other}' is neither true nor false");
                    return Err(Refusal::bad("ValidationError", message));
                }
            };
            let ending = world.terminate_in_group(params.required("InstanceId")?, decrement)?;
            let now = world.now();
            Box::new(move |x| x.node("Activity", |x| activity_content(x, &ending, now)))
        }
        "CompleteLifecycleAction" => {
            let result = match params.required("LifecycleActionResult")? {
                "CONTINUE" => HookResult::Continue,
                "ABANDON" => HookResult::Abandon,
                other => {
                    let message = format!("LifecycleActionResult '{other}' is neither CONTINUE nor ABANDON");
                    return Err(Refusal::bad("ValidationError", message));
                }
            };
            world.complete_lifecycle_action(
                params.required("AutoScalingGroupName")?,
                params.required("LifecycleHookName")?,
                params.get("InstanceId"),
                params.get("LifecycleActionToken"),
                result,
            )?;
            Box::new(|_| {})
        }
        "RecordLifecycleActionHeartbeat" => {
            world.record_heartbeat(
                params.required("AutoScalingGroupName")?,
                params.required("LifecycleHookName")?,
                params.get("InstanceId"),
                params.get("LifecycleActionToken"),
            )?;
            Box::new(|_| {})
        }
        "SetInstanceHealth" => {
            let healthy = match params.required("HealthStatus")? {
                "Healthy" => true,
                "Unhealthy" => false,
                other => {
                    let message = format!("HealthStatus '{other}' is neither Healthy nor Unhealthy");
                    return Err(Refusal::bad("ValidationError", message));
                }
            };
            world.set_instance_health(params.required("InstanceId")?, healthy)?;
            Box::new(|_| {})
        }
        "SetDesiredCapacity" => {
            let desired = params.number("DesiredCapacity")?.ok_or_else(|| {
                Refusal::bad("ValidationError", "The request must contain the parameter DesiredCapacity")
            })?;
            world.set_desired_capacity(params.required("AutoScalingGroupName")?, desired)?;
            Box::new(|_| {})
        }
        other => {
            let message = format!("Could not find operation {other} for version 2011-01-01");
            return Err(Refusal::bad("InvalidAction", message));
        }
    };
    let body = Xml::document(&format!("{action}Response"), NAMESPACE, |x| {
        x.node(&format!("{action}Result"), content);
        x.node("ResponseMetadata", |x| x.text("RequestId", request_id));
    });
    Ok(Answer::xml(200, body))
}

fn page_size(params: &Params, default: usize, most: usize) -> Result<usize, Refusal> {
    match params.number::<usize>("MaxRecords")? {
        None => Ok(default),
        Some(size) if (1..=most).contains(&size) => Ok(size),
        Some(size) => {
            let message = format!("MaxRecords {size} is not between 1 and {most}");
            Err(Refusal::bad("ValidationError", message))
        }
    }
}

fn group_fits(group: &Group, filter: &Filter) -> Result<bool, Refusal> {
    let tags = &group.spec.tags;
    if let Some(key) = filter.name.strip_prefix("tag:") {
        return Ok(tags.get(key).is_some_and(|value| filter.values.contains(value)));
    }
    match filter.name.as_str() {
        "tag-key" => Ok(tags.keys().any(|key| filter.values.contains(key))),
        "tag-value" => Ok(tags.values().any(|value| filter.values.contains(value))),
        other => Err(Refusal::bad("ValidationError", format!("Filter type {other} is not correct."))),
    }
}

/// Groups that do not exist are left out rather than refused, as Auto Scaling does.
fn describe_groups(view: &View, params: &Params) -> Result<Content, Refusal> {
    let names = params.list("AutoScalingGroupNames.member");
    let filters = params.filters("Filters.member", "Values.member");
    let mut found: Vec<Group> = Vec::new();
    for group in view.groups.values().filter(|g| names.is_empty() || names.contains(&g.spec.name)) {
        let mut all = true;
        for filter in &filters {
            all &= group_fits(group, filter)?;
        }
        if all {
            found.push(group.clone());
        }
    }
    let (page, next) = params.page(Some(page_size(params, 50, 100)?), found, |g| g.spec.name.clone())?;
    let page: Vec<(Group, Vec<(Instance, Lifecycle)>)> = page
        .into_iter()
        .map(|group| {
            let members =
                World::members(view, &group.spec.name).map(|(i, l)| (i.clone(), l.clone())).collect();
            (group, members)
        })
        .collect();
    Ok(Box::new(move |x| {
        x.node("AutoScalingGroups", |x| {
            for (group, members) in &page {
                x.node("member", |x| group_content(x, group, members));
            }
        });
        x.maybe("NextToken", next);
    }))
}

fn group_content(x: &mut Xml, group: &Group, members: &[(Instance, Lifecycle)]) {
    let spec = &group.spec;
    x.text("AutoScalingGroupName", &spec.name);
    x.text("AutoScalingGroupARN", &group.arn);
    x.text("MinSize", spec.min);
    x.text("MaxSize", spec.max);
    x.text("DesiredCapacity", group.desired);
    x.text("DefaultCooldown", 300);
    x.node("AvailabilityZones", |x| {
        for zone in &spec.zones {
            x.text("member", zone);
        }
    });
    // A classic load balancer's key ends with its name.
    let (target_groups, classic): (Vec<&String>, Vec<&String>) =
        spec.pools.iter().partition(|key| key.contains(":targetgroup/"));
    x.node("LoadBalancerNames", |x| {
        for name in classic.iter().filter_map(|key| key.rsplit('/').next()) {
            x.text("member", name);
        }
    });
    x.node("TargetGroupARNs", |x| {
        for arn in target_groups {
            x.text("member", arn);
        }
    });
    x.text("HealthCheckType", "EC2");
    x.text("HealthCheckGracePeriod", 0);
    x.text("CreatedTime", clock::iso8601(group.created_ms));
    x.node("Instances", |x| {
        for (instance, lifecycle) in members {
            x.node("member", |x| member_content(x, instance, lifecycle));
        }
    });
    x.node("Tags", |x| {
        for (key, value) in &spec.tags {
            x.node("member", |x| {
                x.text("ResourceId", &spec.name);
                x.text("ResourceType", "auto-scaling-group");
                x.text("Key", key);
                x.text("Value", value);
                x.text("PropagateAtLaunch", true);
            });
        }
    });
}

fn member_content(x: &mut Xml, instance: &Instance, lifecycle: &Lifecycle) {
    x.text("InstanceId", &instance.id);
    x.text("InstanceType", &instance.spec.instance_type);
    x.text("AvailabilityZone", &instance.zone);
    x.text("LifecycleState", lifecycle.state.name());
    x.text("HealthStatus", if lifecycle.healthy { "Healthy" } else { "Unhealthy" });
    x.text("ProtectedFromScaleIn", false);
}

fn activity_content(x: &mut Xml, ending: &Ending, now: u64) {
    let at = clock::iso8601(now);
    x.text("ActivityId", &ending.activity);
    x.text("AutoScalingGroupName", &ending.group);
    x.text("Description", format!("Terminating EC2 instance: {}", ending.instance));
    x.text(
        "Cause",
        format!(
            "At {at} instance {} was taken out of service in response to a user request.",
            ending.instance
        ),
    );
    x.text("StartTime", at);
    x.text("StatusCode", "InProgress");
    x.text("Progress", 0);
    x.text("Details", "{}");
}

/// The hooks of one group. Hooks that do not exist are left out rather than refused.
fn describe_hooks(view: &View, params: &Params) -> Result<Content, Refusal> {
    let name = params.required("AutoScalingGroupName")?.to_owned();
    let names = params.list("LifecycleHookNames.member");
    let group = view.groups.get(&name).ok_or_else(|| {
        Refusal::bad("ValidationError", format!("AutoScalingGroup name not found - {name}"))
    })?;
    let hooks: Vec<HookSpec> = group
        .spec
        .hooks
        .iter()
        .filter(|hook| names.is_empty() || names.contains(&hook.name))
        .cloned()
        .collect();
    Ok(Box::new(move |x| {
        x.node("LifecycleHooks", |x| {
            for hook in &hooks {
                x.node("member", |x| hook_content(x, hook, &name));
            }
        });
    }))
}

fn hook_content(x: &mut Xml, hook: &HookSpec, group: &str) {
    x.text("LifecycleHookName", &hook.name);
    x.text("AutoScalingGroupName", group);
    x.text(
        "LifecycleTransition",
        match hook.transition {
            Transition::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Transition::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        },
    );
    // Whole seconds are told. A laboratory's time-outs may be shorter.
    x.text("HeartbeatTimeout", hook.heartbeat_timeout_ms.div_ceil(1000));
    x.text("GlobalTimeout", hook.global_timeout_ms().div_ceil(1000));
    x.text(
        "DefaultResult",
        match hook.default_result {
            HookResult::Continue => "CONTINUE",
            HookResult::Abandon => "ABANDON",
        },
    );
}

/// Instances that are in no group are left out rather than refused, as Auto Scaling does.
fn describe_instances(view: &View, params: &Params) -> Result<Content, Refusal> {
    let ids = params.list("InstanceIds.member");
    let found: Vec<(Instance, Lifecycle)> = view
        .instances
        .values()
        .filter(|i| ids.is_empty() || ids.iter().any(|id| id == i.id.as_str()))
        .filter_map(|i| i.lifecycle.clone().map(|l| (i.clone(), l)))
        .collect();
    let (page, next) = params.page(Some(page_size(params, 50, 50)?), found, |(i, _)| i.id.to_string())?;
    Ok(Box::new(move |x| {
        x.node("AutoScalingInstances", |x| {
            for (instance, lifecycle) in &page {
                x.node("member", |x| {
                    x.maybe("AutoScalingGroupName", instance.group.as_ref());
                    // This answer has health in capitals, the groups' has not.
                    let health = if lifecycle.healthy { "HEALTHY" } else { "UNHEALTHY" };
                    x.text("InstanceId", &instance.id);
                    x.text("InstanceType", &instance.spec.instance_type);
                    x.text("AvailabilityZone", &instance.zone);
                    x.text("LifecycleState", lifecycle.state.name());
                    x.text("HealthStatus", health);
                    x.text("ProtectedFromScaleIn", false);
                });
            }
        });
        x.maybe("NextToken", next);
    }))
}
