//! Records in: of many attempts, or of one.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::body::{self, Received};
use super::params::{Call, Params, invalid};
use super::{Problem, Shared};
use crate::ingest::{AppendError, Appended, Batch, Decoded, Defaults, decode_bulk, decode_lines, decode_text};
use crate::model::{App, AttemptKey, AttemptNo, Instance, Labels};

/// Longest `Idempotency-Key` in bytes; a UUID has 36.
const MAX_KEY_BYTES: usize = 255;

/// A body above this is decoded on a thread of its own, so that others are not kept waiting.
const LARGE_BODY: usize = 64 * 1024;

/// Rejected lines that an answer names; the rest is only counted.
const MAX_REJECTED_SHOWN: usize = 1_000;

/// The answer to records of one attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppendAnswer {
    #[schema(value_type = u32)]
    attempt: AttemptNo,
    first_line: u64,
    lines: u64,
    next_line: u64,
    accepted: u64,
    /// The first thousand lines that were left out.
    rejected: Vec<RejectedAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_not_shown: Option<usize>,
    /// The key was used before; this is what became of the records then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The answer to records of many attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkAnswer {
    accepted: u64,
    /// The first thousand lines that were left out.
    rejected: Vec<RejectedAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_not_shown: Option<usize>,
    batches: Vec<BatchAnswer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A line that was left out.
#[derive(Debug, Serialize, ToSchema)]
struct RejectedAnswer {
    /// Counted from 0 over the lines that are not blank.
    index: u64,
    error: String,
}

/// What became of a batch, in a bulk answer.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    #[schema(value_type = String)]
    app: App,
    #[schema(value_type = String)]
    instance: Instance,
    #[schema(value_type = u32)]
    attempt: AttemptNo,
    first_line: u64,
    lines: u64,
    next_line: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
}

