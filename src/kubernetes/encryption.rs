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

/// The keys of such a file, in their order; `None` where it is none, or not whole: every key has its name and
/// its 32 bytes.
pub fn encryption_keys(text: &str) -> Option<Vec<EncryptionKey>> {
    let document: Value = serde_saphyr::from_str(text).ok()?;
    if document["kind"] != "EncryptionConfiguration" {
        return None;
    }
    let keys = document["resources"][0]["providers"][0]["secretbox"]["keys"].as_array()?;
    let read = |key: &Value| {
        let name = key["name"].as_str().filter(|name| !name.is_empty())?;
        let secret = key["secret"].as_str()?;
        let bytes = STANDARD.decode(secret).ok()?;
        let read = EncryptionKey { name: name.to_owned(), secret: Secret::new(secret.to_owned()) };
        (bytes.len() == KEY_LENGTH).then_some(read)
    };
    keys.iter().map(read).collect::<Option<Vec<_>>>().filter(|keys| !keys.is_empty())
}
