//! What moto gets wrong: exclusive attachment, zones, client tokens, tags on what does not exist,
//! hooks, permissions. Held to AWS's documentation, against the simulated region alone.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::Tag;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use quorate::lab::region::{
    AccessRule, EventKind, GroupSpec, HookResult, HookSpec, RegionConfig, Service, Timings, Transition,
    WorldConfig,
};
use quorate::model::{InstanceId, InstanceState};

use super::endpoints::{Endpoints, OPERATOR, SOON, ZONES, config, s3_client, tags};
use super::http;
use super::suite::{status, text, volume};

#[tokio::test]
async fn a_volume_is_attached_to_one_instance_of_its_zone_only() {
    let e = Endpoints::simulated().await;
    let one = e.instance(ZONES[0], &tags(&[])).await;
    let two = e.instance(ZONES[0], &tags(&[])).await;
    let far = e.instance(ZONES[1], &tags(&[])).await;
    let id = volume(&e, ZONES[0], "exclusive").await;
    let attach = |instance: &str| {
        e.ec2.attach_volume().volume_id(&id).instance_id(instance).device("/dev/xvdf").send()
    };
    assert_eq!(attach(&far).await.unwrap_err().code(), Some("InvalidVolume.ZoneMismatch"));
    let (first, second) = tokio::join!(attach(&one), attach(&two));
    let winners = [&first, &second].iter().filter(|r| r.is_ok()).count();
    assert_eq!(winners, 1);
    let refused = first.err().or(second.err()).unwrap();
    assert_eq!(refused.code(), Some("VolumeInUse"));
}

#[tokio::test]
async fn an_attachment_passes_through_attaching_and_detaching() {
    // Long enough that a description sees the states in between on a busy machine.
    let timings = Timings { attach_ms: 1_000, detach_ms: 1_000, ..Timings::default() };
    let world = WorldConfig { timings, ..WorldConfig::default() };
    let e = Endpoints::simulated_with(RegionConfig { world, ..RegionConfig::default() }).await;
    let instance = e.instance(ZONES[0], &tags(&[])).await;
    let id = volume(&e, ZONES[0], "states").await;
    let attached =
        e.ec2.attach_volume().volume_id(&id).instance_id(&instance).device("/dev/xvdf").send().await;
    assert_eq!(attached.unwrap().state().unwrap().as_str(), "attaching");
    let detach = || e.ec2.detach_volume().volume_id(&id).send();
    assert_eq!(detach().await.unwrap_err().code(), Some("IncorrectState"));
    let attached = |w: &quorate::lab::region::World| {
        w.events_after(0).iter().any(|e| matches!(e.kind, EventKind::VolumeAttached { .. }))
    };
    assert!(e.region().wait_until(SOON, attached).await);
    assert_eq!(detach().await.unwrap().state().unwrap().as_str(), "detaching");
    let described = e.ec2.describe_volumes().volume_ids(&id).send().await.unwrap();
    let found = &described.volumes()[0];
    assert_eq!(found.state().unwrap().as_str(), "in-use");
    assert_eq!(found.attachments()[0].state().unwrap().as_str(), "detaching");
    let forced = e.ec2.detach_volume().volume_id(&id).force(true).send().await.unwrap_err();
    assert_eq!(forced.code(), Some("UnsupportedOperation"));
}

#[tokio::test]
async fn one_client_token_makes_one_volume() {
    let e = Endpoints::simulated().await;
    let create = |size| {
        e.ec2
            .create_volume()
            .availability_zone(ZONES[0])
            .size(size)
            .client_token("slot-1-generation-1")
            .send()
    };
    let first = create(1).await.unwrap();
    assert_eq!(create(1).await.unwrap().volume_id(), first.volume_id());
    assert_eq!(create(2).await.unwrap_err().code(), Some("IdempotentParameterMismatch"));
    let unknown = e.ec2.create_volume().availability_zone("eu-west-1z").size(1).send().await;
    assert_eq!(unknown.unwrap_err().code(), Some("InvalidZone.NotFound"));
}

#[tokio::test]
async fn tags_on_what_does_not_exist_are_refused() {
    let e = Endpoints::simulated().await;
    let tag = || Tag::builder().key("k").value("v").build();
    let volume = e.ec2.create_tags().resources("vol-0123456789abcdef0").tags(tag()).send().await;
    assert_eq!(volume.unwrap_err().code(), Some("InvalidVolume.NotFound"));
    let instance = e.ec2.create_tags().resources("i-0123456789abcdef0").tags(tag()).send().await;
    assert_eq!(instance.unwrap_err().code(), Some("InvalidInstanceID.NotFound"));
}

