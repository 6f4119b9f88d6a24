//! What a client says of an attempt besides its lines: that it exists, and that it is over.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::params::Call;
use super::shown::ShownAttempt;
use super::{Problem, Shared, body};
use crate::ingest::{Declared, Facts};
use crate::model::{App, AttemptKey, AttemptNo, Job, Labels, Millis, Outcome, Timestamp};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub struct DeclareBody {
    #[schema(value_type = Option<String>)]
    job: Option<Job>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
    /// 1 if not given.
    #[schema(value_type = Option<u32>, minimum = 1)]
    attempt: Option<AttemptNo>,
    /// RFC 3339 or unix milliseconds.
    #[schema(value_type = Option<String>)]
    started_at: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub struct FinishBody {
    /// 1 if not given.
    #[schema(value_type = Option<u32>, minimum = 1)]
    attempt: Option<AttemptNo>,
    /// succeeded, failed or cancelled.
    outcome: Option<String>,
    /// How many there must be; another number is 409.
    lines: Option<u64>,
    /// When it was over, if that was earlier: RFC 3339 or unix milliseconds. Retention counts from here.
    #[schema(value_type = Option<String>)]
    finished_at: Option<serde_json::Value>,
    #[schema(value_type = Option<String>)]
    job: Option<Job>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeclareAnswer {
    #[serde(flatten)]
    attempt: ShownAttempt,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// `PUT` of an instance
pub async fn declare(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DeclareAnswer>, Problem> {
    let (app, instance) = call.target()?;
    let in_query = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    let body: DeclareBody = body::read_json(&shared, &headers, body).await?;
    let attempt = one_attempt(in_query, body.attempt)?;
    let started_at = body.started_at.map(|time| moment("started_at", &time)).transpose()?;
    let key = AttemptKey { app: app.clone(), instance, attempt };
    let facts = Facts { key, job: body.job, labels: body.labels, started_at };
    let declared = shared.api.ingest.declare(facts).await?;
    Ok(answer(&shared, &app, &declared))
}

/// `POST …/finish`
pub async fn finish(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DeclareAnswer>, Problem> {
    let (app, instance) = call.target()?;
    let in_query = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    let body: FinishBody = body::read_json(&shared, &headers, body).await?;
    let attempt = one_attempt(in_query, body.attempt)?;
    let outcome: Option<Outcome> = match &body.outcome {
        Some(word) => Some(word.parse().map_err(|error| Problem::bad_request(format!("{error}")))?),
        None => None,
    };
    let finished_at = body.finished_at.map(|time| moment("finished_at", &time)).transpose()?;
    let key = AttemptKey { app: app.clone(), instance, attempt };
    let facts = Facts { key, job: body.job, labels: body.labels, started_at: None };
    let declared = shared.api.ingest.finish_at(facts, outcome, body.lines, finished_at).await?;
    let counts_none = body.lines == Some(0);
    let mut answer = answer(&shared, &app, &declared);
    if declared.attempt.next_line == 0 && !counts_none {
        // A job may end without a word; an id may also be mistyped.
        answer.warnings.push("nothing was logged under this id; it is now known as finished, without lines".to_owned());
    }
    Ok(answer)
}

/// On write, no attempt means the first: a retry must never land in another one.
fn one_attempt(in_query: Option<AttemptNo>, in_body: Option<AttemptNo>) -> Result<AttemptNo, Problem> {
    match (in_query, in_body) {
        (Some(a), Some(b)) if a != b => {
            Err(Problem::bad_request(format!("the query names attempt {a}, the body attempt {b}")))
        }
        (a, b) => Ok(a.or(b).unwrap_or_default()),
    }
}

/// RFC 3339 or unix milliseconds.
fn moment(name: &str, time: &serde_json::Value) -> Result<Millis, Problem> {
    let text = time.as_str().map_or_else(|| time.to_string(), str::to_owned);
    let time = Timestamp::parse(&text)
        .map_err(|_| Problem::bad_request(format!("{name} {text} is neither RFC 3339 nor unix milliseconds")))?;
    Ok(Millis::new(time.nanos().div_euclid(1_000_000)))
}

fn answer(shared: &Shared, app: &App, declared: &Declared) -> Json<DeclareAnswer> {
    let Declared { attempt, job, other_job, other_labels } = declared;
    let attempt = ShownAttempt::new(app, job.as_ref(), attempt, shared.api.clock.now());
    let warnings = [
        other_job.then(|| "the attempt belongs to another job already, which stays".to_owned()),
        other_labels.then(|| "the attempt has other labels already, which stay".to_owned()),
    ];
    Json(DeclareAnswer { attempt, warnings: warnings.into_iter().flatten().collect() })
}
