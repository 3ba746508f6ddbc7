//! The world in motion: what can happen next, and what must hold whatever happened.

use quorate::model::*;
use stateright::{Model, Property};

use super::super::acts::{can_be_late, is_upkeep};
use super::super::tables::Id;
use super::acts::is_private;
use super::mutations::Mutation;
use super::sight::{Look, Planner, machine_number};
use super::world::{
    BACK, Budget, Disc, FIRST, Flight, LOST, Life, MACHINES, MOVING, Machine, NEXT, Process, Record, SECOND,
    VOTER, Voter, World, rule,
};
use crate::planner::scene;

/// A world to be explored.
#[derive(Debug)]
pub struct Exploration {
    pub planner: Planner,
    pub start: World,
    /// The machines that may come.
    pub coming: Vec<u8>,
    /// One state in so many is asked whether it heals.
    pub heal_sample: u64,
    /// Whether an agent writes down at once what is so already.
    pub prompt_upkeep: bool,
    looks: Vec<Look>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// The agent looks, and takes up the plan.
    Look(u8, Look),
    /// The agent takes its next step: what is private first, then one that others can see.
    Step(u8),
    /// The request of the next visible step goes out, and its sender gives up on it.
    Late(u8),
    Arrive(usize),
    /// After so many private steps the agent is killed.
    Crash(u8, u8),
    Come(u8),
    End(u8),
    PowerOff(u8),
    Terminate(u8),
    Cut(u8),
    Mend(u8),
    Release(usize),
    LockLapses,
}

impl Exploration {
    /// Slot 3's machine is well, and there are standbys in zones a and b.
    pub fn new(mutation: Option<Mutation>, left: Budget) -> Self {
        let planner = Planner::new(mutation);
        let mut looks = vec![Look::Clear, Look::Patient];
        let budgeted: [(u8, &[Look]); 4] = [
            (left.stale, &[Look::Stale]),
            (left.charters, &[Look::OldCharter]),
            (left.missing, &[Look::Missing]),
            (left.blind, &[Look::NoCharter, Look::NoEc2, Look::NoCluster]),
        ];
        budgeted.iter().filter(|(left, _)| *left > 0).for_each(|(_, more)| looks.extend_from_slice(more));
        let start = start(&planner, left);
        Self { planner, start, coming: vec![BACK, NEXT], heal_sample: 32, prompt_upkeep: true, looks }
    }

    /// Only these machines are there or may come.
    pub fn with(mut self, standbys: &[u8], coming: &[u8]) -> Self {
        for number in [FIRST, SECOND] {
            if !standbys.contains(&number) {
                self.start.machine_mut(number).life = Life::Absent;
            }
        }
        self.coming = coming.to_vec();
        self
    }

    /// Begins when slot 3's machine is terminated.
    pub fn gone(mut self) -> Self {
        self.start.power_off(LOST);
        self.start.terminate(LOST);
        self.start.before = None;
        self
    }

    /// Begins when the first standby has taken the slot over, and holds a formatted volume for it.
    pub fn moved(self) -> Self {
        let mut moved = self.gone();
        let left = std::mem::take(&mut moved.start.left);
        for _ in 0..20 {
            let held = moved.start.held(FIRST).map(|place| &moved.start.volumes[place]);
            if held.is_some_and(|volume| volume.tag.is_some()) {
                moved.start.left = left;
                return moved;
            }
            let mut world = moved.start.clone();
            moved.turn(&mut world, FIRST, Look::Patient);
            moved.start = world;
        }
        panic!("the slot is not taken over: {:#?}", moved.start);
    }

    pub fn late_upkeep(mut self) -> Self {
        self.prompt_upkeep = false;
        self
    }

    /// How many private steps come next in the plan in hand, and whether a visible one follows.
    fn run(&self, machine: &Machine) -> (u8, bool) {
        let Some((plan, at)) = machine.plan else { return (0, false) };
        let plan = self.planner.tables.plans.get(plan);
        let rest = &plan.steps[usize::from(at)..];
        let private = rest.iter().take_while(|step| is_private(step)).count();
        (u8::try_from(private).unwrap(), private < rest.len())
    }

