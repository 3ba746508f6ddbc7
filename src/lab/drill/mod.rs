//! Drills: misfortunes made to order, each with a verdict.
//!
//! A drill builds a laboratory of its own (or shakes one that runs), keeps a load of writes on it,
//! does its worst, waits for full health, and reads every acknowledged write back. Beside the load, clients work on a
//! few registers at once, and what they were told is checked for linearizability. A drill fails when a write is lost,
//! when the history is not linearizable, when there were ever two clusters, when health does not come back in time, or
//! when a member is not the one that it must be.
//!
//! The seed decides everything that a drill chooses. The processes are real, so that their timing
//! is not decided by it.

mod addons;
mod api;
mod api_weather;
mod backups;
mod can_i;
mod charter;
mod crash;
mod enrolment;
mod everything;
mod form;
mod rebuild;
mod replace;
mod report;
mod rolling;
mod scaling;
mod silence;
mod stage;
mod steps;
mod throttled;
mod workers;
mod year;
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
    LoseVolume,
    /// The machine whose member leads dies.
    LoseLeader,
    /// The zone of the leader loses its power and gets it back, beside a bare etcd that loses its leader.
    LoseZone,
    /// A zone is lost for so long that a standby takes its slot over; then it comes back.
    LoseZoneForGood,
    /// AWS answers one call in ten, all the while that the cluster forms and its machines are replaced.
    ThrottledDay,
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
    /// Certificates are renewed as often as in a year.
    CertificateYear,
    /// All machines and all volumes are gone, and only S3 is left.
    LoseEverything,
    /// The same with Kubernetes: its objects, secrets, tokens and watches.
    RebuildKubernetes,
    /// The same, and the newest backup is damaged.
    DamagedBackup,
    /// An operator goes back to a moment of the past.
    RestoreYesterday,
    /// Two of three volumes are gone, and an operator goes on with the third.
    LoseQuorum,
    /// S3 refuses for a while.
    BucketAway,
}

impl Drill {
    /// All drills.
    pub const ALL: [Self; 25] = [
        Self::Form,
        Self::FormMissing,
        Self::ReplaceOne,
        Self::LoseVolume,
        Self::LoseLeader,
        Self::LoseZone,
        Self::LoseZoneForGood,
        Self::ThrottledDay,
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
        Self::CertificateYear,
        Self::LoseEverything,
        Self::RebuildKubernetes,
        Self::DamagedBackup,
        Self::RestoreYesterday,
        Self::LoseQuorum,
        Self::BucketAway,
    ];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::FormMissing => "form-missing",
            Self::ReplaceOne => "replace-one",
            Self::LoseVolume => "lose-volume",
            Self::LoseLeader => "lose-leader",
            Self::LoseZone => "lose-zone",
            Self::LoseZoneForGood => "lose-zone-for-good",
            Self::ThrottledDay => "throttled-day",
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
            Self::CertificateYear => "certificate-year",
            Self::LoseEverything => "lose-everything",
            Self::RebuildKubernetes => "rebuild-kubernetes",
            Self::DamagedBackup => "damaged-backup",
            Self::RestoreYesterday => "restore-yesterday",
            Self::LoseQuorum => "lose-quorum",
            Self::BucketAway => "bucket-away",
        }
    }

    /// What it proves, in a line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Form => "machines that have never met form one cluster, in any order of starting",
            Self::FormMissing => "when one machine never comes, a majority founds, and the latecomer joins",
            Self::ReplaceOne => "when a machine dies, its successor takes the volume and is the same member",
            Self::LoseVolume => {
                "when a machine and its volume are lost, the successor is a new member, first a learner"
            }
            Self::LoseLeader => "when the machine that leads etcd dies, writes go on after one election",
            Self::LoseZone => {
                "when the leader's zone is lost, writes go on as with bare etcd, and it comes back whole"
            }
            Self::LoseZoneForGood => {
                "when a zone stays away, a standby takes its slot over; when it is back, the slots spread again"
            }
            Self::ThrottledDay => {
                "while AWS answers one call in ten, a cluster forms and three machines are replaced"
            }
            Self::CrashAgents => "while agents are killed at random moments, etcd goes on",
            Self::CrashSteps => "an agent aborted after any step of founding, joining or leaving carries on",
            Self::Weather => "while every fifth call goes wrong, a machine is replaced",
            Self::LostCharter => {
                "when the charter is deleted, there is no second cluster, be the first up or down"
            }
            Self::ControlPlane => {
                "three API servers behind a load balancer survive a leader's and a zone's loss"
            }
            Self::ControlPlaneWeather => {
                "they survive a bad manifest, a lost load balancer, damaged authorities, and calls that go wrong"
            }
            Self::Workers => "workers boot before their cluster, join by themselves, scale to 20 and back",
            Self::ReplaceAllRolling => {
                "an instance refresh replaces the whole control plane, and no write waits for it"
            }
            Self::ScaleWorkers => "workers scale to 30 and back, and a drain waits for a disruption budget",
            Self::CertificateYear => {
                "certificates are renewed as often as in a year, and nothing that runs notices"
            }
            Self::LoseEverything => {
                "when all machines and volumes are gone, new machines bring the cluster back from S3"
            }
            Self::RebuildKubernetes => {
                "Kubernetes comes back with it: objects, secrets, tokens, controllers and informers"
            }
            Self::DamagedBackup => {
                "when the newest backup is damaged, the newest good one before is used, and the loss is said"
            }
            Self::RestoreYesterday => "an operator goes back to a moment, and has what there was then",
            Self::LoseQuorum => {
                "when two of three volumes are gone, nobody guesses, and an operator goes on with the third"
            }
            Self::BucketAway => "while S3 refuses, the cluster goes on, and the backups catch up afterwards",
            Self::SpotStorm => "when EC2 takes half of the workers back at once, each has left before",
        }
    }

    /// Whether it can be run on a laboratory that is up: it needs nothing but a healthy cluster.
    pub fn shakes_a_running_one(self) -> bool {
        match self {
            Self::ReplaceOne
            | Self::LoseVolume
            | Self::LoseLeader
            | Self::LoseZone
            | Self::CrashAgents
            | Self::Weather
            | Self::LostCharter => true,
            Self::Form
            | Self::FormMissing
            | Self::LoseZoneForGood
            | Self::CrashSteps
            | Self::ThrottledDay
            | Self::ControlPlane
            | Self::ControlPlaneWeather
            | Self::Workers
            | Self::ReplaceAllRolling
            | Self::ScaleWorkers
            | Self::SpotStorm
            | Self::CertificateYear
            | Self::LoseEverything
            | Self::RebuildKubernetes
            | Self::DamagedBackup
            | Self::RestoreYesterday
            | Self::LoseQuorum
            | Self::BucketAway => false,
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
    /// Whether a drill that takes long is run in a shorter form, where it has one.
    pub short: bool,
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
        Drill::CertificateYear => year::certificates(options, &mut report).await,
        Drill::ThrottledDay => throttled::day(options, &mut report).await,
        Drill::LoseZoneForGood => zone::lose_for_good(options, &mut report).await,
        Drill::LoseEverything => everything::lose(options, &mut report).await,
        Drill::RebuildKubernetes => rebuild::rebuild(options, &mut report).await,
        Drill::DamagedBackup => everything::damaged(options, &mut report).await,
        Drill::RestoreYesterday => backups::restore_yesterday(options, &mut report).await,
        Drill::LoseQuorum => backups::lose_quorum(options, &mut report).await,
        Drill::BucketAway => backups::bucket_away(options, &mut report).await,
        Drill::ReplaceOne
        | Drill::LoseVolume
        | Drill::LoseLeader
        | Drill::LoseZone
        | Drill::CrashAgents
        | Drill::Weather
        | Drill::LostCharter => built(drill, options, &mut report).await,
    };
    report.conclude(result);
    report
}

