//! Events: what people are told in the API.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::{ApiCause, ApiClient, ApiError, FIELD_MANAGER};

/// Where events on what has no namespace are.
pub(super) const NAMESPACE: &str = "default";
/// The event on workers that share a zone. It has a name of its own, so that there is never more than one.
const SHARED_ZONE: &str = "quorate.workers-share-zone";

fn object() -> String {
    format!("Event {NAMESPACE}/{SHARED_ZONE}")
}

/// A warning about an object, seen once, at this moment.
pub(super) fn warning(about: ObjectReference, reason: &str, message: &str, at: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta { namespace: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        involved_object: about,
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource { component: Some(FIELD_MANAGER.to_owned()), host: None }),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(1),
        ..Event::default()
    }
}

impl ApiClient {
    fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// What the event on workers that share a zone says; `None` when there is none, or none any more: the API
    /// forgets events after an hour.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn shared_zone_told(&self) -> Result<Option<String>, ApiError> {
        let found = self.events().get_opt(SHARED_ZONE).await;
        let found = found.map_err(|error| ApiError::Read { object: object(), source: error.into() })?;
        Ok(found.map(|event| event.message.unwrap_or_default()))
    }

    /// Tells, at `now` (in milliseconds since 1970), that workers share a zone.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn tell_shared_zone(&self, message: &str, now: i64) -> Result<(), ApiError> {
        let failed = |source| ApiError::Apply { object: object(), source };
        let at = Timestamp::from_millisecond(now).map_err(|_| failed(ApiCause::Time(now)))?;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some("kube-system".to_owned()),
            ..ObjectReference::default()
        };
        let mut event = warning(about, "WorkersShareZone", message, at);
        event.metadata.name = Some(SHARED_ZONE.to_owned());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let told = self.events().patch(SHARED_ZONE, &params, &Patch::Apply(&event)).await;
        told.map(drop).map_err(|error| failed(error.into()))
    }
}
