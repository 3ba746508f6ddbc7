//! The kubelet of a control-plane node: its configuration, and the few things that only flags can say.

use serde_json::{Value, json};

use super::inputs::ControlPlaneInputs;
use super::version::KubernetesVersion;
use super::{RenderError, paths, static_pods, yaml};
use crate::config::settings::TimeSpan;

/// The taint of control-plane nodes.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// How long pods that are not critical may take to end when the machine shuts down, in milliseconds.
const ORDINARY_PODS_MS: u64 = 30_000;

/// How long the machine's shutdown waits for pods: logind's `InhibitDelayMaxSec` must be as long.
pub fn shutdown_grace_period(inputs: &ControlPlaneInputs) -> TimeSpan {
    TimeSpan::from_millis(critical_grace_period(inputs).as_millis() + ORDINARY_PODS_MS)
}

/// How much of it is for the control plane's own pods: as long as the API server takes to end.
fn critical_grace_period(inputs: &ControlPlaneInputs) -> TimeSpan {
    TimeSpan::from_millis(static_pods::api_server_grace_period(inputs).unsigned_abs() * 1000)
}

/// The file at [`KUBELET_CONFIG`](paths::KUBELET_CONFIG).
///
/// What depends on the machine's size (pods, reserved memory, eviction) is left at the kubelet's defaults.
pub(super) fn configuration(inputs: &ControlPlaneInputs) -> Result<String, RenderError> {
    let node = &inputs.node;
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
        "providerID": format!("aws:///{}/{}", node.zone, node.instance),
        "registerWithTaints": [{ "effect": "NoSchedule", "key": CONTROL_PLANE_TAINT }],
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "shutdownGracePeriod": shutdown_grace_period(inputs).to_string(),
        "shutdownGracePeriodCriticalPods": critical_grace_period(inputs).to_string(),
        "staticPodPath": paths::MANIFESTS,
        "tlsMinVersion": "VersionTLS13",
    });
    if node.address.is_loopback() {
        document["address"] = json!(node.address);
        document["healthzBindAddress"] = json!(node.address);
    }
    for (field, value) in by_version(inputs.version) {
        document[field] = value;
    }
    yaml("the kubelet's configuration", &document)
}

/// The fields that only some versions need.
fn by_version(version: KubernetesVersion) -> Vec<(&'static str, Value)> {
    if version.asks_for_cgroup_v2() { vec![("failCgroupV1", json!(true))] } else { Vec::new() }
}

/// The kubelet's flags: what its configuration can't say. None of them is deprecated.
///
/// The role's label is not among them: a kubelet may not give itself one in `node-role.kubernetes.io`.
pub fn arguments(inputs: &ControlPlaneInputs) -> Vec<String> {
    let node = &inputs.node;
    let mut labels = vec![
        "node.kubernetes.io/exclude-from-external-load-balancers=".to_owned(),
        format!("topology.kubernetes.io/region={}", node.region),
        format!("topology.kubernetes.io/zone={}", node.zone),
    ];
    labels.extend(node.instance_type.iter().map(|kind| format!("node.kubernetes.io/instance-type={kind}")));
    labels.sort();
    vec![
        format!("--config={}", paths::KUBELET_CONFIG),
        format!("--hostname-override={}", node.instance),
        format!("--kubeconfig={}", paths::KUBELET_KUBECONFIG),
        format!("--node-ip={}", node.address),
        format!("--node-labels={}", labels.join(",")),
    ]
}
