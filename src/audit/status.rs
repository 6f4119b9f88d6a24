//! How the tiers, the daemons and the background tasks fare, also while a tier is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::scrub::Pass;
use super::{
    AsideItem, ColdReport, DaemonReport, FindingReport, HotReport, LagReport, LeaseReport, RetentionReport,
    ScrubReport, ServerReport, ShardReport, StatusReport, TaskReport,
};
use crate::catalog::{Aside, Catalog, DAEMON_LIVES, DaemonRow, FindingRow, LeaseRow, RuleSetRow, TaskState};
use crate::clock::Clock;
use crate::cold::Store;
use crate::db::{self, Db, Home};
use crate::model::Millis;
use crate::telemetry::{ByKind, ByShard, ByTask, Metrics, chain};

/// A tier that has not answered by then counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon that missed two heartbeats may be gone.
const SILENT_AFTER: Duration = Duration::from_secs(25);

/// Attempts counted in each shard; a number beyond that is "very many".
const MAX_DUE_COUNTED: u32 = 10_000;

/// What was set aside, of each server: some to show, and how many there are.
const MAX_ASIDE_LISTED: u32 = 100;
const MAX_ASIDE_COUNTED: u32 = 10_000;

/// Objects counted on each server.
const MAX_OBJECTS_COUNTED: u32 = 100_000;

/// Findings of the scrub that are shown of each server.
const MAX_FINDINGS: u32 = 100;

/// What a daemon knows of itself.
#[derive(Debug, Clone)]
pub struct StatusSettings {
    pub daemon: String,
    pub cluster_id: String,
    /// Of each server of the cluster, in order. A password in it is not shown.
    pub hot_urls: Vec<String>,
    pub cold_url: String,
    /// For so long after the retention rules changed, longer ages of before count.
    pub shrink_grace: Duration,
}

/// Where the daemon and its tiers stand. Clones share everything.
#[derive(Clone)]
pub struct Status {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: StatusSettings,
    started_at: Millis,
}

/// A hot tier server that does not answer: writes to its shards would fail.
#[derive(Debug, thiserror::Error)]
#[error("hot tier server {url} does not answer")]
pub struct NotReady {
    pub url: String,
    #[source]
    pub source: db::Error,
}

/// What one server of the hot tier said.
struct ServerAnswers {
    shards: Vec<ShardReport>,
    oldest_due: Option<Millis>,
    objects: u64,
    object_bytes: u64,
    daemons: Vec<DaemonRow>,
    tasks: Vec<TaskState>,
    leases: Vec<LeaseRow>,
    asked_at: Millis,
    rule_sets: Vec<RuleSetRow>,
    purge_paused: Option<String>,
    pass: Pass,
    findings: Vec<FindingRow>,
    aside: Vec<Aside>,
    aside_count: u64,
}

impl Status {
    /// The daemon counts as started now.
    pub fn new(
        catalog: Catalog,
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
        mut settings: StatusSettings,
    ) -> Self {
        settings.cold_url = without_secrets(&settings.cold_url);
        settings.hot_urls = settings.hot_urls.iter().map(|url| without_secrets(url)).collect();
        let started_at = clock.now();
        Self { shared: Arc::new(Shared { catalog, store, clock, metrics, settings, started_at }) }
    }

