//! Model checking of a slot's move to another zone, over the shipped planner and the shipped transitions of the charter.
//!
//! A model of its own beside the one of founding: there each slot has one place, here slot 3 has many machines in
//! several zones that may want it, and the two other slots only vote. Slot 3's machine is cut off or ended by EC2 at
//! any moment, its successors come at any moment, the patience may be over at any moment, and plans are carried out
//! step by step however old they have become.

mod acts;
mod checker;
mod mutations;
mod sight;
mod world;

use std::time::Instant;

use stateright::{Checker, Model};

use super::caught_by;
use checker::Exploration;
use mutations::Mutation;
use world::{BACK, Budget, FIRST, NEXT, SECOND};

/// What need not be so everywhere, but somewhere.
const SOMETIMES: &str = "the slot's new member is well";

/// How many states one exploration may take: fewer than in the model of founding, since each is asked more.
fn limit() -> usize {
    super::limit() / 3
}

/// Explores, prints what was covered, and tells a broken rule with the way that led there.
#[track_caller]
fn explore(name: &str, exploration: Exploration) {
    let began = Instant::now();
    let checker = exploration.checker().threads(2).target_state_count(limit()).spawn_bfs().join();
    let complete = checker.state_count() < limit();
    let seconds = began.elapsed().as_secs_f32();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    #[expect(clippy::print_stderr, reason = "the space that was covered is part of the test's result")]
    {
        let how = if complete { "" } else { ", the nearest of them" };
        eprintln!("{name}: {unique} unique states of {total}, depth {depth}, {seconds:.1} s{how}");
    }
    for (property, path) in checker.discoveries() {
        if property == SOMETIMES {
            continue;
        }
        let last = path.last_state().clone();
        let healed = checker.model().healed(&last).err();
        let acts: Vec<String> = path.into_actions().iter().map(|act| format!("{act:?}")).collect();
        panic!("{name}: broken: {property}\n{}\n{healed:?}\n{last:#?}", acts.join("\n"));
    }
    assert!(!complete || checker.discovery(SOMETIMES).is_some(), "{name}: the slot is never taken over");
}

/// Plants a bug, and expects that one of the rules catches it.
#[track_caller]
fn caught(mutation: Mutation, mut exploration: Exploration) {
    exploration.heal_sample = 1;
    caught_by(mutation, exploration, SOMETIMES);
}

macro_rules! explorations {
    ($($(#[$doc:meta])* $name:ident: [$($standby:ident),*] then [$($coming:ident),*],
        [$($field:ident = $value:literal),*] $(, $and:ident)*;)*) => {
        $($(#[$doc])* #[test] fn $name() {
            let weather = budget(|b| { $(b.$field = $value;)* let _ = b; });
            let exploration = Exploration::new(None, weather).with(&[$($standby),*], &[$($coming),*])$(.$and())*;
            explore(stringify!($name), exploration);
        })*
    };
}

macro_rules! mutations {
    ($($name:ident: $mutation:ident, [$($standby:ident),*] then [$($coming:ident),*],
        [$($field:ident = $value:literal),*] $(, $and:ident)*;)*) => {
        $(#[test] fn $name() {
            let weather = budget(|b| { $(b.$field = $value;)* let _ = b; });
            let mutation = Mutation::$mutation;
            let exploration = Exploration::new(Some(mutation), weather).with(&[$($standby),*], &[$($coming),*])$(.$and())*;
            caught(mutation, exploration);
        })*
    };
}

fn budget(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

explorations! {
    takeover_in_calm: [FIRST, SECOND] then [], [ends = 1];
    takeover_as_the_zone_comes_back: [FIRST, SECOND] then [BACK], [ends = 1, comes = 1];
    takeover_with_crashes: [FIRST] then [BACK], [ends = 1, comes = 1, crashes = 1];
    takeover_of_one_that_is_cut_off: [FIRST] then [BACK], [ends = 1, comes = 1, cuts = 1];
    takeover_with_late_requests: [FIRST] then [BACK], [comes = 1, late = 1], gone;
    takeover_with_old_answers: [FIRST] then [BACK], [comes = 1, stale = 1], gone;
    takeover_with_an_old_charter: [FIRST] then [BACK], [comes = 1, charters = 1], gone;
    takeover_with_missing_answers: [FIRST] then [BACK], [comes = 1, blind = 1], gone;
    takeover_and_back: [FIRST] then [BACK], [ends = 1, comes = 1], gone;
    takeover_by_one_after_the_other: [FIRST, SECOND] then [NEXT], [ends = 1, comes = 1], gone;
    moved_and_ended_again: [FIRST, SECOND] then [BACK, NEXT], [ends = 2, comes = 2], moved;
    moved_and_not_found: [FIRST] then [BACK], [comes = 1, missing = 1, cuts = 1, blind = 1], moved;
    moved_with_late_requests: [FIRST] then [BACK], [ends = 1, comes = 1, late = 1], moved;
    moved_with_lapsing_locks: [FIRST, SECOND] then [BACK], [ends = 1, comes = 1, lapses = 1], moved;
    moved_with_late_records: [FIRST] then [BACK], [ends = 1, comes = 1], moved, late_upkeep;
}

mutations! {
    takeover_mutant_charter_without_condition: CharterWithoutCondition, [FIRST, SECOND] then [], [], gone;
    takeover_mutant_record_without_condition: RecordWithoutCondition, [FIRST] then [BACK], [ends = 1, comes = 1], gone;
    takeover_mutant_silence_is_gone: SilenceIsGone, [FIRST] then [], [cuts = 1];
    takeover_mutant_not_found_is_gone: NotFoundIsGone, [FIRST] then [BACK], [comes = 1, missing = 1, cuts = 1, blind = 1], moved;
    takeover_mutant_spare_ignored: SpareIgnored, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_answer_ignored: AnswerIgnored, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_attached_elsewhere: AttachedElsewhere, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_removed_data_reused: RemovedDataReused, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_let_go_though_listed: LetGoThoughListed, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_set_aside_though_listed: SetAsideThoughListed, [FIRST] then [BACK], [comes = 1], gone;
    takeover_mutant_others_ignored: OthersIgnored, [FIRST] then [BACK], [ends = 1, comes = 1], gone;
    takeover_mutant_holder_ignored: HolderIgnored, [FIRST] then [BACK], [comes = 1], gone;
}
