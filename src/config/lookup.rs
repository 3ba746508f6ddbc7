//! Finding keys by their names: exactly, by section, and by what somebody probably meant.

use std::fmt::Display;

use super::keys::{KEYS, Key};

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that may stand in a section (the top for an empty path), in order.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let rest = if section.is_empty() {
            Some(key.path)
        } else {
            key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// A path below a section.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The candidate that the word was probably meant to be.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_', '.', ' '], "").to_lowercase();
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What to do about a key that is not known.
pub(super) fn suggest(section: &str, name: &str) -> String {
    let siblings = children(section);
    if let Some(close) = closest(name, siblings.iter().copied()) {
        return format!("did you mean `{}`?", join(section, close));
    }
    if let Some(key) = find(&join(section, name)) {
        return format!("sections are nested: write `{}`", nested(key.path));
    }
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    if let Some(key) = KEYS.iter().find(|key| key.path.contains('.') && last(key.path) == name) {
        return format!("did you mean `{}`? sections are nested: write `{}`", key.path, nested(key.path));
    }
    let place = if section.is_empty() { "at the top".to_owned() } else { format!("in `{section}`") };
    format!("allowed {place}: {}", list(&siblings))
}

/// `etcd.size` as it is written in flow style: `etcd: {size: …}`.
fn nested(path: &str) -> String {
    let depth = path.matches('.').count();
    format!("{}: …{}", path.replace('.', ": {"), "}".repeat(depth))
}

/// `a`, `b`, `c`.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}
