//! A service as a unit of systemd's, over D-Bus.
//!
//! etcd's unit must send SIGTERM alone when it is stopped (`KillMode=mixed`, `SendSIGKILL=no` or a
//! generous `TimeoutStopSec=`), and must not tie itself to the agent's unit. With `Type=notify` a
//! start is not done before etcd has found a quorum, so a start is taken for done as soon as the
//! process is there.
//! Source: org.freedesktop.systemd1(5).

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, UnitProxy};
use zbus_systemd::zbus::proxy::CacheProperties;
use zbus_systemd::zbus::{self, Connection};

use super::ServiceError;
use crate::model::{ServiceName, ServiceState};

/// How long systemd may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long systemd may take to have the process running.
const START: Duration = Duration::from_secs(20);
/// How often the unit is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(25);

/// The unit of a service. Each question opens a connection of its own: the bus may be restarted.
#[derive(Debug, Clone, Copy)]
pub struct Systemd(pub(super) ServiceName);

/// What systemd says of the unit.
#[derive(Debug, Clone)]
struct Told {
    load_state: String,
    active_state: String,
    sub_state: String,
    result: String,
    /// CLD_EXITED, CLD_KILLED or CLD_DUMPED; 0 when it never ran.
    code: i32,
    /// The exit status or the signal.
    status: i32,
    main_pid: u32,
    /// The job that is queued or runs; 0 for none.
    job: u32,
}

impl Systemd {
    pub(super) async fn state(self) -> Result<ServiceState, ServiceError> {
        self.interpret(&self.show().await?)
    }

    pub(super) async fn start(self) -> Result<(), ServiceError> {
        let before = self.show().await?;
        self.interpret(&before)?;
        self.ask("start", async {
            let connection = Connection::system().await?;
            let manager = ManagerProxy::new(&connection).await?;
            // One that failed too often would be refused; one that did not may not be loaded.
            if before.active_state == "failed" {
                manager.reset_failed_unit(self.unit()).await?;
            }
            manager.start_unit(self.unit(), "replace".to_owned()).await
        })
        .await?;
        self.started("start", None).await
    }

    /// Whether it ran, and so was started anew. One that waits to be started again by systemd runs.
    pub(super) async fn try_restart(self) -> Result<bool, ServiceError> {
        let before = self.show().await?;
        self.interpret(&before)?;
        if ended(&before) && before.job == 0 {
            return Ok(false);
        }
        self.ask("restart", async {
            let connection = Connection::system().await?;
            let manager = ManagerProxy::new(&connection).await?;
            manager.try_restart_unit(self.unit(), "replace".to_owned()).await
        })
        .await?;
        self.started("restart", Some(before.main_pid)).await?;
        Ok(true)
    }

    /// Waits until its process is there: another than `before`.
    async fn started(self, what: &'static str, before: Option<u32>) -> Result<(), ServiceError> {
        let deadline = Instant::now() + START;
        loop {
            let told = self.show().await?;
            match self.interpret(&told)? {
                ServiceState::Running if told.main_pid != 0 && Some(told.main_pid) != before => return Ok(()),
                ServiceState::Failed(how) if told.job == 0 => {
                    return Err(ServiceError::NotStarted { service: self.0, how });
                }
                ServiceState::Stopped if told.job == 0 => {
                    let how = "systemd let it end, or dropped the start".to_owned();
                    return Err(ServiceError::NotStarted { service: self.0, how });
                }
                ServiceState::Running | ServiceState::Stopped | ServiceState::Failed(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(ServiceError::SystemdSilent { what, unit: self.0.unit(), patience: START });
            }
            sleep(LOOK).await;
        }
    }

    pub(super) async fn stop(self, patience: Duration) -> Result<(), ServiceError> {
        let loaded = self.show().await?;
        if ended(&loaded) && loaded.job == 0 {
            return Ok(());
        }
        self.ask("stop", async {
            let connection = Connection::system().await?;
            ManagerProxy::new(&connection).await?.stop_unit(self.unit(), "replace".to_owned()).await
        })
        .await?;
        let deadline = Instant::now() + patience;
        loop {
            let told = self.show().await?;
            if ended(&told) && told.job == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ServiceError::StillRunning { service: self.0, patience });
            }
            sleep(LOOK).await;
        }
    }

    fn unit(self) -> String {
        self.0.unit().to_owned()
    }

    async fn show(self) -> Result<Told, ServiceError> {
        self.ask("show", told(self.unit())).await
    }

    /// One exchange with systemd, with a bound.
    async fn ask<T>(
        self,
        what: &'static str,
        exchange: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T, ServiceError> {
        let unit = self.0.unit();
        match timeout(ANSWER, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ServiceError::Systemd { what, unit, source: Box::new(error) }),
            Err(_) => Err(ServiceError::SystemdSilent { what, unit, patience: ANSWER }),
        }
    }

    fn interpret(self, told: &Told) -> Result<ServiceState, ServiceError> {
        if told.load_state != "loaded" {
            return Err(ServiceError::NoUnit { unit: self.0.unit(), load_state: told.load_state.clone() });
        }
        Ok(match told.active_state.as_str() {
            "activating" if told.sub_state.starts_with("auto-restart") => {
                ServiceState::Failed(self.how(told))
            }
            "failed" => ServiceState::Failed(self.how(told)),
            // etcd ends itself by the signal that it was asked to stop with; one that exits was not asked. The
            // others exit when asked, and systemd starts those again that were not.
            "inactive" if told.code == EXITED && self.0 == ServiceName::Etcd => {
                ServiceState::Failed(self.how(told))
            }
            "inactive" => ServiceState::Stopped,
            _ => ServiceState::Running,
        })
    }

    fn how(self, told: &Told) -> String {
        let end = match (told.code, told.status) {
            (0, _) => "never ran".to_owned(),
            (EXITED, status) => format!("exited with status {status}"),
            (_, signal) => format!("ended by signal {signal}"),
        };
        format!("{end} (systemd: {}); see journalctl --unit={}", told.result, self.0.unit())
    }
}

