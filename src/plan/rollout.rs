//! The change of a static pod's manifest, and the first one.
//!
//! A manifest that is there is changed on one control-plane node at a time, under a lock in etcd, with the files
//! that only its program reads. One that does not get ready in time is replaced by the one before, and tried
//! again later and ever more seldom.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Settings;
use crate::kubernetes::{Component, RenderedFile};
use crate::model::kubernetes::{ComponentObservation, FailedManifest, Readiness, Rollout, RolloutState};
use crate::model::plan::Subject;
use crate::model::{ClusterView, Fact, Identity, Observation, Step, WaitingOn, Warning};

use super::course::{Course, Next};

/// How long, in milliseconds, a component that answers with a changed manifest is watched before that has proven
/// good; but not for more than half of its time to get ready. The kubelet looks at its directory every 20 s.
const WATCHED_FOR: i64 = 30_000;

/// For how long, in milliseconds, an API server that has its first manifest is alone.
const HEAD_START: i64 = 10_000;

/// In milliseconds; after its first failure a manifest rests for so long, and twice as long after each more.
const HOUR: i64 = 60 * 60 * 1000;
/// The longest that it rests, in milliseconds.
const LONGEST_REST: i64 = 24 * HOUR;

/// The components whose manifest is there, for all that is known, and is to be another.
pub(super) fn changing(seen: &Observation, manifests: &BTreeMap<Component, RenderedFile>) -> Vec<Component> {
    let is_changing = |(component, manifest): (&Component, &RenderedFile)| {
        let found = seen.kubernetes.components.get(component)?;
        let same = match &found.manifest {
            Fact::Known(None) => true,
            Fact::Known(Some(there)) => *there == manifest.digest(),
            Fact::Unknown(_) => false,
        };
        (!same).then_some(*component)
    };
    manifests.iter().filter_map(is_changing).collect()
}

/// Whether the file is one of those that only this component reads.
pub(super) fn reads(component: Component, file: &RenderedFile) -> bool {
    Path::new(&file.path).starts_with(component.directory())
}

/// Puts the manifests in place that are not there, and changes those that differ, one after the
/// other.
pub(super) fn roll_out(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    view: &ClusterView,
    manifests: BTreeMap<Component, RenderedFile>,
    with_manifest: &[RenderedFile],
    course: &mut Course,
) -> Next<()> {
    for (component, manifest) in manifests {
        let Some(found) = seen.kubernetes.components.get(&component) else { continue };
        let there = course.need(&found.manifest, Subject::KubernetesFiles)?.as_deref();
        let last = course.need(&found.rollout, Subject::KubernetesFiles)?.as_ref();
        let wanted = manifest.digest();
        let Some(there) = there else {
            // Nothing runs that could be interrupted.
            if component == Component::ApiServer || had_its_head_start(seen) {
                course.steps.push(Step::RollOut { component, files: Vec::new(), manifest });
            }
            continue;
        };
        if there == wanted {
            settle(settings, seen, component, found, last.filter(|last| last.digest == wanted), course)?;
            continue;
        }
        if let Some(failed) = last.and_then(|last| last.failed.iter().find(|one| one.digest == wanted)) {
            let rest = rest_of(settings, failed);
            // A moment in the future is one of a clock that was wrong.
            let rested =
                rest.is_some_and(|rest| seen.at.saturating_sub(failed.tried).saturating_abs() >= rest);
            if !rested {
                let tried_again_after_h = rest.map(|rest| rest / HOUR);
                course.warn(Warning::RolledBack { component, times: failed.times, tried_again_after_h });
                continue;
            }
        }
        if let Readiness::NotReady(why) = &found.readiness
            && last.is_some_and(|last| last.digest == there && last.state == RolloutState::Pending)
            && last.is_some_and(|last| !had_its_time(settings, seen, last.since))
        {
            return Err(course.wait(WaitingOn::Component { component, why: why.clone() }));
        }
        // One change at a time, on this machine as in the cluster. The lock is taken, or kept for its
        // whole lease, right before each: where another machine has it now, the plan ends there.
        let files = with_manifest.iter().filter(|file| reads(component, file)).cloned().collect();
        return Err(match &view.control_plane.lock {
            Some(holder) if *holder != me.instance => {
                course.wait(WaitingOn::ControlPlaneLock { holder: holder.clone() })
            }
            Some(_) | None => course.act([
                Step::TakeControlPlaneLock { instance: me.instance.clone() },
                Step::RollOut { component, files, manifest },
            ]),
        });
    }
    Ok(())
}

