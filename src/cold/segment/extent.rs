//! What some lines are known to hold without reading them.

use crate::model::{LevelSet, Timestamp};

/// The least and the largest timestamp of some records; nothing says that they are the first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TsRange {
    min: Timestamp,
    max: Timestamp,
}

impl TsRange {
    /// The range that holds both.
    pub fn new(one: Timestamp, other: Timestamp) -> Self {
        Self { min: one.min(other), max: one.max(other) }
    }

    pub fn min(self) -> Timestamp {
        self.min
    }

    pub fn max(self) -> Timestamp {
        self.max
    }

    /// Both ends, least first.
    pub fn ends(self) -> (Timestamp, Timestamp) {
        (self.min, self.max)
    }

    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The range in whole milliseconds that holds this one: first, last.
    pub(super) fn to_millis(self) -> (i64, i64) {
        let (min, max) = (self.min.nanos(), self.max.nanos());
        (
            min.div_euclid(NANOS_PER_MILLI),
            max.div_euclid(NANOS_PER_MILLI) + i64::from(max.rem_euclid(NANOS_PER_MILLI) > 0),
        )
    }

    pub(super) fn from_millis(first: i64, last: i64) -> Self {
        let ts = |millis: i64| Timestamp::from_nanos(millis.saturating_mul(NANOS_PER_MILLI));
        Self::new(ts(first), ts(last))
    }
}

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A number of lines, and bounds of what they hold: never less than is there, perhaps more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub lines: u64,
    /// `None` only where there are no lines or nobody knows.
    pub ts: Option<TsRange>,
    pub levels: LevelSet,
}

impl Extent {
    /// Takes in all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.lines += other.lines;
        self.widen(other);
    }

    /// Takes in the bounds of `other`, not its lines.
    pub fn widen(&mut self, other: Self) {
        self.ts = match (self.ts, other.ts) {
            (Some(one), Some(two)) => Some(one.union(two)),
            (one, two) => one.or(two),
        };
        self.levels = self.levels.union(other.levels);
    }
}
