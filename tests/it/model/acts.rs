//! What a step does to the world, as the executor and etcd do it.
//!
//! A step that returns `false` failed and ends its plan.

use quorate::model::charter::{CharterChange, Founder};
use quorate::model::*;

use super::mutations::Mutation;
use super::sight::{self, Planner, address_number, numbers};
use super::tables::Id;
use super::world::{Data, Flight, Lineage, Process, Record, SLOTS, Voter, World, majority, rule};

/// Whether a step touches nothing that another machine can see at once. What is done privately is
/// done in one go with what follows; a crash may still fall between any two steps.
pub fn is_private(step: &Step) -> bool {
    matches!(
        step,
        Step::WriteStamp { .. }
            | Step::SetDataAside { .. }
            | Step::ConfigureEtcd { .. }
            | Step::StartEtcd { .. }
            | Step::CopyCharterToVolume { .. }
            | Step::ChooseBackup { .. }
            | Step::RestoreData { .. }
    )
}

/// Whether a step only writes down what is so already.
pub fn is_upkeep(step: &Step) -> bool {
    match step {
        Step::WriteStamp { stamp } => matches!(stamp.state, StampState::Member { .. }),
        Step::TagStamp { state, .. } => matches!(state, StampState::Member { .. }),
        Step::RecordSlot { record, .. } => record.member.is_some(),
        Step::CopyCharterToEtcd { .. }
        | Step::CopyCharterToVolume { .. }
        | Step::ReleaseMembershipLock { .. } => true,
        _ => false,
    }
}

/// Whether the request of a step can go on its way and arrive after its sender has given up.
pub fn can_be_late(step: &Step) -> bool {
    matches!(
        step,
        Step::CreateCharter { .. }
            | Step::AmendCharter { .. }
            | Step::RemoveMember { .. }
            | Step::AddLearner { .. }
            | Step::PromoteMember { .. }
            | Step::UpdatePeerUrl { .. }
    )
}

