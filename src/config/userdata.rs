//! EC2 user data: bytes in, fragments out.
//!
//! User data belongs to cloud-init first; quorate takes what is marked as its own and passes over the rest. The
//! bytes may be packed with gzip and base64, the one in the other, as a whole and again part by part.
//!
//! **What is quorate's**, when user data is no MIME message:
//! 1. a text whose first line is `#quorate-config`;
//! 2. a text whose first line marks nothing else (`#!`, `#cloud-config`, `#include`, `## template:`, …) and that
//!    has one of quorate's top keys at the beginning of a line: `cluster:`, `etcd:`, …. Any of them will do, so
//!    that a slip in one key does not make the whole pass unread.
//!
//! **In a MIME message** it is each part of type [`PART_TYPE`], and each `text/*` part whose first line is
//! `#quorate-config` (which is all that `cloud-init devel make-mime` can write). A type that names quorate
//! otherwise is an error. Lines are counted in the part as unpacked.
//!
//! The limit of 16 KB is EC2's, on the raw bytes ("Run commands when you launch an EC2 instance", EC2 user guide).

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use mailparse::{MailHeaderMap, ParsedMail};

use super::errors::{ConfigError, Problem, Source};
use super::fragments::{Fragment, MAX_BYTES};
use super::lookup;

/// The type of quorate's parts in a MIME message.
pub const PART_TYPE: &str = "application/vnd.quorate.config+yaml";
/// The first line of a document that is quorate's.
pub const HEADER: &str = "#quorate-config";

/// EC2's limit on user data, in bytes.
const MAX_RAW: usize = 16 * 1024;
const MAX_LAYERS: usize = 4;
/// A first line of base64 characters alone is base64 only from this length on: shorter ones are words.
const BASE64_LINE: usize = 16;

/// What user data holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserData {
    /// quorate's documents, in order.
    pub fragments: Vec<Fragment>,
    /// What is not quorate's: where, and what it is.
    pub passed_over: Vec<(Source, String)>,
}

/// Takes quorate's documents out of user data, adding what is wrong to `errors`.
pub(super) fn read(raw: &[u8], errors: &mut Vec<ConfigError>) -> UserData {
    let mut found = UserData::default();
    if raw.len() > MAX_RAW {
        let problem = Problem::TooLong { found: raw.len(), limit: MAX_RAW };
        errors.push(
            ConfigError::new(Source::UserData, problem)
                .hint("EC2 takes 16 KB at most: gzip it, or move settings to the image"),
        );
        return found;
    }
    match unpack(&Source::UserData, raw.to_vec()) {
        Ok(data) if is_mime(&data) => message(&data, &mut found, errors),
        Ok(data) => match Fragment::from_bytes(Source::UserData, data) {
            Ok(fragment) => document(fragment, &mut found),
            Err(error) => errors.push(error),
        },
        Err(error) => errors.push(error),
    }
    found
}

/// Takes off gzip and base64 until neither is left.
fn unpack(source: &Source, mut data: Vec<u8>) -> Result<Vec<u8>, ConfigError> {
    for _ in 0..MAX_LAYERS {
        data = if is_gzip(&data) {
            gunzip(source, &data)?
        } else if is_base64(&data) {
            decode(source, &data)?
        } else {
            return Ok(data);
        };
    }
    if is_gzip(&data) || is_base64(&data) {
        let problem = Problem::TooManyLayers { limit: MAX_LAYERS };
        return Err(ConfigError::new(source.clone(), problem).hint("pack it once"));
    }
    Ok(data)
}

fn is_gzip(data: &[u8]) -> bool {
    data.starts_with(&[0x1f, 0x8b])
}

