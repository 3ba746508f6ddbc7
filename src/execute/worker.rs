//! Does the steps that only a worker has.

use super::{StepError, must_be_expected};
use crate::host::{clock, files};
use crate::kubernetes::join::Join;
use crate::kubernetes::kubeconfig::{Credential, Kubeconfig};
use crate::kubernetes::{digest, paths};
use crate::model::names::ServerUrl;
use crate::reach::{JOIN, Reach};

/// Writes the kubeconfig that the kubelet joins with. The token is the one that was decided on, or nothing is written.
pub(super) async fn write_bootstrap(
    reach: &Reach,
    token: &str,
    server: &ServerUrl,
    authority: &str,
) -> Result<(), StepError> {
    let join = match reach.kept_join(token) {
        Some(join) => join,
        None => published(reach).await?,
    };
    if join.token.id() != token {
        return Err(StepError::Overtaken);
    }
    must_be_expected(JOIN, digest(join.certificate_authority.as_bytes()), authority)?;
    let whole = join.token.whole();
    let kubeconfig = Kubeconfig {
        cluster: reach.settings.cluster.as_str(),
        user: "kubelet-bootstrap",
        server,
        authority: &join.certificate_authority,
        credential: Credential::Token(&whole),
    };
    let path = paths::BOOTSTRAP_KUBECONFIG;
    let text = kubeconfig.render().map_err(|source| StepError::Kubeconfig { path, source })?;
    Ok(files::write_durably(&reach.root.path(path), text.expose().as_bytes(), paths::SECRET)?)
}

async fn published(reach: &Reach) -> Result<Join, StepError> {
    let stored = reach.aws.objects.get(JOIN).await?.ok_or(StepError::NoJoin { key: JOIN })?;
    Join::parse(&stored.bytes, &reach.settings.cluster)
        .map_err(|source| StepError::Join { key: JOIN, source })
}

/// Renames the kubelet's keys and certificates aside.
pub(super) fn set_identity_aside(reach: &Reach, because: &str) -> Result<(), StepError> {
    let dir = reach.root.path(paths::KUBELET_PKI);
    if files::list_optional(&dir)?.is_none() {
        return Ok(());
    }
    let aside = files::rename_aside(&dir, because, clock::now_ms())?;
    tracing::warn!(to = %aside.display(), because, "set the kubelet's keys and certificates aside");
    Ok(())
}
