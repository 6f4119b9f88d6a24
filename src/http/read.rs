//! Records out: a page, and what is known of an instance.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::errors::{gone, never_logged};
use super::params::Call;
use super::query::RecordQuery;
use super::render::{Format, Renderer};
use super::shown::{ShownAttempt, Summary, TierShares};
use super::{Problem, Shared, caching};
use crate::model::{Age, App, AttemptNo, Instance};
use crate::read::{Cursor, Page, PageRequest, ReadError, View};

/// Attempts that a summary names.
const MAX_ATTEMPTS_SHOWN: u32 = 1_000;

/// Objects that a summary names; an attempt that never ends has one each window.
const MAX_OBJECTS_SHOWN: u32 = 1_000;

const X_STATE: HeaderName = HeaderName::from_static("x-logtier-state");
const X_TIER: HeaderName = HeaderName::from_static("x-logtier-tier");
/// How many lines the attempt has.
const X_LINES: HeaderName = HeaderName::from_static("x-logtier-lines");
const X_NEXT_LINE: HeaderName = HeaderName::from_static("x-logtier-next-line");
const X_NEXT_CURSOR: HeaderName = HeaderName::from_static("x-logtier-next-cursor");

/// `GET` of an instance
pub async fn summary(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Json<Summary>, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    call.params.finish()?;
    summarize(&shared, &app, &instance, attempt).await.map(Json)
}

async fn summarize(
    shared: &Shared,
    app: &App,
    instance: &Instance,
    attempt: Option<AttemptNo>,
) -> Result<Summary, Problem> {
    let reader = &shared.api.reader;
    let view = match reader.show(app, instance, attempt).await {
        Ok(view) => view,
        Err(error) => return Err(unreadable(shared, app, instance, attempt, error).await),
    };
    let state = view.attempt.state_at(view.at);
    if state.is_gone() {
        return Err(gone(state, view.attempt.gone_since()));
    }
    let (segments, rule) = reader.objects(&view, MAX_OBJECTS_SHOWN).await?;
    let rules = &shared.api.settings.rules;
    let rule = rule.unwrap_or_else(|| rules.rule_for(app, view.job.as_ref(), view.attempt.outcome).name.clone());
    let attempts = reader.attempts(app, instance, MAX_ATTEMPTS_SHOWN).await?;
    let shown = ShownAttempt::new(app, view.job.as_ref(), &view.attempt, view.at);
    // The archiver fixes it when lines move; until then it is what the rule says now.
    let by_rule = match rules.get(&rule).map(|rule| rule.cold_for) {
        Some(Age::For(span)) => view.attempt.finished_at.map(|finished| finished.after(span)),
        _ => None,
    };
    Ok(Summary {
        attempt: shown.expiring_at(view.attempt.expires_at.or(by_rule)),
        attempts: attempts.into_iter().map(AttemptNo::get).collect(),
        rule: Some(rule.to_string()),
        tiers: TierShares::new(&view.attempt, segments),
    })
}

/// What a read's error means; of an attempt that is not known, which ones are.
pub async fn unreadable(
    shared: &Shared,
    app: &App,
    instance: &Instance,
    attempt: Option<AttemptNo>,
    error: ReadError,
) -> Problem {
    let (Some(attempt), ReadError::NeverLogged) = (attempt, &error) else { return error.into() };
    match shared.api.reader.attempts(app, instance, MAX_ATTEMPTS_SHOWN).await {
        Ok(known) if !known.is_empty() => {
            let known: Vec<u32> = known.into_iter().map(AttemptNo::get).collect();
            let listed = known.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            never_logged(format!("the instance has no attempt {attempt}, it has {listed}")).with("attempts", known)
        }
        _ => error.into(),
    }
}

