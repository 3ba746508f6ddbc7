//! Which processes are a node's, and their end by power cut.
//!
//! A node's processes carry its directory in their environment: the agent and what it runs by
//! [`NODE_MARK`](super::environment::NODE_MARK), its services by the agent's own [`MARK`], the path of the
//! note that says which process the service is. So nothing that somebody else started is ever taken for ours,
//! and nothing of ours is forgotten, whatever it was doing when the power went.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::environment::NODE_MARK;
use crate::host::service::MARK;

/// The processes of the nodes at or below a directory.
pub fn below(dir: &Path) -> Vec<Pid> {
    let dir = dir.as_os_str().as_bytes();
    let marked = |environment: &[u8]| {
        environment.split(|b| *b == 0).any(|variable| {
            [NODE_MARK, MARK].iter().any(|mark| {
                variable
                    .strip_prefix(mark.as_bytes())
                    .and_then(|rest| rest.strip_prefix(b"="))
                    .and_then(|path| path.strip_prefix(dir))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            })
        })
    };
    processes().filter(|pid| environment(*pid).is_some_and(|e| marked(&e))).collect()
}

/// Whether a process runs; what has ended and was not waited for does not.
pub fn is_alive(pid: Pid) -> bool {
    start_time(pid).is_some()
}

/// When a process that runs started, in clock ticks since the computer did; `None` when it does not run.
pub fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let runs = !matches!(fields.next()?, "Z" | "X" | "x");
    let start_time = fields.nth(18)?.parse().ok()?;
    runs.then_some(start_time)
}

/// Kills every process of the nodes at or below a directory, as a power cut does, until none is
/// left. Answers how many there were.
pub fn kill_below(dir: &Path) -> usize {
    // What is started by a process between being listed and being killed is found the next time,
    // and so is what was killed and has not ended yet: that one counts once.
    let mut killed = HashSet::new();
    loop {
        let found: Vec<Pid> = below(dir).into_iter().filter(|pid| is_alive(*pid)).collect();
        if found.is_empty() {
            return killed.len();
        }
        killed.extend(found.into_iter().filter(|pid| send(*pid, Signal::SIGKILL)));
        std::thread::yield_now();
    }
}

/// Asks every process of the nodes at or below a directory to end.
pub fn terminate_below(dir: &Path) {
    for pid in below(dir) {
        send(pid, Signal::SIGTERM);
    }
}

/// The etcd of a node.
pub fn etcd_of(node: &Path) -> Vec<Pid> {
    let mut mark = format!("{MARK}=").into_bytes();
    mark.extend_from_slice(node.join("root/run/quorate/etcd.pid").as_os_str().as_bytes());
    let is_marked = |e: Vec<u8>| e.split(|b| *b == 0).any(|v| v == mark);
    processes().filter(|pid| environment(*pid).is_some_and(&is_marked) && is_alive(*pid)).collect()
}

/// Kills the etcd of a node, and nothing else of it: its disk has gone from under it.
pub fn kill_etcd_of(node: &Path) {
    for pid in etcd_of(node) {
        send(pid, Signal::SIGKILL);
    }
}

/// Kills one process, which the caller knows to be its own.
pub fn kill_one(pid: Pid) {
    send(pid, Signal::SIGKILL);
}

/// Asks one process to end, which the caller knows to be its own.
pub fn terminate_one(pid: Pid) {
    send(pid, Signal::SIGTERM);
}

fn send(pid: Pid, signal: Signal) -> bool {
    match kill(pid, signal) {
        Ok(()) => true,
        Err(Errno::ESRCH) => false,
        Err(error) => {
            tracing::warn!(%pid, %signal, %error, "a process can't be signalled");
            false
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}

/// A process's environment; other users' can't be read and are none of ours.
fn environment(pid: Pid) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use super::*;

    fn sleeper(mark: Option<(&str, &Path)>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600");
        if let Some((name, value)) = mark {
            command.env(name, value);
        }
        command.spawn().unwrap()
    }

    #[test]
    fn a_power_cut_kills_the_nodes_processes_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("a1");
        let etcd = node.join("root/run/quorate/etcd.pid");
        let mut mine = [sleeper(Some((NODE_MARK, &node))), sleeper(Some((MARK, &etcd)))];
        let neighbour = dir.path().join("a10");
        let mut others = [sleeper(Some((NODE_MARK, &neighbour))), sleeper(None)];
        assert_eq!(kill_below(&node), 2);
        for child in &mut mine {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        for child in &mut others {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
