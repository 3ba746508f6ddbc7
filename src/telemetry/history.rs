//! The decisions: which step was taken when and why, how long it took and how it ended, and each change of phase.
//!
//! One line of JSON each, in a file that outlives the agent and a boot, and is bounded: when it is full it becomes the
//! older one, in the place of the one that was that. Lines are appended and synced one by one; one that a power cut
//! tore is passed over by whoever reads, and said. Writing is a thread's of its own, so that a disk that hangs keeps
//! the agent from nothing; what it can't take is dropped, and counted.
//!
//! What must not live here: anything that is decided from it. The agent never reads it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aws::without_request_ids;
use crate::host::Root;
use crate::host::files::{FileError, read_optional};
use crate::model::fact::chain;
use crate::model::{Phase, Slot};

/// How large the newer file gets, in bytes. The older is of that size.
const LARGEST: u64 = 512 << 10;
/// How many lines wait for the disk at most.
const QUEUE: usize = 256;
/// The longest text that a line keeps, in characters: reasons may hold a list of everything.
const LONGEST: usize = 500;
/// How often a step that fails again in the same way is written down, in milliseconds.
const REPEATED: i64 = 10 * 60_000;
/// How long the last lines may take to get to the disk when the agent ends.
const PARTING: Duration = Duration::from_secs(2);

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// It was done.
    Done,
    /// It was not.
    Failed,
    /// Another machine was first.
    Overtaken,
    /// It did not end in its time.
    GivenUp,
}

impl Ended {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Overtaken => "overtaken",
            Self::GivenUp => "given up",
        }
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// Where the machine was on its way.
    pub phase: Phase,
    /// Its slot.
    pub slot: Option<Slot>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The reasons in words, as the status had them: halt, waits and warnings.
    pub why: Vec<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// The agent began its rounds.
    Started {
        /// Its version.
        version: String,
    },
    /// The phase, the halt or what is waited for changed.
    Phase,
    /// A step was tried.
    Step {
        /// Its name.
        step: String,
        /// Its particulars, as the plan has them, cut off where they are long.
        particulars: String,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// How it ended.
        ended: Ended,
        /// Why it was not done.
        error: Option<String>,
        /// How often it had ended so since it was last written down, this time included.
        times: u32,
    },
}

/// Cuts a text off that is long.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Writes the decisions down.
#[derive(Debug)]
pub struct History {
    queue: Option<SyncSender<Entry>>,
    ended: Receiver<()>,
    /// The step that failed last.
    last: Option<Failure>,
    dropped: u64,
}

impl History {
    /// Begins; nothing is read.
    pub fn begin(root: &Root) -> Self {
        let (queue, entries) = sync_channel(QUEUE);
        let (done, ended) = sync_channel(1);
        let root = root.clone();
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            keep(&root, &entries);
            // Nobody waits for it when the agent has ended.
            let _: Result<(), _> = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "the decisions are not written down");
        }
        Self { queue: Some(queue), ended, last: None, dropped: 0 }
    }

    /// Writes a line down, soon. The same failure over and over is written every ten minutes, with its count.
    pub fn note(&mut self, mut entry: Entry) {
        if !self.is_news(&mut entry) {
            return;
        }
        let Some(queue) = &self.queue else { return };
        match queue.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped += 1;
                if self.dropped == 1 {
                    tracing::warn!("decisions are not written down: the disk does not keep up");
                }
            }
        }
    }

    fn is_news(&mut self, entry: &mut Entry) -> bool {
        let What::Step { step, ended, error, times, .. } = &mut entry.what else { return true };
        if *ended == Ended::Done {
            self.last = None;
            return true;
        }
        let why = without_request_ids(error.as_deref().unwrap_or_default());
        match &mut self.last {
            Some(last) if (&last.step, last.ended, &last.why) == (&*step, *ended, &why) => {
                last.times += 1;
                if entry.at.saturating_sub(last.at) < REPEATED {
                    return false;
                }
                (*times, last.times, last.at) = (last.times, 0, entry.at);
            }
            _ => self.last = Some(Failure { step: step.clone(), ended: *ended, why, at: entry.at, times: 0 }),
        }
        true
    }
}

