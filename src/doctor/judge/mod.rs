//! What the doctor makes of what was seen. Pure: the same is found in the same.

mod bucket;
mod host;

use super::seen::{AroundSeen, EndpointSeen, Seen};
use super::{Diagnosis, Finding, VERSION};
use crate::aws::MetadataOptions;
use crate::config::Settings;
use crate::config::settings::{ControlPlaneKind, VolumeSource};
use crate::kubernetes::KubernetesVersion;
use crate::model::containerd::ContainerdObservation;
use crate::model::disk::Content;
use crate::model::{EtcdVersion, Fact, Identity, InstanceState, Observation, Role, VolumeState};
use crate::plan::plan;

/// How much is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// The bucket, and what this role may do in it.
    Bucket,
}

/// What is found in what was seen.
pub fn judge(seen: &Seen, scope: Scope) -> Diagnosis {
    let mut findings = vec![metadata(seen), configuration(seen)];
    if scope == Scope::All {
        findings.push(tags_published(seen));
        findings.extend(host::findings(&seen.host));
    }
    if let (Fact::Known(settings), Some(around)) = (&seen.settings, &seen.around) {
        let identity = seen.identity.known();
        if scope == Scope::All {
            findings.extend(all_around(settings, identity, seen, around));
        }
        findings.extend(bucket::corner(settings.role, &around.corner));
        findings.extend(bucket::settings(settings, identity.map(|me| &me.region), &around.bucket));
        if let (Scope::All, Some(observation)) = (scope, &around.observation) {
            findings.extend(planner(settings, observation));
        }
    }
    Diagnosis { version: VERSION, at: seen.at, findings }
}

fn all_around(
    settings: &Settings,
    identity: Option<&Identity>,
    seen: &Seen,
    around: &AroundSeen,
) -> Vec<Finding> {
    let mut findings = vec![metadata_options(&around.metadata), host::offset(&around.ahead_of_s3_ms)];
    findings.extend(
        identity
            .map(|me| host::port_findings(settings, me.address, &seen.host.listeners))
            .unwrap_or_default(),
    );
    findings.extend(programs(settings, around));
    if settings.role == Role::ControlPlane {
        if let Some(observation) = &around.observation {
            findings.push(own_instance(identity, observation));
            findings.push(zones(settings, observation));
            findings.push(volume(settings, identity, observation));
            findings.push(device(observation));
            findings.push(charter(observation));
        }
        findings.extend(around.actions.iter().map(|(action, may)| permission(action, may)));
    }
    if settings.kubernetes.control_plane == ControlPlaneKind::StaticPods {
        findings.extend(endpoint(settings.role, around.endpoint.as_ref()));
    }
    findings
}

fn metadata(seen: &Seen) -> Finding {
    let open = Finding::of("metadata", "the metadata service tells who this machine is");
    match &seen.identity {
        Fact::Known(me) => open.ok(format!("{} in {}, {}", me.instance, me.zone, me.address)),
        Fact::Unknown(why) => open.failed(
            why,
            "enable the instance's metadata service (http-endpoint enabled), and let nothing keep this machine from \
             169.254.169.254",
        ),
    }
}

fn configuration(seen: &Seen) -> Finding {
    let open = Finding::of("configuration", "a configuration without errors");
    match &seen.settings {
        Fact::Known(settings) => open.ok(format!(
            "cluster {}, role {}, bucket {}",
            settings.cluster,
            settings.role,
            settings.bucket.as_str()
        )),
        Fact::Unknown(why) => open.failed(
            why,
            "correct user data, /etc/quorate/config.d or the tags; `quorate config check` reads them",
        ),
    }
}

fn tags_published(seen: &Seen) -> Finding {
    let open = Finding::of("metadata.tags", "the metadata service publishes the instance's tags");
    match &seen.tags_published {
        Fact::Known(true) => open.ok("published"),
        Fact::Known(false) => open.warning(
            "not published",
            "set instance-metadata-tags to enabled in the launch template: else every machine needs \
             ec2:DescribeInstances at boot, and a thousand at once are throttled",
        ),
        Fact::Unknown(why) => open.unknown(why),
    }
}

