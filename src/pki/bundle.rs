//! What every bundle in S3 begins with, and in which order it is doubted.
//!
//! The version is looked at before the rest: what a later version added is not "damage".

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::PkiError;
use crate::model::ClusterName;

/// The fields that every version of every bundle has.
#[derive(Deserialize)]
struct Header {
    version: u32,
    cluster: String,
}

/// Reads the bundle of `of`, which should be of this version and of this cluster.
pub(super) fn read<T: DeserializeOwned>(
    of: &'static str,
    bytes: &[u8],
    version: u32,
    cluster: &ClusterName,
) -> Result<T, PkiError> {
    let damaged = |error| damaged(of, &error);
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    if header.version != version {
        return Err(PkiError::BundleVersion { of, found: header.version, expected: version });
    }
    if header.cluster != cluster.as_str() {
        let expected = cluster.to_string();
        return Err(PkiError::WrongCluster { of, found: header.cluster, expected });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Writes the bundle of `of`.
pub(super) fn write(of: &'static str, bundle: &impl Serialize) -> Result<Vec<u8>, PkiError> {
    serde_json::to_vec_pretty(bundle).map_err(|error| damaged(of, &error))
}

/// What the parser found, without the value that it quotes: that may be a key.
fn damaged(of: &'static str, error: &serde_json::Error) -> PkiError {
    let found = match error.classify() {
        Category::Io => "it can't be written",
        Category::Syntax => "it is not JSON",
        Category::Data => "a field is missing, unknown or of another kind",
        Category::Eof => "it ends too early",
    };
    PkiError::Bundle { of, found, line: error.line(), column: error.column() }
}
