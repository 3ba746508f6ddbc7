//! The region's rules, stepped through by hand.

use super::*;

mod replacement;

const START: u64 = 1_800_000_000_000;

fn world() -> World {
    World::new(WorldConfig::default(), START)
}

fn later(world: &mut World, ms: u64) {
    world.advance(world.now() + ms);
}

fn group(name: &str, desired: usize, hooks: Vec<HookSpec>) -> GroupSpec {
    GroupSpec { name: name.into(), desired, max: 10, hooks, ..GroupSpec::default() }
}

fn hook(transition: Transition, default_result: HookResult) -> HookSpec {
    HookSpec { name: "hook".into(), transition, heartbeat_timeout_ms: 10_000, default_result }
}

fn instance_in(world: &mut World, zone: &str) -> InstanceId {
    let id = world.run_instance(InstanceSpec { zone: zone.into(), ..InstanceSpec::default() }).unwrap();
    later(world, 1_000);
    id
}

fn volume_in(world: &mut World, zone: &str) -> VolumeId {
    let spec = VolumeSpec { zone: zone.into(), ..VolumeSpec::default() };
    let id = world.create_volume(spec, None).unwrap();
    later(world, 1_000);
    id
}

fn code<T>(result: Result<T, Refusal>) -> &'static str {
    result.err().map_or("no refusal", |r| r.code)
}

/// The group's instances that count as capacity, with their zones.
fn counted(world: &World, name: &str) -> Vec<(InstanceId, String)> {
    let mut members: Vec<_> = World::members(world.view(), name)
        .filter(|(_, l)| !l.state.is_leaving())
        .map(|(i, _)| (i.id.clone(), i.zone.clone()))
        .collect();
    members.sort_by(|a, b| a.1.cmp(&b.1));
    members
}

fn zones_of(world: &World, name: &str) -> Vec<String> {
    counted(world, name).into_iter().map(|(_, zone)| zone).collect()
}

fn events(world: &World, fits: impl Fn(&EventKind) -> bool) -> usize {
    world.events_after(0).iter().filter(|e| fits(&e.kind)).count()
}

#[test]
fn a_volume_is_attached_to_one_instance_of_its_zone_only() {
    let mut w = world();
    let (one, two) = (instance_in(&mut w, "eu-west-1a"), instance_in(&mut w, "eu-west-1a"));
    let far = instance_in(&mut w, "eu-west-1b");
    let volume = volume_in(&mut w, "eu-west-1a");
    assert_eq!(code(w.attach_volume(&volume.0, &far.0, "/dev/xvdf")), "InvalidVolume.ZoneMismatch");
    let attached = w.attach_volume(&volume.0, &one.0, "/dev/xvdf").unwrap();
    assert_eq!(attached.attachment.unwrap().state, AttachmentState::Attaching);
    assert_eq!(code(w.attach_volume(&volume.0, &two.0, "/dev/xvdf")), "VolumeInUse");
    later(&mut w, 1_000);
    assert_eq!(w.view().volumes[&volume].attachment.as_ref().unwrap().state, AttachmentState::Attached);
    assert_eq!(events(&w, |e| matches!(e, EventKind::VolumeAttached { .. })), 1);
    // Nor to the same one again.
    assert_eq!(code(w.attach_volume(&volume.0, &one.0, "/dev/xvdg")), "VolumeInUse");
}

#[test]
fn a_detaching_volume_is_free_only_when_it_is_detached() {
    let mut w = world();
    let (one, two) = (instance_in(&mut w, "eu-west-1a"), instance_in(&mut w, "eu-west-1a"));
    let volume = volume_in(&mut w, "eu-west-1a");
    w.attach_volume(&volume.0, &one.0, "/dev/xvdf").unwrap();
    assert_eq!(code(w.detach_volume(&volume.0, None, false)), "IncorrectState", "still attaching");
    later(&mut w, 1_000);
    assert_eq!(code(w.detach_volume(&volume.0, Some(&two.0), false)), "InvalidAttachment.NotFound");
    assert_eq!(code(w.detach_volume(&volume.0, None, true)), "UnsupportedOperation");
    w.detach_volume(&volume.0, Some(&one.0), false).unwrap();
    assert_eq!(code(w.attach_volume(&volume.0, &two.0, "/dev/xvdf")), "VolumeInUse");
    later(&mut w, 1_000);
    w.attach_volume(&volume.0, &two.0, "/dev/xvdf").unwrap();
    assert_eq!(events(&w, |e| matches!(e, EventKind::VolumeDetached { .. })), 1);
}

