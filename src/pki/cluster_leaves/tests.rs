use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 24 * 3600 * 1000;

struct Made {
    authorities: ClusterAuthorities,
    etcd: EtcdAuthority,
}

fn made() -> Made {
    made_at(NOW)
}

fn made_at(now: i64) -> Made {
    let cluster = "prod".parse().unwrap();
    Made {
        authorities: ClusterAuthorities::create(&cluster, now).unwrap(),
        etcd: EtcdAuthority::create(&cluster, now).unwrap(),
    }
}

impl Made {
    fn issue(&self, dir: &Path, request: &ClusterLeafRequest) -> Result<ClusterLeaves, PkiError> {
        self.issue_at(dir, request, NOW)
    }

    fn issue_at(
        &self,
        dir: &Path,
        request: &ClusterLeafRequest,
        now: i64,
    ) -> Result<ClusterLeaves, PkiError> {
        issue(&self.authorities, &self.etcd, dir, request, now, None)
    }
}

fn request() -> ClusterLeafRequest {
    ClusterLeafRequest {
        node: "i-0123456789abcdef0".parse().unwrap(),
        address: Ipv4Addr::new(10, 1, 2, 3),
        endpoint: "Prod-1.elb.eu-central-1.amazonaws.com".parse().unwrap(),
        service_address: Ipv4Addr::new(10, 96, 0, 1),
        cluster_domain: "cluster.local".parse().unwrap(),
        extra_names: vec!["api.example.org".parse().unwrap(), "192.0.2.7".parse().unwrap()],
        local_server: "https://127.0.0.1:6443".parse().unwrap(),
        component_server: "https://127.0.0.1:6443".parse().unwrap(),
    }
}

/// Every file below `dir`, as paths relative to it.
fn below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The files in the order in which they are renamed into place.
fn in_order(made: &Made, request: &ClusterLeafRequest) -> Vec<ClusterFile> {
    let contents = make(&made.authorities, &made.etcd, request, NOW).unwrap();
    files::DIRS
        .iter()
        .flat_map(|dir| contents.iter().map(|(file, _)| *file).filter(move |file| file.dir == *dir))
        .collect()
}

#[test]
fn leaves_that_were_issued_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("etc/kubernetes");
    assert_eq!(inspect(&dir, None).unwrap(), None);
    let made = made();
    let issued = made.issue(&dir, &request()).unwrap();
    assert_eq!(
        issued,
        ClusterLeaves {
            authorities: made.authorities.fingerprint().to_owned(),
            etcd_authority: made.etcd.summary().fingerprint,
            names: request().names().unwrap(),
            not_before: NOW - 300_000,
            not_after: NOW + 90 * DAY,
        }
    );
    assert_eq!(inspect(&dir, None).unwrap(), Some(issued.clone()));
    let json = serde_json::to_string(&issued).unwrap();
    assert_eq!(serde_json::from_str::<ClusterLeaves>(&json).unwrap(), issued);
    // Again, over what is there.
    assert_eq!(made.issue_at(&dir, &request(), NOW + DAY).unwrap().not_after, NOW + 91 * DAY);
}

#[test]
fn the_api_server_is_named_by_every_way_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let leaves = made().issue(dir.path(), &request()).unwrap();
    let names: Vec<_> = leaves.names.api_server.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(names.join("\n"), @"
    10.1.2.3
    10.96.0.1
    127.0.0.1
    192.0.2.7
    api.example.org
    i-0123456789abcdef0
    kubernetes
    kubernetes.default
    kubernetes.default.svc
    kubernetes.default.svc.cluster.local
    localhost
    prod-1.elb.eu-central-1.amazonaws.com
    ");
    let elsewhere = ClusterLeafRequest {
        extra_names: Vec::new(),
        component_server: "https://lb.example.org:443".parse().unwrap(),
        ..request()
    };
    let names = elsewhere.names().unwrap();
    assert!(names.api_server.contains(&"lb.example.org".parse().unwrap()), "{names:?}");
}

