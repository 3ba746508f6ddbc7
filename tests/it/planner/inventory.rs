//! What does not match among members, machines and volumes: noticed at once, and warned of when it lasts.

use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::scene::*;

const MINUTE: i64 = 60_000;

/// What a plan notices.
fn noticed(seen: &Observation) -> Vec<Mismatch> {
    let plan = plan(seen);
    assert_eq!(plan.report.phase, Phase::Running, "{:?}", plan.report);
    assert!(warned(&plan).is_empty(), "nothing has lasted: {:?}", plan.report.warnings);
    plan.report.noticed.expect("EC2 and etcd answer")
}

fn warned(plan: &Plan) -> Vec<Mismatch> {
    let of = |warning: &Warning| match warning {
        Warning::Mismatch { mismatch } => Some(mismatch.clone()),
        _ => None,
    };
    plan.report.warnings.iter().filter_map(of).collect()
}

/// A healthy cluster, of which this is changed.
fn but(change: impl FnOnce(&mut Observation)) -> Observation {
    whole().but(change)
}

/// The third machine is silent, and EC2 says this of it and of its volume.
fn third(instance_state: InstanceState, change: impl FnOnce(&mut Volume)) -> Observation {
    but(|seen| {
        silent(seen, 3);
        seen.instances().get_mut(&instance(3)).unwrap().state = instance_state;
        change(seen.volumes().get_mut(&volume(3)).unwrap());
    })
}

fn silent(seen: &mut Observation, member: u64) {
    seen.view().members.get_mut(&MemberId(member)).unwrap().healthy = Fact::unknown("no answer");
}

fn detached(volume: &mut Volume) {
    *volume = Volume { state: VolumeState::Available, attachment: None, ..volume.clone() };
}

fn without_machine(state: InstanceState) -> Mismatch {
    let (member, slot) = (MemberId(3), slot(3));
    Mismatch::MemberWithoutMachine { member, slot, zone: zone(3), instance: instance(3), state }
}

#[test]
fn a_healthy_cluster_has_nothing_that_does_not_match() {
    assert_eq!(noticed(&whole()), []);
    // Nor has one with a machine that stands by, or with a volume that is in use under no slot's tag.
    let standby = but(|seen| drop(seen.instances().insert(instance(9), running(2))));
    assert_eq!(noticed(&standby), []);
    let spare = but(|seen| drop(seen.volumes().insert(volume(9), Volume { slot: None, ..free(2) })));
    assert_eq!(noticed(&spare), []);
    // Others' volumes are others' business.
    let theirs = Volume { ours: false, zone: "eu-west-1f".parse().ok(), ..free(2) };
    assert_eq!(noticed(&but(|seen| drop(seen.volumes().insert(volume(9), theirs)))), []);
}

#[test]
fn it_is_a_warning_when_it_has_lasted_for_ten_minutes() {
    let gone = third(InstanceState::Terminated, detached);
    let found = without_machine(InstanceState::Terminated);
    for (minutes, warns) in [(0, false), (9, false), (10, true), (100, true)] {
        let since = NOW - minutes * MINUTE;
        let seen = gone.clone().but(|seen| seen.noticed = vec![Noticed { mismatch: found.clone(), since }]);
        assert_eq!(warned(&plan(&seen)).len(), usize::from(warns), "{minutes} min");
    }
    // The state that EC2 tells may have changed since.
    let mismatch = without_machine(InstanceState::ShuttingDown);
    let seen = gone.but(|seen| seen.noticed = vec![Noticed { mismatch, since: NOW - 10 * MINUTE }]);
    assert_eq!(warned(&plan(&seen)), [found]);
}

