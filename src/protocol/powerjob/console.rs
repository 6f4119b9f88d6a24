//! What PowerJob's console asks for when someone looks at a log, answered from both tiers.
//!
//! The shapes are PowerJob's: an answer is always 200 and says in `success` whether it is one; a page holds a text.
//! So what there is to say of a log (still running, finished, archived, expired) stands in that text, as its last
//! line. PowerJob itself decides who may read, where its console stands behind this port: it is asked first for
//! something cheap that needs the same right.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use serde_json::{Value, json};

use super::front::{Front, refusal};
use super::log_file;
use super::{InstanceId, Renderer};
use crate::model::{AttemptNo, AttemptState, LineRange, Millis, Outcome, Record};
use crate::read::{Attempt, PageRequest, ReadError, View};

/// Lines of a page, as PowerJob has them.
const PAGE_LINES: u64 = 100;

/// What is asked; PowerJob's console sends more than is needed here.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    app_id: Option<i64>,
    instance_id: String,
    #[serde(default)]
    index: u64,
    /// Not PowerJob's: an older run of the same instance.
    attempt: Option<AttemptNo>,
}

/// An answer that is none of what was asked for.
pub struct Refused(Box<Response>);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// `GET /instance/log`
pub async fn page(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Refused> {
    may_read(&front, &headers, &asked).await?;
    let id = id(&asked)?;
    let reader = &front.parts.reader;
    let view = match reader.open(&front.app, &id.instance(), asked.attempt).await {
        Ok(view) => view,
        Err(ReadError::NeverLogged) => {
            return Ok(simple("no line of this instance is stored so far; if it runs, look again in a moment"));
        }
        Err(ReadError::Gone { state, at }) => return Ok(simple(&front.gone(state, at))),
        Err(error) => return Err(failed(unreadable(error))),
    };
    let lines = view.attempt.lines();
    let pages = lines.end().div_ceil(PAGE_LINES).max(1);
    let start = asked.index.saturating_mul(PAGE_LINES);
    let range = LineRange::new(start, start.saturating_add(PAGE_LINES));
    let mut text = Vec::new();
    if range.start() < lines.start() && !range.is_empty() {
        let words = format!("lines 1 to {} have left, as the retention of this app says", lines.start());
        text.extend_from_slice(note(&words).as_bytes());
    }
    let request = PageRequest { range: Some(range), limit: PAGE_LINES as usize, ..PageRequest::default() };
    let found = reader.page(&view, &request).await.map_err(|error| failed(unreadable(error)))?;
    let mut renderer = Renderer::new(front.timezone);
    for line in &found.lines {
        let record = Record::parse_json(&line.json).map_err(|error| failed(unreadable(error.into())))?;
        renderer.render(&record, &mut text);
    }
    if !found.at_end {
        text.extend_from_slice(note("this page is too large to be shown whole: download the log").as_bytes());
    }
    if asked.index + 1 >= pages {
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(note(&front.state_in_words(&view)).as_bytes());
    }
    let data = String::from_utf8_lossy(&text);
    Ok(success(json!({ "index": asked.index, "totalPages": pages, "data": data })))
}

/// `GET /instance/downloadLogUrl`
pub async fn download_url(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Refused> {
    may_read(&front, &headers, &asked).await?;
    let id = id(&asked)?;
    let base = match &front.public_url {
        Some(url) => url.origin().ascii_serialization(),
        None => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let host = host.map_or_else(|| front.listens_at.to_string(), str::to_owned);
            format!("http://{host}")
        }
    };
    let attempt = asked.attempt.map(|attempt| format!("&attempt={attempt}")).unwrap_or_default();
    Ok(success(json!(format!("{base}/instance/downloadLog?instanceId={id}{attempt}"))))
}

/// `GET /instance/downloadLog4Console`: the log itself, for a browser that is signed in.
pub async fn download_for_console(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Refused> {
    may_read(&front, &headers, &asked).await?;
    file(&front, &asked).await
}

/// `GET /instance/downloadLog`: as in PowerJob, who knows the link may have the log.
pub async fn download(State(front): State<Arc<Front>>, Query(asked): Query<Asked>) -> Result<Response, Refused> {
    file(&front, &asked).await
}

async fn file(front: &Front, asked: &Asked) -> Result<Response, Refused> {
    let refuse = |status, words: String| Refused(Box::new(refusal(status, words)));
    let id = asked.instance_id.parse::<InstanceId>();
    let id = id.map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
    let view = front.parts.reader.open(&front.app, &id.instance(), asked.attempt).await;
    let view = view.map_err(|error| match error {
        ReadError::NeverLogged => refuse(StatusCode::NOT_FOUND, "no line of this instance is stored so far".to_owned()),
        ReadError::Gone { state, at } => refuse(StatusCode::GONE, front.gone(state, at)),
        error => refuse(StatusCode::SERVICE_UNAVAILABLE, unreadable(error)),
    })?;
    let stream = log_file::stream(&front.parts.reader, &view, view.attempt.lines(), front.timezone);
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"{}\"", id.stable_name());
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("")));
    Ok(response)
}

