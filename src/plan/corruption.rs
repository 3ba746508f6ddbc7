//! Members that hold different data: how that is found, and how one of them is replaced.
//!
//! The leader's machine compares the voters' hashes at an interval and keeps the last two results in
//! etcd, where every machine reads them with the cluster. A member is *condemned* when both, a minute
//! apart or more, say that a strict majority of the voters agrees, at the same compaction, and this
//! one differs. While etcd's own alarm CORRUPT is raised nothing can be kept in etcd: then the
//! machine of the member that the alarm names compares for itself, and keeps the result beside it.
//!
//! **A condemned member is replaced by its own machine**, which stops it and sets its data aside. It
//! keeps nothing then that it could start on, so it is a blank volume whose member is still listed,
//! and [`super::joining`] does the rest: it removes the member, under the lock and only with a healthy
//! quorum, and joins as a learner. That nobody is removed but on EC2's word is a rule about *others*,
//! of whom silence proves nothing. A machine that holds the slot's volume, and is the one that the
//! slot's record names, knows of itself that this member will never run again.
//!
//! Before it does so: every other voter needed for a quorum is healthy and of the majority that
//! agrees, nobody joins, and the lock is this machine's. With the alarm raised there is no lock, since
//! etcd grants no lease. Two members may then be fenced at once, and a majority is left all the same:
//! all that is fenced is outside it.
//!
//! Cut off after the stop, the next run finds the condemnation where it was kept, and does not start
//! the member again. Cut off after the data are set aside, it finds a volume without data.
//!
//! The alarm about it is disarmed by its machine, or its successor, right before the member is
//! removed, since there is no lock to remove it under before; one about a member that is not listed
//! any more, by the leader's machine. An alarm about nobody (0), and members without a majority that
//! agrees, are for people: this says so, and touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::charter::majority;
use crate::model::{
    Alarm, AlarmKind, Charter, ClusterView, Comparison, ComparisonPlace, Comparisons, Fact, MemberId, Phase,
    Step, Warning,
};

use super::course::{Course, Next};
use super::joining::{lock, require_health};
use super::member::{Site, leave, require_listed};

/// How far apart, in milliseconds, two comparisons are at least that confirm each other.
const APART: u64 = 60_000;
/// How soon, in milliseconds, a comparison is made anew that told nothing, or that nothing follows from.
const AGAIN: u64 = 600_000;

/// Below this revision the store is that of a cluster that was just made, and the first comparison
/// waits: the machines have more urgent things to do.
const YOUNG: i64 = 1_000;

/// What one comparison says of the voters.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// Too few gave a hash at the same compaction.
    Nothing,
    /// All are alike.
    Alike,
    /// A strict majority agrees, and these differ from it.
    Differ(BTreeSet<MemberId>),
    /// Some differ, and no majority agrees.
    Split,
}

fn judge(comparison: &Comparison, voters: &BTreeSet<MemberId>) -> Judged {
    let mut groups: BTreeMap<_, BTreeSet<MemberId>> = BTreeMap::new();
    for (id, hash) in comparison.hashes.iter().filter(|(id, _)| voters.contains(id)) {
        groups.entry(*hash).or_default().insert(*id);
    }
    let differs = |one| groups.keys().any(|other: &crate::model::StoreHash| is_other(one, other));
    let Some((agreed, members)) = groups.iter().find(|(_, members)| members.len() >= majority(voters.len()))
    else {
        return if groups.keys().any(differs) { Judged::Split } else { Judged::Nothing };
    };
    let others: BTreeSet<MemberId> = groups
        .iter()
        .filter(|(hash, _)| is_other(agreed, hash))
        .flat_map(|(_, members)| members.iter().copied())
        .collect();
    if !others.is_empty() {
        Judged::Differ(others)
    } else if members.len() == voters.len() {
        Judged::Alike
    } else {
        Judged::Nothing
    }
}

/// Whether two hashes can be compared and differ.
fn is_other(one: &crate::model::StoreHash, other: &crate::model::StoreHash) -> bool {
    one.compacted == other.compacted && one.hash != other.hash
}

