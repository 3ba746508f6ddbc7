//! A service as a process that the agent starts and does not take with it.
//!
//! It has a process group of its own, so that what ends the agent or its group spares it. Which
//! process it is stands in a note, by id and start time, since an id can be used again; and in
//! the process's own environment, so that it is found even when the agent was cut off between
//! starting it and writing the note.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::ServiceError;
use crate::host::Root;
use crate::host::files::{self, FileError};
use crate::model::{ServiceName, ServiceState};

/// The variable in the process's environment that says whose it is: the note's path.
pub const MARK: &str = "QUORATE_SERVICE_NOTE";
/// How often the process is looked at while its end is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// How much of the end of the log is looked at, in bytes, and how many lines of it are told.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 3;
/// The most that is told of a line, in characters.
const LINE: usize = 300;
/// How long a process that was killed is waited for.
const KILLED: Duration = Duration::from_secs(5);

/// A service as a process of its own.
#[derive(Debug, Clone)]
pub struct Child {
    which: ServiceName,
    /// The note of which process it is.
    note: PathBuf,
    /// What it says.
    log: PathBuf,
}

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Note {
    /// The process.
    pid: i32,
    /// When it started, in clock ticks since the machine did.
    start_time: u64,
    /// How long the log was before, in bytes.
    log_from: u64,
    /// Whether it was asked to end.
    stopping: bool,
    /// How it ended, once that is known.
    ended: Option<String>,
}

impl Child {
    pub(super) fn new(root: &Root, which: ServiceName) -> Self {
        Self {
            which,
            note: root.path(format!("/run/quorate/{which}.pid")),
            log: root.path(format!("/var/log/quorate/{which}.log")),
        }
    }

    pub(super) fn state(&self) -> Result<ServiceState, ServiceError> {
        Ok(match self.find()? {
            None | Some(Note { stopping: true, ended: Some(_), .. }) => ServiceState::Stopped,
            Some(Note { ended: Some(how), .. }) => ServiceState::Failed(how),
            Some(Note { ended: None, .. }) => ServiceState::Running,
        })
    }

