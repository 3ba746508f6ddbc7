//! The world around the agents: S3's one object, EC2's machines and volumes, disks, and etcd.
//!
//! Nothing of the protocol is here. What an agent does is a step of a plan that the shipped planner
//! made; this file keeps what the steps act upon. Names are small numbers: slot 0 to 2, the
//! machines and volumes of a slot counted from 0. Fields marked *ghost* are not visible to any
//! agent: they remember what really happened, for the rules to be checked against.

use super::tables::Id;

pub const SLOTS: usize = 3;

/// What a rule's breach is written down as.
pub mod rule {
    /// Two lineages had a quorum, or one formed twice, or a founding over a life.
    pub const ONE_CLUSTER: u16 = 1;
    /// Valid data were set aside.
    pub const NOTHING_DESTROYED: u16 = 2;
    /// A volume with a memory started as `new`.
    pub const MEMORY: u16 = 4;
    /// A member was removed that could have come back.
    pub const EVIDENCE: u16 = 8;
    /// Membership changed twice at once or without a healthy quorum before and after.
    pub const ONE_AT_A_TIME: u16 = 16;
    /// A removed member's data were started again.
    pub const REMOVED_DATA: u16 = 32;
    /// The cluster's voters could elect a leader that lacks an acknowledged write.
    pub const LOST_WRITE: u16 = 64;
    /// A generation was given up by itself while a volume of it was left.
    pub const GIVEN_UP: u16 = 128;
    /// An empty etcd was begun after one that had a quorum.
    pub const EMPTY: u16 = 256;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The charter's version and value.
    pub charter: Option<(u8, Id)>,
    /// The versions given out so far.
    pub versions: u8,
    pub places: [Place; SLOTS],
    pub lineages: Vec<Lineage>,
    /// Requests whose senders gave up on them, and which may yet arrive.
    pub flights: Vec<Flight>,
    /// What EC2 said before its last change, while stale answers are still in the budget.
    pub before: Option<[Listing; SLOTS]>,
    /// The machine that is cut off from the others' etcd.
    pub cut: Option<u8>,
    pub left: Budget,
    /// Whether there is a backup.
    pub backup: bool,
    /// *Ghost*: the last generation that an operator has given up, with all before it.
    pub given_up: u8,
    /// *Ghost*: the rules that were broken.
    pub broken: u16,
}

/// A slot's zone: its machine and its volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Counts the machines of this place; those before are terminated.
    pub machine: u8,
    pub up: bool,
    pub address: u8,
    /// The plan in hand, and the next step in it.
    pub plan: Option<(Id, u8)>,
    pub etcd: Process,
    /// What etcd is configured for.
    pub launch: Option<Id>,
    /// Counts the volumes of this place; those before are gone, but for `kept`.
    pub volume: u8,
    /// Whether the volume before this one still exists.
    pub kept: bool,
    /// The tag of the volume that was kept.
    pub kept_tag: Option<Id>,
    /// *Ghost*: the generation that ran on it.
    pub kept_ran: u8,
    pub stamp: Option<Id>,
    pub tag: Option<Id>,
    /// The generation of the data that were set aside last.
    pub aside: u8,
    /// The generation for which this machine has chosen a backup.
    pub chosen: u8,
    pub copy: Option<Id>,
    pub data: Option<Data>,
    /// *Ghost*: the generation in which a member has run on this volume.
    pub ran: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    Off,
    /// Its process runs, and has not written anything yet.
    Launched,
    Up,
    Failed,
}

/// A write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Data {
    pub lineage: u8,
    pub member: u8,
    /// Whether it has never been part of a quorum.
    pub fresh: bool,
    /// The writes that it holds.
    pub revision: u8,
}

/// What EC2 tells of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listing {
    pub machine: u8,
    pub up: bool,
    pub address: u8,
    pub volume: u8,
    pub kept: bool,
    pub kept_tag: Option<Id>,
    pub tag: Option<Id>,
}