fn metadata_options(options: &Fact<MetadataOptions>) -> Finding {
    let open = Finding::of("metadata.options", "version 2 only (http-tokens required), hop limit 1 or 2");
    let options = match options {
        Fact::Known(options) => options,
        Fact::Unknown(why) => return open.unknown(why),
    };
    let hops = options.hop_limit.map_or_else(|| "not told".to_owned(), |hops| hops.to_string());
    match options.tokens_required {
        None => open.unknown(format!("EC2 does not say whether tokens are required; hop limit {hops}")),
        Some(false) => open.warning(
            format!("version 1 is answered, too; hop limit {hops}"),
            "set http-tokens to required in the launch template: by version 1 whatever makes this machine fetch a URL \
             gets the role's credentials",
        ),
        Some(true) if options.hop_limit.is_some_and(|hops| hops > 2) => open.warning(
            format!("version 2 only, hop limit {hops}"),
            "set the hop limit to 1, or to 2 where pods are to reach the metadata service",
        ),
        Some(true) => open.ok(format!("version 2 only, hop limit {hops}")),
    }
}

fn programs(settings: &Settings, around: &AroundSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let observation = around.observation.as_ref();
    if let (Role::ControlPlane, Some(observation)) = (settings.role, observation) {
        findings.push(etcd(settings, &observation.etcd.version));
    }
    if settings.kubernetes.control_plane == ControlPlaneKind::None {
        return findings;
    }
    let kubernetes = &settings.kubernetes;
    for (name, path, found) in [
        ("kubelet", kubernetes.kubelet_binary.as_str(), &around.kubelet),
        ("kube-proxy", kubernetes.kube_proxy_binary.as_str(), &around.kube_proxy),
    ] {
        let open = Finding::of(
            format!("program.{name}"),
            format!("{path}, 1.{} to 1.{}", KubernetesVersion::OLDEST_MINOR, KubernetesVersion::NEWEST_MINOR),
        );
        findings.push(match found {
            Fact::Known(version) => open.ok(version.to_string()),
            Fact::Unknown(why) => open.failed(why, format!("install {name} at {path} in the image")),
        });
    }
    findings.push(containerd(&around.containerd));
    findings
}

fn etcd(settings: &Settings, found: &Fact<EtcdVersion>) -> Finding {
    let expected = format!(
        "{}, {} or newer, before {}",
        settings.etcd.binary.as_str(),
        EtcdVersion::OLDEST,
        EtcdVersion::TOO_NEW
    );
    let open = Finding::of("program.etcd", expected);
    match found {
        Fact::Known(version) if (EtcdVersion::OLDEST..EtcdVersion::TOO_NEW).contains(version) => {
            open.ok(version.to_string())
        }
        Fact::Known(version) => open.failed(version.to_string(), "install another etcd in the image"),
        Fact::Unknown(why) => open.failed(why, "install etcd in the image, or name it in `etcd.binary`"),
    }
}

fn containerd(seen: &ContainerdObservation) -> Finding {
    let open = Finding::of("program.containerd", "containerd 2, with systemd's control groups");
    match &seen.version {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(None) => open.failed("there is none", "install containerd 2 in the image"),
        Fact::Known(Some(version)) => match (version.check(), seen.warning()) {
            (Err(unfit), _) => open.failed(version.to_string(), unfit.to_string()),
            (Ok(()), Some(warning)) => open.warning(version.to_string(), warning),
            (Ok(()), None) => open.ok(version.to_string()),
        },
    }
}

