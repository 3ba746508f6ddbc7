//! How soon an API takes writes, beside the same programs started by hand.
//!
//! With agents it is timed from the start of the third agent to the first object that is written through
//! the load balancer. Beside it, in the same run, at the same addresses and with the files that the
//! agents have made, three bare etcd processes with no data and what the manifests say are started all
//! at once, and timed from the start of the last to the first object that any of the three API servers
//! takes directly.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::{ready, spawn};
use crate::kubernetes::Component;
use crate::lab::LabError;
use crate::lab::cluster::wait_healthy;
use crate::lab::drill::first_object;
use crate::lab::kubelet::{Programs, start_alone};
use crate::lab::laboratory::{Laboratory, Scratch};
use crate::lab::machine::{CLIENT_PORT, Machine};
use crate::lab::settings::{Kubernetes, Settings, Start};

/// How long an API may take to take a write, and a control plane to be healthy.
const PATIENCE: Duration = Duration::from_mins(2);

/// One run: with agents, then by hand.
pub(super) async fn form(
    agent: &Path,
    programs: &Programs,
    seed: u64,
) -> Result<(Duration, Duration), LabError> {
    let scratch = Scratch::new("bench-api")?;
    let settings = Settings {
        seed,
        start: Start::Held,
        kubernetes: Kubernetes::Run(programs.clone()),
        ..Settings::new(scratch.path(), agent)?
    };
    let lab = Laboratory::start(settings).await?;
    let machines = ready(&lab).await?;
    let api = lab.api().ok_or_else(|| LabError::Settings("there is no load balancer".to_owned()))?;
    for machine in &machines {
        machine.start();
    }
    let began = Instant::now();
    let with = first(&machines, &[api; 3], began, "the first object with agents").await?;
    wait_healthy(&lab, PATIENCE).await?;
    for machine in &machines {
        machine.power_off();
    }
    silence(&machines).await?;
    let mut by_hand = Vec::new();
    let started = start(&lab, programs, &machines, &mut by_hand);
    let began = Instant::now();
    let directly: Vec<_> =
        machines.iter().map(|m| (m.identity().address, Component::ApiServer.port()).into()).collect();
    let without = match started {
        Ok(()) => first(&machines, &directly, began, "the first object by hand").await,
        Err(error) => Err(error),
    };
    end(by_hand, programs).await?;
    Ok((with, without?))
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

async fn first(
    machines: &[Machine],
    at: &[SocketAddr],
    began: Instant,
    what: &str,
) -> Result<Duration, LabError> {
    let kubeconfigs = machines.iter().map(|machine| machine.root().join("etc/kubernetes/admin.conf"));
    let late = |_| LabError::TimedOut {
        what: what.to_owned(),
        seconds: PATIENCE.as_secs(),
        why: "no API server took one".to_owned(),
    };
    let at = timeout(PATIENCE, first_object(kubeconfigs.collect(), at)).await.map_err(late)?;
    Ok(at.saturating_duration_since(began))
}
