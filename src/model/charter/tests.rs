//! The charter's moves, one by one.

use super::*;

fn slot(n: u8) -> Slot {
    Slot::try_from(n).unwrap()
}

fn volume(n: u8) -> VolumeId {
    format!("vol-0000000{n}").parse().unwrap()
}

fn url(n: u8) -> String {
    format!("https://10.0.0.{n}:2380")
}

fn nonce() -> Nonce {
    "again".parse().unwrap()
}

fn founder(n: u8) -> Founder {
    let instance = format!("i-0000000{n}").parse().unwrap();
    Founder { slot: slot(n), volume: volume(n), instance, peer_url: url(n), started: None }
}

fn found(size: u8, founders: &[u8]) -> Result<Charter, CharterRefusal> {
    Charter::found(
        "demo".parse().unwrap(),
        "00000000-0000-0000-0000-000000000001".parse().unwrap(),
        "eu-west-1".parse().unwrap(),
        (0..size).map(|_| "eu-west-1a".parse().unwrap()).collect(),
        founders.iter().map(|n| founder(*n)).collect(),
        "first".parse().unwrap(),
    )
}

fn marked(mut charter: Charter, slots: &[u8]) -> Charter {
    for n in slots {
        charter = charter.mark_started(slot(*n), &volume(*n), &url(*n), nonce()).unwrap();
    }
    charter
}

#[test]
fn a_founding_needs_a_majority_of_the_slots_each_once() {
    for (size, founders) in [(1, &[1][..]), (3, &[1, 2]), (3, &[1, 2, 3]), (5, &[1, 3, 5])] {
        assert!(found(size, founders).is_ok(), "{founders:?} of {size}");
    }
    for (size, founders) in
        [(1, &[][..]), (3, &[1]), (3, &[1, 1]), (3, &[1, 2, 2]), (3, &[1, 4]), (5, &[1, 2])]
    {
        assert!(found(size, founders).is_err(), "{founders:?} of {size}");
    }
}

#[test]
fn marks_are_numbered_in_the_order_of_starting() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[2, 1]);
    let places: Vec<_> = charter.founders.iter().map(|founder| founder.started).collect();
    assert_eq!(places, [Some(2), Some(1), None]);
    assert_eq!(charter.nonce, nonce());
}

#[test]
fn a_majority_of_the_founders_establishes_the_cluster() {
    let charter = found(3, &[1, 2, 3]).unwrap();
    assert!(!marked(charter.clone(), &[1]).established());
    assert!(marked(charter, &[1, 2]).established());
    // Of two founders both are needed: they are the whole of the first members.
    let charter = found(3, &[1, 2]).unwrap();
    assert!(!marked(charter, &[1]).established());
}

#[test]
fn only_the_volume_and_address_that_were_named_start_and_only_once() {
    let charter = found(3, &[1, 2]).unwrap();
    let refused =
        |n: u8, v: u8, u: u8| charter.mark_started(slot(n), &volume(v), &url(u), nonce()).unwrap_err();
    for refusal in [refused(1, 2, 1), refused(1, 1, 2), refused(3, 3, 3)] {
        assert!(matches!(refusal, CharterRefusal::NotAFounder { .. }), "{refusal}");
    }
    let again = marked(charter, &[1]).mark_started(slot(1), &volume(1), &url(1), nonce());
    assert!(matches!(again, Err(CharterRefusal::AlreadyStarted { .. })));
}

#[test]
fn a_mark_is_withdrawn_only_from_another_address_and_only_when_it_is_set() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
    let withdrawn = charter.withdraw(slot(1), &volume(1), &url(9), nonce()).unwrap();
    assert_eq!((withdrawn.started(), withdrawn.established()), (1, false));
    let here = charter.withdraw(slot(1), &volume(1), &url(1), nonce());
    assert!(matches!(here, Err(CharterRefusal::SameAddress { .. })));
    let other = charter.withdraw(slot(1), &volume(9), &url(9), nonce());
    assert!(matches!(other, Err(CharterRefusal::NotAFounder { .. })));
    let unmarked = charter.withdraw(slot(3), &volume(3), &url(9), nonce());
    assert!(matches!(unmarked, Err(CharterRefusal::NotStarted { .. })));
}