fn own_instance(identity: Option<&Identity>, observation: &Observation) -> Finding {
    let open = Finding::of("ec2.instance", "EC2 lists this instance as running, with the cluster's tags");
    let found = match (&observation.instances, identity) {
        (Fact::Unknown(why), _) => return open.unknown(why),
        (Fact::Known(_), None) => return open.unknown("who this machine is is not known"),
        (Fact::Known(instances), Some(me)) => instances.get(&me.instance),
    };
    match found {
        Some(found) if found.state == InstanceState::Running && found.role == Some(Role::ControlPlane) => {
            open.ok("running, control-plane")
        }
        Some(found) => open.warning(
            format!(
                "{}, {}",
                found.state,
                found.role.map_or_else(|| "no role".to_owned(), |role| role.to_string())
            ),
            "tag the instance quorate:cluster and quorate:role (the group's tags, propagated at launch)",
        ),
        None => open.failed("it does not", "tag the instance quorate:cluster and quorate:role"),
    }
}

fn zones(settings: &Settings, observation: &Observation) -> Finding {
    let size = settings.etcd.size.slots();
    let open = Finding::of("zones", format!("{size} zones for {size} slots"));
    let zones = match (&observation.charter, &observation.zones) {
        (Fact::Known(Some(charter)), _) => {
            let mut zones = charter.value.zones.clone();
            zones.sort_unstable();
            zones.dedup();
            zones
        }
        (_, Fact::Known(zones)) => zones.clone(),
        (_, Fact::Unknown(why)) => return open.unknown(why),
    };
    let names: Vec<String> = zones.iter().map(ToString::to_string).collect();
    let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if zones.len() >= size {
        open.ok(found)
    } else {
        open.warning(
            found,
            "span the Auto Scaling group over more zones: the loss of one can cost the quorum",
        )
    }
}

fn volume(settings: &Settings, identity: Option<&Identity>, observation: &Observation) -> Finding {
    let expected = match settings.etcd.volume.source {
        VolumeSource::Tagged => {
            "a volume with the tag quorate:cluster in this zone, free or held by this machine"
        }
        VolumeSource::Created => "one is made when it is needed",
        VolumeSource::Device => "one that the launch template attached",
    };
    let open = Finding::of("volume", expected);
    let (volumes, me) = match (&observation.volumes, identity) {
        (Fact::Unknown(why), _) => return open.unknown(why),
        (Fact::Known(_), None) => return open.unknown("who this machine is is not known"),
        (Fact::Known(volumes), Some(me)) => (volumes, me),
    };
    let here = volumes.iter().filter(|(_, volume)| volume.ours && volume.zone.as_ref() == Some(&me.zone));
    let (mut own, mut free, mut held, mut coming) = (Vec::new(), 0, 0, 0);
    for (id, volume) in here {
        match (volume.holder(), volume.state) {
            (Some(holder), _) if *holder == me.instance => own.push(id.to_string()),
            (Some(_), _) => held += 1,
            (None, VolumeState::Available) => free += 1,
            (None, VolumeState::Creating | VolumeState::InUse) => coming += 1,
            (
                None,
                VolumeState::Deleting | VolumeState::Deleted | VolumeState::Error | VolumeState::NotFound,
            ) => {}
        }
    }
    match settings.etcd.volume.source {
        _ if !own.is_empty() => open.ok(format!("{}, held by this machine", own.join(", "))),
        _ if free > 0 => open.ok(format!("{free} free in {}", me.zone)),
        _ if coming > 0 => open.ok(format!("{coming} in {}, being created, attached or detached", me.zone)),
        _ if held > 0 => open.warning(
            format!("{held} in {}, held by other machines", me.zone),
            "nothing, where this machine is to stand by; else create another volume in this zone",
        ),
        VolumeSource::Created => open.ok(format!("none in {} yet", me.zone)),
        VolumeSource::Tagged => open.failed(
            format!("none in {}", me.zone),
            "create a volume in this zone with the tag quorate:cluster, or set `etcd.volume.source: created`",
        ),
        VolumeSource::Device => open.failed(
            "none is attached to this machine",
            "let the launch template attach one as `etcd.volume.device`, with DeleteOnTermination off",
        ),
    }
}

