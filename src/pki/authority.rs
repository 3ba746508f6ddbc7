//! The etcd authority: who signs the certificates of etcd's servers, peers and clients.
//!
//! One a cluster, made once, kept in S3 as a bundle (`pki/etcd.json`) that holds its key too, so
//! only control-plane nodes may read it.

use serde::{Deserialize, Serialize};

use super::signer::Signer;
use super::{PkiError, Secret, bundle};
use crate::model::{Authority, ClusterName};

const OF: &str = "the etcd authority";
const VERSION: u32 = 1;

/// The etcd authority, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAuthority {
    cluster: ClusterName,
    signer: Signer,
}

/// The form in S3.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    version: u32,
    cluster: String,
    certificate: String,
    key: Secret,
}

impl EtcdAuthority {
    /// Makes a new authority for a cluster, valid for ten years from five minutes ago.
    /// `now` is in milliseconds since 1970.
    pub fn create(cluster: &ClusterName, now: i64) -> Result<Self, PkiError> {
        let signer = Signer::create(OF, &format!("{cluster} etcd authority"), cluster.as_str(), now)?;
        Ok(Self { cluster: cluster.clone(), signer })
    }

    /// Reads the bundle of S3 and holds it against itself and against the cluster it should be of.
    ///
    /// An authority whose validity has ended is read all the same, so that it can be told about;
    /// it signs nothing any more.
    pub fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, PkiError> {
        let bundle: Bundle = bundle::read(OF, bytes, VERSION, cluster)?;
        let signer = Signer::from_parts(OF, bundle.certificate, bundle.key)?;
        Ok(Self { cluster: cluster.clone(), signer })
    }

    /// The bundle for S3. It holds the key.
    pub fn bundle(&self) -> Result<Vec<u8>, PkiError> {
        let bundle = Bundle {
            version: VERSION,
            cluster: self.cluster.to_string(),
            certificate: self.certificate().to_owned(),
            key: self.signer.key().clone(),
        };
        bundle::write(OF, &bundle)
    }

    /// What the planner is told: everything but the key.
    pub fn summary(&self) -> Authority {
        Authority { fingerprint: self.signer.fingerprint().to_owned(), not_after: self.signer.not_after() }
    }

    /// The cluster whose authority it is.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The certificate, in PEM.
    pub fn certificate(&self) -> &str {
        self.signer.certificate()
    }

    /// Who signs.
    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::super::certificate;
    use super::super::signer::LIFETIME;
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn cluster() -> ClusterName {
        "prod".parse().unwrap()
    }

    fn bundle_of(authority: &EtcdAuthority, change: impl FnOnce(&mut Bundle)) -> Vec<u8> {
        let mut bundle: Bundle = serde_json::from_slice(&authority.bundle().unwrap()).unwrap();
        change(&mut bundle);
        serde_json::to_vec(&bundle).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let authority = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let read = EtcdAuthority::parse(&authority.bundle().unwrap(), &cluster()).unwrap();
        assert_eq!(read, authority);
        assert_eq!(read.summary().fingerprint.len(), 64);
        assert_eq!(read.summary().not_after, NOW + LIFETIME.whole_seconds() * 1000);
        assert_eq!(read.signer.not_before(), NOW - 300_000);
    }

    #[test]
    fn two_authorities_are_told_apart() {
        let one = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let two = EtcdAuthority::create(&cluster(), NOW).unwrap();
        assert_ne!(one.summary().fingerprint, two.summary().fingerprint);
    }

    #[test]
    fn the_key_is_never_printed() {
        let authority = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let printed = format!("{authority:?}");
        assert!(printed.contains("<redacted>"), "{printed}");
        assert!(!printed.contains("PRIVATE KEY"), "{printed}");
    }

    #[test]
    fn another_clusters_authority_is_refused() {
        let authority = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let other = "other".parse().unwrap();
        assert!(matches!(
            EtcdAuthority::parse(&authority.bundle().unwrap(), &other),
            Err(PkiError::WrongCluster { found, expected, .. }) if found == "prod" && expected == "other"
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let key = Secret::new(KeyPair::generate().unwrap().serialize_pem());
        let bytes = bundle_of(&authority, |bundle| bundle.key = key);
        assert!(matches!(EtcdAuthority::parse(&bytes, &cluster()), Err(PkiError::KeyMismatch { .. })));
    }

    #[test]
    fn damage_is_refused_and_named() {
        let authority = EtcdAuthority::create(&cluster(), NOW).unwrap();
        let parse = |bytes: &[u8]| EtcdAuthority::parse(bytes, &cluster());
        let whole = authority.bundle().unwrap();
        assert!(matches!(parse(&whole[..whole.len() - 9]), Err(PkiError::Bundle { .. })));
        assert!(matches!(parse(b""), Err(PkiError::Bundle { .. })));
        let certificate = bundle_of(&authority, |bundle| {
            bundle.certificate.truncate(bundle.certificate.len() / 2);
        });
        assert!(matches!(parse(&certificate), Err(PkiError::Certificate { .. })));
        let twice = bundle_of(&authority, |bundle| bundle.certificate = bundle.certificate.repeat(2));
        assert!(matches!(parse(&twice), Err(PkiError::Certificate { .. })));
        let key =
            bundle_of(&authority, |bundle| bundle.key = Secret::new(bundle.key.expose().replace('A', "?")));
        assert!(matches!(parse(&key), Err(PkiError::Key { .. })));
        let later = bundle_of(&authority, |bundle| bundle.version = 2);
        assert!(matches!(parse(&later), Err(PkiError::BundleVersion { found: 2, expected: 1, .. })));
        let more = String::from_utf8(whole).unwrap().replacen('{', "{\"more\":1,", 1);
        assert!(matches!(parse(more.as_bytes()), Err(PkiError::Bundle { .. })));
    }

    #[test]
    fn a_certificate_that_may_not_sign_is_refused() {
        let key = KeyPair::generate().unwrap();
        let params = certificate::params("prod", Some("prod"), NOW, LIFETIME).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert!(matches!(
            Signer::from_parts(OF, pem, Secret::new(key.serialize_pem())),
            Err(PkiError::NotAnAuthority { .. })
        ));
    }
}
