//! A whole log as a file, streamed in the memory of one block.
//!
//! A stream that fails is aborted: the client sees a broken transfer, never a short file (I8). What
//! can fail before the first byte is an ordinary refusal.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::params::Call;
use super::query::{take_filter, take_range};
use super::render::{Format, Renderer};
use super::{Problem, Shared, caching, read};
use crate::model::LineRange;
use crate::read::{Matching, ReadError, View};
use crate::telemetry::chain;

/// Blocks of few matches are gathered up to this size, so that a filter does not make a stream of
/// tiny pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// `GET …/download`
pub async fn download(
    State(shared): State<Arc<Shared>>,
    mut call: Call,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let (app, instance) = call.target()?;
    let attempt = call.params.take_parsed("attempt")?;
    let (from, to) = take_range(&mut call.params)?;
    let filter = take_filter(&mut call.params)?;
    let format = Format::take(&mut call.params, &[Format::Text, Format::Raw, Format::Ndjson])?;
    let format = format.unwrap_or(Format::Text);
    call.params.finish()?;
    let view = match shared.api.reader.open(&app, &instance, attempt).await {
        Ok(view) => view,
        Err(error) => return Err(read::unreadable(&shared, &app, &instance, attempt, error).await),
    };
    let range = LineRange::new(from.unwrap_or(0), to.unwrap_or(u64::MAX));
    let closed = from.zip(to).map(|_| range);
    let etag = closed.and_then(|range| caching::etag(&view, range, format, &(range, &filter)));
    if let Some(unchanged) = caching::not_modified(&request, etag.as_ref()) {
        return Ok(unchanged);
    }
    let mut pieces = Pieces {
        lines: shared.api.reader.matching(&view, range, filter),
        renderer: Renderer::identified(format, &view.identity()),
    };
    let first = pieces.next().await?;
    let body = Body::from_stream(stream(Arc::clone(&shared), first, pieces));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CONTENT_DISPOSITION, file_name(&view, format)?);
    headers.insert("x-logtier-state", HeaderValue::from_static(view.attempt.shown_state(view.at).as_str()));
    let next_line = view.attempt.next_line.min(range.end());
    headers.insert("x-logtier-next-line", next_line.into());
    headers.extend(caching::headers(etag));
    Ok(response)
}

/// Rendered lines, some blocks at a time.
struct Pieces {
    lines: Matching,
    renderer: Renderer,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while self.renderer.out.len() < PIECE_BYTES {
            let renderer = &mut self.renderer;
            if !self.lines.next(|line, json| renderer.push(line, json)).await? {
                break;
            }
        }
        let piece = std::mem::take(&mut self.renderer.out);
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

fn stream(
    shared: Arc<Shared>,
    first: Option<Bytes>,
    pieces: Pieces,
) -> impl futures::Stream<Item = Result<Bytes, ReadError>> {
    futures::stream::try_unfold((first, pieces), move |(ready, mut pieces)| {
        let shared = Arc::clone(&shared);
        async move {
            let piece = match ready {
                Some(piece) => Ok(Some(piece)),
                None => pieces.next().await,
            };
            if let Err(error) = &piece {
                shared.api.metrics.error("stream");
                tracing::error!(error = chain(error), "a download broke off");
            }
            Ok(piece?.map(|piece| (piece, (None, pieces))))
        }
    })
}

/// `app-instance-attempt.log`, for clients of every age.
fn file_name(view: &View, format: Format) -> Result<HeaderValue, Problem> {
    let key = view.key();
    let ending = if format == Format::Ndjson { "ndjson" } else { "log" };
    let name = format!("{}-{}-{}.{ending}", key.app, key.instance, key.attempt);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let encoded = utf8_percent_encode(&name, NON_ALPHANUMERIC);
    let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    HeaderValue::try_from(value).map_err(Problem::internal)
}
