//! What is kept in the API: who keeps it, and what is applied and taken away.

use std::cell::RefCell;
use std::rc::Rc;

use quorate::agent::{Agent, Event, World};
use quorate::config::Settings;
use quorate::config::settings::AddonName;
use quorate::kubernetes::Component;
use quorate::model::kubernetes::{ApiLease, Readiness};
use quorate::model::plan::Subject;
use quorate::model::*;
use quorate::observe::Depth;
use quorate::plan::plan as plan_of;
use quorate::telemetry::history::{Entry, What};
use quorate::telemetry::status::Status;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::Duration;

use super::control_plane::*;
use super::scene::{Change as _, HOUR, NOW, instance, settings_with};

const INFO: &str = "ConfigMap kube-public/cluster-info";
const DNS: &str = "dns";

/// A control plane that runs, whose lease is this.
fn with_lease(lease: Option<ApiLease>) -> Observation {
    running().but(|seen| seen.kubernetes.api_lease = Fact::Known(lease))
}

/// One whose lease this machine has renewed so many milliseconds ago.
fn mine(age: i64) -> Observation {
    with_lease(Some(lease(instance(1).as_str(), NOW - age, 30)))
}

/// One whose lease another machine holds.
fn others() -> Observation {
    with_lease(Some(lease(instance(2).as_str(), NOW, 30)))
}

fn lacking(seen: Observation) -> Observation {
    seen.but(|seen| first_things(seen).unfit = vec![INFO.to_owned()])
}

/// Leases that nobody holds.
fn free() -> Vec<Option<ApiLease>> {
    let other = instance(2);
    let ended = |holder: &str| Some(lease(holder, NOW - 30_000, 30));
    vec![
        None,
        ended(other.as_str()),
        ended(instance(1).as_str()),
        Some(lease("", NOW, 30)),
        Some(ApiLease { holder: None, ..lease("", NOW, 30) }),
        Some(ApiLease { renewed: None, ..lease(other.as_str(), NOW, 30) }),
        // Taken by a clock that was wrong: it would not end for an hour.
        Some(lease(other.as_str(), NOW + HOUR, 30)),
    ]
}

#[test]
fn a_lease_that_nobody_holds_is_taken_whether_or_not_there_is_something_to_do() {
    for lease in free() {
        let version = lease.as_ref().map(|lease| lease.version.clone());
        let plan = does_with(&kubernetes(), &with_lease(lease.clone()), &["takeApiLease"]);
        let Step::TakeApiLease { instance: by, duration_s: 30, version: of } = &plan.steps[0] else {
            panic!("{:?}", plan.steps)
        };
        assert_eq!((by, of), (&instance(1), &version));
        let lacking = lacking(with_lease(lease));
        assert_eq!(settle(lacking).0, ["takeApiLease", "applyObjects"]);
    }
}

#[test]
fn a_lease_is_renewed_by_its_holder_once_a_tick() {
    for (age, steps) in
        [(0, &[][..]), (9_999, &[]), (10_000, &["renewApiLease"]), (29_999, &["renewApiLease"])]
    {
        does_with(&kubernetes(), &mine(age), steps);
        let steps: Vec<&str> = steps.iter().copied().chain(["applyObjects"]).collect();
        does_with(&kubernetes(), &lacking(mine(age)), &steps);
    }
    // The holder's own clock was set back a little.
    does_with(&kubernetes(), &mine(-9_000), &[]);
    does_with(&kubernetes(), &mine(-10_000), &["renewApiLease"]);
    assert_eq!(settle(mine(20_000)).0, ["renewApiLease"]);
}

#[test]
fn nobody_but_the_holder_does_anything() {
    let seen = lacking(others()).but(|seen| {
        files(seen, AddonPlace::Operators, &[(DNS, fit("new"))]);
        applied(seen, DNS, "old");
        applied(seen, "gone", "old");
    });
    let plan = does_with(&kubernetes(), &seen, &[]);
    assert_eq!((plan.report.waiting, plan.report.warnings), (vec![], vec![]));
    let mine = seen.but(|seen| {
        seen.kubernetes.api_lease = Fact::Known(Some(lease(instance(1).as_str(), NOW, 30)));
    });
    does_with(&kubernetes(), &mine, &["applyObjects", "applyAddon", "pruneAddon"]);
}

