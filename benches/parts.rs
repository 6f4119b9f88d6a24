//! What the parts of the data's way cost by themselves: `cargo bench --bench parts`.
//!
//! Each works on the same 20,000 made-up records, so that the figures are bytes of NDJSON a second of one core.

#![allow(clippy::expect_used, reason = "a measurement that fails should stop")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use divan::Bencher;
use divan::counter::BytesCount;
use logtier::app::{self, App};
use logtier::clock::Clock;
use logtier::cold::segment::{
    Asked, AttemptMeta, Extent, Index, Part, PartReader, Place, SegmentHeader, SegmentSettings, SegmentWriter, TsRange,
};
use logtier::cold::{Key, ObjectName, Store};
use logtier::config::{Config, Env};
use logtier::hot;
use logtier::ingest::{self, Defaults, Facts};
use logtier::model::{
    AttemptId, AttemptKey, AttemptState, Identity, Labels, LevelTracker, LineRange, Millis, Outcome, Record,
};
use logtier::read::Filter;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;

const RECORDS: usize = 20_000;
/// As in a request of `logtier push`.
const BATCH: usize = 500;

fn main() {
    divan::main();
}

/// NDJSON as clients send it.
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let line = |n: usize| {
        let h = n.wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF;
        let level = ["INFO", "INFO", "INFO", "DEBUG", "WARN", "INFO", "INFO", "ERROR"][h % 8];
        format!(
            "{{\"ts\":{},\"level\":\"{level}\",\"source\":\"worker-{}\",\"message\":\"[OrderJob] processed order \
             {h:08x} of customer {} in {} ms, attempt {} of 5\"}}\n",
            1_767_225_600_000 + n * 37,
            h % 8,
            h % 5000,
            h % 900,
            h % 5 + 1
        )
    };
    (0..RECORDS).flat_map(|n| line(n).into_bytes()).collect()
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

fn defaults() -> Defaults {
    Defaults { key: Some(key()), max_record_bytes: 1 << 20, ..Defaults::default() }
}

fn key() -> AttemptKey {
    AttemptKey {
        app: "bench".parse().expect("app"),
        instance: "730".parse().expect("id"),
        attempt: 1.try_into().expect("one"),
    }
}

fn batches() -> Vec<hot::Lines> {
    let lines: Vec<&[u8]> = BODY.split_inclusive(|byte| *byte == b'\n').collect();
    let decode = |batch: &[&[u8]]| ingest::decode_bulk(&batch.concat(), &defaults()).batches.remove(0).lines;
    lines.chunks(BATCH).map(decode).collect()
}

fn of_body() -> BytesCount {
    BytesCount::new(BODY.len())
}

#[divan::bench(name = "decode: JSON to records")]
fn decode(bencher: Bencher) {
    bencher.counter(of_body()).bench(|| ingest::decode_bulk(&BODY, &defaults()));
}

#[divan::bench(name = "encode: records to chunks")]
fn encode(bencher: Bencher) {
    let batches = batches();
    bencher.counter(of_body()).bench(|| hot::encode(&batches).expect("encoded"));
}

#[divan::bench(name = "hash of chunks")]
fn hash(bencher: Bencher) {
    let batches = batches();
    bencher.counter(of_body()).bench(|| batches.iter().map(|lines| hot::hash(lines.json())).fold(0, |a, b| a ^ b));
}

#[divan::bench(name = "segment: write, level 9")]
fn write(bencher: Bencher) {
    let batches = batches();
    bencher.counter(of_body()).bench(|| RUNTIME.block_on(segment(&batches)));
}

#[divan::bench(name = "segment: read all lines of a part")]
fn read(bencher: Bencher) {
    let object = RUNTIME.block_on(segment(&batches()));
    bencher.counter(of_body()).bench(|| RUNTIME.block_on(object.read(LineRange::new(0, RECORDS as u64))));
}

#[divan::bench(name = "segment: read 100 lines in the middle")]
fn read_page(bencher: Bencher) {
    let object = RUNTIME.block_on(segment(&batches()));
    let middle = RECORDS as u64 / 2;
    bencher.bench(|| RUNTIME.block_on(object.read(LineRange::new(middle, middle + 100))));
}

#[divan::bench(name = "segment: open the index, find an attempt")]
fn index(bencher: Bencher) {
    let object = RUNTIME.block_on(segment(&batches()));
    bencher.bench(|| {
        RUNTIME.block_on(async {
            let index = Index::open(&object.store, &object.key, object.byte_length).await.expect("index");
            let entries = index.entries(&object.store).await.expect("entries").collect().await.expect("entries");
            index.place(&entries[0]).expect("place")
        })
    });
}

