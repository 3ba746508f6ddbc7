//! Who may do what in the API, asked of the API: a table of questions with the answers that there must be.
//!
//! Each identity asks for itself, as `kubectl auth can-i` does. What a bootstrap token may is compared as a whole,
//! since all of it comes from roles; what a node may is partly decided by what it runs, which no list tells.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};

use super::enrolment::{as_token, published};
use super::{Stage, Unmet, api};
use crate::kubernetes::paths;
use crate::lab::error::chain;

/// One of them: whether it may, the verb, the resource with its group and subresource
/// (`certificatesigningrequests.certificates.k8s.io/approval`), and an object (`NAMESPACE/NAME`, either of which may
/// be empty). `@` is the node's own name, `~` another's.
type Question = (bool, &'static str, &'static str, &'static str);

const YES: bool = true;
const NO: bool = false;

/// What kube-proxy and the kubelet ask with the identity that they share.
/// Source: `NodeRules` and `system:node-proxier` in Kubernetes' `bootstrappolicy`.
const NODE: &[Question] = &[
    // kube-proxy.
    (YES, "list", "services", ""),
    (YES, "watch", "services", ""),
    (YES, "list", "endpointslices.discovery.k8s.io", ""),
    (YES, "watch", "endpointslices.discovery.k8s.io", ""),
    (YES, "list", "nodes", ""),
    (YES, "watch", "nodes", ""),
    (YES, "get", "nodes", "/@"),
    (YES, "create", "events", "default/"),
    (YES, "create", "events.events.k8s.io", "default/"),
    (YES, "patch", "events.events.k8s.io", "default/"),
    // The kubelet.
    (YES, "create", "nodes", "/@"),
    (YES, "patch", "nodes/status", "/@"),
    (YES, "update", "leases.coordination.k8s.io", "kube-node-lease/@"),
    (YES, "create", "certificatesigningrequests.certificates.k8s.io", ""),
    (YES, "create", "tokenreviews.authentication.k8s.io", ""),
    (YES, "create", "subjectaccessreviews.authorization.k8s.io", ""),
    // Nobody's secrets and settings but those that its pods have.
    (NO, "list", "secrets", ""),
    (NO, "watch", "secrets", ""),
    (NO, "get", "secrets", "kube-system/drill"),
    (NO, "get", "secrets", "default/drill"),
    (NO, "list", "configmaps", ""),
    (NO, "get", "configmaps", "kube-system/extension-apiserver-authentication"),
    (NO, "get", "configmaps", "kube-public/cluster-info"),
    (NO, "update", "configmaps", "kube-public/cluster-info"),
    (NO, "create", "serviceaccounts/token", "kube-system/default"),
    // What leads packets is read, never written.
    (NO, "create", "endpointslices.discovery.k8s.io", "default/"),
    (NO, "update", "endpointslices.discovery.k8s.io", "default/kubernetes"),
    (NO, "patch", "endpointslices.discovery.k8s.io", "default/kubernetes"),
    (NO, "delete", "endpointslices.discovery.k8s.io", "default/kubernetes"),
    (NO, "update", "endpoints", "default/kubernetes"),
    (NO, "create", "services", "default/"),
    (NO, "update", "services/status", "default/kubernetes"),
    // Other machines, and the leases by which controllers lead.
    (NO, "delete", "nodes", "/@"),
    (NO, "delete", "nodes", "/~"),
    (NO, "deletecollection", "nodes", ""),
    (NO, "update", "leases.coordination.k8s.io", "kube-node-lease/~"),
    (NO, "update", "leases.coordination.k8s.io", "kube-system/quorate"),
    (NO, "update", "leases.coordination.k8s.io", "kube-system/kube-scheduler"),
    (NO, "get", "nodes/proxy", "/~"),
    (NO, "create", "pods/exec", "kube-system/drill"),
    // Certificates and powers.
    (NO, "update", "certificatesigningrequests.certificates.k8s.io/approval", ""),
    (NO, "update", "certificatesigningrequests.certificates.k8s.io/status", ""),
    (NO, "approve", "signers.certificates.k8s.io", "/kubernetes.io/kube-apiserver-client-kubelet"),
    (NO, "sign", "signers.certificates.k8s.io", "/kubernetes.io/kubelet-serving"),
    (NO, "create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
    (NO, "bind", "clusterroles.rbac.authorization.k8s.io", "/cluster-admin"),
    (NO, "impersonate", "users", "/system:admin"),
    (NO, "create", "deployments.apps", "default/"),
    (NO, "create", "daemonsets.apps", "kube-system/"),
    (NO, "create", "namespaces", ""),
    (NO, "*", "*.*", ""),
];

/// What a machine asks that has nothing but a bootstrap token.
const TOKEN: &[Question] = &[
    (YES, "create", "certificatesigningrequests.certificates.k8s.io", ""),
    (YES, "get", "certificatesigningrequests.certificates.k8s.io", "/drill"),
    (YES, "watch", "certificatesigningrequests.certificates.k8s.io", ""),
    (YES, "get", "configmaps", "kube-public/cluster-info"),
    (NO, "update", "certificatesigningrequests.certificates.k8s.io/approval", ""),
    (NO, "delete", "certificatesigningrequests.certificates.k8s.io", "/drill"),
    (NO, "approve", "signers.certificates.k8s.io", "/kubernetes.io/kube-apiserver-client-kubelet"),
    (NO, "list", "configmaps", "kube-public/"),
    (NO, "update", "configmaps", "kube-public/cluster-info"),
    (NO, "list", "secrets", ""),
    (NO, "get", "secrets", "kube-system/drill"),
    (NO, "create", "nodes", "/~"),
    (NO, "list", "nodes", ""),
    (NO, "list", "services", ""),
    (NO, "list", "pods", ""),
    (NO, "update", "leases.coordination.k8s.io", "kube-system/quorate"),
    (NO, "impersonate", "groups", "/system:nodes"),
    (NO, "*", "*.*", ""),
];

/// All that a bootstrap token may, in any namespace but `kube-public`: what everybody may who is known, and this.
/// Source: `system:basic-user` and `system:node-bootstrapper` in Kubernetes' `bootstrappolicy`.
const ALL_OF_A_TOKEN: [&str; 7] = [
    "create certificatesigningrequests.certificates.k8s.io",
    "create selfsubjectaccessreviews.authorization.k8s.io",
    "create selfsubjectreviews.authentication.k8s.io",
    "create selfsubjectrulesreviews.authorization.k8s.io",
    "get certificatesigningrequests.certificates.k8s.io",
    "list certificatesigningrequests.certificates.k8s.io",
    "watch certificatesigningrequests.certificates.k8s.io",
];

fn told(error: &(dyn std::error::Error + 'static)) -> Unmet {
    Unmet::Broken(chain(error))
}

/// The identity of nodes, and the bootstrap token, may do what they must and nothing else.
pub(super) async fn only_what_they_must(stage: &Stage, admin: &Config) -> Result<(), Unmet> {
    let machines = stage.lab.control_plane();
    let [one, other, ..] = &machines[..] else {
        return Err(Unmet::Broken("there are no two machines".to_owned()));
    };
    let (own, others) = (&one.identity().instance, &other.identity().instance);
    let path = one.root().join(paths::KUBELET_KUBECONFIG.trim_start_matches('/'));
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| told(&error))?;
    let node = api::client_by(kubeconfig, admin).await?;
    let token = as_token(admin, &published(&stage.lab).await?.token)?;
    let mut wrong = answers("a node", &node, NODE, own, others).await?;
    wrong.extend(answers("a bootstrap token", &token, TOKEN, own, others).await?);
    for namespace in ["default", "kube-system", "kube-node-lease"] {
        let all = all_of(&token, namespace).await?;
        let expected: BTreeSet<String> = ALL_OF_A_TOKEN.map(str::to_owned).into();
        wrong.extend(
            all.difference(&expected).map(|may| format!("a bootstrap token may {may} in {namespace}")),
        );
        wrong.extend(
            expected.difference(&all).map(|may| format!("a bootstrap token may not {may} in {namespace}")),
        );
    }
    if wrong.is_empty() { Ok(()) } else { Err(Unmet::Broken(wrong.join("; "))) }
}

/// What is answered otherwise than it must be.
async fn answers(
    who: &str,
    client: &Client,
    questions: &[Question],
    own: &str,
    others: &str,
) -> Result<Vec<String>, Unmet> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut wrong = Vec::new();
    for (expected, verb, resource, object) in questions {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes(verb, resource, &name(object, own, others))),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| told(&error))?;
        let status = answer.status.unwrap_or_default();
        if status.allowed != *expected || status.evaluation_error.is_some() {
            let (may, why) = (if status.allowed { "may" } else { "may not" }, status.reason);
            let error = status.evaluation_error.unwrap_or_default();
            wrong.push(format!("{who} {may} {verb} {resource} {object}: {}{error}", why.unwrap_or_default()));
        }
    }
    Ok(wrong)
}

