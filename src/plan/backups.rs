//! Who keeps the backups, and when that they are not kept is warned of.
//!
//! Every machine with a healthy, voting member may keep them; which of those does is settled among them by a lock. That
//! is not a decision about safety: what two would write at once is refused to one of them by S3. While S3 does not answer,
//! etcd's copy of the charter is good enough: whoever keeps them goes on trying, and tells how far they are behind.

use crate::config::Settings;
use crate::model::backup::{BackupProgress, BackupTrouble, Keeping};
use crate::model::{Charter, ClusterView, Fact, MemberId, Observation, Step, Warning};

use super::course::Course;

/// How old, in milliseconds, the permission gets before it is renewed. It lasts a minute, and three slow ticks at least.
const RENEW: i64 = 15_000;
/// How long, in milliseconds, changes may wait to get to S3 before that is warned of.
const BEHIND: i64 = 60_000;
/// How long, in milliseconds, a snapshot may take, beyond its interval.
const SNAPSHOT: i64 = 15 * 60_000;
/// How long, in milliseconds, there may be no word of who keeps them: a minute after it was first asked for.
const UNKNOWN: i64 = 60_000;

/// Lets this machine keep the backups, and says what is wrong with them.
pub(super) fn keep(
    settings: &Settings,
    seen: &Observation,
    (charter, view): (&Charter, &ClusterView),
    own: MemberId,
    course: &mut Course,
) {
    let Some(progress) = &seen.keeping else { return };
    warn(settings, seen.at, progress, course);
    let is_fit = view.members.get(&own).is_some_and(|member| member.healthy == Fact::Known(true));
    let is_due = progress.permitted.is_none_or(|at| seen.at.abs_diff(at) >= RENEW.unsigned_abs());
    if is_fit && is_due && charter.established() {
        let (uuid, generation) = (charter.uuid.clone(), charter.generation);
        course.steps.push(Step::KeepBackups { uuid, generation });
    }
}

fn warn(settings: &Settings, now: i64, progress: &BackupProgress, course: &mut Course) {
    let mut trouble = |trouble| course.warn(Warning::Backups { trouble });
    let older = |at: i64, than: i64| now.saturating_sub(at) > than;
    match (&progress.keeping, &progress.error) {
        // The machine that keeps them tells.
        (Some(Keeping::Elsewhere { .. }), _) | (None, None) => return,
        (Some(Keeping::Here), _) | (None, Some(_)) => {}
    }
    let why = progress.error.clone();
    if let Some(since) = progress.unshipped_since.filter(|since| older(*since, BEHIND)) {
        trouble(BackupTrouble::Behind { since, why: why.clone() });
    }
    let limit = settings.backups.snapshots.as_signed_millis().saturating_add(SNAPSHOT);
    let is_old = match (progress.taken, progress.since) {
        (Some(taken), _) => older(taken, limit),
        (None, Some(since)) => older(since, UNKNOWN) && why.is_some() || older(since, SNAPSHOT),
        (None, None) => false,
    };
    if is_old {
        trouble(BackupTrouble::Old { taken: progress.taken, why });
    }
    if let Some(rehearsal) = &progress.rehearsed {
        let limit = settings.backups.rehearsal.as_signed_millis().saturating_mul(2);
        if let Some(why) = &rehearsal.error {
            trouble(BackupTrouble::NotRestorable { why: why.clone() });
        } else if older(rehearsal.at, limit) {
            trouble(BackupTrouble::NotRehearsed { at: rehearsal.at });
        }
    }
}
