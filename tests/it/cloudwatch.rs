//! What CloudWatch is told: by the agent's own client in the simulated region, and by an agent as it is shipped.
//!
//! moto does not speak the protocol that the SDK has for CloudWatch, so the region alone is asked; it takes what the
//! service's reference says, and refuses the rest.

use std::collections::{BTreeMap, BTreeSet};

use quorate::aws::{CloudWatchError, Figure, Unit};
use quorate::lab::region::{FaultKind, FaultSpec, Service};
use quorate::model::fact::chain;
use quorate::model::{Phase, Waiting, WaitingOn};
use quorate::telemetry::figures::{NAMESPACE, of};
use quorate::telemetry::status::Status;
use serde_json::json;

use crate::contract::endpoints::Endpoints;
use crate::docs::{read, rows};
use crate::monitor::{AT, full};
use crate::weather::node::Node;

const FIGURE: Figure = Figure { name: "WaitingSeconds", value: 1.5, unit: Unit::Seconds };

async fn put(e: &Endpoints, namespace: &str, figures: &[Figure]) -> Result<(), CloudWatchError> {
    e.agents().await.cloudwatch.put(namespace, &[("Cluster", "demo")], figures, AT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_arrive_as_they_were_told_by_one_call() {
    let e = Endpoints::simulated().await;
    let quorum = Figure { name: "Quorum", value: 1.0, unit: Unit::Count };
    put(&e, NAMESPACE, &[FIGURE, quorum]).await.unwrap();
    let told = e.region().with(|w| w.measured().to_vec());
    let seen: Vec<_> =
        told.iter().map(|figure| (figure.name.as_str(), figure.value, figure.unit.as_str())).collect();
    assert_eq!(seen, [("WaitingSeconds", 1.5, "Seconds"), ("Quorum", 1.0, "Count")]);
    let dimensions: BTreeMap<String, String> = [("Cluster".to_owned(), "demo".to_owned())].into();
    for figure in &told {
        assert_eq!((figure.namespace.as_str(), figure.at_ms), (NAMESPACE, AT));
        assert_eq!(figure.dimensions, dimensions);
    }
    let calls = e.region().with(|w| w.calls_after(0));
    assert_eq!(calls.iter().filter(|call| call.operation == "PutMetricData").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_by_its_name_and_with_what_to_do() {
    let e = Endpoints::simulated().await;
    let error = put(&e, "AWS/EC2", &[FIGURE]).await.unwrap_err();
    assert_eq!(error.source.code(), Some("InvalidParameterValue"), "{error:?}");
    assert!(!error.is_retryable());
    for (kind, retryable, words) in [
        (FaultKind::AccessDenied, false, "allow cloudwatch:PutMetricData"),
        (FaultKind::Throttle, true, "Throttling"),
        (FaultKind::ServerError, true, "InternalFailure"),
    ] {
        let spec = FaultSpec {
            service: Service::CloudWatch,
            operation: None,
            instance: None,
            kind,
            rate: 1.0,
            count: Some(1),
            seed: None,
        };
        e.region().change(|w| w.add_fault(spec));
        let error = put(&e, NAMESPACE, &[FIGURE]).await.unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{error:?}");
        assert!(chain(&error).contains(words), "{}", chain(&error));
    }
    put(&e, NAMESPACE, &[FIGURE]).await.unwrap();
}

fn told(status: &Status) -> BTreeMap<&'static str, f64> {
    of(status, AT + 5_000).iter().map(|figure| (figure.name, figure.value)).collect()
}

#[test]
fn the_figures_say_what_the_status_says_and_are_those_that_are_documented() {
    let all = told(&full());
    let page = read("docs/monitoring.md");
    let (_, section) = page.split_once("\n## CloudWatch\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let documented: BTreeMap<&str, &str> =
        rows(section).iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
    let real: BTreeMap<&str, &str> = of(&full(), AT)
        .iter()
        .map(|figure| {
            let unit = match figure.unit {
                Unit::Count => "Count",
                Unit::Seconds => "Seconds",
            };
            (figure.name, unit)
        })
        .collect();
    assert_eq!(real, documented);
    assert_eq!((all["MemberHealthy"], all["Quorum"], all["ApiReady"]), (1.0, 1.0, 1.0));
    assert_eq!((all["BackupAge"], all["WaitingSeconds"], all["Halted"]), (65.0, 95.0, 1.0));
    let day = 86_400_000;
    let other = Status {
        halt: None,
        leader: None,
        members: Vec::new(),
        certificates_end: Some(AT + 20 * day),
        backups: None,
        phase: Phase::Standby,
        waiting: vec![Waiting { on: WaitingOn::FreeSlot, since: AT - 9_000_000 }],
        ..full()
    };
    let other = told(&other);
    assert_eq!((other["MemberHealthy"], other["Quorum"], other["Halted"]), (0.0, 0.0, 0.0));
    assert_eq!((other["CertificateDaysLeft"], other["WaitingSeconds"]), (19.0, 0.0));
    assert!(!other.contains_key("BackupAge"), "another machine tells it");
    // Of what is not known nothing is told.
    let unknown: BTreeSet<&str> = told(&Status::starting(Vec::new(), None)).into_keys().collect();
    assert_eq!(unknown, ["Halted", "WaitingSeconds"].into());
}

#[test]
fn the_permission_is_documented() {
    let page = read("docs/permissions.md");
    let (_, section) = page.split_once("\n## CloudWatch\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let actions: Vec<String> = rows(section).iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(actions, ["cloudwatch:PutMetricData"]);
    assert!(section.contains(&format!("`cloudwatch:namespace` = `{NAMESPACE}`")));
    let source = read("src/aws/cloudwatch.rs");
    assert_eq!(source.matches("self.client").count(), 1, "one call, and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_tells_cloudwatch_when_it_is_to_and_only_then() {
    let node = Node::with("cloudwatch", |settings, _| {
        settings.configuration.insert("monitoring.cloudwatch".to_owned(), json!("on"));
    })
    .await;
    node.machine.start();
    let names = |node: &Node| -> BTreeSet<String> {
        node.lab.region().with(|w| w.measured().iter().map(|figure| figure.name.clone()).collect())
    };
    let found = node
        .lab
        .wait("figures", crate::weather::node::PATIENCE, |_| {
            let found = names(&node);
            if found.contains("WaitingSeconds") { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
        .unwrap();
    assert!(found.contains("Halted"), "{found:?}");
    let silent = Node::new("no-cloudwatch").await;
    silent.machine.start();
    silent.until_running().await;
    assert_eq!(names(&silent), BTreeSet::new());
}
