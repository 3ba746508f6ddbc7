//! Kubernetes' authorities and keys: one bundle in S3, made once, for control-plane nodes only.
//!
//! - The **cluster authority** signs the API server's certificate and those of its clients.
//! - The **front-proxy authority** signs the certificate with which the API server shows itself to
//!   aggregated API servers. It is another, since whoever it signs for may say who a caller is.
//! - **Service-account keys** sign and verify the tokens of pods: ECDSA on P-256 (ES256). It is
//!   taken by kube-apiserver, and by AWS for roles of service accounts ("Tokens must be signed using
//!   either RSA keys (RS256, RS384, or RS512) or ECDSA keys (ES256, ES384, or ES512)", STS
//!   AssumeRoleWithWebIdentity). RSA would have to be made elsewhere: `ring` makes none; where a
//!   cluster brings RSA keys in its bundle, they are used.
//! - **Encryption keys**, 32 bytes each, for what etcd stores: for the provider `secretbox`
//!   (XSalsa20 and Poly1305), the strongest that the API server has without a key management
//!   service. Of the others, `aescbc` is not authenticated, and `aesgcm` must have a new key every
//!   200,000 writes ("Encrypting Confidential Data at Rest").
//!
//! Keys are lists so that they can be rotated: the first is used, all are accepted.
//!
//! One **fingerprint** stands for all of it, the encryption keys too: with other ones the API server could
//! read no secret any more, so a bundle that has others is as much another cluster's as one with another CA.
//! It is written down in etcd when the bundle was made, and a bundle that does not have it is not used. A
//! rotation therefore changes both: first the bundle, by compare-and-set, with the new key second (it
//! decrypts, and encrypts nothing yet), then the fingerprint in etcd, by compare-and-set from the old one;
//! the fingerprint stands in the API servers' manifests, so that they are then changed one after the other,
//! under their lock. When all have it, the same again with the new key first; and when every secret was
//! written anew, once more without the old key. A machine that sees
//! the one write and not yet the other halts as with a wrong bundle, and goes on when it sees both; what runs
//! there runs on.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PublicKeyData as _};
use serde::{Deserialize, Serialize};
use time::Duration;

use super::certificate;
use super::signer::Signer;
use super::{PkiError, Secret, bundle};
use crate::digest::sha256;
use crate::model::{Authority, ClusterName};

const OF: &str = "Kubernetes' authorities";
const CLUSTER: &str = "the cluster authority";
const FRONT_PROXY: &str = "the front-proxy authority";
const SERVICE_ACCOUNT: &str = "the service accounts";
const VERSION: u32 = 1;
const ENCRYPTION_KEY_LENGTH: usize = 32;

/// The group that may do everything in the cluster, whatever its roles say.
pub const MASTERS: &str = "system:masters";

/// Kubernetes' authorities and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAuthorities {
    cluster: ClusterName,
    authority: Signer,
    front_proxy: Signer,
    service_account_keys: Vec<Secret>,
    service_account_public: String,
    encryption_keys: Vec<EncryptionKey>,
    fingerprint: String,
}

/// A key for what etcd stores, for the provider `secretbox`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKey {
    /// Its name, by which stored values name it: it is not secret, and is never used again.
    pub name: String,
    /// The 32 bytes in base64, as the API server's `EncryptionConfiguration` has them.
    pub secret: Secret,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A certificate of a person, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: Secret,
    /// SHA-256 of the certificate in DER, in hexadecimal. The API server's audit log has it as the
    /// user's `authentication.kubernetes.io/credential-id`, after `X509SHA256=`.
    pub fingerprint: String,
    /// The end of its validity, in milliseconds since 1970.
    pub not_after: i64,
}

/// The form in S3.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Bundle {
    version: u32,
    cluster: String,
    authority: Pair,
    front_proxy_authority: Pair,
    service_account_keys: Vec<Secret>,
    encryption_keys: Vec<EncryptionKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    certificate: String,
    key: Secret,
}

impl Pair {
    fn of(signer: &Signer) -> Self {
        Self { certificate: signer.certificate().to_owned(), key: signer.key().clone() }
    }
}

