//! The machine by itself, as its kernel tells below `/proc` and `/sys`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::doctor::seen::{HostSeen, Listener};
use crate::host::files::{FileError, list_optional, read_optional};
use crate::host::{Root, capacity, clock};
use crate::model::Fact;
use crate::model::fact::chain;

/// The state of a socket that listens, in `/proc/net/tcp`.
/// Source: `TCP_LISTEN`, include/net/tcp_states.h of Linux.
const LISTENS: &str = "0A";

pub(super) async fn look(root: &Root) -> HostSeen {
    // Below another root the kernel is the same.
    let kernel = Root::default();
    HostSeen {
        clock_synchronised: clock::synchronised(root).await.into(),
        machine: capacity::machine(&kernel, root).into(),
        controllers: text(&kernel, "/sys/fs/cgroup/cgroup.controllers")
            .map(|text| text.map(|text| text.split_whitespace().map(str::to_owned).collect())),
        ip_forward: flag(&kernel, "/proc/sys/net/ipv4/ip_forward"),
        overlay: overlay(&kernel, root),
        listeners: listeners(&kernel),
    }
}

fn text(root: &Root, path: &str) -> Fact<Option<String>> {
    let read = read_optional(&root.path(path));
    Fact::from(read).map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn flag(root: &Root, path: &str) -> Fact<bool> {
    match text(root, path) {
        Fact::Known(Some(text)) => Fact::Known(text.trim() != "0"),
        Fact::Known(None) => Fact::unknown(format!("{path} is not there")),
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

/// Whether the kernel has overlay file systems: now, built in, or as a module of its own.
fn overlay(kernel: &Root, root: &Root) -> Fact<bool> {
    let named = |text: &str| text.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    match text(kernel, "/proc/filesystems") {
        Fact::Known(Some(text)) if named(&text) => return Fact::Known(true),
        Fact::Known(_) => {}
        Fact::Unknown(why) => return Fact::Unknown(why),
    }
    let release = match text(kernel, "/proc/sys/kernel/osrelease") {
        Fact::Known(Some(release)) => release,
        Fact::Known(None) => return Fact::unknown("the kernel does not tell its release"),
        Fact::Unknown(why) => return Fact::Unknown(why),
    };
    let path = format!("/lib/modules/{}/modules.dep", release.trim());
    match text(root, &path) {
        Fact::Known(None) => Fact::unknown(format!("it is not built in, and {path} is not there")),
        Fact::Known(Some(modules)) => {
            let is_overlay =
                |line: &str| line.split(':').next().is_some_and(|path| path.contains("/overlay.ko"));
            Fact::Known(modules.lines().any(is_overlay))
        }
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

/// Who listens for TCP.
fn listeners(kernel: &Root) -> Fact<Vec<Listener>> {
    let mut sockets = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match text(kernel, path) {
            Fact::Known(Some(text)) => sockets.extend(text.lines().skip(1).filter_map(listening)),
            // A kernel without version 6 has no such file.
            Fact::Known(None) if path.ends_with('6') => {}
            Fact::Known(None) => return Fact::unknown(format!("{path} is not there")),
            Fact::Unknown(why) => return Fact::Unknown(why),
        }
    }
    let processes = match processes(kernel) {
        Ok(processes) => processes,
        Err(error) => return Fact::unknown(chain(&error)),
    };
    let mut found: Vec<Listener> = sockets
        .into_iter()
        .map(|(address, port, inode)| Listener { address, port, process: processes.get(&inode).cloned() })
        .collect();
    found.sort_unstable();
    found.dedup();
    Fact::Known(found)
}

/// The address, port and inode of a line of `/proc/net/tcp`, if that socket listens.
/// Source: "proc_net_tcp", documentation of the Linux kernel's networking.
fn listening(line: &str) -> Option<(IpAddr, u16, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if *words.get(3)? != LISTENS {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    Some((parsed(address)?, u16::from_str_radix(port, 16).ok()?, words.get(9)?.parse().ok()?))
}

/// An address in the kernel's form: words of 32 bits as the machine has them in memory.
fn parsed(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..text.len() / 8)
        .map(|i| Some(u32::from_str_radix(text.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let six = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
    Some(six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4))
}

/// The names of processes, by the inodes of their sockets. Those of others are not told to who is not root.
fn processes(kernel: &Root) -> Result<BTreeMap<u64, String>, FileError> {
    let mut found = BTreeMap::new();
    let proc = kernel.path("/proc");
    for process in list_optional(&proc)?.unwrap_or_default() {
        if !process.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let of = proc.join(&process);
        // One that has ended meanwhile, or is another's, has none to tell.
        let (Ok(inodes), Ok(name)) = (sockets(&of.join("fd")), std::fs::read_to_string(of.join("comm")))
        else {
            continue;
        };
        found.extend(inodes.into_iter().map(|inode| (inode, name.trim().to_owned())));
    }
    Ok(found)
}

fn sockets(dir: &Path) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let target = std::fs::read_link(entry?.path());
        let inode: Option<u64> = target
            .ok()
            .and_then(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen_are_read_from_the_kernel_s_lines() {
        let line = "   0: 0100007F:094D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1";
        let (address, port, inode) = listening(line).unwrap();
        assert_eq!((address.to_string().as_str(), port, inode), ("127.0.0.1", 2381, 31337));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("nonsense"), None);
        assert_eq!(parsed("00000000000000000000000000000000").unwrap().to_string(), "::");
        assert_eq!(parsed("0000000000000000FFFF00000A01000A").unwrap().to_string(), "10.0.1.10");
    }

    #[test]
    fn this_very_process_is_found_by_its_listener() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let Fact::Known(found) = listeners(&Root::default()) else { panic!("no /proc") };
        let own = found.iter().find(|found| found.port == port).unwrap();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(own.process.as_deref(), Some(name.trim()));
    }
}
