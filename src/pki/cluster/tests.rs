use x509_parser::prelude::{FromDer as _, Pem, X509Certificate};

use super::super::signer::LIFETIME;
use super::*;

const NOW: i64 = 1_800_000_000_000;
const HOUR: std::time::Duration = std::time::Duration::from_hours(1);

fn cluster() -> ClusterName {
    "prod".parse().unwrap()
}

fn authorities() -> ClusterAuthorities {
    ClusterAuthorities::create(&cluster(), NOW).unwrap()
}

fn changed(authorities: &ClusterAuthorities, change: impl FnOnce(&mut Bundle)) -> Vec<u8> {
    let mut bundle: Bundle = serde_json::from_slice(&authorities.bundle().unwrap()).unwrap();
    change(&mut bundle);
    serde_json::to_vec(&bundle).unwrap()
}

fn parse(bytes: &[u8]) -> Result<ClusterAuthorities, PkiError> {
    ClusterAuthorities::parse(bytes, &cluster())
}

fn ec_key() -> Secret {
    Secret::new(KeyPair::generate().unwrap().serialize_pem())
}

#[test]
fn what_is_written_is_read_back() {
    let authorities = authorities();
    let read = parse(&authorities.bundle().unwrap()).unwrap();
    assert_eq!(read, authorities);
    assert_eq!(read.not_after(), NOW + LIFETIME.whole_seconds() * 1000);
    assert_eq!(read.summary().fingerprint, read.fingerprint());
    assert_eq!(read.fingerprint().len(), 64);
}

#[test]
fn the_two_authorities_are_not_one() {
    let authorities = authorities();
    assert_ne!(authorities.certificate(), authorities.front_proxy_certificate());
    let bytes = changed(&authorities, |bundle| {
        bundle.front_proxy_authority = Pair::of(&authorities.authority);
    });
    assert!(matches!(parse(&bytes), Err(PkiError::BundlePart { .. })));
}

#[test]
fn the_fingerprint_tells_every_part_apart() {
    let (one, two) = (authorities(), authorities());
    let mut seen = BTreeSet::from([one.fingerprint().to_owned()]);
    for change in [
        |bundle: &mut Bundle, other: &ClusterAuthorities| bundle.authority = Pair::of(&other.authority),
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            bundle.front_proxy_authority = Pair::of(&other.front_proxy);
        },
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            bundle.service_account_keys.clone_from(&other.service_account_keys);
        },
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            bundle.service_account_keys.extend(other.service_account_keys.clone());
        },
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            bundle.service_account_keys.splice(0..0, other.service_account_keys.clone());
        },
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            bundle.encryption_keys.clone_from(&other.encryption_keys);
        },
        |bundle: &mut Bundle, _: &ClusterAuthorities| bundle.encryption_keys[0].name = "key2".to_owned(),
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            let new = EncryptionKey { name: "key2".to_owned(), ..other.encryption_keys[0].clone() };
            bundle.encryption_keys.push(new);
        },
        |bundle: &mut Bundle, other: &ClusterAuthorities| {
            let new = EncryptionKey { name: "key2".to_owned(), ..other.encryption_keys[0].clone() };
            bundle.encryption_keys.insert(0, new);
        },
    ] {
        let read = parse(&changed(&one, |bundle| change(bundle, &two))).unwrap();
        assert!(seen.insert(read.fingerprint().to_owned()), "a change that is not seen");
    }
}

#[test]
fn no_key_is_ever_printed() {
    let authorities = authorities();
    let client = authorities.sign_client("ada", &[], HOUR, NOW).unwrap();
    let printed = format!("{authorities:?} {client:?}");
    assert!(printed.contains("<redacted>"), "{printed}");
    assert!(!printed.contains("PRIVATE KEY"), "{printed}");
    assert!(!printed.contains(authorities.encryption_keys()[0].secret.expose()), "{printed}");
}

#[test]
fn what_is_said_of_a_damaged_bundle_quotes_no_key() {
    let whole = String::from_utf8(authorities().bundle().unwrap()).unwrap();
    let bytes = whole.replacen("\"version\": 1", "\"version\": \"a secret in the wrong place\"", 1);
    let error = parse(bytes.as_bytes()).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("a secret"), "{error:?}");
}

