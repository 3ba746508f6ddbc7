//! A plan in the making.

use crate::model::plan::Subject;
use crate::model::{Fact, Halt, Mismatch, Phase, Plan, Report, Slot, Step, WaitingOn, Warning};

/// Either what the next decision needs, or a finished plan. A finished plan is boxed: it is the
/// larger of the two by far.
pub(super) type Next<T> = Result<T, Box<Plan>>;

/// What has been decided so far.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub phase: Phase,
    pub slot: Option<Slot>,
    pub steps: Vec<Step>,
    pub warnings: Vec<Warning>,
    pub noticed: Option<Vec<Mismatch>>,
}

impl Course {
    pub fn new(phase: Phase) -> Self {
        Self { phase, slot: None, steps: Vec::new(), warnings: Vec::new(), noticed: None }
    }

    /// The same course, on the way to bring the cluster back.
    pub fn in_recovery(&self) -> Self {
        Self { phase: Phase::Recovering, ..self.clone() }
    }

    /// The answer, or a plan that waits for it.
    pub fn need<'a, T>(&self, fact: &'a Fact<T>, about: Subject) -> Next<&'a T> {
        match fact {
            Fact::Known(value) => Ok(value),
            Fact::Unknown(why) => Err(self.wait(WaitingOn::Answer { about, why: why.clone() })),
        }
    }

    /// The plan: do what was decided so far, then wait for this.
    pub fn wait(&self, on: WaitingOn) -> Box<Plan> {
        self.finish(vec![on], None)
    }

    /// The plan: do these steps after what was decided so far.
    pub fn act(&self, steps: impl IntoIterator<Item = Step>) -> Box<Plan> {
        let mut course = self.clone();
        course.steps.extend(steps);
        course.finish(Vec::new(), None)
    }

    /// The plan: do these steps, and wait for this.
    pub fn act_and_wait(&self, steps: impl IntoIterator<Item = Step>, on: WaitingOn) -> Box<Plan> {
        let mut course = self.clone();
        course.steps.extend(steps);
        course.finish(vec![on], None)
    }

    /// The plan: nothing but a human helps. Steps decided before are dropped: they were for a
    /// course that is not followed.
    pub fn halt(&self, because: Halt) -> Box<Plan> {
        let mut course = self.clone();
        course.phase = Phase::Halted;
        course.steps.clear();
        course.finish(Vec::new(), Some(because))
    }

    /// The plan: what was decided so far, and nothing to wait for.
    pub fn done(self) -> Plan {
        *self.finish(Vec::new(), None)
    }

    pub fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn finish(&self, waiting: Vec<WaitingOn>, halt: Option<Halt>) -> Box<Plan> {
        Box::new(Plan {
            steps: self.steps.clone(),
            report: Report {
                phase: self.phase,
                slot: self.slot,
                waiting,
                halt,
                warnings: self.warnings.clone(),
                noticed: self.noticed.clone(),
            },
        })
    }
}
