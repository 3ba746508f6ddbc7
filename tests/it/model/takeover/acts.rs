//! What a step does to the world, as the executor, EC2 and etcd do it; and what must hold when a plan is taken up.
//!
//! A step that returns `false` failed and ends its plan.

use quorate::model::charter::CharterChange;
use quorate::model::*;

use super::super::tables::Id;
use super::mutations::Mutation;
use super::sight::{Look, Planner, machine_at, machine_number, volume_id, volume_place};
use super::world::{Disc, Flight, Life, MOVING, OTHER, Process, Record, VOTER, Voter, World, rule, zone_of};
use crate::planner::scene;

/// Whether a step touches nothing that another machine can see at once. What is done privately is done in one go with
/// what follows; a crash may still fall between any two steps.
pub fn is_private(step: &Step) -> bool {
    matches!(
        step,
        Step::WriteStamp { .. }
            | Step::SetDataAside { .. }
            | Step::ConfigureEtcd { .. }
            | Step::Format { .. }
            | Step::Mount { .. }
            | Step::Unmount
            | Step::CopyCharterToVolume { .. }
    )
}

fn member_number(id: MemberId) -> u8 {
    u8::try_from(id.0).unwrap()
}

impl Planner {
    /// Performs a step for a machine, which may be gone when it is a late request.
    pub fn perform(&self, world: &mut World, flight: Flight, late: bool) -> bool {
        let plan = self.tables.plans.get(flight.plan);
        let (me, step) = (flight.machine, &plan.steps[usize::from(flight.step)]);
        if !late
            && !is_private(step)
            && !world.reaches(me)
            && !matches!(step, Step::StartEtcd { .. } | Step::StopEtcd)
        {
            return false;
        }
        match step {
            Step::Format { .. }
            | Step::Mount { .. }
            | Step::Unmount
            | Step::WriteStamp { .. }
            | Step::SetDataAside { .. } => on_disk(self, world, me, step),
            Step::CopyCharterToVolume { .. }
            | Step::PublishMembers { .. }
            | Step::IssueLeaves { .. }
            | Step::GrowFilesystem { .. } => true,
            Step::CreateVolume { .. }
            | Step::AttachVolume { .. }
            | Step::TagStamp { .. }
            | Step::DetachVolume { .. } => self.ask_ec2(world, me, step),
            Step::ConfigureEtcd { launch } => {
                if launch.state == LaunchState::New {
                    world.broken |= rule::NEVER_NEW;
                }
                world.machine_mut(me).launch = Some(self.tables.launches.put(launch.clone()));
                true
            }
            Step::StartEtcd { .. } => self.start(world, me),
            Step::StopEtcd => {
                if me != VOTER {
                    world.machine_mut(me).etcd = Process::Off;
                }
                true
            }
            Step::AmendCharter { from, charter, .. } => {
                if world.charter.0.to_string() != from.as_str() {
                    if self.mutation != Some(Mutation::CharterWithoutCondition) {
                        return false;
                    }
                    world.broken |= rule::ONE_LINE;
                }
                if world.left.charters > 0 {
                    world.charter_before = Some(world.charter);
                }
                world.charter = (world.charter.0 + 1, self.tables.charters.put(charter.clone()));
                true
            }
            Step::TakeMembershipLock { .. }
            | Step::ReleaseMembershipLock { .. }
            | Step::RemoveMember { .. }
            | Step::AddLearner { .. }
            | Step::PromoteMember { .. }
            | Step::UpdatePeerUrl { .. }
            | Step::RecordSlot { .. }
            | Step::CopyCharterToEtcd { .. } => self.ask_etcd(world, me, step, late),
            _ => unreachable!("{step:?}"),
        }
    }

    fn ask_ec2(&self, world: &mut World, me: u8, step: &Step) -> bool {
        match step {
            Step::CreateVolume { zone, token, .. } => {
                let token = self.tables.tokens.put(token.clone());
                if world.volumes.iter().all(|volume| volume.token != token) {
                    world.ec2_changes();
                    let zone = (1..=3).find(|number| scene::zone(*number) == *zone).unwrap();
                    world.volumes.push(Disc {
                        zone,
                        token,
                        holder: None,
                        detaching: false,
                        formatted: false,
                        tag: None,
                        stamp: None,
                        data: None,
                    });
                }
                true
            }
            Step::AttachVolume { volume, .. } => {
                let place = volume_place(volume);
                if world.volumes[place].holder == Some(me) {
                    return true;
                }
                let fits = world.volumes[place].zone == zone_of(me) && world.held(me).is_none();
                if world.volumes[place].holder.is_some() || !fits || world.machine(me).life != Life::Running {
                    return false;
                }
                world.ec2_changes();
                world.volumes[place].holder = Some(me);
                true
            }
            Step::TagStamp { volume, state } => {
                if me == VOTER {
                    return true;
                }
                let tag = Some(self.tables.tags.put(state.to_string()));
                let place = volume_place(volume);
                if world.volumes[place].tag != tag {
                    world.ec2_changes();
                    world.volumes[place].tag = tag;
                }
                true
            }
            Step::DetachVolume { volume, .. } => {
                let place = volume_place(volume);
                if world.volumes[place].holder != Some(me) {
                    return true;
                }
                let listed = world.volumes[place].data.is_some_and(|id| world.member(id).is_some());
                if listed || world.machine(me).etcd == Process::Up || world.machine(me).mounted {
                    world.broken |= rule::LET_GO;
                }
                world.ec2_changes();
                world.volumes[place].detaching = true;
                true
            }
            _ => unreachable!("{step:?}"),
        }
    }

