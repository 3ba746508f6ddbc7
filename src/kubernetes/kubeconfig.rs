//! Kubeconfigs: how a component, a kubelet or a person reaches the API, and as whom.
//!
//! One cluster, one user and one context that joins them. The types are those of `kube`, the
//! Kubernetes project's client for Rust. What must not live here: who gets which certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::config::{AuthInfo, Cluster, Context, NamedAuthInfo, NamedCluster, NamedContext};
use secrecy::ExposeSecret as _;

use crate::model::names::ServerUrl;
use crate::pki::Secret;

/// What went wrong with a kubeconfig. No variant quotes it: it may hold a key.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It could not be written as YAML.
    #[error("writing it as YAML")]
    Render(#[source] serde_saphyr::SerializeError),
    /// It is not the YAML that it should be.
    #[error("line {line}, column {column} is not what a kubeconfig has there")]
    Damaged {
        /// Where, from 1; 0 where the parser does not say.
        line: u64,
        /// Where in the line.
        column: u64,
    },
    /// A part of it is missing or is not what it should be.
    #[error("{what} is missing, or is not what it should be")]
    Part {
        /// Which part.
        what: &'static str,
    },
}

/// How who uses it says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// With a certificate and its key, both in PEM, in the kubeconfig itself.
    Embedded {
        /// The certificate.
        certificate: &'a str,
        /// Its key.
        key: &'a Secret,
    },
    /// With files, which client-go reads again when they change. Relative names are taken from the
    /// kubeconfig's own directory.
    Files {
        /// The certificate's.
        certificate: &'a str,
        /// Its key's.
        key: &'a str,
    },
    /// With a token in the kubeconfig itself: how a node joins.
    Token(&'a Secret),
}

/// One way to one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kubeconfig<'a> {
    /// The cluster's name, as it is shown.
    pub cluster: &'a str,
    /// The user's name, as it is shown. Who they are is said by the certificate.
    pub user: &'a str,
    /// Where the API is.
    pub server: &'a ServerUrl,
    /// The cluster authority's certificate, in PEM.
    pub authority: &'a str,
    /// Who uses it.
    pub credential: Credential<'a>,
}