#[test]
fn while_ec2_does_not_answer_it_stays_as_it_was() {
    let before = vec![
        Noticed { mismatch: without_machine(InstanceState::Terminated), since: NOW - 10 * MINUTE },
        Noticed {
            mismatch: Mismatch::SlotWithoutMember { slot: slot(2), zone: zone(2) },
            since: NOW - 9 * MINUTE,
        },
    ];
    let forgets: [fn(&mut Observation); 2] = [
        |seen| seen.instances = Fact::unknown("throttled"),
        |seen| seen.volumes = Fact::unknown("throttled"),
    ];
    for forget in forgets {
        let plan = plan(&but(forget).but(|seen| seen.noticed.clone_from(&before)));
        assert_eq!(plan.report.noticed, None);
        assert_eq!(warned(&plan), [without_machine(InstanceState::Terminated)]);
    }
    // And who says nothing at all is not said to be gone.
    let unlisted = but(|seen| {
        silent(seen, 3);
        seen.instances().remove(&instance(3));
        seen.volumes().remove(&volume(3));
    });
    assert_eq!(
        noticed(&unlisted)
            .iter()
            .filter(|found| matches!(found, Mismatch::MemberWithoutMachine { .. }))
            .count(),
        0
    );
}

#[test]
fn a_member_whose_machine_is_gone_is_noticed_until_a_successor_has_its_volume() {
    for state in [InstanceState::Terminated, InstanceState::Stopped, InstanceState::NotFound] {
        assert_eq!(noticed(&third(state, detached)), [without_machine(state)]);
    }
    let succeeded = third(InstanceState::Terminated, |volume| volume.attachment = attached_to(instance(9)))
        .but(|seen| drop(seen.instances().insert(instance(9), running(3))));
    assert_eq!(noticed(&succeeded), []);
    // EC2's word on one that answers is an old one.
    let answers = third(InstanceState::Terminated, detached)
        .but(|seen| seen.view().members.get_mut(&MemberId(3)).unwrap().healthy = Fact::Known(true));
    assert_eq!(noticed(&answers), []);
}

#[test]
fn a_founder_that_never_started_is_known_by_the_charter() {
    let never = third(InstanceState::Terminated, detached).but(|seen| {
        seen.view().members.get_mut(&MemberId(3)).unwrap().name.clear();
        seen.view().records.remove(&slot(3));
    });
    assert_eq!(noticed(&never), [without_machine(InstanceState::Terminated)]);
}

#[test]
fn a_member_whose_volume_is_gone_or_free_is_noticed() {
    let (member, slot) = (MemberId(3), slot(3));
    for state in [VolumeState::Deleted, VolumeState::NotFound, VolumeState::Error] {
        let seen = third(InstanceState::Running, |volume| volume.state = state);
        let gone = Mismatch::MemberWithoutVolume { member, slot, zone: zone(3), volume: volume(3), state };
        assert_eq!(noticed(&seen), [gone]);
    }
    let free = Mismatch::MemberWithFreeVolume { member, slot, instance: instance(3), volume: volume(3) };
    assert_eq!(noticed(&third(InstanceState::Running, detached)), [free]);
}

#[test]
fn a_member_that_no_slot_explains_and_a_slot_that_no_member_has_are_noticed() {
    let stranger = |name: &str| Member {
        name: name.to_owned(),
        peer_urls: vec!["https://10.9.9.9:2380".to_owned()],
        learner: false,
        healthy: Fact::Known(true),
    };
    // One with a slot's name that is not the one that was recorded is a stranger, too.
    for name in ["etcd-4", "infra0", "etcd-2"] {
        let seen = but(|seen| drop(seen.view().members.insert(MemberId(9), stranger(name))));
        let [Mismatch::UnknownMember { member: MemberId(9), name: found, .. }] = &noticed(&seen)[..] else {
            panic!("{name}: {:?}", noticed(&seen))
        };
        assert_eq!(found, name);
    }
    let removed = but(|seen| drop(seen.view().members.remove(&MemberId(3))));
    assert_eq!(noticed(&removed), [Mismatch::SlotWithoutMember { slot: slot(3), zone: zone(3) }]);
    // One that joins has its slot, from before it has started.
    let joins = removed.but(|seen| {
        let record = SlotRecord { volume: volume(8), instance: instance(8), peer_url: url(8), member: None };
        seen.view().records.insert(slot(3), record);
        let learner =
            Member { peer_urls: vec![url(8)], learner: true, healthy: Fact::Known(false), ..stranger("") };
        seen.view().members.insert(MemberId(8), learner);
    });
    assert_eq!(noticed(&joins), []);
}

