//! The loop against a world that does as a test says, and in which time passes only by resting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::config::{InstanceTags, load};
use crate::model::departure::DepartureObservation;
use crate::model::observation::EtcdObservation;
use crate::model::plan::Subject;
use crate::model::{
    Attachment, AttachmentState, Authority, Content, DataDir, Disk, EtcdVersion, Fact, Identity, Instance,
    InstanceId, InstanceState, Leaves, Mount, Role, ServiceState, Slot, Stamp, StampState, Volume,
    VolumeContents, VolumeId, VolumeState, Zone,
};

const START: i64 = 1_700_000_000_000;

/// What the loop did to its world.
#[derive(Debug, Clone, PartialEq)]
enum Act {
    Looked(Depth),
    Did(&'static str),
    Told(Phase),
    Rested(Duration),
}

/// Why a step of a test's world was not done.
#[derive(Debug, thiserror::Error)]
#[error("refused by the test")]
struct Refused;

type See = dyn FnMut(usize, i64) -> Option<Observation>;
type Do = dyn FnMut(&Step) -> Result<(), Refused>;

/// A world by script. After `rounds` looks it sends [`Event::Stop`].
struct Script {
    acts: Rc<RefCell<Vec<Act>>>,
    waits: Rc<RefCell<Vec<Vec<Waiting>>>>,
    now: i64,
    looks: usize,
    rounds: usize,
    /// What the n-th look shows at a moment; `None` when it never ends.
    see: Box<See>,
    /// What becomes of a step.
    act: Box<Do>,
    sender: Sender<Event>,
    notes: Rc<RefCell<Vec<Entry>>>,
}

impl World for Script {
    type Error = Refused;

    async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
        self.acts.borrow_mut().push(Act::Looked(depth));
        self.waits.borrow_mut().push(waiting.clone());
        self.looks += 1;
        let seen = (self.see)(self.looks, self.now);
        if self.looks >= self.rounds {
            self.sender.send(Event::Stop).await.unwrap();
        }
        match seen {
            Some(seen) => Observation { at: self.now, waiting, ..seen },
            None => std::future::pending().await,
        }
    }

    async fn execute(&mut self, step: &Step) -> Result<(), Refused> {
        self.acts.borrow_mut().push(Act::Did(step.name()));
        (self.act)(step)
    }

    fn tell(&mut self, _: &Status, _: &Observation, plan: &Plan) {
        self.acts.borrow_mut().push(Act::Told(plan.report.phase));
    }

    fn was_overtaken(_: &Refused) -> bool {
        false
    }

    fn note(&mut self, entry: Entry) {
        self.notes.borrow_mut().push(entry);
    }

    async fn rest(&mut self, after: Duration) {
        self.acts.borrow_mut().push(Act::Rested(after));
        self.now += i64::try_from(after.as_millis()).unwrap();
    }
}

/// An agent in a script's world.
struct Rig {
    agent: Agent<Script>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    acts: Rc<RefCell<Vec<Act>>>,
    waits: Rc<RefCell<Vec<Vec<Waiting>>>>,
    notes: Rc<RefCell<Vec<Entry>>>,
}

impl Rig {
    fn new(rounds: usize, see: impl FnMut(usize, i64) -> Option<Observation> + 'static) -> Self {
        Self::doing(rounds, see, |_| Ok(()))
    }

    fn doing(
        rounds: usize,
        see: impl FnMut(usize, i64) -> Option<Observation> + 'static,
        act: impl FnMut(&Step) -> Result<(), Refused> + 'static,
    ) -> Self {
        let (sender, events) = channel(8);
        let (acts, waits, notes) = (Rc::default(), Rc::default(), Rc::default());
        let script = Script {
            acts: Rc::clone(&acts),
            waits: Rc::clone(&waits),
            now: START,
            looks: 0,
            rounds,
            see: Box::new(see),
            act: Box::new(act),
            sender: sender.clone(),
            notes: Rc::clone(&notes),
        };
        Self { agent: Agent::new(settings(), script, Arc::default()), events, sender, acts, waits, notes }
    }

