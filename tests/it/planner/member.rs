//! Each row of the table by which a member starts, joins or is replaced.

use quorate::model::charter::CharterChange;
use quorate::model::plan::Subject;
use quorate::model::*;

use super::scene::*;

fn launches(plan: &Plan) -> Option<LaunchState> {
    plan.steps.iter().find_map(|step| match step {
        Step::ConfigureEtcd { launch } => Some(launch.state),
        _ => None,
    })
}

#[test]
fn data_of_an_older_generation_are_set_aside_and_the_new_one_is_followed() {
    let next = charter(&[]).refound(charter(&[]).founders, "m".parse().unwrap()).unwrap();
    let seen = scene().chartered(next.clone()).stamped(starting(), DataDir::Present).serving(1, false, true);
    does(&seen, &["stopEtcd", "setDataAside", "writeStamp"]);
    // The tag goes on telling of the older generation, and that does not keep it from founding.
    let after = scene().chartered(next).but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("starting 1".to_owned());
    });
    let plan = does(&after, &["writeStamp", "tagStamp", "amendCharter", "configureEtcd", "startEtcd"]);
    assert_eq!(launches(&plan), Some(LaunchState::New));
}

#[test]
fn a_founder_stamps_its_volume_then_sets_its_mark_then_starts_as_new() {
    let seen = scene().chartered(charter(&[]));
    let plan = does(&seen, &["writeStamp", "tagStamp", "amendCharter", "configureEtcd", "startEtcd"]);
    assert_eq!(launches(&plan), Some(LaunchState::New));
    let Step::AmendCharter { from, charter, change } = &plan.steps[2] else { panic!("{plan:#?}") };
    assert_eq!((from.as_str(), *change), ("e", CharterChange::MarkStarted));
    assert_eq!(charter.founder(slot(1)).unwrap().started, Some(1));
}

#[test]
fn founders_start_one_after_the_other() {
    let after = |started: &[u8]| match plan(&scene().chartered(charter(started))).steps.last() {
        Some(Step::StartEtcd { after }) => *after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after(&[]), 0);
    assert!(after(&[2]) > 0 && after(&[2, 3]) > after(&[2]));
}

#[test]
fn a_founder_of_a_cluster_that_awaits_it_starts_as_new_after_all() {
    let seen = scene().chartered(charter(&[2, 3])).quorate(&[2, 3], Some(1));
    assert_eq!(launches(&plan(&seen)), Some(LaunchState::New));
}

#[test]
fn a_volume_that_is_no_founder_joins_an_established_cluster_as_a_learner() {
    let seen = scene().chartered(charter(&[2, 3])).replaced().quorate(&[2, 3], Some(1));
    does(&seen, &["takeMembershipLock", "removeMember"]);
    let seen = seen.but(|seen| {
        seen.view().members.remove(&MemberId(1));
    });
    does(&seen, &["takeMembershipLock", "recordSlot", "addLearner"]);
}

#[test]
fn a_learner_that_was_added_starts_as_existing() {
    let seen = scene().chartered(charter(&[2, 3])).replaced().quorate(&[2, 3], None).but(|seen| {
        let view = seen.view();
        view.members.remove(&MemberId(1));
        let learner = Member {
            name: String::new(),
            peer_urls: vec![url(4)],
            learner: true,
            healthy: Fact::unknown(""),
        };
        view.members.insert(MemberId(7), learner);
        let record = SlotRecord { volume: volume(1), instance: instance(4), peer_url: url(4), member: None };
        view.records.insert(slot(1), record);
    });
    let plan = does(&seen, &["takeMembershipLock", "writeStamp", "tagStamp", "configureEtcd", "startEtcd"]);
    assert_eq!(launches(&plan), Some(LaunchState::Existing));
    let Step::WriteStamp { stamp } = &plan.steps[1] else { panic!("{plan:#?}") };
    assert_eq!(stamp.state, joining(7));
}