impl Planner {
    /// Performs a step for a machine of a place, which may be gone when it is a late request.
    pub fn perform(&self, world: &mut World, flight: Flight) -> bool {
        let plan = self.tables.plans.get(flight.plan);
        let slot = usize::from(flight.slot);
        match &plan.steps[usize::from(flight.step)] {
            Step::WriteStamp { stamp } => {
                world.places[slot].stamp = Some(self.tables.stamps.put(stamp.state.clone()));
                true
            }
            Step::TagStamp { state, .. } => {
                let tag = Some(self.tables.tags.put(state.to_string()));
                if world.places[slot].tag != tag {
                    world.ec2_changes();
                    world.places[slot].tag = tag;
                }
                true
            }
            Step::SetDataAside { .. } => {
                self.check_set_aside(world, slot);
                if let Some(data) = world.places[slot].data.take() {
                    world.places[slot].aside = world.lineages[usize::from(data.lineage)].generation;
                }
                true
            }
            Step::ConfigureEtcd { launch } => {
                world.places[slot].launch = Some(self.tables.launches.put(launch.clone()));
                true
            }
            Step::StartEtcd { .. } => {
                let place = &mut world.places[slot];
                if matches!(place.etcd, Process::Off | Process::Failed) {
                    place.etcd = Process::Launched;
                }
                place.launch.is_some()
            }
            Step::StopEtcd => {
                world.places[slot].etcd = Process::Off;
                true
            }
            Step::ChooseBackup { generation, .. } => {
                world.places[slot].chosen = u8::try_from(generation.0).unwrap();
                world.backup
            }
            Step::RestoreData { recovery, launch, .. } => self.restore(world, slot, recovery, launch),
            Step::CopyCharterToVolume { charter } => {
                world.places[slot].copy = Some(self.tables.charters.put(charter.clone()));
                true
            }
            Step::CreateCharter { charter } => self.create_charter(world, charter),
            Step::AmendCharter { from, charter, change } => {
                let current = world.charter.map(|(version, _)| version.to_string());
                if current.as_deref() != Some(from.as_str())
                    && self.mutation != Some(Mutation::CharterWithoutCondition)
                {
                    return false;
                }
                check_generation(world, charter, *change);
                self.write_charter(world, charter);
                true
            }
            Step::TakeMembershipLock { .. }
            | Step::ReleaseMembershipLock { .. }
            | Step::RemoveMember { .. }
            | Step::AddLearner { .. }
            | Step::PromoteMember { .. }
            | Step::UpdatePeerUrl { .. }
            | Step::RecordSlot { .. }
            | Step::CopyCharterToEtcd { .. } => {
                self.ask_etcd(world, flight, &plan.steps[usize::from(flight.step)])
            }
            Step::PublishMembers { .. } | Step::GrowFilesystem { .. } | Step::IssueLeaves { .. } => true,
            // By a stale listing: the volume is here already, or it is gone.
            Step::AttachVolume { volume, .. } => {
                *volume == sight::volume(flight.slot, world.places[slot].volume)
            }
            Step::CreateVolume { .. }
            | Step::TagSlot { .. }
            | Step::Format { .. }
            | Step::Mount { .. }
            | Step::CreateAuthority => unreachable!("the volume is mounted and the authority there"),
            Step::CreateClusterAuthorities
            | Step::RecordClusterAuthorities { .. }
            | Step::IssueClusterLeaves { .. }
            | Step::WriteKubernetesFiles { .. }
            | Step::WriteBootstrapKubeconfig { .. }
            | Step::SetNodeIdentityAside { .. }
            | Step::RollOut { .. }
            | Step::KeepManifest { .. }
            | Step::RollBack { .. }
            | Step::TakeControlPlaneLock { .. }
            | Step::ReleaseControlPlaneLock { .. }
            | Step::RegisterTarget { .. }
            | Step::TakeApiLease { .. }
            | Step::RenewApiLease { .. }
            | Step::KeepBackups { .. }
            | Step::ApplyAddon { .. }
            | Step::PruneAddon { .. }
            | Step::PublishJoin { .. }
            | Step::ApproveRequests { .. }
            | Step::LeaveRequests { .. }
            | Step::TellSharedZone { .. }
            | Step::DeleteNode { .. }
            | Step::ApplyObjects { .. }
            | Step::ConfigureContainerd { .. }
            | Step::StartService { .. }
            | Step::RestartService { .. }
            | Step::ReloadLogind { .. } => unreachable!("there is no Kubernetes"),
            Step::WriteLogindFile { .. } | Step::ReleaseShutdown => unreachable!("there is no logind"),
            Step::BeginDeparture { .. }
            | Step::EndDeparture
            | Step::KeepControlPlaneLock { .. }
            | Step::DeregisterTarget { .. }
            | Step::CordonNode { .. }
            | Step::ReopenNode { .. }
            | Step::EvictPods { .. }
            | Step::MoveLeader { .. }
            | Step::MarkNodeLeft { .. }
            | Step::WithdrawManifests { .. }
            | Step::StopService { .. }
            | Step::Unmount
            | Step::DetachVolume { .. }
            | Step::SendHeartbeat { .. }
            | Step::CompleteHook { .. } => unreachable!("nobody leaves, and no hook holds anybody"),
            Step::CompactEtcd { .. }
            | Step::Defragment { .. }
            | Step::DisarmAlarm { .. }
            | Step::CompareHashes { .. }
            | Step::NoteWedge { .. }
            | Step::GiveUpInstance { .. } => unreachable!("how members are kept is not known here"),
        }
    }

    fn create_charter(&self, world: &mut World, charter: &Charter) -> bool {
        if world.charter.is_some() && self.mutation != Some(Mutation::CharterWithoutCondition) {
            return false;
        }
        let other = |lineage: &Lineage| self.tables.keys.get(lineage.key).0 != charter.uuid;
        if world.lineages.iter().any(|lineage| lineage.formed && other(lineage)) {
            world.broken |= rule::ONE_CLUSTER;
        }
        self.write_charter(world, charter);
        true
    }

