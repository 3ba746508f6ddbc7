//! Effective values as YAML. What is printed is a fragment that means the same.

use std::fmt::Write as _;

use super::Loaded;
use super::inputs::Value;
use super::keys::{Key, Kind};

/// The effective values as YAML, in the order of the keys; with `with_origin`, each line ends in a comment that
/// says where its value came from. Keys that are not set and have no default do not appear.
pub fn show(loaded: &Loaded, with_origin: bool) -> String {
    let mut lines: Vec<(String, Option<String>)> = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    for (path, value, origin) in &loaded.origins {
        let mut names: Vec<&str> = path.split('.').collect();
        let Some(name) = names.pop() else { continue };
        let common = open.iter().zip(&names).take_while(|(a, b)| a == b).count();
        open.truncate(common);
        for section in &names[common..] {
            lines.push((format!("{}{section}:", indent(open.len())), None));
            open.push(section);
        }
        lines.push((format!("{}{name}: {value}", indent(open.len())), Some(origin.to_string())));
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 48).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for (line, origin) in lines {
        // Writing to a String cannot fail.
        let _ = match origin.filter(|_| with_origin) {
            Some(origin) => writeln!(text, "{line:width$}  # {}", super::yaml::shorten(&origin)),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

/// A value as it is written in YAML.
pub(super) fn render(key: &Key, value: &Value) -> String {
    match (&key.kind, value) {
        (_, Value::Many(texts)) => {
            let items: Vec<String> = texts.iter().map(|text| quote(text)).collect();
            format!("[{}]", items.join(", "))
        }
        (Kind::Text(_) | Kind::List(_) | Kind::Document(_), Value::One(text)) => quote(text),
        // Words, numbers, durations and sizes are never read as anything else.
        (_, Value::One(text)) => text.clone(),
    }
}

/// Plain where no YAML reader could take it for anything but this text, else in double quotes.
fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if starts_well && text.bytes().all(plain) && !words.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON's strings are YAML's double-quoted ones.
    serde_json::Value::from(text).to_string()
}
