//! Known or unknown: the form of every answer from outside.

use serde::{Deserialize, Serialize};

/// An answer of the world: either a definite one, or none, and why there is none.
///
/// A failed, throttled, timed-out, partial or stale answer is `Unknown`. It never stands for
/// "there is no such thing"; that would be `Known(None)` or `Known(vec![])`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fact<T> {
    /// A definite answer.
    Known(T),
    /// No answer, and the reason, for people.
    Unknown(String),
}

impl<T> Fact<T> {
    /// An unknown with its reason.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }

    /// The answer, if there is one. For reports; decisions match on the fact in full.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why there is no answer, if there is none. For reports.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }

    /// Whether there is an answer.
    pub fn is_known(&self) -> bool {
        self.known().is_some()
    }

    /// The same fact, borrowed.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Known(value) => Fact::Known(value),
            Self::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// The fact about what `f` makes of the answer.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(f(value)),
            Self::Unknown(why) => Fact::Unknown(why),
        }
    }
}

impl<T, E: std::error::Error> From<Result<T, E>> for Fact<T> {
    /// An error is no answer: it becomes `Unknown`, with the whole chain of causes as the reason.
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(chain(&error)),
        }
    }
}

/// An error and its causes on one line: `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_unknown_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading the charter")]
        struct Outer(#[source] std::io::Error);

        let result: Result<u8, _> = Err(Outer(std::io::Error::other("connection reset")));
        assert_eq!(Fact::from(result), Fact::Unknown("reading the charter: connection reset".into()));
    }

    #[test]
    fn prints_and_parses_back() {
        for fact in [Fact::Known(Some(3_u8)), Fact::Known(None), Fact::unknown("throttled")] {
            let text = serde_json::to_string(&fact).unwrap();
            assert_eq!(serde_json::from_str::<Fact<Option<u8>>>(&text).unwrap(), fact, "{text}");
        }
    }
}
