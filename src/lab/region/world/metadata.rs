//! What each instance's metadata service knows (version 2 only).
//!
//! Paths and answers are those of the EC2 user guide, "Instance metadata categories".

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::compute::{Instance, InstanceId, InstanceState};
use super::{Refusal, World};

/// Tokens live 1 second to 6 hours.
const TOKEN_TTL_S: std::ops::RangeInclusive<u64> = 1..=21_600;

/// What is wrong with one instance's metadata service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImdsFaults {
    /// Refuses connections for this long after the fault is set (or the instance launched).
    pub late_ms: u64,
    /// Refuses connections for good.
    pub absent: bool,
    /// Answers everything with this status.
    pub status: Option<u16>,
    /// Waits this long before each answer.
    pub slow_ms: u64,
    /// When `late_ms` is over, in milliseconds since 1970. Computed.
    #[serde(skip_deserializing)]
    pub refused_until_ms: Option<u64>,
}

impl ImdsFaults {
    pub(super) fn starting_at(&self, now: u64) -> Self {
        Self { refused_until_ms: (self.late_ms > 0).then(|| now + self.late_ms), ..self.clone() }
    }
}

/// Whether a metadata service takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdsGate {
    /// It does.
    Open,
    /// It refuses them for now.
    Closed,
    /// The instance is gone.
    Gone,
}

