//! This machine's node and its pods, by the kubelet's own identity: the same on every machine, and with no power over any
//! other node.
//!
//! A node may close itself to new pods and evict those that are bound to it; it may not delete itself. So it says that
//! its machine has left, and who looks after the API deletes it.
//!
//! Source: `NodeRules` in Kubernetes' `bootstrappolicy`; the admission plugin `NodeRestriction`.

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

use super::{ApiCause, ApiClient, ApiError, FIELD_MANAGER};
use crate::host::{Root, files};
use crate::kubernetes::kubeconfig::{self, FoundCredential};
use crate::kubernetes::paths;
use crate::model::InstanceId;
use crate::model::departure::{LeavingNode, NodePod};
use crate::model::enrolment::NODE_USER;
use crate::model::fact::chain;
use crate::pki::node_identity::NodeIdentity;

/// The annotation of a node that its own agent has closed.
pub(super) const CORDONED: &str = "quorate/cordoned";
/// The annotation of a node whose machine has left; its value is the instance.
pub(super) const LEFT: &str = "quorate/left";
/// The kubelet's mark on a pod that stands for a static one.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// So many evictions are under way at a time.
const AT_ONCE: usize = 16;

impl ApiClient {
    /// The way that this machine's kubelet goes, and the node's name; `None` while the kubelet has no identity.
    ///
    /// # Errors
    /// What the kubelet goes by can't be read or used.
    pub fn of_the_kubelet(root: &Root) -> Result<Option<(Self, String)>, ApiError> {
        let unusable = |why: String| ApiError::Client(ApiCause::NoAnswer(why));
        let read =
            |path: &str| files::read_optional(&root.path(path)).map_err(|error| unusable(chain(&error)));
        let Some(bytes) = read(paths::KUBELET_KUBECONFIG)? else { return Ok(None) };
        let found =
            kubeconfig::read(&String::from_utf8_lossy(&bytes)).map_err(|error| unusable(chain(&error)))?;
        let identity = match &found.credential {
            FoundCredential::Files { certificate, .. } => match read(certificate)? {
                Some(bytes) => NodeIdentity::read(&bytes),
                None => return Ok(None),
            },
            FoundCredential::Embedded { certificate, key } => {
                NodeIdentity::read(format!("{certificate}\n{}", key.expose()).as_bytes())
            }
            FoundCredential::Token(_) => return Ok(None),
        };
        let identity = identity.map_err(|error| unusable(chain(&error)))?;
        let user = identity.user().map_err(|error| unusable(chain(&error)))?;
        let Some(name) = user.strip_prefix(NODE_USER) else {
            return Err(unusable(format!("the kubelet's certificate is {user:?}'s, which is no node")));
        };
        Ok(Some((Self::as_node(&found.server, &found.authority, &identity)?, name.to_owned())))
    }

