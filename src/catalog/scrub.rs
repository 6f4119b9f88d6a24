//! What the scrub reads next, and what it has found.

use sqlx::AssertSqlSafe;

use super::{AuditedSegment, Catalog, SegmentId, column, count, sql_audit, text};
use crate::db::{Db, Result};
use crate::model::Millis;

/// An object that was found missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingRow {
    pub segment: SegmentId,
    pub kind: String,
    /// The object's key.
    pub name: String,
    pub what: String,
    /// Attempts that have lines in it.
    pub hit: u64,
    pub found_at: Millis,
}

/// The width of the columns.
const MAX_TEXT: usize = 1024;

impl Catalog {
    /// Live objects of a server by id, after `after`, at most `limit`.
    pub async fn segments_after(&self, db: &Db, after: i64, limit: u32) -> Result<Vec<AuditedSegment>> {
        let query = sqlx::query(AssertSqlSafe(sql_audit::segments_after())).bind(after).bind(i64::from(limit));
        query.fetch_all(db.pool()).await?.iter().map(AuditedSegment::from_row).collect()
    }

    pub async fn put_finding(&self, db: &Db, finding: &FindingRow) -> Result<()> {
        let cut = |text: &str| text.bytes().take(MAX_TEXT).collect::<Vec<u8>>();
        let upsert = sqlx::query(AssertSqlSafe(sql_audit::put_finding(db.engine()))).bind(finding.segment.get());
        let upsert = upsert.bind(finding.kind.as_bytes()).bind(cut(&finding.name)).bind(cut(&finding.what));
        upsert.bind(finding.hit as i64).bind(finding.found_at.get()).execute(db.pool()).await?;
        Ok(())
    }

    /// The object is well.
    pub async fn forget_finding(&self, db: &Db, segment: SegmentId) -> Result<()> {
        sqlx::query(sql_audit::forget_finding()).bind(segment.get()).execute(db.pool()).await?;
        Ok(())
    }

    /// Forgets what was found before `before`.
    pub async fn forget_findings(&self, db: &Db, before: Millis) -> Result<()> {
        sqlx::query(sql_audit::forget_findings()).bind(before.get()).execute(db.pool()).await?;
        Ok(())
    }

    /// The newest findings, at most `limit`.
    pub async fn findings(&self, db: &Db, limit: u32) -> Result<Vec<FindingRow>> {
        let rows = sqlx::query(sql_audit::findings()).bind(i64::from(limit)).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(FindingRow {
                    segment: SegmentId::stored(column(row, "segment_id")?),
                    kind: text(row, "kind")?,
                    name: text(row, "name")?,
                    what: String::from_utf8_lossy(column(row, "what")?).into_owned(),
                    hit: count(row, "hit")?,
                    found_at: Millis::new(column(row, "found_at")?),
                })
            })
            .collect()
    }
}
