//! Objects of the cold tier, and the one row that decides the fate of each.
//!
//! ```text
//!   plan ──► uploading ── publish ──► live ── last entry died ──► doomed ──► (row deleted)
//!                └───────────── abandoned for a day ────────────────┘
//! ```
//!
//! Publishing needs `uploading → live`, the sweeper `uploading → doomed`: one of them wins. Only
//! the names of doomed rows are ever deleted from the bucket.

use sqlx::any::AnyRow;
use ulid::Ulid;

use super::{Catalog, Lease, LeaseError, bytes, column, count, sql};
use crate::db::{Db, Error, Result};
use crate::model::Millis;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(i64);

impl SegmentId {
    /// Segments are few: 63 bits of the ULID's time and randomness do not meet.
    pub fn of(ulid: Ulid) -> Self {
        Self((u128::from(ulid) >> 65) as i64)
    }

    /// As a table holds it.
    pub(super) fn stored(id: i64) -> Self {
        Self(id)
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    Uploading = 0,
    Live = 1,
    Doomed = 2,
}

/// A row of the segment table, as far as readers and the sweeper need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub id: SegmentId,
    pub ulid: Ulid,
    pub app_id: i32,
    pub rule_id: i32,
    /// Days since 1970.
    pub finish_day: i64,
    pub state: SegmentState,
    /// 0 while it is being uploaded, as are the offsets.
    pub byte_length: u64,
    pub index_offset: u64,
    pub frames_offset: u64,
    /// Where the filter frame begins, which ends at the index; `None` where nobody knows of one.
    pub filter_offset: Option<u64>,
    pub doomed_at: Option<Millis>,
}

impl Segment {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self> {
        let size = |name: &str| Ok::<_, Error>(column::<Option<i64>>(row, name)?.unwrap_or(0).unsigned_abs());
        Ok(Self {
            id: SegmentId(column(row, "s_id")?),
            ulid: Ulid::from_bytes(bytes(row, "s_ulid")?),
            app_id: column(row, "s_app_id")?,
            rule_id: column(row, "s_rule_id")?,
            finish_day: i64::from(column::<i32>(row, "s_finish_day")?),
            state: match column::<i32>(row, "s_state")? {
                0 => SegmentState::Uploading,
                1 => SegmentState::Live,
                2 => SegmentState::Doomed,
                other => return Err(Error::Row(format!("segment state {other}"))),
            },
            byte_length: size("s_byte_length")?,
            index_offset: size("s_index_offset")?,
            frames_offset: size("s_frames_offset")?,
            filter_offset: column::<Option<i64>>(row, "s_filter_offset")?.map(i64::unsigned_abs),
            doomed_at: column::<Option<i64>>(row, "s_doomed_at")?.map(Millis::new),
        })
    }
}

/// A segment that the sweeper looks at, with how much of it is still needed.
#[derive(Debug, Clone, PartialEq)]
pub struct SweptSegment {
    pub segment: Segment,
    /// BLAKE3 of the object; `None` while it is being uploaded, and after a rebuild.
    pub hash: Option<[u8; 32]>,
    /// Published entries, and those of them that went since.
    pub entries: u64,
    pub dead_entries: u64,
    pub lines: u64,
    pub dead_lines: u64,
    /// What the object holds, published or not; 0 where nobody knows.
    pub written_entries: u64,
    pub written_lines: u64,
    /// The share of `dead_lines` that someone deleted, and since when the first of them waits.
    pub deleted_lines: u64,
    pub deleted_at: Option<Millis>,
    /// When an entry last went.
    pub died_at: Option<Millis>,
    pub created_at: Millis,
    /// How often in a row the work on it has failed.
    pub failures: u32,
    due_at: Millis,
}

impl SweptSegment {
    fn from_row(row: &AnyRow) -> Result<Self> {
        let millis = |name: &str| Ok::<_, Error>(column::<Option<i64>>(row, name)?.map(Millis::new));
        let hash: Option<Vec<u8>> = column(row, "s_hash")?;
        Ok(Self {
            segment: Segment::from_row(row)?,
            hash: hash.and_then(|hash| hash.try_into().ok()),
            entries: count(row, "entries")?,
            dead_entries: count(row, "dead_entries")?,
            lines: count(row, "line_count")?,
            dead_lines: count(row, "dead_lines")?,
            written_entries: count(row, "written_entries")?,
            written_lines: count(row, "written_lines")?,
            deleted_lines: count(row, "deleted_lines")?,
            deleted_at: millis("deleted_at")?,
            died_at: millis("died_at")?,
            created_at: Millis::new(column(row, "created_at")?),
            failures: column::<i32>(row, "failures")?.unsigned_abs(),
            due_at: Millis::new(column(row, "due_at")?),
        })
    }
}