async fn built(drill: Drill, options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = Stage::build(drill.name(), options, |settings| {
        // Without them Auto Scaling evens the zones out again at the cost of a healthy member.
        settings.hooks = drill == Drill::LoseZone;
        if matches!(drill, Drill::LostCharter | Drill::LoseZone) {
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
    stage.close(result, report).await?;
    beside(drill, options, report).await
}

/// What a drill's laboratory is measured against, once it is over.
async fn beside(drill: Drill, options: &Options, report: &mut Report) -> Result<(), Unmet> {
    if drill == Drill::LoseZone { zone::beside_bare(options, report).await } else { Ok(()) }
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
    let mut result = stage.close(result, &mut report).await;
    if result.is_ok() {
        let agent = lab.settings().agent.clone();
        let options = Options { seed, weather: false, short: false, keep: false, agent };
        result = beside(drill, &options, &mut report).await;
    }
    report.conclude(result);
    report
}

async fn shake(drill: Drill, stage: &mut Stage) -> Result<(), Unmet> {
    match drill {
        Drill::ReplaceOne => replace::one(stage).await,
        Drill::LoseVolume => replace::lose_volume(stage).await,
        Drill::LoseLeader => replace::lose_leader(stage).await,
        Drill::Weather => replace::in_bad_weather(stage).await,
        Drill::LoseZone => zone::lose(stage).await,
        Drill::CrashAgents => crash::agents(stage).await,
        Drill::LostCharter => charter::lost(stage).await,
        Drill::Form
        | Drill::FormMissing
        | Drill::LoseZoneForGood
        | Drill::CrashSteps
        | Drill::ThrottledDay
        | Drill::ControlPlane
        | Drill::ControlPlaneWeather
        | Drill::Workers
        | Drill::ReplaceAllRolling
        | Drill::ScaleWorkers
        | Drill::SpotStorm
        | Drill::CertificateYear
        | Drill::LoseEverything
        | Drill::RebuildKubernetes
        | Drill::DamagedBackup
        | Drill::RestoreYesterday
        | Drill::LoseQuorum
        | Drill::BucketAway => Err(Unmet::Broken(format!("{} builds its own laboratories", drill.name()))),
    }
}
