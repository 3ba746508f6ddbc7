//! What the stand-ins read: the kubelet's and kube-proxy's configuration, as strictly as the real ones read it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of `KubeletConfiguration`. Source: `kubelet.config.k8s.io/v1beta1` in Kubernetes' reference.
const KUBELET: &str = "address allowedUnsafeSysctls apiVersion authentication authorization cgroupDriver cgroupRoot \
    cgroupsPerQOS clusterDNS clusterDomain configMapAndSecretChangeDetectionStrategy containerLogMaxFiles \
    containerLogMaxSize containerLogMaxWorkers containerLogMonitorInterval containerRuntimeEndpoint contentType \
    cpuCFSQuota cpuCFSQuotaPeriod cpuManagerPolicy cpuManagerPolicyOptions cpuManagerReconcilePeriod crashLoopBackOff \
    defaultPodSysctls enableContentionProfiling enableControllerAttachDetach enableDebugFlagsHandler \
    enableDebuggingHandlers enableProfilingHandler enableServer enableSystemLogHandler enableSystemLogQuery \
    enforceNodeAllocatable eventBurst eventRecordQPS evictionHard evictionMaxPodGracePeriod evictionMinimumReclaim \
    evictionPressureTransitionPeriod evictionSoft evictionSoftGracePeriod failCgroupV1 failSwapOn featureGates \
    fileCheckFrequency hairpinMode healthzBindAddress healthzPort httpCheckFrequency imageGCHighThresholdPercent \
    imageGCLowThresholdPercent imageMaximumGCAge imageMinimumGCAge imagePullCredentialsVerificationPolicy \
    imageServiceEndpoint iptablesDropBit iptablesMasqueradeBit kernelMemcgNotification kind kubeAPIBurst kubeAPIQPS \
    kubeReserved kubeReservedCgroup kubeletCgroups localStorageCapacityIsolation logging makeIPTablesUtilChains \
    maxOpenFiles maxParallelImagePulls maxPods memoryManagerPolicy memoryReservationPolicy memorySwap \
    memoryThrottlingFactor mergeDefaultEvictionSettings nodeLeaseDurationSeconds nodeStatusMaxImages \
    nodeStatusReportFrequency nodeStatusUpdateFrequency oomScoreAdj podCIDR podLogsDir podPidsLimit podsPerCore port \
    preloadedImagesVerificationAllowlist protectKernelDefaults providerID qosReserved readOnlyPort registerNode \
    registerWithTaints registryBurst registryPullQPS reservedMemory reservedSystemCPUs resolvConf rotateCertificates \
    runOnce runtimeRequestTimeout seccompDefault serializeImagePulls serverTLSBootstrap showHiddenMetricsForVersion \
    shutdownGracePeriod shutdownGracePeriodByPodPriority shutdownGracePeriodCriticalPods singleProcessOOMKill \
    staticPodPath staticPodURL staticPodURLHeader streamingConnectionIdleTimeout syncFrequency systemCgroups \
    systemReserved systemReservedCgroup tlsCertFile tlsCipherSuites tlsCurvePreferences tlsMinVersion \
    tlsPrivateKeyFile topologyManagerPolicy topologyManagerPolicyOptions topologyManagerScope tracing userNamespaces \
    volumePluginDir volumeStatsAggPeriod";

/// The fields of `KubeProxyConfiguration`. Source: `kubeproxy.config.k8s.io/v1alpha1` in Kubernetes' reference.
const KUBE_PROXY: &str = "apiVersion bindAddress bindAddressHardFail clientConnection clusterCIDR configSyncPeriod \
    conntrack detectLocal detectLocalMode enableProfiling featureGates healthzBindAddress hostnameOverride iptables \
    ipvs kind logging metricsBindAddress mode nftables nodePortAddresses oomScoreAdj portRange \
    showHiddenMetricsForVersion windowsRunAsService winkernel";

/// What the stand-in does of a `KubeletConfiguration`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lab) struct KubeletConfiguration {
    /// Where manifests lie.
    pub static_pod_path: Option<String>,
    /// Where `/healthz` is served.
    #[serde(default = "loopback")]
    pub healthz_bind_address: IpAddr,
    /// On which port.
    #[serde(default = "healthz_port")]
    pub healthz_port: u16,
    /// On which port the kubelet is said to serve.
    #[serde(default = "port")]
    pub port: u16,
    /// Which machine of the cloud's it is.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// Whether it asks for a serving certificate.
    #[serde(default, rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    /// What its node is tainted with when it is first registered.
    #[serde(default)]
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// For how long its lease holds.
    #[serde(default = "lease")]
    pub node_lease_duration_seconds: u32,
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn healthz_port() -> u16 {
    10248
}

