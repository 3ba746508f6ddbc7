//! The agent's state for whoever asks: `status.json`, written at each look, and `quorate status`.
//!
//! The file is read without the agent, so it can be read when the agent is down; `at` says how old
//! it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::config::settings::AddonName;
use crate::host::files::{FileError, create_dir, read_optional, write_durably};
use crate::host::{Root, clock};
use crate::kubernetes::Component;
use crate::model::addons::AppliedAddon;
use crate::model::backup::BackupProgress;
use crate::model::enrolment::ClusterNode;
use crate::model::kubernetes::{ComponentObservation, KubernetesObservation, Readiness};
use crate::model::mismatch;
use crate::model::{
    Alarm, ClusterName, ClusterUuid, Fact, Generation, Halt, InstanceId, MemberId, Noticed, Observation,
    Phase, Plan, Role, Slot, StampState, Waiting, WaitingOn, Warning, Zone,
};

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// The state, as `status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of this form.
    pub version: u32,
    /// When it was written, in milliseconds since 1970.
    pub at: i64,
    /// The agent's process.
    pub pid: u32,
    /// The cluster, once known.
    pub cluster: Option<ClusterName>,
    /// The role, once known.
    pub role: Option<Role>,
    /// This machine, once known.
    pub instance: Option<InstanceId>,
    /// Its zone, once known.
    pub zone: Option<Zone>,
    /// Where it is on its way.
    pub phase: Phase,
    /// Since when, as far as this agent has seen it, in milliseconds since 1970.
    #[serde(default)]
    pub phase_since: Option<i64>,
    /// Its slot.
    pub slot: Option<Slot>,
    /// What it waits for, and since when.
    pub waiting: Vec<Waiting>,
    /// Why it can't go on without a human.
    pub halt: Option<Halt>,
    /// What should be seen to.
    pub warnings: Vec<Warning>,
    /// What does not match among members, machines and volumes, and since when; a warning, too, when it has lasted.
    #[serde(default)]
    pub noticed: Vec<Noticed>,
    /// The steps that it is about to take, by name.
    pub steps: Vec<String>,
    /// The same reasons in words.
    pub words: Vec<String>,
    /// The cluster's UUID, by the volume's stamp.
    pub uuid: Option<ClusterUuid>,
    /// The generation, by the volume's stamp.
    pub generation: Option<Generation>,
    /// This machine's member.
    pub member: Option<MemberId>,
    /// The leader.
    pub leader: Option<MemberId>,
    /// The members; empty when no quorum answered.
    pub members: Vec<MemberStatus>,
    /// The revision of etcd's store, as a quorum told it.
    #[serde(default)]
    pub revision: Option<i64>,
    /// Kubernetes' control plane on this machine; `None` where there is none, or not yet.
    #[serde(default)]
    pub kubernetes: Option<KubernetesStatus>,
    /// When the first of this machine's certificates ends, in milliseconds since 1970; `None` while it has none, or none
    /// can be read.
    #[serde(default)]
    pub certificates_end: Option<i64>,
    /// The alarms that etcd raises; `null` when that is not known.
    #[serde(default)]
    pub alarms: Option<Vec<Alarm>>,
    /// What this machine does for the backups, and how far they are where it keeps them; `null` where it has no part in
    /// it.
    #[serde(default)]
    pub backups: Option<BackupProgress>,
}

/// Kubernetes' control plane in the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesStatus {
    /// The version that it is to run.
    pub version: String,
    /// Where the API is reached from outside, as `HOST:PORT`.
    pub endpoint: Option<String>,
    /// The components: `null` for one that is ready, else what it answers instead.
    pub components: BTreeMap<Component, Option<String>>,
    /// The instance whose agent looks after what is kept in the API; `None` when none does, or it is not known.
    #[serde(default)]
    pub keeper: Option<String>,
    /// The add-ons in the API: `null` for one that was applied as a whole, else why it was not. `None` where
    /// that is not known.
    #[serde(default)]
    pub addons: Option<BTreeMap<AddonName, Option<String>>>,
    /// How many workers are nodes, by zone, as the machine that looks after them knows it; `None` on all others.
    #[serde(default)]
    pub workers: Option<BTreeMap<String, usize>>,
    /// The load balancers that stand in front of the API servers; `None` where that is not known.
    #[serde(default)]
    pub load_balancers: Option<Vec<String>>,
    /// What the load balancer says of this machine; `None` where there is none, or it did not say.
    #[serde(default)]
    pub target: Option<String>,
}

