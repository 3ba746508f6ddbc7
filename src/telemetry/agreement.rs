//! Whatever an agent can wait for, halt for or warn of, everybody says the same: status, page, line for the service
//! manager, console, metrics, check, history and documentation. The samples are one of each kind, which their own tests
//! hold to be all, so a new kind that is not everywhere fails here.

use std::collections::BTreeSet;

use super::checks::{Check, State, Thresholds, judge};
use super::console;
use super::metrics::{self, Counters};
use super::page::{View, page};
use super::status::{AgentState, Condition, Status};
use crate::model::words::tests::{halts, mismatches, waits, warnings};
use crate::model::{Halt, Noticed, Phase, Report, Waiting, WaitingOn, Warning};

const AT: i64 = 1_795_370_400_000;

/// The name of a reason's kind in JSON.
fn name(reason: &impl serde::Serialize, tag: &str) -> String {
    serde_json::to_value(reason).unwrap()[tag].as_str().unwrap().to_owned()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A running control-plane machine, of which this is known.
fn status(report: &Report) -> Status {
    let waiting = report.waiting.iter().map(|on| Waiting { on: on.clone(), since: AT - 60_000 }).collect();
    let status = Status::starting(waiting, report.halt.clone());
    Status {
        at: AT,
        phase: report.phase,
        warnings: report.warnings.clone(),
        words: report.in_words(),
        ..status
    }
}

fn report(waiting: Vec<WaitingOn>, halt: Option<Halt>, warnings: Vec<Warning>) -> Report {
    let phase = if halt.is_some() { Phase::Halted } else { Phase::Running };
    Report { phase, slot: None, waiting, halt, warnings, noticed: None }
}

/// What everybody says of a reason, held to its words and to its name in a metric.
fn all_say(report: &Report, words: &str, sample: &str, state: State, condition: Condition) {
    let status = status(report);
    assert!(status.words.iter().any(|said| said.ends_with(words)), "status.json: {words}");
    let shown = page(&status, &View { now: AT, colour: false, agent: AgentState::Runs });
    assert!(shown.contains(words), "quorate status: {words} is not in\n{shown}");
    assert_eq!(status.condition(AgentState::Runs), condition, "{words}");
    assert!(status.line().ends_with(words), "systemctl status: {words}");
    let console = console::line(&status);
    let beginning: String = words.chars().take(200).collect();
    assert!(console.contains(&beginning), "console: {words} is not in {console}");
    let metrics = metrics::page(Some(&status), &Counters::default(), AT).unwrap();
    assert!(metrics.lines().any(|line| line.starts_with(sample)), "{sample} is not in\n{metrics}");
    let thresholds = Thresholds { warning: None, critical: None, max_age: 300 };
    let verdict = judge(Check::Node, &thresholds, Ok(&status), AT);
    assert_eq!(verdict.state, state, "{verdict}");
    assert!(verdict.to_string().contains(&words.replace('|', "/")), "check: {words} is not in {verdict}");
    // What is written down is what the status says.
    assert_eq!(report.in_words(), status.words);
}

#[test]
fn everybody_says_the_same_of_every_wait() {
    let pages = document("waits.md");
    let mut names = BTreeSet::new();
    for (on, _) in waits() {
        let (kind, words) = (name(&on, "on"), on.to_string());
        let condition = if on == WaitingOn::FreeSlot { Condition::Ok } else { Condition::Waiting };
        let sample = format!("quorate_waiting_seconds{{on=\"{kind}\"}} 60.0");
        all_say(&report(vec![on], None, Vec::new()), &words, &sample, State::Ok, condition);
        assert!(pages.contains(&format!("\n| `{kind}` |")), "docs/waits.md: {kind}");
        names.insert(kind);
    }
    let (rows, _) = pages.split_once("\n## ").unwrap();
    assert_eq!(rows.matches("\n| `").count(), names.len());
}

#[test]
fn everybody_says_the_same_of_every_halt() {
    let pages = document("halts.md");
    let mut names = BTreeSet::new();
    for (halt, _) in halts() {
        let (kind, words) = (name(&halt, "because"), halt.to_string());
        let sample = format!("quorate_halt{{because=\"{kind}\"}} 1.0");
        let report = report(Vec::new(), Some(halt), Vec::new());
        all_say(&report, &words, &sample, State::Critical, Condition::Halted);
        assert!(pages.contains(&format!("\n### `{kind}`\n")), "docs/halts.md: {kind}");
        names.insert(kind);
    }
    assert_eq!(pages.matches("\n### `").count(), names.len());
}

#[test]
fn everybody_says_the_same_of_every_warning() {
    let pages = document("halts.md");
    for (warning, _) in warnings() {
        let (kind, words) = (name(&warning, "about"), warning.to_string());
        let sample = format!("quorate_warnings{{about=\"{kind}\"}} 1.0");
        let report = report(Vec::new(), None, vec![warning]);
        all_say(&report, &words, &sample, State::Warning, Condition::Degraded);
        assert!(pages.contains(&format!("\n| `{kind}` |")), "docs/halts.md: {kind}");
    }
}

#[test]
fn what_does_not_match_is_shown_before_it_is_a_warning_and_counted_under_its_name() {
    let pages = document("halts.md");
    for (mismatch, _) in mismatches() {
        let (kind, words) = (name(&mismatch, "what"), mismatch.to_string());
        let status = Status {
            noticed: vec![Noticed { mismatch, since: AT - 60_000 }],
            ..status(&report(Vec::new(), None, Vec::new()))
        };
        let shown = page(&status, &View { now: AT, colour: false, agent: AgentState::Runs });
        assert!(shown.contains(&words), "{words} is not in\n{shown}");
        let metrics = metrics::page(Some(&status), &Counters::default(), AT).unwrap();
        assert!(
            metrics.contains(&format!("quorate_mismatches{{what=\"{kind}\"}} 1.0")),
            "{kind}:\n{metrics}"
        );
        assert!(pages.contains(&format!("\n| `{kind}` |")), "docs/halts.md: {kind}");
    }
}
