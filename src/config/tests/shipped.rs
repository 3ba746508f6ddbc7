use std::path::PathBuf;

use super::*;
use crate::config::keys::{Default, KEYS, Key, Kind};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(repository().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_is_valid() {
    let examples = files_in("docs/examples", "yaml");
    assert!(examples.len() >= 2);
    for example in examples {
        check_files(&[example], Completeness::Fragments).unwrap();
    }
}

#[test]
fn every_user_data_example_is_valid_with_a_role_tag() {
    let examples = [files_in("cloud-init", "yaml"), files_in("cloud-init", "mime")];
    for examples in examples {
        assert!(!examples.is_empty());
        for example in examples {
            let raw = std::fs::read(&example).unwrap();
            if raw.starts_with(b"#cloud-config") {
                continue;
            }
            let loaded = load(Path::new("/nonexistent"), Some(&raw), &tagged("control-plane"));
            assert_eq!(loaded.unwrap().fragments.len(), 1, "{}", example.display());
        }
    }
}

#[test]
fn the_smallest_example_is_all_that_a_tagged_node_needs() {
    let text = std::fs::read(repository().join("docs/examples/smallest.yaml")).unwrap();
    assert_eq!(settings_of(&text).bucket.as_str(), "demo-quorate");
}

/// The full example with the comment sign taken off its commented keys.
fn full_uncommented(text: &str) -> String {
    let ours = |word: &str| KEYS.iter().any(|key| key.path.rsplit('.').next() == Some(word));
    text.lines()
        .map(|line| match line.trim_start().strip_prefix("# ").and_then(|rest| rest.split_once(": ")) {
            Some((word, _)) if ours(word) => line.replacen("# ", "", 1),
            _ => line.to_owned(),
        })
        .fold(String::new(), |text, line| text + &line + "\n")
}

#[test]
fn the_full_example_names_every_key_with_its_default() {
    let text = std::fs::read_to_string(repository().join("docs/examples/full.yaml")).unwrap();
    let read = |text: String| {
        let mut errors = Vec::new();
        let inputs = inputs::read(&Fragment { source: Source::UserData, text }, &mut errors);
        assert!(errors.is_empty(), "{}", errors[0]);
        inputs
    };
    let named = read(full_uncommented(&text));
    let set = read(text);
    for key in KEYS {
        assert!(named.iter().any(|input| input.key.path == key.path), "{} is not named", key.path);
        let value = set.iter().find(|input| input.key.path == key.path).map(|input| input.value.clone());
        match key.default {
            Default::Value(default) => {
                assert_eq!(value, Some(inputs::Value::One(default.to_owned())), "{}", key.path);
            }
            Default::Unset(_) => assert_eq!(value, None, "{} is not commented out", key.path),
            Default::Required => {}
        }
    }
}

/// The row of a key in the page for operators.
fn row(key: &Key) -> String {
    let values = match &key.kind {
        Kind::Document(rule) => (rule.check)("\n").unwrap_err(),
        Kind::Text(rule) => {
            let words = (rule.check)("\n").unwrap_err();
            if words.contains(rule.example) {
                words
            } else {
                format!("{words}; for example `{}`", rule.example)
            }
        }
        Kind::List(rule) => format!("list, each {}", (rule.check)("\n").unwrap_err()),
        kind => kind.expected(),
    };
    let default = match key.default {
        Default::Required => "required".to_owned(),
        Default::Unset(meaning) => format!("not set: {meaning}"),
        Default::Value("") => "empty".to_owned(),
        Default::Value(text) => format!("`{text}`"),
    };
    format!("| `{}` | {default} | {values} | {} |", key.path, key.doc)
}

#[test]
fn the_page_for_operators_lists_exactly_the_keys_with_defaults_and_ranges() {
    let page = std::fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let listed: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| key |"))
        .filter(|line| line.starts_with("| `"))
        .collect();
    let rows: Vec<String> = KEYS.iter().map(row).collect();
    assert_eq!(listed, rows, "the table should be:\n{}", rows.join("\n"));
}

fn leaves(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        found.push(path.to_owned());
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path}");
    for (name, schema) in properties {
        leaves(&crate::config::lookup::join(path, name), schema, found);
    }
}