    async fn run(&mut self) -> Ended {
        self.agent.run(&mut self.events).await
    }

    fn done(&self) -> Vec<&'static str> {
        let did = |act: &Act| if let Act::Did(name) = act { Some(*name) } else { None };
        self.acts.borrow().iter().filter_map(did).collect()
    }

    fn looks(&self) -> usize {
        self.acts.borrow().iter().filter(|act| matches!(act, Act::Looked(_))).count()
    }

    fn rests(&self) -> Vec<Duration> {
        let rested = |act: &Act| if let Act::Rested(after) = act { Some(*after) } else { None };
        self.acts.borrow().iter().filter_map(rested).collect()
    }

    /// What was waited for in the n-th look, and how long by then, in milliseconds.
    fn waited(&self, look: usize, on: &WaitingOn) -> Option<i64> {
        let waits = self.waits.borrow();
        waits[look - 1].iter().find(|w| w.on.is_same_wait(on)).map(|w| w.since - START)
    }
}

fn settings() -> Settings {
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    let user_data = b"cluster: demo\nbucket: demo-quorate\nkubernetes: {controlPlane: none}\n";
    load(Path::new("/nonexistent"), Some(user_data), &tags).unwrap().settings
}

fn unknown<T>() -> Fact<T> {
    Fact::unknown("not of interest here")
}

fn me() -> Identity {
    Identity {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        region: "eu-west-1".parse().unwrap(),
        zone: "eu-west-1a".parse().unwrap(),
        address: "10.0.1.1".parse().unwrap(),
    }
}

/// A machine that knows who it is, in a region that knows of no volume.
fn standby() -> Observation {
    let me = me();
    let instance = Instance {
        state: InstanceState::Running,
        zone: Some(me.zone.clone()),
        address: Some(me.address),
        role: Some(Role::ControlPlane),
    };
    Observation {
        at: START,
        entropy: "n".parse().unwrap(),
        clock_synchronised: Fact::Known(true),
        instances: Fact::Known(BTreeMap::from([(me.instance.clone(), instance)])),
        volumes: Fact::Known(BTreeMap::new()),
        zones: Fact::Known(vec![me.zone.clone()]),
        identity: Fact::Known(me),
        charter: Fact::Known(None),
        backups: Fact::Known(false),
        keeping: None,
        chosen: Fact::unknown("not asked for"),
        authority: Fact::Known(None),
        leaves: Fact::Known(None),
        disk: Fact::Known(None),
        etcd: EtcdObservation {
            version: unknown(),
            service: unknown(),
            launch: unknown(),
            own: unknown(),
            cluster: unknown(),
            care: unknown(),
            notes: unknown(),
            silence: None,
        },
        kubernetes: crate::model::KubernetesObservation::unknown("not asked for"),
        published: unknown(),
        departure: DepartureObservation::unknown("not asked for"),
        waiting: Vec::new(),
        noticed: Vec::new(),
    }
}

/// A machine that waits for an answer about the volumes.
fn unanswered(why: &str) -> Observation {
    Observation { volumes: Fact::unknown(why), disk: Fact::unknown(why), ..standby() }
}

/// A machine whose slot's volume is attached and blank: two steps are to be done.
fn blank_volume() -> Observation {
    let id: VolumeId = "vol-0123456789abcdef0".parse().unwrap();
    let volume = Volume {
        state: VolumeState::InUse,
        zone: Some(me().zone),
        attachment: Some(Attachment {
            instance: me().instance,
            state: AttachmentState::Attached,
            device: "/dev/xvdf".to_owned(),
            delete_on_termination: false,
        }),
        ours: true,
        slot: Some(Slot::try_from(1).unwrap()),
        stamp: None,
    };
    let disk = Disk {
        volume: id.clone(),
        device: Some("/dev/nvme1n1".to_owned()),
        content: Fact::Known(Content::Blank),
        mount: Fact::Known(None),
        holds: unknown(),
    };
    Observation {
        volumes: Fact::Known(BTreeMap::from([(id, volume)])),
        disk: Fact::Known(Some(disk)),
        ..standby()
    }
}

