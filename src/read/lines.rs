//! The lines of a range, block by block, from whichever tier has them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{ReadError, Reader, View};
use crate::catalog::{Part, Snapshot};
use crate::cold::segment::{self, FrameMap, PartReader, Place};
use crate::cold::{Error as ColdError, ObjectName};
use crate::db::Home;
use crate::hot::{self, StoredChunk};
use crate::model::{AttemptKey, LineRange, RuleName};

/// Chunks fetched at a time: half a MiB of usual records, and at most 16 of the largest.
const CHUNKS_PER_SCAN: u32 = 16;

/// Where a block came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Hot,
    Cold,
}

/// The tiers that a read has touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tiers {
    pub hot: bool,
    pub cold: bool,
}

impl Tiers {
    fn touch(&mut self, tier: Tier) {
        match tier {
            Tier::Hot => self.hot = true,
            Tier::Cold => self.cold = true,
        }
    }

    /// `hot`, `cold`, `hot+cold`, or nothing.
    pub fn as_str(self) -> &'static str {
        match (self.hot, self.cold) {
            (true, true) => "hot+cold",
            (true, false) => "hot",
            (false, true) => "cold",
            (false, false) => "",
        }
    }
}

/// Some consecutive records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub lines: LineRange,
    /// The records' JSON, each ended by a newline.
    pub records: Bytes,
    pub tier: Tier,
}

impl Block {
    /// Each record's line number and JSON, without its newline.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &[u8])> {
        let text = self.records.strip_suffix(b"\n").unwrap_or(&self.records);
        let records: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let first = self.lines.start();
        records.into_iter().enumerate().map(move |(at, json)| (first + at as u64, json))
    }
}

/// Reads a range in order. Ends after its last line, or with an error; never early.
pub struct Lines {
    reader: Reader,
    key: AttemptKey,
    snapshot: Snapshot,
    left: LineRange,
    ready: VecDeque<StoredChunk>,
    part: Option<PartReader>,
    /// The line at which the last new snapshot was taken.
    looked_again_at: Option<u64>,
    touched: Tiers,
}

impl Lines {
    pub(super) fn new(reader: Reader, view: &View, range: LineRange) -> Self {
        Self {
            key: view.key(),
            snapshot: view.snapshot.clone(),
            left: range,
            ready: VecDeque::new(),
            part: None,
            looked_again_at: None,
            touched: Tiers::default(),
            reader,
        }
    }

    pub fn touched(&self) -> Tiers {
        self.touched
    }

