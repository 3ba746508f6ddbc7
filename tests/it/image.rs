//! `packaging/image/`: the script that makes a machine an image, as far as it goes without a machine and without the
//! network. Files come from a server of the test's own, into a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use quorate::kubernetes::containerd::{PAUSE, PLUGIN_PROGRAMS};

use crate::docs::read;
use crate::programs::{asked, repository, said};

const SCRIPT: &str = "packaging/image/provision.sh";
const VERSIONS: &str = "packaging/image/versions.sh";

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A scratch root, and what is served to it.
struct Rig {
    root: tempfile::TempDir,
    aside: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), aside: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts a file there, with the directories above it.
    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn put_program(&self, name: &str) {
        self.put(name, "#!/bin/sh\n");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new("sh");
        command.arg(repository().join(SCRIPT)).args(arguments).env("QUORATE_ROOT", self.root.path());
        // Nothing of the computer's own proxies: the server is here.
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied()).output().unwrap()
    }
}

#[test]
fn every_file_that_is_downloaded_has_a_checksum_for_both_architectures() {
    let text = read(VERSIONS);
    let settings: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let downloads: Vec<&str> = settings.keys().filter_map(|name| name.strip_suffix("_URL")).collect();
    assert_eq!(downloads, ["CNI", "CONTAINERD", "ETCD", "KUBERNETES", "RUNC"]);
    for name in downloads {
        assert!(settings.contains_key(format!("{name}_VERSION").as_str()), "{name}");
        assert!(settings[format!("{name}_URL").as_str()].starts_with("'https://"), "{name}");
        for architecture in ["amd64", "arm64"] {
            let sum = settings[format!("{name}_SUM_{architecture}").as_str()];
            assert!(
                matches!(sum.len(), 64 | 128) && sum.chars().all(|c| c.is_ascii_hexdigit()),
                "{name}: {sum}"
            );
        }
    }
}

#[test]
fn the_images_that_are_pulled_are_those_that_the_agent_and_its_add_ons_run() {
    let text = read(VERSIONS);
    let kubernetes = text.lines().find_map(|line| line.strip_prefix("KUBERNETES_VERSION=")).unwrap();
    // One that the agent takes for a version of Kubernetes.
    assert!(("1.34.0"..="1.37.99").contains(&kubernetes), "{kubernetes}");
    assert!(text.contains(&format!("registry.k8s.io/pause:{PAUSE}\n")));
    for program in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        assert!(text.contains(&format!("registry.k8s.io/{program}:v${{KUBERNETES_VERSION}}\n")), "{program}");
    }
    // Those of the add-ons that the cluster's template names.
    for addon in ["aws-cloud-controller-manager", "bridge-cni", "coredns"] {
        let file = read(format!("packaging/addons/{addon}.yaml"));
        for image in file.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            let image = image.replace("${QUORATE_IMAGE_REPOSITORY}", "registry.k8s.io");
            assert!(text.contains(&format!("{image}\n")), "{addon}: {image}");
        }
    }
    assert!(read(SCRIPT).contains(&format!("$root{PLUGIN_PROGRAMS}/$plugin")));
}

/// Archives as the projects pack them, in a directory; and a file of versions that knows their checksums.
fn served(rig: &Rig) -> PathBuf {
    let dir = rig.aside.path().to_owned();
    let arch = architecture();
    let program = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\necho of the test\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let pack = |name: &str, files: &[&str]| {
        let whole = dir.join(format!("{name}.d"));
        for file in files {
            program(&whole.join(file));
        }
        let packed =
            Command::new("tar").arg("-czf").arg(dir.join(name)).arg("-C").arg(&whole).arg(".").status();
        assert!(packed.unwrap().success());
    };
    let node = ["kubelet", "kube-proxy", "kubectl"].map(|name| format!("kubernetes/node/bin/{name}"));
    let node: Vec<&str> = node.iter().map(String::as_str).collect();
    // The script unpacks one folder by its name, as the real archive has it.
    let whole = dir.join("node.d");
    for file in &node {
        program(&whole.join(file));
    }
    let archive = dir.join(format!("kubernetes-node-linux-{arch}.tar.gz"));
    let packed =
        Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&whole).arg("kubernetes").status();
    assert!(packed.unwrap().success());
    let etcd = ["etcd", "etcdctl", "etcdutl"].map(|name| format!("etcd-v1.0.0-linux-{arch}/{name}"));
    pack(&format!("etcd-v1.0.0-linux-{arch}.tar.gz"), &etcd.iter().map(String::as_str).collect::<Vec<_>>());
    pack(
        &format!("containerd-static-1.0.0-linux-{arch}.tar.gz"),
        &["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr"],
    );
    pack(&format!("cni-plugins-linux-{arch}-v1.0.0.tgz"), &["bridge", "host-local", "portmap", "loopback"]);
    program(&dir.join(format!("runc.{arch}")));

    let mut versions = String::new();
    for line in read(VERSIONS).lines() {
        match line.split_once('=') {
            Some((name, _)) if name.ends_with("_VERSION") => versions += &format!("{name}=1.0.0\n"),
            Some((name, _)) if name.contains("_SUM_") => {
                let file = match name.split_once('_').unwrap().0 {
                    "KUBERNETES" => format!("kubernetes-node-linux-{arch}.tar.gz"),
                    "ETCD" => format!("etcd-v1.0.0-linux-{arch}.tar.gz"),
                    "CONTAINERD" => format!("containerd-static-1.0.0-linux-{arch}.tar.gz"),
                    "RUNC" => format!("runc.{arch}"),
                    "CNI" => format!("cni-plugins-linux-{arch}-v1.0.0.tgz"),
                    other => panic!("{other} is not served"),
                };
                let sum = Command::new("sha256sum").arg(dir.join(file)).output().unwrap();
                versions += &format!("{name}={}\n", &String::from_utf8(sum.stdout).unwrap()[..64]);
            }
            _ => versions += &format!("{line}\n"),
        }
    }
    fs::write(dir.join("versions.sh"), versions).unwrap();
    fs::write(dir.join("quorate.deb"), "").unwrap();
    dir
}

