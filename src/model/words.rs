//! The plan's reasons in words, for status pages, logs and the system console.
//!
//! A wait says what would end it; a halt says what was found, what was expected and what to do.

use std::fmt;

use super::ids::{Slot, VolumeId};
use super::plan::{Halt, WaitingOn, Warning};

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn slots(slots: &[Slot]) -> String {
    format!("slot{} {}", if slots.len() == 1 { "" } else { "s" }, list(slots))
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
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration { errors } => write!(f, "the configuration is wrong: {errors}"),
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
        }
    }
}

impl fmt::Display for Warning {
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
        }
    }
}
