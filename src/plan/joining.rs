//! How a blank volume becomes a member, and when an old member is removed for it.
//!
//! Membership changes one at a time: under a lock in etcd, with a healthy quorum before and after,
//! as a learner first. The old member of the slot is removed only on EC2's word (see
//! [`super::evidence`]); what is planned after a removal is planned from a new look at the cluster,
//! so a removal that fails stops what would have followed.

use crate::model::charter::majority;
use crate::model::{
    Charter, ClusterView, EtcdLaunch, Fact, LaunchState, Member, MemberId, Plan, SlotRecord, StampState,
    Step, WaitingOn,
};

use super::corruption;
use super::course::{Course, Next};
use super::evidence::{instance_gone, require_gone};
use super::member::{Site, leave, require_listed};
use super::takeover;

/// The slot's volume is blank, and the cluster lives.
///
/// A machine that has to wait gives the lock back: what it waits for may be another machine's
/// change of membership.
pub(super) fn join(site: &Site<'_>, charter: &Charter, course: &Course) -> Next<Plan> {
    let view = quorate(site, charter, course)?;
    require_lock(site, view, course)?;
    change(site, charter, view, course).map_err(|mut plan| {
        if plan.steps.is_empty() && view.lock.as_ref() == Some(&site.me.instance) {
            plan.steps.push(Step::ReleaseMembershipLock { instance: site.me.instance.clone() });
        }
        plan
    })
}

fn change(site: &Site<'_>, charter: &Charter, view: &ClusterView, course: &Course) -> Next<Plan> {
    // Which slot a blank volume is for is EC2's word, and the old member goes by it.
    require_listed(site, course)?;
    let url = site.me.peer_url();
    let record = view.records.get(&site.held.slot);
    let added = view
        .members
        .iter()
        .find(|(_, member)| member.learner && !member.has_started() && member.peer_urls == [url.clone()]);
    if let (Some((id, _)), Some(record)) = (added, record)
        && record.volume == site.held.volume
        && record.instance == site.me.instance
    {
        // A half-done attempt of this machine: the learner is ours, and has never run.
        return Err(course.act(start_as(site, charter, view, *id)));
    }
    if let Some((id, member)) = present_member(site, charter, view) {
        let who = identity(site, charter, view, id, member);
        if let Some(step) = takeover::undone(site, charter, member, who.as_ref()) {
            return Err(course.act([step]));
        }
        let zone = charter.zone_of(site.held.slot);
        require_gone(
            site.seen,
            course,
            &site.me.instance,
            &site.held.volume,
            zone,
            (id, member),
            who.as_ref(),
        )?;
        require_health(view, Some(id), false, course)?;
        let mut steps = corruption::disarm(site, id);
        steps.extend([lock(site), Step::RemoveMember { member: id }]);
        return Err(course.act(steps));
    }
    if let Some((id, learner)) = view.members.iter().find(|(_, member)| member.learner) {
        if !learner.has_started() && abandoned(site, view, (*id, learner), course)? {
            require_health(view, Some(*id), false, course)?;
            return Err(course.act(remove_learner(site, view, *id)));
        }
        return Err(course.wait(WaitingOn::OtherLearner { member: *id }));
    }
    require_all_healthy(view, course)?;
    Err(course.act([
        lock(site),
        // By it another machine that joined for this slot since the look is found out, before a learner is added.
        Step::RecordSlot {
            slot: site.held.slot,
            from: record.cloned(),
            record: SlotRecord {
                volume: site.held.volume.clone(),
                instance: site.me.instance.clone(),
                peer_url: url.clone(),
                member: None,
            },
        },
        Step::AddLearner { peer_url: url },
    ]))
}

