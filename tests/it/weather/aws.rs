//! EC2 and S3 that do not answer as one would like.

use quorate::lab::region::{AccessRule, FaultKind, FaultSpec, Service, World};
use quorate::model::fact::chain;
use quorate::model::plan::Subject;
use quorate::model::{
    Charter, Fact, Founder, Halt, Observation, Phase, Plan, Slot, Step, Waiting, WaitingOn,
};
use quorate::observe::{Depth, Memory};
use quorate::plan::plan;
use quorate::reach::{CHARTER, Reach};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::sky::{BUCKET, Sky, look, look_again, machine};
use crate::contract::endpoints::{SOON, ZONES};

/// A machine that makes its own volume, for which it must know the charter.
async fn creating(sky: &Sky) -> Reach {
    sky.file("etc/quorate/config.d/20.yaml", "etcd: {volume: {source: created}, size: 1}\n");
    sky.reach().await
}

/// Asserts that nothing is known of the charter, that nothing is done, and that what is waited for
/// is said; gives the words.
fn waits_for_the_charter(seen: &Observation, plan: &Plan) -> String {
    assert!(!seen.charter.is_known(), "{:?}", seen.charter);
    assert!(plan.steps.is_empty(), "{plan:?}");
    match plan.report.waiting.as_slice() {
        [WaitingOn::Answer { why, .. }] => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_waited_for_and_said() {
    let sky = Sky::new(machine()).await;
    let reach = creating(&sky).await;
    let (seen, plan) = look(&reach).await;
    let why = waits_for_the_charter(&seen, &plan);
    assert!(why.contains(BUCKET) && why.contains("there is no such bucket; create it"), "{why}");
    assert!(!seen.backups.is_known() && !seen.authority.is_known());
    // Once it is there, the machine goes on.
    sky.region.change(|w| w.create_bucket(BUCKET));
    sky.region
        .change(|w| {
            w.create_group(quorate::lab::region::GroupSpec {
                name: "demo".into(),
                tags: w.view().instances[sky.instance.as_str()].tags.clone(),
                zones: vec![ZONES[0].into()],
                ..quorate::lab::region::GroupSpec::default()
            })
        })
        .unwrap();
    let (seen, plan) = look(&reach).await;
    assert_eq!(seen.charter, Fact::Known(None));
    assert!(matches!(plan.steps.as_slice(), [Step::CreateVolume { .. }]), "{plan:?}");
}

#[tokio::test]
async fn access_denied_by_s3_says_what_to_allow() {
    let sky = Sky::with_bucket().await;
    let reach = creating(&sky).await;
    let rule = |read, list| AccessRule {
        role: "node".into(),
        bucket: BUCKET.into(),
        prefix: String::new(),
        read,
        write: true,
        list,
    };
    // Without the permission to list, S3 does not say that an object is missing.
    for (read, list) in [(false, false), (true, false)] {
        sky.region.change(|w| w.add_access_rule(rule(read, list)));
        let (seen, plan) = look(&reach).await;
        let why = waits_for_the_charter(&seen, &plan);
        assert!(why.contains("access denied; allow s3:GetObject") && why.contains("charter.json"), "{why}");
    }
    sky.region.change(|w| w.add_access_rule(rule(true, true)));
    assert_eq!(look(&reach).await.0.charter, Fact::Known(None));
}

/// A server in place of all of AWS that refuses every request for its time, and does not tell its own.
async fn refuses_the_time() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>";
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16_384];
            // What is asked does not matter; a GET comes in one piece.
            if stream.read(&mut request).await.is_ok() {
                stream.write_all(answer.as_bytes()).await.ok();
            }
        }
    });
    (url, task)
}

