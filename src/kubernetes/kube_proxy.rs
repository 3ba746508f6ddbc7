//! kube-proxy of a control-plane node: it asks the API server on its own machine, with the kubelet's own identity.

use serde_json::json;

use super::inputs::ControlPlaneInputs;
use super::{RenderError, paths, yaml};

/// The file at [`KUBE_PROXY_CONFIG`](paths::KUBE_PROXY_CONFIG). `nftables` is stable since 1.33.
pub(super) fn configuration(inputs: &ControlPlaneInputs) -> Result<String, RenderError> {
    let node = &inputs.node;
    let loopback = inputs.loopback();
    let mut document = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": paths::KUBELET_KUBECONFIG },
        "hostnameOverride": node.instance,
        "metricsBindAddress": format!("{loopback}:10249"),
        "mode": "nftables",
    });
    if let Some(pods) = inputs.settings.pod_subnet {
        document["clusterCIDR"] = json!(pods);
    }
    if node.address.is_loopback() {
        document["healthzBindAddress"] = json!(format!("{loopback}:10256"));
    }
    yaml("kube-proxy's configuration", &document)
}

/// kube-proxy's flags.
pub fn arguments() -> Vec<String> {
    vec![format!("--config={}", paths::KUBE_PROXY_CONFIG)]
}