/// Serves the files of a directory; gives where, and how often each was asked for is in the log.
async fn serve(dir: PathBuf) -> String {
    let log = dir.join("log");
    let router = Router::new().route(
        "/{name}",
        axum::routing::get(move |UrlPath(name): UrlPath<String>| async move {
            let before = fs::read_to_string(&log).unwrap_or_default();
            fs::write(&log, format!("{before}{name}\n")).unwrap();
            fs::read(dir.join(&name)).map_err(|_| StatusCode::NOT_FOUND)
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_is_installed_once_and_run_again_nothing_is() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: curl is not on the PATH");
        return;
    }
    let rig = Rig::new();
    let dir = served(&rig);
    let url = serve(dir.clone()).await;
    let (versions, package) = (dir.join("versions.sh"), dir.join("quorate.deb"));
    let environment = [("QUORATE_MIRROR", url.as_str()), ("QUORATE_VERSIONS", versions.to_str().unwrap())];
    let first = rig.run(&[package.to_str().unwrap()], &environment);
    assert!(first.status.success(), "{}", said(&first));
    for program in
        ["containerd", "ctr", "runc", "kubelet", "kube-proxy", "kubectl", "etcd", "etcdctl", "etcdutl"]
    {
        let mode = fs::metadata(rig.path("usr/bin").join(program)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{program}");
    }
    assert!(
        rig.path("opt/cni/bin/bridge").is_file() && rig.path("etc/sysctl.d/50-quorate-node.conf").is_file()
    );
    let asked = fs::read_to_string(dir.join("log")).unwrap();
    assert_eq!(asked.lines().count(), 5, "{asked}");

    let again = rig.run(&[package.to_str().unwrap()], &environment);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), asked, "nothing is downloaded a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_another_content_is_refused_and_nothing_of_it_is_used() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: curl is not on the PATH");
        return;
    }
    let rig = Rig::new();
    let dir = served(&rig);
    let runc = dir.join(format!("runc.{}", architecture()));
    fs::write(&runc, "#!/bin/sh\necho of somebody else\n").unwrap();
    let url = serve(dir.clone()).await;
    let (versions, package) = (dir.join("versions.sh"), dir.join("quorate.deb"));
    let environment = [("QUORATE_MIRROR", url.as_str()), ("QUORATE_VERSIONS", versions.to_str().unwrap())];
    let output = rig.run(&[package.to_str().unwrap()], &environment);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is not what it should be: its checksum is not"), "{}", said(&output));
    assert!(!rig.path("usr/bin/runc").exists() && !rig.path("usr/share/quorate/image/RUNC").exists());
    // What came before it was whole, and stays.
    assert!(rig.path("usr/bin/containerd").is_file());
    // With the right file, it goes on where it was.
    fs::remove_file(&runc).unwrap();
    let missing = rig.run(&[package.to_str().unwrap()], &environment);
    assert!(
        !missing.status.success() && said(&missing).contains("can't be downloaded"),
        "{}",
        said(&missing)
    );
}

/// A machine of which an image is about to be made, with all that tells who it is.
fn lived_in(rig: &Rig) {
    for name in [
        "etc/machine-id",
        "etc/hostname",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "root/.ssh/authorized_keys",
        "home/admin/.ssh/authorized_keys",
        "root/.bash_history",
        "root/.aws/credentials",
        "var/log/cloud-init.log",
        "var/log/journal/0123/system.journal",
        "var/lib/dbus/machine-id",
        "var/lib/quorate/join.json",
        "var/lib/kubelet/pki/kubelet-client-current.pem",
        "etc/kubernetes/kubelet.conf",
        "etc/kubernetes/pki/ca.crt",
        "etc/quorate/pki/etcd/server.key",
        "tmp/left",
        "etc/ssh/sshd_config",
        "etc/quorate/config.d/10-operator.yaml",
        "usr/bin/etcd",
    ] {
        rig.put(name, "somebody's\n");
    }
}

