//! The payload of a chunk: records as JSON, one a line, compressed.

use std::cell::RefCell;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Level, LevelSet, LineRange, Record, Timestamp};

/// Bytes of records that make a chunk full. About 5 kB after compression: payloads between 9 and
/// 50 kB waste half of InnoDB's last overflow page, and smaller ones cost more rows.
const FULL_CHUNK_BYTES: usize = 32 * 1024;

/// The level that costs a writer least; the archiver compresses again, and better.
const ZSTD_LEVEL: i32 = 1;

/// A decoded chunk is never larger than one record can be, plus a chunk's fill.
const MAX_RAW_BYTES: usize = 64 * 1024 * 1024;

/// Records on their way in: their JSON, and what a chunk says of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    json: Vec<u8>,
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Where in `json` the record ends, its newline included.
    end: usize,
    ts: Timestamp,
    effective_level: Option<Level>,
}

impl Lines {
    /// Adds a record. `effective_level` is its own or that of the record before it of its source.
    pub fn push(&mut self, record: &Record<'_>, effective_level: Option<Level>) {
        record.write_json(&mut self.json);
        self.end_line(record, effective_level);
    }

    /// The same of a record whose message is `message`, a JSON string as we write them.
    pub fn push_written(&mut self, record: &Record<'_>, message: &str, effective_level: Option<Level>) {
        record.write_json_around(message, &mut self.json);
        self.end_line(record, effective_level);
    }

    fn end_line(&mut self, record: &Record<'_>, effective_level: Option<Level>) {
        self.json.push(b'\n');
        self.marks.push(Mark { end: self.json.len(), ts: record.ts, effective_level });
    }

    pub fn len(&self) -> usize {
        self.marks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The records' JSON, each ended by a newline.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Bytes that the records take in memory.
    pub fn memory(&self) -> u64 {
        (self.json.len() + self.marks.len() * size_of::<Mark>()) as u64
    }

    pub fn ts_range(&self) -> Option<(Timestamp, Timestamp)> {
        let all = || self.marks.iter().map(|mark| mark.ts);
        all().min().zip(all().max())
    }

    pub fn levels(&self) -> LevelSet {
        self.marks.iter().fold(LevelSet::EMPTY, |mut set, mark| {
            set.insert(mark.effective_level);
            set
        })
    }
}

/// How a payload is stored; the number stands in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Plain = 0,
    Zstd = 1,
}

/// A chunk ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Counted from the first record that was encoded with it.
    pub offset: u64,
    pub line_count: u32,
    pub first_ts: Timestamp,
    pub last_ts: Timestamp,
    pub levels: LevelSet,
    pub(super) codec: i32,
    pub raw_len: u32,
    /// xxh3-64 of the payload before compression.
    pub hash: i64,
    pub data: Vec<u8>,
}

thread_local! {
    // Their working memory is many times a chunk's.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Cuts records into chunks and compresses them.
pub fn encode<'a>(batches: impl IntoIterator<Item = &'a Lines>) -> std::io::Result<Vec<Chunk>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        encode_with(compressor, batches)
    })
}

fn encode_with<'a>(
    compressor: &mut zstd::bulk::Compressor<'static>,
    batches: impl IntoIterator<Item = &'a Lines>,
) -> std::io::Result<Vec<Chunk>> {
    let mut encoder = Encoder::new(compressor);
    for lines in batches {
        let mut start = 0;
        for mark in &lines.marks {
            encoder.push(&lines.json[start..mark.end], mark)?;
            start = mark.end;
        }
    }
    encoder.flush()?;
    Ok(encoder.chunks)
}

struct Encoder<'c> {
    compressor: &'c mut zstd::bulk::Compressor<'static>,
    open: Vec<u8>,
    summary: Option<Summary>,
    chunks: Vec<Chunk>,
    next_offset: u64,
}

/// What the open chunk's row will say.
struct Summary {
    lines: u32,
    first_ts: Timestamp,
    last_ts: Timestamp,
    levels: LevelSet,
}

impl<'c> Encoder<'c> {
    fn new(compressor: &'c mut zstd::bulk::Compressor<'static>) -> Self {
        let open = Vec::with_capacity(FULL_CHUNK_BYTES);
        Self { compressor, open, summary: None, chunks: Vec::new(), next_offset: 0 }
    }

