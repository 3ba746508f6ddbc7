//! The parameters of AWS's query protocol: a form with `Action`, `InstanceId.1`, `Filter.2.Value.1`.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{Form, FromRequest, Request};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::lab::region::world::Refusal;

/// The parameters of one request.
pub(super) struct Params(BTreeMap<String, String>);

/// One filter: a name and the patterns of which one must fit.
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

impl Filter {
    /// Whether a value fits; `*` and `?` are wildcards, as in EC2's filters.
    pub(super) fn fits(&self, value: &str) -> bool {
        self.values.iter().any(|pattern| wildcard(pattern.as_bytes(), value.as_bytes()))
    }
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|n| wildcard(rest, &text[n..])),
        Some((p, rest)) => {
            text.split_first().is_some_and(|(t, tail)| (*p == b'?' || p == t) && wildcard(rest, tail))
        }
    }
}

impl Params {
    /// Reads the form of a request.
    pub(super) async fn read(parts: &Parts, body: Bytes) -> Result<Self, Refusal> {
        let request = Request::from_parts(parts.clone(), Body::from(body));
        let Form(pairs) = Form::<Vec<(String, String)>>::from_request(request, &())
            .await
            .map_err(|e| Refusal::bad("MalformedQueryString", e.to_string()))?;
        Ok(Self(pairs.into_iter().collect()))
    }

    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    pub(super) fn action(&self) -> &str {
        self.get("Action").unwrap_or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            let message = format!("The request must contain the parameter {name}");
            Refusal::bad("MissingParameter", message)
        })
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.get(name).map(|v| v.parse().map_err(|_| invalid(name, v))).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(invalid(name, other)),
        }
    }

    /// `NAME.1`, `NAME.2`, … as far as they go.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        (1..).map_while(|n| self.0.get(&format!("{name}.{n}")).cloned()).collect()
    }

    /// `PREFIX.1.Key`/`.Value`, … as far as they go.
    pub(super) fn tags(&self, prefix: &str) -> BTreeMap<String, String> {
        let part = |n: u32, what: &str| self.0.get(&format!("{prefix}.{n}.{what}")).cloned();
        (1..).map_while(|n| Some((part(n, "Key")?, part(n, "Value").unwrap_or_default()))).collect()
    }

    /// `PREFIX.1.Name` with `PREFIX.1.VALUES.1`, … as far as they go.
    pub(super) fn filters(&self, prefix: &str, values: &str) -> Vec<Filter> {
        let name = |n: u32| self.0.get(&format!("{prefix}.{n}.Name")).cloned();
        (1..)
            .map_while(|n| {
                Some(Filter { name: name(n)?, values: self.list(&format!("{prefix}.{n}.{values}")) })
            })
            .collect()
    }

    /// One page of what was found, in order of `key`, and the token of the next one. A token names
    /// the last key that was answered, so that pages neither repeat nor skip what stays.
    pub(super) fn page<T>(
        &self,
        limit: Option<usize>,
        found: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>), Refusal> {
        self.page_after(self.get("NextToken"), limit, found, key)
    }

    /// The same, of a service that has another name for the token.
    #[allow(clippy::unused_self, reason = "a page of this request's answer")]
    pub(super) fn page_after<T>(
        &self,
        token: Option<&str>,
        limit: Option<usize>,
        found: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>), Refusal> {
        let after = match token {
            None => None,
            Some(token) => {
                let wrong = || Refusal::bad("InvalidNextToken", "The token is not valid");
                let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
                Some(String::from_utf8(bytes).map_err(|_| wrong())?)
            }
        };
        let mut rest = found.into_iter().filter(|item| after.as_ref().is_none_or(|a| key(item) > *a));
        let page: Vec<T> = rest.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
        let next = rest.next().and(page.last()).map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        Ok((page, next))
    }
}

fn invalid(name: &str, value: &str) -> Refusal {
    Refusal::bad("InvalidParameterValue", format!("Value ({value}) for parameter {name} is invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_know_wildcards_and_any_of_several_values() {
        let params = Params::of(&[
            ("Filter.1.Name", "tag:a"),
            ("Filter.1.Value.1", "x*z"),
            ("Filter.1.Value.2", "q?"),
        ]);
        let filters = params.filters("Filter", "Value");
        assert!(filters[0].fits("xyz") && filters[0].fits("qq"));
        assert!(!filters[0].fits("xy") && !filters[0].fits("q"));
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all = vec!["a", "b", "c"];
        let key = |s: &&str| (*s).to_owned();
        let (first, next) = Params::of(&[]).page(Some(2), all.clone(), key).unwrap();
        assert_eq!(first, ["a", "b"]);
        let token = next.unwrap();
        let (second, next) = Params::of(&[("NextToken", &token)]).page(Some(2), all, key).unwrap();
        assert_eq!((second, next), (vec!["c"], None));
    }
}
