//! Volumes: created once, attached to one instance of their zone at a time, never forced.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::compute::{InstanceId, InstanceState, no_instance};
use super::{EventKind, Refusal, World};

/// How often it is looked again whether a volume that is to be detached is still mounted, in milliseconds.
const BUSY_AGAIN_MS: u64 = 50;

/// A volume's id, such as `vol-0123456789abcdef0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub(crate) String);

impl VolumeId {
    /// The id as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for VolumeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VolumeSpec {
    /// The zone.
    pub zone: String,
    /// Size in GiB, 1 to 16384.
    pub size_gib: u32,
    /// Such as `gp3`.
    pub volume_type: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The KMS key, when one was named.
    pub kms_key_id: Option<String>,
    /// Provisioned operations a second, when asked for.
    pub iops: Option<u32>,
    /// Provisioned MiB a second, when asked for.
    pub throughput: Option<u32>,
    /// Tags of the volume.
    pub tags: BTreeMap<String, String>,
}

impl Default for VolumeSpec {
    fn default() -> Self {
        Self {
            zone: String::new(),
            size_gib: 1,
            volume_type: "gp3".into(),
            encrypted: false,
            kms_key_id: None,
            iops: None,
            throughput: None,
            tags: BTreeMap::new(),
        }
    }
}

/// A volume that a launch makes and attaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchVolume {
    /// The device name, such as `/dev/xvdf`.
    pub device: String,
    /// Size in GiB.
    pub size_gib: u32,
    /// Whether it is deleted with the instance.
    pub delete_on_termination: bool,
    /// Tags of the volume.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// EC2's volume states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Not usable yet.
    Creating,
    /// Attached to nothing.
    Available,
    /// Attached, or about to be, or not quite detached yet.
    InUse,
    /// On its way out.
    Deleting,
}

impl VolumeState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Deleting => "deleting",
        }
    }
}

/// EC2's attachment states; `detached` is the absence of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentState {
    /// The device is not there yet.
    Attaching,
    /// The device is there.
    Attached,
    /// The device is going away.
    Detaching,
    /// The device would go away, and the machine has it mounted.
    Busy,
}

impl AttachmentState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
            Self::Busy => "busy",
        }
    }
}

/// Where a volume is attached.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The instance.
    pub instance: InstanceId,
    /// The name that was asked for.
    pub device: String,
    /// How far it is.
    pub state: AttachmentState,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whether the volume is deleted with the instance.
    pub delete_on_termination: bool,
}

/// A volume.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// What was asked for; the tags here are the present ones.
    #[serde(flatten)]
    pub spec: VolumeSpec,
    /// What EC2 says of it.
    pub state: VolumeState,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Where it is attached.
    pub attachment: Option<Attachment>,
    #[serde(skip)]
    due: Option<u64>,
}

impl World {
    /// Creates a volume. A client token makes it idempotent: the same token with the same
    /// parameters is the same volume, with others it is refused
    /// (EC2 API reference, "Ensuring idempotency").
    pub fn create_volume(
        &mut self,
        spec: VolumeSpec,
        client_token: Option<&str>,
    ) -> Result<VolumeId, Refusal> {
        if let Some((first, id)) = client_token.and_then(|t| self.client_tokens.get(t)) {
            return if *first == spec {
                Ok(id.clone())
            } else {
                Err(Refusal::bad(
                    "IdempotentParameterMismatch",
                    "the client token was used before with other parameters",
                ))
            };
        }
        let index = self.zone_index(&spec.zone)?;
        if !(1..=16_384).contains(&spec.size_gib) {
            let message = format!("Volume of {}GiB is out of the limits 1 to 16384", spec.size_gib);
            return Err(Refusal::bad("InvalidParameterValue", message));
        }
        if self.zones[index].stopped {
            return Err(unavailable(&spec.zone));
        }
        let id = self.insert_volume(spec.clone());
        if let Some(token) = client_token {
            self.client_tokens.insert(token.to_owned(), (spec, id.clone()));
        }
        self.settle();
        Ok(id)
    }

    fn insert_volume(&mut self, spec: VolumeSpec) -> VolumeId {
        let id = VolumeId(format!("vol-{}", self.hex(17)));
        let volume = Volume {
            id: id.clone(),
            spec,
            state: VolumeState::Creating,
            created_ms: self.now,
            attachment: None,
            due: Some(self.now + self.config.timings.create_volume_ms),
        };
        self.view_mut().volumes.insert(id.clone(), volume);
        id
    }

    /// Makes and attaches a volume of the launch template.
    pub(super) fn launch_volume(&mut self, instance: &InstanceId, zone: &str, volume: &LaunchVolume) {
        let id = self.insert_volume(VolumeSpec {
            zone: zone.to_owned(),
            size_gib: volume.size_gib,
            tags: volume.tags.clone(),
            ..VolumeSpec::default()
        });
        let (now, due) = (self.now, self.now + self.config.timings.attach_ms);
        if let Some(made) = self.view_mut().volumes.get_mut(&id) {
            made.state = VolumeState::InUse;
            made.due = Some(due);
            made.attachment = Some(Attachment {
                instance: instance.clone(),
                device: volume.device.clone(),
                state: AttachmentState::Attaching,
                since_ms: now,
                delete_on_termination: volume.delete_on_termination,
            });
        }
    }

