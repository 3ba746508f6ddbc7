//! The doctor: whether all that a cluster needs is there, before it is needed.
//!
//! [`probe`] asks, by calls that change nothing, and gives one plain value, [`seen::Seen`]; [`judge`] makes findings of
//! it, purely. What could not be asked is unknown, with the reason, and never a failure: an optional permission that is
//! not given is the usual one.
//!
//! What must not live here: a change of anything. The agent does not go by what the doctor finds.

pub mod judge;
pub mod probe;
pub mod seen;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The version of a diagnosis' form in JSON.
pub const VERSION: u32 = 1;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It does not stop anything, and should be seen to.
    Warning,
    /// It will keep the machine from what it is there for, or puts data at risk.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unknown, Self::Warning, Self::Failed];

    /// The word on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check's name, as `clock` or `port.2379`; `docs/doctor.md` lists them.
    pub check: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, or why that is not known.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// What to do; `None` when there is nothing to do.
    pub todo: Option<String>,
}

impl Finding {
    /// A check whose result is still open.
    pub fn of(check: impl Into<String>, expected: impl Into<String>) -> Open {
        Open { check: check.into(), expected: expected.into() }
    }
}

/// A check whose result is open.
#[derive(Debug)]
pub struct Open {
    check: String,
    expected: String,
}

impl Open {
    /// All is as it should be.
    pub fn ok(self, found: impl Into<String>) -> Finding {
        self.ends(Outcome::Ok, found, None)
    }

    /// It could not be found out.
    pub fn unknown(self, why: impl Into<String>) -> Finding {
        self.ends(Outcome::Unknown, why, None)
    }

    /// It should be seen to.
    pub fn warning(self, found: impl Into<String>, todo: impl Into<String>) -> Finding {
        self.ends(Outcome::Warning, found, Some(todo.into()))
    }

    /// It will keep the machine from its work, or puts data at risk.
    pub fn failed(self, found: impl Into<String>, todo: impl Into<String>) -> Finding {
        self.ends(Outcome::Failed, found, Some(todo.into()))
    }

    fn ends(self, outcome: Outcome, found: impl Into<String>, todo: Option<String>) -> Finding {
        Finding { check: self.check, outcome, found: found.into(), expected: self.expected, todo }
    }
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// The version of this form.
    pub version: u32,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// The findings, in the order in which things are needed.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The worst of the findings' outcomes.
    pub fn worst(&self) -> Outcome {
        self.findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Ok)
    }

    /// The page for people: a line a finding, with what to do below what is not as it should be.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
        for finding in &self.findings {
            let Finding { check, outcome, found, expected, todo } = finding;
            let outcome_word = outcome.as_str();
            // The configuration's errors are one a line.
            let found = found.trim_end().replace('\n', &format!("\n{:<8} {:<width$}  ", "", ""));
            // Writing to a string does not fail.
            let _: std::fmt::Result = writeln!(page, "{outcome_word:<8} {check:<width$}  {found}");
            if *outcome != Outcome::Ok {
                let _: std::fmt::Result = writeln!(page, "{:<8} {:<width$}  expected: {expected}", "", "");
            }
            if let Some(todo) = todo {
                let _: std::fmt::Result = writeln!(page, "{:<8} {:<width$}  do: {todo}", "", "");
            }
        }
        let count = |of: Outcome| self.findings.iter().filter(|finding| finding.outcome == of).count();
        let _: std::fmt::Result = writeln!(
            page,
            "{} checks: {} failed, {} to be seen to, {} unknown",
            self.findings.len(),
            count(Outcome::Failed),
            count(Outcome::Warning),
            count(Outcome::Unknown)
        );
        page
    }
}
