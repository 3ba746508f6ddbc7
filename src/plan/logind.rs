//! A shutdown of the machine waits for the kubelet as long as the kubelet waits for its pods.
//!
//! logind is told of its file once. A file of somebody else's that says less is not fought with, only told.

use crate::kubernetes::{NodeInputs, RenderedFile, kubelet, paths};
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
    let logind = match &seen.logind {
        Fact::Known(Some(logind)) => logind,
        Fact::Known(None) => return Ok(()),
        Fact::Unknown(why) => {
            course.warn(Warning::Answer { subject: Subject::Logind, why: why.clone() });
            return Ok(());
        }
    };
    let wanted = kubelet::shutdown_grace_period(inputs)
        .map_err(|error| course.halt(Halt::Contradiction { what: chain(&error) }))?
        .as_millis();
    let Some(file) = files.iter().find(|file| file.path == paths::LOGIND) else { return Ok(()) };
    if logind.longest_delay_ms >= wanted {
        return Ok(());
    }
    let digest = file.digest();
    if logind.told.as_ref() == Some(&digest) {
        let found_ms = logind.longest_delay_ms;
        course.warn(Warning::ShutdownCutShort { found_ms, wanted_ms: wanted });
    } else {
        course.steps.push(Step::ReloadLogind { digest });
    }
    Ok(())
}
