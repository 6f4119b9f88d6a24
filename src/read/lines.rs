//! The lines of a range, block by block, from whichever tier has them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{Cost, Filter, ReadError, Reader, View};
use crate::catalog::{Part, Snapshot};
use crate::cold::segment::{self, Asked, FrameMap, Ndjson, PartReader, Place, SearchKeys, Shape};
use crate::cold::{Error as ColdError, ObjectName};
use crate::hot::{self, Outline, StoredChunk};
use crate::model::{AttemptKey, Bounds, LevelTracker, LineRange, RuleName};
use crate::telemetry::chain;

/// Chunks fetched at a time: half a MiB of usual records, and at most 16 of the largest.
const CHUNKS_PER_SCAN: u32 = 16;

/// Rows without payload looked at at a time: some 50 bytes each.
const OUTLINES_AT_A_TIME: u32 = 1_000;

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
    /// The records' JSON, each ended by a newline; or what `shape` says, where that was asked for.
    pub records: Bytes,
    pub shape: Shape,
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

/// Which lines to read, and how.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub lines: LineRange,
    /// What cannot hold a record within them is left out.
    pub bounds: Bounds,
    /// From the last block to the first; lines inside of a block stay in order.
    pub backwards: bool,
    /// How many lines are surely wanted: what is fetched at first.
    pub at_once: u64,
    /// What search filters must not rule out.
    pub keys: Option<Arc<SearchKeys>>,
    pub ndjson: Option<Ndjson>,
}

impl Wanted {
    pub fn all(lines: LineRange) -> Self {
        Self { lines, bounds: Bounds::default(), backwards: false, at_once: u64::MAX, keys: None, ndjson: None }
    }

    /// What a filter may let through.
    pub fn of(lines: LineRange, filter: &Filter) -> Self {
        let keys = SearchKeys::of(&filter.texts());
        let keys = (!keys.is_empty()).then(|| Arc::new(keys));
        Self { bounds: filter.bounds(), keys, ..Self::all(lines) }
    }
}

/// Reads a range block by block. Ends after its last line, or with an error; never early.
///
/// Between blocks lines are missing only where the bounds leave them out.
pub struct Lines {
    reader: Reader,
    key: AttemptKey,
    snapshot: Snapshot,
    bounds: Bounds,
    backwards: bool,
    at_once: u64,
    keys: Option<Arc<SearchKeys>>,
    ndjson: Option<Ndjson>,
    left: LineRange,
    outlines: VecDeque<Outline>,
    ready: VecDeque<StoredChunk>,
    /// The part that is being read, and its lines.
    part: Option<(PartReader, LineRange)>,
    /// The line at which the last new snapshot was taken.
    looked_again_at: Option<u64>,
    touched: Tiers,
    cost: Cost,
}

impl Lines {
    pub(super) fn new(reader: Reader, view: &View, wanted: Wanted) -> Self {
        Self::of(reader, view.key(), view.snapshot.clone(), wanted)
    }

    fn of(reader: Reader, key: AttemptKey, snapshot: Snapshot, wanted: Wanted) -> Self {
        Self {
            key,
            snapshot,
            bounds: wanted.bounds,
            backwards: wanted.backwards,
            at_once: wanted.at_once,
            keys: wanted.keys,
            ndjson: wanted.ndjson,
            left: wanted.lines,
            outlines: VecDeque::new(),
            ready: VecDeque::new(),
            part: None,
            looked_again_at: None,
            touched: Tiers::default(),
            cost: Cost::default(),
            reader,
        }
    }

    /// The lines before `line` that a level may be inherited from, of the same attempt.
    pub(super) fn before(&self, line: u64) -> Self {
        let lines = LineRange::new(line.saturating_sub(LevelTracker::REACH), line);
        let lines = lines.intersect(self.snapshot.attempt.lines());
        Self::of(self.reader.clone(), self.key.clone(), self.snapshot.clone(), Wanted::all(lines))
    }

    pub fn touched(&self) -> Tiers {
        self.touched
    }

    pub fn cost(&self) -> Cost {
        let mut cost = self.cost;
        cost.add_part(self.part.as_ref().map(|(part, _)| part.cost()).unwrap_or_default());
        cost
    }

