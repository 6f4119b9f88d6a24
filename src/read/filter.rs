//! Which records a reader wants to see.

use regex::Regex;

use crate::model::{Bounds, Level, LevelTracker, Record, Timestamp};

/// All conditions must hold; an empty filter lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This level or above. A record without one counts as one before it ([`LevelTracker`]); where no
    /// such one is in reach, it has none and does not match.
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

    /// What it says of many records at once.
    pub fn bounds(&self) -> Bounds {
        Bounds { level: self.level, since: self.since, until: self.until }
    }

    /// Texts that every message it lets through contains.
    pub fn texts(&self) -> Vec<String> {
        let in_regex = self.regex.iter().flat_map(|regex| literals(regex.as_str()));
        self.contains.iter().cloned().chain(in_regex).filter(|text| !text.is_empty()).collect()
    }

    /// Must see every record in reach in order, with the same `levels`, because a record's level may
    /// be that of one before it.
    pub fn matches(&self, levels: &mut LevelTracker, line: u64, record: &Record<'_>) -> bool {
        let effective = levels.effective(line, &record.source, record.level);
        self.level.is_none_or(|least| effective.is_some_and(|level| level >= least)) && self.matches_itself(record)
    }

    /// All conditions but the level, which a record may have from others.
    pub(super) fn matches_itself(&self, record: &Record<'_>) -> bool {
        self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts < until)
            && self.source.as_ref().is_none_or(|source| record.source == *source)
            && self
                .contains
                .iter()
                .all(|text| memchr::memmem::find(record.message.as_bytes(), text.as_bytes()).is_some())
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(&record.message))
    }
}

/// Texts that stand in everything a pattern matches, where that is easily seen: the pieces between
/// `.`, `^`, `$` and what they repeat. Patterns with alternatives, groups, classes and the like have none.
fn literals(pattern: &str) -> Vec<String> {
    if pattern.contains(['\\', '|', '(', ')', '[', ']', '{', '}', '?']) {
        return Vec::new();
    }
    // What `+` repeats may itself be repeated never.
    if pattern.contains("+*") {
        return Vec::new();
    }
    let (mut texts, mut text) = (Vec::new(), String::new());
    for c in pattern.chars() {
        if !matches!(c, '.' | '^' | '$' | '*' | '+') {
            text.push(c);
            continue;
        }
        if c == '*' {
            // Perhaps it is not there at all.
            text.pop();
        }
        texts.push(std::mem::take(&mut text));
    }
    texts.push(text);
    texts.retain(|text| !text.is_empty());
    texts
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
            record(0, None, "before any level"),
            record(1, Some(Level::Info), "start"),
            record(2, Some(Level::Error), "failed: timeout"),
            record(3, None, "  at Main.java:1"),
            record(4, Some(Level::Warn), "timeout again"),
        ];
        let check = |filter: Filter, expected: &[usize]| {
            let mut levels = LevelTracker::default();
            let found: Vec<usize> =
                (0..all.len()).filter(|at| filter.matches(&mut levels, *at as u64, &all[*at])).collect();
            assert_eq!(found, expected, "{filter:?}");
        };
        check(Filter::default(), &[0, 1, 2, 3, 4]);
        check(Filter { level: Some(Level::Error), ..Filter::default() }, &[2, 3]);
        check(Filter { level: Some(Level::Trace), ..Filter::default() }, &[1, 2, 3, 4]);
        check(Filter { contains: vec!["timeout".into(), "failed".into()], ..Filter::default() }, &[2]);
        check(Filter { regex: Regex::new("^timeout").ok(), ..Filter::default() }, &[4]);
        check(Filter { source: Some("other".into()), ..Filter::default() }, &[]);
        let (since, until) = (Some(all[2].ts), Some(all[4].ts));
        check(Filter { since, until, ..Filter::default() }, &[2, 3]);
    }

    #[test]
    fn what_a_pattern_always_holds_is_seen_where_it_is_easy() {
        let check = |pattern: &str, expected: &[&str]| {
            assert_eq!(literals(pattern), expected, "{pattern}");
            // Whatever it matches holds them.
            let regex = Regex::new(pattern).expect("a pattern");
            for text in ["ab", "abc", "a-b c", "abbbc", "ac", "x abc y", "4bf9-22", "ab\nc"] {
                if regex.is_match(text) {
                    assert!(expected.iter().all(|part| text.contains(part)), "{pattern} matches {text}");
                }
            }
        };
        check("4bf9-22", &["4bf9-22"]);
        check("^ab.*c$", &["ab", "c"]);
        check("ab*c", &["a", "c"]);
        check("ab+c", &["ab", "c"]);
        check("a.c", &["a", "c"]);
        for pattern in ["a|b", "(?i)abc", "ab?c", "ab+*c", "a\\.c", "[ab]c", "a{2}"] {
            check(pattern, &[]);
        }
    }
}
