//! The simulated region against AWS's API, and against moto, which nobody here wrote.
//!
//! `suite` holds for both; what moto gets wrong (exclusive attachment, zones, client tokens, hooks,
//! the metadata service) is held to AWS's documentation in `region_only` and `metadata` alone, and
//! the weather of `faults` only the region can make.

#![allow(clippy::unwrap_used, reason = "a check fails by panicking, in its helpers as well")]

mod balancers;
mod buckets;
pub mod endpoints;
mod faults;
mod http;
mod metadata;
mod region_only;
mod suite;
pub mod transfers;
