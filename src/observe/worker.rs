//! What only a worker sees: what it was told in S3, the kubelet's identity on its disk, and what the API says to it.
//!
//! Neither EC2 nor Auto Scaling nor a load balancer is asked anything. What is published is one small object, read once
//! while a machine joins and every few minutes afterwards.

use std::time::UNIX_EPOCH;

use tokio::time::{Duration, Instant, timeout};

use crate::cluster_api::ApiClient;
use crate::config::settings::ApiEndpoint;
use crate::host::{clock, files, https, logind};
use crate::kubernetes::join::{BootstrapToken, Join, read_told};
use crate::kubernetes::kubeconfig::{self, FoundCredential};
use crate::kubernetes::{digest, paths};
use crate::model::Fact;
use crate::model::enrolment::{NODE_USER, NodeReadiness};
use crate::model::fact::chain;
use crate::model::kubernetes::{KubernetesObservation, Readiness};
use crate::model::worker::{
    NodeCertificate, OwnNode, PublishedTold, Told, WayIn, WayInCredential, WorkerObservation,
};
use crate::pki::node_identity::NodeIdentity;
use crate::reach::{JOIN, Reach};

use super::api::in_time;
use super::kubernetes::{containerd, node, services, version, written};
use super::{Depth, Memory};

/// What is published is read again so often while a machine joins, or has lost the API.
const PUBLISHED_FOR: Duration = Duration::from_mins(1);
/// The same while its API answers.
const PUBLISHED_FOR_A_NODE: Duration = Duration::from_mins(5);
/// A node that is ready is looked at again so often.
const READY_FOR: Duration = Duration::from_secs(30);
/// How long the API is waited for.
const ASK: Duration = Duration::from_secs(5);

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    published: Option<(Instant, PublishedTold)>,
    ready: Option<(Instant, OwnNode)>,
    /// Whether the API answered the last time.
    answered: bool,
}

/// Looks at everything.
pub(super) async fn look(reach: &Reach, memory: &mut Memory) -> KubernetesObservation {
    let remembered_endpoint = reach.last_endpoint().into();
    // What is asked over the network comes first: it is under way while programs are started and files are read.
    let (node, worker, version, containerd, services, logind) = tokio::join!(
        node(reach, &mut memory.instance),
        standing(reach, &mut memory.worker, &remembered_endpoint, Depth::Full),
        version(reach),
        containerd(reach),
        services(reach),
        logind::observe(&reach.root),
    );
    let files = written(reach, paths::WORKER_RENDERED.into_iter().chain([paths::TOLD]));
    let mut seen = KubernetesObservation {
        version,
        node,
        files,
        containerd,
        services,
        logind: logind.into(),
        remembered_endpoint,
        worker,
        ..KubernetesObservation::unknown("not asked for: this machine is a worker")
    };
    seen.components.clear();
    seen
}

/// Looks again at what changes from moment to moment.
pub(super) async fn again(
    reach: &Reach,
    memory: &mut Memory,
    mut seen: KubernetesObservation,
) -> KubernetesObservation {
    seen.services = services(reach).await;
    seen.worker = standing(reach, &mut memory.worker, &seen.remembered_endpoint, Depth::Light).await;
    seen
}

async fn standing(
    reach: &Reach,
    memory: &mut Remembered,
    endpoint: &Fact<Option<ApiEndpoint>>,
    depth: Depth,
) -> WorkerObservation {
    let identity = identity(reach);
    let has_joined = matches!(identity, Fact::Known(Some(_)));
    let bootstrap = way_in(reach, paths::BOOTSTRAP_KUBECONFIG);
    let published = published(reach, memory, has_joined, &bootstrap, depth).await;
    let remembered = remembered(reach);
    let mut authorities: Vec<&Told> = Vec::new();
    authorities.extend(published.known().into_iter().flatten().map(|published| &published.told));
    authorities.extend(remembered.known().into_iter().flatten());
    let certificate = match &identity {
        Fact::Known(Some(identity)) => certificate(identity, &authorities),
        Fact::Known(None) => Fact::Known(None),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    };
    let kubeconfig = way_in(reach, paths::KUBELET_KUBECONFIG);
    let node = match (&identity, &kubeconfig) {
        (Fact::Known(Some(identity)), Fact::Known(Some(way))) => {
            // By the authority that the kubelet itself trusts the API by.
            match authorities.iter().find(|told| told.terms.authority == way.authority) {
                Some(told) => own_node(memory, identity, way, told).await,
                None => {
                    Fact::unknown("not asked for: the kubelet trusts an authority that is not known here")
                }
            }
        }
        _ => Fact::unknown("not asked for: the kubelet has no way to the API yet"),
    };
    memory.answered = node.is_known();
    let api = match (&node, endpoint) {
        (Fact::Known(_), _) => Readiness::Ready,
        (Fact::Unknown(_), Fact::Known(Some(endpoint))) => readiness(reach, endpoint).await,
        (Fact::Unknown(_), Fact::Known(None)) => Readiness::NotReady("not asked for yet".to_owned()),
        (Fact::Unknown(_), Fact::Unknown(why)) => Readiness::NotReady(why.clone()),
    };
    WorkerObservation { published, remembered, certificate, kubeconfig, bootstrap, api, node }
}

