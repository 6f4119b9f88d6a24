//! Reads the index of a segment from the object itself, without the catalog.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::Store;
use crate::model::App;

use super::codec::{Cursor, Decoded, Malformed};
use super::directory::{AttemptBlock, Directory, FOOTER_BYTES, Footer, MAX_DIRECTORY_BYTES, SegmentHeader, Totals};
use super::entry::{self, Entry};
use super::frames::{self, FrameInfo, MAX_FRAME_BLOCK_BYTES};
use super::place::{FrameMap, FrameTable, Place};
use super::pull::Pull;
use super::seek_table::{self, SEEK_FOOTER_BYTES};
use super::{INDEX_MAGIC, MAX_FRAMES, SKIPPABLE_HEADER_BYTES, zframe};

/// What the first request asks for: enough for the seek table, directory and frame blocks of some
/// 3,000 frames, 6 GB of NDJSON; beyond that a second request gets the rest.
const TAIL_BYTES: u64 = 64 << 10;
/// 256 blocks that do not compress at all.
const MAX_FRAME_BLOCKS_BYTES: u64 = (MAX_FRAMES / frames::FRAMES_PER_BLOCK * (MAX_FRAME_BLOCK_BYTES + 4096)) as u64;
/// Room for frames of later kinds besides the data.
const MAX_SEEK_TABLE_BYTES: u64 = 8 * (MAX_FRAMES as u64 + 1024);

/// The facts of a segment: all of its index but the attempts, which [`Index::entries`] streams.
#[derive(Debug, Clone)]
pub struct Index {
    key: Key,
    byte_length: u64,
    directory: Directory,
    table: FrameTable,
    index_offset: u64,
    frames_offset: u64,
    index_end: u64,
    bytes_read: u64,
}

impl Index {
    /// Reads and checks it: footer, directory, frame blocks, and that the seek table agrees with them.
    ///
    /// `byte_length` is the object's length, from the catalog or a listing.
    pub async fn open(store: &Store, key: &Key, byte_length: u64) -> Result<Self> {
        let corrupt = |wrong: Malformed| Error::corrupt(key, wrong.0);
        let mut tail = Tail::open(store, key, byte_length).await?;
        let footer = tail.bytes.last_chunk::<SEEK_FOOTER_BYTES>().ok_or_else(|| corrupt(TOO_SHORT))?;
        let seek_len = seek_table::frame_len(footer).map_err(corrupt)?;
        let ends = Ends::new(byte_length, seek_len).map_err(corrupt)?;
        // A frame takes some 16 bytes in the frame blocks, 8 in the seek table.
        tail.reach(ends.footer, TAIL_BYTES + 2 * seek_len).await?;
        let areas = ends.areas(tail.slice(ends.footer, ends.index)).map_err(corrupt)?;
        tail.reach(areas.frames, 0).await?;
        let (directory, table) = areas.parse(&tail).map_err(corrupt)?;
        let index_offset = areas.attempts - SKIPPABLE_HEADER_BYTES;
        let seek = seek_table::decode(tail.slice(ends.index, byte_length)).map_err(corrupt)?;
        check_seek_table(seek, &table, index_offset, ends.index).map_err(corrupt)?;
        let (frames_offset, index_end, bytes_read) = (areas.frames, ends.index, tail.bytes.len() as u64);
        Ok(Self { key: key.clone(), byte_length, directory, table, index_offset, frames_offset, index_end, bytes_read })
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    pub fn header(&self) -> &SegmentHeader {
        &self.directory.header
    }

    /// The program and version that wrote the object.
    pub fn created_by(&self) -> &str {
        &self.directory.created_by
    }

    pub fn totals(&self) -> Totals {
        self.directory.totals
    }

    pub fn frames(&self) -> &[FrameInfo] {
        self.table.frames()
    }

    pub fn attempt_blocks(&self) -> &[AttemptBlock] {
        &self.directory.attempt_blocks
    }

    /// Where the index frame begins.
    pub fn index_offset(&self) -> u64 {
        self.index_offset
    }

    /// Where the filter frame stands, if there is one: between the data and the index.
    pub fn filter_range(&self) -> Range<u64> {
        self.directory.totals.data_bytes..self.index_offset
    }

    /// Where the frame blocks begin.
    pub fn frames_offset(&self) -> u64 {
        self.frames_offset
    }

    /// What opening it has read of the object.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// All attempts, in order, with one request and one block in memory.
    pub async fn entries(&self, store: &Store) -> Result<Entries> {
        let stream = store.stream_range(&self.key, self.index_offset..self.frames_offset).await?;
        let mut pull = Pull::new(self.key.clone(), stream);
        let header = pull.take(SKIPPABLE_HEADER_BYTES).await?;
        let checked = check_skippable(&header, self.index_end - self.index_offset);
        checked.map_err(|wrong| Error::corrupt(&self.key, wrong.0))?;
        let blocks = self.directory.attempt_blocks.iter().copied().collect();
        Ok(Entries { pull, blocks, next_ordinal: 0, app: self.directory.header.app.clone() })
    }

    /// Where an entry's lines stand, as the catalog would hold it.
    pub fn place(&self, entry: &Entry) -> Result<Place> {
        let place = self.table.place(entry.lines(), entry.spot, entry.raw_bytes);
        place.map_err(|wrong| Error::corrupt(&self.key, wrong.0))
    }

    pub(super) fn table(&self) -> &FrameTable {
        &self.table
    }

    pub(super) fn frame_map(&self, place: &Place) -> Result<FrameMap> {
        self.table.map_of(place).map_err(|wrong| Error::corrupt(&self.key, wrong.0))
    }
}

const TOO_SHORT: Malformed = Malformed("it is too short to be a segment");

/// The end of the object, fetched from the back.
struct Tail<'a> {
    store: &'a Store,
    key: &'a Key,
    start: u64,
    bytes: Bytes,
}

