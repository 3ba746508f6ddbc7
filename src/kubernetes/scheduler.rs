//! The scheduler's configuration.
//!
//! Given a file, the scheduler ignores its deprecated flags, `--kubeconfig` and `--profiling` among them, and honours
//! those of leader election. So the file names the kubeconfig and turns profiling off, and leader election stands in
//! both, saying the same: in the file for people, in the flags so that no file can undo it.

use serde_json::{Value, json};

use super::inputs::ControlPlaneInputs;
use super::{RenderError, paths, yaml};

/// Quorate's configuration or the operator's, with what is quorate's own set in either.
pub(super) fn configuration(inputs: &ControlPlaneInputs) -> Result<String, RenderError> {
    let mut document = match &inputs.node.settings.scheduler.config {
        Some(text) => serde_saphyr::from_str(text.as_str())
            .map_err(|error| RenderError::SchedulerDocument(Box::new(error)))?,
        None => spreading(),
    };
    let election = inputs.node.settings.leader_election;
    document["leaderElection"] = json!({
        "leaderElect": true,
        "leaseDuration": election.lease_duration.to_string(),
        "renewDeadline": election.renew_deadline.to_string(),
        "resourceLock": "leases",
        "retryPeriod": election.retry_period.to_string(),
    });
    if document["clientConnection"].is_null() {
        document["clientConnection"] = json!({});
    }
    document["clientConnection"]["kubeconfig"] = json!(paths::SCHEDULER_KUBECONFIG);
    if document["enableProfiling"].is_null() {
        document["enableProfiling"] = json!(false);
    }
    yaml("the scheduler's configuration", &document)
}

/// Pods that say nothing of their own are spread over zones and, less strictly, nodes: a preference and no condition,
/// so that a cluster that has lost a zone still runs them. The scheduler's own defaults allow a skew of 5 between
/// zones, which is too much for the three replicas that most services have.
fn spreading() -> Value {
    let constraint = |key: &str, skew: u32| json!({ "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway" });
    json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{
            "schedulerName": "default-scheduler",
            "pluginConfig": [{
                "name": "PodTopologySpread",
                "args": {
                    "defaultConstraints": [
                        constraint("topology.kubernetes.io/zone", 1),
                        constraint("kubernetes.io/hostname", 2),
                    ],
                    "defaultingType": "List",
                },
            }],
        }],
    })
}
