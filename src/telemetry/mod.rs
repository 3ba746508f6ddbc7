//! How the agent is seen: its journal and its status.

pub mod journal;
pub mod notify;
pub mod status;
