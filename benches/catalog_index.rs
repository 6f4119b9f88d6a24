//! A prototype: the catalog rows of old months as sorted objects in the bucket instead of rows in MySQL.
//! `cargo bench --bench catalog_index -- [ATTEMPTS]`; `docs/scaling.md` says what it is for.
//!
//! Entries are ordered by a hash of their name, so that a block's place among all blocks follows from
//! the name, and 64 KiB of NDJSON-like columns compress into some 16 KiB. In memory stays one number a block;
//! a lookup is one ranged GET of one block, whether the name is there or not.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement prints, and reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use xxhash_rust::xxh3::xxh3_64;

/// Entries of a block: about 20 kB compressed, a few TCP packets beyond the first round trip.
const BLOCK_ENTRIES: usize = 1024;
const LEVEL: i32 = 9;
const LOOKUPS: u64 = 2_000;

/// What a reader needs of an archived attempt: its row, and that of its one part.
#[derive(Clone, PartialEq, Debug)]
struct Entry {
    hash: u64,
    instance: String,
    job: u32,
    attempt: u32,
    outcome: u8,
    lines: u64,
    raw_bytes: u64,
    created_at: u64,
    finished_at: u64,
    segment: u32,
    byte_offset: u64,
    byte_length: u64,
    skip: u32,
    levels: u8,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` adds an argument of its own.
    let attempts = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(attempts))
}

async fn measure(attempts: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut entries: Vec<Entry> = (0..attempts).map(entry).collect();
    entries.sort_by(|a, b| (a.hash, &a.instance).cmp(&(b.hash, &b.instance)));
    let started = Instant::now();
    let (object, index) = build(&entries)?;
    let built = started.elapsed();
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path())?);
    let path = Path::from("catalog/2026-01.idx");
    let bytes = object.len();
    store.put(&path, object.into()).await?;

    let started = Instant::now();
    for number in 0..LOOKUPS {
        let wanted = entry(number * 7919 % attempts);
        let found = find(&*store, &path, &index, &wanted.instance).await?;
        if found.as_ref() != Some(&wanted) {
            return Err(format!("looked for {wanted:?}, found {found:?}").into());
        }
    }
    let present = started.elapsed();
    let started = Instant::now();
    for number in 0..LOOKUPS {
        let found = find(&*store, &path, &index, &instance(attempts + number)).await?;
        if black_box(found).is_some() {
            return Err("found what is not there".into());
        }
    }
    let absent = started.elapsed();
    let memory = index.len() * size_of::<(u64, u64)>();
    println!("{attempts} attempts in {} blocks", index.len() - 1);
    println!("{:.1} bytes an attempt in the bucket", bytes as f64 / attempts as f64);
    println!("{:.3} bytes an attempt in memory", memory as f64 / attempts as f64);
    println!("{:.0} ns an attempt to sort columns and compress", built.as_nanos() as f64 / attempts as f64);
    println!("{:.0} µs a lookup of what is there, one GET", present.as_micros() as f64 / LOOKUPS as f64);
    println!("{:.0} µs a lookup of what is not there, one GET", absent.as_micros() as f64 / LOOKUPS as f64);
    Ok(())
}

/// 18 digits, as PowerJob's, that rise with time.
fn instance(number: u64) -> String {
    (700_000_000_000_000_000 + number * 64 + mixed(number) % 64).to_string()
}

fn mixed(number: u64) -> u64 {
    xxh3_64(&number.to_le_bytes())
}

/// A month of attempts: a few lines each, packed side by side into objects of 64 MiB.
fn entry(number: u64) -> Entry {
    let instance = instance(number);
    let dice = mixed(number ^ 0x5EED);
    let created_at = 1_767_225_600_000 + number * 27 + dice % 1000;
    Entry {
        hash: xxh3_64(instance.as_bytes()),
        job: (dice % 500) as u32,
        attempt: 1,
        outcome: if dice.is_multiple_of(40) { 2 } else { 1 },
        lines: 5 + dice % 40,
        raw_bytes: 700 + dice % 6000,
        created_at,
        finished_at: created_at + dice % 60_000,
        segment: (number / 40_000) as u32,
        byte_offset: number % 40_000 / 400 * 160_000,
        byte_length: 160_000 + dice % 3000,
        skip: (number % 400 * 4500) as u32,
        levels: 0b1100,
        instance,
    }
}

/// First hash and offset of each block.
type BlockIndex = Vec<(u64, u64)>;

/// The blocks one after the other; and of each the first hash and the offset, with the end behind the last.
fn build(entries: &[Entry]) -> std::io::Result<(Vec<u8>, BlockIndex)> {
    let (mut object, mut index) = (Vec::new(), Vec::new());
    for block in entries.chunks(BLOCK_ENTRIES) {
        index.push((block[0].hash, object.len() as u64));
        let columns = encode(block);
        object.extend_from_slice(&(columns.len() as u32).to_le_bytes());
        object.extend(zstd::bulk::compress(&columns, LEVEL)?);
    }
    index.push((u64::MAX, object.len() as u64));
    Ok((object, index))
}

async fn find(
    store: &dyn ObjectStore,
    path: &Path,
    index: &[(u64, u64)],
    instance: &str,
) -> Result<Option<Entry>, Box<dyn std::error::Error>> {
    let hash = xxh3_64(instance.as_bytes());
    let block = index.partition_point(|(first, _)| *first <= hash).saturating_sub(1).min(index.len() - 2);
    let bytes: Bytes = store.get_range(path, index[block].1..index[block + 1].1).await?;
    let (len, compressed) = bytes.split_at(4);
    let columns = zstd::bulk::decompress(compressed, u32::from_le_bytes(len.try_into()?) as usize)?;
    Ok(decode(&columns).into_iter().find(|entry| entry.hash == hash && entry.instance == instance))
}

/// Column by column: like stands beside like, and compresses.
fn encode(block: &[Entry]) -> Vec<u8> {
    let mut out = (block.len() as u32).to_le_bytes().to_vec();
    for entry in block {
        // Digits are the rule; two in a byte.
        let digits = entry.instance.as_bytes();
        out.push(digits.len() as u8);
        out.extend(digits.chunks(2).map(|pair| (pair[0] - b'0') << 4 | pair.get(1).map_or(0, |digit| digit - b'0')));
    }
    let mut column = |width: usize, of: &dyn Fn(&Entry) -> u64| {
        // Byte planes: the high bytes of a column are alike.
        for byte in 0..width {
            out.extend(block.iter().map(|entry| (of(entry) >> (8 * byte)) as u8));
        }
    };
    column(2, &|entry| entry.job.into());
    column(1, &|entry| entry.attempt.into());
    column(1, &|entry| entry.outcome.into());
    column(4, &|entry| entry.lines);
    column(5, &|entry| entry.raw_bytes);
    column(6, &|entry| entry.created_at);
    column(4, &|entry| entry.finished_at - entry.created_at);
    column(4, &|entry| entry.segment.into());
    column(5, &|entry| entry.byte_offset);
    column(4, &|entry| entry.byte_length);
    column(4, &|entry| entry.skip.into());
    column(1, &|entry| entry.levels.into());
    out
}

fn decode(mut columns: &[u8]) -> Vec<Entry> {
    let mut take = |len: usize| {
        let (taken, rest) = columns.split_at(len);
        columns = rest;
        taken
    };
    let count = take(4).iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
    let mut instances = Vec::with_capacity(count);
    for _ in 0..count {
        let digits = usize::from(take(1)[0]);
        let pairs = take(digits.div_ceil(2));
        let text: String = pairs.iter().flat_map(|pair| [pair >> 4, pair & 15]).map(|d| char::from(b'0' + d)).collect();
        instances.push(text[..digits].to_owned());
    }
    let mut column = |width: usize| {
        let mut values = vec![0u64; count];
        for byte in 0..width {
            for (value, next) in values.iter_mut().zip(take(count)) {
                *value |= u64::from(*next) << (8 * byte);
            }
        }
        values
    };
    let [job, attempt, outcome, lines, raw_bytes, created_at, took, segment, byte_offset, byte_length, skip, levels] =
        [2, 1, 1, 4, 5, 6, 4, 4, 5, 4, 4, 1].map(&mut column);
    let entries = instances.into_iter().enumerate().map(|(at, instance)| Entry {
        hash: xxh3_64(instance.as_bytes()),
        job: job[at] as u32,
        attempt: attempt[at] as u32,
        outcome: outcome[at] as u8,
        lines: lines[at],
        raw_bytes: raw_bytes[at],
        created_at: created_at[at],
        finished_at: created_at[at] + took[at],
        segment: segment[at] as u32,
        byte_offset: byte_offset[at],
        byte_length: byte_length[at],
        skip: skip[at] as u32,
        levels: levels[at] as u8,
        instance,
    });
    entries.collect()
}
