//! Whether and how this machine's etcd starts, on what its volume remembers.
//!
//! The volume's stamp and the charter decide together:
//!
//! | stamp | charter | then |
//! |---|---|---|
//! | any, of an older generation | present | stop, set aside, stamp as formatted: follow |
//! | formatted | absent | found, if nothing tells of an earlier life |
//! | formatted | names this volume here, not started | stamp, mark, start as `new` |
//! | formatted | established otherwise | join as a learner |
//! | formatted | a recovery that names this volume here, not started | stamp, make the data |
//! | formatted | established, and nothing of that generation is left | recover from a backup ([`recovery`]) |
//! | starting, no data | a recovery, not started | make the data |
//! | starting, data | a recovery, not started | mark, start on the data |
//! | starting, no data | a recovery, started | wiped: it may have run, and is never made again |
//! | starting, no data | names this volume here | mark if needed, start as `new` |
//! | starting, no data | names it elsewhere, started | withdraw the mark; the volume never took part |
//! | starting, no data | names it elsewhere, not started | join as a learner, or found anew |
//! | starting, joining or member, data | same generation | start on the data, unless the cluster removed the member |
//! | joining or member, no data | same generation | wiped: replaced as a member |
//!
//! Without a word of the charter a member starts only when a quorum of its own cluster vouches
//! for it.

use crate::config::Settings;
use crate::model::charter::CharterChange;
use crate::model::machine::peer_url;
use crate::model::plan::Subject;
use crate::model::{
    Charter, ClusterUuid, ClusterView, DataDir, EtcdLaunch, EtcdVersion, Fact, Generation, Halt, Identity,
    LaunchState, MemberId, Observation, Phase, Plan, ServiceState, SlotRecord, StampState, Step, Versioned,
    WaitingOn, Warning,
};

use super::course::{Course, Next};
use super::disk::Held;
use super::evidence::waited;
use super::{corruption, founding, joining, recovery, takeover, upkeep};

/// How long, in milliseconds, a member whose address changed waits for a quorum to be told of the
/// new one, before it starts all the same: the quorum may be waiting for this very member.
const QUORUM_PATIENCE: i64 = 20_000;

/// How far apart, in milliseconds, founders start. A new member asks its peers for their members
/// before raft starts, and one that listens but does not serve yet costs a whole second.
const STAGGER: u64 = 120;

/// How long to wait, in milliseconds, before an etcd that ended by itself is started again.
const RESTART_AFTER: u64 = 1_000;

/// Everything that the decisions about the member look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    pub settings: &'a Settings,
    pub seen: &'a Observation,
    pub me: &'a Identity,
    pub held: &'a Held,
}

impl<'a> Site<'a> {
    /// The cluster's own word, if it is this generation's: by the charter's copy in etcd, or, while
    /// there is no copy yet, because this machine's own member belongs to it.
    pub fn view(&self, uuid: &ClusterUuid, generation: Generation) -> Option<&'a ClusterView> {
        let view = match &self.seen.etcd.cluster {
            Fact::Known(view) => view,
            Fact::Unknown(_) => return None,
        };
        let this = match &view.charter {
            Some(copy) => copy.uuid == *uuid && copy.generation == generation,
            None => {
                self.held.stamp.state.life() == Some((uuid, generation))
                    && self.seen.etcd.own.known().is_some_and(|own| view.members.contains_key(&own.member))
            }
        };
        this.then_some(view)
    }

    /// This machine's member in the view: by the stamp's id, or before there is one, by the slot's
    /// name, by its record, by its own word, or by the address that the charter gave to the founder.
    pub fn my_member(&self, view: &ClusterView, charter: Option<&Charter>) -> Option<MemberId> {
        match &self.held.stamp.state {
            StampState::Joining { member, .. } | StampState::Member { member, .. } => {
                view.members.contains_key(member).then_some(*member)
            }
            StampState::Formatted | StampState::Starting { .. } => {
                let name = self.held.slot.member_name();
                let founded_at = charter
                    .and_then(|charter| charter.founder(self.held.slot))
                    .map(|founder| &founder.peer_url);
                let recorded = view
                    .records
                    .get(&self.held.slot)
                    .filter(|record| record.volume == self.held.volume)
                    .and_then(|record| record.member);
                let running = self.seen.etcd.own.known().map(|own| own.member);
                view.members
                    .iter()
                    .find(|(id, member)| {
                        member.name == name
                            || [recorded, running].contains(&Some(**id))
                            || (!member.has_started()
                                && !member.learner
                                && founded_at.is_some_and(|url| member.peer_urls.contains(url)))
                    })
                    .map(|(id, _)| *id)
            }
        }
    }

    pub fn service<'s>(&'s self, course: &Course) -> Next<&'a ServiceState> {
        course.need(&self.seen.etcd.service, Subject::Service)
    }

    /// The steps that bring etcd up as `launch`: configured only if it is not so already.
    pub fn start(&self, launch: EtcdLaunch, after: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.seen.etcd.launch != Fact::Known(Some(launch.clone())) {
            steps.push(Step::ConfigureEtcd { launch });
        }
        steps.push(Step::StartEtcd { after });
        steps
    }
}