#[test]
fn cleaning_up_leaves_nobodys_identity_and_what_the_image_is() {
    let rig = Rig::new();
    lived_in(&rig);
    let output = rig.run(&["--clean"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    // Empty: systemd makes one at the first boot of each copy.
    assert_eq!(fs::read_to_string(rig.path("etc/machine-id")).unwrap(), "");
    let mut left = Vec::new();
    let mut open = vec![rig.root.path().to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                left.push(path.strip_prefix(rig.root.path()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    left.sort();
    assert_eq!(
        left,
        ["etc/machine-id", "etc/quorate/config.d/10-operator.yaml", "etc/ssh/sshd_config", "usr/bin/etcd"]
    );
}

#[test]
fn a_node_is_not_made_an_image_of_and_keeps_all_that_it_has() {
    for sign in ["var/lib/etcd/etcd/member/wal/0.wal", "run/quorate/status.json"] {
        let rig = Rig::new();
        lived_in(&rig);
        rig.put(sign, "");
        let output = rig.run(&["--clean"], &[]);
        assert_eq!(output.status.code(), Some(1), "{sign}");
        assert!(said(&output).contains("Images are made of other machines"), "{}", said(&output));
        assert!(rig.path("var/lib/kubelet/pki/kubelet-client-current.pem").is_file());
    }
}

#[test]
fn the_check_names_each_thing_that_lacks_and_passes_when_all_is_there() {
    let rig = Rig::new();
    let bare = rig.run(&["--check"], &[]);
    assert_eq!(bare.status.code(), Some(1));
    for lacking in [
        "the program etcdutl",
        "the unit quorate-etcd.service",
        "the network plugin bridge",
        "net.ipv4.ip_forward",
    ] {
        assert!(said(&bare).contains(&format!("lacking: {lacking}")), "{lacking}: {}", said(&bare));
    }
    for name in [
        "quorate",
        "containerd",
        "runc",
        "kubelet",
        "kube-proxy",
        "etcd",
        "etcdutl",
        "blkid",
        "findmnt",
        "mkfs.ext4",
        "resize2fs",
        "mount",
        "umount",
    ] {
        rig.put_program(&format!("usr/bin/{name}"));
    }
    for name in ["bridge", "host-local", "portmap", "loopback"] {
        rig.put_program(&format!("opt/cni/bin/{name}"));
    }
    for unit in ["quorate", "quorate-etcd", "kubelet", "kube-proxy", "containerd"] {
        rig.put(&format!("usr/lib/systemd/system/{unit}.service"), "");
    }
    rig.put("etc/systemd/system/multi-user.target.wants/quorate.service", "");
    rig.put("etc/sysctl.d/50-quorate-node.conf", "net.ipv4.ip_forward = 1\n");
    rig.put("etc/modules-load.d/50-quorate-node.conf", "br_netfilter\n");
    rig.put("etc/machine-id", "");
    let whole = rig.run(&["--check"], &[]);
    assert!(whole.status.success(), "{}", said(&whole));
    // Whose it is must not be in it.
    rig.put("etc/ssh/ssh_host_rsa_key", "");
    rig.put("etc/systemd/system/multi-user.target.wants/kubelet.service", "");
    let named = rig.run(&["--check"], &[]);
    assert!(!named.status.success());
    assert!(said(&named).contains("ssh_host_rsa_key") && said(&named).contains("kubelet.service is enabled"));
}

#[test]
fn wrong_usage_is_told_from_what_fails() {
    let rig = Rig::new();
    for arguments in [&[][..], &["--unknown"], &["a", "b"]] {
        assert_eq!(rig.run(arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(rig.run(&["/nonexistent.deb"], &[]).status.code(), Some(1));
}

#[test]
fn shellcheck_finds_nothing_in_the_script() {
    let Some(said) = asked("shellcheck", [SCRIPT, VERSIONS]) else { return };
    assert_eq!(said, (true, String::new()));
}

/// Packer's own check needs its plugins, from the network; the form of the file does not.
#[test]
fn the_recipe_uploads_what_it_runs_and_packer_takes_its_form() {
    let text = read("packaging/image/quorate.pkr.hcl");
    for name in ["provision.sh", "versions.sh"] {
        assert!(text.contains(&format!("${{path.root}}/{name}")), "{name}");
        assert!(repository().join("packaging/image").join(name).is_file());
    }
    for options in
        ["http_tokens                 = \"required\"", "imds_support = \"v2.0\"", "encrypt_boot    = true"]
    {
        assert!(text.contains(options), "{options}");
    }
    let Some(said) = asked("packer", ["fmt", "-check", "-diff", "packaging/image/quorate.pkr.hcl"]) else {
        return;
    };
    assert_eq!(said, (true, String::new()));
}