    pub(super) fn start(&self, program: &Path, args: &[OsString]) -> Result<(), ServiceError> {
        if self.find()?.is_some_and(|note| note.ended.is_none()) {
            return Ok(());
        }
        let (log, log_from) = self.open_log()?;
        let (out, err) = (log.try_clone(), Ok(log));
        let stdio = |file: io::Result<File>| file.map(Stdio::from).map_err(|source| self.log_error(source));
        let mut command = Command::new(program);
        command.args(args).current_dir("/").stdin(Stdio::null()).stdout(stdio(out)?).stderr(stdio(err)?);
        command.process_group(0);
        // Of the agent's environment nothing but the search path: etcd takes orders from `ETCD_*`, and what
        // leads the agent to AWS is not for others.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env(MARK, &self.note);
        // It outlives the agent, and when it does not, `end` waits for it by its id.
        let child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ServiceError::ProgramMissing { program: program.to_owned() },
            _ => ServiceError::Spawn { program: program.to_owned(), source },
        })?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        // A child that has ended already is still there until it is waited for.
        let start_time = stat(pid)?.map_or(0, |stat| stat.start_time);
        self.write(&Note { pid, start_time, log_from, stopping: false, ended: None })
    }

    pub(super) async fn stop(&self, patience: Duration) -> Result<(), ServiceError> {
        let Some(mut note) = self.find()?.filter(|note| note.ended.is_none()) else {
            return files::remove_durably(&self.note).map_err(|source| self.note_error(source));
        };
        note.stopping = true;
        self.write(&note)?;
        signal(&note, Signal::SIGTERM, "sending SIGTERM to")?;
        if !wait(&note, patience).await? {
            if !self.which.may_be_killed() {
                return Err(ServiceError::StillRunning { service: self.which, patience });
            }
            tracing::warn!(service = %self.which, pid = note.pid, "a service did not end, and is killed");
            signal(&note, Signal::SIGKILL, "sending SIGKILL to")?;
            if !wait(&note, KILLED).await? {
                return Err(ServiceError::StillRunning { service: self.which, patience: KILLED });
            }
        }
        files::remove_durably(&self.note).map_err(|source| self.note_error(source))
    }

    fn note_error(&self, source: FileError) -> ServiceError {
        ServiceError::Note { service: self.which, source }
    }

    fn log_error(&self, source: io::Error) -> ServiceError {
        ServiceError::Log { service: self.which, path: self.log.clone(), source }
    }

    /// The note, brought up to date with the process table.
    fn find(&self) -> Result<Option<Note>, ServiceError> {
        let Some(mut note) = self.read()? else {
            return self.adopt();
        };
        if note.ended.is_some() {
            return Ok(Some(note));
        }
        let Some(how) = end(&note)? else {
            return Ok(Some(note));
        };
        note.ended = Some(match self.tail(note.log_from) {
            Some(said) => format!("{how}; its last words: {said}"),
            None => how,
        });
        self.write(&note)?;
        Ok(Some(note))
    }

    /// The process that an agent started and was cut off before it wrote the note, if there is one.
    fn adopt(&self) -> Result<Option<Note>, ServiceError> {
        // Its log is made before it is. To look through all processes takes some milliseconds.
        if !self.log.exists() {
            return Ok(None);
        }
        let mark = [MARK.as_bytes(), b"=", self.note.as_os_str().as_encoded_bytes()].concat();
        let processes = Path::new("/proc");
        let failed = |source| ServiceError::Process { path: processes.to_owned(), source };
        for entry in fs::read_dir(processes).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // Other users' processes, which can't be read, are none of ours; nor are those that go.
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if !environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
                continue;
            }
            if let Some(stat) = stat(pid)?.filter(Stat::runs) {
                tracing::info!(service = %self.which, pid, "found a process without a note");
                let note =
                    Note { pid, start_time: stat.start_time, log_from: 0, stopping: false, ended: None };
                self.write(&note)?;
                return Ok(Some(note));
            }
        }
        Ok(None)
    }

    fn read(&self) -> Result<Option<Note>, ServiceError> {
        let Some(bytes) = files::read_optional(&self.note).map_err(|source| self.note_error(source))? else {
            return Ok(None);
        };
        // Ids below 2 mean whole groups to kill(2) and waitpid(2), or init.
        serde_json::from_slice(&bytes)
            .and_then(|note: Note| match note.pid {
                2.. => Ok(Some(note)),
                pid => Err(serde::de::Error::custom(format_args!("{pid} is not a process of ours"))),
            })
            .map_err(|source| ServiceError::NoteDamaged { path: self.note.clone(), source })
    }

    fn write(&self, note: &Note) -> Result<(), ServiceError> {
        let bytes = serde_json::to_vec(note)
            .map_err(|source| ServiceError::NoteDamaged { path: self.note.clone(), source })?;
        if let Some(dir) = self.note.parent() {
            files::create_dir(dir, 0o755).map_err(|source| self.note_error(source))?;
        }
        files::write_durably(&self.note, &bytes, 0o644).map_err(|source| self.note_error(source))
    }

    /// The log, and how long it is.
    fn open_log(&self) -> Result<(File, u64), ServiceError> {
        if let Some(dir) = self.log.parent() {
            files::create_dir(dir, 0o755).map_err(|source| self.note_error(source))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .and_then(|log| log.metadata().map(|metadata| (log, metadata.len())))
            .map_err(|source| self.log_error(source))
    }

    /// The last lines of the log, of this process only. A help to people: no log, no lines.
    fn tail(&self, from: u64) -> Option<String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = File::open(&self.log)?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read()
            .inspect_err(
                |error| tracing::warn!(path = %self.log.display(), %error, "a service's log was not read"),
            )
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last: Vec<String> = lines[lines.len().saturating_sub(TAIL_LINES)..]
            .iter()
            .map(|line| line.chars().take(LINE).collect())
            .collect();
        (!last.is_empty()).then(|| last.join(" | "))
    }
}

