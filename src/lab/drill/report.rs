//! What a drill reports.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Drill;
use crate::lab::LabError;
use crate::lab::error::chain;
use crate::lab::history::{Checked, Fault};
use crate::lab::load::{StoreError, Verdict};
use crate::lab::region::Authorization;

/// What was promised and did not hold, or what kept the drill from finding out.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// The laboratory failed, or the time was over.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The writes could not be read back.
    #[error("the acknowledged writes could not be read back")]
    Unread(#[source] StoreError),
    /// Acknowledged writes are gone.
    #[error("{} acknowledged writes are lost, the first is {:?}", .0.len(), .0.first())]
    Lost(Vec<String>),
    /// More than one cluster had a quorum.
    #[error("there were two clusters: {0:x?}")]
    TwoClusters(Vec<u64>),
    /// What clients were told at the same time can't all be true, or it was not found out.
    #[error("what clients were told is not known to be linearizable")]
    NotLinearizable(#[source] Fault),
    /// Nothing was written: the drill shows nothing.
    #[error("no write was acknowledged")]
    NoWrites,
    /// Something else that the drill is about.
    #[error("{0}")]
    Broken(String),
}

/// A drill's report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The drill.
    pub drill: String,
    /// The seed.
    pub seed: u64,
    /// Whether everything held.
    pub passed: bool,
    /// What did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Writes that etcd acknowledged.
    pub writes_acknowledged: usize,
    /// Of these, those that were not there in the end.
    pub writes_lost: usize,
    /// Operations of several clients on a few registers, whose history is linearizable.
    pub operations_checked: usize,
    /// Of these, those that were never answered, and may have happened or not.
    pub operations_open: usize,
    /// The longest time without an acknowledged write, in milliseconds.
    pub longest_gap_ms: u64,
    /// From the start of the third agent to the first acknowledged write, in milliseconds; the
    /// longest, when the drill formed several clusters; `null` on a laboratory that was up.
    pub form_ms: Option<u64>,
    /// From the fault to full health, in milliseconds; the longest, when there were several faults;
    /// `null` when there was none.
    pub heal_ms: Option<u64>,
    /// The permissions that the agents' calls needed, each once. Not told: they are thousands.
    #[serde(skip)]
    pub authorizations: BTreeSet<Authorization>,
    /// Whether the agents make their volumes, for which they need more permissions.
    #[serde(skip)]
    pub creates_volumes: bool,
    /// What else the drill has to tell.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Report {
    pub(super) fn new(drill: Drill, seed: u64) -> Self {
        Self {
            drill: drill.name().to_owned(),
            seed,
            passed: false,
            reason: None,
            writes_acknowledged: 0,
            writes_lost: 0,
            operations_checked: 0,
            operations_open: 0,
            longest_gap_ms: 0,
            form_ms: None,
            heal_ms: None,
            authorizations: BTreeSet::new(),
            creates_volumes: false,
            more: Map::new(),
        }
    }

    pub(super) fn add(&mut self, verdict: &Verdict) {
        self.writes_acknowledged += verdict.acknowledged;
        self.writes_lost += verdict.lost.len();
        self.longest_gap_ms = self.longest_gap_ms.max(millis(verdict.longest_gap));
    }

    pub(super) fn checked(&mut self, checked: Checked) {
        self.operations_checked += checked.operations;
        self.operations_open += checked.open;
    }

    pub(super) fn formed_in(&mut self, time: Duration) {
        self.form_ms = self.form_ms.max(Some(millis(time)));
    }

    pub(super) fn healed_in(&mut self, time: Duration) {
        self.heal_ms = self.heal_ms.max(Some(millis(time)));
    }

    pub(super) fn tell(&mut self, name: &str, value: impl Into<Value>) {
        self.more.insert(name.to_owned(), value.into());
    }

    pub(super) fn conclude(&mut self, result: Result<(), Unmet>) {
        self.passed = result.is_ok() && self.writes_lost == 0;
        self.reason = result.err().map(|error| chain(&error));
    }
}

/// An error with its causes.
pub(super) fn words(unmet: &Unmet) -> String {
    chain(unmet)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lost: &[&str]) -> Verdict {
        let lost = lost.iter().map(|key| (*key).to_owned()).collect();
        Verdict { acknowledged: 10, lost, longest_gap: Duration::from_millis(70) }
    }

    #[test]
    fn a_report_with_a_lost_write_never_passes() {
        let mut report = Report::new(Drill::ReplaceOne, 7);
        report.add(&verdict(&[]));
        report.add(&verdict(&["/load/1"]));
        report.conclude(Ok(()));
        assert!(!report.passed);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["writesAcknowledged"], &json["writesLost"]), (&20.into(), &1.into()));
    }

    #[test]
    fn a_report_of_what_is_not_linearizable_shows_why() {
        let mut report = Report::new(Drill::Form, 3);
        report.checked(Checked { operations: 7, open: 1 });
        report.checked(Checked { operations: 3, open: 0 });
        assert_eq!((report.operations_checked, report.operations_open), (10, 1));
        let stale = crate::lab::history::Operation {
            register: 2,
            client: 1,
            call: crate::lab::history::Call::Get,
            begun: 1_000_000,
            answered: None,
        };
        let fault = Fault::Violated { register: 2, evidence: vec![stale] };
        report.conclude(Err(Unmet::NotLinearizable(fault)));
        assert!(!report.passed);
        let reason = report.reason.unwrap();
        assert!(
            reason.ends_with("register 2 is not linearizable: 1.000 ms, client 1: get, no answer"),
            "{reason}"
        );
    }

    #[test]
    fn a_report_has_every_field_that_is_promised() {
        let mut report = Report::new(Drill::Form, 3);
        report.formed_in(Duration::from_millis(40));
        report.formed_in(Duration::from_millis(30));
        report.conclude(Err(Unmet::NoWrites));
        let json = serde_json::to_value(&report).unwrap();
        for name in [
            "drill",
            "seed",
            "passed",
            "writesAcknowledged",
            "writesLost",
            "operationsChecked",
            "operationsOpen",
            "longestGapMs",
            "healMs",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json["formMs"], 40);
        assert_eq!(json["reason"], "no write was acknowledged");
    }
}
