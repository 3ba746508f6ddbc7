//! The leaves: the certificates of one machine for etcd's server, peer and client sides.
//!
//! They are issued as one set into one directory (`/etc/quorate/pki/etcd/` under the root):
//!
//! | file | names | for |
//! |---|---|---|
//! | `ca.crt` | | who signed the others |
//! | `server.crt`, `server.key` | the address, 127.0.0.1, `localhost`, `etcd-N.CLUSTER.quorate.internal` | etcd towards its clients |
//! | `peer.crt`, `peer.key` | the address | etcd towards its peers, both ways |
//! | `client.crt`, `client.key` | `quorate` | the agent towards etcd |
//!
//! etcd holds the addresses in a peer's certificate against the address that the peer connects
//! from (etcd's "Transport security model", notes for peers). On the loopback network that is
//! 127.0.0.1 whatever address the peer listens at, so a peer whose own address is a loopback one
//! names 127.0.0.1 too.
//!
//! The set is replaced file by file, since etcd reads them at each handshake by these names. A
//! crash between two of them leaves a mixture, which [`inspect`] takes for what it is: usable when
//! every certificate has its key, its authority and the address, otherwise nothing.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};

use super::PkiError;
use super::authority::EtcdAuthority;
use super::certificate::{self, Certificate};
use crate::host::files::{NewFile, create_dir, write_set};
use crate::model::names::HostName;
use crate::model::{Leaves, Slot};

/// The authority's certificate.
pub const CA: &str = "ca.crt";
/// etcd's certificate towards its clients.
pub const SERVER: &str = "server.crt";
/// Its key.
pub const SERVER_KEY: &str = "server.key";
/// etcd's certificate towards its peers.
pub const PEER: &str = "peer.crt";
/// Its key.
pub const PEER_KEY: &str = "peer.key";
/// The agent's certificate towards etcd.
pub const CLIENT: &str = "client.crt";
/// Its key.
pub const CLIENT_KEY: &str = "client.key";

/// What the leaves are to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRequest {
    /// The slot, when the machine has one.
    pub slot: Option<Slot>,
    /// The machine's address.
    pub address: Ipv4Addr,
    /// The present, in milliseconds since 1970.
    pub now: i64,
}

/// Issues a fresh set of leaves into `dir`, which is made (for its owner only) when it is missing, and
/// says what they are.
///
/// They are valid for 90 days from five minutes ago, but not beyond their authority.
pub fn issue(authority: &EtcdAuthority, dir: &Path, request: LeafRequest) -> Result<Leaves, PkiError> {
    let signer = authority.signer().open(request.now)?;
    let server = signer.sign("etcd's server certificate", server(authority, request)?)?;
    let peer = signer.sign("etcd's peer certificate", peer(authority, request)?)?;
    let client = signer.sign("the agent's certificate for etcd", client(authority, request)?)?;
    create_dir(dir, 0o700)?;
    write_set(
        dir,
        &[
            file(CA, authority.certificate(), 0o644),
            file(SERVER_KEY, server.key.expose(), 0o600),
            file(SERVER, &server.certificate, 0o644),
            file(PEER_KEY, peer.key.expose(), 0o600),
            file(PEER, &peer.certificate, 0o644),
            file(CLIENT_KEY, client.key.expose(), 0o600),
            file(CLIENT, &client.certificate, 0o644),
        ],
    )?;
    read(dir)
}

/// Looks at the leaves in `dir`: `None` when one is missing or damaged, has another's key or
/// another's signature, or when they name different addresses.
///
/// # Errors
/// Only a file that is there and can't be read. That is no answer.
pub fn inspect(dir: &Path) -> Result<Option<Leaves>, PkiError> {
    match read(dir) {
        Ok(leaves) => Ok(Some(leaves)),
        Err(PkiError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error @ PkiError::Read { .. }) => Err(error),
        Err(error) => {
            tracing::debug!(why = crate::model::fact::chain(&error), "leaf certificates can't be used");
            Ok(None)
        }
    }
}

fn file<'a>(name: &'a str, text: &'a str, mode: u32) -> NewFile<'a> {
    NewFile { name, bytes: text.as_bytes(), mode }
}

