//! The documentation, held to the code. What it has people type is in `examples`.

mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quorate::exit::Exit;
use quorate::lab::drill::Drill;
use quorate::model::backup::BACKUPS;
use quorate::model::plan::Subject;
use quorate::model::{Halt, WaitingOn, Warning};
use quorate::reach::JOIN;
use quorate::telemetry::status::{KubernetesStatus, MemberStatus, Status, VERSION};

use crate::programs::repository;

pub fn read(name: impl AsRef<Path>) -> String {
    let path = repository().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The part of a page below a heading, to the next heading of any level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    rest.split_once("\n#").map_or(rest, |(section, _)| section)
}

/// The cells of the tables' rows, without the rows of names and dashes.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let is_rule = |line: &str| line.starts_with("|-");
    let lines: Vec<&str> = text.lines().collect();
    let below = lines.iter().skip(1).copied().chain([""]);
    lines
        .iter()
        .zip(below)
        .filter(|(line, below)| line.starts_with('|') && !is_rule(line) && !is_rule(below))
        .map(|(line, _)| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// The first cells, which are names in code's type.
fn names(text: &str) -> Vec<String> {
    rows(text).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

/// The JSON names of the variants of an enum of the plan's, in order, by its source.
fn variants(name: &str) -> Vec<String> {
    variants_in("src/model/plan.rs", name)
}

/// The same of any enum.
fn variants_in(path: &str, name: &str) -> Vec<String> {
    let source = read(path);
    let (_, rest) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum");
    let (body, _) = rest.split_once("\n}\n").expect("its end");
    body.lines()
        .filter_map(|line| line.strip_prefix("    ")?.split([' ', ',', '{']).next())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|word| format!("{}{}", word[..1].to_ascii_lowercase(), &word[1..]))
        .collect()
}

fn set(names: &[String]) -> BTreeSet<&str> {
    let set: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(set.len(), names.len(), "one is there twice: {names:?}");
    set
}

#[test]
fn variants_are_read_as_they_are_written_in_json() {
    let json = |value: serde_json::Value, tag: &str| value[tag].as_str().unwrap().to_owned();
    let halt = json(serde_json::to_value(Halt::AuthorityLost).unwrap(), "because");
    let wait = json(serde_json::to_value(WaitingOn::FreeSlot).unwrap(), "on");
    let warning = json(serde_json::to_value(Warning::CharterLost).unwrap(), "about");
    let subject = serde_json::to_value(Subject::EtcdVersion).unwrap().as_str().unwrap().to_owned();
    for (name, one) in [("Halt", halt), ("WaitingOn", wait), ("Warning", warning), ("Subject", subject)] {
        assert!(variants(name).contains(&one), "{name}: {one} is not in {:?}", variants(name));
    }
}

#[test]
fn every_halt_has_its_paragraph() {
    let page = read("docs/halts.md");
    let headings: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned))
        .collect();
    let variants = variants("Halt");
    assert_eq!(set(&headings), set(&variants));
    for heading in &headings {
        let paragraph = section(&page, &format!("### `{heading}`"));
        assert!(paragraph.split_whitespace().count() > 10, "{heading}: {paragraph:?}");
    }
}

#[test]
fn every_warning_wait_and_subject_has_its_row() {
    let halts = read("docs/halts.md");
    assert_eq!(set(&names(section(&halts, "## Warnings"))), set(&variants("Warning")));
    let mismatches = variants_in("src/model/mismatch.rs", "Mismatch");
    assert_eq!(set(&names(section(&halts, "## What does not match"))), set(&mismatches));
    let waits = read("docs/waits.md");
    let (on, about) = waits.split_once("\n## What an answer is about\n").unwrap();
    assert_eq!(set(&names(on)), set(&variants("WaitingOn")));
    assert_eq!(set(&names(about)), set(&variants("Subject")));
}

