//! Bootstrap tokens. Source: "Authenticating with Bootstrap Tokens" on kubernetes.io.
//!
//! The controller-manager takes away those that have ended.

use k8s_openapi::api::core::v1::Secret as ApiSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

use super::{ApiCause, ApiClient, ApiError, FIELD_MANAGER, NAMESPACE};
use crate::kubernetes::join::BootstrapToken;
use crate::kubernetes::objects::{BOOTSTRAPPERS, MANAGED_BY};

const KIND: &str = "bootstrap.kubernetes.io/token";

impl ApiClient {
    fn secrets(&self) -> Api<ApiSecret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes a token that is good until then, in milliseconds since 1970, for joining and nothing else.
    ///
    /// # Errors
    /// [`ApiError::Apply`].
    pub async fn create_token(&self, token: &BootstrapToken, ends: i64) -> Result<(), ApiError> {
        let failed = |source| ApiError::Apply { object: title(token), source };
        let ends = Timestamp::from_millisecond(ends).map_err(|_| failed(ApiCause::Time(ends)))?;
        let data = [
            ("token-id", token.id().to_owned()),
            ("token-secret", token.secret().expose().to_owned()),
            ("expiration", ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("auth-extra-groups", BOOTSTRAPPERS.to_owned()),
            ("description", "for machines that join, made by quorate".to_owned()),
        ];
        let secret = ApiSecret {
            metadata: ObjectMeta {
                name: Some(name(token)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            type_: Some(KIND.to_owned()),
            string_data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ApiSecret::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.secrets().create(&params, &secret).await.map(drop).map_err(|error| failed(error.into()))
    }

    /// Whether the API takes this token until then, for joining.
    ///
    /// # Errors
    /// [`ApiError::Read`].
    pub async fn takes_token(&self, token: &BootstrapToken, ends: i64) -> Result<bool, ApiError> {
        let found = self.secrets().get_opt(&name(token)).await;
        let found = found.map_err(|error| ApiError::Read { object: title(token), source: error.into() })?;
        let Some(found) = found.filter(|found| found.type_.as_deref() == Some(KIND)) else {
            return Ok(false);
        };
        let data = found.data.unwrap_or_default();
        let is = |key: &str, value: &str| data.get(key).is_some_and(|bytes| bytes.0 == value.as_bytes());
        let expires = data
            .get("expiration")
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .and_then(|text| text.parse::<Timestamp>().ok());
        Ok(is("token-secret", token.secret().expose())
            && is("usage-bootstrap-authentication", "true")
            && is("auth-extra-groups", BOOTSTRAPPERS)
            // Written down to the second.
            && expires.is_some_and(|expires| expires.as_millisecond() >= ends - 1000))
    }
}

fn name(token: &BootstrapToken) -> String {
    format!("bootstrap-token-{}", token.id())
}

fn title(token: &BootstrapToken) -> String {
    format!("Secret {NAMESPACE}/{}", name(token))
}
