//! A stand-in for kube-proxy: it reads the configuration, asks the API for all that kube-proxy asks for, with the
//! identity that it was given, and follows it. It leads no packets anywhere: the computer's rules are not the
//! laboratory's to change.
//!
//! It is healthy when it has read everything: services, their endpoints and its own node. A permission that is
//! missing so shows as a kube-proxy that never gets well, with the reason in its log.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::LabError;
use super::error::chain;
use super::kubelet::configuration::KubeProxyConfiguration;
use super::kubelet::program::{Ground, say_version, serve};

/// How long it waits to ask again for what it was refused.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a watch lasts, in seconds.
const WATCH: u32 = 290;

/// The flags of kube-proxy's that the stand-in knows. Any other is an error.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct KubeProxyFlags {
    /// The machine that it stands on.
    #[arg(long)]
    machine: PathBuf,
    /// Its configuration.
    #[arg(long, required_unless_present = "version")]
    config: Option<PathBuf>,
    /// How much it says.
    #[arg(short, long)]
    v: Option<u8>,
    /// Says its version, and ends.
    #[arg(long)]
    version: bool,
}

/// Runs the stand-in, until it is dropped.
pub async fn run(flags: &KubeProxyFlags, out: &mut impl Write) -> Result<(), LabError> {
    let ground = Ground::read(&flags.machine)?;
    if flags.version {
        return say_version(&ground, out).map_err(LabError::file("writing", Path::new("the version")));
    }
    let config = ground.path(flags.config.as_deref().unwrap_or(Path::new("")));
    let configuration = KubeProxyConfiguration::read(&config).map_err(LabError::Settings)?;
    let kubeconfig = ground.path(&configuration.client_connection.kubeconfig);
    let client = client(&ground, &kubeconfig).await?;
    let node = configuration.hostname_override.clone().unwrap_or_else(|| ground.host_name.clone());
    let read = Arc::new(AtomicU8::new(0));
    let all = Arc::clone(&read);
    let address = configuration.healthz().map_err(LabError::Settings)?;
    serve(address, Arc::new(move || all.load(Ordering::Relaxed) == 0b111)).await?;
    tokio::join!(
        follow::<Service>(Api::all(client.clone()), None, "services", &read, 0b001),
        follow::<EndpointSlice>(Api::all(client.clone()), None, "endpointslices", &read, 0b010),
        follow::<Node>(Api::all(client), Some(&node), "nodes", &read, 0b100),
    );
    Ok(())
}

/// A client by a kubeconfig of the machine's, whose files are below its root.
pub(super) async fn client(ground: &Ground, path: &Path) -> Result<Client, LabError> {
    let wrong = |what: String| LabError::Settings(format!("{}: {what}", path.display()));
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(chain(&error)))?;
    let below = |file: &mut Option<String>| {
        if let Some(text) = file {
            *text = ground.path(Path::new(text.as_str())).display().to_string();
        }
    };
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        below(&mut user.client_certificate);
        below(&mut user.client_key);
    }
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|cluster| cluster.cluster.as_mut()) {
        below(&mut cluster.certificate_authority);
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(chain(&error)))?;
    Client::try_from(config).map_err(|error| wrong(chain(&error)))
}

/// Reads all of a kind and follows it, for ever.
async fn follow<K>(api: Api<K>, name: Option<&str>, what: &str, read: &AtomicU8, bit: u8)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let field = name.map(|name| format!("metadata.name={name}"));
    let mut told = None;
    loop {
        if let Err(error) = once(&api, field.as_deref(), read, bit).await {
            let why = chain(&error);
            if told.as_ref() != Some(&why) {
                tracing::warn!(what, why, "kube-proxy can't follow what it needs");
                told = Some(why);
            }
            sleep(AGAIN).await;
        } else {
            told = None;
        }
    }
}

async fn once<K>(api: &Api<K>, field: Option<&str>, read: &AtomicU8, bit: u8) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = ListParams { field_selector: field.map(str::to_owned), ..ListParams::default() };
    let found = api.list(&list).await?;
    read.fetch_or(bit, Ordering::Relaxed);
    let mut watch = WatchParams::default().timeout(WATCH);
    watch.field_selector = field.map(str::to_owned);
    let version = found.metadata.resource_version.unwrap_or_default();
    let events = api.watch(&watch, &version).await?.into_stream();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        if let WatchEvent::Error(error) = event? {
            // Too old a version, mostly: all is read again.
            tracing::info!(%error, "a watch ended");
            break;
        }
    }
    Ok(())
}
