//! Hostile objects: whatever their bytes, an error or a value, in bounded memory (see `crate::fuzzing`).

use std::sync::Arc;

use object_store::memory::InMemory;
use xxhash_rust::xxh3::xxh3_64;

use super::directory::{Directory, FOOTER_BYTES, Footer};
use super::seek_table::{self, SEEK_FOOTER_BYTES};
use super::tests::{chunk, header, key, meta, record};
use super::*;
use crate::cold::{Result, Store};
use crate::fuzzing::fuzz;
use crate::model::App;

/// Objects of several shapes: many small attempts, one of many frames, one without lines.
fn objects() -> Vec<Vec<u8>> {
    let shapes: [(usize, usize); 4] = [(1, 0), (1, 1), (40, 3), (2, 400)];
    shapes.iter().map(|(attempts, lines)| runtime().block_on(object(*attempts, *lines))).collect()
}

async fn object(attempts: usize, lines: usize) -> Vec<u8> {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "");
    let settings = SegmentSettings { level: 1, frame_size: 2_000, parallelism: 1, filters: true };
    let mut writer = SegmentWriter::new(store.upload(&key()), header(), settings).expect("a writer");
    for number in 0..attempts {
        writer.begin(meta(number as i64, &format!("run-{number}")), 3).expect("begin");
        let messages: Vec<String> = (0..lines).map(|n| format!("line {n}")).collect();
        let records: Vec<_> = messages.iter().zip(1..).map(|(text, n)| record(n * 1_000, text)).collect();
        if lines > 0 {
            let (block, extent) = chunk(&records);
            writer.push_block(&block, extent).await.expect("lines");
        }
        writer.end().expect("end");
    }
    let written = writer.finish().await.expect("written");
    store.get_range(&key(), 0..written.byte_length).await.expect("read back").to_vec()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Reads an object in every way that there is; the answer of each.
async fn read(object: &[u8]) -> String {
    let store = Store::from_object_store(Arc::new(InMemory::new()), "");
    store.put(&key(), object.to_vec().into()).await.expect("put");
    let replayed = replay(&store, object).await;
    let indexed = index(&store, object.len() as u64).await;
    format!("{replayed:?} {indexed:?}")
}

async fn replay(store: &Store, object: &[u8]) -> Result<()> {
    let hash = *blake3::hash(object).as_bytes();
    let mut replay = Replay::open(store, &key(), object.len() as u64, hash).await?;
    while replay.next().await?.is_some() {}
    Ok(())
}

async fn index(store: &Store, byte_length: u64) -> Result<()> {
    let key = key();
    let index = Index::open(store, &key, byte_length).await?;
    let mut entries = index.entries(store).await?;
    while let Some(block) = entries.next_block().await? {
        for entry in block.iter().take(3) {
            let place = index.place(entry)?;
            let attempt = &entry.attempt.identity.key;
            let part = Part { key: &key, byte_length, place: &place, attempt };
            let mut lines = PartReader::open(store, part, &Asked::all(entry.lines())).await?;
            while lines.next().await?.is_some() {}
        }
    }
    Ok(())
}

/// Makes the checksums of footer and directory right again, so that what they protect is tried too.
fn reseal(object: &mut [u8]) -> Option<()> {
    let footer: [u8; SEEK_FOOTER_BYTES] =
        object.get(object.len().checked_sub(SEEK_FOOTER_BYTES)?..)?.try_into().ok()?;
    let seek_len = usize::try_from(seek_table::frame_len(&footer).ok()?).ok()?;
    let end = object.len().checked_sub(seek_len)?;
    let at = end.checked_sub(FOOTER_BYTES)?;
    let directory_len = u32::from_le_bytes(object[at + 12..at + 16].try_into().ok()?) as usize;
    let hash = xxh3_64(&object[at.checked_sub(directory_len)?..at]);
    object[at + 32..at + 40].copy_from_slice(&hash.to_le_bytes());
    let hash = xxh3_64(&object[at..at + 40]);
    object[at + 40..end].copy_from_slice(&hash.to_le_bytes());
    Some(())
}

#[test]
fn fuzz_segment() {
    let runtime = runtime();
    fuzz("segment", objects(), |object| runtime.block_on(read(object)));
}

#[test]
fn fuzz_index() {
    let runtime = runtime();
    fuzz("index", objects(), |object| {
        let mut object = object.to_vec();
        let sealed = reseal(&mut object).is_some();
        format!("{sealed} {}", runtime.block_on(read(&object)))
    });
}

#[test]
fn fuzz_index_pieces() {
    let app: App = header().app;
    let extent = Extent { lines: 5, ts: None, levels: crate::model::LevelSet::UNKNOWN };
    let directory = Directory {
        header: header(),
        created_by: "test".to_owned(),
        totals: Totals { attempts: 3, frames: 2, raw_bytes: 9, data_bytes: 8, extent },
        attempt_blocks: vec![AttemptBlock { compressed_len: 70, entries: 3, extent }],
        frame_blocks: vec![300],
    };
    let footer = Footer { attempt_blocks_len: 1, frame_blocks_len: 2, directory_len: 3, directory_hash: 4 };
    let corpus = vec![directory.encode(), footer.encode().to_vec(), vec![0; 64], vec![1; 300]];
    fuzz("index pieces", corpus, |bytes| {
        let count = usize::from(bytes.first().copied().unwrap_or(0));
        let footer = bytes.first_chunk::<FOOTER_BYTES>().map(Footer::decode);
        let directory = Directory::decode(bytes).map(drop);
        let entries = entry::decode(bytes, count, 0, &app).map(drop);
        let frames = frames::decode(bytes, count).map(drop);
        let map = FrameMap::decode(bytes).is_some();
        format!("{:?} {directory:?} {entries:?} {frames:?} {map}", footer.map(|footer| footer.map(drop)))
    });
}

#[test]
fn fuzz_seek_table() {
    let table = |object: Vec<u8>| {
        let footer: [u8; SEEK_FOOTER_BYTES] = *object.last_chunk().expect("a footer");
        let len = seek_table::frame_len(&footer).expect("a table") as usize;
        object[object.len() - len..].to_vec()
    };
    fuzz("seek table", objects().into_iter().map(table).collect(), |frame| {
        let len = frame.last_chunk::<SEEK_FOOTER_BYTES>().map(seek_table::frame_len);
        format!("{len:?} {:?}", seek_table::decode(frame).map(Iterator::count))
    });
}

#[test]
fn bombs_do_not_burst() {
    let frame = |bytes: usize| {
        let mut compressor = zframe::compressor(3).expect("a compressor");
        compressor.compress(&vec![b'\n'; bytes]).expect("compressed")
    };
    let bomb = frame(MAX_FRAME_BYTES + 1);
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    assert!(zframe::decompress(&bomb, MAX_FRAME_BYTES).is_err());
    // A frame that claims little and holds much.
    let honest = frame(100_000);
    assert!(zframe::decompress(&honest, 99_999).is_err());
    assert_eq!(zframe::decompress(&honest, 100_000).map(|content| content.len()), Ok(100_000));
}
