//! What is shipped for monitoring, held to the agent and to the programs that read it; and `quorate check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use quorate::host::Root;
use quorate::model::backup::{BackupProgress, Keeping};
use quorate::model::{Halt, Phase, Waiting, WaitingOn, Warning};
use quorate::telemetry::checks::{Check, State, Thresholds, judge};
use quorate::telemetry::messages;
use quorate::telemetry::metrics;
use quorate::telemetry::status::{self, Status, StatusError};
use serde_json::Value;

use crate::docs::{read, rows};
use crate::monitor::{AT, documented, full, page};
use crate::programs::{program, repository, said};

const PROMETHEUS: &str = "packaging/monitoring/prometheus";

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metrics that an expression names, with the labels that it names of each.
fn named(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("quorate_") {
        let after = &rest[at..];
        let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        let selector =
            tail.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or("", |(inner, _)| inner);
        let labels = selector.split(',').filter_map(|pair| pair.split(['=', '!']).next());
        let labels = labels.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
        found.push((name.to_owned(), labels.collect()));
        rest = tail;
    }
    found
}

/// The labels that `scrape.yaml` gives to every metric.
fn given() -> BTreeSet<String> {
    let scrape = yaml(&format!("{PROMETHEUS}/scrape.yaml"));
    let rules = scrape["scrape_configs"][0]["relabel_configs"].as_array().unwrap().clone();
    rules.iter().map(|rule| rule["target_label"].as_str().unwrap().to_owned()).collect()
}

fn is_made_of_what_there_is(expression: &str) {
    let (known, given) = (documented(), given());
    for (name, labels) in named(expression) {
        let own = known.get(&name).unwrap_or_else(|| panic!("there is no {name}: {expression}"));
        for label in labels {
            assert!(own.contains(&label) || given.contains(&label), "{name} has no {label}: {expression}");
        }
    }
}

fn rules() -> Vec<Value> {
    yaml(&format!("{PROMETHEUS}/quorate.rules.yaml"))["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn every_rule_asks_for_what_there_is_and_leads_to_a_page() {
    let rules = rules();
    assert!(rules.len() > 10);
    for rule in &rules {
        let expression = rule["expr"].as_str().unwrap();
        is_made_of_what_there_is(expression);
        assert!(expression.contains("quorate"), "{rule}");
        assert!(
            ["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{rule}"
        );
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        let page = link.strip_prefix("file:///usr/share/doc/quorate/").unwrap_or_else(|| panic!("{link}"));
        let (page, anchor) = page.split_once('#').unwrap_or((page, ""));
        let text = read(page);
        let mut headings = text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace('`', "")
                .replace(['\'', '’'], "")
                .replace(' ', "-")
        });
        assert!(anchor.is_empty() || headings.any(|heading| heading == anchor), "{link}");
    }
}

#[test]
fn every_alert_is_made_to_fire_and_to_clear() {
    let tests = yaml(&format!("{PROMETHEUS}/quorate.rules.test.yaml"));
    let mut fired: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for test in tests["tests"].as_array().unwrap() {
        for series in test["input_series"].as_array().unwrap() {
            let name = series["series"].as_str().unwrap();
            is_made_of_what_there_is(&name.replace("job=", "cluster="));
        }
        for case in test["alert_rule_test"].as_array().unwrap() {
            let is_told = !case["exp_alerts"].as_array().unwrap().is_empty();
            fired.entry(case["alertname"].as_str().unwrap().to_owned()).or_default().insert(is_told);
        }
    }
    let alerts: Vec<String> = rules().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(fired.keys().cloned().collect::<BTreeSet<_>>(), alerts.iter().cloned().collect());
    assert!(fired.values().all(|both| both.len() == 2), "{fired:?}");
}

#[test]
fn prometheus_takes_the_rules_their_tests_and_the_scrape_configuration() {
    let Some(promtool) = program("promtool") else { return };
    let dir = repository().join(PROMETHEUS);
    for arguments in [
        &["check", "rules", "quorate.rules.yaml"][..],
        &["test", "rules", "quorate.rules.test.yaml"],
        &["check", "config", "--syntax-only", "scrape.yaml"],
    ] {
        let output = Command::new(&promtool).args(arguments).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let told = page(Some(&full()));
    let classic = metrics::classic(&told);
    // Every sample is there, under the same name.
    let samples = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&classic), samples(&told));
    for line in ["# TYPE quorate_node_info gauge", "# TYPE quorate_steps_total counter"] {
        assert!(classic.lines().any(|found| found == line), "{line} is not in\n{classic}");
    }
    assert!(!classic.contains("# UNIT") && !classic.contains("# EOF"));
    let Some(promtool) = program("promtool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    std::fs::write(&path, &classic).unwrap();
    let output = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
}