/// `GET …/records`
pub async fn records(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (app, instance) = call.target()?;
    let query = RecordQuery::take(&mut call.params)?;
    let all = [Format::Json, Format::Ndjson, Format::Text, Format::Raw];
    let format = Format::take(&mut call.params, &all)?.unwrap_or_else(|| Format::accepted(&headers));
    call.params.finish()?;
    let view = opened(&shared, &app, &instance, &query).await?;
    let etag = query.closed_range().and_then(|range| caching::etag(&view, range, format, &query));
    if let Some(unchanged) = caching::not_modified(&headers, etag.as_ref()) {
        return Ok(unchanged);
    }
    let request = query.page_request(view.attempt.next_line);
    let mut page = shared.api.reader.page(&view, &request).await?;
    if query.looks_back() {
        turn_around(&mut page, &request, &view);
    }
    let body = match format {
        Format::Json => page_json(&view, &page)?,
        _ => rendered(&page, format)?,
    };
    let mut response = Body::from(body).into_response();
    let about = [
        (header::CONTENT_TYPE, format.content_type().to_owned()),
        (X_STATE, view.attempt.shown_state(view.at).as_str().to_owned()),
        (X_TIER, tier(&page, &view).to_owned()),
        (X_NEXT_LINE, page.next.line.to_string()),
        (X_LINES, view.attempt.next_line.to_string()),
        (X_NEXT_CURSOR, page.next.to_string()),
    ];
    for (name, value) in about {
        response.headers_mut().insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
    }
    response.headers_mut().extend(caching::headers(etag));
    Ok(response)
}

/// The attempt, after waiting for a line where the client asked for that.
async fn opened(shared: &Shared, app: &App, instance: &Instance, query: &RecordQuery) -> Result<View, Problem> {
    let reader = &shared.api.reader;
    let view = match query.wait_seconds.filter(|seconds| *seconds > 0) {
        None => reader.open(app, instance, query.attempt).await,
        Some(seconds) => {
            let waited = reader.wait_for(app, instance, query.attempt, query.start(), Duration::from_secs(seconds));
            tokio::select! {
                view = waited => view,
                // A daemon that stops says what there is.
                () = shared.api.shutdown.cancelled() => reader.open(app, instance, query.attempt).await,
            }
        }
    };
    match view {
        Ok(view) => Ok(view),
        Err(error) => Err(unreadable(shared, app, instance, query.attempt, error).await),
    }
}

/// `last` reads backwards; it shows forwards and goes on behind the end.
fn turn_around(page: &mut Page, request: &PageRequest, view: &View) {
    page.lines.reverse();
    let end = request.range.map_or(u64::MAX, crate::model::LineRange::end).min(view.attempt.next_line);
    page.next = Cursor { attempt: view.attempt.attempt, line: end };
    page.at_end = true;
}

#[derive(Serialize)]
struct PageHead<'a> {
    app: &'a str,
    instance: &'a str,
    attempt: u32,
    job: Option<&'a str>,
    state: &'static str,
    attempt_final: bool,
}

fn page_json(view: &View, page: &Page) -> Result<Vec<u8>, Problem> {
    let head = PageHead {
        app: view.app.as_str(),
        instance: view.attempt.instance.as_str(),
        attempt: view.attempt.attempt.get(),
        job: view.job.as_ref().map(crate::model::Job::as_str),
        state: view.attempt.shown_state(view.at).as_str(),
        attempt_final: view.is_final(),
    };
    let mut out = serde_json::to_vec(&head).map_err(Problem::internal)?;
    out.pop();
    out.extend_from_slice(b",\"records\":[");
    let records = rendered(page, Format::Json)?;
    out.extend_from_slice(records.strip_suffix(b",").unwrap_or(&records));
    out.extend_from_slice(format!("],\"next_cursor\":\"{}\",\"at_end\":{}}}", page.next, page.at_end).as_bytes());
    Ok(out)
}

fn rendered(page: &Page, format: Format) -> Result<Vec<u8>, Problem> {
    let mut renderer = Renderer::numbered(format);
    for line in &page.lines {
        renderer.push(line.line, &line.json).map_err(ReadError::from)?;
    }
    Ok(renderer.out)
}

/// The tiers that were read; of an empty page, where the attempt's lines are.
fn tier(page: &Page, view: &View) -> &'static str {
    match page.tiers.as_str() {
        "" if view.attempt.archived_line > 0 && view.attempt.hot_lines().is_empty() => "cold",
        "" => "hot",
        touched => touched,
    }
}
