//! The client of the API: of this machine's own server as the administrator of this node, or, on a worker, as the node
//! itself.
//!
//! It reads and keeps the lease `kube-system/quorate`, and reads and applies objects. Applying is
//! server-side, as the field manager `quorate`, by force: the fields that are ours are ours, and all
//! others stay with whoever set them.
//!
//! What add-ons need of it is in [`addons`], and what is told without being asked for in [`watch`].
//!
//! A client is made for each look and each step: the certificate that it shows may have been renewed.
//!
//! What must not live here: what should be in the API ([`crate::kubernetes::objects`]), and who puts it there and
//! when ([`crate::plan`]).

pub mod addons;
mod events;
mod nodes;
mod own_node;
mod requests;
mod tokens;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::kubernetes::addons::inventory::InventoryError;
use crate::kubernetes::objects::{MANAGED_BY, ObjectError, WantedObject};
use crate::model::ids::InstanceId;
use crate::model::kubernetes::ApiLease;
use crate::model::names::ServerUrl;
use crate::pki::node_identity::NodeIdentity;

/// Who owns the fields that are ours.
pub const FIELD_MANAGER: &str = "quorate";
/// The lease's namespace.
const NAMESPACE: &str = "kube-system";
/// The lease's name.
const LEASE: &str = "quorate";
/// How long one request may take. The server is on this machine, or in its region.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the API did not answer or do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The administrator's kubeconfig can't be used.
    #[error("using {}", path.display())]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// No client can be made of it.
    #[error("making a client of the API")]
    Client(#[source] ApiCause),
    /// An object was not read.
    #[error("reading {object} from the API")]
    Read {
        /// The object.
        object: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// An object was not applied.
    #[error("applying {object} to the API")]
    Apply {
        /// The object.
        object: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// A binding to another role was not taken away, so that it can be made anew.
    #[error("replacing {object} in the API")]
    Replace {
        /// The object.
        object: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// A kind was not looked up.
    #[error("asking the API whether it serves {kind} of {api_version}")]
    Discover {
        /// The group and version.
        api_version: String,
        /// The kind.
        kind: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// A kind that the API does not serve.
    #[error("the API does not serve {object}, of {api_version}, yet: tried again")]
    NotServed {
        /// The group and version.
        api_version: String,
        /// The object.
        object: String,
    },
    /// An object was not taken away.
    #[error("deleting {object} from the API")]
    Delete {
        /// The object.
        object: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// The inventory of an add-on was not read or written.
    #[error("{doing} the inventory of the add-on {addon} in the API")]
    Inventory {
        /// Reading, writing or deleting.
        doing: &'static str,
        /// The add-on.
        addon: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// What is in an add-on's inventory can't be understood.
    #[error(transparent)]
    Damaged(#[from] InventoryError),
    /// The lease was not taken.
    #[error("taking the lease {NAMESPACE}/{LEASE} in the API")]
    TakeLease(#[source] ApiCause),
    /// The lease was not kept.
    #[error("renewing the lease {NAMESPACE}/{LEASE} in the API")]
    RenewLease(#[source] ApiCause),
    /// A request for a certificate was not approved.
    #[error("approving the request {request}")]
    Approve {
        /// The request.
        request: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// Nobody said whether a pod was evicted.
    #[error("evicting the pod {pod}")]
    Evict {
        /// The pod.
        pod: String,
        /// Why not.
        #[source]
        source: ApiCause,
    },
    /// An object is none.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Why the API did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiCause {
    /// It refused.
    #[error("{code} {reason}: {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The API's word for it.
        reason: String,
        /// What it says.
        message: String,
    },
    /// There was no answer, or none that can be understood.
    #[error("{0}")]
    NoAnswer(String),
    /// The moment can't be written down.
    #[error("{0} ms since 1970 is no time that can be written down")]
    Time(i64),
}

impl From<kube::Error> for ApiCause {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Refused { code: status.code, reason: status.reason, message: status.message }
            }
            // Its variants repeat their causes in their own words.
            other => Self::NoAnswer(other.to_string()),
        }
    }
}

/// The version of what was read. Without one, a write that is bound to it would be bound to nothing.
fn version_of(read: Option<String>) -> Result<String, ApiCause> {
    let version = read.filter(|version| !version.is_empty());
    version.ok_or_else(|| ApiCause::NoAnswer("it came without its version".to_owned()))
}

/// A way to the API.
#[derive(Clone)]
pub struct ApiClient {
    client: Client,
}

impl ApiClient {
    /// The way that a kubeconfig describes. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ApiError::Kubeconfig`] and [`ApiError::Client`].
    pub async fn connect(path: &Path) -> Result<Self, ApiError> {
        Self::connect_for(path, PATIENCE).await
    }

    /// The same for answers that may come in pieces, with so much time between two.
    async fn connect_for(path: &Path, between: Duration) -> Result<Self, ApiError> {
        let unusable = |source| ApiError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(between);
        config.write_timeout = Some(PATIENCE);
        // It is on this machine, and no proxy's matter.
        config.proxy_url = None;
        let client = Client::try_from(config).map_err(|error| ApiError::Client(error.into()))?;
        Ok(Self { client })
    }

    /// The way of a node with this identity to a server that this authority, in PEM, vouches for. Nothing is asked
    /// yet.
    ///
    /// # Errors
    /// [`ApiError::Client`].
    pub fn as_node(server: &ServerUrl, authority: &str, identity: &NodeIdentity) -> Result<Self, ApiError> {
        let unusable = |why: String| ApiError::Client(ApiCause::NoAnswer(why));
        let url = server.to_string().parse().map_err(|error| unusable(format!("{server}: {error}")))?;
        let (_, authority) = x509_parser::pem::parse_x509_pem(authority.as_bytes())
            .map_err(|error| unusable(format!("the cluster's authority: {error}")))?;
        let mut config = Config::new(url);
        config.root_cert = Some(vec![authority.contents]);
        config.auth_info.client_certificate_data = Some(BASE64.encode(identity.certificates()));
        config.auth_info.client_key_data = Some(BASE64.encode(identity.key().expose()).into());
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        // A disruption budget's refusal looks like a server that is busy, and has to be told, not sat out.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| ApiError::Client(error.into()))?;
        Ok(Self { client })
    }

    /// The way that this client goes.
    pub fn of(client: Client) -> Self {
        Self { client }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn api(&self, of: &WantedObject) -> Api<DynamicObject> {
        match &of.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &of.resource),
            None => Api::all_with(self.client.clone(), &of.resource),
        }
    }

    /// The lease; `None` when there is none.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn lease(&self) -> Result<Option<ApiLease>, ApiError> {
        let lease = self.leases().get_opt(LEASE).await;
        let lease = lease.map_err(|error| ApiError::Read {
            object: format!("Lease {NAMESPACE}/{LEASE}"),
            source: error.into(),
        })?;
        let Some(lease) = lease else { return Ok(None) };
        let version = version_of(lease.metadata.resource_version)
            .map_err(|source| ApiError::Read { object: format!("Lease {NAMESPACE}/{LEASE}"), source })?;
        let spec = lease.spec.unwrap_or_default();
        Ok(Some(ApiLease {
            holder: spec.holder_identity,
            renewed: spec.renew_time.map(|at| at.0.as_millisecond()),
            duration_s: spec.lease_duration_seconds.unwrap_or_default(),
            version,
        }))
    }

    /// Takes the lease at `now` (in milliseconds since 1970) for so many seconds, if it still has that
    /// version, or is still absent. `false`: another machine was first.
    ///
    /// # Errors
    /// [`ApiError::TakeLease`].
    pub async fn take_lease(
        &self,
        holder: &InstanceId,
        version: Option<&str>,
        now: i64,
        duration_s: i32,
    ) -> Result<bool, ApiError> {
        let at = Timestamp::from_millisecond(now).map_err(|_| ApiError::TakeLease(ApiCause::Time(now)))?;
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                resource_version: version.map(ToOwned::to_owned),
                labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_string()),
                lease_duration_seconds: Some(duration_s),
                acquire_time: Some(MicroTime(at)),
                renew_time: Some(MicroTime(at)),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let leases = self.leases();
        let taken = match version {
            Some(_) => leases.replace(LEASE, &params, &lease).await,
            None => leases.create(&params, &lease).await,
        };
        match taken {
            Ok(_) => Ok(true),
            // It has been changed, made, or taken away since.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(kube::Error::Api(status)) if version.is_some() && status.is_not_found() => Ok(false),
            Err(error) => Err(ApiError::TakeLease(error.into())),
        }
    }

    /// Keeps the lease, at `now` (in milliseconds since 1970), if it still has that version. `false`: another
    /// machine has taken it.
    ///
    /// # Errors
    /// [`ApiError::RenewLease`].
    pub async fn renew_lease(&self, version: &str, now: i64) -> Result<bool, ApiError> {
        let at = Timestamp::from_millisecond(now).map_err(|_| ApiError::RenewLease(ApiCause::Time(now)))?;
        let renewal = serde_json::json!({
            "metadata": { "resourceVersion": version },
            "spec": { "renewTime": MicroTime(at) },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.leases().patch(LEASE, &params, &Patch::Merge(&renewal)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(ApiError::RenewLease(error.into())),
        }
    }

    /// The titles of those objects that are absent or do not say what they should.
    ///
    /// # Errors
    /// [`ApiError::Read`]: one that is not known makes all not known.
    pub async fn unfit(&self, wanted: &[WantedObject]) -> Result<Vec<String>, ApiError> {
        let found = wanted.iter().map(|object| self.read(object));
        let found = futures_util::future::try_join_all(found).await?;
        let mut unfit = Vec::new();
        for (object, found) in wanted.iter().zip(found) {
            let fits = match found {
                Some(found) => object.is_met_by(&found)?,
                None => false,
            };
            if !fits {
                unfit.push(object.title());
            }
        }
        Ok(unfit)
    }

    async fn read(&self, object: &WantedObject) -> Result<Option<DynamicObject>, ApiError> {
        let found = self.api(object).get_opt(&object.name).await;
        found.map_err(|error| ApiError::Read { object: object.title(), source: error.into() })
    }

    /// Makes an object what it should be. A binding to another role, which can't be changed, is taken
    /// away first, if it is still the one that was seen.
    ///
    /// # Errors
    /// All but those of connecting and of the lease.
    pub async fn apply(&self, object: &WantedObject) -> Result<(), ApiError> {
        let api = self.api(object);
        if object.value.get("roleRef").is_some()
            && let Some(found) = self.read(object).await?
            && object.is_bound_elsewhere(&found)
        {
            let failed = |source| ApiError::Replace { object: object.title(), source };
            let version = version_of(found.metadata.resource_version).map_err(failed)?;
            let seen = Preconditions { uid: found.metadata.uid, resource_version: Some(version) };
            let deleted = api.delete(&object.name, &DeleteParams::default().preconditions(seen)).await;
            deleted.map_err(|error| failed(error.into()))?;
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&object.name, &params, &Patch::Apply(&object.value)).await;
        applied.map(drop).map_err(|error| ApiError::Apply { object: object.title(), source: error.into() })
    }
}
