//! How many pods a node takes, where its type is in no table.

use quorate::kubernetes::paths;
use quorate::model::node::InterfaceLimits;
use quorate::model::plan::Subject;
use quorate::model::*;
use quorate::plan::plan as plan_of;

use super::control_plane::*;
use super::scene::{Change as _, settings_with};

/// A machine whose type the table does not have, of which EC2 says this.
fn newer(limits: Fact<Option<InterfaceLimits>>) -> Observation {
    running().but(|seen| {
        let Fact::Known(node) = &mut seen.kubernetes.node else { panic!("the machine is known") };
        node.instance.instance_type = Some("z99.large".to_owned());
        node.interface_limits = limits;
    })
}

fn plan(seen: &Observation) -> Plan {
    plan_of(&settings_with("kubernetes: {version: v1.36.2, podNetwork: vpc-cni}\n"), seen)
}

#[test]
fn a_node_whose_type_is_not_known_yet_is_left_as_it_is_until_ec2_says() {
    let waiting = plan(&newer(Fact::unknown("throttled")));
    assert_eq!(waiting.steps, []);
    let on = WaitingOn::Answer { about: Subject::InstanceType, why: "throttled".to_owned() };
    assert_eq!((waiting.report.waiting, waiting.report.halt), (vec![on], None));
}

#[test]
fn what_ec2_says_of_a_type_is_what_the_kubelet_is_told() {
    let told = plan(&newer(Fact::Known(Some(InterfaceLimits { interfaces: 4, addresses: 15 }))));
    let configuration = told.steps.iter().find_map(|step| match step {
        Step::WriteKubernetesFiles { files, .. } => {
            files.iter().find(|file| file.path == paths::KUBELET_CONFIG)
        }
        _ => None,
    });
    let content = &configuration.unwrap_or_else(|| panic!("{:#?}", told.report)).content;
    let text = String::from_utf8_lossy(content.as_bytes());
    assert!(text.contains("maxPods: 58\n"), "{text}");
}
