//! AWS's wire protocols over the [`World`](super::world::World): who calls, which operation, what
//! form the answer has. Rules about machines, volumes and objects do not live here.
//!
//! One listener serves EC2, Auto Scaling, Elastic Load Balancing (both versions) and S3, as a client
//! with a single endpoint expects: the credential scope of the signature names the service. Signatures themselves are not verified,
//! but a request without one is refused.

mod auth;
mod autoscaling;
mod cloudwatch;
pub(super) mod connection;
mod ec2;
mod elb;
mod elbv2;
pub(super) mod imds;
mod permissions;
mod query;
mod s3;
mod xml;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;

use self::auth::Signature;
use self::connection::Peer;
use self::query::Params;
use super::clock;
use super::server::Shared;
use super::world::{Caller, Decision, Outcome, Refusal, Service, World};

/// The largest body taken: more than any single-part upload of the agent.
const MAX_BODY: usize = 512 << 20;
/// How far a request's date may be off the region's clock.
const MAX_SKEW_MS: u64 = 15 * 60 * 1000;

/// An answer before it is an HTTP response.
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    fn xml(status: u16, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), "text/xml;charset=UTF-8".into())],
            body: body.into(),
        }
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first half of its body, after which the connection is closed.
    fn broken_off(self, now_ms: u64) -> Response {
        let half = self.body.slice(..self.body.len() / 2);
        let length = self.body.len();
        let (mut parts, _) = self.into_response(now_ms).into_parts();
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
        // The pause has the half sent before the connection is closed.
        let broken = async {
            tokio::task::yield_now().await;
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        };
        let pieces = futures_util::stream::iter([Ok(half)]).chain(futures_util::stream::once(broken));
        Response::from_parts(parts, Body::from_stream(pieces))
    }

    /// `Date` is the region's own: SDKs learn the server's clock from it.
    fn into_response(self, now_ms: u64) -> Response {
        let length = self.body.len();
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if !matches!(self.status, 204 | 304) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Ok(date) = HeaderValue::from_str(&clock::http_date(now_ms)) {
            headers.insert(DATE, date);
        }
        for (name, value) in self.headers {
            match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
                (Ok(CONTENT_LENGTH), Ok(value)) => {
                    // A HEAD answer has the length of the body that it does not carry.
                    headers.insert(CONTENT_LENGTH, value);
                }
                (Ok(name), Ok(value)) => {
                    headers.append(name, value);
                }
                (name, value) => {
                    tracing::warn!(?name, ?value, "a header of an answer can't be written");
                }
            }
        }
        response
    }
}

/// A request of one of the services, understood as far as its operation.
enum Asked {
    Ec2(Params),
    Autoscaling(Params),
    NetworkBalancers(Params),
    ClassicBalancers(Params),
    S3(s3::ObjectRequest),
    CloudWatch(cloudwatch::MetricRequest),
}

impl Asked {
    fn service(&self) -> Service {
        match self {
            Self::Ec2(_) => Service::Ec2,
            Self::Autoscaling(_) => Service::Autoscaling,
            Self::NetworkBalancers(_) | Self::ClassicBalancers(_) => Service::LoadBalancing,
            Self::S3(_) => Service::S3,
            Self::CloudWatch(_) => Service::CloudWatch,
        }
    }

    fn operation(&self) -> &str {
        match self {
            Self::Ec2(params)
            | Self::Autoscaling(params)
            | Self::NetworkBalancers(params)
            | Self::ClassicBalancers(params) => params.action(),
            Self::S3(request) => request.operation(),
            Self::CloudWatch(_) => cloudwatch::MetricRequest::operation(),
        }
    }

