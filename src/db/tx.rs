//! Transactions that are never dropped half-way and are run again when they lose a race.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;

use super::{Connection, Db, Error};
use crate::{clock, pause};

/// What a transaction's body returns.
pub type TxFuture<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// An error that a transaction's body may end with. Any error rolls back.
pub trait TxError: From<Error> + Send + 'static {
    /// Whether to run the body again.
    fn is_contended(&self) -> bool;
}

impl TxError for Error {
    fn is_contended(&self) -> bool {
        self.is_contended()
    }
}

/// With pauses that double from 10 ms, the last try begins within about 600 ms.
const MAX_TRIES: u32 = 6;

impl Db {
    /// Runs `body` in a transaction and commits, in a task that outlives the caller.
    ///
    /// The body may run up to `MAX_TRIES` times, so it must do nothing but database work.
    /// Each attempt sees READ COMMITTED on MySQL and holds the write lock from the start on SQLite.
    pub async fn run_tx<T, E, F>(self: &Arc<Self>, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'c> Fn(&'c mut Connection) -> TxFuture<'c, T, E> + Send + Sync + 'static,
    {
        if pause::cut_off_before(name, &self.clock).await {
            return Err(Error::Unavailable(sqlx::Error::PoolClosed).into());
        }
        let db = Arc::clone(self);
        let ended = self.tasks.spawn(async move { db.try_tx(name, body).await }).await;
        if pause::cut_off_after(name, &self.clock).await {
            return Err(Error::Unavailable(sqlx::Error::PoolClosed).into());
        }
        match ended {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down; whether the transaction committed is not known.
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolClosed).into()),
        }
    }

    async fn try_tx<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        E: TxError,
        F: for<'c> Fn(&'c mut Connection) -> TxFuture<'c, T, E> + Send + Sync,
    {
        for tried in 1.. {
            match self.one_tx(&body).await {
                Err(error) if error.is_contended() && tried < MAX_TRIES => {
                    tracing::debug!(tx.name = name, tx.tried = tried, "transaction lost a race, running it again");
                    self.clock.sleep(backoff(tried)).await;
                }
                result => return result,
            }
        }
        unreachable!("the last try returns")
    }

    async fn one_tx<T, E, F>(&self, body: &F) -> Result<T, E>
    where
        E: TxError,
        F: for<'c> Fn(&'c mut Connection) -> TxFuture<'c, T, E> + Send + Sync,
    {
        let _turn = match &self.writers {
            Some(writers) => writers.acquire().await.ok(),
            None => None,
        };
        let mut connection = self.pool.acquire().await.map_err(Error::from)?;
        let (result, is_sound) = self.on_connection(&mut connection, body).await;
        if !is_sound {
            // Given back, it would carry an open transaction to the next one (a full disk makes such).
            drop(connection.detach());
        }
        result
    }

    /// The body in a transaction, and whether the connection may be used again: only when its transaction
    /// surely ended.
    async fn on_connection<T, E, F>(&self, connection: &mut Connection, body: &F) -> (Result<T, E>, bool)
    where
        E: TxError,
        F: for<'c> Fn(&'c mut Connection) -> TxFuture<'c, T, E> + Send + Sync,
    {
        let mut tx = match connection.begin_with(self.engine.begin()).await {
            Ok(tx) => tx,
            Err(error) => return (Err(Error::from(error).into()), false),
        };
        match body(&mut tx).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => (Ok(value), true),
                Err(error) => (Err(Error::from(error).into()), false),
            },
            Err(error) => {
                let rolled_back = tx.rollback().await;
                (Err(error), rolled_back.is_ok())
            }
        }
    }
}

/// 10, 20, 40 … ms, each half fixed and half random, so that two losers do not meet again.
fn backoff(tried: u32) -> Duration {
    let whole = 10u64 << tried.min(6);
    Duration::from_millis(whole / 2 + u64::from(clock::random_u32()) % (whole / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::DbSettings;

    #[tokio::test]
    async fn a_transaction_that_ended_badly_is_not_the_next_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let settings = DbSettings { url, max_connections: 1, acquire_timeout: Duration::from_secs(5) };
        let db = Db::connect(&settings, 0, Vec::new(), clock::Clock::default()).await.expect("opened");
        let db = Arc::new(db);
        // As SQLite does by itself when its disk is full: the transaction is gone, and ROLLBACK fails.
        let broken: Result<(), Error> = db
            .run_tx("t", |tx| {
                Box::pin(async move {
                    sqlx::query("ROLLBACK").execute(&mut *tx).await?;
                    Err(Error::Row("full".to_owned()))
                })
            })
            .await;
        assert!(broken.is_err());
        for _ in 0..2 {
            let next: Result<i64, Error> = db
                .run_tx("t", |tx| {
                    Box::pin(async move { Ok(sqlx::query_scalar("SELECT 1").fetch_one(&mut *tx).await?) })
                })
                .await;
            assert_eq!(next.expect("a connection of its own"), 1);
        }
    }
}
