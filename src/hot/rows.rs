//! Chunk rows: insert, scan, delete.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::chunk::{self, Chunk, CorruptChunk, StoredChunk};
use super::sql;
use crate::db::{Connection, Error, Home, Result, Shard};
use crate::model::{AttemptId, LevelSet, LineRange, Timestamp};

/// Payload bytes of one INSERT at most: a quarter of the smallest `max_allowed_packet` that a
/// server has by default (16 MiB in MariaDB).
const MAX_INSERT_BYTES: usize = 4 * 1024 * 1024;

const MAX_INSERT_ROWS: usize = 64;

/// Inserts chunks, each at its own first line of its own attempt, in ascending order.
pub async fn insert(tx: &mut Connection, shard: Shard, mut rows: &[(AttemptId, u64, &Chunk)]) -> Result<()> {
    while !rows.is_empty() {
        let (some, rest) = rows.split_at(rows_of_one_insert(rows));
        let mut query = sqlx::query(AssertSqlSafe(sql::insert_chunks(shard, some.len())));
        for (attempt, first_line, chunk) in some {
            query = query.bind(attempt.get()).bind(*first_line as i64).bind(chunk.line_count as i32);
            query = query.bind(chunk.first_ts.nanos()).bind(chunk.last_ts.nanos()).bind(chunk.levels.bits() as i32);
            query = query.bind(chunk.codec).bind(chunk.raw_len as i32).bind(chunk.hash).bind(chunk.data.as_slice());
        }
        query.execute(&mut *tx).await?;
        rows = rest;
    }
    Ok(())
}

/// A power of two, so that few different statements are prepared.
fn rows_of_one_insert(rows: &[(AttemptId, u64, &Chunk)]) -> usize {
    let mut bytes = 0;
    let fitting = rows
        .iter()
        .take(MAX_INSERT_ROWS)
        .take_while(|(_, _, chunk)| {
            bytes += chunk.data.len();
            bytes <= MAX_INSERT_BYTES
        })
        .count()
        .max(1);
    debug_assert!(fitting * sql::INSERT_COLUMNS <= 32_766);
    1 << fitting.ilog2()
}

/// The chunks that hold `lines` of an attempt, decoded, at most `limit`.
///
/// The first may begin before the range and the last end behind it. Chunks that are missing are
/// not noticed here: the reader compares line numbers. A chunk that cannot be read ends the list, and
/// is an error where it is the first: the lines before it can be had.
pub async fn scan(home: &Home, attempt: AttemptId, lines: LineRange, limit: u32) -> Result<Vec<StoredChunk>> {
    let query = sqlx::query(AssertSqlSafe(sql::scan(home.shard)))
        .bind(attempt.get())
        .bind(attempt.get())
        .bind(lines.start() as i64)
        .bind(lines.end() as i64)
        .bind(i64::from(limit));
    let rows = query.fetch_all(home.db.pool()).await?;
    let mut chunks = Vec::with_capacity(rows.len());
    for row in &rows {
        match decode_row(attempt, row) {
            // Below the range when the line asked for is missing.
            Ok(chunk) if chunk.lines.intersect(lines).is_empty() => {}
            Ok(chunk) => chunks.push(chunk),
            Err(_) if !chunks.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(chunks)
}

/// The chunks of several attempts, decoded, each's in order; at most `limit` in all, so that some may
/// lack what comes last. A chunk that cannot be read ends the list of its attempt.
pub async fn scan_several(
    home: &Home,
    attempts: &[AttemptId],
    limit: u32,
) -> Result<HashMap<AttemptId, Vec<StoredChunk>>> {
    decode_several(several(home, attempts, sql::scan_several, limit).await?)
}

/// The same of each from a line on, at which a chunk begins.
pub async fn scan_each_from(
    home: &Home,
    places: &[(AttemptId, u64)],
    limit: u32,
) -> Result<HashMap<AttemptId, Vec<StoredChunk>>> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let places = in_power_of_two(places);
    let mut query = sqlx::query(AssertSqlSafe(sql::scan_each_from(home.shard, places.len())));
    for (id, line) in &places {
        query = query.bind(id.get()).bind(*line as i64);
    }
    decode_several(query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?)
}

fn decode_several(rows: Vec<AnyRow>) -> Result<HashMap<AttemptId, Vec<StoredChunk>>> {
    let mut found: HashMap<AttemptId, Vec<StoredChunk>> = HashMap::new();
    let mut unreadable = None;
    for row in rows {
        let id = AttemptId::stored(row.try_get("attempt_id")?);
        if unreadable == Some(id) {
            continue;
        }
        match decode_row(id, &row) {
            Ok(chunk) => found.entry(id).or_default().push(chunk),
            Err(_) => unreadable = Some(id),
        }
    }
    Ok(found)
}

/// Rows of several attempts.
async fn several(
    home: &Home,
    attempts: &[AttemptId],
    statement: fn(Shard, usize) -> String,
    limit: u32,
) -> Result<Vec<AnyRow>> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let ids = in_power_of_two(attempts);
    let mut query = sqlx::query(AssertSqlSafe(statement(home.shard, ids.len())));
    for id in &ids {
        query = query.bind(id.get());
    }
    Ok(query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?)
}

