//! Deleting by name, and legal holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::errors::{UNKNOWN, conflict, gone, never_logged};
use super::params::Call;
use super::schemas::Hold;
use super::{Problem, Shared};
use crate::archive::{Explanation, Marked};

/// `DELETE` of an instance: all its attempts, or the one that is named
pub async fn delete(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Response, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    let dry_run = call.params.take_flag("dry_run")?;
    call.params.finish()?;
    let archiver = &shared.api.archiver;
    let (marked, lost) = if dry_run {
        archiver.rehearse_delete(&app, &instance, attempt).await?
    } else {
        (archiver.delete(&app, &instance, attempt).await?, Vec::new())
    };
    match marked {
        Marked::Done if dry_run => {
            let report = json!({"dry_run": true, "app": app, "instance": instance, "attempts": lost});
            Ok(Json(report).into_response())
        }
        Marked::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Marked::Unknown => Err(never_logged(UNKNOWN)),
        Marked::Gone { state, at } => Err(gone(state, at)),
        Marked::Held => {
            let detail = "a legal hold keeps it: GET …/retention, or `logtier retention explain`, says whether its own or \
                          its rule's; where you may, release its own first: DELETE …/hold, or `logtier hold --release`";
            Err(conflict("held", "Held", detail))
        }
    }
}

/// `GET …/retention`
pub async fn explain(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<Explanation>, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    let explained = shared.api.archiver.explain(&app, &instance, attempt).await?;
    explained.map(Json).ok_or_else(|| never_logged(UNKNOWN))
}

/// `PUT …/hold`
pub async fn hold(state: State<Arc<Shared>>, call: Call) -> Result<Json<Hold>, Problem> {
    set(state, call, true).await
}

/// `DELETE …/hold`
pub async fn release(state: State<Arc<Shared>>, call: Call) -> Result<Json<Hold>, Problem> {
    set(state, call, false).await
}

async fn set(State(shared): State<Arc<Shared>>, mut call: Call, on: bool) -> Result<Json<Hold>, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    match shared.api.archiver.hold(&app, &instance, attempt, on).await? {
        Marked::Unknown => Err(never_logged(UNKNOWN)),
        Marked::Gone { state, at } => Err(gone(state, at)),
        Marked::Done | Marked::Held => Ok(Json(Hold { app, instance, hold: on })),
    }
}
