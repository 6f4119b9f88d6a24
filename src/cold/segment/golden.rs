//! The golden file: a segment of format version 1 as it was first written, which every later version must read.
//!
//! `tests/golden/segment-v1.ndjson.zst` is the object, `….ndjson` its lines, `….json` what its index
//! says. `LOGTIER_BLESS=1 cargo test --lib golden` writes them anew; only a new format version
//! gives a reason to. `tests/golden/read_with_others.py` reads the file with tools that are not ours.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::tests::{Sample, chunk, header, key, memory, meta, record, settings, write};
use super::*;
use crate::cold::Store;
use crate::model::{AttemptState, LineRange, Millis, Outcome, Record};

const FRAME_SIZE: usize = 2048;

fn path(suffix: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("segment-v1.{suffix}"))
}

fn file(suffix: &str) -> Vec<u8> {
    std::fs::read(path(suffix)).unwrap_or_else(|error| panic!("read {}: {error}", path(suffix).display()))
}

/// What real logs do: other scripts, colour, CRLF, stack traces, bytes that are no text, pieces of long lines.
fn samples() -> Vec<Sample> {
    let start = 1_727_913_600_123_000_000;
    let mut trace =
        record(start + 2_000, "java.lang.IllegalStateException: 余额不足\n\tat Billing.charge(Billing.java:42)");
    trace.level = None;
    let mut raw = record(start + 3_001, "caf\u{FFFD}\u{1b}[31m red\u{1b}[0m\r");
    raw.raw = Some("Y2Fm6RtbMzFtIHJlZBtbMG0N".into());
    let attrs = serde_json::from_str(r#"{"ts":1,"trace_id":"4bf92f35","n":12345678901234567890}"#).expect("JSON");
    let mut piece = record(start + 4_000, "a long line, first piece");
    (piece.partial, piece.attrs) = (true, Some(crate::model::Attrs::new(attrs).expect("object")));
    let mut rest = record(start + 5_000, "\0second piece\u{7f}");
    rest.source = "".into();
    let small = chunk(&[record(start, "任务开始 🚀"), record(start + 1_000, "")]);
    let odd = chunk(&[trace, raw, piece, rest]);

    let messages: Vec<_> = (0..120i64).map(|n| format!("row {n} of 120 read, {} left", 119 - n)).collect();
    let rows: Vec<Record<'_>> =
        messages.iter().zip(0..).map(|(message, n)| record(start + n * 1_000_003, message)).collect();
    let large = rows.chunks(50).map(chunk).collect();

    let mut late = meta(2, "late");
    (late.meta_version, late.state, late.outcome) = (3, AttemptState::Inferred, Some(Outcome::Cancelled));
    let mut open = meta(3, "never-ending");
    (open.state, open.outcome, open.finished_at) = (AttemptState::Open, None, None);
    open.created_at = Millis::new(-1);
    vec![
        Sample { attempt: meta(0, "20241003-1"), first_line: 0, chunks: vec![small.clone(), odd] },
        Sample { attempt: meta(1, "744012345678901248"), first_line: 1_000, chunks: large },
        Sample { attempt: late, first_line: 17, chunks: Vec::new() },
        Sample { attempt: open, first_line: 5_000_000_000, chunks: vec![small] },
    ]
}

/// All that the index says, as JSON.
async fn describe(store: &Store, byte_length: u64) -> Value {
    let index = Index::open(store, &key(), byte_length).await.expect("index");
    let (header, totals) = (index.header(), index.totals());
    let extent = |extent: Extent| {
        let ts = extent.ts.map(|ts| [ts.min().nanos(), ts.max().nanos()]);
        json!({ "lines": extent.lines, "ts": ts, "levels": extent.levels.bits() })
    };
    let frames = index.frames().iter().map(|frame| {
        json!({ "compressed_len": frame.compressed_len, "raw_len": frame.raw_len, "extent": extent(frame.extent) })
    });
    let entries = index.entries(store).await.expect("entries").collect().await.expect("entries");
    let attempts = entries.iter().map(|entry| {
        let (attempt, identity) = (&entry.attempt, &entry.attempt.identity);
        json!({
            "id": attempt.id.get(), "meta_version": attempt.meta_version, "job": identity.job,
            "instance": identity.key.instance, "attempt": identity.key.attempt, "labels": identity.labels,
            "state": attempt.state.code(), "outcome": Outcome::code(attempt.outcome),
            "created_at": attempt.created_at.get(), "finished_at": attempt.finished_at.map(Millis::get),
            "first_line": entry.first_line, "extent": extent(entry.extent), "frame": entry.spot.frame,
            "skip": entry.spot.skip, "raw_bytes": entry.raw_bytes, "hash": format!("{:016x}", entry.hash),
        })
    });
    json!({
        "key": key().as_str(),
        "cluster": header.cluster, "app": header.app, "rule": header.rule, "finish_day": header.finish_day,
        "created_at": header.created_at.get(), "created_by": index.created_by(),
        "replaces": header.replaces.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "totals": {
            "attempts": totals.attempts, "frames": totals.frames, "raw_bytes": totals.raw_bytes,
            "data_bytes": totals.data_bytes, "extent": extent(totals.extent),
        },
        "frames": frames.collect::<Vec<_>>(),
        "attempts": attempts.collect::<Vec<_>>(),
    })
}

/// Leaves out what another version of zstd or of logtier may write differently.
fn without_compression(mut description: Value) -> Value {
    let object = description.as_object_mut().expect("object");
    object.remove("created_by");
    description["totals"].as_object_mut().expect("totals").remove("data_bytes");
    for frame in description["frames"].as_array_mut().expect("frames") {
        frame.as_object_mut().expect("frame").remove("compressed_len");
    }
    description
}

async fn written_today() -> (Store, Written) {
    let store = memory();
    let written = write(&store, &samples(), settings(FRAME_SIZE)).await.expect("written");
    if std::env::var_os("LOGTIER_BLESS").is_some() {
        let object = store.get_range(&key(), 0..written.byte_length).await.expect("object");
        std::fs::write(path("ndjson"), zstd::decode_all(&object[..]).expect("zstd")).expect("written");
        std::fs::write(path("ndjson.zst"), object).expect("written");
        let description = describe(&store, written.byte_length).await;
        let text = serde_json::to_string_pretty(&description).expect("JSON") + "\n";
        std::fs::write(path("json"), text).expect("written");
    }
    (store, written)
}

#[tokio::test]
async fn todays_reader_reads_the_golden_file() {
    if std::env::var_os("LOGTIER_BLESS").is_some() {
        return;
    }
    let (store, object) = (memory(), file("ndjson.zst"));
    let (byte_length, hash) = (object.len() as u64, *blake3::hash(&object).as_bytes());
    store.put(&key(), object.into()).await.expect("put");
    let described: Value = serde_json::from_slice(&file("json")).expect("JSON");
    assert_eq!(describe(&store, byte_length).await, described);

    let index = Index::open(&store, &key(), byte_length).await.expect("index");
    let entries = index.entries(&store).await.expect("entries").collect().await.expect("entries");
    let (key, mut ndjson) = (key(), Vec::new());
    for entry in &entries {
        let place = index.place(entry).expect("place");
        let attempt = &entry.attempt.identity.key;
        let part = Part { key: &key, byte_length, place: &place, attempt };
        let all = LineRange::new(0, u64::MAX);
        let ndjson_lines = Some(Ndjson { head: entry.attempt.identity.head().into(), frames: false });
        let asked = Asked { ndjson: ndjson_lines, ..Asked::all(all) };
        let mut reader = PartReader::open(&store, part, &asked).await.expect("reader");
        while let Some(block) = reader.next().await.expect("lines") {
            ndjson.extend_from_slice(&block.lines);
        }
    }
    assert!(ndjson == file("ndjson"), "the lines differ");
    let filters = SearchMap::read(&store, &key, index.totals().data_bytes..byte_length).await.expect("asked");
    assert!(filters.is_some(), "its search filters are of another kind");
    let mut replay = Replay::open(&store, &key, byte_length, hash).await.expect("replay");
    while replay.next().await.expect("proven").is_some() {}
}

#[tokio::test]
async fn todays_writer_says_the_same() {
    let (store, written) = written_today().await;
    let object = store.get_range(&key(), 0..written.byte_length).await.expect("object");
    assert!(zstd::decode_all(&object[..]).expect("zstd") == file("ndjson"), "the lines differ");
    let golden: Value = serde_json::from_slice(&file("json")).expect("JSON");
    let today = describe(&store, written.byte_length).await;
    assert_eq!(without_compression(today), without_compression(golden));
    assert_eq!(header().app.as_str(), "账单/prod");
}
