//! The repository, and other people's programs that read what is in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the repository is.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program: what was unpacked into `.tools`, else what is on the PATH; `None`, and a word, when there is none.
pub fn program(name: &str) -> Option<PathBuf> {
    let tools = repository().join(".tools");
    let places = std::env::var_os("PATH").unwrap_or_default();
    let own = [tools.join("bin"), tools.join(name).join("bin")];
    let found = own
        .into_iter()
        .chain(std::env::split_paths(&places))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is neither in .tools nor on the PATH");
    }
    found
}

/// What a program printed.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Asks a program, in the repository: whether it is content, and what it says. `None`, and a word, when there is none.
pub fn asked(name: &str, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Option<(bool, String)> {
    let output = Command::new(program(name)?).args(arguments).current_dir(repository()).output().unwrap();
    Some((output.status.success(), said(&output)))
}
