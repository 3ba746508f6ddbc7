//! What is done about an etcd that runs on this machine and says nothing, while the others are well.
//!
//! A member that answers nothing is a member less, and nobody else will see to it: its process runs,
//! its machine is healthy to EC2 and to its group. So after some minutes its own machine restarts it,
//! once; and when it is as silent a quarter of an hour after that, the instance is given up to its
//! group, which replaces it.
//!
//! What is asked is the member's own status, which it tells from memory, without a disk, a leader or
//! a quorum: of one that has served, a slow disk or a lost leader is no silence. One that has just
//! started does not answer before it has opened its database, reached the others and received what
//! it missed; the largest database takes minutes for that. Hence the times: three minutes before the
//! one restart, which costs nothing that was acknowledged, and fifteen after it.
//!
//! The restart is noted on the machine before it is done, so that an agent that comes up anew does
//! not restart etcd a second time; the note counts for six hours. It is asked to end, and never
//! killed: one that does not even do that has had its restart, all the same.
//!
//! The instance is given up only when every other voter is healthy, they are a quorum, no alarm is
//! raised, nobody joins, and under the lock on changes of membership; never a learner's, and never
//! on an answer that is missing.

use crate::model::charter::majority;
use crate::model::{
    Charter, ClusterView, Fact, Member, MemberId, Plan, Silence, Step, WaitingOn, Warning, WedgeNote,
};

use super::course::Course;
use super::joining::lock;
use super::member::Site;

/// How long, in milliseconds, a member may say nothing before it is restarted, and in how many looks
/// at least: a look that came late is one look.
const RESTART_AFTER: i64 = 3 * 60_000;
const LOOKS: u32 = 5;
/// How long, in milliseconds, it may say nothing after that before its instance is given up.
const GIVE_UP_AFTER: i64 = 15 * 60_000;
/// How long, in milliseconds, a restart counts.
const REMEMBERED: u64 = 6 * 3_600_000;
/// How long, in milliseconds, the group is given before it is told again.
const TOLD: u64 = 3_600_000;

/// The plan of a machine whose etcd runs and does not answer.
pub(super) fn silent(
    site: &Site<'_>,
    view: Option<&ClusterView>,
    charter: Option<&Charter>,
    mut course: Course,
) -> Box<Plan> {
    let steps = match (view, charter, site.seen.etcd.silence) {
        (Some(view), Some(charter), Some(silence)) => match wedged(site, view, charter) {
            Some(member) => act(site, member, silence, &mut course),
            None => Vec::new(),
        },
        (Some(_) | None, Some(_) | None, Some(_) | None) => Vec::new(),
    };
    course.act_and_wait(steps, WaitingOn::OwnEtcd)
}

/// This machine's member, when it is a voter that says nothing to anybody, and all others are well.
fn wedged(site: &Site<'_>, view: &ClusterView, charter: &Charter) -> Option<MemberId> {
    let me = site.my_member(view, Some(charter))?;
    let own = view.members.get(&me)?;
    let says_nothing = match own.healthy {
        Fact::Unknown(_) => own.has_started(),
        Fact::Known(_) => false,
    };
    let others: Vec<&Member> =
        view.members.iter().filter(|(id, _)| **id != me).map(|(_, member)| member).collect();
    let are_well = others.iter().all(|member| !member.learner && member.healthy == Fact::Known(true));
    let is_quiet = match &site.seen.etcd.care {
        Fact::Known(care) => care.alarms.known().is_some_and(std::collections::BTreeSet::is_empty),
        Fact::Unknown(_) => false,
    };
    let is_free = view.lock.as_ref().is_none_or(|holder| *holder == site.me.instance);
    let survives = others.len() >= majority(view.members.len());
    (says_nothing && !own.learner && are_well && is_quiet && is_free && survives).then_some(me)
}

fn act(site: &Site<'_>, member: MemberId, silence: Silence, course: &mut Course) -> Vec<Step> {
    let now = site.seen.at;
    let Fact::Known(notes) = &site.seen.etcd.notes else { return Vec::new() };
    if now.saturating_sub(silence.since) < RESTART_AFTER || silence.looks < LOOKS {
        return Vec::new();
    }
    let note = notes.wedge.filter(|note| note.member == member && now.abs_diff(note.restarted) < REMEMBERED);
    let (steps, why) = match note {
        None => {
            let note = WedgeNote { member, restarted: now, given_up: None };
            (vec![Step::NoteWedge { note }, Step::StopEtcd], "it is restarted")
        }
        Some(WedgeNote { given_up: Some(told), .. }) if now.abs_diff(told) < TOLD => {
            (Vec::new(), "the instance was given up, and its Auto Scaling group replaces it")
        }
        Some(note) if now.saturating_sub(silence.since.max(note.restarted)) < GIVE_UP_AFTER => {
            (Vec::new(), "it was restarted, and is given a quarter of an hour; then the instance is given up")
        }
        Some(note) => {
            let instance = site.me.instance.clone();
            let why = format!(
                "its etcd member {member} runs and has not answered for {} minutes, and a restart did not help",
                now.saturating_sub(silence.since) / 60_000
            );
            let steps = vec![
                lock(site),
                Step::GiveUpInstance { instance, why },
                Step::NoteWedge { note: WedgeNote { given_up: Some(now), ..note } },
            ];
            (steps, "a restart did not help, and the instance is given up to its Auto Scaling group")
        }
    };
    course.warn(Warning::EtcdWedged { why: why.to_owned() });
    steps
}
