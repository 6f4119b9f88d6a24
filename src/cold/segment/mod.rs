//! Segments (essay comes with the last commit).

mod codec;
mod directory;
mod entry;
mod extent;
mod frames;
mod index;
mod packer;
mod place;
mod pull;
mod reader;
mod replay;
mod seek_table;
mod writer;
mod zframe;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use directory::{AttemptBlock, SegmentHeader, Totals};
pub use entry::{AttemptMeta, Entry};
pub use extent::{Extent, TsRange};
pub use frames::FrameInfo;
pub use index::{Entries, Index};
pub use packer::FrameSpot;
pub use place::{FrameMap, MappedFrame, Place};
pub use reader::{LineBlock, Part, PartReader};
pub use replay::{Replay, Replayed};
pub use writer::{PartPlace, SegmentSettings, SegmentWriter, Written};

/// The only version there is; a reader refuses any other.
pub const FORMAT_VERSION: u16 = 1;

/// The most attempts that a segment may hold: it bounds the index, and how much one damaged object costs.
pub const MAX_ATTEMPTS: u32 = 65_536;

/// The most frames that a segment may hold; at 2 MiB each, 2 TiB of NDJSON.
pub const MAX_FRAMES: usize = 1 << 20;

/// The most objects that one may replace.
pub const MAX_REPLACES: usize = 4096;

/// The largest frame before compression, and so the largest line. A record of `max_record_size` can
/// grow sixfold in JSON (a control character becomes `\u001f`) and then stays far below this.
/// A reader takes nothing larger into memory, whatever an object says.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// The hash that proves content: of records' JSON lines, each with its newline, as chunks hold them.
///
/// The index keeps it per attempt, the hot tier per chunk.
pub fn content_hash(json_lines: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(json_lines)
}

/// The magic number of the skippable frame that holds the index.
const INDEX_MAGIC: u32 = 0x184D_2A51;

/// Magic and length in front of a skippable frame's payload.
const SKIPPABLE_HEADER_BYTES: u64 = 8;
