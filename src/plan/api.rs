//! What is kept in the API: which machine keeps it, and what is to be done.
//!
//! One machine at a time holds the lease `kube-system/quorate`, for as long as it renews it, and it alone
//! changes what is kept. While images are replaced, machines may have different add-ons: were it each on its
//! own, two would take each other's back for ever. Everything is idempotent and bound to versions, so that
//! nothing breaks where a machine goes on for a moment although its lease has ended.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::config::settings::{AddonName, ApiEndpoint};
use crate::kubernetes::ControlPlaneInputs;
use crate::model::addons::{AddonFailure, AddonFile, AddonPlace, AppliedAddon};
use crate::model::kubernetes::ApiLease;
use crate::model::plan::Subject;
use crate::model::{Fact, Identity, Observation, Step, Warning};

use super::course::Course;
use super::enrolment;

/// For how long, in seconds, the lease is held.
const LEASE_S: i32 = 30;
/// How old, in milliseconds, the lease gets before it is renewed: a slow tick, a third of its length.
const RENEW_AFTER: i64 = 10_000;
/// How long, in milliseconds, an add-on that failed rests before it is tried again: half as long as it has
/// been failing, and not less and not more than this.
const RETRY_AFTER: (i64, i64) = (2_000, 60_000);

/// Whose the lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tenure {
    /// Nobody's: it can be had.
    Free,
    /// Another machine's.
    Others,
    /// This machine's.
    Mine {
        /// The version that is to be renewed, when it is time to.
        due: Option<String>,
    },
}

/// What this machine does for what is kept in the API.
pub(super) fn keep(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    inputs: &ControlPlaneInputs,
    course: &mut Course,
) {
    let endpoint = &inputs.endpoint;
    if seen.kubernetes.remembered_endpoint != Fact::Known(Some(endpoint.clone())) {
        // What was found was compared with what belongs to another endpoint.
        return;
    }
    let lease = match &seen.kubernetes.api_lease {
        Fact::Known(lease) => lease.as_ref(),
        Fact::Unknown(why) => {
            course.warn(Warning::Answer { subject: Subject::ApiLease, why: why.clone() });
            return;
        }
    };
    let mut duties = first_things(seen, endpoint, course);
    duties.extend(addons(settings, seen, endpoint, course));
    let tenure = tenure(lease, me, seen.at);
    match &tenure {
        Tenure::Others => return,
        Tenure::Free => course.steps.push(Step::TakeApiLease {
            instance: me.instance.clone(),
            duration_s: LEASE_S,
            version: lease.map(|lease| lease.version.clone()),
        }),
        Tenure::Mine { due: Some(version) } => {
            course
                .steps
                .push(Step::RenewApiLease { instance: me.instance.clone(), version: version.clone() });
        }
        Tenure::Mine { due: None } => {}
    }
    course.steps.extend(duties);
    if let Tenure::Mine { .. } = tenure {
        enrolment::look_after(seen, inputs, course);
    }
}

/// A lease from the future was taken by a clock that is wrong, and would be held for as long as that is.
fn tenure(lease: Option<&ApiLease>, me: &Identity, at: i64) -> Tenure {
    let Some(ApiLease { holder: Some(holder), renewed: Some(renewed), duration_s, version }) = lease else {
        return Tenure::Free;
    };
    let age = at.saturating_sub(*renewed);
    if holder.is_empty() || age.saturating_abs() >= i64::from(*duration_s).saturating_mul(1000) {
        return Tenure::Free;
    }
    if holder != me.instance.as_str() {
        return Tenure::Others;
    }
    Tenure::Mine { due: (age.saturating_abs() >= RENEW_AFTER).then(|| version.clone()) }
}

/// Puts back what is missing of the first things.
fn first_things(seen: &Observation, endpoint: &ApiEndpoint, course: &mut Course) -> Vec<Step> {
    match &seen.kubernetes.first_things {
        Fact::Known(found) if found.unfit.is_empty() => Vec::new(),
        Fact::Known(found) => {
            vec![Step::ApplyObjects { objects: found.unfit.clone(), endpoint: endpoint.clone() }]
        }
        Fact::Unknown(why) => {
            course.warn(Warning::Answer { subject: Subject::FirstThings, why: why.clone() });
            Vec::new()
        }
    }
}

/// What an add-on should be.
enum Wanted<'a> {
    /// As this file has it.
    As(AddonPlace, &'a AddonFile),
    /// It is named, and there is no file: nobody knows.
    Named,
}

