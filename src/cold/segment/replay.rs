//! Reads a whole segment back: the proof that what was written can be read (invariant I4).
//!
//! Nothing here comes from the writer but the name, the length and the hash of the object. The index
//! is read from the store like a stranger would, then all bytes in one request; each line must stand
//! where the index says, begin with the identity that the index names, and hash to what the index
//! says. What only the archiver can know, that these are the lines of the hot tier, it checks itself
//! on the blocks that come out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::Store;

use super::codec::{Decoded, Malformed};
use super::entry::Entry;
use super::extent::Extent;
use super::filters::{MAX_FILTER_BYTES, SearchMap};
use super::frames::FrameInfo;
use super::index::{Entries, Index};
use super::pull::Pull;
use super::reader::{LineBlock, Shape, take_line};
use super::zframe;

/// What comes out of a replay: an attempt, then its lines in blocks, then the next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    Attempt(Box<Entry>),
    /// Lines of the attempt that came last, as chunks hold them: the identity taken off.
    Lines(LineBlock),
}

/// A segment being read back from start to end.
pub struct Replay {
    index: Index,
    entries: Entries,
    queue: VecDeque<Entry>,
    pull: Pull,
    hasher: blake3::Hasher,
    expected_hash: Option<[u8; 32]>,
    /// What they say of a frame must be true of it. Looked at only where no hash of the whole tells that they
    /// are what the writer made, which tried them.
    filters: Option<Arc<SearchMap>>,
    /// The next frame, which is decompressed while one is looked at.
    ahead: Option<JoinHandle<Decoded<Vec<u8>>>>,
    frame: Frame,
    current: Option<Current>,
}

/// The frame being read, decompressed.
struct Frame {
    /// How many frames were loaded, so the ordinal of the next one.
    loaded: usize,
    raw: Bytes,
    at: usize,
    /// Lines taken from this frame so far.
    lines: u64,
}

/// The attempt being read.
struct Current {
    entry: Entry,
    head: Vec<u8>,
    lines: u64,
    raw_bytes: u64,
    hasher: Xxh3,
}

