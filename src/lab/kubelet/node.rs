//! The machine as a node of the cluster: what the kubelet tells the API, and the certificates that it asks it for.
//!
//! With a kubeconfig for bootstrapping it first asks for a client certificate and waits until that is signed; then it
//! registers its node, keeps its lease, and asks for a serving certificate. What is not here: certificates are not
//! renewed, and nothing is served to the API server (logs, exec).
//!
//! Source: "TLS bootstrapping" and "Certificates and Certificate Signing Requests" on kubernetes.io.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::json;
use tokio::time::{Instant, interval, sleep};

use super::configuration::KubeletConfiguration;
use super::program::{Ground, KubeletFlags};
use crate::lab::LabError;
use crate::lab::error::chain;
use crate::lab::kube_proxy::client;

/// How long it waits to do again what did not go well, at first and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// How often a request for a certificate is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the node's status is told when nothing has changed. The kubelet's is 5 min.
const STATUS: Duration = Duration::from_mins(1);
const LEASES: &str = "kube-node-lease";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// The node, as far as it is known before the API is asked.
pub(super) struct Registration {
    pub ground: Ground,
    pub flags: KubeletFlags,
    pub configuration: KubeletConfiguration,
}

/// What went wrong, with its causes, in a line: it is said and tried again.
type Attempt<T> = Result<T, String>;

fn said(what: &'static str) -> impl Fn(kube::Error) -> String {
    move |error| format!("{what}: {}", chain(&error))
}

impl Registration {
    /// Keeps the machine a node, until dropped. Without a kubeconfig it is none.
    pub async fn run(self) {
        let Some(kubeconfig) = self.flags.kubeconfig.clone() else { return std::future::pending().await };
        let mut told = None;
        let mut pause = AGAIN;
        loop {
            let began = Instant::now();
            // It ends only when something went wrong.
            let Err(why) = self.live(&self.ground.path(&kubeconfig)).await;
            if began.elapsed() > AGAIN_AT_MOST {
                pause = AGAIN;
            }
            if told.as_ref() != Some(&why) {
                tracing::warn!(why, "the node is not registered, or not renewed");
                told = Some(why);
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_MOST);
        }
    }

    async fn live(&self, kubeconfig: &Path) -> Attempt<std::convert::Infallible> {
        self.bootstrap(kubeconfig).await?;
        let client = self.client(kubeconfig).await?;
        let node = self.register(&client).await?;
        tokio::try_join!(
            self.renew_lease(&client, node.metadata.uid.unwrap_or_default()),
            self.tell_status(&client),
            self.serving_certificate(&client),
        )
        .map(|(never, ..)| never)
    }

    fn name(&self) -> &str {
        self.flags.hostname_override.as_deref().unwrap_or(&self.ground.host_name)
    }

    fn address(&self) -> Option<IpAddr> {
        self.flags.node_ip
    }

    async fn client(&self, kubeconfig: &Path) -> Attempt<Client> {
        client(&self.ground, kubeconfig).await.map_err(|error: LabError| chain(&error))
    }

    /// Gets a client certificate by the kubeconfig for bootstrapping, if there is one and there is none.
    async fn bootstrap(&self, kubeconfig: &Path) -> Attempt<()> {
        let Some(bootstrap) = &self.flags.bootstrap_kubeconfig else { return Ok(()) };
        let current = self.flags.cert_dir.join("kubelet-client-current.pem");
        if kubeconfig.exists() && self.ground.path(&current).exists() {
            return Ok(());
        }
        let bootstrap = self.ground.path(bootstrap);
        let mut ours = Kubeconfig::read_from(&bootstrap).map_err(|error| chain(&error))?;
        let client = self.client(&bootstrap).await?;
        self.certificate(&client, CLIENT_SIGNER, "client auth", Vec::new(), "kubelet-client").await?;
        let file = Some(current.display().to_string());
        let identity = AuthInfo { client_certificate: file.clone(), client_key: file, ..AuthInfo::default() };
        ours.auth_infos.iter_mut().for_each(|user| user.auth_info = Some(identity.clone()));
        let text = serde_json::to_string_pretty(&ours).map_err(|error| error.to_string())?;
        write(kubeconfig, text.as_bytes())
    }

