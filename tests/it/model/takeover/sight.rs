//! What a machine sees of the world: small values made into the observation that the planner reads, and its answer
//! remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use quorate::config::Settings;
use quorate::model::cluster::{ClusterView, EtcdLaunch};
use quorate::model::observation::Versioned;
use quorate::model::*;
use quorate::plan::plan;

use super::super::patiently;
use super::super::tables::{Id, Table};
use super::mutations::Mutation;
use super::world::{Life, Listing, MACHINES, OTHER, Process, Record, VOTER, Voter, World, zone_of};
use crate::planner::scene;

/// Everything by number.
#[derive(Debug, Default)]
pub struct Tables {
    pub charters: Table<Charter>,
    pub stamps: Table<StampState>,
    pub tags: Table<String>,
    pub tokens: Table<String>,
    pub launches: Table<EtcdLaunch>,
    pub plans: Table<Plan>,
}

/// How an agent looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    Clear,
    /// Whatever it waits for with a patience, the patience is over. The others but `Missing` are patient, too.
    Patient,
    /// EC2 answers as before its last change.
    Stale,
    /// The charter is the one before the last change.
    OldCharter,
    /// EC2 does not find the machine of slot 3's record, for the first time.
    Missing,
    /// S3 does not answer.
    NoCharter,
    /// EC2 does not answer.
    NoEc2,
    /// No quorum answers.
    NoCluster,
}

