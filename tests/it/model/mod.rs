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

use std::time::Instant;

use stateright::{Checker, Model};

use checker::Exploration;
use world::Budget;

const ALL: [bool; 3] = [true, true, true];

/// Explores, prints what was covered, and tells a broken rule with the way that led there.
#[track_caller]
fn explore(name: &str, exploration: Exploration) {
    let began = Instant::now();
    let checker = exploration.checker().threads(2).spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f32();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    #[expect(clippy::print_stderr, reason = "the space that was covered is part of the test's result")]
    {
        eprintln!("{name}: {unique} unique states of {total}, depth {depth}, {seconds:.1} s");
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

#[test]
fn three_machines_found_one_cluster() {
    explore("founding", Exploration::new(None, ALL, Budget::default()).must_heal());
}

#[test]
fn agents_crash_while_founding() {
    explore("founding, a crash", Exploration::new(None, ALL, budget(|b| b.crashes = 1)).must_heal());
}

#[test]
fn machines_reboot_while_founding() {
    explore("founding, a reboot", Exploration::new(None, ALL, budget(|b| b.reboots = 1)).must_heal());
}

#[test]
fn a_machine_is_replaced_while_founding() {
    explore("founding, a replacement", Exploration::new(None, ALL, budget(|b| b.replacements = 1)).must_heal());
}

#[test]
fn a_volume_is_lost_while_founding() {
    explore("founding, a lost volume", Exploration::new(None, ALL, budget(|b| b.losses = 1)).must_heal());
}

#[test]
fn requests_are_late_while_founding() {
    let weather = budget(|b| {
        b.late = 1;
        b.replacements = 1;
    });
    explore("founding, a late request and a replacement", Exploration::new(None, ALL, weather).must_heal());
}
