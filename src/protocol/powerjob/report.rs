//! `POST /server/reportLog`: lines as workers send them, some twenty at a time.
//!
//! A worker expects 200 and an empty body, waits for nothing else, and never sends a line again. So a commit that
//! fails is tried again here, for as long as the worker may be kept waiting.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};

use super::attempts::attempt_at;
use super::front::{Front, refusal};
use super::gaps::Gap;
use super::{InstanceId, Line, LineLevel};
use crate::ingest::{AppendError, Defaults, MessageBytes, decode_bulk};
use crate::model::{AttemptKey, Millis, Timestamp};
use crate::read::ReadError;

/// After this the worker is told that its lines are not stored.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Between two tries. A database that restarts is away for a second or more.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    #[serde(borrow, default)]
    worker_address: Cow<'a, str>,
    #[serde(borrow)]
    instance_log_contents: Vec<Content<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    instance_id: i64,
    log_time: i64,
    log_level: Option<i64>,
    #[serde(borrow)]
    log_content: Option<MessageBytes<'a>>,
}

/// The lines of one instance in a report.
struct Share {
    id: InstanceId,
    /// Of the client's clock.
    first: Millis,
    last: Millis,
    lines: u64,
    /// The records' JSON, one a line.
    records: Vec<u8>,
}

/// Why lines were not stored.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("look up attempt")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

pub async fn report_log(State(front): State<Arc<Front>>, request: Request<Body>) -> Response {
    let (body, room) = match front.body(request).await {
        Ok(received) => received,
        Err(refused) => return refused,
    };
    let (worker, shares) = match shares(&body) {
        Ok(shares) => shares,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("the report cannot be read: {error}")),
    };
    // A task of its own: a worker that goes away does not stop what was accepted.
    let stored = front.parts.tasks.spawn({
        let front = Arc::clone(&front);
        async move {
            let stored = futures::future::join_all(shares.into_iter().map(|share| store(&front, &worker, share))).await;
            drop(room);
            stored.into_iter().all(|stored| stored)
        }
    });
    tokio::select! {
        stored = stored => match stored {
            Ok(true) => StatusCode::OK.into_response(),
            _ => refusal(StatusCode::SERVICE_UNAVAILABLE, "some lines could not be stored"),
        },
        () = front.parts.clock.sleep(ANSWER_WITHIN) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "the hot tier did not answer in time")
        }
    }
}

/// A report's lines by instance, in the order they came.
fn shares(body: &[u8]) -> Result<(String, Vec<Share>), String> {
    let report: Report<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut places: HashMap<InstanceId, usize> = HashMap::new();
    let mut shares: Vec<Share> = Vec::new();
    for content in &report.instance_log_contents {
        let id = InstanceId::new(content.instance_id).map_err(|error| error.to_string())?;
        let ts = Timestamp::from_millis(content.log_time).map_err(|error| error.to_string())?;
        let moment = Millis::new(content.log_time);
        let place = *places.entry(id).or_insert_with(|| {
            shares.push(Share { id, first: moment, last: moment, lines: 0, records: Vec::new() });
            shares.len() - 1
        });
        let share = &mut shares[place];
        (share.first, share.last) = (share.first.min(moment), share.last.max(moment));
        share.lines += 1;
        let line = Line {
            ts,
            level: Some(LineLevel::from_code(content.log_level.unwrap_or_default())),
            source: source(&report.worker_address),
            message: content.log_content.as_ref().map_or(b"null", MessageBytes::as_bytes),
            partial: false,
        };
        line.record().write_json(&mut share.records);
        share.records.push(b'\n');
    }
    Ok((report.worker_address.into_owned(), shares))
}

/// A line has a worker; one that does not say who it is is still a line with a header.
fn source(worker: &str) -> &str {
    if worker.is_empty() { "unknown" } else { worker }
}

/// Whether the lines were stored. If not, the log will say so itself.
async fn store(front: &Front, worker: &str, share: Share) -> bool {
    let clock = &front.parts.clock;
    let deadline = clock.instant() + ANSWER_WITHIN;
    // One key for all tries: a commit whose answer was lost is not repeated.
    let key = clock.new_ulid().to_string();
    loop {
        let error = match try_to_store(front, &share, &key).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        let passes = match &error {
            StoreError::Read(error) => error.is_unavailable(),
            StoreError::Append(AppendError::Db(error)) => !error.is_permanent(),
            StoreError::Append(AppendError::Full | AppendError::Gone { .. }) => true,
            StoreError::Append(_) => false,
        };
        if !passes || clock.instant() + PAUSE >= deadline {
            tracing::warn!(instance = %share.id, lines = share.lines, error = %error, "reported lines are not stored");
            front.gaps.note(Gap::new(share.id, worker, share.lines, share.first, share.last));
            return false;
        }
        clock.sleep(PAUSE).await;
    }
}

async fn try_to_store(front: &Front, share: &Share, key: &str) -> Result<(), StoreError> {
    let (app, instance) = (front.app.clone(), share.id.instance());
    let (attempt, _) = attempt_at(&front.parts.reader, &app, &instance, share.first).await?;
    let defaults = Defaults {
        key: Some(AttemptKey { app, instance, attempt }),
        batch_key: Some(key.to_owned()),
        max_record_bytes: front.parts.max_record_bytes,
        ..Defaults::default()
    };
    for batch in decode_bulk(&share.records, &defaults).batches {
        front.parts.ingest.append(batch).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_split_by_instance() {
        let body = r#"{"workerAddress":"10.0.0.1:27777","instanceLogContents":[
            {"instanceId":7,"logTime":1700000000001,"logLevel":2,"logContent":"a\nb"},
            {"instanceId":8,"logTime":1700000000002,"logLevel":99,"logContent":null,"more":1},
            {"instanceId":7,"logTime":1700000000000,"logLevel":4,"logContent":"\ud800"}]}"#;
        let (worker, shares) = shares(body.as_bytes()).expect("a report");
        let text = |share: &Share| String::from_utf8_lossy(&share.records).into_owned();
        assert_eq!((worker.as_str(), shares.len(), shares[0].lines, shares[1].lines), ("10.0.0.1:27777", 2, 2, 1));
        assert_eq!((shares[0].first.get(), shares[0].last.get()), (1_700_000_000_000, 1_700_000_000_001));
        let first = r#"{"ts":"2023-11-14T22:13:20.001Z","level":"INFO","source":"10.0.0.1:27777","message":"a\nb"}"#;
        assert!(text(&shares[0]).starts_with(first), "{}", text(&shares[0]));
        // Half a character is no text: its bytes are kept.
        assert!(text(&shares[0]).contains("\"raw\":\"7aCA\""), "{}", text(&shares[0]));
        assert!(text(&shares[1]).contains(r#""attrs":{"level":"OFF"}"#) && text(&shares[1]).contains("null"));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"instanceLogContents":[{"instanceId":0,"logTime":1}]}"#,
            r#"{"instanceLogContents":[{"instanceId":1}]}"#,
            r#"{"instanceLogContents":[{"instanceId":1,"logTime":9223372036854775807}]}"#,
        ] {
            assert!(shares(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
