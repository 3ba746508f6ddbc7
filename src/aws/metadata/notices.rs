//! What EC2 and Auto Scaling announce to an instance.
//!
//! Sources: "Instance metadata categories" and "Spot Instance interruption notices", EC2 user guide; "Retrieve the target
//! lifecycle state through instance metadata", Auto Scaling user guide.

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::strtime;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{META_DATA, MetadataError, MetadataService};
use crate::model::departure::{Maintenance, MaintenanceCode, SpotAction, SpotInterruption, TargetState};

const TARGET: &str = "autoscaling/target-lifecycle-state";
const SPOT: &str = "spot/instance-action";
const REBALANCE: &str = "events/recommendations/rebalance";
const SCHEDULED: &str = "events/maintenance/scheduled";

/// How scheduled events have their times, as `21 Jan 2026 09:00:43 GMT`.
const GMT: &str = "%d %b %Y %H:%M:%S GMT";

#[derive(Deserialize)]
struct Interruption {
    action: SpotAction,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recommendation {
    notice_time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled {
    event_id: String,
    code: MaintenanceCode,
    not_before: String,
    state: String,
}

fn malformed(name: &str, found: &str, expected: &'static str) -> MetadataError {
    super::malformed(&format!("{META_DATA}{name}"), found, expected)
}

fn json<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, MetadataError> {
    serde_json::from_str(text).map_err(|_| malformed(name, text, "the JSON that EC2's user guide describes"))
}

fn iso_8601(name: &str, text: &str) -> Result<i64, MetadataError> {
    let at =
        text.parse::<Timestamp>().map_err(|_| malformed(name, text, "a time like 2026-01-21T09:00:43Z"))?;
    Ok(at.as_millisecond())
}

fn gmt(name: &str, text: &str) -> Result<i64, MetadataError> {
    let wrong = |_| malformed(name, text, "a time like 21 Jan 2026 09:00:43 GMT");
    let at = strtime::parse(GMT, text).and_then(|parsed| parsed.to_datetime()).map_err(wrong)?;
    let at = at.to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC).map_err(wrong)?;
    Ok(at.timestamp().as_millisecond())
}

impl MetadataService {
    /// What the instance's group wants of it; `None` when it is in no group.
    pub async fn target_state(&self) -> Result<Option<TargetState>, MetadataError> {
        Ok(self.optional(TARGET).await?.as_deref().map(TargetState::from))
    }

    /// The interruption of a spot instance that is announced, if one is.
    pub async fn spot_interruption(&self) -> Result<Option<SpotInterruption>, MetadataError> {
        let Some(text) = self.optional(SPOT).await? else { return Ok(None) };
        let Interruption { action, time } = json(SPOT, &text)?;
        Ok(Some(SpotInterruption { action, at: iso_8601(SPOT, &time)? }))
    }

    /// Since when EC2 recommends to replace this spot instance, in milliseconds since 1970; `None` when it does not.
    pub async fn rebalance_recommendation(&self) -> Result<Option<i64>, MetadataError> {
        let Some(text) = self.optional(REBALANCE).await? else { return Ok(None) };
        let Recommendation { notice_time } = json(REBALANCE, &text)?;
        iso_8601(REBALANCE, &notice_time).map(Some)
    }

    /// The scheduled events of this instance that are still to come or under way.
    pub async fn scheduled_maintenance(&self) -> Result<Vec<Maintenance>, MetadataError> {
        let Some(text) = self.optional(SCHEDULED).await? else { return Ok(Vec::new()) };
        let events: Vec<Scheduled> = json(SCHEDULED, &text)?;
        events
            .into_iter()
            .filter(|event| event.state == "active")
            .map(|event| {
                let not_before = gmt(SCHEDULED, &event.not_before)?;
                Ok(Maintenance { event: event.event_id, code: event.code, not_before })
            })
            .collect()
    }
}
