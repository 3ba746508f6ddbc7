//! `quorate config check | show | schema`: arguments in, text out.
//!
//! Prints nothing itself: it writes to what it is given, and errors go back to the caller. Asking for user data
//! and tags is the caller's, too.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Completeness, ConfigErrors, InstanceTags, check_files, load, schema, show};

/// What to do with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration of this machine, or the given files by themselves.
    Check {
        /// Fragments to check, in the order in which they are merged; without any, all sources of this machine.
        files: Vec<PathBuf>,
        /// The given files are the whole configuration: a required key that they do not set is an error.
        #[arg(long, requires = "files")]
        whole: bool,
    },
    /// Print every effective value as YAML.
    Show {
        /// Say beside each value where it came from.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of a fragment.
    Schema,
}

impl ConfigCommand {
    /// Whether the command wants the instance's user data and tags.
    pub fn needs_instance(&self) -> bool {
        match self {
            Self::Check { files, .. } => files.is_empty(),
            Self::Show { .. } => true,
            Self::Schema => false,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(ConfigErrors),
    /// The output could not be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
}

/// Runs a command. `user_data` and `tags` are those of the instance, where [`ConfigCommand::needs_instance`].
pub fn run(
    command: &ConfigCommand,
    root: &Path,
    user_data: Option<&[u8]>,
    tags: &InstanceTags,
    output: &mut dyn Write,
) -> Result<(), VerbError> {
    let text = match command {
        ConfigCommand::Check { files, .. } if files.is_empty() => {
            let loaded = load(root, user_data, tags).map_err(VerbError::Config)?;
            let passed_over =
                loaded.passed_over.iter().map(|(source, what)| format!("{source}: passed over: {what}\n"));
            checked(&loaded.fragments)
                .chain(passed_over)
                .chain(["configuration: valid\n".to_owned()])
                .collect()
        }
        ConfigCommand::Check { files, whole } => {
            let completeness = if *whole { Completeness::Whole } else { Completeness::Fragments };
            let fragments = check_files(files, completeness).map_err(VerbError::Config)?;
            checked(&fragments).collect()
        }
        ConfigCommand::Show { origin } => {
            show(&load(root, user_data, tags).map_err(VerbError::Config)?, *origin)
        }
        ConfigCommand::Schema => format!("{:#}\n", schema()),
    };
    output.write_all(text.as_bytes()).map_err(VerbError::Write)
}

fn checked(fragments: &[super::Fragment]) -> impl Iterator<Item = String> {
    fragments.iter().map(|fragment| format!("{}: valid\n", fragment.source))
}
