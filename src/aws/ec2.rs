//! EC2: instances, volumes and their tags.
//!
//! EC2 is eventually consistent, paginated and, when a whole group boots, throttled. What is told
//! here is what it definitely said: lists are read to their end or are errors, and an id is
//! `NotFound` only when EC2, asked for that very id, said so.
//!
//! What must not live here: what a state means for the cluster.
//!
//! Source: Amazon EC2 API reference; "Error codes for the Amazon EC2 API"; "Ensuring idempotency".

mod decode;

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, InstanceType, Reservation, ResourceType, Tag, TagSpecification, VolumeType,
};

use super::Cause;
use super::pages::{self, Broken, Page};
use super::retries;
use super::whole::WholeXml;
use crate::model::enrolment::NodeInstance;
use crate::model::node::InterfaceLimits;
use crate::model::tags;
use crate::model::{
    ClusterName, Instance, InstanceId, InstanceState, Role, Volume, VolumeId, VolumeState, Zone,
};

/// How many come on a page, and how many values a filter takes.
const PAGE: i32 = 500;
const FILTER_VALUES: usize = 200;

/// What EC2 says of an id that it does not know.
const NO_INSTANCE: &str = "InvalidInstanceID.NotFound";
const NO_VOLUME: &str = "InvalidVolume.NotFound";

/// EC2 gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// A call failed, or its answer was lost.
    #[error("EC2 {operation} of {what}{}", .kind.advice(.operation))]
    Call {
        /// EC2's name of the operation.
        operation: &'static str,
        /// What it was about.
        what: String,
        /// What kind of failure it is.
        kind: Ec2ErrorKind,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The answer is not what it should be.
    #[error("EC2 {operation} of {what}: unexpected answer: {why}")]
    Malformed {
        /// EC2's name of the operation.
        operation: &'static str,
        /// What it was about.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The kinds of failure that somebody may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ec2ErrorKind {
    /// The volume is attached already, here or elsewhere.
    VolumeInUse,
    /// The volume or the instance is not in a state for this.
    IncorrectState,
    /// The volume and the instance are in different zones.
    ZoneMismatch,
    /// EC2 does not know the id, or does not know it yet.
    NotFound,
    /// The instance's role does not allow the call.
    UnauthorizedOperation,
    /// The client token was used before with other parameters.
    TokenMismatch,
    /// EC2 asks to be called less often.
    Throttled,
    /// No answer, or one that says nothing about the request: it may have taken effect.
    NoAnswer,
    /// Any other refusal.
    Refused,
}

impl Ec2ErrorKind {
    fn of(cause: &Cause) -> Self {
        if cause.is_throttled() {
            return Self::Throttled;
        }
        if cause.is_denied() {
            return Self::UnauthorizedOperation;
        }
        match cause.code() {
            Some("VolumeInUse") => Self::VolumeInUse,
            Some("IncorrectState" | "IncorrectInstanceState") => Self::IncorrectState,
            Some("InvalidVolume.ZoneMismatch") => Self::ZoneMismatch,
            Some("IdempotentParameterMismatch") => Self::TokenMismatch,
            Some(code) if code.ends_with(".NotFound") => Self::NotFound,
            _ if cause.is_lost() => Self::NoAnswer,
            _ => Self::Refused,
        }
    }

    fn advice(self, operation: &str) -> String {
        match self {
            Self::UnauthorizedOperation => format!(" (allow ec2:{operation} to the instance's role)"),
            Self::TokenMismatch => {
                " (a volume was asked for before with other parameters: restore them, or tag that volume)"
                    .to_owned()
            }
            Self::VolumeInUse
            | Self::IncorrectState
            | Self::ZoneMismatch
            | Self::NotFound
            | Self::Throttled
            | Self::NoAnswer
            | Self::Refused => String::new(),
        }
    }
}

impl Ec2Error {
    /// What kind of failure it is; `None` for an answer that is not what it should be.
    pub fn kind(&self) -> Option<Ec2ErrorKind> {
        match self {
            Self::Call { kind, .. } => Some(*kind),
            Self::Malformed { .. } => None,
        }
    }

    /// Whether the same call may well succeed later, without anybody changing anything. Ids that
    /// are not found and states that do not fit pass by themselves, where EC2 is only late.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call { kind: Ec2ErrorKind::NotFound | Ec2ErrorKind::IncorrectState, .. } => true,
            Self::Call { source, .. } => source.is_retryable(),
            Self::Malformed { .. } => false,
        }
    }

    /// Whether EC2 asks to be called less often.
    pub fn is_throttled(&self) -> bool {
        self.kind() == Some(Ec2ErrorKind::Throttled)
    }
}

