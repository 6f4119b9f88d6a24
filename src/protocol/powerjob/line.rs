//! One line of a log, as a worker reports it and as a file holds it.
//!
//! `yyyy-MM-dd HH:mm:ss.SSS [address] LEVEL text`, in the server's local time. The text may hold line breaks; then
//! the lines after the first have no header.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{NaiveDate, NaiveDateTime, TimeZone as _};
use chrono_tz::Tz;

use crate::model::{Attrs, Level, Record, Timestamp};
use crate::protocol::known::Fingerprint;

/// `yyyy-MM-dd HH:mm:ss.SSS`
const TIME_BYTES: usize = 23;
/// A longer address is none; records take sources of 1024 bytes, and a header must be known by its beginning.
const MAX_ADDRESS_BYTES: usize = 512;
/// The longest header: time, address with brackets, the longest level, three spaces.
pub(super) const MAX_HEADER_BYTES: usize = TIME_BYTES + 3 + MAX_ADDRESS_BYTES + 10;

/// The time zone of the server that wrote a file, by its IANA name.
pub fn parse_zone(name: &str) -> Result<Tz, String> {
    let known = name.parse::<Tz>();
    known.map_err(|_| format!("\"{name}\" is no time zone, expected an IANA name such as Asia/Shanghai or UTC"))
}

/// PowerJob's `LogLevel`, and the word for a number that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineLevel {
    Debug,
    Info,
    Warn,
    Error,
    Off,
    Unknown,
}

impl LineLevel {
    const ALL: [Self; 6] = [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Off, Self::Unknown];

    /// Of a reported line's `logLevel`.
    pub fn from_code(code: i64) -> Self {
        match code {
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            99 => Self::Off,
            _ => Self::Unknown,
        }
    }

    /// The word in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Off => "OFF",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// `None` for the two that are no severity; the record then has the word among its `attrs`.
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Debug => Some(Level::Debug),
            Self::Info => Some(Level::Info),
            Self::Warn => Some(Level::Warn),
            Self::Error => Some(Level::Error),
            Self::Off | Self::Unknown => None,
        }
    }
}

/// A line, or a piece of one that is too long for one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub ts: Timestamp,
    /// `None` for a raw line.
    pub level: Option<LineLevel>,
    /// The worker's address; empty for a raw line, and for no other.
    pub source: &'a str,
    pub message: &'a [u8],
    /// No line break follows: the next piece does, or the file ends here.
    pub partial: bool,
}

impl<'a> Line<'a> {
    pub fn record(&self) -> Record<'a> {
        let message = String::from_utf8_lossy(self.message);
        let raw = matches!(message, Cow::Owned(_)).then(|| BASE64_STANDARD.encode(self.message).into());
        let level = self.level.and_then(LineLevel::level);
        let word = self.level.filter(|_| level.is_none());
        let attrs = word.map(|word| Attrs::with(None, "level", word.as_str()));
        Record { ts: self.ts, level, source: self.source.into(), message, attrs, raw, partial: self.partial }
    }

    /// What tells it from other lines of its instance.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.ts, self.level.map_or("", LineLevel::as_str), self.source, self.message)
    }
}

/// What a line begins with, and how many bytes that takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) ts: Timestamp,
    pub(super) level: LineLevel,
    pub(super) source: &'a str,
    pub(super) len: usize,
}

impl<'a> Header<'a> {
    /// `None` where the line has no header that would be rendered to the same bytes.
    pub(super) fn parse(line: &'a [u8], zone: Tz) -> Option<Self> {
        let (time, rest) = line.split_at_checked(TIME_BYTES)?;
        let rest = rest.strip_prefix(b" [")?;
        let window = &rest[..rest.len().min(MAX_ADDRESS_BYTES + 1)];
        let end = memchr::memchr(b']', window).filter(|end| *end > 0)?;
        let source = std::str::from_utf8(&rest[..end]).ok()?;
        let rest = rest[end + 1..].strip_prefix(b" ")?;
        let level = LineLevel::ALL.into_iter().find(|level| {
            let word = level.as_str().as_bytes();
            rest.starts_with(word) && rest.get(word.len()) == Some(&b' ')
        })?;
        let ts = parse_time(time, zone)?;
        let len = TIME_BYTES + 2 + end + 2 + level.as_str().len() + 1;
        Some(Self { ts, level, source, len })
    }
}

