//! The kubelet of any node: its configuration, and the few things that only flags can say.
//!
//! What is not written here is left at the kubelet's default on purpose, after a look at what kubeadm and EKS' nodeadm
//! set: `readOnlyPort` (0), `containerLogMaxSize` and `-Files` (10Mi, 5), `failSwapOn` (true) and the cipher suites.
//! nodeadm's `protectKernelDefaults` would have the image set sysctls that the kubelet sets itself.

use serde_json::{Value, json};

use super::drop_ins::{DropInError, DropInErrors, Effective, merge};
use super::node::NodeInputs;
use super::version::KubernetesVersion;
use super::{Owner, RenderError, RenderedFile, file, paths, reserved, static_pods, yaml};
use crate::config::settings::TimeSpan;
use crate::model::Role;
use crate::model::departure::HOLD_MS;

/// How long a control-plane node's pods that are not critical may take to end when the machine shuts down.
const BESIDE_THE_CONTROL_PLANE_MS: u64 = 30_000;
/// How long a worker's may take, and then the critical ones. Source: `withVersionToggles` in nodeadm.
const WORKERS_PODS_MS: (u64, u64) = (120_000, 30_000);

/// How long the machine's shutdown waits for pods, and how much of it is for the critical ones: on a control-plane
/// node, as long as the API server takes to end.
fn grace_periods(inputs: &NodeInputs) -> (TimeSpan, TimeSpan) {
    let (ordinary, critical) = match inputs.role {
        Role::ControlPlane => {
            let api_server = static_pods::api_server_grace_period(&inputs.settings).unsigned_abs() * 1000;
            (BESIDE_THE_CONTROL_PLANE_MS, api_server)
        }
        Role::Worker => WORKERS_PODS_MS,
    };
    (TimeSpan::from_millis(ordinary + critical), TimeSpan::from_millis(critical))
}

/// How long the machine's shutdown waits for pods, with the operator's drop-ins: logind's `InhibitDelayMaxSec` must be
/// as long.
///
/// # Errors
/// Those of [`effective`], and a drop-in with a period that is no duration.
pub fn shutdown_grace_period(inputs: &NodeInputs) -> Result<TimeSpan, RenderError> {
    const FIELD: &str = "shutdownGracePeriod";
    let effective = effective(inputs)?;
    match effective.document.get(FIELD) {
        // The kubelet's default: nothing is waited for.
        None => Ok(TimeSpan::from_millis(0)),
        Some(period) => period.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let path = effective.origin(FIELD).unwrap_or_default().to_owned();
            let expected = "a duration, like `2m30s`";
            RenderError::DropIns(DropInErrors(vec![DropInError::Value { path, field: FIELD, expected }]))
        }),
    }
}

/// How long logind is to let a shutdown wait: for the kubelet, and for the agent of a control-plane machine, which hands
/// etcd's leadership over.
///
/// # Errors
/// Those of [`shutdown_grace_period`].
pub fn shutdown_delay(inputs: &NodeInputs) -> Result<TimeSpan, RenderError> {
    let pods = shutdown_grace_period(inputs)?;
    Ok(match inputs.role {
        Role::ControlPlane => pods.max(TimeSpan::from_millis(HOLD_MS)),
        Role::Worker => pods,
    })
}

/// logind's file on a machine of etcd alone.
pub fn logind_of_etcd_alone() -> RenderedFile {
    file(
        paths::LOGIND,
        Owner::Root,
        logind_file("As long as quorate may hand etcd's leadership over.", HOLD_MS),
    )
}

/// The configuration with the operator's drop-ins, and where each value comes from.
///
/// # Errors
/// The number of pods is not known, or a drop-in is wrong.
pub fn effective(inputs: &NodeInputs) -> Result<Effective, RenderError> {
    let own = own(inputs)?;
    merge(own, &inputs.drop_ins, inputs.version).map_err(RenderError::DropIns)
}

/// The file at [`KUBELET_CONFIG`](paths::KUBELET_CONFIG).
///
/// # Errors
/// Those of [`effective`].
pub fn configuration(inputs: &NodeInputs) -> Result<String, RenderError> {
    let effective = effective(inputs)?;
    let text = yaml("the kubelet's configuration", &effective.document)?;
    Ok(effective.head() + &text)
}

