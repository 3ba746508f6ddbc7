//! Where a machine is on its way.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a machine is on its way to being a healthy member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It learns who it is.
    Identifying,
    /// It claims and prepares the slot's volume.
    Preparing,
    /// The cluster is being founded.
    Founding,
    /// The cluster is being brought back from a backup, or from a survivor's data.
    Recovering,
    /// It becomes a member of a running cluster; or, a worker, a node.
    Joining,
    /// Its member is being started on the data that it has; or, a worker, its node gets ready.
    Returning,
    /// Its member is healthy and has a vote; or, a worker, its node is ready.
    Running,
    /// It has no slot, and stands by.
    Standby,
    /// It leaves: it takes itself out of the cluster in good order.
    Leaving,
    /// It has left, and does nothing any more.
    Left,
    /// It can't go on without a human.
    Halted,
}

impl Phase {
    /// All of them, in the order of a machine's life.
    pub const ALL: [Self; 11] = [
        Self::Identifying,
        Self::Preparing,
        Self::Founding,
        Self::Recovering,
        Self::Joining,
        Self::Returning,
        Self::Running,
        Self::Standby,
        Self::Leaving,
        Self::Left,
        Self::Halted,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Identifying => "identifying",
            Self::Preparing => "preparing",
            Self::Founding => "founding",
            Self::Recovering => "recovering",
            Self::Joining => "joining",
            Self::Returning => "returning",
            Self::Running => "running",
            Self::Standby => "standby",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Halted => "halted",
        })
    }
}
