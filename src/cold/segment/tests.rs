//! Segments as a whole: what is written is read by our reader, by our index, and by tools that are not ours.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::cold::{Error, Key, ObjectName, Result, Store, StoreSettings};
use crate::model::{
    AttemptId, AttemptKey, AttemptNo, AttemptState, Identity, Labels, Level, LevelSet, LineRange, Millis, Outcome,
    Record, Timestamp,
};

/// An attempt to be written: its chunks of record lines.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub attempt: AttemptMeta,
    pub first_line: u64,
    pub chunks: Vec<(Vec<u8>, Extent)>,
}

impl Sample {
    /// The records' JSON lines, as chunks hold them.
    pub fn records(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|(lines, _)| lines).copied().collect()
    }

    /// The lines as the segment holds them.
    pub fn ndjson(&self) -> Vec<u8> {
        let (head, records) = (self.attempt.identity.head(), self.records());
        let lines = records.split_inclusive(|b| *b == b'\n');
        lines.flat_map(|line| head.iter().chain(&line[1..]).copied().collect::<Vec<u8>>()).collect()
    }

    fn lines(&self, range: LineRange) -> Vec<u8> {
        let skip = (range.start() - self.first_line) as usize;
        let records = self.records();
        let lines = records.split_inclusive(|b| *b == b'\n');
        lines.skip(skip).take(range.len() as usize).flatten().copied().collect()
    }
}

pub(super) fn header() -> SegmentHeader {
    SegmentHeader {
        cluster: "01HF7YAT00CLUSTER".to_owned(),
        app: "账单/prod".parse().expect("app"),
        rule: "default".parse().expect("rule"),
        finish_day: 20_000,
        created_at: Millis::new(1_728_000_000_000),
        replaces: vec![Ulid::from_parts(1_700_000_000_000, 42)],
    }
}

pub(super) fn key() -> Key {
    let SegmentHeader { app, rule, finish_day, .. } = header();
    ObjectName { app, rule, finish_day, ulid: Ulid::from_parts(1_728_000_000_000, 7) }.key()
}

