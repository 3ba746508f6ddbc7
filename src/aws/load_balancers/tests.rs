//! Load balancers in good and bad weather.

use super::super::testing::{Reply, Request, Server, answer, cluster};
use super::*;
use crate::model::fact::chain;

const GROUP: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/api/0123456789abcdef";
const BALANCER: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/api/0123456789abcdef";

fn told(request: &Request, inside: &str) -> Reply {
    let action = request.field("Action");
    answer(200, format!("<{action}Response><{action}Result>{inside}</{action}Result></{action}Response>"))
}

fn error(code: &str) -> Reply {
    answer(
        400,
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>"
        ),
    )
}

/// What makes a load balancer fit or not.
#[derive(Clone, Copy)]
struct Made {
    kind: &'static str,
    state: &'static str,
    protocol: &'static str,
    listens: bool,
}

const FIT: Made = Made { kind: "network", state: "active", protocol: "TCP", listens: true };

/// One load balancer with one target group, as AWS tells of them.
fn one(request: &Request, made: Made) -> Reply {
    let Made { kind, state, protocol, listens } = made;
    let inside = match request.field("Action").as_str() {
        "DescribeLoadBalancers" => format!(
            "<LoadBalancers><member><LoadBalancerArn>{BALANCER}</LoadBalancerArn><DNSName>api.example.com</DNSName>\
             <LoadBalancerName>api</LoadBalancerName><Scheme>internal</Scheme><Type>{kind}</Type>\
             <State><Code>{state}</Code></State></member></LoadBalancers>"
        ),
        "DescribeTargetGroups" => format!(
            "<TargetGroups><member><TargetGroupArn>{GROUP}</TargetGroupArn><Protocol>{protocol}</Protocol>\
             <Port>6443</Port><HealthCheckProtocol>HTTPS</HealthCheckProtocol><HealthCheckPort>traffic-port\
             </HealthCheckPort><HealthCheckPath>/readyz</HealthCheckPath><LoadBalancerArns><member>{BALANCER}\
             </member></LoadBalancerArns><TargetType>instance</TargetType></member></TargetGroups>"
        ),
        "DescribeListeners" if listens => format!(
            "<Listeners><member><Port>443</Port><Protocol>{protocol}</Protocol><DefaultActions><member>\
             <Type>forward</Type><TargetGroupArn>{GROUP}</TargetGroupArn></member></DefaultActions></member>\
             </Listeners>"
        ),
        "DescribeListeners" => "<Listeners/>".to_owned(),
        "DescribeTargetGroupAttributes" => {
            "<Attributes><member><Key>deregistration_delay.timeout_seconds</Key><Value>300</Value></member>\
             </Attributes>"
                .to_owned()
        }
        other => panic!("{other}"),
    };
    told(request, &inside)
}

