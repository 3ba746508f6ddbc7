//! (being written)

pub mod region;