fn port() -> u16 {
    10250
}

fn lease() -> u32 {
    40
}

impl KubeletConfiguration {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        parse(path, &read(path)?, KUBELET, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
    }

    /// Where `/healthz` is served, if anywhere.
    pub fn healthz(&self) -> Option<SocketAddr> {
        (self.healthz_port != 0).then(|| SocketAddr::new(self.healthz_bind_address, self.healthz_port))
    }
}

/// What the stand-in does of a `KubeProxyConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lab) struct KubeProxyConfiguration {
    /// How it reaches the API.
    pub client_connection: ClientConnection,
    /// Its node's name.
    pub hostname_override: Option<String>,
    /// Where `/healthz` is served.
    #[serde(default = "proxy_healthz")]
    pub healthz_bind_address: String,
    /// How it would lead packets.
    #[serde(default)]
    pub mode: String,
}

/// How the API is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lab) struct ClientConnection {
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
}

fn proxy_healthz() -> String {
    "0.0.0.0:10256".to_owned()
}

impl KubeProxyConfiguration {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = read(path)?;
        let read: Self =
            parse(path, &file, KUBE_PROXY, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")?;
        let modes = ["", "iptables", "ipvs", "nftables"];
        if modes.contains(&read.mode.as_str()) {
            Ok(read)
        } else {
            Err(format!("{}: there is no mode {:?}", path.display(), read.mode))
        }
    }

    /// Where `/healthz` is served.
    pub fn healthz(&self) -> Result<SocketAddr, String> {
        let address = &self.healthz_bind_address;
        address.parse().map_err(|_| format!("healthzBindAddress {address:?} is no address with a port"))
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse<T: serde::de::DeserializeOwned>(
    path: &Path,
    text: &str,
    fields: &str,
    api: &str,
    kind: &str,
) -> Result<T, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let document: Map<String, Value> =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let unknown = document.keys().find(|key| !fields.split_whitespace().any(|field| field == *key));
    if let Some(unknown) = unknown {
        return Err(wrong(format!("unknown field {unknown:?}")));
    }
    for (key, expected) in [("apiVersion", api), ("kind", kind)] {
        if document.get(key).and_then(Value::as_str) != Some(expected) {
            return Err(wrong(format!("{key} is not {expected}")));
        }
    }
    serde_json::from_value(Value::Object(document)).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    const KIND: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn what_is_not_said_is_as_the_kubelet_has_it() {
        let read = KubeletConfiguration::read(file(KIND).path()).unwrap();
        assert_eq!(read.healthz(), Some("127.0.0.1:10248".parse().unwrap()));
        assert_eq!((read.static_pod_path, read.port, read.server_tls_bootstrap), (None, 10250, false));
        let off = KubeletConfiguration::read(file(&format!("{KIND}healthzPort: 0\n")).path()).unwrap();
        assert_eq!(off.healthz(), None);
    }

    #[test]
    fn a_field_that_the_kubelet_does_not_know_is_an_error() {
        let wrong = file(&format!("{KIND}staticPodsPath: /a\n"));
        let error = KubeletConfiguration::read(wrong.path()).unwrap_err();
        assert!(error.ends_with("unknown field \"staticPodsPath\""), "{error}");
        let other = file(&KIND.replace("v1beta1", "v1"));
        assert!(KubeletConfiguration::read(other.path()).unwrap_err().contains("apiVersion is not"));
    }

    #[test]
    fn kube_proxys_mode_is_one_that_there_is() {
        let text = |mode: &str| {
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
                 clientConnection: {{kubeconfig: /etc/kubernetes/kubelet.conf}}\n\
                 healthzBindAddress: 127.0.0.2:10256\n"
            )
        };
        let read = KubeProxyConfiguration::read(file(&text("nftables")).path()).unwrap();
        assert_eq!(read.healthz(), Ok("127.0.0.2:10256".parse().unwrap()));
        assert!(KubeProxyConfiguration::read(file(&text("userspace")).path()).is_err());
    }
}
