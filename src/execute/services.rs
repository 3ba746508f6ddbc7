//! Does the steps of the services other than etcd, and of containerd's configuration.

use std::time::Duration;

use super::StepError;
use crate::host::clock;
use crate::host::containerd::Containerd;
use crate::host::service::Service;
use crate::kubernetes::containerd::configuration;
use crate::model::containerd::ContainerdVersion;
use crate::model::{ServiceLaunch, ServiceName};
use crate::reach::Reach;

/// How long a service may take to end before it is killed, where systemd does not decide it.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn configure_containerd(reach: &Reach, version: ContainerdVersion) -> Result<(), StepError> {
    let text = configuration(version, &reach.settings.kubernetes.image_repository);
    Ok(Containerd::of(&reach.root).configure(&text)?)
}

pub(super) async fn start(
    reach: &Reach,
    service: ServiceName,
    launch: &ServiceLaunch,
) -> Result<(), StepError> {
    Ok(found(reach, service)?.start_with(launch, clock::now_ms()).await?)
}

/// One that has ended in the meantime is left for the next look.
pub(super) async fn restart(
    reach: &Reach,
    service: ServiceName,
    launch: &ServiceLaunch,
) -> Result<(), StepError> {
    let restarted = found(reach, service)?.restart_with(launch, STOP_PATIENCE, clock::now_ms()).await?;
    if !restarted {
        tracing::info!(%service, "a service that was to be restarted does not run");
    }
    Ok(())
}

pub(super) async fn stop(reach: &Reach, service: ServiceName) -> Result<(), StepError> {
    Ok(found(reach, service)?.stop(STOP_PATIENCE).await?)
}

/// Any but etcd: what it starts on is looked at before it is started.
fn found(reach: &Reach, service: ServiceName) -> Result<Service, StepError> {
    match service {
        ServiceName::Etcd => Err(StepError::NotThisWay { service }),
        ServiceName::Containerd | ServiceName::Kubelet | ServiceName::KubeProxy => {
            Ok(Service::of(&reach.root, service))
        }
    }
}
