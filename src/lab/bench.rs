//! Measures: how soon a cluster takes writes, beside bare etcd; how soon its API does, beside the same
//! programs started by hand; how long a node's files take, beside kubeadm; a worker's, beside nodeadm; and what an
//! idle agent costs.
//!
//! Forming is timed from the start of the third agent to the first linearizable write. Beside it, in
//! the same run and on the same addresses, disks and certificates, three bare etcd processes are
//! started at once with a static configuration, and timed from the start of the third.

mod bare;
mod control_plane;
mod node_files;
mod nodeadm;
mod workers;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use bare::Bare;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::LabError;
use super::cluster::{Tls, pki_of, wait_healthy};
use super::drill::first_write;
use super::error::chain;
use super::kubelet::Programs;
use super::laboratory::{Laboratory, Scratch};
use super::machine::Machine;
use super::settings::{Settings, Start};
use workers::One;

/// How long one forming may take.
const FORM: Duration = Duration::from_mins(1);
/// Resident memory that an idle agent is to stay under, in MiB.
const RSS_LIMIT: f64 = 30.0;
/// What nodeadm takes for a worker's configuration: milliseconds, and MiB.
const NODEADM_MS: f64 = 32.0;
const NODEADM_MIB: f64 = 27.5;
/// How often a worker may read S3 until it has joined.
const WORKERS_READS: f64 = 2.0;
/// The share of one core that an idle agent is to stay under, in percent.
const CPU_LIMIT: f64 = 0.2;

/// One measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is measured against, with its value.
    pub against: String,
    /// The value divided by that.
    pub ratio: f64,
}

impl Figure {
    fn new(name: &str, value: f64, unit: &'static str, against: &str, other: f64) -> Self {
        let against = format!("{against}: {other:.2} {unit}");
        Self { name: name.to_owned(), value, unit, against, ratio: value / other }
    }
}

/// What to measure, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// How often etcd is formed.
    pub etcd: usize,
    /// How often a control plane is formed.
    pub control_plane: usize,
    /// How often a node's files are made.
    pub files: usize,
    /// How often a worker is booted.
    pub worker: usize,
    /// How many workers boot at once; zero for none.
    pub workers: usize,
    /// How long an idle agent is watched; zero for not at all.
    pub idle: Duration,
}

/// Measures everything; a worker beside nodeadm, where that is.
pub async fn run(agent: &Path, runs: Runs, nodeadm: Option<&Path>) -> Result<Vec<Figure>, LabError> {
    let mut figures = etcd(agent, runs.etcd).await?;
    match Programs::find() {
        Ok(programs) => {
            figures.extend(api(agent, &programs, runs.control_plane).await?);
            figures.extend(files(&programs, runs.files)?);
        }
        Err(why) => tell(&format!("SKIPPED the control plane, and a node's files beside kubeadm: {why}")),
    }
    figures.extend(worker(agent, runs.worker, nodeadm).await?);
    figures.extend(many_workers(runs.workers).await?);
    let idle = runs.idle;
    if !idle.is_zero() {
        tell(&format!("an idle cluster is watched for twice {} s", idle.as_secs()));
        figures.extend(Box::pin(rest(agent, idle)).await?);
    }
    Ok(figures)
}

/// One of the times of a run.
type Of = fn(&control_plane::Times) -> Duration;

/// How soon an API takes an object, beside the same programs started by hand.
async fn api(agent: &Path, programs: &Programs, runs: usize) -> Result<Vec<Figure>, LabError> {
    let (mut agents, mut by_hand) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let told = Box::pin(control_plane::form(agent, programs, run as u64)).await?;
        tell(&format!("API, run {run} of {runs}, in ms:"));
        for (who, times) in [("with agents", &told.with), ("by hand", &told.by_hand)] {
            let [listens, object, healthy] = [times.listens, times.object, times.healthy].map(millis);
            tell(&format!(
                "  {who}: an API server listens {listens:.0}, first object {object:.0}, healthy to the load \
                 balancer {healthy:.0}"
            ));
        }
        tell(&format!("  agents: {}", told.breakdown));
        agents.push(told.with);
        by_hand.push(told.by_hand);
    }
    let mut figures = Vec::new();
    let measures: [(&str, Of); 2] =
        [("first object, median", |times| times.object), ("first API server healthy, median", |t| t.healthy)];
    for (name, of) in measures {
        let all = |times: &[control_plane::Times]| times.iter().map(of).map(millis).collect::<Vec<_>>();
        figures.extend(beside(name, &all(&agents), "by hand, median", &all(&by_hand)));
    }
    Ok(figures)
}

