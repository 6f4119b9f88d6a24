//! Which records a reader wants to see.

use regex::Regex;

use crate::model::{Level, LevelTracker, Record, Timestamp};

/// All conditions must hold; an empty filter lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This level or above. A record without one counts as the record before it of its source.
    pub level: Option<Level>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Texts that the message must hold, all of them.
    pub contains: Vec<String>,
    pub regex: Option<Regex>,
    pub source: Option<String>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.level.is_none()
            && self.since.is_none()
            && self.until.is_none()
            && self.contains.is_empty()
            && self.regex.is_none()
            && self.source.is_none()
    }

    /// A filter at work on consecutive records.
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher { filter: self, levels: LevelTracker::default() }
    }

    /// Must see every record of a range in order, with the same `levels`, because a record's level
    /// may be that of one before it.
    pub fn matches(&self, levels: &mut LevelTracker, record: &Record<'_>) -> bool {
        let effective = levels.effective(&record.source, record.level);
        // Where nobody can say, showing too much beats hiding an error.
        self.level.is_none_or(|least| effective.is_none_or(|level| level >= least))
            && self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts < until)
            && self.source.as_ref().is_none_or(|source| record.source == *source)
            && self
                .contains
                .iter()
                .all(|text| memchr::memmem::find(record.message.as_bytes(), text.as_bytes()).is_some())
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(&record.message))
    }
}

/// A filter and what it remembers of the records before.
pub struct Matcher<'f> {
    filter: &'f Filter,
    levels: LevelTracker,
}

impl Matcher<'_> {
    pub fn matches(&mut self, record: &Record<'_>) -> bool {
        self.filter.matches(&mut self.levels, record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(millis: i64, level: Option<Level>, message: &str) -> Record<'_> {
        Record {
            ts: Timestamp::from_nanos(millis * 1_000_000),
            level,
            source: "w".into(),
            message: message.into(),
            attrs: None,
            raw: None,
            partial: false,
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let all = [
            record(1, Some(Level::Info), "start"),
            record(2, Some(Level::Error), "failed: timeout"),
            record(3, None, "  at Main.java:1"),
            record(4, Some(Level::Warn), "timeout again"),
        ];
        let check = |filter: Filter, expected: &[usize]| {
            let mut matcher = filter.matcher();
            let found: Vec<usize> = (0..all.len()).filter(|at| matcher.matches(&all[*at])).collect();
            assert_eq!(found, expected, "{filter:?}");
        };
        check(Filter::default(), &[0, 1, 2, 3]);
        check(Filter { level: Some(Level::Error), ..Filter::default() }, &[1, 2]);
        check(Filter { contains: vec!["timeout".into(), "failed".into()], ..Filter::default() }, &[1]);
        check(Filter { regex: Regex::new("^timeout").ok(), ..Filter::default() }, &[3]);
        check(Filter { source: Some("other".into()), ..Filter::default() }, &[]);
        let (since, until) = (Some(all[1].ts), Some(all[3].ts));
        check(Filter { since, until, ..Filter::default() }, &[1, 2]);
    }
}
