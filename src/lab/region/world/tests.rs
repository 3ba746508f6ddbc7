//! The region's rules, stepped through by hand.

use super::*;

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

/// A group of three in front of a network load balancer, with a hook each way.
fn balanced(w: &mut World, hooks: Vec<HookSpec>) -> String {
    let spec = BalancerSpec {
        name: "api".into(),
        kind: BalancerKind::Network,
        internal: true,
        port: 443,
        pool: PoolSpec::default(),
        tags: BTreeMap::new(),
    };
    let pool = w.create_balancer(spec).unwrap();
    w.create_group(GroupSpec { pools: vec![pool.clone()], ..group("g", 3, hooks) }).unwrap();
    later(w, 1_000);
    pool
}

fn meta(w: &mut World, id: &InstanceId, path: &str) -> Result<String, u16> {
    let token = w.metadata_token(id, Some(60)).unwrap();
    let body = w.metadata(id, Some(&token), &format!("meta-data/{path}")).map_err(|r| r.status)?;
    Ok(String::from_utf8(body).unwrap())
}

#[test]
fn the_load_balancer_drains_before_the_terminating_hook_begins() {
    let mut w = world();
    let pool = balanced(&mut w, vec![hook(Transition::Terminating, HookResult::Continue)]);
    let id = counted(&w, "g")[0].0.clone();
    assert_eq!(meta(&mut w, &id, "autoscaling/target-lifecycle-state").unwrap(), "InService");
    w.terminate_in_group(&id.0, false).unwrap();
    assert_eq!(state_of(&w, &id), Some(LifecycleState::Terminating));
    assert_eq!(meta(&mut w, &id, "autoscaling/target-lifecycle-state").unwrap(), "Terminated");
    let beat = |w: &mut World| w.record_heartbeat("g", "hook", Some(&id.0), None);
    assert_eq!(code(beat(&mut w)), "ValidationError", "the hook holds nothing yet");
    let delay = w.view().pools[&pool].spec.deregistration_delay_ms;
    later(&mut w, delay - 1);
    assert_eq!(state_of(&w, &id), Some(LifecycleState::Terminating));
    later(&mut w, 1);
    assert_eq!(state_of(&w, &id), Some(LifecycleState::TerminatingWait));
    assert!(beat(&mut w).is_ok());
    assert_eq!(w.view().instances[&id].state, InstanceState::Running);
}

#[test]
fn an_instance_that_has_left_the_load_balancer_by_itself_is_not_waited_for() {
    let mut w = world();
    let pool = balanced(&mut w, vec![]);
    let id = counted(&w, "g")[0].0.clone();
    w.deregister_target(&pool, &id.0, None).unwrap();
    later(&mut w, 10_000);
    w.terminate_in_group(&id.0, false).unwrap();
    assert_eq!(w.view().instances[&id].state, InstanceState::ShuttingDown);
}

#[test]
fn a_group_ends_its_own_instance_and_replaces_it_or_has_one_less() {
    let mut w = world();
    w.create_group(GroupSpec { min: 1, ..group("g", 2, vec![]) }).unwrap();
    later(&mut w, 1_000);
    let id = counted(&w, "g")[0].0.clone();
    assert_eq!(w.terminate_in_group(&id.0, false).unwrap().group, "g");
    later(&mut w, 1_000);
    assert_eq!(counted(&w, "g").len(), 2);
    assert!(!counted(&w, "g").iter().any(|(other, _)| *other == id));
    let id = counted(&w, "g")[0].0.clone();
    w.terminate_in_group(&id.0, true).unwrap();
    // Asked again, it is on its way out already.
    w.terminate_in_group(&id.0, true).unwrap();
    later(&mut w, 1_000);
    assert_eq!(counted(&w, "g").len(), 1);
    let last = counted(&w, "g")[0].0.clone();
    assert_eq!(code(w.terminate_in_group(&last.0, true)), "ValidationError", "the group's minimum");
    let alone = instance_in(&mut w, "eu-west-1a");
    assert_eq!(code(w.terminate_in_group(&alone.0, false)), "ValidationError");
}

