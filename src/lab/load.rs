//! A continuous load of writes, and whether each that was acknowledged is still there.
//!
//! The writer puts one key after another, each once. What was acknowledged is promised; what was
//! not may have happened or not, so nothing is concluded from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Access, Tls};
use super::history::{Answer, Call, Value};
use super::laboratory::Laboratory;
use super::registers::Registers;

/// The prefix of the load's keys.
pub const PREFIX: &str = "/load/";
/// The least time from one write to the next.
const PACE: Duration = Duration::from_millis(5);
/// How long one call may take before another member is tried.
const CALL: Duration = Duration::from_secs(1);

/// Why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No member is known that could be asked.
    #[error("no member can be asked yet")]
    Nobody,
    /// etcd's answer, or the lack of one.
    #[error(transparent)]
    Etcd(#[from] Box<etcd_client::Error>),
    /// No answer within a call's time.
    #[error("no answer")]
    Silence,
    /// Another store's.
    #[error("{0}")]
    Other(String),
}

/// A value, and how often its key was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: String,
    /// 1 after the first write.
    pub version: i64,
}

/// Where the load is put.
pub trait Store: Send + 'static {
    /// Writes a key.
    fn put(&mut self, key: &str, value: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Reads every key of a prefix, linearizably.
    fn read(
        &mut self,
        prefix: &str,
    ) -> impl Future<Output = Result<BTreeMap<String, Stored>, StoreError>> + Send;
}

/// What became of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// The keys of those that are not there as they were written.
    pub lost: Vec<String>,
    /// The longest time without an acknowledged write, from the first to the end.
    pub longest_gap: Duration,
}

/// What the writer notes.
#[derive(Debug)]
pub struct Notes {
    /// The writes that were acknowledged, in the order of their keys, each with when.
    pub acknowledged: BTreeMap<String, (String, Instant)>,
    longest_gap: Duration,
}

/// A running load.
pub struct Load<S> {
    prefix: &'static str,
    stop: watch::Sender<bool>,
    acknowledged: watch::Receiver<usize>,
    task: JoinHandle<(S, Notes)>,
}

impl<S: Store> Load<S> {
    /// Begins to write.
    pub fn begin(store: S, seed: u64) -> Self {
        Self::begin_below(PREFIX, store, seed)
    }

    /// Begins to write, keys of another prefix.
    pub fn begin_below(prefix: &'static str, store: S, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, acknowledged) = watch::channel(0);
        let task = tokio::spawn(write(prefix, store, seed, stopped, count));
        Self { prefix, stop, acknowledged, task }
    }

    /// Ends the load, and reads nothing back.
    ///
    /// # Errors
    /// The writer ended before.
    pub async fn stop(self) -> Result<Notes, StoreError> {
        self.stop.send_replace(true);
        let (_, notes) = self.task.await.map_err(|e| StoreError::Other(e.to_string()))?;
        Ok(notes)
    }

