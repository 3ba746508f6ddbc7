//! etcd's configuration file.
//!
//! A file and not flags: etcd ignores flags and `ETCD_*` variables when it is given a file, so the
//! file is all there is to know. What decides which cluster it takes part in comes from
//! [`EtcdLaunch`]; the rest is [`Tuning`] and places.
//!
//! Sources: etcd's `server/embed/config.go` of 3.5.0 to 3.5.16, 3.6.0 and 3.7.0. etcd ignores
//! fields that it does not know without a word, so a field is rendered only for versions that have
//! it: `tls-min-version` came with 3.5.8, `experimental-compact-hash-check-enabled` with 3.5.5, and
//! from 3.6 the `experimental-*-check` fields are feature gates.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::machine::{client_url, peer_url};
use crate::model::{ClusterUuid, EtcdLaunch, EtcdVersion, Generation, LaunchState};
use crate::pki::leaves;

/// What makes etcd fit for its disks and its network, and has no part in who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Between a leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u32,
    /// Without a heartbeat for so long a follower stands for election, in milliseconds. etcd asks
    /// for five heartbeats at least and 50,000 at most.
    pub election_ms: u32,
    /// The most that the database may take, in bytes.
    pub quota_bytes: u64,
    /// What old revisions are counted by.
    pub compaction: CompactionMode,
    /// How much history is kept: a duration as `8h`, or a number of revisions.
    pub compaction_retention: String,
    /// Committed transactions after which a snapshot is written to disk.
    pub snapshot_count: u64,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: String,
}

/// What etcd counts old revisions by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CompactionMode {
    /// Time.
    Periodic,
    /// Number of revisions.
    Revision,
}

impl Default for Tuning {
    /// etcd's own tuning guide asks for a heartbeat of about the round trip between members and an
    /// election time-out of ten times that; zones of a region are a millisecond or two apart.
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_ms: 1000,
            quota_bytes: 8 * 1024 * 1024 * 1024,
            compaction: CompactionMode::Periodic,
            compaction_retention: "1h".to_owned(),
            snapshot_count: 10_000,
            log_level: "info".to_owned(),
        }
    }
}

/// Where etcd finds its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The data directory.
    pub data: PathBuf,
    /// The directory of the leaf certificates.
    pub pki: PathBuf,
}

/// A configuration that can't be written down.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A path that is no text. etcd's configuration is UTF-8.
    #[error("{} can't be written in etcd's configuration: it is not UTF-8", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The YAML writer failed.
    #[error("writing etcd's configuration as YAML")]
    Yaml(#[source] serde_saphyr::SerializeError),
}

/// The first version whose checks for corruption are feature gates.
const FEATURE_GATES: EtcdVersion = EtcdVersion { major: 3, minor: 6, patch: 0 };
/// The first version that compares hashes of compacted revisions.
const COMPACT_HASH_CHECK: EtcdVersion = EtcdVersion { major: 3, minor: 5, patch: 5 };
/// The first version that takes a minimum for TLS in its file.
const TLS_MIN_VERSION: EtcdVersion = EtcdVersion { major: 3, minor: 5, patch: 8 };

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct File<'a> {
    name: String,
    data_dir: &'a str,
    listen_peer_urls: String,
    listen_client_urls: String,
    listen_metrics_urls: String,
    initial_advertise_peer_urls: String,
    advertise_client_urls: String,
    initial_cluster: String,
    initial_cluster_token: String,
    initial_cluster_state: LaunchState,
    strict_reconfig_check: bool,
    client_transport_security: Security,
    peer_transport_security: Security,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_min_version: Option<&'static str>,
    enable_grpc_gateway: bool,
    heartbeat_interval: u32,
    election_timeout: u32,
    quota_backend_bytes: u64,
    auto_compaction_mode: CompactionMode,
    auto_compaction_retention: &'a str,
    snapshot_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    experimental_initial_corrupt_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    experimental_compact_hash_check_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_gates: Option<&'static str>,
    logger: &'static str,
    log_level: &'a str,
    log_outputs: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Security {
    cert_file: String,
    key_file: String,
    trusted_ca_file: String,
    client_cert_auth: bool,
}

