//! What workers are told in S3, so that they can join: `workers/join.json`.
//!
//! It holds one secret, a bootstrap token that is good for an hour, and everything else that a worker
//! needs before it reaches the API. Fields that are not known are taken for a later version's and left
//! out; one that is missing is an error.

use serde::{Deserialize, Serialize};

use super::component::Owner;
use super::{KubernetesVersion, RenderError, RenderedFile, file, paths};
use crate::config::settings::{ApiEndpoint, ClusterDomain, PodSubnet, ServiceSubnet};
use crate::model::enrolment::{JoinFound, JoinTerms, PublishedJoin};
use crate::model::ids::ClusterName;
use crate::model::worker::{PublishedTold, Told};
use crate::pki::Secret;

/// A bootstrap token: six characters that name it and sixteen that are secret.
/// Source: "Authenticating with Bootstrap Tokens" on kubernetes.io.
#[derive(Debug, Clone)]
pub struct BootstrapToken {
    id: String,
    secret: Secret,
}

/// The characters of a bootstrap token.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// What was read is no bootstrap token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no bootstrap token: it is six and sixteen lower-case letters and digits with a dot between")]
pub struct NotAToken;

impl BootstrapToken {
    /// A token made of random bytes, of which those that would favour some characters are passed over;
    /// `None` when there are too few.
    pub fn of_random(bytes: &[u8]) -> Option<Self> {
        let fair = 256 / ALPHABET.len() * ALPHABET.len();
        let mut letters = bytes
            .iter()
            .filter(|byte| usize::from(**byte) < fair)
            .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        let id: String = letters.by_ref().take(ID).collect();
        let secret: String = letters.take(SECRET).collect();
        (secret.len() == SECRET).then(|| Self { id, secret: Secret::new(secret) })
    }

    /// Reads a token: `abcdef.0123456789abcdef`.
    ///
    /// # Errors
    /// It is none. What was read is not repeated.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let (id, secret) = text.split_once('.').ok_or(NotAToken)?;
        let fits = |part: &str, length| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        if fits(id, ID) && fits(secret, SECRET) {
            Ok(Self { id: id.to_owned(), secret: Secret::new(secret.to_owned()) })
        } else {
            Err(NotAToken)
        }
    }

    /// What names it; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret part.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The whole, as it is shown to the API.
    pub fn whole(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }
}

/// What `workers/join.json` holds.
#[derive(Debug, Clone)]
pub struct Join {
    /// What is no secret.
    pub terms: JoinTerms,
    /// The cluster's CA certificate, in PEM.
    pub certificate_authority: String,
    /// The token.
    pub token: BootstrapToken,
    /// When the token ends, in milliseconds since 1970.
    pub token_ends: i64,
}

/// Why `workers/join.json` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is no JSON, or not in its form.
    #[error("it can't be understood")]
    Form(#[source] serde_json::Error),
    /// It is of a form that this version does not know.
    #[error(
        "its format is {found}, and this version of quorate reads {FORMAT}: upgrade this machine's image"
    )]
    Format {
        /// The format that it says.
        found: u32,
    },
    /// It is another cluster's.
    #[error(
        "it is of the cluster {found}, and this machine is of {expected}: correct the bucket, prefix or tag"
    )]
    OtherCluster {
        /// The cluster that it names.
        found: ClusterName,
        /// The one that was expected.
        expected: ClusterName,
    },
    /// Its token is none.
    #[error("its token is {0}")]
    Token(#[source] NotAToken),
    /// Its certificate is none.
    #[error("its certificate authority is no certificate in PEM")]
    Authority,
}

/// The form of what is written.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    format: u32,
    cluster: ClusterName,
    kubernetes_version: KubernetesVersion,
    endpoint: ApiEndpoint,
    certificate_authority: String,
    service_subnet: ServiceSubnet,
    pod_subnet: Option<PodSubnet>,
    cluster_domain: ClusterDomain,
    token: String,
    token_ends: i64,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl JoinError {
    /// What is left alone because of this: the format of a later version.
    pub fn later(&self) -> Option<JoinFound> {
        match self {
            Self::Format { found } if *found > FORMAT => {
                Some(JoinFound::Later { format: *found, known: FORMAT })
            }
            Self::Format { .. }
            | Self::Form(_)
            | Self::OtherCluster { .. }
            | Self::Token(_)
            | Self::Authority => None,
        }
    }
}

impl Join {
    /// Reads what was published for this cluster.
    ///
    /// # Errors
    /// Those of [`JoinError`]; none repeats the token.
    pub fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, JoinError> {
        let head: Head = serde_json::from_slice(bytes).map_err(JoinError::Form)?;
        if head.format != FORMAT {
            return Err(JoinError::Format { found: head.format });
        }
        let read: Document = serde_json::from_slice(bytes).map_err(JoinError::Form)?;
        if read.cluster != *cluster {
            return Err(JoinError::OtherCluster { found: read.cluster, expected: cluster.clone() });
        }
        if !crate::pki::is_certificate(read.certificate_authority.as_bytes()) {
            return Err(JoinError::Authority);
        }
        Ok(Self {
            terms: JoinTerms {
                cluster: read.cluster,
                kubernetes_version: read.kubernetes_version,
                endpoint: read.endpoint,
                authority: super::digest(read.certificate_authority.as_bytes()),
                service_subnet: read.service_subnet,
                pod_subnet: read.pod_subnet,
                cluster_domain: read.cluster_domain,
            },
            certificate_authority: read.certificate_authority,
            token: BootstrapToken::parse(&read.token).map_err(JoinError::Token)?,
            token_ends: read.token_ends,
        })
    }