    /// The data directory is made, unless there is one.
    fn restore(&self, world: &mut World, slot: usize, recovery: &Recovery, launch: &EtcdLaunch) -> bool {
        let generation = u8::try_from(launch.generation.0).unwrap();
        let number = u8::try_from(slot).unwrap();
        let place = &world.places[slot];
        if place.data.is_some() {
            return true;
        }
        if place.ran == generation {
            world.broken |= rule::MEMORY;
        }
        let there = match recovery {
            Recovery::Backup { .. } => world.backup,
            Recovery::Survivor { volume, generation } => {
                *volume == sight::volume(number, place.volume) && u64::from(place.aside) == generation.0
            }
        };
        if !there || matches!(place.etcd, Process::Launched | Process::Up) {
            return false;
        }
        let key =
            self.tables.keys.put((launch.uuid.clone(), launch.generation, launch.initial_cluster.clone()));
        let index = world.lineages.iter().position(|lineage| lineage.key == key).unwrap_or_else(|| {
            let member = Voter {
                id: number,
                slot: number,
                address: address_number(&launch.initial_cluster[0].1),
                learner: false,
                started: false,
                volume: place.volume,
                machine: place.machine,
            };
            world.lineages.push(Lineage {
                key,
                generation,
                restored: true,
                formed: false,
                members: vec![member],
                next: 8,
                records: [None; SLOTS],
                lock: None,
                copy: None,
                acknowledged: 0,
            });
            world.lineages.len() - 1
        });
        let data = Data { lineage: index_u8(index), member: number, fresh: true, revision: 0 };
        world.places[slot].data = Some(data);
        true
    }

    /// An operator's command, on the machine of a slot: its data, or a backup, are what the cluster goes on with.
    pub fn command(&self, world: &mut World, slot: usize, survivor: bool) -> Option<()> {
        let place = &world.places[slot];
        let number = u8::try_from(slot).unwrap();
        let (version, charter) = world.charter?;
        let charter = self.tables.charters.get(charter);
        let volume = sight::volume(number, place.volume);
        let recovery = if survivor {
            let generation = world.lineages[usize::from(place.data?.lineage)].generation;
            Recovery::Survivor { volume: volume.clone(), generation: Generation(u64::from(generation)) }
        } else {
            Recovery::Backup { point: sight::point() }
        };
        let founder = Founder {
            slot: sight::slot_of(number),
            volume,
            instance: sight::instance(number, place.machine),
            peer_url: quorate::model::machine::peer_url(sight::address(place.address)),
            started: None,
        };
        let next = charter.recover(founder, recovery, format!("operator-{version}").parse().unwrap()).ok()?;
        world.given_up = u8::try_from(charter.generation.0).unwrap();
        self.write_charter(world, &next);
        Some(())
    }

    fn write_charter(&self, world: &mut World, charter: &Charter) {
        world.versions += 1;
        world.charter = Some((world.versions, self.tables.charters.put(charter.clone())));
    }

    fn check_set_aside(&self, world: &mut World, slot: usize) {
        if let Some(data) = world.places[slot].data {
            let lineage = &world.lineages[usize::from(data.lineage)];
            let charter = world.charter.map(|(_, id)| self.tables.charters.get(id).generation.0);
            let followed = charter.is_some_and(|generation| generation > u64::from(lineage.generation));
            if lineage.formed && !followed && lineage.members.iter().any(|member| member.id == data.member) {
                world.broken |= rule::NOTHING_DESTROYED;
            }
        }
    }

    /// The cluster that takes a request.
    pub fn heard_by(&self, world: &World, flight: Flight) -> Option<usize> {
        let slot = usize::from(flight.slot);
        let index = match flight.to {
            Some(to) => Some(usize::from(to)).filter(|index| world.quorum(*index)),
            None => world.answering_to(self.expected(world, slot, true)),
        };
        index.filter(|_| world.cut != Some(flight.slot))
    }

