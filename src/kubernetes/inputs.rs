//! What rendering starts from: plain values, the same for every slot, that somebody else found out.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::component::Component;
use super::version::KubernetesVersion;
use crate::config::settings::{ApiEndpoint, ComponentEndpoint, ImageName, KubernetesSettings};
use crate::model::ids::{ClusterName, InstanceId, Region, Zone};
use crate::model::names::{ClusterLeafRequest, NotAHostName, ServerUrl};

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
    /// The fingerprint of the cluster's authorities and keys, which the programs read when they start. Certificates are
    /// read again while they run and have no part in it.
    pub authorities: String,
}

/// The address at which programs of the machine with this address reach each other: a machine whose own address is a
/// loopback one shares a host with others, and has nothing but that.
pub fn loopback_of(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_loopback() { address } else { Ipv4Addr::LOCALHOST }
}

impl ControlPlaneInputs {
    /// The address at which a program of this machine reaches another one.
    pub fn loopback(&self) -> Ipv4Addr {
        loopback_of(self.node.address)
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

    /// What the leaves and kubeconfigs of this machine are to name.
    ///
    /// # Errors
    /// A name that is none, which the settings' own rules should have refused.
    pub fn leaf_request(&self) -> Result<ClusterLeafRequest, NotAHostName> {
        let url = |text: String| text.parse::<ServerUrl>().map_err(|_| NotAHostName);
        Ok(ClusterLeafRequest {
            node: self.node.instance.clone(),
            address: self.node.address,
            endpoint: self.endpoint.host().parse()?,
            service_address: self.settings.service_subnet.api(),
            cluster_domain: self.settings.cluster_domain.as_str().parse()?,
            extra_names: self
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
            Component::ApiServer => &self.settings.api_server.additions.image,
            Component::ControllerManager => &self.settings.controller_manager.additions.image,
            Component::Scheduler => &self.settings.scheduler.additions.image,
        };
        let by_version =
            || format!("{}/{}:{}", self.settings.image_repository, component.name(), self.version.tag());
        set.as_ref().map_or_else(by_version, ImageName::to_string)
    }
}
