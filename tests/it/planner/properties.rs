//! What holds for every observation, the contradictory ones too.

use proptest::prelude::*;
use quorate::model::*;

use super::care::{Cared as _, alarmed, condemned, condemned_here, full, hollow};
use super::departure::{dying, leaving};
use super::recovery::{begun, lost, recovering, second, settled};
use super::scene::*;

type Twist = fn(&mut Observation);

/// Where an observation begins.
const BASES: [fn() -> Observation; 18] = [
    scene,
    whole,
    || scene().chartered(charter(&[])),
    || scene().chartered(charter(&[2])),
    || scene().chartered(charter(&[1])).stamped(starting(), DataDir::Absent),
    || scene().chartered(charter(&[1, 2])).stamped(starting(), DataDir::Present),
    || scene().chartered(charter(&[1, 2, 3])).replaced().quorate(&[2, 3], None),
    || scene().chartered(charter(&[1, 2, 3])).stamped(joining(1), DataDir::Present).serving(1, true, true),
    || scene().chartered(charter(&[1, 2, 3])).stamped(member_of(1), DataDir::Present).replaced(),
    lost,
    settled,
    recovering,
    || second(DataDir::Absent),
    || second(DataDir::Present),
    || begun(second(DataDir::Present)),
    leaving,
    || leaving().but(dying),
    || leaving().but(|seen| seen.at = NOW + 2 * HOUR),
];

fn own_volume(seen: &mut Observation) -> Option<&mut Volume> {
    match &mut seen.volumes {
        Fact::Known(volumes) => volumes.get_mut(&volume(1)),
        Fact::Unknown(_) => None,
    }
}

fn view(seen: &mut Observation) -> Option<&mut ClusterView> {
    match &mut seen.etcd.cluster {
        Fact::Known(view) => Some(view),
        Fact::Unknown(_) => None,
    }
}

fn disk(seen: &mut Observation) -> Option<&mut Disk> {
    match &mut seen.disk {
        Fact::Known(disk) => disk.as_mut(),
        Fact::Unknown(_) => None,
    }
}

fn holds(seen: &mut Observation) -> Option<&mut VolumeContents> {
    match disk(seen).map(|disk| &mut disk.holds) {
        Some(Fact::Known(holds)) => Some(holds),
        Some(Fact::Unknown(_)) | None => None,
    }
}

fn state(seen: &mut Observation, state: StampState) {
    if let Some(VolumeContents { stamp: Fact::Known(Some(stamp)), .. }) = holds(seen) {
        stamp.state = state;
    }
}