/// A volume to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// The zone.
    pub zone: Zone,
    /// Its size, in GiB.
    pub size_gib: u32,
    /// Its type, as `gp3`.
    pub volume_type: String,
    /// Provisioned operations per second; `None` for the type's own.
    pub iops: Option<u32>,
    /// Provisioned throughput, in MiB/s; `None` for the type's own.
    pub throughput: Option<u32>,
    /// The KMS key that it is encrypted with; `None` for the account's default key for EBS. etcd's
    /// data hold Kubernetes' secrets, so there is no volume without encryption.
    pub kms_key: Option<String>,
    /// What makes a repetition give the same volume.
    pub client_token: String,
    /// Its tags, there from the first moment.
    pub tags: BTreeMap<String, String>,
}

/// How an instance's metadata service is set up; `None` for what EC2 does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataOptions {
    /// Whether it answers by version 2 only.
    pub tokens_required: Option<bool>,
    /// How many hops an answer to a request for a token may take.
    pub hop_limit: Option<i32>,
    /// Whether it publishes the instance's tags.
    pub tags_published: Option<bool>,
}

/// EC2, in one region.
#[derive(Debug, Clone)]
pub struct Ec2 {
    client: Client,
}

impl Ec2 {
    pub(super) fn new(sdk: &SdkConfig, role: Role) -> Self {
        let mut config = aws_sdk_ec2::config::Builder::from(sdk).interceptor(WholeXml);
        config.set_retry_partition(retries::quota(role, retries::Service::Ec2));
        Self { client: Client::from_conf(config.build()) }
    }

    /// All tags of an instance. One that EC2 does not know (yet) is an error.
    pub async fn instance_tags(&self, id: &InstanceId) -> Result<BTreeMap<String, String>, Ec2Error> {
        let call = Asked { operation: "DescribeInstances", what: id.to_string() };
        let instance = self.named_instance(id).await.map_err(|source| call.failed(source))?;
        let instance = instance.ok_or_else(|| call.malformed("it is neither there nor not found"))?;
        Ok(decode::tags(instance.tags()))
    }

    /// How the instance's metadata service is set up.
    pub async fn metadata_options(&self, id: &InstanceId) -> Result<MetadataOptions, Ec2Error> {
        use aws_sdk_ec2::types::{HttpTokensState, InstanceMetadataTagsState};
        let call = Asked { operation: "DescribeInstances", what: id.to_string() };
        let instance = self.named_instance(id).await.map_err(|source| call.failed(source))?;
        let instance = instance.ok_or_else(|| call.malformed("it is neither there nor not found"))?;
        Ok(instance.metadata_options().map_or_else(MetadataOptions::default, |options| MetadataOptions {
            tokens_required: options.http_tokens().map(|tokens| tokens == &HttpTokensState::Required),
            hop_limit: options.http_put_response_hop_limit(),
            tags_published: options
                .instance_metadata_tags()
                .map(|tags| tags == &InstanceMetadataTagsState::Enabled),
        }))
    }

    /// All instances that carry the cluster's tag, whatever their state.
    pub async fn instances_of(
        &self,
        cluster: &ClusterName,
    ) -> Result<BTreeMap<InstanceId, Instance>, Ec2Error> {
        let call = Asked { operation: "DescribeInstances", what: format!("cluster {cluster}") };
        self.instances(&call, cluster, filter(&format!("tag:{}", tags::CLUSTER), [cluster.as_str()])).await
    }

    /// These very instances; the role of one that does not carry the cluster's tag is not told.
    /// Each id is in the answer: one that EC2 definitely does not know, as `NotFound`.
    pub async fn instances_by_id(
        &self,
        cluster: &ClusterName,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, Instance>, Ec2Error> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(FILTER_VALUES) {
            let call = Asked { operation: "DescribeInstances", what: joined(ids) };
            let filter = filter("instance-id", ids.iter().map(InstanceId::as_str));
            found.extend(self.instances(&call, cluster, filter).await?);
        }
        // An error about many ids names only some of them, so the missing are asked for singly.
        for id in ids {
            if found.contains_key(id) {
                continue;
            }
            let call = Asked { operation: "DescribeInstances", what: id.to_string() };
            let instance = match self.named_instance(id).await {
                Ok(Some(instance)) => {
                    decode::instance(&instance, cluster).map_err(|why| call.malformed(why))?.1
                }
                Ok(None) => return Err(call.malformed("it is neither there nor not found")),
                Err(cause) if cause.code() == Some(NO_INSTANCE) => {
                    Instance { state: InstanceState::NotFound, zone: None, address: None, role: None }
                }
                Err(cause) => return Err(call.failed(cause)),
            };
            found.insert(id.clone(), instance);
        }
        Ok(found)
    }