/// One of the measures of a worker.
type OfWorker = fn(&One) -> f64;

/// How long a worker takes until its kubelet is told to start, and what it asks for; the same of nodeadm, where it is.
async fn worker(agent: &Path, runs: usize, nodeadm: Option<&Path>) -> Result<Vec<Figure>, LabError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turns, so that what else the computer does at the time is in both.
    for run in 1..=runs {
        let mut turns = vec![("worker", Box::pin(workers::one(agent, run as u64)).await?)];
        ours.push(turns[0].1);
        if let Some(nodeadm) = nodeadm {
            let one = Box::pin(nodeadm::one(nodeadm, agent, run as u64)).await?;
            turns.push(("nodeadm", one));
            theirs.push(one);
        }
        for (who, One { time, memory, metadata, calls }) in turns {
            let time = millis(time);
            tell(&format!(
                "{who}, run {run} of {runs}: {time:.1} ms, {memory:.1} MiB, {metadata} metadata requests, {calls} calls"
            ));
        }
    }
    Ok(beside_nodeadm(&ours, &theirs))
}

/// Medians beside nodeadm's, or beside what it took on another computer.
fn beside_nodeadm(ours: &[One], theirs: &[One]) -> Vec<Figure> {
    let median = |of: &[One], what: OfWorker| quantile(&of.iter().map(what).collect::<Vec<_>>(), 0.5);
    #[expect(clippy::cast_precision_loss, reason = "a few requests")]
    let measures: [(&str, &'static str, OfWorker, Option<f64>); 3] = [
        (
            "a worker until its kubelet is told to start, median",
            "ms",
            |one| millis(one.time),
            Some(NODEADM_MS),
        ),
        ("its agent, most ever resident, median", "MiB", |one| one.memory, Some(NODEADM_MIB)),
        ("its metadata requests, median", "requests", |one| one.metadata as f64, None),
    ];
    let figures = measures.into_iter().filter_map(|(name, unit, what, target)| {
        let value = median(ours, what)?;
        let (against, other) = match median(theirs, what) {
            Some(other) => ("nodeadm's configuration phase, median", other),
            None => ("target, of nodeadm on another computer", target?),
        };
        Some(Figure::new(name, value, unit, against, other))
    });
    figures.collect()
}

/// What workers take that boot at once, beside as many one after the other.
async fn many_workers(count: usize) -> Result<Vec<Figure>, LabError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let one = Box::pin(workers::many(1)).await?;
    let all = Box::pin(workers::many(count)).await?;
    workers::tell_many(count, &all);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let (one_by_one, reads) = (millis(one.time) * count as f64, all.most_reads as f64);
    let name = format!("{count} workers at once, the last one");
    Ok(vec![
        Figure::new(&name, millis(all.time), "ms", "as many one after the other", one_by_one),
        Figure::new("most reads of S3 by one of them", reads, "reads", "limit", WORKERS_READS),
    ])
}

/// How long a node's files take, beside kubeadm.
fn files(programs: &Programs, runs: usize) -> Result<Vec<Figure>, LabError> {
    let (version, kubeadm) = (&programs.version, node_files::kubeadm(programs));
    if runs > 0 && kubeadm.is_none() {
        tell(&format!("SKIPPED kubeadm: there is none in {}", programs.dir.display()));
    }
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); node_files::ALGORITHMS.len()];
    // In turns, so that what else the computer does at the time is in both.
    for _ in 0..runs {
        ours.push(millis(node_files::ours(version)?));
        for (algorithm, times) in node_files::ALGORITHMS.into_iter().zip(&mut theirs) {
            if let Some(kubeadm) = &kubeadm {
                times.push(millis(node_files::theirs(kubeadm, version, algorithm)?));
            }
        }
    }
    if let (None, Some(median)) = (&kubeadm, quantile(&ours, 0.5)) {
        tell(&format!("a node's files, synced: {median:.1} ms (median of {runs})"));
    }
    let mut figures = Vec::new();
    for (algorithm, times) in node_files::ALGORITHMS.into_iter().zip(&theirs) {
        let against = format!("kubeadm with {algorithm}, not synced, median");
        figures.extend(beside("a node's files, synced, median", &ours, &against, times));
    }
    Ok(figures)
}

