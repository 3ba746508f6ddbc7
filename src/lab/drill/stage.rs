//! What every drill stands on: a laboratory, a load, a census, and the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Options, Report, Unmet};
use crate::lab::LabError;
use crate::lab::cluster::{Census, Counted, Health, Tls, pki_of, wait_healthy};
use crate::lab::history::{self, Checked, Operation};
use crate::lab::laboratory::{Laboratory, Scratch};
use crate::lab::load::{self, Etcd, Gate, Load, Store as _, Stored};
use crate::lab::machine::Machine;
use crate::lab::region::{FaultKind, FaultSpec, Service};
use crate::lab::registers::Clients;
use crate::lab::settings::{Settings, Start};
use crate::lab::status::Status;

/// How long forming may take.
pub const FORM: Duration = Duration::from_mins(1);
/// How long healing may take.
pub const HEAL: Duration = Duration::from_secs(90);
/// How long reading the writes back may take.
const READ: Duration = Duration::from_secs(30);
/// The same when the drill has failed already.
const READ_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The greatest age of a stale read, in milliseconds.
const STALE_MS: u64 = 3000;

/// A laboratory under load.
pub struct Stage {
    /// The laboratory.
    pub lab: Arc<Laboratory>,
    /// The drill's choices.
    pub rng: fastrand::Rng,
    load: Load<Etcd>,
    registers: Clients<Etcd>,
    told: Map<String, Value>,
    census: Census,
    third_start: Option<Instant>,
    fault: Option<Instant>,
    formed_in: Option<Duration>,
    healed_in: Option<Duration>,
    power: Power,
    /// Dropped after its machines have lost their power.
    scratch: Option<Scratch>,
    keep: bool,
}

/// Takes the power of a drill's own laboratory when the drill is over, however it ends: the load
/// may hold the laboratory a little longer than the directory is there.
struct Power(Option<Arc<Laboratory>>);

impl Drop for Power {
    fn drop(&mut self) {
        for machine in self.0.iter().flat_map(|lab| lab.all_machines()) {
            machine.power_off();
        }
    }
}

impl Stage {
    /// Builds a laboratory in a scratch directory; its agents wait to be started.
    pub async fn build(
        name: &str,
        options: &Options,
        adjust: impl FnOnce(&mut Settings),
    ) -> Result<Self, Unmet> {
        let scratch = Scratch::new(name)?;
        let mut settings = Settings::new(scratch.path(), &options.agent)?;
        settings.seed = options.seed;
        settings.start = Start::Held;
        settings.restart_ms = 200;
        adjust(&mut settings);
        let lab = Arc::new(Laboratory::start(settings).await?);
        lab.set_start(Start::AtOnce);
        let mut stage = Self::adopt(&lab, options.seed);
        stage.power = Power(Some(lab));
        stage.scratch = Some(scratch);
        stage.keep = options.keep;
        Ok(stage)
    }

    /// Puts a laboratory that is there under load.
    pub fn adopt(lab: &Arc<Laboratory>, seed: u64) -> Self {
        Self {
            load: Load::begin(Etcd::of(lab), seed),
            registers: Clients::begin(|client| Etcd::of(lab).beginning_with(client), seed),
            told: Map::new(),
            census: Census::begin(lab),
            lab: Arc::clone(lab),
            rng: fastrand::Rng::with_seed(seed),
            third_start: None,
            fault: None,
            formed_in: None,
            healed_in: None,
            power: Power(None),
            scratch: None,
            keep: false,
        }
    }

    /// Starts all agents in an order, and after pauses, that the seed decides.
    pub async fn start_all(&mut self) -> Result<(), Unmet> {
        let mut machines = self.lab.control_plane();
        self.rng.shuffle(&mut machines);
        for (n, machine) in machines.iter().enumerate() {
            if n > 0 {
                // Half of all pauses are none: machines of a group boot together.
                let pause = if self.rng.bool() { 0 } else { self.rng.u64(0..1500) };
                sleep(Duration::from_millis(pause)).await;
            }
            self.start(machine);
        }
        Ok(())
    }

    /// Starts one agent.
    pub fn start(&mut self, machine: &Machine) {
        machine.start();
        // The last one started within the majority that forms, or the third, counts.
        self.third_start = Some(Instant::now());
    }

    /// Waits until the first write is acknowledged and for full health.
    pub async fn formed(&mut self, patience: Duration) -> Result<Health, Unmet> {
        let began = self.third_start.unwrap_or_else(Instant::now);
        self.first_write(began, patience).await?;
        Ok(wait_healthy(&self.lab, patience).await?)
    }

