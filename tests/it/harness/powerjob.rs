//! What stands around logtier in a PowerJob deployment: its server, its workers, its console.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Tiers;
use super::daemon::{Answer, Daemon};
use super::relay::Relay;

/// An instance id of 2026-11-22, with room for `n` below 4 million.
pub fn instance_id(n: i64) -> i64 {
    ((1_795_341_600_000 - 1_555_776_000_000) << 22) + n
}

/// The settings that open `[protocol.powerjob]` on a free port, in front of this server.
pub fn front(server: Option<&PowerJobServer>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("LOGTIER_PROTOCOL__POWERJOB__LISTEN", "127.0.0.1:0".to_owned()),
        ("LOGTIER_PROTOCOL__POWERJOB__TIMEZONE", "Asia/Shanghai".to_owned()),
    ];
    if let Some(server) = server {
        settings.push(("LOGTIER_PROTOCOL__POWERJOB__SERVER", server.url.clone()));
        settings.push(("LOGTIER_PROTOCOL__POWERJOB__CONSOLE", server.url.clone()));
    }
    settings
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Both ports of a PowerJob server in one: answers everything, and remembers it.
pub struct PowerJobServer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Whether this user may read logs.
    allows: Arc<Mutex<bool>>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    allows: Arc<Mutex<bool>>,
}

impl PowerJobServer {
    pub async fn start() -> Self {
        let shared = Shared { seen: Arc::default(), allows: Arc::new(Mutex::new(true)) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(logtier::http::serve(listener, router, stop, Duration::ZERO));
        Self { url, seen: shared.seen, allows: shared.allows }
    }

    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub fn allow(&self, allows: bool) {
        *self.allows.lock().unwrap() = allows;
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path().to_owned();
    shared.seen.lock().unwrap().push(Seen { method, uri, headers, body });
    match path.as_str() {
        "/server/workerHeartbeat" => ().into_response(),
        "/instance/list" if !*shared.allows.lock().unwrap() => {
            axum::Json(json!({ "success": false, "code": "-100", "message": "UserNotLoggedIn" })).into_response()
        }
        "/teapot" => (axum::http::StatusCode::IM_A_TEAPOT, [("x-made-by", "powerjob")], "short").into_response(),
        _ => axum::Json(json!({ "success": true, "data": null, "message": null })).into_response(),
    }
}

/// A report of lines as a worker sends it: the time, level and text of each.
pub fn report(worker: &str, lines: &[(i64, i64, i64, &str)]) -> String {
    let contents: Vec<Value> = lines
        .iter()
        .map(|(id, time, level, text)| {
            json!({ "instanceId": id, "logTime": time, "logLevel": level, "logContent": text })
        })
        .collect();
    json!({ "workerAddress": worker, "instanceLogContents": contents }).to_string()
}

/// A report of a state as a worker's task tracker sends it.
pub fn status(id: i64, status: i64, start: i64) -> String {
    json!({
        "appId": 1, "jobId": 42, "instanceId": id, "wfInstanceId": 7, "instanceStatus": status, "result": "ok",
        "totalTaskNum": 1, "succeedTaskNum": 1, "failedTaskNum": 0, "startTime": start, "reportTime": start + 1000,
        "sourceAddress": "10.0.0.1:27777", "needAlert": false,
    })
    .to_string()
}

impl Daemon {
    /// Where a protocol listens.
    pub fn surface(&self, name: &str) -> String {
        let found = self.app.surfaces.iter().find(|(known, _)| *known == name);
        format!("http://{}", found.unwrap_or_else(|| panic!("{name} is not open")).1)
    }

    /// What a worker sends.
    pub async fn worker(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(format!("{}/server/{path}", self.surface("powerjob")));
        self.send(request.header("content-type", "application/json").body(body)).await
    }

    /// What the console asks.
    pub async fn console(&self, path_and_query: &str) -> Answer {
        let request = self.client.get(format!("{}/instance/{path_and_query}", self.surface("powerjob")));
        self.send(request.header("power_jwt", "t").header("appid", "1")).await
    }

    /// A page of a log as the console shows it: its text and how many pages there are.
    pub async fn page(&self, id: i64, index: u64) -> (String, u64) {
        let answer = self.console(&format!("log?appId=1&instanceId={id}&index={index}")).await.expect(200).json();
        assert_eq!(answer["success"], true, "{answer}");
        let text = answer["data"]["data"].as_str().expect("a text").to_owned();
        (text, answer["data"]["totalPages"].as_u64().expect("a number"))
    }
}

/// Waits until the catalog says so: states are written beside the requests.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The daemon's database behind a line that can be cut.
pub async fn behind_a_relay(tiers: &Tiers) -> (Relay, String) {
    let env = tiers.env();
    let (_, url) = env.iter().find(|(name, _)| name == "LOGTIER_HOT__URL").expect("a database");
    let mut url = url::Url::parse(url).expect("a URL");
    let relay = Relay::start(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(3306))).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(relay.address.port())).unwrap();
    (relay, url.into())
}
