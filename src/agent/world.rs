//! The real world: the machine that the agent runs on.

use tokio::time::{Duration, sleep};

use crate::execute::{StepError, execute};
use crate::model::{Observation, Plan, Step, Waiting};
use crate::observe::{Depth, Memory, observe};
use crate::reach::Reach;
use crate::telemetry::status::{self, Status};

use super::World;

/// This machine and its cluster.
pub struct Machine {
    reach: Reach,
    memory: Memory,
    written: Option<Plan>,
}

impl Machine {
    /// The machine, reached this way.
    pub fn new(reach: Reach) -> Self {
        Self { reach, memory: Memory::default(), written: None }
    }
}

impl World for Machine {
    type Error = StepError;

    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
        observe(&self.reach, &mut self.memory, depth, waiting).await
    }

    async fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        execute(&self.reach, step).await
    }

    fn was_overtaken(error: &StepError) -> bool {
        matches!(error, StepError::Overtaken)
    }

    async fn rest(&mut self, after: Duration) {
        sleep(after).await;
    }

    fn tell(&mut self, status: &Status, seen: &Observation, plan: &Plan) {
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