#[tokio::test]
async fn volumes_come_in_pages() {
    let e = Endpoints::simulated().await;
    for n in 0..7 {
        volume(&e, ZONES[n % 3], "paged").await;
    }
    let mut pages = e.ec2.describe_volumes().max_results(5).into_paginator().send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().volumes().len());
    }
    assert_eq!(sizes, [5, 2]);
    let both = e.ec2.describe_volumes().max_results(5).volume_ids("vol-1").send().await.unwrap_err();
    assert_eq!(both.code(), Some("InvalidParameterCombination"));
}

#[tokio::test]
async fn a_terminated_instance_is_not_found_by_the_name_that_it_had() {
    let e = Endpoints::simulated().await;
    let id: InstanceId = e.instance(ZONES[0], &tags(&[])).await.parse().unwrap();
    let (cluster, ec2) = ("c1".parse().unwrap(), e.agents().await.ec2);
    let found = ec2.node_instances(&cluster, std::slice::from_ref(&id), &[]).await.unwrap();
    let names = [found[&id].private_dns_name.clone().unwrap()];
    assert_eq!(ec2.node_instances(&cluster, &[], &names).await.unwrap(), found);
    e.terminate(id.as_str()).await;
    assert!(ec2.node_instances(&cluster, &[], &names).await.unwrap().is_empty());
    let gone = &ec2.node_instances(&cluster, std::slice::from_ref(&id), &[]).await.unwrap()[&id];
    assert_eq!((gone.state, &gone.private_dns_name), (InstanceState::Terminated, &None));
    assert!(gone.addresses.is_empty() && gone.dns_names.is_empty(), "{gone:?}");
}

#[tokio::test]
async fn a_group_spreads_over_its_zones_and_replaces_what_dies() {
    let e = Endpoints::simulated().await;
    let region = e.region();
    let spec = GroupSpec { name: "g".into(), desired: 3, ..GroupSpec::default() };
    region.change(|w| w.create_group(spec)).unwrap();
    let events = region.events_after(0, SOON).await;
    let launched: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::InstanceLaunched { id, zone, ip, imds, .. } => {
                assert!(imds.is_some(), "the metadata service is announced with its machine");
                Some((id.clone(), zone.clone(), *ip))
            }
            _ => None,
        })
        .collect();
    let zones: Vec<&str> = launched.iter().map(|(_, zone, _)| zone.as_str()).collect();
    assert_eq!(zones, ZONES);
    let (victim, zone, ip) = &launched[1];
    region.change(|w| w.kill_instance(victim.as_str())).unwrap();
    let mut after = events.last().unwrap().sequence;
    let successor = loop {
        let events = region.events_after(after, SOON).await;
        after = events.last().expect("a successor is launched in time").sequence;
        let found = events.into_iter().find_map(|event| match event.kind {
            EventKind::InstanceLaunched { id, zone, ip, .. } => Some((id, zone, ip)),
            _ => None,
        });
        if let Some(found) = found {
            break found;
        }
    };
    assert_eq!(&successor.1, zone);
    assert!(&successor.0 != victim && &successor.2 != ip);
}

#[tokio::test]
async fn a_terminating_hook_is_completed_by_the_instance_itself() {
    let e = Endpoints::simulated().await;
    let region = e.region();
    let hook = HookSpec {
        name: "leave".into(),
        transition: Transition::Terminating,
        heartbeat_timeout_ms: 600_000,
        default_result: HookResult::Abandon,
    };
    let spec = GroupSpec { name: "g".into(), desired: 1, max: 1, hooks: vec![hook], ..GroupSpec::default() };
    region.change(|w| w.create_group(spec)).unwrap();
    let in_state = |wanted: &'static str| {
        move |w: &quorate::lab::region::World| {
            w.view()
                .instances
                .values()
                .any(|i| i.lifecycle.as_ref().is_some_and(|l| l.state.name() == wanted))
        }
    };
    assert!(region.wait_until(SOON, in_state("InService")).await);
    let id = region.with(|w| w.view().instances.keys().next().cloned()).unwrap().to_string();
    let own = aws_sdk_autoscaling::Client::new(&e.config_of(&id));
    own.set_desired_capacity().auto_scaling_group_name("g").desired_capacity(0).send().await.unwrap();
    assert!(region.wait_until(SOON, in_state("Terminating:Wait")).await);
    let described = own.describe_auto_scaling_instances().instance_ids(&id).send().await.unwrap();
    assert_eq!(described.auto_scaling_instances()[0].lifecycle_state(), Some("Terminating:Wait"));
    let beat = own.record_lifecycle_action_heartbeat().auto_scaling_group_name("g");
    beat.lifecycle_hook_name("leave").instance_id(&id).send().await.unwrap();
    let complete = || {
        own.complete_lifecycle_action()
            .auto_scaling_group_name("g")
            .lifecycle_hook_name("leave")
            .instance_id(&id)
            .lifecycle_action_result("CONTINUE")
            .send()
    };
    complete().await.unwrap();
    assert_eq!(complete().await.unwrap_err().code(), Some("ValidationError"));
    let gone =
        |w: &quorate::lab::region::World| w.view().instances.values().all(|i| i.state.name() == "terminated");
    assert!(region.wait_until(SOON, gone).await);
}

