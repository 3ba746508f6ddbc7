//! Which permissions a call needs: actions, resources and condition keys, as IAM knows them.
//!
//! Source: "Actions, resources, and condition keys" of Amazon EC2, Amazon EC2 Auto Scaling, Elastic Load Balancing V2,
//! Elastic Load Balancing, Amazon S3 and Amazon CloudWatch, in the Service Authorization Reference.

use std::collections::BTreeMap;

use super::query::Params;
use super::{Asked, cloudwatch, s3};
use crate::lab::region::world::{Needed, World};

type Context = BTreeMap<String, String>;

/// What a call needs, in the world as it is.
pub(super) fn needed(asked: &Asked, world: &World) -> Vec<Needed> {
    match asked {
        Asked::Ec2(params) => ec2(params, world),
        Asked::Autoscaling(params) => autoscaling(params, world),
        Asked::NetworkBalancers(params) => network(params, world),
        Asked::ClassicBalancers(params) => classic(params, world),
        Asked::S3(request) => vec![object(request)],
        Asked::CloudWatch(request) => {
            let namespace = ("cloudwatch:namespace".to_owned(), request.resource());
            let action = format!("cloudwatch:{}", cloudwatch::MetricRequest::operation());
            vec![one(action, "*", Context::from([namespace]))]
        }
    }
}

fn one(action: String, resource: impl Into<String>, context: Context) -> Needed {
    Needed { action, resource: resource.into(), context }
}

/// An action that has no resources.
fn everywhere(action: String) -> Vec<Needed> {
    vec![one(action, "*", Context::new())]
}

/// Tags as condition keys: under the global name, and under the service's own where it has one.
fn tagged(kind: &str, services: &[&str], tags: &BTreeMap<String, String>) -> Context {
    let names = ["aws"].iter().chain(services);
    names.flat_map(|name| tags.iter().map(move |(k, v)| (format!("{name}:{kind}/{k}"), v.clone()))).collect()
}

fn arn(world: &World, service: &str, rest: &str) -> String {
    format!("arn:aws:{service}:{}:{}:{rest}", world.config().region, world.config().account)
}

fn ec2(params: &Params, world: &World) -> Vec<Needed> {
    let action = format!("ec2:{}", params.action());
    let volume = |id: &str| {
        let found = world.view().volumes.values().find(|volume| volume.id.as_str() == id);
        let tags = found.map(|volume| tagged("ResourceTag", &["ec2"], &volume.spec.tags));
        (arn(world, "ec2", &format!("volume/{id}")), tags.unwrap_or_default())
    };
    let instance = |id: &str| {
        let found = world.view().instances.values().find(|instance| instance.id.as_str() == id);
        let tags = found.map(|instance| tagged("ResourceTag", &["ec2"], &instance.tags));
        (arn(world, "ec2", &format!("instance/{id}")), tags.unwrap_or_default())
    };
    let resource = |id: &str| if id.starts_with("vol-") { volume(id) } else { instance(id) };
    match params.action() {
        "AttachVolume" | "DetachVolume" => ["VolumeId", "InstanceId"]
            .into_iter()
            .filter_map(|name| params.get(name))
            .map(|id| {
                let (arn, context) = resource(id);
                one(action.clone(), arn, context)
            })
            .collect(),
        "CreateTags" => {
            let asked = tagged("RequestTag", &[], &params.tags("Tag"));
            let ids = params.list("ResourceId");
            let each = ids.iter().map(|id| {
                let (arn, mut context) = resource(id);
                context.extend(asked.clone());
                one(action.clone(), arn, context)
            });
            each.collect()
        }
        "CreateVolume" => {
            let tags = (1..)
                .map_while(|n| {
                    params.get(&format!("TagSpecification.{n}.ResourceType"))?;
                    Some(params.tags(&format!("TagSpecification.{n}.Tag")))
                })
                .flatten()
                .collect();
            let mut context = tagged("RequestTag", &[], &tags);
            // It has no id yet.
            let resource = arn(world, "ec2", "volume/*");
            let created = one(action, resource.clone(), context.clone());
            context.insert("ec2:CreateAction".to_owned(), "CreateVolume".to_owned());
            vec![created, one("ec2:CreateTags".to_owned(), resource, context)]
        }
        _ => everywhere(action),
    }
}

