//! What add-ons need of the API: which kinds it serves, what is there, applying, taking away, and the
//! inventories.
//!
//! What must not live here: what is applied and taken away, and in which order ([`crate::execute`]).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::core::GroupVersionKind;
use kube::{Api, Client};

use super::{ApiCause, ApiClient, ApiError, FIELD_MANAGER, version_of};
use crate::config::settings::AddonName;
use crate::kubernetes::addons::inventory::{self, Entry, Inventory, KIND_LABEL};
use crate::kubernetes::addons::{AddonObject, group_of};
use crate::kubernetes::objects::WantedObject;
use crate::model::Fact;
use crate::model::addons::{ADDON_LABEL, LabelledObject, ObjectKey};

/// So many objects are asked for at once.
const AT_ONCE: usize = 8;
/// The namespace of objects that name none, as kubectl has it.
const DEFAULT_NAMESPACE: &str = "default";
/// So often an object that changes while it is taken away is read again.
const TRIES: usize = 3;

/// The kinds whose objects hold others' data, and their plural names.
const HOLDING: [(&str, &str, &str, &str); 4] = [
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "PersistentVolume", "persistentvolumes"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
];

/// A kind as the API serves it.
#[derive(Debug, Clone)]
struct Served {
    resource: ApiResource,
    namespaced: bool,
}

/// What the API serves, as far as it was asked for; for one look or one step.
pub struct Kinds {
    client: Client,
    /// By group and version: the kinds, or that there is no such group or version.
    versions: HashMap<String, Option<APIResourceList>>,
}

impl Kinds {
    async fn version(&mut self, api_version: &str) -> Result<Option<&APIResourceList>, kube::Error> {
        if !self.versions.contains_key(api_version) {
            let asked = match api_version.split_once('/') {
                Some(_) => self.client.list_api_group_resources(api_version).await,
                None => self.client.list_core_api_resources(api_version).await,
            };
            let found = match asked {
                Ok(list) => Some(list),
                Err(kube::Error::Api(status)) if status.is_not_found() => None,
                Err(error) => return Err(error),
            };
            self.versions.insert(api_version.to_owned(), found);
        }
        Ok(self.versions.get(api_version).and_then(Option::as_ref))
    }

    /// The kind in exactly this version; `None` when it is not served.
    async fn exactly(&mut self, api_version: &str, kind: &str) -> Result<Option<Served>, kube::Error> {
        let Some(list) = self.version(api_version).await? else { return Ok(None) };
        // Subresources have a kind, too, and a slash in their names.
        let found = list.resources.iter().find(|found| found.kind == kind && !found.name.contains('/'));
        Ok(found.map(|found| {
            let version = api_version.rsplit('/').next().unwrap_or(api_version);
            let kind = GroupVersionKind::gvk(group_of(api_version), version, kind);
            Served {
                resource: ApiResource::from_gvk_with_plural(&kind, &found.name),
                namespaced: found.namespaced,
            }
        }))
    }

    /// The kind in this version, or else in whatever version it is served now.
    async fn whatever_version(
        &mut self,
        api_version: &str,
        kind: &str,
    ) -> Result<Option<Served>, kube::Error> {
        if let Some(found) = self.exactly(api_version, kind).await? {
            return Ok(Some(found));
        }
        let group = group_of(api_version);
        let groups = self.client.list_api_groups().await?;
        let versions =
            groups.groups.into_iter().find(|found| found.name == group).map(|found| found.versions);
        for version in versions.unwrap_or_default() {
            if let Some(found) = self.exactly(&version.group_version, kind).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn of(&mut self, entry: &Entry) -> Result<Option<Served>, ApiError> {
        let found = self.whatever_version(&entry.api_version, &entry.kind).await;
        found.map_err(|error| ApiError::Discover {
            api_version: entry.api_version.clone(),
            kind: entry.kind.clone(),
            source: error.into(),
        })
    }
}

/// An object of an add-on, with what the API says of its kind.
pub struct Placed {
    wanted: WantedObject,
    /// What is written down of it.
    pub entry: Entry,
}

impl ApiClient {
    /// What the API serves; nothing is asked yet.
    pub fn kinds(&self) -> Kinds {
        Kinds { client: self.client.clone(), versions: HashMap::new() }
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), inventory::NAMESPACE)
    }

    /// All inventories. One that can't be understood is not known.
    ///
    /// # Errors
    /// [`ApiError::Inventory`].
    pub async fn inventories(&self) -> Result<BTreeMap<AddonName, Fact<Inventory>>, ApiError> {
        let labelled = ListParams::default().labels(&format!("{}={}", KIND_LABEL.0, KIND_LABEL.1));
        let maps = self.maps().list(&labelled).await.map_err(|error| ApiError::Inventory {
            doing: "reading",
            addon: "of any name".to_owned(),
            source: error.into(),
        })?;
        let mut found = BTreeMap::new();
        for map in maps {
            let addon = map.metadata.name.as_deref().unwrap_or_default();
            match inventory::addon_of(addon) {
                Ok(addon) => {
                    found.insert(addon, Inventory::read(&map).into());
                }
                Err(error) => tracing::warn!(why = %error, "a ConfigMap has the label of inventories"),
            }
        }
        Ok(found)
    }