/// Renders the file for a version of etcd.
///
/// Clients are served at the machine's address and at 127.0.0.1, metrics at 127.0.0.1 only. Where
/// the machine's own address is a loopback address, several machines share one host: then both are
/// at that address only.
///
/// # Errors
/// A path that is not UTF-8.
pub fn render(
    launch: &EtcdLaunch,
    tuning: &Tuning,
    paths: &Paths,
    version: EtcdVersion,
) -> Result<String, ConfigError> {
    let peer = peer_url(launch.address);
    let client = client_url(launch.address);
    let (clients, metrics) = if launch.address.is_loopback() {
        (client.clone(), format!("http://{}:2381", launch.address))
    } else {
        (format!("{client},https://127.0.0.1:2379"), "http://127.0.0.1:2381".to_owned())
    };
    let members: Vec<_> = launch.initial_cluster.iter().map(|(name, url)| format!("{name}={url}")).collect();
    let gates = version >= FEATURE_GATES;
    let file = File {
        name: launch.slot.member_name(),
        data_dir: text(&paths.data)?,
        listen_peer_urls: peer.clone(),
        listen_client_urls: clients,
        listen_metrics_urls: metrics,
        initial_advertise_peer_urls: peer,
        advertise_client_urls: client,
        initial_cluster: members.join(","),
        initial_cluster_token: token(&launch.uuid, launch.generation),
        initial_cluster_state: launch.state,
        strict_reconfig_check: true,
        client_transport_security: security(&paths.pki, leaves::SERVER, leaves::SERVER_KEY)?,
        peer_transport_security: security(&paths.pki, leaves::PEER, leaves::PEER_KEY)?,
        tls_min_version: (version >= TLS_MIN_VERSION).then_some("TLS1.2"),
        // The gateway is a client of etcd's own; nobody here speaks JSON to etcd.
        enable_grpc_gateway: false,
        heartbeat_interval: tuning.heartbeat_ms,
        election_timeout: tuning.election_ms,
        quota_backend_bytes: tuning.quota_bytes,
        auto_compaction_mode: tuning.compaction,
        auto_compaction_retention: &tuning.compaction_retention,
        snapshot_count: tuning.snapshot_count,
        experimental_initial_corrupt_check: (!gates).then_some(true),
        experimental_compact_hash_check_enabled: (!gates && version >= COMPACT_HASH_CHECK).then_some(true),
        feature_gates: gates.then_some("CompactHashCheck=true,InitialCorruptCheck=true"),
        logger: "zap",
        log_level: &tuning.log_level,
        log_outputs: ["stderr"],
    };
    // One line a value, so that it can be found by grep.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&file, options).map_err(ConfigError::Yaml)
}

/// The token of a generation: members of another never take this one's for theirs.
pub fn token(uuid: &ClusterUuid, generation: Generation) -> String {
    format!("{uuid}-g{generation}")
}

fn security(pki: &Path, certificate: &str, key: &str) -> Result<Security, ConfigError> {
    Ok(Security {
        cert_file: text(&pki.join(certificate))?.to_owned(),
        key_file: text(&pki.join(key))?.to_owned(),
        trusted_ca_file: text(&pki.join(leaves::CA))?.to_owned(),
        client_cert_auth: true,
    })
}

fn text(path: &Path) -> Result<&str, ConfigError> {
    path.to_str().ok_or_else(|| ConfigError::Path { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn launch() -> EtcdLaunch {
        EtcdLaunch {
            slot: 2.try_into().unwrap(),
            uuid: "0d8f6a10-1111-4222-8333-444455556666".parse().unwrap(),
            generation: Generation(3),
            address: Ipv4Addr::new(10, 0, 2, 7),
            state: LaunchState::New,
            initial_cluster: vec![
                ("etcd-1".into(), "https://10.0.1.5:2380".into()),
                ("etcd-2".into(), "https://10.0.2.7:2380".into()),
                ("etcd-3".into(), "https://10.0.3.130:2380".into()),
            ],
        }
    }

    fn rendered(launch: &EtcdLaunch, version: &str) -> String {
        let paths = Paths { data: "/var/lib/etcd/data".into(), pki: "/etc/quorate/pki/etcd".into() };
        render(launch, &Tuning::default(), &paths, version.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_file_for_3_5() {
        insta::assert_snapshot!(rendered(&launch(), "3.5.16"));
    }

    #[test]
    fn the_file_for_3_6_that_joins() {
        let launch = EtcdLaunch { state: LaunchState::Existing, ..launch() };
        insta::assert_snapshot!(rendered(&launch, "3.6.4"));
    }

    #[test]
    fn a_field_is_rendered_only_for_versions_that_have_it() {
        for (version, tls, hash, corrupt, gates) in [
            ("3.5.0", false, false, true, false),
            ("3.5.5", false, true, true, false),
            ("3.5.8", true, true, true, false),
            ("3.6.0", true, false, false, true),
            ("3.7.1", true, false, false, true),
        ] {
            let file = rendered(&launch(), version);
            assert_eq!(file.contains("tls-min-version:"), tls, "{version}");
            assert_eq!(file.contains("experimental-compact-hash-check-enabled:"), hash, "{version}");
            assert_eq!(file.contains("experimental-initial-corrupt-check:"), corrupt, "{version}");
            assert_eq!(file.contains("feature-gates:"), gates, "{version}");
        }
    }

    #[test]
    fn machines_that_share_a_host_listen_at_their_own_address_only() {
        let launch = EtcdLaunch { address: Ipv4Addr::new(127, 0, 3, 1), ..launch() };
        let file = rendered(&launch, "3.5.16");
        assert!(!file.contains("127.0.0.1"), "{file}");
        assert!(file.contains("http://127.0.3.1:2381"), "{file}");
    }

    #[test]
    fn text_that_looks_like_a_number_or_hides_a_comment_stays_text() {
        let tuning =
            Tuning { compaction_retention: "8".into(), log_level: "x: y #z".into(), ..Tuning::default() };
        let paths = Paths { data: "/with space: #1/data".into(), pki: "/pki".into() };
        let file = render(&launch(), &tuning, &paths, "3.5.16".parse().unwrap()).unwrap();
        let read: serde_json::Value = serde_saphyr::from_str(&file).unwrap();
        assert_eq!(read["auto-compaction-retention"], "8");
        assert_eq!(read["log-level"], "x: y #z");
        assert_eq!(read["data-dir"], "/with space: #1/data");
    }
}
