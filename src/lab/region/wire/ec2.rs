//! EC2's query API (version 2016-11-15), as far as the agent calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Answer;
use super::query::{Filter, Params};
use super::xml::Xml;
use crate::lab::region::clock;
use crate::lab::region::world::{
    Attachment, Instance, Refusal, TypeSpec, View, Volume, VolumeSpec, VolumeState, World,
};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// What a call is about, for the record.
pub(super) fn resource(params: &Params) -> String {
    let mut ids: Vec<String> = ["VolumeId", "InstanceId", "ResourceId"]
        .iter()
        .flat_map(|name| params.get(name).map(str::to_owned).into_iter().chain(params.list(name)))
        .collect();
    ids.extend(params.get("ClientToken").map(|t| format!("token:{t}")));
    ids.join(",")
}

/// EC2's form of an error.
pub(super) fn refusal(refusal: &Refusal, request_id: &str) -> Answer {
    let body = Xml::document("Response", "", |x| {
        x.node("Errors", |x| {
            x.node("Error", |x| {
                x.text("Code", refusal.code);
                x.text("Message", &refusal.message);
            });
        });
        x.text("RequestID", request_id);
    });
    Answer::xml(refusal.status, body)
}

/// Does what is asked; describe calls see what was true `age_ms` ago.
pub(super) fn answer(
    world: &mut World,
    params: &Params,
    age_ms: u64,
    request_id: &str,
) -> Result<Answer, Refusal> {
    let action = params.action().to_owned();
    if params.flag("DryRun")? {
        return Err(Refusal::new(
            412,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        ));
    }
    let view = world.view_at_age(age_ms);
    let content: Box<dyn FnOnce(&mut Xml)> = match action.as_str() {
        "DescribeInstances" => describe_instances(world, &view, params)?,
        "DescribeVolumes" => describe_volumes(&view, params)?,
        "DescribeInstanceTypes" => describe_instance_types(world, params)?,
        "DescribeTags" => describe_tags(&view, params)?,
        "DescribeAvailabilityZones" => describe_zones(world, params)?,
        "CreateVolume" => create_volume(world, params)?,
        "AttachVolume" => {
            let (volume, instance) = (params.required("VolumeId")?, params.required("InstanceId")?);
            let volume = world.attach_volume(volume, instance, params.required("Device")?)?;
            Box::new(move |x| attachment_content(x, &volume, volume.attachment.as_ref()))
        }
        "DetachVolume" => {
            let volume = params.required("VolumeId")?;
            let volume = world.detach_volume(volume, params.get("InstanceId"), params.flag("Force")?)?;
            Box::new(move |x| attachment_content(x, &volume, volume.attachment.as_ref()))
        }
        "CreateTags" => {
            world.create_tags(&params.list("ResourceId"), &params.tags("Tag"))?;
            Box::new(|x| x.text("return", true))
        }
        other => {
            let message = format!("The action {other} is not valid for this web service.");
            return Err(Refusal::bad("InvalidAction", message));
        }
    };
    let body = Xml::document(&format!("{action}Response"), NAMESPACE, |x| {
        x.text("requestId", request_id);
        content(x);
    });
    Ok(Answer::xml(200, body))
}

type Content = Box<dyn FnOnce(&mut Xml)>;

/// The page size, and that it is not asked for together with ids.
fn page_size(params: &Params, ids: &[String]) -> Result<Option<usize>, Refusal> {
    let Some(size) = params.number::<usize>("MaxResults")? else { return Ok(None) };
    if !ids.is_empty() {
        return Err(Refusal::bad(
            "InvalidParameterCombination",
            "The parameter ids cannot be used with the parameter maxResults",
        ));
    }
    if (5..=1000).contains(&size) {
        Ok(Some(size))
    } else {
        let message = format!(
            "Value ( {size} ) for parameter maxResults is invalid. Expecting a value between 5 and 1000."
        );
        Err(Refusal::bad("InvalidParameterValue", message))
    }
}

fn unknown_filter(name: &str) -> Refusal {
    Refusal::bad("InvalidParameterValue", format!("The filter '{name}' is invalid"))
}

/// The filters on tags, which all kinds of resources have; `None` when it is another filter.
fn fits_tags(filter: &Filter, tags: &BTreeMap<String, String>) -> Option<bool> {
    if let Some(key) = filter.name.strip_prefix("tag:") {
        Some(tags.get(key).is_some_and(|value| filter.fits(value)))
    } else if filter.name == "tag-key" {
        Some(tags.keys().any(|key| filter.fits(key)))
    } else {
        None
    }
}

