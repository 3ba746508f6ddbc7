//! What a node's Kubernetes is made of: manifests and configuration files, as texts.
//!
//! Rendering is pure: the same inputs give the same bytes, so that whoever plans can compare what
//! should lie on the disk with what lies there. Nothing in rendering reads, writes, asks the time or draws a number; keys
//! and certificates are made elsewhere, and only their places ([`paths`]) are known here.
//!
//! - [`control_plane`] and [`worker`] render everything but secrets; what both roles have comes from [`node`];
//! - [`encryption`] renders the one file that is a secret itself;
//! - [`version`] knows what differs between versions of Kubernetes;
//! - flags come from [`flags`], pods from `static_pods`, and the other files from modules of their own;
//! - [`objects`] are what quorate keeps in the API whatever is set, and [`addons`] what it keeps there as well.
//!
//! A static pod is restarted by the kubelet when its manifest changes, and by nothing else. So each manifest carries
//! the annotation [`CONFIGURATION_DIGEST`]: the digest of the files that its program reads only when it starts.

pub mod addons;
pub mod component;
pub mod containerd;
pub mod drop_ins;
pub mod encryption;
pub mod flags;
pub mod inputs;
pub mod instance_types;
pub mod join;
pub mod kube_proxy;
pub mod kubeconfig;
pub mod kubelet;
pub mod node;
pub mod objects;
pub mod paths;
pub mod reserved;
pub mod version;

mod api_server;
mod scheduler;
mod static_pods;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use kubeconfig::{Credential, Kubeconfig};
use paths::{PUBLIC, SECRET};

pub use component::{Component, Owner};
pub use encryption::{encryption_config, encryption_keys};
pub use inputs::{ControlPlaneInputs, WorkerInputs};
pub use node::NodeInputs;
pub use static_pods::CONFIGURATION_DIGEST;
pub use version::KubernetesVersion;

/// A file as it should lie on the machine. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedFile {
    /// The path on the machine.
    pub path: String,
    /// The permission bits.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The text.
    pub content: String,
}

impl RenderedFile {
    /// SHA-256 of the text, in hexadecimal.
    pub fn digest(&self) -> String {
        digest(self.content.as_bytes())
    }
}

/// All that is rendered for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The files that may be written at any time, in the order of their paths.
    pub files: Vec<RenderedFile>,
    /// The manifests: each starts its program anew when it is written, and is written after the other files.
    pub manifests: BTreeMap<Component, RenderedFile>,
}

