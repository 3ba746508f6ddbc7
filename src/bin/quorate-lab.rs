//! quorate-lab: parse, set up the log, call the library, map errors to exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use quorate::lab::cli::{self, Cli};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

fn main() -> ExitCode {
    let level = std::env::var("QUORATE_LAB_LOG").ok().and_then(|level| level.parse::<LevelFilter>().ok());
    // An API that does not answer yet is no error here, and its client would say so at every try.
    let filter = level.map_or_else(
        || EnvFilter::new(format!("{},kube_client=off", LevelFilter::WARN)),
        |level| EnvFilter::new(level.to_string()),
    );
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // Whatever is in hand when a signal comes is dropped, and with it the machines that it started.
    let mut out = std::io::stdout();
    let verb = async {
        tokio::select! {
            result = cli::run(cli, &mut out) => result,
            () = stopped() => Ok(STOPPED),
        }
    };
    match runtime.block_on(verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

/// The exit code after a signal.
const STOPPED: u8 = 130;

/// Comes to an end with SIGINT or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without them a signal simply ends the process.
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "signals can't be listened for");
            std::future::pending::<()>().await;
        }
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