#[test]
fn a_volume_that_is_still_creating_and_a_pending_instance_are_in_the_wrong_state() {
    let mut w = world();
    let running = instance_in(&mut w, "eu-west-1a");
    let spec = VolumeSpec { zone: "eu-west-1a".into(), ..VolumeSpec::default() };
    let creating = w.create_volume(spec.clone(), None).unwrap();
    assert_eq!(code(w.attach_volume(&creating.0, &running.0, "/dev/xvdf")), "IncorrectState");
    later(&mut w, 1_000);
    let pending =
        w.run_instance(InstanceSpec { zone: "eu-west-1a".into(), ..InstanceSpec::default() }).unwrap();
    assert_eq!(code(w.attach_volume(&creating.0, &pending.0, "/dev/xvdf")), "IncorrectState");
    assert_eq!(code(w.attach_volume(&creating.0, "i-0ff", "/dev/xvdf")), "InvalidInstanceID.NotFound");
    assert_eq!(code(w.attach_volume("vol-0ff", &running.0, "/dev/xvdf")), "InvalidVolume.NotFound");
}

#[test]
fn one_client_token_makes_one_volume() {
    let mut w = world();
    let spec = VolumeSpec { zone: "eu-west-1a".into(), ..VolumeSpec::default() };
    let first = w.create_volume(spec.clone(), Some("token")).unwrap();
    later(&mut w, 5_000);
    assert_eq!(w.create_volume(spec.clone(), Some("token")).unwrap(), first);
    let other = VolumeSpec { size_gib: 2, ..spec };
    assert_eq!(code(w.create_volume(other, Some("token"))), "IdempotentParameterMismatch");
    assert_eq!(w.view().volumes.len(), 1);
}

#[test]
fn a_terminated_instance_lets_go_of_its_volumes_and_is_forgotten_later() {
    let mut w = world();
    let launched = LaunchVolume {
        device: "/dev/xvdb".into(),
        size_gib: 1,
        delete_on_termination: true,
        tags: BTreeMap::new(),
    };
    let spec = InstanceSpec { zone: "eu-west-1a".into(), volumes: vec![launched], ..InstanceSpec::default() };
    let id = w.run_instance(spec).unwrap();
    later(&mut w, 1_000);
    let kept = volume_in(&mut w, "eu-west-1a");
    w.attach_volume(&kept.0, &id.0, "/dev/xvdf").unwrap();
    later(&mut w, 1_000);
    w.terminate_instance(&id.0).unwrap();
    assert_eq!(w.view().instances[&id].state, InstanceState::ShuttingDown);
    assert_eq!(w.view().volumes[&kept].state, VolumeState::InUse, "not before the instance is gone");
    later(&mut w, 1_000);
    later(&mut w, 1_000);
    assert_eq!(w.view().instances[&id].state, InstanceState::Terminated);
    assert_eq!(w.view().volumes[&kept].state, VolumeState::Available);
    assert_eq!(w.view().volumes.len(), 1, "the launch's own volume went with it");
    later(&mut w, 120_000);
    assert_eq!(code(w.instance_id(&id.0)), "InvalidInstanceID.NotFound");
}

