//! The agent: observe, plan, execute, once at every event and at a slow tick.
//!
//! [`setup`] learns who this machine is and what the operator wants; then [`Agent::run`] goes
//! round. Waiting for events only names the event; what follows from it happens in the round.
//! Stopping the agent stops neither etcd nor Kubernetes: a step that has begun is finished, and
//! nothing more is done.

mod failpoint;
mod pace;
pub mod setup;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;
use tokio::time::error::Elapsed;
use tokio::time::{Duration, Instant};

use crate::aws::without_request_ids;
use crate::config::Settings;
use crate::host::clock;
use crate::model::fact::chain;
use crate::model::{Noticed, Observation, Phase, Plan, Report, Step, Waiting, WaitingOn};
use crate::observe::Depth;
use crate::plan::plan;
use crate::telemetry::history::{self, Entry, What};
use crate::telemetry::messages;
use crate::telemetry::metrics::{LookOutcome, StepOutcome};
use crate::telemetry::monitor::Board;
use crate::telemetry::notify::{self, alive};
use crate::telemetry::status::Status;

pub use pace::Pace;
pub use world::Machine;

/// What can happen to the agent from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT: finish the step in hand and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// Something has happened that can't wait for the next look: a shutdown of the machine is announced, or called off.
    LookAgain,
}

/// Why the rounds ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The agent was asked to stop.
    Stopped,
    /// The configuration is to be read again.
    Reload,
}

/// The world as the agent needs it: asked, acted on, and told.
#[expect(async_fn_in_trait, reason = "implemented in this crate and its tests, on one thread")]
pub trait World {
    /// Why a step was not done.
    type Error: std::error::Error + 'static;

    /// Looks.
    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation;

    /// Does one step.
    async fn execute(&mut self, step: &Step) -> Result<(), Self::Error>;

    /// Tells whoever watches.
    fn tell(&mut self, status: &Status, seen: &Observation, plan: &Plan);

    /// Whether the step was not done since another machine was first.
    fn was_overtaken(error: &Self::Error) -> bool;

    /// Lets this much time pass.
    async fn rest(&mut self, after: Duration);

    /// Writes down what was decided.
    fn note(&mut self, entry: Entry);
}

/// How long a look or a step may take before it is given up. What they call has bounds of its own,
/// the longest of which (making a file system, 15 minutes) is shorter; these are for what none of
/// them covers.
#[derive(Debug, Clone, Copy)]
struct Limits {
    look: Duration,
    step: Duration,
}

const LIMITS: Limits = Limits { look: Duration::from_mins(2), step: Duration::from_mins(20) };

/// How long to rest after a look that did not end.
const AFTER_NO_LOOK: Duration = Duration::from_secs(1);

/// What came of a look.
enum Looked {
    /// A plan, made from this.
    Planned(Box<Observation>, Plan),
    /// It did not end in time.
    GivenUp,
    /// Something happened that is to be seen at once. Nothing was done.
    Disturbed,
    /// An event came first. Nothing was done, so nothing is left undone.
    Ended(Ended),
}

/// The loop's state from round to round.
#[derive(Debug)]
pub struct Agent<W> {
    settings: Settings,
    world: W,
    waiting: Vec<Waiting>,
    noticed: Vec<Noticed>,
    pace: Pace,
    told: Option<(Phase, String)>,
    limits: Limits,
    board: Arc<Board>,
    /// Whether nothing was written down yet.
    is_new: bool,
    /// The phase, and since when.
    phase: Option<(Phase, i64)>,
    news: News,
    failure: Option<Failure>,
}

impl<W: World> Agent<W> {
    /// An agent that has not looked yet, and tells a board what it does.
    pub fn new(settings: Settings, world: W, board: Arc<Board>) -> Self {
        let pace = Pace::new(settings.tick.as_duration());
        Self {
            settings,
            world,
            waiting: Vec::new(),
            noticed: Vec::new(),
            pace,
            told: None,
            limits: LIMITS,
            board,
            is_new: true,
            phase: None,
            news: News::default(),
            failure: None,
        }
    }

