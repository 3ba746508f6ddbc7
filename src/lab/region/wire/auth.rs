//! Reads the signature (version 4) of a request, as far as it says who calls what and when.

use axum::http::HeaderMap;

use crate::lab::region::clock;
use crate::lab::region::world::Refusal;

/// What a signature claims.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) access_key: String,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) date_ms: u64,
}

/// Reads `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …` and `x-amz-date`.
pub(super) fn parse(headers: &HeaderMap) -> Result<Signature, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let missing =
        || Refusal::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token");
    let malformed = || Refusal::bad("AuthorizationHeaderMalformed", "The authorization header is malformed");
    let authorization = text("authorization").ok_or_else(missing)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(malformed)?;
    let credential =
        fields.split(',').find_map(|f| f.trim().strip_prefix("Credential=")).ok_or_else(malformed)?;
    let [access_key, _day, region, service, "aws4_request"] = credential.split('/').collect::<Vec<_>>()[..]
    else {
        return Err(malformed());
    };
    let date_ms = text("x-amz-date").and_then(clock::parse_amz_date).ok_or_else(malformed)?;
    Ok(Signature { access_key: access_key.into(), region: region.into(), service: service.into(), date_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_who_calls_which_service() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-date", "20260131T120000Z".parse().unwrap());
        headers.insert(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIA1/20260131/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=0"
                .parse()
                .unwrap(),
        );
        let signature = parse(&headers).unwrap();
        assert_eq!((signature.access_key.as_str(), signature.service.as_str()), ("AKIA1", "s3"));
    }

    #[test]
    fn a_request_without_a_signature_is_refused() {
        assert_eq!(parse(&HeaderMap::new()).unwrap_err().code, "MissingAuthenticationToken");
    }
}
