//! The static pods, as typed values.
//!
//! Each runs as a user of its own with a read-only root file system and no capabilities, and sees its own directory of
//! `/etc/kubernetes` and the public one. The exception is the API server's `NET_BIND_SERVICE`: the program's file in the project's image
//! carries that capability, and does not start where it can't be had, although port 6443 needs none.
//! Requests and probes are kubeadm's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, HostPathVolumeSource, Pod,
    PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::component::Component;
use super::inputs::ControlPlaneInputs;
use super::{RenderedFile, flags, paths, sha256};
use crate::config::settings::{EnvVar as ExtraEnv, ExtraVolume, KubernetesSettings};

/// The annotation of a manifest that holds the digest of what its program reads at start.
pub const CONFIGURATION_DIGEST: &str = "quorate.io/configuration-digest";

/// How long requests that the API server has taken may go on after its shutdown delay, and it may take to end, in
/// seconds: its request time-out is 60 s.
const REQUESTS_END_SECONDS: i64 = 65;

/// How long the API server may take to end, in seconds.
pub(super) fn api_server_grace_period(settings: &KubernetesSettings) -> i64 {
    let delay = settings.api_server.shutdown_delay.as_millis().div_ceil(1000);
    // The setting's range ends at ten minutes.
    i64::try_from(delay).unwrap_or(i64::MAX - REQUESTS_END_SECONDS) + REQUESTS_END_SECONDS
}

/// The pod of a component, which reads these of the rendered files.
pub(super) fn pod(inputs: &ControlPlaneInputs, component: Component, read: &[&RenderedFile]) -> Pod {
    let name = component.name().to_owned();
    let digest = digest(inputs, read);
    let (volumes, mounts) = volumes(inputs, component);
    let user = i64::from(component.owner().id());
    Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-system".to_owned()),
            annotations: Some(BTreeMap::from([(CONFIGURATION_DIGEST.to_owned(), digest)])),
            labels: Some(BTreeMap::from([
                ("component".to_owned(), name.clone()),
                ("tier".to_owned(), "control-plane".to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(inputs, component, mounts)],
            host_network: Some(true),
            // A static pod is taken as it is: no admission turns the class into its number.
            priority: Some(2_000_001_000),
            priority_class_name: Some("system-node-critical".to_owned()),
            security_context: Some(PodSecurityContext {
                run_as_group: Some(user),
                run_as_non_root: Some(true),
                run_as_user: Some(user),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            termination_grace_period_seconds: Some(match component {
                Component::ApiServer => api_server_grace_period(&inputs.node.settings),
                Component::ControllerManager | Component::Scheduler => 30,
            }),
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// The digest of everything that the program reads only when it starts.
fn digest(inputs: &ControlPlaneInputs, read: &[&RenderedFile]) -> String {
    let mut parts = vec![inputs.authorities.as_str()];
    for file in read {
        parts.extend([file.path.as_str(), file.content.as_str()]);
    }
    let recovered = inputs.recovered.map(|generation| format!("recovered as generation {generation}"));
    parts.extend(recovered.as_deref());
    sha256(&parts)
}

fn container(inputs: &ControlPlaneInputs, component: Component, mounts: Vec<VolumeMount>) -> Container {
    let mut command = vec![component.name().to_owned()];
    command.extend(flags::flags(inputs, component));
    let (live, ready) = match component {
        Component::ApiServer | Component::Scheduler => ("/livez", Some("/readyz")),
        // It knows no other.
        Component::ControllerManager => ("/healthz", None),
    };
    let probe = |path, delay, timeout, failures, period| {
        Some(probe(inputs, component, path, [delay, timeout, failures, period]))
    };
    let port = i32::from(component.port());
    let environment: Vec<EnvVar> = extra_env(inputs, component)
        .iter()
        .map(|entry| {
            let (name, value) = entry.parts();
            EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
        })
        .collect();
    Container {
        name: component.name().to_owned(),
        image: Some(inputs.image(component)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(command),
        env: (!environment.is_empty()).then_some(environment),
        liveness_probe: probe(live, 10, 15, 8, 10),
        readiness_probe: ready.and_then(|path| probe(path, 0, 15, 3, 1)),
        startup_probe: probe(live, 10, 15, 24, 10),
        ports: Some(vec![ContainerPort {
            container_port: port,
            host_port: Some(port),
            name: Some("https".to_owned()),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([("cpu".to_owned(), Quantity(cpu(component).to_owned()))])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: (component == Component::ApiServer).then(|| vec!["NET_BIND_SERVICE".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn cpu(component: Component) -> &'static str {
    match component {
        Component::ApiServer => "250m",
        Component::ControllerManager => "200m",
        Component::Scheduler => "100m",
    }
}

/// Asks at the loopback address: delay, time-out and period are in seconds.
fn probe(
    inputs: &ControlPlaneInputs,
    component: Component,
    path: &str,
    [delay, timeout, failures, period]: [i32; 4],
) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            host: Some(inputs.loopback().to_string()),
            path: Some(path.to_owned()),
            port: IntOrString::Int(component.port().into()),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        failure_threshold: Some(failures),
        initial_delay_seconds: (delay > 0).then_some(delay),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        ..Probe::default()
    }
}

fn extra_env(inputs: &ControlPlaneInputs, component: Component) -> &[ExtraEnv] {
    let settings = &inputs.node.settings;
    match component {
        Component::ApiServer => &settings.api_server.additions.extra_env,
        Component::ControllerManager => &settings.controller_manager.additions.extra_env,
        Component::Scheduler => &settings.scheduler.additions.extra_env,
    }
}

fn extra_volumes(inputs: &ControlPlaneInputs, component: Component) -> &[ExtraVolume] {
    let settings = &inputs.node.settings;
    match component {
        Component::ApiServer => &settings.api_server.additions.extra_volumes,
        Component::ControllerManager => &settings.controller_manager.additions.extra_volumes,
        Component::Scheduler => &settings.scheduler.additions.extra_volumes,
    }
}

/// Quorate's directories have to be there: a directory that the kubelet made would be root's, and empty.
fn volumes(inputs: &ControlPlaneInputs, component: Component) -> (Vec<Volume>, Vec<VolumeMount>) {
    let own = Some("Directory");
    let mut all = vec![
        volume("configuration", component.directory(), component.directory(), false, own),
        volume("public", paths::PUBLIC_DIRECTORY, paths::PUBLIC_DIRECTORY, false, own),
    ];
    if component == Component::ApiServer {
        all.push(volume("audit", paths::AUDIT_DIRECTORY, paths::AUDIT_DIRECTORY, true, own));
    }
    let extra = extra_volumes(inputs, component);
    all.extend(extra.iter().enumerate().map(|(index, extra)| {
        let (from, to, writable) = extra.parts();
        volume(&format!("extra-{index}"), from, to, writable, None)
    }));
    all.into_iter().unzip()
}

fn volume(name: &str, from: &str, to: &str, writable: bool, kind: Option<&str>) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource { path: from.to_owned(), type_: kind.map(str::to_owned) }),
        ..Volume::default()
    };
    let mount = VolumeMount {
        name: name.to_owned(),
        mount_path: to.to_owned(),
        read_only: (!writable).then_some(true),
        ..VolumeMount::default()
    };
    (volume, mount)
}