impl KubernetesStatus {
    fn of(seen: &KubernetesObservation) -> Option<Self> {
        let not_ready = |found: &ComponentObservation| match &found.readiness {
            Readiness::Ready => None,
            Readiness::NotReady(why) => Some(why.clone()),
        };
        Some(Self {
            version: seen.version.known()?.to_string(),
            endpoint: seen
                .remembered_endpoint
                .known()
                .and_then(|endpoint| Some(endpoint.as_ref()?.to_string())),
            components: seen.components.iter().map(|(which, found)| (*which, not_ready(found))).collect(),
            keeper: seen.api_lease.known().and_then(|lease| lease.as_ref()?.holder.clone()),
            addons: seen.addons.applied.known().map(addons),
            workers: seen.enrolment.nodes.known().map(workers),
            load_balancers: seen.load_balancing.known().map(|balancing| {
                let fit = balancing.iter().flat_map(|balancing| &balancing.found.fit);
                let mut names: Vec<String> = fit.map(|fit| fit.name.clone()).collect();
                names.dedup();
                names
            }),
            target: seen
                .load_balancing
                .known()
                .and_then(|balancing| balancing.as_ref()?.target.known())
                .map(ToString::to_string),
        })
    }
}

fn addons(applied: &BTreeMap<AddonName, Fact<AppliedAddon>>) -> BTreeMap<AddonName, Option<String>> {
    let state = |found: &Fact<AppliedAddon>| match found {
        Fact::Known(AppliedAddon { failure: Some(failure), .. }) => Some(failure.why.clone()),
        Fact::Known(AppliedAddon { digest: None, .. }) => Some("it is being applied".to_owned()),
        Fact::Known(_) => None,
        Fact::Unknown(why) => Some(why.clone()),
    };
    applied.iter().map(|(name, found)| (name.clone(), state(found))).collect()
}

/// Nodes that tell no zone are in `unknown`.
fn workers(nodes: &BTreeMap<String, ClusterNode>) -> BTreeMap<String, usize> {
    let mut zones = BTreeMap::new();
    for node in nodes.values().filter(|node| !node.control_plane) {
        *zones.entry(node.zone.clone().unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
    }
    zones
}

/// A member in the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty when it has not started yet.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it answered that it is healthy; `null` when it did not answer.
    pub healthy: Option<bool>,
    /// The size of its database's file, in bytes; `null` when it did not say.
    #[serde(default)]
    pub size: Option<u64>,
    /// What of it is in use, in bytes.
    #[serde(default)]
    pub in_use: Option<u64>,
    /// The quota that the file is held against, in bytes.
    #[serde(default)]
    pub quota: Option<u64>,
}

impl Status {
    /// The state before anything is known, and why.
    pub fn starting(waiting: Vec<Waiting>, halt: Option<Halt>) -> Self {
        let phase = if halt.is_some() { Phase::Halted } else { Phase::Identifying };
        let mut status = Self {
            version: VERSION,
            at: clock::now_ms(),
            pid: std::process::id(),
            cluster: None,
            role: None,
            instance: None,
            zone: None,
            phase,
            phase_since: None,
            slot: None,
            waiting,
            halt,
            warnings: Vec::new(),
            noticed: Vec::new(),
            steps: Vec::new(),
            words: Vec::new(),
            uuid: None,
            generation: None,
            member: None,
            leader: None,
            members: Vec::new(),
            revision: None,
            kubernetes: None,
            certificates_end: None,
            backups: None,
            alarms: None,
        };
        status.words = status.in_words();
        status
    }