#[test]
fn the_status_has_the_keys_that_are_documented_and_no_others() {
    let page = read("docs/status.md");
    let status = serde_json::to_value(Status::starting(Vec::new(), None)).unwrap();
    let keys =
        |value: &serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let (own, member) = section(&page, "## The file").split_once("\nA member:\n").unwrap();
    assert_eq!(set(&names(own)), set(&keys(&status)));
    let one = MemberStatus {
        id: "6d1653d4f44e956e".parse().unwrap(),
        name: String::new(),
        peer_urls: Vec::new(),
        learner: false,
        healthy: None,
        size: None,
        in_use: None,
        quota: None,
    };
    let (member, kubernetes) = member.split_once("\nKubernetes:\n").unwrap();
    assert_eq!(set(&names(member)), set(&keys(&serde_json::to_value(one).unwrap())));
    let plane = KubernetesStatus {
        version: String::new(),
        endpoint: None,
        components: BTreeMap::default(),
        keeper: None,
        addons: Some(BTreeMap::default()),
        workers: None,
        load_balancers: None,
        target: None,
    };
    assert_eq!(set(&names(kubernetes)), set(&keys(&serde_json::to_value(plane).unwrap())));
    assert_eq!(set(&names(section(&page, "## Phases"))), set(&variants_in("src/model/phase.rs", "Phase")));
    assert!(own.contains(&format!("the version of this form: {VERSION} ")));
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let page = read("docs/exit-codes.md");
    let documented: Vec<(String, String)> =
        rows(&page).into_iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    let real: Vec<(String, String)> =
        Exit::ALL.iter().map(|exit| (exit.code().to_string(), exit.meaning().to_owned())).collect();
    assert_eq!(documented, real);
}

