//! The world in motion: what can happen next, and what must hold whatever happened.

use quorate::model::*;
use stateright::{Model, Property};

use super::acts::{can_be_late, is_change, is_private, is_upkeep};
use super::mutations::Mutation;
use super::sight::{Look, Planner};
use super::tables::Id;
use super::world::{Budget, Flight, Place, Process, SLOTS, World, majority, rule};

/// A world to be explored.
#[derive(Debug)]
pub struct Exploration {
    pub planner: Planner,
    pub start: World,
    /// Whether the cluster must come whole again from every state, once nothing bad happens any
    /// more. Holds while the budget is within what the cluster promises to survive.
    pub must_heal: bool,
    /// One state in so many is asked whether it heals.
    pub heal_sample: u64,
    /// The looks that are tried besides the clear and the patient one.
    pub looks: Vec<Look>,
    /// Whether an agent writes down at once what is so already. Leaves out the states in which
    /// records and copies are late.
    pub prompt_upkeep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// The agent looks, and takes up the plan.
    Look(usize, Look),
    /// The agent takes its next step: what is private first, then one that others can see.
    Step(usize),
    /// The request of the next visible step goes out, and its sender gives up on it.
    Late(usize),
    Arrive(usize),
    Boot(usize),
    Form(usize),
    /// After so many private steps the agent is killed.
    Crash(usize, u8),
    /// The machine reboots.
    Reboot(usize, u8),
    Terminate(usize, u8),
    Launch(usize, bool),
    LoseVolume(usize),
    SpareVolume(usize),
    DeleteSpare(usize),
    Wipe(usize),
    LoseCharter,
    Cut(usize),
    Mend,
    LockLapses(usize),
    /// A write is acknowledged; one member may not have it yet.
    Write(Option<usize>),
    CatchUp(usize),
    /// An operator's `quorate etcd restore` on the machine of a place.
    Restore(usize),
    /// An operator's `quorate etcd recover`, from the data of a place.
    Recover(usize),
}

impl World {
    /// Three places, each with a formatted volume; machines where `up` says so.
    pub fn new(planner: &Planner, up: [bool; SLOTS], left: Budget) -> Self {
        let stamp = Some(planner.tables.stamps.put(StampState::Formatted));
        let tag = Some(planner.tables.tags.put("formatted".to_owned()));
        let place = |slot: usize| Place {
            machine: 0,
            up: up[slot],
            address: u8::try_from(slot).unwrap() * 16,
            plan: None,
            etcd: Process::Off,
            launch: None,
            volume: 0,
            kept: false,
            kept_tag: None,
            kept_ran: 0,
            stamp,
            tag,
            aside: 0,
            chosen: 0,
            copy: None,
            data: None,
            ran: 0,
        };
        Self {
            charter: None,
            versions: 0,
            places: std::array::from_fn(place),
            lineages: Vec::new(),
            flights: Vec::new(),
            before: None,
            cut: None,
            left,
            backup: false,
            given_up: 0,
            broken: 0,
        }
    }
}

impl Exploration {
    pub fn new(up: [bool; SLOTS], left: Budget) -> Self {
        let planner = Planner::new();
        let start = World::new(&planner, up, left);
        let mut looks = Vec::new();
        if left.stale > 0 {
            looks.push(Look::Stale);
        }
        if left.slow_learners > 0 {
            looks.push(Look::Fed);
        }
        if left.blind > 0 {
            looks.extend([Look::NoCharter, Look::NoEc2, Look::NoCluster, Look::NotFound]);
        }
        Self { planner, start, must_heal: false, heal_sample: 32, looks, prompt_upkeep: true }
    }

    /// Begins with a cluster that is whole and has everything in order.
    pub fn formed(mut self) -> Self {
        let left = self.start.left;
        self.start.left = Budget::default();
        self.start =
            self.healed(&self.start).unwrap_or_else(|why| panic!("the cluster does not form: {why}"));
        self.start.left = left;
        self
    }

    /// There is a backup.
    pub fn backed(mut self) -> Self {
        self.start.backup = true;
        self
    }

