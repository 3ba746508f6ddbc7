//! The real world: the machine that the agent runs on.

use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::cluster_api::watch::RequestWatch;
use crate::config::settings::ConsoleLines;
use crate::execute::{StepError, execute};
use crate::kubernetes::paths;
use crate::model::{Fact, Observation, Plan, Step, Waiting};
use crate::observe::{Depth, Memory, observe};
use crate::reach::Reach;
use crate::telemetry::console::Console;
use crate::telemetry::history::{Entry, History};
use crate::telemetry::status::{self, Status};

use super::World;

/// Machines that boot together ask together: what else comes within this time is looked at with the first.
const TOGETHER: Duration = Duration::from_millis(100);
/// The least time between two looks because of requests.
const BETWEEN: Duration = Duration::from_secs(1);

/// This machine and its cluster.
pub struct Machine {
    reach: Reach,
    memory: Memory,
    written: Option<Plan>,
    history: History,
    console: Option<Console>,
    /// While this machine looks after requests for certificates.
    requests: Option<RequestWatch>,
    /// When it was last woken by one.
    woken: Option<Instant>,
}

impl Machine {
    /// The machine, reached this way.
    pub fn new(reach: Reach) -> Self {
        let history = History::begin(&reach.root);
        let console = match reach.settings.monitoring.console {
            ConsoleLines::On => Some(Console::of(&reach.root)),
            ConsoleLines::Off => None,
        };
        let memory = Memory::default();
        Self { reach, memory, written: None, history, console, requests: None, woken: None }
    }

    /// Watches requests for certificates while this machine holds the lease in the API.
    fn attend(&mut self, seen: &Observation) {
        // While nobody says who holds it, all stays as it is.
        let Fact::Known(lease) = &seen.kubernetes.api_lease else { return };
        let holder = lease.as_ref().and_then(|lease| lease.holder.as_deref());
        if holder != Some(self.reach.identity.instance.as_str()) {
            self.requests = None;
        } else if self.requests.is_none() {
            self.requests = Some(RequestWatch::begin(self.reach.root.path(paths::ADMIN_KUBECONFIG)));
        }
    }
}

impl World for Machine {
    type Error = StepError;

    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
        let seen = observe(&self.reach, &mut self.memory, depth, waiting).await;
        self.attend(&seen);
        seen
    }

    async fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        // Before it: a step that is given up half-way may have been done.
        self.memory.before(step);
        execute(&self.reach, step).await
    }

    fn was_overtaken(error: &StepError) -> bool {
        matches!(error, StepError::Overtaken)
    }

    async fn rest(&mut self, after: Duration) {
        let Some(requests) = &self.requests else { return sleep(after).await };
        let end = Instant::now() + after;
        tokio::select! {
            () = sleep_until(end) => {}
            () = requests.heard() => {
                let (now, last) = (Instant::now(), self.woken);
                let at = last.map_or(now, |last| last + BETWEEN).max(now + TOGETHER).min(end);
                self.woken = Some(at);
                sleep_until(at).await;
            }
        }
    }

    fn note(&mut self, entry: Entry) {
        self.history.note(entry);
    }

    fn tell(&mut self, status: &Status, seen: &Observation, plan: &Plan) {
        self.memory.planned(plan);
        if let Some(console) = &mut self.console {
            console.tell(status, Instant::now());
        }
        let root = &self.reach.root;
        let mut told = status::write(&status::path(root), status);
        if self.written.as_ref() != Some(plan) {
            let record =
                super::setup::Record { settings: self.reach.settings.clone(), observation: seen.clone() };
            told = told.and(status::write(&status::observation_path(root), &record));
            self.written = Some(plan.clone());
        }
        if let Err(error) = told {
            tracing::warn!(why = crate::model::fact::chain(&error), "the status can't be written");
        }
    }
}