/// An etcd cluster: all processes that were started with one token and initial cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lineage {
    /// Token and initial cluster.
    pub key: Id,
    pub generation: u8,
    /// Whether it began with a backup or a survivor's data.
    pub restored: bool,
    /// Whether it has ever had a quorum.
    pub formed: bool,
    pub members: Vec<Voter>,
    pub next: u8,
    pub records: [Option<Record>; SLOTS],
    pub lock: Option<(u8, u8)>,
    pub copy: Option<Id>,
    /// Writes that were acknowledged.
    pub acknowledged: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Voter {
    pub id: u8,
    pub slot: u8,
    pub address: u8,
    pub learner: bool,
    /// Whether it has published its name.
    pub started: bool,
    /// *Ghost*: its volume, and the machine it was added for.
    pub volume: u8,
    pub machine: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub volume: u8,
    pub machine: u8,
    pub address: u8,
    pub member: Option<u8>,
}

/// A step of a plan whose request is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight {
    pub plan: Id,
    pub step: u8,
    pub slot: u8,
    pub machine: u8,
    /// The etcd cluster that a late request was sent to.
    pub to: Option<u8>,
}

/// How often each kind of bad weather may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    pub crashes: u8,
    pub reboots: u8,
    pub replacements: u8,
    pub reuses: u8,
    pub losses: u8,
    pub spares: u8,
    pub wipes: u8,
    pub late: u8,
    pub stale: u8,
    pub blind: u8,
    pub cuts: u8,
    pub lapses: u8,
    pub charters: u8,
    pub writes: u8,
    pub slow_learners: u8,
    pub operators: u8,
}

pub fn majority(n: usize) -> usize {
    n / 2 + 1
}

impl World {
    pub fn listings(&self) -> [Listing; SLOTS] {
        std::array::from_fn(|slot| {
            let place = &self.places[slot];
            Listing {
                machine: place.machine,
                up: place.up,
                address: place.address,
                volume: place.volume,
                kept: place.kept,
                kept_tag: place.kept_tag,
                tag: place.tag,
            }
        })
    }

    /// Remembers what EC2 says now, just before it changes.
    pub fn ec2_changes(&mut self) {
        if self.left.stale > 0 {
            self.before = Some(self.listings());
        }
    }

    /// Whether a member's process runs and can be talked to.
    pub fn runs(&self, lineage: usize, member: &Voter) -> bool {
        let slot = usize::from(member.slot);
        let place = &self.places[slot];
        place.up
            && place.etcd == Process::Up
            && self.cut != Some(member.slot)
            && place.data.is_some_and(|data| usize::from(data.lineage) == lineage && data.member == member.id)
    }

    fn voters(&self, lineage: usize) -> Vec<&Voter> {
        self.lineages[lineage].members.iter().filter(|member| !member.learner).collect()
    }

    fn running(&self, lineage: usize) -> Vec<&Voter> {
        self.voters(lineage).into_iter().filter(|member| self.runs(lineage, member)).collect()
    }

    /// Whether enough voters run, and one of them is tied to enough of the others. Two members are
    /// tied when at least one is where the other believes it to be.
    pub fn quorum(&self, lineage: usize) -> bool {
        let running = self.running(lineage);
        let needed = majority(self.voters(lineage).len());
        let found = |member: &Voter| self.places[usize::from(member.slot)].address == member.address;
        running.iter().any(|leader| {
            running.iter().filter(|other| other.id == leader.id || found(leader) || found(other)).count()
                >= needed
        })
    }

    /// The clusters that answer.
    fn all_answering(&self) -> impl Iterator<Item = usize> {
        (0..self.lineages.len()).filter(|lineage| self.lineages[*lineage].formed && self.quorum(*lineage))
    }

    /// The cluster that answers, if one does: the latest of several.
    pub fn answering(&self) -> Option<usize> {
        self.all_answering().max_by_key(|lineage| self.lineages[*lineage].generation)
    }

    /// The cluster that answers to who looks for this generation.
    pub fn answering_to(&self, generation: Option<u8>) -> Option<usize> {
        let expected = |lineage: &usize| Some(self.lineages[*lineage].generation) == generation;
        self.all_answering().find(expected).or_else(|| self.answering())
    }

    /// Whether a volume is left on which a member of this generation has run.
    pub fn has_left(&self, generation: u8) -> bool {
        self.places
            .iter()
            .any(|place| place.ran == generation || (place.kept && place.kept_ran == generation))
    }

