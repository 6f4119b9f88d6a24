//! Deleting by name, and legal holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::errors::{UNKNOWN, conflict, never_logged};
use super::params::Call;
use super::schemas::Hold;
use super::{Problem, Shared};
use crate::archive::Marked;

/// `DELETE` of an instance: all its attempts, or the one that is named
pub async fn delete(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<StatusCode, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    match shared.api.archiver.delete(&app, &instance, attempt).await? {
        Marked::Done => Ok(StatusCode::NO_CONTENT),
        Marked::Unknown => Err(never_logged(UNKNOWN)),
        Marked::Held => {
            let detail =
                "a legal hold keeps it; where you may, release that first: DELETE …/hold, or `logtier hold --release`";
            Err(conflict("held", "Held", detail))
        }
    }
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
        Marked::Done | Marked::Held => Ok(Json(Hold { app, instance, hold: on })),
    }
}