/// The members that two comparisons, far enough apart, condemn.
fn condemned_by(compared: Option<&Comparisons>, voters: &BTreeSet<MemberId>) -> BTreeSet<MemberId> {
    let Some(Comparisons { last, before: Some(before) }) = compared else { return BTreeSet::new() };
    if last.at.abs_diff(before.at) < APART {
        return BTreeSet::new();
    }
    match (judge(last, voters), judge(before, voters)) {
        (Judged::Differ(last), Judged::Differ(before)) => last.intersection(&before).copied().collect(),
        (Judged::Differ(_) | Judged::Alike | Judged::Split | Judged::Nothing, _) => BTreeSet::new(),
    }
}

fn voters(view: &ClusterView) -> BTreeSet<MemberId> {
    view.members.iter().filter(|(_, member)| !member.learner).map(|(id, _)| *id).collect()
}

/// The comparisons that tell of a member: etcd's, and those that this machine kept.
fn comparisons<'a>(site: &Site<'a>) -> [Option<&'a Comparisons>; 2] {
    let etcd = site.seen.etcd.care.known().and_then(|care| care.compared.as_ref());
    let own = site.seen.etcd.notes.known().and_then(|notes| notes.compared.as_ref());
    [etcd, own]
}

/// Whether this machine's member, which does not run, was condemned, and must not run again.
pub(super) fn is_condemned(site: &Site<'_>, view: &ClusterView, me: MemberId) -> bool {
    let voters = voters(view);
    voters.contains(&me)
        && comparisons(site).into_iter().any(|compared| condemned_by(compared, &voters).contains(&me))
}

/// The steps that take back what is alleged of a member that is gone for good.
pub(super) fn disarm(site: &Site<'_>, gone: MemberId) -> Vec<Step> {
    let alarm = Alarm { member: gone, kind: AlarmKind::Corrupt };
    let alarms = site.seen.etcd.care.known().and_then(|care| care.alarms.known());
    if alarms.is_some_and(|alarms| alarms.contains(&alarm)) {
        vec![Step::DisarmAlarm { alarm }]
    } else {
        Vec::new()
    }
}

/// Looks for members that differ, and gives this machine's own up when it is condemned. Whether
/// nothing was found: while something is, nobody's database is touched for less.
pub(super) fn heal(
    site: &Site<'_>,
    view: &ClusterView,
    charter: Option<&Charter>,
    me: MemberId,
    course: &mut Course,
) -> Next<bool> {
    let Fact::Known(care) = &site.seen.etcd.care else { return Ok(false) };
    let Fact::Known(alarms) = &care.alarms else { return Ok(false) };
    let alarmed: BTreeSet<MemberId> =
        alarms.iter().filter(|alarm| alarm.kind == AlarmKind::Corrupt).map(|alarm| alarm.member).collect();
    if !alarmed.is_empty() {
        alarm(site, view, charter, me, &alarmed, course)?;
        return Ok(false);
    }
    let voters = voters(view);
    let condemned = condemned_by(care.compared.as_ref(), &voters);
    if condemned.contains(&me) {
        let why = fence(site, view, charter, me, &condemned, Some(lock(site)), course)?;
        course.warn(Warning::EtcdCorrupt { members: vec![me], why });
        return Ok(false);
    }
    if voters.len() < 2 {
        return Ok(true);
    }
    let interval = site.settings.etcd.hash_interval.as_millis();
    let last = care.compared.as_ref().map(|compared| &compared.last);
    let judged = last.map(|last| judge(last, &voters));
    let after = match &judged {
        Some(Judged::Alike) => interval,
        Some(Judged::Differ(_)) if !condemned.is_empty() => interval,
        Some(Judged::Differ(_)) => APART,
        Some(Judged::Nothing | Judged::Split) => interval.min(AGAIN),
        None => 0,
    };
    let is_due = last.map_or(care.revision >= YOUNG, |last| site.seen.at.abs_diff(last.at) >= after);
    let is_healthy = view.members.values().all(|member| member.healthy == Fact::Known(true));
    if is_due && is_healthy && alarms.is_empty() && view.leader == Some(me) {
        course.steps.push(Step::CompareHashes { keep: ComparisonPlace::Etcd });
    }
    Ok(match judged {
        None | Some(Judged::Nothing | Judged::Alike) => true,
        Some(Judged::Differ(members)) => {
            let why = if condemned.is_empty() {
                "their hashes did once; they are compared again before anything is done".to_owned()
            } else {
                "their hashes did twice; its own machine replaces it when the others are healthy".to_owned()
            };
            course.warn(Warning::EtcdCorrupt { members: members.into_iter().collect(), why });
            false
        }
        Some(Judged::Split) => {
            course.warn(Warning::EtcdCorrupt { members: Vec::new(), why: no_majority() });
            false
        }
    })
}