impl ClusterAuthorities {
    /// Makes new authorities and keys for a cluster; the authorities are valid for ten years from
    /// five minutes ago. `now` is in milliseconds since 1970.
    pub fn create(cluster: &ClusterName, now: i64) -> Result<Self, PkiError> {
        let name = cluster.as_str();
        let key = KeyPair::generate()
            .map_err(|source| PkiError::Make { what: "the service accounts' key", source })?;
        let bytes = super::random::<ENCRYPTION_KEY_LENGTH>()?;
        let encryption = EncryptionKey { name: "key1".to_owned(), secret: Secret::new(BASE64.encode(bytes)) };
        Self::from_parts(
            cluster.clone(),
            Signer::create(CLUSTER, &format!("{name} cluster authority"), name, now)?,
            Signer::create(FRONT_PROXY, &format!("{name} front-proxy authority"), name, now)?,
            vec![Secret::new(key.serialize_pem())],
            vec![encryption],
        )
    }

    /// Reads the bundle of S3 and holds it against itself and against the cluster it should be of.
    ///
    /// Authorities whose validity has ended are read all the same, so that they can be told about;
    /// they sign nothing any more.
    pub fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, PkiError> {
        let bundle: Bundle = bundle::read(OF, bytes, VERSION, cluster)?;
        let signer = |of, pair: Pair| Signer::from_parts(of, pair.certificate, pair.key);
        Self::from_parts(
            cluster.clone(),
            signer(CLUSTER, bundle.authority)?,
            signer(FRONT_PROXY, bundle.front_proxy_authority)?,
            bundle.service_account_keys,
            bundle.encryption_keys,
        )
    }

    fn from_parts(
        cluster: ClusterName,
        authority: Signer,
        front_proxy: Signer,
        service_account_keys: Vec<Secret>,
        encryption_keys: Vec<EncryptionKey>,
    ) -> Result<Self, PkiError> {
        if authority.fingerprint() == front_proxy.fingerprint() {
            let found = "the front-proxy authority is the cluster authority".to_owned();
            return Err(PkiError::BundlePart { of: OF, found });
        }
        let service_account_public = public_keys(&service_account_keys)?;
        must_encrypt(&encryption_keys)?;
        let fingerprint = fingerprint(
            authority.fingerprint(),
            front_proxy.fingerprint(),
            &service_account_public,
            &encryption_keys,
        );
        Ok(Self {
            cluster,
            authority,
            front_proxy,
            service_account_keys,
            service_account_public,
            encryption_keys,
            fingerprint,
        })
    }

    /// The bundle for S3. It holds the keys.
    pub fn bundle(&self) -> Result<Vec<u8>, PkiError> {
        let bundle = Bundle {
            version: VERSION,
            cluster: self.cluster.to_string(),
            authority: Pair::of(&self.authority),
            front_proxy_authority: Pair::of(&self.front_proxy),
            service_account_keys: self.service_account_keys.clone(),
            encryption_keys: self.encryption_keys.clone(),
        };
        bundle::write(OF, &bundle)
    }

    /// SHA-256, in hexadecimal, over both authorities' certificates, the public service-account keys, and
    /// the encryption keys' own digests, all in their order. It is no secret: nobody finds 32 random bytes
    /// by their digest.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The earlier end of the two authorities' validity, in milliseconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.authority.not_after().min(self.front_proxy.not_after())
    }

    /// What the planner is told: everything but the keys.
    pub fn summary(&self) -> Authority {
        Authority { fingerprint: self.fingerprint.clone(), not_after: self.not_after() }
    }

    /// The cluster whose authorities they are.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The cluster authority's certificate, in PEM.
    pub fn certificate(&self) -> &str {
        self.authority.certificate()
    }

    /// The front-proxy authority's certificate, in PEM.
    pub fn front_proxy_certificate(&self) -> &str {
        self.front_proxy.certificate()
    }

    /// The public keys of the service accounts, in PEM, in one text: the signing one first.
    pub fn service_account_public(&self) -> &str {
        &self.service_account_public
    }

    /// The keys for what etcd stores: the first encrypts, all decrypt. There is one at least.
    pub fn encryption_keys(&self) -> &[EncryptionKey] {
        &self.encryption_keys
    }

    /// The key that signs the tokens of service accounts.
    pub(super) fn service_account_key(&self) -> &Secret {
        // `public_keys` refuses an empty list.
        &self.service_account_keys[0]
    }

    /// The cluster authority.
    pub(super) fn authority(&self) -> &Signer {
        &self.authority
    }

    /// The front-proxy authority.
    pub(super) fn front_proxy(&self) -> &Signer {
        &self.front_proxy
    }

    /// Signs a certificate for a person, with a fresh key, that is valid for `ttl` from now (and
    /// from five minutes ago), but not beyond the cluster authority. `now` is in milliseconds since
    /// 1970.
    ///
    /// Nobody becomes a part of Kubernetes by it: names that begin with `system:` are refused,
    /// except for the group `system:masters`.
    pub fn sign_client(
        &self,
        user: &str,
        groups: &[&str],
        ttl: std::time::Duration,
        now: i64,
    ) -> Result<ClientCertificate, PkiError> {
        const WHAT: &str = "a person's certificate";
        must_name_a_person("the user", user)?;
        for group in groups.iter().filter(|group| **group != MASTERS) {
            must_name_a_person("the group", group)?;
        }
        let bad = |why| PkiError::Name { what: "a lifetime of", found: format!("{ttl:?}"), why };
        if ttl.as_secs() == 0 {
            return Err(bad("it is shorter than a second"));
        }
        let lifetime = Duration::try_from(ttl).map_err(|_| bad("it is longer than time is counted"))?;
        let authority = self.authority.open(now)?;
        let mut params = certificate::leaf(user, None, now, &[ExtendedKeyUsagePurpose::ClientAuth])?;
        let end = certificate::moment(now)?.checked_add(lifetime);
        params.not_after = end.ok_or_else(|| bad("no certificate can name its end"))?;
        let signed = authority.sign_in_groups(WHAT, params, groups)?;
        let own = certificate::Certificate::from_pem(WHAT, signed.certificate.as_bytes())?;
        let (fingerprint, (_, not_after)) = (own.fingerprint(), own.validity()?);
        Ok(ClientCertificate { certificate: signed.certificate, key: signed.key, fingerprint, not_after })
    }
}

