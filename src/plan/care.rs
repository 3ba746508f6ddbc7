//! How etcd's databases are kept small enough: alarms for want of space, defragmentation, and the
//! watch on the quota.
//!
//! etcd holds the *file* against its quota. A file never shrinks by itself: compaction frees pages in
//! it, and defragmentation writes it anew without them. A member that reaches the quota raises
//! NOSPACE, and from then on nobody's writes are taken, the API server's own compaction included,
//! until the alarm is disarmed by somebody. So, while it is raised:
//!
//! 1. The leader's machine compacts to the present revision. Nothing is written meanwhile, so every
//!    watcher that is connected has caught up; one that reconnects to an older revision, and a list
//!    in pages, begin anew. A margin would keep, of all things, the versions that filled the file.
//! 2. Each member that has reached nine tenths and would come below it defragments itself, in the
//!    order of the members' ids and the leader last. There is no lock for it: a lock is a lease, and
//!    etcd grants none now. One that defragments serves nothing, and while anyone does not serve
//!    nobody begins.
//!    What would be left is taken from whichever member has the least in use: all hold the same, and
//!    one that has nothing to write does not count pages as free that a compaction freed.
//! 3. The leader's machine disarms the alarm when every member's file is below nine tenths.
//!
//! A member that does not answer holds this up, unless EC2 says that its instance is gone for good:
//! it could not be replaced before the alarm is disarmed.
//!
//! Otherwise a member is defragmented when it is worth it, under the lock on changes of membership,
//! with all voters healthy and no learner, and the leader only when no other wants it.

use crate::config::settings::EtcdSettings;
use crate::model::{AlarmKind, ClusterView, EtcdCare, Fact, MemberCare, MemberId, Step, Storage, Warning};

use super::course::Course;
use super::evidence::instance_gone;
use super::joining::lock;
use super::member::Site;

/// From so many percent of the quota on people are warned.
const NEAR: u64 = 80;
/// Below so many percent of the quota a member has room.
const ROOM: u64 = 90;
/// What is in use has to be below so many percent of the quota for defragmentation to make room: it
/// leaves a little more than what is in use.
const CAN_HAVE_ROOM: u64 = 85;
/// So many percent of the quota have to be free for a member near it to be defragmented.
const WORTH_IT: u64 = 10;

/// Looks after this machine's database and, on the leader's machine, the cluster's alarms. Whether
/// the lock on changes of membership is taken for it.
pub(super) fn tend(site: &Site<'_>, view: &ClusterView, me: MemberId, course: &mut Course) -> bool {
    let Fact::Known(care) = &site.seen.etcd.care else { return false };
    let kept = Kept { site, view, care, me };
    kept.watch(course);
    let Fact::Known(alarms) = &care.alarms else { return false };
    if alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) {
        kept.make_room(course);
        return false;
    }
    if alarms.is_empty() && kept.may_defragment() {
        course.steps.extend([lock(site), Step::Defragment { member: me }]);
        return true;
    }
    false
}

struct Kept<'a> {
    site: &'a Site<'a>,
    view: &'a ClusterView,
    care: &'a EtcdCare,
    me: MemberId,
}

