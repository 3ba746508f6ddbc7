//! What can be wrong with configuration, and where it came from.
//!
//! Every problem says what was found and what was expected; the hint beside it says what to do. Nothing here
//! may be retried with success: configuration changes only when somebody changes it.

use std::fmt;
use std::path::PathBuf;

/// Where a piece of configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built in: the key's default.
    Default,
    /// A fragment file.
    File(PathBuf),
    /// EC2 user data as a whole, or its one document.
    UserData,
    /// A part of multi-part user data, counted from 1 over the parts that are not multi-parts themselves.
    UserDataPart(usize),
    /// An instance tag, by its key.
    Tag(&'static str),
    /// All sources together.
    Merged,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::UserData => f.write_str("user data"),
            Self::UserDataPart(number) => write!(f, "user data part {number}"),
            Self::Tag(key) => write!(f, "tag {key}"),
            Self::Merged => f.write_str("configuration"),
        }
    }
}

/// A place in a text, both counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// The source of a value, and its place in it where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source.
    pub source: Source,
    /// The place; none for defaults, tags and whole sources.
    pub position: Option<Position>,
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        Self { source, position: None }
    }
}

/// `source:line`, or `source` alone.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, .. }) => write!(f, "{}:{line}", self.source),
            None => write!(f, "{}", self.source),
        }
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file or directory that cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// A file in a fragment directory that looks like one but is not read.
    #[error("is not read: fragments are named `*.yaml`")]
    NotRead,
    /// More bytes than are accepted.
    #[error("found {found} bytes, expected at most {limit}")]
    TooLong {
        /// The length, or the least it is known to have.
        found: usize,
        /// The longest accepted.
        limit: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("found byte 0x{byte:02x} at offset {offset}, expected UTF-8 text")]
    NotText {
        /// The first offending byte.
        byte: u8,
        /// Its offset.
        offset: usize,
    },
    /// Compressed data that does not unpack.
    #[error("found gzip data that is truncated or damaged ({cause}), expected whole gzip data")]
    BadGzip {
        /// What the unpacker said.
        cause: String,
    },
    /// Base64 that does not decode.
    #[error("found base64 that does not decode ({cause}), expected whole base64")]
    BadBase64 {
        /// What the decoder said.
        cause: String,
    },
    /// Gzip in base64 in gzip in …
    #[error("found more than {limit} layers of gzip and base64, expected at most {limit}")]
    TooManyLayers {
        /// The most layers accepted.
        limit: usize,
    },
    /// MIME that is not well formed.
    #[error("found malformed MIME: {found}, expected {expected}")]
    BadMime {
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A text that is not YAML.
    #[error("is not valid YAML: {what}")]
    Syntax {
        /// What the parser said.
        what: String,
    },
    /// A key that no setting has.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key with its sections.
        key: String,
    },
    /// A key given twice in one section of one source.
    #[error("duplicate key `{key}`, first given in line {first_line}")]
    DuplicateKey {
        /// The key with its sections.
        key: String,
        /// Where it stands first.
        first_line: u64,
    },
    /// A value of the wrong type.
    #[error("`{key}` is {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A value of the right type that breaks the key's rule or range.
    #[error("`{key}` is `{value}`, expected {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// The rule.
        expected: String,
    },
    /// Two values that do not go together.
    #[error("`{key}` is {found}, expected {expected}")]
    Conflict {
        /// The key that has to give way.
        key: &'static str,
        /// Its value, and that of the other.
        found: String,
        /// The rule.
        expected: String,
    },
    /// A required key that no source sets.
    #[error("required key `{key}` is not set")]
    Missing {
        /// The key.
        key: &'static str,
    },
}

impl Problem {
    /// The key whose value is refused, without an index into its list; none where no value is.
    pub(super) fn refused_key(&self) -> Option<&str> {
        match self {
            Self::WrongType { key, .. } | Self::Invalid { key, .. } => key.split('[').next(),
            Self::Conflict { key, .. } => Some(key),
            Self::Unreadable(_)
            | Self::NotRead
            | Self::TooLong { .. }
            | Self::NotText { .. }
            | Self::BadGzip { .. }
            | Self::BadBase64 { .. }
            | Self::TooManyLayers { .. }
            | Self::BadMime { .. }
            | Self::Syntax { .. }
            | Self::UnknownKey { .. }
            | Self::DuplicateKey { .. }
            | Self::Missing { .. } => None,
        }
    }

    /// Whether a whole source was lost, so that nobody knows what it would have set.
    pub(super) fn loses_source(&self) -> bool {
        match self {
            Self::Unreadable(_)
            | Self::NotRead
            | Self::TooLong { .. }
            | Self::NotText { .. }
            | Self::BadGzip { .. }
            | Self::BadBase64 { .. }
            | Self::TooManyLayers { .. }
            | Self::BadMime { .. }
            | Self::Syntax { .. } => true,
            Self::WrongType { .. }
            | Self::Invalid { .. }
            | Self::Conflict { .. }
            | Self::UnknownKey { .. }
            | Self::DuplicateKey { .. }
            | Self::Missing { .. } => false,
        }
    }
}

/// A problem with its place and what to do about it.
#[derive(Debug)]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// What.
    pub problem: Box<Problem>,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(origin: impl Into<Origin>, problem: Problem) -> Self {
        Self { origin: origin.into(), problem: Box::new(problem), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `source:line:column: message`, then the hint on a line of its own.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin.source)?;
        if let Some(Position { line, column }) = self.origin.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem)?;
        if let Problem::Unreadable(cause) = &*self.problem {
            write!(f, ": {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the sources. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `value` when nothing is wrong.
    pub(super) fn unless_empty<T>(errors: Vec<ConfigError>, value: T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value) } else { Err(Self(errors)) }
    }

    /// The single problems.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

/// One problem after another, each beginning on a line of its own.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
