//! A row of the attempt table, and the changes that the archiver makes to one row at a time.

use std::sync::Arc;

use sqlx::any::AnyRow;

use super::{Lease, LeaseError, column, count, sql, text};
use crate::db::{Connection, Db, Error, Home, Result, Shard};
use crate::model::{
    AttemptId, AttemptNo, AttemptState, Instance, Labels, LevelSet, LineRange, Millis, Outcome, ShownState, Timestamp,
};

/// What the catalog says of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub id: AttemptId,
    pub app_id: i32,
    pub instance: Instance,
    pub attempt: AttemptNo,
    /// 0 while nobody has named a job.
    pub job_id: i32,
    pub labels: Labels,
    pub state: AttemptState,
    pub outcome: Option<Outcome>,
    /// Legal hold: nothing of it goes.
    pub held: bool,
    /// Rises with every change of job, labels, state, outcome or hold.
    pub meta_version: i64,
    /// The `meta_version` that the last segment entry carries; 0 before there is one.
    pub archived_meta: i64,
    /// How many lines it has, which is also the number of the next one.
    pub next_line: u64,
    /// Lines below stand in parts, lines at or above it in chunks.
    pub archived_line: u64,
    /// Chunks below are deleted.
    pub purged_line: u64,
    /// Lines below have left the cold tier with an old window.
    pub trimmed_line: u64,
    /// Bytes of all its records as JSON, before compression.
    pub raw_bytes: u64,
    /// The share of `raw_bytes` below `archived_line`.
    pub archived_bytes: u64,
    pub first_ts: Option<Timestamp>,
    pub last_ts: Option<Timestamp>,
    pub levels: LevelSet,
    pub created_at: Millis,
    pub written_at: Millis,
    pub finished_at: Option<Millis>,
    pub published_at: Option<Millis>,
    /// From this moment on every read answers that it is expired.
    pub expires_at: Option<Millis>,
    /// When it expired or was deleted.
    pub gone_at: Option<Millis>,
    /// How often in a row archiving it has failed.
    pub failures: u32,
    /// The rule under which its last lines were archived; 0 before that.
    pub rule_id: i32,
    /// When the archiver must next look at the row.
    pub due_at: Millis,
}

impl Attempt {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self> {
        let millis = |name: &str| Ok::<_, Error>(column::<Option<i64>>(row, name)?.map(Millis::new));
        let code = |name: &str| Ok::<_, Error>(i64::from(column::<i32>(row, name)?));
        let state = code("state")?;
        Ok(Self {
            id: AttemptId::stored(column(row, "id")?),
            app_id: column(row, "app_id")?,
            instance: text(row, "instance")?.parse().map_err(|e| Error::Row(format!("instance: {e}")))?,
            attempt: AttemptNo::try_from(code("attempt")?).map_err(|e| Error::Row(e.to_string()))?,
            job_id: column(row, "job_id")?,
            labels: text(row, "labels")?.parse().map_err(|e| Error::Row(format!("labels: {e}")))?,
            state: AttemptState::from_code(state).ok_or_else(|| Error::Row(format!("attempt state {state}")))?,
            outcome: Outcome::from_code(code("outcome")?),
            held: code("held")? != 0,
            meta_version: code("meta_version")?,
            archived_meta: code("archived_meta")?,
            next_line: count(row, "next_line")?,
            archived_line: count(row, "archived_line")?,
            purged_line: count(row, "purged_line")?,
            trimmed_line: count(row, "trimmed_line")?,
            raw_bytes: count(row, "raw_bytes")?,
            archived_bytes: count(row, "archived_bytes")?,
            first_ts: column::<Option<i64>>(row, "first_ts")?.map(Timestamp::from_nanos),
            last_ts: column::<Option<i64>>(row, "last_ts")?.map(Timestamp::from_nanos),
            levels: LevelSet::stored(code("levels")?),
            created_at: Millis::new(column(row, "created_at")?),
            written_at: Millis::new(column(row, "written_at")?),
            finished_at: millis("finished_at")?,
            published_at: millis("published_at")?,
            expires_at: millis("expires_at")?,
            gone_at: millis("gone_at")?,
            failures: column::<i32>(row, "failures")?.unsigned_abs(),
            rule_id: column(row, "rule_id")?,
            due_at: Millis::new(column(row, "due_at")?),
        })
    }

