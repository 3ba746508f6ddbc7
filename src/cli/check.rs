//! `quorate check`: for monitors that run plugins. What it says is made by [`crate::telemetry::checks`].

use std::io::Write;

use crate::host::{Root, clock};
use crate::telemetry::checks::{Check, Range, State, Thresholds, judge};
use crate::telemetry::status;

use super::{CliError, print};

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// What to check.
    #[arg(value_enum)]
    pub check: Check,
    /// Warn outside of this range of the check's figure, as `3600`, `30:` or `@1:2`.
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    pub warning: Option<Range>,
    /// It is critical outside of this range.
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    pub critical: Option<Range>,
    /// How old the agent's last word may be, in seconds. An older one is no answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub max_age: u32,
}

/// Checks, and says so in one line.
pub fn run(root: &Root, wanted: &Wanted, output: &mut dyn Write) -> Result<State, CliError> {
    let Wanted { check, warning, critical, max_age } = wanted.clone();
    let thresholds = Thresholds { warning, critical, max_age };
    let status = status::read(root);
    let verdict = judge(check, &thresholds, status.as_ref(), clock::now_ms());
    print(output, &format!("{verdict}\n"))?;
    Ok(verdict.state)
}
