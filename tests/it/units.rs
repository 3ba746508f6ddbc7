//! The systemd units: that systemd takes them, and that they say what the agent relies on.

use std::path::{Path, PathBuf};

use quorate::etcd::launch;
use quorate::host::{Root, volume};
use quorate::model::ServiceName;

use crate::programs::{asked, repository};

fn unit(name: &str) -> String {
    let path = repository().join("systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The units, each with the most that `systemd-analyze security` may find open in it, of 100. The kubelet does
/// whatever pods need, and is confined in nothing.
const UNITS: [(&str, u32); 4] = [
    ("quorate.service", 27),
    ("quorate-etcd.service", 20),
    ("kubelet.service", 96),
    ("kube-proxy.service", 24),
];

/// The values of a directive, in the order in which they are set.
fn values<'a>(unit: &'a str, directive: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_takes_the_units_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let units: Vec<PathBuf> = UNITS
        .into_iter()
        .map(|(name, _)| {
            // The programs are on machines of a cluster only: another stands in for them.
            let mut text = unit(name);
            for program in ["/usr/bin/quorate", "/usr/bin/etcd", "/usr/bin/kubelet", "/usr/bin/kube-proxy"] {
                text = text.replace(&format!("ExecStart={program} "), "ExecStart=/bin/true ");
            }
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    let verify = [Path::new("verify")].into_iter().chain(units.iter().map(PathBuf::as_path));
    // It exits with 0 on keys that it does not know: whatever it says is a failure.
    let Some(said) = asked("systemd-analyze", verify) else { return };
    assert_eq!(said, (true, String::new()));
}

#[test]
fn no_unit_is_more_open_than_it_was() {
    for (name, most) in UNITS {
        let (threshold, unit) = (format!("--threshold={most}"), format!("systemd/{name}"));
        let arguments = ["security", "--offline=true", "--no-pager", &threshold, &unit];
        let Some((closed, said)) = asked("systemd-analyze", arguments) else { return };
        assert!(closed, "{name}: {}", said.lines().last().unwrap_or_default());
    }
}

#[test]
fn a_nodes_services_are_started_by_the_agent_alone_and_bound_to_nothing() {
    for service in [ServiceName::Kubelet, ServiceName::KubeProxy] {
        let unit = unit(service.unit());
        assert!(!unit.lines().any(|line| line == "[Install]"), "{service}");
        for bond in ["Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Conflicts"] {
            assert_eq!(values(&unit, bond), [""; 0], "{service}: {bond}");
        }
        assert_eq!(values(&unit, "Restart"), ["always"]);
        assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"]);
        // By the words that the agent writes.
        assert_eq!(values(&unit, "EnvironmentFile"), [service.environment_file().unwrap()]);
        let start = format!("/usr/bin/{service} ${}", service.arguments_variable());
        assert_eq!(values(&unit, "ExecStart"), [start.as_str()]);
    }
}

#[test]
fn a_kubelet_that_ends_leaves_its_pods_and_comes_after_what_runs_them() {
    let unit = unit("kubelet.service");
    assert_eq!(values(&unit, "KillMode"), ["process"]);
    for order in ["Wants", "After"] {
        assert!(values(&unit, order).contains(&"containerd.service"), "{order}");
    }
}

#[test]
fn kube_proxy_may_change_the_machines_network_and_nothing_else_of_it() {
    let unit = unit("kube-proxy.service");
    assert_eq!(values(&unit, "CapabilityBoundingSet"), ["CAP_NET_ADMIN"]);
    // Its tunables are below /proc/sys, its rules go over netlink, and both are the machine's own.
    for closing in ["ProtectKernelTunables", "PrivateNetwork", "ReadWritePaths", "IPAddressDeny"] {
        assert_eq!(values(&unit, closing), [""; 0], "{closing}");
    }
    assert!(values(&unit, "RestrictAddressFamilies").join(" ").contains("AF_NETLINK"));
    assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
}

#[test]
fn etcd_reads_the_file_that_the_agent_writes_and_starts_only_on_its_volume() {
    let (unit, root) = (unit("quorate-etcd.service"), Root::default());
    let config = root.path("/var/lib/quorate/etcd").join(launch::CONFIG_FILE);
    assert_eq!(values(&unit, "ExecStart"), [format!("/usr/bin/etcd --config-file {}", config.display())]);
    let volume = volume::mount_point(&root).display().to_string();
    assert_eq!(values(&unit, "AssertPathIsMountPoint"), [volume.as_str()]);
    assert_eq!(values(&unit, "ReadWritePaths"), [volume.as_str()]);
}

#[test]
fn etcd_is_started_by_the_agent_alone_bound_to_nothing_and_never_killed() {
    let unit = unit("quorate-etcd.service");
    assert!(!unit.lines().any(|line| line == "[Install]"));
    for bond in
        ["Requires", "Requisite", "BindsTo", "PartOf", "Wants", "Upholds", "Conflicts", "RequiresMountsFor"]
    {
        assert_eq!(values(&unit, bond), [""; 0], "{bond}");
    }
    let only = |directive: &str| match values(&unit, directive).as_slice() {
        [value] => (*value).to_owned(),
        several => panic!("{directive}: {several:?}"),
    };
    // Started again by systemd, it would start on whatever lies there: rule 4 is the agent's to keep.
    assert_eq!(only("Restart"), "no");
    assert_eq!(only("KillSignal"), "SIGTERM");
    assert_eq!(only("SendSIGKILL"), "no");
    assert_eq!(only("TimeoutStopSec"), "infinity");
}

/// In a view of its own of the file system: what it mounted there would not be seen by etcd, so systemd mounts for it.
#[test]
fn the_agent_has_a_view_of_its_own_and_no_power_to_mount() {
    let unit = unit("quorate.service");
    assert_eq!(values(&unit, "CapabilityBoundingSet"), ["CAP_CHOWN CAP_DAC_OVERRIDE"]);
    assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
    let filter = values(&unit, "SystemCallFilter").join(" ");
    assert!(!filter.contains("@mount") && !filter.contains("@privileged"), "{filter}");
    // What it writes lies in these, and may be made after its start, so they are whole trees.
    let root = Root::default();
    let written = [volume::mount_point(&root), root.path("/etc/kubernetes"), root.path("/run/quorate")];
    let trees = values(&unit, "ReadWritePaths").join(" ");
    for path in written {
        assert!(trees.split(' ').any(|tree| path.starts_with(tree)), "{}", path.display());
    }
    // The volume's device is one of these; and on the console it says what it waits for.
    assert_eq!(values(&unit, "DevicePolicy"), ["closed"]);
    assert_eq!(values(&unit, "DeviceAllow"), ["block-* rw", "/dev/console w"]);
    assert_eq!(values(&unit, "PrivateDevices"), [""; 0]);
    // Mounts of the machine appear in its view only as long as that follows the machine's.
    for cut in [
        "MountFlags",
        "RootDirectory",
        "RootImage",
        "DynamicUser",
        "TemporaryFileSystem",
        "InaccessiblePaths",
    ] {
        assert_eq!(values(&unit, cut), [""; 0], "{cut}");
    }
}

#[test]
fn every_directive_of_the_agents_own_life_is_there() {
    let unit = unit("quorate.service");
    for (directive, value) in [
        ("Type", "notify"),
        ("ExecStart", "/usr/bin/quorate run"),
        ("Restart", "always"),
        ("KillMode", "mixed"),
    ] {
        assert_eq!(values(&unit, directive), [value]);
    }
    assert_eq!(values(&unit, "WatchdogSec").len(), 1);
}
