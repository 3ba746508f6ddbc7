//! The instance identity document: who this machine is, in one answer.
//!
//! Every instance has one, from its start on; it is made anew when the instance is started or rebooted, so what it says
//! holds for as long as this process may run. Its signature is not looked at: it tells the machine about itself, and
//! who can stand in for the metadata service can give the machine any user data.
//!
//! Source: "Instance identity documents for Amazon EC2 instances", EC2 user guide.

use serde::Deserialize;

use super::{MetadataError, malformed};
use crate::model::Identity;

pub(super) const PATH: &str = "/latest/dynamic/instance-identity/document";

/// What of it is used.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub identity: Identity,
    pub instance_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    instance_id: Option<String>,
    region: Option<String>,
    availability_zone: Option<String>,
    /// IPv6 where the instance has no IPv4 address.
    private_ip: Option<String>,
    /// What `privateIp` gives way to.
    #[serde(rename = "privateIPv4Address")]
    private_ipv4: Option<String>,
    instance_type: Option<String>,
}

impl Document {
    /// Reads it.
    pub(super) fn parse(text: &str) -> Result<Self, MetadataError> {
        let fields: Fields = serde_json::from_str(text)
            .map_err(|_| malformed(PATH, text, "an instance identity document in JSON"))?;
        let Fields { instance_id, region, availability_zone, private_ip, private_ipv4, instance_type } =
            fields;
        Ok(Self {
            identity: Identity {
                instance: field(instance_id, "an EC2 instance id as `instanceId`")?,
                region: field(region, "a region's name as `region`")?,
                zone: field(availability_zone, "an availability zone's name as `availabilityZone`")?,
                address: field(private_ipv4.or(private_ip), "an IPv4 address as `privateIp`")?,
            },
            instance_type: instance_type.filter(|kind| !kind.is_empty()),
        })
    }
}

fn field<T: std::str::FromStr>(value: Option<String>, expected: &'static str) -> Result<T, MetadataError> {
    let text = value.unwrap_or_default();
    text.parse().map_err(|_| malformed(PATH, &text, expected))
}
