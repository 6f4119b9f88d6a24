//! The move from the hot to the cold tier, and the end of what is too old for either.
//!
//! # Overview
//!
//! A run looks at every attempt that is due (`agenda`) and does what it needs. The dangerous part is
//! six verbs, each in a file of its own:
//!
//! ```text
//! claim    take the server's lease
//! plan     choose attempts for one object; commit its row under a fresh name
//! build    stream chunks into frames into the object
//! verify   read the object back and compare it with the chunk rows' hashes
//! publish  parts appear and watermarks rise
//! purge    after a grace time, chunks below the watermark go
//! ```
//!
//! Timer and "run now" are one path; one run at a time on a daemon, one at a time on a server.
//!
//! # Invariants
//!
//! - Verified, then published, then purged (I4). The types hold the order: only `verify` makes a
//!   `Verified`, which `publish` takes, and purging looks only at watermarks that were published.
//! - Whoever lost its lease changes nothing (I5): every transaction begins with the fence.
//! - Everything is bounded (I7): an attempt of any size streams through a few frames.
//!
//! # Crash consistency
//!
//! A crash leaves an `uploading` row, which the sweeper dooms after a day, or chunks below the
//! watermark, which the next run purges. Nothing else, and every step can be run again.
//!
//! # Cancellation
//!
//! A run that is told to stop gives up the object it is building. A run that is dropped (its lease
//! was lost) leaves what a crash leaves.

mod agenda;
mod aside;
mod bucket;
mod build;
mod candidates;
mod claim;
mod explain;
mod fate;
mod gentle;
mod marks;
mod objects;
mod plan;
mod pressure;
mod publish;
mod purge;
mod read_ahead;
mod reage;
mod report;
mod retire;
mod rewrite;
mod rules;
mod run;
mod sweep;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

pub use explain::{Explanation, Step};
pub use fate::RewriteSettings;
pub use gentle::PurgeSettings;
pub use marks::{Marked, WouldDelete};
pub use report::{End, Failure, Move, Rewrite, RunReport, Waiting};
pub use rules::rules_digest;

use crate::catalog::{Catalog, LeaseError, RunRow};
use crate::clock::Clock;
use crate::cold::Store;
use crate::cold::segment::SegmentSettings;
use crate::model::{Age, AttemptId, Millis, RuleSet};
use crate::telemetry::Metrics;

/// Why a run, or a part of it, did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("ask the hot tier")]
    Db(#[from] crate::db::Error),
    #[error("ask the cold tier")]
    Cold(#[from] crate::cold::Error),
    #[error("the lease was lost to another daemon")]
    LeaseLost,
    #[error("the daemon is stopping")]
    Stopping,
    /// Going by it, the run would expire what is not over.
    #[error(
        "this machine's clock shows {ours}, the database's {theirs}: nothing is moved or expired until they agree \
         to {} minutes; set the clock of the one that is wrong",
        claim::MAX_CLOCK_DIFFERENCE.as_secs() / 60
    )]
    ClockDiffers { ours: Millis, theirs: Millis },
    /// The object does not hold what the chunk rows say, or cannot be built. It is never published.
    #[error("verify {key}: {what}")]
    Mismatch {
        key: String,
        what: String,
        /// The attempt that it is about, where one can be told.
        culprit: Option<AttemptId>,
    },
    #[error(
        "the bucket is not this database's: {what}; nothing is archived or purged until cold.url leads to the right \
         one (restore it, or see `logtier rebuild-catalog`)"
    )]
    OtherBucket { what: String },
}

impl From<LeaseError> for ArchiveError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost => Self::LeaseLost,
            LeaseError::Db(error) => Self::Db(error),
        }
    }
}

impl ArchiveError {
    /// Whether the rest of the run would fail in the same way.
    fn stops_the_run(&self) -> bool {
        match self {
            Self::Db(error) => !matches!(error, crate::db::Error::Row(_)),
            Self::Cold(error) => !error.is_permanent() || matches!(error, crate::cold::Error::Refused { .. }),
            Self::LeaseLost | Self::Stopping | Self::ClockDiffers { .. } | Self::OtherBucket { .. } => true,
            Self::Mismatch { .. } => false,
        }
    }

    /// Whether it will be the same until someone changes a setting or a permission.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Db(error) => error.is_permanent() && !matches!(error, crate::db::Error::Row(_)),
            Self::Cold(error) => {
                matches!(error, crate::cold::Error::Refused { .. } | crate::cold::Error::Settings { .. })
            }
            Self::OtherBucket { .. } => true,
            Self::LeaseLost | Self::Stopping | Self::ClockDiffers { .. } | Self::Mismatch { .. } => false,
        }
    }

    /// With its causes, for reports and log lines.
    fn chain(&self) -> String {
        crate::telemetry::chain(self)
    }
}