fn instance_fits(instance: &Instance, filter: &Filter, region: &str) -> Result<bool, Refusal> {
    if let Some(fits) = fits_tags(filter, &instance.tags) {
        return Ok(fits);
    }
    match filter.name.as_str() {
        // The name is gone with the instance: the next one with its address has it.
        "private-dns-name" => Ok(!instance.is_terminated() && filter.fits(&instance.host_name(region))),
        "instance-id" => Ok(filter.fits(instance.id.as_str())),
        "instance-state-name" => Ok(filter.fits(instance.state.name())),
        "availability-zone" => Ok(filter.fits(&instance.zone)),
        other => Err(unknown_filter(other)),
    }
}

fn volume_fits(volume: &Volume, filter: &Filter) -> Result<bool, Refusal> {
    if let Some(fits) = fits_tags(filter, &volume.spec.tags) {
        return Ok(fits);
    }
    let attachment = volume.attachment.as_ref();
    match filter.name.as_str() {
        "volume-id" => Ok(filter.fits(volume.id.as_str())),
        "status" => Ok(filter.fits(volume.state.name())),
        "availability-zone" => Ok(filter.fits(&volume.spec.zone)),
        "attachment.instance-id" => Ok(attachment.is_some_and(|a| filter.fits(a.instance.as_str()))),
        "attachment.status" => Ok(attachment.is_some_and(|a| filter.fits(a.state.name()))),
        other => Err(unknown_filter(other)),
    }
}

/// What fits every filter. A filter that does not exist is refused even if nothing is there to fit.
fn select<'a, T>(
    items: impl Iterator<Item = &'a T>,
    filters: &[Filter],
    fits: impl Fn(&T, &Filter) -> Result<bool, Refusal>,
) -> Result<Vec<&'a T>, Refusal> {
    let mut selected = Vec::new();
    for item in items {
        let mut all = true;
        for filter in filters {
            all &= fits(item, filter)?;
        }
        if all {
            selected.push(item);
        }
    }
    Ok(selected)
}

fn describe_instances(world: &World, view: &Arc<View>, params: &Params) -> Result<Content, Refusal> {
    let ids = params.list("InstanceId");
    let limit = page_size(params, &ids)?;
    let missing: Vec<&str> =
        ids.iter().map(String::as_str).filter(|id| !view.instances.contains_key(*id)).collect();
    if let Some(id) = missing.first() {
        return Err(World::instance_missing(id, &missing));
    }
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let all = view.instances.values().filter(|i| wanted.is_empty() || wanted.contains(i.id.as_str()));
    let filters = params.filters("Filter", "Value");
    let found: Vec<Instance> =
        select(all, &filters, |i, filter| instance_fits(i, filter, &world.config().region))?
            .into_iter()
            .cloned()
            .collect();
    let (page, next) = params.page(limit, found, |i| i.id.to_string())?;
    let (account, region) = (world.config().account.clone(), world.config().region.clone());
    let view = Arc::clone(view);
    Ok(Box::new(move |x| {
        x.node("reservationSet", |x| {
            for instance in &page {
                x.node("item", |x| {
                    x.text("reservationId", instance.id.as_str().replacen("i-", "r-", 1));
                    x.text("ownerId", &account);
                    x.node("instancesSet", |x| {
                        x.node("item", |x| instance_content(x, instance, &view, &region));
                    });
                });
            }
        });
        x.maybe("nextToken", next);
    }))
}

fn instance_content(x: &mut Xml, i: &Instance, view: &View, region: &str) {
    x.text("instanceId", &i.id);
    x.text("imageId", &i.spec.image_id);
    x.node("instanceState", |x| {
        x.text("code", i.state.code());
        x.text("name", i.state.name());
    });
    x.text("instanceType", &i.spec.instance_type);
    x.text("launchTime", clock::iso8601(i.launched_ms));
    // There for those alone that are not on demand.
    x.maybe("instanceLifecycle", i.spec.spot.then_some("spot"));
    x.node("placement", |x| {
        x.text("availabilityZone", &i.zone);
        x.text("tenancy", "default");
    });
    // Its metadata service wants a token, always.
    x.node("metadataOptions", |x| {
        x.text("state", "applied");
        x.text("httpTokens", "required");
        x.text("httpPutResponseHopLimit", 2);
        x.text("httpEndpoint", "enabled");
        x.text("instanceMetadataTags", if i.spec.metadata_tags { "enabled" } else { "disabled" });
    });
    // An instance that is gone has no address any more.
    if !i.is_terminated() {
        x.text("privateDnsName", i.host_name(region));
        x.text("privateIpAddress", i.private_ip);
    }
    x.node("blockDeviceMapping", |x| {
        let mine = |v: &&Volume| v.attachment.as_ref().is_some_and(|a| a.instance == i.id);
        for volume in view.volumes.values().filter(mine) {
            let Some(a) = &volume.attachment else { continue };
            x.node("item", |x| {
                x.text("deviceName", &a.device);
                x.node("ebs", |x| {
                    x.text("volumeId", &volume.id);
                    x.text("status", a.state.name());
                    x.text("attachTime", clock::iso8601(a.since_ms));
                    x.text("deleteOnTermination", a.delete_on_termination);
                });
            });
        }
    });
    tag_set(x, &i.tags);
}

