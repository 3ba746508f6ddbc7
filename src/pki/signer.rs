//! Who signs: a certificate that may sign others, with its key.
//!
//! Every authority of the cluster is one of these. What must not live here: which authorities there
//! are and how they are kept.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::certificate::{self, Certificate};
use super::{PkiError, Secret};

/// Ten years: nobody is to be woken by an authority's end while the cluster lives, and its key is
/// replaced by a rotation, which waits for no date.
pub(super) const LIFETIME: Duration = Duration::days(3652);

/// A certificate that may sign others, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    of: &'static str,
    certificate: String,
    key: Secret,
    fingerprint: String,
    not_before: i64,
    not_after: i64,
}

impl Signer {
    /// Makes a new one, valid for ten years from five minutes ago. `now` is in milliseconds since
    /// 1970.
    pub fn create(of: &'static str, name: &str, organization: &str, now: i64) -> Result<Self, PkiError> {
        let make = |source| PkiError::Make { what: of, source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = certificate::params(name, Some(organization), now, LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(make)?.pem();
        Self::from_parts(of, pem, Secret::new(key.serialize_pem()))
    }

    /// Holds a certificate and a key against each other.
    pub fn from_parts(of: &'static str, certificate: String, key: Secret) -> Result<Self, PkiError> {
        let own = Certificate::from_pem(of, certificate.as_bytes())?;
        own.must_match(&certificate::key_from_pem(of, key.expose())?)?;
        own.must_be_an_authority()?;
        let (not_before, not_after) = own.validity()?;
        Ok(Self { of, fingerprint: own.fingerprint(), certificate, key, not_before, not_after })
    }

    /// The certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key.
    pub fn key(&self) -> &Secret {
        &self.key
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The beginning of its validity, in milliseconds since 1970.
    #[cfg(test)]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// The end of its validity, in milliseconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Makes ready to sign. Outside of its validity it refuses. `now` is in milliseconds since 1970.
    pub fn open(&self, now: i64) -> Result<OpenSigner, PkiError> {
        let Self { of, not_before, not_after, .. } = *self;
        if now >= not_after {
            return Err(PkiError::AuthorityExpired { of, not_after, now });
        }
        if now < not_before {
            return Err(PkiError::AuthorityNotYetValid { of, not_before, now });
        }
        let key = certificate::key_from_pem(of, self.key.expose())?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key)
            .map_err(|source| PkiError::Make { what: of, source })?;
        Ok(OpenSigner { issuer, end: certificate::moment(not_after)? })
    }
}

/// A signer whose key has been read.
pub(super) struct OpenSigner {
    issuer: Issuer<'static, KeyPair>,
    end: OffsetDateTime,
}

/// A certificate and its key.
pub(super) struct Signed {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key.
    pub key: Secret,
}

impl OpenSigner {
    /// Makes a key and signs a certificate for it, valid no longer than the authority.
    pub fn sign(&self, what: &'static str, params: CertificateParams) -> Result<Signed, PkiError> {
        let (certificate, key) = self.make(what, params)?;
        Ok(Signed { certificate: certificate.pem(), key })
    }

    /// The same for a subject in several organizations, which Kubernetes takes for groups.
    pub fn sign_in_groups(
        &self,
        what: &'static str,
        params: CertificateParams,
        groups: &[&str],
    ) -> Result<Signed, PkiError> {
        let (certificate, key) = self.make(what, params)?;
        let der = super::subject::in_groups(what, certificate.der(), groups, self.issuer.key())?;
        Ok(Signed { certificate: certificate::pem("CERTIFICATE", &der), key })
    }

    fn make(
        &self,
        what: &'static str,
        mut params: CertificateParams,
    ) -> Result<(rcgen::Certificate, Secret), PkiError> {
        params.not_after = params.not_after.min(self.end);
        let make = |source| PkiError::Make { what, source };
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok((certificate, Secret::new(key.serialize_pem())))
    }
}
