//! A filter at work on the blocks of one attempt, in whatever order and with whatever gaps they come.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::{Block, Filter, Lines, Needle, ReadError};
use crate::model::{InvalidRecord, LevelTracker, LineRange, Record};

/// Finds the records of a block that a filter lets through.
///
/// What it says of a record depends on the record and the lines in reach before it, never on which
/// blocks were read: where a gap hides the level that a record inherits, the lines before are read.
pub(super) struct Sieve {
    filter: Filter,
    needle: Option<Needle>,
    levels: LevelTracker,
    /// The lines that `levels` has seen last, without a gap.
    seen: LineRange,
    /// Whether it has also seen those in reach before them.
    seen_before: bool,
}

impl Sieve {
    pub fn new(filter: Filter) -> Self {
        let needle = Needle::of(&filter.texts());
        Self { filter, needle, levels: LevelTracker::default(), seen: LineRange::new(0, 0), seen_before: true }
    }

    /// Shows the matching records of a block of `lines`, in order, each with its number and JSON, until
    /// told to break off. Only then is the answer `Break`.
    pub async fn sift(
        &mut self,
        lines: &mut Lines,
        block: &Block,
        show: &mut impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, InvalidRecord>,
    ) -> Result<ControlFlow<()>, ReadError> {
        if self.filter.is_empty() {
            return Ok(block.records().try_fold(ControlFlow::Continue(()), |so_far, (line, json)| match so_far {
                ControlFlow::Continue(()) => show(line, json),
                stop => Ok(stop),
            })?);
        }
        if self.needle.as_ref().is_some_and(|needle| !needle.is_in(&block.records)) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.filter.level.is_some() {
            self.learn_levels(lines, block).await?;
            self.sift_all(block, show)
        } else {
            self.sift_each(block, show)
        }
    }

    /// With a level every record must be looked at, for those that inherit from it.
    fn sift_all(
        &mut self,
        block: &Block,
        show: &mut impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, InvalidRecord>,
    ) -> Result<ControlFlow<()>, ReadError> {
        for (line, json) in block.records() {
            self.seen = LineRange::new(self.seen.start(), line + 1);
            if self.filter.matches(&mut self.levels, line, &Record::parse_json(json)?) && show(line, json)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Without one each record stands for itself, and the needle leads from one to the next.
    fn sift_each(
        &self,
        block: &Block,
        show: &mut impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, InvalidRecord>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut each = |(line, json): (u64, &[u8])| -> Result<ControlFlow<()>, ReadError> {
            match self.filter.matches_itself(&Record::parse_json(json)?) {
                true => Ok(show(line, json)?),
                false => Ok(ControlFlow::Continue(())),
            }
        };
        match &self.needle {
            Some(needle) => {
                for (at, json) in needle.lines(&block.records) {
                    if each((block.lines.start() + at, json))?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            None => {
                for numbered in block.records() {
                    if each(numbered)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What records of the block inherit from lines before it. They are read only where they matter.
    async fn learn_levels(&mut self, lines: &mut Lines, block: &Block) -> Result<(), ReadError> {
        let start = block.lines.start();
        if self.seen.end() != start {
            self.levels.clear();
            (self.seen, self.seen_before) = (LineRange::new(start, start), start == 0);
        }
        if self.seen_before || !self.inherits(block)? {
            return Ok(());
        }
        let (mut before, mut older) = (lines.before(self.seen.start()), LevelTracker::default());
        while let Some(block) = before.next().await? {
            for (line, json) in block.records() {
                let record = Record::parse_json(json)?;
                older.effective(line, &record.source, record.level);
            }
        }
        self.levels.add_older(older);
        self.seen_before = true;
        Ok(())
    }

    /// Whether some record's level may be that of a record before the first that was seen.
    fn inherits(&self, block: &Block) -> Result<bool, ReadError> {
        let mut known = HashSet::new();
        let in_reach = self.seen.start().saturating_add(LevelTracker::REACH);
        for (line, json) in block.records() {
            if line >= in_reach {
                break;
            }
            let record = Record::parse_json(json)?;
            if record.level.is_some() {
                known.insert(record.source.into_owned());
            } else if !known.contains(&*record.source) && !self.levels.knows(&record.source) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
