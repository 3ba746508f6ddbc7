//! What a running member keeps in order: its vote, its stamp, its record, the copies of the charter,
//! and its database.

use crate::model::observation::PublishedMembers;
use crate::model::plan::Subject;
use crate::model::{
    Charter, ClusterView, Fact, MemberId, Phase, Plan, SlotRecord, StampState, Step, WaitingOn, Warning,
};

use super::course::{Course, Next};
use super::founding::warn_of_shared_zones;
use super::joining::{lock, remove_learner, require_health, stray_learner};
use super::member::{Site, leave, require_listed};
use super::{backups, care, corruption, inventory, recovery, wedged};

/// How long, in milliseconds, a learner may take to catch up before it is dropped and begun anew.
const SYNC_PATIENCE: i64 = 30 * 60_000;

/// etcd runs on this machine.
pub(super) fn running(
    site: &Site<'_>,
    view: Option<&ClusterView>,
    charter: Option<&Charter>,
    mut course: Course,
) -> Next<Plan> {
    let own = match &site.seen.etcd.own {
        Fact::Known(own) => own,
        Fact::Unknown(_) => return Err(wedged::silent(site, view, charter, course)),
    };
    let Some(view) = view else {
        return Err(recovery::survivor(site, charter, &course));
    };
    let Some(member) = view.members.get(&own.member) else {
        // Another data directory than the stamp's; or the list is older than the member.
        return Err(course.wait(WaitingOn::OwnEtcd));
    };
    let url = site.me.peer_url();
    if member.peer_urls != [url.clone()] {
        course.steps.push(Step::UpdatePeerUrl { member: own.member, peer_url: url.clone() });
    }
    let Some((uuid, generation)) = site.held.stamp.state.life() else {
        return Err(course.wait(WaitingOn::OwnEtcd));
    };
    let state = StampState::Member { uuid: uuid.clone(), generation, member: own.member };
    if own.learner || member.learner {
        course.phase = Phase::Joining;
        return learner(site, view, charter, (own.member, own.in_sync), &course);
    }
    course.phase = Phase::Running;
    if site.held.stamp.state != state {
        course.steps.push(site.held.stamped(state.clone()));
    }
    let tag = state.to_string();
    if site.held.listed.as_ref().is_some_and(|listed| listed.stamp.as_deref() != Some(&tag)) {
        course.steps.push(Step::TagStamp { volume: site.held.volume.clone(), state });
    }
    let record = SlotRecord {
        volume: site.held.volume.clone(),
        instance: site.me.instance.clone(),
        peer_url: url,
        member: Some(own.member),
    };
    let from = view.records.get(&site.held.slot);
    if from != Some(&record) {
        course.steps.push(Step::RecordSlot { slot: site.held.slot, from: from.cloned(), record });
    }
    if let Some(charter) = charter {
        copy_charter(site, view, charter, &mut course);
    }
    if let Some(charter) = charter.or(view.charter.as_ref()) {
        inventory::check(site.seen, view, charter, &mut course);
        backups::keep(site.settings, site.seen, (charter, view), own.member, &mut course);
    }
    let is_sound = corruption::heal(site, view, charter, own.member, &mut course)?;
    let holds_lock = is_sound && care::tend(site, view, own.member, &mut course);
    if let Some(stray) = stray_learner(view)
        && charter.is_some()
        && view.lock.as_ref().is_none_or(|holder| *holder == site.me.instance)
        && require_health(view, Some(stray), false, &course).is_ok()
    {
        course.steps.extend(remove_learner(site, view, stray));
    } else if view.lock.as_ref() == Some(&site.me.instance) && !holds_lock {
        course.steps.push(Step::ReleaseMembershipLock { instance: site.me.instance.clone() });
    }
    if view.leader == Some(own.member) {
        publish(site, view, &mut course);
    }
    Ok(course.done())
}

/// A learner catches up, gets its vote when it is in sync, and is dropped when it never is.
fn learner(
    site: &Site<'_>,
    view: &ClusterView,
    charter: Option<&Charter>,
    (id, in_sync): (MemberId, bool),
    course: &Course,
) -> Next<Plan> {
    match &view.lock {
        Some(holder) if *holder != site.me.instance => {
            return Err(course.wait(WaitingOn::MembershipLock { holder: holder.clone() }));
        }
        Some(_) | None => {}
    }
    if in_sync {
        require_health(view, None, true, course)?;
        return Err(course.act([lock(site), Step::PromoteMember { member: id }]));
    }
    let waited = super::evidence::waited(site.seen, |on| *on == WaitingOn::InSync);
    // Nobody is removed without a word of the charter.
    if waited > Some(SYNC_PATIENCE) && charter.is_some() {
        require_listed(site, course)?;
        let mut dropping = course.clone();
        dropping.steps.extend([lock(site), Step::RemoveMember { member: id }]);
        return Err(leave(site, "never-in-sync", &dropping)?);
    }
    Err(course.act_and_wait([lock(site)], WaitingOn::InSync))
}

fn copy_charter(site: &Site<'_>, view: &ClusterView, charter: &Charter, course: &mut Course) {
    warn_of_shared_zones(&charter.zones, course);
    // A quorum has answered, so a majority has started: a charter that does not say so yet was read
    // too early. Restored from such a copy it would allow another founding.
    if !charter.established() {
        return;
    }
    if view.charter.as_ref() != Some(charter) {
        course.steps.push(Step::CopyCharterToEtcd { charter: charter.clone() });
    }
    match &site.held.charter_copy {
        Fact::Known(Some(copy)) if copy == charter => {}
        Fact::Known(_) | Fact::Unknown(_) => {
            course.steps.push(Step::CopyCharterToVolume { charter: charter.clone() });
        }
    }
}

/// The leader's machine keeps the last-known members in S3.
fn publish(site: &Site<'_>, view: &ClusterView, course: &mut Course) {
    let Some((_, generation)) = site.held.stamp.state.life() else { return };
    let slots =
        view.records.iter().filter(|(_, r)| r.member.is_some()).map(|(s, r)| (*s, r.clone())).collect();
    let members = PublishedMembers { generation, slots };
    match &site.seen.published {
        Fact::Known(Some(published)) if *published == members => {}
        Fact::Known(_) => course.steps.push(Step::PublishMembers { members }),
        Fact::Unknown(why) => {
            course.warn(Warning::Answer { subject: Subject::Charter, why: why.clone() });
        }
    }
}
