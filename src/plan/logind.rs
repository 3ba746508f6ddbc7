//! A shutdown of the machine waits for the kubelet as long as the kubelet waits for its pods; and on a control-plane
//! machine for the agent, also where there is etcd alone.
//!
//! logind is told of its file once. A file of somebody else's that says less is not fought with, only told.

use crate::kubernetes::{NodeInputs, RenderedFile, kubelet, paths};
use crate::model::departure::HOLD_MS;
use crate::model::fact::chain;
use crate::model::kubernetes::KubernetesObservation;
use crate::model::plan::Subject;
use crate::model::{Fact, Halt, Step, Warning};

use super::course::{Course, Next};

/// logind reads its file when that is newer, and allows what the kubelet asks for, or else that is said.
pub(super) fn keep(
    seen: &KubernetesObservation,
    inputs: &NodeInputs,
    files: &[RenderedFile],
    course: &mut Course,
) -> Next<()> {
    let wanted = kubelet::shutdown_delay(inputs)
        .map_err(|error| course.halt(Halt::Contradiction { what: chain(&error) }))?
        .as_millis();
    if let Some(file) = files.iter().find(|file| file.path == paths::LOGIND) {
        reads(seen, file, wanted, course);
    }
    Ok(())
}

/// The same on a machine of etcd alone, whose file nobody else writes.
pub(super) fn keep_for_etcd_alone(seen: &KubernetesObservation, course: &mut Course) {
    let found = match (&seen.logind, &seen.files) {
        (Fact::Known(Some(_)), Fact::Known(found)) => found,
        // What is not known is told by the lock that is not held.
        (Fact::Known(_) | Fact::Unknown(_), _) => return,
    };
    let file = kubelet::logind_of_etcd_alone();
    if found.get(paths::LOGIND) != Some(&file.digest()) {
        course.steps.push(Step::WriteLogindFile { file: file.clone() });
    }
    reads(seen, &file, HOLD_MS, course);
}

/// logind is told of its file once, where it allows less than is `wanted`, in milliseconds.
fn reads(seen: &KubernetesObservation, file: &RenderedFile, wanted: u64, course: &mut Course) {
    let logind = match &seen.logind {
        Fact::Known(Some(logind)) => logind,
        Fact::Known(None) => return,
        Fact::Unknown(why) => {
            return course.warn(Warning::Answer { subject: Subject::Logind, why: why.clone() });
        }
    };
    if logind.longest_delay_ms >= wanted {
        return;
    }
    let digest = file.digest();
    if logind.told.as_ref() == Some(&digest) {
        let found_ms = logind.longest_delay_ms;
        course.warn(Warning::ShutdownCutShort { found_ms, wanted_ms: wanted });
    } else {
        course.steps.push(Step::ReloadLogind { digest });
    }
}
