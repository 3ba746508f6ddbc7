//! Authorities and the leaf certificates that they sign.
//!
//! A cluster has an authority of its own for etcd ([`authority`]), and Kubernetes' authorities and
//! keys ([`cluster`]): two bundles, kept in S3 and on control-plane nodes only. Each node issues
//! its own leaves from them, etcd's ([`leaves`]) and Kubernetes' ([`cluster_leaves`]):
//! short-lived, named after the node, with keys that never leave the machine.
//!
//! What must not live here: whether a certificate should be made or renewed (that is decided in
//! `plan`), the object store, and the clock: the present moment is always given.

mod bundle;
mod certificate;
mod signer;
mod subject;

pub mod authority;
pub mod cluster;
pub mod cluster_leaves;
pub mod files;
pub mod leaves;
pub mod node_identity;
pub mod request;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::files::FileError;
use crate::kubernetes::RenderError;
use crate::kubernetes::kubeconfig::KubeconfigError;

pub use authority::EtcdAuthority;
pub use cluster::{ClusterAuthorities, EncryptionKey};
pub use files::Owners;
pub use leaves::{LeafRequest, inspect, issue};

/// A text that shows itself to nobody but who asks for it by name: a private key in PEM, or a file
/// that holds one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps the text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the file or the bundle that it belongs into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Whether this is exactly one certificate in PEM.
pub fn is_certificate(pem: &[u8]) -> bool {
    certificate::Certificate::from_pem("certificate", pem).is_ok()
}

/// Random bytes, as secrets are made of.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(bytes)
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
    #[error("no random bytes")]
    Random,
    /// A moment that no certificate can name.
    #[error("{millis} ms since 1970 is no moment that a certificate can name")]
    Moment {
        /// The moment, in milliseconds since 1970.
        millis: i64,
    },
    /// A bundle is not the JSON that it should be.
    #[error("the bundle of {of} is damaged at line {line}, column {column}: {found}")]
    Bundle {
        /// Whose bundle.
        of: &'static str,
        /// What was found.
        found: &'static str,
        /// Where, from 1.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// A bundle is JSON, and a part of it is not what it should be.
    #[error("the bundle of {of} can't be used: {found}")]
    BundlePart {
        /// Whose bundle.
        of: &'static str,
        /// What was found.
        found: String,
    },
    /// The bundle is of a version that this program does not know.
    #[error("the bundle of {of} has version {found}, expected {expected}")]
    BundleVersion {
        /// Whose bundle.
        of: &'static str,
        /// What was found.
        found: u32,
        /// What is known.
        expected: u32,
    },
    /// The bundle is another cluster's.
    #[error("the bundle of {of} is that of cluster {found}, expected {expected}")]
    WrongCluster {
        /// Whose bundle.
        of: &'static str,
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
    #[error("the certificate of {of} ended at {not_after}, and it is {now} (milliseconds since 1970)")]
    AuthorityExpired {
        /// Whose certificate.
        of: &'static str,
        /// The end of its validity, in milliseconds since 1970.
        not_after: i64,
        /// The present, in milliseconds since 1970.
        now: i64,
    },
    /// The authority's validity has not begun: this machine's clock, or that of the machine that
    /// made the authority, is wrong.
    #[error("the certificate of {of} begins at {not_before}, and it is {now} (milliseconds since 1970)")]
    AuthorityNotYetValid {
        /// Whose certificate.
        of: &'static str,
        /// The beginning of its validity, in milliseconds since 1970.
        not_before: i64,
        /// The present, in milliseconds since 1970.
        now: i64,
    },
    /// A name that no certificate is made for.
    #[error("no certificate for {what} {found:?}: {why}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        found: String,
        /// Why not.
        why: &'static str,
    },
    /// A kubeconfig could not be made or can't be used.
    #[error("the kubeconfig of {of}")]
    Kubeconfig {
        /// Whose.
        of: &'static str,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// A file does not belong to whom it should, or others may read it.
    #[error("{path} is owned or readable otherwise than it should be: {found}")]
    Access {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The encryption's configuration could not be written as YAML.
    #[error("making the encryption's configuration")]
    Encryption(#[source] Box<RenderError>),
    /// The encryption's configuration is not whole.
    #[error("the encryption's configuration is damaged")]
    EncryptionDamaged,
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
            | Self::Bundle { .. }
            | Self::BundlePart { .. }
            | Self::BundleVersion { .. }
            | Self::WrongCluster { .. }
            | Self::Certificate { .. }
            | Self::Key { .. }
            | Self::KeyMismatch { .. }
            | Self::NotAnAuthority { .. }
            | Self::Name { .. }
            | Self::Kubeconfig { .. }
            | Self::Access { .. }
            | Self::Encryption(_)
            | Self::EncryptionDamaged
            | Self::AuthorityExpired { .. } => false,
        }
    }
}