/// A machine that holds its slot and waits for others to hold theirs.
fn claimed() -> Observation {
    let mut seen = blank_volume();
    let slot = Slot::try_from(1).unwrap();
    let id: VolumeId = "vol-0123456789abcdef0".parse().unwrap();
    if let Fact::Known(volumes) = &mut seen.volumes {
        volumes.get_mut(&id).unwrap().stamp = Some("formatted".to_owned());
    }
    let stamp = Stamp { cluster: settings().cluster, slot, volume: id.clone(), state: StampState::Formatted };
    seen.disk = Fact::Known(Some(Disk {
        volume: id,
        device: Some("/dev/nvme1n1".to_owned()),
        content: Fact::Known(Content::Ours { kind: "ext4".to_owned(), can_grow: false }),
        mount: Fact::Known(Some(Mount { source: "/dev/nvme1n1".to_owned(), read_only: false })),
        holds: Fact::Known(VolumeContents {
            stamp: Fact::Known(Some(stamp)),
            data: DataDir::Absent,
            charter: Fact::Known(None),
            strangers: Vec::new(),
        }),
    }));
    let year = 365 * 86_400_000;
    seen.authority =
        Fact::Known(Some(Authority { fingerprint: "f".to_owned(), not_after: START + 9 * year }));
    seen.leaves = Fact::Known(Some(Leaves {
        authority: "f".to_owned(),
        address: me().address,
        not_before: START - 1000,
        not_after: START + year,
    }));
    let zones = ["a", "b", "c"].map(|zone| format!("eu-west-1{zone}").parse().unwrap());
    seen.zones = Fact::Known(zones.to_vec());
    seen.etcd.version = Fact::Known(EtcdVersion { major: 3, minor: 5, patch: 16 });
    seen.etcd.service = Fact::Known(ServiceState::Stopped);
    seen.etcd.launch = Fact::Known(None);
    seen
}

#[tokio::test]
async fn a_plan_is_done_in_its_order_and_then_looked_at_at_once() {
    let mut rig = Rig::new(2, |look, _| Some(if look == 1 { blank_volume() } else { standby() }));
    assert_eq!(rig.run().await, Ended::Stopped);
    assert_eq!(rig.done(), ["format", "mount", "writeStamp", "tagStamp"]);
    assert_eq!(rig.rests(), [Duration::ZERO]);
}

#[tokio::test]
async fn a_step_that_fails_ends_the_plan_and_nothing_after_it_is_done() {
    let mut rig = Rig::doing(
        3,
        |_, _| Some(blank_volume()),
        |step| if matches!(step, Step::Format { .. }) { Err(Refused) } else { Ok(()) },
    );
    assert_eq!(rig.run().await, Ended::Stopped);
    assert_eq!(rig.done(), ["format", "format"], "it is tried again, and never gone past");
    let notes = rig.notes.borrow();
    let failed = || ("format".to_owned(), history::Ended::Failed);
    assert_eq!(steps(&notes), [failed(), failed()]);
    let What::Step { error, particulars, .. } = &notes[2].what else { panic!("{notes:?}") };
    assert_eq!(error.as_deref(), Some("refused by the test"));
    assert!(particulars.contains("vol-"), "{particulars}");
}

/// The steps that were written down, and how each ended.
fn steps(notes: &[Entry]) -> Vec<(String, history::Ended)> {
    let of = |entry: &Entry| match &entry.what {
        What::Step { step, ended, .. } => Some((step.clone(), *ended)),
        What::Started { .. } | What::Phase => None,
    };
    notes.iter().filter_map(of).collect()
}

#[tokio::test]
async fn decisions_are_written_down_with_their_reasons_and_a_phase_once() {
    let mut rig = Rig::new(6, |look, _| Some(if look < 4 { unanswered("refused") } else { standby() }));
    rig.run().await;
    let notes = rig.notes.borrow();
    let what: Vec<&What> = notes.iter().map(|entry| &entry.what).collect();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    assert_eq!(what, [&What::Started { version }, &What::Phase, &What::Phase]);
    assert!(notes[1].why.iter().any(|why| why.contains("the volumes: refused")), "{notes:?}");
    assert_eq!(notes[2].phase, Phase::Standby);
}

