//! What the packages hold and do, as far as it can be seen without building them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use quorate::config::{self, Completeness};
use quorate::kubernetes::Owner;
use serde_json::Value;

use crate::docs::read;
use crate::programs::{asked, repository};

/// `[package.metadata]` of Cargo.toml, as cargo reads it.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(repository().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole: Value = serde_json::from_slice(&output.stdout).unwrap();
    whole["packages"][0]["metadata"].clone()
}

/// What is packed: where it comes from, and its mode, by where it goes.
fn packed(package: &str) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let metadata = metadata();
    let assets = metadata[package]["assets"].as_array().unwrap();
    let one = |asset: &Value| match asset {
        Value::Array(parts) => (text(&parts[1]), (text(&parts[0]), text(&parts[2]))),
        table => (
            text(&table["dest"]).trim_start_matches('/').to_owned(),
            (text(&table["source"]), text(&table["mode"])),
        ),
    };
    assets.iter().map(one).collect()
}

#[test]
fn what_is_packed_is_there_and_nothing_of_the_laboratory_is() {
    for package in ["deb", "generate-rpm"] {
        for (to, (from, mode)) in packed(package) {
            assert!(!from.contains("lab") && !to.contains("quorate-lab"), "{package}: {from}");
            let mode_should = if to.starts_with("usr/bin/") { "755" } else { "644" };
            assert_eq!(mode, mode_should, "{package}: {to}");
            // scripts/package makes these.
            if from.starts_with("target/package/") {
                continue;
            }
            let (folder, name) = from.rsplit_once('/').unwrap_or((".", &from));
            let there = std::fs::read_dir(repository().join(folder)).unwrap().any(|entry| {
                let found = entry.unwrap().file_name().to_string_lossy().into_owned();
                name.strip_prefix('*').map_or(found == name, |ending| found.ends_with(ending))
            });
            assert!(there, "{package}: {from} is not there");
        }
    }
}

#[test]
fn both_packages_hold_the_same_but_for_where_systems_differ() {
    let only = |one: &str, other: &str| -> BTreeSet<String> {
        let other = packed(other);
        packed(one).into_keys().filter(|path| !other.contains_key(path)).collect()
    };
    let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
    let deb = set(&["usr/share/zsh/vendor-completions/_quorate", "usr/share/lintian/overrides/quorate"]);
    assert_eq!(only("deb", "generate-rpm"), deb);
    // Debian has this licence on every machine.
    let rpm = set(&["usr/share/zsh/site-functions/_quorate", "usr/share/licenses/quorate/LICENSE"]);
    assert_eq!(only("generate-rpm", "deb"), rpm);
}

