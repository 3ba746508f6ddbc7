//! The plan's reasons in words, for status pages, logs and the system console.
//!
//! A wait says what would end it; a halt says what was found, what was expected and what to do.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use super::addons::ADDON_LABEL;
use super::ids::{Slot, VolumeId};
use super::plan::{Halt, WaitingOn, Warning};

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn slots(slots: &[Slot]) -> String {
    format!("slot{} {}", if slots.len() == 1 { "" } else { "s" }, list(slots))
}

/// A moment given in milliseconds since 1970, as `2026-11-22T18:00:00Z`.
fn moment(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{millis} ms since 1970"), |at| at.to_string())
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn volumes(volumes: &[VolumeId]) -> String {
    list(volumes)
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { about, why } => write!(f, "an answer about {about}: {why}"),
            Self::OwnInstance => f.write_str("EC2 to list this instance"),
            Self::Clock => f.write_str("the clock to be synchronised"),
            Self::VolumeCreated { slot } => write!(f, "EC2 to create the volume of slot {slot}"),
            Self::VolumeReleased { volume, holder } => {
                write!(f, "volume {volume} to be released by {holder}")
            }
            Self::Attachment { volume } => write!(f, "EC2 to attach volume {volume}"),
            Self::Device { volume } => write!(f, "the kernel to show the device of volume {volume}"),
            Self::FreeSlot => f.write_str("a free volume in this zone; standing by"),
            Self::Takeover { slot, zone } => {
                write!(
                    f,
                    "a machine for slot {slot} in {zone}; when none comes, this one takes the slot over"
                )
            }
            Self::Claims { missing, majority: true } => {
                write!(f, "{} to be claimed, or patience to end: a majority is there", slots(missing))
            }
            Self::Claims { missing, majority: false } => {
                write!(f, "{} to be claimed by other machines", slots(missing))
            }
            Self::Founders { generation, missing } => {
                write!(f, "the founders of generation {generation} to start: {}", slots(missing))
            }
            Self::Quorum => f.write_str("a quorum of etcd's members to answer"),
            Self::OwnEtcd => f.write_str("etcd on this machine to answer"),
            Self::EtcdRestart { how } => write!(f, "etcd, started again after it ended: {how}"),
            Self::PredecessorGone { member, evidence } => {
                write!(f, "EC2's word that member {member} of this slot is gone for good: {evidence}")
            }
            Self::ConfirmedGone { what } => write!(f, "a second answer that {what} does not exist"),
            Self::MembershipLock { holder } => write!(f, "{holder} to finish its change of membership"),
            Self::OtherLearner { member } => write!(f, "learner {member} to be promoted first"),
            Self::HealthyQuorum { healthy, needed } => {
                write!(f, "{needed} healthy members for a change of membership; {healthy} are")
            }
            Self::InSync => f.write_str("this machine's learner to catch up with the leader"),
            Self::LoadBalancer => f.write_str(
                "a load balancer: one behind the group's target groups, one tagged quorate:cluster, or \
                 kubernetes.endpoint",
            ),
            Self::Component { component, why } => write!(f, "{component} on this machine to be ready: {why}"),
            Self::Service { service, why } => write!(f, "{service} on this machine: {why}"),
            Self::Join => f.write_str(
                "the control plane to publish how workers join: there is no workers/join.json in S3 yet",
            ),
            Self::JoinToken { ended } => write!(
                f,
                "the control plane to publish a bootstrap token that is still good: the one in workers/join.json \
                 ended at {}",
                moment(*ended)
            ),
            Self::FittingVersion { found, control_plane } => write!(
                f,
                "a kubelet that may be used with the control plane's version {control_plane}, the same or up to \
                 three minor versions older: this machine's is {found}; upgrade the control plane first, then the \
                 image of the workers"
            ),
            Self::Api { endpoint, why } => write!(f, "the API at {endpoint} to answer: {why}"),
            Self::NodeCertificate { token } => write!(
                f,
                "the control plane to approve the certificate that this machine's kubelet asks for with token \
                 {token}; why one is left pending is with the request (kubectl describe csr) and in the \
                 journal of the control plane's agents"
            ),
            Self::NodeRegistered => f.write_str("the kubelet to register this machine's node"),
            Self::NodeReady { why } => write!(f, "this machine's node to be ready: {why}"),
            Self::ControlPlaneLock { holder } => write!(f, "{holder} to finish changing its control plane"),
            Self::QuorumWithout { healthy, needed } => write!(
                f,
                "{needed} other members of etcd to be healthy, so that there is a quorum without this machine; \
                 {healthy} are"
            ),
            Self::Drained { balancer } => {
                write!(f, "the load balancer {balancer} to drain this machine's connections")
            }
            Self::Pods { left, refused } => {
                let pods = if *left == 1 { "pod" } else { "pods" };
                write!(f, "{left} {pods} to leave this machine's node")?;
                match refused.as_slice() {
                    [] => Ok(()),
                    refused => write!(f, "; not to be evicted now: {}", refused.join("; ")),
                }
            }
            Self::ComponentsEnd { components } => {
                write!(f, "the kubelet to end {} on this machine", list(components))
            }
            Self::Detached { volume } => write!(f, "EC2 to detach volume {volume}"),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration { errors } => {
                write!(f, "the configuration is wrong: {}", errors.replace('\n', "; "))
            }
            Self::OtherRegion { found, expected } => write!(
                f,
                "this machine is in region {found}, and the cluster in {expected}; a cluster has one region: \
                 use another cluster name here"
            ),
            Self::OtherCharter { found, expected } => write!(
                f,
                "the charter in S3 is cluster {found}'s, expected {expected}'s; check bucket and prefix"
            ),
            Self::AmbiguousVolumes { volumes: free } => write!(
                f,
                "several free volumes fit this zone ({}) and nothing says which; tag each with its own \
                 quorate:slot, or take the cluster's tag off those that are not meant",
                volumes(free)
            ),
            Self::TwoVolumes { volumes: held } => write!(
                f,
                "several volumes of this cluster are attached to this instance ({}); detach all but one",
                volumes(held)
            ),
            Self::WrongSlot { volume, found, expected } => write!(
                f,
                "volume {volume} is tagged for {}, and this zone has {}; correct its tag quorate:slot",
                found.map_or_else(|| "no slot".to_owned(), |slot| format!("slot {slot}")),
                if expected.is_empty() { "none".to_owned() } else { slots(expected) }
            ),
            Self::ForeignData { volume, found } => write!(
                f,
                "volume {volume} holds something that is not this cluster's: {found}; nothing was written \
                 to it: use an empty volume, or wipe this one yourself"
            ),
            Self::Wiped { volume, tag } => write!(
                f,
                "volume {volume} is blank, and its tag quorate:stamp says {tag:?}: it lost its data; check \
                 the volume, then delete the tag to have it formatted"
            ),
            Self::NoDevice { volume } => write!(
                f,
                "volume {volume} is attached, and the kernel shows no device with its serial number; check \
                 the instance type's limit on volumes, or stop and start the instance"
            ),
            Self::ForeignMount { found, expected } => {
                write!(f, "{found} is mounted where etcd's volume belongs, expected {expected}; unmount it")
            }
            Self::ReadOnly { volume } => write!(
                f,
                "volume {volume} is mounted read-only; look for file system errors in the kernel's log, \
                 repair it, or replace the volume"
            ),
            Self::WrongStamp { volume, found, expected } => write!(
                f,
                "the stamp on volume {volume} says {found}, expected {expected}; attach the right volume"
            ),
            Self::Contradiction { what } => write!(f, "{what}; nothing is changed until someone looks at it"),
            Self::CharterLost { evidence } => write!(
                f,
                "there is no charter in S3, and signs of an earlier life: {evidence}; bring back charter.json \
                 (a copy is on each volume and in etcd), or start a machine that still has its data"
            ),
            Self::CharterBehind { charter, volume } => write!(
                f,
                "the volume took part in generation {volume}, and the charter in S3 tells of {charter}; bring \
                 back the later charter.json"
            ),
            Self::AuthorityLost => f.write_str(
                "pki/etcd.json is missing in S3 although the cluster has been founded; bring back the object \
                 (the bucket's versions may have it)",
            ),
            Self::AuthorityExpired => {
                f.write_str("the etcd authority's certificate has ended; it has to be replaced")
            }
            Self::EtcdVersion { found, expected } => {
                write!(f, "etcd is version {found}, expected {expected}; install another one in the image")
            }
            Self::OtherSize { found, expected } => write!(
                f,
                "etcd.size is {found}, and the cluster was founded with {expected} slots; correct the setting"
            ),
            Self::AmbiguousLoadBalancers { found } => write!(
                f,
                "several load balancers fit ({}) and nothing says which; name one in kubernetes.endpoint, or \
                 take the cluster's tag off those that are not meant",
                list(found)
            ),
            Self::ClusterAuthoritiesLost => f.write_str(
                "pki/kubernetes.json is missing in S3 although the cluster was made with it; bring back the \
                 object (the bucket's versions may have it)",
            ),
            Self::ClusterAuthoritiesExpired => {
                f.write_str("a certificate in pki/kubernetes.json has ended; it has to be replaced")
            }
        }
    }
}

