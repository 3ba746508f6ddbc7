//! Everything that is not a unit test: contracts, protocols and real programs.

mod model;
mod planner;