    /// The inventory of an add-on, and its version; `None` when there is none.
    ///
    /// # Errors
    /// [`ApiError::Inventory`] and [`ApiError::Damaged`].
    pub async fn inventory(&self, addon: &AddonName) -> Result<Option<(Inventory, String)>, ApiError> {
        let map = self.maps().get_opt(&inventory::name_of(addon)).await;
        let failed = |source| ApiError::Inventory { doing: "reading", addon: addon.to_string(), source };
        let Some(map) = map.map_err(|error| failed(error.into()))? else { return Ok(None) };
        let read = Inventory::read(&map)?;
        Ok(Some((read, version_of(map.metadata.resource_version).map_err(failed)?)))
    }

    /// Writes an inventory, in place of the one of that version or where there is none. Its new version;
    /// `None` when another machine was first.
    ///
    /// # Errors
    /// [`ApiError::Inventory`] and [`ApiError::Damaged`].
    pub async fn write_inventory(
        &self,
        addon: &AddonName,
        inventory: &Inventory,
        version: Option<&str>,
    ) -> Result<Option<String>, ApiError> {
        let map = inventory.write(addon, version.map(str::to_owned))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match version {
            Some(_) => self.maps().replace(&inventory::name_of(addon), &params, &map).await,
            None => self.maps().create(&params, &map).await,
        };
        let failed = |source| ApiError::Inventory { doing: "writing", addon: addon.to_string(), source };
        match written {
            Ok(map) => version_of(map.metadata.resource_version).map(Some).map_err(failed),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
            Err(kube::Error::Api(status)) if version.is_some() && status.is_not_found() => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Deletes an inventory of this version. `false`: another machine has changed it.
    ///
    /// # Errors
    /// [`ApiError::Inventory`].
    pub async fn delete_inventory(&self, addon: &AddonName, version: &str) -> Result<bool, ApiError> {
        let seen = Preconditions { uid: None, resource_version: Some(version.to_owned()) };
        let params = DeleteParams::default().preconditions(seen);
        match self.maps().delete(&inventory::name_of(addon), &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => {
                Err(ApiError::Inventory { doing: "deleting", addon: addon.to_string(), source: error.into() })
            }
        }
    }

    /// Where an object of an add-on belongs. One of a namespaced kind that names no namespace belongs to
    /// `default`, and of another kind the namespace is no matter: as with kubectl.
    ///
    /// # Errors
    /// [`ApiError::Discover`] and [`ApiError::NotServed`].
    pub async fn place(&self, kinds: &mut Kinds, object: &AddonObject) -> Result<Placed, ApiError> {
        let AddonObject { api_version, key, value } = object;
        let served = kinds.exactly(api_version, &key.kind).await.map_err(|error| ApiError::Discover {
            api_version: api_version.clone(),
            kind: key.kind.clone(),
            source: error.into(),
        })?;
        let Some(served) = served else {
            return Err(ApiError::NotServed { api_version: api_version.clone(), object: key.to_string() });
        };
        let namespace =
            served.namespaced.then(|| key.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()));
        let mut value = value.clone();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            match &namespace {
                Some(namespace) => metadata.insert("namespace".to_owned(), namespace.as_str().into()),
                None => metadata.remove("namespace"),
            };
        }
        let entry = Entry {
            api_version: api_version.clone(),
            kind: key.kind.clone(),
            namespace: namespace.clone(),
            name: key.name.clone(),
        };
        let wanted = WantedObject { resource: served.resource, namespace, name: key.name.clone(), value };
        Ok(Placed { wanted, entry })
    }

    /// Makes an object what it should be.
    ///
    /// # Errors
    /// As [`ApiClient::apply`].
    pub async fn apply_placed(&self, object: &Placed) -> Result<(), ApiError> {
        self.apply(&object.wanted).await
    }

    fn api_of(&self, served: &Served, namespace: Option<&str>) -> Api<DynamicObject> {
        match (served.namespaced, namespace) {
            (true, namespace) => {
                let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
                Api::namespaced_with(self.client.clone(), namespace, &served.resource)
            }
            (false, _) => Api::all_with(self.client.clone(), &served.resource),
        }
    }

    async fn metadata(
        &self,
        kinds: &mut Kinds,
        entry: &Entry,
    ) -> Result<Option<(Api<DynamicObject>, PartialObjectMeta<DynamicObject>)>, ApiError> {
        // What is not served is not there.
        let Some(served) = kinds.of(entry).await? else { return Ok(None) };
        let api = self.api_of(&served, entry.namespace.as_deref());
        let found = api.get_metadata_opt(&entry.name).await;
        let found = found
            .map_err(|error| ApiError::Read { object: entry.key().to_string(), source: error.into() })?;
        Ok(found.map(|found| (api, found)))
    }

