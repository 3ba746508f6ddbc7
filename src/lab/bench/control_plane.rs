//! How soon an API takes writes, beside the same programs started by hand.
//!
//! With agents it is timed from the start of the third agent to the first object that is written through
//! the load balancer. Beside it, in the same run, at the same addresses and with the files that the
//! agents have made, three bare etcd processes with no data and what the manifests say are started all
//! at once, and timed from the start of the last to the first object through the same load balancer. It
//! checks its targets in the same way both times, and has no healthy one when either begins: until it has,
//! a network load balancer sends to all.
//!
//! Where the time went is told beside it, from what the agents wrote into their journals.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::bare::spawn;
use super::ready;
use crate::host::clock;
use crate::kubernetes::Component;
use crate::lab::LabError;
use crate::lab::cluster::wait_healthy;
use crate::lab::drill::first_object;
use crate::lab::kubelet::{Programs, start_alone};
use crate::lab::laboratory::{Laboratory, Scratch};
use crate::lab::machine::{CLIENT_PORT, Machine};
use crate::lab::region::PoolHealth;
use crate::lab::settings::{Kubernetes, Settings, Start};

/// How long an API may take to take a write, and a control plane to be healthy.
const PATIENCE: Duration = Duration::from_mins(2);

/// When what was waited for was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// An API server accepted a connection: its program has begun.
    pub listens: Duration,
    /// An object was written through the load balancer.
    pub object: Duration,
    /// The load balancer called an API server healthy.
    pub healthy: Duration,
}

/// What one run told.
pub(super) struct Run {
    /// With agents.
    pub with: Times,
    /// By hand.
    pub by_hand: Times,
    /// What the agents did until then, in words.
    pub breakdown: String,
}

/// One run: with agents, then by hand.
pub(super) async fn form(agent: &Path, programs: &Programs, seed: u64) -> Result<Run, LabError> {
    let scratch = Scratch::new("bench-api")?;
    let settings = Settings {
        seed,
        start: Start::Held,
        kubernetes: Kubernetes::Run(programs.clone()),
        ..Settings::new(scratch.path(), agent)?
    };
    let lab = Laboratory::start(settings).await?;
    let machines = ready(&lab).await?;
    for machine in &machines {
        machine.start();
    }
    let (began, at) = (Instant::now(), clock::now_ms());
    let with = times(&lab, &machines, began, "the first object with agents").await?;
    let breakdown = breakdown(&machines, at)?;
    wait_healthy(&lab, PATIENCE).await?;
    for machine in &machines {
        machine.power_off();
    }
    silence(&machines).await?;
    lab.wait("the load balancer to have no target", PATIENCE, |lab| match healthy_targets(lab) {
        0 => Ok(()),
        healthy => Err(format!("{healthy} are healthy")),
    })
    .await?;
    let mut children = Vec::new();
    let started = start(&lab, programs, &machines, &mut children);
    let began = Instant::now();
    let by_hand = match started {
        Ok(()) => times(&lab, &machines, began, "the first object by hand").await,
        Err(error) => Err(error),
    };
    end(children, programs).await?;
    Ok(Run { with, by_hand: by_hand?, breakdown })
}

/// How many API servers the load balancer calls healthy.
fn healthy_targets(lab: &Laboratory) -> usize {
    lab.region().with(|world| {
        let targets = world.view().pools.values().flat_map(|pool| pool.targets.iter());
        targets.filter(|target| target.health == PoolHealth::Healthy).count()
    })
}

