//! How bodies, keys and tokens are written on S3's wire.

use std::collections::BTreeMap;

use axum::body::Bytes;

use crate::lab::region::world::Refusal;

/// Unpacks an `aws-chunked` body: `SIZE[;EXTENSION]\r\nDATA\r\n … 0\r\nTRAILER: VALUE\r\n\r\n`. Signed
/// chunks have their signature as an extension, which is not verified, as no signature is.
pub(super) fn unchunk(raw: &[u8]) -> Result<(Bytes, BTreeMap<String, String>), Refusal> {
    let broken = || Refusal::bad("IncompleteBody", "the aws-chunked body is cut off or malformed");
    let mut body = Vec::new();
    let mut at = 0;
    let read_line = |at: &mut usize| -> Result<String, Refusal> {
        let tail = raw.get(*at..).ok_or_else(broken)?;
        let end = tail.windows(2).position(|w| w == b"\r\n").ok_or_else(broken)?;
        *at += end + 2;
        String::from_utf8(tail[..end].to_vec()).map_err(|_| broken())
    };
    loop {
        let head = read_line(&mut at)?;
        let size = head.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| broken())?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size).ok_or_else(broken)?;
        body.extend_from_slice(raw.get(at..end).ok_or_else(broken)?);
        if raw.get(end..end + 2) != Some(b"\r\n") {
            return Err(broken());
        }
        at = end + 2;
    }
    let mut trailers = BTreeMap::new();
    while at < raw.len() {
        let trailer = read_line(&mut at)?;
        if trailer.is_empty() {
            break;
        }
        let (name, value) = trailer.split_once(':').ok_or_else(broken)?;
        trailers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok((body.into(), trailers))
}

pub(super) fn encode_token(key: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key)
}

pub(super) fn decode_token(token: &str) -> Result<String, Refusal> {
    use base64::Engine as _;
    let wrong = || Refusal::bad("InvalidArgument", "The continuation token provided is incorrect");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}

pub(super) fn percent_decode(text: &str) -> Result<String, Refusal> {
    let broken = || Refusal::bad("InvalidURI", "Couldn't parse the specified URI.");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(broken)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| broken())?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

pub(super) fn percent_encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::region::world::crc32;

    #[test]
    fn chunked_bodies_are_unpacked_with_their_trailers() {
        let raw = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
        let (body, trailers) = unchunk(raw).unwrap();
        assert_eq!(body, "hello world");
        assert_eq!(trailers["x-amz-checksum-crc32"], crc32(b"hello world"));
    }

    #[test]
    fn a_chunked_body_that_is_cut_off_anywhere_is_refused() {
        let raw = b"5\r\nhello\r\n0\r\n";
        for length in 0..raw.len() {
            assert!(unchunk(&raw[..length]).is_err(), "{length}");
        }
    }
}
