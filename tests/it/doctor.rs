//! `quorate doctor` and `quorate history`: what is found where all is well and where it is not, by the agent's own
//! clients in the simulated region; what an archive for a bug report holds; and their pages of documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use quorate::cli::bundle;
use quorate::cli::doctor::{About, Wanted, examine};
use quorate::doctor::{Diagnosis, Outcome};
use quorate::lab::region::{AccessRule, BucketSettings, FaultKind, LifecycleRule, Service};
use quorate::model::Role;
use quorate::model::backup::BACKUPS;
use quorate::pki::EtcdAuthority;
use quorate::telemetry::history::{self, Entry, History, What};
use quorate::telemetry::status::{self, Status};

use crate::docs::{read, rows};
use crate::weather::sky::{BUCKET, Sky, machine};

const ALL: Wanted = Wanted { about: None, json: false, bundle: None };
const OF_BUCKET: Wanted = Wanted { about: Some(About::Bucket), json: false, bundle: None };

async fn diagnose(sky: &Sky, wanted: &Wanted) -> Diagnosis {
    examine(&sky.root(), &sky.access, wanted).await.1
}

fn outcomes(found: &Diagnosis) -> BTreeMap<&str, Outcome> {
    found.findings.iter().map(|finding| (finding.check.as_str(), finding.outcome)).collect()
}

/// What is found of one check.
fn found<'a>(diagnosis: &'a Diagnosis, check: &str) -> &'a quorate::doctor::Finding {
    diagnosis
        .findings
        .iter()
        .find(|finding| finding.check == check)
        .unwrap_or_else(|| panic!("{check} is not in\n{}", diagnosis.page()))
}

fn settled() -> BucketSettings {
    let rule =
        LifecycleRule { ends_uploads: Some(1), expires_versions: Some(30), ..LifecycleRule::default() };
    let policy = r#"{"Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#;
    BucketSettings {
        kms_key: Some("alias/quorate".to_owned()),
        versioning: true,
        blocks_public: true,
        policy: Some(policy.to_owned()),
        lifecycle: vec![rule],
        ..BucketSettings::default()
    }
}

fn rule(role: &str, prefix: &str, read: bool, write: bool) -> AccessRule {
    let (role, prefix) = (role.to_owned(), prefix.to_owned());
    AccessRule { role, bucket: BUCKET.to_owned(), prefix, read, write, list: true }
}

