//! The nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};

use super::own_node::{CORDONED, LEFT};
use super::{ApiCause, ApiClient, ApiError};
use crate::kubernetes::node::CONTROL_PLANE_TAINT;
use crate::model::enrolment::{ClusterNode, NodeReadiness};
use crate::model::ids::InstanceId;
use crate::model::step::GoneNode;
use crate::model::worker::OwnNode;

const ZONE: &str = "topology.kubernetes.io/zone";

impl ApiClient {
    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// All nodes, by name, as they are: a list from the API server's cache may lack one, whose name would seem free.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn all_nodes(&self) -> Result<BTreeMap<String, ClusterNode>, ApiError> {
        let failed = |source| ApiError::Read { object: "the nodes".to_owned(), source };
        let listed = self.nodes().list(&ListParams::default()).await.map_err(|error| failed(error.into()))?;
        // One that was passed over would be a name that nobody has.
        let nodes: Option<_> = listed.items.iter().map(decode).collect();
        nodes.ok_or_else(|| failed(ApiCause::NoAnswer("a node came without its name or id".to_owned())))
    }

    /// A node, as it sees itself; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn own_node(&self, name: &str) -> Result<Option<OwnNode>, ApiError> {
        let found = self.nodes().get_opt(name).await;
        let failed = |source| ApiError::Read { object: format!("Node {name}"), source };
        let found = found.map_err(|error| failed(error.into()))?;
        Ok(found.map(|node| OwnNode {
            name: name.to_owned(),
            readiness: readiness(&node),
            said: ready(&node).and_then(|condition| condition.message.clone()),
            cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            cordoned_here: node.metadata.annotations.is_some_and(|all| all.contains_key(CORDONED)),
        }))
    }

    /// Deletes a node, if it is still the one that was seen.
    ///
    /// # Errors
    /// [`ApiError::Delete`].
    pub async fn delete_node(&self, node: &GoneNode) -> Result<(), ApiError> {
        let seen = Preconditions { uid: Some(node.uid.clone()), resource_version: None };
        let params = DeleteParams::default().preconditions(seen);
        match self.nodes().delete(&node.name, &params).await {
            Ok(_) => Ok(()),
            // It is gone, or another one has its name: both will do.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => {
                Err(ApiError::Delete { object: format!("Node {}", node.name), source: error.into() })
            }
        }
    }
}

/// The instance in `aws:///ZONE/INSTANCE`.
fn instance(provider_id: &str) -> Option<InstanceId> {
    let (_, id) = provider_id.strip_prefix("aws://")?.rsplit_once('/')?;
    id.parse().ok()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

fn readiness(node: &Node) -> NodeReadiness {
    match ready(node).map(|condition| condition.status.as_str()) {
        Some("True") => NodeReadiness::Ready,
        Some("False") => NodeReadiness::NotReady,
        Some(_) | None => NodeReadiness::Silent,
    }
}

fn decode(node: &Node) -> Option<(String, ClusterNode)> {
    let metadata = &node.metadata;
    let labels = metadata.labels.as_ref();
    let spec = node.spec.as_ref();
    let tainted = spec
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| taint.key == CONTROL_PLANE_TAINT));
    let labelled = labels.is_some_and(|labels| labels.contains_key(CONTROL_PLANE_TAINT));
    let node = ClusterNode {
        uid: metadata.uid.clone()?,
        instance: spec.and_then(|spec| spec.provider_id.as_deref()).and_then(instance),
        readiness: readiness(node),
        zone: labels.and_then(|labels| labels.get(ZONE).cloned()),
        control_plane: tainted || labelled,
        left: metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LEFT)),
    };
    Some((metadata.name.clone()?, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_instance_is_the_last_part_of_its_provider_id() {
        let id: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        assert_eq!(instance("aws:///eu-west-1a/i-0123456789abcdef0"), Some(id));
        for other in ["", "aws://", "gce://project/zone/i-0123456789abcdef0", "aws:///eu-west-1a/"] {
            assert_eq!(instance(other), None, "{other}");
        }
    }

    #[test]
    fn a_node_is_silent_until_it_says_something() {
        let node = |ready: &str| -> Node {
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": "n", "uid": "u", "labels": { ZONE: "eu-west-1a" } },
                "spec": { "taints": [{ "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        for (ready, expected) in [
            ("True", NodeReadiness::Ready),
            ("False", NodeReadiness::NotReady),
            ("Unknown", NodeReadiness::Silent),
        ] {
            let (_, found) = decode(&node(ready)).unwrap();
            assert_eq!((found.readiness, found.control_plane), (expected, true));
            assert_eq!(found.zone.as_deref(), Some("eu-west-1a"));
        }
    }
}
