//! What audits read: folders of objects, what stands in an object, which lines the parts cover.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{Attempt, Catalog, Segment, SegmentId, column, count, sql, sql_audit};
use crate::db::{Db, Error, Home, Result};
use crate::model::{AttemptId, LineRange};

/// A row of the segment table with what only audits need.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedSegment {
    pub segment: Segment,
    /// Of the whole object; `None` while it is uploaded, and after a rebuild.
    pub hash: Option<[u8; 32]>,
    /// Parts that were published, and those of them that are gone.
    pub entries: u64,
    pub dead_entries: u64,
}

impl AuditedSegment {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self> {
        let hash: Option<Vec<u8>> = column(row, "s_hash")?;
        let hash = hash.map(|bytes| bytes.try_into().map_err(|_| Error::Row("a segment's hash".to_owned())));
        Ok(Self {
            segment: Segment::from_row(row)?,
            hash: hash.transpose()?,
            entries: count(row, "s_entries")?,
            dead_entries: count(row, "s_dead_entries")?,
        })
    }

    /// Whether some attempt needs the object.
    pub fn is_needed(&self) -> bool {
        self.segment.state == super::SegmentState::Live && self.dead_entries < self.entries
    }
}

/// A part as its object must hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSpot {
    pub id: AttemptId,
    pub lines: LineRange,
    pub byte_offset: u64,
    pub byte_length: u64,
    pub skip: u32,
}

/// The lines of one part or chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub id: AttemptId,
    pub lines: LineRange,
    /// Whether its object is live; true for chunks.
    pub is_live: bool,
}

/// A folder of one app on one server, by finish day and rule.
pub type FolderPlace = (i64, i32);

impl Catalog {
    /// How many live objects there are from a day on, and their bytes; counted up to `limit`.
    pub async fn audited_total(&self, db: &Db, app_id: Option<i32>, since_day: i64, limit: u32) -> Result<(u64, u64)> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::audited_total(db.engine(), app_id.is_some())));
        let query = match app_id {
            Some(app_id) => query.bind(app_id),
            None => query,
        };
        let row = query.bind(since_day).bind(i64::from(limit)).fetch_one(db.pool()).await?;
        Ok((count(&row, "segments")?, count(&row, "segment_bytes")?))
    }

    /// The first folder of an app behind `after`, in the order of day and rule.
    pub async fn next_folder(&self, db: &Db, app_id: i32, after: FolderPlace) -> Result<Option<FolderPlace>> {
        let (day, rule_id) = after;
        let next = sqlx::query(sql_audit::next_rule()).bind(app_id).bind(day).bind(rule_id);
        let row = match next.fetch_optional(db.pool()).await? {
            Some(row) => Some(row),
            None => sqlx::query(sql_audit::next_day()).bind(app_id).bind(day).fetch_optional(db.pool()).await?,
        };
        row.map(|row| Ok((i64::from(column::<i32>(&row, "finish_day")?), column(&row, "rule_id")?))).transpose()
    }

    /// The objects of a folder in the order of their names, after `after`, at most `limit`.
    pub async fn folder_segments(
        &self,
        db: &Db,
        app_id: i32,
        (day, rule_id): FolderPlace,
        after: Option<SegmentId>,
        limit: u32,
    ) -> Result<Vec<AuditedSegment>> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::folder_segments(db.engine()))).bind(app_id).bind(day);
        let query = query.bind(rule_id).bind(after.map_or(i64::MIN, SegmentId::get)).bind(i64::from(limit));
        query.fetch_all(db.pool()).await?.iter().map(AuditedSegment::from_row).collect()
    }

    pub async fn audited_segment(&self, db: &Db, id: SegmentId) -> Result<Option<AuditedSegment>> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::segment_by_id())).bind(id.get());
        query.fetch_optional(db.pool()).await?.as_ref().map(AuditedSegment::from_row).transpose()
    }

    /// The parts that stand in an object, of one shard, in no order: at most as many as an object may
    /// hold attempts.
    pub async fn part_spots(&self, home: &Home, id: SegmentId) -> Result<Vec<PartSpot>> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::part_spots(home.shard))).bind(id.get());
        let rows = query.fetch_all(home.db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(PartSpot {
                    id: AttemptId::stored(column(row, "attempt_id")?),
                    lines: span_of(row, "first_line", "line_count")?,
                    byte_offset: count(row, "byte_offset")?,
                    byte_length: count(row, "byte_length")?,
                    skip: column::<i32>(row, "skip")?.unsigned_abs(),
                })
            })
            .collect()
    }

    /// Some of the attempts of one shard that have parts in an object.
    pub async fn attempts_in(&self, home: &Home, id: SegmentId, limit: u32) -> Result<Vec<Attempt>> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::attempts_in(home.shard))).bind(id.get());
        let rows = query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
        rows.iter().map(Attempt::from_row).collect()
    }

    /// Attempts of one shard, of one app or all, newest first, before `before`.
    pub async fn attempts_before(
        &self,
        home: &Home,
        app_id: Option<i32>,
        before: AttemptId,
        limit: u32,
    ) -> Result<Vec<Attempt>> {
        let statement = sql::list_attempts(home.db.engine(), home.shard, app_id.is_some(), false);
        let query = sqlx::query(AssertSqlSafe(statement));
        let query = match app_id {
            Some(app_id) => query.bind(app_id),
            None => query,
        };
        let rows = query.bind(before.get()).bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
        rows.iter().map(Attempt::from_row).collect()
    }

    /// Which lines the parts of these attempts cover, in the order of attempt and line, from `line` of
    /// the first on, at most `limit`.
    pub async fn part_spans(&self, home: &Home, ids: &[AttemptId], line: u64, limit: u32) -> Result<Vec<Span>> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let others = padded(ids);
        let query = sqlx::query(AssertSqlSafe(sql_audit::part_spans(home.shard, others.len())));
        let mut query = query.bind(first.get()).bind(line as i64);
        for id in &others {
            query = query.bind(id.get());
        }
        let rows = query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(Span {
                    id: AttemptId::stored(column(row, "p_attempt_id")?),
                    lines: span_of(row, "p_first_line", "p_line_count")?,
                    is_live: column::<Option<i32>>(row, "s_state")? == Some(super::SegmentState::Live as i32),
                })
            })
            .collect()
    }
}

/// All but the first, repeated up to a power of two, so that few different statements are prepared.
/// An id below all others stands for "none".
fn padded(ids: &[AttemptId]) -> Vec<AttemptId> {
    let mut others = ids[1..].to_vec();
    others.resize(others.len().next_power_of_two(), others.last().copied().unwrap_or(AttemptId::stored(i64::MIN)));
    others
}

fn span_of(row: &AnyRow, first: &str, lines: &str) -> Result<LineRange> {
    let first = count(row, first)?;
    Ok(LineRange::new(first, first.saturating_add(count(row, lines)?)))
}
