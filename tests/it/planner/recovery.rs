//! When a cluster of which nothing is left is brought back, by whom, and how.

use quorate::model::charter::{CharterChange, Founder};
use quorate::model::observation::PublishedMembers;
use quorate::model::plan::Subject;
use quorate::model::*;

use super::scene::*;

const MINUTE: i64 = 60_000;
const SECOND: Generation = Generation(2);

fn point() -> RestorePoint {
    let chain = ChainName::new(FIRST, 7, "0a1b2c3d").unwrap();
    RestorePoint { chain, segments: 2, revision: 9, at: NOW - HOUR, passed_over: Vec::new() }
}

fn chosen(point: Option<RestorePoint>) -> ChosenBackup {
    let damaged = if point.is_none() { vec!["1/7: truncated".to_owned()] } else { Vec::new() };
    ChosenBackup { uuid: uuid(), generation: FIRST, at: NOW - MINUTE, point, damaged }
}

/// The whole group was lost with its volumes: new machines 4 to 6 hold the blank volumes 4 to 6. This is the first.
pub fn lost() -> Observation {
    scene().chartered(charter(&[1, 2, 3])).replaced().but(|seen| {
        seen.backups = Fact::Known(true);
        for n in 1..=3 {
            let blank = Volume { attachment: attached_to(instance(n + 3)), ..listed(n) };
            seen.volumes().insert(volume(n + 3), blank);
            seen.volumes().insert(volume(n), Volume { state: VolumeState::Deleted, ..free(n) });
            seen.instances().get_mut(&instance(n)).unwrap().state = InstanceState::Terminated;
            let address = Some(address(n + 3));
            seen.instances().insert(instance(n + 3), Instance { address, ..running(n) });
        }
        seen.holding(4);
    })
}

trait Lost: Change {
    /// The disk here is this volume's.
    fn holding(&mut self, n: u8) {
        if let Fact::Known(Some(disk)) = &mut self.seen().disk {
            disk.volume = volume(n);
        }
        if let Fact::Known(Some(stamp)) = &mut self.holds().stamp {
            stamp.volume = volume(n);
        }
    }

    /// All that is waited for now has been waited for that long.
    fn after(mut self, milliseconds: i64) -> Self {
        let waits = plan(self.seen()).report.waiting;
        assert!(!waits.is_empty());
        self.seen().waiting = waits.into_iter().map(|on| Waiting { on, since: NOW - milliseconds }).collect();
        self
    }

    /// The stamp and tag of the volume here.
    fn with_stamp(mut self, state: StampState, data: DataDir) -> Self {
        let Fact::Known(Some(disk)) = &self.seen().disk else { panic!() };
        let volume = disk.volume.clone();
        self.volumes().get_mut(&volume).unwrap().stamp = Some(state.to_string());
        if let Fact::Known(Some(stamp)) = &mut self.holds().stamp {
            stamp.state = state;
        }
        self.holds().data = data;
        self
    }
}

impl Lost for Observation {}

/// Nothing is left, which has been said twice, and a backup has been read through.
pub fn settled() -> Observation {
    lost().after(MINUTE).but(|seen| seen.chosen = Fact::Known(Some(chosen(Some(point())))))
}

fn lives(n: u8, state: VolumeState) -> Observation {
    lost().but(|seen| seen.volumes().get_mut(&volume(n)).unwrap().state = state)
}

