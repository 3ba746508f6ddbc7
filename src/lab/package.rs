//! What a package holds beside the agent and the repository's own files: man pages, completions for shells, the
//! licences of what the agent is made of; and the page of commands in the documentation.
//!
//! All of it is made from the agent's own command line and from cargo's word on its dependencies. It is the
//! laboratory's work, so that nothing of it is in the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Deserialize;

use super::LabError;
use crate::cli::Cli;

/// The system that packages are for. Dependencies of other systems are not in them.
const SYSTEM: &str = "x86_64-unknown-linux-gnu";

/// The agent's command line, as it is told to people.
fn command() -> clap::Command {
    let mut command = Cli::command().bin_name("quorate");
    command.build();
    command
}

/// The man pages: one for the program, and one for each verb, by file name.
pub fn man_pages() -> Result<BTreeMap<String, Vec<u8>>, LabError> {
    let mut pages = BTreeMap::new();
    add_pages(&command(), "quorate", &mut pages)?;
    Ok(pages)
}

fn add_pages(
    command: &clap::Command,
    name: &str,
    pages: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), LabError> {
    // A page is called as the verbs are, with hyphens: quorate-etcd-restore.
    let called: &'static str = name.to_owned().leak();
    let man = clap_mangen::Man::new(command.clone().name(called).display_name(called)).section("1");
    let mut page = Vec::new();
    man.render(&mut page).map_err(LabError::file("rendering", Path::new(called)))?;
    pages.insert(format!("{name}.1"), page);
    for verb in verbs(command) {
        add_pages(verb, &format!("{name}-{}", verb.get_name()), pages)?;
    }
    Ok(())
}

/// A command's verbs, without the one that explains the others.
fn verbs(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
}

/// Completions, by the name under which each shell looks for them.
pub fn completions() -> BTreeMap<&'static str, Vec<u8>> {
    [(Shell::Bash, "quorate.bash"), (Shell::Zsh, "_quorate"), (Shell::Fish, "quorate.fish")]
        .into_iter()
        .map(|(shell, name)| {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut script);
            (name, script)
        })
        .collect()
}

/// The page `docs/commands.md`.
pub fn page_of_commands() -> String {
    let mut page = "# Commands\n\nEvery verb of `quorate`, as `--help` tells them. This page is made from the program \
                    (`quorate-lab package-files`), and a test holds it to it. `--root DIR` goes with all of them: the \
                    directory that all paths are below, `/` without it.\n"
        .to_owned();
    add_commands(&command(), "quorate", &mut page);
    page
}

fn add_commands(command: &clap::Command, name: &str, page: &mut String) {
    for verb in verbs(command) {
        let name = format!("{name} {}", verb.get_name());
        if verbs(verb).next().is_none() {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            page.push_str(&format!("\n## `{name}`\n\n{}\n", sentence(&about)));
            let mut rows = String::new();
            for argument in verb.get_arguments().filter(|argument| is_own(argument)) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let option = written(argument).replace('|', "\\|");
                rows.push_str(&format!("| `{option}` | {} |\n", one_line(&help)));
            }
            if !rows.is_empty() {
                page.push_str(&format!("\n| option | |\n|---|---|\n{rows}"));
            }
        }
        add_commands(verb, &name, page);
    }
}

fn is_own(argument: &clap::Arg) -> bool {
    !argument.is_global_set() && !["help", "version"].contains(&argument.get_id().as_str())
}

/// As it is written on a command line.
fn written(argument: &clap::Arg) -> String {
    let values: Vec<String> =
        argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let values = if argument.get_action().takes_values() { values.join(" ") } else { String::new() };
    let many = if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
    match argument.get_long() {
        Some(long) if values.is_empty() => format!("--{long}"),
        Some(long) => format!("--{long} {values}{many}"),
        None => format!("{values}{many}"),
    }
}

fn one_line(text: &str) -> String {
    sentence(&text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
}

/// clap takes the last full stop off.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '?', ')']) || text.is_empty() { text.to_owned() } else { format!("{text}.") }
}

