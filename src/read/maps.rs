//! What searches know of objects: their frames and search filters, kept in memory.
//!
//! Objects never change, so what was read of one stays true for as long as it exists; whether it
//! still exists, and whose lines are in it, is asked of the catalog each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ulid::Ulid;

use super::{ReadError, Reader};
use crate::catalog::Segment;
use crate::cold::Key;
use crate::cold::segment::{Index, SearchMap};

/// Some 20 GB of raw logs, at 3 MB of filters for each.
const MAX_BYTES: usize = 64 << 20;

/// Maps by object; those that were not used for longest go first.
#[derive(Default)]
pub(super) struct Maps {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    maps: HashMap<Ulid, (Arc<SearchMap>, u64)>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

impl Maps {
    fn get(&self, ulid: Ulid) -> Option<Arc<SearchMap>> {
        let mut kept = self.lock();
        kept.now += 1;
        let now = kept.now;
        kept.maps.get_mut(&ulid).map(|(map, used)| {
            *used = now;
            Arc::clone(map)
        })
    }

    fn keep(&self, ulid: Ulid, map: &Arc<SearchMap>) {
        let mut kept = self.lock();
        let now = kept.now;
        if let Some((before, _)) = kept.maps.insert(ulid, (Arc::clone(map), now)) {
            kept.bytes -= before.memory();
        }
        kept.bytes += map.memory();
        while kept.bytes > MAX_BYTES {
            let oldest = kept.maps.iter().min_by_key(|(_, (_, used))| *used).map(|(ulid, _)| *ulid);
            let Some((map, _)) = oldest.and_then(|oldest| kept.maps.remove(&oldest)) else { return };
            kept.bytes -= map.memory();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The map of an object, and the bytes that were fetched for it. Without filters, or with
    /// damaged ones, it says only which frames there are.
    pub(super) async fn map_of(&self, key: &Key, segment: &Segment) -> Result<(Arc<SearchMap>, u64), ReadError> {
        if let Some(map) = self.maps.get(segment.ulid) {
            return Ok((map, 0));
        }
        let (mut map, mut fetched) = (None, 0);
        if let Some(offset) = segment.filter_offset.filter(|offset| *offset < segment.index_offset) {
            fetched += segment.index_offset - offset;
            map = SearchMap::read(&self.store, key, offset..segment.index_offset).await?;
        }
        let map = match map {
            Some(map) => Arc::new(map),
            None => {
                let index = Index::open(&self.store, key, segment.byte_length).await?;
                fetched += index.bytes_read();
                Arc::new(SearchMap::without_filters(&index))
            }
        };
        self.maps.keep(segment.ulid, &map);
        Ok((map, fetched))
    }

    /// The same where it is at hand, or costs little beside reading `part_bytes` of the object.
    pub(super) async fn map_if_worth(
        &self,
        key: &Key,
        segment: &Segment,
        part_bytes: u64,
    ) -> Result<Option<(Arc<SearchMap>, u64)>, ReadError> {
        let filters = segment.filter_offset.map_or(0, |offset| segment.index_offset.saturating_sub(offset));
        let is_worth = filters > 0 && filters.saturating_mul(4) <= part_bytes;
        match self.maps.get(segment.ulid) {
            Some(map) => Ok(Some((map, 0))),
            None if is_worth => self.map_of(key, segment).await.map(Some),
            None => Ok(None),
        }
    }
}
