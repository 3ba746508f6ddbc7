//! Model checking of founding, joining, returning and replacing, over the shipped planner and the
//! shipped transitions of the charter.
//!
//! The agents run `quorate::plan::plan` itself; only the world around them is modelled: S3's
//! conditional writes, EC2, disks and etcd (see [`world`] and [`acts`]). Every interleaving of
//! three agents is explored, with so many crashes, replacements, lost volumes, late requests and
//! stale or missing answers as a configuration's budget allows.

#![allow(
    clippy::disallowed_methods,
    clippy::manual_is_multiple_of,
    clippy::collapsible_match,
    clippy::needless_for_each,
    clippy::option_option,
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::type_complexity,
    clippy::unused_self,
    clippy::while_immutable_condition,
    reason = "a model is written for its state space, and times itself"
)]

mod acts;
mod checker;
mod mutations;
mod sight;
mod tables;
mod takeover;
mod world;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use quorate::model::{Observation, Plan, Waiting, WaitingOn};
use stateright::{Checker, HasDiscoveries, Model};

use checker::Exploration;
use mutations::Mutation;
use world::Budget;

/// How many states one exploration may take; `QUORATE_EXPLORE_STATES` gives more.
fn limit() -> usize {
    std::env::var("QUORATE_EXPLORE_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(300_000)
}

const ALL: [bool; 3] = [true, true, true];

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
        eprintln!(
            "{name}: {unique} unique states of {total}, depth {depth}, {seconds:.1} s{}",
            if complete { "" } else { ", the nearest of them" }
        );
    }
    for (property, path) in checker.discoveries() {
        if property == "the cluster is whole" {
            continue;
        }
        let last = path.last_state().clone();
        let healed = checker.model().healed(&last).err();
        let acts: Vec<String> = path.into_actions().iter().map(|act| format!("{act:?}")).collect();
        panic!("{name}: broken: {property}\n{}\n{healed:?}\n{last:#?}", acts.join("\n"));
    }
    assert!(
        !complete || checker.discovery("the cluster is whole").is_some(),
        "{name}: the cluster is never whole"
    );
}

