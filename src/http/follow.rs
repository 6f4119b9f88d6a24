//! A log as it grows, as server-sent events.
//!
//! A follower that has all lines takes the new ones from the hub; one that is behind, or that has a
//! filter, reads them by itself, when its client has room for them. So a slow client holds one block
//! in memory and delays nobody, and one that takes nothing for long is let go, with the reason. Its
//! place is the id of the last event it got, so it can go on after any break, on any daemon.
//!
//! Only a client's own word ends a log: one that merely fell silent gets an `end` from nobody, for
//! a line may open it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::errors::stopping;
use super::hub::{Seen, Topic, push_event, push_events, relevant};
use super::params::{Call, Params, invalid};
use super::query::take_filter;
use super::{Problem, Shared};
use crate::model::{AttemptNo, AttemptState, LineRange};
use crate::read::{Filter, Lines, Matching, ReadError, View};
use crate::telemetry::chain;

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
    let filter = take_filter(&mut call.params)?;
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
        (Some(line), Some(view)) if is_over(view) && view.attempt.next_line <= line => {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        (Some(line), _) => line,
        (None, Some(view)) => start.last.map_or(start.from_line, |last| view.tail(last).start().max(start.from_line)),
        (None, None) => start.from_line,
    };
    let attempt = view.as_ref().map(|view| view.attempt.attempt).or(start.attempt);
    let topic = Topic { app, instance, attempt };
    let seen = shared.hub.follow(topic.clone(), view.clone());
    let filter = (!filter.is_empty()).then(|| Box::new(filter));
    let (lines, state, gave_at) = (None, Stage::Greeting, None);
    let mut follower = Follower { topic, seen, view, next, filter, lines, state, gave_at, shared, _permit: permit };
    // The hub may have looked after we did.
    follower.look();
    let events = futures::stream::try_unfold(follower, async |mut follower| {
        Ok::<_, Broken>(follower.event().await?.map(|event| (event, follower)))
    });
    let mut response = Body::from_stream(events).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would gather events until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Whether the client said that no more lines will come.
fn is_over(view: &View) -> bool {
    view.attempt.state_at(view.at) == AttemptState::Finished
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
    /// Told why, and to be cut off.
    TooSlow,
}

struct Follower {
    shared: Arc<Shared>,
    topic: Topic,
    seen: watch::Receiver<Seen>,
    /// The attempt at the last look.
    view: Option<Arc<View>>,
    /// The line to go on with.
    next: u64,
    filter: Option<Box<Filter>>,
    /// What it reads by itself.
    lines: Option<Unread>,
    state: Stage,
    /// When the client last took something.
    gave_at: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// Lines up to `end`, all or those that match.
struct Unread {
    end: u64,
    lines: AllOrSome,
}

enum AllOrSome {
    All(Box<Lines>),
    Some(Box<Matching>),
}

/// Ends the connection in the middle of the stream, so that the client connects again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("read the followed log")]
    Read(#[from] ReadError),
    #[error("{}", stopping().detail())]
    Stopping,
    #[error("the client was too slow")]
    TooSlow,
}

impl Follower {
    /// The next event or heartbeat; `None` behind the end.
    async fn event(&mut self) -> Result<Option<Bytes>, Broken> {
        if let Some(reason) = self.too_slow() {
            return Ok(Some(reason));
        }
        let event = self.next_event().await;
        self.gave_at = Some(self.shared.api.clock.instant());
        event
    }

    async fn next_event(&mut self) -> Result<Option<Bytes>, Broken> {
        match self.state {
            Stage::Greeting => {
                self.state = Stage::Following;
                return Ok(Some(Bytes::from_static(GREETING)));
            }
            Stage::Ended => return Ok(None),
            Stage::TooSlow => return Err(Broken::TooSlow),
            Stage::Following => {}
        }
        loop {
            match self.records().await {
                Ok(Some(events)) => return Ok(Some(events)),
                Ok(None) => {}
                Err(ReadError::Gone { .. }) => return Ok(Some(self.end("gone"))),
                Err(error) => {
                    self.shared.api.metrics.error("stream");
                    tracing::error!(error = chain(&error), "a followed log broke off");
                    return Err(error.into());
                }
            }
            if let Some(view) = &self.view {
                let is_gone = view.attempt.state_at(view.at).is_gone();
                if is_gone || (is_over(view) && view.attempt.next_line <= self.next) {
                    let shown = view.attempt.shown_state(view.at).as_str();
                    return Ok(Some(self.end(shown)));
                }
            }
            tokio::select! {
                changed = self.seen.changed() => {
                    changed.map_err(|_| Broken::Stopping)?;
                    if let Some(events) = self.look() {
                        return Ok(Some(events));
                    }
                }
                () = self.shared.api.clock.sleep(HEARTBEAT) => return Ok(Some(Bytes::from_static(b": heartbeat\n\n"))),
                () = self.shared.api.shutdown.cancelled() => return Err(Broken::Stopping),
            }
        }
    }

