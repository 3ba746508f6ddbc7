//! The metadata service, which moto has none of: version 2 only, one an instance.

use std::time::Duration;

use aws_config::imds::Client;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_ec2::config::ProvideCredentials;
use quorate::lab::region::{
    GroupSpec, ImdsFaults, InstanceSpec, MaintenanceSpec, Region, RegionConfig, SpotAction,
};

use super::endpoints::{Endpoints, SOON, ZONES, config, s3_client, tags};
use super::http;

const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "X-aws-ec2-metadata-token";

fn address(region: &Region, id: &str) -> String {
    region.with(|w| w.view().instances[id].imds).unwrap().to_string()
}

async fn token(address: &str) -> String {
    let (status, token) = http::ask("PUT", address, "/latest/api/token", &[(TTL, "60")], "").await.unwrap();
    assert_eq!(status, 200);
    token
}

async fn get(address: &str, token: &str, path: &str) -> (u16, String) {
    http::ask("GET", address, &["/latest/", path].concat(), &[(TOKEN, token)], "").await.unwrap()
}

fn sdk(address: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let provider = ProviderConfig::default().with_http_client(http);
    Client::builder()
        .configure(&provider)
        .endpoint(format!("http://{address}"))
        .unwrap()
        .max_attempts(1)
        .connect_timeout(Duration::from_secs(1))
        .read_timeout(Duration::from_secs(5))
        .build()
}

#[tokio::test]
async fn an_instance_learns_from_it_who_it_is() {
    let e = Endpoints::simulated().await;
    let region = e.region();
    let template = InstanceSpec {
        metadata_tags: true,
        user_data: Some("#cloud-config\n".into()),
        ..InstanceSpec::default()
    };
    let spec = GroupSpec {
        name: "g".into(),
        desired: 1,
        tags: tags(&[("quorate:cluster", "c1")]),
        template,
        ..GroupSpec::default()
    };
    region.change(|w| w.create_group(spec)).unwrap();
    let instance = region.with(|w| w.view().instances.values().next().cloned()).unwrap();
    let client = sdk(&instance.imds.unwrap().to_string());
    let get = |path: &'static str| {
        let client = client.clone();
        async move { String::from(client.get(["/latest/", path].concat()).await.unwrap()) }
    };
    assert_eq!(get("meta-data/instance-id").await, instance.id.as_str());
    assert_eq!(get("meta-data/instance-type").await, "t3.medium");
    assert_eq!(get("meta-data/local-ipv4").await, "127.100.1.1");
    assert_eq!(get("meta-data/mac").await, "02:00:7f:64:01:01");
    assert_eq!(get("meta-data/placement/availability-zone").await, ZONES[0]);
    assert_eq!(get("meta-data/placement/region").await, "eu-west-1");
    assert_eq!(get("meta-data/local-hostname").await, "ip-127-100-1-1.eu-west-1.compute.internal");
    assert_eq!(get("meta-data/tags/instance/").await, "aws:autoscaling:groupName\nquorate:cluster");
    assert_eq!(get("meta-data/tags/instance/quorate:cluster").await, "c1");
    assert_eq!(get("meta-data/autoscaling/target-lifecycle-state").await, "InService");
    assert_eq!(get("user-data").await, "#cloud-config\n");
    let document: serde_json::Value =
        serde_json::from_str(&get("dynamic/instance-identity/document").await).unwrap();
    assert_eq!(document["instanceId"], instance.id.as_str());
    assert_eq!(document["region"], "eu-west-1");
    assert_eq!(document["availabilityZone"], ZONES[0]);
    assert_eq!(document["privateIp"], "127.100.1.1");
    assert_eq!(document["instanceType"], "t3.medium");
}

#[tokio::test]
async fn the_sdk_signs_with_the_credentials_it_hands_out_and_the_region_knows_the_caller() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let provider = aws_config::imds::credentials::ImdsCredentialsProvider::builder()
        .imds_client(sdk(&address(e.region(), &id)))
        .build();
    let credentials = provider.provide_credentials().await.unwrap();
    assert!(credentials.session_token().is_some() && credentials.expiry().is_some());
    let own = s3_client(&config(&e.region().endpoints().aws, credentials.access_key_id()));
    own.list_objects_v2().bucket("b").send().await.unwrap();
    let last = e.region().with(|w| w.calls_after(0).pop()).unwrap();
    assert_eq!((last.instance, last.operation.as_str()), (Some(id), "ListObjectsV2"));
}

