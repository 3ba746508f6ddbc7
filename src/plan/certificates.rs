//! When the etcd authority is made, and when this machine's leaves are issued.

use crate::model::plan::Subject;
use crate::model::{
    Authority, Fact, Halt, Identity, Observation, Phase, Plan, Slot, StampState, Step, WaitingOn, Warning,
};

use super::course::{Course, Next};
use super::disk::Held;
use super::evidence::signs_of_life;

pub(super) fn prepare(seen: &Observation, me: &Identity, held: &Held, course: &mut Course) -> Next<()> {
    let lived = held.stamp.state != StampState::Formatted;
    let leaves = course.need(&seen.leaves, Subject::Leaves)?.as_ref();
    let usable = leaves.is_some_and(|leaves| {
        leaves.address == me.address && leaves.not_before <= seen.at && seen.at < leaves.not_after
    });
    let authority = match &seen.authority {
        Fact::Known(Some(authority)) => authority,
        // Without the authority a machine lives on the leaves that it has.
        Fact::Known(None) if usable && lived => {
            course.warn(Warning::AuthorityLost);
            return Ok(());
        }
        Fact::Unknown(why) if usable && lived => {
            course.warn(Warning::Answer { subject: Subject::Authority, why: why.clone() });
            return Ok(());
        }
        Fact::Unknown(why) => {
            return Err(course.wait(WaitingOn::Answer { about: Subject::Authority, why: why.clone() }));
        }
        Fact::Known(None) => {
            let charter = course.need(&seen.charter, Subject::Charter)?;
            // A tag that a crash left out is written first, and only EC2 tells that it is missing.
            course.need(&seen.volumes, Subject::Volumes)?;
            return Err(if charter.is_some() || lived {
                course.halt(Halt::AuthorityLost)
            } else {
                synchronised(seen, course)?;
                course.act([Step::CreateAuthority])
            });
        }
    };
    let issue = issue(Some(held.slot), me, authority);
    let Some(leaves) = leaves else {
        check_authority(seen, authority.not_after, course)?;
        return Err(course.act([issue]));
    };
    if leaves.authority != authority.fingerprint {
        if lived {
            return Err(course.halt(Halt::Contradiction {
                what: "the etcd authority in S3 is not the one that signed this member's certificates"
                    .to_owned(),
            }));
        }
        check_authority(seen, authority.not_after, course)?;
        return Err(course.act([issue]));
    }
    if !usable {
        check_authority(seen, authority.not_after, course)?;
        return Err(course.act([issue]));
    }
    if past_half_life(leaves.not_before, leaves.not_after, seen.at)
        && seen.clock_synchronised == Fact::Known(true)
        && seen.at < authority.not_after
    {
        // etcd reads them again at the next handshake: nothing waits for this.
        course.steps.push(issue);
    }
    Ok(())
}

/// While EC2 or the kernel brings the volume, or there is none for a standby: the certificates, where
/// nothing that the volume may hold can forbid them.
pub(super) fn meanwhile(seen: &Observation, me: &Identity, mut plan: Box<Plan>) -> Box<Plan> {
    let standby = plan.report.phase == Phase::Standby;
    let coming = |on: &WaitingOn| matches!(on, WaitingOn::Attachment { .. } | WaitingOn::Device { .. });
    let waits =
        |on: &WaitingOn| plan.report.slot.is_some() && coming(on) || standby && *on == WaitingOn::FreeSlot;
    let idle = plan.steps.is_empty() && plan.report.halt.is_none() && plan.report.waiting.iter().all(waits);
    let missing = match &seen.leaves {
        Fact::Known(None) => true,
        Fact::Known(Some(found)) => {
            standby
                && (found.address != me.address || past_half_life(found.not_before, found.not_after, seen.at))
        }
        Fact::Unknown(_) => false,
    };
    if !idle || !missing || seen.clock_synchronised != Fact::Known(true) {
        return plan;
    }
    match (&seen.authority, &seen.charter, &seen.volumes, &seen.backups) {
        (Fact::Known(Some(authority)), ..) if seen.at < authority.not_after => {
            plan.steps.push(issue(plan.report.slot, me, authority));
        }
        (Fact::Known(None), Fact::Known(None), Fact::Known(volumes), Fact::Known(backups))
            if !standby && signs_of_life(volumes, *backups).is_empty() =>
        {
            plan.steps.push(Step::CreateAuthority);
        }
        _ => {}
    }
    plan
}

fn issue(slot: Option<Slot>, me: &Identity, authority: &Authority) -> Step {
    Step::IssueLeaves { slot, address: me.address, authority: authority.fingerprint.clone() }
}

fn check_authority(seen: &Observation, not_after: i64, course: &Course) -> Next<()> {
    synchronised(seen, course)?;
    if seen.at >= not_after {
        return Err(course.halt(Halt::AuthorityExpired));
    }
    Ok(())
}

/// A machine whose clock is not set signs certificates that are not yet valid.
pub(super) fn synchronised(seen: &Observation, course: &Course) -> Next<()> {
    match course.need(&seen.clock_synchronised, Subject::Clock)? {
        true => Ok(()),
        false => Err(course.wait(WaitingOn::Clock)),
    }
}

/// Whether more of a validity has passed than is left.
pub(super) fn past_half_life(not_before: i64, not_after: i64, now: i64) -> bool {
    now.saturating_sub(not_before) > not_after.saturating_sub(now)
}
