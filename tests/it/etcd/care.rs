//! Looking after etcd for real: what the planner decides is done to the program.

use quorate::model::charter::Charter;
use quorate::model::{
    Alarm, AlarmKind, ComparisonPlace, Comparisons, EtcdCare, Observation, OwnMember, Plan, SlotRecord, Step,
};

use super::*;
use crate::planner::scene::{self, Change as _};

/// What the planner of a machine decides, whose member this is, when it sees this.
fn decided(view: &ClusterView, care: &EtcdCare, own: MemberId) -> Plan {
    let charter: Charter = scene::charter(&[1, 2, 3]);
    let mut view = view.clone();
    view.charter = Some(charter);
    let record = SlotRecord {
        volume: scene::volume(1),
        instance: scene::instance(1),
        peer_url: scene::url(1),
        member: Some(own),
    };
    view.records.insert(slot(1), record);
    view.members.get_mut(&own).expect("the member").peer_urls = vec![scene::url(1)];
    let seen: Observation =
        scene::whole().stamped(scene::member_of(own.0), quorate::model::DataDir::Present).but(|seen| {
            seen.etcd.own = Fact::Known(OwnMember { member: own, learner: false, in_sync: true });
            seen.etcd.cluster = Fact::Known(view);
            seen.etcd.care = Fact::Known(care.clone());
        });
    quorate::plan::plan(&scene::settings_with("etcd: {quota: 64MiB}\n"), &seen)
}

