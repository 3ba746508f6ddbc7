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
    /// The process that wrote it.
    pub pid: Option<u32>,
    /// What it waits for, or why it can't go on, in words.
    pub words: Vec<String>,
    /// Why it can't go on.
    pub halt: Option<Value>,
    /// Its member's id.
    pub member: Option<Value>,
    /// The leader's id.
    pub leader: Option<Value>,
    /// The generation.
    pub generation: Option<u64>,
    /// What its keeper of backups tells.
    pub backups: Option<Value>,
    /// When the first of its certificates ends, in milliseconds since 1970.
    pub certificates_end: Option<i64>,
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

    /// The reason of its halt, as a tag.
    pub fn halted_because(&self) -> Option<&str> {
        self.halt.as_ref()?.get("because")?.as_str()
    }

    /// The phase and the reasons, in a line.
    pub fn line(&self) -> String {
        let phase = self.phase.as_deref().unwrap_or("starting");
        if self.words.is_empty() { phase.to_owned() } else { format!("{phase}: {}", self.words.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_a_line() {
        let halted = json!({
            "phase": "halted",
            "pid": 7,
            "halt": { "because": "charterLost", "evidence": "a stamp" },
            "words": ["halted: there is no charter", "warning: x"],
            "what is added later": 1,
        });
        let status: Status = serde_json::from_value(halted).unwrap();
        assert_eq!(status.line(), "halted: halted: there is no charter; warning: x");
        assert_eq!(status.halted_because(), Some("charterLost"));
        assert!(!status.is_running());
    }
}