    /// All volumes that carry the cluster's tag, whatever their state.
    pub async fn volumes_of(&self, cluster: &ClusterName) -> Result<BTreeMap<VolumeId, Volume>, Ec2Error> {
        let call = Asked { operation: "DescribeVolumes", what: format!("cluster {cluster}") };
        self.volumes(&call, cluster, None, filter(&format!("tag:{}", tags::CLUSTER), [cluster.as_str()]))
            .await
    }

    /// All volumes that are attached to an instance, or on their way to or from it: also the
    /// machine's root volume, and others that are not the cluster's.
    pub async fn volumes_attached_to(
        &self,
        cluster: &ClusterName,
        instance: &InstanceId,
    ) -> Result<BTreeMap<VolumeId, Volume>, Ec2Error> {
        let call = Asked { operation: "DescribeVolumes", what: format!("instance {instance}") };
        let filter = filter("attachment.instance-id", [instance.as_str()]);
        self.volumes(&call, cluster, Some(instance), filter).await
    }

    /// These very volumes. Each id is in the answer: one that EC2 definitely does not know, as
    /// `NotFound`.
    pub async fn volumes_by_id(
        &self,
        cluster: &ClusterName,
        ids: &[VolumeId],
    ) -> Result<BTreeMap<VolumeId, Volume>, Ec2Error> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(FILTER_VALUES) {
            let call = Asked { operation: "DescribeVolumes", what: joined(ids) };
            let filter = filter("volume-id", ids.iter().map(VolumeId::as_str));
            found.extend(self.volumes(&call, cluster, None, filter).await?);
        }
        for id in ids {
            if found.contains_key(id) {
                continue;
            }
            let call = Asked { operation: "DescribeVolumes", what: id.to_string() };
            let volume = match self.named_volume(id).await {
                Ok(Some(volume)) => {
                    decode::volume(&volume, cluster, None).map_err(|why| call.malformed(why))?.1
                }
                Ok(None) => return Err(call.malformed("it is neither there nor not found")),
                Err(cause) if cause.code() == Some(NO_VOLUME) => Volume {
                    state: VolumeState::NotFound,
                    zone: None,
                    attachment: None,
                    ours: false,
                    slot: None,
                    stamp: None,
                },
                Err(cause) => return Err(call.failed(cause)),
            };
            found.insert(id.clone(), volume);
        }
        Ok(found)
    }

    /// Creates a volume, or gives the one that the same client token created before.
    pub async fn create_volume(&self, new: &NewVolume) -> Result<VolumeId, Ec2Error> {
        let call = Asked { operation: "CreateVolume", what: format!("a volume in {}", new.zone) };
        let tags = new.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let specification =
            TagSpecification::builder().resource_type(ResourceType::Volume).set_tags(Some(tags)).build();
        let created = self
            .client
            .create_volume()
            .availability_zone(new.zone.as_str())
            .size(number(new.size_gib))
            .volume_type(VolumeType::from(new.volume_type.as_str()))
            .set_iops(new.iops.map(number))
            .set_throughput(new.throughput.map(number))
            .encrypted(true)
            .set_kms_key_id(new.kms_key.clone())
            .client_token(&new.client_token)
            .tag_specifications(specification)
            .send()
            .await
            .map_err(|error| call.failed(Cause::new(&error)))?;
        created
            .volume_id()
            .unwrap_or_default()
            .parse()
            .map_err(|error: crate::model::ids::ParseIdError| call.malformed(error.to_string()))
    }

    /// Whether this role may attach this volume to this instance. Nothing is attached.
    pub async fn may_attach(&self, volume: &VolumeId, instance: &InstanceId) -> Result<bool, Ec2Error> {
        let call = Asked { operation: "AttachVolume", what: format!("{volume} to {instance}") };
        let asked = self.client.attach_volume().volume_id(volume.as_str()).instance_id(instance.as_str());
        call.would(asked.device("/dev/xvdf").dry_run(true).send().await.map_err(|error| Cause::new(&error)))
    }

    /// Whether this role may detach this volume from this instance. Nothing is detached.
    pub async fn may_detach(&self, volume: &VolumeId, instance: &InstanceId) -> Result<bool, Ec2Error> {
        let call = Asked { operation: "DetachVolume", what: format!("{volume} from {instance}") };
        let asked = self.client.detach_volume().volume_id(volume.as_str()).instance_id(instance.as_str());
        call.would(asked.dry_run(true).send().await.map_err(|error| Cause::new(&error)))
    }

    /// Whether this role may set these tags on this resource. None is set.
    pub async fn may_tag(&self, resource: &str, tags: &[(&str, &str)]) -> Result<bool, Ec2Error> {
        let call = Asked { operation: "CreateTags", what: resource.to_owned() };
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        let asked = self.client.create_tags().resources(resource).set_tags(Some(tags)).dry_run(true);
        call.would(asked.send().await.map_err(|error| Cause::new(&error)))
    }

    /// Whether this role may create an encrypted volume with these tags in this zone. None is created.
    pub async fn may_create(&self, zone: &Zone, tags: &[(&str, &str)]) -> Result<bool, Ec2Error> {
        let call = Asked { operation: "CreateVolume", what: format!("a volume in {zone}") };
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        let specification =
            TagSpecification::builder().resource_type(ResourceType::Volume).set_tags(Some(tags)).build();
        let asked = self.client.create_volume().availability_zone(zone.as_str()).size(1).encrypted(true);
        let asked = asked.tag_specifications(specification).dry_run(true);
        call.would(asked.send().await.map_err(|error| Cause::new(&error)))
    }

    /// Asks for a volume to be attached. The attachment is not there yet when this returns.
    pub async fn attach_volume(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device: &str,
    ) -> Result<(), Ec2Error> {
        let call = Asked { operation: "AttachVolume", what: format!("{volume} to {instance} as {device}") };
        self.client
            .attach_volume()
            .volume_id(volume.as_str())
            .instance_id(instance.as_str())
            .device(device)
            .send()
            .await
            .map(drop)
            .map_err(|error| call.failed(Cause::new(&error)))
    }

    /// Asks for a volume to be detached, without force. It is still attached when this returns. One that is not
    /// attached to this instance is no error.
    pub async fn detach_volume(&self, volume: &VolumeId, instance: &InstanceId) -> Result<(), Ec2Error> {
        let call = Asked { operation: "DetachVolume", what: format!("{volume} from {instance}") };
        let answer = self
            .client
            .detach_volume()
            .volume_id(volume.as_str())
            .instance_id(instance.as_str())
            .send()
            .await;
        match answer.map_err(|error| call.failed(Cause::new(&error))) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Some(Ec2ErrorKind::IncorrectState) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets tags on a resource, over those that it has by the same keys.
    pub async fn tag(&self, resource: &str, tags: &[(&str, &str)]) -> Result<(), Ec2Error> {
        let call = Asked { operation: "CreateTags", what: resource.to_owned() };
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        self.client
            .create_tags()
            .resources(resource)
            .set_tags(Some(tags))
            .send()
            .await
            .map(drop)
            .map_err(|error| call.failed(Cause::new(&error)))
    }

    async fn instances(
        &self,
        call: &Asked,
        cluster: &ClusterName,
        filter: Filter,
    ) -> Result<BTreeMap<InstanceId, Instance>, Ec2Error> {
        let listed = self.listed(call, filter).await?;
        let instances = listed.iter().flat_map(Reservation::instances);
        instances.map(|i| decode::instance(i, cluster).map_err(|why| call.malformed(why))).collect()
    }

    /// The instances of these ids and of these private DNS names that EC2 lists, as nodes may be. One
    /// that it does not list is left out: it may be gone, or new.
    pub async fn node_instances(
        &self,
        cluster: &ClusterName,
        ids: &[InstanceId],
        private_dns_names: &[String],
    ) -> Result<BTreeMap<InstanceId, NodeInstance>, Ec2Error> {
        let ids: Vec<&str> = ids.iter().map(InstanceId::as_str).collect();
        let names: Vec<&str> = private_dns_names.iter().map(String::as_str).collect();
        let mut found = BTreeMap::new();
        for (by, values) in [("instance-id", ids), ("private-dns-name", names)] {
            for values in values.chunks(FILTER_VALUES) {
                let call = Asked { operation: "DescribeInstances", what: joined(values) };
                let listed = self.listed(&call, filter(by, values.iter().copied())).await?;
                for instance in listed.iter().flat_map(Reservation::instances) {
                    let (id, instance) =
                        decode::node_instance(instance, cluster).map_err(|why| call.malformed(why))?;
                    found.insert(id, instance);
                }
            }
        }
        Ok(found)
    }

    /// What an instance type like `m7g.large` gives to pods. A type that EC2 does not know in this region is an error.
    pub async fn interface_limits(&self, instance_type: &str) -> Result<InterfaceLimits, Ec2Error> {
        let call = Asked { operation: "DescribeInstanceTypes", what: instance_type.to_owned() };
        let asked = self.client.describe_instance_types().instance_types(InstanceType::from(instance_type));
        let answer = asked.send().await.map_err(|error| call.failed(Cause::new(&error)))?;
        let mut types = answer.instance_types().iter();
        let found = types
            .find(|found| found.instance_type().is_some_and(|name| name.as_str() == instance_type))
            .ok_or_else(|| call.malformed("it is neither there nor not found"))?;
        decode::interface_limits(found).map_err(|why| call.malformed(why))
    }

    async fn listed(&self, call: &Asked, filter: Filter) -> Result<Vec<Reservation>, Ec2Error> {
        let request = self.client.describe_instances().filters(filter).max_results(PAGE);
        let reservations = pages::all(|token| {
            let page = request.clone().set_next_token(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.reservations, next: page.next_token })
            }
        })
        .await;
        reservations.map_err(|broken| call.broken(broken))
    }

    async fn volumes(
        &self,
        call: &Asked,
        cluster: &ClusterName,
        holder: Option<&InstanceId>,
        filter: Filter,
    ) -> Result<BTreeMap<VolumeId, Volume>, Ec2Error> {
        let request = self.client.describe_volumes().filters(filter).max_results(PAGE);
        let volumes = pages::all(|token| {
            let page = request.clone().set_next_token(token).send();
            async {
                let page = page.await.map_err(|error| Cause::new(&error))?;
                Ok(Page { items: page.volumes, next: page.next_token })
            }
        })
        .await
        .map_err(|broken| call.broken(broken))?;
        volumes
            .iter()
            .map(|v| decode::volume(v, cluster, holder).map_err(|why| call.malformed(why)))
            .collect()
    }

    async fn named_instance(&self, id: &InstanceId) -> Result<Option<aws_sdk_ec2::types::Instance>, Cause> {
        let answer = self.client.describe_instances().instance_ids(id.as_str()).send().await;
        let answer = answer.map_err(|error| Cause::new(&error))?;
        let mut instances = answer.reservations().iter().flat_map(Reservation::instances);
        Ok(instances.find(|instance| instance.instance_id() == Some(id.as_str())).cloned())
    }

    async fn named_volume(&self, id: &VolumeId) -> Result<Option<aws_sdk_ec2::types::Volume>, Cause> {
        let answer = self.client.describe_volumes().volume_ids(id.as_str()).send().await;
        let answer = answer.map_err(|error| Cause::new(&error))?;
        Ok(answer.volumes().iter().find(|volume| volume.volume_id() == Some(id.as_str())).cloned())
    }
}

