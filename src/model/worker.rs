//! A worker, and the cluster that it joins, as the worker sees them.
//!
//! A worker asks neither EC2, Auto Scaling nor a load balancer: it knows what it was told in S3, what lies on its
//! disk, and what the API says to its kubelet.

use serde::{Deserialize, Serialize};

use super::enrolment::{JoinTerms, NodeReadiness};
use super::fact::Fact;
use super::kubernetes::Readiness;
use super::names::ServerUrl;

/// What a worker was told that is no secret. It is kept on the machine, so that a worker that has joined needs
/// nothing of S3 when it boots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Told {
    /// The terms.
    pub terms: JoinTerms,
    /// The cluster's CA certificate, in PEM, of which the terms have the digest.
    pub certificate_authority: String,
}

/// What is published to workers, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedTold {
    /// What it tells.
    pub told: Told,
    /// The id of its bootstrap token.
    pub token: String,
    /// When the token ends, in milliseconds since 1970.
    pub token_ends: i64,
}

/// The client certificate that the kubelet was given, with its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCertificate {
    /// Whom it makes its owner: `system:node:NAME`.
    pub user: String,
    /// SHA-256, in hexadecimal, of the CA certificate in PEM that signed it, where that is one that this worker was
    /// told of; `None` when it is another one's.
    pub signed_by: Option<String>,
    /// The end of its validity, in milliseconds since 1970.
    pub not_after: i64,
}

/// How a kubeconfig on this machine leads to the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WayIn {
    /// Where the API is.
    pub server: ServerUrl,
    /// SHA-256, in hexadecimal, of the CA certificate in PEM that the server is trusted by.
    pub authority: String,
    /// Who goes there.
    pub credential: WayInCredential,
}

/// Who goes to the API by a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WayInCredential {
    /// Who holds the certificate that the kubelet renews.
    RotatingCertificate,
    /// A machine that joins.
    Token {
        /// The token's id.
        id: String,
        /// When the file was written, in milliseconds since 1970.
        written: i64,
    },
    /// Somebody else.
    Other,
}

/// This machine's node, as the API has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnNode {
    /// Its name.
    pub name: String,
    /// Whether it is heard, and ready.
    pub readiness: NodeReadiness,
    /// What its kubelet says of its readiness.
    pub said: Option<String>,
    /// Whether it is closed to new pods.
    pub cordoned: bool,
    /// Whether this agent has once closed it, be it open again by now.
    pub cordoned_here: bool,
}

/// What a worker sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerObservation {
    /// What is published to workers in S3.
    pub published: Fact<Option<PublishedTold>>,
    /// What this machine was told before.
    pub remembered: Fact<Option<Told>>,
    /// The kubelet's client certificate; `Known(None)` when it has none that can be read.
    pub certificate: Fact<Option<NodeCertificate>>,
    /// The kubelet's kubeconfig; `Known(None)` when there is none that can be read.
    pub kubeconfig: Fact<Option<WayIn>>,
    /// The kubeconfig that the kubelet joins with, likewise.
    pub bootstrap: Fact<Option<WayIn>>,
    /// What the API answers at the endpoint that this machine's files were last made for.
    pub api: Readiness,
    /// This machine's node; asked for when the kubelet has its certificate.
    pub node: Fact<Option<OwnNode>>,
}

impl WorkerObservation {
    /// Nothing is known.
    pub fn unknown(why: &str) -> Self {
        Self {
            published: Fact::unknown(why),
            remembered: Fact::unknown(why),
            certificate: Fact::unknown(why),
            kubeconfig: Fact::unknown(why),
            bootstrap: Fact::unknown(why),
            api: Readiness::NotReady(why.to_owned()),
            node: Fact::unknown(why),
        }
    }
}