    /// Goes round until an event ends it.
    pub async fn run(&mut self, events: &mut Receiver<Event>) -> Ended {
        notify::ready();
        self.is_new = true;
        let mut depth = Depth::Full;
        loop {
            let waited = self.waiting.clone();
            let (seen, plan) = match self.look(depth, events).await {
                Looked::Planned(seen, plan) => (seen, plan),
                Looked::Ended(ended) => return ended,
                Looked::Disturbed => continue,
                Looked::GivenUp => {
                    depth = Depth::Full;
                    if let Some(ended) = self.rest(AFTER_NO_LOOK, events).await {
                        return ended;
                    }
                    continue;
                }
            };
            let outcome = if plan.steps.is_empty() {
                pace::Outcome::Nothing
            } else if depth == Depth::Light
                && !seen.departure.shuts_down()
                && !plan.steps.iter().all(Step::is_routine)
            {
                // What is done is decided from a full look; but what only goes on is kept going from any, and a machine
                // that shuts down has no time for one.
                depth = Depth::Full;
                self.keep_what_ran_out(waited, &seen);
                continue;
            } else {
                match self.act(&plan, events).await {
                    Ok(outcome) => outcome,
                    Err(ended) => return ended,
                }
            };
            match outcome {
                pace::Outcome::Nothing | pace::Outcome::Done => {}
                pace::Outcome::Failed | pace::Outcome::Overtaken => {
                    self.keep_what_ran_out(waited, &seen);
                }
            }
            let next = self.pace.next(&plan, outcome, &self.waiting, seen.at);
            depth = next.depth;
            self.board.is_alive_for(next.after);
            if let Some(ended) = self.rest(next.after, events).await {
                return ended;
            }
        }
    }

    /// One look and the plan made from it. A look in bad weather may take minutes, and changes
    /// nothing: an event does not wait for its end.
    async fn look(&mut self, depth: Depth, events: &mut Receiver<Event>) -> Looked {
        let limit = self.limits.look;
        self.board.is_alive_for(limit);
        let look = alive(self.world.observe(depth, self.waiting.clone()));
        let seen = tokio::select! {
            biased;
            event = events.recv() => {
                return ended_by(event).map_or(Looked::Disturbed, Looked::Ended);
            }
            seen = tokio::time::timeout(limit, look) => seen,
        };
        let Ok(mut seen) = seen else {
            let (limit_s, message_id) = (limit.as_secs(), messages::LOOK_GIVEN_UP);
            tracing::error!(limit_s, message_id, "a look at the world did not end; looking again");
            self.board.counters.looked(LookOutcome::GivenUp);
            return Looked::GivenUp;
        };
        seen.noticed = std::mem::take(&mut self.noticed);
        let plan = plan(&self.settings, &seen);
        self.waiting = remember(&self.waiting, &plan.report.waiting, seen.at);
        let waiting = self.waiting.iter().filter(|w| plan.report.waiting.contains(&w.on)).cloned().collect();
        let phase = plan.report.phase;
        let since = self.phase.filter(|(before, _)| *before == phase).map_or(seen.at, |(_, since)| since);
        self.phase = Some((phase, since));
        let status =
            Status { phase_since: Some(since), ..Status::new(&self.settings, &seen, &plan, waiting) };
        self.noticed.clone_from(&status.noticed);
        self.narrate(&plan, &status);
        self.board.counters.looked(LookOutcome::Planned);
        self.board.tell(&status);
        self.world.tell(&status, &seen, &plan);
        Looked::Planned(Box::new(seen), plan)
    }

    /// What a patience that has run out leads to was not done: it stays run out, or it would begin anew. It is what was
    /// waited for before the look, and would be waited for if it had not been.
    fn keep_what_ran_out(&mut self, before: Vec<Waiting>, seen: &Observation) {
        let anew = Observation { waiting: self.waiting.clone(), ..seen.clone() };
        let would_wait = plan(&self.settings, &anew).report.waiting;
        let ran_out = |waiting: &Waiting| would_wait.iter().any(|on| on.is_same_wait(&waiting.on));
        self.waiting = with_forgotten(&self.waiting, before.into_iter().filter(ran_out));
    }