#[tokio::test]
async fn a_role_reads_and_writes_only_what_its_rules_allow() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let instance = e.instance(ZONES[0], &tags(&[])).await;
    let rule = |prefix: &str, read| AccessRule {
        role: "node".into(),
        bucket: "b".into(),
        prefix: prefix.into(),
        read,
        write: false,
        list: true,
    };
    e.region().change(|w| w.add_access_rule(rule("c/pki/", false)));
    e.region().change(|w| w.add_access_rule(rule("c/workers/", true)));
    for key in ["c/pki/ca.key", "c/workers/ca.crt"] {
        e.s3.put_object().bucket("b").key(key).body(text("x")).send().await.unwrap();
    }
    let own = s3_client(&e.config_of(&instance));
    let denied = own.get_object().bucket("b").key("c/pki/ca.key").send().await.unwrap_err();
    assert_eq!((status(&denied), denied.code()), (403, Some("AccessDenied")));
    assert!(own.get_object().bucket("b").key("c/workers/ca.crt").send().await.is_ok());
    let denied = own.put_object().bucket("b").key("c/workers/ca.crt").body(text("y")).send().await;
    assert_eq!(denied.unwrap_err().code(), Some("AccessDenied"));
    let calls = e.region().with(|w| w.calls_after(0));
    let last = calls.last().unwrap();
    assert_eq!((last.service, last.operation.as_str()), (Service::S3, "PutObject"));
    assert_eq!(last.instance.as_deref(), Some(instance.as_str()), "the record says who called");
    assert_eq!(last.resource, "b/c/workers/ca.crt");
}

#[tokio::test]
async fn strangers_unsigned_requests_and_other_regions_are_refused() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let url = e.region().endpoints().aws.clone();
    let stranger = config(&url, "AKIASTRANGER00000000");
    let s3 = s3_client(&stranger).get_object().bucket("b").key("k").send().await.unwrap_err();
    assert_eq!(s3.code(), Some("InvalidAccessKeyId"));
    let ec2 = aws_sdk_ec2::Client::new(&stranger).describe_instances().send().await.unwrap_err();
    assert_eq!(ec2.code(), Some("AuthFailure"));
    let groups = aws_sdk_autoscaling::Client::new(&stranger).describe_auto_scaling_groups().send().await;
    assert_eq!(groups.unwrap_err().code(), Some("InvalidClientTokenId"));
    let (status, body) = http::ask("GET", &url, "/b/k", &[], "").await.unwrap();
    assert_eq!(status, 403);
    assert!(body.contains("MissingAuthenticationToken"), "{body}");
    let elsewhere = e.ec2.config().to_builder().region(aws_config::Region::new("us-east-1")).build();
    let elsewhere = aws_sdk_ec2::Client::from_conf(elsewhere).describe_instances().send().await;
    assert_eq!(elsewhere.unwrap_err().code(), Some("AuthFailure"));
}

#[tokio::test]
async fn a_clock_that_is_off_by_more_than_a_quarter_of_an_hour_is_refused() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    // Each time a client of its own: the SDK learns the server's clock from its answers.
    let url = e.region().endpoints().aws.clone();
    let put = || s3_client(&config(&url, OPERATOR)).put_object().bucket("b").key("k").body(text("x")).send();
    e.region().set_clock_offset(14 * 60_000);
    put().await.unwrap();
    e.region().set_clock_offset(16 * 60_000);
    let refused = put().await.unwrap_err();
    assert_eq!((status(&refused), refused.code()), (403, Some("RequestTimeTooSkewed")));
}

