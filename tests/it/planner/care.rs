//! How etcd is looked after: databases, alarms, members that differ, and one that says nothing.

use std::collections::{BTreeMap, BTreeSet};

use quorate::config::Settings;
use quorate::model::*;

use super::scene::*;

const MIB: u64 = 1 << 20;
const MINUTE: i64 = 60_000;

fn id(n: u8) -> MemberId {
    MemberId(n.into())
}

/// Observations with a word on how the members are kept.
pub trait Cared: Sized {
    /// Every member is small, no alarm is raised, and the hashes were alike a moment ago.
    fn cared(self) -> Self;
    fn care(&mut self) -> Option<&mut EtcdCare>;

    /// A member's database.
    fn holding(self, member: u8, size_mib: u64, in_use_mib: u64) -> Self;
    /// A member that leads.
    fn led_by(self, member: u8) -> Self;
}

impl Cared for Observation {
    fn cared(mut self) -> Self {
        let small = Storage { size: 40 * MIB, in_use: 30 * MIB, quota: Some(1024 * MIB) };
        let members = (1..=3)
            .map(|n| (id(n), MemberCare { serves: Fact::Known(true), storage: Fact::Known(small) }))
            .collect();
        self.etcd.care = Fact::Known(EtcdCare {
            revision: 7777,
            members,
            alarms: Fact::Known(BTreeSet::new()),
            history: Fact::unknown("not asked for"),
            compared: Some(Comparisons { last: comparison(NOW - MINUTE, &[7, 7, 7]), before: None }),
        });
        self
    }

    fn care(&mut self) -> Option<&mut EtcdCare> {
        match &mut self.etcd.care {
            Fact::Known(care) => Some(care),
            Fact::Unknown(_) => None,
        }
    }

    fn holding(mut self, member: u8, size_mib: u64, in_use_mib: u64) -> Self {
        let storage = Storage { size: size_mib * MIB, in_use: in_use_mib * MIB, quota: Some(1024 * MIB) };
        if let Some(care) = self.care() {
            care.members.get_mut(&id(member)).unwrap().storage = Fact::Known(storage);
        }
        self
    }

    fn led_by(mut self, member: u8) -> Self {
        self.view().leader = Some(id(member));
        self
    }
}

fn comparison(at: i64, hashes: &[u32]) -> Comparison {
    let hashes = (1..)
        .zip(hashes)
        .map(|(n, hash)| (id(n), StoreHash { compacted: 5, hash: *hash }))
        .collect::<BTreeMap<_, _>>();
    Comparison { at, revision: 70, hashes }
}

/// Two comparisons in which this member differs.
fn differing(member: u8) -> Comparisons {
    let hashes = [1, 2, 3].map(|n| if n == member { 8 } else { 7 });
    Comparisons {
        last: comparison(NOW - MINUTE, &hashes),
        before: Some(comparison(NOW - 3 * MINUTE, &hashes)),
    }
}

/// All are at their quota, and defragmentation would help.
pub fn full(seen: Observation) -> Observation {
    (1..=3).fold(seen, |seen, n| seen.holding(n, 1020, 100))
}

/// All have more holes than data.
pub fn hollow(seen: Observation) -> Observation {
    (1..=3).fold(seen, |seen, n| seen.holding(n, 600, 100))
}

pub fn alarmed(mut seen: Observation, member: u8, kind: AlarmKind) -> Observation {
    if let Some(care) = seen.care() {
        care.alarms = Fact::Known([Alarm { member: id(member), kind }].into());
        care.history = Fact::Known(false);
    }
    seen
}

/// Recorded in etcd: this member differs.
pub fn condemned(mut seen: Observation, member: u8) -> Observation {
    if let Some(care) = seen.care() {
        care.compared = Some(differing(member));
    }
    seen
}

/// Noted on this machine: its own member differs.
pub fn condemned_here(mut seen: Observation) -> Observation {
    seen.etcd.notes = Fact::Known(CareNotes { wedge: None, compared: Some(differing(1)) });
    seen
}

/// A whole and settled cluster, led by this member.
fn kept(leader: u8) -> Observation {
    let seen = whole().led_by(leader).cared();
    seen.but(|seen| {
        let tag = member_of(1).to_string();
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some(tag);
        let slots = seen.view().records.clone();
        seen.published =
            Fact::Known(Some(quorate::model::observation::PublishedMembers { generation: FIRST, slots }));
    })
}

