//! Writes a segment: attempts go in one after the other, bytes go out to an [`Upload`] as they come.
//!
//! In memory at once: the frame being filled, `parallelism` frames in compression, the upload's
//! parts, the compressed index so far, and some 100 bytes for each attempt and frame.

use std::collections::VecDeque;
use std::io;

use memchr::memchr;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};
use zstd::bulk::Compressor;

use crate::cold::error::{Error, Result};
use crate::cold::upload::Upload;
use crate::model::{AttemptId, LevelSet, LineRange};

use super::directory::{AttemptBlock, Directory, Footer, SegmentHeader, Totals};
use super::entry::{self, AttemptMeta, Entry};
use super::extent::{Extent, TsRange};
use super::filters::{self, MAX_FILTER_BYTES};
use super::frames::{self, FRAMES_PER_BLOCK, FrameInfo};
use super::packer::{FramePacker, FrameSpot, RawFrame};
use super::place::{FrameTable, Place};
use super::xor::XorFilter;
use super::{
    INDEX_MAGIC, MAX_ATTEMPTS, MAX_FRAME_BYTES, MAX_FRAMES, MAX_REPLACES, SKIPPABLE_HEADER_BYTES, seek_table, zframe,
};

/// Index blocks are small; more than this gains nothing on them.
const INDEX_LEVEL: i32 = 9;
/// A segment whose index has grown to this is full: it stays in memory until the end, and attempts
/// with long labels can take 2 kB each.
const FULL_INDEX_BYTES: usize = 16 << 20;
/// The same for search filters, half of what a reader takes into memory.
const FULL_FILTER_BYTES: usize = MAX_FILTER_BYTES as usize / 2;
const CREATED_BY: &str = concat!("logtier ", env!("CARGO_PKG_VERSION"));

/// How a segment is cut and compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSettings {
    /// zstd's level, 1 to 22.
    pub level: i32,
    /// Bytes of NDJSON per frame; at most 32 MiB count.
    pub frame_size: usize,
    /// Frames in compression at once, at least 1.
    pub parallelism: usize,
    /// Whether to write search filters.
    pub filters: bool,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self { level: 9, frame_size: 2 << 20, parallelism: 2, filters: true }
    }
}

/// Where the lines of one attempt stand in the segment, for the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartPlace {
    pub id: AttemptId,
    /// The attempt's position in the index.
    pub ordinal: u32,
    pub place: Place,
    pub ts: Option<TsRange>,
    pub levels: LevelSet,
    /// Bytes of NDJSON.
    pub raw_bytes: u64,
    pub hash: u64,
}

/// A segment that was written, but not yet proven to be readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub byte_length: u64,
    /// BLAKE3 of the object.
    pub hash: [u8; 32],
    /// Where the filter frame begins, which ends where the index begins; there where it has none.
    pub filter_offset: u64,
    /// Where the index frame begins.
    pub index_offset: u64,
    /// Where, inside of the index frame, the frame blocks begin: from here to the end of the object
    /// one request gets all but the attempts.
    pub frames_offset: u64,
    pub totals: Totals,
    /// One for each attempt, in the order they were pushed.
    pub parts: Vec<PartPlace>,
}

/// Builds one segment. On any error, and when it is not needed any more, call [`SegmentWriter::abort`].
pub struct SegmentWriter {
    upload: Upload,
    header: SegmentHeader,
    level: i32,
    parallelism: usize,
    /// Of each frame that was uploaded, where they are on.
    filters: Option<Vec<Option<XorFilter>>>,
    filter_bytes: usize,
    packer: FramePacker,
    compressing: VecDeque<Compressing>,
    idle: Vec<Compressor<'static>>,
    frames: Vec<FrameInfo>,
    current: Option<Current>,
    attempts: AttemptBlocks,
    parts: Vec<PartSpot>,
}

struct Compressing {
    raw_len: u32,
    extent: Extent,
    task: JoinHandle<io::Result<Compressed>>,
}

struct Compressed {
    compressor: Compressor<'static>,
    bytes: Vec<u8>,
    filter: Option<XorFilter>,
}

/// The attempt whose lines are being pushed.
struct Current {
    attempt: AttemptMeta,
    first_line: u64,
    head: Vec<u8>,
    extent: Extent,
    raw_bytes: u64,
    hasher: Xxh3,
}

/// What is kept of an attempt until the lengths of its frames are known.
struct PartSpot {
    id: AttemptId,
    first_line: u64,
    extent: Extent,
    spot: FrameSpot,
    raw_bytes: u64,
    hash: u64,
}

