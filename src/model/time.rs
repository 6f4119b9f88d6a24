//! Two clocks' worth of time: a record's own timestamp, and logtier's bookkeeping.

use std::fmt;
use std::time::Duration;

use chrono::DateTime;

/// When a record says it happened: nanoseconds since 1970 UTC, from 1677 to 2262.
///
/// The writer's clock; it orders nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A `ts` that is neither RFC 3339 nor milliseconds, or lies outside of 1677–2262.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ts \"{0}\" is neither RFC 3339 nor unix milliseconds between the years 1677 and 2262")]
pub struct InvalidTimestamp(pub String);

impl Timestamp {
    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub fn from_millis(millis: i64) -> Result<Self, InvalidTimestamp> {
        millis.checked_mul(1_000_000).map(Self).ok_or_else(|| InvalidTimestamp(millis.to_string()))
    }

    pub fn nanos(self) -> i64 {
        self.0
    }

    /// RFC 3339 with any offset, or unix milliseconds in digits.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let invalid = || InvalidTimestamp(text.chars().take(64).collect());
        if let Ok(millis) = text.parse::<i64>() {
            return Self::from_millis(millis);
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| invalid())?;
        time.timestamp_nanos_opt().map(Self).ok_or_else(invalid)
    }

    /// Appends RFC 3339 in UTC with the fewest of 3, 6 or 9 digits that say all. Every line that comes in is
    /// written with it: without chrono's general format it takes a fifth of the time.
    pub(super) fn push_text(self, out: &mut Vec<u8>) {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(day);
        let mut text = *b"0000-00-00T00:00:00.";
        for (place, number) in [
            (0, year / 100),
            (2, year % 100),
            (5, month),
            (8, day),
            (11, second / 3_600),
            (14, second / 60 % 60),
            (17, second % 60),
        ] {
            text[place..place + 2].copy_from_slice(&digits::<2>(number));
        }
        out.extend_from_slice(&text);
        let fraction = digits::<9>(nanos);
        let shown = match nanos {
            n if n % 1_000_000 == 0 => 3,
            n if n % 1_000 == 0 => 6,
            _ => 9,
        };
        out.extend_from_slice(&fraction[..shown]);
        out.push(b'Z');
    }
}

/// The last `N` decimal digits of a number that is not negative.
fn digits<const N: usize>(mut number: i64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar: `civil_from_days` of Howard
/// Hinnant's "chrono-Compatible Low-Level Date Algorithms". Years begin in March here, so that the leap day is
/// their last.
fn civil_from_days(day: i64) -> (i64, i64, i64) {
    // Of 400 years, after which the calendar begins again.
    const DAYS_OF_ERA: i64 = 146_097;
    let from_march_of_0 = day + 719_468;
    let (era, day) = (from_march_of_0.div_euclid(DAYS_OF_ERA), from_march_of_0.rem_euclid(DAYS_OF_ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day_of_month)
}

/// RFC 3339 in UTC with the fewest of 3, 6 or 9 digits that say all.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(32);
        self.push_text(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// A moment of logtier's own bookkeeping: milliseconds since 1970 UTC, as the tables hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

impl Millis {
    /// Later than anything that happens; "no such moment".
    pub const NEVER: Self = Self(i64::MAX);
    pub const ZERO: Self = Self(0);
    const PER_DAY: i64 = 86_400_000;

    pub fn new(millis: i64) -> Self {
        Self(millis)
    }

    pub fn get(self) -> i64 {
        self.0
    }

    /// Saturates at [`Millis::NEVER`].
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Days since 1970-01-01 UTC.
    pub fn day(self) -> i64 {
        self.0.div_euclid(Self::PER_DAY)
    }

    /// The first moment of a [`Millis::day`].
    pub fn of_day(day: i64) -> Self {
        Self(day.saturating_mul(Self::PER_DAY))
    }

    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(1_000_000))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_prints() {
        let cases = [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z"),
            ("2026-11-22T18:00:00.5+08:00", "2026-11-22T10:00:00.500Z"),
            ("2026-11-22T10:00:00.000001Z", "2026-11-22T10:00:00.000001Z"),
            ("2026-11-22T10:00:00.123456789Z", "2026-11-22T10:00:00.123456789Z"),
            ("1763805600000", "2025-11-22T10:00:00.000Z"),
            ("-1", "1969-12-31T23:59:59.999Z"),
        ];
        for (text, printed) in cases {
            assert_eq!(Timestamp::parse(text).map(|ts| ts.to_string()).as_deref(), Ok(printed), "{text}");
        }
        for bad in ["", "yesterday", "2026-11-22", "0001-01-01T00:00:00Z", "99999999999999999"] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_chrono_prints(nanos: i64, unit in prop::sample::select(vec![1, 1_000, 1_000_000, 86_400_000_000_000])) {
            let nanos = nanos / unit * unit;
            let digits = match nanos {
                n if n % 1_000_000 == 0 => SecondsFormat::Millis,
                n if n % 1_000 == 0 => SecondsFormat::Micros,
                _ => SecondsFormat::Nanos,
            };
            let chrono = DateTime::<Utc>::from_timestamp_nanos(nanos).to_rfc3339_opts(digits, true);
            prop_assert_eq!(Timestamp(nanos).to_string(), chrono);
        }
    }

    #[test]
    fn days_round_down_before_1970() {
        assert_eq!(Millis::new(-1).day(), -1);
        assert_eq!(Millis::of_day(20_000).day(), 20_000);
    }
}
