//! The move becomes true here: parts appear and watermarks rise, in one transaction each time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Catalog, Lease, LeaseError, Sealed, SegmentId, in_powers_of_two, sql, sql_publish};
use crate::db::{Connection, Db, Error, Result, Shard};
use crate::model::{AttemptId, LevelSet, LineRange, Millis, Timestamp};

/// One attempt's entry in a segment that has been verified.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub shard: Shard,
    pub id: AttemptId,
    /// Begins at the watermark that was planned with; empty for an entry without lines.
    pub lines: LineRange,
    pub meta_version: i64,
    pub raw_bytes: u64,
    pub byte_offset: u64,
    pub byte_length: u64,
    pub skip: u32,
    pub ts_range: Option<(Timestamp, Timestamp)>,
    pub levels: LevelSet,
    pub frames: Vec<u8>,
    /// The version of the row that `expires_at` was told by: of an attempt that was opened again or
    /// finished otherwise since, the next entry says when it expires.
    pub planned_meta: i64,
    /// `None` for one that is still open or stays forever.
    pub expires_at: Option<Millis>,
    /// The number of the rule that it is archived under.
    pub rule_id: i32,
}

/// Entries of one transaction: 64 rows a statement, so it holds its locks for about 10 ms.
const ENTRIES_PER_TX: usize = 256;

/// What a publication did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    pub attempts: u64,
    pub lines: u64,
    pub raw_bytes: u64,
    /// Entries whose attempt was deleted, expired, or archived by another since the plan.
    pub refused: u64,
}

impl Catalog {
    /// Makes the object live, then publishes its entries, in id order, some a transaction.
    ///
    /// A crash in between leaves a live object of which only the published entries count, and
    /// attempts that are still due: the next run archives them into another object.
    pub async fn publish(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        sealed: Sealed,
        mut entries: Vec<NewEntry>,
        times: PublishTimes,
    ) -> std::result::Result<Published, LeaseError> {
        let segment = sealed.segment;
        self.make_live(db, lease, sealed, times).await?;
        entries.sort_by_key(|entry| (entry.shard, entry.id));
        let mut published = Published::default();
        for some in entries.chunks(ENTRIES_PER_TX) {
            let done = self.publish_some(db, lease, segment, some.to_vec(), times).await?;
            published.attempts += done.attempts;
            published.lines += done.lines;
            published.raw_bytes += done.raw_bytes;
            published.refused += done.refused;
        }
        Ok(published)
    }

    pub(super) async fn make_live(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        sealed: Sealed,
        times: PublishTimes,
    ) -> std::result::Result<(), LeaseError> {
        let (lease, db_in_tx) = (lease.clone(), Arc::clone(db));
        db.run_tx("catalog::make_live", move |tx| {
            let (lease, db, sealed) = (lease.clone(), Arc::clone(&db_in_tx), sealed.clone());
            Box::pin(async move {
                lease.assert_held(&db, tx).await?;
                let update = sqlx::query(sql_publish::make_live()).bind(sealed.byte_length as i64);
                let update = update.bind(sealed.hash.to_vec()).bind(sealed.index_offset as i64);
                let update = update.bind(sealed.frames_offset as i64);
                let update = update.bind(sealed.filter_offset as i64).bind(sealed.entries as i64);
                let update = update.bind(sealed.lines as i64).bind(times.check_at.get()).bind(sealed.segment.get());
                match update.execute(tx).await.map_err(Error::from)?.rows_affected() {
                    1 => Ok(()),
                    // The sweeper was faster: the object is doomed.
                    _ => Err(LeaseError::Lost),
                }
            })
        })
        .await
    }

