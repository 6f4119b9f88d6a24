//! The scrub: every object of the cold tier is read again now and then, slowly, and compared with the
//! catalog. Bytes that nobody reads go bad unseen.
//!
//! One daemon at a time reads the objects of a server, under a lease of its own. How far it is stands
//! in the server's database, so the next daemon goes on there. A pass that ends is the task's success;
//! its age is a metric, what it found stands in `status` until the object is well again or gone.
//!
//! The rate is kept over objects, not inside of one: a connection to a store that is read too slowly
//! is cut.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::compare::Needed;
use super::{Audit, AuditError};
use crate::catalog::{FindingRow, Lease, LeaseError};
use crate::db::Db;
use crate::model::{Age, Millis};
use crate::telemetry::Metrics;

/// The name of the task and of its lease.
const TASK: &str = "scrub";

/// Where each server keeps how far it is.
const META_KEY: &str = "scrub";

/// How often a daemon looks whether there is something to do.
const TICK: Duration = Duration::from_secs(60);

/// A daemon that was killed keeps the others out for so long; the largest object is read within it.
const LEASE_TTL: Duration = Duration::from_secs(900);

/// The lease is renewed so often while the rate makes it wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Objects asked for at a time.
const PAGE: u32 = 100;

#[derive(Debug, Clone)]
pub struct ScrubSettings {
    /// From the beginning of one pass to that of the next.
    pub every: Age,
    pub bytes_per_second: u64,
    /// Unlike any other process's.
    pub daemon: String,
}

/// How far the scrub of a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pass {
    pub began_at: i64,
    /// 0 while it lasts.
    pub ended_at: i64,
    /// The id of the last object that was read.
    pub at: i64,
    pub objects: u64,
    pub bytes: u64,
}