impl<'a> Tail<'a> {
    async fn open(store: &'a Store, key: &'a Key, byte_length: u64) -> Result<Self> {
        let start = byte_length.saturating_sub(TAIL_BYTES);
        let bytes = store.get_range(key, start..byte_length).await?;
        Ok(Self { store, key, start, bytes })
    }

    /// Fetches what is missing from `start` on, and `more` before it: what is read next stands there.
    async fn reach(&mut self, start: u64, more: u64) -> Result<()> {
        if start >= self.start {
            return Ok(());
        }
        let start = start.saturating_sub(more);
        let before = self.store.get_range(self.key, start..self.start).await?;
        let mut bytes = BytesMut::with_capacity(before.len() + self.bytes.len());
        bytes.extend_from_slice(&before);
        bytes.extend_from_slice(&self.bytes);
        (self.start, self.bytes) = (start, bytes.freeze());
        Ok(())
    }

    /// The object's bytes `from..to`, which must have been reached.
    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let at = |offset: u64| usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(at(from)..at(to)).unwrap_or_default()
    }
}

/// Where the footer begins, and where it and the index frame end.
struct Ends {
    footer: u64,
    index: u64,
}

impl Ends {
    fn new(byte_length: u64, seek_len: u64) -> Decoded<Self> {
        if seek_len > MAX_SEEK_TABLE_BYTES {
            return Err(Malformed("its seek table is too long"));
        }
        let index = byte_length.checked_sub(seek_len).ok_or(TOO_SHORT)?;
        let footer = index.checked_sub(FOOTER_BYTES as u64).ok_or(TOO_SHORT)?;
        Ok(Self { footer, index })
    }

    fn areas(&self, footer: &[u8]) -> Decoded<Areas> {
        let footer = Footer::decode(footer.try_into().map_err(|_| TOO_SHORT)?)?;
        if footer.directory_len as usize > MAX_DIRECTORY_BYTES || footer.frame_blocks_len > MAX_FRAME_BLOCKS_BYTES {
            return Err(Malformed("its index is too long"));
        }
        let directory = self.footer.checked_sub(footer.directory_len.into()).ok_or(TOO_SHORT)?;
        let frames = directory.checked_sub(footer.frame_blocks_len).ok_or(TOO_SHORT)?;
        let attempts = frames.checked_sub(footer.attempt_blocks_len).ok_or(TOO_SHORT)?;
        attempts.checked_sub(SKIPPABLE_HEADER_BYTES).ok_or(TOO_SHORT)?;
        Ok(Areas { attempts, frames, directory, footer: self.footer, directory_hash: footer.directory_hash })
    }
}

