//! The metadata service in good and bad weather.

use super::super::testing::{Reply, Request, SECRETS, Server, access, answer, hasty_access};
use super::*;

/// As the EC2 user guide shows one.
const DOCUMENT: &str = r#"{
    "devpayProductCodes" : null,
    "marketplaceProductCodes" : [ "1abc2defghijklm3nopqrs4tu" ],
    "availabilityZone" : "eu-west-1b",
    "privateIp" : "10.0.2.7",
    "version" : "2017-09-30",
    "instanceId" : "i-0123456789abcdef0",
    "billingProducts" : null,
    "instanceType" : "m7g.large",
    "accountId" : "123456789012",
    "imageId" : "ami-5fb8c835",
    "pendingTime" : "2026-01-19T16:32:11Z",
    "architecture" : "x86_64",
    "kernelId" : null,
    "ramdiskId" : null,
    "region" : "eu-west-1"
}"#;

/// A healthy service; `special` may answer a path in its place.
async fn service(mut special: impl FnMut(&Request) -> Option<Reply> + Send + 'static) -> Server {
    Server::start(move |request| special(request).unwrap_or_else(|| healthy(request))).await
}

fn token(value: &str) -> Reply {
    Reply::Answer(200, vec![("x-aws-ec2-metadata-token-ttl-seconds", "600".to_owned())], value.into())
}

fn healthy(request: &Request) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") => token("session-4711"),
        _ if request.header("x-aws-ec2-metadata-token").is_empty() => answer(401, ""),
        (_, document::PATH) => answer(200, DOCUMENT),
        (_, "/latest/meta-data/instance-life-cycle") => answer(200, "spot"),
        (_, "/latest/meta-data/tags/instance/") => answer(200, "Name\nquorate:cluster"),
        (_, "/latest/meta-data/tags/instance/quorate:cluster") => answer(200, "prod"),
        _ => answer(404, ""),
    }
}

fn client_of(server: &Server, attempts: u32) -> MetadataService {
    access(&server.url, attempts).metadata().clone()
}

/// A client with the patience that a reply asks for.
fn client_for(reply: &Reply, server: &Server, attempts: u32) -> MetadataService {
    match reply {
        Reply::Silence => hasty_access(&server.url, attempts).metadata().clone(),
        _ => client_of(server, attempts),
    }
}

/// The error of a service that answers what is asked for (not for tokens) so.
async fn error_of(reply: Reply) -> MetadataError {
    let told = reply.clone();
    let server = service(move |request| (request.method == "GET").then(|| told.clone())).await;
    client_for(&reply, &server, 1).identity().await.unwrap_err()
}

#[tokio::test]
async fn the_identity_is_what_the_service_says() {
    let server = service(|_| None).await;
    let identity = client_of(&server, 1).identity().await.unwrap();
    assert_eq!(identity.instance.as_str(), "i-0123456789abcdef0");
    assert_eq!(identity.region.as_str(), "eu-west-1");
    assert_eq!(identity.zone.as_str(), "eu-west-1b");
    assert_eq!(identity.address.to_string(), "10.0.2.7");
    let seen = server.seen();
    assert_eq!(seen.iter().filter(|request| request.method == "PUT").count(), 1, "one token does for all");
    assert!(seen.iter().skip(1).all(|request| request.header("x-aws-ec2-metadata-token") == "session-4711"));
}

#[tokio::test]
async fn user_data_come_byte_for_byte() {
    let bytes: Vec<u8> = [0x1f, 0x8b, 0x08, 0x00, 0xff, 0xfe, b'\n'].into_iter().chain(0..=255).collect();
    let sent = bytes.clone();
    let server =
        service(move |request| (request.path == "/latest/user-data").then(|| answer(200, &sent))).await;
    assert_eq!(client_of(&server, 1).user_data().await.unwrap(), Some(bytes));
}

#[tokio::test]
async fn empty_user_data_are_empty_and_missing_ones_are_none() {
    let server = service(|_| None).await;
    assert_eq!(client_of(&server, 1).user_data().await.unwrap(), None);
    let server = service(|request| (request.path == "/latest/user-data").then(|| answer(200, ""))).await;
    assert_eq!(client_of(&server, 1).user_data().await.unwrap(), Some(Vec::new()));
}