fn own(inputs: &NodeInputs) -> Result<Value, RenderError> {
    let max_pods = inputs.max_pods()?;
    let (grace_period, critical) = grace_periods(inputs);
    let mut document = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": paths::CA },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "systemd",
        "clusterDNS": [inputs.settings.service_subnet.dns().to_string()],
        "clusterDomain": inputs.settings.cluster_domain,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "evictionHard": reserved::eviction_hard(),
        "kubeReserved": reserved::kube_reserved(&inputs.machine, max_pods),
        "maxPods": max_pods,
        "providerID": inputs.provider_id(),
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "shutdownGracePeriod": grace_period.to_string(),
        "shutdownGracePeriodCriticalPods": critical.to_string(),
        "tlsMinVersion": "VersionTLS13",
    });
    let taints = inputs.taints();
    if !taints.is_empty() {
        document["registerWithTaints"] = json!(taints);
    }
    if let Some(reserved) = reserved::system_reserved(inputs.role) {
        document["systemReserved"] = reserved;
    }
    if inputs.role == Role::ControlPlane {
        document["staticPodPath"] = json!(paths::MANIFESTS);
    }
    if inputs.shares_host() {
        document["address"] = json!(inputs.address);
        document["healthzBindAddress"] = json!(inputs.address);
    }
    for (field, value) in by_version(inputs.version) {
        document[field] = value;
    }
    Ok(document)
}

/// The fields that only some versions need.
fn by_version(version: KubernetesVersion) -> Vec<(&'static str, Value)> {
    if version.asks_for_cgroup_v2() { vec![("failCgroupV1", json!(true))] } else { Vec::new() }
}

/// The kubelet's flags: what its configuration can't say. None of them is deprecated.
pub fn arguments(inputs: &NodeInputs) -> Vec<String> {
    let labels: Vec<String> = inputs.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut arguments = vec![
        format!("--config={}", paths::KUBELET_CONFIG),
        format!("--hostname-override={}", inputs.name),
        format!("--kubeconfig={}", paths::KUBELET_KUBECONFIG),
        format!("--node-ip={}", inputs.address),
        format!("--node-labels={}", labels.join(",")),
    ];
    if inputs.role == Role::Worker {
        arguments.push(format!("--bootstrap-kubeconfig={}", paths::BOOTSTRAP_KUBECONFIG));
    }
    if let Some(dir) = &inputs.machine.ecr_credential_provider {
        arguments.push(format!("--image-credential-provider-bin-dir={dir}"));
        arguments.push(format!("--image-credential-provider-config={}", paths::IMAGE_CREDENTIAL_PROVIDERS));
    }
    arguments.sort();
    arguments
}

/// The file at [`IMAGE_CREDENTIAL_PROVIDERS`](paths::IMAGE_CREDENTIAL_PROVIDERS): images of ECR are pulled with the
/// machine's own role. Source: `image-credential-provider.go` in nodeadm.
pub(super) fn image_credential_providers() -> Result<String, RenderError> {
    let document = json!({
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "defaultCacheDuration": "12h",
            "matchImages": [
                "*.dkr.ecr.*.amazonaws.com",
                "*.dkr-ecr.*.on.aws",
                "*.dkr.ecr.*.amazonaws.com.cn",
                "*.dkr-ecr.*.on.amazonwebservices.com.cn",
                "*.dkr.ecr-fips.*.amazonaws.com",
                "*.dkr-ecr-fips.*.on.aws",
                "*.dkr.ecr.*.c2s.ic.gov",
                "*.dkr.ecr.*.sc2s.sgov.gov",
                "*.dkr.ecr.*.cloud.adc-e.uk",
                "*.dkr.ecr.*.csp.hci.ic.gov",
                "*.dkr.ecr.*.amazonaws.eu",
                "public.ecr.aws",
                "ecr-public.aws.com",
            ],
            "name": paths::ECR_CREDENTIAL_PROVIDER,
        }],
    });
    yaml("the image credential providers' configuration", &document)
}

/// The file at [`LOGIND`](paths::LOGIND): the kubelet holds the machine's shutdown back for so long, and logind lets
/// nobody hold it back for longer. Source: "Graceful node shutdown", Kubernetes' documentation; logind.conf(5).
pub(super) fn logind(inputs: &NodeInputs) -> Result<String, RenderError> {
    Ok(logind_file("As long as the kubelet's shutdownGracePeriod.", shutdown_delay(inputs)?.as_millis()))
}

fn logind_file(why: &str, delay_ms: u64) -> String {
    format!("# {why}\n[Login]\nInhibitDelayMaxSec={}\n", delay_ms.div_ceil(1000))
}
