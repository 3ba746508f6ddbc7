//! Stage one, fragments: texts with a source, in the order in which they are merged.
//!
//! This is the only file of the module that touches the file system, and it only reads. It looks at no key.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::errors::{ConfigError, Problem, Source};

/// The directories of fragments below the root, in the order in which they are merged: the image's, then the
/// operator's.
pub const DIRECTORIES: [&str; 2] = ["usr/lib/quorate/config.d", "etc/quorate/config.d"];

/// The most bytes that a fragment may have, and that user data may unpack to.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// One document of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Where it came from.
    pub source: Source,
    /// Its text.
    pub text: String,
}

impl Fragment {
    /// A fragment of these bytes, if they are text; a byte order mark is dropped.
    pub(super) fn from_bytes(source: Source, bytes: Vec<u8>) -> Result<Self, ConfigError> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { source, text: text.trim_start_matches('\u{feff}').to_owned() }),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
                Err(ConfigError::new(source, Problem::NotText { byte, offset })
                    .hint("save it in UTF-8; binary data has no place in configuration"))
            }
        }
    }
}

/// Reads all fragments in the directories below `root`, each directory sorted by file name. A directory that is
/// not there has no fragments; names that begin with a dot or do not end in `.yaml` are passed over, except
/// `.yml`, which is an error because it was surely meant.
pub(super) fn read_directories(root: &Path, errors: &mut Vec<ConfigError>) -> Vec<Fragment> {
    let mut fragments = Vec::new();
    for directory in DIRECTORIES {
        let directory = root.join(directory);
        match list(&directory) {
            Ok(files) => fragments.extend(files.iter().filter_map(|file| in_directory(file, errors))),
            Err(cause) => errors.push(unreadable(&directory, cause)),
        }
    }
    fragments
}

/// Reads fragments that were named one by one, in that order.
pub(super) fn read_files(files: &[PathBuf], errors: &mut Vec<ConfigError>) -> Vec<Fragment> {
    files.iter().filter_map(|file| read(file).map_err(|error| errors.push(error)).ok()).collect()
}

fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn in_directory(file: &Path, errors: &mut Vec<ConfigError>) -> Option<Fragment> {
    if file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        return None;
    }
    let extension = file.extension().unwrap_or_default();
    if extension == "yml" {
        let error = ConfigError::new(Source::File(file.to_owned()), Problem::NotRead);
        errors.push(error.hint("rename it to end in `.yaml`, or remove it"));
    }
    if extension != "yaml" {
        return None;
    }
    read(file).map_err(|error| errors.push(error)).ok()
}

fn read(file: &Path) -> Result<Fragment, ConfigError> {
    let source = Source::File(file.to_owned());
    let mut bytes = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    if let Err(cause) = File::open(file).and_then(|open| open.take(limit).read_to_end(&mut bytes)) {
        return Err(unreadable(file, cause));
    }
    if bytes.len() > MAX_BYTES {
        let problem = Problem::TooLong { found: bytes.len(), limit: MAX_BYTES };
        return Err(ConfigError::new(source, problem).hint("a fragment holds settings only"));
    }
    Fragment::from_bytes(source, bytes)
}

fn unreadable(path: &Path, cause: std::io::Error) -> ConfigError {
    let hint = match cause.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => {
            "the agent runs as root: let root read it, or run this command as root"
        }
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => "fragments are plain files in a directory",
        _ => "check the file system it lies on",
    };
    ConfigError::new(Source::File(path.to_owned()), Problem::Unreadable(cause)).hint(hint)
}