fn server(authority: &EtcdAuthority, request: LeafRequest) -> Result<CertificateParams, PkiError> {
    let cluster = authority.cluster().as_str();
    let name = request.slot.map_or_else(|| "etcd".to_owned(), Slot::member_name);
    let mut params =
        certificate::leaf(&name, Some(cluster), request.now, &[ExtendedKeyUsagePurpose::ServerAuth])?;
    params.subject_alt_names = addresses(request.address, true)?;
    params.subject_alt_names.push(dns_name("localhost")?);
    if request.slot.is_some() {
        params.subject_alt_names.push(dns_name(&format!("{name}.{cluster}.quorate.internal"))?);
    }
    Ok(params)
}

fn peer(authority: &EtcdAuthority, request: LeafRequest) -> Result<CertificateParams, PkiError> {
    let name = request.slot.map_or_else(|| "etcd".to_owned(), Slot::member_name);
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut params = certificate::leaf(&name, Some(authority.cluster().as_str()), request.now, &both)?;
    params.subject_alt_names = addresses(request.address, request.address.is_loopback())?;
    Ok(params)
}

fn client(authority: &EtcdAuthority, request: LeafRequest) -> Result<CertificateParams, PkiError> {
    certificate::leaf(
        "quorate",
        Some(authority.cluster().as_str()),
        request.now,
        &[ExtendedKeyUsagePurpose::ClientAuth],
    )
}

/// The address first, then 127.0.0.1 when it is asked for.
fn addresses(address: Ipv4Addr, loopback: bool) -> Result<Vec<SanType>, PkiError> {
    let also = (loopback && address != Ipv4Addr::LOCALHOST).then_some(Ipv4Addr::LOCALHOST);
    std::iter::once(address)
        .chain(also)
        .map(|address| certificate::alternative_name(&HostName::Address(address.into())))
        .collect()
}

fn dns_name(name: &str) -> Result<SanType, PkiError> {
    let name: HostName =
        name.parse().map_err(certificate::not_a_name("etcd's server side", name.to_owned()))?;
    certificate::alternative_name(&name)
}

/// A certificate, its key and what it is for.
struct Pair {
    of: &'static str,
    certificate: &'static str,
    key: &'static str,
    serves: bool,
    asks: bool,
}

const PAIRS: [Pair; 3] = [
    Pair { of: "etcd's server side", certificate: SERVER, key: SERVER_KEY, serves: true, asks: false },
    Pair { of: "etcd's peer side", certificate: PEER, key: PEER_KEY, serves: true, asks: true },
    Pair { of: "the agent", certificate: CLIENT, key: CLIENT_KEY, serves: false, asks: true },
];