fn device(observation: &Observation) -> Finding {
    let open = Finding::of("device", "the held volume's device, blank or with a file system of ours");
    let disk = match &observation.disk {
        Fact::Unknown(why) => return open.unknown(why),
        Fact::Known(None) => return open.ok("no volume is attached yet"),
        Fact::Known(Some(disk)) => disk,
    };
    let Some(device) = &disk.device else {
        return open.failed(
            format!("the kernel shows no device of {}", disk.volume),
            "check the instance type's limit on volumes, or stop and start the instance",
        );
    };
    match &disk.content {
        Fact::Unknown(why) => open.unknown(why),
        Fact::Known(Content::Blank) => open.ok(format!("{device}, blank")),
        Fact::Known(Content::Ours { kind, .. }) => open.ok(format!("{device}, {kind}")),
        Fact::Known(Content::Foreign(found)) => open.failed(
            format!("{device} holds something else: {found}"),
            "take the cluster's tag off the volume if it is not meant; nothing is ever formatted that is not blank",
        ),
    }
}

fn charter(observation: &Observation) -> Finding {
    let open = Finding::of("charter", "S3 says whether there is a cluster");
    match &observation.charter {
        Fact::Unknown(why) => open.failed(why, "let S3 answer: see the checks of the role and the bucket"),
        Fact::Known(None) => open.ok("there is no cluster yet"),
        Fact::Known(Some(charter)) => open.ok(format!("generation {}", charter.value.generation)),
    }
}

fn permission(action: &str, may: &Fact<bool>) -> Finding {
    let open = Finding::of(format!("permission.{action}"), "allowed (tried with DryRun)");
    match may {
        Fact::Known(true) => open.ok("allowed"),
        Fact::Known(false) => open.failed(
            "denied",
            format!("allow ec2:{action} to the instance's role (docs/permissions.md); look at its conditions on tags"),
        ),
        Fact::Unknown(why) => open.unknown(why),
    }
}

fn endpoint(role: Role, seen: Option<&EndpointSeen>) -> Vec<Finding> {
    let there = Finding::of("endpoint", "the API's endpoint is known");
    let Some(seen) = seen else {
        let todo = match role {
            Role::ControlPlane => {
                "tag a load balancer quorate:cluster, attach its target group to the group, or set \
                 `kubernetes.endpoint`"
            }
            Role::Worker => "wait for the control plane to publish it (workers/join.json)",
        };
        return vec![there.warning("not known yet", todo)];
    };
    let dns = Finding::of("endpoint.dns", "its name resolves");
    let dns = match &seen.addresses {
        Fact::Known(addresses) => {
            dns.ok(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Fact::Unknown(why) => dns.failed(why, "look at the VPC's DNS settings and at /etc/resolv.conf"),
    };
    let reach = Finding::of("endpoint.reach", "it takes a connection, once an API server is ready");
    let reach = match &seen.connects {
        Fact::Known(()) => reach.ok("it does"),
        Fact::Unknown(why) => reach.warning(
            why,
            "nothing, while no API server is ready yet; else look at the security groups and the listener",
        ),
    };
    vec![there.ok(&seen.endpoint), dns, reach]
}

/// What the planner makes of the same look.
fn planner(settings: &Settings, observation: &Observation) -> Vec<Finding> {
    let report = plan(settings, observation).report;
    let open = || Finding::of("plan", "the agent can go on by itself, and warns of nothing");
    let halted = report
        .halt
        .iter()
        .map(|halt| open().failed(format!("halted: {halt}"), "as it says; docs/halts.md has more on each"));
    let warned = report
        .warnings
        .iter()
        .map(|warning| open().warning(warning.to_string(), "as it says; docs/halts.md has more on each"));
    let findings: Vec<Finding> = halted.chain(warned).collect();
    if !findings.is_empty() {
        return findings;
    }
    let waits: Vec<String> = report.waiting.iter().map(|on| format!("waits for {on}")).collect();
    vec![open().ok(if waits.is_empty() {
        format!("{}, and waits for nothing", report.phase)
    } else {
        format!("{}: {}", report.phase, waits.join("; "))
    })]
}