pub(super) fn decide(
    settings: &Settings,
    seen: &Observation,
    me: &Identity,
    held: &Held,
    mut course: Course,
) -> Next<Plan> {
    let site = Site { settings, seen, me, held };
    check_version(&site, &course)?;
    match &seen.charter {
        Fact::Unknown(why) => {
            course.warn(Warning::Answer { subject: Subject::Charter, why: why.clone() });
            let on = WaitingOn::Answer { about: Subject::Charter, why: why.clone() };
            without_charter(&site, course, on)
        }
        Fact::Known(None) => {
            if held.stamp.state.life().is_some() {
                course.warn(Warning::CharterLost);
            }
            founding::without_charter(&site, course)
        }
        Fact::Known(Some(charter)) => by_charter(&site, charter, course),
    }
}

fn check_version(site: &Site<'_>, course: &Course) -> Next<()> {
    // A running member is not disturbed by a program that can't be asked any more.
    if site.seen.etcd.own.is_known() {
        return Ok(());
    }
    let version = *course.need(&site.seen.etcd.version, Subject::EtcdVersion)?;
    if version < EtcdVersion::OLDEST || version >= EtcdVersion::TOO_NEW {
        return Err(course.halt(Halt::EtcdVersion {
            found: version.to_string(),
            expected: format!("{} or newer, before {}", EtcdVersion::OLDEST, EtcdVersion::TOO_NEW),
        }));
    }
    Ok(())
}

/// Nothing is known of the charter, or it is missing: only a member that its own quorum vouches
/// for goes on; one that runs is left running.
pub(super) fn without_charter(site: &Site<'_>, mut course: Course, otherwise: WaitingOn) -> Next<Plan> {
    let Some((uuid, generation)) = site.held.stamp.state.life() else {
        return Err(course.wait(otherwise));
    };
    if site.held.data != DataDir::Present {
        return Err(course.wait(otherwise));
    }
    let vouched =
        site.view(uuid, generation).filter(|view| site.my_member(view, view.charter.as_ref()).is_some());
    match (site.service(&course)?, vouched) {
        (ServiceState::Running, Some(view)) => upkeep::running(site, Some(view), None, course),
        (ServiceState::Running, None) => {
            course.phase = Phase::Returning;
            Err(course.wait(if site.seen.etcd.own.is_known() {
                WaitingOn::Quorum
            } else {
                WaitingOn::OwnEtcd
            }))
        }
        (ServiceState::Stopped | ServiceState::Failed(_), Some(view)) => {
            course.phase = Phase::Returning;
            let charter = view.charter.clone();
            on_data(site, uuid, generation, charter.as_ref(), course)
        }
        (ServiceState::Stopped | ServiceState::Failed(_), None) => Err(course.wait(otherwise)),
    }
}

