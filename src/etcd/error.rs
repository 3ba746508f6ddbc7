//! What can go wrong with etcd, by operation.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ClusterUuid, Generation, InstanceId, MemberId};

/// Why a single call had no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Nothing was heard in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Unreachable(String),
    /// etcd answered, and said no.
    #[error("{0}")]
    Refused(String),
    /// etcd answered something that can't be right.
    #[error("{0}")]
    Malformed(String),
}

impl From<etcd_client::Error> for Cause {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            // etcd's own words begin so; all other statuses are made up on the way.
            etcd_client::Error::GRpcStatus(status) if status.message().starts_with("etcdserver: ") => {
                Self::Refused(status.message().to_owned())
            }
            etcd_client::Error::GRpcStatus(status) => {
                Self::Unreachable(with_sources(status.message(), status.source()))
            }
            etcd_client::Error::TransportError(error) => {
                Self::Unreachable(with_sources("transport error", error.source()))
            }
            etcd_client::Error::LeaseKeepAliveError(why) => Self::Refused(why),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// A text and the causes below it, without what is only said again.
fn with_sources(text: &str, mut source: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut whole = text.to_owned();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !whole.contains(&cause_text) {
            whole.push_str(": ");
            whole.push_str(&cause_text);
        }
        source = cause.source();
    }
    whole
}

/// Why an endpoint was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The endpoint's URL.
    pub endpoint: String,
    /// Why.
    pub why: String,
}

/// What went wrong in asking etcd something or doing something to it.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A file for TLS could not be read.
    #[error("reading {} for TLS with etcd", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client can't be made for an endpoint: the URL or the certificates are wrong.
    #[error("no client can be made for {endpoint}")]
    Endpoint {
        /// The endpoint's URL.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No endpoint gave a linearizable answer of the cluster that was asked for.
    #[error("no quorum answered: {}", reasons(passed_over))]
    NoQuorum {
        /// Every endpoint, and why it does not count.
        passed_over: Vec<PassedOver>,
    },
    /// A call failed. Where it was to change something, it may have.
    #[error("{operation} at {endpoint}")]
    Call {
        /// What was asked.
        operation: &'static str,
        /// Of whom.
        endpoint: String,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// A key of quorate's holds what it should not.
    #[error("etcd's key {key} is damaged: {found}")]
    Content {
        /// The key.
        key: String,
        /// What was found.
        found: String,
    },
    /// A value could not be turned into JSON.
    #[error("writing etcd's key {key} as JSON")]
    Encode {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another instance holds the lock on changes of membership.
    #[error("{holder} is changing the members")]
    LockHeld {
        /// Who holds it.
        holder: InstanceId,
    },
    /// The lock is not, or no more, this instance's: nothing was changed.
    #[error("{instance} does not hold the lock (holder: {})", name(holder.as_ref()))]
    LockLost {
        /// Who should hold it.
        instance: InstanceId,
        /// Who does.
        holder: Option<InstanceId>,
    },
    /// The learner has not received enough of the leader's log yet.
    #[error("member {member} is not in sync yet")]
    NotInSync {
        /// The learner.
        member: MemberId,
    },
    /// There is no such member.
    #[error("there is no member {member}")]
    NoSuchMember {
        /// The id asked for.
        member: MemberId,
    },
    /// A member that has run, or has a vote, is listed with that peer URL already.
    #[error("{peer_url} is another member's: {member}")]
    PeerUrlTaken {
        /// The URL.
        peer_url: String,
        /// Whose it is.
        member: MemberId,
    },
    /// etcd's copy of the charter is of a later generation than the one given.
    #[error("etcd holds the charter of generation {found}, which is later than {given}")]
    LaterCharter {
        /// The copy's generation.
        found: Generation,
        /// The given charter's generation.
        given: Generation,
    },
    /// etcd's copy of the charter is another cluster's.
    #[error("etcd holds the charter of cluster {found}, expected {given}")]
    ForeignCharter {
        /// The copy's cluster.
        found: ClusterUuid,
        /// The given charter's cluster.
        given: ClusterUuid,
    },
    /// A key changed between reading and writing: nothing was written.
    #[error("etcd's key {key} was changed by another at the same time")]
    Raced {
        /// The key.
        key: String,
    },
}

impl EtcdError {
    /// Whether the same call can succeed later without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoQuorum { .. }
            | Self::LockHeld { .. }
            | Self::LockLost { .. }
            | Self::NotInSync { .. }
            | Self::Raced { .. }
            | Self::TlsFile { .. } => true,
            Self::Call { source, .. } => match source {
                Cause::Silent(_) | Cause::Unreachable(_) => true,
                Cause::Refused(why) => TRANSIENT.iter().any(|transient| why.contains(transient)),
                Cause::Malformed(_) => false,
            },
            Self::Endpoint { .. }
            | Self::Content { .. }
            | Self::Encode { .. }
            | Self::NoSuchMember { .. }
            | Self::PeerUrlTaken { .. }
            | Self::LaterCharter { .. }
            | Self::ForeignCharter { .. } => false,
        }
    }
}

