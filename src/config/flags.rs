//! The flags that operators add to the programs of the control plane, and those that quorate sets itself.
//!
//! A flag that quorate sets can't be set again, in silence or otherwise: the programs take the last one of two, and
//! the cluster would not be what the agent believes it to be. Flags that undo one of quorate's without having its
//! name are refused likewise. Which other flags a version knows is not known here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::units::text_serde;
use super::values::InvalidValue;

const FORM: &str = "`--flag=value` in printable ASCII, the flag in lower case and written out, like `--v=2`";

/// The flags that may be given more than once.
const REPEATABLE: &[&str] = &["tls-sni-cert-key"];

/// A flag that quorate sets or refuses, and the rule that says so.
type Owned = (&'static str, &'static str);

macro_rules! owned {
    ($($flag:literal: $why:literal),+ $(,)?) => {
        &[$(($flag, concat!("a flag that is not quorate's own: `--", $flag, "` ", $why))),+]
    };
}

/// The flags of kube-apiserver that are quorate's.
pub(crate) const API_SERVER: &[Owned] = owned! {
    "advertise-address": "is the node's address",
    "allow-privileged": "is always true: network and storage need it",
    "anonymous-auth": "is replaced by an authentication configuration, which lets anonymous requests see health only",
    "audit-log-maxage": "comes from `kubernetes.apiServer.auditLog.maxAge`",
    "audit-log-maxbackup": "comes from `kubernetes.apiServer.auditLog.maxBackups`",
    "audit-log-maxsize": "comes from `kubernetes.apiServer.auditLog.maxSize`",
    "audit-log-path": "is where the log's volume is mounted",
    "audit-policy-file": "names quorate's own policy",
    "authentication-config": "names quorate's own configuration",
    "authorization-config": "is left out: the authorizers are Node and RBAC",
    "authorization-mode": "is always Node,RBAC",
    "bind-address": "follows the node's address",
    "cert-dir": "is left out: certificates are named one by one",
    "client-ca-file": "names the cluster's CA",
    "enable-admission-plugins": "is always NodeRestriction beside the default ones",
    "enable-bootstrap-token-auth": "is always true: nodes join by it",
    "encryption-provider-config": "names quorate's own configuration",
    "encryption-provider-config-automatic-reload": "is left out: a changed configuration restarts the API server",
    "endpoint-reconciler-type": "follows the node's address",
    "etcd-cafile": "names etcd's CA",
    "etcd-certfile": "names quorate's own certificate",
    "etcd-keyfile": "names quorate's own key",
    "etcd-prefix": "is the default: other agents of the cluster read it",
    "etcd-servers": "comes from etcd's members",
    "goaway-chance": "comes from `kubernetes.apiServer.goawayChance`",
    "kubelet-certificate-authority": "names the cluster's CA",
    "kubelet-client-certificate": "names quorate's own certificate",
    "kubelet-client-key": "names quorate's own key",
    "kubelet-preferred-address-types": "begins with InternalIP, which kubelets' certificates name",
    "oidc-ca-file": "can't be used beside an authentication configuration",
    "oidc-client-id": "can't be used beside an authentication configuration",
    "oidc-groups-claim": "can't be used beside an authentication configuration",
    "oidc-groups-prefix": "can't be used beside an authentication configuration",
    "oidc-issuer-url": "can't be used beside an authentication configuration",
    "oidc-required-claim": "can't be used beside an authentication configuration",
    "oidc-signing-algs": "can't be used beside an authentication configuration",
    "oidc-username-claim": "can't be used beside an authentication configuration",
    "oidc-username-prefix": "can't be used beside an authentication configuration",
    "profiling": "is always false",
    "proxy-client-cert-file": "names quorate's own certificate",
    "proxy-client-key-file": "names quorate's own key",
    "requestheader-allowed-names": "is always front-proxy-client",
    "requestheader-client-ca-file": "names the front proxy's CA",
    "requestheader-extra-headers-prefix": "is always X-Remote-Extra-",
    "requestheader-group-headers": "is always X-Remote-Group",
    "requestheader-username-headers": "is always X-Remote-User",
    "secure-port": "is always 6443",
    "service-account-issuer": "comes from `kubernetes.serviceAccountIssuer`",
    "service-account-key-file": "names the cluster's key",
    "service-account-signing-endpoint": "can't be used beside the cluster's key",
    "service-account-signing-key-file": "names the cluster's key",
    "service-cluster-ip-range": "comes from `kubernetes.serviceSubnet`",
    "shutdown-delay-duration": "comes from `kubernetes.apiServer.shutdownDelay`",
    "shutdown-watch-termination-grace-period": "is short, so that the API server ends soon",
    "tls-cert-file": "names quorate's own certificate",
    "tls-cipher-suites": "are those that fit the API server's own certificate",
    "tls-min-version": "comes from `kubernetes.apiServer.tlsMinVersion`",
    "tls-private-key-file": "names quorate's own key",
    "token-auth-file": "is refused: tokens in a file never end",
};

