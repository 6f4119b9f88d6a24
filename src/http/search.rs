//! `GET /search`: finds as they are made, and last what was searched.
//!
//! An answer without its summary was cut: the stream is aborted when a tier fails.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::params::Call;
use super::query::take_filter;
use super::{Problem, Shared};
use crate::model::Instance;
use crate::read::{ListFilter, ReadError, Search, SearchRequest, owner_json};
use crate::telemetry::chain;

const DEFAULT_LIMIT: u64 = 1_000;
pub const MAX_LIMIT: u64 = 100_000;

/// A search that takes longer says that it was cut.
const PATIENCE: Duration = Duration::from_secs(120);

/// Finds are sent in pieces of about this size, and at the latest after so many blocks without one:
/// a client that waits sees that the search goes on.
const PIECE_BYTES: usize = 16 * 1024;
const BLOCKS_PER_PIECE: usize = 200;

/// `GET /search`
pub async fn search(State(shared): State<Arc<Shared>>, mut call: Call) -> Result<Response, Problem> {
    let app = call.app()?;
    let params = &mut call.params;
    let instance: Option<Instance> = params.take_parsed("instance")?;
    let among = ListFilter {
        app,
        job: params.take_parsed("job")?,
        labels: params.take_labels(),
        outcome: params.take_parsed("outcome")?,
        ..ListFilter::default()
    };
    let filter = take_filter(params)?;
    let limit = params.take_number("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    call.params.finish()?;
    let turn = Arc::clone(&shared.searches).try_acquire_owned();
    let turn = turn.map_err(|_| {
        let detail = "as many searches as this daemon takes are under way";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much at once", detail).retry_after(5)
    })?;
    let request = SearchRequest { among, instance, filter, limit, patience: PATIENCE };
    let mut pieces = Pieces { search: shared.api.reader.search(request), ended: false, _turn: turn };
    // What can fail before the first byte is an ordinary refusal.
    let first = pieces.next().await?;
    let stream = futures::stream::try_unfold((first, pieces), move |(ready, mut pieces)| {
        let shared = Arc::clone(&shared);
        async move {
            let piece = match ready {
                Some(piece) => Ok(Some(piece)),
                None => pieces.next().await,
            };
            if let Err(error) = &piece {
                shared.api.metrics.error("stream");
                tracing::error!(error = chain(error), "a search broke off");
            }
            Ok::<_, ReadError>(piece?.map(|piece| (piece, (None, pieces))))
        }
    });
    let mut response = Body::from_stream(stream).into_response();
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The answer, piece by piece.
struct Pieces {
    search: Search,
    ended: bool,
    _turn: OwnedSemaphorePermit,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let mut out = Vec::new();
        for _ in 0..BLOCKS_PER_PIECE {
            let more = self.search.next(|view, line, json| {
                out.extend_from_slice(format!("{{\"record\":{{\"line\":{line},{}", owner_json(&view.key())).as_bytes());
                out.extend_from_slice(json.get(1..).unwrap_or_default());
                out.extend_from_slice(b"}\n");
            });
            if !more.await? {
                self.ended = true;
                out.extend_from_slice(self.summary().as_bytes());
                break;
            }
            if out.len() >= PIECE_BYTES {
                break;
            }
        }
        // NDJSON readers pass over an empty line; a connection that is silent looks dead.
        if out.is_empty() {
            out.push(b'\n');
        }
        Ok(Some(out.into()))
    }

    fn summary(&self) -> String {
        let progress = self.search.progress();
        let summary = serde_json::json!({"summary": {
            "found": progress.found,
            "scanned": {
                "instances": progress.scanned, "objects": progress.objects,
                "frames": progress.frames, "bytes": progress.bytes,
            },
            "skipped": {
                "instances": progress.skipped, "objects": progress.objects_skipped,
                "frames": progress.frames_skipped,
            },
            "complete": progress.cut.is_none(),
            "why": progress.cut,
        }});
        format!("{summary}\n")
    }
}
