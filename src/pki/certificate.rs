//! What every certificate here has in common: how it is read, named, dated and compared.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, GeneralName, Pem, X509Certificate};

use super::PkiError;
use crate::digest::sha256;
use crate::model::names::{HostName, NotAHostName};

/// How far back a certificate begins, so that a machine whose clock is a little behind takes it.
const BACKDATE: Duration = Duration::minutes(5);

/// How long a leaf on a node is valid. It is renewed at half of this.
const LEAF_LIFETIME: Duration = Duration::days(90);

/// How long a leaf is valid, and how far back it begins. The laboratory, and nothing without the feature `lab`, has
/// leaves that live shorter, by `QUORATE_LEAF_LIFETIME` in seconds: clocks can't be turned forward for etcd and its
/// clients, but a year of renewals can be had in a minute.
fn leaf_life() -> (Duration, Duration) {
    #[cfg(feature = "lab")]
    if let Some(seconds) = std::env::var("QUORATE_LEAF_LIFETIME").ok().and_then(|text| text.parse().ok()) {
        let lifetime = Duration::seconds(seconds);
        return (lifetime, lifetime / 10);
    }
    (LEAF_LIFETIME, BACKDATE)
}

/// A moment given in milliseconds since 1970, to the second.
pub(super) fn moment(millis: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)).map_err(|_| PkiError::Moment { millis })
}

