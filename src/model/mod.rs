//! Value types: what the agent observes, decides and does, as plain data. No IO lives here.

pub mod ids;
