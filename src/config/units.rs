//! Spans of time and amounts of memory, as they are written in configuration.
//!
//! Own types rather than a crate's: the grammar is strict (each unit at most once, largest first), the
//! printed form is canonical, and what is printed parses back. No range lives here: ranges belong to keys,
//! see `config::keys`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that is neither a duration nor a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not of the form of a duration.
    #[error("a duration like `250ms`, `5m` or `1h30m`")]
    Duration,
    /// Not of the form of a size.
    #[error("a size like `512MiB` or `8GiB`")]
    Size,
    /// More than 64 bits hold.
    #[error("a number that fits 64 bits")]
    TooLarge,
}

/// A span of time in whole milliseconds, written `250ms`, `5m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan {
    millis: u64,
}

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl TimeSpan {
    /// A span of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The span in milliseconds, for what is compared with moments.
    pub fn as_signed_millis(self) -> i64 {
        i64::try_from(self.millis).unwrap_or(i64::MAX)
    }

    /// The span as the standard library's type.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl FromStr for TimeSpan {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut units = TIME_UNITS.iter();
        let mut millis = 0_u64;
        if rest.is_empty() {
            return Err(InvalidUnit::Duration);
        }
        while !rest.is_empty() {
            let (count, tail) = split_number(rest).ok_or(InvalidUnit::Duration)?;
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) = units.find(|(name, _)| *name == unit).ok_or(InvalidUnit::Duration)?;
            let count: u64 = count.parse().map_err(|_| InvalidUnit::TooLarge)?;
            let part = count.checked_mul(*factor).ok_or(InvalidUnit::TooLarge)?;
            millis = millis.checked_add(part).ok_or(InvalidUnit::TooLarge)?;
            rest = tail;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, factor) in TIME_UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// An amount of memory or disk in bytes, written `512MiB`, `8GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize {
    bytes: u64,
}

const SIZE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// So many mebibytes.
    pub const fn from_mib(mib: u32) -> Self {
        Self { bytes: (mib as u64) << 20 }
    }

    /// So many gibibytes.
    pub const fn from_gib(gib: u32) -> Self {
        Self { bytes: (gib as u64) << 30 }
    }

    /// The amount in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }

    /// The amount in gibibytes, the unit in which EBS counts, rounded up.
    pub const fn gib_ceil(self) -> u64 {
        self.bytes.div_ceil(1 << 30)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (count, unit) = split_number(text).ok_or(InvalidUnit::Size)?;
        let (_, shift) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidUnit::Size)?;
        let count: u64 = count.parse().map_err(|_| InvalidUnit::TooLarge)?;
        let bytes = count.checked_mul(1 << shift).ok_or(InvalidUnit::TooLarge)?;
        Ok(Self { bytes })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in SIZE_UNITS {
            let factor = 1_u64 << shift;
            if self.bytes >= factor && self.bytes.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.bytes / factor);
            }
        }
        f.write_str("0B")
    }
}

/// The leading digits and what follows them; none when there is no leading digit.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A type that is read and shown as text is that text wherever it is written down: what serde's `try_from` and
/// `into` ask for.
macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = <$name as std::str::FromStr>::Err;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
pub(super) use text_serde;

text_serde!(TimeSpan);
text_serde!(ByteSize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_strictly() {
        let millis = |text: &str| text.parse::<TimeSpan>().map(TimeSpan::as_millis);
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("90s"), Ok(90_000));
        assert_eq!(millis("0s"), Ok(0));
        for text in ["", "5", "m", "5 m", "5M", "1.5s", "-1s", "+1s", "30m1h", "1s1s", "5m ", "1d", "٣s"] {
            assert_eq!(millis(text), Err(InvalidUnit::Duration), "{text:?}");
        }
        assert_eq!(millis("99999999999999999999s"), Err(InvalidUnit::TooLarge));
        assert_eq!(millis("9999999999999999999h"), Err(InvalidUnit::TooLarge));
    }

    #[test]
    fn sizes_are_read_strictly() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(ByteSize::as_bytes);
        assert_eq!(bytes("8GiB"), Ok(8 << 30));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("0B"), Ok(0));
        for text in ["", "8", "GiB", "8GB", "8G", "8gib", "8 GiB", "1.5GiB", "-1GiB", "1GiB512MiB"] {
            assert_eq!(bytes(text), Err(InvalidUnit::Size), "{text:?}");
        }
        assert_eq!(bytes("99999999TiB"), Err(InvalidUnit::TooLarge));
    }

    #[test]
    fn ebs_sizes_are_rounded_up_to_gibibytes() {
        assert_eq!(ByteSize::from_gib(20).gib_ceil(), 20);
        assert_eq!(ByteSize::from_bytes((20 << 30) + 1).gib_ceil(), 21);
    }

    proptest! {
        #[test]
        fn printed_durations_parse_back(millis in any::<u64>()) {
            let span = TimeSpan::from_millis(millis);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn printed_sizes_parse_back(bytes in any::<u64>(), shift in 0_u32..50) {
            let size = ByteSize::from_bytes((bytes >> shift) << (shift / 10 * 10));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
