//! Machines that become nodes, put to the test: who asks rightly is approved, and nobody else.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Stage, Unmet};
use crate::kubernetes::join::{BootstrapToken, Join};
use crate::lab::error::chain;
use crate::lab::laboratory::Laboratory;
use crate::lab::settings::CLUSTER;
use crate::model::enrolment::{NODE_USER, NODES, NodeSigner};

/// How long what follows a request may take: a slow tick, and some work.
const SOON: Duration = Duration::from_secs(45);
/// How long the node of a terminated instance may stay: EC2 is asked twice, with some time between.
const GONE: Duration = Duration::from_secs(150);
/// Where the reason stands for which a request is left alone.
const TOLD: &str = "quorate/pending";

fn told(error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(chain(error))
}

fn broken(what: impl Into<String>) -> Unmet {
    Unmet::Broken(what.into())
}

/// Looks again and again until `look` finds what it looks for.
async fn until<T>(patience: Duration, look: impl AsyncFn() -> Result<T, Unmet>) -> Result<T, Unmet> {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if began.elapsed() > patience => return Err(error),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A way to the API by the load balancer, as somebody else.
pub(super) fn as_token(admin: &Config, token: &BootstrapToken) -> Result<Client, Unmet> {
    let mut config = admin.clone();
    config.auth_info = kube::config::AuthInfo::default();
    config.auth_info.token = Some(token.whole().expose().to_owned().into());
    Client::try_from(config).map_err(|error| told(&error))
}

fn as_node(admin: &Config, certificate: &[u8], key: &KeyPair) -> Result<Client, Unmet> {
    let mut config = admin.clone();
    config.auth_info = kube::config::AuthInfo::default();
    config.auth_info.client_certificate_data = Some(BASE64.encode(certificate));
    config.auth_info.client_key_data = Some(BASE64.encode(key.serialize_pem()).into());
    Client::try_from(config).map_err(|error| told(&error))
}

/// Asks, and says what the request is called.
async fn ask(
    client: &Client,
    signer: NodeSigner,
    node: &str,
    key: &KeyPair,
    names: Vec<SanType>,
) -> Result<String, Unmet> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    params.distinguished_name.push(DnType::CommonName, format!("{NODE_USER}{node}"));
    params.subject_alt_names = names;
    let request = params.serialize_request(key).map_err(|error| told(&error))?;
    let purpose = match signer {
        NodeSigner::Client => "client auth",
        NodeSigner::Serving => "server auth",
    };
    let request = CertificateSigningRequest {
        metadata: serde_json::from_value(json!({ "generateName": "drill-" }))
            .map_err(|error| told(&error))?,
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.pem().map_err(|error| told(&error))?.into_bytes()),
            signer_name: signer.name().to_owned(),
            usages: Some(vec!["digital signature".to_owned(), purpose.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = requests.create(&PostParams::default(), &request).await.map_err(|error| told(&error))?;
    made.metadata.name.ok_or_else(|| broken("a request without a name"))
}

/// The certificate that was issued for the request.
async fn issued(admin: &Client, name: &str) -> Result<Vec<u8>, Unmet> {
    let requests: Api<CertificateSigningRequest> = Api::all(admin.clone());
    until(SOON, async || {
        let found = requests.get(name).await.map_err(|error| told(&error))?;
        let left = found.metadata.annotations.unwrap_or_default().remove(TOLD).unwrap_or_default();
        let certificate = found.status.and_then(|status| status.certificate);
        certificate.map(|bytes| bytes.0).ok_or_else(|| broken(format!("{name} was not approved: {left}")))
    })
    .await
}

/// The request stays pending, and this stands on it.
async fn left(admin: &Client, name: &str, says: &str) -> Result<(), Unmet> {
    let requests: Api<CertificateSigningRequest> = Api::all(admin.clone());
    let decided = until(SOON, async || {
        let found = requests.get(name).await.map_err(|error| told(&error))?;
        let why = found.metadata.annotations.unwrap_or_default().remove(TOLD);
        let approved = found.status.and_then(|status| status.conditions).is_some_and(|all| !all.is_empty());
        match why {
            _ if approved => Ok(Err(broken(format!("{name} was approved, and should be left: {says}")))),
            Some(why) if why.contains(says) => Ok(Ok(())),
            why => Err(broken(format!("{name} is to be left with {says:?}: {why:?}"))),
        }
    });
    decided.await?
}

/// What the control plane published to workers.
pub(super) async fn published(lab: &Laboratory) -> Result<Join, Unmet> {
    let cluster = CLUSTER.parse().map_err(|_| broken(format!("{CLUSTER:?} names no cluster")))?;
    until(SOON, async || {
        let bytes =
            lab.object("workers/join.json").ok_or_else(|| broken("nothing is published to workers"))?;
        Join::parse(&bytes, &cluster).map_err(|error| told(&error))
    })
    .await
}

/// The control plane's own nodes are there, each with a serving certificate.
async fn own_nodes(lab: &Laboratory, admin: &Client) -> Result<(), Unmet> {
    let (nodes, requests): (Api<Node>, Api<CertificateSigningRequest>) =
        (Api::all(admin.clone()), Api::all(admin.clone()));
    for machine in lab.control_plane() {
        let name = machine.identity().instance.clone();
        until(SOON, async || {
            nodes.get(&name).await.map_err(|error| told(&error))?;
            let all = requests.list(&ListParams::default()).await.map_err(|error| told(&error))?;
            let mut own = all.items.iter().filter(|request| {
                request.spec.signer_name == NodeSigner::Serving.name()
                    && request.spec.username.as_deref() == Some(&format!("{NODE_USER}{name}"))
            });
            if own.any(|request| request.status.as_ref().is_some_and(|status| status.certificate.is_some())) {
                Ok(())
            } else {
                Err(broken(format!("the kubelet of {name} has no serving certificate")))
            }
        })
        .await?;
    }
    Ok(())
}

/// A worker joins by its token, and is followed to its end; others who ask are left. How long the first
/// certificate took.
pub(super) async fn machines_join(stage: &Stage, config: &Config) -> Result<Duration, Unmet> {
    let admin = Client::try_from(config.clone()).map_err(|error| told(&error))?;
    let lab = &stage.lab;
    own_nodes(lab, &admin).await?;
    let join = published(lab).await?;
    let token = as_token(config, &join.token)?;
    let machines = lab.machines();
    let of_role = |role: &str| machines.iter().find(|machine| machine.identity().role == role);
    let worker = of_role("worker").ok_or_else(|| broken("there is no worker"))?;
    let other = of_role("control-plane").ok_or_else(|| broken("there is no control plane"))?;
    let (name, address) = (worker.identity().instance.clone(), worker.identity().address);
    let key = KeyPair::generate().map_err(|error| told(&error))?;

    let forged = ask(&token, NodeSigner::Client, &other.identity().instance, &key, Vec::new()).await?;
    left(&admin, &forged, "tagged as control-plane").await?;
    let nobody = ask(&token, NodeSigner::Client, "i-0ffffffffffffffff", &key, Vec::new()).await?;
    left(&admin, &nobody, "EC2 knows no instance").await?;
    let wrong =
        BootstrapToken::parse(&format!("{}.0000000000000000", join.token.id())).map_err(|e| told(&e))?;
    match ask(&as_token(config, &wrong)?, NodeSigner::Client, &name, &key, Vec::new()).await {
        Ok(name) => return Err(broken(format!("a wrong token was taken: {name}"))),
        Err(Unmet::Broken(why)) if why.contains("401") || why.contains("Unauthorized") => {}
        Err(other) => return Err(other),
    }

    let began = Instant::now();
    let request = ask(&token, NodeSigner::Client, &name, &key, Vec::new()).await?;
    let certificate = issued(&admin, &request).await?;
    let took = began.elapsed();
    let itself = as_node(config, &certificate, &key)?;
    let nodes: Api<Node> = Api::all(itself.clone());
    let zone = &worker.identity().zone;
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": zone } },
        "spec": { "providerID": format!("aws:///{zone}/{name}") },
    }))
    .map_err(|error| told(&error))?;
    nodes.create(&PostParams::default(), &node).await.map_err(|error| told(&error))?;
    let ready = async |status: &str| {
        let heard = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        let params = PatchParams::default();
        nodes
            .patch_status(&name, &params, &Patch::Merge(&heard))
            .await
            .map(drop)
            .map_err(|error| told(&error))
    };
    ready("True").await?;

    let again = ask(&token, NodeSigner::Client, &name, &key, Vec::new()).await?;
    left(&admin, &again, "there is a node").await?;
    let own = vec![SanType::IpAddress(address.into())];
    let serves = ask(&itself, NodeSigner::Serving, &name, &key, own).await?;
    issued(&admin, &serves).await?;
    let strange = vec![SanType::IpAddress([192, 0, 2, 1].into())];
    let strange = ask(&itself, NodeSigner::Serving, &name, &key, strange).await?;
    left(&admin, &strange, "192.0.2.1 is not the instance's").await?;

    ready("Unknown").await?;
    lab.happen(format!("the end of {name}"), |world| world.terminate_instance(&name)).await?;
    let nodes: Api<Node> = Api::all(admin);
    until(GONE, async || match nodes.get_opt(&name).await.map_err(|error| told(&error))? {
        None => Ok(()),
        Some(_) => Err(broken(format!("the node of {name}, which is terminated, is still there"))),
    })
    .await?;
    Ok(took)
}
