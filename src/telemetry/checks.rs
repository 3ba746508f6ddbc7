//! `quorate check`: one state, one line and performance data for monitors that run plugins, as Icinga and Nagios do.
//!
//! Pure: made from the [`Status`] as the agent wrote it last, like the page and the metrics, so that there is no second
//! way of knowing. A status that is old is no answer: the check is then UNKNOWN, whatever it says.
//!
//! Source: "Monitoring Plugins Development Guidelines", monitoring-plugins.org: exit codes, thresholds and ranges,
//! performance data.

use std::fmt;
use std::str::FromStr;

use crate::kubernetes::Component;
use crate::model::backup::{BackupProgress, Keeping};
use crate::model::{Phase, Role, WaitingOn, Warning};

use super::status::{MemberStatus, Status, StatusError};

const DAY: f64 = 86_400.0;

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Check {
    /// etcd has a quorum, and every voter is healthy: the number of healthy voters.
    Quorum,
    /// This machine's etcd member is healthy and votes: its database in percent of the quota.
    Member,
    /// Backups are taken, shipped and restorable: the age of the last snapshot in seconds.
    Backup,
    /// No certificate of this machine ends soon: days until the first ends.
    Certificates,
    /// The API answers: this machine's API server, or, on a worker, the API as it sees it.
    Api,
    /// The machine does what it is there for: how long it has waited, in seconds.
    Node,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Quorum, Self::Member, Self::Backup, Self::Certificates, Self::Api, Self::Node];

    /// Its name, in capitals as plugins say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "QUORUM",
            Self::Member => "MEMBER",
            Self::Backup => "BACKUP",
            Self::Certificates => "CERTIFICATES",
            Self::Api => "API",
            Self::Node => "NODE",
        }
    }

    /// The range outside of which it is a warning, where none is given.
    fn warning(self) -> Option<&'static str> {
        match self {
            // Healthy voters are compared with all there are, and with a quorum.
            Self::Quorum | Self::Api => None,
            Self::Member => Some("80"),
            Self::Backup => Some("3600"),
            Self::Certificates => Some("30:"),
            Self::Node => Some("1800"),
        }
    }

    /// The same for critical.
    fn critical(self) -> Option<&'static str> {
        match self {
            Self::Quorum | Self::Api => None,
            Self::Member => Some("95"),
            Self::Backup => Some("14400"),
            Self::Certificates => Some("7:"),
            Self::Node => Some("7200"),
        }
    }
}

/// How a check ended; the order is that of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All is well.
    Ok,
    /// Something should be seen to.
    Warning,
    /// It is not known.
    Unknown,
    /// It is broken.
    Critical,
}

impl State {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A range, as `10`, `10:`, `~:10`, `10:20` or `@10:20`: what is outside of it (with `@`, inside) is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    text: String,
    start: f64,
    end: f64,
    inside: bool,
}

impl Range {
    fn tells(&self, value: f64) -> bool {
        let is_within = (self.start..=self.end).contains(&value);
        is_within == self.inside
    }
}

/// A range is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a range of the plugin guidelines: `10` (0 to 10), `10:` (10 and more), `~:10`, `10:20` or `@10:20`"
)]
pub struct InvalidRange;

impl FromStr for Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let (inside, rest) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
        let number = |text: &str| {
            let number: f64 = text.parse().map_err(|_| InvalidRange)?;
            if number.is_finite() { Ok(number) } else { Err(InvalidRange) }
        };
        let (start, end) = match rest.split_once(':') {
            None => (0.0, number(rest)?),
            Some((start, end)) => {
                let start = if start == "~" { f64::NEG_INFINITY } else { number(start)? };
                (start, if end.is_empty() { f64::INFINITY } else { number(end)? })
            }
        };
        if start > end {
            return Err(InvalidRange);
        }
        Ok(Self { text: text.to_owned(), start, end, inside })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is to be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    /// What is a warning.
    pub warning: Option<Range>,
    /// What is critical.
    pub critical: Option<Range>,
    /// How old the status may be, in seconds.
    pub max_age: u32,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    label: &'static str,
    value: f64,
    /// `s`, `%`, `B`, or nothing for numbers.
    unit: &'static str,
    warning: Option<Range>,
    critical: Option<Range>,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    check: Check,
    /// How it ended.
    pub state: State,
    text: String,
    figures: Vec<Figure>,
}

impl Verdict {
    fn new(check: Check, state: State, text: impl Into<String>) -> Self {
        Self { check, state, text: text.into(), figures: Vec::new() }
    }