/// `None` for a date that does not exist, in the calendar or, where clocks go forward, in this zone.
fn parse_time(text: &[u8], zone: Tz) -> Option<Timestamp> {
    let punctuated = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':'), (19, b'.')];
    if text.len() != TIME_BYTES || punctuated.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0u32, |sum, byte| Some(sum * 10 + char::from(*byte).to_digit(10)?))
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    let local = date.and_hms_milli_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?)?;
    timestamp(local, zone)
}

/// Where clocks go back an hour comes twice; the file does not say which, so it is the first.
fn timestamp(local: NaiveDateTime, zone: Tz) -> Option<Timestamp> {
    let time = zone.from_local_datetime(&local).earliest()?;
    time.timestamp_nanos_opt().map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: Tz = Tz::Asia__Shanghai;

    #[test]
    fn a_header_is_time_address_and_level() {
        let header = Header::parse(b"2020-04-29 22:07:10.059 [192.168.1.1:2777] INFO XXX", ZONE).expect("a header");
        assert_eq!(header.ts.to_string(), "2020-04-29T14:07:10.059Z");
        assert_eq!((header.source, header.level, header.len), ("192.168.1.1:2777", LineLevel::Info, 48));
        for level in LineLevel::ALL {
            let line = format!("2020-04-29 22:07:10.059 [a] {} ", level.as_str());
            assert_eq!(Header::parse(line.as_bytes(), ZONE).map(|header| header.level), Some(level), "{line}");
        }
    }

    #[test]
    fn what_would_be_rendered_otherwise_is_no_header() {
        for line in [
            "",
            "2020-04-29 22:07:10.059",
            "2020-04-29 22:07:10.059 [a] INFO",
            "2020-04-29 22:07:10.059 [a] info x",
            "2020-04-29 22:07:10.059 [a] FATAL x",
            "2020-04-29 22:07:10.059 [] INFO x",
            "2020-04-29 22:07:10.059 [a]  INFO x",
            "2020-04-29 22:07:10,059 [a] INFO x",
            "2020-02-30 22:07:10.059 [a] INFO x",
            "2020-04-29 24:07:10.059 [a] INFO x",
            "2020-04-29 22:07:60.059 [a] INFO x",
            "2020-04-29 22:07:+1.059 [a] INFO x",
            " 2020-04-29 22:07:10.059 [a] INFO x",
        ] {
            assert_eq!(Header::parse(line.as_bytes(), ZONE), None, "{line}");
        }
        assert_eq!(Header::parse(b"2020-04-29 22:07:10.059 [\xff] INFO x", ZONE), None);
        let long = format!("2020-04-29 22:07:10.059 [{}] INFO x", "a".repeat(MAX_ADDRESS_BYTES + 1));
        assert_eq!(Header::parse(long.as_bytes(), ZONE), None);
        // Clocks went from 02:00 to 03:00.
        let gap = "2026-03-29 02:30:00.000 [a] INFO x";
        assert_eq!(Header::parse(gap.as_bytes(), Tz::Europe__Berlin), None);
        assert!(Header::parse(gap.as_bytes(), ZONE).is_some());
    }

    #[test]
    fn levels_of_reported_lines() {
        let words = [1, 2, 3, 4, 99, 5, -1].map(|code| LineLevel::from_code(code).as_str());
        assert_eq!(words, ["DEBUG", "INFO", "WARN", "ERROR", "OFF", "UNKNOWN", "UNKNOWN"]);
    }

    #[test]
    fn a_line_becomes_a_record() {
        let ts = Timestamp::from_nanos(0);
        let line = Line { ts, level: Some(LineLevel::Off), source: "w", message: b"\xff", partial: false };
        let record = line.record();
        assert_eq!((record.level, record.attrs.as_ref().map(Attrs::as_str)), (None, Some(r#"{"level":"OFF"}"#)));
        assert_eq!(record.message_bytes().as_ref(), b"\xff");
        assert_eq!(Fingerprint::of_record(&record, &record.message_bytes()), line.fingerprint());
        let line = Line { level: Some(LineLevel::Warn), message: b"m", ..line };
        let record = line.record();
        assert_eq!((record.level, record.attrs, record.raw), (Some(Level::Warn), None, None));
        assert_eq!(line.fingerprint(), Fingerprint::of(ts, "WARN", "w", b"m"));
    }

    #[test]
    fn zones_are_named() {
        assert_eq!(parse_zone("Asia/Shanghai"), Ok(ZONE));
        assert!(parse_zone("CST+8").is_err_and(|error| error.contains("Asia/Shanghai")));
    }
}
