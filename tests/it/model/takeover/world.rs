//! The world around a slot that moves: one charter, EC2's machines and volumes, disks, and etcd's members.
//!
//! Slots 1 and 2 have voters that nothing happens to. Machines are known by their numbers, which are those of their
//! instances and addresses; a volume by its place in the list. Fields marked *ghost* are seen by nobody: they remember
//! what happened, for the rules to be checked against.

use super::super::tables::Id;

/// Slot 1's machine, in zone a: it is healthy, and does a voter's upkeep.
pub const VOTER: u8 = 1;
/// Slot 2's machine, in zone b: it is healthy, and does nothing that counts here.
pub const OTHER: u8 = 2;
/// Slot 3's first machine, in zone c.
pub const LOST: u8 = 3;
/// A standby in zone a.
pub const FIRST: u8 = 4;
/// What comes to zone c when it is back.
pub const BACK: u8 = 5;
/// A standby in zone b.
pub const SECOND: u8 = 6;
/// What comes to zone a after the first standby.
pub const NEXT: u8 = 7;

pub const MACHINES: usize = 7;
/// The machines that things happen to.
pub const MOVING: [u8; 5] = [LOST, FIRST, BACK, SECOND, NEXT];

/// The number of a machine's zone.
pub fn zone_of(machine: u8) -> u8 {
    [1, 2, 3, 1, 3, 2, 1][usize::from(machine) - 1]
}

/// What a rule's breach is written down as.
pub mod rule {
    /// The charter was written over a version that its writer had not read.
    pub const ONE_LINE: u16 = 1;
    /// A slot had two voters or two learners, or the cluster more than it may.
    pub const CROWD: u16 = 2;
    /// A member was removed that EC2 does not call gone.
    pub const EVIDENCE: u16 = 4;
    /// Data were set aside whose member is listed.
    pub const NOTHING_DESTROYED: u16 = 8;
    /// A removed member's data were started.
    pub const REMOVED_DATA: u16 = 16;
    /// A volume was let go while its member runs, or is listed.
    pub const LET_GO: u16 = 32;
    /// A volume was to start as `new`, or was formatted twice.
    pub const NEVER_NEW: u16 = 64;
    /// A volume was to be attached whose slot is in another zone.
    pub const PLACE: u16 = 128;
    /// A slot was moved though its zone has a machine for it, or given back though nobody lives there.
    pub const MOVED: u16 = 256;
    /// Two changes of membership at once, or one under another's lock.
    pub const ONE_AT_A_TIME: u16 = 512;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The charter's version and value.
    pub charter: (u8, Id),
    /// The one before it, while stale reads are still in the budget.
    pub charter_before: Option<(u8, Id)>,
    pub machines: [Machine; MACHINES],
    pub volumes: Vec<Disc>,
    /// The members of slot 3; the two others are always listed.
    pub members: Vec<Voter>,
    /// The id of the next member.
    pub next: u8,
    /// Slot 3's record.
    pub record: Record,
    pub copy: Id,
    pub lock: Option<u8>,
    /// Requests whose senders gave up on them, and which may yet arrive.
    pub flights: Vec<Flight>,
    /// What EC2 said before its last change, while stale answers are still in the budget.
    pub before: Option<Listing>,
    pub left: Budget,
    /// *Ghost*: the rules that were broken.
    pub broken: u16,
}

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// It has not been launched.
    Absent,
    Running,
    /// EC2 says shutting-down, and its processes still run.
    Ending,
    /// EC2 says shutting-down, and nothing runs on it any more.
    Off,
    Terminated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    Off,
    Up,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    pub life: Life,
    /// Cut off from everybody.
    pub cut: bool,
    pub mounted: bool,
    pub launch: Option<Id>,
    pub etcd: Process,
    /// The plan in hand, and the next step in it.
    pub plan: Option<(Id, u8)>,
}

/// A volume of slot 3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disc {
    pub zone: u8,
    /// The client token that it was created with.
    pub token: Id,
    pub holder: Option<u8>,
    /// Its detachment was asked for.
    pub detaching: bool,
    pub formatted: bool,
    pub tag: Option<Id>,
    pub stamp: Option<Id>,
    /// The member whose data are on it.
    pub data: Option<u8>,
}

/// What EC2 tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listing {
    pub machines: [Life; MACHINES],
    /// Zone, holder, whether it is being detached, and stamp tag of each volume.
    pub volumes: Vec<(u8, Option<u8>, bool, Option<Id>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Voter {
    pub id: u8,
    /// The machine at whose address its peers look for it.
    pub at: u8,
    pub learner: bool,
    /// Whether it has published its name.
    pub started: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub volume: u8,
    pub machine: u8,
    pub member: Option<u8>,
}

/// A step of a plan whose request is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight {
    pub plan: Id,
    pub step: u8,
    pub machine: u8,
}