/// What one agent sees at one moment, by numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    pub me: u8,
    ec2: Option<Listing>,
    missing: Option<u8>,
    charter: Option<(u8, Id)>,
    disk: Option<DiskSeen>,
    etcd: Process,
    launch: Option<Id>,
    own: Option<(u8, bool)>,
    view: Option<View>,
    patient: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DiskSeen {
    volume: u8,
    formatted: bool,
    mounted: bool,
    stamp: Option<Id>,
    data: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct View {
    members: Vec<(Voter, bool)>,
    record: Record,
    copy: Id,
    lock: Option<u8>,
}

/// The planner, with a memory of what it answered.
#[derive(Debug)]
pub struct Planner {
    settings: Settings,
    pub tables: Tables,
    pub mutation: Option<Mutation>,
    answers: RwLock<HashMap<Seen, Id>>,
}

/// The id of a volume by its place in the world's list.
pub fn volume_id(place: usize) -> VolumeId {
    scene::volume(3 + u8::try_from(place).unwrap())
}

pub fn volume_place(id: &VolumeId) -> usize {
    usize::from(last_digit(id.as_str()) - 3)
}

pub fn machine_number(id: &InstanceId) -> u8 {
    last_digit(id.as_str())
}

fn last_digit(id: &str) -> u8 {
    u8::from_str_radix(&id[id.len() - 1..], 16).unwrap()
}

/// The machine that a peer URL is of.
pub fn machine_at(url: &str) -> u8 {
    (1..=u8::try_from(MACHINES).unwrap()).find(|number| scene::url(*number) == url).unwrap()
}

impl Planner {
    pub fn new(mutation: Option<Mutation>) -> Self {
        Self {
            settings: scene::settings_with("etcd: {volume: {source: created, takeover: 15m}}\n"),
            tables: Tables::default(),
            mutation,
            answers: RwLock::default(),
        }
    }

    /// The number of slot 3's zone by the charter.
    pub fn slot_zone(&self, charter: Id) -> u8 {
        let charter = self.tables.charters.get(charter);
        let zone = charter.zone_of(scene::slot(3)).unwrap();
        (1..=3).find(|number| scene::zone(*number) == *zone).unwrap()
    }

    pub fn see(&self, world: &World, me: u8, look: Look) -> Seen {
        let machine = world.machine(me);
        let held = world.held(me);
        let data = held.and_then(|volume| world.volumes[volume].data);
        let up = machine.etcd == Process::Up;
        Seen {
            me,
            ec2: match look {
                Look::NoEc2 => None,
                Look::Stale => world.before.clone(),
                _ => Some(world.listing()),
            },
            missing: (look == Look::Missing).then_some(world.record.machine),
            charter: match look {
                Look::NoCharter => None,
                Look::OldCharter => world.charter_before,
                _ => Some(world.charter),
            },
            disk: held.map(|place| {
                let volume = &world.volumes[place];
                DiskSeen {
                    volume: u8::try_from(place).unwrap(),
                    formatted: volume.formatted,
                    mounted: machine.mounted,
                    stamp: volume.stamp,
                    data: volume.data.is_some(),
                }
            }),
            etcd: machine.etcd,
            launch: machine.launch,
            own: data.filter(|_| up).map(|id| (id, world.member(id).is_some_and(|member| member.learner))),
            view: (look != Look::NoCluster).then(|| View {
                members: world
                    .members
                    .iter()
                    .map(|member| (member.clone(), world.runs(member.id).is_some()))
                    .collect(),
                record: world.record,
                copy: world.copy,
                lock: world.lock,
            }),
            patient: !matches!(look, Look::Clear | Look::Missing),
        }
    }

    /// The shipped planner's answer, by number.
    pub fn plan(&self, seen: &Seen) -> Id {
        if let Some(id) = self.answers.read().unwrap().get(seen) {
            return *id;
        }
        let mut observation = self.observation(seen);
        let answer = |observation: &Observation| self.answer(observation, seen);
        let mut plan = if seen.patient {
            // A learner that runs is in sync at once here.
            patiently(&mut observation, answer, |_| true)
        } else {
            answer(&observation)
        };
        plan.report.warnings.clear();
        let id = self.tables.plans.put(plan);
        self.answers.write().unwrap().insert(seen.clone(), id);
        id
    }

    pub fn planned(&self, world: &World, me: u8, look: Look) -> (Id, Arc<Plan>) {
        let id = self.plan(&self.see(world, me, look));
        (id, self.tables.plans.get(id))
    }

    fn answer(&self, observation: &Observation, seen: &Seen) -> Plan {
        match self.mutation {
            None => plan(&self.settings, observation),
            Some(mutation) => mutation.answer(&self.settings, observation, seen.me),
        }
    }

    fn observation(&self, seen: &Seen) -> Observation {
        let unknown = || "throttled".to_owned();
        let mut observation = scene::scene();
        observation.identity = Fact::Known(Identity {
            instance: scene::instance(seen.me),
            region: "eu-west-1".parse().unwrap(),
            zone: scene::zone(zone_of(seen.me)),
            address: scene::address(seen.me),
        });
        if let Fact::Known(Some(leaves)) = &mut observation.leaves {
            leaves.address = scene::address(seen.me);
        }
        observation.charter = seen.charter.map_or(Fact::Unknown(unknown()), |(version, id)| {
            let value = (*self.tables.charters.get(id)).clone();
            Fact::Known(Some(Versioned { value, etag: version.to_string().parse().unwrap() }))
        });
        (observation.instances, observation.volumes) = match &seen.ec2 {
            None => (Fact::Unknown(unknown()), Fact::Unknown(unknown())),
            Some(listing) => {
                (Fact::Known(instances(listing, seen.missing)), Fact::Known(self.volumes(listing)))
            }
        };
        observation.disk = Fact::Known(self.disk(seen));
        observation.published = Fact::unknown("not looked for");
        let etcd = &mut observation.etcd;
        etcd.notes = Fact::unknown("not modelled");
        etcd.cluster = match &seen.view {
            Some(view) => Fact::Known(self.view(view)),
            None => Fact::unknown("no quorum"),
        };
        if seen.me == VOTER {
            etcd.service = Fact::Known(ServiceState::Running);
            etcd.own = Fact::Known(OwnMember { member: MemberId(1), learner: false, in_sync: true });
            etcd.launch = Fact::Known(Some(scene::launch(LaunchState::New)));
            return observation;
        }
        etcd.service = Fact::Known(match seen.etcd {
            Process::Off => ServiceState::Stopped,
            Process::Up => ServiceState::Running,
            Process::Failed => ServiceState::Failed("exit code 1".to_owned()),
        });
        etcd.launch = Fact::Known(seen.launch.map(|launch| (*self.tables.launches.get(launch)).clone()));
        etcd.own = seen.own.map_or(Fact::unknown("no answer"), |(id, learner)| {
            Fact::Known(OwnMember { member: MemberId(u64::from(id)), learner, in_sync: seen.view.is_some() })
        });
        observation
    }

    fn volumes(&self, listing: &Listing) -> BTreeMap<VolumeId, Volume> {
        let mut volumes: BTreeMap<VolumeId, Volume> = [VOTER, OTHER]
            .map(|n| (scene::volume(n), Volume { stamp: Some(format!("member 1 {n}")), ..scene::listed(n) }))
            .into();
        for (place, (zone, holder, detaching, tag)) in listing.volumes.iter().enumerate() {
            let state = if *detaching { AttachmentState::Detaching } else { AttachmentState::Attached };
            let attachment = holder.and_then(|holder| {
                scene::attached_to(scene::instance(holder)).map(|held| Attachment { state, ..held })
            });
            let volume = Volume {
                state: if holder.is_some() { VolumeState::InUse } else { VolumeState::Available },
                zone: Some(scene::zone(*zone)),
                attachment,
                ours: true,
                slot: Some(scene::slot(3)),
                stamp: tag.map(|tag| (*self.tables.tags.get(tag)).clone()),
            };
            volumes.insert(volume_id(place), volume);
        }
        volumes
    }

    fn disk(&self, seen: &Seen) -> Option<Disk> {
        let device = "/dev/nvme1n1".to_owned();
        let charter = || seen.charter.map(|(_, id)| (*self.tables.charters.get(id)).clone());
        let holds = |slot: u8, volume: &VolumeId, state: Option<StampState>, data: bool| VolumeContents {
            stamp: Fact::Known(state.map(|state| Stamp {
                cluster: self.settings.cluster.clone(),
                slot: scene::slot(slot),
                volume: volume.clone(),
                state,
            })),
            data: if data { DataDir::Present } else { DataDir::Absent },
            // The copy on the volume follows at once: nothing here is decided by it.
            charter: Fact::Known(charter()),
            strangers: Vec::new(),
        };
        let mount = Fact::Known(Some(Mount { source: device.clone(), read_only: false }));
        let content = Fact::Known(Content::Ours { kind: "ext4".to_owned(), can_grow: false });
        if seen.me == VOTER {
            let volume = scene::volume(VOTER);
            let holds = Fact::Known(holds(VOTER, &volume, Some(scene::member_of(1)), true));
            return Some(Disk { volume, device: Some(device), content, mount, holds });
        }
        let disk = seen.disk.as_ref()?;
        let volume = volume_id(usize::from(disk.volume));
        let state = disk.stamp.map(|stamp| (*self.tables.stamps.get(stamp)).clone());
        let (mount, holds) = if disk.mounted {
            (mount, Fact::Known(holds(3, &volume, state, disk.data)))
        } else {
            (Fact::Known(None), Fact::unknown("it is not mounted"))
        };
        let content = if disk.formatted { content } else { Fact::Known(Content::Blank) };
        Some(Disk { volume, device: Some(device), content, mount, holds })
    }

    fn view(&self, view: &View) -> ClusterView {
        let listed = |slot: u8, at: u8, started: bool, learner: bool, healthy: bool| Member {
            name: if started { scene::slot(slot).member_name() } else { String::new() },
            peer_urls: vec![scene::url(at)],
            learner,
            healthy: if healthy { Fact::Known(true) } else { Fact::unknown("no answer") },
        };
        let record = |volume: VolumeId, machine: u8, member: Option<u8>| SlotRecord {
            volume,
            instance: scene::instance(machine),
            peer_url: scene::url(machine),
            member: member.map(|id| MemberId(u64::from(id))),
        };
        let mut members: BTreeMap<MemberId, Member> =
            [VOTER, OTHER].map(|n| (MemberId(u64::from(n)), listed(n, n, true, false, true))).into();
        let mut records: BTreeMap<Slot, SlotRecord> =
            [VOTER, OTHER].map(|n| (scene::slot(n), record(scene::volume(n), n, Some(n)))).into();
        let moving = &view.record;
        let third = record(volume_id(usize::from(moving.volume)), moving.machine, moving.member);
        records.insert(scene::slot(3), third);
        for (member, healthy) in &view.members {
            let value = listed(3, member.at, member.started, member.learner, *healthy);
            members.insert(MemberId(u64::from(member.id)), value);
        }
        ClusterView {
            charter: Some((*self.tables.charters.get(view.copy)).clone()),
            members,
            leader: None,
            records,
            lock: view.lock.map(scene::instance),
            control_plane: ControlPlaneRecords::default(),
        }
    }
}

fn instances(listing: &Listing, missing: Option<u8>) -> BTreeMap<InstanceId, Instance> {
    let mut instances = BTreeMap::new();
    for (number, life) in (1_u8..).zip(&listing.machines) {
        let state = match life {
            Life::Absent => continue,
            _ if missing == Some(number) => InstanceState::NotFound,
            Life::Running => InstanceState::Running,
            Life::Ending | Life::Off => InstanceState::ShuttingDown,
            Life::Terminated => InstanceState::Terminated,
        };
        let instance = if state == InstanceState::NotFound {
            Instance { state, zone: None, address: None, role: None }
        } else {
            let address = (state != InstanceState::Terminated).then(|| scene::address(number));
            Instance { state, address, ..scene::running(zone_of(number)) }
        };
        instances.insert(scene::instance(number), instance);
    }
    instances
}