#[tokio::test]
async fn what_fails_again_and_again_is_tried_ever_more_slowly() {
    let mut rig = Rig::doing(9, |_, _| Some(blank_volume()), |_| Err(Refused));
    rig.run().await;
    let rests = rig.rests();
    assert!(rests[0] >= Duration::from_millis(30), "{rests:?}");
    assert!(rests[6] > rests[0] * 10, "{rests:?}");
    assert!(rests.iter().all(|rest| *rest < Duration::from_secs(13)), "{rests:?}");
}

#[tokio::test]
async fn nothing_is_done_from_a_light_look() {
    // While others claim their slots the looks are light ones; the third shows something to do.
    let mut rig = Rig::new(5, |look, _| Some(if look < 3 { claimed() } else { blank_volume() }));
    rig.run().await;
    let acts = rig.acts.borrow();
    let no_rests = acts.iter().filter(|act| !matches!(act, Act::Rested(_) | Act::Told(_)));
    assert_eq!(
        no_rests.cloned().collect::<Vec<_>>(),
        [
            Act::Looked(Depth::Full),
            Act::Looked(Depth::Full),
            Act::Looked(Depth::Light),
            Act::Looked(Depth::Full),
            Act::Did("format"),
            Act::Did("mount"),
            Act::Did("writeStamp"),
            Act::Did("tagStamp"),
            Act::Looked(Depth::Full),
        ]
    );
}

#[tokio::test]
async fn a_stop_between_two_steps_lets_the_first_be_done_and_no_more() {
    let mut rig = Rig::new(usize::MAX, |_, _| Some(blank_volume()));
    let sender = rig.sender.clone();
    rig.agent.world.act = Box::new(move |_| {
        sender.try_send(Event::Stop).unwrap();
        Ok(())
    });
    assert_eq!(rig.run().await, Ended::Stopped);
    assert_eq!((rig.done(), rig.looks()), (vec!["format"], 1));
}

#[tokio::test]
async fn a_reload_ends_the_rounds_so_that_the_configuration_is_read_again() {
    let mut rig = Rig::new(usize::MAX, |_, _| Some(standby()));
    rig.sender.send(Event::Reload).await.unwrap();
    assert_eq!(rig.run().await, Ended::Reload);
    // And also between two steps.
    let mut rig = Rig::new(usize::MAX, |_, _| Some(blank_volume()));
    let sender = rig.sender.clone();
    rig.agent.world.act = Box::new(move |_| {
        sender.try_send(Event::Reload).unwrap();
        Ok(())
    });
    assert_eq!(rig.run().await, Ended::Reload);
    assert_eq!(rig.done(), ["format"]);
}

#[tokio::test]
async fn an_event_does_not_wait_for_a_look_that_takes_long() {
    for (event, ended) in [(Event::Stop, Ended::Stopped), (Event::Reload, Ended::Reload)] {
        let mut rig = Rig::new(usize::MAX, |_, _| None);
        let sender = rig.sender.clone();
        rig.agent.world.see = Box::new(move |_, _| {
            sender.try_send(event).unwrap();
            None
        });
        assert_eq!(rig.run().await, ended);
        assert!(rig.done().is_empty());
    }
}

#[tokio::test]
async fn a_look_that_never_ends_is_given_up_and_taken_again() {
    let mut rig = Rig::new(2, |look, _| (look == 2).then(standby));
    rig.agent.limits.look = Duration::from_millis(20);
    assert_eq!(rig.run().await, Ended::Stopped);
    assert_eq!(rig.looks(), 2);
    assert_eq!(rig.rests()[0], AFTER_NO_LOOK);
}

