//! What is shown of a history that no order explains: as few of its operations as are still not explained.

use std::collections::BTreeSet;

use super::search::linearizable;
use super::{Answer, Call, Operation, Value};

/// So many smaller histories are tried.
const TRIES: usize = 3_000;

/// Of a register's operations, which are not linearizable, a few that are not, either.
///
/// First everything is left out that came after the first moment at which there was no order any more. Then operations
/// are left out one lot after the other, as long as there is none. Only what leaves the rest as it was may go: reads, and
/// writes whose values nobody saw who stays; if what is left has no order, the whole has none.
pub(super) fn smallest(operations: &[Operation]) -> Vec<Operation> {
    let mut kept = earliest(operations);
    let mut tries = 0;
    let mut lot = kept.len() / 2;
    while lot > 0 && tries < TRIES {
        let before = kept.len();
        let mut from = 0;
        while from < kept.len() && tries < TRIES {
            let fewer = without(&kept, from..(from + lot).min(kept.len()));
            tries += 1;
            if fewer.len() < kept.len() && linearizable(&fewer) == Some(false) {
                kept = fewer;
            } else {
                from += lot;
            }
        }
        // The last lots, of one, are tried as long as that helps.
        if lot > 1 || kept.len() == before {
            lot /= 2;
        }
    }
    // With the answers that came later there is no order all the more.
    let whole = |cut: &Operation| operations.iter().find(|o| (o.client, o.begun) == (cut.client, cut.begun));
    let mut shown: Vec<Operation> = kept.iter().map(|cut| *whole(cut).unwrap_or(cut)).collect();
    shown.sort_by_key(|o| o.begun);
    shown
}

/// The history until the first answer with which it has no order. What was not answered then is open.
fn earliest(operations: &[Operation]) -> Vec<Operation> {
    let mut answers: Vec<u64> = operations.iter().filter_map(|o| o.answered.map(|(at, _)| at)).collect();
    answers.sort_unstable();
    let until = |at: u64| -> Vec<Operation> {
        let begun = operations.iter().filter(|o| o.begun <= at);
        begun.map(|o| Operation { answered: o.answered.filter(|(when, _)| *when <= at), ..*o }).collect()
    };
    let first = answers.partition_point(|at| linearizable(&until(*at)) != Some(false));
    let cut = answers.get(first).map(|at| until(*at));
    cut.unwrap_or_else(|| operations.to_vec())
}

/// The value that an operation shows to have been there.
fn sees(operation: &Operation) -> Option<Value> {
    match (operation.call, operation.answered) {
        (_, Some((_, Answer::Got(value) | Answer::Kept(value)))) => value,
        (Call::Swap { from, .. }, Some((_, Answer::Swapped)) | None) => from,
        (Call::Get | Call::Put(_), _) | (Call::Swap { .. }, Some((_, Answer::Put))) => None,
    }
}

/// All but those, and those whose values are seen by one that stays.
fn without(kept: &[Operation], gone: std::ops::Range<usize>) -> Vec<Operation> {
    let mut stays: BTreeSet<usize> = (0..kept.len()).filter(|n| !gone.contains(n)).collect();
    loop {
        let needed: BTreeSet<Value> = stays.iter().filter_map(|n| kept.get(*n)).filter_map(sees).collect();
        let wanted = |n: &usize| {
            let writes = kept.get(*n).and_then(|o| o.call.writes());
            !stays.contains(n) && writes.is_some_and(|value| needed.contains(&value))
        };
        let back: Vec<usize> = gone.clone().filter(wanted).collect();
        if back.is_empty() {
            return stays.iter().filter_map(|n| kept.get(*n)).copied().collect();
        }
        stays.extend(back);
    }
}
