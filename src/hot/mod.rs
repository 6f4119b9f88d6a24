//! The hot tier: recent records, as compressed chunks in database rows.
//!
//! A row holds some consecutive records of one attempt, because a row per line costs ten times
//! the time and seven times the bytes (measured). Beside the payload it holds what a reader needs
//! to skip it, and the hash of the records, by which the archiver later proves that the cold tier
//! has the same content.
//!
//! This folder knows nothing of attempts or leases: callers bring the transaction, and the
//! catalog says which lines are meant.

mod chunk;
mod rows;
mod sql;

pub use chunk::{Chunk, Lines, StoredChunk, encode, hash};
pub use rows::{
    ChunkHeader, Outline, delete_below, delete_several_below, first_lines, headers, headers_of_several, insert,
    outline, scan, scan_each_from, scan_several, spans,
};
