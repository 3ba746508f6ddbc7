//! The page that `quorate status` prints: short, aligned, and coloured where that is wanted.
//!
//! Pure: made from the [`Status`] alone.

use std::fmt::Write as _;

use super::status::{AgentState, MemberStatus, Status};
use crate::model::backup::{BackupProgress, Keeping, Rehearsal};
use crate::model::{Noticed, Phase, Warning};

/// How the page is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The moment, in milliseconds since 1970.
    pub now: i64,
    /// Whether there are colours.
    pub colour: bool,
    /// Whether the agent runs.
    pub agent: AgentState,
}

/// What a row is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Watch,
    Bad,
}

impl Tone {
    /// Its number among the terminal's colours.
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Good => Some(32),
            Self::Watch => Some(33),
            Self::Bad => Some(31),
        }
    }
}

/// A page in the making.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn row(&mut self, name: &str, value: &str) {
        self.toned(Tone::Plain, name, value);
    }

    /// A row, of which the name is coloured, and the value is where it is more than a matter of course.
    fn toned(&mut self, tone: Tone, name: &str, value: &str) {
        let painted = |code: u8, text: &str| {
            if self.colour && !text.is_empty() {
                format!("\u{1b}[{code}m{text}\u{1b}[0m")
            } else {
                text.to_owned()
            }
        };
        let name = format!("{name:<10}");
        let name = match tone.code() {
            Some(code) => painted(code, &name),
            None => painted(1, &name),
        };
        // More lines of a value, as of a configuration's errors, stand below the first.
        let value = value.trim_end().replace('\n', &format!("\n{:<11}", ""));
        // Writing to a string does not fail.
        let _: std::fmt::Result = writeln!(self.text, "{name} {value}");
    }
}

fn known<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// The page.
pub fn page(status: &Status, view: &View) -> String {
    let now = view.now;
    let mut page = Page { text: String::new(), colour: view.colour };
    if view.agent == AgentState::Down {
        let text = format!(
            "does not run: this is what it said {} ago; etcd and Kubernetes go on without it",
            ago(now, status.at)
        );
        page.toned(Tone::Bad, "agent", &text);
    }
    page.row("cluster", &format!("{}  role {}", known(status.cluster.as_ref()), known(status.role.as_ref())));
    page.row("node", &format!("{}  zone {}", known(status.instance.as_ref()), known(status.zone.as_ref())));
    page.row("slot", &format!("{}  member {}", known(status.slot.as_ref()), known(status.member.as_ref())));
    let since = status.phase_since.map_or(String::new(), |since| format!(" for {}", ago(now, since)));
    let tone = match status.phase {
        Phase::Running | Phase::Standby => Tone::Good,
        Phase::Halted => Tone::Bad,
        Phase::Identifying
        | Phase::Preparing
        | Phase::Founding
        | Phase::Recovering
        | Phase::Joining
        | Phase::Returning
        | Phase::Leaving
        | Phase::Left => Tone::Watch,
    };
    page.toned(tone, "phase", &format!("{}{since}  (seen {} ago)", status.phase, ago(now, status.at)));
    reasons(&mut page, status, now);
    members(&mut page, status);
    if let Some(backups) = &status.backups {
        let failed = backups.rehearsed.as_ref().is_some_and(|rehearsal| rehearsal.error.is_some());
        page.toned(if failed { Tone::Bad } else { Tone::Plain }, "backups", &of_backups(backups, now));
    }
    if let Some(end) = status.certificates_end {
        let days = end.saturating_sub(now).div_euclid(86_400_000);
        let tone = if days < 30 { Tone::Watch } else { Tone::Plain };
        page.toned(tone, "certs", &format!("the first ends in {days} days"));
    }
    kubernetes(&mut page, status);
    page.text
}

fn reasons(page: &mut Page, status: &Status, now: i64) {
    for waiting in &status.waiting {
        let text = format!("{} (for {})", waiting.on, ago(now, waiting.since));
        page.toned(Tone::Watch, "waits for", &text);
    }
    if let Some(halt) = &status.halt {
        page.toned(Tone::Bad, "halted", &halt.to_string());
    }
    for warning in &status.warnings {
        page.toned(Tone::Watch, "warning", &warning.to_string());
    }
    let is_news = |noticed: &&Noticed| {
        let mismatch = noticed.mismatch.clone();
        !status.warnings.contains(&Warning::Mismatch { mismatch })
    };
    for noticed in status.noticed.iter().filter(is_news) {
        page.row("noticed", &format!("{} (for {})", noticed.mismatch, ago(now, noticed.since)));
    }
}

