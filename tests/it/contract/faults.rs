//! The weather that only the simulated region can make.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use quorate::lab::region::{FaultKind, FaultSpec, Outcome, Service, World};

use super::endpoints::{Endpoints, SOON, ZONES, tags};
use super::suite::{filter, status, text};

fn fault(service: Service, operation: Option<&str>, kind: FaultKind) -> FaultSpec {
    FaultSpec {
        service,
        operation: operation.map(str::to_owned),
        instance: None,
        kind,
        rate: 1.0,
        count: None,
        seed: Some(1),
    }
}

fn set(e: &Endpoints, spec: FaultSpec) {
    e.region().change(World::clear_faults);
    e.region().change(|w| w.add_fault(spec));
}

#[tokio::test]
async fn each_service_throttles_fails_and_denies_in_its_own_words() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let expected = [
        (FaultKind::Throttle, [(503, "RequestLimitExceeded"), (400, "Throttling"), (503, "SlowDown")]),
        (FaultKind::ServerError, [(500, "InternalError"), (500, "InternalFailure"), (500, "InternalError")]),
        (
            FaultKind::AccessDenied,
            [(403, "UnauthorizedOperation"), (403, "AccessDenied"), (403, "AccessDenied")],
        ),
    ];
    for (kind, [ec2, autoscaling, s3]) in expected {
        set(&e, fault(Service::Ec2, None, kind));
        let error = e.ec2.describe_volumes().send().await.unwrap_err();
        assert_eq!((status(&error), error.code()), (ec2.0, Some(ec2.1)));
        set(&e, fault(Service::Autoscaling, None, kind));
        let error = e.autoscaling.describe_auto_scaling_groups().send().await.unwrap_err();
        assert_eq!((status(&error), error.code()), (autoscaling.0, Some(autoscaling.1)));
        set(&e, fault(Service::S3, None, kind));
        let error = e.s3.get_object().bucket("b").key("k").send().await.unwrap_err();
        assert_eq!((status(&error), error.code()), (s3.0, Some(s3.1)));
    }
}

#[tokio::test]
async fn the_sdk_takes_throttling_for_retryable_and_gets_through() {
    let e = Endpoints::simulated().await;
    let spec = fault(Service::Ec2, Some("DescribeVolumes"), FaultKind::Throttle);
    set(&e, FaultSpec { count: Some(2), ..spec });
    let retry = RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(1));
    let patient = aws_sdk_ec2::Client::from_conf(e.ec2.config().to_builder().retry_config(retry).build());
    patient.describe_volumes().send().await.unwrap();
    let outcomes: Vec<Outcome> = e.region().with(|w| w.calls_after(0).iter().map(|c| c.outcome).collect());
    assert_eq!(outcomes, [Outcome::Throttled, Outcome::Throttled, Outcome::Answered]);
}

#[tokio::test]
async fn a_lost_answer_has_had_its_effect_and_a_lost_request_has_not() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let create = |key| e.s3.put_object().bucket("b").key(key).if_none_match("*").body(text("x")).send();
    for (kind, key, written) in
        [(FaultKind::LostRequest, "request", false), (FaultKind::LostAnswer, "answer", true)]
    {
        set(&e, fault(Service::S3, Some("PutObject"), kind));
        let lost = create(key).await.unwrap_err();
        assert!(lost.raw_response().is_none(), "no answer at all: {lost:?}");
        e.region().change(World::clear_faults);
        assert_eq!(create(key).await.is_err(), written, "{key}");
    }
    set(&e, fault(Service::Ec2, Some("CreateVolume"), FaultKind::LostAnswer));
    let create = || e.ec2.create_volume().availability_zone(ZONES[0]).size(1).client_token("t").send();
    assert!(create().await.unwrap_err().raw_response().is_none());
    e.region().change(World::clear_faults);
    create().await.unwrap();
    assert_eq!(e.region().with(|w| w.view().volumes.len()), 1, "the token found the first volume again");
}

#[tokio::test]
async fn stale_reads_see_the_past_and_objects_never_do() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let stale = FaultKind::StaleRead { max_age_ms: 60_000 };
    e.region().change(|w| w.add_fault(fault(Service::Ec2, None, stale)));
    e.region().change(|w| w.add_fault(fault(Service::S3, None, stale)));
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let mut seen = [0, 0];
    for _ in 0..20 {
        let answer = e.ec2.describe_instances().filters(filter("instance-id", &id)).send().await.unwrap();
        seen[answer.reservations().len()] += 1;
    }
    // The instance is a second old at most, the views up to a minute: nearly all come from before it.
    assert!(seen[0] > seen[1], "{seen:?}");
    for n in 0..20 {
        let body = n.to_string();
        e.s3.put_object().bucket("b").key("k").body(text(&body)).send().await.unwrap();
        let got = e.s3.get_object().bucket("b").key("k").send().await.unwrap();
        assert_eq!(got.body.collect().await.unwrap().to_vec(), body.as_bytes());
    }
}

#[tokio::test]
async fn a_slow_answer_has_its_effect_at_once_and_a_slow_request_late() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let put = |key: &str| e.s3.put_object().bucket("b").key(key).body(text("x")).send();
    let written = |key: &'static str| move |w: &World| w.buckets()["b"].contains_key(key);

    set(&e, fault(Service::S3, Some("PutObject"), FaultKind::SlowAnswer { ms: 1_000 }));
    let answer = tokio::spawn(put("answer"));
    assert!(e.region().wait_until(SOON, written("answer")).await);
    assert!(!answer.is_finished(), "written, and not answered yet");
    answer.await.unwrap().unwrap();

    set(&e, fault(Service::S3, Some("PutObject"), FaultKind::SlowRequest { ms: 1_000 }));
    assert!(tokio::time::timeout(Duration::from_millis(200), put("request")).await.is_err());
    assert!(!e.region().with(written("request")));
    // That nobody waits for the answer any more does not call a delayed write back.
    assert!(e.region().wait_until(SOON, written("request")).await);
}

#[tokio::test]
async fn a_conditional_write_may_be_answered_with_a_conflict_and_others_may_not() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    set(&e, fault(Service::S3, None, FaultKind::Conflict));
    let put = || e.s3.put_object().bucket("b").key("k").body(text("x"));
    let conflict = put().if_none_match("*").send().await.unwrap_err();
    assert_eq!((status(&conflict), conflict.code()), (409, Some("ConditionalRequestConflict")));
    put().send().await.unwrap();
}

#[tokio::test]
async fn a_fault_of_one_instance_spares_the_others() {
    let e = Endpoints::simulated().await;
    let one = e.instance(ZONES[0], &tags(&[])).await;
    let two = e.instance(ZONES[0], &tags(&[])).await;
    let spec = fault(Service::Ec2, None, FaultKind::Throttle);
    set(&e, FaultSpec { instance: Some(one.clone()), ..spec });
    let describe = |id: &str| aws_sdk_ec2::Client::new(&e.config_of(id)).describe_volumes().send();
    assert!(describe(&one).await.is_err());
    assert!(describe(&two).await.is_ok());
    assert!(e.ec2.describe_volumes().send().await.is_ok());
}
