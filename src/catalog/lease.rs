//! Who may move data on a server.
//!
//! A lease is a row with an owner, a fence and an end by the database's clock. Taking it over
//! raises the fence. Every transaction that publishes or purges begins with
//! [`Lease::assert_held`], an UPDATE: it locks the row until the commit, so that no successor can
//! come in between. (A SELECT or an EXISTS in the same place lets one in; measured.)

use std::sync::Arc;
use std::time::Duration;

use super::{LeaseError, sql};
use crate::db::{Connection, Db, Error, Result};

/// A lease that this process took. Proof for everything that publishes or destroys; whether it is
/// still held is known only inside a transaction.
#[derive(Debug, Clone)]
pub struct Lease {
    task: &'static str,
    owner: String,
    fence: i64,
}

impl Lease {
    /// Takes the lease if nobody holds it. `owner` must be unlike any other process's.
    pub async fn take(db: &Arc<Db>, task: &'static str, owner: &str, ttl: Duration) -> Result<Option<Self>> {
        let ttl = millis(ttl);
        let wanted = owner.to_owned();
        let statements = sql::TakeLease::new(db);
        let fence = db.run_tx("catalog::lease_take", move |tx| {
            let (wanted, statements) = (wanted.clone(), statements.clone());
            Box::pin(async move {
                let insert = sqlx::query(sqlx::AssertSqlSafe(statements.insert)).bind(task.as_bytes());
                insert.execute(&mut *tx).await?;
                let take = sqlx::query(sqlx::AssertSqlSafe(statements.take));
                let take = take.bind(wanted.as_bytes().to_vec()).bind(ttl).bind(task.as_bytes());
                if take.execute(&mut *tx).await?.rows_affected() == 0 {
                    return Ok(None);
                }
                let fence: i64 = sqlx::query_scalar(sql::lease_fence()).bind(task.as_bytes()).fetch_one(tx).await?;
                Ok::<_, Error>(Some(fence))
            })
        });
        Ok(fence.await?.map(|fence| Self { task, owner: owner.to_owned(), fence }))
    }

    /// Moves its end to `ttl` from now; an error if it is over.
    pub async fn renew(&self, db: &Arc<Db>, ttl: Duration) -> std::result::Result<(), LeaseError> {
        let statement = sqlx::AssertSqlSafe(sql::renew_lease(db));
        let renew = sqlx::query(statement).bind(millis(ttl));
        let renewed = self.bind(renew).execute(db.pool()).await.map_err(Error::from)?;
        if renewed.rows_affected() == 1 { Ok(()) } else { Err(LeaseError::Lost) }
    }

    /// Lets the next one in at once. Losing it before is no error.
    pub async fn release(self, db: &Arc<Db>) -> Result<()> {
        self.bind(sqlx::query(sql::release_lease())).execute(db.pool()).await?;
        Ok(())
    }

    /// The first statement of every transaction that publishes or purges.
    pub async fn assert_held(&self, db: &Db, tx: &mut Connection) -> std::result::Result<(), LeaseError> {
        let statement = sqlx::AssertSqlSafe(sql::assert_lease(db));
        let held = self.bind(sqlx::query(statement)).execute(tx).await.map_err(Error::from)?;
        if held.rows_affected() == 1 { Ok(()) } else { Err(LeaseError::Lost) }
    }

    pub fn fence(&self) -> i64 {
        self.fence
    }

    pub fn task(&self) -> &'static str {
        self.task
    }

    fn bind<'q>(&self, query: super::Query<'q>) -> super::Query<'q> {
        query.bind(self.task.as_bytes().to_vec()).bind(self.owner.as_bytes().to_vec()).bind(self.fence)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
