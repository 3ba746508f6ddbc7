//! Clients that work on a few registers at once and note what they were told: a history to be checked.
//!
//! Each reads (linearizably), writes, and compares and swaps, at a moderate pace, each by a member of its own as long as
//! that answers. What was not answered is noted as open, since it may have happened; whether the history is linearizable
//! is told by [`super::history`], not here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::history::{Answer, Call, Operation, Value};
use super::load::StoreError;

/// How many clients there are.
pub const CLIENTS: usize = 3;
/// How many registers they share.
const REGISTERS: usize = 3;
/// The longest time from one operation of a client to its next; the mean is half of it.
const PACE: Duration = Duration::from_millis(60);

/// So many times longer a client waits that was not answered.
const UNANSWERED: f64 = 5.0;

/// Where registers are kept.
pub trait Registers: Send + 'static {
    /// Does one operation on the register of a name.
    fn call(&mut self, name: &str, call: Call) -> impl Future<Output = Result<Answer, StoreError>> + Send;
}

/// Running clients.
pub struct Clients<S> {
    stop: watch::Sender<bool>,
    tasks: JoinSet<(S, Vec<Operation>)>,
    shared: Arc<Shared>,
}

/// What the clients share.
struct Shared {
    /// Before the names of the registers: another one each time, so that they hold nothing at first.
    prefix: String,
    began: Instant,
    fresh: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does one operation and notes it, but for one that was never sent. Answers what the register held then, where
    /// that is known.
    async fn call<S: Registers>(
        &self,
        store: &mut S,
        client: usize,
        register: usize,
        call: Call,
        notes: &mut Vec<Operation>,
    ) -> Result<Option<Value>, StoreError> {
        let name = format!("{}{register}", self.prefix);
        let begun = self.now();
        let answer = store.call(&name, call).await;
        let at = self.now();
        let operation = |answered| Operation { register, client, call, begun, answered };
        match answer {
            Ok(answer) => {
                notes.push(operation(Some((at, answer))));
                Ok(match answer {
                    Answer::Got(value) | Answer::Kept(value) => value,
                    Answer::Put | Answer::Swapped => call.writes(),
                })
            }
            Err(error) => {
                tracing::debug!(name, ?call, %error, "an operation was not answered");
                if !matches!(error, StoreError::Nobody) {
                    notes.push(operation(None));
                }
                Err(error)
            }
        }
    }
}

impl<S: Registers> Clients<S> {
    /// Begins: `store` makes each client's own.
    pub fn begin(store: impl Fn(usize) -> S, seed: u64) -> Self {
        Self::at_pace(store, seed, PACE)
    }

    fn at_pace(store: impl Fn(usize) -> S, seed: u64, pace: Duration) -> Self {
        let shared = Arc::new(Shared {
            prefix: format!("/registers/{}/", uuid::Uuid::new_v4().simple()),
            began: Instant::now(),
            fresh: AtomicU64::new(1),
        });
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let rng = fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(client as u64));
            let worker = Worker { client, rng, pace, shared: Arc::clone(&shared), stop: stop.subscribe() };
            tasks.spawn(worker.run(store(client)));
        }
        Self { stop, tasks, shared }
    }

    /// Ends the clients, and reads nothing more: what they worked on is gone. The answer is the history.
    pub async fn stop(mut self) -> Vec<Operation> {
        self.stop.send_replace(true);
        let mut history = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((_, notes)) => history.extend(notes),
                Err(error) => tracing::error!(%error, "a client ended early"),
            }
        }
        history
    }

    /// Ends the clients, and reads each register a last time, so that nobody's last write is lost unseen. The answers are
    /// the history, and an error when the registers could not be read for as long as `patience`.
    pub async fn finish(mut self, patience: Duration) -> (Vec<Operation>, Result<(), StoreError>) {
        const AGAIN: Duration = Duration::from_millis(100);
        self.stop.send_replace(true);
        let mut history = Vec::new();
        let mut last = None;
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((store, notes)) => {
                    history.extend(notes);
                    last = Some(store);
                }
                Err(error) => return (history, Err(StoreError::Other(error.to_string()))),
            }
        }
        let Some(mut store) = last else { return (history, Ok(())) };
        let deadline = Instant::now() + patience;
        for register in 0..REGISTERS {
            loop {
                match self.shared.call(&mut store, CLIENTS, register, Call::Get, &mut history).await {
                    Ok(_) => break,
                    Err(error) if Instant::now() >= deadline => return (history, Err(error)),
                    Err(_) => sleep(AGAIN).await,
                }
            }
        }
        (history, Ok(()))
    }
}