#[test]
fn every_query_of_the_dashboard_is_answered_by_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&read("packaging/monitoring/grafana/quorate.json")).unwrap();
    let mut queries = 0;
    let mut titles = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(!named(query).is_empty(), "{query}");
            is_made_of_what_there_is(query);
            queries += 1;
        }
    }
    assert!(queries > 15, "{queries}");
    let cluster = dashboard["templating"]["list"][1]["definition"].as_str().unwrap();
    is_made_of_what_there_is(cluster);
}

#[test]
fn icinga_takes_the_check_command_and_the_services() {
    let Some(icinga) = program("icinga2") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let hosts = format!(
        "include <itl>\n\
         object Host \"a\" {{\n check_command = \"dummy\"\n vars.quorate = \"control-plane\"\n}}\n\
         object Host \"b\" {{\n check_command = \"dummy\"\n vars.quorate = \"worker\"\n}}\n\
         include \"{}\"\n",
        repository().join("packaging/monitoring/icinga2/quorate.conf").display()
    );
    std::fs::write(path("all.conf"), hosts).unwrap();
    let mut command = Command::new(&icinga);
    command.args(["daemon", "-C", "-c", &path("all.conf")]);
    for place in ["DataDir", "LogDir", "CacheDir", "InitRunDir"] {
        std::fs::create_dir(path(place)).unwrap();
        command.args(["-D", &format!("{place}={}", path(place))]);
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    command.args(["-D", &format!("RunAsUser={user}"), "-D", &format!("RunAsGroup={user}")]);
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    // Six on a control-plane machine, and three on a worker.
    assert!(said.contains("Instantiated 9 Services"), "{said}");
    assert!(!said.contains("warning/"), "{said}");
}

#[test]
fn icinga_asks_for_the_checks_that_there_are_and_the_page_tells_of_each() {
    let conf = read("packaging/monitoring/icinga2/quorate.conf");
    let asked: BTreeSet<&str> = conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("vars.quorate_check = \"")?.strip_suffix('"'))
        .collect();
    let real: BTreeSet<String> = Check::ALL.iter().map(|check| check.name().to_lowercase()).collect();
    assert_eq!(asked, real.iter().map(String::as_str).collect());
    let page = read("docs/monitoring.md");
    let (_, page) = page.split_once("\n## Icinga and Nagios\n").unwrap();
    let documented: BTreeSet<&str> = rows(page).iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(documented, asked);
}

fn thresholds() -> Thresholds {
    Thresholds { warning: None, critical: None, max_age: 300 }
}

fn checked(check: Check, status: &Status) -> (State, String) {
    let verdict = judge(check, &thresholds(), Ok(status), AT + 5_000);
    (verdict.state, verdict.to_string())
}

fn well() -> Status {
    let day = 86_400_000;
    Status {
        at: AT,
        phase: Phase::Running,
        halt: None,
        role: Some(quorate::model::Role::ControlPlane),
        warnings: Vec::new(),
        waiting: Vec::new(),
        alarms: Some(Vec::new()),
        certificates_end: Some(AT + 60 * day + 10_000),
        ..full()
    }
}