    /// The next lines of the range; `None` behind its end.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        while !self.left.is_empty() {
            let block = if self.part.is_some() || self.next_line() < self.snapshot.attempt.archived_line {
                self.next_cold().await?
            } else {
                self.next_hot().await?
            };
            if let Some(block) = block {
                debug_assert!(block.lines.intersect(self.left) == block.lines);
                self.pass(block.lines);
                self.touched.touch(block.tier);
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The line to be read next.
    fn next_line(&self) -> u64 {
        if self.backwards { self.left.end() - 1 } else { self.left.start() }
    }

    /// `lines` and what lies between them and the last ones are done with.
    fn pass(&mut self, lines: LineRange) {
        self.left = if self.backwards {
            LineRange::new(self.left.start(), lines.start().clamp(self.left.start(), self.left.end()))
        } else {
            LineRange::new(lines.end().clamp(self.left.start(), self.left.end()), self.left.end())
        };
    }

    /// A chunk, or `None` after passing over some or looking at the catalog again.
    async fn next_hot(&mut self) -> Result<Option<Block>, ReadError> {
        if self.ready.is_empty() {
            if self.bounds.is_open() && !self.backwards {
                let Snapshot { home, attempt, .. } = &self.snapshot;
                self.ready = hot::scan(home, attempt.id, self.left, CHUNKS_PER_SCAN).await?.into();
            } else if !self.select_chunks().await? {
                return Ok(None);
            }
        }
        let next = self.next_line();
        match self.ready.pop_front() {
            Some(chunk) if chunk.lines.contains(next) => {
                self.cost.chunks += 1;
                Ok(Some(cut(chunk, self.left)))
            }
            // Archived and purged since the snapshot.
            _ => self.look_again().await.map(|()| None),
        }
    }

    /// Passes over chunks that their rows rule out and makes the next ones ready; false where there
    /// are none, or after looking at the catalog again.
    async fn select_chunks(&mut self) -> Result<bool, ReadError> {
        let Snapshot { home, attempt, .. } = self.snapshot.clone();
        if self.outlines.is_empty() {
            let lines = LineRange::new(self.left.start().max(attempt.archived_line), self.left.end());
            let limit = u32::try_from(lines.len()).unwrap_or(u32::MAX).min(OUTLINES_AT_A_TIME);
            self.outlines = hot::outline(&home, attempt.id, lines, self.backwards, limit).await?.into();
            if self.outlines.is_empty() {
                return self.look_again().await.map(|()| false);
            }
        }
        while let Some(outline) = self.outlines.front().copied() {
            if !outline.lines.contains(self.next_line()) {
                return self.look_again().await.map(|()| false);
            }
            if self.bounds.may_hold(outline.levels, Some((outline.first_ts, outline.last_ts))) {
                break;
            }
            self.outlines.pop_front();
            self.cost.chunks_skipped += 1;
            self.pass(outline.lines);
            if self.left.is_empty() {
                return Ok(false);
            }
        }
        let Some(run) = self.take_run() else { return Ok(false) };
        self.ready = hot::scan(&home, attempt.id, run.intersect(self.left), CHUNKS_PER_SCAN).await?.into();
        if self.backwards {
            self.ready.make_contiguous().reverse();
        }
        Ok(true)
    }

    /// The lines of the next chunks that may match and lie together.
    fn take_run(&mut self) -> Option<LineRange> {
        let mut run: Option<LineRange> = None;
        for _ in 0..CHUNKS_PER_SCAN {
            let Some(outline) = self.outlines.front() else { break };
            let is_next =
                run.is_none_or(|run| outline.lines.end() == run.start() || outline.lines.start() == run.end());
            if !is_next || !self.bounds.may_hold(outline.levels, Some((outline.first_ts, outline.last_ts))) {
                break;
            }
            let (start, end) = (outline.lines.start(), outline.lines.end());
            run = Some(run.map_or(outline.lines, |run| LineRange::new(run.start().min(start), run.end().max(end))));
            self.outlines.pop_front();
        }
        run
    }

    /// Lines of a part, or `None` at its end or after looking at the catalog again.
    async fn next_cold(&mut self) -> Result<Option<Block>, ReadError> {
        if self.part.is_none() {
            let next = self.next_line();
            let Some(part) = self.snapshot.parts.iter().find(|part| part.lines.contains(next)).cloned() else {
                // Behind the last part that fitted into the snapshot, or expired since.
                return self.look_again().await.map(|()| None);
            };
            if !self.bounds.may_hold(part.levels, part.ts_range) {
                self.pass(part.lines);
                return Ok(None);
            }
            match self.open_part(&part).await {
                Ok((reader, fetched)) => {
                    self.part = Some((reader, part.lines));
                    self.cost.bytes += fetched;
                }
                Err(ReadError::Cold(error @ ColdError::NotFound { .. })) => return self.vanished(error).await,
                Err(error) => return Err(error),
            }
        }
        let Some((part, lines)) = &mut self.part else { return Ok(None) };
        match part.next().await {
            Ok(Some(block)) => Ok(Some(Block {
                lines: LineRange::new(block.first_line, block.first_line + block.line_count),
                records: block.lines,
                shape: block.shape,
                tier: Tier::Cold,
            })),
            Ok(None) => {
                let lines = *lines;
                self.close_part();
                self.pass(lines);
                Ok(None)
            }
            Err(error @ ColdError::NotFound { .. }) => self.vanished(error).await,
            Err(error) => Err(error.into()),
        }
    }

    /// A reader of what is left of a part, and the bytes that were fetched to know what can be skipped.
    async fn open_part(&mut self, part: &Part) -> Result<(PartReader, u64), ReadError> {
        let (reader, home) = (self.reader.clone(), self.snapshot.home.clone());
        let rule = reader.catalog.rule_name(&home, part.segment.rule_id).await?;
        let rule: RuleName = rule.parse().map_err(|_| crate::db::Error::Row(format!("rule name \"{rule}\"")))?;
        let app = self.key.app.clone();
        let key = ObjectName { app, rule, finish_day: part.segment.finish_day, ulid: part.segment.ulid }.key();
        let place = Place {
            first_line: part.lines.start(),
            line_count: part.lines.len(),
            byte_offset: part.byte_offset,
            byte_length: part.byte_length,
            skip: part.skip,
            frames: if part.frames.is_empty() { None } else { FrameMap::decode(&part.frames) },
        };
        let map = match &self.keys {
            Some(_) => reader.map_if_worth(&key, &part.segment, part.byte_length).await?,
            None => None,
        };
        let (map, fetched) = map.unzip();
        let asked = Asked {
            lines: self.left,
            bounds: self.bounds,
            backwards: self.backwards,
            at_once: self.at_once,
            search: map.zip(self.keys.clone()),
            ndjson: self.ndjson.clone(),
        };
        let part =
            segment::Part { key: &key, byte_length: part.segment.byte_length, place: &place, attempt: &self.key };
        Ok((PartReader::open(&reader.store, part, &asked).await?, fetched.unwrap_or(0)))
    }

    fn close_part(&mut self) {
        if let Some((part, _)) = self.part.take() {
            self.cost.add_part(part.cost());
        }
    }

    /// An object went since the snapshot; or it is lost, and then this is the trace of it.
    async fn vanished(&mut self, error: ColdError) -> Result<Option<Block>, ReadError> {
        if self.looked_again_at == Some(self.next_line()) {
            tracing::error!(attempt = %self.key, error = chain(&error), "the catalog names an object that is missing");
            return Err(error.into());
        }
        tracing::info!(attempt = %self.key, error = chain(&error), "asking the catalog again");
        self.look_again().await.map(|()| None)
    }

    /// What the snapshot named is not there: take a new one, once at each line.
    async fn look_again(&mut self) -> Result<(), ReadError> {
        let next = self.next_line();
        if self.looked_again_at.replace(next) == Some(next) {
            tracing::error!(attempt = %self.key, line = next, "what the catalog names is in neither tier");
            return Err(ReadError::Missing { line: next });
        }
        self.ready.clear();
        self.outlines.clear();
        self.close_part();
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

impl Drop for Lines {
    /// However a read ends, what it did counts.
    fn drop(&mut self) {
        if self.touched != Tiers::default() {
            self.reader.metrics.read(self.touched.as_str());
        }
        self.cost().count(&self.reader.metrics);
    }
}

/// The same of consecutive chunks; `None` where they do not hold all of it.
pub(super) fn cut_all(chunks: Vec<StoredChunk>, wanted: LineRange) -> Option<Vec<Block>> {
    let mut next = wanted.start();
    let mut blocks = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if next >= wanted.end() {
            break;
        }
        if !chunk.lines.contains(next) {
            return None;
        }
        let block = cut(chunk, LineRange::new(next, wanted.end()));
        next = block.lines.end();
        blocks.push(block);
    }
    (next >= wanted.end()).then_some(blocks)
}

/// The lines of a chunk that are in `wanted`.
fn cut(chunk: StoredChunk, wanted: LineRange) -> Block {
    let lines = chunk.lines.intersect(wanted);
    let records = Bytes::from(chunk.records);
    if lines == chunk.lines {
        return Block { lines, records, shape: Shape::Records, tier: Tier::Hot };
    }
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &records).map(|at| at + 1).collect();
    let end_of = |line: u64| match (line - chunk.lines.start()) as usize {
        0 => 0,
        lines => ends[lines - 1],
    };
    let records = records.slice(end_of(lines.start())..end_of(lines.end()));
    Block { lines, records, shape: Shape::Records, tier: Tier::Hot }
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