/// One SHA-256 for all authorities and keys. Both certificates are given by their fingerprints, the public
/// keys as PEM.
pub(super) fn fingerprint(
    authority: &str,
    front_proxy: &str,
    service_account_public: &str,
    encryption_keys: &[EncryptionKey],
) -> String {
    let mut text = format!("{authority}\n{front_proxy}\n{service_account_public}\n");
    for EncryptionKey { name, secret } in encryption_keys {
        text.push_str(&format!("{name} {}\n", sha256(secret.expose().as_bytes())));
    }
    sha256(text.as_bytes())
}

/// The public halves of the service-account keys, which must be of a kind that kube-apiserver signs
/// with (`pkg/serviceaccount/jwt.go`).
fn public_keys(keys: &[Secret]) -> Result<String, PkiError> {
    let refused = |found: &str| PkiError::BundlePart { of: OF, found: found.to_owned() };
    if keys.is_empty() {
        return Err(refused("there is no service-account key"));
    }
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    for key in keys {
        let key = certificate::key_from_pem(SERVICE_ACCOUNT, key.expose())?;
        let kinds = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256];
        if !kinds.iter().any(|kind| key.is_compatible(kind)) {
            return Err(refused("a service-account key is neither ECDSA on P-256 or P-384 nor RSA"));
        }
        if !seen.insert(key.subject_public_key_info()) {
            return Err(refused("a service-account key is there twice"));
        }
        text.push_str(&certificate::pem("PUBLIC KEY", &key.subject_public_key_info()));
    }
    Ok(text)
}

/// Refuses what the API server would refuse, or would read in another way.
fn must_encrypt(keys: &[EncryptionKey]) -> Result<(), PkiError> {
    let refused = |found: String| Err(PkiError::BundlePart { of: OF, found });
    if keys.is_empty() {
        return refused("there is no encryption key".to_owned());
    }
    let mut seen = BTreeSet::new();
    for EncryptionKey { name, secret } in keys {
        // The name stands in each stored value between colons.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            return refused(format!("{name:?} is no name of an encryption key"));
        }
        if !seen.insert(name) {
            return refused(format!("two encryption keys are named {name}"));
        }
        if BASE64.decode(secret.expose()).map_or(0, |bytes| bytes.len()) != ENCRYPTION_KEY_LENGTH {
            return refused(format!("the encryption key {name} is not 32 bytes in base64"));
        }
    }
    Ok(())
}

fn must_name_a_person(what: &'static str, name: &str) -> Result<(), PkiError> {
    let refused = |why| Err(PkiError::Name { what, found: name.to_owned(), why });
    if name.is_empty() || name.len() > 253 {
        return refused("a name has 1 to 253 bytes");
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return refused("it has control characters, or spaces around it");
    }
    if name.starts_with("system:") {
        return refused("names that begin with `system:` are Kubernetes' own");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
