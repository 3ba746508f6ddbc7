//! Authorities and the leaf certificates that they sign.
//!
//! A cluster has an authority of its own for etcd, kept in S3 and on control-plane nodes only
//! ([`authority`]). Each node issues its own leaves from it ([`leaves`]): short-lived, named after
//! the node's address and slot, with keys that never leave the machine.
//!
//! What must not live here: whether a certificate should be made or renewed (that is decided in
//! `plan`), the object store, and the clock: the present moment is always given.

mod certificate;

pub mod authority;
pub mod leaves;

use std::fmt;
use std::path::PathBuf;

use crate::host::files::FileError;

pub use authority::EtcdAuthority;
pub use leaves::{LeafRequest, inspect, issue};

/// A private key in PEM. It shows itself to nobody but who asks for it by name.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyPem(String);

impl PrivateKeyPem {
    /// The key, for the file or the bundle that it belongs into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What went wrong with keys and certificates. No variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or a certificate could not be made.
    #[error("making {what}")]
    Make {
        /// What was being made.
        what: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a serial number")]
    Random,
    /// A moment that no certificate can name.
    #[error("{millis} ms since 1970 is no moment that a certificate can name")]
    Moment {
        /// The moment, in milliseconds since 1970.
        millis: i64,
    },
    /// The authority's bundle is not the JSON that it should be.
    #[error("the authority's bundle is damaged")]
    Bundle(#[source] serde_json::Error),
    /// The bundle is of a version that this program does not know.
    #[error("the authority's bundle has version {found}, expected {expected}")]
    BundleVersion {
        /// What was found.
        found: u32,
        /// What is known.
        expected: u32,
    },
    /// The authority is another cluster's.
    #[error("the authority is that of cluster {found}, expected {expected}")]
    WrongCluster {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A certificate can't be read.
    #[error("the certificate of {of} is damaged: {found}")]
    Certificate {
        /// Whose certificate.
        of: &'static str,
        /// What was found.
        found: String,
    },
    /// A private key can't be read.
    #[error("the key of {of} is damaged")]
    Key {
        /// Whose key.
        of: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The key is another certificate's.
    #[error("the key of {of} does not belong to its certificate")]
    KeyMismatch {
        /// Whose key.
        of: &'static str,
    },
    /// The certificate may not sign others.
    #[error("the certificate of {of} is not an authority's: {found}")]
    NotAnAuthority {
        /// Whose certificate.
        of: &'static str,
        /// What was found.
        found: String,
    },
    /// The authority's validity has ended.
    #[error("the authority's certificate ended at {not_after}, and it is {now} (milliseconds since 1970)")]
    AuthorityExpired {
        /// The end of its validity, in milliseconds since 1970.
        not_after: i64,
        /// The present, in milliseconds since 1970.
        now: i64,
    },
    /// The authority's validity has not begun: this machine's clock, or that of the machine that
    /// made the authority, is wrong.
    #[error("the authority's certificate begins at {not_before}, and it is {now} (milliseconds since 1970)")]
    AuthorityNotYetValid {
        /// The beginning of its validity, in milliseconds since 1970.
        not_before: i64,
        /// The present, in milliseconds since 1970.
        now: i64,
    },
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The set of files could not be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

impl PkiError {
    /// Whether the same call can succeed later without anybody's doing: only what the disk or the
    /// clock is to blame for.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Random | Self::Read { .. } | Self::AuthorityNotYetValid { .. } => true,
            Self::Write(error) => error.is_retryable(),
            Self::Make { .. }
            | Self::Moment { .. }
            | Self::Bundle(_)
            | Self::BundleVersion { .. }
            | Self::WrongCluster { .. }
            | Self::Certificate { .. }
            | Self::Key { .. }
            | Self::KeyMismatch { .. }
            | Self::NotAnAuthority { .. }
            | Self::AuthorityExpired { .. } => false,
        }
    }
}
