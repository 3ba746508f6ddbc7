//! A pod that is kept running.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::sleep;

use super::container::Plan;
use super::life::Life;
use super::probe::Prober;
use super::{Pods, Programs, Running};
use crate::lab::environment::AgentEnvironment;
use crate::lab::process::start_time;

/// How long a container that ended waits to be started again, at first and at most. The kubelet's
/// are 10 s and 5 min.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What a pod has to end in when its manifest does not say.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Keeps one pod.
pub(super) struct Keeper {
    pub name: String,
    pub pod: Pod,
    /// SHA-256 of its manifest, in hexadecimal.
    pub content: String,
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
                        pod.containers.remove(&container.name);
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

    /// One life of a container: that which the kubelet before had started, or a new one.
    async fn live(&self, container: &Container) -> End {
        let mut life = match self.find(container).map_or_else(|| self.start(container), Ok) {
            Ok(life) => life,
            Err(why) => return End::Itself(why),
        };
        let mut stopped = self.stopped.clone();
        let how = tokio::select! {
            how = life.wait() => return End::Itself(how),
            _ = stopped.wait_for(|stopped| *stopped) => End::Stopped,
            why = self.probe(container) => End::Itself(why),
        };
        self.pods.change(&self.name, |pod| pod.ready = false);
        life.end(self.grace()).await;
        how
    }

    fn find(&self, container: &Container) -> Option<Life> {
        Life::find(self.pods.all().get(&self.name)?.containers.get(&container.name)?)
    }

    fn start(&self, container: &Container) -> Result<Life, String> {
        let image = container.image.as_deref().unwrap_or_default();
        let logs = self.root.join("var/log/pods");
        std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        let child = Plan {
            pod: &self.pod,
            container,
            program: self.programs.of_image(image)?,
            root: &self.root,
            host_name: &self.host_name,
            environment: &self.environment,
            mount_point: self.root.join("run/containers").join(&self.name).join(&container.name),
            log: logs.join(format!("{}.log", container.name)),
        }
        .start()?;
        // One that has ended already is there until it is waited for, and is then not found.
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(start_time) = start_time(Pid::from_raw(pid))
        {
            let running = Running { pid, start_time, content: self.content.clone() };
            self.pods.change(&self.name, |pod| {
                pod.containers.insert(container.name.clone(), running);
            });
        }
        Ok(Life::Own(child))
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(GRACE, Duration::from_secs)
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