fn decode_row(attempt: AttemptId, row: &AnyRow) -> Result<StoredChunk> {
    let number = |name: &str| row.try_get::<i64, _>(name);
    let first_line = number("first_line")?.unsigned_abs();
    let line_count = number("line_count")?.unsigned_abs();
    let raw_len = number("raw_len")?.unsigned_abs() as usize;
    let data: &[u8] = row.try_get("data")?;
    let records = chunk::decode(row.try_get("codec")?, data, raw_len, number("hash")?, line_count)
        .map_err(|what| CorruptChunk { attempt_id: attempt.get(), first_line, what })
        .map_err(|e| Error::Row(e.to_string()))?;
    Ok(StoredChunk {
        lines: LineRange::new(first_line, first_line + line_count),
        first_ts: Timestamp::from_nanos(number("first_ts")?),
        last_ts: Timestamp::from_nanos(number("last_ts")?),
        levels: LevelSet::stored(number("levels")?),
        records,
    })
}

/// What a chunk's row says of its records, by which a reader skips it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    pub lines: LineRange,
    pub first_ts: Timestamp,
    pub last_ts: Timestamp,
    pub levels: LevelSet,
}

/// Outlines of the chunks that hold `lines` of an attempt, at most `limit`: from the first on, or
/// `backwards` from the last. As with [`scan`], the reader notices what is missing.
pub async fn outline(
    home: &Home,
    attempt: AttemptId,
    lines: LineRange,
    backwards: bool,
    limit: u32,
) -> Result<Vec<Outline>> {
    let end = i64::try_from(lines.end()).unwrap_or(i64::MAX);
    let query = if backwards {
        sqlx::query(AssertSqlSafe(sql::outline_backwards(home.shard))).bind(attempt.get()).bind(end)
    } else {
        let query = sqlx::query(AssertSqlSafe(sql::outline(home.shard))).bind(attempt.get()).bind(attempt.get());
        query.bind(lines.start() as i64).bind(end)
    };
    let rows = query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
    let outlines = rows.iter().map(|row| {
        let number = |name: &str| row.try_get::<i64, _>(name);
        let first_line = number("first_line")?.unsigned_abs();
        Ok(Outline {
            lines: LineRange::new(first_line, first_line + number("line_count")?.unsigned_abs()),
            first_ts: Timestamp::from_nanos(number("first_ts")?),
            last_ts: Timestamp::from_nanos(number("last_ts")?),
            levels: LevelSet::stored(number("levels")?),
        })
    });
    outlines.filter(|outline| outline.as_ref().map_or(true, |o| !o.lines.intersect(lines).is_empty())).collect()
}

/// A chunk's row without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    pub lines: LineRange,
    pub raw_len: u64,
    pub hash: i64,
}

/// The rows of chunks that begin in `lines`, without their payload, at most `limit`.
pub async fn headers(home: &Home, attempt: AttemptId, lines: LineRange, limit: u32) -> Result<Vec<ChunkHeader>> {
    let query = sqlx::query(AssertSqlSafe(sql::headers(home.shard)))
        .bind(attempt.get())
        .bind(lines.start() as i64)
        .bind(lines.end() as i64)
        .bind(i64::from(limit));
    query.fetch_all(home.db.pool()).await?.iter().map(header_of).collect()
}