#[tokio::test]
async fn a_step_that_never_ends_is_given_up_and_ends_the_plan() {
    struct Stuck(Script);
    impl World for Stuck {
        type Error = Refused;
        async fn observe(&mut self, depth: Depth, waiting: Vec<Waiting>) -> Observation {
            self.0.observe(depth, waiting).await
        }
        async fn execute(&mut self, step: &Step) -> Result<(), Refused> {
            self.0.execute(step).await?;
            std::future::pending().await
        }
        fn tell(&mut self, status: &Status, seen: &Observation, plan: &Plan) {
            self.0.tell(status, seen, plan);
        }
        fn was_overtaken(_: &Refused) -> bool {
            false
        }

        fn note(&mut self, entry: Entry) {
            self.0.note(entry);
        }

        async fn rest(&mut self, after: Duration) {
            self.0.rest(after).await;
        }
    }
    let rig = Rig::new(2, |_, _| Some(blank_volume()));
    let Rig { agent, mut events, acts, notes, .. } = rig;
    let mut agent = Agent::new(settings(), Stuck(agent.world), Arc::default());
    agent.limits.step = Duration::from_millis(20);
    assert_eq!(agent.run(&mut events).await, Ended::Stopped);
    let did = acts.borrow().iter().filter(|act| matches!(act, Act::Did(_))).count();
    assert_eq!(did, 1, "the step after it is not done");
    assert_eq!(steps(&notes.borrow()), [("format".to_owned(), history::Ended::GivenUp)]);
}

fn volumes_answer() -> WaitingOn {
    WaitingOn::Answer { about: Subject::Volumes, why: String::new() }
}

fn claims() -> WaitingOn {
    WaitingOn::Claims { missing: Vec::new(), majority: false }
}

#[tokio::test]
async fn what_is_waited_for_keeps_its_beginning_from_round_to_round() {
    let mut rig = Rig::new(6, |look, _| Some(unanswered(&format!("refused, for the {look}th time"))));
    rig.run().await;
    assert_eq!(rig.waited(1, &volumes_answer()), None);
    for look in 2..=6 {
        assert_eq!(rig.waited(look, &volumes_answer()), Some(0), "look {look}");
    }
}

#[tokio::test]
async fn a_round_without_an_answer_does_not_begin_a_patience_anew() {
    let mut rig = Rig::new(8, |look, _| {
        Some(if (3..=6).contains(&look) { unanswered("throttled") } else { claimed() })
    });
    rig.run().await;
    for look in 2..=8 {
        assert_eq!(rig.waited(look, &claims()), Some(0), "look {look}");
    }
    assert_eq!(rig.waited(3, &volumes_answer()), None);
    let answer = rig.waited(4, &volumes_answer()).unwrap();
    assert!(answer > 0, "it has a beginning of its own: {answer}");
}

#[tokio::test]
async fn a_wait_that_ended_begins_anew_when_it_comes_back() {
    let mut rig = Rig::new(5, |look, _| Some(if look == 3 { standby() } else { claimed() }));
    rig.run().await;
    assert_eq!(rig.waited(3, &claims()), Some(0));
    assert_eq!(rig.waited(4, &claims()), None);
    assert!(rig.waited(5, &claims()).unwrap() > 0);
}

/// The same, where another machine holds a second of the three slots: patience decides.
fn majority() -> Observation {
    let mut seen = claimed();
    seen.entropy = "00000000-0000-0000-0000-0000000000e1".parse().unwrap();
    let other: InstanceId = "i-0fedcba9876543210".parse().unwrap();
    let zone: Zone = "eu-west-1b".parse().unwrap();
    if let (Fact::Known(instances), Fact::Known(volumes)) = (&mut seen.instances, &mut seen.volumes) {
        let (mine, volume) = (instances[&me().instance].clone(), volumes.values().next().unwrap().clone());
        let address = Some("10.0.2.1".parse().unwrap());
        instances.insert(other.clone(), Instance { zone: Some(zone.clone()), address, ..mine });
        let attachment = volume.attachment.map(|held| Attachment { instance: other, ..held });
        let slot = Some(Slot::try_from(2).unwrap());
        let theirs = Volume { zone: Some(zone), slot, attachment, ..volume };
        volumes.insert("vol-0fedcba9876543210".parse().unwrap(), theirs);
    }
    seen
}

/// How long after the beginning each step was done or tried.
fn tried(acts: &[Act]) -> Vec<Duration> {
    let mut now = Duration::ZERO;
    let mut tried = Vec::new();
    for act in acts {
        match act {
            Act::Rested(after) => now += *after,
            Act::Did(_) => tried.push(now),
            Act::Looked(_) | Act::Told(_) => {}
        }
    }
    tried
}

