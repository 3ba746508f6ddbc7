//! Classic load balancers (API version 2012-06-01).

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancing::Client;
use aws_sdk_elasticloadbalancing::types::{Instance, Listener, ListenerDescription, LoadBalancerDescription};

use super::super::Cause;
use super::super::pages::{self, Page};
use super::{Asked, LoadBalancerError, NO_LOAD_BALANCER, PAGE, TAGGED, is_dns_name, number};
use crate::model::tags;
use crate::model::{
    ClusterName, FoundLoadBalancers, HealthCheck, LoadBalancer, LoadBalancerKind, Scheme, Target,
    TargetHealth, TargetId, Unfit, UnfitLoadBalancer,
};

type Answer<T> = Result<T, LoadBalancerError>;

#[derive(Debug, Clone)]
pub(super) struct Classic {
    client: Client,
}

impl Classic {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) async fn by_name(&self, names: &[String]) -> Answer<FoundLoadBalancers> {
        let mut found = FoundLoadBalancers::default();
        let mut described = Vec::new();
        // One by one: of many, AWS does not say which is not there.
        for name in names {
            let found_by_it = self.named(name).await?;
            if found_by_it.is_empty() {
                found.unfit.push(UnfitLoadBalancer { what: name.clone(), why: Unfit::NotThere });
            }
            described.extend(found_by_it);
        }
        self.resolve(described, found).await
    }

    pub(super) async fn by_either_name(&self, name: &str) -> Answer<FoundLoadBalancers> {
        // A load balancer's name has no dots.
        let described = if name.contains('.') {
            let mut all = self.describe(None).await?;
            all.retain(|lb| is_dns_name(lb.dns_name(), name));
            all
        } else {
            self.named(name).await?
        };
        self.resolve(described, FoundLoadBalancers::default()).await
    }

    pub(super) async fn by_tag(&self, cluster: &ClusterName) -> Answer<FoundLoadBalancers> {
        let mut described = self.describe(None).await?;
        let names: Vec<String> =
            described.iter().filter_map(|lb| lb.load_balancer_name().map(str::to_owned)).collect();
        let mut tagged = BTreeSet::new();
        for names in names.chunks(TAGGED) {
            tagged.extend(self.tagged_of(names, cluster).await?);
        }
        described.retain(|lb| lb.load_balancer_name().is_some_and(|name| tagged.contains(name)));
        self.resolve(described, FoundLoadBalancers::default()).await
    }

    /// The one of this name, or none.
    async fn named(&self, name: &str) -> Answer<Vec<LoadBalancerDescription>> {
        match self.describe(Some(name)).await {
            Err(error) if error.code() == Some(NO_LOAD_BALANCER) => Ok(Vec::new()),
            answer => answer,
        }
    }

    async fn describe(&self, name: Option<&str>) -> Answer<Vec<LoadBalancerDescription>> {
        let request = self.client.describe_load_balancers();
        let (what, request) = match name {
            Some(name) => (name.to_owned(), request.load_balancer_names(name)),
            None => ("the region".to_owned(), request.page_size(PAGE)),
        };
        let call = Asked { operation: "DescribeLoadBalancers", what };
        let all = pages::all(|token| {
            let page = request.clone().set_marker(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.load_balancer_descriptions, next: page.next_marker })
            }
        });
        all.await.map_err(|broken| call.broken(broken))
    }

    async fn tagged_of(&self, names: &[String], cluster: &ClusterName) -> Answer<Vec<String>> {
        let call = Asked { operation: "DescribeTags", what: names.join(", ") };
        let answer = self.client.describe_tags().set_load_balancer_names(Some(names.to_vec())).send().await;
        let answer = match answer.map_err(|error| call.failed(Cause::new(&error))) {
            Ok(answer) => answer,
            // One of many went away since it was listed: the others are asked for singly.
            Err(error) if error.is_not_there() => {
                if let [_] = names {
                    return Ok(Vec::new());
                }
                let mut tagged = Vec::new();
                for name in names {
                    tagged.extend(Box::pin(self.tagged_of(std::slice::from_ref(name), cluster)).await?);
                }
                return Ok(tagged);
            }
            Err(error) => return Err(error),
        };
        let mut tagged = Vec::new();
        for name in names {
            let mut descriptions = answer.tag_descriptions().iter();
            let description = descriptions.find(|d| d.load_balancer_name() == Some(name));
            let description = call.required(description, &format!("word of {name}"))?;
            if description
                .tags()
                .iter()
                .any(|tag| tag.key() == tags::CLUSTER && tag.value() == Some(cluster.as_str()))
            {
                tagged.push(name.clone());
            }
        }
        Ok(tagged)
    }

    async fn resolve(
        &self,
        described: Vec<LoadBalancerDescription>,
        mut found: FoundLoadBalancers,
    ) -> Answer<FoundLoadBalancers> {
        for lb in described {
            let call = Asked {
                operation: "DescribeLoadBalancers",
                what: lb.load_balancer_name().unwrap_or_default().to_owned(),
            };
            let listeners = lb.listener_descriptions();
            let listeners: Vec<&Listener> =
                listeners.iter().filter_map(ListenerDescription::listener).collect();
            let plain: Vec<&Listener> = listeners.iter().copied().filter(|l| is_tcp(l)).collect();
            if plain.is_empty() {
                let why = if listeners.is_empty() { Unfit::NoListener } else { Unfit::NotTcp };
                found.unfit.push(UnfitLoadBalancer { what: call.what, why });
                continue;
            }
            let delay = match self.deregistration_delay(&call.what).await {
                Err(error) if error.code() == Some(NO_LOAD_BALANCER) => {
                    found.unfit.push(UnfitLoadBalancer { what: call.what, why: Unfit::NotThere });
                    continue;
                }
                answer => answer?,
            };
            for listener in plain {
                found.fit.push(decoded(&call, &lb, listener, delay)?);
            }
        }
        Ok(found)
    }

    /// Connection draining, as it is called here; 0 when it is off.
    async fn deregistration_delay(&self, name: &str) -> Answer<u32> {
        let call = Asked { operation: "DescribeLoadBalancerAttributes", what: name.to_owned() };
        let answer = self.client.describe_load_balancer_attributes().load_balancer_name(name).send().await;
        let answer = answer.map_err(|error| call.failed(Cause::new(&error)))?;
        let attributes = call.required(answer.load_balancer_attributes(), "attributes")?;
        let draining = attributes.connection_draining().filter(|draining| draining.enabled());
        // AWS's default is 300 seconds.
        Ok(draining.map_or(0, |draining| draining.timeout().map_or(300, number)))
    }

    /// The targets: all, or one.
    pub(super) async fn targets(&self, of: &LoadBalancer, one: Option<&TargetId>) -> Answer<Vec<Target>> {
        let call = Asked { operation: "DescribeInstanceHealth", what: of_target(of, one) };
        let wanted = one.map(|target| vec![instance(target)]);
        let request = self.client.describe_instance_health().load_balancer_name(&of.name);
        let answer = request.set_instances(wanted).send().await;
        let answer = answer.map_err(|error| call.failed(Cause::new(&error)))?;
        let mut targets = Vec::new();
        for described in call.required(answer.instance_states, "list of instances")? {
            let id = call.required(described.instance_id(), "instance's id")?;
            let state = call.required(described.state(), "state")?;
            let text = described.description().unwrap_or_default();
            let reason = || text.to_owned();
            // What is only underway has no state of its own, but constant words.
            // Source: InstanceState, API reference 2012-06-01.
            let health = match state {
                "InService" if text.contains("deregistration currently in progress") => {
                    TargetHealth::Draining
                }
                "InService" => TargetHealth::Healthy,
                "OutOfService" if text.contains("registration is still in progress") => TargetHealth::Initial,
                "OutOfService" if text.contains("not currently registered") => TargetHealth::NotRegistered,
                "OutOfService" => TargetHealth::Unhealthy { reason: reason() },
                other => TargetHealth::Unavailable { reason: format!("{other} {text}") },
            };
            targets.push(Target { id: id.into(), port: of.target_port, health });
        }
        Ok(targets)
    }

    pub(super) async fn register(&self, with: &LoadBalancer, target: &TargetId) -> Answer<()> {
        let call =
            Asked { operation: "RegisterInstancesWithLoadBalancer", what: of_target(with, Some(target)) };
        let request = self.client.register_instances_with_load_balancer().load_balancer_name(&with.name);
        let answer = request.instances(instance(target)).send().await;
        answer.map(drop).map_err(|error| call.failed(Cause::new(&error)))
    }

    pub(super) async fn deregister(&self, from: &LoadBalancer, target: &TargetId) -> Answer<()> {
        let call =
            Asked { operation: "DeregisterInstancesFromLoadBalancer", what: of_target(from, Some(target)) };
        let request = self.client.deregister_instances_from_load_balancer().load_balancer_name(&from.name);
        let answer = request.instances(instance(target)).send().await;
        answer.map(drop).map_err(|error| call.failed(Cause::new(&error)))
    }
}