#[tokio::test]
async fn a_streamed_body_arrives_whole_with_its_trailing_checksum_verified() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let content: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    std::fs::write(&file, &content).unwrap();
    let body = ByteStream::from_path(&file).await.unwrap();
    let put = e.s3.put_object().bucket("b").key("k").checksum_algorithm(ChecksumAlgorithm::Crc32).body(body);
    assert!(put.send().await.unwrap().checksum_crc32().is_some());
    let got = e.s3.get_object().bucket("b").key("k").send().await.unwrap();
    assert!(got.body.collect().await.unwrap().to_vec() == content);
    let wrong = e.s3.put_object().bucket("b").key("k").checksum_crc32("AAAAAA==").body(text("x"));
    assert_eq!(wrong.send().await.unwrap_err().code(), Some("BadDigest"));
}

#[tokio::test]
async fn the_control_api_drives_the_region_and_tells_what_happens() {
    let e = Endpoints::simulated().await;
    let control = e.region().endpoints().control.clone();
    let post = |path: &'static str, body: &'static str| http::ask("POST", &control, path, &[], body);
    let group = r#"{"name": "g", "desired": 3, "template": {"metadataTags": true}, "tags": {"quorate:cluster": "c"}}"#;
    assert_eq!(post("/v1/groups", group).await.unwrap().0, 200);
    assert_eq!(post("/v1/groups", group).await.unwrap().0, 400, "there is one already");
    assert_eq!(post("/v1/groups", r#"{"nam": "g"}"#).await.unwrap().0, 400, "unknown fields are refused");
    assert_eq!(post("/v1/buckets", r#"{"name": "b"}"#).await.unwrap().0, 200);
    let events = |after: u64| {
        let control = control.clone();
        async move {
            let path = format!("/v1/events?after={after}&waitMs=20000");
            let (_, body) = http::ask("GET", &control, &path, &[], "").await.unwrap();
            serde_json::from_str::<Vec<serde_json::Value>>(&body).unwrap()
        }
    };
    let launched = events(0).await;
    assert_eq!(launched[0]["event"], "InstanceLaunched");
    assert_eq!(launched[0]["sequence"], 1);
    assert!(launched[0]["imds"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(post("/v1/zones/eu-west-1c/stop", "").await.unwrap().0, 200);
    let after = launched.last().unwrap()["sequence"].as_u64().unwrap();
    let stopped = events(after).await;
    let kinds: Vec<&str> = stopped.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"ZoneStopped") && kinds.contains(&"InstanceKilled"), "{kinds:?}");
    let fault = r#"{"service": "ec2", "kind": "stale-read", "maxAgeMs": 5000, "rate": 0.2}"#;
    assert_eq!(post("/v1/faults", fault).await.unwrap(), (200, r#"{"id":1}"#.to_owned()));
    let (_, body) = http::ask("GET", &control, "/v1/state", &[], "").await.unwrap();
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(state["groups"][0]["name"], "g");
    assert_eq!(state["faults"][0]["maxAgeMs"], 5000);
    assert_eq!(state["instances"][0]["tags"]["quorate:cluster"], "c");
    assert_eq!(http::ask("DELETE", &control, "/v1/faults/1", &[], "").await.unwrap().0, 200);
    assert_eq!(http::ask("DELETE", &control, "/v1/faults/1", &[], "").await.unwrap().0, 404);
}

#[tokio::test]
async fn however_many_machines_become_nodes_ec2_and_auto_scaling_are_asked_as_often() {
    let mut asked = Vec::new();
    for count in [3, 60] {
        let e = Endpoints::simulated().await;
        let spec = |role: &str, desired| GroupSpec {
            name: role.into(),
            tags: tags(&[("quorate:cluster", "demo"), ("quorate:role", role)]),
            zones: vec![ZONES[0].into()],
            desired,
            ..GroupSpec::default()
        };
        e.region().change(|w| w.create_group(spec("worker", count))).unwrap();
        let many = |w: &quorate::lab::region::World| w.view().instances.len() == count;
        assert!(e.region().wait_until(SOON, many).await);
        let clients = e.agents().await;
        let cluster = "demo".parse().unwrap();
        let ids: Vec<InstanceId> =
            e.region().with(|w| w.view().instances.keys().map(|id| id.as_str().parse().unwrap()).collect());
        let before = e.region().with(|w| w.calls_after(0).len());
        assert_eq!(clients.ec2.node_instances(&cluster, &ids, &[]).await.unwrap().len(), count);
        let groups = clients.autoscaling.groups(&cluster, quorate::model::Role::Worker, &[]).await.unwrap();
        assert_eq!(groups.iter().map(|group| group.instances.len()).sum::<usize>(), count);
        asked.push(e.region().with(|w| w.calls_after(0).len()) - before);
    }
    assert_eq!(asked, [2, 2]);
}