/// Changes, each small, that together contradict each other in every way.
const TWISTS: [Twist; 54] = [
    |seen| *seen = seen.clone().chartered(charter(&[])),
    |seen| *seen = seen.clone().chartered(charter(&[1])),
    |seen| *seen = seen.clone().chartered(charter(&[2, 3])),
    |seen| *seen = seen.clone().chartered(charter(&[3, 1, 2])),
    |seen| *seen = seen.clone().chartered(Charter { generation: Generation(2), ..charter(&[2]) }),
    |seen| *seen = seen.clone().chartered(Charter { founders: Vec::new(), ..charter(&[]) }),
    |seen| *seen = seen.clone().chartered(Charter { zones: Vec::new(), ..charter(&[]) }),
    |seen| seen.charter = Fact::Known(None),
    |seen| seen.backups = Fact::Known(true),
    |seen| seen.authority = Fact::Known(None),
    |seen| seen.leaves = Fact::Known(None),
    |seen| seen.clock_synchronised = Fact::Known(false),
    |seen| *seen = seen.clone().quorate(&[1, 2, 3], None),
    |seen| *seen = seen.clone().quorate(&[2, 3], None),
    |seen| *seen = seen.clone().quorate(&[2, 3], Some(1)),
    |seen| *seen = seen.clone().serving(1, false, true),
    |seen| *seen = seen.clone().serving(9, true, true),
    |seen| *seen = seen.clone().serving(1, true, false),
    |seen| seen.etcd.service = Fact::Known(ServiceState::Running),
    |seen| seen.etcd.service = Fact::Known(ServiceState::Failed("x".to_owned())),
    |seen| seen.etcd.launch = Fact::Known(Some(launch(LaunchState::New))),
    |seen| seen.etcd.version = Fact::Known("3.4.0".parse().unwrap()),
    |seen| state(seen, StampState::Formatted),
    |seen| state(seen, starting()),
    |seen| state(seen, joining(1)),
    |seen| state(seen, member_of(9)),
    |seen| holds(seen).into_iter().for_each(|holds| holds.data = DataDir::Absent),
    |seen| holds(seen).into_iter().for_each(|holds| holds.data = DataDir::Unborn),
    |seen| holds(seen).into_iter().for_each(|holds| holds.data = DataDir::Present),
    |seen| holds(seen).into_iter().for_each(|holds| holds.stamp = Fact::Known(None)),
    |seen| disk(seen).into_iter().for_each(|disk| disk.content = Fact::Known(Content::Blank)),
    |seen| disk(seen).into_iter().for_each(|disk| disk.mount = Fact::Known(None)),
    |seen| disk(seen).into_iter().for_each(|disk| disk.device = None),
    |seen| seen.disk = Fact::Known(None),
    |seen| own_volume(seen).into_iter().for_each(|volume| volume.stamp = None),
    |seen| own_volume(seen).into_iter().for_each(|volume| volume.stamp = Some("member 1 1".to_owned())),
    |seen| own_volume(seen).into_iter().for_each(|volume| volume.slot = None),
    |seen| own_volume(seen).into_iter().for_each(|volume| *volume = free(1)),
    |seen| view(seen).into_iter().for_each(|view| view.lock = Some(instance(2))),
    |seen| view(seen).into_iter().for_each(|view| view.records.clear()),
    |seen| view(seen).into_iter().for_each(|view| view.members.clear()),
    |seen| view(seen).into_iter().for_each(|view| view.members.values_mut().for_each(|m| m.learner = true)),
    |seen| view(seen).into_iter().for_each(|view| view.charter = None),
    |seen| view(seen).into_iter().for_each(|view| view.leader = Some(MemberId(1))),
    |seen| *seen = seen.clone().cared(),
    |seen| *seen = full(seen.clone().cared()),
    |seen| *seen = hollow(seen.clone().cared()),
    |seen| *seen = alarmed(seen.clone().cared(), 1, AlarmKind::NoSpace),
    |seen| *seen = alarmed(seen.clone().cared(), 1, AlarmKind::Corrupt),
    |seen| *seen = condemned(seen.clone().cared(), 1),
    |seen| *seen = condemned_here(seen.clone()),
    |seen| seen.etcd.silence = Some(Silence { since: 0, looks: 99 }),
    |seen| {
        let wedge = WedgeNote { member: MemberId(1), restarted: NOW - HOUR, given_up: None };
        seen.etcd.notes = Fact::Known(CareNotes { wedge: Some(wedge), compared: None });
    },
    |seen| {
        let on = [
            WaitingOn::Quorum,
            WaitingOn::InSync,
            WaitingOn::Claims { missing: Vec::new(), majority: true },
            WaitingOn::ConfirmedGone { what: volume(1).to_string() },
            WaitingOn::ConfirmedGone { what: instance(1).to_string() },
        ];
        seen.waiting.extend(on.map(|on| Waiting { on, since: 0 }));
    },
];

/// An answer each that can fail to come.
const FORGET: [(&str, Twist); 22] = [
    ("identity", |seen| seen.identity = Fact::unknown("lost")),
    ("clock", |seen| seen.clock_synchronised = Fact::unknown("lost")),
    ("instances", |seen| seen.instances = Fact::unknown("lost")),
    ("volumes", |seen| seen.volumes = Fact::unknown("lost")),
    ("zones", |seen| seen.zones = Fact::unknown("lost")),
    ("charter", |seen| seen.charter = Fact::unknown("lost")),
    ("backups", |seen| seen.backups = Fact::unknown("lost")),
    ("chosen", |seen| seen.chosen = Fact::unknown("lost")),
    ("published", |seen| seen.published = Fact::unknown("lost")),
    ("authority", |seen| seen.authority = Fact::unknown("lost")),
    ("leaves", |seen| seen.leaves = Fact::unknown("lost")),
    ("disk", |seen| seen.disk = Fact::unknown("lost")),
    ("version", |seen| seen.etcd.version = Fact::unknown("lost")),
    ("service", |seen| seen.etcd.service = Fact::unknown("lost")),
    ("own", |seen| seen.etcd.own = Fact::unknown("lost")),
    ("care", |seen| seen.etcd.care = Fact::unknown("lost")),
    ("notes", |seen| seen.etcd.notes = Fact::unknown("lost")),
    ("target", |seen| seen.departure.target = Fact::unknown("lost")),
    ("membership", |seen| seen.departure.membership = Fact::unknown("lost")),
    ("hook", |seen| seen.departure.hook = Fact::unknown("lost")),
    ("node", |seen| seen.departure.node = Fact::unknown("lost")),
    ("placing", |seen| seen.departure.placing = Fact::unknown("lost")),
];