fn by_charter(site: &Site<'_>, versioned: &Versioned<Charter>, mut course: Course) -> Next<Plan> {
    let charter = &versioned.value;
    let held = site.held;
    let Some((uuid, generation)) = held.stamp.state.life() else {
        return formatted(site, versioned, course);
    };
    if *uuid != charter.uuid {
        return Err(course.halt(Halt::WrongStamp {
            volume: held.volume.clone(),
            found: format!("cluster UUID {uuid}"),
            expected: format!("cluster UUID {}", charter.uuid),
        }));
    }
    if generation > charter.generation {
        return Err(course.halt(Halt::CharterBehind { charter: charter.generation, volume: generation }));
    }
    if generation < charter.generation {
        course.phase = founding_phase(charter);
        return Err(leave(site, &format!("generation-{generation}"), &course)?);
    }
    match (&held.stamp.state, held.data) {
        (StampState::Formatted, _) => formatted(site, versioned, course),
        (StampState::Starting { .. }, DataDir::Absent | DataDir::Unborn) => starting(site, versioned, course),
        (StampState::Starting { .. }, DataDir::Present) => {
            let founder = charter.founder(held.slot).filter(|founder| founder.volume == held.volume);
            if charter.recovery.is_some() && founder.is_some_and(|founder| founder.started.is_none()) {
                return restored(site, versioned, course);
            }
            if founder.is_none_or(|founder| founder.started.is_none()) {
                return Err(course.halt(Halt::Contradiction {
                    what: format!(
                        "the volume holds etcd data of generation {generation}, and the charter does not \
                         say that slot {} started with it",
                        held.slot
                    ),
                }));
            }
            on_data(site, &charter.uuid, generation, Some(charter), course)
        }
        (StampState::Joining { .. } | StampState::Member { .. }, DataDir::Present) => {
            on_data(site, &charter.uuid, generation, Some(charter), course)
        }
        (StampState::Joining { member, .. }, DataDir::Absent | DataDir::Unborn) => {
            course.phase = Phase::Joining;
            joining::resume(site, charter, *member, &course)
        }
        (StampState::Member { .. }, DataDir::Absent | DataDir::Unborn) => {
            course.phase = Phase::Joining;
            Err(leave(site, "wiped", &course)?)
        }
    }
}

/// Gives up what the volume remembers, which is no longer valid: etcd is stopped, its data renamed
/// aside, and the volume is as if just formatted. Its tag goes on telling of the life it had.
pub(super) fn leave(site: &Site<'_>, because: &str, course: &Course) -> Next<Box<Plan>> {
    require_listed(site, course)?;
    let mut steps = Vec::new();
    match site.service(course)? {
        ServiceState::Running => steps.push(Step::StopEtcd),
        ServiceState::Stopped | ServiceState::Failed(_) => {}
    }
    match site.held.data {
        DataDir::Absent => {}
        DataDir::Unborn | DataDir::Present => {
            steps.push(Step::SetDataAside { because: because.to_owned() });
        }
    }
    steps.push(site.held.stamped(StampState::Formatted));
    Ok(course.act(steps))
}

/// The volume never took part in this generation, or what it held was set aside.
fn formatted(site: &Site<'_>, versioned: &Versioned<Charter>, mut course: Course) -> Next<Plan> {
    let (charter, held) = (&versioned.value, site.held);
    if held.data != DataDir::Absent {
        return Err(course.halt(Halt::Contradiction {
            what: "the volume is stamped as formatted, and holds etcd data".to_owned(),
        }));
    }
    match site.service(&course)? {
        // Its data were set aside under it, or it was started by hand.
        ServiceState::Running => {
            require_listed(site, &course)?;
            return Err(course.act([Step::StopEtcd]));
        }
        ServiceState::Stopped | ServiceState::Failed(_) => {}
    }
    if takeover::is_elsewhere(site, charter) {
        return Err(takeover::let_go(site, &mut course)?);
    }
    if may_begin(site, charter, &course)? {
        course.phase = founding_phase(charter);
        let state = StampState::Starting { uuid: charter.uuid.clone(), generation: charter.generation };
        let mut steps =
            vec![held.stamped(state.clone()), Step::TagStamp { volume: held.volume.clone(), state }];
        steps.extend(begin(site, versioned, &course)?);
        return Err(course.act(steps));
    }
    if charter.established() {
        course.phase = Phase::Joining;
        return recovery::join_or_recover(site, versioned, &course);
    }
    course.phase = Phase::Founding;
    Err(founding::refound_or_wait(site, versioned, &course)?)
}

