//! Hears of requests for nodes' certificates as soon as they are made, so that no machine that joins waits
//! for the next look at them.
//!
//! It only says that there is something to look at: what is asked, and whether it is granted, is found out
//! anew by the look. So nothing depends on it. A watch that breaks, or can't be had, is begun again after a
//! pause that grows; until then requests are found at the slow tick.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};

use super::{ApiClient, ApiError};
use crate::model::fact::chain;

/// For how long, in seconds, the API server goes on with one watch. It is begun again with the certificate
/// that is there then.
const ONE_WATCH_S: u32 = 240;
/// A watch that says nothing for this long beyond its end is broken.
const SILENCE: Duration = Duration::from_secs(ONE_WATCH_S as u64 + 15);
/// How long it rests between two watches, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A watch that went on for this long was no failure.
const LASTED: Duration = Duration::from_mins(1);

/// A watch of requests, until it is dropped.
#[derive(Debug)]
pub struct RequestWatch {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for RequestWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long to rest between two watches.
#[derive(Debug, Default)]
struct Pauses {
    /// So many watches in a row were failures.
    failures: u32,
}

impl Pauses {
    /// After a watch that went on for this long.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= LASTED {
            self.failures = 0;
        }
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

impl RequestWatch {
    /// Begins to watch, in the way that the kubeconfig describes.
    pub fn begin(kubeconfig: PathBuf) -> Self {
        Self::keep(move || {
            let path = kubeconfig.clone();
            async move { ApiClient::connect_for(&path, SILENCE).await }
        })
    }

    fn keep<F>(mut connect: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<ApiClient, ApiError>> + Send,
    {
        let heard = Arc::new(Notify::new());
        let tell = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut pauses = Pauses::default();
            loop {
                let began = Instant::now();
                let watch = async { connect().await?.watch_requests(|| tell.notify_one()).await };
                if let Err(error) = watch.await {
                    let why = chain(&error);
                    tracing::info!(
                        why,
                        "requests for certificates are not watched, and seen at the slow tick"
                    );
                }
                sleep(pauses.after(began.elapsed())).await;
            }
        });
        Self { heard, task }
    }

    /// Waits until a request was made, now or since this was last waited for.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }
}

impl ApiClient {
    /// Says so, by `heard`, whenever a node asks for a certificate, until the API server ends it. Those that
    /// nobody has decided on, and whose pending nobody has explained, count as made when it begins.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    async fn watch_requests(&self, heard: impl Fn()) -> Result<(), ApiError> {
        let failed = |error: kube::Error| ApiError::Read {
            object: "the requests for certificates as they are made".to_owned(),
            source: error.into(),
        };
        let params = WatchParams::default().timeout(ONE_WATCH_S);
        // From no version: what is there comes first, so nothing is missed between two watches.
        let events = self.requests().watch(&params, "").await.map_err(failed)?;
        let mut events = pin!(events);
        while let Some(event) = events.try_next().await.map_err(failed)? {
            match event {
                WatchEvent::Added(request) if super::requests::is_new(&request) => heard(),
                WatchEvent::Error(status) => return Err(failed(kube::Error::Api(status))),
                WatchEvent::Added(_)
                | WatchEvent::Modified(_)
                | WatchEvent::Deleted(_)
                | WatchEvent::Bookmark(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use serde_json::json;

    use super::*;
    use crate::aws::testing::{Reply, Server, answer};
    use crate::model::enrolment::NodeSigner;

    fn event(kind: &str, signer: &str, more: &serde_json::Value) -> String {
        let mut object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": "csr-abcde", "resourceVersion": "17" },
            "spec": { "request": "", "signerName": signer, "usages": ["client auth"] },
        });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{}\n", json!({ "type": kind, "object": object }))
    }

    fn client(url: &str) -> ApiClient {
        let config = kube::Config::new(url.parse().unwrap());
        ApiClient::of(kube::Client::try_from(config).unwrap())
    }

    async fn heard_of(body: String) -> (u32, Result<(), ApiError>) {
        let server = Server::start(move |_| answer(200, &body)).await;
        let heard = AtomicU32::new(0);
        let done = client(&server.url)
            .watch_requests(|| {
                heard.fetch_add(1, Ordering::Relaxed);
            })
            .await;
        (heard.into_inner(), done)
    }

    #[tokio::test]
    async fn only_new_requests_of_nodes_are_heard_of() {
        let kubelet = NodeSigner::Client.name();
        let none = json!({});
        let approved = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True" }] } });
        let told = json!({ "metadata": {
            "name": "csr-told", "resourceVersion": "3", "annotations": { "quorate/pending": "no instance" },
        } });
        for (kind, signer, more, expected) in [
            ("ADDED", kubelet, &none, 1),
            ("ADDED", NodeSigner::Serving.name(), &none, 1),
            ("ADDED", "example.com/other", &none, 0),
            ("ADDED", kubelet, &approved, 0),
            ("ADDED", kubelet, &told, 0),
            ("MODIFIED", kubelet, &none, 0),
            ("DELETED", kubelet, &none, 0),
        ] {
            let (heard, done) = heard_of(event(kind, signer, more)).await;
            assert!(done.is_ok(), "{done:?}");
            assert_eq!(heard, expected, "{kind} {signer} {more}");
        }
    }

    #[tokio::test]
    async fn a_watch_that_the_server_gives_up_is_an_error() {
        let gone = json!({ "type": "ERROR", "object": {
            "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
        } });
        let body = event("ADDED", NodeSigner::Client.name(), &json!({})) + &format!("{gone}\n");
        let (heard, done) = heard_of(body).await;
        assert_eq!(heard, 1);
        assert!(done.is_err_and(|error| chain(&error).contains("too old")));
    }

    #[tokio::test]
    async fn a_watch_that_broke_is_begun_again_and_heard() {
        let mut asked = 0;
        let server = Server::start(move |_| {
            asked += 1;
            match asked {
                1 => Reply::Cut,
                _ => answer(200, event("ADDED", NodeSigner::Client.name(), &json!({}))),
            }
        })
        .await;
        let url = server.url.clone();
        let watch = RequestWatch::keep(move || {
            let url = url.clone();
            async move { Ok(client(&url)) }
        });
        tokio::time::timeout(Duration::from_secs(30), watch.heard()).await.unwrap();
    }

    #[test]
    fn a_watch_that_can_not_be_had_is_tried_ever_more_seldom() {
        let mut pauses = Pauses::default();
        let mut after = |lasted_s: u64| pauses.after(Duration::from_secs(lasted_s)).as_secs();
        assert_eq!([0; 8].map(&mut after), [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..100 {
            assert_eq!(after(59), 60);
        }
        assert_eq!([240, 240, 0, 0].map(after), [1, 1, 2, 4]);
    }

    #[test]
    fn what_has_no_version_is_no_request() {
        let request: CertificateSigningRequest =
            serde_json::from_value(json!({ "spec": { "request": "", "signerName": "a/b" } })).unwrap();
        assert!(!super::super::requests::is_new(&request));
    }
}
