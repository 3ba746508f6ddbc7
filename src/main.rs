//! quorate: parse, set up the log, call the library, map errors to exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use quorate::cli::{self, Cli, CliError};
use quorate::exit::Exit;
use quorate::model::fact::chain;
use quorate::telemetry::journal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match journal::install() {
        Ok(level) => level,
        Err(error) => return fail(&chain(&error), Exit::Failed),
    };
    let mut output = std::io::stdout().lock();
    let ended = cli::run(cli, &level, &mut output)
        .and_then(|exit| output.flush().map(|()| exit).map_err(CliError::Output));
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => match Exit::of(&error) {
            Exit::Success => Exit::Success.into(),
            exit => fail(&chain(&error), exit),
        },
    }
}

fn fail(why: &str, exit: Exit) -> ExitCode {
    match writeln!(std::io::stderr(), "quorate: {why}") {
        // Standard error is the last resort; if it is gone there is nobody to tell.
        Ok(()) | Err(_) => exit.into(),
    }
}
