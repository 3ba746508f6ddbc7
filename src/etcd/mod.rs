//! etcd: its configuration, and what is asked of it and done to it over its client API.
//!
//! [`config`] renders the file that decides which cluster a process takes part in; [`launch`] keeps
//! it where etcd reads it, with the order it was made from. [`ClusterClient`] looks at a cluster
//! ([`client`]), and does single, idempotent things to it: to its members under a lock, to what
//! quorate keeps in it, and for its upkeep (`care`). Snapshots and changes are
//! [`streams`]; a backup is brought up to date on a private etcd ([`replay`]).
//!
//! What must not live here: decisions. Whether a member should be added, promoted or removed is
//! settled in `plan`; here it is done exactly or refused with a typed error. Nor the process
//! itself: starting and stopping etcd is the service manager's work.

mod care;
pub mod client;
pub mod config;
mod connection;
pub mod error;
pub mod launch;
mod lock;
mod membership;
mod own;
pub mod replay;
mod store;
pub mod streams;

pub use client::ClusterClient;
pub use config::{Paths, Tuning, render};
pub use connection::TlsFiles;
pub use error::EtcdError;
pub use store::{BACKUP_WANTED, LockName};