    /// Performs so many steps of the plan in hand. A step that fails ends the plan.
    fn perform(&self, world: &mut World, number: u8, steps: u8) {
        for _ in 0..steps {
            let Some((plan, step)) = world.machine(number).plan else { return };
            let done = self.planner.perform(world, Flight { plan, step, machine: number }, false);
            let last = usize::from(step) + 1 == self.planner.tables.plans.get(plan).steps.len();
            world.machine_mut(number).plan = (done && !last).then_some((plan, step + 1));
        }
    }

    fn look(&self, world: &mut World, number: u8, look: Look) -> bool {
        let (id, plan) = self.planner.planned(world, number, look);
        if plan.steps.is_empty() {
            return false;
        }
        self.planner.check_plan(world, number, id, look);
        match look {
            Look::Clear | Look::Patient => {}
            Look::Stale => world.left.stale -= 1,
            Look::OldCharter => world.left.charters -= 1,
            Look::Missing => world.left.missing -= 1,
            Look::NoCharter | Look::NoEc2 | Look::NoCluster => world.left.blind -= 1,
        }
        world.machine_mut(number).plan = Some((id, 0));
        true
    }

    /// A whole round: the agent looks, and does all of its plan.
    fn turn(&self, world: &mut World, number: u8, look: Look) {
        if world.machine(number).plan.is_none() {
            self.look(world, number, look);
        }
        while world.machine(number).plan.is_some() {
            self.perform(world, number, 1);
            world.settle();
        }
    }

    /// The next visible step, if its request can be late.
    fn late(&self, machine: &Machine) -> Option<(Id, u8)> {
        let (plan, at) = machine.plan?;
        let (private, visible) = self.run(machine);
        let step = at + private;
        let can = visible && can_be_late(&self.planner.tables.plans.get(plan).steps[usize::from(step)]);
        can.then_some((plan, step))
    }

    /// What has happened after an act; `None` when nothing has.
    fn after(&self, last: &World, act: Act) -> Option<World> {
        let mut world = last.clone();
        match act {
            Act::Look(number, look) => {
                if !self.look(&mut world, number, look) {
                    return None;
                }
            }
            Act::Step(number) => {
                let (private, visible) = self.run(world.machine(number));
                self.perform(&mut world, number, private + u8::from(visible));
            }
            Act::Late(number) => {
                let (private, _) = self.run(world.machine(number));
                let (plan, step) = self.late(world.machine(number))?;
                self.perform(&mut world, number, private);
                world.flights.push(Flight { plan, step, machine: number });
                world.machine_mut(number).plan = None;
                world.left.late -= 1;
            }
            Act::Arrive(index) => {
                let flight = world.flights.remove(index);
                self.planner.perform(&mut world, flight, true);
            }
            Act::Crash(number, steps) => {
                self.perform(&mut world, number, steps);
                world.machine_mut(number).plan = None;
                world.left.crashes -= 1;
            }
            Act::Come(number) => {
                world.ec2_changes();
                world.machine_mut(number).life = Life::Running;
                world.left.comes -= 1;
            }
            Act::End(number) => {
                world.end(number);
                world.left.ends -= 1;
            }
            Act::PowerOff(number) => world.power_off(number),
            Act::Terminate(number) => world.terminate(number),
            Act::Cut(number) => {
                world.machine_mut(number).cut = true;
                world.left.cuts -= 1;
            }
            Act::Mend(number) => world.machine_mut(number).cut = false,
            Act::Release(volume) => world.release(volume),
            Act::LockLapses => {
                let holder = world.lock?;
                // A dead holder's lock lapses; that of a live one only by bad luck.
                if world.reaches(holder) {
                    world.left.lapses = world.left.lapses.checked_sub(1)?;
                }
                world.lock = None;
            }
        }
        world.settle();
        self.rush(&mut world);
        (world != *last).then_some(world)
    }

    /// What is only written down need not wait.
    fn rush(&self, world: &mut World) {
        if !self.prompt_upkeep {
            return;
        }
        for number in MOVING.into_iter().chain([VOTER]) {
            let machine = world.machine(number);
            let runs = number == VOTER || machine.etcd == Process::Up;
            if !runs || machine.plan.is_some() || !world.reaches(number) {
                continue;
            }
            let (id, plan) = self.planner.planned(world, number, Look::Clear);
            if !plan.steps.is_empty() && plan.steps.iter().all(is_upkeep) {
                world.machine_mut(number).plan = Some((id, 0));
                self.perform(world, number, u8::try_from(plan.steps.len()).unwrap());
                world.machine_mut(number).plan = None;
            }
        }
    }