/// The flags of kube-controller-manager that are quorate's.
pub(crate) const CONTROLLER_MANAGER: &[Owned] = owned! {
    "allocate-node-cidrs": "follows `kubernetes.podSubnet`",
    "authentication-kubeconfig": "names quorate's own kubeconfig",
    "authorization-kubeconfig": "names quorate's own kubeconfig",
    "bind-address": "is loopback",
    "client-ca-file": "names the cluster's CA",
    "cluster-cidr": "comes from `kubernetes.podSubnet`",
    "cluster-name": "is the cluster's name",
    "cluster-signing-cert-file": "names the cluster's CA",
    "cluster-signing-key-file": "names the cluster's CA",
    "cluster-signing-kube-apiserver-client-cert-file": "can't be used beside the cluster's CA",
    "cluster-signing-kube-apiserver-client-key-file": "can't be used beside the cluster's CA",
    "cluster-signing-kubelet-client-cert-file": "can't be used beside the cluster's CA",
    "cluster-signing-kubelet-client-key-file": "can't be used beside the cluster's CA",
    "cluster-signing-kubelet-serving-cert-file": "can't be used beside the cluster's CA",
    "cluster-signing-kubelet-serving-key-file": "can't be used beside the cluster's CA",
    "cluster-signing-legacy-unknown-cert-file": "can't be used beside the cluster's CA",
    "cluster-signing-legacy-unknown-key-file": "can't be used beside the cluster's CA",
    "controllers": "has the signer and cleaner of bootstrap tokens, and no approver of nodes' certificates",
    "kubeconfig": "names quorate's own kubeconfig",
    "leader-elect": "is always true",
    "leader-elect-lease-duration": "comes from `kubernetes.leaderElection.leaseDuration`",
    "leader-elect-renew-deadline": "comes from `kubernetes.leaderElection.renewDeadline`",
    "leader-elect-resource-lock": "is always leases",
    "leader-elect-resource-name": "is the default: all members stand for one lease",
    "leader-elect-resource-namespace": "is the default: all members stand for one lease",
    "leader-elect-retry-period": "comes from `kubernetes.leaderElection.retryPeriod`",
    "master": "is in quorate's own kubeconfig",
    "profiling": "is always false",
    "requestheader-client-ca-file": "names the front proxy's CA",
    "root-ca-file": "names the cluster's CA",
    "secure-port": "is always 10257",
    "service-account-private-key-file": "names the cluster's key",
    "service-cluster-ip-range": "comes from `kubernetes.serviceSubnet`",
    "tls-min-version": "is always VersionTLS13",
    "use-service-account-credentials": "is always true",
};

