//! `packaging/cloudformation/cluster.yaml`: that CloudFormation would take it, and that it makes what the agents look
//! for. Its policies are held against the agents' calls in `permissions`.

use std::collections::BTreeMap;
use std::path::Path;

use quorate::config::{self, InstanceTags};
use quorate::model::tags;
use serde_json::{Value, json};

use crate::permissions::template::{self, Template};
use crate::programs::{asked, repository};

/// What the linter of CloudFormation templates says of one; `None` where it is not installed.
fn linted(path: &Path) -> Option<(bool, String)> {
    let regions = ["--regions", template::REGION, "us-east-1", "--template"].map(AsRef::as_ref);
    asked("cfn-lint", regions.into_iter().chain([path.as_os_str()]))
}

#[test]
fn the_linter_finds_nothing() {
    let Some(said) = linted(&repository().join(template::PATH)) else { return };
    assert_eq!(said, (true, String::new()));
}

#[test]
fn the_linter_finds_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wrong.yaml");
    let text = std::fs::read_to_string(repository().join(template::PATH)).unwrap();
    std::fs::write(&path, text.replace("HealthCheckPath: /readyz", "HealthCheckPfad: /readyz")).unwrap();
    let Some((clean, said)) = linted(&path) else { return };
    assert!(!clean && said.contains("HealthCheckPfad"), "{said}");
}

/// The keys that user data sets, as the agent reads it on a machine with its group's tags.
fn configured(template: &Template, launch_template: &str, group: &str) -> BTreeMap<String, String> {
    let data = template.properties(launch_template)["LaunchTemplateData"].clone();
    let text = data["UserData"].as_str().unwrap();
    assert!(text.len() < 16 * 1024);
    let tags = tags_of(&template.properties(group));
    let tag = |key: &str| tags.get(key).cloned();
    let tags = InstanceTags { cluster: tag(tags::CLUSTER), role: tag(tags::ROLE) };
    let loaded = config::load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags)
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.passed_over.is_empty(), "{:?}", loaded.passed_over);
    loaded.origins.into_iter().map(|(key, value, _)| (key.to_owned(), value)).collect()
}