#[tokio::test]
async fn what_is_not_set_is_404_and_a_request_without_a_valid_token_is_401() {
    let e = Endpoints::simulated().await;
    let id = e.instance(ZONES[0], &tags(&[("k", "v")])).await;
    let other = e.instance(ZONES[0], &tags(&[])).await;
    let address = address(e.region(), &id);
    let valid = token(&address).await;
    for path in [
        "meta-data/tags/instance/",
        "meta-data/tags/instance/k",
        "meta-data/autoscaling/target-lifecycle-state",
        "meta-data/spot/instance-action",
        "meta-data/events/recommendations/rebalance",
        "meta-data/no-such-thing",
        "user-data",
    ] {
        assert_eq!(get(&address, &valid, path).await.0, 404, "{path}");
    }
    assert_eq!(get(&address, &valid, "meta-data/events/maintenance/scheduled").await, (200, "[]".into()));
    let path = "meta-data/instance-id";
    assert_eq!(get(&address, &valid, path).await, (200, id.clone()));
    assert_eq!(get(&address, "wrong", path).await.0, 401);
    let foreign = token(&super::metadata::address(e.region(), &other)).await;
    assert_eq!(get(&address, &foreign, path).await.0, 401, "another instance's token");
    let (status, _) = http::ask("GET", &address, "/latest/meta-data/instance-id", &[], "").await.unwrap();
    assert_eq!(status, 401, "version 1 is off");
    let (status, _) = http::ask("PUT", &address, "/latest/api/token", &[], "").await.unwrap();
    assert_eq!(status, 400, "a token needs a time to live");
    e.region().change(|w| w.expire_metadata_tokens(&id));
    assert_eq!(get(&address, &valid, path).await.0, 401);
    assert_eq!(get(&address, &token(&address).await, path).await.0, 200);
    e.region().set_clock_offset(61_000);
    assert_eq!(get(&address, &valid, path).await.0, 401, "tokens expire by themselves");
}

#[tokio::test]
async fn it_may_be_absent_late_slow_or_answer_with_any_status() {
    let e = Endpoints::simulated().await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let address = address(e.region(), &id);
    let set = |faults: ImdsFaults| e.region().change(|w| w.set_imds_faults(&id, &faults)).unwrap();
    let ask = || http::ask("PUT", &address, "/latest/api/token", &[(TTL, "60")], "");
    for status in [401, 403, 404, 500, 503] {
        set(ImdsFaults { status: Some(status), ..ImdsFaults::default() });
        assert_eq!(ask().await.unwrap().0, status);
    }
    set(ImdsFaults { slow_ms: 300, ..ImdsFaults::default() });
    let asked = tokio::time::Instant::now();
    assert_eq!(ask().await.unwrap().0, 200);
    assert!(asked.elapsed() >= Duration::from_millis(300));

    set(ImdsFaults { absent: true, ..ImdsFaults::default() });
    assert!(ask().await.is_err());
    set(ImdsFaults { late_ms: 600_000, ..ImdsFaults::default() });
    assert!(ask().await.is_err());
    e.region().set_clock_offset(600_001);
    let answers = async {
        while ask().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, answers).await.expect("it comes up when it is late no longer");
}

#[tokio::test]
async fn it_dies_with_its_machine_and_a_successor_may_have_the_address() {
    let mut config = RegionConfig::default();
    config.world.reuse_addresses = true;
    config.world.address_base = 130;
    // A port that was free a moment ago; nobody else listens on these addresses.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config.imds = quorate::lab::region::ImdsPlacement::PrivateAddress(port);
    let e = Endpoints::simulated_with(config).await;
    let first = e.instance(ZONES[1], &tags(&[])).await;
    let at = address(e.region(), &first);
    assert_eq!(at, format!("127.130.2.1:{port}"));
    assert_eq!(get(&at, &token(&at).await, "meta-data/instance-id").await.1, first);
    e.region().change(|w| w.kill_instance(&first)).unwrap();
    assert!(http::ask("PUT", &at, "/latest/api/token", &[(TTL, "60")], "").await.is_err());
    e.terminate(&first).await;
    let second = e.instance(ZONES[1], &tags(&[])).await;
    assert_eq!(address(e.region(), &second), at);
    let up = async {
        while http::ask("PUT", &at, "/latest/api/token", &[(TTL, "60")], "").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, up).await.expect("the successor's service comes up");
    assert_eq!(get(&at, &token(&at).await, "meta-data/instance-id").await.1, second);
}

#[tokio::test]
async fn an_instance_is_told_of_its_end_before_it_comes() {
    let e = Endpoints::simulated().await;
    let region = e.region();
    let spec = InstanceSpec { zone: ZONES[0].into(), spot: true, ..InstanceSpec::default() };
    let id = region.change(|w| w.run_instance(spec)).unwrap().to_string();
    let address = address(region, &id);
    let token = token(&address).await;
    let get = |path: &'static str| get(&address, &token, path);
    assert_eq!(get("meta-data/spot/instance-action").await.0, 404);
    assert_eq!(get("meta-data/events/recommendations/rebalance").await.0, 404);
    assert_eq!(get("meta-data/events/maintenance/scheduled").await, (200, "[]".into()));
    region.change(|w| w.recommend_rebalance(&id)).unwrap();
    let event = MaintenanceSpec { in_ms: 600_000, ..MaintenanceSpec::default() };
    let event = region.change(|w| w.schedule_maintenance(&id, &event)).unwrap();
    region.change(|w| w.interrupt_spot(&id, SpotAction::Terminate, 600_000)).unwrap();
    let read = |(status, body): (u16, String)| -> serde_json::Value {
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    };
    let action = read(get("meta-data/spot/instance-action").await);
    assert_eq!(action["action"], "terminate");
    assert_eq!(get("meta-data/spot/termination-time").await.1, action["time"].as_str().unwrap());
    assert!(read(get("meta-data/events/recommendations/rebalance").await)["noticeTime"].is_string());
    assert_eq!(read(get("meta-data/events/maintenance/scheduled").await)[0]["EventId"], event.as_str());
}
