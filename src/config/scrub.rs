//! How often every object of the cold tier is read again, and how gently.

use std::time::Duration;

use super::check::Checker;
use super::file;
use super::units::{parse_age, parse_size, show_size};
use crate::model::Age;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The scrub's pace.
#[derive(Debug, Clone)]
pub struct Scrub {
    /// A pass over all objects begins so long after the one before began; forever: never.
    pub every: Age,
    /// Bytes of objects that are read in a second, on average, on each server of the hot tier.
    pub rate: u64,
}

impl Scrub {
    pub(super) fn check(file: file::Scrub, check: &mut Checker<'_>) -> Self {
        let every = check.parse("scrub.every", file.every, Age::For(30 * DAY), parse_age);
        let rate = check.parse("scrub.rate", file.rate, 4 << 20, parse_size);
        check.within("scrub.rate", &rate, &(1 << 10..=1 << 40), |bytes| show_size(*bytes));
        Self { every, rate }
    }
}