fn of_target(lb: &LoadBalancer, one: Option<&TargetId>) -> String {
    match one {
        Some(target) => format!("{target} in {}", lb.name),
        None => lb.name.clone(),
    }
}

fn instance(target: &TargetId) -> Instance {
    Instance::builder().instance_id(target.to_string()).build()
}

fn is_tcp(listener: &Listener) -> bool {
    let tcp = |protocol: &str| protocol.eq_ignore_ascii_case("tcp");
    tcp(listener.protocol()) && listener.instance_protocol().is_none_or(tcp)
}

fn decoded(
    call: &Asked,
    lb: &LoadBalancerDescription,
    listener: &Listener,
    deregistration_delay_s: u32,
) -> Answer<LoadBalancer> {
    let check = call.required(lb.health_check(), "health check")?;
    // PROTOCOL:PORT or PROTOCOL:PORT/PATH.
    let unclear = || call.malformed(format!("health check {:?}", check.target()));
    let (protocol, rest) = check.target().split_once(':').ok_or_else(unclear)?;
    let (port, path) = match rest.split_once('/') {
        Some((port, path)) => (port, Some(format!("/{path}"))),
        None => (rest, None),
    };
    Ok(LoadBalancer {
        name: call.what.clone(),
        kind: LoadBalancerKind::Classic,
        dns_name: call.required(lb.dns_name(), "DNS name")?.to_owned(),
        port: call.port(Some(listener.load_balancer_port()))?,
        target_port: call.port(Some(listener.instance_port()))?,
        scheme: match lb.scheme() {
            Some("internal") => Scheme::Internal,
            _ => Scheme::InternetFacing,
        },
        health_check: HealthCheck {
            protocol: protocol.to_ascii_uppercase(),
            path,
            port: Some(port.parse().map_err(|_| unclear())?),
            interval_s: number(check.interval()),
            unhealthy_threshold: number(check.unhealthy_threshold()),
        },
        deregistration_delay_s,
        // It ends connections and makes others of its own.
        preserves_client_address: false,
    })
}
