//! A server that answers by a script, for tests of what the client does.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use clap::Parser as _;

use super::{Cli, Exit, Out, Session, session};
use crate::clock::Clock;

/// An answer of the script.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { body: body.to_string(), ..Self::status(status) }.header("content-type", "application/json")
    }

    pub(super) fn problem(status: u16, detail: &str) -> Self {
        let mut problem = serde_json::json!({"type": "x", "detail": detail, "request_id": "r-1"});
        if status == 404 {
            problem["state"] = "never_logged".into();
        }
        Self::json(status, &problem)
    }

    pub(super) fn events(body: &str) -> Self {
        Self::text(body).header("content-type", "text/event-stream")
    }

    pub(super) fn text(body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::status(200) }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// The header's value, empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Respond = Box<dyn FnMut(&Seen) -> Answer + Send>;

struct Script {
    respond: Respond,
    seen: Vec<Seen>,
}

pub(super) struct Server {
    pub(super) url: String,
    script: Arc<Mutex<Script>>,
    /// Ends with the test.
    _tasks: tokio::task::JoinSet<()>,
}

impl Server {
    /// Gives one answer after the other, then 500.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        Self::with(move |_| answers.pop_front().unwrap_or_else(|| Answer::problem(400, "the script is over"))).await
    }

    pub(super) async fn with(respond: impl FnMut(&Seen) -> Answer + Send + 'static) -> Self {
        let script = Arc::new(Mutex::new(Script { respond: Box::new(respond), seen: Vec::new() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, routes).await.expect("serve") });
        Self { url, script, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }

    /// Runs a command against this server; gives what it ended with and its stdout.
    pub(super) async fn run(&self, line: &str) -> (anyhow::Result<Exit>, String) {
        run_at(&self.url, line).await
    }
}

pub(super) async fn run_at(url: &str, line: &str) -> (anyhow::Result<Exit>, String) {
    let words = ["logtier", "--url", url].into_iter().chain(line.split(' '));
    let Cli { global, command } = Cli::try_parse_from(words).expect("a command line");
    let memory = Memory::default();
    let client = session(&global).expect("a session").client;
    let mut session = Session {
        client,
        app: global.app.unwrap_or_else(|| "default".to_owned()),
        clock: Clock::default(),
        out: Out::into(memory.clone()),
    };
    let exit = super::run_client(&mut session, command).await;
    (exit, memory.text())
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { method, target, headers, body };
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = (script.respond)(&seen);
    script.seen.push(seen);
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).expect("a response")
}

/// Keeps what is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