/// Whether this machine's API server is ready, or should be: without it the others can do nothing but take its
/// processors. One that does not get ready keeps nobody from running: they may talk to another machine's.
fn had_its_head_start(seen: &Observation) -> bool {
    let Some(found) = seen.kubernetes.components.get(&Component::ApiServer) else { return true };
    let since = found.rollout.known().and_then(|last| last.as_ref()).map(|last| last.since);
    found.readiness == Readiness::Ready
        || since.is_some_and(|since| seen.at.saturating_sub(since).saturating_abs() >= HEAD_START)
}

/// How long, in milliseconds, a manifest that did not get ready rests before it is tried again: its time may
/// have been a bad one, as when etcd was slow. `None`: until something of it changes, where there is no other
/// API server that serves meanwhile.
fn rest_of(settings: &Settings, failed: &FailedManifest) -> Option<i64> {
    let rest = HOUR << failed.times.saturating_sub(1).min(5);
    (settings.etcd.size.slots() > 1).then(|| rest.min(LONGEST_REST))
}

/// The manifest is in place: it has proven good, or is waited for, or goes.
fn settle(
    settings: &Settings,
    seen: &Observation,
    component: Component,
    found: &ComponentObservation,
    last: Option<&Rollout>,
    course: &mut Course,
) -> Next<()> {
    let Some(Rollout { state: RolloutState::Pending, since, previous, .. }) = last else {
        return Ok(());
    };
    match (&found.readiness, previous) {
        // It may be the program of the manifest before that still answers.
        (Readiness::Ready, Some(_)) if !was_watched(settings, seen, *since) => {
            let why = "it is ready with a changed manifest, and is watched for a while".to_owned();
            return Err(course.wait(WaitingOn::Component { component, why }));
        }
        (Readiness::Ready, _) => course.steps.push(Step::KeepManifest { component }),
        (Readiness::NotReady(_), Some(_)) if had_its_time(settings, seen, *since) => {
            return Err(course.act([Step::RollBack { component }]));
        }
        (Readiness::NotReady(why), Some(_)) => {
            return Err(course.wait(WaitingOn::Component { component, why: why.clone() }));
        }
        // The first one there ever was; it is waited for with all others.
        (Readiness::NotReady(_), None) => {}
    }
    Ok(())
}

/// Whether a manifest that was put in place then, in milliseconds since 1970, has been there for long enough
/// for the kubelet to have ended what ran before.
fn was_watched(settings: &Settings, seen: &Observation, since: i64) -> bool {
    let patience = i64::try_from(settings.kubernetes.ready_patience.as_duration().as_millis());
    seen.at.saturating_sub(since) >= WATCHED_FOR.min(patience.unwrap_or(i64::MAX) / 2)
}

/// Whether a manifest that was put in place then, in milliseconds since 1970, has had its time to get ready.
fn had_its_time(settings: &Settings, seen: &Observation, since: i64) -> bool {
    let patience = i64::try_from(settings.kubernetes.ready_patience.as_duration().as_millis());
    seen.at.saturating_sub(since) >= patience.unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InstanceTags, load};

    #[test]
    fn the_only_api_server_is_not_ended_for_a_manifest_that_failed_before() {
        let failed = FailedManifest { digest: "a".to_owned(), tried: 0, times: 2 };
        let rest = |size: u8| {
            let text = format!("cluster: demo\nbucket: demo-quorate\netcd: {{size: {size}}}\n");
            let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
            let loaded = load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap();
            rest_of(&loaded.settings, &failed)
        };
        assert_eq!([1, 3, 5].map(rest), [None, Some(2 * HOUR), Some(2 * HOUR)]);
    }
}