    /// The state as of `now`: an attempt is expired from its moment on, whether or not the archiver
    /// has come by. So every daemon says the same at the same time.
    pub fn state_at(&self, now: Millis) -> AttemptState {
        let over = self.expires_at.is_some_and(|at| at <= now);
        if over && !self.held && self.state.is_finished() { AttemptState::Expired } else { self.state }
    }

    /// When it expired or was deleted. One that is over by its day alone has no row that says when.
    pub fn gone_since(&self) -> Option<Millis> {
        self.gone_at.or(self.expires_at)
    }

    pub fn shown_state(&self, now: Millis) -> ShownState {
        ShownState::of(self.state_at(now), self.next_line, self.hot_lines().len())
    }

    /// Lines that can be read.
    pub fn lines(&self) -> LineRange {
        LineRange::new(self.trimmed_line, self.next_line)
    }

    pub fn hot_lines(&self) -> LineRange {
        LineRange::new(self.archived_line, self.next_line)
    }

    /// What a change that was decided on this row insists on.
    pub fn seen(&self) -> Seen {
        Seen { id: self.id, due_at: self.due_at, next_line: self.next_line, meta_version: self.meta_version }
    }
}

/// The version of a row that a decision was made on. A change that finds another version does
/// nothing: the row stays due and is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub id: AttemptId,
    due_at: Millis,
    next_line: u64,
    meta_version: i64,
}

impl Seen {
    /// The four values of the condition `UNCHANGED`.
    pub(super) fn bind<'q>(&self, query: super::Query<'q>) -> super::Query<'q> {
        query.bind(self.id.get()).bind(self.due_at.get()).bind(self.next_line as i64).bind(self.meta_version as i32)
    }
}

/// A position in the agenda; the next page begins behind it.
#[derive(Debug, Clone, Copy)]
pub struct DueCursor {
    pub due_at: Millis,
    pub id: AttemptId,
}

impl super::Catalog {
    /// Attempts of a shard that are due, oldest first, after `cursor`, at most `limit`.
    pub async fn due(&self, home: &Home, now: Millis, cursor: Option<DueCursor>, limit: u32) -> Result<Vec<Attempt>> {
        let (after, after_id) = cursor.map_or((i64::MIN, i64::MIN), |c| (c.due_at.get(), c.id.get()));
        let query = sqlx::query(sqlx::AssertSqlSafe(sql::due_attempts(home.db.engine(), home.shard)));
        let query = query.bind(after).bind(now.get()).bind(after).bind(after_id).bind(i64::from(limit));
        query.fetch_all(home.db.pool()).await?.iter().map(Attempt::from_row).collect()
    }

