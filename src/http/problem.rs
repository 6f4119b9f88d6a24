//! Every answer that is no success: RFC 9457 `application/problem+json`.
//!
//! A handler returns a [`Problem`]; [`finish`] puts the request id in, writes the body, and logs and
//! counts what is our fault, once, with the whole chain of causes. What axum itself refuses (no such
//! route, wrong method, a path that is no UTF-8) passes through the same place, so clients see one form.
//!
//! Invariant: a cause is logged and never shown: it may name tables, addresses or keys.

use std::error::Error as StdError;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tracing::Instrument;

use super::Shared;
use crate::telemetry::chain;

/// Why a request got no success. `type` in the answer is `urn:logtier:problem:` and the kind.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    /// Stable; clients may branch on it.
    kind: &'static str,
    title: &'static str,
    /// For a person: what happened and what to do.
    detail: String,
    members: Map<String, Value>,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u32>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), members: Map::new(), retry_after: None, cause: None }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is not valid", detail)
    }

    /// One of our own faults.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        let detail = "something went wrong in the daemon; its log has more under this request id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail).caused_by(cause)
    }

    /// Adds a member to the answer.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    pub fn detailed(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The last word of its `type`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The member `type`: an identifier, not an address.
    pub fn type_urn(&self) -> String {
        format!("urn:logtier:problem:{}", self.kind())
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    fn json(&self, request_id: &str) -> Vec<u8> {
        let mut all = Map::new();
        all.insert("type".to_owned(), self.type_urn().into());
        all.insert("title".to_owned(), self.title.into());
        all.insert("status".to_owned(), self.status.as_u16().into());
        all.insert("detail".to_owned(), self.detail.clone().into());
        all.insert("request_id".to_owned(), request_id.into());
        all.extend(self.members.clone());
        Value::Object(all).to_string().into_bytes()
    }
}

/// Without its body, which [`finish`] writes.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;

/// Around every request: its id, its line in the log, and the form of its refusal.
pub async fn finish(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let clock = &shared.api.clock;
    let id = request_id(request.headers()).unwrap_or_else(|| clock.new_ulid().to_string());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = clock.instant();
    let span = tracing::info_span!("request", request.id = %id);
    let response = next.run(request).instrument(span.clone()).await;
    let _in_span = span.enter();
    let mut response = written(&shared, &method, &path, &id, response);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    // Logs can be deleted, so nothing may be kept unless its handler said how.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    tracing::debug!(
        http.method = %method, http.path = %path, http.status = response.status().as_u16(),
        http.millis = started.elapsed().as_millis() as u64, "request answered"
    );
    response
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| id.to_owned())
}

fn written(shared: &Shared, method: &Method, path: &str, id: &str, mut response: Response) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if response.status().is_client_error() || response.status().is_server_error() => {
            refused_by_router(response.status(), method, path)
        }
        None => return response,
    };
    if problem.status.is_server_error() {
        shared.api.metrics.error(problem.kind);
        report(&problem, method, path);
    }
    let mut answer = Response::new(Body::from(problem.json(id)));
    *answer.status_mut() = problem.status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    for kept in [header::ALLOW, header::WWW_AUTHENTICATE, header::CONNECTION] {
        if let Some(value) = response.headers_mut().remove(&kept) {
            headers.insert(kept, value);
        }
    }
    answer
}

/// `error!` is for what someone must act on; being full or without a tier passes.
fn report(problem: &Problem, method: &Method, path: &str) {
    let cause = problem.cause.as_deref().map(|cause| chain(cause)).unwrap_or_default();
    let (kind, detail) = (problem.kind, &problem.detail);
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(http.method = %method, http.path = path, problem = kind, error = cause, "{detail}");
    } else {
        tracing::error!(http.method = %method, http.path = path, problem = kind, error = cause, "{detail}");
    }
}

/// What axum answered by itself.
fn refused_by_router(status: StatusCode, method: &Method, path: &str) -> Problem {
    match status {
        StatusCode::NOT_FOUND => {
            Problem::new(status, "no-such-route", "No such route", format!("there is nothing at {path}"))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = format!("{path} does not take {method}; the Allow header says what it takes");
            Problem::new(status, "method-not-allowed", "Method not allowed", detail)
        }
        status if status.is_client_error() => {
            let detail = format!("the path {path} is not valid: percent-encoded UTF-8 is expected");
            Problem::new(status, "bad-request", "The request is not valid", detail)
        }
        status => Problem::new(status, "internal", "Internal error", "something went wrong in the daemon"),
    }
}
