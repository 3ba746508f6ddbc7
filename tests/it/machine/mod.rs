//! The agent on a machine that systemd runs: units, D-Bus, the journal, real mounts, power cuts.
//!
//! The machine is a container (systemd-nspawn) whose volume is a loop device; the agent and the
//! units are those that ship. One machine makes a cluster of one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod rig;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use etcd_client::Client;
use quorate::host::Root;
use quorate::host::service::Service;
use quorate::kubernetes::{Owner, paths};
use quorate::lab::cluster::{Seen, Tls, look, pki_of};
use quorate::lab::region::{FaultKind, FaultSpec, Service as AwsService};
use quorate::model::{ServiceLaunch, ServiceName, ServiceObservation, ServiceState};

use rig::Machine;

const AGENT: &str = "quorate.service";
const ETCD: &str = "quorate-etcd.service";
/// For what takes a round or two of the agent.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn the_agent_and_etcd_live_with_systemd() {
    rig::outside("machine::the_agent_and_etcd_live_with_systemd", trial);
}

fn trial(dir: &Path) {
    let mut machine = Machine::new(dir);
    machine.boot();
    it_says_what_it_does(&machine);
    machine.show_volume();
    let member = it_forms(&machine);
    the_journal_has_its_fields(&machine);
    the_agent_comes_and_goes(&machine, &member);
    a_reload_reads_the_configuration(&machine);
    a_wedged_agent_is_started_again(&machine);
    etcd_is_started_again(&machine, &member);
    machine.cut_power();
    it_returns(&mut machine, &member);
    // Before the agent has what it starts them with.
    services_are_started_with_what_they_are_given(&machine);
    the_control_planes_files_have_their_owners(&machine);
    a_shutdown_waits_for_the_kubelet(&machine);
    without_containerd_nothing_is_started(&machine);
    it_delays_shutdowns(&machine);
    machine.shut_down(SOON);
    it_ended_in_good_order(&machine);
}

/// Where etcd is reached, and by whom.
fn etcd_at(machine: &Machine) -> (String, Option<Tls>) {
    (format!("https://{}:2379", machine.address), Tls::in_directory(&pki_of(&machine.root())))
}

fn member(machine: &Machine) -> Result<Seen, String> {
    let (url, tls) = etcd_at(machine);
    let tls = tls.ok_or_else(|| "there are no certificates".to_owned())?;
    machine.runtime.block_on(look(&url, &tls)).map_err(|error| format!("{error:?}"))
}

fn etcd_client(machine: &Machine) -> Client {
    let (url, tls) = etcd_at(machine);
    let options = tls.unwrap().options(Duration::from_secs(5));
    machine.runtime.block_on(Client::connect([url], Some(options))).unwrap()
}

fn is_running(machine: &Machine) -> Result<(), String> {
    let status = machine.status().ok_or_else(|| "there is no status".to_owned())?;
    let told = machine.property(AGENT, "StatusText");
    if status.is_running() && told.contains("running") {
        Ok(())
    } else {
        Err(format!("{}; systemd was told {told:?}", status.line()))
    }
}

/// READY before there is a volume, and in words what it waits for.
fn it_says_what_it_does(machine: &Machine) {
    machine.wait("READY", SOON, || match machine.property(AGENT, "ActiveState").as_str() {
        "active" => Ok(()),
        other => Err(other.to_owned()),
    });
    machine.wait("the wait for the device", SOON, || {
        let page = machine.systemctl(&["status", "--no-pager", "--full", AGENT]);
        let line = page.lines().find(|line| line.trim_start().starts_with("Status:"));
        line.filter(|line| line.contains("device")).map(drop).ok_or(page.clone())
    });
    assert_eq!(machine.property(ETCD, "ActiveState"), "inactive");
    // Started by hand before its volume is mounted, it would begin anew on the root disk.
    assert!(!machine.run(&["systemctl", "start", ETCD]).status.success());
    assert_eq!(fs::read_dir(machine.root().join("var/lib/etcd")).map_or(0, Iterator::count), 0);
}

