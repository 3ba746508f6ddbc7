//! The archive for a bug report: what the agent last knew and did, without secrets.
//!
//! Nothing that holds a secret is put in: no key, no kubeconfig, no user data, nothing of S3. What is put in is made by
//! the agent without secrets, and goes through [`redact`] all the same, since operators' settings and others' error
//! messages are in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::agent::setup::Record;
use crate::doctor::Diagnosis;
use crate::host::files::{FileError, read_optional, write_durably};
use crate::host::{Root, command};
use crate::model::fact::chain;
use crate::telemetry::{history, status};

use super::{CliError, render};

/// What stands in the place of a secret.
const REDACTED: &str = "<redacted>";
/// How much of the journal is put in, in lines.
const JOURNAL_LINES: &str = "--lines=2000";
/// How long `journalctl` may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Keys whose values are secret wherever they are, in lower case.
const SECRET_KEYS: [&str; 8] = [
    "token",
    "secret",
    "password",
    "privatekey",
    "secretaccesskey",
    "sessiontoken",
    "client-key-data",
    "authorization",
];
/// The folder that everything in the archive is in.
const FOLDER: &str = "quorate-bundle";

/// What is put in, and what could not be.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Paths in the archive, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What is missing, and why.
    pub missing: Vec<(String, String)>,
}

impl Bundle {
    fn put(&mut self, name: &str, content: Result<Option<String>, String>) {
        match content {
            Ok(Some(content)) => self.files.push((name.to_owned(), content.into_bytes())),
            Ok(None) => self.missing.push((name.to_owned(), "it is not there".to_owned())),
            Err(why) => self.missing.push((name.to_owned(), redact(&why))),
        }
    }

    /// What was written, for people.
    pub fn told(&self, file: &Path) -> String {
        let mut told = format!("\nwritten    {}\n", file.display());
        for (name, content) in &self.files {
            told.push_str(&format!("contains   {name} ({} bytes)\n", content.len()));
        }
        for (name, why) in &self.missing {
            told.push_str(&format!("without    {name}: {why}\n"));
        }
        told.push_str(
            "Look through it before you pass it on: it names instances, volumes, addresses and buckets.\n",
        );
        told
    }
}

/// Collects what is put in.
pub async fn make(root: &Root, diagnosis: &Diagnosis) -> Bundle {
    let mut bundle = Bundle::default();
    bundle.put("doctor.txt", Ok(Some(redact(&diagnosis.page()))));
    bundle.put("doctor.json", json(&serde_json::to_vec(diagnosis)).map(Some));
    bundle.put("status.json", json_file(&status::path(root)));
    let record = read_optional(&status::observation_path(root));
    bundle.put(
        "observed.json",
        record.as_ref().map_err(|error| chain(error)).and_then(|bytes| optional_json(bytes.as_ref())),
    );
    match record.ok().flatten().map(|bytes| serde_json::from_slice::<Record>(&bytes)) {
        Some(Ok(record)) => rendered(&record, &mut bundle),
        Some(Err(error)) => bundle.missing.push(("rendered/".to_owned(), error.to_string())),
        None => bundle.missing.push(("rendered/".to_owned(), "there is no observation".to_owned())),
    }
    for (name, path) in [("history.jsonl", history::path(root)), ("history.1.jsonl", history::older(root))] {
        let text = read_optional(&path).map_err(|error| chain(&error));
        bundle.put(name, text.map(|bytes| bytes.map(|bytes| redact(&String::from_utf8_lossy(&bytes)))));
    }
    bundle.put("journal.txt", journal().await.map(|text| Some(redact(&text))));
    bundle
}