/// Looks as every machine in turn, and does what its planner decides about the databases, until
/// nobody decides anything. What was done, in order.
async fn tended(client: &ClusterClient, nodes: &[Node]) -> Vec<String> {
    let mut done = Vec::new();
    let rounds = async {
        loop {
            let mut quiet = true;
            for node in nodes {
                let (view, care) = retried(async || client.observe_with_care(None).await).await;
                let own = member_named(&view, node.launch.slot);
                for step in decided(&view, &care, own).steps {
                    match &step {
                        Step::CompactEtcd { revision } => client.compact(*revision).await.unwrap(),
                        Step::Defragment { member } => {
                            assert_eq!(*member, own);
                            client.defragment(&node.url(), *member).await.unwrap();
                        }
                        Step::DisarmAlarm { alarm } => client.disarm(*alarm).await.unwrap(),
                        _ => continue,
                    }
                    quiet = false;
                    done.push(format!("{} {}", node.launch.slot, step.name()));
                }
            }
            let (_, care) = retried(async || client.observe_with_care(None).await).await;
            if quiet && care.alarms == Fact::Known(BTreeSet::new()) {
                return;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, rounds).await;
    assert!(ended.is_ok(), "not within {PATIENCE:?}: {done:?}");
    done
}

#[tokio::test]
async fn a_cluster_that_ran_out_of_space_is_compacted_defragmented_and_takes_writes_again() {
    let lab = Lab::new();
    let mut nodes = lab.founders(3);
    nodes.iter_mut().for_each(Node::start);
    let client = client(&nodes.iter().collect::<Vec<_>>());
    formed(&client).await;
    let mut raw = raw(&nodes[0]).await;

    // The same key again and again: all but the last is history.
    let value = vec![b'x'; 1_000_000];
    let mut puts = 0;
    while raw.put("full", value.clone(), None).await.is_ok() {
        puts += 1;
        assert!(puts < 200, "the quota is never reached");
    }
    let (view, care) = retried(async || client.observe_with_care(None).await).await;
    let alarms = care.alarms.known().expect("the alarms are known");
    assert!(alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace), "{care:?}");
    assert_eq!(care.history, Fact::Known(true));
    assert!(care.members.values().all(|member| member.serves == Fact::Known(true)), "{care:?}");
    assert!(view.members.values().any(|member| member.healthy == Fact::Known(false)), "{view:?}");
    let locked = client.take_lock(LockName::Membership, &instance(1)).await;
    assert!(locked.is_err(), "without space there is no lock: {locked:?}");

    let done = tended(&client, &nodes).await;
    let leader = view.leader.expect("a leader");
    let leads = nodes.iter().find(|node| member_named(&view, node.launch.slot) == leader).expect("it");
    let leader = leads.launch.slot;
    assert_eq!(done[0], format!("{leader} compactEtcd"), "{done:?}");
    let defragmented: Vec<_> = done.iter().filter(|did| did.ends_with(" defragment")).collect();
    assert_eq!(defragmented.len(), 3, "{done:?}");
    assert_eq!(*defragmented[2], format!("{leader} defragment"), "the leader is last: {done:?}");
    assert!(done.last().unwrap().ends_with(" disarmAlarm"), "{done:?}");
    raw.put("full", value, None).await.expect("it takes writes again");
    let (_, care) = client.observe_with_care(None).await.unwrap();
    for member in care.members.values() {
        let storage = member.storage.known().expect("its size is known");
        assert!(storage.size < 16 << 20, "{storage:?}");
    }
    let other = client.defragment(&nodes[0].url(), MemberId(1)).await;
    assert!(matches!(other, Err(EtcdError::NoSuchMember { .. })), "{other:?}");
}

#[tokio::test]
async fn a_member_whose_database_was_damaged_is_condemned_by_its_hash() {
    const MINUTE: i64 = 60_000;
    const GOOD: &[u8] = b"what everybody agreed on";
    const BAD: &[u8] = b"what the disk made of it";
    let lab = Lab::new();
    let mut nodes = lab.founders(3);
    nodes.iter_mut().for_each(Node::start);
    let client = client(&nodes.iter().collect::<Vec<_>>());
    formed(&client).await;
    raw(&nodes[0]).await.put("key", GOOD, None).await.unwrap();
    let alike = client.compare(now()).await.unwrap();
    assert_eq!(alike.hashes.len(), 3, "{alike:?}");
    assert_eq!(alike.hashes.values().collect::<BTreeSet<_>>().len(), 1, "{alike:?}");

    // On its disk, while it does not run.
    let database = nodes[2].dir.join("data/member/snap/db");
    let found = |text: &[u8]| {
        let bytes = std::fs::read(&database).expect("the database");
        (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect::<Vec<_>>()
    };
    let written = async {
        while found(GOOD).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the value reaches the database");
    nodes[2].kill();
    let mut bytes = std::fs::read(&database).expect("the database");
    for at in found(GOOD) {
        bytes[at..at + BAD.len()].copy_from_slice(BAD);
    }
    std::fs::write(&database, bytes).expect("the database is damaged");
    // By its own check it would not start.
    nodes[2].start_edited(|text| {
        text.replace("experimental-initial-corrupt-check: true", "experimental-initial-corrupt-check: false")
            .replace("InitialCorruptCheck=true", "InitialCorruptCheck=false")
    });
    let view = formed(&client).await;
    let damaged = member_named(&view, slot(3));

    for ago in [2 * MINUTE, MINUTE] {
        let comparison = client.compare(scene::NOW - ago).await.unwrap();
        client.record_comparison(comparison).await.unwrap();
    }
    let (view, care) = client.observe_with_care(None).await.unwrap();
    let Some(Comparisons { last, before: Some(before) }) = &care.compared else { panic!("{care:?}") };
    assert_eq!((last.at, before.at), (scene::NOW - MINUTE, scene::NOW - 2 * MINUTE));
    for node in &nodes {
        let own = member_named(&view, node.launch.slot);
        let plan = decided(&view, &care, own);
        let set_aside = plan.steps.iter().any(|step| matches!(step, Step::SetDataAside { .. }));
        assert_eq!(set_aside, own == damaged, "{plan:#?}");
    }
}

#[tokio::test]
async fn under_the_alarm_for_corruption_etcd_is_read_compared_and_disarmed() {
    let lab = Lab::new();
    let node = lab.single(1, Generation(1)).await;
    let client = client(&[&node]);
    let own = member_named(&client.observe(None).await.unwrap(), slot(1));
    let mut raw = raw(&node).await;
    let mut about = etcd_client::AlarmOptions::new();
    about.with_member(own.0);
    let (raise, corrupt) = (etcd_client::AlarmAction::Activate, etcd_client::AlarmType::Corrupt);
    raw.maintenance_client().alarm(raise, corrupt, Some(about)).await.unwrap();

    let (view, care) = client.observe_with_care(None).await.unwrap();
    let alarm = Alarm { member: own, kind: AlarmKind::Corrupt };
    assert_eq!(care.alarms, Fact::Known([alarm].into()));
    assert_eq!(view.members[&own].healthy, Fact::Known(false));
    assert!(raw.put("key", "value", None).await.is_err(), "nothing can be written");
    assert!(client.take_lock(LockName::Membership, &instance(1)).await.is_err());
    let comparison = client.compare(now()).await.unwrap();
    assert_eq!(comparison.hashes.keys().collect::<Vec<_>>(), [&own]);
    assert!(client.record_comparison(comparison).await.is_err());
    let machines = Step::CompareHashes { keep: ComparisonPlace::Machine };
    assert!(decided(&view, &care, own).steps.contains(&machines));

    client.disarm(alarm).await.unwrap();
    client.disarm(alarm).await.unwrap();
    assert_eq!(client.observe_with_care(None).await.unwrap().1.alarms, Fact::Known(BTreeSet::new()));
    raw.put("key", "value", None).await.unwrap();
}