    /// The last word to a client that took nothing for so long. Not an `end`: it may come again.
    fn too_slow(&mut self) -> Option<Bytes> {
        let limit = self.shared.api.settings.follow_stall;
        let gave_at = self.gave_at.filter(|_| self.state == Stage::Following)?;
        let stalled = self.shared.api.clock.instant().duration_since(gave_at);
        if stalled < limit {
            return None;
        }
        self.state = Stage::TooSlow;
        self.shared.api.metrics.error("slow_follower");
        tracing::info!(
            instance = %self.topic.instance, http.stalled_seconds = stalled.as_secs(),
            "a follower took nothing for too long and is let go"
        );
        let detail = format!(
            "nothing was taken from this connection for {} s, at most {} are waited; connect again to go on",
            stalled.as_secs(),
            limit.as_secs()
        );
        Some(format!("event: error\ndata: {}\n\n", serde_json::json!({"reason": "slow", "detail": detail})).into())
    }

    /// Takes over what the hub has seen, and gives the new lines where they are just those that
    /// come next. The first attempt that shows up under the id is the one that is followed from
    /// then on.
    fn look(&mut self) -> Option<Bytes> {
        let Seen { view, fresh } = self.seen.borrow_and_update().clone();
        // One that is as good as the follower's own is shared by all, and takes no memory of its own.
        let is_good = |view: &Arc<View>| {
            self.view.as_ref().is_none_or(|known| known.at <= view.at || relevant(known) == relevant(view))
        };
        let view = view.filter(is_good)?;
        if self.topic.attempt.is_none() {
            self.topic.attempt = Some(view.attempt.attempt);
            self.seen = self.shared.hub.follow(self.topic.clone(), Some(Arc::clone(&view)));
        }
        self.view = Some(view);
        let fresh = fresh.filter(|fresh| {
            self.filter.is_none() && self.lines.is_none() && self.next == fresh.lines.start() && !fresh.lines.is_empty()
        })?;
        self.next = fresh.lines.end();
        Some(fresh.events)
    }

    /// The events of the next block of lines; `None` where there is no more for now.
    async fn records(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.lines.is_none() {
            self.lines = self.view.as_deref().and_then(|view| self.unread(view));
        }
        let attempt = self.topic.attempt.unwrap_or_default();
        if self.lines.is_none() {
            return Ok(None);
        }
        // In a box of its own: the state of a read is large, and most followers wait.
        Box::pin(self.read_on(attempt)).await
    }

    async fn read_on(&mut self, attempt: AttemptNo) -> Result<Option<Bytes>, ReadError> {
        while let Some(unread) = &mut self.lines {
            let mut events = Vec::new();
            let more = match &mut unread.lines {
                AllOrSome::All(lines) => lines.next().await?.map(|block| {
                    self.next = block.lines.end();
                    push_events(&mut events, attempt, &block);
                }),
                AllOrSome::Some(lines) => {
                    let found = lines.next(|line, json| {
                        push_event(&mut events, attempt, line, json);
                        Ok(())
                    });
                    found.await?.then_some(())
                }
            };
            if more.is_none() {
                self.next = unread.end;
                self.lines = None;
            }
            if !events.is_empty() {
                return Ok(Some(events.into()));
            }
        }
        Ok(None)
    }

    fn unread(&self, view: &View) -> Option<Unread> {
        let range = LineRange::new(self.next.min(view.attempt.next_line), view.attempt.next_line);
        if range.is_empty() || view.attempt.state_at(view.at).is_gone() {
            return None;
        }
        let reader = &self.shared.api.reader;
        let lines = match &self.filter {
            None => AllOrSome::All(Box::new(reader.lines(view, range))),
            Some(filter) => AllOrSome::Some(Box::new(reader.matching(view, range, (**filter).clone()))),
        };
        Some(Unread { end: range.end(), lines })
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
