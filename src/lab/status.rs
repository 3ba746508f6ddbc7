//! What an agent says of itself, as the laboratory reads it: only what is looked at here.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::LabError;

/// An agent's `status.json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Where it is on its way.
    pub phase: Option<String>,
    /// Its slot.
    pub slot: Option<u8>,
    /// What it waits for: each an object with `on`, and `since`.
    pub waiting: Vec<Value>,
    /// Why it can't go on.
    pub halt: Option<Value>,
    /// Its member's id.
    pub member: Option<Value>,
    /// The leader's id.
    pub leader: Option<Value>,
    /// The generation.
    pub generation: Option<u64>,
}

impl Status {
    /// Reads a node's status; `None` when its agent has not written one yet.
    pub fn of(root: &Path) -> Result<Option<Self>, LabError> {
        let path = root.join("run/quorate/status.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| LabError::Json { what: path.display().to_string(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LabError::file("reading", &path)(error)),
        }
    }

    /// Whether its agent calls its member healthy and a voter.
    pub fn is_running(&self) -> bool {
        self.phase.as_deref() == Some("running")
    }

    /// The phase, and what is waited for or why it stopped, in a line.
    pub fn line(&self) -> String {
        let phase = self.phase.as_deref().unwrap_or("?").to_owned();
        match (&self.halt, self.waits()) {
            (Some(halt), _) if !halt.is_null() => format!("{phase}: {}", words(halt)),
            (_, waits) if waits.is_empty() => phase,
            (_, waits) => format!("{phase}, waits for {waits}"),
        }
    }

    /// What it waits for, in a line; empty when for nothing.
    pub fn waits(&self) -> String {
        let waits = self.waiting.iter().map(|w| words(w.get("on").filter(|on| on.is_object()).unwrap_or(w)));
        waits.collect::<Vec<_>>().join("; ")
    }
}

/// A tagged value in words: its tag first, then its fields.
fn words(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return text(value) };
    let tag = ["on", "because"].iter().find_map(|tag| fields.get(*tag)).map(text);
    let rest = fields.iter().filter(|(name, v)| !["on", "because", "since"].contains(&name.as_str()) && !v.is_null());
    let rest: Vec<String> = rest.map(|(name, v)| format!("{name} {}", text(v))).collect();
    match (tag, rest.is_empty()) {
        (Some(tag), true) => tag,
        (Some(tag), false) => format!("{tag} ({})", rest.join(", ")),
        (None, _) => rest.join(", "),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_a_line() {
        let waiting = json!({ "phase": "preparing", "waiting": [
            { "on": { "on": "claims", "missing": [2, 3], "majority": false }, "since": 5 },
            { "on": { "on": "clock" }, "since": 5 },
        ]});
        let status: Status = serde_json::from_value(waiting).unwrap();
        assert_eq!(status.line(), "preparing, waits for claims (majority false, missing [2,3]); clock");
        let halted = json!({ "phase": "halted", "halt": { "because": "charterLost", "evidence": "a stamp" } });
        let status: Status = serde_json::from_value(halted).unwrap();
        assert_eq!(status.line(), "halted: charterLost (evidence a stamp)");
        assert!(!status.is_running());
    }
}