#[test]
fn another_clusters_bundle_is_refused() {
    let other = "other".parse().unwrap();
    let error = ClusterAuthorities::parse(&authorities().bundle().unwrap(), &other).unwrap_err();
    assert!(
        matches!(&error, PkiError::WrongCluster { found, expected, .. } if found == "prod" && expected == "other"),
        "{error}"
    );
}

#[test]
fn damage_is_refused_and_named() {
    let authorities = authorities();
    let whole = authorities.bundle().unwrap();
    assert!(matches!(parse(&whole[..whole.len() - 9]), Err(PkiError::Bundle { .. })));
    assert!(matches!(parse(b""), Err(PkiError::Bundle { .. })));
    assert!(matches!(parse(b"[]"), Err(PkiError::Bundle { .. })));
    let later = changed(&authorities, |bundle| bundle.version = 2);
    assert!(matches!(parse(&later), Err(PkiError::BundleVersion { found: 2, expected: 1, .. })));
    let more = String::from_utf8(whole).unwrap().replacen('{', "{\"more\":1,", 1);
    assert!(matches!(parse(more.as_bytes()), Err(PkiError::Bundle { .. })));
    // A later version with more in it is a later version, not damage.
    let later = more.replacen("\"version\": 1", "\"version\": 2", 1);
    assert!(matches!(parse(later.as_bytes()), Err(PkiError::BundleVersion { found: 2, .. })));
    let half = changed(&authorities, |bundle| {
        bundle.authority.certificate.truncate(bundle.authority.certificate.len() / 2);
    });
    assert!(matches!(parse(&half), Err(PkiError::Certificate { of: CLUSTER, .. })));
}

#[test]
fn a_hand_made_bundle_is_refused_and_its_fault_named() {
    let authorities = authorities();
    let key = changed(&authorities, |bundle| bundle.front_proxy_authority.key = ec_key());
    assert!(matches!(parse(&key), Err(PkiError::KeyMismatch { of: FRONT_PROXY })));

    let own = KeyPair::generate().unwrap();
    let leaf = certificate::leaf("prod", None, NOW, &[]).unwrap().self_signed(&own).unwrap().pem();
    let leaf = changed(&authorities, |bundle| {
        bundle.authority = Pair { certificate: leaf, key: Secret::new(own.serialize_pem()) };
    });
    assert!(matches!(parse(&leaf), Err(PkiError::NotAnAuthority { of: CLUSTER, .. })));

    let refused = |change: &dyn Fn(&mut Bundle)| {
        let error = parse(&changed(&authorities, change)).unwrap_err();
        assert!(matches!(error, PkiError::BundlePart { .. } | PkiError::Key { .. }), "{error}");
        assert!(!error.is_retryable());
        error.to_string()
    };
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let short = Secret::new(BASE64.encode([1; 31]));
    insta::assert_snapshot!(
        [
            refused(&|bundle| bundle.service_account_keys.clear()),
            refused(&|bundle| bundle.service_account_keys.push(Secret::new(ed25519.clone()))),
            refused(&|bundle| bundle.service_account_keys.push(bundle.service_account_keys[0].clone())),
            refused(&|bundle| bundle.service_account_keys[0] = Secret::new("x".to_owned())),
            refused(&|bundle| bundle.encryption_keys.clear()),
            refused(&|bundle| bundle.encryption_keys.push(bundle.encryption_keys[0].clone())),
            refused(&|bundle| bundle.encryption_keys[0].name = "a:b".to_owned()),
            refused(&|bundle| bundle.encryption_keys[0].secret = short.clone()),
            refused(&|bundle| bundle.encryption_keys[0].secret = Secret::new("?".to_owned())),
        ]
        .join("\n"),
        @"
    the bundle of Kubernetes' authorities can't be used: there is no service-account key
    the bundle of Kubernetes' authorities can't be used: a service-account key is neither ECDSA on P-256 or P-384 nor RSA
    the bundle of Kubernetes' authorities can't be used: a service-account key is there twice
    the key of the service accounts is damaged
    the bundle of Kubernetes' authorities can't be used: there is no encryption key
    the bundle of Kubernetes' authorities can't be used: two encryption keys are named key1
    the bundle of Kubernetes' authorities can't be used: \"a:b\" is no name of an encryption key
    the bundle of Kubernetes' authorities can't be used: the encryption key key1 is not 32 bytes in base64
    the bundle of Kubernetes' authorities can't be used: the encryption key key1 is not 32 bytes in base64
    "
    );
}

