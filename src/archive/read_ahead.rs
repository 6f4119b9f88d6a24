//! Reads what an object is to be made of before its turn comes: rows and chunks, shard by shard.
//!
//! Candidates of all shards stand in one order, so that those of one shard are far apart. Some of each
//! shard are read together, and the next ones while these are written: a statement of its own for each
//! small attempt would take longer than compressing it.

use std::collections::HashMap;

use tokio_util::task::AbortOnDropHandle;

use super::ArchiveError;
use super::candidates::Candidate;
use crate::catalog::{Attempt, Catalog};
use crate::db::{self, Home, Shard};
use crate::hot::{self, StoredChunk};
use crate::model::AttemptId;

/// Attempts whose rows are read together.
pub(super) const ROWS_AT_A_TIME: usize = 64;

/// How far ahead a shard's candidates are looked for, among those of all shards: 64 of each of 16.
pub(super) const LOOK_AHEAD: usize = 1_024;

/// Records that are read at a time of all shards of a server together; twice as much is in memory.
const AHEAD_BYTES: u64 = 16 << 20;

/// Rows of chunks that are read at a time of a shard, however little they hold.
const AHEAD_CHUNKS: u32 = 2_048;

/// The share of a shard's room that one attempt may take: a large one would leave none to the others.
const SMALL_SHARE: u64 = 4;

/// A row as it was a moment ago and, of one that is small, its first chunks; `None` where there is none.
type Found = Option<(Attempt, Vec<StoredChunk>)>;

pub(super) struct ReadAhead<'a> {
    catalog: &'a Catalog,
    candidates: &'a [Candidate],
    /// Read, and not yet taken. An id is unique in its shard.
    found: HashMap<(Shard, AttemptId), Found>,
    coming: HashMap<Shard, Coming>,
}

/// Candidates of a shard that are being read.
struct Coming {
    first: AttemptId,
    /// The candidate behind the last.
    end: usize,
    reading: AbortOnDropHandle<db::Result<Vec<(AttemptId, Found)>>>,
}

impl<'a> ReadAhead<'a> {
    /// Begins with the first ones of each shard.
    pub fn new(catalog: &'a Catalog, candidates: &'a [Candidate]) -> Self {
        let mut ahead = Self { catalog, candidates, found: HashMap::new(), coming: HashMap::new() };
        for (at, Candidate { home, .. }) in candidates.iter().enumerate().take(LOOK_AHEAD) {
            if !ahead.coming.contains_key(&home.shard)
                && let Some(first) = ahead.begin(at, home)
            {
                ahead.coming.insert(home.shard, first);
            }
        }
        ahead
    }

    /// What there is of a candidate; they are taken in order.
    pub async fn take(&mut self, at: usize) -> Result<Found, ArchiveError> {
        let Candidate { id, home, .. } = &self.candidates[at];
        if !self.found.contains_key(&(home.shard, *id)) {
            let coming = match self.coming.remove(&home.shard) {
                Some(coming) if coming.first == *id => Some(coming),
                _ => self.begin(at, home),
            };
            let Some(Coming { end, reading, .. }) = coming else { return Ok(None) };
            let found = reading.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
            self.found.extend(found?.into_iter().map(|(id, found)| ((home.shard, id), found)));
            if let Some(next) = self.begin(end, home) {
                self.coming.insert(home.shard, next);
            }
        }
        Ok(self.found.remove(&(home.shard, *id)).flatten())
    }

    /// Begins to read the next candidates of a shard; `None` where there are none near.
    #[expect(clippy::disallowed_methods, reason = "its handle owns the task, and ends it")]
    fn begin(&self, from: usize, home: &Home) -> Option<Coming> {
        let near = self.candidates.iter().enumerate().skip(from).take(LOOK_AHEAD);
        let next = near.filter(|(_, candidate)| candidate.home.shard == home.shard).take(ROWS_AT_A_TIME);
        let (places, ids): (Vec<usize>, Vec<AttemptId>) = next.map(|(at, candidate)| (at, candidate.id)).unzip();
        let (first, end) = (*ids.first()?, places.last()? + 1);
        let reading = tokio::spawn(read(self.catalog.clone(), home.clone(), ids));
        Some(Coming { first, end, reading: AbortOnDropHandle::new(reading) })
    }
}

async fn read(catalog: Catalog, home: Home, ids: Vec<AttemptId>) -> db::Result<Vec<(AttemptId, Found)>> {
    let rows = catalog.attempts(&home, &ids).await?;
    let room = AHEAD_BYTES / home.db.shards().len().max(1) as u64;
    let mut bytes = 0;
    let small = rows.iter().filter(|row| {
        let fits = row.raw_bytes <= room / SMALL_SHARE && bytes + row.raw_bytes <= room;
        bytes += if fits { row.raw_bytes } else { 0 };
        fits
    });
    let small: Vec<AttemptId> = small.map(|row| row.id).collect();
    let mut chunks = hot::scan_several(&home, &small, AHEAD_CHUNKS).await?;
    let mut rows: HashMap<AttemptId, Attempt> = rows.into_iter().map(|row| (row.id, row)).collect();
    let found = ids.into_iter().map(|id| {
        let row = rows.remove(&id).map(|row| (row, chunks.remove(&id).unwrap_or_default()));
        (id, row)
    });
    Ok(found.collect())
}
