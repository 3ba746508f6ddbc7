//! The systemd units: that systemd takes them, and that they say what the agent relies on.

use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::etcd::launch;
use quorate::host::{Root, volume};

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values of a directive, in the order in which they are set.
fn values<'a>(unit: &'a str, directive: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_takes_the_units_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let units: Vec<PathBuf> = ["quorate.service", "quorate-etcd.service"]
        .into_iter()
        .map(|name| {
            // The programs are on machines of a cluster only: another stands in for them.
            let mut text = unit(name);
            for program in ["/usr/bin/quorate", "/usr/bin/etcd"] {
                text = text.replace(&format!("ExecStart={program} "), "ExecStart=/bin/true ");
            }
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    let output = match Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: systemd-analyze is not on the PATH");
            return;
        }
        other => other.unwrap(),
    };
    // It exits with 0 on keys that it does not know: whatever it says is a failure.
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(output.status.success(), "{}", output.status);
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

#[test]
fn the_agent_mounts_for_the_whole_machine() {
    let unit = unit("quorate.service");
    // Each of these gives a unit a mount namespace of its own, or closes block devices to it.
    // Source: systemd.exec(5), "Sandboxing"; systemd.resource-control(5), `DeviceAllow=`.
    let closing = [
        "BindPaths",
        "BindReadOnlyPaths",
        "DeviceAllow",
        "DevicePolicy",
        "DynamicUser",
        "ExecPaths",
        "ExtensionImages",
        "InaccessiblePaths",
        "MountAPIVFS",
        "MountFlags",
        "MountImages",
        "NoExecPaths",
        "PrivateDevices",
        "PrivateIPC",
        "PrivateMounts",
        "PrivateTmp",
        "PrivateUsers",
        "ProcSubset",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "RootDirectory",
        "RootImage",
        "TemporaryFileSystem",
    ];
    for directive in closing {
        assert_eq!(values(&unit, directive), [""; 0], "{directive}");
    }
    let powers = values(&unit, "CapabilityBoundingSet").join(" ");
    assert!(powers.contains("CAP_SYS_ADMIN") && powers.contains("CAP_SYS_RESOURCE"), "{powers}");
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