impl SegmentWriter {
    pub fn new(upload: Upload, header: SegmentHeader, settings: SegmentSettings) -> Result<Self> {
        if header.replaces.len() > MAX_REPLACES {
            return Err(Error::invalid(format!("a segment replaces at most {MAX_REPLACES} others")));
        }
        Ok(Self {
            upload,
            header,
            level: settings.level,
            parallelism: settings.parallelism.max(1),
            filters: settings.filters.then(Vec::new),
            filter_bytes: 0,
            // Half of what a reader accepts, so that a move to a frame of its own never exceeds it.
            packer: FramePacker::new(settings.frame_size.clamp(1, MAX_FRAME_BYTES / 2)),
            compressing: VecDeque::new(),
            idle: Vec::new(),
            frames: Vec::new(),
            current: None,
            attempts: AttemptBlocks::default(),
            parts: Vec::new(),
        })
    }

    /// Begins the next attempt, whose lines start at `first_line`. The one before must have ended.
    pub fn begin(&mut self, attempt: AttemptMeta, first_line: u64) -> Result<()> {
        if self.current.is_some() {
            return Err(Error::invalid("the attempt before has not ended"));
        }
        if attempt.identity.key.app != self.header.app {
            return Err(Error::invalid("a segment holds one app"));
        }
        if self.parts.len() >= MAX_ATTEMPTS as usize {
            return Err(Error::invalid(format!("a segment holds at most {MAX_ATTEMPTS} attempts")));
        }
        self.packer.begin();
        let head = attempt.identity.head();
        let (extent, hasher) = (Extent::default(), Xxh3::new());
        self.current = Some(Current { attempt, first_line, head, extent, raw_bytes: 0, hasher });
        Ok(())
    }

    /// Appends records of the current attempt: JSON lines, each ended by a newline, `block.lines` of
    /// them, with bounds of their timestamps and levels. A decoded chunk is just that.
    pub async fn push_block(&mut self, records: &[u8], block: Extent) -> Result<()> {
        let Some(mut current) = self.current.take() else {
            return Err(Error::invalid("lines without an attempt"));
        };
        let pushed = self.push_lines(&mut current, records, block).await;
        current.hasher.update(records);
        current.extent.merge(block);
        self.current = Some(current);
        pushed
    }