/// What cargo says of the packages.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    root: Option<String>,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// The licences of everything that is linked into the agent: each crate's name, version and licence, and the texts
/// that it brings, each text once.
pub fn licences(repository: &Path) -> Result<String, LabError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", SYSTEM])
        .current_dir(repository)
        .output()
        .map_err(LabError::file("asking cargo about", repository))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(LabError::Settings(format!("cargo metadata: {why}")));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| LabError::Settings(format!("cargo metadata: {error}")))?;
    let linked = linked(&metadata.resolve);
    let mut packages: Vec<&Package> =
        metadata.packages.iter().filter(|package| linked.contains(package.id.as_str())).collect();
    packages.sort_by_key(|package| (&package.name, &package.version));

    let mut text =
        "quorate is under the Apache License 2.0. It is linked with these, under their own licences.\n\n"
            .to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("as its own text says");
        text.push_str(&format!("{name}: {licence}\n"));
        for found in texts_of(package)? {
            texts.entry(found).or_default().push(name.clone());
        }
    }
    for (found, names) in texts {
        text.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(80), names.join(", "), found.trim_end()));
    }
    Ok(text)
}

/// The ids of what is linked: what is needed at run time by the root, by what that needs, and so on.
fn linked(resolve: &Resolve) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = resolve.root.as_deref().into_iter().collect();
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let is_linked = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            if is_linked && found.insert(dependency.pkg.as_str()) {
                open.push(&dependency.pkg);
            }
        }
    }
    found
}

/// The texts of a package's licences and notices, by name.
fn texts_of(package: &Package) -> Result<Vec<String>, LabError> {
    let Some(folder) = package.manifest_path.parent() else { return Ok(Vec::new()) };
    let entries = fs::read_dir(folder).map_err(LabError::file("reading", folder))?;
    let mut paths: BTreeSet<PathBuf> = package.license_file.iter().map(|file| folder.join(file)).collect();
    for entry in entries {
        let path = entry.map_err(LabError::file("reading", folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        let is_text = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
            .iter()
            .any(|word| name.starts_with(word));
        if is_text && path.is_file() {
            paths.insert(path);
        }
    }
    paths.iter().map(|path| fs::read_to_string(path).map_err(LabError::file("reading", path))).collect()
}

/// Writes all of it below a directory: `man/`, `completions/`, `third-party-licences.txt`, `commands.md`.
pub fn write(repository: &Path, out: &Path) -> Result<(), LabError> {
    let put = |folder: &str, name: &str, content: &[u8]| {
        let folder = out.join(folder);
        fs::create_dir_all(&folder).map_err(LabError::file("making", &folder))?;
        let path = folder.join(name);
        fs::write(&path, content).map_err(LabError::file("writing", &path))
    };
    for (name, page) in man_pages()? {
        put("man", &name, &page)?;
    }
    for (name, script) in completions() {
        put("completions", name, &script)?;
    }
    put("", "third-party-licences.txt", licences(repository)?.as_bytes())?;
    put("", "commands.md", page_of_commands().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_man_page_and_its_place_in_the_reference() {
        let pages = man_pages().unwrap();
        let names: Vec<&str> = pages.keys().map(String::as_str).collect();
        for verb in ["quorate.1", "quorate-status.1", "quorate-etcd-restore.1", "quorate-config-check.1"] {
            assert!(names.contains(&verb), "{verb}: {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        let text = String::from_utf8(pages["quorate-leave.1"].clone()).unwrap();
        assert!(text.contains(".TH quorate-leave 1"), "{text}");
        assert!(text.contains("\\-\\-cancel"), "{text}");
        let reference = page_of_commands();
        assert!(reference.contains("\n## `quorate etcd restore`\n"), "{reference}");
        assert!(reference.contains("| `--json` | As JSON. |"), "{reference}");
    }

    #[test]
    fn shells_complete_the_verbs() {
        for (name, script) in completions() {
            let text = String::from_utf8(script).unwrap();
            assert!(text.contains("kubeconfig") && text.contains("observed"), "{name}");
        }
    }

    #[test]
    fn what_is_linked_is_told_from_what_only_builds_or_tests() {
        let resolve: Resolve = serde_json::from_value(serde_json::json!({
            "root": "me",
            "nodes": [
                {"id": "me", "deps": [
                    {"pkg": "linked", "dep_kinds": [{"kind": null}, {"kind": "build"}]},
                    {"pkg": "tests", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "linked", "deps": [{"pkg": "deep", "dep_kinds": [{"kind": null}]}]},
                {"id": "tests", "deps": [{"pkg": "unseen", "dep_kinds": [{"kind": null}]}]},
                {"id": "deep", "deps": [{"pkg": "builds", "dep_kinds": [{"kind": "build"}]}]}
            ]
        }))
        .unwrap();
        assert_eq!(linked(&resolve), BTreeSet::from(["deep", "linked"]));
    }
}