/// What etcd says when it means "not now".
/// Source: `api/v3rpc/rpctypes/error.go`, the errors with the code `Unavailable`, and those of a
/// cluster whose members are not all there.
const TRANSIENT: [&str; 10] = [
    "no leader",
    "leader changed",
    "not leader",
    "not capable",
    "server stopped",
    "request timed out",
    "unhealthy cluster",
    "not enough started members",
    "too many requests",
    "too many learner members",
];

fn reasons(passed_over: &[PassedOver]) -> String {
    if passed_over.is_empty() {
        return "no endpoint is known".to_owned();
    }
    let reasons: Vec<_> =
        passed_over.iter().map(|PassedOver { endpoint, why }| format!("{endpoint}: {why}")).collect();
    reasons.join("; ")
}

fn name(holder: Option<&InstanceId>) -> &str {
    holder.map_or("nobody", InstanceId::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(source: Cause) -> EtcdError {
        EtcdError::Call { operation: "adding a learner", endpoint: "https://10.0.0.1:2379".into(), source }
    }

    #[test]
    fn no_quorum_names_the_reason_of_every_endpoint() {
        let passed_over = |why: &str| PassedOver { endpoint: format!("https://{why}"), why: why.to_owned() };
        let error = EtcdError::NoQuorum { passed_over: vec![passed_over("a"), passed_over("b")] };
        assert_eq!(error.to_string(), "no quorum answered: https://a: a; https://b: b");
        let error = EtcdError::NoQuorum { passed_over: vec![] };
        assert_eq!(error.to_string(), "no quorum answered: no endpoint is known");
    }

    #[test]
    fn not_now_is_told_from_never() {
        let refused = |why: &str| call(Cause::Refused(format!("etcdserver: {why}")));
        for error in [
            call(Cause::Silent(Duration::from_secs(3))),
            call(Cause::Unreachable("connection refused".into())),
            refused("unhealthy cluster"),
            refused("re-configuration failed due to not enough started members"),
        ] {
            assert!(error.is_retryable(), "{error:?}");
        }
        for error in [
            call(Cause::Malformed("no header".into())),
            refused("given member URLs are invalid"),
            refused("mvcc: database space exceeded"),
        ] {
            assert!(!error.is_retryable(), "{error:?}");
        }
    }

    #[test]
    fn a_cause_is_printed_once() {
        let error = call(Cause::Refused("etcdserver: no leader".into()));
        assert_eq!(error.to_string(), "adding a learner at https://10.0.0.1:2379");
        assert_eq!(
            crate::model::fact::chain(&error),
            "adding a learner at https://10.0.0.1:2379: etcdserver: no leader"
        );
    }
}
