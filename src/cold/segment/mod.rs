//! The segment: many attempts of one app, rule and finish day in one immutable object.
//!
//! ```text
//!   data frames            zstd, checksummed, about 2 MiB of NDJSON each
//!   filters                skippable frame 0x184D2A50, where search filters are on
//!   index                  skippable frame 0x184D2A51
//!     attempt blocks         columnar, one zstd frame each
//!     frame blocks           columnar, one zstd frame each
//!     directory              header, totals, lengths of the blocks
//!     footer                 48 bytes: lengths, checksums, version
//!   seek table             skippable frame 0x184D2A5E, of the zstd seekable format
//! ```
//!
//! `docs/segment-format.md` says it byte for byte. To any zstd tool the object is its NDJSON; to
//! a reader of the seekable format it is randomly accessible; our index adds what a log needs.
//!
//! Downwards: `writer` takes chunks and hands lines to `packer`, which decides what shares a frame;
//! `entry`, `frames`, `directory` and `seek_table` each encode and decode one piece of the index;
//! `filters` holds what `grams` takes out of a frame's messages, in `xor` filters; `zframe` and `codec`
//! are their bytes. Upwards: `reader` gets some lines of one attempt, `index` gets
//! what an object says of itself, `replay` reads everything and believes nothing.
//!
//! # Invariants
//!
//! - A line is `Identity::head` with the record's JSON behind it; taking the head off gives back the
//!   chunk's bytes. `content_hash` is over those, so the hot tier's hashes prove the cold tier's content.
//! - An attempt that fits into a frame stands in one. One that does not begins with a frame, so that all
//!   its frames but the last hold nothing else: the frames' line counts alone locate its lines.
//! - The index describes data that stands before it, and agrees with the seek table; a reader
//!   refuses an object where they differ.
//! - Bounds (`ts`, `levels`) may be too wide, never too narrow: a reader skips by them.
//! - A search filter may say too much, never too little; a replay asks it for all that its frame holds.
//! - Whatever the bytes are, decoding them gives an error or a value, never a panic, and takes memory
//!   for no more than the bounds below allow.
//!
//! # Cost
//!
//! Some lines of one attempt: one request for the frames that hold them, given the catalog's
//! [`FrameMap`]; one more where the attempt has more frames than a map holds. The index without the catalog: one
//! request for all but the attempts, one for them. A replay: those two and one for the whole object.

mod codec;
mod directory;
mod entry;
mod extent;
mod filters;
mod frames;
mod grams;
mod index;
mod packer;
mod place;
mod pull;
mod reader;
mod replay;
mod scan;
mod seek_table;
mod writer;
mod xor;
mod zframe;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use directory::{AttemptBlock, SegmentHeader, Totals};
pub use entry::{AttemptMeta, Entry};
pub use extent::{Extent, TsRange};
pub use filters::{SearchKeys, SearchMap};
pub use frames::FrameInfo;
pub use index::{Entries, Index};
pub use packer::FrameSpot;
pub use place::{FrameMap, MappedFrame, Place};
pub use reader::{Asked, LineBlock, Ndjson, Part, PartCost, PartReader, Shape};
pub use replay::{Replay, Replayed};
pub use scan::{Probe, ScannedFrame, Scanning};
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

/// The magic number of the skippable frame that holds the search filters.
const FILTER_MAGIC: u32 = 0x184D_2A50;

/// Magic and length in front of a skippable frame's payload.
const SKIPPABLE_HEADER_BYTES: u64 = 8;
