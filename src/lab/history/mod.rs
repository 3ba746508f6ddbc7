//! Histories of operations on registers, and whether they are linearizable.
//!
//! A client notes when it called, and when and how it was answered. An operation without an answer stays open: it may
//! have happened then, or later, or never. [`check`] looks for an order of the operations, with each between its call and
//! its answer, in which every answer is right for a register that does one operation at a time (Herlihy and Wing). It
//! talks to nobody; who makes histories is [`super::registers`].
//!
//! Every value is written by one call only. That is what makes thousands of operations with open ones among them a matter
//! of milliseconds: see [`search`].

mod evidence;
mod search;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

/// What a register holds. No two calls write the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Value(pub u64);

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What it holds.
    Get,
    /// To hold a value.
    Put(Value),
    /// To hold a value if it holds another, or nothing.
    Swap {
        /// What it must hold.
        from: Option<Value>,
        /// What it holds then.
        to: Value,
    },
}

impl Call {
    /// What is written, if it is.
    pub fn writes(self) -> Option<Value> {
        match self {
            Self::Get => None,
            Self::Put(value) | Self::Swap { to: value, .. } => Some(value),
        }
    }
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds this.
    Got(Option<Value>),
    /// It holds what was put.
    Put,
    /// It held what it had to and holds the other value.
    Swapped,
    /// It holds this, which is not what it had to, and goes on to.
    Kept(Option<Value>),
}

/// One operation of a history. Times are nanoseconds since some moment that all clients share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The register.
    pub register: usize,
    /// The client.
    pub client: usize,
    /// What was asked.
    pub call: Call,
    /// When: not after the question was sent.
    pub begun: u64,
    /// When, not before the answer was there, and what it was; `None` while it is open.
    pub answered: Option<(u64, Answer)>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |ns: u64| format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000);
        let held = |value: Option<Value>| value.map_or_else(|| "nothing".to_owned(), |v| v.0.to_string());
        write!(f, "{} ms, client {}: ", at(self.begun), self.client)?;
        match self.call {
            Call::Get => write!(f, "get"),
            Call::Put(value) => write!(f, "put {}", value.0),
            Call::Swap { from, to } => write!(f, "swap {} for {}", held(from), to.0),
        }?;
        match self.answered {
            None => write!(f, ", no answer"),
            Some((when, answer)) => {
                match answer {
                    Answer::Got(value) => write!(f, ", got {}", held(value)),
                    Answer::Put => write!(f, ", done"),
                    Answer::Swapped => write!(f, ", swapped"),
                    Answer::Kept(value) => write!(f, ", not swapped, it holds {}", held(value)),
                }?;
                write!(f, " at {} ms", at(when))
            }
        }
    }
}

/// A history that is linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many operations it has.
    pub operations: usize,
    /// Of these, how many were never answered.
    pub open: usize,
}

/// A history that is not known to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not.
    #[error("register {register} is not linearizable: {}", list(.evidence))]
    Violated {
        /// The register.
        register: usize,
        /// Operations of it that no order explains, as few as were found.
        evidence: Vec<Operation>,
    },
    /// It could not be told in the time that it may take.
    #[error("whether {operations} operations on register {register} are linearizable was not found out")]
    Undecided {
        /// The register.
        register: usize,
        /// How many operations there are.
        operations: usize,
    },
    /// Two calls wrote the same value, which no client here does.
    #[error("two calls wrote {} to register {register}", .value.0)]
    Repeated {
        /// The register.
        register: usize,
        /// The value.
        value: Value,
    },
}

fn list(operations: &[Operation]) -> String {
    operations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks a history, each register by itself: a history is linearizable when the history of each register is
/// (Herlihy and Wing, "locality").
pub fn check(history: &[Operation]) -> Result<Checked, Fault> {
    let mut registers: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        registers.entry(operation.register).or_default().push(*operation);
    }
    for (register, operations) in registers {
        let mut written = BTreeSet::new();
        for value in operations.iter().filter_map(|o| o.call.writes()) {
            if !written.insert(value) {
                return Err(Fault::Repeated { register, value });
            }
        }
        match search::linearizable(&operations) {
            Some(true) => {}
            Some(false) => {
                return Err(Fault::Violated { register, evidence: evidence::smallest(&operations) });
            }
            None => return Err(Fault::Undecided { register, operations: operations.len() }),
        }
    }
    let open = history.iter().filter(|o| o.answered.is_none()).count();
    Ok(Checked { operations: history.len(), open })
}