fn no_majority() -> String {
    "their hashes differ, and no majority of them agrees: nothing is changed; find out which of them is right \
     (`etcdctl endpoint hashkv --cluster`), or restore a backup"
        .to_owned()
}

/// etcd's own alarm is raised: no member takes writes.
fn alarm(
    site: &Site<'_>,
    view: &ClusterView,
    charter: Option<&Charter>,
    me: MemberId,
    alarmed: &BTreeSet<MemberId>,
    course: &mut Course,
) -> Next<()> {
    let warning = |why: String| Warning::EtcdCorrupt {
        members: alarmed.iter().copied().filter(|id| id.0 != 0).collect(),
        why: format!("etcd's alarm CORRUPT is raised, and nothing can be written: {why}"),
    };
    let gone: Vec<MemberId> =
        alarmed.iter().copied().filter(|id| id.0 != 0 && !view.members.contains_key(id)).collect();
    if !gone.is_empty() {
        if view.leader == Some(me) {
            course.steps.extend(gone.iter().flat_map(|id| disarm(site, *id)));
        }
        course.warn(warning("the member is gone, and the leader's machine disarms the alarm".to_owned()));
        return Ok(());
    }
    if !alarmed.contains(&me) {
        let why = if alarmed.iter().any(|id| id.0 == 0) {
            "it names no member; compare the hashes (`etcdctl endpoint hashkv --cluster`), and disarm it only \
             when it is known which data are right"
        } else {
            "the member's own machine compares the hashes, and replaces it when a majority agrees"
        };
        course.warn(warning(why.to_owned()));
        return Ok(());
    }
    let Fact::Known(notes) = &site.seen.etcd.notes else {
        course.warn(warning("it is not known what this machine noted about it".to_owned()));
        return Ok(());
    };
    let voters = voters(view);
    let condemned = condemned_by(notes.compared.as_ref(), &voters);
    if condemned.contains(&me) {
        let why = fence(site, view, charter, me, &condemned, None, course)?;
        course.warn(warning(why));
        return Ok(());
    }
    let last = notes.compared.as_ref().map(|compared| &compared.last);
    let (after, why) = match last.map(|last| judge(last, &voters)) {
        None | Some(Judged::Nothing | Judged::Differ(_)) => {
            (APART, "this machine compares the members' hashes".to_owned())
        }
        Some(Judged::Alike) => (
            AGAIN,
            "the members' hashes are alike: disarm it (`etcdctl alarm disarm`) when it is known why it was raised"
                .to_owned(),
        ),
        Some(Judged::Split) => (AGAIN, no_majority()),
    };
    if last.is_none_or(|last| site.seen.at.abs_diff(last.at) >= after) {
        course.steps.clear();
        course.steps.push(Step::CompareHashes { keep: ComparisonPlace::Machine });
    }
    course.warn(warning(why));
    Ok(())
}