fn name(object: &str, own: &str, others: &str) -> String {
    object.replace('@', own).replace('~', others)
}

fn attributes(verb: &str, resource: &str, object: &str) -> ResourceAttributes {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // A signer's name has a slash of its own: the first one parts.
    let (namespace, name) = object.split_once('/').unwrap_or_default();
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    ResourceAttributes {
        group: some(group),
        name: some(name),
        namespace: some(namespace),
        resource: some(resource),
        subresource: some(subresource),
        verb: some(verb),
        ..ResourceAttributes::default()
    }
}

/// All that an identity may in a namespace, as far as roles say.
async fn all_of(client: &Client, namespace: &str) -> Result<BTreeSet<String>, Unmet> {
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| told(&error))?;
    let mut all = BTreeSet::new();
    for rule in answer.status.unwrap_or_default().resource_rules {
        for verb in &rule.verbs {
            for resource in rule.resources.as_deref().unwrap_or_default() {
                for group in rule.api_groups.as_deref().unwrap_or_default() {
                    let dot = if group.is_empty() { "" } else { "." };
                    all.insert(format!("{verb} {resource}{dot}{group}"));
                }
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_put_as_kubernetes_has_it() {
        let asked = attributes("update", "certificatesigningrequests.certificates.k8s.io/approval", "");
        assert_eq!(asked.resource.as_deref(), Some("certificatesigningrequests"));
        assert_eq!(asked.group.as_deref(), Some("certificates.k8s.io"));
        assert_eq!(asked.subresource.as_deref(), Some("approval"));
        assert_eq!((asked.namespace, asked.name), (None, None));
        let asked = attributes("approve", "signers.certificates.k8s.io", "/kubernetes.io/kubelet-serving");
        assert_eq!((asked.namespace, asked.name.as_deref()), (None, Some("kubernetes.io/kubelet-serving")));
        let asked = attributes("get", "secrets", &name("kube-system/@", "i-0", "i-1"));
        assert_eq!((asked.group, asked.namespace.as_deref()), (None, Some("kube-system")));
        assert_eq!(asked.name.as_deref(), Some("i-0"));
        let asked = attributes("*", "*.*", "");
        assert_eq!((asked.resource.as_deref(), asked.group.as_deref()), (Some("*"), Some("*")));
    }

    #[test]
    fn no_question_is_there_twice() {
        for questions in [NODE, TOKEN] {
            let asked: BTreeSet<_> =
                questions.iter().map(|(_, verb, what, object)| (verb, what, object)).collect();
            assert_eq!(asked.len(), questions.len());
        }
    }
}
