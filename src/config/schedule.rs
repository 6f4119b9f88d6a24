//! When the archiver runs: a cron schedule in a time zone.
//!
//! The `cron` crate drops the hour that a zone skips and runs twice in the hour that it repeats.
//! So it is only asked about wall-clock times, as if they were UTC; the zone comes afterwards.

use std::fmt;

use chrono::offset::LocalResult;
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::problem::{Mistake, nearest};

/// A cron schedule of five or six fields, read on the wall clock of a time zone.
///
/// A run that falls into an hour that the clock skips takes place when the clock has jumped; one
/// that falls into an hour that the clock repeats takes place in the first of the two only.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: cron::Schedule,
    zone: Tz,
}

impl Schedule {
    /// `minute hour day-of-month month weekday`, with a field for seconds before them if there are six.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, Mistake> {
        let shape = "write five fields (minute hour day month weekday), or six with seconds first";
        let fields: Vec<&str> = text.split_whitespace().collect();
        let six = match fields.as_slice() {
            [_, _, _, _, _] => format!("0 {}", fields.join(" ")),
            [_, _, _, _, _, _] => fields.join(" "),
            _ => {
                return Err(
                    Mistake::new(format!("a schedule of {} instead of five or six fields", fields.len())).help(shape)
                );
            }
        };
        let (day, weekday) = (fields[fields.len() - 3], fields[fields.len() - 1]);
        if weekday.contains(|c: char| c.is_ascii_digit()) {
            return Err(Mistake::new(format!("a number in the weekday field, \"{weekday}\""))
                .help("cron programs disagree on which day is 1: write names, as in \"Mon-Fri\" or \"Sat,Sun\""));
        }
        if [day, weekday].iter().all(|field| !matches!(*field, "*" | "?")) {
            return Err(Mistake::new("both a day of the month and a weekday")
                .help("cron programs disagree on whether both or one of them must hold: put \"*\" in one of the two"));
        }
        let cron: cron::Schedule = six.parse().map_err(|error: cron::error::Error| {
            // The crate says "less than 59" of a field that may be 59.
            let why = error.to_string().replace("must be less than", "must be at most");
            let why = why.lines().last().unwrap_or_default().trim().trim_end_matches('.');
            Mistake::new(format!("no cron schedule: {why}")).help(shape)
        })?;
        if cron.after(&DateTime::UNIX_EPOCH).next().is_none() {
            return Err(Mistake::new("a schedule that never comes").help("no month that it allows has such a day"));
        }
        Ok(Self { text: text.to_owned(), cron, zone })
    }

    /// The first run after `now`, exclusive; `None` only beyond the year 2100.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall_clock = now.with_timezone(&self.zone).naive_local().and_utc();
        // Runs that lie before `now` are those of a repeated hour, which had its turn.
        self.cron.after(&wall_clock).map(|run| self.instant(run.naive_utc())).find(|run| *run > now)
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    fn instant(&self, wall_clock: NaiveDateTime) -> DateTime<Utc> {
        match self.zone.from_local_datetime(&wall_clock) {
            LocalResult::Single(only) | LocalResult::Ambiguous(only, _) => only.to_utc(),
            LocalResult::None => self.end_of_gap(wall_clock),
        }
    }

    /// The first second at which the zone's clock is past `skipped`, found by halving: no zone is
    /// a day or more away from UTC, and no clock jumps twice in two days.
    fn end_of_gap(&self, skipped: NaiveDateTime) -> DateTime<Utc> {
        const DAY_SECONDS: i64 = 86_400;
        let start = skipped.and_utc() - TimeDelta::seconds(DAY_SECONDS);
        let (mut before, mut after) = (0, 2 * DAY_SECONDS);
        while after - before > 1 {
            let middle = i64::midpoint(before, after);
            let clock = (start + TimeDelta::seconds(middle)).with_timezone(&self.zone).naive_local();
            if clock < skipped { before = middle } else { after = middle }
        }
        start + TimeDelta::seconds(after)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.zone)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({self})")
    }
}

