//! Values that people type: times, spans, line ranges, labels.

use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime};

use crate::model::{Level, Millis, Timestamp};

/// `90s`, `2h`, `1h30m`, `500ms`, `3d`, `2w`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no span of time, expected one such as 90s, 2h, 1h30m or 3d");
    let (mut rest, mut total) = (text.trim(), Duration::ZERO);
    if rest == "0" {
        return Ok(total);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let millis: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total += Duration::from_millis(number.checked_mul(millis).ok_or_else(wrong)?);
        rest = tail;
    }
    Ok(total)
}

/// A moment as typed: a span before now, RFC 3339, unix milliseconds, or a local date with or without a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before(Duration),
    At(Timestamp),
}

impl Moment {
    pub(super) fn resolve(self, now: Millis) -> Timestamp {
        match self {
            Self::At(ts) => ts,
            Self::Before(span) => {
                let nanos = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
                Timestamp::from_nanos(now.timestamp().nanos().saturating_sub(nanos))
            }
        }
    }
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(span) = span(text) {
        return Ok(Moment::Before(span));
    }
    if let Ok(ts) = Timestamp::parse(text) {
        return Ok(Moment::At(ts));
    }
    let local = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN)));
    local
        .and_then(|time| time.and_local_timezone(Local).earliest())
        .and_then(|time: DateTime<Local>| time.timestamp_nanos_opt())
        .map(|nanos| Moment::At(Timestamp::from_nanos(nanos)))
        .ok_or_else(|| {
            format!("\"{text}\" is no time, expected a span such as 2h, RFC 3339, or a local \"2026-11-22 10:00\"")
        })
}

/// The lines `from..to`, either end may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
}

pub(super) fn lines(text: &str) -> Result<Lines, String> {
    let wrong = || format!("\"{text}\" is no range of lines, expected one such as 100..200, 100.. or ..200");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| wrong()),
    };
    let range = Lines { from: end(from)?, to: end(to)? };
    match range {
        Lines { from: Some(from), to: Some(to) } if from > to => Err(wrong()),
        _ => Ok(range),
    }
}

/// A number of lines, attempts, or the like.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("\"{text}\" is no number, expected one such as 100"))
}

/// `name=value`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is no label, expected name=value")),
    }
}

pub(super) fn level(text: &str) -> Result<Level, String> {
    Level::parse(text)
        .ok_or_else(|| format!("\"{text}\" is no level, expected trace, debug, info, warn, error or fatal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let cases = [("0", 0), ("500ms", 500), ("90s", 90_000), ("1h30m", 5_400_000), ("3d", 259_200_000)];
        for (text, millis) in cases {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "h", "10", "1y", "-1h", "1h30", "99999999999999999999d", "9999999999999999w"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        let now = Millis::new(10_000_000);
        let resolved = |text: &str| moment(text).map(|moment| moment.resolve(now).to_string());
        assert_eq!(resolved("1000s").as_deref(), Ok("1970-01-01T02:30:00.000Z"));
        assert_eq!(resolved("2026-11-22T18:00:00+08:00").as_deref(), Ok("2026-11-22T10:00:00.000Z"));
        for local in ["2026-11-22", "2026-11-22 10:00", "2026-11-22T10:00:01.5"] {
            assert!(resolved(local).is_ok(), "{local}");
        }
        assert!(resolved("yesterday").is_err());
    }

    #[test]
    fn ranges_and_labels() {
        assert_eq!(lines("3..5"), Ok(Lines { from: Some(3), to: Some(5) }));
        assert_eq!(lines("3.."), Ok(Lines { from: Some(3), to: None }));
        assert_eq!(lines("..5"), Ok(Lines { from: None, to: Some(5) }));
        assert!(lines("5").is_err() && lines("5..3").is_err() && lines("a..b").is_err());
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(number("7"), Ok(7));
        assert!(["", "x", "-1", "1.5"].iter().all(|bad| number(bad).is_err_and(|said| said.contains("is no number"))));
    }
}
