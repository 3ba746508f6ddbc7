//! The laboratory: the whole system on one computer, without root, and drills that shake it.
//!
//! Real etcd and the real agent, one agent process a node with a `--root` of its own, on loopback
//! addresses; around them the simulated [`region`]. What the agent is told is where its services
//! are (AWS's own variables), and nothing else of it is aware of the laboratory.
//!
//! - [`laboratory`] keeps the machines that the region launches: programs, disks, power cuts.
//! - [`kubelet`] and [`kube_proxy`] stand in for the kubelet and kube-proxy, as programs of their own.
//! - [`cluster`] looks at etcd from outside, [`load`] writes to it and holds it to its word, [`registers`] works on it
//!   from several sides, and [`history`] tells whether what came of that is linearizable.
//! - [`drill`] is a list of misfortunes, each with the verdict.
//! - [`supervisor`] and [`cli`] are `quorate-lab`; [`bench`](mod@bench) measures.
//!
//! How the agent is run here: `quorate --root DIR run`, all its paths below `DIR`. There is no
//! systemd (no `DIR/run/systemd/system`), so etcd is the agent's child and outlives it. A volume is
//! a sparse file; `DIR/dev/nvme1n1` is there only while it is attached, and
//! `DIR/sys/block/nvme1n1/device/serial` says which it is. Real `blkid` and `mkfs` work on it, while
//! `mount`, `umount` and `findmnt` are stand-ins ([`standins`]) that put etcd's data in a directory
//! beside the file, so that they go where the volume goes. `DIR/run/systemd/timesync/synchronized`
//! says that the clock is right.
//!
//! Nothing here is in a package: the cargo feature `lab` brings it in.

pub mod bench;
pub mod cli;
pub mod cluster;
pub mod disks;
pub mod drill;
pub mod environment;
mod error;
pub mod history;
pub mod kube_proxy;
pub mod kubelet;
pub mod laboratory;
pub mod load;
pub mod machine;
pub mod package;
pub mod process;
pub mod region;
pub mod registers;
pub mod settings;
pub mod standins;
pub mod status;
pub mod supervisor;

pub use error::LabError;
