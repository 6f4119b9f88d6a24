//! Giving out line numbers: the catalog's half of the write transaction.
//!
//! One multi-row upsert creates attempts and moves `next_line`; reading the same rows back inside
//! the transaction tells each its first line. The rows are upserted in the order of their natural
//! key, so that concurrent writers wait for each other instead of deadlocking.
//!
//! Two writers may draw the same new id, and an id that was looked up may be out of date. Either
//! would move the `next_line` of another row. So the row that is read back must carry the id *and*
//! the natural key that were written; else the transaction is rolled back and begun again.

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
    /// Of the row that is there, or a fresh one.
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
    /// An id was drawn twice or is out of date: look up and begin again.
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
    let mut found = HashMap::new();
    for some in super::in_powers_of_two(keys) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::attempts_by_key(home.shard, some.len())));
        for key in some {
            query = query.bind(key.app_id).bind(key.instance.as_bytes().to_vec()).bind(key.attempt.get() as i32);
        }
        for row in query.fetch_all(home.db.pool()).await? {
            let attempt = Attempt::from_row(&row)?;
            found.insert(natural_key(&attempt), attempt);
        }
    }
    Ok(found)
}

fn natural_key(attempt: &Attempt) -> NaturalKey {
    NaturalKey { app_id: attempt.app_id, instance: attempt.instance.clone(), attempt: attempt.attempt }
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
    for some in super::in_powers_of_two(wanted) {
        let statement = sql::upsert_attempts(home.db.engine(), home.shard, some.len());
        let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
        for reserve in some {
            query = reserve.bind(query, now);
        }
        match query.execute(&mut *tx).await.map_err(Error::from) {
            // SQLite's way to say that the id belongs to another row.
            Err(Error::Duplicate(_)) => return Err(ReserveError::Raced),
            result => result?,
        };
    }
    let mut rows = by_id(tx, home, wanted).await?;
    wanted
        .iter()
        .map(|reserve| match rows.remove(&reserve.id) {
            Some(attempt) if natural_key(&attempt) == reserve.key => {
                Ok(Reservation { first_line: attempt.next_line - reserve.lines, attempt })
            }
            _ => Err(ReserveError::Raced),
        })
        .collect()
}

async fn by_id(tx: &mut Connection, home: &Home, wanted: &[Reserve]) -> Result<HashMap<AttemptId, Attempt>> {
    let ids: Vec<AttemptId> = wanted.iter().map(|reserve| reserve.id).collect();
    let mut rows = HashMap::with_capacity(ids.len());
    for some in super::in_powers_of_two(&ids) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql::attempts_by_id(home.shard, some.len())));
        for id in some {
            query = query.bind(id.get());
        }
        for row in query.fetch_all(&mut *tx).await? {
            let attempt = Attempt::from_row(&row)?;
            rows.insert(attempt.id, attempt);
        }
    }
    Ok(rows)
}

impl Reserve {
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