#[test]
fn a_volume_stamped_starting_without_data_starts_as_new_again() {
    let seen = scene().chartered(charter(&[1])).stamped(starting(), DataDir::Absent);
    let plan = does(&seen, &["configureEtcd", "startEtcd"]);
    assert_eq!(launches(&plan), Some(LaunchState::New));
    let unmarked = scene().chartered(charter(&[])).stamped(starting(), DataDir::Absent);
    does(&unmarked, &["amendCharter", "configureEtcd", "startEtcd"]);
}

#[test]
fn the_tag_that_a_crash_left_out_is_written_before_the_mark() {
    let seen = scene().chartered(charter(&[])).stamped(starting(), DataDir::Absent).but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("formatted".to_owned());
    });
    does(&seen, &["tagStamp", "amendCharter", "configureEtcd", "startEtcd"]);
}

#[test]
fn a_mark_is_withdrawn_by_who_holds_the_volume_elsewhere_and_finds_no_data() {
    for started in [&[1][..], &[1, 2], &[1, 2, 3]] {
        let seen = scene().chartered(charter(started)).stamped(starting(), DataDir::Absent).replaced();
        let plan = does(&seen, &["amendCharter"]);
        let Step::AmendCharter { charter, change, .. } = &plan.steps[0] else { panic!("{plan:#?}") };
        assert_eq!(*change, CharterChange::Withdraw);
        assert_eq!(charter.founder(slot(1)).unwrap().started, None);
    }
}

#[test]
fn a_mark_is_not_withdrawn_where_there_are_data() {
    let seen = scene()
        .chartered(charter(&[1]))
        .stamped(starting(), DataDir::Present)
        .replaced()
        .waiting(WaitingOn::Quorum, HOUR);
    assert!(!names(&plan(&seen)).contains(&"amendCharter"));
}

#[test]
fn data_of_the_same_generation_are_started_as_they_are() {
    for state in [starting(), joining(1), member_of(1)] {
        let seen = scene().chartered(charter(&[1, 2, 3])).stamped(state, DataDir::Present);
        let plan = does(&seen, &["configureEtcd", "startEtcd"]);
        assert_eq!(launches(&plan), Some(LaunchState::Existing));
    }
}

#[test]
fn a_member_with_a_new_address_tells_the_cluster_before_it_starts() {
    let seen = scene()
        .chartered(charter(&[1, 2, 3]))
        .stamped(member_of(1), DataDir::Present)
        .replaced()
        .quorate(&[2, 3], None);
    let plan = does(&seen, &["recordSlot", "updatePeerUrl", "configureEtcd", "startEtcd"]);
    assert_eq!(plan.steps[1], Step::UpdatePeerUrl { member: MemberId(1), peer_url: url(4) });
}

#[test]
fn a_member_with_a_new_address_starts_without_a_quorum_only_after_a_patience() {
    let seen = scene().chartered(charter(&[1, 2, 3])).stamped(member_of(1), DataDir::Present).replaced();
    assert_eq!(waits(&seen), WaitingOn::Quorum);
    does(&seen.waiting(WaitingOn::Quorum, HOUR), &["configureEtcd", "startEtcd"]);
}

#[test]
fn a_founder_without_a_name_is_known_by_its_record_after_its_address_changed() {
    let seen = scene()
        .chartered(charter(&[1, 2, 3]))
        .stamped(starting(), DataDir::Present)
        .replaced()
        .quorate(&[2, 3], Some(1))
        .but(|seen| {
            let view = seen.view();
            view.members.get_mut(&MemberId(1)).unwrap().peer_urls = vec![url(4)];
            let member = Some(MemberId(1));
            let record = SlotRecord { volume: volume(1), instance: instance(4), peer_url: url(4), member };
            view.records.insert(slot(1), record);
        });
    does(&seen, &["configureEtcd", "startEtcd"]);
}

#[test]
fn data_of_a_member_that_the_cluster_has_removed_are_set_aside() {
    let seen =
        scene().chartered(charter(&[1, 2, 3])).stamped(member_of(9), DataDir::Present).quorate(&[2, 3], None);
    does(&seen, &["setDataAside", "writeStamp"]);
}