    /// How many writes were acknowledged until now.
    pub fn so_far(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until one more write is acknowledged; whether it was in time.
    pub async fn one_more(&mut self, patience: Duration) -> bool {
        let before = self.so_far();
        let more = self.acknowledged.wait_for(|count| *count > before);
        matches!(tokio::time::timeout(patience, more).await, Ok(Ok(_)))
    }

    /// Ends the load and reads it back.
    ///
    /// # Errors
    /// The store could not be read for as long as `patience`: then there is no verdict.
    pub async fn finish(self, patience: Duration) -> Result<Verdict, StoreError> {
        self.stop.send_replace(true);
        let (mut store, notes) = self.task.await.map_err(|e| StoreError::Other(e.to_string()))?;
        let deadline = Instant::now() + patience;
        let stored = loop {
            match store.read(self.prefix).await {
                Ok(stored) => break stored,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        let kept = |key: &String, value: &String| {
            stored.get(key).is_some_and(|s| s.value == *value && s.version == 1)
        };
        let lost = notes.acknowledged.iter().filter(|(k, (v, _))| !kept(k, v)).map(|(k, _)| k.clone());
        Ok(Verdict {
            lost: lost.collect(),
            acknowledged: notes.acknowledged.len(),
            longest_gap: notes.longest_gap,
        })
    }
}

async fn write<S: Store>(
    prefix: &str,
    mut store: S,
    seed: u64,
    stop: watch::Receiver<bool>,
    count: watch::Sender<usize>,
) -> (S, Notes) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut notes = Notes { acknowledged: BTreeMap::new(), longest_gap: Duration::ZERO };
    let mut last: Option<Instant> = None;
    let mut number = 0_u64;
    while !*stop.borrow() {
        let begun = Instant::now();
        number += 1;
        let (key, value) = (format!("{prefix}{number:09}"), format!("{number} {:016x}", rng.u64(..)));
        match store.put(&key, &value).await {
            Ok(()) => {
                let now = Instant::now();
                notes.longest_gap = notes.longest_gap.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                notes.acknowledged.insert(key, (value, now));
                count.send_replace(notes.acknowledged.len());
            }
            // Not acknowledged: it may have happened all the same, so the number is not used again.
            Err(error) => tracing::debug!(key, %error, "a write was not acknowledged"),
        }
        sleep(PACE.saturating_sub(begun.elapsed())).await;
    }
    let silence = last.map_or(Duration::ZERO, |last| last.elapsed());
    notes.longest_gap = notes.longest_gap.max(silence);
    (store, notes)
}

/// The laboratory's etcd, whichever members there are at the moment.
pub struct Etcd {
    lab: Arc<Laboratory>,
    /// Which member is asked, by its place among those that there are.
    turn: usize,
    open: Option<(String, Tls, Client)>,
    /// Until it is open nobody is asked.
    gate: Option<Gate>,
}

/// What holds a load back until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Lets the load begin.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Etcd {
    /// The etcd of a laboratory.
    pub fn of(lab: &Arc<Laboratory>) -> Self {
        Self { lab: Arc::clone(lab), turn: 0, open: None, gate: None }
    }

    /// The same, beginning with another member.
    #[must_use]
    pub fn beginning_with(self, turn: usize) -> Self {
        Self { turn, ..self }
    }

    /// The same, behind a gate.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    async fn client(&mut self) -> Result<Client, StoreError> {
        if self.gate.as_ref().is_some_and(|gate| !gate.0.load(Ordering::Acquire)) {
            return Err(StoreError::Nobody);
        }
        if let Some((_, _, client)) = &self.open {
            return Ok(client.clone());
        }
        let Access { urls, tls } = Access::to(&self.lab).ok_or(StoreError::Nobody)?;
        let url = urls.get(self.turn % urls.len().max(1)).ok_or(StoreError::Nobody)?.clone();
        let client = Client::connect([&url], Some(tls.options(CALL))).await.map_err(Box::new)?;
        self.open = Some((url, tls, client.clone()));
        Ok(client)
    }

    /// After a failure, another member is tried.
    async fn within<T>(
        &mut self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        let result = match timeout(CALL, call).await {
            Ok(result) => result.map_err(|error| StoreError::Etcd(Box::new(error))),
            Err(_) => Err(StoreError::Silence),
        };
        if result.is_err() {
            self.open = None;
            self.turn = self.turn.wrapping_add(1);
        }
        result
    }
}

impl Store for Etcd {
    async fn put(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        self.within(client.put(key, value, None)).await.map(drop)
    }

    async fn read(&mut self, prefix: &str) -> Result<BTreeMap<String, Stored>, StoreError> {
        const PAGE: i64 = 5000;
        let mut all = BTreeMap::new();
        let end = format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix));
        let mut from = prefix.to_owned();
        loop {
            let mut client = self.client().await?;
            let options = GetOptions::new().with_range(end.as_str()).with_limit(PAGE);
            let page = self.within(client.get(from.as_str(), Some(options))).await?;
            for pair in page.kvs() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                from = format!("{}\0", text(pair.key()));
                all.insert(text(pair.key()), Stored { value: text(pair.value()), version: pair.version() });
            }
            if !page.more() {
                return Ok(all);
            }
        }
    }
}