fn autoscaling(params: &Params, world: &World) -> Vec<Needed> {
    let action = format!("autoscaling:{}", params.action());
    if params.action().starts_with("Describe") {
        return everywhere(action);
    }
    let of_instance = |id: &str| {
        let found = world.view().instances.values().find(|instance| instance.id.as_str() == id)?;
        found.group.clone()
    };
    let named = params.get("AutoScalingGroupName").map(str::to_owned);
    let name = named.or_else(|| params.get("InstanceId").and_then(of_instance)).unwrap_or_default();
    let (arn, context) = match world.view().groups.get(&name) {
        Some(group) => (group.arn.clone(), tagged("ResourceTag", &["autoscaling"], &group.spec.tags)),
        None => (
            arn(world, "autoscaling", &format!("autoScalingGroup::autoScalingGroupName/{name}")),
            Context::new(),
        ),
    };
    vec![one(action, arn, context)]
}

fn network(params: &Params, world: &World) -> Vec<Needed> {
    let action = format!("elasticloadbalancing:{}", params.action());
    match params.get("TargetGroupArn") {
        Some(arn) if !params.action().starts_with("Describe") => {
            vec![one(action, arn, pool_tags(world, arn))]
        }
        _ => everywhere(action),
    }
}

fn classic(params: &Params, world: &World) -> Vec<Needed> {
    let action = format!("elasticloadbalancing:{}", params.action());
    match params.get("LoadBalancerName") {
        Some(name) if !params.action().starts_with("Describe") => {
            let arn = arn(world, "elasticloadbalancing", &format!("loadbalancer/{name}"));
            let tags = pool_tags(world, &arn);
            vec![one(action, arn, tags)]
        }
        _ => everywhere(action),
    }
}

fn pool_tags(world: &World, key: &str) -> Context {
    let pool = world.view().pools.get(key);
    pool.map(|pool| tagged("ResourceTag", &["elasticloadbalancing"], &pool.spec.tags)).unwrap_or_default()
}

/// Source: "Required permissions for Amazon S3 API operations", Amazon S3 user guide.
fn object(request: &s3::ObjectRequest) -> Needed {
    let (bucket, key) = (request.bucket(), request.key());
    let action = match request.operation() {
        "GetObject" | "HeadObject" => "GetObject",
        "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => "PutObject",
        "ListObjectsV2" => "ListBucket",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        "GetBucketEncryption" => "GetEncryptionConfiguration",
        "GetPublicAccessBlock" => "GetBucketPublicAccessBlock",
        "GetBucketLifecycleConfiguration" => "GetLifecycleConfiguration",
        other => other,
    };
    let action = format!("s3:{action}");
    if key.is_empty() {
        let prefix = request.prefix().map(|prefix| ("s3:prefix".to_owned(), prefix.to_owned()));
        one(action, format!("arn:aws:s3:::{bucket}"), prefix.into_iter().collect())
    } else {
        one(action, format!("arn:aws:s3:::{bucket}/{key}"), Context::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::region::world::{VolumeSpec, WorldConfig};

    fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn attaching_asks_of_the_volume_and_of_the_instance_each_with_its_own_tags() {
        let mut world = World::new(WorldConfig::default(), 0);
        let zone = world.config().zones[0].clone();
        let spec = VolumeSpec { zone, tags: tags(&[("quorate:cluster", "demo")]), ..VolumeSpec::default() };
        let volume = world.create_volume(spec, None).unwrap();
        let id = volume.to_string();
        let params = Params::of(&[
            ("Action", "AttachVolume"),
            ("VolumeId", &id),
            ("InstanceId", "i-0123456789abcdef0"),
        ]);
        let [of_volume, of_instance] = &ec2(&params, &world)[..] else { panic!("two questions") };
        assert_eq!(of_volume.action, "ec2:AttachVolume");
        assert_eq!(of_volume.resource, format!("arn:aws:ec2:eu-west-1:123456789012:volume/{id}"));
        assert_eq!(of_volume.context["aws:ResourceTag/quorate:cluster"], "demo");
        assert_eq!(of_instance.resource, "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0");
        // An instance that nobody knows has no tags, and is refused by a policy that asks for one.
        assert_eq!(of_instance.context, Context::new());
    }

    #[test]
    fn creating_a_volume_with_tags_asks_for_tagging_too() {
        let world = World::new(WorldConfig::default(), 0);
        let params = Params::of(&[
            ("Action", "CreateVolume"),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "quorate:cluster"),
            ("TagSpecification.1.Tag.1.Value", "demo"),
        ]);
        let needed = ec2(&params, &world);
        let actions: Vec<&str> = needed.iter().map(|one| one.action.as_str()).collect();
        assert_eq!(actions, ["ec2:CreateVolume", "ec2:CreateTags"]);
        assert!(needed.iter().all(|one| one.context["aws:RequestTag/quorate:cluster"] == "demo"));
    }
}