#[test]
fn a_spot_instance_is_told_of_its_end_and_ended_whatever_its_hooks_say() {
    let mut w = world();
    let hooks = vec![hook(Transition::Terminating, HookResult::Continue)];
    let template = InstanceSpec { spot: true, ..InstanceSpec::default() };
    w.create_group(GroupSpec { template, ..group("g", 1, hooks) }).unwrap();
    later(&mut w, 1_000);
    let id = counted(&w, "g")[0].0.clone();
    assert_eq!(meta(&mut w, &id, "instance-life-cycle").unwrap(), "spot");
    assert_eq!(meta(&mut w, &id, "spot/instance-action"), Err(404));
    assert_eq!(meta(&mut w, &id, "events/recommendations/rebalance"), Err(404));
    w.recommend_rebalance(&id.0).unwrap();
    w.interrupt_spot(&id.0, SpotAction::Terminate, 120_000).unwrap();
    let end = "2027-01-15T08:02:01Z";
    assert_eq!(
        meta(&mut w, &id, "spot/instance-action").unwrap(),
        format!(r#"{{"action":"terminate","time":"{end}"}}"#)
    );
    assert_eq!(meta(&mut w, &id, "spot/termination-time").unwrap(), end);
    assert_eq!(
        meta(&mut w, &id, "events/recommendations/rebalance").unwrap(),
        r#"{"noticeTime":"2027-01-15T08:00:01Z"}"#
    );
    assert_eq!(w.next_due(), Some(w.now() + 120_000));
    later(&mut w, 119_999);
    assert_eq!(w.view().instances[&id].state, InstanceState::Running);
    later(&mut w, 1);
    assert_eq!(w.view().instances[&id].state, InstanceState::ShuttingDown);
    assert_ne!(counted(&w, "g")[0].0, id, "the group launches another one");
}

#[test]
fn an_interruption_that_stops_has_no_termination_time_and_none_is_for_those_on_demand() {
    let mut w = world();
    let spec = InstanceSpec { zone: "eu-west-1a".into(), spot: true, ..InstanceSpec::default() };
    let id = w.run_instance(spec).unwrap();
    later(&mut w, 1_000);
    w.interrupt_spot(&id.0, SpotAction::Stop, 1_000).unwrap();
    assert!(meta(&mut w, &id, "spot/instance-action").unwrap().contains("stop"));
    assert_eq!(meta(&mut w, &id, "spot/termination-time"), Err(404));
    let other = instance_in(&mut w, "eu-west-1a");
    assert_eq!(code(w.interrupt_spot(&other.0, SpotAction::Terminate, 0)), "UnsupportedOperation");
    assert_eq!(code(w.recommend_rebalance(&other.0)), "UnsupportedOperation");
    assert_eq!(meta(&mut w, &other, "instance-life-cycle").unwrap(), "on-demand");
}

#[test]
fn a_scheduled_event_is_listed_until_it_is_over_and_a_retirement_ends_the_instance() {
    let mut w = world();
    let id = instance_in(&mut w, "eu-west-1a");
    let list = |w: &mut World, which: &str| -> serde_json::Value {
        serde_json::from_str(&meta(w, &id, &format!("events/maintenance/{which}")).unwrap()).unwrap()
    };
    assert_eq!(list(&mut w, "scheduled"), serde_json::json!([]));
    let spec = |code| MaintenanceSpec { code, in_ms: 43_000, for_ms: 60_000, ..MaintenanceSpec::default() };
    let reboot = w.schedule_maintenance(&id.0, &spec(MaintenanceCode::SystemReboot)).unwrap();
    let stop = w.schedule_maintenance(&id.0, &spec(MaintenanceCode::InstanceStop)).unwrap();
    let shown = list(&mut w, "scheduled");
    assert_eq!(
        shown[0],
        serde_json::json!({
            "NotBefore": "15 Jan 2027 08:00:44 GMT",
            "Code": "system-reboot",
            "Description": "scheduled reboot",
            "EventId": reboot,
            "NotAfter": "15 Jan 2027 08:01:44 GMT",
            "State": "active",
        })
    );
    w.cancel_maintenance(&id.0, &stop).unwrap();
    assert_eq!(code(w.cancel_maintenance(&id.0, &stop)), "InvalidInstanceEventID.NotFound");
    later(&mut w, 103_000);
    assert_eq!(list(&mut w, "scheduled"), serde_json::json!([]));
    let over = list(&mut w, "history");
    assert_eq!((&over[0]["State"], &over[1]["State"]), (&"completed".into(), &"canceled".into()));
    assert_eq!(over[0]["Description"], "[Completed] scheduled reboot");
    assert_eq!(w.view().instances[&id].state, InstanceState::Running);

    w.schedule_maintenance(&id.0, &spec(MaintenanceCode::InstanceRetirement)).unwrap();
    later(&mut w, 42_999);
    assert_eq!(w.view().instances[&id].state, InstanceState::Running);
    later(&mut w, 1);
    assert_eq!(w.view().instances[&id].state, InstanceState::ShuttingDown);
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

/// Lets time pass in small steps until a refresh is over; the answers are the fewest instances that were in service in
/// between, and the most that there were besides those on their way out.
fn refreshed(w: &mut World, name: &str) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    for _ in 0..1_000 {
        if !w.view().groups[name].refresh.as_ref().unwrap().goes_on() {
            return (fewest, most);
        }
        let in_service =
            World::members(w.view(), name).filter(|(_, l)| l.state == LifecycleState::InService).count();
        (fewest, most) = (fewest.min(in_service), most.max(counted(w, name).len()));
        later(w, 50);
    }
    panic!("the refresh never ends");
}

#[test]
fn a_refresh_replaces_every_instance_one_after_the_other() {
    for (spec, between) in [
        (RefreshSpec::default(), (2, 3)),
        (RefreshSpec { min_healthy_percentage: 100, ..RefreshSpec::default() }, (3, 4)),
        (RefreshSpec { max_healthy_percentage: 150, ..RefreshSpec::default() }, (3, 4)),
    ] {
        let mut w = world();
        balanced(&mut w, vec![]);
        let before = counted(&w, "g");
        let id = w.start_refresh("g", spec.clone()).unwrap();
        assert_eq!(code(w.start_refresh("g", spec.clone())), "InstanceRefreshInProgress");
        assert_eq!(refreshed(&mut w, "g"), between, "{spec:?}");
        let refresh = w.view().groups["g"].refresh.clone().unwrap();
        assert_eq!((refresh.id, refresh.status), (id, RefreshStatus::Successful));
        let after = counted(&w, "g");
        assert_eq!(zones_of(&w, "g"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
        assert!(before.iter().all(|(old, _)| !after.iter().any(|(new, _)| new == old)));
        later(&mut w, 60_000);
        assert_eq!(counted(&w, "g"), after, "and none more");
    }
}

#[test]
fn a_refresh_waits_for_hooks_and_for_the_warm_up() {
    let mut w = world();
    let hooks = vec![hook(Transition::Launching, HookResult::Continue)];
    w.create_group(group("g", 2, hooks)).unwrap();
    later(&mut w, 1_000);
    later(&mut w, 10_000);
    let spec = RefreshSpec { instance_warmup_ms: 5_000, ..RefreshSpec::default() };
    let began = w.now();
    w.start_refresh("g", spec).unwrap();
    assert_eq!(refreshed(&mut w, "g").0, 1);
    // Twice: the launch, ten seconds at the hook, and the warm-up.
    let took = w.view().groups["g"].refresh.as_ref().unwrap().ended_ms.unwrap() - began;
    assert!((30_000..31_000).contains(&took), "{took}");
    let wrong =
        RefreshSpec { min_healthy_percentage: 50, max_healthy_percentage: 200, ..RefreshSpec::default() };
    assert_eq!(code(w.start_refresh("g", wrong)), "ValidationError");
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