/// A rig in which patience decides, after ten seconds.
fn patient(act: impl FnMut(&Step) -> Result<(), Refused> + 'static) -> Rig {
    let mut rig = Rig::doing(80, |_, _| Some(majority()), act);
    rig.agent.settings.founding.patience = "10s".parse().unwrap();
    rig
}

#[tokio::test]
async fn a_patience_that_runs_out_in_a_light_look_is_out_in_the_full_one_that_follows() {
    // Which look it runs out in is chance: every second one is light.
    for _ in 0..20 {
        let mut rig = patient(|_| Ok(()));
        rig.run().await;
        let first = tried(&rig.acts.borrow())[0];
        assert!(first >= Duration::from_secs(10) && first < Duration::from_secs(14), "{first:?}");
    }
}

#[tokio::test]
async fn a_patience_that_ran_out_does_not_begin_anew_because_a_step_failed() {
    let mut rig = patient(|_| Err(Refused));
    rig.run().await;
    let tried = tried(&rig.acts.borrow());
    assert!(tried.len() > 5 && tried[5].saturating_sub(tried[0]) < Duration::from_secs(10), "{tried:?}");
}

#[tokio::test]
async fn a_wait_is_looked_at_ever_more_slowly_down_to_the_tick() {
    let mut rig = Rig::new(300, |_, _| Some(unanswered("throttled")));
    rig.run().await;
    let rests = rig.rests();
    assert!(rests[0] < Duration::from_millis(200), "{:?}", rests[0]);
    let tick = rig.agent.settings.tick.as_duration();
    assert!(rests.iter().all(|rest| *rest <= tick.mul_f64(1.25)), "{rests:?}");
    let last = rests[rests.len() - 1];
    assert!(last >= tick.mul_f64(0.75), "{last:?}");
    assert!(rests.iter().all(|rest| *rest > Duration::from_millis(100)), "it spins: {rests:?}");
}

#[test]
fn a_wait_whose_particulars_change_at_each_look_is_told_a_few_times_and_then_once_a_minute() {
    let kinds = |phase: &str| vec![phase.to_owned(), "pods".to_owned()];
    let mut news = News::default();
    let told = (0..300).filter(|look| news.is_news(kinds("leaving"), START + look * 1_000)).count();
    assert_eq!(told, 5 + 4);
    // Another reason, or another phase, is told at once.
    assert!(news.is_news(kinds("left"), START + 300_000));
}

#[tokio::test]
async fn a_step_that_fails_again_in_the_same_way_is_told_once_a_minute_with_how_often() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut rig = Rig::new(1, |_, _| Some(standby()));
    for second in 0..130 {
        rig.agent.tell_failure("format", 5, &format!("busy [request {second}]"), START + second * 1_000);
    }
    rig.agent.tell_failure("format", 5, "denied", START + 130_000);
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let failed: Vec<&str> = said.lines().filter(|line| line.contains("step failed")).collect();
    assert_eq!(failed.len(), 4, "{said}");
    assert!(
        !failed[0].contains("times=") && failed[1].contains("times=60") && failed[2].contains("times=60")
    );
    assert!(failed[3].contains("denied") && !failed[3].contains("times="), "{said}");
}

/// What a test's log says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_change_is_told_once_and_every_look_is_written_down() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut rig = Rig::new(9, |look, _| {
        Some(match look {
            1..=3 => unanswered(&format!("RequestLimitExceeded (status 503) [request {look}]")),
            4..=6 => unanswered("UnauthorizedOperation (status 403) [request 4]"),
            _ => claimed(),
        })
    });
    rig.run().await;
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let times = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        (times("RequestLimitExceeded"), times("UnauthorizedOperation"), times("to be claimed")),
        (1, 1, 1),
        "{said}"
    );
    let told = rig.acts.borrow().iter().filter(|act| matches!(act, Act::Told(_))).count();
    assert_eq!(told, 9, "the status file is written at each look");
}