#[test]
fn a_new_generation_is_founded_only_while_no_majority_has_started() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1]);
    let next = charter.refound(vec![founder(2), founder(3)], nonce()).unwrap();
    assert_eq!((next.generation, next.started(), &next.uuid), (Generation(2), 0, &charter.uuid));
    let few = charter.refound(vec![founder(2)], nonce());
    assert!(matches!(few, Err(CharterRefusal::TooFewFounders { .. })));
    let started = vec![founder(2), Founder { started: Some(1), ..founder(3) }];
    assert!(charter.refound(started, nonce()).is_err());
    let established = marked(charter, &[2]).refound(vec![founder(2), founder(3)], nonce());
    assert!(matches!(established, Err(CharterRefusal::Established { started: 2, founders: 3, .. })));
}

#[test]
fn a_slot_is_moved_only_in_an_established_cluster_and_only_elsewhere() {
    let (here, there): (Zone, Zone) = ("eu-west-1a".parse().unwrap(), "eu-west-1b".parse().unwrap());
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1]);
    let early = charter.move_slot(slot(3), &there, nonce());
    assert!(matches!(early, Err(CharterRefusal::NotEstablished { started: 1, founders: 3, .. })));
    let charter = marked(charter, &[2]);
    let moved = charter.move_slot(slot(3), &there, nonce()).unwrap();
    assert_eq!(moved.zones, [here.clone(), here.clone(), there.clone()]);
    assert_eq!(moved.zone_of(slot(3)), Some(&there));
    assert_eq!(
        Charter { zones: charter.zones.clone(), ..moved.clone() },
        Charter { nonce: nonce(), ..charter.clone() }
    );
    for (n, zone) in [(3, &there), (4, &here)] {
        let refused = moved.move_slot(slot(n), zone, nonce()).unwrap_err();
        assert!(matches!(refused, CharterRefusal::NoMove { .. }), "{refused}");
    }
    let told = moved.move_slot(slot(4), &here, nonce()).unwrap_err().to_string();
    assert_eq!(
        told,
        "slot 4 can't be moved to eu-west-1a: the slots are in eu-west-1a, eu-west-1a, eu-west-1b"
    );
}

#[test]
fn a_refusal_changes_nothing_and_says_what_was_found() {
    let charter = found(3, &[1, 2]).unwrap();
    let refusal = charter.mark_started(slot(1), &volume(1), &url(7), nonce()).unwrap_err();
    let told = "slot 1 with volume vol-00000001 at https://10.0.0.7:2380 is not a founder of generation 1";
    assert_eq!(refusal.to_string(), told);
    assert_eq!(charter, found(3, &[1, 2]).unwrap());
}

#[test]
fn prints_and_parses_back_and_refuses_what_it_does_not_know() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[3]);
    let mut text = serde_json::to_value(&charter).unwrap();
    assert_eq!(serde_json::from_value::<Charter>(text.clone()).unwrap(), charter);
    text["later"] = serde_json::Value::Bool(true);
    assert!(serde_json::from_value::<Charter>(text).is_err());
}

fn backup() -> Recovery {
    let chain = crate::model::ChainName::new(Generation(1), 7, "0a1b2c3d").unwrap();
    Recovery::Backup {
        point: RestorePoint { chain, segments: 3, revision: 9, at: 1, passed_over: Vec::new() },
    }
}

fn survivor(n: u8) -> Recovery {
    Recovery::Survivor { volume: volume(n), generation: Generation(1) }
}

