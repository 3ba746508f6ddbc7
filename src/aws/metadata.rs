//! The instance metadata service: who this machine is, its user data, its published tags.
//!
//! Version 2 only, through the SDK's own client, which gets and keeps the session token. Added to
//! that client are three things it lacks:
//!
//! - bytes: it takes every body for UTF-8, and user data may be gzipped. The connector under it
//!   carries the body of user data over in base64;
//! - a new token when the service refuses the present one (401), as it does after it was restarted;
//!   the SDK's client would use the same token until it expires;
//! - names for the ways of getting no answer: refused, timed out, broken off.
//!
//! What does not change while an instance runs (who it is, what type, how it is paid for) is asked once.
//!
//! What must not live here: choosing between tags published here and EC2's, and what user data mean.
//!
//! Source: "Use the Instance Metadata Service to access instance metadata", EC2 user guide.

mod document;
mod notices;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::error::{ImdsError, TokenError};
use aws_config::provider_config::ProviderConfig;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, SharedRetryClassifier,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::sync::OnceCell;

use self::document::Document;
use super::http::{self, HttpError};
use crate::model::Identity;
use crate::model::fact::chain;
use crate::model::ids::ParseIdError;
use crate::model::node::CapacityType;

/// How long one attempt may take, the reading of the body included.
pub(super) const ATTEMPT: Duration = Duration::from_secs(2);

/// How long a call may take with all its attempts and the waits in between. Those for a token are
/// within those for the value, so that without this they would multiply.
const OPERATION: Duration = Duration::from_secs(8);

/// How long a session token is asked for. Short, so that a copy of a token that the service no
/// longer takes (the one in the credentials provider) is soon replaced.
const TOKEN_TTL: Duration = Duration::from_mins(10);

const USER_DATA: &str = "/latest/user-data";
const META_DATA: &str = "/latest/meta-data/";
const TAGS: &str = "tags/instance/";

/// A tag, as far as the metadata service tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishedTag {
    /// The tag's value.
    Value(String),
    /// Tags are published, and this one is not among them.
    NotSet,
    /// Tags are not published to this instance.
    NotPublished,
}

/// The metadata service gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// 401, even with a new token.
    #[error("metadata service, {path}: the session token is refused (401), a new one as well")]
    TokenRefused {
        /// What was asked for.
        path: String,
    },
    /// 403.
    #[error(
        "metadata service, {path}: it is switched off for this instance (403); \
         switch it on: aws ec2 modify-instance-metadata-options --http-endpoint enabled --http-tokens required"
    )]
    SwitchedOff {
        /// What was asked for.
        path: String,
    },
    /// 404 of something that every instance has. It may be late at boot.
    #[error(
        "metadata service, {path}: not set (404); if this lasts, the endpoint is not an EC2 metadata service"
    )]
    NotSet {
        /// What was asked for.
        path: String,
    },
    /// 5xx.
    #[error("metadata service, {path}: it is in trouble (status {status})")]
    Unavailable {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// Any other status.
    #[error("metadata service, {path}: unexpected status {status}; check AWS_EC2_METADATA_SERVICE_ENDPOINT")]
    Status {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// No answer in time.
    #[error(
        "metadata service, {path}: no answer in time; if this lasts, \
         check the route to it and, inside a container, that the hop limit is 2"
    )]
    TimedOut {
        /// What was asked for.
        path: String,
    },
    /// The connection was refused.
    #[error(
        "metadata service, {path}: connection refused; check AWS_EC2_METADATA_SERVICE_ENDPOINT and firewalls"
    )]
    Refused {
        /// What was asked for.
        path: String,
    },
    /// The connection failed otherwise, or broke off.
    #[error("metadata service, {path}: {why}")]
    Broken {
        /// What was asked for.
        path: String,
        /// What happened.
        why: String,
    },
    /// The answer is not what it should be.
    #[error("metadata service, {path}: unexpected answer")]
    Malformed {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        #[source]
        source: ParseIdError,
    },
}

impl MetadataError {
    /// Whether the same question may well be answered later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TokenRefused { .. }
            | Self::NotSet { .. }
            | Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::Refused { .. }
            | Self::Broken { .. } => true,
            Self::SwitchedOff { .. } | Self::Status { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// The metadata service of this instance.
#[derive(Debug, Clone)]
pub struct MetadataService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    attempts: u32,
    http: SharedHttpClient,
    /// Replaced, for its token, when the service refuses that.
    client: RwLock<imds::Client>,
    document: OnceCell<Document>,
    capacity_type: OnceCell<Option<CapacityType>>,
}

impl MetadataService {
    /// The service at an endpoint, asked `attempts` times for everything, each time for at most
    /// `attempt`.
    pub(super) fn new(endpoint: String, attempts: u32, attempt: Duration) -> Result<Self, HttpError> {
        let http = http::always(SharedHttpConnector::new(Carrier { inner: http::for_metadata()?, attempt }));
        let client = client(&endpoint, attempts, &http)?;
        let client = RwLock::new(client);
        let (document, capacity_type) = (OnceCell::new(), OnceCell::new());
        Ok(Self { shared: Arc::new(Shared { endpoint, attempts, http, client, document, capacity_type }) })
    }