#[test]
fn a_machine_that_is_well_passes_every_check_with_its_figures() {
    let lines: Vec<String> = Check::ALL.map(|check| checked(check, &well()).1).to_vec();
    insta::assert_snapshot!(lines.join("\n"), @r"
    QUORUM OK - 1 of 1 voters are healthy | healthy=1 voters=1 learners=0
    MEMBER OK - etcd-1 is healthy and votes | database=0.1%;80;95;0
    BACKUP OK - snapshot of 65 s ago, the newest was restored in a rehearsal | age=65s;3600;14400;0 unshipped=7s
    CERTIFICATES OK - the first certificate of this machine ends in 60 days | days=60;30:;7:;0
    API OK - the API server and 0 other components are ready | ready=1
    NODE OK - running | waiting=0s;1800;7200;0
    ");
    assert!(Check::ALL.iter().all(|check| checked(*check, &well()).0 == State::Ok));
}

#[test]
fn each_check_tells_its_trouble() {
    let day = 86_400_000;
    let mut ill = well();
    ill.members[0].healthy = None;
    let mut full_disk = well();
    full_disk.members[0].size = full_disk.members[0].quota.map(|quota| quota / 100 * 97);
    let mut failed = well();
    let progress = failed.backups.as_mut().unwrap();
    progress.rehearsed.as_mut().unwrap().error = Some("a segment is damaged".to_owned());
    let mut late = well();
    late.backups.as_mut().unwrap().taken = Some(AT - 5_000_000);
    let nobody =
        Status { backups: Some(BackupProgress { keeping: None, ..BackupProgress::default() }), ..well() };
    let elsewhere = Keeping::Elsewhere { by: "i-0123456789abcdef0".parse().unwrap() };
    let other = Status {
        backups: Some(BackupProgress { keeping: Some(elsewhere), ..BackupProgress::default() }),
        ..well()
    };
    let mut api = well();
    let components = &mut api.kubernetes.as_mut().unwrap().components;
    components.insert(quorate::kubernetes::Component::ApiServer, Some("500 etcd".to_owned()));
    let waits = |on, for_ms| Status { waiting: vec![Waiting { on, since: AT - for_ms }], ..well() };
    let worker = Status { role: Some(quorate::model::Role::Worker), ..well() };
    let deaf = Status {
        waiting: vec![Waiting {
            on: WaitingOn::Api { endpoint: "api:443".to_owned(), why: "refused".to_owned() },
            since: AT,
        }],
        ..worker.clone()
    };
    let standby = Status { phase: Phase::Standby, member: None, ..waits(WaitingOn::FreeSlot, 9_000_000) };
    let halted = Status { phase: Phase::Halted, halt: Some(Halt::AuthorityLost), ..well() };
    let warned = Status { warnings: vec![Warning::CharterLost], ..well() };
    for (check, status, state, words) in [
        (Check::Quorum, &Status { leader: None, ..well() }, State::Critical, "no quorum answers"),
        (Check::Quorum, &ill, State::Critical, "0 of 1 voters"),
        (Check::Quorum, &worker, State::Unknown, "is a worker"),
        (Check::Member, &ill, State::Critical, "does not answer"),
        (Check::Member, &full_disk, State::Critical, "database=97%"),
        (Check::Member, &Status { role: None, ..full() }, State::Unknown, "pki/etcd.json is missing"),
        (Check::Member, &Status { alarms: full().alarms, ..well() }, State::Critical, "NOSPACE"),
        (Check::Member, &standby, State::Ok, "stands by"),
        (Check::Backup, &failed, State::Critical, "a segment is damaged"),
        (Check::Backup, &late, State::Warning, "age=5005s"),
        (Check::Backup, &nobody, State::Warning, "nobody is known"),
        (Check::Backup, &other, State::Ok, "kept by i-0123456789abcdef0"),
        (
            Check::Certificates,
            &Status { certificates_end: Some(AT + 20 * day), ..well() },
            State::Warning,
            "days=19",
        ),
        (
            Check::Certificates,
            &Status { certificates_end: Some(AT - day), ..well() },
            State::Critical,
            "has ended",
        ),
        (
            Check::Certificates,
            &Status { certificates_end: None, ..well() },
            State::Unknown,
            "no certificate yet",
        ),
        (Check::Api, &api, State::Critical, "500 etcd"),
        (Check::Api, &worker, State::Ok, "answers this worker"),
        (Check::Api, &deaf, State::Critical, "the API at api:443 to answer: refused"),
        (Check::Api, &Status { kubernetes: None, ..well() }, State::Unknown, "no control plane here"),
        (Check::Node, &waits(WaitingOn::Clock, 60_000), State::Ok, "waiting=65s"),
        (Check::Node, &waits(WaitingOn::Clock, 2_000_000), State::Warning, "clock"),
        (Check::Node, &waits(WaitingOn::Clock, 9_000_000), State::Critical, "clock"),
        (Check::Node, &standby, State::Ok, "waiting=0s"),
        (Check::Node, &halted, State::Critical, "pki/etcd.json is missing"),
        (Check::Node, &warned, State::Warning, "charter.json is missing"),
    ] {
        let (found, line) = checked(check, status);
        assert_eq!(found, state, "{line}");
        assert!(line.contains(words), "{words:?} is not in {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    // One voter of three is silent: what is left is enough, and no more may be lost.
    let mut three = well();
    let one = three.members[0].clone();
    for (id, healthy) in [(2, Some(true)), (3, None)] {
        let name = format!("etcd-{id}");
        let member = quorate::telemetry::status::MemberStatus {
            id: quorate::model::MemberId(id),
            name,
            healthy,
            ..one.clone()
        };
        three.members.push(member);
    }
    let (state, line) = checked(Check::Quorum, &three);
    assert_eq!(state, State::Warning);
    assert!(line.contains("2 of 3 voters are healthy, not etcd-3: none more may be lost"), "{line}");
}

#[test]
fn what_is_old_or_not_there_is_unknown_whatever_it_said() {
    for check in Check::ALL {
        let old = judge(check, &thresholds(), Ok(&well()), AT + 301_000);
        assert_eq!(old.state, State::Unknown);
        assert!(old.to_string().contains("has not looked for 301 s"), "{old}");
        let none = StatusError::None { path: "/run/quorate/status.json".into() };
        assert_eq!(judge(check, &thresholds(), Err(&none), AT).state, State::Unknown);
    }
}

fn quorate(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_quorate")).arg("--root").arg(root).args(arguments).output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn the_program_ends_as_the_guidelines_and_the_table_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let now = quorate::host::clock::now_ms();
    let check = |arguments: &[&str]| quorate(dir.path(), &[&["check"], arguments].concat());
    assert_eq!(check(&["node"]).0, Some(3), "there is no status");
    assert_eq!(quorate(dir.path(), &["status"]).0, Some(4));
    for wrong in [&["nothing"][..], &["node", "--warning", "x"], &[]] {
        assert_eq!(check(wrong).0, Some(3), "{wrong:?}");
    }
    let tell = |status: Status| status::write(&status::path(&root), &Status { at: now, ..status }).unwrap();
    // The test's own process is not the agent's.
    for (told, plugin, table) in [
        (well(), 0, 11),
        (Status { waiting: vec![Waiting { on: WaitingOn::Clock, since: now }], ..well() }, 0, 11),
        (Status { warnings: vec![Warning::CharterLost], ..well() }, 1, 11),
        (Status { halt: Some(Halt::AuthorityLost), ..well() }, 2, 12),
    ] {
        tell(told);
        let (code, said) = check(&["node"]);
        assert_eq!((code, said.lines().count()), (Some(plugin), 1), "{said}");
        let (code, page) = quorate(dir.path(), &["status"]);
        assert_eq!(code, Some(table), "{page}");
        assert!(page.starts_with("agent      does not run"), "{page}");
        assert!(!page.contains('\u{1b}'), "no colours but on a terminal");
    }
    tell(well());
    assert_eq!(check(&["certificates", "--critical", "100000:"]).0, Some(2));
    assert_eq!(
        check(&["node", "--max-age", "0"]).0,
        Some(if quorate::host::clock::now_ms() - now < 1000 { 0 } else { 3 })
    );
    let (code, json) = quorate(dir.path(), &["status", "--json"]);
    assert_eq!(code, Some(11));
    assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    let (code, said) = quorate(dir.path(), &["history"]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing has been decided on this machine yet\n"));
}

#[test]
fn every_message_that_matters_is_in_the_catalogue_and_on_its_page_and_no_other() {
    let catalog = read("systemd/quorate.catalog");
    let ids: Vec<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    let real: Vec<&str> = messages::ALL.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, real);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id means one message");
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
    let page = read("docs/logs.md");
    let (_, table) = page.split_once("\n## Messages that matter\n").unwrap();
    let documented: Vec<(&str, &str)> =
        rows(table).iter().map(|row| (row[0].trim_matches('`'), row[1].trim_matches('`'))).collect();
    assert_eq!(documented, messages::ALL);
    // Each is said somewhere, and nothing else says it has one.
    let mut said = String::new();
    let mut folders = vec![repository().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("messages.rs") {
                said.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let source = read("src/telemetry/messages.rs");
    let names: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str").map(|(name, _)| name))
        .collect();
    assert_eq!(names.len(), messages::ALL.len());
    for name in names {
        assert!(said.contains(&format!("messages::{name}")), "{name} is never said");
    }
    // The fields that an entry shows are fields of messages.
    let fields = read("docs/logs.md");
    for field in catalog.split('@').skip(1).step_by(2) {
        let name = field.strip_prefix("QUORATE_").unwrap_or_else(|| panic!("{field}")).to_lowercase();
        let is_field = fields.contains(&format!("`{field}`")) || said.contains(&format!("{name} ="));
        assert!(
            is_field || said.contains(&format!("%{name},")) || said.contains(&format!("{name}, message_id")),
            "{field}"
        );
    }
}

#[test]
fn the_journal_takes_the_catalogue() {
    let Some(journalctl) = program("journalctl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("usr/lib/systemd/catalog");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib/systemd/catalog")).unwrap();
    std::fs::copy(repository().join("systemd/quorate.catalog"), place.join("quorate.catalog")).unwrap();
    let root = format!("--root={}", dir.path().display());
    let output = Command::new(&journalctl).args([&root, "--update-catalog"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let listed = Command::new(&journalctl).args([&root, "--list-catalog"]).output().unwrap();
    let listed = said(&listed);
    for (name, id) in messages::ALL {
        assert!(listed.contains(&format!("{id} quorate: ")), "{name} is not in\n{listed}");
    }
}