    /// The world once nothing bad happens any more, and every agent has done all it wants to.
    ///
    /// # Errors
    /// There is a machine for the slot, and no third healthy voter; or the agents go on for ever.
    pub fn healed(&self, world: &World) -> Result<World, String> {
        let mut world =
            World { left: Budget::default(), before: None, charter_before: None, ..world.clone() };
        for _ in 0..60 {
            let before = world.clone();
            while !world.flights.is_empty() {
                let flight = world.flights.remove(0);
                self.planner.perform(&mut world, flight, true);
            }
            for number in MOVING {
                world.machine_mut(number).cut = false;
                match world.machine(number).life {
                    Life::Ending | Life::Off => {
                        world.power_off(number);
                        world.terminate(number);
                    }
                    Life::Absent | Life::Running | Life::Terminated => {}
                }
            }
            world.lock = world.lock.filter(|holder| world.lives(*holder));
            world.settle();
            if world.broken != 0 {
                return Err(format!("a rule is broken: {}", world.broken));
            }
            let living: Vec<u8> = Self::living(&world).collect();
            for number in living {
                for volume in 0..world.volumes.len() {
                    if world.volumes[volume].detaching {
                        world.release(volume);
                    }
                }
                for look in [Look::Clear, Look::Patient] {
                    self.turn(&mut world, number, look);
                }
            }
            // What is not done needs no version of its own.
            if (World { charter: before.charter, ..world.clone() }) == before {
                let able = MOVING.into_iter().any(|number| world.lives(number));
                let well = !able || world.whole() && !left_over(&world);
                return if well && self.nobody_halts(&world) { Ok(world) } else { Err(self.told(&world)) };
            }
        }
        Err(format!("it never comes to rest: {}", self.told(&world)))
    }

    fn living(world: &World) -> impl Iterator<Item = u8> {
        MOVING.into_iter().chain([VOTER]).filter(|number| world.lives(*number))
    }

    fn nobody_halts(&self, world: &World) -> bool {
        Self::living(world).all(|number| {
            let (_, plan) = self.planner.planned(world, number, Look::Clear);
            let stated = plan.report.phase == Phase::Running || !plan.report.waiting.is_empty();
            plan.report.halt.is_none() && stated && plan.steps.is_empty()
        })
    }

    /// What each agent says of itself.
    fn told(&self, world: &World) -> String {
        let say = |number: u8| {
            let (_, plan) = self.planner.planned(world, number, Look::Clear);
            let steps = scene::names(&plan);
            let report = &plan.report;
            format!("{number}: {:?} {:?} {:?} {steps:?}; ", report.phase, report.halt, report.waiting)
        };
        Self::living(world).map(say).collect()
    }
}

/// Whether somebody holds a volume on which no member lives.
fn left_over(world: &World) -> bool {
    world.volumes.iter().any(|volume| volume.holder.is_some() && volume.data.is_none())
}