#[test]
fn rotated_keys_are_kept_in_order_and_all_verify() {
    let authorities = authorities();
    let next = ec_key();
    let bytes = changed(&authorities, |bundle| {
        bundle.service_account_keys.insert(0, next.clone());
        let secret = Secret::new(BASE64.encode([7; 32]));
        bundle.encryption_keys.insert(0, EncryptionKey { name: "key2".to_owned(), secret });
    });
    let rotated = parse(&bytes).unwrap();
    assert_eq!(rotated.service_account_key(), &next);
    assert!(rotated.service_account_public().ends_with(authorities.service_account_public()));
    assert_eq!(rotated.service_account_public().matches("BEGIN PUBLIC KEY").count(), 2);
    let names: Vec<_> = rotated.encryption_keys().iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["key2", "key1"]);
}

#[test]
fn the_public_key_is_what_others_make_of_the_private_one() {
    let authorities = authorities();
    let own = KeyPair::from_pem(authorities.service_account_key().expose()).unwrap();
    let other = own.public_key_pem().replace("\r\n", "\n");
    assert_eq!(authorities.service_account_public(), other);
}

/// The organizations, the common name and the dates of a certificate that the cluster authority
/// signed.
fn person(authorities: &ClusterAuthorities, pem: &str) -> (Vec<String>, String, (i64, i64)) {
    let own = certificate::Certificate::from_pem("a person", pem.as_bytes()).unwrap();
    let ca =
        certificate::Certificate::from_pem("the authority", authorities.certificate().as_bytes()).unwrap();
    own.must_be_signed_by(&ca).unwrap();
    own.must_serve(false, true).unwrap();
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
    let (rest, parsed) = X509Certificate::from_der(&block.contents).unwrap();
    assert!(rest.is_empty() && !parsed.is_ca());
    let groups =
        parsed.subject().iter_organization().map(|group| group.as_str().unwrap().to_owned()).collect();
    (groups, own.common_name().unwrap(), own.validity().unwrap())
}

#[test]
fn a_person_gets_a_certificate_with_every_group_and_for_no_longer_than_asked() {
    let authorities = authorities();
    for groups in [&[][..], &["developers"], &["developers", "ops", MASTERS], &["g"; 40]] {
        let client = authorities.sign_client("ada@example.org", groups, HOUR, NOW).unwrap();
        let (found, user, dates) = person(&authorities, &client.certificate);
        assert_eq!(found, groups);
        assert_eq!(user, "ada@example.org");
        assert_eq!(dates, (NOW - 300_000, NOW + 3_600_000));
        assert_eq!(client.not_after, NOW + 3_600_000);
        assert_eq!(client.fingerprint.len(), 64);
        let own = certificate::Certificate::from_pem("a person", client.certificate.as_bytes()).unwrap();
        own.must_match(&certificate::key_from_pem("a person", client.key.expose()).unwrap()).unwrap();
    }
}

#[test]
fn nobody_becomes_a_part_of_kubernetes_by_a_persons_certificate() {
    let authorities = authorities();
    let sign = |user: &str, groups: &[&str]| authorities.sign_client(user, groups, HOUR, NOW);
    for user in ["", "system:kube-scheduler", "system:node:i-1", " ada", "a\nb", &"a".repeat(254)] {
        assert!(matches!(sign(user, &[]), Err(PkiError::Name { what: "the user", .. })), "{user:?}");
    }
    for group in ["", "system:nodes", "a\0b"] {
        assert!(matches!(sign("ada", &[MASTERS, group]), Err(PkiError::Name { .. })), "{group:?}");
    }
}

#[test]
fn a_person_s_certificate_ends_and_does_not_outlive_the_authority() {
    let authorities = authorities();
    let end = authorities.not_after();
    let sign = |ttl, now| authorities.sign_client("ada", &[], ttl, now);
    assert_eq!(sign(HOUR, end - 1000).unwrap().not_after, end);
    assert!(matches!(sign(HOUR, end), Err(PkiError::AuthorityExpired { of: CLUSTER, .. })));
    assert!(matches!(sign(HOUR, NOW - 600_000), Err(PkiError::AuthorityNotYetValid { .. })));
    for ttl in [std::time::Duration::ZERO, std::time::Duration::MAX, HOUR * 24 * 365 * 9000] {
        assert!(matches!(sign(ttl, NOW), Err(PkiError::Name { .. })), "{ttl:?}");
    }
}
