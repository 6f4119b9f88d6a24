//! Log files of any kind: a line of the file is a record, and keeps every byte.
//!
//! Its time and level are looked for at its beginning; a line without them has the time of the one before.

use std::sync::LazyLock;

use chrono::{FixedOffset, NaiveDate, NaiveDateTime, TimeZone as _};
use chrono_tz::Tz;
use regex::bytes::{Captures, Regex};

use crate::model::{Level, Timestamp};
use crate::protocol::pieces::Pieces;

/// Time and level stand this far from a line's beginning, or nowhere.
const STAMP_BYTES: usize = 256;

/// `[INFO] 2026-11-22 10:00:00.000 +0800`, `[2026-11-22T10:00:00,000+0000] {x.py:1} INFO -`, `2026-11-22 10:00:00 …`,
/// and JSON with a time near its beginning.
#[expect(clippy::expect_used, reason = "a constant, which the tests compile")]
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"^(?:\[?[A-Za-z]{3,8}\]? |\{"(?:timestamp|time|ts)": ?")?\[?"#,
        r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(Z|[+-]\d\d:?\d\d)?"
    ))
    .expect("a regular expression")
});
#[expect(clippy::expect_used, reason = "a constant, which the tests compile")]
static LEVEL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:^|[\s\[(|:-])(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL)(?:[\s\])|:-]|$)",
        r#"|"level": ?"(trace|debug|info|warn|warning|error|fatal|critical)""#
    ))
    .expect("a regular expression")
});

/// What a line says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    pub(super) ts: Option<Timestamp>,
    pub(super) level: Option<Level>,
}

/// `zone` is that of times without one of their own.
pub(super) fn stamp(line: &[u8], zone: Tz) -> Stamp {
    let window = &line[..line.len().min(STAMP_BYTES)];
    let Some(found) = TIME.captures(window) else { return Stamp::default() };
    let level = LEVEL.captures(window).and_then(|level| level.get(1).or(level.get(2)));
    let level = level.and_then(|level| Level::parse(std::str::from_utf8(level.as_bytes()).ok()?));
    Stamp { ts: time_of(&found, zone), level }
}

fn time_of(found: &Captures<'_>, zone: Tz) -> Option<Timestamp> {
    let text = |group| found.get(group).and_then(|part| std::str::from_utf8(part.as_bytes()).ok());
    let number = |group| text(group)?.parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(text(1)?.parse().ok()?, number(2)?, number(3)?)?;
    let nanos = text(7).map_or(Some(0), |digits| format!("{digits:0<9}").parse().ok())?;
    let local = date.and_hms_nano_opt(number(4)?, number(5)?, number(6)?, nanos)?;
    let nanos = match text(8) {
        Some("Z") => local.and_utc().timestamp_nanos_opt()?,
        Some(offset) => fixed(offset)?.from_local_datetime(&local).single()?.timestamp_nanos_opt()?,
        None => in_zone(local, zone)?.nanos(),
    };
    Some(Timestamp::from_nanos(nanos))
}

/// Where clocks go back an hour comes twice; nothing says which, so it is the first.
pub(super) fn in_zone(local: NaiveDateTime, zone: Tz) -> Option<Timestamp> {
    zone.from_local_datetime(&local).earliest()?.timestamp_nanos_opt().map(Timestamp::from_nanos)
}

/// `+0800`, `-05:30`.
fn fixed(offset: &str) -> Option<FixedOffset> {
    let digits: String = offset[1..].chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes): (i32, i32) = (digits.get(..2)?.parse().ok()?, digits.get(2..)?.parse().ok()?);
    let seconds = hours * 3600 + minutes * 60;
    FixedOffset::east_opt(if offset.starts_with('-') { -seconds } else { seconds })
}

/// A line, or a piece of one that is too long for one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainLine<'a> {
    pub(super) ts: Timestamp,
    pub(super) level: Option<Level>,
    pub(super) message: &'a [u8],
    pub(super) partial: bool,
}

/// Takes a file as it comes.
#[derive(Debug)]
pub(super) struct PlainParser {
    zone: Tz,
    ts: Timestamp,
    level: Option<Level>,
    text: Pieces,
    /// Something of the current line has come, and its beginning was looked at.
    open: bool,
    judged: bool,
}

impl PlainParser {
    /// `start` is the time of lines before the first that has one.
    pub(super) fn new(zone: Tz, start: Timestamp) -> Self {
        Self { zone, ts: start, level: None, text: Pieces::default(), open: false, judged: false }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(PlainLine<'_>)) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.part(&bytes[..at], &mut take);
            self.end_line(&mut take);
            bytes = &bytes[at + 1..];
        }
        if !bytes.is_empty() {
            self.part(bytes, &mut take);
        }
    }

