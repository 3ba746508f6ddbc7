//! The stages together: messages, order, origins, what is printed, and what is shipped.

mod messages;
mod order;
mod shipped;
mod user_data;

use std::path::Path;

use super::*;

/// Tags as most instances have them.
fn tagged(role: &str) -> InstanceTags {
    InstanceTags { cluster: None, role: Some(role.to_owned()) }
}

/// A root with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

/// What is wrong with a root's configuration, the root left out of the paths.
fn errors_of(root: &Path, user_data: Option<&[u8]>, tags: &InstanceTags) -> String {
    let errors = load(root, user_data, tags).unwrap_err().to_string();
    errors.replace(&format!("{}/", root.display()), "/")
}

/// What is wrong with one fragment in a configuration that is fine otherwise.
fn errors_in(fragment: &str) -> String {
    let root = root(&[
        ("usr/lib/quorate/config.d/10.yaml", "cluster: demo\nbucket: demo-quorate\n"),
        ("etc/quorate/config.d/20.yaml", fragment),
    ]);
    errors_of(root.path(), None, &tagged("worker"))
}

/// Settings of user data alone.
fn settings_of(user_data: &[u8]) -> Settings {
    load(Path::new("/nonexistent"), Some(user_data), &tagged("control-plane")).unwrap().settings
}
