//! How often a call is tried again, and for how long that goes on.
//!
//! Each call has a few attempts, with a random pause between them whose longest doubles up to a
//! bound ("full jitter"). Beside that every client has a *quota* of attempts that are not the
//! first: a store of [`BURST`] that a success gives back to. It is what keeps a thousand machines from
//! making a storm of throttling worse: in a long one each machine comes down to one attempt a call, and
//! how often it calls is the agent's pace.
//!
//! Workers are the thousand, and have the SDK's quota as it is. A control plane is a handful of machines,
//! which all others wait for, and what it plans from takes several answers at once: its quota comes back
//! with time, too, so that it goes on trying for as long as a storm lasts, at a rate with a bound.
//!
//! Source: "AWS SDKs and Tools Reference Guide", retry behavior (standard mode); the token bucket of
//! `aws-smithy-runtime`.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::config::retry::{RetryPartition, TokenBucket};

use crate::model::Role;

/// How often a worker tries, and how often one of the control plane.
const ATTEMPTS_OF_WORKERS: u32 = 3;
const ATTEMPTS_OF_CONTROL_PLANE: u32 = 15;

/// The longest that is waited between the first two attempts, and between any two.
const FIRST_BACKOFF: Duration = Duration::from_millis(300);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// So many further attempts a client may make before the first success: the SDK's own number.
const BURST: usize = 100;
/// A client of the control plane gets so many back a second, whatever comes of them. EC2 gives a whole account ten to
/// twenty calls a second of each operation that only tells; S3 takes 5500 reads a second of each prefix.
/// Sources: "Request throttling for the Amazon EC2 API"; "Best practices design patterns: optimizing Amazon S3
/// performance".
const BACK_A_SECOND: f32 = 2.0;
const BACK_A_SECOND_FROM_S3: f32 = 5.0;
/// What a further attempt costs: after a throttled one, and after one that brought no answer. They are the SDK's own.
const COST: u32 = 5;
const COST_OF_TIMEOUT: u32 = 10;

/// How often a machine of this role tries.
pub(super) fn attempts(role: Role) -> u32 {
    match role {
        Role::ControlPlane => ATTEMPTS_OF_CONTROL_PLANE,
        Role::Worker => ATTEMPTS_OF_WORKERS,
    }
}

/// How attempts follow each other.
pub(super) fn config(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(LONGEST_BACKOFF)
}

/// A service whose quota is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// EC2.
    Ec2,
    /// Auto Scaling.
    AutoScaling,
    /// Load balancers of both kinds.
    LoadBalancing,
    /// S3.
    S3,
    /// CloudWatch.
    CloudWatch,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::AutoScaling => "autoscaling",
            Self::LoadBalancing => "elasticloadbalancing",
            Self::S3 => "s3",
            Self::CloudWatch => "monitoring",
        }
    }

    fn back_a_second(self) -> f32 {
        match self {
            Self::Ec2 | Self::AutoScaling | Self::LoadBalancing | Self::CloudWatch => BACK_A_SECOND,
            Self::S3 => BACK_A_SECOND_FROM_S3,
        }
    }
}

/// The quota of a service's clients; `None` is the SDK's own, which has no part that comes back with time.
pub(super) fn quota(role: Role, service: Service) -> Option<RetryPartition> {
    match role {
        Role::Worker => None,
        Role::ControlPlane => {
            #[expect(clippy::cast_precision_loss, reason = "the cost is a small number")]
            let refill = service.back_a_second() * COST as f32;
            let bucket = TokenBucket::builder()
                .capacity(BURST * COST as usize)
                .throttling_retry_cost(COST)
                .retry_cost(COST)
                .timeout_retry_cost(COST_OF_TIMEOUT)
                .refill_rate(refill)
                .build();
            Some(RetryPartition::custom(service.name()).token_bucket(bucket).build())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_config::{BehaviorVersion, SdkConfig};
    use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;

    use super::super::Ec2;
    use super::*;

    /// An AWS that throttles everything, and counts it.
    #[derive(Debug, Clone, Default)]
    struct Storm(Arc<AtomicUsize>);

    impl HttpConnector for Storm {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            self.0.fetch_add(1, Ordering::Relaxed);
            let body = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>later</Message></Error>\
                        </Errors><RequestID>r</RequestID></Response>";
            let status = 503_u16.try_into().unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
        }
    }

    impl Storm {
        /// EC2's client of a machine of this role, which would try far more often than any quota, and without a pause. The SDK's own
        /// quota is shared by all clients of a service in a region.
        fn client(&self, role: Role, region: &'static str) -> Ec2 {
            let connector = SharedHttpConnector::new(self.clone());
            let retries = config(10 * u32::try_from(BURST).unwrap())
                .with_initial_backoff(Duration::ZERO)
                .with_max_backoff(Duration::ZERO);
            let sdk = SdkConfig::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(aws_config::Region::new(region))
                .http_client(http_client_fn(move |_, _| connector.clone()))
                .retry_config(retries)
                .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                    "AKIATEST", "secret", None, None, "test",
                )))
                .build();
            Ec2::new(&sdk, role)
        }

        /// How many attempts a call makes.
        async fn attempts(&self, client: &Ec2) -> usize {
            let before = self.0.load(Ordering::Relaxed);
            let error = client.volumes_of(&"demo".parse().unwrap()).await.unwrap_err();
            assert!(error.is_throttled(), "{error:?}");
            self.0.load(Ordering::Relaxed) - before
        }
    }

    #[tokio::test]
    async fn a_worker_comes_down_to_one_attempt_a_call() {
        let storm = Storm::default();
        let client = storm.client(Role::Worker, "xx-workers-1");
        assert_eq!(storm.attempts(&client).await, 1 + BURST);
        for _ in 0..20 {
            assert_eq!(storm.attempts(&client).await, 1);
        }
    }

    #[tokio::test]
    async fn a_control_plane_s_quota_is_bounded_and_comes_back_with_time() {
        let storm = Storm::default();
        let client = storm.client(Role::ControlPlane, "xx-control-1");
        assert!(storm.attempts(&client).await > BURST);
        // No success gave anything back.
        let more = async {
            loop {
                match storm.attempts(&client).await {
                    1 => tokio::task::yield_now().await,
                    more => return more,
                }
            }
        };
        let more = tokio::time::timeout(Duration::from_mins(1), more).await.unwrap();
        assert!(more < BURST / 2, "{more}");
    }

    #[tokio::test]
    async fn each_client_of_a_control_plane_has_a_quota_of_its_own() {
        let storm = Storm::default();
        let (one, other) = (
            storm.client(Role::ControlPlane, "xx-control-1"),
            storm.client(Role::ControlPlane, "xx-control-1"),
        );
        assert!(storm.attempts(&one).await > BURST);
        assert!(storm.attempts(&other).await > BURST);
    }

    #[test]
    fn no_machine_tries_for_longer_than_a_call_may_take() {
        for role in [Role::ControlPlane, Role::Worker] {
            let config = config(attempts(role));
            let pauses = (0..config.max_attempts() - 1).map(|n| config.initial_backoff() * 2_u32.pow(n));
            let longest: Duration = pauses.map(|pause| pause.min(config.max_backoff())).sum();
            assert!(longest < super::super::OPERATION, "{role:?}: {longest:?}");
        }
    }
}
