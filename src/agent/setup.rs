//! Before the first round: who this machine is, and what the operator wants.
//!
//! Both come from the metadata service, which may be late at boot; tags that it does not publish
//! come from EC2. Until both are known the agent waits and says so. A wrong configuration is said
//! with all its errors, and looked at again: the operator may be correcting it.

use serde::{Deserialize, Serialize};
use tokio::time::Duration;

use crate::aws::{Access, Ec2Error, HttpError, MetadataError, PublishedTag};
use crate::config::{self, ConfigErrors, InstanceTags, Loaded, Settings};
use crate::host::Root;
use crate::model::fact::chain;
use crate::model::plan::Subject;
use crate::model::tags;
use crate::model::{Halt, Identity, InstanceId, Observation, Region, WaitingOn};

/// What was seen, and what was wanted: all that a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// What the operator wants.
    pub settings: Settings,
    /// What was seen.
    pub observation: Observation,
}

/// Why the agent can't begin yet.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The way to AWS can't be made.
    #[error("preparing the way to AWS")]
    Access(#[source] HttpError),
    /// The metadata service gave no usable answer.
    #[error("asking the metadata service")]
    Metadata(#[source] MetadataError),
    /// EC2 did not say what the instance's tags are.
    #[error("asking EC2 for this instance's tags, which its metadata service does not publish")]
    Tags(#[source] Ec2Error),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(ConfigErrors),
}

impl SetupError {
    /// What the agent waits for, or why only a human helps.
    pub fn verdict(&self) -> Result<WaitingOn, Halt> {
        let about = match self {
            Self::Config(errors) => return Err(Halt::Configuration { errors: errors.to_string() }),
            Self::Access(_) | Self::Metadata(_) => Subject::Identity,
            Self::Tags(_) => Subject::Settings,
        };
        Ok(WaitingOn::Answer { about, why: chain(self) })
    }
}

/// What was learnt.
pub struct Setup {
    /// Who this machine is.
    pub identity: Identity,
    /// What the operator wants, and where each value came from.
    pub loaded: Loaded,
}

/// What the metadata service, or EC2 in its place, says of the configuration.
pub struct Sources {
    /// The instance's user data.
    pub user_data: Option<Vec<u8>>,
    /// The instance's tags.
    pub tags: InstanceTags,
}

/// Asks once for everything. Who the machine is comes first: where there is no metadata service, that is found out by
/// one question.
pub async fn learn(root: &Root, access: &Access) -> Result<Setup, SetupError> {
    let identity = access.metadata().identity().await.map_err(SetupError::Metadata)?;
    let sources = sources(access, &identity.region, &identity.instance).await?;
    let loaded = config::load(root.as_path(), sources.user_data.as_deref(), &sources.tags)
        .map_err(SetupError::Config)?;
    Ok(Setup { identity, loaded })
}

/// Asks once for user data and tags.
pub async fn sources(access: &Access, region: &Region, instance: &InstanceId) -> Result<Sources, SetupError> {
    let metadata = access.metadata();
    let (user_data, cluster, role) =
        tokio::join!(metadata.user_data(), metadata.tag(tags::CLUSTER), metadata.tag(tags::ROLE));
    let user_data = user_data.map_err(SetupError::Metadata)?;
    let (cluster, role) = (cluster.map_err(SetupError::Metadata)?, role.map_err(SetupError::Metadata)?);
    let published = |tag: PublishedTag| match tag {
        PublishedTag::Value(value) => Ok(Some(value)),
        PublishedTag::NotSet => Ok(None),
        PublishedTag::NotPublished => Err(()),
    };
    let tags = match (published(cluster), published(role)) {
        (Ok(cluster), Ok(role)) => InstanceTags { cluster, role },
        (Err(()), _) | (_, Err(())) => from_ec2(access, region, instance).await?,
    };
    Ok(Sources { user_data, tags })
}

async fn from_ec2(
    access: &Access,
    region: &Region,
    instance: &InstanceId,
) -> Result<InstanceTags, SetupError> {
    let mut tags = access.ec2(region).await.instance_tags(instance).await.map_err(SetupError::Tags)?;
    Ok(InstanceTags { cluster: tags.remove(tags::CLUSTER), role: tags.remove(tags::ROLE) })
}

/// How long to wait after the n-th failure in a row, from 0.
pub fn retry_after(failures: u32) -> Duration {
    let longest = Duration::from_secs(10);
    (Duration::from_millis(200) * 2_u32.saturating_pow(failures.min(8))).min(longest)
}
