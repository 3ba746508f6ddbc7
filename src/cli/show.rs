//! `quorate status`: the page, once or again and again, and how the machine does as an exit code.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use tokio::time::sleep;

use crate::exit::Exit;
use crate::host::{Root, clock};
use crate::telemetry::page::{View, page};
use crate::telemetry::status::{self, AgentState, Condition, Status};

use super::{CliError, print, print_json};

/// How often the page is shown again.
const AGAIN: Duration = Duration::from_secs(2);
/// To the upper left, and nothing below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows the status.
pub async fn run(root: &Root, json: bool, watch: bool, output: &mut dyn Write) -> Result<Exit, CliError> {
    let is_terminal = std::io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    loop {
        let status = status::read(root)?;
        let agent = AgentState::of(&status);
        if json {
            print_json(output, &status)?;
        } else {
            let told = page(&status, &View { now: clock::now_ms(), colour, agent });
            let before = if watch && is_terminal { CLEAR } else { "" };
            print(output, &format!("{before}{told}"))?;
        }
        if !watch {
            return Ok(exit(&status, agent));
        }
        output.flush().map_err(CliError::Output)?;
        sleep(AGAIN).await;
    }
}

fn exit(status: &Status, agent: AgentState) -> Exit {
    match status.condition(agent) {
        Condition::Ok => Exit::Success,
        Condition::Waiting => Exit::Waiting,
        Condition::Degraded => Exit::Degraded,
        Condition::Halted => Exit::Halted,
    }
}
