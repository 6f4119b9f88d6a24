//! The rows that a rebuild reads and writes.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;
use ulid::Ulid;

use super::rebuild::{FoundEntry, FoundSegment, KnownPart};
use super::{Attempt, SegmentId, bytes, column, count, in_powers_of_two, sql_publish, sql_rebuild};
use crate::db::{Connection, Error, Home, Result};
use crate::model::{AttemptId, LineRange, Millis, Outcome, Timestamp};

/// When the sweeper looks at the object: long after the rebuild is over.
const LOOK_AFTER: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

pub(super) async fn known_parts(
    tx: &mut Connection,
    home: &Home,
    ids: &[AttemptId],
) -> Result<HashMap<AttemptId, Vec<KnownPart>>> {
    let mut parts: HashMap<AttemptId, Vec<KnownPart>> = HashMap::new();
    for some in in_powers_of_two(ids) {
        let mut query = sqlx::query(AssertSqlSafe(sql_rebuild::known_parts(home.shard, some.len())));
        for id in some {
            query = query.bind(id.get());
        }
        for row in query.fetch_all(&mut *tx).await? {
            let first = count(&row, "first_line")?;
            let has_segment = column::<Option<Vec<u8>>>(&row, "s_ulid")?.is_some();
            let part = KnownPart {
                lines: LineRange::new(first, first + count(&row, "line_count")?),
                segment: column(&row, "segment_id")?,
                ulid: if has_segment { Some(Ulid::from_bytes(bytes(&row, "s_ulid")?)) } else { None },
            };
            parts.entry(AttemptId::stored(column(&row, "attempt_id")?)).or_default().push(part);
        }
    }
    Ok(parts)
}

/// Makes the object live where it is not; a doomed one never comes back.
pub(super) async fn make_known(tx: &mut Connection, segment: &FoundSegment, now: Millis) -> Result<()> {
    let id = SegmentId::of(segment.ulid).get();
    let state: Option<i32> = sqlx::query_scalar(sql_rebuild::segment_state()).bind(id).fetch_optional(&mut *tx).await?;
    let due_at = now.after(LOOK_AFTER).get();
    let write = match state {
        Some(1) => return Ok(()),
        Some(0) => sqlx::query(sql_publish::make_live())
            .bind(segment.byte_length as i64)
            .bind(None::<Vec<u8>>)
            .bind(segment.index_offset as i64)
            .bind(segment.frames_offset as i64)
            .bind(segment.entries as i64)
            .bind(segment.lines as i64)
            .bind(due_at)
            .bind(id),
        Some(_) => return Err(Error::Row(format!("segment {id} is doomed"))),
        None => sqlx::query(sql_rebuild::insert_segment())
            .bind(id)
            .bind(segment.ulid.to_bytes().to_vec())
            .bind(segment.app_id)
            .bind(segment.rule_id)
            .bind(segment.finish_day as i32)
            .bind(segment.byte_length as i64)
            .bind(segment.index_offset as i64)
            .bind(segment.frames_offset as i64)
            .bind(segment.created_at.get())
            .bind(segment.entries as i64)
            .bind(segment.lines as i64)
            .bind(due_at),
    };
    write.execute(tx).await?;
    Ok(())
}

pub(super) async fn insert_parts(
    tx: &mut Connection,
    home: &Home,
    segment: &FoundSegment,
    entries: &[&FoundEntry],
) -> Result<()> {
    for some in in_powers_of_two(entries) {
        let mut insert = sqlx::query(AssertSqlSafe(sql_publish::insert_parts(home.shard, some.len())));
        for entry in some {
            insert = insert.bind(entry.id.get()).bind(entry.lines.start() as i64).bind(entry.lines.len() as i64);
            insert = insert.bind(SegmentId::of(segment.ulid).get()).bind(entry.byte_offset as i64);
            insert = insert.bind(entry.byte_length as i64).bind(entry.skip as i32);
            insert = insert.bind(entry.ts_range.map(|(first, _)| first.nanos()));
            insert = insert.bind(entry.ts_range.map(|(_, last)| last.nanos()));
            insert = insert.bind(entry.levels.bits() as i32).bind(entry.frames.clone());
        }
        insert.execute(&mut *tx).await?;
    }
    Ok(())
}

fn labels_of(row: &Attempt) -> Vec<u8> {
    if row.labels.is_empty() { Vec::new() } else { row.labels.to_json().into_bytes() }
}

/// The 27 values of a row of [`sql_rebuild::insert_attempts`].
pub(super) fn bind_new<'q>(query: super::Query<'q>, row: &Attempt) -> super::Query<'q> {
    let query = query.bind(row.id.get()).bind(row.app_id).bind(row.instance.as_bytes().to_vec());
    let query = query.bind(row.attempt.get() as i32).bind(row.job_id).bind(labels_of(row));
    let query = query.bind(row.state.code() as i32).bind(Outcome::code(row.outcome) as i32).bind(0);
    let query = query.bind(row.meta_version as i32).bind(row.archived_meta as i32).bind(row.next_line as i64);
    let query = query.bind(row.archived_line as i64).bind(row.purged_line as i64).bind(row.trimmed_line as i64);
    let query = query.bind(row.raw_bytes as i64).bind(row.archived_bytes as i64);
    let query = query.bind(row.first_ts.map(Timestamp::nanos)).bind(row.last_ts.map(Timestamp::nanos));
    let query = query.bind(row.levels.bits() as i32).bind(row.created_at.get()).bind(row.written_at.get());
    let query = query.bind(row.finished_at.map(Millis::get)).bind(row.published_at.map(Millis::get));
    query.bind(row.expires_at.map(Millis::get)).bind(row.rule_id).bind(row.due_at.get())
}

pub(super) fn bind_changed<'q>(query: super::Query<'q>, row: &Attempt) -> super::Query<'q> {
    let query = query.bind(row.job_id).bind(labels_of(row)).bind(row.state.code() as i32);
    let query = query.bind(Outcome::code(row.outcome) as i32).bind(row.meta_version as i32);
    let query = query.bind(row.archived_meta as i32).bind(row.next_line as i64).bind(row.archived_line as i64);
    let query = query.bind(row.purged_line as i64).bind(row.trimmed_line as i64);
    let query = query.bind(row.raw_bytes as i64).bind(row.archived_bytes as i64);
    let query = query.bind(row.first_ts.map(Timestamp::nanos)).bind(row.last_ts.map(Timestamp::nanos));
    let query = query.bind(row.levels.bits() as i32).bind(row.written_at.get());
    let query = query.bind(row.finished_at.map(Millis::get)).bind(row.published_at.map(Millis::get));
    query.bind(row.expires_at.map(Millis::get)).bind(row.rule_id).bind(row.due_at.get()).bind(row.id.get())
}
