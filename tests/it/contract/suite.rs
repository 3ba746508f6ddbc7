//! What holds for the simulated region and for moto alike.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{Filter, Reservation, ResourceType, Tag, TagSpecification, Volume};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use futures_util::FutureExt;

use quorate::kubernetes::instance_types::interface_limits;
use quorate::lab::region::{BalancerKind, BalancerSpec, CheckSpec, PoolSpec};
use quorate::model::node::InterfaceLimits;
use quorate::model::{
    FoundLoadBalancers, InstanceId, InstanceState, LoadBalancer, LoadBalancerKind, Role, Scheme,
    TargetGroupArn, TargetHealth, TargetId, Unfit,
};

use super::buckets::{
    a_bucket_s_settings_are_told_and_missing_ones_are_no_error, what_a_role_may_do_is_tried_without_doing_it,
};
use super::endpoints::{Endpoints, ZONES, tags};
use super::transfers::{
    a_range_of_an_object_is_read_on_condition, an_object_of_a_backup_is_removed,
    an_unfinished_upload_is_listed_and_ended, an_upload_in_parts_comes_to_be_whole_and_once,
    objects_are_listed_with_their_sizes_and_by_folders, parts_that_are_not_there_or_too_small_are_refused,
};

type Check = for<'a> fn(&'a Endpoints) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        /// Every check, by name.
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), |e| Box::pin($name(e)))),*];
    };
}

checks![
    instances_are_found_by_id_tag_key_state_and_zone,
    a_missing_instance_is_an_error_by_id_and_nothing_by_filter,
    a_terminated_instance_is_still_described,
    nodes_are_found_by_id_and_by_private_dns_name,
    instance_types_tell_what_they_give_to_pods,
    instances_come_in_pages_without_gap_or_overlap,
    volumes_are_created_with_tags_and_found_by_every_filter,
    a_missing_volume_is_an_error_by_id_and_nothing_by_filter,
    an_attached_volume_is_found_by_its_instance_and_is_free_after_detaching,
    tags_are_set_changed_and_described,
    an_object_is_created_once,
    of_sixteen_racing_creates_exactly_one_wins,
    an_object_is_replaced_only_from_the_version_that_was_read,
    of_sixteen_racing_replacements_exactly_one_wins,
    a_missing_key_and_a_missing_bucket_are_told_apart,
    an_object_keeps_its_content_metadata_and_encryption,
    an_unchanged_object_is_not_sent_again,
    an_object_is_deleted_and_deleting_it_twice_is_no_error,
    keys_are_listed_by_prefix_in_order_and_in_pages,
    awkward_keys_come_back_as_they_went,
    a_bucket_s_settings_are_told_and_missing_ones_are_no_error,
    what_a_role_may_do_is_tried_without_doing_it,
    an_upload_in_parts_comes_to_be_whole_and_once,
    an_unfinished_upload_is_listed_and_ended,
    parts_that_are_not_there_or_too_small_are_refused,
    a_range_of_an_object_is_read_on_condition,
    objects_are_listed_with_their_sizes_and_by_folders,
    an_object_of_a_backup_is_removed,
    groups_are_described_with_their_instances,
    groups_are_found_by_name_and_by_tag,
    groups_come_in_pages,
    group_instances_are_described_by_id,
    network_load_balancers_are_found_by_tag_name_and_target_group,
    classic_load_balancers_are_found_by_tag_and_name,
    load_balancers_that_are_not_there_are_said_not_to_be,
    targets_are_registered_and_taken_out,
    load_balancers_come_in_pages_and_their_tags_in_batches,
    groups_tell_their_target_groups,
    hooks_are_described_with_their_time_outs,
    a_group_ends_an_instance_of_its_own_and_has_one_less,
];

/// No check takes longer than this.
const LONGEST: Duration = Duration::from_mins(1);

/// Runs every check and names all that failed.
async fn run(endpoints: &Endpoints) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        // A panic has already been printed; what hangs is named like what fails.
        let ended = tokio::time::timeout(LONGEST, AssertUnwindSafe(check(endpoints)).catch_unwind()).await;
        if !matches!(ended, Ok(Ok(()))) {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "these do not hold: {failed:#?}");
}

#[tokio::test]
async fn every_contract_holds_in_the_simulated_region() {
    run(&Endpoints::simulated_apart().await).await;
}

#[tokio::test]
async fn every_contract_holds_in_moto() {
    run(&Endpoints::moto().await).await;
}

pub fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

async fn instances(e: &Endpoints, filters: Vec<Filter>) -> BTreeSet<String> {
    let answer = e.ec2.describe_instances().set_filters(Some(filters)).send().await.unwrap();
    let found = answer.reservations().iter().flat_map(Reservation::instances);
    found.map(|i| i.instance_id().unwrap().to_owned()).collect()
}

