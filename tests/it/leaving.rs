//! `quorate leave` and `quorate leave --cancel`: on a running cluster, by the program as it is shipped.

use quorate::lab::region::AttachmentState;
use quorate::model::{MemberId, Phase};
use quorate::telemetry::status::Status;

use crate::verbs::{quorate, text};
use crate::weather::node::Node;

/// A node of three, without Kubernetes, and its status once all three are healthy.
async fn one_of_three() -> (Node, Status) {
    let node = Node::with("leave", |settings, _| {
        (settings.zones, settings.control_plane, settings.size) = (3, 3, 3);
    })
    .await;
    for machine in node.lab.control_plane() {
        machine.start();
    }
    let is_whole = |status: &Status| healthy(status) == 3 && status.member.is_some();
    let status = node.until("three healthy members, one of them its own", is_whole).await;
    (node, status)
}

fn healthy(status: &Status) -> usize {
    status.members.iter().filter(|member| member.healthy == Some(true)).count()
}

/// What EC2 says of the volume that is attached to the node, if any is.
fn attachment(node: &Node) -> Option<AttachmentState> {
    let instance = &node.machine.identity().instance;
    let attached = |world: &quorate::lab::region::World| {
        let of = |volume: &quorate::lab::region::Volume| volume.attachment.clone();
        world.view().volumes.values().filter_map(of).find(|found| found.instance.as_str() == instance)
    };
    node.lab.region().with(|world| attached(world)).map(|found| found.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_leaves_when_it_is_asked_to_and_comes_back_as_the_same_member() {
    let (node, before) = one_of_three().await;
    let own: MemberId = before.member.unwrap();
    node.until("nothing that does not match", |status| status.noticed.is_empty()).await;

    let left = quorate(&node, &["leave"]).await;
    let told = text(&left.stdout);
    assert!(left.status.success(), "{}", text(&left.stderr));
    assert_eq!(told.lines().last(), Some("left"), "{told}");
    assert_eq!(attachment(&node), None, "its volume is free for a successor");
    // Who has left stays so, and says so to whoever asks again.
    let again = quorate(&node, &["leave"]).await;
    assert_eq!((again.status.success(), text(&again.stdout).as_str()), (true, "left\n"));

    let back = quorate(&node, &["leave", "--cancel"]).await;
    let told = text(&back.stdout);
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert!(told.lines().last().is_some_and(|line| line.starts_with("running")), "{told}");
    let is_whole = |status: &Status| healthy(status) == 3 && status.member.is_some();
    let after = node.until("three healthy members again", is_whole).await;
    node.until("nothing that does not match any more", |status| status.noticed.is_empty()).await;
    assert_eq!((after.phase, after.member, after.slot), (Phase::Running, Some(own), before.slot));
    assert_eq!(attachment(&node), Some(AttachmentState::Attached));
}