/// What EC2 is asked, for the errors.
struct Asked {
    operation: &'static str,
    what: String,
}

impl Asked {
    /// What the answer to a call says that was not to be carried out: EC2 refuses it either way, in two manners.
    /// Source: "DryRun", Amazon EC2 API reference, common parameters.
    fn would<T>(&self, answer: Result<T, Cause>) -> Result<bool, Ec2Error> {
        match answer {
            Err(cause) if cause.code() == Some("DryRunOperation") => Ok(true),
            Err(cause) if cause.is_denied() => Ok(false),
            Err(cause) => Err(self.failed(cause)),
            Ok(_) => Err(self.malformed("it was carried out, although it was to be tried only")),
        }
    }

    fn failed(&self, source: Cause) -> Ec2Error {
        let kind = Ec2ErrorKind::of(&source);
        Ec2Error::Call { operation: self.operation, what: self.what.clone(), kind, source }
    }

    fn malformed(&self, why: impl Into<String>) -> Ec2Error {
        Ec2Error::Malformed { operation: self.operation, what: self.what.clone(), why: why.into() }
    }

    fn broken(&self, broken: Broken) -> Ec2Error {
        match broken {
            Broken::Failed(source) => self.failed(source),
            Broken::Malformed(why) => self.malformed(why),
        }
    }
}

fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    let values = values.into_iter().map(str::to_owned).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}

fn joined<T: ToString>(ids: &[T]) -> String {
    ids.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[cfg(feature = "lab")]
mod tests;