fn start(planner: &Planner, left: Budget) -> World {
    let machine = |life: Life| Machine {
        life,
        cut: false,
        mounted: false,
        launch: None,
        etcd: Process::Off,
        plan: None,
    };
    let charter = planner.tables.charters.put(scene::charter(&[1, 2, 3]));
    let member = scene::member_of(3);
    let mut machines: [Machine; MACHINES] = std::array::from_fn(|_| machine(Life::Running));
    for number in [BACK, NEXT] {
        machines[usize::from(number) - 1] = machine(Life::Absent);
    }
    let launch = quorate::model::cluster::EtcdLaunch {
        slot: scene::slot(3),
        address: scene::address(3),
        ..scene::launch(LaunchState::New)
    };
    let lost = &mut machines[usize::from(LOST) - 1];
    (lost.mounted, lost.etcd, lost.launch) = (true, Process::Up, Some(planner.tables.launches.put(launch)));
    World {
        charter: (1, charter),
        charter_before: None,
        machines,
        volumes: vec![Disc {
            zone: 3,
            token: planner.tables.tokens.put("the founder's".to_owned()),
            holder: Some(LOST),
            detaching: false,
            formatted: true,
            tag: Some(planner.tables.tags.put(member.to_string())),
            stamp: Some(planner.tables.stamps.put(member)),
            data: Some(3),
        }],
        members: vec![Voter { id: 3, at: LOST, learner: false, started: true }],
        next: 4,
        record: Record { volume: 0, machine: machine_number(&scene::instance(LOST)), member: Some(3) },
        copy: charter,
        lock: None,
        flights: Vec::new(),
        before: None,
        left,
        broken: 0,
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let left = world.left;
        for number in MOVING.into_iter().chain([VOTER]) {
            let machine = world.machine(number);
            match machine.life {
                Life::Absent => {
                    if left.comes > 0 && self.coming.contains(&number) {
                        acts.push(Act::Come(number));
                    }
                }
                Life::Off => acts.push(Act::Terminate(number)),
                Life::Terminated => {}
                Life::Running | Life::Ending => self.actions_of(world, number, acts),
            }
        }
        acts.extend((0..world.flights.len()).map(Act::Arrive));
        for (index, volume) in world.volumes.iter().enumerate() {
            if volume.detaching && volume.holder.is_some_and(|holder| !world.machine(holder).mounted) {
                acts.push(Act::Release(index));
            }
        }
        if world.lock.is_some() {
            acts.push(Act::LockLapses);
        }
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        // What broke a rule is not followed any further.
        if last.broken != 0 { None } else { self.after(last, act) }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn kept<const RULE: u16>(_: &Exploration, world: &World) -> bool {
            world.broken & RULE == 0
        }
        vec![
            Property::always("there is one line of charters", kept::<{ rule::ONE_LINE }>),
            Property::always("a slot has one voter and one learner at most", kept::<{ rule::CROWD }>),
            Property::always("a member is removed only on EC2's word", kept::<{ rule::EVIDENCE }>),
            Property::always("no listed member's data are set aside", kept::<{ rule::NOTHING_DESTROYED }>),
            Property::always("a removed member's data are not started", kept::<{ rule::REMOVED_DATA }>),
            Property::always("no volume with a member is let go", kept::<{ rule::LET_GO }>),
            Property::always("no volume starts as new, or is formatted twice", kept::<{ rule::NEVER_NEW }>),
            Property::always("a volume is attached where its slot is", kept::<{ rule::PLACE }>),
            Property::always("a slot moves only when its zone has nobody for it", kept::<{ rule::MOVED }>),
            Property::always("membership changes one at a time", kept::<{ rule::ONE_AT_A_TIME }>),
            Property::always("the cluster heals", |model: &Exploration, world: &World| {
                world.broken != 0 || !sampled(world, model.heal_sample) || model.healed(world).is_ok()
            }),
            Property::sometimes("the slot's new member is well", |_, world: &World| {
                world.whole() && world.members[0].id != 3
            }),
        ]
    }
}

impl Exploration {
    fn actions_of(&self, world: &World, number: u8, acts: &mut Vec<Act>) {
        let (left, machine) = (world.left, world.machine(number));
        if machine.plan.is_some() {
            acts.push(Act::Step(number));
            if left.late > 0 && !machine.cut && self.late(machine).is_some() {
                acts.push(Act::Late(number));
            }
            if left.crashes > 0 {
                let (private, _) = self.run(machine);
                acts.extend((0..=private).map(|steps| Act::Crash(number, steps)));
            }
        } else if !machine.cut {
            let looks = self.looks.iter().copied().filter(|look| can_look(world, *look));
            acts.extend(looks.map(|look| Act::Look(number, look)));
        }
        if number == VOTER {
            return;
        }
        if machine.life == Life::Ending {
            acts.push(Act::PowerOff(number));
            return;
        }
        if left.ends > 0 {
            acts.push(Act::End(number));
        }
        if machine.cut {
            acts.push(Act::Mend(number));
        } else if left.cuts > 0 {
            acts.push(Act::Cut(number));
        }
    }
}

fn can_look(world: &World, look: Look) -> bool {
    let left = world.left;
    match look {
        Look::Clear | Look::Patient => true,
        Look::Stale => left.stale > 0 && world.before.is_some(),
        Look::OldCharter => left.charters > 0 && world.charter_before.is_some(),
        Look::Missing => left.missing > 0 && world.machine(world.record.machine).life == Life::Running,
        Look::NoCharter | Look::NoEc2 | Look::NoCluster => left.blind > 0,
    }
}

fn sampled(world: &World, one_in: u64) -> bool {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish() % one_in == 0
}