#[tokio::test]
async fn a_clock_that_s3_refuses_is_said_to_be_wrong() {
    let sky = Sky::with_bucket().await;
    let (url, task) = refuses_the_time().await;
    let access = sky.access_to(&url);
    let setup = sky.set_up().await.map_err(|error| chain(&error)).unwrap();
    let reach = Reach::new(sky.root(), &access, setup.loaded.settings, setup.identity).await;
    let (seen, plan) = look(&reach).await;
    waits_for_the_charter(&seen, &plan);
    let clock = |why: &str| why.contains("this machine's clock is wrong; set it");
    assert!(matches!(&seen.charter, Fact::Unknown(why) if clock(why)), "{:?}", seen.charter);
    assert!(matches!(&seen.authority, Fact::Unknown(why) if clock(why)), "{:?}", seen.authority);
    assert!(matches!(&seen.backups, Fact::Unknown(why) if clock(why)), "{:?}", seen.backups);
    task.abort();
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_made_up_for_once_s3_has_told_the_time() {
    let sky = Sky::with_bucket().await;
    let reach = creating(&sky).await;
    sky.region.set_clock_offset(20 * 60_000);
    let mut memory = Memory::default();
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert!(plan.steps.is_empty(), "{plan:?}");
    let (seen, _) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!((seen.charter, seen.authority), (Fact::Known(None), Fact::Known(None)));
}

#[tokio::test]
async fn a_charter_that_can_not_be_understood_is_unknown_and_never_absent() {
    let sky = Sky::with_bucket().await;
    let reach = creating(&sky).await;
    for text in ["", "{", "null", "{\"cluster\": \"demo\"}", "\u{feff}{}"] {
        reach.aws.objects.put(CHARTER, text.as_bytes().to_vec()).await.unwrap();
        let (seen, plan) = look(&reach).await;
        let why = waits_for_the_charter(&seen, &plan);
        assert!(why.contains("can't be understood") && why.contains("restore the object"), "{text:?}: {why}");
    }
}

#[tokio::test]
async fn a_region_that_throttles_for_minutes_is_waited_out() {
    let sky = Sky::with_bucket().await;
    let volume = sky.volume(&[("quorate:slot", "1")]);
    let reach = sky.reach().await;
    sky.fault(Service::Ec2, FaultKind::Throttle);
    let mut memory = Memory::default();
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut first = None;
    // Minutes, by the clock of what was seen.
    for minute in 0..5 {
        let (mut seen, _) = look_again(&reach, &mut memory, Depth::Full).await;
        seen.at += minute * 60_000;
        seen.waiting.clone_from(&waiting);
        let plan = plan(&reach.settings, &seen);
        assert!(plan.steps.is_empty() && plan.report.halt.is_none(), "{plan:?}");
        assert!(
            matches!(plan.report.waiting.as_slice(), [WaitingOn::Answer { about: Subject::Volumes, why }]
                if why.contains("RequestLimitExceeded")),
            "{plan:?}"
        );
        waiting = quorate::agent::remember(&waiting, &plan.report.waiting, seen.at);
        let since = *first.get_or_insert(seen.at);
        assert_eq!(waiting[0].since, since, "it is known since when");
    }
    sky.region.change(World::clear_faults);
    let free =
        |w: &World| w.view().volumes[volume.as_str()].state == quorate::lab::region::VolumeState::Available;
    assert!(sky.region.wait_until(SOON, free).await);
    let (_, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert!(
        matches!(plan.steps.as_slice(), [Step::AttachVolume { volume: attached, .. }]
            if attached.as_str() == volume),
        "{plan:?}"
    );
}

#[tokio::test]
async fn a_light_look_asks_s3_and_not_ec2_and_shows_what_the_full_one_did() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    let (full, _) = look_again(&reach, &mut memory, Depth::Full).await;
    let before = sky.region.with(|w| w.calls_after(0).len());
    sky.fault(Service::Ec2, FaultKind::Throttle);
    reach.aws.objects.put(CHARTER, b"{".to_vec()).await.unwrap();
    let (light, _) = look_again(&reach, &mut memory, Depth::Light).await;
    let asked = sky.region.with(|w| w.calls_after(0)).split_off(before);
    // What is announced to the machine is asked of its own metadata service each time.
    let is_asked = |service| matches!(service, Service::S3 | Service::Imds);
    assert!(asked.iter().all(|call| is_asked(call.service)), "{asked:?}");
    assert_eq!((&light.instances, &light.volumes), (&full.instances, &full.volumes));
    assert!(!light.charter.is_known(), "the charter is asked for each time");
    // Nothing is remembered of a service that has not answered yet.
    let (first, _) = look_again(&reach, &mut Memory::default(), Depth::Light).await;
    assert!(!first.volumes.is_known(), "without a full look before it, it is one");
}

#[tokio::test]
async fn a_cluster_of_another_region_is_refused_with_both_regions() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    let zones: Vec<_> = ["a", "b", "c"].map(|zone| format!("eu-north-1{zone}").parse().unwrap()).into();
    let founders = Slot::all(3)
        .map(|slot| Founder {
            slot,
            volume: format!("vol-{:017}", slot.number()).parse().unwrap(),
            instance: format!("i-{:017}", slot.number()).parse().unwrap(),
            peer_url: format!("https://10.0.{slot}.1:2380"),
            started: None,
        })
        .collect();
    let charter = Charter {
        cluster: reach.settings.cluster.clone(),
        uuid: "6f2b1c1e-8f3a-4b52-9f0e-2d7a5c3b1a90".parse().unwrap(),
        region: "eu-north-1".parse().unwrap(),
        generation: quorate::model::Generation(1),
        zones,
        founders,
        recovery: None,
        nonce: "n".parse().unwrap(),
    };
    reach.aws.objects.put(CHARTER, serde_json::to_vec(&charter).unwrap()).await.unwrap();
    let (_, plan) = look(&reach).await;
    let expected =
        Halt::OtherRegion { found: "eu-west-1".parse().unwrap(), expected: "eu-north-1".parse().unwrap() };
    assert_eq!((plan.report.phase, plan.report.halt), (Phase::Halted, Some(expected)));
    assert!(plan.steps.is_empty());
}