/// What this machine was told before.
pub(super) fn remembered(reach: &Reach) -> Fact<Option<Told>> {
    Fact::from(files::read_optional(&reach.root.path(paths::TOLD)))
        .map(|found| found.and_then(|bytes| read_told(&bytes, &reach.settings.cluster)))
}

/// What is published to workers. What can't be used is not known: the text says what is wrong with it.
async fn published(
    reach: &Reach,
    memory: &mut Remembered,
    has_joined: bool,
    bootstrap: &Fact<Option<WayIn>>,
    depth: Depth,
) -> Fact<Option<PublishedTold>> {
    if let Some((at, told)) = &memory.published {
        let keep = keep(told, has_joined, memory.answered, bootstrap);
        let good = has_joined || clock::now_ms() < told.token_ends;
        if depth == Depth::Light || (good && keep.is_none_or(|keep| at.elapsed() < keep)) {
            return Fact::Known(Some(told.clone()));
        }
    }
    let stored = match reach.aws.objects.get(JOIN).await {
        Ok(Some(stored)) => stored,
        Ok(None) => {
            memory.published = None;
            return Fact::Known(None);
        }
        Err(error) => return Err(error).into(),
    };
    match Join::parse(&stored.bytes, &reach.settings.cluster) {
        Ok(join) => {
            let told = join.told();
            memory.published = Some((Instant::now(), told.clone()));
            reach.keep_join(join);
            Fact::Known(Some(told))
        }
        Err(error) => Fact::unknown(format!("{}: {}", reach.aws.objects.url(JOIN), chain(&error))),
    }
}

/// How long what was read is used; `None` for as long as its token is good: of a thousand machines that boot at once, in
/// minutes, none reads again what it has not come to try.
fn keep(
    told: &PublishedTold,
    has_joined: bool,
    answered: bool,
    bootstrap: &Fact<Option<WayIn>>,
) -> Option<Duration> {
    if has_joined {
        return Some(if answered { PUBLISHED_FOR_A_NODE } else { PUBLISHED_FOR });
    }
    let tried = match bootstrap {
        Fact::Known(Some(WayIn { credential: WayInCredential::Token { id, .. }, .. })) => *id == told.token,
        Fact::Known(_) => false,
        Fact::Unknown(_) => true,
    };
    tried.then_some(PUBLISHED_FOR)
}

/// The kubelet's identity; `Known(None)` when it has none that can be read, which it makes anew.
fn identity(reach: &Reach) -> Fact<Option<NodeIdentity>> {
    let path = reach.root.path(paths::KUBELET_ROTATING_CERTIFICATE);
    Fact::from(files::read_optional(&path)).map(|found| {
        let read = NodeIdentity::read(&found?);
        read.inspect_err(|error| {
            tracing::warn!(path = %path.display(), why = chain(error), "the kubelet's certificate can't be read");
        })
        .ok()
    })
}

fn certificate(identity: &NodeIdentity, authorities: &[&Told]) -> Fact<Option<NodeCertificate>> {
    let signed_by = authorities
        .iter()
        .find(|told| identity.is_signed_by(&told.certificate_authority))
        .map(|told| told.terms.authority.clone());
    match (identity.user(), identity.not_after()) {
        (Ok(user), Ok(not_after)) => Fact::Known(Some(NodeCertificate { user, signed_by, not_after })),
        (Err(error), _) | (_, Err(error)) => Fact::unknown(chain(&error)),
    }
}

