//! What rendering starts from: plain values, the same for every slot, that somebody else found out. What is every
//! node's is in [`super::node`].

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::component::Component;
use super::node::NodeInputs;
use crate::config::settings::{ApiEndpoint, ComponentEndpoint, ImageName};
use crate::model::Generation;
use crate::model::names::{ClusterLeafRequest, NotAHostName, NotAServerUrl, ServerUrl};

/// All that decides what a control-plane node's files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneInputs {
    /// The node.
    pub node: NodeInputs,
    /// Where the API is reached from outside; [`KubernetesSettings::endpoint`] is for whoever finds it out.
    ///
    /// [`KubernetesSettings::endpoint`]: crate::config::settings::KubernetesSettings::endpoint
    pub endpoint: ApiEndpoint,
    /// The client URLs of the etcd members to talk to: a node with a member names its own, another one all.
    pub etcd_endpoints: Vec<String>,
    /// The fingerprint of the cluster's authorities and keys, which the programs read when they start. Certificates are
    /// read again while they run and have no part in it.
    pub authorities: String,
    /// The generation, where etcd's data were restored: the programs start anew with it, since what they remember is of the
    /// cluster that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Generation>,
}

/// All that decides what a worker's files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInputs {
    /// The node.
    pub node: NodeInputs,
    /// Where the API is reached.
    pub endpoint: ApiEndpoint,
    /// The cluster's CA certificate, in PEM.
    pub authority: String,
}

impl WorkerInputs {
    /// The URL of the API, for kubelet and kube-proxy.
    ///
    /// # Errors
    /// An endpoint that is none, which the settings' own rules should have refused.
    pub fn server(&self) -> Result<ServerUrl, NotAServerUrl> {
        self.endpoint.url().parse()
    }
}

/// The address at which programs of the machine with this address reach each other: a machine whose own address is a
/// loopback one shares a host with others, and has nothing but that.
pub fn loopback_of(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_loopback() { address } else { Ipv4Addr::LOCALHOST }
}

impl ControlPlaneInputs {
    /// The address at which a program of this machine reaches another one.
    pub fn loopback(&self) -> Ipv4Addr {
        self.node.loopback()
    }

    /// The URL of this machine's API server, for the kubelet, kube-proxy and people on this machine.
    pub fn local_server(&self) -> String {
        format!("https://{}:{}", self.loopback(), Component::ApiServer.port())
    }

    /// The URL of the API for controller-manager and scheduler, as the setting says.
    pub fn component_server(&self) -> String {
        match self.node.settings.component_endpoint {
            ComponentEndpoint::Local => self.local_server(),
            ComponentEndpoint::LoadBalancer => self.endpoint.url(),
        }
    }

    /// Who issues service accounts' tokens.
    pub fn issuer(&self) -> String {
        match &self.node.settings.service_account_issuer {
            Some(issuer) => issuer.to_string(),
            None => format!("https://kubernetes.default.svc.{}", self.node.settings.cluster_domain),
        }
    }

    /// What the leaves and kubeconfigs of this machine are to name.
    ///
    /// # Errors
    /// A name that is none, which the settings' own rules should have refused.
    pub fn leaf_request(&self) -> Result<ClusterLeafRequest, NotAHostName> {
        let url = |text: String| text.parse::<ServerUrl>().map_err(|_| NotAHostName);
        Ok(ClusterLeafRequest {
            node: self.node.name.clone(),
            address: self.node.address,
            endpoint: self.endpoint.host().parse()?,
            service_address: self.node.settings.service_subnet.api(),
            cluster_domain: self.node.settings.cluster_domain.as_str().parse()?,
            extra_names: self
                .node
                .settings
                .extra_names
                .iter()
                .map(|name| name.to_string().parse())
                .collect::<Result<_, _>>()?,
            local_server: url(self.local_server())?,
            component_server: url(self.component_server())?,
        })
    }

    /// The image of a component.
    pub fn image(&self, component: Component) -> String {
        let set = match component {
            Component::ApiServer => &self.node.settings.api_server.additions.image,
            Component::ControllerManager => &self.node.settings.controller_manager.additions.image,
            Component::Scheduler => &self.node.settings.scheduler.additions.image,
        };
        let by_version = || {
            format!(
                "{}/{}:{}",
                self.node.settings.image_repository,
                component.name(),
                self.node.version.tag()
            )
        };
        set.as_ref().map_or_else(by_version, ImageName::to_string)
    }
}
