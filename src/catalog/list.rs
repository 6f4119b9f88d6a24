//! Lists of apps, jobs and attempts, newest first.

use std::sync::Arc;

use super::{Attempt, Catalog, Kind, column, sql, text};
use crate::db::{Db, Error, Home, Result, Shard};
use crate::model::{App, AttemptId, Job, Millis, Outcome, ShownState};

/// Which attempts to list; `None` and empty match all, but those that are expired or deleted are
/// listed only where that state is asked for.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    pub app: Option<App>,
    pub job: Option<Job>,
    pub labels: Vec<(String, String)>,
    pub state: Option<ShownState>,
    pub outcome: Option<Outcome>,
    /// By creation, `since` included, `until` not.
    pub since: Option<Millis>,
    pub until: Option<Millis>,
}

/// An attempt with its names.
#[derive(Debug, Clone)]
pub struct Listed {
    pub app: App,
    pub job: Option<Job>,
    pub attempt: Attempt,
}

/// A page of attempts.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    pub attempts: Vec<Listed>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<AttemptId>,
}

/// Rows that one page may look at in each shard before it ends early with a cursor.
const MAX_SCANNED: u32 = 5_000;

impl Catalog {
    /// Attempts made before `before`, newest first, at most `limit`. A page may hold fewer and
    /// still name a next one, when the filter let little through.
    pub async fn list(
        &self,
        filter: &ListFilter,
        before: Option<AttemptId>,
        limit: usize,
        now: Millis,
    ) -> Result<ListPage> {
        let shards = self.cluster.servers().iter().flat_map(|db| {
            db.shards()
                .iter()
                .map(move |&shard| self.list_shard(Home { db: Arc::clone(db), shard }, filter, before, limit, now))
        });
        let pages = futures::future::try_join_all(shards).await?;
        merged(self, pages, limit).await
    }

    /// What one shard has, and where it stopped looking if it did not reach the end.
    async fn list_shard(
        &self,
        home: Home,
        filter: &ListFilter,
        before: Option<AttemptId>,
        limit: usize,
        now: Millis,
    ) -> Result<ShardPage> {
        let nothing = Ok((Vec::new(), None));
        let Some(app) = self.number_if_named(&home, Kind::App, filter.app.as_ref().map(App::as_str)).await? else {
            return nothing;
        };
        let Some(job) = self.number_if_named(&home, Kind::Job, filter.job.as_ref().map(Job::as_str)).await? else {
            return nothing;
        };
        let mut below = before.map_or(i64::MAX, AttemptId::get);
        let mut found = Vec::new();
        for _ in 0..MAX_SCANNED.div_ceil(LIST_PAGE) {
            let rows = list_rows(&home, app, job, below).await?;
            let last = rows.last().map(|attempt| attempt.id);
            let ended = rows.len() < LIST_PAGE as usize
                || filter.since.is_some_and(|since| rows.last().is_some_and(|row| row.created_at < since));
            found
                .extend(rows.into_iter().filter(|row| filter.matches(row, now)).map(|row| (Arc::clone(&home.db), row)));
            match last {
                Some(last) if !ended && found.len() <= limit => below = last.get(),
                Some(last) if !ended => return Ok((found, Some(last))),
                _ => return Ok((found, None)),
            }
        }
        Ok((found, Some(AttemptId::stored(below))))
    }

    /// `Some(None)` where no name is asked for, `None` where the name is not known here.
    async fn number_if_named(&self, home: &Home, kind: Kind, name: Option<&str>) -> Result<Option<Option<i32>>> {
        match name {
            None => Ok(Some(None)),
            Some(name) => Ok(self.find_name(&home.db, kind, name).await?.map(Some)),
        }
    }

