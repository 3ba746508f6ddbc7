//! A subject that belongs to several organizations.
//!
//! Kubernetes takes each organization (`O`) of a client's subject for a group ("Authenticating",
//! X509 client certificates). rcgen keeps one value an attribute, so a subject with several is
//! written here, into a certificate that rcgen made, which is then signed again.

use rcgen::{KeyPair, SigningKey as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::PkiError;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
/// `id-at-organizationName`, 2.5.4.10, as an object identifier.
const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];

/// The certificate `der` with `groups` before what its subject names already, signed by `key`.
pub(super) fn in_groups(
    what: &'static str,
    der: &[u8],
    groups: &[&str],
    key: &KeyPair,
) -> Result<Vec<u8>, PkiError> {
    let damaged = |found: String| PkiError::Certificate { of: what, found };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| damaged(error.to_string()))?;
    let whole = content(der).ok_or_else(|| damaged("no sequence".to_owned()))?;
    let tbs = parsed.tbs_certificate.as_ref();
    let subject = parsed.subject().as_raw();
    let fields = content(tbs).ok_or_else(|| damaged("no sequence".to_owned()))?;
    let names = content(subject).ok_or_else(|| damaged("no sequence".to_owned()))?;
    // What was parsed lies within what it was parsed from.
    let start = subject.as_ptr().addr() - fields.as_ptr().addr();
    let (before, after) = (&fields[..start], &fields[start + subject.len()..]);
    let algorithm = &whole[tbs.len()..];
    let algorithm = &algorithm[..algorithm.len() - value(BIT_STRING, &bits(&parsed)).len()];

    let mut groups: Vec<u8> = groups.iter().flat_map(|group| organization(group)).collect();
    groups.extend_from_slice(names);
    let tbs = value(SEQUENCE, &[before, &value(SEQUENCE, &groups), after].concat());
    let signature = key.sign(&tbs).map_err(|source| PkiError::Make { what, source })?;
    let signature = value(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(value(SEQUENCE, &[&tbs, algorithm, &signature].concat()))
}

fn bits(certificate: &X509Certificate<'_>) -> Vec<u8> {
    [&[certificate.signature_value.unused_bits], certificate.signature_value.data.as_ref()].concat()
}

fn organization(group: &str) -> Vec<u8> {
    let attribute = [ORGANIZATION.as_slice(), &value(UTF8_STRING, group.as_bytes())].concat();
    value(SET, &value(SEQUENCE, &attribute))
}

/// A value in DER: its tag, its length, itself.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match length {
        [] => der.push(0),
        [short @ ..=0x7f] => der.push(*short),
        // There are at most eight of them.
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(u8::MAX));
            der.extend_from_slice(long);
        }
    }
    der.extend_from_slice(content);
    der
}

/// What is inside of a value in DER.
fn content(der: &[u8]) -> Option<&[u8]> {
    match der.get(1)? {
        length @ 0x80.. => der.get(2 + usize::from(length & 0x7f)..),
        _ => der.get(2..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_der_has_them() {
        for (length, header) in [
            (0, vec![SEQUENCE, 0]),
            (127, vec![SEQUENCE, 127]),
            (128, vec![SEQUENCE, 0x81, 128]),
            (255, vec![SEQUENCE, 0x81, 255]),
            (256, vec![SEQUENCE, 0x82, 1, 0]),
            (65_536, vec![SEQUENCE, 0x83, 1, 0, 0]),
        ] {
            let bytes = vec![7; length];
            let der = value(SEQUENCE, &bytes);
            assert_eq!(der[..header.len()], header);
            assert_eq!(content(&der).unwrap(), bytes);
        }
    }
}
