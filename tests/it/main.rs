//! Everything that is not a unit test: contracts, protocols and real programs.

mod contract;
mod disks;
mod docs;
mod etcd;
mod laboratory;
mod model;
mod planner;
mod service;
mod units;
mod weather;
