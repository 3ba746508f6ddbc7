//! The planner: what a machine does next, and why.
//!
//! `plan(settings, observation)` is pure and total: the same observation gives the same plan, and
//! every observation gives one, if only "wait for X" or "halt: Y". Every safety decision of
//! quorate is in this folder:
//!
//! | file | decides |
//! |---|---|
//! | [`volume`] | which volume, and so which slot, this machine claims |
//! | [`disk`] | what may be done to the device and its file system |
//! | [`certificates`] | when the authority is made and when leaves are issued |
//! | [`founding`] | who founds the cluster, and when a founding is given up for the next |
//! | [`member`] | whether and how this machine's etcd starts, on what it remembers |
//! | [`takeover`] | when a standby takes over the slot of another zone, and what is left behind there |
//! | [`joining`] | how a blank volume becomes a member, and when an old member is removed |
//! | [`recovery`] | when a cluster that has lost its quorum for good is brought back, and by whom |
//! | [`upkeep`] | what a healthy member keeps in order |
//! | [`control_plane`] | Kubernetes' certificates, files and static pods |
//! | [`rollout`] | the first manifest of a static pod, and the change of one that runs |
//! | [`api`] | which machine looks after what is kept in the API, and what is applied and taken away there |
//! | [`node`] | what runs on every node: containerd, kubelet and kube-proxy |
//! | [`logind`] | how long a shutdown of the machine waits for pods, and for etcd's leadership |
//! | [`shutdown`] | what is done in the seconds before the machine shuts down |
//! | [`worker`] | how a worker joins, follows its cluster, and stays a node |
//! | [`departure`] | how a machine leaves, and when it is let go |
//! | [`notices`] | what follows from what EC2 announces |
//! | [`launch`] | when a machine that was launched is in service, and when it is given up |
//! | [`enrolment`] | which machines become nodes, and which nodes are deleted |
//! | [`backups`] | which machines may keep the backups, and what is warned of when they are not kept |
//! | [`care`] | how etcd's databases are kept: alarms for want of space, defragmentation |
//! | [`corruption`] | when members hold different data, and how one is replaced for it |
//! | [`wedged`] | when etcd is restarted that says nothing, and when the instance is given up |
//! | [`inventory`] | what does not match among members, machines and volumes, and when that is warned of |
//! | [`evidence`] | what counts as gone for good, and as a sign of an earlier life |
//!
//! What must not live here: IO, the clock, randomness, async. The moment and the randomness are
//! parts of the observation. A step that is not safe on an unknown answer is never planned on one.

mod api;
mod backups;
mod care;
mod certificates;
mod control_plane;
mod corruption;
mod course;
mod departure;
mod disk;
mod enrolment;
mod evidence;
mod founding;
mod inventory;
mod joining;
mod launch;
mod logind;
mod member;
mod node;
mod notices;
mod recovery;
mod rollout;
mod shutdown;
mod takeover;
mod upkeep;
mod volume;
mod wedged;
mod worker;

use crate::config::Settings;
use crate::model::plan::Subject;
use crate::model::{Fact, Halt, Observation, Phase, Plan, Role};

use course::{Course, Next};

pub use control_plane::control_plane_inputs;
pub use node::node_inputs;
pub use worker::worker_inputs;

/// What this machine does next.
pub fn plan(settings: &Settings, seen: &Observation) -> Plan {
    if let Some(plan) = shutdown::decide(seen) {
        return plan;
    }
    let mut plan = match departure::decide(settings, seen) {
        Some(leaves) => leaves,
        None => {
            let plan = launch::extend(settings, seen, stays(settings, seen));
            notices::close(settings, seen, plan)
        }
    };
    notices::warn(&seen.departure, &mut plan);
    plan
}

/// What a machine does next that does not leave.
fn stays(settings: &Settings, seen: &Observation) -> Plan {
    let etcd = match decide(settings, seen) {
        Ok(plan) => plan,
        Err(plan) => *plan,
    };
    match settings.role {
        Role::ControlPlane => control_plane::extend(settings, seen, etcd),
        Role::Worker => etcd,
    }
}

fn decide(settings: &Settings, seen: &Observation) -> Next<Plan> {
    let mut course = Course::new(Phase::Identifying);
    let me = course.need(&seen.identity, Subject::Identity)?;
    if let Some(expected) = &settings.region
        && *expected != me.region
    {
        return Err(course.halt(Halt::OtherRegion { found: me.region.clone(), expected: expected.clone() }));
    }
    match settings.role {
        Role::ControlPlane => {}
        Role::Worker => return worker::decide(settings, seen, me, course),
    }
    check_charter(settings, seen, &course)?;

    course.phase = Phase::Preparing;
    let meanwhile = |plan| certificates::meanwhile(seen, me, plan);
    let claim = volume::claim(settings, seen, me, &mut course).map_err(meanwhile)?;
    course.slot = Some(claim.slot);
    let held = disk::prepare(settings, seen, claim, &mut course).map_err(meanwhile)?;
    certificates::prepare(seen, me, &held, &mut course)?;
    member::decide(settings, seen, me, &held, course)
}

/// A charter of another cluster or region, or of another size, is not followed.
fn check_charter(settings: &Settings, seen: &Observation, course: &Course) -> Next<()> {
    let charter = match &seen.charter {
        Fact::Known(Some(charter)) => &charter.value,
        Fact::Known(None) | Fact::Unknown(_) => return Ok(()),
    };
    if charter.cluster != settings.cluster {
        return Err(course.halt(Halt::OtherCharter {
            found: charter.cluster.clone(),
            expected: settings.cluster.clone(),
        }));
    }
    if let Fact::Known(me) = &seen.identity
        && charter.region != me.region
    {
        return Err(
            course.halt(Halt::OtherRegion { found: me.region.clone(), expected: charter.region.clone() })
        );
    }
    if charter.size() != settings.etcd.size.slots() {
        return Err(
            course.halt(Halt::OtherSize { found: settings.etcd.size.slots(), expected: charter.size() })
        );
    }
    Ok(())
}
