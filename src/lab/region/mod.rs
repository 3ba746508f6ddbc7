//! The simulated region: EC2, Auto Scaling, load balancers, S3 and metadata services, as exact as the agent needs
//! them and no wider than it calls them.
//!
//! The agent talks to it with AWS's own SDK through AWS's own endpoint variables, so nothing in the
//! agent knows of it. It exists because no emulator has the semantics on which an etcd cluster's
//! safety rests: exclusive attachment within the zone, idempotent client tokens, lifecycle hooks, one
//! metadata service an instance, and bad weather on demand.
//!
//! - [`World`] is the state and its rules: pure, with an injected clock and seeded chance.
//! - `wire` speaks AWS's protocols over it; `control` is the laboratory's own API ([`control`]).
//! - `front` is the load balancers at work: they listen, forward and probe.
//! - [`Region`] runs all of it on loopback addresses, in this process.
//!
//! Machines do not live here: whoever supervises them follows the [`Event`]s, starts and kills
//! programs, and makes devices appear.

mod clock;
pub mod control;
mod front;
mod server;
mod wire;
mod world;

pub use server::{Endpoints, ImdsPlacement, Region, RegionConfig, RegionError};
pub use world::{
    AccessRule, Attachment, AttachmentState, Authorization, Balancer, BalancerKind, BalancerSpec,
    BucketSettings, Call, Caller, CheckProtocol, CheckSpec, Condition, Credentials, Decision, Encryption,
    Ending, Event, EventKind, Fault, FaultKind, FaultSpec, Group, GroupSpec, Hold, HookResult, HookSpec,
    ImdsFaults, ImdsGate, Instance, InstanceId, InstanceSpec, InstanceState, Interruption, LaunchVolume,
    Lifecycle, LifecycleRule, LifecycleState, Listing, Maintenance, MaintenanceCode, MaintenanceSpec,
    MaintenanceState, Mounted, Notices, Object, Outcome, Pool, PoolHealth, PoolSpec, PoolTarget, Put,
    Refresh, RefreshSpec, RefreshStatus, Refusal, Service, SpotAction, Timings, Transition, TypeSpec, View,
    Volume, VolumeId, VolumeSpec, VolumeState, World, WorldConfig, Zone,
};
