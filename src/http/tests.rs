//! The API over a real hot tier: SQLite in a folder that goes with the test.

mod admin;
mod bounds;
mod follow;
mod openapi;
mod reading;
mod search;
mod writing;

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use serde_json::Value;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::*;
use crate::archive::ArchiveSettings;
use crate::audit::StatusSettings;
use crate::catalog::Catalog;
use crate::cold::Store;
use crate::cold::segment::SegmentSettings;
use crate::db::{Cluster, Db, DbSettings, Shard};
use crate::ingest::IngestSettings;
use crate::model::{Age, Rule};

const SHARDS: u16 = 4;

struct Daemon {
    router: Router,
    api: Api,
    db: Arc<Db>,
    _lanes: JoinSet<()>,
    _folder: tempfile::TempDir,
}

/// Of an archiver that nobody runs.
fn archive_settings() -> ArchiveSettings {
    let hour = Duration::from_secs(3600);
    ArchiveSettings {
        rules: rules(),
        idle_after: hour,
        object_bytes: 1 << 20,
        max_delay: hour,
        purge_grace: hour,
        forget_after: Age::For(hour),
        dedup_window: hour,
        lease_ttl: hour,
        abandoned_after: hour,
        doomed_for: hour,
        purge: crate::archive::PurgeSettings::default(),
        rewrite: crate::archive::RewriteSettings::default(),
        shrink_grace: hour,
        pressure_bytes: None,
        segment: SegmentSettings::default(),
        cluster_id: "c1".to_owned(),
        daemon: "test".to_owned(),
        next_run: Arc::new(|_| None),
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// Its status and the kind of its problem.
    #[track_caller]
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        assert_eq!(json["request_id"], self.header("x-request-id"));
        assert!(json["title"].is_string() && json["detail"].is_string());
        let kind = json["type"].as_str().and_then(|kind| kind.strip_prefix("urn:logtier:problem:"));
        (self.status.as_u16(), kind.expect("a kind").to_owned())
    }
}

fn rules() -> Arc<RuleSet> {
    let default = Rule {
        name: "default".parse().expect("a name"),
        app: None,
        job: None,
        outcome: None,
        hot_for: Age::For(Duration::ZERO),
        cold_for: Age::Forever,
        max_open_for: Age::Forever,
        keep_at_least: 0,
        hold: false,
    };
    Arc::new(RuleSet::new(Vec::new(), default))
}

impl Daemon {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut HttpSettings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::default();
        let url = format!("sqlite://{}", folder.path().join("hot.db").display());
        let db = DbSettings { url: url.clone(), max_connections: 4, acquire_timeout: Duration::from_secs(5) };
        let shards = (0..SHARDS).map(Shard::new).collect();
        let db = Arc::new(Db::connect(&db, 0, shards, clock.clone()).await.expect("a database"));
        db.migrate(SHARDS.into()).await.expect("tables");
        let catalog = Catalog::new(Cluster::new(vec![Arc::clone(&db)]));
        let objects = Arc::new(object_store::memory::InMemory::new());
        let store = Store::from_object_store(objects, "");
        store.put_cluster_id("c1").await.expect("paired");
        let metrics = Arc::new(Metrics::default());
        let bounds = IngestSettings { queue_bytes: 64 << 20, idle_after: Duration::from_secs(3600) };
        let (ingest, lanes) = Ingest::new(catalog.clone(), clock.clone(), Arc::clone(&metrics), &bounds);
        let mut running = JoinSet::new();
        for lane in lanes {
            running.spawn(async move { lane.run(CancellationToken::new()).await });
        }
        let names = StatusSettings {
            daemon: "test".to_owned(),
            cluster_id: "c1".to_owned(),
            hot_urls: vec![url],
            cold_url: "s3://me:secret@bucket".to_owned(),
            shrink_grace: Duration::ZERO,
        };
        let (archiver, _) = Archiver::new(
            catalog.clone(),
            store.clone(),
            clock.clone(),
            Arc::clone(&metrics),
            archive_settings(),
            CancellationToken::new(),
        );
        let mut settings = HttpSettings::new(rules());
        change(&mut settings);
        let api = Api {
            reader: Reader::new(catalog.clone(), store.clone(), clock.clone(), Arc::clone(&metrics)),
            status: Status::new(catalog, store, clock.clone(), Arc::clone(&metrics), names),
            archiver,
            ingest,
            metrics,
            clock,
            settings,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        Self { router: router(api.clone()), api, db, _lanes: running, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole body");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, &[], "")).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request("POST", path, &[], body)).await
    }

    /// Plain lines for `/apps/default/instances/{instance}`.
    async fn write(&self, instance: &str, lines: &str) {
        let path = format!("/api/v1/apps/default/instances/{instance}/records");
        let answer = self.send(request("POST", &path, &[("content-type", "text/plain")], lines.to_owned())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn finish(&self, instance: &str) {
        let answer = self.post(&format!("/api/v1/apps/default/instances/{instance}/finish"), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What no crash can do: lines that the catalog names are gone.
    async fn lose_last_chunk(&self) {
        for shard in self.db.shards() {
            let delete = format!(
                "DELETE FROM chunk_{shard} WHERE first_line = (SELECT MAX(first_line) FROM chunk_{shard}) AND first_line > 0"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(delete)).execute(self.db.pool()).await.expect("deleted");
        }
    }

    /// Puts all attempts into a state that only the archiver brings about.
    async fn force_state(&self, state: i32, gone_at: i64) {
        for shard in self.db.shards() {
            let update = format!("UPDATE attempt_{shard} SET state = {state}, gone_at = {gone_at}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(update)).execute(self.db.pool()).await.expect("updated");
        }
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}