#[test]
fn each_file_is_where_whose_and_as_the_table_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("apiserver")).unwrap();
    fs::write(dir.path().join("apiserver/.tls.key.quorate-new"), "what a crash left").unwrap();
    fs::set_permissions(dir.path().join("apiserver"), fs::Permissions::from_mode(0o755)).unwrap();
    made().issue(dir.path(), &request()).unwrap();
    let documented = include_str!("../files.rs");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut expected = Vec::new();
    for file in in_order(&made(), &request()) {
        assert_eq!(mode(&file.path(dir.path())), file.mode, "{file:?}");
        let path = file.path(Path::new("")).to_str().unwrap().to_owned();
        let secret = fs::read_to_string(file.path(dir.path())).unwrap().contains("PRIVATE KEY")
            || ["kubeconfig", "encryption.yaml"].contains(&file.name)
            || file.dir == files::KUBERNETES;
        assert_eq!(file.mode, if secret { 0o600 } else { 0o644 }, "{path}");
        let (stem, extension) = path.rsplit_once('.').unwrap_or((&path, ""));
        let named = documented.contains(&format!("`{path}`"))
            || extension == "key"
                && (documented.contains(&format!("`{stem}.crt`, `.key`"))
                    || documented.contains(&format!("`{stem}.crt`, `tls.key`")));
        assert!(named, "{path} is not in the table");
        expected.push(path);
    }
    expected.sort();
    assert_eq!(below(dir.path()), expected);
    for place in files::DIRS.into_iter().filter(|place| *place != files::KUBERNETES) {
        assert_eq!(mode(&dir.path().join(place.path)), place.mode, "{place:?}");
    }
}

#[test]
fn each_component_owns_its_own_and_the_wrong_owner_is_no_set() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root gives files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = made();
    let owners = Owners::default();
    let issued = issue(&made.authorities, &made.etcd, dir.path(), &request(), NOW, Some(&owners)).unwrap();
    for file in in_order(&made, &request()) {
        let found = fs::metadata(file.path(dir.path())).unwrap();
        let id = owners.id(file.dir.owner);
        assert_eq!((found.uid(), found.gid()), (id, id), "{file:?}");
    }
    assert_eq!(inspect(dir.path(), Some(&owners)).unwrap(), Some(issued));
    let others = Owners { scheduler: 2904, ..owners };
    assert_eq!(inspect(dir.path(), Some(&others)).unwrap(), None);
    issue(&made.authorities, &made.etcd, dir.path(), &request(), NOW, Some(&others)).unwrap();
    assert!(inspect(dir.path(), Some(&others)).unwrap().is_some());
}