/// A median beside a median; nothing where one of them was not measured.
fn beside(name: &str, ours: &[f64], against: &str, theirs: &[f64]) -> Vec<Figure> {
    let medians = quantile(ours, 0.5).zip(quantile(theirs, 0.5));
    medians.map(|(value, other)| Figure::new(name, value, "ms", against, other)).into_iter().collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn etcd(agent: &Path, runs: usize) -> Result<Vec<Figure>, LabError> {
    let (mut agents, mut bare) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let (with, without) = Box::pin(form(agent, run as u64)).await?;
        let (with, without) = (millis(with), millis(without));
        tell(&format!("run {run} of {runs}: {with:.0} ms, bare etcd {without:.0} ms"));
        agents.push(with);
        bare.push(without);
    }
    let mut figures = Vec::new();
    for (name, against, share) in
        [("form median", "bare etcd's median", 0.5), ("form p95", "bare etcd's p95", 0.95)]
    {
        if let (Some(value), Some(other)) = (quantile(&agents, share), quantile(&bare, share)) {
            figures.push(Figure::new(name, value, "ms", against, other));
        }
    }
    Ok(figures)
}

/// Writes the figures as a table, and as JSON to a file.
pub fn write(figures: &[Figure], path: &Path, out: &mut impl Write) -> Result<(), LabError> {
    let rows = figures.iter().map(|f| {
        let value = format!("{:.2} {}", f.value, f.unit);
        vec![f.name.clone(), value, f.against.clone(), format!("{:.2}", f.ratio)]
    });
    let head = ["MEASURE", "VALUE", "AGAINST", "RATIO"];
    super::cli::columns(&head, &rows.collect::<Vec<_>>(), out)
        .map_err(LabError::file("writing", Path::new("standard output")))?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(LabError::file("making", dir))?;
    }
    fs::write(path, format!("{:#}\n", json!(figures))).map_err(LabError::file("writing", path))
}

/// One run: with agents, then without, at the same addresses and with the same certificates.
async fn form(agent: &Path, seed: u64) -> Result<(Duration, Duration), LabError> {
    let scratch = Scratch::new("bench")?;
    let settings = Settings { seed, start: Start::Held, ..Settings::new(scratch.path(), agent)? };
    let lab = Laboratory::start(settings).await?;
    let machines = ready(&lab).await?;
    for machine in &machines {
        machine.start();
    }
    let with = first(&machines, Instant::now(), "the first write with agents").await?;
    // The agents may still be at work; what they settle is part of no measure.
    wait_healthy(&lab, FORM).await?;
    for machine in &machines {
        machine.power_off();
    }
    let bare = Bare::start(&lab, &machines)?;
    let without = first(&machines, Instant::now(), "the first write to bare etcd").await?;
    bare.end().await?;
    Ok((with, without))
}

/// The machines, once EC2 calls their instances running.
async fn ready(lab: &Laboratory) -> Result<Vec<Machine>, LabError> {
    lab.wait("running instances", FORM, |lab| {
        let pending = lab.region().with(|world| {
            let instances = world.view().instances.values();
            instances.filter(|i| i.state != super::region::InstanceState::Running).count()
        });
        if pending == 0 { Ok(lab.control_plane()) } else { Err(format!("{pending} are not")) }
    })
    .await
}

async fn first(machines: &[Machine], began: Instant, what: &str) -> Result<Duration, LabError> {
    let urls = machines.iter().map(Machine::client_url).collect();
    let tls = || machines.iter().find_map(|m| Tls::in_directory(&pki_of(&m.root())));
    let late = || {
        let why = "no member acknowledged one".to_owned();
        LabError::TimedOut { what: what.to_owned(), seconds: FORM.as_secs(), why }
    };
    let at = timeout(FORM, first_write(urls, tls)).await.map_err(|_| late())?;
    Ok(at.saturating_duration_since(began))
}