    /// etcd starts, and gets as far as its write-ahead log, or ends.
    fn start(&self, world: &mut World, me: u8) -> bool {
        let machine = world.machine(me);
        let (Some(launch), true, Some(place)) = (machine.launch, machine.mounted, world.held(me)) else {
            return false;
        };
        if machine.etcd == Process::Up {
            return true;
        }
        let launch = self.tables.launches.get(launch);
        if launch.state == LaunchState::New && world.volumes[place].data.is_none() {
            world.broken |= rule::NEVER_NEW;
        }
        let reaches = world.reaches(me);
        let up = match world.volumes[place].data {
            Some(id) => !reaches || world.member(id).is_some(),
            None => {
                let mine = world.members.iter_mut().find(|member| !member.started && member.at == me);
                match mine.filter(|_| reaches) {
                    None => false,
                    Some(member) => {
                        member.started = true;
                        world.volumes[place].data = Some(member.id);
                        true
                    }
                }
            }
        };
        world.machine_mut(me).etcd = if up { Process::Up } else { Process::Failed };
        true
    }

    fn ask_etcd(&self, world: &mut World, me: u8, step: &Step, late: bool) -> bool {
        match step {
            Step::TakeMembershipLock { .. } => {
                if world.lock.is_some_and(|holder| holder != me) {
                    return false;
                }
                world.lock = Some(me);
                true
            }
            Step::ReleaseMembershipLock { .. } => {
                world.lock = world.lock.filter(|holder| *holder != me);
                true
            }
            Step::RemoveMember { member } => {
                let id = member_number(*member);
                let proven = late || world.lock == Some(me);
                if proven {
                    world.members.retain(|member| member.id != id);
                }
                proven
            }
            Step::AddLearner { peer_url } => add(world, machine_at(peer_url), late || world.lock == Some(me)),
            Step::PromoteMember { member } => {
                let id = member_number(*member);
                let runs = world.runs(id).is_some();
                let proven = late || world.lock == Some(me);
                match world.members.iter_mut().find(|member| member.id == id) {
                    Some(member) if runs && proven => {
                        member.learner = false;
                        true
                    }
                    Some(_) | None => false,
                }
            }
            Step::UpdatePeerUrl { member, peer_url } => {
                let (id, at) = (member_number(*member), machine_at(peer_url));
                if world.members.iter().any(|member| member.at == at && member.id != id) {
                    return false;
                }
                match world.members.iter_mut().find(|member| member.id == id) {
                    Some(member) => {
                        member.at = at;
                        true
                    }
                    None => false,
                }
            }
            Step::RecordSlot { slot, from, record } => {
                if *slot != scene::slot(3) {
                    return true;
                }
                let is_read = from.as_ref().map(recorded) == Some(world.record);
                if is_read || self.mutation == Some(Mutation::RecordWithoutCondition) {
                    world.record = recorded(record);
                }
                world.record == recorded(record)
            }
            Step::CopyCharterToEtcd { charter } => {
                world.copy = self.tables.charters.put(charter.clone());
                true
            }
            _ => unreachable!("{step:?}"),
        }
    }

    /// What must hold when a plan is taken up, by the truth of that moment.
    pub fn check_plan(&self, world: &mut World, me: u8, plan: Id, look: Look) {
        let plan = self.tables.plans.get(plan);
        let current = !matches!(look, Look::OldCharter | Look::NoCharter);
        let mut broken = 0;
        let mut changes = 0;
        for step in &plan.steps {
            match step {
                Step::RemoveMember { member } => {
                    changes += 1;
                    let id = member_number(*member);
                    if [VOTER, OTHER].contains(&id) || !self.is_evident(world, me, id, look) {
                        broken |= rule::EVIDENCE;
                    }
                }
                Step::AddLearner { .. } | Step::PromoteMember { .. } => changes += 1,
                Step::AttachVolume { volume, .. } if current => {
                    let place = volume_place(volume);
                    if world.volumes[place].zone != self.slot_zone(world.charter.1) {
                        broken |= rule::PLACE;
                    }
                }
                Step::AmendCharter { charter, change, .. } if current => {
                    let old = self.tables.charters.get(world.charter.1);
                    if *change != CharterChange::MoveSlot || !self.may_move(world, me, charter, look) {
                        broken |= rule::MOVED;
                    }
                    let others = [1, 2].map(scene::slot);
                    let same = others.iter().all(|slot| old.zone_of(*slot) == charter.zone_of(*slot));
                    if !same || old.founders != charter.founders || old.generation != charter.generation {
                        broken |= rule::ONE_LINE;
                    }
                }
                _ => {}
            }
        }
        let locked = world.lock.is_some_and(|holder| holder != me);
        if changes > 1 || (changes > 0 && locked) {
            broken |= rule::ONE_AT_A_TIME;
        }
        let starts = plan.steps.iter().any(|step| matches!(step, Step::StartEtcd { .. }));
        let aside = plan.steps.iter().any(|step| matches!(step, Step::SetDataAside { .. }));
        let data = world.held(me).and_then(|place| world.volumes[place].data);
        let removed = data.is_some_and(|id| world.member(id).is_none());
        // Whoever can't reach the quorum can't know.
        if starts && !aside && removed && look != Look::NoCluster {
            broken |= rule::REMOVED_DATA;
        }
        world.broken |= broken;
    }

