//! Where a suite runs: the simulated region or moto, each set up in its own way.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use aws_sdk_autoscaling::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_ec2::types::{InstanceType, Placement, ResourceType, Tag, TagSpecification};
use quorate::lab::region::{
    BalancerKind, BalancerSpec, GroupSpec, HookResult, HookSpec, InstanceSpec, InstanceState, Region,
    RegionConfig, Transition, World, WorldConfig,
};
use quorate::lab::settings::Addresses;
use tokio::process::{Child, Command};

use super::http;

pub const REGION: &str = "eu-west-1";
pub const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];
pub const OPERATOR: &str = "AKIAOPERATOR00000000";
pub const SOON: Duration = Duration::from_secs(20);

/// Clients that ask once and never retry, so that each answer is seen.
pub fn config(url: &str, access_key: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(AwsRegion::new(REGION))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            access_key, "secret", None, None, "test",
        )))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

pub fn s3_client(config: &SdkConfig) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}

/// What a suite runs against.
pub struct Endpoints {
    pub ec2: aws_sdk_ec2::Client,
    pub s3: aws_sdk_s3::Client,
    pub autoscaling: aws_sdk_autoscaling::Client,
    pub elbv2: aws_sdk_elasticloadbalancingv2::Client,
    elb: aws_sdk_elasticloadbalancing::Client,
    url: String,
    region: Option<Region>,
    addresses: Option<Addresses>,
    _moto: Option<Child>,
}

pub fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

