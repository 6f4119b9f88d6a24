//! What the background work says of itself, where every daemon can read it.

use std::sync::Arc;
use std::time::Duration;

use super::{Catalog, column, sql, text};
use crate::db::{Db, Result};
use crate::model::Millis;

/// A daemon that has not been heard of for so long, six heartbeats, is not there and has no say.
pub const DAEMON_LIVES: Duration = Duration::from_secs(60);

/// A daemon that was alive lately.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonRow {
    pub name: String,
    /// A digest of the retention rules it holds to.
    pub rules: String,
    pub version: String,
    pub started_at: Millis,
    pub seen_at: Millis,
}

/// How a background task fared last, whichever daemon ran it. `Millis::ZERO` before the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskState {
    pub name: String,
    pub succeeded_at: Millis,
    pub failed_at: Millis,
    /// Of the last failure.
    pub error: String,
}

/// Who may do a task on a server, or did last. `Millis::ZERO` after it was released.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseRow {
    pub task: String,
    pub owner: String,
    /// By the database's clock.
    pub expires_at: Millis,
}

/// A run of the archiver; `report` is JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    pub id: i64,
    pub daemon: String,
    pub started_at: Millis,
    pub finished_at: Option<Millis>,
    pub report: String,
}

/// Longest error text that is kept.
const MAX_ERROR_BYTES: usize = 1024;

impl Catalog {
    /// Tells the others that this daemon lives, and which rules it holds to.
    pub async fn heartbeat(&self, db: &Db, daemon: &DaemonRow) -> Result<()> {
        let upsert = sqlx::query(sqlx::AssertSqlSafe(sql::upsert_daemon(db.engine())))
            .bind(daemon.name.as_bytes())
            .bind(daemon.rules.as_bytes())
            .bind(daemon.version.as_bytes())
            .bind(daemon.started_at.get())
            .bind(daemon.seen_at.get());
        upsert.execute(db.pool()).await?;
        Ok(())
    }

    /// Daemons seen since `since`, at most 1,000.
    pub async fn daemons(&self, db: &Db, since: Millis) -> Result<Vec<DaemonRow>> {
        let rows = sqlx::query(sql::daemons()).bind(since.get()).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(DaemonRow {
                    name: text(row, "name")?,
                    rules: text(row, "rules")?,
                    version: text(row, "version")?,
                    started_at: Millis::new(column(row, "started_at")?),
                    seen_at: Millis::new(column(row, "seen_at")?),
                })
            })
            .collect()
    }

    /// Takes this daemon, and all that were last seen before `before`, off the list.
    pub async fn forget_daemons(&self, db: &Db, name: &str, before: Millis) -> Result<()> {
        sqlx::query(sql::delete_daemons()).bind(name.as_bytes()).bind(before.get()).execute(db.pool()).await?;
        Ok(())
    }

    /// Notes how a task went.
    pub async fn task_ended(&self, db: &Db, task: &str, now: Millis, error: Option<&str>) -> Result<()> {
        let error = error.map(|text| text.bytes().take(MAX_ERROR_BYTES).collect::<Vec<u8>>());
        let (succeeded, failed) = if error.is_none() { (now.get(), 0) } else { (0, now.get()) };
        let upsert = sqlx::query(sqlx::AssertSqlSafe(sql::upsert_task(db.engine())))
            .bind(task.as_bytes())
            .bind(succeeded)
            .bind(failed)
            .bind(error.unwrap_or_default());
        upsert.execute(db.pool()).await?;
        Ok(())
    }

    pub async fn tasks(&self, db: &Db) -> Result<Vec<TaskState>> {
        let rows = sqlx::query(sql::tasks()).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(TaskState {
                    name: text(row, "name")?,
                    succeeded_at: Millis::new(column(row, "succeeded_at")?),
                    failed_at: Millis::new(column(row, "failed_at")?),
                    error: String::from_utf8_lossy(column(row, "error")?).into_owned(),
                })
            })
            .collect()
    }

    /// The leases of a server, held or not.
    pub async fn leases(&self, db: &Db) -> Result<Vec<LeaseRow>> {
        let rows = sqlx::query(sql::leases()).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(LeaseRow {
                    task: text(row, "task")?,
                    owner: text(row, "owner")?,
                    expires_at: Millis::new(column(row, "expires_at")?),
                })
            })
            .collect()
    }

    /// Stores a run's report, first without an end and then with it.
    pub async fn put_run(&self, db: &Arc<Db>, run: &RunRow) -> Result<()> {
        let upsert = sqlx::query(sqlx::AssertSqlSafe(sql::upsert_run(db.engine())))
            .bind(run.id)
            .bind(run.daemon.as_bytes())
            .bind(run.started_at.get())
            .bind(run.finished_at.map(Millis::get))
            .bind(run.report.as_bytes());
        upsert.execute(db.pool()).await?;
        Ok(())
    }

    /// The last runs, newest first; `id` picks one.
    pub async fn runs(&self, db: &Db, id: Option<i64>, limit: u32) -> Result<Vec<RunRow>> {
        let (from, to) = id.map_or((i64::MIN, i64::MAX), |id| (id, id));
        let rows = sqlx::query(sql::runs()).bind(from).bind(to).bind(i64::from(limit)).fetch_all(db.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(RunRow {
                    id: column(row, "id")?,
                    daemon: text(row, "daemon")?,
                    started_at: Millis::new(column(row, "started_at")?),
                    finished_at: column::<Option<i64>>(row, "finished_at")?.map(Millis::new),
                    report: text(row, "report")?,
                })
            })
            .collect()
    }

    /// Forgets all runs that started before `before`.
    pub async fn forget_runs(&self, db: &Db, before: Millis) -> Result<()> {
        sqlx::query(sql::delete_runs()).bind(before.get()).execute(db.pool()).await?;
        Ok(())
    }
}