    /// Whether a member may be removed: EC2 says, and it is true, that its machine never runs again, and nobody who may
    /// run holds its volume; or it is a learner that never ran and that is nobody's, or one's own, or whose volume nobody
    /// holds.
    fn is_evident(&self, world: &World, me: u8, id: u8, look: Look) -> bool {
        let Some(member) = world.member(id) else { return true };
        let record = world.record;
        let recorded = match record.member {
            Some(recorded) => recorded == id,
            None => member.started || member.at == record.machine,
        };
        let holder = world.volumes[usize::from(record.volume)].holder.filter(|holder| *holder != me);
        // An old answer of EC2's does not know who has taken the volume since.
        let held = look != Look::Stale && holder.is_some_and(|holder| !world.never_runs_again(holder));
        if member.learner && !member.started && (!recorded || member.at == me || !held) {
            return true;
        }
        recorded && world.never_runs_again(record.machine) && !held && world.runs(id).is_none()
    }

    fn may_move(&self, world: &World, me: u8, charter: &Charter, look: Look) -> bool {
        let from = self.slot_zone(world.charter.1);
        let to = self.slot_zone(self.tables.charters.put(charter.clone()));
        let lives = world.members.iter().any(|member| world.runs(member.id).is_some());
        if to != zone_of(me) {
            return from == zone_of(me) && lives;
        }
        let spare = MOVING.into_iter().any(|number| {
            let free = world.machine(number).life == Life::Running && world.held(number).is_none();
            free && zone_of(number) == from
        });
        // A machine knows of itself that it has no volume to run a member on.
        let gone = world.never_runs_again(world.record.machine) || world.record.machine == me;
        gone && !lives && (look == Look::Stale || !spare)
    }
}

fn recorded(record: &SlotRecord) -> Record {
    Record {
        volume: u8::try_from(volume_place(&record.volume)).unwrap(),
        machine: machine_number(&record.instance),
        member: record.member.map(member_number),
    }
}

/// `member add --learner`: etcd takes one learner at a time, no address twice, and only while all voters are connected.
fn add(world: &mut World, at: u8, proven: bool) -> bool {
    if let Some(member) = world.members.iter().find(|member| member.at == at) {
        return member.learner && !member.started;
    }
    let well = world.members.iter().all(|member| !member.learner && world.runs(member.id).is_some());
    if !proven || !well {
        return false;
    }
    let id = world.next;
    world.next += 1;
    world.members.push(Voter { id, at, learner: true, started: false });
    true
}

fn on_disk(planner: &Planner, world: &mut World, me: u8, step: &Step) -> bool {
    // What the voters do to their own disks is nothing to this world.
    if me == VOTER {
        return true;
    }
    let runs = world.machine(me).etcd == Process::Up;
    let Some(place) = world.held(me) else { return false };
    match step {
        Step::Format { volume, .. } => {
            if world.volumes[place].formatted || *volume != volume_id(place) {
                world.broken |= rule::NEVER_NEW;
            }
            world.volumes[place].formatted = true;
            true
        }
        Step::Mount { .. } => {
            world.machine_mut(me).mounted = world.volumes[place].formatted;
            world.volumes[place].formatted
        }
        Step::Unmount => {
            world.machine_mut(me).mounted = runs;
            !runs
        }
        Step::WriteStamp { stamp } => {
            if !world.machine(me).mounted {
                return false;
            }
            world.volumes[place].stamp = Some(planner.tables.stamps.put(stamp.state.clone()));
            true
        }
        Step::SetDataAside { .. } => {
            if runs || !world.machine(me).mounted {
                return false;
            }
            if world.volumes[place].data.is_some_and(|id| world.member(id).is_some()) {
                world.broken |= rule::NOTHING_DESTROYED;
            }
            world.volumes[place].data = None;
            true
        }
        _ => unreachable!("{step:?}"),
    }
}
