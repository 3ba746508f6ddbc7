//! What an agent sees of the world: small values made into the observation that the planner reads,
//! and its answer remembered.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, RwLock};

use quorate::config::{InstanceTags, Settings, load};
use quorate::model::cluster::{ClusterView, EtcdLaunch};
use quorate::model::departure::DepartureObservation;
use quorate::model::machine::peer_url;
use quorate::model::observation::EtcdObservation;
use quorate::model::*;
use quorate::plan::plan;

use super::mutations::Mutation;
use super::patiently;
use super::tables::{Id, Table};
use super::world::{Lineage, Listing, Process, Record, SLOTS, World};

/// Everything by number.
#[derive(Debug, Default)]
pub struct Tables {
    pub charters: Table<Charter>,
    pub stamps: Table<StampState>,
    pub tags: Table<String>,
    pub launches: Table<EtcdLaunch>,
    pub plans: Table<Plan>,
    pub keys: Table<(ClusterUuid, Generation, Vec<(String, String)>)>,
}

/// How an agent looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    Clear,
    /// Whatever it waits for with a patience, the patience is over.
    Patient,
    /// So is that for a learner to catch up.
    Fed,
    /// EC2 answers as before its last change.
    Stale,
    /// S3 does not answer.
    NoCharter,
    /// EC2 does not answer.
    NoEc2,
    /// No quorum answers.
    NoCluster,
    /// EC2 knows no volume but the one here.
    NotFound,
}

/// What one agent sees at one moment, by numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    pub slot: u8,
    machine: u8,
    address: u8,
    ec2: Option<[Listing; SLOTS]>,
    charter: Option<Option<(u8, Id)>>,
    volume: u8,
    stamp: Option<Id>,
    copy: Option<Id>,
    data: bool,
    etcd: Process,
    launch: Option<Id>,
    own: Option<(u64, bool, bool)>,
    view: Option<View>,
    writes: u8,
    backup: bool,
    chosen: u8,
    not_found: bool,
    patient: bool,
    fed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct View {
    lineage: u8,
    cluster: Lineage,
    healthy: Vec<bool>,
}

/// The planner, with a memory of what it answered.
#[derive(Debug)]
pub struct Planner {
    pub settings: Settings,
    pub tables: Tables,
    pub mutation: Option<Mutation>,
    answers: RwLock<HashMap<Seen, Id>>,
}

pub fn settings(size: u8) -> Settings {
    let text = format!(
        "cluster: demo\nbucket: demo-quorate\netcd:\n  size: {size}\n  zones: [eu-west-1a, eu-west-1b, eu-west-1c]\n\
         kubernetes:\n  controlPlane: none\n"
    );
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    load(std::path::Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings
}

pub fn instance(slot: u8, machine: u8) -> InstanceId {
    format!("i-{slot:04x}{machine:04x}").parse().unwrap()
}

pub fn volume(slot: u8, number: u8) -> VolumeId {
    format!("vol-{slot:04x}{number:04x}").parse().unwrap()
}

/// The two numbers of an instance's or a volume's id.
pub fn numbers(id: &str) -> (u8, u8) {
    let digits = id.rsplit('-').next().unwrap();
    let number = |text: &str| u8::from_str_radix(text, 16).unwrap();
    (number(&digits[..4]), number(&digits[4..]))
}

/// The only backup that there is.
pub fn point() -> RestorePoint {
    let chain = ChainName::new(Generation(1), 1, "0a1b2c3d").unwrap();
    RestorePoint { chain, segments: 0, revision: 1, at: 0, passed_over: Vec::new() }
}

pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number + 1)
}

pub fn address_number(url: &str) -> u8 {
    let address: Ipv4Addr =
        url.strip_prefix("https://").unwrap().strip_suffix(":2380").unwrap().parse().unwrap();
    address.octets()[3] - 1
}

pub fn member(lineage: u8, id: u8) -> MemberId {
    MemberId(u64::from(lineage) * 256 + u64::from(id))
}

pub fn slot_of(number: u8) -> Slot {
    Slot::try_from(number + 1).unwrap()
}

