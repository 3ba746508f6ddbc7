//! Requests for nodes' certificates.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};

use super::{ApiCause, ApiClient, ApiError, FIELD_MANAGER, events};
use crate::model::enrolment::{CertificateRequest, NodeSigner};
use crate::model::step::{PendingRequest, RequestRef};
use crate::pki::request;

/// Where the reason stands for which a request was left pending.
const TOLD: &str = "quorate/pending";
/// How many requests come on a page.
const PAGE: u32 = 500;

impl ApiClient {
    pub(super) fn requests(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.client.clone())
    }

    /// The requests of nodes that nobody has approved, denied, or answered.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn pending_requests(&self) -> Result<Vec<CertificateRequest>, ApiError> {
        let mut pending = Vec::new();
        for signer in NodeSigner::ALL {
            let selector = format!("spec.signerName={}", signer.name());
            let mut page = ListParams::default().fields(&selector).limit(PAGE);
            loop {
                let listed = self.requests().list(&page).await.map_err(|error| ApiError::Read {
                    object: format!("the requests to {}", signer.name()),
                    source: error.into(),
                })?;
                pending.extend(listed.items.iter().filter_map(|found| decode(found, signer)));
                match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(pending)
    }

    /// Approves a request, if it is still the version that was judged. `false`: it is not, or is gone.
    ///
    /// # Errors
    /// [`ApiError::Approve`].
    pub async fn approve(&self, request: &RequestRef, now: i64) -> Result<bool, ApiError> {
        let failed = |source| ApiError::Approve { request: request.name.clone(), source };
        let at = Timestamp::from_millisecond(now).map_err(|_| failed(ApiCause::Time(now)))?;
        let approved = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AgreesWithEC2".to_owned()),
            message: Some(
                "requester, name and addresses agree with EC2's word on a running instance of this cluster"
                    .to_owned(),
            ),
            last_update_time: Some(Time(at)),
            last_transition_time: None,
        };
        // With its version, the change is refused when the request is another by now.
        let change = serde_json::json!({
            "metadata": { "resourceVersion": request.version },
            "status": { "conditions": [approved] },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.requests().patch_approval(&request.name, &params, &Patch::Merge(&change)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Writes down on a request why it stays pending, and makes an event of it.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn leave(&self, pending: &PendingRequest, now: i64) -> Result<(), ApiError> {
        let name = &pending.request.name;
        let failed = |source| ApiError::Apply { object: format!("CertificateSigningRequest {name}"), source };
        let at = Timestamp::from_millisecond(now).map_err(|_| failed(ApiCause::Time(now)))?;
        let told = serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name, "annotations": { TOLD: &pending.why } },
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = self.requests().patch_metadata(name, &params, &Patch::Apply(&told)).await;
        let patched = match patched {
            Ok(patched) => patched,
            // Nothing to tell any more.
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        let about = ObjectReference {
            api_version: Some("certificates.k8s.io/v1".to_owned()),
            kind: Some("CertificateSigningRequest".to_owned()),
            name: Some(name.clone()),
            uid: patched.metadata.uid,
            ..ObjectReference::default()
        };
        let mut event = events::warning(about, "LeftPending", &pending.why, at);
        event.metadata.generate_name = Some(format!("{name}."));
        let events: Api<Event> = Api::namespaced(self.client.clone(), events::NAMESPACE);
        let made = events.create(&PostParams::default(), &event).await;
        made.map(drop).map_err(|error| failed(error.into()))
    }
}

/// Whether it is a node's, and nobody has decided on it or said why not.
pub(super) fn is_new(found: &CertificateSigningRequest) -> bool {
    let signer = NodeSigner::ALL.into_iter().find(|signer| signer.name() == found.spec.signer_name);
    let request = signer.and_then(|signer| decode(found, signer));
    request.is_some_and(|request| request.told.is_none())
}

/// The request, if nobody has decided on it.
fn decode(found: &CertificateSigningRequest, signer: NodeSigner) -> Option<CertificateRequest> {
    let decided = found.status.as_ref().is_some_and(|status| {
        status.certificate.as_ref().is_some_and(|bytes| !bytes.0.is_empty())
            || status.conditions.as_ref().is_some_and(|conditions| !conditions.is_empty())
    });
    if decided {
        return None;
    }
    let spec = &found.spec;
    let annotations: Option<&BTreeMap<String, String>> = found.metadata.annotations.as_ref();
    Some(CertificateRequest {
        name: found.metadata.name.clone()?,
        version: found.metadata.resource_version.clone()?,
        signer,
        requester: spec.username.clone().unwrap_or_default(),
        groups: spec.groups.iter().flatten().cloned().collect(),
        usages: spec.usages.iter().flatten().cloned().collect(),
        subject: request::read(&spec.request.0),
        told: annotations.and_then(|annotations| annotations.get(TOLD).cloned()),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    const USER: &str = "system:node:i-0123456789abcdef0";

    fn pending() -> CertificateSigningRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, USER);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut found: CertificateSigningRequest = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "csr-abcde", "resourceVersion": "17" },
            "spec": {
                "request": "",
                "signerName": NodeSigner::Client.name(),
                "username": "system:bootstrap:abcdef",
                "groups": ["system:bootstrappers", "system:authenticated"],
                "usages": ["digital signature", "client auth"],
            },
        }))
        .unwrap();
        found.spec.request = ByteString(pem.into_bytes());
        found
    }

    fn with_status(status: CertificateSigningRequestStatus) -> CertificateSigningRequest {
        CertificateSigningRequest { status: Some(status), ..pending() }
    }

    #[test]
    fn a_pending_request_is_told_with_who_asks_and_for_what() {
        let request = decode(&pending(), NodeSigner::Client).unwrap();
        assert_eq!((request.name.as_str(), request.version.as_str()), ("csr-abcde", "17"));
        assert_eq!(
            (request.signer, request.requester.as_str()),
            (NodeSigner::Client, "system:bootstrap:abcdef")
        );
        let set = |texts: [&str; 2]| texts.map(str::to_owned).into();
        assert_eq!(request.groups, set(["system:authenticated", "system:bootstrappers"]));
        assert_eq!(request.usages, set(["client auth", "digital signature"]));
        assert_eq!(request.subject.as_ref().unwrap().common_names, [USER]);
        assert_eq!((request.node(), request.told.as_deref()), (Some("i-0123456789abcdef0"), None));
    }

    #[test]
    fn a_request_that_somebody_decided_on_is_left_out() {
        for kind in ["Approved", "Denied", "Failed"] {
            let condition = CertificateSigningRequestCondition {
                type_: kind.to_owned(),
                status: "True".to_owned(),
                ..CertificateSigningRequestCondition::default()
            };
            let decided =
                CertificateSigningRequestStatus { conditions: Some(vec![condition]), certificate: None };
            assert_eq!(decode(&with_status(decided), NodeSigner::Client), None, "{kind}");
        }
        let signed = CertificateSigningRequestStatus {
            conditions: None,
            certificate: Some(ByteString(b"-----BEGIN CERTIFICATE-----".to_vec())),
        };
        assert_eq!(decode(&with_status(signed), NodeSigner::Client), None);
    }

    #[test]
    fn a_status_that_says_nothing_decides_nothing() {
        for status in [
            CertificateSigningRequestStatus::default(),
            CertificateSigningRequestStatus {
                conditions: Some(Vec::new()),
                certificate: Some(ByteString(Vec::new())),
            },
        ] {
            assert!(decode(&with_status(status), NodeSigner::Client).is_some());
        }
    }

    #[test]
    fn why_a_request_was_left_before_is_read_back() {
        let mut left = pending();
        left.metadata.annotations = Some(BTreeMap::from([
            ("other".to_owned(), "else".to_owned()),
            (TOLD.to_owned(), "EC2 knows no such instance".to_owned()),
        ]));
        let told = decode(&left, NodeSigner::Serving).unwrap().told;
        assert_eq!(told.as_deref(), Some("EC2 knows no such instance"));
    }

    #[test]
    fn a_request_that_cannot_be_read_is_told_with_why() {
        let mut odd = pending();
        odd.spec.request = ByteString(b"nothing".to_vec());
        let request = decode(&odd, NodeSigner::Client).unwrap();
        assert!(request.subject.as_ref().is_err_and(|why| why.contains("no PEM block")), "{request:?}");
        assert_eq!(request.node(), None);
    }
}
