//! A standby takes over the slot of a zone that is gone, and what was left behind there is let go.

use quorate::config::Settings;
use quorate::model::charter::CharterChange;
use quorate::model::*;

use super::scene::*;

fn created() -> Settings {
    settings_with("etcd: {volume: {source: created, takeover: 15m}}\n")
}

fn plan(seen: &Observation) -> Plan {
    quorate::plan::plan(&created(), seen)
}

const MINUTE: i64 = 60_000;

fn wait() -> WaitingOn {
    WaitingOn::Takeover { slot: slot(3), zone: zone(3) }
}

/// A second machine in zone 1, without a volume; the machine of slot 3 ends, and its zone has no other.
fn standby() -> Observation {
    scene().chartered(charter(&[1, 2, 3])).quorate(&[1, 2], None).but(|seen| {
        seen.disk = Fact::Known(None);
        let me = Identity {
            instance: instance(4),
            region: "eu-west-1".parse().unwrap(),
            zone: zone(1),
            address: address(4),
        };
        seen.instances().insert(instance(4), Instance { address: Some(address(4)), ..running(1) });
        seen.identity = Fact::Known(me);
        if let Fact::Known(Some(leaves)) = &mut seen.leaves {
            leaves.address = address(4);
        }
        seen.instances().get_mut(&instance(3)).unwrap().state = InstanceState::ShuttingDown;
        for n in 1..=3 {
            seen.volumes().get_mut(&volume(n)).unwrap().stamp = Some(format!("member 1 {n}"));
        }
    })
}

/// The same, when it has waited for so long.
fn patient(minutes: i64) -> Observation {
    standby().waiting(wait(), minutes * MINUTE)
}

/// The charter in which slot 3 is in zone 1.
fn moved() -> Charter {
    charter(&[1, 2, 3]).move_slot(slot(3), &zone(1), "moved".parse().unwrap()).unwrap()
}

/// The same machine, when the charter has given it slot 3: its volume is made, attached and formatted.
fn took_over() -> Observation {
    standby().chartered(moved()).but(|seen| {
        let mine = Volume {
            zone: Some(zone(1)),
            attachment: attached_to(instance(4)),
            stamp: Some("formatted".to_owned()),
            ..listed(3)
        };
        seen.volumes().insert(volume(4), mine);
        let Fact::Known(Some(mut disk)) = scene().disk else { panic!("no disk") };
        disk.volume = volume(4);
        if let Fact::Known(VolumeContents { stamp: Fact::Known(Some(stamp)), .. }) = &mut disk.holds {
            (stamp.slot, stamp.volume) = (slot(3), volume(4));
        }
        seen.disk = Fact::Known(Some(disk));
    })
}

#[track_caller]
fn only_waits(seen: &Observation, on: &WaitingOn) {
    let plan = plan(seen);
    assert_eq!(names(&plan), [""; 0], "{:#?}", plan.report);
    assert_eq!(
        (plan.report.phase, plan.report.waiting.as_slice()),
        (Phase::Standby, std::slice::from_ref(on))
    );
}

#[test]
fn a_slot_whose_machine_is_gone_is_taken_over_after_the_patience() {
    only_waits(&standby(), &wait());
    only_waits(&patient(14), &wait());
    let plan = plan(&patient(15));
    let [Step::AmendCharter { from, charter, change: CharterChange::MoveSlot }] = plan.steps.as_slice()
    else {
        panic!("{plan:#?}")
    };
    assert_eq!(from.as_str(), "e");
    assert_eq!(charter.zones, [zone(1), zone(2), zone(1)]);
}

#[test]
fn a_machine_that_ec2_does_not_call_gone_keeps_its_slot() {
    for state in
        [InstanceState::Pending, InstanceState::Running, InstanceState::Stopping, InstanceState::Stopped]
    {
        only_waits(
            &patient(600).but(|seen| seen.instances().get_mut(&instance(3)).unwrap().state = state),
            &WaitingOn::FreeSlot,
        );
    }
    only_waits(&patient(600).but(|seen| drop(seen.instances().remove(&instance(3)))), &WaitingOn::FreeSlot);
    for state in [InstanceState::ShuttingDown, InstanceState::Terminated, InstanceState::NotFound] {
        let gone = patient(600).but(|seen| seen.instances().get_mut(&instance(3)).unwrap().state = state);
        assert_eq!(names(&plan(&gone)), ["amendCharter"], "{state}");
    }
}