fn members(page: &mut Page, status: &Status) {
    for member in &status.members {
        let mut words = vec![if member.learner { "learner" } else { "voter" }];
        if Some(member.id) == status.leader {
            words.push("leader");
        }
        let (word, tone) = match member.healthy {
            Some(true) => ("healthy", Tone::Plain),
            Some(false) => ("not healthy", Tone::Bad),
            None => ("does not answer", Tone::Watch),
        };
        words.push(word);
        let name = if member.name.is_empty() { "(not started)" } else { &member.name };
        let text = format!("{:>16} {name:<13} {}{}", member.id, words.join(", "), size(member));
        page.toned(tone, "member", &text);
    }
    for alarm in status.alarms.iter().flatten() {
        page.toned(Tone::Bad, "alarm", &format!("{:>16} {}", alarm.member, alarm.kind));
    }
}

fn size(member: &MemberStatus) -> String {
    member.size.map_or_else(String::new, |size| format!(", {} MiB", size.div_ceil(1 << 20)))
}

fn kubernetes(page: &mut Page, status: &Status) {
    let Some(kubernetes) = &status.kubernetes else { return };
    let endpoint = known(kubernetes.endpoint.as_ref());
    page.row("kubernetes", &format!("{}  endpoint {endpoint}", kubernetes.version));
    for (component, why) in &kubernetes.components {
        let name = component.name();
        match why {
            None => page.row("", &format!("{name:<23} ready")),
            Some(why) => page.toned(Tone::Watch, "", &format!("{name:<23} not ready: {why}")),
        }
    }
    if let Some(target) = &kubernetes.target {
        let balancers = kubernetes.load_balancers.as_deref().unwrap_or_default().join(", ");
        let tone = if target == "healthy" { Tone::Plain } else { Tone::Watch };
        page.toned(tone, "target", &format!("{target}, of {balancers}"));
    }
    if let Some(workers) = kubernetes.workers.as_ref().filter(|workers| !workers.is_empty()) {
        let zones: Vec<String> = workers.iter().map(|(zone, count)| format!("{count} in {zone}")).collect();
        page.row("workers", &zones.join(", "));
    }
    for (addon, why) in kubernetes.addons.iter().flatten() {
        let name = addon.as_str();
        match why {
            None => page.row("add-on", &format!("{name:<23} applied")),
            Some(why) => page.toned(Tone::Watch, "add-on", &format!("{name:<23} not applied: {why}")),
        }
    }
}

/// Who keeps the backups, and how far they are.
fn of_backups(backups: &BackupProgress, now: i64) -> String {
    match &backups.keeping {
        None => "nobody is known to keep them".to_owned(),
        Some(Keeping::Elsewhere { by }) => format!("kept by {by}"),
        Some(Keeping::Here) => {
            let taken = match backups.taken {
                Some(taken) => format!("snapshot {} ago", ago(now, taken)),
                None => "no snapshot yet".to_owned(),
            };
            let shipped = match (backups.unshipped_since, backups.shipped) {
                (Some(since), _) => format!("changes of the last {} not in S3 yet", ago(now, since)),
                (None, Some(revision)) => format!("all changes in S3, up to revision {revision}"),
                (None, None) => "no changes in S3 yet".to_owned(),
            };
            let rehearsed = match &backups.rehearsed {
                None => "never rehearsed".to_owned(),
                Some(Rehearsal { at, error: None, .. }) => format!("rehearsed {} ago", ago(now, *at)),
                Some(Rehearsal { at, error: Some(_), .. }) => {
                    format!("REHEARSAL FAILED {} ago", ago(now, *at))
                }
            };
            format!("kept here: {taken}, {shipped}, {rehearsed}")
        }
    }
}

/// A span of time as a person says it: `0 s`, `3 min`, `2 h`.
fn ago(now: i64, since: i64) -> String {
    let seconds = now.saturating_sub(since).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
