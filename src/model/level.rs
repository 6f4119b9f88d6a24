//! Severity levels, and sets of them that let a reader skip what cannot match.

use std::collections::HashMap;
use std::fmt;

/// A record's severity, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// Understands the six names and `WARNING`, `ERR`, `CRITICAL`, in any case, and numbers as
    /// [`Level::from_number`] does. `None` is a name of someone's own.
    pub fn parse(name: &str) -> Option<Self> {
        const NAMES: [(&str, Level); 9] = [
            ("TRACE", Level::Trace),
            ("DEBUG", Level::Debug),
            ("INFO", Level::Info),
            ("WARN", Level::Warn),
            ("WARNING", Level::Warn),
            ("ERROR", Level::Error),
            ("ERR", Level::Error),
            ("FATAL", Level::Fatal),
            ("CRITICAL", Level::Fatal),
        ];
        let name = name.trim();
        match NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, level)) => Some(*level),
            None => name.parse().ok().and_then(Self::from_number),
        }
    }

    /// Python's `logging` numbers at the multiples of ten (10 DEBUG … 50 CRITICAL), the severity
    /// numbers of OpenTelemetry (1–4 TRACE … 21–24 FATAL) elsewhere.
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            10 => Self::Debug,
            20 => Self::Info,
            30 => Self::Warn,
            40 => Self::Error,
            50 => Self::Fatal,
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17..=19 => Self::Error,
            21..=24 => Self::Fatal,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which levels some consecutive records have, one bit each, and one bit for "cannot say".
///
/// A record without a level counts as the record before it of the same source. Where that record
/// lies outside of what the set describes, the set holds [`LevelSet::UNKNOWN`], and a reader that
/// filters by level may not skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelSet(u8);

impl LevelSet {
    pub const EMPTY: Self = Self(0);
    /// Holds a record whose level is that of a record somewhere before.
    pub const UNKNOWN: Self = Self(1 << 6);

    /// A set as a table or a segment index holds it.
    pub fn stored(bits: i64) -> Self {
        Self((bits & 0x7F) as u8)
    }

    pub fn bits(self) -> i64 {
        i64::from(self.0)
    }

    pub fn insert(&mut self, level: Option<Level>) {
        self.0 |= level.map_or(Self::UNKNOWN.0, |level| 1 << level as u8);
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a record of `least` or above may be among them.
    pub fn may_hold(self, least: Level) -> bool {
        self.0 & (Self::UNKNOWN.0 | (0x3F << least as u8) & 0x3F) != 0
    }
}

/// Gives each record its effective level: its own, or else that of the last record before it of the
/// same source which has one and is at most [`LevelTracker::REACH`] lines away.
///
/// So a record's effective level depends on the lines right before it alone, whichever page or
/// chunk they are on.
#[derive(Debug, Default)]
pub struct LevelTracker {
    last: HashMap<String, (u64, Level)>,
}

impl LevelTracker {
    /// Longer than a stack trace; and what a reader must look back at most.
    pub const REACH: u64 = 1_000;

    /// When so many are remembered, those out of reach are forgotten, which leaves at most one for
    /// each line in reach.
    const MAX_SOURCES: usize = 4096;

    /// Lines must come in order; those that are left out must not matter for the ones that follow.
    pub fn effective(&mut self, line: u64, source: &str, level: Option<Level>) -> Option<Level> {
        let Some(level) = level else { return self.inherited(line, source) };
        match self.last.get_mut(source) {
            Some(last) => *last = (line, level),
            None => {
                if self.last.len() >= Self::MAX_SOURCES {
                    self.last.retain(|_, (at, _)| line.saturating_sub(*at) <= Self::REACH);
                }
                self.last.insert(source.to_owned(), (line, level));
            }
        }
        Some(level)
    }

    /// The level that a record without one has at this place.
    pub fn inherited(&self, line: u64, source: &str) -> Option<Level> {
        let (at, level) = self.last.get(source)?;
        (line.saturating_sub(*at) <= Self::REACH).then_some(*level)
    }

    /// Whether a record of this source was seen that has a level: what lies before it says nothing more.
    pub fn knows(&self, source: &str) -> bool {
        self.last.contains_key(source)
    }

    /// Learns what another knows that saw lines before the first of ours.
    pub fn add_older(&mut self, older: Self) {
        for (source, last) in older.last {
            self.last.entry(source).or_insert(last);
        }
    }

    pub fn clear(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let cases = [
            ("warning", Some(Level::Warn)),
            ("ERR", Some(Level::Error)),
            (" critical ", Some(Level::Fatal)),
            ("17", Some(Level::Error)),
            ("20", Some(Level::Info)),
            ("verbose", None),
            ("99", None),
        ];
        for (name, level) in cases {
            assert_eq!(Level::parse(name), level, "{name}");
        }
        for level in Level::ALL {
            assert_eq!(Level::parse(level.as_str()), Some(level));
        }
    }

    #[test]
    fn a_set_never_hides_a_match() {
        for level in Level::ALL {
            let mut set = LevelSet::EMPTY;
            set.insert(Some(level));
            for least in Level::ALL {
                assert_eq!(set.may_hold(least), level >= least, "{level} asked for {least}");
            }
        }
        assert!(LevelSet::UNKNOWN.may_hold(Level::Fatal));
        assert!(!LevelSet::EMPTY.may_hold(Level::Trace));
    }

    #[test]
    fn a_stack_trace_takes_the_level_before_it_of_its_own_source() {
        let mut tracker = LevelTracker::default();
        assert_eq!(tracker.effective(0, "a", None), None);
        assert_eq!(tracker.effective(1, "a", Some(Level::Error)), Some(Level::Error));
        assert_eq!(tracker.effective(2, "b", Some(Level::Info)), Some(Level::Info));
        assert_eq!(tracker.effective(3, "a", None), Some(Level::Error));
        let reach = LevelTracker::REACH;
        assert_eq!(tracker.effective(1 + reach, "a", None), Some(Level::Error));
        assert_eq!(tracker.effective(2 + reach, "a", None), None, "too far away");
    }

    #[test]
    fn a_tracker_forgets_only_what_is_out_of_reach() {
        let mut tracker = LevelTracker::default();
        for line in 0..20_000 {
            tracker.effective(line, &line.to_string(), Some(Level::Warn));
        }
        assert!(tracker.last.len() <= LevelTracker::MAX_SOURCES);
        assert_eq!(tracker.inherited(20_000, "19000"), Some(Level::Warn));
    }
}
