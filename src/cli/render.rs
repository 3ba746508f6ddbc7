//! `quorate render`: what a node would get, from a recorded observation, offline.
//!
//! It starts from the same inputs as the planner ([`control_plane_inputs`], [`worker_inputs`]) and renders by the same
//! functions, so what it writes is what the agent would write. Certificates, keys and what holds
//! them are made on the node from the authorities, and are only named.

use std::path::{Path, PathBuf};

use crate::agent::setup::Record;
use crate::config::settings::ControlPlaneKind;
use crate::host::files::{FileError, create_dir, list_optional, write_durably};
use crate::kubernetes::{self, RenderError, RenderedFile, paths};
use crate::model::{Report, Role, Warning};
use crate::pki::files::FILES;
use crate::plan::{control_plane_inputs, worker_inputs};

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The machine has no control plane.
    #[error("nothing is rendered for the machine that was observed: `kubernetes.controlPlane` is `none`")]
    NoControlPlane,
    /// The observation does not hold what the files are made from.
    #[error("nothing can be rendered from this observation: {}", missing(report))]
    Missing {
        /// What is missing.
        report: Box<Report>,
    },
    /// The files can't be rendered.
    #[error("rendering the files")]
    Render(#[source] RenderError),
    /// The directory has something in it.
    #[error("{} is not empty: give a directory that is, or that is not there yet", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A file was not written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a report lacks, in words.
pub(super) fn missing(report: &Report) -> String {
    let waits = report.waiting.iter().map(|on| format!("the machine waits for {on}"));
    let halts = report.halt.iter().map(|halt| format!("the machine halts: {halt}"));
    halts.chain(waits).collect::<Vec<_>>().join("; ")
}

/// The files that are rendered, without those that hold what is secret or made on the node.
pub fn files(record: &Record) -> Result<Vec<RenderedFile>, VerbError> {
    Ok(match record.settings.role {
        Role::ControlPlane => control_plane(record)?.files,
        Role::Worker => worker(record)?.files,
    })
}

/// Renders into the directory `out`, which is made where it is missing, and tells what it wrote and
/// what it left out.
pub fn run(record: &Record, out: &Path) -> Result<String, VerbError> {
    let Rendered { files, elsewhere, warnings } = match record.settings.role {
        Role::ControlPlane => control_plane(record)?,
        Role::Worker => worker(record)?,
    };

    if list_optional(out)?.is_some_and(|names| !names.is_empty()) {
        return Err(VerbError::NotEmpty { path: out.to_owned() });
    }
    create_dir(out, 0o755)?;
    let mut told = String::new();
    for file in &files {
        let path = out.join(file.path.trim_start_matches('/'));
        if let Some(dir) = path.parent() {
            create_dir(dir, 0o755)?;
        }
        write_durably(&path, file.content.as_bytes(), file.mode)?;
        told.push_str(&format!("written    {}\n", file.path));
    }
    for (kind, path) in elsewhere {
        told.push_str(&format!("{kind:<10} {}\n", path.display()));
    }
    for warning in warnings {
        told.push_str(&format!("warning    {warning}\n"));
    }
    Ok(told)
}

/// What is rendered, and what comes to the node in another way.
struct Rendered {
    files: Vec<RenderedFile>,
    elsewhere: Vec<(&'static str, PathBuf)>,
    warnings: Vec<Warning>,
}

fn control_plane(record: &Record) -> Result<Rendered, VerbError> {
    match record.settings.kubernetes.control_plane {
        ControlPlaneKind::StaticPods => {}
        ControlPlaneKind::None => return Err(VerbError::NoControlPlane),
    }
    let (inputs, warnings) = control_plane_inputs(&record.settings, &record.observation)
        .map_err(|report| VerbError::Missing { report })?;
    let rendered = kubernetes::control_plane(&inputs).map_err(VerbError::Render)?;
    let mut files: Vec<RenderedFile> = rendered.files;
    files.extend(rendered.manifests.into_values());
    files.sort();
    let kind = |mode| if mode == paths::SECRET { "secret" } else { "on the node" };
    let elsewhere =
        FILES.map(|file| (kind(file.mode), file.path(Path::new(paths::KUBERNETES)))).into_iter().collect();
    Ok(Rendered { files, elsewhere, warnings })
}

fn worker(record: &Record) -> Result<Rendered, VerbError> {
    let (inputs, warnings) = worker_inputs(&record.settings, &record.observation)
        .map_err(|report| VerbError::Missing { report })?;
    let files = kubernetes::worker(&inputs).map_err(VerbError::Render)?;
    let elsewhere = [
        ("secret", paths::BOOTSTRAP_KUBECONFIG),
        ("secret", paths::KUBELET_ROTATING_CERTIFICATE),
        ("on the node", paths::KUBELET_KUBECONFIG),
        ("on the node", paths::TOLD),
    ];
    let elsewhere = elsewhere.map(|(kind, path)| (kind, PathBuf::from(path))).into_iter().collect();
    Ok(Rendered { files, elsewhere, warnings })
}
