//! quorate: parse, set up the log, call the library, map errors to exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use quorate::cli::{self, Cli, CliError};
use quorate::model::fact::chain;
use quorate::telemetry::journal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match journal::install() {
        Ok(level) => level,
        Err(error) => return fail(&chain(&error), FAILED),
    };
    let mut output = std::io::stdout().lock();
    match cli::run(cli, &level, &mut output).and_then(|()| output.flush().map_err(CliError::Output)) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads no further has seen enough.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&chain(&error), exit_code(&error)),
    }
}

/// Something failed that is none of the others. (2 is clap's, for a command line that is wrong.)
const FAILED: u8 = 1;
/// The configuration is wrong.
const CONFIGURATION: u8 = 3;
/// What was asked for is not there: no status, no recorded observation.
const NOT_THERE: u8 = 4;
/// This machine or AWS gave no answer; try again.
const NO_ANSWER: u8 = 5;

/// The one table of exit codes; `docs/exit-codes.md` tells the same.
fn exit_code(error: &CliError) -> u8 {
    match error {
        CliError::Config(_) | CliError::Setup(quorate::agent::setup::SetupError::Config(_)) => CONFIGURATION,
        CliError::Status(quorate::telemetry::status::StatusError::None { .. })
        | CliError::NoRecord { .. } => NOT_THERE,
        CliError::Setup(_) | CliError::Metadata(_) => NO_ANSWER,
        CliError::Start(_)
        | CliError::Access(_)
        | CliError::Status(_)
        | CliError::File(_)
        | CliError::Record { .. }
        | CliError::Json(_)
        | CliError::Output(_) => FAILED,
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    // Standard error is the last resort; if it is gone there is nobody to tell.
    if writeln!(std::io::stderr(), "quorate: {why}").is_err() {
        return ExitCode::from(code);
    }
    ExitCode::from(code)
}