    /// Everything at once. Never fails: a tier that is away is shown as such.
    pub async fn report(&self) -> StatusReport {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let servers = shared.catalog.cluster.servers();
        let asked = servers.iter().map(|db| within(&shared.clock, self.ask_server(db, now)));
        let (answers, cold) = futures::join!(futures::future::join_all(asked), self.ask_store());
        let mut report = StatusReport {
            version: env!("CARGO_PKG_VERSION"),
            daemon: shared.settings.daemon.clone(),
            cluster_id: shared.settings.cluster_id.clone(),
            started_at: shared.started_at.to_string(),
            uptime_seconds: now.since(shared.started_at).as_secs(),
            hot: HotReport { reachable: true, ..HotReport::default() },
            cold,
            ..StatusReport::default()
        };
        let (mut merged, mut oldest, mut rule_sets) = (Merged::default(), None, Vec::new());
        let mut purge_paused = None;
        let mut sums = Sums::default();
        for (db, answer) in servers.iter().zip(answers) {
            let mut server =
                ServerReport { url: self.url_of(db), engine: db.engine().as_str(), ..ServerReport::default() };
            match answer {
                Some(Ok(answer)) => {
                    server.reachable = true;
                    sums.add(&answer);
                    report.leases.extend(answer.leases.into_iter().map(|row| {
                        let held = row.expires_at > answer.asked_at;
                        LeaseReport {
                            server: server.url.clone(),
                            task: row.task,
                            held_by: held.then_some(row.owner),
                            expires_at: held.then(|| row.expires_at.to_string()),
                        }
                    }));
                    oldest = [oldest, answer.oldest_due].into_iter().flatten().min();
                    rule_sets.extend(answer.rule_sets);
                    purge_paused = purge_paused.or(answer.purge_paused);
                    report.set_aside.count += answer.aside_count;
                    report.set_aside.first.extend(answer.aside.into_iter().map(aside_item));
                    merged.add(answer.daemons, answer.tasks);
                    add_scrub(&mut report.scrub, &answer.pass, answer.findings);
                    server.shards = answer.shards;
                }
                Some(Err(error)) => server.error = Some(chain(&error)),
                None => server.error = Some(no_answer()),
            }
            report.hot.reachable &= server.reachable;
            report.hot.servers.push(server);
        }
        // A sum without one of its parts would be a number of nothing (I8).
        if report.hot.reachable {
            (report.hot.chunks, report.hot.bytes) = (Some(sums.chunks), Some(sums.bytes));
            (report.cold.objects, report.cold.bytes) = (Some(sums.objects), Some(sums.object_bytes));
            report.lag = LagReport {
                due_attempts: Some(sums.due_attempts),
                oldest_due_at: oldest.map(|at| at.to_string()),
                oldest_due_seconds: Some(oldest.map_or(0.0, |at| now.since(at).as_secs_f64())),
            };
        }
        report.retention = RetentionReport { purge_paused, ..self.retention(&rule_sets, &merged, now) };
        report.daemons = merged.daemons.into_values().map(|row| daemon_report(row, now)).collect();
        report.tasks = merged.tasks.into_values().map(task_report).collect();
        report
    }

    /// Whether every server of the hot tier answers. The cold tier is not asked: while it is away,
    /// writes and reads of recent logs go on.
    pub async fn ready(&self) -> Result<(), NotReady> {
        let shared = &*self.shared;
        let pings = shared.catalog.cluster.servers().iter().map(async |db| {
            let answer = within(&shared.clock, db.ping()).await;
            let answer = answer.unwrap_or_else(|| Err(db::Error::Configuration(no_answer())));
            answer.map(drop).map_err(|source| NotReady { url: self.url_of(db), source })
        });
        futures::future::try_join_all(pings).await.map(drop)
    }

