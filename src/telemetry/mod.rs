//! How the agent is seen: its journal, its status, its history, and its metrics.

pub mod history;
pub mod journal;
pub mod metrics;
pub mod monitor;
pub mod notify;
pub mod status;
