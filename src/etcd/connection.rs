//! Connections to single endpoints, kept from one look to the next.
//!
//! Each endpoint has a client of its own, never one balanced over several: what is asked of a
//! member must be answered by that member. A connection is dropped when it failed (a peer that
//! vanished without a word would otherwise be waited for until TCP gives up) and all are dropped
//! when the certificates on disk have changed.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::error::{Cause, EtcdError};
use crate::pki::leaves;

/// The most that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// The most that a call may take, the connection included.
pub(super) const CALL: Duration = Duration::from_secs(3);
/// How often a connection on which a stream lasts is asked whether it still is one.
const ALIVE: Duration = Duration::from_secs(5);

/// The agent's certificate towards etcd, and the authority that etcd's own must be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The files as [`crate::pki::issue`] names them.
    pub fn in_directory(dir: &Path) -> Self {
        Self {
            authority: dir.join(leaves::CA),
            certificate: dir.join(leaves::CLIENT),
            key: dir.join(leaves::CLIENT_KEY),
        }
    }
}

/// One endpoint and the client for it.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub url: String,
    pub client: Client,
}

/// The open connections.
pub(super) struct Connections {
    files: TlsFiles,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// What the certificates were when the connections were made.
    digest: Option<Vec<u8>>,
    clients: HashMap<String, Client>,
}

impl Connections {
    pub fn new(files: TlsFiles) -> Self {
        Self { files, open: Mutex::default() }
    }

    /// A client for an endpoint. Nothing is sent yet.
    pub async fn to(&self, url: &str) -> Result<Endpoint, EtcdError> {
        let pems = self.read()?;
        let digest = pems.digest();
        {
            let mut open = self.open();
            if open.digest.as_ref() != Some(&digest) {
                open.clients.clear();
                open.digest = Some(digest);
            }
            if let Some(client) = open.clients.get(url) {
                return Ok(Endpoint { url: url.to_owned(), client: client.clone() });
            }
        }
        let client = Client::connect([url], Some(pems.options()))
            .await
            .map_err(|error| EtcdError::Endpoint { endpoint: url.to_owned(), source: error.into() })?;
        self.open().clients.insert(url.to_owned(), client.clone());
        Ok(Endpoint { url: url.to_owned(), client })
    }

    /// A client of its own for one call that may take longer than others. Nothing is sent yet.
    pub async fn patient(&self, url: &str, limit: Duration) -> Result<Endpoint, EtcdError> {
        let options = self.read()?.options().with_timeout(limit);
        let client = Client::connect([url], Some(options))
            .await
            .map_err(|error| EtcdError::Endpoint { endpoint: url.to_owned(), source: error.into() })?;
        Ok(Endpoint { url: url.to_owned(), client })
    }

    /// A client of its own for a stream that lasts. That nobody is there any more is noticed by asking. Nothing is sent
    /// yet.
    pub async fn lasting(&self, url: &str) -> Result<Endpoint, EtcdError> {
        let options = self.read()?.options().with_keep_alive(ALIVE, CALL);
        let client = Client::connect([url], Some(options))
            .await
            .map_err(|error| EtcdError::Endpoint { endpoint: url.to_owned(), source: error.into() })?;
        Ok(Endpoint { url: url.to_owned(), client })
    }

    /// Drops all connections but those to these endpoints.
    pub fn keep_only(&self, urls: &[String]) {
        self.open().clients.retain(|url, _| urls.contains(url));
    }

    fn forget(&self, url: &str) {
        self.open().clients.remove(url);
    }

    /// Makes one call, within `limit`. A connection on which nothing came back is dropped.
    pub async fn call<T>(
        &self,
        operation: &'static str,
        url: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, EtcdError> {
        let cause = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Cause::from(error),
            Err(_) => Cause::Silent(limit),
        };
        if matches!(cause, Cause::Silent(_) | Cause::Unreachable(_)) {
            self.forget(url);
        }
        Err(EtcdError::Call { operation, endpoint: url.to_owned(), source: cause })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing that can panic is done under the lock, so the value is whole in any case.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<Pems, EtcdError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| EtcdError::TlsFile { path: path.to_owned(), source })
        };
        let TlsFiles { authority, certificate, key } = &self.files;
        Ok(Pems { authority: read(authority)?, certificate: read(certificate)?, key: read(key)? })
    }
}

/// The content of the files.
struct Pems {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pems {
    /// What tells one set of files from another, without keeping the key.
    fn digest(&self) -> Vec<u8> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [&self.authority, &self.certificate, &self.key] {
            digest.update(part);
            digest.update(&[0]);
        }
        digest.finish().as_ref().to_vec()
    }

    fn options(self) -> ConnectOptions {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(self.authority))
            .identity(Identity::from_pem(self.certificate, self.key));
        ConnectOptions::new().with_tls(tls).with_connect_timeout(CONNECT).with_timeout(CALL)
    }
}