/// The same of several attempts, all their chunks; at most `limit` in all, so that some may lack what
/// comes last.
pub async fn headers_of_several(
    home: &Home,
    attempts: &[AttemptId],
    limit: u32,
) -> Result<HashMap<AttemptId, Vec<ChunkHeader>>> {
    let mut found: HashMap<AttemptId, Vec<ChunkHeader>> = HashMap::new();
    for row in several(home, attempts, sql::headers_of_several, limit).await? {
        found.entry(AttemptId::stored(row.try_get("attempt_id")?)).or_default().push(header_of(&row)?);
    }
    Ok(found)
}

fn header_of(row: &AnyRow) -> Result<ChunkHeader> {
    let number = |name: &str| row.try_get::<i64, _>(name);
    let first_line = number("first_line")?.unsigned_abs();
    Ok(ChunkHeader {
        lines: LineRange::new(first_line, first_line + number("line_count")?.unsigned_abs()),
        raw_len: number("raw_len")?.unsigned_abs(),
        hash: number("hash")?,
    })
}

/// Which lines the chunks of these attempts hold, in the order of attempt and line, from `line` of the
/// first on, at most `limit`. For audits.
pub async fn spans(home: &Home, ids: &[AttemptId], line: u64, limit: u32) -> Result<Vec<(AttemptId, LineRange)>> {
    let Some((first, others)) = ids.split_first() else { return Ok(Vec::new()) };
    // An id below all others stands for "none".
    let others = if others.is_empty() { vec![AttemptId::stored(i64::MIN)] } else { in_power_of_two(others) };
    let query = sqlx::query(AssertSqlSafe(sql::spans(home.shard, others.len())));
    let mut query = query.bind(first.get()).bind(line as i64);
    for id in &others {
        query = query.bind(id.get());
    }
    let rows = query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
    rows.iter()
        .map(|row| {
            let number = |name: &str| row.try_get::<i64, _>(name);
            let first_line = number("first_line")?.unsigned_abs();
            let lines = LineRange::new(first_line, first_line + number("line_count")?.unsigned_abs());
            Ok((AttemptId::stored(number("attempt_id")?), lines))
        })
        .collect()
}

/// Where the chunks of several attempts begin, in the order of attempt and line, at most `limit`.
pub async fn first_lines(
    tx: &mut Connection,
    shard: Shard,
    attempts: &[AttemptId],
    limit: u32,
) -> Result<Vec<(AttemptId, u64)>> {
    let ids = in_power_of_two(attempts);
    let mut query = sqlx::query_as(AssertSqlSafe(sql::first_lines(shard, ids.len())));
    for id in &ids {
        query = query.bind(id.get());
    }
    let rows: Vec<(i64, i64)> = query.bind(i64::from(limit)).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(id, line)| (AttemptId::stored(id), line.unsigned_abs())).collect())
}

/// Deletes the chunks that begin below `line`; answers how many.
pub async fn delete_below(tx: &mut Connection, shard: Shard, attempt: AttemptId, line: u64) -> Result<u64> {
    let query = sqlx::query(AssertSqlSafe(sql::delete_below(shard)));
    let line = i64::try_from(line).unwrap_or(i64::MAX);
    Ok(query.bind(attempt.get()).bind(line).execute(tx).await?.rows_affected())
}

/// The same for several attempts that have few chunks from their line on; answers how many went.
pub async fn delete_several_below(tx: &mut Connection, shard: Shard, below: &[(AttemptId, u64)]) -> Result<u64> {
    let below = in_power_of_two(below);
    let mut query = sqlx::query(AssertSqlSafe(sql::delete_several_below(shard, below.len())));
    for (id, _) in &below {
        query = query.bind(id.get());
    }
    for (id, line) in &below {
        query = query.bind(id.get()).bind(i64::try_from(*line).unwrap_or(i64::MAX));
    }
    Ok(query.execute(tx).await?.rows_affected())
}

/// The items, the last of them repeated up to a power of two, so that few different statements are
/// prepared. Not for none.
fn in_power_of_two<T: Copy>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    if let Some(last) = items.last().copied() {
        items.resize(items.len().next_power_of_two(), last);
    }
    items
}
