//! etcd's program and its place on the machine, and the agent's own rough handling.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::lab::region::ImdsFaults;
use quorate::model::{Halt, Phase};
use serde_json::json;
use tokio::time::Instant;

use super::node::{Node, PATIENCE, real_etcd};

#[tokio::test]
async fn a_missing_program_is_named_and_found_once_it_is_there() {
    let node = Node::with("missing", |settings, dir| {
        let path = dir.join("bin/etcd-of-the-test");
        settings.configuration.insert("etcd.binary".to_owned(), json!(path));
    })
    .await;
    node.machine.start();
    let status = node.until_said("etcd-of-the-test is not installed").await;
    assert!(status.words[0].starts_with("waits for an answer about etcd's version"), "{:?}", status.words);
    node.replace_etcd(&real_etcd());
    node.until_running().await;
}

#[tokio::test]
async fn a_wrong_version_halts_until_it_is_replaced() {
    for version in ["3.4.30", "4.0.0"] {
        let node = Node::with_etcd("version", &format!("echo 'etcd Version: {version}'")).await;
        node.machine.start();
        let halted = node.until("a halt", |status| status.halt.is_some()).await;
        match halted.halt {
            Some(Halt::EtcdVersion { found, .. }) => assert_eq!(found, version),
            other => panic!("{other:?}"),
        }
        assert_eq!(halted.phase, Phase::Halted);
        node.replace_etcd(&real_etcd());
        node.until_running().await;
    }
}

#[tokio::test]
async fn one_that_crashes_at_once_is_started_again_after_a_pause_and_its_last_words_are_told() {
    let node = Node::with_etcd("crash", "exit 1").await;
    let starts = node.root().join("tmp/starts");
    node.replace_etcd(&format!(
        "[ \"$1\" = --version ] && echo 'etcd Version: 3.5.16' && exit 0\n\
         date +%s%N >>{}\n\
         echo 'panic: the test wants it so' >&2\n\
         exit 17",
        starts.display()
    ));
    node.machine.start();
    let status = node.until_said("panic: the test wants it so").await;
    assert!(status.words[0].contains("exited with status 17"), "{:?}", status.words);
    let times = || -> Vec<u64> {
        let text = fs::read_to_string(&starts).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    let three = |_: &quorate::lab::laboratory::Laboratory| match times() {
        times if times.len() >= 3 => Ok(times),
        times => Err(format!("{} starts", times.len())),
    };
    let times = node.lab.wait("three starts", PATIENCE, three).await.unwrap();
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert!(pauses.iter().all(|pause| *pause >= 950), "{pauses:?} ms");
    node.replace_etcd(&real_etcd());
    node.until_running().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_the_reason_that_is_told() {
    for port in [2379, 2380] {
        let node = Node::new("port").await;
        let taken = TcpListener::bind((node.machine.identity().address, port)).unwrap();
        node.machine.start();
        let status = node.until_said("address already in use").await;
        let words = status.words.join("; ");
        assert!(words.contains(&port.to_string()), "{words}");
        drop(taken);
        node.until_running().await;
    }
}

fn signal(node: &Node, signal: Signal) {
    let pid = i32::try_from(node.machine.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.machine.pid().unwrap())).unwrap().count()
}

#[tokio::test]
async fn a_reload_leaks_nothing_and_leaves_etcd_alone() {
    let node = Node::new("reload").await;
    node.machine.start();
    node.until_running().await;
    let etcd = quorate::lab::process::etcd_of(node.machine.dir());
    let reload = async || {
        let before = node.until_running().await.at;
        signal(&node, Signal::SIGHUP);
        node.until("another look", |status| status.at > before && status.phase == Phase::Running).await;
    };
    reload().await;
    let after_one = open_files(&node);
    for _ in 0..15 {
        reload().await;
    }
    // One connection may be on its way out, another on its way in.
    let after_all = open_files(&node);
    assert!(after_all <= after_one + 4, "{after_one} open files, then {after_all}");
    assert_eq!(quorate::lab::process::etcd_of(node.machine.dir()), etcd);
    assert_eq!(node.machine.restarts(), 0);
}

#[tokio::test]
async fn an_agent_without_a_metadata_service_says_so_ends_when_asked_and_goes_on_when_it_is_back() {
    let node = Node::new("no-metadata").await;
    let instance = node.machine.identity().instance.clone();
    let set = |faults: ImdsFaults| {
        node.lab.ask("the weather", |w| w.set_imds_faults(&instance, &faults)).unwrap();
    };
    // So slow that an agent asked to end would have to wait for an answer.
    set(ImdsFaults { slow_ms: 60_000, ..ImdsFaults::default() });
    node.machine.start();
    node.lab
        .wait("the agent", PATIENCE, |_| node.machine.pid().ok_or_else(|| "it does not run".to_owned()))
        .await
        .unwrap();
    let status = node.until_said("no answer in time").await;
    assert_eq!((status.phase, status.cluster), (Phase::Identifying, None));
    let began = Instant::now();
    signal(&node, Signal::SIGTERM);
    let ended = |_: &quorate::lab::laboratory::Laboratory| match node.machine.last_exit() {
        Some(how) => Ok(how),
        None => Err("it runs".to_owned()),
    };
    let how = node.lab.wait("the agent's end", PATIENCE, ended).await.unwrap();
    assert_eq!(how, "exit status: 0");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    set(ImdsFaults::default());
    node.until_running().await;
}