/// The volume becomes a file system, mounted for the whole machine, and etcd a unit of its own.
fn it_forms(machine: &Machine) -> Seen {
    machine.wait("the cluster", Duration::from_secs(40), || is_running(machine));
    let shown = machine.say(&["findmnt", "--noheadings", "--output=SOURCE,FSTYPE", "/var/lib/etcd"]);
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["/dev/nvme1n1", "ext4"]);
    assert_eq!(machine.property("var-lib-etcd.mount", "ActiveState"), "active");
    machine.wait("etcd's READY", SOON, || match machine.property(ETCD, "ActiveState").as_str() {
        "active" => Ok(()),
        other => Err(other.to_owned()),
    });
    let group = machine.say(&["cat", &format!("/proc/{}/cgroup", machine.pid(ETCD))]);
    assert!(group.contains("/system.slice/quorate-etcd.service"), "{group}");
    assert_eq!(machine.property(AGENT, "NRestarts"), "0");
    let seen = member(machine).unwrap();
    machine.runtime.block_on(etcd_client(machine).put("trial", "kept", None)).unwrap();
    seen
}

fn the_journal_has_its_fields(machine: &Machine) {
    for step in ["attachVolume", "format", "mount", "createCharter", "startEtcd"] {
        let entries = machine.journal(&[&format!("QUORATE_STEP={step}")]);
        let done = entries.iter().find(|entry| entry["MESSAGE"].as_str().unwrap().starts_with("step done"));
        let done = done.unwrap_or_else(|| panic!("{step}: {entries:?}"));
        assert_eq!(done["_SYSTEMD_UNIT"], AGENT);
        assert_eq!(done["SYSLOG_IDENTIFIER"], "quorate");
        assert_eq!(done["PRIORITY"], "6");
        assert!(done["QUORATE_TOOK_MS"].as_str().unwrap().parse::<u64>().is_ok());
    }
    assert!(!machine.journal(&["QUORATE_PHASE=running"]).is_empty());
}

/// However the agent ends, etcd goes on, and the next agent finds it.
fn the_agent_comes_and_goes(machine: &Machine, before: &Seen) {
    let etcd = machine.pid(ETCD);
    assert_ne!(etcd, 0);
    let found_again = || {
        machine.wait("the agent's return", SOON, || {
            let agent = machine.pid(AGENT);
            let status = machine.status().filter(|status| agent != 0 && status.pid == Some(agent));
            status.ok_or_else(|| "there is no status of it".to_owned())?;
            is_running(machine)
        });
        assert_eq!(machine.pid(ETCD), etcd);
        assert_eq!(member(machine).unwrap(), *before);
    };
    assert!(machine.run(&["systemctl", "stop", AGENT]).status.success());
    assert_eq!(machine.property(AGENT, "ActiveState"), "inactive");
    assert_eq!(machine.property(AGENT, "Result"), "success");
    assert!(machine.property(AGENT, "StatusText").starts_with("stopped"));
    assert_eq!(machine.pid(ETCD), etcd);
    assert_eq!(member(machine).unwrap(), *before);
    assert!(machine.run(&["systemctl", "start", AGENT]).status.success());
    found_again();
    let agent = machine.pid(AGENT);
    machine.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", AGENT]);
    machine.wait("the agent's restart", SOON, || match machine.pid(AGENT) {
        pid if pid != 0 && pid != agent => Ok(()),
        pid => Err(format!("the agent is {pid}")),
    });
    found_again();
    assert_eq!(machine.journal(&["QUORATE_STEP=startEtcd"]).len(), 1);
}

fn a_reload_reads_the_configuration(machine: &Machine) {
    let (agent, etcd) = (machine.pid(AGENT), machine.pid(ETCD));
    machine.write("etc/quorate/config.d/60-more.yaml", "log: {level: debug}\n");
    assert!(machine.run(&["systemctl", "reload", AGENT]).status.success());
    machine.wait("the new configuration", SOON, || {
        // Only who read the new level says anything at it.
        let told = machine.journal(&["PRIORITY=7", &format!("_PID={agent}")]);
        let state = machine.property(AGENT, "ActiveState");
        if told.is_empty() || state != "active" { Err(format!("{state} {told:?}")) } else { Ok(()) }
    });
    machine.wait("the next round", SOON, || is_running(machine));
    assert_eq!((machine.pid(AGENT), machine.pid(ETCD)), (agent, etcd));
}