#[tokio::test]
async fn user_data_without_an_answer_are_not_taken_for_none() {
    for reply in [answer(503, ""), answer(403, ""), Reply::Cut, Reply::Half, Reply::Silence] {
        let told = reply.clone();
        let server =
            service(move |request| (request.path == "/latest/user-data").then(|| told.clone())).await;
        assert!(client_for(&reply, &server, 1).user_data().await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn a_tag_is_a_value_or_not_set_or_not_published() {
    let server = service(|_| None).await;
    let client = client_of(&server, 1);
    assert_eq!(client.tag("quorate:cluster").await.unwrap(), PublishedTag::Value("prod".to_owned()));
    assert_eq!(client.tag("quorate:role").await.unwrap(), PublishedTag::NotSet);
    let server = service(|request| request.path.contains("/tags/").then(|| answer(404, ""))).await;
    assert_eq!(client_of(&server, 1).tag("quorate:role").await.unwrap(), PublishedTag::NotPublished);
}

#[tokio::test]
async fn a_tag_without_an_answer_is_not_taken_for_not_set() {
    let server = service(|request| request.path.ends_with("/tags/instance/").then(|| answer(500, ""))).await;
    let error = client_of(&server, 1).tag("quorate:role").await.unwrap_err();
    assert!(matches!(error, MetadataError::Unavailable { status: 500, .. }), "{error:?}");
}

#[test]
fn a_key_is_one_segment_of_the_path() {
    assert_eq!(encoded("quorate:cluster"), "quorate:cluster");
    assert_eq!(encoded("a b/ü"), "a%20b%2F%C3%BC");
}

#[tokio::test]
async fn each_status_has_its_name() {
    let error = error_of(answer(403, "")).await;
    assert!(matches!(error, MetadataError::SwitchedOff { .. }) && !error.is_retryable(), "{error:?}");
    let error = error_of(answer(404, "")).await;
    assert!(matches!(error, MetadataError::NotSet { .. }) && error.is_retryable(), "{error:?}");
    let error = error_of(answer(503, "")).await;
    assert!(
        matches!(error, MetadataError::Unavailable { status: 503, .. }) && error.is_retryable(),
        "{error:?}"
    );
    let error = error_of(answer(400, "")).await;
    assert!(matches!(error, MetadataError::Status { status: 400, .. }) && !error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn each_silence_has_its_name() {
    let error = error_of(Reply::Silence).await;
    assert!(matches!(error, MetadataError::TimedOut { .. }) && error.is_retryable(), "{error:?}");
    for reply in [Reply::Cut, Reply::Half] {
        let error = error_of(reply).await;
        assert!(matches!(error, MetadataError::Broken { .. }) && error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_from_silence() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = access(&url, 1).metadata().identity().await.unwrap_err();
    assert!(matches!(error, MetadataError::Refused { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_service_that_gives_no_token_has_its_status_named() {
    type Is = fn(&MetadataError) -> bool;
    let cases: [(Reply, Is); 5] = [
        (answer(403, ""), |error| matches!(error, MetadataError::SwitchedOff { .. })),
        (answer(401, ""), |error| matches!(error, MetadataError::TokenRefused { .. })),
        (answer(404, ""), |error| matches!(error, MetadataError::Status { status: 404, .. })),
        (answer(500, ""), |error| matches!(error, MetadataError::Unavailable { .. })),
        (Reply::Silence, |error| matches!(error, MetadataError::TimedOut { .. })),
    ];
    for (reply, is) in cases {
        let told = reply.clone();
        let server = service(move |request| (request.method == "PUT").then(|| told.clone())).await;
        let error = client_for(&reply, &server, 1).user_data().await.unwrap_err();
        assert!(is(&error), "{reply:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let mut tokens = 0;
    let server = service(move |request| match request.method.as_str() {
        "PUT" => {
            tokens += 1;
            Some(token(&format!("token-{tokens}")))
        }
        _ => (request.header("x-aws-ec2-metadata-token") == "token-1").then(|| answer(401, "")),
    })
    .await;
    let client = client_of(&server, 1);
    assert!(client.identity().await.is_ok());
    assert!(client.identity().await.is_ok());
    assert_eq!(server.seen().iter().filter(|request| request.method == "PUT").count(), 2);

    let error = error_of(answer(401, "")).await;
    assert!(matches!(error, MetadataError::TokenRefused { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn what_fails_once_is_tried_again() {
    for reply in [answer(500, ""), Reply::Cut, Reply::Silence] {
        let mut fails = Some(reply.clone());
        let server = service(move |request| if request.method == "GET" { fails.take() } else { None }).await;
        assert!(client_for(&reply, &server, 4).identity().await.is_ok(), "{reply:?}");
    }
}

/// The refusal of this identity document.
async fn refusal_of(document: String) -> MetadataError {
    let server =
        service(move |request| (request.path == document::PATH).then(|| answer(200, &document))).await;
    client_of(&server, 1).identity().await.unwrap_err()
}

#[tokio::test]
async fn a_document_that_does_not_say_who_the_machine_is_is_refused_with_what_was_found() {
    let without = |field: &str| {
        let mut document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        document.as_object_mut().unwrap().remove(field).unwrap();
        document.to_string()
    };
    for (document, words) in [
        (
            "<html>login</html>".to_owned(),
            "found \"<html>login</html>\", expected an instance identity document",
        ),
        ("{}".to_owned(), "found \"\", expected an EC2 instance id as `instanceId`"),
        (DOCUMENT.replace("i-0123456789abcdef0", "i-47"), "found \"i-47\", expected an EC2 instance id"),
        (without("region"), "expected a region's name as `region`"),
        (DOCUMENT.replace("eu-west-1b", "?"), "found \"?\", expected an availability zone's name"),
        (without("privateIp"), "expected an IPv4 address as `privateIp`"),
        (DOCUMENT.replace("10.0.2.7", "2001:db8::7"), "found \"2001:db8::7\", expected an IPv4 address"),
        (DOCUMENT.replace("\"10.0.2.7\"", "7"), "expected an instance identity document in JSON"),
        (DOCUMENT[..300].to_owned(), "expected an instance identity document in JSON"),
    ] {
        let error = refusal_of(document).await;
        let text = chain(&error);
        assert!(
            text.contains("/latest/dynamic/instance-identity/document") && text.contains(words),
            "{text}"
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_document_of_a_later_format_names_the_address_otherwise() {
    let later = DOCUMENT.replace("privateIp", "privateIPv4Address").replace("\"m7g.large\"", "null");
    let server = service(move |request| (request.path == document::PATH).then(|| answer(200, &later))).await;
    let client = client_of(&server, 1);
    assert_eq!(client.identity().await.unwrap().address.to_string(), "10.0.2.7");
    assert_eq!(client.instance_type().await.unwrap(), None);
}

#[tokio::test]
async fn what_never_changes_is_asked_once_by_however_many_at_a_time() {
    let server = service(|_| None).await;
    let client = client_of(&server, 1);
    let (identity, kind, capacity, again) = tokio::join!(
        client.identity(),
        client.instance_type(),
        client.capacity_type(),
        client.capacity_type()
    );
    assert_eq!(identity.unwrap(), client.identity().await.unwrap());
    assert_eq!(kind.unwrap().as_deref(), Some("m7g.large"));
    assert_eq!((capacity.unwrap(), again.unwrap()), (Some(CapacityType::Spot), Some(CapacityType::Spot)));
    let asked: Vec<String> = server.seen().into_iter().map(|request| request.path).collect();
    let [token, mut rest @ ..] = <[String; 3]>::try_from(asked).unwrap();
    rest.sort();
    assert_eq!(token, "/latest/api/token");
    assert_eq!(rest, [document::PATH, "/latest/meta-data/instance-life-cycle"]);
}

#[tokio::test]
async fn what_was_not_told_is_asked_again() {
    let mut fails = Some(answer(500, ""));
    let server = service(move |request| if request.method == "GET" { fails.take() } else { None }).await;
    let client = client_of(&server, 1);
    assert!(client.capacity_type().await.is_err());
    assert_eq!(client.capacity_type().await.unwrap(), Some(CapacityType::Spot));
    let server =
        service(|request| request.path.ends_with("life-cycle").then(|| answer(200, "lent-by-a-friend")))
            .await;
    assert_eq!(client_of(&server, 1).capacity_type().await.unwrap(), None);
}

#[tokio::test]
async fn no_secret_is_printed() {
    let server = service(|_| None).await;
    let access = access(&server.url, 1);
    access.metadata().identity().await.unwrap();
    let printed = format!("{access:?} {:?}", server.clients(1).await);
    for secret in SECRETS.into_iter().chain(["session-4711"]) {
        assert!(!printed.contains(secret), "{secret}");
    }
}

/// The service of a machine that is told these things.
async fn announcing(told: &'static [(&'static str, &'static str)]) -> Server {
    service(move |request| {
        let path = request.path.strip_prefix("/latest/meta-data/")?;
        told.iter().find(|(name, _)| *name == path).map(|(_, text)| answer(200, text))
    })
    .await
}

#[tokio::test]
async fn what_ec2_and_the_group_announce_is_told_with_its_times() {
    use crate::model::departure::{SpotAction, TargetState};
    let server = announcing(&[
        ("autoscaling/target-lifecycle-state", "Terminated"),
        ("spot/instance-action", r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#),
        ("events/recommendations/rebalance", r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#),
        (
            "events/maintenance/scheduled",
            r#"[{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot",
                "EventId": "instance-event-0d59937288b749b32", "NotAfter": "21 Jan 2019 09:17:23 GMT",
                "State": "active"},
               {"NotBefore": "1 Jan 2019 09:00:43 GMT", "Code": "instance-stop", "Description": "[Canceled]",
                "EventId": "instance-event-1", "NotAfter": "1 Jan 2019 09:17:23 GMT", "State": "canceled"}]"#,
        ),
    ])
    .await;
    let client = client_of(&server, 1);
    assert_eq!(client.target_state().await.unwrap(), Some(TargetState::Terminated));
    let spot = client.spot_interruption().await.unwrap().unwrap();
    assert_eq!((spot.action, spot.at), (SpotAction::Terminate, 1_505_722_920_000));
    assert_eq!(client.rebalance_recommendation().await.unwrap(), Some(1_603_786_920_000));
    let [event] = &client.scheduled_maintenance().await.unwrap()[..] else { panic!() };
    assert_eq!((event.code.as_str(), event.not_before), ("system-reboot", 1_548_061_243_000));
}

#[tokio::test]
async fn nothing_announced_is_a_definite_answer() {
    let server = announcing(&[("events/maintenance/scheduled", "[]")]).await;
    let client = client_of(&server, 1);
    assert_eq!(client.target_state().await.unwrap(), None);
    assert_eq!(client.spot_interruption().await.unwrap(), None);
    assert_eq!(client.rebalance_recommendation().await.unwrap(), None);
    assert_eq!(client.scheduled_maintenance().await.unwrap(), []);
}

#[tokio::test]
async fn an_announcement_that_can_not_be_read_is_no_answer() {
    let server = announcing(&[
        ("spot/instance-action", r#"{"action": "explode", "time": "2017-09-18T08:22:00Z"}"#),
        ("events/recommendations/rebalance", r#"{"noticeTime": "soon"}"#),
        (
            "events/maintenance/scheduled",
            r#"[{"NotBefore": "tomorrow", "Code": "instance-stop", "State": "active"}]"#,
        ),
    ])
    .await;
    let client = client_of(&server, 1);
    assert!(matches!(client.spot_interruption().await, Err(MetadataError::Malformed { .. })));
    assert!(matches!(client.rebalance_recommendation().await, Err(MetadataError::Malformed { .. })));
    assert!(matches!(client.scheduled_maintenance().await, Err(MetadataError::Malformed { .. })));
    let down = service(|request| (request.method == "GET").then(|| answer(503, ""))).await;
    assert!(client_of(&down, 1).target_state().await.is_err());
}
