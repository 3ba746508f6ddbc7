//! Bad weather, made to measure, and the record of every call.

use serde::{Deserialize, Serialize};

use super::access::Caller;
use super::{LOG_LENGTH, World};

/// The services that can be faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// EC2.
    Ec2,
    /// Auto Scaling.
    Autoscaling,
    /// Elastic Load Balancing, of both versions.
    #[serde(rename = "elasticloadbalancing")]
    LoadBalancing,
    /// S3.
    S3,
    /// CloudWatch.
    CloudWatch,
    /// The metadata services.
    Imds,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// Refused for having asked too often: EC2 `RequestLimitExceeded` (503), S3 `SlowDown` (503),
    /// Auto Scaling and Elastic Load Balancing `Throttling` (400), metadata service 429.
    Throttle,
    /// An internal error (500), without effect.
    ServerError,
    /// The effect happens, then the connection is closed without an answer.
    LostAnswer,
    /// The effect happens, then the connection is closed amid the answer's body.
    BrokenAnswer,
    /// The connection is closed before any effect.
    LostRequest,
    /// Describe calls are answered with what was true some time ago, up to this. Never S3.
    StaleRead {
        /// The greatest age, in milliseconds.
        max_age_ms: u64,
    },
    /// The effect is immediate, the answer comes later.
    SlowAnswer {
        /// By how much, in milliseconds.
        ms: u64,
    },
    /// The request waits on its way, so that its effect comes late.
    SlowRequest {
        /// By how much, in milliseconds.
        ms: u64,
    },
    /// Not permitted.
    AccessDenied,
    /// S3 only, PutObject and CompleteMultipartUpload with a condition only: `ConditionalRequestConflict` (409), without
    /// effect.
    Conflict,
}

/// A fault to inject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultSpec {
    /// Where.
    pub service: Service,
    /// Only in this operation, such as `DescribeInstances`; for the metadata service a path after
    /// `/latest/`, such as `api/token`.
    #[serde(default)]
    pub operation: Option<String>,
    /// Only for this instance's calls.
    #[serde(default)]
    pub instance: Option<String>,
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// In what share of the calls, 0 to 1.
    #[serde(default = "always")]
    pub rate: f64,
    /// Only in the first so many calls that it hits; without it, until cleared.
    #[serde(default)]
    pub count: Option<u64>,
    /// Seeds this fault's own chance; drawn from the region's when not given.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn always() -> f64 {
    1.0
}

/// An injected fault.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What was asked for.
    #[serde(flatten)]
    pub spec: FaultSpec,
    /// How many calls it hit.
    pub hits: u64,
    #[serde(skip)]
    rng: fastrand::Rng,
}

/// What becomes of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Milliseconds before the effect.
    pub delay_before_ms: u64,
    /// Milliseconds after the effect.
    pub delay_after_ms: u64,
    /// The age of what describe calls see, in milliseconds.
    pub age_ms: u64,
    /// Everything else that goes wrong; the first in this order happens: a lost request, a
    /// throttle, a server error, a denial, a conflict, a lost answer, a broken one.
    pub outcome: Outcome,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Closed before the effect.
    LostRequest,
    /// Throttled.
    Throttled,
    /// Internal error.
    ServerError,
    /// Denied.
    Denied,
    /// S3's 409.
    Conflict,
    /// Closed after the effect.
    LostAnswer,
    /// Closed amid the answer.
    BrokenAnswer,
    /// Answered, be it with a refusal.
    #[default]
    Answered,
}

/// A call that reached the region.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Rises by one with each call, from 1.
    pub sequence: u64,
    /// The region's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The service.
    pub service: Service,
    /// The operation.
    pub operation: String,
    /// The calling instance; nobody means the operator.
    pub instance: Option<String>,
    /// What it was about: a key, ids, a group.
    pub resource: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The age of what it saw, in milliseconds.
    pub age_ms: u64,
}

impl World {
    /// Injects a fault; the number clears it again.
    pub fn add_fault(&mut self, spec: FaultSpec) -> u64 {
        let seed = spec.seed.unwrap_or_else(|| self.rng.u64(..));
        let id = self.next_fault;
        self.next_fault += 1;
        self.faults.insert(id, Fault { spec, hits: 0, rng: fastrand::Rng::with_seed(seed) });
        id
    }

    /// Clears one fault; whether there was one.
    pub fn clear_fault(&mut self, id: u64) -> bool {
        self.faults.remove(&id).is_some()
    }

    /// Clears all faults (not those of single metadata services).
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// The faults, by number.
    pub fn faults(&self) -> impl Iterator<Item = (u64, &Fault)> {
        self.faults.iter().map(|(id, fault)| (*id, fault))
    }

    /// Decides what becomes of a call and records it.
    pub fn decide(
        &mut self,
        service: Service,
        operation: &str,
        resource: &str,
        caller: Option<&Caller>,
    ) -> Decision {
        let instance = caller.and_then(Caller::instance).map(ToString::to_string);
        let decision = self.draw(service, operation, instance.as_deref());
        self.calls.push_back(Call {
            sequence: self.next_call,
            at_ms: self.now,
            service,
            operation: operation.to_owned(),
            instance,
            resource: resource.to_owned(),
            outcome: decision.outcome,
            age_ms: decision.age_ms,
        });
        self.next_call += 1;
        if self.calls.len() > LOG_LENGTH {
            self.calls.pop_front();
        }
        decision
    }

    fn draw(&mut self, service: Service, operation: &str, instance: Option<&str>) -> Decision {
        let mut decision = Decision::default();
        for fault in self.faults.values_mut() {
            let spec = &fault.spec;
            let fits = spec.service == service
                && spec.operation.as_deref().is_none_or(|o| o == operation)
                && (spec.instance.is_none() || spec.instance.as_deref() == instance)
                && spec.count.is_none_or(|count| fault.hits < count);
            if !fits || fault.rng.f64() >= spec.rate {
                continue;
            }
            fault.hits += 1;
            let outcome = match spec.kind {
                FaultKind::StaleRead { max_age_ms } => {
                    decision.age_ms = decision.age_ms.max(fault.rng.u64(0..=max_age_ms));
                    continue;
                }
                FaultKind::SlowAnswer { ms } => {
                    decision.delay_after_ms += ms;
                    continue;
                }
                FaultKind::SlowRequest { ms } => {
                    decision.delay_before_ms += ms;
                    continue;
                }
                FaultKind::Throttle => Outcome::Throttled,
                FaultKind::ServerError => Outcome::ServerError,
                FaultKind::LostAnswer => Outcome::LostAnswer,
                FaultKind::LostRequest => Outcome::LostRequest,
                FaultKind::BrokenAnswer => Outcome::BrokenAnswer,
                FaultKind::AccessDenied => Outcome::Denied,
                FaultKind::Conflict => Outcome::Conflict,
            };
            decision.outcome = decision.outcome.min(outcome);
        }
        decision
    }

    /// The calls after `sequence`, oldest first.
    pub fn calls_after(&self, sequence: u64) -> Vec<Call> {
        self.calls.iter().filter(|c| c.sequence > sequence).cloned().collect()
    }
}
