//! Chunk rows: insert, scan, delete.

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
    let rows = query.fetch_all(home.db.pool()).await?;
    rows.iter()
        .map(|row| {
            let number = |name: &str| row.try_get::<i64, _>(name);
            let first_line = number("first_line")?.unsigned_abs();
            Ok(ChunkHeader {
                lines: LineRange::new(first_line, first_line + number("line_count")?.unsigned_abs()),
                raw_len: number("raw_len")?.unsigned_abs(),
                hash: number("hash")?,
            })
        })
        .collect()
}

/// Which lines the chunks of these attempts hold, in the order of attempt and line, from `line` of the
/// first on, at most `limit`. For audits.
pub async fn spans(home: &Home, ids: &[AttemptId], line: u64, limit: u32) -> Result<Vec<(AttemptId, LineRange)>> {
    let Some((first, others)) = ids.split_first() else { return Ok(Vec::new()) };
    // Few different statements are prepared; an id below all others stands for "none".
    let mut others = others.to_vec();
    others.resize(others.len().next_power_of_two(), others.last().copied().unwrap_or(AttemptId::stored(i64::MIN)));
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

/// The first line of the chunk with `chunks` chunks before it; `None` where there are no more.
pub async fn oldest_line_after(
    tx: &mut Connection,
    shard: Shard,
    attempt: AttemptId,
    chunks: u32,
) -> Result<Option<u64>> {
    let query = sqlx::query_scalar(AssertSqlSafe(sql::nth_line(shard))).bind(attempt.get()).bind(i64::from(chunks));
    let line: Option<i64> = query.fetch_optional(tx).await?;
    Ok(line.map(i64::unsigned_abs))
}

/// Deletes the chunks that begin below `line`; answers how many.
pub async fn delete_below(tx: &mut Connection, shard: Shard, attempt: AttemptId, line: u64) -> Result<u64> {
    let query = sqlx::query(AssertSqlSafe(sql::delete_below(shard)));
    let line = i64::try_from(line).unwrap_or(i64::MAX);
    Ok(query.bind(attempt.get()).bind(line).execute(tx).await?.rows_affected())
}