#[tokio::test]
async fn of_two_free_volumes_neither_is_taken_and_both_are_named() {
    let sky = Sky::with_bucket().await;
    let mut volumes = [sky.volume(&[]), sky.volume(&[])];
    volumes.sort();
    let free = |w: &World| {
        w.view().volumes.values().all(|v| v.state == quorate::lab::region::VolumeState::Available)
    };
    assert!(sky.region.wait_until(SOON, free).await);
    let reach = sky.reach().await;
    let (_, plan) = look(&reach).await;
    let expected = volumes.each_ref().map(|id| id.parse().unwrap()).to_vec();
    assert_eq!(plan.report.halt, Some(Halt::AmbiguousVolumes { volumes: expected }));
    assert!(plan.steps.is_empty());
    let words = plan.report.halt.unwrap().to_string();
    assert!(volumes.iter().all(|id| words.contains(id)), "{words}");
}

/// Which of the answers that a founding takes are known.
fn known(seen: &Observation) -> [bool; 5] {
    [
        seen.instances.is_known(),
        seen.volumes.is_known(),
        seen.zones.is_known(),
        seen.charter.is_known(),
        seen.backups.is_known(),
    ]
}

#[tokio::test]
async fn lists_serve_again_while_aws_throttles_and_what_must_be_fresh_does_not() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    let (first, _) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!(known(&first), [true; 5]);
    for service in [Service::Ec2, Service::S3] {
        sky.fault(service, FaultKind::Throttle);
    }
    let (again, plan) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!(known(&again), [true, true, true, false, false]);
    assert_eq!((&again.instances, &again.volumes), (&first.instances, &first.volumes));
    assert!(plan.steps.is_empty(), "{plan:?}");

    sky.region.change(World::clear_faults);
    for service in [Service::Ec2, Service::Autoscaling] {
        sky.fault(service, FaultKind::Throttle);
    }
    let (again, _) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!(known(&again), [true; 5]);
    // What this machine does itself is seen.
    memory.before(&Step::TagSlot {
        volume: "vol-0000000000000000a".parse().unwrap(),
        slot: Slot::try_from(1).unwrap(),
    });
    let (again, _) = look_again(&reach, &mut memory, Depth::Full).await;
    assert_eq!(known(&again), [false, false, false, true, true]);
}

#[tokio::test]
async fn a_look_is_made_whole_from_answers_that_never_come_together() {
    let sky = Sky::with_bucket().await;
    let volume = sky.volume(&[]);
    let free =
        |w: &World| w.view().volumes[volume.as_str()].state == quorate::lab::region::VolumeState::Available;
    assert!(sky.region.wait_until(SOON, free).await);
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    // EC2 answers one question a look.
    for (operation, other) in
        [("DescribeInstances", "DescribeVolumes"), ("DescribeVolumes", "DescribeInstances")]
    {
        sky.region.change(World::clear_faults);
        let spec = FaultSpec {
            service: Service::Ec2,
            operation: Some(other.to_owned()),
            instance: None,
            kind: FaultKind::Throttle,
            rate: 1.0,
            count: None,
            seed: None,
        };
        sky.region.change(|w| w.add_fault(spec));
        let (seen, plan) = look_again(&reach, &mut memory, Depth::Full).await;
        let whole = operation == "DescribeVolumes";
        assert_eq!(seen.instances.is_known() && seen.volumes.is_known(), whole);
        let attaches =
            |step: &Step| matches!(step, Step::AttachVolume { volume: of, .. } if of.as_str() == volume);
        assert_eq!(plan.steps.iter().any(attaches), whole, "{plan:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_said_at_once_whatever_was_told_before() {
    let sky = Sky::with_bucket().await;
    let reach = sky.reach().await;
    let mut memory = Memory::default();
    assert!(look_again(&reach, &mut memory, Depth::Full).await.0.volumes.is_known());
    sky.fault(Service::Ec2, FaultKind::AccessDenied);
    let (seen, _) = look_again(&reach, &mut memory, Depth::Full).await;
    assert!(
        matches!(&seen.volumes, Fact::Unknown(why) if why.contains("allow ec2:DescribeVolumes")),
        "{seen:?}"
    );
}