async fn instances_are_found_by_id_tag_key_state_and_zone(e: &Endpoints) {
    let red = e.instance(ZONES[0], &tags(&[("colour", "red")])).await;
    let blue = e.instance(ZONES[1], &tags(&[("colour", "blue"), ("blue-only", "")])).await;
    let one = |id: &String| BTreeSet::from([id.clone()]);
    assert_eq!(instances(e, vec![filter("tag:colour", "red")]).await, one(&red));
    assert_eq!(instances(e, vec![filter("tag-key", "blue-only")]).await, one(&blue));
    assert_eq!(instances(e, vec![filter("instance-id", &red)]).await, one(&red));
    let either = Filter::builder().name("tag:colour").values("red").values("blue").build();
    assert_eq!(instances(e, vec![either.clone()]).await, BTreeSet::from([red.clone(), blue.clone()]));
    let in_zone = vec![either.clone(), filter("availability-zone", ZONES[1])];
    assert_eq!(instances(e, in_zone).await, one(&blue), "filters are joined by and");
    let running = vec![either.clone(), filter("instance-state-name", "running")];
    assert_eq!(instances(e, running).await.len(), 2);
    let stopped = vec![either, filter("instance-state-name", "shutting-down")];
    assert!(instances(e, stopped).await.is_empty());

    let answer = e.ec2.describe_instances().instance_ids(&red).send().await.unwrap();
    let found = &answer.reservations()[0].instances()[0];
    assert_eq!(found.placement().unwrap().availability_zone(), Some(ZONES[0]));
    assert!(found.private_ip_address().unwrap().parse::<std::net::Ipv4Addr>().is_ok());
    assert_eq!(found.state().unwrap().name().unwrap().as_str(), "running");
    assert_eq!(found.tags()[0].key().zip(found.tags()[0].value()), Some(("colour", "red")));
    assert!(found.launch_time().is_some());
}

async fn a_missing_instance_is_an_error_by_id_and_nothing_by_filter(e: &Endpoints) {
    let missing = "i-0123456789abcdef0";
    let error = e.ec2.describe_instances().instance_ids(missing).send().await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidInstanceID.NotFound"));
    assert!(instances(e, vec![filter("instance-id", missing)]).await.is_empty());
}

async fn a_terminated_instance_is_still_described(e: &Endpoints) {
    let id = e.instance(ZONES[0], &tags(&[])).await;
    e.terminate(&id).await;
    let answer = e.ec2.describe_instances().instance_ids(&id).send().await.unwrap();
    let state = answer.reservations()[0].instances()[0].state().unwrap().name().unwrap().as_str().to_owned();
    assert_eq!(state, "terminated");
}

async fn nodes_are_found_by_id_and_by_private_dns_name(e: &Endpoints) {
    let ours = tags(&[("quorate:cluster", "nodes"), ("quorate:role", "worker")]);
    let id: InstanceId = e.instance(ZONES[1], &ours).await.parse().unwrap();
    let other: InstanceId = e.instance(ZONES[1], &ours).await.parse().unwrap();
    let (cluster, ec2) = ("nodes".parse().unwrap(), e.agents().await.ec2);
    let missing: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    let found = ec2.node_instances(&cluster, &[id.clone(), missing], &[]).await.unwrap();
    let [(found_id, node)] = &Vec::from_iter(found.clone())[..] else {
        panic!("one, and no other: {found:?}")
    };
    assert_eq!(*found_id, id);
    assert_eq!((node.state, node.role), (InstanceState::Running, Some(Role::Worker)));
    assert_eq!(node.zone.as_ref().unwrap().as_str(), ZONES[1]);
    let name = node.private_dns_name.clone().unwrap();
    assert!(name.ends_with(".eu-west-1.compute.internal"), "{name}");
    assert!(node.dns_names.contains(&name));
    let told = ec2.instances_by_id(&cluster, std::slice::from_ref(&id)).await.unwrap();
    assert!(node.addresses.contains(&told[&id].address.unwrap().into()), "{node:?}");
    let by_name = |names: Vec<String>| {
        let (cluster, ec2) = (&cluster, &ec2);
        async move { ec2.node_instances(cluster, &[], &names).await.unwrap() }
    };
    assert_eq!(by_name(vec![name.clone(), "nobody.eu-west-1.compute.internal".to_owned()]).await, found);
    assert!(by_name(vec!["nobody.eu-west-1.compute.internal".to_owned()]).await.is_empty());
    let both = ec2.node_instances(&cluster, std::slice::from_ref(&other), &[name]).await.unwrap();
    assert_eq!(both.into_keys().collect::<BTreeSet<_>>(), BTreeSet::from([id, other]));
}

