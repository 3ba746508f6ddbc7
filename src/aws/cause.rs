//! Why a call to AWS brought no usable answer.
//!
//! The SDK's errors carry whole responses and, in their `Debug` form, print them. Each is decoded
//! here once into the few words that matter: did AWS answer, with what status, code and message,
//! or did no answer come. Nothing of the request and no credential is kept.
//!
//! What must not live here: what an error means for one service; that is its adapter's business.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::model::fact::chain;

/// The longest message that is kept, in characters: some of EC2's carry an encoded blob.
const LONGEST: usize = 400;

/// Why a call to AWS brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// AWS, or something on the way to it, answered with an error.
    #[error("{}", answered(*.status, .code.as_deref(), .message.as_deref(), .request.as_deref()))]
    Answered {
        /// The HTTP status.
        status: u16,
        /// AWS's code, as `RequestLimitExceeded`; `None` when the body did not say.
        code: Option<String>,
        /// AWS's message.
        message: Option<String>,
        /// AWS's id of the request, for its support.
        request: Option<String>,
    },
    /// No answer within the time allowed. The call may have taken effect.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The request was not delivered, or the connection broke before an answer came. Unless the
    /// text says that the connection was refused, the call may have taken effect.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// An answer came that broke off, or that can't be read.
    #[error("the answer can't be read: {0}")]
    Unreadable(String),
    /// The request was not sent: a parameter, or no credentials.
    #[error("not sent: {0}")]
    NotSent(String),
}

fn answered(status: u16, code: Option<&str>, message: Option<&str>, request: Option<&str>) -> String {
    let mut text = match code {
        Some(code) => format!("{code} (status {status})"),
        None => format!("status {status} without a code"),
    };
    if let Some(message) = message {
        text.push_str(": ");
        text.push_str(message);
    }
    if let Some(request) = request {
        text.push_str(" [request ");
        text.push_str(request);
        text.push(']');
    }
    text
}

/// A text without AWS's ids of requests, which differ from one refusal to the next of the same kind:
/// for telling whether there is anything new to say.
pub fn without_request_ids(text: &str) -> String {
    let mut parts = text.split(" [request ");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rest.push_str(part.split_once(']').map_or(part, |(_, after)| after));
    }
    rest
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Cause {
    /// Decodes an error of the SDK.
    pub(super) fn new<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::ServiceError(context) if context.raw().status().is_success() => {
                Self::Unreadable(shortened(&chain(context.err())))
            }
            SdkError::ServiceError(context) => {
                let meta = context.err().meta();
                Self::Answered {
                    status: context.raw().status().as_u16(),
                    code: meta.code().filter(|code| !code.is_empty()).map(shortened),
                    message: meta.message().filter(|message| !message.is_empty()).map(shortened),
                    request: meta.extra("aws_request_id").map(shortened),
                }
            }
            SdkError::TimeoutError(_) => Self::TimedOut(causes(error)),
            SdkError::DispatchFailure(context) if context.is_timeout() => Self::TimedOut(causes(error)),
            SdkError::DispatchFailure(context) if context.is_user() => Self::NotSent(causes(error)),
            SdkError::DispatchFailure(_) => Self::Unreachable(causes(error)),
            SdkError::ResponseError(_) => Self::Unreadable(causes(error)),
            // `SdkError` may grow; what is left today is the failure to construct a request.
            _ => Self::NotSent(causes(error)),
        }
    }

    /// AWS's code, when it answered with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Answered { code, .. } => code.as_deref(),
            Self::TimedOut(_) | Self::Unreachable(_) | Self::Unreadable(_) | Self::NotSent(_) => None,
        }
    }

    /// The HTTP status, when there was an answer with an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            Self::TimedOut(_) | Self::Unreachable(_) | Self::Unreadable(_) | Self::NotSent(_) => None,
        }
    }

    /// Whether AWS asks to be called less often.
    /// Source: the codes that the SDKs' own standard retry mode takes for throttling.
    pub fn is_throttled(&self) -> bool {
        self.status() == Some(429)
            || self.code().is_some_and(|code| {
                matches!(
                    code,
                    "BandwidthLimitExceeded"
                        | "EC2ThrottledException"
                        | "LimitExceededException"
                        | "PriorRequestNotComplete"
                        | "RequestLimitExceeded"
                        | "RequestThrottled"
                        | "RequestThrottledException"
                        | "SlowDown"
                        | "ThrottledException"
                        | "Throttling"
                        | "ThrottlingException"
                        | "TooManyRequestsException"
                )
            })
    }

    /// Whether AWS says that the caller may not.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(|code| {
            matches!(
                code,
                "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "AllAccessDisabled"
            )
        })
    }

    /// Whether AWS refuses the request for this machine's clock.
    pub fn is_clock_skew(&self) -> bool {
        self.code().is_some_and(|code| {
            matches!(code, "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture")
        })
    }

    /// Whether nothing definite is known of the call: it may or may not have taken effect.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Answered { status, .. } => *status >= 500 || *status == 408,
            Self::TimedOut(_) | Self::Unreachable(_) | Self::Unreadable(_) => true,
            Self::NotSent(_) => false,
        }
    }

    /// Whether the same call may well succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.is_lost() || self.is_throttled() || self.is_clock_skew() || self.code() == Some("RequestTimeout")
    }
}

/// What is behind an error of the SDK, without its own, constant words.
fn causes<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: std::error::Error + 'static,
{
    match std::error::Error::source(error) {
        Some(source) => shortened(&chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_refusals_of_a_kind_differ_in_their_requests_only() {
        let refused = |request: &str| Cause::Answered {
            status: 503,
            code: Some("RequestLimitExceeded".to_owned()),
            message: Some("Request limit exceeded.".to_owned()),
            request: Some(request.to_owned()),
        };
        let twice = |one: &str, other: &str| format!("{}; {}", refused(one), refused(other));
        assert_ne!(twice("a1", "a2"), twice("b1", "b2"));
        assert_eq!(without_request_ids(&twice("a1", "a2")), without_request_ids(&twice("b1", "b2")));
        let plain = "RequestLimitExceeded (status 503): Request limit exceeded.";
        assert_eq!(without_request_ids(&refused("a1").to_string()), plain);
    }
}
