//! One range of an object's bytes (RFC 9110, section 14).

use std::ops::Range;

use super::not_implemented;
use crate::lab::region::world::Refusal;

/// The bytes that a `Range` header means of an object of this size.
pub(super) fn bytes(header: &str, size: usize) -> Result<Range<usize>, Refusal> {
    let unsatisfiable = || Refusal::new(416, "InvalidRange", "The requested range is not satisfiable");
    let odd = || not_implemented("this kind of range");
    let (first, last) =
        header.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(odd)?;
    let number = |text: &str| text.parse::<usize>().map_err(|_| odd());
    let range = match (first, last) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
    };
    if range.is_empty() { Err(unsatisfiable()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_of_the_object() {
        assert_eq!(bytes("bytes=2-4", 10), Ok(2..5));
        assert_eq!(bytes("bytes=2-", 10), Ok(2..10));
        assert_eq!(bytes("bytes=2-99", 10), Ok(2..10));
        assert_eq!(bytes("bytes=-3", 10), Ok(7..10));
        assert_eq!(bytes("bytes=-30", 10), Ok(0..10));
        assert_eq!(bytes("bytes=10-", 10).unwrap_err().code, "InvalidRange");
        assert_eq!(bytes("bytes=0-", 0).unwrap_err().code, "InvalidRange");
        for odd in ["bytes=1-2,4-5", "lines=1-2", "bytes=x-"] {
            assert_eq!(bytes(odd, 10).unwrap_err().code, "NotImplemented", "{odd}");
        }
    }
}
