//! Everything that is not a unit test: contracts, protocols and real programs.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails; helpers of tests are tests too")]

mod cloud_init;
mod cloudwatch;
mod cluster_template;
mod contract;
mod disks;
mod docs;
mod doctor;
mod etcd;
mod image;
mod kubernetes_flags;
mod laboratory;
mod leaving;
mod machine;
mod model;
mod monitor;
mod monitoring;
mod packaging;
mod permissions;
mod planner;
mod programs;
mod service;
mod shutdown;
mod units;
mod verbs;
mod weather;