    fn resource(&self) -> String {
        match self {
            Self::Ec2(params) => ec2::resource(params),
            Self::Autoscaling(params) => autoscaling::resource(params),
            Self::NetworkBalancers(params) => elbv2::resource(params),
            Self::ClassicBalancers(params) => elb::resource(params),
            Self::S3(request) => request.resource(),
            Self::CloudWatch(request) => request.resource(),
        }
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> Answer {
        match self {
            Self::Ec2(_) => ec2::refusal(refusal, request_id),
            // The two services have one form.
            Self::Autoscaling(_) | Self::NetworkBalancers(_) | Self::ClassicBalancers(_) => {
                autoscaling::refusal(refusal, request_id)
            }
            Self::S3(request) => s3::refusal(refusal, request_id, request.is_head()),
            Self::CloudWatch(_) => cloudwatch::refusal(refusal, request_id),
        }
    }

    fn apply(
        &self,
        world: &mut World,
        caller: &Caller,
        age_ms: u64,
        request_id: &str,
    ) -> Result<Answer, Refusal> {
        match self {
            Self::Ec2(params) => ec2::answer(world, params, age_ms, request_id),
            Self::Autoscaling(params) => autoscaling::answer(world, params, age_ms, request_id),
            Self::NetworkBalancers(params) => elbv2::answer(world, params, age_ms, request_id),
            Self::ClassicBalancers(params) => elb::answer(world, params, age_ms, request_id),
            Self::S3(request) => request.answer(world, caller, request_id),
            Self::CloudWatch(request) => request.answer(world),
        }
    }

    /// What an injected outcome looks like in this service.
    fn injected(&self, outcome: Outcome) -> Option<Refusal> {
        let (service, fault) = (self.service(), outcome);
        let refusal = match (service, fault) {
            (_, Outcome::LostRequest | Outcome::LostAnswer | Outcome::BrokenAnswer | Outcome::Answered) => {
                return None;
            }
            (Service::S3, Outcome::Throttled) => {
                Refusal::new(503, "SlowDown", "Please reduce your request rate.")
            }
            (Service::Autoscaling | Service::LoadBalancing | Service::CloudWatch, Outcome::Throttled) => {
                Refusal::bad("Throttling", "Rate exceeded")
            }
            (_, Outcome::Throttled) => Refusal::new(503, "RequestLimitExceeded", "Request limit exceeded."),
            (Service::Autoscaling | Service::LoadBalancing | Service::CloudWatch, Outcome::ServerError) => {
                Refusal::new(500, "InternalFailure", "internal error")
            }
            (_, Outcome::ServerError) => Refusal::new(500, "InternalError", "An internal error has occurred"),
            (Service::Ec2, Outcome::Denied) => Refusal::new(
                403,
                "UnauthorizedOperation",
                "You are not authorized to perform this operation.",
            ),
            (_, Outcome::Denied) => Refusal::new(403, "AccessDenied", "Access Denied"),
            (_, Outcome::Conflict) => match self {
                Self::S3(request) if request.is_conditional_write() => Refusal::new(
                    409,
                    "ConditionalRequestConflict",
                    "The conditional request cannot succeed due to a conflicting operation",
                ),
                _ => return None,
            },
        };
        Some(refusal)
    }
}

/// Serves one request for EC2, Auto Scaling, Elastic Load Balancing or S3.
pub(super) async fn serve(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%error, "a request's body did not arrive");
            return peer.abort();
        }
    };
    // What has arrived takes effect whether or not its sender waits for the answer.
    let work = tokio::spawn(process(shared, peer.clone(), parts, body));
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be served");
        peer.abort()
    })
}

