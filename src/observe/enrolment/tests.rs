//! How often AWS is asked about requests for certificates, counted at a server that stands for it and for the API.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::aws::testing::{Reply, Request, Server, access, answer, s3_error};
use crate::config::{InstanceTags, load};
use crate::host::Root;
use crate::model::Identity;
use crate::model::enrolment::NodeSigner;

/// A request for the client certificate of a node, on which this is written.
fn request(name: &str, told: Option<&str>) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:i-0123456789abcdef0");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({
        "metadata": {
            "name": name,
            "resourceVersion": "1",
            "annotations": told.map(|why| json!({ "quorate/pending": why })),
        },
        "spec": {
            "request": k8s_openapi::ByteString(pem.into_bytes()),
            "signerName": NodeSigner::Client.name(),
            "username": "system:bootstrap:abcdef",
            "groups": ["system:bootstrappers"],
            "usages": ["client auth", "digital signature"],
        },
    })
}

struct Rig {
    requests: Arc<Mutex<Vec<Value>>>,
    server: Server,
    reach: Reach,
    api: ApiClient,
    memory: Remembered,
    start: Instant,
    _root: tempfile::TempDir,
}

fn reply(asked: &Request, requests: &[Value]) -> Reply {
    let list = |items: &[Value]| answer(200, json!({ "metadata": {}, "items": items }).to_string());
    let none = |operation: &str, inside: &str| {
        answer(200, format!("<{operation}Response>{inside}</{operation}Response>"))
    };
    match asked.path.split('?').next().unwrap() {
        "/" if asked.field("Action") == "DescribeInstances" => none("DescribeInstances", "<reservationSet/>"),
        "/" => none(
            "DescribeAutoScalingGroups",
            "<DescribeAutoScalingGroupsResult><AutoScalingGroups/></DescribeAutoScalingGroupsResult>",
        ),
        "/apis/certificates.k8s.io/v1/certificatesigningrequests"
            if asked.path.contains("apiserver-client") =>
        {
            list(requests)
        }
        "/apis/certificates.k8s.io/v1/certificatesigningrequests" | "/api/v1/nodes" => list(&[]),
        path if path.starts_with("/api") => {
            let status = json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" });
            answer(404, status.to_string())
        }
        _ => s3_error(404, "NoSuchKey"),
    }
}

impl Rig {
    async fn new() -> Self {
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let answering = Arc::clone(&requests);
        let server = Server::start(move |asked| reply(asked, &answering.lock().unwrap())).await;
        let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
        let user_data = b"cluster: demo\nbucket: demo-quorate\n";
        let settings = load(Path::new("/nonexistent"), Some(user_data), &tags).unwrap().settings;
        let identity = Identity {
            instance: "i-0123456789abcdef1".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            zone: "eu-west-1a".parse().unwrap(),
            address: "10.0.1.5".parse().unwrap(),
        };
        let root = tempfile::tempdir().unwrap();
        let reach = Reach::new(Root::new(root.path()), &access(&server.url, 1), settings, identity).await;
        let config = kube::Config::new(server.url.parse().unwrap());
        let api = ApiClient::of(kube::Client::try_from(config).unwrap());
        let (memory, start) = (Remembered::default(), Instant::now());
        Self { requests, server, reach, api, memory, start, _root: root }
    }

    /// How often EC2 and Auto Scaling were asked.
    fn calls(&self) -> (usize, usize) {
        let (ec2, autoscaling): (Vec<_>, Vec<_>) = self
            .server
            .seen()
            .into_iter()
            .filter(|asked| asked.path == "/")
            .partition(|asked| asked.field("Action") == "DescribeInstances");
        (ec2.len(), autoscaling.len())
    }

    /// A look, so many seconds after the start; what it asked of EC2 and Auto Scaling.
    async fn look(&mut self, seconds: u64) -> (EnrolmentObservation, (usize, usize)) {
        let before = self.calls();
        let now = self.start + Duration::from_secs(seconds);
        let seen = all(&self.reach, &mut self.memory, &self.api, now).await;
        let after = self.calls();
        (seen, (after.0 - before.0, after.1 - before.1))
    }
}

#[tokio::test]
async fn a_refused_request_costs_few_calls_an_hour_and_nothing_old_is_ever_told_of_it() {
    let mut rig = Rig::new().await;
    *rig.requests.lock().unwrap() = vec![request("refused", None)];
    let (seen, asked) = rig.look(0).await;
    assert_eq!((asked, seen.resting.len()), ((1, 2), 0), "{seen:?}");
    *rig.requests.lock().unwrap() = vec![request("refused", Some("no"))];
    for seconds in (10..=3600).step_by(10) {
        let (seen, asked) = rig.look(seconds).await;
        match asked {
            (0, 0) => {
                assert_eq!(seen.resting, ["refused".to_owned()].into());
                assert_eq!(seen.instances, Fact::Known([].into()));
                assert!(!seen.members.is_known());
            }
            (1, 2) => assert!(seen.resting.is_empty() && seen.members.is_known()),
            other => panic!("{other:?} after {seconds} s"),
        }
    }
    let (ec2, autoscaling) = rig.calls();
    assert!(ec2 <= 20 && autoscaling == 2 * ec2, "{ec2} calls to EC2, {autoscaling} to Auto Scaling");
}

#[tokio::test]
async fn a_new_request_beside_a_refused_one_is_asked_about_at_once_and_so_is_one_to_be_approved() {
    let mut rig = Rig::new().await;
    let refused = request("refused", Some("no"));
    *rig.requests.lock().unwrap() = vec![refused.clone()];
    assert_eq!(rig.look(0).await.1, (1, 2));
    assert_eq!(rig.look(1).await.1, (0, 0));
    *rig.requests.lock().unwrap() = vec![refused, request("new", None)];
    let (seen, asked) = rig.look(2).await;
    assert_eq!((asked, seen.resting), ((1, 2), ["refused".to_owned()].into()));
    // Until it is approved, or its reason is written on it.
    let (seen, asked) = rig.look(3).await;
    assert_eq!((asked, seen.resting), ((1, 2), ["refused".to_owned()].into()));
    let reference = crate::model::step::RequestRef { name: "refused".to_owned(), version: "1".to_owned() };
    rig.memory.planned(&Step::ApproveRequests { requests: vec![reference] });
    let (seen, asked) = rig.look(3).await;
    assert_eq!(
        (asked, seen.resting.len()),
        ((1, 2), 0),
        "a plan to approve it is made anew from new answers"
    );
}
