//! How gently rows leave the hot tier.

use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use chrono_tz::Tz;

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::units::{parse_percent, parse_span, show_span};

/// Bounds of what purging and expiring may cost the database.
#[derive(Debug, Clone)]
pub struct Purge {
    /// After each transaction it rests for this share of the time taken, in percent.
    pub rest: u8,
    /// It waits while more row locks than this are being waited for on the server.
    pub max_lock_waits: u32,
    /// It waits while a replica is further behind.
    pub max_replica_lag: Duration,
    /// It runs at these hours only.
    pub window: Option<Window>,
}

/// Hours of the day in a time zone; where the end is before the start, it is on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: NaiveTime,
    to: NaiveTime,
    zone: Tz,
}

impl Window {
    /// `HH:MM-HH:MM`
    fn parse(text: &str, zone: Tz) -> Result<Self, Mistake> {
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let ends = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
        match ends {
            Some((from, to)) if from != to => Ok(Self { from, to, zone }),
            Some(_) => {
                Err(Mistake::new(format!("\"{text}\" is no time at all")).help("leave it out for the whole day"))
            }
            None => Err(Mistake::new(format!("\"{text}\" is no window")).help("write it as in \"01:00-05:00\"")),
        }
    }

    /// Its start counts, its end does not.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        let time = now.with_timezone(&self.zone).time();
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

impl Purge {
    pub(super) fn check(file: file::Purge, zone: Tz, check: &mut Checker<'_>) -> Self {
        let rest = check.parse("purge.rest", file.rest, 50, parse_percent);
        let lag = check.parse("purge.max_replica_lag", file.max_replica_lag, Duration::from_secs(30), parse_span);
        let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        check.within("purge.max_replica_lag", &lag, &bounds, |span| show_span(*span));
        let parse_window = |text: &str| Window::parse(text, zone).map(Some);
        Self {
            rest,
            max_lock_waits: check.number("purge.max_lock_waits", file.max_lock_waits, 10, 0..=1_000_000),
            max_replica_lag: lag,
            window: check.parse("purge.window", file.window, None, parse_window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_span_midnight() {
        let at = |time: &str| format!("2026-11-25T{time}:00Z").parse::<DateTime<Utc>>().expect("a time");
        let night = Window::parse("22:00-06:00", Tz::UTC).expect("a window");
        assert!(night.holds(at("22:00")) && night.holds(at("03:00")) && night.holds(at("05:59")));
        assert!(!night.holds(at("06:00")) && !night.holds(at("21:59")));
        let day = Window::parse("9:00-17:30", Tz::Europe__Berlin).expect("a window");
        assert!(day.holds(at("08:00")) && day.holds(at("16:29")));
        assert!(!day.holds(at("07:59")) && !day.holds(at("16:30")));
        for bad in ["", "22:00", "22-6", "24:00-06:00", "06:00-06:00"] {
            assert!(Window::parse(bad, Tz::UTC).is_err(), "{bad}");
        }
    }
}