fn budget(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

/// Two of the three machines are there from the beginning; the third may come at any time.
const TWO: [bool; 3] = [true, true, false];

macro_rules! explorations {
    ($($(#[$doc:meta])* $name:ident: $up:ident, [$($field:ident = $value:literal),*] $(, $and:ident)*;)*) => {
        $($(#[$doc])* #[test] fn $name() {
            let weather = budget(|b| { $(b.$field = $value;)* let _ = b; });
            explore(stringify!($name), Exploration::new($up, weather)$(.$and())*);
        })*
    };
}

explorations! {
    founding_in_calm: ALL, [], must_heal;
    founding_with_crashes: ALL, [crashes = 2], must_heal;
    founding_with_reboots: ALL, [reboots = 1, crashes = 1], must_heal;
    founding_with_a_replacement: ALL, [replacements = 1, reuses = 1], must_heal;
    founding_with_two_replacements: ALL, [replacements = 2], must_heal;
    founding_with_a_lost_volume: ALL, [losses = 1], must_heal;
    founding_with_a_wiped_volume: ALL, [wipes = 1], must_heal;
    founding_with_late_requests: ALL, [late = 1, replacements = 1], must_heal;
    founding_with_bad_answers: ALL, [stale = 1, blind = 1, replacements = 1], must_heal;
    founding_by_two: TWO, [], must_heal;
    founding_by_two_with_crashes: TWO, [crashes = 2], must_heal;
    founding_by_two_with_a_replacement: TWO, [replacements = 1, reuses = 1], must_heal;
    founding_by_two_with_late_requests: TWO, [late = 1, replacements = 1], must_heal;
    founding_by_two_with_a_lost_volume: TWO, [losses = 1];

    formed_and_a_replacement: ALL, [replacements = 1, crashes = 1, writes = 1], formed, must_heal;
    formed_and_two_replacements: ALL, [replacements = 2, reuses = 1, writes = 1], formed, must_heal;
    formed_and_a_lost_volume: ALL, [losses = 1, crashes = 1, writes = 1], formed, must_heal;
    formed_and_two_lost_volumes: ALL, [losses = 2, writes = 1], formed;
    formed_and_a_loss_and_a_replacement: ALL, [losses = 1, replacements = 1, writes = 1], formed, must_heal;
    formed_and_a_wiped_volume: ALL, [wipes = 1, reboots = 1, writes = 1], formed, must_heal;
    formed_and_a_spare_volume: ALL, [spares = 1, reboots = 1, writes = 1], formed, must_heal;
    formed_and_a_cut: ALL, [cuts = 1, losses = 1, writes = 1], formed, must_heal;
    formed_and_late_requests: ALL, [late = 1, losses = 1, replacements = 1], formed, must_heal;
    formed_and_lapsing_locks: ALL, [lapses = 1, losses = 1, wipes = 1], formed;
    formed_and_bad_answers: ALL, [stale = 1, blind = 1, losses = 1], formed, must_heal;
    formed_and_late_records: ALL, [losses = 1, crashes = 1, writes = 1], formed, late_upkeep, must_heal;
    formed_and_a_slow_learner: ALL, [losses = 1, slow_learners = 1, crashes = 1, writes = 1], formed, must_heal;
    /// The losses themselves, one after the other, and what stays of them.
    losing_everything: ALL, [losses = 3], formed, backed;
    losing_everything_but_what_was_detached: ALL, [losses = 2, spares = 1], formed, backed;
    lost_and_in_calm: ALL, [], without_all, must_heal;
    lost_and_crashes: ALL, [crashes = 2], without_all, must_heal;
    lost_and_reboots: ALL, [reboots = 1, crashes = 1], without_all, must_heal;
    lost_and_a_replacement: ALL, [replacements = 1, reuses = 1], without_all, must_heal;
    lost_and_late_requests: ALL, [late = 1, replacements = 1], without_all, must_heal;
    lost_and_bad_answers: ALL, [stale = 1, blind = 1, replacements = 1], without_all, must_heal;
    /// A cluster that grows from one member can't lose a volume yet; what must not be, is not all the same.
    lost_and_lost_again: ALL, [losses = 1, writes = 1], without_all;
    lost_and_wiped: ALL, [wipes = 1, reboots = 1], without_all;
    lost_but_for_one: ALL, [losses = 1, blind = 1, stale = 1], without_two;
    lost_but_for_one_and_an_operator: ALL, [operators = 1, crashes = 1], without_two;
    /// An operator gives up a cluster that lives: whoever is slow to hear of it follows all the same.
    formed_and_an_operator: ALL, [operators = 1, crashes = 1, blind = 1], formed, backed, must_heal;
    formed_and_an_operator_and_a_replacement: ALL, [operators = 1, replacements = 1], formed, backed;

    formed_and_a_lost_charter: ALL, [charters = 1, losses = 1, blind = 1], formed, must_heal;
}

/// How far a planted bug is looked for; the exploration ends when it is caught.
const DEEP: usize = 3_000_000;

/// Plants a bug, and expects that one of these rules catches it.
#[track_caller]
fn caught(mutation: Mutation, up: [bool; 3], how: &[&str], left: Budget) {
    let mut exploration = Exploration::new(up, left);
    for begin in how {
        exploration = match *begin {
            "formed" => exploration.formed(),
            "without_all" => exploration.without_all(),
            "without_two" => exploration.without_two(),
            _ => exploration,
        };
    }
    exploration.planner.plant(mutation);
    exploration.must_heal = how.contains(&"heal");
    exploration.prompt_upkeep = !how.contains(&"late_upkeep");
    exploration.heal_sample = 1;
    caught_by(mutation, exploration, "the cluster is whole");
}

/// Explores until a rule is broken, and expects that. `sometimes` is the property that is none.
#[track_caller]
fn caught_by<M>(mutation: impl Debug, exploration: M, sometimes: &str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + Hash + Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug + Send + Sync + 'static,
{
    let began = Instant::now();
    let checker = exploration
        .checker()
        .threads(2)
        .target_state_count(limit().max(DEEP))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let broken: Vec<(&str, usize)> = checker
        .discoveries()
        .into_iter()
        .filter(|(rule, _)| *rule != sometimes)
        .map(|(rule, path)| (rule, path.into_actions().len()))
        .collect();
    let (unique, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f32());
    #[expect(clippy::print_stderr, reason = "what caught the bug is part of the test's result")]
    {
        eprintln!("{mutation:?}: {unique} states, {seconds:.1} s, caught by {broken:?}");
    }
    assert!(!broken.is_empty(), "{mutation:?} was not caught");
}

/// What is planned when one thing after the other has been waited for, as far as that `counts`.
fn patiently(
    observation: &mut Observation,
    answer: impl Fn(&Observation) -> Plan,
    counts: impl Fn(&WaitingOn) -> bool,
) -> Plan {
    loop {
        let plan = answer(observation);
        let is_new = |on: &&WaitingOn| observation.waiting.iter().all(|known| known.on != **on);
        let waits = plan.report.waiting.iter().filter(|on| counts(on)).filter(is_new);
        let fresh: Vec<Waiting> = waits.map(|on| Waiting { on: on.clone(), since: 0 }).collect();
        if fresh.is_empty() {
            return plan;
        }
        observation.waiting.extend(fresh);
    }
}

macro_rules! mutations {
    ($($name:ident: $mutation:ident, $up:ident, [$($field:ident = $value:literal),*] $(, $how:ident)*;)*) => {
        $(#[test] fn $name() {
            let how: &[&str] = &[$(stringify!($how)),*];
            let weather = budget(|b| { $(b.$field = $value;)* let _ = b; });
            caught(Mutation::$mutation, $up, how, weather);
        })*
    };
}

mutations! {
    mutant_charter_without_condition: CharterWithoutCondition, ALL, [replacements = 1];
    mutant_lost_answer_is_success: LostAnswerIsSuccess, ALL, [late = 1], heal;
    mutant_failure_ignored: FailureIgnored, ALL, [], heal;
    mutant_started_after_start: StartedAfterStart, ALL, [crashes = 1, replacements = 1], heal;
    mutant_never_marked: NeverMarked, ALL, [replacements = 1], heal;
    mutant_stamp_after_start: StampAfterStart, ALL, [replacements = 1], heal;
    mutant_unknown_is_absent: UnknownIsAbsent, ALL, [blind = 1, spares = 1], formed;
    mutant_refound_though_established: RefoundThoughEstablished, ALL, [losses = 1, replacements = 1], formed;
    mutant_withdraw_without_looking: WithdrawWithoutLooking, TWO, [replacements = 1], late_upkeep;
    mutant_wiped_starts_new: WipedStartsNew, ALL, [wipes = 1, reboots = 1, writes = 1];
    mutant_charter_lost_ignored: CharterLostIgnored, ALL, [charters = 1, losses = 1], formed;
    mutant_removed_for_silence: RemovedForSilence, ALL, [reboots = 1], formed;
    mutant_volume_elsewhere_is_gone: VolumeElsewhereIsGone, ALL, [spares = 1], formed;
    mutant_removed_data_reused: RemovedDataReused, ALL, [losses = 1, slow_learners = 1, crashes = 1, writes = 1], formed;
    mutant_two_learners: TwoLearners, ALL, [losses = 1, wipes = 1], formed;
    mutant_promoted_early: PromotedEarly, ALL, [losses = 1, writes = 1], formed;
    mutant_recovered_though_one_lives: RecoveredThoughOneLives, ALL, [], without_two;
    mutant_recovered_on_one_not_found: RecoveredOnOneNotFound, ALL, [blind = 2], without_two;
    mutant_recovery_refounded_empty: RecoveryRefoundedEmpty, ALL, [replacements = 1], without_all;
    mutant_new_in_place_of_restored: NewInPlaceOfRestored, ALL, [], without_all;
    mutant_restored_again: RestoredAgain, ALL, [wipes = 1, reboots = 1], without_all;
    mutant_restored_runs_unmarked: NeverMarked, ALL, [replacements = 1], without_all;
    mutant_restored_runs_before_the_mark: StartedAfterStart, ALL, [crashes = 1, replacements = 1], without_all;
    mutant_recovered_without_condition: CharterWithoutCondition, ALL, [], without_all;
    mutant_leaves_though_member: LeavesThoughMember, ALL, [reboots = 1], formed;
}