#[test]
fn not_found_is_said_for_a_minute_however_short_the_patience() {
    let hasty = settings_with("etcd: {volume: {source: created, takeover: 1s}}\n");
    let missing = |seconds: i64| {
        standby().waiting(wait(), seconds * 1000).but(|seen| {
            seen.instances().get_mut(&instance(3)).unwrap().state = InstanceState::NotFound;
        })
    };
    let steps = |seen: &Observation| names(&quorate::plan::plan(&hasty, seen));
    assert!(steps(&missing(59)).is_empty());
    assert_eq!(steps(&missing(60)), ["amendCharter"]);
    assert_eq!(steps(&standby().waiting(wait(), 1000)), ["amendCharter"], "what ends is believed at once");
}

#[test]
fn whoever_may_still_follow_in_the_zone_comes_first() {
    let other = |n: u8, of: u8, state: InstanceState| {
        patient(600).but(|seen| {
            seen.instances().insert(instance(n), Instance { state, ..running(of) });
        })
    };
    for state in [InstanceState::Pending, InstanceState::Running] {
        only_waits(&other(5, 3, state), &WaitingOn::FreeSlot);
    }
    assert_eq!(names(&plan(&other(5, 2, InstanceState::Running))), ["amendCharter"], "of another zone");
    assert_eq!(names(&plan(&other(5, 3, InstanceState::Stopped))), ["amendCharter"]);
    // It has a slot of its own.
    let busy = other(5, 3, InstanceState::Running).but(|seen| {
        let more = Volume { attachment: attached_to(instance(5)), slot: Some(slot(2)), ..listed(3) };
        seen.volumes().insert(volume(6), more);
    });
    assert_eq!(names(&plan(&busy)), ["amendCharter"]);
}

#[test]
fn a_member_that_answers_or_a_volume_that_is_held_is_not_taken_over() {
    only_waits(&patient(600).quorate(&[1, 2, 3], None), &WaitingOn::FreeSlot);
    let held = patient(600).but(|seen| {
        seen.instances().insert(instance(5), running(3));
        seen.volumes().get_mut(&volume(3)).unwrap().attachment = attached_to(instance(5));
    });
    only_waits(&held, &WaitingOn::FreeSlot);
}

#[test]
fn nothing_is_taken_over_on_what_is_not_known() {
    let unknown: [fn(&mut Observation); 3] = [
        |seen| seen.etcd.cluster = Fact::unknown("no quorum"),
        |seen| seen.instances = Fact::unknown("throttled"),
        |seen| seen.charter = Fact::unknown("S3 is away"),
    ];
    for forget in unknown {
        let plan = plan(&patient(600).but(forget));
        assert_eq!(names(&plan), [""; 0], "{:#?}", plan.report);
    }
    let other = patient(600).but(|seen| {
        seen.view().charter.as_mut().unwrap().generation = Generation(2);
    });
    only_waits(&other, &WaitingOn::FreeSlot);
}

#[test]
fn only_created_volumes_follow_a_slot() {
    for source in ["tagged", "device"] {
        let settings = settings_with(&format!("etcd: {{volume: {{source: {source}}}}}\n"));
        assert_eq!(names(&quorate::plan::plan(&settings, &patient(600))), [""; 0]);
    }
}

#[test]
fn a_zone_that_is_to_have_no_slots_takes_none_over() {
    let in_zones = |zones: &str| {
        let settings = settings_with(&format!("etcd: {{zones: [{zones}], volume: {{source: created}}}}\n"));
        names(&quorate::plan::plan(&settings, &patient(600)))
    };
    assert_eq!(in_zones("eu-west-1b, eu-west-1c"), [""; 0]);
    assert_eq!(in_zones("eu-west-1a, eu-west-1c"), ["amendCharter"]);
}

#[test]
fn the_volume_is_created_here_although_the_old_one_lives() {
    let plan = plan(&standby().chartered(moved()));
    let [Step::CreateVolume { slot: found, zone: here, token }] = plan.steps.as_slice() else {
        panic!("{plan:#?}")
    };
    assert_eq!((*found, here), (slot(3), &zone(1)));
    // The same, whoever has recorded a volume elsewhere since the slot was moved.
    let recorded = standby().chartered(moved()).but(|seen| {
        let volume_there = Volume { zone: Some(zone(2)), slot: Some(slot(3)), ..free(2) };
        seen.volumes().insert(volume(5), volume_there);
        seen.view().records.get_mut(&slot(3)).unwrap().volume = volume(5);
    });
    assert_eq!(super::takeover::plan(&recorded).steps, plan.steps);
    // Another zone's volume of the same slot is another volume.
    let there = quorate::plan::plan(
        &created(),
        &standby().but(|seen| {
            seen.volumes().remove(&volume(1));
            seen.volumes().insert(volume(1), Volume { state: VolumeState::Deleted, ..free(1) });
        }),
    );
    assert!(!matches!(there.steps.as_slice(), [Step::CreateVolume { token: other, .. }] if other == token));
}