/// Gives this machine's member up, or says what hinders that.
fn fence(
    site: &Site<'_>,
    view: &ClusterView,
    charter: Option<&Charter>,
    me: MemberId,
    condemned: &BTreeSet<MemberId>,
    lock: Option<Step>,
    course: &Course,
) -> Next<String> {
    let is_sound = |id: &MemberId| {
        !condemned.contains(id) && view.members.get(id).is_some_and(|m| m.healthy == Fact::Known(true))
    };
    let voters = voters(view);
    let sound = voters.iter().filter(|id| is_sound(id)).count();
    let hindrance = if charter.is_none() {
        "without the charter's word nobody leaves: it is replaced when charter.json is back"
    } else if require_listed(site, course).is_err() {
        "it is replaced when EC2 has said that this volume is held here"
    } else if view.members.values().any(|member| member.learner) {
        "it is replaced when the member that joins has its vote"
    } else if view.lock.as_ref().is_some_and(|holder| *holder != site.me.instance) {
        "it is replaced when another machine has finished its change of membership"
    } else if sound < majority(voters.len()) || require_health(view, Some(me), false, course).is_err() {
        "it is replaced when enough of the members that agree are healthy"
    } else {
        let mut fencing = course.clone();
        fencing.phase = Phase::Joining;
        // What was planned before would be written to etcd, for a member that is given up.
        fencing.steps = lock.into_iter().collect();
        fencing.warn(Warning::EtcdCorrupt {
            members: vec![me],
            why: "a majority agrees without it: its data are set aside, and it joins anew".to_owned(),
        });
        return Err(leave(site, "corrupt", &fencing)?);
    };
    Ok(hindrance.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StoreHash;

    /// Member, compaction and hash.
    type Hashes<'a> = &'a [(u64, i64, u32)];

    fn comparison(at: i64, hashes: Hashes<'_>) -> Comparison {
        let hashes = hashes
            .iter()
            .map(|(id, compacted, hash)| (MemberId(*id), StoreHash { compacted: *compacted, hash: *hash }))
            .collect();
        Comparison { at, revision: 9, hashes }
    }

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn only_a_strict_majority_of_the_voters_at_one_compaction_tells_who_differs() {
        let three = ids(&[1, 2, 3]);
        let table: [(Hashes<'_>, Judged); 9] = [
            (&[(1, 5, 7), (2, 5, 7), (3, 5, 7)], Judged::Alike),
            (&[(1, 5, 7), (2, 5, 7), (3, 5, 8)], Judged::Differ(ids(&[3]))),
            (&[(1, 5, 7), (2, 5, 7), (3, 4, 8)], Judged::Nothing),
            (&[(1, 5, 7), (2, 5, 7)], Judged::Nothing),
            (&[(1, 5, 7), (2, 5, 8)], Judged::Split),
            (&[(1, 5, 7), (2, 5, 8), (3, 5, 9)], Judged::Split),
            (&[(1, 5, 7), (2, 4, 8), (3, 3, 9)], Judged::Nothing),
            (&[], Judged::Nothing),
            // Who has no vote has none here.
            (&[(1, 5, 7), (2, 5, 8), (4, 5, 8)], Judged::Split),
        ];
        for (hashes, judged) in table {
            assert_eq!(judge(&comparison(0, hashes), &three), judged, "{hashes:?}");
        }
        let five = ids(&[1, 2, 3, 4, 5]);
        let hashes = [(1, 5, 7), (2, 5, 7), (3, 5, 7), (4, 5, 8), (5, 5, 9)];
        assert_eq!(judge(&comparison(0, &hashes), &five), Judged::Differ(ids(&[4, 5])));
        assert_eq!(judge(&comparison(0, &hashes[1..]), &five), Judged::Split);
    }

    #[test]
    fn one_comparison_condemns_nobody_nor_do_two_at_once() {
        let three = ids(&[1, 2, 3]);
        let differs = |at| comparison(at, &[(1, 5, 7), (2, 5, 7), (3, 5, 8)]);
        let alike = comparison(0, &[(1, 5, 7), (2, 5, 7), (3, 5, 7)]);
        let two = |before, last| Comparisons { last, before };
        for compared in
            [two(None, differs(0)), two(Some(alike), differs(60_000)), two(Some(differs(1)), differs(60_000))]
        {
            assert_eq!(condemned_by(Some(&compared), &three), ids(&[]), "{compared:?}");
        }
        let twice = two(Some(differs(0)), differs(60_000));
        assert_eq!(condemned_by(Some(&twice), &three), ids(&[3]));
    }
}