    fn ask_etcd(&self, world: &mut World, flight: Flight, step: &Step) -> bool {
        let me = (flight.slot, flight.machine);
        let Some(index) = self.heard_by(world, flight) else { return false };
        // A change of membership proves first that its sender has the lock; one that is late has done so.
        if is_change(step) && flight.to.is_none() && world.lineages[index].lock != Some(me) {
            return false;
        }
        match step {
            Step::TakeMembershipLock { .. } => {
                let lock = &mut world.lineages[index].lock;
                if lock.is_some_and(|holder| holder != me) {
                    return false;
                }
                *lock = Some(me);
                true
            }
            Step::ReleaseMembershipLock { .. } => {
                let lock = &mut world.lineages[index].lock;
                if *lock == Some(me) {
                    *lock = None;
                }
                true
            }
            Step::RemoveMember { member } => remove(world, index, me, *member),
            Step::AddLearner { peer_url } => add(world, index, me, address_number(peer_url)),
            Step::PromoteMember { member } => promote(world, index, *member),
            Step::UpdatePeerUrl { member, peer_url } => {
                let address = address_number(peer_url);
                let members = &mut world.lineages[index].members;
                if members
                    .iter()
                    .any(|m| m.address == address && sight::member(index_u8(index), m.id) != *member)
                {
                    return false;
                }
                let Some(found) =
                    members.iter_mut().find(|m| sight::member(index_u8(index), m.id) == *member)
                else {
                    return false;
                };
                found.address = address;
                true
            }
            Step::RecordSlot { slot, from, record } => {
                let found = &mut world.lineages[index].records[usize::from(slot.number()) - 1];
                let wanted = Some(recorded(record));
                let is_read = *found == from.as_ref().map(recorded);
                if is_read {
                    *found = wanted;
                }
                *found == wanted
            }
            Step::CopyCharterToEtcd { charter } => {
                world.lineages[index].copy = Some(self.tables.charters.put(charter.clone()));
                true
            }
            _ => unreachable!("{step:?}"),
        }
    }

    /// etcd's process gets as far as its write-ahead log, or ends.
    pub fn boot(&self, world: &mut World, slot: usize) {
        let place = &world.places[slot];
        let launch = self.tables.launches.get(place.launch.unwrap());
        let process = match (place.data, launch.state) {
            (Some(data), _) => {
                let index = usize::from(data.lineage);
                let lineage = &world.lineages[index];
                let member = lineage.members.iter().any(|member| member.id == data.member);
                let (up, generation) = (member || !world.quorum(index), lineage.generation);
                if up {
                    world.places[slot].ran = generation;
                }
                if up { Process::Up } else { Process::Failed }
            }
            (None, LaunchState::New) => self.boot_new(world, slot, &launch),
            (None, LaunchState::Existing) => boot_existing(world, slot, &launch),
        };
        world.places[slot].etcd = process;
        let broken = world.places[slot].data.is_none() && process == Process::Up;
        assert!(!broken, "a member that runs has data");
    }