async fn server(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> (Server, LoadBalancers) {
    let server = Server::start(handler).await;
    let client = (**server.clients(1).await.load_balancers).clone();
    (server, client)
}

async fn found(made: Made) -> FoundLoadBalancers {
    let (_server, client) = server(move |request| one(request, made)).await;
    client.target_groups(&[GROUP.parse().unwrap()]).await.unwrap()
}

async fn the_one() -> LoadBalancer {
    found(FIT).await.fit.remove(0)
}

#[tokio::test]
async fn only_an_active_network_load_balancer_with_a_tcp_listener_is_fit() {
    let lb = the_one().await;
    assert_eq!((lb.port, lb.target_port, lb.deregistration_delay_s), (443, 6443, 300));
    assert!(lb.preserves_client_address, "the default, where targets are instances");
    for (made, why) in [
        (Made { kind: "application", ..FIT }, Unfit::NotNetwork),
        (Made { state: "provisioning", ..FIT }, Unfit::NotActive),
        (Made { state: "failed", ..FIT }, Unfit::NotActive),
        (Made { protocol: "TLS", ..FIT }, Unfit::NotTcp),
        (Made { listens: false, ..FIT }, Unfit::NoListener),
    ] {
        let found = found(made).await;
        let ([], [unfit]) = (&found.fit[..], &found.unfit[..]) else { panic!("{found:?}") };
        assert_eq!((unfit.what.as_str(), unfit.why), (GROUP, why));
    }
}

#[tokio::test]
async fn a_list_that_fails_half_way_is_no_list() {
    for reply in
        [error("Throttling"), answer(200, ""), answer(200, "<A><B>"), Reply::Cut, error("AccessDenied")]
    {
        for failing in [
            "DescribeLoadBalancers",
            "DescribeListeners",
            "DescribeTargetGroups",
            "DescribeTargetGroupAttributes",
        ] {
            let reply = reply.clone();
            let (_server, client) =
                server(
                    move |request| {
                        if request.field("Action") == failing { reply.clone() } else { one(request, FIT) }
                    },
                )
                .await;
            assert!(client.target_groups(&[GROUP.parse().unwrap()]).await.is_err(), "{failing}");
        }
        let reply = reply.clone();
        let (_server, client) = server(move |_| reply.clone()).await;
        assert!(client.by_tag(&cluster()).await.is_err());
        assert!(client.by_name("api").await.is_err());
        assert!(client.classic(&["api".to_owned()]).await.is_err());
    }
}

#[tokio::test]
async fn the_states_of_a_target_are_told_apart() {
    let cases = [
        ("healthy", "", TargetHealth::Healthy),
        ("initial", "Elb.RegistrationInProgress", TargetHealth::Initial),
        ("draining", "Target.DeregistrationInProgress", TargetHealth::Draining),
        (
            "unhealthy",
            "Target.FailedHealthChecks",
            TargetHealth::Unhealthy { reason: "words (Target.FailedHealthChecks)".to_owned() },
        ),
        ("unused", "Target.NotRegistered", TargetHealth::NotRegistered),
        ("unused", "Target.NotInUse", TargetHealth::Unused { reason: "words (Target.NotInUse)".to_owned() }),
        ("new-state", "X", TargetHealth::Unavailable { reason: "new-state words (X)".to_owned() }),
    ];
    let lb = the_one().await;
    let target = TargetId::from("i-0123456789abcdef0");
    for (state, reason, health) in cases {
        let (server, client) = server(move |request| {
            told(request, &format!(
                "<TargetHealthDescriptions><member><Target><Id>i-0123456789abcdef0</Id><Port>6443</Port></Target>\
                 <TargetHealth><State>{state}</State><Reason>{reason}</Reason><Description>words</Description>\
                 </TargetHealth></member></TargetHealthDescriptions>"
            ))
        })
        .await;
        assert_eq!(client.target_health(&lb, &target, 6443).await.unwrap(), health);
        let seen = &server.seen()[0];
        assert_eq!(seen.field("Targets.member.1.Id"), "i-0123456789abcdef0");
        assert_eq!(seen.field("Targets.member.1.Port"), "6443");
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let lb = the_one().await;
    let target = TargetId::from("i-0123456789abcdef0");
    for (code, throttled, retryable, not_there, advice) in [
        ("Throttling", true, true, false, false),
        ("AccessDenied", false, false, false, true),
        ("TargetGroupNotFound", false, false, true, false),
        ("InvalidTarget", false, true, false, false),
        ("TooManyTargets", false, false, false, false),
    ] {
        let (_server, client) = server(move |_| error(code)).await;
        let refused = client.register_target(&lb, &target, 6443).await.unwrap_err();
        assert_eq!(
            (refused.is_throttled(), refused.is_retryable(), refused.is_not_there()),
            (throttled, retryable, not_there),
            "{code}"
        );
        let text = chain(&refused);
        assert_eq!(text.contains("allow elasticloadbalancing:RegisterTargets"), advice, "{text}");
    }
    // Who can't be a target is out already.
    let (_server, client) = server(|_| error("InvalidTarget")).await;
    client.deregister_target(&lb, &target, 6443).await.unwrap();
    assert_eq!(client.target_health(&lb, &target, 6443).await.unwrap(), TargetHealth::NotRegistered);
}
