//! A log as it grows, as server-sent events.
//!
//! Each follower reads its own lines, when its client has room for them: a slow client holds one
//! block in memory and delays nobody. Its place is the id of the last event it got, so it can go on
//! after any break, on any daemon.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::errors::stopping;
use super::hub::{Seen, Topic};
use super::params::{Call, Params, invalid};
use super::problem::Chain;
use super::{Problem, Shared};
use crate::model::{AttemptNo, LineRange};
use crate::read::{Lines, ReadError, View};

/// Proxies close a connection on which nothing passes for 30 to 60 seconds.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Said at the start: how long a client waits before it connects again.
const GREETING: &[u8] = b"retry: 2000\n\n";

/// `GET …/follow`
pub async fn follow(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (app, instance) = call.target()?;
    let start = Start::take(&mut call.params, &headers)?;
    call.params.finish()?;
    let Ok(permit) = Arc::clone(&shared.followers).try_acquire_owned() else {
        let detail = "too many clients follow logs on this daemon; try again or use another one";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much at once", detail).retry_after(5));
    };
    let view = match shared.api.reader.open(&app, &instance, start.attempt).await {
        Ok(view) => Some(Arc::new(view)),
        Err(ReadError::NeverLogged) => None,
        Err(error) => return Err(error.into()),
    };
    let next = match (start.resumed_at, &view) {
        (Some(line), Some(view)) if view.is_final() && view.attempt.next_line <= line => {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        (Some(line), _) => line,
        (None, Some(view)) => start.last.map_or(start.from_line, |last| view.tail(last).start().max(start.from_line)),
        (None, None) => start.from_line,
    };
    let attempt = view.as_ref().map(|view| view.attempt.attempt).or(start.attempt);
    let topic = Topic { app, instance, attempt };
    let seen = shared.hub.follow(topic.clone(), view.clone());
    let follower = Follower { topic, seen, view, next, lines: None, state: Stage::Greeting, shared, _permit: permit };
    let events = futures::stream::try_unfold(follower, async |mut follower| {
        Ok::<_, Broken>(follower.event().await?.map(|event| (event, follower)))
    });
    let mut response = Body::from_stream(events).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would gather events until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Where a follower begins.
struct Start {
    attempt: Option<AttemptNo>,
    from_line: u64,
    last: Option<u64>,
    /// The line behind the last one that the client got.
    resumed_at: Option<u64>,
}

impl Start {
    fn take(params: &mut Params, headers: &HeaderMap) -> Result<Self, Problem> {
        let attempt = params.take_parsed("attempt")?;
        let from_line = params.take_number("from_line", 0, i64::MAX.unsigned_abs())?.unwrap_or(0);
        let last = params.take_number("last", 0, 10_000)?;
        let in_query = params.take("last_event_id")?;
        let in_header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
        // An empty one is what browsers send before the first event.
        let id = in_header.or(in_query).filter(|id| !id.is_empty());
        let Some(id) = id else { return Ok(Self { attempt, from_line, last, resumed_at: None }) };
        let (resumed, line) = parse_id(&id).ok_or_else(|| invalid("Last-Event-ID", &id, "it must be ATTEMPT:LINE"))?;
        if attempt.is_some_and(|attempt| attempt != resumed) {
            return Err(invalid("Last-Event-ID", &id, "it is of another attempt than the query names"));
        }
        Ok(Self { attempt: Some(resumed), from_line, last, resumed_at: Some(line) })
    }
}

/// `1:41` is the event of line 41, so 42 is next. `1:` is the end of an attempt without lines.
fn parse_id(id: &str) -> Option<(AttemptNo, u64)> {
    let (attempt, line) = id.split_once(':')?;
    let attempt = attempt.parse().ok()?;
    match line {
        "" => Some((attempt, 0)),
        line => line.parse::<u64>().ok()?.checked_add(1).map(|next| (attempt, next)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Following,
    Ended,
}

struct Follower {
    shared: Arc<Shared>,
    topic: Topic,
    seen: watch::Receiver<Seen>,
    /// The attempt at the last look.
    view: Seen,
    next: u64,
    /// Lines up to the end that the view names.
    lines: Option<Lines>,
    state: Stage,
    _permit: OwnedSemaphorePermit,
}

/// Ends the connection in the middle of the stream, so that the client connects again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("read the followed log")]
    Read(#[from] ReadError),
    #[error("{}", stopping().detail())]
    Stopping,
}

impl Follower {
    /// The next event or heartbeat; `None` behind the end.
    async fn event(&mut self) -> Result<Option<Bytes>, Broken> {
        match self.state {
            Stage::Greeting => {
                self.state = Stage::Following;
                return Ok(Some(Bytes::from_static(GREETING)));
            }
            Stage::Ended => return Ok(None),
            Stage::Following => {}
        }
        loop {
            match self.records().await {
                Ok(Some(events)) => return Ok(Some(events)),
                Ok(None) => {}
                Err(ReadError::Gone { .. }) => return Ok(Some(self.end("gone"))),
                Err(error) => {
                    self.shared.api.metrics.error("stream");
                    tracing::error!(error = %Chain(&error), "a followed log broke off");
                    return Err(error.into());
                }
            }
            if let Some(view) = &self.view {
                let state = view.attempt.state_at(view.at);
                if state.is_gone() || (state.is_finished() && view.attempt.next_line <= self.next) {
                    let shown = view.attempt.shown_state(view.at).as_str();
                    return Ok(Some(self.end(shown)));
                }
            }
            tokio::select! {
                changed = self.seen.changed() => {
                    changed.map_err(|_| Broken::Stopping)?;
                    self.look();
                }
                () = self.shared.api.clock.sleep(HEARTBEAT) => return Ok(Some(Bytes::from_static(b": heartbeat\n\n"))),
                () = self.shared.api.shutdown.cancelled() => return Err(Broken::Stopping),
            }
        }
    }

    /// Takes over what the hub has seen. The first attempt that shows up under the id is the one
    /// that is followed from then on.
    fn look(&mut self) {
        let seen = self.seen.borrow_and_update().clone();
        let Some(view) = seen else { return };
        if self.topic.attempt.is_none() {
            self.topic.attempt = Some(view.attempt.attempt);
            self.seen = self.shared.hub.follow(self.topic.clone(), Some(Arc::clone(&view)));
        }
        self.view = Some(view);
    }

    /// The events of the next block of lines; `None` where there is no more for now.
    async fn records(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.lines.is_none() {
            self.lines = self.view.as_deref().and_then(|view| self.lines_of(view));
        }
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let Some(block) = lines.next().await? else {
            self.lines = None;
            return Ok(None);
        };
        let attempt = self.topic.attempt.unwrap_or_default();
        let mut events = Vec::with_capacity(block.records.len() * 3 / 2);
        for (line, json) in block.records() {
            events
                .extend_from_slice(format!("event: record\nid: {attempt}:{line}\ndata: {{\"line\":{line},").as_bytes());
            events.extend_from_slice(json.get(1..).unwrap_or_default());
            events.extend_from_slice(b"\n\n");
        }
        self.next = block.lines.end();
        Ok(Some(events.into()))
    }

    fn lines_of(&self, view: &View) -> Option<Lines> {
        let range = LineRange::new(self.next, view.attempt.next_line);
        (!range.is_empty() && !view.attempt.state_at(view.at).is_gone())
            .then(|| self.shared.api.reader.lines(view, range))
    }

    /// Its id is that of the last line, so that a client that connects again is told that it has all.
    fn end(&mut self, state: &str) -> Bytes {
        self.state = Stage::Ended;
        let attempt = self.topic.attempt.unwrap_or_default();
        let id = self.next.checked_sub(1).map(|line| line.to_string()).unwrap_or_default();
        let outcome = self.view.as_ref().and_then(|view| view.attempt.outcome).map(|outcome| outcome.as_str());
        let data =
            serde_json::json!({ "attempt": attempt, "state": state, "outcome": outcome, "next_line": self.next });
        format!("event: end\nid: {attempt}:{id}\ndata: {data}\n\n").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_name_the_line_that_comes_next() {
        let one = AttemptNo::FIRST;
        let cases = [("1:0", Some((one, 1))), ("1:", Some((one, 0))), ("1", None), ("0:1", None), ("1:x", None)];
        for (id, expected) in cases {
            assert_eq!(parse_id(id), expected, "{id}");
        }
    }
}