    pub(super) fn finish(mut self, mut take: impl FnMut(PlainLine<'_>)) {
        if self.open {
            self.end_line(&mut take);
        }
    }

    fn part(&mut self, text: &[u8], take: &mut impl FnMut(PlainLine<'_>)) {
        self.open = true;
        let Self { zone, ts, level, text: pieces, judged, .. } = self;
        let Ok(()) = pieces.push(text, |message| {
            judge(message, *zone, judged, ts, level);
            take(PlainLine { ts: *ts, level: *level, message, partial: true });
            Ok::<_, std::convert::Infallible>(())
        });
    }

    fn end_line(&mut self, take: &mut impl FnMut(PlainLine<'_>)) {
        judge(self.text.rest(), self.zone, &mut self.judged, &mut self.ts, &mut self.level);
        take(PlainLine { ts: self.ts, level: self.level, message: self.text.rest(), partial: false });
        self.text.clear();
        (self.open, self.judged) = (false, false);
    }
}

/// Looks at the beginning of a line, once.
fn judge(message: &[u8], zone: Tz, judged: &mut bool, ts: &mut Timestamp, level: &mut Option<Level>) {
    if !std::mem::replace(judged, true) {
        let stamp = stamp(message, zone);
        *ts = stamp.ts.unwrap_or(*ts);
        *level = stamp.level;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_many_systems_say_when_and_how_bad() {
        let check = |line: &str, ts: Option<&str>, level: Option<Level>| {
            let found = stamp(line.as_bytes(), Tz::Asia__Shanghai);
            assert_eq!((found.ts.map(|ts| ts.to_string()).as_deref(), found.level), (ts, level), "{line}");
        };
        // XXL-JOB
        check(
            "2026-11-22 18:00:00 [com.xxl.job.core.thread.JobThread#run]-[130]-[xxl-job, JobThread-1-1] <br>start",
            Some("2026-11-22T10:00:00.000Z"),
            None,
        );
        // DolphinScheduler
        check(
            "[INFO] 2026-11-22 18:00:00.123 +0800 o.a.d.p.t.s.ShellTask:[63] - raw script",
            Some("2026-11-22T10:00:00.123Z"),
            Some(Level::Info),
        );
        check(
            "[WARN] 2026-11-22 18:00:00.123 - [taskAppId=TASK-1]",
            Some("2026-11-22T10:00:00.123Z"),
            Some(Level::Warn),
        );
        // Airflow 2 and 3
        check(
            "[2026-11-22T10:00:00.123+0000] {taskinstance.py:1103} ERROR - Dependencies",
            Some("2026-11-22T10:00:00.123Z"),
            Some(Level::Error),
        );
        check(
            "[2026-11-22 18:00:00,123] {taskinstance.py:1103} INFO - Dependencies",
            Some("2026-11-22T10:00:00.123Z"),
            Some(Level::Info),
        );
        check(
            r#"{"timestamp":"2026-11-22T10:00:00.123456Z","level":"warning","event":"Task"}"#,
            Some("2026-11-22T10:00:00.123456Z"),
            Some(Level::Warn),
        );
        check("\tat Main.java:7 ERROR", None, None);
        check("2026-13-22 18:00:00 x", None, None);
        check("2026-11-22 18:00:00-03:30 INFORMATION", Some("2026-11-22T21:30:00.000Z"), None);
    }

    #[test]
    fn every_line_is_a_record() {
        let file = b"first\n2026-11-22 18:00:00 ERROR a\n  at b\r\n\n2026-11-22 18:00:01 c";
        for step in [1, 5, 100] {
            let (mut lines, mut parser) = (Vec::new(), PlainParser::new(Tz::UTC, Timestamp::from_nanos(0)));
            let mut take = |line: PlainLine<'_>| {
                lines.push((line.ts.to_string(), line.level, String::from_utf8_lossy(line.message).into_owned()));
            };
            for part in file.chunks(step) {
                parser.push(part, &mut take);
            }
            parser.finish(&mut take);
            let found: Vec<_> = lines.iter().map(|(ts, level, text)| (&ts[11..19], *level, text.as_str())).collect();
            let error = Some(Level::Error);
            assert_eq!(
                found,
                [
                    ("00:00:00", None, "first"),
                    ("18:00:00", error, "2026-11-22 18:00:00 ERROR a"),
                    ("18:00:00", None, "  at b\r"),
                    ("18:00:00", None, ""),
                    ("18:00:01", None, "2026-11-22 18:00:01 c"),
                ],
                "by {step}"
            );
        }
    }
}