/// Names, dates and a random serial number: what is asked of every certificate.
pub(super) fn params(
    common_name: &str,
    organization: Option<&str>,
    now: i64,
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let begin = moment(now)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = begin.checked_sub(BACKDATE).ok_or(PkiError::Moment { millis: now })?;
    params.not_after = begin.checked_add(lifetime).ok_or(PkiError::Moment { millis: now })?;
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// What a certificate is for that signs no others. Every key here is one for signatures.
pub(super) fn leaf(
    common_name: &str,
    organization: Option<&str>,
    now: i64,
    purposes: &[ExtendedKeyUsagePurpose],
) -> Result<CertificateParams, PkiError> {
    let (lifetime, backdate) = leaf_life();
    let mut params = params(common_name, organization, now, lifetime)?;
    params.not_before = moment(now)?.checked_sub(backdate).ok_or(PkiError::Moment { millis: now })?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes.to_vec();
    Ok(params)
}

/// 126 random bits, never negative and always of the same length (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = super::random::<16>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A certificate that could be read.
pub(super) struct Certificate {
    of: &'static str,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate from PEM. Anything but exactly one certificate is refused.
    pub fn from_pem(of: &'static str, pem: &[u8]) -> Result<Self, PkiError> {
        let damaged = |found: String| PkiError::Certificate { of, found };
        let mut blocks = Pem::iter_from_buffer(pem);
        let block = match blocks.next() {
            Some(Ok(block)) => block,
            Some(Err(error)) => return Err(damaged(error.to_string())),
            None => return Err(damaged("no PEM block".to_owned())),
        };
        if block.label != "CERTIFICATE" {
            return Err(damaged(format!("a PEM block named {:?}", block.label)));
        }
        if blocks.next().is_some() {
            return Err(damaged("more than one PEM block".to_owned()));
        }
        match X509Certificate::from_der(&block.contents) {
            Ok(([], _)) => Ok(Self { of, der: block.contents }),
            Ok((rest, _)) => Err(damaged(format!("{} bytes after its end", rest.len()))),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    fn parsed(&self) -> Result<X509Certificate<'_>, PkiError> {
        let (_, parsed) = X509Certificate::from_der(&self.der)
            .map_err(|error| PkiError::Certificate { of: self.of, found: error.to_string() })?;
        Ok(parsed)
    }

    fn damaged(&self, found: impl Into<String>) -> PkiError {
        PkiError::Certificate { of: self.of, found: found.into() }
    }

    /// SHA-256 of the DER, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        sha256(&self.der)
    }

    /// Beginning and end of its validity, in milliseconds since 1970.
    pub fn validity(&self) -> Result<(i64, i64), PkiError> {
        let parsed = self.parsed()?;
        let validity = parsed.validity();
        Ok((validity.not_before.timestamp() * 1000, validity.not_after.timestamp() * 1000))
    }

    /// Refuses a certificate that may not sign others, or was not signed by itself.
    pub fn must_be_an_authority(&self) -> Result<(), PkiError> {
        let parsed = self.parsed()?;
        let not = |found: &str| PkiError::NotAnAuthority { of: self.of, found: found.to_owned() };
        if !parsed.is_ca() {
            return Err(not("its basic constraints do not say CA"));
        }
        match parsed.key_usage().map_err(|error| self.damaged(error.to_string()))? {
            Some(usage) if usage.value.key_cert_sign() => {}
            _ => return Err(not("its key is not for signing certificates")),
        }
        parsed.verify_signature(None).map_err(|_| not("it was not signed by its own key"))
    }

    /// Refuses a certificate that `authority` did not sign.
    pub fn must_be_signed_by(&self, authority: &Certificate) -> Result<(), PkiError> {
        let (own, issuer) = (self.parsed()?, authority.parsed()?);
        if own.issuer() != issuer.subject() {
            return Err(self.damaged(format!("signed by {}, expected {}", own.issuer(), issuer.subject())));
        }
        own.verify_signature(Some(issuer.public_key()))
            .map_err(|_| self.damaged("its signature is not the authority's"))
    }

    /// Refuses a certificate that is not for what it is to be used for.
    pub fn must_serve(&self, server: bool, client: bool) -> Result<(), PkiError> {
        let parsed = self.parsed()?;
        let usage = parsed.extended_key_usage().map_err(|error| self.damaged(error.to_string()))?;
        match usage {
            Some(usage) if usage.value.server_auth >= server && usage.value.client_auth >= client => Ok(()),
            _ => Err(self.damaged("its extended key usage is another")),
        }
    }

    /// Refuses a key that is not this certificate's.
    pub fn must_match(&self, key: &KeyPair) -> Result<(), PkiError> {
        if self.parsed()?.public_key().subject_public_key.data.as_ref() == key.der_bytes() {
            Ok(())
        } else {
            Err(PkiError::KeyMismatch { of: self.of })
        }
    }

    /// Refuses a leaf that is not all of this: the owner of `key`, signed by `authority`, and for
    /// serving and asking as far as each is wanted.
    pub fn must_be_the_leaf(
        &self,
        key: &KeyPair,
        authority: &Certificate,
        serves: bool,
        asks: bool,
    ) -> Result<(), PkiError> {
        self.must_match(key)?;
        self.must_be_signed_by(authority)?;
        self.must_serve(serves, asks)
    }

    /// The names and addresses that it is for, in order. Of other kinds of names nothing is said.
    pub fn host_names(&self) -> Result<Vec<HostName>, PkiError> {
        let parsed = self.parsed()?;
        let names = parsed.subject_alternative_name().map_err(|error| self.damaged(error.to_string()))?;
        let mut hosts = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::IPAddress(octets) => {
                    let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                    let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                    let address = address.map_err(|_| self.damaged("it names half of an address"))?;
                    hosts.push(HostName::Address(address));
                }
                GeneralName::DNSName(name) => {
                    hosts.push(name.parse().map_err(|error| self.damaged(format!("{error}")))?);
                }
                _ => {}
            }
        }
        Ok(hosts)
    }

    /// The IPv4 addresses that it names, in order.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>, PkiError> {
        let names = self.host_names()?.into_iter();
        Ok(names
            .filter_map(|name| match name {
                HostName::Address(IpAddr::V4(address)) => Some(address),
                HostName::Address(IpAddr::V6(_)) | HostName::Dns(_) => None,
            })
            .collect())
    }

    /// The common name of its subject.
    pub fn common_name(&self) -> Result<String, PkiError> {
        let parsed = self.parsed()?;
        let mut names = parsed.subject().iter_common_name();
        let name = names.next().and_then(|name| name.as_str().ok());
        name.map(str::to_owned).ok_or_else(|| self.damaged("it has no common name"))
    }
}

/// Reads a private key from PEM.
pub(super) fn key_from_pem(of: &'static str, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|source| PkiError::Key { of, source })
}

/// A name or an address as a subject's alternative name.
pub(super) fn alternative_name(name: &HostName) -> Result<rcgen::SanType, PkiError> {
    Ok(match name {
        HostName::Address(address) => rcgen::SanType::IpAddress(*address),
        HostName::Dns(name) => {
            let name = name.as_str().try_into();
            rcgen::SanType::DnsName(name.map_err(|source| PkiError::Make { what: "a DNS name", source })?)
        }
    })
}

/// DER as PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a character's.
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// What is wrong with the name `found` of `what`.
pub(super) fn not_a_name(what: &'static str, found: String) -> impl FnOnce(NotAHostName) -> PkiError {
    move |NotAHostName| PkiError::Name { what, found, why: "it is neither an IP address nor a DNS name" }
}