/// What each agent had done first of all, and last of all, and when.
fn breakdown(machines: &[Machine], began: i64) -> Result<String, LabError> {
    const DONE: [(&str, &str); 5] = [
        ("etcd runs", "phase=running"),
        ("certificates", "step=\"issueClusterLeaves\""),
        ("files", "step=\"writeKubernetesFiles\""),
        ("manifest", "step=\"rollOut\""),
        ("kube-proxy and kubelet", "step=\"startService\""),
    ];
    let began = OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(began);
    let mut words = Vec::new();
    for (what, mark) in DONE {
        let mut at = Vec::new();
        for machine in machines {
            let path = machine.log();
            let log = fs::read_to_string(&path).map_err(LabError::file("reading", &path))?;
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(mark)).collect();
            // Services are started one after the other; of all else the first is what others wait for.
            let line = if mark.contains("startService") { lines.last() } else { lines.first() };
            let moment = line.and_then(|line| line.split_whitespace().next());
            at.extend(moment.and_then(|moment| OffsetDateTime::parse(moment, &Rfc3339).ok()));
        }
        let since = |moment: Option<&OffsetDateTime>| {
            moment.map_or_else(|| "?".to_owned(), |at| (*at - began).whole_milliseconds().to_string())
        };
        words.push(format!("{what} {} to {} ms", since(at.iter().min()), since(at.iter().max())));
    }
    Ok(words.join(", "))
}

/// Waits until nothing listens at the machines' addresses any more.
async fn silence(machines: &[Machine]) -> Result<(), LabError> {
    const AGAIN: Duration = Duration::from_millis(20);
    let ports = Component::ALL.map(Component::port).into_iter().chain([CLIENT_PORT]);
    let places: Vec<SocketAddr> = ports
        .flat_map(|port| machines.iter().map(move |m| SocketAddr::from((m.identity().address, port))))
        .collect();
    let silent = async {
        for place in &places {
            while TcpStream::connect(place).await.is_ok() {
                sleep(AGAIN).await;
            }
        }
    };
    let late = |_| LabError::TimedOut {
        what: "the end of what the machines ran".to_owned(),
        seconds: PATIENCE.as_secs(),
        why: "something still listens".to_owned(),
    };
    timeout(PATIENCE, silent).await.map_err(late)
}

/// Starts everything that the machines run, as they have it.
fn start(
    lab: &Laboratory,
    programs: &Programs,
    machines: &[Machine],
    children: &mut Vec<Child>,
) -> Result<(), LabError> {
    for machine in machines {
        children.push(spawn(lab.settings(), machine, machines)?);
    }
    for component in Component::ALL {
        for machine in machines {
            let child = start_alone(machine, programs, component);
            children.push(child.map_err(|why| {
                LabError::Settings(format!("{} on {}: {why}", component.name(), machine.identity().name))
            })?);
        }
    }
    Ok(())
}

async fn end(children: Vec<Child>, programs: &Programs) -> Result<(), LabError> {
    for mut child in children {
        child.kill().await.map_err(|source| LabError::Spawn { program: programs.dir.clone(), source })?;
    }
    Ok(())
}

/// Waits for all of it.
async fn times(
    lab: &Laboratory,
    machines: &[Machine],
    began: Instant,
    what: &str,
) -> Result<Times, LabError> {
    const AGAIN: Duration = Duration::from_millis(20);
    let api = lab.api().ok_or_else(|| LabError::Settings("there is no load balancer".to_owned()))?;
    let kubeconfigs = machines.iter().map(|machine| machine.root().join("etc/kubernetes/admin.conf"));
    let object = async { first_object(kubeconfigs.collect(), &[api; 3]).await };
    let listens = async {
        loop {
            for machine in machines {
                let at = (machine.identity().address, Component::ApiServer.port());
                if TcpStream::connect(at).await.is_ok() {
                    return Instant::now();
                }
            }
            sleep(AGAIN).await;
        }
    };
    let healthy = async {
        while healthy_targets(lab) == 0 {
            sleep(AGAIN).await;
        }
        Instant::now()
    };
    let late = |_| LabError::TimedOut {
        what: what.to_owned(),
        seconds: PATIENCE.as_secs(),
        why: "no API server took one".to_owned(),
    };
    let all = async { tokio::join!(listens, object, healthy) };
    let (listens, object, healthy) = timeout(PATIENCE, all).await.map_err(late)?;
    let since = |at: Instant| at.saturating_duration_since(began);
    Ok(Times { listens: since(listens), object: since(object), healthy: since(healthy) })
}