/// A step that was not done, when that was written down, and how often it has ended so since.
#[derive(Debug)]
struct Failure {
    step: String,
    ended: Ended,
    why: String,
    at: i64,
    times: u32,
}

impl Drop for History {
    fn drop(&mut self) {
        self.queue = None;
        if self.ended.recv_timeout(PARTING).is_err() {
            tracing::warn!("the last decisions may not have been written down");
        }
    }
}

fn keep(root: &Root, entries: &Receiver<Entry>) {
    let mut told = false;
    for entry in entries {
        match append(root, &entry) {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                tracing::warn!(why = chain(&error), "a decision could not be written down");
            }
            Err(_) => {}
        }
    }
}

/// Where the decisions are.
pub fn path(root: &Root) -> PathBuf {
    root.path("/var/lib/quorate/history.jsonl")
}

/// Where those before them are.
pub fn older(root: &Root) -> PathBuf {
    root.path("/var/lib/quorate/history.1.jsonl")
}

fn append(root: &Root, entry: &Entry) -> io::Result<()> {
    let path = path(root);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let mut file = open(&path)?;
    let length = file.metadata()?.len();
    if length > 0 && length + line.len() as u64 > LARGEST {
        std::fs::rename(&path, older(root))?;
        file = open(&path)?;
    } else if length > 0 && !ends_a_line(&mut file)? {
        // A power cut tore the last one: this one is not to be torn with it.
        line.insert(0, b'\n');
    }
    file.write_all(&line)?;
    file.sync_data()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What was written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The version of this form.
    pub version: u32,
    /// The lines, the oldest first.
    pub entries: Vec<Entry>,
    /// How many lines can't be read: a power cut tore them, or a later version wrote them.
    pub unreadable: usize,
}

/// Reads what was written down; the newest `last` lines of it.
pub fn read(root: &Root, last: Option<usize>) -> Result<Told, FileError> {
    let mut told = Told { version: 1, ..Told::default() };
    for path in [older(root), path(root)] {
        let bytes = read_optional(&path)?.unwrap_or_default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(entry) => told.entries.push(entry),
                Err(_) => told.unreadable += 1,
            }
        }
    }
    if let Some(last) = last {
        told.entries.drain(..told.entries.len().saturating_sub(last));
    }
    Ok(told)
}