    fn unknown(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, State::Unknown, text)
    }

    /// With a figure that only informs.
    fn with(mut self, label: &'static str, value: f64, unit: &'static str) -> Self {
        self.figures.push(Figure { label, value, unit, warning: None, critical: None });
        self
    }

    /// With the figure that the thresholds are about; its state is the worse one.
    fn held_to(
        mut self,
        thresholds: &Thresholds,
        label: &'static str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        let given = |range: &Option<Range>, default: Option<&str>| {
            range.clone().or_else(|| default.and_then(|text| text.parse().ok()))
        };
        let warning = given(&thresholds.warning, self.check.warning());
        let critical = given(&thresholds.critical, self.check.critical());
        let tells = |range: &Option<Range>| range.as_ref().is_some_and(|range| range.tells(value));
        let state = if tells(&critical) {
            State::Critical
        } else if tells(&warning) {
            State::Warning
        } else {
            State::Ok
        };
        self.state = self.state.max(state);
        self.figures.insert(0, Figure { label, value, unit, warning, critical });
        self
    }
}

impl fmt::Display for Verdict {
    /// One line: what plugins say before the bar is for people, and what comes after it for machines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bar would begin the figures, and a line break more text.
        let text = self.text.replace('|', "/").replace(['\n', '\r'], " ");
        write!(f, "{} {} - {text}", self.check.name(), self.state.word())?;
        for (index, figure) in self.figures.iter().enumerate() {
            let range = |range: &Option<Range>| range.as_ref().map(ToString::to_string).unwrap_or_default();
            let (warning, critical) = (range(&figure.warning), range(&figure.critical));
            let before = if index == 0 { " | " } else { " " };
            let Figure { label, value, unit, .. } = figure;
            let figures = format!("{label}={value}{unit};{warning};{critical};0");
            write!(f, "{before}{}", figures.replace(";;;0", ""))?;
        }
        Ok(())
    }
}

/// Checks. `now` is in milliseconds since 1970.
pub fn judge(
    check: Check,
    thresholds: &Thresholds,
    status: Result<&Status, &StatusError>,
    now: i64,
) -> Verdict {
    let status = match status {
        Ok(status) => status,
        Err(error) => return Verdict::unknown(check, crate::model::fact::chain(error)),
    };
    let age = now.saturating_sub(status.at) / 1000;
    if age > i64::from(thresholds.max_age) {
        let text = format!(
            "the agent has not looked for {age} s: is quorate.service running? It said last: {}",
            reason(status)
        );
        return Verdict::unknown(check, text);
    }
    match check {
        Check::Quorum => quorum(status, thresholds),
        Check::Member => member(status, thresholds),
        Check::Backup => backup(status, thresholds, now),
        Check::Certificates => certificates(status, thresholds, now),
        Check::Api => api(status),
        Check::Node => node(status, thresholds, now),
    }
}

/// The phase, and the first reason.
fn reason(status: &Status) -> String {
    match (&status.halt, status.waiting.first()) {
        (Some(halt), _) => format!("halted: {halt}"),
        (None, Some(waiting)) => format!("{}: waits for {}", status.phase, waiting.on),
        (None, None) => status.phase.to_string(),
    }
}