impl Kubeconfig<'_> {
    /// The file's text. It holds the key when that is embedded, and the token.
    ///
    /// # Errors
    /// [`KubeconfigError::Render`] alone.
    pub fn render(&self) -> Result<Secret, KubeconfigError> {
        let context = format!("{}@{}", self.user, self.cluster);
        let identity = match self.credential {
            Credential::Embedded { certificate, key } => AuthInfo {
                client_certificate_data: Some(BASE64.encode(certificate)),
                client_key_data: Some(BASE64.encode(key.expose()).into()),
                ..AuthInfo::default()
            },
            Credential::Token(token) => {
                AuthInfo { token: Some(token.expose().to_owned().into()), ..AuthInfo::default() }
            }
            Credential::Files { certificate, key } => AuthInfo {
                client_certificate: Some(certificate.to_owned()),
                client_key: Some(key.to_owned()),
                ..AuthInfo::default()
            },
        };
        let file = kube::config::Kubeconfig {
            api_version: Some("v1".to_owned()),
            kind: Some("Config".to_owned()),
            clusters: vec![NamedCluster {
                name: self.cluster.to_owned(),
                cluster: Some(Cluster {
                    server: Some(self.server.to_string()),
                    certificate_authority_data: Some(BASE64.encode(self.authority)),
                    ..Cluster::default()
                }),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: self.user.to_owned(),
                auth_info: Some(identity),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: context.clone(),
                context: Some(Context {
                    cluster: self.cluster.to_owned(),
                    user: Some(self.user.to_owned()),
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            current_context: Some(context),
            ..kube::config::Kubeconfig::default()
        };
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let text = serde_saphyr::to_string_with_options(&file, options).map_err(KubeconfigError::Render)?;
        Ok(Secret::new(text))
    }
}

/// A kubeconfig that says where the API is and who vouches for it, and nothing of who comes: the
/// form of the ConfigMap `cluster-info`.
///
/// # Errors
/// [`KubeconfigError::Render`] alone.
pub fn without_user(cluster: &str, server: &ServerUrl, authority: &str) -> Result<String, KubeconfigError> {
    let file = kube::config::Kubeconfig {
        api_version: Some("v1".to_owned()),
        kind: Some("Config".to_owned()),
        clusters: vec![NamedCluster {
            name: cluster.to_owned(),
            cluster: Some(Cluster {
                server: Some(server.to_string()),
                certificate_authority_data: Some(BASE64.encode(authority)),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        ..kube::config::Kubeconfig::default()
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&file, options).map_err(KubeconfigError::Render)
}

/// What a kubeconfig's current context says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the API is.
    pub server: ServerUrl,
    /// The cluster authority's certificate, in PEM.
    pub authority: String,
    /// Who uses it.
    pub credential: FoundCredential,
}

/// How who uses it says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundCredential {
    /// With a certificate and its key, both in PEM.
    Embedded {
        /// The certificate.
        certificate: String,
        /// Its key.
        key: Secret,
    },
    /// With files.
    Files {
        /// The certificate's.
        certificate: String,
        /// Its key's.
        key: String,
    },
    /// With a token.
    Token(Secret),
}

/// Reads what the current context of a kubeconfig says. What an administrator may have added beside
/// it (other contexts, a namespace) is passed over.
///
/// # Errors
/// All but [`KubeconfigError::Render`].
pub fn read(text: &str) -> Result<Found, KubeconfigError> {
    let file: kube::config::Kubeconfig = serde_saphyr::from_str(text).map_err(|error| {
        let location = error.location();
        KubeconfigError::Damaged {
            line: location.map_or(0, |location| location.line()),
            column: location.map_or(0, |location| location.column()),
        }
    })?;
    let part = |what| KubeconfigError::Part { what };
    let current = file.current_context.as_deref();
    let context = file.contexts.into_iter().find(|context| Some(context.name.as_str()) == current);
    let context = context.and_then(|context| context.context).ok_or(part("the current context"))?;
    let cluster = file.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.and_then(|cluster| cluster.cluster).ok_or(part("the cluster"))?;
    let user = file.auth_infos.into_iter().find(|user| Some(&user.name) == context.user.as_ref());
    let user = user.and_then(|user| user.auth_info).ok_or(part("the user"))?;
    let server = cluster.server.and_then(|url| url.parse().ok()).ok_or(part("the server"))?;
    let authority = cluster.certificate_authority_data.and_then(|data| decode(&data));
    let authority = authority.ok_or(part("the authority"))?;
    let credential = match user {
        AuthInfo { client_certificate_data: Some(certificate), client_key_data: Some(key), .. } => {
            FoundCredential::Embedded {
                certificate: decode(&certificate).ok_or(part("the certificate"))?,
                key: Secret::new(decode(key.expose_secret()).ok_or(part("the key"))?),
            }
        }
        AuthInfo { client_certificate: Some(certificate), client_key: Some(key), .. } => {
            FoundCredential::Files { certificate, key }
        }
        AuthInfo { token: Some(token), .. } => {
            FoundCredential::Token(Secret::new(token.expose_secret().to_owned()))
        }
        _ => return Err(part("the user's certificate")),
    };
    Ok(Found { server, authority, credential })
}

fn decode(data: &str) -> Option<String> {
    BASE64.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nZm9v\n-----END PRIVATE KEY-----\n";

    fn server() -> ServerUrl {
        "https://127.0.0.1:6443".parse().unwrap()
    }

    fn rendered(credential: Credential<'_>) -> Secret {
        let server = server();
        let kubeconfig = Kubeconfig {
            cluster: "prod",
            user: "ada",
            server: &server,
            authority: "an authority",
            credential,
        };
        kubeconfig.render().unwrap()
    }

    #[test]
    fn a_kubeconfig_is_what_client_go_documents() {
        let text = rendered(Credential::Files { certificate: "client.crt", key: "client.key" });
        insta::assert_snapshot!(text.expose(), @"
        clusters:
        - name: prod
          cluster:
            server: https://127.0.0.1:6443
            certificate-authority-data: YW4gYXV0aG9yaXR5
        users:
        - name: ada
          user:
            client-certificate: client.crt
            client-key: client.key
        contexts:
        - name: ada@prod
          context:
            cluster: prod
            user: ada
        current-context: ada@prod
        kind: Config
        apiVersion: v1
        ");
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        let key = Secret::new(KEY.to_owned());
        let text = rendered(Credential::Embedded { certificate: "a certificate", key: &key });
        let found = read(text.expose()).unwrap();
        assert_eq!(
            found,
            Found {
                server: server(),
                authority: "an authority".to_owned(),
                credential: FoundCredential::Embedded { certificate: "a certificate".to_owned(), key },
            }
        );
        let text = rendered(Credential::Files { certificate: "client.crt", key: "client.key" });
        assert_eq!(
            read(text.expose()).unwrap().credential,
            FoundCredential::Files { certificate: "client.crt".to_owned(), key: "client.key".to_owned() }
        );
    }

    #[test]
    fn a_token_stands_in_the_kubeconfig_and_nowhere_else() {
        let token = Secret::new("abcdef.0123456789abcdef".to_owned());
        let text = rendered(Credential::Token(&token));
        assert!(text.expose().contains("    token: abcdef.0123456789abcdef\n"), "{}", text.expose());
        let found = super::read(text.expose()).unwrap();
        assert_eq!(found.credential, FoundCredential::Token(token));
        let read = kube::config::Kubeconfig::from_yaml(text.expose()).unwrap();
        assert!(read.other.is_empty() && !format!("{text:?}").contains("abcdef"), "{text:?}");
    }

    #[test]
    fn kubes_own_client_takes_it() {
        let key = Secret::new(KEY.to_owned());
        let text = rendered(Credential::Embedded { certificate: "a certificate", key: &key });
        let read = kube::config::Kubeconfig::from_yaml(text.expose()).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("ada@prod"));
        assert!(read.other.is_empty(), "a field that kube does not know: {:?}", read.other);
    }

    #[test]
    fn the_key_is_never_printed() {
        let key = Secret::new(KEY.to_owned());
        let text = rendered(Credential::Embedded { certificate: "a certificate", key: &key });
        let found = format!("{:?} {text:?}", read(text.expose()).unwrap());
        assert!(found.contains("<redacted>") && !found.contains("PRIVATE KEY"), "{found}");
        // Nor by what is said of a damaged one.
        let broken = text.expose().replace("client-key-data:", "client-key-data: [");
        let error = read(&broken).unwrap_err();
        assert!(matches!(error, KubeconfigError::Damaged { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains(&BASE64.encode(KEY)), "{error:?}");
    }

    #[test]
    fn each_part_that_is_missing_is_named() {
        let text = rendered(Credential::Files { certificate: "client.crt", key: "client.key" });
        for (from, to, named) in [
            ("current-context: ada@prod", "current-context: else", "the current context"),
            ("cluster: prod", "cluster: else", "the cluster"),
            ("user: ada", "user: else", "the user"),
            ("https://", "http://", "the server"),
            ("certificate-authority-data", "else", "the authority"),
            ("client-key", "else", "the user's certificate"),
        ] {
            let changed = text.expose().replacen(from, to, 1);
            assert_ne!(changed, text.expose(), "{from}");
            let error = read(&changed).unwrap_err();
            assert!(matches!(error, KubeconfigError::Part { what } if what == named), "{from}: {error}");
        }
        assert!(matches!(read("a list"), Err(KubeconfigError::Damaged { .. })));
        assert!(read("").is_err());
    }
}
