//! Who may keep the backups, and what is warned of.

use quorate::model::backup::{BackupProgress, BackupTrouble, Keeping, Rehearsal};
use quorate::model::*;

use super::scene::*;

const MINUTE: i64 = 60_000;

/// A settled cluster, and what this machine's keeper tells.
fn told(change: impl FnOnce(&mut BackupProgress)) -> Observation {
    let mut progress = BackupProgress {
        permitted: Some(NOW - 1000),
        since: Some(NOW - HOUR),
        keeping: Some(Keeping::Here),
        taken: Some(NOW - 5 * MINUTE),
        shipped: Some(7000),
        ..BackupProgress::default()
    };
    change(&mut progress);
    let mut seen = whole();
    seen.keeping = Some(progress);
    seen
}

fn keeps(seen: &Observation) -> bool {
    names(&plan(seen)).contains(&"keepBackups")
}

fn troubles(seen: &Observation) -> Vec<BackupTrouble> {
    let trouble = |warning: Warning| match warning {
        Warning::Backups { trouble } => Some(trouble),
        _ => None,
    };
    plan(seen).report.warnings.into_iter().filter_map(trouble).collect()
}

#[test]
fn a_healthy_voter_may_keep_the_backups_and_the_permission_is_renewed_in_time() {
    assert!(!keeps(&told(|_| {})), "it has just been renewed");
    for permitted in [None, Some(NOW - 15_000), Some(NOW - HOUR), Some(NOW + HOUR)] {
        assert!(keeps(&told(|told| told.permitted = permitted)), "{permitted:?}");
    }
    let step = plan(&told(|told| told.permitted = None)).steps.pop();
    assert_eq!(step, Some(Step::KeepBackups { uuid: uuid(), generation: Generation(1) }));
    assert!(step.is_some_and(|step| step.is_routine()));
    // Where there is no keeper there is nothing to permit.
    assert!(!keeps(&whole()));
}

#[test]
fn nobody_keeps_backups_of_a_member_that_is_not_known_to_be_healthy_or_has_no_vote() {
    let unfit: [fn(&mut Observation); 4] = [
        |seen| seen.view().members.get_mut(&MemberId(1)).unwrap().healthy = Fact::Known(false),
        |seen| seen.view().members.get_mut(&MemberId(1)).unwrap().healthy = Fact::unknown("silent"),
        |seen| seen.etcd.cluster = Fact::unknown("no quorum"),
        |seen| {
            seen.charter = Fact::unknown("throttled");
            seen.view().charter = None;
        },
    ];
    for make in unfit {
        let mut seen = told(|told| told.permitted = None);
        make(&mut seen);
        assert!(!keeps(&seen), "{seen:?}");
    }
}

#[test]
fn they_are_kept_while_s3_does_not_answer_by_etcds_copy_of_the_charter() {
    let mut seen = told(|told| told.permitted = None);
    assert!(seen.view().charter.is_some());
    seen.charter = Fact::unknown("throttled");
    assert!(keeps(&seen));
}

#[test]
fn what_is_behind_old_or_never_rehearsed_is_warned_of_where_it_is_kept() {
    assert_eq!(troubles(&told(|_| {})), []);
    let why = Some("throttled".to_owned());
    let behind = |told: &mut BackupProgress| {
        told.unshipped_since = Some(NOW - 61_000);
        told.error.clone_from(&why);
    };
    assert_eq!(troubles(&told(behind)), [BackupTrouble::Behind { since: NOW - 61_000, why: why.clone() }]);
    assert_eq!(troubles(&told(|told| told.unshipped_since = Some(NOW - 59_000))), []);

    let old = NOW - 31 * MINUTE;
    assert_eq!(
        troubles(&told(|told| told.taken = Some(old))),
        [BackupTrouble::Old { taken: Some(old), why: None }]
    );
    assert_eq!(troubles(&told(|told| told.taken = Some(NOW - 29 * MINUTE))), []);
    // The first takes its time, unless it is known to fail.
    let first = |since: i64, why: &Option<String>| {
        troubles(&told(|told| {
            (told.taken, told.since) = (None, Some(since));
            told.error.clone_from(why);
        }))
    };
    assert_eq!(first(NOW - 10 * MINUTE, &None), []);
    assert_eq!(first(NOW - 20 * MINUTE, &None), [BackupTrouble::Old { taken: None, why: None }]);
    assert_eq!(first(NOW - 2 * MINUTE, &why), [BackupTrouble::Old { taken: None, why: why.clone() }]);
    assert_eq!(first(NOW - 30_000, &why), []);

    let rehearsed = |at: i64, error: Option<&str>| {
        let rehearsal = Rehearsal {
            at,
            chain: ChainName::new(Generation(1), 9, "0a1b2c3d").unwrap(),
            revision: None,
            keys: None,
            took_ms: 1,
            error: error.map(str::to_owned),
        };
        troubles(&told(|told| told.rehearsed = Some(rehearsal)))
    };
    assert_eq!(rehearsed(NOW - 47 * HOUR, None), []);
    assert_eq!(rehearsed(NOW - 49 * HOUR, None), [BackupTrouble::NotRehearsed { at: NOW - 49 * HOUR }]);
    let failed = rehearsed(NOW, Some("cut off"));
    assert_eq!(failed, [BackupTrouble::NotRestorable { why: "cut off".to_owned() }]);
}

#[test]
fn only_the_machine_that_keeps_them_warns_and_one_that_can_not_ask_who_does() {
    let by = instance(2);
    let elsewhere = told(|told| {
        told.keeping = Some(Keeping::Elsewhere { by: by.clone() });
        (told.taken, told.unshipped_since) = (None, Some(NOW - HOUR));
    });
    assert_eq!(troubles(&elsewhere), []);
    let why = Some("the lock could not be had".to_owned());
    let nobody = told(|told| {
        (told.keeping, told.taken) = (None, None);
        told.error.clone_from(&why);
    });
    assert_eq!(troubles(&nobody), [BackupTrouble::Old { taken: None, why }]);
}
