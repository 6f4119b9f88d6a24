//! What a cache may keep: a closed range of stored lines, if it asks each time whether it still stands.
//!
//! Lines never change, but logs can be deleted, so nothing is ever fresh without asking. The layer
//! around all routes says `no-store` of whatever has no word of its own.

use std::fmt::Debug;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use super::render::Format;
use crate::model::LineRange;
use crate::read::View;

/// The tag of an answer about `range`, which `query` tells from other questions about it; `None`
/// where not all of its lines are stored. What else the answers show of the attempt is part of it.
pub fn etag(view: &View, range: LineRange, format: Format, query: &impl Debug) -> Option<HeaderValue> {
    let attempt = &view.attempt;
    if range.end() > attempt.next_line || range.start() < attempt.trimmed_line {
        return None;
    }
    let (state, is_final) = (attempt.shown_state(view.at).as_str(), view.is_final());
    let job = view.job.as_ref().map_or("", crate::model::Job::as_str);
    let (id, labels) = (attempt.id.get(), attempt.labels.to_json());
    let all = format!("2 {id} {state} {is_final} {} {job} {labels} {query:?}", format.as_str());
    HeaderValue::try_from(format!("W/\"{:016x}\"", xxh3_64(all.as_bytes()))).ok()
}

/// 304, where the client has this answer already.
pub fn not_modified(request: &HeaderMap, etag: Option<&HeaderValue>) -> Option<Response> {
    let etag = etag?;
    let strong = etag.to_str().unwrap_or("").trim_start_matches("W/");
    let has_it = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == strong)
    });
    has_it.then(|| (StatusCode::NOT_MODIFIED, headers(Some(etag.clone()))).into_response())
}

pub fn headers(etag: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    headers
}
