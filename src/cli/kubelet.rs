//! `quorate kubelet`: the configuration of a machine's kubelet, each value with where it comes from.
//!
//! It starts from the same inputs as the planner ([`node_inputs`]) and merges by the same function, so what it shows
//! is what the agent writes. It needs neither etcd nor the API.

use crate::config::Settings;
use crate::host::Root;
use crate::host::files::{FileError, read_optional};
use crate::kubernetes::{RenderError, kubelet, paths};
use crate::model::kubernetes::KubernetesObservation;
use crate::model::{Fact, Identity, Report};
use crate::plan::node_inputs;

use super::render::missing;

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// What the configuration is made from is not known.
    #[error("the kubelet's configuration can't be told: {}", missing(report))]
    Missing {
        /// What is missing.
        report: Box<Report>,
    },
    /// It can't be made.
    #[error("making the kubelet's configuration")]
    Render(#[source] RenderError),
    /// The file of this machine's kubelet can't be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Each value on a line with its origin, for a machine of which this is known. `here`: it is this machine, and whether
/// its kubelet's file says the same is said first.
pub fn run(
    settings: &Settings,
    identity: &Fact<Identity>,
    seen: &KubernetesObservation,
    here: Option<&Root>,
) -> Result<String, VerbError> {
    let inputs = node_inputs(settings, identity, seen).map_err(|report| VerbError::Missing { report })?;
    let table = kubelet::effective(&inputs).map_err(VerbError::Render)?.table();
    let Some(root) = here else { return Ok(table) };
    let wanted = kubelet::configuration(&inputs).map_err(VerbError::Render)?;
    let path = paths::KUBELET_CONFIG;
    let state = match read_optional(&root.path(path))? {
        Some(found) if found == wanted.as_bytes() => "says this",
        Some(_) => "says something else; `quorate status` tells why the agent has not changed it yet",
        None => "is not there yet",
    };
    Ok(format!("# {path} {state}\n{table}"))
}