/// What can't be rendered. The settings were checked, so all but the operator's drop-ins and the number of pods means a
/// mistake of this program's.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A value that can't be written as YAML.
    #[error("writing {what} as YAML")]
    Write {
        /// What was being rendered.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_saphyr::SerializeError,
    },
    /// The operator's configuration of the scheduler is no YAML.
    #[error("reading `kubernetes.scheduler.config`")]
    SchedulerDocument(#[source] Box<serde_saphyr::Error>),
    /// The operator's part of the kubelet's configuration is wrong.
    #[error("merging {}", paths::KUBELET_DROP_INS)]
    DropIns(#[source] drop_ins::DropInErrors),
    /// The number of pods is not known.
    #[error(transparent)]
    MaxPods(#[from] reserved::NoInterfaceLimits),
    /// A kubeconfig of a worker's was not made.
    #[error("rendering a kubeconfig by the kubelet's certificate")]
    Kubeconfig(#[source] kubeconfig::KubeconfigError),
    /// What a worker was told can't be written down.
    #[error("writing down what this worker was told")]
    Told(#[source] serde_json::Error),
    /// The endpoint is none.
    #[error("the endpoint of the API")]
    Endpoint(#[from] crate::model::names::NotAServerUrl),
}

fn file(path: &str, owner: Owner, content: String) -> RenderedFile {
    let mode = if owner == Owner::Root { PUBLIC } else { SECRET };
    RenderedFile { path: path.to_owned(), mode, owner, content }
}

/// The files that every node has.
fn node_files(inputs: &NodeInputs) -> Result<Vec<RenderedFile>, RenderError> {
    let mut files = vec![
        file(paths::KUBELET_CONFIG, Owner::Root, kubelet::configuration(inputs)?),
        file(paths::KUBE_PROXY_CONFIG, Owner::Root, kube_proxy::configuration(inputs)?),
        file(paths::LOGIND, Owner::Root, kubelet::logind(inputs)?),
    ];
    if inputs.machine.ecr_credential_provider.is_some() {
        let providers = kubelet::image_credential_providers()?;
        files.push(file(paths::IMAGE_CREDENTIAL_PROVIDERS, Owner::Root, providers));
    }
    Ok(files)
}

/// Renders a worker's files, in the order of their paths. Not among them are the kubeconfig that it joins with, which
/// is a secret, and its kubelet's own, which the kubelet writes when it has joined.
///
/// # Errors
/// See [`RenderError`].
pub fn worker(inputs: &WorkerInputs) -> Result<Vec<RenderedFile>, RenderError> {
    let mut files = node_files(&inputs.node)?;
    let kubeconfig = by_rotating_certificate(inputs, "kube-proxy")?;
    files.push(file(paths::KUBE_PROXY_KUBECONFIG, Owner::Root, kubeconfig));
    files.push(file(paths::CA, Owner::Root, inputs.authority.clone()));
    files.sort();
    Ok(files)
}

/// The kubeconfig of a worker's kubelet that has its certificate, as the kubelet itself writes it when it joins.
///
/// # Errors
/// See [`RenderError`].
pub fn workers_kubelet_kubeconfig(inputs: &WorkerInputs) -> Result<RenderedFile, RenderError> {
    let content = by_rotating_certificate(inputs, "kubelet")?;
    Ok(RenderedFile { mode: SECRET, ..file(paths::KUBELET_KUBECONFIG, Owner::Root, content) })
}

/// A way to the API by the certificate that the kubelet renews. It holds no secret. client-go reads the certificate
/// again when it changes.
fn by_rotating_certificate(inputs: &WorkerInputs, user: &str) -> Result<String, RenderError> {
    let kubeconfig = Kubeconfig {
        cluster: inputs.node.cluster.as_str(),
        user,
        server: &inputs.server()?,
        authority: &inputs.authority,
        credential: Credential::Files {
            certificate: paths::KUBELET_ROTATING_CERTIFICATE,
            key: paths::KUBELET_ROTATING_CERTIFICATE,
        },
    };
    Ok(kubeconfig.render().map_err(RenderError::Kubeconfig)?.expose().to_owned())
}

/// Renders a control-plane node's files.
///
/// # Errors
/// See [`RenderError`].
pub fn control_plane(inputs: &ControlPlaneInputs) -> Result<Rendered, RenderError> {
    let mut files = vec![
        file(paths::AUDIT_POLICY, Owner::ApiServer, api_server::audit_policy()?),
        file(paths::AUTHENTICATION, Owner::ApiServer, api_server::authentication()?),
        file(paths::SCHEDULER_CONFIG, Owner::Scheduler, scheduler::configuration(inputs)?),
    ];
    files.extend(node_files(&inputs.node)?);
    files.sort();
    let mut manifests = BTreeMap::new();
    for component in Component::ALL {
        let read: Vec<&RenderedFile> =
            files.iter().filter(|file| file.path.starts_with(component.directory())).collect();
        let pod = static_pods::pod(inputs, component, &read);
        let content = yaml("a static pod", &pod)?;
        let manifest =
            RenderedFile { path: component.manifest().to_owned(), mode: SECRET, owner: Owner::Root, content };
        manifests.insert(component, manifest);
    }
    Ok(Rendered { files, manifests })
}

/// A value as YAML, one line a value, so that it can be found by grep.
fn yaml(what: &'static str, value: &impl Serialize) -> Result<String, RenderError> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false, compact_list_indent: true };
    serde_saphyr::to_string_with_options(value, options).map_err(|source| RenderError::Write { what, source })
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    crate::digest::sha256(bytes)
}

/// SHA-256 of several texts, in hexadecimal.
fn sha256(parts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        // Lengths keep ("a", "bc") and ("ab", "c") apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    crate::digest::hex(context.finish().as_ref())
}
