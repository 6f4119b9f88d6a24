//! The reader's parameters, checked.

use regex::{Regex, RegexBuilder};

use super::Problem;
use super::params::{Params, invalid};
use crate::model::{AttemptNo, Level, LineRange};
use crate::read::{Cursor, Filter, Order, PageRequest};

const DEFAULT_LIMIT: u64 = 1_000;
pub const MAX_LIMIT: u64 = 10_000;
pub const MAX_WAIT_SECONDS: u64 = 60;

/// Texts to look for in one call.
const MAX_CONTAINS: usize = 16;

/// Memory that one compiled expression may take.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What `GET …/records` was asked for. Its `Debug` form tells two questions apart.
#[derive(Debug)]
pub struct RecordQuery {
    pub attempt: Option<AttemptNo>,
    from_line: Option<u64>,
    to_line: Option<u64>,
    limit: u64,
    pub last: Option<u64>,
    cursor: Option<Cursor>,
    filter: Filter,
    order: Order,
    pub reverse: bool,
    pub wait_seconds: Option<u64>,
}

impl RecordQuery {
    pub fn take(params: &mut Params) -> Result<Self, Problem> {
        let mut attempt = params.take_parsed("attempt")?;
        let (from_line, to_line) = take_range(params)?;
        let limit = params.take_number("limit", 1, MAX_LIMIT)?;
        let last = params.take_number("last", 1, i64::MAX.unsigned_abs())?;
        let cursor: Option<Cursor> = params.take_parsed("cursor")?;
        let reverse = params.take_flag("reverse")?;
        let wait_seconds = params.take_number("wait", 0, MAX_WAIT_SECONDS)?;
        let order = match params.take("order")?.as_deref() {
            None | Some("line") => Order::Line,
            Some("time") => Order::Time,
            Some(other) => return Err(invalid("order", other, "it must be line or time")),
        };
        let filter = take_filter(params)?;
        let exclude = |one, other| Err(Problem::bad_request(format!("{one} and {other} do not go together")));
        if last.is_some() && cursor.is_some() {
            return exclude("last", "cursor");
        }
        if reverse && wait_seconds.is_some() {
            return exclude("reverse", "wait");
        }
        if let Some(cursor) = cursor {
            if attempt.is_some_and(|attempt| attempt != cursor.attempt) {
                return exclude("attempt", "a cursor of another attempt");
            }
            attempt = Some(cursor.attempt);
        }
        let limit = limit.or(last.map(|last| last.min(MAX_LIMIT))).unwrap_or(DEFAULT_LIMIT);
        Ok(Self { attempt, from_line, to_line, limit, last, cursor, filter, order, reverse, wait_seconds })
    }

    /// The first line that a forward read is after.
    pub fn start(&self) -> u64 {
        self.from_line.unwrap_or(0).max(self.cursor.map_or(0, |cursor| cursor.line))
    }

    /// `[from_line, to_line)` where both are given and nothing depends on how many lines there are.
    pub fn closed_range(&self) -> Option<LineRange> {
        let range = LineRange::new(self.from_line?, self.to_line?);
        let is_plain = self.last.is_none() && self.wait_seconds.is_none();
        is_plain.then_some(range)
    }

    /// Whether the last records that match are wanted: which they are is known only from behind.
    pub fn looks_back(&self) -> bool {
        self.last.is_some() && !self.reverse && !self.filter.is_empty()
    }

    /// `lines` is how many there are.
    pub fn page_request(&self, lines: u64) -> PageRequest {
        let (from, to) = (self.from_line.unwrap_or(0), self.to_line.unwrap_or(u64::MAX));
        let range = match self.cursor.map(|cursor| cursor.line) {
            Some(line) if self.reverse => LineRange::new(from, to.min(line)),
            Some(line) => LineRange::new(from.max(line), to),
            None => LineRange::new(from, to),
        };
        let limit = self.last.map_or(self.limit, |last| last.min(self.limit));
        // Without a filter the last lines are a range, which is read like any other.
        let is_tail = !self.reverse && self.filter.is_empty();
        let range = match self.last {
            Some(last) if is_tail => {
                let end = range.end().min(lines);
                LineRange::new(range.start().max(end.saturating_sub(last)), end)
            }
            _ => range,
        };
        PageRequest {
            range: Some(range),
            limit: usize::try_from(if is_tail { self.limit } else { limit }).unwrap_or(usize::MAX),
            filter: self.filter.clone(),
            order: self.order,
            reverse: self.reverse || self.looks_back(),
        }
    }
}

/// `from_line`, included, and `to_line`, not.
pub fn take_range(params: &mut Params) -> Result<(Option<u64>, Option<u64>), Problem> {
    let most = i64::MAX.unsigned_abs();
    let from_line = params.take_number("from_line", 0, most)?;
    let to_line = params.take_number("to_line", 0, most)?;
    match (from_line, to_line) {
        (Some(from), Some(to)) if to < from => {
            Err(Problem::bad_request(format!("to_line = {to} lies before from_line = {from}")))
        }
        range => Ok(range),
    }
}

pub fn take_filter(params: &mut Params) -> Result<Filter, Problem> {
    let contains = params.take_all("contains");
    if contains.len() > MAX_CONTAINS {
        return Err(Problem::bad_request(format!("contains may be given {MAX_CONTAINS} times")));
    }
    Ok(Filter {
        level: params.take("level")?.map(|name| level(&name)).transpose()?,
        since: params.take_time("since")?,
        until: params.take_time("until")?,
        contains,
        regex: params.take("regex")?.map(|pattern| regex(&pattern)).transpose()?,
        source: params.take("source")?,
    })
}

fn level(name: &str) -> Result<Level, Problem> {
    let expected = "it must be one of trace, debug, info, warn, error, fatal";
    Level::parse(name).ok_or_else(|| invalid("level", name, expected))
}

fn regex(pattern: &str) -> Result<Regex, Problem> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build();
    // Its message draws a picture of several lines; the last one says what is wrong.
    built.map_err(|error| invalid("regex", pattern, error.to_string().lines().last().unwrap_or("invalid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str) -> Result<RecordQuery, Problem> {
        let mut params = Params::parse(query)?;
        let taken = RecordQuery::take(&mut params)?;
        params.finish().map(|()| taken)
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cursor = Cursor { attempt: AttemptNo::FIRST, line: 7 }.to_string();
        for bad in [
            "limit=0",
            "limit=10001",
            "last=0",
            "from_line=5&to_line=4",
            "from_line=-1",
            "level=loud",
            "order=random",
            "regex=(",
            "regex=(a%7B1000%7D)%7B1000%7D",
            "wait=61",
            "wait=5&reverse=true",
            "cursor=x",
            &format!("cursor={cursor}&attempt=2"),
            &format!("cursor={cursor}&last=2"),
            "attempt=0",
        ] {
            assert_eq!(check(bad).expect_err(bad).kind(), "bad-request", "{bad}");
        }
        let query = check(&format!("cursor={cursor}&from_line=3&contains=a&contains=b&level=warning")).expect("good");
        assert_eq!((query.start(), query.attempt, query.filter.contains.len()), (7, Some(AttemptNo::FIRST), 2));
    }
}