struct Worker {
    client: usize,
    rng: fastrand::Rng,
    pace: Duration,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl Worker {
    async fn run<S: Registers>(self, mut store: S) -> (S, Vec<Operation>) {
        let Self { client, mut rng, pace, shared, stop } = self;
        let mut notes = Vec::new();
        // By register: what it held when this client last knew. That is what a swap expects.
        let mut known = [None; REGISTERS];
        while !*stop.borrow() {
            let register = rng.usize(..REGISTERS);
            let known = &mut known[register];
            let fresh = || Value(shared.fresh.fetch_add(1, Ordering::Relaxed));
            let call = match rng.u8(..10) {
                0..4 => Call::Get,
                4..7 => Call::Put(fresh()),
                _ => Call::Swap { from: *known, to: fresh() },
            };
            let answer = shared.call(&mut store, client, register, call, &mut notes).await;
            // Who is not answered has patience: those who form a cluster have enough to do.
            let rest = if answer.is_ok() { 1.0 } else { UNANSWERED };
            if let Ok(held) = answer {
                *known = held;
            }
            sleep(pace.mul_f64(rng.f64() * rest)).await;
        }
        (store, notes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use tokio::sync::Notify;

    use super::super::history::{Checked, Fault, check};
    use super::*;

    const CALLS: u64 = 3_000;

    /// Registers in memory, and how often they do not do what they should.
    #[derive(Clone, Default)]
    struct Fake {
        held: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
        calls: Arc<AtomicU64>,
        /// Told at the last of these.
        enough: Arc<Notify>,
        amiss: Amiss,
    }

    #[derive(Clone, Copy, Default, PartialEq)]
    enum Amiss {
        #[default]
        Nothing,
        /// Every seventh answer is lost, after the effect or instead of it.
        Unanswered,
        /// Every thirtieth read is of the value before.
        Stale,
        /// Every thirtieth write is acknowledged and forgotten.
        Forgets,
        /// Every swap succeeds.
        Careless,
    }

    impl Registers for Fake {
        async fn call(&mut self, name: &str, call: Call) -> Result<Answer, StoreError> {
            let n = self.calls.fetch_add(1, Ordering::Relaxed);
            if n == CALLS {
                self.enough.notify_one();
            }
            tokio::task::yield_now().await;
            if self.amiss == Amiss::Unanswered && n % 14 == 7 {
                return Err(StoreError::Silence);
            }
            let mut all = self.held.lock().unwrap();
            let held = all.entry(name.to_owned()).or_default();
            let before =
                if self.amiss == Amiss::Stale && n % 30 == 29 { held.len().checked_sub(2) } else { None };
            let now = before.map_or_else(|| held.last().copied(), |n| held.get(n).copied());
            let answer = match call {
                Call::Get => Answer::Got(now),
                Call::Put(_) if self.amiss == Amiss::Forgets && n % 30 == 29 => Answer::Put,
                Call::Put(value) => {
                    held.push(value);
                    Answer::Put
                }
                Call::Swap { from, to } if from == now || self.amiss == Amiss::Careless => {
                    held.push(to);
                    Answer::Swapped
                }
                Call::Swap { .. } => Answer::Kept(now),
            };
            if self.amiss == Amiss::Unanswered && n.is_multiple_of(14) {
                Err(StoreError::Silence)
            } else {
                Ok(answer)
            }
        }
    }

    /// What is found of some thousand operations.
    async fn worked(amiss: Amiss) -> Result<Checked, Fault> {
        let fake = Fake { amiss, ..Fake::default() };
        let clients = Clients::at_pace(|_| fake.clone(), 1, Duration::ZERO);
        fake.enough.notified().await;
        let (history, read) = clients.finish(Duration::from_secs(1)).await;
        read.unwrap();
        check(&history)
    }

    #[tokio::test]
    async fn clients_of_sound_registers_make_a_linearizable_history() {
        let checked = worked(Amiss::Nothing).await.unwrap();
        assert!(checked.operations as u64 >= CALLS && checked.open == 0, "{checked:?}");
        let checked = worked(Amiss::Unanswered).await.unwrap();
        assert!(checked.open > 100, "{checked:?}");
    }

    #[tokio::test]
    async fn registers_that_are_stale_forgetful_or_careless_are_found_out() {
        for amiss in [Amiss::Stale, Amiss::Forgets, Amiss::Careless] {
            let Err(Fault::Violated { evidence, .. }) = worked(amiss).await else { panic!("not found out") };
            assert!((2..=6).contains(&evidence.len()), "{evidence:?}");
        }
    }

    #[tokio::test]
    async fn what_was_never_sent_is_not_noted_and_registers_that_can_not_be_read_are_no_history() {
        struct Nobody;
        impl Registers for Nobody {
            async fn call(&mut self, _: &str, _: Call) -> Result<Answer, StoreError> {
                Err(StoreError::Nobody)
            }
        }
        let clients = Clients::begin(|_| Nobody, 1);
        let (history, read) = clients.finish(Duration::from_secs(1)).await;
        assert!(history.is_empty() && read.is_err());
    }
}
