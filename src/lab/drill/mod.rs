//! Drills: misfortunes made to order, each with a verdict.
//!
//! A drill builds a laboratory of its own (or shakes one that runs), keeps a load of writes on it,
//! does its worst, waits for full health, and reads every acknowledged write back. It fails when
//! one is lost, when there were ever two clusters, when health does not come back in time, or when
//! a member is not the one that it must be.
//!
//! The seed decides everything that a drill chooses. The processes are real, so that their timing
//! is not decided by it.

mod addons;
mod api;
mod api_weather;
mod can_i;
mod charter;
mod crash;
mod enrolment;
mod form;
mod replace;
mod report;
mod rolling;
mod scaling;
mod stage;
mod steps;
mod workers;
mod zone;

use std::path::PathBuf;
use std::sync::Arc;

use super::laboratory::Laboratory;
pub use api::first_object;
pub use report::{Report, Unmet};
pub use stage::{Stage, first_write};

/// A drill's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Drill {
    /// Machines that have never met form one cluster, started in any order.
    Form,
    /// One machine never comes: a majority founds, and it joins when it comes later.
    FormMissing,
    /// A machine dies; its successor takes its volume over and is the same member.
    ReplaceOne,
    /// A machine dies and its volume is lost; its successor becomes a new member.
    ReplaceBlank,
    /// A zone loses its power and gets it back.
    ZoneLoss,
    /// Agents are killed at random moments; etcd goes on.
    CrashAgents,
    /// The agent is aborted after each single step of founding, joining and leaving, on one node and on
    /// all at once.
    CrashSteps,
    /// A machine is replaced while every fifth call to every service goes wrong.
    Weather,
    /// The charter is deleted, first while the cluster runs, then while it is down.
    LostCharter,
    /// Three machines serve one Kubernetes API: the one that leads dies, and a zone is lost.
    ControlPlane,
    /// The same three with a bad manifest, a load balancer that goes, damaged authorities, and calls
    /// that go wrong.
    ControlPlaneWeather,
    /// Workers boot before there is a cluster, join by themselves, and scale to twenty and back.
    Workers,
    /// An instance refresh replaces the whole control plane.
    ReplaceAllRolling,
    /// The workers' group grows to thirty and shrinks again, and a disruption budget holds it.
    ScaleWorkers,
    /// EC2 takes half of the workers back at once.
    SpotStorm,
}

impl Drill {
    /// All drills.
    pub const ALL: [Self; 15] = [
        Self::Form,
        Self::FormMissing,
        Self::ReplaceOne,
        Self::ReplaceBlank,
        Self::ZoneLoss,
        Self::CrashAgents,
        Self::CrashSteps,
        Self::Weather,
        Self::LostCharter,
        Self::ControlPlane,
        Self::ControlPlaneWeather,
        Self::Workers,
        Self::ReplaceAllRolling,
        Self::ScaleWorkers,
        Self::SpotStorm,
    ];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::FormMissing => "form-missing",
            Self::ReplaceOne => "replace-one",
            Self::ReplaceBlank => "replace-blank",
            Self::ZoneLoss => "zone-loss",
            Self::CrashAgents => "crash-agents",
            Self::CrashSteps => "crash-steps",
            Self::Weather => "weather",
            Self::LostCharter => "lost-charter",
            Self::ControlPlane => "control-plane",
            Self::ControlPlaneWeather => "control-plane-weather",
            Self::Workers => "workers",
            Self::ReplaceAllRolling => "replace-all-rolling",
            Self::ScaleWorkers => "scale-workers",
            Self::SpotStorm => "spot-storm",
        }
    }

    /// What it does, in a line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Form => "machines that have never met form one cluster, in any order of starting",
            Self::FormMissing => "one machine never comes: a majority founds, the latecomer joins",
            Self::ReplaceOne => "a machine dies; its successor takes the volume and is the same member",
            Self::ReplaceBlank => "a machine and its volume are lost; the successor is a new member",
            Self::ZoneLoss => "a zone loses its power and gets it back",
            Self::CrashAgents => "agents are killed at random moments; etcd goes on",
            Self::CrashSteps => "the agent is aborted after every step of founding, joining and leaving",
            Self::Weather => "a machine is replaced while every fifth call goes wrong",
            Self::LostCharter => "the charter is deleted while the cluster runs, and while it is down",
            Self::ControlPlane => "three API servers behind a load balancer lose a leader, and a zone",
            Self::ControlPlaneWeather => {
                "a bad manifest, a load balancer that goes, damaged authorities, calls that go wrong"
            }
            Self::Workers => "workers boot before their cluster, join by themselves, scale to 20 and back",
            Self::ReplaceAllRolling => {
                "an instance refresh replaces every control-plane machine under writes"
            }
            Self::ScaleWorkers => "workers scale to 30 and back, drained within a disruption budget",
            Self::SpotStorm => "EC2 takes half of the workers back at once; each has left before",
        }
    }

    /// Whether it can be run on a laboratory that is up: it needs nothing but a healthy cluster.
    pub fn shakes_a_running_one(self) -> bool {
        match self {
            Self::ReplaceOne
            | Self::ReplaceBlank
            | Self::ZoneLoss
            | Self::CrashAgents
            | Self::Weather
            | Self::LostCharter => true,
            Self::Form
            | Self::FormMissing
            | Self::CrashSteps
            | Self::ControlPlane
            | Self::ControlPlaneWeather
            | Self::Workers
            | Self::ReplaceAllRolling
            | Self::ScaleWorkers
            | Self::SpotStorm => false,
        }
    }
}