fn zone(slot: u8) -> Zone {
    ["eu-west-1a", "eu-west-1b", "eu-west-1c"][usize::from(slot)].parse().unwrap()
}

const NOW: i64 = 1_700_000_000_000;

impl Planner {
    pub fn new() -> Self {
        Self { settings: settings(3), tables: Tables::default(), mutation: None, answers: RwLock::default() }
    }

    /// From now on it has this bug.
    pub fn plant(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
        self.answers = RwLock::default();
    }

    /// What the agent of a place sees.
    pub fn see(&self, world: &World, slot: usize, look: Look) -> Seen {
        let place = &world.places[slot];
        let number = u8::try_from(slot).unwrap();
        let listings = match look {
            Look::NoEc2 => None,
            Look::Stale => world.before,
            Look::Clear | Look::Patient | Look::Fed | Look::NoCharter | Look::NoCluster | Look::NotFound => {
                Some(world.listings())
            }
        };
        let expected = self.expected(world, slot, look != Look::NoCharter);
        let answering =
            world.answering_to(expected).filter(|_| look != Look::NoCluster && world.cut != Some(number));
        let own = place.data.filter(|_| place.etcd == Process::Up).map(|data| {
            let lineage = &world.lineages[usize::from(data.lineage)];
            let learner = lineage.members.iter().any(|m| m.id == data.member && m.learner);
            (
                member(data.lineage, data.member).0,
                learner,
                data.revision == lineage.acknowledged && answering == Some(usize::from(data.lineage)),
            )
        });
        let flights =
            world.flights.iter().filter(|f| usize::from(f.slot) == slot && f.machine == place.machine);
        Seen {
            slot: number,
            machine: place.machine,
            address: place.address,
            ec2: listings,
            charter: (look != Look::NoCharter).then_some(world.charter),
            volume: place.volume,
            stamp: place.stamp,
            copy: place.copy,
            data: place.data.is_some(),
            etcd: place.etcd,
            launch: place.launch,
            own,
            view: answering.map(|lineage| View {
                lineage: u8::try_from(lineage).unwrap(),
                cluster: world.lineages[lineage].clone(),
                healthy: world.lineages[lineage]
                    .members
                    .iter()
                    .map(|member| world.runs(lineage, member))
                    .collect(),
            }),
            writes: u8::try_from(flights.count()).unwrap(),
            backup: world.backup,
            chosen: place.chosen,
            not_found: look == Look::NotFound,
            patient: matches!(look, Look::Patient | Look::Fed),
            fed: look == Look::Fed,
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
            patiently(&mut observation, answer, |on| seen.fed || *on != WaitingOn::InSync)
        } else {
            answer(&observation)
        };
        // Only the steps and the reason count here.
        plan.report.warnings.clear();
        let id = self.tables.plans.put(plan);
        self.answers.write().unwrap().insert(seen.clone(), id);
        id
    }

    pub fn planned(&self, world: &World, slot: usize, look: Look) -> (Id, Arc<Plan>) {
        let id = self.plan(&self.see(world, slot, look));
        (id, self.tables.plans.get(id))
    }

    fn answer(&self, observation: &Observation, seen: &Seen) -> Plan {
        match self.mutation {
            None => plan(&self.settings, observation),
            Some(mutation) => mutation.answer(&self.settings, observation, seen.slot),
        }
    }