#[test]
fn nothing_is_done_in_an_api_that_is_not_ready_or_does_not_tell() {
    let unknown = lacking(mine(0)).but(|seen| {
        seen.kubernetes.api_lease = Fact::unknown("500 from etcd");
        applied(seen, "gone", "old");
    });
    let plan = does_with(&kubernetes(), &unknown, &[]);
    let answer = |subject| Warning::Answer { subject, why: "500 from etcd".to_owned() };
    assert_eq!(plan.report.warnings, [answer(Subject::ApiLease)]);
    let unknown = mine(20_000).but(|seen| seen.kubernetes.first_things = Fact::unknown("500 from etcd"));
    let plan = does_with(&kubernetes(), &unknown, &["renewApiLease"]);
    assert_eq!(plan.report.warnings, [answer(Subject::FirstThings)]);
    let starting = lacking(mine(20_000)).but(|seen| {
        let found = seen.kubernetes.components.get_mut(&Component::ApiServer).unwrap();
        found.readiness = Readiness::NotReady("500".to_owned());
    });
    does_with(&kubernetes(), &starting, &[]);
}

#[test]
fn what_is_kept_in_the_api_follows_the_endpoint_after_the_files() {
    let moved = lacking(mine(0)).but(|seen| seen.kubernetes.load_balancing = balancing(&["other"]));
    let (done, _) = settle(moved);
    assert_eq!(done, ["issueClusterLeaves", "writeKubernetesFiles", "applyObjects", "publishJoin"]);
}

fn name(text: &str) -> AddonName {
    text.parse().unwrap()
}

fn fit(digest: &str) -> AddonFile {
    AddonFile::Fit { digest: digest.to_owned(), holds: Vec::new() }
}

fn unfit() -> AddonFile {
    AddonFile::Unfit("line 3: it is no YAML".to_owned())
}

fn files(seen: &mut Observation, place: AddonPlace, found: &[(&str, AddonFile)]) {
    let directory = match place {
        AddonPlace::Shipped => &mut seen.kubernetes.addons.shipped,
        AddonPlace::Operators => &mut seen.kubernetes.addons.operators,
    };
    let files = found.iter().map(|(addon, file)| (name(addon), file.clone())).collect();
    *directory = Fact::Known(AddonDirectory { files, misnamed: [].into() });
}

fn applied(seen: &mut Observation, addon: &str, digest: &str) {
    let found = AppliedAddon {
        digest: Some(digest.to_owned()),
        objects: 1,
        missing: Fact::Known(Vec::new()),
        failure: None,
    };
    applied_addons(seen).insert(name(addon), Fact::Known(found));
}

fn change(seen: &mut Observation, addon: &str, change: impl FnOnce(&mut AppliedAddon)) {
    match applied_addons(seen).get_mut(&name(addon)).unwrap() {
        Fact::Known(found) => change(found),
        Fact::Unknown(why) => panic!("not known: {why}"),
    }
}

/// The holder, with an add-on of the operator's that is in the API as its file has it.
fn whole() -> Observation {
    mine(0).but(|seen| {
        files(seen, AddonPlace::Operators, &[(DNS, fit("d"))]);
        applied(seen, DNS, "d");
    })
}

fn key(kind: &str, name: &str) -> ObjectKey {
    ObjectKey { group: String::new(), kind: kind.to_owned(), namespace: None, name: name.to_owned() }
}

fn asking(for_addons: &str) -> Settings {
    settings_with(&format!("kubernetes: {{version: v1.36.2, addons: [{for_addons}]}}\n"))
}