    /// Begins with a cluster of which these volumes are gone with their machines, and new machines with blank ones.
    pub fn without(self, slots: std::ops::Range<usize>) -> Self {
        let left = self.start.left;
        let mut begun = self.formed().backed();
        begun.start.left = Budget::default();
        for slot in slots {
            begun.start.terminate(slot);
            begun.start.new_volume(slot, false);
            let formatted = begun.planner.tables.stamps.put(StampState::Formatted);
            begun.start.places[slot].stamp = Some(formatted);
            begun.start.places[slot].tag = Some(begun.planner.tables.tags.put("formatted".to_owned()));
            begun.start.launch(slot, false);
        }
        begun.start.left = left;
        begun
    }

    pub fn without_all(self) -> Self {
        self.without(0..SLOTS)
    }

    pub fn without_two(self) -> Self {
        self.without(0..SLOTS - 1)
    }

    pub fn late_upkeep(mut self) -> Self {
        self.prompt_upkeep = false;
        self
    }

    pub fn must_heal(mut self) -> Self {
        self.must_heal = true;
        self
    }

    /// How many private steps come next in the plan in hand, and whether a visible one follows.
    fn run(&self, place: &Place) -> (u8, bool) {
        let Some((plan, at)) = place.plan else { return (0, false) };
        let plan = self.planner.tables.plans.get(plan);
        if at == 0 && plan.steps.iter().all(is_upkeep) {
            return (u8::try_from(plan.steps.len()).unwrap(), false);
        }
        let rest = &plan.steps[usize::from(at)..];
        let private = rest.iter().take_while(|step| is_private(step)).count();
        (u8::try_from(private).unwrap(), private < rest.len())
    }

