//! The cold tier: immutable segments in object storage, and the one door to them.
//!
//! ```text
//!   archiver ── SegmentWriter ──► Upload ──► Store ──► bucket
//!   archiver ◄─ Replay ◄──────────────────── Store ◄── bucket     verify
//!   reader   ◄─ PartReader ◄──────────────── Store ◄── bucket     one ranged GET
//!   audit    ◄─ Index, Store::list ◄──────── Store ◄── bucket     rebuild, scrub
//! ```
//!
//! `keys` builds and parses every object's name; `store` makes, counts and judges every request;
//! `upload` streams an object out in bounded memory; `segment` is the file format and knows nothing
//! of requests but ranges.
//!
//! # Invariants
//!
//! - **I5, never overwritten.** A segment's name ends in a fresh ULID, so no two writers share a
//!   name. No conditional put is sent, because some stores refuse it and some ignore it.
//! - **I8, unavailable is not empty.** [`Error::NotFound`] is said only where the store said so of the
//!   object. A stream gives all bytes that were asked for, or an error; a segment reader gives all
//!   lines or an error. Missing buckets, refused credentials and damaged bytes have other names.
//! - **I7, bounded.** Three parts of 8 MiB per upload, one frame per reader, nothing allocated by a
//!   length that was only read from an object and not checked against a bound.
//! - The bucket is listed by audits alone, never on the way of a read.
//!
//! # Crash consistency
//!
//! An object is visible whole or not at all: a multipart upload becomes an object with its last
//! request, and a folder's file is synced, then renamed, then its folder is synced. What a killed
//! process leaves is an object that nobody refers to, which the sweeper finds by its catalog row;
//! a staged file beside it, which [`Store::delete`] of that name removes; or, on S3 and GCS, the parts
//! of an unfinished upload, which only the bucket's life-cycle rule for incomplete uploads removes.
//!
//! # Cancellation
//!
//! Reads may be dropped at any point. A dropped [`Upload`] or `SegmentWriter` stops its requests but
//! cannot tell the store to forget the parts it has: call `abort`. After a dropped `push_block` the
//! writer answers every further call with an error.
//!
//! # Retries
//!
//! The store's client retries a request three times within a minute; nothing in here does. The next
//! retry is the archiver's next tick, or the client's next request.

mod cluster;
mod error;
mod keys;
mod open;
pub mod segment;
mod store;
mod upload;

#[cfg(test)]
mod s3_tests;

pub use error::{Error, Result};
pub use keys::{Key, KeyKind, ObjectName, SegmentKey};
pub use open::{StoreSettings, install_crypto_provider};
pub use store::{ByteStream, Counters, Listed, Store};
pub use upload::{Upload, Uploaded};
