//! Refuses answers in XML that end before their end.
//!
//! The SDK's reader of XML takes the end of the text for the end of every element that is still
//! open: a list that was cut off, by a proxy that says a shorter length or by a service that gave
//! up, passes for a shorter list. Here, a list that is not whole is no answer.
//!
//! What must not live here: anything else about an answer. Its meaning is the adapters' business.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// The check, for a client whose answers are XML or streams. Streams are left alone.
#[derive(Debug)]
pub(super) struct WholeXml;

impl Intercept for WholeXml {
    fn name(&self) -> &'static str {
        "WholeXml"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        // A bucket's policy is JSON, and whoever reads that sees where it ends.
        let is_json = body.trim_ascii_start().starts_with(b"{");
        if response.status().is_success() && !body.is_empty() && !is_json && !is_whole(body) {
            return Err("the XML ends before its end".into());
        }
        Ok(())
    }
}

/// Whether a text ends with the end of its first element.
fn is_whole(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let root = match body.strip_prefix(b"<?") {
        Some(rest) => match rest.windows(2).position(|two| two == b"?>") {
            Some(end) => rest[end + 2..].trim_ascii_start(),
            None => return false,
        },
        None => body,
    };
    let Some(inside) = root.strip_prefix(b"<") else { return false };
    let end = inside.iter().position(|byte| byte.is_ascii_whitespace() || b"/>".contains(byte));
    let name = &inside[..end.unwrap_or(inside.len())];
    if !inside.contains(&b'<') {
        return inside.ends_with(b"/>");
    }
    !name.is_empty()
        && body
            .strip_suffix(b">")
            .and_then(|body| body.trim_ascii_end().strip_suffix(name))
            .is_some_and(|body| body.ends_with(b"</"))
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_text_is_whole_when_its_first_element_ends() {
        for whole in
            ["<a/>", "<a x='1'/>\n", "<a></a>", "<?xml version='1.0'?>\n<a x='1'><b/></a >", "<a><a/></a>"]
        {
            assert!(is_whole(whole.as_bytes()), "{whole}");
        }
    }

    #[test]
    fn no_beginning_of_a_text_is_whole() {
        let text = "<?xml version='1.0'?><list x='1'><item><list>b</list></item><item/><more>c</more></list>";
        assert!(is_whole(text.as_bytes()));
        let cut: Vec<_> = (1..text.len()).filter(|end| is_whole(&text.as_bytes()[..*end])).collect();
        // The one exception is an inner element of the root's own name; AWS's lists have none.
        assert_eq!(cut, [text.find("</item>").unwrap()]);
    }
}
