//! The operator's part of the kubelet's configuration: files of `/etc/quorate/kubelet.d`, merged into quorate's own.
//!
//! The kubelet has a directory of drop-ins of its own (`--config-dir`, stable since 1.35). These are merged here
//! instead, by the same rules and in the same order, for three reasons: what is quorate's can't be overridden unseen,
//! each value can be shown with the file that it comes from, and one file's digest says whether the kubelet has to be
//! started anew.
//!
//! Objects are merged key by key, everything else is replaced, and `null` takes a key out, so that the kubelet's own
//! default counts again. Source: "Kubelet Configuration Directory Merging", Kubernetes' documentation.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::version::KubernetesVersion;
use crate::model::node::DropIn;

/// The fields of `KubeletConfiguration` in all versions that are known here.
/// Source: `config/v1beta1/types.go` in kubernetes/kubelet, v0.34.0 to v0.37.
const FIELDS: &str = "\
    address allowedUnsafeSysctls authentication authorization cgroupDriver cgroupRoot cgroupsPerQOS \
    clusterDNS clusterDomain configMapAndSecretChangeDetectionStrategy containerLogMaxFiles \
    containerLogMaxSize containerLogMaxWorkers containerLogMonitorInterval containerRuntimeEndpoint \
    contentType cpuCFSQuota cpuCFSQuotaPeriod cpuManagerPolicy cpuManagerPolicyOptions \
    cpuManagerReconcilePeriod crashLoopBackOff enableContentionProfiling enableControllerAttachDetach \
    enableDebugFlagsHandler enableDebuggingHandlers enableProfilingHandler enableServer \
    enableSystemLogHandler enableSystemLogQuery enforceNodeAllocatable eventBurst eventRecordQPS \
    evictionHard evictionMaxPodGracePeriod evictionMinimumReclaim evictionPressureTransitionPeriod \
    evictionSoft evictionSoftGracePeriod failCgroupV1 failSwapOn featureGates fileCheckFrequency \
    hairpinMode healthzBindAddress healthzPort httpCheckFrequency imageGCHighThresholdPercent \
    imageGCLowThresholdPercent imageMaximumGCAge imageMinimumGCAge \
    imagePullCredentialsVerificationPolicy imageServiceEndpoint iptablesDropBit iptablesMasqueradeBit \
    kernelMemcgNotification kubeAPIBurst kubeAPIQPS kubeReserved kubeReservedCgroup kubeletCgroups \
    localStorageCapacityIsolation logging makeIPTablesUtilChains maxOpenFiles maxParallelImagePulls \
    maxPods memoryManagerPolicy memorySwap memoryThrottlingFactor mergeDefaultEvictionSettings \
    nodeLeaseDurationSeconds nodeStatusMaxImages nodeStatusReportFrequency nodeStatusUpdateFrequency \
    oomScoreAdj podCIDR podLogsDir podPidsLimit podsPerCore port preloadedImagesVerificationAllowlist \
    protectKernelDefaults providerID qosReserved readOnlyPort registerNode registerWithTaints \
    registryBurst registryPullQPS reservedMemory reservedSystemCPUs resolvConf rotateCertificates \
    runOnce runtimeRequestTimeout seccompDefault serializeImagePulls serverTLSBootstrap \
    showHiddenMetricsForVersion shutdownGracePeriod shutdownGracePeriodByPodPriority \
    shutdownGracePeriodCriticalPods singleProcessOOMKill staticPodPath staticPodURL staticPodURLHeader \
    streamingConnectionIdleTimeout syncFrequency systemCgroups systemReserved systemReservedCgroup \
    tlsCertFile tlsCipherSuites tlsMinVersion tlsPrivateKeyFile topologyManagerPolicy \
    topologyManagerPolicyOptions topologyManagerScope tracing userNamespaces volumePluginDir \
    volumeStatsAggPeriod";

/// Those that came later, with the minor version of 1 that they came with.
const LATER_FIELDS: [(&str, u16); 3] =
    [("defaultPodSysctls", 37), ("memoryReservationPolicy", 36), ("tlsCurvePreferences", 36)];

