//! The two connectors to AWS: one for its APIs, one for the metadata service.
//!
//! Each is built once and shared by all clients, since a connector owns the trusted roots and the
//! pool of connections. Left alone, the SDK builds one for each client and one more to check it.
//! The one for APIs is built on a thread of its own while the metadata service is asked: the system's
//! trusted roots may be hundreds of files.
//!
//! Environment that is honoured here, since the SDK for Rust does not do it by itself:
//! `AWS_CA_BUNDLE` (a PEM file that takes the place of the system's roots) and the proxy variables
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`). Never a proxy for the metadata service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// How long to wait for a connection to an AWS API.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// How long to wait for a connection to the metadata service, which is on this very host.
const CONNECT_METADATA: Duration = Duration::from_secs(1);

/// How long an idle connection is kept, and how many to one host: an idle agent should be small.
const IDLE: Duration = Duration::from_secs(20);
const IDLE_PER_HOST: usize = 2;

/// An HTTP client that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The file that `AWS_CA_BUNDLE` names can't be read.
    #[error("AWS_CA_BUNDLE: reading {}", path.display())]
    ReadBundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file that `AWS_CA_BUNDLE` names is not a list of certificates in PEM.
    #[error("AWS_CA_BUNDLE: {} is not a list of certificates in PEM: {why}", path.display())]
    ParseBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The metadata service's endpoint is not a URL.
    #[error("AWS_EC2_METADATA_SERVICE_ENDPOINT: {endpoint:?} is not a URL")]
    MetadataEndpoint {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        #[source]
        source: aws_smithy_runtime_api::box_error::BoxError,
    },
    /// The TLS settings were refused.
    #[error("setting up TLS")]
    Tls(#[source] aws_smithy_http_client::HttpClientError),
}

/// The client for AWS's APIs.
pub(super) async fn for_apis(
    bundle: Option<&Path>,
    proxy: ProxyConfig,
) -> Result<SharedHttpClient, HttpError> {
    let trust = match bundle {
        Some(path) => TrustStore::empty().with_pem_certificate(read_bundle(path).await?),
        None => TrustStore::default(),
    };
    let connector = connector(CONNECT).proxy_config(proxy).tls_provider(Provider::Rustls(CryptoMode::Ring));
    let context = TlsContext::builder().with_trust_store(trust).build().map_err(HttpError::Tls)?;
    let build = move || SharedHttpConnector::new(connector.tls_context(context).build());
    Ok(always(SharedHttpConnector::new(Underway::begin(build))))
}

/// A connector that is built elsewhere; whoever needs it first waits for it.
#[derive(Debug, Clone)]
struct Underway(Shared<BoxFuture<'static, Option<SharedHttpConnector>>>);

impl Underway {
    fn begin(build: impl FnOnce() -> SharedHttpConnector + Send + 'static) -> Self {
        let thread = tokio::task::spawn_blocking(build);
        Self(async { thread.await.ok() }.boxed().shared())
    }
}

impl HttpConnector for Underway {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let built = self.0.clone();
        HttpConnectorFuture::new(async move {
            match built.await {
                Some(connector) => connector.call(request).await,
                None => Err(ConnectorError::other("the HTTP client could not be set up".into(), None)),
            }
        })
    }
}

/// The connector to the metadata service: no proxy, and no TLS, for which nothing is trusted.
pub(super) fn for_metadata() -> Result<SharedHttpConnector, HttpError> {
    let context =
        TlsContext::builder().with_trust_store(TrustStore::empty()).build().map_err(HttpError::Tls)?;
    let connector = connector(CONNECT_METADATA)
        .proxy_config(ProxyConfig::disabled())
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context);
    Ok(SharedHttpConnector::new(connector.build()))
}

/// A client that uses one connector for everything. Time-outs of whole attempts are not the
/// connector's but the caller's, so one connector does for all settings.
pub(super) fn always(connector: SharedHttpConnector) -> SharedHttpClient {
    http_client_fn(move |_, _| connector.clone())
}

fn connector(connect: Duration) -> ConnectorBuilder {
    Connector::builder()
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(connect).build())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
}

/// Reads and checks a bundle: the HTTP client panics on one that it can't parse.
async fn read_bundle(path: &Path) -> Result<Vec<u8>, HttpError> {
    let pem = tokio::fs::read(path)
        .await
        .map_err(|source| HttpError::ReadBundle { path: path.to_owned(), source })?;
    let wrong = |why: String| HttpError::ParseBundle { path: path.to_owned(), why };
    let mut certificates = 0_usize;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|error| wrong(error.to_string()))?;
        if block.label == "CERTIFICATE" {
            block
                .parse_x509()
                .map_err(|error| wrong(format!("certificate {}: {error}", certificates + 1)))?;
            certificates += 1;
        }
    }
    if certificates == 0 {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fact::chain;

    async fn with_bundle(content: &str) -> Result<SharedHttpClient, HttpError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        std::fs::write(&path, content).unwrap();
        for_apis(Some(&path), ProxyConfig::disabled()).await
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()
    }

    #[tokio::test]
    async fn a_bundle_of_certificates_is_trusted() {
        with_bundle(&format!("# ours\n{}\n{}", certificate(), certificate())).await.unwrap();
    }

    #[tokio::test]
    async fn a_bundle_that_is_none_is_refused_with_its_name() {
        let cut: String = certificate().lines().take(4).collect::<Vec<_>>().join("\n");
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "no certificate", &cut, garbled, &(certificate() + garbled)] {
            let text = chain(&with_bundle(content).await.unwrap_err());
            assert!(text.contains("AWS_CA_BUNDLE") && text.contains("bundle.pem"), "{content}: {text}");
        }
    }

    #[tokio::test]
    async fn a_connector_that_is_being_built_is_waited_for_and_one_that_never_is_is_an_error() {
        let request = || HttpRequest::get("http://127.0.0.1:1/").unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let built = Underway::begin(move || {
            wait.recv().unwrap();
            SharedHttpConnector::new(connector(CONNECT).build_http())
        });
        let first = built.call(request());
        let second = built.clone().call(request());
        go.send(()).unwrap();
        for answer in [first.await, second.await] {
            assert!(answer.unwrap_err().is_io(), "it asks, and nobody listens there");
        }
        let never = Underway::begin(|| panic!("as for a root that can't be read"));
        assert!(never.call(request()).await.unwrap_err().is_other());
    }

    #[tokio::test]
    async fn a_bundle_that_is_missing_is_refused_with_its_name() {
        let error =
            for_apis(Some(Path::new("/nowhere/bundle.pem")), ProxyConfig::disabled()).await.unwrap_err();
        assert!(matches!(&error, HttpError::ReadBundle { .. }), "{error:?}");
        assert!(chain(&error).contains("/nowhere/bundle.pem"), "{}", chain(&error));
    }
}