impl Kept<'_> {
    fn etcd(&self) -> &EtcdSettings {
        &self.site.settings.etcd
    }

    fn leads(&self) -> bool {
        self.view.leader == Some(self.me)
    }

    /// In percent of the member's quota.
    fn share(&self, storage: &Storage, bytes: u64) -> u64 {
        bytes.saturating_mul(100) / self.quota(storage).max(1)
    }

    fn quota(&self, storage: &Storage) -> u64 {
        storage.quota.unwrap_or_else(|| self.etcd().quota.as_bytes())
    }

    fn watch(&self, course: &mut Course) {
        for (id, member) in &self.care.members {
            if let Fact::Known(storage) = &member.storage {
                let percent = self.share(storage, storage.size);
                if percent >= NEAR {
                    let quota = self.quota(storage);
                    course.warn(Warning::EtcdQuota { member: *id, percent, quota });
                }
            }
        }
    }

    /// Whether a member has so little room that it has to be defragmented for more, and would have it:
    /// `least` is what is in use of the least used.
    fn is_crowded(&self, storage: &Storage, least: u64) -> bool {
        self.share(storage, storage.size) >= ROOM && self.share(storage, least) < CAN_HAVE_ROOM
    }

    /// Whether a member is gone for good, by EC2's word on the instance that its slot's record names.
    fn is_gone(&self, id: MemberId, course: &Course) -> bool {
        self.view
            .records
            .values()
            .find(|record| record.member == Some(id))
            .is_some_and(|record| instance_gone(self.site.seen, course, &record.instance).is_ok())
    }

    /// The members that count: those that have run, and are not gone for good.
    fn counted<'b>(&'b self, course: &'b Course) -> impl Iterator<Item = (MemberId, Option<&'b MemberCare>)> {
        self.view
            .members
            .iter()
            .filter(|(id, member)| member.has_started() && !self.is_gone(**id, course))
            .map(|(id, _)| (*id, self.care.members.get(id)))
    }

    fn make_room(&self, course: &mut Course) {
        let (step, why) = self.next_room(course);
        course.warn(Warning::EtcdNoSpace { why });
        course.steps.extend(step);
    }

    fn next_room(&self, course: &Course) -> (Vec<Step>, String) {
        match self.care.history {
            Fact::Known(false) => {}
            Fact::Known(true) => {
                let step = Step::CompactEtcd { revision: self.care.revision };
                let steps = if self.leads() { vec![step] } else { Vec::new() };
                return (steps, "its history is compacted first, by the leader's machine".to_owned());
            }
            Fact::Unknown(ref why) => return (Vec::new(), format!("no answer about its history: {why}")),
        }
        let mut order: Vec<(bool, MemberId, &Storage)> = Vec::new();
        for (id, care) in self.counted(course) {
            let serves = care.is_some_and(|care| care.serves == Fact::Known(true));
            match care.map(|care| &care.storage) {
                Some(Fact::Known(storage)) if serves => {
                    order.push((self.view.leader == Some(id), id, storage));
                }
                Some(Fact::Known(_) | Fact::Unknown(_)) | None => {
                    return (
                        Vec::new(),
                        format!("member {id} does not serve, or is being defragmented: it comes first"),
                    );
                }
            }
        }
        order.sort_unstable_by_key(|(leads, id, _)| (*leads, *id));
        let least = order.iter().map(|(_, _, storage)| storage.in_use).min().unwrap_or(u64::MAX);
        if let Some((_, id, _)) = order.iter().find(|(_, _, storage)| self.is_crowded(storage, least)) {
            let mine = *id == self.me;
            let steps = if mine { vec![Step::Defragment { member: *id }] } else { Vec::new() };
            return (steps, format!("member {id} is defragmented next"));
        }
        let full = order.iter().find(|(_, _, storage)| self.share(storage, storage.size) >= ROOM);
        if let Some((_, id, storage)) = full {
            let used = self.share(storage, least);
            return (
                Vec::new(),
                format!(
                    "member {id} uses {used} % of its quota of {} MiB even without history, and {CAN_HAVE_ROOM} \
                     % is the most with which the alarm can be disarmed: delete what fills it (deletions are \
                     still taken), or raise `etcd.quota` and restart etcd, one machine at a time",
                    self.quota(storage) >> 20
                ),
            );
        }
        let alarms = self.care.alarms.known().into_iter().flatten();
        let steps = if self.leads() && !order.is_empty() {
            alarms
                .filter(|alarm| alarm.kind == AlarmKind::NoSpace)
                .map(|alarm| Step::DisarmAlarm { alarm: *alarm })
                .collect()
        } else {
            Vec::new()
        };
        (steps, "every member has room again, and the leader's machine disarms the alarm".to_owned())
    }

    /// Whether defragmenting a member is worth the time in which it serves nothing.
    fn is_worth_it(&self, storage: &Storage) -> bool {
        let free = storage.size.saturating_sub(storage.in_use);
        let wanted = &self.etcd().defragment;
        let is_hollow = free >= wanted.min_free.as_bytes()
            && free.saturating_mul(100) >= storage.size.saturating_mul(u64::from(wanted.min_share));
        let is_near = self.share(storage, storage.size) >= NEAR && self.share(storage, free) >= WORTH_IT;
        is_hollow || is_near
    }

    /// Whether it is this machine's member's turn, at full health.
    fn may_defragment(&self) -> bool {
        let storage = |id: &MemberId| match self.care.members.get(id).map(|member| &member.storage) {
            Some(Fact::Known(storage)) => Some(storage),
            Some(Fact::Unknown(_)) | None => None,
        };
        let is_healthy = self
            .view
            .members
            .values()
            .all(|member| !member.learner && member.has_started() && member.healthy == Fact::Known(true));
        let is_free = self.view.lock.as_ref().is_none_or(|holder| *holder == self.site.me.instance);
        // The leader comes when none of the others wants it, for all of whom that is known.
        let others_are_done = || {
            self.view
                .members
                .keys()
                .filter(|id| **id != self.me)
                .all(|id| storage(id).is_some_and(|storage| !self.is_worth_it(storage)))
        };
        is_healthy
            && is_free
            && self.view.leader.is_some()
            && storage(&self.me).is_some_and(|storage| self.is_worth_it(storage))
            && (!self.leads() || others_are_done())
    }
}
