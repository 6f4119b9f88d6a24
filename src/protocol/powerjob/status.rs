//! `POST /server/reportInstanceStatus`, read on its way: which job an instance belongs to, and how it ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attempts::attempt_at;
use super::front::Front;
use super::{InstanceFacts, InstanceId, Status};
use crate::ingest::{EndError, Facts};
use crate::model::{AttemptKey, Millis};
use crate::read::ReadError;
use crate::telemetry::Metrics;

/// A longer report is forwarded and not read; PowerJob cuts an instance's result at 8 KB.
const MAX_REPORT_BYTES: usize = 1 << 20;

/// Reports that wait for the database: 1 MB. A running instance reports every ten seconds.
const MAX_WAITING: usize = 10_000;

/// Reports that are written at a time.
const WRITERS: usize = 8;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What is read of a report; there is more in it.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusReport {
    app_id: Option<i64>,
    job_id: Option<i64>,
    instance_id: i64,
    wf_instance_id: Option<i64>,
    instance_status: i64,
    #[serde(default)]
    start_time: i64,
}

/// The way into the queue.
pub struct Statuses {
    sender: mpsc::Sender<StatusReport>,
    metrics: Arc<Metrics>,
}

/// The queue's other end; shared, so that a writer that died can be started again.
#[derive(Clone)]
pub struct StatusQueue(Arc<tokio::sync::Mutex<mpsc::Receiver<StatusReport>>>);

impl Statuses {
    pub fn new(metrics: Arc<Metrics>) -> (Self, StatusQueue) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self { sender, metrics }, StatusQueue(Arc::new(tokio::sync::Mutex::new(receiver))))
    }

    fn note(&self, body: &[u8]) {
        match serde_json::from_slice::<StatusReport>(body) {
            Ok(report) if self.sender.try_send(report.clone()).is_err() => {
                self.metrics.powerjob_lost_states.inc();
                tracing::warn!(
                    instance = report.instance_id,
                    "too many states wait for the database; this one is lost"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a state that was forwarded cannot be read"),
        }
    }
}

pub async fn report_status(State(front): State<Arc<Front>>, request: Request<Body>) -> Response {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let request = request.map(|body| {
        let seen = Arc::clone(&seen);
        Body::from_stream(body.into_data_stream().inspect_ok(move |piece: &Bytes| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            // One byte more than allowed marks it as too long.
            let room = (MAX_REPORT_BYTES + 1).saturating_sub(seen.len());
            seen.extend_from_slice(&piece[..piece.len().min(room)]);
        }))
    });
    let has_upstream = front.forwarder.has_any();
    let answer = if has_upstream {
        front.forwarder.pass(request).await
    } else {
        let read = axum::body::to_bytes(request.into_body(), MAX_REPORT_BYTES).await;
        read.ok().map(|_| accepted())
    };
    let answer = answer.unwrap_or_else(|| axum::http::StatusCode::BAD_REQUEST.into_response());
    if answer.status().is_success() {
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.len() <= MAX_REPORT_BYTES {
            front.statuses.note(&seen);
        }
    }
    answer
}

/// What PowerJob answers: the worker stops to report the end.
fn accepted() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"success":true,"data":null,"message":null}"#).into_response()
}

impl StatusQueue {
    /// Writes what comes, until it is told to stop; then what is left, once.
    pub async fn run(&self, front: &Front, stop: &CancellationToken) {
        let mut queue = self.0.lock().await;
        let reports = futures::stream::poll_fn(|context| queue.poll_recv(context));
        let coming = reports.take_until(stop.cancelled());
        coming.for_each_concurrent(WRITERS, |report| write_until_done(front, report, stop)).await;
        queue.close();
        while let Some(report) = queue.recv().await {
            write_until_done(front, report, stop).await;
        }
    }
}

async fn write_until_done(front: &Front, report: StatusReport, stop: &CancellationToken) {
    let Ok(id) = InstanceId::new(report.instance_id) else { return };
    loop {
        let error = match write(front, id, &report).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if !error.passes() || stop.is_cancelled() {
            tracing::warn!(instance = %id, %error, "a state is not stored");
            if error.passes() {
                front.parts.metrics.powerjob_lost_states.inc();
            }
            return;
        }
        tokio::select! {
            () = front.parts.clock.sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    End(#[from] EndError),
}

impl WriteError {
    fn passes(&self) -> bool {
        match self {
            Self::Read(error) => error.is_unavailable(),
            Self::End(EndError::Db(error)) => !error.is_permanent(),
            Self::End(EndError::Contended) => true,
            Self::End(_) => false,
        }
    }
}

async fn write(front: &Front, id: InstanceId, report: &StatusReport) -> Result<(), WriteError> {
    let Some(status) = Status::from_code(report.instance_status) else { return Ok(()) };
    let known = InstanceFacts { app_id: report.app_id, job_id: report.job_id, wf_instance_id: report.wf_instance_id };
    let (app, instance) = (front.app.clone(), id.instance());
    let started_at = Millis::new(report.start_time);
    let (attempt, view) = attempt_at(&front.parts.reader, &app, &instance, started_at).await?;
    let facts = Facts {
        key: AttemptKey { app, instance, attempt },
        job: known.job(),
        labels: known.labels(),
        started_at: (report.start_time > 0).then_some(started_at),
    };
    if let Some(outcome) = status.outcome() {
        front.parts.ingest.finish(facts, Some(outcome), None).await?;
    } else if view.is_none_or(|view| view.job.is_none() && facts.job.is_some()) {
        front.parts.ingest.declare(facts).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_report_only_what_is_needed_is_read() {
        let body = r#"{"appId":1,"jobId":2,"instanceId":3,"wfInstanceId":null,"appendedWfContext":{"a":"b"},
            "instanceStatus":5,"result":"ok","totalTaskNum":1,"startTime":1700000000000,"endTime":null}"#;
        let report: StatusReport = serde_json::from_str(body).expect("a report");
        assert_eq!((report.app_id, report.job_id, report.wf_instance_id), (Some(1), Some(2), None));
        assert_eq!((report.instance_id, report.instance_status, report.start_time), (3, 5, 1_700_000_000_000));
    }
}