async fn instance_types_tell_what_they_give_to_pods(e: &Endpoints) {
    let ec2 = e.agents().await.ec2;
    for (name, interfaces, addresses) in
        [("t3.medium", 3, 6), ("m5.xlarge", 4, 15), ("c5n.18xlarge", 15, 50), ("p4d.24xlarge", 15, 50)]
    {
        let found = ec2.interface_limits(name).await.unwrap();
        assert_eq!(found, InterfaceLimits { interfaces, addresses }, "{name}");
        // The agent's own table says the same.
        assert_eq!(interface_limits(name), Some(found), "{name}");
    }
    let error = e.ec2.describe_instance_types().instance_types("z99.large".into()).send().await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidInstanceType"));
    assert!(ec2.interface_limits("z99.large").await.unwrap_err().to_string().contains("z99.large"));
}

async fn instances_come_in_pages_without_gap_or_overlap(e: &Endpoints) {
    let mut wanted = BTreeSet::new();
    for _ in 0..7 {
        wanted.insert(e.instance(ZONES[2], &tags(&[("paged", "yes")])).await);
    }
    let first = e.ec2.describe_instances().filters(filter("tag:paged", "yes")).max_results(5);
    let first = first.send().await.unwrap();
    assert_eq!(first.reservations().len(), 5);
    assert!(first.next_token().is_some());
    let mut pages =
        e.ec2.describe_instances().filters(filter("tag:paged", "yes")).max_results(5).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let ids = page.reservations().iter().flat_map(Reservation::instances);
        found.extend(ids.map(|i| i.instance_id().unwrap().to_owned()));
    }
    assert_eq!(found.len(), 7);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
}

pub async fn volume(e: &Endpoints, zone: &str, name: &str) -> String {
    let spec = TagSpecification::builder()
        .resource_type(ResourceType::Volume)
        .tags(Tag::builder().key("name").value(name).build())
        .build();
    let made = e.ec2.create_volume().availability_zone(zone).size(1).tag_specifications(spec);
    let id = made.send().await.unwrap().volume_id().unwrap().to_owned();
    while volumes(e, vec![filter("volume-id", &id)]).await[0].state().unwrap().as_str() != "available" {
        tokio::task::yield_now().await;
    }
    id
}

async fn volumes(e: &Endpoints, filters: Vec<Filter>) -> Vec<Volume> {
    e.ec2.describe_volumes().set_filters(Some(filters)).send().await.unwrap().volumes().to_vec()
}

async fn volume_ids(e: &Endpoints, filters: Vec<Filter>) -> Vec<String> {
    volumes(e, filters).await.iter().map(|v| v.volume_id().unwrap().to_owned()).collect()
}

async fn volumes_are_created_with_tags_and_found_by_every_filter(e: &Endpoints) {
    let id = volume(e, ZONES[1], "found").await;
    let ours = std::slice::from_ref(&id);
    let by_name = || filter("tag:name", "found");
    assert_eq!(volume_ids(e, vec![by_name()]).await, ours);
    assert_eq!(volume_ids(e, vec![by_name(), filter("availability-zone", ZONES[1])]).await, ours);
    assert!(volume_ids(e, vec![by_name(), filter("availability-zone", ZONES[0])]).await.is_empty());
    assert_eq!(volume_ids(e, vec![by_name(), filter("status", "available")]).await, ours);
    assert!(volume_ids(e, vec![by_name(), filter("status", "in-use")]).await.is_empty());
    assert!(volume_ids(e, vec![filter("tag-key", "name")]).await.contains(&id));
    let described = e.ec2.describe_volumes().volume_ids(&id).send().await.unwrap();
    let found = &described.volumes()[0];
    assert_eq!((found.size(), found.availability_zone()), (Some(1), Some(ZONES[1])));
    assert!(found.attachments().is_empty());
}

async fn a_missing_volume_is_an_error_by_id_and_nothing_by_filter(e: &Endpoints) {
    let missing = "vol-0123456789abcdef0";
    let error = e.ec2.describe_volumes().volume_ids(missing).send().await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidVolume.NotFound"));
    assert!(volume_ids(e, vec![filter("volume-id", missing)]).await.is_empty());
}

async fn an_attached_volume_is_found_by_its_instance_and_is_free_after_detaching(e: &Endpoints) {
    let instance = e.instance(ZONES[0], &tags(&[])).await;
    let id = volume(e, ZONES[0], "attached").await;
    let by_both = |status| {
        vec![
            filter("volume-id", &id),
            filter("attachment.instance-id", &instance),
            filter("attachment.status", status),
        ]
    };
    let attach = e.ec2.attach_volume().volume_id(&id).instance_id(&instance).device("/dev/xvdf");
    let attached = attach.send().await.unwrap();
    assert_eq!(attached.instance_id(), Some(instance.as_str()));
    while volume_ids(e, by_both("attached")).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let found = volumes(e, vec![filter("volume-id", &id)]).await.remove(0);
    assert_eq!(found.state().unwrap().as_str(), "in-use");
    assert_eq!(found.attachments()[0].instance_id(), Some(instance.as_str()));
    assert_eq!(found.attachments()[0].device(), Some("/dev/xvdf"));
    e.ec2.detach_volume().volume_id(&id).instance_id(&instance).send().await.unwrap();
    while volume_ids(e, vec![filter("volume-id", &id), filter("status", "available")]).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(volumes(e, vec![filter("volume-id", &id)]).await[0].attachments().is_empty());
}

