//! Every reason has its words, and they name what they must.

use std::collections::BTreeSet;

use super::super::backup::BackupTrouble;
use super::super::plan::Subject;
use super::*;
use crate::kubernetes::Component;
use crate::model::ServiceName;
use crate::model::ids::{ClusterName, Generation, InstanceId, MemberId, Region, Zone};
use crate::model::machine::{InstanceState, VolumeState};
use crate::model::mismatch::Mismatch;

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

fn zone() -> Zone {
    "eu-west-1a".parse().unwrap()
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
pub(crate) fn waits() -> Vec<(WaitingOn, Vec<String>)> {
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
        (WaitingOn::Claims { missing: vec![two()], majority: true }, vec![text("slot 2"), text("patience")]),
        (
            WaitingOn::Founders { generation: Generation(3), missing: vec![two()] },
            vec![text("generation 3"), text("slot 2")],
        ),
        (
            WaitingOn::Recovery { generation: Generation(3), why: text("no volume of it is left") },
            vec![text("generation 3"), text("no volume of it is left"), text("a minute")],
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
        (WaitingOn::QuorumWithout { healthy: 1, needed: 2 }, vec![text("2 other members"), text("1 are")]),
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
        (WaitingOn::ShutDown, vec![text("systemd"), text("shut down")]),
    ]
}

#[expect(clippy::too_many_lines, reason = "one of each, and what it must name")]
pub(crate) fn halts() -> Vec<(Halt, Vec<String>)> {
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
        (
            Halt::QuorumLost {
                generation: Generation(4),
                gone: vec![SlotVolume { slot: Some(one()), volume: volume() }],
                left: vec![SlotVolume { slot: Some(two()), volume: other_volume() }],
            },
            vec![
                text("generation 4"),
                format!("gone is volume {VOLUME} (slot 1)"),
                format!("left is {OTHER_VOLUME} (slot 2)"),
                text("`quorate etcd recover --from 2`"),
                text("`quorate etcd restore`"),
            ],
        ),
        (
            Halt::QuorumLost {
                generation: Generation(4),
                gone: vec![
                    SlotVolume { slot: Some(one()), volume: volume() },
                    SlotVolume { slot: None, volume: other_volume() },
                ],
                left: Vec::new(),
            },
            vec![
                format!("{VOLUME} (slot 1), {OTHER_VOLUME}"),
                text("no volume"),
                text("`quorate etcd restore`"),
            ],
        ),
        (
            Halt::NoBackup { generation: Generation(4), damaged: Vec::new() },
            vec![text("generation 4"), text("there is no backup"), text("backups/")],
        ),
        (
            Halt::NoBackup {
                generation: Generation(4),
                damaged: vec![text("1/7: truncated"), text("1/3: gone")],
            },
            vec![text("1/7: truncated; 1/3: gone"), text("backups/"), text("every ten minutes")],
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

fn backups(trouble: BackupTrouble) -> Warning {
    Warning::Backups { trouble }
}

pub(crate) fn warnings() -> Vec<(Warning, Vec<String>)> {
    vec![
        (
            Warning::Answer { subject: Subject::Charter, why: text("throttled") },
            vec![text("the charter"), text("throttled")],
        ),
        (Warning::AuthorityLost, vec![text("pki/etcd.json")]),
        (Warning::CharterLost, vec![text("charter.json")]),
        (
            Warning::Mismatch { mismatch: Mismatch::SlotWithoutMember { slot: two(), zone: zone() } },
            vec![text("slot 2"), text("eu-west-1a"), text("quorate status")],
        ),
        (
            backups(BackupTrouble::Behind { since: 1_795_341_600_000, why: Some(text("throttled")) }),
            vec![text("2026-11-22T10:00:00Z"), text("throttled"), text("S3")],
        ),
        (
            backups(BackupTrouble::Old { taken: Some(1_795_341_600_000), why: None }),
            vec![text("no snapshot"), text("2026-11-22T10:00:00Z")],
        ),
        (
            backups(BackupTrouble::Old { taken: None, why: Some(text("denied")) }),
            vec![text("no backup"), text("denied")],
        ),
        (
            backups(BackupTrouble::NotRestorable { why: text("changes/0000000007 is missing") }),
            vec![text("0000000007"), text("quorate etcd backup")],
        ),
        (
            backups(BackupTrouble::NotRehearsed { at: 1_795_341_600_000 }),
            vec![text("rehearsed"), text("2026-11-22T10:00:00Z")],
        ),
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
            Warning::RolledBack { component: Component::ApiServer, times: 3, tried_again_after_h: Some(4) },
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
        (Warning::AddonUnfit { name: text("dns"), why: text("line 3") }, vec![text("dns"), text("line 3")]),
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
        WaitingOn::Recovery { .. } => 37,
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
        WaitingOn::ShutDown => 36,
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
        Halt::QuorumLost { .. } => 22,
        Halt::NoBackup { .. } => 23,
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
        Warning::Mismatch { .. } => 24,
        Warning::Backups { trouble } => match trouble {
            BackupTrouble::Behind { .. } => 25,
            BackupTrouble::Old { .. } => 26,
            BackupTrouble::NotRestorable { .. } => 27,
            BackupTrouble::NotRehearsed { .. } => 28,
        },
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
    check(&waits(), 38, kind_of_wait);
}

#[test]
fn every_halt_names_what_was_found_and_expected() {
    check(&halts(), 24, kind_of_halt);
}

#[test]
fn every_warning_names_what_should_be_seen_to() {
    check(&warnings(), 29, kind_of_warning);
}

pub(crate) fn mismatches() -> Vec<(Mismatch, Vec<String>)> {
    let (member, slot) = (member(), two());
    let id = member.to_string();
    let without_machine =
        |state| Mismatch::MemberWithoutMachine { member, slot, zone: zone(), instance: instance(), state };
    let zones: Vec<Zone> = ["eu-west-1b", "eu-west-1c"].iter().map(|zone| zone.parse().unwrap()).collect();
    let several = |used| Mismatch::SeveralVolumes { slot, volumes: vec![volume(), other_volume()], used };
    let misplaced =
        |slot, expected| Mismatch::MisplacedVolume { volume: volume(), slot, zone: zone(), expected };
    vec![
        (Mismatch::SlotWithoutMember { slot, zone: zone() }, vec![text("slot 2"), text("eu-west-1a")]),
        (
            without_machine(InstanceState::Stopped),
            vec![id.clone(), text(INSTANCE), text("stopped"), text("start it")],
        ),
        (
            without_machine(InstanceState::Terminated),
            vec![id.clone(), text("terminated"), text("Auto Scaling group")],
        ),
        (
            Mismatch::MemberWithFreeVolume { member, slot, instance: instance(), volume: volume() },
            vec![id.clone(), text(VOLUME), text(INSTANCE), text("quorate leave --cancel")],
        ),
        (
            Mismatch::MemberWithoutVolume {
                member,
                slot,
                zone: zone(),
                volume: volume(),
                state: VolumeState::Error,
            },
            vec![id.clone(), text(VOLUME), text("error"), text("slot 2"), text("empty volume")],
        ),
        (
            Mismatch::UnknownMember {
                member,
                name: text("etcd-9"),
                peer_urls: vec![text("https://10.0.0.9:2380")],
            },
            vec![id.clone(), text("etcd-9"), text("https://10.0.0.9:2380"), text("etcdctl member remove")],
        ),
        (
            Mismatch::UnknownMember { member, name: String::new(), peer_urls: Vec::new() },
            vec![id, text("not started")],
        ),
        (
            several(Some(volume())),
            vec![text(VOLUME), text(OTHER_VOLUME), text("in use"), text("quorate:cluster")],
        ),
        (several(None), vec![text(OTHER_VOLUME), text("find out which")]),
        (
            misplaced(Some(slot), zones.clone()),
            vec![text(VOLUME), text("slot 2"), text("eu-west-1b, eu-west-1c")],
        ),
        (misplaced(None, zones.clone()), vec![text("eu-west-1a"), text("quorate:slot")]),
        (misplaced(Some(slot), Vec::new()), vec![text("a slot that the cluster does not have")]),
        (
            Mismatch::LaterVolume { volume: volume(), tag: text("member 7 ab"), generation: Generation(2) },
            vec![text(VOLUME), text("member 7 ab"), text("generation 2"), text("charter.json")],
        ),
        (
            Mismatch::MisplacedInstance { instance: instance(), zone: zone(), expected: zones.clone() },
            vec![text(INSTANCE), text("eu-west-1a"), text("eu-west-1b, eu-west-1c"), text("terminate")],
        ),
        (
            Mismatch::CrowdedZone {
                zone: zone(),
                slots: 1,
                instances: vec![instance(), instance()],
                lacking: zones,
            },
            vec![
                text("2 control-plane machines"),
                text("1 slot,"),
                text(INSTANCE),
                text("eu-west-1b, eu-west-1c"),
            ],
        ),
    ]
}

fn kind_of_mismatch(mismatch: &Mismatch) -> usize {
    match mismatch {
        Mismatch::SlotWithoutMember { .. } => 0,
        Mismatch::MemberWithoutMachine { .. } => 1,
        Mismatch::MemberWithFreeVolume { .. } => 2,
        Mismatch::MemberWithoutVolume { .. } => 3,
        Mismatch::UnknownMember { .. } => 4,
        Mismatch::SeveralVolumes { .. } => 5,
        Mismatch::MisplacedVolume { .. } => 6,
        Mismatch::LaterVolume { .. } => 7,
        Mismatch::MisplacedInstance { .. } => 8,
        Mismatch::CrowdedZone { .. } => 9,
    }
}

#[test]
fn every_mismatch_names_what_was_found_and_what_to_do() {
    check(&mismatches(), 10, kind_of_mismatch);
}