    /// Waits for the first write; answers how long after `began` it was acknowledged.
    pub async fn first_write(&mut self, began: Instant, patience: Duration) -> Result<(), Unmet> {
        let machines = self.lab.control_plane();
        let urls = machines.iter().map(Machine::client_url).collect();
        let tls = || machines.iter().find_map(|m| Tls::in_directory(&pki_of(&m.root())));
        let said = |m: &Machine| match Status::of(&m.root()) {
            Ok(status) => format!("{}: {}", m.identity().name, status.unwrap_or_default().line()),
            Err(error) => format!("{}: {error}", m.identity().name),
        };
        let late = || {
            let why = machines.iter().map(said).collect::<Vec<_>>().join("; ");
            LabError::TimedOut { what: "the first write".to_owned(), seconds: patience.as_secs(), why }
        };
        let at = timeout(patience, first_write(urls, tls)).await.map_err(|_| late())?;
        let time = at.saturating_duration_since(began);
        self.formed_in = self.formed_in.max(Some(time));
        Ok(())
    }

    /// Waits for full health.
    pub async fn healthy(&mut self) -> Result<Health, Unmet> {
        Ok(wait_healthy(&self.lab, FORM).await?)
    }

    /// The fault happens now.
    pub fn fault(&mut self) {
        self.fault = Some(Instant::now());
    }

    /// Waits for full health after the fault, and for a write.
    pub async fn healed(&mut self, patience: Duration) -> Result<Health, Unmet> {
        let health = wait_healthy(&self.lab, patience).await?;
        if let Some(fault) = self.fault.take() {
            self.healed_in = self.healed_in.max(Some(fault.elapsed()));
        }
        self.writes_go_on().await?;
        Ok(health)
    }

    /// Waits for one more write to be acknowledged.
    pub async fn writes_go_on(&mut self) -> Result<(), Unmet> {
        const PATIENCE: Duration = Duration::from_secs(20);
        if self.load.one_more(PATIENCE).await {
            Ok(())
        } else {
            Err(Unmet::Broken(format!("no write was acknowledged for {} s", PATIENCE.as_secs())))
        }
    }

    /// Notes something for the report.
    pub fn tell(&mut self, name: &str, value: impl Into<Value>) {
        self.told.insert(name.to_owned(), value.into());
    }

    /// What the census has found.
    pub fn census(&self) -> Counted {
        self.census.so_far()
    }

    /// Makes a share of the calls go wrong in each of these ways, on all services: `rate` each.
    pub fn weather(&mut self, kinds: &[FaultKind], rate: f64) {
        let services =
            [Service::Ec2, Service::Autoscaling, Service::LoadBalancing, Service::S3, Service::Imds];
        self.weather_on(&services, kinds, rate);
    }

    /// The same, on some services.
    pub fn weather_on(&mut self, services: &[Service], kinds: &[FaultKind], rate: f64) {
        for service in services {
            for kind in kinds {
                let spec = FaultSpec {
                    service: *service,
                    operation: None,
                    instance: None,
                    kind: *kind,
                    rate,
                    count: None,
                    seed: Some(self.rng.u64(..)),
                };
                self.lab.region().change(|world| world.add_fault(spec));
            }
        }
    }

    /// Every fifth answer is lost and every fifth read is stale.
    pub fn lost_and_stale(&mut self) {
        self.weather(&[FaultKind::LostAnswer, FaultKind::StaleRead { max_age_ms: STALE_MS }], 0.2);
    }

    /// Every fifth call is throttled, fails, loses its answer or is stale.
    pub fn mixed_weather(&mut self) {
        let kinds = [
            FaultKind::Throttle,
            FaultKind::ServerError,
            FaultKind::LostAnswer,
            FaultKind::StaleRead { max_age_ms: STALE_MS },
        ];
        self.weather(&kinds, 0.05);
    }

    /// The load and the clients end, and others take their places when the gate is opened, for a cluster that is another
    /// one by its id. Answers with what was acknowledged until then, and when each was.
    pub async fn begin_anew(
        &mut self,
        seed: u64,
    ) -> Result<(BTreeMap<String, (String, Instant)>, Gate), Unmet> {
        let gate = Gate::default();
        let store = || Etcd::of(&self.lab).behind(&gate);
        let next = Load::begin_below("/load-anew/", store(), seed);
        let notes = std::mem::replace(&mut self.load, next).stop().await.map_err(Unmet::Unread)?;
        let next = Clients::begin(|client| store().beginning_with(client), seed);
        let history = std::mem::replace(&mut self.registers, next).stop().await;
        let clusters = std::mem::replace(&mut self.census, Census::begin(&self.lab)).so_far().clusters;
        if clusters.len() > 1 {
            return Err(Unmet::TwoClusters(clusters.into_iter().collect()));
        }
        let before = checked(history).await?;
        self.tell("operationsCheckedBefore", before.operations);
        Ok((notes.acknowledged, gate))
    }