pub(super) fn meta(number: i64, instance: &str) -> AttemptMeta {
    let created_at = Millis::new(1_727_913_600_000 + number * 977);
    let labels = if number % 3 == 0 { r#"{"ts":"x","workflow":"w"}"# } else { "" };
    AttemptMeta {
        id: AttemptId::at(created_at, (number as u32).wrapping_mul(0x9E37_79B9)),
        meta_version: 1,
        identity: Identity {
            key: AttemptKey {
                app: header().app,
                instance: instance.parse().expect("instance"),
                attempt: AttemptNo::try_from(1 + number % 2).expect("attempt"),
            },
            job: (number % 5 != 4).then(|| format!("job-{}", number % 7).parse().expect("job")),
            labels: labels.parse::<Labels>().expect("labels"),
        },
        state: AttemptState::Finished,
        outcome: Outcome::from_code(number % 4),
        created_at,
        finished_at: Some(Millis::new(created_at.get() + 5_000)),
    }
}

pub(super) fn chunk(records: &[Record<'_>]) -> (Vec<u8>, Extent) {
    let (mut lines, mut extent) = (Vec::new(), Extent::default());
    for record in records {
        record.write_json(&mut lines);
        lines.push(b'\n');
        let mut levels = LevelSet::EMPTY;
        levels.insert(record.level);
        extent.merge(Extent { lines: 1, ts: Some(TsRange::new(record.ts, record.ts)), levels });
    }
    (lines, extent)
}

pub(super) fn record(nanos: i64, message: &str) -> Record<'_> {
    Record {
        ts: Timestamp::from_nanos(nanos),
        level: Some(Level::ALL[(nanos / 1000 % 6) as usize]),
        source: "worker-1".into(),
        message: message.into(),
        attrs: None,
        raw: None,
        partial: false,
    }
}

/// Attempts from the lengths of their messages, chunk by chunk.
fn samples(shape: &[Vec<Vec<usize>>]) -> Vec<Sample> {
    let mut nanos = 1_727_913_600_000_000_000;
    let sample = |(attempt, number): (&Vec<Vec<usize>>, i64)| {
        let chunks = attempt.iter().filter(|lens| !lens.is_empty()).map(|lens| {
            let messages: Vec<_> =
                lens.iter().map(|len| "0123456789".repeat(len / 10 + 1)[..*len].to_owned()).collect();
            let records = messages.iter().map(|message| {
                nanos += 1_234_567;
                record(nanos, message)
            });
            chunk(&records.collect::<Vec<_>>())
        });
        Sample {
            attempt: meta(number, &format!("run-{number}")),
            first_line: number as u64 * 10,
            chunks: chunks.collect(),
        }
    };
    shape.iter().zip(0..).map(sample).collect()
}

fn shape() -> impl Strategy<Value = Vec<Vec<Vec<usize>>>> {
    let line = prop_oneof![8 => 0..40usize, 1 => 0..2000usize];
    let chunk = prop::collection::vec(line, 0..12);
    prop::collection::vec(prop::collection::vec(chunk, 0..6), 0..10)
}

pub(super) fn settings(frame_size: usize) -> SegmentSettings {
    SegmentSettings { level: 3, frame_size, parallelism: 2, filters: true }
}

pub(super) async fn write(store: &Store, samples: &[Sample], settings: SegmentSettings) -> Result<Written> {
    let mut writer = SegmentWriter::new(store.upload(&key()), header(), settings)?;
    for sample in samples {
        writer.begin(sample.attempt.clone(), sample.first_line)?;
        for (records, extent) in &sample.chunks {
            writer.push_block(records, *extent).await?;
        }
        writer.end()?;
    }
    writer.finish().await
}

pub(super) fn memory() -> Store {
    Store::from_object_store(Arc::new(InMemory::new()), "p")
}

async fn read(store: &Store, written: &Written, place: &Place, of: &Sample, wanted: LineRange) -> Result<Vec<u8>> {
    let (key, attempt) = (key(), &of.attempt.identity.key);
    let part = Part { key: &key, byte_length: written.byte_length, place, attempt };
    let mut reader = PartReader::open(store, part, &Asked::all(wanted)).await?;
    let (mut all, mut next) = (Vec::new(), wanted.intersect(place.lines()).start());
    while let Some(block) = reader.next().await? {
        assert_eq!(block.first_line, next);
        assert_eq!(block.lines.iter().filter(|b| **b == b'\n').count() as u64, block.line_count);
        next += block.line_count;
        all.extend_from_slice(&block.lines);
    }
    Ok(all)
}

#[test]
fn an_object_of_the_same_length_that_is_not_the_one_written_is_refused() {
    block_on(async {
        let (store, samples) = (memory(), samples(&[vec![vec![5, 60]]]));
        let written = write(&store, &samples, settings(700)).await.expect("written");
        assert!(replay(&store, written.byte_length, written.hash).await.is_ok());
        assert!(replay(&store, written.byte_length, [7; 32]).await.is_err());
    });
}

/// Every line of a replay, and its attempts in order.
async fn replay(store: &Store, byte_length: u64, hash: [u8; 32]) -> Result<(Vec<Entry>, Vec<Vec<u8>>)> {
    let mut replay = Replay::open(store, &key(), byte_length, hash).await?;
    let (mut entries, mut lines) = (Vec::<Entry>::new(), Vec::<Vec<u8>>::new());
    while let Some(replayed) = replay.next().await? {
        match (replayed, lines.last_mut()) {
            (Replayed::Attempt(entry), _) => {
                entries.push(*entry);
                lines.push(Vec::new());
            }
            (Replayed::Lines(block), Some(lines)) => lines.extend_from_slice(&block.lines),
            (Replayed::Lines(_), None) => panic!("lines before the first attempt"),
        }
    }
    Ok((entries, lines))
}

fn gets(store: &Store) -> u64 {
    store.counters().gets.load(Ordering::Relaxed)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

async fn object(store: &Store, written: &Written) -> Vec<u8> {
    store.get_range(&key(), 0..written.byte_length).await.expect("object").to_vec()
}

/// All that must hold of any segment.
async fn check(store: &Store, samples: &[Sample], frame_size: usize, from: u64, len: u64) {
    let written = write(store, samples, settings(frame_size)).await.expect("written");
    let bytes = object(store, &written).await;
    assert_eq!((bytes.len() as u64, *blake3::hash(&bytes).as_bytes()), (written.byte_length, written.hash));
    let ndjson: Vec<u8> = samples.iter().flat_map(Sample::ndjson).collect();
    assert_eq!(zstd::decode_all(&bytes[..]).expect("plain zstd"), ndjson, "any zstd reads it");

    let index = Index::open(store, &key(), written.byte_length).await.expect("index");
    assert_eq!((index.header(), index.totals()), (&header(), written.totals));
    assert_eq!((index.index_offset(), index.frames_offset()), (written.index_offset, written.frames_offset));
    let entries = index.entries(store).await.expect("entries").collect().await.expect("entries");
    assert_eq!(entries.len(), samples.len());
    for ((entry, sample), part) in entries.iter().zip(samples).zip(&written.parts) {
        assert_eq!((&entry.attempt, entry.first_line), (&sample.attempt, sample.first_line));
        assert_eq!(entry.hash, content_hash(&sample.records()));
        assert_eq!((part.id, part.ordinal, part.hash), (entry.attempt.id, entry.ordinal, entry.hash));
        assert_eq!((part.ts, part.levels, part.raw_bytes), (entry.extent.ts, entry.extent.levels, entry.raw_bytes));
        assert_eq!(index.place(entry).expect("place"), part.place);
        assert_eq!(part.raw_bytes, sample.ndjson().len() as u64);
        let wanted = LineRange::new(sample.first_line + from, sample.first_line + from + len);
        let expected = sample.lines(wanted.intersect(part.place.lines()));
        let before = gets(store);
        assert_eq!(read(store, &written, &part.place, sample, wanted).await.expect("lines"), expected);
        let empty = expected.is_empty();
        if part.place.frames.is_some() {
            assert_eq!(gets(store) - before, u64::from(!empty), "one cold read is one ranged GET");
        }
        let unmapped = Place { frames: None, ..part.place.clone() };
        assert_eq!(read(store, &written, &unmapped, sample, wanted).await.expect("lines"), expected);
    }

    let (replayed, lines) = replay(store, written.byte_length, written.hash).await.expect("replay");
    assert_eq!(replayed, entries);
    assert_eq!(lines, samples.iter().map(Sample::records).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_read(shape in shape(), frame_size in 1usize..6000, from in 0u64..40, len in 0u64..40) {
        block_on(check(&memory(), &samples(&shape), frame_size, from, len));
    }

    #[test]
    fn random_access_by_a_reader_that_is_not_ours(shape in shape(), frame_size in 1usize..6000, a: prop::sample::Index, b: prop::sample::Index) {
        let samples = samples(&shape);
        let store = memory();
        let bytes = block_on(async {
            let written = write(&store, &samples, settings(frame_size)).await.expect("written");
            object(&store, &written).await
        });
        let ndjson: Vec<u8> = samples.iter().flat_map(Sample::ndjson).collect();
        let (a, b) = (a.index(ndjson.len() + 1), b.index(ndjson.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        let table = zeekstd::SeekTable::from_seekable(&mut zeekstd::BytesWrapper::new(&bytes)).expect("seek table");
        prop_assert_eq!(table.size_decomp(), ndjson.len() as u64);
        let options = zeekstd::DecodeOptions::new(zeekstd::BytesWrapper::new(&bytes));
        let decoder = options.offset(from as u64).offset_limit(to as u64).into_decoder();
        let mut got = Vec::new();
        if from < to {
            decoder.expect("seekable").read_to_end(&mut got).expect("decoded");
        }
        prop_assert_eq!(&got[..], &ndjson[from..to]);
    }

    #[test]
    fn a_flipped_byte_is_found_or_changes_nothing(shape in shape(), at: prop::sample::Index, bit in 0..8, cut: bool) {
        let samples = samples(&shape);
        block_on(async {
            let store = memory();
            let written = write(&store, &samples, settings(700)).await.expect("written");
            let mut bytes = object(&store, &written).await;
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1u8 << bit }
            let len = bytes.len() as u64;
            store.put(&key(), bytes.into()).await.expect("put");
            assert!(replay(&store, len, written.hash).await.is_err(), "a replay sees every bit");
            if let Ok(index) = Index::open(&store, &key(), len).await
                && let Ok(entries) = index.entries(&store).await
                && let Ok(entries) = entries.collect().await
            {
                assert!(entries.iter().map(|entry| &entry.attempt).eq(samples.iter().map(|sample| &sample.attempt)));
            }
            for (part, sample) in written.parts.iter().zip(&samples) {
                match read(&store, &written, &part.place, sample, part.place.lines()).await {
                    Ok(lines) => assert_eq!(lines, sample.records()),
                    Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error:?}"),
                }
            }
        });
    }
}

/// One attempt of many frames between two small ones, with lines of some length.
fn large(lines: usize) -> Vec<Sample> {
    samples(&[vec![vec![10; 3]], vec![vec![50; 100]; lines / 100], vec![vec![10; 3]]])
}

#[tokio::test]
async fn an_attempt_of_more_frames_than_the_map_holds_costs_one_more_request() {
    let store = memory();
    let samples = large(20_000);
    let written = write(&store, &samples, settings(10_000)).await.expect("written");
    let part = &written.parts[1];
    assert!(part.place.frames.is_none() && written.totals.frames > 200);
    let before = (gets(&store), store.counters().bytes_out.load(Ordering::Relaxed));
    let wanted = LineRange::new(15_000, 15_010);
    let lines = read(&store, &written, &part.place, &samples[1], wanted).await.expect("lines");
    assert_eq!(lines, samples[1].lines(wanted));
    assert_eq!(gets(&store) - before.0, 2);
    let bytes = store.counters().bytes_out.load(Ordering::Relaxed) - before.1;
    assert!(bytes < 68 << 10, "{bytes} bytes for ten lines");
    let whole = LineRange::new(0, u64::MAX);
    let lines = read(&store, &written, &part.place, &samples[1], whole).await.expect("lines");
    assert_eq!(lines, samples[1].records());
    // The last small attempt shares the large one's last frame.
    let last = &written.parts[2].place;
    assert!(last.skip > 0);
    assert_eq!(read(&store, &written, last, &samples[2], whole).await.expect("lines"), samples[2].records());
}

#[tokio::test]
async fn segments_without_lines_or_without_attempts_are_segments() {
    for shape in [vec![], vec![vec![]], vec![vec![], vec![vec![5]], vec![]]] {
        check(&memory(), &samples(&shape), 100, 0, 10).await;
    }
}

#[tokio::test]
async fn a_folder_is_a_store_too() {
    let folder = tempfile::tempdir().expect("folder");
    let url = url::Url::from_directory_path(folder.path()).expect("absolute");
    let store = Store::open(&StoreSettings::new(url)).expect("store");
    check(&store, &large(2000), 4000, 700, 900).await;
}

#[tokio::test]
async fn an_index_longer_than_the_tail_takes_two_requests() {
    let store = memory();
    let samples = samples(&vec![vec![vec![1]]; 9000]);
    // One frame for each attempt, so that seek table and frame blocks exceed the first request.
    let written = write(&store, &samples, settings(1)).await.expect("written");
    assert_eq!(written.totals.frames, 9000);
    let before = gets(&store);
    let index = Index::open(&store, &key(), written.byte_length).await.expect("index");
    assert_eq!(gets(&store) - before, 2);
    let entries = index.entries(&store).await.expect("entries").collect().await.expect("entries");
    assert_eq!(entries.len(), 9000);
    assert!(index.attempt_blocks().len() > 8);
    replay(&store, written.byte_length, written.hash).await.expect("replay");
}

#[tokio::test]
async fn the_wrong_attempts_lines_are_never_shown() {
    let store = memory();
    let samples = samples(&[vec![vec![10; 3]], vec![vec![10; 3]]]);
    let written = write(&store, &samples, settings(1 << 20)).await.expect("written");
    let right = &written.parts[1].place;
    let wrong_skip = Place { skip: 0, ..right.clone() };
    let inside_a_line = Place { skip: right.skip + 3, ..right.clone() };
    for place in [wrong_skip, inside_a_line] {
        let error = read(&store, &written, &place, &samples[1], place.lines()).await.expect_err("wrong place");
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
    let more_lines = Place { frames: None, line_count: right.line_count + 1, ..right.clone() };
    assert!(read(&store, &written, &more_lines, &samples[1], more_lines.lines()).await.is_err());
}

/// What an index says, before it is encoded.
struct Forged {
    header: SegmentHeader,
    entries: Vec<Entry>,
    frames: Vec<FrameInfo>,
    seek: Vec<seek_table::SeekEntry>,
}

/// Writes the segment again with an index that is whole and checksummed, but says something else.
async fn forge(store: &Store, samples: &[Sample], change: impl FnOnce(&mut Forged)) -> (u64, [u8; 32]) {
    let written = write(store, samples, settings(500)).await.expect("written");
    let mut bytes = object(store, &written).await;
    let index = Index::open(store, &key(), written.byte_length).await.expect("index");
    let entries = index.entries(store).await.expect("entries").collect().await.expect("entries");
    bytes.truncate(written.totals.data_bytes as usize);
    let frames = index.frames().to_vec();
    let seek = frames.iter().map(|frame| (frame.compressed_len, frame.raw_len)).collect();
    let mut forged = Forged { header: header(), entries, frames, seek };
    change(&mut forged);

    let compress = |raw: &[u8]| zframe::compressor(3).and_then(|mut c| c.compress(raw)).expect("compressed");
    let attempt_block = compress(&entry::encode(&forged.entries));
    let frame_block = compress(&frames::encode(&forged.frames));
    let (compressed_len, entries) = (attempt_block.len() as u32, forged.entries.len() as u32);
    let totals = Totals {
        frames: forged.frames.len() as u64,
        raw_bytes: forged.frames.iter().map(|frame| u64::from(frame.raw_len)).sum(),
        ..written.totals
    };
    let directory = directory::Directory {
        header: forged.header,
        created_by: "a forger".to_owned(),
        totals,
        attempt_blocks: vec![AttemptBlock { compressed_len, entries, extent: totals.extent }],
        frame_blocks: vec![frame_block.len() as u32],
    };
    let directory = directory.encode();
    let footer = directory::Footer {
        attempt_blocks_len: attempt_block.len() as u64,
        frame_blocks_len: frame_block.len() as u64,
        directory_len: directory.len() as u32,
        directory_hash: content_hash(&directory),
    };
    let payload = [attempt_block, frame_block, directory, footer.encode().to_vec()].concat();
    bytes.extend_from_slice(&INDEX_MAGIC.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    forged.seek.push((payload.len() as u32 + 8, 0));
    bytes.extend_from_slice(&seek_table::encode(forged.seek.into_iter()));
    let (len, hash) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
    store.put(&key(), bytes.into()).await.expect("put");
    (len, hash)
}

#[tokio::test]
async fn a_replay_believes_nothing_that_the_index_says() {
    let samples = samples(&[vec![vec![10; 3]], vec![vec![20; 9]], vec![], vec![vec![10; 2]]]);
    let store = memory();
    let (len, hash) = forge(&store, &samples, |_| {}).await;
    replay(&store, len, hash).await.expect("the forger can write a right one");
    assert!(replay(&store, len, [7; 32]).await.is_err(), "another hash than was written");
    type Change = fn(&mut Forged);
    let changes: [(&str, Change); 13] = [
        ("another hash", |f| f.entries[1].hash ^= 1),
        ("a hash of lines that are not there", |f| f.entries[2].hash ^= 1),
        ("another length", |f| f.entries[1].raw_bytes -= 1),
        ("more lines", |f| f.entries[3].extent.lines += 1),
        ("fewer lines", |f| f.entries[3].extent.lines -= 1),
        ("another frame", |f| f.entries[1].spot.frame += 1),
        ("another offset", |f| f.entries[3].spot.skip += 1),
        ("another instance", |f| f.entries[1].attempt.identity.key.instance = "x".parse().expect("instance")),
        ("other labels", |f| f.entries[1].attempt.identity.labels = r#"{"a":"b"}"#.parse().expect("labels")),
        ("one attempt less", |f| drop(f.entries.pop())),
        ("a frame of other lines", |f| f.frames[0].extent.lines += 1),
        ("a frame of another length", |f| f.frames[0].raw_len += 1),
        ("another seek table", |f| f.seek[1].1 += 1),
    ];
    for (what, change) in changes {
        let (len, hash) = forge(&store, &samples, change).await;
        let Err(error) = replay(&store, len, hash).await else { panic!("{what} was believed") };
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
    }
    // What only the lines could tell: another app in the header.
    let (len, hash) = forge(&store, &samples, |f| f.header.app = "other".parse().expect("app")).await;
    assert!(replay(&store, len, hash).await.is_err());
}

#[tokio::test]
async fn ndjson_lines_come_as_they_are_stored() {
    let store = memory();
    let samples = large(500);
    let written = write(&store, &samples, settings(4000)).await.expect("written");
    let (key, sample) = (key(), &samples[1]);
    let attempt = &sample.attempt.identity.key;
    let part = Part { key: &key, byte_length: written.byte_length, place: &written.parts[1].place, attempt };
    let ndjson = sample.ndjson();
    let read = async |lines, head: Vec<u8>, frames| {
        let asked = Asked { ndjson: Some(Ndjson { head: head.into(), frames }), ..Asked::all(lines) };
        let reader = PartReader::open(&store, part, &asked).await.expect("reader");
        futures::TryStreamExt::try_collect::<Vec<LineBlock>>(reader.into_stream()).await.expect("blocks")
    };
    let (all, head) = (LineRange::new(0, u64::MAX), sample.attempt.identity.head());
    let plain = |blocks: &[LineBlock]| {
        blocks
            .iter()
            .flat_map(|block| match block.shape {
                Shape::Frame => zstd::decode_all(&block.lines[..]).expect("zstd"),
                _ => block.lines.to_vec(),
            })
            .collect::<Vec<u8>>()
    };
    let count = |blocks: &[LineBlock], shape| blocks.iter().filter(|block| block.shape == shape).count();
    let blocks = read(all, head.clone(), false).await;
    assert!(plain(&blocks) == ndjson && count(&blocks, Shape::Ndjson) == blocks.len());
    // All frames but the first and the last, in which other attempts may have lines.
    let blocks = read(all, head.clone(), true).await;
    assert!(plain(&blocks) == ndjson && count(&blocks, Shape::Frame) == blocks.len() - 2 && blocks.len() > 10);
    // Cut in the middle of frames.
    let some = LineRange::new(sample.first_line + 7, sample.first_line + 400);
    let blocks = read(some, head.clone(), true).await;
    let lines: Vec<&[u8]> = ndjson.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(plain(&blocks) == lines[7..400].concat());
    assert!(count(&blocks, Shape::Frame) > 5, "{} of {}", count(&blocks, Shape::Frame), blocks.len());
    assert_eq!(blocks.iter().map(|block| block.line_count).sum::<u64>(), 393);
    // The job was told after the attempt had moved: its lines say nothing of it.
    let blocks = read(all, [&head[..head.len() - 1], b",\"job\":\"late\","].concat(), true).await;
    assert_eq!(count(&blocks, Shape::Records), blocks.len());
}

#[tokio::test]
async fn the_writer_refuses_what_would_be_a_wrong_segment() {
    let (store, sample) = (memory(), &samples(&[vec![vec![5, 6]]])[0]);
    let new = || SegmentWriter::new(store.upload(&key()), header(), settings(100)).expect("writer");
    let (records, extent) = &sample.chunks[0];
    let pushed = async |records: &[u8], lines: u64| {
        let mut writer = new();
        writer.begin(sample.attempt.clone(), 0).expect("begun");
        let pushed = writer.push_block(records, Extent { lines, ..*extent }).await;
        writer.abort().await.expect("aborted");
        pushed
    };
    assert!(pushed(records, 2).await.is_ok());
    assert!(pushed(records, 3).await.is_err(), "another number of lines");
    assert!(pushed(&records[..records.len() - 1], 2).await.is_err(), "no newline at the end");
    assert!(pushed(b"\n", 1).await.is_err(), "an empty line");
    assert!(pushed(b"[]\n", 1).await.is_err(), "no object");
    assert!(new().push_block(records, *extent).await.is_err(), "no attempt");
    assert!(new().end().is_err(), "no attempt");
    let mut writer = new();
    let mut other = sample.attempt.clone();
    other.identity.key.app = "other".parse().expect("app");
    assert!(writer.begin(other, 0).is_err(), "another app");
    writer.begin(sample.attempt.clone(), 0).expect("begun");
    assert!(writer.begin(sample.attempt.clone(), 0).is_err(), "the one before has not ended");
    assert!(writer.finish().await.is_err(), "the last one has not ended");
    assert!(matches!(store.head(&key()).await, Err(Error::NotFound { .. })), "a failed segment is not there");
}

#[test]
#[expect(clippy::print_stdout, reason = "says what was skipped")]
fn the_zstd_command_reads_it() {
    let Ok(zstd) = std::process::Command::new("zstd").arg("--version").output() else {
        println!("skipped: the zstd command is not installed");
        return;
    };
    assert!(zstd.status.success());
    let folder = tempfile::tempdir().expect("folder");
    let url = url::Url::from_directory_path(folder.path()).expect("absolute");
    let store = Store::open(&StoreSettings::new(url)).expect("store");
    let samples = large(3000);
    block_on(write(&store, &samples, settings(4000))).expect("written");
    let file = folder.path().join(key().as_str());
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("zstd").args(arguments).arg(&file).output().expect("zstd runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["-tq"]);
    assert_eq!(run(&["-dc"]), samples.iter().flat_map(Sample::ndjson).collect::<Vec<_>>());
}
