//! The agent's metrics, in OpenMetrics text: what `quorate status` shows, as numbers.
//!
//! A page is made anew from the [`Status`] at each request, so that nothing outlives the state that it tells of, and
//! there is no second way of knowing. Only what is counted (looks and steps) is kept between requests. Every label has
//! few values: names of the agent's own vocabulary, and zones. What each metric means is in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use serde::Serialize;

use super::status::{KubernetesStatus, MemberStatus, Status};
use crate::model::backup::{BackupProgress, Keeping};
use crate::model::{AlarmKind, Phase, Warning};

/// The format of a page: OpenMetrics 1.0.0.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The format before it, for who does not ask for OpenMetrics: Prometheus' own text, version 0.0.4.
pub const CLASSIC_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Number = Gauge<f64, AtomicU64>;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookOutcome {
    /// With a plan.
    Planned,
    /// It did not end in its time.
    GivenUp,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was done.
    Done,
    /// It was not.
    Failed,
    /// Another machine was first.
    Overtaken,
    /// It did not end in its time.
    GivenUp,
}

/// What is counted since the agent started.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    looks: Family<Labels, Counter>,
    steps: Family<Labels, Counter>,
}

impl Counters {
    /// Counts a look.
    pub fn looked(&self, outcome: LookOutcome) {
        let outcome = match outcome {
            LookOutcome::Planned => "planned",
            LookOutcome::GivenUp => "givenUp",
        };
        self.looks.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
    }

    /// Counts a step.
    pub fn stepped(&self, step: &'static str, outcome: StepOutcome) {
        let outcome = match outcome {
            StepOutcome::Done => "done",
            StepOutcome::Failed => "failed",
            StepOutcome::Overtaken => "overtaken",
            StepOutcome::GivenUp => "givenUp",
        };
        let labels = vec![("step", step.to_owned()), ("outcome", outcome.to_owned())];
        self.steps.get_or_create(&labels).inc();
    }
}

/// The page at a moment, in milliseconds since 1970.
///
/// # Errors
/// None is known: a text takes all that is written to it.
pub fn page(status: Option<&Status>, counters: &Counters, now: i64) -> Result<String, fmt::Error> {
    let mut page = Page { registry: Registry::with_prefix("quorate") };
    page.add("build", "The agent", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    page.add("looks", "Looks at the world", counters.looks.clone());
    page.add("steps", "Steps that were tried", counters.steps.clone());
    if let Some(status) = status {
        page.node(status);
        page.reasons(status, now);
        page.etcd(status);
        if let Some(end) = status.certificates_end {
            let help = "When the first of this machine's certificates ends";
            page.seconds("certificates_end_timestamp", help, seconds(end));
        }
        if let Some(backups) = &status.backups {
            page.backups(backups, now);
        }
        if let Some(kubernetes) = &status.kubernetes {
            page.kubernetes(status, kubernetes);
        }
    }
    let mut text = String::new();
    encode(&mut text, &page.registry)?;
    Ok(text)
}

/// The same page in Prometheus' own text format: without units and an end, and with the types that it has. There an
/// `info` is a gauge, and a metric is called as its samples are.
/// Source: "Exposition formats", Prometheus' documentation; "Considerations for other versions", OpenMetrics 1.0.0.
pub fn classic(page: &str) -> String {
    let mut types = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
        }
    }
    let sampled = |name: &str| match types.get(name).copied() {
        Some("info") => format!("{name}_info"),
        Some("counter") => format!("{name}_total"),
        _ => name.to_owned(),
    };
    let mut text = String::with_capacity(page.len());
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => text.push_str(&format!("# HELP {} {help}", sampled(name))),
            ["#", "TYPE", name, "info"] => text.push_str(&format!("# TYPE {} gauge", sampled(name))),
            ["#", "TYPE", name, kind] => text.push_str(&format!("# TYPE {} {kind}", sampled(name))),
            ["#", ..] => continue,
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// A page in the making.
struct Page {
    registry: Registry,
}

