//! Probes, as a manifest describes them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::{Instant, sleep, timeout};

use crate::host::https;

/// A probe's figures; what a manifest leaves out is the API's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prober {
    /// `https://HOST:PORT/PATH`
    url: String,
    pub initial_delay: Duration,
    pub period: Duration,
    timeout: Duration,
    failures: u32,
    successes: u32,
}

impl Prober {
    /// The probe, which asks by HTTPS, the only way that the control plane's programs answer.
    pub fn new(probe: &Probe) -> Result<Self, String> {
        let get = probe.http_get.as_ref().ok_or("a probe that is not httpGet")?;
        if get.scheme.as_deref() != Some("HTTPS") {
            return Err("a probe that is not by HTTPS".to_owned());
        }
        let IntOrString::Int(port) = &get.port else { return Err("a probe at a named port".to_owned()) };
        let host = get.host.as_deref().unwrap_or("127.0.0.1");
        let path = get.path.as_deref().unwrap_or("/");
        let seconds = |of: Option<i32>, default: u64| {
            Duration::from_secs(of.and_then(|of| u64::try_from(of).ok()).unwrap_or(default))
        };
        let count =
            |of: Option<i32>, default: u32| of.and_then(|of| u32::try_from(of).ok()).unwrap_or(default);
        Ok(Self {
            url: format!("https://{host}:{port}{path}"),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            failures: count(probe.failure_threshold, 3).max(1),
            successes: count(probe.success_threshold, 1).max(1),
        })
    }

    async fn once(&self) -> bool {
        match timeout(self.timeout, https::ask(&self.url, None)).await {
            Ok(Ok(answer)) => (200..400).contains(&answer.status),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Goes on until it has failed so often in a row as is enough.
    pub async fn until_failed(&self) {
        let mut failed = 0;
        while failed < self.failures {
            failed = if self.once().await { 0 } else { failed + 1 };
            sleep(self.period).await;
        }
    }

    /// Goes on until it has once succeeded (`true`) or failed so often as is enough (`false`).
    pub async fn until_decided(&self) -> bool {
        for _ in 0..self.failures {
            let next = Instant::now() + self.period;
            if self.once().await {
                return true;
            }
            tokio::time::sleep_until(next).await;
        }
        false
    }

    /// Tells every change of heart, for ever.
    pub async fn watch(&self, tell: impl Fn(bool)) {
        let (mut good, mut bad) = (0, 0);
        loop {
            if self.once().await {
                (good, bad) = (good + 1, 0);
            } else {
                (good, bad) = (0, bad + 1);
            }
            if good >= self.successes {
                tell(true);
            } else if bad >= self.failures {
                tell(false);
            }
            sleep(self.period).await;
        }
    }
}
