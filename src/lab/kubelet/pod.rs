//! A pod that is kept running.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::container::Plan;
use super::probe::Prober;
use super::{Pods, Programs};
use crate::lab::environment::AgentEnvironment;

/// How long a container that ended waits to be started again, at first and at most. The kubelet's
/// are 10 s and 5 min.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What a pod has to end in when its manifest does not say.
const GRACE: u64 = 30;

/// Keeps one pod.
pub(super) struct Keeper {
    pub name: String,
    pub pod: Pod,
    pub root: PathBuf,
    pub host_name: String,
    pub environment: AgentEnvironment,
    pub programs: Programs,
    pub pods: Pods,
    pub stopped: watch::Receiver<bool>,
}

/// Why a container's life ended.
enum End {
    /// By itself, or it can't even be started.
    Itself(String),
    /// It was told to, since the pod is.
    Stopped,
}

impl Keeper {
    /// Keeps it until it is told to stop, and ends it then.
    pub async fn run(self) {
        let containers = self.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
        futures_util::future::join_all(containers.iter().map(|container| self.keep(container))).await;
    }

    async fn keep(&self, container: &Container) {
        let mut pause = FIRST_PAUSE;
        let mut stopped = self.stopped.clone();
        loop {
            match self.live(container).await {
                End::Stopped => return,
                End::Itself(how) => {
                    tracing::info!(pod = self.name, how, "a container ended");
                    self.pods.change(&self.name, |pod| {
                        pod.ready = false;
                        pod.pids.clear();
                        pod.restarts += 1;
                        pod.last = Some(how);
                    });
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                // An error means that nobody can tell it anything any more.
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// One life of a container.
    async fn live(&self, container: &Container) -> End {
        let mut child = match self.start(container) {
            Ok(child) => child,
            Err(why) => return End::Itself(why),
        };
        self.pods.change(&self.name, |pod| pod.pids.extend(child.id()));
        let mut stopped = self.stopped.clone();
        let how = tokio::select! {
            ended = child.wait() => {
                return End::Itself(ended.map_or_else(|e| e.to_string(), |status| status.to_string()));
            }
            _ = stopped.wait_for(|stopped| *stopped) => End::Stopped,
            why = self.probe(container) => End::Itself(why),
        };
        self.pods.change(&self.name, |pod| pod.ready = false);
        end(&mut child, self.grace()).await;
        how
    }

    fn start(&self, container: &Container) -> Result<Child, String> {
        let image = container.image.as_deref().unwrap_or_default();
        let logs = self.root.join("var/log/pods");
        std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        Plan {
            pod: &self.pod,
            container,
            program: self.programs.of_image(image)?,
            root: &self.root,
            host_name: &self.host_name,
            environment: &self.environment,
            mount_point: self.root.join("run/containers").join(&self.name).join(&container.name),
            log: logs.join(format!("{}.log", container.name)),
        }
        .start()
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(GRACE))
    }

    /// Probes a container that has just started, until it has to be ended; says why.
    async fn probe(&self, container: &Container) -> String {
        let made = |probe: &Option<_>| probe.as_ref().map(Prober::new).transpose();
        let all = (
            made(&container.startup_probe),
            made(&container.liveness_probe),
            made(&container.readiness_probe),
        );
        let (startup, liveness, readiness) = match all {
            (Ok(startup), Ok(liveness), Ok(readiness)) => (startup, liveness, readiness),
            (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return why,
        };
        if let Some(startup) = startup {
            sleep(startup.initial_delay).await;
            if !startup.until_decided().await {
                return "its startup probe failed".to_owned();
            }
        }
        let ready = |ready| self.pods.change(&self.name, |pod| pod.ready = ready);
        let watch = async {
            match readiness {
                Some(readiness) => {
                    sleep(readiness.initial_delay).await;
                    readiness.watch(ready).await;
                }
                None => ready(true),
            }
            std::future::pending::<()>().await;
        };
        let live = async {
            match liveness {
                Some(liveness) => {
                    sleep(liveness.initial_delay).await;
                    liveness.until_failed().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch => {}
            () = live => {}
        }
        "its liveness probe failed".to_owned()
    }
}

/// SIGTERM, and SIGKILL after the grace.
async fn end(child: &mut Child, grace: Duration) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM) {
        tracing::warn!(pid, %error, "a container can't be asked to end");
    }
    if timeout(grace, child.wait()).await.is_err() {
        tracing::warn!(pid, grace_s = grace.as_secs(), "a container did not end in time");
        if let Err(error) = child.kill().await {
            tracing::error!(pid, %error, "a container can't be killed");
        }
    }
}
