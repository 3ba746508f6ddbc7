//! How the agent is seen: its journal, its status, and its metrics.

pub mod journal;
pub mod metrics;
pub mod monitor;
pub mod notify;
pub mod status;