/// What agents cost when there is nothing to do.
async fn rest(agent: &Path, idle: Duration) -> Result<Vec<Figure>, LabError> {
    let scratch = Scratch::new("bench-idle")?;
    let lab = Arc::new(Laboratory::start(Settings::new(scratch.path(), agent)?).await?);
    wait_healthy(&lab, FORM).await?;
    sleep(idle).await;
    let pids: Vec<u32> = lab.control_plane().iter().filter_map(Machine::pid).collect();
    let (before, began) = (read_all(&pids, cpu_seconds)?, Instant::now());
    sleep(idle).await;
    let elapsed = began.elapsed().as_secs_f64();
    let after = read_all(&pids, cpu_seconds)?;
    let share = before.iter().zip(&after).map(|(b, a)| (a - b) / elapsed * 100.0);
    let most = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
    let (cpu, resident, peak) = (
        most(share.collect()),
        most(read_all(&pids, |p| memory(p, "VmRSS"))?),
        most(read_all(&pids, |p| memory(p, "VmHWM"))?),
    );
    Ok(vec![
        Figure::new("idle agent, resident (largest of three)", resident, "MiB", "target", RSS_LIMIT),
        Figure::new("agent, most ever resident", peak, "MiB", "target when idle", RSS_LIMIT),
        Figure::new("idle agent, of one core (busiest of three)", cpu, "%", "target", CPU_LIMIT),
    ])
}

fn read_all(pids: &[u32], read: impl Fn(u32) -> io::Result<f64>) -> Result<Vec<f64>, LabError> {
    let read = |pid: &u32| {
        let path = format!("/proc/{pid}");
        read(*pid).map_err(LabError::file("reading", Path::new(&path)))
    };
    pids.iter().map(read).collect()
}

/// Seconds of processor time that a process and the children that it waited for have had.
fn cpu_seconds(pid: u32) -> io::Result<f64> {
    /// Linux counts in hundredths of a second towards user space (proc(5), USER_HZ).
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    // utime, stime, cutime and cstime are fields 14 to 17; the first after the name is 3.
    let ticks: Option<Vec<f64>> =
        rest.split_whitespace().skip(11).take(4).map(|field| field.parse().ok()).collect();
    Ok(ticks.ok_or(io::ErrorKind::InvalidData)?.iter().sum::<f64>() / TICKS)
}

/// A figure of `/proc/PID/status`, in MiB.
fn memory(pid: u32, name: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: Option<f64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? / 1024.0)
}

/// The smallest value that this share of the values does not exceed.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few runs"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Progress goes to standard error; nobody is lost who does not see it.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 0.95), Some(5.0));
        assert_eq!(quantile(&values[..1], 0.5), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        assert_eq!(beside("a", &[1.0], "b", &[]), []);
        assert_eq!(beside("a", &[], "b", &[1.0]), []);
        let figures = beside("a", &[1.0, 3.0, 2.0], "b", &[4.0]);
        assert_eq!(figures, [Figure::new("a", 2.0, "ms", "b", 4.0)]);
    }

    #[test]
    fn a_worker_stands_beside_nodeadm_or_beside_the_target() {
        let one = |ms, memory, metadata| One { time: Duration::from_millis(ms), memory, metadata, calls: 1 };
        let ours = [one(16, 11.0, 10)];
        let beside = |theirs: &[One]| -> Vec<(String, f64)> {
            beside_nodeadm(&ours, theirs).into_iter().map(|figure| (figure.against, figure.ratio)).collect()
        };
        let target = "target, of nodeadm on another computer";
        assert_eq!(
            beside(&[]),
            [(format!("{target}: 32.00 ms"), 0.5), (format!("{target}: 27.50 MiB"), 0.4)]
        );
        let against = "nodeadm's configuration phase, median";
        assert_eq!(
            beside(&[one(64, 44.0, 20)]),
            [
                (format!("{against}: 64.00 ms"), 0.25),
                (format!("{against}: 44.00 MiB"), 0.25),
                (format!("{against}: 20.00 requests"), 0.5)
            ]
        );
        assert_eq!(beside_nodeadm(&[], &ours), []);
    }

    #[test]
    fn a_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(memory(me, "VmRSS").unwrap() > 1.0);
        let now = memory(me, "VmRSS").unwrap();
        assert!(memory(me, "VmHWM").unwrap() >= now);
        assert!(cpu_seconds(me).unwrap() >= 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