    /// The state after a look and a plan.
    pub fn new(settings: &Settings, seen: &Observation, plan: &Plan, waiting: Vec<Waiting>) -> Self {
        let report = &plan.report;
        let stamp = seen
            .disk
            .known()
            .and_then(Option::as_ref)
            .and_then(|disk| disk.holds.known())
            .and_then(|holds| holds.stamp.known())
            .and_then(Option::as_ref);
        let life = stamp.and_then(|stamp| stamp.state.life());
        let stamped = stamp.and_then(|stamp| match &stamp.state {
            StampState::Joining { member, .. } | StampState::Member { member, .. } => Some(*member),
            StampState::Formatted | StampState::Starting { .. } => None,
        });
        let view = seen.etcd.cluster.known();
        let care = seen.etcd.care.known();
        let members = view.map(|view| {
            let member = |(id, member): (&MemberId, &crate::model::Member)| {
                let storage = care.and_then(|care| care.members.get(id)?.storage.known());
                MemberStatus {
                    id: *id,
                    name: member.name.clone(),
                    peer_urls: member.peer_urls.clone(),
                    learner: member.learner,
                    healthy: match member.healthy {
                        Fact::Known(healthy) => Some(healthy),
                        Fact::Unknown(_) => None,
                    },
                    size: storage.map(|storage| storage.size),
                    in_use: storage.map(|storage| storage.in_use),
                    quota: storage
                        .map(|storage| storage.quota.unwrap_or_else(|| settings.etcd.quota.as_bytes())),
                }
            };
            view.members.iter().map(member).collect()
        });
        let mut status = Self {
            version: VERSION,
            at: seen.at,
            pid: std::process::id(),
            cluster: Some(settings.cluster.clone()),
            role: Some(settings.role),
            instance: seen.identity.known().map(|me| me.instance.clone()),
            zone: seen.identity.known().map(|me| me.zone.clone()),
            phase: report.phase,
            phase_since: None,
            slot: report.slot,
            waiting,
            halt: report.halt.clone(),
            warnings: report.warnings.clone(),
            noticed: mismatch::remember(&seen.noticed, report.noticed.as_deref(), seen.at),
            steps: plan.steps.iter().map(|step| step.name().to_owned()).collect(),
            words: Vec::new(),
            uuid: life.map(|(uuid, _)| uuid.clone()),
            generation: life.map(|(_, generation)| generation),
            member: seen.etcd.own.known().map(|own| own.member).or(stamped),
            leader: view.and_then(|view| view.leader),
            members: members.unwrap_or_default(),
            revision: care.map(|care| care.revision),
            kubernetes: KubernetesStatus::of(&seen.kubernetes),
            certificates_end: certificates_end(seen),
            alarms: care.and_then(|care| Some(care.alarms.known()?.iter().copied().collect())),
            backups: seen.keeping.clone().filter(|progress| progress.permitted.is_some()),
        };
        status.words = status.in_words();
        status
    }

    fn in_words(&self) -> Vec<String> {
        let halt = self.halt.iter().map(|halt| format!("halted: {halt}"));
        let waiting = self.waiting.iter().map(|waiting| format!("waits for {}", waiting.on));
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        halt.chain(waiting).chain(warnings).collect()
    }

    /// One line: the phase and the first reason.
    pub fn line(&self) -> String {
        match self.words.first() {
            Some(word) if self.halt.is_some() => word.clone(),
            Some(word) => format!("{}: {word}", self.phase),
            None => self.phase.to_string(),
        }
    }