async fn tags_are_set_changed_and_described(e: &Endpoints) {
    let id = volume(e, ZONES[0], "before").await;
    let tag = |k, v| Tag::builder().key(k).value(v).build();
    let set =
        e.ec2.create_tags().resources(&id).tags(tag("name", "after")).tags(tag("quorate:slot", "a & <b>"));
    set.send().await.unwrap();
    let described =
        e.ec2.describe_tags().filters(filter("resource-id", &id)).filters(filter("resource-type", "volume"));
    let described = described.send().await.unwrap();
    let mut found: Vec<_> = described.tags().iter().map(|t| (t.key().unwrap(), t.value().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, [("name", "after"), ("quorate:slot", "a & <b>")]);
    let by_key = e.ec2.describe_tags().filters(filter("key", "quorate:slot")).send().await.unwrap();
    assert_eq!(by_key.tags()[0].resource_id(), Some(id.as_str()));
}

pub fn text(body: &str) -> ByteStream {
    ByteStream::from(body.as_bytes().to_vec())
}

pub fn status<E>(error: &aws_sdk_s3::error::SdkError<E>) -> u16 {
    error.raw_response().map_or(0, |r| r.status().as_u16())
}

async fn read(e: &Endpoints, bucket: &str, key: &str) -> (String, String) {
    let got = e.s3.get_object().bucket(bucket).key(key).send().await.unwrap();
    let etag = got.e_tag().unwrap().to_owned();
    (String::from_utf8(got.body.collect().await.unwrap().to_vec()).unwrap(), etag)
}

async fn an_object_is_created_once(e: &Endpoints) {
    e.bucket("once").await;
    let create =
        |body| e.s3.put_object().bucket("once").key("charter.json").if_none_match("*").body(text(body));
    let made = create("first").send().await.unwrap();
    let refused = create("second").send().await.unwrap_err();
    assert_eq!((status(&refused), refused.code()), (412, Some("PreconditionFailed")));
    assert_eq!(read(e, "once", "charter.json").await, ("first".into(), made.e_tag().unwrap().to_owned()));
}

/// Sixteen writes at once: how many won, how many were refused by their condition.
async fn race(e: &Endpoints, bucket: &str, etag: Option<String>) -> (usize, usize) {
    let start = Arc::new(tokio::sync::Barrier::new(16));
    let writers: Vec<_> = (0..16)
        .map(|n| {
            let put = e.s3.put_object().bucket(bucket).key("k").body(text(&format!("writer {n}")));
            let put = match &etag {
                None => put.if_none_match("*"),
                Some(etag) => put.if_match(etag),
            };
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                put.send().await.map(|_| ()).map_err(|e| status(&e))
            })
        })
        .collect();
    let (mut won, mut refused) = (0, 0);
    for writer in writers {
        match writer.await.unwrap() {
            Ok(()) => won += 1,
            Err(412) => refused += 1,
            Err(other) => panic!("a writer was answered with {other}"),
        }
    }
    (won, refused)
}

async fn of_sixteen_racing_creates_exactly_one_wins(e: &Endpoints) {
    e.bucket("creates").await;
    assert_eq!(race(e, "creates", None).await, (1, 15));
}

async fn of_sixteen_racing_replacements_exactly_one_wins(e: &Endpoints) {
    e.bucket("replacements").await;
    let put = e.s3.put_object().bucket("replacements").key("k").body(text("before")).send().await.unwrap();
    assert_eq!(race(e, "replacements", put.e_tag().map(str::to_owned)).await, (1, 15));
}

async fn an_object_is_replaced_only_from_the_version_that_was_read(e: &Endpoints) {
    e.bucket("cas").await;
    let put = |body, etag: &str| e.s3.put_object().bucket("cas").key("k").if_match(etag).body(text(body));
    let missing = put("x", "\"00000000000000000000000000000000\"").send().await.unwrap_err();
    assert_eq!((status(&missing), missing.code()), (404, Some("NoSuchKey")));
    e.s3.put_object().bucket("cas").key("k").body(text("one")).send().await.unwrap();
    let (_, first) = read(e, "cas", "k").await;
    let second = put("two", &first).send().await.unwrap();
    assert_ne!(second.e_tag(), Some(first.as_str()));
    let stale = put("three", &first).send().await.unwrap_err();
    assert_eq!((status(&stale), stale.code()), (412, Some("PreconditionFailed")));
    assert_eq!(read(e, "cas", "k").await.0, "two");
}

