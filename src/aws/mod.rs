//! AWS: the metadata service, EC2, Auto Scaling, load balancers, CloudWatch and the object store in S3.
//!
//! Each adapter makes calls and decodes answers, exactly: what AWS definitely says is a value
//! (that something is not there, too), and everything else is an error that says whether it may
//! be tried again.
//!
//! What must not live here: decisions. And no patience beyond the few attempts of [`retries`]: waiting
//! out minutes of throttling is the agent's loop.
//!
//! AWS's standard environment is honoured: `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_…`,
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `AWS_CA_BUNDLE`, the proxy variables, and credentials from
//! the environment, from profiles, or from the instance's role through the metadata service.
//! Source: "AWS SDKs and Tools Reference Guide", settings reference.

mod autoscaling;
mod cause;
mod cloudwatch;
mod ec2;
mod http;
mod load_balancers;
mod metadata;
mod objects;
mod pages;
mod retries;
#[cfg(test)]
#[cfg(feature = "lab")]
pub(crate) mod testing;
mod whole;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

pub use self::autoscaling::{AutoScaling, AutoScalingError, Group, GroupInstance};
pub use self::cause::{Cause, without_request_ids};
pub use self::cloudwatch::{CloudWatch, CloudWatchError, Figure, Unit};
pub use self::ec2::{Ec2, Ec2Error, Ec2ErrorKind, MetadataOptions, NewVolume};
pub use self::http::HttpError;
pub use self::load_balancers::{LoadBalancerError, LoadBalancers};
pub use self::metadata::{MetadataError, MetadataService, PublishedTag};
pub use self::objects::{
    Allowed, BucketEncryption, BucketLifecycle, Changed, Download, Listed, ObjectError, ObjectStore,
    StoreLocation, Stored, UnfinishedUpload, Upload, Uploaded, Written,
};

use crate::model::{Region, Role};

/// How long one attempt of a call may take, and how long the call with all its attempts.
const ATTEMPT: Duration = Duration::from_secs(5);
const OPERATION: Duration = Duration::from_secs(20);

/// How often the metadata service is tried, which nobody else asks.
const METADATA_ATTEMPTS: u32 = 3;

/// The way to AWS: connectors, made once.
#[derive(Debug, Clone)]
pub struct Access {
    http: SharedHttpClient,
    metadata: MetadataService,
    #[cfg(feature = "lab")]
    endpoints: Option<Endpoints>,
}

/// What stands in for the environment where tests talk to servers of their own.
#[cfg(feature = "lab")]
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The server in place of all of AWS's APIs, `http://ADDRESS:PORT`.
    pub apis: String,
    /// The server in place of the metadata service, `http://ADDRESS:PORT`.
    pub metadata: String,
    /// The credentials to sign with.
    pub credentials: aws_sdk_ec2::config::Credentials,
    /// How many attempts are made of every call.
    pub attempts: u32,
    /// How long an attempt may take.
    pub attempt: Duration,
}

impl Access {
    /// The way to AWS as the environment describes it.
    pub async fn from_environment() -> Result<Self, HttpError> {
        let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Self {
            http: http::for_apis(bundle.as_deref(), ProxyConfig::from_env()).await?,
            metadata: MetadataService::new(
                metadata::endpoint_from_environment(),
                METADATA_ATTEMPTS,
                metadata::ATTEMPT,
            )?,
            #[cfg(feature = "lab")]
            endpoints: None,
        })
    }

    /// The way to given servers. Nothing is read from the environment, no proxy is used, and no TLS:
    /// the system's trusted roots are not even loaded.
    #[cfg(feature = "lab")]
    pub fn to(endpoints: Endpoints) -> Result<Self, HttpError> {
        Ok(Self {
            http: http::always(http::for_metadata()?),
            metadata: MetadataService::new(
                endpoints.metadata.clone(),
                endpoints.attempts,
                endpoints.attempt,
            )?,
            endpoints: Some(endpoints),
        })
    }

    /// The metadata service: the first to be asked, since the region comes from it.
    pub fn metadata(&self) -> &MetadataService {
        &self.metadata
    }

    /// The SDK's configuration for a region, on a machine of this role.
    async fn sdk_config(&self, region: &Region, role: Role) -> SdkConfig {
        // Pinned, so that a new version of the SDK changes nothing unseen.
        let behavior = BehaviorVersion::v2026_01_12();
        let region = aws_config::Region::new(region.as_str().to_owned());
        let attempts = retries::attempts(role);
        let timeouts = TimeoutConfig::builder().connect_timeout(http::CONNECT).operation_timeout(OPERATION);
        #[cfg(feature = "lab")]
        if let Some(endpoints) = &self.endpoints {
            return SdkConfig::builder()
                .behavior_version(behavior)
                .region(region)
                .http_client(self.http.clone())
                .retry_config(retries::config(endpoints.attempts))
                .timeout_config(timeouts.operation_attempt_timeout(endpoints.attempt).build())
                .endpoint_url(&endpoints.apis)
                .credentials_provider(aws_sdk_ec2::config::SharedCredentialsProvider::new(
                    endpoints.credentials.clone(),
                ))
                .build();
        }
        let providers = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_http_client(self.http.clone());
        // The role's credentials come through the metadata service's own connector, past any proxy.
        let credentials = DefaultCredentialsChain::builder()
            .configure(providers)
            .region(region.clone())
            .imds_client(self.metadata.client())
            .build()
            .await;
        aws_config::defaults(behavior)
            .region(region)
            .http_client(self.http.clone())
            .retry_config(retries::config(attempts))
            .timeout_config(timeouts.operation_attempt_timeout(ATTEMPT).build())
            .credentials_provider(credentials)
            .load()
            .await
    }

    /// EC2 alone: for the instance's tags, before anything else is known. It may be one of a thousand workers.
    pub async fn ec2(&self, region: &Region) -> Ec2 {
        Ec2::new(&self.sdk_config(region, Role::Worker).await, Role::Worker)
    }

    /// All clients of a machine of this role, for a region and a place in S3. They are cheap to clone.
    pub async fn clients(&self, region: &Region, role: Role, store: StoreLocation) -> Clients {
        let sdk = self.sdk_config(region, role).await;
        let objects = ObjectStore::new(&sdk, role, store);
        let (a, b, c, d) = (sdk.clone(), sdk.clone(), sdk.clone(), sdk);
        Clients {
            ec2: seldom(move || Ec2::new(&a, role)),
            autoscaling: seldom(move || AutoScaling::new(&b, role)),
            load_balancers: seldom(move || LoadBalancers::new(&c, role)),
            cloudwatch: seldom(move || CloudWatch::new(&d, role)),
            objects,
            metadata: self.metadata.clone(),
        }
    }
}

/// A client that is made when it is first used: a worker hardly ever uses most of them.
pub type Seldom<T> = Arc<LazyLock<T, Box<dyn FnOnce() -> T + Send>>>;

fn seldom<T>(make: impl FnOnce() -> T + Send + 'static) -> Seldom<T> {
    Arc::new(LazyLock::new(Box::new(make)))
}

/// The clients of all services, made once.
#[derive(Debug, Clone)]
pub struct Clients {
    /// EC2.
    pub ec2: Seldom<Ec2>,
    /// Auto Scaling.
    pub autoscaling: Seldom<AutoScaling>,
    /// Load balancers, of both kinds.
    pub load_balancers: Seldom<LoadBalancers>,
    /// CloudWatch.
    pub cloudwatch: Seldom<CloudWatch>,
    /// The cluster's place in S3.
    pub objects: ObjectStore,
    /// The metadata service.
    pub metadata: MetadataService,
}
