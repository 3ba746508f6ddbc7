//! When a member is removed, added, and given its vote.

use quorate::model::*;

use super::scene::*;

/// Slot 1 was lost with its volume: its successor holds a blank one, and the other two are healthy.
fn successor() -> Observation {
    scene().chartered(charter(&[1, 2, 3])).replaced().quorate(&[2, 3], None).but(|seen| {
        let blank = seen.volumes().remove(&volume(1)).unwrap();
        seen.volumes().insert(volume(4), blank);
        seen.volumes().insert(volume(1), Volume { state: VolumeState::Deleted, ..free(1) });
        if let Fact::Known(Some(disk)) = &mut seen.disk {
            disk.volume = volume(4);
        }
        if let Fact::Known(Some(stamp)) = &mut seen.holds().stamp {
            stamp.volume = volume(4);
        }
    })
}

fn predecessor(state: VolumeState) -> Observation {
    successor().but(|seen| seen.volumes().get_mut(&volume(1)).unwrap().state = state)
}

/// The slot's old member is removed already.
fn vacated() -> Observation {
    successor().but(|seen| {
        seen.view().members.remove(&MemberId(1));
    })
}

fn learner(peer_url: String) -> Member {
    Member { name: String::new(), peer_urls: vec![peer_url], learner: true, healthy: Fact::unknown("") }
}

#[test]
fn a_member_is_removed_once_its_volume_is_gone_for_good() {
    for state in [VolumeState::Deleted, VolumeState::Deleting] {
        let plan = does(&predecessor(state), &["takeMembershipLock", "removeMember"]);
        assert_eq!(plan.steps[1], Step::RemoveMember { member: MemberId(1) });
    }
}

