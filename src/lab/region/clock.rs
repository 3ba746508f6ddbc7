//! The region's clock and the forms in which AWS writes time.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const ISO8601: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const SECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const EVENT: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const HTTP: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const AMZ: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// The machine's clock, in milliseconds since 1970. The laboratory has no other use for it than to
/// set the region's.
pub(super) fn wall_ms() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// `2026-01-31T12:00:00.000Z`.
pub(super) fn iso8601(ms: u64) -> String {
    moment(ms).format(&ISO8601).unwrap_or_default()
}

/// `2026-01-31T12:00:00Z`.
pub(super) fn iso8601_seconds(ms: u64) -> String {
    moment(ms).format(&SECONDS).unwrap_or_default()
}

/// `1 Jan 2026 12:00:00 GMT`, as scheduled events have it.
pub(super) fn event_date(ms: u64) -> String {
    moment(ms).format(&EVENT).unwrap_or_default()
}

/// `Sat, 31 Jan 2026 12:00:00 GMT`.
pub(super) fn http_date(ms: u64) -> String {
    moment(ms).format(&HTTP).unwrap_or_default()
}

/// Reads an `x-amz-date`, such as `20260131T120000Z`, into milliseconds since 1970.
pub(super) fn parse_amz_date(text: &str) -> Option<u64> {
    let moment = PrimitiveDateTime::parse(text, &AMZ).ok()?.assume_utc();
    u64::try_from(moment.unix_timestamp()).ok().map(|s| s * 1000)
}

fn moment(ms: u64) -> OffsetDateTime {
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .map_or(OffsetDateTime::UNIX_EPOCH, |t| t + time::Duration::milliseconds((ms % 1000).cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_aws_writes_them_and_read_back() {
        let ms = parse_amz_date("20260131T120001Z").unwrap();
        assert_eq!(iso8601(ms + 7), "2026-01-31T12:00:01.007Z");
        assert_eq!(http_date(ms), "Sat, 31 Jan 2026 12:00:01 GMT");
        assert_eq!(iso8601_seconds(ms + 7), "2026-01-31T12:00:01Z");
        assert_eq!(event_date(parse_amz_date("20260201T090043Z").unwrap()), "1 Feb 2026 09:00:43 GMT");
        assert_eq!(parse_amz_date("yesterday"), None);
    }
}