    fn boot_new(&self, world: &mut World, slot: usize, launch: &EtcdLaunch) -> Process {
        let key =
            self.tables.keys.put((launch.uuid.clone(), launch.generation, launch.initial_cluster.clone()));
        let generation = u8::try_from(launch.generation.0).unwrap();
        let known = world.lineages.iter().position(|lineage| lineage.key == key);
        if known.is_none() && world.lineages.iter().any(|other| other.formed && other.generation < generation)
        {
            world.broken |= rule::EMPTY;
        }
        let index = known.unwrap_or_else(|| {
            let charter = world.charter.map(|(_, id)| self.tables.charters.get(id));
            let members = launch
                .initial_cluster
                .iter()
                .map(|(name, url)| {
                    let slot = name.strip_prefix("etcd-").unwrap().parse::<u8>().unwrap() - 1;
                    let founder = charter.as_ref().and_then(|charter| charter.founder(sight::slot_of(slot)));
                    let place = &world.places[usize::from(slot)];
                    Voter {
                        id: slot,
                        slot,
                        address: address_number(url),
                        learner: false,
                        started: false,
                        volume: founder.map_or(place.volume, |f| numbers(f.volume.as_str()).1),
                        machine: founder.map_or(place.machine, |f| numbers(f.instance.as_str()).1),
                    }
                })
                .collect();
            world.lineages.push(Lineage {
                key,
                generation,
                restored: false,
                formed: false,
                members,
                next: 8,
                records: [None; SLOTS],
                lock: None,
                copy: None,
                acknowledged: 0,
            });
            world.lineages.len() - 1
        });
        let member = u8::try_from(slot).unwrap();
        if world.lineages[index].members.iter().all(|m| m.id != member) && world.quorum(index) {
            return Process::Failed;
        }
        let place = &mut world.places[slot];
        if place.ran == generation {
            world.broken |= rule::MEMORY;
        }
        place.ran = generation;
        place.data = Some(Data { lineage: index_u8(index), member, fresh: true, revision: 0 });
        Process::Up
    }

    /// What must hold when a plan is adopted, by the truth of that moment.
    pub fn check_plan(&self, world: &mut World, slot: usize, plan: Id) {
        let plan = self.tables.plans.get(plan);
        let Some(index) = world.answering_to(self.expected(world, slot, true)) else { return };
        let me = (u8::try_from(slot).unwrap(), world.places[slot].machine);
        let lineage = &world.lineages[index];
        let mut broken = 0;
        let mut changes = 0;
        for step in &plan.steps {
            let health = |without| world.health(index, without);
            let unhealthy = match step {
                Step::RemoveMember { member } => {
                    changes += 1;
                    let gone = u8::try_from(member.0 % 256).unwrap();
                    let (before, voters) = health(None);
                    let (after, rest) = health(Some(gone));
                    before < majority(voters) || after < majority(rest)
                }
                Step::AddLearner { .. } => {
                    changes += 1;
                    let (healthy, voters) = health(None);
                    let crowded = lineage.members.iter().any(|member| member.learner);
                    crowded || healthy < majority(voters) || healthy + 1 < majority(voters + 1)
                }
                Step::PromoteMember { member } => {
                    changes += 1;
                    let learner =
                        lineage.members.iter().find(|m| sight::member(index_u8(index), m.id) == *member);
                    let behind = |learner: &Voter| {
                        world.places[usize::from(learner.slot)]
                            .data
                            .is_some_and(|data| data.revision < lineage.acknowledged)
                    };
                    learner.is_none_or(behind)
                }
                _ => false,
            };
            if unhealthy {
                broken |= rule::ONE_AT_A_TIME;
            }
        }
        if changes > 1 || (changes > 0 && lineage.lock.is_some_and(|holder| holder != me)) {
            broken |= rule::ONE_AT_A_TIME;
        }
        let starts = plan.steps.iter().any(|step| matches!(step, Step::StartEtcd { .. }));
        let aside = plan.steps.iter().any(|step| matches!(step, Step::SetDataAside { .. }));
        let removed = world.places[slot].data.is_some_and(|data| {
            usize::from(data.lineage) == index && lineage.members.iter().all(|m| m.id != data.member)
        });
        // Whoever can't reach the quorum can't know.
        if starts && !aside && removed && world.cut != Some(me.0) {
            broken |= rule::REMOVED_DATA;
        }
        world.broken |= broken;
    }
}

fn recorded(record: &SlotRecord) -> Record {
    Record {
        volume: numbers(record.volume.as_str()).1,
        machine: numbers(record.instance.as_str()).1,
        address: address_number(&record.peer_url),
        member: record.member.map(|id| u8::try_from(id.0 % 256).unwrap()),
    }
}

