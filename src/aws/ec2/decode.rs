//! EC2's instances and volumes into the model's, exactly: a state that is not known is an error.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    Instance as Ec2Instance, InstanceStateName, InstanceTypeInfo, NetworkCardInfo, Tag, Volume as Ec2Volume,
    VolumeAttachment, VolumeAttachmentState, VolumeState as Ec2VolumeState,
};

use crate::model::enrolment::NodeInstance;
use crate::model::ids::ParseIdError;
use crate::model::node::InterfaceLimits;
use crate::model::tags;
use crate::model::{
    Attachment, AttachmentState, ClusterName, Instance, InstanceId, InstanceState, Volume, VolumeId,
    VolumeState, Zone,
};

/// Tags by key.
pub(super) fn tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

/// An instance. A role that is none is taken for no role: the instance does not count as a peer.
pub(super) fn instance(
    instance: &Ec2Instance,
    cluster: &ClusterName,
) -> Result<(InstanceId, Instance), String> {
    let id: InstanceId = instance.instance_id().unwrap_or_default().parse().map_err(|error| text(&error))?;
    let state = match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Pending) => InstanceState::Pending,
        Some(InstanceStateName::Running) => InstanceState::Running,
        Some(InstanceStateName::Stopping) => InstanceState::Stopping,
        Some(InstanceStateName::Stopped) => InstanceState::Stopped,
        Some(InstanceStateName::ShuttingDown) => InstanceState::ShuttingDown,
        Some(InstanceStateName::Terminated) => InstanceState::Terminated,
        other => return Err(format!("{id} is in the state {:?}", other.map(InstanceStateName::as_str))),
    };
    let zone = instance.placement().and_then(|placement| placement.availability_zone());
    let address = instance.private_ip_address().filter(|address| !address.is_empty());
    let tags = tags(instance.tags());
    let ours = tags.get(tags::CLUSTER).is_some_and(|value| value == cluster.as_str());
    let instance = Instance {
        state,
        zone: zone.map(str::parse::<Zone>).transpose().map_err(|error| text(&error))?,
        address: address
            .map(str::parse)
            .transpose()
            .map_err(|error| format!("{id}: private address: {error}"))?,
        role: tags.get(tags::ROLE).filter(|_| ours).and_then(|role| role.parse().ok()),
    };
    Ok((id, instance))
}

/// What a type's first network card takes: pods get no addresses of the others.
pub(super) fn interface_limits(found: &InstanceTypeInfo) -> Result<InterfaceLimits, String> {
    let network = found.network_info().ok_or("nothing is said of its network")?;
    let first = network.default_network_card_index().unwrap_or(0);
    let card = network.network_cards().iter().find(|card| card.network_card_index() == Some(first));
    let interfaces = card
        .and_then(NetworkCardInfo::maximum_network_interfaces)
        .or_else(|| network.maximum_network_interfaces());
    let number = |what: &str, found: Option<i32>| {
        let positive = found.and_then(|found| u32::try_from(found).ok()).filter(|found| *found > 0);
        positive.ok_or_else(|| format!("it has {found:?} as the number of {what}"))
    };
    Ok(InterfaceLimits {
        interfaces: number("network interfaces", interfaces)?,
        addresses: number("addresses of each", network.ipv4_addresses_per_interface())?,
    })
}

/// An instance as a node: with all that its certificate may name.
pub(super) fn node_instance(
    found: &Ec2Instance,
    cluster: &ClusterName,
) -> Result<(InstanceId, NodeInstance), String> {
    let (id, instance) = instance(found, cluster)?;
    let mut addresses = BTreeSet::new();
    let mut dns_names = BTreeSet::new();
    let mut address = |text: Option<&str>| -> Result<(), String> {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            addresses.insert(text.parse().map_err(|error| format!("{id}: address {text:?}: {error}"))?);
        }
        Ok(())
    };
    let mut name = |text: Option<&str>| {
        dns_names.extend(text.filter(|text| !text.is_empty()).map(str::to_owned));
    };
    address(found.private_ip_address())?;
    address(found.public_ip_address())?;
    name(found.private_dns_name());
    name(found.public_dns_name());
    for interface in found.network_interfaces() {
        for private in interface.private_ip_addresses() {
            address(private.private_ip_address())?;
            address(private.association().and_then(|public| public.public_ip()))?;
        }
        for ipv6 in interface.ipv6_addresses() {
            address(ipv6.ipv6_address())?;
        }
    }
    let private_dns_name = found.private_dns_name().filter(|name| !name.is_empty()).map(str::to_owned);
    let node = NodeInstance {
        state: instance.state,
        role: instance.role,
        zone: instance.zone,
        private_dns_name,
        addresses,
        dns_names,
    };
    Ok((id, node))
}

