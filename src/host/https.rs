//! Asking a server on this machine by HTTPS.

use std::fs;
use std::path::{Path, PathBuf};

use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri};
use kube::client::Body;
use kube::{Client, Config};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The authority's certificate was not read.
    #[error("reading {}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The authority's certificate is none.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Its file.
        path: PathBuf,
    },
    /// The URL is none.
    #[error("{url:?} is no URL")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        source: http::Error,
    },
    /// The server did not answer.
    #[error("asking {url}: {why}")]
    Ask {
        /// What was asked for.
        url: String,
        /// Why there is no answer: the innermost cause, since those around it say the same.
        why: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The beginning of its body.
    pub body: String,
}

impl Answer {
    /// Whether the status tells of success.
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// The answer in a line: of a list of checks, as `/readyz` gives it, those that failed.
    pub fn told(&self) -> String {
        let failed: Vec<&str> =
            self.body.lines().filter_map(|line| line.strip_prefix("[-]")?.split(' ').next()).collect();
        let said = if failed.is_empty() {
            self.body.lines().next().unwrap_or_default().chars().take(200).collect()
        } else {
            format!("not {}", failed.join(", not "))
        };
        format!("{} {said}", self.status).trim_end().to_owned()
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Asks for a URL. With `ca`, the server must show a certificate that this authority signed and that
/// names the URL's host; without, anyone will do.
pub async fn ask(url: &str, ca: Option<&Path>) -> Result<Answer, HttpsError> {
    let bad = |source: http::Error| HttpsError::Url { url: url.to_owned(), source };
    let failed = |error: kube::Error| HttpsError::Ask { url: url.to_owned(), why: innermost(&error) };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| bad(error.into()))?;
    let request = Request::get(uri.path()).body(Body::empty()).map_err(bad)?;
    let mut server = uri.into_parts();
    server.path_and_query = Some(PathAndQuery::from_static("/"));
    let mut config = Config::new(Uri::from_parts(server).map_err(|error| bad(error.into()))?);
    match ca {
        Some(path) => {
            let pem =
                fs::read(path).map_err(|source| HttpsError::Authority { path: path.to_owned(), source })?;
            let (_, pem) = x509_parser::pem::parse_x509_pem(&pem)
                .map_err(|_| HttpsError::NoCertificate { path: path.to_owned() })?;
            config.root_cert = Some(vec![pem.contents]);
        }
        None => config.accept_invalid_certs = true,
    }
    let client = Client::try_from(config).map_err(failed)?;
    let response = client.send(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await.map_err(failed)?;
    let body = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    Ok(Answer { status, body })
}
