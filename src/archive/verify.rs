//! The fourth verb: read the object back from the store and compare it with the hot tier.
//!
//! [`Replay`] proves that the object is whole and says what its index says. Here its lines are
//! hashed chunk by chunk and compared with the hashes in the chunk rows, which were made when the
//! records arrived and are read again from the database now: nothing that `build` remembers counts.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::Xxh3;

use super::build::{Built, BuiltEntry};
use super::read_ahead::{LOOK_AHEAD, ROWS_AT_A_TIME};
use super::{ArchiveError, Shared};
use crate::cold::segment::{Entry, LineBlock, Replay, Replayed};
use crate::db::Shard;
use crate::hot::{self, ChunkHeader};
use crate::model::{AttemptId, LineRange};

/// An object whose content is that of the hot tier. Only [`verify`] makes one.
pub(super) struct Verified {
    built: Built,
}

impl Verified {
    pub(super) fn into_built(self) -> Built {
        self.built
    }
}

/// Chunk rows asked for at a time; without their payload they are some 50 bytes each.
const HEADERS_AT_A_TIME: u32 = 1_000;

/// Attempts whose records take no more have few chunks: their rows are read together.
const SMALL_BYTES: u64 = 1 << 20;

pub(super) async fn verify(shared: &Shared, built: Built) -> Result<Verified, ArchiveError> {
    let key = built.planned.key.clone();
    let mismatch = |(culprit, what): Difference| ArchiveError::Mismatch { key: key.to_string(), what, culprit };
    let mut replay = Replay::open(&shared.store, &key, built.written.byte_length, built.written.hash).await?;
    let mut entries = built.entries.as_slice();
    let mut ahead = HashMap::new();
    let mut comparison: Option<Comparison<'_>> = None;
    while let Some(replayed) = replay.next().await? {
        match replayed {
            Replayed::Attempt(found) => {
                if let Some(before) = comparison.take() {
                    before.end().map_err(mismatch)?;
                }
                let Some(expected) = entries.first() else {
                    return Err(mismatch((None, "it has an attempt too many".to_owned())));
                };
                let headers = headers_of(entries, &mut ahead).await?;
                comparison = Some(Comparison::begin(expected, headers, &found).map_err(mismatch)?);
                entries = &entries[1..];
            }
            Replayed::Lines(block) => {
                let comparison =
                    comparison.as_mut().ok_or_else(|| mismatch((None, "lines without an attempt".to_owned())))?;
                comparison.compare(&block).await?.map_err(mismatch)?;
            }
        }
        if shared.stop.is_cancelled() {
            return Err(ArchiveError::Stopping);
        }
    }
    if let Some(last) = comparison {
        last.end().map_err(mismatch)?;
    }
    if !entries.is_empty() {
        return Err(mismatch((None, "it lacks an attempt".to_owned())));
    }
    shared.metrics.objects_verified.inc();
    Ok(Verified { built })
}

/// Chunk rows of the first entry as far as they were read together with those of other small ones.
async fn headers_of(
    entries: &[BuiltEntry],
    ahead: &mut HashMap<(Shard, AttemptId), Vec<ChunkHeader>>,
) -> Result<VecDeque<ChunkHeader>, ArchiveError> {
    let BuiltEntry { home, attempt, lines, .. } = &entries[0];
    let is_small = |entry: &&BuiltEntry| entry.attempt.raw_bytes <= SMALL_BYTES && entry.home.shard == home.shard;
    if is_small(&&entries[0]) && !ahead.contains_key(&(home.shard, attempt.id)) {
        let next = entries.iter().take(LOOK_AHEAD).filter(is_small).take(ROWS_AT_A_TIME);
        let ids: Vec<AttemptId> = next.map(|entry| entry.attempt.id).collect();
        // Nothing of one is also an answer.
        ahead.extend(ids.iter().map(|id| ((home.shard, *id), Vec::new())));
        let read = hot::headers_of_several(home, &ids, HEADERS_AT_A_TIME).await?;
        ahead.extend(read.into_iter().map(|(id, headers)| ((home.shard, id), headers)));
    }
    let mut headers = VecDeque::from(ahead.remove(&(home.shard, attempt.id)).unwrap_or_default());
    headers.retain(|header| lines.contains(header.lines.start()));
    Ok(headers)
}

/// What differs, and the attempt that it is about where one can be told.
type Difference = (Option<AttemptId>, String);

/// One attempt's lines against its chunk rows.
struct Comparison<'a> {
    entry: &'a BuiltEntry,
    next_line: u64,
    headers: VecDeque<ChunkHeader>,
    hash: Xxh3,
}

impl<'a> Comparison<'a> {
    fn begin(entry: &'a BuiltEntry, headers: VecDeque<ChunkHeader>, found: &Entry) -> Result<Self, Difference> {
        let same = found.attempt.id == entry.attempt.id && found.lines() == entry.lines;
        if !same {
            return Err((None, format!("attempt {} holds lines {}", found.attempt.id.get(), found.lines())));
        }
        Ok(Self { entry, next_line: entry.lines.start(), headers, hash: Xxh3::new() })
    }

    /// Outer errors: the tiers could not be asked. Inner ones: they differ.
    async fn compare(&mut self, block: &LineBlock) -> Result<Result<(), Difference>, ArchiveError> {
        let mut rest: &[u8] = &block.lines;
        while !rest.is_empty() {
            if self.headers.is_empty() {
                let left = LineRange::new(self.next_line, self.entry.lines.end());
                let BuiltEntry { home, attempt, .. } = self.entry;
                self.headers = hot::headers(home, attempt.id, left, HEADERS_AT_A_TIME).await?.into();
            }
            let Some(header) = self.headers.front().copied() else {
                return Ok(Err(self.differs("the hot tier has no such line")));
            };
            let wanted = header.lines.end().saturating_sub(self.next_line);
            let (piece, lines) = take_lines(rest, wanted);
            self.hash.update(piece);
            self.next_line += lines;
            rest = &rest[piece.len()..];
            if self.next_line == header.lines.end() {
                if self.hash.digest().cast_signed() != header.hash {
                    return Ok(Err(self.differs("the chunk that ends before it has another hash")));
                }
                self.hash.reset();
                self.headers.pop_front();
            } else if !rest.is_empty() {
                return Ok(Err(self.differs("chunk rows and lines do not fit")));
            }
        }
        Ok(Ok(()))
    }

    fn end(&self) -> Result<(), Difference> {
        let is_whole =
            self.next_line == self.entry.lines.end() && self.headers.iter().all(|h| h.lines.start() >= self.next_line);
        if is_whole { Ok(()) } else { Err(self.differs("it ends too early")) }
    }

    fn differs(&self, what: &str) -> Difference {
        let id = self.entry.attempt.id;
        (Some(id), format!("attempt {} at line {}: {what}", id.get(), self.next_line))
    }
}

/// The first lines of `text`, at most `wanted`, and how many they are.
fn take_lines(text: &[u8], wanted: u64) -> (&[u8], u64) {
    let mut lines = 0;
    for end in memchr::memchr_iter(b'\n', text) {
        lines += 1;
        if lines == wanted {
            return (&text[..=end], lines);
        }
    }
    (text, lines)
}