    /// Says what changed, once.
    fn narrate(&mut self, plan: &Plan, status: &Status) {
        let phase = plan.report.phase;
        let words = status.words.join("; ");
        let now = (phase, without_request_ids(&words));
        if self.told.as_ref() == Some(&now) {
            return;
        }
        notify::status(&status.line());
        if !self.news.is_news(kinds(&plan.report), status.at) {
            return;
        }
        let slot = plan.report.slot.map(tracing::field::display);
        match &plan.report.halt {
            Some(halt) => {
                tracing::error!(%phase, slot, reason = %halt, message_id = messages::HALTED, "halted");
            }
            None => tracing::info!(%phase, slot, waiting = %words, message_id = messages::PHASE, "phase"),
        }
        if std::mem::take(&mut self.is_new) {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            self.world.note(entry(plan, status.at, What::Started { version }));
        }
        self.world.note(entry(plan, status.at, What::Phase));
        self.told = Some(now);
    }

    /// Carries the plan out, step by step; a step that fails ends it.
    async fn act(&mut self, plan: &Plan, events: &mut Receiver<Event>) -> Result<pace::Outcome, Ended> {
        for step in &plan.steps {
            if let Ok(event) = events.try_recv() {
                // What was decided before it is not gone on with.
                return ended_by(Some(event)).map_or(Ok(pace::Outcome::Overtaken), Err);
            }
            let name = step.name();
            failpoint::before(name);
            let (at, began) = (clock::now_ms(), Instant::now());
            self.board.is_alive_for(self.limits.step);
            let done = tokio::time::timeout(self.limits.step, alive(self.world.execute(step))).await;
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.board.counters.stepped(name, outcome_of::<W>(&done));
            if let Some(what) = decision::<W>(step, took_ms, &done) {
                self.world.note(entry(plan, at, what));
            }
            match done {
                Ok(Ok(())) => {
                    failpoint::after(name);
                    if step.is_routine() {
                        tracing::debug!(step = name, took_ms, "step done");
                    } else {
                        tracing::info!(step = name, took_ms, "step done");
                    }
                }
                Ok(Err(error)) if W::was_overtaken(&error) => {
                    tracing::info!(step = name, took_ms, why = chain(&error), "step overtaken");
                    return Ok(pace::Outcome::Overtaken);
                }
                Ok(Err(error)) => {
                    self.tell_failure(name, took_ms, &chain(&error), clock::now_ms());
                    return Ok(pace::Outcome::Failed);
                }
                Err(_) => {
                    let message_id = messages::STEP_GIVEN_UP;
                    tracing::error!(step = name, took_ms, message_id, "step did not end; looking again");
                    return Ok(pace::Outcome::Failed);
                }
            }
        }
        Ok(pace::Outcome::Done)
    }

    /// Says that a step failed: the same over and over once a minute, with how often.
    fn tell_failure(&mut self, step: &'static str, took_ms: u64, why: &str, now: i64) {
        let kind = without_request_ids(why);
        if let Some(failure) = &mut self.failure
            && (failure.step, &failure.why) == (step, &kind)
            && now.saturating_sub(failure.told) < REPEATED
        {
            failure.times += 1;
            return;
        }
        let same = self.failure.take().filter(|failure| (failure.step, &failure.why) == (step, &kind));
        let times = same.map_or(1, |failure| failure.times + 1);
        let message_id = messages::STEP_FAILED;
        if times == 1 {
            tracing::warn!(step, took_ms, why, message_id, "step failed");
        } else {
            tracing::warn!(step, took_ms, why, times, message_id, "step failed");
        }
        self.failure = Some(Failure { step, why: kind, told: now, times: 0 });
    }

    /// Waits for the next round, or for an event that ends the rounds.
    async fn rest(&mut self, after: Duration, events: &mut Receiver<Event>) -> Option<Ended> {
        tokio::select! {
            biased;
            event = events.recv() => ended_by(event),
            () = alive(self.world.rest(after)) => None,
        }
    }
}

/// A step that failed, when that was told, and how often it has failed so since.
#[derive(Debug)]
struct Failure {
    step: &'static str,
    why: String,
    told: i64,
    times: u32,
}

/// How often what repeats itself is told, in milliseconds.
const REPEATED: i64 = 60_000;
/// How many lines are told at once of one and the same phase and reasons, whose particulars change.
const BURST: u32 = 5;

/// What keeps a wait whose particulars change at each look from filling the journal.
#[derive(Debug, Default)]
struct News {
    kinds: Vec<String>,
    told: u32,
    at: i64,
}