    /// Healthy voters, and voters, as if `without` were removed.
    pub fn health(&self, lineage: usize, without: Option<u8>) -> (usize, usize) {
        let stays = |member: &&Voter| Some(member.id) != without;
        let voters = self.voters(lineage).into_iter().filter(stays).count();
        (self.running(lineage).into_iter().filter(stays).count(), voters)
    }

    /// What follows by itself: members that reach a quorum take part in it. And what must never be
    /// is written down.
    pub fn settle(&mut self) {
        // Of two that answer, an operator has given up the older one.
        let newest = self.answering();
        if self
            .all_answering()
            .any(|one| Some(one) != newest && self.lineages[one].generation > self.given_up)
        {
            self.broken |= rule::ONE_CLUSTER;
        }
        for index in 0..self.lineages.len() {
            let voters = self.voters(index).len();
            let running: Vec<Data> = self
                .running(index)
                .iter()
                .filter_map(|member| self.places[usize::from(member.slot)].data)
                .collect();
            let lineage = &self.lineages[index];
            if !lineage.formed {
                continue;
            }
            if running.iter().filter(|data| data.fresh).count() >= majority(voters) {
                self.broken |= rule::ONE_CLUSTER;
            }
            let mut revisions: Vec<u8> = running.iter().map(|data| data.revision).collect();
            revisions.sort_unstable();
            if revisions.len() >= majority(voters) && revisions[majority(voters) - 1] < lineage.acknowledged {
                self.broken |= rule::LOST_WRITE;
            }
            if self.quorum(index) {
                for member in 0..self.lineages[index].members.len() {
                    if self.runs(index, &self.lineages[index].members[member]) {
                        let member = &mut self.lineages[index].members[member];
                        member.started = true;
                        if let Some(data) = &mut self.places[usize::from(member.slot)].data {
                            data.fresh = false;
                        }
                    }
                }
            }
        }
        self.flights.sort_unstable();
        if self.left.stale == 0 {
            self.before = None;
        }
    }

    /// Voters that have never been part of a quorum and could be one now.
    pub fn can_form(&self, lineage: usize) -> bool {
        !self.lineages[lineage].formed && self.quorum(lineage)
    }

    pub fn form(&mut self, lineage: usize) {
        let restored = self.lineages[lineage].restored;
        let follows = |other: &Lineage| {
            restored && (other.generation <= self.given_up || !self.has_left(other.generation))
        };
        if self.lineages.iter().any(|other| other.formed && !follows(other)) {
            self.broken |= rule::ONE_CLUSTER;
        }
        self.lineages[lineage].formed = true;
        // Those who formed it are not a second forming.
        for slot in 0..SLOTS {
            if let Some(data) = &mut self.places[slot].data
                && usize::from(data.lineage) == lineage
                && self.places[slot].etcd == Process::Up
                && self.cut != u8::try_from(slot).ok()
            {
                data.fresh = false;
            }
        }
    }

    /// The machine is gone from EC2, and with it all that ran on it.
    pub fn terminate(&mut self, slot: usize) {
        self.ec2_changes();
        let place = &mut self.places[slot];
        place.up = false;
        place.plan = None;
        place.etcd = Process::Off;
        place.launch = None;
        place.chosen = 0;
    }

    /// Its successor comes up with the place's volume.
    pub fn launch(&mut self, slot: usize, same_address: bool) {
        self.ec2_changes();
        let place = &mut self.places[slot];
        place.up = true;
        place.machine += 1;
        if !same_address {
            place.address = u8::try_from(slot).unwrap() * 16 + place.machine;
        }
    }

    /// The place's volume is replaced by a blank one.
    pub fn new_volume(&mut self, slot: usize, kept: bool) {
        self.ec2_changes();
        let place = &mut self.places[slot];
        place.volume += 1;
        place.kept = kept;
        place.kept_tag = if kept { place.tag } else { None };
        place.kept_ran = if kept { place.ran } else { 0 };
        place.aside = 0;
        place.stamp = None;
        place.tag = None;
        place.copy = None;
        place.data = None;
        place.ran = 0;
    }
}