/// By name alone: nobody asks otherwise.
fn describe_instance_types(world: &World, params: &Params) -> Result<Content, Refusal> {
    let names = params.list("InstanceType");
    if names.is_empty() || !params.filters("Filter", "Value").is_empty() {
        return Err(Refusal::bad("InvalidParameterValue", "this region describes instance types by name"));
    }
    let known = &world.config().instance_types;
    let (found, missing): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| known.contains_key(*name));
    if !missing.is_empty() {
        let missing = missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("The following supplied instance types do not exist: [{missing}]");
        return Err(Refusal::bad("InvalidInstanceType", message));
    }
    let found: Vec<(String, TypeSpec)> =
        found.into_iter().map(|name| (name.clone(), known[name].clone())).collect();
    Ok(Box::new(move |x| {
        x.node("instanceTypeSet", |x| {
            for (name, spec) in &found {
                x.node("item", |x| instance_type_content(x, name, spec));
            }
        });
    }))
}

fn instance_type_content(x: &mut Xml, name: &str, spec: &TypeSpec) {
    x.text("instanceType", name);
    x.node("networkInfo", |x| {
        x.text("maximumNetworkInterfaces", spec.cards.iter().sum::<u32>());
        x.text("maximumNetworkCards", spec.cards.len());
        x.text("defaultNetworkCardIndex", 0);
        x.node("networkCards", |x| {
            for (index, interfaces) in spec.cards.iter().enumerate() {
                x.node("item", |x| {
                    x.text("networkCardIndex", index);
                    x.text("maximumNetworkInterfaces", interfaces);
                });
            }
        });
        x.text("ipv4AddressesPerInterface", spec.addresses);
    });
}

fn tag_set(x: &mut Xml, tags: &BTreeMap<String, String>) {
    x.node("tagSet", |x| {
        for (key, value) in tags {
            x.node("item", |x| {
                x.text("key", key);
                x.text("value", value);
            });
        }
    });
}

fn describe_volumes(view: &Arc<View>, params: &Params) -> Result<Content, Refusal> {
    let ids = params.list("VolumeId");
    let limit = page_size(params, &ids)?;
    if let Some(id) = ids.iter().find(|id| !view.volumes.contains_key(id.as_str())) {
        return Err(Refusal::bad("InvalidVolume.NotFound", format!("The volume '{id}' does not exist.")));
    }
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let all = view.volumes.values().filter(|v| wanted.is_empty() || wanted.contains(v.id.as_str()));
    let filters = params.filters("Filter", "Value");
    let found: Vec<Volume> = select(all, &filters, volume_fits)?.into_iter().cloned().collect();
    let (page, next) = params.page(limit, found, |v| v.id.to_string())?;
    Ok(Box::new(move |x| {
        x.node("volumeSet", |x| {
            for volume in &page {
                x.node("item", |x| volume_content(x, volume));
            }
        });
        x.maybe("nextToken", next);
    }))
}

fn volume_content(x: &mut Xml, v: &Volume) {
    x.text("volumeId", &v.id);
    x.text("size", v.spec.size_gib);
    x.text("snapshotId", "");
    x.text("availabilityZone", &v.spec.zone);
    x.text("status", v.state.name());
    x.text("createTime", clock::iso8601(v.created_ms));
    x.text("volumeType", &v.spec.volume_type);
    x.text("encrypted", v.spec.encrypted);
    x.maybe("kmsKeyId", v.spec.kms_key_id.as_ref());
    x.maybe("iops", v.spec.iops);
    x.maybe("throughput", v.spec.throughput);
    x.node("attachmentSet", |x| {
        if let Some(attachment) = &v.attachment {
            x.node("item", |x| attachment_content(x, v, Some(attachment)));
        }
    });
    tag_set(x, &v.spec.tags);
}

fn attachment_content(x: &mut Xml, volume: &Volume, attachment: Option<&Attachment>) {
    let Some(a) = attachment else { return };
    x.text("volumeId", &volume.id);
    x.text("instanceId", &a.instance);
    x.text("device", &a.device);
    x.text("status", a.state.name());
    x.text("attachTime", clock::iso8601(a.since_ms));
    x.text("deleteOnTermination", a.delete_on_termination);
}

