//! quorate: parse, set up the log, call the library, map errors to exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use quorate::cli::{self, Cli, CliError, End, Verb};
use quorate::exit::Exit;
use quorate::model::fact::chain;
use quorate::telemetry::checks::State;
use quorate::telemetry::journal;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let level = match journal::install() {
        Ok(level) => level,
        Err(error) => return fail(&chain(&error), Exit::Failed),
    };
    let mut output = std::io::stdout().lock();
    let is_check = matches!(cli.verb, Verb::Check(_));
    let ended = cli::run(cli, &level, &mut output)
        .and_then(|end| output.flush().map(|()| end).map_err(CliError::Output));
    match ended {
        Ok(end) => end.into(),
        Err(error) if is_check => {
            fail(&chain(&error), Exit::Failed);
            End::Plugin(State::Unknown).into()
        }
        Err(error) => match Exit::of(&error) {
            Exit::Success => Exit::Success.into(),
            exit => fail(&chain(&error), exit),
        },
    }
}

/// Says what is wrong with the command line, or helps. A monitor takes 2 for critical, so its plugin ends with 3.
fn refuse(error: &clap::Error) -> ExitCode {
    let is_check = std::env::args_os().any(|arg| arg == "check") && error.use_stderr();
    match error.print() {
        // As below.
        Ok(()) | Err(_) if is_check => State::Unknown.code().into(),
        Ok(()) | Err(_) => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn fail(why: &str, exit: Exit) -> ExitCode {
    match writeln!(std::io::stderr(), "quorate: {why}") {
        // Standard error is the last resort; if it is gone there is nobody to tell.
        Ok(()) | Err(_) => exit.into(),
    }
}