/// How often each kind of bad weather may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Machines that EC2 ends.
    pub ends: u8,
    /// Machines that come: the successors in zone c and in zone a.
    pub comes: u8,
    pub crashes: u8,
    pub late: u8,
    /// Looks with EC2's answer from before its last change.
    pub stale: u8,
    /// Looks with the charter from before its last change.
    pub charters: u8,
    /// Looks to which one of S3, EC2 and etcd does not answer.
    pub blind: u8,
    /// Looks to which EC2 says for once that it does not find a machine that runs.
    pub missing: u8,
    pub cuts: u8,
    /// Locks that lapse though their holders live.
    pub lapses: u8,
}

impl World {
    pub fn machine(&self, number: u8) -> &Machine {
        &self.machines[usize::from(number) - 1]
    }

    pub fn machine_mut(&mut self, number: u8) -> &mut Machine {
        &mut self.machines[usize::from(number) - 1]
    }

    pub fn lives(&self, number: u8) -> bool {
        matches!(self.machine(number).life, Life::Running | Life::Ending)
    }

    /// Whether EC2's truth is that a machine ends or has ended.
    pub fn never_runs_again(&self, number: u8) -> bool {
        matches!(self.machine(number).life, Life::Ending | Life::Off | Life::Terminated)
    }

    pub fn reaches(&self, number: u8) -> bool {
        self.lives(number) && !self.machine(number).cut
    }

    /// The volume that a machine holds.
    pub fn held(&self, number: u8) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.holder == Some(number))
    }

    pub fn member(&self, id: u8) -> Option<&Voter> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The machine on which a member runs and can be talked to.
    pub fn runs(&self, id: u8) -> Option<u8> {
        MOVING.into_iter().find(|number| {
            let data = self.held(*number).and_then(|volume| self.volumes[volume].data);
            self.reaches(*number) && self.machine(*number).etcd == Process::Up && data == Some(id)
        })
    }

    pub fn listing(&self) -> Listing {
        Listing {
            machines: std::array::from_fn(|index| self.machines[index].life),
            volumes: self
                .volumes
                .iter()
                .map(|volume| (volume.zone, volume.holder, volume.detaching, volume.tag))
                .collect(),
        }
    }

    /// Remembers what EC2 says now, just before it changes.
    pub fn ec2_changes(&mut self) {
        if self.left.stale > 0 {
            self.before = Some(self.listing());
        }
    }

    /// EC2 says shutting-down: it never runs again, though for a while its processes do.
    pub fn end(&mut self, number: u8) {
        self.ec2_changes();
        self.machine_mut(number).life = Life::Ending;
    }

    pub fn power_off(&mut self, number: u8) {
        let machine = self.machine_mut(number);
        machine.life = Life::Off;
        (machine.plan, machine.etcd, machine.mounted) = (None, Process::Off, false);
        (machine.cut, machine.launch) = (false, None);
    }

    pub fn terminate(&mut self, number: u8) {
        self.ec2_changes();
        self.machine_mut(number).life = Life::Terminated;
        if let Some(volume) = self.held(number) {
            self.release(volume);
        }
    }

    pub fn release(&mut self, volume: usize) {
        self.ec2_changes();
        let volume = &mut self.volumes[volume];
        (volume.holder, volume.detaching) = (None, false);
    }

    /// What follows by itself, and what must never be.
    pub fn settle(&mut self) {
        for number in MOVING {
            let data = self.held(number).and_then(|volume| self.volumes[volume].data);
            let listed = data.is_some_and(|id| self.member(id).is_some());
            let reaches = self.reaches(number);
            let machine = self.machine_mut(number);
            // Its peers tell a removed member so.
            if machine.etcd == Process::Up && reaches && !listed {
                machine.etcd = Process::Failed;
            }
        }
        let learners = self.members.iter().filter(|member| member.learner).count();
        if learners > 1 || self.members.len() - learners > 1 {
            self.broken |= rule::CROWD;
        }
        self.flights.sort_unstable();
        if self.left.stale == 0 {
            self.before = None;
        }
        if self.left.charters == 0 {
            self.charter_before = None;
        }
    }

    /// Three healthy voters, and nothing else.
    pub fn whole(&self) -> bool {
        matches!(self.members.as_slice(), [member] if !member.learner && self.runs(member.id).is_some())
    }
}