async fn process(shared: Shared, peer: Peer, parts: Parts, body: Bytes) -> Response {
    let request_id = shared.request_id();
    let signature = match auth::parse(&parts.headers) {
        Ok(signature) => signature,
        Err(refusal) => return early_refusal(&shared, &parts, &refusal, &request_id),
    };
    let asked = match understand(&shared, &parts, body, &signature).await {
        Ok(asked) => asked,
        Err(refusal) => return early_refusal(&shared, &parts, &refusal, &request_id),
    };
    let caller = shared.with(|world| identify(world, &signature, asked.service()));
    let known = caller.as_ref().ok();
    let decision = shared.change(|world| {
        if let Some(caller) = known {
            let needed = permissions::needed(&asked, world);
            world.note_needed(caller, needed);
        }
        world.decide(asked.service(), asked.operation(), &asked.resource(), known)
    });
    let Decision { delay_before_ms, delay_after_ms, age_ms, outcome } = decision;
    pause(delay_before_ms).await;
    if outcome == Outcome::LostRequest {
        return peer.abort();
    }
    let result = match (asked.injected(outcome), caller) {
        (Some(refusal), _) | (None, Err(refusal)) => Err(refusal),
        (None, Ok(caller)) => shared.change(|world| asked.apply(world, &caller, age_ms, &request_id)),
    };
    let answer = result.unwrap_or_else(|refusal| asked.refusal(&refusal, &request_id));
    pause(delay_after_ms).await;
    if outcome == Outcome::LostAnswer {
        return peer.abort();
    }
    if outcome == Outcome::BrokenAnswer {
        return answer.broken_off(shared.now());
    }
    answer.into_response(shared.now())
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

async fn understand(
    shared: &Shared,
    parts: &Parts,
    body: Bytes,
    signature: &Signature,
) -> Result<Asked, Refusal> {
    match signature.service.as_str() {
        "ec2" => Ok(Asked::Ec2(Params::read(parts, body).await?)),
        "autoscaling" => Ok(Asked::Autoscaling(Params::read(parts, body).await?)),
        "elasticloadbalancing" => {
            let params = Params::read(parts, body).await?;
            if params.get("Version") == Some(elbv2::VERSION) {
                Ok(Asked::NetworkBalancers(params))
            } else {
                Ok(Asked::ClassicBalancers(params))
            }
        }
        "monitoring" => Ok(Asked::CloudWatch(cloudwatch::MetricRequest::read(parts, &body)?)),
        "s3" => Ok(Asked::S3(s3::ObjectRequest::read(parts, body, &shared.aws_host())?)),
        other => {
            let message = format!("this region has no service '{other}'");
            Err(Refusal::new(501, "NotImplemented", message))
        }
    }
}

/// Who signed, in this region and at about this time. The codes are each service's own.
fn identify(world: &World, signature: &Signature, service: Service) -> Result<Caller, Refusal> {
    let s3 = service == Service::S3;
    if signature.region != world.config().region {
        let message =
            format!("the region '{}' is wrong; expecting '{}'", signature.region, world.config().region);
        return Err(if s3 {
            Refusal::bad("AuthorizationHeaderMalformed", message)
        } else {
            Refusal::new(401, "AuthFailure", message)
        });
    }
    if signature.date_ms.abs_diff(world.now()) > MAX_SKEW_MS {
        let message = "The difference between the request time and the current time is too large.";
        return Err(match service {
            Service::S3 => Refusal::new(403, "RequestTimeTooSkewed", message),
            Service::Ec2 => Refusal::bad("RequestExpired", message),
            Service::Autoscaling | Service::LoadBalancing | Service::CloudWatch | Service::Imds => {
                Refusal::bad("SignatureDoesNotMatch", message)
            }
        });
    }
    world.caller(&signature.access_key).ok_or_else(|| match service {
        Service::S3 => Refusal::new(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        Service::Ec2 => {
            Refusal::new(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        }
        Service::Autoscaling | Service::LoadBalancing | Service::CloudWatch | Service::Imds => Refusal::new(
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        ),
    })
}

/// Refuses what could not be understood, in the form of the service that it looks like.
fn early_refusal(shared: &Shared, parts: &Parts, refusal: &Refusal, request_id: &str) -> Response {
    let form = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
    let answer = if form {
        ec2::refusal(refusal, request_id)
    } else {
        s3::refusal(refusal, request_id, parts.method == axum::http::Method::HEAD)
    };
    tracing::warn!(method = %parts.method, uri = %parts.uri, %refusal, "a request was not understood");
    answer.into_response(shared.now())
}
