//! `/metrics`, `/healthz` and `/readyz` of an agent as it is shipped, and their page of documentation.

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::backup::{BackupProgress, Keeping, Rehearsal};
use quorate::model::{
    Alarm, AlarmKind, ChainName, Generation, Halt, MemberId, Mismatch, Noticed, Slot, Waiting, WaitingOn,
    Warning,
};
use quorate::telemetry::metrics::{self, Counters, LookOutcome, StepOutcome};
use quorate::telemetry::status::{KubernetesStatus, MemberStatus, Status};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::docs::{read, rows};
use crate::weather::node::Node;

pub const AT: i64 = 1_700_000_000_000;
const PORT: u16 = 9907;

/// Each metric's name and the names of its labels, by the samples on a page.
fn samples(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        // No label's value here has a comma or a quote in it.
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split_once('=').unwrap().0.to_owned());
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    found
}

/// The same, by the table of the documentation.
pub fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let (_, table) = page.split_once("\n## The metrics\n").unwrap();
    let named = |cell: &str| -> Vec<String> {
        cell.split(", ").map(|name| name.trim_matches([' ', '|', '`']).to_owned()).collect()
    };
    let labels = |cell: &str| named(cell).into_iter().filter(|name| name != "none").collect();
    rows(table).iter().map(|row| (named(row[0]).remove(0), labels(row[1]))).collect()
}

/// Of which everything is known.
pub fn full() -> Status {
    let slot = Slot::try_from(1).unwrap();
    let member = MemberStatus {
        id: MemberId(1),
        name: "etcd-1".to_owned(),
        peer_urls: Vec::new(),
        learner: false,
        healthy: Some(true),
        size: Some(5_000_000),
        in_use: Some(4_000_000),
        quota: Some(8 << 30),
    };
    let mismatch = Mismatch::SlotWithoutMember { slot, zone: "eu-west-1a".parse().unwrap() };
    Status {
        slot: Some(slot),
        halt: Some(Halt::AuthorityLost),
        member: Some(MemberId(1)),
        leader: Some(MemberId(1)),
        members: vec![member],
        revision: Some(77),
        warnings: vec![Warning::WorkersShareZone { zone: "eu-west-1a".to_owned(), workers: 3 }],
        noticed: vec![Noticed { mismatch, since: AT }],
        certificates_end: Some(AT + 1),
        backups: Some(BackupProgress {
            keeping: Some(Keeping::Here),
            taken: Some(AT - 60_000),
            size: Some(4_000_000),
            shipped: Some(76),
            unshipped_since: Some(AT - 2_500),
            rehearsed: Some(Rehearsal {
                at: AT - 3_600_000,
                chain: ChainName::new(Generation(1), 7, "0a1b2c3d").unwrap(),
                revision: Some(70),
                keys: Some(5),
                took_ms: 400,
                error: None,
            }),
            ..BackupProgress::default()
        }),
        alarms: Some(vec![Alarm { member: MemberId(1), kind: AlarmKind::NoSpace }]),
        kubernetes: Some(KubernetesStatus {
            version: "v1.36.2".to_owned(),
            endpoint: None,
            components: [(quorate::kubernetes::Component::ApiServer, None)].into(),
            keeper: Some("i-0123456789abcdef0".to_owned()),
            addons: Some([("coredns".parse().unwrap(), None)].into()),
            workers: Some([("eu-west-1a".to_owned(), 3)].into()),
            load_balancers: None,
            target: None,
        }),
        ..Status::starting(vec![Waiting { on: WaitingOn::Clock, since: AT - 90_500 }], None)
    }
}

pub fn page(status: Option<&Status>) -> String {
    let counters = Counters::default();
    counters.looked(LookOutcome::Planned);
    counters.stepped("startEtcd", StepOutcome::Failed);
    metrics::page(status, &counters, AT).unwrap()
}