/// What no drop-in can set, and why.
const OWNED: [(&str, &str); 24] = [
    ("authentication.anonymous", "nobody comes unknown"),
    ("authentication.webhook.enabled", "the API server says who comes"),
    ("authentication.x509", "it names the cluster's CA"),
    ("authorization.mode", "the API server says who may"),
    ("cgroupDriver", "it is systemd's, as the container runtime's is"),
    ("clusterDomain", "it comes from `kubernetes.clusterDomain`"),
    ("containerRuntimeEndpoint", "it is containerd's"),
    ("enableServer", "the API server asks for logs there"),
    ("failCgroupV1", "control groups of version 1 are not supported"),
    ("maxPods", "it comes from `kubernetes.kubelet.maxPods`, and reserved memory with it"),
    ("port", "the API server asks for logs there"),
    ("providerID", "it says which instance the node is"),
    ("registerNode", "the kubelet registers its node"),
    ("registerWithTaints", "they come from `kubernetes.nodeTaints`"),
    ("rotateCertificates", "certificates are short-lived"),
    ("runOnce", "the kubelet stays"),
    ("serverTLSBootstrap", "the cluster's CA signs what the kubelet serves with"),
    ("shutdownGracePeriodByPodPriority", "it can't stand beside `shutdownGracePeriod`, which can be set"),
    ("staticPodPath", "quorate's own manifests lie there, and no others"),
    ("staticPodURL", "quorate's own manifests are the only ones"),
    ("staticPodURLHeader", "quorate's own manifests are the only ones"),
    ("tlsCertFile", "the cluster's CA signs what the kubelet serves with"),
    ("tlsPrivateKeyFile", "the cluster's CA signs what the kubelet serves with"),
    ("volumePluginDir", "it is the kubelet's default, which add-ons count on"),
];

/// What is wrong with a drop-in. Each names the file and the field.
#[derive(Debug, thiserror::Error)]
pub enum DropInError {
    /// It is no YAML.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: String,
        /// Why not; it says where.
        source: Box<serde_saphyr::Error>,
    },
    /// It is no object.
    #[error("{path} is no object of fields of KubeletConfiguration")]
    NoObject {
        /// The file.
        path: String,
    },
    /// It is an object of another kind.
    #[error("{path} has `{field}: {found}`, expected `{expected}`")]
    OtherKind {
        /// The file.
        path: String,
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A field that the version does not know.
    #[error("{path} sets `{field}`, which KubeletConfiguration does not have in {version}")]
    Unknown {
        /// The file.
        path: String,
        /// The field.
        field: String,
        /// The version.
        version: KubernetesVersion,
    },
    /// A field that is quorate's.
    #[error("{path} sets `{field}`, which is quorate's: {why}")]
    Owned {
        /// The file.
        path: String,
        /// The field.
        field: String,
        /// Why it can't be set.
        why: &'static str,
    },
    /// A field that is not what it has to be for what depends on it.
    #[error("{path} sets `{field}`, which is not {expected}")]
    Value {
        /// The file.
        path: String,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// All that is wrong with the drop-ins.
#[derive(Debug, thiserror::Error)]
pub struct DropInErrors(pub Vec<DropInError>);

impl fmt::Display for DropInErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            let before = if number == 0 { "" } else { "; " };
            write!(f, "{before}{error}")?;
        }
        Ok(())
    }
}

/// A configuration, and where each of the values that are not quorate's comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The whole.
    pub document: Value,
    /// The file of each value that comes from one, by the value's place, like `evictionHard."memory.available"`; of a
    /// value that is taken out, too.
    pub origins: BTreeMap<String, String>,
}

impl Effective {
    /// The file that the value at a place comes from, or that emptied it; none for quorate's own.
    pub fn origin(&self, place: &str) -> Option<&str> {
        let below = format!("{place}.");
        let emptied =
            || self.origins.iter().find(|(other, _)| other.starts_with(&below)).map(|found| found.1);
        self.origins.get(place).or_else(emptied).map(String::as_str)
    }

