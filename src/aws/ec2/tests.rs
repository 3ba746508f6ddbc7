//! EC2 in good and bad weather.

use super::super::testing::{Reply, Request, Server, answer, cluster, ec2_error};
use super::*;
use crate::model::fact::chain;
use crate::model::{AttachmentState, Role};

const A: &str = "i-0000000000000000a";
const B: &str = "i-0000000000000000b";
const V: &str = "vol-0000000000000000a";
const W: &str = "vol-0000000000000000b";

fn instance(id: &str, state: &str, tags: &[(&str, &str)]) -> String {
    let address = if state == "terminated" { "" } else { "<privateIpAddress>10.0.1.5</privateIpAddress>" };
    format!(
        "<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>{id}</instanceId>\
         <instanceState><code>16</code><name>{state}</name></instanceState>{address}\
         <placement><availabilityZone>eu-west-1a</availabilityZone></placement>{}</item></instancesSet></item>",
        tag_set(tags)
    )
}

fn volume(id: &str, state: &str, tags: &[(&str, &str)], attachments: &[(&str, &str)]) -> String {
    let attachments: Vec<_> = attachments
        .iter()
        .map(|(instance, state)| {
            format!(
                "<item><volumeId>{id}</volumeId><instanceId>{instance}</instanceId><device>/dev/sdf</device>\
                 <status>{state}</status><deleteOnTermination>true</deleteOnTermination></item>"
            )
        })
        .collect();
    let attachments = attachments.concat();
    format!(
        "<item><volumeId>{id}</volumeId><status>{state}</status><availabilityZone>eu-west-1a</availabilityZone>\
         <attachmentSet>{attachments}</attachmentSet>{}</item>",
        tag_set(tags)
    )
}

fn tag_set(tags: &[(&str, &str)]) -> String {
    let items: Vec<_> = tags
        .iter()
        .map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>"))
        .collect();
    format!("<tagSet>{}</tagSet>", items.concat())
}

fn instances(items: &str, next: &str) -> Reply {
    page("DescribeInstances", "reservationSet", items, next)
}

fn volumes(items: &str) -> Reply {
    page("DescribeVolumes", "volumeSet", items, "")
}

fn page(operation: &str, set: &str, items: &str, next: &str) -> Reply {
    let next = if next.is_empty() { String::new() } else { format!("<nextToken>{next}</nextToken>") };
    answer(
        200,
        format!(
            "<?xml version=\"1.0\"?><{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>R1</requestId><{set}>{items}</{set}>{next}</{operation}Response>"
        ),
    )
}

async fn server(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> (Server, Ec2) {
    let server = Server::start(handler).await;
    let ec2 = (**server.clients(1).await.ec2).clone();
    (server, ec2)
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

const PEER: [(&str, &str); 2] = [("quorate:cluster", "prod"), ("quorate:role", "control-plane")];

#[tokio::test]
async fn instances_of_all_pages_are_told() {
    let (server, ec2) = server(|request| match request.field("NextToken").as_str() {
        "" => instances(&instance(A, "running", &PEER), "page-2"),
        "page-2" => instances(&instance(B, "terminated", &[("quorate:cluster", "prod")]), ""),
        other => panic!("{other}"),
    })
    .await;
    let found = ec2.instances_of(&cluster()).await.unwrap();
    let a = &found[&id::<InstanceId>(A)];
    assert_eq!((a.state, a.role), (InstanceState::Running, Some(Role::ControlPlane)));
    assert_eq!(a.address.unwrap().to_string(), "10.0.1.5");
    assert_eq!(a.zone.as_ref().unwrap().as_str(), "eu-west-1a");
    let b = &found[&id::<InstanceId>(B)];
    assert_eq!((b.state, b.role, b.address), (InstanceState::Terminated, None, None));
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.field("Filter.1.Name"), "tag:quorate:cluster");
        assert_eq!(request.field("Filter.1.Value.1"), "prod");
    }
}

