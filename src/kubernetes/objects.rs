//! The first things in a new cluster: the objects that quorate puts there and keeps there.
//!
//! | object | for whom | what for |
//! |---|---|---|
//! | `ClusterRoleBinding quorate:kubelet-api-admin` | the API server | logs, exec and metrics from kubelets |
//! | `ClusterRoleBinding quorate:node-bootstrapper` | who shows a bootstrap token of quorate's | asks for a node's first certificate |
//! | `ClusterRoleBinding quorate:node-renewal` | nodes | may have their own client certificate renewed |
//! | `ClusterRoleBinding quorate:node-proxier` | nodes | kube-proxy, which comes with the kubelet's own identity |
//! | `ConfigMap kube-public/cluster-info` | | where the API is and who vouches for it, as a kubeconfig |
//! | `Role`, `RoleBinding kube-public/quorate:cluster-info` | who shows any bootstrap token | reads that |
//!
//! A node may ask for a certificate by the node authorizer's own rules; `node-renewal` is what
//! whoever approves it looks at. Nobody is bound to `…:nodeclient`, by which the controller-manager
//! would approve each certificate that a joining node asks for, unseen. `cluster-info` is not shown
//! to strangers, as kubeadm does: anonymous requests reach three health paths and nothing else, and
//! joining machines have what is in it from S3 before they have the API.
//!
//! The values are plain and made of what is given. What must not live here: asking the API, and
//! changing it ([`crate::cluster_api`]); whether something is to be done ([`crate::plan`]).

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use super::kubeconfig::{self, KubeconfigError};
use crate::model::ids::ClusterName;
use crate::model::names::ServerUrl;
use crate::pki::cluster_leaves::KUBELET_CLIENT_USER;

/// The label of everything that quorate keeps in the API, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "quorate");
/// The group of bootstrap tokens that quorate gives out to joining machines.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:quorate";
/// The group of all bootstrap tokens.
const ALL_BOOTSTRAPPERS: &str = "system:bootstrappers";
/// The group of all nodes.
const NODES: &str = "system:nodes";
/// The namespace of what everybody may know.
const PUBLIC: &str = "kube-public";
/// The name of the object that says where the API is.
const CLUSTER_INFO: &str = "cluster-info";
const RBAC: &str = "rbac.authorization.k8s.io";

/// What an object can't be made of. All is ours, so this means a mistake of this program's.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It could not be written as JSON.
    #[error("writing an object for the API as JSON")]
    Write(#[source] serde_json::Error),
    /// The kubeconfig in it could not be written.
    #[error("the cluster's public kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
}

/// An object as it should be in the API: the fields that are ours, and no others.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedObject {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace, if its kind has them.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What it should say.
    pub value: Value,
}

impl WantedObject {
    fn of<K>(object: &K) -> Result<Self, ObjectError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Ok(Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.namespace(),
            name: object.name_any(),
            value: serde_json::to_value(object).map_err(ObjectError::Write)?,
        })
    }

    /// What it is called in plans and messages: `ConfigMap kube-public/cluster-info`.
    pub fn title(&self) -> String {
        let place = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {place}{}", self.resource.kind, self.name)
    }

    /// Whether what was found says all that it should; what else it says is others' matter.
    pub fn is_met_by(&self, found: &DynamicObject) -> Result<bool, ObjectError> {
        let found = serde_json::to_value(found).map_err(ObjectError::Write)?;
        Ok(covers(&found, &self.value))
    }

    /// Whether what was found binds to another role: that can't be changed, only made anew.
    pub fn is_bound_elsewhere(&self, found: &DynamicObject) -> bool {
        let wanted = self.value.get("roleRef");
        wanted.is_some_and(|wanted| found.data.get("roleRef").is_some_and(|found| !covers(found, wanted)))
    }
}

/// Whether `found` has everything that `wanted` has. A list is one value: who adds a subject to a
/// binding gives away what is not his.
fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| covers(found, wanted)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| covers(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

/// The objects of a cluster whose API is reached there, in the order in which they are made.
///
/// `authority` is the cluster authority's certificate, in PEM.
///
/// # Errors
/// Those of [`ObjectError`].
pub fn first_things(
    cluster: &ClusterName,
    server: &ServerUrl,
    authority: &str,
) -> Result<Vec<WantedObject>, ObjectError> {
    let info = kubeconfig::without_user(cluster.as_str(), server, authority);
    let info = ConfigMap {
        metadata: named(CLUSTER_INFO, Some(PUBLIC)),
        data: Some([("kubeconfig".to_owned(), info.map_err(ObjectError::Kubeconfig)?)].into()),
        ..ConfigMap::default()
    };
    let reads_info = Role {
        metadata: named("quorate:cluster-info", Some(PUBLIC)),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["configmaps".to_owned()]),
            resource_names: Some(vec![CLUSTER_INFO.to_owned()]),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]),
    };
    let may_read_info = RoleBinding {
        metadata: named("quorate:cluster-info", Some(PUBLIC)),
        role_ref: role("Role", "quorate:cluster-info"),
        subjects: Some(vec![subject("Group", ALL_BOOTSTRAPPERS)]),
    };
    let renewal = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
    Ok(vec![
        bind("kubelet-api-admin", subject("User", KUBELET_CLIENT_USER), "system:kubelet-api-admin")?,
        bind("node-bootstrapper", subject("Group", BOOTSTRAPPERS), "system:node-bootstrapper")?,
        bind("node-renewal", subject("Group", NODES), renewal)?,
        bind("node-proxier", subject("Group", NODES), "system:node-proxier")?,
        WantedObject::of(&info)?,
        WantedObject::of(&reads_info)?,
        WantedObject::of(&may_read_info)?,
    ])
}

