//! Backups of etcd, and what is made of them.
//!
//! | file | what |
//! |---|---|
//! | [`segment`] | the changes between two revisions, as one object |
//! | [`ship`] | etcd's changes go to S3 as they happen |
//! | [`snapshot`] | a snapshot goes to S3, and is read back |
//! | [`configuration`] | the settings go with it, so that they are known when all else is gone |
//! | [`keeper`] | both, beside the agent's rounds, for as long as the planner lets it |
//! | [`retention`] | which backups are kept for how long |
//! | [`read`] | which backups there are, and whether they are whole |
//! | [`choose`] | which of them reaches furthest |
//! | [`restore`] | etcd's data are made from one |
//! | [`rehearsal`] | the same, to see that it can be done |
//!
//! What must not live here: who keeps backups when, and whether one is restored. That is settled in `plan`.

pub mod choose;
pub mod configuration;
mod error;
pub mod keeper;
pub mod read;
pub mod rehearsal;
pub mod restore;
pub mod retention;
pub mod segment;
pub mod ship;
pub mod snapshot;

pub use error::BackupError;
pub use keeper::Keeper;