/// Settings of the archiver.
#[derive(Clone)]
pub struct ArchiveSettings {
    pub rules: Arc<RuleSet>,
    pub idle_after: Duration,
    /// Compressed bytes at which an object is full.
    pub object_bytes: u64,
    /// A due attempt waits at most so long for company.
    pub max_delay: Duration,
    pub purge_grace: Duration,
    pub forget_after: Age,
    pub dedup_window: Duration,
    /// A daemon that was killed keeps the others out for so long.
    pub lease_ttl: Duration,
    /// An upload older than this is nobody's.
    pub abandoned_after: Duration,
    /// How long the name of a doomed object is deleted again and again.
    pub doomed_for: Duration,
    pub purge: PurgeSettings,
    pub rewrite: RewriteSettings,
    /// For so long after the rules changed, whatever the old ones kept longer stays.
    pub shrink_grace: Duration,
    /// Once the chunks of a server take more, attempts move early.
    pub pressure_bytes: Option<u64>,
    pub segment: SegmentSettings,
    /// Binds bucket and database together; stands in every object.
    pub cluster_id: String,
    /// Unlike any other process's, now or ever.
    pub daemon: String,
    /// The moment of the next scheduled run after the given one.
    pub next_run: Arc<dyn Fn(Millis) -> Option<Millis> + Send + Sync>,
}

/// The archiver. Clones share everything.
#[derive(Clone)]
pub struct Archiver {
    shared: Arc<Shared>,
    requests: mpsc::Sender<i64>,
}

struct Shared {
    catalog: Catalog,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: ArchiveSettings,
    stop: CancellationToken,
}

/// The archiver's work, which someone must [`Worker::run`].
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
    requests: Arc<Mutex<mpsc::Receiver<i64>>>,
}

/// Requests that wait for the run under way; more are refused.
const MAX_REQUESTS: usize = 16;

impl Archiver {
    pub fn new(
        catalog: Catalog,
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
        settings: ArchiveSettings,
        stop: CancellationToken,
    ) -> (Self, Worker) {
        let shared = Arc::new(Shared { catalog, store, clock, metrics, settings, stop });
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let worker = Worker { shared: Arc::clone(&shared), requests: Arc::new(Mutex::new(requests)) };
        (Self { shared, requests: sender }, worker)
    }

    /// Asks for a run of everything due, now. Answers with its id; a run that is under way is
    /// waited for first, so the new one sees everything that was committed before the call.
    pub async fn request_run(&self) -> Result<i64, ArchiveError> {
        let place = self.requests.try_reserve().map_err(|_| ArchiveError::Stopping)?;
        let id = self.shared.new_run_id();
        self.shared.put_report(id, &self.shared.new_report(id, "request")).await?;
        place.send(id);
        Ok(id)
    }

    /// Pauses purging and expiring on all daemons, within a second or a transaction, or lets it go on.
    pub async fn pause_purge(&self, why: Option<&str>) -> Result<(), ArchiveError> {
        let why = why.map(|why| format!("{why} (since {})", self.shared.clock.now()));
        for db in self.shared.catalog.cluster.servers() {
            self.shared.catalog.pause_purge(db, why.as_deref()).await?;
        }
        Ok(())
    }

    /// Makes all that was set aside due, so that the next run tries it again; answers how much that is.
    pub async fn retry_set_aside(&self) -> Result<u64, ArchiveError> {
        let mut retried = 0;
        for db in self.shared.catalog.cluster.servers() {
            retried += self.shared.catalog.retry_aside(db, self.shared.clock.now()).await?;
        }
        Ok(retried)
    }