impl Endpoints {
    fn new(url: &str, region: Option<Region>, moto: Option<Child>) -> Self {
        let config = config(url, OPERATOR);
        Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            s3: s3_client(&config),
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            elbv2: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            elb: aws_sdk_elasticloadbalancing::Client::new(&config),
            url: url.to_owned(),
            region,
            addresses: None,
            _moto: moto,
        }
    }

    pub async fn simulated() -> Self {
        Self::simulated_with(RegionConfig::default()).await
    }

    pub async fn simulated_with(config: RegionConfig) -> Self {
        let region = Region::start(config).await.unwrap();
        let url = region.endpoints().aws.clone();
        Self::new(&url, Some(region), None)
    }

    /// A region whose addresses no other test uses: load balancers listen at theirs.
    pub async fn simulated_apart() -> Self {
        let addresses = Addresses::reserve().unwrap();
        let world = WorldConfig { address_base: addresses.base, ..WorldConfig::default() };
        let apart = Self::simulated_with(RegionConfig { world, ..RegionConfig::default() }).await;
        Self { addresses: Some(addresses), ..apart }
    }

    /// The agent's own clients.
    pub async fn agents(&self) -> quorate::aws::Clients {
        self.agents_of("b").await
    }

    /// The agent's own object store, in a new bucket.
    pub async fn store(&self, bucket: &str) -> quorate::aws::ObjectStore {
        self.bucket(bucket).await;
        self.agents_of(bucket).await.objects
    }

    async fn agents_of(&self, bucket: &str) -> quorate::aws::Clients {
        let access = quorate::aws::Access::to(quorate::aws::Endpoints {
            apis: self.url.clone(),
            metadata: self.url.clone(),
            credentials: Credentials::new(OPERATOR, "secret", None, None, "test"),
            attempts: 1,
            attempt: SOON,
        });
        let store = quorate::aws::StoreLocation {
            bucket: bucket.into(),
            prefix: String::new(),
            cluster: "c1".parse().unwrap(),
            kms_key: None,
        };
        access.unwrap().clients(&REGION.parse().unwrap(), quorate::model::Role::ControlPlane, store).await
    }

    /// A load balancer that listens at 443, and checks 6443 by HTTPS `/readyz`. The answer is its
    /// pool: a network one's target group, a classic one's name (its key, in the region).
    pub async fn balancer(&self, spec: BalancerSpec) -> String {
        let (name, kind) = (spec.name.clone(), spec.kind);
        let Some(region) = &self.region else {
            return match kind {
                BalancerKind::Network => self.moto_network(&spec).await,
                BalancerKind::Classic => self.moto_classic(&spec).await,
            };
        };
        assert!(self.addresses.is_some(), "a region with load balancers is apart");
        let pool = region.change(|w| w.create_balancer(spec)).unwrap();
        assert!(region.wait_until(SOON, |w| w.view().balancers[&name].active).await);
        pool
    }

    async fn moto_network(&self, spec: &BalancerSpec) -> String {
        use aws_sdk_elasticloadbalancingv2::types::{
            Action, ActionTypeEnum, LoadBalancerSchemeEnum, LoadBalancerTypeEnum, ProtocolEnum, Tag,
            TargetGroupAttribute,
        };
        let tags = |tags: &BTreeMap<String, String>| {
            let tag = |(k, v): (&String, &String)| Tag::builder().key(k).value(v).build();
            (!tags.is_empty()).then(|| tags.iter().map(tag).collect::<Vec<_>>())
        };
        let subnets = self.ec2.describe_subnets().send().await.unwrap();
        let subnet = subnets.subnets()[0].subnet_id().unwrap();
        let lb = self.elbv2.create_load_balancer().name(&spec.name).r#type(LoadBalancerTypeEnum::Network);
        let lb = lb.scheme(LoadBalancerSchemeEnum::Internal).subnets(subnet).set_tags(tags(&spec.tags));
        let lb = lb.send().await.unwrap().load_balancers()[0].load_balancer_arn().unwrap().to_owned();
        let group = self.elbv2.create_target_group().name(&spec.name).protocol(ProtocolEnum::Tcp);
        let group = group.port(6443).vpc_id(subnets.subnets()[0].vpc_id().unwrap());
        let group = group.health_check_protocol(ProtocolEnum::Https).health_check_path("/readyz");
        let group = group.health_check_interval_seconds(10).unhealthy_threshold_count(2);
        let group = group.set_tags(tags(&spec.pool.tags)).send().await.unwrap();
        let group = group.target_groups()[0].target_group_arn().unwrap().to_owned();
        let attribute =
            |key: &str, value: &str| TargetGroupAttribute::builder().key(key).value(value).build();
        let change = self.elbv2.modify_target_group_attributes().target_group_arn(&group);
        let delay = spec.pool.deregistration_delay_ms / 1000;
        let change = change.attributes(attribute("deregistration_delay.timeout_seconds", &delay.to_string()));
        let keeps = spec.pool.preserve_client_ip.to_string();
        change.attributes(attribute("preserve_client_ip.enabled", &keeps)).send().await.unwrap();
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(&group).build();
        let listener = self.elbv2.create_listener().load_balancer_arn(&lb).protocol(ProtocolEnum::Tcp);
        listener.port(443).default_actions(forward).send().await.unwrap();
        group
    }

    async fn moto_classic(&self, spec: &BalancerSpec) -> String {
        use aws_sdk_elasticloadbalancing::types::{
            ConnectionDraining, HealthCheck, Listener, LoadBalancerAttributes, Tag,
        };
        let listener = Listener::builder().protocol("TCP").load_balancer_port(443);
        let listener = listener.instance_protocol("TCP").instance_port(6443).build().unwrap();
        let tag = |(k, v): (&String, &String)| Tag::builder().key(k).value(v).build().unwrap();
        let tags: Vec<Tag> = spec.tags.iter().map(tag).collect();
        let lb = self.elb.create_load_balancer().load_balancer_name(&spec.name).listeners(listener);
        let lb = lb.scheme("internal").availability_zones(ZONES[0]);
        lb.set_tags((!tags.is_empty()).then_some(tags)).send().await.unwrap();
        let check = HealthCheck::builder().target("HTTPS:6443/readyz").interval(10).timeout(5);
        let check = check.healthy_threshold(2).unhealthy_threshold(2).build().unwrap();
        let change = self.elb.configure_health_check().load_balancer_name(&spec.name).health_check(check);
        change.send().await.unwrap();
        let delay = i32::try_from(spec.pool.deregistration_delay_ms / 1000).unwrap();
        let draining = ConnectionDraining::builder().enabled(true).timeout(delay).build();
        let attributes = LoadBalancerAttributes::builder().connection_draining(draining).build();
        let change = self.elb.modify_load_balancer_attributes().load_balancer_name(&spec.name);
        change.load_balancer_attributes(attributes).send().await.unwrap();
        spec.name.clone()
    }

    /// Has a group register its instances with a target group.
    pub async fn attach(&self, group: &str, target_group: &str) {
        if let Some(region) = &self.region {
            region.change(|w| w.attach_pool(group, target_group)).unwrap();
            return;
        }
        let attach = self.autoscaling.attach_load_balancer_target_groups().auto_scaling_group_name(group);
        attach.target_group_arns(target_group).send().await.unwrap();
    }

    /// Gives a group a lifecycle hook on the way out.
    pub async fn hook(&self, group: &str, name: &str, heartbeat_timeout_s: u64) {
        if let Some(region) = &self.region {
            let hook = HookSpec {
                name: name.into(),
                transition: Transition::Terminating,
                heartbeat_timeout_ms: heartbeat_timeout_s * 1000,
                default_result: HookResult::Continue,
            };
            region.change(|w| w.put_hook(group, hook)).unwrap();
            return;
        }
        self.autoscaling
            .put_lifecycle_hook()
            .auto_scaling_group_name(group)
            .lifecycle_hook_name(name)
            .lifecycle_transition("autoscaling:EC2_INSTANCE_TERMINATING")
            .heartbeat_timeout(i32::try_from(heartbeat_timeout_s).unwrap())
            .default_result("CONTINUE")
            .send()
            .await
            .unwrap();
    }

    /// Starts a moto of its own, which ends with this value.
    pub async fn moto() -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/moto/bin/moto_server");
        assert!(std::path::Path::new(program).exists(), "moto is missing: run scripts/install-tools moto");
        // A free port: moto can't be asked for "any". Another process may take it before moto does,
        // in which case moto ends at once and the wait below says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let ready = async {
            while http::ask("POST", &url, "/moto-api/reset", &[], "").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            ended = child.wait() => panic!("moto ended at once: {ended:?}"),
            ready = tokio::time::timeout(Duration::from_mins(1), ready) => ready.expect("moto answers in time"),
        }
        Self::new(&url, None, Some(child))
    }

    /// The simulated region, where a check is about nothing else.
    pub fn is_simulated(&self) -> bool {
        self.region.is_some()
    }

    pub fn region(&self) -> &Region {
        self.region.as_ref().expect("this check is for the simulated region")
    }

    /// Clients of an instance, by its role's credentials.
    pub fn config_of(&self, instance: &str) -> SdkConfig {
        let key = self.region().with(|w| {
            w.view().instances[instance].credentials.as_ref().map(|c| c.access_key.clone()).unwrap()
        });
        config(&self.region().endpoints().aws, &key)
    }

    /// A running instance.
    pub async fn instance(&self, zone: &str, tags: &BTreeMap<String, String>) -> String {
        if let Some(region) = &self.region {
            let spec = InstanceSpec { zone: zone.into(), tags: tags.clone(), ..InstanceSpec::default() };
            let id = region.change(|w| w.run_instance(spec)).unwrap().to_string();
            let running = |w: &World| w.view().instances[id.as_str()].state == InstanceState::Running;
            assert!(region.wait_until(SOON, running).await);
            return id;
        }
        let tag = |(k, v): (&String, &String)| Tag::builder().key(k).value(v).build();
        let mut run = self
            .ec2
            .run_instances()
            .image_id("ami-12345678")
            .instance_type(InstanceType::T3Medium)
            .placement(Placement::builder().availability_zone(zone).build())
            .min_count(1)
            .max_count(1);
        if !tags.is_empty() {
            let tags = TagSpecification::builder()
                .resource_type(ResourceType::Instance)
                .set_tags(Some(tags.iter().map(tag).collect()))
                .build();
            run = run.tag_specifications(tags);
        }
        run.send().await.unwrap().instances()[0].instance_id().unwrap().to_owned()
    }

    pub async fn terminate(&self, id: &str) {
        if let Some(region) = &self.region {
            region.change(|w| w.terminate_instance(id)).unwrap();
            let gone = |w: &World| w.view().instances[id].state == InstanceState::Terminated;
            assert!(region.wait_until(SOON, gone).await);
        } else {
            self.ec2.terminate_instances().instance_ids(id).send().await.unwrap();
        }
    }

    pub async fn bucket(&self, name: &str) {
        if let Some(region) = &self.region {
            region.change(|w| w.create_bucket(name));
            return;
        }
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuWest1)
            .build();
        self.s3.create_bucket().bucket(name).create_bucket_configuration(place).send().await.unwrap();
    }

    /// A group in one zone (moto puts any other into one zone as well), all in service.
    pub async fn group(&self, name: &str, desired: usize, tags: &BTreeMap<String, String>) {
        if let Some(region) = &self.region {
            let spec = GroupSpec {
                name: name.into(),
                desired,
                max: 10,
                zones: vec![ZONES[0].into()],
                tags: tags.clone(),
                ..GroupSpec::default()
            };
            region.change(|w| w.create_group(spec)).unwrap();
            let all_in = |w: &World| {
                World::members(w.view(), name).filter(|(_, l)| l.state.name() == "InService").count()
                    == desired
            };
            assert!(region.wait_until(SOON, all_in).await);
            return;
        }
        self.autoscaling
            .create_launch_configuration()
            .launch_configuration_name(name)
            .image_id("ami-12345678")
            .instance_type("t3.medium")
            .send()
            .await
            .unwrap();
        let tag = |(k, v): (&String, &String)| {
            aws_sdk_autoscaling::types::Tag::builder()
                .key(k)
                .value(v)
                .resource_id(name)
                .resource_type("auto-scaling-group")
                .propagate_at_launch(true)
                .build()
        };
        self.autoscaling
            .create_auto_scaling_group()
            .auto_scaling_group_name(name)
            .launch_configuration_name(name)
            .availability_zones(ZONES[0])
            .min_size(0)
            .max_size(10)
            .desired_capacity(i32::try_from(desired).unwrap())
            .set_tags(Some(tags.iter().map(tag).collect()))
            .send()
            .await
            .unwrap();
    }
}