#[test]
fn the_member_left_behind_is_removed_on_ec2s_word_and_a_learner_added() {
    let plan = plan(&took_over());
    assert_eq!(names(&plan), ["takeMembershipLock", "removeMember"], "{:#?}", plan.report);
    assert!(matches!(plan.steps[1], Step::RemoveMember { member: MemberId(3) }));
    let removed = took_over().but(|seen| drop(seen.view().members.remove(&MemberId(3))));
    assert_eq!(names(&super::takeover::plan(&removed)), ["takeMembershipLock", "recordSlot", "addLearner"]);
}

#[test]
fn a_member_left_behind_stays_while_its_machine_may_run() {
    let state = |state| took_over().but(|seen| seen.instances().get_mut(&instance(3)).unwrap().state = state);
    for may_run in [InstanceState::Running, InstanceState::Stopping, InstanceState::Stopped] {
        let plan = plan(&state(may_run));
        assert!(
            matches!(plan.report.waiting.as_slice(), [WaitingOn::PredecessorGone { .. }]),
            "{may_run}: {plan:#?}"
        );
        assert_eq!(names(&plan), [""; 0]);
    }
    // Another machine of its zone has attached the volume in the meantime.
    let held = took_over().but(|seen| {
        seen.instances().insert(instance(5), running(3));
        seen.volumes().get_mut(&volume(3)).unwrap().attachment = attached_to(instance(5));
    });
    assert!(matches!(plan(&held).report.waiting.as_slice(), [WaitingOn::PredecessorGone { .. }]));
    let weak = took_over().quorate(&[1], None);
    assert!(matches!(plan(&weak).report.waiting.as_slice(), [WaitingOn::HealthyQuorum { .. }]));
}

#[test]
fn not_found_is_said_twice_of_the_machine_of_a_member_left_behind() {
    let missing = took_over()
        .but(|seen| seen.instances().get_mut(&instance(3)).unwrap().state = InstanceState::NotFound);
    let on = WaitingOn::ConfirmedGone { what: instance(3).to_string() };
    let once = plan(&missing);
    assert_eq!((names(&once), once.report.waiting), (vec![], vec![on.clone()]));
    let twice = plan(&missing.waiting(on, MINUTE));
    assert_eq!(names(&twice), ["takeMembershipLock", "removeMember"], "{:#?}", twice.report);
}

/// Instance 5, of zone 3, recorded itself and added a learner for slot 3, which has not run.
fn begun_elsewhere(seen: Observation) -> Observation {
    seen.but(|seen| {
        seen.instances().insert(instance(5), running(3));
        let record = SlotRecord { volume: volume(3), instance: instance(5), peer_url: url(5), member: None };
        seen.view().records.insert(slot(3), record);
        seen.view().members.remove(&MemberId(3));
        let member = Member {
            name: String::new(),
            peer_urls: vec![url(5)],
            learner: true,
            healthy: Fact::unknown("no answer"),
        };
        seen.view().members.insert(MemberId(5), member);
    })
}

#[test]
fn a_learner_that_never_ran_is_removed_when_nobody_holds_its_volume() {
    let held = begun_elsewhere(took_over())
        .but(|seen| seen.volumes().get_mut(&volume(3)).unwrap().attachment = attached_to(instance(5)));
    assert!(matches!(plan(&held).report.waiting.as_slice(), [WaitingOn::PredecessorGone { .. }]));
    let free = held.but(|seen| {
        let volume = seen.volumes().get_mut(&volume(3)).unwrap();
        (volume.state, volume.attachment) = (VolumeState::Available, None);
    });
    let removed = plan(&free);
    assert_eq!(names(&removed), ["takeMembershipLock", "removeMember"], "{:#?}", removed.report);
    let ran = free.but(|seen| seen.view().members.get_mut(&MemberId(5)).unwrap().name = "etcd-3".to_owned());
    assert!(matches!(plan(&ran).report.waiting.as_slice(), [WaitingOn::PredecessorGone { .. }]));
}

#[test]
fn a_standby_takes_over_a_slot_that_is_recorded_as_its_own() {
    let mine = |state: InstanceState| {
        begun_elsewhere(patient(15)).but(|seen| {
            let record = seen.view().records.get_mut(&slot(3)).unwrap();
            (record.instance, record.peer_url) = (instance(4), url(4));
            seen.instances().get_mut(&instance(5)).unwrap().state = state;
        })
    };
    assert_eq!(names(&plan(&mine(InstanceState::Terminated))), ["amendCharter"]);
    only_waits(&mine(InstanceState::Running), &WaitingOn::FreeSlot);
}