impl Pass {
    pub(super) async fn of(db: &Db) -> crate::db::Result<Self> {
        let stored = db.meta(META_KEY).await?;
        // What cannot be read is a pass that never was.
        Ok(stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    async fn store(&self, db: &Db) -> crate::db::Result<()> {
        db.set_meta(META_KEY, &serde_json::to_string(self).unwrap_or_default()).await
    }

    fn is_over(&self) -> bool {
        self.began_at == 0 || self.ended_at > 0
    }
}

/// The background task.
#[derive(Clone)]
pub struct Scrub {
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    pub settings: ScrubSettings,
    pub stop: CancellationToken,
}

/// Why a pass was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Failed(#[from] AuditError),
    /// Stopping, or another daemon goes on.
    #[error("the daemon is stopping")]
    Quietly,
}

impl From<crate::db::Error> for Left {
    fn from(error: crate::db::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<LeaseError> for Left {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost => Self::Quietly,
            LeaseError::Db(error) => error.into(),
        }
    }
}

impl Scrub {
    /// Scrubs whatever is due until the daemon stops.
    pub async fn run(&self) {
        if self.settings.every == Age::Forever {
            return;
        }
        while !self.stop.is_cancelled() {
            self.tick().await;
            tokio::select! {
                () = self.audit.clock.sleep(TICK) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// One look at every server, and a whole pass where one is due.
    pub async fn tick(&self) {
        let servers = self.audit.catalog.cluster.servers();
        futures::future::join_all(servers.iter().map(|db| self.tick_of(db))).await;
    }

    async fn tick_of(&self, db: &Arc<Db>) {
        let (catalog, clock) = (&self.audit.catalog, &self.audit.clock);
        let error = match self.server(db).await {
            Ok(false) | Err(Left::Quietly) => return,
            Ok(true) => None,
            Err(Left::Failed(error)) => Some(chain(&error)),
        };
        if let Some(error) = &error {
            tracing::warn!(error, "the scrub could not go on; it tries again");
            self.metrics.error(TASK);
        }
        // A database that is away is told by those who need it.
        let _ = catalog.task_ended(db, TASK, clock.now(), error.as_deref()).await;
    }

    /// Answers whether a pass has ended.
    async fn server(&self, db: &Arc<Db>) -> Result<bool, Left> {
        if !self.is_due(&Pass::of(db).await?) {
            return Ok(false);
        }
        let Some(lease) = Lease::take(db, TASK, &self.settings.daemon, LEASE_TTL).await? else { return Ok(false) };
        let done = self.pass(db, &lease).await;
        // If that fails it ends by itself.
        let _ = lease.release(db).await;
        done
    }

    fn is_due(&self, pass: &Pass) -> bool {
        match self.settings.every {
            Age::For(every) => !pass.is_over() || Millis::new(pass.began_at).after(every) <= self.audit.clock.now(),
            Age::Forever => false,
        }
    }

    async fn pass(&self, db: &Arc<Db>, lease: &Lease) -> Result<bool, Left> {
        // Another daemon may have ended it between the look and the lease.
        let mut pass = Pass::of(db).await?;
        if !self.is_due(&pass) {
            return Ok(false);
        }
        if pass.is_over() {
            pass = Pass { began_at: self.audit.clock.now().get(), at: i64::MIN, ..Pass::default() };
            pass.store(db).await?;
        }
        loop {
            let page = self.audit.catalog.segments_after(db, pass.at, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for row in page {
                let (id, bytes) = (row.segment.id.get(), row.segment.byte_length);
                if row.is_needed() {
                    let key = self.audit.key_of(db, &row.segment).await?;
                    self.object(db, Needed { server: db.number(), row, key }).await?;
                    (pass.objects, pass.bytes) = (pass.objects + 1, pass.bytes + bytes);
                }
                pass.at = id;
                lease.renew(db, LEASE_TTL).await?;
                pass.store(db).await?;
                self.rest(db, lease, bytes).await?;
            }
        }
        // What this pass did not find again is well or gone.
        self.audit.catalog.forget_findings(db, Millis::new(pass.began_at)).await?;
        pass.ended_at = self.audit.clock.now().get();
        pass.store(db).await?;
        if pass.objects > 0 {
            tracing::info!(scrub.objects = pass.objects, scrub.bytes = pass.bytes, "every object was read again");
        }
        Ok(true)
    }

    async fn object(&self, db: &Arc<Db>, object: Needed) -> Result<(), Left> {
        let found = tokio::select! {
            found = self.audit.read_whole(&object) => found?,
            () = self.stop.cancelled() => return Err(Left::Quietly),
        };
        self.metrics.scrubbed_objects.inc();
        let catalog = &self.audit.catalog;
        let Some(finding) = found else {
            return Ok(catalog.forget_finding(db, object.row.segment.id).await?);
        };
        tracing::error!(
            object = %object.key,
            finding.kind = finding.kind.as_str(),
            finding.hit = finding.hit,
            finding.what,
            "an object is not what the catalog says; `logtier verify` and docs/operations.md say what to do"
        );
        let row = FindingRow {
            segment: object.row.segment.id,
            kind: finding.kind.as_str().to_owned(),
            name: finding.name,
            what: finding.what,
            hit: finding.hit,
            found_at: self.audit.clock.now(),
        };
        Ok(catalog.put_finding(db, &row).await?)
    }

    /// Waits as long as the rate asks for, and keeps the lease meanwhile.
    async fn rest(&self, db: &Arc<Db>, lease: &Lease, bytes: u64) -> Result<(), Left> {
        let mut left = Duration::from_secs_f64(bytes as f64 / self.settings.bytes_per_second.max(1) as f64);
        while !left.is_zero() {
            let now = left.min(LONGEST_PAUSE);
            tokio::select! {
                () = self.audit.clock.sleep(now) => {}
                () = self.stop.cancelled() => return Err(Left::Quietly),
            }
            left -= now;
            if !left.is_zero() {
                lease.renew(db, LEASE_TTL).await?;
            }
        }
        Ok(())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