    /// Those that are not there.
    ///
    /// # Errors
    /// [`ApiError::Discover`] and [`ApiError::Read`]: one that is not known makes all not known.
    pub async fn missing(&self, kinds: &mut Kinds, of: &[Entry]) -> Result<Vec<ObjectKey>, ApiError> {
        let mut missing = Vec::new();
        let mut apis = Vec::new();
        for entry in of {
            match kinds.of(entry).await? {
                Some(served) => apis.push((self.api_of(&served, entry.namespace.as_deref()), entry)),
                None => missing.push(entry.key()),
            }
        }
        for some in apis.chunks(AT_ONCE) {
            let looks = some.iter().map(async |(api, entry)| {
                let found = api.get_metadata_opt(&entry.name).await;
                let found = found.map_err(|error| ApiError::Read {
                    object: entry.key().to_string(),
                    source: error.into(),
                })?;
                Ok::<_, ApiError>(found.is_none().then(|| entry.key()))
            });
            missing.extend(futures_util::future::try_join_all(looks).await?.into_iter().flatten());
        }
        Ok(missing)
    }

    /// The objects with the label of an add-on that hold others' data.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn holding(&self) -> Result<Vec<LabelledObject>, ApiError> {
        let labelled = ListParams::default().labels(ADDON_LABEL);
        let lists = HOLDING.map(async |(group, version, kind, plural)| {
            let kind_of = GroupVersionKind::gvk(group, version, kind);
            let resource = ApiResource::from_gvk_with_plural(&kind_of, plural);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let found = api.list_metadata(&labelled).await;
            let found = found
                .map_err(|error| ApiError::Read { object: format!("all {plural}"), source: error.into() })?;
            Ok::<_, ApiError>((group, kind, found))
        });
        let mut holding = Vec::new();
        for (group, kind, found) in futures_util::future::try_join_all(lists).await? {
            for object in found {
                let labels = object.metadata.labels.unwrap_or_default();
                holding.push(LabelledObject {
                    addon: labels.get(ADDON_LABEL).cloned().unwrap_or_default(),
                    object: ObjectKey {
                        group: group.to_owned(),
                        kind: kind.to_owned(),
                        namespace: object.metadata.namespace,
                        name: object.metadata.name.unwrap_or_default(),
                    },
                });
            }
        }
        Ok(holding)
    }

    /// Takes an object of an add-on away, if it still carries that add-on's label; what it owns goes after
    /// it. `false`: it is not there, or not the add-on's any more.
    ///
    /// # Errors
    /// [`ApiError::Discover`], [`ApiError::Read`] and [`ApiError::Delete`].
    pub async fn delete(
        &self,
        kinds: &mut Kinds,
        addon: &AddonName,
        entry: &Entry,
    ) -> Result<bool, ApiError> {
        let mut tries = 0;
        loop {
            let Some((api, found)) = self.metadata(kinds, entry).await? else { return Ok(false) };
            let metadata = found.metadata;
            let labels = metadata.labels.unwrap_or_default();
            let ours = labels.get(ADDON_LABEL).is_some_and(|label| label == addon.as_str());
            if !ours || metadata.deletion_timestamp.is_some() {
                return Ok(false);
            }
            let version = version_of(metadata.resource_version)
                .map_err(|source| ApiError::Read { object: entry.key().to_string(), source })?;
            let seen = Preconditions { uid: metadata.uid, resource_version: Some(version) };
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default().preconditions(seen)
            };
            tries += 1;
            match api.delete(&entry.name, &params).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(false),
                // It was changed since it was read.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
                Err(error) => {
                    let object = entry.key().to_string();
                    return Err(ApiError::Delete { object, source: error.into() });
                }
            }
        }
    }
}

impl ApiError {
    /// Whether the API said no, so that something else can still be done there.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotServed { .. } => true,
            Self::Discover { source, .. }
            | Self::Read { source, .. }
            | Self::Apply { source, .. }
            | Self::Replace { source, .. }
            | Self::Delete { source, .. }
            | Self::Approve { source, .. }
            | Self::Evict { source, .. }
            | Self::Inventory { source, .. }
            | Self::TakeLease(source)
            | Self::RenewLease(source)
            | Self::Client(source) => matches!(source, ApiCause::Refused { .. }),
            Self::Kubeconfig { .. } | Self::Object(_) | Self::Damaged(_) => false,
        }
    }

    /// What was refused, without what the API says of it: a Secret's text may be in that.
    pub fn without_message(&self) -> String {
        use std::error::Error as _;
        let cause = self.source().and_then(|cause| cause.downcast_ref::<ApiCause>());
        match cause {
            Some(ApiCause::Refused { code, reason, .. }) => format!("{self}: {code} {reason}"),
            Some(ApiCause::NoAnswer(_) | ApiCause::Time(_)) | None => self.to_string(),
        }
    }
}
