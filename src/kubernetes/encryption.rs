//! The configuration of encryption at rest: the one rendered file that is a secret.
//!
//! It is kept out of [`control_plane`](super::control_plane), whose result may be printed, recorded and compared.
//! There is no `identity` provider in it: what lies in etcd in clear text is not taken for a secret of the cluster's,
//! since only somebody who writes to etcd behind the API server's back could have put it there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{RenderError, sha256, yaml};

/// A text that shows itself to nobody but who asks for it by name.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text, for the file that it belongs into.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 in hexadecimal, which says whether two are the same and nothing else: the text holds 256 random bits.
    pub fn digest(&self) -> String {
        sha256(&[&self.0])
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A key with the name that stands beside what is encrypted with it.
#[derive(Clone, Copy)]
pub struct EncryptionKey<'a> {
    /// The name: letters, digits and hyphens. It never names another key.
    pub name: &'a str,
    /// The key.
    pub key: &'a [u8; 32],
}

impl fmt::Debug for EncryptionKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("name", &self.name).field("key", &"<redacted>").finish()
    }
}

/// Renders the file at [`ENCRYPTION`](super::paths::ENCRYPTION): secrets are encrypted with `first`, and read with
/// each of the keys.
///
/// `secretbox` and not `aesgcm`, which asks for a new key every 200,000 writes, and not `aescbc`, whose padding tells
/// too much. Source: "Encrypting Confidential Data at Rest", Kubernetes' documentation.
pub fn encryption_config(
    first: EncryptionKey<'_>,
    others: &[EncryptionKey<'_>],
) -> Result<SecretText, RenderError> {
    let keys: Vec<_> = std::iter::once(&first)
        .chain(others)
        .map(|key| json!({ "name": key.name, "secret": STANDARD.encode(key.key) }))
        .collect();
    let document = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{ "resources": ["secrets"], "providers": [{ "secretbox": { "keys": keys } }] }],
    });
    yaml("the encryption's configuration", &document).map(SecretText)
}
