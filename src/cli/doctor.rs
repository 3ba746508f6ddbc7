//! `quorate doctor`: whether all that a cluster needs is there, before it is needed, and an archive for a bug report.
//!
//! It changes nothing. It ends with 0 when no check failed; warnings and what is unknown do not count.

use std::io::Write;
use std::path::PathBuf;

use crate::aws::Access;
use crate::doctor::judge::{Scope, judge};
use crate::doctor::probe::probe;
use crate::doctor::seen::Seen;
use crate::doctor::{Diagnosis, Outcome};
use crate::exit::Exit;
use crate::host::Root;
use crate::model::Waiting;
use crate::telemetry::status::{self, StatusError};

use super::{CliError, bundle, print, print_json};

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// Only this: the bucket's settings, and what this machine's role may do in it.
    #[arg(value_enum)]
    pub about: Option<About>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Write an archive for a bug report, without secrets: the findings, the status, the last observation, the
    /// decisions, the files rendered from them, and the end of the agent's journal.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// What can be looked at alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum About {
    /// The bucket.
    Bucket,
}

/// Looks, says what it finds, and writes the archive.
pub async fn run(root: &Root, wanted: &Wanted, output: &mut dyn Write) -> Result<Exit, CliError> {
    let access = Access::from_environment().await.map_err(CliError::Access)?;
    let (_, diagnosis) = examine(root, &access, wanted).await;
    if wanted.json {
        print_json(output, &diagnosis)?;
    } else {
        print(output, &diagnosis.page())?;
    }
    if let Some(file) = &wanted.bundle {
        let made = bundle::make(root, &diagnosis).await;
        bundle::write(file, &made)?;
        if !wanted.json {
            print(output, &made.told(file))?;
        }
    }
    Ok(exit(&diagnosis))
}

/// Asks, and judges.
pub async fn examine(root: &Root, access: &Access, wanted: &Wanted) -> (Seen, Diagnosis) {
    let scope = match wanted.about {
        None => Scope::All,
        Some(About::Bucket) => Scope::Bucket,
    };
    let seen = probe(root, access, scope, waiting(root)).await;
    let diagnosis = judge(&seen, scope);
    (seen, diagnosis)
}

/// What the agent has waited for decides in a plan, too.
fn waiting(root: &Root) -> Vec<Waiting> {
    match status::read(root) {
        Ok(status) => status.waiting,
        // That the agent has not run yet is what the doctor is for; a damaged status is the bundle's to show.
        Err(
            StatusError::None { .. }
            | StatusError::File(_)
            | StatusError::Damaged { .. }
            | StatusError::Json(_),
        ) => Vec::new(),
    }
}

fn exit(diagnosis: &Diagnosis) -> Exit {
    match diagnosis.worst() {
        Outcome::Failed => Exit::Unfit,
        Outcome::Ok | Outcome::Warning | Outcome::Unknown => Exit::Success,
    }
}