    async fn push_lines(&mut self, current: &mut Current, records: &[u8], block: Extent) -> Result<()> {
        let (mut rest, mut lines) = (records, 0u64);
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).ok_or_else(|| Error::invalid("a record does not end in a newline"))?;
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            let Some((b'{', tail)) = line.split_first() else {
                return Err(Error::invalid("a record is not a JSON object"));
            };
            let len = current.head.len() + tail.len();
            if len > MAX_FRAME_BYTES / 2 {
                return Err(Error::invalid(format!("a line has {len} bytes, at most {} fit", MAX_FRAME_BYTES / 2)));
            }
            while let Some(frame) = self.packer.make_room(len) {
                self.compress(frame).await?;
            }
            self.packer.push(&current.head, tail, block);
            current.raw_bytes += len as u64;
            lines += 1;
        }
        if lines != block.lines {
            return Err(Error::invalid(format!("a block has {lines} lines and says {}", block.lines)));
        }
        Ok(())
    }

    /// Ends the current attempt. It may have no lines at all.
    pub fn end(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Err(Error::invalid("no attempt to end"));
        };
        let (spot, hash) = (self.packer.spot(), current.hasher.digest());
        let part = PartSpot {
            id: current.attempt.id,
            first_line: current.first_line,
            extent: current.extent,
            spot,
            raw_bytes: current.raw_bytes,
            hash,
        };
        let entry = Entry {
            ordinal: self.parts.len() as u32,
            attempt: current.attempt,
            first_line: current.first_line,
            extent: current.extent,
            spot,
            raw_bytes: current.raw_bytes,
            hash,
        };
        self.parts.push(part);
        self.attempts.push(entry).map_err(|error| self.compression_failed(error))
    }

    /// Bytes of the object so far, frames that are still in compression not counted.
    pub fn compressed_len(&self) -> u64 {
        self.upload.byte_length()
    }

    /// Whether the segment should be finished before another attempt begins, or the current one goes
    /// on in another segment: it has reached `object_size` or one of the format's bounds.
    pub fn is_full(&self, object_size: u64) -> bool {
        self.compressed_len() >= object_size
            || self.parts.len() >= MAX_ATTEMPTS as usize
            || self.attempts.compressed.len() >= FULL_INDEX_BYTES
            || self.filter_bytes >= FULL_FILTER_BYTES
            || self.frames.len() + self.compressing.len() >= MAX_FRAMES / 2
    }

    /// Number of attempts begun.
    pub fn attempts(&self) -> usize {
        self.parts.len() + usize::from(self.current.is_some())
    }

    /// Writes the last frame and the index, and completes the upload. An error aborts it.
    pub async fn finish(mut self) -> Result<Written> {
        match self.write_end().await {
            Ok(mut written) => {
                let uploaded = self.upload.finish().await?;
                (written.byte_length, written.hash) = (uploaded.byte_length, uploaded.hash);
                Ok(written)
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.upload.abort().await;
                Err(error)
            }
        }
    }

    /// Gives the segment up: nothing of it stays in the store.
    pub async fn abort(self) -> Result<()> {
        self.upload.abort().await
    }

    /// All but what the finished upload tells.
    async fn write_end(&mut self) -> Result<Written> {
        if self.current.is_some() {
            return Err(Error::invalid("the last attempt has not ended"));
        }
        let packer = std::mem::replace(&mut self.packer, FramePacker::new(1));
        if let Some(frame) = packer.finish() {
            self.compress(frame).await?;
        }
        while !self.compressing.is_empty() {
            self.write_frame().await?;
        }
        if self.frames.len() > MAX_FRAMES {
            return Err(Error::invalid(format!("a segment holds at most {MAX_FRAMES} frames")));
        }
        let index = self.index().map_err(|error| self.compression_failed(error))?;
        let payload_len = u32::try_from(index.payload_len()).map_err(|_| Error::invalid("the index exceeds 4 GiB"))?;
        let filter_offset = self.upload.byte_length();
        let filters_len = self.write_filters().await?;
        let index_offset = self.upload.byte_length();
        let frames_offset = index_offset + SKIPPABLE_HEADER_BYTES + index.attempt_blocks.len() as u64;
        self.upload.write(&INDEX_MAGIC.to_le_bytes()).await?;
        self.upload.write(&payload_len.to_le_bytes()).await?;
        for area in [index.attempt_blocks, index.frame_blocks, index.directory, index.footer] {
            self.upload.write(&area).await?;
        }
        let mut seek: Vec<_> = self.frames.iter().map(|frame| (frame.compressed_len, frame.raw_len)).collect();
        seek.extend(filters_len.map(|len| (len, 0)));
        seek.push((payload_len + SKIPPABLE_HEADER_BYTES as u32, 0));
        self.upload.write(&seek_table::encode(seek.into_iter())).await?;
        let (totals, parts) = (index.totals, self.part_places()?);
        Ok(Written { byte_length: 0, hash: [0; 32], filter_offset, index_offset, frames_offset, totals, parts })
    }

    /// The skippable frame between data and index; its length, where there is one.
    async fn write_filters(&mut self) -> Result<Option<u32>> {
        let Some(filters) = self.filters.take().filter(|filters| !filters.is_empty()) else { return Ok(None) };
        let frame = filters::encode(&self.frames, &filters);
        self.upload.write(&frame).await?;
        Ok(Some(frame.len() as u32))
    }

    /// Hands a frame to a blocking thread, after waiting for a free place.
    async fn compress(&mut self, frame: RawFrame) -> Result<()> {
        while self.compressing.len() >= self.parallelism {
            self.write_frame().await?;
        }
        let (idle, level, with_filter) = (self.idle.pop(), self.level, self.filters.is_some());
        let raw_len = frame.bytes.len() as u32;
        let task = tokio::task::spawn_blocking(move || {
            let mut compressor = idle.map_or_else(|| zframe::compressor(level), Ok)?;
            let bytes = compressor.compress(&frame.bytes)?;
            let filter = if with_filter { filters::build(&frame.bytes) } else { None };
            Ok(Compressed { compressor, bytes, filter })
        });
        self.compressing.push_back(Compressing { raw_len, extent: frame.extent, task });
        Ok(())
    }

    /// Waits for the oldest frame in compression and uploads it.
    async fn write_frame(&mut self) -> Result<()> {
        let Some(Compressing { raw_len, extent, task }) = self.compressing.pop_front() else { return Ok(()) };
        let compressed = task.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let Compressed { compressor, bytes, filter } = compressed.map_err(|error| self.compression_failed(error))?;
        self.idle.push(compressor);
        if let Some(filters) = &mut self.filters {
            self.filter_bytes += filter.as_ref().map_or(0, |filter| filter.fingerprints.len());
            filters.push(filter);
        }
        self.frames.push(FrameInfo { compressed_len: bytes.len() as u32, raw_len, extent });
        self.upload.write(&bytes).await
    }

    fn compression_failed(&self, error: io::Error) -> Error {
        Error::invalid(format!("compress a frame of {}: {error}", self.upload.key()))
    }

    fn index(&mut self) -> io::Result<IndexAreas> {
        self.attempts.close()?;
        let mut compressor = zframe::compressor(INDEX_LEVEL)?;
        let (mut frame_blocks, mut frame_block_lens) = (Vec::new(), Vec::new());
        for block in self.frames.chunks(FRAMES_PER_BLOCK) {
            let compressed = compressor.compress(&frames::encode(block))?;
            frame_block_lens.push(compressed.len() as u32);
            frame_blocks.extend_from_slice(&compressed);
        }
        let mut totals = Totals {
            attempts: self.parts.len() as u64,
            frames: self.frames.len() as u64,
            raw_bytes: self.frames.iter().map(|frame| u64::from(frame.raw_len)).sum(),
            data_bytes: self.upload.byte_length(),
            extent: Extent::default(),
        };
        for part in &self.parts {
            totals.extent.merge(part.extent);
        }
        let directory = Directory {
            header: self.header.clone(),
            created_by: CREATED_BY.to_owned(),
            totals,
            attempt_blocks: std::mem::take(&mut self.attempts.blocks),
            frame_blocks: frame_block_lens,
        };
        let directory = directory.encode();
        let attempt_blocks = std::mem::take(&mut self.attempts.compressed);
        let footer = Footer {
            attempt_blocks_len: attempt_blocks.len() as u64,
            frame_blocks_len: frame_blocks.len() as u64,
            directory_len: directory.len() as u32,
            directory_hash: xxh3_64(&directory),
        };
        let footer = footer.encode().to_vec();
        Ok(IndexAreas { attempt_blocks, frame_blocks, directory, footer, totals })
    }

    fn part_places(&mut self) -> Result<Vec<PartPlace>> {
        let table = FrameTable::new(std::mem::take(&mut self.frames));
        let part = |(part, ordinal): (&PartSpot, u32)| {
            let lines = LineRange::new(part.first_line, part.first_line + part.extent.lines);
            let place = table.place(lines, part.spot, part.raw_bytes);
            Ok(PartPlace {
                id: part.id,
                ordinal,
                place: place.map_err(|wrong| Error::invalid(wrong.to_string()))?,
                ts: part.extent.ts,
                levels: part.extent.levels,
                raw_bytes: part.raw_bytes,
                hash: part.hash,
            })
        };
        self.parts.iter().zip(0..).map(part).collect()
    }
}

