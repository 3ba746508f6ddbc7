//! `cloud-init/`: user data for machines, each form and each part of it, by who is to read it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mailparse::ParsedMail;
use quorate::config::{self, InstanceTags, Loaded, PART_TYPE};
use serde::Deserialize;

use crate::programs::{asked, repository};

/// EC2's limit, in bytes.
const MOST: usize = 16 * 1024;

/// The files of an ending, with their contents.
fn files(ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repository().join("cloud-init"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    found.sort();
    assert_eq!(found.len(), 2, "one of the control plane, one of workers: {found:?}");
    found.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// As on a machine whose group has this role's tag.
fn loaded(root: &Path, user_data: &[u8], file: &Path) -> Loaded {
    let role = if file.file_name().unwrap().to_str().unwrap().starts_with("worker") {
        "worker"
    } else {
        "control-plane"
    };
    let tags = InstanceTags { cluster: Some("demo".to_owned()), role: Some(role.to_owned()) };
    config::load(root, Some(user_data), &tags).unwrap_or_else(|errors| panic!("{}: {errors}", file.display()))
}

/// What cloud-init says of a cloud-config; nothing where it is not installed.
fn cloud_init_takes(text: &[u8], whence: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("user-data");
    std::fs::write(&path, text).unwrap();
    let arguments = ["schema", "--config-file"].map(AsRef::as_ref);
    if let Some((taken, said)) = asked("cloud-init", arguments.into_iter().chain([path.as_os_str()])) {
        assert!(taken, "{}: {said}", whence.display());
    }
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<WrittenFile>,
}

#[derive(Deserialize)]
struct WrittenFile {
    path: String,
    permissions: String,
    content: String,
}

#[test]
fn all_of_it_fits_into_user_data() {
    for ending in ["yaml", "mime", "cloud-config"] {
        for (path, text) in files(ending) {
            assert!(text.len() < MOST, "{}: {} bytes", path.display(), text.len());
        }
    }
}

#[test]
fn what_is_quorates_alone_is_read_by_it_as_a_whole() {
    for (path, text) in files("yaml") {
        let loaded = loaded(Path::new("/nonexistent"), &text, &path);
        assert_eq!((loaded.fragments.len(), loaded.passed_over.len()), (1, 0), "{}", path.display());
    }
}

#[test]
fn each_part_of_a_message_is_read_by_whom_it_is_for() {
    for (path, text) in files("mime") {
        let message = mailparse::parse_mail(&text).unwrap();
        let of_type = |wanted: &str| -> Vec<&ParsedMail<'_>> {
            message.subparts.iter().filter(|part| part.ctype.mimetype == wanted).collect()
        };
        let [cloud] = of_type("text/cloud-config")[..] else {
            panic!("{}: one part for cloud-init", path.display())
        };
        let body = cloud.get_body_raw().unwrap();
        // cloud-init goes by this line, and only then by the type.
        assert!(body.starts_with(b"#cloud-config\n"), "{}", path.display());
        cloud_init_takes(&body, &path);
        assert_eq!(of_type(PART_TYPE).len(), 1, "{}", path.display());
        let loaded = loaded(Path::new("/nonexistent"), &text, &path);
        assert_eq!((loaded.fragments.len(), loaded.passed_over.len()), (1, 1), "{}", path.display());
    }
}

#[test]
fn what_cloud_init_writes_is_read_by_the_agent_and_by_the_kubelet() {
    for (path, text) in files("cloud-config") {
        cloud_init_takes(&text, &path);
        let cloud: CloudConfig = serde_saphyr::from_str(std::str::from_utf8(&text).unwrap()).unwrap();
        let root = tempfile::tempdir().unwrap();
        for file in &cloud.write_files {
            let to = root.path().join(file.path.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(&to, &file.content).unwrap();
            assert_eq!(file.permissions, "0644", "{}", file.path);
            if file.path.starts_with("/etc/quorate/kubelet.d/") {
                // Fields of the kubelet's own; the planner holds them against its version.
                let fields: BTreeMap<String, serde_json::Value> =
                    serde_saphyr::from_str(&file.content).unwrap();
                assert!(fields.contains_key("containerLogMaxSize"), "{fields:?}");
            }
        }
        // The whole configuration comes from the file: of such user data quorate takes nothing.
        let loaded = loaded(root.path(), &text, &path);
        assert_eq!((loaded.fragments.len(), loaded.passed_over.len()), (1, 1), "{}", path.display());
        assert_eq!(loaded.settings.bucket.as_str(), "demo-quorate");
    }
}

/// cloud-init's units as the agent's names them; one that is not there orders nothing.
#[test]
fn the_agent_comes_after_what_writes_files_and_waits_for_nothing_that_waits_for_it() {
    let unit = std::fs::read_to_string(repository().join("systemd/quorate.service")).unwrap();
    let values = |directive: &str| -> Vec<String> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
        lines.flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let after = values("After");
    for earlier in ["cloud-init.service", "cloud-init-network.service", "cloud-config.service"] {
        assert!(after.contains(&earlier.to_owned()), "{earlier}");
    }
    // cloud-final.service comes after multi-user.target, and that after this unit.
    for bond in ["After", "Wants", "Requires", "BindsTo", "Requisite", "PartOf"] {
        let values = values(bond);
        assert!(
            !values.iter().any(|unit| unit.contains("cloud-final") || unit == "cloud-init.target"),
            "{bond}"
        );
        // Ordered and no more: it starts on machines without cloud-init, and when that has failed.
        assert!(bond == "After" || !values.iter().any(|unit| unit.contains("cloud")), "{bond}: {values:?}");
    }
    assert_eq!(values("Before"), [""; 0]);
}
