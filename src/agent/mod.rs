//! The agent: observe, plan, execute, once at every event and at a slow tick.
//!
//! [`setup`] learns who this machine is and what the operator wants; then [`Agent::run`] goes
//! round. Waiting for events only names the event; what follows from it happens in the round.
//! Stopping the agent stops neither etcd nor Kubernetes: a step that has begun is finished, and
//! nothing more is done.

mod failpoint;
mod pace;
pub mod setup;
mod world;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Duration, Instant, sleep};

use crate::config::Settings;
use crate::model::fact::chain;
use crate::model::{Observation, Phase, Plan, Step, Waiting, WaitingOn};
use crate::observe::Depth;
use crate::plan::plan;
use crate::telemetry::notify;
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
}

/// How long a look or a step may take before it is given up. Each has bounds of its own, which
/// are shorter; this one is for what none of them covers.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
const STEP_LIMIT: Duration = Duration::from_secs(600);

/// The loop's state from round to round.
#[derive(Debug)]
pub struct Agent<W> {
    settings: Settings,
    world: W,
    waiting: Vec<Waiting>,
    pace: Pace,
    told: Option<(Phase, String)>,
}

impl<W: World> Agent<W> {
    /// An agent that has not looked yet.
    pub fn new(settings: Settings, world: W) -> Self {
        let pace = Pace::new(settings.tick.as_duration());
        Self { settings, world, waiting: Vec::new(), pace, told: None }
    }

    /// Goes round until an event ends it.
    pub async fn run(&mut self, events: &mut Receiver<Event>) -> Ended {
        notify::ready();
        let mut depth = Depth::Full;
        loop {
            let Some((seen, plan)) = self.look(depth).await else {
                depth = Depth::Full;
                if let Some(ended) = self.rest(Duration::from_secs(1), events).await {
                    return ended;
                }
                continue;
            };
            let outcome = if plan.steps.is_empty() {
                pace::Outcome::Nothing
            } else if depth == Depth::Light {
                // What is done is decided from a full look.
                depth = Depth::Full;
                continue;
            } else {
                match self.act(&plan, events).await {
                    Ok(outcome) => outcome,
                    Err(ended) => return ended,
                }
            };
            let next = self.pace.next(&plan, outcome, &self.waiting, seen.at);
            depth = next.depth;
            if let Some(ended) = self.rest(next.after, events).await {
                return ended;
            }
        }
    }

    /// One look and the plan made from it.
    async fn look(&mut self, depth: Depth) -> Option<(Observation, Plan)> {
        let look = alive(self.world.observe(depth, self.waiting.clone()));
        let Ok(seen) = tokio::time::timeout(LOOK_LIMIT, look).await else {
            tracing::error!(limit_s = LOOK_LIMIT.as_secs(), "a look at the world did not end; looking again");
            return None;
        };
        let plan = plan(&self.settings, &seen);
        self.waiting = remember(&self.waiting, &plan.report.waiting, seen.at);
        let waiting = self.waiting.iter().filter(|w| plan.report.waiting.contains(&w.on)).cloned().collect();
        let status = Status::new(&self.settings, &seen, &plan, waiting);
        self.narrate(&plan, &status);
        self.world.tell(&status, &seen, &plan);
        Some((seen, plan))
    }

    /// Says what changed, once.
    fn narrate(&mut self, plan: &Plan, status: &Status) {
        let now = (plan.report.phase, status.words.join("; "));
        if self.told.as_ref() == Some(&now) {
            return;
        }
        notify::status(&status.line());
        let (phase, words) = &now;
        match &plan.report.halt {
            Some(halt) => tracing::error!(%phase, reason = %halt, "halted"),
            None => tracing::info!(%phase, waiting = %words, "phase"),
        }
        self.told = Some(now);
    }

    /// Carries the plan out, step by step; a step that fails ends it.
    async fn act(&mut self, plan: &Plan, events: &mut Receiver<Event>) -> Result<pace::Outcome, Ended> {
        for step in &plan.steps {
            if let Ok(event) = events.try_recv() {
                return Err(ended_by(event));
            }
            let name = step.name();
            failpoint::before(name);
            let began = Instant::now();
            let done = tokio::time::timeout(STEP_LIMIT, alive(self.world.execute(step))).await;
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            match done {
                Ok(Ok(())) => {
                    failpoint::after(name);
                    tracing::info!(step = name, took_ms, "step done");
                }
                Ok(Err(error)) => {
                    tracing::warn!(step = name, took_ms, why = chain(&error), "step failed");
                    return Ok(pace::Outcome::Failed);
                }
                Err(_) => {
                    tracing::error!(step = name, took_ms, "step did not end; looking again");
                    return Ok(pace::Outcome::Failed);
                }
            }
        }
        Ok(pace::Outcome::Done)
    }

    /// Waits for the next round, or for an event that ends the rounds.
    async fn rest(&mut self, after: Duration, events: &mut Receiver<Event>) -> Option<Ended> {
        tokio::select! {
            () = alive(sleep(after)) => None,
            event = events.recv() => Some(event.map_or(Ended::Stopped, ended_by)),
        }
    }
}

fn ended_by(event: Event) -> Ended {
    match event {
        Event::Stop => Ended::Stopped,
        Event::Reload => Ended::Reload,
    }
}

/// Waits for something, and tells the service manager meanwhile that the agent is alive.
async fn alive<T>(what: impl Future<Output = T>) -> T {
    let Some(every) = notify::alive_every() else { return what.await };
    let mut what = std::pin::pin!(what);
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            result = &mut what => return result,
            _ = ticks.tick() => notify::alive(),
        }
    }
}

/// What is waited for now, each since when it was first waited for.
///
/// A round in which an answer was missing tells nothing new: what was waited for before it is
/// kept, so that bad weather does not make a patience begin anew.
pub fn remember(before: &[Waiting], now: &[WaitingOn], at: i64) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> = now
        .iter()
        .map(|on| {
            let since = before.iter().find(|w| w.on.is_same_wait(on)).map_or(at, |w| w.since);
            Waiting { on: on.clone(), since }
        })
        .collect();
    if now.iter().any(|on| matches!(on, WaitingOn::Answer { .. })) {
        let kept = before.iter().filter(|w| !now.iter().any(|on| on.is_same_wait(&w.on))).cloned();
        waiting.extend(kept.collect::<Vec<_>>());
    }
    waiting
}
