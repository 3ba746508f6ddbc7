//! The configuration of encryption at rest: the one rendered file that is a secret.
//!
//! It is kept out of [`control_plane`](super::control_plane), whose result may be printed, recorded and compared.
//! There is no `identity` provider in it: what lies in etcd in clear text is not taken for a secret of the cluster's,
//! since only somebody who writes to etcd behind the API server's back could have put it there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{RenderError, yaml};
use crate::pki::{EncryptionKey, Secret};

/// The length of a key of `secretbox`, in bytes.
const KEY_LENGTH: usize = 32;

/// Renders the file at [`ENCRYPTION`](super::paths::ENCRYPTION): secrets are encrypted with the first key, and read with
/// each of them.
///
/// `secretbox` and not `aesgcm`, which asks for a new key every 200,000 writes, and not `aescbc`, whose padding tells
/// too much. Source: "Encrypting Confidential Data at Rest", Kubernetes' documentation.
pub fn encryption_config(keys: &[EncryptionKey]) -> Result<Secret, RenderError> {
    let keys: Vec<_> =
        keys.iter().map(|key| json!({ "name": key.name, "secret": key.secret.expose() })).collect();
    let document = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{ "resources": ["secrets"], "providers": [{ "secretbox": { "keys": keys } }] }],
    });
    yaml("the encryption's configuration", &document).map(Secret::new)
}

/// Whether a text is such a file as a whole: every key is there with its name and its 32 bytes.
pub fn is_encryption_config(text: &str) -> bool {
    let Ok(document) = serde_saphyr::from_str::<Value>(text) else { return false };
    let Some(keys) = document["resources"][0]["providers"][0]["secretbox"]["keys"].as_array() else {
        return false;
    };
    let whole = |key: &Value| {
        key["name"].as_str().is_some_and(|name| !name.is_empty())
            && key["secret"].as_str().and_then(|secret| STANDARD.decode(secret).ok()).map(|key| key.len())
                == Some(KEY_LENGTH)
    };
    document["kind"] == "EncryptionConfiguration" && !keys.is_empty() && keys.iter().all(whole)
}