#[tokio::test]
async fn half_a_list_is_an_error() {
    let (_server, ec2) = server(|request| match request.field("NextToken").as_str() {
        "" => instances(&instance(A, "running", &PEER), "page-2"),
        _ => ec2_error(503, "RequestLimitExceeded", "Request limit exceeded."),
    })
    .await;
    let error = ec2.instances_of(&cluster()).await.unwrap_err();
    assert!(error.is_throttled() && error.is_retryable(), "{error:?}");
    assert_eq!(error.kind(), Some(Ec2ErrorKind::Throttled));

    let (_server, ec2) = self::server(|_| instances(&instance(A, "running", &PEER), "page-2")).await;
    let error = ec2.instances_of(&cluster()).await.unwrap_err();
    assert!(chain(&error).contains("the same page twice"), "{}", chain(&error));
}

#[tokio::test]
async fn an_empty_list_is_empty() {
    let (_server, ec2) = server(|request| match request.field("Action").as_str() {
        "DescribeInstances" => instances("", ""),
        _ => volumes(""),
    })
    .await;
    assert!(ec2.instances_of(&cluster()).await.unwrap().is_empty());
    assert!(ec2.volumes_of(&cluster()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_list_is_not_taken_for_an_empty_one() {
    for body in [
        "",
        "<html>sign in</html>",
        "not xml",
        "<DescribeInstancesResponse></DescribeInstancesResponse>",
        "<DescribeInstancesResponse><reservationSet><item>",
        "<DescribeVolumesResponse></DescribeVolumesResponse>",
    ] {
        let (_server, ec2) = server(move |_| answer(200, body)).await;
        assert!(ec2.instances_of(&cluster()).await.is_err(), "{body}");
        assert!(ec2.volumes_of(&cluster()).await.is_err(), "{body}");
        assert!(ec2.volumes_by_id(&cluster(), &[id(V)]).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn a_state_that_is_not_known_is_an_error() {
    let (_server, ec2) = server(|_| instances(&instance(A, "hibernating", &PEER), "")).await;
    let error = ec2.instances_of(&cluster()).await.unwrap_err();
    assert!(chain(&error).contains("hibernating"), "{}", chain(&error));
    let (_server, ec2) = self::server(|_| volumes(&volume(V, "sleeping", &[], &[]))).await;
    assert!(ec2.volumes_of(&cluster()).await.is_err());
}

#[tokio::test]
async fn the_role_in_another_cluster_is_not_told() {
    let tags = [("quorate:cluster", "other"), ("quorate:role", "control-plane")];
    let (_server, ec2) = server(move |_| instances(&instance(A, "running", &tags), "")).await;
    assert_eq!(ec2.instances_by_id(&cluster(), &[id(A)]).await.unwrap()[&id::<InstanceId>(A)].role, None);
}

/// EC2 that knows A, and answers a question about B so.
async fn knows_a(about_b: Reply) -> (Server, Ec2) {
    server(move |request| {
        match (request.field("InstanceId.1").as_str(), request.field("VolumeId.1").as_str()) {
            ("", "") if request.field("Action") == "DescribeInstances" => {
                instances(&instance(A, "running", &PEER), "")
            }
            ("", "") => volumes(&volume(V, "available", &[], &[])),
            (B, "") | ("", W) => about_b.clone(),
            other => panic!("{other:?}"),
        }
    })
    .await
}

#[tokio::test]
async fn an_id_that_ec2_does_not_know_is_not_found() {
    let (server, ec2) = knows_a(ec2_error(400, NO_INSTANCE, "The instance ID does not exist")).await;
    let found = ec2.instances_by_id(&cluster(), &[id(A), id(B)]).await.unwrap();
    assert_eq!(found[&id::<InstanceId>(A)].state, InstanceState::Running);
    assert_eq!(found[&id::<InstanceId>(B)].state, InstanceState::NotFound);
    assert_eq!(server.seen()[0].field("Filter.1.Name"), "instance-id");

    let (_server, ec2) = knows_a(ec2_error(400, NO_VOLUME, "The volume does not exist")).await;
    let found = ec2.volumes_by_id(&cluster(), &[id(V), id(W)]).await.unwrap();
    assert_eq!(found[&id::<VolumeId>(V)].state, VolumeState::Available);
    assert_eq!(found[&id::<VolumeId>(W)].state, VolumeState::NotFound);
}

#[tokio::test]
async fn an_id_without_a_definite_answer_is_not_taken_for_not_found() {
    for reply in [
        ec2_error(503, "Unavailable", "busy"),
        ec2_error(400, "RequestLimitExceeded", "slow down"),
        ec2_error(403, "UnauthorizedOperation", "You are not authorized"),
        ec2_error(400, "InvalidInstanceID.Malformed", "malformed"),
        answer(404, "<html>no such page</html>"),
        Reply::Cut,
        Reply::Half,
        instances("", ""),
        volumes(""),
    ] {
        let (_server, ec2) = knows_a(reply.clone()).await;
        assert!(ec2.instances_by_id(&cluster(), &[id(A), id(B)]).await.is_err(), "{reply:?}");
        assert!(ec2.volumes_by_id(&cluster(), &[id(V), id(W)]).await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn an_id_that_the_list_was_late_with_is_told() {
    let (_server, ec2) = knows_a(instances(&instance(B, "pending", &PEER), "")).await;
    let found = ec2.instances_by_id(&cluster(), &[id(A), id(B)]).await.unwrap();
    assert_eq!(found[&id::<InstanceId>(B)].state, InstanceState::Pending);
}

#[tokio::test]
async fn silence_is_no_answer_and_may_be_tried_again() {
    let server = Server::start(|_| Reply::Silence).await;
    let error = server.hasty_clients(1).await.ec2.volumes_of(&cluster()).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_throttled(), "{error:?}");
    assert_eq!(error.kind(), Some(Ec2ErrorKind::NoAnswer));
    assert!(chain(&error).contains("no answer in time"), "{}", chain(&error));
}

#[tokio::test]
async fn throttling_that_passes_is_not_seen() {
    let mut first = Some(ec2_error(503, "RequestLimitExceeded", "slow down"));
    let server = Server::start(move |_| first.take().unwrap_or_else(|| volumes(""))).await;
    assert!(server.clients(3).await.ec2.volumes_of(&cluster()).await.unwrap().is_empty());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn volumes_are_told_with_their_tags_and_ties() {
    let ours = [("quorate:cluster", "prod"), ("quorate:slot", "2"), ("quorate:stamp", "member 1 abc")];
    let list =
        volume(V, "in-use", &ours, &[(A, "attaching")]) + &volume(W, "available", &[], &[(B, "detached")]);
    let (server, ec2) = server(move |_| volumes(&list)).await;
    let found = ec2.volumes_attached_to(&cluster(), &id(A)).await.unwrap();
    let v = &found[&id::<VolumeId>(V)];
    assert_eq!(v.state, VolumeState::InUse);
    assert!(v.ours);
    assert_eq!(v.slot.unwrap().number(), 2);
    assert_eq!(v.stamp.as_deref(), Some("member 1 abc"));
    let tie = v.attachment.as_ref().unwrap();
    assert_eq!((tie.instance.as_str(), tie.state), (A, AttachmentState::Attaching));
    assert_eq!((tie.device.as_str(), tie.delete_on_termination), ("/dev/sdf", true));
    let w = &found[&id::<VolumeId>(W)];
    assert!(!w.ours && w.attachment.is_none() && w.slot.is_none() && w.stamp.is_none());
    assert_eq!(server.seen()[0].field("Filter.1.Name"), "attachment.instance-id");
}

#[tokio::test]
async fn a_volume_of_the_cluster_with_a_wrong_slot_or_two_holders_is_an_error() {
    let wrong_slot = volume(V, "available", &[("quorate:cluster", "prod"), ("quorate:slot", "seven")], &[]);
    let two = volume(V, "in-use", &[("quorate:cluster", "prod")], &[(A, "attached"), (B, "attached")]);
    for list in [wrong_slot, two] {
        let (_server, ec2) = server(move |_| volumes(&list)).await;
        assert!(ec2.volumes_of(&cluster()).await.is_err());
    }
}

#[tokio::test]
async fn of_a_foreign_volume_with_two_holders_the_one_asked_for_is_told() {
    let list = volume(V, "in-use", &[("quorate:slot", "seven")], &[(A, "attached"), (B, "busy")]);
    let (_server, ec2) = server(move |_| volumes(&list)).await;
    let found = ec2.volumes_attached_to(&cluster(), &id(B)).await.unwrap();
    let tie = found[&id::<VolumeId>(V)].attachment.clone().unwrap();
    assert_eq!((tie.instance.as_str(), tie.state), (B, AttachmentState::Busy));
}

#[tokio::test]
async fn an_instances_tags_are_told_and_an_unknown_instance_has_none() {
    let (_server, ec2) = server(|_| instances(&instance(A, "running", &PEER), "")).await;
    let tags = ec2.instance_tags(&id(A)).await.unwrap();
    assert_eq!(tags["quorate:role"], "control-plane");
    assert_eq!(tags.len(), 2);
    let (_server, ec2) = self::server(|_| ec2_error(400, NO_INSTANCE, "does not exist")).await;
    let error = ec2.instance_tags(&id(A)).await.unwrap_err();
    assert_eq!(error.kind(), Some(Ec2ErrorKind::NotFound));
    assert!(error.is_retryable(), "it may be too new to be known");
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    let cases = [
        (400, "VolumeInUse", Ec2ErrorKind::VolumeInUse, false),
        (400, "IncorrectState", Ec2ErrorKind::IncorrectState, true),
        (400, "IncorrectInstanceState", Ec2ErrorKind::IncorrectState, true),
        (400, "InvalidVolume.ZoneMismatch", Ec2ErrorKind::ZoneMismatch, false),
        (400, "InvalidVolume.NotFound", Ec2ErrorKind::NotFound, true),
        (403, "UnauthorizedOperation", Ec2ErrorKind::UnauthorizedOperation, false),
        (400, "IdempotentParameterMismatch", Ec2ErrorKind::TokenMismatch, false),
        (400, "RequestLimitExceeded", Ec2ErrorKind::Throttled, true),
        (500, "InternalError", Ec2ErrorKind::NoAnswer, true),
        (400, "InvalidParameterValue", Ec2ErrorKind::Refused, false),
    ];
    for (status, code, kind, retryable) in cases {
        let (_server, ec2) = server(move |_| ec2_error(status, code, "because")).await;
        let error = ec2.attach_volume(&id(V), &id(A), "/dev/sdf").await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (Some(kind), retryable), "{code}");
        let text = chain(&error);
        assert!(
            text.contains(V) && text.contains(A) && text.contains(code) && text.contains("because"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_volume_is_created_as_ordered() {
    let (server, ec2) = server(|_| {
        answer(200, format!("<CreateVolumeResponse><volumeId>{V}</volumeId></CreateVolumeResponse>"))
    })
    .await;
    let new = NewVolume {
        zone: id("eu-west-1a"),
        size_gib: 20,
        volume_type: "gp3".to_owned(),
        iops: Some(3000),
        throughput: None,
        kms_key: Some("alias/etcd".to_owned()),
        client_token: "prod-1-abc".to_owned(),
        tags: BTreeMap::from([("quorate:cluster".to_owned(), "prod".to_owned())]),
    };
    assert_eq!(ec2.create_volume(&new).await.unwrap().as_str(), V);
    let request = &server.seen()[0];
    for (field, value) in [
        ("Action", "CreateVolume"),
        ("AvailabilityZone", "eu-west-1a"),
        ("Size", "20"),
        ("VolumeType", "gp3"),
        ("Iops", "3000"),
        ("Throughput", ""),
        ("Encrypted", "true"),
        ("KmsKeyId", "alias/etcd"),
        ("ClientToken", "prod-1-abc"),
        ("TagSpecification.1.ResourceType", "volume"),
        ("TagSpecification.1.Tag.1.Key", "quorate:cluster"),
        ("TagSpecification.1.Tag.1.Value", "prod"),
    ] {
        assert_eq!(request.field(field), value, "{field}");
    }
}

#[tokio::test]
async fn a_created_volume_without_an_id_is_an_error() {
    let (_server, ec2) = server(|_| answer(200, "<CreateVolumeResponse/>")).await;
    let new = NewVolume {
        zone: id("eu-west-1a"),
        size_gib: 20,
        volume_type: "gp3".to_owned(),
        iops: None,
        throughput: None,
        kms_key: None,
        client_token: "t".to_owned(),
        tags: BTreeMap::new(),
    };
    assert!(ec2.create_volume(&new).await.is_err());
}

#[tokio::test]
async fn tags_are_set_together() {
    let (server, ec2) =
        server(|_| answer(200, "<CreateTagsResponse><return>true</return></CreateTagsResponse>")).await;
    ec2.tag(V, &[("quorate:cluster", "prod"), ("quorate:slot", "1")]).await.unwrap();
    let request = &server.seen()[0];
    assert_eq!(request.field("ResourceId.1"), V);
    assert_eq!(request.field("Tag.2.Key"), "quorate:slot");
    assert_eq!(request.field("Tag.2.Value"), "1");
}

const NAME: &str = "ip-10-0-1-5.eu-west-1.compute.internal";

/// An instance with two interfaces, of which the second has IPv6 only beside its private address.
fn node(id: &str) -> String {
    let tags = tag_set(&PEER);
    format!(
        "<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>{id}</instanceId>\
         <instanceState><code>16</code><name>running</name></instanceState>\
         <privateDnsName>{NAME}</privateDnsName>\
         <dnsName>ec2-203-0-113-5.eu-west-1.compute.amazonaws.com</dnsName>\
         <privateIpAddress>10.0.1.5</privateIpAddress><ipAddress>203.0.113.5</ipAddress>\
         <placement><availabilityZone>eu-west-1a</availabilityZone></placement>\
         <networkInterfaceSet><item><privateIpAddressesSet>\
         <item><privateIpAddress>10.0.1.5</privateIpAddress>\
         <association><publicIp>203.0.113.5</publicIp></association></item>\
         <item><privateIpAddress>10.0.1.6</privateIpAddress>\
         <association><publicIp>203.0.113.6</publicIp></association></item>\
         </privateIpAddressesSet></item>\
         <item><privateIpAddressesSet><item><privateIpAddress>10.0.9.5</privateIpAddress></item>\
         </privateIpAddressesSet><ipv6AddressesSet><item><ipv6Address>2001:db8::5</ipv6Address></item>\
         </ipv6AddressesSet></item></networkInterfaceSet>{tags}</item></instancesSet></item>"
    )
}

#[tokio::test]
async fn a_node_has_the_addresses_of_all_its_interfaces_and_all_its_names() {
    let (server, ec2) = server(|_| instances(&node(A), "")).await;
    let found = ec2.node_instances(&cluster(), &[id(A)], &[]).await.unwrap();
    let node = &found[&id::<InstanceId>(A)];
    assert_eq!((node.state, node.role), (InstanceState::Running, Some(Role::ControlPlane)));
    assert_eq!(node.zone.as_ref().unwrap().as_str(), "eu-west-1a");
    assert_eq!(node.private_dns_name.as_deref(), Some(NAME));
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    let all = ["10.0.1.5", "10.0.1.6", "10.0.9.5", "203.0.113.5", "203.0.113.6", "2001:db8::5"];
    assert_eq!(addresses, all);
    let names: Vec<_> = node.dns_names.iter().map(String::as_str).collect();
    assert_eq!(names, ["ec2-203-0-113-5.eu-west-1.compute.amazonaws.com", NAME]);
    assert_eq!(server.seen().len(), 1, "no names are given, so nobody is asked for by name");
}

#[tokio::test]
async fn a_node_without_public_names_or_addresses_has_none() {
    let gone = instance(A, "terminated", &[("quorate:cluster", "other"), ("quorate:role", "worker")])
        .replace("<tagSet>", "<privateDnsName/><dnsName/><ipAddress/><tagSet>");
    let (_server, ec2) = server(move |_| instances(&gone, "")).await;
    let found = ec2.node_instances(&cluster(), &[id(A)], &[]).await.unwrap();
    let node = &found[&id::<InstanceId>(A)];
    assert_eq!((node.state, node.role), (InstanceState::Terminated, None), "another cluster's role");
    assert_eq!(node.private_dns_name, None);
    assert!(node.addresses.is_empty() && node.dns_names.is_empty(), "{node:?}");
}

#[tokio::test]
async fn nodes_are_asked_for_by_id_and_by_name_in_portions_and_read_to_the_last_page() {
    let (server, ec2) = server(|request| {
        let by_name = request.field("Filter.1.Name") == "private-dns-name";
        match (by_name, request.field("NextToken").as_str()) {
            (false, "") => instances(&instance(A, "running", &PEER), "page-2"),
            (false, _) => instances("", ""),
            (true, "") => instances("", "page-2"),
            (true, _) => instances(&node(B), ""),
        }
    })
    .await;
    let ids: Vec<InstanceId> = (0..201).map(|n| id(&format!("i-{n:017x}"))).collect();
    let found = ec2.node_instances(&cluster(), &ids, &[NAME.to_owned()]).await.unwrap();
    let found: Vec<_> = found.keys().map(InstanceId::as_str).collect();
    assert_eq!(found, [A, B], "those that EC2 does not list are left out");
    let asked: Vec<_> = server
        .seen()
        .iter()
        .map(|request| {
            let values = (1..).take_while(|n| !request.field(&format!("Filter.1.Value.{n}")).is_empty());
            (request.field("Filter.1.Name"), values.count(), request.field("NextToken"))
        })
        .collect();
    let expected = [
        ("instance-id", 200, ""),
        ("instance-id", 200, "page-2"),
        ("instance-id", 1, ""),
        ("instance-id", 1, "page-2"),
        ("private-dns-name", 1, ""),
        ("private-dns-name", 1, "page-2"),
    ];
    assert_eq!(asked, expected.map(|(by, count, page)| (by.to_owned(), count, page.to_owned())));
    assert_eq!(server.seen().last().unwrap().field("Filter.1.Value.1"), NAME);
}

#[tokio::test]
async fn half_an_answer_about_nodes_is_an_error() {
    let broken = [
        ec2_error(503, "RequestLimitExceeded", "slow down"),
        ec2_error(403, "UnauthorizedOperation", "You are not authorized"),
        Reply::Cut,
        Reply::Half,
        answer(200, "<DescribeInstancesResponse></DescribeInstancesResponse>"),
        instances(&node(B).replace("2001:db8::5", "five"), ""),
        instances(&node(B).replace("203.0.113.6", "203.0.113"), ""),
        instances(&node(B).replace(">running<", ">hibernating<"), ""),
    ];
    for reply in broken {
        let again = reply.clone();
        // The ids are told, the names are not; and the first page is, the second is not.
        let (_server, ec2) = server(move |request| match request.field("Filter.1.Name").as_str() {
            "instance-id" => instances(&node(A), ""),
            _ => reply.clone(),
        })
        .await;
        assert!(ec2.node_instances(&cluster(), &[id(A)], &[NAME.to_owned()]).await.is_err(), "{again:?}");
        let told = again.clone();
        let (_server, ec2) = self::server(move |request| match request.field("NextToken").as_str() {
            "" => instances(&node(A), "page-2"),
            _ => again.clone(),
        })
        .await;
        assert!(ec2.node_instances(&cluster(), &[id(A)], &[]).await.is_err(), "{told:?}");
    }
    let (_server, ec2) = server(|_| ec2_error(503, "RequestLimitExceeded", "slow down")).await;
    let error = ec2.node_instances(&cluster(), &[], &[NAME.to_owned()]).await.unwrap_err();
    assert!(error.is_throttled() && error.is_retryable(), "{error:?}");
    assert!(chain(&error).contains(NAME), "{}", chain(&error));
}

#[tokio::test]
async fn of_no_nodes_nothing_is_asked() {
    let (server, ec2) = server(|_| instances("", "")).await;
    assert!(ec2.node_instances(&cluster(), &[], &[]).await.unwrap().is_empty());
    assert!(server.seen().is_empty());
}

fn types(name: &str, network: &str) -> Reply {
    let item = format!("<item><instanceType>{name}</instanceType>{network}</item>");
    page("DescribeInstanceTypes", "instanceTypeSet", &item, "")
}

/// Interfaces of all network cards, of each by its index, and the addresses of an interface.
fn network(all: i32, cards: &[(i32, i32)], addresses: &str) -> String {
    let card = |(index, most): &(i32, i32)| {
        format!(
            "<item><networkCardIndex>{index}</networkCardIndex>\
             <maximumNetworkInterfaces>{most}</maximumNetworkInterfaces></item>"
        )
    };
    let cards: String = cards.iter().map(card).collect();
    format!(
        "<networkInfo><maximumNetworkInterfaces>{all}</maximumNetworkInterfaces>\
         <defaultNetworkCardIndex>0</defaultNetworkCardIndex><networkCards>{cards}</networkCards>\
         <ipv4AddressesPerInterface>{addresses}</ipv4AddressesPerInterface></networkInfo>"
    )
}

#[tokio::test]
async fn a_type_gives_the_addresses_of_its_first_network_card() {
    for (network, interfaces) in [
        (network(4, &[(0, 4)], "15"), 4),
        (network(64, &[(1, 30), (0, 2)], "15"), 2),
        // Cards that are not told of are one.
        (network(4, &[], "15"), 4),
    ] {
        let (server, ec2) = server(move |_| types("z99.large", &network)).await;
        let found = ec2.interface_limits("z99.large").await.unwrap();
        assert_eq!(found, InterfaceLimits { interfaces, addresses: 15 });
        assert_eq!(server.seen()[0].field("InstanceType.1"), "z99.large");
    }
}

#[tokio::test]
async fn half_an_answer_about_a_type_is_an_error() {
    let broken = [
        types("m7g.large", &network(4, &[(0, 4)], "15")),
        types("z99.large", ""),
        types("z99.large", &network(0, &[], "15")),
        types("z99.large", &network(4, &[(0, 4)], "-1")),
        types("z99.large", &network(4, &[(0, 4)], "15").replace("ipv4AddressesPerInterface", "other")),
        page("DescribeInstanceTypes", "instanceTypeSet", "", ""),
        ec2_error(
            400,
            "InvalidInstanceType",
            "The following supplied instance types do not exist: [z99.large]",
        ),
        Reply::Cut,
        Reply::Half,
    ];
    for reply in broken {
        let told = reply.clone();
        let (_server, ec2) = server(move |_| reply.clone()).await;
        let error = ec2.interface_limits("z99.large").await.expect_err(&format!("{told:?}"));
        assert!(error.to_string().contains("DescribeInstanceTypes of z99.large"), "{error}");
    }
    let (_server, ec2) = server(|_| ec2_error(403, "UnauthorizedOperation", "not authorized")).await;
    let error = ec2.interface_limits("z99.large").await.unwrap_err();
    assert!(error.to_string().contains("allow ec2:DescribeInstanceTypes"), "{error}");
}