impl Registers for Etcd {
    async fn call(&mut self, name: &str, call: Call) -> Result<Answer, StoreError> {
        let text = |value: Value| value.0.to_string();
        // What no client wrote is a value that none writes.
        let held =
            |pair: &KeyValue| Value(pair.value_str().ok().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX));
        let mut client = self.client().await?;
        match call {
            Call::Get => {
                let answer = self.within(client.get(name, None)).await?;
                Ok(Answer::Got(answer.kvs().first().map(held)))
            }
            Call::Put(value) => {
                self.within(client.put(name, text(value), None)).await?;
                Ok(Answer::Put)
            }
            Call::Swap { from, to } => {
                let expected = match from {
                    None => Compare::version(name, CompareOp::Equal, 0),
                    Some(value) => Compare::value(name, CompareOp::Equal, text(value)),
                };
                let txn = Txn::new()
                    .when([expected])
                    .and_then([TxnOp::put(name, text(to), None)])
                    .or_else([TxnOp::get(name, None)]);
                let answer = self.within(client.txn(txn)).await?;
                if answer.succeeded() {
                    return Ok(Answer::Swapped);
                }
                let found = answer.op_responses().into_iter().find_map(|response| match response {
                    TxnOpResponse::Get(found) => Some(found.kvs().first().map(held)),
                    _ => None,
                });
                let found =
                    found.ok_or_else(|| StoreError::Other("a transaction without its answer".into()))?;
                Ok(Answer::Kept(found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store in memory that fails in the ways that it is told to.
    #[derive(Default)]
    struct Fake {
        kept: BTreeMap<String, Stored>,
        puts: usize,
        /// Acknowledges this write, counted from 1, without keeping it.
        forgets: Option<usize>,
        /// Keeps another value than the one acknowledged.
        garbles: Option<usize>,
        /// Refuses this write.
        refuses: Option<usize>,
        /// Keeps this write, and does not acknowledge it.
        answer_lost: Option<usize>,
        /// Does this write twice.
        repeats: Option<usize>,
        /// Fails to be read so many times.
        unreadable: usize,
    }

    impl Store for Fake {
        async fn put(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
            self.puts += 1;
            let this = Some(self.puts);
            if self.refuses == this {
                return Err(StoreError::Other("refused".into()));
            }
            let version = if self.repeats == this { 2 } else { 1 };
            let value = if self.garbles == this { "x" } else { value }.to_owned();
            if self.forgets != this {
                self.kept.insert(key.to_owned(), Stored { value, version });
            }
            if self.answer_lost == this { Err(StoreError::Other("lost".into())) } else { Ok(()) }
        }

        async fn read(&mut self, prefix: &str) -> Result<BTreeMap<String, Stored>, StoreError> {
            assert_eq!(prefix, PREFIX);
            if self.unreadable > 0 {
                self.unreadable -= 1;
                return Err(StoreError::Other("not now".into()));
            }
            Ok(self.kept.clone())
        }
    }

    async fn verdict(store: Fake) -> Verdict {
        let mut load = Load::begin(store, 1);
        while load.so_far() < 20 {
            assert!(load.one_more(Duration::from_mins(1)).await);
        }
        load.finish(Duration::from_secs(10)).await.unwrap()
    }

    #[tokio::test]
    async fn a_store_that_keeps_everything_has_lost_nothing() {
        let verdict = verdict(Fake { unreadable: 3, ..Fake::default() }).await;
        assert!(verdict.acknowledged >= 20);
        assert_eq!(verdict.lost, [""; 0]);
    }

    #[tokio::test]
    async fn a_write_that_was_acknowledged_and_is_not_there_is_lost() {
        let verdict = verdict(Fake { forgets: Some(7), ..Fake::default() }).await;
        assert_eq!(verdict.lost, ["/load/000000007"]);
    }

    #[tokio::test]
    async fn a_write_that_is_there_with_another_value_or_twice_is_lost() {
        let garbled = verdict(Fake { garbles: Some(3), ..Fake::default() }).await;
        assert_eq!(garbled.lost, ["/load/000000003"]);
        let repeated = verdict(Fake { repeats: Some(4), ..Fake::default() }).await;
        assert_eq!(repeated.lost, ["/load/000000004"]);
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_not_counted() {
        let refused = verdict(Fake { refuses: Some(5), ..Fake::default() }).await;
        assert_eq!(refused.lost, [""; 0]);
        let unknown = verdict(Fake { answer_lost: Some(5), ..Fake::default() }).await;
        assert_eq!(unknown.lost, [""; 0]);
    }

    #[tokio::test]
    async fn a_store_that_can_not_be_read_back_is_no_verdict() {
        let mut load = Load::begin(Fake { unreadable: usize::MAX, ..Fake::default() }, 1);
        assert!(load.one_more(Duration::from_mins(1)).await);
        assert!(load.finish(Duration::from_millis(1)).await.is_err());
    }
}
