//! The end of an attempt: expired or deleted, then forgotten.
//!
//! Retiring takes it from every read at once and gives up its parts in the same transaction.
//! Its chunks and its row go later, in the archiver's own time.

use std::collections::BTreeMap;

use super::aside::attempt_is_gone;
use super::publish::{Death, count_dead};
use super::{Attempt, Catalog, Lease, LeaseError, Seen, column, sql};
use crate::db::{Connection, Error, Home, Result};
use crate::model::{AttemptId, AttemptState, Millis};

impl Catalog {
    /// Expires an attempt whose retention is over. Answers false when the row changed since it
    /// was read or is held; it then stays due.
    pub async fn expire(
        &self,
        home: &Home,
        lease: &Lease,
        attempt: &Attempt,
        now: Millis,
    ) -> std::result::Result<bool, LeaseError> {
        let (lease, home_in_tx, seen) = (lease.clone(), home.clone(), attempt.seen());
        home.db
            .run_tx("catalog::expire", move |tx| {
                let (lease, home) = (lease.clone(), home_in_tx.clone());
                Box::pin(async move {
                    lease.assert_held(&home.db, tx).await?;
                    Ok::<_, LeaseError>(retire(tx, &home, seen, AttemptState::Expired, now).await?)
                })
            })
            .await
    }

    /// Takes an attempt from every read at once, because someone asked for it. Answers false where
    /// it is held. One that is gone already stays as it is.
    ///
    /// Needs no lease: a run that is archiving the attempt finds its state and gives it no part.
    pub async fn delete(&self, home: &Home, id: AttemptId, now: Millis) -> Result<bool> {
        let home_in_tx = home.clone();
        home.db
            .run_tx("catalog::delete", move |tx| {
                let home = home_in_tx.clone();
                Box::pin(async move {
                    let update = sqlx::query(sqlx::AssertSqlSafe(sql::delete_attempt(home.shard)));
                    let update = update.bind(now.get()).bind(now.get()).bind(id.get());
                    if update.execute(&mut *tx).await?.rows_affected() == 1 {
                        give_up_parts(tx, &home, id, Death::Deleted, now).await?;
                        return Ok(true);
                    }
                    let held = sqlx::query_scalar::<_, i32>(sqlx::AssertSqlSafe(sql::is_held(home.shard)));
                    Ok::<_, Error>(held.bind(id.get()).fetch_optional(tx).await? != Some(1))
                })
            })
            .await
    }

    /// Puts a legal hold on an attempt or takes it off. While it is on, nothing of it goes.
    pub async fn set_hold(&self, home: &Home, id: AttemptId, on: bool, now: Millis) -> Result<()> {
        let update = sqlx::query(sqlx::AssertSqlSafe(sql::set_hold(home.shard)));
        update.bind(i32::from(on)).bind(now.get()).bind(now.get()).bind(id.get()).execute(home.db.pool()).await?;
        Ok(())
    }

    /// Deletes the row of an attempt that is gone and has neither chunks nor parts.
    pub async fn forget(&self, home: &Home, lease: &Lease, id: AttemptId) -> std::result::Result<(), LeaseError> {
        let (lease, home_in_tx) = (lease.clone(), home.clone());
        home.db
            .run_tx("catalog::forget", move |tx| {
                let (lease, home) = (lease.clone(), home_in_tx.clone());
                Box::pin(async move {
                    lease.assert_held(&home.db, tx).await?;
                    let delete = sqlx::query(sqlx::AssertSqlSafe(sql::forget_attempt(home.shard)));
                    delete.bind(id.get()).execute(tx).await.map_err(Error::from)?;
                    Ok::<_, LeaseError>(())
                })
            })
            .await
    }
}

async fn retire(tx: &mut Connection, home: &Home, seen: Seen, state: AttemptState, now: Millis) -> Result<bool> {
    let update = sqlx::query(sqlx::AssertSqlSafe(sql::retire_attempt(home.shard)));
    let update = update.bind(state.code() as i32).bind(now.get()).bind(now.get());
    if seen.bind(update).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    give_up_parts(tx, home, seen.id, Death::Expired, now).await?;
    Ok(true)
}

async fn give_up_parts(tx: &mut Connection, home: &Home, id: AttemptId, death: Death, now: Millis) -> Result<()> {
    attempt_is_gone(tx, id).await?;
    let find = sqlx::query(sqlx::AssertSqlSafe(sql::parts_of(home.shard)));
    let mut dead = BTreeMap::new();
    for row in find.bind(id.get()).fetch_all(&mut *tx).await? {
        let counted = dead.entry(column::<i64>(&row, "segment_id")?).or_insert((0i64, 0i64));
        counted.0 += 1;
        counted.1 += column::<i64>(&row, "line_count")?;
    }
    let delete = sqlx::query(sqlx::AssertSqlSafe(sql::delete_parts(home.shard)));
    delete.bind(id.get()).execute(&mut *tx).await?;
    count_dead(tx, &dead, death, now).await
}