    pub fn observation(&self, seen: &Seen) -> Observation {
        let me = Identity {
            instance: instance(seen.slot, seen.machine),
            region: "eu-west-1".parse().unwrap(),
            zone: zone(seen.slot),
            address: address(seen.address),
        };
        let unknown = || "throttled".to_owned();
        let version = seen.charter.flatten().map_or(0, |(version, _)| version);
        let entropy =
            format!("{:04x}{:04x}-0000-0000-{version:04x}-{:012x}", seen.slot, seen.machine, seen.writes);
        Observation {
            at: NOW,
            entropy: entropy.parse().unwrap(),
            clock_synchronised: Fact::Known(true),
            instances: seen.ec2.map_or(Fact::Unknown(unknown()), |all| Fact::Known(instances(&all))),
            volumes: seen.ec2.map_or(Fact::Unknown(unknown()), |all| Fact::Known(self.volumes(&all, seen))),
            zones: Fact::Known((0..3).map(zone).collect()),
            charter: match seen.charter {
                None => Fact::Unknown(unknown()),
                Some(found) => Fact::Known(found.map(|(version, id)| {
                    let value = (*self.tables.charters.get(id)).clone();
                    observation::Versioned { value, etag: version.to_string().parse().unwrap() }
                })),
            },
            keeping: None,
            backups: Fact::Known(seen.backup),
            chosen: Fact::Known(self.chosen(seen)),
            authority: Fact::Known(Some(Authority { fingerprint: "a".to_owned(), not_after: NOW * 2 })),
            leaves: Fact::Known(Some(Leaves {
                authority: "a".to_owned(),
                address: me.address,
                not_before: NOW - 1,
                not_after: NOW * 2,
            })),
            disk: Fact::Known(Some(self.disk(seen))),
            etcd: self.etcd(seen),
            kubernetes: KubernetesObservation::unknown("not looked for"),
            // The worst case: nobody has published the members, so that only tags tell of those who joined later.
            published: Fact::Known(None),
            departure: DepartureObservation::unknown("not asked for"),
            waiting: Vec::new(),
            noticed: Vec::new(),
            identity: Fact::Known(me),
        }
    }

    /// The generation that the agent of a place looks for: the charter's, or its volume's.
    pub fn expected(&self, world: &World, slot: usize, charter: bool) -> Option<u8> {
        let charter =
            world.charter.filter(|_| charter).map(|(_, id)| self.tables.charters.get(id).generation);
        let stamp = world.places[slot].stamp.map(|stamp| self.tables.stamps.get(stamp));
        let life = stamp.as_ref().and_then(|stamp| stamp.life()).map(|(_, generation)| generation);
        charter.or(life).map(|generation| u8::try_from(generation.0).unwrap())
    }

    fn chosen(&self, seen: &Seen) -> Option<ChosenBackup> {
        let charter = self.tables.charters.get(seen.charter??.1);
        (seen.chosen > 0).then(|| ChosenBackup {
            uuid: charter.uuid.clone(),
            generation: Generation(u64::from(seen.chosen)),
            at: NOW,
            point: Some(point()),
            damaged: Vec::new(),
        })
    }

    fn volumes(&self, all: &[Listing; SLOTS], seen: &Seen) -> BTreeMap<VolumeId, Volume> {
        let mut volumes = BTreeMap::new();
        for (slot, listing) in (0_u8..).zip(all) {
            for number in 0..=listing.volume {
                let present = number == listing.volume;
                let spare = listing.kept && number + 1 == listing.volume;
                let held = present && listing.up;
                let state = match (present || spare, held) {
                    (true, true) => VolumeState::InUse,
                    (true, false) => VolumeState::Available,
                    (false, _) => VolumeState::Deleted,
                };
                let attachment = held.then(|| Attachment {
                    instance: instance(slot, listing.machine),
                    state: AttachmentState::Attached,
                    device: "/dev/xvdf".to_owned(),
                    delete_on_termination: false,
                });
                let tag = listing.tag.filter(|_| present).or(listing.kept_tag.filter(|_| spare));
                let stamp = tag.map(|tag| (*self.tables.tags.get(tag)).clone());
                if seen.not_found && (slot, number) != (seen.slot, seen.volume) {
                    volumes.insert(
                        volume(slot, number),
                        Volume {
                            state: VolumeState::NotFound,
                            zone: None,
                            attachment: None,
                            ours: false,
                            slot: None,
                            stamp: None,
                        },
                    );
                    continue;
                }
                volumes.insert(
                    volume(slot, number),
                    Volume {
                        state,
                        zone: Some(zone(slot)),
                        attachment,
                        ours: true,
                        slot: Some(slot_of(slot)),
                        stamp,
                    },
                );
            }
        }
        volumes
    }