fn observations() -> impl Strategy<Value = Observation> {
    let base = prop::sample::select(&BASES[..]);
    let twists = prop::collection::vec(prop::sample::select(&TWISTS[..]), 0..6);
    let blanks = prop::collection::vec(prop::sample::select(&FORGET[..]), 0..2);
    (base, twists, blanks).prop_map(|(base, twists, blanks)| {
        let mut seen = base();
        twists.iter().for_each(|twist| twist(&mut seen));
        blanks.iter().for_each(|(_, forget)| forget(&mut seen));
        seen
    })
}

/// The steps that must never come from knowing less: each as it is, but for a start as `new`, which
/// is one whether etcd's configuration has to be written for it or is there already.
fn grave(plan: &Plan, seen: &Observation) -> Vec<String> {
    let configured = plan.steps.iter().find_map(|step| match step {
        Step::ConfigureEtcd { launch } => Some(launch.state),
        _ => None,
    });
    let there = seen.etcd.launch.known().and_then(|launch| launch.as_ref()).map(|launch| launch.state);
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::ConfigureEtcd { .. } => None,
            Step::StartEtcd { .. } if configured.or(there) == Some(LaunchState::New) => {
                Some("starts as new".to_owned())
            }
            step if step.is_destructive() => Some(format!("{step:?}")),
            _ => None,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_observation_has_one_answer(seen in observations()) {
        let answer = plan(&seen);
        prop_assert_eq!(&answer, &plan(&seen));
        let report = &answer.report;
        if report.halt.is_some() {
            prop_assert_eq!(answer.steps.len(), 0);
            prop_assert_eq!(report.phase, Phase::Halted);
        }
        let settled = matches!(report.phase, Phase::Running | Phase::Left);
        prop_assert!(
            !answer.steps.is_empty() || report.halt.is_some() || !report.waiting.is_empty() || settled,
            "no step, and no reason: {:?}", report
        );
    }

    #[test]
    fn knowing_less_never_adds_a_grave_step(seen in observations(), (what, forget) in prop::sample::select(&FORGET[..])) {
        let before = grave(&plan(&seen), &seen);
        let mut less = seen.clone();
        forget(&mut less);
        for step in grave(&plan(&less), &seen) {
            prop_assert!(before.contains(&step), "without {}: {}", what, step);
        }
    }

    /// A founder that has never started is the one who must go on without a quorum's word: there is
    /// none before the founders start. What it may do is what the charter alone allows.
    #[test]
    fn without_a_quorums_word_only_a_founder_that_never_started_starts_as_new(seen in observations()) {
        let before = grave(&plan(&seen), &seen);
        let mut less = seen.clone();
        less.etcd.cluster = Fact::unknown("lost");
        let after = plan(&less);
        let charter = seen.charter.known().cloned().flatten().map(|charter| charter.value);
        let lived = holds(&mut less).is_some_and(|holds| holds.data == DataDir::Present);
        for step in grave(&after, &seen) {
            let founding = charter.as_ref().is_some_and(|charter| {
                charter
                    .founder(slot(1))
                    .is_some_and(|founder| [volume(1), volume(4)].contains(&founder.volume))
            }) || step.starts_with("CreateCharter");
            // By EC2's word, said for a minute, there is no volume that a quorum could be on.
            let nothing_left = step.contains("change: Recover");
            prop_assert!(before.contains(&step) || (founding && !lived) || nothing_left, "{}", step);
        }
    }

    #[test]
    fn observations_and_plans_print_and_parse_back(seen in observations()) {
        let text = serde_json::to_string(&seen).unwrap();
        let read: Observation = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &seen);
        let answer = plan(&seen);
        let text = serde_json::to_string(&answer).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), answer);
    }
}

#[test]
fn whole_plans_stay_as_they_are() {
    let founder = scene().chartered(charter(&[2]));
    insta::assert_json_snapshot!(plan(&founder));
    let returning = scene()
        .chartered(charter(&[1, 2, 3]))
        .stamped(member_of(1), DataDir::Present)
        .replaced()
        .quorate(&[2, 3], None);
    insta::assert_json_snapshot!(plan(&returning));
    let replacing = scene().chartered(charter(&[1, 2, 3])).replaced().quorate(&[2, 3], None);
    insta::assert_json_snapshot!(plan(&replacing));
    let lost = scene().but(|seen| seen.backups = Fact::Known(true));
    insta::assert_json_snapshot!(plan(&lost));
}
