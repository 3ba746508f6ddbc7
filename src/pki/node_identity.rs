//! The client certificate that a kubelet was given, and its key, in the one file that the kubelet keeps them in.
//!
//! The kubelet makes the key, asks for the certificate and renews it; here it is only read. Source:
//! `certificate_store.go` in client-go: a certificate, the chain that it may have, and its key, each in PEM.

use x509_parser::prelude::Pem;

use super::certificate::{Certificate, pem};
use super::{PkiError, Secret};

const OF: &str = "the kubelet";

/// A node's identity.
pub struct NodeIdentity {
    leaf: Certificate,
    certificates: String,
    key: Secret,
}

impl NodeIdentity {
    /// Reads the file. Whether the key is the certificate's is not looked at: whoever uses both finds out.
    ///
    /// # Errors
    /// It holds no certificate, or no key. What it holds is not repeated.
    pub fn read(bytes: &[u8]) -> Result<Self, PkiError> {
        let damaged = |found: &str| PkiError::Certificate { of: OF, found: found.to_owned() };
        let (mut certificates, mut key) = (Vec::new(), None);
        for block in Pem::iter_from_buffer(bytes) {
            let block = block.map_err(|error| damaged(&error.to_string()))?;
            let text = pem(&block.label, &block.contents);
            if block.label == "CERTIFICATE" {
                certificates.push(text);
            } else if block.label.ends_with("PRIVATE KEY") {
                key = Some(Secret::new(text));
            }
        }
        let first = certificates.first().ok_or_else(|| damaged("no certificate in PEM"))?;
        let leaf = Certificate::from_pem(OF, first.as_bytes())?;
        let key = key.ok_or_else(|| damaged("no private key in PEM beside it"))?;
        Ok(Self { leaf, certificates: certificates.concat(), key })
    }

    /// Whom it makes its owner.
    ///
    /// # Errors
    /// It names nobody.
    pub fn user(&self) -> Result<String, PkiError> {
        self.leaf.common_name()
    }

    /// The end of its validity, in milliseconds since 1970.
    ///
    /// # Errors
    /// It can't be read.
    pub fn not_after(&self) -> Result<i64, PkiError> {
        Ok(self.leaf.validity()?.1)
    }

    /// Whether the authority with this certificate, in PEM, signed it.
    pub fn is_signed_by(&self, authority: &str) -> bool {
        let authority = Certificate::from_pem("the cluster's authority", authority.as_bytes());
        authority.is_ok_and(|authority| self.leaf.must_be_signed_by(&authority).is_ok())
    }

    /// The certificate and its chain, in PEM.
    pub fn certificates(&self) -> &str {
        &self.certificates
    }

    /// The key, in PEM.
    pub fn key(&self) -> &Secret {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), certificate)
    }

    #[test]
    fn a_kubelets_file_says_who_it_is_and_who_vouches_for_it() {
        let (issuer, own) = authority("one");
        let (_, same_name) = authority("one");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "system:node:i-0123456789abcdef0");
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let file = format!("{}{}", leaf.pem(), key.serialize_pem());
        let read = NodeIdentity::read(file.as_bytes()).unwrap();
        assert_eq!(read.user().unwrap(), "system:node:i-0123456789abcdef0");
        assert!(read.not_after().unwrap() > 0);
        assert!(read.is_signed_by(&own));
        assert!(!read.is_signed_by(&same_name), "a name is no signature");
        assert!(!read.is_signed_by("no certificate"));
        let der = |text: &str| x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap().1.contents;
        assert_eq!(der(read.certificates()), der(&leaf.pem()));
        assert_eq!(der(read.key().expose()), der(&key.serialize_pem()));
    }

    #[test]
    fn half_a_file_is_none() {
        let (_, certificate) = authority("one");
        let key = KeyPair::generate().unwrap().serialize_pem();
        for half in ["", "text", &certificate, &key, &certificate[..100]] {
            let Err(error) = NodeIdentity::read(half.as_bytes()) else { panic!("{half}") };
            assert!(!crate::model::fact::chain(&error).contains("PRIVATE KEY-----"), "{error}");
        }
    }
}
