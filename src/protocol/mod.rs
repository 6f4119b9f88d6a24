//! What other systems write and speak, as pure functions: one folder a system, listed here.
//!
//! A protocol turns what a system says into ids, records, labels and outcomes, and back. It does no input or output:
//! `http` and `cli` call it, and everything it makes goes through the same ingest and reader as all else.

pub mod known;
pub mod powerjob;
