//! Model checking of founding, joining, returning and replacing, over the shipped planner and the
//! shipped transitions of the charter.
//!
//! The agents run `quorate::plan::plan` itself; only the world around them is modelled: S3's
//! conditional writes, EC2, disks and etcd (see [`world`] and [`acts`]). Every interleaving of
//! three agents is explored, with so many crashes, replacements, lost volumes, late requests and
//! stale or missing answers as a configuration's budget allows.

mod acts;
mod checker;
mod mutations;
mod sight;
mod tables;
mod world;

use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use checker::Exploration;
use world::Budget;

const LIMIT: Duration = Duration::from_secs(15);
const ALL: [bool; 3] = [true, true, true];

/// Explores, prints what was covered, and tells a broken rule with the way that led there.
#[track_caller]
fn explore(name: &str, exploration: Exploration) {
    let began = Instant::now();
    let checker = exploration.checker().threads(2).timeout(LIMIT).spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f32();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    #[expect(clippy::print_stderr, reason = "the space that was covered is part of the test's result")]
    {
        eprintln!(
            "{name}: {unique} unique states of {total}, depth {depth}, {seconds:.1} s{}",
            if began.elapsed() < LIMIT { "" } else { ", not all" }
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
    assert!(checker.discovery("the cluster is whole").is_some(), "{name}: the cluster is never whole");
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
            explore(stringify!($name), Exploration::new(None, $up, weather)$(.$and())*);
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
    formed_and_a_lost_charter: ALL, [charters = 1, losses = 1, blind = 1], formed, must_heal;
}