    /// How the machine does, in one word. What stands by waits for nothing that it could do without.
    pub fn condition(&self, agent: AgentState) -> Condition {
        let waits = self.waiting.iter().any(|waiting| waiting.on != WaitingOn::FreeSlot);
        let has_ill = self.kubernetes.as_ref().is_some_and(|kubernetes| {
            kubernetes.components.values().any(Option::is_some)
                || kubernetes.addons.iter().flatten().any(|(_, why)| why.is_some())
        });
        let is_there = matches!(self.phase, Phase::Running | Phase::Standby | Phase::Left);
        if self.halt.is_some() {
            Condition::Halted
        } else if !self.warnings.is_empty() || has_ill || agent == AgentState::Down {
            Condition::Degraded
        } else if waits || !is_there {
            Condition::Waiting
        } else {
            Condition::Ok
        }
    }
}

/// How a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does what it is there for, and waits for nothing.
    Ok,
    /// It is on its way, or waits for something.
    Waiting,
    /// Something should be seen to: a warning, a component or an add-on that is not as it should be, or the agent does not
    /// run.
    Degraded,
    /// Only a human can help.
    Halted,
}

/// Whether the agent that wrote a status runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// It does.
    Runs,
    /// It does not: the status is its last word.
    Down,
}

impl AgentState {
    /// Of the agent that wrote this status. Its process is looked for, and its name: another may have the number now.
    pub fn of(status: &Status) -> Self {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", status.pid));
        if comm.is_ok_and(|name| name.starts_with("quorate")) { Self::Runs } else { Self::Down }
    }
}

/// When the first of this machine's certificates ends: etcd's, Kubernetes', or a worker's kubelet's.
fn certificates_end(seen: &Observation) -> Option<i64> {
    let etcd = seen.leaves.known().and_then(Option::as_ref).map(|leaves| leaves.not_after);
    let kubernetes = seen.kubernetes.leaves.known().and_then(Option::as_ref).map(|leaves| leaves.not_after);
    let worker = seen.kubernetes.worker.certificate.known().and_then(Option::as_ref);
    let worker = worker.map(|certificate| certificate.not_after);
    [etcd, kubernetes, worker].into_iter().flatten().min()
}

/// The status can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The file can't be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no file.
    #[error("{} is not there: the agent has not run on this machine since it booted", path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be understood.
    #[error("{} can't be understood", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The status can't be written as JSON.
    #[error("writing the status as JSON")]
    Json(#[source] serde_json::Error),
}

/// Where the status is.
pub fn path(root: &Root) -> PathBuf {
    root.path("/run/quorate/status.json")
}

/// Where the last observation is, for `quorate plan --observed`.
pub fn observation_path(root: &Root) -> PathBuf {
    root.path("/run/quorate/observed.json")
}

/// Writes a file of `/run/quorate`: whoever reads it finds it whole.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), StatusError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(StatusError::Json)?;
    if let Some(parent) = path.parent() {
        create_dir(parent, 0o755)?;
    }
    Ok(write_durably(path, &bytes, 0o644)?)
}

/// Reads the status.
pub fn read(root: &Root) -> Result<Status, StatusError> {
    let path = path(root);
    let bytes = read_optional(&path)?.ok_or_else(|| StatusError::None { path: path.clone() })?;
    serde_json::from_slice(&bytes).map_err(|source| StatusError::Damaged { path, source })
}

#[cfg(test)]
mod tests {
    use super::super::page::{View, page};
    use super::*;
    use crate::model::plan::Subject;

    const AT: i64 = 1_795_370_400_000;

    fn plain(now: i64) -> View {
        View { now, colour: false, agent: AgentState::Runs }
    }

