//! Drills from the command line, and their reports in words.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::CliError;
use crate::lab::drill::{self, Drill, Options};
use crate::lab::supervisor::{self, Request};

/// Runs a drill with one seed or several, and reports. Answers the exit code.
pub(super) async fn run(
    drill: Drill,
    options: &Options,
    seeds: Option<u64>,
    jobs: usize,
    running: Option<&Path>,
    json: bool,
    out: &mut (impl Write + Send),
) -> Result<u8, CliError> {
    let count = seeds.unwrap_or(1);
    let one = async |seed: u64| -> Result<Value, CliError> {
        let report = match running {
            Some(dir) => {
                let request = Request::Drill { name: drill.name().to_owned(), seed };
                supervisor::ask(dir, &request).await?
            }
            None => json!(drill::run(drill, &Options { seed, ..options.clone() }).await),
        };
        if count > 1 {
            writeln!(io::stderr(), "{}", summary(&report))?;
        }
        Ok(report)
    };
    let first = options.seed;
    let jobs = if running.is_some() { 1 } else { jobs.max(1) };
    let mut runs = futures_util::stream::iter(first..first.saturating_add(count)).map(one).buffered(jobs);
    let mut reports = Vec::new();
    while let Some(report) = runs.next().await {
        reports.push(report?);
    }
    let passed = reports.iter().filter(|report| report["passed"] == true).count();
    if count > 1 {
        writeln!(io::stderr(), "{}: {passed} of {} seeds passed", drill.name(), reports.len())?;
    }
    match (json, seeds, reports.first()) {
        (true, None, Some(report)) => writeln!(out, "{report:#}")?,
        (true, ..) => writeln!(out, "{:#}", Value::from(reports.clone()))?,
        (false, None, Some(report)) => page(report, out)?,
        (false, ..) if io::stderr().is_terminal() => {}
        (false, ..) => {
            for report in &reports {
                writeln!(out, "{}", summary(report))?;
            }
        }
    }
    Ok(u8::from(passed < reports.len()))
}

fn summary(report: &Value) -> String {
    let verdict = if report["passed"] == true { "passed" } else { "FAILED" };
    let reason = report["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!(
        "{} seed {:<4} {verdict}  {} writes, {} lost, {} operations checked, longest gap {} ms, formed in {} ms, healed in {} ms{reason}",
        report["drill"].as_str().unwrap_or_default(),
        report["seed"],
        report["writesAcknowledged"],
        report["writesLost"],
        report["operationsChecked"],
        report["longestGapMs"],
        report["formMs"],
        report["healMs"],
    )
}

fn page(report: &Value, out: &mut impl Write) -> io::Result<()> {
    for (name, value) in report.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{name:<20} {text}")?;
    }
    Ok(())
}