/// What the kernel says of a process in `/proc/PID/stat`.
struct Stat {
    state: char,
    threads: u64,
    start_time: u64,
}

impl Stat {
    /// Whether anything of it runs. The first thread of a process that ends can be a zombie while
    /// the others still hold its ports and files.
    fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1
    }
}

/// A process's status; `None` when there is none of that id. Source: proc(5).
fn stat(pid: i32) -> Result<Option<Stat>, ServiceError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // The latter when it goes while it is read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
        Err(source) => return Err(ServiceError::Process { path, source }),
    };
    parse_stat(&text)
        .map(Some)
        .ok_or_else(|| ServiceError::Process { path, source: io::ErrorKind::InvalidData.into() })
}

/// The name, in parentheses, may itself have blanks and parentheses; fields are counted after it.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, threads, start_time })
}

fn signal(note: &Note, signal: Signal, what: &'static str) -> Result<(), ServiceError> {
    match kill(Pid::from_raw(note.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(ServiceError::Signal { what, pid: note.pid, source }),
    }
}

/// Waits for the process's end; whether it came in time.
async fn wait(note: &Note, patience: Duration) -> Result<bool, ServiceError> {
    let deadline = Instant::now() + patience;
    while end(note)?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
    Ok(true)
}

/// How the process ended; `None` while it runs. One that has ended and is a child of this very
/// agent is waited for here, so that nothing is left of it.
fn end(note: &Note) -> Result<Option<String>, ServiceError> {
    let gone = || Some("is gone".to_owned());
    let Some(stat) = stat(note.pid)?.filter(|stat| stat.start_time == note.start_time) else {
        return Ok(gone());
    };
    if stat.runs() {
        return Ok(None);
    }
    match waitpid(Pid::from_raw(note.pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, status)) => Ok(Some(format!("exited with status {status}"))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(format!("ended by {signal}"))),
        Ok(_) => Ok(None),
        Err(Errno::ECHILD) => Ok(gone()),
        Err(source) => Err(ServiceError::Signal { what: "waiting for", pid: note.pid, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, waitid};

    /// A root with its service; what it started is killed at the end.
    struct Lab {
        dir: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        /// The service, as an agent started now sees it.
        fn agent(&self) -> Child {
            self.of(ServiceName::Etcd)
        }

        fn of(&self, which: ServiceName) -> Child {
            Child::new(&Root::new(self.dir.path()), which)
        }

        fn note(&self) -> Note {
            self.agent().read().unwrap().unwrap()
        }

        fn start(&self, program: &str, args: &[&str]) -> i32 {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            self.agent().start(Path::new(program), &args).unwrap();
            self.note().pid
        }

        fn state(&self) -> ServiceState {
            self.agent().state().unwrap()
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            if let Ok(Some(note)) = self.agent().read()
                && matches!(stat(note.pid), Ok(Some(stat)) if stat.start_time == note.start_time)
            {
                let _ = kill(Pid::from_raw(note.pid), Signal::SIGKILL);
                let _ = waitpid(Pid::from_raw(note.pid), None);
            }
        }
    }

    /// Waits for the end of a child of this process, and leaves it to be reaped.
    fn wait_for_end(pid: i32) {
        waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    #[tokio::test]
    async fn it_is_stopped_until_started_and_after_it_was_stopped() {
        let lab = Lab::new();
        assert_eq!(lab.state(), ServiceState::Stopped);
        lab.start("sleep", &["600"]);
        assert_eq!(lab.state(), ServiceState::Running);
        lab.agent().stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(lab.state(), ServiceState::Stopped);
        lab.agent().stop(Duration::from_secs(10)).await.unwrap();
    }

    #[test]
    fn starting_what_runs_changes_nothing() {
        let lab = Lab::new();
        let pid = lab.start("sleep", &["600"]);
        assert_eq!(lab.start("sleep", &["600"]), pid);
    }

    #[test]
    fn it_has_a_process_group_of_its_own() {
        let lab = Lab::new();
        let pid = Pid::from_raw(lab.start("sleep", &["600"]));
        assert_eq!(nix::unistd::getpgid(Some(pid)).unwrap(), pid);
    }

    #[test]
    fn one_that_was_killed_has_failed_and_is_not_taken_for_running_while_it_waits_to_be_reaped() {
        let lab = Lab::new();
        let pid = lab.start("sleep", &["600"]);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_for_end(pid);
        assert!(!stat(pid).unwrap().unwrap().runs());
        assert_eq!(lab.state(), ServiceState::Failed("ended by SIGKILL".to_owned()));
        // The next agent, whose child it never was, is told the same.
        assert_eq!(lab.state(), ServiceState::Failed("ended by SIGKILL".to_owned()));
        assert_ne!(lab.start("sleep", &["600"]), pid);
        assert_eq!(lab.state(), ServiceState::Running);
    }

    #[test]
    fn one_that_ends_by_itself_has_failed_with_its_last_words() {
        let lab = Lab::new();
        fs::create_dir_all(lab.agent().log.parent().unwrap()).unwrap();
        fs::write(&lab.agent().log, "words of the one before\n").unwrap();
        let pid = lab.start("sh", &["-c", "echo listen: port taken >&2; exit 7"]);
        wait_for_end(pid);
        let how = "exited with status 7; its last words: listen: port taken";
        assert_eq!(lab.state(), ServiceState::Failed(how.to_owned()));
    }

    #[test]
    fn an_agent_cut_off_before_its_note_is_followed_by_one_that_finds_the_process() {
        let lab = Lab::new();
        let pid = lab.start("sleep", &["600"]);
        fs::remove_file(&lab.agent().note).unwrap();
        assert_eq!(lab.start("sleep", &["600"]), pid);
        assert_eq!(lab.state(), ServiceState::Running);
    }

    #[test]
    fn an_id_that_is_used_again_is_not_the_process() {
        let lab = Lab::new();
        lab.start("sleep", &["600"]);
        let note = lab.note();
        lab.agent().write(&Note { start_time: note.start_time + 1, ..note.clone() }).unwrap();
        assert_eq!(lab.state(), ServiceState::Failed("is gone".to_owned()));
        lab.agent().write(&note).unwrap();
    }

    #[tokio::test]
    async fn one_that_belongs_to_no_agent_any_more_is_found_stopped_and_found_gone() {
        let lab = Lab::new();
        let orphan = |lab: &Lab| {
            let said =
                Command::new("sh").args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"]).output().unwrap();
            let pid = String::from_utf8(said.stdout).unwrap().trim().parse().unwrap();
            let start_time = stat(pid).unwrap().unwrap().start_time;
            lab.agent().write(&Note { pid, start_time, log_from: 0, stopping: false, ended: None }).unwrap();
        };
        orphan(&lab);
        assert_eq!(lab.state(), ServiceState::Running);
        lab.agent().stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(lab.state(), ServiceState::Stopped);

        orphan(&lab);
        let note = lab.note();
        kill(Pid::from_raw(note.pid), Signal::SIGKILL).unwrap();
        while stat(note.pid).unwrap().is_some_and(|stat| stat.runs()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(lab.state(), ServiceState::Failed("is gone".to_owned()));
    }

    #[test]
    fn one_that_was_asked_to_end_and_did_is_stopped_whoever_looks() {
        let lab = Lab::new();
        let pid = lab.start("sleep", &["600"]);
        lab.agent().write(&Note { stopping: true, ..lab.note() }).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        wait_for_end(pid);
        assert_eq!(lab.state(), ServiceState::Stopped);
    }

    #[tokio::test]
    async fn one_that_does_not_end_in_time_is_left_running() {
        let lab = Lab::new();
        let pid = lab.start("sh", &["-c", "trap '' TERM; exec sleep 600"]);
        let name = format!("/proc/{pid}/comm");
        while fs::read_to_string(&name).unwrap().trim() != "sleep" {
            tokio::task::yield_now().await;
        }
        let error = lab.agent().stop(Duration::from_millis(60)).await.unwrap_err();
        assert!(matches!(error, ServiceError::StillRunning { .. }), "{error:?}");
        assert_eq!(lab.state(), ServiceState::Running);
    }

    #[tokio::test]
    async fn one_other_than_etcd_that_does_not_end_in_time_is_killed() {
        let lab = Lab::new();
        let kubelet = lab.of(ServiceName::Kubelet);
        let args: Vec<OsString> = ["-c", "trap '' TERM; exec sleep 600"].iter().map(OsString::from).collect();
        kubelet.start(Path::new("sh"), &args).unwrap();
        let pid = kubelet.read().unwrap().unwrap().pid;
        let name = format!("/proc/{pid}/comm");
        while fs::read_to_string(&name).unwrap().trim() != "sleep" {
            tokio::task::yield_now().await;
        }
        kubelet.stop(Duration::from_millis(60)).await.unwrap();
        assert_eq!(kubelet.state().unwrap(), ServiceState::Stopped);
        assert!(stat(pid).unwrap().is_none_or(|stat| !stat.runs()));
    }

    #[tokio::test]
    async fn services_have_nothing_in_common() {
        let lab = Lab::new();
        let etcd = lab.start("sleep", &["600"]);
        let kubelet = lab.of(ServiceName::Kubelet);
        assert_eq!(kubelet.state().unwrap(), ServiceState::Stopped);
        kubelet.start(Path::new("sleep"), &["600".into()]).unwrap();
        fs::remove_file(&kubelet.note).unwrap();
        assert_eq!(kubelet.state().unwrap(), ServiceState::Running);
        assert_ne!(kubelet.read().unwrap().unwrap().pid, etcd);
        kubelet.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(kubelet.state().unwrap(), ServiceState::Stopped);
        assert_eq!((lab.state(), lab.note().pid), (ServiceState::Running, etcd));
    }

    #[test]
    fn a_missing_program_is_named() {
        let lab = Lab::new();
        let error = lab.agent().start(Path::new("/no/such/etcd"), &[]).unwrap_err();
        assert!(matches!(error, ServiceError::ProgramMissing { .. }), "{error:?}");
        assert_eq!(lab.state(), ServiceState::Stopped);
    }

    #[test]
    fn a_damaged_note_is_no_answer_and_names_no_group_of_processes() {
        let lab = Lab::new();
        lab.start("sleep", &["600"]);
        let note = lab.note();
        for pid in [-1, 0, 1] {
            let bytes = serde_json::to_vec(&Note { pid, ..note.clone() }).unwrap();
            fs::write(&lab.agent().note, bytes).unwrap();
            let error = lab.agent().state().unwrap_err();
            assert!(matches!(error, ServiceError::NoteDamaged { .. }), "{error:?}");
        }
        lab.agent().write(&note).unwrap();
    }

    #[test]
    fn a_process_may_have_any_name() {
        let text = format!("42 (a) Z (b)) S 1 42 42 {} 7 0 12345 0", ["0"; 13].join(" "));
        let stat = parse_stat(&text).unwrap();
        assert_eq!((stat.state, stat.threads, stat.start_time), ('S', 7, 12345));
    }

    #[test]
    fn a_process_runs_until_its_last_thread_has_ended() {
        let runs = |state, threads| Stat { state, threads, start_time: 1 }.runs();
        assert!(runs('S', 1) && runs('R', 9) && runs('Z', 2));
        assert!(!runs('Z', 1) && !runs('X', 0));
    }
}
