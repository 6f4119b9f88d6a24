//! Retention rules that the daemons agreed on, and ages that reach every attempt when they change.

use std::sync::Arc;

use super::attempts::fenced;
use super::{Attempt, Catalog, Lease, LeaseError, Seen, column, sql_rules, text};
use crate::db::{Db, Error, Home, Result};
use crate::model::{AttemptId, Millis};

/// A set of rules that once counted on this server, or still does.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSetRow {
    pub digest: String,
    /// As JSON, which only the archiver reads.
    pub rules: String,
    pub published_at: Millis,
    /// `None` for the set that counts.
    pub replaced_at: Option<Millis>,
}

/// What changed rules mean for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewAge {
    pub seen: Seen,
    pub expires_at: Option<Millis>,
    pub due_at: Millis,
}

/// Sets that are remembered, for the ages of rules that were removed: a set has some kilobytes.
const MAX_RULE_SETS: usize = 64;

impl Catalog {
    /// The last sets that were published, newest first.
    pub async fn rule_sets(&self, db: &Db) -> Result<Vec<RuleSetRow>> {
        let rows = sqlx::query(sql_rules::rule_sets()).bind(MAX_RULE_SETS as i64).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(RuleSetRow {
                    digest: text(row, "digest")?,
                    rules: text(row, "rules")?,
                    published_at: Millis::new(column(row, "published_at")?),
                    replaced_at: column::<Option<i64>>(row, "replaced_at")?.map(Millis::new),
                })
            })
            .collect()
    }

    /// Publishes sets, the last of which counts from now on.
    pub async fn publish_rules(
        &self,
        db: &Arc<Db>,
        lease: &Lease,
        sets: Vec<RuleSetRow>,
        now: Millis,
    ) -> std::result::Result<(), LeaseError> {
        let known = self.rule_sets(db).await?;
        let oldest = known.get(MAX_RULE_SETS - 1).map_or(Millis::ZERO, |set| set.published_at);
        let (lease, db_in_tx) = (lease.clone(), Arc::clone(db));
        db.run_tx("catalog::publish_rules", move |tx| {
            let (lease, db, sets) = (lease.clone(), Arc::clone(&db_in_tx), sets.clone());
            Box::pin(async move {
                lease.assert_held(&db, tx).await?;
                let replace = sqlx::query(sql_rules::replace_rule_set()).bind(now.get());
                replace.execute(&mut *tx).await.map_err(Error::from)?;
                for set in sets {
                    let upsert = sqlx::query(sqlx::AssertSqlSafe(sql_rules::upsert_rule_set(db.engine())))
                        .bind(set.digest.into_bytes())
                        .bind(set.rules.into_bytes())
                        .bind(set.published_at.get())
                        .bind(set.replaced_at.map(Millis::get));
                    upsert.execute(&mut *tx).await.map_err(Error::from)?;
                }
                let forget = sqlx::query(sql_rules::forget_rule_sets()).bind(oldest.get());
                forget.execute(tx).await.map_err(Error::from)?;
                Ok::<_, LeaseError>(())
            })
        })
        .await
    }

    /// Attempts in the order of their ids from behind `after`, whatever their state.
    pub async fn attempts_after(&self, home: &Home, after: AttemptId, limit: u32) -> Result<Vec<Attempt>> {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql_rules::attempts_after(home.shard))).bind(after.get());
        let rows = query.bind(i64::from(limit)).fetch_all(home.db.pool()).await?;
        rows.iter().map(Attempt::from_row).collect()
    }

    /// Sets when attempts expire and are looked at; one that changed since it was read stays as it is.
    pub async fn set_ages(&self, home: &Home, lease: &Lease, rows: Vec<NewAge>) -> std::result::Result<(), LeaseError> {
        fenced(home, lease, "catalog::set_ages", rows, |tx, _, shard, new| {
            Box::pin(async move {
                let query = sqlx::query(sqlx::AssertSqlSafe(sql_rules::set_age(shard)));
                let query = query.bind(new.expires_at.map(Millis::get)).bind(new.due_at.get());
                new.seen.bind(query).execute(tx).await.map(drop).map_err(Error::from)
            })
        })
        .await
    }

    /// Bytes that the chunks of a server take, as it estimates them.
    pub async fn hot_bytes(&self, db: &Db) -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(sql_rules::hot_bytes(db.engine())).fetch_one(db.pool()).await?;
        Ok(bytes.unsigned_abs())
    }
}
