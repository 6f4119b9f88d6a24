//! Giving out line numbers: the catalog's half of the write transaction.
//!
//! One multi-row upsert creates attempts and moves `next_line`; reading the same rows back inside
//! the transaction tells each its first line. The rows are upserted in the order of their natural
//! key, so that concurrent writers wait for each other instead of deadlocking.
//!
//! The caller offers an id with each natural key: one that it remembers, or a fresh one. Where the
//! attempt exists under another id, that row is extended and the offered id is not used. But two
//! writers may draw the same fresh id; the upsert then finds the offered id in the row of another
//! attempt and moves *its* `next_line`. So whenever a row that is read back does not carry the id
//! that was offered, no row at all may carry it; else the transaction is rolled back and begun again.

use std::collections::HashMap;

use super::{Attempt, sql};
use crate::db::{Connection, Error, Home, Result, TxError};
use crate::model::{AttemptId, AttemptNo, AttemptState, Instance, Labels, LevelSet, Millis, Timestamp};

/// The natural key of an attempt on its server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NaturalKey {
    pub app_id: i32,
    pub instance: Instance,
    pub attempt: AttemptNo,
}

/// What is to be added to one attempt.
#[derive(Debug, Clone)]
pub struct Reserve {
    pub key: NaturalKey,
    /// Of the row that is there, as far as the caller remembers it, or a fresh one.
    pub id: AttemptId,
    /// 0 for none. The first one stays.
    pub job_id: i32,
    /// The first that are not empty stay.
    pub labels: Labels,
    pub lines: u64,
    pub raw_bytes: u64,
    pub ts_range: Option<(Timestamp, Timestamp)>,
    pub levels: LevelSet,
    /// When an attempt that is created or opened again is looked at next.
    pub due_at: Millis,
    pub created_at: Millis,
}

/// What an attempt got.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The row as it is now, inside the transaction.
    pub attempt: Attempt,
    pub first_line: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// An id was drawn twice, or the row went meanwhile: begin again.
    #[error("attempt changed while it was written to")]
    Raced,
    #[error(transparent)]
    Db(#[from] Error),
}

impl TxError for ReserveError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_contended())
    }
}

/// The attempts that exist among these keys.
pub async fn find(home: &Home, keys: &[NaturalKey]) -> Result<HashMap<NaturalKey, Attempt>> {
    let mut connection = home.db.pool().acquire().await?;
    by_key(&mut connection, home, &keys.iter().collect::<Vec<_>>()).await
}

async fn by_key(
    connection: &mut Connection,
    home: &Home,
    keys: &[&NaturalKey],
) -> Result<HashMap<NaturalKey, Attempt>> {
    let mut found = HashMap::with_capacity(keys.len());
    for some in super::in_powers_of_two(keys) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::attempts_by_key(home.shard, some.len())));
        for key in some {
            query = query.bind(key.app_id).bind(key.instance.as_bytes().to_vec()).bind(key.attempt.get() as i32);
        }
        for row in query.fetch_all(&mut *connection).await? {
            let attempt = Attempt::from_row(&row)?;
            let key =
                NaturalKey { app_id: attempt.app_id, instance: attempt.instance.clone(), attempt: attempt.attempt };
            found.insert(key, attempt);
        }
    }
    Ok(found)
}

/// Creates or extends these attempts, which must be sorted by their key and differ in it.
/// Answers in the same order. Writes to attempts that are gone as well: the caller checks the state.
pub async fn reserve(
    tx: &mut Connection,
    home: &Home,
    wanted: &[Reserve],
    now: Millis,
) -> std::result::Result<Vec<Reservation>, ReserveError> {
    debug_assert!(wanted.is_sorted_by(|a, b| a.key < b.key));
    let mut reserved = Vec::with_capacity(wanted.len());
    for some in super::in_powers_of_two(wanted) {
        let statement = sql::upsert_attempts(home.db.engine(), home.shard, some.len());
        let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
        for reserve in some {
            query = reserve.bind(query, now);
        }
        let rows = match query.execute(&mut *tx).await.map_err(Error::from) {
            // SQLite's way to say that the id belongs to another row.
            Err(Error::Duplicate(_)) => return Err(ReserveError::Raced),
            result => result?.rows_affected(),
        };
        // A row that is there and gets no line may be counted once, as it does not change.
        let are_new = home.db.engine().counts_updates_twice()
            && rows == some.len() as u64
            && some.iter().all(|reserve| reserve.lines > 0);
        if are_new {
            reserved.extend(some.iter().map(|reserve| Reservation { first_line: 0, attempt: reserve.created(now) }));
        } else {
            reserved.extend(read_back(tx, home, some).await?);
        }
    }
    Ok(reserved)
}

/// The rows as the upsert left them.
async fn read_back(
    tx: &mut Connection,
    home: &Home,
    wanted: &[Reserve],
) -> std::result::Result<Vec<Reservation>, ReserveError> {
    let keys: Vec<&NaturalKey> = wanted.iter().map(|reserve| &reserve.key).collect();
    let mut rows = by_key(tx, home, &keys).await?;
    let (mut reserved, mut unused) = (Vec::with_capacity(wanted.len()), Vec::new());
    for reserve in wanted {
        let attempt = rows.remove(&reserve.key).ok_or(ReserveError::Raced)?;
        if attempt.id != reserve.id {
            unused.push(reserve.id);
        }
        let first_line = attempt.next_line.checked_sub(reserve.lines).ok_or(ReserveError::Raced)?;
        reserved.push(Reservation { first_line, attempt });
    }
    if super::attempts::by_id(tx, home, &unused).await?.is_empty() { Ok(reserved) } else { Err(ReserveError::Raced) }
}

impl Reserve {
    /// The row that [`sql::upsert_attempts`] creates where there was none.
    fn created(&self, now: Millis) -> Attempt {
        Attempt {
            id: self.id,
            app_id: self.key.app_id,
            instance: self.key.instance.clone(),
            attempt: self.key.attempt,
            job_id: self.job_id,
            labels: self.labels.clone(),
            state: AttemptState::Open,
            outcome: None,
            held: false,
            meta_version: 1,
            archived_meta: 0,
            next_line: self.lines,
            archived_line: 0,
            purged_line: 0,
            trimmed_line: 0,
            raw_bytes: self.raw_bytes,
            archived_bytes: 0,
            first_ts: self.ts_range.map(|(first, _)| first),
            last_ts: self.ts_range.map(|(_, last)| last),
            levels: self.levels,
            created_at: self.created_at,
            written_at: now,
            finished_at: None,
            published_at: None,
            expires_at: None,
            gone_at: None,
            failures: 0,
            rule_id: 0,
            due_at: self.due_at,
        }
    }

    /// The twelve values of one row of [`sql::upsert_attempts`].
    fn bind<'q>(&self, query: super::Query<'q>, now: Millis) -> super::Query<'q> {
        let labels = if self.labels.is_empty() { String::new() } else { self.labels.to_json() };
        query
            .bind(self.id.get())
            .bind(self.key.app_id)
            .bind(self.key.instance.as_bytes().to_vec())
            .bind(self.key.attempt.get() as i32)
            .bind(self.job_id)
            .bind(labels.into_bytes())
            .bind(self.lines as i64)
            .bind(self.raw_bytes as i64)
            .bind(self.ts_range.map(|(first, _)| first.nanos()))
            .bind(self.ts_range.map(|(_, last)| last.nanos()))
            .bind(self.levels.bits() as i32)
            .bind(self.created_at.get())
            .bind(now.get())
            .bind(self.due_at.get())
    }
}
