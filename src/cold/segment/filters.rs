//! The search filters of a segment: for each frame, which pieces of messages it may hold.
//!
//! They answer "not here" without a look at the frame. Their only wrong answer is "perhaps", and
//! where they are missing or damaged everything is "perhaps".

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::cold::error::Result;
use crate::cold::keys::Key;
use crate::cold::store::Store;

use super::codec::{Cursor, Decoded, Malformed, put_bytes, put_u64};
use super::frames::{self, FrameInfo};
use super::grams::{self, Gram};
use super::index::Index;
use super::place::FrameTable;
use super::xor::{self, XorFilter};
use super::{FILTER_MAGIC, SKIPPABLE_HEADER_BYTES};
use crate::model::json_escaped;

const MAGIC: &[u8; 8] = b"LTGRAMS2";

/// The largest filter frame that is read; one of an object of 64 MiB has some 3 MiB.
pub const MAX_FILTER_BYTES: u64 = 64 << 20;

/// What a message must hold for a text to be in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchKeys {
    grams: Vec<Gram>,
}

impl SearchKeys {
    /// Of texts that a message must contain, all of them.
    pub fn of(texts: &[String]) -> Self {
        let mut grams: Vec<Gram> = texts.iter().flat_map(|text| grams::of_text(&json_escaped(text))).collect();
        grams.sort_unstable();
        grams.dedup();
        Self { grams }
    }

    /// Whether no filter can say anything: the texts are too short.
    pub fn is_empty(&self) -> bool {
        self.grams.is_empty()
    }
}

/// What a search needs to know of a segment: its frames, and for each what it may hold.
#[derive(Debug, Clone)]
pub struct SearchMap {
    table: FrameTable,
    /// As many as frames, or none at all.
    filters: Vec<Placed>,
    bytes: Bytes,
}

/// Where one frame's fingerprints stand. No bytes say "perhaps" to every question.
#[derive(Debug, Clone, Copy)]
struct Placed {
    at: usize,
    len: usize,
    seed: u8,
}

impl SearchMap {
    /// Reads and checks the filter frame, which stands at `range` of the object; `None` where it is
    /// damaged or of a kind that we do not know.
    pub async fn read(store: &Store, key: &Key, range: Range<u64>) -> Result<Option<Self>> {
        if range.end.saturating_sub(range.start) > MAX_FILTER_BYTES {
            return Ok(None);
        }
        let map = Self::parse(store.get_range(key, range).await?);
        if let Err(wrong) = &map {
            tracing::warn!(object.key = %key, error = wrong.0, "search filters cannot be used; their object is searched whole");
        }
        Ok(map.ok())
    }

    /// That of no object.
    pub fn empty() -> Self {
        Self { table: FrameTable::new(Vec::new()), filters: Vec::new(), bytes: Bytes::new() }
    }

    /// What the index alone says.
    pub fn without_filters(index: &Index) -> Self {
        Self { table: index.table().clone(), filters: Vec::new(), bytes: Bytes::new() }
    }

    /// Reads the skippable frame that `bytes` begin with; others may follow it.
    pub(super) fn parse(bytes: Bytes) -> Decoded<Self> {
        let mut cursor = Cursor::new(&bytes);
        let (magic, len) = (u32::from_le_bytes(cursor.array()?), u32::from_le_bytes(cursor.array()?));
        let end = len as usize + SKIPPABLE_HEADER_BYTES as usize;
        if magic != FILTER_MAGIC || end > bytes.len() {
            return Err(Malformed("the filter frame's header is wrong"));
        }
        let frame = bytes.slice(..end);
        let mut cursor = Cursor::new(&frame[SKIPPABLE_HEADER_BYTES as usize..]);
        let (content, hash) = frame.split_last_chunk::<8>().ok_or(Malformed("the filter frame is too short"))?;
        let payload =
            content.get(SKIPPABLE_HEADER_BYTES as usize..).ok_or(Malformed("the filter frame is too short"))?;
        if xxh3_64(payload) != u64::from_le_bytes(*hash) {
            return Err(Malformed("the filter frame's checksum is wrong"));
        }
        if cursor.array()? != *MAGIC {
            return Err(Malformed("the filters are of another kind"));
        }
        let count = cursor.count(1)?;
        let columns = cursor.count(1)?;
        let table = FrameTable::new(frames::decode(cursor.take(columns)?, count)?);
        let mut filters = Vec::with_capacity(count);
        for _ in 0..count {
            filters.push(Placed { at: 0, len: 3 * cursor.u32()? as usize, seed: 0 });
        }
        for filter in &mut filters {
            filter.seed = cursor.u8()?;
        }
        let all: usize = filters.iter().map(|filter| filter.len).sum();
        let mut at = content.len().checked_sub(all).ok_or(Malformed("the filter frame is too short"))?;
        for filter in &mut filters {
            (filter.at, at) = (at, at + filter.len);
        }
        cursor.take(all)?;
        cursor.take(8)?;
        cursor.end()?;
        Ok(Self { table, filters, bytes: frame })
    }

