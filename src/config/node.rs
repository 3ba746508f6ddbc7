//! The value types of the keys that say what a node is called, how it is marked, and where its pods' addresses come
//! from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::units::text_serde;
use super::values::{InvalidValue, choice};

choice!(
    /// What a node is called.
    NodeNaming {
        /// By its instance's id.
        InstanceId = "instance-id",
        /// By the private DNS name that EC2 gives its instance.
        PrivateDnsName = "private-dns-name",
    }
);

choice!(
    /// Where pods' addresses come from.
    PodNetwork {
        /// From a range of the cluster's, of which each node has a part that the VPC's route tables lead to.
        Routed = "routed",
        /// From the VPC, by network interfaces of the node's: Amazon's VPC CNI.
        VpcCni = "vpc-cni",
        /// From wherever another network add-on has them.
        Other = "other",
    }
);

/// A label that the operator gives a node: `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeLabel {
    key: String,
    value: String,
}

/// A taint that the operator gives a node: `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeTaint {
    key: String,
    value: String,
    effect: TaintEffect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// They do not come.
    NoSchedule,
    /// They come where there is no other place.
    PreferNoSchedule,
    /// They do not come, and those that are there go.
    NoExecute,
}

impl TaintEffect {
    /// As Kubernetes has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// The labels that quorate sets itself, or the kubelet.
const OWNED_LABELS: [&str; 9] = [
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/lifecycle",
    "quorate.io/role",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

const LABEL_FORM: &str = "`KEY=VALUE`: the key a name with a DNS prefix or without, like `example.com/team`, name and \
                          value of at most 63 letters, digits, `-`, `_` and `.` with a letter or digit at both ends";
const LABEL_RESERVED: &str = "a label outside `kubernetes.io` and `k8s.io`, or in `node.kubernetes.io` or \
                              `kubelet.kubernetes.io`: a kubelet is not let give itself any other; set it on the Node \
                              object with kubectl";
const LABEL_OWNED: &str = "a label that quorate or the kubelet does not set itself";
const TAINT_FORM: &str = "`KEY=VALUE:EFFECT` or `KEY:EFFECT`, key and value as in labels, the effect `NoSchedule`, \
                          `PreferNoSchedule` or `NoExecute`";
const TAINT_OWNED: &str = "a taint that quorate does not set itself";

impl NodeLabel {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value, which may be empty.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl NodeTaint {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value, which may be empty.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Its effect.
    pub fn effect(&self) -> TaintEffect {
        self.effect
    }
}

/// The key in `KEY=VALUE` and `KEY=VALUE:EFFECT`: what two entries of a list may not have in common.
pub(super) fn key(entry: &str) -> &str {
    entry.split(['=', ':']).next().unwrap_or(entry)
}

/// A name of at most 63 characters, by "Labels and Selectors" in Kubernetes' documentation.
fn is_name(name: &str) -> bool {
    let ends = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    name.len() <= 63 && ends(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => super::kubernetes::is_domain(prefix) && is_name(name),
        None => is_name(key),
    }
}

/// What the kubelet's `--node-labels` and the admission plugin `NodeRestriction` let through.
/// Source: `pkg/kubelet/apis/well_known_labels.go` of Kubernetes.
fn is_for_kubelets(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let within =
        |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    within("node.kubernetes.io")
        || within("kubelet.kubernetes.io")
        || !(within("kubernetes.io") || within("k8s.io"))
}

impl FromStr for NodeLabel {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = |rule| InvalidValue { rule };
        let (key, value) = text.split_once('=').ok_or(rule(LABEL_FORM))?;
        if !is_key(key) || !is_value(value) {
            return Err(rule(LABEL_FORM));
        }
        if OWNED_LABELS.contains(&key) {
            return Err(rule(LABEL_OWNED));
        }
        if !is_for_kubelets(key) {
            return Err(rule(LABEL_RESERVED));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl FromStr for NodeTaint {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = |rule| InvalidValue { rule };
        let (front, effect) = text.rsplit_once(':').ok_or(rule(TAINT_FORM))?;
        let effect = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute]
            .into_iter()
            .find(|known| known.as_str() == effect)
            .ok_or(rule(TAINT_FORM))?;
        let (key, value) = front.split_once('=').unwrap_or((front, ""));
        if !is_key(key) || !is_value(value) {
            return Err(rule(TAINT_FORM));
        }
        if key == "node-role.kubernetes.io/control-plane" {
            return Err(rule(TAINT_OWNED));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect })
    }
}

text_serde!(NodeLabel);
text_serde!(NodeTaint);

/// `KEY=VALUE`.
impl fmt::Display for NodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// `KEY=VALUE:EFFECT`, or `KEY:EFFECT` without a value.
impl fmt::Display for NodeTaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        let effect = effect.as_str();
        if value.is_empty() { write!(f, "{key}:{effect}") } else { write!(f, "{key}={value}:{effect}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = InvalidValue>>(text: &str) -> &'static str {
        match text.parse::<T>() {
            Ok(_) => panic!("{text:?} was taken"),
            Err(error) => error.rule,
        }
    }

    #[test]
    fn labels_are_those_that_a_kubelet_may_give_itself() {
        for text in [
            "team=a",
            "example.com/team=",
            "example.com/Team_1=A.b-c",
            "node.kubernetes.io/pool=spot",
            "pool.node.kubernetes.io/name=x",
            "kubelet.kubernetes.io/x=y",
            "notkubernetes.io/x=y",
        ] {
            assert_eq!(text.parse::<NodeLabel>().unwrap().to_string(), text);
        }
        for text in ["", "team", "=a", "a b=c", "team=-a", "/x=y", "a/b/c=d", "Example.com/x=y", "team=a,b=c"]
        {
            assert_eq!(refusal::<NodeLabel>(text), LABEL_FORM, "{text}");
        }
        for text in ["node-role.kubernetes.io/worker=", "kubernetes.io/role=x", "x.k8s.io/y=z", "k8s.io/y=z"]
        {
            assert_eq!(refusal::<NodeLabel>(text), LABEL_RESERVED, "{text}");
        }
        for key in OWNED_LABELS {
            assert_eq!(refusal::<NodeLabel>(&format!("{key}=x")), LABEL_OWNED, "{key}");
        }
    }

    #[test]
    fn taints_have_a_key_and_an_effect() {
        for text in ["gpu:NoSchedule", "example.com/pool=batch:PreferNoSchedule", "a=b:NoExecute"] {
            assert_eq!(text.parse::<NodeTaint>().unwrap().to_string(), text);
        }
        assert_eq!("gpu=:NoSchedule".parse::<NodeTaint>().unwrap().to_string(), "gpu:NoSchedule");
        for text in ["", "gpu", "gpu:", "gpu:noschedule", ":NoSchedule", "a=b=c:NoSchedule", "a b:NoExecute"]
        {
            assert_eq!(refusal::<NodeTaint>(text), TAINT_FORM, "{text}");
        }
        assert_eq!(refusal::<NodeTaint>("node-role.kubernetes.io/control-plane:NoSchedule"), TAINT_OWNED);
    }

    #[test]
    fn entries_differ_by_their_keys() {
        assert_eq!(key("a=b:NoSchedule"), key("a:NoExecute"));
        assert_ne!(key("a=b"), key("a/b=b"));
    }
}