    /// How many attempts are due and since when, counted up to `limit`.
    pub async fn due_summary(&self, home: &Home, now: Millis, limit: u32) -> Result<(u64, Option<Millis>)> {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql::due_summary(home.db.engine(), home.shard)));
        let row = query.bind(now.get()).bind(i64::from(limit)).fetch_one(home.db.pool()).await?;
        Ok((count(&row, "attempts")?, column::<Option<i64>>(&row, "oldest")?.map(Millis::new)))
    }

    /// When the first attempt that is not due at `now` will be.
    pub async fn next_due(&self, home: &Home, now: Millis) -> Result<Option<Millis>> {
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql::next_due(home.shard))).bind(now.get());
        let at: Option<i64> = query.fetch_optional(home.db.pool()).await?;
        Ok(at.map(Millis::new))
    }

    /// The rows of these ids as they are now, in no order; those that are gone are left out.
    pub async fn attempts(&self, home: &Home, ids: &[AttemptId]) -> Result<Vec<Attempt>> {
        by_id(&mut *home.db.pool().acquire().await?, home, ids).await
    }

    /// Puts attempts off until the given times; those that changed since stay due.
    pub async fn postpone(
        &self,
        home: &Home,
        lease: &Lease,
        rows: Vec<(Seen, Millis)>,
    ) -> std::result::Result<(), LeaseError> {
        let rows = rows.into_iter().map(|(seen, until)| (seen, 0, until)).collect();
        self.purged(home, lease, rows).await
    }

    /// Marks attempts as finished that nobody wrote to for long; those written to since stay open.
    pub async fn infer_finish(
        &self,
        home: &Home,
        lease: &Lease,
        rows: Vec<(Seen, Millis)>,
    ) -> std::result::Result<(), LeaseError> {
        fenced(home, lease, "catalog::infer_finish", rows, |tx, _, shard, (seen, finished_at)| {
            Box::pin(async move {
                let query = sqlx::query(sqlx::AssertSqlSafe(sql::infer_finish(shard))).bind(finished_at.get());
                seen.bind(query).execute(tx).await.map(drop).map_err(Error::from)
            })
        })
        .await
    }

    /// Notes that the chunks below a line are deleted, and when to look again; a row that changed
    /// since it was read stays due.
    pub async fn purged(
        &self,
        home: &Home,
        lease: &Lease,
        rows: Vec<(Seen, u64, Millis)>,
    ) -> std::result::Result<(), LeaseError> {
        fenced_together(home, lease, "catalog::purged", rows, |tx, home, rows| {
            Box::pin(async move {
                for some in super::in_powers_of_two(rows) {
                    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::purged(home.shard, some.len())));
                    for (seen, line, _) in some {
                        query = query.bind(seen.id.get()).bind(*line as i64).bind(*line as i64);
                    }
                    for (seen, _, due_at) in some {
                        query = seen.bind(query).bind(due_at.get());
                    }
                    for (seen, ..) in some {
                        query = query.bind(seen.id.get());
                    }
                    query.execute(&mut *tx).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

pub(super) async fn by_id(connection: &mut Connection, home: &Home, ids: &[AttemptId]) -> Result<Vec<Attempt>> {
    let mut rows = Vec::with_capacity(ids.len());
    for some in super::in_powers_of_two(ids) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::attempts_by_id(home.shard, some.len())));
        for id in some {
            query = query.bind(id.get());
        }
        for row in query.fetch_all(&mut *connection).await? {
            rows.push(Attempt::from_row(&row)?);
        }
    }
    Ok(rows)
}

pub(super) type Step<'c> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + 'c>>;

/// Small statements, one a row: a transaction of so many holds its locks for about 10 ms.
pub(super) const ROWS_PER_TX: usize = 100;

/// Runs `change` for each row, in transactions that begin with the fence.
pub(super) async fn fenced<T, F>(
    home: &Home,
    lease: &Lease,
    name: &'static str,
    rows: Vec<T>,
    change: F,
) -> std::result::Result<(), LeaseError>
where
    T: Copy + Send + Sync + 'static,
    F: for<'c> Fn(&'c mut Connection, &'c Arc<Db>, Shard, T) -> Step<'c> + Copy + Send + Sync + 'static,
{
    fenced_together(home, lease, name, rows, move |tx, home, rows| {
        Box::pin(async move {
            for row in rows {
                change(tx, &home.db, home.shard, *row).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Runs `change` for some rows at a time, in transactions that begin with the fence.
async fn fenced_together<T, F>(
    home: &Home,
    lease: &Lease,
    name: &'static str,
    rows: Vec<T>,
    change: F,
) -> std::result::Result<(), LeaseError>
where
    T: Copy + Send + Sync + 'static,
    F: for<'c> Fn(&'c mut Connection, &'c Home, &'c [T]) -> Step<'c> + Copy + Send + Sync + 'static,
{
    for some in rows.chunks(ROWS_PER_TX) {
        let (some, lease, home_in_tx) = (some.to_vec(), lease.clone(), home.clone());
        home.db
            .run_tx(name, move |tx| {
                let (some, lease, home) = (some.clone(), lease.clone(), home_in_tx.clone());
                Box::pin(async move {
                    lease.assert_held(&home.db, tx).await?;
                    change(tx, &home, &some).await?;
                    Ok::<_, LeaseError>(())
                })
            })
            .await?;
    }
    Ok(())
}