/// Where a kubeconfig leads; `Known(None)` when there is none, or none that can be read: it is written anew.
fn way_in(reach: &Reach, path: &str) -> Fact<Option<WayIn>> {
    let file = reach.root.path(path);
    Fact::from(files::read_optional(&file)).map(|found| {
        let found = kubeconfig::read(&String::from_utf8(found?).ok()?).ok()?;
        let credential = match found.credential {
            FoundCredential::Files { certificate, key }
                if certificate == paths::KUBELET_ROTATING_CERTIFICATE && key == certificate =>
            {
                WayInCredential::RotatingCertificate
            }
            FoundCredential::Token(token) => match BootstrapToken::parse(token.expose()) {
                Ok(token) => {
                    WayInCredential::Token { id: token.id().to_owned(), written: written_at(&file)? }
                }
                Err(_) => WayInCredential::Other,
            },
            FoundCredential::Files { .. } | FoundCredential::Embedded { .. } => WayInCredential::Other,
        };
        Some(WayIn { server: found.server, authority: digest(found.authority.as_bytes()), credential })
    })
}

/// When a file was written, in milliseconds since 1970.
fn written_at(path: &std::path::Path) -> Option<i64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// This machine's node, asked for as the kubelet.
async fn own_node(
    memory: &mut Remembered,
    identity: &NodeIdentity,
    way: &WayIn,
    told: &Told,
) -> Fact<Option<OwnNode>> {
    if let Some((at, node)) = &memory.ready
        && at.elapsed() < READY_FOR
    {
        return Fact::Known(Some(node.clone()));
    }
    memory.ready = None;
    let user = match identity.user() {
        Ok(user) => user,
        Err(error) => return Fact::unknown(chain(&error)),
    };
    let Some(name) = user.strip_prefix(NODE_USER) else {
        return Fact::unknown(format!("the kubelet's certificate is {user:?}'s, which is no node"));
    };
    let api = match ApiClient::as_node(&way.server, &told.certificate_authority, identity) {
        Ok(api) => api,
        Err(error) => return Fact::unknown(chain(&error)),
    };
    let found = in_time(ASK, api.own_node(name)).await;
    if let Fact::Known(Some(node)) = &found
        && node.readiness == NodeReadiness::Ready
    {
        memory.ready = Some((Instant::now(), node.clone()));
    }
    found
}

/// Whether an API server answers at the endpoint, and shows a certificate of the cluster's.
async fn readiness(reach: &Reach, endpoint: &ApiEndpoint) -> Readiness {
    let url = format!("{}/readyz", endpoint.url());
    match timeout(ASK, https::ask(&url, Some(&reach.root.path(paths::CA)))).await {
        Ok(Ok(answer)) if answer.is_success() => Readiness::Ready,
        Ok(Ok(answer)) => Readiness::NotReady(answer.told()),
        Ok(Err(error)) => Readiness::NotReady(chain(&error)),
        Err(_) => Readiness::NotReady(format!("no answer within {} s", ASK.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::enrolment::JoinTerms;

    fn told(token: &str) -> PublishedTold {
        let terms = JoinTerms {
            cluster: "demo".parse().unwrap(),
            kubernetes_version: "v1.36.2".parse().unwrap(),
            endpoint: "api.example.com:6443".parse().unwrap(),
            authority: String::new(),
            service_subnet: "10.96.0.0/12".parse().unwrap(),
            pod_subnet: None,
            cluster_domain: "cluster.local".parse().unwrap(),
        };
        let told = Told { terms, certificate_authority: String::new() };
        PublishedTold { told, token: token.to_owned(), token_ends: 0 }
    }

    fn way(credential: WayInCredential) -> Fact<Option<WayIn>> {
        let server = "https://api.example.com:6443".parse().unwrap();
        Fact::Known(Some(WayIn { server, authority: String::new(), credential }))
    }

    #[test]
    fn what_is_published_is_read_again_only_when_it_was_tried() {
        let token = |id: &str| way(WayInCredential::Token { id: id.to_owned(), written: 0 });
        let joins = |bootstrap: Fact<Option<WayIn>>| keep(&told("new"), false, false, &bootstrap);
        assert_eq!(joins(Fact::Known(None)), None);
        assert_eq!(joins(token("old")), None);
        assert_eq!(joins(way(WayInCredential::Other)), None);
        assert_eq!(joins(token("new")), Some(PUBLISHED_FOR));
        assert_eq!(joins(Fact::unknown("the disk")), Some(PUBLISHED_FOR));
        let joined = |answered| keep(&told("new"), true, answered, &Fact::Known(None));
        assert_eq!((joined(true), joined(false)), (Some(PUBLISHED_FOR_A_NODE), Some(PUBLISHED_FOR)));
    }
}