impl News {
    /// Whether there is room for another line on reasons of these kinds. `now` is in milliseconds since 1970.
    fn is_news(&mut self, kinds: Vec<String>, now: i64) -> bool {
        if self.kinds != kinds {
            *self = Self { kinds, told: 0, at: now };
        }
        let has_room = self.told < BURST || now.saturating_sub(self.at) >= REPEATED;
        if has_room {
            (self.told, self.at) = (self.told.saturating_add(1), now);
        }
        has_room
    }
}

/// The phase and the names of the reasons, without their particulars.
fn kinds(report: &Report) -> Vec<String> {
    fn name(reason: &impl serde::Serialize, tag: &str) -> String {
        let json = serde_json::to_value(reason).unwrap_or_default();
        json.get(tag).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }
    let halt = report.halt.iter().map(|halt| name(halt, "because"));
    let waiting = report.waiting.iter().map(|on| name(on, "on"));
    let warnings = report.warnings.iter().map(|warning| name(warning, "about"));
    [report.phase.to_string()].into_iter().chain(halt).chain(waiting).chain(warnings).collect()
}

/// What is written down of a decision that a plan has made.
fn entry(plan: &Plan, at: i64, what: What) -> Entry {
    let report = &plan.report;
    let why = report.in_words().iter().map(|words| history::shortened(words)).collect();
    Entry { at, phase: report.phase, slot: report.slot, what, why }
}

/// What is written down of a step; nothing of one that only goes on, unless it can't.
fn decision<W: World>(
    step: &Step,
    took_ms: u64,
    done: &Result<Result<(), W::Error>, Elapsed>,
) -> Option<What> {
    let (ended, error) = match done {
        Ok(Ok(())) if step.is_routine() => return None,
        Ok(Ok(())) => (history::Ended::Done, None),
        Ok(Err(error)) if W::was_overtaken(error) => (history::Ended::Overtaken, Some(chain(error))),
        Ok(Err(error)) => (history::Ended::Failed, Some(chain(error))),
        Err(_) => (history::Ended::GivenUp, None),
    };
    Some(What::Step {
        step: step.name().to_owned(),
        // A step is data: it is never refused.
        particulars: history::shortened(&serde_json::to_string(step).unwrap_or_default()),
        took_ms,
        ended,
        error: error.map(|error| history::shortened(&error)),
        times: 1,
    })
}

/// How a step ended, for those who count.
fn outcome_of<W: World>(done: &Result<Result<(), W::Error>, Elapsed>) -> StepOutcome {
    match done {
        Ok(Ok(())) => StepOutcome::Done,
        Ok(Err(error)) if W::was_overtaken(error) => StepOutcome::Overtaken,
        Ok(Err(_)) => StepOutcome::Failed,
        Err(_) => StepOutcome::GivenUp,
    }
}

/// What ends the rounds, if this event does. That there is nobody left to send one does.
fn ended_by(event: Option<Event>) -> Option<Ended> {
    match event {
        Some(Event::Stop) | None => Some(Ended::Stopped),
        Some(Event::Reload) => Some(Ended::Reload),
        Some(Event::LookAgain) => None,
    }
}

/// What is waited for now, each since when it was first waited for.
///
/// A round in which an answer was missing tells nothing new: what was waited for before it is
/// kept, so that bad weather does not make a patience begin anew.
pub fn remember(before: &[Waiting], now: &[WaitingOn], at: i64) -> Vec<Waiting> {
    let waiting: Vec<Waiting> = now
        .iter()
        .map(|on| {
            let since = before.iter().find(|w| w.on.is_same_wait(on)).map_or(at, |w| w.since);
            Waiting { on: on.clone(), since }
        })
        .collect();
    if now.iter().any(|on| matches!(on, WaitingOn::Answer { .. })) {
        return with_forgotten(&waiting, before.iter().cloned());
    }
    waiting
}

/// What is waited for now, with what was waited for before and is not any more.
fn with_forgotten(now: &[Waiting], before: impl IntoIterator<Item = Waiting>) -> Vec<Waiting> {
    let is_forgotten = |waiting: &Waiting| !now.iter().any(|still| still.on.is_same_wait(&waiting.on));
    now.iter().cloned().chain(before.into_iter().filter(is_forgotten)).collect()
}
