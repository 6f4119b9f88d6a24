//! When attempts move to the cold tier, and when leftovers go.

use std::time::Duration;

use chrono_tz::Tz;

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::schedule::{Schedule, parse_zone};
use super::units::{parse_percent, parse_size, parse_span, show_size, show_span};

const DEFAULT_SCHEDULE: &str = "*/10 * * * *";
const HOUR: Duration = Duration::from_secs(3600);

/// The archiver's schedule and thresholds.
#[derive(Debug, Clone)]
pub struct Archive {
    pub schedule: Schedule,
    /// An attempt that gets no line for so long counts as finished.
    pub idle_after: Duration,
    /// A group is built once it has so many bytes …
    pub object_size: u64,
    /// … or once its oldest due attempt has waited so long.
    pub max_delay: Duration,
    /// How long hot rows stay after their lines were published in the cold tier.
    pub purge_grace: Duration,
    /// A daemon that was killed keeps the others from archiving for so long.
    pub lease_ttl: Duration,
    /// An upload whose lease is gone is given up after so long.
    pub abandoned_after: Duration,
    /// For so long a doomed object is deleted again and again, against late uploads.
    pub doomed_for: Duration,
    /// An object is rewritten once so many percent of its lines are dead.
    pub rewrite_at: u8,
    /// Once the chunks of a server take more bytes, finished attempts move early.
    pub pressure_size: Option<u64>,
}

impl Archive {
    /// `None` after a mistake in the schedule.
    pub(super) fn check(file: file::Archive, check: &mut Checker<'_>) -> Option<Self> {
        let zone = check.parse("archive.timezone", file.timezone, Tz::UTC, parse_zone);
        let text = file.schedule.unwrap_or_else(|| DEFAULT_SCHEDULE.to_owned());
        let schedule = check.parse("archive.schedule", Some(text), None, |text| Schedule::parse(text, zone).map(Some));
        let idle_after = check.parse("archive.idle_after", file.idle_after, 24 * HOUR, parse_span);
        if idle_after.is_zero() {
            let mistake = Mistake::new("every attempt would be finished at once");
            check.refuse("archive.idle_after", mistake.help("write the longest pause between two lines of a job"));
        }
        let object_size = check.parse("archive.object_size", file.object_size, 64 << 20, parse_size);
        check.within("archive.object_size", &object_size, &(1 << 10..=4 << 30), |bytes| show_size(*bytes));
        let lease_ttl = check.parse("archive.lease_ttl", file.lease_ttl, Duration::from_secs(20), parse_span);
        let bounds = Duration::from_secs(1)..=HOUR;
        check.within("archive.lease_ttl", &lease_ttl, &bounds, |span| show_span(*span));
        let rewrite_at = check.parse("archive.rewrite_at", file.rewrite_at, 50, parse_percent);
        check.within("archive.rewrite_at", &rewrite_at, &(1..=100), |percent| format!("{percent}%"));
        let pressure_size =
            check.parse("archive.pressure_size", file.pressure_size, None, |text| parse_size(text).map(Some));
        if pressure_size.is_some_and(|bytes| bytes < 1 << 20) {
            let mistake = Mistake::new("less than 1MiB would archive everything at once");
            check.refuse("archive.pressure_size", mistake.help("leave it out, or set hot_for = \"0s\""));
        }
        Some(Self {
            pressure_size,
            lease_ttl,
            rewrite_at,
            schedule: schedule?,
            idle_after,
            object_size,
            max_delay: check.parse("archive.max_delay", file.max_delay, 24 * HOUR, parse_span),
            purge_grace: check.parse("archive.purge_grace", file.purge_grace, HOUR / 6, parse_span),
            abandoned_after: check.parse("archive.abandoned_after", file.abandoned_after, 24 * HOUR, parse_span),
            doomed_for: check.parse("archive.doomed_for", file.doomed_for, 7 * 24 * HOUR, parse_span),
        })
    }
}