/// What the agent renders, with the operator's environment variables without their values.
fn rendered(record: &Record, bundle: &mut Bundle) {
    let mut record = record.clone();
    let kubernetes = &mut record.settings.kubernetes;
    for env in kubernetes
        .api_server
        .additions
        .extra_env
        .iter_mut()
        .chain(&mut kubernetes.controller_manager.additions.extra_env)
        .chain(&mut kubernetes.scheduler.additions.extra_env)
    {
        if let Ok(redacted) = format!("{}={REDACTED}", env.parts().0).parse() {
            *env = redacted;
        }
    }
    match render::files(&record) {
        Ok(files) => {
            for file in files {
                let name = format!("rendered/{}", file.path.trim_start_matches('/'));
                bundle.put(&name, Ok(Some(redact(&file.content))));
            }
        }
        Err(error) => bundle.missing.push(("rendered/".to_owned(), chain(&error))),
    }
}

async fn journal() -> Result<String, String> {
    let arguments = ["--unit=quorate.service", "--no-pager", "--output=short-iso", JOURNAL_LINES];
    let finished = command::run("journalctl", arguments, PATIENCE).await.and_then(command::Finished::success);
    finished.map(|finished| finished.stdout).map_err(|error| chain(&error))
}

fn json_file(path: &Path) -> Result<Option<String>, String> {
    read_optional(path).map_err(|error| chain(&error)).and_then(|bytes| optional_json(bytes.as_ref()))
}

fn optional_json(bytes: Option<&Vec<u8>>) -> Result<Option<String>, String> {
    bytes.map(|bytes| json(&Ok(bytes.clone()))).transpose()
}

fn json(bytes: &Result<Vec<u8>, serde_json::Error>) -> Result<String, String> {
    let bytes = bytes.as_ref().map_err(ToString::to_string)?;
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    redact_json(&mut value);
    serde_json::to_string_pretty(&value).map(|text| format!("{text}\n")).map_err(|error| error.to_string())
}

/// Takes secrets out of a value: the texts below keys that name secrets, the values of environment variables, and what
/// looks like a secret anywhere.
fn redact_json(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(text) if SECRET_KEYS.contains(&key.to_ascii_lowercase().as_str()) => {
                        REDACTED.clone_into(text);
                    }
                    Value::Array(variables) if key == "extraEnv" => {
                        variables.iter_mut().for_each(without_value);
                    }
                    other => redact_json(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact_json),
        Value::String(text) => *text = redact(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A variable of the operator's, as `NAME=value`, without its value.
fn without_value(variable: &mut Value) {
    if let Value::String(text) = variable {
        let name = text.split_once('=').map_or("", |(name, _)| name);
        *text = format!("{name}={REDACTED}");
    }
}

/// Takes what looks like a secret out of a text: private keys, bootstrap tokens, access keys, bearer tokens, and what
/// follows a key that names a secret.
pub fn redact(text: &str) -> String {
    let text = without_private_keys(text);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-+/=".contains(c);
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text.as_str();
    // Whether the last word names a secret, and nothing but signs has come since.
    let mut names_secret = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if word.is_empty() {
        } else if is_secret_name(key) && !value.is_empty() {
            redacted.push_str(key);
            redacted.push('=');
            redacted.push_str(REDACTED);
        } else if names_secret || looks_secret(word) {
            redacted.push_str(REDACTED);
        } else {
            redacted.push_str(word);
        }
        let signs = after.find(is_part).unwrap_or(after.len());
        let (between, next) = after.split_at(signs);
        redacted.push_str(between);
        let assigns = |text: &str| {
            let text = text.trim_matches(['"', '\'', ' ', '\\']);
            text.starts_with([':', '=']) && !text.contains(['\n', ',', '}'])
        };
        names_secret =
            is_secret_name(word.trim_end_matches('=')) && (assigns(between) || word.ends_with('='));
        rest = next;
    }
    redacted
}

fn is_secret_name(word: &str) -> bool {
    let word = word.trim_start_matches('-').to_ascii_lowercase().replace('_', "");
    let word = word.strip_prefix("aws").unwrap_or(&word);
    SECRET_KEYS.contains(&word) || word == "bearer"
}

fn looks_secret(word: &str) -> bool {
    let word = word.trim_end_matches('.');
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_bootstrap_token = word
        .split_once('.')
        .is_some_and(|(id, secret)| id.len() == 6 && secret.len() == 16 && lower(id) && lower(secret));
    let is_access_key = word.len() == 20
        && (word.starts_with("AKIA") || word.starts_with("ASIA"))
        && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let is_bearer = word.starts_with("eyJ") && word.matches('.').count() == 2;
    is_bootstrap_token || is_access_key || is_bearer
}

/// Private keys in PEM, in lines or, as in JSON, on one.
fn without_private_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(at);
        kept.push_str(before);
        let label = &block
            [BEGIN.len()..block[BEGIN.len()..].find("-----").map_or(block.len(), |end| end + BEGIN.len())];
        if !label.contains("PRIVATE KEY") {
            kept.push_str(BEGIN);
            rest = &block[BEGIN.len()..];
            continue;
        }
        kept.push_str(REDACTED);
        // One that is cut off has no end.
        rest = block.find(END).map_or("", |end| {
            let tail = &block[end + END.len()..];
            tail.find("-----").map_or("", |end| &tail[end + 5..])
        });
    }
    kept.push_str(rest);
    kept
}