/// What the way from the charter to a quorum is called.
fn founding_phase(charter: &Charter) -> Phase {
    if charter.recovery.is_some() { Phase::Recovering } else { Phase::Founding }
}

/// What a founder does for the first time, when its stamp is written: it marks itself and starts etcd as `new`; or, in a
/// recovery, it makes the data, which are looked at again before anything else.
fn begin(site: &Site<'_>, versioned: &Versioned<Charter>, course: &Course) -> Next<Vec<Step>> {
    let charter = &versioned.value;
    match &charter.recovery {
        None => mark_and_start(site, versioned, course),
        Some(recovery) => {
            Ok(vec![Step::RestoreData { recovery: recovery.clone(), launch: first_launch(site, charter) }])
        }
    }
}

/// The data of a recovery are there, and nothing ever ran on them: the mark comes first, since it says that something
/// may have run.
fn restored(site: &Site<'_>, versioned: &Versioned<Charter>, mut course: Course) -> Next<Plan> {
    course.phase = Phase::Recovering;
    require_listed(site, &course)?;
    match site.service(&course)? {
        // It was started by hand.
        ServiceState::Running => return Err(course.act([Step::StopEtcd])),
        ServiceState::Stopped | ServiceState::Failed(_) => {}
    }
    let charter = &versioned.value;
    if charter.founder(site.held.slot).is_some_and(|founder| founder.peer_url == site.me.peer_url()) {
        return Err(course.act(mark_and_start(site, versioned, &course)?));
    }
    Err(founding::refound_or_wait(site, versioned, &course)?)
}

/// Whether this machine is a founder that may begin for the first time.
fn may_begin(site: &Site<'_>, charter: &Charter, course: &Course) -> Next<bool> {
    let held = site.held;
    let named = charter.founder(held.slot).is_some_and(|founder| {
        founder.volume == held.volume && founder.peer_url == site.me.peer_url() && founder.started.is_none()
    });
    // A cluster that runs and does not list this founder as not started has gone on without it.
    let awaited = match site.view(&charter.uuid, charter.generation) {
        Some(view) => site
            .my_member(view, Some(charter))
            .and_then(|id| view.members.get(&id))
            .is_some_and(|member| !member.has_started()),
        None => true,
    };
    if !named || !awaited {
        return Ok(false);
    }
    // A tag of this generation on a volume without its stamp: it was wiped. In a recovery nothing was lost with that:
    // who is not marked has run nothing.
    require_listed(site, course)?;
    Ok(held.listed.as_ref().is_some_and(|listed| {
        super::evidence::life_by_tag(listed.stamp.as_deref()).is_none_or(|generation| {
            generation < charter.generation
                || (charter.recovery.is_some() && generation == charter.generation)
        })
    }))
}

/// Goes on when EC2 lists this volume as held here. Only data that are there already, and stay, are
/// started without its word.
pub(super) fn require_listed(site: &Site<'_>, course: &Course) -> Next<()> {
    match &site.held.listed {
        Some(_) => Ok(()),
        None => Err(course.wait(WaitingOn::Answer {
            about: Subject::Volumes,
            why: "only a member's own data are started without EC2's word on the volume".to_owned(),
        })),
    }
}