/// A name of the IANA time zone database.
pub(super) fn parse_zone(name: &str) -> Result<Tz, Mistake> {
    name.parse().map_err(|_| {
        let zones: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        Mistake::new(format!("unknown time zone \"{name}\"")).help(match nearest(name, &zones) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "write a name of the IANA database, as in \"Europe/Berlin\"".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs after `from`, as UTC times.
    fn check(text: &str, zone: &str, from: &str, expected: &[&str]) {
        let schedule = Schedule::parse(text, zone.parse().expect("a zone")).expect("a schedule");
        let mut now: DateTime<Utc> = from.parse().expect("a time");
        for expected in expected {
            now = schedule.next_after(now).expect("a run");
            assert_eq!(now.format("%Y-%m-%dT%H:%M:%SZ").to_string(), *expected, "{text} {zone} after {from}");
        }
    }

    #[test]
    fn five_and_six_fields() {
        check("*/10 * * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:10:00Z", "2026-01-01T00:20:00Z"]);
        check("*/10 * * * *", "UTC", "2026-01-01T00:09:59.999Z", &["2026-01-01T00:10:00Z"]);
        check("30 */10 * * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:00:30Z", "2026-01-01T00:10:30Z"]);
        check("0 3 * * Sat,Sun", "UTC", "2026-11-22T03:00:00Z", &["2026-11-28T03:00:00Z", "2026-11-29T03:00:00Z"]);
        check("0 3 * * Mon-Fri", "Asia/Shanghai", "2026-11-20T00:00:00Z", &["2026-11-22T19:00:00Z"]);
    }

    #[test]
    fn ends_of_months() {
        check("0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", &["2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"]);
        check("59 23 28-31 * *", "UTC", "2026-02-28T23:59:00Z", &["2026-03-28T23:59:00Z"]);
        check("0 0 29 Feb *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
        check("0 0 1 * *", "UTC", "2026-12-31T23:59:59Z", &["2027-01-01T00:00:00Z"]);
    }

    /// Berlin 2026-03-29: 02:00 CET becomes 03:00 CEST at 01:00 UTC. New York 2026-03-08: at 07:00 UTC.
    #[test]
    fn a_skipped_hour_runs_once_after_the_jump() {
        let berlin = "Europe/Berlin";
        check("30 2 * * *", berlin, "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        check(
            "*/20 * * * *",
            berlin,
            "2026-03-29T00:30:00Z",
            &["2026-03-29T00:40:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"],
        );
        check(
            "30 2 * * *",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
        );
        // A whole day: Samoa went from 29 to 31 December 2011.
        check("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", &["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]);
    }

    /// Berlin 2026-10-25: 03:00 CEST becomes 02:00 CET at 01:00 UTC. New York 2026-11-01: at 06:00 UTC.
    #[test]
    fn a_repeated_hour_runs_the_first_time_only() {
        let berlin = "Europe/Berlin";
        check("30 2 * * *", berlin, "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        check("*/30 * * * *", berlin, "2026-10-25T00:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]);
        check("*/30 * * * *", berlin, "2026-10-25T01:10:00Z", &["2026-10-25T02:00:00Z"]);
        check(
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T00:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([0-9]{1,3}|[*?]|Mon|feb|L|#|[-/,]| |99999999999){0,16}") {
            let _ = Schedule::parse(&text, Tz::UTC);
            let _ = Schedule::parse(&format!("{text} * * * *"), Tz::UTC);
            let _ = Schedule::parse(&format!("0 0 {text} * *"), Tz::UTC);
        }

        #[test]
        fn runs_lie_ahead_and_in_order(seconds in 0i64..4_000_000_000, zone in 0usize..chrono_tz::TZ_VARIANTS.len()) {
            let schedule = Schedule::parse("15 */7 * * * *", chrono_tz::TZ_VARIANTS[zone]).expect("a schedule");
            let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
            let first = schedule.next_after(now).expect("a run");
            prop_assert!(first > now && schedule.next_after(first).expect("a run") > first);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let check = |text: &str| Schedule::parse(text, Tz::UTC).expect_err(text).what;
        insta::assert_snapshot!(check("*/10 * * *"), @"a schedule of 4 instead of five or six fields");
        insta::assert_snapshot!(check("0 0 1 1 * 2026 *"), @"a schedule of 7 instead of five or six fields");
        insta::assert_snapshot!(check("0 3 * * 1-5"), @r#"a number in the weekday field, "1-5""#);
        insta::assert_snapshot!(check("0 3 1 * Mon"), @"both a day of the month and a weekday");
        insta::assert_snapshot!(check("*/0 * * * *"), @"no cron schedule: range step cannot be zero");
        insta::assert_snapshot!(check("61 * * * *"), @"no cron schedule: Minutes must be at most 59. ('61' specified.)");
        insta::assert_snapshot!(check("x * * * *"), @"no cron schedule: The 'Minutes' field does not support using names. 'x' specified");
        insta::assert_snapshot!(check("0 3 * * Mondy"), @"no cron schedule: 'Mondy' is not a valid day of the week");
        insta::assert_snapshot!(check("0 3 * * Fri-Mon"), @"no cron schedule: Invalid named range for Days of Week: Fri-Mon");
        insta::assert_snapshot!(check("@daily"), @"a schedule of 1 instead of five or six fields");
        insta::assert_snapshot!(check("0 0 30 Feb *"), @"a schedule that never comes");
    }
}