/// A first line of base64 alone. Neither YAML with a key, nor a script, nor a MIME header looks like that.
fn is_base64(data: &[u8]) -> bool {
    let line = data.trim_ascii_start().split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    let letters = line.iter().rev().skip_while(|b| **b == b'=');
    line.len() >= BASE64_LINE
        && letters.clone().all(|b| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/')
}

fn gunzip(source: &Source, data: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let mut unpacked = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    MultiGzDecoder::new(data).take(limit).read_to_end(&mut unpacked).map_err(|cause| {
        ConfigError::new(source.clone(), Problem::BadGzip { cause: cause.to_string() })
            .hint("pack it again and compare the length with what arrived")
    })?;
    if unpacked.len() > MAX_BYTES {
        let problem = Problem::TooLong { found: unpacked.len(), limit: MAX_BYTES };
        return Err(
            ConfigError::new(source.clone(), problem).hint("it unpacks to far more than any configuration")
        );
    }
    Ok(unpacked)
}

fn decode(source: &Source, data: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let compact: Vec<u8> = data.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).map_err(|cause| {
        ConfigError::new(source.clone(), Problem::BadBase64 { cause: cause.to_string() })
            .hint("encode it again, padding included, and compare the length with what arrived")
    })
}

/// A document outside of MIME: quorate's, or passed over.
fn document(fragment: Fragment, found: &mut UserData) {
    if fragment.text.trim().is_empty() {
        return;
    }
    let first = first_line(&fragment.text);
    if first == HEADER || (!is_marked(first) && has_our_key(&fragment.text)) {
        found.fragments.push(fragment);
    } else {
        found.passed_over.push((fragment.source, super::yaml::shorten(first)));
    }
}

fn first_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or_default().trim_end()
}

/// Whether the first line says what the text is, to cloud-init or the kernel.
fn is_marked(first: &str) -> bool {
    const MARKS: [&str; 8] =
        ["#!", "#cloud-", "#include", "#upstart-job", "#part-handler", "## template:", "#cloudinit", "<"];
    MARKS.iter().any(|mark| first.starts_with(mark))
}

fn has_our_key(text: &str) -> bool {
    let ours = lookup::children("");
    text.lines().filter_map(|line| line.split_once(':')).any(|(word, rest)| {
        let word = word.trim_end().trim_matches(['"', '\'']);
        ours.contains(&word) && (rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
    })
}

/// A message begins with a header that MIME knows, or with mbox's line.
fn is_mime(data: &[u8]) -> bool {
    let head = data.trim_ascii_start();
    ["content-", "mime-version:", "from "].iter().any(|start| {
        head.get(..start.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(start.as_bytes()))
    })
}

fn bad_mime(source: Source, found: impl Into<String>, expected: impl Into<String>) -> ConfigError {
    let problem = Problem::BadMime { found: found.into(), expected: expected.into() };
    ConfigError::new(source, problem).hint("see the example cloud-init/control-plane.mime")
}

fn message(data: &[u8], found: &mut UserData, errors: &mut Vec<ConfigError>) {
    match mailparse::parse_mail(data.trim_ascii_start()) {
        Ok(mail) => {
            let single = mail.subparts.is_empty();
            let mut walk = Walk { leaves: 0, single, found, errors };
            walk.part(&mail);
        }
        Err(cause) => {
            errors.push(bad_mime(Source::UserData, cause.to_string(), "headers, a blank line, a body"));
        }
    }
}

struct Walk<'a> {
    leaves: usize,
    single: bool,
    found: &'a mut UserData,
    errors: &'a mut Vec<ConfigError>,
}

impl Walk<'_> {
    fn part(&mut self, mail: &ParsedMail<'_>) {
        if mail.ctype.mimetype.starts_with("multipart/") {
            match check_boundary(mail) {
                Ok(()) => mail.subparts.iter().for_each(|part| self.part(part)),
                Err(error) => self.errors.push(error),
            }
            return;
        }
        self.leaves += 1;
        let source = if self.single { Source::UserData } else { Source::UserDataPart(self.leaves) };
        match leaf(&source, mail) {
            Ok(Some(fragment)) => self.found.fragments.push(fragment),
            Ok(None) => {
                let what = super::yaml::shorten(&mail.ctype.mimetype);
                self.found.passed_over.push((source, what));
            }
            Err(error) => self.errors.push(error),
        }
    }
}