#[test]
fn every_unit_is_packed_and_the_operators_file_is_left_alone() {
    let packed = packed("deb");
    for entry in std::fs::read_dir(repository().join("systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let place = if name.ends_with(".catalog") { "catalog" } else { "system" };
        assert!(packed.contains_key(&format!("usr/lib/systemd/{place}/{name}")), "{name}");
    }
    let metadata = metadata();
    let in_etc: Vec<String> =
        packed.keys().filter(|path| path.starts_with("etc/")).map(|path| format!("/{path}")).collect();
    assert_eq!(metadata["deb"]["conf-files"], serde_json::json!(in_etc));
    let rpm = metadata["generate-rpm"]["assets"].as_array().unwrap();
    for asset in rpm.iter().filter(|asset| asset["dest"].as_str().unwrap().starts_with("/etc/")) {
        assert_eq!(asset["config"], "noreplace", "{asset}");
    }
}

#[test]
fn the_operators_file_sets_nothing_and_is_read_all_the_same() {
    let fragments =
        config::check_files(&[repository().join("packaging/etc/10-operator.yaml")], Completeness::Fragments);
    assert_eq!(fragments.unwrap_or_else(|errors| panic!("{errors}")).len(), 1);
}

/// The lines of a script that do something.
fn lines(script: &str) -> Vec<String> {
    let text = read(script);
    // What it says to people stands between these.
    let (before, rest) = text.split_once("<<'END'").unwrap_or((&text, ""));
    let after = rest.split_once("\nEND\n").map_or("", |(_, after)| after);
    let code = |line: &&str| !line.trim_start().starts_with('#');
    before.lines().chain(after.lines()).filter(code).map(|line| line.trim().to_owned()).collect()
}

const SCRIPTS: [&str; 6] = [
    "packaging/debian/postinst",
    "packaging/debian/prerm",
    "packaging/debian/postrm",
    "packaging/rpm/post_install.sh",
    "packaging/rpm/pre_uninstall.sh",
    "packaging/rpm/post_uninstall.sh",
];

#[test]
fn the_packages_scripts_touch_no_unit_but_the_agents_and_remove_nothing() {
    for script in SCRIPTS {
        for line in lines(script) {
            for other in ["quorate-etcd", "kubelet.service", "kube-proxy", "containerd"] {
                assert!(!line.contains(other), "{script}: {line}");
            }
            assert!(!line.starts_with("rm ") && !line.contains(" rm "), "{script}: {line}");
            // Start, stop or restart are the agent's; restart only where it runs.
            let acts = ["start ", "stop ", "restart ", "enable ", "disable ", "preset "];
            if line.starts_with("systemctl") && acts.iter().any(|act| line.contains(act)) {
                assert!(line.contains("quorate.service"), "{script}: {line}");
            }
            assert!(!line.contains(" restart "), "{script}: {line}");
        }
    }
    // What a removal leaves is said, in the same words.
    let said = |script: &str| read(script).split("<<'END'").nth(1).unwrap().to_owned();
    for script in ["packaging/debian/prerm", "packaging/rpm/pre_uninstall.sh"] {
        for left in ["/var/lib/etcd", "/var/lib/quorate", "/etc/kubernetes", "quorate leave"] {
            assert!(said(script).contains(left), "{script}: {left}");
        }
    }
}

#[test]
fn shellcheck_finds_nothing_in_the_packages_scripts() {
    let arguments = [&["--shell=sh"][..], &SCRIPTS].concat();
    let Some(said) = asked("shellcheck", arguments) else { return };
    assert_eq!(said, (true, String::new()));
}

/// What the scripts do, with stand-ins for everything that they call, on a machine with systemd.
fn run(script: &str, arguments: &[&str]) -> (bool, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let log = dir.path().join("log");
    for name in
        ["systemctl", "deb-systemd-helper", "deb-systemd-invoke", "systemd-sysusers", "systemd-tmpfiles"]
    {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >>'{}'\n", log.display())).unwrap();
        let mut mode = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let there = dir.path().join("there");
    std::fs::create_dir(&there).unwrap();
    // As on a machine that systemd runs, wherever the test is run.
    let text = read(script).replace("/run/systemd/system", there.to_str().unwrap());
    let copy = dir.path().join("script");
    std::fs::write(&copy, text).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let output = Command::new("sh").arg(&copy).args(arguments).env("PATH", path).output().unwrap();
    let calls = std::fs::read_to_string(&log).unwrap_or_default();
    (output.status.success(), calls.lines().map(str::to_owned).collect())
}

#[test]
fn an_upgrade_restarts_the_agent_where_it_runs_and_a_first_installation_starts_nothing() {
    let first = run("packaging/debian/postinst", &["configure", ""]);
    let upgrade = run("packaging/debian/postinst", &["configure", "0.0.9-1"]);
    let restarts =
        |calls: &[String]| calls.iter().filter(|call| call.contains("restart")).cloned().collect::<Vec<_>>();
    assert!(first.0 && upgrade.0);
    assert_eq!(restarts(&first.1), [""; 0]);
    assert_eq!(restarts(&upgrade.1), ["deb-systemd-invoke try-restart quorate.service"]);
    assert!(first.1.contains(&"deb-systemd-helper enable quorate.service".to_owned()), "{first:?}");
    // dpkg's old package is told of the upgrade, too, and stops nothing.
    assert_eq!(run("packaging/debian/prerm", &["upgrade", "0.2.0-1"]), (true, Vec::new()));
    let removed = run("packaging/debian/prerm", &["remove"]);
    assert_eq!(removed, (true, vec!["deb-systemd-invoke stop quorate.service".to_owned()]));

    let first = run("packaging/rpm/post_install.sh", &["1"]);
    let upgrade = run("packaging/rpm/post_install.sh", &["2"]);
    assert_eq!(restarts(&first.1), [""; 0]);
    assert_eq!(restarts(&upgrade.1), ["systemctl try-restart quorate.service"]);
    assert_eq!(run("packaging/rpm/pre_uninstall.sh", &["1"]), (true, Vec::new()));
    let removed = run("packaging/rpm/pre_uninstall.sh", &["0"]).1;
    assert!(removed.contains(&"systemctl stop quorate.service".to_owned()), "{removed:?}");
}

#[test]
fn the_programs_users_have_the_numbers_that_the_agent_gives_files_to() {
    let text = read("packaging/sysusers.conf");
    let numbers: Vec<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("u "))
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, [Owner::ApiServer, Owner::ControllerManager, Owner::Scheduler].map(Owner::id));
    // As systemd takes it.
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let root_is = format!("--root={}", root.path().display());
    let file = repository().join("packaging/sysusers.conf");
    let Some((taken, said)) = asked("systemd-sysusers", [root_is.as_ref(), file.as_os_str()]) else {
        return;
    };
    assert!(taken, "{said}");
    let made = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(made.contains("quorate-apiserver:x:2901:2901:"), "{made}");
}

#[test]
fn the_agent_is_what_starts_at_boot() {
    let preset = read("packaging/80-quorate.preset");
    let enabled: Vec<&str> = preset.lines().filter_map(|line| line.strip_prefix("enable ")).collect();
    assert_eq!(enabled, ["quorate.service"]);
    for unit in preset.lines().filter_map(|line| line.split_once(' ')).map(|(_, unit)| unit) {
        if let Some(name) = unit.strip_suffix(".service").filter(|_| !unit.contains(' ')) {
            assert!(repository().join(format!("systemd/{name}.service")).is_file(), "{unit}");
        }
    }
}

#[test]
fn a_shutdown_in_the_first_minute_waits_as_long_as_the_kubelet_wants() {
    // What the agent writes counts instead, by the same name in /etc.
    assert!(packed("deb").contains_key("usr/lib/systemd/logind.conf.d/50-quorate.conf"));
    assert!(quorate::kubernetes::paths::LOGIND.ends_with("/logind.conf.d/50-quorate.conf"));
    let text = read("packaging/logind.conf");
    let seconds = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")).unwrap();
    assert!(read("docs/nodes.md").contains("`shutdownGracePeriod` is 2m30s on workers"));
    assert_eq!(seconds, "150");
}
