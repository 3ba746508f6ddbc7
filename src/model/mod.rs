//! The nouns: plain values that the observers make, the planner reads and the executor obeys.
//!
//! Everything here is data with equality, order and a JSON form, so that an observation can be
//! recorded in the field and replayed on a desk, and a plan compared with another.
//!
//! What must not live here: IO, the clock, randomness, async, and decisions. The transitions of
//! the charter ([`charter`]) are the one exception to the last: they are the linearised state
//! machine of founding, and belong to the value they change.

pub mod addons;
pub mod backup;
pub mod care;
pub mod charter;
pub mod cluster;
pub mod containerd;
pub mod departure;
pub mod disk;
pub mod enrolment;
pub mod fact;
pub mod ids;
pub mod kubernetes;
pub mod load_balancer;
pub mod machine;
pub mod mismatch;
pub mod names;
pub mod node;
pub mod observation;
pub mod phase;
pub mod plan;
pub mod service;
pub mod stamp;
pub mod step;
pub mod tags;
pub(crate) mod words;
pub mod worker;

pub use addons::{
    AddonDirectory, AddonFailure, AddonFile, AddonPlace, AddonsObservation, AppliedAddon, LabelledObject,
    ObjectKey,
};
pub use backup::{BackupKey, BackupPart, ChainName, ChosenBackup, Manifest, RestorePoint};
pub use care::{
    Alarm, AlarmKind, CareNotes, Comparison, ComparisonPlace, Comparisons, EtcdCare, MemberCare, Silence,
    Storage, StoreHash, WedgeNote,
};
pub use charter::{Charter, Founder, Recovery};
pub use cluster::{
    ClusterView, EtcdLaunch, EtcdVersion, LaunchState, Member, OwnMember, ServiceState, SlotRecord,
};
pub use disk::{Content, DataDir, Disk, Mount, VolumeContents};
pub use fact::Fact;
pub use ids::{
    ClusterName, ClusterUuid, ETag, Generation, InstanceId, MemberId, Nonce, Region, Role, Slot, VolumeId,
    Zone,
};
pub use kubernetes::{ControlPlaneRecords, KubernetesObservation};
pub use load_balancer::{
    FoundLoadBalancers, HealthCheck, LoadBalancer, LoadBalancerKind, Scheme, Target, TargetGroupArn,
    TargetHealth, TargetId, Unfit, UnfitLoadBalancer,
};
pub use machine::{Attachment, AttachmentState, Identity, Instance, InstanceState, Volume, VolumeState};
pub use mismatch::{Mismatch, Noticed};
pub use node::{
    CapacityType, CgroupVersion, DropIn, InstanceFacts, InterfaceLimits, KernelVersion, Machine, NodeFacts,
    NodeName,
};
pub use observation::{Authority, Leaves, Observation, Versioned};
pub use phase::Phase;
pub use plan::{Halt, Plan, Report, SlotVolume, Waiting, WaitingOn, Warning};
pub use service::{ServiceLaunch, ServiceName, ServiceObservation};
pub use stamp::{Stamp, StampState};
pub use step::Step;