#[test]
fn a_set_with_any_file_missing_damaged_or_open_to_others_is_no_set() {
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    made.issue(dir.path(), &request()).unwrap();
    for file in in_order(&made, &request()) {
        let path = file.path(dir.path());
        let whole = fs::read(&path).unwrap();
        let open = fs::Permissions::from_mode(file.mode | 0o066);
        let mut found = Vec::new();
        fs::set_permissions(&path, open).unwrap();
        found.push(inspect(dir.path(), None).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
        for damage in [b"".as_slice(), b"-----BEGIN"] {
            fs::write(&path, damage).unwrap();
            found.push(inspect(dir.path(), None).unwrap());
        }
        fs::remove_file(&path).unwrap();
        found.push(inspect(dir.path(), None).unwrap());
        assert!(found.iter().all(Option::is_none), "{file:?}: {found:?}");
        fs::write(&path, whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
        assert!(inspect(dir.path(), None).unwrap().is_some(), "{file:?} is back");
    }
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path().join("controller-manager"), open).unwrap();
    assert_eq!(inspect(dir.path(), None).unwrap(), None);
}

/// Cuts the replacing of one set by another off after every file, and says which mixtures were taken
/// for a set.
fn mixtures(old: &Made, new: &Made, again: &ClusterLeafRequest, now: i64) -> Vec<Option<ClusterLeaves>> {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    old.issue(dir.path(), &request()).unwrap();
    new.issue_at(fresh.path(), again, now).unwrap();
    let order = in_order(new, again);
    let (last, before) = order.split_last().unwrap();
    let found = before.iter().map(|file| {
        fs::rename(file.path(fresh.path()), file.path(dir.path())).unwrap();
        inspect(dir.path(), None).unwrap()
    });
    let found = found.collect();
    fs::rename(last.path(fresh.path()), last.path(dir.path())).unwrap();
    assert!(inspect(dir.path(), None).unwrap().is_some(), "the whole of the new set");
    found
}

#[test]
fn a_crash_while_other_authorities_take_over_leaves_no_set() {
    let found = mixtures(&made(), &made(), &request(), NOW);
    assert!(found.iter().all(Option::is_none), "{found:?}");
}

#[test]
fn a_crash_during_renewal_leaves_a_set_only_where_it_is_whole_and_counts_its_oldest() {
    let made = made();
    let found = mixtures(&made, &made, &request(), NOW + 60 * DAY);
    assert!(found.iter().any(Option::is_none), "a certificate with the key of another");
    // All certificates are new when only the last file is missing, a kubeconfig that does not change.
    let (last, before) = found.split_last().unwrap();
    assert_eq!(last.as_ref().unwrap().not_after, NOW + 150 * DAY);
    for leaves in before.iter().flatten() {
        assert_eq!(leaves.not_after, NOW + 90 * DAY, "it is renewed again in time");
    }
}

#[test]
fn a_crash_while_the_names_change_never_passes_for_the_new_names_too_early() {
    let made = made();
    let moved = ClusterLeafRequest {
        endpoint: "other.example.org".parse().unwrap(),
        local_server: "https://127.0.0.1:7443".parse().unwrap(),
        component_server: "https://other.example.org:443".parse().unwrap(),
        ..request()
    };
    let wanted = moved.names().unwrap();
    let found = mixtures(&made, &made, &moved, NOW);
    let early: Vec<_> = found.iter().flatten().filter(|leaves| leaves.names == wanted).collect();
    // The scheduler's kubeconfig, which names its server, is the last file of all.
    assert!(early.is_empty(), "{early:?}");
}

#[test]
fn leaves_do_not_outlive_their_authorities_and_a_dead_one_signs_nothing() {
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let end = made.authorities.not_after();
    assert_eq!(made.issue_at(dir.path(), &request(), end - DAY).unwrap().not_after, end);
    let before: Vec<_> = below(dir.path());
    let tls = fs::read(files::TLS.path(dir.path())).unwrap();
    assert!(matches!(made.issue_at(dir.path(), &request(), end), Err(PkiError::AuthorityExpired { .. })));
    let error = made.issue_at(dir.path(), &request(), NOW - DAY).unwrap_err();
    assert!(matches!(error, PkiError::AuthorityNotYetValid { .. }) && error.is_retryable());
    // An etcd authority that has ended stops all the same, before anything is written.
    let older = Made { etcd: made_at(NOW - 40 * DAY).etcd, ..made };
    let now = older.etcd.summary().not_after;
    let refused = older.issue_at(dir.path(), &request(), now);
    assert!(matches!(refused, Err(PkiError::AuthorityExpired { of: "the etcd authority", .. })));
    assert_eq!(below(dir.path()), before);
    assert_eq!(fs::read(files::TLS.path(dir.path())).unwrap(), tls);
}

#[test]
fn another_clusters_etcd_authority_signs_nothing_here() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = EtcdAuthority::create(&"other".parse().unwrap(), NOW).unwrap();
    let mixed = Made { etcd, ..made() };
    assert!(matches!(mixed.issue(dir.path(), &request()), Err(PkiError::WrongCluster { .. })));
    assert_eq!(below(dir.path()), Vec::<String>::new());
}

#[test]
fn another_component_s_certificate_is_no_substitute() {
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    made.issue(dir.path(), &request()).unwrap();
    for (from, to) in [
        (files::SCHEDULER_CLIENT, files::CONTROLLER_CLIENT),
        (files::SCHEDULER_CLIENT_KEY, files::CONTROLLER_CLIENT_KEY),
    ] {
        fs::copy(from.path(dir.path()), to.path(dir.path())).unwrap();
    }
    assert_eq!(inspect(dir.path(), None).unwrap(), None);
}

#[test]
fn another_encryption_key_is_another_set() {
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let issued = made.issue(dir.path(), &request()).unwrap();
    assert_eq!(issued.authorities, made.authorities.fingerprint());
    let other = ClusterAuthorities::create(&"prod".parse().unwrap(), NOW).unwrap();
    let text = encryption_config(other.encryption_keys()).unwrap();
    fs::write(files::ENCRYPTION.path(dir.path()), text.expose()).unwrap();
    let found = inspect(dir.path(), None).unwrap().unwrap();
    assert_ne!(found.authorities, issued.authorities);
    assert_eq!(ClusterLeaves { authorities: issued.authorities.clone(), ..found }, issued);
}