    async fn publish_some(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        segment: SegmentId,
        entries: Vec<NewEntry>,
        times: PublishTimes,
    ) -> std::result::Result<Published, LeaseError> {
        let (lease, db_in_tx) = (lease.clone(), Arc::clone(db));
        db.run_tx("catalog::publish", move |tx| {
            let (lease, db, entries) = (lease.clone(), Arc::clone(&db_in_tx), entries.clone());
            Box::pin(async move {
                lease.assert_held(&db, tx).await?;
                let mut done = Published::default();
                for of_shard in entries.chunk_by(|a, b| a.shard == b.shard) {
                    let accepted = raise_watermarks(tx, &db, of_shard, times).await?;
                    done.refused += (of_shard.len() - accepted.len()) as u64;
                    replace_empty_parts(tx, of_shard[0].shard, &accepted, times.now).await?;
                    insert_parts(tx, of_shard[0].shard, segment, &accepted).await?;
                    done.attempts += accepted.len() as u64;
                    done.lines += accepted.iter().map(|entry| entry.lines.len()).sum::<u64>();
                    done.raw_bytes += accepted.iter().map(|entry| entry.raw_bytes).sum::<u64>();
                }
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
}

/// Moments that go with a publication.
#[derive(Debug, Clone, Copy)]
pub struct PublishTimes {
    pub now: Millis,
    /// When the chunks below the watermark may go.
    pub purge_at: Millis,
    /// When the sweeper makes sure that something was published.
    pub check_at: Millis,
}

/// Answers the entries that were accepted: a part is published only over what it replaces, and a row that
/// moved on or is gone gets none.
async fn raise_watermarks<'a>(
    tx: &mut Connection,
    db: &Db,
    entries: &'a [NewEntry],
    times: PublishTimes,
) -> Result<Vec<&'a NewEntry>> {
    let mut raised = Vec::with_capacity(entries.len());
    for some in in_powers_of_two(entries) {
        let rows = lock_watermarks(tx, db, some).await?;
        let accepted = some.iter().filter_map(|entry| {
            let row = rows.get(&entry.id).filter(|row| row.archived_line == entry.lines.start())?;
            Some((entry, *row))
        });
        let accepted: Vec<(&NewEntry, Watermark)> = accepted.collect();
        for some in in_powers_of_two(&accepted) {
            raise(tx, some, times).await?;
        }
        raised.extend(accepted.into_iter().map(|(entry, _)| entry));
    }
    Ok(raised)
}

/// What of a row decides on its publication.
#[derive(Debug, Clone, Copy)]
struct Watermark {
    archived_line: u64,
    next_line: u64,
    meta_version: i64,
}

/// The rows of entries of one shard, which nobody else changes until the transaction ends. Those that
/// expired or were deleted are left out.
async fn lock_watermarks(tx: &mut Connection, db: &Db, entries: &[NewEntry]) -> Result<HashMap<AttemptId, Watermark>> {
    let statement = sql_publish::lock_watermarks(entries[0].shard, entries.len(), db.engine());
    let mut find = sqlx::query_as(sqlx::AssertSqlSafe(statement));
    for entry in entries {
        find = find.bind(entry.id.get());
    }
    let rows: Vec<(i64, i64, i64, i64)> = find.fetch_all(tx).await?;
    let rows = rows.into_iter().map(|(id, archived_line, next_line, meta_version)| {
        let (archived_line, next_line) = (archived_line.unsigned_abs(), next_line.unsigned_abs());
        (AttemptId::stored(id), Watermark { archived_line, next_line, meta_version })
    });
    Ok(rows.collect())
}

/// Raises the watermarks of rows of one shard that were locked, in one statement.
async fn raise(tx: &mut Connection, entries: &[(&NewEntry, Watermark)], times: PublishTimes) -> Result<()> {
    let statement = sql_publish::raise_watermarks(entries[0].0.shard, entries.len());
    let mut update = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(times.now.get());
    for (entry, _) in entries {
        update = update.bind(entry.id.get()).bind(entry.raw_bytes as i64);
    }
    for (entry, _) in entries {
        update = update.bind(entry.id.get()).bind(entry.meta_version);
    }
    for (entry, row) in entries {
        let as_planned = row.meta_version == entry.planned_meta;
        update = update.bind(entry.id.get()).bind(entry.expires_at.filter(|_| as_planned).map(Millis::get));
    }
    for (entry, _) in entries {
        update = update.bind(entry.id.get()).bind(entry.rule_id);
    }
    for (entry, row) in entries {
        let due_at = if row.next_line > entry.lines.end() { times.now } else { times.purge_at };
        update = update.bind(entry.id.get()).bind(due_at.get());
    }
    for (entry, _) in entries {
        update = update.bind(entry.id.get()).bind(entry.lines.end() as i64);
    }
    for (entry, _) in entries {
        update = update.bind(entry.id.get());
    }
    match update.execute(tx).await?.rows_affected() {
        rows if rows == entries.len() as u64 => Ok(()),
        rows => Err(Error::RowCount { statement: "catalog::publish", rows, expected: entries.len() as u64 }),
    }
}

/// An entry without lines says what a later entry says better; it would also stand in its place.
async fn replace_empty_parts(tx: &mut Connection, shard: Shard, entries: &[&NewEntry], now: Millis) -> Result<()> {
    let mut dead = BTreeMap::new();
    for some in in_powers_of_two(entries) {
        let mut find = sqlx::query_scalar(sqlx::AssertSqlSafe(sql_publish::empty_parts(shard, some.len())));
        for entry in some {
            find = find.bind(entry.id.get());
        }
        let segments: Vec<i64> = find.fetch_all(&mut *tx).await?;
        if segments.is_empty() {
            continue;
        }
        let mut delete = sqlx::query(sqlx::AssertSqlSafe(sql_publish::delete_empty_parts(shard, some.len())));
        for entry in some {
            delete = delete.bind(entry.id.get());
        }
        delete.execute(&mut *tx).await?;
        for segment in segments {
            dead.entry(segment).or_insert((0, 0)).0 += 1;
        }
    }
    count_dead(tx, &dead, Death::Replaced, now).await
}

async fn insert_parts(tx: &mut Connection, shard: Shard, segment: SegmentId, entries: &[&NewEntry]) -> Result<()> {
    for some in in_powers_of_two(entries) {
        let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql_publish::insert_parts(shard, some.len())));
        for entry in some {
            insert = insert
                .bind(entry.id.get())
                .bind(entry.lines.start() as i64)
                .bind(entry.lines.len() as i64)
                .bind(segment.get())
                .bind(entry.byte_offset as i64)
                .bind(entry.byte_length as i64)
                .bind(entry.skip as i32)
                .bind(entry.ts_range.map(|(first, _)| first.nanos()))
                .bind(entry.ts_range.map(|(_, last)| last.nanos()))
                .bind(entry.levels.bits() as i32)
                .bind(entry.frames.clone());
        }
        insert.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Why an entry of a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Another entry says the same or more.
    Replaced,
    Expired,
    /// Someone wants its bytes gone.
    Deleted,
}

/// Takes entries (number, lines) from segments, in id order; a segment that has none left is doomed.
pub(super) async fn count_dead(
    tx: &mut Connection,
    dead: &BTreeMap<i64, (i64, i64)>,
    death: Death,
    now: Millis,
) -> Result<()> {
    let deleted_at = (death == Death::Deleted).then(|| now.get());
    for (segment, (entries, lines)) in dead {
        let deleted_lines = if death == Death::Deleted { *lines } else { 0 };
        let update = sqlx::query(sql::count_dead()).bind(*entries).bind(now.get()).bind(*entries);
        let update = update.bind(now.get()).bind(now.get()).bind(now.get()).bind(deleted_at).bind(deleted_lines);
        update.bind(*entries).bind(*lines).bind(*segment).execute(&mut *tx).await?;
    }
    Ok(())
}
