//! Auto Scaling in good and bad weather.

use super::super::testing::{Reply, Request, Server, answer, cluster, ec2_error};
use super::*;
use crate::model::departure::HookResult;
use crate::model::fact::chain;

const TARGETS: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/api/0123456789abcdef";

fn group(name: &str, instances: &str) -> String {
    format!(
        "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><AvailabilityZones>\
         <member>eu-west-1b</member><member>eu-west-1a</member></AvailabilityZones>\
         <Instances>{instances}</Instances><LoadBalancerNames><member>old</member></LoadBalancerNames>\
         <TargetGroupARNs><member>{TARGETS}</member></TargetGroupARNs></member>"
    )
}

fn instance(id: &str, state: &str, health: &str) -> String {
    format!(
        "<member><InstanceId>{id}</InstanceId><AvailabilityZone>eu-west-1a</AvailabilityZone>\
         <LifecycleState>{state}</LifecycleState><HealthStatus>{health}</HealthStatus></member>"
    )
}

fn groups(members: &str, next: &str) -> Reply {
    let next = if next.is_empty() { String::new() } else { format!("<NextToken>{next}</NextToken>") };
    answer(
        200,
        format!(
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>{members}\
             </AutoScalingGroups>{next}</DescribeAutoScalingGroupsResult><ResponseMetadata><RequestId>R1</RequestId>\
             </ResponseMetadata></DescribeAutoScalingGroupsResponse>"
        ),
    )
}