async fn told(name: String) -> zbus::Result<Told> {
    let connection = Connection::system().await?;
    let path = ManagerProxy::new(&connection).await?.load_unit(name).await?;
    let unit = UnitProxy::builder(&connection)
        .path(path.clone())
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let service =
        ServiceProxy::builder(&connection).path(path).cache_properties(CacheProperties::No).build().await?;
    Ok(Told {
        load_state: unit.load_state().await?,
        active_state: unit.active_state().await?,
        sub_state: unit.sub_state().await?,
        result: service.result().await?,
        code: service.exec_main_code().await?,
        status: service.exec_main_status().await?,
        main_pid: service.main_pid().await?,
        job: unit.job().await?.0,
    })
}

/// Whether no process of the unit is left.
fn ended(told: &Told) -> bool {
    matches!(told.active_state.as_str(), "inactive" | "failed")
}

/// CLD_EXITED, of siginfo_t.
const EXITED: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const ETCD: Systemd = Systemd(ServiceName::Etcd);

    fn told(active_state: &str, sub_state: &str, result: &str, code: i32, status: i32) -> Told {
        Told {
            load_state: "loaded".to_owned(),
            active_state: active_state.to_owned(),
            sub_state: sub_state.to_owned(),
            result: result.to_owned(),
            code,
            status,
            main_pid: 0,
            job: 0,
        }
    }

    #[test]
    fn what_systemd_says_is_a_state_of_the_service() {
        let failed =
            |how: &str| ServiceState::Failed(format!("{how}; see journalctl --unit=quorate-etcd.service"));
        let table = [
            (told("inactive", "dead", "success", 0, 0), ServiceState::Stopped),
            (told("activating", "start", "success", 0, 0), ServiceState::Running),
            (told("active", "running", "success", 0, 0), ServiceState::Running),
            (told("deactivating", "stop-sigterm", "success", 0, 0), ServiceState::Running),
            (told("inactive", "dead", "success", 2, 15), ServiceState::Stopped),
            (told("inactive", "dead", "success", 1, 0), failed("exited with status 0 (systemd: success)")),
            (
                told("failed", "failed", "exit-code", 1, 1),
                failed("exited with status 1 (systemd: exit-code)"),
            ),
            (told("failed", "failed", "signal", 2, 9), failed("ended by signal 9 (systemd: signal)")),
            (
                told("activating", "auto-restart", "exit-code", 1, 2),
                failed("exited with status 2 (systemd: exit-code)"),
            ),
            (told("failed", "failed", "resources", 0, 0), failed("never ran (systemd: resources)")),
        ];
        for (told, state) in table {
            assert_eq!(ETCD.interpret(&told).unwrap(), state, "{told:?}");
        }
    }

    #[test]
    fn only_etcd_has_failed_when_it_exited_and_systemd_left_it() {
        let told = told("inactive", "dead", "success", EXITED, 0);
        for which in [ServiceName::Kubelet, ServiceName::KubeProxy, ServiceName::Containerd] {
            assert_eq!(Systemd(which).interpret(&told).unwrap(), ServiceState::Stopped);
        }
    }

    #[test]
    fn a_unit_that_is_not_there_is_not_a_stopped_one() {
        for load_state in ["not-found", "masked", "bad-setting", "error"] {
            let told =
                Told { load_state: load_state.to_owned(), ..told("inactive", "dead", "success", 0, 0) };
            let error = ETCD.interpret(&told).unwrap_err();
            assert!(matches!(error, ServiceError::NoUnit { .. }), "{error:?}");
        }
    }
}
