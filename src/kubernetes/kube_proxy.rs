//! kube-proxy of any node. On a control-plane node it asks the API server on its own machine, on a worker the load
//! balancer; on both with the kubelet's own identity, so that there is no second secret.
//!
//! What it does with connection tracking is left at its defaults, which grow with the CPUs, as kubeadm leaves it.

use serde_json::json;

use super::node::NodeInputs;
use super::{RenderError, paths, yaml};
use crate::model::Role;

/// The file at [`KUBE_PROXY_CONFIG`](paths::KUBE_PROXY_CONFIG). `nftables` is stable since 1.33.
pub(super) fn configuration(inputs: &NodeInputs) -> Result<String, RenderError> {
    let loopback = inputs.loopback();
    let kubeconfig = match inputs.role {
        Role::ControlPlane => paths::KUBELET_KUBECONFIG,
        Role::Worker => paths::KUBE_PROXY_KUBECONFIG,
    };
    let mut document = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "hostnameOverride": inputs.name,
        "metricsBindAddress": format!("{loopback}:10249"),
        "mode": if inputs.has_nftables() { "nftables" } else { "iptables" },
    });
    if let Some(pods) = inputs.settings.pod_subnet {
        document["clusterCIDR"] = json!(pods);
    }
    if inputs.shares_host() {
        document["healthzBindAddress"] = json!(format!("{loopback}:10256"));
    }
    yaml("kube-proxy's configuration", &document)
}

/// kube-proxy's flags.
pub fn arguments() -> Vec<String> {
    vec![format!("--config={}", paths::KUBE_PROXY_CONFIG)]
}