/// Reads the whole set and holds every part of it against the others.
fn read(dir: &Path) -> Result<Leaves, PkiError> {
    let content = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).map_err(|source| PkiError::Read { path, source })
    };
    let ca = Certificate::from_pem("the etcd authority", &content(CA)?)?;
    ca.must_be_an_authority()?;
    let (mut not_before, mut not_after) = (i64::MIN, i64::MAX);
    let mut address = None;
    for Pair { of, certificate, key, serves, asks } in PAIRS {
        let own = Certificate::from_pem(of, &content(certificate)?)?;
        let key = content(key)?;
        let key = certificate::key_from_pem(of, &String::from_utf8_lossy(&key))?;
        own.must_be_the_leaf(&key, &ca, serves, asks)?;
        let (begin, end) = own.validity()?;
        not_before = not_before.max(begin);
        not_after = not_after.min(end);
        if serves {
            // The address that a certificate is for is the first that it names.
            let named = own.addresses()?.first().copied();
            if named.is_none() || address.is_some_and(|address| Some(address) != named) {
                return Err(PkiError::Certificate {
                    of,
                    found: format!("it names {named:?}, the others {address:?}"),
                });
            }
            address = named;
        }
    }
    let Some(address) = address else {
        return Err(PkiError::Certificate { of: "etcd", found: "no address is named".to_owned() });
    };
    Ok(Leaves { authority: ca.fingerprint(), address, not_before, not_after })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const DAY: i64 = 24 * 3600 * 1000;
    const ALL: [&str; 7] = [CA, SERVER, SERVER_KEY, PEER, PEER_KEY, CLIENT, CLIENT_KEY];

    fn authority() -> EtcdAuthority {
        EtcdAuthority::create(&"prod".parse().unwrap(), NOW).unwrap()
    }

    fn request() -> LeafRequest {
        LeafRequest { slot: Some(2.try_into().unwrap()), address: Ipv4Addr::new(10, 1, 2, 3), now: NOW }
    }

    #[test]
    fn leaves_that_were_issued_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki/etcd");
        assert_eq!(inspect(&dir).unwrap(), None);
        let authority = authority();
        let issued = issue(&authority, &dir, request()).unwrap();
        assert_eq!(
            issued,
            Leaves {
                authority: authority.summary().fingerprint,
                address: request().address,
                not_before: NOW - 300_000,
                not_after: NOW + 90 * DAY,
            }
        );
        assert_eq!(inspect(&dir).unwrap(), Some(issued));
    }

    #[test]
    fn keys_can_be_read_by_their_owner_only_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".peer.key.quorate-new"), "what a crash left").unwrap();
        issue(&authority(), dir.path(), request()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut expected = ALL.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(names, expected);
        for name in names {
            let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode() & 0o777;
            let key = [SERVER_KEY, PEER_KEY, CLIENT_KEY].contains(&name.as_str());
            assert_eq!(mode, if key { 0o600 } else { 0o644 }, "{name}");
        }
    }

    #[test]
    fn a_set_with_any_file_missing_or_damaged_is_no_set() {
        for name in ALL {
            for damage in [None, Some(b"".as_slice()), Some(b"-----BEGIN".as_slice())] {
                let dir = tempfile::tempdir().unwrap();
                issue(&authority(), dir.path(), request()).unwrap();
                let path = dir.path().join(name);
                match damage {
                    None => fs::remove_file(path).unwrap(),
                    Some(bytes) => fs::write(path, bytes).unwrap(),
                }
                assert_eq!(inspect(dir.path()).unwrap(), None, "{name} {damage:?}");
            }
        }
    }

    /// Cuts the replacing of one set by another off after every file, and says which mixtures
    /// were taken for a set.
    fn mixtures(old: &EtcdAuthority, new: &EtcdAuthority, again: LeafRequest) -> Vec<Option<Leaves>> {
        let order = [CA, SERVER_KEY, SERVER, PEER_KEY, PEER, CLIENT_KEY, CLIENT];
        (1..order.len())
            .map(|renamed| {
                let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                issue(old, dir.path(), request()).unwrap();
                issue(new, fresh.path(), again).unwrap();
                for name in &order[..renamed] {
                    fs::rename(fresh.path().join(name), dir.path().join(name)).unwrap();
                }
                inspect(dir.path()).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_crash_while_another_authority_takes_over_leaves_no_set() {
        let found = mixtures(&authority(), &authority(), request());
        assert!(found.iter().all(Option::is_none), "{found:?}");
    }

    #[test]
    fn a_crash_during_renewal_leaves_a_set_only_where_every_certificate_has_its_key() {
        let authority = authority();
        let later = LeafRequest { now: NOW + 60 * DAY, ..request() };
        let found = mixtures(&authority, &authority, later);
        let whole: Vec<_> = found.iter().map(Option::is_some).collect();
        assert_eq!(whole, [true, false, true, false, true, false]);
        // The narrowest of the mixture counts, so that it is renewed again in time.
        for leaves in found.into_iter().flatten() {
            assert_eq!(leaves.not_after, NOW + 90 * DAY);
        }
    }

    #[test]
    fn a_crash_while_the_address_changes_leaves_no_set_that_names_two() {
        let authority = authority();
        let moved = LeafRequest { address: Ipv4Addr::new(10, 1, 2, 4), ..request() };
        let found = mixtures(&authority, &authority, moved);
        assert_eq!(found[2], None, "server and peer differ");
        let addresses: Vec<_> = found.iter().flatten().map(|leaves| leaves.address).collect();
        assert_eq!(addresses, [request().address, moved.address]);
    }

    #[test]
    fn leaves_do_not_outlive_their_authority_and_a_dead_one_signs_nothing() {
        let authority = authority();
        let dir = tempfile::tempdir().unwrap();
        let end = authority.summary().not_after;
        let late = LeafRequest { now: end - DAY, ..request() };
        assert_eq!(issue(&authority, dir.path(), late).unwrap().not_after, end);
        let dead = LeafRequest { now: end, ..request() };
        assert!(matches!(issue(&authority, dir.path(), dead), Err(PkiError::AuthorityExpired { .. })));
        let early = LeafRequest { now: NOW - DAY, ..request() };
        let error = issue(&authority, dir.path(), early).unwrap_err();
        assert!(matches!(error, PkiError::AuthorityNotYetValid { .. }) && error.is_retryable());
    }

    #[test]
    fn what_can_not_be_read_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(CA)).unwrap();
        assert!(matches!(inspect(dir.path()), Err(PkiError::Read { .. })));
    }
}
