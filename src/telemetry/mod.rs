//! How the agent is seen: its journal, its status, its history, and its metrics.

#[cfg(test)]
mod agreement;
pub mod checks;
pub mod console;
pub mod figures;
pub mod history;
pub mod journal;
pub mod messages;
pub mod metrics;
pub mod monitor;
pub mod notify;
pub mod page;
pub mod status;