/// Why a check of the control plane does not fit this machine.
fn not_here(check: Check, status: &Status) -> Option<Verdict> {
    match status.role {
        Some(Role::ControlPlane) => None,
        Some(Role::Worker) => {
            Some(Verdict::unknown(check, "this machine is a worker, and has no part in it"))
        }
        None => Some(Verdict::unknown(check, reason(status))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of members, sizes below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

fn quorum(status: &Status, thresholds: &Thresholds) -> Verdict {
    let check = Check::Quorum;
    if let Some(verdict) = not_here(check, status) {
        return verdict;
    }
    if status.leader.is_none() || status.members.is_empty() {
        return Verdict::new(check, State::Critical, format!("no quorum answers; {}", reason(status)));
    }
    let voters = status.members.iter().filter(|member| !member.learner).count();
    let healthy =
        status.members.iter().filter(|member| !member.learner && member.healthy == Some(true)).count();
    let learners = status.members.len() - voters;
    let ill: Vec<&str> = status
        .members
        .iter()
        .filter(|member| !member.learner && member.healthy != Some(true))
        .map(|member| member.name.as_str())
        .collect();
    let needed = voters / 2 + 1;
    let (state, text) = match healthy {
        all if all == voters => (State::Ok, format!("{healthy} of {voters} voters are healthy")),
        some if some > needed => {
            (State::Warning, format!("{healthy} of {voters} voters are healthy, not {}", ill.join(", ")))
        }
        some if some == needed => (
            State::Warning,
            format!(
                "{healthy} of {voters} voters are healthy, not {}: none more may be lost",
                ill.join(", ")
            ),
        ),
        _ => (State::Critical, format!("{healthy} of {voters} voters are healthy, {needed} are needed")),
    };
    Verdict::new(check, state, text)
        .held_to(thresholds, "healthy", float(healthy), "")
        .with("voters", float(voters), "")
        .with("learners", float(learners), "")
}

fn member(status: &Status, thresholds: &Thresholds) -> Verdict {
    let check = Check::Member;
    if let Some(verdict) = not_here(check, status) {
        return verdict;
    }
    if status.phase == Phase::Standby {
        return Verdict::new(check, State::Ok, "this machine stands by, and has no member");
    }
    let own = status.members.iter().find(|member| Some(member.id) == status.member);
    let Some(own) = own else {
        return Verdict::new(
            check,
            State::Critical,
            format!("it has no member that a quorum lists; {}", reason(status)),
        );
    };
    let (state, text) = match (own.healthy, own.learner) {
        (Some(true), false) => (State::Ok, format!("{} is healthy and votes", own.name)),
        (Some(true), true) => (State::Warning, format!("{} is healthy and has no vote yet", own.name)),
        (Some(false), _) => (State::Critical, format!("{} is not healthy", own.name)),
        (None, _) => (State::Critical, format!("{} does not answer", own.name)),
    };
    let alarms: Vec<String> = status.alarms.iter().flatten().map(|alarm| alarm.kind.to_string()).collect();
    let (state, text) = if alarms.is_empty() {
        (state, text)
    } else {
        (State::Critical, format!("{text}; etcd raises {}", alarms.join(", ")))
    };
    let verdict = Verdict::new(check, state, text);
    match used(own) {
        Some(percent) => verdict.held_to(thresholds, "database", percent, "%"),
        None => verdict,
    }
}

/// The database in percent of its quota, to one place.
#[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
fn used(member: &MemberStatus) -> Option<f64> {
    let (size, quota) = (member.size? as f64, member.quota? as f64);
    (quota > 0.0).then(|| (size / quota * 1000.0).round() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ms, which is 285,000 years")]
fn seconds(from: i64, to: i64) -> f64 {
    (to.saturating_sub(from) / 1000) as f64
}

fn backup(status: &Status, thresholds: &Thresholds, now: i64) -> Verdict {
    let check = Check::Backup;
    if let Some(verdict) = not_here(check, status) {
        return verdict;
    }
    let trouble: Vec<String> = status
        .warnings
        .iter()
        .filter(|warning| matches!(warning, Warning::Backups { .. }))
        .map(ToString::to_string)
        .collect();
    let state = if trouble.is_empty() { State::Ok } else { State::Warning };
    let with_trouble = |text: String| {
        if trouble.is_empty() { text } else { format!("{text}; {}", trouble.join("; ")) }
    };
    let Some(backups) = &status.backups else {
        let text = format!("this machine has no part in the backups yet; {}", reason(status));
        return Verdict::unknown(check, text);
    };
    match &backups.keeping {
        None => {
            let text = with_trouble("nobody is known to keep the backups".to_owned());
            Verdict::new(check, State::Warning, text)
        }
        Some(Keeping::Elsewhere { by }) => Verdict::new(check, state, with_trouble(format!("kept by {by}"))),
        Some(Keeping::Here) => kept_here(backups, state, with_trouble, thresholds, now),
    }
}

fn kept_here(
    backups: &BackupProgress,
    state: State,
    with_trouble: impl Fn(String) -> String,
    thresholds: &Thresholds,
    now: i64,
) -> Verdict {
    let check = Check::Backup;
    let failed = backups.rehearsed.as_ref().and_then(|rehearsal| rehearsal.error.as_ref());
    let (state, rehearsed) = match (failed, &backups.rehearsed) {
        (Some(why), _) => (State::Critical, format!("the newest can't be restored: {why}")),
        (None, Some(_)) => (state, "the newest was restored in a rehearsal".to_owned()),
        (None, None) => (state, "not rehearsed yet".to_owned()),
    };
    let behind = backups.unshipped_since.map_or(0.0, |since| seconds(since, now));
    let Some(taken) = backups.taken else {
        let text = with_trouble("there is no snapshot yet".to_owned());
        return Verdict::new(check, State::Warning.max(state), text);
    };
    let age = seconds(taken, now);
    Verdict::new(check, state, with_trouble(format!("snapshot of {age} s ago, {rehearsed}")))
        .held_to(thresholds, "age", age, "s")
        .with("unshipped", behind, "s")
}

fn certificates(status: &Status, thresholds: &Thresholds, now: i64) -> Verdict {
    let check = Check::Certificates;
    let Some(end) = status.certificates_end else {
        return Verdict::unknown(check, format!("this machine has no certificate yet; {}", reason(status)));
    };
    let days = (seconds(now, end) / DAY).floor();
    let text = if days < 0.0 {
        "a certificate of this machine has ended".to_owned()
    } else {
        format!("the first certificate of this machine ends in {days} days")
    };
    Verdict::new(check, State::Ok, text).held_to(thresholds, "days", days, "")
}

fn api(status: &Status) -> Verdict {
    let check = Check::Api;
    if status.role == Some(Role::Worker) {
        let missing = status.waiting.iter().find(|waiting| matches!(waiting.on, WaitingOn::Api { .. }));
        return match missing {
            Some(waiting) => Verdict::new(check, State::Critical, format!("waits for {}", waiting.on)),
            None if status.phase == Phase::Running => {
                Verdict::new(check, State::Ok, "the API answers this worker")
            }
            None => Verdict::unknown(check, reason(status)),
        };
    }
    let Some(kubernetes) = &status.kubernetes else {
        return Verdict::unknown(check, format!("there is no control plane here yet; {}", reason(status)));
    };
    let not_ready: Vec<String> = kubernetes
        .components
        .iter()
        .filter_map(|(which, why)| Some(format!("{}: {}", which.name(), why.as_ref()?)))
        .collect();
    let ready = kubernetes.components.len() - not_ready.len();
    let state = match kubernetes.components.get(&Component::ApiServer) {
        Some(None) if not_ready.is_empty() => State::Ok,
        Some(None) => State::Warning,
        Some(Some(_)) => State::Critical,
        None => State::Unknown,
    };
    let text = if not_ready.is_empty() {
        format!("the API server and {} other components are ready", ready.saturating_sub(1))
    } else {
        not_ready.join("; ")
    };
    Verdict::new(check, state, text).with("ready", float(ready), "")
}

fn node(status: &Status, thresholds: &Thresholds, now: i64) -> Verdict {
    let check = Check::Node;
    if status.halt.is_some() {
        return Verdict::new(check, State::Critical, reason(status));
    }
    // To stand by is what a standby is there for.
    let waits = status.waiting.iter().filter(|waiting| waiting.on != WaitingOn::FreeSlot);
    let longest = waits.min_by_key(|waiting| waiting.since);
    let state = if status.warnings.is_empty() { State::Ok } else { State::Warning };
    let mut text = reason(status);
    if let (State::Warning, Some(warning)) = (state, status.warnings.first()) {
        let warning = format!("warning: {warning}");
        if !text.contains(&warning) {
            text = format!("{text}; {warning}");
        }
    }
    let waited = longest.map_or(0.0, |waiting| seconds(waiting.since, now));
    Verdict::new(check, state, text).held_to(thresholds, "waiting", waited, "s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_guidelines() {
        // The guidelines' own examples.
        for (range, told, fine) in [
            ("10", &[-1.0, 11.0][..], &[0.0, 10.0][..]),
            ("10:", &[9.0], &[10.0, 1e9]),
            ("~:10", &[11.0], &[-1e9, 10.0]),
            ("10:20", &[9.0, 21.0], &[10.0, 20.0]),
            ("@10:20", &[10.0, 20.0], &[9.0, 21.0]),
        ] {
            let range: Range = range.parse().unwrap();
            assert!(told.iter().all(|value| range.tells(*value)), "{range}");
            assert!(fine.iter().all(|value| !range.tells(*value)), "{range}");
        }
        for wrong in ["", "x", "20:10", ":", "10:x", "~", "inf", "@"] {
            assert_eq!(wrong.parse::<Range>(), Err(InvalidRange), "{wrong:?}");
        }
    }

    #[test]
    fn every_default_is_a_range() {
        for check in Check::ALL {
            for range in [check.warning(), check.critical()].into_iter().flatten() {
                range.parse::<Range>().unwrap();
            }
        }
    }

    #[test]
    fn the_line_is_one_line_and_has_one_bar() {
        let verdict = Verdict::new(Check::Node, State::Ok, "a | b\nc").with("waiting", 5.0, "s");
        assert_eq!(verdict.to_string(), "NODE OK - a / b c | waiting=5s");
    }
}