fn bind(name: &str, whom: Subject, to: &str) -> Result<WantedObject, ObjectError> {
    WantedObject::of(&ClusterRoleBinding {
        metadata: named(&format!("quorate:{name}"), None),
        role_ref: role("ClusterRole", to),
        subjects: Some(vec![whom]),
    })
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(ToOwned::to_owned),
        labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn role(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: RBAC.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(kind: &str, name: &str) -> Subject {
    Subject {
        api_group: Some(RBAC.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vec<WantedObject> {
        let server = "https://api.example.com:6443".parse().unwrap();
        first_things(&"demo".parse().unwrap(), &server, "an authority").unwrap()
    }

    fn found(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_objects_are_these() {
        let all: Vec<Value> = wanted().into_iter().map(|object| object.value).collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }

    #[test]
    fn all_have_a_title_of_their_own_and_say_whose_they_are() {
        let titles: Vec<String> = wanted().iter().map(WantedObject::title).collect();
        assert_eq!(titles[0], "ClusterRoleBinding quorate:kubelet-api-admin");
        assert!(titles.contains(&"ConfigMap kube-public/cluster-info".to_owned()), "{titles:?}");
        let set: std::collections::BTreeSet<&String> = titles.iter().collect();
        assert_eq!(set.len(), titles.len());
        for object in wanted() {
            assert_eq!(object.value["metadata"]["labels"][MANAGED_BY.0], MANAGED_BY.1, "{}", object.title());
            assert_eq!(object.value["apiVersion"], object.resource.api_version, "{}", object.title());
        }
    }

    #[test]
    fn what_others_add_beside_ours_is_no_difference() {
        for object in wanted() {
            let mut value = object.value.clone();
            assert!(object.is_met_by(&found(value.clone())).unwrap(), "{}", object.title());
            value["metadata"]["resourceVersion"] = "7".into();
            value["metadata"]["annotations"] = serde_json::json!({ "note": "an operator's" });
            if value["kind"] == "ConfigMap" {
                // The controller-manager signs it for each bootstrap token.
                value["data"]["jws-kubeconfig-abcdef"] = "a signature".into();
            }
            assert!(object.is_met_by(&found(value)).unwrap(), "{}", object.title());
        }
    }

    #[test]
    fn whatever_is_changed_or_taken_from_ours_is_a_difference() {
        for object in wanted() {
            let mut leaves = Vec::new();
            pointers(&object.value, String::new(), &mut leaves);
            // A name is what it was asked for by.
            leaves.retain(|leaf| !["/apiVersion", "/kind", "/metadata/name"].contains(&leaf.as_str()));
            assert!(leaves.len() > 1, "{leaves:?}");
            for leaf in leaves {
                let mut value = object.value.clone();
                *value.pointer_mut(&leaf).unwrap() = "another".into();
                let met = object.is_met_by(&found(value)).unwrap();
                assert!(!met, "{}: {leaf}", object.title());
            }
        }
        let object = wanted().remove(0);
        let mut more = object.value.clone();
        more["subjects"].as_array_mut().unwrap().push(serde_json::json!({ "kind": "User", "name": "eve" }));
        assert!(!object.is_met_by(&found(more)).unwrap());
    }

    fn pointers(value: &Value, at: String, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    pointers(value, format!("{at}/{key}"), into);
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    pointers(value, format!("{at}/{index}"), into);
                }
            }
            Value::String(_) => into.push(at),
            other => panic!("{other} at {at}"),
        }
    }

    #[test]
    fn only_a_binding_to_another_role_is_made_anew() {
        let objects = wanted();
        let binding = &objects[0];
        let mut value = binding.value.clone();
        assert!(!binding.is_bound_elsewhere(&found(value.clone())));
        value["subjects"][0]["name"] = "eve".into();
        assert!(!binding.is_bound_elsewhere(&found(value.clone())));
        value["roleRef"]["name"] = "view".into();
        assert!(binding.is_bound_elsewhere(&found(value)));
        let map = objects.iter().find(|object| object.name == CLUSTER_INFO).unwrap();
        assert!(!map.is_bound_elsewhere(&found(map.value.clone())));
    }

    #[test]
    fn cluster_info_leads_to_the_api_and_holds_no_credential() {
        let objects = wanted();
        let map = objects.iter().find(|object| object.name == CLUSTER_INFO).unwrap();
        let text = map.value["data"]["kubeconfig"].as_str().unwrap();
        let read = kube::config::Kubeconfig::from_yaml(text).unwrap();
        assert!(read.auth_infos.is_empty() && read.contexts.is_empty() && read.other.is_empty(), "{text}");
        let cluster = read.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://api.example.com:6443"));
        assert!(cluster.certificate_authority_data.is_some());
    }

    #[test]
    fn strangers_are_given_nothing_and_joining_nodes_no_certificate_unseen() {
        for object in wanted() {
            let text = object.value.to_string();
            for never in
                ["system:anonymous", "system:unauthenticated", "requests:nodeclient", "system:authenticated"]
            {
                assert!(!text.contains(never), "{}: {never}", object.title());
            }
        }
    }
}