impl Told {
    /// The page for people.
    pub fn page(&self) -> String {
        let mut page = String::new();
        for entry in &self.entries {
            page.push_str(&format!("{entry}\n"));
        }
        if self.entries.is_empty() {
            page.push_str("nothing has been decided on this machine yet\n");
        }
        if self.unreadable > 0 {
            let lines = if self.unreadable == 1 { "line was" } else { "lines were" };
            page.push_str(&format!(
                "{} {lines} passed over: torn by a power cut, or written by a later version\n",
                self.unreadable
            ));
        }
        page
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Timestamp::from_millisecond(self.at)
            .map_or_else(|_| self.at.to_string(), |at| format!("{at:.0}"));
        write!(f, "{at}  {:<11} ", self.phase)?;
        match &self.what {
            What::Started { version } => write!(f, "started  quorate {version}")?,
            What::Phase => f.write_str("phase")?,
            What::Step { step, took_ms, ended, error, times, .. } => {
                write!(
                    f,
                    "step     {step}: {} in {}.{:03} s",
                    ended.as_str(),
                    took_ms / 1000,
                    took_ms % 1000
                )?;
                if *times > 1 {
                    write!(f, ", {times} times")?;
                }
                if let Some(error) = error {
                    write!(f, ": {error}")?;
                }
            }
        }
        match &self.what {
            What::Step { ended: Ended::Done, .. } | What::Started { .. } => Ok(()),
            What::Step { .. } | What::Phase if self.why.is_empty() => Ok(()),
            What::Step { .. } => write!(f, " ({})", self.why.join("; ")),
            What::Phase => write!(f, "    {}", self.why.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_795_370_400_000;

    fn step(at: i64, name: &str, ended: Ended, error: Option<&str>) -> Entry {
        Entry {
            at,
            phase: Phase::Preparing,
            slot: Slot::try_from(1).ok(),
            what: What::Step {
                step: name.to_owned(),
                particulars: String::new(),
                took_ms: 1_250,
                ended,
                error: error.map(str::to_owned),
                times: 1,
            },
            why: vec!["waits for the clock to be synchronised".to_owned()],
        }
    }

    fn times(entries: &[Entry]) -> Vec<u32> {
        let of = |entry: &Entry| if let What::Step { times, .. } = entry.what { Some(times) } else { None };
        entries.iter().filter_map(of).collect()
    }

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn what_is_written_is_read_back_by_the_next_agent_too() {
        let (_dir, root) = root();
        assert_eq!(read(&root, None).unwrap(), Told { version: 1, ..Told::default() });
        for round in 0..2 {
            let mut history = History::begin(&root);
            history.note(step(AT + round, "attachVolume", Ended::Done, None));
        }
        let told = read(&root, None).unwrap();
        assert_eq!(told.entries.iter().map(|entry| entry.at).collect::<Vec<_>>(), [AT, AT + 1]);
        assert_eq!(read(&root, Some(1)).unwrap().entries[0].at, AT + 1);
        insta::assert_snapshot!(told.page(), @r"
        2026-11-22T18:00:00Z  preparing   step     attachVolume: done in 1.250 s
        2026-11-22T18:00:00Z  preparing   step     attachVolume: done in 1.250 s
        ");
    }

    #[test]
    fn a_line_that_a_power_cut_tore_costs_no_other() {
        let (_dir, root) = root();
        append(&root, &step(AT, "mount", Ended::Done, None)).unwrap();
        let whole = std::fs::read(path(&root)).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(path(&root), [&whole[..], &whole[..cut]].concat()).unwrap();
            append(&root, &step(AT + 5, "format", Ended::Done, None)).unwrap();
            let told = read(&root, None).unwrap();
            let torn = cut < whole.len() - 1;
            assert_eq!(
                (told.entries.len(), told.unreadable),
                (if torn { 2 } else { 3 }, usize::from(torn)),
                "{cut}"
            );
            assert_eq!(told.page().contains("1 line was passed over"), torn, "{cut}");
        }
    }

    #[test]
    fn it_is_bounded_and_the_newest_is_kept() {
        let (_dir, root) = root();
        let error = "x".repeat(4_000);
        for n in 0..400 {
            append(&root, &step(AT + n, "mount", Ended::Failed, Some(&error))).unwrap();
        }
        for path in [path(&root), older(&root)] {
            assert!(std::fs::metadata(path).unwrap().len() <= LARGEST);
        }
        let told = read(&root, None).unwrap();
        assert_eq!(told.entries.last().unwrap().at, AT + 399);
        assert!(told.entries.len() > 120 && told.entries.windows(2).all(|two| two[0].at + 1 == two[1].at));
    }

    #[test]
    fn the_same_failure_over_and_over_is_counted_and_another_is_told_at_once() {
        let (_dir, root) = root();
        let mut history = History::begin(&root);
        for second in 0..1_300 {
            // The id of the request differs each time.
            let why = format!("throttled [request r{second}]");
            history.note(step(AT + second * 1_000, "attachVolume", Ended::Failed, Some(&why)));
        }
        history.note(step(AT + 1_300_000, "attachVolume", Ended::Failed, Some("denied")));
        history.note(step(AT + 1_301_000, "attachVolume", Ended::Done, None));
        history.note(step(AT + 1_302_000, "attachVolume", Ended::Failed, Some("denied")));
        drop(history);
        assert_eq!(times(&read(&root, None).unwrap().entries), [1, 600, 600, 1, 1, 1]);
    }

    #[test]
    fn a_disk_that_takes_nothing_keeps_nobody() {
        let (dir, _) = root();
        std::fs::write(dir.path().join("var"), "not a directory").unwrap();
        let mut history = History::begin(&Root::new(dir.path()));
        for n in 0..2_000 {
            history.note(step(AT + n, "mount", Ended::Done, None));
        }
    }
}