fn tags_of(properties: &Value) -> BTreeMap<String, String> {
    let tags = properties["Tags"].as_array().unwrap().iter();
    tags.map(|tag| (tag["Key"].as_str().unwrap().to_owned(), tag["Value"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn the_agents_understand_what_their_machines_are_told() {
    for (source, expected) in [("PerZone", "tagged"), ("Created", "created")] {
        let template = Template::with(&[("EtcdVolumes", source)]);
        let plane = configured(&template, "ControlPlaneTemplate", "ControlPlaneGroup");
        let worker = configured(&template, "WorkerTemplate", "WorkerGroup");
        assert_eq!((plane["role"].as_str(), worker["role"].as_str()), ("control-plane", "worker"));
        assert_eq!(plane["etcd.volume.source"], expected);
        assert_eq!(plane["etcd.zones"], "[eu-west-1a, eu-west-1b, eu-west-1c]");
        for key in
            ["cluster", "bucket", "region", "kubernetes.podSubnet", "kubernetes.podNetwork", "launch.hook"]
        {
            assert_eq!(plane[key], worker[key], "{key}");
        }
        assert_eq!(
            (plane["cluster"].as_str(), plane["bucket"].as_str()),
            (template::CLUSTER, template::BUCKET)
        );
    }
}

#[test]
fn both_groups_have_the_hooks_that_the_agents_answer_and_the_tags_that_name_them() {
    let template = Template::with(&[]);
    for (group, launch_template) in
        [("ControlPlaneGroup", "ControlPlaneTemplate"), ("WorkerGroup", "WorkerTemplate")]
    {
        let settings = configured(&template, launch_template, group);
        let properties = template.properties(group);
        let hook = |transition: &str| {
            let hooks = properties["LifecycleHookSpecificationList"].as_array().unwrap().clone();
            let [hook] = &hooks
                .iter()
                .filter(|hook| hook["LifecycleTransition"] == transition)
                .collect::<Vec<_>>()[..]
            else {
                panic!("{group}: one hook for {transition}")
            };
            (
                hook["LifecycleHookName"].as_str().unwrap().to_owned(),
                hook["DefaultResult"].as_str().unwrap().to_owned(),
            )
        };
        let launching = (settings["launch.hook"].clone(), "ABANDON".to_owned());
        assert_eq!(hook("autoscaling:EC2_INSTANCE_LAUNCHING"), launching, "{group}");
        let terminating = (settings["leaving.hook"].clone(), "CONTINUE".to_owned());
        assert_eq!(hook("autoscaling:EC2_INSTANCE_TERMINATING"), terminating, "{group}");
        let tags = properties["Tags"].as_array().unwrap();
        assert!(tags.iter().all(|tag| tag["PropagateAtLaunch"] == true), "{group}");
        // EC2 refuses such keys on instances whose tags are published.
        assert!(tags.iter().all(|tag| !tag["Key"].as_str().unwrap().contains('/')), "{group}");
        let zones = &properties["VPCZoneIdentifier"];
        assert_eq!(*zones, json!(["subnet-1", "subnet-2", "subnet-3"]), "{group} spans the zones");
    }
}

#[test]
fn machines_publish_their_tags_to_nobody_but_themselves_and_keep_no_tag_for_etcds_volumes() {
    let template = Template::with(&[]);
    let templates = template.of_type("AWS::EC2::LaunchTemplate");
    assert_eq!(templates.len(), 2);
    for (name, properties) in templates {
        let data = &properties["LaunchTemplateData"];
        let options = json!({
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        });
        assert_eq!(data["MetadataOptions"], options, "{name}");
        assert_eq!(data["TagSpecifications"], Value::Null, "{name}: a root disk would be taken for etcd's");
        assert_eq!(data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], true, "{name}");
    }
}

#[test]
fn what_holds_data_outlives_the_stack() {
    let template = Template::with(&[]);
    let resources = template.resources();
    let mut kept = Vec::new();
    for (name, resource) in &resources {
        if ["AWS::EC2::Volume", "AWS::S3::Bucket", "AWS::KMS::Key"]
            .iter()
            .any(|kind| resource["Type"] == *kind)
        {
            assert_eq!(
                (&resource["DeletionPolicy"], &resource["UpdateReplacePolicy"]),
                (&json!("Retain"), &json!("Retain")),
                "{name}"
            );
            kept.push(name.as_str());
        }
    }
    assert_eq!(kept, ["Bucket", "EtcdVolume1", "EtcdVolume2", "EtcdVolume3", "Key"]);
    let mut zones = Vec::new();
    for (name, volume) in template.of_type("AWS::EC2::Volume") {
        assert_eq!(volume["Encrypted"], true, "{name}");
        let tags = tags_of(&volume);
        assert_eq!(tags[tags::CLUSTER], template::CLUSTER, "{name}");
        // Slots follow the zones' names, which may be given in another order.
        assert!(!tags.contains_key(tags::SLOT), "{name}");
        zones.push(volume["AvailabilityZone"].as_str().unwrap().to_owned());
    }
    assert_eq!(zones, ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    let created = Template::with(&[("EtcdVolumes", "Created")]);
    assert!(created.of_type("AWS::EC2::Volume").is_empty());
}

#[test]
fn the_bucket_is_versioned_encrypted_and_private() {
    let bucket = Template::with(&[]).properties("Bucket");
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    let encryption = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0];
    assert_eq!(encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"], "aws:kms");
    let closed = bucket["PublicAccessBlockConfiguration"].as_object().unwrap();
    assert!(closed.len() == 4 && closed.values().all(|value| value == true), "{closed:?}");
    let rules = bucket["LifecycleConfiguration"]["Rules"].as_array().unwrap();
    let has = |what: &str| rules.iter().any(|rule| rule.get(what).is_some());
    assert!(has("NoncurrentVersionExpiration") && has("AbortIncompleteMultipartUpload"));
    // What is current never ends by itself: that is for the retention to say.
    assert!(!has("Expiration") && !has("ExpirationInDays") && !has("Transitions"));
}

#[test]
fn the_load_balancer_asks_api_servers_whether_they_are_ready_and_lets_them_drain() {
    let template = Template::with(&[]);
    let group = template.properties("TargetGroup");
    for (name, value) in
        [("HealthCheckProtocol", "HTTPS"), ("HealthCheckPath", "/readyz"), ("Protocol", "TCP")]
    {
        assert_eq!(group[name], value, "{name}");
    }
    assert_eq!(tags_of(&group)[tags::CLUSTER], template::CLUSTER, "by it the role may register machines");
    let attributes = group["TargetGroupAttributes"].as_array().unwrap();
    let attribute = |key: &str| {
        let found = attributes.iter().find(|attribute| attribute["Key"] == key);
        found.unwrap_or_else(|| panic!("{key}"))["Value"].as_str().unwrap().to_owned()
    };
    let settings = configured(&template, "ControlPlaneTemplate", "ControlPlaneGroup");
    let serves_on: u64 =
        settings["kubernetes.apiServer.shutdownDelay"].trim_end_matches('s').parse().unwrap();
    // It serves until the load balancer has turned to the others, and the load balancer drains for longer than that.
    let number = |name: &str| group[name].as_u64().unwrap();
    assert!(number("HealthCheckIntervalSeconds") * number("UnhealthyThresholdCount") < serves_on);
    assert!(attribute("deregistration_delay.timeout_seconds").parse::<u64>().unwrap() >= serves_on);
    assert_eq!(template.properties("ControlPlaneGroup")["TargetGroupARNs"], json!(["TargetGroup"]));
}

/// Who may come to a security group, and at which ports: `GROUP <- SOURCE PROTOCOL PORTS`.
#[test]
fn security_groups_let_in_what_must_pass() {
    let template = Template::with(&[("Monitors", "10.9.0.0/16")]);
    let rule = |group: &str, rule: &Value| {
        let from = ["CidrIp", "SourceSecurityGroupId"].iter().find_map(|name| rule[*name].as_str()).unwrap();
        let ports = match (&rule["FromPort"], &rule["ToPort"]) {
            (Value::Null, Value::Null) => "all".to_owned(),
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from}-{to}"),
        };
        assert!(!rule["Description"].as_str().unwrap().is_empty());
        format!("{group} <- {from} {} {ports}", rule["IpProtocol"].as_str().unwrap())
            .replace("SecurityGroup", "")
    };
    let mut rules = Vec::new();
    for (name, group) in template.of_type("AWS::EC2::SecurityGroup") {
        rules.extend(group["SecurityGroupIngress"].as_array().unwrap().iter().map(|each| rule(&name, each)));
    }
    for each in template.of_type("AWS::EC2::SecurityGroupIngress").values() {
        rules.push(rule(each["GroupId"].as_str().unwrap(), each));
    }
    rules.sort();
    insta::assert_snapshot!(rules.join("\n"), @r"
    ControlPlane <- 10.244.0.0/16 tcp 53
    ControlPlane <- 10.244.0.0/16 udp 53
    ControlPlane <- 10.9.0.0/16 tcp 9907
    ControlPlane <- ControlPlane tcp 10250
    ControlPlane <- ControlPlane tcp 2379-2380
    ControlPlane <- ControlPlane tcp 6443
    ControlPlane <- LoadBalancer tcp 6443
    ControlPlane <- Worker tcp 10250
    ControlPlane <- Worker tcp 53
    ControlPlane <- Worker tcp 6443
    ControlPlane <- Worker udp 53
    LoadBalancer <- 10.0.0.0/8 tcp 6443
    LoadBalancer <- ControlPlane tcp 6443
    LoadBalancer <- Worker tcp 6443
    Worker <- 10.244.0.0/16 -1 all
    Worker <- 10.9.0.0/16 tcp 9907
    Worker <- ControlPlane -1 all
    Worker <- Worker -1 all
    ");
    let without = Template::with(&[]);
    assert!(!without.resources().contains_key("MonitorsToWorkers"));
}

#[test]
fn alarms_tell_whom_the_operator_names_and_nobody_otherwise() {
    let topic = "arn:aws:sns:eu-west-1:123456789012:ops";
    let alarms = Template::with(&[("AlarmTopic", topic)]).of_type("AWS::CloudWatch::Alarm");
    assert!(alarms.len() >= 5, "{alarms:?}");
    for (name, alarm) in &alarms {
        assert_eq!(alarm["AlarmActions"], json!([topic]), "{name}");
        assert!(alarm["TreatMissingData"].is_string(), "{name}: what no data mean is said");
    }
    for (name, alarm) in Template::with(&[]).of_type("AWS::CloudWatch::Alarm") {
        assert_eq!(alarm["AlarmActions"], Value::Null, "{name}");
    }
}