fn full_and_alarmed(leader: u8) -> Observation {
    alarmed(full(kept(leader)), 2, AlarmKind::NoSpace)
}

fn warnings(seen: &Observation) -> Vec<String> {
    plan(seen).report.warnings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn warns(seen: &Observation, of: &str) {
    let warnings = warnings(seen);
    assert!(warnings.iter().any(|warning| warning.contains(of)), "{of}: {warnings:#?}");
}

type Refusal = (&'static str, fn(&mut Observation));

/// Asserts that what is done otherwise is not done after any of these changes.
#[track_caller]
fn refuses(seen: &Observation, step: &str, refusals: &[Refusal]) {
    assert!(names(&plan(seen)).contains(&step), "{:#?}", plan(seen));
    for (why, change) in refusals {
        let mut refused = seen.clone();
        change(&mut refused);
        let plan = plan(&refused);
        assert!(!names(&plan).contains(&step), "although {why}: {plan:#?}");
    }
}

fn unhealthy(seen: &mut Observation, member: u8, healthy: Fact<bool>) {
    seen.view().members.get_mut(&id(member)).unwrap().healthy = healthy;
}

fn joins(seen: &mut Observation) {
    let learner = Member {
        name: "etcd-4".to_owned(),
        peer_urls: vec![url(4)],
        learner: true,
        healthy: Fact::Known(true),
    };
    seen.view().members.insert(id(4), learner);
}

#[test]
fn a_settled_cluster_needs_no_care() {
    for leader in 1..=3 {
        let plan = does(&kept(leader), &[]);
        assert_eq!(plan.report.warnings, []);
    }
}

#[test]
fn from_four_fifths_of_the_quota_on_people_are_warned_of_whichever_member() {
    assert_eq!(warnings(&kept(1).holding(2, 819, 800)), [""; 0]);
    warns(&kept(1).holding(2, 820, 800), "member 2 is at 80 % of its quota of 1024 MiB");
    // Before 3.6 a member does not tell its quota: the setting is taken.
    let told = kept(2).but(|seen| {
        let storage = Storage { size: 7000 * MIB, in_use: 7000 * MIB, quota: None };
        seen.care().unwrap().members.get_mut(&id(3)).unwrap().storage = Fact::Known(storage);
    });
    warns(&told, "member 3 is at 85 % of its quota of 8192 MiB");
}

#[test]
fn without_space_the_leaders_machine_compacts_first() {
    let history =
        |leader| full_and_alarmed(leader).but(|seen| seen.care().unwrap().history = Fact::Known(true));
    let plan = does(&history(1), &["compactEtcd"]);
    assert_eq!(plan.steps, [Step::CompactEtcd { revision: 7777 }]);
    does(&history(2), &[]);
    warns(&history(2), "by the leader's machine");
    refuses(
        &history(1),
        "compactEtcd",
        &[
            ("it is not known whether there is history", |seen| {
                seen.care().unwrap().history = Fact::unknown("lost");
            }),
            ("the alarms are not known", |seen| seen.care().unwrap().alarms = Fact::unknown("lost")),
            ("nobody leads", |seen| seen.view().leader = None),
        ],
    );
}

#[test]
fn without_space_members_are_defragmented_in_order_and_the_leader_last() {
    // This member is the first of three; it leads, or it does not.
    does(&full_and_alarmed(2), &["defragment"]);
    // What a compaction freed counts as free only where something was written since.
    does(&full_and_alarmed(2).holding(1, 1020, 1010), &["defragment"]);
    does(&full_and_alarmed(1), &[]);
    warns(&full_and_alarmed(1), "member 2 is defragmented next");
    let others_are_done = full_and_alarmed(1).holding(2, 100, 100).holding(3, 100, 100);
    let plan = does(&others_are_done, &["defragment"]);
    assert_eq!(plan.steps, [Step::Defragment { member: id(1) }]);
    refuses(
        &full_and_alarmed(2),
        "defragment",
        &[
            ("another does not serve", |seen| {
                seen.care().unwrap().members.get_mut(&id(3)).unwrap().serves = Fact::unknown("busy");
            }),
            ("another does not say how full it is", |seen| {
                seen.care().unwrap().members.get_mut(&id(3)).unwrap().storage = Fact::unknown("lost");
            }),
            ("it would not help", |seen| {
                *seen = (1..=3).fold(seen.clone(), |seen, n| seen.holding(n, 1020, 900));
            }),
        ],
    );
}

#[test]
fn the_alarm_is_disarmed_when_every_member_has_room_and_not_before() {
    let roomy = |leader| (1..=3).fold(full_and_alarmed(leader), |seen, n| seen.holding(n, 100, 100));
    let plan = does(&roomy(1), &["disarmAlarm"]);
    let alarm = Alarm { member: id(2), kind: AlarmKind::NoSpace };
    assert_eq!(plan.steps, [Step::DisarmAlarm { alarm }]);
    does(&roomy(2), &[]);
    refuses(
        &roomy(1),
        "disarmAlarm",
        &[
            ("another is full of data", |seen| *seen = seen.clone().holding(3, 1000, 990)),
            ("another does not say", |seen| {
                seen.care().unwrap().members.get_mut(&id(3)).unwrap().storage = Fact::unknown("lost");
            }),
            ("there is history to drop", |seen| seen.care().unwrap().history = Fact::Known(true)),
        ],
    );
    let stuffed = (1..=3).fold(roomy(1), |seen, n| seen.holding(n, 1000, 990));
    does(&stuffed, &[]);
    warns(&stuffed, "member 2 uses 96 % of its quota of 1024 MiB even without history");
}

#[test]
fn a_member_whose_instance_is_gone_for_good_does_not_keep_the_alarm_up() {
    let dead = |state| {
        (1..=3).fold(full_and_alarmed(1), |seen, n| seen.holding(n, 100, 100)).but(|seen| {
            unhealthy(seen, 3, Fact::unknown("no answer"));
            let member = MemberCare { serves: Fact::unknown("lost"), storage: Fact::unknown("lost") };
            seen.care().unwrap().members.insert(id(3), member);
            seen.instances().get_mut(&instance(3)).unwrap().state = state;
        })
    };
    does(&dead(InstanceState::Running), &[]);
    does(&dead(InstanceState::ShuttingDown), &[]);
    does(&dead(InstanceState::Terminated), &["disarmAlarm"]);
}

#[test]
fn a_hollow_database_is_defragmented_under_the_lock_at_full_health_and_the_leader_last() {
    let seen = hollow(kept(2));
    does(&seen, &["takeMembershipLock", "defragment"]);
    // Whoever has the lock keeps it for that.
    let holding = seen.clone().but(|seen| seen.view().lock = Some(instance(1)));
    does(&holding, &["takeMembershipLock", "defragment"]);
    let done = kept(2).but(|seen| seen.view().lock = Some(instance(1)));
    does(&done, &["releaseMembershipLock"]);
    does(&hollow(kept(1)), &[]);
    let last = hollow(kept(1)).holding(2, 100, 90).holding(3, 100, 90);
    does(&last, &["takeMembershipLock", "defragment"]);
    let refusals: [Refusal; 8] = [
        ("another is ill", |seen| unhealthy(seen, 2, Fact::Known(false))),
        ("another does not answer", |seen| unhealthy(seen, 3, Fact::unknown("no answer"))),
        ("one joins", joins),
        ("another machine changes the members", |seen| seen.view().lock = Some(instance(2))),
        ("nobody leads", |seen| seen.view().leader = None),
        ("its size is not known", |seen| {
            seen.care().unwrap().members.get_mut(&id(1)).unwrap().storage = Fact::unknown("lost");
        }),
        ("too little is free", |seen| *seen = seen.clone().holding(1, 199, 100)),
        ("too small a share is free", |seen| *seen = seen.clone().holding(1, 300, 160)),
    ];
    refuses(&seen, "defragment", &refusals);
    refuses(&last, "defragment", &refusals[..6]);
    refuses(
        &last,
        "defragment",
        &[("another's size is not known", |seen| {
            seen.care().unwrap().members.get_mut(&id(2)).unwrap().storage = Fact::unknown("lost");
        })],
    );
}

#[test]
fn what_is_worth_defragmenting_is_a_setting_and_near_the_quota_less_is() {
    let with = |more: &str, seen: &Observation| {
        let settings: Settings = settings_with(more);
        names(&quorate::plan::plan(&settings, seen)).contains(&"defragment")
    };
    let seen = kept(2).holding(1, 300, 250);
    assert!(!with("", &seen));
    assert!(with("etcd: {defragment: {minFree: 40MiB, minShare: 15}}\n", &seen));
    assert!(!with("etcd: {defragment: {minFree: 60MiB, minShare: 15}}\n", &seen));
    assert!(with("", &kept(2).holding(1, 900, 790)));
    assert!(!with("", &kept(2).holding(1, 900, 810)));
}

#[test]
fn hashes_are_compared_by_the_leaders_machine_once_an_interval_at_full_health() {
    let after = |leader, milliseconds: i64| {
        kept(leader).but(|seen| {
            seen.care().unwrap().compared =
                Some(Comparisons { last: comparison(NOW - milliseconds, &[7, 7, 7]), before: None });
        })
    };
    does(&after(1, HOUR - 1), &[]);
    does(&after(1, HOUR), &["compareHashes"]);
    does(&after(2, HOUR), &[]);
    // By a clock that was wrong: it would never be due.
    does(&after(1, -HOUR), &["compareHashes"]);
    let never = kept(1).but(|seen| seen.care().unwrap().compared = None);
    let plan = does(&never, &["compareHashes"]);
    assert_eq!(plan.steps, [Step::CompareHashes { keep: ComparisonPlace::Etcd }]);
    refuses(
        &never,
        "compareHashes",
        &[("the cluster was just made", |seen| seen.care().unwrap().revision = 999)],
    );
    refuses(
        &after(1, HOUR),
        "compareHashes",
        &[
            ("another is ill", |seen| unhealthy(seen, 3, Fact::Known(false))),
            ("another does not answer", |seen| unhealthy(seen, 3, Fact::unknown("no answer"))),
        ],
    );
}

#[test]
fn who_differs_once_is_compared_again_and_nothing_else_is_done() {
    let once = |at| {
        hollow(kept(1)).but(|seen| {
            seen.care().unwrap().compared =
                Some(Comparisons { last: comparison(at, &[8, 7, 7]), before: None });
        })
    };
    does(&once(NOW - MINUTE + 1), &[]);
    does(&once(NOW - MINUTE), &["compareHashes"]);
    warns(&once(NOW - MINUTE), "member 1 differ");
}

#[test]
fn a_condemned_member_is_set_aside_by_its_own_machine() {
    let steps = ["takeMembershipLock", "stopEtcd", "setDataAside", "writeStamp"];
    for leader in 1..=3 {
        let plan = does(&condemned(kept(leader), 1), &steps);
        assert_eq!(plan.steps[2], Step::SetDataAside { because: "corrupt".to_owned() });
        does(&condemned(kept(leader), 2), &[]);
    }
    warns(&condemned(kept(2), 3), "its own machine replaces it");
    refuses(
        &condemned(kept(2), 1),
        "stopEtcd",
        &[
            ("another is ill", |seen| unhealthy(seen, 2, Fact::Known(false))),
            ("another does not answer", |seen| unhealthy(seen, 3, Fact::unknown("no answer"))),
            ("one joins", joins),
            ("another machine changes the members", |seen| seen.view().lock = Some(instance(2))),
            ("the charter is not known", |seen| seen.charter = Fact::unknown("lost")),
            ("EC2 says nothing of the volume", |seen| seen.volumes = Fact::unknown("lost")),
            ("how members are kept is not known", |seen| seen.etcd.care = Fact::unknown("lost")),
            ("the two comparisons were one", |seen| {
                let compared = seen.care().unwrap().compared.as_mut().unwrap();
                compared.before = Some(compared.last.clone());
            }),
            ("no majority agrees", |seen| {
                let compared = seen.care().unwrap().compared.as_mut().unwrap();
                compared.last = comparison(NOW - MINUTE, &[8, 7, 9]);
            }),
            ("the others were compacted elsewhere", |seen| {
                let compared = seen.care().unwrap().compared.as_mut().unwrap();
                compared.last.hashes.get_mut(&id(1)).unwrap().compacted = 4;
            }),
        ],
    );
    let split = kept(1).but(|seen| {
        seen.care().unwrap().compared =
            Some(Comparisons { last: comparison(NOW - MINUTE, &[7, 8, 9]), before: None });
    });
    warns(&split, "no majority of them agrees");
}

#[test]
fn a_condemned_member_that_was_cut_off_after_the_stop_does_not_start_again() {
    let stopped = |state: ServiceState| {
        kept(2).but(|seen| {
            seen.etcd.service = Fact::Known(state);
            seen.etcd.own = Fact::unknown("etcd does not run here");
            unhealthy(seen, 1, Fact::unknown("no answer"));
        })
    };
    let failed = ServiceState::Failed("found data inconsistency with peers".to_owned());
    for state in [ServiceState::Stopped, failed] {
        assert!(names(&plan(&stopped(state.clone()))).contains(&"startEtcd"));
        does(&condemned(stopped(state.clone()), 1), &["setDataAside", "writeStamp"]);
        does(&condemned_here(stopped(state.clone())), &["setDataAside", "writeStamp"]);
        assert!(names(&plan(&condemned(stopped(state.clone()), 2))).contains(&"startEtcd"));
        let lost = condemned(stopped(state), 1).but(|seen| seen.etcd.care = Fact::unknown("lost"));
        assert!(names(&plan(&lost)).contains(&"startEtcd"));
    }
}

#[test]
fn after_its_data_were_set_aside_it_is_removed_and_joins_as_a_learner() {
    let aside = condemned(kept(2), 1).stamped(StampState::Formatted, DataDir::Absent).but(|seen| {
        seen.etcd.service = Fact::Known(ServiceState::Stopped);
        seen.etcd.own = Fact::unknown("etcd does not run here");
        unhealthy(seen, 1, Fact::unknown("no answer"));
    });
    let plan = does(&aside, &["takeMembershipLock", "removeMember"]);
    assert_eq!(plan.steps[1], Step::RemoveMember { member: id(1) });
    let alarmed = alarmed(aside.clone(), 1, AlarmKind::Corrupt);
    does(&alarmed, &["disarmAlarm", "takeMembershipLock", "removeMember"]);
    let removed = aside.but(|seen| {
        seen.view().members.remove(&id(1));
    });
    does(&removed, &["takeMembershipLock", "recordSlot", "addLearner"]);
}

#[test]
fn while_etcd_takes_nothing_the_machine_that_is_blamed_compares_and_decides_for_itself() {
    let blamed = |member| alarmed(kept(2), member, AlarmKind::Corrupt);
    let plan = does(&blamed(1), &["compareHashes"]);
    assert_eq!(plan.steps, [Step::CompareHashes { keep: ComparisonPlace::Machine }]);
    // There is no lock: etcd grants no lease.
    does(&condemned_here(blamed(1)), &["stopEtcd", "setDataAside", "writeStamp"]);
    // What another is blamed for, and what nobody is, is not this machine's.
    does(&condemned_here(blamed(2)), &[]);
    does(&condemned_here(blamed(0)), &[]);
    warns(&blamed(0), "it names no member");
    let innocent = blamed(1).but(|seen| {
        let compared = Comparisons { last: comparison(NOW, &[7, 7, 7]), before: None };
        seen.etcd.notes = Fact::Known(CareNotes { wedge: None, compared: Some(compared) });
    });
    does(&innocent, &[]);
    warns(&innocent, "the members' hashes are alike");
    refuses(
        &condemned_here(blamed(1)),
        "stopEtcd",
        &[
            ("another does not answer", |seen| unhealthy(seen, 3, Fact::unknown("no answer"))),
            ("the charter is not known", |seen| seen.charter = Fact::unknown("lost")),
            ("the notes are not known", |seen| seen.etcd.notes = Fact::unknown("lost")),
        ],
    );
}

#[test]
fn an_alarm_about_a_member_that_is_gone_is_disarmed_by_the_leaders_machine() {
    let gone = |leader| alarmed(kept(leader), 9, AlarmKind::Corrupt);
    let plan = does(&gone(1), &["disarmAlarm"]);
    assert_eq!(plan.steps, [Step::DisarmAlarm { alarm: Alarm { member: id(9), kind: AlarmKind::Corrupt } }]);
    does(&gone(2), &[]);
}

/// etcd runs here and has said nothing for so long, while the others are well.
fn silent(milliseconds: i64) -> Observation {
    kept(2).but(|seen| {
        seen.etcd.own = Fact::unknown("no answer within 6000 ms");
        seen.etcd.silence = Some(Silence { since: NOW - milliseconds, looks: 30 });
        unhealthy(seen, 1, Fact::unknown("no answer"));
    })
}

fn restarted(seen: Observation, ago: i64, given_up: Option<i64>) -> Observation {
    seen.but(|seen| {
        let wedge = WedgeNote { member: id(1), restarted: NOW - ago, given_up };
        seen.etcd.notes = Fact::Known(CareNotes { wedge: Some(wedge), compared: None });
    })
}

fn well_off() -> [Refusal; 9] {
    [
        ("another is ill", |seen| unhealthy(seen, 2, Fact::Known(false))),
        ("another does not answer", |seen| unhealthy(seen, 3, Fact::unknown("no answer"))),
        ("one joins", joins),
        ("another machine changes the members", |seen| seen.view().lock = Some(instance(2))),
        ("it is a learner", |seen| seen.view().members.get_mut(&id(1)).unwrap().learner = true),
        ("it answers others", |seen| unhealthy(seen, 1, Fact::Known(false))),
        ("an alarm is raised", |seen| *seen = alarmed(seen.clone(), 2, AlarmKind::NoSpace)),
        ("no quorum answers", |seen| seen.etcd.cluster = Fact::unknown("no quorum")),
        ("the notes are not known", |seen| seen.etcd.notes = Fact::unknown("lost")),
    ]
}

#[test]
fn an_etcd_that_says_nothing_for_three_minutes_is_restarted_once() {
    assert_eq!(waits(&silent(3 * MINUTE - 1)), WaitingOn::OwnEtcd);
    let plan = does(&silent(3 * MINUTE), &["noteWedge", "stopEtcd"]);
    let note = WedgeNote { member: id(1), restarted: NOW, given_up: None };
    assert_eq!(plan.steps[0], Step::NoteWedge { note });
    assert_eq!(plan.report.waiting, [WaitingOn::OwnEtcd]);
    refuses(&silent(3 * MINUTE), "stopEtcd", &well_off());
    refuses(
        &silent(3 * MINUTE),
        "stopEtcd",
        &[("there were few looks", |seen| {
            seen.etcd.silence = Some(Silence { since: 0, looks: 4 });
        })],
    );
    // Once: the note counts for hours, and only for this member.
    does(&restarted(silent(3 * MINUTE), 3 * MINUTE, None), &[]);
    does(&restarted(silent(3 * MINUTE), 7 * HOUR, None), &["noteWedge", "stopEtcd"]);
    let others = restarted(silent(3 * MINUTE), MINUTE, None).but(|seen| {
        let wedge = WedgeNote { member: id(7), restarted: NOW, given_up: None };
        seen.etcd.notes = Fact::Known(CareNotes { wedge: Some(wedge), compared: None });
    });
    does(&others, &["noteWedge", "stopEtcd"]);
}

#[test]
fn an_instance_is_given_up_when_a_restart_did_not_help_and_the_quorum_survives_it() {
    let wedged = |silent_for, restarted_ago| restarted(silent(silent_for), restarted_ago, None);
    does(&wedged(15 * MINUTE - 1, HOUR), &[]);
    does(&wedged(HOUR, 15 * MINUTE - 1), &[]);
    let plan =
        does(&wedged(15 * MINUTE, 15 * MINUTE), &["takeMembershipLock", "giveUpInstance", "noteWedge"]);
    let Step::GiveUpInstance { instance: given_up, why } = &plan.steps[1] else { panic!("{plan:#?}") };
    assert_eq!(given_up, &instance(1));
    assert!(why.contains("15 minutes"), "{why}");
    refuses(&wedged(HOUR, HOUR), "giveUpInstance", &well_off());
    let told = restarted(silent(HOUR), HOUR, Some(NOW - MINUTE));
    does(&told, &[]);
    warns(&told, "its Auto Scaling group replaces it");
    does(
        &restarted(silent(3 * HOUR), 3 * HOUR, Some(NOW - 2 * HOUR)),
        &["takeMembershipLock", "giveUpInstance", "noteWedge"],
    );
}