impl fmt::Display for Warning {
    #[expect(clippy::too_many_lines, reason = "one arm a warning, each a sentence")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { subject, why } => write!(f, "no answer about {subject}: {why}"),
            Self::AuthorityLost => {
                f.write_str("pki/etcd.json is missing in S3: no certificate can be renewed; bring it back")
            }
            Self::CharterLost => f.write_str("charter.json is missing in S3; it is repaired from a quorum"),
            Self::SharedZone { zones, slots } => write!(
                f,
                "{slots} slots in {zones} zone{}: the loss of one zone can cost the quorum",
                if *zones == 1 { "" } else { "s" }
            ),
            Self::ClusterAuthoritiesLost => f.write_str(
                "pki/kubernetes.json is missing in S3: no certificate of Kubernetes can be renewed; bring it back",
            ),
            Self::LoadBalancerGone { host } => write!(
                f,
                "the load balancer {host} is gone; certificates and kubeconfigs go on naming it until there is \
                 another"
            ),
            Self::Service { service, why } => write!(f, "{service}: {why}"),
            Self::UnfitMachine { why } => f.write_str(why),
            Self::ShutdownCutShort { found_ms, wanted_ms } => write!(
                f,
                "logind lets a shutdown wait {} s, and the kubelet wants {} s for its pods: a file in \
                 /etc/systemd/logind.conf.d says less than the agent's own",
                found_ms / 1000,
                wanted_ms / 1000
            ),
            Self::WorkersShareZone { zone, workers } => write!(
                f,
                "all {workers} workers are in {zone}: the loss of that zone takes every pod; let the workers' \
                 Auto Scaling groups span three zones"
            ),
            Self::KubeletDropIns { why } => {
                write!(f, "the kubelet keeps the configuration that it has until this is corrected: {why}")
            }
            Self::JoinOfLaterVersion { format, known } => write!(
                f,
                "workers/join.json in S3 is of format {format}, and this version of quorate writes {known}: it is \
                 left alone, and no new machine can join when its token has ended; replace this machine by one of \
                 the later image"
            ),
            Self::HealthCheckNeverPasses { balancer, protocol } => write!(
                f,
                "no API server passes the {protocol} health check of the load balancer {balancer}; let a network \
                 load balancer ask HTTPS /readyz with `kubernetes.apiServer.tlsMinVersion: VersionTLS12`, and a \
                 classic one TCP"
            ),
            Self::RolledBack { component, times: count, tried_again_after_h } => {
                write!(
                    f,
                    "the changed manifest of {component} did not get ready within `kubernetes.readyPatience`, {}, \
                     and the one before is back; correct the settings that changed it, or have it tried at once \
                     by deleting /var/lib/quorate/manifests/{component}.json",
                    times(*count)
                )?;
                match tried_again_after_h {
                    Some(hours) => write!(f, "; it is tried again {hours} h after the last time"),
                    None => f.write_str("; by itself it is not tried again where there is no other API server"),
                }
            }
            Self::AddonUnfit { name, why } => write!(
                f,
                "the add-on {name} can't be used on this machine, and what the API has of it stays as it is: {why}"
            ),
            Self::AddonFailed { name, why } => {
                write!(f, "the add-on {name} is not in the API as its file has it: {why}")
            }
            Self::AddonLeftovers { objects } => write!(
                f,
                "no add-on has {} any more, and others' data may be in there; delete what nobody needs, or take \
                 the label {ADDON_LABEL} off it",
                list(objects)
            ),
            Self::LeftInHaste { what } => {
                write!(f, "this machine leaves, and there is no time left for this: {what}")
            }
            Self::OtherHook { expected } => write!(
                f,
                "a lifecycle hook holds this machine, and its group has none named {expected}: name the group's own \
                 in leaving.hook or launch.hook, or have whoever made the other complete it"
            ),
            Self::Notice { what, at } => write!(f, "EC2 announces for {}: {what}", moment(*at)),
            Self::EtcdQuota { member, percent, quota } => write!(
                f,
                "the database of member {member} is at {percent} % of its quota of {} MiB, where etcd refuses \
                 writes: find what fills it and delete that, or raise `etcd.quota` and restart etcd",
                quota >> 20
            ),
            Self::EtcdNoSpace { why } => {
                write!(f, "etcd's alarm NOSPACE is raised, and nothing can be written: {why}")
            }
            Self::EtcdCorrupt { members, why } if members.is_empty() => {
                write!(f, "etcd's members hold different data: {why}")
            }
            Self::EtcdCorrupt { members, why } => {
                write!(f, "the data of etcd's member {} differ from the others': {why}", list(members))
            }
            Self::EtcdWedged { why } => {
                write!(f, "etcd on this machine runs and does not answer, while the others do: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::plan::Subject;
    use super::*;
    use crate::kubernetes::Component;
    use crate::model::ServiceName;
    use crate::model::ids::{ClusterName, Generation, InstanceId, MemberId, Region};

    fn one() -> Slot {
        Slot::try_from(1).unwrap()
    }

    fn two() -> Slot {
        Slot::try_from(2).unwrap()
    }

    fn volume() -> VolumeId {
        "vol-0123456789abcdef0".parse().unwrap()
    }

    fn other_volume() -> VolumeId {
        "vol-0fedcba9876543210".parse().unwrap()
    }

    fn instance() -> InstanceId {
        "i-0123456789abcdef0".parse().unwrap()
    }

    fn member() -> MemberId {
        MemberId(0x00ab_cdef_0123_4567)
    }

    const VOLUME: &str = "vol-0123456789abcdef0";
    const OTHER_VOLUME: &str = "vol-0fedcba9876543210";
    const INSTANCE: &str = "i-0123456789abcdef0";

    fn text(of: &str) -> String {
        of.to_owned()
    }

    /// One of each kind, and what its words must name.
    fn waits() -> Vec<(WaitingOn, Vec<String>)> {
        let member_id = member().to_string();
        vec![
            (
                WaitingOn::Answer { about: Subject::Charter, why: text("S3 is silent") },
                vec![text("the charter"), text("S3 is silent")],
            ),
            (WaitingOn::OwnInstance, vec![text("EC2"), text("this instance")]),
            (WaitingOn::Clock, vec![text("clock")]),
            (WaitingOn::VolumeCreated { slot: two() }, vec![text("slot 2")]),
            (
                WaitingOn::VolumeReleased { volume: volume(), holder: instance() },
                vec![text(VOLUME), text(INSTANCE)],
            ),
            (WaitingOn::Attachment { volume: volume() }, vec![text(VOLUME)]),
            (WaitingOn::Device { volume: volume() }, vec![text(VOLUME)]),
            (WaitingOn::FreeSlot, vec![text("free volume in this zone")]),
            (
                WaitingOn::Takeover { slot: two(), zone: "eu-west-1c".parse().unwrap() },
                vec![text("slot 2"), text("eu-west-1c")],
            ),
            (WaitingOn::Claims { missing: vec![one(), two()], majority: false }, vec![text("slots 1, 2")]),
            (
                WaitingOn::Claims { missing: vec![two()], majority: true },
                vec![text("slot 2"), text("patience")],
            ),
            (
                WaitingOn::Founders { generation: Generation(3), missing: vec![two()] },
                vec![text("generation 3"), text("slot 2")],
            ),
            (WaitingOn::Quorum, vec![text("quorum")]),
            (WaitingOn::OwnEtcd, vec![text("etcd on this machine")]),
            (WaitingOn::EtcdRestart { how: text("ended by SIGKILL") }, vec![text("ended by SIGKILL")]),
            (
                WaitingOn::PredecessorGone { member: member(), evidence: text("it is stopping") },
                vec![member_id.clone(), text("it is stopping")],
            ),
            (WaitingOn::ConfirmedGone { what: text(VOLUME) }, vec![text(VOLUME)]),
            (WaitingOn::MembershipLock { holder: instance() }, vec![text(INSTANCE)]),
            (WaitingOn::OtherLearner { member: member() }, vec![member_id]),
            (WaitingOn::HealthyQuorum { healthy: 1, needed: 2 }, vec![text("1"), text("2")]),
            (WaitingOn::InSync, vec![text("learner")]),
            (WaitingOn::LoadBalancer, vec![text("quorate:cluster"), text("kubernetes.endpoint")]),
            (
                WaitingOn::Component { component: Component::Scheduler, why: text("refused") },
                vec![text("kube-scheduler"), text("refused")],
            ),
            (
                WaitingOn::Service { service: ServiceName::Containerd, why: text("not installed") },
                vec![text("containerd"), text("not installed")],
            ),
            (WaitingOn::ControlPlaneLock { holder: instance() }, vec![text(INSTANCE)]),
            (WaitingOn::Join, vec![text("workers/join.json")]),
            (
                WaitingOn::JoinToken { ended: 1_700_000_000_000 },
                vec![text("2023-11-14T22:13:20Z"), text("workers/join.json")],
            ),
            (
                WaitingOn::FittingVersion {
                    found: "v1.37.0".parse().unwrap(),
                    control_plane: "v1.36.2".parse().unwrap(),
                },
                vec![text("v1.37.0"), text("v1.36.2"), text("upgrade the control plane first")],
            ),
            (
                WaitingOn::Api { endpoint: text("api.example.com:6443"), why: text("refused") },
                vec![text("api.example.com:6443"), text("refused")],
            ),
            (WaitingOn::NodeCertificate { token: text("abcdef") }, vec![text("abcdef"), text("kubectl")]),
            (WaitingOn::NodeRegistered, vec![text("register")]),
            (WaitingOn::NodeReady { why: text("no network") }, vec![text("no network")]),
            (
                WaitingOn::QuorumWithout { healthy: 1, needed: 2 },
                vec![text("2 other members"), text("1 are")],
            ),
            (WaitingOn::Drained { balancer: text("demo-api") }, vec![text("demo-api"), text("drain")]),
            (
                WaitingOn::Pods { left: 2, refused: vec![text("default/web-0: the budget web")] },
                vec![text("2 pods"), text("default/web-0: the budget web")],
            ),
            (
                WaitingOn::ComponentsEnd { components: vec![Component::ApiServer] },
                vec![text("kubelet"), text("kube-apiserver")],
            ),
            (WaitingOn::Detached { volume: volume() }, vec![text(VOLUME)]),
        ]
    }

    fn halts() -> Vec<(Halt, Vec<String>)> {
        let region = |name: &str| name.parse::<Region>().unwrap();
        let cluster = |name: &str| name.parse::<ClusterName>().unwrap();
        vec![
            (
                Halt::Configuration { errors: text("a.yaml:1:2: one\na.yaml:3:4: other") },
                vec![text("a.yaml:1:2: one"), text("a.yaml:3:4: other")],
            ),
            (
                Halt::OtherRegion { found: region("eu-west-1"), expected: region("eu-north-1") },
                vec![text("eu-west-1"), text("eu-north-1")],
            ),
            (
                Halt::OtherCharter { found: cluster("prod"), expected: cluster("demo") },
                vec![text("prod"), text("demo"), text("prefix")],
            ),
            (
                Halt::AmbiguousVolumes { volumes: vec![volume(), other_volume()] },
                vec![text(VOLUME), text(OTHER_VOLUME), text("quorate:slot")],
            ),
            (
                Halt::TwoVolumes { volumes: vec![volume(), other_volume()] },
                vec![text(VOLUME), text(OTHER_VOLUME), text("detach")],
            ),
            (
                Halt::WrongSlot { volume: volume(), found: Some(two()), expected: vec![one()] },
                vec![text(VOLUME), text("slot 2"), text("slot 1"), text("quorate:slot")],
            ),
            (
                Halt::ForeignData { volume: volume(), found: text("TYPE=swap") },
                vec![text(VOLUME), text("TYPE=swap"), text("nothing was written")],
            ),
            (
                Halt::Wiped { volume: volume(), tag: text("member 1 ab") },
                vec![text(VOLUME), text("member 1 ab"), text("quorate:stamp")],
            ),
            (Halt::NoDevice { volume: volume() }, vec![text(VOLUME), text("device")]),
            (
                Halt::ForeignMount { found: text("/dev/sdz"), expected: text("/dev/nvme1n1") },
                vec![text("/dev/sdz"), text("/dev/nvme1n1")],
            ),
            (Halt::ReadOnly { volume: volume() }, vec![text(VOLUME), text("read-only")]),
            (
                Halt::WrongStamp { volume: volume(), found: text("slot 2"), expected: text("slot 1") },
                vec![text(VOLUME), text("slot 2"), text("slot 1")],
            ),
            (Halt::Contradiction { what: text("this and that") }, vec![text("this and that")]),
            (
                Halt::CharterLost { evidence: text("volume vol-1 is tagged") },
                vec![text("volume vol-1 is tagged"), text("charter.json")],
            ),
            (
                Halt::CharterBehind { charter: Generation(4), volume: Generation(5) },
                vec![text("generation 5"), text("4"), text("charter.json")],
            ),
            (Halt::AuthorityLost, vec![text("pki/etcd.json")]),
            (Halt::AuthorityExpired, vec![text("authority")]),
            (
                Halt::EtcdVersion { found: text("3.4.30"), expected: text("3.5.0 or newer") },
                vec![text("3.4.30"), text("3.5.0 or newer")],
            ),
            (Halt::OtherSize { found: 5, expected: 3 }, vec![text("5"), text("3"), text("etcd.size")]),
            (
                Halt::AmbiguousLoadBalancers { found: vec![text("a:443"), text("b:6443")] },
                vec![text("a:443"), text("b:6443"), text("kubernetes.endpoint")],
            ),
            (Halt::ClusterAuthoritiesLost, vec![text("pki/kubernetes.json")]),
            (Halt::ClusterAuthoritiesExpired, vec![text("pki/kubernetes.json")]),
        ]
    }

    fn warnings() -> Vec<(Warning, Vec<String>)> {
        vec![
            (
                Warning::Answer { subject: Subject::Charter, why: text("throttled") },
                vec![text("the charter"), text("throttled")],
            ),
            (Warning::AuthorityLost, vec![text("pki/etcd.json")]),
            (Warning::CharterLost, vec![text("charter.json")]),
            (Warning::SharedZone { zones: 2, slots: 3 }, vec![text("3 slots"), text("2 zones")]),
            (Warning::ClusterAuthoritiesLost, vec![text("pki/kubernetes.json")]),
            (
                Warning::KubeletDropIns { why: text("/etc/quorate/kubelet.d/a.conf sets `port`") },
                vec![text("the kubelet"), text("a.conf")],
            ),
            (
                Warning::JoinOfLaterVersion { format: 7, known: 1 },
                vec![text("workers/join.json"), text("format 7"), text("writes 1")],
            ),
            (Warning::LoadBalancerGone { host: text("api.example") }, vec![text("api.example")]),
            (
                Warning::RolledBack {
                    component: Component::ApiServer,
                    times: 3,
                    tried_again_after_h: Some(4),
                },
                vec![text("kube-apiserver"), text("3 times"), text("4 h"), text("kube-apiserver.json")],
            ),
            (
                Warning::RolledBack { component: Component::Scheduler, times: 1, tried_again_after_h: None },
                vec![text("kube-scheduler"), text("once"), text("not tried again")],
            ),
            (
                Warning::Service { service: ServiceName::Kubelet, why: text("exit status 1") },
                vec![text("kubelet"), text("exit status 1")],
            ),
            (Warning::UnfitMachine { why: text("swap is on") }, vec![text("swap is on")]),
            (
                Warning::ShutdownCutShort { found_ms: 5_000, wanted_ms: 150_000 },
                vec![text("wait 5 s"), text("150 s"), text("logind.conf.d")],
            ),
            (
                Warning::WorkersShareZone { zone: text("eu-west-1a"), workers: 4 },
                vec![text("eu-west-1a"), text("4 workers")],
            ),
            (
                Warning::HealthCheckNeverPasses { balancer: text("front"), protocol: text("SSL") },
                vec![text("front"), text("SSL")],
            ),
            (
                Warning::AddonUnfit { name: text("dns"), why: text("line 3") },
                vec![text("dns"), text("line 3")],
            ),
            (
                Warning::AddonFailed { name: text("dns"), why: text("422 Invalid") },
                vec![text("dns"), text("422 Invalid")],
            ),
            (
                Warning::AddonLeftovers { objects: vec![text("Namespace a"), text("Namespace b")] },
                vec![text("Namespace a"), text("Namespace b"), text("quorate/addon")],
            ),
            (Warning::LeftInHaste { what: text("a quorum") }, vec![text("no time"), text("a quorum")]),
            (
                Warning::OtherHook { expected: text("quorate-terminate") },
                vec![text("quorate-terminate"), text("leaving.hook")],
            ),
            (
                Warning::Notice { what: text("instance-stop"), at: 1_700_000_000_000 },
                vec![text("instance-stop"), text("2023-11-14T22:13:20Z")],
            ),
            (
                Warning::EtcdQuota { member: member(), percent: 83, quota: 8 << 30 },
                vec![member().to_string(), text("83 %"), text("8192 MiB"), text("etcd.quota")],
            ),
            (Warning::EtcdNoSpace { why: text("no room") }, vec![text("NOSPACE"), text("no room")]),
            (
                Warning::EtcdCorrupt { members: vec![member()], why: text("hashes") },
                vec![member().to_string(), text("hashes")],
            ),
            (
                Warning::EtcdCorrupt { members: Vec::new(), why: text("no majority") },
                vec![text("different data"), text("no majority")],
            ),
            (Warning::EtcdWedged { why: text("it is restarted") }, vec![text("it is restarted")]),
        ]
    }

    /// A number for each kind, without gaps. A new kind does not compile until it has one here, and
    /// the tests fail until it has its words above.
    fn kind_of_wait(on: &WaitingOn) -> usize {
        match on {
            WaitingOn::Answer { .. } => 0,
            WaitingOn::OwnInstance => 1,
            WaitingOn::Clock => 2,
            WaitingOn::VolumeCreated { .. } => 3,
            WaitingOn::VolumeReleased { .. } => 4,
            WaitingOn::Attachment { .. } => 5,
            WaitingOn::Device { .. } => 6,
            WaitingOn::FreeSlot => 7,
            WaitingOn::Claims { .. } => 8,
            WaitingOn::Founders { .. } => 9,
            WaitingOn::Quorum => 10,
            WaitingOn::OwnEtcd => 11,
            WaitingOn::EtcdRestart { .. } => 12,
            WaitingOn::PredecessorGone { .. } => 13,
            WaitingOn::ConfirmedGone { .. } => 14,
            WaitingOn::MembershipLock { .. } => 15,
            WaitingOn::OtherLearner { .. } => 16,
            WaitingOn::HealthyQuorum { .. } => 17,
            WaitingOn::InSync => 18,
            WaitingOn::LoadBalancer => 19,
            WaitingOn::Component { .. } => 20,
            WaitingOn::ControlPlaneLock { .. } => 21,
            WaitingOn::QuorumWithout { .. } => 30,
            WaitingOn::Drained { .. } => 31,
            WaitingOn::Pods { .. } => 32,
            WaitingOn::ComponentsEnd { .. } => 33,
            WaitingOn::Detached { .. } => 34,
            WaitingOn::Takeover { .. } => 35,
            WaitingOn::Service { .. } => 22,
            WaitingOn::Join => 23,
            WaitingOn::JoinToken { .. } => 24,
            WaitingOn::FittingVersion { .. } => 25,
            WaitingOn::Api { .. } => 26,
            WaitingOn::NodeCertificate { .. } => 27,
            WaitingOn::NodeRegistered => 28,
            WaitingOn::NodeReady { .. } => 29,
        }
    }

    fn kind_of_halt(halt: &Halt) -> usize {
        match halt {
            Halt::Configuration { .. } => 0,
            Halt::OtherRegion { .. } => 1,
            Halt::OtherCharter { .. } => 2,
            Halt::AmbiguousVolumes { .. } => 3,
            Halt::TwoVolumes { .. } => 4,
            Halt::WrongSlot { .. } => 5,
            Halt::ForeignData { .. } => 6,
            Halt::Wiped { .. } => 7,
            Halt::NoDevice { .. } => 8,
            Halt::ForeignMount { .. } => 9,
            Halt::ReadOnly { .. } => 10,
            Halt::WrongStamp { .. } => 11,
            Halt::Contradiction { .. } => 12,
            Halt::CharterLost { .. } => 13,
            Halt::CharterBehind { .. } => 14,
            Halt::AuthorityLost => 15,
            Halt::AuthorityExpired => 16,
            Halt::EtcdVersion { .. } => 17,
            Halt::OtherSize { .. } => 18,
            Halt::AmbiguousLoadBalancers { .. } => 19,
            Halt::ClusterAuthoritiesLost => 20,
            Halt::ClusterAuthoritiesExpired => 21,
        }
    }

    fn kind_of_warning(warning: &Warning) -> usize {
        match warning {
            Warning::Answer { .. } => 0,
            Warning::AuthorityLost => 1,
            Warning::CharterLost => 2,
            Warning::SharedZone { .. } => 3,
            Warning::ClusterAuthoritiesLost => 4,
            Warning::LoadBalancerGone { .. } => 5,
            Warning::RolledBack { .. } => 6,
            Warning::AddonUnfit { .. } => 7,
            Warning::AddonFailed { .. } => 8,
            Warning::AddonLeftovers { .. } => 9,
            Warning::HealthCheckNeverPasses { .. } => 10,
            Warning::WorkersShareZone { .. } => 11,
            Warning::Service { .. } => 12,
            Warning::UnfitMachine { .. } => 13,
            Warning::JoinOfLaterVersion { .. } => 14,
            Warning::KubeletDropIns { .. } => 15,
            Warning::ShutdownCutShort { .. } => 16,
            Warning::LeftInHaste { .. } => 17,
            Warning::OtherHook { .. } => 18,
            Warning::Notice { .. } => 19,
            Warning::EtcdQuota { .. } => 20,
            Warning::EtcdNoSpace { .. } => 21,
            Warning::EtcdCorrupt { .. } => 22,
            Warning::EtcdWedged { .. } => 23,
        }
    }

    /// Holds one of each kind to its words, and all kinds to be there.
    fn check<T>(all: &[(T, Vec<String>)], kinds: usize, kind: impl Fn(&T) -> usize)
    where
        T: fmt::Display + fmt::Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
    {
        let found: BTreeSet<usize> = all.iter().map(|(value, _)| kind(value)).collect();
        assert_eq!(found, (0..kinds).collect(), "each kind has its words");
        for (value, names) in all {
            let words = value.to_string();
            assert!(!words.contains('\n') && !words.is_empty(), "one line: {words}");
            assert!(!words.ends_with('.') && !words.contains("  "), "{words}");
            for name in names {
                assert!(words.contains(name), "{value:?} does not name {name}: {words}");
            }
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value, "{json}");
        }
    }

    #[test]
    fn every_wait_names_what_would_end_it() {
        check(&waits(), 36, kind_of_wait);
    }

    #[test]
    fn every_halt_names_what_was_found_and_expected() {
        check(&halts(), 22, kind_of_halt);
    }

    #[test]
    fn every_warning_names_what_should_be_seen_to() {
        check(&warnings(), 24, kind_of_warning);
    }
}