#[test]
fn an_administrator_s_own_context_beside_ours_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let issued = made().issue(dir.path(), &request()).unwrap();
    let path = files::ADMIN_KUBECONFIG.path(dir.path());
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replacen("    cluster: prod", "    namespace: kube-system\n    cluster: prod", 1);
    assert!(changed.contains("namespace"), "{}", text.lines().filter(|line| line.len() < 80).count());
    fs::write(&path, changed).unwrap();
    assert_eq!(inspect(dir.path(), None).unwrap(), Some(issued));
}

#[test]
fn what_is_no_file_is_neither_followed_nor_waited_for() {
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let path = files::TLS_KEY.path(dir.path());
    let issued = made.issue(dir.path(), &request()).unwrap();
    let aside = path.with_file_name("aside");
    fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    assert_eq!(inspect(dir.path(), None).unwrap(), None);
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert_eq!(inspect(dir.path(), None).unwrap(), None);
    assert_eq!(made.issue(dir.path(), &request()).unwrap(), issued);
}

#[test]
fn what_can_not_be_read_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    made().issue(dir.path(), &request()).unwrap();
    let path = files::TLS.path(dir.path());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(inspect(dir.path(), None), Err(PkiError::Read { .. })));
}

#[test]
fn openssl_takes_every_certificate_for_what_it_is() {
    let openssl = |args: &[&str]| Command::new("openssl").args(args).output();
    match openssl(&["version"]) {
        Ok(output) if output.status.success() => {}
        Ok(_) | Err(_) => {
            eprintln!("SKIPPED: there is no openssl");
            return;
        }
    }
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    made.issue(dir.path(), &request()).unwrap();
    let groups = ["developers", "ops", "system:masters"];
    let person =
        made.authorities.sign_client("ada", &groups, std::time::Duration::from_hours(1), NOW).unwrap();
    fs::write(dir.path().join("person.crt"), &person.certificate).unwrap();
    let at = (NOW / 1000).to_string();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (ca, leaf, purpose, subject) in [
        ("pki/ca.crt", "apiserver/tls.crt", "sslserver", "CN=kube-apiserver"),
        ("pki/ca.crt", "apiserver/kubelet-client.crt", "sslclient", "CN=kube-apiserver-kubelet-client"),
        ("pki/front-proxy-ca.crt", "apiserver/front-proxy-client.crt", "sslclient", "CN=front-proxy-client"),
        ("pki/etcd-ca.crt", "apiserver/etcd-client.crt", "sslclient", "CN=kube-apiserver,O=prod"),
        ("pki/ca.crt", "controller-manager/client.crt", "sslclient", "CN=system:kube-controller-manager"),
        ("pki/ca.crt", "scheduler/client.crt", "sslclient", "CN=system:kube-scheduler"),
        ("pki/ca.crt", "person.crt", "sslclient", "CN=ada,O=system:masters,O=ops,O=developers"),
    ] {
        let (ca, leaf) = (path(ca), path(leaf));
        let args = ["verify", "-x509_strict", "-purpose", purpose, "-attime", &at, "-CAfile", &ca, &leaf];
        let output = openssl(&args).unwrap();
        assert!(output.status.success(), "{leaf}: {}", String::from_utf8_lossy(&output.stderr));
        let output = openssl(&["x509", "-in", &leaf, "-noout", "-subject", "-nameopt", "RFC2253"]).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("subject={subject}"));
    }
    let other = path("pki/front-proxy-ca.crt");
    let args = ["verify", "-attime", &at, "-CAfile", &other, &path("apiserver/tls.crt")];
    assert!(!openssl(&args).unwrap().status.success(), "the front-proxy authority signs no servers");
    let public = openssl(&["pkey", "-in", &path("apiserver/sa.key"), "-pubout"]).unwrap();
    assert_eq!(public.stdout, fs::read(path("apiserver/sa.pub")).unwrap());
}