#[test]
fn an_established_generation_is_followed_by_one_founder_with_something_to_begin_with() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
    for recovery in [backup(), survivor(2)] {
        let next = charter.recover(founder(2), recovery.clone(), nonce()).unwrap();
        assert_eq!((next.generation, next.founders.as_slice()), (Generation(2), &[founder(2)][..]));
        assert_eq!((&next.recovery, next.quorum(), next.established()), (&Some(recovery), 1, false));
        let same = Charter {
            generation: charter.generation,
            founders: charter.founders.clone(),
            recovery: None,
            nonce: charter.nonce.clone(),
            ..next.clone()
        };
        assert_eq!(same, charter, "all else stays");
        assert!(marked(next, &[2]).established());
    }
}

#[test]
fn what_never_had_a_quorum_is_not_recovered_but_a_recovery_that_has_not_begun_is() {
    let young = marked(found(3, &[1, 2, 3]).unwrap(), &[1]);
    let refused = young.recover(founder(2), backup(), nonce()).unwrap_err();
    assert!(matches!(refused, CharterRefusal::NeverEstablished { started: 1, founders: 3, .. }), "{refused}");
    let recovering = marked(young, &[2]).recover(founder(2), backup(), nonce()).unwrap();
    let other = recovering.recover(founder(3), survivor(3), nonce()).unwrap();
    assert_eq!((other.generation, other.recovery), (Generation(3), Some(survivor(3))));
}

#[test]
fn a_recovery_begins_with_one_founder_of_the_cluster_and_on_the_survivors_volume() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
    let started = Founder { started: Some(1), ..founder(2) };
    for (one, recovery) in [(founder(4), backup()), (started, backup()), (founder(1), survivor(2))] {
        let refused = charter.recover(one, recovery, nonce()).unwrap_err();
        assert!(matches!(refused, CharterRefusal::NotTheFounder { .. }), "{refused}");
    }
    let told = charter.recover(founder(1), survivor(2), nonce()).unwrap_err().to_string();
    assert_eq!(told, "slot 1 with volume vol-00000001 can't found a recovery from volume vol-00000002");
}

#[test]
fn a_recovery_that_can_not_begin_is_never_followed_by_an_empty_founding() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
    let recovering = charter.recover(founder(2), backup(), nonce()).unwrap();
    let next = recovering.refound(vec![founder(3)], nonce()).unwrap();
    assert_eq!((next.generation, &next.recovery), (Generation(3), &Some(backup())));
    for founders in [vec![], vec![founder(1), founder(2)], vec![founder(4)]] {
        let refused = recovering.refound(founders, nonce()).unwrap_err();
        assert!(matches!(refused, CharterRefusal::NotTheFounder { .. }), "{refused}");
    }
    let begun = marked(next, &[3]);
    assert!(matches!(begun.refound(vec![founder(1)], nonce()), Err(CharterRefusal::Established { .. })));
    let withdrawn = begun.withdraw(slot(3), &volume(3), &url(9), nonce());
    assert!(matches!(withdrawn, Err(CharterRefusal::Restored { .. })));
    let survivors = charter.recover(founder(2), survivor(2), nonce()).unwrap();
    assert!(survivors.refound(vec![founder(3)], nonce()).is_err());
    let moved = Founder { peer_url: url(9), ..founder(2) };
    assert_eq!(survivors.refound(vec![moved], nonce()).unwrap().recovery, Some(survivor(2)));
}

#[test]
fn a_recovery_prints_and_parses_back_and_a_charter_without_one_reads_as_before() {
    let charter = marked(found(3, &[1, 2, 3]).unwrap(), &[1, 2]);
    assert!(!serde_json::to_string(&charter).unwrap().contains("recovery"));
    for recovery in [backup(), survivor(2)] {
        let next = charter.recover(founder(2), recovery, nonce()).unwrap();
        let mut text = serde_json::to_value(&next).unwrap();
        assert_eq!(serde_json::from_value::<Charter>(text.clone()).unwrap(), next);
        text["recovery"]["later"] = serde_json::Value::Bool(true);
        assert!(serde_json::from_value::<Charter>(text).is_err());
    }
}
