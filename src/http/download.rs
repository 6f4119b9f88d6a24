//! A whole log as a file, streamed in the memory of one block.
//!
//! A stream that fails is aborted: the client sees a broken transfer, never a short file (I8). What
//! can fail before the first byte is an ordinary refusal.
//!
//! NDJSON is what objects hold: archived lines go out as they stand there, and to a client that takes
//! zstd whole frames do, which nobody compresses again.

use std::collections::VecDeque;
use std::io;
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
use crate::read::{Lines, Matching, ReadError, Shape, View};
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
    let zstd = format == Format::Ndjson && filter.is_empty() && view.attempt.archived_line > 0 && takes_zstd(&request);
    let renderer = Renderer::identified(format, &view.identity());
    let reader = &shared.api.reader;
    let mut pieces = match format {
        Format::Ndjson if filter.is_empty() => {
            let lines = Box::new(reader.ndjson(&view, range, zstd));
            Pieces::Ndjson(Ndjson { lines, renderer, zstd, ready: VecDeque::new() })
        }
        _ => Pieces::Rendered(Box::new(reader.matching(&view, range, filter)), renderer),
    };
    let first = pieces.next().await?;
    // No frame at all is nothing that a decoder takes.
    let is_zstd = zstd && first.is_some();
    let body = Body::from_stream(stream(Arc::clone(&shared), first, pieces));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    if is_zstd {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CONTENT_DISPOSITION, file_name(&view, format)?);
    headers.insert("x-logtier-state", HeaderValue::from_static(view.attempt.shown_state(view.at).as_str()));
    let next_line = view.attempt.next_line.min(range.end());
    headers.insert("x-logtier-next-line", next_line.into());
    headers.extend(caching::headers(etag));
    if zstd {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

/// Whether `Accept-Encoding` names zstd, and not to refuse it.
fn takes_zstd(request: &HeaderMap) -> bool {
    let accepted = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_zstd = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("zstd"));
        let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        is_zstd && quality.unwrap_or(1.0) > 0.0
    })
}

/// What is sent, some blocks at a time.
enum Pieces {
    Rendered(Box<Matching>, Renderer),
    Ndjson(Ndjson),
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let (lines, renderer) = match self {
            Self::Ndjson(ndjson) => return ndjson.next().await,
            Self::Rendered(lines, renderer) => (lines, renderer),
        };
        while renderer.out.len() < PIECE_BYTES && lines.next(|line, json| renderer.push(line, json)).await? {}
        let piece = std::mem::take(&mut renderer.out);
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

/// All lines of a range, as they are stored where that can be.
struct Ndjson {
    lines: Box<Lines>,
    /// Lines that had to be made, until there is a piece of them.
    renderer: Renderer,
    /// Every piece is a frame of its own.
    zstd: bool,
    ready: VecDeque<Bytes>,
}

impl Ndjson {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while self.ready.is_empty() {
            let Some(block) = self.lines.next().await? else {
                self.end_piece().await?;
                break;
            };
            if block.shape == Shape::Records {
                for (line, json) in block.records() {
                    self.renderer.push(line, json).map_err(ReadError::from)?;
                }
                if self.renderer.out.len() < PIECE_BYTES {
                    continue;
                }
            }
            self.end_piece().await?;
            match block.shape {
                Shape::Records => {}
                Shape::Ndjson => self.send(block.records).await?,
                Shape::Frame => self.ready.push_back(block.records),
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Sends the lines that were rendered so far.
    async fn end_piece(&mut self) -> Result<(), Broken> {
        let piece = std::mem::take(&mut self.renderer.out);
        if piece.is_empty() { Ok(()) } else { self.send(piece.into()).await }
    }

    async fn send(&mut self, lines: Bytes) -> Result<(), Broken> {
        let piece = match self.zstd {
            // Quickly: of a large log these are its ends.
            true => tokio::task::spawn_blocking(move || zstd::bulk::compress(&lines, 1))
                .await
                .map_err(io::Error::from)??
                .into(),
            false => lines,
        };
        self.ready.push_back(piece);
        Ok(())
    }
}

/// Why a download ends before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("compress lines")]
    Compress(#[from] io::Error),
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Read(error) => error.into(),
            Broken::Compress(_) => Self::internal(broken),
        }
    }
}

fn stream(
    shared: Arc<Shared>,
    first: Option<Bytes>,
    pieces: Pieces,
) -> impl futures::Stream<Item = Result<Bytes, Broken>> {
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