/// Where the areas of the index begin.
struct Areas {
    attempts: u64,
    frames: u64,
    directory: u64,
    footer: u64,
    directory_hash: u64,
}

impl Areas {
    fn parse(&self, tail: &Tail<'_>) -> Decoded<(Directory, FrameTable)> {
        let directory = tail.slice(self.directory, self.footer);
        if xxh3_64(directory) != self.directory_hash {
            return Err(Malformed("the directory's checksum is wrong"));
        }
        let directory = Directory::decode(directory)?;
        let attempts: u64 = directory.attempt_blocks.iter().map(|block| u64::from(block.compressed_len)).sum();
        if attempts != self.frames - self.attempts {
            return Err(Malformed("the attempt blocks do not fill their area"));
        }
        let mut blocks = Cursor::new(tail.slice(self.frames, self.directory));
        let mut frames = Vec::new();
        for (i, len) in directory.frame_blocks.iter().enumerate() {
            let block = zframe::decompress(blocks.take(*len as usize)?, MAX_FRAME_BLOCK_BYTES)?;
            frames.extend(frames::decode(&block, directory.frames_in_block(i))?);
        }
        blocks.end()?;
        let table = FrameTable::new(frames);
        let raw_bytes: u64 = table.frames().iter().map(|frame| u64::from(frame.raw_len)).sum();
        let totals = &directory.totals;
        if raw_bytes != totals.raw_bytes || table.data_bytes() != totals.data_bytes {
            return Err(Malformed("the frames do not add up"));
        }
        Ok((directory, table))
    }
}

/// Other readers go by the seek table, ours by the index: they must say the same.
fn check_seek_table(
    mut seek: impl Iterator<Item = (u32, u32)>,
    table: &FrameTable,
    index_offset: u64,
    index_end: u64,
) -> Decoded<()> {
    let wrong = Malformed("the seek table and the index disagree");
    for frame in table.frames() {
        if seek.next() != Some((frame.compressed_len, frame.raw_len)) {
            return Err(wrong);
        }
    }
    let (mut offset, mut last_begins) = (table.data_bytes(), 0);
    for (compressed_len, decompressed_len) in seek {
        last_begins = offset;
        offset += u64::from(compressed_len);
        if decompressed_len != 0 {
            return Err(wrong);
        }
    }
    if (last_begins, offset) == (index_offset, index_end) { Ok(()) } else { Err(wrong) }
}

fn check_skippable(header: &[u8], frame_len: u64) -> Decoded<()> {
    let mut cursor = Cursor::new(header);
    let magic = u32::from_le_bytes(cursor.array()?);
    let payload_len = u32::from_le_bytes(cursor.array()?);
    let expected = frame_len.checked_sub(SKIPPABLE_HEADER_BYTES);
    if (magic, Some(u64::from(payload_len))) == (INDEX_MAGIC, expected) {
        Ok(())
    } else {
        Err(Malformed("the index frame's header is wrong"))
    }
}

/// The attempts of a segment, a block at a time.
pub struct Entries {
    pull: Pull,
    blocks: VecDeque<AttemptBlock>,
    next_ordinal: u32,
    app: App,
}

impl Entries {
    /// The next block's attempts; `None` after the last.
    pub async fn next_block(&mut self) -> Result<Option<Vec<Entry>>> {
        let Some(block) = self.blocks.pop_front() else { return Ok(None) };
        let compressed = self.pull.take(block.compressed_len.into()).await?;
        let entries = zframe::decompress(&compressed, entry::MAX_BLOCK_BYTES)
            .and_then(|raw| entry::decode(&raw, block.entries as usize, self.next_ordinal, &self.app))
            .map_err(|wrong| Error::corrupt(self.pull.key(), wrong.0))?;
        self.next_ordinal = self.next_ordinal.saturating_add(block.entries);
        Ok(Some(entries))
    }

    /// All attempts that are left, at once. Some 300 bytes each: for tools and tests.
    pub async fn collect(mut self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        while let Some(block) = self.next_block().await? {
            all.extend(block);
        }
        Ok(all)
    }
}
