//! Lists that come in pages, read to their end.
//!
//! A list is all of its pages or an error: half a list would say of the other half that it is not
//! there.
//!
//! What must not live here: what is listed, and how each service words its errors.

use super::Cause;

/// A page, as a service sent it.
pub(super) struct Page<T> {
    /// What is on it. An empty list comes as an empty element: without one, nobody has said "none".
    pub(super) items: Option<Vec<T>>,
    /// The token of the next one, if there is one.
    pub(super) next: Option<String>,
}

/// Why a list is not whole.
#[derive(Debug)]
pub(super) enum Broken {
    /// A call failed.
    Failed(Cause),
    /// An answer is not what it should be.
    Malformed(&'static str),
}

/// Asks for page after page, from the first, which has no token, to the last, which names no other.
pub(super) async fn all<T, F>(ask: impl Fn(Option<String>) -> F) -> Result<Vec<T>, Broken>
where
    F: Future<Output = Result<Page<T>, Cause>>,
{
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = ask(token.clone()).await.map_err(Broken::Failed)?;
        all.extend(page.items.ok_or(Broken::Malformed("there is no list in it"))?);
        match page.next.filter(|next| !next.is_empty()) {
            None => return Ok(all),
            next if next == token => return Err(Broken::Malformed("the same page twice")),
            next => token = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn list(pages: &[(Option<&[u8]>, &str)]) -> Result<Vec<u8>, Broken> {
        all(|token| {
            let (items, next) = pages[token.map_or(0, |token| token.parse::<usize>().unwrap())];
            let page = Page { items: items.map(<[u8]>::to_vec), next: Some(next.to_owned()) };
            std::future::ready(Ok(page))
        })
        .await
    }

    #[tokio::test]
    async fn a_list_is_all_of_its_pages() {
        let pages: [(Option<&[u8]>, &str); 3] = [(Some(&[1, 2]), "1"), (Some(&[]), "2"), (Some(&[3]), "")];
        assert_eq!(list(&pages).await.unwrap(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_page_without_a_list_or_twice_the_same_is_no_end() {
        let without: [(Option<&[u8]>, &str); 2] = [(Some(&[1]), "1"), (None, "")];
        let twice: [(Option<&[u8]>, &str); 2] = [(Some(&[1]), "1"), (Some(&[1]), "1")];
        assert!(matches!(list(&without).await, Err(Broken::Malformed(_))));
        assert!(matches!(list(&twice).await, Err(Broken::Malformed(_))));
    }
}
