//! The matching lines of a range as they come, for streams of any length.

use super::page::LEVEL_LOOKBACK;
use super::{Filter, Lines, ReadError, Reader, Tiers, View};
use crate::model::{InvalidRecord, LevelTracker, LineRange, Record};

/// Lines of a range that a filter lets through. Holds one block at a time.
pub struct Matching {
    lines: Lines,
    filter: Filter,
    levels: LevelTracker,
    /// Lines before are looked at only for the level that later ones inherit.
    from: u64,
}

impl Reader {
    /// The lines of `range`, as far as the view has them, that `filter` lets through.
    pub fn matching(&self, view: &View, range: LineRange, filter: Filter) -> Matching {
        let range = range.intersect(view.attempt.lines());
        let look_back = if filter.level.is_some() { LEVEL_LOOKBACK } else { 0 };
        let seen_from = range.start().saturating_sub(look_back).max(view.attempt.lines().start());
        let lines = self.lines(view, LineRange::new(seen_from, range.end()));
        Matching { lines, filter, levels: LevelTracker::default(), from: range.start() }
    }
}

impl Matching {
    /// Shows the matching lines of the next block, each with its number and JSON; false behind the
    /// end. A block may hold no match.
    pub async fn next(
        &mut self,
        mut show: impl FnMut(u64, &[u8]) -> Result<(), InvalidRecord>,
    ) -> Result<bool, ReadError> {
        let Some(block) = self.lines.next().await? else { return Ok(false) };
        for (line, json) in block.records() {
            let matches = self.filter.is_empty() || self.filter.matches(&mut self.levels, &Record::parse_json(json)?);
            if matches && line >= self.from {
                show(line, json)?;
            }
        }
        Ok(true)
    }

    pub fn touched(&self) -> Tiers {
        self.lines.touched()
    }
}