/// Applies add-ons that are not as their files have them, and takes away those that are no more.
fn addons(settings: &Settings, seen: &Observation, endpoint: &ApiEndpoint, course: &mut Course) -> Vec<Step> {
    let seen_addons = &seen.kubernetes.addons;
    // A directory that can't be read may hold the file that replaces one in the other.
    let (shipped, operators, applied) =
        match (&seen_addons.shipped, &seen_addons.operators, &seen_addons.applied) {
            (Fact::Known(shipped), Fact::Known(operators), Fact::Known(applied)) => {
                (shipped, operators, applied)
            }
            (Fact::Unknown(why), _, _) | (_, Fact::Unknown(why), _) | (_, _, Fact::Unknown(why)) => {
                course.warn(Warning::Answer { subject: Subject::Addons, why: why.clone() });
                return Vec::new();
            }
        };
    for (name, why) in shipped.misnamed.iter().chain(&operators.misnamed) {
        course.warn(Warning::AddonUnfit { name: name.clone(), why: why.clone() });
    }
    let mut wanted: BTreeMap<&AddonName, Wanted<'_>> = BTreeMap::new();
    for name in &settings.kubernetes.addons {
        let file = shipped.files.get(name);
        wanted.insert(name, file.map_or(Wanted::Named, |file| Wanted::As(AddonPlace::Shipped, file)));
    }
    for (name, file) in &operators.files {
        wanted.insert(name, Wanted::As(AddonPlace::Operators, file));
    }
    let mut steps = Vec::new();
    for (name, wanted) in &wanted {
        let found = applied.get(*name);
        match wanted {
            Wanted::Named => course.warn(Warning::AddonUnfit {
                name: name.to_string(),
                why: format!(
                    "`kubernetes.addons` names it, and there is no such file in {}",
                    AddonPlace::Shipped.directory()
                ),
            }),
            Wanted::As(_, AddonFile::Unfit(why)) => {
                course.warn(Warning::AddonUnfit { name: name.to_string(), why: why.clone() });
            }
            Wanted::As(place, AddonFile::Fit { digest, .. }) => {
                if is_to_be_tried(name, found, Some(digest), seen.at, course) {
                    steps.push(Step::ApplyAddon {
                        name: (*name).clone(),
                        place: *place,
                        digest: digest.clone(),
                        endpoint: endpoint.clone(),
                    });
                }
            }
        }
    }
    for (name, found) in applied {
        if !wanted.contains_key(name) && is_to_be_tried(name, Some(found), None, seen.at, course) {
            steps.push(Step::PruneAddon { name: name.clone() });
        }
    }
    leftovers(seen, &wanted, course);
    steps
}

/// Whether an add-on is not in the API as it should be (`None`: not at all), and did not fail just now. Says
/// so when it did.
fn is_to_be_tried(
    name: &AddonName,
    found: Option<&Fact<AppliedAddon>>,
    digest: Option<&String>,
    at: i64,
    course: &mut Course,
) -> bool {
    let found = match found {
        None => return digest.is_some(),
        Some(Fact::Known(found)) => found,
        Some(Fact::Unknown(why)) => {
            let why = format!("{why}; delete it, and the add-on is applied anew");
            course.warn(Warning::AddonFailed { name: name.to_string(), why });
            return false;
        }
    };
    if let Some(failure) = &found.failure {
        course.warn(Warning::AddonFailed { name: name.to_string(), why: failure.why.clone() });
        return failure.digest.as_ref() != digest || is_rested(failure, at);
    }
    let whole = match &found.missing {
        Fact::Known(missing) => missing.is_empty(),
        // Not looked at, or not seen: not known to be missing.
        Fact::Unknown(_) => true,
    };
    found.digest.as_ref() != digest || digest.is_none() || !whole
}

/// Whether an add-on that failed has rested for long enough. A failure from the future is one of a clock that
/// is wrong.
fn is_rested(failure: &AddonFailure, at: i64) -> bool {
    let failing = failure.at.saturating_sub(failure.since).max(0);
    let rest = (failing / 2).clamp(RETRY_AFTER.0, RETRY_AFTER.1);
    at.saturating_sub(failure.at).saturating_abs() >= rest
}

/// Names what add-ons had, and nobody takes away.
fn leftovers(seen: &Observation, wanted: &BTreeMap<&AddonName, Wanted<'_>>, course: &mut Course) {
    let holding = match &seen.kubernetes.addons.holding {
        Fact::Known(holding) => holding,
        // Told by the machine that looks after them.
        Fact::Unknown(_) => return,
    };
    let of = |name: &str| wanted.iter().find(|(wanted, _)| wanted.as_str() == name).map(|(_, wanted)| wanted);
    let left = holding.iter().filter(|found| match of(&found.addon) {
        None => true,
        Some(Wanted::As(_, AddonFile::Fit { holds, .. })) => {
            !holds.iter().any(|held| held.is_found_as(&found.object))
        }
        Some(Wanted::As(_, AddonFile::Unfit(_)) | Wanted::Named) => false,
    });
    let mut objects: Vec<String> = left.map(|found| found.object.to_string()).collect();
    objects.sort_unstable();
    if !objects.is_empty() {
        course.warn(Warning::AddonLeftovers { objects });
    }
}