async fn a_missing_key_and_a_missing_bucket_are_told_apart(e: &Endpoints) {
    e.bucket("present").await;
    let key = e.s3.get_object().bucket("present").key("absent").send().await.unwrap_err();
    assert_eq!((status(&key), key.code()), (404, Some("NoSuchKey")));
    assert!(key.into_service_error().is_no_such_key());
    let bucket = e.s3.get_object().bucket("absent").key("absent").send().await.unwrap_err();
    assert_eq!((status(&bucket), bucket.code()), (404, Some("NoSuchBucket")));
    let head = e.s3.head_object().bucket("present").key("absent").send().await.unwrap_err();
    assert!(head.into_service_error().is_not_found());
    let list = e.s3.list_objects_v2().bucket("absent").send().await.unwrap_err();
    assert_eq!(list.code(), Some("NoSuchBucket"));
    let put = e.s3.put_object().bucket("absent").key("k").body(text("")).send().await.unwrap_err();
    assert_eq!(put.code(), Some("NoSuchBucket"));
}

async fn an_object_keeps_its_content_metadata_and_encryption(e: &Endpoints) {
    e.bucket("kept").await;
    let key_id = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef";
    let put =
        e.s3.put_object()
            .bucket("kept")
            .key("pki/ca.key")
            .body(text("content"))
            .content_type("application/x-pem-file")
            .metadata("nonce", "17")
            .server_side_encryption(ServerSideEncryption::AwsKms)
            .ssekms_key_id(key_id);
    let put = put.send().await.unwrap();
    assert_eq!(put.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(put.ssekms_key_id(), Some(key_id));
    let head = e.s3.head_object().bucket("kept").key("pki/ca.key").send().await.unwrap();
    assert_eq!(head.content_length(), Some(7));
    assert_eq!(head.content_type(), Some("application/x-pem-file"));
    assert_eq!(head.metadata().unwrap()["nonce"], "17");
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(head.ssekms_key_id(), Some(key_id));
    assert!(head.last_modified().is_some());
    assert_eq!(read(e, "kept", "pki/ca.key").await.0, "content");
}

async fn an_unchanged_object_is_not_sent_again(e: &Endpoints) {
    e.bucket("unchanged").await;
    let put = e.s3.put_object().bucket("unchanged").key("k").body(text("same")).send().await.unwrap();
    let again = e.s3.get_object().bucket("unchanged").key("k").if_none_match(put.e_tag().unwrap());
    assert_eq!(status(&again.send().await.unwrap_err()), 304);
    let other = e.s3.get_object().bucket("unchanged").key("k").if_none_match("\"other\"");
    assert!(other.send().await.is_ok());
}

async fn an_object_is_deleted_and_deleting_it_twice_is_no_error(e: &Endpoints) {
    e.bucket("deleted").await;
    e.s3.put_object().bucket("deleted").key("k").body(text("x")).send().await.unwrap();
    for _ in 0..2 {
        e.s3.delete_object().bucket("deleted").key("k").send().await.unwrap();
    }
    let gone = e.s3.get_object().bucket("deleted").key("k").send().await.unwrap_err();
    assert!(gone.into_service_error().is_no_such_key());
}

async fn keys_are_listed_by_prefix_in_order_and_in_pages(e: &Endpoints) {
    e.bucket("listed").await;
    for key in ["b/5", "b/1", "b/4", "a", "b/2", "c", "b/3"] {
        e.s3.put_object().bucket("listed").key(key).body(text(key)).send().await.unwrap();
    }
    let mut pages = e.s3.list_objects_v2().bucket("listed").prefix("b/").max_keys(2).into_paginator().send();
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.contents().len());
        found.extend(page.contents().iter().map(|o| o.key().unwrap().to_owned()));
    }
    assert_eq!(found, ["b/1", "b/2", "b/3", "b/4", "b/5"]);
    assert_eq!(sizes, [2, 2, 1]);
    let none = e.s3.list_objects_v2().bucket("listed").prefix("z").send().await.unwrap();
    assert_eq!((none.contents().len(), none.is_truncated()), (0, Some(false)));
    let rolled = e.s3.list_objects_v2().bucket("listed").delimiter("/").send().await.unwrap();
    assert_eq!(rolled.common_prefixes()[0].prefix(), Some("b/"));
    assert_eq!(rolled.contents().len(), 2);
}

async fn awkward_keys_come_back_as_they_went(e: &Endpoints) {
    e.bucket("awkward").await;
    let key = "a b/ü+&=<x>'\"%41.json";
    e.s3.put_object().bucket("awkward").key(key).body(text("x")).send().await.unwrap();
    assert_eq!(read(e, "awkward", key).await.0, "x");
    let listed = e.s3.list_objects_v2().bucket("awkward").prefix("a b/").send().await.unwrap();
    assert_eq!(listed.contents()[0].key(), Some(key));
}