impl Replay {
    /// Opens the object for its one full read. `byte_length` and `hash` are what the writer counted; a
    /// catalog that was rebuilt has no hash of the whole, and goes by those of the frames and attempts.
    pub async fn open(store: &Store, key: &Key, byte_length: u64, hash: impl Into<Option<[u8; 32]>>) -> Result<Self> {
        let index = Index::open(store, key, byte_length).await?;
        let entries = index.entries(store).await?;
        // A tail that was added is in no range that is read here, and breaks every tool that reads it all.
        let stored = store.head(key).await?;
        if stored != byte_length {
            return Err(Error::corrupt(key, format!("it has {stored} bytes, {byte_length} were written")));
        }
        let expected_hash = hash.into();
        let filters = match expected_hash {
            Some(_) => None,
            None => read_filters(store, &index).await?.map(Arc::new),
        };
        let pull = Pull::new(key.clone(), store.stream_range(key, 0..byte_length).await?);
        Ok(Self {
            index,
            entries,
            queue: VecDeque::new(),
            pull,
            hasher: blake3::Hasher::new(),
            expected_hash,
            filters,
            ahead: None,
            frame: Frame { loaded: 0, raw: Bytes::new(), at: 0, lines: 0 },
            current: None,
        })
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What is known of the frame that the last lines stood in, other attempts' lines in it included.
    pub fn frame_extent(&self) -> Extent {
        let at = self.frame.loaded.checked_sub(1);
        at.and_then(|at| self.index.frames().get(at)).map(|frame| frame.extent).unwrap_or_default()
    }

    /// The next attempt or lines; `None` only when every byte of the object was read and every check passed.
    pub async fn next(&mut self) -> Result<Option<Replayed>> {
        loop {
            let Some(current) = &mut self.current else {
                return self.next_attempt().await;
            };
            if current.lines < current.entry.extent.lines {
                if self.frame.is_done() {
                    self.next_frame().await?;
                    continue;
                }
                let block = self.frame.take_lines(current);
                return block.map(|block| Some(Replayed::Lines(block))).map_err(|wrong| self.corrupt(wrong));
            }
            let ended = current.check_end();
            ended.map_err(|wrong| self.corrupt(wrong))?;
            self.current = None;
        }
    }

    async fn next_attempt(&mut self) -> Result<Option<Replayed>> {
        if self.queue.is_empty() {
            self.queue = self.entries.next_block().await?.unwrap_or_default().into();
        }
        let Some(entry) = self.queue.pop_front() else {
            return self.finish().await.map(|()| None);
        };
        if entry.extent.lines > 0 {
            if self.frame.is_done() {
                self.next_frame().await?;
            }
            if !self.frame.is_at(&entry) {
                return Err(self.corrupt(Malformed("an attempt does not stand where the index says")));
            }
        }
        let head = entry.attempt.identity.head();
        self.current = Some(Current { entry: entry.clone(), head, lines: 0, raw_bytes: 0, hasher: Xxh3::new() });
        Ok(Some(Replayed::Attempt(Box::new(entry))))
    }

    /// Loads the next frame; the one before must be used up.
    async fn next_frame(&mut self) -> Result<()> {
        self.check_frame_end()?;
        let loaded = self.frame.loaded;
        let Some(info) = self.index.frames().get(loaded).copied() else {
            return Err(self.corrupt(Malformed("it has fewer frames than its attempts need")));
        };
        let decoding = match self.ahead.take() {
            Some(decoding) => decoding,
            None => self.decode(loaded, info).await?,
        };
        if let Some(next) = self.index.frames().get(loaded + 1).copied() {
            self.ahead = Some(self.decode(loaded + 1, next).await?);
        }
        let raw = decoding.await.unwrap_or(Err(Malformed("decoding it panicked")));
        let raw = raw.map_err(|wrong| self.corrupt(wrong))?;
        if raw.len() != info.raw_len as usize {
            return Err(self.corrupt(Malformed("a frame has another length than the index says")));
        }
        self.frame = Frame { loaded: loaded + 1, raw: raw.into(), at: 0, lines: 0 };
        Ok(())
    }

    /// Begins to decompress the frame whose bytes come next.
    async fn decode(&mut self, at: usize, info: FrameInfo) -> Result<JoinHandle<Decoded<Vec<u8>>>> {
        let compressed = self.take(info.compressed_len.into()).await?;
        let filters = self.filters.clone();
        Ok(tokio::task::spawn_blocking(move || {
            let raw = zframe::decompress(&compressed, info.raw_len as usize)?;
            filters.map_or(Ok(()), |filters| filters.check(at, &raw))?;
            Ok(raw)
        }))
    }

    fn check_frame_end(&self) -> Result<()> {
        let frame = &self.frame;
        let Some(info) = frame.loaded.checked_sub(1).and_then(|at| self.index.frames().get(at)) else { return Ok(()) };
        if frame.is_done() && frame.lines == info.extent.lines {
            return Ok(());
        }
        Err(self.corrupt(Malformed("a frame holds other lines than its attempts")))
    }

    /// After the last attempt: no data may be left, and all bytes together must be those that were written.
    async fn finish(&mut self) -> Result<()> {
        self.check_frame_end()?;
        if self.frame.loaded != self.index.frames().len() {
            return Err(self.corrupt(Malformed("it has frames that belong to no attempt")));
        }
        while let Some(rest) = self.pull.any().await? {
            self.hasher.update(&rest);
        }
        if self.expected_hash.is_none_or(|expected| *self.hasher.finalize().as_bytes() == expected) {
            return Ok(());
        }
        Err(self.corrupt(Malformed("its hash is not that of what was written")))
    }

    async fn take(&mut self, len: u64) -> Result<Bytes> {
        let bytes = self.pull.take(len).await?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn corrupt(&self, wrong: Malformed) -> Error {
        Error::corrupt(self.index.key(), wrong.0)
    }
}

/// Filters that a search would pass over are damage here. `None` where the object has none.
async fn read_filters(store: &Store, index: &Index) -> Result<Option<SearchMap>> {
    let range = index.filter_range();
    if range.end - range.start > MAX_FILTER_BYTES {
        return Err(Error::corrupt(index.key(), "its filter frame is too long"));
    }
    let bytes = store.get_range(index.key(), range).await?;
    if !SearchMap::is_there(&bytes) {
        return Ok(None);
    }
    let map = SearchMap::parse(bytes).map_err(|wrong| Error::corrupt(index.key(), wrong.0))?;
    if map.is_of(index.table()) {
        return Ok(Some(map));
    }
    Err(Error::corrupt(index.key(), "its search filters are those of other frames"))
}

impl Frame {
    fn is_done(&self) -> bool {
        self.at == self.raw.len()
    }

    fn is_at(&self, entry: &Entry) -> bool {
        self.loaded == entry.spot.frame as usize + 1 && self.at == entry.spot.skip as usize
    }

    /// The lines of the current attempt that this frame holds.
    fn take_lines(&mut self, current: &mut Current) -> Decoded<LineBlock> {
        let mut rest = &self.raw[self.at..];
        let before = rest.len();
        let wanted = current.entry.extent.lines - current.lines;
        let (mut taken, mut lines) = (0, Vec::with_capacity(before.min(current.bytes_left())));
        while taken < wanted && !rest.is_empty() {
            let line = take_line(&mut rest).ok_or(Malformed("a line does not end"))?;
            let tail = line.strip_prefix(current.head.as_slice());
            let tail = tail.ok_or(Malformed("a line has another identity than its attempt"))?;
            lines.push(b'{');
            lines.extend_from_slice(tail);
            taken += 1;
        }
        let bytes = before - rest.len();
        self.at += bytes;
        self.lines += taken;
        let first_line = current.entry.first_line + current.lines;
        current.lines += taken;
        current.raw_bytes += bytes as u64;
        current.hasher.update(&lines);
        Ok(LineBlock { first_line, line_count: taken, lines: lines.into(), shape: Shape::Records })
    }
}

impl Current {
    fn bytes_left(&self) -> usize {
        usize::try_from(self.entry.raw_bytes.saturating_sub(self.raw_bytes)).unwrap_or(usize::MAX)
    }

    fn check_end(&self) -> Decoded<()> {
        if self.raw_bytes != self.entry.raw_bytes {
            return Err(Malformed("an attempt has another length than the index says"));
        }
        // Without lines the index still holds the hash of nothing.
        if self.hasher.digest() != self.entry.hash {
            return Err(Malformed("an attempt's lines do not hash to what the index says"));
        }
        Ok(())
    }
}