    /// Attaches a volume to a running instance of its zone. Exactly one instance gets it.
    pub fn attach_volume(&mut self, volume: &str, instance: &str, device: &str) -> Result<Volume, Refusal> {
        let v = self.view.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        let i = self.view.instances.get(instance).ok_or_else(|| no_instance(instance))?;
        if i.state != InstanceState::Running {
            return Err(Refusal::bad("IncorrectState", format!("Instance '{instance}' is not 'running'.")));
        }
        if v.spec.zone != i.zone {
            let message = format!(
                "The volume '{volume}' is not in the same availability zone as instance '{instance}'"
            );
            return Err(Refusal::bad("InvalidVolume.ZoneMismatch", message));
        }
        match v.state {
            VolumeState::Available => {}
            VolumeState::InUse => {
                let message = format!("{volume} is already attached to an instance");
                return Err(Refusal::bad("VolumeInUse", message));
            }
            VolumeState::Creating | VolumeState::Deleting => {
                return Err(Refusal::bad("IncorrectState", format!("{volume} is not 'available'.")));
            }
        }
        let taken = self
            .view
            .volumes
            .values()
            .filter_map(|v| v.attachment.as_ref())
            .any(|a| a.instance == i.id && a.device == device);
        if taken {
            let message = format!(
                "Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
            );
            return Err(Refusal::bad("InvalidParameterValue", message));
        }
        if self.zone_stopped(&i.zone) {
            return Err(unavailable(&i.zone));
        }
        let attachment = Attachment {
            instance: i.id.clone(),
            device: device.to_owned(),
            state: AttachmentState::Attaching,
            since_ms: self.now,
            delete_on_termination: false,
        };
        let due = self.now + self.config.timings.attach_ms;
        self.change_volume(volume, |v| {
            v.state = VolumeState::InUse;
            v.due = Some(due);
            v.attachment = Some(attachment);
        })
    }

    /// Says whether a volume that is attached is deleted with its instance (`ModifyInstanceAttribute`).
    pub fn set_delete_on_termination(&mut self, volume: &str, delete: bool) -> Result<(), Refusal> {
        let v = self.view.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        if v.attachment.is_none() {
            let message = format!("The volume '{volume}' is not attached to an instance");
            return Err(Refusal::bad("InvalidAttachment.NotFound", message));
        }
        if let Some(attachment) = self.view_mut().volumes.get_mut(volume).and_then(|v| v.attachment.as_mut())
        {
            attachment.delete_on_termination = delete;
        }
        self.settle();
        Ok(())
    }

    /// Detaches a volume, in good order only: while the machine has it mounted, it is `busy`.
    pub fn detach_volume(
        &mut self,
        volume: &str,
        instance: Option<&str>,
        force: bool,
    ) -> Result<Volume, Refusal> {
        let v = self.view.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        if force {
            return Err(Refusal::bad("UnsupportedOperation", "this region never forces a detachment"));
        }
        let Some(attachment) = &v.attachment else {
            let message = format!("Volume '{volume}' is in the '{}' state.", v.state.name());
            return Err(Refusal::bad("IncorrectState", message));
        };
        if let Some(instance) = instance.filter(|i| *i != attachment.instance.as_str()) {
            let message = format!("The volume '{volume}' is not attached to instance '{instance}'");
            return Err(Refusal::bad("InvalidAttachment.NotFound", message));
        }
        if attachment.state != AttachmentState::Attached {
            let message = format!("The attachment of '{volume}' is '{}'.", attachment.state.name());
            return Err(Refusal::bad("IncorrectState", message));
        }
        if self.zone_stopped(&v.spec.zone) {
            return Err(unavailable(&v.spec.zone));
        }
        let due = self.now + self.config.timings.detach_ms;
        self.change_volume(volume, |v| {
            v.due = Some(due);
            if let Some(attachment) = &mut v.attachment {
                attachment.state = AttachmentState::Detaching;
            }
        })
    }

    /// Loses a volume with its data, as when the hardware under it fails for good: it is detached
    /// from whatever holds it, `deleting` for a moment, then not found.
    pub fn lose_volume(&mut self, volume: &str) -> Result<(), Refusal> {
        self.view.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        self.delete(volume);
        self.settle();
        Ok(())
    }

    fn delete(&mut self, volume: &str) {
        let due = self.now + self.config.timings.delete_volume_ms;
        let Some(v) = self.view_mut().volumes.get_mut(volume) else { return };
        v.state = VolumeState::Deleting;
        v.due = Some(due);
        let id = v.id.clone();
        if let Some(attachment) = v.attachment.take() {
            self.emit(EventKind::VolumeDetached { volume: id, instance: attachment.instance });
        }
    }