/// The volume is stamped as joining, and holds no data: the learner starts, if it is still there
/// and has never run; else the attempt is given up and begun anew.
pub(super) fn resume(site: &Site<'_>, charter: &Charter, id: MemberId, course: &Course) -> Next<Plan> {
    match site.service(course)? {
        crate::model::ServiceState::Running => return Err(course.wait(WaitingOn::OwnEtcd)),
        crate::model::ServiceState::Stopped | crate::model::ServiceState::Failed(_) => {}
    }
    let view = quorate(site, charter, course)?;
    require_lock(site, view, course)?;
    match view.members.get(&id) {
        Some(member)
            if member.learner
                && !member.has_started()
                && member.peer_urls == [site.me.peer_url()]
                && site.held.data == crate::model::DataDir::Absent =>
        {
            Err(course.act(start_as(site, charter, view, id)))
        }
        Some(_) | None => Err(leave(site, "unborn", course)?),
    }
}

fn quorate<'a>(site: &Site<'a>, charter: &Charter, course: &Course) -> Next<&'a ClusterView> {
    site.view(&charter.uuid, charter.generation).ok_or_else(|| course.wait(WaitingOn::Quorum))
}

/// Another machine's change of membership comes first.
fn require_lock(site: &Site<'_>, view: &ClusterView, course: &Course) -> Next<()> {
    match &view.lock {
        Some(holder) if *holder != site.me.instance => {
            Err(course.wait(WaitingOn::MembershipLock { holder: holder.clone() }))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn lock(site: &Site<'_>) -> Step {
    Step::TakeMembershipLock { instance: site.me.instance.clone() }
}

/// The steps that start this machine's learner on a blank volume.
fn start_as(site: &Site<'_>, charter: &Charter, view: &ClusterView, id: MemberId) -> Vec<Step> {
    let state =
        StampState::Joining { uuid: charter.uuid.clone(), generation: charter.generation, member: id };
    let mut steps = vec![lock(site)];
    if site.held.stamp.state != state {
        steps.push(site.held.stamped(state.clone()));
        steps.push(Step::TagStamp { volume: site.held.volume.clone(), state });
    }
    let initial_cluster = view
        .members
        .iter()
        .flat_map(|(member_id, member)| {
            let name = if *member_id == id { site.held.slot.member_name() } else { name_of(charter, member) };
            member.peer_urls.iter().map(move |url| (name.clone(), url.clone()))
        })
        .collect();
    let launch = EtcdLaunch {
        slot: site.held.slot,
        uuid: charter.uuid.clone(),
        generation: charter.generation,
        address: site.me.address,
        state: LaunchState::Existing,
        initial_cluster,
    };
    steps.extend(site.start(launch, 0));
    steps
}

/// A member's name; a founder that has not started has none yet, and is named after its slot.
fn name_of(charter: &Charter, member: &Member) -> String {
    if member.has_started() {
        return member.name.clone();
    }
    charter
        .founders
        .iter()
        .find(|founder| member.peer_urls.contains(&founder.peer_url))
        .map_or_else(|| "not-started".to_owned(), |founder| founder.slot.member_name())
}

/// The member that now has this slot.
fn present_member<'a>(
    site: &Site<'_>,
    charter: &Charter,
    view: &'a ClusterView,
) -> Option<(MemberId, &'a Member)> {
    let slot = site.held.slot;
    let name = slot.member_name();
    let record = view.records.get(&slot);
    let founding = charter.founder(slot);
    view.members
        .iter()
        .find(|(id, member)| {
            let recorded = record.is_some_and(|record| is_of(record, **id, member));
            // A founder is a voter from the beginning. Its address may have come to another slot.
            let as_founder = !member.has_started()
                && !member.learner
                && founding.is_some_and(|founder| member.peer_urls == [founder.peer_url.clone()]);
            member.name == name || recorded || as_founder
        })
        .map(|(id, member)| (*id, member))
}

/// Whether a slot's record is about this member, by its id, or, before the id was recorded, by the
/// address that it was added with.
pub(super) fn is_of(record: &SlotRecord, id: MemberId, member: &Member) -> bool {
    match record.member {
        Some(recorded) => recorded == id,
        None => !member.has_started() && member.peer_urls == [record.peer_url.clone()],
    }
}

/// Which machine and volume a member of this slot is: by the slot's record, or, if there never was
/// one, by what the charter said when it was founded.
fn identity(
    site: &Site<'_>,
    charter: &Charter,
    view: &ClusterView,
    id: MemberId,
    member: &Member,
) -> Option<SlotRecord> {
    let slot = site.held.slot;
    if let Some(record) = view.records.get(&slot) {
        // A record without an id was written for the member that was added next, which is the only
        // one that can have the slot's name since; its address may have changed.
        let named = record.member.is_none() && member.has_started();
        return (named || is_of(record, id, member)).then(|| record.clone());
    }
    let founder = charter.founder(slot).filter(|_| !member.learner)?;
    Some(SlotRecord {
        volume: founder.volume.clone(),
        instance: founder.instance.clone(),
        peer_url: founder.peer_url.clone(),
        member: Some(id),
    })
}

/// The steps that remove a learner that nobody will start. That is no lasting truth: another machine with its address
/// may yet make it its own, and give it its vote. So it has to be seen while this machine has the lock.
pub(super) fn remove_learner(site: &Site<'_>, view: &ClusterView, learner: MemberId) -> Vec<Step> {
    let mut steps = vec![lock(site)];
    if view.lock.as_ref() == Some(&site.me.instance) {
        steps.push(Step::RemoveMember { member: learner });
    }
    steps
}

/// Whether nobody will ever start a learner that has not run: no slot's record is about it, so the
/// request that added it arrived after its sender had gone on, or its machine is gone for good.
fn abandoned(
    site: &Site<'_>,
    view: &ClusterView,
    (id, learner): (MemberId, &Member),
    course: &Course,
) -> Next<bool> {
    match view.records.values().find(|record| is_of(record, id, learner)) {
        None => Ok(true),
        Some(record) => match instance_gone(site.seen, course, &record.instance) {
            Ok(()) => Ok(true),
            Err(Some(plan)) => Err(plan),
            Err(None) => Ok(false),
        },
    }
}

/// A learner that no slot's record is about, and that has never run: a voter's machine removes it,
/// since etcd takes one learner at a time and nobody could join any more.
pub(super) fn stray_learner(view: &ClusterView) -> Option<MemberId> {
    view.members
        .iter()
        .find(|(id, member)| {
            member.learner
                && !member.has_started()
                && !view.records.values().any(|record| is_of(record, **id, member))
        })
        .map(|(id, _)| *id)
}

/// etcd adds a member only while it is connected to every voter (its `strict-reconfig-check`).
fn require_all_healthy(view: &ClusterView, course: &Course) -> Next<()> {
    let voters: Vec<&Member> = view.members.values().filter(|member| !member.learner).collect();
    let healthy = voters.iter().filter(|member| member.healthy == Fact::Known(true)).count();
    if healthy < voters.len() {
        return Err(course.wait(WaitingOn::HealthyQuorum { healthy, needed: voters.len() }));
    }
    Ok(())
}

/// A change of membership needs a healthy quorum before and after it.
///
/// `leaves` is the member to be removed; `joins` says that a learner is added, whose later vote
/// counts as one more voter to be outvoted.
pub(super) fn require_health(
    view: &ClusterView,
    leaves: Option<MemberId>,
    joins: bool,
    course: &Course,
) -> Next<()> {
    let voters: Vec<(&MemberId, &Member)> = view.members.iter().filter(|(_, m)| !m.learner).collect();
    let healthy = |but: Option<MemberId>| {
        voters.iter().filter(|(id, member)| Some(**id) != but && member.healthy == Fact::Known(true)).count()
    };
    let leaving_voter = leaves.is_some_and(|id| voters.iter().any(|(voter, _)| **voter == id));
    let after = voters.len() - usize::from(leaving_voter) + usize::from(joins);
    // The joiner itself counts as healthy after: it is promoted only when it is in sync.
    let healthy_after = healthy(leaves) + usize::from(joins);
    let (before_needed, after_needed) = (majority(voters.len()), majority(after));
    if healthy(None) < before_needed {
        return Err(course.wait(WaitingOn::HealthyQuorum { healthy: healthy(None), needed: before_needed }));
    }
    if healthy_after < after_needed {
        return Err(course.wait(WaitingOn::HealthyQuorum { healthy: healthy_after, needed: after_needed }));
    }
    Ok(())
}