    /// What is written to S3.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub fn bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let terms = self.terms.clone();
        serde_json::to_vec_pretty(&Document {
            format: FORMAT,
            cluster: terms.cluster,
            kubernetes_version: terms.kubernetes_version,
            endpoint: terms.endpoint,
            certificate_authority: self.certificate_authority.clone(),
            service_subnet: terms.service_subnet,
            pod_subnet: terms.pod_subnet,
            cluster_domain: terms.cluster_domain,
            token: self.token.whole().expose().to_owned(),
            token_ends: self.token_ends,
        })
    }

    /// What a worker keeps of it.
    pub fn told(&self) -> PublishedTold {
        PublishedTold {
            told: Told {
                terms: self.terms.clone(),
                certificate_authority: self.certificate_authority.clone(),
            },
            token: self.token.id.clone(),
            token_ends: self.token_ends,
        }
    }

    /// What may be seen of it.
    pub fn published(&self) -> PublishedJoin {
        PublishedJoin { terms: self.terms.clone(), token: self.token.id.clone(), token_ends: self.token_ends }
    }
}

/// The file at [`TOLD`](paths::TOLD): what a worker was told.
///
/// # Errors
/// [`RenderError::Told`].
pub fn told_file(told: &Told) -> Result<RenderedFile, RenderError> {
    let text = serde_json::to_string_pretty(told).map_err(RenderError::Told)?;
    Ok(file(paths::TOLD, Owner::Root, text + "\n"))
}

/// Reads that file; `None` when it can't be used: it is another cluster's, damaged, or a later version's.
pub fn read_told(bytes: &[u8], cluster: &ClusterName) -> Option<Told> {
    let told: Told = serde_json::from_slice(bytes).ok()?;
    let digest = super::digest(told.certificate_authority.as_bytes());
    (told.terms.cluster == *cluster && told.terms.authority == digest).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_kept_without_its_secret_and_for_this_cluster_only() {
        let join = join();
        let told = join.told().told;
        let file = told_file(&told).unwrap();
        assert!(!file.content.contains("0123456789abcdef"), "{}", file.content);
        let cluster = &join.terms.cluster;
        assert_eq!(read_told(file.content.as_bytes(), cluster), Some(told));
        assert_eq!(read_told(file.content.as_bytes(), &"other".parse().unwrap()), None);
        assert_eq!(read_told(&file.content.as_bytes()[..80], cluster), None);
        let other = file.content.replace(&join.terms.authority, "0");
        assert_eq!(read_told(other.as_bytes(), cluster), None);
    }

    fn join() -> Join {
        let authority = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
        Join {
            terms: JoinTerms {
                cluster: "demo".parse().unwrap(),
                kubernetes_version: "v1.36.2".parse().unwrap(),
                endpoint: "api.example.com:6443".parse().unwrap(),
                authority: crate::kubernetes::digest(authority.as_bytes()),
                service_subnet: "10.96.0.0/12".parse().unwrap(),
                pod_subnet: None,
                cluster_domain: "cluster.local".parse().unwrap(),
            },
            certificate_authority: authority,
            token: BootstrapToken::parse("abcdef.0123456789abcdef").unwrap(),
            token_ends: 1_700_000_000_000,
        }
    }

    #[test]
    fn what_is_published_reads_back_and_shows_no_secret() {
        let join = join();
        let read = Join::parse(&join.bytes().unwrap(), &join.terms.cluster).unwrap();
        assert_eq!(read.published(), join.published());
        assert_eq!(read.token.whole().expose(), "abcdef.0123456789abcdef");
        let shown = format!("{read:?} {}", serde_json::to_string(&read.published()).unwrap());
        assert!(shown.contains("abcdef") && !shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn what_is_not_this_clusters_is_refused_with_what_was_found() {
        let join = join();
        let bytes = join.bytes().unwrap();
        let other = "other".parse().unwrap();
        assert!(matches!(Join::parse(&bytes, &other), Err(JoinError::OtherCluster { .. })));
        let text = String::from_utf8(bytes).unwrap();
        let parse = |text: String| Join::parse(text.as_bytes(), &join.terms.cluster).unwrap_err();
        assert!(matches!(parse(text[..40].to_owned()), JoinError::Form(_)));
        assert!(matches!(
            parse(text.replace("\"format\": 1", "\"format\": 2")),
            JoinError::Format { found: 2 }
        ));
        // Only what a later version wrote is left alone.
        let later = parse(text.replace("\"format\": 1", "\"format\": 2,\"unknown\": \"as yet\"")).later();
        assert_eq!(later, Some(JoinFound::Later { format: 2, known: 1 }));
        assert_eq!(parse(text.replace("\"format\": 1", "\"format\": 0")).later(), None);
        assert_eq!(parse(text[..40].to_owned()).later(), None);
        let secret = parse(text.replace("0123456789abcdef", "0123456789ABCDEF"));
        assert!(matches!(secret, JoinError::Token(_)), "{secret}");
        assert!(!secret.to_string().contains("ABCDEF"));
        assert!(matches!(parse(text.replace("BEGIN CERT", "BEGIN CART")), JoinError::Authority));
        // A later version says more; what is needed is there.
        let more = text.replacen('{', "{\"later\": true,", 1);
        assert!(Join::parse(more.as_bytes(), &join.terms.cluster).is_ok());
    }

    #[test]
    fn tokens_are_made_of_fair_random_bytes_only() {
        let token = BootstrapToken::of_random(&(0..=255).collect::<Vec<u8>>()).unwrap();
        assert_eq!(token.whole().expose(), "abcdef.ghijklmnopqrstuv");
        assert!(BootstrapToken::of_random(&[255; 64]).is_none());
        assert!(BootstrapToken::of_random(&[0; 21]).is_none());
        for wrong in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde!"] {
            assert!(BootstrapToken::parse(wrong).is_err(), "{wrong}");
        }
    }
}