/// A volume. Where it hangs on several instances, the attachment told is the one to `holder`.
///
/// A slot's tag of a volume of the cluster that is no slot is an error: it must not pass for a
/// volume without a slot, which may be given one.
pub(super) fn volume(
    volume: &Ec2Volume,
    cluster: &ClusterName,
    holder: Option<&InstanceId>,
) -> Result<(VolumeId, Volume), String> {
    let id: VolumeId = volume.volume_id().unwrap_or_default().parse().map_err(|error| text(&error))?;
    let state = match volume.state() {
        Some(Ec2VolumeState::Creating) => VolumeState::Creating,
        Some(Ec2VolumeState::Available) => VolumeState::Available,
        Some(Ec2VolumeState::InUse) => VolumeState::InUse,
        Some(Ec2VolumeState::Deleting) => VolumeState::Deleting,
        Some(Ec2VolumeState::Deleted) => VolumeState::Deleted,
        Some(Ec2VolumeState::Error) => VolumeState::Error,
        other => return Err(format!("{id} is in the state {:?}", other.map(Ec2VolumeState::as_str))),
    };
    let tags = tags(volume.tags());
    let ours = tags.get(tags::CLUSTER).is_some_and(|value| value == cluster.as_str());
    let slot = match tags.get(tags::SLOT).map(|slot| slot.parse()) {
        Some(Err(error)) if ours => return Err(format!("{id}: tag {}: {error}", tags::SLOT)),
        Some(Ok(slot)) => Some(slot),
        Some(Err(_)) | None => None,
    };
    let mut attachments = Vec::new();
    for attachment in volume.attachments() {
        attachments.extend(self::attachment(&id, attachment)?);
    }
    if ours && attachments.len() > 1 {
        return Err(format!("{id} is attached to {} instances: no volume for etcd", attachments.len()));
    }
    let place = attachments.iter().position(|attachment| Some(&attachment.instance) == holder).unwrap_or(0);
    let attachment = (!attachments.is_empty()).then(|| attachments.swap_remove(place));
    let volume = Volume {
        state,
        zone: volume.availability_zone().map(str::parse::<Zone>).transpose().map_err(|error| text(&error))?,
        attachment,
        ours,
        slot,
        stamp: tags.get(tags::STAMP).cloned(),
    };
    Ok((id, volume))
}

/// An attachment; none when it is over.
fn attachment(volume: &VolumeId, attachment: &VolumeAttachment) -> Result<Option<Attachment>, String> {
    let state = match attachment.state() {
        Some(VolumeAttachmentState::Attaching) => AttachmentState::Attaching,
        Some(VolumeAttachmentState::Attached) => AttachmentState::Attached,
        Some(VolumeAttachmentState::Detaching) => AttachmentState::Detaching,
        Some(VolumeAttachmentState::Busy) => AttachmentState::Busy,
        Some(VolumeAttachmentState::Detached) => return Ok(None),
        other => {
            let state = other.map(VolumeAttachmentState::as_str);
            return Err(format!("{volume} has an attachment in the state {state:?}"));
        }
    };
    let instance = attachment.instance_id().unwrap_or_default().parse().map_err(|error| text(&error))?;
    Ok(Some(Attachment {
        instance,
        state,
        device: attachment.device().unwrap_or_default().to_owned(),
        delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
    }))
}

fn text(error: &ParseIdError) -> String {
    error.to_string()
}