#[test]
fn an_add_on_is_applied_when_it_is_new_has_changed_or_misses_an_object() {
    does_with(&kubernetes(), &whole(), &[]);
    let cases: [(&str, fn(&mut Observation)); 4] = [
        ("new", |seen| applied_addons(seen).clear()),
        ("changed", |seen| files(seen, AddonPlace::Operators, &[(DNS, fit("e"))])),
        ("cut off", |seen| change(seen, DNS, |found| found.digest = None)),
        ("missing", |seen| {
            change(seen, DNS, |found| found.missing = Fact::Known(vec![key("ConfigMap", "a")]));
        }),
    ];
    for (case, changed) in cases {
        let seen = whole().but(changed);
        let plan = does_with(&kubernetes(), &seen, &["applyAddon"]);
        let Step::ApplyAddon { name: of, place: AddonPlace::Operators, endpoint, .. } = &plan.steps[0] else {
            panic!("{case}: {:?}", plan.steps)
        };
        assert_eq!((of.as_str(), endpoint.host()), (DNS, "api.elb.amazonaws.com"), "{case}");
        assert_eq!(settle(seen).0, ["applyAddon"], "{case}");
    }
    let unseen = whole().but(|seen| change(seen, DNS, |found| found.missing = Fact::unknown("no answer")));
    does_with(&kubernetes(), &unseen, &[]);
}

#[test]
fn a_shipped_add_on_is_applied_when_it_is_named_and_the_operators_replaces_it() {
    let shipped = mine(0).but(|seen| {
        files(seen, AddonPlace::Shipped, &[(DNS, fit("shipped")), ("other", fit("o"))]);
    });
    does_with(&kubernetes(), &shipped, &[]);
    let (done, seen) = settle_with(&asking(DNS), shipped);
    assert_eq!(done, ["applyAddon"]);
    let both = seen.but(|seen| files(seen, AddonPlace::Operators, &[(DNS, fit("own"))]));
    for settings in [kubernetes(), asking(DNS)] {
        let plan = does_with(&settings, &both, &["applyAddon"]);
        let Step::ApplyAddon { place, digest, .. } = &plan.steps[0] else { panic!("{:?}", plan.steps) };
        assert_eq!((*place, digest.as_str()), (AddonPlace::Operators, "own"));
    }
}

#[test]
fn an_add_on_that_is_no_more_is_taken_away() {
    let gone = whole().but(|seen| files(seen, AddonPlace::Operators, &[]));
    assert_eq!(settle(gone).0, ["pruneAddon"]);
    // Shipped still, and not named any more.
    let unnamed = whole().but(|seen| {
        files(seen, AddonPlace::Operators, &[]);
        files(seen, AddonPlace::Shipped, &[(DNS, fit("d"))]);
    });
    assert_eq!(settle(unnamed).0, ["pruneAddon"]);
}

#[test]
fn what_is_not_known_takes_nothing_away() {
    let gone = || whole().but(|seen| files(seen, AddonPlace::Operators, &[]));
    let forgets: [(Subject, fn(&mut Observation)); 3] = [
        (Subject::Addons, |seen| seen.kubernetes.addons.operators = Fact::unknown("permission denied")),
        (Subject::Addons, |seen| seen.kubernetes.addons.shipped = Fact::unknown("permission denied")),
        (Subject::Addons, |seen| seen.kubernetes.addons.applied = Fact::unknown("permission denied")),
    ];
    for (subject, forget) in forgets {
        let plan = does_with(&kubernetes(), &gone().but(forget), &[]);
        let why = "permission denied".to_owned();
        assert_eq!(plan.report.warnings, [Warning::Answer { subject, why }]);
    }
    // The file is there and can't be used.
    let seen = whole().but(|seen| files(seen, AddonPlace::Operators, &[(DNS, unfit())]));
    let plan = does_with(&kubernetes(), &seen, &[]);
    assert!(
        matches!(&plan.report.warnings[..], [Warning::AddonUnfit { name, why }] if name == DNS && why.contains("line 3"))
    );
    // It is named, and the image does not have it.
    let plan = does_with(&asking(DNS), &gone(), &[]);
    assert!(
        matches!(&plan.report.warnings[..], [Warning::AddonUnfit { why, .. }] if why.contains("/usr/lib/quorate/addons"))
    );
    // Its inventory can't be understood.
    let damaged = gone().but(|seen| {
        applied_addons(seen).insert(name(DNS), Fact::unknown("`objects` can't be read"));
    });
    let plan = does_with(&kubernetes(), &damaged, &[]);
    assert!(
        matches!(&plan.report.warnings[..], [Warning::AddonFailed { why, .. }] if why.contains("delete it"))
    );
}

