//! Does the steps for machines that become nodes.

use super::StepError;
use super::kubernetes::api;
use crate::host::{clock, files};
use crate::kubernetes::join::{BootstrapToken, Join};
use crate::kubernetes::{digest, paths};
use crate::model::enrolment::JoinTerms;
use crate::model::fact::chain;
use crate::model::step::{GoneNode, PendingRequest, RequestRef};
use crate::pki;
use crate::reach::{JOIN, Reach};

/// Makes a token, and publishes it once the API takes it. Cut off in between, the token is nobody's and
/// ends by itself.
pub(super) async fn publish(reach: &Reach, terms: &JoinTerms, life_s: i64) -> Result<(), StepError> {
    let authority = files::read_optional(&reach.root.path(paths::CA))?;
    let authority = authority.ok_or(StepError::NoCertificate { path: paths::CA })?;
    let found = digest(&authority);
    if found != terms.authority {
        return Err(StepError::OtherAuthority { key: paths::CA, found, expected: terms.authority.clone() });
    }
    let token = BootstrapToken::of_random(&pki::random::<128>()?).ok_or(StepError::NoToken)?;
    let token_ends = clock::now_ms().saturating_add(life_s.saturating_mul(1000));
    api(reach).await?.create_token(&token, token_ends).await?;
    let certificate_authority = String::from_utf8_lossy(&authority).into_owned();
    let join = Join { terms: terms.clone(), certificate_authority, token, token_ends };
    reach.aws.objects.put(JOIN, join.bytes().map_err(StepError::Json)?).await?;
    tracing::info!(token = join.token.id(), ends = token_ends, "published to workers how they join");
    Ok(())
}

/// Approves the requests; one that fails does not stop the others.
pub(super) async fn approve(reach: &Reach, requests: &[RequestRef]) -> Result<(), StepError> {
    let api = api(reach).await?;
    let mut first = Ok(());
    for request in requests {
        match api.approve(request, clock::now_ms()).await {
            Ok(true) => tracing::info!(request = request.name, "approved a node's certificate"),
            Ok(false) => tracing::info!(request = request.name, "a request changed since it was judged"),
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => tracing::warn!(why = chain(&error), "a request was not approved"),
        }
    }
    Ok(first?)
}

pub(super) async fn leave(reach: &Reach, requests: &[PendingRequest]) -> Result<(), StepError> {
    let api = api(reach).await?;
    for pending in requests {
        tracing::warn!(request = pending.request.name, why = pending.why, "left a request pending");
        api.leave(pending, clock::now_ms()).await?;
    }
    Ok(())
}

pub(super) async fn tell_shared_zone(reach: &Reach, message: &str) -> Result<(), StepError> {
    Ok(api(reach).await?.tell_shared_zone(message, clock::now_ms()).await?)
}

pub(super) async fn delete_node(reach: &Reach, node: &GoneNode) -> Result<(), StepError> {
    api(reach).await?.delete_node(node).await?;
    tracing::info!(node = node.name, instance = %node.instance, "deleted the node of an instance that is gone");
    Ok(())
}