/// `POST /records`
pub async fn bulk(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BulkAnswer>, Problem> {
    let params = &mut call.params;
    let mut defaults = defaults(&shared, params, &headers)?;
    defaults.app = params.take_parsed("app")?.unwrap_or_default();
    call.params.finish()?;
    if let Shape::Text = Shape::of(&headers)? {
        let detail = "records of many attempts come as application/x-ndjson, in which each line names its own";
        return Err(unsupported(detail));
    }
    let received = body::read(&shared, &headers, body).await?;
    let Decoded { batches, accepted, rejected, places, room, .. } =
        decode(&shared, received, defaults, Shape::Bulk).await?;
    let mut outcome = Outcomes { accepted, ..Outcomes::default() };
    outcome.rejected.extend(rejected.into_iter().map(|rejected| (rejected.index, rejected.error)));
    let about: Vec<(AttemptKey, u64)> =
        batches.iter().map(|batch: &Batch| (batch.key.clone(), batch.lines.len() as u64)).collect();
    let results = shared.api.ingest.append_all_within(batches, room).await;
    for (((key, lines), places), result) in about.into_iter().zip(places).zip(results) {
        outcome.add(key, lines, places, result);
    }
    outcome.answer()
}

/// What became of all the batches of a bulk request.
#[derive(Default)]
struct Outcomes {
    accepted: u64,
    rejected: Vec<(u64, String)>,
    stored: Vec<BatchAnswer>,
    warnings: Vec<String>,
    /// The first problem that trying again mends, else the first of any other kind.
    worst: Option<Problem>,
    failed: Vec<serde_json::Value>,
}

impl Outcomes {
    fn add(
        &mut self,
        key: AttemptKey,
        lines: u64,
        places: Vec<std::ops::Range<u64>>,
        result: Result<Appended, AppendError>,
    ) {
        let error = match result {
            Ok(appended) => {
                self.warnings.extend(warnings_of(&key, &appended));
                self.stored.push(BatchAnswer {
                    attempt: appended.attempt,
                    first_line: appended.first_line,
                    lines: appended.lines,
                    next_line: appended.next_line(),
                    repeated: appended.repeated,
                    app: key.app,
                    instance: key.instance,
                });
                return;
            }
            Err(error) => error,
        };
        let problem = Problem::from(error);
        for index in places.into_iter().flatten() {
            self.accepted -= 1;
            self.rejected.push((index, format!("{key}: {}", problem.detail())));
        }
        self.failed.push(json!({
            "app": key.app, "instance": key.instance, "attempt": key.attempt, "lines": lines,
            "type": problem.type_urn(), "status": problem.status().as_u16(), "error": problem.detail(),
        }));
        let is_worse = |known: &Problem| severity(&problem) > severity(known);
        if self.worst.as_ref().is_none_or(is_worse) {
            self.worst = Some(problem);
        }
    }

    /// 200 where something was stored and sending the rest again would not help: the rest is
    /// rejected, line by line. Else the worst problem, which says what was stored.
    fn answer(mut self) -> Result<Json<BulkAnswer>, Problem> {
        self.rejected.sort();
        let rejected = shown_rejected(&self.rejected);
        match self.worst {
            Some(problem) if self.stored.is_empty() || severity(&problem) > 0 => Err(problem
                .with("committed", json!(self.stored))
                .with("failed", self.failed)
                .with("accepted", self.accepted)
                .with("rejected", json!(rejected))),
            _ => Ok(Json(BulkAnswer {
                accepted: self.accepted,
                rejected,
                rejected_not_shown: not_shown(self.rejected.len()),
                batches: self.stored,
                warnings: self.warnings,
            })),
        }
    }
}

/// How much of the answer a problem decides: 0 where it concerns one attempt alone.
fn severity(problem: &Problem) -> u8 {
    match problem.status() {
        status if status == StatusCode::SERVICE_UNAVAILABLE => 3,
        status if status.is_server_error() => 2,
        StatusCode::UNPROCESSABLE_ENTITY => 1,
        _ => 0,
    }
}

/// `POST …/records`
pub async fn append(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppendAnswer>, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?.unwrap_or_default();
    let key = AttemptKey { app, instance, attempt };
    let mut defaults = defaults(&shared, &mut call.params, &headers)?;
    defaults.key = Some(key.clone());
    defaults.at_line = call.params.take_number("at_line", 0, i64::MAX.unsigned_abs())?;
    let labels = call.params.take_labels();
    let labels = Labels::new(labels.into_iter().collect()).map_err(|error| Problem::bad_request(error.to_string()))?;
    call.params.finish()?;
    let shape = Shape::of(&headers)?;
    let received = body::read(&shared, &headers, body).await?;
    let Decoded { batches, accepted, rejected, room, .. } = decode(&shared, received, defaults, shape).await?;
    let rejected: Vec<(u64, String)> = rejected.into_iter().map(|line| (line.index, line.error)).collect();
    let Some(mut batch) = batches.into_iter().next() else {
        return Err(Problem::bad_request("the body holds no record"));
    };
    if batch.labels.is_empty() {
        batch.labels = labels;
    }
    let appended = shared.api.ingest.append_within(batch, room).await?;
    Ok(Json(AppendAnswer {
        attempt: key.attempt,
        first_line: appended.first_line,
        lines: appended.lines,
        next_line: appended.next_line(),
        accepted,
        rejected: shown_rejected(&rejected),
        rejected_not_shown: not_shown(rejected.len()),
        repeated: appended.repeated,
        warnings: warnings_of(&key, &appended).collect(),
    }))
}

/// How a body of records is laid out.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Bulk,
    Json,
    Text,
}

impl Shape {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (media_type, _) = content_type(headers);
        match media_type.as_str() {
            "text/plain" => Ok(Self::Text),
            // The last is what curl says of data unless told otherwise.
            ""
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/json"
            | "application/octet-stream"
            | "application/x-www-form-urlencoded" => Ok(Self::Json),
            other => Err(unsupported(format!(
                "Content-Type {other}: send application/x-ndjson, application/json (an array) or text/plain"
            ))),
        }
    }
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Unsupported body", detail)
}

/// The media type in lower case, and its charset.
fn content_type(headers: &HeaderMap) -> (String, Option<String>) {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut parts = value.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or("").to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
    });
    (media_type, charset)
}

