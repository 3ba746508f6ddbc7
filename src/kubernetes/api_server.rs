//! The API server's own files: who may come unknown, and what is written down.

use serde_json::{Value, json};

use super::{RenderError, yaml};

/// What load balancers, kubelets and `kubectl get --raw` ask for before anybody can show who he is.
const HEALTH: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// Anonymous requests see the three health paths and nothing else. `--anonymous-auth` must not be set beside it.
/// The form is `v1` in every version that is known here: it came with 1.34.
pub(super) fn authentication() -> Result<String, RenderError> {
    let paths: Vec<Value> = HEALTH.iter().map(|path| json!({ "path": path })).collect();
    let document = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": { "enabled": true, "conditions": paths },
    });
    yaml("the authentication's configuration", &document)
}

/// Who did what to which object, without the objects: neither secrets nor tokens reach the log. What programs do all
/// day without changing anything is left out; the first rule that fits decides.
/// Source: "Auditing", Kubernetes' documentation.
pub(super) fn audit_policy() -> Result<String, RenderError> {
    let core = |resources: &[&str]| json!([{ "group": "", "resources": resources }]);
    let document = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitManagedFields": true,
        "omitStages": ["RequestReceived"],
        "rules": [
            // Probes and discovery.
            { "level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/metrics"] },
            // Nobody's doing: programs that follow what they need to know.
            {
                "level": "None",
                "users": ["system:kube-proxy"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes"],
                "verbs": ["get", "list", "watch"],
                "resources": [{ "group": "", "resources": ["nodes", "nodes/status", "pods", "services"] }],
            },
            {
                "level": "None",
                "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "level": "None",
                "userGroups": ["system:serviceaccounts:kube-system"],
                "verbs": ["get", "list", "watch"],
                "resources": [
                    { "group": "", "resources": ["nodes", "pods", "services", "endpoints", "namespaces"] },
                    { "group": "discovery.k8s.io" },
                ],
            },
            // Leases are renewed every few seconds, events come in storms.
            { "level": "None", "resources": [{ "group": "coordination.k8s.io", "resources": ["leases"] }] },
            { "level": "None", "resources": [
                { "group": "", "resources": ["events"] },
                { "group": "events.k8s.io", "resources": ["events"] },
            ] },
            // Said again, so that nobody who adds a rule below writes down what must not be.
            { "level": "Metadata", "resources": core(&["secrets", "configmaps", "serviceaccounts/token"]) },
            { "level": "Metadata", "resources": [{ "group": "authentication.k8s.io", "resources": ["tokenreviews"] }] },
            // Who may do what: the answer to most questions that the log is asked.
            {
                "level": "Request",
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                "resources": [{ "group": "rbac.authorization.k8s.io" }],
            },
            { "level": "Metadata" },
        ],
    });
    yaml("the audit policy", &document)
}