#[test]
fn a_killed_instance_stays_running_to_ec2_until_its_group_replaces_it() {
    let mut w = world();
    w.create_group(group("g", 3, vec![])).unwrap();
    later(&mut w, 1_000);
    assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    let before = counted(&w, "g");
    let victim = before[1].0.clone();
    let old_ip = w.view().instances[&victim].private_ip;
    w.kill_instance(&victim.0).unwrap();
    assert_eq!(w.view().instances[&victim].state, InstanceState::Running);
    assert_eq!(events(&w, |e| matches!(e, EventKind::InstanceKilled { .. })), 1);
    later(&mut w, 1_000);
    let after = counted(&w, "g");
    assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    assert_ne!(after[1].0, victim);
    assert_ne!(w.view().instances[&after[1].0].private_ip, old_ip);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
}

#[test]
fn addresses_are_unique_unless_they_may_be_reused() {
    for reuse in [false, true] {
        let config = WorldConfig { reuse_addresses: reuse, ..WorldConfig::default() };
        let mut w = World::new(config, START);
        let first = instance_in(&mut w, "eu-west-1b");
        let ip = w.view().instances[&first].private_ip;
        assert_eq!(ip.to_string(), "127.100.2.1");
        w.terminate_instance(&first.0).unwrap();
        later(&mut w, 1_000);
        let second = instance_in(&mut w, "eu-west-1b");
        assert_eq!(w.view().instances[&second].private_ip == ip, reuse);
    }
}

#[test]
fn a_stopped_zone_gets_no_launches_and_confirms_no_death() {
    let mut w = world();
    w.create_group(group("g", 3, vec![])).unwrap();
    later(&mut w, 1_000);
    let lost = counted(&w, "g")[2].0.clone();
    let volume = volume_in(&mut w, "eu-west-1c");
    w.attach_volume(&volume.0, &lost.0, "/dev/xvdf").unwrap();
    later(&mut w, 1_000);
    w.stop_zone("eu-west-1c").unwrap();
    later(&mut w, 2_000);
    later(&mut w, 2_000);
    assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1a", "eu-west-1b"]);
    assert_eq!(w.view().instances[&lost].state, InstanceState::ShuttingDown);
    assert_eq!(w.view().volumes[&volume].state, VolumeState::InUse);
    let spec = VolumeSpec { zone: "eu-west-1c".into(), ..VolumeSpec::default() };
    assert_eq!(code(w.create_volume(spec, None)), "Unavailable");

    w.start_zone("eu-west-1c").unwrap();
    for _ in 0..4 {
        later(&mut w, 1_000);
    }
    assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"], "rebalanced");
    assert_eq!(w.view().volumes[&volume].state, VolumeState::Available);
}

#[test]
fn a_group_without_any_zone_launches_when_one_is_back() {
    let mut w = world();
    for zone in ["eu-west-1a", "eu-west-1b", "eu-west-1c"] {
        w.stop_zone(zone).unwrap();
    }
    w.create_group(group("g", 1, vec![])).unwrap();
    assert!(counted(&w, "g").is_empty());
    assert!(w.next_due().is_some(), "it tries again");
    w.start_zone("eu-west-1b").unwrap();
    later(&mut w, 1_000);
    assert_eq!(zones_of(&w, "g"), ["eu-west-1b"]);
}

#[test]
fn scaling_in_takes_the_fullest_zone_first() {
    let mut w = world();
    w.create_group(group("g", 4, vec![])).unwrap();
    later(&mut w, 1_000);
    w.set_desired_capacity("g", 3).unwrap();
    later(&mut w, 1_000);
    assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    assert_eq!(code(w.set_desired_capacity("g", 11)), "ValidationError");
}

fn state_of(world: &World, id: &InstanceId) -> Option<LifecycleState> {
    world.view().instances[id].lifecycle.as_ref().map(|l| l.state)
}

#[test]
fn a_launching_hook_holds_an_instance_until_it_is_completed() {
    let mut w = world();
    w.create_group(group("g", 1, vec![hook(Transition::Launching, HookResult::Abandon)])).unwrap();
    later(&mut w, 1_000);
    let id = counted(&w, "g")[0].0.clone();
    assert_eq!(state_of(&w, &id), Some(LifecycleState::PendingWait));
    let complete = |w: &mut World, hook: &str| {
        w.complete_lifecycle_action("g", hook, Some(&id.0), None, HookResult::Continue)
    };
    assert_eq!(code(complete(&mut w, "other")), "ValidationError");
    complete(&mut w, "hook").unwrap();
    assert_eq!(state_of(&w, &id), Some(LifecycleState::InService));
    assert_eq!(code(complete(&mut w, "hook")), "ValidationError", "there is nothing to complete any more");
}

