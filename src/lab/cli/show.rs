//! The laboratory on a terminal: its nodes as a table, and every change until they are a cluster.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::CliError;
use crate::lab::supervisor::{self, Request, Row, Snapshot};

/// Shows every change until there is full health. 1 when the time is over before.
pub(super) async fn progress(
    dir: &Path,
    patience: Duration,
    out: &mut (impl Write + Send),
) -> Result<u8, CliError> {
    const AGAIN: Duration = Duration::from_millis(50);
    let began = Instant::now();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let snapshot: Snapshot = serde_json::from_value(supervisor::ask(dir, &Request::Status).await?)?;
        for row in &snapshot.nodes {
            let line = line(row);
            if told.get(&row.name) != Some(&line) {
                writeln!(out, "{:6.2} s  {:<4} {line}", began.elapsed().as_secs_f64(), row.name)?;
                out.flush()?;
                told.insert(row.name.clone(), line);
            }
        }
        let amiss = supervisor::ask(dir, &Request::Health).await?;
        if amiss.is_null() || began.elapsed() >= patience {
            writeln!(out)?;
            let snapshot = serde_json::from_value(supervisor::ask(dir, &Request::Status).await?)?;
            table(&snapshot, out)?;
            if let Some(why) = amiss.as_str() {
                writeln!(out, "\nnot formed within {} s: {why}", patience.as_secs())?;
                return Ok(1);
            }
            if let Some(ms) = snapshot.form_ms {
                writeln!(out, "\nformed: the first write was acknowledged {ms} ms after the launch")?;
            }
            return Ok(0);
        }
        sleep(AGAIN).await;
    }
}

fn line(row: &Row) -> String {
    let mut line = row.phase.clone();
    if let Some(slot) = row.slot {
        line = format!("{line:<11} slot {slot}");
    }
    if !row.words.is_empty() {
        line = format!("{line}  {}", row.words);
    }
    if row.restarts > 0 {
        let how = row.last_exit.as_deref().unwrap_or("ended");
        line = format!("{line}  (agent started again {} times: {how})", row.restarts);
    }
    line
}

pub(super) fn table(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    let head = [
        "NODE",
        "ZONE",
        "INSTANCE",
        "ADDRESS",
        "ROLE",
        "SLOT",
        "PHASE",
        "MEMBER",
        "LEADER",
        "RESTARTS",
        "WAITS FOR",
    ];
    let rows = snapshot.nodes.iter().map(|row| {
        vec![
            row.name.clone(),
            row.zone.clone(),
            row.instance.clone(),
            row.address.clone(),
            row.role.clone(),
            row.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string()),
            row.phase.clone(),
            row.member.clone().unwrap_or_else(|| "-".to_owned()),
            if row.leads { "yes" } else { "" }.to_owned(),
            row.restarts.to_string(),
            row.words.clone(),
        ]
    });
    columns(&head, &rows.collect::<Vec<_>>(), out)?;
    for zone in &snapshot.stopped_zones {
        writeln!(out, "zone {zone} has no power")?;
    }
    for fault in &snapshot.faults {
        writeln!(out, "fault: {fault}")?;
    }
    Ok(())
}

/// Writes rows in aligned columns.
pub fn columns(head: &[&str], rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |n: usize| all().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|n| width(n).unwrap_or(0)).collect();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut out = Vec::new();
        columns(&["A", "BB"], &[vec!["long".into(), "x".into()]], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     BB\nlong  x\n");
    }
}