impl Front {
    fn gone(&self, state: AttemptState, at: Option<Millis>) -> String {
        let since = at.map(|at| format!(" since {}", self.time(at))).unwrap_or_default();
        match state {
            AttemptState::Deleted => format!("the log of this instance is deleted{since}"),
            _ => format!("the log of this instance is expired{since}, as the retention of this app says"),
        }
    }

    /// What one would want to know of a log besides its lines.
    fn state_in_words(&self, view: &View) -> String {
        let Attempt { next_line, archived_line, outcome, finished_at, expires_at, .. } = &view.attempt;
        let run = match view.attempt.attempt {
            AttemptNo::FIRST => String::new(),
            attempt => format!("run {attempt}, "),
        };
        let lines = if *next_line == 1 { "1 line".to_owned() } else { format!("{next_line} lines") };
        let when = finished_at.map(|at| format!(" {}", self.time(at))).unwrap_or_default();
        let how = match outcome {
            Some(Outcome::Succeeded) => ", succeeded",
            Some(Outcome::Failed) => ", failed",
            Some(Outcome::Cancelled) => ", cancelled",
            None => "",
        };
        let ended = match view.attempt.state_at(view.at) {
            AttemptState::Open => return format!("{run}running, {lines} so far"),
            AttemptState::Inferred => format!("{run}{lines}, counted as finished{when} after a long silence"),
            _ => format!("{run}{lines}, finished{when}{how}"),
        };
        let archived = if *next_line > 0 && archived_line == next_line { ", archived" } else { "" };
        let kept = expires_at.filter(|at| *at != Millis::NEVER);
        let kept = kept.map(|at| format!(", kept until {}", self.time(at))).unwrap_or_default();
        format!("{ended}{archived}{kept}")
    }

    fn time(&self, at: Millis) -> String {
        let time = DateTime::from_timestamp_millis(at.get()).unwrap_or_default().with_timezone(&self.timezone);
        time.format("%Y-%m-%d %H:%M:%S %Z").to_string()
    }
}

/// A line that no worker wrote.
fn note(words: &str) -> String {
    format!("-- logtier: {words} --\n")
}

fn success(data: Value) -> Response {
    Json(json!({ "success": true, "data": data, "message": null })).into_response()
}

/// A page of words alone.
fn simple(words: &str) -> Response {
    success(json!({ "index": 0, "totalPages": 1, "data": note(words) }))
}

/// What PowerJob's console shows as an error.
fn failed(words: impl std::fmt::Display) -> Refused {
    let message = format!("logtier: {words}");
    Refused(Box::new(Json(json!({ "success": false, "data": null, "message": message })).into_response()))
}

fn id(asked: &Asked) -> Result<InstanceId, Refused> {
    asked.instance_id.parse().map_err(failed)
}

fn unreadable(error: ReadError) -> String {
    if error.is_unavailable() {
        tracing::warn!(error = log_file::chain(&error), "a log cannot be read now");
        let tier = if matches!(error, ReadError::Cold(_)) { "cold" } else { "hot" };
        return format!("the {tier} tier does not answer; nothing is lost, look again");
    }
    tracing::error!(error = log_file::chain(&error), "a stored log cannot be read");
    "the stored log cannot be read; the daemon's own log says why".to_owned()
}

/// Asks PowerJob whether this user may see this app's instances.
async fn may_read(front: &Front, headers: &HeaderMap, asked: &Asked) -> Result<(), Refused> {
    let Some(console) = front.forwarder.console() else { return Ok(()) };
    let question = json!({
        "appId": asked.app_id, "instanceId": asked.instance_id.parse::<i64>().ok(),
        "index": 0, "pageSize": 1, "type": "NORMAL",
    });
    let mut url = console.clone();
    url.set_path("/instance/list");
    let mut request = Request::post(url.path()).body(Body::from(question.to_string())).unwrap_or_default();
    *request.headers_mut() = headers.clone();
    for gone in [header::CONTENT_LENGTH, header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::RANGE] {
        request.headers_mut().remove(gone);
    }
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = front.forwarder.pass_to(url, request).await;
    let (parts, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await.unwrap_or_default();
    let says_yes =
        |body: &[u8]| serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer["success"] == Value::Bool(true));
    if parts.status.is_success() && says_yes(&body) {
        return Ok(());
    }
    // PowerJob's own words: "not signed in" and the like mean something to its console.
    Err(Refused(Box::new(Response::from_parts(parts, Body::from(body)))))
}

/// One instance of a list has 2 KB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_that_no_worker_wrote() {
        assert_eq!(note("running"), "-- logtier: running --\n");
    }
}