/// Marks this founder in the charter, then starts etcd, as `new` or on what was restored: in this order, always.
fn mark_and_start(site: &Site<'_>, versioned: &Versioned<Charter>, course: &Course) -> Next<Vec<Step>> {
    let (charter, held) = (&versioned.value, site.held);
    let marked = charter
        .mark_started(held.slot, &held.volume, &site.me.peer_url(), site.seen.entropy.clone())
        .map_err(|refusal| course.halt(Halt::Contradiction { what: refusal.to_string() }))?;
    let after = STAGGER.saturating_mul(u64::try_from(charter.started()).unwrap_or(0));
    let mut steps = vec![Step::AmendCharter {
        from: versioned.etag.clone(),
        charter: marked,
        change: CharterChange::MarkStarted,
    }];
    steps.extend(site.start(first_launch(site, charter), after));
    Ok(steps)
}

/// As what a founder starts for the first time. It is `new` only where there never was anything.
fn first_launch(site: &Site<'_>, charter: &Charter) -> EtcdLaunch {
    EtcdLaunch {
        slot: site.held.slot,
        uuid: charter.uuid.clone(),
        generation: charter.generation,
        address: site.me.address,
        state: if charter.recovery.is_some() { LaunchState::Existing } else { LaunchState::New },
        initial_cluster: charter
            .founders
            .iter()
            .map(|founder| (founder.slot.member_name(), founder.peer_url.clone()))
            .collect(),
    }
}

/// Stamped as starting in the charter's generation, and etcd has no memory on it.
fn starting(site: &Site<'_>, versioned: &Versioned<Charter>, mut course: Course) -> Next<Plan> {
    let (charter, held) = (&versioned.value, site.held);
    course.phase = founding_phase(charter);
    match site.service(&course)? {
        ServiceState::Running => return Err(course.wait(WaitingOn::OwnEtcd)),
        ServiceState::Stopped | ServiceState::Failed(_) => {}
    }
    require_listed(site, &course)?;
    if held.data == DataDir::Unborn {
        return Err(course.act([Step::SetDataAside { because: "unborn".to_owned() }]));
    }
    let Some(founder) = charter.founder(held.slot).filter(|founder| founder.volume == held.volume) else {
        // It was stamped, and another founding overtook the mark.
        return Err(course.act([held.stamped(StampState::Formatted)]));
    };
    if let Some(view) = site.view(&charter.uuid, charter.generation) {
        let awaited = site
            .my_member(view, Some(charter))
            .and_then(|id| view.members.get(&id))
            .is_some_and(|member| !member.has_started());
        if !awaited {
            // Its member ran, or was removed: whatever it knew is gone, and it never starts as new.
            return Err(leave(site, "wiped", &course)?);
        }
    }
    let here = founder.peer_url == site.me.peer_url();
    match (here, founder.started) {
        // Its data were there before it was marked, and may have been written to since.
        (true | false, Some(_)) if charter.recovery.is_some() => Err(leave(site, "wiped", &course)?),
        (true, Some(_)) => Err(restart(site, site.start(first_launch(site, charter), 0), &course)?),
        (true, None) => {
            let mut steps = Vec::new();
            let (state, tag) = (held.stamp.state.clone(), held.stamp.state.to_string());
            if held.listed.as_ref().is_some_and(|listed| listed.stamp.as_deref() != Some(&tag)) {
                steps.push(Step::TagStamp { volume: held.volume.clone(), state });
            }
            steps.extend(begin(site, versioned, &course)?);
            Err(course.act(steps))
        }
        (false, Some(_)) => {
            let withdrawn = charter
                .withdraw(held.slot, &held.volume, &site.me.peer_url(), site.seen.entropy.clone())
                .map_err(|refusal| course.halt(Halt::Contradiction { what: refusal.to_string() }))?;
            Err(course.act([Step::AmendCharter {
                from: versioned.etag.clone(),
                charter: withdrawn,
                change: CharterChange::Withdraw,
            }]))
        }
        // It has no mark. The stamp stays until the volume joins or follows the next generation: a
        // mark that is still on its way, sent by the machine before this one, is then withdrawn.
        (false, None) if charter.established() => {
            course.phase = Phase::Joining;
            recovery::join_or_recover(site, versioned, &course)
        }
        (false, None) => Err(founding::refound_or_wait(site, versioned, &course)?),
    }
}

