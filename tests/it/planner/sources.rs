//! The planner and its values have no way to the outside.

use std::path::Path;

/// The folders that are pure: the planner, its values, and what it renders to compare with.
const FOLDERS: [&str; 3] = ["plan", "model", "kubernetes"];

/// Keys and certificates are made elsewhere; what is rendered may hold their secrets, not decide on them.
const FORBIDDEN_TO_DECIDE: &str = "crate::pki";

const FORBIDDEN: [&str; 22] = [
    "tokio",
    "aws_config",
    "aws_sdk",
    "aws_smithy",
    "etcd_client",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "SystemTime",
    "Instant",
    "std::env",
    "std::process",
    "std::thread",
    "crate::aws",
    "crate::host",
    "crate::etcd",
    "crate::observe",
    "crate::execute",
    "crate::reach",
    "crate::cluster_api",
    "kube::Client",
    "kube::{Api",
];

#[test]
fn the_planner_and_the_model_reach_nothing_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for folder in FOLDERS {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in (1..).zip(code) {
                let to_decide = (folder != "kubernetes").then_some(FORBIDDEN_TO_DECIDE);
                for forbidden in FORBIDDEN.into_iter().chain(to_decide) {
                    assert!(!line.contains(forbidden), "{}:{number}: {forbidden}: {line}", path.display());
                }
            }
        }
    }
    assert!(files > 40, "only {files} files were found");
}