#[test]
fn a_wiped_member_is_replaced_and_never_starts_as_new() {
    let wiped = scene().chartered(charter(&[1, 2, 3])).stamped(member_of(1), DataDir::Absent);
    does(&wiped, &["writeStamp"]);
    // Neither its tag nor the charter lets it start, whatever its stamp says.
    let blank = scene().chartered(charter(&[2, 3])).but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("starting 1".to_owned());
    });
    assert_eq!(waits(&blank), WaitingOn::Quorum);
    let marked = scene().chartered(charter(&[1, 2, 3]));
    assert_eq!(waits(&marked), WaitingOn::Quorum);
    does(&marked.quorate(&[2, 3], None), &["takeMembershipLock", "removeMember"]);
}

#[test]
fn a_founder_neither_starts_nor_is_replaced_while_its_tag_is_unknown() {
    let seen = scene().chartered(charter(&[2, 3])).quorate(&[2, 3], Some(1)).but(|seen| {
        seen.volumes = Fact::unknown("throttled");
    });
    assert!(matches!(waits(&seen), WaitingOn::Answer { about: Subject::Volumes, .. }));
}

#[test]
fn a_volume_ahead_of_the_charter_halts() {
    let later = StampState::Member { uuid: uuid(), generation: Generation(2), member: MemberId(1) };
    let seen = scene().chartered(charter(&[1, 2, 3])).stamped(later, DataDir::Present);
    assert!(matches!(halts(&seen), Halt::CharterBehind { .. }));
}

#[test]
fn another_clusters_uuid_halts() {
    let other = "00000000-0000-0000-0000-0000000000c2".parse().unwrap();
    let stamp = StampState::Member { uuid: other, generation: FIRST, member: MemberId(1) };
    let seen = scene().chartered(charter(&[1, 2, 3])).stamped(stamp, DataDir::Present);
    assert!(matches!(halts(&seen), Halt::WrongStamp { .. }));
}

#[test]
fn data_without_the_mark_and_data_under_a_formatted_stamp_halt() {
    let unmarked = scene().chartered(charter(&[2, 3])).stamped(starting(), DataDir::Present);
    assert!(matches!(halts(&unmarked), Halt::Contradiction { .. }));
    let formatted = scene().chartered(charter(&[2, 3])).stamped(StampState::Formatted, DataDir::Present);
    assert!(matches!(halts(&formatted), Halt::Contradiction { .. }));
}

#[test]
fn etcd_that_ended_by_itself_is_started_again_after_a_pause_that_says_how_it_ended() {
    let seen = scene()
        .chartered(charter(&[1, 2, 3]))
        .stamped(member_of(1), DataDir::Present)
        .but(|seen| seen.etcd.service = Fact::Known(ServiceState::Failed("exit code 2".to_owned())));
    let plan = does(&seen, &["configureEtcd", "startEtcd"]);
    assert!(matches!(plan.steps.last(), Some(Step::StartEtcd { after }) if *after > 0));
    assert_eq!(plan.report.waiting, [WaitingOn::EtcdRestart { how: "exit code 2".to_owned() }]);
}

#[test]
fn a_member_in_order_has_nothing_to_do() {
    let plan = does(&whole(), &[]);
    assert_eq!((plan.report.phase, plan.report.halt), (Phase::Running, None));
    assert_eq!(plan.report.waiting, []);
}

#[test]
fn a_running_member_is_left_alone_when_nothing_answers() {
    let seen = whole().but(|seen| {
        seen.charter = Fact::unknown("timeout");
        seen.volumes = Fact::unknown("throttled");
        seen.instances = Fact::unknown("throttled");
        seen.authority = Fact::unknown("timeout");
        seen.etcd.cluster = Fact::unknown("no quorum");
    });
    assert_eq!(waits(&seen), WaitingOn::Quorum);
}

#[test]
fn a_member_whose_charter_does_not_answer_starts_only_when_its_quorum_vouches_for_it() {
    let alone = scene().chartered(charter(&[1, 2, 3])).stamped(member_of(1), DataDir::Present);
    let vouched = alone.clone().quorate(&[2, 3], None);
    let silent = |seen: &mut Observation| seen.charter = Fact::unknown("timeout");
    assert!(matches!(waits(&alone.but(silent)), WaitingOn::Answer { about: Subject::Charter, .. }));
    does(&vouched.but(silent), &["configureEtcd", "startEtcd"]);
}
