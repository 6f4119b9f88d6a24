//! Giving out line numbers: the catalog's half of the write transaction.
//!
//! One multi-row upsert creates attempts and moves `next_line`. Reading the same rows back inside the
//! transaction tells each its first line, unless the upsert's own answer tells it: that all rows are new,
//! or, of one that the writer remembers, which line is next. The rows are upserted in the order of their
//! natural key, so that concurrent writers wait for each other instead of deadlocking.
//!
//! The caller offers an id with each natural key: one that it remembers, or a fresh one. Where the
//! attempt exists under another id, that row is extended and the offered id is not used. But two
//! writers may draw the same fresh id; the upsert then finds the offered id in the row of another
//! attempt and moves *its* `next_line`. So whenever a row that is read back does not carry the id
//! that was offered, no row at all may carry it; else the transaction is rolled back and begun again.

use std::collections::HashMap;

use super::{Attempt, sql};
use crate::db::{Connection, Error, Home, Result, TxError};
use crate::model::{AttemptId, AttemptNo, Instance, Labels, LevelSet, Millis, Timestamp};

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
    /// Of the row that is there, as far as the caller remembers it; then `id` is its id.
    pub known_job: Option<i32>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    pub id: AttemptId,
    pub first_line: u64,
    pub job_id: i32,
    /// The row's; empty, too, where no labels were offered.
    pub labels: Labels,
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
/// Answers in the same order; [`ReserveError::Raced`] where one of them is gone.
pub async fn reserve(
    tx: &mut Connection,
    home: &Home,
    wanted: &[Reserve],
    now: Millis,
) -> std::result::Result<Vec<Reserved>, ReserveError> {
    debug_assert!(wanted.is_sorted_by(|a, b| a.key < b.key));
    let mut reserved = Vec::with_capacity(wanted.len());
    for some in super::in_powers_of_two(wanted) {
        let done = upsert(tx, home, some, now).await?;
        match some {
            _ if done.are_new => reserved.extend(some.iter().map(|one| one.reserved_at(0, one.job_id))),
            [one] if let (Some(next_line), Some(job_id)) = (done.next_line, one.remembered_job()) => {
                let first_line = next_line.checked_sub(one.lines).ok_or(ReserveError::Raced)?;
                reserved.push(one.reserved_at(first_line, job_id));
            }
            _ => {
                for (one, row) in some.iter().zip(read_back(tx, home, some).await?) {
                    if row.state_at(now).is_gone() {
                        return Err(ReserveError::Raced);
                    }
                    let first_line = row.next_line.checked_sub(one.lines).ok_or(ReserveError::Raced)?;
                    reserved.push(Reserved { id: row.id, first_line, job_id: row.job_id, labels: row.labels });
                }
            }
        }
    }
    Ok(reserved)
}

/// Creates an attempt or locks its row, and answers with the row. It may be gone: the caller checks the state.
pub async fn create_or_lock(
    tx: &mut Connection,
    home: &Home,
    wanted: &Reserve,
    now: Millis,
) -> std::result::Result<Attempt, ReserveError> {
    let wanted = std::slice::from_ref(wanted);
    upsert(tx, home, wanted, now).await?;
    read_back(tx, home, wanted).await?.pop().ok_or(ReserveError::Raced)
}

/// What the answer to an upsert tells, on an engine where it tells anything.
struct Upserted {
    /// All rows were made just now.
    are_new: bool,
    /// Of one row that is open and carries the id that was offered.
    next_line: Option<u64>,
}

async fn upsert(
    tx: &mut Connection,
    home: &Home,
    wanted: &[Reserve],
    now: Millis,
) -> std::result::Result<Upserted, ReserveError> {
    let engine = home.db.engine();
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::upsert_attempts(engine, home.shard, wanted.len())));
    for reserve in wanted {
        query = reserve.bind(query, now);
    }
    let done = match query.execute(&mut *tx).await.map_err(Error::from) {
        // SQLite's way to say that the id belongs to another row.
        Err(Error::Duplicate(_)) => return Err(ReserveError::Raced),
        result => result?,
    };
    // A row that is there and gets no line may be counted once, as it does not change.
    let rows_tell = engine.upserts_tell() && wanted.iter().all(|reserve| reserve.lines > 0);
    let next_line = done.last_insert_id().filter(|_| engine.upserts_tell() && wanted.len() == 1);
    Ok(Upserted {
        are_new: rows_tell && done.rows_affected() == wanted.len() as u64,
        next_line: next_line.map(i64::cast_unsigned).filter(|next_line| *next_line > 0),
    })
}

/// The rows as the upsert left them.
async fn read_back(
    tx: &mut Connection,
    home: &Home,
    wanted: &[Reserve],
) -> std::result::Result<Vec<Attempt>, ReserveError> {
    let keys: Vec<&NaturalKey> = wanted.iter().map(|reserve| &reserve.key).collect();
    let mut rows = by_key(tx, home, &keys).await?;
    let (mut found, mut unused) = (Vec::with_capacity(wanted.len()), Vec::new());
    for reserve in wanted {
        let attempt = rows.remove(&reserve.key).ok_or(ReserveError::Raced)?;
        if attempt.id != reserve.id {
            unused.push(reserve.id);
        }
        found.push(attempt);
    }
    if super::attempts::by_id(tx, home, &unused).await?.is_empty() { Ok(found) } else { Err(ReserveError::Raced) }
}

impl Reserve {
    /// The row's job, where the writer remembers it and all else that an answer needs: nothing that is
    /// offered could be new to the row.
    fn remembered_job(&self) -> Option<i32> {
        self.known_job.filter(|job| self.labels.is_empty() && (*job != 0 || self.job_id == 0))
    }

    fn reserved_at(&self, first_line: u64, job_id: i32) -> Reserved {
        Reserved { id: self.id, first_line, job_id, labels: self.labels.clone() }
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