/// The watchdog is fed by an agent that lives, and ends one that does not.
fn a_wedged_agent_is_started_again(machine: &Machine) {
    let (agent, etcd) = (machine.pid(AGENT), machine.pid(ETCD));
    let fed = || machine.property(AGENT, "WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let first = fed();
    // Well over the drop-in's three seconds.
    machine.wait("the watchdog's food", SOON, || match fed().saturating_sub(first) {
        4_000_000.. => Ok(()),
        spent => Err(format!("last fed after {spent} µs")),
    });
    assert_eq!(machine.pid(AGENT), agent);
    machine.systemctl(&["kill", "--kill-whom=main", "--signal=STOP", AGENT]);
    machine.wait("a new agent", SOON, || match machine.pid(AGENT) {
        pid if pid != 0 && pid != agent => Ok(()),
        pid => Err(format!("the agent is {pid}")),
    });
    let said =
        machine.say(&["journalctl", "--boot", "--no-pager", "--unit=quorate.service", "--grep=watchdog"]);
    assert!(said.contains("Watchdog timeout"), "{said}");
    machine.wait("the next round", SOON, || is_running(machine));
    assert_eq!(machine.pid(ETCD), etcd);
}

/// The agent says how etcd ended, and starts it again on what it has.
fn etcd_is_started_again(machine: &Machine, before: &Seen) {
    for (end, how) in [
        (["systemctl", "kill", "--signal=KILL", ETCD].as_slice(), Some("ended by signal 9")),
        (["systemctl", "stop", ETCD].as_slice(), None),
    ] {
        let etcd = machine.pid(ETCD);
        machine.say(end);
        machine.wait("etcd's restart", SOON, || match machine.pid(ETCD) {
            pid if pid != 0 && pid != etcd => member(machine).map(drop),
            pid => Err(format!("etcd is {pid}")),
        });
        machine.wait("the next round", SOON, || is_running(machine));
        assert_eq!(member(machine).unwrap().member, before.member);
        let messages = machine.messages().join("\n");
        assert!(how.is_none_or(|how| messages.contains(how)), "{messages}");
    }
}

/// After a power cut, while EC2 does not answer: the same member on the same volume.
fn it_returns(machine: &mut Machine, before: &Seen) {
    let fault = FaultSpec {
        service: AwsService::Ec2,
        operation: None,
        instance: None,
        kind: FaultKind::ServerError,
        rate: 1.0,
        count: None,
        seed: None,
    };
    machine.region.change(|world| world.add_fault(fault));
    machine.boot();
    machine.show_volume();
    machine.wait("the member", Duration::from_secs(40), || member(machine));
    machine.region.change(quorate::lab::region::World::clear_faults);
    machine.wait("the next round", SOON, || is_running(machine));
    let after = member(machine).unwrap();
    assert_eq!((after.cluster, after.member), (before.cluster, before.member));
    let kept = machine.runtime.block_on(etcd_client(machine).get("trial", None)).unwrap();
    assert_eq!(kept.kvs()[0].value(), b"kept");
    assert!(machine.journal(&["QUORATE_STEP=format"]).is_empty());
    assert!(!machine.journal(&["QUORATE_STEP=mount"]).is_empty());
}

/// The agent's unit leaves it the powers to give files to the components' users, and to read them again.
fn the_control_planes_files_have_their_owners(machine: &Machine) {
    let fragment = "kubernetes: {version: 1.36.2, endpoint: api.example.com}\n";
    machine.write("etc/quorate/config.d/70-kubernetes.yaml", fragment);
    assert!(machine.run(&["systemctl", "reload", AGENT]).status.success());
    let found = |path: &str| {
        let found =
            fs::metadata(machine.root().join(&path[1..])).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>((path.to_owned(), found.mode() & 0o7777, found.uid(), found.gid()))
    };
    machine.wait("the API server's manifest", Duration::from_secs(30), || {
        found(paths::API_SERVER_MANIFEST).map(drop)
    });
    let files = [
        (paths::API_SERVER_MANIFEST, paths::SECRET, Owner::Root),
        (paths::CA, paths::PUBLIC, Owner::Root),
        (paths::ADMIN_KUBECONFIG, paths::SECRET, Owner::Root),
        (paths::API_SERVER_KEY, paths::SECRET, Owner::ApiServer),
        (paths::ENCRYPTION, paths::SECRET, Owner::ApiServer),
        (paths::AUDIT_POLICY, paths::SECRET, Owner::ApiServer),
        (paths::CONTROLLER_MANAGER_CA_KEY, paths::SECRET, Owner::ControllerManager),
        (paths::SCHEDULER_KUBECONFIG, paths::SECRET, Owner::Scheduler),
    ];
    let places = paths::DIRECTORIES.into_iter().map(|place| (place.path, place.mode, place.owner));
    for (path, mode, owner) in places.chain(files) {
        let id = owner.id();
        assert_eq!(found(path), Ok((path.to_owned(), mode, id, id)), "{}", machine.messages().join("\n"));
    }
    // A mode that somebody changed is put right, though the directory is another user's.
    let key = "/etc/kubernetes/scheduler";
    assert!(machine.run(&["chmod", "755", key]).status.success());
    assert!(machine.run(&["rm", "/etc/kubernetes/scheduler/scheduler.yaml"]).status.success());
    let owner = Owner::Scheduler.id();
    machine.wait("the directory's mode", Duration::from_secs(30), || match found(key)? {
        (_, 0o700, uid, gid) if (uid, gid) == (owner, owner) => found(paths::SCHEDULER_CONFIG).map(drop),
        other => Err(format!("{other:?}")),
    });
}

/// logind reads what the agent wrote for it; a file of somebody else's that says less is told of.
fn a_shutdown_waits_for_the_kubelet(machine: &Machine) {
    machine.wait("logind's new limit", SOON, || {
        let reloads = machine.journal(&["QUORATE_STEP=reloadLogind"]).len();
        let read = machine.journal(&["_SYSTEMD_UNIT=systemd-logind.service"]);
        let is_read = |entry: &serde_json::Value| {
            entry["MESSAGE"].as_str().is_some_and(|text| text.contains("reloaded"))
        };
        if reloads == 1 && read.iter().any(is_read) { Ok(()) } else { Err(format!("{reloads}: {read:?}")) }
    });
    // By logind's own word it counts, or there would be a warning.
    let words = || machine.status().map(|status| status.words.join("; ")).unwrap_or_default();
    assert!(!words().contains("logind"), "{}", words());
    let hang_up =
        || machine.systemctl(&["kill", "--kill-whom=main", "--signal=HUP", "systemd-logind.service"]);
    let theirs = "etc/systemd/logind.conf.d/99-somebody.conf";
    machine.write(theirs, "[Login]\nInhibitDelayMaxSec=7\n");
    hang_up();
    machine.wait("the warning", Duration::from_mins(1), || match words() {
        told if told.contains("logind lets a shutdown wait 7 s") => Ok(()),
        told => Err(told),
    });
    assert!(machine.run(&["rm", &format!("/{theirs}")]).status.success());
    hang_up();
    machine.wait("the warning's end", Duration::from_mins(1), || match words() {
        told if told.contains("logind") => Err(told),
        _ => Ok(()),
    });
    // Theirs was told of, and not fought with.
    assert_eq!(machine.journal(&["QUORATE_STEP=reloadLogind"]).len(), 1);
}

/// There is no containerd on this machine, and no unit of it: that is said, and the kubelet is not started.
fn without_containerd_nothing_is_started(machine: &Machine) {
    machine.wait("the word of it", SOON, || {
        let words = machine.status().map(|status| status.words).unwrap_or_default();
        let told = words.iter().any(|line| line.contains("install containerd 2"));
        if told { Ok(()) } else { Err(format!("{words:?}")) }
    });
    for name in [ServiceName::Kubelet, ServiceName::KubeProxy] {
        assert_eq!(machine.property(name.unit(), "ActiveState"), "inactive", "{name}");
    }
    assert_eq!(machine.journal(&["QUORATE_STEP=startService"]).len(), 0);
}

/// The kubelet and kube-proxy under their own units, by the hands that the agent's steps have.
fn services_are_started_with_what_they_are_given(machine: &Machine) {
    assert!(machine.run(&["mkdir", "--mode=755", paths::KUBERNETES]).status.success());
    let root = Root::new(machine.root());
    let launch = |configuration: &str, arguments: &[&str]| ServiceLaunch {
        program: "/usr/bin/elsewhere".to_owned(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        configuration: configuration.to_owned(),
    };
    let nasty = ["--plain=a,b", "", "two words", "it's", "a\"b\\c", "$HOME ${PATH} %n", "`x`;#~*", "tail\\"];
    for name in [ServiceName::Kubelet, ServiceName::KubeProxy] {
        let (unit, service) = (name.unit(), Service::of(&root, name));
        let seen = || machine.runtime.block_on(service.observe()).unwrap();
        let running = |with: &str, since| ServiceObservation {
            state: ServiceState::Running,
            started_with: Some(with.to_owned()),
            since: Some(since),
        };
        assert_eq!((seen().state, seen().started_with), (ServiceState::Stopped, None));
        machine.runtime.block_on(service.start_with(&launch("one", &nasty), 1)).unwrap();
        assert_eq!(seen(), running("one", 1));
        let said = machine.wait("its words", SOON, || {
            let unit = format!("_SYSTEMD_UNIT={unit}");
            let said: Vec<String> = machine
                .journal(&[&unit])
                .into_iter()
                .map(|entry| entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
                .collect();
            // The journal has no empty lines.
            if said.len() >= nasty.len() { Ok(said) } else { Err(format!("{said:?}")) }
        });
        assert_eq!(said[0], format!("/usr/bin/{name}"));
        let words: Vec<&str> = nasty.into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(said[1..=words.len()], words);

        let first = machine.pid(unit);
        let restart = |with| {
            let launch = launch(with, &["--new"]);
            machine.runtime.block_on(service.restart_with(&launch, SOON, 2)).unwrap()
        };
        assert!(restart("two"));
        assert_eq!(seen(), running("two", 2));
        let second = machine.pid(unit);
        assert!(second != 0 && second != first);
        // Whoever killed it, systemd starts it again, with the same.
        machine.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", unit]);
        machine.wait("its restart", SOON, || match machine.pid(unit) {
            pid if pid != 0 && pid != second => Ok(()),
            pid => Err(format!("{name} is {pid}")),
        });
        machine.wait("its return", SOON, || match seen() {
            seen if seen == running("two", 2) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        machine.runtime.block_on(service.stop(SOON)).unwrap();
        assert_eq!(seen().state, ServiceState::Stopped);
        assert!(!restart("three"), "what does not run is not started");
        assert_eq!(machine.property(unit, "ActiveState"), "inactive");
    }
    // What the kubelet had started went on; what kube-proxy had did not.
    let children = |unit: &str| {
        let group = machine.property(unit, "ControlGroup");
        machine.say(&["systemd-cgls", "--no-pager", "--unit", unit]) + &group
    };
    assert!(children(ServiceName::Kubelet.unit()).contains("sleep 600"));
    assert!(!children(ServiceName::KubeProxy.unit()).contains("sleep 600"));
}

/// By a lock that logind knows.
fn it_delays_shutdowns(machine: &Machine) {
    let listed = machine.run(&["systemd-inhibit", "--list", "--no-legend", "--no-pager"]);
    let locks = String::from_utf8_lossy(&listed.stdout);
    let is_ours = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"quorate") && words.contains(&"shutdown") && words.last() == Some(&"delay")
    };
    assert!(locks.lines().any(is_ours), "{listed:?} {:?}", machine.messages());
}

/// The agent heard of it first. etcd was asked to end, and its volume was unmounted when it had.
fn it_ended_in_good_order(machine: &Machine) {
    let agents = machine.last_words("_SYSTEMD_UNIT=quorate.service");
    let told = agents.find("this machine is about to shut down");
    let let_go = agents.find("releaseShutdown");
    assert!(told.is_some() && told < let_go, "{agents}");
    assert!(!agents.contains("not held back any longer"), "{agents}");
    let words = machine.last_words("_PID=1");
    let ended = words.find("quorate-etcd.service: Deactivated successfully");
    let unmounted = words.find("Unmounted var-lib-etcd.mount");
    assert!(ended.is_some() && ended < unmounted, "{words}");
}