    /// Performs so many steps of the plan in hand. `false` when one failed, which ends the plan.
    fn perform(&self, world: &mut World, slot: usize, steps: u8) -> bool {
        for _ in 0..steps {
            let place = &world.places[slot];
            let Some((plan, step)) = place.plan else { return false };
            let slot_number = u8::try_from(slot).unwrap();
            let flight = Flight { plan, step, slot: slot_number, machine: place.machine, to: None };
            let done = self.planner.perform(world, flight);
            let last = usize::from(step) + 1 == self.planner.tables.plans.get(plan).steps.len();
            let goes_on = done || self.planner.mutation == Some(Mutation::FailureIgnored);
            world.places[slot].plan = (goes_on && !last).then_some((plan, step + 1));
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn look(&self, world: &mut World, slot: usize, look: Look) -> bool {
        let (id, plan) = self.planner.planned(world, slot, look);
        if plan.steps.is_empty() {
            return false;
        }
        if look != Look::NoCluster {
            self.planner.check_plan(world, slot, id);
        }
        match look {
            Look::Clear | Look::Patient => {}
            Look::Fed => world.left.slow_learners -= 1,
            Look::Stale => world.left.stale -= 1,
            Look::NoCharter | Look::NoEc2 | Look::NoCluster | Look::NotFound => world.left.blind -= 1,
        }
        world.places[slot].plan = Some((id, 0));
        true
    }

    /// The next visible step, if its request can be late.
    fn late(&self, place: &Place) -> Option<(Id, u8)> {
        let (plan, at) = place.plan?;
        let (private, visible) = self.run(place);
        let step = at + private;
        let can = visible && can_be_late(&self.planner.tables.plans.get(plan).steps[usize::from(step)]);
        can.then_some((plan, step))
    }

    /// What has happened after an act; `None` when nothing has.
    fn after(&self, last: &World, act: Act) -> Option<World> {
        let mut world = last.clone();
        match act {
            Act::Look(slot, look) => {
                if !self.look(&mut world, slot, look) {
                    return None;
                }
            }
            Act::Step(slot) => {
                let (private, visible) = self.run(&world.places[slot]);
                self.perform(&mut world, slot, private + u8::from(visible));
            }
            Act::Late(slot) => {
                let (private, _) = self.run(&world.places[slot]);
                let (plan, step) = self.late(&world.places[slot])?;
                self.perform(&mut world, slot, private);
                let machine = world.places[slot].machine;
                let mut flight = Flight { plan, step, slot: u8::try_from(slot).unwrap(), machine, to: None };
                let asked = self.planner.tables.plans.get(plan).steps[usize::from(step)].clone();
                if !matches!(asked, Step::CreateCharter { .. } | Step::AmendCharter { .. }) {
                    let index = self.planner.heard_by(&world, flight)?;
                    if is_change(&asked) && world.lineages[index].lock != Some((flight.slot, machine)) {
                        return None;
                    }
                    flight.to = u8::try_from(index).ok();
                }
                world.flights.push(flight);
                let last = usize::from(step) + 1 == self.planner.tables.plans.get(plan).steps.len();
                let goes_on = self.planner.mutation == Some(Mutation::LostAnswerIsSuccess) && !last;
                world.places[slot].plan = goes_on.then_some((plan, step + 1));
                world.left.late -= 1;
            }
            Act::Arrive(index) => {
                let flight = world.flights.remove(index);
                self.planner.perform(&mut world, flight);
            }
            Act::Boot(slot) => self.planner.boot(&mut world, slot),
            Act::Form(lineage) => world.form(lineage),
            Act::Crash(slot, steps) => {
                self.perform(&mut world, slot, steps);
                world.places[slot].plan = None;
                world.left.crashes -= 1;
            }
            Act::Reboot(slot, steps) => {
                self.perform(&mut world, slot, steps);
                world.places[slot].plan = None;
                world.places[slot].etcd = Process::Off;
                world.left.reboots -= 1;
            }
            Act::Terminate(slot, steps) => {
                self.perform(&mut world, slot, steps);
                world.terminate(slot);
                world.left.replacements -= 1;
            }
            Act::Launch(slot, same) => {
                world.launch(slot, same);
                world.left.reuses -= u8::from(same);
            }
            Act::LoseVolume(slot) => {
                world.terminate(slot);
                world.new_volume(slot, false);
                world.left.losses -= 1;
            }
            Act::SpareVolume(slot) => {
                world.terminate(slot);
                world.new_volume(slot, true);
                world.left.spares -= 1;
            }
            Act::DeleteSpare(slot) => {
                world.ec2_changes();
                let place = &mut world.places[slot];
                (place.kept, place.kept_tag, place.kept_ran) = (false, None, 0);
            }
            Act::Wipe(slot) => {
                let place = &mut world.places[slot];
                place.plan = None;
                place.etcd = Process::Off;
                place.stamp = None;
                place.copy = None;
                place.data = None;
                place.aside = 0;
                world.left.wipes -= 1;
            }
            Act::LoseCharter => {
                world.charter = None;
                world.left.charters -= 1;
            }
            Act::Cut(slot) => {
                world.cut = u8::try_from(slot).ok();
                world.left.cuts -= 1;
            }
            Act::Mend => world.cut = None,
            Act::LockLapses(lineage) => {
                let (slot, machine) = world.lineages[lineage].lock?;
                let place = &world.places[usize::from(slot)];
                // A dead holder's lock lapses; that of a live one only by bad luck.
                if place.up && place.machine == machine {
                    world.left.lapses = world.left.lapses.checked_sub(1)?;
                }
                world.lineages[lineage].lock = None;
            }
            Act::Write(lag) => {
                world.left.writes -= 1;
                let lineage = world.answering()?;
                write(&mut world, lineage, lag)?;
            }
            Act::Restore(slot) | Act::Recover(slot) => {
                world.left.operators -= 1;
                self.planner.command(&mut world, slot, matches!(act, Act::Recover(_)))?;
            }
            Act::CatchUp(slot) => {
                let data = world.places[slot].data?;
                let newest = world.lineages[usize::from(data.lineage)].acknowledged;
                world.places[slot].data = Some(super::world::Data { revision: newest, ..data });
            }
        }
        world.settle();
        self.rush(&mut world);
        (world != *last).then_some(world)
    }

    /// What need not wait, since nothing can come in between that matters.
    fn rush(&self, world: &mut World) {
        let left = world.left;
        let calm = left.reboots + left.replacements + left.losses + left.spares + left.wipes + left.cuts == 0;
        if calm && world.cut.is_none() {
            for slot in 0..SLOTS {
                if world.places[slot].up && world.places[slot].etcd == Process::Launched {
                    self.planner.boot(world, slot);
                }
            }
            for lineage in 0..world.lineages.len() {
                if world.can_form(lineage) {
                    world.form(lineage);
                }
            }
            world.settle();
        }
        if !self.prompt_upkeep || world.answering().is_none() {
            return;
        }
        for slot in 0..SLOTS {
            let place = &world.places[slot];
            if place.up && place.etcd == Process::Up && place.plan.is_none() {
                let (id, plan) = self.planner.planned(world, slot, Look::Clear);
                if !plan.steps.is_empty() && plan.steps.iter().all(is_upkeep) {
                    world.places[slot].plan = Some((id, 0));
                    let steps = u8::try_from(plan.steps.len()).unwrap();
                    self.perform(world, slot, steps);
                    world.places[slot].plan = None;
                }
            }
        }
    }

    /// Whether a member that lags can catch up: it runs in a cluster that has a quorum.
    fn behind(&self, world: &World, slot: usize) -> bool {
        let Some(data) = world.places[slot].data else { return false };
        let index = usize::from(data.lineage);
        let lineage = &world.lineages[index];
        data.revision < lineage.acknowledged
            && world.answering() == Some(index)
            && lineage.members.iter().any(|member| member.id == data.member && world.runs(index, member))
    }

    /// The world once nothing bad happens any more, and every agent has done all it wants to.
    ///
    /// # Errors
    /// The cluster is not whole then, or the agents go on for ever.
    pub fn healed(&self, world: &World) -> Result<World, String> {
        let mut world = World { left: Budget::default(), cut: None, before: None, ..world.clone() };
        for _ in 0..100 {
            let before = world.clone();
            while !world.flights.is_empty() {
                world = self.after(&world, Act::Arrive(0)).unwrap_or(world);
            }
            for lineage in 0..world.lineages.len() {
                let holder = world.lineages[lineage].lock;
                let gone = holder.is_some_and(|(slot, machine)| {
                    let place = &world.places[usize::from(slot)];
                    !place.up || place.machine != machine
                });
                if gone {
                    world.lineages[lineage].lock = None;
                }
            }
            for slot in 0..SLOTS {
                let place = &mut world.places[slot];
                (place.kept, place.kept_tag, place.kept_ran) = (false, None, 0);
                if !world.places[slot].up {
                    world.launch(slot, false);
                }
                for look in [Look::Clear, Look::Patient] {
                    if world.places[slot].plan.is_none() {
                        self.look(&mut world, slot, look);
                    }
                }
                while world.places[slot].plan.is_some() {
                    self.perform(&mut world, slot, 1);
                    world.settle();
                }
                if world.places[slot].etcd == Process::Launched {
                    self.planner.boot(&mut world, slot);
                }
                for lineage in 0..world.lineages.len() {
                    if world.can_form(lineage) {
                        world.form(lineage);
                    }
                }
                world.settle();
                for slot in 0..SLOTS {
                    if self.behind(&world, slot) {
                        world = self.after(&world, Act::CatchUp(slot)).unwrap_or(world);
                    }
                }
            }
            if world == before {
                let content = (0..SLOTS).all(|slot| {
                    let (_, plan) = self.planner.planned(&world, slot, Look::Clear);
                    plan.report.phase == Phase::Running && plan.steps.is_empty() && plan.report.halt.is_none()
                });
                return if content && whole(&world) { Ok(world) } else { Err(self.told(&world)) };
            }
        }
        Err(format!("it never comes to rest: {}", self.told(&world)))
    }

    /// What each agent says of itself.
    fn told(&self, world: &World) -> String {
        let say = |slot: usize| {
            let (_, plan) = self.planner.planned(world, slot, Look::Clear);
            format!("{slot}: {:?} {:?} {:?}; ", plan.report.phase, plan.report.halt, plan.report.waiting)
        };
        (0..SLOTS).map(say).collect()
    }
}

/// Three voters that run, and nothing else.
pub fn whole(world: &World) -> bool {
    world.answering().is_some_and(|lineage| {
        let members = &world.lineages[lineage].members;
        world.health(lineage, None) == (SLOTS, SLOTS) && members.len() == SLOTS
    })
}

fn write(world: &mut World, lineage: usize, lag: Option<usize>) -> Option<()> {
    let members = world.lineages[lineage].members.clone();
    let voters = members.iter().filter(|member| !member.learner).count();
    let having: Vec<usize> = members
        .iter()
        .filter(|member| world.runs(lineage, member) && Some(usize::from(member.slot)) != lag)
        .map(|member| usize::from(member.slot))
        .collect();
    let votes = members.iter().filter(|m| !m.learner && having.contains(&usize::from(m.slot))).count();
    if votes < majority(voters) {
        return None;
    }
    world.lineages[lineage].acknowledged += 1;
    let newest = world.lineages[lineage].acknowledged;
    for slot in having {
        if let Some(data) = &mut world.places[slot].data {
            data.revision = newest;
        }
    }
    Some(())
}

impl Model for Exploration {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let left = world.left;
        for slot in 0..SLOTS {
            let place = &world.places[slot];
            if !place.up {
                acts.push(Act::Launch(slot, false));
                if left.reuses > 0 {
                    acts.push(Act::Launch(slot, true));
                }
                continue;
            }
            let (private, _) = self.run(place);
            if place.plan.is_some() {
                acts.push(Act::Step(slot));
                if left.late > 0 && self.late(place).is_some() {
                    acts.push(Act::Late(slot));
                }
            } else {
                acts.extend([Act::Look(slot, Look::Clear), Act::Look(slot, Look::Patient)]);
                acts.extend(
                    self.looks
                        .iter()
                        .filter(|look| can_look(world, **look))
                        .map(|look| Act::Look(slot, *look)),
                );
            }
            if place.etcd == Process::Launched {
                acts.push(Act::Boot(slot));
            }
            if left.crashes > 0 && place.plan.is_some() {
                acts.extend((0..=private).map(|steps| Act::Crash(slot, steps)));
            }
            if left.reboots > 0 && (place.plan.is_some() || place.etcd != Process::Off) {
                acts.extend((0..=private).map(|steps| Act::Reboot(slot, steps)));
            }
            if left.replacements > 0 {
                acts.extend((0..=private).map(|steps| Act::Terminate(slot, steps)));
            }
            if left.losses > 0 {
                acts.push(Act::LoseVolume(slot));
            }
            if left.spares > 0 {
                acts.push(Act::SpareVolume(slot));
            }
            if place.kept {
                acts.push(Act::DeleteSpare(slot));
            }
            if left.wipes > 0 && place.stamp.is_some() {
                acts.push(Act::Wipe(slot));
            }
            if left.cuts > 0 && world.cut.is_none() {
                acts.push(Act::Cut(slot));
            }
            if left.operators > 0 && place.stamp.is_some() {
                acts.extend([Act::Restore(slot), Act::Recover(slot)]);
            }
            if self.behind(world, slot) {
                acts.push(Act::CatchUp(slot));
            }
        }
        acts.extend((0..world.flights.len()).map(Act::Arrive));
        for lineage in 0..world.lineages.len() {
            if world.can_form(lineage) {
                acts.push(Act::Form(lineage));
            }
            if world.lineages[lineage].lock.is_some() {
                acts.push(Act::LockLapses(lineage));
            }
        }
        if left.charters > 0 && world.charter.is_some() {
            acts.push(Act::LoseCharter);
        }
        if world.cut.is_some() {
            acts.push(Act::Mend);
        }
        if left.writes > 0 && world.answering().is_some() {
            acts.extend([Act::Write(None), Act::Write(Some(0)), Act::Write(Some(1)), Act::Write(Some(2))]);
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
        let mut properties = vec![
            Property::always("one cluster", kept::<{ rule::ONE_CLUSTER }>),
            Property::always("nothing that is valid is set aside", kept::<{ rule::NOTHING_DESTROYED }>),
            Property::always("a member with a memory never starts as new", kept::<{ rule::MEMORY }>),
            Property::always("a member is removed only when it can't come back", kept::<{ rule::EVIDENCE }>),
            Property::always(
                "membership changes one at a time, in good health",
                kept::<{ rule::ONE_AT_A_TIME }>,
            ),
            Property::always("a removed member's data are not started", kept::<{ rule::REMOVED_DATA }>),
            Property::always("no acknowledged write is lost", kept::<{ rule::LOST_WRITE }>),
            Property::always(
                "no generation is given up while a volume of it is left",
                kept::<{ rule::GIVEN_UP }>,
            ),
            Property::always("no empty etcd follows one that had a quorum", kept::<{ rule::EMPTY }>),
            Property::sometimes("the cluster is whole", |_, world| whole(world)),
        ];
        if self.must_heal {
            properties.push(Property::always("the cluster heals", |model: &Exploration, world: &World| {
                world.broken != 0 || !sampled(world, model.heal_sample) || model.healed(world).is_ok()
            }));
        }
        properties
    }
}

fn can_look(world: &World, look: Look) -> bool {
    match look {
        Look::Clear | Look::Patient => true,
        Look::Fed => world.left.slow_learners > 0,
        Look::Stale => world.left.stale > 0 && world.before.is_some(),
        Look::NoCharter | Look::NoEc2 | Look::NoCluster | Look::NotFound => world.left.blind > 0,
    }
}

fn sampled(world: &World, one_in: u64) -> bool {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish() % one_in == 0
}