/// An object that is about to be uploaded.
#[derive(Debug, Clone)]
pub struct NewSegment {
    pub ulid: Ulid,
    pub app_id: i32,
    pub rule_id: i32,
    pub finish_day: i64,
    /// When the sweeper may take it for abandoned.
    pub abandoned_at: Millis,
}

/// The numbers of an object that is complete.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub segment: SegmentId,
    pub byte_length: u64,
    pub hash: [u8; 32],
    pub index_offset: u64,
    pub frames_offset: u64,
    pub filter_offset: u64,
    /// What it holds, whatever of it will be published.
    pub entries: u64,
    pub lines: u64,
}

impl Catalog {
    /// Commits the row under which an object will be uploaded, before its first byte goes out.
    pub async fn plan_segment(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        new: NewSegment,
        now: Millis,
    ) -> std::result::Result<SegmentId, LeaseError> {
        let id = SegmentId::of(new.ulid);
        let (lease, db_in_tx) = (lease.clone(), Arc::clone(db));
        db.run_tx("catalog::plan_segment", move |tx| {
            let (lease, db, new) = (lease.clone(), Arc::clone(&db_in_tx), new.clone());
            Box::pin(async move {
                lease.assert_held(&db, tx).await?;
                let insert = sqlx::query(sql::insert_segment()).bind(id.0).bind(new.ulid.to_bytes().to_vec());
                let insert = insert.bind(new.app_id).bind(new.rule_id).bind(new.finish_day as i32);
                let insert = insert.bind(lease.task().as_bytes()).bind(lease.fence());
                insert.bind(now.get()).bind(new.abandoned_at.get()).execute(tx).await.map_err(Error::from)?;
                Ok::<_, LeaseError>(id)
            })
        })
        .await
    }

    /// Gives up an upload of our own: from now on its name may be deleted.
    pub async fn doom_upload(&self, db: &Arc<Db>, id: SegmentId, now: Millis) -> Result<bool> {
        let doom = sqlx::query(sql::doom_upload()).bind(now.get()).bind(now.get()).bind(id.0);
        Ok(doom.execute(db.pool()).await?.rows_affected() == 1)
    }

    /// Segments that the sweeper must look at: abandoned uploads, objects that are doomed, and
    /// live ones of which nothing may have been published or something has gone.
    pub async fn due_segments(&self, db: &Arc<Db>, now: Millis, limit: u32) -> Result<Vec<SweptSegment>> {
        let query =
            sqlx::query(sqlx::AssertSqlSafe(sql::due_segments(db.engine()))).bind(now.get()).bind(i64::from(limit));
        query.fetch_all(db.pool()).await?.iter().map(SweptSegment::from_row).collect()
    }

    /// Moves a segment on to `doomed`, if it still is in `state` and, when live, has no entry.
    pub async fn doom_segment(&self, db: &Arc<Db>, segment: &Segment, now: Millis) -> Result<bool> {
        let doom = match segment.state {
            SegmentState::Live => sqlx::query(sql::doom_empty()),
            SegmentState::Uploading | SegmentState::Doomed => sqlx::query(sql::doom_upload()),
        };
        let doom = doom.bind(now.get()).bind(now.get()).bind(segment.id.0);
        Ok(doom.execute(db.pool()).await?.rows_affected() == 1)
    }

    /// When the sweeper looks at a segment next, and how often in a row its work has failed. One of
    /// which an entry went meanwhile stays due.
    pub async fn postpone_segment(
        &self,
        db: &Arc<Db>,
        seen: &SweptSegment,
        until: Millis,
        failures: u32,
    ) -> Result<()> {
        let postpone = sqlx::query(sql::postpone_segment()).bind(until.get()).bind(failures.cast_signed());
        let postpone = postpone.bind(seen.segment.id.0).bind(seen.segment.state as i32).bind(seen.due_at.get());
        postpone.bind(seen.dead_entries.cast_signed()).execute(db.pool()).await?;
        Ok(())
    }

    /// Forgets a doomed segment whose object has been deleted often enough.
    pub async fn forget_segment(&self, db: &Arc<Db>, id: SegmentId) -> Result<()> {
        sqlx::query(sql::delete_segment()).bind(id.0).execute(db.pool()).await?;
        Ok(())
    }

    /// How many live objects there are and their bytes, counted up to `limit` objects.
    pub async fn segment_summary(&self, db: &Arc<Db>, limit: u32) -> Result<(u64, u64)> {
        let row = sqlx::query(sql::segment_summary()).bind(i64::from(limit)).fetch_one(db.pool()).await?;
        Ok((count(&row, "segments")?, count(&row, "segment_bytes")?))
    }

    /// The ULIDs of the segments that hold an attempt's lines, oldest first, at most `limit`.
    pub async fn segments_of(
        &self,
        home: &crate::db::Home,
        id: crate::model::AttemptId,
        limit: u32,
    ) -> Result<Vec<Segment>> {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql::segments_of(home.shard)));
        let rows = query.bind(id.get()).bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
        rows.iter().map(Segment::from_row).collect()
    }
}