#[test]
fn a_member_stays_while_its_volume_lives_or_nothing_is_known_of_it() {
    for state in [VolumeState::Available, VolumeState::InUse, VolumeState::Creating] {
        let on = waits(&predecessor(state));
        assert!(matches!(on, WaitingOn::PredecessorGone { .. }), "{state:?}: {on:?}");
    }
    let unlisted = successor().but(|seen| {
        seen.volumes().remove(&volume(1));
    });
    assert!(matches!(waits(&unlisted), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn a_volume_that_is_not_found_is_gone_only_when_that_is_said_twice() {
    let seen = predecessor(VolumeState::NotFound);
    let on = waits(&seen);
    assert_eq!(on, WaitingOn::ConfirmedGone { what: volume(1).to_string() });
    does(&seen.waiting(on, HOUR), &["takeMembershipLock", "removeMember"]);
}

#[test]
fn a_failed_volume_counts_only_when_its_machine_is_gone() {
    does(&predecessor(VolumeState::Error), &["takeMembershipLock", "removeMember"]);
    let alive = predecessor(VolumeState::Error).but(|seen| {
        seen.instances().get_mut(&instance(1)).unwrap().state = InstanceState::Running;
    });
    assert!(matches!(waits(&alive), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn a_member_that_answers_is_never_removed() {
    let seen = successor().quorate(&[1, 2, 3], None);
    assert!(matches!(waits(&seen), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn a_wiped_volumes_member_is_removed_only_once_its_last_holder_is_gone() {
    let seen = scene().chartered(charter(&[1, 2, 3])).replaced().quorate(&[2, 3], None);
    does(&seen, &["takeMembershipLock", "removeMember"]);
    let alive = seen.but(|seen| {
        seen.instances().get_mut(&instance(1)).unwrap().state = InstanceState::Stopping;
    });
    assert!(matches!(waits(&alive), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn a_member_without_a_record_is_the_charters_founder_and_nobody_else() {
    let unrecorded = successor().but(|seen| {
        seen.view().records.remove(&slot(1));
    });
    does(&unrecorded, &["takeMembershipLock", "removeMember"]);
    // Another member than the recorded one has the slot's name: nothing says which volume is its.
    let other = successor().but(|seen| {
        let record = seen.view().records.get_mut(&slot(1)).unwrap();
        record.member = Some(MemberId(8));
    });
    assert!(matches!(waits(&other), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn a_member_added_later_is_matched_by_its_own_record_after_its_address_changed() {
    let seen = successor().but(|seen| {
        // Its volume is number 5, and lives; the founder's is gone.
        seen.volumes().insert(volume(5), free(1));
        let view = seen.view();
        let member = view.members.get_mut(&MemberId(1)).unwrap();
        member.peer_urls = vec![url(6)];
        let record = SlotRecord { volume: volume(5), instance: instance(5), peer_url: url(5), member: None };
        view.records.insert(slot(1), record);
    });
    assert!(matches!(waits(&seen), WaitingOn::PredecessorGone { .. }));
}

#[test]
fn nothing_is_removed_without_a_healthy_quorum_before_and_after() {
    let seen = successor().quorate(&[2], None);
    assert_eq!(waits(&seen), WaitingOn::HealthyQuorum { healthy: 1, needed: 2 });
}

#[test]
fn another_machines_change_comes_first() {
    for seen in [successor(), vacated()] {
        let seen = seen.but(|seen| seen.view().lock = Some(instance(2)));
        assert_eq!(waits(&seen), WaitingOn::MembershipLock { holder: instance(2) });
    }
}

#[test]
fn a_removal_and_an_addition_are_planned_from_two_looks() {
    does(&successor(), &["takeMembershipLock", "removeMember"]);
    does(&vacated(), &["takeMembershipLock", "recordSlot", "addLearner"]);
}

#[test]
fn one_learner_at_a_time() {
    let seen = vacated().but(|seen| {
        let record = SlotRecord { volume: volume(2), instance: instance(2), peer_url: url(7), member: None };
        seen.view().records.insert(slot(2), record);
        seen.view().members.insert(MemberId(7), learner(url(7)));
    });
    assert_eq!(waits(&seen), WaitingOn::OtherLearner { member: MemberId(7) });
}

#[test]
fn a_learner_that_nobody_will_start_is_removed() {
    let recorded = |state: InstanceState| {
        vacated().but(move |seen| {
            let record =
                SlotRecord { volume: volume(2), instance: instance(7), peer_url: url(7), member: None };
            seen.instances().insert(instance(7), Instance { state, ..running(2) });
            seen.view().records.insert(slot(2), record);
            seen.view().members.insert(MemberId(7), learner(url(7)));
        })
    };
    // It must be seen under the lock: until then another may make it its own.
    let locked = |seen: Observation, n| seen.but(|seen| seen.view().lock = Some(instance(n)));
    does(&recorded(InstanceState::Terminated), &["takeMembershipLock"]);
    does(&locked(recorded(InstanceState::Terminated), 4), &["takeMembershipLock", "removeMember"]);
    assert!(matches!(waits(&recorded(InstanceState::NotFound)), WaitingOn::ConfirmedGone { .. }));
    assert!(matches!(waits(&recorded(InstanceState::Running)), WaitingOn::OtherLearner { .. }));
    let stray = |seen: &mut Observation| {
        seen.view().members.insert(MemberId(7), learner(url(9)));
    };
    for (seen, me) in [(vacated(), 4), (whole(), 1)] {
        does(&seen.clone().but(stray), &["takeMembershipLock"]);
        does(&locked(seen.but(stray), me), &["takeMembershipLock", "removeMember"]);
    }
}

#[test]
fn the_lock_is_given_back_while_etcd_would_refuse_to_add_a_member() {
    let seen = vacated().but(|seen| {
        let silent = Member {
            name: "etcd-4".to_owned(),
            peer_urls: vec![url(8)],
            learner: false,
            healthy: Fact::unknown("no answer"),
        };
        seen.view().members.insert(MemberId(8), silent);
    });
    assert_eq!(waits(&seen), WaitingOn::HealthyQuorum { healthy: 2, needed: 3 });
    let holding = seen.but(|seen| seen.view().lock = Some(instance(4)));
    does(&holding, &["releaseMembershipLock"]);
}

fn joined(in_sync: bool) -> Observation {
    scene()
        .chartered(charter(&[1, 2, 3]))
        .stamped(joining(7), DataDir::Present)
        .quorate(&[2, 3], None)
        .serving(7, true, in_sync)
        .but(|seen| {
            let view = seen.view();
            view.members.remove(&MemberId(1));
            let name = slot(1).member_name();
            view.members.insert(MemberId(7), Member { name, ..learner(url(1)) });
        })
}

#[test]
fn a_learner_is_promoted_when_it_is_in_sync_and_not_before() {
    does(&joined(true), &["takeMembershipLock", "promoteMember"]);
    let plan = does(&joined(false), &["takeMembershipLock"]);
    assert_eq!(plan.report.waiting, [WaitingOn::InSync]);
}

#[test]
fn a_learner_that_never_is_in_sync_is_dropped_and_begins_anew() {
    let seen = joined(false).waiting(WaitingOn::InSync, HOUR);
    let steps = ["takeMembershipLock", "removeMember", "stopEtcd", "setDataAside", "writeStamp"];
    does(&seen, &steps);
}

#[test]
fn a_new_voter_is_stamped_recorded_and_gives_the_lock_back() {
    let seen = joined(true).serving(7, false, true).but(|seen| {
        let view = seen.view();
        view.members.get_mut(&MemberId(7)).unwrap().learner = false;
        view.lock = Some(instance(1));
    });
    let steps = ["writeStamp", "tagStamp", "recordSlot", "copyCharterToVolume", "releaseMembershipLock"];
    does(&seen, &steps);
}

#[test]
fn a_joiners_blank_volume_begins_anew_when_its_learner_is_gone() {
    let seen =
        scene().chartered(charter(&[1, 2, 3])).stamped(joining(7), DataDir::Absent).quorate(&[2, 3], None);
    does(&seen, &["writeStamp"]);
}

#[test]
fn the_leader_publishes_the_members() {
    let seen = whole().but(|seen| seen.view().leader = Some(MemberId(1)));
    does(&seen, &["publishMembers"]);
    does(&seen.but(|seen| seen.view().leader = Some(MemberId(2))), &[]);
}