/// What both calls take: `job`, `source`, `charset` and the key.
fn defaults(shared: &Shared, params: &mut Params, headers: &HeaderMap) -> Result<Defaults, Problem> {
    let charset = params.take("charset")?.or_else(|| content_type(headers).1);
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or(""));
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        let detail = format!("the Idempotency-Key must have 1 to {MAX_KEY_BYTES} visible ASCII characters");
        return Err(Problem::bad_request(detail));
    }
    Ok(Defaults {
        job: params.take_parsed("job")?,
        source: params.take("source")?.unwrap_or_default(),
        batch_key: key.map(str::to_owned),
        charset: charset.map(|label| encoding(&label)).transpose()?.flatten(),
        arrived: Some(shared.api.clock.now().timestamp()),
        max_record_bytes: shared.api.settings.max_record_bytes,
        budget: Some(shared.api.ingest.budget().clone()),
        ..Defaults::default()
    })
}

/// `None` for UTF-8. Lines are split at the byte 0x0A, so only encodings in which it means a
/// newline will do.
fn encoding(label: &str) -> Result<Option<&'static encoding_rs::Encoding>, Problem> {
    match encoding_rs::Encoding::for_label(label.as_bytes()) {
        Some(found) if found == encoding_rs::UTF_8 => Ok(None),
        Some(found) if found.is_ascii_compatible() => Ok(Some(found)),
        Some(_) => Err(invalid("charset", label, "text in it cannot be split into lines; send UTF-8")),
        None => Err(invalid("charset", label, "no such charset is known; send UTF-8, GBK, Shift_JIS …")),
    }
}

/// The records of a body, as far as there is room for them.
async fn decode(shared: &Shared, received: Received, defaults: Defaults, shape: Shape) -> Result<Decoded, Problem> {
    let is_large = received.bytes.len() > LARGE_BODY;
    let work = move || {
        let bytes = &received.bytes;
        let decoded = match shape {
            Shape::Bulk => Ok(decode_bulk(bytes, &defaults)),
            Shape::Json => decode_lines(bytes, &defaults),
            Shape::Text => Ok(decode_text(bytes, &defaults)),
        };
        decoded.map_err(|error| Problem::bad_request(format!("the body is no JSON array: {error}")))
    };
    let decoded =
        if is_large { shared.api.tasks.spawn_blocking(work).await.map_err(Problem::internal)?? } else { work()? };
    if let Some(refused) = decoded.refused {
        return Err(refused.into());
    }
    let metrics = &shared.api.metrics;
    metrics.rejected_records.inc_by(decoded.rejected.len() as u64);
    metrics.not_utf8_records.inc_by(decoded.not_utf8);
    if decoded.batches.is_empty() && decoded.rejected.is_empty() {
        return Err(Problem::bad_request("the body holds no record"));
    }
    if decoded.batches.is_empty() {
        let rejected: Vec<(u64, String)> = decoded.rejected.into_iter().map(|line| (line.index, line.error)).collect();
        let first = rejected.first().map(|(index, error)| format!("line {index} (from 0): {error}"));
        let detail = format!("none of the {} lines is a record; {}", rejected.len(), first.unwrap_or_default());
        return Err(Problem::bad_request(detail)
            .with("accepted", 0)
            .with("rejected", json!(shown_rejected(&rejected))));
    }
    Ok(decoded)
}

fn shown_rejected(rejected: &[(u64, String)]) -> Vec<RejectedAnswer> {
    let shown = rejected.iter().take(MAX_REJECTED_SHOWN);
    shown.map(|(index, error)| RejectedAnswer { index: *index, error: error.clone() }).collect()
}

fn not_shown(rejected: usize) -> Option<usize> {
    rejected.checked_sub(MAX_REJECTED_SHOWN).filter(|more| *more > 0)
}

/// What was asked for and did not happen, though the lines are stored.
fn warnings_of(key: &AttemptKey, appended: &Appended) -> impl Iterator<Item = String> {
    let job =
        appended.other_job.then(|| format!("{key} belongs to another job already, which stays; the lines are stored"));
    let labels =
        appended.other_labels.then(|| format!("{key} has other labels already, which stay; the lines are stored"));
    job.into_iter().chain(labels)
}