#[test]
fn volumes_that_can_be_no_slots_are_noticed() {
    let added = |volume_9: Volume| noticed(&but(|seen| drop(seen.volumes().insert(volume(9), volume_9))));
    let volumes = vec![volume(2), volume(9)];
    let several = Mismatch::SeveralVolumes { slot: slot(2), volumes, used: Some(volume(2)) };
    assert_eq!(added(free(2)), [several]);
    assert_eq!(added(Volume { state: VolumeState::Deleting, ..free(2) }), [], "it goes");
    let elsewhere: Zone = "eu-west-1f".parse().unwrap();
    let misplaced =
        |slot, zone, expected| Mismatch::MisplacedVolume { volume: volume(9), slot, zone, expected };
    let nowhere = Volume { slot: None, zone: Some(elsewhere.clone()), ..free(2) };
    assert_eq!(added(nowhere), [misplaced(None, elsewhere, (1..=3).map(zone).collect())]);
    let beyond = Volume { slot: Some(slot(5)), ..free(2) };
    assert_eq!(added(beyond), [misplaced(Some(slot(5)), zone(2), Vec::new())]);
    let other_slots = noticed(&but(|seen| {
        seen.volumes().get_mut(&volume(3)).unwrap().zone = Some(zone(1));
    }));
    let expected = vec![zone(3)];
    assert_eq!(
        other_slots,
        [Mismatch::MisplacedVolume { volume: volume(3), slot: Some(slot(3)), zone: zone(1), expected }]
    );
    // Slot 2 was taken over from zone 1, where its volume was left behind: it is misplaced, and not one of several.
    let left = Volume { slot: Some(slot(2)), ..free(1) };
    assert_eq!(added(left), [misplaced(Some(slot(2)), zone(1), vec![zone(2)])]);
    for tag in ["member 2 ab", "someone's"] {
        let later = Volume { slot: None, stamp: Some(tag.to_owned()), ..free(2) };
        let tag = tag.to_owned();
        assert_eq!(added(later), [Mismatch::LaterVolume { volume: volume(9), tag, generation: FIRST }]);
    }
}

#[test]
fn machines_that_can_be_no_slots_are_noticed() {
    let elsewhere: Zone = "eu-west-1f".parse().unwrap();
    let added = |found: Instance| but(|seen| drop(seen.instances().insert(instance(9), found)));
    let misplaced = Mismatch::MisplacedInstance {
        instance: instance(9),
        zone: elsewhere.clone(),
        expected: (1..=3).map(zone).collect(),
    };
    assert_eq!(noticed(&added(Instance { zone: Some(elsewhere.clone()), ..running(1) })), [misplaced]);
    for of_no_interest in [
        Instance { zone: Some(elsewhere.clone()), role: Some(Role::Worker), ..running(1) },
        Instance { zone: Some(elsewhere), state: InstanceState::Terminated, ..running(1) },
    ] {
        assert_eq!(noticed(&added(of_no_interest)), []);
    }
    // One too many is a standby, but for a zone that has none.
    let crowded = third(InstanceState::Terminated, detached)
        .but(|seen| drop(seen.instances().insert(instance(9), running(1))));
    let lacking = vec![zone(3)];
    let instances = vec![instance(1), instance(9)];
    assert_eq!(
        noticed(&crowded),
        [
            without_machine(InstanceState::Terminated),
            Mismatch::CrowdedZone { zone: zone(1), slots: 1, instances, lacking }
        ]
    );
}

#[test]
fn what_does_not_match_changes_nothing_of_what_is_done() {
    let odd = but(|seen| {
        seen.volumes().insert(volume(9), free(2));
        seen.instances().insert(instance(9), Instance { zone: "eu-west-1f".parse().ok(), ..running(1) });
    });
    assert_eq!(noticed(&odd).len(), 2);
    assert_eq!(plan_of(&settings(), &odd).steps, plan_of(&settings(), &whole()).steps);
}