/// The archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It could not be made.
    #[error("making the archive {}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes the archive, readable by its owner alone.
pub fn write(file: &Path, bundle: &Bundle) -> Result<(), CliError> {
    let bytes = archive(bundle).map_err(|source| BundleError::Archive { path: file.to_owned(), source })?;
    // As everywhere: under another name first.
    let path = if file.is_absolute() { file.to_owned() } else { Path::new(".").join(file) };
    Ok(write_durably(&path, &bytes, 0o600).map_err(BundleError::File)?)
}

fn archive(bundle: &Bundle) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, content) in &bundle.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
    }
    let mut compressed = archive.into_inner()?;
    compressed.flush()?;
    compressed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_the_rest_stays() {
        for (text, redacted) in [
            ("joins with abcdef.0123456789abcdef now", "joins with <redacted> now"),
            ("abcdef.0123456789abcdef.", "<redacted>"),
            ("key AKIAIOSFODNN7EXAMPLE denied", "key <redacted> denied"),
            ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY=<redacted>"),
            ("password: hunter2 and more", "password: <redacted> and more"),
            (r#"{"token": "abc", "id": "x"}"#, r#"{"token": "<redacted>", "id": "x"}"#),
            ("    client-key-data: LS0tLS1C\n    user: a", "    client-key-data: <redacted>\n    user: a"),
            ("Authorization: Bearer eyJh.eyJi.sig", "Authorization: <redacted> <redacted>"),
            ("a\n-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb", "a\n<redacted>\nb"),
            (
                r#""k": "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n""#,
                r#""k": "<redacted>\n""#,
            ),
            ("cut -----BEGIN PRIVATE KEY-----\nMHc", "cut <redacted>"),
        ] {
            assert_eq!(redact(text), redacted, "{text}");
        }
        for plain in [
            "i-0123456789abcdef0 in eu-west-1a waits for vol-0123456789abcdef0",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "--token-auth is no such flag; the bootstrap token ended",
            "",
        ] {
            assert_eq!(redact(plain), plain);
        }
    }

    #[test]
    fn values_below_the_names_of_secrets_are_taken_out_of_json() {
        let mut value = serde_json::json!({
            "extraEnv": ["HTTPS_PROXY=http://user:pass@proxy"],
            "list": ["abcdef.0123456789abcdef"],
            "sessionToken": "x",
            "tokenEnds": 5,
        });
        redact_json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "extraEnv": ["HTTPS_PROXY=<redacted>"],
                "list": ["<redacted>"],
                "sessionToken": "<redacted>",
                "tokenEnds": 5,
            })
        );
    }
}