fn create_volume(world: &mut World, params: &Params) -> Result<Content, Refusal> {
    if params.get("SnapshotId").is_some() {
        return Err(Refusal::bad("InvalidSnapshot.NotFound", "this region has no snapshots"));
    }
    let mut tags = BTreeMap::new();
    for n in 1.. {
        let prefix = format!("TagSpecification.{n}");
        let Some(kind) = params.get(&format!("{prefix}.ResourceType")) else { break };
        if kind != "volume" {
            let message = format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(Refusal::bad("InvalidParameterValue", message));
        }
        tags.extend(params.tags(&format!("{prefix}.Tag")));
    }
    let spec = VolumeSpec {
        zone: params.required("AvailabilityZone")?.to_owned(),
        size_gib: params.number("Size")?.ok_or_else(|| {
            Refusal::bad("MissingParameter", "The request must contain the parameter size/snapshot")
        })?,
        volume_type: params.get("VolumeType").unwrap_or("gp2").to_owned(),
        encrypted: params.flag("Encrypted")?,
        kms_key_id: params.get("KmsKeyId").map(str::to_owned),
        iops: params.number("Iops")?,
        throughput: params.number("Throughput")?,
        tags,
    };
    let id = world.create_volume(spec, params.get("ClientToken"))?;
    let volume = world.view().volumes.get(&id).cloned().ok_or_else(|| {
        // The token's volume has been deleted since.
        Refusal::bad("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
    })?;
    Ok(Box::new(move |x| volume_content(x, &volume)))
}

/// A tag as DescribeTags lists it.
#[derive(Clone)]
struct ListedTag {
    id: String,
    kind: &'static str,
    key: String,
    value: String,
}

fn describe_tags(view: &View, params: &Params) -> Result<Content, Refusal> {
    let of = |id: &str, kind, tags: &BTreeMap<String, String>| -> Vec<ListedTag> {
        let listed = |(key, value): (&String, &String)| ListedTag {
            id: id.to_owned(),
            kind,
            key: key.clone(),
            value: value.clone(),
        };
        tags.iter().map(listed).collect()
    };
    let mut all: Vec<ListedTag> =
        view.instances.values().flat_map(|i| of(i.id.as_str(), "instance", &i.tags)).collect();
    let volumes = view.volumes.values().filter(|v| v.state != VolumeState::Deleting);
    all.extend(volumes.flat_map(|v| of(v.id.as_str(), "volume", &v.spec.tags)));
    let fits = |tag: &ListedTag, filter: &Filter| match filter.name.as_str() {
        "resource-id" => Ok(filter.fits(&tag.id)),
        "resource-type" => Ok(filter.fits(tag.kind)),
        "key" => Ok(filter.fits(&tag.key)),
        "value" => Ok(filter.fits(&tag.value)),
        other => match other.strip_prefix("tag:") {
            Some(key) => Ok(key == tag.key && filter.fits(&tag.value)),
            None => Err(unknown_filter(other)),
        },
    };
    let found = select(all.iter(), &params.filters("Filter", "Value"), fits)?;
    let found: Vec<ListedTag> = found.into_iter().cloned().collect();
    let (page, next) = params.page(page_size(params, &[])?, found, |t| format!("{}\n{}", t.id, t.key))?;
    Ok(Box::new(move |x| {
        x.node("tagSet", |x| {
            for tag in &page {
                x.node("item", |x| {
                    x.text("resourceId", &tag.id);
                    x.text("resourceType", tag.kind);
                    x.text("key", &tag.key);
                    x.text("value", &tag.value);
                });
            }
        });
        x.maybe("nextToken", next);
    }))
}

fn describe_zones(world: &World, params: &Params) -> Result<Content, Refusal> {
    let names = params.list("ZoneName");
    if let Some(name) = names.iter().find(|n| !world.zones().iter().any(|z| z.name == **n)) {
        return Err(Refusal::bad("InvalidParameterValue", format!("Invalid availability zone: [{name}]")));
    }
    let region = world.config().region.clone();
    let zones: Vec<(String, bool)> = world
        .zones()
        .iter()
        .filter(|z| names.is_empty() || names.contains(&z.name))
        .map(|z| (z.name.clone(), z.stopped))
        .collect();
    Ok(Box::new(move |x| {
        x.node("availabilityZoneInfo", |x| {
            for (name, stopped) in &zones {
                x.node("item", |x| {
                    x.text("zoneName", name);
                    x.text("zoneState", if *stopped { "impaired" } else { "available" });
                    x.text("regionName", &region);
                    x.text("zoneType", "availability-zone");
                });
            }
        });
    }))
}