    /// Waits until the run has ended, at most `patience`; its report as it stands then.
    pub async fn wait_for(&self, run_id: i64, patience: Duration) -> Result<Option<RunReport>, ArchiveError> {
        let clock = &self.shared.clock;
        let deadline = clock.instant() + patience;
        loop {
            let report = self.report(run_id).await?;
            let over = report.as_ref().is_none_or(|report| report.finished_at.is_some());
            if over || clock.instant() >= deadline {
                return Ok(report);
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a run would do now, and why.
    pub async fn dry_run(&self) -> Result<RunReport, ArchiveError> {
        run::rehearse(&self.shared).await
    }

    /// The report of one run, of whichever daemon.
    pub async fn report(&self, run_id: i64) -> Result<Option<RunReport>, ArchiveError> {
        Ok(self.shared.reports(Some(run_id), 1).await?.pop())
    }

    /// Reports of the last runs of any daemon, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunReport>, ArchiveError> {
        self.shared.reports(None, limit).await
    }

    /// When the schedule starts the next run.
    pub fn next_scheduled(&self) -> Option<Millis> {
        (self.shared.settings.next_run)(self.shared.clock.now())
    }
}

impl Worker {
    /// Runs on schedule and on request until the daemon stops.
    pub async fn run(&self) {
        let mut requests = self.requests.lock().await;
        let shared = &self.shared;
        let mut refusals = Refusals::default();
        while !shared.stop.is_cancelled() {
            let now = shared.clock.now();
            let next = (shared.settings.next_run)(now.max(refusals.until)).unwrap_or(Millis::NEVER);
            tokio::select! {
                () = shared.stop.cancelled() => {}
                Some(id) = requests.recv() => {
                    refusals.note(shared, run::run(shared, id, run::Cause::Request).await);
                }
                () = shared.clock.sleep(next.since(now).min(LONGEST_SLEEP)) => {
                    if shared.clock.now() >= next {
                        let refused = run::run(shared, shared.new_run_id(), run::Cause::Schedule).await;
                        refusals.note(shared, refused);
                    }
                }
            }
        }
    }
}

impl Worker {
    /// What the schedule starts: one run over what is due and has waited long enough for company.
    pub async fn run_once(&self) {
        run::run(&self.shared, self.shared.new_run_id(), run::Cause::Schedule).await;
    }
}

/// Runs that were refused for a reason that only a person can change: bad credentials, a missing
/// bucket, a missing permission. The schedule waits longer each time; a request is tried at once.
#[derive(Default)]
struct Refusals {
    in_a_row: u32,
    until: Millis,
}

impl Refusals {
    fn note(&mut self, shared: &Shared, refused: Option<String>) {
        let Some(why) = refused else { return *self = Self::default() };
        let pause = (FIRST_PAUSE * (1 << self.in_a_row.min(8))).min(LONGEST_PAUSE);
        self.in_a_row += 1;
        self.until = shared.clock.now().after(pause);
        tracing::error!(
            error = why,
            until = %self.until,
            "archiving is refused and waits: check the credentials and the names in [cold] and [hot], then run \
             `logtier archive`"
        );
    }
}

/// Twice the usual time between two runs.
const FIRST_PAUSE: Duration = Duration::from_secs(20 * 60);

/// Someone who mended it and told nobody waits for so long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// A clock that is set forward is noticed after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

impl Shared {
    /// Rises with time, fits a JSON number.
    fn new_run_id(&self) -> i64 {
        self.clock.now().get() * 1000 + i64::from(self.clock.random_u32() % 1000)
    }

    /// Reports of all servers stand on the first.
    fn report_db(&self) -> &Arc<crate::db::Db> {
        &self.catalog.cluster.servers()[0]
    }

    fn new_report(&self, id: i64, cause: &str) -> RunReport {
        RunReport {
            run_id: id.to_string(),
            daemon: self.settings.daemon.clone(),
            cause: cause.to_owned(),
            state: "running".to_owned(),
            started_at: self.clock.now().to_string(),
            ..RunReport::default()
        }
    }

    async fn put_report(&self, id: i64, report: &RunReport) -> Result<(), ArchiveError> {
        let row = RunRow {
            id,
            daemon: report.daemon.clone(),
            started_at: Millis::new(id / 1000),
            finished_at: report.finished_at.is_some().then(|| self.clock.now()),
            report: serde_json::to_string(report).unwrap_or_default(),
        };
        Ok(self.catalog.put_run(self.report_db(), &row).await?)
    }

    /// Reports as they were stored, but that nothing runs on a daemon that died.
    async fn reports(&self, run_id: Option<i64>, limit: u32) -> Result<Vec<RunReport>, ArchiveError> {
        let db = self.report_db();
        let rows = self.catalog.runs(db, run_id, limit).await?;
        let mut reports: Vec<RunReport> = rows.into_iter().map(|row| self.report_of(row)).collect();
        let is_others = |report: &RunReport| report.state == "running" && report.daemon != self.settings.daemon;
        if reports.iter().any(is_others) {
            let since = Millis::new(self.clock.now().get() - crate::catalog::DAEMON_LIVES.as_millis() as i64);
            let alive = self.catalog.daemons(db, since).await?;
            for report in reports.iter_mut().filter(|report| is_others(report)) {
                if alive.iter().all(|daemon| daemon.name != report.daemon) {
                    "abandoned".clone_into(&mut report.state);
                }
            }
        }
        Ok(reports)
    }

    fn report_of(&self, row: RunRow) -> RunReport {
        serde_json::from_str(&row.report).unwrap_or_else(|_| RunReport {
            run_id: row.id.to_string(),
            daemon: row.daemon,
            state: "unreadable".to_owned(),
            ..RunReport::default()
        })
    }
}
