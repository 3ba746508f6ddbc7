//! What rendering starts from: plain values, the same for every slot, that somebody else found out.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::component::Component;
use super::version::KubernetesVersion;
use crate::config::settings::{ApiEndpoint, ComponentEndpoint, ImageName, KubernetesSettings};
use crate::model::ids::{ClusterName, InstanceId, Region, Zone};

/// The machine that the files are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id, which is also its name in Kubernetes.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Its region.
    pub region: Region,
    /// Its primary private address. A loopback address means that several machines share one host: then everything
    /// is served at that address only.
    pub address: Ipv4Addr,
    /// Its type, like `m7g.large`, where it is known.
    pub instance_type: Option<String>,
}

/// Digests of what each program reads only when it starts and that is not rendered by
/// [`control_plane`](super::control_plane): for the API server the encryption's configuration and the service
/// accounts' key, for the controller-manager that key and its kubeconfig, for the scheduler its kubeconfig. A changed
/// digest starts the program anew. Serving and client certificates are re-read while it runs and have no part in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartDigests {
    /// The API server's.
    pub api_server: String,
    /// The controller-manager's.
    pub controller_manager: String,
    /// The scheduler's.
    pub scheduler: String,
}

impl StartDigests {
    /// A component's.
    pub fn of(&self, component: Component) -> &str {
        match component {
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
            Component::Scheduler => &self.scheduler,
        }
    }
}

/// All that decides what a control-plane node's files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneInputs {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// What the operator wants.
    pub settings: KubernetesSettings,
    /// The version that runs; [`KubernetesSettings::version`] is for whoever finds it out.
    pub version: KubernetesVersion,
    /// The machine.
    pub node: Node,
    /// Where the API is reached from outside; [`KubernetesSettings::endpoint`] is for whoever finds it out.
    pub endpoint: ApiEndpoint,
    /// The client URLs of the etcd members to talk to: a node with a member names its own, another one all.
    pub etcd_endpoints: Vec<String>,
    /// Digests of what is read at start and not rendered here.
    pub digests: StartDigests,
}

impl ControlPlaneInputs {
    /// The address at which a program of this machine reaches another one.
    pub fn loopback(&self) -> Ipv4Addr {
        if self.node.address.is_loopback() { self.node.address } else { Ipv4Addr::LOCALHOST }
    }

    /// The URL of this machine's API server, for the kubelet, kube-proxy and people on this machine.
    pub fn local_server(&self) -> String {
        format!("https://{}:{}", self.loopback(), Component::ApiServer.port())
    }

    /// The URL of the API for controller-manager and scheduler, as the setting says.
    pub fn component_server(&self) -> String {
        match self.settings.component_endpoint {
            ComponentEndpoint::Local => self.local_server(),
            ComponentEndpoint::LoadBalancer => self.endpoint.url(),
        }
    }

    /// Who issues service accounts' tokens.
    pub fn issuer(&self) -> String {
        match &self.settings.service_account_issuer {
            Some(issuer) => issuer.to_string(),
            None => format!("https://kubernetes.default.svc.{}", self.settings.cluster_domain),
        }
    }

    /// The names and addresses that the API server's certificate is good for, each once: those of the machine, of
    /// the API's service, of the endpoint, and the operator's.
    pub fn api_server_names(&self) -> Vec<String> {
        let domain = &self.settings.cluster_domain;
        let mut names = vec![
            self.node.instance.to_string(),
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{domain}"),
            self.settings.service_subnet.api().to_string(),
            self.node.address.to_string(),
            self.loopback().to_string(),
            self.endpoint.host().to_owned(),
        ];
        names.extend(self.settings.extra_names.iter().map(ToString::to_string));
        let mut once: Vec<String> = Vec::new();
        for name in names {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        once
    }

    /// The image of a component.
    pub fn image(&self, component: Component) -> String {
        let set = match component {
            Component::ApiServer => &self.settings.api_server.additions.image,
            Component::ControllerManager => &self.settings.controller_manager.additions.image,
            Component::Scheduler => &self.settings.scheduler.additions.image,
        };
        let by_version =
            || format!("{}/{}:{}", self.settings.image_repository, component.name(), self.version.tag());
        set.as_ref().map_or_else(by_version, ImageName::to_string)
    }
}
