//! quorate: makes the machines of an Auto Scaling group one highly available, multi-zone
//! Kubernetes cluster.
//!
//! The agent is a loop: [`observe`] asks the world, [`plan`] decides, purely, and [`execute`]
//! does one step at a time without a decision of its own. See `ARCHITECTURE.md`.

pub mod agent;
pub mod aws;
pub mod backup;
pub mod cli;
pub mod cluster_api;
pub mod config;
mod digest;
pub mod doctor;
pub mod etcd;
pub mod execute;
pub mod exit;
pub mod host;
pub mod kubernetes;
#[cfg(feature = "lab")]
pub mod lab;
pub mod model;
pub mod observe;
pub mod pki;
pub mod plan;
pub mod reach;
pub mod telemetry;
