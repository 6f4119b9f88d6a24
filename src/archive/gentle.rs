//! The brake: rows leave the hot tier no faster than the database bears.
//!
//! Before a transaction that deletes, the brake looks whether it may: nobody has paused it, the clock is
//! inside of the window, not too many row locks are being waited for, no replica is too far behind. It
//! waits a while for what passes by itself, then leaves the rest to the next run.

use std::sync::Arc;
use std::time::Duration;

use super::{ArchiveError, Shared};
use crate::catalog::Lease;
use crate::db::{self, Db};
use crate::model::Millis;

/// How gently rows leave the hot tier.
#[derive(Clone)]
pub struct PurgeSettings {
    /// After each transaction it rests for this share of the time taken.
    pub rest: f64,
    pub max_lock_waits: u64,
    pub max_replica_lag: Duration,
    /// Each with the number of the server that it follows.
    pub replicas: Vec<(usize, Arc<Db>)>,
    /// Whether the moment is inside of the window.
    pub in_window: Arc<dyn Fn(Millis) -> bool + Send + Sync>,
}

impl Default for PurgeSettings {
    fn default() -> Self {
        Self {
            rest: 0.5,
            max_lock_waits: 10,
            max_replica_lag: Duration::from_secs(30),
            replicas: Vec::new(),
            in_window: Arc::new(|_| true),
        }
    }
}

/// How often it looks: no more than some dozens of transactions pass in between.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it waits for what passes by itself. The run holds the lease meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A replica that has not answered for so long counts as one that is behind.
const REPLICA_PATIENCE: Duration = Duration::from_secs(5);

/// The brake of one run on one server.
pub(super) struct Brake<'a> {
    shared: &'a Shared,
    db: &'a Arc<Db>,
    lease: &'a Lease,
    looked_at: Option<Millis>,
    /// Why nothing more is deleted in this run.
    pub stopped: Option<String>,
}

/// Why it may not go on now.
enum Reason {
    /// It passes by itself, perhaps soon.
    Busy(String),
    Stop(String),
}

impl<'a> Brake<'a> {
    pub fn new(shared: &'a Shared, db: &'a Arc<Db>, lease: &'a Lease) -> Self {
        Self { shared, db, lease, looked_at: None, stopped: None }
    }

    /// Whether the next transaction may run; waits for that a little.
    pub async fn may_go_on(&mut self) -> Result<bool, ArchiveError> {
        let clock = &self.shared.clock;
        let began = clock.now();
        loop {
            if self.shared.stop.is_cancelled() {
                return Err(ArchiveError::Stopping);
            }
            if self.stopped.is_some() {
                return Ok(false);
            }
            if self.looked_at.is_some_and(|at| clock.now().since(at) < LOOK_EVERY) {
                return Ok(true);
            }
            match self.look().await? {
                None => self.looked_at = Some(clock.now()),
                Some(Reason::Busy(_)) if clock.now().since(began) < PATIENCE => clock.sleep(LOOK_EVERY).await,
                Some(Reason::Busy(why) | Reason::Stop(why)) => self.stop(why),
            }
        }
    }

    /// Deletes nothing more in this run.
    pub fn stop(&mut self, why: String) {
        tracing::info!(db.number = self.db.number(), why, "purging waits for the next run");
        self.stopped = Some(why);
    }

    /// After a transaction that took so long.
    pub async fn rest(&self, took: Duration) {
        self.shared.clock.sleep(took.mul_f64(self.shared.settings.purge.rest)).await;
    }

    async fn look(&self) -> db::Result<Option<Reason>> {
        let (shared, settings) = (self.shared, &self.shared.settings.purge);
        if let Some(why) = shared.catalog.purge_paused(self.db).await? {
            return Ok(Some(Reason::Stop(format!("paused: {why}"))));
        }
        if !(settings.in_window)(shared.clock.now()) {
            return Ok(Some(Reason::Stop("it is outside of purge.window".to_owned())));
        }
        let waits = shared.catalog.lock_waits(self.db).await?.unwrap_or(0);
        if waits > settings.max_lock_waits {
            let most = settings.max_lock_waits;
            let why = format!("{waits} row locks are being waited for, more than purge.max_lock_waits = {most}");
            return Ok(Some(Reason::Busy(why)));
        }
        let number = self.db.number();
        for (n, (_, replica)) in settings.replicas.iter().filter(|(server, _)| *server == number).enumerate() {
            let asked = shared.catalog.replica_lag(self.db, replica, self.lease);
            let why = match tokio::time::timeout(REPLICA_PATIENCE, asked).await {
                Ok(Ok(lag)) if lag <= settings.max_replica_lag => continue,
                Ok(Ok(lag)) => format!("is {} s behind, more than purge.max_replica_lag", lag.as_secs()),
                Ok(Err(error)) => format!("does not answer: {}", crate::telemetry::chain(&error)),
                Err(_) => "does not answer".to_owned(),
            };
            return Ok(Some(Reason::Busy(format!("replica {} of server {number} {why}", n + 1))));
        }
        Ok(None)
    }
}