    fn node_api(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A node that leaves, with those of its pods that are to leave before it; `None` when there is no such node. Of
    /// each that is not ending yet it is told whether the API would evict it now.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn leaving_node(&self, name: &str) -> Result<Option<LeavingNode>, ApiError> {
        let failed =
            |error: kube::Error| ApiError::Read { object: format!("Node {name}"), source: error.into() };
        let Some(node) = self.node_api().get_opt(name).await.map_err(failed)? else { return Ok(None) };
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        let has = |key: &str| node.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(key));
        let (cordoned_here, left) = (has(CORDONED), has(LEFT));
        let pods = if left { Vec::new() } else { self.pods_of(name, cordoned).await? };
        Ok(Some(LeavingNode { name: name.to_owned(), cordoned, cordoned_here, left, pods }))
    }

    async fn pods_of(&self, node: &str, asks: bool) -> Result<Vec<NodePod>, ApiError> {
        let failed = |source| ApiError::Read { object: format!("the pods of node {node}"), source };
        let all: Api<Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let listed = all.list(&params).await.map_err(|error| failed(error.into()))?;
        let mut pods: Vec<NodePod> =
            listed.items.iter().filter(|pod| is_to_leave(pod)).filter_map(decode).collect();
        if asks {
            for some in pods.chunks_mut(AT_ONCE) {
                let asked = some
                    .iter()
                    .map(async |pod| if pod.ending { Ok(None) } else { self.evict(pod, None, true).await });
                let answers = join_all(asked).await;
                for (pod, answer) in some.iter_mut().zip(answers) {
                    pod.refused = answer?;
                }
            }
        }
        Ok(pods)
    }

    /// Evicts a pod, or, `dry`, asks whether it would be evicted. The answer is why it is not; one that is gone is.
    ///
    /// # Errors
    /// [`ApiError::Evict`], where there is no answer.
    pub async fn evict(
        &self,
        pod: &NodePod,
        grace_s: Option<i64>,
        dry: bool,
    ) -> Result<Option<String>, ApiError> {
        let failed = |source| ApiError::Evict { pod: pod.title(), source };
        // The client's own eviction gives these options a name that the API does not know.
        let eviction = Eviction {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            delete_options: Some(DeleteOptions {
                grace_period_seconds: grace_s,
                preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams { dry_run: dry, field_manager: Some(FIELD_MANAGER.to_owned()) };
        let pods = self.pods(&pod.namespace);
        let answer: Result<Status, _> =
            pods.create_subresource("eviction", &pod.name, &params, &eviction).await;
        match answer {
            Ok(_) => Ok(None),
            // It is gone, or another one has its name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let causes: Vec<&str> =
                    causes.map(|cause| cause.message.as_str()).filter(|cause| !cause.is_empty()).collect();
                Ok(Some(if causes.is_empty() { status.message.clone() } else { causes.join(", ") }))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Closes a node to new pods.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn cordon(&self, node: &str) -> Result<(), ApiError> {
        let closed =
            json!({ "metadata": { "annotations": { CORDONED: "true" } }, "spec": { "unschedulable": true } });
        self.patch_node(node, &closed).await
    }

    /// Opens a node again that this closed, and takes back that its machine has left.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn reopen(&self, node: &str) -> Result<(), ApiError> {
        let open = json!({
            "metadata": { "annotations": { CORDONED: null, LEFT: null } },
            "spec": { "unschedulable": null },
        });
        self.patch_node(node, &open).await
    }

    /// Says on a node that its machine has left.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn mark_left(&self, node: &str, instance: &InstanceId) -> Result<(), ApiError> {
        let left = json!({ "metadata": { "annotations": { LEFT: instance.as_str() } } });
        self.patch_node(node, &left).await
    }

    async fn patch_node(&self, node: &str, change: &Value) -> Result<(), ApiError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.node_api().patch(node, &params, &Patch::Merge(change)).await {
            Ok(_) => Ok(()),
            // It was deleted in the meantime, which is what is wanted of it.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(ApiError::Apply { object: format!("Node {node}"), source: error.into() }),
        }
    }
}

/// Whether a pod leaves before its machine: not one of the machine's own, nor a DaemonSet's, which would come back, nor
/// one that has ended.
fn is_to_leave(pod: &Pod) -> bool {
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
    let owners = pod.metadata.owner_references.iter().flatten();
    let of_daemon_set =
        owners.clone().any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !mirror && !of_daemon_set && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn decode(pod: &Pod) -> Option<NodePod> {
    let metadata = &pod.metadata;
    Some(NodePod {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        ending: metadata.deletion_timestamp.is_some(),
        refused: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(change: Value) -> Pod {
        let mut pod = json!({
            "metadata": { "namespace": "default", "name": "web-0", "uid": "u" },
            "status": { "phase": "Running" },
        });
        json_patch(&mut pod, change);
        serde_json::from_value(pod).unwrap()
    }

    fn json_patch(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    json_patch(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    #[test]
    fn pods_of_the_machine_and_of_daemon_sets_stay_and_all_others_leave() {
        let owned = |kind: &str| {
            let owner = json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "x", "controller": true }]);
            pod(json!({ "metadata": { "ownerReferences": owner } }))
        };
        assert!(is_to_leave(&pod(json!({}))), "one that nobody owns dies with the machine");
        assert!(is_to_leave(&owned("ReplicaSet")));
        assert!(!is_to_leave(&owned("DaemonSet")));
        assert!(!is_to_leave(&pod(json!({ "metadata": { "annotations": { MIRROR: "x" } } }))));
        for ended in ["Succeeded", "Failed"] {
            assert!(!is_to_leave(&pod(json!({ "status": { "phase": ended } }))));
        }
    }

    #[test]
    fn a_pod_that_is_ending_is_told_as_such() {
        let ending = pod(json!({ "metadata": { "deletionTimestamp": "2026-01-21T09:00:43Z" } }));
        assert!(decode(&ending).unwrap().ending);
        assert!(!decode(&pod(json!({}))).unwrap().ending);
    }
}