/// A role's credentials as the metadata service hands them out.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key id, by which the region knows who calls.
    pub access_key: String,
    pub(super) secret_key: String,
    pub(super) token: String,
    /// When they expire, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl World {
    /// Sets what is wrong with an instance's metadata service; the default value clears it.
    pub fn set_imds_faults(&mut self, id: &str, faults: &ImdsFaults) -> Result<(), Refusal> {
        let id = self.instance_id(id)?;
        let faults = faults.starting_at(self.now);
        if let Some(instance) = self.view_mut().instances.get_mut(&id) {
            instance.imds_faults = faults;
        }
        self.settle();
        Ok(())
    }

    /// Whether an instance's metadata service takes connections now.
    pub fn imds_gate(&self, id: &InstanceId) -> ImdsGate {
        let Some(i) = self.view.instances.get(id) else { return ImdsGate::Gone };
        let late = i.imds_faults.refused_until_ms.is_some_and(|at| at > self.now);
        if i.state == InstanceState::Terminated {
            ImdsGate::Gone
        } else if i.imds_faults.absent || late || !i.powered {
            ImdsGate::Closed
        } else {
            ImdsGate::Open
        }
    }

    /// Hands out a session token.
    pub fn metadata_token(&mut self, id: &InstanceId, ttl_s: Option<u64>) -> Result<String, Refusal> {
        let ttl = ttl_s
            .filter(|ttl| TOKEN_TTL_S.contains(ttl))
            .ok_or_else(|| Refusal::bad("BadRequest", "a ttl of 1 to 21600 seconds is needed"))?;
        let token = self.hex(56);
        let now = self.now;
        self.metadata_tokens.retain(|_, (_, until)| *until > now);
        self.metadata_tokens.insert(token.clone(), (id.clone(), now + ttl * 1000));
        Ok(token)
    }

    /// Forgets every session token of an instance, as when its metadata service was restarted.
    pub fn expire_metadata_tokens(&mut self, id: &str) {
        self.metadata_tokens.retain(|_, (owner, _)| owner.as_str() != id);
    }

    /// Answers a metadata request with a body of any bytes: 401 without a valid token, 404 for what is not set.
    /// `path` is what follows `/latest/`.
    pub fn metadata(&self, id: &InstanceId, token: Option<&str>, path: &str) -> Result<Vec<u8>, Refusal> {
        let valid = token
            .and_then(|t| self.metadata_tokens.get(t))
            .is_some_and(|(owner, until)| owner == id && *until > self.now);
        if !valid {
            return Err(Refusal::new(401, "Unauthorized", "a valid token is needed"));
        }
        let instance = self.view.instances.get(id).ok_or_else(not_set)?;
        if let Some(path) = path.strip_prefix("meta-data/") {
            self.meta_data(instance, path).map(String::into_bytes)
        } else {
            match path {
                "" => Ok("dynamic\nmeta-data\nuser-data".into()),
                "user-data" => instance.spec.user_data_bytes()?.ok_or_else(not_set),
                "dynamic/instance-identity/document" => Ok(self.identity_document(instance).into_bytes()),
                _ => Err(not_set()),
            }
        }
    }

    fn meta_data(&self, i: &Instance, path: &str) -> Result<String, Refusal> {
        let region = &self.config.region;
        let role = i.spec.iam_role.as_deref();
        match path {
            "" => Ok("autoscaling/\nevents/\nhostname\niam/\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nplacement/\ntags/".into()),
            "ami-id" => Ok(i.spec.image_id.clone()),
            "instance-id" => Ok(i.id.to_string()),
            "instance-life-cycle" => Ok(if i.spec.spot { "spot" } else { "on-demand" }.into()),
            "instance-type" => Ok(i.spec.instance_type.clone()),
            "local-ipv4" => Ok(i.private_ip.to_string()),
            "mac" => Ok(i.mac.clone()),
            "hostname" | "local-hostname" => Ok(i.host_name(region)),
            "placement/" => Ok("availability-zone\nregion".into()),
            "placement/availability-zone" => Ok(i.zone.clone()),
            "placement/region" => Ok(region.clone()),
            "autoscaling/target-lifecycle-state" => {
                i.lifecycle.as_ref().map(|l| l.target().to_owned()).ok_or_else(not_set)
            }
            "events/" => Ok("maintenance/\nrecommendations/".into()),
            "events/maintenance/" => Ok("history\nscheduled".into()),
            "tags/instance" | "tags/instance/" if i.spec.metadata_tags => {
                Ok(i.tags.keys().cloned().collect::<Vec<_>>().join("\n"))
            }
            "iam/security-credentials" | "iam/security-credentials/" => {
                role.map(str::to_owned).ok_or_else(not_set)
            }
            _ if path.starts_with("spot/") || path.starts_with("events/") => {
                i.notices.answer(path).ok_or_else(not_set)
            }
            _ => {
                if let Some(key) = path.strip_prefix("tags/instance/").filter(|_| i.spec.metadata_tags) {
                    return i.tags.get(key).cloned().ok_or_else(not_set);
                }
                let asked = path.strip_prefix("iam/security-credentials/");
                match (asked, role, &i.credentials) {
                    (Some(asked), Some(role), Some(c)) if asked == role => Ok(json!({
                        "Code": "Success",
                        "LastUpdated": crate::lab::region::clock::iso8601(i.launched_ms),
                        "Type": "AWS-HMAC",
                        "AccessKeyId": c.access_key,
                        "SecretAccessKey": c.secret_key,
                        "Token": c.token,
                        "Expiration": crate::lab::region::clock::iso8601(self.credentials_expiry(c)),
                    })
                    .to_string()),
                    _ => Err(not_set()),
                }
            }
        }
    }

    /// Credentials are renewed well before they end, under the same access key id here.
    fn credentials_expiry(&self, credentials: &Credentials) -> u64 {
        let life = self.config.timings.credentials_ms;
        if self.now + life / 4 < credentials.expires_ms { credentials.expires_ms } else { self.now + life }
    }

    fn identity_document(&self, i: &Instance) -> String {
        let document = json!({
            "accountId": self.config.account,
            "architecture": "x86_64",
            "availabilityZone": i.zone,
            "imageId": i.spec.image_id,
            "instanceId": i.id,
            "instanceType": i.spec.instance_type,
            "pendingTime": crate::lab::region::clock::iso8601(i.launched_ms),
            "privateIp": i.private_ip.to_string(),
            "region": self.config.region,
            "version": "2017-09-30",
        });
        document.to_string()
    }
}

fn not_set() -> Refusal {
    Refusal::new(404, "NotFound", "not set")
}