    /// The next lines of the range; `None` behind its end.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        while !self.left.is_empty() {
            let next = self.left.start();
            let block = if self.part.is_some() || next < self.snapshot.attempt.archived_line {
                self.next_cold().await?
            } else {
                self.next_hot().await?
            };
            if let Some(block) = block {
                debug_assert_eq!(block.lines.start(), next);
                self.left = LineRange::new(block.lines.end(), self.left.end());
                self.touched.touch(block.tier);
                return Ok(Some(block));
            }
        }
        self.reader.metrics.read(self.touched.as_str());
        Ok(None)
    }

    /// A chunk, or `None` after looking at the catalog again.
    async fn next_hot(&mut self) -> Result<Option<Block>, ReadError> {
        if self.ready.is_empty() {
            let Snapshot { home, attempt, .. } = &self.snapshot;
            self.ready = hot::scan(home, attempt.id, self.left, CHUNKS_PER_SCAN).await?.into();
        }
        let next = self.left.start();
        match self.ready.pop_front() {
            Some(chunk) if chunk.lines.start() <= next && next < chunk.lines.end() => Ok(Some(cut(chunk, self.left))),
            // Archived and purged since the snapshot.
            _ => self.look_again().await.map(|()| None),
        }
    }

    /// Lines of a part, or `None` at its end or after looking at the catalog again.
    async fn next_cold(&mut self) -> Result<Option<Block>, ReadError> {
        if self.part.is_none() {
            let next = self.left.start();
            let holds_next = |part: &&Part| part.lines.start() <= next && next < part.lines.end();
            let Some(part) = self.snapshot.parts.iter().find(holds_next) else {
                // Behind the last part that fitted into the snapshot, or expired since.
                return self.look_again().await.map(|()| None);
            };
            match open_part(&self.reader, &self.key, &self.snapshot.home, part, self.left).await {
                Ok(reader) => self.part = Some(reader),
                Err(ReadError::Cold(ColdError::NotFound { .. })) => return self.look_again().await.map(|()| None),
                Err(error) => return Err(error),
            }
        }
        let Some(part) = &mut self.part else { return Ok(None) };
        match part.next().await {
            Ok(Some(block)) => Ok(Some(Block {
                lines: LineRange::new(block.first_line, block.first_line + block.line_count),
                records: block.lines,
                tier: Tier::Cold,
            })),
            Ok(None) => {
                self.part = None;
                Ok(None)
            }
            Err(ColdError::NotFound { .. }) => self.look_again().await.map(|()| None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the snapshot named is not there: take a new one, once at each line.
    async fn look_again(&mut self) -> Result<(), ReadError> {
        let next = self.left.start();
        if self.looked_again_at.replace(next) == Some(next) {
            return Err(ReadError::Missing { line: next });
        }
        self.ready.clear();
        self.part = None;
        let AttemptKey { app, instance, attempt } = &self.key;
        let catalog = &self.reader.catalog;
        let found = catalog.snapshot(app, instance, Some(*attempt), LineRange::new(next, u64::MAX)).await?;
        let found = found.filter(|found| found.attempt.id == self.snapshot.attempt.id).ok_or(ReadError::NeverLogged)?;
        let state = found.attempt.state_at(self.reader.clock.now());
        if state.is_gone() {
            return Err(ReadError::Gone { state, at: found.attempt.gone_since() });
        }
        self.snapshot = found;
        Ok(())
    }

    /// The same as a stream of blocks, which ends with the first error.
    pub fn into_stream(self) -> impl futures::Stream<Item = Result<Block, ReadError>> + Send + 'static {
        futures::stream::try_unfold(self, async |mut lines| Ok(lines.next().await?.map(|block| (block, lines))))
    }
}

async fn open_part(
    reader: &Reader,
    attempt: &AttemptKey,
    home: &Home,
    part: &Part,
    wanted: LineRange,
) -> Result<PartReader, ReadError> {
    let rule = reader.catalog.rule_name(home, part.segment.rule_id).await?;
    let rule: RuleName = rule.parse().map_err(|_| crate::db::Error::Row(format!("rule name \"{rule}\"")))?;
    let app = attempt.app.clone();
    let key = ObjectName { app, rule, finish_day: part.segment.finish_day, ulid: part.segment.ulid }.key();
    let place = Place {
        first_line: part.lines.start(),
        line_count: part.lines.len(),
        byte_offset: part.byte_offset,
        byte_length: part.byte_length,
        skip: part.skip,
        frames: if part.frames.is_empty() { None } else { FrameMap::decode(&part.frames) },
    };
    let part = segment::Part { key: &key, byte_length: part.segment.byte_length, place: &place, attempt };
    Ok(PartReader::open(&reader.store, part, wanted).await?)
}

/// The lines of a chunk that are in `wanted`.
fn cut(chunk: StoredChunk, wanted: LineRange) -> Block {
    let lines = chunk.lines.intersect(wanted);
    let records = Bytes::from(chunk.records);
    if lines == chunk.lines {
        return Block { lines, records, tier: Tier::Hot };
    }
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &records).map(|at| at + 1).collect();
    let end_of = |line: u64| match (line - chunk.lines.start()) as usize {
        0 => 0,
        lines => ends[lines - 1],
    };
    let records = records.slice(end_of(lines.start())..end_of(lines.end()));
    Block { lines, records, tier: Tier::Hot }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LevelSet, Timestamp};

    #[test]
    fn a_chunk_is_cut_to_the_range() {
        let chunk = StoredChunk {
            lines: LineRange::new(10, 13),
            first_ts: Timestamp::from_nanos(0),
            last_ts: Timestamp::from_nanos(0),
            levels: LevelSet::EMPTY,
            records: b"a\nbb\nccc\n".to_vec(),
        };
        let check = |from, to, expected: &str| {
            let block = cut(chunk.clone(), LineRange::new(from, to));
            assert_eq!(block.records, expected.as_bytes());
            assert_eq!(block.records().count() as u64, block.lines.len());
        };
        check(0, 100, "a\nbb\nccc\n");
        check(11, 100, "bb\nccc\n");
        check(10, 12, "a\nbb\n");
        check(12, 13, "ccc\n");
    }
}