/// A generation is given up only when it never had a quorum, or when nothing of it is left.
fn check_generation(world: &mut World, charter: &Charter, change: CharterChange) {
    let before = u8::try_from(charter.generation.0).unwrap() - 1;
    match change {
        CharterChange::Recover if world.has_left(before) => world.broken |= rule::GIVEN_UP,
        CharterChange::Refound
            if world.lineages.iter().any(|lineage| lineage.formed && lineage.generation == before) =>
        {
            world.broken |= rule::ONE_CLUSTER;
        }
        _ => {}
    }
}

/// Whether a step is done only by who has the lock on changes of membership.
pub fn is_change(step: &Step) -> bool {
    matches!(step, Step::RemoveMember { .. } | Step::AddLearner { .. } | Step::PromoteMember { .. })
}

pub fn is_mark(step: &Step) -> bool {
    matches!(step, Step::AmendCharter { change: CharterChange::MarkStarted, .. })
}

fn index_u8(index: usize) -> u8 {
    u8::try_from(index).unwrap()
}

fn boot_existing(world: &mut World, slot: usize, launch: &EtcdLaunch) -> Process {
    let generation = u8::try_from(launch.generation.0).unwrap();
    let Some(index) = world.answering_to(Some(generation)) else { return Process::Failed };
    let place = &world.places[slot];
    let lineage = &world.lineages[index];
    let found = lineage.members.iter().find(|member| !member.started && member.address == place.address);
    let (Some(found), true) = (found, generation == lineage.generation) else { return Process::Failed };
    let data = Data { lineage: index_u8(index), member: found.id, fresh: false, revision: 0 };
    let place = &mut world.places[slot];
    place.data = Some(data);
    place.ran = generation;
    Process::Up
}

/// `member remove`, with etcd's own guard (`strict-reconfig-check`).
fn remove(world: &mut World, index: usize, me: (u8, u8), id: MemberId) -> bool {
    let Some(member) =
        world.lineages[index].members.iter().find(|m| sight::member(index_u8(index), m.id) == id).cloned()
    else {
        return false;
    };
    let (healthy, voters) = world.health(index, Some(member.id));
    if !member.learner && healthy < majority(voters) {
        return false;
    }
    let place = &world.places[usize::from(member.slot)];
    let volume_gone = member.volume < place.volume && !(place.kept && member.volume + 1 == place.volume);
    let in_hand = me.0 == member.slot
        && me.1 == place.machine
        && member.volume == place.volume
        && !world.runs(index, &member);
    let machine_gone = member.machine < place.machine || (member.machine == place.machine && !place.up);
    let never_ran = member.learner && !member.started && machine_gone;
    let own_learner = member.learner && me == (member.slot, place.machine);
    if !(volume_gone || in_hand || never_ran || own_learner) {
        world.broken |= rule::EVIDENCE;
    }
    world.lineages[index].members.retain(|m| m.id != member.id);
    true
}

/// `member add --learner`: etcd takes one learner at a time, no address twice, and only while all
/// voters are connected.
fn add(world: &mut World, index: usize, (slot, machine): (u8, u8), address: u8) -> bool {
    let (healthy, voters) = world.health(index, None);
    let lineage = &mut world.lineages[index];
    if healthy < voters || lineage.members.iter().any(|member| member.learner || member.address == address) {
        return false;
    }
    let id = lineage.next;
    lineage.next += 1;
    let volume = world.places[usize::from(slot)].volume;
    lineage.members.push(Voter { id, slot, address, learner: true, started: false, volume, machine });
    true
}

fn promote(world: &mut World, index: usize, id: MemberId) -> bool {
    let Some(at) =
        world.lineages[index].members.iter().position(|m| sight::member(index_u8(index), m.id) == id)
    else {
        return false;
    };
    if !world.runs(index, &world.lineages[index].members[at]) {
        return false;
    }
    world.lineages[index].members[at].learner = false;
    true
}
