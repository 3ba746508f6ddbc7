//! Who founds the cluster, when, and when not.

use quorate::model::charter::CharterChange;
use quorate::model::plan::Subject;
use quorate::model::*;

use super::scene::*;

const MINUTE: i64 = 60_000;

/// The machine of this slot is not there yet.
fn without(n: u8) -> Observation {
    scene().but(|seen| {
        seen.instances().remove(&instance(n));
        seen.volumes().insert(volume(n), free(n));
    })
}

fn claims(missing: &[u8], majority: bool) -> WaitingOn {
    WaitingOn::Claims { missing: missing.iter().map(|n| slot(*n)).collect(), majority }
}

#[test]
fn whoever_sees_all_slots_claimed_proposes_the_charter() {
    let plan = does(&scene(), &["createCharter"]);
    let Step::CreateCharter { charter } = &plan.steps[0] else { panic!("{plan:#?}") };
    assert_eq!(charter.generation, FIRST);
    assert_eq!(charter.founders.iter().map(|f| f.slot.number()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(charter.founders.iter().all(|founder| founder.started.is_none()));
    assert_eq!(charter.zones, [zone(1), zone(2), zone(3)]);
}

#[test]
fn who_proposes_the_charter_makes_kubernetes_authorities_too_when_its_clock_is_right() {
    let settings = super::control_plane::kubernetes();
    let names = |seen: &Observation| names(&quorate::plan::plan(&settings, seen));
    assert_eq!(names(&scene()), ["createCharter", "createClusterAuthorities"]);
    let unset = scene().but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert_eq!(names(&unset), ["createCharter"]);
}

#[test]
fn a_majority_is_enough_only_after_the_patience() {
    let seen = without(3);
    assert_eq!(waits(&seen), claims(&[3], true));
    let waited = |time| without(3).waiting(claims(&[3], true), time);
    assert_eq!(waits(&waited(5 * MINUTE - 1)), claims(&[3], true));
    let plan = does(&waited(5 * MINUTE), &["createCharter"]);
    let Step::CreateCharter { charter } = &plan.steps[0] else { panic!("{plan:#?}") };
    assert_eq!(charter.founders.len(), 2);
}

#[test]
fn less_than_a_majority_is_never_enough() {
    let seen = without(3).but(|seen| {
        seen.instances().remove(&instance(2));
    });
    let seen = seen.waiting(claims(&[2, 3], false), 24 * HOUR);
    assert_eq!(waits(&seen), claims(&[2, 3], false));
}

#[test]
fn a_volume_that_is_not_formatted_and_a_machine_that_does_not_run_are_no_claim() {
    let raw = scene().but(|seen| seen.volumes().get_mut(&volume(2)).unwrap().stamp = None);
    assert_eq!(waits(&raw), claims(&[2], true));
    let pending = scene().but(|seen| {
        seen.instances().get_mut(&instance(2)).unwrap().state = InstanceState::Pending;
    });
    assert_eq!(waits(&pending), claims(&[2], true));
    let worker = scene().but(|seen| {
        seen.instances().get_mut(&instance(2)).unwrap().role = Some(Role::Worker);
    });
    assert_eq!(waits(&worker), claims(&[2], true));
}

#[test]
fn a_list_without_this_machine_is_not_complete() {
    let seen = scene().but(|seen| {
        seen.instances().remove(&instance(1));
    });
    assert_eq!(waits(&seen), WaitingOn::OwnInstance);
}

#[test]
fn nothing_is_founded_on_an_unknown_answer() {
    let unknowns: [(fn(&mut Observation), Subject); 4] = [
        (|seen| seen.charter = Fact::unknown("503"), Subject::Charter),
        (|seen| seen.backups = Fact::unknown("503"), Subject::Backups),
        (|seen| seen.instances = Fact::unknown("throttled"), Subject::Instances),
        (|seen| seen.volumes = Fact::unknown("throttled"), Subject::Volumes),
    ];
    for (forget, subject) in unknowns {
        match waits(&scene().but(forget)) {
            WaitingOn::Answer { about, .. } => assert_eq!(about, subject),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_sign_of_an_earlier_life_forbids_a_founding() {
    let backups = scene().but(|seen| seen.backups = Fact::Known(true));
    assert!(matches!(halts(&backups), Halt::CharterLost { .. }));
    for tag in ["member 1 1", "starting 1", "something"] {
        let tagged = scene().but(|seen| {
            seen.volumes().get_mut(&volume(2)).unwrap().stamp = Some(tag.to_owned());
        });
        let Halt::CharterLost { evidence } = halts(&tagged) else { panic!("{tag}") };
        assert!(evidence.contains(tag), "{evidence}");
    }
}

#[test]
fn a_lost_charter_is_restored_from_a_quorate_cluster() {
    let copy = charter(&[1, 2, 3]);
    let seen = whole().but(|seen| seen.charter = Fact::Known(None));
    assert_eq!(does(&seen, &["createCharter"]).steps, [Step::CreateCharter { charter: copy }]);
}

#[test]
fn a_copy_that_would_allow_another_founding_is_neither_kept_nor_restored() {
    let early = whole().chartered(charter(&[1])).but(|seen| {
        seen.view().charter = None;
        seen.holds().charter = Fact::Known(None);
    });
    assert!(!names(&plan(&early)).iter().any(|step| step.starts_with("copyCharter")));
    let lost = whole().but(|seen| {
        seen.charter = Fact::Known(None);
        seen.view().charter = Some(charter(&[1]));
    });
    assert!(!names(&plan(&lost)).contains(&"createCharter"));
}

#[test]
fn a_lost_charter_leaves_the_running_member_running() {
    let seen = whole().but(|seen| {
        seen.charter = Fact::Known(None);
        seen.view().charter = None;
    });
    let plan = plan(&seen);
    assert!(!plan.steps.iter().any(Step::is_destructive), "{plan:#?}");
    assert_eq!(plan.report.phase, Phase::Running);
}

#[test]
fn who_is_no_founder_waits_while_the_founders_can_still_make_a_quorum() {
    let seen = scene().chartered(charter(&[2])).replaced();
    assert_eq!(waits(&seen), WaitingOn::Founders { generation: FIRST, missing: vec![slot(1), slot(3)] });
}

#[test]
fn the_next_generation_is_founded_when_they_can_not() {
    let seen = scene().chartered(charter(&[])).replaced().but(|seen| {
        seen.instances().insert(instance(5), Instance { address: Some(address(5)), ..running(2) });
        seen.volumes().get_mut(&volume(2)).unwrap().attachment = attached_to(instance(5));
    });
    let plan = does(&seen, &["amendCharter"]);
    let Step::AmendCharter { charter, change, .. } = &plan.steps[0] else { panic!("{plan:#?}") };
    assert_eq!((*change, charter.generation), (CharterChange::Refound, Generation(2)));
    assert_eq!(charter.uuid, uuid());
    assert_eq!(charter.founders[0].peer_url, url(4));
}

#[test]
fn nothing_is_founded_over_a_volume_of_a_member_of_the_present_generation() {
    let seen = scene().chartered(charter(&[])).replaced().but(|seen| {
        seen.volumes().get_mut(&volume(2)).unwrap().stamp = Some("member 1 2".to_owned());
        seen.instances().get_mut(&instance(2)).unwrap().address = Some(address(5));
    });
    assert!(matches!(halts(&seen), Halt::Contradiction { .. }));
}

#[test]
fn the_authority_is_made_before_the_charter_and_never_after() {
    let bare = |seen: &mut Observation| {
        seen.authority = Fact::Known(None);
        seen.leaves = Fact::Known(None);
    };
    does(&scene().but(bare), &["createAuthority"]);
    assert_eq!(halts(&scene().chartered(charter(&[])).but(bare)), Halt::AuthorityLost);
    let unsynchronised = scene().but(bare).but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert_eq!(waits(&unsynchronised), WaitingOn::Clock);
}

#[test]
fn leaves_are_issued_for_the_address_and_again_before_they_end() {
    does(&scene().but(|seen| seen.leaves = Fact::Known(None)), &["issueLeaves"]);
    let old = |end: i64| {
        whole().but(|seen| {
            if let Fact::Known(Some(leaves)) = &mut seen.leaves {
                leaves.not_after = NOW + end;
            }
        })
    };
    does(&old(HOUR / 2), &["issueLeaves"]);
    does(&old(-1), &["issueLeaves"]);
    does(&old(2 * HOUR), &[]);
}