#[test]
fn the_metrics_are_those_that_are_documented_and_no_others() {
    let page = page(Some(&full()));
    assert_eq!(samples(&page), documented(), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn metrics_say_what_the_status_says() {
    let told = page(Some(&full()));
    for line in [
        "quorate_looks_total{outcome=\"planned\"} 1",
        "quorate_steps_total{step=\"startEtcd\",outcome=\"failed\"} 1",
        "quorate_phase{phase=\"identifying\"} 1.0",
        "quorate_phase{phase=\"running\"} 0.0",
        "quorate_halted 1.0",
        "quorate_halt{because=\"authorityLost\"} 1.0",
        "quorate_waiting_seconds{on=\"clock\"} 90.5",
        "quorate_warnings{about=\"workersShareZone\"} 1.0",
        "quorate_mismatches{what=\"slotWithoutMember\"} 1.0",
        "quorate_etcd_members{role=\"voter\",health=\"healthy\"} 1.0",
        "quorate_etcd_members{role=\"learner\",health=\"silent\"} 0.0",
        "quorate_etcd_is_leader 1.0",
        "quorate_etcd_database_size_bytes 5000000.0",
        "quorate_etcd_revision 77.0",
        "quorate_etcd_alarms{kind=\"NOSPACE\"} 1.0",
        "quorate_etcd_alarms{kind=\"CORRUPT\"} 0.0",
        "quorate_backup_keeper 1.0",
        "quorate_backup_unshipped_seconds 2.5",
        "quorate_backup_revision 76.0",
        "quorate_backup_rehearsal_succeeded 1.0",
        "quorate_component_ready{component=\"kube-apiserver\"} 1.0",
        "quorate_addons{state=\"applied\"} 1.0",
        "quorate_workers{zone=\"eu-west-1a\"} 3.0",
        "quorate_workers_share_zone 1.0",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
    }
    // A lost quorum is told, and is no gap among the numbers.
    let lost = page(Some(&Status { leader: None, members: Vec::new(), ..full() }));
    assert!(lost.contains("\nquorate_etcd_has_leader 0.0\n"), "{lost}");
    assert!(told.contains("\nquorate_etcd_has_leader 1.0\n") && !lost.contains("quorate_etcd_members"));
    // Whoever does not keep the backups tells nothing else of them.
    let keeping = Some(Keeping::Elsewhere { by: "i-0123456789abcdef0".parse().unwrap() });
    let backups = Some(BackupProgress { keeping, ..BackupProgress::default() });
    let elsewhere = page(Some(&Status { backups, ..full() }));
    let told_of_backups: Vec<_> =
        elsewhere.lines().filter(|line| line.starts_with("quorate_backup")).collect();
    assert_eq!(told_of_backups, ["quorate_backup_keeper 0.0"]);
    // What is not known is not there.
    let unknown = page(Some(&Status::starting(Vec::new(), None)));
    for name in ["etcd", "workers", "waiting_seconds{", "certificates_end", "component"] {
        assert!(!unknown.contains(&format!("\nquorate_{name}")), "{name}: {unknown}");
    }
    assert!(!page(None).contains("quorate_phase"));
}

/// An answer's status, and what follows its headers; `None` when nobody listens.
async fn ask(node: &Node, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((node.machine.identity().address, PORT)).await.ok()?;
    let request = format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_serves_its_metrics_and_tells_whether_its_machine_is_ready() {
    let node = Node::new("monitor").await;
    assert_eq!(ask(&node, "GET /healthz").await, None, "there is no agent yet");
    node.machine.start();
    let status = node.until_running().await;
    let (code, page) = ask(&node, "GET /metrics").await.unwrap();
    assert_eq!(code, 200);
    let known = documented();
    for (name, labels) in samples(&page) {
        assert_eq!(known.get(&name), Some(&labels), "{name}");
    }
    let own = format!("instance=\"{}\"", status.instance.unwrap());
    for words in [
        "quorate_phase{phase=\"running\"} 1.0\n",
        "quorate_etcd_members{role=\"voter\",health=\"healthy\"} 1.0\n",
        "quorate_etcd_is_leader 1.0\n",
        "quorate_steps_total{step=\"startEtcd\",outcome=\"done\"} 1\n",
        &own,
    ] {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    assert_eq!(ask(&node, "GET /healthz").await, Some((200, "ok\n".to_owned())));
    assert_eq!(ask(&node, "GET /readyz").await, Some((200, "running\n".to_owned())));
    // It is read, and nothing else.
    for request in ["POST /metrics", "DELETE /healthz"] {
        assert_eq!(ask(&node, request).await.unwrap().0, 405, "{request}");
    }
    assert_eq!(ask(&node, "GET /status.json").await.unwrap().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_ready_says_why_and_one_that_is_to_be_silent_is() {
    let node = Node::with("not-ready", |settings, _| {
        // Three slots, and one machine: it waits for the others.
        (settings.zones, settings.size) = (3, 3);
    })
    .await;
    node.machine.start();
    node.until_said("to be claimed by other machines").await;
    let (code, why) = ask(&node, "GET /readyz").await.unwrap();
    assert_eq!(code, 503);
    assert!(why.contains("to be claimed by other machines"), "{why}");
    assert_eq!(ask(&node, "GET /healthz").await, Some((200, "ok\n".to_owned())));
    let (_, page) = ask(&node, "GET /metrics").await.unwrap();
    assert!(page.contains("\nquorate_waiting_seconds{on=\"claims\"} "), "{page}");

    let silent = Node::with("silent", |settings, _| {
        settings.configuration.insert("monitoring.listen".to_owned(), json!("off"));
    })
    .await;
    silent.machine.start();
    silent.until_running().await;
    assert_eq!(ask(&silent, "GET /metrics").await, None);
}
