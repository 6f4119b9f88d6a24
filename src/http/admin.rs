//! What operators and their probes ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::errors::stopping;
use super::params::Call;
use super::schemas::RunStarted;
use super::{Problem, Shared};
use crate::archive::{Failure, RunReport, Waiting};
use crate::audit::StatusReport;

/// Longest wait for a run; a client that wants to wait longer asks for its report again.
pub const MAX_WAIT_SECONDS: u64 = 3_600;

const DEFAULT_RUNS: u64 = 20;
pub const MAX_RUNS: u64 = 200;

#[derive(Debug, Serialize)]
pub struct StatusAnswer {
    #[serde(flatten)]
    report: StatusReport,
    schedule: ScheduleAnswer,
    /// Of any daemon; `None` also while the hot tier cannot be asked.
    last_run: Option<LastRun>,
    /// Of records that wait for their commit.
    queue_bytes: u64,
    /// When a database last refused records because it had no room for them.
    no_room_at: Option<String>,
    /// Attempts that clients of this daemon follow.
    followed_attempts: usize,
}

#[derive(Debug, Serialize)]
struct ScheduleAnswer {
    text: String,
    next_run: Option<String>,
}

/// What the archiver did last, and why something that is due has not moved.
#[derive(Debug, Serialize)]
struct LastRun {
    run_id: String,
    cause: String,
    state: String,
    started_at: String,
    finished_at: Option<String>,
    attempts: u64,
    purged: u64,
    expired: u64,
    waiting: Vec<Waiting>,
    failures: Vec<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purge_stopped: Option<String>,
}

impl From<RunReport> for LastRun {
    fn from(report: RunReport) -> Self {
        let RunReport { run_id, cause, state, started_at, finished_at, attempts, purged, expired, .. } = report;
        let RunReport { waiting, failures, purge_stopped, .. } = report;
        Self {
            run_id,
            cause,
            state,
            started_at,
            finished_at,
            attempts,
            purged,
            expired,
            waiting,
            failures,
            purge_stopped,
        }
    }
}

/// `GET /status`
pub async fn status(State(shared): State<Arc<Shared>>, call: Call) -> Result<Json<StatusAnswer>, Problem> {
    call.params.finish()?;
    let api = &shared.api;
    let report = api.status.report().await;
    let last_run = match report.hot.reachable {
        true => api.archiver.runs(1).await?.pop().map(LastRun::from),
        false => None,
    };
    Ok(Json(StatusAnswer {
        report,
        last_run,
        schedule: ScheduleAnswer {
            text: api.settings.schedule.clone(),
            next_run: api.archiver.next_scheduled().map(|at| at.to_string()),
        },
        queue_bytes: api.ingest.queued_bytes(),
        no_room_at: api.ingest.no_room_at().map(|at| at.to_string()),
        followed_attempts: shared.hub.topics(),
    }))
}

/// `POST /archive`
pub async fn archive(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Response, Problem> {
    let dry_run = call.params.take_flag("dry_run")?;
    let retry = call.params.take_flag("retry")?;
    let wait = call.params.take_number("wait", 0, MAX_WAIT_SECONDS)?;
    call.params.finish()?;
    let archiver = &shared.api.archiver;
    if dry_run {
        return Ok(Json(archiver.dry_run().await?).into_response());
    }
    if retry {
        archiver.retry_set_aside().await?;
    }
    let run_id = archiver.request_run().await?;
    if let Some(seconds) = wait {
        let report = tokio::select! {
            report = archiver.wait_for(run_id, Duration::from_secs(seconds)) => report?,
            () = shared.api.shutdown.cancelled() => None,
        };
        if let Some(report) = report.filter(|report| report.state != "running") {
            return Ok(Json(report).into_response());
        }
    }
    Ok((StatusCode::ACCEPTED, Json(RunStarted { run_id: run_id.to_string() })).into_response())
}

/// What a reason may be long, in characters: it stands in a column of 1 KiB.
const MAX_REASON: usize = 200;

/// `PUT /purge/pause`
pub async fn pause_purge(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<StatusCode, Problem> {
    let why = call.params.take("reason")?.unwrap_or_else(|| "no reason was given".to_owned());
    call.params.finish()?;
    if why.chars().count() > MAX_REASON {
        return Err(Problem::bad_request(format!("the reason is longer than {MAX_REASON} characters")));
    }
    shared.api.archiver.pause_purge(Some(&why)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /purge/pause`
pub async fn resume_purge(State(shared): State<Arc<Shared>>, call: Call) -> Result<StatusCode, Problem> {
    call.params.finish()?;
    shared.api.archiver.pause_purge(None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize)]
pub struct RunList {
    runs: Vec<RunReport>,
}

/// `GET /runs`
pub async fn runs(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<RunList>, Problem> {
    let limit = call.params.take_number("limit", 1, MAX_RUNS)?.unwrap_or(DEFAULT_RUNS);
    call.params.finish()?;
    Ok(Json(RunList { runs: shared.api.archiver.runs(limit as u32).await? }))
}

/// `GET /runs/{id}`
pub async fn run(State(shared): State<Arc<Shared>>, call: Call) -> Result<Json<RunReport>, Problem> {
    let id = call.path("id").unwrap_or_default().to_owned();
    call.params.finish()?;
    let id: i64 = id.parse().map_err(|_| Problem::bad_request(format!("\"{id}\" is no run id")))?;
    let report = shared.api.archiver.wait_for(id, Duration::ZERO).await?;
    report.map(Json).ok_or_else(|| {
        let detail = format!("there is no report of run {id}; reports are kept for a while only");
        Problem::new(StatusCode::NOT_FOUND, "no-such-run", "No such run", detail)
    })
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// A disk that was full counts as full for so long: small writes still find room on one that takes no large ones.
const FULL_FOR: Duration = Duration::from_secs(30);

/// `GET /readyz`: requests will be answered, as far as one can know beforehand.
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    if shared.api.shutdown.is_cancelled() {
        return Err(stopping());
    }
    if let Some(at) = shared.api.ingest.no_room_at().filter(|at| shared.api.clock.now().since(*at) < FULL_FOR) {
        let detail = format!("the hot tier had no room for records at {at}: make room on its disk; reads go on");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not ready", detail)
            .with("tier", "hot")
            .retry_after(FULL_FOR.as_secs() as u32));
    }
    let not_ready = |error: crate::audit::NotReady| {
        // Its Display names the server without its password; that it is away is no secret.
        let detail = "a hot tier server does not answer";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not ready", detail)
            .with("tier", "hot")
            .retry_after(2)
            .caused_by(error)
    };
    shared.api.status.ready().await.map_err(not_ready)?;
    Ok("ready\n")
}

/// `GET /metrics`
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let metrics = &shared.api.metrics;
    metrics.queue_bytes.set(i64::try_from(shared.api.ingest.queued_bytes()).unwrap_or(i64::MAX));
    let text = metrics.encode().map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}
