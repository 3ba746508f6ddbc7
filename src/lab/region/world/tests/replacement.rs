//! How instances are told that they end, and how groups replace them.

use super::*;

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
