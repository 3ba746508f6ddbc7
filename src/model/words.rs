//! The plan's reasons in words, for status pages, logs and the system console.
//!
//! A wait says what would end it; a halt says what was found, what was expected and what to do.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use super::addons::ADDON_LABEL;
use super::backup::BackupTrouble;
use super::ids::{Slot, VolumeId};
use super::plan::{Halt, SlotVolume, WaitingOn, Warning};

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

fn slot_volumes(volumes: &[SlotVolume]) -> String {
    let one = |one: &SlotVolume| match one.slot {
        Some(slot) => format!("{} (slot {slot})", one.volume),
        None => one.volume.to_string(),
    };
    volumes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What an operator can do about a quorum that is lost for good.
fn ways_out(left: &[SlotVolume], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if left.is_empty() {
        return f.write_str(
            "no volume of it is left: bring the newest backup back with `quorate etcd restore`, which first shows \
             what will be lost",
        );
    }
    write!(f, "what may be left is {}: ", slot_volumes(left))?;
    let slots: Vec<String> = left
        .iter()
        .filter_map(|one| one.slot)
        .map(|slot| format!("`quorate etcd recover --from {slot}`"))
        .collect();
    if !slots.is_empty() {
        write!(f, "go on with a survivor's data with {}, or ", slots.join(" or "))?;
    }
    f.write_str("bring the newest backup back with `quorate etcd restore`; both first show what will be lost")
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
            Self::Recovery { generation, why } => write!(
                f,
                "a second word, a minute later, that generation {generation} can't come back, before a backup is \
                 restored: {why}"
            ),
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
            Self::ShutDown => f.write_str("systemd to stop this machine, which is about to shut down"),
        }
    }
}

impl fmt::Display for Halt {
    #[expect(clippy::too_many_lines, reason = "one arm a halt, each a sentence")]
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
            Self::QuorumLost { generation, gone, left } => {
                write!(f, "etcd's generation {generation} has lost its quorum: for good gone ")?;
                match gone.as_slice() {
                    [one] => write!(f, "is volume {}; ", slot_volumes(std::slice::from_ref(one)))?,
                    several => write!(f, "are the volumes {}; ", slot_volumes(several))?,
                }
                ways_out(left, f)
            }
            Self::NoBackup { generation, damaged } if damaged.is_empty() => write!(
                f,
                "no volume of etcd's generation {generation} is left, and there is no backup in S3; bring back the \
                 objects below backups/ (the bucket's versions may have them)"
            ),
            Self::NoBackup { generation, damaged } => write!(
                f,
                "no volume of etcd's generation {generation} is left, and no backup in S3 is whole: {}; bring back \
                 what is damaged or missing below backups/ (the bucket's versions may have it); the backups are read \
                 again every ten minutes",
                damaged.join("; ")
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

impl fmt::Display for BackupTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |why: &Option<String>| why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        match self {
            Self::Behind { since, why } => write!(
                f,
                "what was written since {} is not in S3 yet{}: the loss of all volumes would cost it",
                moment(*since),
                because(why)
            ),
            Self::Old { taken: Some(taken), why } => {
                write!(f, "no snapshot has been taken since {}{}", moment(*taken), because(why))
            }
            Self::Old { taken: None, why } => {
                write!(f, "there is no backup of this cluster yet{}", because(why))
            }
            Self::NotRestorable { why } => write!(
                f,
                "the newest backup could not be restored when that was rehearsed: {why}; `quorate etcd verify` reads it \
                 through, and `quorate etcd backup` takes another"
            ),
            Self::NotRehearsed { at } => {
                write!(
                    f,
                    "no restore has been rehearsed since {}: it is not known that there is a way back",
                    moment(*at)
                )
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
            Self::Mismatch { mismatch } => mismatch.fmt(f),
            Self::Backups { trouble } => trouble.fmt(f),
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
                "logind lets a shutdown wait {} s, and {} s are wanted for pods and etcd: a file in \
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
pub(crate) mod tests;
