//! What failed by itself and is left alone for a while, with the reason, where `status` finds it.

use std::sync::Arc;

use sqlx::any::AnyRow;

use super::{Catalog, Lease, LeaseError, column, sql_aside};
use crate::db::{Connection, Db, Error, Home, Result, Shard};
use crate::model::{AttemptId, Millis};

/// What kind of thing was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsideKind {
    Attempt = 1,
    Object = 2,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    pub kind: AsideKind,
    /// An attempt's id, or a segment's.
    pub id: i64,
    /// Of an attempt.
    pub shard: u16,
    /// Its name for people.
    pub what: String,
    pub reason: String,
    /// In a row, this one included.
    pub failures: u32,
    pub first_at: Millis,
    pub last_at: Millis,
    /// `NEVER` after too many failures: then someone has to ask for it.
    pub next_at: Millis,
}

/// Longest text that is kept of a name or a reason.
const MAX_TEXT_BYTES: usize = 1024;

/// Rows of one page of the list.
const PAGE: u32 = 500;

impl Aside {
    fn from_row(row: &AnyRow) -> Result<Self> {
        let lossy = |name: &str| Ok::<_, Error>(String::from_utf8_lossy(column(row, name)?).into_owned());
        Ok(Self {
            kind: if column::<i32>(row, "kind")? == AsideKind::Attempt as i32 {
                AsideKind::Attempt
            } else {
                AsideKind::Object
            },
            id: column(row, "id")?,
            shard: column::<i32>(row, "shard")?.try_into().unwrap_or_default(),
            what: lossy("what")?,
            reason: lossy("reason")?,
            failures: column::<i32>(row, "failures")?.unsigned_abs(),
            first_at: Millis::new(column(row, "first_at")?),
            last_at: Millis::new(column(row, "last_at")?),
            next_at: Millis::new(column(row, "next_at")?),
        })
    }
}

impl Catalog {
    /// Notes that archiving an attempt failed; the archiver looks at it again at `due_at`.
    pub async fn set_attempt_aside(
        &self,
        home: &Home,
        lease: &Lease,
        aside: Aside,
        due_at: Millis,
    ) -> std::result::Result<(), LeaseError> {
        let (lease, home_in_tx) = (lease.clone(), home.clone());
        home.db
            .run_tx("catalog::set_aside", move |tx| {
                let (lease, home, aside) = (lease.clone(), home_in_tx.clone(), aside.clone());
                Box::pin(async move {
                    lease.assert_held(&home.db, tx).await?;
                    let update = sqlx::query(sqlx::AssertSqlSafe(sql_aside::set_attempt_aside(home.shard)));
                    let update = update.bind(aside.failures.cast_signed()).bind(due_at.get()).bind(aside.id);
                    update.execute(&mut *tx).await.map_err(Error::from)?;
                    upsert(tx, &home.db, &aside).await?;
                    Ok::<_, LeaseError>(())
                })
            })
            .await
    }

    /// Notes that work on an object failed.
    pub async fn set_object_aside(&self, db: &Arc<Db>, aside: &Aside) -> Result<()> {
        let mut connection = db.pool().acquire().await?;
        upsert(&mut connection, db, aside).await
    }

    /// It went well, or there is nothing any more that could fail.
    pub async fn no_longer_aside(&self, db: &Db, kind: AsideKind, id: i64) -> Result<()> {
        let mut connection = db.pool().acquire().await?;
        no_longer_aside(&mut connection, kind, id).await
    }

    /// What is set aside on a server, from behind a row on.
    pub async fn list_aside(&self, db: &Db, after: Option<(AsideKind, i64)>, limit: u32) -> Result<Vec<Aside>> {
        let (kind, id) = after.map_or((0, i64::MIN), |(kind, id)| (kind as i32, id));
        let query = sqlx::query(sql_aside::list()).bind(kind).bind(kind).bind(id).bind(i64::from(limit));
        query.fetch_all(db.pool()).await?.iter().map(Aside::from_row).collect()
    }

    /// How much is set aside on a server, counted up to `limit`.
    pub async fn count_aside(&self, db: &Db, limit: u32) -> Result<u64> {
        let found: i64 = sqlx::query_scalar(sql_aside::count()).bind(i64::from(limit)).fetch_one(db.pool()).await?;
        Ok(found.unsigned_abs())
    }

    /// Makes all that is set aside on a server due now; answers how much.
    pub async fn retry_aside(&self, db: &Arc<Db>, now: Millis) -> Result<u64> {
        let (mut after, mut retried) = (None, 0);
        loop {
            let page = self.list_aside(db, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(retried) };
            after = Some((last.kind, last.id));
            for aside in page {
                let statement = match aside.kind {
                    AsideKind::Attempt => sql_aside::retry_attempt(Shard::new(aside.shard)),
                    AsideKind::Object => sql_aside::retry_segment().to_owned(),
                };
                let update = sqlx::query(sqlx::AssertSqlSafe(statement));
                update.bind(now.get()).bind(aside.id).bind(now.get()).execute(db.pool()).await?;
                retried += 1;
            }
        }
    }
}

async fn upsert(tx: &mut Connection, db: &Db, aside: &Aside) -> Result<()> {
    let bytes = |text: &str| text.bytes().take(MAX_TEXT_BYTES).collect::<Vec<u8>>();
    let upsert = sqlx::query(sqlx::AssertSqlSafe(sql_aside::upsert(db.engine())))
        .bind(aside.kind as i32)
        .bind(aside.id)
        .bind(i32::from(aside.shard))
        .bind(bytes(&aside.what))
        .bind(bytes(&aside.reason))
        .bind(aside.failures.cast_signed())
        .bind(aside.first_at.get())
        .bind(aside.last_at.get())
        .bind(aside.next_at.get());
    upsert.execute(tx).await?;
    Ok(())
}

pub(super) async fn no_longer_aside(tx: &mut Connection, kind: AsideKind, id: i64) -> Result<()> {
    sqlx::query(sql_aside::delete()).bind(kind as i32).bind(id).execute(tx).await?;
    Ok(())
}

/// An attempt that is gone cannot fail any more.
pub(super) async fn attempt_is_gone(tx: &mut Connection, id: AttemptId) -> Result<()> {
    no_longer_aside(tx, AsideKind::Attempt, id.get()).await
}
