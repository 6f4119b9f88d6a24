//! The matching lines of a range as they come, for streams of any length.

use std::ops::ControlFlow;

use super::lines::Wanted;
use super::sieve::Sieve;
use super::{Cost, Filter, Lines, ReadError, Reader, Tiers, View};
use crate::model::{InvalidRecord, LineRange};

/// Lines of a range that a filter lets through. Holds one block at a time.
pub struct Matching {
    lines: Lines,
    sieve: Sieve,
}

impl Reader {
    /// The lines of `range`, as far as the view has them, that `filter` lets through.
    pub fn matching(&self, view: &View, range: LineRange, filter: Filter) -> Matching {
        let wanted = Wanted::of(range.intersect(view.attempt.lines()), &filter);
        let lines = Lines::new(self.clone(), view, wanted);
        Matching { lines, sieve: Sieve::new(filter) }
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
        let mut show = |line, json: &[u8]| show(line, json).map(ControlFlow::Continue);
        let _ = self.sieve.sift(&mut self.lines, &block, &mut show).await?;
        Ok(true)
    }

    pub fn touched(&self) -> Tiers {
        self.lines.touched()
    }

    pub fn cost(&self) -> Cost {
        self.lines.cost()
    }
}
