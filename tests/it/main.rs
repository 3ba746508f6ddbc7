//! Everything that is not a unit test: contracts, protocols and real programs.

mod contract;
mod disks;
mod etcd;
mod laboratory;
mod machine;
mod model;
mod service;
mod units;
mod weather;