#[test]
fn a_hook_that_nobody_completes_takes_its_default_and_heartbeats_put_that_off() {
    let mut w = world();
    w.create_group(group("g", 1, vec![hook(Transition::Launching, HookResult::Abandon)])).unwrap();
    later(&mut w, 1_000);
    let id = counted(&w, "g")[0].0.clone();
    later(&mut w, 8_000);
    w.record_heartbeat("g", "hook", Some(&id.0), None).unwrap();
    later(&mut w, 9_000);
    assert_eq!(state_of(&w, &id), Some(LifecycleState::PendingWait));
    later(&mut w, 1_000);
    assert_eq!(state_of(&w, &id), Some(LifecycleState::Terminating), "abandoned");
    assert_ne!(counted(&w, "g")[0].0, id, "another one is launched");
}

#[test]
fn a_terminating_hook_holds_the_machine_alive() {
    let mut w = world();
    w.create_group(group("g", 1, vec![hook(Transition::Terminating, HookResult::Continue)])).unwrap();
    later(&mut w, 1_000);
    let id = counted(&w, "g")[0].0.clone();
    let token = w.metadata_token(&id, Some(60)).unwrap();
    let target = |w: &World| {
        let body = w.metadata(&id, Some(&token), "meta-data/autoscaling/target-lifecycle-state").unwrap();
        String::from_utf8(body).unwrap()
    };
    assert_eq!(target(&w), "InService");
    w.set_desired_capacity("g", 0).unwrap();
    later(&mut w, 5_000);
    assert_eq!(state_of(&w, &id), Some(LifecycleState::TerminatingWait));
    assert_eq!(target(&w), "Terminated");
    assert_eq!(w.view().instances[&id].state, InstanceState::Running);
    let hold = w.view().instances[&id].lifecycle.clone().unwrap().holds.remove(0);
    w.complete_lifecycle_action("g", "hook", None, Some(&hold.token), HookResult::Abandon).unwrap();
    assert_eq!(w.view().instances[&id].state, InstanceState::ShuttingDown);
    later(&mut w, 1_000);
    assert_eq!(state_of(&w, &id), None);
}

#[test]
fn a_stale_view_shows_what_was_true_then() {
    let mut w = world();
    later(&mut w, 10_000);
    let id = instance_in(&mut w, "eu-west-1a");
    assert!(w.view_at_age(0).instances.contains_key(&id));
    assert!(!w.view_at_age(5_000).instances.contains_key(&id));
    later(&mut w, 200_000);
    assert!(w.view_at_age(1_000).instances.contains_key(&id), "long ago is not forgotten");
}

#[test]
fn what_is_made_in_the_first_millisecond_was_not_there_before() {
    let mut w = world();
    let spec = VolumeSpec { zone: "eu-west-1a".into(), ..VolumeSpec::default() };
    w.create_volume(spec, None).unwrap();
    assert_eq!((w.view_at_age(0).volumes.len(), w.view_at_age(1).volumes.len()), (1, 0));
}

#[test]
fn a_group_of_a_thousand_is_spread_evenly_with_an_address_each() {
    let mut w = world();
    w.create_group(GroupSpec { max: 1_000, ..group("g", 1_000, vec![]) }).unwrap();
    let zones = zones_of(&w, "g");
    let sizes = ["eu-west-1a", "eu-west-1b", "eu-west-1c"].map(|z| zones.iter().filter(|m| *m == z).count());
    assert_eq!(sizes, [334, 333, 333]);
    let addresses: std::collections::BTreeSet<_> =
        w.view().instances.values().map(|i| i.private_ip).collect();
    assert_eq!(addresses.len(), 1_000);
}