    /// Asks for a certificate, waits for it as long as it takes, and writes it with its key as `NAME-current.pem`.
    async fn certificate(
        &self,
        client: &Client,
        signer: &str,
        usage: &str,
        names: Vec<SanType>,
        file: &str,
    ) -> Attempt<()> {
        let wrong = |error: rcgen::Error| format!("making a request for a certificate: {error}");
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", self.name()));
        params.subject_alt_names = names;
        let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(wrong)?;
        let asked = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: signer.to_owned(),
                usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let api = Api::<CertificateSigningRequest>::all(client.clone());
        let asked =
            api.create(&PostParams::default(), &asked).await.map_err(said("asking for a certificate"))?;
        let name = asked.metadata.name.unwrap_or_default();
        let certificate = loop {
            let status = api.get(&name).await.map_err(said("looking for a certificate"))?.status;
            let status = status.unwrap_or_default();
            let refused = |kind: &&str| ["Denied", "Failed"].contains(kind);
            let conditions = status.conditions.unwrap_or_default();
            if let Some(kind) = conditions.iter().map(|c| c.type_.as_str()).find(refused) {
                return Err(format!("the request {name} for a certificate: {kind}"));
            }
            if let Some(ByteString(issued)) = status.certificate {
                break issued;
            }
            sleep(LOOK).await;
        };
        let dir = self.ground.path(&self.flags.cert_dir);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let dated = format!("{file}-{}.pem", Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S"));
        write(&dir.join(&dated), &[certificate.as_slice(), key.serialize_pem().as_bytes()].concat())?;
        link(&dated, &dir.join(format!("{file}-current.pem")))
    }

    /// A certificate that the API server would trust the kubelet by. Who signs it looks at the names first, which the
    /// node must have told by then.
    async fn serving_certificate(&self, client: &Client) -> Attempt<()> {
        let current = self.ground.path(&self.flags.cert_dir.join("kubelet-server-current.pem"));
        if !self.configuration.server_tls_bootstrap || current.exists() {
            return Ok(());
        }
        let host = self.name().to_owned().try_into().map_err(|error: rcgen::Error| error.to_string())?;
        let names = [Some(SanType::DnsName(host)), self.address().map(SanType::IpAddress)];
        let names = names.into_iter().flatten().collect();
        self.certificate(client, SERVING_SIGNER, "server auth", names, "kubelet-server").await
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let given = self.flags.node_labels.iter().filter_map(|label| label.split_once('='));
        [
            ("kubernetes.io/hostname", self.name()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
        ]
        .into_iter()
        .chain(given)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// The node is made, or gets the labels that it should have.
    async fn register(&self, client: &Client) -> Attempt<Node> {
        let api = Api::<Node>::all(client.clone());
        let taints = &self.configuration.register_with_taints;
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.name().to_owned()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: self.configuration.provider_id.clone(),
                taints: (!taints.is_empty()).then(|| taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(self.status()),
        };
        match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let labels = json!({ "metadata": { "labels": self.labels() } });
                let patch = Patch::Merge(labels);
                api.patch(self.name(), &PatchParams::default(), &patch)
                    .await
                    .map_err(said("labelling the node"))
            }
            other => other.map_err(said("registering the node")),
        }
    }

    fn status(&self) -> NodeStatus {
        let now = Time(Timestamp::now());
        let condition = |kind: &str, status: &str, reason: &str| NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            ..NodeCondition::default()
        };
        let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
        let resources: BTreeMap<String, Quantity> =
            [("cpu", "2"), ("memory", "4Gi"), ("ephemeral-storage", "20Gi"), ("pods", "110")]
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .collect();
        let addresses = self.address().map(|ip| address("InternalIP", ip.to_string()));
        NodeStatus {
            addresses: Some(
                addresses.into_iter().chain([address("Hostname", self.name().to_owned())]).collect(),
            ),
            allocatable: Some(resources.clone()),
            capacity: Some(resources),
            conditions: Some(vec![
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ]),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(k8s_openapi::api::core::v1::DaemonEndpoint {
                    port: i32::from(self.configuration.port),
                }),
            }),
            node_info: Some(NodeSystemInfo {
                kubelet_version: format!("v{}", self.ground.version.trim_start_matches('v')),
                container_runtime_version: "quorate-lab://1".to_owned(),
                operating_system: "linux".to_owned(),
                os_image: "laboratory".to_owned(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }

    async fn tell_status(&self, client: &Client) -> Attempt<()> {
        let api = Api::<Node>::all(client.clone());
        let mut tick = interval(STATUS);
        loop {
            tick.tick().await;
            let patch = Patch::Strategic(json!({ "status": self.status() }));
            api.patch_status(self.name(), &PatchParams::default(), &patch)
                .await
                .map_err(said("telling the node's status"))?;
        }
    }

    async fn renew_lease(&self, client: &Client, uid: String) -> Attempt<std::convert::Infallible> {
        let api = Api::<Lease>::namespaced(client.clone(), LEASES);
        let seconds = self.configuration.node_lease_duration_seconds;
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.name().to_owned(),
            uid,
            ..OwnerReference::default()
        };
        let mut tick = interval(Duration::from_secs((seconds / 4).max(1).into()));
        loop {
            tick.tick().await;
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name().to_owned()),
                    owner_references: Some(vec![owner.clone()]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(self.name().to_owned()),
                    lease_duration_seconds: i32::try_from(seconds).ok(),
                    renew_time: Some(MicroTime(Timestamp::now())),
                    ..LeaseSpec::default()
                }),
            };
            match api.create(&PostParams::default(), &lease).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let patch = Patch::Merge(json!({ "spec": lease.spec, "metadata": {
                        "ownerReferences": lease.metadata.owner_references
                    }}));
                    api.patch(self.name(), &PatchParams::default(), &patch).await.map(drop)
                }
                other => other.map(drop),
            }
            .map_err(said("renewing the lease"))?;
        }
    }
}

/// A file for its owner's eyes.
fn write(path: &Path, bytes: &[u8]) -> Attempt<()> {
    use std::io::Write as _;
    let new = path.with_extension("new");
    let written = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// A link that is old or new, and never missing.
fn link(to: &str, path: &Path) -> Attempt<()> {
    let new: PathBuf = path.with_extension("link");
    let linked = match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => symlink(to, &new).and_then(|()| fs::rename(&new, path)),
    };
    linked.map_err(|error| format!("{}: {error}", path.display()))
}
