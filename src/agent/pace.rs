//! How soon the agent looks again, and how closely.
//!
//! Quick while something is about to happen, slower the longer it does not, and with a random
//! spread, so that a whole group that boots at once does not ask in step.

use tokio::time::Duration;

use crate::model::{Plan, Step, Waiting, WaitingOn};
use crate::observe::Depth;

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had no steps.
    Nothing,
    /// All its steps were done.
    Done,
    /// A step failed.
    Failed,
    /// A step was not done since another machine was first.
    Overtaken,
}

/// The next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// How long to rest before it.
    pub after: Duration,
    /// How much to ask then.
    pub depth: Depth,
}

const QUICK: Duration = Duration::from_millis(150);
/// Of founders that mark themselves at once all but one fail, and are right to try again soon.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// So many times in a row a machine that was overtaken looks again at once: the world has changed.
const OVERTAKEN_AT_ONCE: u32 = 3;
const SLOWEST_RETRY: Duration = Duration::from_secs(10);
/// While others found the cluster: one small request to S3 a round.
const SLOWEST_FOUNDING: Duration = Duration::from_secs(1);

/// Remembers what decides the pace.
#[derive(Debug)]
pub struct Pace {
    tick: Duration,
    repeats: u32,
    overtaken: u32,
    last: Vec<Step>,
    /// When a wait last had a full look, in milliseconds since 1970.
    full: Option<i64>,
}

impl Pace {
    /// The pace of an agent with this slow tick.
    pub fn new(tick: Duration) -> Self {
        Self { tick, repeats: 0, overtaken: 0, last: Vec::new(), full: None }
    }

    /// When to look again, after this plan came to this.
    pub fn next(&mut self, plan: &Plan, outcome: Outcome, waiting: &[Waiting], now: i64) -> Next {
        self.overtaken = if outcome == Outcome::Overtaken { self.overtaken.saturating_add(1) } else { 0 };
        if (1..=OVERTAKEN_AT_ONCE).contains(&self.overtaken) {
            return Next { after: Duration::ZERO, depth: Depth::Full };
        }
        // What only keeps up what is changes nothing to look at, and has no end that it could get on to.
        let news: Vec<Step> = plan.steps.iter().filter(|step| !step.is_routine()).cloned().collect();
        if outcome == Outcome::Nothing || (outcome == Outcome::Done && news.is_empty()) {
            self.repeats = 0;
            self.last.clear();
            return self.at_rest(plan, waiting, now);
        }
        let same = self.last == news;
        self.last = news;
        let failed = matches!(outcome, Outcome::Failed | Outcome::Overtaken);
        self.repeats = if same || failed { self.repeats.saturating_add(1) } else { 0 };
        // What was done once is looked at at once; what is done again and again is not getting on.
        let after = match self.repeats {
            0 => Duration::ZERO,
            n => spread((FIRST_RETRY * 2_u32.saturating_pow(n.min(10) - 1)).min(SLOWEST_RETRY)),
        };
        Next { after, depth: Depth::Full }
    }

    fn at_rest(&mut self, plan: &Plan, waiting: &[Waiting], now: i64) -> Next {
        let waits: Vec<&Waiting> =
            waiting.iter().filter(|waiting| plan.report.waiting.contains(&waiting.on)).collect();
        let Some(longest) = waits.iter().map(|waiting| now.saturating_sub(waiting.since).max(0)).max() else {
            // Settled, or halted: the slow tick.
            let depth = if plan.report.halt.is_some() { Depth::Full } else { Depth::Light };
            return Next { after: spread(self.tick), depth };
        };
        let waited = Duration::from_millis(u64::try_from(longest).unwrap_or(0));
        let (part, slowest) = if waits.iter().all(|waiting| is_founding(&waiting.on)) {
            (40, SLOWEST_FOUNDING.min(self.tick))
        } else {
            (20, self.tick)
        };
        let after = spread((waited / part).clamp(QUICK.min(slowest), slowest));
        // What only EC2 can tell is asked of EC2, less often than etcd and S3 are asked.
        let full_every = (waited / 10).clamp(Duration::from_secs(1).min(self.tick), self.tick);
        let fast = waits.iter().all(|waiting| is_told_quickly(&waiting.on));
        // A clock that was set back makes it due, too.
        let due = self.full.is_none_or(|full| u128::from(now.abs_diff(full)) >= full_every.as_millis());
        if !fast || due {
            self.full = Some(now);
            return Next { after, depth: Depth::Full };
        }
        Next { after, depth: Depth::Light }
    }
}