#[test]
fn faults_strike_at_their_rate_and_the_same_calls_for_the_same_seed() {
    let run = || {
        let mut w = world();
        w.add_fault(FaultSpec {
            service: Service::Ec2,
            operation: None,
            instance: None,
            kind: FaultKind::Throttle,
            rate: 0.2,
            count: None,
            seed: Some(7),
        });
        (0..1000).map(|_| w.decide(Service::Ec2, "DescribeVolumes", "", None).outcome).collect::<Vec<_>>()
    };
    let struck = run().iter().filter(|o| **o == Outcome::Throttled).count();
    assert!((150..250).contains(&struck), "{struck}");
    assert_eq!(run(), run());
}

#[test]
fn metadata_tokens_expire_and_belong_to_one_instance() {
    let mut w = world();
    let (one, two) = (instance_in(&mut w, "eu-west-1a"), instance_in(&mut w, "eu-west-1a"));
    let token = w.metadata_token(&one, Some(60)).unwrap();
    let status = |w: &World, id: &InstanceId| match w.metadata(id, Some(&token), "meta-data/instance-id") {
        Ok(body) => {
            assert_eq!(body, id.as_str().as_bytes());
            200
        }
        Err(refusal) => refusal.status,
    };
    assert_eq!((status(&w, &one), status(&w, &two)), (200, 401));
    later(&mut w, 60_000);
    assert_eq!(status(&w, &one), 401);
    assert_eq!(w.metadata_token(&one, Some(21_601)).unwrap_err().status, 400);
    assert_eq!(w.metadata_token(&one, None).unwrap_err().status, 400);
}

#[test]
fn a_role_without_list_permission_learns_nothing_from_a_missing_key() {
    let mut w = world();
    w.create_bucket("b");
    let id = instance_in(&mut w, "eu-west-1a");
    let caller = Caller::Instance { id, role: "node".into() };
    let status = |w: &World| w.get_object(&caller, "b", "c/pki/ca.key").unwrap_err().status;
    assert_eq!(status(&w), 404);
    let rule = |read, prefix: &str| AccessRule {
        role: "node".into(),
        bucket: "b".into(),
        prefix: prefix.into(),
        read,
        write: true,
        list: false,
    };
    w.add_access_rule(rule(true, ""));
    assert_eq!(status(&w), 403, "NoSuchKey is told only to who may list");
    w.put_object(&caller, "b", "c/pki/ca.key", Put::default(), &Condition::Absent).unwrap();
    assert!(w.get_object(&caller, "b", "c/pki/ca.key").is_ok());
    w.add_access_rule(rule(false, "c/pki/"));
    assert_eq!(status(&w), 403, "the longer prefix decides");
    assert!(w.get_object(&Caller::Operator, "b", "c/pki/ca.key").is_ok());
}

#[test]
fn listings_are_paged_without_gap_or_overlap_and_roll_up_prefixes() {
    let mut w = world();
    w.create_bucket("b");
    for key in ["p/a", "p/d/1", "p/d/2", "p/e", "q"] {
        w.put_object(&Caller::Operator, "b", key, Put::default(), &Condition::None).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = w.list_objects(&Caller::Operator, "b", "p/", Some("/"), after.as_deref(), 1).unwrap();
        seen.extend(page.objects.into_iter().map(|(key, _)| key));
        seen.extend(page.common_prefixes);
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["p/a", "p/d/", "p/e"]);
}

#[test]
fn user_data_are_served_byte_for_byte_up_to_16_kib() {
    let mut w = world();
    let mut run = |spec: InstanceSpec| {
        let spec = InstanceSpec { zone: "eu-west-1a".into(), ..spec };
        let id = w.run_instance(spec)?;
        let token = w.metadata_token(&id, Some(60))?;
        w.metadata(&id, Some(&token), "user-data")
    };
    let text = |length| InstanceSpec { user_data: Some("x".repeat(length)), ..InstanceSpec::default() };
    let base64 =
        |encoded: &str| InstanceSpec { user_data_base64: Some(encoded.into()), ..InstanceSpec::default() };
    assert_eq!(run(base64("H4sIAP8=")).unwrap(), [0x1f, 0x8b, 0x08, 0x00, 0xff]);
    assert_eq!(run(text(16_384)).unwrap().len(), 16_384);
    assert_eq!(code(run(text(16_385))), "InvalidParameterValue");
    assert_eq!(code(run(base64("?"))), "InvalidUserData.Malformed");
    assert_eq!(run(InstanceSpec::default()).unwrap_err().status, 404);
}

