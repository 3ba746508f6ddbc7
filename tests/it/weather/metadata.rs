//! The metadata service and what it carries: user data and tags.

use std::io::Write as _;

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use quorate::agent::setup::{SetupError, learn, retry_after};
use quorate::lab::region::{FaultKind, ImdsFaults, InstanceSpec, Service};
use quorate::model::plan::Subject;
use quorate::model::{Halt, Role, WaitingOn};

use super::sky::{Sky, machine};

/// What is waited for after this refusal, in words.
fn waits(refusal: &SetupError, expected: Subject) -> String {
    match refusal.verdict() {
        Ok(WaitingOn::Answer { about, why }) if about == expected => why,
        other => panic!("{other:?}"),
    }
}

/// Waits until the metadata service's listener is there, or closed.
async fn listens(sky: &Sky, wanted: bool) {
    let address = sky.region.with(|w| w.view().instances[sky.instance.as_str()].imds.unwrap());
    let settled = async {
        loop {
            let refused = match tokio::net::TcpStream::connect(address).await {
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
                Ok(_) => false,
            };
            if refused != wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::contract::endpoints::SOON, settled).await.unwrap();
}

#[tokio::test]
async fn every_trouble_of_the_metadata_service_is_waited_for_by_its_name() {
    let sky = Sky::new(machine()).await;
    let status = |status| ImdsFaults { status: Some(status), ..ImdsFaults::default() };
    let table = [
        (ImdsFaults { absent: true, ..ImdsFaults::default() }, "connection refused"),
        (status(401), "the session token is refused (401)"),
        (status(403), "switched off for this instance (403); switch it on"),
        (status(404), "unexpected status 404; check AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        (status(500), "in trouble (status 500)"),
        (status(503), "in trouble (status 503)"),
        (ImdsFaults { slow_ms: 60_000, ..ImdsFaults::default() }, "no answer in time"),
    ];
    for (faults, words) in table {
        sky.region.change(|w| w.set_imds_faults(&sky.instance, &faults)).unwrap();
        listens(&sky, !faults.absent).await;
        let refusal = sky.refusal().await;
        let why = waits(&refusal, Subject::Identity);
        assert!(why.starts_with("asking the metadata service: ") && why.contains(words), "{faults:?}: {why}");
    }
    sky.region.change(|w| w.set_imds_faults(&sky.instance, &ImdsFaults::default())).unwrap();
    assert_eq!(sky.set_up().await.ok().unwrap().identity.instance.as_str(), sky.instance);
}

#[tokio::test]
async fn a_metadata_service_that_is_late_is_asked_until_it_answers() {
    let late = ImdsFaults { late_ms: 700, ..ImdsFaults::default() };
    let sky = Sky::new(InstanceSpec { imds_faults: late, ..machine() }).await;
    let mut failures = 0;
    let setup = loop {
        match sky.set_up().await {
            Ok(setup) => break setup,
            Err(refusal) => waits(&refusal, Subject::Identity),
        };
        tokio::time::sleep(retry_after(failures)).await;
        failures += 1;
        assert!(failures < 10, "it is never learnt");
    };
    assert!(failures > 0, "it was not late");
    assert_eq!(setup.loaded.settings.role, Role::ControlPlane);
}

#[tokio::test]
async fn tags_that_are_not_published_are_ec2_s_to_tell_and_waited_for() {
    let sky = Sky::new(InstanceSpec { metadata_tags: false, ..machine() }).await;
    sky.fault(Service::Ec2, FaultKind::Throttle);
    let why = waits(&sky.refusal().await, Subject::Settings);
    assert!(
        why.contains("its metadata service does not publish") && why.contains("RequestLimitExceeded"),
        "{why}"
    );
    sky.region.change(quorate::lab::region::World::clear_faults);
    let settings = sky.set_up().await.ok().unwrap().loaded.settings;
    assert_eq!((settings.cluster.as_str(), settings.role), ("demo", Role::ControlPlane));
}

#[tokio::test]
async fn one_question_without_an_answer_is_not_taken_for_something_that_is_not_set() {
    let sky = Sky::new(machine()).await;
    for (path, name) in [
        ("dynamic/instance-identity/document", "instance-identity/document"),
        ("user-data", "user-data"),
        ("meta-data/tags/instance/quorate:role", "quorate:role"),
    ] {
        // What was learnt once is not asked again, so each begins anew.
        let access = sky.access_to(&sky.region.endpoints().aws);
        for (kind, words) in [(FaultKind::ServerError, "in trouble"), (FaultKind::LostAnswer, name)] {
            let spec = quorate::lab::region::FaultSpec {
                service: Service::Imds,
                operation: Some(path.to_owned()),
                instance: None,
                kind,
                rate: 1.0,
                count: None,
                seed: None,
            };
            let fault = sky.region.change(|w| w.add_fault(spec));
            let Err(refusal) = learn(&sky.root(), &access).await else { panic!("{path}: it was learnt") };
            let why = waits(&refusal, Subject::Identity);
            assert!(why.contains(words) && why.contains(name), "{why}");
            sky.region.change(|w| w.clear_fault(fault));
        }
        assert!(learn(&sky.root(), &access).await.is_ok());
    }
}

fn encoded(bytes: &[u8]) -> InstanceSpec {
    let user_data_base64 = Some(base64::engine::general_purpose::STANDARD.encode(bytes));
    InstanceSpec { user_data_base64, ..machine() }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// What is wrong with this user data, as the agent's status has it.
async fn halt(user_data: &[u8]) -> String {
    let refusal = Sky::new(encoded(user_data)).await.refusal().await;
    match refusal.verdict() {
        Err(halt @ Halt::Configuration { .. }) => halt.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn user_data_that_can_not_be_used_halt_with_their_name_and_place() {
    let truncated = gzip("#quorate\netcd:\n  size: 3\n");
    let unending = b"Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n\
        --b\nContent-Type: application/vnd.quorate.config+yaml\n\nclustre: demo\n--b--\n";
    let table: [(&[u8], &str); 4] = [
        (b"cluster: demo\netcd: [1, 2\n", "user data"),
        (b"clustre: demo\nbucket: b-b-b\n", "cluster"),
        (&truncated[..truncated.len() - 9], "gzip"),
        (unending, "clustre"),
    ];
    for (user_data, words) in table {
        let said = halt(user_data).await;
        assert!(said.contains("user data") && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn a_part_of_another_type_is_not_ours_and_says_nothing() {
    let other = b"Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n\
        --b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\nclustre: demo\n--b--\n";
    let sky = Sky::new(encoded(other)).await;
    let loaded = sky.set_up().await.ok().unwrap().loaded;
    assert_eq!(loaded.settings.cluster.as_str(), "demo", "the image's configuration holds");
    assert_eq!(loaded.passed_over.len(), 1, "{:?}", loaded.passed_over);
}

#[tokio::test]
async fn user_data_of_all_their_sixteen_kilobytes_arrive_whole() {
    // The last key lies at the very end: one byte lost, and it reads otherwise.
    let head = "cluster: demo\nbucket: demo-quorate\n";
    let tail = "\ntick: 17s";
    let filler = "#".repeat(16_384 - head.len() - tail.len());
    let sky = Sky::new(encoded(format!("{head}{filler}{tail}").as_bytes())).await;
    let settings = sky.set_up().await.ok().unwrap().loaded.settings;
    assert_eq!(settings.tick.to_string(), "17s");
}