    /// Brings the gauges of `/metrics` up to date that need a look at the tiers; a background task.
    pub async fn refresh_metrics(&self) {
        let report = self.report().await;
        let metrics = &self.shared.metrics;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for shard in report.hot.servers.iter().flat_map(|server| &server.shards) {
            let label = ByShard { shard: shard.shard.to_string() };
            metrics.hot_chunks.get_or_create(&label).set(gauge(shard.chunks));
            metrics.hot_bytes.get_or_create(&label).set(gauge(shard.bytes));
        }
        // What was not asked keeps its last number, rather than showing that nothing is due.
        if let (Some(attempts), Some(seconds)) = (report.lag.due_attempts, report.lag.oldest_due_seconds) {
            metrics.due_attempts.set(gauge(attempts));
            metrics.oldest_due_seconds.set(seconds);
            metrics.set_aside_now.set(gauge(report.set_aside.count));
        }
        for kind in ["missing", "damaged"].into_iter().filter(|_| report.hot.reachable) {
            let found = report.scrub.findings.iter().filter(|finding| finding.kind == kind).count();
            metrics.scrub_findings.get_or_create(&ByKind { kind: kind.to_owned() }).set(gauge(found as u64));
        }
        for task in &report.tasks {
            let at = task.last_success_at.as_deref().and_then(|at| crate::model::Timestamp::parse(at).ok());
            let seconds = at.map_or(0.0, |at| at.nanos() as f64 / 1e9);
            metrics.task_success.get_or_create(&ByTask { task: task.name.clone() }).set(seconds);
        }
        let counters = self.shared.store.counters();
        for (kind, counter) in [
            ("get", &counters.gets),
            ("put", &counters.puts),
            ("delete", &counters.deletes),
            ("list", &counters.lists),
            ("error", &counters.errors),
        ] {
            let known = metrics.store_requests.get_or_create(&ByKind { kind: kind.to_owned() });
            // Counted where the requests are made; this only shows it.
            known.inner().store(counter.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    async fn ask_server(&self, db: &Arc<Db>, now: Millis) -> db::Result<ServerAnswers> {
        let catalog = &self.shared.catalog;
        let asked_at = db.ping().await?;
        let (mut shards, mut oldest_due) = (Vec::new(), None);
        for &shard in db.shards() {
            let home = Home { db: Arc::clone(db), shard };
            let size = catalog.hot_size(db, shard).await?;
            let (due_attempts, oldest) = catalog.due_summary(&home, now, MAX_DUE_COUNTED).await?;
            oldest_due = [oldest_due, oldest].into_iter().flatten().min();
            shards.push(ShardReport { shard: shard.number(), chunks: size.chunks, bytes: size.bytes, due_attempts });
        }
        let (objects, object_bytes) = catalog.segment_summary(db, MAX_OBJECTS_COUNTED).await?;
        let alive_since = Millis::new(now.get() - DAEMON_LIVES.as_millis() as i64);
        let daemons = catalog.daemons(db, alive_since).await?;
        let tasks = catalog.tasks(db).await?;
        let (leases, rule_sets) = (catalog.leases(db).await?, catalog.rule_sets(db).await?);
        let purge_paused = catalog.purge_paused(db).await?;
        let (pass, findings) = (Pass::of(db).await?, catalog.findings(db, MAX_FINDINGS).await?);
        let aside = catalog.list_aside(db, None, MAX_ASIDE_LISTED).await?;
        let aside_count = catalog.count_aside(db, MAX_ASIDE_COUNTED).await?;
        Ok(ServerAnswers {
            shards,
            oldest_due,
            objects,
            object_bytes,
            daemons,
            tasks,
            leases,
            asked_at,
            rule_sets,
            purge_paused,
            pass,
            findings,
            aside,
            aside_count,
        })
    }

    fn retention(&self, sets: &[RuleSetRow], merged: &Merged, now: Millis) -> RetentionReport {
        // Of several servers the one that is behind.
        let published = sets.iter().filter(|set| set.replaced_at.is_none()).min_by_key(|set| set.published_at);
        let holds_to = |digest: &str| merged.daemons.values().all(|daemon| daemon.rules == digest);
        let longer_until = sets.iter().filter_map(|set| set.replaced_at);
        let longer_until = longer_until.map(|at| at.after(self.shared.settings.shrink_grace)).max();
        RetentionReport {
            agreed: published.is_some_and(|set| holds_to(&set.digest)),
            published: published.map(|set| set.digest.clone()),
            published_at: published.map(|set| set.published_at.to_string()),
            longer_ages_until: longer_until.filter(|until| *until > now).map(|until| until.to_string()),
            purge_paused: None,
        }
    }

    async fn ask_store(&self) -> ColdReport {
        let url = self.shared.settings.cold_url.clone();
        let answer = within(&self.shared.clock, self.shared.store.cluster_id()).await;
        let error = match answer {
            Some(Ok(Some(found))) if found == self.shared.settings.cluster_id => None,
            Some(Ok(Some(found))) => {
                Some(format!("the bucket belongs to another cluster, {found}; nothing is archived"))
            }
            // Every daemon puts that object there before it archives.
            Some(Ok(None)) => Some(
                "the bucket holds no v1/cluster.json: it was emptied, or is another one; nothing is archived"
                    .to_owned(),
            ),
            Some(Err(error)) => Some(chain(&error)),
            None => Some(no_answer()),
        };
        // Of another bucket, or an emptied one, nothing is read either.
        ColdReport { url, reachable: error.is_none(), error, ..ColdReport::default() }
    }

    fn url_of(&self, db: &Db) -> String {
        self.shared.settings.hot_urls.get(db.number()).cloned().unwrap_or_default()
    }
}

/// What all servers have together.
#[derive(Default)]
struct Sums {
    chunks: u64,
    bytes: u64,
    due_attempts: u64,
    objects: u64,
    object_bytes: u64,
}

impl Sums {
    fn add(&mut self, answer: &ServerAnswers) {
        for shard in &answer.shards {
            self.chunks += shard.chunks;
            self.bytes += shard.bytes;
            self.due_attempts += shard.due_attempts;
        }
        self.objects += answer.objects;
        self.object_bytes += answer.object_bytes;
    }
}

/// Rows of several servers by name; of two, the later one counts.
#[derive(Default)]
struct Merged {
    daemons: BTreeMap<String, DaemonRow>,
    tasks: BTreeMap<String, TaskState>,
}

impl Merged {
    fn add(&mut self, daemons: Vec<DaemonRow>, tasks: Vec<TaskState>) {
        for row in daemons {
            let known = self.daemons.entry(row.name.clone()).or_insert_with(|| row.clone());
            if row.seen_at > known.seen_at {
                *known = row;
            }
        }
        for row in tasks {
            let known = self.tasks.entry(row.name.clone()).or_insert_with(|| row.clone());
            known.succeeded_at = known.succeeded_at.max(row.succeeded_at);
            if row.failed_at > known.failed_at {
                (known.failed_at, known.error) = (row.failed_at, row.error);
            }
        }
    }
}

/// Of several servers' passes the oldest is told.
fn add_scrub(report: &mut ScrubReport, pass: &Pass, findings: Vec<FindingRow>) {
    let shown = |at: i64| (at > 0).then(|| Millis::new(at).to_string());
    let began_at = shown(pass.began_at);
    if report.pass_began_at.is_none() || began_at < report.pass_began_at {
        (report.pass_began_at, report.pass_ended_at) = (began_at, shown(pass.ended_at));
    }
    report.pass_objects += pass.objects;
    report.pass_bytes += pass.bytes;
    report.findings.extend(findings.into_iter().map(|row| FindingReport {
        kind: row.kind,
        object: row.name,
        what: row.what,
        attempts: row.hit,
        found_at: row.found_at.to_string(),
    }));
}

fn aside_item(aside: Aside) -> AsideItem {
    let Aside { what, reason, failures, last_at, next_at, .. } = aside;
    let next_try_at = (next_at < Millis::NEVER).then(|| next_at.to_string());
    AsideItem { what, reason, failures, last_failure_at: last_at.to_string(), next_try_at }
}

fn daemon_report(row: DaemonRow, now: Millis) -> DaemonReport {
    let DaemonRow { name, rules, version, started_at, seen_at } = row;
    let state = if now.since(seen_at) > SILENT_AFTER { "silent" } else { "up" };
    DaemonReport { name, state, version, rules, started_at: started_at.to_string(), seen_at: seen_at.to_string() }
}

fn task_report(row: TaskState) -> TaskReport {
    let shown = |at: Millis| (at > Millis::ZERO).then(|| at.to_string());
    TaskReport {
        name: row.name,
        last_success_at: shown(row.succeeded_at),
        last_failure_at: shown(row.failed_at),
        error: Some(row.error).filter(|error| !error.is_empty()),
    }
}

/// `None` when the time is over.
async fn within<T>(clock: &Clock, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = clock.sleep(PATIENCE) => None,
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// A URL as it may be shown: its user stays, password and query go.
fn without_secrets(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        // A path, or something that nobody can vouch for.
        return if url.contains('@') { "***".to_owned() } else { url.to_owned() };
    };
    if url.password().is_some() {
        // Fails only where there can be no password.
        let _ = url.set_password(Some("***"));
    }
    url.set_query(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("mysql://me:secret@db:3306/logs?ssl-key=secret", "mysql://me:***@db:3306/logs"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("sqlite:///var/lib/hot.db?mode=rwc", "sqlite:///var/lib/hot.db"),
            ("//me:secret@db", "***"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn of_two_rows_the_later_counts() {
        let task = |ok, failed, error: &str| TaskState {
            name: "mover".to_owned(),
            succeeded_at: Millis::new(ok),
            failed_at: Millis::new(failed),
            error: error.to_owned(),
        };
        let mut merged = Merged::default();
        merged.add(Vec::new(), vec![task(5, 1, "old")]);
        merged.add(Vec::new(), vec![task(3, 2, "new")]);
        let report = task_report(merged.tasks.remove("mover").expect("there"));
        assert_eq!(report.last_success_at.as_deref(), Some("1970-01-01T00:00:00.005Z"));
        assert_eq!(report.error.as_deref(), Some("new"));
    }
}
