//! quorate-lab: parse, set up the log, call the library, map errors to exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use quorate::lab::cli::{self, Cli};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let level = std::env::var("QUORATE_LAB_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level.unwrap_or(LevelFilter::WARN))
        .init();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(cli::run(cli, &mut std::io::stdout())) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // If standard error is gone there is nobody to tell, and the code tells all the same.
    let _ = writeln!(std::io::stderr(), "quorate-lab: {text}");
    ExitCode::FAILURE
}