async fn groups_are_described_with_their_instances(e: &Endpoints) {
    e.group("described", 2, &tags(&[("quorate:cluster", "c1")])).await;
    let answer = e.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names("described");
    let answer = answer.send().await.unwrap();
    let group = &answer.auto_scaling_groups()[0];
    assert_eq!((group.min_size(), group.max_size(), group.desired_capacity()), (Some(0), Some(10), Some(2)));
    assert_eq!(group.availability_zones(), [ZONES[0]]);
    assert!(group.target_group_arns().is_empty());
    assert_eq!(group.tags()[0].key().zip(group.tags()[0].value()), Some(("quorate:cluster", "c1")));
    assert_eq!(group.instances().len(), 2);
    for member in group.instances() {
        assert_eq!(member.lifecycle_state().unwrap().as_str(), "InService");
        assert_eq!(member.health_status(), Some("Healthy"));
        assert_eq!(member.availability_zone(), Some(ZONES[0]));
    }
    // The group's tags are its instances', and EC2 knows whose they are.
    let members: BTreeSet<String> =
        group.instances().iter().map(|i| i.instance_id().unwrap().to_owned()).collect();
    assert_eq!(instances(e, vec![filter("tag:quorate:cluster", "c1")]).await, members);
    assert_eq!(instances(e, vec![filter("tag:aws:autoscaling:groupName", "described")]).await, members);
}

async fn groups_are_found_by_name_and_by_tag(e: &Endpoints) {
    use aws_sdk_autoscaling::types::Filter;
    e.group("tagged", 0, &tags(&[("team", "x")])).await;
    let names = |answer: aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput| {
        let groups = answer.auto_scaling_groups().iter();
        groups.map(|g| g.auto_scaling_group_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let by = |name: &str, value: &str| {
        let filter = Filter::builder().name(name).values(value).build();
        e.autoscaling.describe_auto_scaling_groups().filters(filter).send()
    };
    assert_eq!(names(by("tag:team", "x").await.unwrap()), ["tagged"]);
    assert_eq!(names(by("tag-key", "team").await.unwrap()), ["tagged"]);
    assert!(names(by("tag:team", "y").await.unwrap()).is_empty());
    let none = e.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names("no-such-group");
    assert!(names(none.send().await.unwrap()).is_empty(), "a missing group is no error");
}

async fn groups_come_in_pages(e: &Endpoints) {
    for name in ["page-1", "page-2", "page-3"] {
        e.group(name, 0, &tags(&[])).await;
    }
    let mut pages = e.autoscaling.describe_auto_scaling_groups().max_records(2).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert!(page.auto_scaling_groups().len() <= 2);
        let groups = page.auto_scaling_groups().iter();
        found.extend(groups.map(|g| g.auto_scaling_group_name().unwrap().to_owned()));
    }
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "no group twice");
    assert!(["page-1", "page-2", "page-3"].iter().all(|n| found.iter().any(|f| f == n)));
}

async fn group_instances_are_described_by_id(e: &Endpoints) {
    e.group("by-id", 2, &tags(&[])).await;
    let group = e.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names("by-id");
    let group = group.send().await.unwrap();
    let id = group.auto_scaling_groups()[0].instances()[0].instance_id().unwrap().to_owned();
    let answer = e.autoscaling.describe_auto_scaling_instances().instance_ids(&id).send().await.unwrap();
    let [found] = answer.auto_scaling_instances() else { panic!("one instance, and no other") };
    assert_eq!(found.auto_scaling_group_name(), Some("by-id"));
    assert_eq!((found.instance_id(), found.lifecycle_state()), (Some(id.as_str()), Some("InService")));
    let alone = e.instance(ZONES[0], &tags(&[])).await;
    let none = e.autoscaling.describe_auto_scaling_instances().instance_ids(&alone).send().await.unwrap();
    assert!(none.auto_scaling_instances().is_empty(), "an instance in no group is no error");
}

/// A load balancer of a cluster that no other check has.
pub fn balancer(kind: BalancerKind, name: &str, cluster: &str) -> BalancerSpec {
    let ours = tags(&[("quorate:cluster", cluster)]);
    BalancerSpec {
        name: name.into(),
        kind,
        internal: true,
        port: 443,
        pool: PoolSpec {
            check: CheckSpec { interval_ms: 10_000, ..CheckSpec::default() },
            deregistration_delay_ms: 20_000,
            preserve_client_ip: true,
            ..PoolSpec::default()
        },
        tags: ours,
    }
}

fn only(found: &FoundLoadBalancers) -> LoadBalancer {
    let ([one], []) = (&found.fit[..], &found.unfit[..]) else { panic!("not one: {found:#?}") };
    one.clone()
}

