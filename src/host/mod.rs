//! The machine that the agent runs on: files, the clock, disks and mounts, containerd and the services.
//!
//! Each adapter gives exact answers and does exact actions. "Certainly not there" is a value
//! (`None`, `Blank`, `Absent`); "can't tell" is an error, and the two are never mixed up.
//! Whatever is looked up in the file system is looked up below a [`Root`], so that the same code
//! runs on a machine and in a directory.
//!
//! What must not live here: decisions. Nothing here chooses what to format, mount, start or stop;
//! the one thing that is checked again is that a device is still blank before it is formatted.

pub mod capacity;
pub mod chosen;
pub mod clock;
pub mod command;
pub mod containerd;
pub mod devices;
pub mod files;
pub mod filesystem;
pub mod https;
pub mod logind;
pub mod manifests;
mod note;
pub mod notes;
pub mod root;
pub mod service;
pub mod shutdown;
pub mod volume;

pub use note::NoteError;
pub use root::Root;