#[track_caller]
fn quorum_lost(seen: &Observation) -> (Vec<VolumeId>, Vec<VolumeId>) {
    match halts(seen) {
        Halt::QuorumLost { gone, left, .. } => {
            let ids = |all: Vec<SlotVolume>| all.into_iter().map(|one| one.volume).collect();
            (ids(gone), ids(left))
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn proposed(seen: &Observation) -> (Charter, CharterChange) {
    match plan(seen).steps.as_slice() {
        [Step::AmendCharter { charter, change, from }] if from.as_str() == "e" => (charter.clone(), *change),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_of_which_nothing_is_left_is_recovered_from_the_newest_backup_that_is_whole() {
    let on = waits(&lost());
    assert!(matches!(&on, WaitingOn::Recovery { generation: FIRST, .. }), "{on:?}");
    assert!(matches!(waits(&lost().after(MINUTE - 1)), WaitingOn::Recovery { .. }), "it is said twice");
    let sure = lost().after(MINUTE);
    let plan = does(&sure, &["chooseBackup"]);
    assert_eq!(plan.steps, [Step::ChooseBackup { uuid: uuid(), generation: FIRST }]);
    assert_eq!(
        (plan.report.phase, plan.report.waiting),
        (Phase::Recovering, vec![on]),
        "or it were forgotten"
    );
    let (next, change) = proposed(&settled());
    assert_eq!((next.generation, change, next.uuid), (SECOND, CharterChange::Recover, uuid()));
    assert_eq!(next.recovery, Some(Recovery::Backup { point: point() }));
    let me =
        Founder { slot: slot(1), volume: volume(4), instance: instance(4), peer_url: url(4), started: None };
    assert_eq!(next.founders, [me]);
}

#[test]
fn nothing_is_recovered_while_any_volume_of_the_generation_may_be_left() {
    for state in [VolumeState::InUse, VolumeState::Available, VolumeState::Creating] {
        let (gone, left) = quorum_lost(&lives(3, state));
        assert_eq!((gone, left), (vec![volume(1), volume(2)], vec![volume(3)]), "{state:?}");
    }
    let unsaid = lost().but(|seen| {
        seen.volumes().remove(&volume(3));
    });
    assert_eq!(quorum_lost(&unsaid).1, [volume(3)]);
    // A member that joined later is known by its tag alone.
    for tag in ["member 1 9", "joining 1 9", "starting 1", "member 2 9", "something"] {
        let tagged = lost().but(|seen| {
            let volume = Volume { stamp: Some(tag.to_owned()), ..free(2) };
            seen.volumes().insert(super::scene::volume(7), volume);
        });
        assert_eq!(quorum_lost(&tagged).1, [volume(7)], "{tag}");
    }
}

#[test]
fn a_volume_of_an_older_generation_is_nothing_that_is_left() {
    let second = |seen: &mut Observation| {
        let later = Charter { generation: SECOND, ..charter(&[1, 2, 3]) };
        *seen = seen.clone().chartered(later);
        seen.volumes().insert(volume(7), Volume { stamp: Some("member 1 9".to_owned()), ..free(2) });
    };
    does(&lost().but(second).after(MINUTE), &["chooseBackup"]);
}

#[test]
fn a_volume_that_was_wiped_is_lost_and_yet_forbids_a_recovery() {
    let wiped = lost().with_stamp(StampState::Formatted, DataDir::Absent).but(|seen| {
        seen.volumes().get_mut(&volume(4)).unwrap().stamp = Some("member 1 4".to_owned());
    });
    let (gone, left) = quorum_lost(&wiped);
    assert!(gone.contains(&volume(4)) && left.is_empty(), "{gone:?} {left:?}");
}

#[test]
fn the_last_known_members_volumes_count() {
    let record =
        SlotRecord { volume: volume(8), instance: instance(8), peer_url: url(8), member: Some(MemberId(8)) };
    let published = |generation: Generation| {
        let record = record.clone();
        lost().but(move |seen| {
            let slots = [(slot(3), record)].into_iter().collect();
            seen.published = Fact::Known(Some(PublishedMembers { generation, slots }));
        })
    };
    assert_eq!(quorum_lost(&published(FIRST)).1, [volume(8)], "EC2 has not said what became of it");
    let gone = published(FIRST).but(|seen| {
        seen.volumes().insert(volume(8), Volume { state: VolumeState::Deleted, ..free(3) });
    });
    does(&gone.after(MINUTE), &["chooseBackup"]);
    does(&published(Generation(0)).after(MINUTE), &["chooseBackup"]);
    let ahead = plan(&published(SECOND));
    let about_charter = |on: &WaitingOn| matches!(on, WaitingOn::Answer { about: Subject::Charter, .. });
    assert!(ahead.steps.is_empty() && ahead.report.waiting.iter().any(about_charter), "{:#?}", ahead.report);
}

#[test]
fn not_found_counts_when_it_is_said_twice() {
    let unknown = lives(2, VolumeState::NotFound);
    let report = plan(&unknown).report;
    let twice = WaitingOn::ConfirmedGone { what: volume(2).to_string() };
    assert!(report.waiting.contains(&twice), "{:#?}", report.waiting);
    does(&unknown.clone().after(MINUTE), &["chooseBackup"]);
    let just = unknown.clone().after(MINUTE).but(|seen| {
        seen.waiting.retain(|waiting| waiting.on != twice);
    });
    assert!(matches!(waits(&just), WaitingOn::Recovery { .. }));
    // Nor does a human read that a quorum is lost before.
    let partly = unknown.but(|seen| seen.volumes().get_mut(&volume(3)).unwrap().state = VolumeState::InUse);
    assert_eq!(waits(&partly), WaitingOn::Quorum);
    assert_eq!(quorum_lost(&partly.after(MINUTE)).1, [volume(3)]);
}

#[test]
fn a_failed_volume_is_gone_when_its_machine_is() {
    does(&lives(2, VolumeState::Error).after(MINUTE), &["chooseBackup"]);
    let running = lives(2, VolumeState::Error).but(|seen| {
        seen.instances().get_mut(&instance(2)).unwrap().state = InstanceState::Running;
    });
    assert_eq!(quorum_lost(&running).1, [volume(2)]);
    let held = lives(2, VolumeState::Error).but(|seen| {
        seen.volumes().get_mut(&volume(2)).unwrap().attachment = attached_to(instance(5));
    });
    assert_eq!(quorum_lost(&held).1, [volume(2)]);
}

#[test]
fn a_quorum_that_may_come_back_is_waited_for() {
    let two = lost().but(|seen| {
        for n in [2, 3] {
            seen.volumes().get_mut(&volume(n)).unwrap().state = VolumeState::Available;
        }
    });
    assert_eq!(waits(&two), WaitingOn::Quorum);
    assert_eq!(waits(&two.after(24 * HOUR)), WaitingOn::Quorum);
}

#[test]
fn nothing_is_recovered_on_an_unknown_answer() {
    type Forget = fn(&mut Observation);
    let unknowns: [(Forget, Subject); 6] = [
        (|seen| seen.charter = Fact::unknown("503"), Subject::Charter),
        (|seen| seen.volumes = Fact::unknown("throttled"), Subject::Volumes),
        (|seen| seen.instances = Fact::unknown("throttled"), Subject::Instances),
        (|seen| seen.published = Fact::unknown("503"), Subject::Members),
        (|seen| seen.backups = Fact::unknown("503"), Subject::Backups),
        (|seen| seen.chosen = Fact::unknown("unreadable"), Subject::Chosen),
    ];
    for (forget, subject) in unknowns {
        let plan = plan(&settled().but(forget));
        assert!(plan.steps.is_empty() && plan.report.halt.is_none(), "{plan:#?}");
        let about = |on: &WaitingOn| matches!(on, WaitingOn::Answer { about, .. } if *about == subject);
        assert!(plan.report.waiting.iter().any(about), "{subject}: {:#?}", plan.report.waiting);
    }
}

#[test]
fn without_a_backup_that_is_whole_an_operator_is_asked() {
    let none = lost().but(|seen| seen.backups = Fact::Known(false)).after(MINUTE);
    assert_eq!(halts(&none), Halt::NoBackup { generation: FIRST, damaged: Vec::new() });
    let damaged = settled().but(|seen| seen.chosen = Fact::Known(Some(chosen(None))));
    let found = halts(&damaged);
    assert_eq!(found, Halt::NoBackup { generation: FIRST, damaged: vec!["1/7: truncated".to_owned()] });
    assert!(!plan(&damaged).report.waiting.is_empty(), "or the minute began anew");
}

#[test]
fn what_was_found_in_the_backups_serves_for_ten_minutes_and_for_this_generation() {
    let changes: [fn(&mut ChosenBackup); 4] = [
        |chosen| chosen.at = NOW - 10 * MINUTE,
        |chosen| chosen.at = NOW + 1,
        |chosen| chosen.generation = SECOND,
        |chosen| chosen.uuid = "00000000-0000-0000-0000-0000000000c2".parse().unwrap(),
    ];
    for change in changes {
        let seen = settled().but(|seen| {
            let Fact::Known(Some(chosen)) = &mut seen.chosen else { panic!() };
            change(chosen);
        });
        does(&seen, &["chooseBackup"]);
    }
}

#[test]
fn an_operator_who_wants_to_is_asked_first() {
    let settings = settings_with("recovery: manual\n");
    let plan = quorate::plan::plan(&settings, &settled());
    let Some(Halt::QuorumLost { gone, left, .. }) = plan.report.halt else { panic!("{plan:#?}") };
    assert_eq!((plan.steps.len(), gone.len(), left.len()), (0, 3, 0));
}

#[test]
fn a_survivor_is_left_running_and_says_how_to_go_on() {
    let two_gone = |seen: &mut Observation| {
        seen.etcd.cluster = Fact::unknown("no quorum");
        for n in [2, 3] {
            seen.volumes().get_mut(&volume(n)).unwrap().state = VolumeState::Deleted;
        }
    };
    let (gone, left) = quorum_lost(&whole().but(two_gone));
    assert_eq!((gone, left), (vec![volume(2), volume(3)], vec![volume(1)]));
    let words = halts(&whole().but(two_gone)).to_string();
    assert!(words.contains("`quorate etcd recover --from 1`"), "{words}");
    let one_gone = whole().but(two_gone).but(|seen| {
        seen.volumes().get_mut(&volume(3)).unwrap().state = VolumeState::InUse;
    });
    assert_eq!(waits(&one_gone), WaitingOn::Quorum);
}

/// A recovery whose founder is this machine, in slot 1 with volume 4.
pub fn recovering() -> Observation {
    let (charter, _) = proposed(&settled());
    lost().chartered(charter)
}

pub fn second(data: DataDir) -> Observation {
    recovering().with_stamp(StampState::Starting { uuid: uuid(), generation: SECOND }, data)
}

pub fn begun(seen: Observation) -> Observation {
    let Fact::Known(Some(versioned)) = &seen.charter else { panic!() };
    let charter = versioned.value.mark_started(slot(1), &volume(4), &url(4), "m".parse().unwrap()).unwrap();
    seen.chartered(charter)
}

#[test]
fn a_recoverys_founder_makes_its_data_then_sets_its_mark_then_starts_on_them() {
    let plan = does(&recovering(), &["writeStamp", "tagStamp", "restoreData"]);
    let Step::RestoreData { recovery, launch } = &plan.steps[2] else { panic!("{plan:#?}") };
    assert_eq!((launch.slot, recovery), (slot(1), &Recovery::Backup { point: point() }));
    assert_eq!((launch.generation, launch.state), (SECOND, LaunchState::Existing));
    assert_eq!(launch.initial_cluster, [("etcd-1".to_owned(), url(4))]);
    assert_eq!(plan.report.phase, Phase::Recovering);
    does(&second(DataDir::Absent), &["restoreData"]);
    does(&second(DataDir::Unborn), &["setDataAside"]);
    let plan = does(&second(DataDir::Present), &["amendCharter", "configureEtcd", "startEtcd"]);
    let Step::AmendCharter { charter, change, .. } = &plan.steps[0] else { panic!("{plan:#?}") };
    assert_eq!((*change, charter.established()), (CharterChange::MarkStarted, true));
    let Step::ConfigureEtcd { launch } = &plan.steps[1] else { panic!("{plan:#?}") };
    assert_eq!(launch.state, LaunchState::Existing);
    does(&begun(second(DataDir::Present)), &["configureEtcd", "startEtcd"]);
}

#[test]
fn nothing_runs_on_restored_data_before_the_mark() {
    does(&second(DataDir::Present).serving(1, false, true), &["stopEtcd"]);
}

#[test]
fn a_tag_that_was_set_before_a_wipe_does_not_keep_a_founder_from_beginning_that_never_ran() {
    let wiped = second(DataDir::Absent).but(|seen| {
        if let Fact::Known(Some(stamp)) = &mut seen.holds().stamp {
            stamp.state = StampState::Formatted;
        }
    });
    does(&wiped, &["writeStamp", "tagStamp", "restoreData"]);
}

#[test]
fn data_that_may_have_been_written_to_are_never_made_again() {
    does(&begun(second(DataDir::Absent)), &["writeStamp"]);
    let left = begun(second(DataDir::Absent)).but(|seen| {
        if let Fact::Known(Some(stamp)) = &mut seen.holds().stamp {
            stamp.state = StampState::Formatted;
        }
    });
    assert_eq!(quorum_lost(&left), (vec![volume(4)], vec![]));
    // Another machine's volume is blank: the founder's may hold what was written.
    let other = begun(recovering()).but(|seen| {
        let mine = seen.volumes().remove(&volume(4)).unwrap();
        seen.volumes().insert(volume(9), mine);
        seen.volumes().insert(volume(4), Volume { stamp: Some("starting 2".to_owned()), ..free(1) });
        seen.holding(9);
    });
    assert_eq!(waits(&other), WaitingOn::Quorum);
    let gone = other.but(|seen| seen.volumes().get_mut(&volume(4)).unwrap().state = VolumeState::Deleted);
    does(&gone.after(MINUTE), &["chooseBackup"]);
}

#[test]
fn the_others_wait_for_a_recoverys_founder_and_take_its_place_when_it_is_gone() {
    let other = recovering().but(|seen| {
        let Fact::Known(Some(versioned)) = &mut seen.charter else { panic!() };
        let founder = &mut versioned.value.founders[0];
        (founder.slot, founder.volume, founder.instance) = (slot(2), volume(5), instance(5));
        founder.peer_url = url(5);
    });
    assert_eq!(waits(&other), WaitingOn::Founders { generation: SECOND, missing: vec![slot(2)] });
    let gone = other.but(|seen| {
        seen.instances().get_mut(&instance(5)).unwrap().state = InstanceState::Terminated;
    });
    assert!(matches!(waits(&gone), WaitingOn::Recovery { generation: SECOND, .. }));
    let (next, change) = proposed(&gone.after(MINUTE));
    assert_eq!((next.generation, change), (Generation(3), CharterChange::Refound));
    assert_eq!(next.recovery, Some(Recovery::Backup { point: point() }), "never an empty founding");
    assert_eq!((next.founders[0].slot, next.founders.len()), (slot(1), 1));
}

#[test]
fn a_founder_whose_address_changed_begins_the_next_generation() {
    let moved = |data| {
        second(data).but(|seen| {
            let Fact::Known(Some(versioned)) = &mut seen.charter else { panic!() };
            versioned.value.founders[0].peer_url = url(9);
        })
    };
    for data in [DataDir::Absent, DataDir::Present] {
        let (next, change) = proposed(&moved(data).after(MINUTE));
        assert_eq!((next.generation, change), (Generation(3), CharterChange::Refound));
        assert_eq!(next.founders[0].peer_url, url(4));
    }
    // What was made for the generation before never ran, and is set aside.
    let (next, _) = proposed(&moved(DataDir::Present).after(MINUTE));
    does(&second(DataDir::Present).chartered(next), &["setDataAside", "writeStamp"]);
}

/// An operator goes on with slot 1's data, on volume 1.
fn surviving() -> Charter {
    let founder = Founder { started: None, ..charter(&[]).founders[0].clone() };
    let recovery = Recovery::Survivor { volume: volume(1), generation: FIRST };
    charter(&[1, 2, 3]).recover(founder, recovery, "m".parse().unwrap()).unwrap()
}

#[test]
fn a_survivor_sets_its_data_aside_and_goes_on_with_them_and_the_others_follow() {
    let seen = whole().chartered(surviving());
    let plan = does(&seen, &["stopEtcd", "setDataAside", "writeStamp"]);
    assert_eq!(
        (&plan.steps[1], plan.report.phase),
        (&Step::SetDataAside { because: "generation-1".to_owned() }, Phase::Recovering)
    );
    let aside = scene().chartered(surviving()).but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("member 1 1".to_owned());
    });
    let plan = does(&aside, &["writeStamp", "tagStamp", "restoreData"]);
    let Step::RestoreData { recovery, .. } = &plan.steps[2] else { panic!("{plan:#?}") };
    assert_eq!(recovery, &Recovery::Survivor { volume: volume(1), generation: FIRST });
}

#[test]
fn only_the_machine_with_the_survivors_volume_goes_on_with_it() {
    let other = lost().chartered(surviving());
    let lives = other.clone().but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().state = VolumeState::Available;
    });
    assert!(matches!(waits(&lives), WaitingOn::Founders { generation: SECOND, .. }));
    assert!(matches!(waits(&other), WaitingOn::Recovery { generation: SECOND, .. }));
    assert_eq!(quorum_lost(&other.after(MINUTE)), (vec![volume(1)], vec![]));
    let successor = scene().chartered(surviving()).replaced().after(MINUTE);
    let (next, _) = proposed(&successor);
    assert_eq!(next.recovery, Some(Recovery::Survivor { volume: volume(1), generation: FIRST }));
    assert_eq!((next.generation, &next.founders[0].instance), (Generation(3), &instance(4)));
}

#[test]
fn the_others_join_a_recovery_that_has_begun() {
    let other = begun(recovering()).but(|seen| {
        let mine = seen.volumes().remove(&volume(4)).unwrap();
        seen.volumes().insert(volume(4), Volume { attachment: attached_to(instance(9)), ..mine.clone() });
        seen.volumes().insert(volume(9), Volume { slot: Some(slot(2)), zone: Some(zone(1)), ..mine });
        seen.holding(9);
        if let Fact::Known(Some(stamp)) = &mut seen.holds().stamp {
            stamp.slot = slot(2);
        }
        if let Fact::Known(Some(versioned)) = &mut seen.charter {
            versioned.value.zones[1] = zone(1);
        }
    });
    let founder = Member {
        name: "etcd-1".to_owned(),
        peer_urls: vec![url(4)],
        learner: false,
        healthy: Fact::Known(true),
    };
    let other = other.quorate(&[1], None).but(|seen| {
        let view = seen.view();
        view.members = [(MemberId(9), founder)].into_iter().collect();
        view.records.clear();
    });
    // Two volumes are attached to this machine's zone; this one is slot 2's.
    let other = other.but(|seen| {
        seen.volumes().get_mut(&volume(4)).unwrap().attachment = attached_to(instance(5));
    });
    does(&other, &["takeMembershipLock", "recordSlot", "addLearner"]);
}

#[test]
fn a_volume_is_created_where_nothing_is_left_and_each_recovery_asks_anew() {
    let settings = settings_with("etcd: {volume: {source: created}}\n");
    let bare = |seen: Observation| {
        seen.but(|seen| {
            seen.disk = Fact::Known(None);
            seen.volumes().retain(|id, _| *id != volume(4));
        })
    };
    let token = |seen: &Observation| match quorate::plan::plan(&settings, seen).steps.as_slice() {
        [Step::CreateVolume { token, .. }] => Some(token.clone()),
        [] => None,
        other => panic!("{other:?}"),
    };
    let before = token(&bare(lost())).unwrap();
    assert_eq!(token(&bare(lives(2, VolumeState::InUse))), None, "only etcd knows the slot's last volume");
    let elsewhere = bare(recovering()).but(|seen| {
        let Fact::Known(Some(versioned)) = &mut seen.charter else { panic!() };
        versioned.value.founders[0].slot = slot(2);
        versioned.value.founders[0].volume = volume(5);
    });
    let first = token(&bare(scene().but(|seen| {
        seen.volumes().remove(&volume(1));
    })));
    let after = token(&elsewhere);
    assert!(after.is_some() && after != Some(before) && after != first, "{after:?}");
}