    /// From now on the cluster is another one by its id, as an operator wished.
    pub fn expect_another_cluster(&mut self) {
        self.census = Census::begin(&self.lab);
    }

    /// Reads back what a load had written that has ended.
    pub async fn read_back(&self, patience: Duration) -> Result<BTreeMap<String, Stored>, Unmet> {
        let mut etcd = Etcd::of(&self.lab);
        let deadline = Instant::now() + patience;
        loop {
            match etcd.read(load::PREFIX).await {
                Ok(stored) => return Ok(stored),
                Err(error) if Instant::now() >= deadline => return Err(Unmet::Unread(error)),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Ends the load, reads everything back and adds it to the report. What was found before
    /// counts first.
    pub async fn close(self, result: Result<(), Unmet>, report: &mut Report) -> Result<(), Unmet> {
        // Nothing is put right before the verdict but the weather, through which nobody reads.
        self.lab.region().change(crate::lab::region::World::clear_faults);
        let clusters = self.census.so_far().clusters;
        report.authorizations.extend(self.lab.region().with(|world| world.authorizations().clone()));
        let source = self.lab.settings().configuration.get("etcd.volume.source");
        report.creates_volumes |= source.is_some_and(|source| source == "created");
        let patience = if result.is_ok() { READ } else { READ_AFTER_FAILURE };
        let (history, reread) = self.registers.finish(patience).await;
        let verdict = self.load.finish(patience).await;
        let checked = checked(history).await;
        if let Some(time) = self.formed_in {
            report.formed_in(time);
        }
        if let Some(time) = self.healed_in {
            report.healed_in(time);
        }
        if let Ok(verdict) = &verdict {
            report.add(verdict);
        }
        match &checked {
            Ok(checked) => report.checked(*checked),
            // Told in any case: what failed before may be the lesser thing.
            Err(unmet) => report.tell("history", super::report::words(unmet)),
        }
        for (name, value) in self.told {
            report.tell(&name, value);
        }
        let result = result.and_then(|()| match &verdict {
            _ if clusters.len() > 1 => Err(Unmet::TwoClusters(clusters.into_iter().collect())),
            Ok(verdict) if !verdict.lost.is_empty() => Err(Unmet::Lost(verdict.lost.clone())),
            Ok(verdict) if verdict.acknowledged == 0 => Err(Unmet::NoWrites),
            Ok(_) | Err(_) => Ok(()),
        });
        let result = result.and_then(|()| checked.map(drop));
        let result = result.and_then(|()| verdict.map(drop).and(reread).map_err(Unmet::Unread));
        drop((self.census, self.lab, self.power));
        if let (Err(_), true, Some(scratch)) = (&result, self.keep, self.scratch) {
            report.tell("kept", json!(scratch.keep()));
        }
        result
    }
}

/// Checks a history, beside everything else that goes on.
async fn checked(history: Vec<Operation>) -> Result<Checked, Unmet> {
    let answer = tokio::task::spawn_blocking(move || history::check(&history)).await;
    answer.map_err(|error| Unmet::Broken(error.to_string()))?.map_err(Unmet::NotLinearizable)
}

/// Tries to write at every member at once until one acknowledges; answers when that was. The
/// certificates are looked for until they are there.
pub async fn first_write(urls: Vec<String>, tls: impl Fn() -> Option<Tls>) -> Instant {
    const AGAIN: Duration = Duration::from_millis(5);
    const CALL: Duration = Duration::from_secs(1);
    const SILENCE: Duration = Duration::from_secs(5);
    let tls = loop {
        match tls() {
            Some(tls) => break tls,
            None => sleep(AGAIN).await,
        }
    };
    let mut attempts = JoinSet::new();
    for url in urls {
        let options = tls.options(CALL);
        attempts.spawn(async move {
            loop {
                let put = async {
                    let mut client = Client::connect([&url], Some(options.clone())).await?;
                    client.put("/first", url.as_str(), None).await
                };
                // A member that listens and does not serve yet is waited for rather than asked anew.
                if timeout(SILENCE, put).await.is_ok_and(|put| put.is_ok()) {
                    return Instant::now();
                }
                sleep(AGAIN).await;
            }
        });
    }
    loop {
        match attempts.join_next().await {
            Some(Ok(at)) => return at,
            Some(Err(error)) => tracing::error!(%error, "an attempt to write ended early"),
            // Every attempt was lost: this never comes to an end, and the caller's patience does.
            None => std::future::pending().await,
        }
    }
}