/// The flags of kube-scheduler that are quorate's.
pub(crate) const SCHEDULER: &[Owned] = owned! {
    "authentication-kubeconfig": "names quorate's own kubeconfig",
    "authorization-kubeconfig": "names quorate's own kubeconfig",
    "bind-address": "is loopback",
    "config": "names the configuration, which `kubernetes.scheduler.config` replaces",
    "contention-profiling": "is ignored beside a configuration",
    "kube-api-burst": "is ignored beside a configuration",
    "kube-api-content-type": "is ignored beside a configuration",
    "kube-api-qps": "is ignored beside a configuration",
    "kubeconfig": "is ignored beside a configuration",
    "leader-elect": "is always true",
    "leader-elect-lease-duration": "comes from `kubernetes.leaderElection.leaseDuration`",
    "leader-elect-renew-deadline": "comes from `kubernetes.leaderElection.renewDeadline`",
    "leader-elect-resource-lock": "is always leases",
    "leader-elect-resource-name": "is the default: all members stand for one lease",
    "leader-elect-resource-namespace": "is the default: all members stand for one lease",
    "leader-elect-retry-period": "comes from `kubernetes.leaderElection.retryPeriod`",
    "master": "is in quorate's own kubeconfig",
    "profiling": "is ignored beside a configuration",
    "secure-port": "is always 10259",
    "tls-min-version": "is always VersionTLS13",
    "write-config-to": "is refused: the scheduler would write it and end",
};

fn is_printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// The flag's name, without dashes, and its value.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix("--")?.split_once('=')?;
    let fine = name.len() >= 2
        && text.len() <= 4096
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && value.bytes().all(is_printable);
    // The one flag of a single letter.
    let fine = fine || (name == "v" && !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()));
    fine.then_some((name, value))
}

/// What two entries of a list may not have in common: the flag, unless it may be given more than once.
pub(super) fn identity(text: &str) -> &str {
    match parts(text) {
        Some((name, _)) if !REPEATABLE.contains(&name) => name,
        Some(_) | None => text,
    }
}

macro_rules! extra_argument {
    ($(#[$doc:meta])* $name:ident, $owned:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// `--flag=value`.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let (name, _) = parts(text).ok_or(InvalidValue { rule: FORM })?;
                match $owned.iter().find(|(owned, _)| *owned == name) {
                    Some((_, rule)) => Err(InvalidValue { rule }),
                    None => Ok(Self(text.to_owned())),
                }
            }
        }

        text_serde!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

extra_argument!(
    /// A flag that the operator adds to kube-apiserver.
    ApiServerArgument,
    API_SERVER
);
extra_argument!(
    /// A flag that the operator adds to kube-controller-manager.
    ControllerManagerArgument,
    CONTROLLER_MANAGER
);
extra_argument!(
    /// A flag that the operator adds to kube-scheduler.
    SchedulerArgument,
    SCHEDULER
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_flag_written_out_with_a_value() {
        let taken = |text: &str| text.parse::<ApiServerArgument>().is_ok();
        for good in [
            "--v=2",
            "--feature-gates=AllBeta=true,AllAlpha=false",
            "--event-ttl=2h",
            "--default-x=",
            "--a1= x\"'",
        ] {
            assert!(taken(good), "{good}");
        }
        for bad in [
            "",
            "--",
            "--=",
            "-v=2",
            "v=2",
            "--v",
            "--v 2",
            "--feature_gates=x",
            "--Event-ttl=1h",
            "--event-=1",
            "--event-ttl=1\n--profiling=true",
            "--v=x",
            "--2=3",
            "--event-ttl=ä",
        ] {
            assert!(!taken(bad), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_flag_that_quorate_sets_is_refused_with_what_it_comes_from() {
        for (flag, rule) in API_SERVER {
            let error = format!("--{flag}=x").parse::<ApiServerArgument>().unwrap_err();
            assert_eq!(error.rule, *rule);
            assert!(rule.contains(&format!("`--{flag}` ")), "{rule}");
        }
        assert!("--cluster-cidr=10.0.0.0/8".parse::<ControllerManagerArgument>().is_err());
        assert!("--config=/x".parse::<SchedulerArgument>().is_err());
        assert!("--config=/x".parse::<ApiServerArgument>().is_ok(), "another program's");
    }

    #[test]
    fn the_tables_are_sorted_and_name_each_flag_once() {
        for table in [API_SERVER, CONTROLLER_MANAGER, SCHEDULER] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "{table:?}");
        }
    }

    #[test]
    fn two_entries_differ_by_their_flag() {
        assert_eq!(identity("--v=1"), identity("--v=2"));
        assert_ne!(identity("--tls-sni-cert-key=a,b"), identity("--tls-sni-cert-key=c,d"));
    }
}
