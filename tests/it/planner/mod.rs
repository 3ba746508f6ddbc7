//! The planner, row by row and by its properties.

#![allow(
    clippy::needless_for_each,
    clippy::type_complexity,
    clippy::unnecessary_wraps,
    reason = "tables of cases read best as they are"
)]

mod backups;
mod care;
mod control_plane;
mod departure;
mod enrolment;
mod founding;
mod inventory;
mod joining;
mod keeping;
mod launch;
mod logind;
mod member;
mod node;
mod notices;
mod pods;
mod properties;
mod recovery;
mod rollout;
pub mod scene;
mod shutdown;
mod sources;
mod takeover;
mod volume;
mod worker;