impl Page {
    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    fn number(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Number::default();
        gauge.set(value);
        self.add(name, help, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Number::default();
        gauge.set(value);
        self.registry.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    fn bytes(&mut self, name: &str, help: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        let gauge = Number::default();
        gauge.set(float(value));
        self.registry.register_with_unit(name, help, Unit::Bytes, gauge);
    }

    /// A gauge for each value of one label.
    fn by(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, f64)>,
    ) {
        let family = Family::<Labels, Number>::default();
        for (value, number) in values {
            family.get_or_create(&vec![(label, value)]).set(number);
        }
        self.add(name, help, family);
    }

    fn node(&mut self, status: &Status) {
        fn text<T: ToString>(value: Option<&T>) -> String {
            value.map(T::to_string).unwrap_or_default()
        }
        let labels = vec![
            ("cluster", text(status.cluster.as_ref())),
            ("role", text(status.role.as_ref())),
            ("zone", text(status.zone.as_ref())),
            ("instance", text(status.instance.as_ref())),
            ("slot", text(status.slot.as_ref())),
        ];
        self.add("node", "This machine", Info::new(labels));
        self.seconds("look_timestamp", "When the world was last looked at", seconds(status.at));
        let phases = Phase::ALL.map(|phase| (phase.to_string(), yes(phase == status.phase)));
        self.by("phase", "Where the machine is on its way: 1 for the phase that it is in", "phase", phases);
        self.number("halted", "Whether only a human can help", yes(status.halt.is_some()));
        let because = counted(status.halt.iter().map(|halt| kind(halt, "because")));
        self.by("halt", "Why only a human can help", "because", because);
    }

    fn reasons(&mut self, status: &Status, now: i64) {
        let mut longest: BTreeMap<String, f64> = BTreeMap::new();
        for waiting in &status.waiting {
            let waited = seconds(now.saturating_sub(waiting.since).max(0));
            let known = longest.entry(kind(&waiting.on, "on")).or_default();
            *known = known.max(waited);
        }
        let family = Family::<Labels, Number>::default();
        for (on, waited) in longest {
            family.get_or_create(&vec![("on", on)]).set(waited);
        }
        let help = "How long it has waited, by what for: the longest of a kind";
        self.registry.register_with_unit("waiting", help, Unit::Seconds, family);
        let warnings = counted(status.warnings.iter().map(|warning| kind(warning, "about")));
        self.by("warnings", "What should be seen to, by its kind", "about", warnings);
        let noticed = counted(status.noticed.iter().map(|noticed| kind(&noticed.mismatch, "what")));
        self.by("mismatches", "What does not match among members, machines and volumes", "what", noticed);
    }

    fn backups(&mut self, backups: &BackupProgress, now: i64) {
        let is_keeper = backups.keeping == Some(Keeping::Here);
        self.number("backup_keeper", "Whether this machine keeps the backups", yes(is_keeper));
        if !is_keeper {
            return;
        }
        if let Some(taken) = backups.taken {
            self.seconds("backup_snapshot_timestamp", "When the last snapshot was begun", seconds(taken));
        }
        self.bytes("backup_snapshot_size", "The database in the last snapshot", backups.size);
        let behind = backups.unshipped_since.map_or(0.0, |since| seconds(now.saturating_sub(since).max(0)));
        self.seconds("backup_unshipped", "How long the oldest change has waited to get to S3", behind);
        if let Some(revision) = backups.shipped {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no store reaches")]
            self.number("backup_revision", "The last revision that is in S3", revision as f64);
        }
        if let Some(rehearsal) = &backups.rehearsed {
            self.seconds(
                "backup_rehearsal_timestamp",
                "When a restore was last rehearsed",
                seconds(rehearsal.at),
            );
            let is_good = yes(rehearsal.error.is_none());
            self.number(
                "backup_rehearsal_succeeded",
                "Whether what was rehearsed could be restored",
                is_good,
            );
        }
    }

    fn etcd(&mut self, status: &Status) {
        let Some(own) = status.member else { return };
        // Who leads is told by a quorum: where none answers, nobody does.
        self.number("etcd_has_leader", "Whether etcd has a leader", yes(status.leader.is_some()));
        if status.members.is_empty() {
            return;
        }
        let family = Family::<Labels, Number>::default();
        for role in ["voter", "learner"] {
            for health in ["healthy", "unhealthy", "silent"] {
                let is_such = |member: &&MemberStatus| {
                    (role == "learner") == member.learner && health == health_of(member)
                };
                let count = status.members.iter().filter(is_such).count();
                let labels = vec![("role", role.to_owned()), ("health", health.to_owned())];
                family.get_or_create(&labels).set(float(count as u64));
            }
        }
        self.add("etcd_members", "The members that etcd lists", family);
        self.number("etcd_is_leader", "Whether this machine's member leads", yes(status.leader == Some(own)));
        if let Some(member) = status.members.iter().find(|member| member.id == own) {
            self.bytes("etcd_database_size", "The file of this machine's database", member.size);
            self.bytes("etcd_database_in_use", "What of it is in use", member.in_use);
            self.bytes("etcd_database_quota", "The size at which etcd refuses writes", member.quota);
        }
        if let Some(revision) = status.revision {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no store reaches")]
            self.number("etcd_revision", "The store's revision", revision as f64);
        }
        if let Some(alarms) = &status.alarms {
            let kinds = [AlarmKind::NoSpace, AlarmKind::Corrupt].map(|of| {
                let count = alarms.iter().filter(|alarm| alarm.kind == of).count();
                (of.to_string(), float(count as u64))
            });
            self.by("etcd_alarms", "The alarms that etcd raises", "kind", kinds);
        }
    }

    fn kubernetes(&mut self, status: &Status, kubernetes: &KubernetesStatus) {
        let components =
            kubernetes.components.iter().map(|(which, why)| (which.name().to_owned(), yes(why.is_none())));
        self.by(
            "component_ready",
            "Whether a component of the control plane on this machine is ready",
            "component",
            components,
        );
        let keeps = kubernetes.keeper.is_some()
            && kubernetes.keeper.as_deref() == status.instance.as_ref().map(crate::model::InstanceId::as_str);
        self.number("api_keeper", "Whether this machine looks after what is kept in the API", yes(keeps));
        if let Some(addons) = &kubernetes.addons {
            let counts = [("applied", true), ("notApplied", false)].map(|(state, applied)| {
                let count = addons.values().filter(|why| why.is_none() == applied).count();
                (state.to_owned(), float(count as u64))
            });
            self.by("addons", "The add-ons in the API", "state", counts);
        }
        if let Some(workers) = &kubernetes.workers {
            let zones = workers.iter().map(|(zone, count)| (zone.clone(), float(*count as u64)));
            self.by("workers", "The workers that are nodes, by zone", "zone", zones);
            let shares =
                status.warnings.iter().any(|warning| matches!(warning, Warning::WorkersShareZone { .. }));
            self.number("workers_share_zone", "Whether all workers are in one zone", yes(shares));
        }
    }
}

fn health_of(member: &MemberStatus) -> &'static str {
    match member.healthy {
        Some(true) => "healthy",
        Some(false) => "unhealthy",
        None => "silent",
    }
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, more than bytes and counts here reach")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ms, which is 285,000 years")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// How often each kind is there.
fn counted(kinds: impl Iterator<Item = String>) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1.0;
    }
    counts
}

/// The name of a reason's kind, as its JSON has it.
fn kind(reason: &impl Serialize, tag: &str) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json.get(tag).and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned()
}
