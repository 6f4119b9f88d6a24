//! Parts move from an object to the one that replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempts::ROWS_PER_TX;
use super::publish::{Death, count_dead};
use super::{
    Catalog, Lease, LeaseError, PublishTimes, Published, Sealed, SegmentId, column, count, sql_publish, sql_rewrite,
};
use crate::db::{Connection, Db, Error, Home, Result, Shard};
use crate::model::{AttemptId, LineRange};

/// Which of an object's entries a part is. An attempt may have several in one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartKey {
    pub attempt: AttemptId,
    pub first_line: u64,
    pub line_count: u64,
}

impl PartKey {
    pub fn new(attempt: AttemptId, lines: LineRange) -> Self {
        Self { attempt, first_line: lines.start(), line_count: lines.len() }
    }
}

/// A part that stands in another object now.
#[derive(Debug, Clone)]
pub struct MovedPart {
    pub shard: Shard,
    pub part: PartKey,
    pub from: SegmentId,
    pub byte_offset: u64,
    pub byte_length: u64,
    pub skip: u32,
    pub frames: Vec<u8>,
}

impl Catalog {
    /// The parts of a shard that an object holds, in order from behind `after`, at most `limit`.
    pub async fn parts_in(
        &self,
        home: &Home,
        segment: SegmentId,
        after: Option<PartKey>,
        limit: u32,
    ) -> Result<Vec<PartKey>> {
        let (id, line) = after.map_or((i64::MIN, 0), |part| (part.attempt.get(), part.first_line as i64));
        let query = sqlx::query(sqlx::AssertSqlSafe(sql_rewrite::parts_in(home.shard))).bind(segment.get());
        let query = query.bind(id).bind(id).bind(line).bind(i64::from(limit));
        let rows = query.fetch_all(home.db.pool()).await?;
        rows.iter()
            .map(|row| {
                let attempt = AttemptId::stored(column(row, "attempt_id")?);
                Ok(PartKey { attempt, first_line: count(row, "first_line")?, line_count: count(row, "line_count")? })
            })
            .collect()
    }

    /// Makes the object live and lets parts point at it, some a transaction. A part that went since
    /// it was copied is refused. An object that loses its last part is doomed in the same transaction.
    ///
    /// A crash in between leaves some parts here and some there, each of which can be read; what is
    /// left in the old object is rewritten again.
    pub async fn publish_rewrite(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        sealed: Sealed,
        mut parts: Vec<MovedPart>,
        times: PublishTimes,
    ) -> std::result::Result<Published, LeaseError> {
        let segment = sealed.segment;
        self.make_live(db, lease, sealed, times).await?;
        parts.sort_by_key(|moved| (moved.shard, moved.part));
        let mut published = Published::default();
        for some in parts.chunks(ROWS_PER_TX) {
            let done = move_some(db, lease, segment, some.to_vec(), times).await?;
            published.attempts += done.attempts;
            published.lines += done.lines;
            published.refused += done.refused;
        }
        Ok(published)
    }
}

async fn move_some(
    db: &Arc<Db>,
    lease: &Lease,
    segment: SegmentId,
    parts: Vec<MovedPart>,
    times: PublishTimes,
) -> std::result::Result<Published, LeaseError> {
    let (lease, db_in_tx) = (lease.clone(), Arc::clone(db));
    db.run_tx("catalog::publish_rewrite", move |tx| {
        let (lease, db, parts) = (lease.clone(), Arc::clone(&db_in_tx), parts.clone());
        Box::pin(async move {
            lease.assert_held(&db, tx).await?;
            let mut done = Published::default();
            let mut left = BTreeMap::new();
            for moved in &parts {
                if !move_part(tx, segment, moved).await? {
                    done.refused += 1;
                    continue;
                }
                done.attempts += 1;
                done.lines += moved.part.line_count;
                let counted = left.entry(moved.from.get()).or_insert((0i64, 0i64));
                counted.0 += 1;
                counted.1 += moved.part.line_count as i64;
            }
            // Ids rise with time: the old ones are locked before the new one, as by everybody else.
            count_dead(tx, &left, Death::Replaced, times.now).await?;
            let update = sqlx::query(sql_publish::count_entries()).bind(done.attempts as i64);
            let update = update.bind(done.lines as i64).bind(segment.get());
            match update.execute(tx).await.map_err(Error::from)?.rows_affected() {
                1 => Ok(done),
                // All that was published of it has died meanwhile and the object is doomed.
                _ => Err(LeaseError::Lost),
            }
        })
    })
    .await
}

/// False where the attempt or the part is gone.
async fn move_part(tx: &mut Connection, segment: SegmentId, moved: &MovedPart) -> Result<bool> {
    let lock = sqlx::query(sqlx::AssertSqlSafe(sql_rewrite::lock_attempt(moved.shard)));
    if lock.bind(moved.part.attempt.get()).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let update = sqlx::query(sqlx::AssertSqlSafe(sql_rewrite::move_part(moved.shard)))
        .bind(segment.get())
        .bind(moved.byte_offset as i64)
        .bind(moved.byte_length as i64)
        .bind(moved.skip as i32)
        .bind(moved.frames.clone())
        .bind(moved.part.attempt.get())
        .bind(moved.part.first_line as i64)
        .bind(moved.part.line_count as i64)
        .bind(moved.from.get());
    Ok(update.execute(tx).await?.rows_affected() == 1)
}