/// Between three quarters and five quarters of it.
fn spread(of: Duration) -> Duration {
    of.mul_f64(0.75 + 0.5 * fastrand::f64())
}

fn is_founding(on: &WaitingOn) -> bool {
    matches!(on, WaitingOn::Claims { .. } | WaitingOn::Founders { .. })
}

/// Whether a light look, at etcd and the charter, or at a worker's node, would see the end of this wait.
fn is_told_quickly(on: &WaitingOn) -> bool {
    match on {
        WaitingOn::Claims { .. }
        | WaitingOn::Founders { .. }
        | WaitingOn::Quorum
        | WaitingOn::OwnEtcd
        | WaitingOn::MembershipLock { .. }
        | WaitingOn::OtherLearner { .. }
        | WaitingOn::HealthyQuorum { .. }
        | WaitingOn::InSync
        | WaitingOn::Component { .. }
        | WaitingOn::Service { .. }
        | WaitingOn::Api { .. }
        | WaitingOn::NodeCertificate { .. }
        | WaitingOn::NodeRegistered
        | WaitingOn::NodeReady { .. }
        | WaitingOn::ControlPlaneLock { .. }
        | WaitingOn::ShutDown => true,
        WaitingOn::Answer { .. }
        | WaitingOn::OwnInstance
        | WaitingOn::Clock
        | WaitingOn::VolumeCreated { .. }
        | WaitingOn::VolumeReleased { .. }
        | WaitingOn::Attachment { .. }
        | WaitingOn::Device { .. }
        | WaitingOn::FreeSlot
        | WaitingOn::Takeover { .. }
        | WaitingOn::Recovery { .. }
        | WaitingOn::EtcdRestart { .. }
        | WaitingOn::PredecessorGone { .. }
        | WaitingOn::ConfirmedGone { .. }
        | WaitingOn::Join
        | WaitingOn::JoinToken { .. }
        | WaitingOn::FittingVersion { .. }
        | WaitingOn::LoadBalancer
        | WaitingOn::QuorumWithout { .. }
        | WaitingOn::Drained { .. }
        | WaitingOn::Pods { .. }
        | WaitingOn::ComponentsEnd { .. }
        | WaitingOn::Detached { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, Report};

    fn plan(steps: Vec<Step>, waiting: Vec<WaitingOn>) -> Plan {
        let report = Report {
            phase: Phase::Preparing,
            slot: None,
            waiting,
            halt: None,
            warnings: Vec::new(),
            noticed: None,
        };
        Plan { steps, report }
    }

    #[test]
    fn what_was_done_is_looked_at_at_once_and_what_fails_ever_later() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let doing = plan(vec![Step::CreateAuthority], Vec::new());
        assert_eq!(pace.next(&doing, Outcome::Done, &[], 0).after, Duration::ZERO);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let next = pace.next(&doing, Outcome::Failed, &[], 0);
            assert!(next.after > last, "{next:?} after {last:?}");
            assert_eq!(next.depth, Depth::Full);
            last = next.after;
        }
        for _ in 0..20 {
            assert!(pace.next(&doing, Outcome::Failed, &[], 0).after <= SLOWEST_RETRY.mul_f64(1.25));
        }
    }

    #[test]
    fn who_is_overtaken_looks_again_at_once_but_not_for_ever() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let doing = plan(vec![Step::CreateAuthority], Vec::new());
        for _ in 0..OVERTAKEN_AT_ONCE {
            assert_eq!(pace.next(&doing, Outcome::Overtaken, &[], 0).after, Duration::ZERO);
        }
        assert!(pace.next(&doing, Outcome::Overtaken, &[], 0).after > Duration::ZERO);
        pace.next(&doing, Outcome::Done, &[], 0);
        assert_eq!(pace.next(&doing, Outcome::Overtaken, &[], 0).after, Duration::ZERO);
    }

    #[test]
    fn a_plan_that_changes_nothing_does_not_spin() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let doing = plan(vec![Step::StopEtcd], Vec::new());
        pace.next(&doing, Outcome::Done, &[], 0);
        assert!(pace.next(&doing, Outcome::Done, &[], 0).after > Duration::ZERO);
    }

    fn renewal(version: u64) -> Step {
        let instance = "i-0123456789abcdef0".parse().unwrap();
        Step::RenewApiLease { instance, version: version.to_string() }
    }

    #[test]
    fn what_is_renewed_again_and_again_is_a_rest_and_no_struggle() {
        let mut pace = Pace::new(Duration::from_secs(10));
        for version in 0..20 {
            let next = pace.next(&plan(vec![renewal(version)], Vec::new()), Outcome::Done, &[], 0);
            assert!(
                next.after >= Duration::from_secs(7) && next.after <= Duration::from_secs(13),
                "{next:?}"
            );
            assert_eq!(next.depth, Depth::Light);
        }
        let doing = plan(vec![renewal(20), Step::StopEtcd], Vec::new());
        assert_eq!(
            pace.next(&doing, Outcome::Done, &[], 0).after,
            Duration::ZERO,
            "what is new is looked at"
        );
    }

    #[test]
    fn a_renewal_beside_it_does_not_hide_that_a_step_changes_nothing() {
        let mut pace = Pace::new(Duration::from_secs(10));
        pace.next(&plan(vec![Step::StopEtcd], Vec::new()), Outcome::Done, &[], 0);
        let again = plan(vec![renewal(1), Step::StopEtcd], Vec::new());
        assert!(pace.next(&again, Outcome::Done, &[], 0).after > Duration::ZERO);
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_soon_and_ever_later() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let renews = plan(vec![renewal(1)], Vec::new());
        let first = pace.next(&renews, Outcome::Failed, &[], 0);
        assert!(first.after > Duration::ZERO && first.after < Duration::from_secs(1), "{first:?}");
        assert_eq!(first.depth, Depth::Full);
        assert!(pace.next(&renews, Outcome::Failed, &[], 0).after > first.after);
    }

    #[test]
    fn a_settled_agent_looks_lightly_at_the_slow_tick() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let next = pace.next(&plan(Vec::new(), Vec::new()), Outcome::Nothing, &[], 0);
        assert!(next.after >= Duration::from_secs(7), "{next:?}");
        assert_eq!(next.depth, Depth::Light);
    }

    #[test]
    fn a_wait_is_looked_at_quickly_at_first_and_never_slower_than_the_tick() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let on = WaitingOn::Quorum;
        let waiting = [Waiting { on: on.clone(), since: 0 }];
        let waits = plan(Vec::new(), vec![on]);
        assert!(pace.next(&waits, Outcome::Nothing, &waiting, 0).after < Duration::from_millis(200));
        let late = pace.next(&waits, Outcome::Nothing, &waiting, 3_600_000).after;
        assert!(late > Duration::from_secs(7) && late < Duration::from_secs(13), "{late:?}");
    }

    #[test]
    fn founders_look_at_the_charter_every_second_or_faster() {
        let mut pace = Pace::new(Duration::from_secs(10));
        let on = WaitingOn::Claims { missing: Vec::new(), majority: true };
        let waiting = [Waiting { on: on.clone(), since: 0 }];
        let next = pace.next(&plan(Vec::new(), vec![on]), Outcome::Nothing, &waiting, 250_000);
        assert!(next.after <= Duration::from_millis(1250), "{next:?}");
    }
}