/// etcd has a memory on this volume, of the generation that is in force.
pub(super) fn on_data(
    site: &Site<'_>,
    uuid: &ClusterUuid,
    generation: Generation,
    charter: Option<&Charter>,
    mut course: Course,
) -> Next<Plan> {
    let view = site.view(uuid, generation);
    course.phase = Phase::Returning;
    if let Some(view) = view
        && site.my_member(view, charter).is_none()
    {
        return Err(leave(site, "removed", &course)?);
    }
    match site.service(&course)? {
        ServiceState::Running => {
            let founding = matches!(site.held.stamp.state, StampState::Starting { .. });
            course.phase = match charter {
                Some(charter) if founding => founding_phase(charter),
                None if founding => Phase::Founding,
                Some(_) | None => Phase::Returning,
            };
            upkeep::running(site, view, charter, course)
        }
        ServiceState::Stopped | ServiceState::Failed(_) => {
            if let Some(view) = view
                && charter.is_some()
                && site.my_member(view, charter).is_some_and(|id| corruption::is_condemned(site, view, id))
            {
                return Err(leave(site, "corrupt", &course)?);
            }
            let launch = EtcdLaunch {
                slot: site.held.slot,
                uuid: uuid.clone(),
                generation,
                address: site.me.address,
                state: LaunchState::Existing,
                initial_cluster: vec![(site.held.slot.member_name(), site.me.peer_url())],
            };
            let mut steps = Vec::new();
            if let Some((id, view)) = view.and_then(|view| Some((site.my_member(view, charter)?, view))) {
                let url = site.me.peer_url();
                if view.members.get(&id).is_some_and(|member| member.peer_urls != [url.clone()]) {
                    // A founder that has not published its name is known by its address alone: the
                    // record comes first, or it would be nobody's once the address has changed.
                    let record = SlotRecord {
                        volume: site.held.volume.clone(),
                        instance: site.me.instance.clone(),
                        peer_url: url.clone(),
                        member: Some(id),
                    };
                    let from = view.records.get(&site.held.slot);
                    if from != Some(&record) {
                        steps.push(Step::RecordSlot { slot: site.held.slot, from: from.cloned(), record });
                    }
                    steps.push(Step::UpdatePeerUrl { member: id, peer_url: url });
                }
            } else if !same_address(site, charter) && site.settings.etcd.size.slots() > 1 {
                let patient = waited(site.seen, |waiting| *waiting == WaitingOn::Quorum);
                if patient.is_none_or(|waited| waited < QUORUM_PATIENCE) {
                    return Err(course.wait(WaitingOn::Quorum));
                }
            }
            steps.extend(site.start(launch, 0));
            Err(restart(site, steps, &course)?)
        }
    }
}

/// Whether this machine is where the member's peers look for it, as far as can be told without
/// asking them.
fn same_address(site: &Site<'_>, charter: Option<&Charter>) -> bool {
    let launched = match &site.seen.etcd.launch {
        Fact::Known(Some(launch)) => peer_url(launch.address) == site.me.peer_url(),
        Fact::Known(None) | Fact::Unknown(_) => false,
    };
    let founded = charter
        .and_then(|charter| charter.founder(site.held.slot))
        .is_some_and(|founder| founder.volume == site.held.volume && founder.peer_url == site.me.peer_url());
    launched || founded
}

/// Starts etcd; after one that ended by itself, with a pause, and saying how it ended.
fn restart(site: &Site<'_>, mut steps: Vec<Step>, course: &Course) -> Next<Box<Plan>> {
    Ok(match site.service(course)? {
        ServiceState::Failed(how) => {
            for step in &mut steps {
                if let Step::StartEtcd { after } = step {
                    *after = RESTART_AFTER;
                }
            }
            course.act_and_wait(steps, WaitingOn::EtcdRestart { how: how.clone() })
        }
        ServiceState::Running | ServiceState::Stopped => course.act(steps),
    })
}