struct IndexAreas {
    attempt_blocks: Vec<u8>,
    frame_blocks: Vec<u8>,
    directory: Vec<u8>,
    footer: Vec<u8>,
    totals: Totals,
}

impl IndexAreas {
    fn payload_len(&self) -> usize {
        self.attempt_blocks.len() + self.frame_blocks.len() + self.directory.len() + self.footer.len()
    }
}

/// The index entries so far: closed blocks compressed, the open one not.
#[derive(Default)]
struct AttemptBlocks {
    compressor: Option<Compressor<'static>>,
    open: Vec<Entry>,
    open_bytes: usize,
    compressed: Vec<u8>,
    blocks: Vec<AttemptBlock>,
}

impl AttemptBlocks {
    fn push(&mut self, entry: Entry) -> io::Result<()> {
        self.open_bytes += entry.weight();
        self.open.push(entry);
        if self.open.len() >= entry::MAX_BLOCK_ENTRIES || self.open_bytes >= entry::BLOCK_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        if entries.is_empty() {
            return Ok(());
        }
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zframe::compressor(INDEX_LEVEL)?),
        };
        let block = compressor.compress(&entry::encode(&entries))?;
        let mut extent = Extent::default();
        entries.iter().for_each(|entry| extent.merge(entry.extent));
        let (compressed_len, entries) = (block.len() as u32, entries.len() as u32);
        self.blocks.push(AttemptBlock { compressed_len, entries, extent });
        self.compressed.extend_from_slice(&block);
        Ok(())
    }
}