async fn server(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> (Server, AutoScaling) {
    let server = Server::start(handler).await;
    let client = (**server.clients(1).await.autoscaling).clone();
    (server, client)
}

#[tokio::test]
async fn groups_of_all_pages_are_told_with_zones_and_instances() {
    let (server, client) = server(|request| match request.field("NextToken").as_str() {
        "" => {
            let instances = instance("i-0000000b", "InService", "Healthy")
                + &instance("i-0000000a", "Terminating:Wait", "UNHEALTHY");
            groups(&group("b", &instances), "more")
        }
        _ => groups(&group("a", ""), ""),
    })
    .await;
    let found = client.groups(&cluster(), Role::ControlPlane, &[]).await.unwrap();
    assert_eq!(found.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(found[0].zones.iter().map(Zone::as_str).collect::<Vec<_>>(), ["eu-west-1a", "eu-west-1b"]);
    assert_eq!(found[0].target_groups.iter().map(TargetGroupArn::as_str).collect::<Vec<_>>(), [TARGETS]);
    assert_eq!(found[0].classic_load_balancers, ["old"]);
    let [first, second] = &found[1].instances[..] else { panic!("{found:?}") };
    assert_eq!(
        (first.id.as_str(), first.lifecycle.as_str(), first.healthy),
        ("i-0000000a", "Terminating:Wait", false)
    );
    assert_eq!(
        (second.id.as_str(), second.lifecycle.as_str(), second.healthy),
        ("i-0000000b", "InService", true)
    );
    for request in server.seen() {
        assert_eq!(request.field("Filters.member.1.Name"), "tag:quorate:cluster");
        assert_eq!(request.field("Filters.member.1.Values.member.1"), "prod");
        assert_eq!(request.field("Filters.member.2.Name"), "tag:quorate:role");
        assert_eq!(request.field("Filters.member.2.Values.member.1"), "control-plane");
    }
}

#[tokio::test]
async fn a_group_that_is_named_and_not_there_is_an_error() {
    let (server, client) = server(|_| groups(&group("a", ""), "")).await;
    let names = ["a".to_owned(), "b".to_owned()];
    let error = client.groups(&cluster(), Role::ControlPlane, &names).await.unwrap_err();
    assert!(matches!(&error, AutoScalingError::NoSuchGroups { names } if names[..] == ["b"]), "{error:?}");
    assert_eq!(server.seen()[0].field("AutoScalingGroupNames.member.2"), "b");
    assert_eq!(client.groups(&cluster(), Role::ControlPlane, &names[..1]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn half_a_list_or_none_is_an_error() {
    for reply in [
        ec2_error(400, "Throttling", "Rate exceeded"),
        answer(200, ""),
        answer(200, "<DescribeAutoScalingGroupsResponse/>"),
        answer(
            200,
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>",
        ),
        groups(&group("b", &instance("not-an-id", "InService", "Healthy")), ""),
        Reply::Cut,
    ] {
        let told = reply.clone();
        let (_server, client) = server(move |request| match request.field("NextToken").as_str() {
            "" => groups(&group("a", ""), "more"),
            _ => told.clone(),
        })
        .await;
        assert!(client.groups(&cluster(), Role::Worker, &[]).await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn throttling_and_denial_are_told_apart() {
    fn error(code: &str) -> Reply {
        answer(
            400,
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>"
            ),
        )
    }
    let (_server, client) = server(|_| error("Throttling")).await;
    let throttled = client.groups(&cluster(), Role::Worker, &[]).await.unwrap_err();
    assert!(throttled.is_throttled() && throttled.is_retryable(), "{throttled:?}");
    let (_server, client) = server(|_| error("AccessDenied")).await;
    let denied = client.groups(&cluster(), Role::Worker, &[]).await.unwrap_err();
    assert!(!denied.is_throttled() && !denied.is_retryable(), "{denied:?}");
    assert!(chain(&denied).contains("allow autoscaling:DescribeAutoScalingGroups"), "{}", chain(&denied));
}

#[tokio::test]
async fn an_instance_is_given_up_whatever_grace_its_group_gives() {
    let told = "<SetInstanceHealthResponse><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></SetInstanceHealthResponse>";
    let (server, client) = server(move |_| answer(200, told)).await;
    client.set_unhealthy(&"i-00000001".parse().unwrap()).await.unwrap();
    let request = &server.seen()[0];
    assert_eq!(request.field("Action"), "SetInstanceHealth");
    assert_eq!(request.field("InstanceId"), "i-00000001");
    assert_eq!(request.field("HealthStatus"), "Unhealthy");
    assert_eq!(request.field("ShouldRespectGracePeriod"), "false");

    let denied = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>m</Message></Error></ErrorResponse>";
    let (_server, client) = self::server(move |_| answer(400, denied)).await;
    let error = client.set_unhealthy(&"i-00000001".parse().unwrap()).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(chain(&error).contains("allow autoscaling:SetInstanceHealth"), "{}", chain(&error));
}

/// An answer to one of these operations.
fn answered(operation: &str, result: &str) -> Reply {
    answer(
        200,
        format!("<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>"),
    )
}

fn refused(code: &str, message: &str) -> Reply {
    let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
    answer(400, format!("<ErrorResponse><Error>{error}</Error></ErrorResponse>"))
}

fn me() -> InstanceId {
    "i-0000000a".parse().unwrap()
}

#[tokio::test]
async fn where_an_instance_stands_in_its_group_is_told_and_that_it_is_in_none() {
    use crate::model::departure::LifecycleState;
    const OPERATION: &str = "DescribeAutoScalingInstances";
    let listed = |state: &str| {
        format!(
            "<AutoScalingInstances><member><InstanceId>i-0000000a</InstanceId>\
             <AutoScalingGroupName>workers</AutoScalingGroupName><LifecycleState>{state}</LifecycleState>\
             </member></AutoScalingInstances>"
        )
    };
    for (state, expected) in [
        ("Pending:Wait", LifecycleState::PendingWait),
        ("Terminating:Wait", LifecycleState::TerminatingWait),
        ("InService", LifecycleState::Other("InService".to_owned())),
    ] {
        let reply = answered(OPERATION, &listed(state));
        let (_server, client) = server(move |_| reply.clone()).await;
        let found = client.membership(&me()).await.unwrap().unwrap();
        assert_eq!((found.group.as_str(), found.state), ("workers", expected));
    }
    let none = answered(OPERATION, "<AutoScalingInstances/>");
    let (_server, client) = server(move |_| none.clone()).await;
    assert_eq!(client.membership(&me()).await.unwrap(), None);
    for no_answer in [refused("Throttling", "Rate exceeded"), answer(200, ""), Reply::Cut] {
        let (_server, client) = server(move |_| no_answer.clone()).await;
        assert!(client.membership(&me()).await.is_err());
    }
}

#[tokio::test]
async fn a_hook_is_found_by_its_name_among_others() {
    let hooks = "<LifecycleHooks><member><LifecycleHookName>other</LifecycleHookName>\
                 <HeartbeatTimeout>30</HeartbeatTimeout></member><member>\
                 <LifecycleHookName>quorate-terminate</LifecycleHookName>\
                 <HeartbeatTimeout>300</HeartbeatTimeout></member></LifecycleHooks>";
    let reply = answered("DescribeLifecycleHooks", hooks);
    let (_server, client) = server(move |_| reply.clone()).await;
    let found = client.hook("workers", "quorate-terminate").await.unwrap().unwrap();
    assert_eq!(found.heartbeat_timeout_s, 300);
    assert_eq!(client.hook("workers", "quorate-launch").await.unwrap(), None);
}

#[tokio::test]
async fn a_hook_that_holds_nothing_any_more_is_done_with_and_any_other_refusal_is_an_error() {
    const GONE: &str = "No active Lifecycle Action found with instance ID i-0000000a";
    for (reply, done) in [
        (answered("CompleteLifecycleAction", ""), true),
        (refused("ValidationError", GONE), true),
        (refused("ValidationError", "AutoScalingGroup name not found"), false),
        (refused("AccessDenied", "no"), false),
    ] {
        let (seen, client) = server(move |_| reply.clone()).await;
        let told = client.complete_hook("workers", "quorate-terminate", &me(), HookResult::Abandon).await;
        assert_eq!(told.is_ok(), done, "{told:?}");
        assert_eq!(seen.seen()[0].field("LifecycleActionResult"), "ABANDON");
        if let Err(error) = told
            && chain(&error).contains("AccessDenied")
        {
            assert!(chain(&error).contains("allow autoscaling:CompleteLifecycleAction"), "{}", chain(&error));
        }
    }
    for (reply, done) in [
        (answered("RecordLifecycleActionHeartbeat", ""), true),
        (refused("ValidationError", GONE), true),
        (refused("Throttling", "Rate exceeded"), false),
    ] {
        let (_server, client) = server(move |_| reply.clone()).await;
        assert_eq!(client.heartbeat("workers", "quorate-terminate", &me()).await.is_ok(), done);
    }
}