/// How to run a drill.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides what the drill chooses.
    pub seed: u64,
    /// Whether every fifth answer is lost and every fifth read stale, while forming.
    pub weather: bool,
    /// Whether a laboratory whose drill failed is left for people to look at (stopped).
    pub keep: bool,
    /// The agent's program.
    pub agent: PathBuf,
}

/// Runs a drill in laboratories of its own.
pub async fn run(drill: Drill, options: &Options) -> Report {
    let mut report = Report::new(drill, options.seed);
    let result = match drill {
        Drill::Form => form::form(options, &mut report).await,
        Drill::FormMissing => form::missing(options, &mut report).await,
        Drill::CrashSteps => steps::crash_steps(options, &mut report).await,
        Drill::ControlPlane => api::control_plane(options, &mut report).await,
        Drill::ControlPlaneWeather => api_weather::weather(options, &mut report).await,
        Drill::Workers => workers::workers(options, &mut report).await,
        Drill::ReplaceAllRolling => rolling::replace_all(options, &mut report).await,
        Drill::ScaleWorkers => scaling::scale(options, &mut report).await,
        Drill::SpotStorm => scaling::spot_storm(options, &mut report).await,
        Drill::ReplaceOne
        | Drill::ReplaceBlank
        | Drill::ZoneLoss
        | Drill::CrashAgents
        | Drill::Weather
        | Drill::LostCharter => built(drill, options, &mut report).await,
    };
    report.conclude(result);
    report
}

async fn built(drill: Drill, options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = Stage::build(drill.name(), options, |settings| {
        if drill == Drill::LostCharter {
            // Who is halted looks again at the slow tick.
            settings.configuration.insert("tick".into(), serde_json::json!("1s"));
        }
    })
    .await?;
    let result = async {
        stage.start_all().await?;
        stage.formed(stage::FORM).await?;
        shake(drill, &mut stage).await
    }
    .await;
    stage.close(result, report).await
}

/// Runs a drill on a healthy laboratory that is up.
pub async fn run_on(lab: &Arc<Laboratory>, drill: Drill, seed: u64) -> Report {
    let mut report = Report::new(drill, seed);
    let mut stage = Stage::adopt(lab, seed);
    let result = async {
        stage.healthy().await?;
        shake(drill, &mut stage).await
    }
    .await;
    let result = stage.close(result, &mut report).await;
    report.conclude(result);
    report
}

async fn shake(drill: Drill, stage: &mut Stage) -> Result<(), Unmet> {
    match drill {
        Drill::ReplaceOne => replace::one(stage).await,
        Drill::ReplaceBlank => replace::blank(stage).await,
        Drill::Weather => replace::in_bad_weather(stage).await,
        Drill::ZoneLoss => zone::loss(stage).await,
        Drill::CrashAgents => crash::agents(stage).await,
        Drill::LostCharter => charter::lost(stage).await,
        Drill::Form
        | Drill::FormMissing
        | Drill::CrashSteps
        | Drill::ControlPlane
        | Drill::ControlPlaneWeather
        | Drill::Workers
        | Drill::ReplaceAllRolling
        | Drill::ScaleWorkers
        | Drill::SpotStorm => Err(Unmet::Broken(format!("{} builds its own laboratories", drill.name()))),
    }
}