#[test]
fn permissions_name_every_call_to_ec2_and_load_balancers_and_no_other() {
    let page = read("docs/permissions.md");
    let table = section(&page, "## Control plane");
    let documented = names(table);
    let balancers = ["src/aws/load_balancers/network.rs", "src/aws/load_balancers/classic.rs"];
    for (service, files) in [("ec2:", &["src/aws/ec2.rs"][..]), ("elasticloadbalancing:", &balancers)] {
        // Each call names its operation, for its errors.
        let source: String = files.iter().map(read).collect();
        let calls: BTreeSet<&str> =
            source.split("operation: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let named: BTreeSet<&str> = documented.iter().filter_map(|name| name.strip_prefix(service)).collect();
        assert_eq!(named, calls, "{files:?}");
    }
    // And the policy allows what the table says, with what only some clusters need.
    let both = [statements(policy(&page, 1)), statements(policy(&page, 2))].concat();
    let by_choice = ["## The doctor", "## CloudWatch"].map(|heading| names(section(&page, heading)));
    let named = [documented, by_choice.concat()].concat();
    assert_eq!(allowed(&both), set(&named));
}

#[test]
fn permissions_name_every_call_to_auto_scaling_and_s3_and_no_other() {
    let page = read("docs/permissions.md");
    let documented = names(section(&page, "## Control plane"));
    let groups = ["src/aws/autoscaling.rs", "src/aws/autoscaling/lifecycle.rs"];
    let objects = sources("src/aws/objects");
    let is_settings = |path: &&str| path.ends_with("/settings.rs");
    let all: Vec<&str> = objects.iter().map(String::as_str).chain(["src/aws/objects.rs"]).collect();
    let (settings, objects): (Vec<&str>, Vec<&str>) = all.into_iter().partition(is_settings);
    let for_the_doctor = names(section(&page, "## The doctor"));
    for (service, files, documented) in [
        ("autoscaling:", &groups[..], &documented),
        ("s3:", &objects, &documented),
        ("s3:", &settings, &for_the_doctor),
    ] {
        let source: String = files.iter().map(read).collect();
        let source: String = source.split_whitespace().collect();
        let calls: BTreeSet<String> = source
            .split("self.client.")
            .skip(1)
            .filter_map(|rest| rest.split('(').next())
            .map(permission)
            .map(|method| method.split('_').map(capitalized).collect())
            .collect();
        let named = documented.iter().filter_map(|name| name.strip_prefix(service)).map(str::to_owned);
        assert_eq!(named.collect::<BTreeSet<String>>(), calls, "{files:?}");
    }
}

/// The permission that a call needs, where it has not the call's own name.
/// Source: "Required permissions for Amazon S3 API operations", Amazon S3 user guide.
fn permission(method: &str) -> &str {
    match method {
        "list_objects_v2" => "list_bucket",
        "list_multipart_uploads" => "list_bucket_multipart_uploads",
        "get_bucket_encryption" => "get_encryption_configuration",
        "get_public_access_block" => "get_bucket_public_access_block",
        "get_bucket_lifecycle_configuration" => "get_lifecycle_configuration",
        "create_multipart_upload" | "upload_part" | "complete_multipart_upload" => "put_object",
        other => other,
    }
}

/// The source files of a folder, without its tests.
fn sources(folder: &str) -> Vec<String> {
    let files = std::fs::read_dir(repository().join(folder)).unwrap().map(|file| file.unwrap().path());
    let sources = files.filter(|path| path.is_file() && !path.ends_with("tests.rs"));
    sources.map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn only_backups_are_deleted() {
    let page = read("docs/permissions.md");
    let statements = statements(policy(&page, 1));
    let deletes = |statement: &&serde_json::Value| statement["Action"].to_string().contains("Delete");
    let [only] = statements.iter().filter(deletes).collect::<Vec<_>>()[..] else {
        panic!("one statement: {statements:#?}")
    };
    assert_eq!(only["Resource"], format!("arn:aws:s3:::demo-quorate/demo/{BACKUPS}*"));
}

#[test]
fn workers_may_read_what_they_are_told_and_nothing_else() {
    let page = read("docs/permissions.md");
    let documented = names(section(&page, "## Workers"));
    let of_s3: Vec<&str> =
        documented.iter().map(String::as_str).filter(|name| name.starts_with("s3:")).collect();
    assert_eq!(of_s3, ["s3:GetObject", "s3:ListBucket"]);
    let statements = statements(policy(&page, 3));
    assert_eq!(allowed(&statements), set(&documented));
    let of_s3 = |statement: &&serde_json::Value| statement["Action"].to_string().contains("s3:");
    let [only, names] = statements.iter().filter(of_s3).collect::<Vec<_>>()[..] else {
        panic!("two statements: {statements:#?}")
    };
    assert_eq!((&only["Effect"], &only["Action"]), (&"Allow".into(), &"s3:GetObject".into()));
    assert_eq!((&names["Effect"], &names["Action"]), (&"Allow".into(), &"s3:ListBucket".into()));
    // All that is published to them lies there, and no private key does.
    let folder = JOIN.split_once('/').unwrap().0;
    assert_eq!(only["Resource"], format!("arn:aws:s3:::demo-quorate/demo/{folder}/*"));
}

/// The statements of the page's policy of this number, from 1.
fn policy(page: &str, number: usize) -> &str {
    page.split("```json").nth(number).and_then(|rest| rest.split("```").next()).unwrap()
}

fn statements(policy: &str) -> Vec<serde_json::Value> {
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

fn allowed(statements: &[serde_json::Value]) -> BTreeSet<&str> {
    statements
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            serde_json::Value::Array(actions) => {
                actions.iter().filter_map(|action| action.as_str()).collect()
            }
            action => Vec::from_iter(action.as_str()),
        })
        .collect()
}

fn capitalized(word: &str) -> String {
    format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..])
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let should = quorate::lab::package::page_of_commands();
    assert!(read("docs/commands.md") == should, "docs/commands.md should be:\n{should}");
}

#[test]
fn every_drill_is_on_the_laboratorys_page() {
    let page = read("docs/laboratory.md");
    let documented: Vec<(String, String)> = rows(section(&page, "## Drills"))
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned()))
        .collect();
    let real: Vec<(String, String)> =
        Drill::ALL.iter().map(|drill| (drill.name().to_owned(), drill.summary().to_owned())).collect();
    assert_eq!(documented, real);
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec!["README.md".into(), "ARCHITECTURE.md".into()];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(repository().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if repository().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// What a heading is linked by: without punctuation, and with hyphens for blanks.
fn anchor_of(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    heading.chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(repository().join(&target).exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let there = read(&target)
                    .lines()
                    .filter_map(|line| line.strip_prefix('#'))
                    .map(|line| line.trim_start_matches('#').trim().to_lowercase())
                    .any(|heading| anchor_of(&heading) == anchor);
                assert!(there, "{}: {link}", page.display());
            }
        }
    }
    assert!(links > 20, "{links} links were found");
}