async fn network_load_balancers_are_found_by_tag_name_and_target_group(e: &Endpoints) {
    let arn = e.balancer(balancer(BalancerKind::Network, "found", "found")).await;
    let mut by_group = balancer(BalancerKind::Network, "found-by-group", "");
    by_group.tags = tags(&[("colour", "red")]);
    by_group.pool.tags = tags(&[("quorate:cluster", "by-group")]);
    let other = e.balancer(by_group).await;
    let asked = e.agents().await.load_balancers;
    let one = only(&asked.by_tag(&"found".parse().unwrap()).await.unwrap());
    assert_eq!(
        (one.name.as_str(), one.port, one.target_port, one.scheme),
        ("found", 443, 6443, Scheme::Internal)
    );
    let LoadBalancerKind::Network { target_group, by_address, .. } = &one.kind else { panic!("{one:?}") };
    assert_eq!((target_group.as_str(), *by_address), (arn.as_str(), false));
    let check = &one.health_check;
    assert_eq!(
        (check.protocol.as_str(), check.path.as_deref(), check.port),
        ("HTTPS", Some("/readyz"), None)
    );
    assert_eq!((check.interval_s, check.unhealthy_threshold), (10, 2));
    assert_eq!((one.deregistration_delay_s, one.preserves_client_address), (20, true));
    assert_eq!(only(&asked.by_name("found").await.unwrap()), one);
    assert_eq!(only(&asked.by_name(&one.dns_name).await.unwrap()), one);
    assert_eq!(only(&asked.target_groups(&[arn.parse().unwrap()]).await.unwrap()), one);
    let by_group = only(&asked.by_tag(&"by-group".parse().unwrap()).await.unwrap());
    assert_eq!(only(&asked.target_groups(&[other.parse().unwrap()]).await.unwrap()), by_group);
}

async fn classic_load_balancers_are_found_by_tag_and_name(e: &Endpoints) {
    e.balancer(balancer(BalancerKind::Classic, "old", "old")).await;
    let asked = e.agents().await.load_balancers;
    let one = only(&asked.by_tag(&"old".parse().unwrap()).await.unwrap());
    assert_eq!((&one.kind, one.name.as_str()), (&LoadBalancerKind::Classic, "old"));
    assert_eq!((one.port, one.target_port, one.scheme), (443, 6443, Scheme::Internal));
    let check = &one.health_check;
    assert_eq!(
        (check.protocol.as_str(), check.path.as_deref(), check.port),
        ("HTTPS", Some("/readyz"), Some(6443))
    );
    assert_eq!((one.deregistration_delay_s, one.preserves_client_address), (20, false));
    assert_eq!(only(&asked.by_name("old").await.unwrap()), one);
    assert_eq!(only(&asked.by_name(&one.dns_name).await.unwrap()), one);
    assert_eq!(only(&asked.classic(&["old".to_owned()]).await.unwrap()), one);
}

async fn load_balancers_that_are_not_there_are_said_not_to_be(e: &Endpoints) {
    let asked = e.agents().await.load_balancers;
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/none/0123456789abcdef";
    for found in [
        asked.by_name("none").await.unwrap(),
        asked.by_name("none.example.com").await.unwrap(),
        asked.classic(&["none".to_owned()]).await.unwrap(),
        asked.target_groups(&[arn.parse().unwrap()]).await.unwrap(),
    ] {
        let ([], [one]) = (&found.fit[..], &found.unfit[..]) else { panic!("{found:?}") };
        assert_eq!(one.why, Unfit::NotThere);
    }
    assert_eq!(asked.by_tag(&"nobody".parse().unwrap()).await.unwrap(), FoundLoadBalancers::default());
}

async fn targets_are_registered_and_taken_out(e: &Endpoints) {
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let target = TargetId::from(id.as_str());
    let asked = e.agents().await.load_balancers;
    for (kind, name) in [(BalancerKind::Network, "targets"), (BalancerKind::Classic, "old-targets")] {
        e.balancer(balancer(kind, name, name)).await;
        let lb = only(&asked.by_name(name).await.unwrap());
        assert_eq!(asked.targets(&lb).await.unwrap(), []);
        // moto's classic load balancer lists who registers twice twice.
        let times = if kind == BalancerKind::Network { 2 } else { 1 };
        for _ in 0..times {
            asked.register_target(&lb, &target, 6443).await.unwrap();
        }
        let [one] = &asked.targets(&lb).await.unwrap()[..] else { panic!("one target, once") };
        assert_eq!((&one.id, one.port), (&target, 6443));
        let health = asked.target_health(&lb, &target, 6443).await.unwrap();
        // Every target is healthy to moto, and this one has nothing that would answer.
        let registered = [TargetHealth::Initial, TargetHealth::Healthy].contains(&health);
        assert!(registered || matches!(health, TargetHealth::Unhealthy { .. }), "{health:?}");
        asked.deregister_target(&lb, &target, 6443).await.unwrap();
        let health = asked.target_health(&lb, &target, 6443).await.unwrap();
        // moto has a word of its own for a classic load balancer's.
        let gone = [TargetHealth::Draining, TargetHealth::NotRegistered].contains(&health);
        assert!(gone || matches!(health, TargetHealth::Unavailable { .. }), "{health:?}");
    }
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/none/0123456789abcdef";
    let mut lb = only(&asked.by_name("targets").await.unwrap());
    if let LoadBalancerKind::Network { target_group, .. } = &mut lb.kind {
        *target_group = arn.parse().unwrap();
    }
    for error in [
        asked.register_target(&lb, &target, 6443).await.unwrap_err(),
        asked.target_health(&lb, &target, 6443).await.unwrap_err(),
    ] {
        assert!(error.is_not_there() && !error.is_retryable(), "{error:?}");
    }
}