    /// How many runs of a job, neither expired nor deleted, are newer than `id`, counted up to `limit`.
    pub async fn newer_runs(&self, app: &App, job: &Job, id: AttemptId, limit: u32) -> Result<u32> {
        let mut newer = 0;
        for db in self.cluster.servers() {
            let app_id = self.find_name(db, Kind::App, app.as_str()).await?;
            let job_id = self.find_name(db, Kind::Job, job.as_str()).await?;
            let Some((app_id, job_id)) = app_id.zip(job_id) else { continue };
            for &shard in db.shards() {
                let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql::newer_runs(shard)));
                let query = query.bind(app_id).bind(job_id).bind(id.get()).bind(i64::from(limit - newer));
                newer += query.fetch_all(db.pool()).await?.len() as u32;
                if newer >= limit {
                    return Ok(limit);
                }
            }
        }
        Ok(newer)
    }

    /// Names of all apps after `after`, in order, at most `limit`.
    pub async fn apps(&self, after: &str, limit: u32) -> Result<Vec<String>> {
        let mut apps = Vec::new();
        for db in self.cluster.servers() {
            let query = sqlx::query(sql::names()).bind(Kind::App as i32).bind(after.as_bytes()).bind(i64::from(limit));
            for row in query.fetch_all(db.pool()).await? {
                apps.push(text(&row, "name")?);
            }
        }
        apps.sort();
        apps.dedup();
        apps.truncate(limit as usize);
        Ok(apps)
    }

    /// Names of an app's jobs, in order, at most `limit` from each shard.
    pub async fn jobs(&self, app: &App, limit: u32) -> Result<Vec<String>> {
        let mut jobs = Vec::new();
        for db in self.cluster.servers() {
            let Some(app_id) = self.find_name(db, Kind::App, app.as_str()).await? else { continue };
            for &shard in db.shards() {
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql::jobs(shard))).bind(app_id);
                let numbers: Vec<i32> = query.bind(i64::from(limit)).fetch_all(db.pool()).await?;
                for number in numbers.into_iter().filter(|number| *number != 0) {
                    jobs.push(self.name_of(db, number).await?.to_string());
                }
            }
        }
        jobs.sort();
        jobs.dedup();
        Ok(jobs)
    }
}

/// What one shard has, and where it stopped looking if it did not reach the end.
pub(super) type ShardPage = (Vec<(Arc<Db>, Attempt)>, Option<AttemptId>);

/// A page of what the shards have.
pub(super) async fn merged(catalog: &Catalog, pages: Vec<ShardPage>, limit: usize) -> Result<ListPage> {
    // Below the highest point where a shard stopped looking, that shard may have more.
    let stopped = pages.iter().filter_map(|(_, stopped)| *stopped).max();
    let mut found: Vec<(Arc<Db>, Attempt)> = pages.into_iter().flat_map(|(found, _)| found).collect();
    found.retain(|(_, attempt)| stopped.is_none_or(|stopped| attempt.id >= stopped));
    found.sort_by_key(|(_, attempt)| std::cmp::Reverse(attempt.id));
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|(_, attempt)| attempt.id) } else { stopped };
    let mut page = ListPage { attempts: Vec::with_capacity(found.len()), next };
    for (db, attempt) in found {
        let app = catalog.optional_name(&db, attempt.app_id).await?;
        let app = app.ok_or_else(|| Error::Row("an attempt without an app".to_owned()))?;
        let job = catalog.optional_name(&db, attempt.job_id).await?;
        page.attempts.push(Listed { app, job, attempt });
    }
    Ok(page)
}

impl ListFilter {
    /// Whether an attempt of the right app, with this job, is one of those that are asked for.
    pub fn holds(&self, job: Option<&Job>, attempt: &Attempt, now: Millis) -> bool {
        self.job.as_ref().is_none_or(|wanted| job == Some(wanted)) && self.matches(attempt, now)
    }

    fn matches(&self, attempt: &Attempt, now: Millis) -> bool {
        self.outcome.is_none_or(|outcome| attempt.outcome == Some(outcome))
            && self.state.map_or(!attempt.state_at(now).is_gone(), |state| attempt.shown_state(now) == state)
            && self.since.is_none_or(|since| attempt.created_at >= since)
            && self.until.is_none_or(|until| attempt.created_at < until)
            && self.labels.iter().all(|(name, value)| attempt.labels.get(name) == Some(value))
    }
}

const LIST_PAGE: u32 = 200;

async fn list_rows(home: &Home, app: Option<i32>, job: Option<i32>, below: i64) -> Result<Vec<Attempt>> {
    let statement = sql::list_attempts(home.db.engine(), home.shard, app.is_some(), job.is_some());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
    for number in [app, job].into_iter().flatten() {
        query = query.bind(number);
    }
    let rows = query.bind(below).bind(i64::from(LIST_PAGE)).fetch_all(home.db.pool()).await?;
    rows.iter().map(Attempt::from_row).collect()
}

/// Estimates of what a shard's chunk table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HotSize {
    pub chunks: u64,
    pub bytes: u64,
}

impl Catalog {
    /// An estimate: counting all rows would take longer the more there are.
    pub async fn hot_size(&self, db: &Db, shard: Shard) -> Result<HotSize> {
        let statement = sqlx::AssertSqlSafe(sql::chunk_table_size(db.engine(), shard));
        let Some(row) = sqlx::query(statement).fetch_optional(db.pool()).await? else { return Ok(HotSize::default()) };
        let number = |name| Ok::<_, Error>(column::<Option<i64>>(&row, name)?.unwrap_or(0).unsigned_abs());
        Ok(HotSize { chunks: number("chunks")?, bytes: number("chunk_bytes")? })
    }
}