    /// Sets tags on instances and volumes, all or none.
    pub fn create_tags(
        &mut self,
        resources: &[String],
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        if let Some(key) = tags.keys().find(|k| k.starts_with("aws:") || k.is_empty() || k.len() > 128) {
            return Err(Refusal::bad("InvalidParameterValue", format!("Tag key '{key}' is not allowed")));
        }
        for id in resources {
            if id.starts_with("vol-") {
                self.view.volumes.get(id.as_str()).ok_or_else(|| no_volume(id))?;
            } else if id.starts_with("i-") {
                let i = self.view.instances.get(id.as_str()).ok_or_else(|| no_instance(id))?;
                if i.spec.metadata_tags && tags.keys().any(|k| k.contains('/')) {
                    return Err(Refusal::bad(
                        "InvalidParameterValue",
                        "a tag key with '/' can't be used on an instance that publishes its tags",
                    ));
                }
            } else {
                return Err(Refusal::bad("InvalidID", format!("The ID '{id}' is not valid")));
            }
        }
        let view = self.view_mut();
        for id in resources {
            if let Some(v) = view.volumes.get_mut(id.as_str()) {
                v.spec.tags.extend(tags.clone());
            }
            if let Some(i) = view.instances.get_mut(id.as_str()) {
                i.tags.extend(tags.clone());
            }
        }
        self.settle();
        Ok(())
    }

    /// Changes a volume and answers with what it was right after the change, before anything else
    /// becomes due.
    fn change_volume(&mut self, id: &str, change: impl FnOnce(&mut Volume)) -> Result<Volume, Refusal> {
        let volume = self.view_mut().volumes.get_mut(id).ok_or_else(|| no_volume(id))?;
        change(volume);
        let answer = volume.clone();
        self.settle();
        Ok(answer)
    }

    pub(super) fn release_volumes_of(&mut self, instance: &InstanceId) {
        let held: Vec<(VolumeId, bool)> = self
            .view
            .volumes
            .values()
            .filter_map(|v| {
                let a = v.attachment.as_ref().filter(|a| a.instance == *instance)?;
                Some((v.id.clone(), a.delete_on_termination))
            })
            .collect();
        for (id, delete) in held {
            if delete {
                self.delete(id.as_str());
                continue;
            }
            if let Some(v) = self.view_mut().volumes.get_mut(&id) {
                v.attachment = None;
                v.state = VolumeState::Available;
                v.due = None;
            }
            self.emit(EventKind::VolumeDetached { volume: id, instance: instance.clone() });
        }
    }

    pub(super) fn volume_due(&self, volume: &Volume) -> Option<u64> {
        volume.due.filter(|_| !self.zone_stopped(&volume.spec.zone))
    }

    pub(super) fn step_volumes(&mut self) -> bool {
        let due: Vec<VolumeId> = self
            .view
            .volumes
            .values()
            .filter(|v| self.volume_due(v).is_some_and(|at| at <= self.now))
            .map(|v| v.id.clone())
            .collect();
        for id in &due {
            self.step_volume(id);
        }
        !due.is_empty()
    }

    fn step_volume(&mut self, id: &VolumeId) {
        let guests = self.guests.clone();
        let powered: Vec<InstanceId> =
            self.view.instances.values().filter(|i| i.powered).map(|i| i.id.clone()).collect();
        let mounted = |instance: &InstanceId| {
            powered.contains(instance) && guests.0.as_ref().is_some_and(|mounted| mounted(instance, id))
        };
        let again = self.now + BUSY_AGAIN_MS;
        let Some(v) = self.view_mut().volumes.get_mut(id) else { return };
        v.due = None;
        let event = match (v.state, &mut v.attachment) {
            (VolumeState::Deleting, _) => {
                self.view_mut().volumes.remove(id);
                Some(EventKind::VolumeDeleted { volume: id.clone() })
            }
            (_, Some(a)) if a.state == AttachmentState::Attaching => {
                a.state = AttachmentState::Attached;
                let (instance, device) = (a.instance.clone(), a.device.clone());
                Some(EventKind::VolumeAttached { volume: id.clone(), instance, device })
            }
            (_, Some(a)) if matches!(a.state, AttachmentState::Detaching | AttachmentState::Busy) => {
                if mounted(&a.instance) {
                    a.state = AttachmentState::Busy;
                    v.due = Some(again);
                    return;
                }
                let instance = a.instance.clone();
                v.attachment = None;
                v.state = VolumeState::Available;
                Some(EventKind::VolumeDetached { volume: id.clone(), instance })
            }
            (VolumeState::Creating, None) => {
                v.state = VolumeState::Available;
                None
            }
            _ => None,
        };
        if let Some(event) = event {
            self.emit(event);
        }
    }
}

pub(crate) fn no_volume(id: &str) -> Refusal {
    Refusal::bad("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
}

fn unavailable(zone: &str) -> Refusal {
    Refusal::new(503, "Unavailable", format!("{zone} can't serve the request at present"))
}
