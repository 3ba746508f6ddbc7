//! What can go wrong with the laboratory itself, as opposed to what is put to the test in it.

use std::io;
use std::path::{Path, PathBuf};

use super::environment::UnsafeEnvironment;
use super::region::{Refusal, RegionError};

/// Why the laboratory can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory could not be made, read or removed.
    #[error("{what} {}", path.display())]
    File {
        /// Such as `writing`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No etcd that serves was found.
    #[error("no etcd of version 3.5 or newer: set QUORATE_ETCD, or run scripts/install-tools")]
    NoEtcd,
    /// The agent's program is not there.
    #[error("no agent at {}: build it first", .0.display())]
    NoAgent(PathBuf),
    /// Every range of loopback addresses is in use by another laboratory.
    #[error("no range of loopback addresses is free for another laboratory")]
    NoAddresses,
    /// The region did not start.
    #[error("starting the region")]
    Region(#[from] RegionError),
    /// The region said no.
    #[error("asking the region for {what}")]
    Refused {
        /// What for.
        what: String,
        /// What it said.
        #[source]
        source: Refusal,
    },
    /// An agent would have reached for services that are not the laboratory's.
    #[error("refusing to start an agent")]
    Unsafe(#[from] UnsafeEnvironment),
    /// A verb of the agent's program did not succeed.
    #[error("quorate {verb} ended with {status}: {words}")]
    Verb {
        /// The verb and its arguments.
        verb: String,
        /// How it ended.
        status: String,
        /// What it said.
        words: String,
    },
    /// A program did not start.
    #[error("starting {}", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No node has that name, id or address.
    #[error("no node {0:?}")]
    NoNode(String),
    /// The laboratory is not as it was asked for.
    #[error("{0}")]
    Settings(String),
    /// The control connection to the supervisor failed.
    #[error("talking to the supervisor: {what}")]
    Control {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The supervisor said no.
    #[error("{0}")]
    Supervisor(String),
    /// No laboratory runs there.
    #[error("no laboratory runs in {}; `quorate-lab up` starts one", .0.display())]
    NotUp(PathBuf),
    /// One runs there already.
    #[error("a laboratory runs in {} already; `quorate-lab down` stops it", .0.display())]
    AlreadyUp(PathBuf),
    /// The time is over.
    #[error("{what} did not happen within {seconds} s: {why}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What stood in the way, as far as is known.
        why: String,
    },
    /// etcd gave an answer that is none.
    #[error("etcd: {what}")]
    Etcd {
        /// What was asked.
        what: String,
        /// Why there is no answer.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// What should be JSON is not.
    #[error("{what} is not the JSON that it should be")]
    Json {
        /// What.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl LabError {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(Refusal) -> Self {
        let what = what.into();
        move |source| Self::Refused { what, source }
    }
}

/// An error and all its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