/// A multi-part has a boundary, the boundary occurs, and the closing one does too: else it was cut off.
fn check_boundary(mail: &ParsedMail<'_>) -> Result<(), ConfigError> {
    let Some(boundary) = mail.ctype.params.get("boundary").filter(|boundary| !boundary.is_empty()) else {
        let expected = "`boundary=…` in its Content-Type";
        return Err(bad_mime(Source::UserData, "a multi-part without a boundary", expected));
    };
    let shown = super::yaml::shorten(boundary);
    if mail.subparts.is_empty() {
        let found = format!("no line `--{shown}`");
        return Err(bad_mime(Source::UserData, found, "each part after such a line"));
    }
    let closing = format!("--{boundary}--");
    if !mail.raw_bytes.split(|b| *b == b'\n').any(|line| line.trim_ascii_end() == closing.as_bytes()) {
        let found = format!("no line `--{shown}--`");
        return Err(bad_mime(Source::UserData, found, "such a line after the last part (was it cut off?)"));
    }
    Ok(())
}

/// The fragment in a part that is no multi-part, if it is quorate's.
fn leaf(source: &Source, mail: &ParsedMail<'_>) -> Result<Option<Fragment>, ConfigError> {
    let kind = mail.ctype.mimetype.as_str();
    let ours = kind == PART_TYPE;
    if !ours && kind.contains("quorate") {
        let found = format!("a part of type `{}`", super::yaml::shorten(kind));
        return Err(bad_mime(source.clone(), found, format!("`{PART_TYPE}`")));
    }
    if !ours && !kind.starts_with("text/") {
        return Ok(None);
    }
    // Without the blank line, configuration is taken for headers, and the body is empty.
    let swallowed = mail.headers.iter().map(mailparse::MailHeader::get_key);
    if let Some(key) = swallowed.into_iter().find(|key| ours && lookup::children("").contains(&key.as_str()))
    {
        return Err(bad_mime(
            source.clone(),
            format!("`{key}` among the headers"),
            "a blank line before the body",
        ));
    }
    let body = match body(source, mail).and_then(|body| unpack(source, body)) {
        Ok(body) => body,
        // A part for somebody else may be packed as that one likes.
        Err(_) if !ours => return Ok(None),
        Err(error) => return Err(error),
    };
    if !ours && !body.trim_ascii_start().starts_with(HEADER.as_bytes()) {
        return Ok(None);
    }
    let fragment = Fragment::from_bytes(source.clone(), body)?;
    Ok((ours || first_line(&fragment.text) == HEADER).then_some(fragment))
}

/// The body, its transfer encoding taken off.
fn body(source: &Source, mail: &ParsedMail<'_>) -> Result<Vec<u8>, ConfigError> {
    let encoding = mail.headers.get_first_value("Content-Transfer-Encoding").unwrap_or_default();
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "7bit" | "8bit" | "binary" => Ok(raw_body(mail).to_vec()),
        "base64" => decode(source, raw_body(mail)),
        "quoted-printable" => mail
            .get_body_raw()
            .map_err(|cause| bad_mime(source.clone(), cause.to_string(), "a body in quoted-printable")),
        other => {
            let found = format!("Content-Transfer-Encoding `{}`", super::yaml::shorten(other));
            let expected = "`7bit`, `8bit`, `binary`, `base64` or `quoted-printable`";
            Err(bad_mime(source.clone(), found, expected))
        }
    }
}

fn raw_body<'a>(mail: &'a ParsedMail<'_>) -> &'a [u8] {
    match mail.get_body_encoded() {
        mailparse::body::Body::Base64(body) | mailparse::body::Body::QuotedPrintable(body) => body.get_raw(),
        mailparse::body::Body::SevenBit(body) | mailparse::body::Body::EightBit(body) => body.get_raw(),
        mailparse::body::Body::Binary(body) => body.get_raw(),
    }
}