#[divan::bench(name = "filter: level and a text", args = [true, false])]
fn filter(bencher: Bencher, with_level: bool) {
    let batches = batches();
    let level = with_level.then_some(logtier::model::Level::Error);
    let filter = Filter { level, contains: vec!["customer 77 ".to_owned()], ..Filter::default() };
    bencher.counter(of_body()).bench(|| {
        let mut levels = LevelTracker::default();
        let lines = batches.iter().flat_map(|lines| lines.json().split_inclusive(|byte| *byte == b'\n'));
        let found = lines.zip(0..).filter(|(line, number)| {
            filter.matches(&mut levels, *number, &Record::parse_json(line).expect("a record"))
        });
        found.count()
    });
}

/// One daemon on the embedded tiers in a temporary folder, with the records in its cold tier and again, behind them, in
/// its hot tier.
async fn both_tiers(folder: &Path) -> App {
    let settings = [
        ("LOGTIER_DATA_DIR", folder.to_str().expect("UTF-8")),
        ("LOGTIER_SERVER__LISTEN", "127.0.0.1:0"),
        ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s"),
        ("LOGTIER_ARCHIVE__PURGE_GRACE", "0s"),
        ("LOGTIER_ARCHIVE__SCHEDULE", "0 0 1 1 *"),
    ];
    let env: Env = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let config = Config::load(None, &env).unwrap_or_else(|problems| panic!("{problems}"));
    let app = app::start(&config, Clock::default()).await.expect("a daemon");
    append(&app).await;
    let (facts, outcome) =
        (Facts { key: key(), job: None, labels: Labels::default(), started_at: None }, Some(Outcome::Succeeded));
    app.ingest.finish(facts, outcome, None).await.expect("finished");
    let run = app.archiver.request_run().await.expect("asked for");
    app.archiver.wait_for(run, Duration::from_secs(60)).await.expect("archived");
    append(&app).await;
    app
}

async fn append(app: &App) {
    for batch in ingest::decode_bulk(&BODY, &defaults()).batches {
        app.ingest.append(batch).await.expect("stored");
    }
}

#[divan::bench(name = "merge: all lines of an attempt, half cold and half hot")]
fn merge(bencher: Bencher) {
    let folder = std::env::temp_dir().join(format!("logtier-bench-parts-{}", std::process::id()));
    let app = RUNTIME.block_on(both_tiers(&folder));
    let all = LineRange::new(0, 2 * RECORDS as u64);
    let bytes = BytesCount::new(2 * BODY.len());
    bencher.counter(bytes).bench(|| {
        RUNTIME.block_on(async {
            let AttemptKey { app: name, instance, attempt } = key();
            let view = app.reader.open(&name, &instance, Some(attempt)).await.expect("there");
            let (mut lines, mut read) = (app.reader.lines(&view, all), 0);
            while let Some(block) = lines.next().await.expect("readable") {
                read += block.lines.len();
            }
            let touched = lines.touched();
            assert_eq!((read, touched.cold, touched.hot), (2 * RECORDS as u64, true, true));
        })
    });
    RUNTIME.block_on(app.shut_down());
    std::fs::remove_dir_all(folder).expect("removed");
}

/// An object with one attempt, in memory.
struct Object {
    store: Store,
    key: Key,
    byte_length: u64,
    place: Place,
}

impl Object {
    async fn read(&self, lines: LineRange) -> usize {
        let attempt = key();
        let part = Part { key: &self.key, byte_length: self.byte_length, place: &self.place, attempt: &attempt };
        let mut reader = PartReader::open(&self.store, part, &Asked::all(lines)).await.expect("open");
        let mut bytes = 0;
        while let Some(block) = reader.next().await.expect("read") {
            bytes += block.lines.len();
        }
        bytes
    }
}

async fn segment(batches: &[hot::Lines]) -> Object {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "");
    let app = key().app;
    let rule: logtier::model::RuleName = "default".parse().expect("rule");
    let ulid = ulid::Ulid::from_parts(1_767_225_600_000, 1);
    let name = ObjectName { app: app.clone(), rule: rule.clone(), finish_day: 20_454, ulid };
    let created_at = Millis::new(1_767_225_600_000);
    let header =
        SegmentHeader { cluster: "bench".to_owned(), app, rule, finish_day: 20_454, created_at, replaces: Vec::new() };
    let mut writer = SegmentWriter::new(store.upload(&name.key()), header, SegmentSettings::default()).expect("new");
    let attempt = AttemptMeta {
        id: AttemptId::at(created_at, 1),
        meta_version: 1,
        identity: Identity { key: key(), job: None, labels: Labels::default() },
        state: AttemptState::Finished,
        outcome: Outcome::from_code(1),
        created_at,
        finished_at: Some(created_at),
    };
    writer.begin(attempt, 0).expect("begin");
    for lines in batches {
        let ts = lines.ts_range().map(|(first, last)| TsRange::new(first, last));
        let extent = Extent { lines: lines.len() as u64, levels: lines.levels(), ts };
        writer.push_block(lines.json(), extent).await.expect("pushed");
    }
    writer.end().expect("end");
    let written = writer.finish().await.expect("finished");
    let place = written.parts[0].place.clone();
    Object { store, key: name.key(), byte_length: written.byte_length, place }
}