#[test]
fn a_volume_that_is_mounted_is_busy_until_it_is_not() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut w = world();
    let mounted = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&mounted);
    w.set_mounted(Arc::new(move |_, _| asked.load(Ordering::Relaxed)));
    let (one, volume) = (instance_in(&mut w, "eu-west-1a"), volume_in(&mut w, "eu-west-1a"));
    w.attach_volume(&volume.0, &one.0, "/dev/xvdf").unwrap();
    later(&mut w, 1_000);
    w.detach_volume(&volume.0, Some(&one.0), false).unwrap();
    let state = |w: &World| w.view().volumes[&volume].attachment.as_ref().map(|a| a.state);
    assert_eq!(state(&w), Some(AttachmentState::Detaching));
    for _ in 0..3 {
        later(&mut w, 1_000);
        assert_eq!(state(&w), Some(AttachmentState::Busy));
    }
    assert_eq!(w.view().volumes[&volume].state, VolumeState::InUse);
    mounted.store(false, Ordering::Relaxed);
    later(&mut w, 1_000);
    assert_eq!((state(&w), w.view().volumes[&volume].state), (None, VolumeState::Available));

    // What has no power has nothing mounted.
    mounted.store(true, Ordering::Relaxed);
    w.attach_volume(&volume.0, &one.0, "/dev/xvdf").unwrap();
    later(&mut w, 1_000);
    w.kill_instance(&one.0).unwrap();
    w.detach_volume(&volume.0, None, false).unwrap();
    later(&mut w, 1_000);
    assert_eq!(w.view().volumes[&volume].state, VolumeState::Available);
}

#[test]
fn a_volume_goes_with_its_instance_when_that_was_said() {
    let mut w = world();
    let (one, volume) = (instance_in(&mut w, "eu-west-1a"), volume_in(&mut w, "eu-west-1a"));
    assert_eq!(code(w.set_delete_on_termination(&volume.0, true)), "InvalidAttachment.NotFound");
    w.attach_volume(&volume.0, &one.0, "/dev/xvdf").unwrap();
    w.set_delete_on_termination(&volume.0, true).unwrap();
    later(&mut w, 1_000);
    w.terminate_instance(&one.0).unwrap();
    later(&mut w, 1_000);
    later(&mut w, 1_000);
    assert!(w.view().volumes.is_empty());
}

#[test]
fn an_instance_that_its_group_is_told_is_not_healthy_is_replaced_through_the_hooks() {
    let mut w = world();
    w.create_group(group("g", 2, vec![hook(Transition::Terminating, HookResult::Continue)])).unwrap();
    later(&mut w, 60_000);
    let before = counted(&w, "g");
    let (given_up, _) = before[0].clone();
    w.set_instance_health(&given_up.0, true).unwrap();
    later(&mut w, 60_000);
    assert_eq!(counted(&w, "g"), before, "it is healthy");
    w.set_instance_health(&given_up.0, false).unwrap();
    w.set_instance_health(&given_up.0, false).unwrap();
    later(&mut w, 1_000);
    let standing = w.view().instances[&given_up].lifecycle.clone().unwrap();
    assert_eq!((standing.state, standing.healthy), (LifecycleState::TerminatingWait, false));
    later(&mut w, 60_000);
    let after = counted(&w, "g");
    assert_eq!(after.len(), 2);
    assert!(!after.iter().any(|(id, _)| *id == given_up), "{after:?}");
    assert_eq!(code(w.set_instance_health("i-0123", false)), "ValidationError");
}
