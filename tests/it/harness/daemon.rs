//! A daemon inside the test's process, on the tiers of the test, with a clock that the test can move.

use std::sync::Arc;
use std::time::Duration;

use logtier::app::{self, App};
use logtier::clock::Clock;
use logtier::config::{Config, Env};

use super::Tiers;
use super::check::check_server;

/// Settings that make everything due at once and leave the archiver to the test.
pub const AT_ONCE: [(&str, &str); 5] = [
    ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s"),
    ("LOGTIER_ARCHIVE__PURGE_GRACE", "0s"),
    ("LOGTIER_ARCHIVE__SCHEDULE", "0 0 1 1 *"),
    ("LOGTIER_HOT__SHARDS", "4"),
    ("LOGTIER_SCRUB__EVERY", "forever"),
];

/// A running daemon. Its end is checked: no task may hang, and what it leaves must fit together.
pub struct Daemon {
    pub app: App,
    pub clock: Clock,
    pub client: reqwest::Client,
    config: Config,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails the test with the body where the status is another.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text header"))
    }
}

/// The configuration of a daemon on `tiers`: [`AT_ONCE`], then `settings`.
pub fn config(tiers: &Tiers, settings: &[(&str, &str)]) -> Config {
    let mut env: Env = tiers.env().into_iter().collect();
    env.insert("LOGTIER_SERVER__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
    for (name, value) in AT_ONCE.iter().chain(settings) {
        env.insert((*name).to_owned(), (*value).to_owned());
    }
    Config::load(None, &env).unwrap_or_else(|problems| panic!("{problems}"))
}

impl Daemon {
    pub async fn start(tiers: &Tiers, settings: &[(&str, &str)]) -> Daemon {
        Self::start_at(tiers, settings, Clock::default()).await
    }

    pub async fn start_at(tiers: &Tiers, settings: &[(&str, &str)], clock: Clock) -> Daemon {
        logtier::cold::install_crypto_provider();
        let config = config(tiers, settings);
        let app = app::start(&config, clock.clone()).await;
        let app = app.unwrap_or_else(|error| panic!("start a daemon: {error:#}"));
        Daemon { app, clock, client: reqwest::Client::new(), config }
    }

    /// Stops it, then looks at what is in the database.
    pub async fn stop(self) {
        assert!(self.app.shut_down().await, "the daemon did not stop in time");
        let cluster = app::open_hot_tier(&self.config, &self.clock).await.expect("the databases open again");
        for db in cluster.servers() {
            check_server(db).await;
        }
        cluster.close().await;
    }

    pub fn rules(&self) -> &logtier::model::RuleSet {
        &self.config.retention.rules
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.address)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the daemon answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.expect("a whole answer").to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(&format!("/api/v1{path}")))).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.client.post(self.url(&format!("/api/v1{path}"))).body(body)).await
    }

    /// Appends NDJSON records to an instance of the default app.
    pub async fn append(&self, instance: &str, records: &str) -> Answer {
        let path = format!("/apps/default/instances/{instance}/records");
        let request = self.client.post(self.url(&format!("/api/v1{path}")));
        self.send(request.header("content-type", "application/x-ndjson").body(records.to_owned())).await
    }

    pub async fn finish(&self, instance: &str) -> Answer {
        let path = format!("/apps/default/instances/{instance}/finish");
        let request = self.client.post(self.url(&format!("/api/v1{path}")));
        self.send(request.header("content-type", "application/json").body("{}")).await
    }

    /// Runs the archiver over everything due; the report.
    pub async fn archive(&self) -> serde_json::Value {
        let id = self.app.archiver.request_run().await.expect("a run");
        let report = self.app.archiver.wait_for(id, Duration::from_secs(120)).await.expect("a report");
        serde_json::to_value(report.expect("the run is known")).expect("JSON")
    }
}

/// A runtime for a test that is not `async` itself.
pub fn runtime() -> Arc<tokio::runtime::Runtime> {
    Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime"))
}
