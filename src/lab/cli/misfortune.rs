//! What is done to a laboratory: to its machines, groups and zones, and to its calls.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CliError, Verb};
use crate::lab::LabError;
use crate::lab::region::{MaintenanceSpec, RefreshSpec};
use crate::lab::supervisor::{self, Request, Snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct FaultVerb {
    /// ec2, autoscaling, elasticloadbalancing, s3 or imds; or `clear`, to end all faults
    service: String,
    /// throttle, server-error, lost-answer, lost-request, stale-read, slow-answer, slow-request,
    /// access-denied or conflict
    #[arg(required_if_eq_any([
        ("service", "ec2"), ("service", "autoscaling"), ("service", "elasticloadbalancing"), ("service", "s3"),
        ("service", "imds"),
    ]))]
    kind: Option<String>,
    /// In what share of the calls, 0 to 1
    #[arg(default_value_t = 1.0)]
    rate: f64,
    /// Only in this operation, such as DescribeInstances
    #[arg(long)]
    operation: Option<String>,
    /// Only for this node
    #[arg(long)]
    node: Option<String>,
    /// The greatest age of a stale read, or the time of a slow one
    #[arg(long, default_value_t = 2000)]
    ms: u64,
    /// Only so often
    #[arg(long)]
    count: Option<u64>,
}

/// What the region is asked to do to a machine, a group or a zone.
pub(super) fn misfortune(verb: Verb) -> Result<Option<Request>, LabError> {
    Ok(Some(match verb {
        Verb::Kill { node } => Request::Kill { node },
        Verb::Replace { node } => Request::Replace { node },
        Verb::ScaleIn { node, decrement } => Request::ScaleIn { node, decrement },
        Verb::Interrupt { node, action, seconds } => {
            Request::Interrupt { node, action: named("action", &action)?, in_ms: seconds * 1000 }
        }
        Verb::Rebalance { node } => Request::Rebalance { node },
        Verb::Maintain { node, code, seconds, window } => {
            let code = named("code", &code)?;
            let (in_ms, for_ms) = (seconds * 1000, window * 1000);
            let event = MaintenanceSpec { code, in_ms, for_ms, ..MaintenanceSpec::default() };
            Request::Maintain { node, event }
        }
        Verb::Refresh { workers, launch_first, warmup } => {
            let mut spec = RefreshSpec { instance_warmup_ms: warmup * 1000, ..RefreshSpec::default() };
            if launch_first {
                (spec.min_healthy_percentage, spec.max_healthy_percentage) = (100, 200);
            }
            Request::Refresh { workers, spec }
        }
        Verb::StopZone { zone } => Request::StopZone { zone },
        Verb::StartZone { zone } => Request::StartZone { zone },
        _ => return Ok(None),
    }))
}

/// A word of the command line that is one of a few.
fn named<T: DeserializeOwned>(what: &str, word: &str) -> Result<T, LabError> {
    serde_json::from_value(json!(word)).map_err(|error| LabError::Settings(format!("{what}: {error}")))
}

pub(super) async fn fault_request(fault: FaultVerb, dir: &Path) -> Result<Request, CliError> {
    if fault.service == "clear" {
        return Ok(Request::ClearFaults);
    }
    let instance = match fault.node {
        Some(node) => {
            let answer = supervisor::ask(dir, &Request::Status).await?;
            let snapshot: Snapshot = serde_json::from_value(answer)?;
            let row =
                snapshot.nodes.into_iter().find(|r| [&r.name, &r.instance, &r.address].contains(&&node));
            Some(row.ok_or(LabError::NoNode(node))?.instance)
        }
        None => None,
    };
    let kind = fault.kind.unwrap_or_default();
    let mut spec = json!({
        "service": fault.service,
        "kind": kind,
        "rate": fault.rate,
        "operation": fault.operation,
        "instance": instance,
        "count": fault.count,
    });
    match kind.as_str() {
        "stale-read" => spec["maxAgeMs"] = json!(fault.ms),
        "slow-answer" | "slow-request" => spec["ms"] = json!(fault.ms),
        _ => {}
    }
    let spec = serde_json::from_value(spec).map_err(|error| LabError::Settings(error.to_string()))?;
    Ok(Request::Fault(spec))
}