#[test]
fn the_schema_has_exactly_the_keys_and_describes_each() {
    let mut found = Vec::new();
    leaves("", &schema(), &mut found);
    let mut paths: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    found.sort();
    paths.sort_unstable();
    assert_eq!(found, paths);
    for key in KEYS {
        let pointer = format!("/properties/{}", key.path.replace('.', "/properties/"));
        let schema = schema();
        let leaf = schema.pointer(&pointer).unwrap();
        assert!(leaf["description"].as_str().unwrap().starts_with(key.doc));
        assert_eq!(leaf.get("default").is_some(), matches!(key.default, Default::Value(_)), "{}", key.path);
    }
}

#[test]
fn the_schema_is_what_it_was() {
    let schema = schema();
    insta::assert_json_snapshot!(schema["properties"]["etcd"]["properties"]["heartbeatInterval"], @r#"
    {
      "default": "100ms",
      "description": "How often the leader is heard; about the round trip between zones. Takes a duration from 10ms to 5s.",
      "pattern": "^([0-9]+(h([0-9]+m)?([0-9]+s)?([0-9]+ms)?|m([0-9]+s)?([0-9]+ms)?|s([0-9]+ms)?|ms))$",
      "type": "string",
      "x-maximum": "5s",
      "x-minimum": "10ms"
    }
    "#);
    insta::assert_json_snapshot!(schema["properties"]["etcd"]["properties"]["size"], @r#"
    {
      "default": 3,
      "description": "Number of slots for etcd members. Takes one of 1, 3, 5.",
      "enum": [
        1,
        3,
        5
      ],
      "type": "integer"
    }
    "#);
    insta::assert_json_snapshot!(schema["properties"]["etcd"]["properties"]["volume"]["properties"]["iops"], @r#"
    {
      "description": "Provisioned iops of a created volume; needed by `io1` and `io2`, refused by `gp2`. Takes a whole number from 100 to 256000 (iops). When not set: the type's own.",
      "maximum": 256000,
      "minimum": 100,
      "type": "integer"
    }
    "#);
    insta::assert_json_snapshot!(schema["properties"]["cluster"], @r#"
    {
      "description": "Name of the cluster; the instance tag `quorate:cluster` overrides it. Required in the whole configuration.",
      "examples": [
        "demo"
      ],
      "pattern": "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
      "type": "string"
    }
    "#);
}

#[test]
fn the_verbs_write_what_they_are_asked_for() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: verbs::ConfigCommand,
    }
    let root = root(&[("etc/quorate/config.d/1.yaml", "cluster: demo\nbucket: demo-quorate\n")]);
    let run = |arguments: &[&str]| {
        let arguments = [&["config"], arguments].concat();
        let command = Cli::try_parse_from(arguments).ok()?.command;
        let mut output = Vec::new();
        let user_data = command.needs_instance().then_some(&b"#!/bin/sh\n"[..]);
        let ran = verbs::run(&command, root.path(), user_data, &tagged("worker"), &mut output);
        let text = ran.map_or_else(|error| error.to_string(), |()| String::from_utf8(output).unwrap());
        Some(text.replace(&format!("{}/", root.path().display()), "/"))
    };
    insta::assert_snapshot!(run(&["check"]).unwrap(), @r#"
    /etc/quorate/config.d/1.yaml: valid
    user data: passed over: #!/bin/sh
    configuration: valid
    "#);
    let file = root.path().join("etc/quorate/config.d/1.yaml");
    let file = file.to_str().unwrap();
    insta::assert_snapshot!(run(&["check", file]).unwrap(), @"/etc/quorate/config.d/1.yaml: valid");
    insta::assert_snapshot!(run(&["check", "--whole", file]).unwrap(), @r#"
    configuration: required key `role` is not set
      hint: tag the instance `quorate:role`: `control-plane` or `worker`
    "#);
    assert_eq!(run(&["check", "--whole"]), None);
    assert!(run(&["show", "--origin"]).unwrap().contains("/etc/quorate/config.d/1.yaml:1"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&run(&["schema"]).unwrap()).unwrap(), schema());
}