    fn push(&mut self, json: &[u8], mark: &Mark) -> std::io::Result<()> {
        if !self.open.is_empty() && self.open.len() + json.len() > FULL_CHUNK_BYTES {
            self.flush()?;
        }
        self.open.extend_from_slice(json);
        let summary = self.summary.get_or_insert(Summary {
            lines: 0,
            first_ts: mark.ts,
            last_ts: mark.ts,
            levels: LevelSet::EMPTY,
        });
        summary.lines += 1;
        summary.first_ts = summary.first_ts.min(mark.ts);
        summary.last_ts = summary.last_ts.max(mark.ts);
        summary.levels.insert(mark.effective_level);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let Some(summary) = self.summary.take() else { return Ok(()) };
        let compressed = self.compressor.compress(&self.open)?;
        let (codec, data) = if compressed.len() < self.open.len() {
            (Codec::Zstd, compressed)
        } else {
            (Codec::Plain, self.open.clone())
        };
        self.chunks.push(Chunk {
            offset: self.next_offset,
            line_count: summary.lines,
            first_ts: summary.first_ts,
            last_ts: summary.last_ts,
            levels: summary.levels,
            codec: codec as i32,
            raw_len: u32::try_from(self.open.len()).map_err(std::io::Error::other)?,
            hash: hash(&self.open),
            data,
        });
        self.next_offset += u64::from(summary.lines);
        self.open.clear();
        Ok(())
    }
}

/// The hash of a chunk's records, as its row holds it.
pub fn hash(records: &[u8]) -> i64 {
    xxh3_64(records).cast_signed()
}

/// A chunk as it was read back, decoded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    pub lines: LineRange,
    pub first_ts: Timestamp,
    pub last_ts: Timestamp,
    pub levels: LevelSet,
    /// Records as JSON, each ended by a newline.
    pub records: Vec<u8>,
}

/// A row whose payload does not hold what the row says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("chunk at line {first_line} of attempt {attempt_id} is damaged: {what}")]
pub struct CorruptChunk {
    pub attempt_id: i64,
    pub first_line: u64,
    pub what: String,
}

/// Decompresses a payload and compares it with its row.
pub(super) fn decode(
    codec: i32,
    data: &[u8],
    raw_len: usize,
    expected_hash: i64,
    line_count: u64,
) -> Result<Vec<u8>, String> {
    if raw_len > MAX_RAW_BYTES {
        return Err(format!("it claims {raw_len} bytes"));
    }
    let records = match codec {
        c if c == Codec::Plain as i32 => data.to_vec(),
        c if c == Codec::Zstd as i32 => decompress(data, raw_len).map_err(|e| e.to_string())?,
        other => return Err(format!("unknown codec {other}")),
    };
    if records.len() != raw_len || hash(&records) != expected_hash {
        return Err("its bytes do not match their hash".to_owned());
    }
    let lines = memchr::memchr_iter(b'\n', &records).count() as u64;
    if lines != line_count || records.last() != Some(&b'\n') {
        return Err(format!("it holds {lines} lines, its row says {line_count}"));
    }
    Ok(records)
}

fn decompress(data: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(data, raw_len)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(messages: &[String]) -> Lines {
        let mut lines = Lines::default();
        for (n, message) in messages.iter().enumerate() {
            let record = Record {
                ts: Timestamp::from_nanos(n as i64),
                level: None,
                source: "w".into(),
                message: message.into(),
                attrs: None,
                raw: None,
                partial: false,
            };
            lines.push(&record, Some(Level::Info));
        }
        lines
    }

    fn decode_all(chunks: &[Chunk]) -> Vec<u8> {
        let decoded = chunks.iter().map(|chunk| {
            let (raw_len, count) = (chunk.raw_len as usize, u64::from(chunk.line_count));
            decode(chunk.codec, &chunk.data, raw_len, chunk.hash, count).expect("own chunk")
        });
        decoded.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_full_chunk_ends_and_a_huge_record_is_one_of_its_own() {
        let messages: Vec<String> = [10, 20_000, 20_000, 100_000, 5].iter().map(|n| "x".repeat(*n)).collect();
        let batch = lines(&messages);
        let chunks = encode([&batch]).expect("encodes");
        assert_eq!(
            chunks.iter().map(|c| (c.offset, c.line_count)).collect::<Vec<_>>(),
            [(0, 2), (2, 1), (3, 1), (4, 1)]
        );
        assert_eq!(decode_all(&chunks), batch.json());
    }

    #[test]
    fn damage_is_told() {
        let chunk = encode([&lines(&["a".repeat(100)])]).expect("encodes").remove(0);
        let check = |data: &[u8], hash, count| decode(chunk.codec, data, chunk.raw_len as usize, hash, count).is_err();
        assert!(!check(&chunk.data, chunk.hash, 1));
        assert!(check(&chunk.data, chunk.hash ^ 1, 1));
        assert!(check(&chunk.data, chunk.hash, 2));
        assert!(check(&chunk.data[..chunk.data.len() - 1], chunk.hash, 1));
    }

    proptest! {
        #[test]
        fn batches_join_without_a_seam(
            messages in prop::collection::vec(prop::collection::vec("\\PC{0,9000}", 0..6), 0..5),
        ) {
            let batches: Vec<Lines> = messages.iter().map(|m| lines(m)).collect();
            let chunks = encode(&batches).expect("encodes");
            let all: Vec<u8> = batches.iter().flat_map(|b| b.json().to_vec()).collect();
            prop_assert_eq!(decode_all(&chunks), all);
            let mut next = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.offset, next);
                next += u64::from(chunk.line_count);
            }
            prop_assert_eq!(next as usize, messages.concat().len());
        }
    }
}