async fn load_balancers_come_in_pages_and_their_tags_in_batches(e: &Endpoints) {
    for n in 0..22 {
        let cluster = if n == 21 { "last" } else { "not-last" };
        e.balancer(balancer(BalancerKind::Network, &format!("batch-{n:02}"), cluster)).await;
    }
    let mut pages = e.elbv2.describe_load_balancers().page_size(5).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert!(page.load_balancers().len() <= 5);
        found.extend(page.load_balancers().iter().map(|lb| lb.load_balancer_name().unwrap().to_owned()));
    }
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "none twice");
    assert_eq!(found.iter().filter(|name| name.starts_with("batch-")).count(), 22);
    let asked = e.agents().await.load_balancers;
    assert_eq!(only(&asked.by_tag(&"last".parse().unwrap()).await.unwrap()).name, "batch-21");
    assert_eq!(asked.by_tag(&"not-last".parse().unwrap()).await.unwrap().fit.len(), 21);
}

async fn groups_tell_their_target_groups(e: &Endpoints) {
    let arn = e.balancer(balancer(BalancerKind::Network, "of-group", "of-group")).await;
    let ours = tags(&[("quorate:cluster", "of-group"), ("quorate:role", "control-plane")]);
    e.group("with-targets", 1, &ours).await;
    e.attach("with-targets", &arn).await;
    let clients = e.agents().await;
    let role = quorate::model::Role::ControlPlane;
    let groups = clients.autoscaling.groups(&"of-group".parse().unwrap(), role, &[]).await.unwrap();
    let [group] = &groups[..] else { panic!("{groups:?}") };
    let told: Vec<&str> = group.target_groups.iter().map(TargetGroupArn::as_str).collect();
    assert_eq!((told, group.classic_load_balancers.len()), (vec![arn.as_str()], 0));
    let lb = only(&clients.load_balancers.target_groups(&group.target_groups).await.unwrap());
    let targets = clients.load_balancers.targets(&lb).await.unwrap();
    let ids: Vec<String> = targets.iter().map(|target| target.id.to_string()).collect();
    assert_eq!(ids, [group.instances[0].id.to_string()], "the group has registered its instance");
}

async fn hooks_are_described_with_their_time_outs(e: &Endpoints) {
    e.group("hooked", 1, &tags(&[])).await;
    let describe = || e.autoscaling.describe_lifecycle_hooks().auto_scaling_group_name("hooked");
    assert!(describe().send().await.unwrap().lifecycle_hooks().is_empty());
    e.hook("hooked", "leave", 3_600).await;
    e.hook("hooked", "other", 600).await;
    let answer = describe().lifecycle_hook_names("leave").send().await.unwrap();
    let [hook] = answer.lifecycle_hooks() else { panic!("{answer:?}") };
    assert_eq!((hook.lifecycle_hook_name(), hook.auto_scaling_group_name()), (Some("leave"), Some("hooked")));
    assert_eq!(hook.lifecycle_transition(), Some("autoscaling:EC2_INSTANCE_TERMINATING"));
    assert_eq!((hook.heartbeat_timeout(), hook.global_timeout()), (Some(3_600), Some(172_800)));
    assert_eq!(hook.default_result(), Some("CONTINUE"));
    assert_eq!(describe().send().await.unwrap().lifecycle_hooks().len(), 2);
}

async fn a_group_ends_an_instance_of_its_own_and_has_one_less(e: &Endpoints) {
    e.group("shrinks", 2, &tags(&[])).await;
    let group = || async {
        let answer = e.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names("shrinks");
        answer.send().await.unwrap().auto_scaling_groups()[0].clone()
    };
    let id = group().await.instances()[0].instance_id().unwrap().to_owned();
    let end = e.autoscaling.terminate_instance_in_auto_scaling_group().instance_id(&id);
    let answer = end.should_decrement_desired_capacity(true).send().await.unwrap();
    let activity = answer.activity().unwrap();
    assert!(activity.activity_id().is_some() && activity.status_code().is_some());
    let left = group().await;
    assert_eq!(left.desired_capacity(), Some(1));
    let staying = |i: &&aws_sdk_autoscaling::types::Instance| {
        i.lifecycle_state().is_some_and(|state| state.as_str() == "InService")
    };
    assert_eq!(left.instances().iter().filter(staying).count(), 1);
}