    fn status(phase: Phase) -> Status {
        let member = |id: u64, slot: u8, learner, healthy| MemberStatus {
            id: MemberId(id),
            name: format!("etcd-{slot}"),
            peer_urls: vec![format!("https://10.0.{slot}.1:2380")],
            learner,
            healthy,
            size: healthy.map(|_| 5_000_000),
            in_use: healthy.map(|_| 4_000_000),
            quota: healthy.map(|_| 8 << 30),
        };
        let mut joined = member(0xc3, 3, true, None);
        joined.name.clear();
        let mut status = Status {
            at: AT,
            pid: 42,
            cluster: Some("demo".parse().unwrap()),
            role: Some(Role::ControlPlane),
            instance: Some("i-0123456789abcdef0".parse().unwrap()),
            zone: Some("eu-west-1a".parse().unwrap()),
            phase,
            phase_since: Some(AT - 600_000),
            slot: Some(Slot::try_from(1).unwrap()),
            steps: vec!["recordSlot".to_owned()],
            uuid: Some("6f2b1c1e-8f3a-4b52-9f0e-2d7a5c3b1a90".parse().unwrap()),
            generation: Some(Generation(1)),
            member: Some(MemberId(0xa1)),
            leader: Some(MemberId(0xb2)),
            members: vec![member(0xa1, 1, false, Some(true)), member(0xb2, 2, false, Some(true)), joined],
            alarms: Some(vec![Alarm { member: MemberId(0xb2), kind: crate::model::AlarmKind::NoSpace }]),
            ..Status::starting(Vec::new(), None)
        };
        status.words = status.in_words();
        status
    }

    fn running() -> Status {
        let mut status = status(Phase::Running);
        status.warnings = vec![Warning::SharedZone { zones: 2, slots: 3 }];
        let why = "500 not poststarthook/rbac/bootstrap-roles".to_owned();
        status.kubernetes = Some(KubernetesStatus {
            version: "v1.36.2".to_owned(),
            endpoint: Some("api.example.com:6443".to_owned()),
            components: [
                (Component::ApiServer, Some(why)),
                (Component::ControllerManager, None),
                (Component::Scheduler, None),
            ]
            .into(),
            keeper: Some("i-0123456789abcdef0".to_owned()),
            workers: Some([("eu-west-1a".to_owned(), 3), ("eu-west-1b".to_owned(), 2)].into()),
            load_balancers: Some(vec!["demo".to_owned()]),
            target: Some("healthy".to_owned()),
            addons: Some(
                [
                    ("coredns".parse().unwrap(), None),
                    ("monitors".parse().unwrap(), Some("the API does not serve it yet".to_owned())),
                ]
                .into(),
            ),
        });
        status.words = status.in_words();
        status
    }

    fn waiting() -> Status {
        let mut status = status(Phase::Founding);
        (status.member, status.leader) = (None, None);
        status.members.clear();
        let missing = vec![Slot::try_from(2).unwrap(), Slot::try_from(3).unwrap()];
        status.waiting = vec![
            Waiting { on: WaitingOn::Claims { missing, majority: false }, since: AT - 90_000 },
            Waiting {
                on: WaitingOn::Answer { about: Subject::Instances, why: "throttled".to_owned() },
                since: AT - 7_300_000,
            },
        ];
        status.words = status.in_words();
        status
    }

    fn halted() -> Status {
        let halt = Halt::ReadOnly { volume: "vol-0123456789abcdef0".parse().unwrap() };
        let mut status = Status { at: AT, ..Status::starting(Vec::new(), Some(halt)) };
        status.words = status.in_words();
        status
    }