    /// The SDK's client, for the provider of the instance role's credentials.
    pub(super) fn client(&self) -> imds::Client {
        self.shared.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who this machine is.
    pub async fn identity(&self) -> Result<Identity, MetadataError> {
        Ok(self.document().await?.identity.clone())
    }

    /// The instance's type, like `m7g.large`.
    pub async fn instance_type(&self) -> Result<Option<String>, MetadataError> {
        Ok(self.document().await?.instance_type.clone())
    }

    async fn document(&self) -> Result<&Document, MetadataError> {
        let ask = async || Document::parse(&self.get(document::PATH).await?);
        self.shared.document.get_or_try_init(ask).await
    }

    /// How the instance is paid for; a way that is new is logged, and not told.
    pub async fn capacity_type(&self) -> Result<Option<CapacityType>, MetadataError> {
        let ask = async || {
            let told = self.optional("instance-life-cycle").await?;
            Ok(told.and_then(|text| {
                text.parse().inspect_err(|error| tracing::warn!(%error, "unknown instance life cycle")).ok()
            }))
        };
        self.shared.capacity_type.get_or_try_init(ask).await.copied()
    }

    /// The instance's private DNS name.
    pub async fn private_dns_name(&self) -> Result<Option<String>, MetadataError> {
        self.optional("local-hostname").await
    }

    /// What not every instance has.
    async fn optional(&self, name: &str) -> Result<Option<String>, MetadataError> {
        match self.get(&format!("{META_DATA}{name}")).await {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(MetadataError::NotSet { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The user data, byte for byte; `None` when the instance definitely has none.
    pub async fn user_data(&self) -> Result<Option<Vec<u8>>, MetadataError> {
        match self.get(USER_DATA).await {
            Ok(carried) => BASE64.decode(carried).map(Some).map_err(|error| MetadataError::Broken {
                path: USER_DATA.to_owned(),
                why: error.to_string(),
            }),
            Err(MetadataError::NotSet { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A tag of this instance, if tags are published here.
    pub async fn tag(&self, key: &str) -> Result<PublishedTag, MetadataError> {
        match self.get(&format!("{META_DATA}{TAGS}{}", encoded(key))).await {
            Ok(value) => Ok(PublishedTag::Value(value)),
            Err(MetadataError::NotSet { .. }) => match self.get(&format!("{META_DATA}{TAGS}")).await {
                Ok(_) => Ok(PublishedTag::NotSet),
                Err(MetadataError::NotSet { .. }) => Ok(PublishedTag::NotPublished),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn get(&self, path: &str) -> Result<String, MetadataError> {
        match ask(&self.client(), path).await {
            Err(MetadataError::TokenRefused { .. }) => {
                let client = client(&self.shared.endpoint, self.shared.attempts, &self.shared.http)
                    .map_err(|error| MetadataError::Broken { path: path.to_owned(), why: chain(&error) })?;
                *self.shared.client.write().unwrap_or_else(PoisonError::into_inner) = client.clone();
                ask(&client, path).await
            }
            answer => answer,
        }
    }
}

/// The endpoint as the environment has it, by the SDK's own rules; a profile file's is not read.
pub(super) fn endpoint_from_environment() -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    // On a machine that builds and tests, something else may listen at the real address.
    #[cfg(test)]
    assert!(endpoint.is_some(), "tests must not talk to the real metadata service");
    endpoint.unwrap_or_else(|| match set("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") {
        Some(mode) if mode.eq_ignore_ascii_case("ipv6") => "http://[fd00:ec2::254]".to_owned(),
        _ => "http://169.254.169.254".to_owned(),
    })
}

fn client(endpoint: &str, attempts: u32, http: &SharedHttpClient) -> Result<imds::Client, HttpError> {
    // Nothing but the HTTP client is taken from this configuration, and no profile file is read.
    let config = ProviderConfig::without_region().with_http_client(http.clone());
    Ok(imds::Client::builder()
        .configure(&config)
        .endpoint(endpoint.trim_end_matches('/'))
        .map_err(|source| HttpError::MetadataEndpoint { endpoint: endpoint.to_owned(), source })?
        .max_attempts(attempts)
        .token_ttl(TOKEN_TTL)
        // Never met: the bound is in `ask`, where it has a name.
        .operation_attempt_timeout(OPERATION * 2)
        .operation_timeout(OPERATION * 2)
        .retry_classifier(SharedRetryClassifier::new(Again))
        .build())
}

async fn ask(client: &imds::Client, path: &str) -> Result<String, MetadataError> {
    match tokio::time::timeout(OPERATION, client.get(path)).await {
        Ok(answer) => answer.map(String::from).map_err(|error| named(path, &error)),
        Err(_) => Err(MetadataError::TimedOut { path: path.to_owned() }),
    }
}

fn malformed(path: &str, found: &str, expected: &'static str) -> MetadataError {
    let source = ParseIdError { found: found.chars().take(80).collect(), expected };
    MetadataError::Malformed { path: path.to_owned(), source }
}

/// A tag's key as one segment of a path.
fn encoded(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b':'
            | b'@'
            | b'+'
            | b'=' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// What is tried again at once: what did not come, and what the service could not do. Not 401,
/// since the SDK would try with the same token.
#[derive(Debug)]
struct Again;

impl ClassifyRetry for Again {
    fn name(&self) -> &'static str {
        "metadata service"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response() {
            Some(response) if response.status().is_server_error() => RetryAction::server_error(),
            Some(_) => RetryAction::NoActionIndicated,
            None => RetryAction::transient_error(),
        }
    }
}

/// Why the connector has no response.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("no answer in time")]
    TimedOut,
    #[error("connection refused")]
    Refused,
    #[error("{0}")]
    Broken(String),
}

impl Silence {
    fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let refused = in_chain::<std::io::Error>(error)
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused { Self::Refused } else { Self::Broken(chain(error)) }
    }
}

/// The connector under the SDK's client. It bounds each attempt, names the ways to fail, and
/// carries user data through the client in base64.
#[derive(Debug)]
struct Carrier {
    inner: SharedHttpConnector,
    attempt: Duration,
}

impl HttpConnector for Carrier {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let carried = request.uri().ends_with(USER_DATA);
        let answer = self.inner.call(request);
        let attempt = self.attempt;
        HttpConnectorFuture::new(async move {
            match tokio::time::timeout(attempt, whole(answer, carried)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(silence)) => Err(ConnectorError::io(silence.into())),
                Err(_) => Err(ConnectorError::timeout(Silence::TimedOut.into())),
            }
        })
    }
}

async fn whole(answer: HttpConnectorFuture, carried: bool) -> Result<HttpResponse, Silence> {
    let mut response = answer
        .await
        .map_err(|error| if error.is_timeout() { Silence::TimedOut } else { Silence::new(&error) })?;
    let body = ByteStream::new(response.take_body()).collect().await;
    let body = body.map_err(|error| Silence::new(&error))?.to_vec();
    if carried && response.status().is_success() {
        let text = BASE64.encode(body);
        // The SDK compares the length that was said with the body's.
        response.headers_mut().insert("content-length", text.len().to_string());
        *response.body_mut() = SdkBody::from(text);
    } else {
        *response.body_mut() = SdkBody::from(body);
    }
    Ok(response)
}

/// An error of the SDK's client by its name.
fn named(path: &str, error: &ImdsError) -> MetadataError {
    let owned = path.to_owned();
    let status = match error {
        ImdsError::ErrorResponse(context) => Some(context.response().status().as_u16()),
        _ => in_chain::<SdkError<TokenError, HttpResponse>>(error)
            .and_then(SdkError::raw_response)
            .map(|response| response.status().as_u16())
            .filter(|status| !(200..300).contains(status)),
    };
    match (status, in_chain::<Silence>(error)) {
        (Some(401), _) => MetadataError::TokenRefused { path: owned },
        (Some(403), _) => MetadataError::SwitchedOff { path: owned },
        // A service without a way to get a token is none: only the value itself can be "not set".
        (Some(404), _) if matches!(error, ImdsError::ErrorResponse(_)) => {
            MetadataError::NotSet { path: owned }
        }
        (Some(status), _) if status >= 500 => MetadataError::Unavailable { path: owned, status },
        (Some(status), _) => MetadataError::Status { path: owned, status },
        (None, Some(Silence::TimedOut)) => MetadataError::TimedOut { path: owned },
        (None, Some(Silence::Refused)) => MetadataError::Refused { path: owned },
        (None, Some(Silence::Broken(why))) => MetadataError::Broken { path: owned, why: why.clone() },
        (None, None) => MetadataError::Broken { path: owned, why: chain(error) },
    }
}

fn in_chain<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