    pub fn frames(&self) -> &[FrameInfo] {
        self.table.frames()
    }

    /// Where a frame begins in the object.
    pub fn offset(&self, frame: usize) -> u64 {
        self.table.offset(frame)
    }

    /// The frame that begins at an offset.
    pub fn frame_at(&self, offset: u64) -> Option<usize> {
        self.table.frame_at(offset)
    }

    /// Whether one message of the frame may hold all of them.
    pub fn may_hold(&self, frame: usize, keys: &SearchKeys) -> bool {
        let Some(Placed { at, len, seed }) = self.filters.get(frame).copied() else { return true };
        let fingerprints = &self.bytes[at..at + len];
        keys.grams.iter().all(|gram| xor::may_hold(seed, fingerprints, *gram))
    }

    /// Bytes of memory that it takes, about.
    pub fn memory(&self) -> usize {
        let each = size_of::<FrameInfo>() + size_of::<u64>() + size_of::<Placed>();
        self.bytes.len() + self.frames().len() * each
    }

    /// Whether the frames between data and index begin with search filters.
    pub(super) fn is_there(bytes: &[u8]) -> bool {
        bytes.starts_with(&FILTER_MAGIC.to_le_bytes())
    }

    /// Whether it describes these frames, and nothing else.
    pub(super) fn is_of(&self, table: &FrameTable) -> bool {
        self.table == *table
    }

    /// Whether the filter of a frame knows all that its lines are known by.
    pub(super) fn check(&self, frame: usize, ndjson: &[u8]) -> Decoded<()> {
        let keys = SearchKeys { grams: grams::of_frame(ndjson)? };
        if self.may_hold(frame, &keys) {
            return Ok(());
        }
        Err(Malformed("a search filter does not know its frame's lines"))
    }
}

/// The filter of a frame; `None`, which is "perhaps" to every question, where none can be made.
pub(super) fn build(ndjson: &[u8]) -> Option<XorFilter> {
    let grams = grams::of_frame(ndjson).ok()?;
    let filter = XorFilter::build(&grams)?;
    // What a filter wrongly denies is never found again: it is tried before anyone trusts it.
    grams.iter().all(|gram| xor::may_hold(filter.seed, &filter.fingerprints, *gram)).then_some(filter)
}

/// The whole skippable frame, of the frames and the filter of each.
pub(super) fn encode(frames: &[FrameInfo], filters: &[Option<XorFilter>]) -> Vec<u8> {
    let mut payload = MAGIC.to_vec();
    put_u64(&mut payload, frames.len() as u64);
    put_bytes(&mut payload, &frames::encode(frames));
    let filters = || filters.iter().map(Option::as_ref);
    for filter in filters() {
        put_u64(&mut payload, filter.map_or(0, |filter| filter.fingerprints.len() / 3) as u64);
    }
    payload.extend(filters().map(|filter| filter.map_or(0, |filter| filter.seed)));
    for filter in filters().flatten() {
        payload.extend_from_slice(&filter.fingerprints);
    }
    let hash = xxh3_64(&payload);
    payload.extend_from_slice(&hash.to_le_bytes());
    let mut frame = FILTER_MAGIC.to_le_bytes().to_vec();
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::extent::Extent;
    use super::*;

    fn frame() -> Vec<u8> {
        let filter = |keys: Range<u64>| XorFilter::build(&keys.collect::<Vec<_>>());
        let info = |compressed_len| {
            let extent = Extent { lines: 1, ..Extent::default() };
            FrameInfo { compressed_len, raw_len: 9, extent }
        };
        encode(&[info(10), info(20), info(30)], &[filter(0..50), None, filter(50..90)])
    }

    #[test]
    fn each_frame_has_its_own() {
        let map = SearchMap::parse(frame().into()).expect("filters");
        let has = |frame, gram| map.may_hold(frame, &SearchKeys { grams: vec![gram] });
        assert!((0..50).all(|gram| has(0, gram)) && (50..90).all(|gram| has(2, gram)));
        assert!((0..90).all(|gram| has(1, gram) && has(7, gram)), "without a filter everything may be there");
        assert!((50..90).filter(|gram| has(0, *gram)).count() < 12);
        assert_eq!((map.frames().len(), map.offset(2), map.frame_at(10), map.frame_at(11)), (3, 30, Some(1), None));
    }

    #[test]
    fn no_damage_goes_unnoticed() {
        let frame = frame();
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(SearchMap::parse(damaged.into()).is_err(), "byte {at}");
            assert!(SearchMap::parse(frame[..at].to_vec().into()).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_filters_or_refused(bytes: Vec<u8>) {
            let mut payload = [&MAGIC[..], &bytes].concat();
            let hash = xxh3_64(&payload);
            payload.extend_from_slice(&hash.to_le_bytes());
            let header = [FILTER_MAGIC.to_le_bytes(), (payload.len() as u32).to_le_bytes()].concat();
            if let Ok(map) = SearchMap::parse([header, payload].concat().into()) {
                map.may_hold(0, &SearchKeys { grams: vec![1, 2] });
            }
        }
    }
}
