//! What the parts can do by themselves: the limits that the daemon is compared with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::Value;

use super::sql;
use crate::clock::Clock;
use crate::cold::segment::Index;
use crate::cold::{Key, KeyKind, Store};
use crate::db::{Db, Shard};
use crate::hot::{self, Chunk};
use crate::ingest::{self, Defaults};
use crate::model::{App, AttemptId};

/// Enough rows for a rate; one row a line is slow.
const LINES_ONE_BY_ONE: usize = 20_000;

/// Chunks of one request, each with its attempt and first line.
type Rows = Arc<Vec<(AttemptId, u64, Chunk)>>;

/// Seconds to insert the chunks of the requests with one connection and a commit each.
pub(super) async fn chunk_loop(db: &Arc<Db>, bodies: &[Vec<Bytes>], app: &App, clock: &Clock) -> anyhow::Result<f64> {
    let (requests, attempts) = encoded(bodies, app)?;
    let shard = db.shards()[0];
    let started = clock.instant();
    for rows in requests {
        insert(db, shard, rows).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    for attempt in 1..=attempts {
        delete(db, shard, AttemptId::stored(attempt)).await?;
    }
    Ok(seconds)
}

async fn insert(db: &Arc<Db>, shard: Shard, rows: Rows) -> Result<(), crate::db::Error> {
    db.run_tx("bench_chunks", move |tx| {
        let rows = Arc::clone(&rows);
        Box::pin(async move {
            let rows: Vec<_> = rows.iter().map(|(attempt, first_line, chunk)| (*attempt, *first_line, chunk)).collect();
            hot::insert(tx, shard, &rows).await
        })
    })
    .await
}

async fn delete(db: &Arc<Db>, shard: Shard, attempt: AttemptId) -> Result<u64, crate::db::Error> {
    db.run_tx("bench_chunks", move |tx| Box::pin(hot::delete_below(tx, shard, attempt, u64::MAX))).await
}

/// The chunks of each request, the clients' requests in turn, and how many attempts they are of.
fn encoded(bodies: &[Vec<Bytes>], app: &App) -> anyhow::Result<(Vec<Rows>, i64)> {
    let defaults = Defaults { app: app.clone(), max_record_bytes: 1 << 20, ..Defaults::default() };
    // Numbered from 1: real ids carry the time and are far above.
    let mut next_lines = HashMap::<String, (i64, u64)>::new();
    let turns = bodies.iter().map(Vec::len).max().unwrap_or(0);
    let mut requests = Vec::new();
    for body in (0..turns).flat_map(|turn| bodies.iter().filter_map(move |of_client| of_client.get(turn))) {
        let mut rows = Vec::new();
        for batch in ingest::decode_bulk(body, &defaults).batches {
            let number = next_lines.len() as i64 + 1;
            let (attempt, next_line) = next_lines.entry(batch.key.instance.to_string()).or_insert((number, 0));
            for chunk in hot::encode([&batch.lines])? {
                let first_line = *next_line;
                *next_line += u64::from(chunk.line_count);
                rows.push((AttemptId::stored(*attempt), first_line, chunk));
            }
        }
        rows.sort_by_key(|(attempt, first_line, _)| (*attempt, *first_line));
        requests.push(Arc::new(rows));
    }
    let attempts = next_lines.len() as i64;
    Ok((requests, attempts))
}

/// Lines a second where each is a row, committed as often as the requests are.
pub(super) async fn row_loop(db: &Arc<Db>, bodies: &[Vec<Bytes>], clock: &Clock) -> anyhow::Result<f64> {
    sql::drop_lines(db).await?;
    sql::create_lines(db).await?;
    let (mut lines, mut seconds) = (0, 0.0);
    for body in bodies.iter().flatten() {
        let rows: Vec<(String, String)> = std::str::from_utf8(body)?
            .lines()
            .map(|line| {
                let record: Value = serde_json::from_str(line).unwrap_or_default();
                (record["instance"].as_str().unwrap_or_default().to_owned(), line.to_owned())
            })
            .collect();
        lines += rows.len();
        let started = clock.instant();
        sql::insert_lines(db, Arc::new(rows)).await?;
        seconds += started.elapsed().as_secs_f64();
        if lines >= LINES_ONE_BY_ONE {
            break;
        }
    }
    sql::drop_lines(db).await?;
    Ok(lines as f64 / seconds)
}

/// One compressed frame of an object.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) raw_len: usize,
}

/// One object of the cold tier, in memory.
pub(super) struct Object {
    pub(super) byte_length: u64,
    pub(super) frames: Vec<Frame>,
}

/// All objects of an app.
pub(super) async fn objects_of(store: &Store, app: &App) -> anyhow::Result<Vec<Object>> {
    let mut objects = Vec::new();
    let mut listed = store.list(Key::v1_folder());
    while let Some(found) = listed.try_next().await? {
        let key = found.key.clone();
        if !matches!(key.kind(), KeyKind::Segment { .. }) {
            continue;
        }
        let index = Index::open(store, &key, found.byte_length).await?;
        if index.header().app != *app {
            continue;
        }
        let bytes = store.get_range(&key, 0..found.byte_length).await?;
        let mut start = 0;
        let frames = index.frames().iter().map(|frame| {
            let end = start + frame.compressed_len as usize;
            let frame = Frame { bytes: bytes.slice(start..end), raw_len: frame.raw_len as usize };
            start = end;
            frame
        });
        objects.push(Object { byte_length: found.byte_length, frames: frames.collect() });
    }
    Ok(objects)
}

pub(super) fn decompress(frame: &Frame) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(&frame.bytes, frame.raw_len)
}

/// Seconds to do `work` for every item on as many threads as there are processors.
pub(super) fn on_all_cores<T: Sync>(items: &[T], clock: &Clock, work: impl Fn(&T) + Sync) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let started = clock.instant();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
    started.elapsed().as_secs_f64()
}