    fn disk(&self, seen: &Seen) -> Disk {
        let device = "/dev/nvme1n1".to_owned();
        let volume = volume(seen.slot, seen.volume);
        let stamp = seen.stamp.map(|stamp| Stamp {
            cluster: self.settings.cluster.clone(),
            slot: slot_of(seen.slot),
            volume: volume.clone(),
            state: (*self.tables.stamps.get(stamp)).clone(),
        });
        Disk {
            volume,
            device: Some(device.clone()),
            content: Fact::Known(Content::Ours { kind: "ext4".to_owned(), can_grow: false }),
            mount: Fact::Known(Some(Mount { source: device, read_only: false })),
            holds: Fact::Known(VolumeContents {
                stamp: Fact::Known(stamp),
                data: if seen.data { DataDir::Present } else { DataDir::Absent },
                charter: Fact::Known(seen.copy.map(|copy| (*self.tables.charters.get(copy)).clone())),
                strangers: Vec::new(),
            }),
        }
    }

    fn etcd(&self, seen: &Seen) -> EtcdObservation {
        EtcdObservation {
            version: Fact::Known("3.5.16".parse().unwrap()),
            service: Fact::Known(match seen.etcd {
                Process::Off => ServiceState::Stopped,
                Process::Launched | Process::Up => ServiceState::Running,
                Process::Failed => ServiceState::Failed("exit code 1".to_owned()),
            }),
            launch: Fact::Known(seen.launch.map(|launch| (*self.tables.launches.get(launch)).clone())),
            own: seen.own.map_or(Fact::unknown("no answer"), |(id, learner, in_sync)| {
                Fact::Known(OwnMember { member: MemberId(id), learner, in_sync })
            }),
            cluster: seen
                .view
                .as_ref()
                .map_or(Fact::unknown("no quorum"), |view| Fact::Known(self.view(view))),
            // What care does to members, it does by steps that are explored without it.
            care: Fact::unknown("not modelled"),
            notes: Fact::unknown("not modelled"),
            silence: None,
        }
    }

    fn view(&self, view: &View) -> ClusterView {
        let record = |slot: u8, record: &Record| SlotRecord {
            volume: volume(slot, record.volume),
            instance: instance(slot, record.machine),
            peer_url: peer_url(address(record.address)),
            member: record.member.map(|id| member(view.lineage, id)),
        };
        ClusterView {
            charter: view.cluster.copy.map(|copy| (*self.tables.charters.get(copy)).clone()),
            members: view
                .cluster
                .members
                .iter()
                .zip(&view.healthy)
                .map(|(voter, healthy)| {
                    let name = if voter.started { slot_of(voter.slot).member_name() } else { String::new() };
                    let healthy = if *healthy { Fact::Known(true) } else { Fact::unknown("no answer") };
                    let peer_urls = vec![peer_url(address(voter.address))];
                    (
                        member(view.lineage, voter.id),
                        Member { name, peer_urls, learner: voter.learner, healthy },
                    )
                })
                .collect(),
            leader: None,
            records: (0_u8..)
                .zip(&view.cluster.records)
                .filter_map(|(slot, found)| Some((slot_of(slot), record(slot, found.as_ref()?))))
                .collect(),
            lock: view.cluster.lock.map(|(slot, machine)| instance(slot, machine)),
            control_plane: ControlPlaneRecords::default(),
        }
    }
}

fn instances(all: &[Listing; SLOTS]) -> BTreeMap<InstanceId, Instance> {
    let mut instances = BTreeMap::new();
    for (slot, listing) in (0_u8..).zip(all) {
        for machine in 0..=listing.machine {
            let running = machine == listing.machine && listing.up;
            instances.insert(
                instance(slot, machine),
                Instance {
                    state: if running { InstanceState::Running } else { InstanceState::Terminated },
                    zone: Some(zone(slot)),
                    address: running.then(|| address(listing.address)),
                    role: Some(Role::ControlPlane),
                },
            );
        }
    }
    instances
}