    #[test]
    fn the_page_of_a_running_member_names_all_members() {
        insta::assert_snapshot!(page(&running(), &plain(AT + 5_000)), @r#"
        cluster    demo  role control-plane
        node       i-0123456789abcdef0  zone eu-west-1a
        slot       1  member a1
        phase      running for 10 min  (seen 5 s ago)
        warning    3 slots in 2 zones: the loss of one zone can cost the quorum
        member                   a1 etcd-1        voter, healthy, 5 MiB
        member                   b2 etcd-2        voter, leader, healthy, 5 MiB
        member                   c3 (not started) learner, does not answer
        alarm                    b2 NOSPACE
        kubernetes v1.36.2  endpoint api.example.com:6443
                   kube-apiserver          not ready: 500 not poststarthook/rbac/bootstrap-roles
                   kube-controller-manager ready
                   kube-scheduler          ready
        target     healthy, of demo
        workers    3 in eu-west-1a, 2 in eu-west-1b
        add-on     coredns                 applied
        add-on     monitors                not applied: the API does not serve it yet
        "#);
    }

    #[test]
    fn the_page_of_a_waiting_machine_says_on_what_and_how_long() {
        insta::assert_snapshot!(page(&waiting(), &plain(AT + 180_000)), @r#"
        cluster    demo  role control-plane
        node       i-0123456789abcdef0  zone eu-west-1a
        slot       1  member -
        phase      founding for 13 min  (seen 3 min ago)
        waits for  slots 2, 3 to be claimed by other machines (for 4 min)
        waits for  an answer about the instances: throttled (for 2 h)
        alarm                    b2 NOSPACE
        "#);
    }

    #[test]
    fn the_page_of_a_halted_machine_says_why() {
        insta::assert_snapshot!(page(&halted(), &plain(AT)), @r#"
        cluster    -  role -
        node       -  zone -
        slot       -  member -
        phase      halted  (seen 0 s ago)
        halted     volume vol-0123456789abcdef0 is mounted read-only; look for file system errors in the kernel's log, repair it, or replace the volume
        "#);
    }

    #[test]
    fn colours_are_there_when_they_are_wanted_and_change_no_word() {
        for status in [running(), waiting(), halted()] {
            let coloured = page(&status, &View { colour: true, ..plain(AT) });
            assert!(coloured.contains("\u{1b}["));
            let mut bare = String::new();
            let mut parts = coloured.split("\u{1b}[");
            bare.push_str(parts.next().unwrap());
            for part in parts {
                bare.push_str(part.split_once('m').unwrap().1);
            }
            assert_eq!(bare, page(&status, &plain(AT)));
        }
    }

    #[test]
    fn a_status_whose_agent_is_gone_says_so_first() {
        let down = View { agent: AgentState::Down, ..plain(AT + 3_600_000) };
        let told = page(&running(), &down);
        assert!(told.starts_with("agent      does not run: this is what it said 60 min ago"), "{told}");
        let gone = Status { pid: u32::MAX, ..running() };
        assert_eq!(AgentState::of(&gone), AgentState::Down);
        assert_eq!(AgentState::of(&Status { pid: std::process::id(), ..running() }), AgentState::Runs);
    }

    #[test]
    fn a_machine_s_condition_is_the_worst_of_what_it_says() {
        let well = Status { warnings: Vec::new(), kubernetes: None, ..running() };
        let not_ready = Status { warnings: Vec::new(), ..running() };
        assert_eq!(not_ready.condition(AgentState::Runs), Condition::Degraded);
        assert_eq!(well.condition(AgentState::Runs), Condition::Ok);
        assert_eq!(well.condition(AgentState::Down), Condition::Degraded);
        assert_eq!(running().condition(AgentState::Runs), Condition::Degraded);
        assert_eq!(waiting().condition(AgentState::Runs), Condition::Waiting);
        assert_eq!(halted().condition(AgentState::Runs), Condition::Halted);
        let on = WaitingOn::FreeSlot;
        let standby = Status { phase: Phase::Standby, waiting: vec![Waiting { on, since: AT }], ..well };
        assert_eq!(standby.condition(AgentState::Runs), Condition::Ok);
    }

    #[test]
    fn the_line_for_the_service_manager_is_the_phase_and_the_first_reason() {
        assert_eq!(status(Phase::Running).line(), "running");
        assert_eq!(waiting().line(), "founding: waits for slots 2, 3 to be claimed by other machines");
        assert!(halted().line().starts_with("halted: volume vol-0123456789abcdef0 is mounted read-only"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(matches!(read(&root), Err(StatusError::None { .. })));
        for status in [running(), waiting(), halted(), Status::starting(Vec::new(), None)] {
            write(&path(&root), &status).unwrap();
            assert_eq!(read(&root).unwrap(), status);
        }
        std::fs::write(path(&root), "{").unwrap();
        assert!(matches!(read(&root), Err(StatusError::Damaged { .. })));
    }
}