    /// Each value on a line, with where it comes from; `null` for one that is taken out.
    pub fn table(&self) -> String {
        let mut values = BTreeMap::new();
        walk(&self.document, &mut Vec::new(), &mut |place, value| {
            values.insert(place.to_owned(), value.to_string());
        });
        // An empty object is one of which everything is taken out, or that is set so.
        for place in self.origins.keys() {
            let is_set = values.keys().any(|set| set == place || set.starts_with(&format!("{place}.")));
            if !is_set {
                values.insert(place.clone(), Value::Null.to_string());
            }
        }
        let line = |(place, value): (&String, &String)| {
            format!("{place}: {value}  # {}\n", self.origin(place).unwrap_or("quorate"))
        };
        values.iter().map(line).collect()
    }

    /// Which files set what, as comments for the head of the configuration.
    pub(super) fn head(&self) -> String {
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (place, file) in &self.origins {
            files.entry(file).or_default().push(place);
        }
        let lines: Vec<String> =
            files.iter().map(|(file, places)| format!("# From {file}: {}\n", places.join(", "))).collect();
        lines.concat()
    }
}

/// Merges the drop-ins into quorate's own configuration for this version.
///
/// # Errors
/// All that is wrong with any of them; a value of the wrong type is left to the kubelet to refuse.
pub(super) fn merge(
    own: Value,
    drop_ins: &[DropIn],
    version: KubernetesVersion,
) -> Result<Effective, DropInErrors> {
    let mut effective = Effective { document: own, origins: BTreeMap::new() };
    let mut errors = Vec::new();
    for DropIn { path, text } in drop_ins {
        match read(path, text) {
            Ok(fields) => {
                errors.extend(check(path, &fields, version));
                let patch = Value::Object(fields);
                walk(&patch, &mut Vec::new(), &mut |place, _| {
                    // What was set below a value that is replaced is gone with it.
                    let below = format!("{place}.");
                    effective.origins.retain(|other, _| !other.starts_with(&below));
                    effective.origins.insert(place.to_owned(), path.clone());
                });
                apply(&mut effective.document, patch);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(effective) } else { Err(DropInErrors(errors)) }
}

fn read(path: &str, text: &str) -> Result<Map<String, Value>, DropInError> {
    let path = path.to_owned();
    let document: Value = match serde_saphyr::from_str(text) {
        Ok(document) => document,
        Err(source) => return Err(DropInError::Syntax { path, source: Box::new(source) }),
    };
    let mut fields = match document {
        Value::Object(fields) => fields,
        // Nothing but comments.
        Value::Null => Map::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(DropInError::NoObject { path });
        }
    };
    for (field, expected) in
        [("apiVersion", "kubelet.config.k8s.io/v1beta1"), ("kind", "KubeletConfiguration")]
    {
        match fields.remove(field) {
            Some(found) if found != expected => {
                return Err(DropInError::OtherKind { path, field, found: found.to_string(), expected });
            }
            Some(_) | None => {}
        }
    }
    Ok(fields)
}

fn check(path: &str, fields: &Map<String, Value>, version: KubernetesVersion) -> Vec<DropInError> {
    let known = |field: &str| {
        FIELDS.split_whitespace().any(|known| known == field)
            || LATER_FIELDS.iter().any(|(later, minor)| *later == field && version.minor() >= *minor)
    };
    let path = || path.to_owned();
    let mut errors: Vec<DropInError> = fields
        .keys()
        .filter(|field| !known(field))
        .map(|field| DropInError::Unknown { path: path(), field: field.clone(), version })
        .collect();
    walk(&Value::Object(fields.clone()), &mut Vec::new(), &mut |place, _| {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let owned = OWNED.iter().find(|(owned, _)| within(place, owned) || within(owned, place));
        errors.extend(owned.map(|(_, why)| DropInError::Owned {
            path: path(),
            field: place.to_owned(),
            why,
        }));
    });
    errors
}

/// RFC 7396.
fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(&key);
            } else {
                apply(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

/// Tells of each value that is no object, and each empty object, with its place.
fn walk(value: &Value, at: &mut Vec<String>, tell: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() || at.is_empty() => {
            for (key, value) in fields {
                at.push(if key.contains('.') { format!("{key:?}") } else { key.clone() });
                walk(value, at, tell);
                at.pop();
            }
        }
        _ => tell(&at.join("."), value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(files: &[(&str, &str)], version: &str) -> Result<Effective, String> {
        let own = json!({
            "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true } },
            "clusterDNS": ["10.96.0.10"],
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "10%" },
            "maxPods": 110,
        });
        let files: Vec<DropIn> = files
            .iter()
            .map(|(path, text)| DropIn { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        merge(own, &files, version.parse().unwrap()).map_err(|errors| errors.to_string())
    }

    #[test]
    fn later_files_win_key_by_key_and_lists_are_replaced() {
        let effective = merged(
            &[
                ("/d/10-a.conf", "clusterDNS: [169.254.20.10]\nevictionHard: {memory.available: 5%}\nlogging: {verbosity: 4}\n"),
                ("/d/20-b.conf", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
                                  evictionHard: {memory.available: 1Gi, imagefs.available: 20%}\nlogging: {verbosity: null}\n\
                                  authentication: {webhook: {cacheTTL: 1m}}\n"),
                ("/d/30-c.conf", "# Nothing but a remark.\n"),
            ],
            "v1.36.2",
        )
        .unwrap();
        insta::assert_snapshot!(effective.table(), @r#"
        authentication.anonymous.enabled: false  # quorate
        authentication.webhook.cacheTTL: "1m"  # /d/20-b.conf
        authentication.webhook.enabled: true  # quorate
        clusterDNS: ["169.254.20.10"]  # /d/10-a.conf
        evictionHard."imagefs.available": "20%"  # /d/20-b.conf
        evictionHard."memory.available": "1Gi"  # /d/20-b.conf
        evictionHard."nodefs.available": "10%"  # quorate
        logging: {}  # /d/20-b.conf
        logging.verbosity: null  # /d/20-b.conf
        maxPods: 110  # quorate
        "#);
        insta::assert_snapshot!(effective.head(), @r#"
        # From /d/10-a.conf: clusterDNS
        # From /d/20-b.conf: authentication.webhook.cacheTTL, evictionHard."imagefs.available", evictionHard."memory.available", logging.verbosity
        "#);
        assert!(effective.document["logging"]["verbosity"].is_null());
        assert_eq!(effective.origin("evictionHard.\"memory.available\""), Some("/d/20-b.conf"));
        assert_eq!(effective.origin("maxPods"), None);
    }

    #[test]
    fn what_is_quorates_is_refused_with_file_and_field() {
        for (field, why) in OWNED {
            let (nested, depth) = (field.replace('.', ": {"), field.matches('.').count());
            let text = format!("{nested}: {{x: y}}{}", "}".repeat(depth));
            let error = merged(&[("/d/a.conf", &text)], "v1.36.2").unwrap_err();
            assert!(
                error.contains("/d/a.conf") && error.contains(field) && error.contains(why),
                "{text}: {error}"
            );
        }
        for text in ["authentication: null", "authentication: {}", "authentication: 3", "authorization: []"] {
            let error = merged(&[("/d/a.conf", text)], "v1.36.2").unwrap_err();
            assert!(error.contains("which is quorate's"), "{text}: {error}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let error = merged(
            &[
                ("/d/a.conf", "maxPod: 3\nproviderID: x"),
                ("/d/b.conf", "a: [b"),
                ("/d/c.conf", "- a"),
                ("/d/d.conf", "kind: KubeProxyConfiguration"),
            ],
            "v1.36.2",
        )
        .unwrap_err();
        for part in [
            "`maxPod`",
            "`providerID`",
            "/d/b.conf: ",
            "/d/c.conf is no object",
            "expected `KubeletConfiguration`",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_field_is_known_from_the_version_that_it_came_with() {
        let files = [("/d/a.conf", "tlsCurvePreferences: [X25519]\n")];
        let error = merged(&files, "v1.35.4").unwrap_err();
        assert!(
            error.contains("`tlsCurvePreferences`, which KubeletConfiguration does not have in v1.35.4"),
            "{error}"
        );
        merged(&files, "v1.36.0").unwrap();
    }

    #[test]
    fn the_tables_are_sorted_and_own_only_what_there_is() {
        let known: Vec<&str> = FIELDS.split_whitespace().collect();
        assert!(known.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(OWNED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (owned, _) in OWNED {
            assert!(known.contains(&owned.split('.').next().unwrap()), "{owned}");
        }
    }
}