#[test]
fn a_bad_add_on_is_told_and_does_not_stop_the_others() {
    let seen = mine(0).but(|seen| {
        files(
            seen,
            AddonPlace::Operators,
            &[("a-refused", fit("r")), ("b-broken", unfit()), ("c-good", fit("g"))],
        );
        applied(seen, "a-refused", "before");
        change(seen, "a-refused", |found| found.failure = Some(failure(Some("r"), 0, 0)));
        if let Fact::Known(directory) = &mut seen.kubernetes.addons.operators {
            directory.misnamed.insert("d.yml".to_owned(), "its name does not end in .yaml".to_owned());
        }
    });
    let plan = does_with(&kubernetes(), &seen, &["applyAddon"]);
    assert!(matches!(&plan.steps[0], Step::ApplyAddon { name, .. } if name.as_str() == "c-good"));
    let about: Vec<String> = plan
        .report
        .warnings
        .iter()
        .map(|warning| match warning {
            Warning::AddonFailed { name, why } => format!("failed {name}: {why}"),
            Warning::AddonUnfit { name, .. } => format!("unfit {name}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(about, ["unfit d.yml", "failed a-refused: 422 Invalid", "unfit b-broken"]);
}

/// A failure that began and was seen last so many milliseconds ago.
fn failure(digest: Option<&str>, began: i64, last: i64) -> AddonFailure {
    let why = "422 Invalid".to_owned();
    AddonFailure { digest: digest.map(str::to_owned), since: NOW - began, at: NOW - last, why }
}

#[test]
fn what_failed_is_tried_again_ever_later_and_at_once_when_it_changes() {
    let failing = |digest: Option<&str>, began, last| {
        let failure = failure(digest, began, last);
        whole().but(|seen| change(seen, DNS, |found| found.failure = Some(failure)))
    };
    for (began, last, steps) in [
        (1_000, 1_000, &[][..]),
        (2_000, 2_000, &["applyAddon"]),
        // It has been failing for 20 s: it rests for 10.
        (29_000, 9_000, &[]),
        (30_000, 10_000, &["applyAddon"]),
        (2 * HOUR, 59_000, &[]),
        (2 * HOUR, 60_000, &["applyAddon"]),
        // A clock was wrong.
        (0, -HOUR, &["applyAddon"]),
    ] {
        let plan = does_with(&kubernetes(), &failing(Some("d"), began, last), steps);
        assert!(matches!(&plan.report.warnings[..], [Warning::AddonFailed { .. }]), "{began} {last}");
    }
    does_with(&kubernetes(), &failing(Some("before"), 0, 0), &["applyAddon"]);
    let gone = |digest| failing(digest, 0, 0).but(|seen| files(seen, AddonPlace::Operators, &[]));
    does_with(&kubernetes(), &gone(None), &[]);
    does_with(&kubernetes(), &gone(Some("d")), &["pruneAddon"]);
}

#[test]
fn what_holds_others_data_and_is_no_add_ons_any_more_is_named() {
    let found = |addon: &str, object: ObjectKey| LabelledObject { addon: addon.to_owned(), object };
    let claim = |namespace: &str| ObjectKey {
        namespace: Some(namespace.to_owned()),
        ..key("PersistentVolumeClaim", "data")
    };
    let seen = whole().but(|seen| {
        let holds = vec![key("Namespace", "kept"), key("PersistentVolumeClaim", "data")];
        files(
            seen,
            AddonPlace::Operators,
            &[(DNS, AddonFile::Fit { digest: "d".to_owned(), holds }), ("broken", unfit())],
        );
        seen.kubernetes.addons.holding = Fact::Known(vec![
            found(DNS, key("Namespace", "kept")),
            found(DNS, key("Namespace", "dropped")),
            found(DNS, claim("default")),
            found(DNS, claim("other")),
            found("gone", key("Namespace", "orphan")),
            found("broken", key("Namespace", "unclear")),
        ]);
    });
    let plan = does_with(&kubernetes(), &seen, &[]);
    let objects =
        ["Namespace dropped", "Namespace orphan", "PersistentVolumeClaim other/data"].map(str::to_owned);
    assert!(
        plan.report.warnings.contains(&Warning::AddonLeftovers { objects: objects.to_vec() }),
        "{plan:?}"
    );
}

#[test]
fn two_machines_with_different_files_do_not_take_each_others_back() {
    // The API, as both see it, and each machine's own file.
    let mut api = running();
    api.kubernetes.api_lease = Fact::Known(None);
    let mut done = Vec::new();
    for round in 0..12 {
        let me = if round % 2 == 0 { 1 } else { 2 };
        let mut seen = api.clone();
        files(&mut seen, AddonPlace::Operators, &[(DNS, fit(&format!("of {me}")))]);
        if let (2, Fact::Known(identity)) = (me, &mut seen.identity) {
            identity.instance = instance(2);
        }
        // The other machine's own plan of what it has beside the API is no matter here.
        let mut course = plan_of(&kubernetes(), &seen).steps;
        course.retain(|step| {
            matches!(step, Step::TakeApiLease { .. } | Step::RenewApiLease { .. } | Step::ApplyAddon { .. })
        });
        for step in course {
            done.push(format!("{me} {}", step.name()));
            apply(&mut seen, step);
        }
        api.kubernetes.api_lease = seen.kubernetes.api_lease.clone();
        api.kubernetes.addons.applied = seen.kubernetes.addons.applied.clone();
        api.at += 5_000;
    }
    assert_eq!(done.iter().filter(|did| did.ends_with("applyAddon")).collect::<Vec<_>>(), ["1 applyAddon"]);
    assert!(!done.iter().any(|did| did.starts_with('2')), "{done:?}");
}

/// A settled cluster whose lease this machine holds; time passes by resting only.
struct Settled {
    seen: Observation,
    acts: Rc<RefCell<Vec<String>>>,
    looks: usize,
    sender: Sender<Event>,
}

#[derive(Debug, thiserror::Error)]
#[error("refused by the test")]
struct Refused;

impl World for Settled {
    type Error = Refused;

    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
        self.acts.borrow_mut().push(format!("{depth:?}"));
        self.looks += 1;
        if self.looks > 8 {
            self.sender.send(Event::Stop).await.unwrap();
        }
        Observation { waiting, ..self.seen.clone() }
    }

    async fn execute(&mut self, step: &Step) -> Result<(), Refused> {
        self.acts.borrow_mut().push(step.name().to_owned());
        apply(&mut self.seen, step.clone());
        Ok(())
    }

    fn tell(&mut self, _: &Status, _: &Observation, _: &Plan) {}

    fn note(&mut self, entry: Entry) {
        // What only goes on is not written down.
        assert!(!matches!(entry.what, What::Step { .. }), "{entry:?}");
    }

    fn was_overtaken(_: &Refused) -> bool {
        false
    }

    async fn rest(&mut self, after: Duration) {
        assert!(after >= Duration::from_secs(7), "it does not rest: {after:?}");
        self.seen.at += i64::try_from(after.as_millis()).unwrap();
    }
}

#[tokio::test]
async fn an_idle_cluster_renews_its_lease_from_light_looks_and_rests_between_them() {
    let (sender, mut events) = channel(8);
    let acts = Rc::default();
    let world = Settled { seen: mine(0), acts: Rc::clone(&acts), looks: 0, sender };
    Agent::new(kubernetes(), world, std::sync::Arc::default()).run(&mut events).await;
    let acts = acts.borrow();
    assert_eq!(acts.iter().filter(|act| *act == "Full").count(), 1, "{acts:?}");
    let renewals = acts.iter().filter(|act| *act == "renewApiLease").count();
    assert!((3..=8).contains(&renewals), "{acts:?}");
    assert!(acts.iter().all(|act| ["Full", "Light", "renewApiLease"].contains(&act.as_str())), "{acts:?}");
}