fn role_of(sky: &Sky) -> String {
    sky.region.with(|w| w.view().instances[sky.instance.as_str()].spec.iam_role.clone().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_bucket_is_as_it_should_be_all_is_well() {
    let sky = Sky::with_bucket().await;
    sky.region.change(|w| w.set_up_bucket(BUCKET, settled()));
    let found = diagnose(&sky, &OF_BUCKET).await;
    assert_eq!(found.worst(), Outcome::Ok, "{}", found.page());
    insta::assert_snapshot!(found.page().replace(sky.instance.as_str(), "INSTANCE"));
    crate::permissions::judge_doctor(&sky.region.with(|w| w.authorizations().clone()));
    // Nothing was written, and nothing is there.
    assert!(sky.region.with(|w| w.buckets()[BUCKET].is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_open_elsewhere_or_forgets_is_told_with_what_to_do() {
    let sky = Sky::with_bucket().await;
    let policy =
        r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*"}]}"#;
    let rule = LifecycleRule { expires_objects: Some(90), ..LifecycleRule::default() };
    let bad = BucketSettings {
        region: Some("us-east-1".to_owned()),
        policy: Some(policy.to_owned()),
        lifecycle: vec![rule],
        ..BucketSettings::default()
    };
    sky.region.change(|w| w.set_up_bucket(BUCKET, bad));
    let found = diagnose(&sky, &OF_BUCKET).await;
    let outcomes = outcomes(&found);
    for check in ["bucket.region", "bucket.policy", "bucket.lifecycle"] {
        assert_eq!(outcomes[check], Outcome::Failed, "{check}: {}", found.page());
    }
    for check in ["bucket.encryption", "bucket.versioning", "bucket.public-access", "bucket.tls-only"] {
        assert_eq!(outcomes[check], Outcome::Warning, "{check}: {}", found.page());
    }
    assert!(found.findings.iter().all(|f| f.todo.is_some() == (f.outcome >= Outcome::Warning)));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_may_not_be_read_are_unknown_and_no_failure() {
    let sky = Sky::with_bucket().await;
    let hidden = BucketSettings { hidden_from: [role_of(&sky)].into(), ..settled() };
    sky.region.change(|w| w.set_up_bucket(BUCKET, hidden));
    let diagnosis = diagnose(&sky, &OF_BUCKET).await;
    for finding in diagnosis.findings.iter().filter(|finding| finding.check.starts_with("bucket.")) {
        assert_eq!(finding.outcome, Outcome::Unknown, "{finding:?}");
        assert!(finding.found.starts_with("not permitted"), "{finding:?}");
    }
    assert_eq!(diagnosis.worst(), Outcome::Unknown);
    let why = &found(&diagnosis, "bucket.encryption").found;
    assert!(why.contains("allow s3:GetEncryptionConfiguration"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_held_to_what_its_machines_must_and_must_not_do() {
    for (role, secrets, workers, write, expected) in [
        (Role::ControlPlane, true, true, true, &[] as &[&str]),
        (Role::ControlPlane, false, true, false, &["role.read.backups", "role.read.pki", "role.write"]),
        (Role::Worker, false, true, false, &[]),
        (Role::Worker, true, true, true, &["role.read.backups", "role.read.pki", "role.write"]),
        (Role::Worker, false, false, false, &["role.read.workers"]),
    ] {
        let mut spec = machine();
        spec.tags.insert("quorate:role".to_owned(), role.as_str().to_owned());
        let sky = Sky::new(spec).await;
        let name = role_of(&sky);
        sky.region.change(|w| {
            w.create_bucket(BUCKET);
            // A write on condition needs to read as well.
            w.add_access_rule(rule(&name, "", write, write));
            for folder in ["demo/pki/", &format!("demo/{BACKUPS}")] {
                w.add_access_rule(rule(&name, folder, secrets, secrets));
            }
            w.add_access_rule(rule(&name, "demo/workers/", workers, false));
        });
        let diagnosis = diagnose(&sky, &OF_BUCKET).await;
        let failed: Vec<&str> = diagnosis
            .findings
            .iter()
            .filter(|finding| finding.check.starts_with("role.") && finding.outcome != Outcome::Ok)
            .inspect(|finding| assert_eq!(finding.outcome, Outcome::Failed, "{finding:?}"))
            .map(|finding| finding.check.as_str())
            .collect();
        assert_eq!(failed, expected, "{role} {secrets} {workers} {write}: {}", diagnosis.page());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_for_founding_is_found_before_it_is_needed() {
    let sky = Sky::with_bucket().await;
    sky.file(
        "etc/quorate/config.d/50.yaml",
        "etcd: {binary: /no/such/etcd}\nkubernetes: {kubelet: {binary: /no/such/kubelet}}\n",
    );
    let diagnosis = diagnose(&sky, &ALL).await;
    let seen = outcomes(&diagnosis);
    for (check, outcome) in [
        ("metadata", Outcome::Ok),
        ("metadata.tags", Outcome::Ok),
        ("metadata.options", Outcome::Ok),
        ("configuration", Outcome::Ok),
        ("clock", Outcome::Ok),
        ("clock.offset", Outcome::Ok),
        ("program.etcd", Outcome::Failed),
        ("program.kubelet", Outcome::Failed),
        ("ec2.instance", Outcome::Ok),
        ("volume", Outcome::Failed),
        ("charter", Outcome::Ok),
        ("endpoint", Outcome::Warning),
        ("permission.AttachVolume", Outcome::Unknown),
        ("role.write", Outcome::Ok),
    ] {
        assert_eq!(seen.get(check), Some(&outcome), "{check}: {}", diagnosis.page());
    }
    // With a volume, what may be done with it is tried, and nothing is done.
    let volume = sky.volume(&[]);
    let diagnosis = diagnose(&sky, &ALL).await;
    let seen = outcomes(&diagnosis);
    for check in ["volume", "permission.AttachVolume", "permission.DetachVolume", "permission.CreateTags"] {
        assert_eq!(seen[check], Outcome::Ok, "{}", diagnosis.page());
    }
    let free = sky.region.with(|w| {
        let volume = &w.view().volumes[volume.as_str()];
        volume.attachment.is_none() && volume.spec.tags.len() == 1
    });
    assert!(free);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_unknown_and_a_machine_that_knows_nothing_is_looked_at_all_the_same() {
    let sky = Sky::with_bucket().await;
    sky.fault(Service::S3, FaultKind::Throttle);
    let diagnosis = diagnose(&sky, &OF_BUCKET).await;
    for finding in
        diagnosis.findings.iter().filter(|f| f.check.starts_with("role.") || f.check.starts_with("bucket."))
    {
        assert_eq!(finding.outcome, Outcome::Unknown, "{finding:?}");
    }
    let sky = Sky::new(machine()).await;
    sky.file("etc/quorate/config.d/50.yaml", "clustre: demo\n");
    let diagnosis = diagnose(&sky, &ALL).await;
    let configuration = found(&diagnosis, "configuration");
    assert_eq!(configuration.outcome, Outcome::Failed);
    assert!(configuration.found.contains("clustre"), "{configuration:?}");
    assert_eq!(found(&diagnosis, "clock").outcome, Outcome::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_is_documented_and_no_other() {
    let sky = Sky::with_bucket().await;
    sky.volume(&[]);
    sky.file("etc/quorate/config.d/50.yaml", "kubernetes: {endpoint: \"127.0.0.1:9\"}\n");
    let diagnosis = diagnose(&sky, &ALL).await;
    let general = |check: &str| {
        for (prefix, name) in [("port.", "PORT"), ("permission.", "ACTION"), ("role.read.", "FOLDER")] {
            if check.starts_with(prefix) {
                return format!("{prefix}{name}");
            }
        }
        check.to_owned()
    };
    let real: BTreeSet<String> = diagnosis.findings.iter().map(|finding| general(&finding.check)).collect();
    let page = read("docs/doctor.md");
    let (_, checks) = page.split_once("\n## The checks\n").unwrap();
    let documented: BTreeSet<String> =
        rows(checks).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(real, documented);
    let (_, results) = page.split_once("| result | means |\n").unwrap();
    let (results, _) = results.split_once("\n\n").unwrap();
    for outcome in Outcome::ALL {
        assert!(results.contains(&format!("| `{}` |", outcome.as_str())), "{outcome:?}");
    }
}

/// What the archive holds, by its names.
fn unpacked(path: &std::path::Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert(name, text);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_for_a_bug_report_holds_what_was_seen_and_no_secret() {
    const TOKEN: &str = "abcdef.0123456789abcdef";
    const PASSWORD: &str = "hunter2-of-the-proxy";
    let sky = Sky::with_bucket().await;
    let authority = EtcdAuthority::create(&"demo".parse().unwrap(), quorate::host::clock::now_ms()).unwrap();
    let bundle_of_keys = String::from_utf8(authority.bundle().unwrap()).unwrap();
    let key: serde_json::Value = serde_json::from_str(&bundle_of_keys).unwrap();
    let pem = key.to_string();
    sky.file("etc/quorate/pki/etcd/server.key", &bundle_of_keys);
    sky.file("etc/kubernetes/bootstrap-kubelet.conf", &format!("token: {TOKEN}\n"));
    sky.file(
        "etc/quorate/config.d/50.yaml",
        &format!(
            "kubernetes: {{apiServer: {{extraEnv: [\"HTTPS_PROXY=http://me:{PASSWORD}@proxy:3128\"]}}}}\n"
        ),
    );
    // What others' errors carry gets into waits and steps.
    let reach = sky.reach().await;
    let (seen, _) = crate::weather::sky::look(&reach).await;
    let record = quorate::agent::setup::Record { settings: reach.settings.clone(), observation: seen };
    status::write(&status::observation_path(&sky.root()), &record).unwrap();
    let told = Status {
        words: vec![format!("joins by {TOKEN}"), pem.clone()],
        ..Status::starting(Vec::new(), None)
    };
    status::write(&status::path(&sky.root()), &told).unwrap();
    let mut history = History::begin(&sky.root());
    history.note(Entry {
        at: 1,
        phase: quorate::model::Phase::Joining,
        slot: None,
        what: What::Phase,
        why: vec![format!("waits for {TOKEN}"), "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG".to_owned()],
    });
    drop(history);

    let diagnosis = diagnose(&sky, &ALL).await;
    let made = bundle::make(&sky.root(), &diagnosis).await;
    let path = sky.root.path().join("report.tar.gz");
    bundle::write(&path, &made).unwrap();
    let files = unpacked(&path);
    for name in ["doctor.txt", "doctor.json", "status.json", "observed.json", "history.jsonl"] {
        assert!(files.contains_key(&format!("quorate-bundle/{name}")), "{name}: {:?}", files.keys());
    }
    let all: String = files.values().map(String::as_str).collect();
    for secret in [TOKEN, PASSWORD, "wJalrXUtnFEMI", "PRIVATE KEY"] {
        assert!(!all.contains(secret), "{secret} is in the archive");
    }
    // No line of a key is, however it is wrapped.
    let body = pem.split("PRIVATE KEY-----").nth(1).unwrap();
    for line in body.split("\\n").filter(|line| line.len() > 30) {
        assert!(!all.contains(line.trim_matches('\\')), "a part of a key is in the archive");
    }
    assert!(all.contains(sky.instance.as_str()) && all.contains("HTTPS_PROXY=<redacted>"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Files that there are none of are named.
    assert!(made.told(&path).contains("history.1.jsonl: it is not there"));
}

#[test]
fn the_keys_of_a_decision_are_those_that_are_documented() {
    let step = What::Step {
        step: "mount".to_owned(),
        particulars: String::new(),
        took_ms: 1,
        ended: history::Ended::Done,
        error: None,
        times: 1,
    };
    let entry =
        |what| Entry { at: 1, phase: quorate::model::Phase::Running, slot: None, what, why: Vec::new() };
    let keys: BTreeSet<String> = [step, What::Phase, What::Started { version: "1".to_owned() }]
        .into_iter()
        .flat_map(|what| serde_json::to_value(entry(what)).unwrap().as_object().unwrap().clone())
        .map(|(key, _)| key)
        .collect();
    let page = read("docs/history.md");
    let documented: BTreeSet<String> =
        rows(&page).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(keys, documented);
}