#[test]
fn a_slot_that_was_recorded_for_another_since_the_look_is_not_recorded() {
    let removed = plan(&took_over().but(|seen| drop(seen.view().members.remove(&MemberId(3)))));
    let read =
        SlotRecord { volume: volume(3), instance: instance(3), peer_url: url(3), member: Some(MemberId(3)) };
    assert!(
        matches!(&removed.steps[1], Step::RecordSlot { from: Some(from), .. } if *from == read),
        "{removed:#?}"
    );
}

#[test]
fn a_slot_whose_member_came_back_to_life_is_given_back() {
    let back = took_over().quorate(&[1, 2, 3], None).but(|seen| {
        seen.instances().insert(instance(5), running(3));
        seen.volumes().get_mut(&volume(3)).unwrap().attachment = attached_to(instance(5));
    });
    let plan = plan(&back);
    let [Step::AmendCharter { charter: given, change: CharterChange::MoveSlot, .. }] = plan.steps.as_slice()
    else {
        panic!("{plan:#?}")
    };
    assert_eq!(given.zones, charter(&[1, 2, 3]).zones);
    let after = super::takeover::plan(&back.chartered(given.clone()));
    assert_eq!(names(&after), ["unmount", "detachVolume"], "{:#?}", after.report);
}

/// Slot 1 was taken over by zone 2, and its volume, which this machine holds, was left behind.
fn left_behind(state: StampState, data: DataDir) -> Observation {
    let charter = charter(&[1, 2, 3]).move_slot(slot(1), &zone(2), "moved".parse().unwrap()).unwrap();
    scene().chartered(charter).stamped(state, data).quorate(&[2, 3], None).replaced().but(|seen| {
        seen.view().members.remove(&MemberId(1));
        // There is a machine for it there.
        seen.instances().insert(instance(5), running(2));
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("member 1 1".to_owned());
    })
}

#[test]
fn data_that_were_left_behind_are_set_aside_and_the_volume_is_let_go() {
    let plan = plan(&left_behind(member_of(1), DataDir::Present));
    assert_eq!(names(&plan), ["setDataAside", "writeStamp"], "{:#?}", plan.report);
    let aside = left_behind(StampState::Formatted, DataDir::Absent);
    let plan = super::takeover::plan(&aside);
    assert_eq!(names(&plan), ["unmount", "detachVolume"], "{:#?}", plan.report);
    let locked =
        left_behind(StampState::Formatted, DataDir::Absent).but(|seen| seen.view().lock = Some(instance(4)));
    assert_eq!(names(&super::takeover::plan(&locked)), ["releaseMembershipLock", "unmount", "detachVolume"]);
    let going = left_behind(StampState::Formatted, DataDir::Absent).but(|seen| {
        let attachment = &mut seen.volumes().get_mut(&volume(1)).unwrap().attachment;
        attachment.as_mut().unwrap().state = AttachmentState::Detaching;
    });
    only_waits(&going, &WaitingOn::Detached { volume: volume(1) });
}

#[test]
fn a_volume_that_was_left_behind_before_it_was_ever_used_is_let_go_like_any() {
    let blank = left_behind(StampState::Formatted, DataDir::Absent)
        .but(|seen| seen.volumes().get_mut(&volume(1)).unwrap().stamp = None);
    let plan = plan(&blank);
    assert_eq!(names(&plan), ["tagStamp"], "{:#?}", plan.report);
}

#[test]
fn a_member_that_is_still_listed_starts_on_its_data_wherever_its_slot_is() {
    let listed = left_behind(member_of(1), DataDir::Present).quorate(&[2, 3], None);
    let plan = plan(&listed);
    assert!(plan.steps.iter().any(|step| matches!(step, Step::StartEtcd { .. })), "{plan:#?}");
}

#[test]
fn a_volume_that_was_left_behind_is_not_attached_again() {
    let seen = left_behind(member_of(1), DataDir::Present).but(|seen| {
        seen.disk = Fact::Known(None);
        let volume = seen.volumes().get_mut(&volume(1)).unwrap();
        (volume.state, volume.attachment) = (VolumeState::Available, None);
    });
    only_waits(&seen, &WaitingOn::FreeSlot);
    // The charter is not known: the volume may well be the slot's, and its cluster will tell.
    let blind = seen.but(|seen| seen.charter = Fact::unknown("S3 is away"));
    assert_eq!(names(&plan(&blind)), ["attachVolume"]);
}
