//! Lists of apps, jobs and attempts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::{Call, Params, invalid};
use super::shown::{ShownAttempt, Summary};
use super::{Problem, Shared, read};
use crate::model::{App, AttemptId, ShownState};
use crate::read::ListFilter;

const DEFAULT_LIMIT: u64 = 100;
pub const MAX_LIMIT: u64 = 1_000;

/// Jobs of one app that are looked through for a page of them.
const MAX_JOBS: u32 = 10_000;

#[derive(Debug, Serialize, ToSchema)]
pub struct AppList {
    apps: Vec<String>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    jobs: Vec<String>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceList {
    instances: Vec<ShownAttempt>,
    next_cursor: Option<String>,
}

/// What `GET /instances` answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub enum ListOrOne {
    List(InstanceList),
    One(Box<Summary>),
}

/// `GET /apps`
pub async fn apps(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<AppList>, Problem> {
    let (after, limit) = (take_cursor(&mut call.params)?.unwrap_or_default(), take_limit(&mut call.params)?);
    call.params.finish()?;
    let apps = shared.api.reader.apps(&after, limit as u32 + 1).await?;
    let (apps, next_cursor) = one_page(apps, limit);
    Ok(Json(AppList { apps, next_cursor }))
}

/// `GET /apps/{app}/jobs`
pub async fn jobs(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<JobList>, Problem> {
    let app: App = call.app()?.unwrap_or_default();
    let (after, limit) = (take_cursor(&mut call.params)?.unwrap_or_default(), take_limit(&mut call.params)?);
    call.params.finish()?;
    let mut jobs = shared.api.reader.jobs(&app, MAX_JOBS).await?;
    jobs.retain(|job| *job > after);
    let (jobs, next_cursor) = one_page(jobs, limit);
    Ok(Json(JobList { jobs, next_cursor }))
}

/// `GET /instances`: a list, or with `instance=` the one that it names.
pub async fn instances_or_one(state: State<Arc<Shared>>, call: Call) -> Result<Response, Problem> {
    if call.params.has("instance") {
        return Ok(read::summary(state, call).await?.into_response());
    }
    Ok(instances(state, call).await?.into_response())
}

/// `GET /apps/{app}/instances`
pub async fn instances(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<InstanceList>, Problem> {
    let app = call.app()?;
    let params = &mut call.params;
    let filter = ListFilter {
        app,
        job: params.take_parsed("job")?,
        labels: params.take_labels(),
        state: params.take("state")?.map(|word| state(&word)).transpose()?,
        outcome: params.take_parsed("outcome")?,
        since: params.take_millis("since")?,
        until: params.take_millis("until")?,
    };
    let before = take_cursor(params)?.map(|id| id.parse().map(AttemptId::stored));
    let before = before.transpose().map_err(|_| Problem::bad_request("the cursor is not one of this list"))?;
    let limit = take_limit(params)?;
    call.params.finish()?;
    let page = shared.api.reader.instances(&filter, before, limit).await?;
    let now = shared.api.clock.now();
    let shown = page.attempts.iter().map(|one| ShownAttempt::new(&one.app, one.job.as_ref(), &one.attempt, now));
    Ok(Json(InstanceList {
        instances: shown.collect(),
        next_cursor: page.next.map(|id| cursor(&id.get().to_string())),
    }))
}

fn state(word: &str) -> Result<ShownState, Problem> {
    use ShownState::{Archived, Deleted, Expired, Finished, Open};
    let known = [Open, Finished, Archived, Expired, Deleted].into_iter().find(|state| state.as_str() == word);
    known.ok_or_else(|| invalid("state", word, "it must be one of open, finished, archived, expired, deleted"))
}

fn take_limit(params: &mut Params) -> Result<usize, Problem> {
    Ok(params.take_number("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT) as usize)
}

/// Cursors of lists are the last thing that was shown, wrapped so that nobody builds on it.
fn cursor(last: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("l1:{last}"))
}

fn take_cursor(params: &mut Params) -> Result<Option<String>, Problem> {
    let Some(text) = params.take("cursor")? else { return Ok(None) };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).ok();
    let last = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.strip_prefix("l1:").map(str::to_owned));
    last.map(Some).ok_or_else(|| invalid("cursor", &text, "it is not one that this service gave"))
}

fn one_page(mut names: Vec<String>, limit: usize) -> (Vec<String>, Option<String>) {
    let more = names.len() > limit;
    names.truncate(limit);
    let next = names.last().filter(|_| more).map(|last| cursor(last));
    (names, next)
}
