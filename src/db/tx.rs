//! Transactions that are never dropped half-way and are run again when they lose a race.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
        let mut tx = self.pool.begin_with(self.engine.begin()).await.map_err(Error::from)?;
        match body(&mut tx).await {
            Ok(value) => {
                tx.commit().await.map_err(Error::from)?;
                Ok(value)
            }
            Err(error) => {
                // A rollback that fails breaks the connection, which rolls back as well.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }
}

/// 10, 20, 40 … ms, each half fixed and half random, so that two losers do not meet again.
fn backoff(tried: u32) -> Duration {
    let whole = 10u64 << tried.min(6);
    Duration::from_millis(whole / 2 + u64::from(clock::random_u32()) % (whole / 2))
}
